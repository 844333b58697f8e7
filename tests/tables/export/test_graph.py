"""The graph of a tabular estimator, run by ONNX Runtime alone, predicts as the estimator does."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")
pytest.importorskip("ndonnx")
pytest.importorskip("onnxruntime")

import onnxruntime
import pandas as pd

import backprop_xp as bx
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.date import Date, split_dates
from tests import messy_tables
from tests.commands import ONE_LINE, run
from tests.helpers import thorough

pytestmark = pytest.mark.once

QUICK: dict[str, Any] = {"hidden_layer_sizes": (8,), "max_iter": 3, "random_state": 0}
QUICK |= {"backend": "numpy"}
# Relative to the largest output: ONNX Runtime sums in another order, and has other exponentials.
CLOSE = {"float32": 1e-6, "float64": 1e-14}
MOMENTS = ["1582-10-15 12:00", "9999-12-31", "1899-12-31 23:59:59.999999", "1900-03-01", "NaT"]
MOMENTS += ["1969-12-31 23:00", "1970-01-01", "2000-02-29 06:30", "2100-02-28", "2104-12-31 23:59"]


def edges(rows: int = 300) -> pd.DataFrame:
    """Return columns of all kinds but text, with missing values."""
    draw = np.random.default_rng(0)
    days = pd.Series(pd.to_datetime(draw.integers(-30_000, 60_000, rows), unit="D"))
    number = draw.normal(size=rows)
    frame = {
        "a b": np.where(draw.random(rows) < 0.1, np.nan, number),
        "count": draw.integers(0, 9, rows),
        "is open": number > draw.normal(size=rows),
        "id": 2**62 + draw.integers(0, 1000, rows),
        "price": [f"{value:,.1f}".translate(str.maketrans(",.", ".,")) for value in number * 1e4],
        "at": pd.Series(draw.choice(["12:30", "7:05", "23:59"], rows)),
        "city": pd.Series(draw.choice(["Rome", " Oslo", "Bonn é"], rows)),
        "holed": pd.Series(draw.choice(["x", "y"], rows)).where(draw.random(rows) > 0.1),
        "word": pd.Series(draw.choice(["NA", "None", "x"], rows)).where(draw.random(rows) > 0.1),
        "code": [f"v{i}" for i in draw.permutation(rows) % 22],
        "moment": (days + pd.to_timedelta(draw.random(rows), unit="D")).where(days.dt.day > 3),
        "day": days.dt.strftime("%d.%m.%Y"),
        "local": pd.date_range("2020-10-20", periods=rows, freq="3h", tz="America/New_York"),
    }
    return pd.DataFrame(frame)


def strange(frame: pd.DataFrame) -> pd.DataFrame:
    """Return ten rows with values that training did not have, or that are at a limit."""
    values = {
        "a b": [np.nan, np.inf, -np.inf, 1e39, -1e39, 3e38, 1e30, 0.0, -0.0, 5e-324],
        "price": ["", "?", "1.000.000.000,5", "-1,5", "0,0", "7", "1e39", "(12)", "5 %", "$3"],
        "city": ["Oslo", " Oslo", "", "Rome ", "rome", "Bonn é", "NA", "\u00e9", "\n", "Rome"],
        "holed": ["", "?", " n/a ", "\u2003NULL\x85", "nan\n", "x", "x ", "z", "-", "1.#IND"],
        "code": ["v21", "v0", "v22", "", "NA", "v1", "V1", "v", "v10", "v3"],
        "word": ["NA", " NA", "None", "null", "", "x", "?", "-", "y", "na"],
        "moment": pd.to_datetime(pd.Series(MOMENTS), format="ISO8601"),
        "id": [2**62, 0, -(2**63), 2**63 - 1, 2**62 + 1, 2**62 + 2, 2**53, -1, 1, 2**62 + 999],
    }
    return frame.iloc[:10].assign(**values)


def feed(model: Any, frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the inputs of the graph, as docs/tables.md describes them."""
    inputs = {}
    for name, kind in model.preparation_.columns_.items():
        column = frame[name]
        if isinstance(kind, Category):
            inputs[name] = column.fillna("").astype(object).to_numpy()
        elif isinstance(kind, Date):
            if column.dtype.kind != "M":
                column = pd.to_datetime(column, format=kind.formats[0])
            if kind.zone is not None:
                column = column.dt.tz_localize(None)
            inputs[name] = column.to_numpy("datetime64[us]").view("int64")
        elif name == "id":
            inputs[name] = column.to_numpy("int64")
        elif kind.style == "hh:mm":
            inputs[name] = pd.to_timedelta(column + ":00").dt.total_seconds().to_numpy()
        elif kind.style is not None:
            inputs[name] = column.map(PRICES.get).fillna(_european(column)).to_numpy("float64")
        else:
            inputs[name] = column.to_numpy("float64")
    return inputs


PRICES = {"(12)": -12.0, "5 %": 5.0, "$3": 3.0}


def _european(column: pd.Series) -> pd.Series:
    plain = column.str.replace(".", "").str.replace(",", ".")
    return pd.to_numeric(plain, errors="coerce")


def exported(model: Any, path: Path) -> Any:
    bx.tables.export_onnx(path / "model.onnx", model)
    return onnxruntime.InferenceSession(path / "model.onnx")


