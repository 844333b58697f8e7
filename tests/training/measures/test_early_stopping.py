"""Early stopping, on a network of one bias b whose losses are b * b.

A schedule gives b the magnitudes of a path.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace

XOR = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]


def _case(xp: Any) -> tuple[Any, ...]:
    """Return a network, a theta and data of two targets."""
    generator, network = np.random.default_rng(31), bx.mlp([3, 5, 2], hidden="tanh")
    rows = generator.normal(size=(11, 3)), generator.normal(size=(11, 2))
    return network, xp.initialize(network), *xp.put(*rows)


def _led(xp: Any, *paths: list[float]) -> tuple[bx.Network, Any, Any]:
    """Return a network, theta and optimizer: member i's |b| after epoch k is paths[i][k + 1]."""
    network = bx.mlp([1, 1])
    theta = np.asarray([[0.0, path[0]] for path in paths])
    # The gradient is 2 b: b - r 2 b = -b', so signs alternate and rates are positive.
    rates = [
        xp.asarray([[0.5 * (1.0 + path[k + 1] / path[k])] for path in paths])
        for k in range(len(paths[0]) - 1)
    ]
    return network, xp.asarray(theta), bx.SGD(lambda step: rates[step])


def _fit_led(xp: Any, rule: bx.EarlyStopping, *paths: list[float], **options: Any) -> Any:
    network, theta, optimizer = _led(xp, *paths)
    x, y = xp.put([[0.0]], [[0.0]])
    options = {"epochs": len(paths[0]) - 1, "validation": (x, y), **options}
    return bx.fit(network, theta, x, y, optimizer=optimizer, early_stopping=rule, **options)


def _biases(xp: Any, result: Any) -> list[float]:
    return np.abs(xp.host(result.theta)[:, 1]).tolist()


def test_the_bias_follows_its_prescribed_path(xp: Any) -> None:
    """The tests below depend on it."""
    result = _fit_led(xp, bx.EarlyStopping(patience=99), [4.0, 2.0, 8.0, 1.0, 0.5])
    assert result.history["loss"].ravel().tolist() == [16.0, 4.0, 64.0, 1.0]
    assert result.history["validation_loss"].ravel().tolist() == [4.0, 64.0, 1.0, 0.25]


