"""Exported C on other processors: 32-bit ARM by qemu-user, and WebAssembly by Node.js.

The package ziglang is a compiler for both: ``nox -s c_compilers`` installs it. Its first call
builds their C libraries, for a minute.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import backprop_xp as bx
from tests.c_programs import STRICT
from tests.files.test_c_file import CLOSE, NETWORKS, rows
from tests.helpers import HANGING

pytestmark = [pytest.mark.c_compiler, pytest.mark.once, pytest.mark.thorough]

# The libraries take a minute of an idle machine, other calls seconds.
BUILDING = 10.0 * HANGING
WASI = """import { WASI } from "node:wasi";
import { readFile } from "node:fs/promises";
const wasi = new WASI({ version: "preview1", returnOnExit: true });
const module = await WebAssembly.compile(await readFile("program"));
const instance = await WebAssembly.instantiate(module, wasi.getImportObject());
process.exit(wasi.start(instance));
"""
# The target of the compiler, and the command that runs its programs.
TARGETS = {
    "ARM": ("arm-linux-musleabihf", ["qemu-arm", "program"]),
    "ARM without floating point": ("arm-linux-musleabi", ["qemu-arm", "program"]),
    "WebAssembly": ("wasm32-wasi", ["node", "--no-warnings", "run.mjs"]),
}


@pytest.mark.parametrize(("target", "command"), TARGETS.values(), ids=TARGETS)
def test_every_network_has_the_librarys_results_on_another_processor(
    target: str, command: list[str], tmp_path: Path
) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no compiler for other processors: run nox -s c_compilers")
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    (tmp_path / "main.c").write_text(_program(tmp_path))
    (tmp_path / "run.mjs").write_text(WASI)
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target, *STRICT, "-O2"]
    cache = {f"ZIG_{kind}_CACHE_DIR": str(tmp_path / "cache") for kind in ("GLOBAL", "LOCAL")}
    done = subprocess.run(
        [*zig, "main.c", "-o", "program", "-lm"],
        cwd=tmp_path,
        env={**cache, **os.environ},
        timeout=BUILDING,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[:5000]
    program = [shutil.which(command[0]) or command[0], *command[1:]]
    found = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=HANGING)
    assert (found.returncode, found.stdout) == (0, "")


def _program(folder: Path) -> str:
    """Return a program that runs the tests of all networks, and prints the names that fail."""
    included, calls = [], []
    for i, (title, network) in enumerate(NETWORKS.items()):
        theta = np.random.default_rng(i).normal(0.0, 0.7, network.size)
        for dtype in CLOSE:
            name, x = f"{dtype}_{i}", rows(network, 32, dtype)
            bx.export_c(folder / f"{name}.c", network, theta, name=name, dtype=dtype, test=x)
            names = [f"{word} {name}_{word}" for word in ("main", "x", "results")]
            included += [*(f"#define {line}" for line in names), f'#include "{name}_test.c"']
            included += [f"#undef {line.split()[0]}" for line in names]
            calls.append(f'    if ({name}_main()) {{ puts("{title}, {dtype}"); ++wrong; }}')
    body = ["int main(void)", "{", "    int wrong = 0;", *calls, "    return wrong;", "}"]
    return "\n".join(["#include <stdio.h>", *included, *body, ""])
