"""Groups of points with residuals of their own: inside, at a boundary, at a start, at readings.

A row of x has points of all groups side by side, so that a batch of rows has some of each. Each
group computes the derivatives of its own residual alone.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from backprop_xp.backends import (
    Array,
    array_namespace,
    columns_of,
    device_of,
    gather,
    integer_array,
    like,
    require_floating,
    require_like,
)
from backprop_xp.checks import integer, real, sequence
from backprop_xp.display.reprs import repr_of
from backprop_xp.networks.chain.containers import Chain
from backprop_xp.networks.chain.propagation import Cache, Gradients, Parameters
from backprop_xp.networks.derivatives.definition import Definition, define
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.points import of_width
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.initializers import Generator, HostArray
from backprop_xp.networks.numbers.random_bits import Key

# The rows have at most so many times the given points. A step takes longer by as much; with less,
# the rows are fewer and batches coarser: beside a group of one point a row has ten of the others.
_MOST_POINTS = 1.1


class GroupedRows(NamedTuple):
    """The layer of the groups, and their points, targets and weights as rows for ``fit``."""

    layer: "Groups"
    x: Array
    y: Array
    sample_weight: Array


@dataclass(frozen=True, init=False)
class Groups(Chain):
    """Equations of the same layers and unknown coefficients, each at points of its own.

    A row of x has ``points[i]`` points of equation i, one behind the other, then those of the next
    equation; the outputs are their residuals in this order. ``group_rows`` makes the layer and its
    rows, with the ``groups``' names.

    >>> import backprop_xp as bx
    >>> layers, residuals = bx.mlp([1, 8, 1]).layers, (lambda s: s.u_x + s.u, lambda s: s.u - 1.0)
    >>> inside, start = (bx.Equation(layers, residual, "x") for residual in residuals)
    >>> network = bx.Network([bx.Groups([inside, start], [3, 1])], "mean_squared_error")
    >>> network.forward(network.initialize(), [[0.1, 0.2, 0.3, 0.0]]).shape
    (1, 4)
    """

    differentiates: ClassVar[bool] = True
    returns_residuals: ClassVar[bool] = True
    runs_in_order = writes = False
    equations: tuple[Equation, ...]
    points: tuple[int, ...]
    groups: tuple[str, ...]
    n_in: int = field(compare=False)
    n_out: int = field(compare=False)
    order: int = field(compare=False)

    __repr__ = repr_of

    def __init__(
        self,
        equations: Sequence[Equation],
        points: Sequence[int],
        groups: Sequence[str] | None = None,
    ) -> None:
        equations = tuple(sequence(equations, "equations", "[inside, boundary]"))
        counts = tuple(integer(n, "points") for n in sequence(points, "points", "[10, 1]"))
        for i, one in enumerate(equations):
            if not isinstance(one, Equation):
                raise TypeError(f"equations[{i}] must be a bx.Equation, not {one!r}.")
            if (one.layers, one.unknown) != (equations[0].layers, equations[0].unknown):
                raise ValueError(
                    f"equations[{i}] has other layers or unknown coefficients than equations[0]: "
                    "give all the same layers and the same unknown=, also those that a residual "
                    "does not use."
                )
        if not equations or len(counts) != len(equations):
            raise ValueError(
                f"There are {len(equations)} equations and {len(counts)} numbers of points, but a "
                "number for each of one equation or more is expected."
            )
        names = sequence(groups or [*map(str, range(len(counts)))], "groups", '["inside", "start"]')
        if len(names) != len(counts):
            raise ValueError(
                f"groups has {len(names)} names, but there are {len(counts)} equations."
            )
        super().__init__(*equations[0].layers)
        pairs = [*zip(equations, counts, strict=True)]
        vars(self).update(equations=equations, points=counts, groups=tuple(names))
        vars(self).update(names=equations[0].names, shapes=equations[0].shapes)
        vars(self).update(order=max(one.order for one in equations))
        vars(self).update(n_in=sum(one.n_in * n for one, n in pairs))
        vars(self).update(n_out=sum(one.n_out * n for one, n in pairs))

    @property
    def network(self) -> Network:
        """The network of the layers alone, which returns the outputs."""
        return self.equations[0].network

    @property
    def metrics(self) -> dict[str, "GroupLoss"]:
        """The mean squared error of each group, by name, for ``metrics`` of ``bx.fit``.

        The history then has it after each epoch, for one more pass forward. ``weights`` of
        ``group_rows`` do not change it: the loss is the mean of these numbers with those weights.
        """
        widths = [one.n_out * n for one, n in zip(self.equations, self.points, strict=True)]
        ends = [*itertools.accumulate(widths)]
        parts = [slice(end - width, end) for end, width in zip(ends, widths, strict=True)]
        pairs = zip(self.groups, parts, strict=True)
        return {name: GroupLoss(part.start, part.stop) for name, part in pairs}

    @functools.cached_property
    def _alone(self) -> tuple[Definition, ...]:
        return tuple(define([one], LOSSES["mean_squared_error"]) for one in self.equations)

    def apart(self, x: Array) -> Iterator[tuple[Definition, Array]]:
        """Yield a network of each equation alone, with the same theta, and its points as rows."""
        return zip(self._alone, self._points_of(x), strict=True)

    def _points_of(self, x: Array) -> list[Array]:
        """Return the points of each equation as rows."""
        pairs = [*zip(self.equations, self.points, strict=True)]
        parts = columns_of(x, [one.n_in * n for one, n in pairs])
        return [of_width(part, one.n_in) for (one, _), part in zip(pairs, parts, strict=True)]

    def split(self, theta: Array) -> tuple[Array, dict[str, Array]]:
        """Return theta of ``network`` and the unknown coefficients, as ``Equation.split`` does."""
        return self.equations[0].split(theta)

    def initialize(self, generator: Generator) -> tuple[HostArray, ...]:
        """Draw the layers' parameters, and return the starts of the unknown coefficients."""
        return self.equations[0].initialize(generator)

    def forward(self, parameters: Parameters, x: Array, rng: Key | None) -> tuple[Array, Cache]:
        """Return the residuals of all points of each row."""
        found, caches = [], []
        for one, n, points in zip(self.equations, self.points, self._points_of(x), strict=True):
            y, cache = one.forward(parameters, points, rng)
            found.append(of_width(y, one.n_out * n))
            caches.append(cache)
        return array_namespace(x).concat(found, axis=-1), caches

    def backward(self, parameters: Parameters, cache: Cache, g: Array, **options: Any) -> Gradients:
        """Return dL/dx, and the sums of the groups' gradients."""
        backs, total = [], list[Array]()
        pairs = [*zip(self.equations, self.points, strict=True)]
        parts = columns_of(g, [one.n_out * n for one, n in pairs])
        for (one, n), part, own_cache in zip(pairs, parts, cache, strict=True):
            back, own = one.backward(parameters, own_cache, of_width(part, one.n_out), **options)
            if back is not None:
                backs.append(of_width(back, one.n_in * n))
            total = [a + b for a, b in zip(total, own, strict=True)] if total else [*own]
        return array_namespace(g).concat(backs, axis=-1) if backs else None, tuple(total)


