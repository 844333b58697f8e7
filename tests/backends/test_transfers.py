"""The library inside a transfer guard: each public function moves only known arrays to the host."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.column_weights import takes_column_weights
from backprop_xp.networks.losses.loss import LOSSES
from tests.helpers import GUARDED, guarded_array, needing

pytestmark = pytest.mark.installed

ROWS = 6

generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, 3))
Y = generator.uniform(0.1, 0.9, size=(ROWS, 2))
WEIGHT = generator.uniform(0.5, 2.0, size=ROWS)
# One value that is not finite, and values that some losses cannot have as targets.
Y_WITH_NAN = np.where(np.arange(ROWS)[:, None] == 4, np.nan, Y)

# A function that moves data to a device that a guard watches.
Put: TypeAlias = Callable[[Any], Any]


@pytest.fixture(params=[*map(needing, GUARDED)])
def put(request: pytest.FixtureRequest) -> Put:
    """Return a function that moves data to a device that a guard watches."""
    return lambda x: guarded_array(request.param, x, "float64")


@pytest.fixture
def moved(put: Put, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return the shapes of the arrays that ``to_host`` moves, one for each call."""
    kind = type(bx.resolve(put(X)).backend)
    to_host, shapes = kind.to_host, []

    def counted(self: Any, array: Any) -> Any:
        shapes.append(tuple(array.shape))
        return to_host(self, array)

    monkeypatch.setattr(kind, "to_host", counted)
    return shapes


class Entry(NamedTuple):
    """A call of public functions, and the shapes that it moves; None allows explicit transfers."""

    call: Callable[[Put], object]
    moved: Sequence[tuple[int, ...]] | None = ()


def _network(activation: str = "gelu", loss: str = "log_cosh") -> bx.Network:
    return bx.Network(
        [
            bx.Dense(3, 4, activation),
            bx.LayerNorm(4),
            bx.Dropout(0.3),
            bx.Residual(bx.Dense(4, 4, "tanh"), bx.Dropout(0.2)),
            bx.Activate("silu"),
            bx.Dense(4, 2),
        ],
        loss,
        l2=0.1,
    )


def _initialize(network: bx.Network, like: Any, stack: tuple[int, ...] = ()) -> Any:
    choice = bx.resolve(like)
    return network.initialize(
        0, stack=stack, backend=choice.backend, device=choice.device, dtype="float64"
    )


def _integers(put: Put, values: list[int]) -> Any:
    choice = bx.resolve(put(X))
    return bx.asarray(values, backend=choice.backend, device=choice.device)


# ---- networks, metrics and data


def passes(activation: str = "gelu", loss: str = "log_cosh") -> Callable[[Put], object]:
    def call(put: Put) -> None:
        network = _network(activation, loss)
        x, y, weight, l2 = put(X), put(Y), put(WEIGHT), put([0.1, 0.2])
        y = y[:, : 2 // network.loss_function.outputs_per_target]
        theta = _initialize(network, x, (2,))
        network.predict(theta, x)
        network.loss(theta, x, y, sample_weight=weight, l2=l2)
        network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=3, l2=l2)
        network.vjp(theta, x, network.forward(theta, x), rng=3)
        network.pack(network.unpack(theta))
        network.weight_mask(theta)
        network.mask(theta, layers=[0])

    return call


def columns(stack: tuple[int, ...]) -> Callable[[Put], object]:
    def call(put: Put) -> None:
        columns = bx.Columns(bx.Embedding(3, 2), bx.NumericEmbedding(2))
        network = bx.Network([columns, bx.Scale(10), bx.Dense(10, 2)], "log_cosh")
        x, y = put(np.hstack([np.arange(ROWS)[:, None] % 3, X[:, 1:]])), put(Y)
        theta = _initialize(network, x, stack)
        network.loss_and_gradient(theta, x, y)
        network.vjp(theta, x, network.forward(theta, x))

    return call


def labels(put: Put) -> None:
    network = _network(loss="categorical_cross_entropy")
    theta = _initialize(network, put(X))
    network.loss_and_gradient(theta, put(X), _integers(put, [0, 1, 1, 0, 1, 0]))


def metric(name: str) -> Callable[[Put], object]:
    return lambda put: getattr(bx.metrics, name)(put(np.stack([Y, 1.0 - Y])), put(Y), put(WEIGHT))


def preparation(put: Put) -> None:
    x, y = put(X), put(Y)
    train = bx.data.standardize(x)
    bx.data.standardize(x, mean=train.mean, scale=train.scale)
    bx.data.split(x, y)
    assert len([*bx.data.minibatches(x, y, batch_size=4)]) == 2


def equality(put: Put) -> None:
    rate = put([[0.1], [0.2]])
    assert bx.AdamW(0.1, mask=rate) == bx.AdamW(0.1, mask=rate)


# ---- optimizers

