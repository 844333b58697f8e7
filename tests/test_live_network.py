"""The live picture of the site's front page: C that learns on, and its page in a browser."""

import ctypes
import importlib.util
import runpy
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.c_programs import STRICT, compile_c
from tests.helpers import HANGING

pytestmark = pytest.mark.once

DOCS = Path(__file__).parents[1] / "docs"
FRAMES = 90  # of three steps each: a second and a half


@pytest.fixture(scope="module")
def live() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "_extensions" / "live_network.py"))


def test_the_surface_follows_the_pointer_and_comes_back(live: Any, tmp_path: Path) -> None:
    points = np.asarray(live["write_sources"](tmp_path))
    compile_c(tmp_path, "live_network.c", [*STRICT, "-O2", "-fPIC", "-shared", "-o", "live.so"])
    functions = ctypes.CDLL(str(tmp_path / "live.so"))
    functions.live_draw.restype = ctypes.POINTER(ctypes.c_float)
    width, height = live["SIZE"]
    left, right, bottom, top = live["BOX"]

    def probability(x: float, y: float) -> float:
        found = functions.live_draw(*map(ctypes.c_float, live["BOX"]))
        pixels = np.ctypeslib.as_array(found, (height, width))
        row, column = (top - y) / (top - bottom), (x - left) / (right - left)
        return float(pixels[int(row * height), int(column * width)])

    def learn(x: float, y: float, target: float, count: float) -> None:
        for _ in range(3 * FRAMES):
            functions.live_learn(*map(ctypes.c_float, (x, y, target, count)))

    def score() -> float:
        return float(np.mean([(probability(x, y) > 0.5) == label for x, y, label in points]))

    functions.live_start()
    assert probability(-1.0, 0.9) < 0.1
    assert score() > 0.95
    learn(-1.0, 0.9, 1.0, 40.0)
    assert probability(-1.0, 0.9) > 0.9
    learn(0.0, 0.0, 0.0, 0.0)
    assert probability(-1.0, 0.9) < 0.1
    assert score() > 0.95


def test_without_a_compiler_the_page_keeps_its_picture(
    live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert live["block"]() == ""
    assert live["MARK"] in (DOCS / "index.md").read_text("utf-8")


PAGE = """<!doctype html><meta charset="utf-8"><title>waiting</title>
<img src="moons.png" alt="moons">
{block}
<script>
addEventListener("load", () => setTimeout(() => {{
  const canvas = document.querySelector("canvas.live-network");
  if (!canvas) return void (document.title = "no canvas");
  const place = canvas.getBoundingClientRect(), pen = canvas.getContext("2d");
  const x = 0.25 * place.width, y = 0.35 * place.height;
  const u = 0.25 * canvas.width + 30, v = 0.35 * canvas.height; // beside the row at the pointer
  const color = () => [...pen.getImageData(u, v, 1, 1).data];
  const before = color();
  const event = {{ clientX: place.left + x, clientY: place.top + y, bubbles: true }};
  canvas.dispatchEvent(new PointerEvent("pointermove", event));
  setTimeout(() => {{
    const after = color();
    const isRight = before[2] > before[0] && after[0] > after[2];
    document.title = isRight ? "followed" : `${{before}} ${{after}}`;
  }}, 4000);
}}, 500));
</script>"""


def test_the_page_follows_the_pointer_in_a_browser(live: Any, tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no compiler for WebAssembly: run nox -s c_compilers")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    text = PAGE.format(block=live["block"]())
    (tmp_path / "page.html").write_text(text.replace("_static/", ""))
    shutil.copy(DOCS / "_static" / "live_network.js", tmp_path)
    shutil.copy(DOCS / "pictures" / "moons.png", tmp_path)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=8000"]
    command = [chromium, *options, "--dump-dom", (tmp_path / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGING)
    assert "<title>followed</title>" in done.stdout, done.stdout[-500:]
    assert "kB of WebAssembly" in done.stdout
