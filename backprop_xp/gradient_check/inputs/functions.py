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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from backprop_xp.backends import Array, DType, array_namespace, to_device_of, to_host
from backprop_xp.backends.scopes import process_wide
from backprop_xp.display.progress import Counter
from backprop_xp.gradient_check.inputs.points import (
    DOUBLE,
    Point,
    flatten,
    flatten_jacobian,
    flatten_like,
)
from backprop_xp.gradient_check.inputs.problems import CheckOptions, Problem, with_vectors
from backprop_xp.gradient_check.inputs.structures import Structure

# The rounding errors (epsilon) of float32, float16 and bfloat16.
SINGLE, HALF, BFLOAT = 2.0**-23, 2.0**-10, 2.0**-7
# With fewer copies than this, a trial whether value takes stacks costs more than it saves.
_WORTH_STACKING = 16
_no_warnings = process_wide(functools.partial(warnings.catch_warnings, action="ignore"))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings, at a point that the check has chosen."""
    with _no_warnings(), np.errstate(all="ignore"):
        yield


class Fault(Exception):  # noqa: N818 - not an error of the program
    """An end of a check without a comparison: a verdict, its reason, and the mistake if known."""

    def __init__(self, verdict: str, sentence: str) -> None:
        super().__init__(sentence)
        self.verdict = verdict


@dataclass
class Calls:
    """The calls of value and of gradient: their numbers, the fastest of value, and the limits."""

    options: CheckOptions
    number: int = 0
    gradients: int = 0
    fastest: float = math.inf
    start: float = field(default_factory=time.perf_counter)
    counter: Counter = field(default_factory=lambda: Counter("gradient check", "evaluations"))

    def add(self, count: int) -> None:
        """Count the next calls of value, or raise ``Fault`` above the limit of calls or seconds.

        A check calls gradient twice; what it calls more counts as evaluations.
        """
        total = self.number + count + max(self.gradients - 2, 0)
        for name, used in (("evaluations", total), ("seconds", self.seconds)):
            limit = self.options[f"max_{name}"]  # type: ignore[literal-required]
            if limit is not None and used > limit:
                raise Fault("inconclusive", f"not decided within max_{name}={limit:g}")
        self.number += count
        self.counter.show(self.number)

    @property
    def seconds(self) -> float:
        """The seconds since the start of the check."""
        return time.perf_counter() - self.start


@dataclass
class Function:
    """A function ``R^P -> R^M`` around a point ``x``, with its analytic derivatives.

    ``fx (M,)`` and ``gx (P, M)`` are value and gradient at x, and ``results`` the structure of what
    value returns. ``epsilon`` and ``gradient_epsilon`` are their rounding errors; ``dtype`` is that
    of their ``argument``, the array of the latest call. ``failure`` is the last exception at a
    perturbed point. ``stacks``: whether value takes stacked copies, None until it is tried.
    ``is_analytic``: whether the complex step can be trusted, None until that is decided;
    ``is_kinked``: whether the decision met a kink. ``coarseness (M,)``: the largest jumps of coarse
    values along any line; ``is_measured``: whether all steps have been searched for them. ``size
    (M,)``: that of the values at x and at another point, None until the last calls.
    """

    problem: Problem
    point: Point = field(init=False)
    options: CheckOptions = field(init=False)
    calls: Calls = field(init=False)
    x: np.ndarray = field(init=False)
    fx: np.ndarray = field(init=False)
    gx: np.ndarray = field(init=False)
    dtype: DType = field(init=False)
    results: Point | None = None
    epsilon: float = DOUBLE
    gradient_epsilon: float = DOUBLE
    failure: Exception | None = None
    stacks: bool | None = None
    is_analytic: bool | None = None
    coarseness: np.ndarray | float = 0.0
    is_measured: bool = False
    is_kinked: bool = False
    size: np.ndarray | None = None
    argument: Array = None

    def __post_init__(self) -> None:
        self.point, self.options = point, options = self.problem.point, self.problem.options
        self.x, self.dtype = to_host(point.flat).astype(np.float64), point.flat.dtype
        self.calls = Calls(options)
        is_free = options["tangent"] is None and self.problem.bounds is None and point.is_plain
        self.stacks = None if is_free and options["batched"] is not False else False

    def word(self, name: str) -> str:
        """Return what the caller calls ``"value"`` or ``"gradient"``."""
        return self.problem.names[name == "gradient"].partition("(")[0]

    @property
    def evaluations(self) -> int:
        """The number of calls of value so far; each copy in a stack counts."""
        return self.calls.number

    @property
    def used(self) -> tuple[int, int]:
        """The numbers of calls of value and of gradient so far."""
        return self.calls.number, self.calls.gradients

    @property
    def is_limited(self) -> bool:
        """Whether the caller limits the evaluations or the seconds."""
        return any(self.options[name] is not None for name in ("max_evaluations", "max_seconds"))

    @property
    def is_double(self) -> bool:
        """Whether value receives points in float64."""
        return bool(self.dtype == array_namespace(self.point.flat).float64)

    def value(self, point: np.ndarray, dtype: DType) -> tuple[np.ndarray, float]:
        """Return value at a point ``(P,)`` as ``(M,)``, and its rounding error."""
        self.argument = array = to_device_of(self.point.flat, point.copy(), dtype)
        array = array[None, :] if self.options["batched"] else array
        self.calls.add(1)
        start = time.perf_counter()
        result = self.problem.value(self.point.restore(array))
        self.calls.fastest = min(self.calls.fastest, time.perf_counter() - start)
        if self.results is None:
            self.results = self._require_numbers(result)
        if isinstance(result, float | complex) and self.results.flat.shape == (1,):
            return np.asarray([result]), DOUBLE
        host, epsilon = flatten_like(self.results, result, self.problem.names[0], is_complex=True)
        return _widen(host[:, 0]), epsilon

    def gradient(self, point: np.ndarray, dtype: DType) -> tuple[np.ndarray, float]:
        """Return the gradient at a point ``(P,)`` as ``(P, M)``, and its rounding error."""
        self.argument = to_device_of(self.point.flat, self.on_surface(point), dtype)
        self.calls.gradients += 1
        self.calls.add(0)
        gradient = self.problem.gradient(self.point.restore(self.argument))
        if self.problem.label is not None:
            host, epsilon = gradient
        elif self.problem.is_jacobian:
            assert self.results is not None  # noqa: S101 - value is called before
            host, epsilon = flatten_jacobian(
                self.point, self.results, gradient, self.problem.names[1]
            )
        else:
            host, epsilon = flatten_like(self.point, gradient, self.problem.names[1])
        columns = [self.project(column) for column in host.T.astype(np.float64)]
        return np.stack(columns, axis=1), epsilon

    def values(self, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the values ``(K, M)`` at points ``(K, P)``, one by one."""
        return np.stack([self._value_or_nan(point) for point in points])

    def gradients(self, points: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """Return the gradients ``(K, P, M)`` at points ``(K, P)``."""
        found = np.full((len(points), *self.gx.shape), np.nan)
        for k, point in enumerate(points):
            with self.catch_errors():
                if self.is_inside(point):
                    found[k] = self.gradient(point, self.dtype)[0]
        return found

    def perturbed(self, columns: np.ndarray, entries: np.ndarray) -> np.ndarray:
        """Return the values ``(K, M)`` with entry ``columns[k]`` of x set to ``entries[k]``.

        The columns are in ascending order. An entry that does not count changes nothing.
        """
        if self.problem.counts is not None and not all(counts := self.problem.counts[columns]):
            values = np.repeat(self.fx[None, :].astype(entries.dtype), len(columns), axis=0)
            if counts.any():
                values[counts] = self.perturbed(columns[counts], entries[counts])
            return values
        if self.problem.perturbed_values is not None and self.stacks is None:
            with self.catch_errors():
                self.calls.add(len(columns))
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
            failure = self.failure
            with self.catch_errors():
                self.stacks = np.allclose(self._stacked(pair), single, rtol=slack, atol=0.0)
            self.failure = failure  # that of a trial explains nothing
        return bool(self.stacks)

    def recenter(self, point: np.ndarray) -> "Function | None":
        """Return the function around another point, None if value or gradient fails there."""
        point = self.round(self.on_surface(point))
        fx, gx = self._value_or_nan(point), self.gradients([point])[0]
        if not (np.all(np.isfinite(fx)) and np.all(np.isfinite(gx))):
            return None
        other = copy.copy(self)
        other.problem = self.problem._replace(perturbed_values=None)
        other.x, other.fx, other.gx = point, fx, gx
        return other

    @contextlib.contextmanager
    def catch_errors(self) -> Iterator[None]:
        """Silence warnings, and keep exceptions as ``failure``: the check chose the point."""
        with _no_warnings(), np.errstate(all="ignore"):  # without a second generator
            try:
                yield
            except Fault:
                raise
            except Exception as error:
                self.failure = error.with_traceback(None)

    def round(self, points: np.ndarray) -> np.ndarray:
        """Return points rounded as value receives them."""
        if self.is_double or points.dtype.kind == "c":
            return points
        if self.dtype == array_namespace(self.point.flat).float32:  # without a trip to the device
            return points.astype(np.float32).astype(np.float64)
        return to_host(to_device_of(self.point.flat, points, self.dtype)).astype(np.float64)

    def project(self, vector: np.ndarray) -> np.ndarray:
        """Return a vector ``(P,)`` projected by ``tangent``, 0 where an entry does not count."""
        if (counts := self.problem.counts) is not None:
            vector = np.where(counts, vector, 0.0)
        if (tangent := self.options["tangent"]) is None:
            return vector
        if vector.dtype.kind == "c":
            return self.project(vector.real) + 1j * self.project(vector.imag)
        host, _ = flatten_like(self.point, tangent(self.point.at(vector)), "tangent(direction)")
        return host[:, 0].astype(np.float64)

    def on_surface(self, point: np.ndarray) -> np.ndarray:
        """Return a copy of a point, its distance from x projected by ``tangent``."""
        is_free = self.options["tangent"] is None and self.problem.counts is None
        return point.copy() if is_free else self.x + self.project(point - self.x)

    def is_inside(self, point: np.ndarray) -> bool:
        """Return whether a point is inside of the bounds."""
        low, high = self.problem.bounds or (-np.inf, np.inf)
        return bool(np.all((low <= point.real) & (point.real <= high)))

    def inwards(self, direction: np.ndarray) -> np.ndarray:
        """Return a direction ``(P,)`` that leads inside where the point is on its bounds."""
        low, high = self.problem.bounds or (-np.inf, np.inf)
        signs = np.where(self.x <= low, 1.0, np.where(self.x >= high, -1.0, direction))
        return np.asarray(np.copysign(direction, signs))

    def _value_or_nan(self, point: np.ndarray) -> np.ndarray:
        """Return value at a point as ``(M,)``, NaN if it is outside of the domain."""
        point = self.on_surface(point)
        with self.catch_errors():
            if self.is_inside(point):
                return self.value(point, self.dtype)[0]
        return np.full(self.fx.size, np.nan)

    def _stacked(self, points: np.ndarray) -> np.ndarray:
        """Return the values at points ``(K, P)`` from one call."""
        self.calls.add(len(points))
        result = self.problem.value(
            self.point.restore(to_device_of(self.point.flat, points, self.dtype))
        )
        assert self.results is not None  # noqa: S101 - value is called alone before
        stack = (len(points),)
        host, _ = flatten_like(
            self.results, result, self.problem.names[0], results=stack, is_complex=True
        )
        return _widen(host.T)

    def _require_numbers(self, result: Structure) -> Point:
        """Return a result of value as a point; raise unless it holds real numbers."""
        name, is_jacobian = self.problem.names[0], self.problem.is_jacobian
        expected = f"{name} must be one number"
        if isinstance(result, tuple) and not is_jacobian:
            pair = "If it returns (value, gradient), pass gradient=True"
            raise TypeError(f"{expected}, not a tuple of {len(result)}. {pair}.")
        try:
            found = flatten(result, name)
        except TypeError:
            expected = "must hold numbers" if is_jacobian else "must be one number"
            raise TypeError(f"{name} {expected}, not {result!r:.100}.") from None
        is_complex = any(t.name.endswith(".imag") for t in found.tensors)
        if is_complex and self.problem.label is None:
            raise TypeError(f"{name} must be real at a real point, not complex: {result!r:.100}.")
        if found.flat.shape != (1,) and not is_jacobian:
            several = "bx.check_jacobian checks a function with several results"
            shape = found.tensors[0].shape
            raise ValueError(f"{expected}, but has shape {shape}. {several}.")
        return found


def _widen(host: np.ndarray) -> np.ndarray:
    """Return a copy in float64 or complex128: a function may reuse one array for its results."""
    return host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)


def require_unchanged(array: Array, before: np.ndarray, name: str) -> None:
    """Raise ``Fault`` if a call of what messages call ``name`` has changed its argument."""
    if not np.array_equal(to_host(array).astype(before.dtype), before):
        word, sentence = name.partition("(")[0], "writes into the point that it receives"
        raise Fault("fail", f"{word} {sentence}: it must work on a copy")


def around(
    point: Point,
    options: CheckOptions,
    value: Callable[[Structure], Structure] = lambda structure: structure,
) -> Function:
    """Return a function at a point, with the vectors of the options, but without a gradient."""
    return Function(with_vectors(Problem(point, value, value, options, is_jacobian=True)))
