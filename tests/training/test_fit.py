"""Training: the loop against one written by hand, stacks, metrics, and errors.

Specifies ``batches``, ``data_checks``, ``eager``, ``options``, ``set_up`` and ``training_set``.
"""

import dataclasses
import inspect
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.random_bits import fold_in
from backprop_xp.training.epochs.history import on_host
from backprop_xp.training.rows.preprocessing import split_rows
from backprop_xp.training.steps.step import clip_norm
from tests.helpers import long

# Two libraries, or a product of a stack and of one network, sum in different orders: 1e-16 an
# update, over a few dozen updates.
SAME_TRAINING = 1e-12
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


def _fit(xp: Any, *case: Any, **options: Any) -> Any:
    """Fit the given case, or ``_case(xp)``, by default for three epochs."""
    options = {"optimizer": bx.SGD(0.1), "epochs": 3, **options}
    return bx.fit(*(case or _case(xp)), **options)


def _trained(xp: Any, *case: Any, **options: Any) -> np.ndarray:
    """Return the theta that ``_fit`` trains, on the host."""
    return xp.host(_fit(xp, *case, **options).theta)


def _case(xp: Any, stack: Any = (), **options: Any) -> tuple[Any, ...]:
    """Return a network, a theta and data to train with."""
    network = _network(**options)
    return network, xp.initialize(network, stack=stack), *xp.put(*_data())


def _with_nan(xp: Any, theta: Any, i: int) -> Any:
    """Return a stack of networks whose i-th is NaN."""
    host = np.array(xp.host(theta))
    host[i] = np.nan
    return xp.asarray(host)


# ---- the states of train


def test_train_yields_a_state_for_each_epoch_when_it_is_advanced(xp: Any) -> None:
    asked: list[int] = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.1

    states = bx.train(*_case(xp), optimizer=bx.SGD(schedule), epochs=2, batch_size=4)
    assert asked == []
    # 11 rows in batches of 4 are three updates an epoch.
    for epoch, state in enumerate(states, start=1):
        assert (state.epoch, state.step, type(state.step)) == (epoch, 3 * epoch, int)
        assert asked == [*range(3 * epoch)]
    assert epoch == 2


@pytest.mark.parametrize("batch_size", [None, 4])
def test_train_and_fit_never_write_to_their_arguments(batch_size: int | None) -> None:
    """NumPy's memory can be made read-only."""
    network = _network(dropout=0.2, l2=0.1)
    theta, (x, y), weight = network.initialize(0, backend="numpy"), _data(), _weights()
    for array in (theta, x, y, weight):
        array.flags.writeable = False
    options: dict[str, Any] = {"batch_size": batch_size, "clip": 0.1, "epochs": 2}
    options |= {"sample_weight": weight, "early_stopping": bx.EarlyStopping()}
    for optimizer in (bx.SGD(0.1, momentum=0.9, nesterov=True), bx.RMSProp(), bx.AdamW()):
        held_out = x, y, weight
        bx.fit(network, theta, x, y, optimizer=optimizer, validation=held_out, **options)


def test_two_trainings_may_advance_in_turn(xp: Any) -> None:
    case, options = _case(xp), {"optimizer": bx.Adam(0.1), "epochs": 3}
    *_, (state, _) = zip(*(bx.train(*case, **options) for _ in range(2)), strict=True)
    xp.assert_equal(state.theta, _trained(xp, *case, **options))


# ---- the loop


def _turned(epoch: int) -> np.ndarray:
    """Return a custom order."""
    return np.roll(np.arange(ROWS)[::-1], epoch)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (lambda epoch: np.arange(ROWS - 1), r"shuffle\(0\) returned int64 of shape \(10,\)"),
        (lambda epoch: np.linspace(0.0, 1.0, ROWS), "returned float64"),
        (lambda epoch: np.minimum(np.arange(ROWS), 9), "returned an order without row 10"),
        (lambda epoch: np.arange(ROWS) - 1, "without row 10"),
    ],
)
def test_a_custom_order_must_have_each_row_once(xp: Any, order: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _fit(xp, shuffle=order, batch_size=4)


def test_two_values_of_l2_are_an_error(xp: Any) -> None:
    with pytest.raises(ValueError, match="l2 and l2_of_sum are two strengths of one penalty"):
        _fit(xp, l2=0.1, l2_of_sum=0.1)


def _batches(xp: Any, arrays: Any, batch_size: int | None, epoch: int, shuffle: Any) -> Any:
    """Return an epoch's batches: all rows in order, or four rows each in the given order."""
    if batch_size != 4:
        return [arrays]
    if shuffle is not _turned:
        return bx.data.minibatches(*arrays, batch_size=4, shuffle=shuffle, seed=5, epoch=epoch)
    parts = [_turned(epoch)[start : start + 4] for start in range(0, ROWS, 4)]
    return [xp.put(*(xp.host(array)[part] for array in arrays)) for part in parts]


# JAX compiles the loop by hand for each of them: its default session has two.
LOOPS = [
    case if case in ((None, True, False), (4, _turned, True)) else long(*case)
    for case in itertools.product((None, 4, 100), (True, False, _turned), (False, True))
]


@pytest.mark.parametrize(("batch_size", "shuffle", "weighted"), LOOPS)
def test_training_equals_a_loop_by_hand(
    xp: Any, batch_size: int | None, shuffle: Any, weighted: bool
) -> None:
    """With a custom order, l2_of_sum is used too."""
    network, theta, x, y = case = _case(xp, dropout=0.3, l2=0.05)
    weight = xp.asarray(_weights())
    optimizer = bx.SGD(0.1, momentum=0.9)
    options: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle, "seed": 5}
    if weighted:
        options["sample_weight"] = weight
    if shuffle is _turned:
        options["l2_of_sum"] = 0.7
    result = _fit(xp, *case, optimizer=optimizer, **options)

    expected, state, step, history = 1.0 * theta, optimizer.initialize(theta), 0, []
    for epoch in range(3):
        losses, shares = [], []
        for part_x, part_y, part_weight in _batches(xp, (x, y, weight), batch_size, epoch, shuffle):
            given = part_weight if weighted else None
            share = float(xp.namespace.sum(part_weight)) if weighted else part_x.shape[0]
            l2 = 0.7 / share if shuffle is _turned else None
            loss, gradient = network.loss_and_gradient(
                expected, part_x, part_y, sample_weight=given, rng=fold_in(5, step), l2=l2
            )
            expected, state = optimizer.update(expected, gradient, state)
            losses.append(float(loss))
            shares.append(share)
            step += 1
        history.append(np.average(losses, weights=shares))
    assert result.optimizer_state.step == step
    xp.assert_close(result.theta, expected)
    xp.assert_close(result.history["loss"], history)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_size", [long(None), 4])
