"""Tables: reading, the preparation of each kind of column, trainings and their files."""

import dataclasses
import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
import pyarrow as pa

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.columns import date, feature_records, features, scaling
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model import fitted_model, model_file
from backprop_xp.tables.readers import frames, table_files
from backprop_xp.tables.readers.values import is_string
from backprop_xp.tables.study import evaluation, target as target_column
from backprop_xp.tables.study.problem import Columns, make_problem
from backprop_xp.tables.study.split import units_of
from backprop_xp.tables.study.table_training import train_table
from backprop_xp.training.data import split_rows
from tests import messy_tables

QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 12, "n_iter_no_change": 50}


def train(data: Any, target: str, **given: Any) -> Any:
    """Return the estimator that the command trains; ``given`` are also its columns and dtype."""
    columns = Columns(**{name: given.pop(name) for name in Columns._fields if name in given})
    parameters = {"random_state": 0, **given.pop("parameters", {})}
    parameters |= {name: given.pop(name) for name in ("dtype",) if name in given}
    names = ("task", "test", "validation", "cv")
    rows = {name: given.pop(name) for name in names if name in given}
    seed = parameters["random_state"]
    problem = make_problem(data, target, columns, seed=seed, **rows)
    return train_table(problem, parameters, **given)


def predictions(model: Any, data: Any) -> pd.DataFrame:
    """Return what the command predicts for a table or a file."""
    return model.model_.predictions(read_for(data, model.model_.features))


def read_for(data: Any, made: Features) -> pd.DataFrame:
    """Return a table or a file as the features need it."""
    return table_files.as_table(data, texts=made.texts, numbers=made.numbers).frame


def prepare(data: Any, **given: Any) -> Features:
    """Return the features that a preparation learns."""
    return tables.Preparation(random_state=0, **given).fit(data).features_


def reread(made: Features) -> Features:
    """Return features as a file gives them back."""
    return feature_records.from_bytes(feature_records.to_bytes(made))


def kinds_of(made: Features) -> dict[str, str]:
    """Return the kind of each column in use."""
    return {name: column.kind for name, column in made.columns.items()}


def classes_of(model: Any) -> tuple[Any, ...]:
    """Return the classes of a model as Python objects, none for numbers."""
    classes = model.model_.classes
    return () if classes is None else tuple(classes.tolist())


def transform(made: Features, data: Any) -> np.ndarray:
    """Return the features of a table that may have more columns than the training's."""
    return made.transform(read_for(data, made))


class Killed(BaseException):
    """An error that ends a training like SIGKILL: only the file is left."""


def frame(rows: int = 60) -> pd.DataFrame:
    """Return a table of each kind of column; ``a`` and ``b`` determine ``y``."""
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=rows), draw.choice(["low", "high"], rows)
    table = pd.DataFrame(
        {
            "a": a,
            "b": pd.Series(b).where(draw.random(rows) > 0.1),
            "day": pd.date_range("2020-02-01", periods=rows).strftime("%Y-%m-%d"),
            "text": [
                f"{messy_tables.name(draw)} {messy_tables.name(draw)} {i}" for i in range(rows)
            ],
            "y": np.where(a + (b == "low") > 0.5, "yes", "no"),
        }
    )
    table.loc[3, "a"] = np.nan
    return table


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet", ".feather"])
def test_a_table_is_read_from_each_format_as_it_was_written(tmp_path: Path, ending: str) -> None:
    table, path = frame(), tmp_path / f"table{ending}"
    if ".csv" in ending:
        table.to_csv(path, index=False)
    else:
        (table.to_parquet if ending == ".parquet" else table.to_feather)(path)
    pd.testing.assert_frame_equal(tables.read(path), table)


def rows_of_each_type() -> pd.DataFrame:
    """Return columns of strings, as a file has them: each seven rows are of another type."""
    values = {
        "number": (["", "3", "2.5", "1,234", "-7"], "0"),
        "whole": (["1", "2", "?", "3", ""], "4"),
        "day": (["2020-01-05", "", "2020-02-07", "2021-12-31", "2020-03-01"], "2020-01-01"),
        "code": (["007", "12", "", "A1", "08"], "007"),
        "flag": (["True", "", "False", "true", ""], "True"),
        "text": (["one\ntwo", 'a "b", c', "", "5", "six seven"], "x"),
    }
    return pd.DataFrame(
        {name: [each[i // 7] for i in range(35)] + [last] for name, (each, last) in values.items()}
    )


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".tsv", ".jsonl", ".parquet", ".feather"])
def test_a_file_read_in_pieces_has_the_features_and_the_columns_of_the_whole(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    strings, path = rows_of_each_type(), tmp_path / f"table{ending}"
    typed = tables.read(_written(strings, tmp_path / "typed.csv"))
    made = prepare(typed.assign(number=range(36), whole=range(36), flag=[True, False] * 18))
    assert {*kinds_of(made).values()} == {"number", "date", "category"}
    _written(typed.assign(number=typed.index % 9) if ending[1] in "pf" else strings, path)
    whole = tables.read(path, texts=made.texts)
    (alone,) = tables.read_pieces(path, texts=made.texts)
    monkeypatch.setattr(table_files, "_ROWS", 7)
    pieces = [*tables.read_pieces(path, texts=made.texts)]
    assert [len(frame) for frame, _ in pieces] == [7] * 5 + [1]
    assert [*pieces[2][0].index] == [*range(14, 21)]
    found = np.concatenate([made.transform(frame) for frame, _ in pieces])
    np.testing.assert_array_equal(found, made.transform(whole))
    assert pa.concat_tables([columns for _, columns in pieces]).equals(alone[1])
    if ending[1] in "ct":
        kept = alone[1].to_pandas().fillna("")
        pd.testing.assert_frame_equal(kept, strings, check_dtype=False)


def _written(table: pd.DataFrame, path: Path) -> Path:
    """Write a table in the format of the file's name; an empty string is missing in JSON too."""
    if ".jsonl" in path.name:
        table.replace("", None).to_json(path, orient="records", lines=True)
    elif path.suffix in (".parquet", ".feather"):
        getattr(table, f"to_{path.suffix[1:]}")(path)
    else:
        table.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return path


def test_objects_of_json_lines_may_lack_keys_and_keep_all_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text(f'{{"a": {2**62 + 1}, "b": null}}\n\n{{"c": true, "a": 1}}\n')
    whole = tables.read(path)
    assert whole["a"].tolist() == [2**62 + 1, 1]
    monkeypatch.setattr(table_files, "_ROWS", 1)
    frames = [frame for frame, _ in tables.read_pieces(path)]
    assert [[*frame] for frame in frames] == [["a", "b", "c"]] * 2
    assert frames[1]["c"].tolist() == [True]
    for text, message in (
        ("[1, 2]", "line 1 must have one object"),
        ('{"a": 1}\n{"a": }', "line 2 is not JSON"),
        ('{"a": [1]}', "holds a li"),
    ):
        path.write_text(f"{text}\n")
        with pytest.raises(ValueError, match=rf"table.jsonl: .*{message}"):
            tables.read(path)


DELIMITED = {
    "semicolons and commas": ({"sep": ";", "decimal": ","}, "separator ';', decimal ','"),
    "semicolons and points": ({"sep": ";"}, "separator ';', decimal '.'"),
    "tabs": ({"sep": "\t"}, "separator '\\t', decimal '.'"),
    "bars": ({"sep": "|"}, "separator '|', decimal '.'"),
    "quoted decimal commas": ({"decimal": ","}, "separator ',', decimal ','"),
    "commas": ({}, ""),
}


@pytest.mark.parametrize("name", DELIMITED)
@pytest.mark.parametrize("ending", [".csv", ".csv.bz2"])
def test_separator_and_decimal_are_sniffed_and_reported(
    tmp_path: Path, name: str, ending: str
) -> None:
    options, line = DELIMITED[name]
    table, path, messages = frame(), tmp_path / f"table{ending}", list[str]()
    table["money"] = [1e3 * i + 0.5 for i in range(len(table))]
    table["text"] += ", sold; as seen"
    table.to_csv(path, index=False, **options)
    found = tables.read(tables.TableFile(path, say=messages.append))
    pd.testing.assert_frame_equal(found, table)
    hint = "(sniffed; --separator and --decimal choose others)"
    assert messages == ([f"{path}: {line} {hint}"] if line else [])
    sep, decimal = options.get("sep", ","), options.get("decimal", ".")
    chosen = tables.TableFile(path, separator=sep, decimal=decimal, say=pytest.fail)
    pd.testing.assert_frame_equal(tables.read(chosen), table)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n;x\n1.234,5;7\n12,5;8\n", [1234.5, 12.5]),
        ("n;x\n1.234;7,5\n1.234.567;8,5\n", [1234.0, 1234567.0]),
        ("n;x\n1,234;7\n5,678;8\n", [1.234, 5.678]),
        ('n,x\n"1,234",7\n"5,678",8\n', ["1,234", "5,678"]),
        ("n;x\n1,234;7.5\n5,678;8.5\n", ["1,234", "5,678"]),
        ("n;x\n0.998;7\n0.996;8\n", [0.998, 0.996]),
        ("n\n1.5\n2.5\n", [1.5, 2.5]),
        ("n,x\n1.5,3;4\n2.5,5;6\n", [1.5, 2.5]),
    ],
)
def test_a_comma_is_a_decimal_unless_other_fields_contradict_it(
    tmp_path: Path, text: str, expected: list[Any]
) -> None:
    (tmp_path / "table.csv").write_text(text)
    assert tables.read(tmp_path / "table.csv")["n"].tolist() == expected


