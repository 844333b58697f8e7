"""Losses: closed forms, tails, and every gradient against the complex step.

Specifies ``rules`` and ``partial``.
"""

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import (
    LOSSES,
    Loss,
    over_outputs,
    point_of,
    value_and_gradient,
)
from tests.user_layers import PARAMETRIC_LOSSES, sample_targets

# A value and its exact counterpart differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# For formulas without cancellation: relative error, in machine epsilons of any precision.
FEW_ROUNDINGS = 4
# Too small to round the real part; its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100


def _binary_cross_entropy(o: Any, t: Any) -> Any:
    p = 1 / (1 + mpmath.exp(-o))
    return -t * mpmath.log(p) - (1 - t) * mpmath.log(1 - p)


def _focal(o: Any, t: Any, gamma: float) -> Any:
    p = 1 / (1 + mpmath.exp(-o))
    of_one, of_zero = (1 - p) ** gamma * mpmath.log(p), p**gamma * mpmath.log(1 - p)
    return -t * of_one - (1 - t) * of_zero


# Losses of one output, at targets that are valid for them.
EXACT: dict[str, Callable[[Any, Any], Any]] = {
    "mean_squared_error": lambda o, t: (o - t) ** 2,
    "half_squared_error": lambda o, t: (o - t) ** 2 / 2,
    "mean_absolute_error": lambda o, t: abs(o - t),
    "huber": lambda o, t: (o - t) ** 2 / 2 if abs(o - t) <= 1 else abs(o - t) - 0.5,
    "huber_with": lambda o, t: (o - t) ** 2 / 2 if abs(o - t) <= 2.5 else 2.5 * (abs(o - t) - 1.25),
    "log_cosh": lambda o, t: mpmath.log(mpmath.cosh(o - t)),
    "poisson": lambda o, t: mpmath.exp(o) - t * o,
    "binary_cross_entropy": _binary_cross_entropy,
    "hinge": lambda o, t: max(0, 1 - (2 * t - 1) * o),
    "quantile": lambda o, t: 0.2 * (t - o) if o < t else 0.8 * (o - t),
    "tweedie": lambda o, t: 2 * mpmath.exp(o / 2) + 2 * t * mpmath.exp(-o / 2) - 2 - 2 * t,
    "tweedie of power 1": lambda o, t: mpmath.exp(o) - t * o - 1,
    "tweedie of power 2": lambda o, t: o + t * mpmath.expm1(-o),
    "focal": lambda o, t: _focal(o, t, 2),
    "focal of gamma 0.5": lambda o, t: _focal(o, t, 0.5),
    "smoothed labels": lambda o, t: _binary_cross_entropy(o, 0.9 * t + 0.05),
    "smoothed focal": lambda o, t: _focal(o, 0.8 * t + 0.1, 1),
}
# Near 0, on both sides of huber's delta, and in the tails of the exponentials.
OUTPUTS = [-40.0, -3.0, -1e-8, 1e-8, 0.5, 2.0, 40.0]

ALL = {**LOSSES, **PARAMETRIC_LOSSES}

every_loss = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
elementwise = pytest.mark.parametrize("name", EXACT)
# Of a width that is two outputs for each target, or three.
SHAPE = (4, 6)


@elementwise
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_value_has_every_digit_of_its_closed_form(xp: Any, name: str, target: float) -> None:
    is_of_residuals = math.isinf(ALL[name].targets[0])
    o = np.asarray(OUTPUTS)[:, None] + (target if is_of_residuals else 0.0)
    o = o.astype(xp.dtype)
    values = xp.host(ALL[name].value(xp.asarray(o), xp.asarray(np.full_like(o, target))))
    with mpmath.workdps(50):
        expected = [float(EXACT[name](mpmath.mpf(v), mpmath.mpf(target))) for v in o[:, 0].tolist()]
    # At 40 the exponent's own rounding is 40 epsilons of the exponential; expm1 cancels at 0.
    exact = name.startswith(("focal", "smoothed", "tweedie"))
    close, terms = (4.0 * ROUNDING if exact else ROUNDING), 1e-8 * name.startswith("tweedie")
    tiny = float(np.finfo(xp.dtype).tiny) + xp.rounding(ROUNDING * terms)
    np.testing.assert_allclose(values, expected, rtol=xp.rounding(close), atol=tiny)


def _row_of_classes(name: str, o: list[Any], k: int) -> Any:
    """Return the loss of class k in closed form."""
    if name == "hinge":
        return max(0, 1 + max(o[:k] + o[k + 1 :]) - o[k])
    e = [mpmath.exp(v) for v in o]
    p = [v / mpmath.fsum(e) for v in e]
    if name == "smoothed classes":
        n = len(o)
        return -mpmath.fsum((0.9 * (j == k) + 0.1 / n) * mpmath.log(p[j]) for j in range(n))
    gamma, even = {"focal": (2, 0), "focal of gamma 0.5": (0.5, 0), "smoothed focal": (1, 0.2)}[
        name
    ]
    rest = [mpmath.fsum(e[:j] + e[j + 1 :]) / mpmath.fsum(e) for j in range(len(o))]
    shares = [(1 - even) * (j == k) + even / len(o) for j in range(len(o))]
    terms = zip(shares, rest, p, strict=True)
    return -mpmath.fsum(s * q**gamma * mpmath.log(v) for s, q, v in terms)


