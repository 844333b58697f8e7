"""Numeric derivatives are near mpmath's, their bars hold, and they take few evaluations.

Specifies ``stencils``.
"""

import functools
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import backprop_xp as bx

DIGITS = 50


class Smooth(NamedTuple):
    """A function of two entries, written once for NumPy and mpmath."""

    value: Callable[[Any, Any, Any], Any]
    point: tuple[float, float]


# fmt: off
SMOOTH = {
    "a product with a sine": Smooth(lambda m, a, b: m.exp(a * b) + m.sin(b) * a**2, (0.3, 1.7)),
    "a logarithm": Smooth(lambda m, a, b: m.log(a + b) / a, (0.8, 4.0)),
    "a fraction": Smooth(lambda m, a, b: 1 / (1 + a**2 + b**4), (1.3, -0.6)),
    "a saturated loss": Smooth(lambda m, a, b: m.log(1 + m.exp(-3 * a * b)), (2.0, 1.5)),
    "a fast wave": Smooth(lambda m, a, b: m.cos(12 * a) + m.sin(b), (1.1, 0.2)),
    "a valley": Smooth(lambda m, a, b: 100 * (b - a**2) ** 2 + (1 - a) ** 2, (-1.2, 1.0)),
    "near an optimum": Smooth(lambda m, a, b: 3 + (m.exp(a) - 2) ** 2 + b**2, (0.69314718, 1e-3)),
    "tiny entries": Smooth(lambda m, a, b: m.exp(1e20 * a) * m.sqrt(1e20 * b), (1e-20, 3e-20)),
    "huge entries": Smooth(lambda m, a, b: m.tanh(a / 1e20) + (b / 1e20) ** 3, (5e19, -2e20)),
}
# fmt: on
# The evaluations of numdifftools for two entries: hard functions take no more.
GRADIENT, HESSIAN = 61, 121
# Those of the search for terms that cancel.
SEARCH = 50
# The ways in which functions return their value, and the largest bar, as a part of the value.
KINDS = {
    "complex": (lambda v: v, 1e-11),
    "float": (float, 1e-8),
    "eight digits": (lambda v: float(f"{float(v):.8g}"), 1e-3),
    "float32": (np.float32, 1e-2),
}


@functools.cache
def _exact(name: str, *orders: int) -> float:
    value, point = SMOOTH[name]
    with mpmath.workdps(DIGITS):
        numbers = tuple(map(mpmath.mpf, point))
        return float(mpmath.diff(lambda a, b: value(mpmath, a, b), numbers, orders))


def _counted(value: Callable[[Any], Any]) -> tuple[Callable[[Any], Any], list[Any]]:
    calls: list[Any] = []
    return lambda p: calls.append(p) or value(p), calls


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SMOOTH)
def test_a_gradient_is_mpmaths_to_within_small_bars(name: str, kind: str) -> None:
    (value, point), (convert, most) = SMOOTH[name], KINDS[kind]
    counted, calls = _counted(lambda p: convert(value(np, p[0], p[1])))
    found = bx.numeric_gradient(counted, np.asarray(point))
    error = np.abs(found.value - [_exact(name, 1, 0), _exact(name, 0, 1)])
    terms = np.abs(point) * np.maximum(np.abs(found.value), 1e-300)
    largest = np.maximum(terms.max(), abs(float(value(np, *point))))
    assert np.all(error <= found.error_bar)
    assert np.all(found.error_bar * np.abs(point) <= most * largest)
    search = SEARCH if name == "tiny entries" else 0
    assert found.evaluations == len(calls) <= GRADIENT + search


@pytest.mark.parametrize("name", SMOOTH)
def test_a_hessian_is_mpmaths_to_within_its_bars(name: str) -> None:
    value, point = SMOOTH[name]
    counted, calls = _counted(lambda p: float(value(np, p[0], p[1])))
    found = bx.numeric_hessian(counted, np.asarray(point))
    mixed = _exact(name, 1, 1)
    exact = np.asarray([[_exact(name, 2, 0), mixed], [mixed, _exact(name, 0, 2)]])
    sizes = np.abs(np.outer(point, point))
    largest = np.maximum(np.max(np.abs(exact) * sizes), abs(float(value(np, *point))))
    assert np.all(np.abs(found.value - exact) <= found.error_bar)
    assert np.all(np.abs(found.value - exact) * sizes <= 1e-8 * largest)
    assert found.evaluations == len(calls) <= HESSIAN


