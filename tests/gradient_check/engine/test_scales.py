"""Right gradients pass and wrong ones fail at any scale, and error bars cover the errors.

Specifies ``derivatives``.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.gradient_check.engine import derivatives
from backprop_xp.gradient_check.engine.analytic import analytic_gradient
from backprop_xp.gradient_check.engine.lines import Lines
from backprop_xp.gradient_check.inputs.first_calls import first_calls
from backprop_xp.gradient_check.inputs.functions import Function
from backprop_xp.gradient_check.inputs.points import flatten
from backprop_xp.gradient_check.inputs.problems import Problem
from tests.helpers import thorough

WRONG = {
    "zeroed": lambda g: 0.0 * g,
    "doubled": lambda g: 2.0 * g,
    "negated": lambda g: -g,
    "the first entry 1 % off": lambda g: np.concatenate([1.01 * g[:1], g[1:]]),
    "the last entry 1 % off": lambda g: np.concatenate([g[:-1], 1.01 * g[-1:]]),
}
METHODS = ["auto", "centered", "directional"]
every_method = pytest.mark.parametrize("method", METHODS)


def _each_by_one(cases: Iterable[Any]) -> list[Any]:
    """Return each case with one of the methods in turn, the rest marked."""
    return [
        case if method == METHODS[i % len(METHODS)] else thorough(*case)
        for i, name in enumerate(cases)
        for method in METHODS
        if (case := (name, method))
    ]


class Pair(NamedTuple):
    """A value, its gradient and the point of the check."""

    value: Callable[[Any], Any]
    gradient: Callable[[Any], Any]
    point: list[float]


def _check(pair: Pair, method: str, change: Any = lambda g: g) -> bx.GradientReport:
    """Check a pair, by centred differences where value accepts only real numbers."""

    def value(p: Any) -> Any:
        if method == "centered" and np.iscomplexobj(p):
            raise TypeError("real numbers only")
        return pair.value(p)

    def gradient(p: Any) -> Any:
        return change(np.asarray(pair.gradient(p)))

    chosen = "auto" if method == "centered" else method
    report = bx.check_gradient(value, gradient, np.asarray(pair.point), method=chosen)
    assert (report.verdict == "fail") == (report.max_relative_error > report.tolerance)
    return report


def _fitted(p: Any) -> tuple[Any, Any]:
    """Return the squared error of a sinusoid over a million periods, and its gradient."""
    phase = TURN * np.linspace(0.0, 1.0, 200)
    wave, slope = np.sin(p[1] * phase), p[0] * phase * np.cos(p[1] * phase)
    off = p[0] * wave - np.sin(1.00000003 * phase)
    return np.sum(off**2), [np.sum(2.0 * off * wave), np.sum(2.0 * off * slope)]


# fmt: off
def _at_scale(s: float) -> dict[str, Pair]:
    return {
        f"a peak of width {s:g}": Pair(lambda p: np.sum(1.0 / (1.0 + (p / s) ** 2)),
            lambda p: -2.0 * p / s**2 / (1.0 + (p / s) ** 2) ** 2, [s, 0.5 * s]),
        f"a cubic at {s:g}": Pair(lambda p: s * np.sum((p / s) ** 3),
            lambda p: 3.0 * (p / s) ** 2, [s, -2.0 * s]),
        f"a value of {s:g}": Pair(lambda p: s * np.sum(p * np.exp(p)),
            lambda p: s * (1.0 + p) * np.exp(p), [0.3, -0.7]),
    }


TURN, BOLTZMANN, GAS = 2e6 * np.pi, 1.380649e-23, 8.314
STEP = Pair(lambda p: np.sum(np.tanh((p - 1.0) / 1e-6)),
    lambda p: (1.0 - np.tanh((p - 1.0) / 1e-6) ** 2) / 1e-6, [1.0])
EXACT = {
    **{name: pair for e in (-20, 0, 20) for name, pair in _at_scale(10.0**e).items()},
    "a million periods": Pair(lambda p: np.sum(np.sin(TURN * p)),
        lambda p: TURN * np.cos(TURN * p), [1.0000001, 0.73]),
    "a sinusoid fitted": Pair(lambda p: _fitted(p)[0], lambda p: _fitted(p)[1], [0.9, 1.0000001]),
    "the middle of a narrow step": STEP,
    "the flank of a narrow step": STEP._replace(point=[1.0 + 3e-7]),
    "a narrow peak on a slope": Pair(lambda p: np.sum(p + 1e-3 / (1.0 + ((p - 1.0) / 1e-6) ** 2)),
        lambda p: 1.0 - 2e3 * (p - 1.0) / 1e-6 / (1.0 + ((p - 1.0) / 1e-6) ** 2) ** 2,
        [1.0000003, 1.0000001]),
    "a large phase": Pair(lambda p: np.sum(np.sin(p)), np.cos, [1e8, 3e7]),
    "a narrow wave at 0": Pair(lambda p: np.sum(np.sin(p / 1e-20)),
        lambda p: np.cos(p / 1e-20) / 1e-20, [0.0]),
    "a small pole": Pair(lambda p: np.sum(1.0 / p), lambda p: -1.0 / p**2, [1e-9, 3e-9]),
    "an ideal gas's pressure, by T and V": Pair(lambda p: GAS * p[0] / p[1],
        lambda p: [GAS / p[1], -GAS * p[0] / p[1] ** 2], [300.0, 2e-5]),
    "an energy, by mass, speed and T": Pair(lambda p: 0.5 * p[0] * p[1] ** 2 + BOLTZMANN * p[2],
        lambda p: [0.5 * p[1] ** 2, p[0] * p[1], BOLTZMANN], [1e-27, 1e3, 300.0]),
}
UNLIKE = Pair(lambda p: 1e10 * p[0] ** 2 + p[1] ** 3,
    lambda p: [2e10 * p[0], 3.0 * p[1] ** 2], [1.0, 1.0])
# fmt: on


@pytest.mark.parametrize(("name", "method"), _each_by_one(EXACT))
def test_right_gradients_pass_and_wrong_ones_fail_at_any_scale(name: str, method: str) -> None:
    assert _check(EXACT[name], method).verdict == "pass"
    for mistake, change in WRONG.items():
        assert _check(EXACT[name], method, change).verdict == "fail", mistake


@pytest.mark.parametrize("pairs", [1, 6])
def test_an_entry_whose_first_difference_shows_only_rounding_is_not_taken_to_be_small(
    pairs: int,
) -> None:
    """Himmelblau's function at tiny points, with a term of one entry forgotten."""

    def terms(p: Any) -> tuple[Any, Any, Any, Any]:
        x, y = p[0::2].real, p[1::2].real
        return x, y, x**2 + y - 11.0, x + y**2 - 7.0

    def value(p: Any) -> float:
        _, _, a, b = terms(p)
        return float(np.sum(a * a + b * b))

    def gradient(p: Any, *, forgets: bool = False) -> Any:
        x, y, a, b = terms(p)
        found = np.stack([4.0 * a * x + 2.0 * b, 2.0 * a + 4.0 * b * y], axis=1).reshape(-1)
        found[-2] -= 2.0 * b[-1] * forgets
        return found

    point = np.tile([1e-13, -2e-13], pairs)
    assert bx.check_gradient(value, gradient, point).verdict == "pass"
    report = bx.check_gradient(value, lambda p: gradient(p, forgets=True), point)
    assert report.verdict in (("fail",) if pairs == 1 else ("fail", "inconclusive"))


