"""Every example runs as a stranger would run it, on the environment's backend."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


def run_example(name: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_digits_are_told_apart_by_at_least_97_percent(xp: Any) -> None:
    pytest.importorskip("sklearn")
    output = run_example("digits.py")
    assert f"on {xp.name} (" in output
    accuracy = re.search(r"test accuracy ([\d.]+) %", output)
    assert accuracy
    assert float(accuracy[1]) >= 97.0
    losses = [float(value) for value in re.findall(r"loss ([\d.]+)", output)]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 10
