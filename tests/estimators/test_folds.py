"""The folds of the solver lm: what alpha="auto" chooses, and what its networks have seen."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit

import backprop_xp as bx
from backprop_xp.estimators import folds
from backprop_xp.estimators.folds import ALPHAS, _drawn
from tests.helpers import thorough

GENERATOR = np.random.default_rng(0)
X = np.linspace(-2.0, 2.0, 40)[:, None]
Y = np.sin(2.0 * X[:, 0])
NOISY = Y + 0.5 * GENERATOR.normal(size=40)
OPTIONS: dict[str, Any] = {"hidden_layer_sizes": 5, "activation": "tanh", "max_iter": 150}
OPTIONS |= {"solver": "lm", "random_state": 0, "alpha": "auto"}
LINEAR = {**OPTIONS, "hidden_layer_sizes": (), "tol": 1e-12}

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def _on_numpy() -> Iterator[None]:
    with bx.use_backend("numpy"):
        yield


def test_noise_is_answered_by_a_larger_alpha() -> None:
    clean, noisy = (bx.MLPRegressor(**OPTIONS).fit(X, y).alpha_ for y in (Y, NOISY))
    assert ALPHAS[0] <= clean < 0.01 < 0.1 <= noisy <= ALPHAS[-1]


@pytest.mark.parametrize("weighted", [thorough(False), True])
def test_the_losses_that_choose_are_those_of_a_grid_search(
    weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = GENERATOR.normal(size=(32, 12))  # folds of 6 and of 7 rows
    y = x[:, 0] + 2.0 * GENERATOR.normal(size=32)
    weight = GENERATOR.integers(1, 4, size=32).astype(float) if weighted else None
    losses, best = list[np.ndarray](), folds._best
    monkeypatch.setattr(folds, "_best", lambda found: losses.append(found) or best(found))
    found = bx.MLPRegressor(**LINEAR).fit(x, y, weight).alpha_

    # A linear model has no other minimum, so its starts do not matter.
    random_state = np.random.RandomState(0)
    random_state.uniform(size=13)  # the first theta
    parts = PredefinedSplit(_drawn(32, random_state))
    means = np.zeros(len(ALPHAS))
    for rows, left in parts.split():
        for i, alpha in enumerate(ALPHAS):
            given = None if weight is None else weight[rows]
            model = bx.MLPRegressor(**{**LINEAR, "alpha": alpha}).fit(x[rows], y[rows], given)
            squares = (model.predict(x[left]) - y[left]) ** 2
            means[i] += np.sum(squares * (1.0 if weight is None else weight[left]))
    assert ALPHAS[np.argmin(means)] == found
    # The trainings end within about 1e-12 of their minimum, whose losses are means in other units.
    np.testing.assert_allclose(losses[0] / losses[0][0], means / means[0], rtol=1e-6)


def test_a_strength_whose_trainings_diverged_is_not_chosen() -> None:
    assert folds._best(np.array([np.nan, 3.0, 2.0, np.inf])) == 2


def test_a_classifier_and_members_choose_one_alpha() -> None:
    labels = GENERATOR.normal(size=40) + Y > 0.0
    model = bx.MLPClassifier(**OPTIONS, n_members=2, n_restarts=2).fit(X, labels)
    assert model.alpha_ in ALPHAS
    assert model.coefs_[0].shape == (2, 1, 5)


def test_members_do_not_add_to_the_networks_that_choose(monkeypatch: pytest.MonkeyPatch) -> None:
    stacks, fit = list[int](), folds.fit

    def counted(network: Any, theta: Any, *given: Any, **options: Any) -> Any:
        stacks.append(theta.shape[0])
        return fit(network, theta, *given, **options)

    monkeypatch.setattr(folds, "fit", counted)
    options = {**OPTIONS, "max_iter": 5, "n_restarts": 2}
    alone = bx.MLPRegressor(**options).fit(X, NOISY)
    model = bx.MLPRegressor(**options, n_members=3, interval="conformal").fit(X, NOISY)
    choice, intervals = len(ALPHAS) * 5 * 2, 5 * 3 * 2
    assert stacks == [choice, choice, intervals]
    assert model.alpha_ in ALPHAS
    assert alone.alpha_ in ALPHAS


def test_a_number_as_alpha_leaves_no_choice_behind() -> None:
    model = bx.MLPRegressor(**OPTIONS).fit(X, Y)
    assert not hasattr(model.set_params(alpha=0.1).fit(X, Y), "alpha_")


def test_a_grid_search_tries_auto_beside_numbers() -> None:
    search = GridSearchCV(bx.MLPRegressor(**OPTIONS), {"alpha": ["auto", 100.0]}, cv=2)
    assert search.fit(X[::2], Y[::2]).best_params_["alpha"] == "auto"


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_other_solvers_refuse_auto(solver: str) -> None:
    with pytest.raises(ValueError, match=r"alpha='auto' trains .* needs solver='lm', not"):
        bx.MLPRegressor(**{**OPTIONS, "solver": solver}).fit(X, Y)


def test_one_row_has_no_folds() -> None:
    with pytest.raises(ValueError, match=r"X has 1 row, but folds need at least 2"):
        bx.MLPRegressor(**OPTIONS).fit(X[:1], Y[:1])


def test_folds_have_nearly_equal_sizes() -> None:
    for rows in (2, 7, 20):
        counts = np.bincount(_drawn(rows, np.random.RandomState(0)))
        assert len(counts) == min(5, rows)
        assert counts.max() - counts.min() <= 1
