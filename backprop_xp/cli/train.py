"""The command ``train``: from a table in a file to a model in a file, with a report.

What is computed is in ``tables/``.
"""

import contextlib
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.checks import nearest
from backprop_xp.cli.arguments import (
    TABLE,
    ChosenBackend,
    Decimal,
    Encoding,
    Separator,
    bounded,
    count_parameters,
    file_path,
    known_activation,
    parse_sizes,
    picture_path,
    refuse_more,
    refuse_overwriting,
    require_pictures,
    split_names,
)
from backprop_xp.cli.output import errors_in_one_line, note, say
from backprop_xp.cli.table_output import classes_table, metrics_table, parts_of
from backprop_xp.cli.training_display import logging, shown_losses
from backprop_xp.plots.canvas import new_figure

_TASKS = ("classification", "regression")
_OPTIMIZERS = ("adam", "adamw", "rmsprop", "sgd")
_SCHEDULES = ("constant", "cosine", "exponential", "inverse_scaling", "plateau")
_DTYPES = ("float32", "float64")


def _one_of(*known: str) -> Any:
    def check(name: str | None) -> str | None:
        if name is not None and name not in known:
            raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, list(known))}")
        return name

    return check


def _share_or_path(name: str) -> Any:
    def check(text: str) -> Any:
        try:
            share = float(text)
        except ValueError:
            return text
        return bounded(name, above=0.0, below=1.0)(share)

    return check


def train(
    data: Annotated[str, typer.Argument(help=TABLE)],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    task: Annotated[
        str | None,
        typer.Option(callback=_one_of(*_TASKS), help="Default: found out.", show_default=False),
    ] = None,
    drop: Annotated[str, typer.Option(help="Columns to leave out: A,B.", show_default=False)] = "",
    features: Annotated[
        str, typer.Option(help="Columns to use alone: A,B.", show_default=False)
    ] = "",
    weights: Annotated[
        str | None, typer.Option(help="A column of row weights.", show_default=False)
    ] = None,
    validation: Annotated[
        str,
        typer.Option(
            callback=_share_or_path("validation"),
            help="Share of rows, or a file of them: they end the training, choose the network.",
        ),
    ] = "0.15",
    test: Annotated[
        str,
        typer.Option(
            callback=_share_or_path("test"),
            help="Share of rows, or a file of them: they are for the report alone.",
        ),
    ] = "0.15",
    sizes: Annotated[str, typer.Option(help="Widths of the hidden layers.")] = "64,32",
    hidden: Annotated[
        str, typer.Option(callback=known_activation, help="A name of bx.activations.")
    ] = "relu",
    optimizer: Annotated[
        str, typer.Option(callback=_one_of(*_OPTIMIZERS), help=", ".join(_OPTIMIZERS))
    ] = "adam",
    learning_rate: Annotated[
        float, typer.Option(callback=bounded("learning_rate", above=0.0), help="At its highest.")
    ] = 0.001,
    schedule: Annotated[
        str, typer.Option(callback=_one_of(*_SCHEDULES), help=", ".join(_SCHEDULES))
    ] = "cosine",
    epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="The most passes over the rows. Default: 200, fewer for large tables.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(min=1, help="The most rows of a batch; fewer in small tables.")
    ] = 256,
    dropout: Annotated[
        float, typer.Option(callback=bounded("dropout", low=0.0, below=1.0), help="A rate.")
    ] = 0.0,
    layer_norm: Annotated[
        bool, typer.Option("--layer-norm", help="Normalise each hidden layer.")
    ] = False,
    l2: Annotated[
        float, typer.Option(callback=bounded("l2", low=0.0), help="Penalty on weights.")
    ] = 1e-4,
    class_weight: Annotated[
        str | None,
        typer.Option(
            callback=_one_of("balanced"),
            help="balanced: each class counts alike.",
            show_default=False,
        ),
    ] = None,
    patience: Annotated[
        int, typer.Option(min=1, help="Epochs to wait for a lower validation loss.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, the start, the order.")] = 0,
    restarts: Annotated[int, typer.Option(min=1, help="Starts at once; the best is kept.")] = 1,
    backend: ChosenBackend = None,
    device: Annotated[
        str | None, typer.Option(help="Its device, such as cuda:1.", show_default=False)
    ] = None,
    dtype: Annotated[
        str, typer.Option(callback=_one_of(*_DTYPES), help=" or ".join(_DTYPES))
    ] = "float32",
    out: Annotated[Path, typer.Option(callback=file_path, help="The model's file.")] = Path(
        "model.safetensors"
    ),
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training that --out holds.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(callback=picture_path, help="Draw the losses: .png, .svg or .pdf."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option(callback=file_path, help="Write a line of JSON for each epoch.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as one JSON object.")
    ] = False,
    separator: Separator = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
) -> None:
    """Train a network on a table, and compare it with a linear model and a trivial baseline.

    The report goes to stdout, all else to stderr. The exit status is 2 for what cannot be used, and
    130 after Ctrl-C, which keeps the best network so far: --resume goes on.
    """
    # NumPy alone warns of a training that diverges; an error says so on every backend.
    with errors_in_one_line(2), _interruption_told(), np.errstate(all="ignore"):
        require_pictures(plot)
        refuse_overwriting([data, validation, test], {"--out": out, "--plot": plot, "--log": log})
        widths = parse_sizes(sizes, "64,32")
        refuse_more(count_parameters([1, *widths, 1]) * restarts, "--sizes")
        tables = bx.tables  # takes a second or two to import
        options = {"separator": separator, "decimal": decimal, "encoding": encoding, "say": note}
        table_file = functools.partial(tables.TableFile, **options)
        settings = tables.Settings(
            sizes=tuple(widths),
            hidden=hidden,
            optimizer=optimizer,
            learning_rate=learning_rate,
            schedule=schedule,
            epochs=epochs,
            batch_size=batch_size,
            dropout=dropout,
            layer_norm=layer_norm,
            l2=l2,
            class_weight=class_weight,
            patience=patience,
            seed=seed,
            restarts=restarts,
        )
        with shown_losses() as shown:
            model = tables.train(
                table_file(data),
                target,
                settings=settings,
                task=task,
                features=split_names(features),
                drop=split_names(drop),
                weights=weights,
                validation=table_file(validation) if isinstance(validation, str) else validation,
                test=table_file(test) if isinstance(test, str) else test,
                backend=backend,
                device=device,
                dtype=dtype,
                out=out,
                resume=resume,
                say=note,
                watches=[shown] if log is None else [shown, logging(log)],
            )
        if plot is not None:
            _draw(model.history, plot)
    say(json.dumps(model.told["report"]) if as_json else _as_text(model, out))


@contextlib.contextmanager
def _interruption_told() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        anew = (
            "interrupted: with --resume the same command goes on, or starts anew if nothing is kept"
        )
        note("\n".join(getattr(error, "__notes__", [anew])))
        raise


def _as_text(model: Any, out: Path) -> str:
    told = model.told
    report, rows = told["report"], told["rows"]
    lines = [
        f"\n{report['epochs']} epochs, the best {told['best_epoch']}; rows: {parts_of(rows)}",
        metrics_table(report),
    ]
    if "classes" in told:
        lines += ["\nclasses, on the test rows", classes_table(told["classes"])]
    return "\n".join([*lines, f"\nmodel written to {out}"])


def _draw(history: Any, path: Path) -> None:
    figure = new_figure()
    bx.plots.learning_curves(history, ax=figure.add_subplot())
    bx.plots.save(figure, path)
    note(f"plot written to {path}")
