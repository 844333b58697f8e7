"""The solvers lm and lbfgs: losses, starts, members, and what they refuse."""

import signal
import warnings
from typing import Any

import numpy as np
import pytest
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning

import backprop_xp as bx

pytestmark = pytest.mark.long

X = np.linspace(-2.0, 2.0, 60)[:, None]
Y = 100.0 + 50.0 * np.sin(2.0 * X[:, 0])
# Some hundred roundings, of sums of squares.
ROUNDINGS = 1e-9
OPTIONS: dict[str, Any] = {"hidden_layer_sizes": 6, "activation": "tanh", "alpha": 1e-4}
OPTIONS |= {"solver": "lm", "random_state": 0}


@pytest.fixture(autouse=True)
def _on_numpy() -> Any:
    with bx.use_backend("numpy"):
        yield


def test_a_curve_in_raw_units_is_fitted_in_some_steps() -> None:
    model = bx.MLPRegressor(**OPTIONS, max_iter=400).fit(X, Y)
    assert model.score(X, Y) > 0.9999
    assert model.n_iter_ < 400


@pytest.mark.parametrize("targets", [Y, np.stack([Y, 2.0 * Y], axis=1)], ids=["one", "two"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_the_weights(targets: np.ndarray, weighted: bool) -> None:
    """The loss of several outputs is that of each in its deviation, and so is the last layer."""
    weight = np.arange(1.0, 61.0) if weighted else None
    model = bx.MLPRegressor(**{**OPTIONS, "alpha": 2.0}, max_iter=400).fit(X, targets, weight)
    shares = (np.ones(60) if weight is None else weight) / 60.0
    total = 60.0 * shares.sum()
    units: Any = 1.0
    if targets.ndim > 1:
        centred = targets - np.average(targets, axis=0, weights=shares)
        units = np.sqrt(np.average(centred**2, axis=0, weights=shares))
    error = ((model.predict(X) - targets) / units).reshape(60, -1)
    squares = float(np.sum(model.coefs_[0] ** 2) + np.sum((model.coefs_[1] / units) ** 2))
    expected = 0.5 * np.sum(shares * np.sum(error**2, axis=1)) * 60.0 / total
    np.testing.assert_allclose(model.loss_, expected + squares / total, rtol=1e-9)


def test_an_output_of_small_numbers_is_learned_beside_one_of_large_numbers() -> None:
    targets = np.concatenate([np.sin(2.0 * X), 1e5 * np.cos(2.0 * X)], axis=1)
    model = bx.MLPRegressor(**OPTIONS, max_iter=400).fit(X, targets)
    error = np.sqrt(np.mean((model.predict(X) - targets) ** 2, axis=0)) / targets.std(axis=0)
    assert (error < 0.01).all()  # the penalty's


SEVERAL: dict[str, dict[str, Any]] = {
    "weights": {"sample_weight": np.arange(60.0)},
    "derivatives": {"dy": np.stack([2.0 * np.cos(2.0 * X), np.ones_like(X)], axis=1)},
    "conformal": {"interval": "conformal"},
    "laplace": {"interval": "laplace"},
    "no hidden layer": {"hidden_layer_sizes": ()},
    "a warm start": {"warm_start": True},
}


@pytest.mark.parametrize("name", SEVERAL)
def test_the_fit_of_several_outputs_does_not_depend_on_their_units(name: str) -> None:
    """Powers of two, which round nothing, also in what follows from a fit."""
    targets, units = np.concatenate([np.sin(2.0 * X), X], axis=1), np.array([2.0**-20, 2.0**10])
    options, given = {**OPTIONS, "max_iter": 20, "tol": 0.0}, dict(SEVERAL[name])
    options |= {key: given.pop(key) for key in [*given] if key not in ("sample_weight", "dy")}
    models = []
    for unit in (np.ones(2), units):
        own = {**given, "dy": given["dy"] * unit[:, None]} if "dy" in given else given
        models.append(bx.MLPRegressor(**options))
        for _ in range(1 + (name == "a warm start")):
            with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
                models[-1].fit(X, targets * unit, **own)
    one, other = models
    np.testing.assert_array_equal(one.predict(X) * units, other.predict(X))
    assert one.loss_ == other.loss_
    if "interval" in options:
        for bound, own_bound in zip(*(m.predict_interval(X) for m in models), strict=True):
            np.testing.assert_allclose(bound * units, own_bound, rtol=ROUNDINGS)


def test_a_callback_scores_several_outputs_in_their_units() -> None:
    targets = np.concatenate([np.sin(2.0 * X), 1e5 * X], axis=1)
    monitor = ScoringMonitor(scoring="r2")
    model = bx.MLPRegressor(**OPTIONS, max_iter=400).set_callbacks(monitor).fit(X, targets)
    scores = [row["r2"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert scores[-1] == pytest.approx(model.score(X, targets), rel=ROUNDINGS)


def test_an_equal_target_and_another_loss_have_no_unit_of_their_own() -> None:
    equal = np.concatenate([np.full_like(X, 7.0), np.sin(X)], axis=1)
    model = bx.MLPRegressor(**OPTIONS, max_iter=400).fit(X, equal)
    assert np.abs(model.predict(X)[:, 0] - 7.0).max() < 0.01
    # The delta of a Huber loss is in units of y.
    model = bx.MLPRegressor("huber", **{**OPTIONS, "alpha": 0.0}, max_iter=400)
    model.fit(X, np.stack([Y, 2.0 * Y], axis=1))
    error = np.abs(model.predict(X) - np.stack([Y, 2.0 * Y], axis=1))
    huber = np.where(error < 1.0, 0.5 * error**2, error - 0.5)
    assert model.loss_ == pytest.approx(np.mean(huber), rel=ROUNDINGS)


def test_the_best_of_several_starts_is_kept() -> None:
    one, best = (
        bx.MLPRegressor(**OPTIONS, max_iter=400, n_restarts=n).fit(X, Y).loss_ for n in (1, 4)
    )
    assert best <= one * (1.0 + 1e-6)


@pytest.mark.parametrize("solver", ["lm", "lbfgs"])
def test_members_are_trained_as_a_stack(solver: str) -> None:
    options = {
        **OPTIONS,
        "solver": solver,
        "max_iter": 400,
        "tol": 0.1 if solver == "lbfgs" else 1e-4,
    }
    model = bx.MLPRegressor(**options, n_members=3, n_restarts=2).fit(X, Y)
    assert model.coefs_[0].shape == (3, 1, 6)
    assert len(model.loss_) == 3
    assert isinstance(model.n_iter_, int)
    assert model.score(X, Y) > 0.999


def test_a_classifier_has_the_curvature_of_its_log_loss() -> None:
    labels = np.digitize(X[:, 0], [-0.7, 0.7])
    for y in (labels, labels > 0, np.stack([labels > 0, labels > 1], axis=1)):
        model = bx.MLPClassifier(**{**OPTIONS, "alpha": 0.1}, max_iter=400).fit(X, y)
        assert model.score(X, y) > 0.95


def test_a_training_that_was_too_short_warns() -> None:
    with pytest.warns(ConvergenceWarning, match=r"lm failed to converge after 3 iteration"):
        bx.MLPRegressor(**OPTIONS, max_iter=3).fit(X, Y)


def test_ctrl_c_leaves_the_last_iterate() -> None:
    class Interrupts:
        left = 5

        def setup(self, estimator: Any, context: Any) -> None: ...
        def teardown(self, estimator: Any, context: Any) -> None: ...
        def on_fit_task_begin(self, estimator: Any, context: Any, **details: Any) -> None: ...
        def on_fit_task_end(self, estimator: Any, context: Any, **details: Any) -> bool:
            if context.task_name == "epoch":
                self.left -= 1
                if not self.left:
                    signal.raise_signal(signal.SIGINT)
            return False

    model = bx.MLPRegressor(**OPTIONS, max_iter=50).set_callbacks(Interrupts())
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(X, Y)
    assert model.n_iter_ == 5


REFUSED = {
    "dropout": ({"dropout": 0.1}, "dropout works only with the stochastic.*leave it out with lm"),
    "clip": ({"clip": 1.0}, "clip works only with the stochastic"),
    "early_stopping": ({"early_stopping": True}, "early_stopping works only with the stochastic"),
    "batch_size": ({"batch_size": 10}, "batch_size works only with the stochastic"),
    "a loss": ({"loss": "mean_absolute_error"}, "has no curvature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_take_is_an_error(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        bx.MLPRegressor(**{**OPTIONS, **options}).fit(X, Y)


def test_a_saved_model_predicts_the_same(tmp_path: Any) -> None:
    model = bx.MLPRegressor(**OPTIONS, max_iter=400).fit(X, Y)
    model.save(tmp_path / "model.safetensors")
    kept = bx.MLPRegressor.load(tmp_path / "model.safetensors")
    assert kept.solver == "lm"
    np.testing.assert_array_equal(kept.predict(X), model.predict(X))
