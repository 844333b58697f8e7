"""The comparison of table models in benchmarks/: its data, scores, report and results file."""

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("sklearn")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))
table_data = pytest.importorskip("table_data")
table_report = pytest.importorskip("table_report")

# A class has the same share in each part, to one row in the smallest part.
PLAIN = {"int64", "float64", "str"}


def line(table: str, contender: str, loss: float | None, seed: int = 0) -> dict[str, Any]:
    found = {"table": table, "seed": seed, "contender": contender, "task": "regression"}
    return found | (
        {"error": "ValueError: no"}
        if loss is None
        else {"loss": loss, "seconds": 1.0, "cpu_seconds": 2.0}
    )


def lines(losses: dict[str, dict[str, float | None]]) -> list[dict[str, Any]]:
    return [line(t, name, loss) for t, own in losses.items() for name, loss in own.items()]


def mixed_table(rows: int, *, classes: int) -> Any:
    """Numbers with gaps, categories, strings of many values and a date; classes 0 is numbers."""
    draw = np.random.default_rng(0)
    number, group = draw.normal(size=rows), draw.integers(0, 4, rows)
    signal = number + 0.7 * group
    frame = pd.DataFrame(
        {
            "number": np.where(draw.random(rows) < 0.1, np.nan, number),
            "group": pd.Series(list("abcd")).iloc[group].to_numpy(),
            "rare [x]": pd.Series([f"v{i}" for i in draw.integers(0, 60, rows)], dtype="str"),
            "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(draw.integers(0, 900, rows), "D"),
        }
    ).astype({"group": "str"})
    frame.loc[0, "group"] = None
    if not classes:
        return table_data.Table("mixed", "regression", frame, 100.0 + 20.0 * signal, ())
    y = np.digitize(signal, np.quantile(signal, np.arange(1, classes) / classes))
    names = tuple(map(str, range(classes)))
    return table_data.Table("mixed", "classification", frame, y, names)


@pytest.mark.parametrize("name", table_data.RECORDS)
def test_a_table_is_as_its_record_says_and_has_plain_dtypes(name: str) -> None:
    record = table_data.RECORDS[name]
    pytest.importorskip(record.package)
    table = table_data.load(name)
    assert len(table.y) == len(table.X) == record.rows
    assert 200 <= record.rows <= 100_000
    assert not {record.target, *record.drop} & set(table.X)
    kinds = {str(dtype) for dtype in table.X.dtypes}
    assert {kind for kind in kinds if not kind.startswith("datetime64")} <= PLAIN
    assert all(table.X[column].dtype.kind == "M" for column, _ in record.dates)
    if table.classes:
        counts = np.bincount(table.y, minlength=len(table.classes))
        assert counts.min() >= table_data.FEWEST_OF_A_CLASS
    else:
        assert np.isfinite(table.y).all()


@pytest.mark.parametrize("name", table_data.RECORDS)
def test_no_single_column_gives_the_target_away(name: str) -> None:
    trees = pytest.importorskip("sklearn.tree")
    pytest.importorskip(table_data.RECORDS[name].package)
    table = table_data.load(name)
    train, validation, _ = table_data.split(table, 0)
    kind = trees.DecisionTreeClassifier if table.classes else trees.DecisionTreeRegressor
    base = np.bincount(train.y).max() / len(train.y) if table.classes else 0.0
    for column in table.X:
        values = [part.X[[column]] for part in (train, validation)]
        if table.X[column].dtype == "str":
            codes = {text: i for i, text in enumerate(values[0][column].dropna().unique())}
            values = [one.apply(lambda texts, codes=codes: texts.map(codes)) for one in values]
        x, x_validation = (one.to_numpy("float64") for one in values)
        model = kind(max_leaf_nodes=200, random_state=0).fit(x, train.y)
        # The accuracy or R2 beyond the trivial prediction's; diamonds reach 0.87 by the carat.
        assert (model.score(x_validation, validation.y) - base) / (1.0 - base) < 0.9, column


@pytest.mark.parametrize(
    "name", [n for n, r in table_data.RECORDS.items() if r.task == "classification"]
)
def test_no_column_is_a_function_of_the_class(name: str) -> None:
    pytest.importorskip(table_data.RECORDS[name].package)
    table = table_data.load(name)
    for column in table.X:
        assert table.X[column].groupby(table.y).nunique(dropna=False).max() > 1, column


def test_the_fresh_tables_are_twelve_of_each_task_and_of_other_data() -> None:
    fresh = table_data.FRESH.values()
    assert [one.task for one in fresh] == 2 * (["classification"] * 6 + ["regression"] * 6)
    assert not {one.source for one in fresh} & {one.source for one in table_data.TABLES.values()}


@pytest.mark.parametrize("name", table_data.CODES)
def test_a_table_of_codes_is_of_other_data_and_has_many_words_that_repeat(name: str) -> None:
    record = table_data.CODES[name]
    others = {**table_data.TABLES, **table_data.FRESH}.values()
    assert record.source not in {one.source for one in others}
    pytest.importorskip(record.package)
    table = table_data.load(name)
    for column in record.codes:
        words = table.X[column]
        assert 1000 <= words.nunique() <= len(words) // 2
        assert not pd.to_numeric(words, errors="coerce").notna().any()


