"""Standard errors: against linear regression, SciPy's curve fit, and repeated trainings.

Specifies ``influence`` and ``coefficients``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit
from scipy.stats import t as student

import backprop_xp as bx

generator = np.random.default_rng(5)
TIMES = generator.uniform(size=(9, 1))
READINGS = 1.0 + 2.0 * TIMES - 0.7 * TIMES**2 + generator.normal(0.0, 0.1, (9, 1))
LINE = bx.Dense(1, 1)
UNKNOWN = {"k": 0.5}
# a t + b + k t**2: linear in a, b and k
MEASURED = bx.Equation([LINE], lambda s: s.u + s.k * s.t * s.t, "t", unknown=UNKNOWN)
LAW = bx.Equation([LINE], lambda s: 0.0 * s.u + s.k, "t", unknown=UNKNOWN)


def regression(times: np.ndarray, readings: np.ndarray) -> dict[str, Any]:
    """Return least squares of a, b and k by the textbook, with the errors of a t + b."""
    columns = np.concatenate([times, np.ones_like(times), times**2], axis=1)
    theta, *_ = np.linalg.lstsq(columns, readings[:, 0])
    freedom = len(times) - 3
    variance = np.sum((columns @ theta - readings[:, 0]) ** 2) / freedom
    covariance = variance * np.linalg.inv(columns.T @ columns)
    line = columns[:, :2]
    spread = np.sqrt(np.einsum("ij,jk,ik->i", line, covariance[:2, :2], line))
    return {
        "theta": theta,
        "noise": np.sqrt(variance),
        "freedom": freedom,
        "k": np.sqrt(covariance[2, 2]),
        "line": spread[:, None],
    }


def grouped(
    xp: Any, times: np.ndarray, readings: np.ndarray, laws: int = 1, **options: Any
) -> tuple[bx.Network, Any, Any, Any]:
    """Return a network, x, y and weights, with points of a law that counts for nothing."""
    groups = {
        "readings": (MEASURED, *xp.put(times, readings)),
        "law": (LAW, xp.asarray(np.zeros((laws, 1)))),
    }
    layer, x, y, weight = bx.group_rows(groups, weights={"law": 0.0}, **options)
    return bx.Network([layer], "mean_squared_error"), x, y, weight


def check(xp: Any, errors: Any, expected: dict[str, Any], times: Any) -> None:
    xp.assert_close(errors.unknown["k"], expected["k"], 1e-11)
    xp.assert_close(errors.noise, expected["noise"], 1e-11)
    xp.assert_close(errors.freedom, np.asarray(float(expected["freedom"])), 1e-11)
    xp.assert_close(errors.parameters, np.asarray(3.0), 1e-11)
    xp.assert_close(errors.of(xp.asarray(times)), expected["line"], 1e-11)


def test_a_model_that_is_linear_has_the_errors_of_linear_regression(xp: Any) -> None:
    expected = regression(TIMES, READINGS)
    network = bx.Network([MEASURED], "mean_squared_error")
    theta, x, y = xp.put(expected["theta"], TIMES, READINGS)
    errors = bx.standard_errors(network, theta, x, y, measured=[MEASURED])
    check(xp, errors, expected, TIMES)
    xp.assert_close(errors.quantile(0.9), student.ppf(0.95, 6), 1e-9)
    weight = xp.asarray(np.full(9, 7.0))  # how the training counts them, not their precision
    given = {"measured": [MEASURED], "sample_weight": weight}
    check(xp, bx.standard_errors(network, theta, x, y, **given), expected, TIMES)


def test_what_no_reading_decides_about_changes_nothing(xp: Any) -> None:
    """Two layers one behind the other have five parameters for a line."""
    expected = regression(TIMES, READINGS)
    a, b, k = expected["theta"]
    equation = bx.Equation([LINE, LINE], MEASURED.residual, "t", unknown=UNKNOWN)
    network = bx.Network([equation], "mean_squared_error")
    theta, x, y = xp.put(np.array([2.0, 0.3, a / 2.0, b - 0.15 * a, k]), TIMES, READINGS)
    errors = bx.standard_errors(network, theta, x, y, measured=[equation])
    check(xp, errors, expected, TIMES)


def test_a_reading_may_be_a_difference_between_two_points(xp: Any) -> None:
    pairs = np.concatenate([TIMES, TIMES[::-1] + 0.3], axis=1)
    differences = READINGS + generator.normal(0.0, 0.1, (9, 1))
    columns = np.stack([pairs[:, 0] - pairs[:, 1], pairs[:, 0] ** 2], axis=1)
    (slope, k), squares, *_ = np.linalg.lstsq(columns, differences[:, 0])
    covariance = squares[0] / 7.0 * np.linalg.inv(columns.T @ columns)
    equation = bx.Equation(
        [LINE], lambda s: s[0].u - s[1].u + s[0].k * s[0].t ** 2, "t", unknown=UNKNOWN, points=2
    )
    network = bx.Network([equation], "mean_squared_error")
    theta, x, y = xp.put(np.array([slope, 0.3, k]), pairs, differences)
    errors = bx.standard_errors(network, theta, x, y, measured=[equation])
    xp.assert_close(errors.unknown["k"], np.sqrt(covariance[1, 1]), 1e-11)
    xp.assert_close(errors.freedom, np.asarray(7.0), 1e-11)


def test_a_penalty_counts_as_in_ridge_regression(xp: Any) -> None:
    columns = np.concatenate([TIMES, np.ones_like(TIMES), TIMES**2], axis=1)
    l2, weight = 0.3, 2.0 / 9.0
    matrix = weight * columns.T @ columns + np.diag([l2, 0.0, 0.0])
    moves = weight * np.linalg.solve(matrix, columns.T)
    theta, smooth = moves @ READINGS[:, 0], columns @ moves
    freedom = 9.0 - 2.0 * np.trace(smooth) + np.sum(smooth * smooth)
    variance = np.sum((columns @ theta - READINGS[:, 0]) ** 2) / freedom
    network = bx.Network([MEASURED], "mean_squared_error")
    given = xp.put(theta, TIMES, READINGS)
    errors = bx.standard_errors(network, *given, measured=[MEASURED], l2=l2)
    xp.assert_close(errors.freedom, np.asarray(freedom), 1e-11)
    xp.assert_close(errors.noise, np.sqrt(variance), 1e-11)
    xp.assert_close(errors.unknown["k"], np.sqrt(variance) * np.linalg.norm(moves[2]), 1e-11)


@pytest.mark.parametrize("laws", [1, 2, 4, 5])
def test_a_reading_at_several_places_counts_once_and_equal_readings_count_each(
    xp: Any, laws: int
) -> None:
    times, readings = (np.concatenate([one, one[:2]]) for one in (TIMES, READINGS))
    expected = regression(times, readings)
    network, x, y, weight = grouped(xp, times, readings, laws)
    theta = xp.asarray(expected["theta"])
    given = {"measured": [MEASURED], "sample_weight": weight}
    check(xp, bx.standard_errors(network, theta, x, y, **given), expected, times)


def test_a_stack_has_the_errors_of_each_network_and_what_has_no_weight_does_not_count(
    xp: Any,
) -> None:
    other = READINGS + 0.1 * np.cos(40.0 * TIMES)
    both = np.stack([READINGS, other])
    both[:, 3, :] = np.nan
    expected = [regression(np.delete(TIMES, 3, 0), np.delete(one, 3, 0)) for one in both]
    network = bx.Network([MEASURED], "mean_squared_error")
    theta, x, y = xp.put(np.stack([one["theta"] for one in expected]), TIMES, both)
    weight = xp.asarray(np.where(np.arange(9) == 3, 0.0, 1.0))
    given = {"measured": [MEASURED], "sample_weight": weight}
    errors = bx.standard_errors(network, theta, x, y, **given)
    for i, one in enumerate(expected):
        xp.assert_close(errors.unknown["k"][i, ...], one["k"], 1e-11)
        xp.assert_close(errors.noise[i, ...], one["noise"], 1e-11)
    assert errors.of(x).shape == (2, 9, 1)


CONFUSED: list[tuple[Callable[[Any], Any], list[str]]] = [
    (lambda s: s.u + (s.k + s.c) * s.t * s.t, ["k", "c"]),  # their sum alone
    (lambda s: s.u + s.k * s.t * s.t + s.c * s.t, ["c"]),  # the slope of s.u, too
    (lambda s: s.u + s.k * s.t * s.t, ["c"]),  # no such term
]


@pytest.mark.parametrize(("residual", "free"), CONFUSED)
def test_a_coefficient_that_no_reading_determines_has_an_infinite_error(
    xp: Any, residual: Callable[[Any], Any], free: list[str]
) -> None:
    expected = regression(TIMES, READINGS)
    unknown = {"k": 0.5, "c": 0.0}
    equation = bx.Equation([LINE], residual, "t", unknown=unknown)
    network = bx.Network([equation], "mean_squared_error")
    theta, x, y = xp.put(np.array([*expected["theta"], 0.0]), TIMES, READINGS)
    with pytest.warns(UserWarning, match=f"nor the equation determine {' and '.join(free)}: "):
        errors = bx.standard_errors(network, theta, x, y, measured=[equation])
    endless = np.isin([*unknown], free)
    for name, is_endless in zip(unknown, endless, strict=True):
        xp.assert_close(errors.unknown[name], np.inf if is_endless else expected["k"], 1e-11)
    covariance, correlation = bx.to_host(errors.covariance), bx.to_host(errors.correlation)
    assert (np.isinf(covariance) == (endless[:, None] | endless)).all()
    assert (np.isnan(correlation) == (endless[:, None] | endless)).all()
    assert "inf %" in repr(errors)


GROWING = np.linspace(0.0, 2.0, 15)[:, None]
START = [0.5, -1.0, 1.2, 0.9]  # a slope, a start, and the coefficients k and c of a growth
GROWTH = bx.Equation(
    [LINE], lambda s: s.u + s.k * s.xp.exp(s.c * s.t), "t", unknown={"k": 1.0, "c": 1.0}
)


def growth(t: Any, slope: Any, start: Any, k: Any, c: Any) -> Any:
    return slope * t + start + k * np.exp(c * t)


def slopes_of_growth(t: Any, slope: Any, start: Any, k: Any, c: Any) -> Any:
    return np.stack([t, np.ones_like(t), np.exp(c * t), k * t * np.exp(c * t)], axis=-1)


def grown() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return noisy readings of a growth, with SciPy's coefficients and their covariance."""
    noise = np.random.default_rng(3).normal(0.0, 0.05, GROWING.shape)
    readings = growth(GROWING, *START) + noise
    options: dict[str, Any] = {"p0": START, "jac": slopes_of_growth, "xtol": 1e-15, "ftol": 1e-15}
    return readings, *curve_fit(growth, GROWING[:, 0], readings[:, 0], **options)


