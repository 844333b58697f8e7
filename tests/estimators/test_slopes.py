"""MLPRegressor.fit with derivatives of y: ``dy``."""

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

import backprop_xp as bx
from backprop_xp.estimators.samples import Samples
from backprop_xp.estimators.slopes import Slopes
from tests.helpers import thorough

pytestmark = pytest.mark.long

# Sums in another order, over a few dozen updates.
SAME_TRAINING = 1e-10
# A step that lowers the loss by 2e-9 ends L-BFGS: weights are known to the root of that.
SAME_MINIMUM = 1e-4
generator = np.random.default_rng(4)
X, AT = generator.uniform(-2.0, 2.0, (12, 2)), generator.uniform(-2.0, 2.0, (200, 2))
MATRIX, POINTS = generator.normal(size=(4, 3)), generator.normal(size=(2, 4))


def surface(x: np.ndarray) -> np.ndarray:
    return np.sin(2.0 * x[:, 0]) * x[:, 1]


def slopes(x: np.ndarray) -> np.ndarray:
    first = 2.0 * np.cos(2.0 * x[:, 0]) * x[:, 1]
    return np.stack([first, np.sin(2.0 * x[:, 0])], axis=-1)


def model(solver: str = "lbfgs", **options: Any) -> bx.MLPRegressor:
    given = {"activation": "tanh", "hidden_layer_sizes": 20, "random_state": 0, "max_iter": 300}
    return bx.MLPRegressor(solver=solver, **{**given, **options})


def fitted(chosen: bx.MLPRegressor, *data: Any, **more: Any) -> bx.MLPRegressor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return chosen.fit(*data, **more)