@pytest.mark.once
def test_the_wrong_cell_beside_decimal_commas_is_named(tmp_path: Path) -> None:
    made = prepare(pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) / 2}))
    (tmp_path / "table.csv").write_text("a;b\n1,5;1,5\nx;2,5\n")
    with pytest.raises(ValueError, match=r"the column 'a' has 'x' \(row 1\)"):
        transform(made, tmp_path / "table.csv")


@pytest.mark.once
def test_a_target_has_the_decimal_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    rows = "".join(f"{i},5;1,{i:03d}\n" for i in range(100, 160))
    path.write_text(f"x;y\n{rows}")
    model = train(path, "y", parameters=QUICK, validation=path, test=path).model_
    assert model.scale.mean == pytest.approx(1.1295)


def test_the_separator_of_a_wide_table_is_sniffed(tmp_path: Path) -> None:
    names, path = [f"column {i}" for i in range(4_000)], tmp_path / "wide.csv"
    path.write_text("\n".join(";".join(row) for row in (names, ["'a"] * 4_000, ["1,5"] * 4_000)))
    found = tables.read(path)
    assert list(found) == names
    assert found["column 7"].tolist() == ["'a", "1,5"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('"a,b";c\n"1,2";3\n', ["a,b", "c"]),
        ("a, x\tb\n1, 2\t3\n", ["a, x", "b"]),
        ("a;b,c\n1;2,3,4\n5;6\n", ["a", "b,c"]),
        ("a\nhello, you\n", ["a"]),
    ],
)
def test_the_separator_gives_all_lines_the_same_number_of_fields(
    tmp_path: Path, text: str, names: list[str]
) -> None:
    (tmp_path / "table.tsv").write_text(text)
    assert list(tables.read(tmp_path / "table.tsv")) == names


def test_options_of_a_file_override_sniffing(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a;b,c\n1;2,3\n4;5,6\n", encoding="utf-16")
    given = {"separator": ",", "encoding": "utf-16", "decimal": "."}
    assert list(tables.read(tables.TableFile(path, **given))) == ["a;b", "c"]
    path.write_text("name\tn\ncaf\xe9\t1,5\n", encoding="latin1")
    with pytest.raises(
        ValueError, match=r"\(byte 0xe9\): give its encoding, for example --encoding latin1"
    ):
        tables.read(path)
    assert tables.read(tables.TableFile(path, encoding="latin1")).iloc[0].tolist() == [
        "caf\xe9",
        1.5,
    ]
    for wrong in ({"separator": "ab"}, {"decimal": ";"}, {"encoding": "latin0"}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))}.*{next(iter(wrong.values()))}"):
            tables.read(tables.TableFile(path, **wrong))


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".tsv", ".tsv.bz2"])
def test_lines_of_json_and_tabs_are_read_as_they_were_written(tmp_path: Path, ending: str) -> None:
    table, path = frame().assign(code="007", date=frame()["day"]), tmp_path / f"table{ending}"
    if ending.startswith(".jsonl"):
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False, sep="\t")
    messages = list[str]()
    found = tables.read(tables.TableFile(path, say=messages.append))
    pd.testing.assert_frame_equal(found, table)
    assert not messages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('a,b\n1,2\n\n"x\ny",3\n4\n', "line 6 has 1 fields, but the first line has 2"),
        ('a,b\n1,"2,3"\n4\n', "line 3 has 1 fields, but the first line has 2"),
        ("a,b,c\n1,2,3\n\n,\n", "line 4 has 2 fields, but the first line has 3"),
        ('a,b\n1,2\n""\n', "line 3 has 1 fields, but the first line has 2"),
        ('a,b\n1,2\n3,"4\n5,6\n', "EOF inside string"),
        ("5.1,3.5,5.1\n4.9,3.0,4.9\n", "Names such as '5.1' look like values"),
    ],
)
def test_lines_with_other_fields_than_the_first_are_an_error(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(ValueError, match=f"table.csv: .*{message}"):
        tables.read(tmp_path / "table.csv")


def test_a_line_longer_than_a_block_is_read_once(tmp_path: Path) -> None:
    text = "1,2\n" * 1_500_000
    (tmp_path / "table.csv").write_text(f"\r\na,b\n{text}3,{'x' * 3_000_000}\n{text}")
    found = tables.read(tmp_path / "table.csv")
    assert (len(found), found["a"].sum()) == (3_000_001, 3_000_003)
    assert len(found["b"][1_500_000]) == 3_000_000


def test_a_column_of_mixed_types_is_read_as_strings(tmp_path: Path) -> None:
    values = [*(f"{i}.50" for i in range(300_000)), "x"]
    (tmp_path / "table.csv").write_text("n,m\n" + "".join(f"{value},1\n" for value in values))
    assert tables.read(tmp_path / "table.csv")["n"].tolist() == values


def test_the_arrays_of_an_npz_file_are_columns(tmp_path: Path) -> None:
    x, y = np.arange(6.0, dtype=">f8").reshape(3, 2), np.asarray(["a", "b", "a"])
    np.savez(tmp_path / "table.npz", x=x, y=y)
    found = tables.read(tmp_path / "table.npz")
    assert list(found) == ["x_0", "x_1", "y"]
    np.testing.assert_array_equal(found["x_1"], x[:, 1])
    assert found["y"].tolist() == ["a", "b", "a"]


def test_an_npz_file_with_a_pickle_is_an_error_and_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (pytest.fail, ("a pickle was loaded",))

    np.savez(tmp_path / "trap.npz", x=np.asarray([Trap(), Trap()], dtype=object))
    with pytest.raises(ValueError, match=r"trap\.npz: Object arrays cannot be loaded"):
        tables.read(tmp_path / "trap.npz")


@pytest.mark.once
def test_pandas_and_polars_frames_train_like_their_file(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    table = frame()
    table.to_csv(tmp_path / "table.csv", index=False)
    given = [table, polars.from_pandas(table), tmp_path / "table.csv"]
    thetas = [bx.to_host(train(one, "y", parameters=QUICK).theta_) for one in given]
    np.testing.assert_array_equal(thetas[1], thetas[0])
    np.testing.assert_array_equal(thetas[2], thetas[0])
    with pytest.raises(TypeError, match="a pandas or a polars DataFrame, not list"):
        train([[1, 2]], "y")


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pd.Series([1, None, 3], dtype="Int64"), "f"),
        (pd.Series([True, None, False], dtype="boolean"), "f"),
        (pd.Series([True, None, False], dtype=object), "f"),
        (pd.Series([1, 2.5, None], dtype=object), "f"),
        (pd.Series([1, 2.5, None], dtype="float16"), "f"),
        (pd.Series(["a", "b", None], dtype="category"), "O"),
        (pd.Series(["a", 2, None], dtype=object), "O"),
        (pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-03"]).date), "M"),
        (pd.Series(pd.date_range("2020", periods=3, tz="Europe/Berlin")), "M"),
        (pd.Series([None, None, None], dtype=object), "f"),
    ],
)
def test_columns_of_other_dtypes_are_converted_and_keep_missing_values(
    column: pd.Series, kind: str
) -> None:
    found = frames.plain_frame(pd.DataFrame({"x": column}))["x"]
    assert found.dtype.kind == kind
    assert found.dtype != "float16"
    assert found.isna().tolist() == column.isna().tolist()
    if kind == "O":
        assert is_string(found)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.Series([[1], [2]]), r"'x' holds list \(row 0\)"),
        (pd.Series([b"a", b"b"]), "'x' holds bytes"),
        (pd.Series([1j, 2j]), "'x' holds complex"),
    ],
)
def test_a_column_of_other_objects_is_an_error_that_names_it(
    column: pd.Series, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        frames.plain_frame(pd.DataFrame({"x": column}))


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["b", "a", "b"], "classification", ("a", "b")),
        ([True, False, True], "classification", (False, True)),
        ([3, 1, 3], "classification", (1, 3)),
        ([3.0, 1.0, 3.0], "classification", (1, 3)),
        (["3", "1", "3"], "classification", (1, 3)),
        (list(range(11)) * 2, "regression", ()),
        ([0.5, 1.0, 1.0], "regression", ()),
    ],
)
def test_the_values_of_a_target_suggest_its_task(
    values: list[Any], task: str, classes: tuple[Any, ...]
) -> None:
    found = target_column.find_target(pd.Series(values, name="y"))
    assert (found.task, found.classes) == (task, classes)
    assert [type(value) for value in found.classes] == [type(value) for value in classes]


