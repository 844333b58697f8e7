"""Derivatives as targets: the chain rule through the scaling, what they teach, and wrong ones."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

import backprop_xp as bx
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.slope_targets import OfTarget, SlopeTargets

pytestmark = pytest.mark.long

# Features are float32: a central difference over 2 % of a column's scale keeps four digits.
STEP, DIGITS = 0.02, 2e-3
NUMBERS = ["t", "large", "skewed", "count"]


def a_table(rows: int = 120) -> Any:
    """Return a table of several scales, with dates, gaps, and a category that is embedded."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "t": draw.normal(300.0, 25.0, rows),
            "city": draw.choice(["Rome", "Oslo", "Bern"], rows),
            "large": draw.normal(1e5, 2e4, rows),
            "skewed": np.exp(draw.normal(0.0, 1.5, rows)),
            "day": pd.Timestamp("2024-01-05") + pd.to_timedelta(draw.integers(0, 300, rows), "D"),
            "count": draw.integers(0, 50, rows),
            "shop": [f"shop {i % 30}" for i in range(rows)],
        }
    )
    table.loc[::7, "large"] = np.nan
    return table


def a_target(table: Any) -> tuple[Any, Any]:
    """Return a target, and its derivatives by two columns."""
    t, skewed = (table["t"] - 300.0) / 25.0, table["skewed"]
    y = 50.0 * np.sin(2.0 * t) + 10.0 * np.log1p(skewed) * (table["city"] == "Rome")
    by_skewed = 10.0 / (1.0 + skewed) * (table["city"] == "Rome")
    return y, pd.DataFrame({"t": 4.0 * np.cos(2.0 * t), "skewed": by_skewed})


@pytest.mark.parametrize("preset", ["fast", "default"])
def test_the_derivatives_of_a_models_own_predictions_are_its_targets(preset: str, xp: Any) -> None:
    table = a_table()
    model = bx.TabularRegressor(preset, random_state=0, max_iter=3).fit(table, a_target(table)[0])
    assert model.model_.features.codes
    features, where = model.model_.features, table.iloc[:30]
    steps = {name: STEP * table[name].std() for name in NUMBERS}
    columns = {}
    for name in NUMBERS:
        ends = [where.assign(**{name: where[name] + sign * steps[name]}) for sign in (1.0, -1.0)]
        above, below = (model.predict(end) for end in ends)
        columns[name] = (above - below) / (2.0 * steps[name])
    rows = Rows(where, pd.Series(model.predict(where)), None, slopes=pd.DataFrame(columns))
    targets = SlopeTargets.of(features, rows)
    assert targets is not None
    scale = model.model_.scale
    y = (rows.target.to_numpy()[:, None] - scale.mean) / scale.scale
    y, weights = targets.beside(y, rows, features, scale.scale)
    theta = bx.asarray(model.theta_)
    x = bx.asarray(features.transform(where), dtype=theta.dtype)
    found = bx.to_host(targets.network(model.network_).forward(theta, x))
    found = found.mean(axis=0) if found.ndim == 3 else found
    errors = np.where(weights > 0.0, np.abs(found - y) * np.sqrt(weights), 0.0)
    assert errors.max() < DIGITS * np.abs(y[weights > 0.0]).max()
    # A number that is missing has no derivative.
    missing = where["large"].isna().to_numpy()
    assert missing.any()
    np.testing.assert_array_equal(weights[:, 2] == 0.0, missing)