def check(session: Any, model: Any, frame: pd.DataFrame) -> None:
    """Assert that the graph of a model predicts as the model does."""
    inputs, atol = feed(model, frame), CLOSE[str(model.theta_.dtype)]
    names = [one.name for one in session.get_outputs()]
    found = dict(zip(names, session.run(None, inputs), strict=True))
    if isinstance(model, bx.TabularRegressor):
        expected = model.predict(frame)
        atol *= np.max(np.abs(expected))
        assert found.keys() == {"predictions"}
        np.testing.assert_allclose(found["predictions"], expected, rtol=0, atol=atol)
        return
    assert [*found] == ["label", "probabilities"]
    expected = model.predict_proba(frame)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=0, atol=atol)
    assert found["label"].tolist() == model.predict(frame).tolist()


@pytest.mark.parametrize(
    ("given", "target"),
    [
        ({"n_members": 3}, lambda frame: frame["city"]),
        thorough({"n_members": 1, "dtype": "float64"}, lambda frame: frame["is open"]),
    ],
    ids=["three classes of three members", "booleans in float64"],
)
def test_the_graph_predicts_as_the_estimator_from_columns_of_all_kinds(
    given: Any, target: Any, tmp_path: Path
) -> None:
    frame = edges()
    model = bx.TabularClassifier(**QUICK, **given).fit(frame, target(frame))
    assert {column.kind for column in model.preparation_.columns_.values()} == {
        "number",
        "category",
        "date",
    }
    assert model.preparation_.features_.codes == [23]
    session = exported(model, tmp_path)
    for rows in (frame, frame.iloc[[3]], strange(frame), strange(frame).iloc[[4]]):
        check(session, model, rows)


@pytest.mark.parametrize(
    ("name", "kind", "columns"),
    [
        # A graph takes two seconds to write: the test above has classes, the one below numbers.
        thorough("passengers", bx.TabularClassifier, ["class", "sex", "age", "embarked"]),
        thorough("penguins", bx.TabularClassifier, ["island", "sex"]),
        thorough("rentals", bx.TabularRegressor, ["day", "weather", "opened"]),
        thorough("wines", bx.TabularRegressor, ["alcohol", "hue"]),
    ],
)
def test_the_graph_of_a_messy_table_predicts_as_the_estimator(
    name: str, kind: Any, columns: list[str], tmp_path: Path
) -> None:
    frame, target = messy_tables.TABLES[name]()
    frame = frame.iloc[:300]
    model = kind("fast", **QUICK).fit(frame[columns], frame[target])
    check(exported(model, tmp_path), model, frame[columns])


def many_codes(kind: str) -> tuple[Any, pd.DataFrame]:
    """Return a model of a column of 300 codes, and rows with unknown and missing ones."""
    codes = np.random.default_rng(0).permutation(np.resize([f"c-{i} é" for i in range(300)], 900))
    frame = pd.DataFrame({"code": codes, "a": np.arange(900.0)})
    chosen, given = None, frame
    if kind == "declared":
        given = frame.astype({"code": "category"})
    else:
        chosen = {"code": "category"}
    model = bx.TabularRegressor("fast", **QUICK, kinds=chosen).fit(given, frame["a"])
    assert model.preparation_.features_.codes[0] > 200
    new = pd.DataFrame({"code": ["c-300 é", "", "NA", "c-7 é", "c-7", "C-7 É"], "a": 1.0})
    return model, pd.concat([frame.head(20), new], ignore_index=True)


@pytest.mark.parametrize("kind", [thorough("chosen"), "declared"])
def test_the_graph_has_codes_of_any_number(kind: str, tmp_path: Path) -> None:
    model, rows = many_codes(kind)
    check(exported(model, tmp_path), model, rows)


def test_dates_are_split_as_pandas_does() -> None:
    moments = pd.date_range("1599-12-31", "2401-03-01", freq="25h").insert(0, pd.NaT)
    times = moments.to_numpy("datetime64[us]").view("int64")
    names = ("year", "month", "day", "hour", "weekday")
    expected = [getattr(moments, name) for name in names[:4]] + [moments.day_of_week + 1]
    np.testing.assert_array_equal(split_dates(times, names), np.stack(expected, axis=1))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model, also in a file of the working directory."""
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"a": np.arange(60.0)})
    made = bx.TabularClassifier("fast", **QUICK).fit(frame, frame["a"] > 30.0)
    made.save("model.safetensors")
    return made


def test_the_command_writes_the_graph(model: Any) -> None:
    done = run("export", "model.safetensors")
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    assert done.stderr == "1 column to predictions, written to model.onnx\n"
    session = onnxruntime.InferenceSession("model.onnx")
    check(session, model, pd.DataFrame({"a": [7.0, np.nan, 50.0]}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model.safetensors", "model.txt"), "must end in .onnx"),
        (("no.safetensors", "model.onnx"), "Did you mean 'model.safetensors'?"),
        (("model.safetensors", "model.onnx"), "pip install 'ndonnx>="),
    ],
)
def test_an_error_of_the_command_is_one_line(
    words: tuple[str, str], message: str, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] in ("ndonnx", "onnx")]:
        monkeypatch.setitem(sys.modules, name, None)
    done = run("export", *words)
    assert done.exit_code == 2
    assert ONE_LINE.fullmatch(done.stderr)
    assert message in done.stderr
    assert not Path("model.onnx").exists()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ([f"{i} green bottles" for i in range(60)], "the kind 'text' of .*'c'.*--drop c"),
        (range(60), "a column is named 'label', which cannot be an input: rename"),
    ],
)
def test_a_model_that_cannot_be_exported_is_an_error_with_the_way_out(
    column: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pd.DataFrame({"c" if "text" in message else "label": column, "a": np.arange(60.0)})
    model = bx.TabularClassifier("fast", **QUICK).fit(frame, frame["a"] > 30.0)
    with pytest.raises(ValueError, match=message):
        bx.tables.export_onnx("model.onnx", model)
    assert not Path("model.onnx").exists()
