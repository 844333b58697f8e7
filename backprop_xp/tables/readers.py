"""Tables from files, pandas and polars: pandas DataFrames of plain columns.

A plain column holds booleans, real numbers, dates, timedeltas or strings (pandas' ``str``); NaN is
a missing value. Nothing in a file is executed: npz files are read without pickle.
"""

import bz2
import collections
import csv
import gzip
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.tables import delimited
from backprop_xp.tables.values import PLAIN, has_style, is_string

# The errors of the formats' libraries for a file that is damaged, or of another format.
_DAMAGED = (
    *(ValueError, KeyError, EOFError),
    *(csv.Error, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile),
)
_UNZIP: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress}


class PolarsFrame(Protocol):
    """A DataFrame that converts itself to pandas, as one of polars does."""

    def to_pandas(self) -> pd.DataFrame:
        """Return the pandas DataFrame."""


@dataclass(frozen=True)
class TableFile:
    """A file with a table, and the options to read it; accepted wherever a path is.

    ``separator`` (one character), ``decimal`` (``.`` or ``,``) and ``encoding`` are those of
    delimited text. By default the first two are sniffed, and the encoding is UTF-8. ``say`` is
    called with a line if a sniffed option is not the default of the file's extension.
    """

    path: str | os.PathLike[str]
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    say: Callable[[str], object] = lambda line: None

    def __post_init__(self) -> None:
        separator = self.separator or ","
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
            raise ValueError(f"separator must be one ASCII character, not {self.separator!r}.")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be '.' or ',', not {self.decimal!r}.")
        try:
            " ".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding {self.encoding!r} is unknown to Python.") from None


PathOrFile: TypeAlias = str | os.PathLike[str] | TableFile
TableData: TypeAlias = PathOrFile | pd.DataFrame | PolarsFrame


