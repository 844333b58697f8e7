"""The estimators of tables and the preparation, as scikit-learn uses them.

Specifies ``blas_threads``, ``estimator_rows``, ``exports``, ``fitted_model``, ``model_training``,
``preparation``, ``presets``, ``table_network``, ``tables``, ``tabular_base`` and
``tabular_parameters``.
"""

import dataclasses
import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_info, threadpool_limits

import backprop_xp as bx
from backprop_xp.files import checkpoint
from backprop_xp.tables.columns.scaling import SCALINGS, Spread, learn_scaling
from backprop_xp.tables.model import model_file, model_training, presets, tabular_parameters
from backprop_xp.tables.model.rows import Rows
from tests import messy_tables
from tests.commands import start
from tests.helpers import HANGING

QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 12, "random_state": 0}
SHORT: dict[str, Any] = {**QUICK, "max_iter": 4}
BOTH = pytest.mark.parametrize("kind", [bx.TabularClassifier, bx.TabularRegressor])


def table(rows: int = 120) -> tuple[pd.DataFrame, pd.Series]:
    """Return a table of each kind of column with missing values, and a target of strings."""
    draw = np.random.default_rng(0)
    a, city = draw.normal(size=rows), draw.choice(["Rome", "Oslo", "Bonn"], rows)
    names = [f"{messy_tables.name(draw)} {messy_tables.name(draw)} {i}" for i in range(rows)]
    frame = pd.DataFrame(
        {
            "a": np.where(draw.random(rows) < 0.1, np.nan, a),
            "city": pd.Series(city).where(draw.random(rows) > 0.1),
            "day": pd.date_range("2020-02-01", periods=rows).strftime("%Y-%m-%d"),
            "when": pd.date_range("2020-02-01", periods=rows, freq="h"),
            "text": names,
        }
    )
    return frame, pd.Series(np.where(a + (city == "Rome") > 0.5, "yes", "no"), name="y")


def given(kind: Any) -> tuple[pd.DataFrame, pd.Series]:
    """Return the table, with a target of numbers for a regressor."""
    frame, y = table()
    return frame, y if kind is bx.TabularClassifier else (y == "yes") * 10.0 + frame.index / 60.0


def outputs(model: Any, frame: Any) -> np.ndarray:
    """Return the probabilities of a classifier, the numbers of a regressor."""
    return np.asarray(getattr(model, "predict_proba", model.predict)(frame))


@pytest.fixture
def on_numpy() -> Iterator[None]:
    with bx.use_backend("numpy"):
        yield


# Rows of weight 0 are left out: ``test_rows_of_weight_0_change_nothing``.
WEIGHT_2 = "it fails for weight 2 alone: such a row is one row of a split and of a batch, not two"
SPLIT = {"check_sample_weight_equivalence_on_dense_data": WEIGHT_2}


# In float64: a row's prediction depends on the other rows by the rounding of a product, and
# scikit-learn allows 1e-7.
@parametrize_with_checks(
    [
        bx.tables.Preparation(),
        bx.tables.Preparation(scaling="robust", max_one_hot=2),
        bx.TabularClassifier(hidden_layer_sizes=(16,), max_iter=10, n_members=2, dtype="float64"),
        bx.TabularRegressor(hidden_layer_sizes=(16,), max_iter=10, n_members=1, dtype="float64"),
    ],
    expected_failed_checks=lambda one: {} if isinstance(one, bx.tables.Preparation) else SPLIT,
)
@pytest.mark.once
@pytest.mark.usefixtures("on_numpy")
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass(estimator: Any, check: Any) -> None:
    check(estimator)


def _with_weightless_rows(kind: Any) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    """Return the table with rows of weight 0 between the others, whose values are absurd."""
    frame, y = given(kind)
    absurd = frame.iloc[:80].assign(a=1e6, city="Atlantis", day="soon", text=None)
    absurd["when"] = pd.Timestamp("1800-01-01")
    is_absurd = np.random.default_rng(7).permutation(200) < 80
    at = np.empty(200, dtype=int)
    at[is_absurd], at[~is_absurd] = np.arange(120, 200), np.arange(120)
    whole, labels = (
        pd.concat(both).iloc[at].reset_index(drop=True) for both in ((frame, absurd), (y, y[:80]))
    )
    return whole, labels, np.where(is_absurd, 0.0, 1.0 + at % 3)


@pytest.mark.once
@BOTH
@pytest.mark.parametrize("members", [1, 3])
def test_rows_of_weight_0_change_nothing(kind: Any, members: int) -> None:
    frame, y = given(kind)
    whole, labels, weights = _with_weightless_rows(kind)
    options = {**QUICK, "n_members": members}
    found = kind(**options).fit(whole, labels, weights)
    expected = kind(**options).fit(frame, y, weights[weights > 0.0])
    np.testing.assert_array_equal(found.theta_, expected.theta_)
    np.testing.assert_array_equal(outputs(found, frame), outputs(expected, frame))
    assert found.model_.record == expected.model_.record
    # The same for a validation set.
    sets = [(frame, y, weights[weights > 0.0]), (whole, labels, weights)]
    thetas = [
        kind(**options).fit(frame, y, X_val=x, y_val=t, sample_weight_val=w).theta_
        for x, t, w in sets
    ]
    np.testing.assert_array_equal(*thetas)


# A cell in place of a number; a column has no such value where it has a weight.
WEIGHTLESS: dict[str, Any] = {
    "a list": [1.0, 2.0],
    "a word": "never",
    "a date": pd.Timestamp("2020-01-01"),
    "bytes": b"1",
}


@pytest.mark.once
@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_row_of_weight_0_is_dropped_before_its_cells_are_read(name: str) -> None:
    frame, y = given(bx.TabularRegressor)
    weight = 1.0 * (frame.index % 7 > 0)
    cells = frame["a"].astype(object)
    cells[weight == 0.0] = pd.Series([WEIGHTLESS[name]] * 120)[weight == 0.0]
    model = bx.TabularRegressor(**QUICK)
    expected = clone(model).fit(frame[weight > 0.0], y[weight > 0.0])
    for table in (frame.assign(a=cells), frame.assign(a=cells).to_numpy()):
        model.fit(table, y, weight, X_val=table, y_val=y, sample_weight_val=weight)
        (first, *_) = model.preparation_.columns_.values()
        assert first == expected.preparation_.columns_["a"]
    model.fit(frame.assign(a=cells), y, weight)
    assert model.preparation_.features_ is model.model_.features
    np.testing.assert_array_equal(model.predict(frame), expected.predict(frame))


@pytest.mark.once
@pytest.mark.parametrize("members", [1, 3])
def test_a_format_of_a_single_row_is_known_for_any_seed(members: int) -> None:
    days = pd.Series(pd.date_range("2020-01-13", periods=40).strftime("%Y-%m-%d"))
    days[20] = "2020-02-02T10:00:00+01:00"
    frame = pd.DataFrame({"day": days, "a": np.cos(np.arange(40.0))})
    found = []
    for seed in range(8):
        model = bx.TabularRegressor(**{**SHORT, "n_members": members, "random_state": seed})
        assert np.isfinite(model.fit(frame, frame["a"]).predict(frame)).all()
        found.append(model.preparation_.columns_["day"])
    assert found == 8 * [found[0]]
    assert found[0].formats == ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z")


