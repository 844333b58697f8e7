"""Bad values and missing columns that predictions read as missing."""

import datetime
import decimal
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from sklearn.base import clone

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.readers import table_files
from tests.commands import run
from tests.table_trainings import QUICK, frame

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def model() -> Any:
    """A model of a number, a category, a date, free text, and a column that is left out."""
    given = frame().assign(same=1)
    made = bx.TabularClassifier("fast", **QUICK, random_state=0, backend="numpy")
    with pytest.warns(UserWarning, match="'same' is left out: it is the same in all rows"):
        return made.fit(given.drop(columns="y"), given["y"])


def rows() -> pd.DataFrame:
    return frame().assign(same=1).drop(columns="y").head(20)


# Values of another kind than the column's, and columns of them.
BAD: dict[str, Any] = {
    "a string among numbers": ("a", lambda column: column.astype(object).where(column != 0, "x")),
    "strings": ("a", lambda column: column.astype("str").where(column.index > 3, "x")),
    "dates in place of numbers": ("a", lambda column: pd.Timestamp("2020-01-01")),
    "a string that is no date": ("day", lambda column: column.where(column.index > 3, "someday")),
    "numbers in place of dates": ("day", lambda column: 7.5),
    "a string among dates": ("day", lambda column: _but_first(pd.to_datetime(column), "soon")),
    "a number among dates": ("day", lambda column: _but_first(pd.to_datetime(column), 7.5)),
    "a date among numbers": ("a", lambda column: _but_first(column, pd.Timestamp("2020-01-01"))),
    "a string among decimals": ("a", lambda column: _but_first(column.map(_decimal), "x")),
}


def _but_first(column: pd.Series, value: Any) -> pd.Series:
    """Return a column of objects with another first value."""
    return column.astype(object).where(column.index > 0, value)


def _decimal(value: float) -> decimal.Decimal | None:
    return None if np.isnan(value) else decimal.Decimal(value)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_an_error_or_by_choice_missing_with_a_warning(name: str, model: Any) -> None:
    column, make = BAD[name]
    given = rows()
    given.loc[0, "a"] = 0.0
    bad = given.assign(**{column: make(given[column])})
    wrong = given.index <= (0 if "among" in name else 3)
    wrong |= "place" in name
    with pytest.raises(ValueError, match=f"the column '{column}' has .*, as in training"):
        model.predict(bad)
    tolerant = clone(model)
    tolerant.__dict__.update(vars(model))
    tolerant.set_params(on_bad_value="missing")
    with pytest.warns(UserWarning, match=rf"the column '{column}' has .* \(row 0\).*: read as mis"):
        found = tolerant.predict_proba(bad)
    with_missing = given.assign(**{column: given[column].mask(wrong)})
    np.testing.assert_array_equal(found, model.predict_proba(with_missing))
    assert np.isfinite(found).all()


def test_a_list_is_an_error_or_by_choice_missing_in_a_column_of_each_kind(model: Any) -> None:
    tolerant = clone(model)
    tolerant.__dict__.update(vars(model))
    tolerant.set_params(on_bad_value="missing")
    for name in ("a", "b", "day", "text"):
        bad = rows().assign(**{name: _but_first(rows()[name], b"x" * 1000)})
        with pytest.raises(ValueError, match=rf"'{name}' holds bytes \(row 0\): numbers, strings"):
            model.predict(bad)
        with pytest.warns(UserWarning, match=rf"'{name}' has b'x+ \(row 0\): read") as caught:
            found = tolerant.predict_proba(bad)
        assert len(str(caught[0].message)) < 200
        missing = rows().assign(**{name: rows()[name].where(rows().index > 0)})
        np.testing.assert_array_equal(found, model.predict_proba(missing))