def test_a_given_task_overrides_the_suggested_one() -> None:
    numbers = pd.Series([3, 1, 3, 2, 1, 2], name="y")
    target = target_column.find_target(numbers, "regression")
    assert target.task == "regression"
    assert target.values(numbers).tolist() == [3.0, 1.0, 3.0, 2.0, 1.0, 2.0]
    halves = pd.Series([0.5, 1.5, 0.5, 1.5], name="y")
    assert target_column.find_target(halves, "classification").classes == ("0.5", "1.5")


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


def test_each_kind_of_column_is_found_and_becomes_finite_float32() -> None:
    table = frame(200)
    made = prepare(table.drop(columns="y").assign(same=1, none=np.nan))
    assert kinds_of(made) == {"a": "number", "b": "category", "day": "date", "text": "text"}
    assert made.left_out == {"same": "the same in all rows", "none": "empty"}
    x = transform(made, table)
    assert (x.dtype, x.shape) == (np.float32, (200, made.n_features))
    assert np.isfinite(x).all()
    places = made.feature_indices()
    found = sorted(place for each in places.values() for place in each)
    assert found == list(range(made.n_features))
    # The number: standardized, missing values filled by the median, and an indicator.
    filled = table["a"].fillna(table["a"].median()).to_numpy()
    expected = (filled - filled.mean()) / filled.std()
    np.testing.assert_allclose(x[:, places["a"][0]], expected, rtol=1e-4, atol=1e-5)
    flags = x[:, places["a"][1]]
    assert flags[3] > 1.0
    assert len(np.unique(flags)) == 2
    # The category: a 0 or 1 for each of high, low and missing.
    np.testing.assert_array_equal(x[:, places["b"]].sum(axis=1), 1.0)


