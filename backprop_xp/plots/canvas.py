"""The parts that all pictures share: axes, colours, logarithmic scales, and image files."""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from backprop_xp.atomic_files import replacing
from backprop_xp.backends import Array
from backprop_xp.extras import install_command

if TYPE_CHECKING:
    import matplotlib.axes
    from matplotlib.figure import Figure

# Quoted, as its users quote it: matplotlib is imported when something is drawn.
Axes: TypeAlias = "matplotlib.axes.Axes"
# The public functions take arrays of any library and device, DataFrames' columns and lists.
ArrayLike: TypeAlias = npt.ArrayLike | Array

# Seven colours that colour-blind readers tell apart, on light and on dark (Okabe and Ito, 2008).
# Gray stands for their black; their yellow cannot be seen on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = "o^sDvP*X"
# The style of a reference line: a diagonal, a zero.
GRAY_LINE: dict[str, Any] = {"color": "gray", "linewidth": 0.8, "zorder": 0}
# An axis of fewer decades than this has few ticks at powers of ten.
_FEW_DECADES = 2.5


def colour(i: int) -> str:
    """Return the colour of the i-th line; the eighth has the first one's."""
    return PALETTE[i % len(PALETTE)]


def mark(i: int) -> tuple[str, str]:
    """Return the colour and the marker of the i-th line; no two of 56 are alike."""
    return colour(i), MARKERS[i // len(PALETTE) % len(MARKERS)]


def new_axes() -> "Axes":
    """Return the axes of a new pyplot figure, which a notebook shows."""
    axes: Axes = _matplotlib("pyplot").subplots(layout="constrained")[1]
    return axes


def new_figure(width: float = 6.0, height: float = 4.5) -> "Figure":
    """Return an empty figure, in inches, made without pyplot: nothing global changes."""
    figure: Figure = _matplotlib("figure").Figure(figsize=(width, height), layout="constrained")
    return figure


def _matplotlib(module: str) -> Any:
    try:
        return importlib.import_module(f"matplotlib.{module}")
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Pictures need matplotlib, which is not installed: {install_command('plot')}"
        ) from error


def logarithmic(ax: "Axes", name: str, values: np.ndarray) -> None:
    """Make the axis "x" or "y" logarithmic; over few decades its ticks are plain numbers.

    ``values`` are what the axis shows, all above 0.
    """
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    ax.set(**{f"{name}scale": "log"})
    if values.max() < 10.0**_FEW_DECADES * values.min():
        axis = ax.xaxis if name == "x" else ax.yaxis
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the path's suffix (.png, .svg, .pdf), whole or not at all.

    Raises ValueError for a suffix that matplotlib does not know, OSError where nothing can be
    written.
    """
    kind = Path(os.path.realpath(path)).suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"{path} must end in a known format: .{', .'.join(sorted(known))}.")
    with replacing(path) as file:
        figure.savefig(file, format=kind)