def test_values_of_several_kinds_in_a_column_mean_what_they_mean_alone() -> None:
    days = pd.Series(pd.date_range("2020-01-01", periods=40))
    minutes = pd.Series(pd.to_timedelta(np.arange(40), unit="min"))
    prices = pd.Series(np.arange(40) / 8.0 + 1.0)
    table = pd.DataFrame(
        {
            "day": days.dt.strftime("%d.%m.%Y"),
            "time": minutes,
            "price": prices.map("{:.4f}".format).str.replace(".", ","),
        }
    )
    made = tables.Preparation().fit(table)
    mixed = table.astype(object)
    mixed.loc[3, "day"], mixed.loc[4, "day"] = days[3], days[4].date()
    mixed.loc[5, "time"], mixed.loc[6, "time"] = "300", datetime.time(0, 6)
    mixed.loc[7, "price"] = decimal.Decimal("1.875")
    np.testing.assert_array_equal(made.transform(mixed), made.transform(table))
    mixed.loc[5, "time"] = "1,360"
    with pytest.raises(ValueError, match=r"'time' has '1,360' \(row 5\), but its decimal sign"):
        made.transform(mixed)


WAY_OUT = 'set_params(on_missing_column="missing") reads the values of a missing column as missing'


def test_a_missing_column_is_an_error_or_by_choice_missing_with_a_warning(model: Any) -> None:
    given = rows()
    tolerant = clone(model)
    tolerant.__dict__.update(vars(model))
    tolerant.set_params(on_missing_column="missing")
    for names in (["a"], ["b", "day"], ["text"], ["a", "same"]):
        lacking = given.drop(columns=names)
        with pytest.raises(ValueError, match="yet now missing") as refused:
            model.predict(lacking)
        assert str(refused.value).endswith(f"{WAY_OUT}.")
        used = ", ".join(repr(name) for name in names if name != "same")
        with pytest.warns(UserWarning, match=f"^missing columns, .* are missing: {used}.$"):
            found = tolerant.predict_proba(lacking)
        expected = model.predict_proba(given.assign(**dict.fromkeys(names, np.nan)))
        np.testing.assert_array_equal(found, expected)
    tolerant.predict(given.drop(columns="same"))  # the model does not use it: no warning
    with pytest.raises(ValueError, match="unseen at fit time"):
        model.predict(given.drop(columns="same").assign(more=1))
    with pytest.raises(ValueError, match="yet now missing") as refused:
        model.predict(pd.DataFrame({"another": [1.0]}))  # another table
    assert WAY_OUT not in str(refused.value)


def test_columns_that_the_training_did_not_have_are_ignored(model: Any) -> None:
    given, more = rows(), [[1]] * 20
    extended = given.assign(more=more)[["more", *given]].assign(same=more)
    expected = model.predict_proba(given)
    np.testing.assert_array_equal(model.predict_proba(extended), expected)
    made, features = model.preparation_, model.preparation_.transform(given)
    np.testing.assert_array_equal(made.transform(extended), features)
    tolerant = clone(model)
    tolerant.__dict__.update(vars(model))
    tolerant.set_params(on_missing_column="missing")
    found = tolerant.predict_proba(extended.drop(columns="same"))
    np.testing.assert_array_equal(found, expected)


def test_a_table_without_names_is_not_filled() -> None:
    x = np.random.default_rng(0).normal(size=(60, 2))
    model = bx.TabularRegressor("fast", **QUICK, on_missing_column="missing").fit(x, x[:, 0])
    with pytest.raises(ValueError, match="has 1 features, but"):
        model.predict(pd.DataFrame(x[:, :1]))


def test_the_choice_is_checked_and_not_part_of_a_training(tmp_path: Path, model: Any) -> None:
    model.save(tmp_path / "model.safetensors")
    loaded = tables.load(tmp_path / "model.safetensors")
    assert (loaded.on_bad_value, loaded.on_missing_column) == ("error", "error")
    for name in ("on_bad_value", "on_missing_column"):
        with pytest.raises(ValueError, match=rf"{name} 'mising' is unknown. Did you"):
            loaded.set_params(**{name: "mising"}).predict(rows())
        loaded.set_params(**{name: "error"})


