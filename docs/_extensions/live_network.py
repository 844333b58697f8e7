"""The live picture of the front page: a trained network as C, compiled to WebAssembly.

The line ``<!-- live network -->`` of the page becomes the module, for ``_static/live_network.js``.
The package ziglang compiles it. Without ziglang the page keeps its still picture.
"""

import base64
import importlib.util
import json
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.files.c_export.c_source import constant_lines

MARK = "<!-- live network -->\n"
DOCS = Path(__file__).parents[1]
SOURCE = DOCS / "live" / "live_network.c"
# Those of SOURCE, and the corners of the picture: left, right, bottom, top.
SIZE, BOX = (160, 96), (-2.25, 3.15, -1.5, 1.9)
EXPORTS = ("live_start", "live_learn", "live_draw")


def write_sources(folder: Path) -> list[list[float]]:
    """Write the three files in C, and return the rows of the picture as x, y and class."""
    network, theta, x, y = runpy.run_path(str(DOCS / "pictures" / "draw.py"))["moons"]()
    bx.export_c(folder / "network.c", network, theta, gradient=True)
    arrays = {"data_x": x.astype("float32"), "data_y": y.astype("float32")}
    lines = [line for name, values in arrays.items() for line in constant_lines(name, values)]
    (folder / "data.c").write_text("\n".join([f"#define DATA_ROWS {len(x)}", *lines]))
    (folder / SOURCE.name).write_text(SOURCE.read_text("utf-8"))
    return np.concatenate([x.round(3), y], axis=1).tolist()


def compiled(folder: Path) -> bytes:
    """Return the files of a folder as a module of WebAssembly, with JavaScript's functions."""
    exports = [f"-Wl,--export={name}" for name in EXPORTS]
    options = ["-std=c99", "-Oz", "-nostdlib", f"-I{SOURCE.parent / 'include'}"]
    options += ["-Wl,--no-entry", "-Wl,--strip-all", *exports]
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding", *options]
    subprocess.run([*command, SOURCE.name, "-o", "live.wasm"], cwd=folder, check=True)  # noqa: S603
    return (folder / "live.wasm").read_bytes()


def block() -> str:
    """Return the HTML with the module and the data; "" without a compiler."""
    if importlib.util.find_spec("ziglang") is None:
        return ""
    with tempfile.TemporaryDirectory() as name:
        points = write_sources(Path(name))
        module = base64.b64encode(compiled(Path(name))).decode()
    data = {"module": module, "width": SIZE[0], "height": SIZE[1], "box": BOX, "points": points}
    return (
        f'<script type="application/json" id="live-network">{json.dumps(data)}</script>\n'
        '<script defer src="_static/live_network.js"></script>\n'
    )


def _insert(app: Any, name: str, source: list[str]) -> None:
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, block())
        app.env.note_dependency(str(SOURCE))


def setup(app: Any) -> dict[str, bool]:
    """Replace the mark in the page as it is read."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
