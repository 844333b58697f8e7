"""The formats of files with tables: their columns and rows as arrow's record batches.

Nothing in a file is executed: npz files are read without pickle.
"""

import contextlib
import csv
import dataclasses
import functools
import io
import itertools
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.files.numpy_files import read_npz
from backprop_xp.tables.readers import delimited
from backprop_xp.tables.readers.frames import require_sound

# The errors of the formats' libraries for a file that is damaged, or of another format.
_DAMAGED = ValueError, LookupError, EOFError, RecursionError, pa.ArrowException, csv.Error
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2"}
# Columns of an array without rows, which take no bytes in a file but a name each here.
_MAX_EMPTY = 2**20
# Rows of a batch of JSON lines, or of parquet.
_ROWS = 2**14


@dataclass(frozen=True)
class TableFile:
    """A file with a table, and the options to read it; accepted wherever a path is.

    ``separator`` (one character), ``decimal`` (``.`` or ``,``) and ``encoding`` are those of
    delimited text. By default the first two are sniffed, and the encoding is UTF-8. ``say`` is
    called with a line if a sniffed option is not the default of the file's extension.
    ``fallback_decimal`` is the decimal sign of a file whose numbers leave it open, such as 1.234.
    """

    path: str | os.PathLike[str]
    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    say: Callable[[str], object] = lambda line: None
    fallback_decimal: str | None = None

    def __post_init__(self) -> None:
        separator = self.separator or ","
        if len(separator) != 1 or not separator.isascii() or separator in '"\r\n':
            raise ValueError(f"separator must be one ASCII character, not {self.separator!r}.")
        for name in ("decimal", "fallback_decimal"):
            if (sign := getattr(self, name)) not in (None, ".", ","):
                raise ValueError(f"{name} must be '.' or ',', not {sign!r}.")


PathOrFile: TypeAlias = str | os.PathLike[str] | TableFile


class Source(NamedTuple):
    """The columns of a file, its rows, and the decimal sign of text, None for typed columns.

    ``line_of`` returns the number of the line in which a row of text begins. ``nested`` are the
    columns of text that have JSON, since some value is a list or an object.
    """

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    decimal: str | None = None
    line_of: Callable[[int], int | None] | None = None
    nested: Collection[str] = ()


@contextlib.contextmanager
def opened(path: PathOrFile) -> Iterator[Source]:
    """Provide the columns and the rows of a file; its errors become ValueError with its name."""
    options = path if isinstance(path, TableFile) else TableFile(path)
    name = place = os.fspath(options.path)
    with contextlib.ExitStack() as stack:
        if name == "-":
            name, place = "stdin", stack.enter_context(tempfile.TemporaryDirectory()) + "/stdin.csv"
            options = dataclasses.replace(options, path=name)
            with Path(place).open("wb") as copy:  # it is read several times
                try:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
                except OSError as error:
                    error.filename = place
                    raise
        suffixes = [suffix.lower() for suffix in Path(place).suffixes[-2:]]
        compression = _COMPRESSIONS.get(suffixes[-1] if suffixes else "")
        extension = "".join(suffixes[:-1] if compression else suffixes[-1:])
        if extension not in _TEXT_READERS and (compression or extension not in _READERS):
            known = f"{', '.join(_TEXT_READERS)} (also with .gz or .bz2), {', '.join(_READERS)}"
            raise ValueError(f"{name} must end in {known}.")
        with naming(name):
            if extension in _READERS:
                yield _READERS[extension](stack.enter_context(Path(place).open("rb")))
            else:
                opener = functools.partial(_in_utf8, place, compression, options.encoding)
                yield _TEXT_READERS[extension](opener, options)


