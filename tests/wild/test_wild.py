"""Gradients of released libraries: right ones pass, wrong ones and planted mistakes fail."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

for library, version in (("statsmodels", None), ("astropy", None), ("sklearn", "1.9")):
    pytest.importorskip(library, version, reason="gradients of released libraries: nox -s wild")

from tests.wild.pairs import METHODS, Array, Case, Pair, all_pairs  # noqa: E402

PAIRS = all_pairs()


def largest_off(g: Array, size: Array) -> Array:
    """Make the most important entry 5 % larger; ``size`` is the size of the point's entries."""
    largest = np.abs(g.reshape(-1, size.size) * size).argmax()
    return np.where(np.arange(g.size) == largest, 1.05 * g.ravel(), g.ravel()).reshape(g.shape)


MISTAKES: dict[str, Callable[[Array, Array], Array]] = {
    "factor 1.1": lambda g, _: 1.1 * g,
    "sign": lambda g, _: -g,
    "zero": lambda g, _: 0.0 * g,
    "largest entry 5 % off": largest_off,
}


def with_mistake(case: Case, label: str, change: Any) -> Case:
    """Return a case with a mistake in its gradient, or the case itself if it has no effect."""
    x, value, gradient = case.points[label].ravel(), case.value, case.gradient
    size = np.where(x == 0.0, np.sqrt(np.mean(x**2)) or 1.0, np.abs(x))

    def right(*args: Any) -> Array:
        return np.asarray(value(*args)[1] if gradient is True else gradient(*args), np.float64)

    here = right(case.points[label], *case.args)
    if np.array_equal(change(here, size), here):
        return case
    number = (lambda *args: value(*args)[0]) if gradient is True else value
    return case._replace(value=number, gradient=lambda *args: change(right(*args), size))


def verdict(case: Case, label: str, method: str) -> str:
    try:
        report = case.check(label, method)
    except TypeError as error:
        assert case.wrong, error  # noqa: PT017 - complex numbers for real ones are a find
        return "fail"
    assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance), report
    return report.verdict


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_verdict_is_correct_and_planted_mistakes_never_pass(pair: Pair) -> None:
    case, wrong = pair.call(), []
    for label, method in itertools.product(case.points, METHODS):
        here = verdict(case, label, method)
        if here not in case.verdicts(label):
            wrong.append((label, method, here))
        for name, change in MISTAKES.items() if "pass" in case.verdicts(label) else ():
            tampered = with_mistake(case, label, change)
            found = "fail" if tampered is case else verdict(tampered, label, method)
            if found == "pass" or found == "kink" != here:
                wrong.append((label, method, f"{name}: {found}"))
    assert not wrong
