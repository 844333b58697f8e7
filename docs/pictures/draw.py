"""The pictures of the pages, drawn from the code: ``python docs/pictures/draw.py``.

A test draws them again and compares: their numbers and modules are those of the code.
"""

import ast
import itertools
import math
import re
import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np

import backprop_xp as bx
from backprop_xp.cli.xor_experiment import xor_network
from backprop_xp.gradient_check.engine.stencils import AROUND, BETWEEN

HERE = Path(__file__).parent
MINUS = "\N{MINUS SIGN}"
INK, EDGE, PAPER, GOES, COMES = "#1f2933", "#9aa5b1", "#f5f7fa", "#0b6e75", "#a4262c"

# The figures of the benchmarks.
BARS = runpy.run_path(str(HERE / "bars.py"))
COLORS = COMES, "#b7791f", "#2f855a", "#553c9a", GOES


def main() -> None:
    """Write each picture beside this file."""
    for name, picture in pictures().items():
        (HERE / name).write_text(picture, encoding="utf-8")
    draw_moons(HERE / "moons.png")
    for slug, code in gallery().items():
        draw_card(HERE / f"gallery_{slug}.png", code)


def pictures() -> dict[str, str]:
    """Return the pictures as SVG, by their files' names."""
    row = one_row()
    return {
        "forward.svg": forward(row),
        "backward.svg": backward(row),
        "derivative.svg": derivative(),
        "layers.svg": layers(),
        "scale.svg": scale(),
        **{name: bars(*picture) for name, picture in BARS["pictures"]()},
    }


def moons() -> tuple[bx.Network, np.ndarray, np.ndarray, np.ndarray]:
    """Return the network of the README's picture, its theta, and the rows that trained it."""
    from sklearn.datasets import make_moons

    x, labels = make_moons(200, noise=0.2, random_state=0)
    network = bx.mlp([2, 16, 1], hidden="tanh", loss="binary_cross_entropy")
    start, y = network.initialize(seed=0, backend="numpy"), labels[:, None]
    theta = bx.fit(network, start, x, y, optimizer=bx.Adam(0.05), epochs=300).theta
    return network, theta, x, y


def draw_moons(path: Path) -> None:
    """Draw the decision surface of the README; its pixels depend on the version of matplotlib."""
    from matplotlib.figure import Figure

    from backprop_xp import plots

    network, theta, x, y = moons()
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    plots.decision_surface(network, x, y, theta=theta, ax=figure.add_subplot())
    figure.savefig(path, dpi=125)


