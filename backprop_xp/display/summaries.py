"""Summaries of networks and trainings: text for a repr, HTML for a notebook.

The HTML has no script, no link and no colour, so that it fits light and dark pages. All its text
is escaped.
"""

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple

import numpy as np

from backprop_xp.backends import Array, to_host_together
from backprop_xp.display.reprs import argument_text

# These entries of a history belong to gradient checks, not to epochs.
OF_CHECKS = ("gradient_error", "gradient_verdict")

_TEXT, _NUMBER = "text-align:left", "text-align:right;white-space:nowrap"
# A gray that is visible on light and dark pages.
_RULE = "border-bottom:1px solid rgba(128,128,128,.5)"
_WIDTH, _HEIGHT, _MARGIN = 280, 64, 3
_MOST_POINTS = 140
_DASHES = (("solid", ""), ("dashed", "5 3"), ("dotted", "1 3"), ("dash-dotted", "8 3 1 3"))


class Summary(NamedTuple):
    """A title with its sentence, a table that begins with its head, remarks, and an SVG figure."""

    title: str
    sentence: str
    rows: list[list[str]]
    remarks: list[str]
    figure: str

    def text(self, most_rows: int = 8) -> str:
        """Return a line for the title and each remark, with at most ``most_rows + 2`` between."""
        rows, more = self.rows[: most_rows + 1], len(self.rows) - most_rows - 1
        lines = text_table(rows, "lrrrr") if rows else []
        lines += [f"... and {more} more"] * (more > 0)
        remarks = (textwrap.shorten(remark, 100, placeholder=" ...") for remark in self.remarks)
        return "\n".join([f"{self.title} {self.sentence}", *lines, *remarks])

    def html(self) -> str:
        """Return HTML."""
        parts = [paragraph(self.sentence, begins=self.title)]
        if self.rows:
            parts.append(table(self.rows[0], self.rows[1:], "lrrrr"[: len(self.rows[0])]))
        return section(*parts, *map(paragraph, self.remarks), self.figure)


def training(
    title: str,
    epochs: int,
    theta: Array,
    history: Mapping[str, np.ndarray],
    current: Mapping[str, Array | None] | None = None,
    best: Mapping[str, np.ndarray] | None = None,
) -> Summary:
    """Return the summary of a training: shapes, and the last and best of what it measured.

    ``history`` has arrays ``(epochs, *stack)`` on the host that end with epoch ``epochs``. If it is
    empty, ``current`` has the last values ``(*stack,)``, which one transfer moves, and ``best`` the
    best ones on the host.
    """
    measured = {name: v for name, v in history.items() if name not in OF_CHECKS and len(v)}
    losses = {name: v.reshape(len(v), -1) for name, v in measured.items() if is_loss(name)}
    present = {name: v for name, v in (current or {}).items() if v is not None}
    if present and not measured:
        host = to_host_together([*present.values()])
        measured = {name: v[None] for name, v in zip(present, host, strict=True)}
        measured |= {f"best {name}": v[None] for name, v in (best or {}).items()}
    networks = math.prod(theta.shape[:-1])
    last = [v[-1] for name, v in measured.items() if is_loss(name)]
    diverged = max((int((~np.isfinite(v)).sum()) for v in last), default=0)
    who = f"{diverged} of {networks} networks" if networks > 1 else "The network"
    return Summary(
        title,
        f"of {epochs} epochs{f', {networks} networks' * (networks > 1)}; "
        f"theta {argument_text(theta)}",
        _rows(measured, epochs, is_stack=networks > 1),
        [f"{who} diverged: the last loss is not finite."] * (diverged > 0),
        sparkline(losses, epochs),
    )


def _rows(measured: Mapping[str, np.ndarray], epochs: int, *, is_stack: bool) -> list[list[str]]:
    """Return a head, and for each name its last value and, if it is a loss, its best one."""
    rows = [["", "last, median" if is_stack else "last", "best", "at epoch", "network"]]
    for name, values in measured.items():
        median = quantiles(values[-1:].reshape(1, -1), [0.5])[0, 0]
        row = [name, f"{median:.6g}", "", "", ""]
        # The only value of a later epoch need not be the best.
        if is_loss(name) and np.isfinite(values).any() and (values.size > 1 or epochs == 1):
            epoch, *network = np.unravel_index(np.nanargmin(values), values.shape)
            best = values[epoch, *network]
            row[2:] = (
                f"{best:.6g}",
                f"{epochs - len(values) + 1 + epoch}",
                f"{[*map(int, network)]}",
            )
        rows.append(row)
    return [row if is_stack else row[:-1] for row in rows] if measured else []