def _smooth(p: Any) -> Any:
    return np.sum(np.exp(p) * p) + np.prod(p)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_smooth_function_takes_a_third_of_the_evaluations_of_numdifftools(n: int) -> None:
    x = np.linspace(0.5, 1.0, n)
    assert bx.numeric_gradient(_smooth, x).evaluations == n + 9 + (n > 1)
    assert bx.numeric_gradient(lambda p: float(_smooth(p)), x).evaluations == 9 * n + 2
    assert bx.numeric_hessian(_smooth, x).evaluations == 9 * n * (n + 1) // 2 + 1


@pytest.mark.parametrize("frequency", [1575.0, 1580.0, 1585.0])
def test_the_first_steps_may_fit_the_periods_of_a_wave(frequency: float) -> None:
    def wave(p: Any) -> float:
        return float(np.sin(frequency * (p[0] - 0.7) + 0.4))

    found = bx.numeric_gradient(wave, [0.7])
    assert abs(found.value[0] - frequency * np.cos(0.4)) <= found.error_bar[0]
    slope = [frequency * np.cos(0.4)]
    assert bx.check_gradient(wave, lambda p: np.asarray(slope), np.asarray([0.7])).passed


def _families(m: Any, width: float) -> dict[str, Callable[[Any], Any]]:
    """Functions that vary over a width near 1, for NumPy and mpmath."""
    c, arctan = 1.0 - 0.6 * width, getattr(m, "arctan", None) or m.atan  # one float for both
    return {
        "a wave": lambda x: m.sin(x / width + 0.4),
        "a wave beside a parabola": lambda x: x**2 + 1e-3 * m.sin(x / width),
        "a wave on a level": lambda x: 1e3 + m.cos(x / width),
        "a chirp": lambda x: m.sin(x**2 / width),
        "a peak": lambda x: m.exp(-(((x - c) / width) ** 2)),
        "a peak on a line": lambda x: x + 0.1 * m.exp(-(((x - c) / width) ** 2)),
        "a resonance": lambda x: 1 / (1 + ((x - c) / width) ** 2),
        "a step": lambda x: arctan((x - c) / width),
        "a bent line": lambda x: width * m.log(1 + m.exp((x - c) / width)),
        "a corner": lambda x: m.sqrt((x - c) ** 2 + width**2),
        "a logarithm's pole": lambda x: m.log(x - c),
        "a root's edge": lambda x: m.sqrt(x - c),
    }


def _values_and_truths() -> Iterator[tuple[Callable[[Any], float], float, float]]:
    """Yield functions of p with their first and second derivatives at 1."""
    for width in (10.0 ** np.linspace(-5.0, -0.5, 31)).tolist():
        exact = _families(mpmath, width)
        for name, value in _families(np, width).items():
            with mpmath.workdps(DIGITS):
                first, second = (float(mpmath.diff(exact[name], 1, k)) for k in (1, 2))
            yield lambda p, value=value: float(value(p[0])), first, second


@pytest.mark.parametrize("bounds", [None, ([1.0], [np.inf])])
def test_the_bars_contain_derivatives_of_waves_and_narrow_features(bounds: Any) -> None:
    holds, sharp = [], []
    for value, first, second in _values_and_truths():
        pairs = (bx.numeric_gradient, first), (bx.numeric_hessian, second)
        for derivative, truth in pairs:
            found = derivative(value, np.ones(1), bounds=bounds)
            number, bar = float(found.value.item()), float(found.error_bar.item())
            holds.append(abs(number - truth) <= bar)
            sharp.append(bar <= 1e-2 * abs(truth))
    # Here 6 and 2 of 744 miss; another processor's rounding moves some. Equal steps missed 194.
    assert np.mean(holds) >= 0.985
    assert np.mean(sharp) >= 0.9


def test_an_exact_line_has_its_slope_to_rounding() -> None:
    found = bx.numeric_gradient(lambda p: float(p[0]), np.full(1, 0.5))
    rounded = 8e-15  # of nine products; weights that are rounded before cost 1.5e-14
    assert abs(float(found.value[0]) - 1.0) <= min(rounded, float(found.error_bar[0]))


