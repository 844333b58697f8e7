"""The ladder of steps tells coarse values from kinks and narrow features.

Specifies ``lines``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.gradient_check.engine.analytic import analytic_gradient
from backprop_xp.gradient_check.engine.ladder import ladder
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.inputs.first_calls import first_calls
from backprop_xp.gradient_check.inputs.functions import Function
from backprop_xp.gradient_check.inputs.points import flatten
from backprop_xp.gradient_check.inputs.problems import Problem


def _ladder(value: Callable[[float], float], x: float, gradient: float = 1.0) -> NumericDerivative:
    def of_point(p: Any) -> float:
        return value(p.item())

    problem = Problem(flatten(np.array([x])), of_point, lambda p: np.full(1, gradient))
    first_calls(function := Function(problem))
    return ladder(Lines(analytic_gradient(function), np.arange(1)))


@pytest.mark.parametrize("seed", [7, 43, 124, 134, 179, 275])
def test_terms_of_several_units_are_within_the_error_bar(seed: int) -> None:
    """Each term is a float32: one after the other is no longer constant as the step grows."""
    draw = np.random.default_rng(seed)
    a, weights, phases, x = draw.normal(size=3), draw.normal(size=3), np.arange(3.0), draw.normal()

    def value(x: float) -> float:
        return float(weights @ np.sin(a * x + phases).astype(np.float32).astype(np.float64))

    found, true = _ladder(value, x), float(weights @ (a * np.cos(a * x + phases)))
    assert abs(found.value.item() - true) <= found.bar.item() <= 0.02 * np.abs(weights @ a)


def test_a_term_that_is_constant_over_short_steps_has_its_slope_in_the_bar() -> None:
    """The unit of 1 + x is large beside x, but the other term has none."""
    for x in (1e-13, -3e-13, 2e-12):
        found = _ladder(lambda x: 3.0 * x + ((1.0 + x) - 1.0), x)
        assert abs(found.value.item() - 4.0) <= found.bar.item() <= 1.0, x


@pytest.mark.parametrize("width", [1e-2, 1e-4, 1e-6])
def test_a_narrow_feature_is_no_coarse_value(width: float) -> None:
    found = _ladder(lambda x: x + width * np.tanh((x - 1.0) / width), 1.0)
    assert abs(found.value.item() - 2.0) <= found.bar.item() <= 1e-4


def test_a_kink_far_from_the_point_is_no_coarse_value() -> None:
    for at in 1.0 + np.geomspace(1e-6, 0.49, 40):
        found = _ladder(lambda x, at=at: 2.0 * x + max(x - at, 0.0), 1.0)
        assert abs(found.value.item() - 2.0) <= found.bar.item() <= 1e-6, at


def test_a_smooth_value_is_hardly_bisected() -> None:
    for f in (lambda x: np.exp(np.sin(x)), lambda x: x**-4.0 + 0.3 * x, np.log, np.cosh):
        points: list[float] = []

        def value(x: float, f: Any = f, points: Any = points) -> float:
            points.append(x)
            return float(f(x))

        _ladder(value, 0.3)
        assert len(points) <= 2 * 26 + 12  # the steps to both sides, and a few more


def test_a_pole_far_from_the_point_is_no_coarse_value() -> None:
    """Next to the pole the value changes by log 3 from one number to the next."""
    least = np.finfo(float).eps

    def value(x: float) -> float:
        p = min(max(x, least), 1.0 - least)
        return float(np.log(p / (1.0 - p)))

    for x in (0.3, 0.9, 1.0 - 1e-4, 1.0 - 1e-8):
        found, true = _ladder(value, x), 1.0 / (x * (1.0 - x))
        assert abs(found.value.item() - true) <= found.bar.item() <= 1e-4 * true, x


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_a_pole_that_is_clipped_has_no_part_in_the_rounding(power: float) -> None:
    """The clipped value is constant and huge; from one number to the next it is a jump."""
    least = np.finfo(float).eps
    for x in (0.9, 0.99, 1.0 - 1e-4):
        found = _ladder(lambda x: max(1.0 - x, least) ** -power, x)
        true = power * (1.0 - x) ** (-power - 1.0)
        assert abs(found.value.item() - true) <= found.bar.item() <= 1e-4 * true, x


def test_a_jump_on_one_side_alone_is_no_coarse_value() -> None:
    for at in (0.97, 1.001, 1.02):
        found = _ladder(lambda x, at=at: x**2 + 0.3 * (x > at), 1.0)
        assert abs(found.value.item() - 2.0) <= found.bar.item() <= 1e-6, at


@pytest.mark.parametrize("digits", [3, 4])
def test_a_coarse_value_jumps_on_both_sides_however_near_one_of_them_is(digits: int) -> None:
    for part in (0.02, 0.1, 0.5, 0.9, 0.98):
        x = 1.0 + 10.0**-digits * (0.5 + part)
        found = _ladder(lambda x: round(x, digits) + 0.1 * np.sin(x), x)
        assert abs(found.value.item() - 1.0 - 0.1 * np.cos(x)) <= found.bar.item(), part


def test_a_value_that_is_constant_far_around_is_measured_over_longer_steps() -> None:
    """A difference of numbers near 1 is 0, and then a multiple of 1e-16, of which it is a part."""
    for a in (1.0, 1.339):
        value = lambda x, a=a: float(a**2 * (1.0 - np.cos(x / a)))  # noqa: E731
        found = _ladder(value, -3e-9, -3e-9)
        assert abs(found.value.item() + 3e-9) <= found.bar.item() <= 1e-10
        # These steps skip what is near, so that they refute no gradient.
        assert _ladder(value, -3e-9, -1.0).bar.item() >= 1.0 - 1e-8
    assert _ladder(lambda x: max(x, 0.0), -1e-8).value == 0.0


def test_a_clipped_logarithm_is_checked_along_a_direction_beside_its_pole() -> None:
    least = np.finfo(float).eps

    def logit(p: Any) -> Any:
        q = np.clip(np.real(p), least, 1.0 - least)  # no complex step
        return np.log(q / (1.0 - q))

    def jacobian(p: Any) -> Any:
        return np.diag(1.0 / (p * (1.0 - p)))

    report = bx.check_jacobian(logit, jacobian, np.array([1e-8, 1.0 - 1e-8]), method="directional")
    assert report.verdict in ("pass", "inconclusive")
