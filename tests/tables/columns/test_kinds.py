"""The kinds of columns that a user chooses, in place of the detected ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
import pyarrow as pa
from sklearn.base import clone

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.columns.kinds import KINDS, kind_named
from tests.table_trainings import QUICK, kinds_of, predictions, prepare, train, transform

pytestmark = pytest.mark.once

ROWS = 300


def table() -> pd.DataFrame:
    """Return a table whose numbers, codes and dates can be read as other kinds."""
    draw = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "zip": draw.choice([10115, 20095, 50667, 80331], ROWS),
            "code": [f"{i % 60:03d}" for i in range(ROWS)],
            "day": draw.choice([20240105, 20240219, 20240303], ROWS),
            "written": draw.choice(["05.01.2024", "19.02.2024"], ROWS),
            "city": draw.choice(["Rome", "Oslo"], ROWS),
            "half": draw.choice([0.5, 1.0], ROWS),
            "open": draw.choice([True, False], ROWS),
            "y": draw.normal(size=ROWS),
        }
    )


CHOICES = {
    "integers as a category": ("zip", "number", "category", 4),
    "integers as text": ("zip", "number", "text", None),
    "codes as numbers": ("code", "category", "number", 1),
    "codes as text": ("code", "category", "text", None),
    "compact dates as numbers": ("day", "date", "number", 1),
    "dates as a category": ("written", "date", "category", 2),
    "words as text": ("city", "category", "text", None),
    "booleans as a category": ("open", "number", "category", 2),
    "fractions as a category": ("half", "number", "category", 2),
}


def test_the_names_of_kinds_are_those_of_the_classes() -> None:
    assert {name: kind_named(name).kind for name in KINDS} == {name: name for name in KINDS}


@pytest.mark.parametrize("name", CHOICES)
def test_a_chosen_kind_takes_the_place_of_the_detected_one(name: str) -> None:
    column, detected, kind, width = CHOICES[name]
    frame = table()
    assert kinds_of(prepare(frame))[column] == detected
    made = prepare(frame, kinds={column: kind})
    assert kinds_of(made) == {**kinds_of(prepare(frame)), column: kind}
    if width is not None:
        assert made.columns[column].width == width
    assert np.isfinite(made.transform(frame)).all()


@pytest.mark.parametrize("last", [True, False])
def test_chosen_kinds_read_a_file_as_the_dataframe(last: bool, tmp_path: Path) -> None:
    """The file has decimal commas, and numbers that a category must not read as numbers.

    A column has the first or the last kind of its choices.
    """
    choices = [(column, kind) for column, _, kind, _ in CHOICES.values()]
    kinds = dict(choices if last else choices[::-1])
    frame, path = table().assign(y=np.arange(ROWS) / 8 + 0.125), tmp_path / "table.csv"
    frame.to_csv(path, index=False, sep=";", decimal=",")
    model = train(path, "y", kinds=kinds, parameters={**QUICK, "kinds": kinds})
    assert {**kinds_of(model.model_.features), **kinds} == kinds_of(model.model_.features)
    found = predictions(model, path)["prediction"]
    np.testing.assert_array_equal(found, model.predict(tables.read(path).drop(columns="y")))
    for column in (column for column, kind in kinds.items() if kind == "number"):
        # A missing category may be as likely as any other.
        changed = model.predict(frame.drop(columns="y").assign(**{column: np.nan}))
        assert not np.array_equal(changed, found), column


def test_words_for_missing_values_stay_missing_in_a_chosen_category_of_a_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "table.csv"
    table().assign(zip=["007", "NA", "12"] * 100).to_csv(path, index=False)
    chosen = {"zip": "category"}
    model = train(path, "y", kinds=chosen, parameters={**QUICK, "kinds": chosen})
    assert model.model_.features.columns["zip"].values == ("007", "12", None)


NUMBERS: dict[str, Any] = {
    "integers": lambda draw: draw.choice([10115, 20095], ROWS),
    "integers with missing values": lambda draw: draw.choice([10115, 20095, np.nan], ROWS),
    "fractions": lambda draw: draw.choice([0.5, 1.0], ROWS),
    "booleans": lambda draw: draw.choice([True, False], ROWS),
    "booleans with missing values": lambda draw: draw.choice([True, False, None], ROWS),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_category_of_numbers_is_the_same_however_a_file_writes_them(
    name: str, decimal: str, tmp_path: Path
) -> None:
    frame = table()[["zip", "y"]].assign(n=NUMBERS[name](np.random.default_rng(0)))
    made = prepare(frame, kinds={"n": "category"})
    expected = transform(made, frame)
    assert {*expected[:, made.feature_indices()["n"]].sum(axis=1)} == {1.0}
    frame.to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=decimal)
    whole = pd.read_csv(tmp_path / "table.csv", sep=";", decimal=decimal)
    for given in (tmp_path / "table.csv", whole, tables.read(tmp_path / "table.csv")):
        np.testing.assert_array_equal(transform(made, given), expected)
    alone = whole.dropna().head(1)
    for rows in (alone, alone.astype({"n": object}), alone.infer_objects()):
        np.testing.assert_array_equal(transform(made, rows), expected[alone.index])


def test_codes_that_are_chosen_as_numbers_have_the_decimal_sign_of_their_file(
    tmp_path: Path,
) -> None:
    chosen, frame = {"code": "number"}, table()
    frame.assign(y=frame["y"].round(3)).to_csv(tmp_path / "points.csv", index=False)
    model = train(tmp_path / "points.csv", "y", kinds=chosen, parameters={**QUICK, "kinds": chosen})
    (tmp_path / "new.csv").write_text("zip;day;written;city;half;open;code\n")
    rows = ["007", "1.007", "1,007"]
    with (tmp_path / "new.csv").open("a") as file:
        file.writelines(f"1;20240105;05.01.2024;Rome;0,5;True;{code}\n" for code in rows)
    read = tables.read(tmp_path / "new.csv")
    expected = model.predict(read.assign(code=[7.0, 1007.0, 1.007])[[*model.feature_names_in_]])
    found = predictions(model, tmp_path / "new.csv")["prediction"]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(model.predict(read[[*model.feature_names_in_]]), expected)


def test_dates_of_a_rare_format_are_dates() -> None:
    """Formats are guessed from a sample of the strings, which lacks the rare one."""
    days = pd.date_range("2000-01-01", periods=1500).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"day": days.where(np.arange(1500) != 1001, "5 Jan 2030")})
    for kinds in (None, {"day": "date"}):
        made = prepare(frame, kinds=kinds).columns["day"]
        assert (made.formats, made.odd) == (("%Y-%m-%d", "%d %b %Y"), ())


def test_dates_that_can_be_versions_are_dates_if_the_user_says_so() -> None:
    frame = pd.DataFrame({"day": ["1.6.23", "2.6.23", "3.10.12"] * 20})
    assert kinds_of(prepare(frame)) == {"day": "category"}
    with pytest.warns(UserWarning, match=r"'day': it has dates such as '1.6.23', and all fit both"):
        made = prepare(frame, kinds={"day": "date"})
    assert made.columns["day"].formats == ("%m.%d.%y",)


FRAMES: dict[str, Any] = {
    "pandas": pd.DataFrame,
    "polars": lambda frame: pytest.importorskip("polars").from_pandas(frame),
    "arrow": pa.Table.from_pandas,
}


@pytest.mark.parametrize("library", FRAMES)
def test_a_declared_category_is_one_for_any_number_of_values(library: str) -> None:
    """Also where each row has a value of its own, which would be an identifier."""
    values = pd.Categorical([f"v{i % 250}" for i in range(ROWS)])
    own = pd.Categorical([f"w{i}" for i in range(ROWS)])
    given = FRAMES[library](pd.DataFrame({"many": values, "own": own, "a": range(ROWS)}))
    made = prepare(given, max_one_hot=20)
    assert kinds_of(made) == {"many": "category", "own": "category", "a": "number"}
    assert [made.columns[name].n_codes for name in ("many", "own")] == [251, ROWS + 1]


WRONG = {
    "a column": (
        {"zap": "category"},
        r"kinds has 'zap'.*Did you mean 'zip'\? Known: zip, code, day",
    ),
    "a kind": (
        {"zip": "catgory"},
        r"'catgory' is unknown. Did you mean 'category'\? Known: date",
    ),
    "another type": ({"zip": 3}, r"kinds\['zip'\] must be one of date, number, category, text"),
    "no mapping": ("zip", r"kinds must map columns to kinds, such as \{'zip': 'category'\}"),
    "strings as numbers": (
        {"city": "number"},
        r"'city' has '(Rome|Oslo)' \(row \d\), but its kind",
    ),
    "numbers as dates": ({"zip": "date"}, r"'zip' has \d{5} \(row 0\), but its kind was chosen"),
    "words as dates": ({"city": "date"}, r"'city' has '.*' \(row 0\), but its kind was chosen"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_kind_that_a_column_cannot_be_is_an_error_with_the_way_out(name: str) -> None:
    kinds, message = WRONG[name]
    frame = table()
    with pytest.raises((ValueError, TypeError), match=message):
        tables.Preparation(kinds=kinds).fit(frame)
    model = bx.TabularRegressor("fast", kinds=kinds, random_state=0)  # trains on row 0
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(frame.drop(columns="y"), frame["y"])


def test_a_value_of_another_kind_is_named_by_its_line_before_the_training(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    table().assign(code=[*["7", "x"] * 149, "8", "9"]).to_csv(path, index=False)
    file = tables.TableFile(path)
    with pytest.raises(ValueError, match=r"'code' has 'x' \(line 3 of .*\), but its kind"):
        train(file, "y", kinds={"code": "number"})
    with pytest.raises(ValueError, match=r"kinds has 'y', but there is no such feature"):
        train(path, "y", kinds={"y": "number"})


def test_chosen_kinds_are_kept_by_files_clones_and_set_params(tmp_path: Path) -> None:
    frame = table()
    x, y, chosen = frame.drop(columns="y"), frame["y"], {"zip": "category"}
    model = bx.TabularRegressor("fast", **QUICK, random_state=0, kinds=chosen).fit(x, y)
    model.save(tmp_path / "model.safetensors")
    loaded = tables.load(tmp_path / "model.safetensors")
    assert loaded.kinds == chosen
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    again = clone(loaded.preparation_).fit(x)
    assert kinds_of(again.features_) == kinds_of(model.preparation_.features_)
    assert clone(model).kinds == chosen
    other = clone(model).set_params(kinds={"zip": "text"}).fit(x, y)
    assert other.preparation_.columns_["zip"].kind == "text"
    assert clone(model).set_params(kinds={}).fit(x, y).preparation_.kinds is None
    of_array = bx.TabularRegressor("fast", **QUICK, kinds={"x0": "category"})
    of_array.fit(x[["zip", "half"]].to_numpy(), y)
    assert of_array.preparation_.columns_["x0"].kind == "category"


# Values that a DataFrame or a file holds in place of training's numbers, and the same numbers.
WRITTEN: dict[str, Any] = {
    "strings": (["3.0", "x", "1"], [3.0, np.nan, 1.0]),
    "numbers beside a string": ([3.0, "x", 1], [3.0, np.nan, 1.0]),
    "booleans beside a string": ([True, "x", False], [1.0, np.nan, 0.0]),
    "booleans as strings": (["True", "x", "false"], [1.0, np.nan, 0.0]),
    "categories": (pd.Categorical(["3.0", "x", "1"]), [3.0, np.nan, 1.0]),
    "a negative zero": ([-0.0, np.nan, 1.0], [0.0, np.nan, 1.0]),
    "large integers beside a string": ([2**53 + 1, "x", 2**53 + 3], [2**53 + 1, -1, 2**53 + 3]),
}


@pytest.mark.parametrize("kind", ["category", "text"])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_value_of_another_type_changes_no_other_row_of_a_column_of_numbers(
    name: str, kind: str
) -> None:
    """One string makes a column of a file, or of a DataFrame, strings."""
    written, same = WRITTEN[name]
    values = [2**53 + i for i in range(4)] if "large" in name else [0, 1, 2, 3]
    made = prepare(pd.DataFrame({"n": values * 10, "a": range(40)}), kinds={"n": kind})
    rows = pd.DataFrame({"n": pd.Series(written), "a": 0})
    expected = transform(made, rows.assign(n=same))
    present = [0, 2]
    np.testing.assert_array_equal(transform(made, rows)[present], expected[present])
    assert not np.array_equal(expected[0], expected[2])


@pytest.mark.parametrize("kind", ["category", "text"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_number_in_a_file_is_the_same_string_in_a_training_and_a_prediction(
    kind: str, decimal: str, tmp_path: Path
) -> None:
    frame, chosen = table()[["half", "zip", "y"]], {"half": kind, "zip": kind}
    frame.loc[3, "zip"] = np.nan  # 10115.0 in the file
    frame.to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=decimal)
    model = train(tmp_path / "table.csv", "y", kinds=chosen, parameters={**QUICK, "kinds": chosen})
    made = model.model_.features
    halves = frame["half"].astype("str").str.replace(".", decimal)
    given = frame.assign(half=halves.where(frame.index > 0, "x"))
    given.to_csv(tmp_path / "other.csv", index=False, sep=";", decimal=decimal)
    expected = transform(made, frame)
    np.testing.assert_array_equal(transform(made, tmp_path / "table.csv"), expected)
    np.testing.assert_array_equal(transform(made, tmp_path / "other.csv")[1:], expected[1:])


@pytest.mark.parametrize("kind", ["category", "text"])
@pytest.mark.parametrize("unit", ["dates", "timedeltas"])
def test_a_date_as_a_string_does_not_depend_on_other_rows(unit: str, kind: str) -> None:
    times = pd.Series(pd.to_timedelta([0, 36, 24, 0] * 10, unit="h")).where(np.arange(40) % 4 < 3)
    frame = pd.DataFrame(
        {"t": times if unit == "timedeltas" else pd.Timestamp("2024-01-05") + times, "a": range(40)}
    )
    made = prepare(frame, kinds={"t": kind})
    whole = transform(made, frame)
    for row in range(4):
        np.testing.assert_array_equal(transform(made, frame.iloc[[row]])[0], whole[row])
    assert len(np.unique(whole[:4, 1:], axis=0)) == 4
    if kind == "category":
        day, days = ("2024-01-05", "2024-01-06") if unit == "dates" else ("0 days", "1 days")
        assert made.columns["t"].values == (day, days, f"{days} 12:00:00", None)


@pytest.mark.parametrize("kind", ["category", "text"])
def test_a_missing_value_in_a_file_leaves_the_digits_of_large_integers(
    kind: str, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"n": [2**60 + 1, 2**60 + 2, 2**60 + 3] * 20, "a": range(60)})
    made = prepare(frame, kinds={"n": kind})
    rows = [f"{n if i else ''},{i}\n" for i, n in enumerate(frame["n"].head(6))]
    (tmp_path / "table.csv").write_text("".join(["n,a\n", *rows]))
    found, expected = transform(made, tmp_path / "table.csv"), transform(made, frame.head(6))
    np.testing.assert_array_equal(found[1:], expected[1:])


@pytest.mark.filterwarnings("ignore:'c' is left out. it is empty")
@pytest.mark.parametrize("kind", KINDS)
def test_words_for_missing_values_alone_are_an_empty_column_but_for_a_category(kind: str) -> None:
    made = prepare(pd.DataFrame({"c": ["?", "-"] * 20, "a": range(40)}), kinds={"c": kind})
    assert made.left_out == ({} if kind == "category" else {"c": "empty"})


def test_a_text_is_learnt_from_few_rows_of_many() -> None:
    """None of them is among the rows that are evenly spaced."""
    texts = pd.Series(np.nan, range(2**15 + 100), dtype=object)
    texts[[7, 101]] = ["a broken pump", "a new pump"]
    made = prepare(pd.DataFrame({"note": texts, "a": range(len(texts))}), kinds={"note": "text"})
    assert " pum" in made.columns["note"].pieces


@pytest.mark.parametrize("values", [[1, 2, 3], [0.5, 1.0, 3.0]])
def test_a_declared_category_of_numbers_is_one_of_numbers_in_a_file(
    values: list[float], tmp_path: Path
) -> None:
    """Beside a missing value pandas writes 3.0 for 3."""
    frame = pd.DataFrame({"n": pd.Categorical(values * 20), "a": range(60)})
    made, rows = prepare(frame), frame.astype({"n": "float64"})
    rows.loc[1, "n"] = np.nan
    rows.to_csv(tmp_path / "table.csv", index=False, sep=";", decimal=",")
    expected = transform(made, rows)
    np.testing.assert_array_equal(expected[[0, 2]], transform(made, frame)[[0, 2]])
    np.testing.assert_array_equal(transform(made, tmp_path / "table.csv"), expected)


@pytest.mark.parametrize("values", [["007", "8"], ["1.0", "2.0"], [2**60, 2**60 + 1], ["1", "?"]])
def test_a_declared_category_of_other_strings_stays_one_of_strings(values: list[Any]) -> None:
    frame = pd.DataFrame({"n": pd.Categorical(values * 20), "a": range(40)})
    made = prepare(frame)
    assert made.texts == ["n"]
    assert made.columns["n"].values == tuple(map(str, values))
