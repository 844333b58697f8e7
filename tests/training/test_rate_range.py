"""The range test: its losses are those of a training written out, its rate is near a limit."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import long

SAME = 1e-12
ROWS, BATCH, STEPS = 11, 4, 10

generator = np.random.default_rng(3)
X, Y = generator.normal(size=(ROWS, 3)), generator.uniform(0.1, 0.9, size=(ROWS, 2))
NETWORK = bx.mlp([3, 4, 2], hidden="tanh")


def _found(xp: Any, stack: Any = (), **options: Any) -> Any:
    theta = xp.initialize(NETWORK, stack=stack)
    before = np.array(xp.host(theta))
    found = bx.find_learning_rate(NETWORK, theta, xp.asarray(X), xp.asarray(Y), **options)
    xp.assert_equal(theta, before)
    return found


@pytest.mark.parametrize("batch_size", [None, BATCH])
@pytest.mark.parametrize("make", [bx.Adam, long(lambda: bx.SGD(1.0, momentum=0.9))])
def test_the_losses_are_those_of_a_training_whose_rate_rises(
    xp: Any, make: Any, batch_size: int | None
) -> None:
    found = _found(xp, (2,), optimizer=make(), steps=STEPS, high=0.1, batch_size=batch_size, seed=5)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-6, 0.1, STEPS), rtol=1e-12)
    theta, optimizer = xp.initialize(NETWORK, stack=(2,)), make()
    state, step = optimizer.initialize(1.0 * theta), 0
    for epoch in range(STEPS):
        batches = bx.data.minibatches(
            xp.asarray(X), xp.asarray(Y), batch_size=batch_size or ROWS, seed=5, epoch=epoch
        )
        for x, y in batches:
            if step == STEPS:
                break
            loss, gradient = NETWORK.loss_and_gradient(theta, x, y)
            xp.assert_close(found.losses[step], xp.host(loss), SAME)
            rate = float(found.rates[step])
            theta, state = optimizer.update(1.0 * theta, gradient, state, learning_rate=rate)
            step += 1
    assert step == STEPS


def test_the_suggestion_is_a_tenth_of_where_a_parabola_diverges(xp: Any) -> None:
    """Of curvatures 2 and 200 gradient descent diverges at rates of 1 and of 0.01."""
    network = bx.mlp([1, 1])
    theta = xp.asarray([[5.0, 0.0], [5.0, 0.0]])
    x = xp.asarray(np.array([[[1.0], [-1.0]], [[10.0], [-10.0]]]))
    found = bx.find_learning_rate(
        network, theta, x, 0.0 * x, optimizer=bx.SGD(1.0), low=1e-5, high=100.0, steps=200
    )
    assert found.losses.shape == (200, 2)
    for suggestion, diverges in zip(found.suggestion, (1.0, 0.01), strict=True):
        assert 0.02 * diverges < suggestion < 0.2 * diverges
    assert not np.isfinite(found.losses[-1]).all() or (found.losses[-1] > 1e10).all()
    again = bx.find_learning_rate(network, theta[0, :], x[0, ...], 0.0 * x[0, ...], steps=20)
    assert again.suggestion.shape == ()
    assert repr(again).startswith("RateRange(losses=<")


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_name_needs_no_rate_of_its_own(xp: Any, name: str) -> None:
    found, same = (
        _found(xp, steps=STEPS, optimizer=optimizer)
        for optimizer in (name, {"sgd": bx.SGD(0.5), "adam": bx.Adam(0.5)}[name])
    )
    xp.assert_equal(found.losses, same.losses)


def test_the_steps_count_not_the_epochs_that_they_are_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hundred updates are too few for compiled loops; 100 epochs of many batches are not."""
    asked: list[int | None] = []

    def replacements(self: Any, theta: Any, steps: int | None, rows: int) -> None:
        asked.append(steps)

    backend = bx.get_backend("numpy")
    monkeypatch.setattr(type(backend), "training_replacements", replacements)
    theta = NETWORK.initialize(seed=0, backend="numpy")
    bx.find_learning_rate(NETWORK, theta, X, Y, steps=STEPS, batch_size=1)
    assert asked == [STEPS]


class Own:
    """An optimizer of a user's own, which knows no more than the protocol."""

    def initialize(self, theta: Any) -> None:
        return None

    def update(self, theta: Any, gradient: Any, state: None, *, learning_rate: Any = 0.5) -> Any:
        return theta - learning_rate * gradient, state


def test_an_optimizer_of_ones_own_is_given_the_rates(xp: Any) -> None:
    found, same = (_found(xp, steps=STEPS, optimizer=own) for own in (Own(), bx.SGD(1.0)))
    xp.assert_close(found.losses, same.losses, SAME)


def test_a_network_that_diverges_at_once_has_no_suggestion(xp: Any) -> None:
    network, rows = bx.mlp([1, 1]), xp.asarray([[1.0], [2.0]])
    theta = xp.asarray([[1.0, 0.0], [np.nan, 0.0]])
    found = bx.find_learning_rate(network, theta, rows, rows, steps=7)
    assert np.isnan(found.suggestion).tolist() == [False, True]


@pytest.mark.parametrize("steps", [5, 9])
def test_the_suggestion_can_be_that_of_the_last_five_losses(xp: Any, steps: int) -> None:
    found = _found(xp, optimizer=bx.SGD(1.0), low=1e-3, high=1e-2, steps=steps)
    assert (np.diff(found.losses) < 0.0).all()
    assert found.suggestion == pytest.approx(found.rates[-3] / 10.0, rel=1e-12)


def test_its_picture_has_the_losses_and_the_suggestion(xp: Any) -> None:
    pytest.importorskip("matplotlib")
    found = _found(xp, (3,), steps=20, optimizer=bx.SGD(1.0), high=1e4)
    (ax,) = found.plot().axes
    curve, line = ax.lines
    np.testing.assert_allclose(curve.get_xdata(), found.rates)
    np.testing.assert_allclose(line.get_xdata(), np.median(found.suggestion))
    assert (ax.get_xscale(), ax.get_xlabel(), ax.get_ylabel()) == ("log", "learning rate", "loss")
    first = np.median(found.losses[0])
    assert first < ax.get_ylim()[1] < 2.0 * first
    with pytest.raises(ValueError, match=r"\(2,\) is expected"):
        bx.plots.rate_range([0.1, 0.2, 0.3], [1.0, 2.0])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"low": 0.0}, ValueError, "low must be"),
        ({"low": 0.1, "high": 0.1}, ValueError, "high must be finite and > 0.1|high must be > 0.1"),
        ({"steps": 4}, ValueError, "steps must be an integer of at least 5, not 4"),
        ({"optimizer": "adamm"}, ValueError, "optimizer 'adamm' is unknown. Did you mean"),
        ({"optimizer": bx.Adam}, TypeError, "optimizer must be an object like bx.Adam"),
    ],
)
def test_an_impossible_range_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.find_learning_rate(NETWORK, NETWORK.initialize(), X, Y, **options)
