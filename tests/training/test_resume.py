"""A resumed training equals the uninterrupted one, bit for bit.

Specifies ``loop``, ``history``, ``interrupt`` and ``states``.
"""

import contextlib
import copy
import itertools
import pickle
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import atomic_files
from backprop_xp.training.epochs.loop import run_epochs
from backprop_xp.training.epochs.set_up import prepare
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.optimizers.pytrees import mapped
from backprop_xp.training.processes.one_process import OneProcess
from tests.helpers import long
from tests.user_layers import PassThrough

pytestmark = pytest.mark.long

ROWS, BATCH, EPOCHS, STACK = 11, 4, 5, 3  # three updates an epoch, the last of three rows
# Compiled loops of another length may round differently.
COMPILED = 1e-12

generator = np.random.default_rng(5)
X, Y = generator.normal(size=(ROWS, 3)), generator.uniform(0.1, 0.9, size=(ROWS, 2))
WEIGHT = generator.uniform(0.5, 2.0, size=ROWS)

OPTIMIZERS = {
    "SGD": lambda: bx.SGD(bx.schedules.exponential(0.2, 0.9)),
    "momentum": lambda: bx.SGD(0.1, momentum=0.9, nesterov=True),
    "RMSProp": lambda: bx.RMSProp(bx.schedules.warmup(0.05, 4)),
    "Adam": lambda: bx.Adam(bx.schedules.cosine(0.05, 12)),
    "AdamW": lambda: bx.AdamW(bx.schedules.chain([0.05, 0.01], [5])),
    "AMSGrad": lambda: bx.Adam(0.05, beta2=0.5, amsgrad=True),
    "Adagrad": lambda: bx.Adagrad(0.05),
    "Nadam": lambda: bx.Nadam(bx.schedules.warmup(0.05, 4)),
    "Lion": lambda: bx.Lion(0.01, weight_decay=0.1),
}


ADAM: dict[str, Any] = {"optimizer": bx.Adam(0.05), "batch_size": BATCH}


def _network(**options: Any) -> bx.Network:
    return bx.mlp([3, 5, 2], **{"hidden": "tanh", "dropout": 0.3, "l2": 0.01, **options})


def _case(xp: Any, stack: Any = ()) -> tuple[Any, ...]:
    network = _network()
    return network, xp.initialize(network, stack=stack), xp.asarray(X), xp.asarray(Y)


def _compiles(xp: Any) -> bool:
    return xp.selection.backend.loop(lambda carry, given: (carry, None)) is not None


def _same(xp: Any, one: Any, other: Any) -> None:
    """Compare pytrees of arrays: to the bit, or to rounding if a compiled loop was cut."""

    def compare(a: Any, b: Any) -> None:
        if _compiles(xp) and xp.host(a).dtype.kind == "f":
            xp.assert_close(a, b, COMPILED)
        else:
            xp.assert_equal(a, b)

    mapped(compare, one, other)


def _compare(xp: Any, whole: Any, resumed: Any, begun: Any) -> None:
    """Compare a training with one resumed from a result, or after some epochs."""
    _same(xp, whole.theta, resumed.theta)
    _same(xp, whole.optimizer_state, resumed.optimizer_state)
    assert whole.epochs == resumed.epochs
    epochs = getattr(begun, "epochs", begun)
    for name, values in whole.history.items():
        _same(xp, values[epochs:], resumed.history[name][epochs:])
        if begun is not epochs:
            _same(xp, values, resumed.history[name])
            _same(xp, values[:epochs], begun.history[name])


@pytest.mark.parametrize(
    ("name", "batch_size", "stack"),
    [long(name, BATCH, ()) for name in OPTIMIZERS if name != "momentum"]
    + [("momentum", BATCH, ())]
    + [
        pytest.param(name, None, STACK, marks=[] if name == "Adam" else pytest.mark.thorough)
        for name in OPTIMIZERS
    ],
)
def test_a_training_resumed_after_any_epoch_equals_the_uninterrupted_one(
    xp: Any, name: str, batch_size: int | None, stack: Any
) -> None:
    case, optimizer = _case(xp, stack), OPTIMIZERS[name]()
    options: dict[str, Any] = {
        "optimizer": optimizer,
        "batch_size": batch_size,
        "sample_weight": xp.asarray(WEIGHT),
        "validation": (xp.asarray(X[:4]), xp.asarray(Y[:4])),
        "clip": 0.5,
        "seed": 3,
    }
    whole = bx.fit(*case, epochs=EPOCHS, **options)
    for epochs in (1, 2, EPOCHS - 1):
        begun = bx.fit(*case, epochs=epochs, **options)
        _compare(xp, whole, bx.fit(*case, epochs=EPOCHS, start=begun, **options), begun)