def test_a_preparation_that_was_written_and_read_prepares_the_same() -> None:
    table = frame(200).assign(when=pd.date_range("2020", periods=200, tz="UTC", freq="h"))
    table["stamp"] = table["when"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    table["for"] = pd.to_timedelta(np.arange(200), unit="s")
    made = prepare(table)
    again = reread(made)
    np.testing.assert_array_equal(transform(again, table), transform(made, table))
    assert kinds_of(again) == kinds_of(made)


def test_dates_and_strings_of_dates_are_prepared_alike() -> None:
    days = pd.date_range("2020-01-01", periods=200)
    zoned = days.tz_localize("Europe/Berlin")
    written = pd.DataFrame({"day": days.strftime("%Y-%m-%d"), "a": np.arange(200.0)})
    for table in (written, written.assign(day=days), written.assign(day=zoned)):
        made = reread(prepare(table))
        assert kinds_of(made)["day"] == "date"
        expected = transform(made, written.assign(day=days))
        np.testing.assert_array_equal(transform(made, written), expected)


def moments(rows: int = 400) -> pd.Series:
    """Return moments in New York, a missing one, and both hours of the change of the clocks."""
    first = pd.date_range("2020-10-25", periods=rows, freq="37min", tz="America/New_York")
    return pd.Series(first + pd.to_timedelta(np.arange(rows) // 100 * 200, unit="h")).where(
        np.arange(rows) != 3
    )


def test_dates_with_a_time_zone_are_those_of_its_clock(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    when, a = moments(), np.arange(400.0)
    local = pd.DataFrame({"when": when.dt.tz_localize(None), "a": a})
    expected = prepare(local).transform(local)
    assert "when hour" in prepare(local).names()
    table = pd.DataFrame({"when": when, "a": a})
    table.to_csv(tmp_path / "table.csv", index=False)  # offsets of -04:00 and -05:00
    objects = [None if pd.isna(one) else one.to_pydatetime() for one in when]
    fixed = [
        one and one.replace(tzinfo=datetime.timezone(one.utcoffset() or datetime.timedelta()))
        for one in objects
    ]
    frames = [table, polars.from_pandas(table), pa.Table.from_pandas(table)]
    frames += [tables.read(tmp_path / "table.csv")]
    frames += [table.assign(when=pd.Series(one, dtype=object)) for one in (objects, fixed)]
    for one in frames:
        made = reread(prepare(one))
        np.testing.assert_array_equal(transform(made, one), expected)
    # The clock is that of training, whatever the zone of new rows.
    made, utc = prepare(table), table.assign(when=when.dt.tz_convert("UTC"))
    assert tables.described_columns(made)[0]["zone"] == str(when.dt.tz)
    utc.to_csv(tmp_path / "utc.csv", index=False)
    for one in (utc, tables.read(tmp_path / "utc.csv"), tables.read(tmp_path / "table.csv"), local):
        np.testing.assert_array_equal(transform(made, one), expected)


@pytest.mark.once
def test_a_time_zone_without_a_name_is_read_on_its_own_clock_and_an_unknown_one_refused() -> None:
    zone = pytest.importorskip("dateutil.tz").tzoffset("here", 5400)
    when = pd.Series(pd.date_range("2020-01-01", periods=60, freq="7h", tz=zone))
    made = prepare(pd.DataFrame({"when": when}))
    assert made.columns["when"].zone is None
    shown = pd.DataFrame({"when": when.dt.tz_localize(None)})
    np.testing.assert_array_equal(transform(made, shown), made.transform(shown))
    for unknown in ("Mars/Base", "America", "A" * 5000):
        with pytest.raises(ValueError, match=f"the time zone '{unknown[:80]}' of dates"):
            dataclasses.replace(made.columns["when"], zone=unknown)


@pytest.mark.once
def test_a_split_by_time_uses_the_moments_and_not_the_clocks() -> None:
    written = ["2020-01-01 12:00:00+09:00", "2020-01-01 04:00:00+00:00"]
    column = pd.Series([*written, "2020-01-01 00:30:00-05:00"], name="when")
    assert units_of(column, by_time=True).tolist() == [0, 1, 2]


NO_DATE: dict[str, Any] = {
    "strings": lambda days: ([*days.strftime("%Y-%m-%d")], "9999-12-31"),
    "of databases": lambda days: (
        [*days.strftime("%Y-%m-%d 00:00:00.0000000")],
        "9999-12-31 23:59:59.9999999",
    ),
    "in nanoseconds": lambda days: (
        [*days.strftime("%Y-%m-%d 00:00:00.123456789")],
        "9999-12-31 00:00:00.000000000",
    ),
    "the first day": lambda days: ([*days.strftime("%d.%m.%Y")], "01.01.0001"),
    "integers": lambda days: ([*days.strftime("%Y%m%d").astype(int)], 9999_12_31),
    "objects": lambda days: ([*days.date], datetime.date(9999, 12, 31)),
    "moments": lambda days: ([*days.to_pydatetime()], datetime.datetime(9999, 12, 31)),
    "with a zone": lambda days: (
        [*days.strftime("%Y-%m-%dT10:00:00+14:00")],
        "9999-12-31T23:59:59Z",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", NO_DATE)
def test_a_date_that_stands_for_none_is_a_missing_date(name: str) -> None:
    present, none = NO_DATE[name](pd.date_range("2020-01-01", periods=60))
    missing = None if name != "integers" else np.nan
    given = [pd.DataFrame({"until": [*present[:59], one]}) for one in (none, missing)]
    made = [prepare(one) for one in given]
    assert kinds_of(made[0]) == {"until": "date"}
    assert made[0].names() == made[1].names()
    found = [transform(one, table) for one, table in zip(made, given, strict=True)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(transform(made[1], given[0]), found[1])
    seconds = found[0][:, made[0].names().index("until total_seconds")]
    assert np.ptp(seconds) == pytest.approx(58 / np.std(np.arange(59)), rel=0.05)


def test_blocks_of_rows_are_prepared_as_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = frame(100)
    made = prepare(table)
    whole = transform(made, table)
    monkeypatch.setattr(features, "_ROWS", 7)
    np.testing.assert_array_equal(transform(made, table), whole)


def test_numbers_that_are_infinite_in_float32_are_missing_values() -> None:
    table = frame().drop(columns="y")
    made = prepare(table)
    rows = [table.head(5).assign(a=value) for value in (np.nan, np.inf, -np.inf, 1e300)]
    found = [transform(made, row) for row in rows]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
    far = transform(made, table.head(5).assign(a=1e30))
    assert far.max() == scaling.MAX_DEVIATIONS


def test_an_unseen_category_sets_none_of_the_known_ones() -> None:
    table = frame(200).drop(columns="y")
    made = prepare(table)
    places = made.feature_indices()["b"]
    assert not transform(made, table.assign(b="never seen"))[:, places].any()
    assert not transform(made, table.assign(b=7))[:, places].any()
    two_valued = table.assign(b=np.where(table["b"] == "low", "low", "high"))
    made = prepare(two_valued)
    x = transform(made, two_valued.assign(b=["never seen", None, "low", "high"] * 50))
    assert x[:4, made.feature_indices()["b"]].tolist() == [[0, 0], [0, 0], [0, 1], [1, 0]]


def test_numbers_are_strings_in_a_column_that_had_strings_in_training() -> None:
    table = pd.DataFrame({"code": ["7", "x", "8", "7"] * 20, "a": np.arange(80.0)})
    made = prepare(table)
    place = made.feature_indices()["code"]
    given = pd.DataFrame({"code": [7, 8, 7], "a": 1.0})
    expected = transform(made, given.assign(code=["7", "8", "7"]))
    np.testing.assert_array_equal(transform(made, given), expected)
    holed = given.assign(code=[7.0, np.nan, 7.0])
    found = transform(made, holed)
    np.testing.assert_array_equal(found[::2][:, place], expected[::2][:, place])


@pytest.mark.once
def test_codes_keep_their_zeros_in_a_file_of_codes_that_look_like_numbers(tmp_path: Path) -> None:
    codes, path = ["01", "02", "A1"] * 20, tmp_path / "rows.csv"
    table = pd.DataFrame({"code": codes, "a": np.arange(60.0), "y": ["no", "yes", "no"] * 20})
    table.to_csv(path, index=False)
    model = train(path, "y", parameters=QUICK)
    expected = predictions(model, table)
    for rows in ([0, 1], [0, 1, 2]):
        table.iloc[rows].to_csv(path, index=False)
        pd.testing.assert_frame_equal(predictions(model, path), expected.iloc[rows])
        given = ({"validation": part, "test": part} for part in (path, table.iloc[rows]))
        found = [train(table, "y", parameters=QUICK, **one).metadata_["report"] for one in given]
        assert found[0] == found[1]


def test_the_preparation_of_a_string_does_not_depend_on_other_rows() -> None:
    made = prepare(pd.DataFrame({"code": ["3", "4", "A1"] * 20, "a": np.arange(60.0)}))
    rows = [pd.DataFrame({"code": code, "a": 1.0}) for code in ([3.0, 3.5], [3.0, np.inf])]
    expected = transform(made, rows[0].assign(code="3"))[0]
    for one in rows:
        np.testing.assert_array_equal(transform(made, one)[0], expected)


@pytest.mark.parametrize(("first", "step"), [(1_700_000_000_000, 60), (0.0, 1e-3), (-1e12, 1e-2)])
def test_numbers_far_from_zero_keep_their_differences(first: float, step: float) -> None:
    order = np.random.default_rng(0).permutation(200)
    made = prepare(pd.DataFrame({"t": first + step * order, "a": order % 7}))
    place = made.feature_indices()["t"][0]
    x = transform(made, pd.DataFrame({"t": first + step * order, "a": 0.0}))[:, place]
    np.testing.assert_allclose(x, (order - 99.5) / order.std(), atol=1e-2)


def test_moments_a_second_apart_are_different_features() -> None:
    moments = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(200), unit="s")
    table = pd.DataFrame({"when": moments, "a": np.arange(200.0)})
    assert len(np.unique(transform(prepare(table), table.assign(a=0.0)), axis=0)) == 200


def test_numbers_in_common_notations_are_numbers() -> None:
    plain = np.arange(60.0) * 1234
    written = {
        "thousands": [f"{value:,.0f}" for value in plain],
        "money": [f"${value:,.2f}" for value in plain],
        "shares": [f"{value} %" for value in plain],
        "holes": ["?" if i in (3, 9) else f" {value:,}" for i, value in enumerate(plain)],
    }
    table = pd.DataFrame(written)
    made = prepare(table)
    assert set(kinds_of(made).values()) == {"number"}
    x = transform(made, table)
    numbers = pd.DataFrame({"plain": plain})
    expected = prepare(numbers).transform(numbers)
    for column in range(3):
        np.testing.assert_allclose(x[:, [column]], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"'money' has '12 hp' \(row 0\), but a number"):
        transform(made, table.assign(money="12 hp"))


WRITTEN = {
    "1.234,05": lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")),
    "1 234": lambda value: f"{value:,.0f}".replace(",", " "),
    "1\u202f234,5": lambda value: f"{value:,.1f}".translate(str.maketrans(",.", "\u202f,")),
    "1'234.5": lambda value: f"{value:,.1f}".replace(",", "'"),
    "(12)": lambda value: f"({value:.0f})" if value % 2 else f"{value:.0f}",
    "1,5": lambda value: f"{value / 2:.1f}".replace(".", ","),
}
READ: dict[str, Any] = {
    "(12)": lambda value: np.where(value % 2, -value, value),
    "1,5": lambda value: value / 2,
}


@pytest.mark.parametrize("style", WRITTEN)
def test_numbers_of_other_countries_and_of_accounts_are_numbers(style: str) -> None:
    values = np.arange(40.0) * 1235
    written = pd.DataFrame({"x": [WRITTEN[style](value) for value in values]})
    made = reread(prepare(written))
    assert kinds_of(made) == {"x": "number"}
    expected = pd.DataFrame({"x": READ.get(style, np.positive)(values)})
    found = [transform(made, written), prepare(expected).transform(expected)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    # A single row is read like the column, whatever its own string looks like.
    alone = [transform(made, written.iloc[[i]])[0] for i in range(40)]
    np.testing.assert_array_equal(alone, found[0])


@pytest.mark.once
@pytest.mark.parametrize("first", ["E4", "e5", "$E4", "-E4"])
def test_an_exponent_without_digits_before_it_is_no_number(first: str) -> None:
    table = pd.DataFrame({"grade": [first, "A1", "B2", "E4"] * 10})
    assert kinds_of(prepare(table)) == {"grade": "category"}


@pytest.mark.once
def test_a_number_is_read_from_a_file_of_one_row_as_from_the_training_rows(tmp_path: Path) -> None:
    prices = [f"{i}.{(i * 37) % 1000:03d},5" if i else "0,5" for i in range(60)]
    table = pd.DataFrame({"price": prices, "y": ["no", "yes", "no"] * 20})
    model = train(table, "y", parameters=QUICK)
    (tmp_path / "row.csv").write_text("price\n1.037\n")
    found = predictions(model, tmp_path / "row.csv")
    pd.testing.assert_frame_equal(found, predictions(model, pd.DataFrame({"price": ["1037"]})))


@pytest.mark.parametrize(
    "formats",
    [
        ("%b %d, %Y",),
        ("%B %d, %Y",),
        ("%b %d, %Y", "%B %d, %Y"),
        ("%Y-%m-%d", "%d.%m.%Y"),
        ("%Y-%m-%d", "%d/%m/%Y", "%d %b %Y"),
        ("%Y%m%d",),
        ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"),
    ],
    ids=" and ".join,
)
def test_dates_in_all_common_formats_are_dates(formats: tuple[str, ...]) -> None:
    days = pd.date_range("2019-12-05", periods=200, freq="37h").floor("h")
    days = days if "%H" in formats[0] else days.floor("D")
    given = pd.DataFrame(
        {"day": [day.strftime(formats[i % len(formats)]) for i, day in enumerate(days)]}
    )
    made = reread(prepare(given))
    assert kinds_of(made) == {"day": "date"}
    expected = prepare(pd.DataFrame({"day": days})).transform(pd.DataFrame({"day": days}))
    np.testing.assert_allclose(transform(made, given), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(transform(made, given.iloc[[3]]), transform(made, given)[[3]])


@pytest.mark.once
def test_a_single_row_decides_whether_month_or_day_is_first() -> None:
    days = pd.date_range("2020-03-01", "2020-03-12").repeat(4)
    for form, last in (("%d/%m/%Y", "25/03/2020"), ("%m/%d/%Y", "03/25/2020")):
        strings = [*days.strftime(form), last, *days.strftime("%Y-%m-%d")]
        found = date.read_dates(strings, date.find_formats(strings))
        expected = [*days, pd.Timestamp("2020-03-25"), *days]
        np.testing.assert_array_equal(found, np.asarray(expected, dtype="datetime64[us]"))


@pytest.mark.once
def test_integers_in_a_date_format_are_dates_and_other_integers_are_not() -> None:
    days = pd.date_range("2019-01-01", periods=60)
    integers = days.strftime("%Y%m%d").astype(int)
    made = prepare(pd.DataFrame({"day": integers}))
    assert kinds_of(made) == {"day": "date"}
    found = transform(made, pd.DataFrame({"day": integers}))
    np.testing.assert_array_equal(found, transform(made, pd.DataFrame({"day": days})))
    holed = pd.DataFrame({"day": pd.Series(integers).where(integers % 7 > 0)})
    assert kinds_of(prepare(holed)) == {"day": "date"}
    with pytest.raises(ValueError, match=r"'day' has .*20191399.* but a date is expected"):
        transform(made, pd.DataFrame({"day": [20191399]}))
    others = pd.DataFrame({"x": 20190101 + np.arange(60)})  # 20190132 is not a date
    assert kinds_of(prepare(others)) == {"x": "number"}


def test_times_of_day_are_numbers_as_strings_or_objects() -> None:
    moments = pd.date_range("2020-01-01", periods=90, freq="731s")
    expected = pd.DataFrame({"at": (moments - moments.normalize()).total_seconds()})
    given = {
        "hh:mm:ss": moments.strftime("%H:%M:%S"),
        "time": moments.time,
        "hh:mm": moments.floor("min").strftime("%H:%M"),
    }
    for name, values in given.items():
        rounded = expected // 60 * 60 if name == "hh:mm" else expected
        made = prepare(pd.DataFrame({"at": values}))
        assert kinds_of(made) == {"at": "number"}
        found = transform(made, pd.DataFrame({"at": values}))
        np.testing.assert_allclose(found, prepare(rounded).transform(rounded), rtol=1e-6)
    made = prepare(pd.DataFrame({"at": given["hh:mm:ss"]}))
    found = [transform(made, pd.DataFrame({"at": given[name]})) for name in ("hh:mm:ss", "time")]
    np.testing.assert_array_equal(*found)


@pytest.mark.once
def test_codes_that_begin_with_a_zero_stay_strings(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"zip": draw.choice(["00172", "10115", "99999"], 60), "a": np.arange(60)})
    table["sparse"] = table["zip"].where(table.index % 7 > 0)
    table["y"] = table["zip"].map({"00172": "01", "10115": "02", "99999": "10"})
    for name in ("table.csv", "table.tsv"):
        table.to_csv(tmp_path / name, index=False, sep="\t" if name.endswith("tsv") else ",")
        pd.testing.assert_frame_equal(tables.read(tmp_path / name), table)
    for given in (table, tmp_path / "table.csv"):
        model = train(given, "y", parameters=QUICK)
        assert kinds_of(model.model_.features) == {
            "zip": "category",
            "a": "number",
            "sparse": "category",
        }
        assert classes_of(model) == ("01", "02", "10")
    table.iloc[[3]].to_csv(tmp_path / "row.csv", index=False)
    alone = predictions(model, tmp_path / "row.csv")
    pd.testing.assert_frame_equal(alone, predictions(model, table.iloc[[3]]))


@pytest.mark.parametrize("numbers", ["7", "0,5", "1.000", "1.234,5", "(12)"])
def test_a_code_beside_decimal_commas_keeps_its_zeros(tmp_path: Path, numbers: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text("zip;price;code\n" + f"01000;1,5;{numbers}\n" * 4 + "75001;2,5;01000\n")
    table = tables.read(path)
    assert table["zip"].tolist() == ["01000"] * 4 + ["75001"]
    assert table["price"].tolist() == [1.5] * 4 + [2.5]
    assert table["code"].tolist() == [numbers] * 4 + ["01000"]


@pytest.mark.parametrize("values", [[1, 2, 3, None], ["2", "1", "3"], [True, False], [1.5, 2.5]])
def test_declared_categories_are_categories_whatever_their_values(values: list[Any]) -> None:
    polars = pytest.importorskip("polars")
    column = pd.Series(pd.Categorical(values * 12))
    table = pd.DataFrame({"c": column, "a": np.arange(float(len(column)))})
    made = prepare(table)
    assert kinds_of(made) == {"c": "category", "a": "number"}
    expected, at = transform(made, table), made.feature_indices()["c"]
    assert expected[: len(values), at].sum() == len(values)
    # New rows need not be declared, and an integer with missing values is a float.
    for one in (column.astype(object), column.map(str, na_action="ignore")):
        np.testing.assert_array_equal(transform(made, table.assign(c=one)), expected)
    arrow = pa.Table.from_pandas(table)
    assert pa.types.is_dictionary(arrow.schema.field("c").type)
    strings = [None if value is None else str(value) for value in values * 12]
    frames = [arrow]
    if isinstance(values[0], str):
        kinds = polars.Categorical, polars.Enum(sorted(values))
        frames += [polars.DataFrame({"c": polars.Series(strings, dtype=k)}) for k in kinds]
        frames = [arrow, *(one.with_columns(a=table["a"].to_numpy()) for one in frames[1:])]
    for one in frames:
        again = prepare(one)
        assert again.names() == made.names()
        np.testing.assert_array_equal(transform(again, one), expected)


@pytest.mark.once
def test_a_column_of_declared_categories_trains_and_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "table.feather"
    table = frame().assign(c=pd.Categorical(np.arange(60) % 4), y=pd.Categorical([*range(12)] * 5))
    table.to_feather(path)
    found = [train(one, "y", parameters=QUICK) for one in (table, path)]
    assert classes_of(found[0]) == tuple(range(12))
    np.testing.assert_array_equal(found[1].theta_, found[0].theta_)
    pd.testing.assert_frame_equal(predictions(found[0], path), predictions(found[0], table))


def test_words_for_missing_values_are_ordinary_categories_of_a_dataframe(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    words = pd.Series(draw.choice(["NA", "None", "Oslo", "-", None], 100))
    table = pd.DataFrame({"city": words, "number": ["?", "1.5", "NA", "2.5"] * 25})
    made = prepare(table)
    assert kinds_of(made) == {"city": "category", "number": "number"}
    names = [f"city={value}" for value in ("-", "NA", "None", "Oslo", "missing")]
    assert made.names() == ["number", "number missing", *names]
    # A file has no other way to write a missing value: pandas' words are missing there.
    table.to_csv(tmp_path / "table.csv", index=False)
    frames = [tables.read(tmp_path / "table.csv"), pd.read_csv(tmp_path / "table.csv")]
    for one in frames:
        assert prepare(one).names() == ["number", "number missing", *names[::3], names[-1]][:5]
    np.testing.assert_array_equal(*(prepare(one).transform(one) for one in frames))
    # The training decides what a word in new rows is.
    new = pd.DataFrame({"city": ["NA", "None", "-", None, "null"], "number": 1.0})
    assert transform(made, new)[:, -5:].argmax(axis=1).tolist() == [1, 2, 0, 4, 4]
    assert transform(prepare(frames[0]), new)[:, -3:].argmax(axis=1).tolist() == [2, 2, 0, 2, 2]


ARROW: dict[str, pa.Array] = {
    "durations": pa.array([60 * i for i in range(39)] + [None], pa.duration("s")),
    "booleans": pa.array([True, None, False, True] * 10),
    "integers": pa.array([1, 2, None, 3] * 10),
    "decimals": pa.array(map(decimal.Decimal, range(40))),
    "times": pa.array([datetime.time(i % 12, 3) for i in range(40)]),
    "dates": pa.array([datetime.date(2020, 1, 1 + i % 28) for i in range(40)]),
    "strings": pa.array(["a", None, "b", "c"] * 10),
    "a dictionary": pa.array([5, 7, 9, 5] * 10).dictionary_encode(),
}


@pytest.mark.once
@pytest.mark.parametrize("name", ARROW)
def test_a_column_of_arrows_dtype_is_read_as_a_column_of_arrow(name: str) -> None:
    table = pa.table({"x": ARROW[name], "a": np.arange(40.0)})
    typed = table.to_pandas(types_mapper=pd.ArrowDtype)
    typed["x"] = pd.arrays.ArrowExtensionArray(table["x"])
    expected = prepare(table)
    assert expected.names() == prepare(typed).names()
    found = transform(prepare(typed), typed)
    np.testing.assert_array_equal(found, transform(expected, table))
    assert len(np.unique(found[:, expected.feature_indices()["x"]], axis=0)) > 1


@pytest.mark.once
@pytest.mark.parametrize("value", [{"a": 1}, [1, 2], b"a"], ids=str)
def test_a_nested_column_of_arrow_is_an_error_that_names_it(value: Any) -> None:
    column = pd.Series(pd.arrays.ArrowExtensionArray(pa.array([value] * 40)))
    with pytest.raises(
        ValueError, match=r"the column 'x' holds \w+ \(row 0\): numbers, strings or"
    ):
        prepare(pd.DataFrame({"x": column, "a": np.arange(40.0)}))


@pytest.mark.parametrize("ending", ["", "\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_a_code_is_found_at_any_position_in_a_file(tmp_path: Path, quote: str, ending: str) -> None:
    path = tmp_path / "table.csv"
    for rows in (8, 300):  # also behind those that are tried first
        lines = [f"{i},{i}" for i in range(rows)]
        for code, place in (("007", 0), ("007", 1), ("07", 1), (" 07", 0), ("0x1F", 1)):
            last = ["7", "7"]
            last[place] = f"{quote}{code}{quote}"
            path.write_text("\n".join([",n", *lines, ",".join(last)]) + ending)
            found = tables.read(path).iloc[:, place]
            assert found.tolist() == [*map(str, range(rows)), code]
    path.write_text("n,day,at\n1,01.02.2020,00:15\n2,03.04.2020,08:20\n")
    assert tables.read(path)["n"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([" 5", "6 ", "NA"], [5.0, 6.0, None]),
        (["0.1", "1e-3", "-inf"], [0.1, 1e-3, -np.inf]),
        (["18446744073709551615", "1"], [2**64 - 1, 1]),
        (["True", "FALSE"], [True, False]),
        (["True", "", "false"], [1.0, None, 0.0]),
        (["True", "1"], ["True", "1"]),
        (["a", "?", " NA"], ["a", "?", " NA"]),
        (["a", "None", "NA"], ["a", None, None]),
        (["l1\nl2", "x"], ["l1\nl2", "x"]),
        (["x", "l1\nl2\n"], ["x", "l1\nl2\n"]),
        (['a "b"', "x"], ['a "b"', "x"]),
    ],
)
def test_the_fields_of_a_column_decide_its_type(
    tmp_path: Path, fields: list[str], expected: list[Any]
) -> None:
    path = tmp_path / "table.csv"
    pd.DataFrame({"k": 1, "a": fields}).to_csv(path, index=False)
    found = tables.read(path)["a"]
    assert [None if value != value else value for value in found.tolist()] == expected
    assert type(found.tolist()[0]) is type(expected[0])


@pytest.mark.once
@pytest.mark.parametrize("form", ["{:08x}", "id{}", "user{}@example.org", "{:05d}"])
def test_identifiers_are_left_out_and_reported(form: str) -> None:
    messages = list[str]()
    table = frame().assign(key=[form.format(7919 * i) for i in range(60)])
    model = train(table, "y", parameters=QUICK, say=messages.append)
    assert "'key' is left out: it is an identifier" in messages
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day", "text"]


@pytest.mark.parametrize("first", [10**18, -(10**18), 2**63 - 100])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "Int64", "int64[pyarrow]"])
def test_integers_beyond_float64_keep_their_differences(first: int, dtype: str) -> None:
    if first < 0 and dtype == "uint64":
        first = 2**64 - 100
    order = np.random.default_rng(0).permutation(90)
    table = pd.DataFrame({"t": pd.Series([first + int(i) for i in order], dtype=dtype)})
    made = reread(prepare(table))
    found = transform(made, table)[:, 0]
    np.testing.assert_allclose(found, (order - 44.5) / order.std(), rtol=1e-5)
    far = pd.DataFrame({"t": pd.Series([0, 2**63 - 1], dtype=dtype)})
    assert np.isfinite(transform(made, far)).all()
    assert tables.described_columns(made)[0]["center"] == pytest.approx(first)


def test_unsigned_integers_far_apart_keep_their_order() -> None:
    values = 2**63 + 2**31 + 2**31 * np.arange(20, dtype=np.uint64)
    table = pd.DataFrame({"t": values})
    assert (np.diff(transform(prepare(table), table)[:, 0]) > 0.0).all()


def test_metrics_count_only_the_classes_that_occur() -> None:
    shares = np.asarray([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1]])
    found = evaluation.score(3, np.asarray([0, 1, 0]), shares)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["roc_auc"] == pytest.approx(1.0)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.7, 0.4]).mean())
    assert evaluation.score(3, np.asarray([1, 1, 1]), shares)["roc_auc"] is None
    assert evaluation.score(0, np.ones(3), np.ones(3)) == {"r2": None, "rmse": 0.0, "mae": 0.0}


def test_a_loaded_model_predicts_the_same(xp: Any, tmp_path: Path) -> None:
    table, path = frame(), tmp_path / "model.safetensors"
    made = train(table, "y", parameters=QUICK, out=path)
    model = tables.load(path)
    found = predictions(model, table.drop(columns="y"))
    pd.testing.assert_frame_equal(found, predictions(made, table))
    assert list(found) == ["prediction", "probability_no", "probability_yes"]
    np.testing.assert_allclose(found.iloc[:, 1:].sum(axis=1), 1.0, rtol=1e-6)
    assert set(found["prediction"]) == {"yes", "no"}
    assert model.metadata_["report"] == made.metadata_["report"]
    assert model.history_["loss"].shape == (12, 4)
    assert model.history_.keys() == made.history_.keys()


@pytest.mark.once
def test_a_number_is_predicted_in_its_own_unit(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"x": draw.normal(size=400)})
    table["y"] = 5e6 + 1e5 * table["x"]
    fast = {"preset": "fast", "max_iter": 60}
    model = train(table, "y", parameters=fast, out=tmp_path / "m")
    report = model.metadata_["report"]
    assert report["test"]["r2"] > 0.98
    assert report["baseline"]["rmse"] == pytest.approx(1e5, rel=0.2)
    found = predictions(tables.load(tmp_path / "m"), table)
    assert np.abs(found["prediction"] - table["y"]).mean() < 2e4
    assert list(found) == ["prediction"]


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
def test_test_targets_change_nothing_before_the_report() -> None:
    table = frame().assign(y=np.arange(60.0))
    shares = {"test": 0.15, "validation": 0.15}
    training = split_rows(60, shares, 0)["training"]
    held_out = table.index.difference(training)
    thetas = []
    for value in (1.0, 1e9):
        table.loc[held_out, "y"] = value
        model = train(table, "y", parameters={"hidden_layer_sizes": (8,), "max_iter": 1})
        thetas.append(bx.to_host(model.theta_))
        training = table["y"].drop(held_out)
        moments = training.mean(), training.std(ddof=0)
        assert model.model_.scale == pytest.approx(moments, rel=1e-12)
    np.testing.assert_array_equal(*thetas)


@pytest.mark.once
def test_the_linear_model_is_as_good_at_numbers_far_from_zero() -> None:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"x": draw.normal(size=100)})
    table["y"] = 1.7e9 + 10.0 * table["x"]
    report = train(table, "y", parameters=QUICK).metadata_["report"]
    assert report["linear"]["r2"] > 0.99


