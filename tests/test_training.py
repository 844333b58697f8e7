"""Training: the loop against one written by hand, stacks, early stopping, and what is refused."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.losses import LOSSES
from backprop_xp.random import fold_in
from backprop_xp.updates import clip_norm

# Two libraries, or a product of a stack and of its member, sum in different orders: 1e-16 an
# update, over some dozen updates.
SAME_TRAINING = 1e-12
# One sum of a few terms in another order.
ROUNDING = 1e-13

ROWS = 11
N_IN, N_OUT = 3, 2
STACK = 3

XOR = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]


def _network(**options: Any) -> bx.Network:
    return bx.mlp([N_IN, 5, N_OUT], **{"hidden": "tanh", **options})


def _data(rows: int = ROWS, seed: int = 31) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=(rows, N_IN)), generator.normal(size=(rows, N_OUT))


def _weights(rows: int = ROWS) -> np.ndarray:
    weights = np.random.default_rng(32).uniform(0.5, 2.0, rows)
    weights[1] = 0.0
    return weights


def _put(xp: Any, *arrays: Any, dtype: str = "working") -> list[Any]:
    return [xp.asarray(array, dtype=dtype) for array in arrays]


def _train(xp: Any, network: bx.Network, theta: Any, *data: Any, **options: Any) -> np.ndarray:
    """Train to the end and return theta on the host."""
    options = {"optimizer": bx.SGD(0.1), "epochs": 3, **options}
    *_, state = bx.train(network, theta, *data, **options)
    return np.array(xp.host(state.theta))


def _case(xp: Any, **options: Any) -> tuple[Any, ...]:
    """Return a network, a theta and data to call ``train`` with."""
    network = _network(**options)
    return network, xp.initialize(network, seed=0), *_put(xp, *_data())


# ---- what train yields


def test_train_yields_a_state_for_each_epoch(xp: Any) -> None:
    states = [
        (state.epoch, state.step, type(state.step))
        for state in bx.train(*_case(xp), optimizer=bx.SGD(0.1), epochs=3, batch_size=4)
    ]
    # 11 rows in batches of 4 are three updates an epoch.
    assert states == [(1, 3, int), (2, 6, int), (3, 9, int)]


def test_train_does_nothing_until_it_is_advanced(xp: Any) -> None:
    network, theta, x, y = _case(xp)
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.1

    states = bx.train(network, theta, x, y, optimizer=bx.SGD(schedule), epochs=2)
    assert asked == []
    next(states)
    assert asked == [0]
    next(states)
    assert asked == [0, 1]


def test_the_loss_of_an_epoch_is_the_one_before_its_update(xp: Any) -> None:
    network, theta, x, y = _case(xp, l2=0.1)
    expected = float(network.loss(theta, x, y))
    first = next(iter(bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=1)))
    assert float(first.loss) == pytest.approx(expected, rel=xp.rounding(ROUNDING))


def test_train_and_fit_never_write_what_they_are_given() -> None:
    """On NumPy, where memory can be locked."""
    network = _network(dropout=0.2, l2=0.1)
    theta, (x, y), weight = network.initialize(0, backend="numpy"), _data(), _weights()
    for array in (theta, x, y, weight):
        array.flags.writeable = False
    for optimizer in (bx.SGD(0.1, momentum=0.9, nesterov=True), bx.RMSProp(), bx.AdamW()):
        for batch_size in (None, 4):
            bx.fit(
                network,
                theta,
                x,
                y,
                optimizer=optimizer,
                epochs=2,
                batch_size=batch_size,
                sample_weight=weight,
                validation=(x, y, weight),
                clip=0.1,
                early_stopping=bx.EarlyStopping(),
            )


def test_optimisers_compared_from_one_theta_start_from_the_same_one(xp: Any) -> None:
    network, theta, x, y = _case(xp)
    before = np.array(xp.host(theta))
    losses = [
        bx.fit(network, theta, x, y, optimizer=optimizer, epochs=3).history["loss"][0]
        for optimizer in (bx.SGD(0.1), bx.SGD(0.1, momentum=0.9), bx.RMSProp(), bx.Adam())
    ]
    assert len(set(losses)) == 1
    assert np.array_equal(xp.host(theta), before)


def test_two_trainings_may_advance_in_turns(xp: Any) -> None:
    case = _case(xp)
    expected = _train(xp, *case, optimizer=bx.Adam(0.1))
    one, other = (bx.train(*case, optimizer=bx.Adam(0.1), epochs=3) for _ in range(2))
    *_, (state, _) = zip(one, other, strict=True)
    assert np.array_equal(xp.host(state.theta), expected)


# ---- the loop


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [None, 4, 11, 100])
def test_training_is_the_loop_one_would_write(
    xp: Any, batch_size: int | None, shuffle: bool
) -> None:
    network = _network(dropout=0.3, l2=0.05)
    x, y, weight = _put(xp, *_data(), _weights())
    theta = xp.initialize(network, seed=0)
    optimizer = bx.SGD(0.1, momentum=0.9)
    options = {"batch_size": batch_size, "shuffle": shuffle, "seed": 5}
    result = bx.fit(
        network, theta, x, y, optimizer=optimizer, epochs=3, sample_weight=weight, **options
    )

    expected, state, step, history = 1.0 * theta, optimizer.initialize(theta), 0, []
    for epoch in range(3):
        losses, shares = [], []
        whole = batch_size is None or batch_size >= ROWS
        batches = (
            [(x, y, weight)]
            if whole
            else bx.data.minibatches(
                x, y, weight, batch_size=batch_size, shuffle=shuffle, seed=5, epoch=epoch
            )
        )
        for part_x, part_y, part_weight in batches:
            loss, gradient = network.loss_and_gradient(
                expected, part_x, part_y, sample_weight=part_weight, rng=fold_in(5, step)
            )
            expected, state = optimizer.update(expected, gradient, state)
            losses.append(float(loss))
            shares.append(float(xp.namespace.sum(part_weight)))
            step += 1
        history.append(np.average(losses, weights=shares))
    assert result.optimizer_state.step == step
    np.testing.assert_allclose(
        xp.host(result.theta),
        xp.host(expected),
        rtol=xp.rounding(ROUNDING),
        atol=xp.rounding(ROUNDING),
    )
    np.testing.assert_allclose(result.history["loss"], history, rtol=xp.rounding(ROUNDING))


def test_an_epochs_loss_counts_each_row_once_though_batches_differ_in_size(xp: Any) -> None:
    network, theta, x, y = _case(xp)
    options = {"optimizer": bx.SGD(0.0), "epochs": 1}
    whole = bx.fit(network, theta, x, y, **options).history["loss"]
    batches = bx.fit(network, theta, x, y, batch_size=4, **options).history["loss"]
    np.testing.assert_allclose(batches, whole, rtol=xp.rounding(ROUNDING))


def test_the_seed_decides_the_order_and_the_masks(xp: Any) -> None:
    case = _case(xp, dropout=0.3)
    one, again, other = (_train(xp, *case, seed=seed, batch_size=4) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


def test_dropout_masks_differ_from_update_to_update(xp: Any) -> None:
    network, theta, x, y = _case(xp, dropout=0.5)
    result = bx.fit(network, theta, x, y, optimizer=bx.SGD(0.0), epochs=3)
    assert len(set(result.history["loss"].tolist())) == 3


@pytest.mark.parametrize(
    "optimizer",
    [bx.SGD(0.1, momentum=0.9), bx.RMSProp(0.01), bx.Adam(0.01), bx.AdamW(0.01)],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_the_same_seed_trains_the_same_theta_as_on_numpy(xp: Any, optimizer: Any) -> None:
    network = _network(dropout=0.3, layer_norm=True, l2=0.01)
    x, y = _data()
    options = {"optimizer": optimizer, "epochs": 3, "batch_size": 4, "seed": 3, "clip": 1.0}
    there = _train(xp, network, xp.initialize(network, seed=7), *_put(xp, x, y), **options)
    on_numpy = network.initialize(7, backend="numpy")
    *_, state = bx.train(network, on_numpy, x, y, **options)
    np.testing.assert_allclose(
        there, state.theta, rtol=xp.rounding(SAME_TRAINING), atol=xp.rounding(SAME_TRAINING)
    )


def test_float32_stays_float32(xp: Any) -> None:
    network = _network(dropout=0.2, l2=0.01)
    x, y, weight = _put(xp, *_data(8), _weights(8), dtype="float32")
    theta = xp.initialize(network, seed=0, dtype="float32")
    states = bx.train(
        network,
        theta,
        x,
        y,
        optimizer=bx.AdamW(bx.schedules.cosine(0.1, steps=4)),
        epochs=2,
        batch_size=4,
        sample_weight=weight,
        validation=(x, y, weight),
        clip=0.1,
    )
    for state in states:
        _, mean, square = state.optimizer_state
        for array in (state.theta, state.loss, state.validation_loss, mean, square):
            assert array.dtype == xp.namespace.float32


@pytest.mark.parametrize("kind", ["list", "int64", "bool"])
def test_xor_is_learned_from_lists_integers_and_booleans(xp: Any, kind: str) -> None:
    network = bx.mlp([2, 4, 1], hidden="tanh", loss="binary_cross_entropy")
    x, y = XOR if kind == "list" else (xp.asarray(part, dtype=kind) for part in XOR)
    theta = xp.initialize(network, seed=0)
    result = bx.fit(network, theta, x, y, optimizer=bx.Adam(0.1), epochs=100)
    errors = np.abs(xp.host(network.predict(result.theta, x)) - np.array(XOR[1]))
    assert np.max(errors) < 0.1
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]


# ---- stacks


def test_a_stack_trained_together_is_its_members_trained_alone(xp: Any) -> None:
    network = _network(dropout=0.3, l2=0.01)
    x, y, weight = _put(xp, *_data(8), _weights(8))
    theta = xp.initialize(network, seed=0, stack=STACK)
    options = {
        "optimizer": bx.Adam(0.05),
        "epochs": 3,
        "batch_size": 4,
        "sample_weight": weight,
        "validation": (x, y),
        # Between the members' own norms, so that some are clipped and some are not.
        "clip": 1.5,
    }
    together = bx.fit(network, theta, x, y, **options)
    for i in range(STACK):
        alone = bx.fit(network, theta[i, ...], x, y, **options)
        np.testing.assert_allclose(
            xp.host(together.theta)[i],
            xp.host(alone.theta),
            rtol=xp.rounding(SAME_TRAINING),
            atol=xp.rounding(SAME_TRAINING),
        )
        for name, values in together.history.items():
            np.testing.assert_allclose(
                values[:, i], alone.history[name], rtol=xp.rounding(SAME_TRAINING)
            )


def test_each_member_may_have_its_own_rows_and_learning_rate(xp: Any) -> None:
    network = _network()
    data = [_data(8, seed=40 + i) for i in range(STACK)]
    x, y = _put(xp, np.stack([x for x, _ in data]), np.stack([y for _, y in data]))
    weight = xp.asarray(np.stack([_weights(8) + i for i in range(STACK)]))
    theta = xp.initialize(network, seed=0, stack=STACK)
    rates = [0.1, 0.01, 0.0]
    stacked = bx.SGD(xp.asarray(np.array(rates)[:, None]))
    together = _train(
        xp, network, theta, x, y, optimizer=stacked, batch_size=4, sample_weight=weight
    )
    for i, rate in enumerate(rates):
        alone = _train(
            xp,
            network,
            theta[i, ...],
            x[i, ...],
            y[i, ...],
            optimizer=bx.SGD(rate),
            batch_size=4,
            sample_weight=weight[i, ...],
        )
        np.testing.assert_allclose(
            together[i], alone, rtol=xp.rounding(SAME_TRAINING), atol=xp.rounding(SAME_TRAINING)
        )


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_member_poisoned_with_nan_leaves_the_others_as_they_were(
    xp: Any, clip: float | None
) -> None:
    network = _network(dropout=0.2)
    x, y = _put(xp, *_data(8))
    starts = xp.host(xp.initialize(network, seed=0, stack=STACK)).copy()
    options = {
        "optimizer": bx.Adam(0.05),
        "clip": clip,
        "batch_size": 4,
        "validation": (x, y),
        "early_stopping": bx.EarlyStopping(patience=2),
        "epochs": 4,
    }
    clean = bx.fit(network, xp.asarray(starts.copy()), x, y, **options)
    starts[1] = np.nan
    poisoned = bx.fit(network, xp.asarray(starts.copy()), x, y, **options)
    assert poisoned.epochs == clean.epochs
    assert np.all(np.isnan(xp.host(poisoned.theta)[1]))
    assert np.array_equal(xp.host(poisoned.theta)[::2], xp.host(clean.theta)[::2])
    for name, values in poisoned.history.items():
        assert np.all(np.isnan(values[:, 1]))
        assert np.array_equal(values[:, ::2], clean.history[name][:, ::2])


# ---- weights


def test_whole_weights_do_what_repeated_rows_do(xp: Any) -> None:
    network, theta, _, _ = _case(xp, l2=0.05)
    (x, y), counts = _data(), np.array([1, 3, 0, 2, 1, 1, 4, 0, 1, 2, 1])
    repeated = _train(xp, network, theta, *_put(xp, x.repeat(counts, 0), y.repeat(counts, 0)))
    weighted = _train(
        xp, network, theta, *_put(xp, x, y), sample_weight=xp.asarray(counts, dtype=None)
    )
    np.testing.assert_allclose(
        weighted, repeated, rtol=xp.rounding(SAME_TRAINING), atol=xp.rounding(SAME_TRAINING)
    )


def test_equal_weights_do_nothing(xp: Any) -> None:
    case = _case(xp)
    expected = _train(xp, *case, batch_size=4)
    weighted = _train(xp, *case, batch_size=4, sample_weight=[2.5] * ROWS)
    np.testing.assert_allclose(
        weighted, expected, rtol=xp.rounding(SAME_TRAINING), atol=xp.rounding(SAME_TRAINING)
    )


def test_a_batch_whose_weights_are_all_zero_changes_nothing(xp: Any) -> None:
    case = _case(xp)
    # The second and third batch weigh nothing.
    weight = xp.asarray([1.0, 2.0, 0.5, 1.0] + [0.0] * (ROWS - 4))
    options = {"batch_size": 4, "shuffle": False, "epochs": 1}
    network, theta, x, y = case
    first = _train(xp, network, theta, x[:4, :], y[:4, :], sample_weight=weight[:4], epochs=1)
    all_three = _train(xp, *case, sample_weight=weight, **options)
    np.testing.assert_allclose(
        all_three, first, rtol=xp.rounding(ROUNDING), atol=xp.rounding(ROUNDING)
    )
    result = bx.fit(*case, optimizer=bx.SGD(0.1), sample_weight=weight, **options)
    expected = float(network.loss(theta, x[:4, :], y[:4, :], sample_weight=weight[:4]))
    assert result.history["loss"][0] == pytest.approx(expected, rel=xp.rounding(ROUNDING))


# ---- clipping


def test_clipping_bounds_each_networks_own_norm(xp: Any) -> None:
    gradient = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-30.0, 40.0]])
    clipped = xp.host(clip_norm(xp.asarray(gradient), 1.0))
    expected = [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [-0.6, 0.8]]
    np.testing.assert_allclose(clipped, expected, rtol=xp.rounding(ROUNDING))


def test_a_gradient_within_the_bound_keeps_its_bits(xp: Any) -> None:
    gradient = np.random.default_rng(33).normal(size=(4, 9))
    clipped = xp.host(clip_norm(xp.asarray(gradient), 100.0))
    assert np.array_equal(clipped, gradient.astype(xp.dtype))


@pytest.mark.parametrize("size", [1e-30, 1e19, 1e30, 5e37])
@pytest.mark.parametrize("bound", [1e-3, 1.0, 100.0])
def test_clipping_overflows_for_no_float32_gradient(xp: Any, size: float, bound: float) -> None:
    """Squares overflow above 1e19, and of 100 entries of 5e37 the norm itself does."""
    # Of norm 10.
    direction = np.where(np.arange(100) % 3, 1.0, -1.0)
    clipped = clip_norm(xp.asarray(size * direction, dtype="float32"), bound)
    assert clipped.dtype == xp.namespace.float32
    expected = min(size, bound / 10.0) * direction
    # A few roundings of float32's 6e-8.
    np.testing.assert_allclose(xp.host(clipped), expected, rtol=1e-5)


def test_a_clipped_step_is_as_long_as_the_bound(xp: Any) -> None:
    network = bx.mlp([1, 1])
    theta = xp.initialize(network, seed=0, dtype="float32")
    x, y = _put(xp, [[1e11], [-2e11]], [[1e18], [3e17]], dtype="float32")
    before = np.array(xp.host(theta))
    after = _train(xp, network, theta, x, y, optimizer=bx.SGD(1.0), epochs=1, clip=0.25)
    # Theta is of size 1, so that differences carry float32's 1e-7.
    assert np.linalg.norm(after - before) == pytest.approx(0.25, rel=1e-5)


# ---- fit, and what comes of it


@pytest.mark.parametrize("stack", [(), (STACK,), (1, STACK)])
def test_a_history_has_an_entry_for_each_epoch_and_network(xp: Any, stack: tuple[int, ...]) -> None:
    network, _, x, y = _case(xp)
    theta = xp.initialize(network, seed=0, stack=stack)
    result = bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=4, validation=(x, y))
    assert set(result.history) == {"loss", "validation_loss"}
    for values in result.history.values():
        assert isinstance(values, np.ndarray)
        assert values.shape == (4, *stack)
        assert np.all(np.isfinite(values))
    assert result.epochs == 4
    assert result.theta.shape == theta.shape


def test_without_validation_there_is_no_history_of_it(xp: Any) -> None:
    assert set(bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=1).history) == {"loss"}


def test_fit_ends_where_train_does(xp: Any) -> None:
    options = {"optimizer": bx.Adam(0.1), "epochs": 3, "batch_size": 4}
    result = bx.fit(*_case(xp), **options)
    assert np.array_equal(xp.host(result.theta), _train(xp, *_case(xp), **options))


def test_validation_is_measured_after_the_epoch_without_dropout_and_penalty(xp: Any) -> None:
    case = _case(xp, dropout=0.5, l2=0.3)
    network = case[0]
    x, y, weight = _put(xp, *_data(6, seed=34), _weights(6))
    states = bx.train(
        *case, optimizer=bx.SGD(0.1), epochs=2, batch_size=4, validation=(x, y, weight)
    )
    for state in states:
        expected = network.loss(state.theta, x, y, sample_weight=weight, rng=None, l2=0.0)
        assert float(state.validation_loss) == pytest.approx(
            float(expected), rel=xp.rounding(ROUNDING)
        )


def test_validation_changes_nothing_in_the_training(xp: Any) -> None:
    case = _case(xp, dropout=0.2)
    without = _train(xp, *case, batch_size=4)
    with_it = _train(xp, *case, batch_size=4, validation=tuple(_put(xp, *_data(6, seed=34))))
    assert np.array_equal(without, with_it)


def test_a_callback_is_given_the_state_after_each_epoch(xp: Any) -> None:
    seen: list[tuple[int, int]] = []

    def record(state: Any) -> None:
        seen.append((state.epoch, state.step))

    bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=3, batch_size=4, callbacks=[record, record])
    assert seen == [(1, 3), (1, 3), (2, 6), (2, 6), (3, 9), (3, 9)]


def test_a_callback_that_returns_true_ends_the_training_after_all_were_called(xp: Any) -> None:
    seen: list[int] = []
    result = bx.fit(
        *_case(xp),
        optimizer=bx.SGD(0.1),
        epochs=10,
        callbacks=[lambda state: state.epoch == 2, lambda state: seen.append(state.epoch)],
    )
    assert seen == [1, 2]
    assert result.epochs == 2
    assert result.history["loss"].shape == (2,)


@pytest.mark.parametrize("value", [None, False])
def test_a_callback_that_returns_none_or_false_ends_nothing(xp: Any, value: Any) -> None:
    result = bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=2, callbacks=[lambda state: value])
    assert result.epochs == 2


def test_progress_writes_lines_to_stderr(xp: Any, capsys: pytest.CaptureFixture[str]) -> None:
    network, theta, x, y = _case(xp)
    bx.fit(
        network,
        theta,
        x,
        y,
        optimizer=bx.SGD(0.1),
        epochs=20,
        validation=(x, y),
        progress=True,
    )
    written = capsys.readouterr()
    lines = written.err.splitlines()
    assert written.out == ""
    assert [int(line.split()[1].partition("/")[0]) for line in lines] == [1, *range(2, 21, 2)]
    assert all(re.fullmatch(r"epoch +\d+/20  loss \S+  validation loss \S+", s) for s in lines)


def test_progress_of_a_stack_shows_its_best_network_though_another_is_nan(
    xp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    network, _, x, y = _case(xp)
    starts = xp.host(xp.initialize(network, seed=0, stack=STACK)).copy()
    starts[0] = np.nan
    result = bx.fit(
        network, xp.asarray(starts), x, y, optimizer=bx.SGD(0.1), epochs=1, progress=True
    )
    best = np.nanmin(result.history["loss"])
    assert capsys.readouterr().err == f"epoch 1/1  loss {best:.6g} (best of 3)\n"


def test_without_progress_nothing_is_written(xp: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=2)
    assert capsys.readouterr() == ("", "")


# ---- early stopping, on a network of one bias b whose losses are b * b, and a schedule that leads
# b through the magnitudes one wishes


def _led(xp: Any, *paths: list[float]) -> tuple[bx.Network, Any, Any]:
    """Return a network, theta and optimiser: member i's |b| after epoch k is paths[i][k + 1]."""
    network = bx.mlp([1, 1])
    theta = np.stack([[0.0, path[0]] for path in paths])
    # The gradient is 2 b: b - r 2 b = -b', so that signs take turns and rates are positive.
    rates = [
        xp.asarray([[0.5 * (1.0 + path[k + 1] / path[k])] for path in paths])
        for k in range(len(paths[0]) - 1)
    ]
    return network, xp.asarray(theta), bx.SGD(lambda step: rates[step])


