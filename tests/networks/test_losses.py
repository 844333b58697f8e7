"""Losses: closed forms, tails, and every gradient against the complex step."""

import dataclasses
import math
import pickle
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.networks.losses import LOSSES, Loss, over_outputs, value_and_gradient

# A value and its exact counterpart differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# For formulas without cancellation: relative error, in machine epsilons of any precision.
FEW_ROUNDINGS = 4
# Too small to round the real part; its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100


def _binary_cross_entropy(o: Any, t: Any) -> Any:
    p = 1 / (1 + mpmath.exp(-o))
    return -t * mpmath.log(p) - (1 - t) * mpmath.log(1 - p)


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
}
# Near 0, on both sides of huber's delta, and in the tails of the exponentials.
OUTPUTS = [-40.0, -3.0, -1e-8, 1e-8, 0.5, 2.0, 40.0]

# Also those that a function makes.
ALL = {**LOSSES, "huber_with": bx.losses.huber_with(2.5)}

every_loss = pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
elementwise = pytest.mark.parametrize(
    "name", [name for name in ALL if name != "categorical_cross_entropy"]
)


def _targets(loss: Loss, shape: tuple[int, ...]) -> np.ndarray:
    """Return targets that are valid for the loss: probabilities, counts or values."""
    generator = np.random.default_rng(6)
    if loss is bx.losses.categorical_cross_entropy:
        return generator.dirichlet(np.ones(shape[-1]), shape[:-1])
    if loss is bx.losses.binary_cross_entropy:
        return generator.uniform(size=shape)
    if loss is bx.losses.poisson:
        return generator.poisson(2.0, shape).astype(np.float64)
    return generator.normal(size=shape)


@elementwise
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_a_value_has_every_digit_of_its_closed_form(xp: Any, name: str, target: float) -> None:
    o = np.asarray(OUTPUTS)[:, None] + (0.0 if name.startswith(("binary", "poisson")) else target)
    o = o.astype(xp.dtype)
    values = xp.host(ALL[name].value(xp.asarray(o), xp.asarray(np.full_like(o, target))))
    with mpmath.workdps(50):
        expected = [float(EXACT[name](mpmath.mpf(v), mpmath.mpf(target))) for v in o[:, 0].tolist()]
    np.testing.assert_allclose(values, expected, rtol=xp.rounding(ROUNDING))


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


@every_loss
def test_a_loss_is_a_mean_over_outputs_except_for_the_sum_over_classes(xp: Any, loss: Loss) -> None:
    o, t = np.random.default_rng(7).normal(size=(4, 3)), _targets(loss, (4, 3))
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
    o, t = np.random.default_rng(8).normal(0.0, 2.0, (4, 3)), _targets(loss, (4, 3))
    expected, actual = _slopes(xp, loss, o, t)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=ROUNDING * np.max(np.abs(expected)))


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
    o = np.asarray([[40.0, 3.0], [30.0, -30.0], [1.5, 0.25]])
    t = xp.asarray(np.tile([1.0, 0.0], (3, 1)))
    for width in (1, 2):
        here = xp.asarray(o[:, :width] + 1j * IMAGINARY_STEP, dtype="complex128")
        expected = xp.host(loss.value(xp.asarray(o[:, :width]), t[:, :width]))
        actual = xp.host(loss.value(here, t[:, :width]))
        np.testing.assert_allclose(actual.real, expected, rtol=ROUNDING)


@every_loss
def test_float32_logits_of_10_000_give_finite_losses_and_gradients(xp: Any, loss: Loss) -> None:
    above = 80.0 if loss is bx.losses.poisson else 1e4  # exp(88) overflows float32
    o = xp.asarray([[above, -1e4], [-1e4, above], [above, above], [0.0, -1e4]], dtype="float32")
    for row in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.5]):
        t = xp.asarray([row] * 4, dtype="float32")
        at_once = value_and_gradient(loss, o, t, 1.0)
        for array in (loss.value(o, t), loss.gradient(o, t), *at_once):
            assert array.dtype == xp.namespace.float32
            assert np.all(np.isfinite(xp.host(array)))