@pytest.mark.parametrize(
    "name", ["hinge", "focal", "focal of gamma 0.5", "smoothed focal", "smoothed classes"]
)
def test_a_loss_of_several_classes_has_its_closed_form(xp: Any, name: str) -> None:
    rows = np.asarray([[0.5, -1.0, 2.0], [30.0, 0.0, -5.0], [0.0, 0.0, 0.0], [-9.0, 20.0, 20.25]])
    for k in range(3):
        t = xp.asarray(np.eye(3)[[k] * len(rows)])
        values = xp.host(ALL[name].value(xp.asarray(rows), t))
        with mpmath.workdps(50):
            expected = [
                float(_row_of_classes(name, [mpmath.mpf(v) for v in row], k))
                for row in rows.tolist()
            ]
        np.testing.assert_allclose(values, expected, rtol=xp.rounding(4.0 * ROUNDING))


def test_gaussian_nll_is_that_of_the_means_and_the_log_variances(xp: Any) -> None:
    """Of two targets: first both means, then both log-variances; and its inverse link."""
    mean, log_variance = np.asarray([[0.5, -3.0]]), np.asarray([[0.0, 1.5]])
    t = np.asarray([[1.0, -1.0]])
    o = xp.asarray(np.concat([mean, log_variance], -1))
    nll = 0.5 * (log_variance + (t - mean) ** 2 / np.exp(log_variance))
    loss = bx.losses.gaussian_nll
    xp.assert_close(loss.value(o, xp.asarray(t)), np.mean(nll, -1), ROUNDING)
    deviations = np.exp(0.5 * log_variance)
    xp.assert_close(loss.inverse_link(o), np.concat([mean, deviations], -1), ROUNDING)


def test_quantiles_are_the_mean_of_each_level_alone(xp: Any) -> None:
    """Of two targets: both of the first level, then both of the second."""
    o, t = (
        np.random.default_rng(3).normal(size=(5, 4)),
        np.random.default_rng(4).normal(size=(5, 2)),
    )
    levels = bx.losses.quantile(0.25, 0.9)
    low, high = bx.losses.quantile(0.25), bx.losses.quantile(0.9)
    given, y = xp.asarray(o), xp.asarray(t)
    parts = [(low, given[:, :2]), (high, given[:, 2:])]
    values = [xp.host(one.value(part, y)) for one, part in parts]
    xp.assert_close(levels.value(given, y), np.mean(values, axis=0), ROUNDING)
    slopes = [xp.host(one.gradient(part, y)) / 2 for one, part in parts]
    xp.assert_close(levels.gradient(given, y), np.concat(slopes, -1), ROUNDING)


def test_the_least_of_a_quantile_loss_is_the_quantile(xp: Any) -> None:
    targets = xp.asarray(np.arange(100.0)[:, None])
    ones = xp.asarray(np.ones((100, 1)))
    totals = [
        float(np.sum(xp.host(bx.losses.quantile(0.3).value(q * ones, targets))))
        for q in (28.5, 29.5, 30.5)
    ]
    assert np.argmin(totals) == 1


@pytest.mark.parametrize("power", [1.0, 1.3, 1.9, 2.0])
def test_tweedie_is_least_at_the_target_and_has_sklearns_slope(xp: Any, power: float) -> None:
    """Its value is half of scikit-learn's deviance less that of exp(o) = 1."""
    metrics = pytest.importorskip("sklearn.metrics")
    o, t = np.asarray([-2.0, 0.3, 4.0]), np.asarray([0.7, 2.0, 3.0])
    loss = bx.losses.tweedie(power)
    values = xp.host(loss.value(xp.asarray(o[:, None]), xp.asarray(t[:, None])))
    half = [
        [metrics.mean_tweedie_deviance([y], [rate], power=power) / 2 for rate in (np.exp(v), 1.0)]
        for v, y in zip(o.tolist(), t.tolist(), strict=True)
    ]
    np.testing.assert_allclose(
        values, -np.diff(half)[:, 0], rtol=xp.rounding(1e-12), atol=xp.rounding(1e-13)
    )
    at = xp.host(loss.gradient(xp.asarray(np.log(t)[:, None]), xp.asarray(t[:, None])))
    np.testing.assert_allclose(at, 0.0, atol=xp.rounding(ROUNDING))


def test_focal_of_gamma_0_and_smoothing_of_0_are_cross_entropy(xp: Any) -> None:
    o = xp.asarray(np.random.default_rng(5).normal(0.0, 3.0, (6, 3)))
    t = xp.asarray(np.eye(3)[[0, 1, 2, 0, 1, 2]])
    one, bit = o[:, :1], t[:, :1]
    for loss in (bx.losses.focal(0.0), bx.losses.smoothed("categorical_cross_entropy", 0.0)):
        for part in ("value", "gradient"):
            known = getattr(bx.losses.categorical_cross_entropy, part)
            xp.assert_close(getattr(loss, part)(o, t), xp.host(known(o, t)), ROUNDING)
    for part in ("value", "gradient"):
        known = getattr(bx.losses.binary_cross_entropy, part)
        xp.assert_close(getattr(bx.losses.focal(0.0), part)(one, bit), known(one, bit), ROUNDING)


