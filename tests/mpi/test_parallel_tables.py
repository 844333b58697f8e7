"""The command ``train --parallel`` by ``mpirun``, on the MPI that is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mpi4py", reason="the session mpi installs mpi4py and an MPI")
pytest.importorskip("pyarrow")
pytest.importorskip("sklearn")

import pandas as pd

import backprop_xp as bx
from backprop_xp.tables.columns import feature_records
from backprop_xp.tables.report.split import hashed
from tests.helpers import HANGING

MPIRUN = shutil.which("mpirun")
if MPIRUN is None:
    pytest.skip("mpirun is not on the PATH", allow_module_level=True)
ROOT = Path(bx.__file__).parent.parent
# More ranks than cores, and as root in a container; the other MPI ignores these.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
ROWS = 4000
QUICK = ("--preset", "fast", "--hidden-layer-sizes", "16", "--max-iter", "4")


def train(ranks: int, *words: str, status: int = 0) -> Any:
    """Run the command on ranks, and return the process after a check of its exit status."""
    environment = {**os.environ, **OPEN_MPI, "OMP_NUM_THREADS": "1", "BACKPROP_XP_BACKEND": "numpy"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [MPIRUN, "-n", str(ranks), sys.executable, "-m", "backprop_xp", "train", *words]
    done = subprocess.run(  # a deadlock ends at the timeout
        command, env=environment, timeout=HANGING, check=False, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a dataset of two files in the folder ``big``."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    a, kind = draw.normal(size=ROWS), draw.choice(["low", "high", None], ROWS)
    frame = pd.DataFrame({"a": a.astype(str), "kind": kind, "weight": draw.uniform(size=ROWS)})
    frame["y"] = a + (kind == "low") + 0.1 * draw.normal(size=ROWS)
    frame["z"] = np.where(frame["y"] > 0.5, "yes", "no")
    Path("big").mkdir()
    for i, part in enumerate((frame[:1500], frame[1500:])):
        part.to_parquet(f"big/{i}.parquet", row_group_size=400)
    return tmp_path


@pytest.mark.parametrize("words", ["y --drop z --weights weight", "z --drop y"])
def test_any_number_of_ranks_has_one_validation_set_and_one_preparation(
    words: str, folder: Path
) -> None:
    options = ("big", "--target", *words.split(), "--parallel", "--json", *QUICK)
    models, reports = [], []
    for ranks in (1, 2, 3):
        done = train(ranks, *options, "--out", f"{ranks}.safetensors")
        reports.append(json.loads(done.stdout))
        models.append(bx.tables.load(f"{ranks}.safetensors"))
        metric = "rmse" if "rmse" in reports[-1]["validation"] else "log_loss"
        assert reports[-1]["validation"][metric] < 0.7 * reports[-1]["baseline"][metric]
    first = models[0].model_
    for model, report in zip(models[1:], reports[1:], strict=True):
        assert report["parts"] == reports[0]["parts"]
        assert report["baseline"] == pytest.approx(reports[0]["baseline"], rel=1e-12)
        other = model.model_
        found, expected = (feature_records.to_bytes(one.features) for one in (other, first))
        assert found.tobytes() == expected.tobytes()
        np.testing.assert_allclose(other.scale, first.scale, rtol=1e-12)


def test_any_number_of_ranks_has_the_same_test_rows_of_the_same_groups(folder: Path) -> None:
    for i in range(2):
        frame = pd.read_parquet(f"big/{i}.parquet")
        frame["group"] = [f"g{round(100 * one) % 60}" for one in frame["weight"]]
        frame.to_parquet(f"big/{i}.parquet", row_group_size=400)
    options = ("big", "--target", "y", "--drop", "z", "--parallel", "--json", *QUICK)
    options += ("--group", "group", "--test", "0.2")
    one, three = (json.loads(train(ranks, *options).stdout) for ranks in (1, 3))
    assert one["parts"] == three["parts"]
    assert one["baseline"] == pytest.approx(three["baseline"], rel=1e-12)
    for report in (one, three):
        assert report["test"]["rmse"] < 0.7 * report["baseline"]["rmse"]


@pytest.mark.parametrize("words", ["y --drop z", "z --drop y"])
def test_a_rank_may_have_no_validation_and_no_test_rows(words: str, folder: Path) -> None:
    options = ("big", "--target", *words.split(), "--parallel", "--json", *QUICK)
    options += ("--validation", "0.0004", "--test", "0.0006")
    report, values = json.loads(train(3, *options).stdout), hashed(np.arange(ROWS), 0)
    parts = {"validation": values < 0.0004, "test": (values >= 0.0004) & (values < 0.001)}
    for part, rows in parts.items():
        assert report["parts"][part] == rows.sum()
        assert np.flatnonzero(rows)[-1] < ROWS / 2  # the last rank has none


def test_an_error_on_one_rank_is_one_line_and_ends_all(folder: Path) -> None:
    frame = pd.read_parquet("big/1.parquet")
    # A validation row of the last rank: the first one sees the sample of the training rows.
    row = np.flatnonzero(hashed(np.arange(ROWS), 0) < 0.15)[-1]
    frame.loc[row, "weight"] = -1.0
    frame.to_parquet("big/1.parquet", row_group_size=400)
    options = ("--target", "y", "--parallel", "--weights", "weight", *QUICK)
    done = train(3, "big", *options, status=2)
    lines = [line for line in done.stderr.splitlines() if line.startswith("error")]
    assert lines == [
        "error: Rank 2 of 3 raised backprop_xp.tables.readers.cells.CellError: the weights "
        f"'weight' have -1.0 (row {row}): finite numbers of at least 0 are expected."
    ]


def test_an_error_on_the_first_rank_while_others_begin_to_train_ends_all(folder: Path) -> None:
    options = ("big", "--target", "y", "--parallel", *QUICK)
    train(2, *options)
    done = train(2, *options, "--resume", status=2)
    assert "error: the training in model.safetensors is finished." in done.stderr


def test_several_processes_without_parallel_are_refused(folder: Path) -> None:
    done = train(2, "big/0.parquet", "--target", "y", status=2)
    assert done.stderr.count("error: mpirun started several processes") == 1
