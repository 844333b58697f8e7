"""pandas DataFrames of plain columns, from DataFrames of any columns.

A plain column holds booleans, real numbers, dates, timedeltas, strings (pandas' ``str``) or
categories that are strings (pandas' ``category``); NaN is a missing value.
"""

import contextlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.tables.readers.values import (
    PLAIN,
    as_strings,
    has_style,
    is_categorical,
    is_string,
)


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
        return column.where(column.notna()).astype("float64")  # pd.NA is no number
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
