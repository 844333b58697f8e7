"""The library itself under a guard: nothing leaves the device but what it moves on purpose."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import device_of
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.networks.losses import LOSSES
from tests.helpers import GUARDED, guarded_array

pytestmark = pytest.mark.installed

ROWS = 6

generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, 3))
Y = generator.uniform(0.1, 0.9, size=(ROWS, 2))
WEIGHT = generator.uniform(0.5, 2.0, size=ROWS)


@pytest.fixture(params=GUARDED)
def put(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """A function that puts data where a guard holds."""
    return lambda x: guarded_array(request.param, x, "float64")


@pytest.fixture
def moved(put: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The shapes that go through ``to_host``, one for each call."""
    kind = type(bx.resolve(put(X)).backend)
    to_host, shapes = kind.to_host, []

    def counted(self: Any, array: Any) -> Any:
        shapes.append(tuple(array.shape))
        return to_host(self, array)

    monkeypatch.setattr(kind, "to_host", counted)
    return shapes


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


def _theta(network: bx.Network, like: Any, stack: tuple[int, ...] = ()) -> Any:
    choice = bx.resolve(like)
    return network.initialize(
        0, stack=stack, backend=choice.backend, device=choice.device, dtype="float64"
    )


EACH_ONCE = [(name, "log_cosh") for name in ACTIVATIONS] + [("gelu", name) for name in LOSSES]


@pytest.mark.parametrize(("activation", "loss"), EACH_ONCE)
def test_a_pass_forward_and_back_moves_nothing(
    put: Any, moved: list[Any], activation: str, loss: str
) -> None:
    network = _network(activation, loss)
    x, y, weight = put(X), put(Y), put(WEIGHT)
    y = y[:, : 2 // network.loss_function.outputs_per_target]
    theta = _theta(network, x, (2,))
    l2 = put([0.1, 0.2])
    with bx.transfer_guard("disallow"):
        network.predict(theta, x)
        network.loss(theta, x, y, sample_weight=weight, l2=l2)
        network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=3, l2=l2)
        network.vjp(theta, x, network.forward(theta, x), rng=3)
        network.pack(network.unpack(theta))
        network.weight_mask(theta)
    assert not moved


@pytest.mark.parametrize("rate", ["number", "per network", "schedule"])
@pytest.mark.parametrize(
    "make",
    [
        lambda rate, theta: bx.SGD(rate, momentum=0.9, nesterov=True),
        lambda rate, theta: bx.RMSProp(rate),
        lambda rate, theta: bx.Adam(rate),
        lambda rate, theta: bx.AdamW(rate, mask=_network().weight_mask(theta)),
    ],
    ids=["SGD", "RMSProp", "Adam", "AdamW"],
)
def test_an_update_moves_nothing(put: Any, moved: list[Any], make: Any, rate: str) -> None:
    rates = {
        "number": 0.1,
        "per network": put([[0.1], [0.2]]),
        "schedule": bx.schedules.warmup(bx.schedules.cosine(1e-2, 20), 3),
    }
    theta = _theta(_network(), put(X), (2,))
    gradient = 0.5 * theta
    with bx.transfer_guard("disallow"):
        optimizer = make(rates[rate], theta)
        # A rate of each network's own is looked at once, when the optimizer is made.
        assert moved == [(2, 1)] * (rate == "per network")
        moved.clear()
        state = optimizer.initialize(theta)
        for _ in range(2):
            theta, state = optimizer.update(theta, 1.0 * gradient, state)
    assert not moved


@pytest.mark.parametrize("stack", [(), (2,)])
def test_training_moves_one_small_array_at_its_start_and_nothing_after(
    put: Any, moved: list[Any], stack: tuple[int, ...]
) -> None:
    network, x, y, weight = _network(), put(X), put(Y), put(WEIGHT)
    options: dict[str, Any] = {"optimizer": bx.Adam(1e-2), "epochs": 3, "batch_size": 4}
    held_out: dict[str, Any] = {"validation": (x, y, weight), "clip": 0.5, "check_every": 2}
    theta = _theta(network, x, stack)
    with bx.transfer_guard("disallow"):
        states = bx.train(network, theta, x, y, sample_weight=weight, **options, **held_out)
        # One flag for each of x, y, the weights and what weights may be, here and held out.
        assert moved == [(8,)]
        for state in states:
            assert [verdict for verdict, _ in state.checks] == ["pass"]
    # Beside it only what each check of a gradient found, of every network.
    assert moved == [(8,), *(stack for _ in range(3))]
    assert state.epoch == 3


ONCE: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1}
STOPPING = bx.EarlyStopping(5)
LOOKS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "progress": {"progress": True},
    "early stopping": {"early_stopping": STOPPING},
    "gradient checks": {"check_every": 1},
    "all of them": {"progress": True, "early_stopping": STOPPING, "check_every": 2}
    | {"callbacks": [lambda state: False]},
}


