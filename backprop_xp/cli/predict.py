"""The command ``predict``: a model's predictions for the rows of a table."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note
from backprop_xp.files.container import write

if TYPE_CHECKING:
    import pandas as pd

Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        callback=arguments.path_with(".csv", ".parquet"),
        help="Write .csv or .parquet. Default: CSV on stdout.",
    ),
]
Keep: TypeAlias = Annotated[str, typer.Option(help="Columns of the table to copy: A,B.")]


def predict(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    out: Out = None,
    keep: Keep = "",
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
) -> None:
    """Predict the target of each row: the class and its probabilities, or the number.

    Columns that the training did not use may be missing. The exit status is 2 for input that cannot
    be used.
    """
    with errors_in_one_line(2):
        arguments.refuse_overwriting([model, data], {"--out": out})
        file = tables.TableFile(data, separator, decimal, encoding, note)
        from backprop_xp.tables.tabular_file import read_model  # the estimators take seconds

        trained, _ = read_model(model)
        frame = tables.read(file, texts=trained.features.texts)
        predictions = trained.predictions(frame)
        _insert_columns(predictions, frame, arguments.split_names(keep))
        if out is not None:
            write(out, _bytes(predictions, out))
            note(f"{len(predictions):,} predictions written to {out}")
    if out is None:  # an error of stdout is not an error of the input
        sys.stdout.write(predictions.to_csv(index=False))


def _insert_columns(predictions: "pd.DataFrame", frame: "pd.DataFrame", names: list[str]) -> None:
    """Insert columns of a table before the predictions."""
    for i, name in enumerate(names):
        if name not in frame:
            raise ValueError(f"--keep names {name!r}, but the data have no such column.")
        if name in predictions:
            raise ValueError(f"--keep names {name!r} twice, or it is the name of a prediction.")
        predictions.insert(i, name, frame[name])


def _bytes(predictions: "pd.DataFrame", path: Path) -> bytes:
    if path.suffix.lower() == ".csv":
        return str(predictions.to_csv(index=False)).encode()
    buffer = io.BytesIO()
    predictions.to_parquet(buffer, index=False)
    return buffer.getvalue()