# Values of a validation set, beside numbers or dates, and the error that names them.
FOREIGN: dict[str, tuple[Any, str, str]] = {
    "words": (["u", "v"] * 10, "b", "'b' has 'u' (row 0 of X_val), but a number is expected"),
    "some words": ([*map(str, range(15)), *"uvwxy"], "b", "'b' has 'u' (row 15 of X_val), but a"),
    "an unknown sign": (["1,234"] * 20, "b", "'b' has '1,234' (row 0 of X_val), but its decimal"),
    "a list": ([1.0, [2.0], *[3.0] * 18], "b", "'b' holds list (row 1 of X_val): numbers, strings"),
    "of another kind": (
        [*map(str, range(20))],
        "day",
        "'day' has '0' (row 0 of X_val), but a",
    ),
    "of a chosen kind": (
        [*map(str, range(19)), "u"],
        "c",
        "'c' has 'u' (row 19 of X_val), but",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", FOREIGN)
def test_values_of_another_kind_in_a_validation_set_are_an_error_before_the_training(
    name: str, recwarn: pytest.WarningsRecorder
) -> None:
    values, column, message = FOREIGN[name]
    frame = pd.DataFrame({"id": [f"u{i}" for i in range(20)], "b": np.arange(20.0)})
    frame["c"] = [f"{i}.5" for i in range(20)]
    frame["day"] = pd.date_range("2020-01-01", periods=20)
    other = frame.assign(**{column: pd.Series(values)})
    model = bx.TabularRegressor(**QUICK, kinds={"c": "number"})
    with pytest.raises(ValueError, match=re.escape(message)):
        model.fit(frame, frame["b"], X_val=other, y_val=frame["b"])
    assert not recwarn.list  # not even that 'id' is left out


@pytest.mark.once
@BOTH
def test_a_fit_checks_its_parameters_once(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, check = list[str](), tabular_parameters.checked

    def counted(value: Any, name: str) -> Any:
        checks.append(name)
        return check(value, name)

    monkeypatch.setattr(tabular_parameters, "checked", counted)
    kind(**SHORT).fit(*given(kind))
    assert len(checks) == len({*checks}) > 20


@pytest.mark.once
def test_few_rows_with_weight_are_enough_for_any_seed() -> None:
    frame, y = given(bx.TabularRegressor)
    weights = np.zeros(120)
    weights[::20] = 1.0
    for seed in range(5):
        model = bx.TabularRegressor("fast", **{**QUICK, "random_state": seed})
        assert model.fit(frame[["a"]], y, weights).model_.record["rows"] == {
            "training": 5,
            "validation": 1,
        }


@pytest.mark.once
def test_a_class_of_weight_0_is_a_class() -> None:
    frame, y = given(bx.TabularClassifier)
    labels = y.where(frame.index % 3 > 0, "maybe")
    model = bx.TabularClassifier(**QUICK).fit(frame, labels, 1.0 * (labels != "maybe"))
    assert model.classes_.tolist() == ["maybe", "no", "yes"]
    assert model.predict_proba(frame)[:, 0].max() < 0.1


@pytest.mark.once
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_weight_counts_in_scalings_as_that_many_rows(scaling: str) -> None:
    draw = np.random.default_rng(3)
    values = draw.normal(50.0, 20.0, (60, 2))
    values[draw.random((60, 2)) < 0.1] = np.nan
    counts = draw.integers(1, 4, 60)
    found = learn_scaling([values], scaling, 0.1 * counts)
    expected = learn_scaling([np.repeat(values, counts, axis=0)], scaling)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)  # sums in another order
    np.testing.assert_allclose(expected.medians, np.nanmedian(np.repeat(values, counts, 0), 0))


@pytest.mark.once
def test_a_filled_spread_is_that_of_filled_values() -> None:
    draw = np.random.default_rng(4)
    values, weights = draw.normal(50.0, 20.0, (60, 3)), draw.uniform(0.5, 2.0, 60)
    values[draw.random((60, 3)) < 0.3] = np.nan
    values[:, 2] = np.nan
    filling = np.asarray([7.0, 500.0, 3.0])
    found = Spread.of(values, weights).filled(filling)
    expected = Spread.of(np.where(np.isnan(values), filling, values), weights)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-9)  # sums in another order


ODD: dict[str, Any] = {
    "a number": lambda i: str(7 * i % 200),
    "a number with units": lambda i: f"${7 * i % 200:,}.50",
    "few numbers": lambda i: str(18 + i % 40),
    "a time": lambda i: f"{i % 24:02d}:{7 * i % 60:02d}",
    "a date": lambda i: f"{pd.Timestamp('2020-01-31') + pd.Timedelta(days=i):%d.%m.%Y}",
    "a compact date": lambda i: f"{pd.Timestamp('2020-01-31') + pd.Timedelta(days=i):%Y%m%d}",
}


@pytest.mark.once
@pytest.mark.parametrize(("name", "preset"), [("a number", "default"), *((n, "fast") for n in ODD)])
def test_a_few_odd_cells_are_missing_values_for_any_seed(
    name: str, preset: str, tmp_path: Path
) -> None:
    cells = pd.Series([ODD[name](i) for i in range(200)])
    odd = cells.where(~cells.index.isin([7, 150]), "unknown")
    frame = pd.DataFrame({"a": odd, "b": np.cos(np.arange(200.0))})
    y, clean = np.arange(200.0), frame.assign(a=cells.where(odd != "unknown"))
    message = r"^the column 'a' has 'unknown' \(row 7\), and 1 more: read as missing.$"
    options = {**QUICK, "max_iter": 1}
    for seed in range(3):
        model = bx.TabularRegressor(preset, **{**options, "random_state": seed})
        with pytest.warns(UserWarning, match=message) as caught:
            model.fit(frame, y)
        assert len(caught) == 1
        expected = clone(model).fit(clean, y)
        np.testing.assert_array_equal(model.theta_, expected.theta_)
        for x in (frame, clean):
            np.testing.assert_array_equal(model.predict(x), expected.predict(clean))
    model.save(tmp_path / "model")
    again = bx.tables.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
    with pytest.raises(ValueError, match=r"'a' has 'n.n.' \(row 3\), but a"):
        model.predict(frame.assign(a=odd.where(frame.index != 3, "n.n.")))


@pytest.mark.once
def test_a_validation_set_and_the_rows_decide_the_kinds_together() -> None:
    days = pd.date_range("2020-01-01", periods=60).strftime("%d/%m/%Y")
    early = pd.DataFrame({"day": days[:12], "a": np.arange(12.0)})  # fits both orders
    late = pd.DataFrame({"day": days[12:], "a": np.arange(12.0, 60.0)})
    model = bx.TabularRegressor(**QUICK)
    model.fit(early, early["a"], X_val=late, y_val=late["a"])
    assert model.model_.features.columns["day"].formats == ("%d/%m/%Y",)
    # One odd cell makes a column of strings of one table, and not of the other.
    odd = late.assign(a=late["a"].astype(str).where(late["a"] != 20.0, "?!"))
    message = r"^the column 'a' has '\?!' \(row 8 of X_val\): read as missing.$"
    for x, other in ((early, odd), (early.assign(a=early["a"].astype(str)), odd)):
        with pytest.warns(UserWarning, match=message):
            model.fit(x, early["a"], X_val=other, y_val=late["a"])
        assert np.isfinite(model.predict(odd)).all()


@pytest.mark.once
@BOTH
def test_a_warning_names_each_column_that_is_left_out_once_for_any_seed(kind: Any) -> None:
    frame, y = given(kind)
    whole = frame.assign(id=[f"u{i}" for i in range(120)], same=1, none=np.nan)
    found = []
    for options in ({}, {"random_state": 1}, {"n_members": 1}, {"n_members": 3, "preset": "best"}):
        with pytest.warns(UserWarning, match="is left out") as caught:
            kind(**{**QUICK, "max_iter": 1, **options}).fit(whole, y)
        found.append([str(one.message) for one in caught])
    assert found == 4 * [
        [
            "'id' is left out: it is an identifier.",
            "'same' is left out: it is the same in all rows.",
            "'none' is left out: it is empty.",
        ]
    ]


@pytest.mark.once
def test_a_training_part_without_any_value_of_a_column_is_no_error() -> None:
    note = pd.Series(np.nan, range(40), dtype=object)
    note[[3, 9]] = ["a broken pump", "a new pump"]
    frame = pd.DataFrame({"note": note, "n": np.nan, "c": None, "a": np.arange(40.0)})
    frame.loc[[3, 9], "n"], frame.loc[[3, 9], "c"] = [1.0, 2.0], ["u", "v"]
    options: dict[str, Any] = {**QUICK, "max_iter": 1, "kinds": {"note": "text", "c": "category"}}
    rest = frame.drop(index=[3, 9])
    model = bx.TabularRegressor(**options).fit(
        rest, rest["a"], X_val=frame.loc[[3, 9]], y_val=[3.0, 9.0]
    )
    assert np.isfinite(model.predict(frame)).all()
    assert bx.tables.Preparation.from_bytes(model.preparation_.to_bytes()).columns_.keys() == {
        *frame
    }


@pytest.mark.once
@BOTH
def test_the_estimators_work_in_scikit_learns_tools(kind: Any) -> None:
    frame, y = given(kind)
    model = kind(**QUICK)
    passing = FunctionTransformer(lambda frame: frame.drop(columns="text"))
    assert len(cross_val_score(make_pipeline(passing, model), frame, y, cv=2)) == 2
    sizes = [{"hidden_layer_sizes": [(4,)]}, {"hidden_layer_sizes": [8]}]
    grid = [{**sizes[0], "preset": ["fast"]}, {**sizes[1], "preset": ["default"]}]
    found = GridSearchCV(model, grid, cv=2).fit(frame, y)
    assert found.best_estimator_.n_features_in_ == 5
    fitted = clone(found.best_estimator_).fit(frame, y)
    np.testing.assert_array_equal(outputs(fitted, frame), outputs(found.best_estimator_, frame))
    importances = permutation_importance(fitted, frame, y, n_repeats=2, random_state=0)
    assert importances["importances"].shape == (5, 2)
    if kind is bx.TabularClassifier:
        calibrated = CalibratedClassifierCV(model, cv=2).fit(frame, y)
        assert calibrated.predict_proba(frame).shape == (120, 2)
    else:
        logarithmic = TransformedTargetRegressor(model, func=np.log1p, inverse_func=np.expm1)
        assert logarithmic.fit(frame, y).predict(frame).shape == (120,)


@pytest.mark.once
def test_a_preparation_is_a_step_of_a_pipeline_with_named_features() -> None:
    frame, y = table()
    pipeline = make_pipeline(bx.tables.Preparation(random_state=0), LogisticRegression())
    assert pipeline.fit(frame, y).score(frame, y) > 0.8
    made = pipeline[0]
    names = made.get_feature_names_out().tolist()
    assert [*names[:3], *names[12:16]] == [
        *("a", "day year", "day month"),
        *("a missing", "city=Bonn", "city=Oslo", "city=Rome"),
    ]
    assert names[-1] == "text 29"
    assert made.transform(frame).shape == (120, len(names))
    framed = clone(made).set_output(transform="pandas").fit_transform(frame)
    assert list(framed) == names
    again = bx.tables.Preparation.from_bytes(made.to_bytes())
    np.testing.assert_array_equal(again.transform(frame), made.transform(frame))
    assert again.columns_.keys() == made.columns_.keys()


def test_robust_scaling_is_the_smoothly_clipped_distance_from_the_median() -> None:
    x = np.asarray([0.0, 1.0, 2.0, 3.0, 4.0, 1e6, np.nan, 2.5])
    frame = pd.DataFrame({"x": x, "flag": [0, 0, 0, 0, 0, 0, 1, 0]})
    found = bx.tables.Preparation(scaling="robust").fit_transform(frame)
    filled = np.where(np.isnan(x), 2.5, x)
    quarters = np.quantile(filled, [0.25, 0.75], method="averaged_inverted_cdf")
    z = (filled - 2.5) / (quarters[1] - quarters[0])
    np.testing.assert_allclose(found[:, 0], z / np.sqrt(1.0 + (z / 3.0) ** 2), rtol=1e-6)
    # A range of 0 between the quarters is replaced by half the whole range.
    np.testing.assert_allclose(found[6, 1], 2.0 / np.sqrt(1.0 + (2.0 / 3.0) ** 2), rtol=1e-6)


def test_a_category_of_many_values_is_a_code_and_comes_last() -> None:
    frame, _ = table()
    made = bx.tables.Preparation(max_one_hot=3).fit(
        frame[["city", "a"]].assign(two=["u", "v"] * 60)
    )
    assert made.get_feature_names_out()[-3:].tolist() == ["two=u", "two=v", "city"]
    new = pd.DataFrame({"city": ["Bonn", "Oslo", "Rome", None, "Wien"], "a": 0.0, "two": "u"})
    assert made.transform(new)[:, -1].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert made.features_.codes == [5]


def test_a_recipe_with_embeddings_and_members_trains_saves_and_loads(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        presets.PRESETS["default"],
        scaling="robust",
        numeric=presets.NumericFeatures(4, 16, 0.5),
        category=presets.CategoryFeatures(above=2, n_out=3),
        n_members=2,
        solver="adamw",
    )
    monkeypatch.setitem(presets.PRESETS, "default", recipe)
    frame, y = given(bx.TabularRegressor)
    model = bx.TabularRegressor(**QUICK).fit(frame, y)
    layers = model.network_.layers[0].layers
    assert [type(layer).__name__ for layer in layers] == ["NumericEmbedding", "Scale", "Embedding"]
    assert (layers[2].codes, model.network_.l2) == ((5,), 0.0)
    assert model.theta_.shape == (2, model.network_.size)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(
        bx.tables.load(tmp_path / "model").predict(frame), model.predict(frame)
    )
    mean, deviation = model.predict(frame, return_std=True)
    np.testing.assert_array_equal(mean, model.predict(frame))
    assert (deviation > 0.0).all()


def _shops(rows: int = 150) -> tuple[pd.DataFrame, pd.Series]:
    """Return a table with 50 shops, of which 25 have one row, and a target."""
    draw = np.random.default_rng(0)
    shop = [f"s{i}" if i < 50 else f"s{25 + i % 25}" for i in range(rows)]
    frame = pd.DataFrame({"shop": shop, "a": draw.normal(size=rows)})
    return frame, pd.Series(frame["shop"].str[1:].astype(int) % 7 + frame["a"])


def _embeddings(model: Any, theta: np.ndarray) -> np.ndarray:
    """Return the table of the codes, ``(n_members, codes, n_out)``."""
    return np.asarray(model.network.unpack(np.atleast_2d(theta))[0][-1])


def test_embeddings_of_codes_start_small() -> None:
    model = bx.TabularRegressor("fast", **SHORT).fit(*_shops())
    first = _embeddings(model.model_, model.network_.initialize(seed=0, backend="numpy"))
    np.testing.assert_allclose(np.std(first), 0.1, rtol=0.1)  # some 350 draws


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_category_without_training_rows_has_the_mean_embedding_of_the_others(
    xp: Any, weighted: bool, members: int
) -> None:
    frame, y = _shops()
    draw = np.random.default_rng(1)
    weight = draw.integers(0, 3, len(y)) * 0.5 if weighted else np.ones(len(y))
    model = bx.TabularRegressor(**SHORT, n_members=members)
    model.fit(frame, y, sample_weight=weight if weighted else None)
    given = model._given(Rows(frame, y, weight).take(np.flatnonzero(weight)), None)
    split = model._split(given, 0)
    rows, at = split.parts["training"]
    learnt = np.arange(len(rows.target))[None] if at is None else at
    values, held_out = model.preparation_.columns_["shop"].values, 0
    for own, table in zip(learnt, _embeddings(model.model_, model.theta_), strict=True):
        each = pd.Series(np.ones(len(own)) if rows.weights is None else rows.weights[own])
        totals = each.groupby(rows.features["shop"].to_numpy()[own]).sum().reindex(values)
        known = (totals > 0.0).to_numpy()
        mean = np.average(table[:-1][known], axis=0, weights=totals[known])
        # The mean is rounded to float32.
        np.testing.assert_allclose(table[-1], mean, rtol=1e-6, atol=1e-7)
        held_out += int((~known).sum())
        for missing in table[:-1][~known]:
            np.testing.assert_allclose(missing, mean, rtol=1e-6, atol=1e-7)
        assert len(np.unique(table[:-1][known], axis=0)) == known.sum()
    assert members == 1 or held_out > 0  # some member holds out all rows of a shop
    new = pd.DataFrame({"shop": ["another", None], "a": 0.5})
    predicted = model.predict(new)
    assert predicted[0] == predicted[1]


def test_a_new_category_is_predicted_as_an_average_one() -> None:
    frame, y = _shops(600)
    y = y * 10.0  # the shops have a deviation of 20
    model = bx.TabularRegressor("fast", **{**QUICK, "max_iter": 30}).fit(frame, y)
    predicted = model.predict(frame.assign(shop="another"))
    # The network is no linear function of the embedding: about a fifth of the deviation is left.
    assert abs(np.mean(predicted) - np.mean(y)) < 4.0


def test_a_code_that_training_rows_have_keeps_what_it_learnt() -> None:
    """Of 200 values or more, those of one row are unknown ones."""
    draw = np.random.default_rng(2)
    names = [f"n{i}" for i in draw.integers(0, 300, 900)]
    frame = pd.DataFrame({"code": names, "a": draw.normal(size=900)})
    model = bx.TabularRegressor("fast", **SHORT)
    found = dict[str, np.ndarray]()

    def keep(state: bx.TrainingState) -> None:
        assert state.best is not None
        found["theta"] = np.array(bx.to_host(state.best.theta))

    model.fit(frame, frame["a"], callbacks=[keep])
    assert 200 <= model.network_.codes[-1] < 300
    np.testing.assert_array_equal(model.theta_, found["theta"])


@pytest.mark.long
def test_the_file_of_an_interrupted_training_has_mean_embeddings_too(
    xp: Any, tmp_path: Path
) -> None:
    def press(state: bx.TrainingState) -> None:
        if state.epoch == 3:
            raise KeyboardInterrupt

    (frame, y), path = _shops(), tmp_path / "model"
    model = bx.TabularRegressor(**SHORT, n_members=2)
    with pytest.raises(KeyboardInterrupt):
        model.fit(frame, y, checkpoint=path, callbacks=[press])
    begun, state = model_file.read_model(path)
    assert state is not None
    assert state.best is not None
    trained, raw = (_embeddings(begun, theta) for theta in (begun.theta, state.best.theta))
    for one, best in zip(trained, raw, strict=True):
        changed = (one != best).any(axis=-1)
        assert changed[-1]
        assert len(np.unique(one[changed], axis=0)) == 1
    model.fit(frame, y, checkpoint=path, resume=True)
    np.testing.assert_array_equal(model.theta_, clone(model).fit(frame, y).theta_)
    np.testing.assert_array_equal(bx.tables.load(path).theta_, model.theta_)


@BOTH
def test_a_loaded_estimator_predicts_the_same(xp: Any, tmp_path: Path, kind: Any) -> None:
    frame, y = given(kind)
    model = kind(**QUICK, metric="accuracy" if kind is bx.TabularClassifier else "mae")
    model.fit(frame, y, metadata={"note": "today's"}).save(tmp_path / "model")
    for again in (kind.load(tmp_path / "model"), bx.tables.load(tmp_path / "model")):
        np.testing.assert_array_equal(outputs(again, frame), outputs(model, frame))
        assert again.get_params() == model.get_params()
        assert (again.n_iter_, again.best_iter_) == (model.n_iter_, model.best_iter_)
        assert again.validation_score_ == model.validation_score_
        assert again.history_.keys() == model.history_.keys()
        assert again.metadata_ == {"note": "today's"}
        assert again.model_.target == y.name
        np.testing.assert_array_equal(again.feature_names_in_, model.feature_names_in_)
    pickled = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(outputs(pickled, frame), outputs(model, frame))
    other = bx.TabularRegressor if kind is bx.TabularClassifier else bx.TabularClassifier
    with pytest.raises(bx.CheckpointError, match=f"its task is {model.model_.task}, not"):
        other.load(tmp_path / "model")


@pytest.mark.once
@pytest.mark.parametrize(
    "labels",
    [["b", "a"], [True, False], [7, -3], [3, 1, 2], ["1", "01", "x"]],
    ids=str,
)
def test_labels_of_any_type_come_back(tmp_path: Path, labels: list[Any]) -> None:
    frame, _ = table()
    y = np.asarray([labels[i % len(labels)] for i in range(120)])
    model = bx.TabularClassifier(**QUICK).fit(frame, y)
    model.save(tmp_path / "model")
    for one in (model, bx.tables.load(tmp_path / "model")):
        assert one.classes_.tolist() == sorted(labels)
        assert {*one.predict(frame).tolist()} <= {*labels}
        np.testing.assert_allclose(one.predict_proba(frame).sum(axis=1), 1.0, rtol=1e-12)


@pytest.mark.once
def test_frames_of_polars_and_arrow_and_pandas_train_alike() -> None:
    polars, pyarrow = pytest.importorskip("polars"), pytest.importorskip("pyarrow")
    frame, y = table()
    frames = [frame, polars.from_pandas(frame), pyarrow.Table.from_pandas(frame)]
    targets = [y, polars.Series("y", y.tolist()), pyarrow.array(y.tolist())]
    models = [
        bx.TabularClassifier(**QUICK).fit(x, labels)
        for x, labels in zip(frames, targets, strict=True)
    ]
    for model, x in zip(models, frames, strict=True):
        np.testing.assert_array_equal(model.theta_, models[0].theta_)
        np.testing.assert_array_equal(model.predict(x), models[0].predict(frame))
    assert models[1].feature_names_in_.tolist() == list(frame)


@pytest.mark.once
def test_an_array_has_the_columns_of_the_training_in_their_order() -> None:
    frame, y = given(bx.TabularRegressor)
    frame = frame[["a", "city"]]
    model = bx.TabularRegressor(**QUICK).fit(frame, y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        found = model.predict(frame.to_numpy(dtype=object))
    np.testing.assert_array_equal(found, model.predict(frame))
    of_array = bx.TabularRegressor(**QUICK).fit(frame.to_numpy(dtype=object), y)
    np.testing.assert_array_equal(of_array.theta_, model.theta_)
    assert of_array.preparation_.get_feature_names_out()[0] == "x0"


@pytest.mark.once
@BOTH
def test_columns_without_names_are_those_of_an_array_in_their_order(
    kind: Any, tmp_path: Path
) -> None:
    x, y = np.random.default_rng(0).normal(size=(120, 3)), given(kind)[1]
    frame, strings = pd.DataFrame(x, columns=[7, 8, 9]), pd.DataFrame(x, columns=["u", "v", "w"])
    models = [kind(**QUICK).fit(one, y) for one in (x, frame)]
    models += [kind(**QUICK).fit(x[:100], y[:100], X_val=frame[100:], y_val=y[100:])]
    models += [kind(**QUICK).fit(frame[:100], y[:100], X_val=x[100:], y_val=y[100:])]
    models[1].save(tmp_path / "model")
    for model in (*models, bx.tables.load(tmp_path / "model")):
        assert not hasattr(model, "feature_names_in_")
        for one in (x, frame, frame.set_axis(range(3), axis=1)):
            np.testing.assert_array_equal(outputs(model, one), outputs(model, x))
        with pytest.warns(UserWarning, match="X has feature names, but"):
            np.testing.assert_array_equal(outputs(model, strings), outputs(model, x))
        found = [model.preparation_.transform(one) for one in (x, frame)]
        np.testing.assert_array_equal(*found)
    np.testing.assert_array_equal(models[1].theta_, models[0].theta_)
    np.testing.assert_array_equal(models[3].theta_, models[2].theta_)
    with pytest.raises(ValueError, match="X has 2 features, but"):
        models[0].predict(x[:, :2])


@pytest.mark.once
@pytest.mark.parametrize("preset", ["fast", "best"])
def test_the_preparation_of_a_model_has_the_parameters_that_make_it_again(
    preset: str, tmp_path: Path
) -> None:
    draw, (frame, y) = np.random.default_rng(0), table(300)
    frame = frame.assign(code=draw.choice([f"v{i}" for i in range(25)], 300))
    rows = {"X": frame[:250], "y": y[:250], "X_val": frame[250:], "y_val": y[250:]}
    chosen = {"city": "text"}
    model = bx.TabularClassifier(preset, **QUICK, kinds=chosen).fit(**rows)
    model.save(tmp_path / "model")
    parameters = {"scaling": "robust", "max_one_hot": 20, "random_state": 0, "kinds": chosen}
    for made in (model.preparation_, bx.tables.load(tmp_path / "model").preparation_):
        assert made.get_params() == parameters
        again = clone(made).fit(frame[:250])
        np.testing.assert_array_equal(again.transform(frame), made.transform(frame))
        read = bx.tables.Preparation.from_bytes(made.to_bytes())
        assert read.scaling == "robust"


@pytest.mark.once
def test_features_of_one_name_are_numbered() -> None:
    frame = pd.DataFrame(
        {
            "age": [1.0, np.nan, 3.0, 4.0] * 10,
            "age missing": np.arange(40.0),
            "age missing.1": np.arange(40.0) % 7,
            "c": ["a", "missing", None, "b"] * 10,
            "c=a": np.arange(40.0) % 9,
        }
    )
    made = bx.tables.Preparation().set_output(transform="pandas").fit(frame)
    assert made.get_feature_names_out().tolist() == [
        *("age", "age missing", "age missing.1", "c=a", "age missing.2"),
        *("c=a.1", "c=b", "c=missing", "c=missing.1"),
    ]
    assert made.transform(frame)["c=missing.1"].tolist() == [0.0, 0.0, 1.0, 0.0] * 10


EQUAL: dict[str, tuple[Any, Any]] = {
    "hidden_layer_sizes": (np.array([8, 4]), (8, 4)),
    "dtype": (np.float64, "float64"),
    "verbose": (1, True),
    "n_members": (np.int32(2), 2),
    "dropout": (np.float32(0.5), 0.5),
}


@pytest.mark.once
def test_parameters_of_numpy_and_scikit_learn_are_accepted(tmp_path: Path) -> None:
    given = [{name: values[i] for name, values in EQUAL.items()} for i in (0, 1)]
    models = [clone(bx.TabularClassifier(**{**QUICK, **each})).fit(*table()) for each in given]
    np.testing.assert_array_equal(models[1].theta_, models[0].theta_)
    models[0].save(tmp_path / "model")
    again = bx.tables.load(tmp_path / "model").get_params()
    assert {name: again[name] for name in EQUAL} == {**given[1], "verbose": False}


@pytest.mark.once
def test_targets_are_standardized_by_the_weighted_training_rows() -> None:
    frame, y = given(bx.TabularRegressor)
    weights = np.linspace(0.1, 1.0, 120)
    model = bx.TabularRegressor(**QUICK).fit(
        frame[:100], y[:100], weights[:100], X_val=frame[100:], y_val=y[100:]
    )
    mean = np.average(y[:100], weights=weights[:100])
    deviation = np.sqrt(np.average((y[:100] - mean) ** 2, weights=weights[:100]))
    assert model.model_.scale == pytest.approx((mean, deviation), rel=1e-12)
    assert model.model_.record["rows"] == {"training": 100, "validation": 20}
    # The medians of numbers, too: half of the weight is below that of ``a``.
    a = frame["a"][:100].dropna()
    below = weights[a.index][a < model.model_.features.scaling.medians[0]].sum()
    assert 0.0 <= weights[a.index].sum() / 2.0 - below <= 1.0
    assert model.model_.features.scaling.medians[0] != a.median()


@pytest.mark.once
def test_targets_whose_squares_vanish_are_an_error_unless_they_are_equal() -> None:
    frame, y = given(bx.TabularRegressor)
    for factor in (1e-170, 1e-160, 5e-324):
        with pytest.raises(ValueError, match="y varies too little for a float64: multiply it"):
            bx.TabularRegressor(**QUICK).fit(frame, y * factor)
    with pytest.raises(ValueError, match="y varies too much for a float64: divide it"):
        bx.TabularRegressor(**QUICK).fit(frame, y * 1e160)
    model = bx.TabularRegressor(**QUICK).fit(frame, 0.0 * y + 1e-170)
    np.testing.assert_allclose(model.predict(frame), 1e-170, atol=0.1)


@pytest.mark.once
def test_a_weight_too_small_for_float32_counts_as_0() -> None:
    frame, y = given(bx.TabularRegressor)
    held_out, weights = {"X_val": frame[100:], "y_val": y[100:]}, np.ones(100)
    models = []
    for small in (0.0, 1e-300):
        weights[1:] = small
        model = bx.TabularRegressor(**QUICK).fit(frame[:100], y[:100], weights, **held_out)
        models.append(outputs(model, frame))
        assert np.isfinite(models[-1]).all()
    np.testing.assert_array_equal(*models)


@pytest.mark.once
def test_predict_log_proba_is_the_logarithm_of_the_probabilities() -> None:
    frame, y = table()
    model = bx.TabularClassifier(**QUICK).fit(frame, y)
    expected = model.predict_proba(frame)
    np.testing.assert_allclose(np.exp(model.predict_log_proba(frame)), expected, rtol=1e-12)


@pytest.mark.once
def test_the_metric_chooses_the_epoch() -> None:
    frame, y = table()
    for metric, choose in (("roc_auc", np.argmax), ("log_loss", np.argmin)):
        options = {**QUICK, "max_iter": 40, "n_iter_no_change": 40}
        model = bx.TabularClassifier(**options, metric=metric).fit(frame, y)
        values = model.history_[metric]
        best = choose(values, axis=0)
        assert model.best_iter_ == (best + 1).tolist()
        assert model.validation_score_ == pytest.approx(values[best, range(4)].tolist())


@pytest.mark.once
@BOTH
def test_a_relation_is_learnt(kind: Any) -> None:
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"a": draw.normal(size=600), "b": draw.choice(["u", "v"], 600)})
    y = frame["a"] * np.where(frame["b"] == "u", 1.0, -1.0)
    y = y > 0.0 if kind is bx.TabularClassifier else 1e6 + y
    assert kind("fast", random_state=0).fit(frame, y).score(frame, y) > 0.95


