"""The scikit-learn estimators against scikit-learn's perceptrons, and scikit-learn's checks.

Specifies ``architecture``, ``base``, ``bases``, ``estimators``, ``parameters``, ``samples``,
``stochastic`` and ``targets``.
"""

import copy
import datetime
import inspect
import pickle
import re
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import array_api_strict
import joblib
import numpy as np
import pytest
import scipy.sparse
import sklearn
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import make_classification, make_multilabel_classification, make_regression
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.inspection import permutation_importance
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks

import backprop_xp as bx
from backprop_xp.backends import dtype_name
from backprop_xp.estimators.targets import (
    as_distribution,
    class_weights,
    score_of_labels,
    score_of_values,
)
from tests.helpers import thorough

# Sums in another order, over a few dozen updates.
SAME_TRAINING = 1e-10
# L-BFGS ends where a step lowers the loss by 2e-9: a flat valley goes on below that.
SAME_MINIMUM = 1e-5

CLASSES = make_classification(90, 8, n_informative=5, n_classes=3, random_state=0)
TWO = make_classification(90, 8, random_state=1)
LABELS = make_multilabel_classification(90, 8, n_classes=4, random_state=2)
VALUES = make_regression(90, 8, n_targets=1, noise=1.0, random_state=3)
TABLE = make_regression(90, 8, n_targets=3, noise=1.0, random_state=4)
VALUES, TABLE = ((X, y / np.std(y)) for X, y in (VALUES, TABLE))
COUNTS = VALUES[0], np.random.default_rng(5).poisson(np.exp(0.5 * VALUES[1])).astype(np.float64)
WEIGHTS = np.random.default_rng(6).uniform(0.2, 3.0, 90)

PAIRS = {
    "classes": (bx.MLPClassifier, MLPClassifier, CLASSES, {}),
    "two classes": (bx.MLPClassifier, MLPClassifier, TWO, {}),
    "labels": (bx.MLPClassifier, MLPClassifier, LABELS, {}),
    "values": (bx.MLPRegressor, MLPRegressor, VALUES, {}),
    "several values": (bx.MLPRegressor, MLPRegressor, TABLE, {}),
    "counts": (bx.MLPRegressor, MLPRegressor, COUNTS, {"loss": "poisson"}),
}
every_target = pytest.mark.parametrize("target", PAIRS)
both = pytest.mark.parametrize("kind", [bx.MLPClassifier, bx.MLPRegressor])


@pytest.fixture(autouse=True)
def _require_backend(xp: Any) -> None:
    """Skip where the suite's backend is unusable: the estimators would choose it."""


@pytest.fixture
def in_float64(xp: Any) -> Iterator[None]:
    """Use float64 where the suite does: JAX, PyTorch and CuPy would use float32."""
    with bx.use_backend(xp.selection.backend, xp.selection.device, "float64"):
        yield


@pytest.fixture
def on_numpy() -> Iterator[None]:
    with bx.use_backend("numpy", dtype="float64"):
        yield


def _fit(model: Any, *data: Any, **options: Any) -> Any:
    """Fit without the warning of no convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*data, **options)


def _pair(target: str, *more: Any, **options: Any) -> tuple[Any, Any]:
    """Return our estimator and scikit-learn's, fitted with the same random state and weights."""
    ours, theirs, data, own = PAIRS[target]
    given = {"hidden_layer_sizes": (7, 5), "random_state": 7, "max_iter": 6, **own, **options}
    return tuple(_fit(make(**given), *data, *more) for make in (ours, theirs))


_sparse = scipy.sparse.csr_array


def _assert_same_parameters(one: Any, other: Any, tolerance: float) -> None:
    mine, yours = ([*model.coefs_, *model.intercepts_] for model in (one, other))
    for a, b in zip(mine, yours, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


# ---- equal to scikit-learn's

OPTIONS: dict[str, dict[str, Any]] = {
    "sgd": {"solver": "sgd", "momentum": 0.0, "learning_rate_init": 0.05},
    "momentum": {"solver": "sgd", "nesterovs_momentum": False, "learning_rate_init": 0.05},
    "nesterov": {"solver": "sgd", "learning_rate_init": 0.05},
    "invscaling": {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5},
    "adaptive": {"solver": "sgd", "learning_rate": "adaptive", "tol": 1.0, "n_iter_no_change": 1},
    "NumPy's numbers": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "learning_rate_init": np.float64(1e-6),
        "tol": np.float32(1.0),
        "n_iter_no_change": np.int64(1),
        "batch_size": np.int32(30),
    },
    "adam": {"learning_rate_init": 0.02},
    "adam, large epsilon": {"learning_rate_init": 0.02, "epsilon": 0.1, "beta_2": 0.9},
    "logistic": {"activation": "logistic"},
    "tanh": {"activation": "tanh"},
    "identity": {"activation": "identity"},
}


@pytest.mark.long
@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_epoch_equals_scikit_learns(options: dict[str, Any], shuffle: bool) -> None:
    # 90 rows in batches of 20: the last has 10, and twice the penalty of the others.
    given = {"alpha": 0.1, "batch_size": 20, "shuffle": shuffle, **options}
    ours, theirs = _pair("classes", **given)
    _assert_same_parameters(ours, theirs, SAME_TRAINING)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=SAME_TRAINING)
    assert ours.n_iter_ == theirs.n_iter_
    assert ours.t_ == theirs.t_


@pytest.mark.once
@every_target
@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("weighted", [False, True])
def test_training_on_every_kind_of_target_equals_scikit_learns(target: str, weighted: bool) -> None:
    more = [WEIGHTS] if weighted else []
    ours, theirs = _pair(target, *more, alpha=0.1, batch_size=20, learning_rate_init=0.02)
    _assert_same_parameters(ours, theirs, SAME_TRAINING)
    if not weighted:  # our loss of a weighted epoch is the mean over the weights, not over the rows
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=SAME_TRAINING)
    assert ours.out_activation_ == theirs.out_activation_
    x = PAIRS[target][2][0]
    np.testing.assert_allclose(ours.predict(x), theirs.predict(x), rtol=0, atol=SAME_TRAINING)
    for method in ("predict_proba", "predict_log_proba"):
        if hasattr(theirs, method):
            mine, yours = (getattr(model, method)(x) for model in (ours, theirs))
            np.testing.assert_allclose(mine, yours, rtol=0, atol=SAME_TRAINING)


@pytest.mark.once
@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "values", "several values"])
def test_early_stopping_equals_scikit_learns(target: str) -> None:
    options = {"early_stopping": True, "max_iter": 40, "learning_rate_init": 0.05, "tol": 1e-3}
    ours, theirs = _pair(target, **options, validation_fraction=0.3)
    assert ours.n_iter_ == theirs.n_iter_
    np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_)
    assert ours.best_loss_ is None
    assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    _assert_same_parameters(ours, theirs, 1e-8)
    assert len(ours.validation_loss_curve_) == ours.n_iter_


