"""The layer whose output is the residual of a differential equation.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
A residual is a function of quantities, ``(..., batch, 1)`` each: outputs of layers and their
derivatives, columns of x, and unknown coefficients. With several points a row of x has the columns
of each point side by side, and each point has quantities of its own.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from backprop_xp.backends import (
    Array,
    Namespace,
    array_namespace,
    columns_of,
    device_of,
    get_backend,
    require_floating,
    sum_over_batch,
)
from backprop_xp.checks import integer, sequence
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Cache, Gradients, Layer, Parameters
from backprop_xp.networks.equations.derivative_layers import check_differentiable
from backprop_xp.networks.equations.points import Point, Points, Quantity, of_width
from backprop_xp.networks.equations.quantity_names import (
    check_names,
    names_of,
    output_names,
    starts_of,
)
from backprop_xp.networks.jets.jet import Jet, is_condition
from backprop_xp.networks.jets.parts import lifted
from backprop_xp.networks.jets.passes import Term, backward, forward, namespace_of, plan_of, whole
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import INITIALIZERS, Generator, HostArray
from backprop_xp.networks.numbers.random_bits import Key


@dataclass(frozen=True, init=False)
class Equation(Chain):
    """The residual of a differential equation that layers are to solve.

    ``residual(s)`` returns what is to be 0, or a tuple for a system. ``s`` has the layers' outputs
    ``s.u``, ``s.v``, ``s.w`` (or the names ``outputs``), their derivatives ``s.u_t``, ``s.u_xx``,
    the ``variables``, which are the layers' inputs, the ``given`` columns of x behind them, which
    the layers do not get, and the ``unknown`` coefficients, which are learned from their starts.
    ``"tx"`` are two variables or outputs; a string ``given`` is one name. Functions are those of
    ``s.xp``. Names of several letters, ``["time", "x1"]``, have derivatives
    ``s.d("u", "time", "x1")``. ``s.laplacian("u", "x", "y")`` is ``u_xx + u_yy``, in less time.

    With ``points`` of 2 or more, a condition between points, ``s`` is a sequence of points:
    ``s[0].u - s[1].u``. A row of x then has the columns of each point side by side, ``(batch,
    points * n)`` for n variables and given columns. Each point has the derivatives that it uses.

    One call of the residual at construction finds the derivatives that it needs. A training fits
    the residual to targets of 0. Raises ValueError for a residual that mixes rows of x, for codes
    of an Embedding, and for second derivatives of relu or leaky_relu.

    >>> import backprop_xp as bx
    >>> layers = bx.mlp([2, 16, 1], hidden="tanh").layers
    >>> heat = bx.Equation(layers, lambda s: s.u_t - s.k * s.u_xx, "tx", unknown={"k": 1.0})
    >>> network = bx.Network([heat], "mean_squared_error")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> network.forward(theta, [[0.0, 0.5], [0.1, 0.5]]).shape  # the residuals at (t, x)
    (2, 1)
    >>> theta_of_u, unknown = heat.split(theta)
    >>> heat.network.predict(theta_of_u, [[0.0, 0.5]]).shape, unknown
    ((1, 1), {'k': array(1.)})
    """

    differentiates: ClassVar[bool] = True
    returns_residuals: ClassVar[bool] = True
    writes = False
    residual: Callable[[Any], Any]
    variables: tuple[str, ...]
    given: tuple[str, ...]
    unknown: Mapping[str, float] = field(hash=False)
    outputs: tuple[str, ...]
    points: int
    n_in: int = field(compare=False)
    n_out: int = field(compare=False)
    order: int = field(compare=False)
    # The quantities that the residual uses, in the order of its derivatives by them.
    used: tuple[Quantity, ...] = field(compare=False)

    __repr__ = repr_of

    def __init__(
        self,
        layers: Sequence[Layer],
        residual: Callable[[Any], Any],
        variables: str | Sequence[str],
        *,
        given: str | Sequence[str] = (),
        unknown: Mapping[str, float] | None = None,
        outputs: str | Sequence[str] | None = None,
        points: int = 1,
    ) -> None:
        layers = tuple(sequence(layers, "layers", 'bx.mlp([2, 16, 1], hidden="tanh").layers'))
        super().__init__(*layers)
        if propagation.takes_codes(self):
            raise ValueError(
                f"Equation takes layers of numbers, but {type(layers[0]).__name__} takes codes of "
                "categories: give each category an equation of its own."
            )
        if not callable(residual):
            raise TypeError(f"residual must be a function of a point s, not {residual!r}.")
        starts, points = starts_of(unknown or {}), integer(points, "points")
        found = {"variables": names_of(variables, "variables")}
        # A string is one name: what is no variable has no derivatives, whose names take letters.
        found["given"] = (given,) if isinstance(given, str) else names_of(given, "given")
        widths = self.n_in, self.n_out  # of the layers
        found["outputs"] = output_names(widths, found["variables"], outputs)
        check_names(found["outputs"], found["variables"], [*found["given"], *starts])
        vars(self).update(**found, residual=residual, unknown=starts, points=points)
        vars(self).update(n_in=points * self._width, keeps_width=False)
        vars(self).update(names=(*self.names, *starts))
        vars(self).update(shapes=(*self.shapes, *((1, 1) for _ in starts)))
        used, n_out = self._tried()
        order = max(len(one.term) for one in used)
        vars(self).update(used=used, n_out=n_out, order=order)
        check_differentiable(layers, (one.term for one in used), "Equation")

    @property
    def network(self) -> Network:
        """The network of the layers alone, which returns the outputs."""
        return Network(self.layers, "mean_squared_error")

    def split(self, theta: Array) -> tuple[Array, dict[str, Array]]:
        """Return theta of ``network``, and each unknown coefficient, ``(*stack,)``.

        ``theta`` is that of a network whose only layer with parameters is this one.
        """
        require_floating(theta, "theta")
        size = self.network.size
        if theta.shape[-1] != size + len(self.unknown):
            raise ValueError(
                f"theta has {theta.shape[-1]} numbers, but the equation has "
                f"{size + len(self.unknown)}: split takes theta of a network of the equation alone."
            )
        unknown = {name: theta[..., size + i] for i, name in enumerate(self.unknown)}
        return theta[..., :size], unknown

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, and return the starts of the unknown coefficients."""
        ones = INITIALIZERS["ones"](generator, (1, 1))
        starts = (start * ones for start in self.unknown.values())
        return (*super().initialize(generator), *starts)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the residual."""
        own, count = self.by_layer(parameters), len(parameters) - len(self.unknown)
        found, passes = dict[Quantity, Array](), []
        for terms, points in self._passes:
            at = self._variables_of(x, points)
            outputs, cache = forward(self.layers, own, at, plan_of(terms), rng)
            passes.append(cache)
            each = self._outputs_of(points)
            for term, output in zip(terms, outputs, strict=True):
                columns = of_width(output, len(each))
                named = (replace(one, term=term) for one in each)
                found.update({one: columns[..., i, None] for i, one in enumerate(named)})
        values = {
            one: found[one]
            if one.kind == "output"
            else parameters[count + one.number]
            if one.kind == "unknown"
            else x[..., one.point * self._width + one.number, None]
            for one in self.used
        }
        residual = self._residual_of(array_namespace(x), values)
        return residual.value, (residual, passes)

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return dL/dx, and the gradients of the layers and of the unknown coefficients."""
        (residual, passes), xp = cache, array_namespace(g)
        slopes = whole(residual, residual.first, len(self.used))
        each = xp.sum(slopes * g, axis=-1, keepdims=True)
        zeros = xp.zeros_like(each[0, ...])
        found = {one: each[i, ...] for i, one in enumerate(self.used)}

        def side_by_side(quantities: Iterable[Quantity]) -> Array:
            return xp.concat([found.get(one, zeros) for one in quantities], axis=-1)

        own, total, to_x = self.by_layer(parameters), list[Array](), dict[int, Array]()
        n_out, width = len(self.outputs), len(self.variables)
        for (terms, points), own_cache in zip(self._passes, passes, strict=True):
            outputs = self._outputs_of(points)
            gs = [
                of_width(side_by_side(replace(one, term=term) for one in outputs), n_out)
                for term in terms
            ]
            back, gradients = backward(self.layers, own, own_cache, gs, plan_of(terms), **options)
            if back is not None:
                parts = columns_of(of_width(back, len(points) * width), [width] * len(points))
                to_x.update(zip(points, parts, strict=True))
            total = (
                [a + b for a, b in zip(total, gradients, strict=True)] if total else [*gradients]
            )
        unknown = (
            sum_over_batch(found.get(Quantity("unknown", i), zeros))
            for i in range(len(self.unknown))
        )
        backs = list[Array]()
        for point in range(self.points if to_x else 0):
            direct = side_by_side(Quantity("column", i, (), point) for i in range(self._width))
            by_variables = direct[..., :width]
            backs += [to_x[point] + by_variables if point in to_x else by_variables]
            backs += [direct[..., width:]]
        return xp.concat(backs, axis=-1) if backs else None, (*total, *unknown)

    @property
    def _width(self) -> int:
        """The number of columns of x that a point has."""
        return len(self.variables) + len(self.given)

    def _variables_of(self, x: Array, points: Sequence[int]) -> Array:
        """Return the variables of some points, those of a row below each other."""
        starts, n = [self._width * point for point in points], len(self.variables)
        parts = [x[..., start : start + n] for start in starts]
        return of_width(array_namespace(x).concat(parts, axis=-1), n) if parts[1:] else parts[0]

    def _outputs_of(self, points: Sequence[int]) -> list[Quantity]:
        """Return the outputs of some points, those of each point side by side."""
        numbers = range(len(self.outputs))
        return [Quantity("output", i, (), point) for point in points for i in numbers]

    @functools.cached_property
    def _passes(self) -> tuple[tuple[tuple[Term, ...], tuple[int, ...]], ...]:
        """The terms of derivatives that the residual uses, with the points that use the same."""
        terms = dict[int, dict[Term, None]]()
        for one in self.used:
            if one.kind == "output":
                terms.setdefault(one.point, {})[one.term] = None
        alike = dict[frozenset[Term], tuple[tuple[Term, ...], list[int]]]()
        for point, own in sorted(terms.items()):
            alike.setdefault(frozenset(own), (tuple(own), []))[1].append(point)
        return tuple((own, tuple(points)) for own, points in alike.values())

    @functools.cached_property
    def _quantities(self) -> tuple[dict[str, Quantity], ...]:
        """The quantities of each point by name, each output without derivatives."""
        kinds = {"output": self.outputs, "column": (*self.variables, *self.given)}
        named = [
            {
                name: Quantity(kind, i, (), point)
                for kind, names in kinds.items()
                for i, name in enumerate(names)
            }
            for point in range(self.points)
        ]
        unknown = {name: Quantity("unknown", i) for i, name in enumerate(self.unknown)}
        return tuple({**own, **unknown} for own in named)

    def _tried(self) -> tuple[tuple[Quantity, ...], int]:
        """Return the quantities that the residual uses, and the number of its columns."""
        xp, used = get_backend("numpy").namespace(), dict[Quantity, Jet]()
        namespace = namespace_of(xp, ())

        def value_of(quantity: Quantity) -> Jet:
            # Two rows of a number that no formula is likely to divide by, and the derivatives by
            # the second row, on which the residual of the first one must not depend.
            is_row, number = quantity.kind != "unknown", 0.7310585 / (1.0 + quantity.point)
            value = xp.full((1 + is_row, 1), number, device="cpu")
            by_second = xp.asarray([[[0.0], [1.0]]], device="cpu") if is_row else None
            return used.setdefault(quantity, Jet(namespace, value, by_second))

        with xp.errstate(all="ignore"):
            parts = self._parts(namespace, value_of)
        if any(map(_mixes_rows, parts)):
            raise ValueError(
                "The residual of each row must be made of that row alone and have its axis: sums "
                "and means over the rows of x are not possible, since a training takes some rows "
                "at a time. A condition between points, such as u(0) = u(1), or an integral, is an "
                "Equation with points=2 or more, whose rows have several points: lambda s: s[0].u "
                "- s[1].u."
            )
        if not any(one.kind == "output" for one in used):
            raise ValueError(
                f"The residual uses none of the outputs {', '.join(self.outputs)}, so that the "
                "layers could learn nothing from it."
            )
        return tuple(used), sum(part.shape[-1] for part in parts)

    def _parts(self, namespace: Any, value_of: Callable[[Quantity], Jet]) -> list[Jet]:
        """Return the residual's parts, one for each equation, of these quantities."""
        points = Points(
            Point(namespace, names, self.variables, value_of) for names in self._quantities
        )
        result = self.residual(points if self.points > 1 else points[0])
        parts = list(result) if isinstance(result, tuple | list) else [result]
        for part in parts:
            if not isinstance(part, Jet) or is_condition(part):
                found = "a condition" if isinstance(part, Jet) else type(part).__name__
                raise TypeError(
                    f"The residual returned {found}, but what is made of s.u and "
                    "the like is expected, or a tuple of several: lambda s: s.u_t - s.u_xx."
                )
        return parts

    def _residual_of(self, xp: Namespace, values: Mapping[Quantity, Array]) -> Jet:
        """Return the residual with its derivatives by the quantities."""
        namespace, count = namespace_of(xp, ()), len(values)
        some = next(value for one, value in values.items() if one.kind == "output")
        unit = xp.eye(count, dtype=some.dtype, device=device_of(some))
        jets = {
            one: Jet(namespace, value, lifted(unit[:, i, None, None], len(value.shape)))
            for i, (one, value) in enumerate(values.items())
        }
        parts = self._parts(namespace, jets.__getitem__)
        # A part of unknown coefficients alone has a single row.
        zeros = xp.zeros_like(some)
        joined: Jet = namespace.concat([part + zeros for part in parts], axis=-1)
        return joined


def _mixes_rows(part: Jet) -> bool:
    """Whether the residual of the first row depends on the second one, or has no rows."""
    if part.ndim < 2:
        return True
    return part.first is not None and bool((abs(part.first[..., :1, :]) > 0.0).any())