def _fit_led(
    xp: Any, early_stopping: bx.EarlyStopping, *paths: list[float], validate: bool = True
) -> Any:
    network, theta, optimizer = _led(xp, *paths)
    x, y = xp.asarray([[0.0]]), xp.asarray([[0.0]])
    return bx.fit(
        network,
        theta,
        x,
        y,
        optimizer=optimizer,
        epochs=len(paths[0]) - 1,
        validation=(x, y) if validate else None,
        early_stopping=early_stopping,
    )


def _biases(xp: Any, result: Any) -> list[float]:
    return np.abs(xp.host(result.theta)[:, 1]).tolist()


def test_the_led_network_goes_where_it_is_led(xp: Any) -> None:
    """The tests below hold only if this one does."""
    result = _fit_led(xp, bx.EarlyStopping(patience=99), [4.0, 2.0, 8.0, 1.0, 0.5])
    assert result.history["loss"].ravel().tolist() == [16.0, 4.0, 64.0, 1.0]
    assert result.history["validation_loss"].ravel().tolist() == [4.0, 64.0, 1.0, 0.25]


# (patience, |b| after each epoch, at which epoch it ends, |b| at the best): powers of 2, exact
# though a compiler fuses a product and a sum
SEQUENCES = [
    # Improves to the end.
    (1, [8.0, 4.0, 2.0, 1.0], 4, 1.0),
    # One epoch that is no better is one too many.
    (1, [8.0, 4.0, 4.0, 1.0], 3, 4.0),
    (2, [8.0, 4.0, 4.0, 1.0, 1.0, 2.0, 0.5], 6, 1.0),
    (3, [8.0, 4.0, 4.0, 1.0, 1.0, 2.0, 0.5], 7, 0.5),
    # Waiting starts again at each improvement.
    (2, [8.0, 16.0, 4.0, 8.0, 2.0, 4.0, 8.0, 1.0], 7, 2.0),
    # Worse from the first epoch on.
    (2, [1.0, 2.0, 4.0, 8.0], 3, 1.0),
]


