"""The figures of the pictures on the page of benchmarks, read from the tables of its detail pages.

``draw.py`` draws them. A bar is (name, length, what is written at its end); the first of a group is
this library's.
"""

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).parents[1]
OURS = "backprop_xp"


class Bar(NamedTuple):
    """A bar with its length between 0 and 1."""

    name: str
    length: float
    words: str


class Picture(NamedTuple):
    """The alternative text, a caption, and the bars of each group."""

    title: str
    caption: str
    groups: dict[str, list[Bar]]


def table(page: str, heading: str, first: str = "") -> dict[str, dict[str, str]]:
    """Return the cells of a table by row and column: the first below a heading that has ``first``.

    ``first`` is the first cell of its titles.
    """
    text = (DOCS / f"{page}.md").read_text("utf-8")
    _, found, text = text.partition(f"\n#{heading}\n")
    if not found:
        raise ValueError(f"{page}.md has no heading {heading}")
    blocks = re.findall(r"(?:^\|.*\|\n)+", text, re.M)
    for block in blocks:
        titles, _, *rows = ([*map(plain, line.split("|")[1:-1])] for line in block.splitlines())
        if titles[0] == first:
            return {row[0]: dict(zip(titles, row, strict=True)) for row in rows}
    raise ValueError(f"{heading} of {page}.md has no table that begins with {first!r}")


def plain(cell: str) -> str:
    """Return the text of a cell without marks."""
    return re.sub(r"[`*]", "", cell).strip()


def figure(cell: str) -> float:
    """Return the first number of a cell."""
    return float(re.findall(r"[\d.]+(?:e[+-]\d+)?", cell)[0])


def factor(value: float) -> str:
    """Return a factor with two digits, or whole from ten on."""
    return f"{float(f'{value:.2g}'):,.0f} times" if value >= 9.95 else f"{value:.2g} times"


def linear(values: dict[str, float], words: Callable[[float], str]) -> list[Bar]:
    """Return bars as long as their values."""
    longest = max(values.values())
    return [Bar(name, value / longest, words(value)) for name, value in values.items()]


def logarithmic(values: dict[str, float], low: float, high: float) -> list[Bar]:
    """Return bars from ``low`` to ``high``, which show each value, and its factor to the first."""
    first = next(iter(values.values()))
    span = math.log10(high / low)
    return [
        Bar(
            name,
            math.log10(value / low) / span,
            f"{value:.1e}" if value == first else f"{value:.1e}, {factor(value / first)}",
        )
        for name, value in values.items()
    ]


def training() -> Picture:
    """Return the times of an Adam update."""
    rows = table("benchmarks_training", "# Training beside other libraries", "network")
    peers = {"scikit-learn": "scikit-learn 1.9", "PyTorch": "PyTorch 2.13", "JAX": "JAX 0.10"}
    groups = {}
    for name in ("XOR", "digits", "MNIST-sized", "wide"):
        (row,) = (row for title, row in rows.items() if title.startswith(f"{name}:"))
        times = {OURS: 1.0, **{peer: 1.0 / figure(row[at]) for peer, at in peers.items()}}
        groups[row["network"]] = linear(times, lambda time: f"{time:.2g}")
    caption = "time of an Adam update, in units of this library's on NumPy"
    return Picture("Times of an Adam update of four networks by four libraries", caption, groups)


def curves() -> Picture:
    """Return the loss of each regression beside the lowest one of another library."""
    rows = table("benchmarks_small_networks", "# Fits of small networks")
    ours, groups = rows["LevenbergMarquardt"], {}
    others = {name: row for name, row in rows.items() if name not in OWN_METHODS}
    for problem in ("curve", "friedman1", "friedman2", "friedman3", "borehole", "engine map"):
        losses = {
            name: row[problem] for name, row in others.items() if row[problem] != "\N{EN DASH}"
        }
        best = min(losses, key=lambda name: figure(losses[name]))
        found = {OURS: figure(ours[problem]), best: figure(losses[best])}
        groups[problem] = logarithmic(found, 1e-15, 1e-2)
    caption = "loss after 0.2 s of CPU time, on a logarithmic scale"
    return Picture("Losses of Levenberg-Marquardt beside the best other library", caption, groups)


OWN_METHODS = ("LevenbergMarquardt", "LBFGS", "Adam", "Adam, compiled")


def equations() -> Picture:
    """Return the errors of both libraries."""
    rows = table("benchmarks_equations", "# Equations beside DeepXDE")
    groups = {}
    for name, row in rows.items():
        if name != "its k":
            errors = {OURS: figure(row["this library"]), "DeepXDE": figure(row["DeepXDE"])}
            groups[name] = logarithmic(errors, 1e-8, 1.0)
    caption = "relative error after 40 s of CPU time, on a logarithmic scale"
    return Picture("Errors of five equations, beside DeepXDE's", caption, groups)


def laplacians() -> Picture:
    """Return the times of a Laplacian."""
    rows = table(
        "benchmarks_equations", "# Input gradients and Laplacians", "ours on NumPy, beside"
    )
    names = {
        "PyTorch, backward twice": "PyTorch",
        "JAX, the trace of jax.hessian": "JAX, hessian",
        "JAX, jvp of jvp": "JAX, jvp of jvp",
    }
    groups = {}
    for inputs in ("2 inputs", "8 inputs", "32 inputs"):
        times = {OURS: 1.0, **{to: 1.0 / figure(rows[at][inputs]) for at, to in names.items()}}
        groups[inputs] = linear(times, lambda time: f"{time:.2g}")
    caption = "time of a Laplacian, in units of this library's on NumPy"
    return Picture(
        "Times of a Laplacian by three ways of automatic differentiation", caption, groups
    )


def tables() -> Picture:
    """Return the mean ranks of the models."""
    rows = table("benchmarks_tables", "# Twenty-four new tables", "model")
    ranks = {name: figure(row["mean rank"]) for name, row in rows.items()}
    ours = {f"{OURS}, {name}" if name in PRESETS else name: rank for name, rank in ranks.items()}
    bars = linear(dict(sorted(ours.items(), key=lambda one: one[1])), lambda rank: f"{rank:.2f}")
    caption = "mean rank on 24 tables: 1 is the best of nine models"
    return Picture("Mean ranks of nine models on 24 new tables", caption, {"": bars})


PRESETS = ("best", "default", "fast")


def checks() -> Picture:
    """Return the numbers of wrong verdicts."""
    rows = table("benchmarks_gradients", "# Gradients of released libraries", "checker")
    names = {
        "check_gradient, auto": OURS,
        "PyTorch's gradcheck": "PyTorch's gradcheck",
        "numdifftools.Gradient": "numdifftools",
        "SciPy's check_grad": "SciPy's check_grad",
    }
    kinds = ("right (67)", "right, at an optimum (24)", "planted (264)", "released (13)")
    wrong = {
        to: sum(int(rows[at][kind].split(",")[0]) for kind in kinds) for at, to in names.items()
    }
    bars = linear({name: float(count) for name, count in wrong.items()}, lambda n: f"{n:.0f}")
    caption = "wrong verdicts on 368 gradients, right and wrong ones"
    return Picture("Wrong verdicts of four gradient checks", caption, {"": bars})


def pictures() -> Iterator[tuple[str, Picture]]:
    """Yield each picture with the name of its file."""
    for make in (training, curves, equations, laplacians, tables, checks):
        yield f"bench_{make.__name__}.svg", make()