@pytest.mark.parametrize("stack", [(), STACK])
def test_a_resumed_training_keeps_the_state_of_early_stopping(xp: Any, stack: Any) -> None:
    """The rate is so large that the losses rise and fall."""
    case = _case(xp, stack)
    options: dict[str, Any] = {
        "optimizer": bx.SGD(0.6, momentum=0.5),
        "batch_size": BATCH,
        "validation": (xp.asarray(X[:4]), xp.asarray(Y[:4])),
        "early_stopping": bx.EarlyStopping(patience=4),
        "epochs": 30,
    }
    whole = bx.fit(*case, **options)
    assert 5 < whole.epochs < 30
    # The last network to improve ends the training.
    best: Any = whole.state.best
    assert whole.epochs - best.epoch.max() == 4
    assert not stack or best.epoch.min() < best.epoch.max()
    for stop in (1, 4, whole.epochs - 2, whole.epochs - 1):
        begun = bx.fit(*case, **options, callbacks=[lambda s, stop=stop: s.epoch == stop])
        assert begun.epochs == stop
        _compare(xp, whole, bx.fit(*case, start=begun, **options), begun)
    # Without early stopping the last theta counts, whatever was the best before.
    last = bx.fit(*case, start=begun, **{**options, "epochs": stop + 1, "early_stopping": None})
    _same(xp, last.theta, last.state.theta)


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_an_epoch_takes_the_lowered_rate_and_keeps_the_average_of_the_best(
    xp: Any, batch_size: int | None
) -> None:
    network, size = _network(dropout=0.0), batch_size or ROWS
    case = network, xp.initialize(network, stack=STACK), xp.asarray(X), xp.asarray(Y)
    options: dict[str, Any] = {
        "optimizer": bx.SGD(1.5),
        "batch_size": batch_size,
        "plateau": bx.Plateau(0.25, patience=1),
        "average": bx.EMA(0.7),
        "shuffle": False,
        "epochs": 8,
    }
    thetas, averages, factors = [xp.host(case[1])], [], [np.ones(STACK)]

    def keep(state: bx.TrainingState) -> None:
        slowed: Any = state.slowed
        thetas.append(np.array(xp.host(state.theta)))
        averages.append(np.array(xp.host(state.average)))
        factors.append(slowed.factor)

    last = bx.fit(*case, **options, callbacks=[keep])
    xp.assert_equal(last.theta, averages[-1])
    assert not np.array_equal(averages[-1], thetas[-1])
    assert np.min(factors[:-1]) < 1.0
    for before, factor, after in zip(thetas[:-1], factors[:-1], thetas[1:], strict=True):
        theta = xp.asarray(before)
        for at in range(0, ROWS, size):
            part = (array[at : min(at + size, ROWS), :] for array in case[2:])
            gradient = network.loss_and_gradient(theta, *part)[1]
            theta = theta - 1.5 * xp.asarray(factor[:, None]) * gradient
        xp.assert_close(theta, after, COMPILED)
    kept = bx.fit(*case, **options, early_stopping=bx.EarlyStopping(8))
    best: Any = kept.state.best
    assert best.epoch.min() < 8
    xp.assert_equal(kept.theta, [averages[epoch - 1][i] for i, epoch in enumerate(best.epoch)])


class Settled:
    """An optimizer that moves nothing; a network has converged if theta begins above 0."""

    def initialize(self, theta: Any) -> Any:
        return (theta[..., :1],)

    def advance(self, theta: Any, state: Any, objective: Any) -> Any:
        return theta, state, objective.loss(theta)

    def has_converged(self, state: Any) -> Any:
        return state[0] > 0.0


@pytest.mark.parametrize(("first", "epochs"), [([1.0, 2.0], 20), ([1.0, -2.0], 50)])
def test_a_training_ends_at_the_20th_epoch_at_which_all_networks_have_converged(
    xp: Any, first: list[float], epochs: int
) -> None:
    network = _network(dropout=0.0)
    theta = np.array(xp.host(xp.initialize(network, stack=2)))
    theta[:, 0] = first
    case = network, xp.asarray(theta), xp.asarray(X), xp.asarray(Y)
    result = bx.fit(*case, optimizer=Settled(), epochs=50)  # type: ignore[arg-type]
    assert result.epochs == epochs
    # The first epochs measure the loss, also of a training that has nothing to do.
    losses = np.repeat(xp.host(network.loss(*case[1:2], *case[2:]))[None], epochs, axis=0)
    xp.assert_close(result.history["loss"], losses, COMPILED)
    assert result.best_member().shape == (network.size,)


