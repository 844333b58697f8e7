"""The caller's value and gradient as functions of host vectors.

Points ``(P,)`` and stacks of them ``(K, P)`` are NumPy arrays in float64 or complex128. Results are
``(K, M)``: M is 1 for a value, and the number of results for a function with a Jacobian. A
perturbed point that cannot be evaluated has NaN as its result.
"""

import contextlib
import copy
import functools
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from backprop_xp.backends import Array, DType, array_namespace, to_device_of, to_host
from backprop_xp.backends.scopes import process_wide
from backprop_xp.gradient_check.points import Point, Structure, flatten_gradient, flatten_like
from backprop_xp.gradient_check.problems import CheckOptions, Problem

# The rounding errors (epsilon) of float64, float32 and float16.
DOUBLE, SINGLE, HALF = 2.0**-52, 2.0**-23, 2.0**-10
# With fewer copies than this, a trial whether value takes stacks costs more than it saves.
_WORTH_STACKING = 16
_no_warnings = process_wide(functools.partial(warnings.catch_warnings, action="ignore"))


@dataclass
class Function:
    """A function ``R^P -> R^M`` around a point ``x``, with its analytic derivatives.

    ``fx (M,)`` and ``gx (P, M)`` are value and gradient at x. ``epsilon`` and ``gradient_epsilon``
    are their rounding errors; ``dtype`` is that of their ``argument``, the array of the latest
    call. ``evaluations`` counts calls of value, ``seconds`` is the duration of the fastest,
    ``failure`` the last exception at a perturbed point. ``stacks``: whether value takes stacked
    copies, None until it is tried.
    """

    problem: Problem
    point: Point = field(init=False)
    options: CheckOptions = field(init=False)
    x: np.ndarray = field(init=False)
    fx: np.ndarray = field(init=False, default_factory=lambda: np.zeros(0))
    gx: np.ndarray = field(init=False)
    dtype: DType = field(init=False)
    epsilon: float = DOUBLE
    gradient_epsilon: float = DOUBLE
    evaluations: int = 0
    seconds: float = math.inf
    failure: Exception | None = None
    stacks: bool | None = None
    argument: Array = None

    def __post_init__(self) -> None:
        self.point, self.options = point, options = self.problem.point, self.problem.options
        self.x, self.dtype = to_host(point.flat).astype(np.float64), point.flat.dtype
        is_free = options["tangent"] is None and self.problem.bounds is None and point.is_plain
        self.stacks = None if is_free and options["batched"] is not False else False

    @property
    def is_double(self) -> bool:
        """Whether value receives points in float64."""
        return bool(self.dtype == array_namespace(self.point.flat).float64)

    def value(self, point: np.ndarray, dtype: DType) -> tuple[np.ndarray, float]:
        """Return value at a point ``(P,)`` as ``(M,)``, and its rounding error."""
        self.argument = array = to_device_of(self.point.flat, point.copy(), dtype)
        array = array[None, :] if self.options["batched"] else array
        self.evaluations, start = self.evaluations + 1, time.perf_counter()
        host = self._numbers(self.problem.value(self.point.restore(array)))
        self.seconds = min(self.seconds, time.perf_counter() - start)
        if self.fx.size not in (0, host.size):
            before = f"but {self.fx.size} before"
            raise ValueError(f"function(point) has {host.size} results here, {before}.")
        return _widen(host), _epsilon(host)

    def gradient(self, point: np.ndarray, dtype: DType) -> tuple[np.ndarray, float]:
        """Return the gradient at a point ``(P,)`` as ``(P, M)``, and its rounding error."""
        self.argument = to_device_of(self.point.flat, self._on_surface(point), dtype)
        gradient = self.problem.gradient(self.point.restore(self.argument))
        results = self.fx.size if self.problem.is_jacobian else None
        host = flatten_gradient(self.point, gradient, results)
        columns = [self.project(column) for column in host.T.astype(np.float64)]
        return np.stack(columns, axis=1), _epsilon(host)

    def values(self, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the values ``(K, M)`` at points ``(K, P)``, one by one."""
        return np.stack([self._value_or_nan(point) for point in points])

    def gradients(self, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the gradients ``(K, P, M)`` at points ``(K, P)``."""
        found = np.full((len(points), *self.gx.shape), np.nan)
        for k, point in enumerate(points):
            with self.catch_errors():
                if self._is_inside(point):
                    found[k] = self.gradient(point, self.dtype)[0]
        return found

    def perturbed(self, columns: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the values ``(K, M)`` with entry ``columns[k]`` of x set to ``entries[k]``.

        The columns are in ascending order.
        """
        if self.problem.perturbed_values is not None and self.stacks is None:
            with self.catch_errors():
                self.evaluations += len(columns)
                return self.problem.perturbed_values(columns, entries)[:, None]
        most = max(1, self.options["max_memory"] // (5 * self.x.size * entries.itemsize))
        found = []
        for part in np.array_split(np.arange(len(columns)), -(-len(columns) // most)):
            copies = np.repeat(self.x[None, :], len(part), axis=0).astype(entries.dtype)
            copies[np.arange(len(part)), columns[part]] = entries[part]
            if self.takes_stacks(len(part)):
                with self.catch_errors():  # one of the points may be outside of the domain
                    found.append(self._stacked(copies))
                    continue
            found.append(self.values(copies))
        return np.concatenate(found)

    def takes_stacks(self, copies: int) -> bool:
        """Whether value takes stacked copies: two must have the values that each has alone."""
        if self.stacks is None and (self.options["batched"] or copies >= _WORTH_STACKING):
            pair = self.round(np.stack([self.x, self.x * (1.0 + 2.0**-10) + 2.0**-10]))
            single, self.stacks, slack = self.values(pair), False, 64.0 * self.epsilon
            with self.catch_errors():
                self.stacks = np.allclose(self._stacked(pair), single, rtol=slack, atol=0.0)
        return bool(self.stacks)

    def recenter(self, point: np.ndarray) -> "Function | None":
        """Return the function around another point, None if value or gradient fails there."""
        point = self.round(self._on_surface(point))
        fx, gx = self._value_or_nan(point), self.gradients([point])[0]
        if not (np.all(np.isfinite(fx)) and np.all(np.isfinite(gx))):
            return None
        other = copy.copy(self)
        other.problem = self.problem._replace(perturbed_values=None)
        other.x, other.fx, other.gx, other.evaluations = point, fx, gx, 0
        return other

    @contextlib.contextmanager
    def catch_errors(self) -> Iterator[None]:
        """Silence warnings, and keep exceptions as ``failure``: the check chose the point."""
        with _no_warnings(), np.errstate(all="ignore"):
            try:
                yield
            except Exception as error:
                self.failure = error.with_traceback(None)

    def round(self, points: np.ndarray) -> np.ndarray:
        """Return points rounded as value receives them."""
        if self.is_double or points.dtype.kind == "c":
            return points
        return points.astype(np.float32).astype(np.float64)

    def project(self, vector: np.ndarray) -> np.ndarray:
        """Return a vector ``(P,)`` projected by ``tangent``, if there is one."""
        if (tangent := self.options["tangent"]) is None:
            return vector
        if vector.dtype.kind == "c":
            return self.project(vector.real) + 1j * self.project(vector.imag)
        direction = self.point.restore(to_device_of(self.point.flat, vector, self.point.flat.dtype))
        return flatten_like(self.point, tangent(direction), "tangent(direction)")

    def _on_surface(self, point: np.ndarray) -> np.ndarray:
        """Return a copy of a point, its distance from x projected by ``tangent``."""
        is_free = self.options["tangent"] is None
        return point.copy() if is_free else self.x + self.project(point - self.x)

    def _is_inside(self, point: np.ndarray) -> bool:
        low, high = self.problem.bounds or (-np.inf, np.inf)
        return bool(np.all((low <= point.real) & (point.real <= high)))

    def _value_or_nan(self, point: np.ndarray) -> np.ndarray:
        """Return value at a point as ``(M,)``, NaN if it is outside of the domain."""
        point = self._on_surface(point)
        with self.catch_errors():
            if self._is_inside(point):
                return self.value(point, self.dtype)[0]
        return np.full(self.fx.size, np.nan)

    def _stacked(self, points: np.ndarray) -> np.ndarray:
        """Return the values at points ``(K, P)`` from one call."""
        self.evaluations += len(points)
        stack = self.point.restore(to_device_of(self.point.flat, points, self.dtype))
        return _widen(to_host(self.problem.value(stack))).reshape(len(points), self.fx.size)

    def _numbers(self, result: Structure) -> np.ndarray:
        """Return a result of value as ``(M,)``, or raise unless it is a number."""
        expected, is_jacobian = "value(point) must be one number", self.problem.is_jacobian
        if isinstance(result, tuple) and not is_jacobian:
            pair = "If it returns (value, gradient), pass gradient=True"
            raise TypeError(f"{expected}, not a tuple of {len(result)}. {pair}.")
        host = to_host(result)
        if host.dtype.kind not in "fciu":
            raise TypeError(f"{expected}, not {result!r:.100}.")
        if host.size != 1 and not is_jacobian:
            several = "bx.check_jacobian checks a function with several results"
            raise ValueError(f"{expected}, but has shape {host.shape}. {several}.")
        return host.reshape(-1)


def _epsilon(host: np.ndarray) -> float:
    return SINGLE if host.dtype.kind in "fc" and np.finfo(host.dtype).eps > DOUBLE else DOUBLE


def _widen(host: np.ndarray) -> np.ndarray:
    """Return a copy in float64 or complex128: a function may reuse one array for its results."""
    return host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)
