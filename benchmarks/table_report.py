"""The report on the results of ``tables.py``: Markdown tables and a critical-difference picture.

A table's loss is the mean over its seeds of the log-loss or the RMSE. Its normalized score is 0 for
the trivial prediction and anything worse, 1 for the contender with the lowest loss, and linear
between. An error counts as the trivial prediction. Only a table and seed that all contenders tried
counts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

TRIVIAL = "trivial"


def results(lines: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the losses of each contender, a row for each table and seed that all have tried.

    A loss of NaN is an error. Raises ValueError if there is none, or no trivial prediction.
    """
    frame = pd.DataFrame(lines, columns=["table", "seed", "contender", "loss"])
    tried = frame.assign(tried=True).pivot(index=["table", "seed"], columns="contender")
    losses = tried["loss"][tried["tried"].notna().all(axis=1)]
    if losses.empty or TRIVIAL not in losses:
        names = ", ".join(sorted(frame["contender"].unique()))
        raise ValueError(f"no table and seed has results of all contenders ({names}) and trivial")
    return losses


def table_losses(losses: pd.DataFrame) -> pd.DataFrame:
    """Return the mean losses of the tables; an error counts as the trivial prediction."""
    filled = losses.apply(lambda column: column.fillna(losses[TRIVIAL]))
    return filled.groupby("table").mean()


def normalized_scores(means: pd.DataFrame) -> pd.DataFrame:
    """Return the scores of the tables: 0 for the trivial prediction, 1 for the best contender."""
    gain = (-means).add(means[TRIVIAL], axis=0).clip(lower=0.0)
    return gain.div(gain.max(axis=1).replace(0.0, 1.0), axis=0)


def mean_ranks(means: pd.DataFrame) -> pd.Series:
    """Return the mean ranks of the contenders, without the trivial one; 1 is the best."""
    return means.drop(columns=TRIVIAL).rank(axis=1).mean().sort_values()


def critical_difference(contenders: int, tables: int, level: float = 0.05) -> float:
    """Return the difference of mean ranks that is significant (Nemenyi; Demsar 2006)."""
    q = stats.studentized_range.ppf(1.0 - level, contenders, np.inf) / np.sqrt(2.0)
    return float(q * np.sqrt(contenders * (contenders + 1) / (6.0 * tables)))


def alike(ranks: pd.Series, difference: float) -> list[tuple[int, int]]:
    """Return the longest ranges of sorted ranks that differ by less than the difference."""
    ranges: list[tuple[int, int]] = []
    for first, low in enumerate(ranks):
        last = int((ranks < low + difference).sum()) - 1
        if last > first and (not ranges or last > ranges[-1][1]):
            ranges.append((first, last))
    return ranges


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return a table of the contenders, one of the tables, and a list of the errors."""
    losses = results(lines)
    means = table_losses(losses)
    scores, ranks = normalized_scores(means), mean_ranks(means)
    times = pd.DataFrame(lines, columns=["contender", "table", "seconds", "cpu_seconds"])
    times = times.groupby(["contender", "table"]).mean()
    counted = [line for line in lines if (line["table"], line["seed"]) in losses.index]
    calibration = pd.DataFrame(counted, columns=["contender", "calibration_error"])
    calibration = calibration.groupby("contender")["calibration_error"].mean()
    order = scores.mean().sort_values(ascending=False).index
    best = means.drop(columns=TRIVIAL).idxmin(axis=1)
    rows = [
        [
            name,
            f"{scores[name].mean():.3f} ± {scores[name].sem():.3f}",
            f"{ranks[name]:.2f}" if name in ranks else "",
            (best == name).sum(),
            losses[name].isna().sum(),
            f"{calibration[name]:.3f}",
            *(f"{times.loc[name, kind].median():.1f}" for kind in ("cpu_seconds", "seconds")),
            f"{times.loc[name, 'seconds'].max():.0f}",
        ]
        for name in order
    ]
    heads = ["contender", "score", "rank", "first", "errors", "calibration error"]
    heads += ["CPU s", "seconds", "longest"]
    seeds = losses.index.get_level_values("seed").nunique()
    parts = [
        f"{len(means)} tables, {seeds} seeds. {_friedman(means)}",
        _rows(heads, rows),
        _losses_by_table(means[order], lines),
    ]
    errors = [
        f"- {line['contender']} on {line['table']}, seed {line['seed']}: {line['error']}"
        for line in lines
        if "error" in line
    ]
    return "\n\n".join([*parts, *(["\n".join(errors)] if errors else [])])


def _friedman(means: pd.DataFrame) -> str:
    ranked = means.drop(columns=TRIVIAL)
    if ranked.shape[1] < 3 or len(ranked) < 2:
        return "Too few for Friedman's test."
    difference = critical_difference(ranked.shape[1], len(ranked))
    p = stats.friedmanchisquare(*(ranked[name] for name in ranked)).pvalue
    return (
        f"Friedman's test: p = {p:.2g}. Critical difference (Nemenyi, 5 %): {difference:.2f} ranks."
    )


def _losses_by_table(means: pd.DataFrame, lines: Sequence[Mapping[str, Any]]) -> str:
    tasks = {line["table"]: line["task"] for line in lines}
    rows = []
    for task, name in (("classification", "log-loss"), ("regression", "RMSE")):
        for table in (table for table in means.index if tasks[table] == task):
            least = means.loc[table].min()
            cells = [
                f"**{loss:.4g}**" if loss == least else f"{loss:.4g}" for loss in means.loc[table]
            ]
            rows.append([table, name, *cells])
    return _rows(["table", "loss", *means], rows)


def _rows(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [heads, rule, *rows])


def picture(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the critical-difference picture: mean ranks; a bar joins those that are alike."""
    from matplotlib.figure import Figure

    means = table_losses(results(lines))
    ranks = mean_ranks(means)
    difference = critical_difference(len(ranks), len(means))
    bars = alike(ranks, difference)
    bottom = -1.5 - 0.25 * len(bars) - 0.5 * ((len(ranks) + 1) // 2)
    figure = Figure(figsize=(8.0, 0.6 - 0.45 * bottom), layout="constrained")
    axes = figure.add_subplot(xlim=(0.5, len(ranks) + 0.5), ylim=(bottom, 1.2))
    axes.axis("off")
    left, right = 1.0, float(len(ranks))
    axes.hlines(0.0, left, right, color="black")
    for rank in range(1, len(ranks) + 1):
        axes.vlines(rank, 0.0, 0.12, color="black")
        axes.text(rank, 0.2, str(rank), ha="center")
    axes.hlines(0.85, left, left + difference, color="black", linewidth=2)
    axes.text(left + difference, 0.85, f"  critical difference {difference:.2f}", va="center")
    for i, (first, last) in enumerate(bars):
        y = -0.3 - 0.25 * i
        axes.hlines(y, ranks.iloc[first] - 0.03, ranks.iloc[last] + 0.03, linewidth=4, color="C0")
    for i, (name, rank) in enumerate(ranks.items()):
        is_left = i < (len(ranks) + 1) // 2
        step = i if is_left else len(ranks) - 1 - i
        y, edge = -0.8 - 0.25 * len(bars) - 0.5 * step, left if is_left else right
        axes.plot([rank, rank, edge], [0.0, y, y], color="black", linewidth=0.8)
        axes.text(edge, y, f" {name} ({rank:.2f}) ", ha="right" if is_left else "left", va="center")
    figure.savefig(path, format="svg", metadata={"Date": None})
