"""The live picture of the site's front page: C that learns on, and its page in a browser."""

import ctypes
import functools
import http.server
import importlib.util
import json
import os
import queue
import runpy
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("sklearn")

from tests.c_programs import STRICT, compile_c
from tests.helpers import HANGING

pytestmark = [pytest.mark.c_compiler, pytest.mark.once]

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


PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<img src="moons.png" alt="moons">
{block}
"""
# It looks beside the row at the pointer, for so many frames at most, and sends what it found.
VISIT = """<script type="module">
const frame = () => new Promise(requestAnimationFrame);
const until = async (test) => { for (let i = 0; i < FRAMES && !test(); ++i) await frame(); };
const canvas = () => document.querySelector("canvas.live-network");
const isRed = () => {
  const { width, height } = canvas();
  const pen = canvas().getContext("2d");
  const [red, , blue] = pen.getImageData(0.25 * width + 30, 0.35 * height, 1, 1).data;
  return red > blue;
};
const send = (type) => {
  const { left, top, width, height } = canvas().getBoundingClientRect();
  const place = { clientX: left + 0.25 * width, clientY: top + 0.35 * height };
  canvas().dispatchEvent(new PointerEvent(type, { ...place, bubbles: true }));
};
await until(canvas);
const is_red = [];
if (canvas()) {
  is_red.push(isRed());
  send("pointermove");
  await until(isRed);
  is_red.push(isRed());
  send("pointerleave");
  await until(() => !isRed());
  is_red.push(isRed());
}
const hosts = performance.getEntriesByType("resource").map((one) => new URL(one.name).host);
const other_hosts = hosts.filter((host) => host !== location.host);
const text = document.body.textContent;
await fetch("/report", { method: "POST", body: JSON.stringify({ is_red, other_hosts, text }) });
</script>"""


class Visited(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, with ``VISIT`` at the end of its pages, and keeps the reports."""

    reports: ClassVar[queue.Queue[dict[str, Any]]] = queue.Queue()

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        if path.suffix != ".html":
            super().do_GET()
        else:
            script = VISIT.replace("FRAMES", str(10 * FRAMES))
            self.answer(path.read_bytes() + script.encode())

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.reports.put(json.loads(self.rfile.read(size)))
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def visited(page: Path, profile: Path) -> dict[str, Any]:
    """Return what ``VISIT`` finds on a page, in Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("chromium is not installed")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update"]
    options += [f"--user-data-dir={profile}", "--remote-debugging-port=0"]
    handler = functools.partial(Visited, directory=page.parent)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        command = [chromium, *options, f"http://127.0.0.1:{server.server_port}/{page.name}"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, **quiet) as browser:
            try:
                return Visited.reports.get(timeout=HANGING)
            finally:
                browser.terminate()
                server.shutdown()


@pytest.fixture
def page(live: dict[str, Any], tmp_path: Path) -> Path:
    """The front page in the folder of $BACKPROP_XP_SITE, else a page with the picture alone."""
    if built := os.environ.get("BACKPROP_XP_SITE"):
        return Path(built).resolve() / "index.html"
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("there is no compiler for WebAssembly: run nox -s c_compilers")
    (tmp_path / "_static").mkdir()
    shutil.copy(DOCS / "_static" / "live_network.js", tmp_path / "_static")
    shutil.copy(DOCS / "pictures" / "moons.png", tmp_path)
    (tmp_path / "page.html").write_text(PAGE.format(block=live["block"]()))
    return tmp_path / "page.html"


def test_the_page_follows_the_pointer_in_a_browser(page: Path, tmp_path: Path) -> None:
    report = visited(page, tmp_path / "profile")
    # The color at the pointer is red: before it comes, while it stays, and when it has left.
    assert report["is_red"] == [False, True, False]
    assert report["other_hosts"] == []
    assert "kB of WebAssembly" in report["text"]