@pytest.mark.once
def test_booleans_are_strings_where_the_training_had_strings() -> None:
    frame = pd.DataFrame({"flag": ["True", "False", "maybe"] * 20, "a": np.arange(60.0)})
    model = bx.TabularClassifier(**QUICK).fit(frame, [0, 1, 2] * 20)
    new = pd.DataFrame({"flag": [True, None], "a": [3.0, 4.0]})
    expected = model.predict_proba(new.assign(flag=["True", None]))
    np.testing.assert_array_equal(model.predict_proba(new), expected)
    made = bx.tables.Preparation().fit(frame)
    assert made.transform(new)[:, 1:].sum(axis=1).tolist() == [1.0, 0.0]


@pytest.mark.once
def test_each_member_has_its_own_order_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(network: bx.Network, shares: Any, seed: int, n_members: int, choice: Any) -> Any:
        theta = network.initialize(seed, backend="numpy", dtype="float32")
        return np.stack([theta] * n_members)

    monkeypatch.setattr(model_training, "first_theta", same)
    frame, y = table()
    model = bx.TabularClassifier(**QUICK, n_members=3, backend="numpy")
    model.fit(frame, y, X_val=frame, y_val=y)  # all members learn from all rows
    assert model.model_.record["recipe"]["batch_size"] < len(y)
    assert len({*map(bytes, model.theta_)}) == 3


