"""Readers: files of each format, DataFrames of other libraries, and the types of their columns.

Specifies ``delimited``, ``formats``, ``frames`` and ``cells``.
"""

import datetime
import decimal
import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
import pyarrow as pa
from pyarrow import feather, parquet

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.readers import cells, delimited, frames, table_files
from backprop_xp.tables.readers.cells import is_string
from backprop_xp.tables.readers.row_groups import pieces, row_groups
from tests.helpers import thorough
from tests.table_trainings import (
    QUICK,
    classes_of,
    frame,
    kinds_of,
    predictions,
    prepare,
    train,
    transform,
)


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
    ):
        path.write_text(f"{text}\n")
        with pytest.raises(ValueError, match=rf"table.jsonl: .*{message}"):
            tables.read(path)


@pytest.mark.parametrize("ending", [".jsonl", "frame", thorough(".parquet"), thorough(".feather")])
def test_lists_bytes_and_structs_are_an_error_only_in_a_column_in_use(
    tmp_path: Path, ending: str
) -> None:
    path, nested = tmp_path / f"table{ending}", {"tags": [["x", 1], None], "place": [{"b": 2}] * 2}
    if ending != ".jsonl":
        nested = {"tags": [["x"], None], "place": [{"b": 2}] * 2, "img": [b"\x89", b""]}
    table = frame().assign(**{name: values * 30 for name, values in nested.items()})
    data: Any = table if ending == "frame" else _written(table, path)
    made = train(data, "y", parameters=QUICK, drop=[",".join(nested)])
    expected = predictions(made, frame())
    pd.testing.assert_frame_equal(predictions(made, data), expected)
    chosen = train(data, "y", parameters=QUICK, features=["a,b"])
    assert [*chosen.model_.features.seen] == ["a", "b"]
    for used in ({}, {"drop": [*nested], "group": "tags"}, {"features": ["a"], "weights": "tags"}):
        with pytest.raises(ValueError, match=r"'tags' holds \w+ \((row 0|line 1 of .*)\): numbers"):
            train(data, "y", parameters=QUICK, **used)
    for name in nested:
        clean = frame().assign(**{name: range(60)})
        with pytest.raises(ValueError, match=f"'{name}' holds"):
            train(clean, "y", parameters=QUICK, test=data, validation=data, features=[name])
        with pytest.raises(ValueError, match=f"'{name}' holds"):
            train(data, name, parameters=QUICK, features=["a"])


def test_a_nested_column_of_json_lines_holds_its_values_and_is_kept_as_json(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"a": 1}\n{"a": 2, "b": "x"}\n{"a": 3, "b": [1.5, {"c": null}]}\n')
    ((found, columns),) = tables.read_pieces(path)
    assert found["b"].tolist()[1:] == ["x", [1.5, {"c": None}]]
    assert columns["b"].to_pylist() == [None, '"x"', '[1.5, {"c": null}]']
    assert found["a"].tolist() == [1, 2, 3]


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