@pytest.mark.parametrize(("patience", "path", "end", "best"), SEQUENCES)
def test_training_ends_when_nothing_improved_for_the_patience(
    xp: Any, patience: int, path: list[float], end: int, best: float
) -> None:
    result = _fit_led(xp, bx.EarlyStopping(patience), [16.0, *path])
    assert result.epochs == end
    assert result.history["validation_loss"].shape == (end, 1)
    assert _biases(xp, result) == [best]


def test_a_smaller_fall_than_min_delta_is_no_improvement(xp: Any) -> None:
    # Losses 4, 3.61, 3.24, 2.25: of the falls below 4 only the last exceeds 1.
    path = [4.0, 2.0, 1.9, 1.8, 1.5, 1.5, 1.5, 1.5]
    result = _fit_led(xp, bx.EarlyStopping(patience=3, min_delta=1.0), path)
    assert result.epochs == 7
    assert _biases(xp, result) == pytest.approx([1.5], rel=xp.rounding(ROUNDING))


def test_a_fall_of_just_min_delta_is_no_improvement(xp: Any) -> None:
    result = _fit_led(xp, bx.EarlyStopping(patience=1, min_delta=3.0), [4.0, 2.0, 1.0, 1.0])
    assert result.epochs == 2
    assert _biases(xp, result) == [2.0]