def test_the_covariance_is_that_of_curve_fit(xp: Any) -> None:
    readings, theta, expected = grown()
    network = bx.Network([GROWTH], "mean_squared_error")
    given = xp.put(theta, GROWING, readings)
    errors = bx.standard_errors(network, *given, measured=[GROWTH])
    own, spread = expected[2:, 2:], np.sqrt(np.diagonal(expected))[2:]
    # SciPy's minimum is right to about eight digits.
    xp.assert_close(errors.covariance, own, 1e-6)
    xp.assert_close(errors.correlation, own / np.outer(spread, spread), 1e-6)
    assert [*errors.unknown] == ["k", "c"]
    for name, each in zip(errors.unknown, spread, strict=True):
        xp.assert_close(errors.unknown[name], each, 1e-6)


@pytest.mark.once
def test_a_print_has_the_errors_beside_the_coefficients_and_what_their_correlation_costs() -> None:
    readings, theta, expected = grown()
    network, more = bx.Network([GROWTH], "mean_squared_error"), {"measured": [GROWTH]}
    errors = bx.standard_errors(network, theta, GROWING, readings, **more)
    k, (of_k, of_c) = theta[2], np.sqrt(np.diagonal(expected))[2:]
    lines = repr(errors).splitlines()
    assert lines[0].startswith("StandardErrors of noise 0.0")
    assert lines[0].endswith("4 parameters, 11 degrees of freedom")
    assert lines[2].split() == ["k", f"{k:.4g}", f"{of_k:.4g}", f"{100 * of_k / k:.3g}", "%"]
    # With c known, the variance of k is the reciprocal of its precision beside c.
    alone = np.sqrt(1.0 / np.linalg.inv(expected[2:, 2:])[0, 0])
    r = expected[2, 3] / of_k / of_c
    assert lines[4:] == [
        f"strongest correlation: {r:.4g}, of k and c",
        f"if c were known, the error of k would be {alone:.4g}",
    ]
    stacked = np.stack([theta, theta])
    both = bx.standard_errors(network, stacked, GROWING, readings, **more)
    assert repr(both).splitlines()[0].startswith("StandardErrors of 2 networks, medians: noise 0.0")
    assert repr(both).splitlines()[1:] == lines[1:]
    assert "<table" in errors._repr_html_()


