"""Weights of the entries of y, and NaN in it: losses, gradients, and trainings on them."""

import itertools
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import TrainingTable, holding
from backprop_xp.networks.losses.column_weights import takes_column_weights

# Some tens of roundings, relative to losses and gradients of about 1.
ROUNDING = 1e-13
# A few dozen updates pass on the roundings of those before them.
SAME_TRAINING = 1e-11
ROWS, N = 11, 3
generator = np.random.default_rng(90)
X, Y = generator.normal(size=(ROWS, 2)), generator.normal(size=(ROWS, N))
WEIGHT = generator.uniform(0.5, 2.0, (ROWS, N)) * (generator.uniform(size=(ROWS, N)) < 0.7)
WEIGHT[3], WEIGHT[5] = 0.0, 1.0
GAPS = np.where(generator.uniform(size=Y.shape) < 0.3, np.nan, Y)
GAPS[:, 0] = Y[:, 0]

LOSSES: dict[str, bx.Loss] = {
    **{name: loss for name, loss in bx.losses.LOSSES.items() if takes_column_weights(loss)},
    "quantile": bx.losses.quantile(0.1, 0.5, 0.8),
    "tweedie": bx.losses.tweedie(2.0),
    "smoothed": bx.losses.smoothed("binary_cross_entropy", 0.1),
    "own": bx.losses.over_outputs(lambda o, t: ((o - t) ** 4, 4.0 * (o - t) ** 3)),
}


def network_of(loss: Any = "mean_squared_error") -> bx.Network:
    blocks = LOSSES[loss].outputs_per_target
    return bx.mlp([2, 5, blocks * N], hidden="tanh", loss=LOSSES[loss], l2=0.1)


def targets_of(loss: str, y: np.ndarray = Y) -> np.ndarray:
    low, high = LOSSES[loss].targets
    return y if low < -1.0 else np.clip(np.abs(y), low, high)


def theta_of(network: bx.Network, stack: tuple[int, ...] = ()) -> np.ndarray:
    return generator.normal(size=(*stack, network.size))


def test_all_losses_of_separate_outputs_take_weights_of_entries() -> None:
    other = {"categorical_cross_entropy", "hinge"}
    assert {*bx.losses.LOSSES} - {*LOSSES} == other
    assert not takes_column_weights(bx.losses.focal(1.0))
    mixed = bx.Loss(bx.losses.huber.value, lambda o, t: o - t)
    assert not takes_column_weights(mixed)


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_the_weighted_mean_over_all_entries(xp: Any, name: str) -> None:
    network, y = network_of(name), targets_of(name)
    theta, loss = theta_of(network), LOSSES[name]
    found = network.loss(*xp.put(theta, X, y), sample_weight=xp.asarray(WEIGHT), l2=0.0)
    outputs = network.forward(*xp.put(theta, X))
    each = []
    for j in range(N):
        own = [outputs[:, k * N + j, None] for k in range(loss.outputs_per_target)]
        column = xp.namespace.concat(own, axis=-1)
        each.append(xp.host(loss.value(column, xp.asarray(y[:, j, None]))))
    expected = np.sum(WEIGHT * np.stack(each, axis=-1)) / np.sum(WEIGHT)
    xp.assert_close(found, expected, ROUNDING)


@pytest.mark.float64  # float32 leaves a small entry of a smoothed loss inconclusive
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_weighted_entries_passes_the_check(xp: Any, name: str) -> None:
    network, y = network_of(name), targets_of(name, np.where(WEIGHT == 0.0, np.nan, Y))
    y = np.where(WEIGHT == 0.0, np.nan, y)
    theta = theta_of(network)
    report = bx.check_network(network, *xp.put(theta, X, y), sample_weight=xp.asarray(WEIGHT))
    assert report.passed, str(report)


def test_equal_weights_in_a_row_are_the_weight_of_the_row(xp: Any) -> None:
    network, weight = network_of(), WEIGHT[:, 0]
    given = xp.put(theta_of(network), X, Y)
    of_rows = network.loss_and_gradient(*given, sample_weight=xp.asarray(weight))
    entries = xp.asarray(np.repeat(weight[:, None], N, axis=1))
    of_entries = network.loss_and_gradient(*given, sample_weight=entries)
    for found, expected in zip(of_entries, of_rows, strict=True):
        xp.assert_close(found, expected, ROUNDING)
    one = bx.mlp([2, 1])
    given = xp.put(theta_of(one), X, Y[:, :1])
    both = [one.loss(*given, sample_weight=xp.asarray(w)) for w in (weight, weight[:, None])]
    xp.assert_equal(both[0], both[1])