@pytest.mark.parametrize(
    ("solver", "n_outputs"),
    [("lbfgs", 2), ("adam", 1), thorough("lbfgs", 1), thorough("adam", 2)],
)
def test_derivatives_make_a_fit_of_few_points_better(solver: str, n_outputs: int) -> None:
    y, dy = surface(X), slopes(X)
    if n_outputs == 2:
        y, dy = np.stack([y, -y], axis=-1), np.stack([dy, -dy], axis=-2)
    options = {"learning_rate_init": 0.02, "max_iter": 800} if solver == "adam" else {}
    errors = []
    for more in ({}, {"dy": dy}):
        found = fitted(model(solver, **options), X, y, **more).predict(AT)
        errors.append(np.sqrt(np.mean((found.reshape(200, -1)[:, 0] - surface(AT)) ** 2)))
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("solver", ["lbfgs", "adam", "sgd"])
def test_derivatives_that_were_not_measured_change_nothing(solver: str) -> None:
    given: dict[str, Any] = {"max_iter": 20, "alpha": 0.1}
    tolerance = SAME_TRAINING
    if solver == "lbfgs":  # its steps are in the targets' units without dy: only minima are equal
        given |= {"hidden_layer_sizes": (), "max_iter": 500, "tol": 1e-9}
        tolerance = SAME_MINIMUM
    plain = fitted(model(solver, **given), X, surface(X))
    beside = fitted(model(solver, **given), X, surface(X), dy=np.full((12, 2), np.nan))
    for ours, theirs in zip(beside.coefs_, plain.coefs_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert beside.out_activation_ == plain.out_activation_


def test_each_derivative_belongs_to_its_output_and_its_feature() -> None:
    # A linear map of four features to three outputs, from two points and their derivatives.
    matrix, x = MATRIX, POINTS
    dy = np.broadcast_to(matrix.T, (2, 3, 4)).copy()
    dy[0, 1, 2] = np.nan
    linear = model(activation="identity", hidden_layer_sizes=(), alpha=0.0, tol=1e-12)
    found = fitted(linear, x, x @ matrix, dy=dy).input_gradient(x)
    np.testing.assert_allclose(found, np.broadcast_to(matrix.T, (2, 3, 4)), rtol=1e-3, atol=1e-3)


def test_derivatives_are_scaled_with_their_features() -> None:
    units = np.array([1e3, 1e-4])
    y = surface(X)[:, None]
    one, other = (
        Slopes.of(dy, Samples(x, y, None)).samples(Samples(x, y, None)).y
        for x, dy in ((X, slopes(X)), (units * X, slopes(X) / units))
    )
    np.testing.assert_allclose(one, other, rtol=1e-12)
    np.testing.assert_allclose(one[:, 1:], slopes(X) * X.std(axis=0), rtol=1e-12)
    # A row of weight 0 does not change the scales, however far away it is.
    x = np.concatenate([X, [[1e6, 1e6]]])
    samples = Samples(x, surface(x)[:, None], np.append(np.ones(len(X)), 0.0))
    np.testing.assert_allclose(Slopes.of(slopes(x), samples).scales, X.std(axis=0), rtol=1e-12)


def test_parts_of_the_rows_teach_derivatives_as_all_of_them_do() -> None:
    units = X.std(axis=0)
    x, dy = X / units, slopes(X) * units
    given = {"learning_rate_init": 0.02, "shuffle": False, "batch_size": 6}
    whole = fitted(model("adam", max_iter=30, **given), x, surface(X), dy=dy)
    parts = model("adam", **given)
    for _ in range(30):
        for rows in (slice(6), slice(6, 12)):
            parts.partial_fit(x[rows], surface(X)[rows], dy=dy[rows])
    np.testing.assert_allclose(parts.coefs_[0], whole.coefs_[0], rtol=SAME_TRAINING)


def test_a_row_of_weight_0_has_derivatives_that_do_not_count() -> None:
    weight = np.ones(12)
    weight[3] = 0.0
    wrong = slopes(X)
    wrong[3] = 1e6
    chosen = {"max_iter": 30}
    found = fitted(model(**chosen), X, surface(X), weight, dy=wrong)
    expected = fitted(model(**chosen), X, surface(X), weight, dy=slopes(X))
    np.testing.assert_allclose(found.coefs_[0], expected.coefs_[0], rtol=SAME_TRAINING)


def test_a_validation_set_is_scored_by_its_values() -> None:
    x = AT[:30]
    given = {"X_val": x, "y_val": surface(x), "dy": slopes(X)}
    found = fitted(model("adam", max_iter=5), X, surface(X), **given)
    assert found.validation_scores_[-1] == pytest.approx(found.score(x, surface(x)))
    stopped = fitted(model("adam", max_iter=5, early_stopping=True), X, surface(X), dy=slopes(X))
    assert np.isfinite(stopped.best_validation_score_)


def test_several_members_learn_derivatives() -> None:
    found = fitted(model("adam", n_members=3, max_iter=5), X, surface(X), dy=slopes(X))
    assert found.coefs_[0].shape == (3, 2, 20)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_search_chooses_the_penalty_by_left_out_rows_after_their_derivatives() -> None:
    grid, noisy = np.logspace(-5, 3, 9), surface(X) + np.random.default_rng(0).normal(size=12)
    perceptron = model("lm", max_iter=20, hidden_layer_sizes=4)
    search = GridSearchCV(perceptron, {"alpha": grid}, scoring="neg_mean_squared_error", cv=12)
    with bx.stacked():
        by_values = clone(search).fit(X, noisy)
        by_slopes = clone(search).fit(X, surface(X), dy=slopes(X))
    # The mean predicts best after a dozen noisy values, and a network after exact derivatives.
    assert by_values.best_params_["alpha"] >= 1.0
    assert by_slopes.best_params_["alpha"] <= 0.01


@pytest.mark.parametrize(
    ("options", "y", "dy", "message"),
    [
        ({}, surface(X), slopes(X)[:, :1], r"dy has shape \(12, 1\).*\(12, 1, 2\) or \(12, 2\)"),
        ({}, np.ones((12, 2)), slopes(X), r"dy has shape \(12, 2\).*\(12, 2, 2\), are expected"),
        ({}, surface(X), np.full((12, 2), np.inf), "infinite. Those not measured are NaN"),
        (
            {"loss": "poisson"},
            np.ones(12),
            slopes(X),
            "loss='poisson' .* a function of them.*huber",
        ),
    ],
)
def test_wrong_derivatives_are_an_error(options: Any, y: Any, dy: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(**options).fit(X, y, dy=dy)


def test_derivatives_in_a_table_belong_to_the_features_of_their_names() -> None:
    x, dy = (pd.DataFrame(values, columns=["a", "b"]) for values in (X, slopes(X)))
    with pytest.raises(ValueError, match=r"columns \['b', 'a'\], but X has \['a', 'b'\]"):
        model().fit(x, surface(X), dy=dy[["b", "a"]])
    expected = fitted(model(max_iter=5), x, surface(X), dy=dy)
    renamed = fitted(model(max_iter=5), x, surface(X), dy=dy.set_axis(["dy/da", "dy/db"], axis=1))
    np.testing.assert_array_equal(renamed.coefs_[0], expected.coefs_[0])


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", ["tanh", "relu"]])
def test_derivatives_of_an_activation_with_kinks_warn_and_name_tanh(
    solver: str, activation: Any
) -> None:
    options = {"activation": activation, "max_iter": 2}
    if isinstance(activation, list):
        options["hidden_layer_sizes"] = (4, 4)
    expected = r"'(leaky_)?relu' are constant between its kinks.*such as \"tanh\""
    with pytest.warns(UserWarning, match=expected) as found:
        fitted(model(solver, **options), X, surface(X), dy=slopes(X))
    assert len([one for one in found if "kinks" in str(one.message)]) == 1
    fitted(model(solver, **options), X, surface(X))  # warnings are errors here
    fitted(model(solver, activation="tanh", max_iter=2), X, surface(X), dy=slopes(X))
    linear = model(solver, activation="relu", hidden_layer_sizes=(), max_iter=2)
    fitted(linear, X, surface(X), dy=slopes(X))