@pytest.mark.once
@pytest.mark.parametrize("target", ["a", "y"])
def test_a_common_factor_of_all_weights_changes_nothing(target: str) -> None:
    table = frame().drop(columns="text").dropna(subset="a")
    weights = np.linspace(0.5, 1.5, len(table))
    reports = [
        train(table.assign(w=factor * weights), target, parameters=QUICK, weights="w").metadata_
        for factor in (1.0, 1e-6, 1e300)
    ]
    for other in reports[1:]:
        for part in ("validation", "test", "linear", "baseline"):
            expected = reports[0]["report"][part]
            assert other["report"][part] == pytest.approx(expected, rel=1e-4)


@pytest.mark.once
def test_the_report_ignores_rows_of_weight_0(tmp_path: Path) -> None:
    table = frame()
    table["w"] = np.where(table["y"] == "yes", 0.0, 1.0)
    out = tmp_path / "model"
    report = train(table, "y", parameters=QUICK, weights="w", out=out).metadata_["report"]
    assert report["test"]["roc_auc"] is None
    y, weights = np.arange(3.0), np.asarray([0.0, 1.0, 0.0])
    assert evaluation.score(0, y, y + 1.0, weights) == {"r2": None, "rmse": 1.0, "mae": 1.0}


@pytest.mark.once
def test_validation_or_test_rows_without_weight_are_an_error() -> None:
    table = frame().assign(a=np.arange(60.0))
    drawn = split_rows(60, {"test": 0.15, "validation": 0.15}, 0)
    for name, rows in drawn.items():
        weights = np.where(table.index.isin(rows), 0.0, 1.0)
        with pytest.raises(ValueError, match=f"the {name} rows have no weight"):
            train(table.assign(w=weights), "a", parameters=QUICK, weights="w", drop=["y"])


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "a"])
def test_each_metric_of_a_report_is_measured_on_its_named_part(target: str) -> None:
    table = frame(120).dropna(subset="a")
    parts = {"training": table[:60], "validation": table[60:90], "test": table[90:]}
    given = {name: parts[name] for name in ("validation", "test")}
    model = train(parts["training"], target, parameters=QUICK, **given)
    report = model.metadata_["report"]
    assert report["parts"] == {name: len(part) for name, part in parts.items()}
    expected = {
        name: predictions(model, parts[part]) for name, part in report["measured_on"].items()
    }
    targets = {name: parts[part][target] for name, part in report["measured_on"].items()}
    metric = "rmse"
    if target == "y":
        metric, shares = "accuracy", parts["training"]["y"].value_counts()
        expected["baseline"] = expected["baseline"].assign(prediction=shares.idxmax())
        assert sum(one["rows"] for one in model.metadata_["classes"]) == len(parts["test"])
    else:
        mean = parts["training"]["a"].mean()
        expected["baseline"] = expected["baseline"].assign(prediction=mean)
    for name in ("validation", "test", "baseline"):
        found, y = expected[name]["prediction"].to_numpy(), targets[name].to_numpy()
        right = (found == y).mean() if target == "y" else np.sqrt(((found - y) ** 2).mean())
        assert report[name][metric] == pytest.approx(right, rel=1e-5)


