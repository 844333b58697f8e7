"""Model files: a loaded model equals the saved one on every backend, and a training resumes.

Specifies ``descriptions``.
"""

import contextlib
import errno
import inspect
import itertools
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.files import descriptions
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.initializers import INITIALIZERS
from backprop_xp.training.optimizers.first_order import OPTIMIZERS as KINDS
from backprop_xp.training.optimizers.pytrees import mapped
from tests.helpers import printed_lines
from tests.user_layers import PARAMETRIC_LOSSES

pytest.importorskip("safetensors")

generator = np.random.default_rng(5)
X, Y = generator.normal(size=(11, 3)), generator.normal(size=(11, 2))
EPOCHS = 9
schedules = bx.schedules


class Doubled(NamedTuple):
    """A custom layer."""

    factor: float = 2.0
    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def initialize(self, generator: Any) -> tuple[()]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return self.factor * x, None

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        return self.factor * g, ()


def quartic(o: Any, t: Any) -> Any:
    return ((o - t) ** 4)[..., 0]


ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)
QUARTIC = bx.Loss(value=quartic, gradient=lambda o, t: 4 * (o - t) ** 3)


def residual(s: Any) -> Any:
    return s.u_x - s.k * s.u_xx, s.u * s.given


def value_itself(s: Any) -> Any:
    return s.u


def between_points(s: Any) -> Any:
    return s[0].u - s[1].u_x * s[2].x


def zero_at_the_ends(x: Any) -> Any:
    return x[..., :1] * (1.0 - x[..., :1])


for function in (residual, value_itself, between_points, zero_at_the_ends):
    bx.register(f"{function.__name__} of a test", function)

