"""The layer whose output is the residual of a differential equation.

As in ``layers``, ``x`` is ``(..., batch, n_in)``, ``y`` is ``(..., batch, n_out)``, ``g = dL/dy``.
A residual is a function of quantities, ``(..., batch, 1)`` each: outputs of layers and their
derivatives, columns of x, and unknown coefficients.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from backprop_xp.backends import (
    Array,
    Namespace,
    array_namespace,
    device_of,
    get_backend,
    require_floating,
    sum_over_batch,
)
from backprop_xp.checks import real, sequence
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Cache, Gradients, Layer, Parameters
from backprop_xp.networks.equations.derivative_layers import check_differentiable
from backprop_xp.networks.equations.points import Point, Quantity
from backprop_xp.networks.jets.jet import Jet, is_condition
from backprop_xp.networks.jets.parts import lifted
from backprop_xp.networks.jets.passes import Term, backward, forward, namespace_of, plan_of, whole
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import INITIALIZERS, Generator, HostArray
from backprop_xp.networks.numbers.random_bits import Key

_RESERVED = ("d", "laplacian", "xp", "weights")


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

    One call of the residual at construction finds the derivatives that it needs. A training fits
    the residual to targets of 0. Raises ValueError for a residual that mixes rows of x, and for
    second derivatives of relu or leaky_relu.

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
    writes = False
    residual: Callable[[Any], Any]
    variables: tuple[str, ...]
    given: tuple[str, ...]
    unknown: Mapping[str, float] = field(hash=False)
    outputs: tuple[str, ...]
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
    ) -> None:
        layers = tuple(sequence(layers, "layers", 'bx.mlp([2, 16, 1], hidden="tanh").layers'))
        super().__init__(*layers)
        if not callable(residual):
            raise TypeError(f"residual must be a function of a point s, not {residual!r}.")
        starts = _starts(unknown or {})
        found = {"variables": _names(variables, "variables")}
        # A string is one name: what is no variable has no derivatives, whose names take letters.
        found["given"] = (given,) if isinstance(given, str) else _names(given, "given")
        widths = self.n_in, self.n_out  # of the layers
        found["outputs"] = _outputs(widths, found["variables"], outputs)
        _check_names([*found["outputs"], *found["variables"], *found["given"], *starts])
        _check_no_derivatives(found["outputs"], found["variables"], (*found["given"], *starts))
        vars(self).update(**found, residual=residual, unknown=starts)
        n_in = len(found["variables"]) + len(found["given"])
        vars(self).update(names=(*self.names, *starts), n_in=n_in, keeps_width=False)
        vars(self).update(shapes=(*self.shapes, *((1, 1) for _ in starts)))
        used, n_out = self._tried()
        order = max(len(one.term) for one in used)
        vars(self).update(used=used, n_out=n_out, order=order)
        check_differentiable(layers, order, "Equation")

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
        count, terms = len(parameters) - len(self.unknown), self._terms
        own, variables = self.by_layer(parameters), x[..., : len(self.variables)]
        found, passes = forward(self.layers, own, variables, plan_of(terms), rng)
        values = {
            one: found[terms.index(one.term)][..., one.number, None]
            if one.kind == "output"
            else parameters[count + one.number]
            if one.kind == "unknown"
            else x[..., one.number, None]
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

        def back(kind: str, count: int, term: Term = ()) -> Array:
            """Return the gradients by the quantities of a kind, side by side."""
            parts = [found.get(Quantity(kind, i, term), zeros) for i in range(count)]
            return xp.concat(parts, axis=-1)

        gs = [back("output", len(self.outputs), term) for term in self._terms]
        own, plan = self.by_layer(parameters), plan_of(self._terms)
        to_x, gradients = backward(self.layers, own, passes, gs, plan, **options)
        unknown = (
            sum_over_batch(found.get(Quantity("unknown", i), zeros))
            for i in range(len(self.unknown))
        )
        if to_x is not None:
            direct, n = back("column", self.n_in), len(self.variables)
            to_x = xp.concat([to_x + direct[..., :n], direct[..., n:]], axis=-1)
        return to_x, (*gradients, *unknown)

    @functools.cached_property
    def _terms(self) -> tuple[Term, ...]:
        """The terms of derivatives that the residual uses."""
        return tuple(dict.fromkeys(one.term for one in self.used if one.kind == "output"))

    @functools.cached_property
    def _quantities(self) -> dict[str, Quantity]:
        """The quantities by name, each output without derivatives."""
        kinds = {"output": self.outputs, "column": (*self.variables, *self.given)}
        kinds["unknown"] = tuple(self.unknown)
        return {
            name: Quantity(kind, i) for kind, names in kinds.items() for i, name in enumerate(names)
        }

    def _tried(self) -> tuple[tuple[Quantity, ...], int]:
        """Return the quantities that the residual uses, and the number of its columns."""
        xp, used = get_backend("numpy").namespace(), dict[Quantity, Jet]()
        namespace = namespace_of(xp, ())

        def value_of(quantity: Quantity) -> Jet:
            # Two rows of a number that no formula is likely to divide by, and the derivatives by
            # the second row, on which the residual of the first one must not depend.
            is_row = quantity.kind != "unknown"
            value = xp.full((1 + is_row, 1), 0.7310585, device="cpu")
            by_second = xp.asarray([[[0.0], [1.0]]], device="cpu") if is_row else None
            return used.setdefault(quantity, Jet(namespace, value, by_second))

        with xp.errstate(all="ignore"):
            parts = self._parts(Point(namespace, self._quantities, self.variables, value_of))
        if any(map(_mixes_rows, parts)):
            raise ValueError(
                "The residual of each row must be made of that row alone and have its axis: sums "
                "and means over the rows of x are not possible, since a training takes some rows "
                "at a time."
            )
        if not any(one.kind == "output" for one in used):
            raise ValueError(
                f"The residual uses none of the outputs {', '.join(self.outputs)}, so that the "
                "layers could learn nothing from it."
            )
        return tuple(used), sum(part.shape[-1] for part in parts)

    def _parts(self, point: Point) -> list[Jet]:
        """Return the residual's parts, one for each equation."""
        result = self.residual(point)
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
        parts = self._parts(Point(namespace, self._quantities, self.variables, jets.__getitem__))
        # A part of unknown coefficients alone has a single row.
        zeros = xp.zeros_like(some)
        joined: Jet = namespace.concat([part + zeros for part in parts], axis=-1)
        return joined