DECAYING = np.linspace(0.0, 2.0, 15)[:, None]
LAYERS = bx.mlp([1, 8, 1], hidden="tanh").layers
DECAY = bx.Equation(LAYERS, lambda s: s.u_t + s.k * s.u, "t", unknown={"k": 1.0})
READ = bx.Equation(LAYERS, lambda s: s.u, "t", unknown={"k": 1.0})


def trained(weight: float, epochs: int = 300) -> tuple[Any, ...]:
    """Return a network, theta, x, y and weights of noisy readings of exp(-k t)."""
    noise = np.random.default_rng(8).normal(0.0, 0.03, DECAYING.shape)
    readings = 1.5 * np.exp(-1.3 * DECAYING) + noise
    points = np.linspace(0.0, 2.0, 41)[:, None]
    groups = {"law": (DECAY, points), "readings": (READ, DECAYING, readings)}
    layer, x, y, weight = bx.group_rows(groups, weights={"readings": weight})
    network = bx.Network([layer], "mean_squared_error", l2=1e-9)
    options = {"optimizer": bx.LevenbergMarquardt(), "epochs": epochs, "sample_weight": weight}
    theta = network.initialize(seed=0, backend="numpy")
    return readings, network, bx.fit(network, theta, x, y, **options).theta, x, y, weight


