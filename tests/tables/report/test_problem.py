"""The problem of a training: the target, the rows that have it, and the parts of the rows.

Specifies ``target``.
"""

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.columns import sample
from backprop_xp.tables.columns.features import described_columns
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.report import target as target_column
from backprop_xp.tables.report.problem import ColumnChoice, make_problem
from backprop_xp.tables.report.split import times_of
from backprop_xp.training.rows.preprocessing import split_rows
from tests.table_trainings import QUICK, classes_of, frame, kinds_of, predictions, train


@pytest.mark.once
def test_a_target_has_the_decimal_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = "".join(f"{i},5;1,{i:03d}\n" for i in range(100, 160))
    path.write_text(f"x;y\n{rows}")
    model = train(path, "y", parameters=QUICK, validation=path, test=path).model_
    assert model.scale.mean == pytest.approx(1.1295)


@pytest.mark.once
def test_a_row_without_a_target_does_not_hide_the_decimal_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = "".join(f"{i},125;{i}\n{i};{i}\n" for i in range(1, 31))
    path.write_text(f"x;y\n{rows}sum;\n")
    model = train(path, "y", task="regression", parameters=QUICK).model_
    (x,) = described_columns(model.features)
    assert 1.0 < x["center"] < 31.0
    assert x["scale"] < 31.0


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        ([True, False, True], "classification", (False, True)),
        ([3, 1, 3], "classification", (1, 3)),
        ([3.0, 1.0, 3.0], "classification", (1, 3)),
        (["3", "1", "3"], "classification", (1, 3)),
        (["20%", "10%", "20 %"], "classification", (10, 20)),
        (list(range(11)) * 2, "regression", ()),
        ([0.5, 1.0, 1.0], "regression", ()),
    ],
)
def test_the_values_of_a_target_suggest_its_task(
    values: list[Any], task: str, classes: tuple[Any, ...]
) -> None:
    found = target_column.find_target(Sample.of(pd.Series(values, name="y")))
    assert (found.task, found.classes) == (task, classes)
    assert [type(value) for value in found.classes] == [type(value) for value in classes]


def test_a_given_task_overrides_the_suggested_one() -> None:
    numbers = pd.Series([3, 1, 3, 2, 1, 2], name="y")
    target = target_column.find_target(Sample.of(numbers), "regression")
    assert target.task == "regression"
    assert target.values(numbers).tolist() == [3.0, 1.0, 3.0, 2.0, 1.0, 2.0]
    halves = pd.Series([0.5, 1.5, 0.5, 1.5], name="y")
    assert target_column.find_target(Sample.of(halves), "classification").classes == ("0.5", "1.5")


@pytest.mark.once
def test_times_as_a_target_are_an_error_but_for_classes(tmp_path: Path) -> None:
    table = frame().assign(y=["16:09", "04:03", "12:30:15"] * 20)
    table.to_csv(tmp_path / "table.csv", index=False)
    for data in (table, tmp_path / "table.csv"):
        for task in (None, "regression"):
            with pytest.raises(ValueError, match=r"'y' holds times: convert them to numbers, such"):
                train(data, "y", task=task, parameters=QUICK)
        model = train(data, "y", task="classification", parameters=QUICK)
        assert classes_of(model) == ("04:03", "12:30:15", "16:09")
    declared = table.assign(y=table["y"].astype("category"))
    assert classes_of(train(declared, "y", parameters=QUICK)) == classes_of(model)