def test_states_and_history_have_thetas_dtype(xp: Any, batch_size: int | None, dtype: str) -> None:
    network = _network(dropout=0.2, l2=0.01)
    x, y, weight = xp.put(*_data(8), _weights(8), dtype=dtype)
    case = network, xp.initialize(network, dtype=dtype), x, y
    options: dict[str, Any] = {
        "optimizer": bx.AdamW(bx.schedules.cosine(0.1, steps=4)),
        "epochs": 2,
        "batch_size": batch_size,
        "sample_weight": weight,
        "validation": (x, y, weight),
        "clip": 0.1,
        "metrics": {"rmse": bx.metrics.rmse},
    }
    for state in bx.train(*case, **options):
        measured = state.loss, state.validation_loss, state.metrics["rmse"]
        for array in (state.theta, *state.optimizer_state[1:], *measured):
            assert array.dtype == getattr(xp.namespace, dtype)
    history = _fit(xp, *case, **options).history
    assert set(history) == {"loss", "validation_loss", "rmse"}
    assert {values.dtype for values in history.values()} == {np.dtype(dtype)}


@pytest.mark.parametrize("kind", ["list", "int64", "bool"])
def test_xor_is_learned_from_lists_integers_and_booleans(xp: Any, kind: str) -> None:
    network = bx.mlp([2, 4, 1], hidden="tanh", loss="binary_cross_entropy")
    given = [*XOR, [1, 1, 1, 1]]
    x, y, w = given if kind == "list" else (xp.asarray(part, dtype=kind) for part in given)
    options: dict[str, Any] = {"optimizer": bx.Adam(0.1), "epochs": 100, "sample_weight": w}
    result = _fit(xp, network, xp.initialize(network), x, y, **options)
    errors = np.abs(xp.host(network.predict(result.theta, x)) - np.array(XOR[1]))
    assert np.max(errors) < 0.1
    assert result.history["loss"][-1] < 0.1 * result.history["loss"][0]


# ---- stacks


@pytest.mark.parametrize("clip", [None, 0.1])
def test_a_network_of_nan_does_not_change_the_others(xp: Any, clip: float | None) -> None:
    network, theta, x, y = _case(xp, STACK, dropout=0.2)
    options = {
        "optimizer": bx.Adam(0.05),
        "clip": clip,
        "batch_size": 4,
        "validation": (x, y),
        "early_stopping": bx.EarlyStopping(patience=2),
        "epochs": 4,
    }
    clean = _fit(xp, network, theta, x, y, **options)
    poisoned = _fit(xp, network, _with_nan(xp, theta, 1), x, y, **options)
    assert poisoned.epochs == clean.epochs
    assert np.all(np.isnan(xp.host(poisoned.theta)[1]))
    assert np.array_equal(xp.host(poisoned.theta)[::2], xp.host(clean.theta)[::2])
    for name, values in poisoned.history.items():
        assert np.all(np.isnan(values[:, 1]))
        assert np.array_equal(values[:, ::2], clean.history[name][:, ::2])


# ---- weights


def test_a_batch_whose_weights_are_all_zero_changes_nothing(xp: Any) -> None:
    network, theta, x, y = case = _case(xp)
    # The second and third batch have weight 0.
    weight = xp.asarray([1.0, 2.0, 0.5, 1.0] + [0.0] * (ROWS - 4))
    first = _fit(xp, network, theta, x[:4, :], y[:4, :], sample_weight=weight[:4], epochs=1)
    options: dict[str, Any] = {"batch_size": 4, "shuffle": False, "epochs": 1}
    all_three = _fit(xp, *case, sample_weight=weight, **options)
    xp.assert_close(all_three.theta, first.theta)
    xp.assert_close(all_three.history["loss"], first.history["loss"])


@pytest.mark.parametrize("all_huge", ["x", "y", ""])
def test_a_batch_without_weight_adds_nothing_whatever_its_rows_and_the_loss(
    xp: Any, all_huge: str
) -> None:
    """A user's loss may have no value at a target of 0, and rows that do not count may overflow."""
    relative = bx.Loss(
        value=lambda o, t: array_namespace(o).sum(((o - t) / t) ** 2, axis=-1),
        gradient=lambda o, t: 2.0 * (o - t) / t**2,
    )
    network = bx.mlp([2, 3, 1], hidden="relu", loss="mean_squared_error" if all_huge else relative)
    x, y = (np.random.default_rng(n).uniform(0.5, 2.0, (4, n)) for n in (2, 1))
    huge = float(np.finfo(xp.dtype).max)
    given = {"x": np.concatenate([x, x]), "y": np.concatenate([y, y])}
    if all_huge:
        given[all_huge][4:] = huge
    theta, weight = xp.initialize(network), xp.asarray([1.0] * 4 + [0.0] * 4)
    options: dict[str, Any] = {"epochs": 2, "shuffle": False, "optimizer": bx.SGD(0.01)}
    with np.errstate(over="ignore", invalid="ignore"):  # in the rows that do not count
        both = bx.fit(
            network,
            theta,
            *map(xp.asarray, given.values()),
            sample_weight=weight,
            batch_size=4,
            **options,
        )
    one = bx.fit(network, theta, xp.asarray(x), xp.asarray(y), **options)
    xp.assert_close(both.theta, one.theta)
    xp.assert_close(both.history["loss"], one.history["loss"])


# ---- clipping


def test_clipping_bounds_each_norm_and_does_not_change_smaller_gradients(xp: Any) -> None:
    gradient = np.array([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [-30.0, 40.0], [0.75, 1.0]])
    clipped = xp.host(clip_norm(xp.asarray(gradient), 1.0))
    xp.assert_close(clipped, [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [-0.6, 0.8], [0.6, 0.8]])
    assert np.array_equal(clipped[1:3], gradient[1:3].astype(xp.dtype))