def test_a_stack_goes_on_while_one_network_improves(xp: Any) -> None:
    result = _fit_led(
        xp,
        bx.EarlyStopping(patience=2),
        [8.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0],
        [8.0, 8.0, 4.0, 2.0, 1.0, 2.0, 2.0, 0.5],
    )
    assert result.epochs == 6
    assert _biases(xp, result) == [4.0, 1.0]


def test_each_network_is_given_back_as_it_was_at_its_own_best_epoch(xp: Any) -> None:
    paths = [[8.0, 1.0, 2.0, 4.0], [8.0, 4.0, 2.0, 4.0], [8.0, 4.0, 2.0, 1.0], [8.0, 9.0, 9.0, 9.0]]
    result = _fit_led(xp, bx.EarlyStopping(patience=99), *paths)
    assert _biases(xp, result) == [1.0, 2.0, 1.0, 9.0]


def test_without_restore_best_the_last_epoch_is_given_back(xp: Any) -> None:
    stopping = bx.EarlyStopping(patience=2, restore_best=False)
    result = _fit_led(xp, stopping, [8.0, 4.0, 8.0, 16.0, 2.0])
    assert result.epochs == 3
    assert _biases(xp, result) == [16.0]


def test_without_validation_the_loss_of_an_epochs_own_theta_decides(xp: Any) -> None:
    # After each epoch: 16, 64, 256. Before it, as the history has it, 64, 16, 64.
    result = _fit_led(
        xp, bx.EarlyStopping(patience=2), [8.0, 4.0, 8.0, 16.0, 2.0, 1.0], validate=False
    )
    assert result.epochs == 3
    assert result.history["loss"].ravel().tolist() == [64.0, 16.0, 64.0]
    assert _biases(xp, result) == [4.0]