def test_a_cross_entropy_of_a_logit_of_10_000_is_that_logit(xp: Any) -> None:
    o = xp.asarray([[1e4, 0.0], [0.0, 1e4]], dtype="float32")
    t = xp.asarray([[0.0, 1.0], [0.0, 1.0]], dtype="float32")
    categorical = bx.losses.categorical_cross_entropy.value(o, t)
    assert xp.host(categorical).tolist() == [1e4, 0.0]
    binary = bx.losses.binary_cross_entropy.value(o[:, :1], t[:, :1])
    assert xp.host(binary).tolist() == [1e4, pytest.approx(math.log(2.0))]


@every_loss
def test_a_stack_gives_each_member_what_it_gives_alone(xp: Any, loss: Loss) -> None:
    o = xp.asarray(np.random.default_rng(9).normal(size=(2, 3, 4, 3)))
    t = xp.asarray(_targets(loss, (4, 3)))
    for function in (loss.value, loss.gradient):
        stacked = function(o, t)
        for i, j in np.ndindex(2, 3):
            xp.assert_close(stacked[i, j, ...], function(o[i, j, ...], t), ROUNDING)


@every_loss
def test_no_argument_is_written_to(loss: Loss) -> None:
    o, t = np.random.default_rng(10).normal(size=(4, 3)), _targets(loss, (4, 3))
    o.flags.writeable = t.flags.writeable = False
    loss.value(o, t)
    loss.gradient(o, t)
    loss.link(o)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_least_where_the_link_gives_the_target(xp: Any, name: str) -> None:
    loss, o = LOSSES[name], xp.asarray([[0.3, -1.2, 0.7], [2.0, 0.0, -0.5]])
    # With linked outputs as targets, a loss with the right link is stationary.
    np.testing.assert_allclose(
        xp.host(loss.gradient(o, loss.link(o))), 0.0, atol=xp.rounding(ROUNDING)
    )


def test_the_links_are_exp_the_sigmoid_the_softmax_or_nothing(xp: Any) -> None:
    o = np.asarray([[0.3, -1.2, 0.7], [2.0, 0.0, -0.5]])
    xp.assert_close(bx.losses.poisson.link(xp.asarray(o)), np.exp(o), ROUNDING)
    assert bx.losses.binary_cross_entropy.link is ACTIVATIONS["sigmoid"].value
    assert bx.losses.categorical_cross_entropy.link is ACTIVATIONS["softmax"].value
    for name in ("mean_squared_error", "half_squared_error", "mean_absolute_error", "huber"):
        xp.assert_equal(LOSSES[name].link(xp.asarray(o)), o.astype(xp.dtype))


def test_the_absolute_error_has_slope_0_at_its_kink(xp: Any) -> None:
    o = xp.asarray([[1.0, 2.0]])
    assert xp.host(bx.losses.mean_absolute_error.gradient(o, o)).tolist() == [[0.0, 0.0]]


@pytest.mark.installed
@pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
def test_huber_with_a_delta_equals_pytorchs(delta: float) -> None:
    torch = pytest.importorskip("torch")
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
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_together_equal_the_separate_calls(
    xp: Any, name: str, dtype: str
) -> None:
    generator, loss = np.random.default_rng(4), LOSSES[name]
    o = xp.asarray(10.0 * generator.normal(size=(2, 5, 3)), dtype=dtype)
    t = xp.asarray(np.eye(3)[generator.integers(0, 3, 5)], dtype=dtype)
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


def test_a_custom_loss_of_each_output_is_their_mean(xp: Any) -> None:
    fourth = over_outputs(lambda o, t: ((o - t) ** 4, 4 * (o - t) ** 3))
    o, t = xp.asarray([[3.0, 1.0]]), xp.asarray([[1.0, 0.0]])
    assert xp.host(fourth.value(o, t)).tolist() == [8.5]
    assert xp.host(fourth.gradient(o, t)).tolist() == [[16.0, 2.0]]
    assert xp.host(fourth.link(o)).tolist() == [[3.0, 1.0]]