@pytest.mark.once
def test_the_errors_of_a_differential_equation_are_those_of_its_solutions_curve_fit() -> None:
    readings, network, theta, x, y, weight = trained(0.1)
    found = bx.standard_errors(network, theta, x, y, measured=[READ], sample_weight=weight)

    def solution(t: Any, start: Any, k: Any) -> Any:
        return start * np.exp(-k * t)

    (start, k), covariance = curve_fit(solution, DECAYING[:, 0], readings[:, 0])
    _, unknown = network.layers[0].split(theta)
    assert unknown["k"] == pytest.approx(k, rel=2e-3)
    assert found.unknown["k"] == pytest.approx(np.sqrt(covariance[1, 1]), rel=0.03)
    assert found.parameters == pytest.approx(2.0, abs=0.1)
    slopes = np.exp(-k * DECAYING) * np.concatenate([0.0 * DECAYING + 1.0, -start * DECAYING], 1)
    band = np.sqrt(np.einsum("ij,jk,ik->i", slopes, covariance, slopes))
    np.testing.assert_allclose(found.of(DECAYING)[:, 0], band, rtol=0.05)


@pytest.mark.once
def test_a_theta_that_is_no_minimum_and_readings_that_overrule_the_equation_are_warned_of() -> None:
    _, network, theta, x, y, weight = trained(0.1)
    given = {"measured": [READ], "sample_weight": weight}
    moved = theta.copy()
    moved[-1] += 0.1
    with pytest.warns(UserWarning, match="not a minimum: another step would move k by"):
        bx.standard_errors(network, moved, x, y, **given)
    _, network, theta, x, y, weight = trained(100.0, 1000)
    with pytest.warns(UserWarning, match="parameters, but the equation leaves only 2 numbers free"):
        bx.standard_errors(network, theta, x, y, measured=[READ], sample_weight=weight)


NETWORK = bx.Network([MEASURED], "mean_squared_error")
REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: _refused(bx.mlp([1, 2, 1]), np.zeros(7)),
        TypeError,
        "a network of one layer, a bx.Equation or the layer of bx.group_rows",
    ),
    (
        lambda: _refused(bx.Network([MEASURED], "huber"), np.zeros(3)),
        ValueError,
        "needs the loss mean_squared_error or half_squared_error, not 'huber'",
    ),
    (lambda: _refused(NETWORK, np.zeros(3), [LAW]), ValueError, r"measured\[0\] is not one of"),
    (lambda: _refused(NETWORK, np.zeros(3), []), ValueError, "measured is empty"),
    (
        lambda: _refused(NETWORK, np.zeros(3), MEASURED),
        TypeError,
        "measured must be a sequence such as",
    ),
    (
        lambda: _refused(NETWORK, np.zeros(3), rows=3),
        ValueError,
        "The 3 readings decide about 3.0 parameters, which leaves 0.0 degrees of freedom",
    ),
    (
        lambda: _refused(NETWORK, np.zeros((2, 3)), x=np.stack([TIMES, TIMES])),
        ValueError,
        r"x has shape \(2, 9, 1\), but standard_errors takes points that all networks",
    ),
]


def _refused(
    network: bx.Network, theta: Any, measured: Any = (MEASURED,), rows: int = 9, x: Any = TIMES
) -> Any:
    given = x[..., :rows, :], READINGS[:rows]
    return bx.standard_errors(network, theta, *given, measured=measured)


@pytest.mark.once
@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_what_has_no_standard_errors_is_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()