@pytest.mark.once
def test_a_few_words_among_the_numbers_of_a_target_are_named(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    numbers = [f"{i},5" for i in range(300)]
    numbers[7] = numbers[20] = "unknown"
    path.write_text("".join(f"{i};{y}\n" for i, y in [("x", "y"), *enumerate(numbers)]))
    message = r"'y' has 'unknown' \(line 9 of .*\), but nearly all other values are numbers: corr"
    with pytest.raises(ValueError, match=message):
        train(tables.TableFile(path), "y", parameters=QUICK)
    codes = pd.Series([f"a{i}" for i in range(300)], name="y")
    with pytest.raises(ValueError, match="has 300 different values in 300 rows"):
        target_column.find_target(Sample.of(codes))


def test_very_many_classes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target_column, "MOST", 500)
    monkeypatch.setattr(sample, "MOST", 500)
    codes = pd.Series([f"a{i % 800}" for i in range(2400)], name="y")
    assert len(target_column.find_target(Sample.of(codes[codes < "a5"])).classes) < 500
    with pytest.raises(
        ValueError, match=r"^the target 'y' has about [78]\d\d classes, but 500 are"
    ):
        target_column.find_target(Sample.of(codes))
    with pytest.raises(ValueError, match=r"has [78]\d\d different values in 800 rows"):
        target_column.find_target(Sample.of(codes[:800]))
    numbers = pd.Series([*(f"{i}.5" for i in range(2000)), *(f"w{i}" for i in range(60))], name="y")
    with pytest.raises(ValueError, match="but nearly all other values are numbers"):
        target_column.find_target(Sample.of(numbers))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_split_gives_each_class_its_share_and_a_training_row(share: float) -> None:
    classes = np.repeat([0, 1, 2, 3], [700, 200, 100, 1])
    shares = {"test": share, "validation": 0.2}
    drawn = split_rows(1001, shares, 0, classes=classes)
    assert list(drawn) == ["training", "test", "validation"]
    assert sorted(np.concatenate([*drawn.values()])) == list(range(1001))
    for name, each in shares.items():
        np.testing.assert_allclose(
            np.bincount(classes[drawn[name]], minlength=3)[:3],
            [700 * each, 200 * each, 100 * each],
            atol=1.01,
        )
    assert set(classes[drawn["training"]]) == {0, 1, 2, 3}
    again, other = (split_rows(1001, shares, s, classes=classes)["test"] for s in (0, 1))
    assert (again == drawn["test"]).all()
    assert not np.array_equal(other, drawn["test"])
    # The test rows do not depend on the validation rows.
    wider = split_rows(1001, {**shares, "validation": 0.3}, 0, classes=classes)
    assert (wider["test"] == drawn["test"]).all()


def test_a_class_of_a_single_row_is_trained_on() -> None:
    classes = np.r_[np.zeros(100, dtype=int), np.arange(1, 51)]
    shares = {"test": 0.2, "validation": 0.2}
    drawn = split_rows(150, shares, 0, classes=classes)
    assert set(classes[drawn["training"]]) == set(range(51))
    assert [len(rows) for rows in drawn.values()] == [90, 30, 30]


@pytest.mark.once
def test_a_split_by_time_uses_the_moments_and_not_the_clocks() -> None:
    written = ["2020-01-01 12:00:00+09:00", "2020-01-01 04:00:00+00:00"]
    column = pd.Series([*written, "2020-01-01 00:30:00-05:00"], name="when")
    assert times_of(column).tolist() == [0, 1, 2]


@pytest.mark.once
def test_rows_without_a_target_are_left_out_and_reported() -> None:
    table, messages = frame(), list[str]()
    table.loc[:4, "y"] = None
    model = train(table, "y", parameters=QUICK, say=messages.append)
    assert model.metadata_["report"]["rows"] == 55
    assert "5 rows without 'y' are left out" in messages


@pytest.mark.once
@pytest.mark.parametrize(
    ("values", "classes", "left_out"),
    [
        (["None", "Mild", "NA"], ("Mild", "NA", "None"), 0),
        (["01", "02", "A1"], ("01", "02", "A1"), 0),
        (["None", "Mild", ""], ("Mild", "None"), 20),
        (["True", "False", ""], (False, True), 20),
        (["1", "3", "?"], (1, 3), 20),
        ([*map(str, range(50, 69)), "n/a"], (), 3),
        ([*(f"{i},500" for i in range(1, 20)), "-"], (), 3),
    ],
)
def test_the_other_values_decide_which_targets_are_missing(
    tmp_path: Path, values: list[str], classes: tuple[Any, ...], left_out: int
) -> None:
    y = (values * 60)[:60]
    frame().assign(y=y).to_csv(tmp_path / "table.csv", index=False)
    messages = list[str]()
    model = train(tmp_path / "table.csv", "y", parameters=QUICK, say=messages.append)
    assert classes_of(model) == classes
    assert [type(one) for one in classes_of(model)] == [type(one) for one in classes]
    assert model.metadata_["report"]["rows"] == 60 - left_out
    assert ([f"{left_out} rows without 'y' are left out"] if left_out else []) == messages[1:]
    assert (
        set(predictions(model, tmp_path / "table.csv")["prediction"]) <= set(classes) or not classes
    )


