"""Activations: closed forms, tails, and every backward rule against the complex step.

Specifies ``complex_safe``, ``in_place`` and ``sigmoids``.
"""

import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.jets.passes import seeded, unit_directions
from backprop_xp.networks.layers.activations import ACTIVATIONS, Activation

# A function and its exact derivative differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# exp turns a rounding of its argument, which is at most 709 here, into as large a relative error.
EXP_ROUNDING = 1e-12
# Too small to round the real part; its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100

# Enough that 1 + tanh(u) keeps some at the smallest float64 numbers.
DIGITS = 330

# Both sides of the kink at 0, the tails in which functions round, and beyond; no zeros of slopes.
SIZES = [2.0**-20, 2.0**-10, 0.125, 0.5, 1.0, 2.0, 5.0, 9.0, 13.0, 17.0, 20.0, 30.0, 50.0, 1e2, 1e3]
POINTS = [*(-z for z in reversed(SIZES)), *SIZES]
# A function takes some four roundings.
ROUNDINGS = 4.0


def _gelu(z: Any) -> Any:
    return z / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (z + 0.044715 * z**3)))


EXACT: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "relu": lambda z: max(z, 0),
    "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
    "leaky_relu_with": lambda z: z if z > 0 else 0.25 * z,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "gelu": _gelu,
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
}

# Also those that a function makes.
ALL = {**ACTIVATIONS, "leaky_relu_with": bx.activations.leaky_relu_with(0.25)}

every_activation = pytest.mark.parametrize("activation", ALL.values(), ids=ALL)
elementwise = pytest.mark.parametrize("name", [name for name in ALL if name != "softmax"])


def _vjp(activation: Activation, g: Any, z: Any, a: Any) -> Any:
    """Apply the rule as a layer does: without z if the rule does not need it."""
    return activation.vjp(g, None if activation.from_output else z, a)


@functools.cache
def _derivatives(name: str) -> np.ndarray:
    """Return the value and two derivatives at POINTS, ``(3, points)``."""
    with mpmath.workdps(DIGITS):
        exact = [[mpmath.diff(EXACT[name], mpmath.mpf(z), n) for z in POINTS] for n in range(3)]
        return np.asarray(exact, np.float64)


def _assert_has_digits(found: np.ndarray, expected: np.ndarray, floor: float = 0.0) -> None:
    """Assert that numbers are right to their own last digits, or to those of numbers of a size.

    The rounding of an exponent, here at most z or the logarithm of the result, is a relative error
    of the result. Numbers below 1e5 times the smallest normal one may be 0.
    """
    with np.errstate(divide="ignore"):
        exponent = np.abs(POINTS) + np.maximum(-np.log(np.abs(expected)), 0.0)
    limits, sizes = np.finfo(found.dtype), np.maximum(np.abs(expected), floor)
    exponent = np.minimum(exponent, -math.log(limits.tiny))
    allowed = ROUNDINGS * limits.eps * (1.0 + exponent) * sizes + 1e5 * limits.tiny
    error = np.abs(found - expected)
    assert np.all(error <= allowed), [*zip(POINTS, found, expected, error / allowed, strict=True)]