def read(path: PathOrFile, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table in a file: .csv, .tsv or .jsonl (also with .gz or .bz2), .parquet, ...

    .feather and .npz are read too. The columns ``texts`` of delimited text stay strings: ``01`` is
    not 1, and only an empty field is missing. In an npz file each array is a column; a 2-D array is
    one for each of its own columns, named ``x_0``, ``x_1``, ... Raises ValueError, with the file's
    name, for a file without a table, and OSError for one that cannot be opened.
    """
    options = path if isinstance(path, TableFile) else TableFile(path)
    name = os.fspath(options.path)
    extension, compression = _extensions(name)
    if extension not in _TEXT_READERS and (compression or extension not in _READERS):
        known = f"{', '.join(_TEXT_READERS)} (also with .gz or .bz2), {', '.join(_READERS)}"
        raise ValueError(f"{name} must end in {known}.")
    with Path(name).open("rb") as file:  # raises OSError for a folder too
        try:
            if extension in _READERS:
                return plain_frame(_READERS[extension](Path(name)), texts)
            text = _in_utf8(file, compression, options.encoding)
            return plain_frame(_TEXT_READERS[extension](text, options, texts), texts)
        except _DAMAGED as error:
            raise ValueError(f"{name}: {_reason(error)}") from error


def _extensions(name: str) -> tuple[str, str]:
    """Return the extension of a file's format, and that of its compression, if any."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in _UNZIP else ""
    return Path(path.stem).suffix if compression else path.suffix, compression


def _in_utf8(file: BinaryIO, compression: str, encoding: str | None) -> BinaryIO:
    """Return a file, or a copy of it in memory that is unzipped and in UTF-8."""
    if not compression and encoding is None:
        return file
    data = file.read()
    try:
        data = _UNZIP[compression](data) if compression else data
    except OSError as error:  # bz2's, for other bytes
        raise ValueError(str(error)) from error
    return io.BytesIO(data.decode(encoding).encode() if encoding else data)


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
    return plain_frame(data, texts)


def plain_frame(frame: pd.DataFrame, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return a DataFrame of plain columns; ValueError for two of one name, or for no rows.

    Booleans become strings in the columns ``texts``; elsewhere, with missing values, numbers.
    """
    names = [str(name) for name in frame.columns]
    _refuse_twice(names)
    if not names or not len(frame):
        raise ValueError(f"the table has {len(names)} columns and {len(frame)} rows.")
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name, column in frame.items():
        converted = _plain_column(column, name, texts)
        if converted is not column:
            frame[name] = converted
    return frame


def _plain_column(column: pd.Series, name: str, texts: Sequence[str]) -> pd.Series:
    dtype = column.dtype
    if is_string(column):
        return column if dtype == "str" else column.astype("str")
    if name in texts and pd.api.types.infer_dtype(column, skipna=True) == "boolean":
        return column.astype("str")
    if isinstance(dtype, np.dtype) and dtype.kind in "mMfiub":
        return column
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column.dt.tz_convert("UTC")
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
        return pd.to_datetime(column)
    if kind in ("time", "timedelta", "timedelta64"):
        return pd.to_timedelta(column.astype("str") if kind == "time" else column)
    for row, value in column.dropna().items() if is_mixed else ():
        if not isinstance(value, str | bool | int | float | np.generic):
            raise ValueError(
                f"the column {name!r} holds {type(value).__name__} (row {row}): numbers, "
                "strings or dates are expected."
            )
    return column.astype("str")


def _refuse_twice(names: Sequence[str]) -> None:
    counts = collections.Counter(names)
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise ValueError(
            f"two columns are named {twice[0]!r}: give each its own name.{header_hint(names)}"
        )


def header_hint(names: Sequence[str]) -> str:
    """Return a hint if some names are numbers, as in a file whose first line is a row."""
    values = [name for name in names if has_style(name, PLAIN)]
    if not values:
        return ""
    return (
        f" Names such as {values[0]!r} look like values: the first line must have the columns' "
        "names."
    )


def _delimited(file: BinaryIO, options: TableFile, texts: Sequence[str]) -> pd.DataFrame:
    if b"\0" in file.read(2**16):
        raise ValueError(
            "it is not text in UTF-8: if it is a text file, give its encoding, for example "
            "--encoding utf-16."
        )
    file.seek(0)
    head, path = delimited.head_of(file), os.fspath(options.path)
    default = "\t" if _extensions(path)[0] == ".tsv" else ","
    separator = options.separator or delimited.sniff_separator(head, default)
    decimal = options.decimal or delimited.sniff_decimal(head, separator)
    if (separator, decimal) != (options.separator or default, options.decimal or "."):
        options.say(
            f"{path}: separator {separator!r}, decimal {decimal!r} (sniffed; --separator and "
            "--decimal choose others)"
        )
    names = delimited.header(head, separator)
    if not names:
        raise ValueError("it is empty: a line with the columns' names is expected, then rows.")
    _refuse_twice(names)
    frame = delimited.read_delimited(file, delimited.Options(names, texts, separator, decimal))
    frame.attrs["decimal"] = decimal  # of the columns that stay strings
    return frame


def _json_lines(file: BinaryIO, options: TableFile, texts: Sequence[str]) -> pd.DataFrame:
    text = io.StringIO(file.read().decode("utf-8-sig"))
    return pd.read_json(text, lines=True, dtype=False)


def _npz(path: Path) -> pd.DataFrame:
    columns: dict[str, np.ndarray] = {}
    if not zipfile.is_zipfile(path):
        raise ValueError("it is not an npz file, as numpy.savez writes it.")
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            array = arrays[name]
            array = array.astype(array.dtype.newbyteorder("="), copy=False)
            array = array.astype("float32") if array.dtype == np.float16 else array  # for pandas
            if array.ndim == 2:
                columns |= {f"{name}_{i}": array[:, i] for i in range(array.shape[1])}
            elif array.ndim == 1:
                columns[name] = array
            else:
                raise ValueError(
                    f"the array {name!r} has shape {array.shape}: (rows,) or (rows, n) is expected."
                )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"its arrays have different numbers of rows: {lengths}.")
    return pd.DataFrame(columns)


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, in one line."""
    if isinstance(error, UnicodeDecodeError):
        name = "UTF-8" if error.encoding.startswith("utf-8") else error.encoding
        return (
            f"it is not text in {name} (byte 0x{error.object[error.start]:02x}): give its "
            "encoding, for example --encoding latin1."
        )
    return " ".join(str(error).split()) or type(error).__name__


_TEXT_READERS: dict[str, Callable[[BinaryIO, TableFile, Sequence[str]], pd.DataFrame]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json_lines,
}
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".npz": _npz,
}
