"""Gradient checks during training: they change nothing, and a wrong gradient ends the training."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests import planted_mistakes
from tests.helpers import long

ROWS, BATCH, STACK = 11, 4, 3  # three updates in an epoch, the last of them of three rows
X, Y = np.random.default_rng(91).normal(size=(2, ROWS, 3))


def _network(*between: Any, hidden: Any = "tanh", loss: Any = "half_squared_error") -> bx.Network:
    """Return a network whose arrays have three columns: JAX compiles few shapes for it."""
    return bx.Network([bx.Dense(3, 3, hidden), *between, bx.Dense(3, 3)], loss, l2=0.05)


def _case(xp: Any, network: bx.Network, stack: Any = (), dtype: str = "working") -> tuple[Any, ...]:
    theta = xp.initialize(network, seed=1, stack=stack, dtype=dtype)
    return network, theta, xp.asarray(X, dtype=dtype), xp.asarray(Y, dtype=dtype)


def _fit(*case: Any, **options: Any) -> Any:
    return bx.fit(*case, **{"optimizer": bx.SGD(0.1), "epochs": 2, "check_every": 1, **options})


def _report(number: int, *case: Any, **options: Any) -> Any:
    """Return the report of the update that ended a training."""
    with pytest.raises(bx.GradientCheckError, match=f"In the batch of update {number}:") as error:
        _fit(*case, **options)
    assert str(error.value.report) in str(error.value)
    return error.value.report


@pytest.mark.parametrize("stack", [long(()), (2, STACK)])
@pytest.mark.parametrize(
    ("batch_size", "every", "checks"),
    [long(None, 2, 2), long(BATCH, 1, 9), (BATCH, 4, 3), long(BATCH, 99, 1)],
)
def test_checks_at_an_interval_change_nothing(
    xp: Any, batch_size: int | None, every: int, checks: int, stack: tuple[int, ...]
) -> None:
    case = _case(xp, _network(bx.Dropout(0.3)), stack)
    options = {"optimizer": bx.Adam(0.05), "batch_size": batch_size, "epochs": 3, "clip": 1.0}
    checked, plain = (_fit(*case, check_every=c, **options) for c in (every, None))
    errors, found = (checked.history[f"gradient_{name}"] for name in ("error", "verdict"))
    assert errors.shape == found.shape == (checks,)
    assert set(found.tolist()) == {"pass"}
    assert np.all(errors <= xp.rounding(1e-8))
    assert np.array_equal(xp.host(checked.theta), xp.host(plain.theta))
    assert not {"gradient_error", "gradient_verdict"} & set(plain.history)


PIECES: dict[str, tuple[Any, str]] = {
    "a layer": (_network(planted_mistakes.Affine("shift")), "layers[1] (Affine)"),
    "of real numbers": (
        _network(planted_mistakes.Affine("scale", real=True)),
        "layers[1] (Affine)",
    ),
    "dropout": (
        _network(planted_mistakes.DropoutWithoutMask(0.5)),
        "layers[1] (DropoutWithoutMask)",
    ),
    "an activation": (_network(hidden=planted_mistakes.WRONG_SQUARE), "layers[0] (Dense)"),
    "the loss": (_network(loss=planted_mistakes.WRONG_LOSS), "the loss"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.long if n == "dropout" else pytest.mark.once)
        for n in PIECES
    ],
)
def test_a_wrong_gradient_ends_the_training_and_the_piece_is_named(xp: Any, name: str) -> None:
    network, named = PIECES[name]
    assert f"{named} fails a check of its own" in _report(0, *_case(xp, network)).diagnosis
    states = bx.train(*_case(xp, network), optimizer=bx.SGD(0.1), epochs=1, check_every=1)
    with pytest.raises(bx.GradientCheckError, match="In the batch of update 0:"):
        next(states)


@pytest.mark.long
def test_a_diverged_network_of_a_stack_is_ignored_and_a_wrong_one_is_not(xp: Any) -> None:
    network, theta, x, y = _case(xp, _network(planted_mistakes.Affine("input")), (STACK,))
    starts = np.array(xp.host(theta))
    starts[0] = np.nan
    options: dict[str, Any] = {"optimizer": bx.SGD(1e-9), "batch_size": BATCH, "epochs": 2}
    # Initial scales of 1 hide the mistake in the gradient of the input.
    found = _fit(network, xp.asarray(starts), x, y, **options).history["gradient_verdict"]
    assert set(found.tolist()) == {"pass"}
    starts[2] += 0.5
    assert "(Affine)" in _report(0, network, xp.asarray(starts), x, y, **options).diagnosis
    # The first updates change the scales and reveal the mistake.
    options.update(optimizer=bx.SGD(0.1), check_every=4)
    assert "(Affine)" in _report(4, network, theta, x, y, **options).diagnosis


def test_the_masks_of_networks_with_a_seed_each_are_those_of_the_check(xp: Any) -> None:
    case = _case(xp, _network(bx.Dropout(0.3)), (STACK,))
    options: dict[str, Any] = {"batch_size": BATCH, "epochs": 1, "seed": (4, 5, 6)}
    history = _fit(*case, **options).history
    assert set(history["gradient_verdict"].tolist()) == {"pass"}
    assert np.all(history["gradient_error"] <= xp.rounding(1e-8))
    # A check along directions draws the masks again, of the network that is in doubt.
    wrong = _case(xp, _network(planted_mistakes.DropoutWithoutMask(0.5)), (STACK,))
    assert "(DropoutWithoutMask)" in _report(0, *wrong, **options).diagnosis


@pytest.mark.parametrize("every", [0, 2.0, True])
def test_an_impossible_interval_is_an_error_that_names_it(xp: Any, every: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="check_every must be an integer of at least"):
        bx.train(*_case(xp, _network()), optimizer=bx.SGD(0.1), epochs=1, check_every=every)