@pytest.mark.once
@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("target", ["classes", "two classes", "labels", "values", "counts"])
@pytest.mark.parametrize("weighted", [False, True])
def test_lbfgs_finds_scikit_learns_minimum(target: str, weighted: bool) -> None:
    """Of a convex loss, without hidden layers: others have several minima."""
    more = [WEIGHTS] if weighted else []
    options = {"solver": "lbfgs", "alpha": 1.0, "max_iter": 2000, "tol": 1e-8}
    ours, theirs = _pair(target, *more, hidden_layer_sizes=(), **options)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=SAME_MINIMUM)
    assert 0.5 < ours.n_iter_ / theirs.n_iter_ < 2.0


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_warm_start_continues_as_scikit_learns(solver: str) -> None:
    ours, theirs = _pair("classes", solver=solver, warm_start=True, activation="tanh")
    for model in (ours, theirs):
        _fit(model.set_params(max_iter=4), *CLASSES)
    _assert_same_parameters(ours, theirs, SAME_TRAINING)
    assert ours.n_iter_ == theirs.n_iter_


def test_a_warm_start_of_lbfgs_begins_at_the_last_weights() -> None:
    options = {"solver": "lbfgs", "warm_start": True, "random_state": 0, "max_iter": 5}
    model = _fit(bx.MLPClassifier(6, **options), *CLASSES)
    first, losses = model.loss_, [_fit(model, *CLASSES).loss_ for _ in range(3)]
    assert model.n_iter_ == 5
    assert (np.diff([first, *losses]) < 0.0).all()


@pytest.mark.once
@every_target
@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_continues_as_scikit_learns(target: str, solver: str) -> None:
    ours, theirs, (x, y), own = PAIRS[target]
    given = {"hidden_layer_sizes": (7, 5), "solver": solver, "random_state": 7, **own}
    models = [make(**given) for make in (ours, theirs)]
    for part in (slice(0, 40), slice(40, 90), slice(10, 70)):
        for model in models:
            is_first = part.start == 0 and hasattr(model, "predict_proba")
            classes = {"classes": np.arange(4) if y.ndim > 1 else np.unique(y)} if is_first else {}
            model.partial_fit(x[part], y[part], WEIGHTS[part], **classes)
    _assert_same_parameters(*models, SAME_TRAINING)
    assert models[0].t_ == models[1].t_ == 150


@pytest.mark.once
@pytest.mark.usefixtures("in_float64")
@pytest.mark.float64
@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.csc_matrix])
def test_sparse_rows_train_as_dense_ones(container: Any) -> None:
    x, y = CLASSES
    dense, sparse = (
        _fit(bx.MLPClassifier(5, max_iter=3, random_state=0), rows, y) for rows in (x, container(x))
    )
    _assert_same_parameters(dense, sparse, 0.0)
    np.testing.assert_array_equal(dense.predict(x), sparse.predict(container(x)))