@pytest.mark.once
def test_test_rows_change_only_the_report(tmp_path: Path) -> None:
    table = frame(120)
    found = []
    settings = {
        "hidden_layer_sizes": (8,),
        "learning_rate_init": 0.1,
        "max_iter": 50,
        "n_iter_no_change": 5,
    }
    for test in (table[:20], table[20:60]):
        given = {"validation": table[60:80], "test": test}
        found.append(train(table[80:], "y", parameters=settings, **given))
    assert found[0].n_iter_ < 50  # early stopping ended it
    assert found[0].validation_score_ == found[1].validation_score_
    np.testing.assert_array_equal(*[bx.to_host(model.theta_) for model in found])
    one, other = (model.metadata_["report"] for model in found)
    assert one["validation"] == other["validation"]
    assert one["test"] != other["test"]


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
def test_unnamed_row_numbers_are_left_out_and_reported(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "table.csv")
    messages = list[str]()
    model = train(tmp_path / "table.csv", "y", parameters=QUICK, say=messages.append)
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day", "text"]
    assert "'Unnamed: 0' is left out: it is a row number" in messages
    assert len(predictions(model, frame())) == 60
    with pytest.raises(ValueError, match="nothing to learn from"):
        train(tmp_path / "table.csv", "y", features=["Unnamed: 0"])


