"""Tables from files, pandas and polars: pandas DataFrames of plain columns.

A plain column holds booleans, real numbers, dates, timedeltas, strings (pandas' ``str``) or
categories that are strings (pandas' ``category``); NaN is a missing value.
"""

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.tables import delimited
from backprop_xp.tables.formats import PathOrFile, Source, TableFile, opened
from backprop_xp.tables.values import (
    PLAIN,
    CellError,
    as_strings,
    has_style,
    is_categorical,
    is_string,
)

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


def plain_frame(frame: pd.DataFrame, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a DataFrame of plain columns; ValueError for two of one name.

    Booleans become strings in the columns ``texts``; elsewhere, with missing values, numbers.
    """
    names = pd.Index([str(name) for name in frame.columns])
    if names.has_duplicates:
        twice = names[names.duplicated()][0]
        raise ValueError(
            f"two columns are named {twice!r}: give each its own name.{header_hint(names)}"
        )
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name, column in frame.items():
        converted = _plain_column(column, name, texts)
        if converted is not column:
            frame[name] = converted
    return frame


def _plain_column(column: pd.Series, name: str, texts: Sequence[str]) -> pd.Series:
    if isinstance(column.dtype, pd.ArrowDtype):
        column = pa.array(column).to_pandas()
    dtype = column.dtype
    if is_categorical(column):
        return _categories(column)
    if is_string(column):
        return column if dtype == "str" else column.astype("str")
    if name in texts and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        return column.astype("str")
    if isinstance(dtype, np.dtype) and dtype.kind in "mMfiub":
        return column if dtype != np.float16 else column.astype("float32")
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"the column {name!r} holds complex numbers.")
    if pd.api.types.is_numeric_dtype(dtype):  # booleans too
        if column.hasnans:
            return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan))
        return pd.Series(np.asarray(column, dtype=getattr(dtype, "numpy_dtype", "float64")))
    is_mixed = pd.api.types.is_object_dtype(dtype)
    kind = pd.api.types.infer_dtype(column, skipna=True) if is_mixed else "string"
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"):
        return column.astype("float64")
    if kind in ("date", "datetime", "datetime64"):
        with contextlib.suppress(ValueError):
            return pd.to_datetime(column)
        # Of several offsets, or some without one: each as its own clock shows it.
        return pd.to_datetime(column.map(lambda date: date.replace(tzinfo=None), "ignore"))
    if kind in ("time", "timedelta", "timedelta64"):
        return pd.to_timedelta(column.astype("str") if kind == "time" else column)
    for row, value in column.dropna().items() if is_mixed else ():
        if not isinstance(value, str | bool | int | float | np.generic):
            raise ValueError(
                f"the column {name!r} holds {type(value).__name__} (row {row}): numbers, "
                "strings or dates are expected."
            )
    return column.astype("str")


def _categories(column: pd.Series) -> pd.Series:
    """Return a column of categories as one whose categories are strings."""
    strings = as_strings(pd.Series(column.cat.categories))
    values = strings.reindex(column.cat.codes)  # the code of a missing value is -1
    return pd.Series(values.array).astype("category")


def named_columns(values: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the columns of a repeatable option: each value is a column, or several as ``A,B``.

    A value that is a column's exact name, such as ``" a"`` or ``"a,b"``, is that column.
    """
    found = list[str]()
    for value in values:
        parts = [value] if value in names else value.split(",")
        found += [part if part in names else part.strip() for part in parts if part.strip()]
    return found


def header_hint(names: Iterable[str]) -> str:
    """Return a hint if some names are numbers, as in a file whose first line is a row."""
    value = next((name for name in names if has_style(name, PLAIN)), None)
    if value is None:
        return ""
    return (
        f" Names such as {value!r} look like values: the first line must have the columns' names."
    )
