"""The command ``inspect``: what a model of a table is, and which columns tell it the most."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import backprop_xp as bx
from backprop_xp.cli.arguments import (
    Decimal,
    Encoding,
    Separator,
    picture_path,
    refuse_overwriting,
    require_pictures,
)
from backprop_xp.cli.output import errors_in_one_line, indent, note, say, width, wrapped
from backprop_xp.cli.table_output import classes_table, cut, metrics_table, number, parts_of
from backprop_xp.plots.canvas import new_figure

# Columns of a label, with its indent, where none is longer, and the most of them.
_LABEL, _LONGEST = 14, 28
# Of more columns a picture shows the most telling ones.
_MOST_BARS = 30


def inspect(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Annotated[
        str | None,
        typer.Option(help="A table, best of rows not trained on: which columns tell the most."),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(callback=picture_path, help="Draw what --data finds: .png, .svg or .pdf."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    separator: Separator = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
) -> None:
    """Show what a model is: its network, what is done with each column, its training, its metrics.

    With --data each column is shuffled, and the more the loss grows by it, the more it tells. The
    exit status is 2 for what cannot be used.
    """
    if plot is not None and data is None:
        raise typer.BadParameter("draws what --data finds: give both.", param_hint="'--plot'")
    with errors_in_one_line(2):
        require_pictures(plot)
        refuse_overwriting([model, data], {"--plot": plot})
        tables = bx.tables
        file = tables.TableFile(data or "", separator, decimal, encoding, note)
        known = tables.load(model)
        found = tables.importances(known, file) if data is not None else None
        if plot is not None:
            _draw(found or [], known.target, plot)
        told = collect(model, known, tables.described_columns(known.preparation), found)
    say(json.dumps(told, indent=2) if as_json else as_text(told))


def collect(path: str, model: Any, columns: list[Any], found: Any) -> dict[str, Any]:
    """Return what the command tells, as ``docs/tables.md`` lays it out."""
    told = dict(model.told)
    told.pop("history", None)
    report = told.pop("report", None)
    shuffled = {} if found is None else {"importances": [one._asdict() for one in found]}
    return {
        "model": path,
        "task": model.target.task,
        "network": model.network.describe(),
        "columns": columns,
        "left_out": model.preparation.left_out,
        **told,
        "report": report,
        **shuffled,
    }


def as_text(told: dict[str, Any]) -> str:
    """Return what ``collect`` returns as lines."""
    target = told["target"]
    classes = f" ({', '.join(map(str, target['classes']))})" if target["classes"] else ""
    lines = [
        wrapped(f"{told['model']}: {target['task']}, for {target['name']!r}{classes}"),
        "\nnetwork",
        indent(told["network"]),
        "\ncolumns",
        *_columns(told),
        "\ntraining",
        *_training(told),
    ]
    if told["report"] is None:
        lines.append(_line("state", "cut short: train --resume goes on"))
    else:
        lines += ["\nmetrics", indent(metrics_table(told["report"]))]
    if "classes" in told:
        lines += ["\nclasses, on the test rows", indent(classes_table(told["classes"]))]
    if "importances" in told:
        lines += ["\nwhat the loss grows by where a column is shuffled", *_shuffled(told)]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return "\n".join([*lines, "\nversions", _line("", versions)])


def _line(label: str, text: Any, room: int = _LABEL) -> str:
    return wrapped(str(text), f"  {cut(label, room - 2)}".ljust(room) + " ")


def _columns(told: dict[str, Any]) -> list[str]:
    lines = {column["name"]: _column(column) for column in told["columns"]}
    lines |= {name: f"left out: {why}" for name, why in told["left_out"].items()}
    room = min(2 + max(map(len, lines)), width() // 2, _LONGEST)
    return [_line(name, text, room) for name, text in lines.items()]


def _column(column: dict[str, Any]) -> str:
    match column:
        case {"kind": "number", "mean": mean, "deviation": deviation, "filled": filled}:
            told = f"mean {number(mean)}, deviation {number(deviation)}"
            missing = f"; missing: {number(filled)}" + (
                ", flagged" if column["features"] > 1 else ""
            )
            return f"number: {told}{missing}"
        case {"kind": "category", "categories": categories}:
            names = ["missing" if name is None else str(name) for name in categories]
            more = f", and {len(names) - 20} more" if len(names) > 20 else ""
            return f"category of {len(names)}: {', '.join(names[:20])}{more}"
        case {"kind": "date", "parts": parts, "format": form}:
            return f"date{f' ({form})' if form else ''}: {', '.join(parts)}"
    return f"text: {column['features']} coordinates of {column['pieces']} groups of letters"


def _training(told: dict[str, Any]) -> list[str]:
    rows, where = told["rows"], told["where"]
    settings = ", ".join(f"{name} {_plain(value)}" for name, value in told["settings"].items())
    return [
        _line("rows", parts_of(rows)),
        _line("epochs", f"{told['epoch']}, the best {told['best_epoch']}"),
        _line("loss there", f"{told['best']:.6g} (validation)"),
        _line("where", f"{where['backend']}, {where['dtype']}"),
        _line("settings", settings),
    ]


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _shuffled(told: dict[str, Any]) -> list[str]:
    room = min(max(len(one["column"]) for one in told["importances"]), _LONGEST)
    lines = []
    for one in told["importances"]:
        name = cut(one["column"], room)
        lines.append(f"  {name:<{room}}{number(one['mean']):>11} ± {number(one['deviation'])}")
    return lines


def _draw(found: Sequence[Any], target: Any, path: Path) -> None:
    """Draw a bar for each column, the most telling above."""
    shown = list(found)[:_MOST_BARS][::-1]
    figure = new_figure(6.0, 1.2 + 0.28 * len(shown))
    axes = figure.add_subplot()
    spread = [one.deviation for one in shown]
    axes.barh([one.column for one in shown], [one.mean for one in shown], xerr=spread)
    unit = "log-loss" if target.classes else f"root mean squared error of {target.name}"
    axes.set_xlabel(f"what the {unit} grows by where the column is shuffled")
    bx.plots.save(figure, path)