@pytest.mark.parametrize("stack", [(), (3,)])
def test_theta_and_the_optimizers_state_are_given_back_as_they_were_at_the_best_epoch(
    xp: Any, stack: tuple[int, ...]
) -> None:
    network = bx.mlp([2, 4, 1], hidden="tanh", l2=1e-3)
    x, y = xp.asarray(XOR[0]), xp.asarray(XOR[1])
    start = xp.initialize(network, seed=0, stack=stack)
    options = {"optimizer": bx.Adam(0.9), "epochs": 9, "seed": 1}  # too fast: the loss goes up
    thetas, states, losses = [], [], []
    for state in bx.train(network, start, x, y, **options):
        thetas.append(xp.host(state.theta).copy())
        states.append([np.copy(xp.host(m)) for m in state.optimizer_state[1:]])
        losses.append(xp.host(network.loss(state.theta, x, y)))
    best = np.argmin(losses, axis=0)
    assert np.max(best) < 8
    result = bx.fit(network, start, x, y, early_stopping=bx.EarlyStopping(patience=99), **options)
    assert result.optimizer_state.step == np.max(best) + 1
    for i in np.ndindex(stack):
        assert np.array_equal(xp.host(result.theta)[i], thetas[best[i]][i])
        for kept, then in zip(result.optimizer_state[1:], states[best[i]], strict=True):
            assert np.array_equal(xp.host(kept)[i], then[i])


def test_a_network_whose_loss_is_nan_only_waits(xp: Any) -> None:
    network, theta, optimizer = _led(xp, [8.0, 4.0, 2.0, 2.0, 2.0], [8.0] * 5)
    host = xp.host(theta).copy()
    host[1] = np.nan
    x, y = xp.asarray([[0.0]]), xp.asarray([[0.0]])
    result = bx.fit(
        network,
        xp.asarray(host),
        x,
        y,
        optimizer=optimizer,
        epochs=4,
        early_stopping=bx.EarlyStopping(patience=1),
        validation=(x, y),
    )
    assert result.epochs == 3
    assert _biases(xp, result)[0] == 2.0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience must be an integer of at least 1, not 0"),
        ({"patience": 2.5}, TypeError, r"patience must be an integer of at least 1, not 2\.5"),
        ({"min_delta": -0.1}, ValueError, r"min_delta must be >= 0, not -0\.1"),
        ({"min_delta": "1"}, TypeError, "min_delta must be a number"),
    ],
)
def test_impossible_early_stopping_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.EarlyStopping(**options)


