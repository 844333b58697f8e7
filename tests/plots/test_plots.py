"""Plots: the tests read matplotlib's objects.

Specifies ``canvas``, ``curves``, ``equations``, ``gradients``, ``labels``, ``plots``,
``predictions``, ``sensitivities``, ``surface`` and ``weights``.
"""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

pytest.importorskip("matplotlib")

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

from backprop_xp import plots
from tests.helpers import FullDisk

X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
Y = [[0.0], [1.0], [1.0], [0.0]]
LINE = bx.mlp([2, 1])
THREE = bx.mlp([2, 3], loss="categorical_cross_entropy")


@pytest.fixture(autouse=True)
def _without_a_display() -> Iterator[None]:
    mpl.use("Agg")
    from matplotlib import pyplot

    pyplot.close("all")
    yield
    pyplot.close("all")


def legend(ax: Axes) -> list[str]:
    """Return the labels of a legend."""
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def ticks(labels: Any) -> list[str]:
    return [label.get_text() for label in labels]


# Learning curves


def test_one_networks_losses_are_drawn_over_the_epochs(xp: Any) -> None:
    losses = {"loss": xp.asarray([1.0, 0.5, 0.25]), "validation_loss": [2.0, 1.0, None]}
    ax = plots.learning_curves(losses)
    one, other = ax.lines
    np.testing.assert_array_equal(one.get_data(), [[1, 2, 3], [1.0, 0.5, 0.25]])
    np.testing.assert_array_equal(other.get_ydata(), [2.0, 1.0, np.nan])
    assert legend(ax) == ["loss", "validation_loss"]
    assert one.get_color() != other.get_color()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "loss")
    assert not ax.collections


def test_a_loss_that_is_finite_in_one_epoch_is_a_point() -> None:
    for losses in ([0.5], [0.5, np.nan, np.inf]):
        (line,) = plots.learning_curves({"loss": losses}).lines
        assert line.get_marker() == "o"
    assert plots.learning_curves({"loss": [0.5, 0.4]}).lines[0].get_marker() in ("", "None")


@pytest.mark.parametrize("diverging", [1, 3])
def test_a_rate_range_shows_the_losses_up_to_the_first_however_far_they_rise(
    diverging: int,
) -> None:
    losses = np.asarray([[2.0] * 3, [1.0] * 3, [0.5] * 3, [1e3] * 3, [1e20] * 3])
    losses[:, : 3 - diverging] = np.minimum(losses[:, : 3 - diverging], 0.6)
    # One network of a stack that diverges rises above the 90 % quantile of all.
    for given in (losses, losses[:, -1]):
        low, top = plots.rate_range([0.01, 0.1, 1.0, 10.0, 100.0], given).get_ylim()
        assert 0.3 < low < 0.5
        assert 2.0 <= top <= 3.0
    unknown = plots.rate_range([0.01, 0.1], [np.nan, np.inf])
    assert np.isfinite(unknown.get_ylim()).all()


def test_a_result_of_a_training_draws_its_learning_curves(xp: Any) -> None:
    theta, x, y = xp.initialize(LINE), xp.asarray(X), xp.asarray(Y)
    result = bx.fit(LINE, theta, x, y, optimizer=bx.SGD(0.1), epochs=3)
    (ax,) = result.plot().axes
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_data(), [[1, 2, 3], result.history["loss"]])
    from matplotlib import pyplot

    assert not pyplot.get_fignums()


def test_a_stack_has_its_median_and_a_band_of_the_finite_networks(xp: Any) -> None:
    losses = 1.0 + np.random.default_rng(0).random((4, 2, 5))
    losses[2:, 1, 3] = np.nan
    losses[3, 0, 0] = np.inf
    ax = plots.learning_curves({"loss": xp.asarray(losses)}, epochs=xp.asarray([0, 10, 20, 30]))
    kept = [[v for v in row if np.isfinite(v)] for row in losses.reshape(4, 10)]
    assert [len(row) for row in kept] == [10, 10, 9, 8]
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), [0, 10, 20, 30])
    close = {"rtol": xp.rounding(1e-12)}
    np.testing.assert_allclose(line.get_ydata(), [np.median(row) for row in kept], **close)
    (band,) = ax.collections
    heights = band.get_paths()[0].vertices
    for epoch, row in zip((0, 10, 20, 30), kept, strict=True):
        at = heights[heights[:, 0] == epoch, 1]
        np.testing.assert_allclose([at.min(), at.max()], np.quantile(row, [0.1, 0.9]), **close)
    legend = ax.get_legend()
    assert legend is not None
    title = legend.get_title().get_text()
    assert title == "10 networks:\nmedian, 10 to 90 %,\n2 not finite at the end"


def test_the_line_of_a_stack_with_only_nan_ends() -> None:
    ax = plots.learning_curves({"loss": [[1.0, 2.0], [np.nan, np.inf]]})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.5, np.nan])


def test_metrics_have_their_own_axis_and_checks_have_none(xp: Any) -> None:
    network = bx.mlp([2, 2, 1], hidden="tanh")
    result = bx.fit(
        network,
        network.initialize(seed=0),
        X,
        Y,
        optimizer=bx.SGD(0.1),
        epochs=3,
        validation=(X, Y),
        metrics={"rmse": bx.metrics.rmse, "r2": bx.metrics.r2},
        check_every=2,
    )
    ax = plots.learning_curves(result)
    left, right = ax.figure.axes
    assert left is ax
    for axes, names in ((left, ["loss", "validation_loss"]), (right, ["rmse", "r2"])):
        assert [line.get_label() for line in axes.lines] == names
        for line in axes.lines:
            np.testing.assert_allclose(line.get_ydata(), result.history[str(line.get_label())])
    assert len({line.get_color() for line in [*left.lines, *right.lines]}) == 4
    assert legend(right) == ["loss", "validation_loss", "rmse", "r2"]
    assert right.get_ylabel() == "rmse, r2"
    alone = plots.learning_curves({"accuracy": [0.5, 0.75]})
    assert (len(alone.figure.axes), alone.get_ylabel()) == (1, "accuracy")


