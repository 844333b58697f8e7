"""Averages of theta: against closed forms, what is measured, resumed and kept in files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends.libraries.cupy.update_kernels import rules
from backprop_xp.files.descriptions import describe, rebuild
from backprop_xp.training.measures.averages import averaged

# Rounding of some dozens of updates.
SAME = 1e-12
ROWS, BATCH, EPOCHS = 11, 4, 7
BATCHES = 3  # the last of three rows

generator = np.random.default_rng(7)
X, Y = generator.normal(size=(ROWS, 3)), generator.uniform(0.1, 0.9, size=(ROWS, 2))
AVERAGES: dict[str, Any] = {"EMA": bx.EMA(0.7), "SWA": bx.SWA(3), "SWA from the first": bx.SWA(1)}
every_average = pytest.mark.parametrize("name", AVERAGES)
each_size = pytest.mark.parametrize("batch_size", [None, BATCH])


def _network() -> bx.Network:
    return bx.mlp([3, 4, 2], hidden="tanh")


def _fit(xp: Any, stack: Any = (), **options: Any) -> bx.FitResult:
    network = _network()
    theta = xp.initialize(network, stack=stack)
    options = {"optimizer": bx.Adam(0.1), "epochs": EPOCHS, "shuffle": False, **options}
    return bx.fit(network, theta, xp.asarray(X), xp.asarray(Y), **options)


def _path(xp: Any, batch_size: int | None) -> np.ndarray:
    """Return theta after each update of a training written out, ``(updates, P)``."""
    network, optimizer, path = _network(), bx.Adam(0.1), []
    theta = xp.initialize(network)
    state = optimizer.initialize(1.0 * theta)
    size = batch_size or ROWS
    for _ in range(EPOCHS):
        for start in range(0, ROWS, size):
            x, y = (xp.asarray(a[start : start + size]) for a in (X, Y))
            _, gradient = network.loss_and_gradient(theta, x, y)
            theta, state = optimizer.update(1.0 * theta, gradient, state)
            path.append(np.array(xp.host(theta)))
    return np.stack(path)


def _expected(average: Any, path: np.ndarray) -> np.ndarray:
    if isinstance(average, bx.SWA):
        return path[len(path) // EPOCHS - 1 :: len(path) // EPOCHS][average.start_epoch - 1 :].mean(
            0
        )
    weights = average.decay ** np.arange(len(path))[::-1]
    return (weights[:, None] * path).sum(0) / weights.sum()


@each_size
@every_average
def test_an_average_is_that_of_a_training_written_out(
    xp: Any, name: str, batch_size: int | None
) -> None:
    path, average = _path(xp, batch_size), AVERAGES[name]
    for callbacks in ([], [lambda state: None]):
        result = _fit(xp, average=average, batch_size=batch_size, callbacks=callbacks)
        xp.assert_close(result.theta, _expected(average, path), SAME)
        xp.assert_equal(result.state.average, xp.host(result.theta))
        xp.assert_close(result.state.theta, path[-1], SAME)


@each_size
@every_average
def test_the_average_is_measured_and_the_training_is_as_without_it(
    xp: Any, name: str, batch_size: int | None
) -> None:
    x, y = xp.asarray(X[:5]), xp.asarray(Y[:5])
    options = {"batch_size": batch_size, "validation": (x, y), "metrics": {"r2": bx.metrics.r2}}
    result = _fit(xp, average=AVERAGES[name], **options)
    plain = _fit(xp, **options)
    xp.assert_close(result.state.theta, plain.theta, SAME)
    xp.assert_close(result.history["loss"], plain.history["loss"], SAME)
    measured = xp.host(_network().loss(result.theta, x, y))
    xp.assert_close(result.history["validation_loss"][-1], measured, SAME)
    assert abs(plain.history["validation_loss"][-1] - measured) > 1e-6
    before = 2 if name == "SWA" else 0  # theta itself is measured up to the epoch before the start
    for key in ("validation_loss", "r2"):
        xp.assert_close(result.history[key][:before], plain.history[key][:before], SAME)


@each_size
@every_average
def test_a_resumed_average_is_the_uninterrupted_one(
    xp: Any, name: str, batch_size: int | None, tmp_path: Path
) -> None:
    options = {"average": AVERAGES[name], "batch_size": batch_size}
    whole = _fit(xp, **options)
    begun = _fit(xp, **options, epochs=4, checkpoint=tmp_path / "model.safetensors")
    choice = xp.selection
    read = bx.load(tmp_path / "model.safetensors", backend=choice.backend, device=choice.device)
    xp.assert_equal(read.theta, xp.host(begun.theta))
    assert read.options["average"] == AVERAGES[name]
    for start in (begun, read.state):
        resumed = _fit(xp, **options, start=start)
        compare = xp.assert_close if xp.name == "jax" else xp.assert_equal
        for one, other in ((resumed, whole), (resumed.state, whole.state)):
            compare(one.theta, xp.host(other.theta))


def test_an_average_may_begin_or_end_where_a_training_is_resumed(xp: Any) -> None:
    begun = _fit(xp, epochs=4)
    later = _fit(xp, start=begun, average=bx.EMA(0.5))
    path = [xp.host(begun.theta), *_path(xp, None)[4:]]
    expected = path[0]
    for step, theta in enumerate(path[1:], start=5):
        expected = expected + (theta - expected) * 0.5 / (1.0 - 0.5**step)
    xp.assert_close(later.theta, expected, SAME)
    ended = _fit(xp, start=later, epochs=EPOCHS + 1)
    assert ended.state.average is None
    xp.assert_equal(ended.theta, xp.host(ended.state.theta))


@every_average
def test_early_stopping_gives_back_the_best_average_of_each_network(xp: Any, name: str) -> None:
    validation, thetas, losses = (xp.asarray(X[:5]), xp.asarray(1.0 - Y[:5])), [], []

    def watch(state: bx.TrainingState) -> None:
        thetas.append(np.array(xp.host(state.average)))
        losses.append(np.array(xp.host(state.validation_loss)))

    options: dict[str, Any] = {"average": AVERAGES[name], "validation": validation}
    result = _fit(xp, (3,), **options, callbacks=[watch], early_stopping=bx.EarlyStopping(EPOCHS))
    best = np.argmin(losses, axis=0)
    for i in range(3):
        xp.assert_equal(result.theta[i, :], thetas[best[i]][i])
    xp.assert_close(thetas[-1][0], _fit(xp, **options).theta, SAME)


def test_a_state_of_an_older_file_has_no_average(xp: Any) -> None:
    arrays: dict[str, Any] = {}
    described: Any = describe(_fit(xp).state, "state", arrays)
    del described["with"]["average"]
    read: Any = rebuild(described, "state", arrays.__getitem__)
    assert read.average is None
    assert _fit(xp, start=read, epochs=EPOCHS + 1, average=bx.EMA()).epochs == EPOCHS + 1


def test_training_with_an_average_moves_nothing() -> None:
    network = _network()
    x, y = (bx.asarray(a, backend="array-api-strict", device="device1") for a in (X, Y))
    theta = network.initialize(backend="array-api-strict", device="device1")
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 3, "batch_size": BATCH}
    with bx.transfer_guard("disallow"):
        for state in bx.train(network, theta, x, y, average=bx.EMA(0.5), **options):
            assert state.average is not None


def test_on_cupy_an_average_is_one_launch() -> None:
    ran: list[str] = []
    table = rules(lambda kernel, *_: ran.append(kernel.name))
    name = f"{averaged.__module__}.{averaged.__qualname__}"
    table[name](np.ones(3), np.zeros(3), 0.5)
    assert ran == ["average"]
    assert table[name](np.ones(3), np.zeros(3, np.float32), 0.5) is NotImplemented


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bx.EMA(1.0), ValueError, "decay must be finite and >= 0 and < 1|decay must be"),
        (lambda: bx.EMA("fast"), TypeError, "decay must be a number"),
        (lambda: bx.SWA(0), ValueError, "start_epoch must be an integer of at least 1, not 0"),
        (lambda: bx.SWA(0.5), TypeError, "start_epoch must be an integer"),
    ],
)
def test_what_is_no_average_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
    for wrong in (0.9, bx.EMA, "ema"):
        with pytest.raises(TypeError, match=r"average must be an object like bx\.EMA\(\), not "):
            bx.fit(_network(), None, X, Y, optimizer=bx.SGD(0.1), epochs=1, average=wrong)


def test_averages_are_equal_and_print_as_their_calls() -> None:
    assert [repr(bx.EMA()), repr(bx.EMA(0.5)), repr(bx.SWA(3))] == [
        "EMA(0.999)",
        "EMA(0.5)",
        "SWA(3)",
    ]
    assert bx.EMA(0.5) == bx.EMA(0.5) != bx.EMA(0.6)
    assert hash(bx.SWA(3)) == hash(bx.SWA(3))