@pytest.mark.parametrize("name", ["new.csv", "new.tsv.gz", "new.jsonl", "new.parquet"])
def test_the_command_names_the_first_bad_value_of_a_column_by_its_line(
    name: str, model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(table_files, "_ROWS", 7)
    model.save("model.safetensors")
    given = rows().drop(columns="text").assign(a=rows()["a"].astype("str"))
    given.loc[[9, 12, 19], "a"], given.loc[4, "day"] = ["1,5 m", "x", "y"], "soon"
    expected = given.assign(
        a=given["a"].mask(given.index.isin([9, 12, 19])), day=given["day"].mask(given.index == 4)
    )
    for path, table in ((name, given), (f"clean_{name}", expected)):
        if name.endswith("parquet"):
            table.to_parquet(path)
            continue
        text = table.to_csv(index=False, sep="\t" if "tsv" in name else ",")
        if name.endswith("jsonl"):
            text = "\n" + table.to_json(orient="records", lines=True)
        data = f"\n\n{text}".encode()
        Path(path).write_bytes(gzip.compress(data) if "gz" in name else data)
    words = ("predict", "model.safetensors")
    both = ("--on-bad-value", "missing", "--on-missing-column", "missing")
    assert run(*words, name).exit_code == 2
    assert "'soon'" in run(*words, name, *both[2:]).stderr
    assert "no column 'text'" in run(*words, name, *both[:2]).stderr
    done = run(*words, name, *both)
    assert done.exit_code == 0, done.stderr
    assert done.stdout == run(*words, f"clean_{name}", *both[2:]).stdout
    places = ["row 9", "row 4"]
    if "parquet" not in name:
        places = [f"line {row + 4} of {name}" for row in (9, 4)]
    lines = " ".join(done.stderr.split())
    assert lines.count("missing columns, all of whose values are missing: 'text'") == 1
    assert f"the column 'a' has '1,5 m' ({places[0]}), and 2 more: read as missing" in lines
    assert f"the column 'day' has 'soon' ({places[1]}): read as missing" in lines


def test_many_columns_and_any_names_can_be_missing() -> None:
    """Also ``self``, a parameter of pandas' methods; 150 columns bring no further warning."""
    names = ["self", "columns", *(f"c{i}" for i in range(150))]
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 152)), columns=names)
    model = bx.TabularRegressor("fast", **QUICK, random_state=0, on_missing_column="missing")
    model.fit(x, x["self"])
    with pytest.warns(UserWarning, match="'self', 'columns', 'c0'") as caught:
        found = model.predict(x[["c7"]])
    assert len(caught) == 1
    np.testing.assert_array_equal(found, model.predict(x[["c7"]].reindex(columns=names)))


def test_a_bad_value_among_dates_of_digits_changes_no_other_row(tmp_path: Path) -> None:
    """In a file with missing values they are 20240105.0."""
    days = pd.Series([20240105.0, 20240219.0, 20240303.0] * 20)
    frame = pd.DataFrame({"day": days, "y": np.arange(60.0)})
    model = bx.TabularRegressor("fast", **QUICK, random_state=0).fit(frame[["day"]], frame["y"])
    bad = frame["day"].astype("str").where(frame.index != 1, "soon").to_frame()
    bad.to_csv(tmp_path / "bad.csv", index=False)
    expected = model.predict(frame["day"].where(frame.index != 1).to_frame())
    model.set_params(on_bad_value="missing")
    for given in (bad, tables.read(tmp_path / "bad.csv")):
        with pytest.warns(UserWarning, match=r"'day' has 'soon' \(row 1\): read as missing"):
            np.testing.assert_array_equal(model.predict(given), expected)


def test_equal_names_are_refused_beside_a_missing_column(model: Any) -> None:
    given, tolerant = rows(), clone(model)
    tolerant.__dict__.update(vars(model))
    tolerant.set_params(on_missing_column="missing")
    with pytest.raises(ValueError, match=r"unique column names|should match"):
        tolerant.predict(pd.concat([given.drop(columns="b"), given[["a"]]], axis=1))
