"""The folds of the solver lm: what their networks have seen."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.estimators import full_batch
from backprop_xp.estimators.folds import Folds, train_folds

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(32, 12))  # folds of 6 and of 7 rows
Y = X[:, 0] + 2.0 * GENERATOR.normal(size=32)
OPTIONS: dict[str, Any] = {"solver": "lm", "interval": "conformal", "random_state": 0}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def _on_numpy() -> Iterator[None]:
    with bx.use_backend("numpy"):
        yield


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[Folds]:
    """Return the folds of each fit of a test."""
    kept = list[Folds]()

    def keep(*given: Any) -> Folds:
        kept.append(train_folds(*given))
        return kept[-1]

    monkeypatch.setattr(full_batch, "train_folds", keep)
    return kept


def test_the_network_of_a_fold_is_the_fit_of_the_other_rows(found: list[Folds]) -> None:
    """A linear model has no other minimum, so its starts do not matter."""
    model = bx.MLPRegressor(hidden_layer_sizes=(), **OPTIONS, alpha=3.0, tol=1e-12).fit(X, Y)
    assert found[0].thetas.shape == (5, 1, 13)
    assert np.bincount(found[0].of_rows).tolist() == [7, 7, 6, 6, 6]
    for fold, theta in enumerate(found[0].thetas):
        rows = found[0].of_rows != fold
        alone = bx.MLPRegressor(hidden_layer_sizes=(), solver="lm", alpha=3.0, tol=1e-12).fit(
            X[rows], Y[rows]
        )
        expected = np.append(alone.coefs_[0], alone.intercepts_[0])
        np.testing.assert_allclose(theta[0], expected, rtol=1e-6, atol=1e-6)
    whole = np.append(model.coefs_[0], model.intercepts_[0])
    assert np.abs(found[0].thetas - whole).max(axis=-1).min() > 1e-3


def test_each_member_has_the_best_of_its_starts(found: list[Folds]) -> None:
    options = {**OPTIONS, "hidden_layer_sizes": 3, "activation": "tanh", "max_iter": 5}
    for members, restarts in ((2, 3), (6, 1)):
        bx.MLPRegressor(**options, n_members=members, n_restarts=restarts).fit(X, Y)
    (best, alone), network = found, bx.mlp([12, 3, 1], hidden="tanh", loss="mean_squared_error")

    def losses(folds: Folds) -> np.ndarray:
        weight = 1.0 * (folds.of_rows != np.arange(5)[:, None])[:, None, :]
        return np.asarray(network.loss(folds.thetas, X, Y[:, None], sample_weight=weight))

    of_starts = losses(alone).reshape(5, 2, 3)  # the same draws
    np.testing.assert_allclose(losses(best), of_starts.min(axis=-1), rtol=1e-3)


def test_two_rows_have_two_folds_and_one_row_has_none(found: list[Folds]) -> None:
    bx.MLPRegressor(hidden_layer_sizes=(), **OPTIONS).fit(X[:2], Y[:2])
    assert sorted(found[0].of_rows) == [0, 1]
    with pytest.raises(ValueError, match=r"X has 1 row, but interval='conformal' needs at least 2"):
        bx.MLPRegressor(hidden_layer_sizes=(), **OPTIONS).fit(X[:1], Y[:1])