def test_derivatives_beyond_the_limit_of_the_scaling_are_not_learned() -> None:
    table = pd.DataFrame({"a": np.linspace(0.0, 1.0, 50)})
    features = bx.tables.Preparation().fit(table).features_
    far = pd.DataFrame({"a": [0.5, 1000.0, np.nan]})
    rows = Rows(far, pd.Series([0.0] * 3), None, slopes=pd.DataFrame({"a": [2.0, 2.0, 2.0]}))
    targets = SlopeTargets.of(features, rows)
    assert targets is not None
    y, weights = targets.beside(np.zeros((3, 1)), rows, features, 4.0)
    deviation = np.std(table["a"])
    np.testing.assert_allclose(y[0], [0.0, 2.0 * deviation / 4.0])
    np.testing.assert_allclose(weights, [[1.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    weighted = rows._replace(weights=np.array([1.0, 2.0, 3.0]))
    _, weights = targets.beside(np.zeros((3, 1)), weighted, features, 4.0)
    np.testing.assert_allclose(weights, [[0.5, 0.5], [1.0, 0.0], [1.5, 0.0]])


def test_few_rows_with_derivatives_teach_what_their_values_do_not() -> None:
    table, many = a_table(40), a_table(400).iloc[40:]
    y, dy = a_target(table)
    errors = {}
    for name, given in {"values": None, "derivatives": dy, "some": {"t": dy["t"]}}.items():
        model = bx.TabularRegressor("fast", random_state=0, max_iter=150, n_iter_no_change=30)
        model.fit(table, y, dy=given)
        errors[name] = np.sqrt(np.mean((model.predict(many) - a_target(many)[0]) ** 2))
    assert errors["derivatives"] < 0.7 * errors["values"]
    assert errors["some"] < 0.8 * errors["values"]


def test_a_validation_set_and_a_metric_are_those_of_the_target_alone() -> None:
    table = a_table()
    (y, dy), (val_y, _) = a_target(table.iloc[:90]), a_target(table.iloc[90:])
    model = bx.TabularRegressor("fast", random_state=0, max_iter=4, metric="rmse")
    model.fit(table.iloc[:90], y, dy=dy, X_val=table.iloc[90:], y_val=val_y)
    errors = model.predict(table.iloc[90:]) - val_y
    scale = model.model_.scale.scale
    assert model.validation_score_ == pytest.approx(np.sqrt(np.mean(errors**2)) / scale, rel=1e-4)
    assert OfTarget("rmse").mode == "min"


def test_an_array_has_a_derivative_for_each_column_and_nan_where_there_is_none() -> None:
    table = a_table()[["t", "skewed", "count"]]
    y = 4.0 * table["t"] + table["skewed"]
    named = pd.DataFrame({"t": np.full(len(table), 4.0), "skewed": 1.0})
    array = np.full(table.shape, np.nan)
    array[:, :2] = named
    made = [bx.TabularRegressor("fast", random_state=0, max_iter=3) for _ in range(2)]
    for model, dy in zip(made, (named, array), strict=True):
        model.fit(table, y, dy=dy)
    np.testing.assert_array_equal(made[0].theta_, made[1].theta_)


def test_rows_without_a_weight_are_left_out_with_their_derivatives() -> None:
    table = a_table()
    y, dy = a_target(table)
    used = np.arange(len(table)) % 3 > 0
    options: dict[str, Any] = {"preset": "fast", "random_state": 0, "max_iter": 3}
    weighted = bx.TabularRegressor(**options)
    weighted.fit(table, y, used.astype(float), dy=dy.where(pd.Series(used), 1e9))
    alone = bx.TabularRegressor(**options).fit(
        table[used], y[used], np.ones(used.sum()), dy=dy[used]
    )
    np.testing.assert_array_equal(weighted.theta_, alone.theta_)


def test_a_training_resumes_with_the_same_derivatives_alone(tmp_path: Path) -> None:
    table, path = a_table(), tmp_path / "model.bxp"
    y, dy = a_target(table)
    options: dict[str, Any] = {"preset": "fast", "random_state": 0, "learning_rate": "constant"}
    whole = bx.TabularRegressor(**options, max_iter=6).fit(table, y, dy=dy)
    bx.TabularRegressor(**options, max_iter=3).fit(table, y, dy=dy, checkpoint=path)
    longer = bx.TabularRegressor(**options, max_iter=6)
    with pytest.raises(ValueError, match="other"):
        longer.fit(table, y, dy=2.0 * dy, checkpoint=path, resume=True)
    longer.fit(table, y, dy=dy, checkpoint=path, resume=True)
    np.testing.assert_array_equal(longer.theta_, whole.theta_)


@pytest.mark.parametrize(
    ("dy", "message"),
    [
        ({"city": np.ones(120)}, "dy has the column 'city', whose kind is 'category': deriv"),
        ({"day": np.ones(120)}, "dy has the column 'day', whose kind is 'date'"),
        ({"same": np.ones(120)}, "dy has the column 'same', which is left out: the same in all"),
        ({"tt": np.ones(120)}, "dy has 'tt', but X has no such column"),
        ({"t": np.ones(7)}, "dy has 7 rows, but y has 120"),
        ({"t": ["a"] * 120}, "dy has a value that is no number"),
        ({"t": np.full(120, np.inf)}, "dy has values that are infinite"),
        ({"t": np.full(120, np.nan)}, "dy has no derivative that is known"),
        (np.ones((120, 2)), r"dy has shape \(120, 2\), but \(120, 8\) is expected"),
    ],
)
def test_wrong_derivatives_are_errors_that_name_them(dy: Any, message: str) -> None:
    table = a_table().assign(same=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the column that is left out
        with pytest.raises(ValueError, match=message):
            bx.TabularRegressor("fast", max_iter=2).fit(table, a_target(table)[0], dy=dy)