@pytest.mark.parametrize(
    ("text", "fallback", "decimal"),
    [
        ("w\ty\n1,500\t0\n", ",", ","),
        ("w\ty\n1.500\t0\n", ",", ","),
        ("w\ty\n1.500\t0,5\n", ",", ","),
        ("w\ty\n1.5\t0\n", ",", "."),
        ("w;y\n1.500;7\n", ",", ","),
        ("w;y\n1,500;7\n", ".", "."),
        ("w;y\n1,5;7\n", ".", ","),
        ("w;y\n1,5;7.5\n", ",", ","),
        ("w,y\n3,4\n", ",", ","),
    ],
)
def test_a_decimal_sign_that_the_file_leaves_open_is_the_fallback(
    tmp_path: Path, text: str, fallback: str, decimal: str
) -> None:
    path, lines = tmp_path / "table.tsv", list[str]()
    path.write_text(text)
    file = tables.TableFile(path, say=lines.append, fallback_decimal=fallback)
    assert tables.read(file).attrs["decimal"] == decimal
    differs = decimal != tables.read(path).attrs["decimal"]
    assert ["so it is that of the training" in line for line in lines] in ([differs], [])
    assert lines or not differs
    with pytest.raises(ValueError, match=r"fallback_decimal must be '\.' or ',', not ';'"):
        tables.TableFile(path, fallback_decimal=";")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_separator_that_excel_declares_is_not_a_row(
    tmp_path: Path, mark: str, end: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(f"{mark}sep=|{end}a,b|y{end}1,2|3{end}x|4{end}".encode())
    assert tables.read(path).to_dict("list") == {"a,b": ["1,2", "x"], "y": [3, 4]}
    assert table_files.place_of(tables.TableFile(path), 1) == f"line 4 of {path}"
    path.write_bytes(f"{mark}sep=;{end}a;b{end}1;2;3{end}".encode())
    with pytest.raises(ValueError, match="line 3 has 3 fields, but the first line has 2"):
        tables.read(path)


@pytest.mark.once
def test_the_wrong_cell_beside_decimal_commas_is_named(tmp_path: Path) -> None:
    made = prepare(pd.DataFrame({"a": np.arange(40.0), "b": np.arange(40.0) / 2}))
    (tmp_path / "table.csv").write_text("a;b\n1,5;1,5\nx;2,5\n")
    with pytest.raises(ValueError, match=r"the column 'a' has 'x' \(row 1\)"):
        transform(made, tmp_path / "table.csv")


def test_the_separator_of_a_wide_table_is_sniffed(tmp_path: Path) -> None:
    names, path = [f"{i:0200}" for i in range(600)], tmp_path / "wide.csv"
    path.write_text("\n".join(";".join(row) for row in (names, ["'a"] * 600, ["1,5"] * 600)))
    found = tables.read(path)
    assert list(found) == names
    assert found[names[7]].tolist() == ["'a", "1,5"]


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
    for wrong, message in (
        ({"separator": "ab"}, "separator must be one ASCII character, not 'ab'"),
        ({"decimal": ";"}, "decimal must be .*, not ';'"),
        ({"encoding": "latin0"}, "unknown encoding: latin0"),
        ({"encoding": "rot13"}, "'rot13' is not a text encoding"),
    ):
        with pytest.raises(ValueError, match=message):
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
    text = "1,2\n" * 500_000
    (tmp_path / "table.csv").write_text(f"\r\na,b\n{text}3,{'x' * 3_000_000}\n{text}")
    found = tables.read(tmp_path / "table.csv")
    assert (len(found), found["a"].sum()) == (1_000_001, 1_000_003)
    assert len(found["b"][500_000]) == 3_000_000


def test_a_column_of_mixed_types_is_read_as_strings(tmp_path: Path) -> None:
    values = [*(f"{i}.50" for i in range(300_000)), "x"]
    (tmp_path / "table.csv").write_text("n,m\n" + "".join(f"{value},1\n" for value in values))
    assert tables.read(tmp_path / "table.csv")["n"].tolist() == values


# A column, and bytes of one of its buffers with others in their place.
DAMAGED = {
    "an offset of strings": (pa.array([*"abcdefgh"]), 1, np.int32([2, 3]), np.int32([2, 2**30])),
    "a code of categories": (
        pa.array([*"abcdabcd"]).dictionary_encode(),
        1,
        np.int32([1, 2]),
        np.int32([1, 99]),
    ),
    "an offset of lists": (pa.array([[1, 2]] * 8), 1, np.int32([4, 6]), np.int32([4, 2**30])),
    "a byte of strings": (pa.array([*"abcdefgh"]), 2, b"cd", b"c\xff"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_arrow_column_is_an_error_with_the_name_of_its_file(
    tmp_path: Path, name: str
) -> None:
    """pyarrow reads any offset: a conversion of such a column ends the process."""
    column, buffer, old, new = DAMAGED[name]
    path, table = tmp_path / "rows.feather", pa.table({"x": column, "a": np.arange(8.0)})
    feather.write_feather(table, path, compression="uncompressed")
    content, part = path.read_bytes(), column.buffers()[buffer].to_pybytes()
    start = content.index(part) + part.index(bytes(old))
    path.write_bytes(content[:start] + bytes(new) + content[start + len(bytes(new)) :])
    for read in (tables.read, lambda path: next(tables.read_pieces(path))):
        with pytest.raises(
            ValueError, match=rf"{re.escape(str(path))}: the column 'x' is damaged: .+"
        ) as caught:
            read(path)
        assert "\n" not in str(caught.value)
    in_memory = feather.read_table(path)
    typed = pd.DataFrame({"x": pd.arrays.ArrowExtensionArray(in_memory["x"])})
    model = bx.tables.Preparation()
    for given in (in_memory, in_memory.to_batches()[0], typed):
        with pytest.raises(ValueError, match="the column 'x' is damaged: "):
            model.fit(given)


@pytest.mark.parametrize("read", [tables.read, lambda path: [*pieces(row_groups(path)[0], ["x"])]])
def test_a_damaged_parquet_file_is_an_error_with_its_name(tmp_path: Path, read: Any) -> None:
    path = str(tmp_path / "rows.parquet")
    wrong = pa.py_buffer(b"ab\xff")
    column = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(np.int32([0, 1, 2, 3])), wrong]
    )
    parquet.write_table(pa.table({"x": column}), path)
    with pytest.raises(
        ValueError, match=rf"{re.escape(path)}: the column 'x' is damaged: Invalid UTF8"
    ):
        read(path)
    parquet.write_table(pa.table({"x": np.arange(1000.0)}), path, use_dictionary=False)
    content = bytearray(Path(path).read_bytes())
    content[50:300] = bytes(250)  # in the compressed page of the column
    Path(path).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(path)}: .*[Cc]ompress"):
        read(path)


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
    with pytest.raises(ValueError, match=r"trap\.npz: the array 'x': it holds Python objects"):
        tables.read(tmp_path / "trap.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 2, 2))}, r"the array 'x' has shape \(2, 2, 2\): \(rows,\) or"),
        ({"x": np.empty((0, 10**9))}, r"the array 'x' has shape \(0, 1000000000\): "),
        ({"x": np.zeros((2, 2)), "x_1": np.zeros(2)}, "two columns are named 'x_1'"),
        ({"x": np.zeros(2, "datetime64")}, "must have a unit"),
        ({"x": np.asarray(["\ud800"])}, "surrogates"),
        ({"x": np.zeros(2), "y": np.zeros(3)}, "same length"),
        ({"x": np.zeros(2, complex)}, "complex128"),
    ],
)
def test_arrays_that_are_no_table_are_an_error_with_the_name_of_the_file(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    np.savez(tmp_path / "rows.npz", **arrays)
    with pytest.raises(ValueError, match=rf"rows\.npz: .*{message}") as caught:
        tables.read(tmp_path / "rows.npz")
    assert "\n" not in str(caught.value)


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
        (pd.Series([True, pd.NA, False], dtype=object), "f"),
        (pd.Series([1, pd.NA, 2.5], dtype=object), "f"),
        (pd.Series([1, 2.5, None], dtype=object), "f"),
        (pd.Series([1, 2.5, None], dtype="float16"), "f"),
        (pd.Series([1, 2.5, None], dtype="longdouble"), "f"),
        (pd.Series([1, decimal.Decimal("2.5"), None], dtype=object), "f"),
        (pd.Series(["a", "b", None], dtype="category"), "O"),
        (pd.Series(["a", 2, None], dtype=object), "O"),
        (pd.Series(pd.to_datetime(["2020-01-01", None, "2020-01-03"]).date), "M"),
        (pd.Series([np.datetime64("2020-01-01"), None, datetime.date(2020, 1, 3)]), "M"),
        (pd.Series([datetime.time(1), None, datetime.timedelta(1)]), "m"),
        (pd.Series(pd.date_range("2020", periods=3, tz="Europe/Berlin")), "M"),
        (pd.Series([None, None, None], dtype=object), "f"),
    ],
)
def test_columns_of_other_dtypes_are_converted_and_keep_missing_values(
    column: pd.Series, kind: str
) -> None:
    found = frames.plain_frame(pd.DataFrame({"x": column}))["x"]
    assert found.dtype.kind == kind
    assert found.dtype not in ("float16", "longdouble")
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
    found = frames.plain_frame(pd.DataFrame({"x": column, "a": [1, 2]}))
    frames.require_plain(found, ["a"])
    with pytest.raises(ValueError, match=message):
        frames.require_plain(found)


