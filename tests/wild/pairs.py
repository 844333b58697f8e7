"""Values and hand-written gradients of released libraries, each at a few points: one table.

Each ``*_pairs.py`` in this folder has those of one library, called as the library calls them. Most
are right; a wrong one is marked with the reason and the version of the library.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import backprop_xp as bx

Array = np.ndarray[Any, np.dtype[np.float64]]
METHODS = ("auto", "directional")
OPTIMUM = "inconclusive: only rounding is left of the gradient"
STATIONARY = "inconclusive: the value and its slope are 0"


class Case(NamedTuple):
    """A function and its library's derivative, as the check ``entrance`` takes them.

    A point may be a tuple of inputs; ``args`` are further arguments. ``gradient`` is True if
    ``value`` returns both. ``wrong`` describes the mistake, ``noise`` a noise of the gradient that
    the check measures and accepts. ``expected`` has another verdict than pass or fail, and its
    reason. Pass, or fail for a wrong gradient, may replace kink and
    inconclusive: one method may see more than another.
    """

    value: Callable[..., Any]
    gradient: Callable[..., Any] | bool
    points: dict[str, Any]
    args: tuple[Any, ...] = ()
    entrance: Callable[..., bx.GradientReport] = bx.check_gradient
    bounds: tuple[Any, Any] | None = None
    wrong: str | None = None
    noise: str | None = None
    expected: Mapping[str, str] = MappingProxyType({})

    def verdicts(self, label: str) -> set[str]:
        """Return the correct verdicts at a point."""
        usual = "fail" if self.wrong else "pass"
        named = self.expected.get(label, usual).partition(":")[0]
        return {named, usual} if named in ("kink", "inconclusive") else {named}

    def inputs(self, label: str) -> tuple[Any, ...]:
        point = self.points[label]
        return point if isinstance(point, tuple) else (point,)

    def check(self, label: str, method: str) -> bx.GradientReport:
        """Check at a point, without the warnings of the library's functions."""
        more = {"args": self.args} if self.args else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return self.entrance(
                self.value, self.gradient, *self.inputs(label),
                bounds=self.bounds, method=method, **more,
            )  # fmt: skip


class Pair(NamedTuple):
    """A named case that a call builds, as data and training are slow."""

    name: str
    call: Callable[[], Case]


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def complex_normal(*shape: int, seed: int = 0) -> Any:
    return normal(*shape, seed=seed) + 1j * normal(*shape, seed=seed + 1)


def elementwise(
    function: Any, derivative: Any, points: dict[str, Any], *args: Any, **more: Any
) -> Callable[[], Case]:
    """An elementwise function with a diagonal Jacobian: no entry hides another."""

    def diagonal(x: Array, *args: Any) -> Array:
        return np.diag(derivative(x, *args))

    where = {label: np.array(x, dtype=np.float64) for label, x in points.items()}
    return lambda: Case(function, diagonal, where, args, bx.check_jacobian, **more)


def all_pairs() -> list[Pair]:
    """The pairs of every library that is installed."""
    tables: list[Pair] = []
    for library in ("sklearn", "scipy", "statsmodels", "astropy", "torch", "jax", "other"):
        if library == "other" or importlib.util.find_spec(library):
            tables += importlib.import_module(f"tests.wild.{library}_pairs").PAIRS
    return tables
