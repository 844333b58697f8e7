"""The diagnosis of a wrong gradient: one sentence that names tensors and pieces."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests import planted_mistakes
from tests.helpers import long
from tests.planted_mistakes import (
    Affine,
    WrongGradientNetwork,
    change_entries,
    check,
    entries_and_directions,
)

L2 = 0.1  # the strength of the penalty on the matrices
generator = np.random.default_rng(71)
SHAPES = {"first": (3, 3), "second": (3, 3), "one": (1, 1), "long": (7,), "tall": (2, 3)}
C = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
POINT = {name: generator.normal(size=shape) for name, shape in SHAPES.items()}
NOISE = generator.normal(size=(3, 3))
UNITS = np.array([1.0, 1e3, 1.0, 1e-3, 60.0, 180.0 / np.pi, 1.0])

# Changes a tensor's gradient g at p.
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _entries(change: Callable[[Any], Any], *indices: int) -> Change:
    return lambda g, p: change_entries(g, change, *indices)


def _diagnosis(names: list[str], change: Change, method: str) -> str | None:
    """Return the diagnosis of ``sum(c * sin(p))`` over a dict, with a penalty on two matrices."""
    strength = {name: L2 if name in ("first", "second") else 0.0 for name in SHAPES}

    def value(point: Any) -> Any:
        return sum(np.sum(C[k] * np.sin(p) + 0.5 * strength[k] * p * p) for k, p in point.items())

    def gradient(point: Any) -> Any:
        right = {k: C[k] * np.cos(p) + strength[k] * p for k, p in point.items()}
        return {k: change(g, point[k]) if k in names else g for k, g in right.items()}

    report = check.gradient(value, gradient, POINT, method=method)
    assert report.verdict == "fail"
    return report.diagnosis  # type: ignore[no-any-return]


# The tensors with a mistake, the mistake, and words of its diagnosis.
MISTAKES: dict[str, tuple[list[str], Change, tuple[str, ...]]] = {
    "factor 0.3": ([*SHAPES], lambda g, p: 0.3 * g, ("whole gradient", "factor of 0.3")),
    "sign": ([*SHAPES], lambda g, p: -g, ("whole gradient", "factor of -1: the sign is wrong")),
    "in two": (["first", "tall"], lambda g, p: 2.0 * g, ("['first']", "factor of 2")),
    "zero": (["first"], lambda g, p: 0.0 * g, ("['first'] is zero, and should not be",)),
    "transpose": (["first"], lambda g, p: g.T, ("['first'] is the transpose",)),
    "Fortran": (["tall"], lambda g, p: g.ravel("F").reshape(2, 3), ("Fortran's order",)),
    "rolled": (["long"], lambda g, p: np.roll(g, 2), ("['long'] is", "rolled by 2")),
    "reversed": (["long"], lambda g, p: g[::-1], ("['long'] is", "reversed")),
    "swapped entries": (["long"], lambda g, p: g[[0, 4, 2, 3, 1, 5, 6]], ("entries 1 and 4 swap",)),
    "swapped rows": (["first"], lambda g, p: g[[2, 1, 0]], ("rows", "0", "2")),
    "swapped columns": (["first"], lambda g, p: g[:, [1, 0, 2]], ("columns", "0", "1")),
    "zero entries": (["first"], _entries(lambda e: 0.0 * e, 1, 5), ("is zero in 2 of 9 entries",)),
    "not finite": (["first"], _entries(lambda e: e + np.nan, 1, 5), ("2 of 9", "not finite")),
    "a block": (["first"], _entries(lambda e: 2.0 * e, *range(3, 9)), ("6 of 9", "factor of 2")),
    "a constant": (["first"], lambda g, p: g + 0.5, ("0.5 too large in every entry",)),
    "units": (["long"], lambda g, p: g * UNITS, ("a factor for each entry", "1000", "units?")),
    "logarithms": (["long"], lambda g, p: g * p, ("times the parameter", "logarithm")),
    "no penalty": (["first"], lambda g, p: g - L2 * p, ("lacks 0.1 times the parameter",)),
}
# One or two entries fit almost any explanation, so the report has no diagnosis.
SILENT: dict[str, tuple[list[str], Change, tuple[str, ...]]] = {
    "noise": (["first"], lambda g, p: g + NOISE, ()),
    "one entry off": (["first"], _entries(lambda e: e + 0.5, 4), ()),
    "two entries off": (["first"], _entries(lambda e: 1.7 * e, 1, 5), ()),
    "nearly twice": (["first"], lambda g, p: 2.0 * g * (1.0 + 0.005 * NOISE), ()),
    "any factor of a number": (["one"], lambda g, p: 1.37 * g, ()),
    "a number and the parameter": (["one"], lambda g, p: g + 0.37 * p, ()),
}


@entries_and_directions
@pytest.mark.parametrize("name", [*MISTAKES, *SILENT])
def test_a_common_mistake_gets_its_diagnosis_and_no_other(name: str, method: str) -> None:
    names, change, says = (MISTAKES | SILENT)[name]
    diagnosis = _diagnosis(names, change, method)
    assert (diagnosis is None) == (name in SILENT)
    assert all(words in str(diagnosis) for words in says), diagnosis
    assert "['second']" not in str(diagnosis)  # right, or wrong in all entries


@pytest.mark.parametrize("size", [1e-24, 1e-13])
def test_a_residual_of_rounding_is_not_diagnosed_as_a_penalty(size: float) -> None:
    at = np.array([1.0, -2.0, 3.0, 0.5])
    value, gradient = lambda p: np.sum((p - at) ** 2), lambda p: 2.0 * (p - at) + size * p
    assert "penalty" not in str(check.gradient(value, gradient, at))


def test_the_diagnosis_has_no_number_from_one_entry_and_no_factor_of_1() -> None:
    point = np.array([0.0, 0.0, 0.7, 0.0, 0.0])
    weights = np.array([1.0, -2.0, 3.0, 4.0, 5.0])

    def diagnosis(change: np.ndarray) -> str:
        report = check.gradient(
            lambda p: np.sum(weights * np.sin(p)), lambda p: change * weights * np.cos(p), point
        )
        assert report.verdict == "fail"
        return str(report.diagnosis)

    assert "times the parameter" not in diagnosis(np.array([1.0, 1.0, 0.5, 1.0, 1.0]))
    assert "units" not in diagnosis(1.0 + 5e-6 * np.array([1.0, -1.0, 2.0, -2.0, 3.0]))
    assert "factor of 1.000004" in diagnosis(np.full(5, 1.000004))
    assert "1/1" not in diagnosis(np.full(5, 0.9995))


ROWS, FAILS = 5, "fails a check of its own"
# Every array has three columns, so JAX compiles few shapes.
X, Y = generator.normal(size=(2, ROWS, 3))
LAYERS = [bx.Dense(3, 3, "tanh"), bx.Dense(3, 3)]


def _diagnosis_of(xp: Any, network: bx.Network, method: str, **options: Any) -> str:
    theta = xp.initialize(network, seed=2)
    # No biases of 0, which have no penalty, and no scales of 1.
    theta = theta + xp.asarray(np.random.default_rng(72).normal(0.0, 0.2, network.size))
    if xp.name == "jax":  # JAX compiles each operation for every shape; one copy has one shape
        options["max_memory"] = 1
    report = check.network(network, theta, xp.asarray(X), xp.asarray(Y), method=method, **options)
    assert report.verdict == "fail"
    return report.diagnosis or ""


# Words in the diagnosis, words not in it, and a change of the gradient.
MISFITS: dict[tuple[str, str], Callable[[Any, Any, Any], Any]] = {
    ("factor of 5, the number of rows: a sum", "L2"): lambda g, t, m: ROWS * g,
    ("factor of 1/5, the number of rows: a mean", "L2"): lambda g, t, m: g / ROWS,
    ("the penalty (L2), 0.1 times", "bias"): lambda g, t, m: g - L2 * m * t,
    ("half of the penalty", "bias"): lambda g, t, m: g - 0.5 * L2 * m * t,
    ("twice the penalty", "bias"): lambda g, t, m: g + L2 * m * t,
    ("does not apply", "weights"): lambda g, t, m: g + L2 * (1.0 - m) * t,
}


@entries_and_directions
@pytest.mark.long
@pytest.mark.parametrize(("says", "absent"), MISFITS)
def test_the_diagnosis_uses_the_number_of_rows_and_the_penalty(
    xp: Any, says: str, absent: str, method: str
) -> None:
    change, mask = MISFITS[says, absent], bx.Network(LAYERS, "huber").weight_mask
    network = WrongGradientNetwork(lambda g, theta: change(g, theta, mask(theta)), LAYERS, l2=L2)
    diagnosis = _diagnosis_of(xp, network, method)
    assert says in diagnosis
    assert absent not in diagnosis
    assert FAILS not in diagnosis


def _network(*layers: Any, loss: Any = "half_squared_error") -> bx.Network:
    return bx.Network([LAYERS[0], *layers, LAYERS[1]], loss)


# Keys: the piece that the diagnosis names.
PIECES: dict[str, bx.Network] = {
    "layers[1] (Affine)": _network(Affine("scale")),
    "layers[1] (DropoutWithoutMask)": _network(planted_mistakes.DropoutWithoutMask(0.5)),
    "layers[1] (Residual)": _network(bx.Residual(Affine("input"))),
    "layers[0] (Dense); layers[2] (Affine)": bx.Network(
        [bx.Dense(3, 3, planted_mistakes.WRONG_SQUARE), bx.Dropout(0.5), Affine("scale")], "huber"
    ),
    "the loss": _network(loss=planted_mistakes.WRONG_LOSS),
    "": WrongGradientNetwork(lambda g, theta: change_entries(g, lambda e: e + 0.5, 7), LAYERS),
}


@pytest.mark.parametrize(
    "method",
    ["auto", *(pytest.param(m, marks=pytest.mark.once) for m in ("directional", "taylor"))],
)
@pytest.mark.parametrize("pieces", [p if p == "the loss" else long(p) for p in PIECES])
def test_the_wrong_piece_is_named_and_no_other(xp: Any, pieces: str, method: str) -> None:
    diagnosis = _diagnosis_of(xp, PIECES[pieces], method, rng=5)
    named = pieces.split("; ") if pieces else []
    assert all(f"{piece} {FAILS}" in diagnosis for piece in named), diagnosis
    assert diagnosis.count(FAILS) == len(named)


@pytest.mark.parametrize("tiny", [1e-11, 1e-13, 1e-14])
def test_an_entry_that_rounding_hides_does_not_hide_the_explanation_of_the_others(
    tiny: float,
) -> None:
    x = np.array([0.5, 0.7, 0.9, 1.1, 0.3, tiny])  # the steps of the last entry are that short

    def value(p: Any) -> float:
        return float(np.sum(np.sin(p) + p * p / 2.0))  # float() refuses complex numbers

    doubled = bx.check_gradient(value, lambda p: 2.0 * (np.cos(p) + p), x)
    assert doubled.diagnosis == "the gradient is the numeric gradient times a constant factor of 2"
    lacking = bx.check_gradient(value, np.cos, x)
    assert "a penalty (L2) is missing" in str(lacking.diagnosis)
