"""The C file of a tabular estimator, compiled, predicts as the estimator does from raw rows.

Specifies ``c_lookup``, ``c_row`` and ``c_table_program``.
"""

import math
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")
pytest.importorskip("onnxruntime")

import pandas as pd

import backprop_xp as bx
from backprop_xp.files.c_export.c_source import string_in_c
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.export.c_row import fields_of, rows_in_c
from tests import messy_tables
from tests.c_programs import STRICT, compile_c
from tests.commands import run
from tests.files.test_c_file import assert_no_shared_name, names_of_networks, rests
from tests.helpers import HANGING, thorough
from tests.tables.export.test_graph import QUICK, edges, feed, many_codes, strange

pytestmark = [pytest.mark.c_compiler, pytest.mark.once]

# Relative to the largest output: C sums in another order, and has other exponentials.
CLOSE = {"float32": 1e-6, "float64": 1e-13}


def check(model: Any, frame: pd.DataFrame, folder: Path) -> None:
    """Assert that the C file of a model predicts as the model does, without a warning."""
    bx.tables.export_c(folder / "model.c", model, test=frame)
    compile_c(folder, "model_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([folder / "right"], timeout=HANGING).returncode == 0
    (folder / "main.c").write_text(_program(model, frame))
    compile_c(folder, "main.c", [*STRICT, "-o", "main"])
    done = subprocess.run(
        [folder / "main"], capture_output=True, text=True, check=True, timeout=HANGING
    )
    found = np.asarray([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
    atol = CLOSE[str(model.theta_.dtype)]
    if isinstance(model, bx.TabularRegressor):
        expected = model.predict(frame)
        atol *= np.max(np.abs(expected))
        np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=atol)
        return
    np.testing.assert_allclose(found[:, 1:], model.predict_proba(frame), rtol=0, atol=atol)
    classes = model.classes_[found[:, 0].astype(int)]
    assert classes.tolist() == model.predict(frame).tolist()


def _program(model: Any, frame: pd.DataFrame) -> str:
    """Return a program that prints the predictions of rows."""
    inputs, columns = feed(model, frame), model.preparation_.columns_
    fields = fields_of(columns)
    rows = []
    for i in range(len(frame)):
        cells = []
        for name, column in columns.items():
            value = inputs[name][i]
            if isinstance(column, Category):
                cells.append(string_in_c(value))
            elif fields[name][0] == "double":
                text = "NAN" if math.isnan(value) else repr(float(value))
                cells.append(text.replace("inf", "INFINITY"))
            else:
                cells.append("LLONG_MIN" if value == -(2**63) else f"{value}LL")
        rows.append(f"        {{{', '.join(cells)}}},")
    is_number = isinstance(model, bx.TabularRegressor)
    count = 0 if is_number else len(model.classes_)
    call = 'printf("%.17g", model_predict(rows + i));'
    if not is_number:
        call = f'double y[{count}];\n        printf("%d", model_predict(rows + i, y));'
        call += f'\n        for (int j = 0; j < {count}; ++j) printf(" %.17g", y[j]);'
    lines = [
        '#include "model.c"',
        "#include <limits.h>",
        "#include <stdio.h>",
        "int main(void)",
        "{",
    ]
    lines += ["    static const model_row rows[] = {", *rows, "    };"]
    lines += [f"    for (int i = 0; i < {len(frame)}; ++i) {{", f"        {call}"]
    lines += ['        printf("\\n");', "    }", "    return 0;", "}"]
    return "\n".join([*lines, ""])


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"n_members": 3}, lambda frame: frame["city"]),
        ({"n_members": 1, "dtype": "float64"}, lambda frame: frame["is open"]),
    ],
    ids=["three classes of three members", "booleans in float64"],
)
def test_the_file_predicts_as_the_estimator_from_columns_of_all_kinds(
    given: Any, target: Any, tmp_path: Path
) -> None:
    frame = edges()
    columns = [name for name in frame if name not in ("local",)]
    model = bx.TabularClassifier("fast", **QUICK, **given).fit(frame[columns], target(frame))
    check(model, frame[columns].iloc[:40], tmp_path)
    check(model, strange(frame)[columns], tmp_path)


@pytest.mark.parametrize(
    ("name", "kind", "columns"),
    [
        thorough("penguins", bx.TabularClassifier, ["island", "sex"]),
        thorough("wines", bx.TabularRegressor, ["alcohol", "hue"]),
    ],
)
def test_the_file_of_a_messy_table_predicts_as_the_estimator(
    name: str, kind: Any, columns: list[str], tmp_path: Path
) -> None:
    frame, target = messy_tables.TABLES[name]()
    frame = frame.iloc[:300]
    model = kind("fast", **QUICK).fit(frame[columns], frame[target])
    check(model, frame[columns].iloc[:60], tmp_path)


def test_the_file_has_codes_of_any_number(tmp_path: Path) -> None:
    model, rows = many_codes("chosen")
    check(model, rows, tmp_path)