DAY = pd.Timestamp("2020-03-01")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([DAY, "unknown"], r"has 'unknown' \(row 1\), but other values are dates"),
        (["unknown", DAY, DAY], r"has 'unknown' \(row 0\), but other values are dates"),
        ([None, DAY.date(), 7.5], r"has 7.5 \(row 2\), but other values are dates"),
        ([decimal.Decimal(3), "x"], r"has 'x' \(row 1\), but other values are numbers"),
        (["x", "y", datetime.time(3)], r"has .*time.* \(row 2\), but other values are strings"),
        ([DAY, [1], "x"], r"holds list \(row 1\)"),
    ],
)
def test_a_fit_to_a_column_of_mixed_values_names_the_one_that_differs(
    values: list[Any], message: str
) -> None:
    given = pd.DataFrame({"x": pd.Series(values, dtype=object), "a": np.arange(len(values))})
    with pytest.raises(ValueError, match=f"the column 'x' {message}"):
        prepare(given)
    model = bx.TabularRegressor("fast", **QUICK, validation_fraction=0.5)
    with pytest.raises(ValueError, match=f"the column 'x' {message}"):
        model.fit(given, given["a"])


ROWS_OF_COMMAS = [
    (["1,234", "2,345", "007"], [1.234, 2.345, 7.0]),
    (["1.234", "1.234,5", "007"], [1234.0, 1234.5, 7.0]),
    (["1,234", "?", "007"], [1.234, np.nan, 7.0]),
]


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:'a' is left out")
@pytest.mark.parametrize(("cells", "values"), ROWS_OF_COMMAS)
def test_a_table_that_was_read_knows_the_decimal_sign_of_its_strings(
    tmp_path: Path, cells: list[str], values: list[float]
) -> None:
    """A code keeps the column strings, which the model reads as numbers."""
    x = np.linspace(0.5, 9.0, 60)
    model = bx.TabularRegressor("fast", **QUICK, random_state=0)
    model.fit(pd.DataFrame({"x": x, "a": x}), x)
    (tmp_path / "new.csv").write_text("x;a\n" + "".join(f"{cell};1,5\n" for cell in cells))
    read = tables.read(tmp_path / "new.csv")
    assert read["x"].dtype == "str"
    expected = model.predict(pd.DataFrame({"x": values, "a": 1.5}))
    np.testing.assert_array_equal(model.predict(read), expected)
    later = read.assign(a=read["a"] + 0.0).iloc[::-1].reset_index(drop=True)
    rounding = 1e-6  # of float32: a product rounds a row otherwise at another position
    np.testing.assert_allclose(model.predict(later), expected[::-1], rtol=rounding)
    # Rows of which all are numbers teach numbers too, and so do validation rows.
    part = read[read["x"] != "007"]
    made = prepare(pd.concat([part] * 20))
    assert made.columns["x"].style is None
    assert tables.described_columns(made)[0]["center"] == pytest.approx(np.nanmean(values[:2]))
    model.fit(pd.DataFrame({"x": x, "a": x}), x, X_val=read, y_val=[1.0, 2.0, 3.0])