LAYERS = [
    *(bx.Dense(3, 3, name) for name in ACTIVATIONS),
    *(bx.Dense(3, 3, initializer=name) for name in INITIALIZERS),
    bx.Dense(3, 3, bx.activations.leaky_relu_with(0.2)),
    bx.Dense(3, 3, bias_initializer=bx.initializers.uniform(-1.0, 0.5)),
    *(bx.Activate("gelu"), bx.Dropout(0.25), bx.LayerNorm(3, 1e-3), bx.Scale(3)),
    *(bx.NumericEmbedding(3, 2), bx.NumericEmbedding(3, 1, "pl", 4, 0.5)),
    *(bx.Standardize([1.0, -2.0, 0.0], [0.5, 2.0, 3.0]), bx.Standardize(2.0, 0.1)),
    bx.Derivatives([bx.Dense(3, 2, "tanh")], [(), (1,), (2, 0)]),
    bx.Equation([bx.Dense(2, 1, "silu")], residual, "xy", given=["given"], unknown={"k": 2.0}),
    bx.Equation([bx.Dense(1, 1)], between_points, "x", points=3),
    bx.Constrained([bx.Dense(3, 1, "tanh")], zero_at_the_ends),
    bx.Groups([bx.Equation([bx.Dense(3, 1)], value_itself, "xyz")], [1]),
    bx.Columns(bx.Scale(1), bx.LayerNorm(2)),
    bx.Columns(bx.Scale(1), bx.Residual(bx.Dense(2, 2))),
    bx.Embedding([2, 4, 3], 1, bx.initializers.uniform(-1.0, 1.0)),
    bx.Chain(bx.Dense(3, 4, "relu"), bx.Chain(bx.Dropout(0.1)), bx.Dense(4, 3)),
    bx.Residual(bx.Dense(3, 4, "relu"), bx.Residual(bx.Dense(4, 4)), bx.Dense(4, 3)),
]
SCHEDULES = [
    0.1,
    schedules.constant(0.1),
    schedules.step_decay(0.1, 10, 0.5),
    schedules.exponential(0.1, 0.9),
    schedules.inverse_scaling(0.1, 0.25),
    schedules.warmup(schedules.cosine(0.1, 100, 0.01), 10),
    schedules.chain([0.1, schedules.cosine(0.1, 10)], [5]),
    schedules.one_cycle(0.1, 20, 0.2, last=10.0),
    schedules.epochs(schedules.cosine_restarts(0.1, 3, 2, 0.01), 5),
]
OPTIMIZERS = [
    *(bx.SGD(rate) for rate in SCHEDULES),
    bx.SGD(0.1, momentum=0.9, nesterov=True),
    *(bx.RMSProp(0.01, decay=0.8), bx.Adam(beta1=0.5), bx.AdamW(weight_decay=0.1)),
    *(bx.Adam(amsgrad=True), bx.Adagrad(initial=0.1), bx.Nadam(beta2=0.9), bx.Lion(beta1=0.8)),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def _network() -> bx.Network:
    return bx.mlp([3, 5, 2], hidden="tanh", dropout=0.3, l2=0.01)


def _save(path: Path, **more: Any) -> tuple[bx.Network, np.ndarray]:
    network = _network()
    theta = network.initialize(backend="numpy")
    bx.save(path, network, theta, **more)
    return network, theta


def _load(path: Path, xp: Any, **more: Any) -> bx.Checkpoint:
    return bx.load(path, backend=xp.selection.backend, device=xp.selection.device, **more)


def _same(xp: Any, one: Any, other: Any) -> None:
    mapped(lambda a, b: np.testing.assert_array_equal(xp.host(a), xp.host(b)), one, other)


# A loaded model equals the saved one


@pytest.mark.parametrize("layer", LAYERS, ids=repr)
def test_a_loaded_layer_equals_the_saved_one(path: Path, layer: Any) -> None:
    takes_codes = hasattr(layer, "codes") and any(layer.codes)
    before, x = ([], np.asarray([[1, 3, 2]])) if takes_codes else ([bx.Dense(3, 3)], X)
    network = bx.Network([*before, layer], "mean_squared_error")
    theta = network.initialize(backend="numpy")
    bx.save(path, network, theta)
    read = bx.load(path, backend="numpy")
    assert read.network == network
    assert repr(read.network) == repr(network)
    assert np.array_equal(read.predict(x), network.predict(theta, x))


@pytest.mark.parametrize("loss", [*LOSSES.values(), *PARAMETRIC_LOSSES.values()], ids=repr)
def test_a_loaded_loss_equals_the_saved_one(path: Path, loss: bx.Loss) -> None:
    network = bx.mlp([3, 2], loss=loss)
    bx.save(path, network, network.initialize(backend="numpy"))
    assert bx.load(path, backend="numpy").network.loss_function == loss


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_a_loaded_optimizer_equals_the_saved_one(path: Path, optimizer: Any) -> None:
    _save(path, optimizer=optimizer)
    read = bx.load(path, backend="numpy").optimizer
    assert repr(read) == repr(optimizer)
    rate = optimizer.learning_rate
    if callable(rate):
        assert [read.learning_rate(step) for step in range(30)] == [rate(s) for s in range(30)]


def test_the_result_of_every_factory_can_be_saved() -> None:
    made = {type(layer) for layer in LAYERS} | {type(optimizer) for optimizer in OPTIMIZERS}
    assert made == {*descriptions.LAYERS, *KINDS.values()}
    kinds = {value for value in vars(schedules).values() if inspect.isclass(value)}
    makers = {k for k in kinds if k.__module__ == schedules.__name__ and k.__name__[0] != "_"}
    assert makers == {*descriptions.SCHEDULES}


def test_a_file_loads_on_the_backend_that_saved_it(xp: Any, path: Path) -> None:
    network = _network()
    theta = xp.initialize(network, stack=(2, 3))
    optimizer = bx.AdamW(xp.asarray(np.full((2, 3, 1), 0.1)), mask=network.weight_mask(theta))
    bx.save(path, network, theta, optimizer=optimizer)
    read = _load(path, xp)
    assert type(read.theta) is type(theta)
    assert read.theta.dtype == theta.dtype
    assert bx.backends.device_of(read.theta) == bx.backends.device_of(theta)
    _same(xp, read.theta, theta)
    _same(xp, read.optimizer.learning_rate, optimizer.learning_rate)
    _same(xp, read.optimizer.mask, optimizer.mask)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_file_loads_in_another_precision_on_request(path: Path, dtype: str) -> None:
    _, theta = _save(path)
    read = bx.load(path, backend="numpy", dtype=dtype).theta
    assert np.array_equal(read, theta.astype(dtype))


def test_predict_standardizes_as_training_did(xp: Any, path: Path) -> None:
    network = _network()
    prepared = bx.data.standardize(xp.asarray(3.0 * X + 1.0))
    theta = xp.initialize(network)
    bx.save(path, network, theta, preparation=prepared)
    read = _load(path, xp)
    assert set(read.preparation) == {"mean", "scale"}
    _same(xp, read.predict(xp.asarray(3.0 * X + 1.0)), network.predict(theta, prepared.x))


def test_a_loaded_file_places_its_arrays_in_the_order_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On devices of several processes a placement is a call of all of them, in one order."""
    network, backend = bx.mlp([1, 1]), bx.get_backend("numpy")
    numbers = {name: np.full(1, float(i)) for i, name in enumerate("abcdefgh")}
    bx.save(tmp_path / "m", network, network.initialize(backend="numpy"), preparation=numbers)
    placed: list[float] = []
    move = backend.from_host
    monkeypatch.setattr(
        backend, "from_host", lambda array, *to: placed.append(array[0]) or move(array, *to)
    )
    bx.load(tmp_path / "m", backend="numpy")
    assert placed[:8] == [*range(8)]


def test_metadata_is_kept(path: Path) -> None:
    metadata = {"classes": ["a", "é"], "scores": {"r2": np.float64(0.1)}, "none": None}
    metadata |= {"least": -5e-324, "many": 2**80, "on": True, "half": "\ud800", "empty": [{}, []]}
    _save(path, metadata=metadata)
    assert bx.load(path, backend="numpy").metadata == metadata


def test_the_same_model_makes_the_same_file(path: Path) -> None:
    _save(path)
    first = path.read_bytes()
    _save(path)
    assert path.read_bytes() == first


def test_arrays_in_another_memory_order_are_saved_correctly(path: Path) -> None:
    network = _network()
    theta = np.asfortranarray(network.initialize(backend="numpy", stack=4))[::2]
    bx.save(path, network, theta)
    assert np.array_equal(bx.load(path, backend="numpy").theta, theta)


# Custom objects


def test_a_registered_object_is_saved_by_its_name(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(descriptions.REGISTRY, "registered", {})
    network = bx.Network([bx.Dense(3, 1), Doubled(3.0)], QUARTIC)
    theta = network.initialize(backend="numpy")
    with pytest.raises(TypeError, match=r"network\.layers\.1 is .*bx\.register"):
        bx.save(path, network, theta)
    bx.register("Doubled", Doubled)
    with pytest.raises(TypeError, match=r"network\.loss is Loss"):
        bx.save(path, network, theta)
    assert not path.exists()
    bx.register("quartic", QUARTIC)
    bx.save(path, network, theta)
    assert bx.load(path, backend="numpy").network == network
    descriptions.REGISTRY["registered"].clear()
    with pytest.raises(bx.CheckpointError, match="Nothing is registered as 'Doubled'"):
        bx.load(path, backend="numpy")


def test_a_name_cannot_be_registered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(descriptions.REGISTRY, "registered", {})
    bx.register("own", QUARTIC)
    bx.register("own", QUARTIC)
    with pytest.raises(ValueError, match="'own' is registered already"):
        bx.register("own", Doubled)
    powers = [bx.Activation(value=lambda z, n=n: z**n, vjp=lambda g, z, a: g) for n in (2, 2, 3)]
    bx.register("power", powers[0])
    bx.register("power", powers[1])  # like a notebook's cell that runs again
    with pytest.raises(ValueError, match="'power' is registered already"):
        bx.register("power", powers[2])


CELL = """
class Plain:
    names = shapes = ()
    initialize, forward, backward = Doubled.initialize, Doubled.forward, Doubled.backward

    def __init__(self, factor=2.0):
        super().__init__()
        self.factor = factor

    @property
    def half(self):
        return self.factor / 2.0

@dataclass(frozen=True)
class Data(Plain):
    factor: float = 2.0

class Named(NamedTuple):
    factor: float = 2.0
    names: tuple = ()
    shapes: tuple = ()
    initialize, forward, backward = Doubled.initialize, Doubled.forward, Doubled.backward
"""


@pytest.mark.parametrize("name", ["Plain", "Data", "Named"])
def test_an_object_of_a_class_whose_cell_ran_again_can_be_saved(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(descriptions.REGISTRY, "registered", {})
    made = []
    for code in (CELL, CELL, CELL.replace("2.0", "3.0")):
        cell = {**globals()}
        exec(compile(code, "<cell>", "exec"), cell)  # noqa: S102 - as a notebook does
        made.append(cell[name])
    older = bx.Network([bx.Dense(3, 1), made[0](5.0)], "huber")
    theta = older.initialize(backend="numpy")
    bx.register(name, made[0])
    bx.register(name, made[1])
    bx.save(path, older, theta)
    (_, layer) = bx.load(path, backend="numpy").network.layers
    assert type(layer) is made[1]
    assert layer.factor == 5.0
    bx.register(name, made[2])  # other code: a file would load another object than the saved one
    with pytest.raises(TypeError, match=r"network\.layers\.1 is .*bx\.register"):
        bx.save(path, older, theta)


def test_no_two_arrays_of_a_file_share_a_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = _network()
    theta = network.initialize(backend="numpy")
    values = [float(i) * np.ones(2) for i in range(3)]
    own = {"a": {"b": values[0]}, "a.b": values[1], "a.b'": values[2]}
    bx.save(path, network, theta, state=bx.TrainingState(0, 0, theta, own))
    state = bx.load(path, backend="numpy").state.optimizer_state
    found = [state["a"]["b"], state["a.b"], state["a.b'"]]
    assert [value.tolist() for value in found] == [value.tolist() for value in values]


@dataclass(frozen=True)
class ArrayInitializer:
    """An initializer with an array."""

    values: Any

    def __call__(self, generator: Any, shape: Any) -> Any:
        return np.broadcast_to(self.values, shape)


def test_a_registered_object_may_hold_an_array(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(descriptions.REGISTRY, "registered", {})
    one, other = ArrayInitializer(np.ones(3)), ArrayInitializer(np.zeros(3))
    bx.register("one", one)
    for initializer in (other, one):
        network = bx.Network([bx.Dense(3, 3, initializer=initializer)], "huber")
        theta = network.initialize(backend="numpy")
        if initializer is other:
            with pytest.raises(TypeError, match=r"bx\.register"):
                bx.save(tmp_path / "model", network, theta)
    bx.save(tmp_path / "model", network, theta)
    assert bx.load(tmp_path / "model", backend="numpy").network.layers[0].initializer is one


def test_a_custom_order_is_not_saved(tmp_path: Path) -> None:
    network, path = bx.mlp([3, 2]), tmp_path / "model"
    case = network, network.initialize(backend="numpy"), X, Y
    options = {"optimizer": bx.SGD(0.1), "batch_size": 4, "shuffle": lambda epoch: np.arange(11)}
    bx.fit(*case, **options, epochs=2, checkpoint=path)
    kept = bx.load(path, backend="numpy").options
    assert "shuffle" not in kept
    assert kept["batch_size"] == 4


# A training resumes from its file


def _training(xp: Any, stack: Any = ()) -> tuple[tuple[Any, ...], dict[str, Any]]:
    network = _network()
    options: dict[str, Any] = {
        "optimizer": bx.SGD(0.6, momentum=0.5),
        "plateau": bx.Plateau(0.5, patience=2),
        "batch_size": 4,
        "validation": (xp.asarray(X[:4]), xp.asarray(Y[:4])),
        "metrics": {"rmse": bx.metrics.rmse},
        "early_stopping": bx.EarlyStopping(patience=20),
    }
    return (network, xp.initialize(network, stack=stack), xp.asarray(X), xp.asarray(Y)), options


@pytest.mark.parametrize("stack", [(), (3,)])
def test_a_training_resumed_from_its_file_equals_the_uninterrupted_one(
    xp: Any, path: Path, stack: Any
) -> None:
    case, options = _training(xp, stack)
    whole = bx.fit(*case, epochs=EPOCHS, **options)
    for epochs in (1, 4, 5):
        bx.fit(*case, epochs=epochs, checkpoint=path, checkpoint_every=2, **options)
        read = _load(path, xp)
        assert read.state.epoch == epochs
        assert read.options["early_stopping"] == options["early_stopping"]
        options["optimizer"] = read.optimizer
        resumed = bx.fit(
            read.network, *case[1:], epochs=EPOCHS, start=read.state, checkpoint=path, **options
        )
        _same(xp, resumed.theta, whole.theta)
        last = _load(path, xp).state
        _same(xp, last.theta, whole.state.theta)
        for name, values in whole.history.items():
            np.testing.assert_array_equal(last.history[name], values)
            np.testing.assert_array_equal(resumed.state.history[name], values)


def test_epochs_without_a_measurement_are_nan_in_the_history(path: Path) -> None:
    network = _network()
    case = network, network.initialize(backend="numpy"), X, Y
    *_, begun = bx.train(*case, optimizer=bx.Adam(), epochs=2)
    bx.fit(*case, optimizer=bx.Adam(), epochs=5, start=begun, checkpoint=path)
    losses = bx.load(path, backend="numpy").state.history["loss"]
    assert np.isnan(losses).tolist() == [True] * 2 + [False] * 3


def _raise(epoch: int) -> None:
    if epoch == 3:
        raise KeyboardInterrupt


def _press(epoch: int) -> None:
    """Press Ctrl-C during validation; the interrupt waits for the end of the epoch."""
    if epoch == 3:
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("goes_on_from", ["the beginning", "a file"])
@pytest.mark.parametrize("where", ["a callback", "a metric", "a metric of several batches"])
def test_the_state_after_ctrl_c_has_the_history_so_far(
    path: Path, where: str, goes_on_from: str
) -> None:
    network, judged = _network(), itertools.count(1)

    def metric(predictions: Any, targets: Any, weights: Any) -> Any:
        if where != "a callback":
            _press(next(judged))
        return bx.metrics.rmse(predictions, targets, weights)

    case = network, network.initialize(backend="numpy"), X, Y
    options: dict[str, Any] = {"optimizer": bx.Adam(), "metrics": {"rmse": metric}}
    options["batch_size"] = 4 if "several" in where else None
    begun = None
    if goes_on_from == "a file":
        bx.fit(*case, epochs=2, checkpoint=path, **options)
        begun = bx.load(path, backend="numpy").state
    callbacks = [lambda state: _raise(state.epoch)] if where == "a callback" else []
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(*case, epochs=5, start=begun, callbacks=callbacks, **options)
    state = caught.value.state  # type: ignore[attr-defined]
    bx.save(path, network, state.theta, optimizer=options["optimizer"], state=state)
    read = bx.load(path, backend="numpy").state
    assert read.epoch == 3
    resumed = bx.fit(*case, epochs=5, start=read, **options)
    whole = bx.fit(*case, epochs=5, **options)
    for name, values in whole.history.items():
        np.testing.assert_array_equal(read.history[name], values[:3])
        np.testing.assert_array_equal(resumed.state.history[name], values)


def test_an_object_that_cannot_be_saved_is_an_error_before_the_first_epoch(path: Path) -> None:
    class Own(bx.SGD):
        pass

    network = _network()
    case = network, network.initialize(backend="numpy"), X, Y
    for options, error, message in (
        ({"optimizer": Own(0.1), "checkpoint": path}, TypeError, "register"),
        ({"checkpoint": path.parent / "none" / "m"}, FileNotFoundError, "does not exist"),
        ({"checkpoint": 3}, TypeError, "checkpoint must be the path of a file, not 3"),
        ({"checkpoint": ""}, ValueError, "checkpoint must be the path of a file, not ''"),
        ({"checkpoint": path.parent}, IsADirectoryError, "is not a regular file"),
        ({"checkpoint": os.devnull}, OSError, "is not a regular file"),
        ({"checkpoint": path.with_name("n" * 300)}, OSError, "too long"),
        ({"checkpoint": __file__ + "/model"}, FileNotFoundError, "does not exist"),
    ):
        given: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 2, **options}
        with pytest.raises(error, match=message):
            bx.fit(*case, **given, callbacks=[lambda state: pytest.fail("too late")])
        with pytest.raises(error, match=message):
            bx.train(*case, **given)
        assert not list(path.parent.iterdir())


@pytest.mark.parametrize("missing", ["safetensors.numpy", "safetensors"])
def test_a_checkpoint_without_safetensors_is_an_error_before_the_first_epoch(
    path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    network, seen = _network(), []
    case = network, network.initialize(backend="numpy"), X, Y
    options: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 2, "checkpoint": path}
    with pytest.raises(ImportError, match="pip install 'safetensors>="):
        bx.fit(*case, **options, callbacks=[lambda state: seen.append(1)])
    assert not seen


@contextlib.contextmanager
def _full_disk(monkeypatch: pytest.MonkeyPatch, epochs: list[Any]) -> Iterator[None]:
    """Simulate a disk that is full while the list has two or three entries, one for each epoch.

    Asserts that each of the two checkpoints that are not written warns, with the line of this file.
    """
    sync = os.fsync

    def fail(descriptor: int) -> None:
        if len(epochs) in (2, 3):
            raise OSError(28, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    message = r"checkpoint='.*model.* was not written after epoch [234]: OSError: .*No space left"
    with pytest.warns(RuntimeWarning, match=message) as warned:
        yield
    assert [Path(warning.filename).name for warning in warned] == [Path(__file__).name] * 2


# A callback runs before its epoch's checkpoint, and ``train`` yields an epoch after it.
@pytest.mark.parametrize(("call", "read"), [("fit", [1, 1, 1, 4]), ("train", [2, 2, 2, 5])])
def test_a_checkpoint_that_fails_warns_and_is_tried_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, read: list[int]
) -> None:
    network = _network()
    case = network, network.initialize(backend="numpy"), X, Y
    options: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 5, "checkpoint": path}
    whole, epochs = bx.fit(*case, **options), list[Any]()

    def look(state: Any) -> None:
        if epochs:
            epochs[-1] = bx.load(path, backend="numpy").state.epoch
        epochs.append(None)

    with _full_disk(monkeypatch, epochs):
        if call == "fit":
            result = bx.fit(*case, **options, callbacks=[look])
        else:
            for result in bx.train(*case, **options):
                look(result)
    assert epochs[:-1] == read
    assert np.array_equal(result.theta, whole.theta)
    assert bx.load(path, backend="numpy").state.epoch == 5
    assert [*path.parent.iterdir()] == [path]


def test_a_checkpoints_path_does_not_follow_the_working_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, other = _network(), path.parent / "other"
    other.mkdir()
    monkeypatch.chdir(path.parent)
    case = network, network.initialize(backend="numpy"), X, Y
    options: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 2, "checkpoint": path.name}
    bx.fit(*case, **options, callbacks=[lambda state: os.chdir(other)])
    assert bx.load(path, backend="numpy").state.epoch == 2
    assert not list(other.iterdir())


KILLED = """
import sys, numpy as np, backprop_xp as bx
path, x = sys.argv[1], np.random.default_rng(0).normal(size=(40, 3))
network = bx.mlp([3, 64, 2], dropout=0.2)
theta = network.initialize(backend="numpy")
bx.save(path + ".begun", network, theta)
print("begun", flush=True)
rule = {"optimizer": bx.Adam(), "epochs": 4000, "batch_size": 16}
bx.fit(network, theta, x, x[:, :2], checkpoint=path, **rule)
"""


@pytest.mark.once
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="of POSIX")
@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.thorough)])
def test_a_killed_training_leaves_a_file_that_resumes_it(path: Path, kills: int) -> None:
    """Kill processes at random moments, also while they overwrite the file."""
    delays = np.random.default_rng(kills).uniform(0.05, 0.4, kills)
    root = str(Path(bx.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    x = np.random.default_rng(0).normal(size=(40, 3))
    for delay in delays:
        command = [sys.executable, "-c", KILLED, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            while not path.exists() and process.poll() is None:  # until the first epoch ends
                time.sleep(0.01)
            time.sleep(delay)
            process.kill()
        read = bx.load(path, backend="numpy")
        theta = bx.load(f"{path}.begun", backend="numpy").theta
        case = read.network, theta, x, x[:, :2]
        options: dict[str, Any] = {"optimizer": read.optimizer, "batch_size": 16}
        epochs = read.state.epoch + 3
        whole = bx.fit(*case, epochs=epochs, **options)
        resumed = bx.fit(*case, epochs=epochs, start=read.state, **options)
        assert np.array_equal(whole.theta, resumed.theta)


# Saving


def test_a_failed_save_leaves_the_old_file_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save(path)
    before = path.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "the disk is full")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="the disk is full"):
        _save(path, metadata={"new": True})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="of POSIX")
def test_a_file_keeps_its_permissions_and_a_link_stays_one(path: Path) -> None:
    _save(path)
    path.chmod(0o640)
    link = path.with_name("link")
    link.symlink_to(path)
    _save(link, metadata={"new": True})
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert bx.load(path, backend="numpy").metadata == {"new": True}


@pytest.mark.skipif(os.name != "posix", reason="of POSIX")
@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_path_that_is_no_regular_file_is_an_error_without_waiting(
    path: Path, through_a_link: bool
) -> None:
    os.mkfifo(path)
    target = path
    if through_a_link:
        target = path.with_name("link")
        target.symlink_to(path)
    with pytest.raises(OSError, match="is not a regular file"):
        _save(target)
    assert path.is_fifo()
    assert sorted(path.parent.iterdir()) == sorted({target, path})
    # In a child process: one that waits for a writer is killed after a while.
    (line,) = printed_lines(f"bx.load({os.fspath(target)!r}, backend='numpy')")
    assert line == f"CheckpointError {target}: it is not a regular file."
    folder = path.with_name("folder")
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="is not a regular file"):
        _save(folder)


@pytest.mark.skipif(os.name != "posix", reason="of POSIX")
def test_a_file_is_saved_into_an_unreadable_folder(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuses(path_or_name: Any, flags: int, *more: Any, **options: Any) -> int:
        if flags & os.O_DIRECTORY:
            raise PermissionError(f"{path_or_name} cannot be read")  # as for every user but root
        return opened(path_or_name, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuses)
    _save(path, metadata={"new": True})
    assert bx.load(path, backend="numpy").metadata == {"new": True}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"metadata": {"x": np.ones(2)}}, TypeError, r"metadata\['x'\] is <float64 \(2,\)>, but m"),
        ({"metadata": {"x": float("nan")}}, TypeError, "must be what JSON can hold: finite"),
        (
            {"metadata": {"a": {1: 2, "b": 3}}},
            TypeError,
            r"metadata\['a'\] has the key 1.* use '1'",
        ),
        (
            {"metadata": {"a": [{"b": {True: 2}}]}},
            TypeError,
            r"\['a'\]\[0\]\['b'\] has the key True",
        ),
        (
            {"metadata": {"size": [3, (2, 1)]}},
            TypeError,
            r"metadata\['size'\]\[1\] is \(2, 1\), but",
        ),
        ({"metadata": {"n": np.int64(3)}}, TypeError, r"metadata\['n'\] is np.int64\(3\), but"),
        ({"metadata": {"all": ENDLESS}}, TypeError, "metadata is nested too deeply"),
        ({"metadata": [1]}, TypeError, "metadata must be a mapping"),
        ({"preparation": {"mean": 1.0}}, TypeError, r"preparation\['mean'\] must be an array"),
        ({"optimizer": bx.Adam}, TypeError, r"optimizer must be an object like bx\.Adam\(\)"),
        ({"state": 3}, TypeError, "state must be a state of bx.train or a result of bx.fit"),
    ],
)
def test_an_object_that_a_file_cannot_hold_is_an_error(
    path: Path, more: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _save(path, **more)
    assert not path.exists()


def test_a_state_of_another_network_is_an_error(path: Path) -> None:
    network, other = _network(), bx.mlp([3, 2])
    case = other, other.initialize(backend="numpy"), X, Y
    result = bx.fit(*case, optimizer=bx.Adam(), epochs=1)
    with pytest.raises(ValueError, match=r"state\.theta has shape \(8,\), not \(32,\)"):
        bx.save(path, network, network.initialize(backend="numpy"), state=result)