def test_label_smoothing_is_that_of_the_targets_and_of_pytorch(xp: Any, torch: Any) -> None:
    o, labels = np.random.default_rng(5).normal(0.0, 3.0, (6, 4)), np.asarray([0, 1, 2, 3, 1, 1])
    smoothed = bx.losses.smoothed("categorical_cross_entropy", 0.1)
    values = smoothed.value(xp.asarray(o), xp.asarray(np.eye(4)[labels]))
    expected = torch.nn.functional.cross_entropy(
        torch.tensor(o), torch.tensor(labels), reduction="none", label_smoothing=0.1
    )
    xp.assert_close(values, expected.numpy(), ROUNDING)
    soft = xp.asarray(0.9 * np.eye(4)[labels] + 0.1 / 4)
    xp.assert_close(
        values, bx.losses.categorical_cross_entropy.value(xp.asarray(o), soft), ROUNDING
    )
    network = bx.mlp([2, 4], loss=smoothed)
    theta, x = xp.initialize(network), xp.asarray(np.ones((3, 2)))
    xp.assert_close(
        network.loss(theta, x, xp.asarray([0, 1, 2], dtype=None)),
        network.loss(theta, x, xp.asarray(np.eye(4)[:3])),
    )


def test_a_hinge_counts_what_the_margin_misses(xp: Any) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    o, labels = np.random.default_rng(8).normal(0.0, 2.0, (9, 3)), np.arange(9) % 3
    t = np.eye(3)[labels]
    each = xp.host(bx.losses.hinge.value(xp.asarray(o), xp.asarray(t)))
    np.testing.assert_allclose(
        np.mean(each), metrics.hinge_loss(labels, o), rtol=xp.rounding(1e-13)
    )
    one = xp.host(bx.losses.hinge.value(xp.asarray(o[:, :1]), xp.asarray(t[:, :1])))
    binary = metrics.hinge_loss(labels == 0, o[:, 0])
    np.testing.assert_allclose(np.mean(one), binary, rtol=xp.rounding(1e-13))
    # Predictions above a half are class 1, as the metrics and the estimators take them.
    link = xp.host(bx.losses.hinge.inverse_link(xp.asarray(o[:, :1])))
    assert ((link > 0.5) == (o[:, :1] > 0.0)).all()


def test_a_tie_of_hinges_is_shared(xp: Any) -> None:
    o, t = xp.asarray([[0.0, 0.0, 0.0]]), xp.asarray([[1.0, 0.0, 0.0]])
    assert xp.host(bx.losses.hinge.gradient(o, t)).tolist() == [[-1.0, 0.5, 0.5]]


WRONG_PARAMETERS: list[tuple[Callable[[], Any], str]] = [
    (lambda: bx.losses.quantile(), "quantile needs at least one level, such as"),
    (lambda: bx.losses.quantile(0.5, 1.0), r"levels\[1\] must be > 0 and < 1, not 1"),
    (lambda: bx.losses.tweedie(0.5), "power must be >= 1 and <= 2, not 0.5"),
    (lambda: bx.losses.focal(-1.0), "gamma must be >= 0, not -1"),
    (lambda: bx.losses.smoothed("categorical_cross_entropy", 1.0), "smoothing must be >= 0 and <"),
    (lambda: bx.losses.smoothed("huber", 0.1), "'huber' is not one of the losses of classes"),
    (lambda: bx.losses.smoothed(bx.Loss(abs, abs), 0.1), "is not one of the losses of classes"),
]


@pytest.mark.parametrize(("make", "message"), WRONG_PARAMETERS)
def test_a_parameter_that_makes_no_loss_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_targets_have_a_column_for_several_outputs(xp: Any) -> None:
    network = bx.mlp([3, 4], loss="gaussian_nll")
    theta, x, y = xp.initialize(network), xp.asarray(np.ones((5, 3))), xp.asarray(np.ones((5, 2)))
    result = bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=2, validation=(x, y))
    assert np.isfinite(xp.host(result.theta)).all()
    assert network.predict(theta, x).shape == (5, 4)
    with pytest.raises(
        ValueError, match=r"outputs are \(\.\.\., 5, 4\)\. The loss needs 2 outputs"
    ):
        network.loss(theta, x, xp.asarray(np.ones((5, 4))))
    odd = bx.mlp([3, 3], loss="gaussian_nll")
    with pytest.raises(ValueError, match=r"5, 3\)\. The loss needs 2 outputs for each column of y"):
        odd.loss(xp.initialize(odd), x, y)


def test_gamma_has_no_target_of_0(xp: Any) -> None:
    network = bx.mlp([1, 1], loss=bx.losses.tweedie(2.0))
    theta, x = xp.initialize(network), xp.asarray([[1.0], [2.0]])
    y, options = xp.asarray([[0.0], [1.0]]), {"optimizer": bx.Adam(), "epochs": 1}
    with pytest.raises(ValueError, match=r"y has 1 value that is not in \[1e-37, inf\], 0.0"):
        bx.fit(network, theta, x, y, **options)


@pytest.mark.float64
def test_log_cosh_is_half_a_square_near_0(xp: Any) -> None:
    r = np.asarray([[1e-10], [-1e-6], [1e-4]])
    values = xp.host(bx.losses.log_cosh.value(xp.asarray(r), xp.asarray(np.zeros_like(r))))
    expected = (r**2 / 2 - r**4 / 12)[:, 0]  # the next term of the series is below r^6
    np.testing.assert_allclose(values, expected, rtol=ROUNDING)