@pytest.mark.once
def test_booleans_with_missing_values_are_classes() -> None:
    table = frame()
    table["y"] = (table["y"] == "yes").astype(object).where(table.index != 3, None)
    classes = classes_of(train(table, "y", parameters=QUICK))
    assert [repr(one) for one in classes] == ["False", "True"]


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "a"])
def test_rows_of_weight_0_are_left_out_before_the_split(target: str) -> None:
    draw, table = np.random.default_rng(5), frame(90).assign(w=1.0)
    table.loc[draw.permutation(90)[:30], "w"] = 0.0
    table["a"] = table["a"].fillna(0.0)
    counted = table[table["w"] > 0.0].reset_index(drop=True)
    weightless = table["w"] == 0.0
    # They would decide the kinds, the medians and the number of rows.
    table["a"] = table["a"].mask(weightless & (target != "a"), 1e6)
    table["day"] = table["day"].mask(weightless, "never")
    lines = list[str]()
    options: dict[str, Any] = {"parameters": QUICK, "weights": "w"}
    found = train(table, target, say=lines.append, **options)
    expected = train(counted, target, **options)
    assert "30 rows of weight 0 are left out" in lines
    np.testing.assert_array_equal(found.theta_, expected.theta_)
    report = found.metadata_["report"]
    assert report == expected.metadata_["report"]
    assert sum(report["parts"].values()) == report["rows"] == 60
    with pytest.raises(ValueError, match=r"^the weights 'w' are 0 in all rows"):
        train(table.assign(w=0.0), target, **options)
    with pytest.raises(ValueError, match="test rows: the weights 'w' are 0 in all rows"):
        train(table, target, test=table.assign(w=0.0), **options)


@pytest.mark.once
@pytest.mark.parametrize("column", ["w", "y"])
def test_rows_that_are_left_out_are_dropped_before_their_cells_are_read(column: str) -> None:
    table = frame(90).drop(columns="text").assign(w=1.0)
    table["when"] = pd.date_range("2020-01-01", periods=90)
    table.loc[[7, 70], column] = 0.0 if column == "w" else None
    options: dict[str, Any] = {"parameters": QUICK, "weights": "w", "time": "when"}
    expected = train(table.drop(index=[7, 70]), "y", **options)
    cells = table.astype({"a": object, "when": object})
    cells.at[7, "a"], cells.at[70, "when"] = ["a", "list"], "later"
    found = train(cells, "y", **options)
    assert found.preparation_.columns_ == expected.preparation_.columns_
    np.testing.assert_array_equal(found.theta_, expected.theta_)


@pytest.mark.once
@pytest.mark.parametrize("cv", [None, 3])
@pytest.mark.parametrize("group", [None, "group"])
def test_a_single_odd_row_has_the_same_kinds_and_lines_for_any_seed(
    cv: int | None, group: str | None
) -> None:
    draw, rows = np.random.default_rng(1), np.arange(90)
    days = pd.date_range("2020-01-13", periods=90).strftime("%Y-%m-%d").to_series(index=rows)
    table = pd.DataFrame(
        {
            "day": days.mask(rows == 7, "31.12.2021"),
            "price": [f"{7.5 * i:,.1f}" if i != 13 else "?!" for i in rows],
            "count": [str(i % 60) if i != 11 else "n.n." for i in rows],
            "id": [f"u{i}" for i in rows],
            "group": draw.integers(0, 20, 90),
            "y": draw.normal(size=90),
        }
    )
    found = []
    for seed in range(4):
        lines, options = list[str](), {"group": group, "drop": [] if group else ["group"]}
        parameters = {"preset": "fast", "max_iter": 1, "random_state": seed}
        model = train(table, "y", cv=cv, say=lines.append, parameters=parameters, **options)
        found.append((model.preparation_.columns_, lines))
    assert found == 4 * [found[0]]
    columns, lines = found[0]
    assert columns["day"].formats == ("%Y-%m-%d", "%d.%m.%Y")
    assert lines[1:4] == [
        "'id' is left out: it is an identifier",
        "the column 'price' has '?!' (row 13): read as missing",
        "the column 'count' has 'n.n.' (row 11): read as missing",
    ]


