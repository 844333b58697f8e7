"""The command ``train --parallel`` on one rank; ``tests/mpi`` has several.

Specifies ``shares`` and ``totals``.
"""

import dataclasses
import itertools
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

import backprop_xp as bx
from backprop_xp.tables.model.model_file import write_anew
from backprop_xp.tables.readers.row_groups import row_groups
from backprop_xp.tables.report import other_models, parallel_training, shares
from backprop_xp.tables.report.problem import ColumnChoice, lines_about, make_problem
from backprop_xp.tables.report.shares import Share
from backprop_xp.tables.report.split import hashed
from backprop_xp.tables.report.target import Target
from tests.commands import ONE_LINE, run

ROWS = 3000
COMMAND = ("train", "big", "--target", "y", "--parallel", "--backend", "numpy")
QUICK = ("--preset", "fast", "--hidden-layer-sizes", "8", "--max-iter", "4")


class OneRank:
    """A communicator of one process, with the methods of mpi4py's."""

    def Get_rank(self) -> int:  # noqa: N802
        return 0

    def Get_size(self) -> int:  # noqa: N802
        return 1

    def allgather(self, value: Any) -> list[Any]:
        return [value]

    def bcast(self, value: Any, root: int) -> Any:
        return value

    def Allreduce(self, part: Any, total: Any) -> None:  # noqa: N802
        total[...] = part


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a dataset of two files in the folder ``big``."""
    monkeypatch.setattr(other_models, "_TREES", 20)
    monkeypatch.chdir(tmp_path)
    mpi = types.SimpleNamespace(MPI=types.SimpleNamespace(COMM_WORLD=OneRank()))
    monkeypatch.setitem(sys.modules, "mpi4py", mpi)
    Path("big").mkdir()
    for i, part in enumerate((table()[:1000], table()[1000:])):
        part.to_parquet(f"big/{i}.parquet", row_group_size=300)
    return tmp_path


def table() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    a = draw.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "number": range(ROWS),
            "a": a,
            "b": draw.choice(["low", "high"], ROWS),
            "weight": draw.uniform(0.5, 2.0, ROWS),
            "y": np.where(a > 0.3, "yes", "no"),
            "z": 3.0 * a + 1e6,
        }
    )
    frame.loc[::50, ["y", "z"]] = [None, np.nan]
    frame.loc[[7, 2007], "b"] = "rare"
    frame.loc[[8, 2008], "y"] = "rare"
    return frame


def training_rows(columns: list[str]) -> pd.DataFrame:
    return table()[hashed(np.arange(ROWS), 0) >= 0.3].dropna(subset=columns)


def test_a_training_is_better_than_the_baseline_and_its_file_is_an_ordinary_model(
    folder: Path,
) -> None:
    done = run(*COMMAND, *QUICK, "--drop", "z,weight,number", "--json", "--log", "losses.jsonl")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    keys = "task rows features epochs parts validation test linear boosting baseline measured_on"
    assert list(report) == [*keys.split(), "linear_is_better", "model"]
    assert report["rows"] == sum(report["parts"].values()) == ROWS - 60
    assert report["parts"]["training"] == len(training_rows(["y"]))
    assert report["validation"]["log_loss"] < 0.7 * report["baseline"]["log_loss"]
    assert len(Path("losses.jsonl").read_text().splitlines()) == 4
    found = run("predict", "model.safetensors", "big/0.parquet")
    assert found.exit_code == 0, found.output
    assert found.stdout.startswith("prediction,probability_no,probability_rare,probability_yes\n")
    shown = run("inspect", "model.safetensors")
    assert shown.exit_code == 0, shown.output
    assert "network" in shown.stdout


def test_a_finished_training_resumes_with_more_epochs_only(folder: Path) -> None:
    options = (*COMMAND, "--preset", "fast", "--hidden-layer-sizes", "8", "--max-iter")
    assert run(*options, "2").exit_code == 0
    done = run(*options, "2", "--resume")
    assert done.exit_code == 2
    assert "the training in model.safetensors is finished" in done.stderr
    done = run(*options, "4", "--resume", "--json")
    assert json.loads(done.stdout)["epochs"] == 4
    assert bx.tables.load("model.safetensors").history_["loss"].shape[0] == 4


@pytest.mark.parametrize("target", ["y", "z"])
def test_a_training_that_ended_before_its_report_resumes_for_the_report(
    target: str, folder: Path
) -> None:
    words = ("train", "big", "--target", target, *COMMAND[4:], *QUICK, "--json")
    report = json.loads(run(*words).stdout)
    model = bx.tables.load("model.safetensors").model_
    metadata = {name: value for name, value in model.metadata.items() if name != "report"}
    write_anew("model.safetensors", dataclasses.replace(model, metadata=metadata))
    done = run(*words, "--resume")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == report


def test_odd_cells_anywhere_are_missing_values_and_rows_of_weight_0_count_for_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 300)
    odd = table()
    odd["a"] = odd["a"].round(3).astype("str")
    odd["day"] = pd.date_range("2000-01-01", periods=ROWS).strftime("%d.%m.%Y")
    values = hashed(np.arange(ROWS), 0)
    usable = np.arange(ROWS) % 10 == 3
    in_training, in_validation = (
        np.flatnonzero(usable & at)[0] for at in (values > 0.5, values < 0.1)
    )
    odd.loc[[in_training, in_validation], "a"] = "?!"
    odd.loc[in_validation, "day"] = "soon"
    odd.loc[5::10, ["a", "weight"]] = ["no number", 0.0]
    for i, part in enumerate((odd[:1000], odd[1000:])):
        part.to_parquet(f"big/{i}.parquet", row_group_size=300)
    options = ("--drop", "z,number", "--weights", "weight", "--json")
    done = run(*COMMAND, *QUICK, *options)
    assert done.exit_code == 0, done.output
    assert "60 rows without 'y' are left out 300 rows of weight 0" in " ".join(done.stderr.split())
    lines, first = " ".join(done.stderr.split()), min(in_training, in_validation)
    assert f"the column 'a' has '?!' (row {first}), and 1 more: read as missing" in lines
    assert f"the column 'day' has 'soon' (row {in_validation}): read as missing" in lines
    assert json.loads(done.stdout)["rows"] == (odd["weight"] * odd["y"].notna() > 0.0).sum()
    columns = bx.tables.load("model.safetensors").model_.features.columns
    assert (columns["a"].odd_strings, columns["day"].odd_strings) == (("?!",), ("soon",))


def test_counts_categories_classes_and_moments_are_those_of_all_training_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 300)
    rare = {7, 2007, 8, 2008} & {*training_rows([]).index}
    assert len(rare) >= 2
    assert (hashed(np.asarray([*rare]), 0) > 0.3 + 300 / ROWS).all()  # not in the sample
    held = np.flatnonzero((hashed(np.arange(ROWS), 0) < 0.15) & table()["y"].notna())[0]
    frame = table()
    frame.loc[held, "b"] = "in the validation set alone"
    for i, part in enumerate((frame[:1000], frame[1000:])):
        part.to_parquet(f"big/{i}.parquet", row_group_size=300)
    done = run(*COMMAND, *QUICK, "--drop", "z,number,weight")
    assert done.exit_code == 0, done.output
    model = bx.tables.load("model.safetensors").model_
    assert model.classes.tolist() == ["no", "rare", "yes"]
    assert model.features.columns["b"].values == ("high", "low", "rare")
    assert "60 rows without 'y' are left out" in done.stderr

    done = run("train", "big", "--target", "z", "--parallel", *QUICK, "--weights", "weight")
    assert done.exit_code == 0, done.output
    model = bx.tables.load("model.safetensors").model_
    rows = training_rows(["z"])
    mean = np.average(rows["z"], weights=rows["weight"])
    variance = np.average((rows["z"] - mean) ** 2, weights=rows["weight"])
    np.testing.assert_allclose(model.scale.mean, mean, rtol=1e-15)
    np.testing.assert_allclose(model.scale.scale, np.sqrt(variance), rtol=1e-9)


def test_a_new_category_has_the_mean_embedding_by_the_weights_of_all_training_rows(
    folder: Path,
) -> None:
    codes = [f"c{i % 40 % (i % 30 + 1)}" for i in range(ROWS)]
    table().assign(code=codes).to_parquet("codes.parquet", row_group_size=300)
    done = run(
        *("train", "codes.parquet", "--target", "z", "--parallel", *QUICK),
        *("--weights", "weight", "--features", "a,code", "--backend", "numpy"),
    )
    assert done.exit_code == 0, done.output
    model = bx.tables.load("model.safetensors").model_
    embeddings = model.network.unpack(model.theta)[0][-1]
    rows = training_rows(["z"])["weight"]
    weights = rows.groupby([codes[i] for i in rows.index]).sum()
    values = [*model.features.columns["code"].values]
    mean = np.average(embeddings[:-1], axis=0, weights=weights[values])
    # The mean is rounded to float32.
    np.testing.assert_allclose(embeddings[-1], mean, rtol=1e-6, atol=1e-7)
    plain = np.mean(embeddings[:-1], axis=0)
    assert np.abs(plain - mean).max() > 1e-3


@pytest.mark.parametrize("buffer", [1000, 2**27])
def test_an_epoch_has_each_training_row_once_in_an_order_of_its_own(
    folder: Path, buffer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares, "_BUFFER", buffer)
    groups, _ = row_groups("big")
    target = Target("z", "regression", "")
    share = Share(groups, ROWS, ["number"], None, {"validation": 0.3}, 0.05, 0, target)
    expected = training_rows(["z"])["number"].to_numpy()

    def epoch(i: int) -> list[np.ndarray]:
        found = share.batches(lambda rows: (rows.features["number"],), len(expected), 26, i)
        return [np.asarray(x) for (x,) in found]

    first, second = epoch(0), epoch(1)
    sizes = {len(x) for x in first}
    assert len(first) == 26
    assert max(sizes) - min(sizes) <= 1
    orders = [np.concatenate(batches) for batches in (first, second)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), expected)
        assert (np.diff(order) < 0).mean() > 0.3
    assert (orders[0] != orders[1]).mean() > 0.9
    np.testing.assert_array_equal(np.concatenate(epoch(1)), orders[1])


def test_the_validation_set_of_a_large_table_is_limited(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_MAX_HELD", 100)
    done = run(*COMMAND, *QUICK, "--json")
    assert done.exit_code == 0, done.output
    assert "--validation is 0.0333: at most 100 rows" in done.stderr
    assert json.loads(done.stdout)["parts"]["validation"] < 130


def test_the_last_row_group_decides_kinds_and_lines_as_the_same_rows_in_memory_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 300)
    last, many = ROWS - 1, np.arange(ROWS)
    given = table()[["a", "weight", "y"]]
    given["odd"] = [f"{i}.5" for i in many]
    given["odd day"] = pd.date_range("2000-01-01", periods=ROWS).strftime("%d.%m.%Y")
    given["hours"] = pd.date_range("2000-01-01", periods=ROWS)
    given["order"] = [f"0{i % 9 + 1}/0{i % 8 + 1}/2024" for i in many]
    given["coded"] = [str(10 + i % 89) for i in many]
    given["compact"] = 20240101 + many % 28
    given["constant"], given["once"], given["empty"] = 1.0, None, np.nan
    given["words"] = [f"{i % 5}.5" for i in many]
    given["identifier"] = [f"id{i}" for i in many]
    given["text"] = [f"id{i}" for i in many]
    given["few"] = many % 10
    frame = given.astype({"once": "str"})
    frame.loc[last, ["odd", "odd day", "order", "coded"]] = ["?!", "soon", "31/01/2024", "007"]
    frame.loc[last, "hours"] += pd.Timedelta(hours=10)
    frame.loc[last, ["compact", "constant", "once"]] = [20240199, 2.0, "x"]
    frame.loc[last, ["words", "text"]] = ["low", "a long text"]
    frame.loc[5::10, ["odd", "constant", "weight"]] = ["no number", 3.0, 0.0]
    for decides in (False, True):
        frame[: None if decides else -1].to_parquet("all.parquet", row_group_size=300)
        words = ("train", "all.parquet", "--target", "y", "--parallel", *QUICK)
        done = run(*words, "--weights", "weight", "--backend", "numpy", "--json")
        assert done.exit_code == 0, done.output
        one = bx.tables.load("model.safetensors").model_.features
        problem = make_problem("all.parquet", "y", ColumnChoice(weights="weight"), seed=0)
        other = problem.detected
        assert {name: column.kind for name, column in one.columns.items()} == {
            name: column.kind for name, column in other.columns.items()
        }
        assert one.left_out == other.left_out
        for name in ("odd", "odd day", "hours", "order"):
            assert one.columns[name] == other.columns[name]
        report, rows = json.loads(done.stdout), len(problem.table.target)
        assert (report["task"], report["rows"]) == (problem.target.task, rows)
        said = [*lines_about(problem.target, *problem.omitted), *problem.column_lines()]
        assert done.stderr.splitlines()[: len(said)] == said
        found = {name: column.kind for name, column in one.columns.items()}
        left_out = {"empty", "identifier"} | (set() if decides else {"constant", "once", "text"})
        assert {*one.left_out} == left_out
        odd = [f"the column {name!r}" for name in ("odd", "odd day") if decides]
        assert [line.partition(" has")[0] for line in said if "missing" in line] == odd
        assert found["coded"] == found["words"] == ("category" if decides else "number")
        assert found["compact"] == ("number" if decides else "date")
    assert "the column 'odd day' has 'soon' (row 2999): read as missing" in said
    assert one.columns["order"].formats == ("%d/%m/%Y",)
    assert "hour" in one.columns["hours"].parts


def test_means_and_missing_values_are_those_of_all_training_rows_and_medians_of_a_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 600)
    frame = table()
    frame.loc[training_rows(["y"]).index[-1], "number"] = None
    frame["half"] = np.where(frame.index < ROWS / 2, 1.0, 3.0)
    frame.to_parquet("all.parquet", row_group_size=300)
    preset = dataclasses.replace(parallel_training.PRESETS["fast"], scaling="standardize")
    monkeypatch.setitem(parallel_training.PRESETS, "fast", preset)
    options = ("--features", "number,a,half", "--weights", "weight", "--backend", "numpy")
    done = run("train", "all.parquet", "--target", "y", "--parallel", *QUICK, *options)
    assert done.exit_code == 0, done.output
    scaling = bx.tables.load("model.safetensors").model_.features.scaling
    rows = frame.loc[training_rows(["y"]).index]
    x, weights = rows[["number", "a", "half"]], rows["weight"]
    missing = weights[x["number"].isna()].sum() / weights.sum()
    x = x.fillna(dict(zip(x, scaling.medians, strict=True)))
    means = np.average(x, axis=0, weights=weights)
    deviations = np.sqrt(np.average((x - means) ** 2, axis=0, weights=weights))
    np.testing.assert_allclose(scaling.centers, [*means, missing], rtol=1e-12)
    expected = [*deviations, np.sqrt(missing * (1.0 - missing))]
    np.testing.assert_allclose(scaling.scales, expected, rtol=1e-10)
    assert scaling.flagged.tolist() == [0]
    # A sample of all row groups: the first rows alone have other medians.
    assert abs(scaling.medians[0] / ROWS - 0.5) < 0.1
    assert 0 < abs(scaling.medians[1] - np.median(x["a"])) < 0.2


@pytest.mark.parametrize("words", ["--target z --drop y", "--target y --class-weight balanced"])
def test_the_other_models_are_those_of_the_same_rows_in_memory(words: str, folder: Path) -> None:
    given, values = table(), hashed(np.arange(ROWS), 0)
    given.loc[::7, "a"] = None
    if "--target y" in words:
        given = given.drop(columns="z")
    given.to_parquet("all.parquet", row_group_size=300)
    own = ("validation", "test", "training")
    for part, least, most in zip(own, (0.0, 0.15, 0.3), (0.15, 0.3, 1.0), strict=True):
        given[(values >= least) & (values < most)].to_parquet(f"{part}.parquet")
    options = (*words.split(), "--weights", "weight", *QUICK, "--json")
    files = ("--validation", "validation.parquet", "--test", "test.parquet")
    done = run("train", "all.parquet", *options, "--parallel")
    expected = run("train", "training.parquet", *options, *files)
    one, other = (json.loads(each.stdout) for each in (done, expected))
    assert one["parts"] == other["parts"]
    for model in ("linear", "boosting", "baseline"):
        assert one[model] == pytest.approx(other[model], rel=1e-6)
    lines = [each.stderr.split("epoch", maxsplit=1)[0] for each in (done, expected)]
    identifier = "'number' has a different whole number in each of"
    assert all(identifier in text for text in lines)
    assert ("few training rows have the class 'rare'" in lines[0]) is ("--target y" in words)


def test_the_report_says_from_how_many_rows_the_other_models_learned(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 300)
    given = table()
    held = np.flatnonzero((hashed(np.arange(ROWS), 0) < 0.15) & given["y"].notna())[0]
    given.loc[held, "y"] = "rare"  # a class that no row of the sample has
    given[:1000].to_parquet("big/0.parquet", row_group_size=300)
    done = run(*COMMAND, *QUICK, "--drop", "z,weight,number")
    assert done.exit_code == 0, done.output
    report = bx.tables.load("model.safetensors").metadata_["report"]
    assert 200 < report["sample"] < 400
    line = f"the other models learned from a sample of {report['sample']} training rows"
    assert line in done.stdout
    assert line in run("inspect", "model.safetensors").stdout
    assert report["linear"]["log_loss"] < 0.7 * report["baseline"]["log_loss"]


def test_a_sample_of_one_class_leaves_the_baseline_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel_training, "_SAMPLE", 60)
    usual = table().assign(y="no")
    usual.loc[[8, 2008, 4, 5], "y"] = "rare"  # training rows outside the sample
    usual.to_parquet("all.parquet", row_group_size=300)
    done = run("train", "all.parquet", *COMMAND[2:], *QUICK, "--features", "a,b", "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {"linear", "boosting"}.isdisjoint(report)
    assert report["baseline"]["accuracy"] == 1.0
    assert report["linear_is_better"] is False


REFUSED = [
    ("--cv 3 --time a", r"'--parallel': cannot be combined with --cv, --time"),
    ("--test 0.1 --plot a.png", r"cannot be combined with --plot"),
    ("--test big/0.parquet", r"--test is a share of the rows with --parallel"),
    ("--test 0.9", r"--validation and --test leave no training rows"),
    ("--group c", r"there is no column 'c'"),
    ("--validation big/0.parquet", r"--validation is a share of the rows with --parallel"),
    ("--features q", r"there is no column 'q'"),
]


@pytest.mark.parametrize(("words", "expected"), REFUSED)
def test_what_is_not_for_parallel_is_refused_in_one_line(
    words: str, expected: str, folder: Path
) -> None:
    done = run(*COMMAND, *words.split())
    assert done.exit_code == 2
    assert ONE_LINE.fullmatch(done.stderr)
    assert re.search(expected, done.stderr)


@pytest.mark.parametrize("name", ["OMPI_COMM_WORLD", "PMI"])
def test_several_processes_without_parallel_are_refused_by_the_first(
    name: str, folder: Path
) -> None:
    words = ("train", "big/0.parquet", "--target", "y")
    done = run(*words, **{f"{name}_SIZE": "2", f"{name}_RANK": "0"})
    assert done.exit_code == 2
    assert "mpirun started several processes" in done.stderr
    done = run(*words, **{f"{name}_SIZE": "2", f"{name}_RANK": "1"})
    assert (done.exit_code, done.output) == (0, "")


def test_one_process_streams_without_mpi4py_and_trains_as_one_rank_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = []
    for module in (sys.modules["mpi4py"], None):
        monkeypatch.setitem(sys.modules, "mpi4py", module)
        done = run(*COMMAND, *QUICK, "--out", f"{module is None}.safetensors", "--json")
        assert done.exit_code == 0, done.output
        reports.append(json.loads(done.stdout))
    one, other = (bx.tables.load(f"{name}.safetensors").theta_ for name in (True, False))
    np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)  # sums of float32
    assert reports[0]["parts"] == reports[1]["parts"]


def test_test_rows_are_for_the_report_alone_and_give_the_coverage_of_intervals(
    folder: Path,
) -> None:
    words = ("train", "big", "--target", "z", "--parallel", *QUICK, "--weights", "weight")
    done = run(*words, "--drop", "y", "--test", "0.25", "--json")
    assert done.exit_code == 0, done.output
    report, values = json.loads(done.stdout), hashed(np.arange(ROWS), 0)
    rows = table()[(values >= 0.15) & (values < 0.4)].dropna(subset="z")
    assert report["parts"]["test"] == len(rows)
    assert report["rows"] == sum(report["parts"].values()) == ROWS - 60
    models = ("test", "linear", "boosting", "baseline")
    assert report["measured_on"] == {"validation": "validation"} | dict.fromkeys(models, "test")
    model = bx.tables.load("model.safetensors")
    errors, weights = model.predict(rows) - rows["z"], rows["weight"]
    expected = np.sqrt(np.average(errors**2, weights=weights))
    assert report["test"]["rmse"] == pytest.approx(expected, rel=1e-6)
    assert model.model_.record["rows"]["training"] == report["parts"]["training"]
    assert 0.5 < model.model_.coverage_on_test(0.9) <= 1.0
    shown = run("inspect", "model.safetensors")
    assert re.search(r"measured on( +test){4} +validation$", shown.stdout, re.M)
    done = run(*words, "--drop", "y", "--resume", "--max-iter", "6")
    assert done.exit_code == 2
    assert "model.safetensors cannot be resumed" in done.stderr


def test_the_rows_of_a_group_are_in_one_part(folder: Path) -> None:
    given = table()
    given["person"] = [f"p{i % 97}" for i in range(ROWS)]
    for i, part in enumerate((given[:1000], given[1000:])):
        part.to_parquet(f"big/{i}.parquet", row_group_size=300)
    groups, _ = row_groups("big")
    target = Target("z", "regression", "")
    parts = {"validation": 0.15, "test": 0.2}
    share = Share(groups, ROWS, ["number"], None, parts, 0.1, 0, target, "person")
    found: dict[str, list[int]] = {}
    for part, numbers, _ in share.pieces([], "validation", "test", "training", "sample"):
        found.setdefault(part, []).extend(numbers.tolist())
    sample = found.pop("sample")
    assert sorted(itertools.chain(*found.values())) == [*range(ROWS)]
    people = [{*given["person"].iloc[part]} for part in found.values()]
    assert not any(one & other for one, other in itertools.combinations(people, 2))
    assert min(map(len, people)) > 5
    assert {*sample} < {*found["training"]}
    assert 0.05 * ROWS < len(sample) < 0.15 * ROWS
    words = ("train", "big", "--target", "z", "--parallel", *QUICK, "--group", "person")
    done = run(*words, "--test", "0.2", "--drop", "y", "--json")
    assert done.exit_code == 0, done.output
    usable = given["z"].notna()
    expected = {part: int(usable[rows].sum()) for part, rows in found.items()}
    assert json.loads(done.stdout)["parts"] == expected
    assert "person" not in bx.tables.load("model.safetensors").model_.features.columns
    given.loc[1234, "person"] = None
    given[1000:].to_parquet("big/1.parquet", row_group_size=300)
    done = run(*words)
    assert done.exit_code == 2
    assert "the group 'person' is missing (row 1234): fill it" in done.stderr
    for person, error in {
        "p1": "too few groups of 'person' for --validation: give more",
        (1.0, 2.0): "the column 'person' holds ndarray (row 0): numbers, strings or dates",
    }.items():
        given.assign(person=[person] * ROWS).to_parquet("one.parquet", row_group_size=300)
        done = run("train", "one.parquet", *words[2:])
        assert done.exit_code == 2
        assert error in done.stderr


def test_several_processes_without_mpi4py_are_told_how_to_install_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    done = run(*COMMAND, PMI_SIZE="2", PMI_RANK="0")
    assert done.exit_code == 2
    assert re.search(r"pip install 'mpi4py>=[\d.]+' mpich$", done.stderr.rstrip())
