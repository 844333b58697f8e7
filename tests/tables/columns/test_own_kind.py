"""A kind of columns of one's own is one class and a line of the table of kinds.

An angle is its sine and cosine: 359 and 1 degree are neighbours.
"""

import math
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.backends import Array, array_namespace
from backprop_xp.tables.columns import kinds
from backprop_xp.tables.columns.column import Column, Sample, choice_error, refuse
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.readers.cells import numbers
from backprop_xp.tables.report.problem import ColumnChoice, make_problem
from tests.c_programs import STRICT, compile_c
from tests.commands import run
from tests.helpers import HANGING

pytestmark = pytest.mark.once

ROWS = 300
QUICK: dict[str, Any] = {"hidden_layer_sizes": (16,), "max_iter": 20, "random_state": 0}


@dataclass(frozen=True)
class Angle(Column):
    """An angle in degrees: its sine and its cosine, float64."""

    kind: ClassVar[str] = "angle"

    @classmethod
    def chosen(cls, sample: Sample) -> "Angle":
        _, wrong = numbers(sample.column)
        if wrong.any():
            raise choice_error(sample.column, wrong, cls.kind)
        return cls()

    def check(self) -> None:
        pass

    @property
    def width(self) -> int:
        return 2

    @property
    def is_scaled(self) -> bool:
        return True

    def names(self, name: str) -> list[str]:
        return [f"sine of {name}", f"cosine of {name}"]

    def read(self, column: pd.Series) -> np.ndarray:
        values, wrong = numbers(column)
        refuse(column, wrong, "an angle is expected, as in training")
        return values

    def wrong(self, column: pd.Series) -> np.ndarray:
        return numbers(column)[1]

    def features(self, values: Array) -> Array:
        xp = array_namespace(values)
        radians = xp.astype(values, xp.float64) * (math.pi / 180.0)
        # ONNX Runtime has no cosine of float64.
        return xp.stack([xp.sin(radians), xp.sin(radians + math.pi / 2.0)], axis=1)

    def slopes(self, column: pd.Series) -> np.ndarray:
        sine, cosine = self.encode(column).T
        return np.stack([cosine, -sine], axis=1) * (math.pi / 180.0)

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        return {"unit": "degrees"}

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        return f"angle in {described['unit']}"


@pytest.fixture(autouse=True)
def own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.KINDS, "angle", f"{__name__}:Angle")


def table() -> tuple[pd.DataFrame, pd.Series]:
    draw = np.random.default_rng(0)
    wind = draw.uniform(0.0, 360.0, ROWS)
    target = 3.0 * np.cos(np.radians(wind - 20.0)) + 0.1 * draw.normal(size=ROWS)
    frame = {"a": draw.normal(size=ROWS), "wind": np.where(draw.random(ROWS) < 0.05, np.nan, wind)}
    return pd.DataFrame({**frame, "c": draw.choice(["u", "v"], ROWS)}), pd.Series(target, name="y")


def fitted(kind: Any = bx.TabularRegressor, **given: Any) -> tuple[Any, pd.DataFrame]:
    frame, y = table()
    y = y if kind is bx.TabularRegressor else y > 0.0
    return kind(**QUICK, **given, kinds={"wind": "angle"}).fit(frame, y), frame


def test_an_angle_trains_and_is_in_files_and_descriptions(tmp_path: Path) -> None:
    model, frame = fitted()
    made = model.preparation_
    assert made.columns_["wind"] == Angle()
    assert made.get_feature_names_out().tolist()[:4] == [
        *("a", "sine of wind", "cosine of wind", "sine of wind missing"),
    ]
    near, far = (frame.assign(wind=wind) for wind in (359.9, 0.1))
    np.testing.assert_allclose(model.predict(near), model.predict(far), atol=0.05)
    model.save(tmp_path / "model")
    again = bx.tables.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict(frame), model.predict(frame))
    assert again.preparation_.columns_["wind"] == Angle()
    described = bx.tables.described_columns(model.model_.features)[1]
    assert described == {"name": "wind", "kind": "angle", "features": 4, "unit": "degrees"}
    with pytest.raises(ValueError, match=r"'wind' has 'north' \(row 0\), but an angle is expected"):
        model.predict(frame.assign(wind="north"))
    wind = frame["wind"].astype(object).mask(frame.index == 7, "north")
    with pytest.raises(ValueError, match=r"'wind' has 'north' \(row 7\), but its kind was chosen"):
        model.fit(frame.assign(wind=wind), table()[1])


@pytest.mark.parametrize("kind", [bx.TabularRegressor, bx.TabularClassifier])
def test_the_slope_by_an_angle_is_the_sum_over_its_features(kind: Any) -> None:
    model, frame = fitted(kind, dtype="float64", activation="tanh")
    frame = frame[frame["wind"].between(5.0, 355.0)].head(20)
    found, step = model.input_gradient(frame), 1e-4
    outputs = model.predict if kind is bx.TabularRegressor else model.predict_proba
    for name in ("a", "wind"):
        low, high = (frame.assign(**{name: frame[name] + sign * step}) for sign in (-1.0, 1.0))
        expected = (outputs(high) - outputs(low)) / (2.0 * step)
        own = found[name] if kind is bx.TabularRegressor else found.xs(name, axis=1, level="column")
        # Features are float32, in which a step of 1e-4 degrees has some digits.
        np.testing.assert_allclose(own, expected, atol=0.02 * np.abs(expected).max())


def test_the_graph_of_an_angle_predicts_as_the_model(tmp_path: Path) -> None:
    pytest.importorskip("ndonnx")
    runtime = pytest.importorskip("onnxruntime")
    model, frame = fitted()
    bx.tables.export_onnx(tmp_path / "model.onnx", model)
    inputs = {name: frame[name].to_numpy() for name in ("a", "wind")}
    inputs["c"] = frame["c"].astype(object).to_numpy()
    (found,) = runtime.InferenceSession(tmp_path / "model.onnx").run(None, inputs)
    np.testing.assert_allclose(found, model.predict(frame), atol=1e-5)


@pytest.mark.c_compiler
def test_the_c_file_of_an_angle_predicts_as_the_model(tmp_path: Path) -> None:
    model, frame = fitted()
    bx.tables.export_c(tmp_path / "model.c", model, test=frame)
    assert "double wind;" in (tmp_path / "model.c").read_text()
    compile_c(tmp_path, "model_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([tmp_path / "right"], timeout=HANGING).returncode == 0


def test_codes_in_a_file_are_numbers_of_a_kind_that_has_numbers(tmp_path: Path) -> None:
    frame, y = table()
    codes = [f"{angle:03.0f}" for angle in frame["wind"].fillna(7.0)]
    frame.assign(wind=codes, y=y).to_csv(tmp_path / "table.csv", index=False)
    data, chosen = tables.TableFile(tmp_path / "table.csv"), ColumnChoice(kinds={"wind": "angle"})
    problem = make_problem(data, "y", chosen, seed=0)
    assert problem.detected.columns["wind"] == Angle()
    assert problem.table.features["wind"].dtype == "float64"


def test_the_commands_train_and_inspect_an_angle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frame, y = table()
    frame.assign(y=y).to_csv("table.csv", index=False)
    options = ("--kind", "wind=angle", "--preset", "fast", "--max-iter", "3")
    done = run("train", "table.csv", "--target", "y", *options)
    assert done.exit_code == 0, done.stderr
    assert "angle in degrees" in run("inspect", "model.safetensors").stdout
    assert len(run("predict", "model.safetensors", "table.csv").stdout.splitlines()) == ROWS + 1
