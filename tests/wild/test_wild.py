"""Gradients of released libraries: right ones pass, wrong ones and planted mistakes fail."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace, owner, to_host

for library, version in (("statsmodels", None), ("astropy", None), ("sklearn", "1.9")):
    pytest.importorskip(library, version, reason="gradients of released libraries: nox -s wild")

from tests.wild.pairs import METHODS, Array, Case, Pair, all_pairs  # noqa: E402

PAIRS = all_pairs()


def largest_off(g: Array, size: Array) -> Array:
    """Make the most important entry 5 % larger; ``size`` is the size of the point's entries."""
    largest = np.abs(g.reshape(-1, size.size) * size).argmax()
    return np.where(np.arange(g.size) == largest, 1.05 * g, g)


SMALLEST = "largest entry 5 % off"
MISTAKES: dict[str, Callable[[Array, Array], Array]] = {
    "factor 1.1": lambda g, _: 1.1 * g,
    "sign": lambda g, _: -g,
    "zero": lambda g, _: 0.0 * g,
    SMALLEST: largest_off,
}


def with_mistake(case: Case, label: str, change: Any) -> tuple[Case, list[bool]]:
    """Return a case with a mistake in its derivative, and a list of its effects at the point."""
    value, gradient, inputs = case.value, case.gradient, case.inputs(label)
    x = np.concatenate([np.abs(numbers(part)).ravel() for part in inputs])
    size = np.where(x == 0.0, np.sqrt(np.mean(x**2)) or 1.0, x)
    size = np.ones(1) if case.entrance is bx.check_jvp else size
    effects = []

    def wrong(*args: Any) -> Any:
        right = value(*args)[1] if gradient is True else gradient(*args)
        parts = right if isinstance(right, tuple) else (right,)
        hosts = [numbers(part) for part in parts]
        flat = np.concatenate([host.ravel() for host in hosts])
        changed = change(flat, size)
        if all(map(np.array_equal, args, inputs)):
            effects.append(not np.array_equal(changed, flat))
        ends = np.cumsum([host.size for host in hosts])[:-1]
        split = zip(np.split(changed, ends), hosts, parts, strict=True)
        found = tuple(like(part, new.reshape(host.shape)) for new, host, part in split)
        return found if isinstance(right, tuple) else found[0]

    number = (lambda *args: value(*args)[0]) if gradient is True else value
    return case._replace(value=number, gradient=wrong), effects


def numbers(part: Any) -> Array:
    """Return an array of any library, of float32 too, as one of NumPy's."""
    host = np.asarray(part) if owner(part) is None else to_host(part)
    return host if host.dtype.kind == "c" else host.astype(np.float64)


def like(part: Any, new: Array) -> Any:
    """Return an array of the library of another one, complex only if that is."""
    new = new if numbers(part).dtype.kind == "c" else new.real
    return new if owner(part) is None else array_namespace(part).asarray(new)


def verdict(case: Case, label: str, method: str) -> str:
    try:
        report = case.check(label, method)
    except TypeError as error:
        assert case.wrong, error  # noqa: PT017 - complex numbers for real ones are a find
        return "fail"
    assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance), report
    return report.verdict


def may_hide(case: Case, label: str, method: str) -> bool:
    """Whether 5 % of an entry is below 1 % of the norm of P equal terms, which rounding hides."""
    n = sum(numbers(part).size for part in case.inputs(label))
    return method == "directional" and label in case.expected and n > 5.0**2


@pytest.mark.filterwarnings("ignore")  # the libraries' own
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_the_verdict_is_correct_and_planted_mistakes_never_pass(pair: Pair) -> None:
    case, wrong = pair.call(), []
    for label, method in itertools.product(case.points, METHODS):
        here = verdict(case, label, method)
        if here not in case.verdicts(label):
            wrong.append((label, method, here))
        for name, change in MISTAKES.items() if "pass" in case.verdicts(label) else ():
            tampered, effects = with_mistake(case, label, change)
            found = verdict(tampered, label, method)
            assert effects
            if name == SMALLEST and may_hide(case, label, method):
                continue
            if any(effects) and (found == "pass" or found == "kink" != here):
                wrong.append((label, method, f"{name}: {found}"))
    assert not wrong