@pytest.mark.parametrize("size", [1e-30, 1e19, 1e30, 5e37])
@pytest.mark.parametrize("bound", [1e-3, 100.0])
def test_clipping_does_not_overflow_in_float32(xp: Any, size: float, bound: float) -> None:
    """Squares overflow above 1e19; for 100 entries of 5e37 the norm itself overflows."""
    # The norm is 10.
    direction = np.where(np.arange(100) % 3, 1.0, -1.0)
    clipped = clip_norm(xp.asarray(size * direction, dtype="float32"), bound)
    assert clipped.dtype == xp.namespace.float32
    expected = min(size, bound / 10.0) * direction
    # A few roundings of float32's 6e-8.
    np.testing.assert_allclose(xp.host(clipped), expected, rtol=1e-5)


# ---- the results of fit


@pytest.mark.parametrize("stack", [(), (1, STACK)])
def test_a_history_has_an_entry_for_each_epoch_and_network(xp: Any, stack: tuple[int, ...]) -> None:
    case = _case(xp, stack)
    result = _fit(xp, *case, epochs=4, validation=case[2:])
    assert set(result.history) == {"loss", "validation_loss"}
    for values in result.history.values():
        assert isinstance(values, np.ndarray)
        assert values.shape == (4, *stack)
    assert (result.epochs, result.theta.shape) == (4, case[1].shape)


def test_validation_is_measured_after_the_epoch_without_dropout_and_penalty(xp: Any) -> None:
    network, *_ = case = _case(xp, dropout=0.5, l2=0.3)
    x, y, weight = xp.put(*_data(6, seed=34), _weights(6))
    options = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": 4}
    for state in bx.train(*case, validation=(x, y, weight), **options):
        expected = network.loss(state.theta, x, y, sample_weight=weight, rng=None, l2=0.0)
        xp.assert_close(state.validation_loss, expected)


def test_validation_changes_nothing_in_the_training(xp: Any) -> None:
    case, held_out = _case(xp, dropout=0.2), tuple(xp.put(*_data(6, seed=34)))
    without = _trained(xp, *case, batch_size=4)
    xp.assert_equal(without, _trained(xp, *case, batch_size=4, validation=held_out))


def test_callbacks_get_each_state_and_one_that_returns_true_ends_the_training(
    xp: Any,
) -> None:
    """All callbacks run first; one that returns False or None ends nothing."""
    seen: list[tuple[int, int]] = []
    callbacks = [lambda s: s.epoch == 2, lambda s: seen.append((s.epoch, s.step))]
    result = _fit(xp, epochs=10, batch_size=4, callbacks=callbacks)
    assert seen == [(1, 3), (2, 6)]
    assert (result.epochs, result.history["loss"].shape) == (2, (2,))


