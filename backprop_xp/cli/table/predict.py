"""The command ``predict``: a model's predictions for the rows of a table."""

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, TypeAlias

import typer

from backprop_xp import tables
from backprop_xp.atomic_files import replacing
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note, write_data
from backprop_xp.tables.columns.kinds import FAULT_ACTIONS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from backprop_xp.tables.columns.features import Features
    from backprop_xp.tables.readers.formats import TableFile

Out: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        callback=arguments.path_with(".csv", ".parquet"),
        help="Write .csv or .parquet. Default: CSV on stdout.",
    ),
]
Keep: TypeAlias = Annotated[
    list[str] | None, typer.Option(help=f"Columns of the table to copy. {arguments.COLUMNS}")
]
Interval: TypeAlias = Annotated[
    float | None,
    typer.Option(
        callback=arguments.number_within("interval", above=0.0, below=1.0),
        help="Add low and high, which hold this share of the targets, such as 0.9.",
    ),
]


BadValue: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=arguments.one_of(FAULT_ACTIONS),
        help="A string in a column of numbers or dates is an error, or missing.",
    ),
]
MissingColumn: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=arguments.one_of(FAULT_ACTIONS),
        help="A column that the model needs and the table lacks is an error, or missing.",
    ),
]


def predict(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    out: Out = None,
    keep: Keep = None,
    interval: Interval = None,
    on_bad_value: BadValue = "error",
    on_missing_column: MissingColumn = "error",
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
) -> None:
    """Predict the target of each row: the class and its probabilities, or the number.

    Columns that the training did not use may be missing. With --on-bad-value missing, or
    --on-missing-column missing, a line says what is read as missing. The exit status is 2 for input
    that cannot be used.
    """
    with errors_in_one_line(2, [out]):
        arguments.refuse_overwriting([model, data], {"--out": out})
        file = tables.TableFile(data, separator, decimal, encoding, note)
        is_csv = out is None or out.suffix.lower() == ".csv"
        tolerated = {"values": on_bad_value == "missing", "columns": on_missing_column == "missing"}
        found = _predictions(model, file, keep or [], interval, tolerated, is_csv=is_csv)
        if out is not None:
            with contextlib.closing(found), replacing(out) as opened:
                count = _write(found, opened, is_csv=is_csv)
            note(f"{count:,} predictions written to {out}")
    if out is None:  # an error of stdout is not an error of the input
        with contextlib.closing(found):
            for i, rows in enumerate(_with_errors(found)):
                write_data(_csv(rows, header=not i))


def _predictions(
    model: str,
    file: "TableFile",
    kept: list[str],
    interval: float | None,
    tolerated: dict[str, bool],
    *,
    is_csv: bool,
) -> "Generator[pa.Table, None, None]":
    """Yield predictions behind columns of the file: with its types, or for CSV as strings."""
    import pyarrow as pa

    from backprop_xp.tables.model.model_file import read_model  # the estimators take seconds
    from backprop_xp.tables.readers.table_files import naming_lines, with_fallback

    trained, _ = read_model(model)
    file = with_fallback(file, trained.decimal)
    if interval is not None and (share := trained.coverage_on_test(interval)) is not None:
        note(f"intervals of {interval:g} hold {share:.1%} of the test rows of the training")
    wanted = {"texts": trained.features.texts, "numbers": trained.features.numbers}
    with contextlib.closing(tables.read_pieces(file, **wanted)) as pieces:
        for frame, columns in _tolerant(pieces, file, trained.features, **tolerated):
            with _naming_the_option(), naming_lines(file):
                predictions = trained.predictions(frame, interval)
            found = pa.Table.from_pandas(predictions, preserve_index=False)
            copied = _kept(columns, kept, found.column_names)
            if is_csv:  # pandas would write integers with missing values as floating numbers
                strings = pa.schema([(name, pa.string()) for name in copied.column_names])
                try:
                    copied = copied.cast(strings)
                except pa.ArrowException as error:  # of lists, or of bytes that are no UTF-8
                    raise ValueError(
                        f"--keep names a column that CSV cannot hold ({error}): give --out a "
                        ".parquet file."
                    ) from None
            names = [*copied.column_names, *found.column_names]
            yield pa.table([*copied.columns, *found.columns], names=names)


@contextlib.contextmanager
def _naming_the_option() -> Iterator[None]:
    """Add the option that reads a cell or a column as missing to the error about it."""
    from backprop_xp.tables.columns.features import MissingColumnError
    from backprop_xp.tables.readers.cells import CellError

    try:
        yield
    except MissingColumnError as error:
        raise ValueError(
            f"{error} --on-missing-column missing reads its values as missing."
        ) from error
    except ValueError as error:
        if not isinstance(error, CellError) and not isinstance(error.__cause__, CellError):
            raise
        raise ValueError(f"{error} --on-bad-value missing reads it as missing.") from error


def _kept(columns: "pa.Table", kept: list[str], predictions: list[str]) -> "pa.Table":
    """Return the columns of --keep; raise ValueError for one that is absent or has a name twice."""
    from backprop_xp.tables.readers.frames import named_columns

    keep = named_columns(kept, columns.column_names)
    for name in keep:
        if name not in columns.column_names:
            raise ValueError(f"--keep names {name!r}, but the data have no such column.")
        if name in predictions or keep.count(name) > 1:
            raise ValueError(f"--keep names {name!r} twice, or it is the name of a prediction.")
    return columns.select(keep)


def _tolerant(
    pieces: "Iterator[tuple[pd.DataFrame, pa.Table]]",
    file: "TableFile",
    features: "Features",
    *,
    values: bool,
    columns: bool,
) -> "Iterator[tuple[pd.DataFrame, pa.Table]]":
    """Yield pieces with missing values in place of what is tolerated, and print lines about it."""
    from backprop_xp.tables.columns.tolerance import (
        BadValues,
        filled,
        line_about,
        without_bad_values,
    )
    from backprop_xp.tables.readers.table_files import place_of

    found, last = dict[str, BadValues](), None
    for frame, table in pieces:
        if columns:
            frame, absent = filled(frame, features.seen)
            if (line := line_about(absent, features)) and line != last:
                note(line)
                last = line
        if values:
            frame, bad = without_bad_values(frame, features)
            for one in bad:
                first = found.setdefault(one.column, one._replace(total=0))
                found[one.column] = first._replace(total=first.total + one.total)
        yield frame, table
    for one in found.values():
        note(one.at(place_of(file, one.row)))


def _with_errors(found: "Iterator[pa.Table]") -> "Iterator[pa.Table]":
    with errors_in_one_line(2):
        yield from found


def _csv(rows: "pa.Table", *, header: bool) -> str:
    return str(rows.to_pandas().to_csv(index=False, header=header))


def _write(found: "Iterator[pa.Table]", file: BinaryIO, *, is_csv: bool) -> int:
    """Write predictions to a .csv or .parquet file, and return the number of rows."""
    from pyarrow.parquet import ParquetWriter

    count, writer = 0, None
    with contextlib.ExitStack() as stack:
        for rows in found:
            if is_csv:
                file.write(_csv(rows, header=not count).encode())
            else:
                writer = writer or stack.enter_context(ParquetWriter(file, rows.schema))
                writer.write_table(rows)
            count += len(rows)
    return count
