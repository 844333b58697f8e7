"""The command ``inspect``: the network, columns, training and metrics of a model of a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli import arguments, output
from backprop_xp.cli.table.table_output import (
    classes_table,
    epochs_of,
    metrics_table,
    parts_of,
    shorten,
)
from backprop_xp.display.numbers import number
from backprop_xp.plots.canvas import new_figure
from backprop_xp.tables.columns.kinds import kind_named

if TYPE_CHECKING:
    from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
    from backprop_xp.tables.model.fitted_model import TabularModel
    from backprop_xp.tables.readers.formats import TableFile

# The width of a label with its indent: the default and the maximum.
_LABEL, _MAX_LABEL = 14, 28
# Shuffles of each column.
_SHUFFLES = 5
# A picture of more columns shows the most important ones.
_MAX_BARS = 30

Data: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Show the importance of each column for this table, best of new rows."),
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
    with output.errors_in_one_line(2, [plot]):
        arguments.require_matplotlib(plot)
        arguments.refuse_overwriting([model, data], {"--plot": plot})
        make_file = tables.TableFile  # raises ImportError without the extra
        # The estimators take seconds.
        from backprop_xp.tables.model.model_file import has_ended, read_model

        (trained, state), importances = read_model(model), None
        if data is not None:
            file = make_file(data, separator, decimal, encoding, output.note)
            importances = importances_of(tables.load(model), file)
        if plot is not None:
            _draw(importances or [], trained, plot)
        is_finished = has_ended(trained, state)
        found = collect(model, trained, importances, is_finished=is_finished)
    output.say(json.dumps(found, indent=2) if as_json else as_text(found))


def collect(
    path: str,
    model: "TabularModel",
    importances: Sequence[output.JsonObject] | None,
    *,
    is_finished: bool,
) -> output.JsonObject:
    """Return the object of ``--json``; ``docs/table_workflows.md`` describes it."""
    classes = [] if model.classes is None else model.classes.tolist()
    found = {
        "model": path,
        "task": model.task,
        "is_finished": is_finished,
        "target": {"name": model.target, "classes": classes},
        "network": model.network.describe(),
        "columns": tables.described_columns(model.features),
        "left_out": model.features.left_out,
        **model.record,
        "report": None,
        **model.metadata,
    }
    if importances is not None:
        found["importances"] = importances
    return found


def importances_of(
    estimator: "TabularClassifier | TabularRegressor", file: "TableFile"
) -> list[dict[str, Any]]:
    """Return the importance of each column for a table's target, the largest first.

    It is the increase of the loss after a shuffle of the column: its mean and standard deviation.
    The loss is the log-loss, or the root mean squared error in the target's unit. Rows without a
    target are left out.
    """
    from sklearn.inspection import permutation_importance

    from backprop_xp.tables.readers.table_files import as_table, naming_lines, with_fallback
    from backprop_xp.tables.report.problem import rows_of
    from backprop_xp.tables.report.target import Target

    model, names = estimator.model_, [*estimator.model_.features.columns]
    if model.target is None:
        raise ValueError("the model does not have the name of its target: fit it to a named y.")
    classes = () if model.classes is None else tuple(model.classes.tolist())
    texts = [model.target, *model.features.texts]
    file = with_fallback(file, model.decimal)
    read = as_table(file, texts=texts, numbers=model.features.numbers)
    _, rows, _ = rows_of(read, Target(model.target, model.task, "", classes), names)
    table = rows.features.reindex(columns=[*model.features.seen])
    with naming_lines(file, table.index):
        found = permutation_importance(
            estimator,
            table,
            rows.target,
            scoring=_scoring(classes),
            n_repeats=_SHUFFLES,
            random_state=0,
        )
    means, deviations = found.importances_mean.tolist(), found.importances_std.tolist()
    made = [
        {"column": name, "mean": mean, "deviation": deviation}
        for name, mean, deviation in zip(table, means, deviations, strict=True)
        if name in names
    ]
    return sorted(made, key=lambda one: -one["mean"])


def _scoring(classes: Sequence[Any]) -> Any:
    """Return scikit-learn's scorer of the negative loss, without classes that of numbers."""
    from sklearn.metrics import log_loss, make_scorer

    if not classes:
        return "neg_root_mean_squared_error"
    options: dict[str, Any] = {"response_method": "predict_proba", "greater_is_better": False}
    return make_scorer(log_loss, labels=[*classes], **options)