@pytest.mark.parametrize("columns_there", [10, 5_000])
def test_a_table_may_have_any_width_and_a_repeated_name_is_an_error(
    tmp_path: Path, columns_there: int
) -> None:
    names, path = [f"g{i}" for i in range(columns_there)], tmp_path / "wide.csv"
    row = ",".join("1" * columns_there)
    path.write_text(f"{','.join(names)}\n{row}\n")
    assert tables.read(path).shape == (1, columns_there)
    path.write_text(f"{','.join([*names[:-1], 'g1'])}\n{row}\n")
    with pytest.raises(ValueError, match="two columns are named 'g1'"):
        tables.read(path)


@pytest.mark.once
def test_a_resumed_training_accepts_the_detected_task(tmp_path: Path) -> None:
    path = tmp_path / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    train(frame(), "y", parameters=QUICK, out=path, task="classification", resume=True)


@pytest.mark.once
def test_free_text_accepts_a_seed_of_any_size() -> None:
    settings = {"hidden_layer_sizes": (8,), "max_iter": 1, "random_state": 2**32}
    assert train(frame(), "y", parameters=settings).random_state == 2**32


@pytest.mark.once
def test_features_drop_and_weights_choose_the_columns() -> None:
    table = frame().assign(w=1.0)
    model = train(table, "y", parameters=QUICK, weights="w", drop=["text"])
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day"]
    model = train(table, "y", parameters=QUICK, features=["a", "w"], drop=["w"])
    assert list(kinds_of(model.model_.features)) == ["a"]


@pytest.mark.once
def test_a_row_of_weight_2_counts_twice() -> None:
    table = frame(120).drop(columns=["text"])
    twice = pd.concat([table, table[table["y"] == "yes"]])
    weighted = table.assign(w=np.where(table["y"] == "yes", 2.0, 1.0))
    found = [
        train(one, "y", validation=one, test=one, parameters=QUICK, weights=w).metadata_["report"]
        for one, w in ((twice, None), (weighted, "w"))
    ]
    assert found[0]["baseline"] == pytest.approx(found[1]["baseline"])


@pytest.mark.once
def test_balanced_classes_raise_the_balanced_accuracy() -> None:
    draw = np.random.default_rng(0)
    rare = draw.random(1000) < 0.08
    table = pd.DataFrame({"x": draw.normal(size=1000) + 1.3 * rare, "y": rare})
    settings = {name: {"class_weight": name, "max_iter": 30} for name in (None, "balanced")}
    found = {
        name: train(table, "y", parameters=one).metadata_["report"]["test"]
        for name, one in settings.items()
    }
    assert found["balanced"]["balanced_accuracy"] > found[None]["balanced_accuracy"] + 0.1


