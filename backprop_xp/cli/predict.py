"""The command ``predict``: a model's predictions for the rows of a table."""

import io
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import backprop_xp as bx
from backprop_xp.cli.arguments import (
    TABLE,
    Decimal,
    Encoding,
    Separator,
    file_path,
    refuse_overwriting,
    split_names,
)
from backprop_xp.cli.output import errors_in_one_line, note
from backprop_xp.files.container import write

_FORMATS = (".csv", ".parquet")


def _check_out(path: Path | None) -> Path | None:
    if path is not None and path.suffix.lower() not in _FORMATS:
        raise typer.BadParameter(f"{path} must end in {' or '.join(_FORMATS)}.")
    return file_path(path)


def predict(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Annotated[str, typer.Argument(help=TABLE)],
    out: Annotated[
        Path | None,
        typer.Option(callback=_check_out, help="Write .csv or .parquet. Default: CSV on stdout."),
    ] = None,
    keep: Annotated[
        str, typer.Option(help="Columns of the table to copy: A,B.", show_default=False)
    ] = "",
    separator: Separator = None,
    decimal: Decimal = None,
    encoding: Encoding = None,
) -> None:
    """Predict the target of each row: the class or the number, and each class's probability.

    Columns that training did not use may be there or not. The exit status is 2 for what cannot be
    used.
    """
    with errors_in_one_line(2):
        refuse_overwriting([model, data], {"--out": out})
        tables = bx.tables
        file = tables.TableFile(data, separator, decimal, encoding, note)
        known = tables.load(model)
        frame = tables.read(file, texts=known.preparation.texts)
        found = _beside(frame, split_names(keep), known.predict(frame))
        if out is not None:
            write(out, _bytes(found, out))
            note(f"{len(found):,} predictions written to {out}")
    if out is None:  # what stdout does not take is no fault of the input
        sys.stdout.write(found.to_csv(index=False))


def _beside(frame: Any, names: list[str], found: Any) -> Any:
    """Return the columns to keep, and the predictions behind them."""
    for name in names:
        if name not in frame or name in found:
            fault = "in the data" if name not in frame else "of its own: a prediction is named so"
            raise ValueError(f"--keep names {name!r}, but there is no such column {fault}.")
    for place, name in enumerate(names):
        found.insert(place, name, frame[name])
    return found


def _bytes(found: Any, path: Path) -> bytes:
    if path.suffix.lower() == ".csv":
        text: str = found.to_csv(index=False)
        return text.encode()
    buffer = io.BytesIO()
    found.to_parquet(buffer, index=False)
    return buffer.getvalue()
