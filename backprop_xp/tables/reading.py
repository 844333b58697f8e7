"""Tables from files, from pandas and from polars: pandas frames of plain columns.

A plain column holds booleans, real numbers, dates, spans of time or texts (pandas' ``str``), with
NaN where something is missing. Nothing that a file holds is run: npz without pickle.
"""

import collections
import csv
import gzip
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.tables.values import MISSING

# What the formats' libraries raise for a file that is damaged, or of something else.
_DAMAGED = (
    *(ValueError, KeyError, EOFError),
    *(csv.Error, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile),
)


def read(path: str | os.PathLike[str], *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table in a file: .csv, .csv.gz (in UTF-8), .parquet, .feather or .npz.

    The columns ``texts`` of a CSV file stay as they are written, so that ``01`` is no 1; only an
    empty field is missing there. In an npz file each array is a column, and a 2-D array one for
    each of its own columns, named ``x_0``, ``x_1``, ... Raises ValueError, with the file's name,
    for what is no such table, and OSError for what cannot be opened.
    """
    name = os.fspath(path)
    reader = next((r for ends, r in _READERS.items() if name.lower().endswith(ends)), None)
    if reader is None:
        raise ValueError(f"{name} must end in {', '.join(_READERS)}.")
    with Path(path).open("rb"):  # a folder, or what may not be read, says so by itself
        pass
    try:
        with warnings.catch_warnings():
            # A row longer than the header would be cut with a warning.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            found = _csv(Path(path), texts) if reader is _csv else reader(Path(path))
            return plain(found, texts)
    except (*_DAMAGED, pd.errors.ParserWarning) as error:
        raise ValueError(f"{name}: {_told(error)}") from error


def as_frame(data: Any, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a path's, a pandas or a polars frame's table as a frame of plain columns.

    The columns ``texts`` of a file are read as they are written; a frame's truths become texts.
    """
    if isinstance(data, str | os.PathLike):
        return read(data, texts=texts)
    if not isinstance(data, pd.DataFrame):
        if not hasattr(data, "to_pandas"):
            raise TypeError(
                "data must be the path of a file, a pandas or a polars frame, not "
                f"{type(data).__name__}."
            )
        data = data.to_pandas()
    return plain(data, texts)


def plain(frame: pd.DataFrame, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a frame with plain columns under names of their own, and at least one row.

    Truths become texts in the columns ``texts``: elsewhere a missing one makes numbers of them.
    """
    names = [str(name) for name in frame.columns]
    _refuse_twice(names)
    if not names or not len(frame):
        raise ValueError(f"the table has {len(names)} columns and {len(frame)} rows.")
    columns = [_plain(frame.iloc[:, i], names[i], texts) for i in range(len(names))]
    return pd.DataFrame(
        {name: column.reset_index(drop=True) for name, column in zip(names, columns, strict=True)}
    )


def _plain(column: pd.Series, name: str, texts: Sequence[str]) -> pd.Series:
    dtype = column.dtype
    if name in texts and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        return column.astype("str")
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC")
    if dtype.kind in "mM":
        return column
    if pd.api.types.is_complex_dtype(dtype):
        raise ValueError(f"the column {name!r} holds complex numbers.")
    if pd.api.types.is_numeric_dtype(dtype):  # booleans too
        if isinstance(dtype, np.dtype):
            return column
        return pd.Series(column.to_numpy(dtype="float64", na_value=np.nan))
    is_mixed = pd.api.types.is_object_dtype(dtype)
    kind = pd.api.types.infer_dtype(column, skipna=True) if is_mixed else "string"
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty"):
        return column.astype("float64")
    if kind in ("date", "datetime", "datetime64"):
        return pd.to_datetime(column)
    if is_mixed:
        _refuse_nested(column, name)
    return column.astype("str")


def _refuse_nested(column: pd.Series, name: str) -> None:
    for place, value in column.dropna().items():
        if not isinstance(value, str | bool | int | float | np.generic):
            raise ValueError(
                f"the column {name!r} holds {type(value).__name__} (row {place}): numbers, texts "
                "and dates can be learnt from."
            )


def _refuse_twice(names: Sequence[str]) -> None:
    counts = collections.Counter(names)
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise ValueError(f"two columns are named {twice[0]!r}: give each a name of its own.")


def _csv(path: Path, texts: Sequence[str]) -> pd.DataFrame:
    names = [name or f"Unnamed: {i}" for i, name in enumerate(_header(path))]  # as pandas has them
    return pd.read_csv(
        path,
        index_col=False,
        low_memory=False,
        encoding="utf-8",
        dtype=dict.fromkeys(texts, "str"),
        keep_default_na=False,
        na_values={name: [""] if name in texts else list(MISSING) for name in names},
    )


def _header(path: Path) -> list[str]:
    """Return the first line's names, and refuse lines that have more or fewer fields."""
    opened: Any = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        if b"\0" in file.read(2**16):
            raise ValueError("it is no text in UTF-8, but a binary file or of another encoding.")
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file)
        names = next(lines, [])
        _refuse_twice(names)
        for fields in lines:
            # What is blank is no row: pandas leaves it out.
            if len(fields) != len(names) and "".join(fields).strip():
                raise ValueError(
                    f"line {lines.line_num} has {len(fields)} fields, but the first line has "
                    f"{len(names)}."
                )
    return names


def _npz(path: Path) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no npz file, as numpy.savez writes them.")
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            array = arrays[name]
            if array.ndim == 2:
                columns |= {f"{name}_{i}": array[:, i] for i in range(array.shape[1])}
            elif array.ndim == 1:
                columns[name] = array
            else:
                raise ValueError(
                    f"the array {name!r} has shape {array.shape}: (rows,) or (rows, n) is expected."
                )
    if len({len(column) for column in columns.values()}) > 1:
        lengths = {name: len(column) for name, column in columns.items()}
        raise ValueError(f"its arrays have different numbers of rows: {lengths}.")
    return pd.DataFrame({name: _native(column) for name, column in columns.items()})


def _native(array: np.ndarray) -> np.ndarray:
    """Return an array in the machine's byte order; float16 as float32, for pandas."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    return array.astype("float32") if array.dtype == np.float16 else array


def _told(error: Exception) -> str:
    """Return what is wrong with a file, in one line."""
    if isinstance(error, UnicodeDecodeError):
        return (
            f"it is no text in UTF-8 (byte 0x{error.object[error.start]:02x}): write it in UTF-8, "
            "as by iconv -f latin1 -t utf-8."
        )
    if isinstance(error, pd.errors.EmptyDataError):
        return "it is empty: a line with the columns' names, and rows, are expected."
    return " ".join(str(error).split()) or type(error).__name__


_READERS: dict[str, Callable[..., pd.DataFrame]] = {
    ".csv": _csv,
    ".csv.gz": _csv,
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".npz": _npz,
}