def gallery() -> dict[str, str]:
    """Return the code of each example of the gallery, by the slug of its heading."""
    page = (HERE.parent / "gallery.md").read_text("utf-8")
    found = re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```", page, re.M | re.S)
    return {title.lower().replace(" ", "_"): code for title, code in found}


def draw_card(path: Path, code: str) -> None:
    """Draw the figure of an example, small, for its card on the top of the gallery."""
    import matplotlib as mpl
    from matplotlib import pyplot as plt

    mpl.use("agg")
    *statements, last = ast.parse(code).body
    value = last.value if isinstance(last, ast.Expr | ast.Assign) else ast.Constant(None)
    namespace: dict[str, Any] = {}
    with mpl.rc_context({"figure.figsize": (4.0, 3.0), "figure.constrained_layout.use": True}):
        exec(compile(ast.Module(statements, []), str(path), "exec"), namespace)  # noqa: S102
        drawn = eval(compile(ast.Expression(value), str(path), "eval"), namespace)  # noqa: S307
        figure = drawn if hasattr(drawn, "savefig") else plt.gcf()
        figure.set_size_inches(4.0, 3.0)
        figure.savefig(path, dpi=90)
    plt.close("all")


def svg(width: int, height: int, parts: list[str], title: str) -> str:
    """Return a picture of these parts, one a line; ``title`` is its alternative text."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"'
    style = 'font-family="DejaVu Sans, Verdana, sans-serif" font-size="15"'
    size = f'width="{width}" height="{height}"'
    paper = f'<rect {size} fill="white"/>'
    whole = [f"{head} {size} {style}>", f"<title>{escape(title)}</title>", paper, *parts, "</svg>"]
    return "\n".join(whole) + "\n"


def text(x: float, y: float, words: str, *, color: str = INK, anchor: str = "middle") -> str:
    """Return a text with its baseline at y."""
    position = f'x="{x:g}" y="{y:g}" text-anchor="{anchor}"'
    halo = 'stroke="white" stroke-width="4" paint-order="stroke"'  # lines do not cross words
    return f'<text {position} fill="{color}" {halo}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, *, fill: str = PAPER) -> str:
    """Return a rectangle with round corners; x and y are those of the upper left one."""
    position = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {position} rx="8" fill="{fill}" stroke="{EDGE}"/>'


class Row(NamedTuple):
    """One row of XOR: weights, bias, z and a of each layer, and the derivatives of the loss."""

    x: np.ndarray
    target: float
    weights: list[np.ndarray]
    bias: list[np.ndarray]
    z: list[np.ndarray]
    a: list[np.ndarray]
    loss: float
    of_weights: list[np.ndarray]
    of_z: list[np.ndarray]
    of_a: list[np.ndarray]


def one_row() -> Row:
    """Propagate the row (1, 0) through the tutorial's network and back, layer by layer."""
    network = xor_network([2, 2, 1], loss="mean_squared_error", hidden="sigmoid")
    parameters = network.unpack(network.initialize(seed=0, backend="numpy"))
    x, target = np.array([[1.0, 0.0]]), np.array([[1.0]])
    a, caches = x, []
    for layer, own in zip(network.layers, parameters, strict=True):
        a, cache = layer.forward(own, a, None)
        caches.append(cache)
    activations = [cache[2] for cache in caches]
    g, of_weights, of_z, of_a = network.loss_function.gradient(a, target), [], [], []
    for layer, own, cache in zip(network.layers[::-1], parameters[::-1], caches[::-1], strict=True):
        of_a.insert(0, g)
        g, (weights, bias) = layer.backward(own, cache, g)
        of_weights.insert(0, weights)
        of_z.insert(0, bias)  # of one row, the sum over the batch is the row's
    weights, bias = ([own[i] for own in parameters] for i in (0, 1))
    z = [x @ w + b for x, w, b in zip([x, *activations], weights, bias, strict=False)]
    loss = float(network.loss_function.value(a, target)[0])
    return Row(x, 1.0, weights, bias, z, activations, loss, of_weights, of_z, of_a)


# Positions of the inputs, the hidden units, the output; and the size of one.
POSITIONS = [[(5, 35), (5, 205)], [(210, 35), (210, 205)], [(440, 120)]]
WIDTHS, HIGH = [85, 125, 125], 66


def forward(row: Row) -> str:
    """Draw the values from left to right."""
    inputs = [[f"x{sub(i + 1)} = {number(v)}"] for i, v in enumerate(row.x[0])]
    units = [
        [[f"z = {number(z)}", f"a = {number(a)}"] for z, a in zip(z[0], a[0], strict=True)]
        for z, a in zip(row.z, row.a, strict=True)
    ]
    parts = [*edges(row.weights, GOES), *boxes([inputs, *units])]
    parts += [*biases(row.bias), text(502, 215, f"target t = {number(row.target)}")]
    parts.append(text(502, 239, f"loss L = {number(row.loss)}"))
    return svg(570, 285, parts, "One row of XOR forward through the network, with its numbers")


def backward(row: Row) -> str:
    """Draw the derivatives of the loss from right to left."""
    inputs = [[f"x{sub(i + 1)} = {number(v)}"] for i, v in enumerate(row.x[0])]
    units = [
        [[f"∂L/∂a {number(a)}", f"∂L/∂z {number(z)}"] for z, a in zip(z[0], a[0], strict=True)]
        for z, a in zip(row.of_z, row.of_a, strict=True)
    ]
    parts = [*edges(row.of_weights, COMES, back=True), *boxes([inputs, *units])]
    parts += [text(502, 215, f"∂L/∂a = 2 (a {MINUS} t)"), text(502, 239, "∂L/∂z =")]
    parts.append(text(502, 259, f"∂L/∂a · a (1 {MINUS} a)"))
    return svg(570, 285, parts, "The derivatives of the loss backward through the network")


def number(value: float) -> str:
    """Return a number with three decimals, or none for an integer, and a true minus sign."""
    digits = f"{value:.0f}" if value == round(value) else f"{value:.3f}"
    return digits.replace("-", MINUS)


def sub(i: int) -> str:
    """Return a digit as a subscript."""
    return "₀₁₂₃₄₅₆₇₈₉"[i]


def boxes(layers: list[list[list[str]]]) -> Iterator[str]:
    """Yield a box for each unit, with its lines of text in the middle."""
    for units, positions, wide in zip(layers, POSITIONS, WIDTHS, strict=True):
        for lines, (x, y) in zip(units, positions, strict=True):
            high = HIGH if len(lines) == 2 else HIGH / 2 + 6
            top = y + (HIGH - high) / 2
            yield box(x, top, wide, high)
            for i, line in enumerate(lines):
                yield text(x + wide / 2, top + 26 + 24 * i, line)


def edges(weights: list[np.ndarray], color: str, *, back: bool = False) -> Iterator[str]:
    """Yield an arrow for each weight, then the number on each."""
    lines, words = [], []
    for w, wide, (left, right) in zip(weights, WIDTHS, itertools.pairwise(POSITIONS), strict=False):
        for (i, (x, y)), (j, (u, v)) in itertools.product(enumerate(left), enumerate(right)):
            start = np.array([x + wide + 3, y + HIGH / 2 + (len(right) - 1) * 12 * (j - i)])
            end = np.array([u - 3, v + HIGH / 2 + 12 * (i - j)])
            lines.append(arrow(start, end, color, back))
            # Of two lines that cross, each number stands before the crossing.
            middle = start + (0.5 if len(right) == 1 or i == j else 0.24) * (end - start)
            words.append(text(middle[0], middle[1] + 5, number(w[i, j]), color=color))
    yield from [*lines, *words]


def arrow(start: np.ndarray, end: np.ndarray, color: str, back: bool) -> str:
    """Return a line with a head at its end, or at its start."""
    (x, y), (u, v) = (end, start) if back else (start, end)
    along = np.array([u - x, v - y]) / np.hypot(u - x, v - y)
    across = np.array([-along[1], along[0]])
    tip = np.array([u, v])
    corners = [tip - 10 * along + 4 * across, tip - 10 * along - 4 * across]
    head = " ".join(f"{a:.1f},{b:.1f}" for a, b in [tip, *corners])
    line = f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{u:.1f}" y2="{v:.1f}" stroke="{color}"/>'
    return f'{line}<polygon points="{head}" fill="{color}"/>'


def biases(bias: list[np.ndarray]) -> Iterator[str]:
    """Yield the bias of each unit."""
    for row, positions, wide in zip(bias, POSITIONS[1:], WIDTHS[1:], strict=True):
        for value, (x, y) in zip(row[0], positions, strict=True):
            yield text(x + wide / 2, y - 9, f"bias {number(value)}")


# The contents of each unit of the package.
CONTENTS = {
    "atomic_files": "files that are written whole or not at all",
    "backends": "array libraries and devices",
    "checks": "checks of arguments",
    "display": "reprs, notebooks, progress",
    "networks": "layers, losses, backpropagation, networks",
    "gradient_check": "the gradient check and its diagnosis",
    "plots": "pictures",
    "training": "optimizers, steps, train and fit",
    "files": "checkpoints, ONNX",
    "estimators": "scikit-learn's interface",
    "tables": "models of tables",
    "testing": "the conformance kit for backends",
    "cli": "the command backprop-xp",
}


def enforced(name: str) -> Any:
    """Return a table of ``tests/test_architecture.py``, which a test enforces."""
    source = (HERE.parent.parent / "tests" / "test_architecture.py").read_text("utf-8")
    (table,) = (
        node.value
        for node in ast.parse(source).body
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name
    )
    return ast.literal_eval(table)


def layers() -> str:
    """Draw the layers, the lowest at the bottom; imports never go up, nor to the right in a row."""
    wide, parts, y, rooms = 720, [], 56.0, enforced("ROOMS")
    for units in reversed(enforced("LAYERS")):
        lines = []
        for unit in units:
            if unit[0] != "_":
                lines.append((unit, CONTENTS.get(unit, "")))
                lines += [("", row) for row in rows_of_rooms(rooms.get(unit, "").split())]
        high = 14 + 24 * len(lines)
        parts.append(box(20, y, wide - 40, high, fill=PAPER))
        for i, (unit, words) in enumerate(lines):
            line = y + 24 + 24 * i
            parts.append(text(36, line, unit, anchor="start"))
            parts.append(text(190, line, words, color=GOES if unit else INK, anchor="start"))
        y += high + 6
    parts += [
        box(20, 12, wide - 40, 38, fill=PAPER),
        text(wide / 2, 36, "import backprop_xp as bx"),
    ]
    title = "The packages of backprop_xp in layers, the backends at the bottom, with their folders"
    return svg(wide, round(y + 6), parts, title)


def rows_of_rooms(rooms: Sequence[str]) -> list[str]:
    """Return the rooms of a unit in lines of six, each importing only those before it."""
    return [" · ".join(rooms[i : i + 6]) for i in range(0, len(rooms), 6)]


# Two intervals of each verdict of the gradient check: their middles and half their widths.
VERDICTS = {
    "pass": ((0.50, 0.10), (0.54, 0.03)),
    "inconclusive": ((0.44, 0.42), (0.70, 0.06)),
    "fail": ((0.30, 0.10), (0.72, 0.03)),
}


def derivative() -> str:
    """Draw nine values around a point with the slope of their polynomial, and three verdicts."""
    nodes = [*AROUND, BETWEEN]
    left, middle, unit = 200.0, 165.0, 40.0

    def at(t: float) -> tuple[float, float]:
        return left + unit * t, middle - 60.0 * math.sin(0.45 * t + 0.35)

    curve = " ".join("{:.1f},{:.1f}".format(*at(t)) for t in np.linspace(-4.4, 4.4, 89))
    parts = [f'<polyline points="{curve}" fill="none" stroke="{EDGE}" stroke-width="2"/>']
    (x, y), slope = at(0.0), 60.0 * 0.45 * math.cos(0.35)
    ends = [(x + side * 2.6 * unit, y - side * 2.6 * slope) for side in (-1, 1)]
    parts.append(segment(*ends, GOES, 2))
    parts.append(segment((20, 270), (380, 270), EDGE, 1))
    for t in nodes:
        (u, v), fill = at(t), INK if t == 0.0 else PAPER if t == BETWEEN else GOES
        parts.append(segment((u, 266), (u, 274), EDGE, 1))
        parts.append(f'<circle cx="{u:.1f}" cy="{v:.1f}" r="5" fill="{fill}" stroke="{GOES}"/>')
    parts += [text(x, 294, "x"), text(left, 20, "values at uneven distances")]
    parts.append(text(ends[1][0] + 8, ends[1][1] - 6, "slope", color=GOES))
    for i, (verdict, intervals) in enumerate(VERDICTS.items()):
        top = 60 + 84 * i
        parts.append(text(480, top + 20, verdict, anchor="start"))
        for k, (center, half) in enumerate(intervals):
            color, high = (GOES, COMES)[k], top + 26 * k
            start, end, dot = (590 + 180 * v for v in (center - half, center + half, center))
            parts.append(segment((start, high), (end, high), color, 2))
            parts += [segment((u, high - 5), (u, high + 5), color, 2) for u in (start, end)]
            parts.append(f'<circle cx="{dot:.1f}" cy="{high:.1f}" r="4" fill="{color}"/>')
    parts.append(text(680, 20, "slope and error bar: numeric", color=GOES, anchor="end"))
    parts.append(text(686, 20, "analytic", color=COMES, anchor="start"))
    title = "Nine values give a slope with an error bar; only disjoint intervals fail"
    return svg(770, 310, parts, title)


def segment(start: tuple[float, float], end: tuple[float, float], color: str, wide: int) -> str:
    """Return a straight line."""
    ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{wide}"/>'


def scale() -> str:
    """Draw the speed-up by the number of ranks, as the cost model of the benchmark predicts it."""
    model = runpy.run_path(str(HERE.parent.parent / "benchmarks" / "scale.py"))
    left, bottom, wide, high = 60, 300, 43, 28
    parts, ends, ranks = list[str](), dict[str, tuple[float, str]](), [2**i for i in range(11)]
    for i, n in enumerate(ranks):
        parts.append(text(left + wide * i, bottom + 20, str(n)))
        parts.append(text(left - 10, bottom - high * i + 5, str(n), anchor="end"))
    for place, color in zip(model["PLACES"], COLORS, strict=True):
        ups = [model["speed_up"](place, 10_000_000, 65_536, n) for n in ranks]
        heights = [bottom - high * math.log2(up) for up in ups]
        line = " ".join(f"{left + wide * i},{y:.1f}" for i, y in enumerate(heights))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        ends[place] = heights[-1], color
    lowest = -math.inf
    for place, (y, color) in sorted(ends.items(), key=lambda end: end[1]):
        lowest = max(y + 5, lowest + 18)  # one below the other
        parts.append(
            text(left + wide * 10 + 8, round(lowest, 1), place, color=color, anchor="start")
        )
    parts.append(text(left + wide * 5, bottom + 42, "ranks"))
    parts.append(text(left - 45, 12, "speed-up", anchor="start"))
    return svg(800, 350, parts, "Speed-up by the number of ranks")


def bars(title: str, caption: str, groups: dict[str, list[Any]]) -> str:
    """Draw groups of horizontal bars with their names and figures; this library's are coloured."""
    # Narrow, so that a phone shows large letters.
    left, long, parts, y = 185, 210, list[str](), 24.0
    parts.append(text(10, y, caption, anchor="start"))
    for group, listed in groups.items():
        y += 30 if group else 8
        if group:
            parts.append(text(10, y, group, anchor="start"))
        for name, length, words in listed:
            y += 24
            fill, color = (GOES, GOES) if name.startswith(BARS["OURS"]) else (EDGE, INK)
            size = f'width="{max(1.0, long * length):.1f}" height="16"'
            parts.append(f'<rect x="{left}" y="{y - 13:g}" {size} fill="{fill}"/>')
            parts.append(text(left - 10, y, name, color=color, anchor="end"))
            end = left + max(1.0, long * length) + 8
            parts.append(text(round(end, 1), y, words, color=color, anchor="start"))
    return svg(560, round(y + 16), parts, title)


if __name__ == "__main__":
    main()
