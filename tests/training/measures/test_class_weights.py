"""Weights of classes: those of scikit-learn, as weights of rows, in training and validation."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.training.measures.class_weights import weights_by_class, weights_of_rows

ROUNDING = 1e-12

generator = np.random.default_rng(2)
X = generator.normal(size=(12, 3))
LABELS = np.asarray([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 0])
WEIGHTS = generator.uniform(0.5, 2.0, 12)


def _case(xp: Any, n_out: int = 3, loss: str = "categorical_cross_entropy", **options: Any) -> Any:
    network = bx.mlp([3, 4, n_out], hidden="tanh", loss=loss)
    return network, xp.initialize(network, **options), xp.asarray(X)


def _y(xp: Any, form: str) -> Any:
    """Return the labels as labels, one-hot, or as the column of class 0 against the others."""
    if form == "labels":
        return xp.asarray(LABELS, dtype="int32")
    return xp.asarray(np.eye(3)[LABELS] if form == "one-hot" else (LABELS == 0)[:, None])


def _argmax_hits(p: Any, t: Any, w: Any) -> Any:
    """A metric of one's own, which takes the targets as one-hot rows."""
    xp = array_namespace(p)
    hits = xp.argmax(p, axis=-1) == xp.argmax(t, axis=-1)
    return xp.mean(xp.astype(hits, p.dtype), axis=-1)


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [5, None])
@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": "balanced", "metrics": {"own": _argmax_hits}, "train_metrics": True},
        {"class_weight": [0.5, 2.0, 0.0], "validation": 0.3, "metrics": ["accuracy", "f1"]},
        {"class_weight": {1: 3.0}, "accumulate": 2, "check_every": 2},
        {"augment": lambda x, y, w, seed: (x, 0.9 * y + 0.1 / 3.0, w)},
        {"seed": (4, 5), "class_weight": "balanced"},
    ],
    ids=range(5),
)
def test_class_labels_train_as_their_one_hot_rows_do(
    xp: Any, options: dict[str, Any], batch_size: int | None
) -> None:
    if "accumulate" in options and batch_size is None:
        return
    case = _case(xp, stack=(2,))
    stacked = np.stack([LABELS, np.roll(LABELS, 1)])
    given = {"optimizer": bx.Adam(0.1), "epochs": 3, "batch_size": batch_size, **options}
    each = WEIGHTS * np.asarray([[1.0], [2.0]])
    for labels in (LABELS, stacked):
        if labels is stacked and "validation" in options:
            continue  # a share of each class needs labels that the networks share
        y, one_hot = xp.asarray(labels, dtype="int32"), xp.asarray(np.eye(3)[labels])
        for weights in (WEIGHTS, each):
            more = {**given, "sample_weight": xp.asarray(weights)}
            found, expected = (bx.fit(*case, form, **more) for form in (y[..., None], one_hot))
            xp.assert_close(found.theta, expected.theta, ROUNDING)
            assert found.history.keys() == expected.history.keys()
            for name, values in expected.history.items():
                if not name.startswith("gradient"):  # rounding alone
                    xp.assert_close(found.history[name], values, ROUNDING)


@pytest.mark.parametrize("form", ["labels", "one-hot", "column"])
@pytest.mark.parametrize("given", ["balanced", {1: 5.0}, [0.5, 2.0, 3.0]], ids=str)
def test_classes_weigh_as_the_weights_of_their_rows_do(xp: Any, form: str, given: Any) -> None:
    n = 1 if form == "column" else 3
    labels = (LABELS == 0) * 1 if n == 1 else LABELS
    if n == 1 and isinstance(given, list):
        given = given[:2]
    if given == "balanced":
        totals = np.bincount(labels, WEIGHTS)
        by_class = totals.sum() / (len(totals) * totals)
    else:
        numbers = given if isinstance(given, dict) else dict(enumerate(given))
        by_class = np.asarray([numbers.get(k, 1.0) for k in range(max(2, n))])
    loss = "binary_cross_entropy" if n == 1 else "categorical_cross_entropy"
    network, theta, x = _case(xp, n, loss)
    y, weight = _y(xp, form), xp.asarray(WEIGHTS)
    expected = xp.asarray(WEIGHTS * by_class[labels])
    options: dict[str, Any] = {"optimizer": bx.Adam(0.1), "epochs": 4, "batch_size": 5}
    part = (x, y, weight)
    ours = bx.fit(
        network, theta, x, y, sample_weight=weight, class_weight=given, validation=part, **options
    )
    rows = bx.fit(
        network, theta, x, y, sample_weight=expected, validation=(x, y, expected), **options
    )
    xp.assert_close(ours.theta, rows.theta, ROUNDING)
    for name in ("loss", "validation_loss"):
        xp.assert_close(ours.history[name], rows.history[name], ROUNDING)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["alike", "weighted"])