@contextlib.contextmanager
def naming(name: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the errors of reading a damaged file into a ValueError with its name."""
    try:
        yield
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be opened
        raise ValueError(f"{os.fspath(name)}: {_reason(error)}") from error


def checked(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a file; ValueError for one that is damaged."""
    for batch in batches:
        require_sound(batch)
        yield batch


@contextlib.contextmanager
def _in_utf8(place: str, compression: str | None, encoding: str | None) -> Iterator[pa.NativeFile]:
    """Provide the bytes of a file, unzipped and in UTF-8."""
    with Path(place).open("rb") as file:  # raises OSError for a folder too
        stream = pa.input_stream(file, compression=compression)
        if encoding:
            " ".encode(encoding)  # raises LookupError for rot13 too
            stream = pa.transcoding_input_stream(stream, encoding, "utf-8")
        yield stream


def _delimited(default: str, opener: delimited.Opener, options: TableFile) -> Source:
    """Return the rows of text whose separator is by default that of its extension."""
    with opener() as file:
        head = delimited.head_of(file)
    if declared := delimited.declared_separator(head):
        opener = functools.partial(delimited.without_declaration, opener)
        with opener() as file:
            head = delimited.head_of(file)
    separator = options.separator or declared or delimited.sniff_separator(head, default)
    sniffed = delimited.sniff_decimal(head, separator)
    decimal = options.decimal or delimited.sniff_decimal(head, separator, options.fallback_decimal)
    is_open = not options.decimal and decimal != sniffed
    if is_open or (separator, decimal) != (options.separator or default, options.decimal or "."):
        why = "; the file leaves the decimal sign open, so it is that of the training"
        options.say(
            f"{os.fspath(options.path)}: separator {separator!r}, decimal {decimal!r} "
            f"(sniffed{why if is_open else ''}; --separator and --decimal choose others)"
        )
    names = delimited.header(head, separator)
    if not names:
        raise ValueError("it is empty: a line with the columns' names is expected, then rows.")
    schema = pa.schema([(name, pa.string()) for name in names])
    # pyarrow refuses a line without an end that is the only one.
    rows = delimited.batches(opener, schema, separator) if "\n" in head else ()
    return Source(schema, rows, decimal, functools.partial(delimited.line_of, opener, separator))


def _json_lines(opener: delimited.Opener, options: TableFile) -> Source:
    """Return the values of JSON objects as their text, so that all rows have the same columns.

    The values of a column are JSON if one of them is a list or an object.
    """

    def objects() -> Iterator[tuple[int, str, dict[str, Any]]]:
        with opener() as file:
            for i, line in enumerate(io.TextIOWrapper(file, "utf-8-sig"), start=1):
                if not line.strip():
                    continue
                try:
                    values = json.loads(line, parse_int=str, parse_float=str, parse_constant=str)
                except json.JSONDecodeError as error:
                    raise ValueError(f"line {i} is not JSON: {error}") from None
                if not isinstance(values, dict):
                    raise ValueError(f"line {i} must have one object, not {line[:20]!r}.")
                yield i, line, values

    def texts() -> Iterator[dict[str, str | None]]:
        for _, line, values in objects():
            if nested:  # with numbers, not their text
                parsed = json.loads(line)
                present = (name for name in nested if values.get(name) is not None)
                values |= {name: json.dumps(parsed[name]) for name in present}
            yield {n: v if isinstance(v, str | None) else str(v) for n, v in values.items()}

    def batches() -> Iterator[pa.RecordBatch]:
        rows = texts()
        while block := [*itertools.islice(rows, _ROWS)]:
            yield pa.RecordBatch.from_pylist(block, schema)

    def line_of(row: int) -> int:
        return next(itertools.islice(objects(), row, None))[0]

    names, nested = dict[str, None](), set[str]()
    for _, _, values in objects():
        names |= dict.fromkeys(values)
        nested |= {name for name, value in values.items() if isinstance(value, list | dict)}
    schema = pa.schema([(name, pa.string()) for name in names])
    return Source(schema, batches(), ".", line_of, nested)


def _parquet(file: BinaryIO) -> Source:
    from pyarrow import parquet  # not needed for other formats

    found = parquet.ParquetFile(file, buffer_size=2**16, pre_buffer=False)  # less memory
    return Source(found.schema_arrow, checked(found.iter_batches(_ROWS)))


def _feather(file: BinaryIO) -> Source:
    found = pa.ipc.open_file(file)
    batches = map(found.get_batch, range(found.num_record_batches))
    return Source(found.schema, checked(batches))


def _npz(file: BinaryIO) -> Source:
    columns: dict[str, np.ndarray] = {}
    for name, given in read_npz(file).items():
        array = given.astype(given.dtype.newbyteorder("="), copy=False)
        if array.ndim == 2 and array.shape[1] <= max(array.size, _MAX_EMPTY):
            own = {f"{name}_{i}": array[:, i] for i in range(array.shape[1])}
        elif array.ndim == 1:
            own = {name: array}
        else:
            raise ValueError(
                f"the array {name!r} has shape {array.shape}: (rows,) or (rows, n) is expected."
            )
        for column in own.keys() & columns:
            raise ValueError(f"two columns are named {column!r}.")
        columns |= own
    try:
        table = pa.Table.from_pandas(pd.DataFrame(columns))
    except TypeError as error:  # of dates without a unit
        raise ValueError(str(error)) from error
    return Source(table.schema, table.to_batches())


def _reason(error: Exception) -> str:
    """Return what is wrong with a file, in one line."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply."
    if isinstance(error, UnicodeDecodeError):
        name = "UTF-8" if error.encoding.startswith("utf-8") else error.encoding
        return (
            f"it is not text in {name} (byte 0x{error.object[error.start]:02x}): give its "
            "encoding, for example --encoding latin1."
        )
    return " ".join(str(error).split()) or type(error).__name__


_TEXT_READERS: dict[str, Callable[[delimited.Opener, TableFile], Source]] = {
    ".csv": functools.partial(_delimited, ","),
    ".tsv": functools.partial(_delimited, "\t"),
    ".jsonl": _json_lines,
}
_READERS: dict[str, Callable[[BinaryIO], Source]] = {
    ".parquet": _parquet,
    ".feather": _feather,
    ".npz": _npz,
}