@pytest.mark.once
@pytest.mark.parametrize("class_weight", [None, "balanced", {"no": 1.0, "yes": 5.0}])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_first_biases_are_the_shares_of_the_classes_by_both_weights(
    n_classes: int, class_weight: Any
) -> None:
    frame, y = table()
    if n_classes > 2:
        y = y.where(frame.index % 5 > 0, "maybe")
    weights = np.linspace(0.2, 1.0, 120)
    options: dict[str, Any] = {**SHORT, "class_weight": class_weight, "learning_rate_init": 1e-30}
    model = bx.TabularClassifier(**options, n_members=1)
    model.fit(frame, y, weights, X_val=frame, y_val=y)
    totals = pd.Series(weights).groupby(y).sum()
    if class_weight == "balanced":
        totals[:] = 1.0
    elif class_weight is not None:
        totals *= totals.index.map({"maybe": 1.0, **class_weight})
    expected = np.log(totals / totals.sum()).to_numpy()
    expected = expected if n_classes > 2 else expected[1:] - expected[:1]
    bias = bx.to_host(model.network_.unpack(model.theta_)[-1][1])[0]
    # A rounding of float32, and the share that a class without weight would have.
    np.testing.assert_allclose(bias, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.once
def test_members_are_independent_and_averaged() -> None:
    frame, y = given(bx.TabularRegressor)
    model = bx.TabularRegressor(**QUICK, n_members=3).fit(frame, y)
    features = model.preparation_.transform(frame)
    each = [bx.to_host(model.network_.predict(theta, features))[:, 0] for theta in model.theta_]
    scale = model.model_.scale
    expected = np.mean(each, axis=0) * scale.scale + scale.mean
    np.testing.assert_allclose(model.predict(frame), expected, rtol=1e-5)
    assert len({*map(tuple, each)}) == 3


@pytest.mark.long
@pytest.mark.parametrize("random_state", [0, None])
def test_an_interrupted_fit_resumes_to_the_same_theta(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_state: int | None
) -> None:
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    (frame, y), path, states = table(), tmp_path / "model", list[int]()
    model = bx.TabularClassifier(**{**QUICK, "random_state": random_state}, dropout=0.1)

    def press(state: bx.TrainingState) -> None:
        states.append(state.epoch)
        if state.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        model.fit(frame, y, checkpoint=path, callbacks=[press])
    assert caught.value.__notes__[0].startswith(f"interrupted in epoch 6: {path} has the best")
    assert not hasattr(model, "model_")
    assert bx.tables.load(path).predict(frame).shape == (120,)
    seed = bx.tables.load(path).model_.record["seed"]
    model.fit(frame, y, checkpoint=path, resume=True)
    whole = clone(model).set_params(random_state=seed).fit(frame, y)
    np.testing.assert_array_equal(model.theta_, whole.theta_)
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(model.history_[name], values)
    finished = clone(model).fit(frame, y, checkpoint=path, resume=True, callbacks=[press])
    np.testing.assert_array_equal(finished.theta_, model.theta_)
    assert states == [1, 2, 3, 4, 5]


@BOTH
def test_ctrl_c_without_a_checkpoint_keeps_the_best_network_so_far(xp: Any, kind: Any) -> None:
    def press(state: bx.TrainingState) -> None:
        if state.epoch == 5:
            raise KeyboardInterrupt

    rows, options = given(kind), {**QUICK, "learning_rate": "constant"}
    with pytest.warns(UserWarning, match=r"^Training interrupted by user\."):
        model = kind(**options).fit(*rows, callbacks=[press])
    whole = kind(**{**options, "max_iter": 5}).fit(*rows)
    assert model.n_iter_ == len(model.history_["loss"]) == 5
    assert model.best_iter_ == whole.best_iter_
    np.testing.assert_array_equal(model.theta_, whole.theta_)
    if kind is bx.TabularRegressor:
        np.testing.assert_array_equal(
            model.predict_interval(rows[0], 0.5), whole.predict_interval(rows[0], 0.5)
        )


def test_the_schedule_plateau_lowers_the_rate(xp: Any) -> None:
    # No update is large enough to change a float32: the loss stays.
    options = {"learning_rate": "plateau", "learning_rate_init": 1e-30, "n_iter_no_change": 12}
    factors = list[float]()
    model = bx.TabularClassifier(**{**QUICK, **options, "max_iter": 12})
    model.fit(*table(), callbacks=[lambda state: factors.append(np.min(state.slowed.factor))])
    assert factors[0] == 1.0
    assert factors[-1] < 0.1


def test_a_fit_that_ended_at_its_last_epoch_resumes_with_a_larger_max_iter(
    xp: Any, tmp_path: Path
) -> None:
    (frame, y), path = table(), tmp_path / "model"
    options = {**QUICK, "learning_rate": "constant", "n_iter_no_change": 20}
    model = bx.TabularClassifier(**{**options, "max_iter": 3})
    model.fit(frame, y, checkpoint=path, metadata={"of": "today"})
    model.set_params(max_iter=6).fit(frame, y, checkpoint=path, resume=True)
    whole = clone(model).fit(frame, y)
    assert model.n_iter_ == 6
    assert model.metadata_ == {}
    np.testing.assert_array_equal(model.theta_, whole.theta_)
    np.testing.assert_array_equal(bx.tables.load(path).theta_, whole.theta_)
    with pytest.raises(ValueError, match="max_iter is 5, but the file's training has 6"):
        clone(model).set_params(max_iter=5).fit(frame, y, checkpoint=path, resume=True)


@pytest.mark.once
@pytest.mark.parametrize("scaling", SCALINGS)
def test_slopes_of_scaled_numbers_are_those_of_their_transformation(scaling: str) -> None:
    values = np.random.default_rng(2).normal(50.0, 20.0, (60, 2))
    learnt = learn_scaling([values], scaling)
    values[0], values[1] = 1e6, np.nan  # beyond the limit, and missing
    ahead, behind = (learnt.transform(values + step)[0] for step in (1e-3, -1e-3))
    expected = (ahead - behind) / 2e-3
    expected[1] = np.nan
    # A difference over such a step, of numbers of about 1.
    np.testing.assert_allclose(learnt.slopes(values), expected, rtol=1e-7, atol=1e-9)


@pytest.mark.once
@pytest.mark.parametrize("n_members", [1, 3])
def test_input_gradient_is_the_slope_of_predict_by_each_number(n_members: int) -> None:
    draw = np.random.default_rng(3)
    table = pd.DataFrame(
        {
            "city": draw.choice(["Rome", "Oslo", "Bern"], 120),
            "age": draw.uniform(20.0, 70.0, 120),
            "day": pd.date_range("2024-01-01", periods=120),
            "size": 1e4 * draw.lognormal(size=120),
        }
    )
    y = 100.0 * np.sin(table["age"] / 10.0) + 1e-2 * table["size"]
    table.loc[5, "age"] = np.nan
    options = {"activation": "silu", "max_iter": 20, "n_members": n_members, "random_state": 0}
    model = bx.TabularRegressor(**options).fit(table, y)
    found = model.input_gradient(table)
    assert [*found.columns] == ["age", "size"]
    named = table.set_axis([f"row {i}" for i in range(len(table))], axis=0)
    assert model.input_gradient(named).index.equals(named.index)
    assert np.isnan(found.loc[5, "age"])
    assert np.isnan(model.input_gradient(table.head(3).assign(size=1e300))["size"]).all()
    for name, step in (("age", 0.2), ("size", 100.0)):
        ahead, behind = (table.assign(**{name: table[name] + sign * step}) for sign in (1, -1))
        slopes = (model.predict(ahead) - model.predict(behind)) / (2.0 * step)
        known = table[name].notna()
        difference = np.abs(found[name] - slopes)[known]
        # Of float32, and of the third derivative over such a step.
        assert np.median(difference) < 2e-2 * np.abs(slopes[known]).max()


@pytest.mark.once
@pytest.mark.parametrize("n_classes", [2, 3])
def test_input_gradient_of_a_classifier_has_each_class_by_each_number(n_classes: int) -> None:
    frame, target = given(bx.TabularRegressor)
    frame["size"] = 1e3 * target + np.random.default_rng(1).normal(size=len(frame))
    ranks = np.digitize(target, np.quantile(target, np.arange(1, n_classes) / n_classes))
    options: Any = {"activation": "silu", "max_iter": 5, "n_members": 2, "random_state": 0}
    model = bx.TabularClassifier(**options).fit(frame, np.array(["low", "middle", "top"])[ranks])
    found = model.input_gradient(frame)
    assert [*found.columns] == [(label, name) for label in model.classes_ for name in ("a", "size")]
    assert [*found[model.classes_[0]].columns] == ["a", "size"]
    for name in ("a", "size"):
        step = 1e-2 * frame[name].std()
        ahead, behind = (frame.assign(**{name: frame[name] + sign * step}) for sign in (1, -1))
        slopes = (model.predict_proba(ahead) - model.predict_proba(behind)) / (2.0 * step)
        each, known = found.xs(name, axis=1, level="column").to_numpy(), frame[name].notna()
        # Of float32, and of the third derivative over such a step.
        largest = np.abs(slopes[known]).max()
        assert np.median(np.abs(each - slopes)[known]) < 2e-2 * largest
        # Probabilities add up to 1, and these sums are in float64.
        assert np.abs(each[known].sum(axis=1)).max() < 1e-12 * largest
        assert np.isnan(each[~known]).all()


@pytest.mark.once
def test_intervals_are_the_errors_of_the_validation_rows_and_survive_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    (frame, y), path = given(bx.TabularRegressor), tmp_path / "model"
    rows = {"X": frame[:80], "y": y[:80], "X_val": frame[80:], "y_val": y[80:]}
    model = bx.TabularRegressor(**QUICK).fit(**rows)
    errors = np.sort(np.abs(y[80:] - model.predict(frame[80:])))
    low, high = model.predict_interval(frame, coverage=0.8)
    np.testing.assert_allclose((low + high) / 2.0, model.predict(frame))
    np.testing.assert_allclose((high - low) / 2.0, errors[33 - 1])  # 0.8 * 41, rounded up

    for moment in (5, QUICK["max_iter"]):  # the last epoch, too: the residuals follow it

        def press(state: bx.TrainingState, moment: int = moment) -> None:
            if state.epoch == moment:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            clone(model).fit(**rows, checkpoint=path, callbacks=[press])
        with pytest.raises(ValueError, match="the training was interrupted: resume it"):
            bx.tables.load(path).predict_interval(frame)
    again = clone(model).fit(**rows, checkpoint=path, resume=True)
    for one in (
        again,
        bx.tables.load(path),
        clone(model).fit(**rows, checkpoint=path, resume=True),
    ):
        np.testing.assert_array_equal(one.model_.residuals, model.model_.residuals)
        np.testing.assert_array_equal(one.predict_interval(frame, 0.8)[0], low)
    weights = np.r_[np.zeros(30), np.linspace(1.0, 2.0, 10)]
    weighted = clone(model).fit(**rows, sample_weight_val=weights)
    with pytest.raises(ValueError, match=r"0\.95 need 19 validation rows, but the training had 10"):
        weighted.predict_interval(frame, 0.95)
    # All rows of the validation set: the last bits of a prediction depend on their number.
    errors = np.abs(y[80:] - weighted.predict(frame[80:]))
    low, high = weighted.predict_interval(frame[:1], coverage=0.5)
    share = weights[errors <= (high - low)[0] / 2.0 + 1e-9].sum() / weights.sum()
    assert 0.55 <= share < 0.7  # 0.5 * 11 / 10, and at most a row more


@pytest.mark.once
def test_intervals_of_exchangeable_rows_have_their_coverage() -> None:
    frame, y = given(bx.TabularRegressor)
    model = bx.TabularRegressor(**{**QUICK, "max_iter": 1}).fit(frame, y).model_
    draw, trials = np.random.default_rng(0), 2000
    for n, coverage in ((4, 0.7), (9, 0.9), (50, 0.8), (200, 0.95)):
        *errors, new = draw.exponential(size=(n + 1, trials))
        rows = np.stack([np.stack(errors, axis=1), np.ones((trials, n))], axis=2)
        widths = [dataclasses.replace(model, residuals=each).half_width(coverage) for each in rows]
        expected = np.ceil((n + 1) * coverage - 1e-9) / (n + 1)
        noise = np.sqrt(expected * (1.0 - expected) / trials)
        assert np.mean(new <= widths) == pytest.approx(expected, abs=3.5 * noise)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a fit."""
    path = tmp_path_factory.mktemp("fitted") / "model"
    with bx.use_backend("numpy"):
        bx.TabularClassifier(**QUICK).fit(*table(), checkpoint=path)
    return path.read_bytes()


@pytest.mark.once
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"max_iter": 11}, "max_iter is 11, but the file's training has 12"),
        ({"class_weight": "balanced"}, "class_weight is balanced, but the file's training has not"),
        ({"validation_fraction": 0.2}, "validation_fraction is 0.2, but"),
        (
            {"kinds": {"a": "category"}},
            "kinds is a=category, but the file's training has not",
        ),
        ({"X": table()[0].drop(columns="a")}, "its training had other training data"),
        ({"y": table()[1].rename("z")}, "target is z, but the file's training has y"),
        ({"y": table()[1].replace("no", "not")}, "classes is not,yes, but"),
        ({"sample_weight": np.ones(120)}, "its training had other training data"),
        ({"kind": bx.TabularRegressor}, "task is regression, but"),
    ],
    ids=str,
)
def test_another_fit_is_not_resumed(
    fitted: bytes, tmp_path: Path, changed: Any, message: str
) -> None:
    (frame, y), path = table(), tmp_path / "model"
    path.write_bytes(fitted)
    rows = {"X": frame, "y": y, "sample_weight": None}
    kind = changed.get("kind", bx.TabularClassifier)
    if kind is bx.TabularRegressor:
        rows["y"] = pd.Series(np.arange(120.0), name="y")
    rows |= {name: value for name, value in changed.items() if name in rows}
    parameters = {name: value for name, value in changed.items() if name not in (*rows, "kind")}
    with pytest.raises(ValueError, match=f"cannot be resumed: {message}"):
        kind(**{**QUICK, **parameters}).fit(**rows, checkpoint=path, resume=True)


@pytest.mark.once
def test_other_validation_rows_are_not_resumed(tmp_path: Path) -> None:
    (frame, y), path = table(), tmp_path / "model"
    model = bx.TabularClassifier(**QUICK)
    model.fit(frame[:100], y[:100], X_val=frame[100:], y_val=y[100:], checkpoint=path)
    options = {"X_val": frame[90:], "y_val": y[90:], "checkpoint": path, "resume": True}
    with pytest.raises(ValueError, match="its training had other validation data"):
        model.fit(frame[:100], y[:100], **options)


@pytest.mark.once
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"activation": "rellu"}, "activation 'rellu' is unknown. Did you mean 'relu'"),
        ({"solver": bx.Adam()}, "solver must be one of adagrad, .*, not Adam"),
        ({"learning_rate": "cosin"}, "Did you mean 'cosine'"),
        ({"class_weight": "even"}, "class_weight 'even' is unknown. Known: balanced"),
        ({"class_weight": {"maybe": 2.0}}, r"class_weight has \['maybe'\], but the classes are"),
        ({"layer_norm": "no"}, "layer_norm must be True or False, not 'no'"),
        ({"hidden_layer_sizes": (0,)}, r"hidden_layer_sizes\[0\] must be an integer of at least 1"),
        ({"max_iter": 0}, "max_iter must be an integer of at least 1"),
        ({"preset": "bset"}, "Did you mean 'best'"),
        ({"metric": "rmse"}, "metric 'rmse' is unknown"),
        ({"dtype": "float16"}, "dtype 'float16' is unknown"),
        ({"dtype": np.float16}, "dtype must be one of float32, float64, not <class 'numpy.float16"),
        ({"verbose": "yes"}, "verbose must be True or False, not 'yes'"),
        ({"verbose": -1}, "verbose must be an integer of at least 0, not -1"),
        ({"random_state": -1}, "random_state must be an integer of at least 0"),
    ],
    ids=str,
)
def test_impossible_parameters_are_an_error_in_fit(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        bx.TabularClassifier(**wrong).fit(*table())


@pytest.mark.once
def test_impossible_data_are_an_error() -> None:
    frame, y = table()
    model = bx.TabularClassifier(**QUICK)
    with pytest.raises(ValueError, match=r"y has a missing value \(row 3\)"):
        model.fit(frame, y.where(y.index != 3))
    with pytest.raises(ValueError, match="y has one class, 'yes'"):
        model.fit(frame, ["yes"] * 120)
    with pytest.raises(ValueError, match="y_val has a class 'perhaps' that y does not have"):
        model.fit(frame, y, X_val=frame, y_val=["perhaps"] * 120)
    with pytest.raises(ValueError, match="belong to a validation set"):
        model.fit(frame, y, y_val=y)
    with pytest.raises(ValueError, match="at least one non-zero number"):
        model.fit(frame, y, np.zeros(120))
    with pytest.raises(ValueError, match="y holds 'yes', but a regressor needs numbers"):
        bx.TabularRegressor(**QUICK).fit(frame, y[::-1].replace("no", "yes"))
    model.fit(frame, y)
    with pytest.raises(ValueError, match=r"'a' has 'abc' \(row 0\), but a number is expected"):
        model.predict(frame.assign(a="abc"))
    with pytest.raises(ValueError, match="The feature names should match"):
        model.predict(frame.drop(columns="a"))
    alone = bx.TabularRegressor(**QUICK, n_members=1).fit(*given(bx.TabularRegressor))
    with pytest.raises(ValueError, match="return_std needs several members"):
        alone.predict(frame, return_std=True)


DAYS = pd.Series(pd.date_range("2020-01-01", periods=2).repeat(60))
DATES: dict[str, Any] = {
    "dates": DAYS,
    "a missing date": DAYS.where(DAYS.index != 3),
    "timedeltas": DAYS - DAYS[0],
    "dates of a zone": DAYS.dt.tz_localize("Asia/Tokyo"),
    "Python's dates": DAYS.dt.date,
    "periods": DAYS.dt.to_period("D"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", DATES)
@BOTH
def test_dates_are_no_targets_and_the_error_has_the_way_out(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match=r"y holds dates or times: convert them to numbers, such"):
        kind(**QUICK).fit(table()[0], DATES[name])


@pytest.mark.once
def test_errors_have_values_without_the_names_of_their_types() -> None:
    frame, flags = table()[0], np.arange(120) % 2
    model = bx.TabularClassifier(**QUICK)
    with pytest.raises(ValueError, match="y has one class, 1: a classifier"):
        model.fit(frame, np.ones(120, dtype=int))
    with pytest.raises(ValueError, match="y_val has a class 7 that"):
        model.fit(frame, flags, X_val=frame, y_val=np.full(120, 7))
    with pytest.raises(ValueError, match=r"class_weight has \[5\], but the classes are \[0, 1\]"):
        clone(model).set_params(class_weight={np.int64(5): 2.0}).fit(frame, flags)
    with pytest.raises(TypeError, match=r"max_iter must be .*, not 0\.5 \(float64\)"):
        clone(model).set_params(max_iter=np.float64(0.5)).fit(frame, flags)
    with pytest.raises(TypeError, match=r"dropout must be a number, not True \(bool\)"):
        clone(model).set_params(dropout=np.True_).fit(frame, flags)
    with pytest.raises(ValueError, match="y holds 'x', but a regressor needs numbers"):
        bx.TabularRegressor(**QUICK).fit(frame, np.asarray([1, "x"] * 60, dtype=object))
    made = bx.tables.Preparation(random_state=0).fit(frame)
    with pytest.raises(ValueError, match=r"'when' has 3\.5 \(row 0\), but a date.* is expected"):
        made.transform(frame.assign(when=3.5))


@pytest.mark.once
@pytest.mark.parametrize("values", [(False, True), (3, 5), ("no", "yes")])
def test_targets_may_be_objects_of_one_type(values: tuple[Any, Any]) -> None:
    frame, y = table()
    typed = pd.Series(values)[(y == "yes").astype(int)].to_numpy()
    objects = pd.Series(typed, dtype=object)
    expected = bx.TabularClassifier(**QUICK).fit(frame, typed)
    model = bx.TabularClassifier(**QUICK).fit(frame, objects, X_val=frame, y_val=objects)
    assert model.classes_.tolist() == [*values]
    assert {*map(type, model.predict(frame).tolist())} == {type(values[0])}
    found = bx.TabularClassifier(**QUICK).fit(frame, objects)
    np.testing.assert_array_equal(found.predict_proba(frame), expected.predict_proba(frame))


@pytest.mark.once
def test_a_fit_that_fails_leaves_the_estimator_as_it_was() -> None:
    frame, y = table()
    model = bx.TabularClassifier(**QUICK).fit(frame, y)
    before = model.predict_proba(frame)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lower learning_rate_init"):
        model.set_params(learning_rate_init=1e30, solver="sgd").fit(frame[["a", "city"]], y)
    np.testing.assert_array_equal(model.predict_proba(frame), before)


def test_a_file_of_a_network_or_of_an_earlier_version_is_an_error(xp: Any, tmp_path: Path) -> None:
    network = bx.mlp([2, 1])
    bx.save(tmp_path / "network", network, xp.initialize(network))
    with pytest.raises(
        bx.CheckpointError, match=r"no model of a table: bx\.load reads its network\.$"
    ):
        bx.tables.load(tmp_path / "network")
    part = {"name": "tabular model", "features": np.zeros(9, dtype="uint8")}
    old = checkpoint.Checkpoint(network, xp.initialize(network), estimator=part)
    checkpoint.write_checked(tmp_path / "old", old)
    with pytest.raises(bx.CheckpointError, match="old: an earlier version wrote it: train again"):
        bx.tables.load(tmp_path / "old")


@pytest.mark.once
def test_a_file_with_another_record_is_an_error(tmp_path: Path) -> None:
    (frame, y), path = table(), tmp_path / "model"
    fitted = bx.TabularClassifier(**QUICK).fit(frame, y).model_
    record = {**fitted.record}
    more = {**record["parameters"], "novel": 1}
    sizes = {**record["parameters"], "hidden_layer_sizes": (1,) * 200_000}
    for wrong, message in (
        ({"seed": None}, "it lacks 'seed'"),
        ({"seed": "x"}, "its record has 'x' as 'seed'"),
        ({"decimal": ";"}, "its decimal sign is ';'"),
        ({"decimal": ["."]}, r"its decimal sign is \['\.'\]"),
        ({"parameters": more}, "novel"),
        ({"parameters": sizes}, r"hidden_layer_sizes are not those of the network, \[8\]"),
    ):
        changed = {name: v for name, v in {**record, **wrong}.items() if v is not None}
        model_file.write_model(path, dataclasses.replace(fitted, record=changed))
        with pytest.raises(bx.CheckpointError, match=message):
            bx.tables.load(path)
    fewer = {name: v for name, v in record["parameters"].items() if name != "dtype"}
    changed = {**record, "parameters": fewer}
    model_file.write_model(path, dataclasses.replace(fitted, record=changed))
    with pytest.raises(ValueError, match="dtype is float32, but the file's training has not given"):
        bx.TabularClassifier(**QUICK).fit(frame, y, checkpoint=path, resume=True)


def test_a_recipe_depends_on_the_number_of_rows_unless_it_is_given() -> None:
    plain = vars(tabular_parameters.TabularParameters())
    found = [presets.recipe_for(plain, rows) for rows in (40, 1000, 52_000, 1_000_000)]
    sizes = [(one.batch_size, one.max_iter) for one in found]
    assert sizes == [(8, 200), (100, 200), (128, 39), (625, 10)]
    chosen = {**plain, "max_iter": 500, "batch_size": 128}
    recipe = presets.recipe_for(chosen, 1_000_000)
    assert (recipe.batch_size, recipe.max_iter) == (128, 500)
    # alpha means another thing for a solver without weight decay.
    alphas = [presets.recipe_for({**plain, "solver": name}, 40).alpha for name in ("adam", "adamw")]
    assert alphas == [1e-4, 0.1]
    assert presets.recipe_for({**plain, "solver": "sgd", "alpha": 0.5}, 40).alpha == 0.5


def test_each_parameter_has_a_line_of_help_and_accepts_its_default() -> None:
    fields = dataclasses.fields(tabular_parameters.ClassifierParameters)
    assert {field.name for field in fields} == {*tabular_parameters.PARAMETERS}
    for field in fields:
        words = tabular_parameters.PARAMETERS[field.name].help
        assert words.endswith((".", "loss."))
        assert tabular_parameters.checked(field.default, field.name) == field.default
        assert f"- ``{field.name}``: {words}" in str(bx.TabularClassifier.__doc__)


@pytest.mark.once
def test_presets_and_parameters_import_none_of_the_extra_libraries() -> None:
    program = (
        "import sys; from backprop_xp.tables.model import tabular_parameters\n"
        "assert not {'pandas', 'pyarrow', 'sklearn', 'scipy'} & {*sys.modules}"
    )
    done = start("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_verbose_shows_the_progress(capsys: pytest.CaptureFixture[str]) -> None:
    bx.TabularClassifier(**QUICK, verbose=True).fit(*table())
    assert "epoch 12/12" in capsys.readouterr().err


@pytest.mark.once
def test_overlapping_fits_have_one_blas_thread_and_the_last_one_restores_the_number() -> None:
    (frame, y), during = table(), list[set[int]]()
    has_begun, may_end = Event(), Event()

    def numbers() -> set[int]:
        return {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}

    def set_numbers(limits: Any) -> None:
        # threadpoolctl obeys only the thread that has set a number, until that thread ends.
        setting = Thread(target=threadpool_limits, args=(limits, "blas"))
        setting.start()
        setting.join()

    def fit(callback: Any) -> None:
        bx.TabularClassifier(**{**QUICK, "max_iter": 1}).fit(frame, y, callbacks=[callback])

    def wait(state: bx.TrainingState) -> None:
        has_begun.set()
        assert may_end.wait(HANGING)

    def outlive(state: bx.TrainingState) -> None:
        may_end.set()
        first.result()
        during.append(numbers())

    before = threadpool_info()
    set_numbers(3)
    with ThreadPoolExecutor(1) as thread:  # which lives longer than the fit in it
        first = thread.submit(fit, wait)
        assert has_begun.wait(HANGING)
        fit(outlive)
        assert during == [{1}]
        assert numbers() == {3}
    set_numbers(before)


@pytest.mark.once
def test_masked_values_are_an_error_that_names_the_argument() -> None:
    x, ones = np.arange(40.0).reshape(20, 2), np.ones(20)
    masked = {"X": np.ma.masked_equal(x, 3.0), "y": np.ma.masked_equal(x[:, 0], 2.0)}
    masked["sample_weight"] = np.ma.masked_array(ones, x[:, 0] == 4.0)
    for name, value in masked.items():
        rows = {"X": x, "y": x[:, 0], "sample_weight": ones} | {name: value}
        with pytest.raises(ValueError, match=rf"^{name} has masked values \(1 of "):
            bx.TabularRegressor(**QUICK).fit(**rows)
