"""Mistakes planted by rules in the catalogue's gradients, and the verdicts on them.

A mistake that no check can see is not planted. A pass promises that the error bars hide at most
1 % of an entry that matters, and the rounding of the value hides smaller mistakes. So a mistake is
planted if it is *clear*: at least 2 % of an entry, and it changes the value by more than rounding.
A *small* mistake, of ten times the tolerance, must change the value by ten thousand times the
rounding: differences take steps of a hundredth of the point, and their error bars are several times
the rounding. The rounding is measured: it is the difference of the value and mpmath's.
"""

import functools
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import NamedTuple

import numpy as np

import backprop_xp as bx
from tests.function_catalogue.functions import Array, Function, true_value

# The modules of the functions.
GROUPS = (
    "special_functions",
    "probability",
    "losses_and_kernels",
    "physics",
    "linear_algebra",
    "optimization",
)
# The method, and whether the value is the twin that ends in float(...): it takes real numbers only.
WAYS = {
    "auto": ("auto", False),
    "directional": ("directional", False),
    "auto, real": ("auto", True),
    "directional, real": ("directional", True),
}


@functools.cache
def functions_of(group: str) -> dict[str, Function]:
    found = import_module(f"tests.function_catalogue.{group}").FUNCTIONS
    names = {function.name: function for function in found}
    assert len(names) == len(found), "two functions of one name"
    return names


class Case(NamedTuple):
    """A function at one of its points."""

    group: str
    name: str
    kind: str

    @property
    def function(self) -> Function:
        return functions_of(self.group)[self.name]

    @property
    def point(self) -> Array:
        return self.function.points[self.kind]


def cases(groups: Iterable[str] = GROUPS) -> Iterator[Case]:
    for group in groups:
        for name, function in functions_of(group).items():
            yield from (Case(group, name, kind) for kind in function.points)


# ---- mistakes


class Mistake(NamedTuple):
    """A wrong gradient, and the number of terms that the right one must have."""

    gradient: Callable[[Function, Array], Array]
    terms: int = 1


def changed(change: Callable[[Array], Array]) -> Mistake:
    return Mistake(lambda f, x: change(f.gradient(x)))


def forgotten(k: int) -> Mistake:
    def without(f: Function, x: Array) -> Array:
        return f._replace(terms=f.terms[:k] + f.terms[k + 1 :]).gradient(x)

    return Mistake(without, max(2, k + 1))


def entry(k: int, factor: float) -> Mistake:
    """A factor of one entry; a negative k counts from the end."""

    def one(g: Array) -> Array:
        return np.where(np.arange(g.size).reshape(g.shape) == k % g.size, factor * g, g)

    return changed(one)


MISTAKES = {
    "factor 2": changed(lambda g: 2.0 * g),
    "sign": changed(lambda g: -g),
    "sign lost": changed(np.abs),
    "zero": changed(lambda g: 0.0 * g),
    "0.1 % too large": changed(lambda g: 1.001 * g),
    "mean for the sum": changed(lambda g: g / g.size),
    "entries in another order": changed(lambda g: np.roll(g, 1)),
    "transposed": changed(lambda g: g.T.reshape(g.shape)),
    "first entry zero": entry(0, 0.0),
    "last entry halved": entry(-1, 0.5),
    "at another point": Mistake(lambda f, x: f.gradient(0.97 * x)),
    "penalty too many": Mistake(lambda f, x: f.gradient(x) + 0.01 * x),
    "term 1 forgotten": forgotten(0),
    "term 2 forgotten": forgotten(1),
    "term 3 forgotten": forgotten(2),
    "sign of term 2": Mistake(lambda f, x: f.gradient(x) - 2.0 * f.terms[1](x), 2),
}

# ---- the mistakes that a check can see

CLEAR, SMALL = 0.02, 1e-6  # of an entry: twice what a pass may hide, ten times the tolerance
ABOVE_ROUNDING, FAR_ABOVE_ROUNDING = 4.0, 1e4  # of the change of the value
MATTERS = 1e-5  # of the largest entry: ten times the share below which entries are not judged
NEAR = (1.0, 0.75, 1.25)  # the points at which rounding is measured


@functools.cache
def rounding_of(case: Case) -> float:
    """Return the largest rounding of the value at a few points near the case's."""
    return max(rounding_at(case.function, u * case.point) for u in NEAR)


def rounding_at(function: Function, x: Array) -> float:
    try:
        with np.errstate(all="ignore"):
            value, exact = float(function.value(x)), true_value(function, x)
    except (ValueError, TypeError, ArithmeticError):  # outside of the domain
        return 0.0
    error = max(abs(value - exact), np.finfo(np.float64).eps * abs(value))
    return error if math.isfinite(error) else 0.0


def is_visible(x: Array, right: Array, wrong: Array, method: str, rounding: float) -> bool:
    """Whether a check by this method can see the difference of two gradients at x."""
    size = np.abs(x)
    size[x == 0.0] = math.sqrt(np.mean(x * x)) or 1.0
    errors = np.abs(wrong - right) * size
    entries = np.maximum(np.abs(right), np.abs(wrong)) * size
    if method == "directional":
        # A direction weights entries down to 1e-3 of the largest, so that their terms count alike.
        weights = 1.0 / np.maximum(entries / entries.max(initial=1e-300), 1e-3)
        weights /= weights.max()
        errors, entries = (np.sqrt(np.sum((a * weights) ** 2)) for a in (errors, entries))
    judged = entries >= MATTERS * np.max(entries)
    clear = (errors >= CLEAR * entries) & (errors >= ABOVE_ROUNDING * rounding)
    small = (errors >= SMALL * entries) & (errors >= FAR_ABOVE_ROUNDING * rounding)
    return bool(np.any((clear | small) & judged & (errors > 0.0)))


def mistakes_in(case: Case, way: str) -> dict[str, Callable[[Array], Array]]:
    """Return the wrong gradients that a check can tell from the right one."""
    function, x = case.function, case.point
    right = function.gradient(x)
    found: dict[str, Callable[[Array], Array]] = {}
    for name, mistake in MISTAKES.items():
        if len(function.terms) < mistake.terms:
            continue
        wrong = functools.partial(mistake.gradient, function)
        if is_visible(x, right, wrong(x), WAYS[way][0], rounding_of(case)):
            found[name] = wrong
    return found


# ---- verdicts


class Verdict(NamedTuple):
    """What the check finds, without a mistake (an empty string) or with one."""

    case: Case
    way: str
    mistake: str
    verdict: str

    @property
    def is_wrong(self) -> bool:
        """Whether a right gradient does not get through, or a wrong one does."""
        if self.mistake:
            return self.verdict in ("pass", "kink")
        return self.verdict in ("fail", "nondeterministic")

    def __str__(self) -> str:
        group, name, kind = self.case
        return f"{group}: {name}, {kind}, {self.way}, {self.mistake or 'right'}: {self.verdict}"


def check(case: Case, way: str, gradient: Callable[[Array], Array]) -> bx.GradientReport:
    method, is_real = WAYS[way]
    value = case.function.value
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the libraries' own, far from the point
        return bx.check_gradient(
            (lambda x: float(value(x))) if is_real else value, gradient, case.point, method=method
        )


def verdicts(case: Case, way: str, every: int = 1, first: int = 0) -> Iterator[Verdict]:
    """Yield the verdict on the right gradient, and those on every so many of the mistakes."""
    planted = [*mistakes_in(case, way).items()][first % every :: every]
    for mistake, gradient in [("", case.function.gradient), *planted]:
        yield Verdict(case, way, mistake, check(case, way, gradient).verdict)