def test_balanced_weights_are_scikit_learns_of_the_classes_that_occur(
    xp: Any, weights: Any
) -> None:
    sklearn = pytest.importorskip("sklearn.utils.class_weight")
    labels = LABELS + (LABELS == 2)  # class 2 does not occur
    y = xp.asarray(np.eye(4)[labels])
    given = None if weights is None else xp.asarray(weights)
    by_class = weights_by_class("balanced", y, given)
    known = np.unique(labels)
    expected = sklearn.compute_class_weight(
        "balanced", classes=known, y=labels, sample_weight=weights
    )
    found = xp.host(by_class)
    np.testing.assert_allclose(found[known], expected, rtol=xp.rounding(ROUNDING))
    assert found[2] == 0.0
    rows = xp.host(weights_of_rows(by_class, y, given))
    np.testing.assert_allclose(rows, found[labels] * (1.0 if weights is None else weights))


def test_validation_has_the_class_weights_of_training(xp: Any) -> None:
    network, theta, x = _case(xp)
    y, part = _y(xp, "labels"), (x[6:, :], _y(xp, "labels")[6:])
    result = bx.fit(
        network,
        theta,
        x,
        y,
        class_weight="balanced",
        validation=part,
        optimizer=bx.SGD(1e-9),
        epochs=1,
    )
    counts = np.bincount(LABELS)
    weight = xp.asarray((12 / (3 * counts))[LABELS[6:]])
    expected = network.loss(theta, *part, sample_weight=weight)
    xp.assert_close(result.history["validation_loss"][0], expected, 1e-6)


def test_each_member_balances_its_own_rows(xp: Any) -> None:
    network, theta, x = _case(xp, stack=2)
    weights = np.stack([WEIGHTS, WEIGHTS[::-1]])
    options: dict[str, Any] = {"optimizer": bx.Adam(0.1), "epochs": 3, "class_weight": "balanced"}
    y = _y(xp, "labels")
    both = bx.fit(network, theta, x, y, sample_weight=xp.asarray(weights), **options)
    for i in range(2):
        one = bx.fit(network, theta[i, :], x, y, sample_weight=xp.asarray(weights[i]), **options)
        xp.assert_close(both.theta[i, :], one.theta, ROUNDING)


def test_a_class_of_weight_0_is_left_out_even_if_it_overflows(xp: Any) -> None:
    network, theta, x = _case(xp)
    huge = xp.asarray(np.where((LABELS == 1)[:, None], 1e300 if xp.dtype == "float64" else 1e37, X))
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 2, "class_weight": {1: 0.0}}
    result = bx.fit(network, theta, huge, _y(xp, "labels"), **options)
    xp.assert_close(result.theta, bx.fit(network, theta, x, _y(xp, "labels"), **options).theta)


REFUSED: list[tuple[Any, str]] = [
    ("even", "class_weight must be \"balanced\" or numbers, not 'even'"),
    ({3: 1.0}, r"class_weight has \[3\], but the classes are 0 \.\.\. 2"),
    ({"a": 1.0}, r"class_weight has \['a'\], but the classes"),
    ([1.0, 2.0], "class_weight has 2 weights, but there are 3 classes"),
    ([1.0, -2.0, 1.0], r"class_weight\[1\] must be >= 0, not -2"),
    ([0.0, 0.0, 0.0], "class_weight must not be 0 for all classes"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED, ids=str)
def test_weights_of_no_classes_are_refused(xp: Any, given: Any, message: str) -> None:
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 1}
    with pytest.raises(ValueError, match=message):
        bx.train(*_case(xp), _y(xp, "labels"), class_weight=given, **options)
    network, theta, x = _case(xp, 3, "mean_squared_error")
    with pytest.raises(ValueError, match="class_weight is for losses of classes"):
        bx.train(network, theta, x, _y(xp, "one-hot"), class_weight="balanced", **options)
    labels = _case(xp, 3, "binary_cross_entropy")
    with pytest.raises(ValueError, match="class_weight is for losses of classes"):
        bx.train(*labels, _y(xp, "one-hot"), class_weight="balanced", **options)