@pytest.mark.once
def test_a_part_of_the_rows_does_not_decide_that_strings_are_numbers(tmp_path: Path) -> None:
    """Only the newest rows have words, beside which numbers with a comma are names."""
    draw = np.random.default_rng(0)
    codes = draw.choice(["0,5", "1,5", "2,5", "3,5"], 200)
    y = np.asarray([float(code.replace(",", ".")) % 2.0 for code in codes])
    table = pd.DataFrame({"code": codes.astype(object), "y": y, "time": -np.arange(200)})
    table.loc[:5, "code"] = ["ab", "cd", "ef", "gh", "ij", "kl"]
    table.to_csv(tmp_path / "table.csv", sep=";", decimal=",", index=False)
    file = tables.TableFile(tmp_path / "table.csv")
    options: dict[str, Any] = {"drop": ["time"], "time": "time", "task": "regression"}
    parameters = {"preset": "fast", "max_iter": 60}
    model = train(file, "y", test=0.05, parameters=parameters, **options)
    assert "0,5" in model.model_.features.columns["code"].values
    assert model.metadata_["report"]["validation"]["r2"] > 0.99
    # The same for a validation set, all of whose strings are numbers.
    given = tables.read(file).drop(columns=["y", "time"])
    model = bx.TabularRegressor(**parameters, random_state=0)
    model.fit(given, y, X_val=given.iloc[6:100], y_val=y[6:100])
    assert model.validation_score_ < 0.01


@pytest.mark.once
@pytest.mark.parametrize("part", ["test", "validation"])
def test_values_of_another_kind_in_a_table_of_its_own_are_named_before_the_training(
    part: str, tmp_path: Path
) -> None:
    frame(60).to_csv(tmp_path / "table.csv", index=False)
    frame(40).assign(a="many").to_csv(tmp_path / "other.csv", index=False)
    data, other = (tables.TableFile(tmp_path / f"{name}.csv") for name in ("table", "other"))
    message = r"^the column 'a' has 'many' \(line 2 of .*other.csv\), but a number is expected"
    with pytest.raises(ValueError, match=message):
        make_problem(data, "y", ColumnChoice(), seed=0, **{part: other})


@pytest.mark.once
def test_the_error_about_too_many_odd_cells_counts_them_and_its_way_out_works() -> None:
    table, other = frame(60), frame(40).assign(a="many")
    message = (
        r"^the column 'a' has 'many' \(row 0\), but .* Such strings are in 40 of \d\d cells, too "
        r"many .*, leave them empty, or choose kinds=(\{'a': 'category'\})\.$"
    )
    with pytest.raises(ValueError, match=message) as caught:
        make_problem(table, "y", ColumnChoice(), seed=0, test=other)
    found = re.search(message, str(caught.value))
    assert found is not None
    columns = ColumnChoice(kinds=ast.literal_eval(found[1]))
    problem = make_problem(table, "y", columns, seed=0, test=other)
    assert problem.detected.columns["a"].kind == "category"


@pytest.mark.once
def test_validation_and_test_rows_need_only_the_columns_in_use() -> None:
    table, messages = frame().assign(id=np.arange(60)), list[str]()
    held_out = table[["y", "text", "day", "b", "a"]].head(1)
    given: dict[str, Any] = {"validation": held_out, "test": held_out}
    model = train(table, "y", parameters=QUICK, drop=["id"], **given)
    assert model.metadata_["report"]["parts"] == {"training": 60, "validation": 1, "test": 1}
    for name in given:
        with pytest.raises(ValueError, match=f"{name} rows: there is no column 'a'"):
            train(table, "y", **{name: held_out.drop(columns="a")}, say=messages.append)
    assert not messages


@pytest.mark.once
def test_features_drop_and_weights_choose_the_columns() -> None:
    table = frame().assign(w=1.0)
    model = train(table, "y", parameters=QUICK, weights="w", drop=["text"])
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day"]
    model = train(table, "y", parameters=QUICK, features=["a", "w"], drop=["w"])
    assert list(kinds_of(model.model_.features)) == ["a"]
