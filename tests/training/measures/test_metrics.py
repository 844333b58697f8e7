"""Metrics against scikit-learn's, over stacks, weights and precisions."""

import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.measures.metrics import METRICS as NAMED, Metric, top_k
from tests.helpers import long

scores = pytest.importorskip("sklearn.metrics")

# Sums of forty terms, in another order than scikit-learn's, in units of the precision.
ROUNDINGS = 50
ROWS = 40

METRICS: dict[str, Metric] = {
    **{name: metric for name, metric in NAMED.items() if not name.startswith("top_")},
    "top_2": top_k(2),
}
OF_VALUES = ("mae", "r2", "rmse")
every_metric = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def _reference(name: str, p: np.ndarray, t: np.ndarray, w: np.ndarray | None) -> float:
    """Return scikit-learn's value for one network."""
    single = t.shape[-1] == 1
    if name not in OF_VALUES:
        found, true = ((v[:, 0] > 0.5) if single else np.argmax(v, -1) for v in (p, t))
        labels = None if single else np.arange(t.shape[-1])
    if name == "f1":  # a class of weight 0 is none
        kept = np.full(len(t), True) if w is None else w > 0.0
        w = None if w is None else w[kept]
        average = "binary" if single else "macro"
        options = {"sample_weight": w, "average": average, "zero_division": 0.0}
        return float(scores.f1_score(true[kept], found[kept], **options))
    if name == "log_loss":
        p, known = (p[:, 0], [0, 1]) if single else (p, labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of float32 shares, whose sum is rounded
            return float(scores.log_loss(true, p, sample_weight=w, labels=known))
    if name == "top_2":
        return float(scores.top_k_accuracy_score(true, p, k=2, sample_weight=w, labels=labels))
    if name == "roc_auc":
        w = np.ones(len(t)) if w is None else w
        columns = range(t.shape[-1])
        mixed = [j for j in columns if 0.0 < np.sum(w * t[:, j]) < np.sum(w)]
        each = [scores.roc_auc_score(t[:, j], p[:, j], sample_weight=w) for j in mixed]
        return float(np.mean(each))
    if name.endswith("accuracy"):
        function = getattr(scores, f"{name}_score")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about predicted classes without targets
            return float(function(true, found, sample_weight=w))
    function = {"r2": "r2_score", "rmse": "root_mean_squared_error", "mae": "mean_absolute_error"}
    function = function[name]
    return float(getattr(scores, function)(t, p, sample_weight=w))


def _case(name: str, n_out: int, stack: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions ``(*stack, ROWS, n_out)`` and targets ``(ROWS, n_out)``."""
    generator = np.random.default_rng([n_out, len(stack)])
    if name in OF_VALUES:
        t = generator.normal(size=(ROWS, n_out))
        return t + generator.normal(size=(*stack, ROWS, n_out)), t
    # Of few values, so that many are equal.
    p = generator.integers(1, 9, size=(*stack, ROWS, n_out)) / 10.0
    if name == "log_loss" and n_out > 1:
        p = p / np.sum(p, -1, keepdims=True)
    if n_out == 1:
        return p, (generator.uniform(size=(ROWS, 1)) > 0.7).astype(float)
    # The last class is predicted, but no target has it.
    return p, np.eye(n_out)[generator.integers(n_out - 1, size=ROWS)]


def _shaped() -> Iterator[Any]:
    """Yield every shape of targets and weights in one precision, in turn; the sweep has both."""
    stacks = [((), ""), ((2, 3), "shared"), ((2, 3), "stacked")]
    weights = ["unweighted", "weighted", "weighted each"]
    for i, n_out in enumerate((1, 5)):
        for j, (stack, targets) in enumerate(stacks):
            for k, weighted in enumerate(weights):
                case = n_out, stack, targets, weighted
                for turn, dtype in enumerate(("float32", "float64")):
                    is_extra = (i + j + k + turn) % 2
                    yield pytest.param(*case, dtype, marks=[pytest.mark.thorough] * is_extra)


@pytest.mark.parametrize(("n_out", "stack", "targets", "weighted", "dtype"), [*_shaped()])
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_equals_scikit_learns_for_each_network(
    xp: Any, name: str, n_out: int, stack: tuple[int, ...], targets: str, weighted: str, dtype: str
) -> None:
    if name == "top_2" and n_out == 1:
        with pytest.raises(ValueError, match="top_k needs an output for each class"):
            METRICS[name](xp.asarray([[0.5]]), xp.asarray([[1.0]]))
        return
    p, t = _case(name, n_out, stack)
    if targets == "stacked":
        t = np.stack([np.roll(t, i, 0) for i in range(int(np.prod(stack)))]).reshape(p.shape)
    shape = (*stack, ROWS) if weighted.endswith("each") else (ROWS,)
    w = np.random.default_rng(1).integers(4, size=shape) / 2.0
    p, t, w = (a.astype(dtype) for a in (p, t, w))
    given = None if weighted == "unweighted" else xp.asarray(w, dtype=dtype)
    actual = METRICS[name](xp.asarray(p, dtype=dtype), xp.asarray(t, dtype=dtype), given)
    assert actual.dtype == getattr(xp.namespace, dtype)
    assert actual.shape == stack
    t, w = np.broadcast_to(t, p.shape), np.broadcast_to(w, (*stack, ROWS))
    expected = np.zeros(stack)
    for i in np.ndindex(*stack):
        expected[i] = _reference(
            name,
            *(a[i].astype(float) for a in (p, t)),
            None if given is None else w[i].astype(float),
        )
    close = ROUNDINGS * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(xp.host(actual), expected, rtol=close, atol=close)


@pytest.mark.parametrize(
    "name",
    ["accuracy", *(long(name) for name in sorted({*METRICS} - {*OF_VALUES, "accuracy"}))],
)
def test_labels_are_targets_as_their_one_hot_rows_are(xp: Any, name: str) -> None:
    p, t = _case(name, 3, (2,))
    labels, metric = np.argmax(t, -1), METRICS[name]
    expected = xp.host(metric(xp.asarray(p), xp.asarray(t)))
    for given in (labels, labels[:, None], np.stack([labels, labels])):
        found = metric(xp.asarray(p), xp.asarray(given, dtype="int32"))
        xp.assert_close(found, expected, 1e-15)  # sums of weights that are stacked or shared
    # A label that is none of the classes counts for nothing.
    kept = xp.asarray(p[:, 1:, :]), xp.asarray(labels[1:], dtype="int32")
    labels[0] = 7
    xp.assert_close(metric(xp.asarray(p), xp.asarray(labels, dtype="int32")), metric(*kept), 1e-13)


@pytest.mark.long
def test_roc_auc_is_scikit_learns_for_two_classes_and_one_against_the_rest(xp: Any) -> None:
    generator = np.random.default_rng(5)
    p = generator.dirichlet(np.ones(4), 60)
    labels, w = np.arange(60) % 4, generator.uniform(size=60)
    ours = bx.metrics.roc_auc(xp.asarray(p), xp.asarray(labels, dtype="int32"))
    xp.assert_close(ours, scores.roc_auc_score(labels, p, multi_class="ovr"), 1e-12)
    two = np.stack([1.0 - p[:, 0], p[:, 0]], -1).round(1)
    given = xp.asarray(labels == 0, dtype="int32"), xp.asarray(w)
    expected = scores.roc_auc_score(labels == 0, two[:, 1], sample_weight=w)
    xp.assert_close(bx.metrics.roc_auc(xp.asarray(two), *given), expected, 1e-12)


@pytest.mark.long
def test_roc_auc_of_a_single_class_or_of_nan_is_nan(xp: Any) -> None:
    p, t = xp.asarray([[0.5], [0.7]]), xp.asarray([[1.0], [1.0]])
    assert np.isnan(xp.host(bx.metrics.roc_auc(p, t)))
    t = xp.asarray([[1.0], [0.0]])
    assert np.isnan(xp.host(bx.metrics.roc_auc(xp.asarray([[np.nan], [0.7]]), t)))
    assert xp.host(bx.metrics.top_k(1)(xp.asarray([[np.nan] * 2] * 2), [0, 1])) == 0.0


@pytest.mark.long
@pytest.mark.parametrize("name", [*METRICS])
@pytest.mark.parametrize("n", [1, 3])
def test_a_prediction_of_nan_makes_the_metric_of_its_network_nan(
    xp: Any, name: str, n: int
) -> None:
    """A class of NaN would be class 0. In ``top_k`` such a row is a miss."""
    p, t = _case(name, n, (2,))
    if name.startswith("top_") and n == 1:
        return
    w = np.where(np.arange(ROWS) == 5, 0.0, 1.0)
    p[0, 5, :] = np.nan  # of weight 0
    expected = xp.host(METRICS[name](*xp.put(p, t, w)))
    assert np.isfinite(expected).all()
    p[1, 3, 0] = np.nan
    found = xp.host(METRICS[name](*xp.put(p, t, w)))
    xp.assert_close(found[0], expected[0], 1e-14)
    assert np.isnan(found[1]) or (name == "top_2" and found[1] <= expected[1])


def test_a_metric_knows_whether_larger_values_are_better() -> None:
    smaller = {"log_loss", "mae", "rmse"}
    assert {name: metric.mode for name, metric in NAMED.items()} == {  # type: ignore[attr-defined]
        name: "min" if name in smaller else "max" for name in NAMED
    }


def test_log_loss_of_a_wrong_certainty_is_that_of_the_dtypes_rounding(xp: Any) -> None:
    p, labels = np.asarray([[1.0, 0.0], [0.25, 0.75], [0.0, 1.0]], xp.dtype), [1, 1, 1]
    expected = scores.log_loss(labels, p, labels=[0, 1])
    xp.assert_close(bx.metrics.log_loss(xp.asarray(p), labels), expected, 1e-14)
    single = bx.metrics.log_loss(xp.asarray(p[:, 1:]), [[1]] * 3)
    xp.assert_close(single, expected, 1e-14)


def test_a_metric_of_k_has_its_name_and_equals_another_of_it() -> None:
    assert top_k(4).__name__ == "top_4"
    assert top_k(4) == top_k(4) != top_k(3)
    assert NAMED["top_3"] == top_k(3)
    for name in {*NAMED} - {"top_3", "top_5"}:
        assert getattr(bx.metrics, name) is NAMED[name]


@pytest.mark.long
@pytest.mark.parametrize("value", [0.0, 0.1, 1e5 + 0.3])
def test_r2_of_constant_targets_is_1_for_exact_predictions_and_else_0(
    xp: Any, value: float
) -> None:
    """It holds for any constant, although a mean is rounded; scikit-learn's holds for 0."""
    t = np.full((7, 1), value)
    p = np.stack([t, t + 1.0])
    actual = bx.metrics.r2(xp.asarray(p), xp.asarray(t), xp.asarray(np.full(7, 0.3)))
    assert xp.host(actual).tolist() == [1.0, 0.0]
    if value == 0.0:
        assert [scores.r2_score(t, member) for member in p] == [1.0, 0.0]


@pytest.mark.long
def test_r2_of_an_output_with_constant_targets_is_averaged_with_the_others(xp: Any) -> None:
    t = np.asarray([[1.0, 2.0], [1.0, 3.0], [1.0, 5.0]])
    p = t + np.asarray([[0.5, 0.5], [0.0, 0.0], [0.0, 0.0]])
    actual = bx.metrics.r2(xp.asarray(p), xp.asarray(t), None)
    xp.assert_close(actual, scores.r2_score(t, p), 1e-14)


@pytest.mark.long
def test_a_class_whose_targets_weigh_nothing_is_left_out_of_balanced_accuracy(xp: Any) -> None:
    p, t = np.eye(3)[[0, 1, 1, 0]], np.eye(3)[[0, 1, 2, 1]]
    for weights, expected in (([1.0] * 4, (1 + 1 / 2 + 0) / 3), ([1.0, 1.0, 0.0, 1.0], 3 / 4)):
        given = xp.asarray(p), xp.asarray(t), xp.asarray(weights)
        xp.assert_close(bx.metrics.balanced_accuracy(*given), expected, 1e-15)


@pytest.mark.long
@every_metric
def test_integers_and_lists_are_accepted_as_targets_and_weights(xp: Any, metric: Metric) -> None:
    p, t = _case("accuracy", 3, (2,))
    p, w = xp.asarray(p), [1] * 20 + [2] * 20
    expected = xp.host(metric(p, xp.asarray(t), xp.asarray(w)))
    integers = xp.asarray(t.astype(int), dtype="int32"), xp.asarray(w, dtype="int32")
    for given in ((t.astype(int).tolist(), w), integers):
        xp.assert_equal(metric(p, *given), expected)


@every_metric
def test_a_metric_moves_nothing_to_the_host_and_can_be_compiled(xp: Any, metric: Metric) -> None:
    p, t = (xp.asarray(a) for a in _case("accuracy", 3, (2,)))
    w = xp.asarray(np.arange(1.0, ROWS + 1.0))
    with bx.transfer_guard("disallow"):
        found = metric(p, t, w)
    xp.assert_close(xp.selection.backend.compile(metric)(p, t, w), found, 1e-14)


@every_metric
@pytest.mark.parametrize(
    ("p", "t", "w", "message"),
    [
        ((4, 3), (4,), None, r"targets has shape \(4,\), but the outputs are \(\.\.\., 4, 3\)"),
        ((4, 3), (4, 2), None, r"targets has shape \(4, 2\)"),
        ((4, 3), (2, 4, 3), None, r"targets is stacked \(2,\)"),
        ((4, 3), (4, 3), (3,), r"weights has shape \(3,\).*4 rows"),
        ((4, 3), (4, 3), (2, 4), r"weights is stacked \(2,\)"),
        ((4,), (4,), None, r"predictions has shape \(4,\), but \(\.\.\., batch, n_out\)"),
        ((0, 3), (0, 3), None, r"predictions has shape \(0, 3\)"),
    ],
)
def test_an_invalid_input_is_an_error_that_names_it(
    xp: Any, metric: Metric, p: Any, t: Any, w: Any, message: str
) -> None:
    p, t = xp.asarray(np.ones(p)), xp.asarray(np.ones(t))
    with pytest.raises(ValueError, match=message):
        metric(p, t, None if w is None else xp.asarray(np.ones(w)))


def test_complex_predictions_are_an_error(xp: Any) -> None:
    p = xp.asarray(np.ones((2, 2)), dtype=xp.complex_dtype)
    with pytest.raises(TypeError, match=r"predictions is .*complex.*real numbers"):
        bx.metrics.rmse(p, np.ones((2, 2)).tolist(), None)


@pytest.mark.long
@every_metric
@pytest.mark.parametrize("stack", [(), (2,)])
def test_a_row_of_weight_0_that_overflows_is_left_out(
    xp: Any, metric: Metric, stack: tuple[int, ...]
) -> None:
    name = next(name for name, known in METRICS.items() if known is metric)
    p, t = _case(name, 3, stack)
    w = np.ones((*stack, ROWS))
    w[..., 5] = 0.0
    expected = metric(*xp.put(np.delete(p, 5, -2), np.delete(t, 5, -2)))
    p[..., 5, :], t[5] = np.inf, np.finfo(xp.dtype).max / 4.0
    xp.assert_close(metric(*xp.put(p, t, w)), xp.host(expected), xp.rounding(1e-14))


# ---- several predictions for each target


DISTRIBUTIONS: dict[str, tuple[bx.Loss, int, int]] = {
    "gaussian": (bx.losses.gaussian_nll, 2, 0),
    "quantiles": (bx.losses.quantile(0.1, 0.9, 0.5), 3, 2),
    "a user's own": (
        bx.losses.over_outputs(lambda a, b, t: (b - t, 0 * a, 1 + 0 * b), 2, point=1),
        2,
        1,
    ),
}


@pytest.mark.long
@pytest.mark.parametrize("stack", [(), (2,)])
@pytest.mark.parametrize("case", ["quantiles", "gaussian", "a user's own"])
def test_metrics_of_numbers_take_the_means_or_the_medians(
    xp: Any, case: str, stack: tuple[int, ...]
) -> None:
    """Of two targets: a block of predictions has two columns. Other metrics take all columns."""
    loss, blocks, point = DISTRIBUTIONS[case]
    network = bx.mlp([3, 2 * blocks], loss=loss)
    theta = xp.initialize(network, stack=stack)
    generator = np.random.default_rng(4)
    x, y = (xp.asarray(generator.normal(size=(ROWS, n))) for n in (3, 2))
    metrics: dict[str, Any] = {name: name for name in OF_VALUES}
    metrics["columns"] = lambda p, t, w: 0.0 * p[..., 0, 0] + p.shape[-1]
    result = bx.fit(network, theta, x, y, optimizer=bx.SGD(0.0), epochs=1, metrics=metrics)
    own = network.predict(theta, x)[..., 2 * point : 2 * point + 2]
    for name in OF_VALUES:
        wanted = NAMED[name](own, y)
        xp.assert_close(result.history[name][0], xp.host(wanted), ROUNDINGS * 1e-16)
    assert (result.history["columns"] == 2 * blocks).all()


def test_predictions_without_a_median_have_no_metric_of_numbers(xp: Any) -> None:
    network = bx.mlp([1, 2], loss=bx.losses.quantile(0.1, 0.9))
    theta, x = xp.initialize(network), xp.asarray([[1.0], [2.0]])
    with pytest.raises(ValueError, match=r"quantile\(0.1, 0.9\) predicts 2 .* level 0.5") as caught:
        bx.fit(network, theta, x, x, optimizer="adam", epochs=1, metrics=["r2"])
    assert "In metrics['r2']." in caught.value.__notes__
    message = r"2 columns for each column of targets\. .* such as predictions\[\.\.\., :1\]"
    with pytest.raises(ValueError, match=message):
        bx.metrics.rmse(network.predict(theta, x), x)
    with pytest.raises(ValueError, match="one row per row of x and one column per output"):
        bx.metrics.mae(network.predict(theta, x), xp.asarray([[1.0, 2.0, 3.0]] * 2))


@pytest.mark.long
@pytest.mark.parametrize("name", ["mae", "r2", "rmse"])
def test_an_entry_of_weight_0_is_left_out_of_its_output(xp: Any, name: str) -> None:
    generator = np.random.default_rng(5)
    p, t = generator.normal(size=(2, 3, 30, 12))
    w = generator.uniform(size=(30, 12)) * (generator.uniform(size=(30, 12)) < 0.6)
    w[:, 2] = 0.0  # an output that has no weight is left out
    p[:, w == 0.0] = np.nan
    found = xp.host(METRICS[name](*xp.put(p, t, w)))
    for member, value in enumerate(found):
        outputs = [j for j in range(12) if j != 2]
        each = []
        for j in outputs:
            own = [a[w[:, j] > 0.0] for a in (p[member, :, j, None], t[member, :, j, None])]
            each.append(_reference(name, *own, w[w[:, j] > 0.0, j]))
        assert value == pytest.approx(np.mean(each), rel=xp.rounding(1e-12))


def test_weights_do_not_move_the_mean_of_a_constant_output(xp: Any) -> None:
    generator = np.random.default_rng(6)
    w = generator.uniform(size=(30, 40)) * (generator.uniform(size=(30, 40)) < 0.6)
    t = np.broadcast_to(np.linspace(0.1, 0.7, 40), w.shape)  # whose weighted means are rounded
    xp.assert_equal(bx.metrics.r2(*xp.put(t, t, w)), 1.0)
    xp.assert_equal(bx.metrics.r2(*xp.put(t + 0.1, t, w)), 0.0)


@pytest.mark.parametrize("name", [name for name in NAMED if not name.startswith("top_")])
def test_a_docstring_says_that_scikit_learns_metric_has_the_other_order(name: str) -> None:
    text = inspect.getdoc(NAMED[name]) or ""
    theirs = re.search(r"Predictions come first: scikit-learn's ``(\w+)`` takes them second", text)
    assert theirs is not None
    first, second, *_ = inspect.signature(getattr(scores, theirs[1])).parameters
    assert first == "y_true"
    assert second in ("y_pred", "y_score", "y_proba")
