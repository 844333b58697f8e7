"""The command ``inspect``: the network, columns, training and metrics of a model of a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli import arguments, output
from backprop_xp.cli.table_output import classes_table, metrics_table, number, parts_of, shorten
from backprop_xp.plots.canvas import new_figure

if TYPE_CHECKING:
    from backprop_xp.tables.evaluation import Importance
    from backprop_xp.tables.model import TableModel

# The width of a label with its indent: the default and the maximum.
_LABEL, _MAX_LABEL = 14, 28
# A picture of more columns shows the most important ones.
_MAX_BARS = 30

Data: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A table, best of rows not trained on: the importance of each column."),
]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(callback=arguments.picture_path, help="Plot the importances: .png, .svg or .pdf."),
]


def inspect(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Data = None,
    plot: Plot = None,
    as_json: arguments.Json = False,
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
) -> None:
    """Show a model: its network, the preparation of each column, its training, its metrics.

    With --data each column is shuffled: its importance is the increase of the loss. The exit
    status is 2 for input that cannot be used.
    """
    if plot is not None and data is None:
        raise typer.BadParameter("draws the importances: give --data too.", param_hint="'--plot'")
    with output.errors_in_one_line(2):
        arguments.require_matplotlib(plot)
        arguments.refuse_overwriting([model, data], {"--plot": plot})
        trained, importances = tables.load(model), None
        if data is not None:
            file = tables.TableFile(data, separator, decimal, encoding, output.note)
            importances = tables.importances(trained, file)
        if plot is not None:
            _draw(importances or [], trained, plot)
        found = collect(model, trained, importances)
    output.say(json.dumps(found, indent=2) if as_json else as_text(found))


def collect(
    path: str, model: "TableModel", importances: "Sequence[Importance] | None"
) -> output.JsonObject:
    """Return the object of ``--json``; ``docs/tables.md`` describes it."""
    metadata = dict(model.metadata)
    metadata.pop("history", None)
    report = metadata.pop("report", None)
    found = {
        "model": path,
        "task": model.target.task,
        "network": model.network.describe(),
        "columns": tables.described_columns(model.preparation),
        "left_out": model.preparation.left_out,
        **metadata,
        "report": report,
    }
    if importances is not None:
        found["importances"] = [one._asdict() for one in importances]
    return found


def as_text(found: output.JsonObject) -> str:
    """Return the object of ``collect`` as lines."""
    target = found["target"]
    classes = f" ({', '.join(map(str, target['classes']))})" if target["classes"] else ""
    lines = [
        output.wrap(f"{found['model']}: {target['task']}, for {target['name']!r}{classes}"),
        "\nnetwork",
        output.indent(found["network"]),
        "\ncolumns",
        *_columns(found),
        "\ntraining",
        *_training(found),
    ]
    if found["report"] is None:
        lines.append(output.with_label("state", "interrupted: train --resume continues", _LABEL))
    else:
        lines += ["\nmetrics", output.indent(metrics_table(found["report"]))]
    if "classes" in found:
        lines += ["\nclasses, on the test rows", output.indent(classes_table(found["classes"]))]
    if "importances" in found:
        lines += ["\nincrease of the loss where a column is shuffled", *_importance_lines(found)]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, "\nversions", output.with_label("", versions, _LABEL)])


def _columns(found: output.JsonObject) -> list[str]:
    lines = {column["name"]: _column(column) for column in found["columns"]}
    lines |= {name: f"left out: {why}" for name, why in found["left_out"].items()}
    room = min(2 + max(map(len, lines)), output.width() // 2, _MAX_LABEL)
    return [output.with_label(shorten(name, room - 2), text, room) for name, text in lines.items()]


def _column(column: output.JsonObject) -> str:
    match column:
        case {"kind": "number", "mean": mean, "deviation": deviation, "filled": filled}:
            flag = ", flagged" if column["features"] > 1 else ""
            moments = f"mean {number(mean)}, deviation {number(deviation)}"
            return f"number: {moments}; missing: {number(filled)}{flag}"
        case {"kind": "category", "categories": categories}:
            names = ["missing" if name is None else str(name) for name in categories]
            more = f", and {len(names) - 20} more" if len(names) > 20 else ""
            return f"category of {len(names)}: {', '.join(names[:20])}{more}"
        case {"kind": "date", "parts": parts, "format": form}:
            return f"date{f' ({form})' if form else ''}: {', '.join(parts)}"
    return f"text: {column['features']} coordinates of {column['pieces']} groups of letters"


def _training(found: output.JsonObject) -> list[str]:
    settings = {
        name: ",".join(map(str, value)) if isinstance(value, list) else value
        for name, value in found["settings"].items()
    }
    texts = {
        "rows": parts_of(found["rows"]),
        "epochs": f"{found['epoch']}, the best {found['best_epoch']}",
        "best loss": f"{found['best']:.6g} (validation)",
        "where": f"{found['where']['backend']}, {found['where']['dtype']}",
        "settings": ", ".join(f"{name} {value}" for name, value in settings.items()),
    }
    return [output.with_label(label, text, _LABEL) for label, text in texts.items()]


def _importance_lines(found: output.JsonObject) -> list[str]:
    room = min(max(len(one["column"]) for one in found["importances"]), _MAX_LABEL)
    lines = []
    for one in found["importances"]:
        name = shorten(one["column"], room)
        lines.append(f"  {name:<{room}}{number(one['mean']):>11} ± {number(one['deviation'])}")
    return lines


def _draw(importances: "Sequence[Importance]", model: "TableModel", path: Path) -> None:
    """Draw a bar for each column, the most important one on top."""
    bars = list(importances)[:_MAX_BARS][::-1]
    figure = new_figure(6.0, 1.2 + 0.28 * len(bars))
    axes = figure.add_subplot()
    spread = [one.deviation for one in bars]
    axes.barh([one.column for one in bars], [one.mean for one in bars], xerr=spread)
    target = model.target
    loss = "log-loss" if target.classes else f"root mean squared error of {target.name}"
    axes.set_xlabel(f"increase of the {loss} where the column is shuffled")
    bx.plots.save(figure, path)