def test_progress_writes_lines_of_losses_and_metrics_to_stderr(
    xp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    case = _case(xp)
    options: dict[str, Any] = {"validation": case[2:], "metrics": {"my_rmse": bx.metrics.rmse}}
    history = _fit(xp, *case, epochs=2, progress=True, **options).history
    written = capsys.readouterr()
    assert written.out == ""
    said = [
        f"epoch {i + 1}/2  loss {history['loss'][i]:.6g}  my rmse {history['my_rmse'][i]:.6g}"
        f"  validation loss {history['validation_loss'][i]:.6g}"
        for i in range(2)
    ]
    assert written.err.splitlines() == said


def test_the_progress_of_a_resumed_training_counts_from_the_first_start(
    xp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fit writes its own first and last epoch."""
    begun = _fit(xp, epochs=3)
    assert capsys.readouterr() == ("", "")
    _fit(xp, epochs=40, start=begun, progress=True, callbacks=[lambda state: state.epoch == 9])
    epochs = re.findall(r"^epoch +(\d+)/40  loss", capsys.readouterr().err, re.MULTILINE)
    assert epochs == ["4", "8", "9"]


# ---- metrics


def _mean_error(predictions: Any, targets: Any, weights: Any) -> Any:
    """A custom metric with plain operators, which works in every library."""
    each = (predictions - targets)[..., 0]
    if weights is not None:
        each = each * weights
    xp = array_namespace(each)
    return xp.sum(each, axis=-1) / each.shape[-1]


@pytest.mark.parametrize("batch_size", [long(None), 4])
@pytest.mark.parametrize("validated", [True, False])
def test_metrics_are_measured_at_each_epochs_theta(
    xp: Any, validated: bool, batch_size: int | None
) -> None:
    network, _, x, y = case = _case(xp, dropout=0.5)
    held_out = xp.put(*_data(6, seed=34), _weights(6))
    rows = held_out if validated else [x, y, None]
    options: dict[str, Any] = {
        "optimizer": bx.SGD(0.1),
        "epochs": 3,
        "batch_size": batch_size,
        "metrics": {"error": _mean_error, "again": _mean_error},
        "validation": tuple(held_out) if validated else None,
    }
    seen = []
    for state in bx.train(*case, **options):
        expected = _mean_error(network.predict(state.theta, rows[0]), *rows[1:])
        xp.assert_close(state.metrics["error"], expected)
        seen.append(float(state.metrics["error"]))
    history = bx.fit(*case, **options).history
    assert set(history) == {"loss", "error", "again"} | (
        {"validation_loss"} if validated else set()
    )
    xp.assert_close(history["error"], seen)


def test_a_metric_may_return_numpys_number_and_an_error_in_one_names_it(xp: Any) -> None:
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1}
    given = {"number": lambda p, t, w: np.float64(0.25), "array": lambda p, t, w: np.array(0.5)}
    found = bx.fit(*_case(xp), metrics=given, **options).history
    assert (found["number"].tolist(), found["array"].tolist()) == ([0.25], [0.5])
    with pytest.raises(ZeroDivisionError) as caught:
        bx.fit(*_case(xp), metrics={"broken": lambda p, t, w: 1 / 0}, **options)
    assert caught.value.__notes__[0] == "In metrics['broken']."


# ---- results of custom code


@pytest.mark.parametrize("batch_size", [None, 4])
def test_the_backend_gets_the_state_after_each_step(
    monkeypatch: pytest.MonkeyPatch, batch_size: int | None
) -> None:
    """A lazy library then computes it."""
    backend, states = bx.get_backend("numpy"), list[Any]()
    monkeypatch.setattr(type(backend), "after_step", lambda self, state: states.append(state))
    network, x = bx.mlp([2, 1]), np.ones((8, 2))
    theta, metrics = network.initialize(backend=backend), {"rmse": bx.metrics.rmse}
    options: dict[str, Any] = {"optimizer": "adam", "batch_size": batch_size, "metrics": metrics}
    bx.fit(network, theta, x, x[:, :1], epochs=3, **options)
    assert len(states) == (3 if batch_size is None else 6)
    for (after, moments, average), loss, measures in states:
        assert after.shape == theta.shape
        assert moments
        assert average is None
        assert loss.shape == ()
        measured = [{"loss", "rmse"}] if batch_size is None else []
        assert [set(each) for each in measures] == measured


@pytest.mark.parametrize("batch_size", [None, 4, 1])  # with a smaller last batch and without
@pytest.mark.parametrize("part", [slice(None), slice(1)], ids=["one for each output", "a column"])
def test_a_loss_that_is_not_one_number_per_sample_is_an_error(
    xp: Any, part: slice, batch_size: int | None
) -> None:
    known = LOSSES["mean_squared_error"]
    wrong = dataclasses.replace(known, value=lambda o, t: ((o - t) ** 2)[..., part])
    with pytest.raises(
        ValueError, match=r"a loss's value is one number per sample, \(\.\.\., batch"
    ):
        _fit(xp, *_case(xp, loss=wrong), epochs=1, batch_size=batch_size)


def test_an_optimizer_that_returns_another_shape_is_an_error(xp: Any) -> None:
    class Taller:
        def initialize(self, theta: Any) -> tuple[()]:
            return ()

        def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
            return (theta - gradient)[None, ...], state

    with pytest.raises((ValueError, TypeError), match=r"optimizer returned a theta of|carry"):
        bx.fit(*_case(xp), optimizer=Taller(), epochs=1)


# ---- options


@pytest.mark.parametrize("function", [bx.fit, bx.train])
def test_the_options_are_parameters_of_the_signature(function: Any) -> None:
    parameters = inspect.signature(function).parameters
    assert {"optimizer", "epochs", "batch_size", "start", "early_stopping"} <= set(parameters)
    assert parameters["batch_size"].default is None
    assert ("callbacks" in parameters) == (function is bx.fit)
    required = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY][:3]
    assert required == ["optimizer", "epochs", "batch_size"]
    help_text = inspect.getdoc(function) or ""
    shown = [help_text.find(f"- ``{name}``") for name in parameters]
    places = [place for place in shown if place >= 0]
    assert places == sorted(places)
    assert len(places) > 15


@pytest.mark.parametrize("function", [bx.fit, bx.train])
def test_an_unknown_option_is_an_error_with_the_nearest_name(xp: Any, function: Any) -> None:
    name, options = function.__name__, {"optimizer": bx.SGD(0.1), "epochs": 1}
    with pytest.raises(TypeError, match=f"{name} has no option 'batchsize'. Did you mean 'batch_s"):
        function(*_case(xp), batchsize=4, **options)
    hint = "Did you mean 'callbacks'" if function is bx.fit else "Known: optimizer"
    with pytest.raises(TypeError, match=f"{name} has no option 'callback'. {hint}"):
        function(*_case(xp), callback=print, **options)
    for missing, given in (("optimizer", "epochs"), ("epochs", "optimizer")):
        with pytest.raises(TypeError, match=f"{name} needs {missing}=, such as {missing}="):
            function(*_case(xp), **{given: options[given]})


# ---- names, and the training set's own measures


def _measures(xp: Any, **options: Any) -> Any:
    """Return a network of classes, its data, and the result of training it with options."""
    generator = np.random.default_rng(3)
    network = bx.mlp([3, 4, 3], hidden="tanh", loss="categorical_cross_entropy")
    x, y = generator.normal(size=(20, 3)), np.arange(20) % 3
    rows = xp.asarray(x), xp.asarray(y, dtype="int32")
    theta = xp.initialize(network)
    options = {"optimizer": "adam", "epochs": 3, **options}
    return network, theta, *rows, bx.fit(network, theta, *rows, **options)


def test_an_optimizer_and_metrics_go_by_their_names(xp: Any) -> None:
    *case, named = _measures(xp, metrics=["accuracy", bx.metrics.roc_auc, bx.metrics.top_k(2)])
    functions = {"accuracy": "accuracy", "roc_auc": bx.metrics.roc_auc}
    result = bx.fit(*case, optimizer=bx.Adam(), epochs=3, metrics=functions)
    assert [*named.history] == ["loss", "accuracy", "roc_auc", "top_2"]
    xp.assert_equal(named.theta, result.theta)
    for name in functions:
        xp.assert_equal(named.history[name], result.history[name])


@pytest.mark.parametrize("batch_size", [long(None), 6])
@pytest.mark.parametrize("validates", [long(False), True])
def test_the_history_has_the_training_sets_measures_if_asked(
    xp: Any, batch_size: int | None, validates: bool
) -> None:
    part = (xp.asarray(np.ones((4, 3))), xp.asarray([0, 1, 2, 0], dtype="int32"))
    options: dict[str, Any] = {"batch_size": batch_size, "metrics": ["accuracy"]}
    options |= {"validation": part if validates else None, "train_metrics": True}
    network, _, x, y, result = _measures(xp, l2_of_sum=0.3, **options)
    assert {*result.history} - {"loss", "accuracy"} == {"training_loss", "training_accuracy"} | (
        {"validation_loss"} if validates else set()
    )
    expected = network.loss(result.theta, x, y, l2=0.3 / x.shape[0])
    xp.assert_close(result.history["training_loss"][-1], expected, 1e-12)
    accuracy = bx.metrics.accuracy(network.predict(result.theta, x), y)
    xp.assert_close(result.history["training_accuracy"][-1], accuracy, 1e-12)
    judged = part if validates else (x, y)
    accuracy = bx.metrics.accuracy(network.predict(result.theta, judged[0]), judged[1])
    xp.assert_close(result.history["accuracy"][-1], accuracy, 1e-12)
    assert {"training_loss", "training_accuracy"} <= {*result.state.metrics}


@pytest.mark.parametrize("watch", ["loss", "training_loss", "training_accuracy"])
@pytest.mark.parametrize("validates", [long(False), True])
def test_the_history_has_what_a_rule_watches(xp: Any, watch: str, validates: bool) -> None:
    part = (xp.asarray(np.ones((4, 3))), xp.asarray([0, 1, 2, 0], dtype="int32"))
    mode: Any = "max" if watch.endswith("accuracy") else "min"
    options: dict[str, Any] = {"validation": part if validates else None, "metrics": ["accuracy"]}
    options |= {"optimizer": bx.Adam(0.3), "epochs": 12, "batch_size": 6}
    rule, plateau = bx.EarlyStopping(3, watch=watch, mode=mode), bx.Plateau(watch=watch, mode=mode)
    network, _, x, y, result = _measures(xp, early_stopping=rule, plateau=plateau, **options)
    best, sign = result.state.best, {"max": -1.0, "min": 1.0}[mode]
    assert sign * best.score == sign * np.min(sign * result.history[watch])
    assert int(best.epoch) == int(np.argmin(sign * result.history[watch])) + 1
    assert result.state.slowed.score == best.score
    assert {*result.history} == {"loss", "accuracy", watch} | (
        {"validation_loss"} if validates else set()
    )
    if watch == "loss":  # measured before the updates
        return
    found = network.loss(result.theta, x, y)
    if mode == "max":
        found = bx.metrics.accuracy(network.predict(result.theta, x), y)
    xp.assert_close(sign * best.score, found, 1e-12)


# ---- a share of the rows


LABELS = np.repeat([0, 1, 2], [30, 15, 5])
# Targets, and the classes of which each has the share; values have none.
TARGETS: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
    "labels": (LABELS, LABELS),
    "one-hot": (np.eye(3)[LABELS], LABELS),
    "column": ((LABELS == 0)[:, None] * 1.0, LABELS == 0),
    "values": ((LABELS == 0)[:, None] * 1.0, None),
}
LOSS_OF = {"column": "binary_cross_entropy", "values": "huber"}


def _share_of(form: str, seed: int) -> dict[str, np.ndarray]:
    """Return the indices of the rows that train and of the fifth that validates."""
    return split_rows(50, {"validation": 0.2}, seed, classes=TARGETS[form][1])


def _trained_on_a_share(xp: Any, form: str) -> Callable[..., Any]:
    """Return a training: given rows ``(training, validation)``, of these, else of a share of all.

    Rows have weights, so that one that is taken with another's weight shows.
    """
    loss = LOSS_OF.get(form, "categorical_cross_entropy")
    network, draw = bx.mlp([2, 1 if form in LOSS_OF else 3], loss=loss), np.random.default_rng(3)
    theta = xp.initialize(network)
    x, weight, y = draw.normal(size=(50, 2)), draw.uniform(0.5, 1.0, 50), TARGETS[form][0]
    dtype = "int32" if form == "labels" else "working"

    def put(rows: Any) -> tuple[Any, Any, Any]:
        return xp.asarray(x[rows]), xp.asarray(y[rows], dtype=dtype), xp.asarray(weight[rows])

    def train(*rows: np.ndarray, **options: Any) -> Any:
        *data, weights = put(rows[0] if rows else slice(None))
        validation = put(rows[1]) if rows else 0.2
        options = {"optimizer": bx.SGD(0.1), "epochs": 2, "batch_size": 16, **options}
        return bx.fit(
            network, theta, *data, sample_weight=weights, validation=validation, **options
        )

    return train


@pytest.mark.once
@pytest.mark.parametrize("form", TARGETS)
def test_a_share_has_each_row_once_each_class_by_its_share_and_follows_the_seed(form: str) -> None:
    shares = [_share_of(form, seed) for seed in (0, 1)]
    for drawn in shares:
        assert sorted([*drawn["training"], *drawn["validation"]]) == [*range(50)]
        counts = np.bincount(LABELS[drawn["validation"]]).tolist()
        if form == "column":  # class 0 against the others
            assert counts[0] == 6
        elif form != "values":
            assert counts == [6, 3, 1]
    assert not np.array_equal(*(drawn["validation"] for drawn in shares))


every_form = pytest.mark.parametrize(
    "form", ["labels", *map(long, ["one-hot", "column", "values"])]
)


@every_form
def test_a_share_of_the_rows_validates_as_these_rows_given_would(xp: Any, form: str) -> None:
    train = _trained_on_a_share(xp, form)
    for seed in (0, 1):
        rows = _share_of(form, seed)
        result = train(seed=seed)
        expected = train(rows["training"], rows["validation"], seed=seed)
        xp.assert_equal(result.theta, expected.theta)
        for name in ("loss", "validation_loss"):
            xp.assert_equal(result.history[name], expected.history[name])


@every_form
def test_a_resumed_training_validates_on_the_same_share(xp: Any, form: str) -> None:
    train = _trained_on_a_share(xp, form)
    for seed in (0, 1):
        whole = train(seed=seed)
        resumed = train(seed=seed, start=train(seed=seed, epochs=1))
        xp.assert_equal(resumed.theta, whole.theta)
        xp.assert_equal(resumed.history["validation_loss"], whole.history["validation_loss"])


def test_a_share_of_the_rows_of_a_stack_is_taken_from_each(xp: Any) -> None:
    network, generator = bx.mlp([2, 1]), np.random.default_rng(3)
    theta = xp.initialize(network, stack=2)
    x, y = xp.asarray(generator.normal(size=(2, 12, 2))), xp.asarray(generator.normal(size=(12, 1)))
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "validation": 0.25}
    both = bx.fit(network, theta, x, y, **options)
    for i in range(2):
        one = bx.fit(network, theta[i, :], x[i, ...], y, **options)
        xp.assert_close(both.history["validation_loss"][:, i], one.history["validation_loss"])


# ---- what is refused, when train is called: before the first epoch


def _refuses(xp: Any, error: Any, message: str, **changes: Any) -> None:
    """Assert that ``train`` raises at the call, not at the first epoch."""
    network, theta, x, y = _case(xp, changes.pop("stack", ()))
    arguments = {"theta": theta, "x": x, "y": y, "optimizer": bx.SGD(0.1), "epochs": 1, **changes}
    data = [arguments.pop(name) for name in ("theta", "x", "y")]
    with pytest.raises(error, match=message):
        bx.train(arguments.pop("network", network), *data, **arguments)


def _holding(xp: Any, value: float, *indices: tuple[int, ...], shape: Any = (ROWS, N_OUT)) -> Any:
    """Return ones, with a value at some indices."""
    array = np.ones(shape)
    for index in indices:
        array[index] = value
    return xp.asarray(array)


# Indices in an array of ones; a check of widths might compute with all of the first row.
NOT_FINITE: list[tuple[str, list[tuple[int, ...]]]] = [
    ("x", [(0, 0)]),
    ("x", [(ROWS - 1, N_IN - 1)]),
    ("y", [(4, 1)]),
    ("sample_weight", [(4,)]),
    ("x", [(3, 1), (5, 0), (5, 2)]),
    ("x", [(0, 0), (0, 1), (0, 2)]),
]


# NaN in one of several columns of y is a value that was not measured.
@pytest.mark.parametrize(
    ("name", "indices", "bad"),
    [
        (*case, bad)
        for case, bad in itertools.product(NOT_FINITE, (math.nan, math.inf, -math.inf))
        if not (case[0] == "y" and math.isnan(bad))
    ],
)
def test_a_value_that_is_not_finite_is_an_error_with_its_index(
    xp: Any, name: str, indices: list[tuple[int, ...]], bad: float
) -> None:
    shapes = {"x": (ROWS, N_IN), "y": (ROWS, N_OUT), "sample_weight": (ROWS,)}
    given = {
        key: _holding(xp, bad, *(indices if key == name else []), shape=shape)
        for key, shape in shapes.items()
    }
    said = "1 value that is" if len(indices) == 1 else f"{len(indices)} values that are"
    first = "" if len(indices) == 1 else "the first "
    said = re.escape(f"{name} has {said} not finite, {first}{bad} at {name}{[*indices[0]]}.")
    _refuses(xp, ValueError, f"^{said}", **given)
    _refuses(xp, ValueError, f"^In validation: {said}", validation=[*given.values()])


def test_a_stacked_x_that_is_not_finite_is_an_error_with_its_index(xp: Any) -> None:
    x = _holding(xp, math.nan, (1, 3, 2), shape=(2, ROWS, N_IN))
    _refuses(xp, ValueError, r"nan at x\[1, 3, 2\]", stack=2, x=x)


@pytest.mark.parametrize("stack", [(), (2,)])
def test_a_weight_of_an_entry_that_is_not_finite_is_an_error_with_its_index(
    xp: Any, stack: tuple[int, ...]
) -> None:
    index = (*(1 for _ in stack), 3, 1)
    weight = _holding(xp, math.nan, index, shape=(*stack, ROWS, N_OUT))
    said = re.escape(f"1 value that is not finite, nan at sample_weight{[*index]}.")
    _refuses(xp, ValueError, f"^sample_weight has {said}", stack=stack, sample_weight=weight)


@pytest.mark.float64
@pytest.mark.filterwarnings("ignore:overflow")
def test_weights_of_entries_whose_sum_overflows_are_too_large(xp: Any) -> None:
    weight = _holding(xp, 1.7e308, (3, 0), (3, 1), shape=(ROWS, N_OUT))
    _refuses(xp, ValueError, "^sample_weight sums to .* too large for", sample_weight=weight)


OWN = bx.Loss(bx.losses.poisson.value, bx.losses.poisson.gradient)
BINARY = "binary_cross_entropy"
NOT_MEANT: list[tuple[Any, float, list[tuple[int, ...]], str]] = [
    (BINARY, 2.0, [(4, 1)], r"1 value that is not in \[0, 1\], 2.0 at y\[4, 1\]\. Such targets"),
    (BINARY, -1.0, [(4, 1)], r"1 value that is not in \[0, 1\], -1.0 at y\[4, 1\]\. Such targets"),
    (BINARY, 7.0, [(3, 0), (5, 0), (5, 1)], r"3 values that are .*, the first 7.0 at y\[3, 0\]"),
    ("categorical_cross_entropy", -1.0, [(4, 1)], r"1 value that is not in \[0, inf\]"),
    (
        "poisson",
        -1.0,
        [(4, 1)],
        r"1 value that is not in \[0, inf\].* not valid for poisson",
    ),
    (
        dataclasses.replace(OWN, targets=(0.0, 5.0)),
        -1.0,
        [(4, 1)],
        r"1 value that is not in \[0, 5\], -1\.0 at y\[4, 1\]\. .* for this loss",
    ),
]


@pytest.mark.parametrize(("loss", "value", "indices", "said"), NOT_MEANT)
def test_a_target_outside_the_losss_range_is_an_error_with_its_index(
    xp: Any, loss: Any, value: float, indices: list[tuple[int, ...]], said: str
) -> None:
    network, wrong = _network(loss=loss), _holding(xp, value, *indices)
    x, y = xp.asarray(_data()[0]), _holding(xp, 1.0)
    _refuses(xp, ValueError, f"^y has {said}", network=network, y=wrong)
    said = f"^In validation: y has {said}"
    _refuses(xp, ValueError, said, network=network, y=y, validation=(x, wrong))


@pytest.mark.parametrize("loss", [*LOSSES, OWN])
def test_targets_at_the_bounds_of_the_losss_range_are_accepted(xp: Any, loss: Any) -> None:
    """A loss without bounds accepts any number; a bound may be rounded to float32."""
    network, theta, x, _ = _case(xp, loss=loss)
    low, high = network.loss_function.targets
    pairs = [(max(low, -1e3), min(high, 1e3))] + [(1.0 + 2.0**-22, -1e-9)] * (loss == BINARY)
    for pair in pairs:
        y = np.tile(pair, (ROWS, 1))[:, : N_OUT // network.loss_function.outputs_per_target]
        y = xp.asarray(y)
        assert np.all(np.isfinite(_trained(xp, network, theta, x, y, optimizer=bx.SGD(1e-6))))


SHAPES: list[tuple[str, Callable[[], Any], str]] = [
    ("x", lambda: np.ones((ROWS, N_IN + 1)), "x has 4 features .*first layer expects 3"),
    ("x", lambda: np.ones((0, N_IN)), "x has no rows"),
    ("x", lambda: np.ones((ROWS - 1, N_IN)), r"y has shape \(11, 2\), but the outputs are .* 10"),
    ("y", lambda: np.ones((ROWS, N_OUT + 1)), r"y has shape \(11, 3\), .* \(\.\.\., 11, 2\)"),
    ("y", lambda: np.zeros((ROWS,)), r"one-hot: y = bx\.data\.one_hot\(y\)"),
    ("sample_weight", lambda: np.ones(ROWS - 1), r"sample_weight has shape \(10,\).* 11 rows"),
    ("sample_weight", lambda: np.ones((2, ROWS)), r"sample_weight is stacked \(2,\)"),
    ("theta", lambda: np.ones(5), r"theta has shape \(5,\), but this network's is \(\.\.\., 32\)"),
    ("l2", lambda: np.ones(3), r"l2 is stacked \(3,\)"),
]


@pytest.mark.parametrize(("name", "make", "message"), SHAPES)
def test_an_invalid_argument_is_an_error(
    xp: Any, name: str, make: Callable[[], Any], message: str
) -> None:
    _refuses(xp, ValueError, message, **{name: xp.asarray(make())})


@pytest.mark.parametrize(
    ("loss", "y", "message"),
    [
        (
            "categorical_cross_entropy",
            np.ones((ROWS, 1)),
            "1 output, but .* needs 2 or more.*use b",
        ),
        ("mean_squared_error", np.ones(ROWS), r"column: y\[:, None\]"),
    ],
)
def test_flat_targets_of_a_network_of_one_output_are_an_error_with_the_way_out(
    xp: Any, loss: str, y: Any, message: str
) -> None:
    network = bx.mlp([N_IN, 1], loss=loss)
    theta, y = xp.initialize(network), xp.asarray(y)
    _refuses(xp, ValueError, message, network=network, theta=theta, y=y)


@pytest.mark.parametrize("shape", [(ROWS,), (ROWS, 1)], ids=["flat", "column"])
def test_the_way_out_for_class_labels_works(xp: Any, shape: tuple[int, ...]) -> None:
    """Run the line that the message suggests."""
    network, theta, x, _ = _case(xp, loss="binary_cross_entropy")
    y = xp.asarray(np.reshape([0, 1] * 5 + [0], shape), dtype=None)
    with pytest.raises(ValueError, match="one-hot") as error:
        _fit(xp, network, theta, x, y)
    repair = re.search(r"y = (bx\..*?)\.?$", str(error.value))
    assert repair is not None
    y = eval(repair.group(1), {"bx": bx, "y": y})  # noqa: S307 -- our own message
    assert np.all(np.isfinite(_trained(xp, network, theta, x, y)))


@pytest.mark.parametrize(
    "weights",
    [[-1.0] + [1.0] * (ROWS - 1), [0.0] * ROWS, [[1.0] * ROWS, [0.0] * ROWS]],
    ids=["negative", "all 0", "a member's all 0"],
)
def test_negative_weights_or_only_zeros_are_an_error(xp: Any, weights: list[Any]) -> None:
    message, (*_, x, y) = "sample_weight must not be negative, and not all 0", _case(xp)
    _refuses(xp, ValueError, f"^{message}", stack=2, sample_weight=weights)
    _refuses(xp, ValueError, f"^In validation: {message}", stack=2, validation=(x, y, weights))


@pytest.mark.parametrize("name", ["training", "validation"])
def test_a_part_of_the_rows_that_weighs_nothing_is_an_error(xp: Any, name: str) -> None:
    """Its loss would be 0, which early stopping would keep."""
    message, others = f"^The {name} rows all have the weight 0", {"training", "validation"} - {name}
    counted = split_rows(ROWS, {"validation": 0.3}, 0)[others.pop()]
    weight = np.isin(np.arange(ROWS), counted) * 1.0
    _refuses(xp, ValueError, message, sample_weight=weight.tolist(), validation=0.3)
    # Of the first network alone: the second one has other validation rows.
    own = np.isin(np.arange(ROWS), [1, 2]) == (name == "training")
    at = xp.asarray([[1, 2], [2, 3]], dtype="int32")
    _refuses(xp, ValueError, message, stack=2, sample_weight=(own * 1.0).tolist(), validation=at)
    # By the weights of their classes.
    network, (*_, x, _) = _network(loss="categorical_cross_entropy"), _case(xp)
    first, both = (xp.asarray(np.arange(ROWS) % n, dtype="int32") for n in (1, 2))
    y, own = (first, both) if name == "training" else (both, first)
    options = {"network": network, "y": y, "validation": (x, own)}
    _refuses(xp, ValueError, message, class_weight={0: 0.0}, **options)


@pytest.mark.parametrize("size", [2e38, 1e37])
def test_weights_that_are_too_large_are_an_error(xp: Any, size: float) -> None:
    """Each weight is finite, but the sum of 11 is not, or XLA flushes its inverse to 0."""
    network, (x, y) = _network(), xp.put(*_data(), dtype="float32")
    theta = xp.initialize(network, dtype="float32")

    def weights(size: float) -> Any:
        return xp.asarray(np.full(ROWS, size), dtype="float32")

    said = r"sample_weight sums to 8\.5e\+37 or more, too large for float32.* by their largest"
    options = {"network": network, "theta": theta, "x": x, "y": y}
    _refuses(xp, ValueError, f"^{said}", sample_weight=weights(size), **options)
    _refuses(xp, ValueError, f"^In validation: {said}", validation=(x, y, weights(size)), **options)
    less = _fit(xp, network, theta, x, y, sample_weight=weights(5e36)).history["loss"]
    np.testing.assert_allclose(less, _fit(xp, network, theta, x, y).history["loss"], rtol=1e-5)


OPTIONS: list[tuple[dict[str, Any], Any, str]] = [
    ({"epochs": 0}, ValueError, "epochs must be an integer of at least 1, not 0"),
    ({"epochs": 2.5}, TypeError, r"epochs must be an integer of at least 1, not 2\.5"),
    ({"batch_size": 0}, ValueError, "batch_size must be an integer of at least 1, not 0"),
    ({"batch_size": 2.5}, TypeError, r"batch_size must be an integer of at least 1, not 2\.5"),
    ({"seed": -1}, ValueError, "seed must be an integer of at least 0, not -1"),
    ({"seed": 0.5}, TypeError, "seed must be an integer of at least 0"),
    ({"clip": 0.0}, ValueError, "clip must be > 0, not 0"),
    ({"clip": "1"}, TypeError, "clip must be a number"),
    ({"optimizer": "adan"}, ValueError, "optimizer 'adan' is unknown. Did you mean 'adam'"),
    ({"optimizer": "sgd"}, ValueError, r"SGD has no default learning rate: give .*bx\.SGD"),
    ({"optimizer": None}, TypeError, r"optimizer must be .* bx\.Adam\(\), not None"),
    ({"optimizer": bx.Adam}, TypeError, r"optimizer must be .* bx\.Adam\(\), not <class"),
    ({"optimizer": bx.schedules}, TypeError, r"needs the methods initialize, and update"),
    ({"validation": ([[1.0] * N_IN],)}, ValueError, r"validation must be \(x, y\), .* not 1"),
    ({"validation": [1, 2, 3, 4]}, ValueError, r"validation must be \(x, y\), .* not 4 items"),
    ({"validation": "0.2"}, TypeError, r"validation must be \(x, y\), .* or an array"),
    ({"validation": 1.0}, ValueError, "validation must be > 0 and < 1, not 1"),
    ({"validation": True}, TypeError, "validation must be a number, not True"),
    ({"validation": 0.99}, ValueError, "11 rows cannot be split .* a validation share of 0.99"),
    ({"validation": ([[1.0] * 4], [[1.0] * 2])}, ValueError, "validation: x has 4 features"),
    ({"validation": ([[1.0] * 3], [[1.0]] * 2)}, ValueError, r"validation: y has shape \(2, 1\)"),
    ({"early_stopping": 5}, TypeError, r"early_stopping must be .*bx\.EarlyStopping\("),
    (
        {"early_stopping": bx.EarlyStopping(watch="acuracy"), "metrics": {"accuracy": len}},
        ValueError,
        "early_stopping watches 'acuracy'. Did you mean 'accuracy'. Known: loss, accuracy",
    ),
    ({"metrics": "accuracy"}, TypeError, r"metrics must be a list such as \[.*not 'accuracy'"),
    ({"metrics": ["acuracy"]}, ValueError, r"metrics\[0\] 'acuracy' is unknown. Did you mean 'acc"),
    ({"metrics": [lambda *a: 0.0]}, TypeError, "has no name: give a mapping"),
    ({"metrics": {"accuracy": 1.0}}, TypeError, r"metrics\['accuracy'\] must be a name or a func"),
    ({"metrics": {1: len}}, TypeError, r"metrics must have strings as names, not \[1\]"),
    ({"metrics": {"training_r2": len}}, ValueError, "metrics cannot be named 'training_r2'"),
    ({"train_metrics": 1}, TypeError, "train_metrics must be True or False, not 1"),
    ({"metrics": {"loss": len}}, ValueError, "metrics cannot be named 'loss'"),
    (
        {"optimizer": bx.LBFGS(), "network": _network(dropout=0.1)},
        ValueError,
        "LBFGS .* does not take a network with dropout",
    ),
    ({"l2": -1.0}, ValueError, "l2 must be >= 0, not -1"),
    ({"shuffle": "no"}, TypeError, "shuffle must be True or False, not 'no'"),
    ({"shuffle": None}, TypeError, "shuffle must be True or False, not None"),
    ({"shuffle": 0}, TypeError, "shuffle must be True or False, not 0"),
    ({"l2": [[0.1, 0.2]]}, (TypeError, ValueError), "l2"),
    ({"early_stopping": 5}, TypeError, r"early_stopping must be an object like bx\.EarlyStopping"),
    ({"plateau": 5}, TypeError, r"plateau must be an object like bx\.Plateau\(\), not 5"),
]


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS)
def test_an_impossible_option_is_an_error_that_names_it(
    xp: Any, options: dict[str, Any], error: Any, message: str
) -> None:
    _refuses(xp, error, message, **options)


def test_a_split_that_is_no_name_is_an_error(xp: Any) -> None:
    with pytest.raises(TypeError, match="split must be one of rows, stack, not 3"):
        bx.fit(*_case(xp), optimizer=bx.SGD(0.1), epochs=1, split=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf])
def test_an_l2_array_with_an_impossible_entry_is_an_error(xp: Any, wrong: float) -> None:
    l2 = xp.asarray([0.1, wrong, 0.1])
    _refuses(xp, ValueError, r"^l2\[1\] must be ", stack=STACK, l2=l2)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"callbacks": print}, TypeError, "callbacks must be "),
        (
            {"callbacks": [lambda s: None, lambda s: s.loss < 1.0]},
            ValueError,
            r"^callbacks\[1\] returned an array of shape \(3,\), but True.* all or any",
        ),
        ({"callbacks": [lambda s: s.loss[:0] < 1.0]}, ValueError, r"an array of shape \(0,\)"),
        (
            {"callbacks": [lambda s: "a line"]},
            TypeError,
            r"callbacks\[0\] returned 'a line' \(str\)",
        ),
        (
            {"callbacks": [lambda s: 12]},
            TypeError,
            "12 .int., but True, which ends .* returns None",
        ),
        ({"callbacks": [lambda s: 0]}, TypeError, r"callbacks\[0\] returned 0"),
        ({"callbacks": [lambda s: [True]]}, TypeError, r"returned \[True\]"),
        ({"callbacks": [lambda s: s.loss[0]]}, TypeError, "but True, which ends the training"),
        (
            {"metrics": {"wrong": lambda predictions, targets, weights: predictions}},
            ValueError,
            r"metrics\['wrong'\] returned an array of shape \(3, 11, 2\)",
        ),
    ],
)
def test_an_impossible_result_of_custom_code_is_an_error_that_names_it(
    xp: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _fit(xp, *_case(xp, STACK), **options)


@pytest.mark.parametrize("bound", [math.inf, 0.0])
def test_a_callback_may_end_the_training_by_a_comparison_of_losses(xp: Any, bound: float) -> None:
    for answer in (lambda s: xp.namespace.all(s.loss < bound), lambda s: np.bool_(bound > 0.0)):
        assert _fit(xp, callbacks=[answer]).epochs == (1 if bound else 3)


@pytest.mark.float64
@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_another_precision_is_an_error_with_the_cast_that_repairs_it(xp: Any, name: str) -> None:
    shapes = {"x": (ROWS, N_IN), "y": (ROWS, N_OUT), "sample_weight": (ROWS,)}
    array = xp.asarray(np.ones(shapes[name]), dtype="float32")
    message = (
        rf"{name} is .*float32, but theta is .*float64.*{name} = bx\.asarray\({name}, .*dtype='"
    )
    _refuses(xp, TypeError, message, **{name: array})


def test_a_complex_theta_is_an_error(xp: Any) -> None:
    theta = xp.asarray(xp.host(_case(xp)[1]), dtype=xp.complex_dtype)
    _refuses(xp, TypeError, f"theta is .*{xp.complex_dtype}, but only real", theta=theta)


def test_a_stack_of_no_networks_is_an_error(xp: Any) -> None:
    network, theta, x, y = _case(xp, 2)
    with pytest.raises(ValueError, match=r"theta has shape \(0, 32\), .* at least one member"):
        _fit(xp, network, theta[:0, ...], x, y, optimizer=bx.Adam())


@pytest.mark.once
def test_measures_on_the_host_do_not_keep_the_longer_arrays_they_come_from() -> None:
    longer = np.arange(1024.0)
    found = on_host([(2, {"loss": longer})])["loss"]
    np.testing.assert_array_equal(found, longer[:2])
    assert not np.shares_memory(found, longer)