def _confident(dtype: str) -> np.ndarray:
    """Return logits whose exponentials are still normal numbers of that precision."""
    far = {"float32": 80.0, "float64": 700.0}[dtype]
    near = [-2.0, -0.1, -1e-4, 0.0, 1e-4, 0.1, 2.0]
    return np.sort(np.concatenate([np.linspace(-far, far, 81), near])).astype(dtype)


@pytest.mark.parametrize("target", [0.0, 1.0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_cross_entropy_keeps_its_digits(xp: Any, dtype: str, target: float) -> None:
    logits = _confident(dtype)
    loss, o = bx.losses.binary_cross_entropy, xp.asarray(logits[:, None], dtype=dtype)
    t = xp.asarray(np.full((len(logits), 1), target), dtype=dtype)
    with mpmath.workdps(50):
        away = [mpmath.exp(mpmath.mpf(v) * (1 - 2 * int(target))) for v in logits.tolist()]
        value = [float(mpmath.log1p(e)) for e in away]
        gradient = [[float((1 - 2 * target) * e / (1 + e))] for e in away]
    few = FEW_ROUNDINGS * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(xp.host(loss.value(o, t)), value, rtol=few)
    np.testing.assert_allclose(xp.host(loss.gradient(o, t)), gradient, rtol=few)


@pytest.mark.parametrize(
    "others", [[0.0], [0.0, -16.0], [0.0, 0.0]], ids=["two classes", "three", "two alike"]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_categorical_cross_entropy_keeps_its_digits_at_confident_logits(
    xp: Any, dtype: str, others: list[float]
) -> None:
    """The logits have exact differences: a rounded one costs more than any formula can."""
    # Sixteenths are exact in float32 even at 700.
    logits = np.round(16.0 * _confident(dtype)) / 16.0
    rows = np.stack([logits, *(np.full_like(logits, other) for other in others)], axis=-1)
    loss, o = bx.losses.categorical_cross_entropy, xp.asarray(rows, dtype=dtype)
    few, tiny = FEW_ROUNDINGS * float(np.finfo(dtype).eps), float(np.finfo(dtype).tiny)
    for k in range(rows.shape[-1]):
        one_hot = np.zeros(rows.shape)
        one_hot[:, k] = 1.0
        value, gradient = [], []
        with mpmath.workdps(50):
            for row in rows.tolist():
                e = [mpmath.exp(mpmath.mpf(v)) for v in row]
                rest = mpmath.fsum(e[:k] + e[k + 1 :])
                value.append(float(mpmath.log1p(rest / e[k])))
                shares = [v / mpmath.fsum(e) for v in e]
                shares[k] = -rest / mpmath.fsum(e)
                gradient.append([float(share) for share in shares])
        t = xp.asarray(one_hot, dtype=dtype)
        np.testing.assert_allclose(xp.host(loss.value(o, t)), value, rtol=few, atol=tiny)
        np.testing.assert_allclose(xp.host(loss.gradient(o, t)), gradient, rtol=few, atol=tiny)


@pytest.mark.parametrize("total", [1.0, 0.5, 1e6])
def test_cross_entropies_of_soft_targets_are_those_of_every_class(xp: Any, total: float) -> None:
    """The sum of a row of categorical targets weighs the row's classes."""
    o = np.asarray([[0.3, -1.2, 0.7], [30.0, 0.0, -5.0], [0.0, 0.0, 0.0], [-9.0, 20.0, 20.0]])
    t = np.asarray([[0.2, 0.3, 0.5], [0.75, 0.25, 0.0], [0.0, 1.0, 0.0], [1e-9, 0.5, 0.5 - 1e-9]])
    shares = np.exp(o) / np.sum(np.exp(o), -1, keepdims=True)
    loss, close, given = bx.losses.categorical_cross_entropy, xp.rounding(ROUNDING), xp.asarray(o)
    values = xp.host(loss.value(given, xp.asarray(total * t)))
    np.testing.assert_allclose(values, -total * np.sum(t * np.log(shares), -1), rtol=close)
    gradient = xp.host(loss.gradient(given, xp.asarray(total * t)))
    np.testing.assert_allclose(gradient, total * (shares - t), rtol=0, atol=total * close)
    if total == 1.0:
        p, loss = 1 / (1 + np.exp(-o)), bx.losses.binary_cross_entropy
        expected = np.mean(t * np.logaddexp(0.0, -o) + (1 - t) * np.logaddexp(0.0, o), -1)
        values = xp.host(loss.value(given, xp.asarray(t)))
        np.testing.assert_allclose(values, expected, rtol=close)
        gradient = xp.host(loss.gradient(given, xp.asarray(t)))
        np.testing.assert_allclose(gradient, (p - t) / 3, rtol=0, atol=close)


def test_a_categorical_target_row_of_zeros_adds_nothing(xp: Any) -> None:
    o, t = xp.asarray([[3.0, 1.0, -2.0], [1.0, 1.0, 0.0]]), xp.asarray(np.zeros((2, 3)))
    loss = bx.losses.categorical_cross_entropy
    assert xp.host(loss.value(o, t)).tolist() == [0.0, 0.0]
    assert xp.host(loss.gradient(o, t)).tolist() == [[0.0] * 3] * 2


# Losses of classes with labels have one output, or outputs that depend on one another.
@pytest.mark.parametrize(
    "name", ["categorical_cross_entropy", *(name for name in EXACT if not ALL[name].labels)]
)
def test_a_loss_is_a_mean_over_outputs_except_for_the_sum_over_classes(xp: Any, name: str) -> None:
    loss = ALL[name]
    o, t = np.random.default_rng(7).normal(size=(4, 3)), sample_targets(loss, (4, 3))
    once = xp.host(loss.value(xp.asarray(o), xp.asarray(t)))
    twice = xp.host(
        loss.value(xp.asarray(np.concat([o, o], -1)), xp.asarray(np.concat([t, t], -1)))
    )
    if loss is bx.losses.categorical_cross_entropy:
        # Twice as many classes halve each probability; twice as many terms double the sum.
        once = 2 * (once + math.log(2.0) * np.sum(t, axis=-1))
    assert once.shape == (4,)
    np.testing.assert_allclose(twice, once, rtol=xp.rounding(ROUNDING))


def _slopes(xp: Any, loss: Loss, o: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient by the complex step, and by the rule."""
    copies = o + 1j * IMAGINARY_STEP * np.eye(o.size).reshape(-1, *o.shape)
    values = xp.host(loss.value(xp.asarray(copies, dtype="complex128"), xp.asarray(t)))
    seen = np.sum(values.imag, axis=-1).reshape(o.shape) / IMAGINARY_STEP
    return seen, xp.host(loss.gradient(xp.asarray(o), xp.asarray(t)))


@pytest.mark.float64
@every_loss
def test_a_gradient_agrees_with_the_complex_step(xp: Any, loss: Loss) -> None:
    # A loss of classes has another rule for a single output.
    for shape in (SHAPE, (9, 1))[: 2 if loss.labels and loss.least_outputs == 1 else 1]:
        o, t = np.random.default_rng(8).normal(0.0, 2.0, shape), sample_targets(loss, shape)
        expected, actual = _slopes(xp, loss, o, t)
        close = ROUNDING * np.max(np.abs(expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=close)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["gaussian_nll", "tweedie", "tweedie of power 2"])
def test_an_exponential_goes_on_as_its_tangent(xp: Any, name: str) -> None:
    """Beyond exp(40), where its products would overflow float32: with the slope that it has."""
    o = np.asarray([[0.5, -50.0], [1.5, -41.0], [-1.0, -1000.0], [2.0, -39.0]])
    o, t = (o, [[1.0]] * 4) if name == "gaussian_nll" else (-4.0 * o, [[1.0, 2.0]] * 4)
    expected, actual = _slopes(xp, ALL[name], o, np.asarray(t))
    np.testing.assert_allclose(actual, expected, rtol=ROUNDING)
    if name == "gaussian_nll":
        value = xp.host(ALL[name].value(xp.asarray(o), xp.asarray(t)))
        exact = 0.5 * (-50.0 + 0.25 * math.exp(40.0) * (1.0 + 10.0))
        assert value[0] == pytest.approx(exact, rel=1e-13)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_the_complex_step_has_every_digit_of_a_confident_gradient(xp: Any, name: str) -> None:
    """Each entry is right, so the gradient check of a trained network passes."""
    o = np.asarray([[40.0, -5.0, 3.0, -30.0], [-8.0, -9.0, -40.0, 20.0], [25.0, -25.0, 0.5, -60.0]])
    t = np.asarray([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    seen, gradient = _slopes(xp, LOSSES[name], o, t)
    np.testing.assert_allclose(seen, gradient, rtol=ROUNDING)


@pytest.mark.float64
@every_loss
def test_the_value_of_complex_outputs_has_the_real_ones_digits(xp: Any, loss: Loss) -> None:
    """Small values count too: a gradient check requires it before it trusts a complex step."""
    o = np.asarray([[40.0, 3.0, 0.5], [30.0, -30.0, 0.0], [1.5, 0.25, -2.0]])
    t = xp.asarray(np.tile([1.0, 0.0, 0.0], (3, 1)))
    for width in (1, 2, 3):
        if width % loss.outputs_per_target:
            continue
        n = width // loss.outputs_per_target
        here = xp.asarray(o[:, :width] + 1j * IMAGINARY_STEP, dtype="complex128")
        expected = xp.host(loss.value(xp.asarray(o[:, :width]), t[:, :n]))
        actual = xp.host(loss.value(here, t[:, :n]))
        np.testing.assert_allclose(actual.real, expected, rtol=ROUNDING)


@every_loss
def test_float32_logits_of_10_000_give_finite_losses_and_gradients(xp: Any, loss: Loss) -> None:
    rows = np.asarray([[1e4, -1e4], [-1e4, 1e4], [1e4, 1e4], [100.0, -1e4]])
    per = loss.outputs_per_target
    o = xp.asarray(rows if per < 3 else np.tile(rows, 3), dtype="float32")
    for row in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        t = xp.asarray([row[: o.shape[-1] // per]] * 4, dtype="float32")
        at_once = value_and_gradient(loss, o, t, 1.0)
        for array in (loss.value(o, t), loss.gradient(o, t), *at_once):
            assert array.dtype == xp.namespace.float32
            assert np.all(np.isfinite(xp.host(array)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson_is_tweedie_of_power_1_but_for_a_constant(xp: Any, dtype: str) -> None:
    """At every logit: a rate beyond exp(40) is continued by its tangent in both."""
    logits = np.asarray([[-1e4, -3.0, 0.5, 30.0, 41.0, 80.0, 100.0, 1e4]]).T
    o, t = xp.asarray(logits, dtype=dtype), xp.asarray(np.full_like(logits, 2.0), dtype=dtype)
    poisson, tweedie = bx.losses.poisson, bx.losses.tweedie(1.0)
    few = FEW_ROUNDINGS * float(np.finfo(dtype).eps)
    values = xp.host(poisson.value(o, t)) - 1.0
    np.testing.assert_allclose(values, xp.host(tweedie.value(o, t)), rtol=few)
    slopes = xp.host(poisson.gradient(o, t))
    np.testing.assert_allclose(slopes, xp.host(tweedie.gradient(o, t)), rtol=few)


def test_a_cross_entropy_of_a_logit_of_10_000_is_that_logit(xp: Any) -> None:
    o = xp.asarray([[1e4, 0.0], [0.0, 1e4]], dtype="float32")
    t = xp.asarray([[0.0, 1.0], [0.0, 1.0]], dtype="float32")
    categorical = bx.losses.categorical_cross_entropy.value(o, t)
    assert xp.host(categorical).tolist() == [1e4, 0.0]
    binary = bx.losses.binary_cross_entropy.value(o[:, :1], t[:, :1])
    assert xp.host(binary).tolist() == [1e4, pytest.approx(math.log(2.0))]


@every_loss
def test_no_argument_is_written_to(loss: Loss) -> None:
    o, t = np.random.default_rng(10).normal(size=SHAPE), sample_targets(loss, SHAPE)
    o.flags.writeable = t.flags.writeable = False
    loss.value(o, t)
    loss.gradient(o, t)
    loss.inverse_link(o)


@pytest.mark.parametrize("name", sorted({*LOSSES} - {"hinge", "gaussian_nll"}))
def test_a_loss_is_least_where_the_link_gives_the_target(xp: Any, name: str) -> None:
    loss, o = LOSSES[name], xp.asarray([[0.3, -1.2, 0.7], [2.0, 0.0, -0.5]])
    # With linked outputs as targets, a loss with the right inverse link is stationary.
    np.testing.assert_allclose(
        xp.host(loss.gradient(o, loss.inverse_link(o))), 0.0, atol=xp.rounding(ROUNDING)
    )


def test_the_links_are_exp_the_sigmoid_the_softmax_or_nothing(xp: Any) -> None:
    o = np.asarray([[0.3, -1.2, 0.7], [2.0, 0.0, -0.5]])
    xp.assert_close(bx.losses.poisson.inverse_link(xp.asarray(o)), np.exp(o), ROUNDING)
    assert bx.losses.binary_cross_entropy.inverse_link is ACTIVATIONS["sigmoid"].value
    assert bx.losses.categorical_cross_entropy.inverse_link is ACTIVATIONS["softmax"].value
    for name in ("mean_squared_error", "half_squared_error", "mean_absolute_error", "huber"):
        xp.assert_equal(LOSSES[name].inverse_link(xp.asarray(o)), o.astype(xp.dtype))


def test_the_absolute_error_has_slope_0_at_its_kink(xp: Any) -> None:
    o = xp.asarray([[1.0, 2.0]])
    assert xp.host(bx.losses.mean_absolute_error.gradient(o, o)).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
def test_huber_with_a_delta_equals_pytorchs(delta: float, torch: Any) -> None:
    o, t = np.random.default_rng(11).normal(0.0, 3.0, (2, 50, 1))
    outputs = torch.tensor(o, requires_grad=True)
    values = torch.nn.functional.huber_loss(outputs, torch.tensor(t), delta=delta, reduction="none")
    values.sum().backward()
    loss = bx.losses.huber_with(delta)
    np.testing.assert_allclose(loss.value(o, t), values.detach().numpy()[:, 0], rtol=ROUNDING)
    np.testing.assert_allclose(loss.gradient(o, t), outputs.grad.numpy(), rtol=ROUNDING)


@pytest.mark.parametrize("delta", [0.0, -1.0, math.inf])
def test_a_delta_of_0_or_less_is_an_error(delta: float) -> None:
    with pytest.raises(ValueError, match=r"delta must be (finite and )?> 0"):
        bx.losses.huber_with(delta)


# Those whose second derivative is 0, negative for some outputs, or couples several outputs.
WITHOUT_CURVATURE = ("mean_absolute_error", "hinge", "gaussian_nll", "quantile", "focal")
WITHOUT_CURVATURE += ("smoothed focal",)
# The differences of the gradient over steps of this size err by its square.
DIFFERENCE, DIFFERENCES_ERROR = 1e-5, 1e-9


@pytest.mark.parametrize("name", ALL)
def test_a_curvature_is_the_gradients_derivative_or_its_weight(xp: Any, name: str) -> None:
    loss = ALL[name]
    if name.startswith(WITHOUT_CURVATURE):
        assert loss.curvature is None
        return
    assert loss.curvature is not None
    o = np.random.default_rng(9).normal(0.0, 2.0, (4, 3))
    t = sample_targets(loss, o.shape)
    curvature = xp.host(loss.curvature(*xp.put(o, t)))
    if name in ("huber", "huber_with", "log_cosh"):
        product = curvature * (o - t)
        xp.assert_close(product, xp.host(loss.gradient(*xp.put(o, t))), ROUNDING)
        return
    steps = DIFFERENCE * np.eye(3)
    slopes = [(loss.gradient(o + h, t) - loss.gradient(o - h, t)) / (2 * DIFFERENCE) for h in steps]
    matrix = curvature if curvature.ndim == 3 else curvature[..., None] * np.eye(3)
    expected = np.stack(slopes, axis=-1)
    close = max(DIFFERENCES_ERROR * np.abs(expected).max(), xp.rounding(ROUNDING))
    np.testing.assert_allclose(matrix, expected, rtol=xp.rounding(ROUNDING), atol=close)


@pytest.mark.parametrize("name", ["huber", "log_cosh"])
def test_the_weight_of_a_residual_of_0_is_1(xp: Any, name: str) -> None:
    curvature = LOSSES[name].curvature
    assert curvature is not None
    o = xp.asarray([[0.5], [1e-8]])
    xp.assert_close(curvature(o, xp.asarray([[0.5], [0.0]])), [[1.0], [1.0]])


@pytest.mark.parametrize("name", [name for name in LOSSES if LOSSES[name].curvature])
def test_curvatures_of_extreme_outputs_are_finite(xp: Any, name: str) -> None:
    loss, o = LOSSES[name], np.array([[1e4, -1e4, 0.0]])
    assert loss.curvature is not None
    o, t = xp.put(o, sample_targets(loss, (1, 3)), dtype="float32")
    assert np.isfinite(xp.host(loss.curvature(o, t))).all()


def test_the_point_of_predictions_is_the_block_of_its_number(xp: Any) -> None:
    predictions = xp.asarray([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    for levels, expected in (((0.1, 0.5, 0.9), [3.0, 4.0]), ((0.1, 0.2, 0.5), [5.0, 6.0])):
        xp.assert_equal(point_of(bx.losses.quantile(*levels), predictions), [expected])
    xp.assert_equal(point_of(bx.losses.gaussian_nll, predictions), [[1.0, 2.0, 3.0]])
    xp.assert_equal(point_of(bx.losses.huber, predictions), predictions)


def test_a_curvature_counts_a_row_by_the_sum_of_its_targets(xp: Any) -> None:
    o, t = np.asarray([[0.2, -1.0, 0.5]]), np.asarray([[0.1, 0.7, 0.2]])
    curvature: Any = LOSSES["categorical_cross_entropy"].curvature
    once, twice = (xp.host(curvature(*xp.put(o, k * t))) for k in (1.0, 2.0))
    xp.assert_close(twice, 2.0 * once)
    p = np.exp(o[0]) / np.exp(o[0]).sum()
    xp.assert_close(once[0], np.diag(p) - np.outer(p, p))


def test_shares_of_columns_are_not_smoothed_and_leave_out_what_overflows(xp: Any) -> None:
    o, t = np.asarray([[0.3, -2.0], [1.0, 0.5]]), np.asarray([[1.0, 1.0], [0.0, 1.0]])
    shares = np.asarray([[0.5, 1.5], [2.0, 0.0]])
    plain = LOSSES["binary_cross_entropy"]
    smoothed = bx.losses.smoothed("binary_cross_entropy", 0.2)
    given, expected = (np.concatenate([y, shares], axis=-1) for y in (t, 0.8 * t + 0.1))
    for name in ("value", "gradient", "curvature"):
        of_smoothed, of_plain = (getattr(loss, name) for loss in (smoothed, plain))
        xp.assert_close(of_smoothed(*xp.put(o, given)), of_plain(*xp.put(o, expected)))
    o[1, 1] = np.finfo(xp.host(xp.asarray(o)).dtype).max
    found = LOSSES["mean_squared_error"].value(*xp.put(o, given))
    xp.assert_close(found, [(0.5 * 0.7**2 + 1.5 * 3.0**2) / 2.0, 2.0 * 1.0**2 / 2.0])


def test_a_users_rule_of_each_output_yields_its_curvature_third(xp: Any) -> None:
    quartic = over_outputs(
        lambda o, t: ((o - t) ** 4, 4.0 * (o - t) ** 3, 12.0 * (o - t) ** 2), is_curved=True
    )
    assert quartic.curvature is not None
    o, t = xp.put([[1.0, 2.0]], [[0.0, 0.0]])
    xp.assert_close(quartic.curvature(o, t), [[6.0, 24.0]])
    with pytest.raises(ValueError, match="is_curved=True needs blocks=1, not 2"):
        over_outputs(lambda a, b, t: (a, b, t), 2, is_curved=True)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_found_by_its_name_and_survives_pickling(name: str) -> None:
    loss = getattr(bx.losses, name)
    assert loss is LOSSES[name]
    assert pickle.loads(pickle.dumps(loss)) == loss  # noqa: S301


def test_a_custom_loss_needs_no_link(xp: Any) -> None:
    fourth = bx.Loss(
        value=lambda o, t: ((o - t) ** 4)[..., 0], gradient=lambda o, t: 4 * (o - t) ** 3
    )
    network = bx.Network([bx.Dense(1, 1, initializer="zeros")], fourth)
    theta = xp.asarray([3.0, 0.0])
    value, gradient = network.loss_and_gradient(theta, [[1.0]], [[1.0]])
    assert float(xp.host(value)) == 16.0
    assert xp.host(gradient).tolist() == [32.0, 32.0]
    assert xp.host(network.predict(theta, [[1.0]])).tolist() == [[3.0]]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@every_loss
def test_value_and_gradient_together_equal_the_separate_calls(
    xp: Any, loss: Loss, dtype: str
) -> None:
    generator = np.random.default_rng(4)
    o = xp.asarray(10.0 * generator.normal(size=(2, 5, 6)), dtype=dtype)
    n = 6 // loss.outputs_per_target
    t = xp.asarray(np.eye(n)[generator.integers(0, n, 5)], dtype=dtype)
    share = xp.asarray(generator.uniform(size=(5, 1)), dtype=dtype)
    for part in (0.25, share):
        value, gradient = value_and_gradient(loss, o, t, part)
        close = {"rtol": 4 * np.finfo(dtype).eps, "atol": 0}
        np.testing.assert_allclose(xp.host(value), xp.host(loss.value(o, t)), **close)
        shared = xp.host(loss.gradient(o, t)) * xp.host(part)
        np.testing.assert_allclose(xp.host(gradient), shared, **close)


def test_a_loss_with_a_replaced_gradient_uses_it() -> None:
    o, t = np.ones((2, 3)), np.zeros((2, 3))
    for name in ("mean_squared_error", "categorical_cross_entropy"):
        other = dataclasses.replace(LOSSES[name], gradient=lambda o, t: 7.0 * o)
        assert np.all(value_and_gradient(other, o, t, 2.0)[1] == 14.0)
    # A product with the shares could give another shape that of the outputs.
    other = dataclasses.replace(other, gradient=lambda o, t: o[0])
    with pytest.raises(ValueError, match=r"gradient of .* has shape \(3,\), but \(2, 3\) is"):
        value_and_gradient(other, o, t, np.ones((2, 1)))


def test_a_custom_loss_of_each_output_is_their_mean(xp: Any) -> None:
    fourth = over_outputs(lambda o, t: ((o - t) ** 4, 4 * (o - t) ** 3))
    o, t = xp.asarray([[3.0, 1.0]]), xp.asarray([[1.0, 0.0]])
    assert xp.host(fourth.value(o, t)).tolist() == [8.5]
    assert xp.host(fourth.gradient(o, t)).tolist() == [[16.0, 2.0]]
    assert xp.host(fourth.inverse_link(o)).tolist() == [[3.0, 1.0]]


def test_the_limits_of_targets_may_be_a_list(xp: Any) -> None:
    loss = dataclasses.replace(LOSSES["mean_squared_error"], targets=[0, 5])  # type: ignore[arg-type]
    network = bx.mlp([1, 1], loss=loss)
    theta, x = xp.initialize(network), xp.asarray([[1.0], [2.0]])
    bx.fit(network, theta, x, xp.asarray([[0.0], [5.0]]), optimizer="adam", epochs=1)
    with pytest.raises(ValueError, match=r"y has 1 value that is not in \[0, 5\]"):
        bx.fit(network, theta, x, xp.asarray([[0.0], [6.0]]), optimizer="adam", epochs=1)


@pytest.mark.parametrize("point", [2, -1, 0.0])
def test_a_point_that_is_no_block_of_the_outputs_is_refused(point: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="point"):
        over_outputs(lambda a, b, t: (b - t, 0 * a, 1 + 0 * b), 2, point=point)


LINKED = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax"}


@pytest.mark.parametrize("behind", [[], [bx.Dropout(0.5)], [bx.Activate("identity")]])
@pytest.mark.parametrize(
    "loss", [*LINKED, "poisson", "hinge", "gaussian_nll", bx.losses.tweedie(), bx.losses.focal()]
)
def test_an_output_of_probabilities_with_a_loss_of_raw_outputs_is_an_error(
    loss: Any, behind: list[Any]
) -> None:
    for output in LINKED.values():
        message = "twice" if LINKED.get(str(loss)) == output else "taken for raw outputs"
        for last in ([bx.Dense(2, 2, output)], [bx.Dense(2, 2), bx.Activate(output)]):
            with pytest.raises(ValueError, match=rf'{message}.*output="identity"'):
                bx.Network([*last, *behind], loss)
        # In another layer, or with another loss, it is not a second inverse link.
        bx.mlp([2, 3, 2], hidden=output, loss=loss)
        bx.mlp([2, 3, 2], output=output, loss="mean_squared_error")
        for worked_on in (bx.LayerNorm(2), bx.Residual(bx.Dense(2, 2))):
            bx.Network([bx.Dense(2, 2, output), worked_on], loss)
    # A loss of one's own may scale what its network returns.
    percent = bx.Loss(
        LOSSES["huber"].value, LOSSES["huber"].gradient, inverse_link=lambda o: 100.0 * o
    )
    bx.mlp([2, 1], output="sigmoid", loss=percent)
