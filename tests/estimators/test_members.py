"""Ensembles of the estimators: each member is a training of its own, predictions are their mean."""

import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import backprop_xp as bx
from backprop_xp.estimators.architecture import draw_theta, parameters_of

# A stack's products may be summed in another order than one network's, over some dozen updates.
SAME_TRAINING = 1e-10
MEMBERS = 3
OPTIONS = {"hidden_layer_sizes": (6, 5), "max_iter": 4, "batch_size": 20, "random_state": 0}

CLASSES = make_classification(90, 8, n_informative=5, n_classes=3, random_state=0)
TWO = make_classification(90, 8, random_state=1)
LABELS = make_multilabel_classification(90, 8, n_classes=4, random_state=2)
VALUES = make_regression(90, 8, n_targets=1, noise=1.0, random_state=3)
TABLE = make_regression(90, 8, n_targets=3, noise=1.0, random_state=4)
VALUES, TABLE = ((X, y / np.std(y)) for X, y in (VALUES, TABLE))
TARGETS = {
    "classes": (bx.MLPClassifier, CLASSES),
    "two classes": (bx.MLPClassifier, TWO),
    "labels": (bx.MLPClassifier, LABELS),
    "values": (bx.MLPRegressor, VALUES),
    "several values": (bx.MLPRegressor, TABLE),
}
WEIGHTS = np.random.default_rng(6).uniform(0.2, 3.0, 90)


@pytest.fixture(autouse=True)
def _in_the_working_precision(xp: Any) -> Iterator[None]:
    with bx.use_backend(xp.selection.backend, xp.selection.device, xp.dtype):
        yield


def _fitted(kind: Any, data: Any, *more: Any, **options: Any) -> Any:
    """Fit without the warning that a few epochs were too few."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return kind(**{"n_members": MEMBERS, **OPTIONS, **options}).fit(*data, *more)


def _each(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the predictions of each member's network alone, ``(members, batch, n_outputs)``."""
    network = model._network(8)
    theta = bx.asarray(bx.to_host(network.pack(parameters_of(model, network))))
    x = bx.asarray(x)
    return np.stack([bx.to_host(network.predict(theta[i, :], x)) for i in range(MEMBERS)])


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"dropout": 0.2, "layer_norm": True}, {"shuffle": False}])
def test_each_member_is_trained_as_alone_with_its_own_seed(xp: Any, more: dict[str, Any]) -> None:
    x, y = VALUES
    model = _fitted(bx.MLPRegressor, VALUES, alpha=0.0, **more)
    network, state = model._network(8), np.random.RandomState(0)
    thetas = draw_theta(model, network, state)
    seeds = state.randint(2**31 - 1, size=MEMBERS).tolist()
    optimizer = bx.Adam(corrected_epsilon=False)
    for i, (theta, seed) in enumerate(zip(thetas, seeds, strict=True)):
        options = {"epochs": 4, "batch_size": 20, "seed": seed, "shuffle": model.shuffle}
        x_there, y_there = xp.put(x, y[:, None])
        alone = bx.fit(network, xp.asarray(theta), x_there, y_there, optimizer=optimizer, **options)
        weights, bias = network.unpack(alone.theta)[0]
        xp.assert_close(model.coefs_[0][i], weights, SAME_TRAINING)
        xp.assert_close(model.intercepts_[0][i], bias[0, :], SAME_TRAINING)
        curve = np.asarray(model.loss_curve_)[:, i]
        np.testing.assert_allclose(curve, alone.history["loss"], atol=SAME_TRAINING)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_predictions_are_the_mean_over_the_members(xp: Any, target: str) -> None:
    kind, (x, y) = TARGETS[target]
    model = _fitted(kind, (x, y))
    assert model.coefs_[0].shape == (MEMBERS, 8, 6)
    assert model.intercepts_[-1].shape == (MEMBERS, model.n_outputs_)
    assert np.shape(model.loss_curve_) == (4, MEMBERS)
    each = _each(model, x)
    assert each.std(0).min() > 0.0
    mean = each.mean(0)
    if kind is bx.MLPRegressor:
        found, deviation = model.predict(x, return_std=True)
        np.testing.assert_array_equal(found, model.predict(x))
        xp.assert_close(found, mean.reshape(y.shape), 1e-12)
        xp.assert_close(deviation, each.std(0).reshape(y.shape), 1e-12)
        return
    both = np.concatenate([1.0 - mean, mean], axis=-1) if target == "two classes" else mean
    xp.assert_close(model.predict_proba(x), both, 1e-12)
    xp.assert_close(model.predict_log_proba(x), np.log(both), 1e-11)
    decided = mean > 0.5 if target == "labels" else both.argmax(-1)
    np.testing.assert_array_equal(model.predict(x), decided)
    assert model.score(x, y) == np.mean((decided == y).reshape(90, -1).all(-1))


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.parametrize("early", [False, True])
def test_of_each_members_starts_the_best_is_kept(xp: Any, early: bool) -> None:
    options = {"early_stopping": early, "alpha": 0.1}
    all_of_them = _fitted(bx.MLPRegressor, VALUES, n_members=6, **options)
    best = _fitted(bx.MLPRegressor, VALUES, n_members=2, n_restarts=3, **options)
    values = np.asarray(all_of_them.best_validation_score_ if early else all_of_them.loss_)
    values *= -1.0 if early else 1.0
    starts = [values[:3].argmin(), 3 + values[3:].argmin()]
    for kept, each in zip(best.coefs_, all_of_them.coefs_, strict=True):
        xp.assert_close(kept, each[starts], SAME_TRAINING)
    for name in ("loss_curve_", "validation_scores_", "validation_loss_curve_"):
        curves = [getattr(model, name) for model in (best, all_of_them)]
        if early or name == "loss_curve_":
            np.testing.assert_allclose(
                curves[0], np.asarray(curves[1])[:, starts], atol=SAME_TRAINING
            )