def text_table(rows: Sequence[Sequence[str]], align: str) -> list[str]:
    """Return the lines of a table; ``align`` has "l" (text) or "r" (numbers) for each column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    signs = [{"l": "<", "r": ">"}[side] for side in align[: len(widths)]]
    return ["  ".join(map("{:{}{}}".format, row, signs, widths)).rstrip() for row in rows]


def section(*parts: str) -> str:
    """Return one piece of HTML, made of others, that scrolls if it is too wide."""
    return f'<section style="overflow-x:auto">\n{chr(10).join(parts)}\n</section>'


def paragraph(text: str, *, begins: str = "") -> str:
    """Return a paragraph; ``begins`` is its strong beginning."""
    strong = f"<strong>{escape(begins)}</strong> " if begins else ""
    return f'<p style="margin:.3em 0">{strong}{escape(text)}</p>'


def folded(summary: str, part: str) -> str:
    """Return HTML that unfolds under its summary."""
    return f"<details><summary>{escape(summary)}</summary>\n{part}\n</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], align: str) -> str:
    """Return an HTML table; ``align`` has "l" (text) or "r" (numbers) for each column."""
    sides = [_NUMBER if side == "r" else _TEXT for side in align]
    head = _cells("th", heads, [f"{side};{_RULE}" for side in sides], ' scope="col"')
    body = "\n".join(_cells("td", row, sides) for row in rows)
    style = "margin:.3em 0;border-collapse:collapse;font-variant-numeric:tabular-nums"
    return f'<table style="{style}">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _cells(tag: str, cells: Sequence[object], styles: Sequence[str], attributes: str = "") -> str:
    filled = (
        f'<{tag}{attributes} style="{style};padding:.15em .6em">{escape(str(cell))}</{tag}>'
        for cell, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(filled)}</tr>"


def sparkline(curves: Mapping[str, np.ndarray], epochs: int) -> str:
    """Return a small SVG of curves ``(epochs, networks)`` with a caption; a stack has its medians.

    It is empty if fewer than two values are finite.
    """
    medians = {name: quantiles(values, [0.5])[0] for name, values in curves.items()}
    everything = np.concatenate([np.empty(0), *medians.values()])
    if np.isfinite(everything).sum() < 2:
        return ""
    is_log = falls_far(everything)
    scaled = {name: np.log(v) if is_log else v for name, v in medians.items()}
    low, high = (f([f(v) for v in scaled.values()]) for f in (np.nanmin, np.nanmax))
    paths, captions = [], []
    for (name, values), (kind, dashes) in zip(scaled.items(), itertools.cycle(_DASHES)):
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        paths.append(f'<path d="{_path((values - low) / ((high - low) or 1.0))}"{dashed}/>')
        captions.append(f"{name} ({kind})")
    captions.append(f"epochs {epochs - max(map(len, scaled.values())) + 1} to {epochs}")
    captions += ["logarithmic"] * is_log
    captions += ["medians"] * any(values.shape[1] > 1 for values in curves.values())
    caption = escape(", ".join(captions))
    return (
        f'<figure style="margin:.3em 0"><svg role="img" aria-label="{caption}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'style="max-width:100%" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'stroke-linecap="round" stroke-linejoin="round">\n{chr(10).join(paths)}\n</svg>'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _path(heights: np.ndarray) -> str:
    """Return an SVG path through heights of 0 to 1, from left to right, with gaps at NaN."""
    chosen = np.unique(np.linspace(0, len(heights) - 1, _MOST_POINTS).round().astype(int))
    x = _MARGIN + (_WIDTH - 2 * _MARGIN) * chosen / max(1, len(heights) - 1)
    y = _HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * heights[chosen]
    begins = np.isnan([math.nan, *y[:-1]])
    # A line of no length, h0, makes a dot of a point that stands alone.
    return "".join(
        f"M{x[i]:.1f} {y[i]:.1f}h0" if begins[i] else f"L{x[i]:.1f} {y[i]:.1f}"
        for i in np.flatnonzero(~np.isnan(y))
    )


def is_loss(name: str) -> bool:
    """Whether an entry of a history is a loss: the smaller, the better."""
    return name.endswith("loss")


def falls_far(losses: np.ndarray) -> bool:
    """Whether the finite losses are positive and fall to a tenth: a logarithmic axis suits them."""
    finite = losses[np.isfinite(losses)]
    return bool(finite.size and 0.0 < finite.min() <= 0.1 * finite.max())


def quantiles(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return quantiles ``(shares, epochs)`` over the finite values of ``(epochs, networks)``.

    They are NaN in an epoch without finite values.
    """
    finite = np.isfinite(values)
    result = np.full((len(shares), len(values)), np.nan)
    rows = finite.any(axis=1)
    result[:, rows] = np.nanquantile(np.where(finite, values, np.nan)[rows], shares, axis=1)
    return result
