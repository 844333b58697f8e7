"""A caller's value and gradient as functions of host vectors.

Points ``(P,)`` and stacks of them ``(K, P)`` are NumPy's, in float64 or complex128; what is called
gets arrays of its own library. Results are ``(K, M)``: M is 1 for a value, and the number of
results of a function that has a Jacobian. Where a moved point cannot be evaluated, results are NaN.
"""

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np

from backprop_xp.backends import array_namespace, beside, to_host
from backprop_xp.backends.process_settings import process_wide
from backprop_xp.gradient_check.points import Point, flatten_beside, flatten_gradient

Host: TypeAlias = Any  # a NumPy array
DOUBLE, SINGLE, HALF = 2.0**-52, 2.0**-23, 2.0**-10
# Fewer copies than these are not worth trying whether they can be evaluated together.
_WORTH_STACKING = 16


@process_wide
@contextlib.contextmanager
def _no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Fault(Exception):  # noqa: N818 - not an error of the program
    """What the first or last calls show to be wrong, without any numeric derivative."""

    def __init__(self, function: "Function", verdict: str, sentence: str) -> None:
        super().__init__(sentence)
        self.verdict, self.evaluations = verdict, function.evaluations


class CheckOptions(TypedDict, total=False):
    """The options that every check takes; ``check_gradient`` says what they mean."""

    method: str
    directions: int | None
    tolerance: float | None
    scale: Any
    bounds: Any
    tangent: Callable[[Any], Any] | None
    seed: int
    max_memory: int
    batched: bool | None


DEFAULTS: CheckOptions = {
    "method": "auto", "directions": None, "tolerance": None, "scale": None, "bounds": None,
    "tangent": None, "seed": 0, "max_memory": 16 * 2**20, "batched": None,
}  # fmt: skip


class Problem(NamedTuple):
    """A value and its gradient as functions of the point's structure, and what is known of them.

    ``has_many`` says that value has many results, and gradient is a Jacobian. ``moved`` may be a
    faster way to the values with one entry of the point moved. ``size`` is the size ``(P,)`` at
    which value varies, None for the point's own, which is at least a part ``least_size`` of its
    tensor's; ``limits`` are those of the point.

    Of a network ``rows`` is the size of the batch, ``penalty`` the strength of L2, which applies to
    the tensors named in ``decays``; ``blame`` names the piece that is wrong.
    """

    point: Point
    value: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    options: CheckOptions = DEFAULTS
    has_many: bool = False
    moved: Callable[[Host, Host], Host] | None = None
    size: Host | None = None
    least_size: float = 0.0
    limits: tuple[Host, Host] | None = None
    rows: int | None = None
    penalty: float | None = None
    decays: frozenset[str] = frozenset()
    blame: Callable[[], str | None] = lambda: None