# Options, each network's |b| before the first and after each epoch, the last epoch, the returned
# |b|. Factors have few bits, so they are exact even if a compiler fuses a product and a sum.
SEQUENCES: dict[str, tuple[dict[str, Any], list[list[float]], int, list[float]]] = {
    "improves to the end": ({"patience": 1}, [[16, 8, 4, 2, 1]], 4, [1]),
    "no better once": ({"patience": 1}, [[16, 8, 4, 4, 1]], 3, [4]),
    "no better twice": ({"patience": 2}, [[16, 8, 4, 4, 1, 1, 2, 0.5]], 6, [1]),
    "better in time": ({"patience": 3}, [[16, 8, 4, 4, 1, 1, 2, 0.5]], 7, [0.5]),
    "waits anew after each improvement": ({"patience": 2}, [[16, 8, 16, 4, 8, 2, 4, 8, 1]], 7, [2]),
    "worse from the first epoch on": ({"patience": 2}, [[16, 1, 2, 4, 8]], 3, [1]),
    # Losses 4, 3.52, 3.52, 0.88: only the last one is below 4 by more than 1.
    "falls smaller than min_delta": (
        {"patience": 3, "min_delta": 1.0},
        [[4, 2, 1.875, 1.875, 0.9375, 0.9375, 0.9375, 0.9375]],
        7,
        [0.9375],
    ),
    "a fall of just min_delta": ({"patience": 1, "min_delta": 3.0}, [[4, 2, 1, 1]], 2, [2]),
    "a stack goes on while one network improves": (
        {"patience": 2},
        [[8, 4, 8, 8, 8, 8, 8, 8], [8, 8, 4, 2, 1, 2, 2, 0.5]],
        6,
        [4, 1],
    ),
    "each network is given back as at its own best epoch": (
        {"patience": 99},
        [[8, 1, 2, 4], [8, 4, 2, 4], [8, 4, 2, 1], [8, 9, 9, 9]],
        3,
        [1, 2, 1, 9],
    ),
    "a network that has ended stays as it ended": (
        {"patience": 1},
        [[8, 4, 8, 2, 1], [8, 4, 2, 1, 0.5]],
        4,
        [4, 0.5],
    ),
    "it does so without restore_best": (
        {"patience": 1, "restore_best": False},
        [[8, 4, 8, 2, 1], [8, 4, 2, 1, 2]],
        4,
        [8, 2],
    ),
    "without restore_best": ({"patience": 2, "restore_best": False}, [[8, 4, 8, 16, 2]], 3, [16]),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_training_ends_after_patience_epochs_without_improvement(xp: Any, name: str) -> None:
    options, paths, end, best = SEQUENCES[name]
    result = _fit_led(xp, bx.EarlyStopping(**options), *paths)
    assert result.epochs == end
    assert result.history["validation_loss"].shape == (end, len(paths))
    assert _biases(xp, result) == best


def test_without_validation_the_training_loss_after_the_epoch_decides(xp: Any) -> None:
    # Both measures are in the history.
    path = [8.0, 4.0, 8.0, 16.0, 2.0, 1.0]
    result = _fit_led(xp, bx.EarlyStopping(patience=2), path, validation=None)
    assert result.epochs == 3
    assert result.history["loss"].ravel().tolist() == [64.0, 16.0, 64.0]
    assert result.history["training_loss"].ravel().tolist() == [16.0, 64.0, 256.0]
    assert _biases(xp, result) == [4.0]


@pytest.mark.parametrize("stack", [(), (3,)])
def test_theta_and_the_optimizers_state_are_those_of_the_best_epoch(
    xp: Any, stack: tuple[int, ...]
) -> None:
    network = bx.mlp([2, 4, 1], hidden="tanh", l2=1e-3)
    x, y = xp.asarray(XOR[0]), xp.asarray(XOR[1])
    start = xp.initialize(network, seed=0, stack=stack)
    options = {"optimizer": bx.Adam(0.9), "epochs": 9, "seed": 1}  # too fast: the loss rises
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


def test_a_loss_of_nan_never_improves(xp: Any) -> None:
    network, theta, optimizer = _led(xp, [8.0, 4.0, 2.0, 2.0, 2.0], [8.0] * 5)
    host = np.array(xp.host(theta))
    host[1] = np.nan
    case = network, xp.asarray(host), *xp.put([[0.0]], [[0.0]])
    rule = bx.EarlyStopping(patience=1)
    result = bx.fit(*case, optimizer=optimizer, epochs=4, early_stopping=rule)
    assert result.epochs == 3
    assert _biases(xp, result)[0] == 2.0


def test_train_stops_early_and_its_states_have_the_best_theta(xp: Any) -> None:
    network, theta, optimizer = _led(xp, [16.0, 8.0, 4.0, 4.0, 8.0, 1.0])
    options = {"epochs": 5, "early_stopping": bx.EarlyStopping(patience=2)}
    data = xp.put([[0.0]], [[0.0]])
    *_, last = bx.train(network, theta, *data, optimizer=optimizer, **options)
    assert (last.epoch, _biases(xp, last.best)) == (4, [4.0])


@pytest.mark.parametrize(("mode", "best"), [("max", 8.0), ("min", 1.0)])
def test_early_stopping_watches_a_metric(xp: Any, mode: Any, best: float) -> None:
    rule = bx.EarlyStopping(patience=9, watch="size", mode=mode)
    metrics = {"size": lambda p, t, w: array_namespace(p).abs(p)[..., 0, 0]}
    path = [4.0, 2.0, 8.0, 1.0, 2.0]
    result = _fit_led(xp, rule, path, validation=None, metrics=metrics)
    assert result.history["size"].ravel().tolist() == path[1:]
    assert _biases(xp, result) == [best]
    assert result.state.best.epoch.tolist() == [path.index(best)]


def _size(p: Any, t: Any, w: Any) -> Any:
    return array_namespace(p).abs(p)[..., 0, 0]


@pytest.mark.parametrize(("own", "best"), [("max", 8.0), ("min", 1.0)])
def test_a_rule_without_a_mode_asks_the_metric(xp: Any, own: str, best: float) -> None:
    def metric(p: Any, t: Any, w: Any) -> Any:
        return _size(p, t, w)

    metric.mode = own  # type: ignore[attr-defined]
    path = [4.0, 2.0, 8.0, 1.0, 2.0]
    for watch in ("size", "training_size"):
        options = {"metrics": {"size": metric}, "train_metrics": True}
        options |= {"optimizer": bx.SGD(0.0), "plateau": bx.Plateau(watch=watch)}
        rule = bx.EarlyStopping(patience=9, watch=watch)
        assert _biases(
            xp, _fit_led(xp, rule, path, metrics={"size": metric}, train_metrics=True)
        ) == [best]
        case, state = _case(xp), None
        *_, state = bx.train(*case, epochs=2, early_stopping=rule, **options)
        assert (state.best.mode, state.slowed.mode) == (own, own)


def test_a_rule_without_a_mode_maximizes_accuracy_and_minimizes_a_loss(xp: Any) -> None:
    options = {"metrics": ["accuracy", "rmse"], "epochs": 1, "train_metrics": True}
    for watch, mode in (
        (None, "min"),
        ("rmse", "min"),
        ("training_accuracy", "max"),
        ("training_loss", "min"),
    ):
        rules = {
            "early_stopping": bx.EarlyStopping(watch=watch),
            "plateau": bx.Plateau(watch=watch),
        }
        (state,) = bx.train(*_case(xp), optimizer=bx.SGD(0.1), **rules, **options)
        assert (state.best.mode, state.slowed.mode) == (mode, mode)


@pytest.mark.parametrize(
    ("watch", "option"),
    [
        ("validation_loss", r"validation=, such as 0\.2"),
        ("r2", r"metrics=\['r2'\]"),
        ("training_r2", r"metrics=\['r2'\]"),
    ],
)
def test_the_error_for_a_measure_that_a_training_lacks_names_its_option(
    xp: Any, watch: str, option: str
) -> None:
    for name, kind in (("early_stopping", bx.EarlyStopping), ("plateau", bx.Plateau)):
        with pytest.raises(ValueError, match=f"{name} watches .* That one needs {option}"):
            bx.fit(*_case(xp), epochs=1, optimizer=bx.SGD(0.1), **{name: kind(watch=watch)})


def test_a_rule_needs_a_mode_for_a_metric_without_one(xp: Any) -> None:
    options = {"metrics": {"size": _size}, "epochs": 1, "optimizer": bx.SGD(0.1)}
    for rules in (
        {"early_stopping": bx.EarlyStopping(watch="size")},
        {"plateau": bx.Plateau(watch="size")},
    ):
        with pytest.raises(ValueError, match=r"watches 'size', .* mode=\"max\" or mode=\"min\""):
            bx.fit(*_case(xp), **{**options, **rules})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"patience": 0}, ValueError, "patience must be an integer of at least 1, not 0"),
        ({"min_delta": -0.1}, ValueError, r"min_delta must be >= 0, not -0\.1"),
        ({"min_delta": "1"}, TypeError, "min_delta must be a number"),
        ({"watch": 3}, TypeError, "watch must be the name of a metric or a loss, not 3"),
        ({"mode": "least"}, ValueError, "mode must be"),
        ({"restore_best": "no"}, TypeError, "restore_best must be True or False, not 'no'"),
    ],
)
def test_impossible_early_stopping_is_an_error_that_names_it(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.EarlyStopping(**options)