def test_the_epochs_of_a_resumed_result_count_from_the_first_start(xp: Any) -> None:
    theta, options = LINE.initialize(seed=0), {"optimizer": bx.SGD(0.1)}
    begun = bx.fit(LINE, theta, X, Y, epochs=2, **options)
    resumed = bx.fit(LINE, theta, X, Y, epochs=5, start=begun, **options)
    line = plots.learning_curves(resumed).lines[0]
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5]
    assert list(line.get_ydata()) == resumed.history["loss"].tolist()


@pytest.mark.parametrize(
    ("losses", "scale"),
    [
        ([1.0, -0.5], "linear"),
        ([1.0, 0.0], "linear"),
        ([1.0, 0.11], "linear"),
        ([1.0, 0.1, np.nan, np.inf], "log"),
        ([1e9, 1e-9], "log"),
        ([np.nan], "linear"),
    ],
)
def test_losses_that_fall_to_a_tenth_have_a_logarithmic_scale(
    losses: list[float], scale: str
) -> None:
    ax = plots.learning_curves({"loss": losses})
    assert ax.get_yscale() == scale
    ax.figure.canvas.draw()
    if losses == [1.0, 0.1, np.nan, np.inf]:
        assert {"0.1", "0.2", "0.5", "1"} <= set(ticks(ax.get_yticklabels()))


def test_a_single_epoch_is_a_visible_point() -> None:
    (line,) = plots.learning_curves({"loss": [0.5]}).lines
    assert line.get_marker() == "o"


# Decision surfaces


def test_a_surface_shows_the_networks_predictions(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    theta = xp.initialize(network, seed=1)
    ax = plots.decision_surface(network, X, Y, theta=theta, resolution=5, margin=0.5)
    (image,) = ax.images
    assert list(image.get_extent()) == [-0.5, 1.5, -0.5, 1.5]
    points = xp.asarray([[-0.5, -0.5], [1.5, -0.5], [0.5, 1.0]])
    values = np.asarray(image.get_array())
    # The precision is the same; the size of the batch may change the order of sums.
    np.testing.assert_allclose(
        [values[0, 0], values[0, -1], values[3, 2]],
        xp.host(network.predict(theta, points))[:, 0],
        rtol=xp.rounding(1e-12),
    )
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), X)
    assert [axes.get_ylabel() for axes in ax.figure.axes] == ["$x_2$", "probability of 1"]


@pytest.mark.parametrize(
    ("targets", "levels"),
    [([-1, -1, 2, 2], [[0.5]]), ([[0], [4], [4], [0]], [[2.0]]), ([0, 1, 2, 3], []), ([5] * 4, [])],
)
def test_a_boundary_lies_halfway_between_two_targets(
    xp: Any, targets: Any, levels: list[list[float]]
) -> None:
    theta = xp.asarray([1.0, 1.0, 0.0])
    ax = plots.decision_surface(LINE, X, targets, theta=theta, resolution=4)
    assert [list(c.levels) for c in ax.collections if hasattr(c, "levels")] == levels


def test_a_feature_that_never_varies_still_has_a_width(xp: Any) -> None:
    x = [[0.0, 3.0], [2.0, 3.0]]
    ax = plots.decision_surface(LINE, x, [0, 1], theta=xp.initialize(LINE), margin=0.5)
    assert list(ax.images[0].get_extent()) == [-1.0, 3.0, 2.5, 3.5]


def test_a_network_is_drawn_on_its_thetas_device_and_in_its_precision() -> None:
    pytest.importorskip("array_api_strict")
    # Another backend than the environment's, and mostly another default dtype.
    theta = LINE.initialize(backend="array-api-strict", device="device2")
    assert plots.decision_surface(LINE, X, Y, theta=theta, resolution=4).images


@pytest.mark.parametrize("y", [[[0, 1, 0], [1, 0, 0], [0, 0, 1]], [1, 0, 2], [[1], [0], [2]]])
def test_several_outputs_are_drawn_as_the_class_of_the_largest(xp: Any, y: Any) -> None:
    weights = xp.asarray([[1.0, -1.0, 0.0], [0.0, 0.0, 1.5]])
    theta = THREE.pack([(weights, xp.asarray([[0.0, 0.0, 0.0]]))])
    x = [[-1.0, -1.0], [1.0, -1.0], [0.0, 1.0]]
    ax = plots.decision_surface(THREE, x, y, theta=theta, resolution=3, margin=0.0)
    classes = np.asarray(ax.images[0].get_array())
    assert (classes[0, 0], classes[0, -1], classes[2].tolist()) == (1, 0, [2, 2, 2])
    np.testing.assert_array_equal(ax.collections[-1].get_array(), [1, 0, 2])
    assert legend(ax) == ["0", "1", "2"]


def test_a_surface_without_a_boundary_or_with_nan_is_drawn_without_a_warning(
    xp: Any, tmp_path: Path
) -> None:
    zero = 0.0 * xp.initialize(LINE)
    for i, theta in enumerate((zero, zero + float("nan"))):
        ax = plots.decision_surface(LINE, X, Y, theta=theta, resolution=4)
        plots.save(ax.figure, tmp_path / f"{i}.png")