@pytest.mark.once
@pytest.mark.usefixtures("in_float64")
@pytest.mark.float64
@pytest.mark.parametrize("container", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
@pytest.mark.parametrize("early", [False, True])
def test_sparse_labels_train_as_in_scikit_learn(container: Any, early: bool) -> None:
    x, y = LABELS
    models = _pair("labels", early_stopping=early)
    for model in models:
        _fit(model, x, container(y))
    _assert_same_parameters(*models, SAME_TRAINING)
    one, other = (model.predict(x) for model in models)
    assert type(one) is type(other)
    assert (one != other).nnz == 0
    assert models[0].score(x, container(y)) == models[1].score(x, container(y))


@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
def test_sparse_targets_train_as_dense_ones_in_every_argument() -> None:
    x, y = TABLE
    values = [_fit(bx.MLPRegressor(max_iter=3, random_state=0), x, t) for t in (y, _sparse(y))]
    _assert_same_parameters(*values, 0.0)
    x, y = LABELS
    rows = x[:40], y[:40]
    for weight in ("balanced", [{1: 5.0}, {}, {0: 2.0, 1: 3.0}, {}]):
        options = {"hidden_layer_sizes": 4, "max_iter": 3, "random_state": 0}
        options |= {"class_weight": weight, "early_stopping": True, "warm_start": True}
        models = []
        for form in (np.asarray, _sparse):
            model = bx.MLPClassifier(**options)
            given = {"X_val": rows[0], "y_val": form(rows[1])}
            models.append(_fit(_fit(model, x, form(y), **given), x, form(y)))
            if weight != "balanced":
                model.set_params(early_stopping=False).partial_fit(x, form(y))
        _assert_same_parameters(*models, 0.0)
        np.testing.assert_array_equal(models[0].predict(x), models[1].predict(x).toarray())


# ---- scikit-learn's contract


CHECKED = [bx.MLPClassifier(max_iter=50), bx.MLPRegressor(max_iter=50, n_members=2)]
# The other numbers of members, which tests/estimators/test_members.py has for both kinds.
SWEPT = [bx.MLPClassifier(max_iter=50, n_members=2), bx.MLPRegressor(max_iter=50)]


@parametrize_with_checks(CHECKED)
@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    _pass(estimator, check)


@parametrize_with_checks(SWEPT)
@pytest.mark.once
@pytest.mark.thorough
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore")
def test_more_of_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    _pass(estimator, check)


WEIGHTLESS: dict[str, dict[str, Any]] = {
    "adam": {"batch_size": 8},
    "early stopping": {"early_stopping": True, "batch_size": 8},
    "members": {"early_stopping": True, "n_members": 2},
    "lbfgs": {"solver": "lbfgs"},
}


@pytest.mark.long
@pytest.mark.usefixtures("in_float64")
@every_target
@pytest.mark.parametrize("case", WEIGHTLESS)
def test_rows_of_weight_0_change_nothing(target: str, case: str) -> None:
    make, _, (x, y), own = PAIRS[target]
    is_counted = np.random.default_rng(1).permutation(90) < 60
    weight, held_out = WEIGHTS * is_counted, slice(60, 90)
    more = {"X_val": x[held_out], "y_val": y[held_out], "sample_weight_val": weight[held_out]}
    counted_more = {name: rows[is_counted[held_out]] for name, rows in more.items()}
    model = make(hidden_layer_sizes=5, random_state=7, max_iter=4, **own, **WEIGHTLESS[case])
    given = x[is_counted], y[is_counted], weight[is_counted]
    if case != "lbfgs":
        found = _fit(clone(model), x, y, weight, **more)
        expected = _fit(clone(model), *given, **counted_more)
        _assert_same_parameters(found, expected, 0.0)
    found, expected = (_fit(clone(model), *rows) for rows in ((x, y, weight), given))
    _assert_same_parameters(found, expected, 0.0)
    assert found.loss_ == expected.loss_
    if case == "adam":
        classes = {"classes": np.unique(y)} if make is bx.MLPClassifier and y.ndim == 1 else {}
        for _ in range(2):
            found.partial_fit(x, y, weight, **classes)
            expected.partial_fit(*given, **classes)
        _assert_same_parameters(found, expected, 0.0)
        assert found.t_ == expected.t_


@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
def test_slopes_and_classes_of_weight_0_do_not_count() -> None:
    (x, y), is_counted = VALUES, np.arange(90) % 3 > 0
    weight = 1.0 * is_counted
    far = np.where(is_counted[:, None], x, 1e3)
    model = bx.MLPRegressor(hidden_layer_sizes=2, max_iter=3, random_state=0)
    given = x[is_counted], y[is_counted], weight[is_counted]
    smooth, dy = clone(model).set_params(activation="tanh"), np.ones(x.shape)
    found = _fit(clone(smooth), far, y, weight, dy=dy)
    expected = _fit(clone(smooth), *given, dy=dy[is_counted])
    _assert_same_parameters(found, expected, 0.0)
    x, y = CLASSES
    model = bx.MLPClassifier(2, max_iter=3, random_state=0, class_weight={0: 0.0})
    found, expected = _fit(clone(model), x, y), _fit(clone(model), x, y, 1.0 * (y > 0))
    _assert_same_parameters(found, expected, 0.0)
    with pytest.raises(ValueError, match="the weights of all rows are 0, with those of their"):
        model.fit(x, y, 1.0 * (y == 0))


def _pass(estimator: Any, check: Any) -> None:
    # scikit-learn itself only asks whether PyTorch is built for CUDA.
    if "cuda" in repr(check) and not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("PyTorch finds no GPU")
    check(estimator)


@pytest.mark.once
@both
@pytest.mark.usefixtures("on_numpy")
def test_the_array_api_checks_run_on_the_other_devices(kind: Any) -> None:
    from sklearn.utils.estimator_checks import check_array_api_input_and_values

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = kind(hidden_layer_sizes=4, max_iter=3)
        check_array_api_input_and_values(kind.__name__, model, "array_api_strict", "device1")


@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_warning_names_the_line_that_called_fit(solver: str) -> None:
    model = bx.MLPClassifier(4, max_iter=1, solver=solver)
    with pytest.warns(ConvergenceWarning) as warned:
        make_pipeline(StandardScaler(), model).fit(*TWO)
    assert {warning.filename for warning in warned} == {__file__}


# Two jobs are two processes, which import all libraries; a test below pickles an estimator.
@pytest.mark.long
@pytest.mark.parametrize("n_jobs", [1, thorough(2)])
def test_the_estimators_work_inside_scikit_learns_meta_estimators(n_jobs: int) -> None:
    x, y = TWO
    model = bx.MLPClassifier(8, learning_rate_init=0.01, max_iter=100, random_state=0, tol=1e-3)
    grid = {"mlpclassifier__alpha": [1e-4, 1e-2], "mlpclassifier__dropout": [0.0, 0.2]}
    search = GridSearchCV(make_pipeline(StandardScaler(), model), grid, n_jobs=n_jobs, cv=2)
    assert _fit(search, x, y).best_score_ > 0.8
    theirs = MLPClassifier(8, random_state=1)
    voters = VotingClassifier([("ours", model), ("theirs", theirs)], voting="soft")
    calibrated = CalibratedClassifierCV(model, cv=2)
    assert _fit(voters, x, y).score(x, y) > 0.9
    assert _fit(calibrated, x, y).score(x, y) > 0.9
    fitted = _fit(model, x, y)
    importance = permutation_importance(fitted, x, y, n_repeats=2, random_state=0)
    assert importance.importances_mean.max() > 0.1


@pytest.mark.parametrize("how", ["pickle", "joblib", "deepcopy"])
def test_a_copy_of_a_fitted_estimator_is_complete(how: str, tmp_path: Any) -> None:
    x, y = CLASSES
    options = {"dropout": 0.2, "layer_norm": True, "activation": ["relu", "tanh"]}
    model = _fit(bx.MLPClassifier((6, 5), max_iter=3, random_state=0, **options), x, y)
    if how == "pickle":
        other = pickle.loads(pickle.dumps(model))  # noqa: S301
    elif how == "joblib":
        joblib.dump(model, tmp_path / "model")
        other = joblib.load(tmp_path / "model")
    else:
        other = copy.deepcopy(model)
    np.testing.assert_array_equal(model.predict_proba(x), other.predict_proba(x))
    model.partial_fit(x, y)
    other.partial_fit(x, y)
    _assert_same_parameters(model, other, 0.0)
    assert not hasattr(clone(model), "coefs_")


def test_scikit_learns_callbacks_follow_the_epochs() -> None:
    x, y = TWO
    monitor = ScoringMonitor(scoring="accuracy")
    model = bx.MLPClassifier(5, max_iter=4, random_state=0, layer_norm=True)
    _fit(model.set_callbacks(monitor, ProgressBar()), x, y)
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 4
    assert scores[-1] == model.score(x, y)


class _StopAfter:
    """A scikit-learn callback that ends a training after some epochs."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    teardown = on_fit_task_begin = setup

    def on_fit_task_end(self, estimator: Any, context: Any) -> bool:
        self.left -= context.task_name == "epoch"
        return self.left <= 0


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_callback_ends_the_training(solver: str) -> None:
    model = bx.MLPRegressor(hidden_layer_sizes=5, solver=solver, random_state=0)
    assert _fit(model.set_callbacks(_StopAfter(3)), *VALUES).n_iter_ == 3


def test_callbacks_are_released_after_partial_fit() -> None:
    model = bx.MLPRegressor(hidden_layer_sizes=5, random_state=0)
    before = set(vars(model.set_callbacks(ProgressBar()).partial_fit(*VALUES)))
    assert not [name for name in before if "ctx" in name or "teardown" in name]


def test_a_network_without_hidden_layers_is_a_linear_model() -> None:
    options = {"hidden_layer_sizes": (), "solver": "lbfgs", "alpha": 0.0, "random_state": 0}
    model = _fit(bx.MLPRegressor(**options, tol=1e-6), *VALUES)
    assert [coef.shape for coef in model.coefs_] == [(8, 1)]
    assert model.score(*VALUES) > 0.99
    # Another solver may continue from the weights of L-BFGS.
    _fit(model.set_params(solver="sgd", warm_start=True, max_iter=2), *VALUES)
    assert len(model.loss_curve_) == 2


# ---- backends and devices


def test_the_chosen_backend_trains_and_the_attributes_are_numpy_arrays(xp: Any) -> None:
    x, y = CLASSES
    with bx.use_backend("numpy"):
        reference = _fit(bx.MLPClassifier(5, max_iter=5, random_state=0), x, y)
    options = {"backend": xp.selection.backend, "device": xp.selection.device}
    model = _fit(bx.MLPClassifier(5, max_iter=5, random_state=0, **options), x, y)
    assert all(type(array) is np.ndarray for array in model.coefs_ + model.intercepts_)
    assert type(model.predict_proba(x)) is np.ndarray
    np.testing.assert_allclose(model.predict_proba(x), reference.predict_proba(x), atol=1e-5)
    assert str(model.coefs_[0].dtype) == dtype_name(xp.selection.dtype)


def test_float32_is_kept(xp: Any) -> None:
    x, y = VALUES
    model = _fit(bx.MLPRegressor(max_iter=2, random_state=0), x.astype(np.float32), y)
    assert model.coefs_[0].dtype == model.predict(x.astype(np.float32)).dtype == np.float32


@pytest.mark.usefixtures("on_numpy")
@both
def test_array_api_dispatch_uses_the_backend_of_x(kind: Any) -> None:
    x, y = TWO
    device = array_api_strict.Device("device1")
    there = array_api_strict.asarray(x, device=device)
    here = _fit(kind(hidden_layer_sizes=5, max_iter=3, random_state=0), x, y)
    with sklearn.config_context(array_api_dispatch=True):
        model = _fit(kind(hidden_layer_sizes=5, max_iter=3, random_state=0), there, y)
        predicted = model.predict(there)
        assert model.coefs_[0].device == predicted.device == device
        with pytest.raises(ValueError, match="must use the same namespace"):
            model.predict(x)
        with pytest.raises(ValueError, match="backend='numpy' contradicts the arrays given"):
            clone(model).set_params(backend="numpy").fit(there, y)
    for a, b in zip(model.coefs_, here.coefs_, strict=True):
        np.testing.assert_allclose(bx.to_host(a), b, atol=SAME_TRAINING)


def test_an_array_that_numpy_cannot_read_names_both_settings() -> None:
    x = array_api_strict.asarray(TWO[0], device=array_api_strict.Device("device1"))
    with pytest.raises(TypeError, match=r"array_api_dispatch=True.*BACKPROP_XP_BACKEND=array-api"):
        bx.MLPClassifier().fit(x, TWO[1])


# ---- parameters that scikit-learn lacks


@pytest.mark.usefixtures("on_numpy")
def test_class_weights_help_a_rare_class() -> None:
    x, y = make_classification(600, 10, weights=[0.95], flip_y=0.02, random_state=3)
    plain, balanced = (
        _fit(bx.MLPClassifier(8, max_iter=60, random_state=0, class_weight=w), x[:400], y[:400])
        for w in (None, "balanced")
    )
    scores = [balanced_accuracy_score(y[400:], m.predict(x[400:])) for m in (plain, balanced)]
    assert scores[1] > scores[0] + 0.05


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
def test_class_weights_are_sample_weights() -> None:
    x, y = CLASSES
    weight = {0: 1.0, 1: 2.0, 2: 0.5}
    options = {"hidden_layer_sizes": 5, "max_iter": 3, "random_state": 0}
    by_class = _fit(bx.MLPClassifier(**options, class_weight=weight), x, y, WEIGHTS)
    by_sample = _fit(bx.MLPClassifier(**options), x, y, WEIGHTS * [weight[c] for c in y])
    _assert_same_parameters(by_class, by_sample, 0.0)
    with pytest.raises(ValueError, match="'balanced' is not supported for partial_fit"):
        bx.MLPClassifier(class_weight="balanced").partial_fit(x, y, classes=[0, 1, 2])


@pytest.mark.once
@pytest.mark.parametrize("loss", ["gaussian_nll", bx.losses.quantile(0.1, 0.9)], ids=str)
def test_a_loss_of_several_outputs_for_a_target_is_left_to_fit(loss: Any) -> None:
    for model in (bx.MLPRegressor(loss), bx.MLPClassifier(loss=loss)):
        with pytest.raises(ValueError, match=r"has 2 outputs for each target, .* by bx\.fit"):
            model.fit(*TWO)


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
def test_balanced_classes_are_those_of_rows_that_are_repeated() -> None:
    """As scikit-learn has it since 1.8: weights count as repetitions do."""
    x, y = TWO
    weight = np.arange(len(y)) % 3
    options = {"hidden_layer_sizes": 5, "solver": "lbfgs", "max_iter": 5, "random_state": 0}
    model = bx.MLPClassifier(**options, class_weight="balanced")
    weighted = _fit(model, x, y, weight.astype(float))
    repeated = _fit(clone(model), np.repeat(x, weight, 0), np.repeat(y, weight))
    _assert_same_parameters(weighted, repeated, 1e-6)


@pytest.mark.once
def test_balanced_weights_of_several_labels_are_scikit_learns() -> None:
    _, y = LABELS
    found = class_weights("balanced", y, None, np.arange(y.shape[1]))
    np.testing.assert_allclose(found, compute_sample_weight("balanced", y), rtol=1e-12)


@pytest.mark.once
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "adamw", "alpha": 0.1},
        {"solver": "rmsprop"},
        {"dropout": 0.2},
        {"layer_norm": True},
        {"activation": ["gelu", "silu"]},
        {"activation": bx.activations.elu},
        {"learning_rate": bx.schedules.cosine(0.01, 100)},
        {"clip": 0.5},
        {"n_restarts": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("target", ["two classes", "values"])
def test_each_added_parameter_trains(target: str, options: dict[str, Any]) -> None:
    make, _, (x, y), _ = PAIRS[target]
    given = {"hidden_layer_sizes": (12, 8), "random_state": 0, "learning_rate_init": 0.01}
    model = _fit(make(**given, **options, max_iter=60), x, y)
    assert model.score(x, y) > 0.8


@pytest.mark.once
@pytest.mark.parametrize(
    "loss",
    [
        *("mean_squared_error", "mean_absolute_error", "huber", "log_cosh", bx.losses.huber),
        bx.losses.quantile(0.5),
    ],
)
def test_a_regressor_accepts_every_loss(loss: Any) -> None:
    options = {"solver": "lbfgs", "max_iter": 300, "random_state": 0, "tol": 1e-3}
    model = _fit(bx.MLPRegressor(loss, 8, **options), *VALUES)
    assert model.score(*VALUES) > 0.9


# A custom loss: the outputs are probabilities, and the loss is their Brier score.
BRIER = bx.Loss(
    lambda o, t: ((bx.activations.sigmoid.value(o) - t) ** 2).mean(-1),
    lambda o, t: (2.0 / o.shape[-1]) * ((p := bx.activations.sigmoid.value(o)) - t) * p * (1.0 - p),
    inverse_link=bx.activations.sigmoid.value,
)
CLASSIFIED = ["mean_squared_error", "huber", "poisson", "binary_cross_entropy"]
CLASSIFIED += ["categorical_cross_entropy", BRIER, bx.losses.huber_with(0.5)]
# Of classes that exclude one another.
EXCLUSIVE = ["hinge", bx.losses.focal(), bx.losses.smoothed(bx.losses.focal(1.0), 0.05)]


@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("target", ["classes", "two classes", "labels"])
@pytest.mark.parametrize("loss", [*CLASSIFIED, *EXCLUSIVE], ids=str)
def test_a_classifier_accepts_every_loss(loss: Any, target: str) -> None:
    x, y = PAIRS[target][2]
    x = StandardScaler().fit_transform(x)
    options = {"learning_rate_init": 0.02, "max_iter": 150, "random_state": 0, "alpha": 0.0}
    model = bx.MLPClassifier(16, loss=loss, **options)
    if loss in ["categorical_cross_entropy", *EXCLUSIVE] and target == "labels":
        with pytest.raises(ValueError, match="y has several labels for each: take"):
            model.fit(x, y)
        return
    assert clone(model.fit(x, y)).loss == loss
    assert model.score(x, y) > (0.4 if target == "labels" else 0.8)  # of all labels of a row
    assert model.score(x, y) == np.mean((model.predict(x) == y).reshape(90, -1).all(-1))
    if model._loss().inverse_link is bx.activations.identity.value or loss in ("poisson", "hinge"):
        assert not hasattr(model, "predict_proba")
        scores = model.decision_function(x)
        decided = scores.argmax(-1) if target == "classes" else scores > 0.0
    else:
        assert not hasattr(model, "decision_function")
        scores = model.predict_proba(x)
        assert scores.min() >= 0.0
        assert scores.max() <= 1.0
        if target != "labels":
            np.testing.assert_allclose(scores.sum(-1), 1.0, atol=1e-12)
        decided = scores > 0.5 if target == "labels" else scores.argmax(-1)
    np.testing.assert_array_equal(decided, model.predict(x))
    before = model.coefs_[0].copy()
    assert not np.array_equal(model.partial_fit(x, y).coefs_[0], before)


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
def test_a_classifier_with_squared_error_equals_a_regressor_of_its_columns() -> None:
    x, y = CLASSES
    options = {"hidden_layer_sizes": 5, "max_iter": 8, "random_state": 0}
    ours = _fit(bx.MLPClassifier(loss="mean_squared_error", **options), x, y)
    columns = np.eye(3)[y]
    theirs = _fit(bx.MLPRegressor("mean_squared_error", **options), x, columns)
    np.testing.assert_array_equal(ours.decision_function(x), theirs.predict(x) - 0.5)
    assert ours.loss_curve_ == theirs.loss_curve_


@pytest.mark.usefixtures("on_numpy")
def test_probabilities_that_all_underflow_are_equal() -> None:
    found = as_distribution(np.asarray([[0.0, 0.0], [0.2, 0.6]], np.float32))
    np.testing.assert_allclose(found, [[0.5, 0.5], [0.25, 0.75]], rtol=1e-6)


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_outputs_without_a_link_can_be_calibrated_but_are_no_probabilities() -> None:
    model = bx.MLPClassifier(8, loss="huber", learning_rate_init=0.02, random_state=0)
    with pytest.raises(AttributeError, match="predict_proba"):
        model.predict_proba(TWO[0])
    calibrated = CalibratedClassifierCV(model, cv=3).fit(*TWO)
    assert calibrated.score(*TWO) > 0.8
    with pytest.raises(ValueError, match="The 'loss' parameter of MLPClassifier"):
        bx.MLPClassifier(loss="hubr").fit(*TWO)


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
def test_the_weights_of_adamw_decay_apart_from_the_loss() -> None:
    x, y = VALUES
    model = bx.MLPRegressor(hidden_layer_sizes=5, solver="adamw", alpha=0.3, random_state=0)
    _fit(model.set_params(max_iter=4, shuffle=False), x, y)
    network = bx.mlp([8, 5, 1], hidden="relu", loss="half_squared_error")
    start = _fit(clone(model).set_params(max_iter=1, learning_rate_init=1e-300), x, y)
    first = [(w, b[None, :]) for w, b in zip(start.coefs_, start.intercepts_, strict=True)]
    theta = network.pack(first)
    adamw = bx.AdamW(1e-3, weight_decay=0.3, mask=network.weight_mask(theta))
    result = bx.fit(network, theta, x, y[:, None], optimizer=adamw, epochs=4)
    for (w, _), coef in zip(network.unpack(result.theta), model.coefs_, strict=True):
        np.testing.assert_allclose(coef, w, rtol=0, atol=SAME_TRAINING)


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
def test_a_given_validation_set_is_watched() -> None:
    x, y = CLASSES
    model = bx.MLPClassifier(8, early_stopping=True, max_iter=30, random_state=0, tol=0.0)
    validation = {"X_val": x[60:], "y_val": y[60:]}
    _fit(model, x[:60], y[:60], **validation)
    assert len(model.validation_scores_) == len(model.validation_loss_curve_) == model.n_iter_
    assert model.score(x[60:], y[60:]) == max(model.validation_scores_)
    # Without early stopping the validation set is only recorded.
    watched, plain = (
        _fit(clone(model).set_params(early_stopping=False), x[:60], y[:60], **more)
        for more in (validation, {})
    )
    _assert_same_parameters(watched, plain, 0.0)
    assert watched.score(x[60:], y[60:]) == watched.validation_scores_[-1]
    assert plain.validation_scores_ is None


@pytest.mark.float64
@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("options", [{}, {"early_stopping": True}, {"solver": "lbfgs"}], ids=str)
def test_the_best_of_several_starts_is_kept(options: dict[str, Any]) -> None:
    options = {"max_iter": 4, "random_state": 0, "hidden_layer_sizes": 4, **options}
    one, several = (_fit(bx.MLPRegressor(n_restarts=n, **options), *VALUES) for n in (1, 6))
    assert several.coefs_[0].shape == (8, 4)
    if "early_stopping" in options:
        assert several.best_validation_score_ == max(several.validation_scores_)
        return
    assert several.loss_ <= one.loss_
    if not options.get("solver"):
        assert len(several.loss_curve_) == 4
        assert several.loss_ == several.loss_curve_[-1]


def test_dropout_has_other_masks_at_each_call_and_none_in_predictions(xp: Any) -> None:
    x, y = VALUES
    model = bx.MLPRegressor(hidden_layer_sizes=20, dropout=0.5, random_state=0, shuffle=False)
    losses = []
    for _ in range(3):
        model.set_params(learning_rate_init=1e-12).partial_fit(x, y)
        losses.append(model.loss_)
    assert len(set(losses)) == 3
    np.testing.assert_array_equal(model.predict(x), model.predict(x))


def test_a_schedule_counts_the_updates_of_all_calls() -> None:
    steps: list[int] = []

    def rate(step: int) -> float:
        steps.append(step)
        return 0.01

    model = bx.MLPRegressor(hidden_layer_sizes=3, learning_rate=rate, batch_size=30)
    for _ in range(2):
        model.partial_fit(*VALUES)
    assert sorted(set(steps)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.usefixtures("on_numpy")
def test_a_diverged_network_has_no_score() -> None:
    options = {"activation": "identity", "solver": "sgd", "learning_rate_init": 30.0}
    model = bx.MLPRegressor(hidden_layer_sizes=5, early_stopping=True, max_iter=30, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(*VALUES)
        infinite = score_of_values(np.asarray([[np.inf], [1.0]]), np.eye(2)[:, :1], None)
    assert np.isnan(model.validation_scores_[-1])
    assert np.isnan(infinite)
    assert np.isnan(score_of_labels(np.asarray([[np.nan, 0.1]]), np.zeros((1, 2)), None))
    assert np.isfinite(model.predict(VALUES[0])).all()  # of the best network, before it diverged


# ---- errors

REFUSED: dict[str, tuple[dict[str, Any], Any, str]] = {
    "NaN": ({}, (np.full((4, 2), np.nan), [0, 1, 0, 1]), "Input X contains NaN"),
    "no layers": ({"hidden_layer_sizes": 0}, TWO, "hidden_layer_sizes"),
    "a negative size": ({"hidden_layer_sizes": (3, -1)}, TWO, "hidden_layer_sizes must be > 0"),
    "alpha": ({"alpha": -1.0}, TWO, "The 'alpha' parameter of MLP"),
    "solver": ({"solver": "sdg"}, TWO, "The 'solver' parameter of MLP"),
    "activations": (
        {"activation": ["relu", "tanh"]},
        TWO,
        "activation has 2 activations, but there",
    ),
    "an activation": (
        {"activation": ["rleu"]},
        TWO,
        r"activation\[0\] 'rleu' is unknown. Did you mean 'relu'",
    ),
    "lbfgs, dropout": ({"solver": "lbfgs", "dropout": 0.1}, TWO, "dropout works only with the"),
    "lbfgs, a schedule": ({"solver": "lbfgs", "learning_rate": abs}, TWO, "A schedule as"),
    "strings": ({}, ([["a", "b"]] * 4, [0, 1, 0, 1]), "could not convert string to float"),
    "weights": ({}, (*TWO, np.zeros(90)), "weight"),
}


@both
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_argument_is_an_error(kind: Any, case: str) -> None:
    options, data, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        kind(**options).fit(*data)


@pytest.mark.usefixtures("on_numpy")
def test_dates_are_no_numbers_and_missing_ones_no_classes() -> None:
    days = np.asarray(["2020-01-01", "2020-01-02"] * 45, dtype="datetime64[D]")
    missing = np.where(np.arange(90) == 3, np.datetime64("NaT", "D"), days)
    objects = days.astype(object)
    late = np.where(np.arange(90) > 0, objects, None)  # the first one is missing
    times = np.asarray([datetime.time(12)] * 90)
    for y in (
        days,
        days - days[0],
        missing,
        objects,
        [*objects],
        objects - objects[0],
        late,
        times,
    ):
        with pytest.raises(ValueError, match="y holds dates or times: convert them to numbers"):
            bx.MLPRegressor().fit(TWO[0], y)
    with pytest.raises(ValueError, match=r"y has a missing date \(row 3\)"):
        bx.MLPClassifier().fit(TWO[0], missing)


@pytest.mark.usefixtures("on_numpy")
def test_predicting_with_other_columns_or_classes_is_an_error() -> None:
    x, y = CLASSES
    model = _fit(bx.MLPClassifier(3, max_iter=2), x, y)
    with pytest.raises(ValueError, match="X has 7 features, but MLPClassifier is expecting 8"):
        model.predict(x[:, :7])
    with pytest.raises(ValueError, match="`y` has classes not in"):
        model.partial_fit(x, y + 1)
    with pytest.raises(ValueError, match="`y` has classes not in"):
        model.fit(x, y, X_val=x, y_val=y + 1)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        model.set_params(early_stopping=True).partial_fit(x, y)
    assert not hasattr(bx.MLPClassifier(solver="lbfgs"), "partial_fit")


def test_without_scikit_learn_the_error_has_the_install_command() -> None:
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import backprop_xp as bx\n"
        "try:\n    bx.MLPClassifier\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert re.search(r"needs scikit-learn 1\.9.*pip install .*'scikit-learn>=", done.stdout)


def test_a_lowered_rate_stays_lowered_between_partial_fits() -> None:
    x, y = VALUES
    given = {"hidden_layer_sizes": 5, "solver": "sgd", "random_state": 0, "shuffle": False}
    given |= {"learning_rate": "invscaling", "learning_rate_init": 0.1}
    ours, theirs = bx.MLPRegressor(**given, backend="numpy"), MLPRegressor(**given)
    for _ in range(5):
        ours.partial_fit(x, y)
        theirs.partial_fit(x, y)
    np.testing.assert_allclose(ours.coefs_[0], theirs.coefs_[0], rtol=0, atol=SAME_TRAINING)


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"solver": "sgd"}),
        ({"solver": "sgd"}, {"solver": "adam"}),
        ({"solver": "rmsprop"}, {"solver": "adamw"}),
        ({"solver": "sgd", "momentum": 0.0}, {"momentum": 0.9}),
        ({"solver": "sgd"}, {"momentum": 0.0}),
        ({}, {"solver": "sgd", "learning_rate": bx.schedules.exponential(0.1, 0.9)}),
    ],
    ids=str,
)
def test_a_changed_solver_restarts_from_the_same_weights(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    given = {"hidden_layer_sizes": 5, "random_state": 0, "shuffle": False}
    model = bx.MLPRegressor(**given, **before)
    model.partial_fit(*VALUES).partial_fit(*VALUES).set_params(**after)
    new = bx.MLPRegressor(**{**given, **before, **after}).partial_fit(*VALUES)
    new.coefs_, new.intercepts_ = copy.deepcopy((model.coefs_, model.intercepts_))
    del new._optimizer_state
    for one in (model, new):
        one.partial_fit(*VALUES).partial_fit(*VALUES)
    for a, b in zip(model.coefs_, new.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("on_numpy")
def test_an_underflowed_rate_stays_unchanged() -> None:
    model = bx.MLPRegressor(hidden_layer_sizes=5, random_state=0).partial_fit(*VALUES)
    before, model._learning_rate = model.coefs_[0].copy(), 0.0
    np.testing.assert_array_equal(model.partial_fit(*VALUES).coefs_[0], before)


@pytest.mark.usefixtures("on_numpy")
def test_a_diverging_restart_does_not_prolong_the_others() -> None:
    x, y = VALUES
    rates = lambda step: np.array([[1e-2], [1e6]])  # noqa: E731
    options = {"solver": "sgd", "activation": "identity", "n_restarts": 2, "random_state": 0}
    options |= {"learning_rate": rates, "tol": 1e-3, "n_iter_no_change": 3, "max_iter": 1000}
    with np.errstate(all="ignore"):
        assert bx.MLPRegressor(hidden_layer_sizes=4, **options).fit(x, y).n_iter_ < 1000


@pytest.mark.usefixtures("on_numpy")
def test_class_weights_work_for_a_part_that_lacks_a_class() -> None:
    x, y = TWO
    part = y == 1
    model = bx.MLPClassifier(4, class_weight={0: 5.0}, random_state=0)
    model.partial_fit(x[part], y[part], classes=[0, 1]).partial_fit(x, y)
    with pytest.raises(ValueError, match=r"class_weight has \[7\], but the classes are \[0, 1\]"):
        model.set_params(class_weight={7: 2.0}).partial_fit(x, y)


def _interrupt_at(at: int, until: float = np.inf) -> Any:
    """Return a schedule that raises KeyboardInterrupt at one step and is 0 from another step on."""

    def rate(step: int) -> float:
        if step == at:
            signal.raise_signal(signal.SIGINT)
        return 0.05 if step < until else 0.0

    return rate


@pytest.mark.parametrize("early", [False, True])
def test_ctrl_c_leaves_the_state_after_a_whole_step(early: bool) -> None:
    options = {"hidden_layer_sizes": 5, "batch_size": 20, "solver": "sgd", "momentum": 0.0}
    options |= {"max_iter": 5, "random_state": 0, "early_stopping": early}
    model = bx.MLPClassifier(**options, learning_rate=_interrupt_at(12))
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*CLASSES)
    assert model.n_iter_ == len(model.loss_curve_) == 2
    taken = model._optimizer_state.step
    # A compiled call runs as many steps as its time allows; otherwise the first number holds.
    assert taken in (range(5, 11) if early else range(11, 15))
    same = _fit(bx.MLPClassifier(**options, learning_rate=_interrupt_at(-1, taken)), *CLASSES)
    _assert_same_parameters(model, same, 0.0)
    if not early:
        model.set_params(learning_rate=_interrupt_at(-1)).partial_fit(*CLASSES)
        assert model._optimizer_state.step == taken + 5


@pytest.mark.usefixtures("on_numpy")
def test_an_epoch_that_ends_as_ctrl_c_comes_is_counted_once() -> None:
    options = {"hidden_layer_sizes": 5, "batch_size": 20, "solver": "sgd", "random_state": 0}
    model = bx.MLPClassifier(**options, learning_rate=_interrupt_at(9))  # the last step of epoch 2
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*CLASSES)
    same = _fit(bx.MLPClassifier(**options, learning_rate=_interrupt_at(-1), max_iter=2), *CLASSES)
    _assert_same_parameters(model, same, 0.0)
    for name in ("n_iter_", "t_", "loss_curve_", "best_loss_", "_no_improvement_count"):
        assert getattr(model, name) == getattr(same, name)


@pytest.mark.usefixtures("on_numpy")
def test_class_weights_of_labels_work_for_rows_that_lack_a_label() -> None:
    x, y = LABELS
    weight = [{1: 5.0}, {0: 2.0, 1: 3.0}, {}, {0: 0.5}]
    options = {"hidden_layer_sizes": 4, "max_iter": 3, "random_state": 0}
    model = _fit(bx.MLPClassifier(**options, class_weight=weight), x, y)
    each = np.where(y[:, 0] == 1, 5.0, 1.0) * np.where(y[:, 1] == 1, 3.0, 2.0)
    each *= np.where(y[:, 3] == 1, 1.0, 0.5)
    same = _fit(bx.MLPClassifier(**options), x, y, each)
    _assert_same_parameters(model, same, 0.0)
    none = y[:, 0] == 0
    model.partial_fit(x[none], y[none])
    with pytest.raises(ValueError, match=r"class_weight has \[2\], but the classes are \[0, 1\]"):
        model.set_params(class_weight=[{2: 1.0}, {}, {}, {}]).partial_fit(x, y)


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize(
    ("target", "given", "expected"),
    [
        ("two classes", [{0: 1.0, 1: 2.0}], "must be a dict, or"),
        ("labels", {0: 1.0, 1: 2.0}, "must be a list of 4 dicts, one for each label, or"),
        ("labels", [{0: 1.0}], "must be a list of 4 dicts"),
        ("labels", [1.0, 1.0, 1.0, 1.0], "must be a list of 4 dicts"),
    ],
    ids=str,
)
def test_class_weights_have_the_form_of_the_targets(target: str, given: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=f"class_weight {expected}"):
        bx.MLPClassifier(4, class_weight=given).fit(*PAIRS[target][2])


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("sizes", [6, (5, 5), ()])
def test_a_warm_start_with_other_layers_is_an_error(sizes: Any) -> None:
    model = _fit(bx.MLPClassifier(5, max_iter=2, warm_start=True), *TWO)
    before = model.coefs_
    with pytest.raises(ValueError, match="when this was fitted: fit again"):
        model.set_params(hidden_layer_sizes=sizes).fit(*TWO)
    assert model.coefs_ is before


@both
def test_each_parameter_has_a_description_and_a_plain_type(kind: Any) -> None:
    for name in kind().get_params():
        assert f"``{name}``" in kind.__doc__
    assert "Annotated" not in str(inspect.signature(kind))


def test_the_positional_parameters_are_scikit_learns() -> None:
    with pytest.raises(TypeError, match="positional arguments"):
        bx.MLPClassifier(5, "tanh", "balanced")


class _InterruptingCallback:
    """A scikit-learn callback that raises KeyboardInterrupt after some iterations."""

    def __init__(self, iterations: int) -> None:
        self.left = iterations

    def setup(self, estimator: Any, context: Any) -> None:
        pass

    teardown = on_fit_task_begin = setup

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        if context.task_name == "epoch":
            self.left -= 1
        if self.left == 0:
            self.left -= 1
            signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("restarts", [1, 3])
def test_ctrl_c_leaves_the_last_iterate_of_lbfgs(restarts: int) -> None:
    options = {"hidden_layer_sizes": 5, "solver": "lbfgs", "random_state": 0}
    model = bx.MLPRegressor(**options, n_restarts=restarts).set_callbacks(_InterruptingCallback(4))
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(*VALUES)
    # The starts are one stack: another than the best one may have had more iterations.
    assert model.n_iter_ in ((4,) if restarts == 1 else (2, 3, 4))
    if restarts == 1:
        same = _fit(bx.MLPRegressor(**options, max_iter=4), *VALUES)
        _assert_same_parameters(model, same, 0.0)


@pytest.mark.usefixtures("on_numpy")
def test_lbfgs_warns_beside_callbacks_unless_one_ends_it() -> None:
    options = {"hidden_layer_sizes": 5, "solver": "lbfgs", "max_iter": 2, "random_state": 0}
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        bx.MLPRegressor(**options).set_callbacks(_StopAfter(9)).fit(*VALUES)
    bx.MLPRegressor(**options).set_callbacks(_StopAfter(1)).fit(*VALUES)  # warnings are errors


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("warm_start", [False, True])
def test_a_new_optimizer_continues_from_the_weights_of_lbfgs(warm_start: bool) -> None:
    options = {"hidden_layer_sizes": 5, "random_state": 0, "warm_start": warm_start}
    model = _fit(bx.MLPRegressor(**options, max_iter=3), *VALUES)
    if not warm_start:
        model.set_params(hidden_layer_sizes=7)
    _fit(model.set_params(solver="lbfgs"), *VALUES)
    model.set_params(solver="adam").partial_fit(*VALUES)
    assert model._optimizer_state.step == 1


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("how", ["fit", "partial_fit"])
def test_the_name_of_the_output_activation_follows_the_loss(how: str) -> None:
    model = _fit(bx.MLPClassifier(5, max_iter=2, warm_start=True), *CLASSES)
    model.set_params(loss="mean_squared_error")
    _fit(model, *CLASSES) if how == "fit" else model.partial_fit(*CLASSES)
    assert model.out_activation_ == "identity"


def _interrupted(step: int) -> float:
    raise KeyboardInterrupt


BROKEN = np.where(np.arange(8) == 3, np.nan, TWO[0])
FAILING: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "X": ((BROKEN, TWO[1]), {}, {}),
    "held-out rows": (CLASSES, {"X_val": BROKEN, "y_val": TWO[1]}, {}),
    "held-out classes": (CLASSES, {"X_val": CLASSES[0], "y_val": CLASSES[1] + 7}, {}),
    "other columns": ((CLASSES[0][:, :5], CLASSES[1]), {"X_val": CLASSES[0]}, {}),
    "weights": ((*CLASSES, np.full(90, np.nan)), {}, {}),
    "a share": (CLASSES, {}, {"early_stopping": True, "validation_fraction": 0.001}),
    "Ctrl-C": (CLASSES, {}, {"learning_rate": _interrupted}),
    "divergence": (CLASSES, {}, {"activation": "identity", "learning_rate": lambda step: 1e300}),
}


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("case", FAILING)
@pytest.mark.parametrize("again", [False, True])
def test_a_failed_refit_keeps_the_fitted_attributes(case: str, again: bool) -> None:
    data, more, options = FAILING[case]
    model = _fit(bx.MLPClassifier(3, max_iter=2, random_state=0, warm_start=again), *TWO)
    before, curve = vars(model.set_params(**options)).copy(), list(model.loss_curve_)
    expected = model.predict_proba(TWO[0])
    with pytest.raises((ValueError, KeyboardInterrupt)):
        model.fit(*data, **more)
    assert vars(model).keys() == before.keys()
    assert all(vars(model)[name] is value for name, value in before.items())
    assert model.loss_curve_ == curve
    np.testing.assert_array_equal(model.predict_proba(TWO[0]), expected)


@pytest.mark.usefixtures("on_numpy")
def test_a_failed_first_partial_fit_leaves_no_attributes() -> None:
    model = bx.MLPClassifier(3)
    before = set(vars(model))
    with pytest.raises(ValueError, match="NaN"):
        model.partial_fit(BROKEN, TWO[1], classes=[0, 1])
    assert set(vars(model)) == before


@pytest.mark.usefixtures("on_numpy")
def test_layer_norm_without_hidden_layers_normalises_nothing() -> None:
    model = _fit(bx.MLPClassifier((), layer_norm=True, max_iter=2), *TWO)
    assert model.predict(TWO[0]).shape == (90,)


@pytest.mark.usefixtures("on_numpy")
@pytest.mark.parametrize("before", [True, False])
def test_layer_norm_cannot_change_after_fitting(before: bool) -> None:
    x, y = TWO
    model = _fit(bx.MLPClassifier(4, layer_norm=before, max_iter=2), x, y)
    model.set_params(layer_norm=not before)
    with pytest.raises(ValueError, match=f"layer_norm is {not before} now"):
        model.predict(x)
    assert hasattr(_fit(model, x, y), "layer_norms_") is not before


@pytest.mark.once
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_masked_values_are_an_error_that_names_the_argument() -> None:
    x, ones = np.arange(40.0).reshape(20, 2), np.ones(20)
    masked = {"X": np.ma.masked_equal(x, 3.0), "y": np.ma.masked_equal(x[:, 0], 2.0)}
    masked["sample_weight"] = np.ma.masked_array(ones, x[:, 0] == 4.0)
    model = bx.MLPRegressor(hidden_layer_sizes=(2,), max_iter=1)
    for name, value in masked.items():
        given = {"X": x, "y": x[:, 0], "sample_weight": ones} | {name: value}
        with pytest.raises(ValueError, match=rf"^{name} has masked values \(1 of "):
            model.fit(**given)
    model.fit(x, x[:, 0])
    with pytest.raises(ValueError, match=r"^X has masked values \(1 of 40\)"):
        model.predict(masked["X"])


class _Square:
    """A user's function object without a hash, as a class with ``__eq__`` has none."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, *arrays: Any) -> Any:
        return arrays[0] ** 2 if len(arrays) == 1 else 2.0 * arrays[0] * arrays[1]


def test_an_activation_without_a_hash_trains_and_predicts() -> None:
    activation = bx.Activation(_Square(), _Square())
    options = {"hidden_layer_sizes": (3,), "max_iter": 2, "random_state": 0}
    model = bx.MLPRegressor(activation=activation, **options)
    x = np.random.default_rng(0).normal(size=(20, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, x[:, 0])
    hidden = (x @ model.coefs_[0] + model.intercepts_[0]) ** 2
    expected = (hidden @ model.coefs_[1] + model.intercepts_[1])[:, 0]
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-5)


@pytest.mark.once
@pytest.mark.parametrize("solver", ["adam", "lbfgs", "lm"])
def test_targets_whose_squares_underflow_are_refused(solver: str) -> None:
    """Their R squared would be 0, as that of equal targets."""
    x = np.random.default_rng(0).normal(size=(40, 2))
    model = bx.MLPRegressor(hidden_layer_sizes=(4,), solver=solver, max_iter=2, random_state=0)
    both = np.stack([x[:, 0], 1e-170 * x[:, 0]], axis=1)
    for rows, y, message in (
        (x, 1e-170 * x[:, 0], "y varies too little for a float64: multiply it by a power of 10"),
        (x, both, r"too little for a float64 \(output 1\): multiply"),
        (x.astype("float32"), 1e-25 * x[:, 0], "too little for a float32: multiply"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(rows, y)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
        model.fit(x, 1e-150 * x[:, 0])
        model.fit(x, np.full(40, 1e-170))
        model.fit(x, np.zeros(40))
