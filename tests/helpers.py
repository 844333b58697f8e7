"""What several files of tests need: fresh interpreters, guarded arrays, the repair of an error."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError

ROOT = Path(bx.__file__).parents[1]

# Where a transfer guard holds: a pretended device, and PyTorch on the CPU, stand in for a GPU;
# "cuda" is the current one.
GUARDED = {"array-api-strict": "device1", "torch": "cpu", "cupy": "cuda"}


def compiled(*values: Any) -> Any:
    """Return a case of a test that JAX's session leaves out, since JAX compiles it for long."""
    return pytest.param(*values, marks=pytest.mark.compiled)


def thorough(*values: Any) -> Any:
    """Return a case of a test that is left to the wide sweeps."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def guarded_array(name: str, x: Any, dtype: str) -> Any:
    """Return data where a guard holds; skip where that library cannot run."""
    try:
        return bx.asarray(x, backend=name, device=GUARDED[name], dtype=dtype)
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1" and name == "cupy":
            pytest.fail(str(error))
        pytest.skip(str(error))


def python(
    program: str, *first: Path, options: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in an interpreter where nothing is chosen; ``first`` lead its path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BACKPROP_XP_", "JAX_"))}
    kept["PYTHONPATH"] = os.pathsep.join(map(str, [*first, ROOT, *filter(None, sys.path)]))
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=120,
    )


def told(calls: str, *first: Path, **options: Any) -> list[str]:
    """Return what each line of calls prints, or the kind and text of its error, as ``python``."""
    program = "import os, sys, numpy as np, backprop_xp as bx\n" + "".join(
        f"try:\n    {line}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        for line in calls.splitlines()
    )
    done = python(program, *first, **options)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def repaired(error: object, name: str, value: Any) -> Any:
    """Carry out the line that an error shows, and return what the variable is then."""
    found = re.search(rf"((?:classes, )?\b{name} = .*?)(?:; or .*)?\.$", str(error))
    assert found, error
    variables = {name: value, "numpy": np, "bx": bx}
    exec(found[1], variables)  # noqa: S102 - a line of our own error
    return variables[name]