@pytest.mark.parametrize("exponent", [-20, 20])
def test_an_entry_of_any_scale_has_its_digits(exponent: int) -> None:
    s = 10.0**exponent
    found = bx.numeric_gradient(lambda p: float(s * np.sum((p / s) ** 3)), [s, -2.0 * s])
    np.testing.assert_allclose(found.value, [3.0, 12.0], rtol=1e-12)
    assert np.all(found.error_bar < 1e-10)


def test_a_noisy_value_has_a_wide_bar() -> None:
    noise = np.random.default_rng(0).normal
    found = bx.numeric_gradient(lambda p: float(np.sum(np.exp(p)) + 1e-6 * noise()), [0.3, 1.0])
    error = np.abs(found.value - np.exp([0.3, 1.0]))
    assert np.all((error <= found.error_bar) & (found.error_bar > 1e-7))


def test_an_entry_that_shows_little_noise_by_chance_has_the_bar_of_the_others() -> None:
    """By their own noise alone, 3 of 900 bars miss."""
    for seed in range(3):
        draw = np.random.default_rng(seed)
        weights, point = 1e-9 * draw.normal(size=300), draw.uniform(0.5, 1.5, 300)

        def value(p: Any, weights: Any = weights) -> float:
            noise = 4.0 * (zlib.crc32(p.tobytes()) / 2.0**31 - 1.0)  # up to 4 roundings of 1
            return float(1.0 + weights @ np.sin(p) + noise * 2.0**-52)

        found = bx.numeric_gradient(value, point)
        assert np.all(np.abs(found.value - weights * np.cos(point)) <= found.error_bar)


@pytest.mark.parametrize("convert", [float, lambda v: v])
def test_the_bar_contains_the_rounding_of_a_saturated_function(
    convert: Callable[[Any], Any],
) -> None:
    holds = []
    for x in np.linspace(5.0, 25.0, 81).tolist():
        found = bx.numeric_gradient(lambda p: convert(np.log(1.0 - 1.0 / (1.0 + np.exp(-p)))), x)
        holds.append(abs(found.value + 1.0 / (1.0 + np.exp(-x))) <= found.error_bar < 1e-2)
    assert np.mean(holds) > 0.97


def test_the_bar_contains_roundings_that_are_the_same_at_all_steps() -> None:
    for slope in np.linspace(1.0, 2.0, 101).tolist():
        found = bx.numeric_gradient(lambda p, s=slope: round(float(s * p), 7), 1.3)
        assert abs(found.value - slope) <= found.error_bar < 1e-3


def test_the_bar_contains_the_rounding_to_the_dtype_of_the_point() -> None:
    x = np.linspace(0.1, 1.0, 8).astype(np.float32)
    found = bx.numeric_gradient(lambda p: np.sum(p**3), x)
    assert found.value.dtype == found.error_bar.dtype == np.float32
    exact = 3.0 * x.astype(np.float64) ** 2
    assert np.all(np.abs(found.value - exact) <= found.error_bar)
    assert np.all(found.error_bar < 1e-6)


@pytest.mark.parametrize("convert", [float, lambda v: v])
def test_the_bar_at_a_kink_contains_both_slopes(convert: Callable[[Any], Any]) -> None:
    found = bx.numeric_gradient(lambda p: convert(np.sum(np.maximum(p, 0.0))), [0.0, 2.0])
    np.testing.assert_allclose(found.value, [0.5, 1.0], atol=1e-9)
    assert found.error_bar[0] >= 0.5 > 1e-9 > found.error_bar[1]
    hessian = bx.numeric_hessian(lambda p: convert(np.sum(np.maximum(p, 0.0))), [0.0, 2.0])
    assert hessian.error_bar[0, 0] > abs(hessian.value[0, 0])


def test_a_cusp_has_an_infinite_bar() -> None:
    assert bx.numeric_gradient(lambda p: float(np.sqrt(abs(p))), 0.0).error_bar == np.inf