RATES: dict[str, tuple[Callable[[Put], Any], list[tuple[int, ...]]]] = {
    "number": (lambda put: 0.1, []),
    # The constructor checks the rates of the networks once.
    "per network": (lambda put: put([[0.1], [0.2]]), [(2, 1)]),
    "schedule": (lambda put: bx.schedules.warmup(bx.schedules.cosine(1e-2, 20), 3), []),
}
OPTIMIZERS: dict[str, Callable[[Any, Any], Any]] = {
    "SGD": lambda rate, theta: bx.SGD(rate, momentum=0.9, nesterov=True),
    "RMSProp": lambda rate, theta: bx.RMSProp(rate),
    "Adam": lambda rate, theta: bx.Adam(rate),
    "AdamW": lambda rate, theta: bx.AdamW(rate, mask=_network().weight_mask(theta), amsgrad=True),
    "Adagrad": lambda rate, theta: bx.Adagrad(rate),
    "Nadam": lambda rate, theta: bx.Nadam(rate),
    "Lion": lambda rate, theta: bx.Lion(rate, weight_decay=0.1),
}


def updates(make: Callable[[Any, Any], Any], rate: Callable[[Put], Any]) -> Callable[[Put], object]:
    def call(put: Put) -> None:
        theta = _initialize(_network(), put(X), (2,))
        gradient, optimizer = 0.5 * theta, make(rate(put), theta)
        state = optimizer.initialize(theta)
        for _ in range(2):
            theta, state = optimizer.update(theta, 1.0 * gradient, state)

    return call


# ---- trainings


def train(stack: tuple[int, ...]) -> Callable[[Put], object]:
    def call(put: Put) -> None:
        network, x, y, weight = _network(), put(X), put(Y), put(WEIGHT)
        options: dict[str, Any] = {"optimizer": bx.Adam(1e-2), "epochs": 3, "batch_size": 4}
        options |= {"validation": (x, y, weight), "clip": 0.5, "check_every": 2}
        theta = _initialize(network, x, stack)
        for state in bx.train(network, theta, x, y, sample_weight=weight, **options):
            assert [verdict for verdict, _ in state.checks] == ["pass"]
        assert state.epoch == 3

    return call


def fit(epochs: int, **more: Any) -> Callable[[Put], object]:
    def call(put: Put) -> None:
        network, x, y = _network(), put(X), put(Y)
        options: dict[str, Any] = {"optimizer": bx.Adam(1e-2), "batch_size": 4, "clip": 0.5}
        theta = _initialize(network, x, (2,))
        result = bx.fit(network, theta, x, y, epochs=epochs, validation=(x, y), **options, **more)
        assert result.history["validation_loss"].shape == (epochs, 2)
        assert result.epochs == epochs

    return call


def share(loss: str, y: np.ndarray) -> Callable[[Put], object]:
    """Return a training with a share of the rows for validation; classes are drawn alike."""

    def call(put: Put) -> None:
        network, x, are_classes = _network(loss=loss), put(X), loss == "categorical_cross_entropy"
        options: dict[str, Any] = {"validation": 0.4, "train_metrics": True, "optimizer": "adam"}
        if are_classes:
            options |= {"class_weight": "balanced", "metrics": ["accuracy", "roc_auc"]}
        for _ in bx.train(network, _initialize(network, x, (2,)), x, put(y), epochs=2, **options):
            pass

    return call


def by_objective(optimizer: Any) -> Callable[[Put], object]:
    """Return a training without dropout by an optimizer that evaluates the objective."""

    def call(put: Put) -> None:
        network, x, y = bx.mlp([3, 4, 2], hidden="tanh"), put(X), put(Y)
        theta, data = _initialize(network, x, (2,)), {"sample_weight": put(WEIGHT)}
        result = bx.fit(network, theta, x, y, optimizer=optimizer, epochs=25, **data)
        assert result.best_member().shape == (network.size,)

    return call


STOPPING = bx.EarlyStopping(5)
SIZE = _network().size
# Options of fit, and the transfers of an epoch: scores, errors of checks, losses for progress.
OBSERVERS: dict[str, tuple[dict[str, Any], list[tuple[int, ...]]]] = {
    "nothing": ({}, []),
    "progress": ({"progress": True}, [(4,)]),
    "early stopping": ({"early_stopping": STOPPING}, [(2,)]),
    "plateau": ({"plateau": bx.Plateau(0.5, patience=1)}, [(2,)]),
    "gradient checks": ({"check_every": 1}, [(2,), (2,)]),
    "all": (
        {"progress": True, "early_stopping": STOPPING, "check_every": 2}
        | {"callbacks": [lambda state: False]},
        [(2,), (2,), (4,)],
    ),
}


