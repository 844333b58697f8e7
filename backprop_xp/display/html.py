"""HTML for notebooks: sentences, tables and small curves.

It has no script and nothing from elsewhere, and no colours: letters and lines take the page's own,
be it light or dark. All text is escaped.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from backprop_xp.display.summaries import OF_CHECKS, falls_far, is_loss, quantiles

_WORDS, _NUMBERS = "text-align:left", "text-align:right;white-space:nowrap"
# A gray that is seen on light and on dark.
_RULE = "border-bottom:1px solid rgba(128,128,128,.5)"
_WIDTH, _HEIGHT, _MARGIN = 280, 64, 3
_MOST_POINTS = 140
_DASHES = (("solid", ""), ("dashed", "5 3"), ("dotted", "1 3"), ("dash-dotted", "8 3 1 3"))


def section(*parts: str) -> str:
    """Return parts, which are HTML, as one that scrolls where it is too wide."""
    return f'<section style="overflow-x:auto">\n{chr(10).join(parts)}\n</section>'


def paragraph(text: str, *, begins: str = "") -> str:
    """Return a paragraph whose beginning is strong."""
    strong = f"<strong>{escape(begins)}</strong> " if begins else ""
    return f'<p style="margin:.3em 0">{strong}{escape(text)}</p>'


def folded(summary: str, part: str) -> str:
    """Return a part, which is HTML, that unfolds under its summary."""
    return f"<details><summary>{escape(summary)}</summary>\n{part}\n</details>"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]], align: str) -> str:
    """Return a table; ``align`` has a letter for each column, "l" for words and "r" for numbers."""
    sides = [_NUMBERS if side == "r" else _WORDS for side in align]
    head = _cells("th", heads, [f"{side};{_RULE}" for side in sides], ' scope="col"')
    body = "\n".join(_cells("td", row, sides) for row in rows)
    style = "margin:.3em 0;border-collapse:collapse;font-variant-numeric:tabular-nums"
    return f'<table style="{style}">\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>'


def _cells(tag: str, cells: Sequence[Any], styles: Sequence[str], more: str = "") -> str:
    filled = (
        f'<{tag}{more} style="{style};padding:.15em .6em">{escape(str(cell))}</{tag}>'
        for cell, style in zip(cells, styles, strict=True)
    )
    return f"<tr>{''.join(filled)}</tr>"


def training(history: Mapping[str, Any], epochs: int, theta: str) -> str:
    """Return what a training came to: the last and the best of what it measured, and the losses.

    ``history`` holds arrays ``(epochs, *stack)`` on the host, the last of them of epoch ``epochs``;
    ``theta`` says what theta is.
    """
    measured = {name: v for name, v in history.items() if name not in OF_CHECKS and len(v)}
    losses = {name: v.reshape(len(v), -1) for name, v in measured.items() if is_loss(name)}
    networks = max((v.shape[1] for v in losses.values()), default=1)
    many = f", {networks} networks" if networks > 1 else ""
    parts = [paragraph(f"of {epochs} epochs{many}; theta {theta}", begins="FitResult")]
    if measured:
        parts.append(_summary(measured, epochs, is_stack=networks > 1))
    if diverged := max((int((~np.isfinite(v[-1])).sum()) for v in losses.values()), default=0):
        who = f"{diverged} of {networks} networks" if networks > 1 else "The network"
        parts.append(paragraph(f"{who} diverged: the last loss is not finite."))
    return section(*parts, sparkline(losses, epochs))


def _summary(measured: Mapping[str, Any], epochs: int, *, is_stack: bool) -> str:
    """Return the table of the last and best values; of a metric nobody knows what is best."""
    rows = []
    for name, values in measured.items():
        median = quantiles(values[-1:].reshape(1, -1), [0.5])[0, 0]
        row = [name, f"{median:.6g}", "", "", ""]
        if is_loss(name) and np.isfinite(values).any():
            epoch, *index = np.unravel_index(np.nanargmin(values), values.shape)
            value, place = values[epoch, *index], ", ".join(map(str, index))
            row[2:] = f"{value:.6g}", str(epochs - len(values) + 1 + epoch), f"[{place}]"
        rows.append(row)
    if is_stack:
        return table(["", "last, median", "best", "at epoch", "network"], rows, "lrrrr")
    return table(["", "last", "best", "at epoch"], [row[:-1] for row in rows], "lrrr")


def sparkline(curves: Mapping[str, np.ndarray], epochs: int) -> str:
    """Return a small drawing of curves ``(epochs, networks)``, of a stack the medians.

    It is an SVG with a line of words, or nothing where fewer than two values are finite.
    """
    medians = {name: quantiles(values, [0.5])[0] for name, values in curves.items()}
    everything = np.concatenate([np.empty(0), *medians.values()])
    if np.isfinite(everything).sum() < 2:
        return ""
    is_log = falls_far(everything)
    low, high = (f(np.log(everything) if is_log else everything) for f in (np.nanmin, np.nanmax))
    paths, words = [], []
    for (name, median), (kind, dashes) in zip(medians.items(), itertools.cycle(_DASHES)):
        heights = ((np.log(median) if is_log else median) - low) / ((high - low) or 1.0)
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        paths.append(f'<path d="{_path(heights)}"{dashed}/>')
        words.append(f"{name} ({kind})")
    rows = max(map(len, medians.values()))
    words.append(f"epochs {epochs - rows + 1} to {epochs}")
    words += ["logarithmic"] * is_log
    words += ["medians"] * any(values.shape[1] > 1 for values in curves.values())
    text = ", ".join(words)
    return (
        f'<figure style="margin:.3em 0"><svg role="img" aria-label="{escape(text)}" '
        f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'style="max-width:100%" fill="none" stroke="currentColor" stroke-width="1.5" '
        f'stroke-linecap="round" stroke-linejoin="round">\n{chr(10).join(paths)}\n</svg>'
        f"<figcaption>{escape(text)}</figcaption></figure>"
    )


def _path(heights: np.ndarray) -> str:
    """Return an SVG path through heights of 0 to 1, from left to right, with gaps at NaN."""
    places = np.unique(np.linspace(0, len(heights) - 1, _MOST_POINTS).round().astype(int))
    across, up = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    words, pen = [], "M"
    for i in places.tolist():
        if np.isnan(heights[i]):
            pen = "M"
            continue
        x = _MARGIN + across * i / max(1, len(heights) - 1)
        y = _HEIGHT - _MARGIN - up * heights[i]
        # No way to the right makes a dot of a point that stands alone.
        words.append(f"{pen}{x:.1f} {y:.1f}" + ("h0" if pen == "M" else ""))
        pen = "L"
    return "".join(words)
