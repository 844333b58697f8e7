"""Tables from files, pandas and polars, as DataFrames of plain columns; whole or in pieces."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import pandas as pd
import pyarrow as pa

from backprop_xp.tables.readers import delimited
from backprop_xp.tables.readers.formats import PathOrFile, Source, TableFile, opened
from backprop_xp.tables.readers.frames import plain_frame
from backprop_xp.tables.readers.values import CellError

# The maximum of rows of a piece.
_ROWS = 2**14


# A path, a ``TableFile``, a pandas DataFrame, or one that has to_pandas, as those of polars.
TableData: TypeAlias = Any


def read(path: PathOrFile, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table in a file: .csv, .tsv or .jsonl (also with .gz or .bz2), .parquet, ...

    .feather and .npz are read too; ``-`` is delimited text from stdin. The columns ``texts`` of
    text stay strings: ``01`` is not 1, and only an empty field is missing. In an npz file each
    array is a column; a 2-D array is one for each of its own columns, named ``x_0``, ``x_1``, ...
    Raises ValueError, with the file's name, for a file without a table, and OSError for one that
    cannot be opened.
    """
    with opened(path) as source:
        table = pa.Table.from_batches(source.batches, source.schema)
        return _with_rows(_frame(source, table, texts))


def read_pieces(
    path: PathOrFile, *, texts: Sequence[str] = ()
) -> Iterator[tuple[pd.DataFrame, pa.Table]]:
    """Yield the table that ``read`` returns in pieces of rows, in bounded memory.

    A table without rows is one piece.
    With each DataFrame comes a table of the same rows as the file has them. The dtype of a column
    can differ between pieces, but not the type of the file's column.
    """
    start = 0
    with opened(path) as source:
        for table in _of_equal_size(source):
            frame = _frame(source, table, texts)
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


def _frame(source: Source, table: pa.Table, texts: Sequence[str]) -> pd.DataFrame:
    """Return rows of a file as a plain DataFrame."""
    if source.decimal is None:
        return plain_frame(table.to_pandas(), texts)
    return plain_frame(delimited.typed(table, texts, source.decimal), texts)


@contextlib.contextmanager
def naming_lines(file: TableData, index: pd.Index | None = None) -> Iterator[None]:
    """Turn a ``CellError`` about a row of a ``TableFile`` into a ValueError that names its line.

    ``index`` has the rows of the file, if the error counts those of a part of it.
    """
    try:
        yield
    except CellError as error:
        row = error.row if index is None else int(index[error.row])
        line = _line_of(file, row) if isinstance(file, TableFile) else None
        if line is None:
            raise
        raise ValueError(error.at(f"line {line} of {os.fspath(file.path)}")) from error


def _line_of(file: TableFile, row: int) -> int | None:
    """Return the line in which a row of a file begins, None for stdin and for files of no lines."""
    if file.path == "-":
        return None
    with opened(dataclasses.replace(file, say=str)) as source:
        return None if source.line_of is None else source.line_of(row)


def as_frame(data: TableData, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table of a path, a ``TableFile``, a pandas or a polars DataFrame.

    The columns ``texts`` of a file stay strings; booleans of a DataFrame become strings there.
    """
    if isinstance(data, str | os.PathLike | TableFile):
        return read(data, texts=texts)
    if not isinstance(data, pd.DataFrame):
        if not hasattr(data, "to_pandas"):
            raise TypeError(
                "data must be the path of a file, a pandas or a polars DataFrame, not "
                f"{type(data).__name__}."
            )
        data = data.to_pandas()
    return _with_rows(plain_frame(data, texts))


def _with_rows(frame: pd.DataFrame) -> pd.DataFrame:
    if frame.empty:
        raise ValueError(f"the table has {len(frame.columns)} columns and {len(frame)} rows.")
    return frame