@pytest.mark.parametrize("method", ["auto", "centered"])
@pytest.mark.parametrize("factor", [0.99, 2.0, -1.0, 0.0])
def test_the_tolerance_of_an_entry_follows_its_own_size(factor: float, method: str) -> None:
    assert _check(UNLIKE, method).verdict == "pass"
    assert _check(UNLIKE, method, lambda g: g * [1.0, factor]).verdict == "fail"


# The rounding of a number that would be exact.
SPOILED = {
    **{f"{d} digits": lambda v, d=d: round(float(v), d) for d in (3, 9)},
    "float32 inside": lambda v: float(np.float32(v)),
    "an inner solver": lambda v: v * (1.0 + 1e-7 * np.sin(1e20 * v)),
    "exact": lambda v: v,
}
POINTS = [[0.3, 0.7, 1.2], [10.0, -3.0, 2.0]]


@pytest.mark.parametrize(
    ("how", "method", "point"),
    [
        *((how, METHODS[i % 3], POINTS[i % 2]) for i, how in enumerate(SPOILED)),
        *(thorough(*case) for case in itertools.product(SPOILED, METHODS, POINTS)),
    ],
)
def test_no_right_gradient_of_a_rough_value_fails_and_no_wrong_one_passes(
    how: str, method: str, point: list[float]
) -> None:
    pair = Pair(
        lambda p: SPOILED[how](np.sum(p.real * np.exp(np.sin(p.real)))),
        lambda p: np.exp(np.sin(p)) * (1.0 + p * np.cos(p)),
        point,
    )
    report = _check(pair, method)
    assert report.verdict == "pass" or "the value is noisy at" in report.reason, report
    for mistake, change in WRONG.items():
        found = _check(pair, method, change).verdict
        assert found == "fail" or (found == "inconclusive" and "1 %" in mistake), mistake


