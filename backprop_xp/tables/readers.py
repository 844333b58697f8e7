"""Tables from files, from pandas and from polars: pandas frames of plain columns.

A plain column holds booleans, real numbers, dates, timedeltas or texts (pandas' ``str``), with NaN
where something is missing. Nothing that a file holds is run: npz without pickle.
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
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from backprop_xp.tables import delimited
from backprop_xp.tables.values import PLAIN, is_text, is_written

# What the formats' libraries raise for a file that is damaged, or of something else.
_DAMAGED = (
    *(ValueError, KeyError, EOFError),
    *(csv.Error, zlib.error, zipfile.BadZipFile, gzip.BadGzipFile),
)
_UNZIPPED: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
}


@dataclass(frozen=True)
class TableFile:
    """A file with a table, and how it is to be read: it stands wherever a path does.

    ``separator`` (one character), ``decimal`` (``.`` or ``,``) and ``encoding`` are those of
    delimited text; where they are None, the first two are sniffed, and the text is in UTF-8.
    ``say`` is given a line on what was sniffed, unless it is what the file's ending says.
    """

    path: str | os.PathLike[str]
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    say: Callable[[str], Any] = lambda line: None

    def __post_init__(self) -> None:
        one = self.separator or ","
        if len(one) != 1 or not one.isascii() or one in '"\r\n':
            raise ValueError(f"separator must be one ASCII character, not {self.separator!r}.")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be '.' or ',', not {self.decimal!r}.")
        try:
            " ".encode(self.encoding or "utf-8")
        except LookupError:
            raise ValueError(f"encoding {self.encoding!r} is unknown to Python.") from None


def read(path: str | os.PathLike[str] | TableFile, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table in a file: .csv, .tsv or .jsonl, also with .gz or .bz2, or .parquet, ...

    .feather and .npz are read too. The columns ``texts`` of delimited text stay as they are
    written, so that ``01`` is no 1; only an empty field is missing there. In an npz file each array
    is a column, and a 2-D array one for each of its own columns, named ``x_0``, ``x_1``, ...
    Raises ValueError, with the file's name, for what is no such table, and OSError for what cannot
    be opened.
    """
    given = path if isinstance(path, TableFile) else TableFile(path)
    name = os.fspath(given.path)
    ending, zipped = _endings(name)
    if ending not in _TEXTS and (zipped or ending not in _READERS):
        known = f"{', '.join(_TEXTS)} (also with .gz or .bz2), {', '.join(_READERS)}"
        raise ValueError(f"{name} must end in {known}.")
    with Path(name).open("rb") as file:  # a folder, or what may not be read, says so by itself
        try:
            if ending in _READERS:
                return plain(_READERS[ending](Path(name)), texts)
            return plain(_TEXTS[ending](_in_utf8(file, zipped, given), given, texts), texts)
        except _DAMAGED as error:
            raise ValueError(f"{name}: {_told(error)}") from error


def _endings(name: str) -> tuple[str, str]:
    """Return the ending that tells a file's format, and that of its compression, if any."""
    path = Path(name.lower())
    zipped = path.suffix if path.suffix in _UNZIPPED else ""
    return Path(path.stem).suffix if zipped else path.suffix, zipped


def _in_utf8(file: BinaryIO, zipped: str, given: TableFile) -> BinaryIO:
    """Return the text of a file, or a copy of it in memory that is unzipped and in UTF-8."""
    if not zipped and given.encoding is None:
        return file
    data = file.read()
    try:
        data = _UNZIPPED[zipped](data) if zipped else data
    except OSError as error:  # bz2's, of bytes that are none of its
        raise ValueError(str(error)) from error
    return io.BytesIO(data.decode(given.encoding).encode() if given.encoding else data)


def as_frame(data: Any, *, texts: Sequence[str] = ()) -> pd.DataFrame:
    """Return the table of a path, a ``TableFile``, a pandas or a polars frame, in plain columns.

    The columns ``texts`` of a file are read as they are written; a frame's booleans become texts.
    """
    if isinstance(data, str | os.PathLike | TableFile):
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

    Booleans become texts in the columns ``texts``: elsewhere a missing one makes numbers of them.
    """
    names = [str(name) for name in frame.columns]
    _refuse_twice(names)
    if not names or not len(frame):
        raise ValueError(f"the table has {len(names)} columns and {len(frame)} rows.")
    frame = frame.set_axis(names, axis=1).reset_index(drop=True)
    for name, column in frame.items():
        made = _plain(column, name, texts)
        if made is not column:
            frame[name] = made
    return frame


def _plain(column: pd.Series, name: str, texts: Sequence[str]) -> pd.Series:
    dtype = column.dtype
    if is_text(column):
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
    if is_mixed:
        _refuse_nested(column, name)
    return column.astype("str")


def _refuse_nested(column: pd.Series, name: str) -> None:
    for row, value in column.dropna().items():
        if not isinstance(value, str | bool | int | float | np.generic):
            raise ValueError(
                f"the column {name!r} holds {type(value).__name__} (row {row}): numbers, texts "
                "and dates can be learnt from."
            )


def _refuse_twice(names: Sequence[str]) -> None:
    counts = collections.Counter(names)
    twice = [name for name in names if counts[name] > 1]
    if twice:
        raise ValueError(
            f"two columns are named {twice[0]!r}: give each a name of its own.{lost_header(names)}"
        )


def lost_header(names: Sequence[str]) -> str:
    """Return a hint where some names are numbers, as in a file whose first line is a row."""
    values = [name for name in names if is_written(name, PLAIN)]
    if not values:
        return ""
    return (
        f" Names such as {values[0]!r} look like values: the first line must have the columns' "
        "names."
    )


def _delimited(file: BinaryIO, given: TableFile, texts: Sequence[str]) -> pd.DataFrame:
    if b"\0" in file.read(2**16):
        raise ValueError(
            "it is no text in UTF-8, but a binary file or of another encoding: for a text, name "
            "its encoding, as --encoding utf-16."
        )
    file.seek(0)
    head = delimited.head_of(file)
    default = "\t" if _endings(os.fspath(given.path))[0] == ".tsv" else ","
    separator = given.separator or delimited.sniffed_separator(head, default)
    decimal = given.decimal or delimited.sniffed_decimal(head, separator)
    if (separator, decimal) != (given.separator or default, given.decimal or "."):
        given.say(
            f"{os.fspath(given.path)}: separator {separator!r}, decimal {decimal!r} (sniffed; "
            "--separator and --decimal choose others)"
        )
    names = delimited.header(head, separator)
    if not names:
        raise ValueError("it is empty: a line with the columns' names, and rows, are expected.")
    _refuse_twice(names)
    found = delimited.read_delimited(file, delimited.Options(names, texts, separator, decimal))
    found.attrs["decimal"] = decimal  # of the columns that stay as they are written
    return found


def _json_lines(file: BinaryIO, given: TableFile, texts: Sequence[str]) -> pd.DataFrame:
    text = io.StringIO(file.read().decode("utf-8-sig"))
    return pd.read_json(text, lines=True, dtype=False)


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
        name = "UTF-8" if error.encoding.startswith("utf-8") else error.encoding
        return (
            f"it is no text in {name} (byte 0x{error.object[error.start]:02x}): name its "
            "encoding, as --encoding latin1."
        )
    return " ".join(str(error).split()) or type(error).__name__


_TEXTS: dict[str, Callable[[BinaryIO, TableFile, Sequence[str]], pd.DataFrame]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".jsonl": _json_lines,
}
_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": pd.read_parquet,
    ".feather": pd.read_feather,
    ".npz": _npz,
}
