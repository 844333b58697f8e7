"""Output of the commands for tables: metrics and classes."""

from collections.abc import Mapping, Sequence

from backprop_xp.cli.output import JsonObject, width
from backprop_xp.display.numbers import number

_NAMES = {
    "log_loss": "log loss",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced acc.",
    "roc_auc": "ROC AUC",
    "r2": "R2",
    "rmse": "RMSE",
    "mae": "MAE",
}
# The heads of the report's columns, below the part of the rows that each is measured on.
_HEADS = {
    "test": "network",
    "linear": "linear",
    "boosting": "boosting",
    "baseline": "baseline",
    "validation": "network",
}
_PARTS = ("training", "validation", "test")
# The file of the model has all classes.
_MAX_CLASSES = 20


def metrics_table(report: JsonObject) -> str:
    """Return the metrics of the network and the other models side by side, with deviations.

    The last lines say where the linear model is the better one, and from how many rows the other
    models have learnt, if that is a sample.
    """
    spread = report.get("deviations")
    # Five columns with deviations are too wide.
    models = [m for m in _HEADS if m in report and not (spread and m == "validation")]
    rows: list[tuple[str, list[str]]] = [
        ("measured on", [report["measured_on"][model] for model in models]),
        ("", [_HEADS[model] for model in models]),
    ]
    for name, label in _NAMES.items():
        if name in report["baseline"]:
            cells = [number(report[model][name], 3 if spread else 4) for model in models]
            if spread:
                more = [f" ± {number(spread[model][name], 2)}" for model in models]
                cells = list(map(str.__add__, cells, more))
            rows.append((label, cells))
    columns = zip(*(cells for _, cells in rows), strict=True)
    rooms = [max(9, *map(len, column)) + 2 for column in columns]
    lines = [f"{label:<13}" + "".join(map(str.rjust, cells, rooms)) for label, cells in rows]
    if report.get("linear_is_better"):  # an older model's report does not have it
        lines.append("the linear model is better here")
    if sample := report.get("sample"):
        lines.append(f"the other models learned from a sample of {sample:,} training rows")
    return "\n".join(lines)


def parts_of(rows: Mapping[str, int]) -> str:
    """Return the number of rows of each part."""
    return ", ".join(f"{rows[name]:,} {name}" for name in _PARTS if name in rows)


def epochs_of(epochs: int | Sequence[int]) -> str:
    """Return an epoch, or the range of those of an ensemble's members."""
    found = [epochs] if isinstance(epochs, int) else sorted(epochs)
    return f"{found[0]}" if found[0] == found[-1] else f"{found[0]} to {found[-1]}"


def classes_table(classes: Sequence[JsonObject]) -> str:
    """Return the precision, recall and F1 of at most twenty classes."""
    room = min(max(len("class"), *(len(str(c["class"])) for c in classes)), width() - 31)
    lines = [f"{'class':<{room}}   rows precision recall    F1"]
    for row in classes[:_MAX_CLASSES]:
        rates = f"{row['precision']:>10.3f}{row['recall']:>7.3f}{row['f1']:>6.3f}"
        lines.append(f"{shorten(str(row['class']), room):<{room}}{row['rows']:>7}{rates}")
    if len(classes) > _MAX_CLASSES:
        lines.append(f"... and {len(classes) - _MAX_CLASSES} more")
    return "\n".join(lines)


def shorten(text: str, room: int) -> str:
    """Return a text that fits in so many columns."""
    return text if len(text) <= room else f"{text[: max(0, room - 1)]}…"