def test_each_member_keeps_its_own_best_weights() -> None:
    model = _fitted(bx.MLPClassifier, CLASSES, early_stopping=True, max_iter=30)
    scores = np.asarray(model.validation_scores_)
    assert len(set(scores.argmax(0))) > 1, "the members are best in different epochs"
    np.testing.assert_array_equal(model.best_validation_score_, scores.max(0))


def test_training_ends_when_each_member_has_stopped_improving_once() -> None:
    options = {"tol": 1e-2, "n_iter_no_change": 3, "max_iter": 500, "learning_rate_init": 0.02}
    model = _fitted(bx.MLPRegressor, VALUES, **options)
    curves = np.asarray(model.loss_curve_).T
    stops = []
    for curve in curves:
        best = np.minimum.accumulate(np.concatenate([[np.inf], curve[:-1]]))
        stale = 0
        for epoch, stays in enumerate(curve > best - 1e-2, 1):
            stale = stale + 1 if stays else 0
            if stale > 3:
                stops.append(epoch)
                break
    assert len(stops) == MEMBERS
    assert model.n_iter_ == max(stops) < 500
    assert len(set(stops)) > 1


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.parametrize("how", ["partial_fit", "warm_start"])
def test_members_go_on_from_where_they_were(xp: Any, how: str, tmp_path: Any) -> None:
    model = _fitted(bx.MLPClassifier, CLASSES, dropout=0.1, warm_start=how == "warm_start")
    copies = [pickle.loads(pickle.dumps(model))]  # noqa: S301
    model.save(tmp_path / "model")
    copies.append(bx.MLPClassifier.load(tmp_path / "model"))
    before, losses = bx.to_host(model.coefs_[0]).copy(), model.loss_curve_
    for one in (model, *copies):
        if how == "partial_fit":
            one.partial_fit(*CLASSES)
        else:
            with pytest.warns(ConvergenceWarning):
                one.fit(*CLASSES)
        xp.assert_equal(one.coefs_[0], model.coefs_[0])
        assert one.loss_curve_ == model.loss_curve_
        np.testing.assert_array_equal(one.best_loss_, model.best_loss_)
        np.testing.assert_array_equal(one.predict_proba(TWO[0]), model.predict_proba(TWO[0]))
    assert model.loss_curve_[:4] == losses
    changes = np.abs(bx.to_host(model.coefs_[0]) - before)
    assert 0.0 < changes.max(axis=(1, 2)).min() <= changes.max() < 0.1  # of few steps, in each


