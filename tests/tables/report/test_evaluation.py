"""The models that the report has beside the network."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import log_loss, mean_squared_error

from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.evaluation import _of_best_stage, _plain_features
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


@pytest.mark.once
def test_boosting_that_a_class_of_one_row_makes_diverge_is_better_than_the_trivial_model() -> None:
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
    found = _of_best_stage(boosting, x[rows], x[held], y[held], weights)
    np.testing.assert_array_equal(found, [*staged(x[rows])][best])