@dataclass(frozen=True)
class GroupLoss:
    """The mean squared error of some columns of the targets, as a metric."""

    start: int
    stop: int
    mode: ClassVar[str] = "min"

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """Return the mean, weighted within the columns, ``(*stack,)``; NaN without a weight."""
        xp, own = array_namespace(predictions), slice(self.start, self.stop)
        squares = (predictions[..., own] - targets[..., own]) ** 2
        share = xp.ones_like(squares)
        if weights is not None:
            is_of_entries = tuple(weights.shape[-2:]) == tuple(targets.shape[-2:])
            share = share * (weights[..., own] if is_of_entries else weights[..., None])
        total = xp.sum(share, axis=(-2, -1))
        is_none = total == 0.0
        mean = xp.sum(share * squares, axis=(-2, -1)) / (total + xp.astype(is_none, total.dtype))
        return xp.where(is_none, xp.full_like(mean, math.nan), mean)


def group_rows(
    groups: Mapping[str, tuple[Equation, Any] | tuple[Equation, Any, Any]],
    *,
    weights: Mapping[str, float] | None = None,
) -> GroupedRows:
    """Return a layer of several equations, with points, targets and weights as rows for ``fit``.

    ``groups`` has by name ``(equation, points)`` or ``(equation, points, targets)``: points
    ``(n, n_in)``, and targets ``(n, n_out)``, by default 0, NaN where not measured. The equations
    have the same layers and unknown coefficients. The loss is the mean of the groups' own means,
    over their measured values, weighted by ``weights``, 1 for a missing one.

    Each row has points of all groups, so that batches of rows have some of each. There are as many
    rows as possible without more than a tenth of the points being repeated; the places of a point
    share its weight. To ``LevenbergMarquardt`` each point counts as a row.

    >>> import backprop_xp as bx
    >>> layers = bx.mlp([1, 8, 1], hidden="tanh").layers
    >>> inside = bx.Equation(layers, lambda s: s.u_xx + s.u, "x")
    >>> start = bx.Equation(layers, lambda s: (s.u, s.u_x), "x")
    >>> points = bx.asarray([[0.1], [0.5], [0.9], [1.3]])
    >>> layer, x, y, weight = bx.group_rows(
    ...     {"inside": (inside, points), "start": (start, points[:1, :] * 0.0, [[0.0, 1.0]])}
    ... )
    >>> network = bx.Network([layer], "mean_squared_error")
    >>> theta = network.initialize(seed=0)
    >>> result = bx.fit(network, theta, x, y, sample_weight=weight, optimizer="adam", epochs=2)
    >>> x.shape, y.shape, layer.network.predict(layer.split(result.theta)[0], points).shape
    ((1, 5), (1, 6), (4, 1))
    """
    weights = {} if weights is None else weights
    _check_dictionaries(groups=groups, weights=weights)
    if unknown := [name for name in weights if name not in groups]:
        raise ValueError(f"weights has {unknown}, but the groups are {[*groups]}.")
    checked = [_checked(name, *_items(name, group)) for name, group in groups.items()]
    if not checked:
        raise ValueError("groups is empty, but at least one is expected.")
    (first_name, *_), (_, first, _) = groups, checked[0]
    counts = [points.shape[0] for _, points, _ in checked]
    count = _row_count(counts)
    layer = Groups([one for one, _, _ in checked], [-(-n // count) for n in counts], [*groups])
    parts: list[list[Array]] = [[], [], []]
    for name, (_, points, targets), per_row in zip(groups, checked, layer.points, strict=True):
        require_like(first, points, _points_of(name), _points_of(first_name))
        weight = real(weights.get(name, 1.0), f"weights[{name!r}]", low=0.0)
        for part, own in zip(parts, _rows(points, targets, count, per_row, weight), strict=True):
            part.append(own)
    xp = array_namespace(parts[0][0])
    return GroupedRows(layer, *(xp.concat(part, axis=-1) for part in parts))


def _row_count(counts: Sequence[int]) -> int:
    """Return the largest number of rows that repeats few points of groups of these sizes."""
    rows, most = max(counts), int(_MOST_POINTS * sum(counts))
    while rows * (per_row := sum(-(-n // rows) for n in counts)) > most:
        rows = most // per_row  # the next that can be enough: fewer rows have as many points each
    return rows


def _check_dictionaries(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, Mapping):
            kind = type(value).__name__
            raise TypeError(f"{name} must be a dictionary by names of groups, not {kind}.")


def _items(name: str, group: Any) -> tuple[Any, Any, Any]:
    if not isinstance(group, tuple) or len(group) not in (2, 3):
        kind = f"one of {len(group)}" if isinstance(group, tuple) else type(group).__name__
        raise TypeError(
            f"groups[{name!r}] must be a tuple (equation, points) or (equation, points, targets), "
            f"not {kind}."
        )
    return (*group, None)[:3]


def _checked(name: str, equation: Any, points: Array, targets: Any) -> tuple[Any, Array, Array]:
    """Return an equation, its points and its targets, an array of the same library."""
    if not isinstance(equation, Equation):
        kind = type(equation).__name__
        raise TypeError(f"groups[{name!r}] must begin with a bx.Equation, not {kind}.")
    xp = require_floating(points, _points_of(name))
    if xp.isdtype(points.dtype, "complex floating"):
        raise TypeError(f"{_points_of(name)} are complex, but real numbers are expected.")
    n, shape = points.shape[0], tuple(points.shape)
    if len(shape) != 2 or shape[1] != equation.n_in or not n:
        raise ValueError(
            f"{_points_of(name)} has shape {shape}, but (n, {equation.n_in}) is expected: the "
            f"variables, then the given columns{_of_each(equation)}.{_as_column(shape)}"
        )
    expected = (n, equation.n_out)
    if targets is None:
        return equation, points, xp.zeros(expected, dtype=points.dtype, device=device_of(points))
    own = f"groups[{name!r}][2] (the targets)"
    targets = like(points, targets, own, _points_of(name))
    if tuple(targets.shape) != expected:
        raise ValueError(
            f"{own} has shape {tuple(targets.shape)}, but {expected}, one for each residual of "
            f"each point, is expected.{_as_column(targets.shape)}"
        )
    return equation, points, targets


def _of_each(equation: Equation) -> str:
    return f", of each of the {equation.points} points in a row" if equation.points > 1 else ""


def _points_of(name: str) -> str:
    return f"groups[{name!r}][1] (the points)"


def _as_column(shape: Sequence[int]) -> str:
    return " A vector v is a column as v[:, None]." if len(shape) == 1 else ""


def _rows(
    points: Array, targets: Array, rows: int, per_row: int, weight: float
) -> tuple[Array, Array, Array]:
    """Return a group's points, targets and weights in rows.

    The places of a repeated point share its weight. What was not measured has the weight 0.
    """
    xp, (n, _), places = array_namespace(points), targets.shape, range(rows * per_row)
    at = integer_array(points, [i % n for i in places], "points")
    times = like(points, [[float(len(places[i::n]))] for i in range(n)], "weights")
    measured = xp.astype(~xp.isnan(targets), points.dtype)
    total = xp.maximum(xp.sum(measured), xp.ones_like(measured[0, 0]))
    shares = weight * measured / (times * total)
    arrays = (gather(array, at, 0) for array in (points, targets, shares))
    x, y, w = (xp.reshape(array, (rows, -1)) for array in arrays)
    return x, y, w