def test_the_rows_of_a_category_of_numbers_have_its_strings() -> None:
    frame = pd.DataFrame({"b": [True, False] * 30, "n": [1.0, 2.5, np.nan] * 20})
    chosen = {"b": "category", "n": "category"}
    model = bx.TabularRegressor("fast", **QUICK, kinds=chosen).fit(frame, np.arange(60.0))
    assert rows_in_c(model.model_, frame.head(3)) == ['{"1", "1"}', '{"0", "2.5"}', '{"1", ""}']
    assert model.preparation_.columns_["b"].values == ("0", "1")


def test_free_text_is_refused_with_the_way_out(tmp_path: Path) -> None:
    texts = [f"{i} green bottles" for i in range(60)]
    frame = pd.DataFrame({"c": texts, "a": np.arange(60.0)})
    model = bx.TabularClassifier("fast", **QUICK).fit(frame, frame["a"] > 30.0)
    with pytest.raises(ValueError, match=r"C has no operations for the kind 'text' of .*--drop c"):
        bx.tables.export_c(tmp_path / "model.c", model)
    assert not list(tmp_path.iterdir())


def test_fields_have_names_of_their_own_in_c(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0).normal(size=(60, 4))
    frame = pd.DataFrame(numbers, columns=["class", "Price (€)", "price", "2nd */"])
    model = bx.TabularRegressor("fast", **QUICK).fit(frame, frame["price"])
    fields = [field for _, field in fields_of(model.preparation_.columns_).values()]
    assert fields == ["class_2", "price", "price_2", "column_2nd"]
    check(model, frame.iloc[:5], tmp_path)


def test_comments_say_what_a_field_holds(tmp_path: Path) -> None:
    times = pd.date_range("2024-03-01", periods=60, freq="D")
    frame = pd.DataFrame({"when": times, "where": ["a", "b"] * 30})
    frame["there"] = times.tz_localize("Europe/Berlin")
    model = bx.TabularRegressor("fast", **QUICK).fit(frame, np.arange(60.0))
    bx.tables.export_c(tmp_path / "model.c", model)
    text = (tmp_path / "model.c").read_text()
    assert "long long when; /* 'when', microseconds since 1970 */" in text
    assert "long long there; /* 'there', microseconds since 1970 in Europe/Berlin */" in text
    assert "const char *where; /* 'where' */" in text
    assert "Missing values are NAN, NULL or" in text


def test_a_column_can_be_named_by_any_word_of_c_and_cxx(tmp_path: Path) -> None:
    words = "typeid wchar_t and_eq const_cast nullptr requires char8_t typeof linux unix errno int"
    numbers = np.random.default_rng(0).normal(size=(60, len(words.split())))
    frame = pd.DataFrame(numbers, columns=words.split())
    model = bx.TabularRegressor("fast", **QUICK).fit(frame, frame["int"])
    bx.tables.export_c(tmp_path / "model.c", model)
    (tmp_path / "main.c").write_text('#include <errno.h>\n#include "model.c"\n')
    for options in (["-std=gnu11"], ["-x", "c++", "-std=c++20"]):
        compile_c(tmp_path, "main.c", [*options, "-Wall", "-Wextra", "-Werror", "-c"])


def test_a_value_with_a_nul_is_not_taken_for_the_string_before_it(tmp_path: Path) -> None:
    values = ["a", *(f"a\0{letter}" for letter in "bcdef")]
    frame = pd.DataFrame({"c": values * 20})
    model = bx.TabularRegressor("fast", **QUICK).fit(frame, np.arange(120.0) % 6)
    check(model, frame.iloc[:1], tmp_path)