def test_the_halves_share_no_table_and_are_alike() -> None:
    tune, show = (table_data.names_of(half) for half in ("tune", "show"))
    assert sorted([*tune, *show]) == sorted(table_data.TABLES)
    assert sorted(table_data.names_of()) == sorted(table_data.TABLES)
    for task in ("classification", "regression"):
        rows = [
            [table_data.TABLES[name].rows for name in half if table_data.TABLES[name].task == task]
            for half in (tune, show)
        ]
        assert len(rows[0]) == len(rows[1]) >= 6
        assert 0.5 < np.median(rows[0]) / np.median(rows[1]) < 2.0


@pytest.mark.parametrize("classes", [0, 3])
def test_the_parts_are_disjoint_and_have_their_shares_of_rows_and_classes(classes: int) -> None:
    table = mixed_table(1000, classes=classes)
    table = table._replace(X=table.X.assign(row=np.arange(1000)))
    parts = table_data.split(table, 0)
    rows = [set(part.X["row"]) for part in parts]
    assert [len(part) for part in rows] == [640, 160, 200]
    assert len(set.union(*rows)) == 1000
    for part in parts:
        np.testing.assert_array_equal(part.y, table.y[part.X["row"]])
        shares = np.bincount(part.y) / len(part.y) if classes else np.ones(0)
        np.testing.assert_allclose(shares, 1.0 / max(classes, 1), atol=1.0 / 160)
    assert set(table_data.split(table, 1).test.X["row"]) != rows[2]
    assert set(table_data.split(table, 0).test.X["row"]) == rows[2]