def test_a_state_of_train_or_of_a_callback_can_be_resumed(xp: Any) -> None:
    case, options = _case(xp), {**ADAM, "epochs": EPOCHS}
    whole = bx.fit(*case, **options)
    states = bx.train(*case, **options)
    state = [next(states) for _ in range(2)][-1]
    *_, last = bx.train(*case, start=state, **options)
    _same(xp, last.theta, whole.theta)
    kept: list[Any] = []
    bx.fit(*case, **options, callbacks=[lambda s: s.epoch == 3 and (kept.append(s) or True)])
    _compare(xp, whole, bx.fit(*case, start=kept[0], **options), 3)


COPIES: dict[str, Any] = {
    "pickle": lambda kept: pickle.loads(pickle.dumps(kept)),  # noqa: S301 -- our own bytes
    "deepcopy": copy.deepcopy,
}
every_copy = pytest.mark.parametrize("how", COPIES)


@every_copy
@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_a_copy_is_resumed_as_the_original(how: str, batch_size: int | None) -> None:
    """Copy a result of fit, and a state of train with the best theta, on NumPy."""
    network, theta = _network(), _network().initialize(backend="numpy", stack=STACK)
    case = network, theta, X, Y
    options: dict[str, Any] = {
        "optimizer": bx.Adam(bx.schedules.cosine(0.5, 12)),
        "batch_size": batch_size,
        "validation": (X[:4], Y[:4]),
        "metrics": {"rmse": bx.metrics.rmse},
        "early_stopping": bx.EarlyStopping(patience=9),
    }
    whole = bx.fit(*case, epochs=EPOCHS, **options)
    begun = bx.fit(*case, epochs=2, **options)
    state = [*bx.train(*case, epochs=2, **options)][-1]
    for kept in (begun, state):
        copied = COPIES[how](kept)
        assert type(copied) is type(kept)
        assert not np.shares_memory(copied.theta, kept.theta)
        resumed = bx.fit(*case, epochs=EPOCHS, start=copied, **options)
        for one, other in ((whole, resumed), (whole.state.best, resumed.state.best)):
            assert np.array_equal(one.theta, other.theta)
            mapped(np.testing.assert_array_equal, one.optimizer_state, other.optimizer_state)
        for name, values in whole.history.items():
            assert np.array_equal(values[2:], resumed.history[name][2:])


@every_copy
@pytest.mark.parametrize("at", [1, 2, 5])
def test_a_copy_of_an_interrupted_state_can_be_resumed(how: str, at: int) -> None:
    """The interrupt comes before the first update, or within the first or the second epoch."""
    pressing, options = InterruptingLayer(at, _raise), {**ADAM, "epochs": 3}
    network = bx.Network([bx.Dense(3, 4, "tanh"), pressing, bx.Dense(4, 2)], "huber")
    case = network, network.initialize(backend="numpy"), X, Y
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, **options)
    pressing.left = 0
    state = COPIES[how](caught.value.state)
    assert np.array_equal(
        bx.fit(*case, start=state, **options).theta, bx.fit(*case, **options).theta
    )


@pytest.mark.once
def test_a_file_is_written_every_so_many_epochs_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    network, path, seen = _network(), tmp_path / "training", list[int]()
    case = network, network.initialize(backend="numpy"), X, Y
    kept = atomic_files.write
    monkeypatch.setattr("backprop_xp.files.checkpoint.write", lambda *a: (seen.append(1), kept(*a)))
    options: dict[str, Any] = {"optimizer": bx.Adam(), "checkpoint": path, "checkpoint_every": 4}
    bx.fit(*case, epochs=10, **options)
    assert len(seen) == 3
    # A training that resumes between two of these epochs writes at the same ones.
    seen.clear()
    begun = bx.fit(*case, epochs=1, optimizer=bx.Adam())
    bx.fit(*case, epochs=10, start=begun, **options)
    assert len(seen) == 3
    for state in bx.train(*case, epochs=10, **options):
        assert bx.load(path, backend="numpy").state.epoch == (state.epoch // 4 * 4 or 10) or (
            state.epoch == 10
        )
    assert len(seen) == 6
    bx.fit(*case, epochs=10, callbacks=[lambda state: state.epoch == 6], **options)
    assert bx.load(path, backend="numpy").state.epoch == 6
    # It has the theta that the result has: that of the best epoch.
    options |= {"optimizer": bx.SGD(2.0), "early_stopping": bx.EarlyStopping(3, watch="loss")}
    best = bx.fit(*case, epochs=10, **options)
    assert not np.array_equal(best.theta, best.state.theta)
    assert np.array_equal(bx.load(path, backend="numpy").theta, best.theta)