# These rules have a slope from the output, whose rounding near 1 is that of numbers of size 1.
BY_OUTPUT = {"sigmoid": 1.0, "tanh": 1.0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@elementwise
def test_a_value_and_its_slope_have_the_digits_of_the_closed_form(
    xp: Any, name: str, dtype: str
) -> None:
    z, one = (xp.asarray(np.asarray(values), dtype) for values in (POINTS, np.ones(len(POINTS))))
    a = ALL[name].value(z)
    value, slope, _ = _derivatives(name)
    _assert_has_digits(xp.host(a), value)
    _assert_has_digits(xp.host(_vjp(ALL[name], one, z, a)), slope, BY_OUTPUT.get(name, 0.0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@elementwise
def test_derivatives_of_jets_have_the_digits_of_the_closed_form(
    xp: Any, name: str, dtype: str
) -> None:
    z = xp.asarray(np.asarray(POINTS)[:, None], dtype)
    jet = ALL[name].value(seeded(z, unit_directions(z, (0,)), (((0, 0),),)))
    _, slope, curvature = _derivatives(name)
    _assert_has_digits(_part(xp, jet.first), slope, BY_OUTPUT.get(name, 0.0))
    _assert_has_digits(_part(xp, jet.second), curvature, BY_OUTPUT.get(name, 0.0))


def _part(xp: Any, part: Any) -> np.ndarray:
    return np.zeros(len(POINTS), xp.dtype) if part is None else xp.host(part)[0, :, 0]


@pytest.mark.float64
@every_activation
def test_a_complex_value_has_the_real_one_as_its_real_part(xp: Any, activation: Activation) -> None:
    z = np.asarray([[-900.0, -30.0, -1.0, 0.0], [0.0, 1.0, 30.0, 900.0]])
    real = xp.host(activation.value(xp.asarray(z)))
    shifted = xp.host(activation.value(xp.asarray(z + 1j * IMAGINARY_STEP, dtype="complex128")))
    assert np.all(np.isfinite(shifted))
    # Some libraries' complex log1p and division lose the last digits of a small real part.
    np.testing.assert_allclose(shifted.real, real, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.float64
@every_activation
def test_a_rule_takes_complex_numbers(xp: Any, activation: Activation) -> None:
    z, g = np.asarray([[-30.0, -1.0, 0.0], [0.5, 1.0, 30.0]]), np.asarray([[1.0, -2.0, 3.0]] * 2)
    found = []
    for dtype in ("float64", "complex128"):
        at = xp.asarray(z.astype(dtype), dtype=dtype)
        rule = _vjp(activation, xp.asarray(g.astype(dtype), dtype=dtype), at, activation.value(at))
        found.append(xp.host(rule))
    assert found[1].dtype == np.complex128
    np.testing.assert_allclose(found[1], found[0], rtol=ROUNDING, atol=ROUNDING)


@every_activation
@pytest.mark.parametrize("size", [1e4, -1e30])
def test_float32_stays_finite_and_float32_for_any_z(
    xp: Any, activation: Activation, size: float
) -> None:
    z = xp.asarray([[size, -1.0, 0.0], [size, size, -size]], dtype="float32")
    a = activation.value(z)
    slope = _vjp(activation, xp.asarray([[1.0, 2.0, 3.0]] * 2, dtype="float32"), z, a)
    assert a.dtype == slope.dtype == xp.namespace.float32
    assert np.all(np.isfinite(xp.host(a)))
    assert np.all(np.isfinite(xp.host(slope)))


@pytest.mark.parametrize("z", [-20.0, -80.0])
def test_a_float32_sigmoid_keeps_its_tail(xp: Any, z: float) -> None:
    a = float(xp.host(bx.activations.sigmoid.value(xp.asarray([z], dtype="float32")))[0])
    # float32 rounds at 6e-8; the form with tanh gives 0 here. At -80 the rounding of exp's argument
    # would change the result by 80 * 6e-8.
    assert a == pytest.approx(math.exp(z) / (1.0 + math.exp(z)), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sigmoid_takes_any_number(xp: Any, dtype: str) -> None:
    if dtype == "float64" and xp.dtype != "float64":
        pytest.skip("the device has no float64")
    largest, smallest = np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal
    above = np.asarray([smallest, 1e4, largest, np.inf])
    z = np.asarray([*-above, 0.0, *above, np.nan])
    a = bx.activations.sigmoid.value(xp.asarray(z, dtype=dtype))
    expected = [0.5, 0.0, 0.0, 0.0, 0.5, 0.5, 1.0, 1.0, 1.0, np.nan]
    # A library may cut exp off where the result is below the smallest normal number.
    np.testing.assert_allclose(xp.host(a), expected, rtol=0, atol=np.finfo(dtype).tiny)


def test_a_sigmoid_of_one_number_may_have_no_axis(xp: Any) -> None:
    a = bx.activations.sigmoid.value(xp.asarray(np.asarray(2.0)))
    assert a.shape == ()
    assert float(a) == pytest.approx(1.0 / (1.0 + math.exp(-2.0)), rel=1e-6)


@every_activation
def test_no_argument_is_written_to(activation: Activation) -> None:
    z, g = np.random.default_rng(5).normal(size=(2, 3, 4))
    z.flags.writeable = g.flags.writeable = False
    a = activation.value(z)
    a.flags.writeable = False
    _vjp(activation, g, z, a)


@pytest.mark.parametrize(("name", "left"), [("relu", 0.0), ("leaky_relu", 0.01), ("elu", 1.0)])
def test_the_slope_at_0_is_the_one_from_the_left(xp: Any, name: str, left: float) -> None:
    z, expected = xp.asarray([[0.0], [-0.0]]), np.full((2, 1), left, xp.dtype)
    slope = _vjp(ACTIVATIONS[name], xp.asarray([[1.0], [1.0]]), z, ACTIVATIONS[name].value(z))
    xp.assert_equal(slope, expected)
    jet = ACTIVATIONS[name].value(seeded(z, unit_directions(z, (0,)), ()))
    xp.assert_equal(np.zeros((2, 1)) if jet.first is None else jet.first[0, ...], expected)


# The values and slopes at infinity, without silu and gelu: those are NaN, as in PyTorch and JAX.
LIMITS = {
    "identity": ([-math.inf, math.inf], [1.0, 1.0]),
    "sigmoid": ([0.0, 1.0], [0.0, 0.0]),
    "tanh": ([-1.0, 1.0], [0.0, 0.0]),
    "relu": ([0.0, math.inf], [0.0, 1.0]),
    "leaky_relu": ([-math.inf, math.inf], [0.01, 1.0]),
    "elu": ([-1.0, math.inf], [0.0, 1.0]),
    "softplus": ([0.0, math.inf], [0.0, 1.0]),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LIMITS)
def test_an_infinite_z_gives_the_limits(xp: Any, name: str, dtype: str) -> None:
    z, one = (xp.asarray(np.asarray(x), dtype) for x in ([-math.inf, math.inf], [1.0, 1.0]))
    a = ACTIVATIONS[name].value(z)
    for found, expected in zip((a, _vjp(ACTIVATIONS[name], one, z, a)), LIMITS[name], strict=True):
        # A library may cut exp off where the result is below the smallest normal number.
        limits = np.finfo(dtype)
        np.testing.assert_allclose(xp.host(found), expected, rtol=limits.eps, atol=limits.tiny)


def test_softmax_is_exponentials_that_sum_to_1_and_ignores_a_shift(xp: Any) -> None:
    # Eighths, so that adding the shift rounds nothing.
    z, softmax = np.asarray([[0.5, -1.25, 3.0], [2.0, 0.0, -0.875]]), bx.activations.softmax
    a = softmax.value(xp.asarray(z))
    xp.assert_close(a, np.exp(z) / np.sum(np.exp(z), axis=-1, keepdims=True), ROUNDING)
    xp.assert_equal(softmax.value(xp.asarray(z + np.asarray([[1000.0], [-1000.0]]))), a)
    # So a gradient that is a common shift becomes 0.
    xp.assert_close(softmax.vjp(xp.asarray(np.full((2, 3), 7.0)), None, a), np.zeros((2, 3)), 7e-13)


@pytest.mark.parametrize("slope", [-0.1, 1.5, float("nan")])
def test_a_leak_is_a_slope_from_0_to_1(slope: float) -> None:
    with pytest.raises(ValueError, match=r"slope must be (finite and )?>= 0 and <= 1"):
        bx.activations.leaky_relu_with(slope)


def test_activations_of_one_leak_are_equal() -> None:
    assert bx.activations.leaky_relu_with(0.2) == bx.activations.leaky_relu_with(0.2)
    assert bx.activations.leaky_relu_with(0.2) != bx.activations.leaky_relu_with(0.3)
    assert bx.activations.leaky_relu_with(0.01) == bx.activations.leaky_relu


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_found_by_its_name_and_survives_pickling(name: str) -> None:
    activation = getattr(bx.activations, name)
    assert activation is ACTIVATIONS[name]
    assert pickle.loads(pickle.dumps(activation)) == activation  # noqa: S301


def test_a_custom_activation_is_a_value_and_a_rule(xp: Any) -> None:
    cube = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: 3 * z**2 * g)
    assert cube.from_output is False
    layer = bx.Dense(1, 1, cube)
    parameters = xp.asarray([[2.0]]), xp.asarray([[1.0]])
    a, cache = layer.forward(parameters, xp.asarray([[0.5]]), None)
    x_gradient, (weights, bias) = layer.backward(parameters, cache, xp.asarray([[1.0]]))
    found = [float(xp.host(value)[0, 0]) for value in (a, x_gradient, weights, bias)]
    assert found == [8.0, 24.0, 6.0, 12.0]  # at z = 2: z^3, 3 z^2 w, 3 z^2 x, 3 z^2


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_an_own_rule_for_a_function_of_ours_gets_z(name: str) -> None:
    seen = []

    def rule(g: Any, z: Any, a: Any) -> Any:
        seen.append(z)
        return g

    generator = np.random.default_rng(0)
    layer = bx.Dense(3, 2, Activation(ACTIVATIONS[name].value, rule))
    weights, bias, x = (generator.normal(size=shape) for shape in ((3, 2), (1, 2), (5, 3)))
    _, cache = layer.forward((weights, bias), x, None)
    layer.backward((weights, bias), cache, np.ones((5, 2)))
    np.testing.assert_allclose(seen[0], x @ weights + bias, rtol=ROUNDING, atol=ROUNDING)