def test_scores_have_their_closed_forms() -> None:
    y = np.asarray([0, 1, 1, 0])
    found = table_data.score("classification", y, np.asarray([[0.8, 0.2], [0.5, 0.5]] * 2))
    assert found["loss"] == found["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.2, 0.5]).mean())
    assert found["accuracy"] == 0.5
    found = table_data.score("regression", np.asarray([1.0, 3.0]), np.asarray([2.0, 2.0]))
    assert (found["loss"], found["r2"]) == (1.0, 0.0)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    draw = np.random.default_rng(0)
    sure = draw.uniform(0.5, 1.0, 200_000)
    right = draw.uniform(size=len(sure)) < sure
    probabilities = np.stack([sure, 1.0 - sure], axis=1)
    calibrated = table_data.calibration_error(np.where(right, 0, 1), probabilities)
    assert calibrated < 0.01  # ten binomial means of 20,000 rows, each with a deviation of 0.003
    # Twice as far from 1/2 as it should be: by the mean of (sure - 1/2) / 2.
    halved = draw.uniform(size=len(sure)) < 0.25 + 0.5 * sure
    found = table_data.calibration_error(np.where(halved, 0, 1), probabilities)
    assert found == pytest.approx(0.125, abs=0.01)
    assert table_data.calibration_error(np.array([1]), np.array([[0.8, 0.2]])) == 0.8


def test_a_probability_of_zero_is_a_finite_loss_and_other_shapes_are_refused() -> None:
    y = np.asarray([0, 1])
    found = table_data.score("classification", y, np.asarray([[0.0, 1.0], [0.0, 1.0]]))
    assert found["loss"] == pytest.approx(-np.log(table_data.SMALLEST) / 2, rel=1e-6)
    for wrong in (np.zeros((2, 3)), np.zeros(2), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="predictions of shape"):
            table_data.score("classification", y, wrong)


def test_a_normalized_score_is_the_share_of_the_best_gain_over_the_trivial_prediction() -> None:
    losses = {
        "a": {"trivial": 10.0, "best": 2.0, "middle": 4.0, "worse": 12.0, "fails": None},
        "b": {"trivial": 1.0, "best": 1.0, "middle": 1.0, "worse": 2.0, "fails": None},
    }
    means = table_report.table_losses(table_report.results(lines(losses)))
    scores = table_report.normalized_scores(means)
    expected = {"trivial": 0.0, "best": 1.0, "middle": 0.75, "worse": 0.0, "fails": 0.0}
    assert scores.loc["a"].to_dict() == expected
    assert (scores.loc["b"] == 0.0).all()  # nobody gains
    without = {"a": {name: loss for name, loss in losses["a"].items() if name != "worse"}}
    means = table_report.table_losses(table_report.results(lines(without)))
    assert table_report.normalized_scores(means).loc["a", "middle"] == 0.75


def test_only_a_table_and_seed_that_all_contenders_tried_counts() -> None:
    found = lines({"a": {"trivial": 3.0, "x": 1.0}, "b": {"trivial": 3.0}})
    found += [line("a", "trivial", 3.0, seed=1)]
    assert table_report.results(found).index.tolist() == [("a", 0)]
    with pytest.raises(ValueError, match="no table and seed has results of all"):
        table_report.results(lines({"a": {"x": 1.0}}))


def test_the_critical_difference_is_that_of_demsar_and_bars_join_what_it_covers() -> None:
    # Demsar (2006), section 3.2.2: four classifiers on 14 data sets.
    assert table_report.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    ranks = pd.Series([1.0, 1.5, 2.6, 4.0, 4.1])
    assert table_report.alike(ranks, 1.2) == [(0, 1), (1, 2), (3, 4)]
    assert table_report.alike(ranks, 0.05) == []
    assert table_report.alike(ranks[:3], 2.0) == [(0, 2)]


def test_the_report_of_a_results_file_ranks_and_names_errors(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    losses: dict[str, dict[str, float | None]] = {
        f"t{i}": {"trivial": 9.0, "good": 1.0, "fair": 2.0, "poor": 3.0 if i else None}
        for i in range(4)
    }
    text = table_report.markdown(lines(losses))
    assert "4 tables, 1 seeds." in text
    assert "| good | 1.000 ± 0.000 | 1.00 | 4 | 0 | nan | 2.0 | 1.0 | 1 |" in text
    assert "| t0 | RMSE | **1** | 2 | 9 | 9 |" in text
    assert "- poor on t0, seed 0: ValueError: no" in text
    table_report.picture(lines(losses), tmp_path / "ranks.svg")
    assert "</svg>" in (tmp_path / "ranks.svg").read_text()


def scripts() -> tuple[Any, Any]:
    """Return the modules that need the group bench-tables."""
    pytest.importorskip("tqdm")
    pytest.importorskip("skrub")
    # Under another name: PyTables is the package ``tables``.
    spec = importlib.util.spec_from_file_location("tables_script", BENCHMARKS / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module, importlib.import_module("table_contenders")


CONTENDERS = ["fast", "default", "best", "HistGradientBoosting", "LightGBM", "XGBoost", "CatBoost"]
CONTENDERS += ["scikit-learn MLP", "linear", "RealMLP"]


@pytest.mark.parametrize("classes", [0, 2, 3])
@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.filterwarnings("ignore")  # of the libraries that are compared
def test_a_contender_beats_the_trivial_prediction_on_mixed_columns(name: str, classes: int) -> None:
    _, table_contenders = scripts()
    assert set(table_contenders.CONTENDERS) == {*CONTENDERS, "trivial"}
    found = table_contenders.contender(name)
    if importlib.util.find_spec(found.package) is None:
        pytest.skip(f"{found.package} is not installed")
    table = mixed_table(800, classes=classes)
    train, validation, test = table_data.split(table, 0)
    test.X.loc[0, "group"] = "new"
    losses = [
        table_data.score(table.task, test.y, one.predict(train, validation, test.X, table.task, 0))
        for one in (found, table_contenders.contender("trivial"))
    ]
    assert losses[0]["loss"] < losses[1]["loss"]


def test_a_result_is_not_computed_again_but_an_error_is(tmp_path: Path) -> None:
    tables, _ = scripts()
    path = tmp_path / "results.jsonl"
    left = tables.jobs_left(path, ["a", "b"], ["x", "y"], [0, 1])
    assert sorted(left) == sorted(tables.Job(*j) for j in itertools.product("ab", [0, 1], "xy"))
    assert [job.contender for job in left] == ["x"] * 4 + ["y"] * 4
    for found in (line("a", "x", 1.0), line("b", "y", None), line("b", "x", None)):
        tables.append(path, found)
    tables.append(path, line("b", "x", 1.0))
    left = tables.jobs_left(path, ["a", "b"], ["x", "y"], [0])
    assert left == [tables.Job("a", 0, "y"), tables.Job("b", 0, "y")]


def test_a_function_from_outside_runs_and_a_process_that_dies_is_an_error(tmp_path: Path) -> None:
    scripts()
    (tmp_path / "recipe.py").write_text(
        "import os\n"
        "def mean(train, validation, test, task, seed):\n"
        "    if seed == 1:\n"
        "        os._exit(3)\n"
        "    if seed == 2:\n"
        "        raise KeyError('no')\n"
        "    return [train.y.mean()] * len(test)\n"
    )
    words = ["--tables", "diabetes", "--contenders", "recipe:mean", "trivial", "--out", "r.jsonl"]
    script = [sys.executable, str(BENCHMARKS / "tables.py")]
    for _ in range(2):  # the second run tries the two errors again
        subprocess.run([*script, *words, "--seeds", "0", "1", "2"], check=True, cwd=tmp_path)
    found = [json.loads(text) for text in (tmp_path / "r.jsonl").read_text().splitlines()]
    own = {(one["contender"], one["seed"]): one for one in found}
    assert len(found) == 3 + 3 + 2
    assert own["recipe:mean", 0]["loss"] == own["trivial", 0]["loss"]
    assert own["recipe:mean", 1]["error"].startswith("the process ended with status 3")
    assert own["recipe:mean", 2]["error"] == "KeyError: 'no'"
    assert {"numpy", "python"} <= set(own["trivial", 2]["versions"])
    done = subprocess.run(
        [*script, *words, "--report"],
        check=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "| recipe:mean |" in done.stdout
