"""Trainings by ``mpirun``, on the MPI that is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import HANGING

pytest.importorskip("mpi4py", reason="the session mpi installs mpi4py and an MPI")
MPIRUN = shutil.which("mpirun")
if MPIRUN is None:
    pytest.skip("mpirun is not on the PATH", allow_module_level=True)

# More ranks than cores, and as root in a container; the other MPI ignores these.
OPEN_MPI = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}
SAME = 1e-12


def run(name: str, ranks: int, folder: Path) -> tuple[int, list[Any]]:
    """Run a training of ``trainings``; return mpirun's exit status and each rank's result."""
    environment = {**os.environ, **OPEN_MPI, "OMP_NUM_THREADS": "1", "BACKPROP_XP_BACKEND": "numpy"}
    words = [MPIRUN, "-n", str(ranks), sys.executable, "-m", "tests.mpi.trainings", name, folder]
    done = subprocess.run(  # a deadlock ends at the timeout
        words, env=environment, timeout=HANGING, check=False, capture_output=True, text=True
    )
    print(done.stdout, done.stderr)  # noqa: T201  # pytest shows it if the test fails
    paths = [folder / f"{name}-{rank}.json" for rank in range(ranks)]
    return done.returncode, [json.loads(path.read_text()) for path in paths if path.exists()]


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_ranks_train_as_one_process(ranks: int, tmp_path: Path) -> None:
    status, found = run("same", ranks, tmp_path)
    assert (status, len(found)) == (0, ranks)
    assert max(one["theta"] for one in found) < SAME
    assert max(one["loss"] for one in found) < SAME
    assert len({one["bytes"] for one in found}) == 1


def test_a_divided_stack_is_that_of_one_process_to_the_bit(tmp_path: Path) -> None:
    assert run("stack", 3, tmp_path) == (0, [{"same": True, "epochs": 6}] * 3)


def test_ctrl_c_on_one_rank_ends_all_at_one_step_and_any_resumes(tmp_path: Path) -> None:
    status, found = run("interrupted", 3, tmp_path)
    assert (status, len(found)) == (0, 3)
    assert {one["message"] for one in found} == {"Rank 2 of 3 received Ctrl-C."}
    assert len({one["step"] for one in found}) == 1
    assert found[0]["step"] > 0
    # The resumed training of many epochs drifts by rounding.
    assert max(one["difference"] for one in found) < 1e-6


def test_an_error_on_one_rank_raises_on_all(tmp_path: Path) -> None:
    other = "RuntimeError('Rank 2 of 3 raised ValueError: in a callback')"
    errors = [other, other, "ValueError('in a callback')"]
    assert run("failing", 3, tmp_path) == (0, [{"error": text, "epoch": 3} for text in errors])


def test_a_killed_rank_ends_the_job_and_the_file_resumes_it(tmp_path: Path) -> None:
    status, found = run("killed", 3, tmp_path)
    assert status != 0
    assert not found
    status, found = run("resumed", 3, tmp_path)
    assert (status, len(found)) == (0, 3)
    assert max(one["theta"] for one in found) < SAME