@pytest.mark.parametrize("convert", [float, lambda v: v])
def test_steps_stay_inside_of_the_domain(convert: Callable[[Any], Any]) -> None:
    outside: list[Any] = []

    def value(p: Any) -> Any:
        if np.any((p.real < 0.0) | (p.real > 1.0)):
            outside.append(p)
            raise ValueError("outside of the domain")
        return convert(np.sum(np.exp(p) * (2.0 + p)))

    x = np.asarray([0.0, 0.7, 1.0])
    for bounds in ((0.0, 1.0), None):  # known, or found out by an exception
        found = bx.numeric_gradient(value, x, bounds=bounds)
        error = np.abs(found.value - np.exp(x) * (3.0 + x))
        assert np.all((error <= found.error_bar) & (found.error_bar < 1e-8))
        assert bounds is None or not outside
        hessian = bx.numeric_hessian(value, x[:2], bounds=bounds)
        exact = np.diag(np.exp(x[:2]) * (4.0 + x[:2]))
        assert np.all(np.abs(hessian.value - exact) <= hessian.error_bar)
        assert np.all(hessian.error_bar < 1e-4)


def test_results_have_the_structure_and_library_of_the_point(xp: Any) -> None:
    a = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    point = {"a": a, "b": 0.5}
    one = bx.numeric_gradient(lambda p: xp.namespace.sum(p["a"] ** 2) * p["b"], point)
    for part in (one.value, one.error_bar):
        assert part["a"].shape == (2, 2)
        assert type(part["a"]) is type(a)
        assert part["a"].dtype == a.dtype
    xp.assert_close(one.value["a"], a, 1e-9)
    assert abs(float(one.value["b"]) - 30.0) <= float(one.error_bar["b"]) < xp.rounding(1e-6)

    several = bx.numeric_jacobian(lambda p: p["b"] * p["a"][0, :], point)
    expected = np.zeros((2, 2, 2))
    expected[[0, 1], 0, [0, 1]] = 0.5
    xp.assert_close(several.value["a"], expected, 1e-9)
    xp.assert_close(several.value["b"], xp.host(a)[0], 1e-9)

    second = bx.numeric_hessian(lambda p: xp.namespace.sum(p**2), a)
    assert type(second.value) is type(a)
    xp.assert_close(second.value, 2.0 * np.eye(4).reshape(2, 2, 2, 2), 1e-9)


def test_a_complex_argument_chosen_by_argnums_has_the_gradient_of_its_parts() -> None:
    z = np.asarray([1.0 + 2.0j, -0.5j])

    def value(k: Any, z: Any, name: str) -> Any:
        return k * np.sum(np.abs(z) ** 2)

    found = bx.numeric_gradient(value, 3, args=(z, "name"), argnums=1)
    np.testing.assert_allclose(found.value, 6.0 * z, atol=1e-9)
    by_both = bx.numeric_gradient(value, 3, args=(z, "name"), argnums=(1, 0)).value
    np.testing.assert_allclose(by_both[1], value(1, z, ""), atol=1e-9)


def test_unusable_arguments_are_errors_that_say_why() -> None:
    with pytest.raises(ValueError, match="no derivative can be taken"):
        bx.numeric_gradient(lambda p: np.nan, [1.0])
    with pytest.raises(ValueError, match="one number"):
        bx.numeric_gradient(lambda p: p, [1.0, 2.0])
    with pytest.raises(ValueError, match="writes into the point"):
        bx.numeric_gradient(lambda p: p.fill(0.0) or 1.0, [1.0, 2.0])
    with pytest.raises(ValueError, match="outside of its bounds"):
        bx.numeric_hessian(lambda p: 1.0, [2.0], bounds=(0.0, 1.0))
    with pytest.raises(TypeError, match="must be real at a real point"):
        bx.numeric_jacobian(lambda p: p, np.asarray([1j]))


def test_the_bars_of_tiny_entries_contain_the_slope_of_terms_that_cancel() -> None:
    """Near the point the values are constant."""
    single = np.float32
    for value, slope in (
        (lambda p: float(np.sum(1.0 - np.cos(p))), np.sin),
        (
            lambda p: float(np.sum(np.sin(single(1.0) + p.astype(single)))),
            lambda p: np.cos(1.0 + p),
        ),
    ):
        for size in (1e-8, 1e-9, 1e-12):
            point = size * np.array([1.0, -2.0, 3.0])
            found = bx.numeric_gradient(value, point)
            assert np.all(np.abs(found.value - slope(point)) <= found.error_bar), size