def test_the_file_of_a_table_has_no_name_of_another_model(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": np.arange(60.0), "b": ["x", "y", "z"] * 20})
    model = bx.TabularRegressor("fast", **QUICK, n_members=2).fit(frame, frame["a"])
    bx.tables.export_c(tmp_path / "model.c", model, name="z")
    names = rests(tmp_path / "model.c")
    assert names > {"row", "mean", "is_missing", "column_1_codes"}
    assert_no_shared_name(names | names_of_networks(tmp_path))


def test_the_command_writes_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": np.arange(60.0)})
    model = bx.TabularClassifier("fast", **QUICK).fit(frame, frame["a"] > 30.0)
    model.save("model.safetensors")
    done = run("export", "model.safetensors", "written.c")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert done.stderr == "1 column to predictions, written to written.c\n"
    bx.tables.export_c("model.c", model)
    assert Path("written.c").read_text() == Path("model.c").read_text()
    assert run("export", "model.safetensors", "written.c", "--name", "other").exit_code == 0
    bx.tables.export_c("other.c", model, name="other")
    assert Path("written.c").read_text() == Path("other.c").read_text()


def test_the_command_writes_a_test_with_the_rows_of_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2024-01-01", periods=60, unit="us")
    frame = pd.DataFrame({"a": np.arange(60.0), "code": ["01", "1", "x"] * 20, "day": days})
    frame["same"] = 1  # the model does not use it
    with pytest.warns(UserWarning, match="'same' is left out"):
        model = bx.TabularRegressor("fast", **QUICK).fit(frame, frame["a"].rename("y"))
    model.save("model.safetensors")
    given = frame.drop(columns="same").assign(more="[]")
    given.iloc[:5, 0] = np.nan
    given.to_csv("rows.csv", index=False, sep=";", encoding="utf-16")
    words = ("export", "model.safetensors", "written.c", "--name", "own")
    done = run(*words, "--test", "rows.csv", "--encoding", "utf-16")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert done.stderr.endswith("a test of it with 32 rows, written to written_test.c\n")
    bx.tables.export_c("model.c", model, name="own", test=frame.assign(a=given["a"]))
    expected = Path("model_test.c").read_text().replace("model.c", "written.c")
    assert Path("written_test.c").read_text() == expected
    compile_c(tmp_path, "written_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0
    wrong = Path("written_test.c").read_text().replace("{NAN,", "{1.0,", 1)
    Path("written_test.c").write_text(wrong)
    compile_c(tmp_path, "written_test.c", [*STRICT, "-o", "wrong"])
    assert subprocess.run([tmp_path / "wrong"], timeout=HANGING).returncode == 1


def test_rows_of_a_test_that_the_command_cannot_use_are_one_line_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, frame = model_of_numbers()
    model.save("model.safetensors")
    frame.astype("str").replace({"a": {"3.0": "abc"}}).to_csv("text.csv", index=False)
    frame[["b"]].to_csv("fewer.csv", index=False)
    frame.iloc[:0].to_csv("none.csv", index=False)
    frame.to_csv("rows_test.c", index=False)
    for out, test, message in (
        ("model.c", "text.csv", "the column 'a' has 'abc' (line 5 of text.csv), but a number is"),
        ("model.c", "fewer.csv", "there is no column 'a', which the model needs."),
        ("model.c", "none.csv", "0 rows"),
        ("model.onnx", "fewer.csv", "--test is for a file of C, but model.onnx is ONNX"),
        ("rows.c", "rows_test.c", "'--test': rows_test.c would overwrite another file"),
    ):
        before = {*tmp_path.iterdir()}
        done = run("export", "model.safetensors", out, "--test", test)
        assert (done.exit_code, message in " ".join(done.stderr.split())) == (2, True), done.stderr
        assert {*tmp_path.iterdir()} == before


def model_of_numbers(**given: Any) -> tuple[Any, pd.DataFrame]:
    frame = pd.DataFrame({"a": np.arange(60.0), "b": np.arange(60.0) % 7.0})
    return bx.TabularRegressor("fast", **QUICK, **given).fit(frame, 1e-9 * frame["a"]), frame


def test_the_test_of_a_file_notices_another_parameter(tmp_path: Path) -> None:
    model, frame = model_of_numbers()
    bx.tables.export_c(tmp_path / "model.c", model, test=frame)
    text = (tmp_path / "model.c").read_text()
    first = re.search(r"_theta\[\d+\] = \{\s+/\*.*\*/\s+(\S+)f,", text)
    assert first is not None
    (tmp_path / "model.c").write_text(text.replace(first[1], f"{float(first[1]) + 0.01}", 1))
    compile_c(tmp_path, "model_test.c", [*STRICT, "-o", "wrong"])
    assert subprocess.run([tmp_path / "wrong"], timeout=HANGING).returncode > 0


def test_rows_that_c_cannot_hold_are_refused(tmp_path: Path) -> None:
    numbers = pd.Series([2**62 + i for i in range(60)], dtype="uint64")
    frame = pd.DataFrame({"id": numbers, "word": ["a", "b", "c"] * 20})
    model = bx.TabularRegressor("fast", **QUICK).fit(frame, np.arange(60.0))
    for name, value, message in (
        ("id", 2**63, r"test: .* 'id' has 9223372036854775808 \(row 1\), but C holds no integer"),
        ("word", "a\0", r"test: .* 'word' has 'a\\x00' \(row 1\), but a NUL ends a string in C"),
    ):
        wrong = frame.iloc[:3].copy()
        wrong.loc[1, name] = value
        with pytest.raises(ValueError, match=message):
            bx.tables.export_c(tmp_path / "model.c", model, test=wrong)
    with pytest.raises(ValueError, match="0 rows"):
        bx.tables.export_c(tmp_path / "model.c", model, test=frame.iloc[:0])
    assert not list(tmp_path.iterdir())


def test_export_c_takes_the_estimator_of_a_table(tmp_path: Path) -> None:
    model, frame = model_of_numbers(dtype="float64")
    bx.export_c(tmp_path / "a.c", model, name="model", test=frame)
    bx.tables.export_c(tmp_path / "b.c", model)
    assert (tmp_path / "a.c").read_text() == (tmp_path / "b.c").read_text()
    compile_c(tmp_path, "a_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0
    for options in ({"dtype": "float64"}, {"derivatives": True}, {"gradient": True}):
        with pytest.raises(ValueError, match=r"is an option of a network's file"):
            bx.export_c(tmp_path / "c.c", model, **options)
    for wrong in ((model, tmp_path / "c.c"), (tmp_path / "c.c", model.network_)):
        with pytest.raises(
            TypeError, match=r"arguments are bx\.tables\.export_c\(path, estimator\)"
        ):
            bx.tables.export_c(*wrong)
    assert not (tmp_path / "c.c").exists()