@pytest.mark.once
@pytest.mark.parametrize("weights", [None, "w"])
def test_early_stopping_weighs_the_classes_as_training_does(weights: str | None) -> None:
    draw = np.random.default_rng(0)
    rare = draw.random(400) < 0.1
    table = pd.DataFrame({"x": draw.normal(size=400) + rare, "y": rare})
    table["w"] = np.linspace(0.5, 1.5, 400) if weights else 1.0
    training, validation = table[:250], table[250:]
    settings = {"hidden_layer_sizes": (8,), "class_weight": "balanced", "max_iter": 15}
    settings["n_members"] = 1
    given = {"parameters": settings, "weights": weights, "drop": [] if weights else ["w"]}
    model = train(training, "y", validation=validation, test=validation, **given)
    sums = training.groupby("y")["w"].sum()
    each = validation["w"] / validation["w"].mean() / validation["y"].map(sums)
    p = predictions(model, validation)["probability_True"].to_numpy()
    losses = -np.log(np.where(validation["y"], p, 1.0 - p))
    assert model.validation_score_ == pytest.approx(np.average(losses, weights=each), rel=1e-4)


@pytest.mark.compiled
def test_each_member_of_an_ensemble_is_kept_at_its_own_best_epoch(xp: Any, tmp_path: Path) -> None:
    quick = {"hidden_layer_sizes": (8,), "max_iter": 12, "n_members": 3}
    model = train(frame(), "y", parameters=quick, out=tmp_path / "model")
    last = model.history_["validation_loss"]
    assert last.shape == (12, 3)
    assert model.validation_score_ == pytest.approx(last.min(axis=0).tolist(), rel=1e-6)
    assert model.best_iter_ == (last.argmin(axis=0) + 1).tolist()
    assert len(np.unique(last[0])) == 3
    assert tables.load(tmp_path / "model").theta_.shape == (3, model.network_.size)
    report = model.metadata_["report"]["validation"]
    assert report["log_loss"] <= np.mean(model.validation_score_) + 1e-4


@pytest.mark.once
@pytest.mark.parametrize("n_members", [1, 2])
def test_a_training_killed_at_any_epoch_resumes_to_the_same_theta(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_members: int
) -> None:
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    table, path = frame(), tmp_path / "model"
    settings = {"hidden_layer_sizes": (8,), "max_iter": 30, "dropout": 0.2, "n_members": n_members}
    whole = train(table, "y", parameters=settings)
    moments = sorted(np.random.default_rng(0).choice(np.arange(2, 30), 10, replace=False).tolist())
    for moment in [*moments, None]:

        def kill(state: Any, moment: int | None = moment) -> None:
            if state.epoch == moment:
                raise Killed

        try:
            model = train(
                table, "y", parameters=settings, out=path, resume=path.exists(), callbacks=[kill]
            )
        except Killed:
            kept = tables.load(path)
            assert kept.n_iter_ == moment - 1
            assert "report" not in kept.metadata_
    np.testing.assert_array_equal(xp.host(model.theta_), xp.host(whole.theta_))
    assert model.metadata_["report"] == {**whole.metadata_["report"], "model": str(path)}
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(model.history_[name], values)


@pytest.mark.compiled
def test_ctrl_c_keeps_the_best_network_and_the_training_can_be_resumed(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, path, messages = frame(), tmp_path / "model", list[str]()

    def press(state: Any) -> None:
        if state.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(table, "y", parameters=QUICK, out=path, callbacks=[press])
    (note,) = caught.value.__notes__
    assert note.startswith(f"interrupted in epoch 6: {path} has the best network so far")
    assert note.endswith("or command with --resume, continues it.")
    kept = tables.load(path)
    assert kept.history_["loss"].shape == (5, 4)
    assert len(predictions(kept, table)) == len(table)
    model = train(table, "y", parameters=QUICK, out=path, resume=True, say=messages.append)
    assert "resumed after epoch 5" in messages
    whole = train(table, "y", parameters=QUICK)
    np.testing.assert_array_equal(xp.host(model.theta_), xp.host(whole.theta_))


@pytest.mark.once
def test_a_finished_training_is_not_resumed(tmp_path: Path) -> None:
    messages, path = list[str](), tmp_path / "model"
    made = train(frame(), "y", parameters=QUICK, out=path)
    again = train(frame(), "y", parameters=QUICK, out=path, resume=True, say=messages.append)
    assert f"the training in {path} is finished" in messages[-1]
    assert again.metadata_["report"] == made.metadata_["report"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished training."""
    path = tmp_path_factory.mktemp("finished") / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    return path


@pytest.mark.once
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"parameters": {"hidden_layer_sizes": (9,), "max_iter": 12, "n_iter_no_change": 50}},
            "sizes is 9, but the file's training has 8",
        ),
        ({"drop": ["a"]}, "its training had other data"),
        ({"validation": 0.3}, "validation is 0.3, but the file's training has 0.15"),
        ({"test": 0.3}, "test is 0.3, but the file's training has 0.15"),
        ({"test": frame(20)}, "test is a table, but the file's training has 0.15"),
        ({"group": "text"}, "group is text, but the file's training has not given"),
        ({"time": "day"}, "time is day, but"),
        ({"cv": 2}, "cv is 2, but"),
        ({"target": "b"}, "target is b, but the file's training has y"),
        ({"dtype": "float64"}, "dtype is float64, but the file's training has float32"),
        ({"data": frame(200)}, "its training had other data"),  # the batches differ
        ({"data": frame().assign(y=["no", "yes", "or"] * 20)}, "its training had other data"),
        ({"data": frame().sample(frac=1.0, random_state=0)}, "its training had other data"),
        (
            {
                "parameters": {
                    "hidden_layer_sizes": (8,),
                    "max_iter": 12,
                    "n_iter_no_change": 50,
                    "random_state": 1,
                }
            },
            "random_state is 1, but the file's training has 0",
        ),
    ],
)
def test_a_training_is_not_resumed_with_other_data_or_settings(
    finished: Path, changed: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"data": frame(), "target": "y", "parameters": QUICK, "out": finished}
    before = finished.read_bytes()
    with pytest.raises(ValueError, match=f"cannot be resumed: .*{message}"):
        train(**{**given, **changed}, resume=True)
    assert finished.read_bytes() == before


@pytest.mark.once
def test_a_training_is_not_resumed_with_other_validation_or_test_rows(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": frame(), "target": "y", "parameters": QUICK}
    given |= {"out": tmp_path / "model", "validation": frame(20), "test": frame(30)}
    train(**given)
    for name in ("validation", "test"):
        with pytest.raises(ValueError, match=f"resumed: its training had other {name} data"):
            train(**{**given, name: frame(40)}, resume=True)
    train(**given, resume=True)


@pytest.mark.once
def test_a_diverging_training_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    before = path.read_bytes()
    wild = {"learning_rate_init": 1e30, "solver": "sgd", "max_iter": 3}
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lower learning_rate_init"):
        train(frame(), "y", parameters=wild, out=path)
    assert path.read_bytes() == before


def test_a_model_file_without_a_table_is_an_error(xp: Any, tmp_path: Path) -> None:
    network = bx.mlp([2, 1])
    bx.save(tmp_path / "model", network, xp.initialize(network))
    with pytest.raises(bx.CheckpointError, match="it holds no model of a table"):
        tables.load(tmp_path / "model")


@pytest.mark.once
def test_the_report_is_computed_on_the_chosen_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    used, resolve = [], fitted_model.resolve

    def recorded(**where: Any) -> Any:
        used.append(where["backend"])
        return resolve(**where)

    monkeypatch.setattr(fitted_model, "resolve", recorded)
    frame = pd.DataFrame({"a": np.arange(60.0), "y": ["no", "yes"] * 30})
    parameters = {"preset": "fast", "max_iter": 1, "backend": "array-api-strict"}
    train(frame, "y", parameters=parameters)
    assert used == ["array-api-strict"] * 2


@pytest.mark.once
@pytest.mark.parametrize("name", messy_tables.TABLES)
def test_a_messy_table_trains_unchanged_and_beats_the_trivial_baseline(
    tmp_path: Path, name: str
) -> None:
    table, target = messy_tables.TABLES[name]()
    table.to_csv(tmp_path / "table.csv", index=False)
    fast = {"preset": "fast", "n_members": 4}
    model = train(tmp_path / "table.csv", target, parameters=fast, out=tmp_path / "model")
    report = model.metadata_["report"]
    metric = "log_loss" if classes_of(model) else "rmse"
    assert report["test"][metric] < 0.97 * report["baseline"][metric]
    assert len(predictions(tables.load(tmp_path / "model"), table)) == len(table)
