"""Helpers of several test files: child processes, guarded arrays, the repair of an error."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError

ROOT = Path(bx.__file__).parents[1]

# What waits for longer hangs. It is no measure of speed: a busy machine may take a hundred times as
# long as an idle one.
HANGING = 600.0

# Limits for a child that hangs beside others that answer: if a busy machine takes longer than a
# limit for the others, the next one holds.
LIMITS = (2.0, 8.0, 32.0, 128.0, 512.0)

# Devices that a transfer guard watches. A simulated device, and PyTorch on the CPU, stand in for a
# GPU; "cuda" is the current GPU.
GUARDED = {"array-api-strict": "device1", "torch": "cpu", "cupy": "cuda", "dpnp": "cpu"}


def long(*values: Any) -> Any:
    """Return a case that takes long where operations cost more than on NumPy, or are compiled."""
    return pytest.param(*values, marks=pytest.mark.long)


def needing(library: str) -> Any:
    """Return the name of a library as a case that has the library's mark, if it has one."""
    has_mark = library in ("cupy", "jax", "torch", "dpnp")
    marks = [getattr(pytest.mark, library)] if has_mark else []
    return pytest.param(library, marks=marks)


def thorough(*values: Any) -> Any:
    """Return a case that only the thorough session runs."""
    return pytest.param(*values, marks=pytest.mark.thorough)


def guarded_array(name: str, x: Any, dtype: str) -> Any:
    """Return data on a device that a guard watches; skip if the library is unusable."""
    try:
        return bx.asarray(x, backend=name, device=GUARDED[name], dtype=dtype)
    except BackendUnavailableError as error:
        if os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1" and name == "cupy":
            pytest.fail(str(error))
        pytest.skip(str(error))


class FullDisk:
    """A context in which no file can be larger than a thousand bytes."""

    def __enter__(self) -> None:
        resource = pytest.importorskip("resource")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, self.limits[1]))

    def __exit__(self, *error: object) -> None:
        resource = pytest.importorskip("resource")
        resource.setrlimit(resource.RLIMIT_FSIZE, self.limits)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def python(
    program: str, *first: Path, options: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program in a child process without a chosen backend; ``first`` lead its path."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BACKPROP_XP_", "JAX_"))}
    kept["PYTHONPATH"] = os.pathsep.join(map(str, [*first, ROOT, *filter(None, sys.path)]))
    return subprocess.run(
        [sys.executable, *options, "-c", program],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        timeout=HANGING,
    )


def printed_lines(calls: str, *first: Path, **options: Any) -> list[str]:
    """Return the output of each line of calls, or the type and message of its error."""
    program = "import os, sys, numpy as np, backprop_xp as bx\n" + "".join(
        f"try:\n    {line}\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        for line in calls.splitlines()
    )
    done = python(program, *first, **options)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def run_suggestion(error: object, name: str, value: Any) -> Any:
    """Run the line that an error suggests, and return the variable's new value."""
    found = re.search(rf"((?:classes, )?\b{name} = .*?)(?:; or .*)?\.$", str(error))
    assert found, error
    variables = {name: value, "numpy": np, "bx": bx}
    exec(found[1], variables)  # noqa: S102 - a line of our own error
    return variables[name]
