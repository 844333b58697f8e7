"""Class labels as targets, in every function that accepts them.

Specifies ``targets``.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import long

N_IN, N_OUT, ROWS = 3, 4, 6
NETWORK = bx.mlp([N_IN, 5, N_OUT], hidden="tanh", loss="categorical_cross_entropy")
LABELS = np.asarray([0, 3, 1, 3, 2, 0])
# Labels of each network in a stack of 2.
STACKED = np.stack([LABELS, LABELS[::-1]])

SHAPES: list[Any] = [
    ((), LABELS),
    long((), LABELS[:, None]),
    long((2,), LABELS),
    ((2,), LABELS[:, None]),
    long((2,), STACKED),
    ((2,), STACKED[..., None]),
    long((3, 2), STACKED),
    long((3, 2), STACKED[:, None][:, [0, 0, 0]].swapaxes(0, 1)),
]
every_shape = pytest.mark.parametrize(("stack", "labels"), SHAPES)


def _x(xp: Any) -> Any:
    return xp.asarray(np.random.default_rng(41).normal(size=(ROWS, N_IN)))


def _one_hot(xp: Any, labels: np.ndarray) -> Any:
    """Return one-hot rows for labels, or for a column of labels."""
    flat = labels[..., 0] if labels.shape[-1] == 1 else labels
    return xp.asarray(np.eye(N_OUT)[flat])


def _calls(xp: Any, theta: Any, x: Any) -> dict[str, Callable[[Any], Any]]:
    """Return functions of y, each of which calls another public function."""
    options: dict[str, Any] = {"optimizer": bx.SGD(0.5), "epochs": 3, "batch_size": 4}
    validation_y = _one_hot(xp, LABELS)
    return {
        "loss": lambda y: NETWORK.loss(theta, x, y),
        "gradient": lambda y: NETWORK.loss_and_gradient(theta, x, y)[1],
        "fit": lambda y: bx.fit(NETWORK, theta, x, y, **options).theta,
        "validation": lambda y: bx.fit(
            NETWORK, theta, x, validation_y, validation=(x, y), **options
        ).history["validation_loss"],
    }


@pytest.mark.parametrize("call", ["loss", "gradient", "fit", "validation"])
@pytest.mark.parametrize("kind", ["int64", pytest.param("list", marks=pytest.mark.once)])
@every_shape
def test_class_labels_give_the_results_of_one_hot_rows(
    xp: Any, stack: tuple[int, ...], labels: np.ndarray, kind: str, call: str
) -> None:
    use = _calls(xp, xp.initialize(NETWORK, stack=stack), _x(xp))[call]
    y = labels.tolist() if kind == "list" else xp.asarray(labels, dtype=kind)
    xp.assert_equal(use(y), use(_one_hot(xp, labels)))


@pytest.mark.parametrize("kind", ["training rows", "validation", "validation of another kind"])
def test_a_training_validated_by_labels_equals_one_by_one_hot_rows(xp: Any, kind: str) -> None:
    """Early stopping and metrics accept a column of labels, or flat labels, in each argument."""

    def labels(of: np.ndarray) -> Any:
        return xp.asarray(of, dtype="uint8")

    def fit(y: Any, validation_y: Any) -> Any:
        options: dict[str, Any] = {"optimizer": bx.Adam(0.9), "epochs": 8, "batch_size": 4}
        options["early_stopping"] = bx.EarlyStopping(patience=2)
        options["metrics"] = {"accuracy": bx.metrics.accuracy}
        if kind != "training rows":
            options["validation"] = x, validation_y
        return bx.fit(NETWORK, theta, x, y, **options)

    theta, x, rows = xp.initialize(NETWORK, stack=2), _x(xp), _one_hot(xp, LABELS)
    validation_y = _one_hot(xp, LABELS[::-1])
    expected = fit(rows, validation_y)
    column = labels(LABELS[:, None])
    result = fit(rows if "another" in kind else column, labels(LABELS[::-1]))
    assert (result.epochs, result.history.keys()) == (expected.epochs, expected.history.keys())
    for name, values in expected.history.items():
        assert np.array_equal(result.history[name], values)
    assert np.array_equal(result.state.best.score, expected.state.best.score)
    assert np.array_equal(xp.host(result.theta), xp.host(expected.theta))


def test_labels_get_thetas_precision_and_work_with_a_complex_theta(xp: Any) -> None:
    theta, x = xp.initialize(NETWORK, dtype="float32"), xp.asarray(xp.host(_x(xp)), "float32")
    loss, gradient = NETWORK.loss_and_gradient(theta, x, xp.asarray(LABELS, dtype="int32"))
    assert loss.dtype == gradient.dtype == xp.namespace.float32
    dtype = xp.complex_dtype
    theta = xp.namespace.astype(xp.initialize(NETWORK), getattr(xp.namespace, dtype))
    labelled = NETWORK.loss(theta, _x(xp), xp.asarray(LABELS, dtype="int32"))
    assert np.array_equal(
        xp.host(labelled), xp.host(NETWORK.loss(theta, _x(xp), _one_hot(xp, LABELS)))
    )


@pytest.mark.parametrize("stack", [(), (2,)])
def test_integers_with_a_column_for_each_output_stay_rows_of_targets(
    xp: Any, stack: tuple[int, ...]
) -> None:
    theta, x = xp.initialize(NETWORK, stack=stack), _x(xp)[:N_OUT, :]
    y = np.eye(N_OUT, dtype=np.int64)
    actual = NETWORK.loss(theta, x, xp.asarray(y, dtype="int32"))
    assert np.array_equal(xp.host(actual), xp.host(NETWORK.loss(theta, x, xp.asarray(y))))


def test_integers_that_may_be_labels_of_a_stack_or_targets_are_an_error_with_both_ways_out(
    xp: Any,
) -> None:
    """There are as many rows and networks as outputs, so both readings of y are possible."""
    x = _x(xp)[:N_OUT, :]
    y = np.asarray([np.roll(LABELS[:N_OUT], i) for i in range(N_OUT)])
    for stack in ((N_OUT,), (2, N_OUT)):
        theta, labels = xp.initialize(NETWORK, stack=stack), xp.asarray(y, dtype="int32")
        calls = _calls(xp, theta, x)
        for use in (calls["loss"], calls["gradient"], calls["fit"]):
            with pytest.raises(
                ValueError, match=r"y has shape \(4, 4\).*y\[\.\.\., None\].*floating"
            ):
                use(labels)
        xp.assert_equal(
            NETWORK.loss(theta, x, labels[..., None]), NETWORK.loss(theta, x, _one_hot(xp, y))
        )


def test_labels_of_a_stack_that_cannot_be_targets_are_labels(xp: Any) -> None:
    theta, x = xp.initialize(NETWORK, stack=(2, N_OUT)), _x(xp)[:N_OUT, :]
    y = np.stack([[np.roll(LABELS[:N_OUT], i + j) for i in range(N_OUT)] for j in range(2)])
    actual = NETWORK.loss(theta, x, xp.asarray(y, dtype="int32"))
    xp.assert_equal(actual, NETWORK.loss(theta, x, _one_hot(xp, y)))


def test_labels_can_be_compiled(xp: Any) -> None:
    theta, x, y = xp.initialize(NETWORK), _x(xp), xp.asarray(LABELS, dtype="int32")
    expected = NETWORK.loss_and_gradient(theta, x, y)
    compiled = xp.selection.backend.compile(NETWORK.loss_and_gradient)(theta, x, y)
    for one, other in zip(compiled, expected, strict=True):
        xp.assert_close(one, other)


@pytest.mark.long
@pytest.mark.parametrize(
    "method", [pytest.param("complex_step", marks=pytest.mark.float64), "directional"]
)
@pytest.mark.parametrize("column", [False, True])
def test_a_gradient_check_accepts_labels(xp: Any, method: str, column: bool) -> None:
    theta, x = xp.initialize(NETWORK), _x(xp)
    y = LABELS[:, None] if column else LABELS
    moved = xp.asarray(y, dtype="int32")
    report = bx.check_network(NETWORK, theta, x, moved, method=method)
    assert report.passed
    rows = bx.check_network(NETWORK, theta, x, _one_hot(xp, y), method=method)
    assert report.max_relative_error == rows.max_relative_error
    outputs = NETWORK.forward(theta, x)
    assert bx.check_loss("categorical_cross_entropy", outputs, moved, method=method).passed


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3, 1, 4, 2, 0], r"y has 1 value that is not in 0 \.\.\. 3, 4 at y\[3\]\. The network"),
        ([0, 3, 9, -1, 2, 0], r"2 values .* the first 9 at y\[2\]\. The network has 4 outputs"),
        ([[0], [-2], [1], [1], [1], [1]], r"1 value .* 3, -2 at y\[1\]"),
    ],
)
def test_a_label_without_a_class_is_an_error_before_training(
    xp: Any, labels: list[Any], message: str
) -> None:
    theta, x, right = xp.initialize(NETWORK), _x(xp), xp.asarray(LABELS, dtype="int32")
    options: dict[str, Any] = {"optimizer": bx.SGD(0.5), "epochs": 1}
    for y in (labels, xp.asarray(labels, dtype="int32")):
        with pytest.raises(ValueError, match=message):
            bx.train(NETWORK, theta, x, y, **options)
        with pytest.raises(ValueError, match=f"In validation: .*{message}"):
            bx.fit(NETWORK, theta, x, right, validation=(x, y), **options)


@pytest.mark.parametrize(("kind", "column"), [("bool", False), ("working", True)])
def test_booleans_and_floats_in_the_shape_of_labels_are_an_error_with_both_ways_out(
    xp: Any, kind: str, column: bool
) -> None:
    y = LABELS[:, None] if column else LABELS
    moved = xp.asarray(y > 1 if kind == "bool" else y, dtype=kind)
    theta, x = xp.initialize(NETWORK), _x(xp)
    message = r"y has shape .*categorical_cross_entropy takes class labels, one integer .*one-hot"
    for use in (NETWORK.loss, bx.train, bx.check_network):
        data = (theta, x, moved) if use == NETWORK.loss else (NETWORK, theta, x, moved)
        options = {"optimizer": bx.SGD(0.1), "epochs": 1} if use is bx.train else {}
        with pytest.raises(ValueError, match=message):
            use(*data, **options)


@pytest.mark.parametrize("shape", [(ROWS + 1,), (ROWS, 2), (2, ROWS), (2, ROWS, 1), ()])
def test_labels_of_the_wrong_shape_are_an_error(xp: Any, shape: tuple[int, ...]) -> None:
    y = xp.asarray(np.zeros(shape), dtype="int32")
    with pytest.raises(ValueError, match=r"y has shape|y is stacked \(2,\)"):
        NETWORK.loss(xp.initialize(NETWORK), _x(xp), y)


def test_other_losses_accept_no_labels(xp: Any) -> None:
    network = bx.mlp([N_IN, N_OUT], loss="binary_cross_entropy")
    with pytest.raises(ValueError, match=r"y has shape \(6,\)"):
        network.loss(xp.initialize(network), _x(xp), xp.asarray(LABELS, dtype="int32"))


def test_a_custom_loss_may_accept_labels(xp: Any) -> None:
    own = dataclasses.replace(bx.losses.mean_squared_error, labels=True)
    network = bx.mlp([N_IN, N_OUT], loss=own)
    theta, x = xp.initialize(network), _x(xp)
    labelled = network.loss(theta, x, xp.asarray(LABELS, dtype="int32"))
    assert np.array_equal(xp.host(labelled), xp.host(network.loss(theta, x, _one_hot(xp, LABELS))))


def test_the_error_for_another_precision_names_the_array_that_decides() -> None:
    values, other = np.ones((4, 2)), np.ones((4, 2), "float32")
    calls: dict[str, Callable[[], Any]] = {
        "targets is float32, but predictions is float64": lambda: bx.metrics.r2(values, other),
        "weights is float32, but predictions is float64": lambda: bx.metrics.r2(
            values, values, other
        ),
        "mean is float32, but x is float64": lambda: bx.data.standardize(values, mean=other[:1]),
        "scale is float32, but x is float64": lambda: bx.data.standardize(values, scale=other[:1]),
    }
    for message, call in calls.items():
        with pytest.raises(TypeError, match=f"^{message}; precisions are not mixed"):
            call()