# ---- what is refused, when train is called: before the first epoch


def _refuses(
    xp: Any, error: type[Exception] | tuple[type[Exception], ...], message: str, **changes: Any
) -> None:
    """Show that ``train`` raises at the call, not when it is advanced."""
    network, theta, x, y = _case(xp)
    arguments = {"theta": theta, "x": x, "y": y, "optimizer": bx.SGD(0.1), "epochs": 1, **changes}
    data = [arguments.pop(name) for name in ("theta", "x", "y")]
    with pytest.raises(error, match=message):
        bx.train(arguments.pop("network", network), *data, **arguments)


def _holding(xp: Any, value: float, place: tuple[int, ...], shape: tuple[int, ...]) -> Any:
    array = np.ones(shape)
    array[place] = value
    return xp.asarray(array)


NOT_FINITE = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
@pytest.mark.parametrize("place", [(0, 0), (0, 2), (7, 1), (ROWS - 1, N_IN - 1)])
def test_x_that_is_not_finite_is_refused_with_its_place(
    xp: Any, value: float, place: tuple[int, int]
) -> None:
    x = _holding(xp, value, place, (ROWS, N_IN))
    _refuses(xp, ValueError, rf"x has .*not finite.*{value} at x\[{place[0]}, {place[1]}\]", x=x)


def test_a_whole_row_of_infinities_is_refused_with_its_place(xp: Any) -> None:
    """The first row, which is the one that a check of widths might compute with."""
    x = xp.asarray(np.concatenate([np.full((1, N_IN), np.inf), np.ones((ROWS - 1, N_IN))]))
    _refuses(xp, ValueError, r"x has 3 values that are not finite, the first inf at x\[0, 0\]", x=x)


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
def test_y_that_is_not_finite_is_refused_with_its_place(xp: Any, value: float) -> None:
    y = _holding(xp, value, (4, 1), (ROWS, N_OUT))
    _refuses(xp, ValueError, rf"y has .*not finite.*{value} at y\[4, 1\]", y=y)


@pytest.mark.parametrize("value", NOT_FINITE, ids=str)
def test_a_weight_that_is_not_finite_is_refused_with_its_place(xp: Any, value: float) -> None:
    weight = _holding(xp, value, (4,), (ROWS,))
    message = rf"sample_weight has .*not finite.*{value} at sample_weight\[4\]"
    _refuses(xp, ValueError, message, sample_weight=weight)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_a_validation_value_that_is_not_finite_is_refused_with_its_place(
    xp: Any, name: str
) -> None:
    parts = {"x": np.ones((4, N_IN)), "y": np.ones((4, N_OUT)), "sample_weight": np.ones(4)}
    place = (2,) if name == "sample_weight" else (2, 1)
    parts[name][place] = np.nan
    shown = ", ".join(map(str, place))
    message = rf"[Vv]alidation.*{name} has .*not finite.*nan at {name}\[{shown}\]"
    _refuses(xp, ValueError, message, validation=tuple(_put(xp, *parts.values())))


def test_a_stacked_x_that_is_not_finite_is_refused_with_its_place(xp: Any) -> None:
    network, _, _, y = _case(xp)
    theta = xp.initialize(network, seed=0, stack=2)
    x = _holding(xp, math.nan, (1, 3, 2), (2, ROWS, N_IN))
    _refuses(xp, ValueError, r"nan at x\[1, 3, 2\]", theta=theta, x=x, y=y)


def test_several_values_that_are_not_finite_are_counted(xp: Any) -> None:
    x = np.ones((ROWS, N_IN))
    x[3, 1] = np.inf
    x[5, :] = np.nan
    _refuses(xp, ValueError, r"x has 4 values .*first inf at x\[3, 1\]", x=xp.asarray(x))


def test_one_value_that_is_not_finite_is_spoken_of_in_the_singular(xp: Any) -> None:
    x = _holding(xp, math.nan, (3, 1), (ROWS, N_IN))
    _refuses(xp, ValueError, r"x has 1 value that is not finite, nan at x\[3, 1\]", x=x)


def test_theta_that_is_not_finite_is_not_refused(xp: Any) -> None:
    network, theta, x, y = _case(xp)
    assert np.all(np.isnan(_train(xp, network, math.nan * theta, x, y)))


NOT_MEANT = [
    ("binary_cross_entropy", 2.0, r"not in \[0, 1\]"),
    ("binary_cross_entropy", -1.0, r"not in \[0, 1\]"),
    ("categorical_cross_entropy", -1.0, r"not in \[0, inf\]"),
    ("poisson", -1.0, r"not in \[0, inf\]"),
]
not_meant = pytest.mark.parametrize(("loss", "value", "fault"), NOT_MEANT)


@not_meant
def test_a_target_that_the_loss_cannot_mean_is_refused_with_its_place(
    xp: Any, loss: str, value: float, fault: str
) -> None:
    y = _holding(xp, value, (4, 1), (ROWS, N_OUT))
    message = rf"^y has 1 value that is {fault}, {value} at y\[4, 1\]\. To {loss} .* mean nothing"
    _refuses(xp, ValueError, message, network=_network(loss=loss), y=y)


@not_meant
def test_a_validation_target_that_the_loss_cannot_mean_is_refused_with_its_place(
    xp: Any, loss: str, value: float, fault: str
) -> None:
    y = _holding(xp, value, (2, 0), (4, N_OUT))
    message = rf"^In validation: y has 1 value that is {fault}, {value} at y\[2, 0\]"
    held_out = xp.asarray(np.ones((4, N_IN))), y
    y = xp.asarray(np.ones((ROWS, N_OUT)))
    _refuses(xp, ValueError, message, network=_network(loss=loss), y=y, validation=held_out)


def test_probabilities_with_the_rounding_of_float32_are_targets(xp: Any) -> None:
    network, theta, x, _ = _case(xp, loss="binary_cross_entropy")
    y = xp.asarray(np.tile([1.0 + 2.0**-22, -1e-9], (ROWS, 1)))
    assert bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=1)


