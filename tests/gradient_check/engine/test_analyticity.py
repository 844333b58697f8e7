"""One decision says whether the complex step can be trusted, and every part of a check keeps it."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted_mistakes import check

scipy_special = pytest.importorskip("scipy.special")

WAYS = ["auto", "centered", "directional", "auto, real", "directional, real"]
every_way = pytest.mark.parametrize("way", WAYS)


def _verdict(value: Any, gradient: Any, point: Any, way: str) -> str:
    """Return the verdict on a function, or on its twin that takes and returns real numbers only."""
    method, is_real = way.removesuffix(", real"), way.endswith("real")
    checked = (lambda p: float(value(p))) if is_real else value
    return str(check.gradient(checked, gradient, np.asarray(point), method=method).verdict)


def _elastic(p: Any) -> Any:
    return np.sum((p - 1.0) ** 2) + np.sum(abs(p))  # a complex magnitude is not analytic


@every_way
@pytest.mark.parametrize("point", [[1e-10, -2e-10], [1e-12, -2e-12, 3e-12], [-3e-13]])
def test_a_term_that_is_not_analytic_counts_where_differences_show_mainly_rounding(
    point: list[float], way: str
) -> None:
    right = _verdict(_elastic, lambda p: 2.0 * (p - 1.0) + np.sign(p), point, way)
    assert right in ("pass", "inconclusive")
    assert _verdict(_elastic, lambda p: 2.0 * (p - 1.0), point, way) == "fail"


def _bessel(p: Any) -> Any:
    return np.sum(scipy_special.spherical_yn(2, p))  # SciPy's is wrong at complex points


def _bessel_slope(p: Any) -> Any:
    return scipy_special.spherical_yn(2, p, derivative=True)


@every_way
@pytest.mark.parametrize("factor", [1.001, 2.0, -1.0])
def test_rounding_is_not_measured_by_a_complex_step_that_is_rejected(
    factor: float, way: str
) -> None:
    points = {
        "bessel": (_bessel, _bessel_slope, [0.3, 1.7, 5.2]),
        "pair": (
            lambda p: np.sum(4.0 * (abs(p) ** -12 - abs(p) ** -6) + 0.0 * p),
            lambda p: 4.0 * (6.0 * p**-7 - 12.0 * p**-13),
            [1.1, 1.3, 1.7],
        ),
    }
    for name, (value, slope, point) in points.items():
        assert _verdict(value, slope, point, way) == "pass", name
        wrong = lambda p, slope=slope: factor * slope(p)  # noqa: E731
        assert _verdict(value, wrong, point, way) == "fail", name


def test_a_rejected_complex_step_is_not_taken_again() -> None:
    complex_calls = []

    def value(p: Any) -> Any:
        if np.iscomplexobj(p):
            complex_calls.append(p)
        return np.sum(abs(p) ** 3 + 0.0 * p)

    x = np.linspace(0.5, 1.5, 50)
    assert check.gradient(value, lambda p: 6.0 * p * p, x).verdict == "fail"
    assert len(complex_calls) <= 3  # along the line that decides


def test_a_complex_step_at_an_optimum_is_confirmed_by_points_nearby() -> None:
    value, slope = (lambda p: 1e6 + np.sum((p - 1.0) ** 2)), (lambda p: 2.0 * (p - 1.0))
    report = bx.check_gradient(value, slope, np.array([1.0 + 1e-9, 1.0 - 3e-9]))
    assert (report.verdict, report.method) == ("pass", "complex_step")


@every_way
@pytest.mark.parametrize("point", [[1e-12, -3e-9], [1e-13], [1e-13, 0.5]])
def test_a_function_of_tiny_entries_that_varies_at_1_gets_a_verdict(point: Any, way: str) -> None:
    def slope(p: Any) -> Any:
        return scipy_special.expit(p) * (1.0 - scipy_special.expit(p))

    def value(p: Any) -> Any:
        return np.sum(scipy_special.expit(p))

    assert _verdict(value, slope, point, way) == "pass"
    for factor in (1.1, 2.0, -1.0):
        assert _verdict(value, lambda p, k=factor: k * slope(p), point, way) == "fail", factor
    numeric = bx.numeric_gradient(lambda p: float(value(p)), np.array(point))
    assert np.all(numeric.error_bar < 1e-8)  # both engines are one