def test_a_resumed_training_that_is_finished_does_nothing(xp: Any) -> None:
    case = _case(xp, STACK)
    begun = bx.fit(*case, epochs=2, **ADAM)
    again = bx.fit(*case, epochs=2, start=begun.state, **ADAM)
    _same(xp, again.theta, begun.theta)
    _same(xp, again.history["loss"], begun.history["loss"])
    assert again.epochs == 2
    *_, state = bx.train(*case, epochs=2, **ADAM)
    unknown = bx.fit(*case, epochs=2, start=state, **ADAM).history["loss"]
    assert np.isnan(unknown[0]).all()
    _same(xp, unknown[1], begun.history["loss"][1])  # the state has that of its epoch
    assert unknown.shape == (2, STACK)


class CountedState:
    """A state that is no pytree: an object that its update changes in place."""

    def __init__(self, theta: Any) -> None:
        self.updates, self.velocity = 0, 0.0 * theta


class InPlaceOptimizer:
    """A custom optimizer with such a state."""

    def initialize(self, theta: Any) -> Any:
        return CountedState(theta)

    def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        state.updates += 1
        state.velocity = 0.9 * state.velocity + gradient
        return theta - 0.1 * state.velocity, state


class NumberState:
    """A custom optimizer whose state is a number."""

    def initialize(self, theta: Any) -> Any:
        return 0

    def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 / (1.0 + state) * gradient, state + 1


@pytest.mark.parametrize("make", [bx.Adam, InPlaceOptimizer, NumberState])
def test_an_optimizer_state_of_any_kind_is_copied(xp: Any, make: Any) -> None:
    if make is InPlaceOptimizer and xp.name == "jax":
        pytest.skip("jax compiles states of tuples, lists and dicts alone")
    case, options = _case(xp), {"optimizer": make(), "batch_size": BATCH}
    begun, whole = (bx.fit(*case, epochs=epochs, **options) for epochs in (2, 4))
    for _ in range(2):
        _same(xp, bx.fit(*case, epochs=4, start=begun, **options).theta, whole.theta)


# ---- Ctrl-C


class InterruptingLayer(PassThrough):
    """A layer that interrupts in its n-th forward pass."""

    def __init__(self, at: int, press: Any) -> None:
        self.left, self.press = at, press

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        self.left -= 1
        if self.left == 0:
            self.press()
        return x, None


def _interrupting_case(xp: Any, at: int, press: Any) -> tuple[InterruptingLayer, Any]:
    """Return a layer that interrupts, a network with it, and data to train it."""
    if _compiles(xp):
        pytest.skip(f"{xp.name} runs Python once, when it compiles")
    pressing = InterruptingLayer(at, press)
    layers = [bx.Dense(3, 4, "tanh"), pressing, bx.Dropout(0.2), bx.Dense(4, 2)]
    network = bx.Network(layers, "huber")
    return pressing, (network, xp.initialize(network), xp.asarray(X), xp.asarray(Y))


def _raise() -> None:
    raise KeyboardInterrupt


def _signal() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("at", [1, 3, 4, 8])
@pytest.mark.parametrize(("batch_size", "epochs"), [(None, 8), (BATCH, 3)])
def test_an_interrupted_fit_resumes_from_its_last_state(
    xp: Any, batch_size: int | None, epochs: int, at: int
) -> None:
    """The interrupt comes between two updates of an epoch; the next batch continues the epoch."""
    pressing, case = _interrupting_case(xp, at, _signal)
    options = {**ADAM, "batch_size": batch_size, "epochs": epochs}
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, **options)
    state = caught.value.state
    assert state.step == at  # the interrupt waits for the end of the update
    pressing.left = 0
    _compare(xp, bx.fit(*case, **options), bx.fit(*case, start=state, **options), state.epoch)


def test_the_gradient_checks_of_an_interrupted_epoch_belong_to_the_call_that_ends_it(
    xp: Any,
) -> None:
    pressing, case = _interrupting_case(xp, 0, _signal)
    options = {**ADAM, "epochs": 3, "check_every": 1}
    whole = bx.fit(*case, **options)
    passes = -pressing.left // 9  # of each of the nine updates, with its check
    pressing.left = 5 * passes
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, **options)
    state = caught.value.state
    assert (state.epoch, state.step, len(state.checks)) == (1, 5, 2)
    resumed = bx.fit(*case, start=state, **options)
    xp.assert_equal(resumed.history["gradient_error"], whole.history["gradient_error"][3:])
    assert resumed.history["gradient_verdict"].tolist() == ["pass"] * 6


def test_a_delayed_ctrl_c_is_raised_before_a_source_makes_the_next_batch() -> None:
    made = list[int]()
    with Interrupt() as interrupt:
        interrupt.busy = True
        items = interrupt.waiting_for(made.append(i) or i for i in range(3))
        _signal()
        assert interrupt.is_pending
        with pytest.raises(KeyboardInterrupt):
            next(items)
    assert made == []