def test_targets_that_the_loss_cannot_mean_are_counted(xp: Any) -> None:
    y = np.tile([0.0, 1.0], (ROWS, 1))
    y[3, 0], y[5, :] = -1.0, 7.0
    message = r"y has 3 values that are not in \[0, 1\], the first -1\.0 at y\[3, 0\]"
    network = _network(loss="binary_cross_entropy")
    _refuses(xp, ValueError, message, network=network, y=xp.asarray(y))


def test_a_target_that_is_not_finite_is_refused_as_such_whatever_the_loss(xp: Any) -> None:
    network, y = _network(loss="binary_cross_entropy"), _holding(xp, math.nan, (4, 1), (ROWS, 2))
    _refuses(xp, ValueError, r"y has 1 value that is not finite, nan at", network=network, y=y)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_bounds_of_what_a_loss_can_mean_are_trained_on(xp: Any, loss: str) -> None:
    network, theta, x, _ = _case(xp, loss=loss)
    low, high = LOSSES[loss].targets
    # Of a loss without bounds, any numbers.
    y = np.tile([max(low, -1e3), min(high, 1e3)], (ROWS, 1))
    optimizer = bx.SGD(1e-6)
    assert np.all(np.isfinite(_train(xp, network, theta, x, xp.asarray(y), optimizer=optimizer)))


def test_one_output_is_refused_by_categorical_cross_entropy_with_the_way_out(xp: Any) -> None:
    network = bx.mlp([N_IN, 1], loss="categorical_cross_entropy")
    theta, y = xp.initialize(network, seed=0), xp.asarray(np.ones((ROWS, 1)))
    message = "1 output, but categorical_cross_entropy needs 2 or more.*use binary_cross_entropy"
    _refuses(xp, ValueError, message, network=network, theta=theta, y=y)


def test_a_loss_of_ones_own_means_any_target_unless_it_says_otherwise(xp: Any) -> None:
    own = bx.Loss(bx.losses.poisson.value, bx.losses.poisson.gradient)
    y = _holding(xp, -1.0, (4, 1), (ROWS, N_OUT))
    _, theta, x, _ = _case(xp)
    assert np.all(np.isfinite(_train(xp, _network(loss=own), theta, x, y)))
    bounded = dataclasses.replace(own, targets=(0.0, 5.0))
    message = r"y has 1 value that is not in \[0, 5\], -1\.0 at y\[4, 1\]\. To this loss"
    _refuses(xp, ValueError, message, network=_network(loss=bounded), y=y)


SHAPES: list[tuple[str, Callable[[], Any], str]] = [
    ("x", lambda: np.ones((ROWS, N_IN + 1)), "x has 4 features .*first layer expects 3"),
    ("x", lambda: np.ones((0, N_IN)), "x has no rows"),
    ("x", lambda: np.ones(N_IN), r"x has shape \(3,\), but \(\.\.\., batch, n_in\) is expected"),
    ("x", lambda: np.ones((2, ROWS, N_IN)), r"x is stacked \(2,\), but theta is stacked \(\)"),
    ("x", lambda: np.ones((ROWS - 1, N_IN)), r"y has shape \(11, 2\), but the outputs are .* 10"),
    ("y", lambda: np.ones((ROWS, N_OUT + 1)), r"y has shape \(11, 3\), .* \(\.\.\., 11, 2\)"),
    ("y", lambda: np.ones((ROWS - 1, N_OUT)), r"y has shape \(10, 2\), .* \(\.\.\., 11, 2\)"),
    ("y", lambda: np.zeros((ROWS,)), r"one-hot: y = bx\.data\.one_hot\(y\)"),
    ("sample_weight", lambda: np.ones(ROWS - 1), r"sample_weight has shape \(10,\).* 11 rows"),
    ("sample_weight", lambda: np.ones((ROWS, 1)), r"sample_weight has shape \(11, 1\)"),
    ("sample_weight", lambda: np.ones((2, ROWS)), r"sample_weight is stacked \(2,\)"),
    ("theta", lambda: np.ones(5), r"theta has shape \(5,\), but this network's is \(\.\.\., 32\)"),
]


@pytest.mark.parametrize(("name", "make", "message"), SHAPES)
def test_what_does_not_fit_is_refused_by_name(
    xp: Any, name: str, make: Callable[[], Any], message: str
) -> None:
    _refuses(xp, ValueError, message, **{name: xp.asarray(make())})


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)], ids=["flat", "column"])
def test_the_way_out_for_class_labels_leads_to_training(xp: Any, shape: tuple[int, ...]) -> None:
    """The repair that the message shows is done as it says."""
    network, theta, x, _ = _case(xp, loss="categorical_cross_entropy")
    y = xp.asarray(np.reshape([0, 1] * 5 + [0], shape), dtype=None)
    with pytest.raises(ValueError, match="one-hot") as error:
        bx.train(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=1)
    repair = re.search(r"y = (bx\..*?)\.?$", str(error.value))
    assert repair is not None
    y = eval(repair.group(1), {"bx": bx, "y": y})  # noqa: S307 -- our own message
    assert np.all(np.isfinite(_train(xp, network, theta, x, y)))


def test_targets_in_a_row_are_told_to_be_a_column(xp: Any) -> None:
    network = bx.mlp([N_IN, 1])
    theta, y = xp.initialize(network, seed=0), xp.asarray(np.ones(ROWS))
    _refuses(xp, ValueError, r"column: y\[:, None\]", network=network, theta=theta, y=y)


def test_string_labels_are_refused_with_a_way_out(xp: Any) -> None:
    _refuses(xp, TypeError, r"y has dtype <U3, but numbers are .*one_hot", y=["cat", "dog"] * 5)


@pytest.mark.parametrize("weights", [[-1.0] + [1.0] * (ROWS - 1), [0.0] * ROWS])
def test_negative_weights_or_none_above_zero_are_refused(xp: Any, weights: list[float]) -> None:
    message = "sample_weight must not be negative, and not all 0"
    _refuses(xp, ValueError, message, sample_weight=weights)
    x, y = _put(xp, *_data())
    _refuses(xp, ValueError, f"validation.*{message}", validation=(x, y, weights))