def invalid(message: str, *, loss: str = "log_cosh", **bad: np.ndarray) -> Callable[[Put], object]:
    """Return a call of train that raises for the targets of training or validation."""

    def call(put: Put) -> None:
        network, x = _network(loss=loss), put(X)
        y, validation_y = put(bad.get("y", Y)), put(bad.get("validation_y", Y))
        options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1}
        with pytest.raises(ValueError, match=message):
            bx.train(
                network, _initialize(network, x), x, y, validation=(x, validation_y), **options
            )

    return call


# ---- gradient checks


def checks(method: str) -> Callable[[Put], object]:
    def call(put: Put) -> None:
        network, x, y, weight = _network("tanh"), put(X), put(Y), put(WEIGHT)
        theta = _initialize(network, x)
        options: dict[str, Any] = {"sample_weight": weight, "rng": 3, "method": method}
        report = bx.check_network(network, theta, x, y, **options)
        assert report.passed, report
        wrong = bx.check_gradient(
            lambda theta: network.loss(theta, x, y),
            lambda theta: -2.0 * network.loss_and_gradient(theta, x, y)[1],
            theta,
            method=method,
        )
        assert wrong.verdict == "fail"
        assert str(wrong)
        assert bx.check_layer(bx.LayerNorm(3), x, method=method).passed
        assert bx.check_loss("huber", x, 0.5 * x, method=method).passed

    return call


METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]
POSITIVE = [name for name, loss in LOSSES.items() if loss.targets[0] == 0.0]
# The first transfer of a training is one array of flags: whether x, y, the weights and their
# values are finite and in range, for training and for validation. The second is theta: its checksum
# tells whether a later ``start=`` resumes the same training.
ENTRIES: dict[str, Entry] = {
    **{f"network, {name}": Entry(passes(activation=name)) for name in ACTIVATIONS},
    **{f"network, {name}": Entry(passes(loss=name)) for name in LOSSES},
    **{f"columns, {stack}": Entry(columns(stack)) for stack in ((), (2,))},
    "labels": Entry(labels),
    **{
        f"metric, {name}": Entry(metric(name))
        for name in ("accuracy", "balanced_accuracy", "r2", "rmse")
    },
    "preparation of data": Entry(preparation),
    "one_hot": Entry(lambda put: bx.data.one_hot(_integers(put, [0, 2, 1])), [(2,)]),
    "equality": Entry(equality),
    **{
        f"{name}, rate: {rate}": Entry(updates(make, value), shapes)
        for name, make in OPTIMIZERS.items()
        for rate, (value, shapes) in RATES.items()
    },
    # Each gradient check moves one error of every network.
    **{
        f"train, {stack}": Entry(train(stack), [(12,), (*stack, SIZE), *[stack] * 3])
        for stack in ((), (2,))
    },
    **{
        # The flags of the data first, the history last.
        f"fit, {epochs} epochs, {name}": Entry(
            fit(epochs, **options), [(8,), (2, SIZE), *shapes * epochs, (4 * epochs,)]
        )
        for epochs in (1, 4)
        for name, (options, shapes) in OBSERVERS.items()
    },
    # The saturated slopes and the sizes of x's columns are read at the start.
    **{
        f"fit, {type(optimizer).__name__}": Entry(
            by_objective(optimizer), [(6,), (2, 26), (), (3,), (2, 1), (50,)]
        )
        for optimizer in (bx.LevenbergMarquardt(tolerance=0.0), bx.LBFGS(3, tolerance=0.0))
    },
    "train, a share of the rows": Entry(share("log_cosh", Y), [(4,), (2, SIZE)]),
    # The labels of the classes too, and whether both parts weigh anything.
    "train, a share of each class": Entry(
        share("categorical_cross_entropy", np.eye(2)[np.arange(ROWS) % 2]),
        [(3,), (ROWS,), (2,), (2, SIZE)],
    ),
    "train, nan in y": Entry(
        invalid(r"^y has no measured value, .* first y\[4\]", y=Y_WITH_NAN), [(8,), (ROWS,)]
    ),
    "train, nan in validation": Entry(
        invalid(
            r"^In validation: y has no measured value, .* first y\[4\]", validation_y=Y_WITH_NAN
        ),
        [(8,), (ROWS,)],
    ),
    **{
        f"train, negative targets of {name}": Entry(
            invalid(r"^In validation: y has 12 values", loss=name, validation_y=-Y),
            [(10 if takes_column_weights(LOSSES[name]) else 6,), (ROWS, 2)],
        )
        for name in POSITIVE
    },
    **{f"gradient checks, {method}": Entry(checks(method), None) for method in METHODS},
}


@pytest.mark.parametrize("entry", ENTRIES.values(), ids=ENTRIES)
def test_a_public_function_moves_only_known_arrays(
    put: Put, moved: list[tuple[int, ...]], entry: Entry
) -> None:
    with bx.transfer_guard("disallow"):
        entry.call(put)
    assert entry.moved is None or moved == [*entry.moved]
