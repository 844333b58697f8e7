"""What the catalogue's entries are made of: a function, its gradient, its truth, and its points.

``truth`` is the same function in mpmath. It takes an array of ``mpf`` numbers with the shape of the
point. A test differentiates it with sixty digits, so no entry rests on the checker that it judges.
"""

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any, NamedTuple

import mpmath
import numpy as np

Array = np.ndarray
Points = dict[str, Any]  # by kind
KINDS = ("ordinary", "optimal", "tiny", "huge", "saturated")

# Points of elementwise functions; a function adds or replaces kinds.
REAL: Points = {"ordinary": [0.3, -1.2, 2.1], "tiny": [1e-13, -2e-13, 3e-13]}
POSITIVE: Points = {"ordinary": [0.3, 1.7, 5.2], "tiny": [1e-13, 2e-13, 5e-13]}
UNIT: Points = {"ordinary": [0.2, 0.55, 0.85], "tiny": [1e-13, 2e-13, 5e-13]}


class Function(NamedTuple):
    """A function of one array and its right gradient, the sum of ``terms``.

    The value varies at the scale of the point's entries, as the check assumes by default. ``rough``
    names the kinds of points at which the terms of the gradient cancel: there it is right to the
    rounding of the terms, not to that of the sum. The optimal points always are rough.
    """

    name: str
    value: Callable[[Array], Any]
    terms: tuple[Callable[[Array], Any], ...]
    truth: Callable[[Array], Any]
    points: dict[str, Array]
    rough: frozenset[str] = frozenset()

    def gradient(self, x: Array) -> Array:
        return sum((np.asarray(term(x)) for term in self.terms), np.zeros(x.shape))


def _points(points: Points) -> dict[str, Array]:
    assert {"ordinary"} <= set(points) <= set(KINDS), points
    return {k: np.array(x, dtype=np.float64) for k, x in points.items() if x is not None}


def known(
    name: str, value: Any, terms: Any, truth: Any, *, rough: Iterable[str] = (), **points: Any
) -> Function:
    """A function of a library, with its truth written in mpmath."""
    terms = terms if isinstance(terms, tuple) else (terms,)
    return Function(name, value, terms, truth, _points(points), frozenset({"optimal", *rough}))


def each(name: str, f: Any, slope: Any, truth: Any, points: Points, **more: Any) -> Function:
    """The sum of ``f`` over the entries; ``truth`` is f of one ``mpf``."""
    numbers = np.frompyfunc(truth, 1, 1)
    return known(name, lambda x: np.sum(f(x)), slope, lambda x: numbers(x).sum(), **points | more)


def written(name: str, value: Any, *terms: Any, **points: Any) -> Function:
    """A function ``value(m, x)`` of elementary operations; m is NumPy or its twin in mpmath."""
    return known(name, lambda x: value(np, x), terms, lambda x: value(MP, x), **points)


def summed(name: str, f: Any, slope: Any, points: Points, **more: Any) -> Function:
    """The sum of ``f(m, x)`` over the entries."""
    terms = slope if isinstance(slope, tuple) else (slope,)
    return written(name, lambda m, x: m.sum(f(m, x)), *terms, **points | more)


def of_residuals(name: str, residuals: Any, jacobian: Any, **points: Any) -> Function:
    """The sum of squares of ``residuals(m, x)``, a list; ``jacobian(x)`` has their slopes."""

    def value(m: Any, x: Array) -> Any:
        return sum(r**2 for r in residuals(m, x))

    def slope(x: Array) -> Array:
        return 2.0 * np.array(jacobian(x)).T @ np.array(residuals(np, x))

    return written(name, value, slope, **points)


# ---- NumPy's functions in mpmath


def matrix(x: Array) -> Any:
    return mpmath.matrix(x.tolist())


def array(m: Any) -> Array:
    return np.array(m.tolist(), dtype=object)


_ELEMENTWISE = ("exp", "expm1", "log", "log1p", "sqrt", "cos")
# NumPy's own functions take arrays of objects.
_OF_OBJECTS = ("sum", "abs", "diff", "outer", "trace", "concatenate")
MP = SimpleNamespace(
    **{name: np.frompyfunc(getattr(mpmath, name), 1, 1) for name in _ELEMENTWISE},
    **{name: getattr(np, name) for name in _OF_OBJECTS},
    linalg=SimpleNamespace(
        det=lambda x: mpmath.det(matrix(x)),
        solve=lambda a, b: array(matrix(np.asarray(a, object)) ** -1) @ b,
        eigvalsh=lambda x: array(mpmath.eigsy(matrix(x), eigvals_only=True)).reshape(-1),
    ),
)


def true_gradient(function: Function, x: Array) -> Array:
    """Return the gradient of the truth, by central differences with sixty digits, rounded."""
    found = np.empty(x.shape)
    with mpmath.workdps(60):
        exact = np.frompyfunc(mpmath.mpf, 1, 1)(x).astype(object)
        for i in np.ndindex(x.shape):
            step, sides = mpmath.mpf(abs(x[i]) or 1.0) * mpmath.mpf("1e-20"), []
            for sign in (1, -1):
                moved = exact.copy()
                moved[i] += sign * step
                sides.append(function.truth(moved))
            found[i] = float((sides[0] - sides[1]) / (2 * step))
    return found


def true_value(function: Function, x: Array) -> float:
    with mpmath.workdps(60):
        return float(function.truth(np.frompyfunc(mpmath.mpf, 1, 1)(x).astype(object)))