def fitted(classes: int, **options: Any) -> tuple[Any, Any, Any]:
    """Return a classifier of two features, a data frame of them, and the names of their classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    pytest.importorskip("pandas")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    iris = datasets.load_iris(as_frame=True)
    x = iris.data.iloc[: 50 * classes, 2:]
    y = iris.target_names[iris.target[: 50 * classes]]
    model = bx.MLPClassifier(4, "tanh", max_iter=1, random_state=0, **options)
    return make_pipeline(StandardScaler(), model), x, y


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_pipeline_of_two_classes_is_drawn_by_the_probability_of_the_second(xp: Any) -> None:
    model, x, y = fitted(2)
    model.fit(x, y)
    ax = plots.decision_surface(model, x, y, resolution=6)
    image = ax.images[0]
    left, right, bottom, top = image.get_extent()
    corners = type(x)([[left, bottom], [right, top]], columns=x.columns)
    values = np.asarray(image.get_array())
    expected = model.predict_proba(corners)[:, 1]
    np.testing.assert_allclose([values[0, 0], values[-1, -1]], expected, rtol=1e-6)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("petal length (cm)", "petal width (cm)")
    assert ax.figure.axes[1].get_ylabel() == "probability of versicolor"
    np.testing.assert_array_equal(ax.collections[-1].get_array(), y == "versicolor")


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_pipeline_of_three_classes_is_drawn_by_the_likeliest_of_them(xp: Any) -> None:
    model, x, y = fitted(3)
    model.fit(x, y)
    ax = plots.decision_surface(model, x, y, resolution=4)
    left, right, bottom, top = ax.images[0].get_extent()
    corners = type(x)([[left, bottom], [right, top]], columns=x.columns)
    names = np.asarray(["setosa", "versicolor", "virginica"])
    values = np.asarray(ax.images[0].get_array())
    assert names[[values[0, 0], values[-1, -1]]].tolist() == model.predict(corners).tolist()
    assert legend(ax) == names.tolist()


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_a_regressor_is_drawn_by_its_values(xp: Any) -> None:
    pytest.importorskip("sklearn")
    model = bx.MLPRegressor(hidden_layer_sizes=4, max_iter=1, random_state=0)
    model.fit(X, [1.0, 2.0, 3.0, 5.0])
    ax = plots.decision_surface(model, X, [1.0, 2.0, 3.0, 5.0], resolution=2, margin=0.0)
    expected = model.predict(X)[[0, 2, 1, 3]].reshape(2, 2)
    np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), expected, rtol=1e-6)
    assert ax.images[0].get_clim() == (1.0, 5.0)


# Predictions


def test_a_confusion_matrix_counts_and_shades_by_the_share_of_the_true_class(xp: Any) -> None:
    found = np.asarray([0, 1, 1, 2, 2, 2, 0, 1])
    true = np.asarray([0, 0, 1, 2, 2, 1, 0, 0])
    ax = plots.confusion_matrix(
        predictions=xp.asarray(found, "int64"), targets=xp.asarray(true, "int64")
    )
    counts = [[sum((true == i) & (found == j)) for j in range(3)] for i in range(3)]
    assert [int(text.get_text()) for text in ax.texts] == np.ravel(counts).tolist()
    assert [text.get_position() for text in ax.texts][:2] == [(0, 0), (1, 0)]
    shares = np.asarray(counts) / np.asarray([[4], [2], [2]])
    np.testing.assert_array_equal(np.asarray(ax.images[0].get_array()), shares)
    assert ticks(ax.get_xticklabels()) == ticks(ax.get_yticklabels()) == ["0", "1", "2"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("predicted class", "true class")


def test_classes_may_be_outputs_labels_or_indices(xp: Any) -> None:
    names = ["dog", "cat", "ant"]
    outputs = [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.8, 0.1]]
    labels = ["dog", "cat", "dog"]
    shades = []
    for found in (xp.asarray(outputs), ["dog", "cat", "cat"], [0, 1, 1], [0.0, 1.0, 1.0]):
        for true in (labels, xp.asarray([[1, 0, 0], [0, 1, 0], [1, 0, 0]]), [0, 1, 0]):
            ax = plots.confusion_matrix(predictions=found, targets=true, classes=names)
            shades.append(np.asarray(ax.images[0].get_array()).tolist())
            assert ticks(ax.get_yticklabels()) == names
    assert shades == [[[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]] * 12
    single = plots.confusion_matrix(
        predictions=[[0.4], [0.6]], targets=[[0], [0]], classes=["no", "yes"]
    )
    assert np.asarray(single.images[0].get_array()).tolist() == [[0.5, 0.5], [0.0, 0.0]]
    swapped = plots.confusion_matrix(predictions=[1, 0], targets=[1, 1], classes=[1, 0])
    assert np.asarray(swapped.images[0].get_array()).tolist() == [[0.5, 0.5], [0.0, 0.0]]
    named = plots.confusion_matrix(predictions=labels, targets=labels)
    assert ticks(named.get_xticklabels()) == ["cat", "dog"]


@pytest.mark.parametrize("draw", [plots.confusion_matrix, plots.residuals, plots.calibration])
def test_predictions_and_targets_have_names_since_libraries_disagree_about_their_order(
    draw: Any,
) -> None:
    with pytest.raises(TypeError, match="positional"):
        draw([0, 1], [0, 1])


@pytest.mark.parametrize(
    ("labels", "shown", "row"),
    [
        ([0.0, np.inf, 1.0], "inf", 1),
        ([0.0, 1.0, -np.inf], "-inf", 2),
        ([1e300, 1.0, 0.0], "1e\\+300", 0),
        (["a", None, "b"], "None", 1),
        (["a", "b", np.nan], "nan", 2),
        ([0, 1, None], "None", 2),
        (np.asarray([0.0, 1.0, np.inf], np.float16), "inf", 2),
        ([True, None, False], "None", 1),
        (np.asarray(["2020-01-01", "NaT", "2020-01-02"], "datetime64[D]"), "NaT", 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_missing_or_infinite_is_not_a_class(labels: Any, shown: str, row: int) -> None:
    expected = rf"{shown} \(row {row}\), which is not a label: leave such rows out"
    with pytest.raises(ValueError, match=f"predictions hold {expected}"):
        plots.confusion_matrix(predictions=labels, targets=labels)
    with pytest.raises(ValueError, match=f"targets hold {expected}"):
        plots.calibration(probabilities=[0.1, 0.5, 0.9], targets=labels)


def test_values_that_pandas_marks_as_missing_are_not_a_class() -> None:
    pandas = pytest.importorskip("pandas")
    for dtype in ("string", "str", "object"):
        column = pandas.Series(["a", None, "b"], dtype=dtype)
        with pytest.raises(ValueError, match=r"predictions hold \S+ \(row 1\), which is not a lab"):
            plots.confusion_matrix(predictions=column, targets=["a", "a", "b"])
    with pytest.raises(ValueError, match=r"targets of shape \(2, 2\) must be finite numbers"):
        plots.calibration(probabilities=[[0.1, 0.9], [0.3, 0.7]], targets=[[0, 1], [np.nan, 0]])


def test_an_array_of_objects_has_the_classes_of_its_objects() -> None:
    whole = plots.confusion_matrix(predictions=np.asarray([0, 1], dtype=object), targets=[0, 1])
    assert ticks(whole.get_xticklabels()) == ["0", "1"]


def test_many_classes_are_drawn_without_numbers_and_with_some_of_their_names() -> None:
    labels = np.arange(50)
    ax = plots.confusion_matrix(predictions=labels, targets=labels)
    assert len(ax.texts) == 0
    assert ticks(ax.get_xticklabels()) == [str(i) for i in range(0, 50, 3)]


def test_residuals_are_target_minus_prediction_over_the_prediction(xp: Any) -> None:
    found, true = [[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]], [[2.0, 5.0], [2.0, 5.0], [1.0, 5.0]]
    ax = plots.residuals(predictions=xp.asarray(found), targets=xp.asarray(true))
    np.testing.assert_array_equal(ax.lines[0].get_data(), [[1, 2, 3], [1, 0, -2]])
    np.testing.assert_array_equal(ax.lines[1].get_data(), [[5, 6, 7], [0, -1, -2]])
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), [0, 0])
    assert legend(ax) == ["output 0, root mean square 1.29", "output 1, root mean square 1.29"]
    assert ax.get_ylabel() == "residual: target - prediction"


def test_a_reliability_curve_has_each_bins_means_and_the_interval_of_its_share(xp: Any) -> None:
    generator = np.random.default_rng(0)
    probabilities = np.round(generator.random(400), 2)
    probabilities[:2] = 0.0, 1.0
    happened = generator.random(400) < probabilities
    ax = plots.calibration(probabilities=xp.asarray(probabilities), targets=happened, bins=5)
    diagonal, curve = ax.lines[:2]
    np.testing.assert_array_equal(diagonal.get_data(), [[0, 1], [0, 1]])
    segments = ax.collections[0].get_segments()
    for i in range(5):
        # A probability on an edge, 0.4, is in the bin above it, but 1 is in the last bin.
        inside = (probabilities >= i / 5) & ((probabilities < (i + 1) / 5) | (i == 4))
        x, share = probabilities[inside].mean(), happened[inside].mean()
        np.testing.assert_allclose(np.transpose(curve.get_data())[i], [x, share], rtol=1e-6)
        # The interval's ends solve (share - p)^2 = z^2 p (1 - p) / n.
        n, z = inside.sum(), 1.96
        roots = np.roots([1 + z**2 / n, -2 * share - z**2 / n, share**2])
        np.testing.assert_allclose(segments[i][:, 1], np.sort(roots), rtol=1e-6, atol=1e-9)
    assert ax.get_xlabel() == "predicted probability of class True"


def test_empty_bins_are_left_out_and_a_share_of_1_stays_in_its_interval() -> None:
    # Rounding moves a share of 0 in 11 below its interval, and one of 6 in 6 above it.
    ax = plots.calibration(probabilities=[0.05] * 11 + [0.95] * 6, targets=[0] * 11 + [1] * 6)
    np.testing.assert_allclose(ax.lines[1].get_data(), [[0.05, 0.95], [0.0, 1.0]])


def test_two_classes_have_one_reliability_curve_and_more_have_one_each(xp: Any) -> None:
    first = plots.calibration(
        probabilities=xp.asarray([[0.9, 0.1], [0.3, 0.7]]), targets=["no", "yes"]
    )
    np.testing.assert_allclose(first.lines[1].get_data(), [[0.1, 0.7], [0.0, 1.0]], rtol=1e-6)
    assert first.get_xlabel() == "predicted probability of class yes"
    probabilities = np.asarray([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    for targets in (["a", "c", "c"], [0, 2, 2], [[1, 0, 0], [0, 0, 1], [0, 0, 1]]):
        if targets[0] == "a":
            with pytest.raises(ValueError, match="2 labels, but probabilities have 3 classes"):
                plots.calibration(probabilities=probabilities, targets=targets)
            continue
        ax = plots.calibration(probabilities=probabilities, targets=targets, bins=1)
        assert legend(ax) == ["0", "1", "2"]
        points = [line.get_xydata()[0].tolist() for line in ax.lines if line.get_label() in "012"]
        expected = list(zip(probabilities.mean(axis=0), [1 / 3, 0, 2 / 3], strict=True))
        np.testing.assert_allclose(points, expected)


# Weights


def test_each_layers_weights_have_a_histogram_with_common_bins(xp: Any) -> None:
    layers = [bx.Dense(3, 4), bx.LayerNorm(4), bx.Residual(bx.Dense(4, 4)), bx.Dense(4, 1)]
    network = bx.Network(layers, "mean_squared_error")
    theta = xp.initialize(network, stack=(2,))
    parameters = [[xp.host(p) for p in layer] for layer in network.unpack(theta)]
    weights = [parameters[i][0].reshape(-1) for i in (0, 2, 3)]
    ax = plots.weight_histograms(network, theta, bins=7)
    edges = np.linspace(*(f(np.concatenate(weights)) for f in (np.min, np.max)), 8)
    assert len(ax.patches) == 3
    for row, (patch, values) in enumerate(zip(ax.patches, weights, strict=True)):
        counts, _ = np.histogram(values, edges)
        heights = patch.get_data().values - patch.get_data().baseline
        np.testing.assert_allclose(heights, 0.9 * counts / counts.max())
        np.testing.assert_allclose(patch.get_data().edges, edges)
        assert patch.get_data().baseline == 2 - row
    names = ["layers[0].weights", "layers[2].layers[0].weights", "layers[3].weights"]
    assert ticks(ax.get_yticklabels()) == names
    assert ax.get_xlabel() == "weight"


def test_weights_that_are_not_finite_are_counted_separately(xp: Any) -> None:
    theta = xp.asarray([1.0, float("nan"), 0.0, float("inf")])
    network = bx.mlp([3, 1])
    ax = plots.weight_histograms(network, theta)
    assert ticks(ax.get_yticklabels()) == ["layers[0].weights\n1 not finite"]


# Gradients


def test_sensitivities_are_sorted_by_their_size_and_leave_out_what_is_missing(xp: Any) -> None:
    slopes = np.column_stack([np.linspace(0.0, 1.0, 11), np.linspace(-30.0, -10.0, 11)])
    slopes = np.column_stack([slopes, np.full(11, np.nan)])
    ax = plots.sensitivities(xp.asarray(slopes), ["age", "size", "empty"])
    assert ticks(ax.get_yticklabels()) == ["size", "age", "empty"]
    assert ax.get_ylim() == (2.5, -0.5)  # the first one at the top
    bands, dots = ax.lines[1::2], ax.lines[2::2]
    np.testing.assert_allclose(bands[0].get_xdata(), [-28.0, -12.0])
    np.testing.assert_allclose(dots[1].get_xdata(), [0.5])
    scaled = plots.sensitivities(xp.asarray(slopes[:, :2]), scales=xp.asarray([100.0, 0.1]))
    assert ticks(scaled.get_yticklabels()) == ["x0", "x1"]
    np.testing.assert_allclose(scaled.lines[1].get_xdata(), [10.0, 90.0])
    assert scaled.get_xlabel() == "slope times scale"


def test_the_names_of_sensitivities_are_those_of_a_dataframe() -> None:
    pandas = pytest.importorskip("pandas")
    ax = plots.sensitivities(pandas.DataFrame({"age": [1.0, 2.0], "size": [3.0, 4.0]}))
    assert ticks(ax.get_yticklabels()) == ["size", "age"]


def test_scales_with_names_multiply_the_slopes_of_those_names() -> None:
    pandas = pytest.importorskip("pandas")
    slopes, scales = np.array([[1.0, 9.0]] * 3), pandas.Series({"size": 1.0, "age": 100.0})
    table = pandas.DataFrame(slopes, columns=["age", "size"])
    drawn = plots.sensitivities(table, scales=scales)
    assert ticks(drawn.get_yticklabels()) == ["age", "size"]
    np.testing.assert_allclose(drawn.lines[2].get_xdata(), [100.0])
    named = plots.sensitivities(slopes, ["age", "size"], scales=scales)
    np.testing.assert_allclose(named.lines[2].get_xdata(), [100.0])
    retitled = plots.sensitivities(table, ["years", "m"], scales=scales)
    assert ticks(retitled.get_yticklabels()) == ["years", "m"]
    # Without names of the slopes those of the scales are in the order of the features.
    alone = plots.sensitivities(slopes, scales=scales)
    assert ticks(alone.get_yticklabels()) == ["age", "size"]
    np.testing.assert_allclose(alone.lines[2].get_xdata(), [900.0])
    in_order = plots.sensitivities(table, scales=pandas.Series([100.0, 1.0]))
    np.testing.assert_allclose(in_order.lines[2].get_xdata(), [100.0])
    with pytest.raises(ValueError, match="scales has no entry for 'age', only for 'size'"):
        plots.sensitivities(table, scales=scales.drop("age"))


@pytest.mark.parametrize("size", [1e-170, 1e155, 1e300])
def test_sensitivities_whose_squares_overflow_or_underflow_are_sorted(size: float) -> None:
    ax = plots.sensitivities(np.array([[1.0, 0.0, -9.0], [2.0, 0.0, 8.0]]) * size)
    assert ticks(ax.get_yticklabels()) == ["x2", "x0", "x1"]


@pytest.mark.parametrize(
    ("slopes", "options", "message"),
    [
        ([1.0, 2.0], {}, r"slopes has shape \(2,\), but \(rows, n_features\)"),
        ([[1.0, 2.0]], {"names": ["a"]}, "names has 1 entries, but slopes has 2 features"),
        ([[1.0, 2.0]], {"scales": [1.0] * 3}, "scales has 3 entries, but slopes has 2"),
    ],
)
def test_sensitivities_that_do_not_fit_are_an_error(
    slopes: Any, options: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plots.sensitivities(slopes, **options)


def test_entries_are_drawn_beside_a_diagonal(xp: Any) -> None:
    analytic = {"weights": [[1.0, 2.0], [3.0, 4.0]], "bias": [5.0]}
    numeric = {"weights": [[1.0, 2.0], [3.0, 9.0]], "bias": [-1.0]}
    both = ({name: xp.asarray(g) for name, g in part.items()} for part in (analytic, numeric))
    ax = plots.gradient_entries(*both)
    weights, bias, diagonal = ax.lines
    np.testing.assert_array_equal(weights.get_data(), [[1, 2, 3, 9], [1, 2, 3, 4]])
    np.testing.assert_array_equal(bias.get_data(), [[-1], [5]])
    np.testing.assert_array_equal(diagonal.get_data(), [[-1, 9], [-1, 9]])
    assert legend(ax) == ["weights", "bias"]
    assert ax.get_xscale() == "linear"
    assert plots.gradient_entries([1.0, 2.0], [1.0, 2.0]).get_legend() is None


def test_small_entries_are_visible_beside_large_ones() -> None:
    ax = plots.gradient_entries([100.0, 0.5, 0.2, -0.1, np.nan], [100.0, 0.5, 0.2, -0.1, 0.0])
    assert (ax.get_xscale(), ax.get_yscale()) == ("symlog", "symlog")
    assert ax.xaxis.get_transform().linthresh == 0.1
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [-0.1, 100.0])
    assert plots.gradient_entries([0.0, 0.0], [0.0, np.nan]).get_xscale() == "linear"


def test_remainders_are_drawn_beside_those_of_a_right_gradient() -> None:
    steps = [0.5, 0.25]
    ax = plots.taylor_remainders(steps, [4.0, 3.0], [8.0, 5.0], [1e-3, 1e-4])
    heights = [list(line.get_ydata()) for line in ax.lines]
    assert heights == [[4.0, 3.0], [4.0, 1.0], [8.0, 5.0], [8.0, 1.0], [1e-3, 1e-4]]
    assert all(list(line.get_xdata()) == steps for line in ax.lines)
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    names = ["one-sided (dotted: order 2)", "symmetric (dotted: order 3)", "rounding"]
    assert legend(ax) == names


# Properties of all plots

ONES = [1.0, 0.5]
REMAINDERS = dict.fromkeys(("steps", "one_sided", "symmetric", "noise"), ONES)
DRAWN: list[tuple[Any, dict[str, Any]]] = [
    (plots.learning_curves, {"history": {"loss": ONES}}),
    (plots.confusion_matrix, {"predictions": ["a", "b"], "targets": ["a", "a"]}),
    (plots.residuals, {"predictions": ONES, "targets": ONES}),
    (plots.calibration, {"probabilities": [0.2, 0.7], "targets": [0, 1]}),
    (plots.gradient_entries, {"analytic": ONES, "numeric": ONES}),
    (plots.taylor_remainders, REMAINDERS),
]


@pytest.mark.parametrize(("draw", "given"), DRAWN)
def test_a_plot_uses_the_given_axes(draw: Any, given: dict[str, Any]) -> None:
    ax = Figure().subplots()
    assert draw(**given, ax=ax) is ax
    assert ax.has_data()
    from matplotlib import pyplot

    assert not pyplot.get_fignums()
    assert draw(**given) is pyplot.gca()


def test_surfaces_and_histograms_use_the_given_axes(xp: Any) -> None:
    ax, other = Figure().subplots(1, 2)
    theta = xp.initialize(LINE)
    assert plots.decision_surface(LINE, X, Y, theta=theta, ax=ax) is ax
    assert plots.weight_histograms(LINE, theta, ax=other) is other
    assert (len(ax.images), len(other.patches)) == (1, 1)


def _surface(**given: Any) -> Any:
    theta = LINE.initialize(backend="numpy")
    return plots.decision_surface(**{"model": LINE, "theta": theta, "x": X, "y": Y, **given})


class Multilabel:
    classes_ = (0, 1)

    def predict(self, x: Any) -> Any:
        return x

    predict_proba = predict


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (plots.learning_curves, {"history": [1.0]}, "history must be a result of bx.fit.*not list"),
    (plots.learning_curves, {"history": {}}, "history is empty"),
    (plots.learning_curves, {"history": {"gradient_error": [1.0]}}, "history is empty"),
    (plots.learning_curves, {"history": {"loss": 1.0}}, r"history\['loss'\] has shape \(\)"),
    (plots.learning_curves, {"history": {"loss": []}}, r"history\['loss'\] has shape \(0,\)"),
    (plots.learning_curves, {"history": {"a": ["b"]}}, r"history\['a'\] must hold numbers.*'b'"),
    (
        plots.learning_curves,
        {"history": {"loss": [1.0, 2.0]}, "epochs": [1, 2, 3]},
        r"epochs has shape \(3,\), but history\['loss'\] has 2 rows",
    ),
    (_surface, {"theta": None}, r"theta is None.*theta=result\.theta"),
    (_surface, {"theta": np.ones((3, 3))}, r"shape \(3, 3\).*theta=result\.theta\[i\]"),
    (_surface, {"x": [[1, 2, 3], [4, 5, 6]], "y": [[1], [2]]}, r"x has shape \(2, 3\)"),
    (_surface, {"x": np.ones((0, 2)), "y": np.ones((0, 1))}, r"x has shape \(0, 2\)"),
    (_surface, {"y": [[[0]]] * 4}, r"y has shape \(4, 1, 1\)"),
    (_surface, {"y": [[0], [1]]}, r"y has shape \(2, 1\)"),
    (_surface, {"y": [[0, 1]] * 4}, "y has 2 columns, but the network 1 outputs"),
    (_surface, {"model": THREE, "theta": np.ones(9), "y": [0, 1, 2, 3]}, "y hold 3, but the class"),
    (_surface, {"model": "mlp"}, "model must be a bx.Network with theta=.*not str"),
    (_surface, {"model": "mlp", "theta": None}, "model must be a bx.Network.*not str"),
    (
        _surface,
        {"model": Multilabel(), "theta": None, "y": [[0, 1]] * 4},
        "an estimator is drawn with one target",
    ),
    (_surface, {"model": Multilabel(), "theta": None, "y": [0, 1, 1, 5]}, "y hold 5, but the clas"),
    (_surface, {"resolution": 1}, "resolution"),
    (_surface, {"margin": -1.0}, "margin"),
    (
        plots.confusion_matrix,
        {"predictions": [0, 1], "targets": [0]},
        "predictions have 2 rows, but targets 1",
    ),
    (
        plots.confusion_matrix,
        {"predictions": [], "targets": []},
        r"predictions have shape \(0,\), but labels",
    ),
    (
        plots.confusion_matrix,
        {"predictions": [0.3, 0.9], "targets": [0, 1]},
        "predictions hold 0.3, which is not a label.*network.predict",
    ),
    (
        plots.confusion_matrix,
        {"predictions": [[np.nan, 0.0]], "targets": [0]},
        r"predictions of shape \(1, 2\) must be finite",
    ),
    (
        plots.confusion_matrix,
        {"predictions": [0, 1], "targets": ["a", "b"]},
        "predictions hold 0 and targets 'a': name the classes",
    ),
    (
        plots.confusion_matrix,
        {"predictions": ["a", "c"], "targets": ["a", "b"], "classes": ["a", "b"]},
        r"predictions hold 'c', but the classes are \['a', 'b'\]",
    ),
    (
        plots.confusion_matrix,
        {"predictions": [[0.1, 0.9]], "targets": ["a"], "classes": ["a", "b", "c"]},
        "classes names 3 classes, but predictions have 2",
    ),
    (
        plots.residuals,
        {"predictions": [1.0, 2.0], "targets": [1.0]},
        r"predictions have shape \(2, 1\), but targets \(1, 1\)",
    ),
    (
        plots.residuals,
        {"predictions": [1.0, np.nan], "targets": [1.0, 2.0]},
        "predictions must be finite numbers, but row 1 has nan",
    ),
    (plots.residuals, {"predictions": ["a"], "targets": [1.0]}, "but row 0 has 'a'"),
    (plots.residuals, {"predictions": 1.0, "targets": 1.0}, r"predictions have shape \(\)"),
    (
        plots.calibration,
        {"probabilities": [0.2, 1.7], "targets": [0, 1]},
        "go from 0.2 to 1.7, but 0 to 1 is expected",
    ),
    (
        plots.calibration,
        {"probabilities": [0.2, 0.7], "targets": [1, 1]},
        "targets hold only 1",
    ),
    (
        plots.calibration,
        {"probabilities": [0.2, 0.7], "targets": [1, 0, 1]},
        r"targets have shape \(3,\), but labels \(2,\) or \(2, 1\)",
    ),
    (plots.calibration, {"probabilities": ONES, "targets": [0, 1], "bins": 0}, "bins"),
    (
        plots.weight_histograms,
        {"network": LINE, "theta": np.full(3, np.nan)},
        "no weights to draw: no weight in theta is finite",
    ),
    (
        plots.weight_histograms,
        {"network": bx.Network([bx.LayerNorm(2)], "huber"), "theta": np.ones(4)},
        "no weights to draw: no layer has parameters named weights",
    ),
    (
        plots.gradient_entries,
        {"analytic": {"a": [1.0]}, "numeric": {"b": [1.0]}},
        r"analytic holds \['a'\], but numeric \['b'\]",
    ),
    (
        plots.gradient_entries,
        {"analytic": {"a": [1.0]}, "numeric": {"a": [1.0, 2.0]}},
        r"analytic\['a'\] has shape \(1,\), but numeric \(2,\)",
    ),
    (plots.gradient_entries, {"analytic": [], "numeric": []}, "no entries"),
    (
        plots.taylor_remainders,
        {"steps": ONES, "one_sided": ONES, "symmetric": [1.0], "noise": ONES},
        "of one length of at least 1, but have 2, 2, 1, 2 entries",
    ),
]


@pytest.mark.parametrize(("draw", "given", "message"), REFUSED)
def test_an_invalid_input_is_an_error_that_names_it(draw: Any, given: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        draw(**given)


def test_a_saved_plot_replaces_the_target_of_a_link_and_follows_the_umask(
    tmp_path: Path,
) -> None:
    real, link = tmp_path / "real.png", tmp_path / "link.png"
    real.write_bytes(b"old")
    link.symlink_to(real)
    (tmp_path / "plain").touch()
    figure = plots.learning_curves({"loss": ONES}).figure
    plots.save(figure, link)
    assert link.is_symlink()
    assert imread(real).ndim == 3
    assert real.stat().st_mode == (tmp_path / "plain").stat().st_mode
    plots.save(figure, str(tmp_path / "a.svg"))
    assert "</svg>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_a_plot_that_cannot_be_written_is_an_error_with_its_own_name(tmp_path: Path) -> None:
    figure, path = plots.learning_curves({"loss": ONES}).figure, tmp_path / "a.png"
    with FullDisk(), pytest.raises(OSError, match="too large") as caught:
        plots.save(figure, path)
    assert caught.value.filename == str(path)
    assert not [*tmp_path.iterdir()]


def test_a_failed_save_of_a_plot_leaves_the_old_file(tmp_path: Path) -> None:
    class Broken(Artist):
        def draw(self, renderer: Any) -> None:
            raise RuntimeError("cannot be drawn")

    path, figure = tmp_path / "old.png", Figure()
    path.write_bytes(b"old")
    figure.add_artist(Broken())
    with pytest.raises(RuntimeError, match="cannot be drawn"):
        plots.save(figure, path)
    for name in ("a.xyz", "a"):
        with pytest.raises(ValueError, match=r"must end in a known format: .*\.png"):
            plots.save(figure, tmp_path / name)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_is_imported_by_the_first_plot_and_pyplot_only_for_new_axes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = (
        "import sys, backprop_xp as bx; bx.plots; assert 'matplotlib' not in sys.modules;"
        "from matplotlib.figure import Figure;"
        "bx.plots.learning_curves({'loss': [1.0]}, ax=Figure().subplots());"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="pip install 'matplotlib>="):
        plots.learning_curves({"loss": [1.0]})


# Equations


def _equations(xp: Any, n: int) -> tuple[Any, Any, dict[str, Any]]:
    """Return the layer of two groups, theta, and the groups, over n variables."""
    layers = bx.mlp([n, 4, 1], hidden="tanh").layers
    names, unknown = "tx"[:n], {"k": 1.0}
    law = bx.Equation(layers, lambda s: s.u_t + s.k * s.u, names, unknown=unknown)
    read = bx.Equation(layers, lambda s: s.u, names, unknown=unknown)
    pair = bx.Equation(layers, lambda s: s[0].u - s[1].u, names, unknown=unknown, points=2)
    generator = np.random.default_rng(3)
    at, pairs = (generator.uniform(size=shape) for shape in ((30, n), (3, 2 * n)))
    groups = {
        "law": (law, xp.asarray(at)),
        "pairs": (pair, xp.asarray(2.0 + pairs)),
        "readings": (read, *xp.put(at[:20], np.exp(-at[:20, :1]))),
    }
    layer, *_ = bx.group_rows(groups)
    return layer, xp.initialize(bx.Network([layer], "mean_squared_error")), groups


def test_a_solution_is_a_curve_with_its_band_its_readings_and_the_points(xp: Any) -> None:
    layer, theta, groups = _equations(xp, 1)
    _, x, y, weight = bx.group_rows(groups)
    network, read = bx.Network([layer], "mean_squared_error"), groups["readings"][0]
    with pytest.warns(UserWarning, match="not a minimum"):
        errors = bx.standard_errors(
            network, theta, x, y, measured=[read], sample_weight=weight, l2=0.1
        )
    ax = plots.solution(layer, theta, groups, readings="readings", errors=errors)
    assert legend(ax) == ["u", "90 % band", "law", "pairs", "readings"]
    curve, _, pairs, readings = ax.lines
    at = np.asarray(curve.get_xdata())
    assert at[-1] == pairs.get_xdata().max() > 2.0  # both points of a row
    values = layer.network.predict(layer.split(theta)[0], xp.asarray(at[:, None]))
    xp.assert_close(np.asarray(curve.get_ydata()), xp.host(values)[:, 0], 1e-12)
    xp.assert_close(np.asarray(readings.get_ydata()), xp.host(groups["readings"][2])[:, 0], 1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("t", "u")


def test_a_solution_of_two_variables_is_a_plane_of_shades(xp: Any) -> None:
    layer, theta, groups = _equations(xp, 2)
    ax = plots.solution(layer, theta, groups)
    assert legend(ax) == ["law", "pairs", "readings"]
    assert (ax.get_xlabel(), ax.get_ylabel(), len(ax.collections)) == ("t", "x", 1)


@pytest.mark.parametrize("n", [1, 2])
def test_a_residual_is_drawn_over_the_variables(xp: Any, n: int) -> None:
    _, theta, groups = _equations(xp, n)
    equation, points = groups["law"]
    ax = plots.residual(equation, theta, points)
    assert ax.get_xlabel() == "t"
    if n == 2:
        low, high = ax.collections[0].get_clim()
        assert low == -high
        return
    _, curve, _ = ax.lines
    at = xp.asarray(np.asarray(curve.get_xdata())[:, None])
    expected = bx.Network([equation], "mean_squared_error").predict(theta, at)
    xp.assert_close(np.asarray(curve.get_ydata()), xp.host(expected)[:, 0], 1e-12)


def test_what_cannot_be_drawn_of_an_equation_is_an_error(xp: Any) -> None:
    layer, theta, groups = _equations(xp, 1)
    with pytest.raises(ValueError, match="readings='law' is not a group with targets"):
        plots.solution(layer, theta, groups, readings="law")
    with pytest.raises(ValueError, match=r"theta has shape .*, but one network is drawn"):
        plots.solution(layer, theta[None, :], groups)
    plane, flat, both = _equations(xp, 2)
    band: Any = object()  # errors are refused before they are read
    with pytest.raises(
        ValueError, match=r"two variables are drawn as a plane: .*errors\.of\(points\)"
    ):
        plots.solution(plane, flat, both, errors=band)
    with pytest.raises(ValueError, match="given columns or several points"):
        plots.residual(groups["pairs"][0], theta, groups["pairs"][1])
    three = bx.Equation(bx.mlp([3, 4, 1], hidden="tanh").layers, lambda s: s.u_x, "xyz")
    theta = xp.initialize(bx.Network([three], "huber"))
    with pytest.raises(ValueError, match="variables x, y, z, but one or two can be drawn"):
        plots.residual(three, theta, np.ones((2, 3)))
