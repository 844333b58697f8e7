"""Impossible curvatures: negative ones and those that are not finite."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.gradient_check.entrances.curvatures import curvature_fault

pytestmark = pytest.mark.long

VALUE = np.ones(2)
MATRIX = np.array([[1.0, 1.0], [1.0, 1.0]])
FAULTS: dict[str, tuple[np.ndarray, str]] = {
    "negative": (np.array([[1.0, 2.0], [-0.5, 3.0]]), "the eigenvalue -0.5, but none below 0"),
    "NaN": (np.array([[1.0, np.nan], [0.5, 3.0]]), "is not finite"),
    "infinite": (np.array([[1.0, np.inf], [0.5, 3.0]]), "is not finite"),
    "indefinite": (np.stack([MATRIX, np.eye(2)[::-1]]), "the eigenvalue -1, but"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_an_impossible_curvature_has_a_fault(xp: Any, name: str) -> None:
    curvature, fault = FAULTS[name]
    assert fault in (curvature_fault(*xp.put(curvature, VALUE, curvature)) or "")


def test_a_possible_curvature_has_none(xp: Any) -> None:
    zero = np.zeros((2, 2))
    rounding = np.array([[1.0, -1e-12], [1.0, 1.0]])  # of a second derivative that is 0
    for curvature in (zero, np.ones((2, 2)), rounding, np.stack([MATRIX, 0.0 * MATRIX])):
        assert curvature_fault(*xp.put(curvature, VALUE, curvature)) is None


def test_rows_whose_loss_is_not_finite_do_not_count(xp: Any) -> None:
    curvature = np.array([[np.nan, np.nan], [1.0, 1.0]])
    for value in (np.array([np.nan, 1.0]), np.array([np.inf, 1.0])):
        assert curvature_fault(*xp.put(curvature, value, curvature)) is None


@pytest.mark.parametrize("size", [1.0, 30.0, 300.0, 3e4])
def test_the_rounding_of_a_curvature_at_confident_outputs_is_no_fault(xp: Any, size: float) -> None:
    """There it is a difference of numbers near 1."""
    loss = bx.losses.categorical_cross_entropy

    def rounded(o: Any, t: Any) -> Any:
        p = bx.activations.softmax.value(o)
        unit = xp.asarray(np.eye(o.shape[-1]))
        return p[..., None] * (unit - p[..., None, :])

    own = bx.Loss(loss.value, loss.gradient, inverse_link="softmax", curvature=rounded)
    draw = np.random.default_rng(5)
    for _ in range(5):
        outputs, classes = size * draw.normal(size=(6, 4)), np.eye(4)[draw.integers(4, size=6)]
        assert bx.check_loss(own, *xp.put(outputs, classes)).verdict in ("pass", "inconclusive")


def test_the_curvature_of_categorical_cross_entropy_keeps_its_digits(xp: Any) -> None:
    """At a logit of 40 it is 4e-18 by itself, not a difference of numbers near 1."""
    loss = bx.losses.categorical_cross_entropy
    found = xp.host(loss.curvature(*xp.put([[40.0, 0.0, -2.0]], [[1.0, 0.0, 0.0]])))[0]
    rest = np.exp(-40.0) + np.exp(-42.0)
    p = np.array([1.0, np.exp(-40.0), np.exp(-42.0)]) / (1.0 + rest)
    exact = -np.outer(p, p)
    np.fill_diagonal(exact, p * np.array([rest, 1.0, 1.0]))
    np.testing.assert_allclose(found, exact, rtol=1e-12 if found.dtype == np.float64 else 1e-5)