def test_ctrl_c_in_the_last_update_of_an_epoch_leaves_the_state_after_it(xp: Any) -> None:
    _, case = _interrupting_case(xp, 6, _signal)
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, **ADAM, epochs=3)
    state = caught.value.state
    assert (state.epoch, state.step, state.batch_losses) == (2, 6, None)
    assert state.history["loss"].shape == (2,)


def test_ctrl_c_in_a_callback_leaves_the_state_after_the_epoch(xp: Any) -> None:
    case, options = _case(xp), {**ADAM, "epochs": 4}

    def press(state: Any) -> None:
        if state.epoch == 2:
            _signal()

    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, **options, callbacks=[press])
    assert caught.value.state.epoch == 2
    whole = bx.fit(*case, **options)
    _compare(xp, whole, bx.fit(*case, start=caught.value.state, **options), 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


class PressAt:
    """A callback that makes Ctrl-C come at a line of the library after it: the i-th."""

    def __init__(self, i: int) -> None:
        names = ("backprop_xp.training.fit", "backprop_xp.training.interfaces.interrupt")
        modules = (sys.modules[name] for name in names)
        self.left, self.files = i, {module.__file__ for module in modules}

    def __call__(self, state: bx.TrainingState) -> None:
        if state.epoch == 2:
            sys.settrace(self._trace)
            frame: Any = sys._getframe(1)
            while frame is not None:
                frame.f_trace, frame = self._trace(frame, "call", None), frame.f_back

    def _trace(self, frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename not in self.files:
            return None
        self.left -= event == "line"
        if self.left == 0 and event == "line":
            signal.raise_signal(signal.SIGINT)
        return self._trace


def test_ctrl_c_after_the_last_epoch_leaves_the_finished_state() -> None:
    network = bx.mlp([1, 1])
    theta, data = network.initialize(backend="numpy"), ([[0.0], [1.0]], [[1.0], [3.0]])
    options: dict[str, Any] = {"optimizer": bx.Adam(0.1), "epochs": 2}
    expected, lines = bx.fit(network, theta, *data, **options), 0
    for lines in itertools.count(1):
        press = PressAt(lines)
        try:
            bx.fit(network, theta, *data, callbacks=[press], **options)
        except KeyboardInterrupt as error:
            state = error.state  # type: ignore[attr-defined]
        else:
            break
        finally:
            sys.settrace(None)
            # Pressed at the first line of ``Interrupt.__exit__``, its handler stays.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        assert state.epoch == 2
        assert np.array_equal(state.theta, expected.theta)
        assert np.array_equal(state.history["loss"], expected.history["loss"])
    assert press.left > 0
    assert lines > 30


def test_ctrl_c_before_a_training_leaves_its_initial_state(xp: Any) -> None:
    """The check of the data sends one row through a last layer without a declared width."""
    pressing = InterruptingLayer(1, _raise)
    network = bx.Network([bx.Dense(3, 2), pressing], "huber")
    case = network, xp.initialize(network), xp.asarray(X), xp.asarray(Y)
    begun = None
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt) as caught:
            bx.fit(*case, optimizer=bx.Adam(), epochs=2, start=begun)
        assert caught.value.state is begun
        begun = bx.fit(*case, optimizer=bx.Adam(), epochs=1).state
        pressing.left = 1


def test_ctrl_c_while_an_epochs_order_is_drawn_waits_for_one_update(xp: Any) -> None:
    options = Options(optimizer=bx.Adam(0.05), epochs=2, batch_size=BATCH)
    training, state = prepare(*_case(xp), options, OneProcess())
    interrupt = Interrupt()
    interrupt.pressed = (signal.SIGINT, None)
    after, measured, _ = run_epochs(training, state, 1, interrupt)
    assert (after.epoch, measured) == (0, {})
    assert 0 < after.step < 3


def test_a_ctrl_c_handler_that_a_callback_installs_stays(xp: Any) -> None:
    """The handler may ask the user first, then call the handler that was there before."""
    case, signals = _case(xp), []

    def put(state: Any) -> None:
        if state.epoch == 1:
            found: Any = signal.getsignal(signal.SIGINT)
            signal.signal(signal.SIGINT, lambda *signalled: (signals.append(1), found(*signalled)))

    before = signal.getsignal(signal.SIGINT)
    broken = {"shuffle": lambda epoch: 1 // (1 - epoch) * np.arange(ROWS)}
    for options in ({}, broken):  # a training that ends, and one that fails within an epoch
        signals.clear()
        try:
            with contextlib.suppress(ZeroDivisionError):
                bx.fit(*case, **ADAM, epochs=3, callbacks=[put], **options)
            assert signal.getsignal(signal.SIGINT) is not before
            with pytest.raises(KeyboardInterrupt):
                _signal()
        finally:
            signal.signal(signal.SIGINT, before)
        assert signals == [1]


# ---- errors


class FailingFunction:
    """A function that fails at its n-th call only."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise RuntimeError("failed here")


class OverwritingOptimizer(bx.SGD):
    """A custom optimizer that fails after it has overwritten its arguments."""

    def __init__(self, fails: FailingFunction) -> None:
        super().__init__(0.1, momentum=0.9)
        object.__setattr__(self, "fails", fails)

    def update(self, theta: Any, gradient: Any, state: Any, **options: Any) -> Any:
        velocity = state.velocity
        theta *= 0.5
        velocity *= 0.5
        self.fails()  # type: ignore[attr-defined]
        return super().update(theta, gradient, state, **options)


class CallingLayer(PassThrough):
    """A layer that calls a function in its forward pass."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        self.call()
        return x, None


def _then(fails: FailingFunction, value: Any) -> Any:
    fails()
    return value


FAILURES: dict[str, Any] = {
    "a callback": lambda fails: {"callbacks": [lambda state: fails()]},
    "a schedule": lambda fails: {"optimizer": bx.Adam(lambda step: _then(fails, 0.1))},
    "an order": lambda fails: {"shuffle": lambda epoch: _then(fails, np.arange(ROWS))},
    "a metric": lambda fails: {
        "metrics": {"rmse": lambda *given: _then(fails, bx.metrics.rmse(*given))}
    },
    "a layer": lambda fails: {"layer": CallingLayer(fails)},
    "an optimizer": lambda fails: {"optimizer": OverwritingOptimizer(fails)},
}


@pytest.mark.parametrize("at", [1, 2, 3, 5])
@pytest.mark.parametrize(
    ("where", "batch_size"),
    [(where, size) for where in FAILURES for size in (None, BATCH) if size or "order" not in where],
)
def test_any_failure_leaves_a_state_that_can_be_resumed(
    xp: Any, where: str, batch_size: int | None, at: int
) -> None:
    """It is the state of the last complete update, or epoch if an update may overwrite it."""
    if _compiles(xp) and where in ("a metric", "a layer", "an optimizer"):
        pytest.skip(f"{xp.name} runs Python once, when it compiles")
    fails = FailingFunction(at)
    options = {**ADAM, "batch_size": batch_size, "epochs": 6, **FAILURES[where](fails)}
    layers = [bx.Dense(3, 4, "tanh"), options.pop("layer", PassThrough()), bx.Dense(4, 2)]
    network = bx.Network([*layers, bx.Dropout(0.2)], "huber")
    case = network, xp.initialize(network), xp.asarray(X), xp.asarray(Y)
    with pytest.raises(RuntimeError, match="failed here") as caught:
        bx.fit(*case, **options)
    state: Any = caught.value.state  # type: ignore[attr-defined]
    whole, resumed = (bx.fit(*case, start=start, **options) for start in (None, state))
    _compare(xp, whole, resumed, state.epoch)
    _same(xp, whole.history["loss"], resumed.history["loss"])
    if where == "a callback":
        assert state.epoch == at
    if where == "a metric":
        assert state.epoch == at - 1
    if where == "a layer" or (where == "an optimizer" and batch_size is None):
        assert state.step == at - 1


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_train_raises_the_error_of_a_layer(xp: Any, batch_size: int | None) -> None:
    """It is raised immediately: only fit delays an error."""
    fails = FailingFunction(1 if _compiles(xp) else 3)
    layers = [bx.Dense(3, 4), CallingLayer(fails), bx.Dense(4, 2)]
    network = bx.Network(layers, "huber")
    case = network, xp.initialize(network), xp.asarray(X), xp.asarray(Y)
    states = bx.train(*case, **{**ADAM, "batch_size": batch_size, "epochs": 6})
    with pytest.raises(RuntimeError, match="failed here"):
        list(states)
    assert fails.left == 0


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_custom_ctrl_c_handler_is_called_between_two_updates(xp: Any, goes_on: bool) -> None:
    """asyncio and other programs have such a handler; it may let the training continue."""
    _, case = _interrupting_case(xp, 4, _signal)
    signals, options = [], {**ADAM, "epochs": 3}

    def handle(number: int, frame: Any) -> None:
        signals.append(number)
        if not goes_on:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        result = bx.fit(*case, **options)
    except KeyboardInterrupt as interrupt:
        result = bx.fit(*case, start=interrupt.state, **options)
    finally:
        assert signal.signal(signal.SIGINT, before) is handle
    assert signals == [signal.SIGINT]
    _same(xp, result.theta, bx.fit(*case, **options).theta)
    assert result.history["loss"].shape == (3,)


def test_a_training_outside_the_main_thread_is_the_same(xp: Any) -> None:
    case, options = _case(xp), {**ADAM, "epochs": 2}
    result = xp.in_a_thread(lambda: bx.fit(*case, **options))
    _same(xp, result.theta, bx.fit(*case, **options).theta)


# ---- errors of start


@pytest.mark.parametrize(
    ("begun", "error", "message"),
    [
        long({"hidden": "relu", "layer_norm": True}, ValueError, r"start\.theta has shape"),
        long({"stack": 2}, ValueError, r"start\.theta has shape \(2, 32\), but theta \(32,\)"),
        long(
            {"optimizer": bx.RMSProp()},
            TypeError,
            "start.* is RMSPropState, but SGD resumes from",
        ),
        ({"optimizer": bx.SGD(0.1)}, ValueError, "state has no velocity"),
        ({"batch_size": None}, ValueError, "start has made 2 updates in 2 epochs.* an epoch has 3"),
        ({"epochs": 6}, ValueError, "start has run 6 epochs, but epochs=5 counts from the beginn"),
    ],
)
def test_an_invalid_start_is_an_error_that_names_it(
    xp: Any, begun: dict[str, Any], error: type[Exception], message: str
) -> None:
    options = {"optimizer": bx.SGD(0.1, momentum=0.9), "batch_size": BATCH, "epochs": 2}
    changed = {key: begun[key] for key in options if key in begun}
    other = _network(**{key: begun[key] for key in ("hidden", "layer_norm") if key in begun})
    theta, (*case, x, y) = xp.initialize(other, stack=begun.get("stack", ())), _case(xp)
    start = bx.fit(other, theta, x, y, **{**options, **changed})
    with pytest.raises(error, match=message):
        bx.fit(*case, x, y, start=start, **{**options, "epochs": 5})


@pytest.mark.parametrize("rule", ["early_stopping", "plateau"])
@pytest.mark.parametrize(
    "watch", [("training_loss", "min"), ("rmse", "min"), ("r2", "max"), ("r2", "min")]
)
def test_a_training_that_watched_another_value_is_not_resumed(
    xp: Any, rule: str, watch: tuple[str, str]
) -> None:
    """The best values of two metrics are not comparable; early stopping may start anew."""
    case, memory = _case(xp), {"early_stopping": "best", "plateau": "slowed"}[rule]

    def options(watch: str | None, mode: Any, **more: Any) -> dict[str, Any]:
        metrics = {"rmse": bx.metrics.rmse, "r2": bx.metrics.r2}
        given: dict[str, Any] = {**ADAM, "epochs": 3, "metrics": metrics, **more}
        if rule == "plateau":
            return given | {"plateau": bx.Plateau(watch=watch, mode=mode)}
        return given | {"early_stopping": bx.EarlyStopping(watch=watch, mode=mode)}

    begun = bx.fit(*case, **options(*watch))  # type: ignore[arg-type]
    kept = getattr(begun.state, memory)
    assert (kept.watch, kept.mode) == watch
    same = None if watch[0] == "training_loss" else watch[0]  # which is the default
    assert bx.fit(*case, **options(same, watch[1], epochs=5), start=begun).epochs == 5
    held_out = xp.asarray(X[:4]), xp.asarray(Y[:4])
    turned = "max" if watch[1] == "min" else "min"
    for name, mode, more in (
        ("validation_loss", "min", {"validation": held_out}),
        ("r2", turned, {}),
    ):
        changed = options(name, mode, epochs=5, **more)
        said = rf"{rule} watches '{name}' \(mode='{mode}'\), but start has watched '{watch[0]}'"
        with pytest.raises(ValueError, match=rf"{said}.*start=state\._replace\({memory}=None"):
            bx.fit(*case, **changed, start=begun)
        anew = begun.state._replace(**{memory: None})
        assert bx.fit(*case, **changed, start=anew).epochs == 5


def test_start_takes_a_theta_of_its_own_training_and_no_other(xp: Any) -> None:
    network = bx.mlp([3, 4, 2], hidden="tanh")
    theta, data = xp.initialize(network, stack=2), xp.put(X, Y)
    options: dict[str, Any] = {"optimizer": bx.Adam(0.3), "average": bx.EMA(0.5)}
    options["early_stopping"] = bx.EarlyStopping(9)
    begun = bx.fit(network, theta, *data, epochs=3, **options)
    whole = bx.fit(network, theta, *data, epochs=4, **options)
    state = begun.state
    for known in (theta, begun.theta, state.theta, state.average, state.best.theta):
        resumed = bx.fit(network, known, *data, epochs=4, start=begun, **options)
        xp.assert_equal(resumed.theta, xp.host(whole.theta))
        assert resumed.state.first == state.first
    other = xp.initialize(network, seed=1, stack=2)
    for start in (begun, state):
        with pytest.raises(ValueError, match=r"theta is not one of the training that start"):
            bx.fit(network, other, *data, epochs=4, start=start, **options)
    moved = state._replace(theta=other)
    assert bx.fit(network, other, *data, epochs=4, start=moved, **options).epochs == 4
    by_hand = bx.TrainingState(0, 0, theta, bx.Adam(0.3).initialize(theta))
    assert bx.fit(network, other, *data, epochs=1, start=by_hand, **options).epochs == 1


def test_a_result_shares_no_memory_with_its_state(xp: Any) -> None:
    case, optimizer = _case(xp), bx.SGD(0.1, momentum=0.9)
    for rule in (None, bx.EarlyStopping()):
        options = {"optimizer": optimizer, "early_stopping": rule}
        result = bx.fit(*case, epochs=2, **options)
        state: Any = result.state if rule is None else result.state.best
        before = [np.array(xp.host(a)) for a in (state.theta, state.optimizer_state.velocity)]
        optimizer.update(result.theta, 1.0 * result.theta, result.optimizer_state)
        result.history["loss"][:] = 0.0
        xp.assert_equal(state.theta, before[0])
        xp.assert_equal(state.optimizer_state.velocity, before[1])
        assert (result.state.history["loss"] > 0.0).all()


def test_the_history_of_a_resumed_training_is_complete(xp: Any) -> None:
    case = _case(xp)
    whole = bx.fit(*case, **ADAM, epochs=5)
    begun = bx.fit(*case, **ADAM, epochs=2)
    resumed = bx.fit(*case, **ADAM, epochs=5, start=begun)
    _same(xp, resumed.history, whole.history)
    _same(xp, resumed.state.history, whole.history)
    *_, last = bx.train(*case, **ADAM, epochs=2)
    unmeasured = bx.fit(*case, **ADAM, epochs=5, start=last).history["loss"]
    assert np.isnan(unmeasured[:2]).all()
    _same(xp, unmeasured[2:], whole.history["loss"][2:])


def test_an_object_that_is_no_state_is_an_error(xp: Any) -> None:
    with pytest.raises(
        TypeError, match=r"start must be a state of bx\.train or a result of bx\.fit"
    ):
        bx.fit(*_case(xp), optimizer=bx.Adam(), epochs=1, start=_case(xp)[1])


@pytest.mark.parametrize("batch_size", [None, 2, 5])
def test_an_interrupted_epoch_resumes_only_with_its_batch_size(
    xp: Any, batch_size: int | None
) -> None:
    network, (x, y) = bx.mlp([3, 2]), (xp.asarray(np.ones((16, n))) for n in (3, 2))
    theta, options = xp.initialize(network), {"optimizer": bx.SGD(0.1), "epochs": 5}
    first = next(iter(bx.train(network, theta, x, y, batch_size=4, **options)))
    cut = first._replace(epoch=0, step=2, batch_losses=xp.asarray([1.0, 1.0]))
    with pytest.raises(ValueError, match="resume with the data it was trained on"):
        bx.fit(network, theta, x, y, batch_size=batch_size, start=cut, **options)
    assert bx.fit(network, theta, x, y, batch_size=4, start=cut, **options).epochs == 5


@pytest.mark.once
def test_a_result_that_has_run_all_epochs_warns_with_the_number_to_pass(xp: Any) -> None:
    case = _case(xp)
    begun = bx.fit(*case, epochs=3, **ADAM)
    for resume in (bx.fit, lambda *given, **options: [*bx.train(*given, **options)]):
        with pytest.warns(UserWarning, match=r"Nothing is trained.* 3 more, epochs=6\.$") as found:
            resume(*case, epochs=3, start=begun, **ADAM)
        assert len(found) == 1
        assert found[0].filename == __file__
    assert bx.fit(*case, epochs=6, start=begun, **ADAM).epochs == 6
    with pytest.raises(ValueError, match=r"run 3 epochs.* for 2 more, epochs=5\.$"):
        bx.fit(*case, epochs=2, start=begun, **ADAM)


@pytest.mark.once
def test_a_checkpoint_of_a_training_that_has_ended_resumes_without_a_warning(
    xp: Any, tmp_path: Any
) -> None:
    pytest.importorskip("safetensors")
    case, path = _case(xp), tmp_path / "model.safetensors"
    options = {"epochs": 2, "checkpoint": path, **ADAM}
    bx.fit(*case, **options)
    again = bx.fit(*case, start=bx.load(path).state, **options)  # warnings are errors here
    assert again.epochs == 2
