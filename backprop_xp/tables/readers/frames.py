"""pandas DataFrames of plain columns, from DataFrames of any columns.

A plain column holds booleans, real numbers, dates, timedeltas, strings (pandas' ``str``) or
categories that are strings (pandas' ``category``); NaN is a missing value. Other values, and those
of several kinds, stay a column of objects: only a use of the column is an error.
"""

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.checks import plain
from backprop_xp.tables.readers.cells import (
    PLAIN,
    CellError,
    as_strings,
    foreign,
    has_style,
    is_categorical,
    is_string,
    kind_of,
)


def require_sound(table: pa.Table | pa.RecordBatch) -> None:
    """Raise ValueError for a wrong offset, index or string of a damaged file.

    pyarrow uses offsets as they are: a wrong one would end the process.
    """
    table.validate()
    for name, column in zip(table.schema.names, table.columns, strict=True):
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise ValueError(f"the column {name!r} is damaged: {error}") from None


def to_pandas(data: Any) -> pd.DataFrame:
    """Return a DataFrame of pandas as it is, and another library's as one of pandas.

    A table of arrow may come from a damaged file: ValueError.
    """
    if isinstance(data, pa.Table | pa.RecordBatch):
        require_sound(data)
    frame: pd.DataFrame = data if isinstance(data, pd.DataFrame) else data.to_pandas()
    return frame


def plain_frame(frame: pd.DataFrame, texts: Collection[str] = ()) -> pd.DataFrame:
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


def _plain_column(column: pd.Series, name: str, texts: Collection[str]) -> pd.Series:
    if isinstance(column.dtype, pd.ArrowDtype):
        array = pa.array(column)
        require_sound(pa.table({name: array}))
        column = array.to_pandas()
    dtype = column.dtype
    if is_categorical(column):
        return _categories(column)
    if is_string(column):
        return column if dtype == "str" else column.astype("str")
    if name in texts and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        return column.astype("str")
    if isinstance(dtype, np.dtype) and dtype.kind in "mMfiub":
        if dtype.kind != "f" or dtype in ("float32", "float64"):
            return column
        with np.errstate(over="ignore"):  # infinity is a missing value
            return column.astype("float32" if dtype == np.float16 else "float64")
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column
    if pd.api.types.is_complex_dtype(dtype):
        return column.astype(object)
    if pd.api.types.is_numeric_dtype(dtype):  # booleans too
        if column.hasnans:
            return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan))
        return pd.Series(np.asarray(column, dtype=getattr(dtype, "numpy_dtype", "float64")))
    is_mixed = pd.api.types.is_object_dtype(dtype)
    kind = pd.api.types.infer_dtype(column, skipna=True) if is_mixed else "string"
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"):
        return column.where(column.notna()).astype("float64")  # pd.NA is no number
    if kind in ("date", "datetime", "datetime64"):
        with contextlib.suppress(ValueError):
            return pd.to_datetime(column)
        # Of several offsets, or some without one: each as its own clock shows it.
        return pd.to_datetime(column.map(lambda date: date.replace(tzinfo=None), "ignore"))
    if kind in ("time", "timedelta", "timedelta64"):
        return pd.to_timedelta(column.astype("str") if kind == "time" else column)
    present = column.dropna()
    if not is_mixed or all(isinstance(v, str | bool | int | float | np.generic) for v in present):
        return column.astype("str")
    kinds = {*present.map(kind_of)}
    if kinds == {"strings"}:  # also UUIDs
        return column.where(column.notna()).astype("str")
    if kinds == {"numbers"}:  # some of them decimals
        return column.where(column.notna()).astype("float64")
    if kinds == {"times"}:
        return pd.to_timedelta(column.astype("str"))
    return pd.to_datetime(column.astype("str")) if kinds == {"dates"} else column


def refuse_foreign(column: pd.Series) -> None:
    """Raise ``CellError`` for a value of no kind, such as a list or bytes."""
    if (wrong := foreign(column)).any():
        first = int(wrong.argmax())
        raise CellError(
            f"the column {str(column.name)!r} holds {type(column.iloc[first]).__name__}",
            ": numbers, strings or dates are expected.",
            column.index[first],
        )


def require_plain(frame: pd.DataFrame, names: Iterable[str] | None = None) -> None:
    """Raise ``CellError`` for a column of objects, by default among all: it names one value."""
    for name in frame if names is None else names:
        column = frame[name]
        if column.dtype != object:
            continue
        refuse_foreign(column)
        kinds = column.dropna().map(kind_of)
        for usual, _ in Counter(kinds).most_common(1):
            row = (kinds != usual).idxmax()
            raise CellError(
                f"the column {name!r} has {plain(column[row])!r}",
                f", but other values are {usual}: correct it, or leave it empty.",
                row,
            )


def _categories(column: pd.Series) -> pd.Series:
    """Return a column of categories as one whose categories are strings."""
    strings = as_strings(pd.Series(column.cat.categories))
    values = strings.reindex(column.cat.codes)  # the code of a missing value is -1
    return pd.Series(values.array).astype("category")


def header_hint(names: Iterable[str]) -> str:
    """Return a hint if some names are numbers, as in a file whose first line is a row."""
    value = next((name for name in names if has_style(name, PLAIN)), None)
    if value is None:
        return ""
    return (
        f" Names such as {value!r} look like values: the first line must have the columns' names."
    )


def named_columns(values: Sequence[str], names: Collection[str]) -> list[str]:
    """Return the columns of a repeatable option: each value is a column, or several as ``A,B``.

    A value that is a column's exact name, such as ``" a"`` or ``"a,b"``, is that column.
    """
    found = list[str]()
    for value in values:
        parts = [value] if value in names else value.split(",")
        found += [part if part in names else part.strip() for part in parts if part.strip()]
    return found
