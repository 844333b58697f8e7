"""Tables from files, pandas and polars, as DataFrames of plain columns; whole or in pieces."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection, Generator, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.tables.readers import delimited
from backprop_xp.tables.readers.cells import (
    DECIMAL,
    EUROPEAN,
    CellError,
    as_numbers,
    decimal_of,
    distinct,
    find_style,
    is_string,
)
from backprop_xp.tables.readers.formats import PathOrFile, Source, TableFile, opened
from backprop_xp.tables.readers.frames import plain_frame, to_pandas

# The maximum of rows of a piece.
_ROWS = 2**14


# A path, a ``TableFile``, a pandas DataFrame, or one that has to_pandas, as those of polars.
TableData: TypeAlias = Any


class Table(NamedTuple):
    """A plain table, what it was read from, and the decimal sign of numbers in its strings."""

    frame: pd.DataFrame
    source: TableData
    decimal: str = "."


def as_table(
    data: TableData,
    *,
    rows: np.ndarray | None = None,
    texts: Collection[str] = (),
    numbers: Collection[str] = (),
    is_whole: bool = False,
) -> Table:
    """Return the plain table of a path, a ``TableFile``, a pandas or a polars DataFrame.

    ``rows`` are the indices of the rows of a DataFrame to take, by default all. The types of the
    columns depend on these alone, and the index has their numbers. ``texts`` and ``numbers`` are
    columns as in ``read``; booleans of a DataFrame become strings in ``texts``. ``is_whole`` is
    whether these rows decide the kinds of the columns: then a column of strings that are all
    numbers with a decimal comma becomes one of numbers. A part of the rows decides nothing.
    """
    if isinstance(data, str | os.PathLike | TableFile):
        with opened(data) as source:
            whole = pa.Table.from_batches(source.batches, source.schema)
            frame = _frame(source, whole, texts)
    elif isinstance(data, pd.DataFrame) or hasattr(data, "to_pandas"):
        frame = to_pandas(data)
        frame = plain_frame(frame if rows is None else frame.iloc[rows], texts)
    else:
        raise TypeError(
            "data must be the path of a file, a pandas or a polars DataFrame, not "
            f"{type(data).__name__}."
        )
    if frame.empty:
        raise ValueError(f"the table has {len(frame.columns)} columns and {len(frame)} rows.")
    frame = _with_numbers(frame, numbers)
    if is_whole:
        frame = _with_decimals(frame)
    if rows is not None:
        frame.index = pd.Index(rows)
    return Table(frame, data, decimal_of(frame) or ".")


def read(
    path: PathOrFile, *, texts: Collection[str] = (), numbers: Collection[str] = ()
) -> pd.DataFrame:
    """Return the table in a file: .csv, .tsv or .jsonl (also with .gz or .bz2), .parquet, ...

    .feather and .npz are read too; ``-`` is delimited text from stdin. The columns ``texts`` of
    text stay strings: ``01`` is not 1, and only an empty field is missing. The columns ``numbers``
    of text become numbers, also codes such as ``01``, unless one has another value. The attribute
    ``attrs["decimal"]`` of the DataFrame is the decimal sign of text, by which estimators read
    numbers in columns that are strings. In an npz file each array is a column; a 2-D array is one
    for each of its own columns, named ``x_0``, ``x_1``, ... Raises ValueError, with the file's
    name, for a file without a table, and OSError for one that cannot be opened.
    """
    return as_table(path, texts=texts, numbers=numbers).frame


def read_pieces(
    path: PathOrFile, *, texts: Collection[str] = (), numbers: Collection[str] = ()
) -> Generator[tuple[pd.DataFrame, pa.Table], None, None]:
    """Yield the table that ``read`` returns in pieces of rows, in bounded memory.

    A table without rows is one piece.
    With each DataFrame comes a table of the same rows as the file has them. The dtype of a column
    can differ between pieces, but not the type of the file's column.
    """
    start = 0
    with opened(path) as source:
        for table in _of_equal_size(source):
            frame = _with_numbers(_frame(source, table, texts), numbers)
            frame.index += start
            start += len(frame)
            yield frame, table


def _of_equal_size(source: Source) -> Iterator[pa.Table]:
    """Yield all rows in tables of ``_ROWS`` rows, the last one shorter; at least one table."""
    waiting: list[pa.RecordBatch] = []
    is_begun = False
    for batch in source.batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS:
            table, is_begun = pa.Table.from_batches(waiting, source.schema), True
            end = len(table) - len(table) % _ROWS
            yield from (table.slice(start, _ROWS) for start in range(0, end, _ROWS))
            waiting = table.slice(end).to_batches()
    rest = pa.Table.from_batches(waiting, source.schema)
    if len(rest) or not is_begun:
        yield rest


def _frame(source: Source, table: pa.Table, texts: Collection[str]) -> pd.DataFrame:
    """Return rows of a file as a plain DataFrame, which knows the decimal sign of text."""
    if source.decimal is None:
        return plain_frame(table.to_pandas(), texts)
    typed = delimited.typed(table, {*texts, *source.nested}, source.decimal)
    for name in source.nested:
        typed[name] = typed[name].map(json.loads, na_action="ignore")
    frame = plain_frame(typed, texts)
    frame.attrs[DECIMAL] = source.decimal
    return frame


def _with_numbers(frame: pd.DataFrame, names: Collection[str]) -> pd.DataFrame:
    """Return a table with numbers in columns of text that hold nothing else."""
    for name in {*names} & {*frame} if decimal_of(frame) else ():
        if is_string(frame[name]):
            frame[name] = as_numbers(frame[name])
    return frame


def _with_decimals(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a plain table with the numbers of a decimal comma that all strings of a column hold.

    Only a row that was left out had another value beside them, such as the last line of a report.
    """
    if decimal_of(frame) != ",":
        return frame
    for name, column in frame.items():
        if is_string(column):
            strings, _ = distinct(column)
            if any(strings) and find_style(strings, ",") == EUROPEAN:
                frame[name] = as_numbers(column)
    return frame


def with_fallback(data: TableData, decimal: str | None) -> TableData:
    """Return a table whose file has this decimal sign if it leaves the sign open."""
    if isinstance(data, TableFile):
        return dataclasses.replace(data, fallback_decimal=decimal)
    return data


@contextlib.contextmanager
def naming_lines(file: TableData, index: pd.Index | None = None) -> Iterator[None]:
    """Turn a ``CellError`` about a row of a ``TableFile`` into a ValueError that names its line.

    ``index`` has the rows of the file, if the error counts those of a part of it.
    """
    try:
        yield
    except CellError as error:
        row = error.row if index is None else int(index[error.row])
        if (place := place_of(file, row)).startswith("row"):
            raise
        raise ValueError(error.at(place)) from error


def place_of(file: TableData, row: int) -> str:
    """Return the line in which a row of a ``TableFile`` begins, and the file, or else the row."""
    if isinstance(file, TableFile) and file.path != "-":
        with opened(dataclasses.replace(file, say=str)) as source:
            line = None if source.line_of is None else source.line_of(row)
        if line is not None:
            return f"line {line} of {os.fspath(file.path)}"
    return f"row {row}"
