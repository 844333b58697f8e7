"""Exported C files, compiled together into one library and called row by row."""

import ctypes
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import HANGING

# No warning of these may appear.
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


class Case(NamedTuple):
    """A network with its theta, exported in one precision."""

    network: bx.Network
    theta: np.ndarray
    dtype: str


class Library:
    """A compiled library; ``call`` runs a function on each row."""

    def __init__(self, path: Path, dtypes: Mapping[str, str]) -> None:
        self.library, self.dtypes = ctypes.CDLL(str(path)), dtypes

    def pointers(self, *arrays: np.ndarray) -> list[Any]:
        """Return contiguous arrays as arguments."""
        assert all(array.flags.c_contiguous for array in arrays)
        return [array.ctypes.data_as(ctypes.c_void_p) for array in arrays]

    def call(self, name: str, function: str, x: np.ndarray, width: int) -> np.ndarray:
        """Return the results ``(rows, width)`` of ``NAME_function`` for rows of x."""
        rows = np.ascontiguousarray(x, dtype=self.dtypes[name])
        results = np.empty((len(rows), width), rows.dtype)
        called = getattr(self.library, f"{name}_{function}")
        for row, result in zip(rows, results, strict=True):
            called(*self.pointers(row, result))
        return results


def compiler() -> list[str]:
    """Return the command of a C compiler: that of $CC, else the system's; skip without any."""
    if command := os.environ.get("CC"):
        return shlex.split(command)
    for name in ("cc", "gcc", "clang"):
        if path := shutil.which(name):
            return [path]
    pytest.skip("there is no C compiler: install one, or run nox -s c_compilers")


def skip_without_sanitizers() -> None:
    """Skip where the compiler has no runtime of the sanitizers: ziglang and GCC for Windows."""
    if "ziglang" in compiler() or os.name == "nt":
        pytest.skip("this compiler has no runtime of the sanitizers: gcc and clang have one")


def compile_c(folder: Path, source: str, options: Sequence[str]) -> None:
    """Compile a file in a folder without a warning."""
    command = [*compiler(), *options, source, "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=HANGING)
    assert done.returncode == 0, done.stderr[:5000]


def library_of(
    folder: Path, cases: Mapping[str, Case], options: Sequence[str] = ("-O0",), **more: Any
) -> Library:
    """Export networks, compile their files as one, and return the library."""
    for name, case in cases.items():
        path = folder / f"{name}.c"
        bx.export_c(path, case.network, case.theta, name=name, dtype=case.dtype, **more)
    text = "".join(f'#include "{name}.c"\n' for name in cases)
    (folder / "all.c").write_text(text)
    compile_c(folder, "all.c", [*STRICT, *options, "-fPIC", "-shared", "-o", "all.so"])
    return Library(folder / "all.so", {name: case.dtype for name, case in cases.items()})
