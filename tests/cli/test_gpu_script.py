"""The script that measures a GPU: its output, never its times."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PARTS = {"limits", "correctness", "trainings", "steps", "gradient_check", "crossover"}
# The script's lines about a backend; with --quick the peers run on a CPU too.
LINES = {
    "cupy": lambda line: line["part"] != "trainings" or "CuPy" in line.get("what", ""),
    "torch": lambda line: "orch" in line.get("what", ""),
    "jax": lambda line: "JAX" in line.get("what", ""),
}
# Products and Adam's updates round in another order.
SAME = 1e-12


def run(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def not_finite(constant: str) -> None:
    raise AssertionError(f"{constant} in a line of the script")


def test_help_lists_the_options_and_a_missing_gpu_is_a_one_line_error() -> None:
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert all(option in done.stdout for option in ("--out", "--seconds", "--quick", "--table"))
    done = run(CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu.py measures a CUDA GPU, and there is none: ")


@pytest.mark.long
def test_every_part_that_can_run_here_gives_finite_figures(xp: Any, tmp_path: Path) -> None:
    if xp.name not in LINES:
        pytest.skip("the script measures nothing on this backend")
    out = tmp_path / "gpu.jsonl"
    done = run("--quick", "--out", str(out))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line, parse_constant=not_finite) for line in out.read_text().splitlines()]
    found = [line for line in lines[1:] if LINES[xp.name](line)]
    assert {line["part"] for line in found} == (PARTS if xp.name == "cupy" else {"trainings"})
    trained = {line["case"][0] for line in found if "microseconds" in line}
    assert trained == {"S", "D", "M"}
    for line in found:
        # PyTorch's CUDA graph needs a GPU; TF32 needs a recent one.
        assert "left_out" not in line or "graph" in str(line) or line["precision"] == "tf32", line
        if line["part"] == "gradient_check":
            assert line["verdict"] == "pass"
        if line["part"] == "correctness" and line["what"] == "float64":
            assert max(line["loss"], line["gradient"], line["trained_loss"]) < SAME
    table = run("--table", str(out)).stdout
    assert "versions: {" not in table
    assert all(line["case"] in table for line in found if "case" in line)


def test_every_part_reports_that_no_time_is_left(xp: Any) -> None:
    if xp.name != "cupy":
        pytest.skip("without a GPU nothing is begun")
    done = run("--seconds", "0")
    header, *lines = map(json.loads, done.stdout.splitlines())
    assert header["card"]
    assert {line["part"] for line in lines} == PARTS
    assert all(
        "no time" in line["left_out"] or "not installed" in line["left_out"] for line in lines
    )