def _names(names: str | Sequence[str], argument: str) -> tuple[str, ...]:
    """Return names; those of a string are its letters."""
    return tuple(names if isinstance(names, str) else sequence(names, argument, '["time", "x1"]'))


def _starts(unknown: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(unknown, Mapping):
        raise TypeError(f'unknown must be a dictionary such as {{"k": 1.0}}, not {unknown!r}.')
    return {name: real(start, f"unknown[{name!r}]") for name, start in unknown.items()}


def _outputs(
    widths: tuple[int | None, int | None],
    variables: tuple[str, ...],
    outputs: str | Sequence[str] | None,
) -> tuple[str, ...]:
    """Return a name for each output of the layers, of these widths."""
    n_in, n_out = widths
    if n_in not in (None, len(variables)):
        raise ValueError(
            f"The layers take {n_in} columns, but there are {len(variables)} variables: "
            f"{', '.join(variables)}. Further columns of x are given=."
        )
    names = _names(outputs or "uvw"[: n_out or 1], "outputs")
    if n_out is not None and len(names) != n_out:
        raise ValueError(
            f"The layers have {n_out} outputs, but {len(names)} names: {', '.join(names)}. Name "
            'all by outputs=, such as outputs=["u", "v", "w", "p"].'
        )
    return names


def _check_names(names: Sequence[str]) -> None:
    for i, name in enumerate(names):
        if not isinstance(name, str) or not name.isidentifier() or name in _RESERVED:
            raise ValueError(
                f"{name!r} cannot be the name of a quantity: an identifier is expected, other than "
                f"{', '.join(_RESERVED)}."
            )
        if name in names[:i]:
            raise ValueError(f"{name!r} is the name of two quantities of the equation.")


def _mixes_rows(part: Jet) -> bool:
    """Whether the residual of the first row depends on the second one, or has no rows."""
    if part.ndim < 2:
        return True
    return part.first is not None and bool((abs(part.first[..., :1, :]) > 0.0).any())


def _check_no_derivatives(
    outputs: Sequence[str], variables: Sequence[str], names: Sequence[str]
) -> None:
    """Raise ValueError for names that the residual would use for derivatives."""
    for name in names:
        output, _, letters = name.partition("_")
        if output in outputs and letters and not {*letters} - {*variables}:
            raise ValueError(
                f"{name!r} cannot be the name of a quantity: it is a derivative of {output}."
            )