def test_an_entry_of_weight_0_counts_for_nothing_even_if_it_overflows(xp: Any) -> None:
    network, weight = network_of(), WEIGHT.copy()
    weight[:, 2] = 0.0
    theta, wild = theta_of(network), np.where(weight == 0.0, np.nan, Y)
    expected = network.loss_and_gradient(*xp.put(theta, X, Y), sample_weight=xp.asarray(weight))
    found = network.loss_and_gradient(*xp.put(theta, X, wild), sample_weight=xp.asarray(weight))
    for ours, theirs in zip(found, expected, strict=True):
        xp.assert_equal(ours, theirs)
    theta[-1] = 1e30  # of float32, whose square overflows: the bias of the last output
    given = [xp.asarray(part, dtype="float32") for part in (theta, X, Y, weight)]
    loss, gradient = network.loss_and_gradient(*given[:3], sample_weight=given[3], l2=0.0)
    assert np.isfinite(xp.host(loss))
    assert np.all(np.isfinite(xp.host(gradient)))


def test_a_stack_may_have_weights_of_its_own(xp: Any) -> None:
    network = network_of()
    theta, weights = theta_of(network, (2, 2)), generator.uniform(size=(2, 2, ROWS, N))
    weights[0, 1] = WEIGHT
    given = xp.put(theta, X, Y)
    loss, gradient = network.loss_and_gradient(*given, sample_weight=xp.asarray(weights))
    for at in itertools.product(range(2), range(2)):
        one = xp.put(theta[at], X, Y)
        alone = network.loss_and_gradient(*one, sample_weight=xp.asarray(weights[at]))
        for found, expected in zip((loss, gradient), alone, strict=True):
            xp.assert_close(xp.host(found)[at], xp.host(expected), ROUNDING)


def fitted(xp: Any, y: np.ndarray, weight: Any = None, **options: Any) -> bx.FitResult:
    network = network_of(options.pop("loss", "mean_squared_error"))
    theta = xp.initialize(network, stack=options.pop("stack", ()))
    given = {"optimizer": bx.SGD(0.1), "epochs": 4, **options}
    weight = None if weight is None else xp.asarray(weight)
    return bx.fit(network, theta, *xp.put(X, y), sample_weight=weight, **given)


def test_a_training_steps_along_the_gradient_of_weighted_entries(xp: Any) -> None:
    network = network_of()
    theta = xp.initialize(network)
    for _ in range(4):
        given = theta, *xp.put(X, Y)
        _, gradient = network.loss_and_gradient(*given, sample_weight=xp.asarray(WEIGHT))
        theta = theta - 0.1 * gradient
    xp.assert_close(fitted(xp, Y, WEIGHT).theta, theta, SAME_TRAINING)


WAYS: dict[str, dict[str, Any]] = {
    "full batch": {"metrics": ["r2", "mae", "rmse"]},
    "batches": {"batch_size": 4, "train_metrics": True},
    "accumulated": {"batch_size": 2, "accumulate": 2},
    "share": {"validation": 0.3, "metrics": ["rmse"], "batch_size": 3},
    "checked": {"check_every": 2},
    "augmented": {"augment": lambda x, y, weight, seed: (x + 0.1, y, weight)},
    "stack": {"stack": (2,), "seed": (1, 2), "batch_size": 4},
    "huber": {"loss": "huber"},
}


@pytest.mark.parametrize("name", WAYS)
def test_values_that_were_not_measured_are_entries_of_weight_0(xp: Any, name: str) -> None:
    measured = np.where(np.isnan(GAPS), 0.0, 1.0)
    by_nan = fitted(xp, GAPS, **WAYS[name])
    by_weight = fitted(xp, np.where(np.isnan(GAPS), 7.0, GAPS), measured, **WAYS[name])
    xp.assert_close(by_nan.theta, by_weight.theta, SAME_TRAINING)
    assert by_nan.history.keys() == by_weight.history.keys()
    for key, values in by_nan.history.items():
        if key not in ("gradient_verdict", "gradient_error"):
            xp.assert_close(values, by_weight.history[key], SAME_TRAINING)
            assert np.all(np.isfinite(xp.host(values)))


def test_weights_of_rows_and_values_that_were_not_measured_multiply(xp: Any) -> None:
    row = np.linspace(0.0, 2.0, ROWS)
    measured = np.where(np.isnan(GAPS), 0.0, 1.0)
    expected = fitted(xp, Y, row[:, None] * measured, batch_size=4).theta
    xp.assert_close(fitted(xp, GAPS, row, batch_size=4).theta, expected, SAME_TRAINING)


def test_measures_of_a_validation_set_leave_out_what_was_not_measured(xp: Any) -> None:
    validation = xp.put(X, GAPS)
    result = fitted(xp, Y, validation=validation, metrics=["mae", "rmse", "r2"])
    residual = xp.host(network_of().predict(result.theta, xp.asarray(X))) - GAPS
    spread = GAPS - np.nanmean(GAPS, axis=0)
    expected = {
        "validation_loss": np.nanmean(residual**2),
        "mae": np.mean(np.nanmean(np.abs(residual), axis=0)),
        "rmse": np.mean(np.sqrt(np.nanmean(residual**2, axis=0))),
        "r2": np.mean(1.0 - np.nansum(residual**2, axis=0) / np.nansum(spread**2, axis=0)),
    }
    for name, value in expected.items():
        assert float(result.history[name][-1]) == pytest.approx(value, rel=xp.rounding(1e-12))


