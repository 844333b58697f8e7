"""Rates that a plateau lowers, against a plain loop and PyTorch's scheduler."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.measures.plateau import Slowed, slowed

generator = np.random.default_rng(8)
X, Y = generator.normal(size=(12, 3)), generator.normal(size=(12, 2))
EPOCHS = 25

# The rate is so large that the losses rise and fall.
RULE: dict[str, Any] = {"factor": 0.5, "patience": 2, "min_delta": 0.01}


def _case(xp: Any, stack: Any = (), **rule: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    network = bx.mlp([3, 5, 2], hidden="tanh")
    options = {
        "optimizer": bx.SGD(0.9, momentum=0.5),
        "plateau": bx.Plateau(**{**RULE, **rule}),
        "epochs": EPOCHS,
        "batch_size": 5,
        "validation": (xp.asarray(X[:5]), xp.asarray(Y[:5])),
        "metrics": {"r2": bx.metrics.r2},
    }
    return (network, xp.initialize(network, stack=stack), xp.asarray(X), xp.asarray(Y)), options


def _factors(watched: list[float], factor: float, patience: int, min_delta: float) -> list[float]:
    """Return the factor of the rate after each epoch."""
    best, waited, now, factors = np.inf, 0, 1.0, []
    for value in watched:
        best, waited = (value, 0) if value < best - min_delta else (best, waited + 1)
        if waited == patience:
            now, waited = now * factor, 0
        factors.append(now)
    return factors


@pytest.mark.parametrize("stack", [(), (3,)])
def test_a_rate_below_the_final_rate_is_not_raised(xp: Any, stack: Any) -> None:
    """With a gradient of 1, each update of SGD equals its rate."""
    network = bx.Network([bx.Dense(1, 1)], bx.Loss(lambda o, t: o[..., 0], lambda o, t: o**0))
    rule = bx.Plateau(final=0.05, factor=0.5, patience=50)
    theta, x = xp.initialize(network, stack=stack), xp.asarray([[0.0]])
    options: dict[str, Any] = {"optimizer": bx.SGD(bx.schedules.warmup(0.1, 5)), "plateau": rule}
    options |= {"epochs": 4, "validation": (x, x)}
    biases = [xp.host(theta)[..., 1]]
    states = bx.train(network, theta, x, x, **options)
    biases += [np.array(xp.host(state.theta)[..., 1]) for state in states]
    steps = -np.diff(biases, axis=0)
    expected = np.array([0.02, 0.04, 0.06, 0.08]).reshape(4, *(1 for _ in stack))
    np.testing.assert_allclose(steps, np.broadcast_to(expected, steps.shape), rtol=1e-6)


@pytest.mark.parametrize("watch", [None, "r2"])
@pytest.mark.parametrize("stack", [(), (3,)])
def test_each_network_slows_down_after_its_own_epochs_without_gain(
    xp: Any, stack: Any, watch: str | None
) -> None:
    case, options = _case(xp, stack, watch=watch, mode="max" if watch else "min")
    kept: list[Any] = []
    history = bx.fit(*case, callbacks=[kept.append], **options).history
    watched = -history["r2"] if watch else history["validation_loss"]
    for i in np.ndindex(stack):
        alone = watched[(slice(None), *i)].tolist()
        seen = [state.slowed.factor[i] for state in kept]
        assert seen == _factors(alone, **RULE)
        assert seen[-1] < seen[1]


def test_updates_use_the_rate_that_a_plateau_lowered(xp: Any) -> None:
    """Compare with a training whose schedule has the observed factors."""
    case, options = _case(xp, final=0.2)
    states = [s.slowed.factor for s in bx.train(*case, **options)]
    factors = [1.0, *(float(factor) for factor in states)]
    assert 0.9 * factors[-2] < 0.2
    optimizer = bx.SGD(lambda step: max(0.9 * factors[step // 3], 0.2), momentum=0.5)
    plain = bx.fit(*case, **{**options, "optimizer": optimizer, "plateau": None})
    slowed = bx.fit(*case, **options)
    assert np.array_equal(xp.host(plain.theta), xp.host(slowed.theta))


@pytest.mark.long
def test_a_resumed_training_keeps_the_plateaus_state(xp: Any) -> None:
    case, options = _case(xp, (3,))
    whole = bx.fit(*case, **options)
    for epochs in range(1, EPOCHS, 3):
        begun = bx.fit(*case, **{**options, "epochs": epochs})
        resumed = bx.fit(*case, start=begun, **options)
        assert np.array_equal(xp.host(whole.theta), xp.host(resumed.theta))


def test_a_plateau_watches_the_training_loss_by_default(xp: Any) -> None:
    case, options = _case(xp)
    options |= {"validation": None, "metrics": None, "batch_size": None}
    result = bx.fit(*case, **options)
    slowed, history = result.state.slowed, result.history
    assert slowed is not None
    assert slowed.factor < 1.0
    assert float(slowed.score) == np.min(history["training_loss"])
    # For a full batch it is the next epoch's loss, measured before its update.
    xp.assert_close(history["training_loss"][:-1], history["loss"][1:], 1e-5)


# Losses of some epochs, and the factors after them with RULE and with min_delta=0.
LOSSES: dict[str, tuple[list[float], list[float], list[float]]] = {
    "falls larger than min_delta": ([8, 4, 2, 1, 0.5], [1] * 5, [1] * 5),
    "falls smaller than min_delta": (
        [1, 0.998, 0.996, 0.994, 0.992, 0.988],
        [1, 1, 0.5, 0.5, 0.25, 0.25],
        [1] * 6,
    ),
    "small falls that add up to more than min_delta": ([1, 0.994, 0.988, 0.982], [1] * 4, [1] * 4),
    "no falls": ([1, 2, 1, 3, 1], [1, 1, 0.5, 0.5, 0.25], [1, 1, 0.5, 0.5, 0.25]),
}


@pytest.mark.parametrize("name", LOSSES)
def test_only_a_fall_of_more_than_min_delta_is_an_improvement(name: str) -> None:
    losses, factors, without = LOSSES[name]
    for min_delta, expected in ((RULE["min_delta"], factors), (0.0, without)):
        rule = bx.Plateau(**{**RULE, "min_delta": min_delta, "watch": "loss", "mode": "min"})
        state: Slowed | None = None
        for epoch, (loss, factor) in enumerate(zip(losses, expected, strict=True)):
            state = slowed(rule, state, np.asarray(loss), epoch)
            assert state.factor == factor
        assert expected == _factors(losses, **{**RULE, "min_delta": min_delta})


def _factors_of_pytorch(torch: Any, losses: list[float]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    # PyTorch waits one epoch more.
    peer = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.01, threshold_mode="abs"
    )
    factors = []
    for loss in losses:
        peer.step(loss)
        factors.append(optimizer.param_groups[0]["lr"])
    return factors


def test_a_plateau_equals_pytorchs(xp: Any, torch: Any) -> None:
    case, options = _case(xp)
    kept: list[Any] = []
    history = bx.fit(*case, callbacks=[kept.append], **options).history
    expected = _factors_of_pytorch(torch, history["validation_loss"].tolist())
    assert [state.slowed.factor for state in kept] == expected
    for losses, factors, _ in LOSSES.values():
        assert _factors_of_pytorch(torch, losses) == factors


def test_watching_an_unknown_metric_is_an_error(xp: Any) -> None:
    case, options = _case(xp, watch="accuracy")
    with pytest.raises(
        ValueError, match=r"plateau watches 'accuracy'.*Known: loss, r2, training_loss"
    ):
        bx.fit(*case, **options)


def test_a_plateau_needs_a_learning_rate() -> None:
    network, x = bx.mlp([1, 1]), np.ones((2, 1))
    options = {"optimizer": bx.LBFGS(), "epochs": 1, "plateau": bx.Plateau()}
    with pytest.raises(ValueError, match="plateau lowers the learning rate, but LBFGS has none"):
        bx.fit(network, network.initialize(backend="numpy"), x, x, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factor": 1.0}, ValueError, "factor must be .* < 1"),
        ({"patience": 0}, ValueError, "patience must be an integer"),
        ({"min_delta": -1}, ValueError, "min_delta must be >= 0"),
        ({"final": -0.1}, ValueError, "final must be >= 0"),
        ({"mode": "most"}, ValueError, 'mode must be "min" or "max"'),
        ({"watch": print}, TypeError, "watch must be the name"),
    ],
)
def test_an_impossible_plateau_is_an_error(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.Plateau(**options)