def as_text(found: output.JsonObject) -> str:
    """Return the object of ``collect`` as lines."""
    found = {**output.printable_object(found), "network": found["network"]}  # which is lines
    target = found["target"]
    classes = f" ({', '.join(map(str, target['classes']))})" if target["classes"] else ""
    lines = [
        output.wrap(f"{found['model']}: {found['task']}, for {target['name']!r}{classes}"),
        "\nnetwork",
        output.indent(found["network"]),
        "\ncolumns",
        *_columns(found),
        "\ntraining",
        *_training(found),
    ]
    if not found["is_finished"]:
        lines.append(output.with_label("state", "interrupted: train --resume continues", _LABEL))
    if found["report"] is not None:
        lines += ["\nmetrics", output.indent(metrics_table(found["report"]))]
    if "classes" in found:
        lines += ["\nclasses, on the test rows", output.indent(classes_table(found["classes"]))]
    if "importances" in found:
        lines += ["\nincrease of the loss where a column is shuffled", *_importance_lines(found)]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join([*lines, "\nversions", output.with_label("", versions, _LABEL)])


def _columns(found: output.JsonObject) -> list[str]:
    lines = {one["name"]: kind_named(one["kind"]).summary(one) for one in found["columns"]}
    lines |= {name: f"left out: {why}" for name, why in found["left_out"].items()}
    room = min(2 + max(map(len, lines)), output.width() // 2, _MAX_LABEL)
    return [output.with_label(shorten(name, room - 2), text, room) for name, text in lines.items()]


def _training(found: output.JsonObject) -> list[str]:
    from backprop_xp.tables.model.model_file import words_of  # pandas takes half a second

    used = {n: v for n, v in {**found["parameters"], **found["recipe"]}.items() if v is not None}
    best = np.mean(found["best"])
    texts = {
        "rows": parts_of((found["report"] or {"parts": found["rows"]})["parts"]),
        "epochs": f"{found['epoch']}, the best {epochs_of(found['best_epoch'])}",
        "best": f"{best:.6g} (validation {found['parameters']['metric'] or 'loss'})",
        "where": f"{found['where']['backend']}, {found['where']['dtype']}",
        "parameters": ", ".join(f"{name} {words_of(value)}" for name, value in used.items()),
    }
    return [output.with_label(label, text, _LABEL) for label, text in texts.items()]


def _importance_lines(found: output.JsonObject) -> list[str]:
    room = min(max(len(one["column"]) for one in found["importances"]), _MAX_LABEL)
    lines = []
    for one in found["importances"]:
        name = shorten(one["column"], room)
        lines.append(f"  {name:<{room}}{number(one['mean']):>11} ± {number(one['deviation'])}")
    return lines


def _draw(importances: Sequence[output.JsonObject], model: "TabularModel", path: Path) -> None:
    """Draw a bar for each column, the most important one on top."""
    bars = list(importances)[:_MAX_BARS][::-1]
    figure = new_figure(6.0, 1.2 + 0.28 * len(bars))
    axes = figure.add_subplot()
    spread = [one["deviation"] for one in bars]
    axes.barh([one["column"] for one in bars], [one["mean"] for one in bars], xerr=spread)
    loss = f"root mean squared error of {model.target}"
    loss = loss if model.classes is None else "log-loss"
    axes.set_xlabel(f"increase of the {loss} where the column is shuffled")
    bx.plots.save(figure, path)