@pytest.mark.parametrize("looks", LOOKS)
def test_who_looks_at_an_epoch_makes_one_transfer_and_the_history_one_of_all(
    put: Any, moved: list[Any], looks: str
) -> None:
    """After the check of the data; an epoch that nobody looks at makes none."""
    network, x, y, given = _network(), put(X), put(Y), LOOKS[looks]
    options: dict[str, Any] = {"optimizer": bx.Adam(1e-2), "batch_size": 4, "clip": 0.5}
    for epochs in (1, 4):
        theta = _theta(network, x, (2,))
        moved.clear()
        with bx.transfer_guard("disallow"):
            result = bx.fit(
                network, theta, x, y, epochs=epochs, validation=(x, y), **options, **given
            )
        assert result.history["validation_loss"].shape == (epochs, 2)
        # A gradient check moves what one difference found; epochs are of two batches or three.
        checks = len(result.history.get("gradient_verdict", []))
        looked = epochs * (("progress" in given) + ("early_stopping" in given))
        assert len(moved) == 1 + looked + checks + 1, moved


def test_a_share_of_the_rows_is_drawn_by_a_transfer_of_the_labels_alone(
    put: Any, moved: list[Any]
) -> None:
    labels = np.arange(ROWS) % 2
    for loss, y, drawn in (
        ("log_cosh", put(Y), []),
        ("categorical_cross_entropy", put(np.eye(2)[labels]), [(ROWS,)]),
    ):
        network = _network(loss=loss)
        theta, metrics = _theta(network, put(X), (2,)), ["accuracy", "roc_auc"] * (drawn != [])
        moved.clear()
        options: dict[str, Any] = {"validation": 0.4, "metrics": metrics, "train_metrics": True}
        options |= {"class_weight": "balanced"} if drawn else {}
        with bx.transfer_guard("disallow"):
            for _ in bx.train(network, theta, put(X), y, optimizer="adam", epochs=2, **options):
                pass
        # Beside a flag for x, y and their range.
        assert moved == [(2 + bool(drawn),), *drawn]


@pytest.mark.parametrize("place", ["rows", "validation"])
def test_a_value_that_is_not_finite_is_found_by_two_transfers(
    put: Any, moved: list[Any], place: str
) -> None:
    network, x, y = _network(), put(X), put(Y)
    bad = put(np.where(np.arange(ROWS)[:, None] == 4, np.nan, Y))
    rows, held_out = (bad, y) if place == "rows" else (y, bad)
    options: dict[str, Any] = {**ONCE, "validation": (x, held_out)}
    with bx.transfer_guard("disallow"), pytest.raises(ValueError, match=r"nan at y\[4, 0\]") as e:
        bx.train(network, _theta(network, x), x, rows, **options)
    assert str(e.value).startswith("In validation: ") is (place == "validation")
    assert moved == [(4,), (ROWS, 2)]


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if loss.targets[0] == 0.0])
def test_targets_that_a_loss_cannot_mean_are_looked_for_in_the_same_transfer(
    put: Any, moved: list[Any], loss: str
) -> None:
    network, x, y = _network(loss=loss), put(X), put(Y)
    theta = _theta(network, x)
    with bx.transfer_guard("disallow"):
        bx.train(network, theta, x, y, validation=(x, y), **ONCE)
        # A flag for x, y and what y may be, here and held out.
        assert moved == [(6,)]
        with pytest.raises(ValueError, match=r"^In validation: y has 12 values"):
            bx.train(network, theta, x, y, validation=(x, -1.0 * y), **ONCE)
    assert moved == [(6,), (6,), (ROWS, 2)]


def test_preparing_data_moves_nothing_but_the_range_of_labels(put: Any, moved: list[Any]) -> None:
    x, y = put(X), put(Y)
    labels = bx.asarray([0, 2, 1], backend=bx.resolve(x).backend, device=device_of(x))
    with bx.transfer_guard("disallow"):
        train = bx.data.standardize(x)
        bx.data.standardize(x, mean=train.mean, scale=train.scale)
        bx.data.split(x, y)
        assert len([*bx.data.minibatches(x, y, batch_size=4)]) == 2
        assert not moved
        bx.data.one_hot(labels)
    assert moved == [(2,)]


@pytest.mark.parametrize("method", ["auto", "complex_step", "centered", "directional", "taylor"])
def test_a_gradient_check_moves_nothing_unasked(put: Any, method: str) -> None:
    network = _network("tanh")
    x, y, weight = put(X), put(Y), put(WEIGHT)
    theta = _theta(network, x)
    with bx.transfer_guard("disallow"):
        report = bx.check_network(network, theta, x, y, sample_weight=weight, rng=3, method=method)
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