@pytest.mark.once
def test_a_number_whose_decimal_sign_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    x = np.linspace(0.5, 9.0, 60)
    model = bx.TabularRegressor("fast", **QUICK, random_state=0).fit(pd.DataFrame({"x": x}), x)
    for cell in ("1,234", " 12,345 ", "-1,234"):
        with pytest.raises(ValueError, match=rf"'x' has '{cell}' \(row 1\), but its decimal sign"):
            model.predict(pd.DataFrame({"x": ["0.5", cell]}))
    clear = pd.DataFrame({"x": ["1.234", "1,234.5", "1,234,567", "$5", "12 %", "(3)"]})
    expected = model.predict(pd.DataFrame({"x": [1.234, 1234.5, 1234567.0, 5.0, 12.0, -3.0]}))
    np.testing.assert_array_equal(model.predict(clear), expected)
    # A column that was strings in training has the style that training learnt.
    for given, center in ((["1,234", "2,345"], 1789.5), (["1,234", "2,3"], 1.767)):
        made = prepare(pd.DataFrame({"x": given * 30}))
        assert tables.described_columns(made)[0]["center"] == pytest.approx(center)
        assert np.isfinite(made.transform(pd.DataFrame({"x": ["1,234"]}))).all()


@pytest.mark.once
def test_strings_that_python_reads_as_numbers_are_numbers_but_for_underscores() -> None:
    column = pd.Series(["1e3", "inf", "-1_000", "1_0.5", None], dtype="str")
    found, wrong = cells.numbers(column)
    np.testing.assert_array_equal(found, [1000.0, np.inf, np.nan, np.nan, np.nan])
    assert wrong.tolist() == [False, False, True, True, False]


FIELDS = [
    *("1", "-2", "+3", "1.5", "1,5", "1e3", ".5", "5.", "1,234", "1.234,5", "1 234", "$5", "(12)"),
    *("007", "0", "0.5", "0x1F", "1_000", "inf", "-inf", "1e999", "18446744073709551615", "--5"),
    *(
        "true",
        "TRUE",
        "False",
        "tRuE",
        "yes",
        "12:30",
        " 7 ",
        "\u00a07",
        "\uff17",
        "",
        "NA",
        "?",
        "a",
    ),
]


@pytest.mark.once
@pytest.mark.parametrize("decimal", [".", ","])
def test_a_file_has_the_numbers_and_booleans_that_the_values_of_its_strings_have(
    decimal: str,
) -> None:
    """Arrow's conversion is the faster one: it may leave numbers to the other, and adds none."""
    converted = 0
    for one, other in itertools.combinations_with_replacement(FIELDS, 2):
        found = delimited.typed(pa.table({"x": [one, other]}), (), decimal)["x"]
        column = pd.Series([one, other], dtype="str")
        if found.dtype.kind in "iuf":
            style = cells.find_style(cells.distinct(column)[0], decimal)
            assert style is not None, (one, other)
            expected, _ = cells.numbers(column, style)
            np.testing.assert_array_equal(np.asarray(found, "float64"), expected, str((one, other)))
        elif found.dtype.kind == "b":
            booleans = cells.booleans(column)
            assert booleans is not None
            assert found.tolist() == booleans.tolist()
        converted += found.dtype.kind in "biuf"
    assert converted > 50


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


@pytest.mark.parametrize("columns_there", [10, 1_100])
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
