"""The models that the report has beside the network.

Specifies ``other_models``.
"""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from scipy.stats import ttest_1samp
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, mean_squared_error

from backprop_xp.cli.table.table_output import metrics_table
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.evaluation import is_above_0
from backprop_xp.tables.report.other_models import _plain_features, _staged, best_stage
from backprop_xp.tables.report.problem import ColumnChoice, make_problem
from backprop_xp.tables.report.table_training import train_table
from tests.helpers import thorough

QUICK: dict[str, Any] = {"preset": "fast", "hidden_layer_sizes": (8,), "max_iter": 1}
QUICK |= {"random_state": 0}


def noisy(rows: int) -> pd.DataFrame:
    """Return six numbers, and a target of three classes that two of them explain in part."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(rows, 6))
    score = x[:, 0] + 0.5 * x[:, 1] + draw.normal(size=rows)
    classes = np.where(score > 0.8, "high", np.where(score < -0.8, "low", "middle"))
    return pd.DataFrame(x, columns=[*"abcdef"]).assign(y=classes)


@pytest.mark.once
def test_the_other_models_know_the_most_frequent_values_of_a_category_of_many() -> None:
    """A column for each of all values could take more memory than there is."""
    codes = np.where(np.arange(1500) < 1200, np.arange(1500) % 300, 300)
    table = noisy(1500).assign(code=[f"v{i}" for i in codes])
    model = train_table(make_problem(table, "y", ColumnChoice(), seed=0), QUICK)
    made, training = model.model_.features, table
    assert len(made.columns["code"].values) > 200
    plain = _plain_features(made, Rows(training, training["y"], None))
    assert plain.columns["code"].width == 200
    assert "v300" in plain.columns["code"].values
    assert made.columns["code"].is_code


# Targets, the number of folds, and whether a linear model explains the target better.
TARGETS: dict[str, Any] = {
    "a line": (lambda a, b: 5.0 * a - b, None, True),
    "a line, in folds": (lambda a, b: 5.0 * a - b, 2, True),
    "classes beside a line": (lambda a, b: np.where(5.0 * a - b > 0.0, "yes", "no"), None, True),
    "a wave": (lambda a, b: np.sin(3.0 * a) + 0.0 * b, None, False),
}


@pytest.mark.once
@pytest.mark.parametrize("name", TARGETS)
def test_the_report_says_where_the_linear_model_is_better(name: str) -> None:
    target, cv, expected = TARGETS[name]
    table = noisy(400)
    table["y"] = target(table["a"], table["b"])
    epochs = {"max_iter": 1 if expected else 60, "learning_rate_init": 0.02}
    problem = make_problem(table, "y", ColumnChoice(), seed=0, cv=cv)
    report = train_table(problem, QUICK | epochs).metadata_["report"]
    assert report["linear_is_better"] is expected
    assert metrics_table(report).endswith("\nthe linear model is better here") is expected
    del report["linear_is_better"]  # as in a file of before
    assert metrics_table(report).splitlines()[-1].startswith(("MAE", "ROC AUC"))


@pytest.mark.once
def test_a_mean_is_above_0_by_twice_its_standard_error_and_a_weight_counts_rows() -> None:
    draw, found = np.random.default_rng(0), list[bool]()
    for shift in np.linspace(0.0, 0.3, 30):
        values = draw.normal(shift, size=100)
        found.append(is_above_0(values, np.ones(100)))
        assert found[-1] == (ttest_1samp(values, 0.0).statistic > 2.0)
        counted = draw.integers(0, 2, 100)
        assert is_above_0(values, counted) == is_above_0(values[counted > 0], counted[counted > 0])
    assert 5 < sum(found) < 25
    assert not is_above_0(np.asarray([1.0, -9.0]), np.asarray([1.0, 0.0]))


@pytest.mark.once
def test_boosting_that_a_class_of_one_row_makes_diverge_is_better_than_the_baseline() -> None:
    table, lines = noisy(8000), list[str]()
    table.loc[3, "y"] = "rare"
    report = train_table(make_problem(table, "y", ColumnChoice(), seed=0), QUICK, say=lines.append)
    scores = report.metadata_["report"]
    assert scores["boosting"]["log_loss"] < 0.9 * scores["baseline"]["log_loss"]
    assert any("few training rows have the class 'rare':" in line for line in lines)


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "is_weighted"),
    [
        (HistGradientBoostingClassifier, True),
        (HistGradientBoostingRegressor, False),
        thorough(HistGradientBoostingClassifier, False),
        thorough(HistGradientBoostingRegressor, True),
    ],
)
def test_the_stage_of_the_lowest_loss_on_the_validation_rows_is_chosen(
    kind: Any, is_weighted: bool
) -> None:
    table = noisy(300)
    x, y = table[[*"abcdef"]].to_numpy(), pd.factorize(table["y"], sort=True)[0].astype(float)
    held, rows = slice(200, 250), slice(250, 300)
    weights = np.random.default_rng(1).random(50) if is_weighted else None
    # Without early stopping it overfits: the last stage is far from the best.
    boosting = kind(max_iter=60, early_stopping=False).fit(x[:200], y[:200])
    if kind is HistGradientBoostingClassifier:
        staged, loss = boosting.staged_predict_proba, log_loss
    else:
        staged, loss = boosting.staged_predict, mean_squared_error
    losses = [loss(y[held], found, sample_weight=weights) for found in staged(x[held])]
    best = int(np.argmin(losses))
    assert best < 50
    trees = best_stage(boosting, x[held], y[held], weights)
    np.testing.assert_array_equal(_staged(boosting, x[rows], trees), [*staged(x[rows])][best])