def test_a_metric_of_ones_own_gets_the_weights_of_entries(xp: Any) -> None:
    seen = []

    def own(predictions: Any, targets: Any, weights: Any) -> Any:
        seen.append((targets.shape, weights.shape))
        return xp.namespace.sum(weights * targets)

    result = fitted(xp, Y, WEIGHT, metrics=[own], epochs=1)
    assert set(seen) == {((ROWS, N), (ROWS, N))}
    assert float(result.history["own"][-1]) == pytest.approx(np.sum(WEIGHT * Y), rel=1e-5)


def test_batches_that_x_gives_may_have_gaps_or_weights(xp: Any) -> None:
    network = network_of()
    theta, measured = xp.initialize(network), np.where(np.isnan(GAPS), 0.0, 1.0)
    cuts = [slice(0, 4), slice(4, 8), slice(8, ROWS)]
    by_nan = [(X[cut], GAPS[cut]) for cut in cuts]
    by_weight = [(X[cut], Y[cut], measured[cut]) for cut in cuts]
    results = [
        bx.fit(network, theta, batches, optimizer=bx.SGD(0.1), epochs=2)
        for batches in (by_nan, by_weight)
    ]
    xp.assert_close(results[0].theta, results[1].theta, SAME_TRAINING)
    xp.assert_close(results[0].history["loss"], results[1].history["loss"], SAME_TRAINING)


def test_compiled_loops_leave_weighted_entries_to_the_formula() -> None:
    kernels = pytest.importorskip("backprop_xp.backends.libraries.numpy.kernels")
    network = network_of()
    theta = theta_of(network)
    table = TrainingTable(kernels.REPLACEMENTS, theta, network.layers)
    for weight in (WEIGHT, WEIGHT[:, 0]):
        expected = network.loss(theta, X, Y, sample_weight=weight)
        with holding(table):
            found = network.loss(theta, X, Y, sample_weight=weight)
        np.testing.assert_allclose(found, expected, rtol=ROUNDING)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "loss of classes": (
        {"loss": "categorical_cross_entropy", "y": np.eye(3)[np.arange(ROWS) % 3]},
        r"shape \(11, 3\), a weight for each column of y, but categorical.*over_outputs",
    ),
    "negative": ({"sample_weight": -WEIGHT}, "sample_weight must not be negative"),
    "negative beside positive": (
        {"sample_weight": np.where(np.arange(N) == 1, -0.1, 1.0) * np.ones((ROWS, 1))},
        "sample_weight must not be negative",
    ),
    "not finite": (
        {"sample_weight": np.where(WEIGHT > 1.0, np.inf, WEIGHT)},
        "sample_weight has .* not finite",
    ),
    "shape": ({"sample_weight": WEIGHT[:, :2]}, r"shape \(11, 2\), but one weight for each of the"),
    "row without a value": (
        {"y": np.where(np.arange(ROWS)[:, None] == 4, np.nan, GAPS), "sample_weight": None},
        r"y has no measured value, only NaN, in 1 of 11 rows, the first y\[4\]",
    ),
    "infinite": (
        {"y": np.where(np.isnan(GAPS), np.inf, GAPS), "sample_weight": None},
        r"y has \d+ values that are not finite, .* not measured are NaN",
    ),
    "as many networks as rows and columns": (
        {"stack": (3,), "rows": 3},
        r"a weight for each row of each network, or .*Broadcast it to .*\(3, 3, 3\)",
    ),
}


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("name", WRONG)
def test_weights_or_targets_that_do_not_fit_are_an_error(xp: Any, name: str) -> None:
    changes, message = WRONG[name]
    network = bx.mlp([2, 3], loss=changes.get("loss", "mean_squared_error"))
    rows, theta = changes.get("rows", ROWS), xp.initialize(network, stack=changes.get("stack", ()))
    weight = changes.get("sample_weight", WEIGHT)
    data = [xp.asarray(a[:rows]) for a in (X, changes.get("y", Y))]
    options = {"optimizer": bx.SGD(0.1), "epochs": 1}
    given = None if weight is None else xp.asarray(weight[:rows])
    with pytest.raises(ValueError, match=message):
        bx.fit(network, theta, *data, sample_weight=given, **options)


def test_a_row_of_weight_0_may_have_no_measured_value(xp: Any) -> None:
    y, row = GAPS.copy(), np.ones(ROWS)
    y[4], row[4] = np.nan, 0.0
    assert np.all(np.isfinite(xp.host(fitted(xp, y, row).theta)))