@every_method
@pytest.mark.parametrize("digits", [3, 9])
def test_noise_is_distinguished_from_a_fast_wave(digits: int, method: str) -> None:
    for seed in (11, 20):
        pair = Pair(
            lambda p: round(float(np.sum(np.sin(6e6 * p.real))), digits),
            lambda p: 6e6 * np.cos(6e6 * p),
            np.random.default_rng(seed).uniform(0.3, 2.0, 3).tolist(),
        )
        assert _check(pair, method).verdict in ("pass", "inconclusive"), seed
        assert _check(pair, method, lambda g: 2.0 * g).verdict == "fail", seed


@every_method
def test_equal_steps_that_fit_the_periods_of_a_wave_refute_no_right_gradient(method: str) -> None:
    root = np.sqrt([1.0, 2.0])

    def gradient(p: Any) -> Any:  # of the Griewank function
        cosines = np.cos(p / root)
        return p / 2000.0 + np.sin(p / root) / root * cosines[::-1]

    pair = Pair(lambda p: np.sum(p * p) / 4000.0 - np.prod(np.cos(p / root)), gradient, [])
    for point in ([5000.0, -7000.0], [1234.5, 9876.5], [-6001.0, 8003.0]):
        assert _check(pair._replace(point=point), method).verdict == "pass"
        assert _check(pair._replace(point=point), method, lambda g: 2.0 * g).verdict == "fail"


def _chain(start: float, dtype: type) -> tuple[Any, Any, Any]:
    """Return value, gradient and point of twenty particles on springs in a periodic potential."""
    point = ((start + np.arange(20.0)) * 1.02).astype(dtype)

    def value(x: Any) -> float:
        springs, waves = np.diff(x.real) - 1.02, np.cos(2.0 * np.pi * x.real)
        return float(np.sum(springs**2) / 2.0 + 0.1 * np.sum(1.0 - waves))

    def gradient(x: Any) -> Any:
        force = np.diff(x) - 1.02
        own = 0.2 * np.pi * np.sin(2.0 * np.pi * x)
        return np.append(0.0, force) - np.append(force, 0.0) + own

    return value, gradient, point


@pytest.mark.parametrize(("start", "dtype"), [(30.0, np.float64), (480.0, np.float64), (5.0, "f")])
def test_a_forgotten_entry_shows_where_the_steps_are_whole_periods_of_the_value(
    start: float, dtype: type
) -> None:
    value, gradient, point = _chain(start, dtype)
    assert bx.check_gradient(value, gradient, point).verdict == "pass"
    for i in (2, 14):
        wrong = lambda x, i=i: np.where(np.arange(20) == i, 0.0, gradient(x))  # noqa: E731
        assert bx.check_gradient(value, wrong, point).verdict == "fail", i


