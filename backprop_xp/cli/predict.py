"""The command ``predict``: a model's predictions for the rows of a table."""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple, TypeAlias

import typer

from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note
from backprop_xp.files.container import replacing

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from backprop_xp.tables.formats import TableFile

Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        callback=arguments.path_with(".csv", ".parquet"),
        help="Write .csv or .parquet. Default: CSV on stdout.",
    ),
]
Keep: TypeAlias = Annotated[str, typer.Option(help="Columns of the table to copy: A,B.")]
Interval: TypeAlias = Annotated[
    float | None,
    typer.Option(
        callback=arguments.number_within("interval", above=0.0, below=1.0),
        help="Add low and high, which hold this share of the targets, such as 0.9.",
    ),
]


def predict(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    out: Out = None,
    keep: Keep = "",
    interval: Interval = None,
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
        pieces = _predictions(model, file, arguments.split_names(keep), interval)
        first = next(pieces)  # its errors come before any output
        if out is not None:
            write = _write_csv if out.suffix.lower() == ".csv" else _write_parquet
            with replacing(out) as opened:
                count = write(itertools.chain([first], pieces), opened)
            note(f"{count:,} predictions written to {out}")
            return
    sys.stdout.write(first.csv(header=True))  # an error of stdout is not an error of the input
    for piece in _with_errors(pieces):
        sys.stdout.write(piece.csv(header=False))


class _Piece(NamedTuple):
    """Predictions of rows, and columns of these rows as the file has them."""

    kept: "pa.Table"
    predictions: "pd.DataFrame"

    def csv(self, *, header: bool) -> str:
        """Return lines of CSV; the columns of the file are written without pandas' dtypes."""
        import pandas as pd
        import pyarrow as pa

        strings = pa.schema([(name, pa.string()) for name in self.kept.column_names])
        kept = self.kept.cast(strings).to_pandas()
        return str(pd.concat([kept, self.predictions], axis=1).to_csv(index=False, header=header))

    def table(self) -> "pa.Table":
        """Return all columns, typed as the file has them."""
        import pyarrow as pa

        found = pa.Table.from_pandas(self.predictions, preserve_index=False)
        names = [*self.kept.column_names, *found.column_names]
        return pa.Table.from_arrays([*self.kept.columns, *found.columns], names)


def _predictions(
    model: str, file: "TableFile", keep: list[str], interval: float | None
) -> Iterator[_Piece]:
    from backprop_xp.tables.tabular_file import read_model  # the estimators take seconds

    trained, _ = read_model(model)
    for frame, columns in tables.read_pieces(file, texts=trained.features.texts):
        predictions = trained.predictions(frame, interval)
        for name in keep:
            if name not in columns.column_names:
                raise ValueError(f"--keep names {name!r}, but the data have no such column.")
            if name in predictions or keep.count(name) > 1:
                raise ValueError(f"--keep names {name!r} twice, or it is the name of a prediction.")
        yield _Piece(columns.select(keep), predictions)


def _with_errors(pieces: Iterator[_Piece]) -> Iterator[_Piece]:
    with errors_in_one_line(2):
        yield from pieces


def _write_csv(pieces: Iterator[_Piece], file: BinaryIO) -> int:
    """Write pieces to a file, and return the number of rows."""
    count = 0
    for piece in pieces:
        file.write(piece.csv(header=not count).encode())
        count += len(piece.predictions)
    return count


def _write_parquet(pieces: Iterator[_Piece], file: BinaryIO) -> int:
    """Write pieces to a file, and return the number of rows."""
    from pyarrow.parquet import ParquetWriter

    found = (piece.table() for piece in pieces)
    first, count = next(found), 0
    with ParquetWriter(file, first.schema) as writer:
        for table in itertools.chain([first], found):
            writer.write_table(table)
            count += len(table)
    return count