def test_a_member_whose_weights_are_all_zero_is_refused(xp: Any) -> None:
    _refuses(
        xp,
        ValueError,
        "sample_weight must not be negative, and not all 0",
        theta=xp.initialize(_network(), seed=0, stack=2),
        sample_weight=np.stack([np.ones(ROWS), np.zeros(ROWS)]).tolist(),
    )


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1, not 0"),
    ({"epochs": 2.5}, TypeError, r"epochs must be an integer of at least 1, not 2\.5"),
    ({"epochs": True}, TypeError, "epochs must be an integer"),
    ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, not 0"),
    ({"batch_size": -3}, ValueError, "batch_size must be an integer of at least 1, not -3"),
    ({"batch_size": 2.5}, TypeError, r"batch_size must be an integer of at least 1, not 2\.5"),
    ({"seed": -1}, ValueError, "seed must be an integer of at least 0, not -1"),
    ({"seed": 0.5}, TypeError, "seed must be an integer of at least 0"),
    ({"clip": 0.0}, ValueError, "clip must be > 0, not 0"),
    ({"clip": -1.0}, ValueError, "clip must be > 0, not -1"),
    ({"clip": "1"}, TypeError, "clip must be a number"),
    ({"optimizer": "adam"}, TypeError, r"optimizer must be .* bx\.Adam\(\), not 'adam'"),
    ({"optimizer": None}, TypeError, r"optimizer must be .* bx\.Adam\(\), not None"),
    ({"optimizer": bx.Adam}, TypeError, r"optimizer must be .* bx\.Adam\(\), not <class"),
    ({"optimizer": {}}, TypeError, r"optimizer must be .* bx\.Adam\(\), not {}"),
    ({"validation": ([[1.0] * N_IN],)}, ValueError, r"validation must be \(x, y\) or .* not 1"),
    ({"validation": [1, 2, 3, 4]}, ValueError, r"validation must be \(x, y\) or .* not 4 items"),
    ({"validation": 0.2}, TypeError, r"validation must be \(x, y\) or"),
    (
        {"validation": ([[1.0] * (N_IN + 1)], [[1.0] * N_OUT])},
        ValueError,
        "validation: x has 4 features .*first layer expects 3",
    ),
    (
        {"validation": ([[1.0] * N_IN], [[1.0] * N_OUT] * 2)},
        ValueError,
        r"validation: y has shape \(2, 2\), but the outputs are \(\.\.\., 1, 2\)",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_an_impossible_option_is_refused_by_name(
    xp: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    _refuses(xp, error, message, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stopping": 5}, r"early_stopping must be .*bx\.EarlyStopping\("),
        ({"callbacks": print}, "callbacks must be "),
    ],
)
def test_an_impossible_option_of_fit_is_refused_by_name(
    xp: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=1, **options)


def test_an_unknown_option_is_refused_by_name(xp: Any) -> None:
    with pytest.raises(TypeError, match="batchsize"):
        bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=1, batchsize=4)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_another_precision_is_refused_with_the_cast_that_repairs_it(xp: Any, name: str) -> None:
    shapes = {"x": (ROWS, N_IN), "y": (ROWS, N_OUT), "sample_weight": (ROWS,)}
    array = xp.asarray(np.ones(shapes[name]), dtype="float32")
    message = (
        rf"{name} is .*float32, but theta is .*float64.*{name} = bx\.asarray\({name}, .*dtype='"
    )
    _refuses(xp, TypeError, message, **{name: array})


def test_a_complex_theta_is_refused(xp: Any) -> None:
    _, theta, _, _ = _case(xp)
    complex_theta = xp.asarray(xp.host(theta), dtype=xp.complex_dtype)
    _refuses(xp, TypeError, f"theta is .*{xp.complex_dtype}, but only real", theta=complex_theta)


def test_a_callback_may_end_the_training_by_a_comparison_of_losses(xp: Any) -> None:
    network, theta, x, y = _case(xp)
    result = bx.fit(
        network,
        theta,
        x,
        y,
        optimizer=bx.SGD(0.1),
        epochs=5,
        callbacks=[lambda state: xp.namespace.all(state.loss < math.inf)],
    )
    assert result.epochs == 1


@pytest.mark.parametrize("what", ["losses", "no losses"])
def test_a_callback_that_returns_a_stacks_array_is_refused_by_its_place(xp: Any, what: str) -> None:
    network, _, x, y = _case(xp)
    answer = {"losses": slice(None), "no losses": slice(0)}[what]
    shape = {"losses": r"\(3,\)", "no losses": r"\(0,\)"}[what]
    with pytest.raises(
        ValueError,
        match=rf"^callbacks\[1\] returned an array of shape {shape}, but True.* all or any",
    ):
        bx.fit(
            network,
            xp.initialize(network, stack=STACK),
            x,
            y,
            optimizer=bx.SGD(0.1),
            epochs=2,
            callbacks=[lambda state: None, lambda state: (state.loss < 1.0)[answer]],
        )


@pytest.mark.parametrize("batch_size", [None, 4])
def test_a_stack_of_no_networks_trains_where_nothing_is_judged(
    xp: Any, batch_size: int | None
) -> None:
    network, _, x, y = _case(xp)
    empty = xp.initialize(network, stack=2)[:0, ...]
    options: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 2, "batch_size": batch_size}
    result = bx.fit(network, empty, x, y, **options)
    assert result.theta.shape == (0, network.size)
    assert result.history["loss"].shape == (2, 0)
    judging: dict[str, Any] = {
        "early_stopping": bx.EarlyStopping(),
        "progress": True,
        "check_every": 1,
    }
    for name, value in judging.items():
        with pytest.raises(
            ValueError,
            match=rf"^{name} needs a network to judge, but theta has shape \(0, {network.size}\)",
        ):
            bx.fit(network, empty, x, y, **{name: value}, **options)
