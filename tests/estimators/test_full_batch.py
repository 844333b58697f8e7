"""The solvers lm and lbfgs: losses, starts, members, and what they refuse."""

import signal
from typing import Any

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

import backprop_xp as bx

X = np.linspace(-2.0, 2.0, 60)[:, None]
Y = 100.0 + 50.0 * np.sin(2.0 * X[:, 0])
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
    weight = np.arange(1.0, 61.0) if weighted else None
    model = bx.MLPRegressor(**{**OPTIONS, "alpha": 2.0}, max_iter=400).fit(X, targets, weight)
    shares = (np.ones(60) if weight is None else weight) / 60.0
    total = 60.0 * shares.sum()
    error = (model.predict(X) - targets).reshape(60, -1)
    squares = sum(float(np.sum(w**2)) for w in model.coefs_)
    expected = 0.5 * np.sum(shares * np.sum(error**2, axis=1)) * 60.0 / total
    np.testing.assert_allclose(model.loss_, expected + squares / total, rtol=1e-9)


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