@dataclass
class Function:
    """A function ``R^P -> R^M`` around a point x, and the derivatives ``(P, M)`` claimed for it.

    ``epsilon`` is the rounding of its values, ``gradient_epsilon`` that of the gradient; ``dtype``
    is that of the points they are called with. ``evaluations`` counts values, ``seconds`` is what
    one takes, ``failure`` what was raised last at a moved point.
    """

    problem: Problem
    x: Host = field(init=False)
    base: Host = field(init=False, default_factory=lambda: np.zeros(0))
    analytic: Host = field(init=False)
    dtype: Any = field(init=False)
    tangent: Callable[[Any], Any] | None = field(init=False)
    epsilon: float = DOUBLE
    gradient_epsilon: float = DOUBLE
    evaluations: int = 0
    seconds: float = math.inf
    failure: Exception | None = None
    stacks: bool | None = None  # whether value takes stacked copies; None until it is tried
    given: Any = None  # the array that was last made for a call

    def __post_init__(self) -> None:
        self.x = to_host(self.problem.point.flat).astype(np.float64)
        self.dtype = self.problem.point.flat.dtype
        self.tangent, is_plain = self.problem.options["tangent"], self.problem.point.is_plain
        is_free = self.tangent is None and self.problem.limits is None and is_plain
        self.stacks = None if is_free and self.problem.options["batched"] is not False else False

    def at(self, points: Iterable[Host]) -> Host:
        """Return the values ``(K, M)`` at points ``(K, P)``."""
        return np.stack([self._one(point) for point in points])

    def moved(self, columns: Host, values: Host) -> Host:
        """Return the values ``(K, M)`` where entry ``columns[k]`` of the point is ``values[k]``.

        The columns are in ascending order.
        """
        if self.problem.moved is not None and self.stacks is None:
            with self.tried():
                self.evaluations += len(columns)
                return self.problem.moved(columns, values)[:, None]
        most = max(1, self.problem.options["max_memory"] // (5 * self.x.size * values.itemsize))
        found = []
        for part in np.array_split(np.arange(len(columns)), -(-len(columns) // most)):
            copies = np.repeat(self.x[None, :], len(part), axis=0).astype(values.dtype)
            copies[np.arange(len(part)), columns[part]] = values[part]
            found.append(self._stacked(copies))
        return np.concatenate(found)

    @contextlib.contextmanager
    def tried(self) -> Iterator[None]:
        """Silence warnings and note errors: the caller did not ask for the moved points."""
        with _no_warnings(), np.errstate(all="ignore"):
            try:
                yield
            except Exception as error:
                self.failure = error.with_traceback(None)

    def rounded(self, points: Host) -> Host:
        """Return points as they are when value is given them."""
        if self.is_double or points.dtype.kind == "c":
            return points
        return points.astype(np.float32).astype(np.float64)

    @property
    def is_double(self) -> bool:
        """Whether value is called with points in float64."""
        return bool(self.dtype == array_namespace(self.problem.point.flat).float64)

    def value(self, point: Host, dtype: Any) -> tuple[Host, float]:
        """Return value at a point ``(P,)`` as ``(M,)``, and its rounding."""
        self.given = array = beside(self.problem.point.flat, point.copy(), dtype)
        given = array[None, :] if self.problem.options["batched"] else array
        self.evaluations, before = self.evaluations + 1, time.perf_counter()
        host = _results(
            self.problem.value(self.problem.point.restore(given)), self.problem.has_many
        )
        self.seconds = min(self.seconds, time.perf_counter() - before)
        if self.base.size not in (0, host.size):
            raise ValueError(
                f"function(point) has {host.size} results here, but {self.base.size} before."
            )
        return _widened(host), _epsilon(host)

    def _one(self, point: Host) -> Host:
        """Return the values at a point, NaN where it is outside of the domain."""
        point = self._onto(point)
        if self._is_inside(point):
            with self.tried():
                return self.value(point, self.dtype)[0]
        return np.full(self.base.size, np.nan)

    def _is_inside(self, point: Host) -> bool:
        if self.problem.limits is None:
            return True
        low, high = self.problem.limits
        return bool(np.all((low <= point.real) & (point.real <= high)))

    def _stacked(self, points: Host) -> Host:
        """Return the values at points ``(K, P)``, taken together where value allows it."""
        if self.takes_stacks(len(points)):
            with self.tried():  # one of the points may be outside of the domain
                return self._together(points)
        return self.at(points)

    def _together(self, points: Host) -> Host:
        self.evaluations += len(points)
        stack = beside(self.problem.point.flat, points, self.dtype)
        host = to_host(self.problem.value(self.problem.point.restore(stack)))
        return _widened(host).reshape(len(points), self.base.size)

    def takes_stacks(self, copies: int) -> bool:
        """Say whether value takes stacked copies: two must come out as they do one by one."""
        if self.stacks is None and (self.problem.options["batched"] or copies >= _WORTH_STACKING):
            pair = self.rounded(np.stack([self.x, self.x * (1.0 + 2.0**-10) + 2.0**-10]))
            alone, self.stacks = self.at(pair), False
            with self.tried():
                together, slack = self._together(pair), 64.0 * self.epsilon
                self.stacks = bool(np.allclose(together, alone, rtol=slack, atol=0.0))
        return bool(self.stacks)

    def claims(self, points: Host) -> Host:
        """Return the claimed derivatives ``(K, P, M)`` at points ``(K, P)``; NaN where it fails."""
        found = np.full((len(points), *self.analytic.shape), np.nan)
        for k, point in enumerate(points):
            if self._is_inside(point):
                with self.tried():
                    found[k] = self.gradient(point, self.dtype)[0]
        return found

    def moved_to(self, point: Host) -> "Function | None":
        """Return the function around another point, if it has a value and a gradient there."""
        point = self.rounded(self._onto(point))
        base, analytic = self._one(point), self.claims(point[None, :])[0]
        if not (np.all(np.isfinite(base)) and np.all(np.isfinite(analytic))):
            return None
        other = copy.copy(self)
        other.problem, other.x = self.problem._replace(moved=None), point
        other.base, other.analytic, other.evaluations = base, analytic, 0
        return other

    def gradient(self, point: Host, dtype: Any) -> tuple[Host, float]:
        """Return the claimed derivatives ``(P, M)`` at a point ``(P,)``, and their rounding."""
        home = self.problem.point
        self.given = beside(home.flat, self._onto(point), dtype)
        returned = self.problem.gradient(home.restore(self.given))
        found = flatten_gradient(home, returned, self.base.size if self.problem.has_many else None)
        wide = [self.tangential(vector) for vector in found.T.astype(np.float64)]
        return np.stack(wide, axis=1), _epsilon(found)

    def _onto(self, point: Host) -> Host:
        """Return a copy of a point, its move from the function's own projected by ``tangent``."""
        if self.tangent is None:
            return point.copy()
        return self.x + self.tangential(point - self.x)

    def tangential(self, vector: Host) -> Host:
        """Return a vector ``(P,)`` projected by ``tangent``, itself without one."""
        if self.tangent is None:
            return vector
        if vector.dtype.kind == "c":
            return self.tangential(vector.real) + 1j * self.tangential(vector.imag)
        home = self.problem.point
        direction = home.restore(beside(home.flat, vector, home.flat.dtype))
        return flatten_beside(home, self.tangent(direction), "tangent(direction)")


def _results(result: Any, has_many: bool) -> Host:
    """Return a result as ``(M,)``, or raise for what is no number."""
    if isinstance(result, tuple) and not has_many:
        raise TypeError(
            f"value(point) must be one number, not a tuple of {len(result)}. If it returns "
            "(value, gradient), say gradient=True."
        )
    host = to_host(result)
    if host.dtype.kind not in "fciu":
        raise TypeError(f"value(point) must be one number, not {result!r:.100}.")
    if host.size != 1 and not has_many:
        raise ValueError(
            f"value(point) must be one number, but has shape {host.shape}. For a function of "
            "several results there is bx.check_jacobian."
        )
    return host.reshape(-1)


def _epsilon(host: Host) -> float:
    return SINGLE if host.dtype.kind in "fc" and np.finfo(host.dtype).eps > DOUBLE else DOUBLE


def _widened(host: Host) -> Host:
    """Return a copy in float64 or complex128: a function may return the same array every time."""
    return host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)