def test_a_forgotten_yearly_cycle_shows_in_every_kind_of_check() -> None:
    turn, t = 2.0 * np.pi, np.asarray([2021.3, 1990.7])
    value = lambda t: float(np.sum(0.001 * t.real + np.sin(turn * t.real)))  # noqa: E731
    series = lambda t: 0.001 * t.real + np.sin(turn * t.real)  # noqa: E731
    right = lambda t: 0.001 + turn * np.cos(turn * t)  # noqa: E731
    for method in METHODS:
        assert bx.check_gradient(value, right, t, method=method).verdict == "pass"
        wrong = bx.check_gradient(value, lambda t: 0.001 + 0.0 * t, t, method=method)
        assert wrong.verdict == "fail"
    assert bx.check_jacobian(series, lambda t: np.diag(right(t)), t).verdict == "pass"
    assert bx.check_jacobian(series, lambda t: 0.001 * np.eye(2), t).verdict == "fail"


@pytest.mark.parametrize("seed", [0, 14, 15, 25, 32, 141])  # all but 0 failed without the bar
def test_a_complex_step_that_underflows_refutes_no_right_jacobian(seed: int) -> None:
    draw = np.random.default_rng(seed)
    a, p = draw.normal(size=(3, 2)), draw.normal(size=2)
    exponents = draw.uniform(285.0, 303.0, size=3) * np.log(10.0)
    a *= (np.sqrt(exponents) / np.abs(a @ p))[:, None]

    def jacobian(p: Any) -> Any:
        return (-2.0 * (a @ p) * np.exp(-((a @ p) ** 2)))[:, None] * a

    for factor, verdict in ((1.0, "pass"), (1.05, "fail")):
        report = bx.check_jacobian(
            lambda p: np.exp(-((a @ p) ** 2)), lambda p, f=factor: f * jacobian(p), p
        )
        assert report.verdict == verdict


# Functions of one number in NumPy and mpmath, and the points of their derivatives.
CURVES = {
    "smooth": (lambda m, p: p * m.exp(m.sin(p)), [0.3, 10.0, -3.0]),
    "a narrow step": (lambda m, p: m.tanh((p - 1.0) / 1e-6), [1.0, 1.0000003]),
    "a pole": (lambda m, p: 1.0 / p, [1e-9, 1e9]),
    "a fast wave": (lambda m, p: m.sin(6e6 * p), [1.0000001, 0.73]),
    "a narrow peak": (lambda m, p: 1.0 / (1.0 + (p / 1e-10) ** 2), [1e-10, 3e-11, 1e-8]),
    "a large phase": (lambda m, p: m.sin(p), [1e8, 3e7]),
    "a large offset": (lambda m, p: 1e6 + m.sin(p), [0.3, 1.5]),
}
BARS = [("ladder", name, "exact") for name in CURVES]
BARS += [("ladder", name, how) for name in ("smooth", "a narrow step") for how in SPOILED]
BARS += [("quick_difference", name, "exact") for name in ("smooth", "a pole")]


@pytest.mark.parametrize(("engine", "name", "how"), BARS)
def test_an_error_is_within_its_error_bar(engine: str, name: str, how: str) -> None:
    curve, points = CURVES[name]
    for x in points:
        point = flatten(np.asarray([x]))
        problem = Problem(point, lambda p: SPOILED[how](curve(np, p.item())), np.ones_like)
        first_calls(function := Function(problem))
        lines = Lines(analytic_gradient(function), np.arange(1))
        found = getattr(derivatives, engine)(lines)
        with mpmath.workdps(60):
            step = mpmath.mpf(x) * mpmath.mpf("1e-20")
            true = float((curve(mpmath, x + step) - curve(mpmath, x - step)) / (2 * step))
        assert abs(found.value.item() - true) <= found.bar.item(), (x, found, true)