def test_each_members_best_loss_is_kept_from_call_to_call() -> None:
    model = bx.MLPRegressor(**OPTIONS, n_members=MEMBERS).partial_fit(*VALUES)
    model.best_loss_ = [0.0, 9.0, 9.0]
    model.partial_fit(*VALUES)
    assert model.best_loss_ == [0.0, *model.loss_[1:]]
    assert model._no_improvement_count == [1, 0, 0]


def test_a_warm_start_keeps_each_members_best_score(xp: Any) -> None:
    options = {"early_stopping": True, "warm_start": True, "max_iter": 12}
    model = bx.MLPClassifier(**{**OPTIONS, **options}, n_members=MEMBERS)
    rows = {"X_val": CLASSES[0][:30], "y_val": CLASSES[1][:30]}
    with pytest.warns(ConvergenceWarning):
        model.fit(*CLASSES, **rows)
    before, scores = model.coefs_, model.best_validation_score_
    with pytest.warns(ConvergenceWarning):
        model.set_params(learning_rate_init=1e-12, max_iter=2).fit(*CLASSES, **rows)
    assert model.best_validation_score_ == scores
    for one, other in zip(model.coefs_, before, strict=True):
        xp.assert_equal(one, other)


@pytest.mark.once
def test_the_number_of_members_is_a_parameter_like_others() -> None:
    model = bx.MLPClassifier(**{**OPTIONS, "n_members": 2})
    assert clone(model).n_members == 2
    search = GridSearchCV(model, {"n_members": [1, 3], "n_restarts": [1, 2]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        search.fit(*TWO)
    assert {*search.cv_results_["param_n_members"]} == {1, 3}
    assert search.predict(TWO[0]).shape == (90,)


@pytest.mark.float64
def test_weights_count_for_every_member(xp: Any) -> None:
    weight = {0: 1.0, 1: 2.0, 2: 0.5}
    by_class = _fitted(bx.MLPClassifier, CLASSES, WEIGHTS, class_weight=weight)
    by_sample = _fitted(bx.MLPClassifier, CLASSES, WEIGHTS * [weight[c] for c in CLASSES[1]])
    plain = _fitted(bx.MLPClassifier, CLASSES)
    xp.assert_equal(by_class.coefs_[0], by_sample.coefs_[0])
    changes = np.abs(bx.to_host(by_class.coefs_[0]) - bx.to_host(plain.coefs_[0]))
    assert changes.max(axis=(1, 2)).min() > 1e-4


@pytest.mark.once
def test_a_callback_sees_the_whole_ensemble() -> None:
    monitor = ScoringMonitor(scoring="accuracy")
    model = bx.MLPClassifier(**OPTIONS, n_members=MEMBERS, n_restarts=2)
    with pytest.warns(ConvergenceWarning):
        model.set_callbacks(monitor).fit(*TWO)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] == model.score(*TWO)


@pytest.mark.once
def test_what_has_no_members_is_refused() -> None:
    with pytest.raises(ValueError, match="The 'n_members' parameter of MLPRegressor must be"):
        bx.MLPRegressor(n_members=0).fit(*VALUES)
    alone = _fitted(bx.MLPRegressor, VALUES, n_members=1)
    with pytest.raises(ValueError, match="return_std needs several members"):
        alone.predict(VALUES[0], return_std=True)
    with pytest.raises(ValueError, match=r"had .* when this was fitted: fit again"):
        alone.set_params(n_members=2).predict(VALUES[0])


@pytest.mark.parametrize("n_members", [1, 3])
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_input_gradient_and_hessian_are_slopes_of_predict(
    xp: Any, n_members: int, n_outputs: int
) -> None:
    generator = np.random.default_rng(4)
    x = generator.normal(size=(30, 3))
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=-1)[:, :n_outputs]
    y = y[:, 0] if n_outputs == 1 else y
    options: Any = {"activation": "tanh", "max_iter": 15, "random_state": 0}
    model = bx.MLPRegressor(hidden_layer_sizes=(8,), n_members=n_members, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    found = model.input_gradient(x)
    assert found.shape == ((30, 3) if n_outputs == 1 else (30, 2, 3))
    for i, step in enumerate(1e-2 * np.eye(3)):
        slope = (model.predict(x + step) - model.predict(x - step)) / 2e-2
        # A step of 1e-2 truncates 1e-4 of the third derivative, and rounds in float32.
        np.testing.assert_allclose(found[..., i], slope, rtol=0.0, atol=5e-3)
    curvatures = model.input_hessian(x)
    assert curvatures.shape == (*found.shape, 3)
    for i, step in enumerate(1e-2 * np.eye(3)):
        slope = (model.input_gradient(x + step) - model.input_gradient(x - step)) / 2e-2
        np.testing.assert_allclose(curvatures[..., i], slope, rtol=0.0, atol=5e-3)


@pytest.mark.once
def test_input_hessian_goes_through_the_inverse_link() -> None:
    x = np.random.default_rng(4).normal(size=(30, 2))
    options: Any = {"loss": "poisson", "n_members": 1, "hidden_layer_sizes": (), "max_iter": 3}
    model = _fitted(bx.MLPRegressor, (x, np.exp(x[:, 0])), **options)
    slopes, rate = model.input_gradient(x), model.predict(x)[:, None, None]
    expected = slopes[:, :, None] * slopes[:, None, :] / rate  # of exp(a x + b)
    np.testing.assert_allclose(model.input_hessian(x), expected, rtol=1e-10)


# Targets of three classes, of two, of labels; as the classifier's loss takes them.
LABELS = np.random.default_rng(5).integers(0, 3, 30)
KINDS_OF_CLASSES: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "three classes": (LABELS, {}),
    "two classes": (np.where(LABELS > 0, "yes", "no"), {}),
    "sigmoids over their sum": (LABELS, {"loss": "binary_cross_entropy"}),
    "labels": (np.stack([LABELS > 0, LABELS > 1], axis=-1).astype(int), {}),
    "members": (LABELS, {"n_members": 3}),
    "members of two classes": (LABELS > 0, {"n_members": 3}),
}


@pytest.mark.parametrize("name", KINDS_OF_CLASSES)
@pytest.mark.parametrize("hidden", [(), (8,)], ids=["logistic", "hidden"])
def test_input_gradient_of_a_classifier_is_the_slope_of_predict_proba(
    xp: Any, name: str, hidden: tuple[int, ...]
) -> None:
    x, (y, options) = np.random.default_rng(4).normal(size=(30, 3)), KINDS_OF_CLASSES[name]
    model = bx.MLPClassifier(hidden, "tanh", max_iter=15, random_state=0, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y)
    found = model.input_gradient(x)
    assert found.shape == (*model.predict_proba(x).shape, 3)
    # The truncation of a step, and the rounding of probabilities over it.
    step, tolerance = (1e-4, 1e-7) if model.coefs_[0].dtype == np.float64 else (1e-2, 5e-3)
    for i, along in enumerate(step * np.eye(3)):
        slope = (model.predict_proba(x + along) - model.predict_proba(x - along)) / (2.0 * step)
        np.testing.assert_allclose(found[..., i], slope, rtol=0.0, atol=tolerance)


def test_input_gradient_of_a_logistic_regression_has_its_closed_form(xp: Any) -> None:
    x, tolerance = np.random.default_rng(4).normal(size=(30, 3)), xp.rounding(1e-13)
    options: Any = {"hidden_layer_sizes": (), "solver": "lbfgs", "random_state": 0}
    two, three = (bx.MLPClassifier(**options).fit(x, y) for y in (LABELS > 0, LABELS))
    (weights,), p = map(bx.to_host, two.coefs_), two.predict_proba(x)
    slope = (p[:, :1] * p[:, 1:]) * weights[:, 0]
    expected = np.stack([-slope, slope], axis=1)
    np.testing.assert_allclose(two.input_gradient(x), expected, rtol=0.0, atol=tolerance)
    (weights,), p = map(bx.to_host, three.coefs_), three.predict_proba(x)
    expected = p[:, :, None] * (weights.T - (p @ weights.T)[:, None, :])
    np.testing.assert_allclose(three.input_gradient(x), expected, rtol=0.0, atol=tolerance)


def test_a_classifier_without_probabilities_has_no_input_gradient() -> None:
    model = bx.MLPClassifier(loss="hinge")
    with pytest.raises(AttributeError, match="input_gradient") as error:
        model.input_gradient(VALUES[0])
    assert "loss='hinge' gives no probabilities" in str(error.value.__cause__)
