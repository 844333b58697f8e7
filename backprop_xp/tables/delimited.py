"""Delimited text, such as CSV: its separator and decimal are sniffed, its columns typed.

pandas parses. What it lets pass is found in passes of their own: lines that are too short, and
codes such as 007, which it takes for numbers.
"""

import codecs
import csv
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from backprop_xp.tables.values import (
    EUROPEAN,
    MISSING,
    PLAIN,
    distinct,
    is_text,
    is_written,
    numbers,
)

_SEPARATORS = ",;\t|"
# What is sniffed: so many lines, and no more characters than these behind the second line.
_LINES, _CHARACTERS = 50, 2**15
# Bytes that hold these lines, also of a wide table; and the longest line that pyarrow reads.
_HEAD, _LONGEST = 2**22, 2**24
# Bytes that are looked through at once: they fit the processor's cache.
_PIECE = 2**18
_CODE = r"^\s*0\d+\s*$"


class Options(NamedTuple):
    """How delimited text is read: its columns' names, and which of them as they are written."""

    names: Sequence[str]
    texts: Sequence[str]
    separator: str
    decimal: str


def head_of(file: BinaryIO) -> str:
    """Return the first lines of text in UTF-8: whole ones, but for the last."""
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(file.read(_HEAD))
    lines: list[str] = []
    size = 0
    for line in io.StringIO(text, newline=None):
        size += len(line)
        if len(lines) == _LINES or (size > _CHARACTERS and len(lines) > 1):
            break
        lines.append(line)
    return "".join(lines)


def sniffed_separator(head: str, default: str) -> str:
    """Return what separates the columns; the default where nothing in the first line does."""
    names = head.partition("\n")[0]
    if len(head) > _CHARACTERS:  # the sniffer's time grows with the square of a line's length
        found = max(_SEPARATORS, key=names.count)
    else:
        try:
            found = csv.Sniffer().sniff(head, delimiters=_SEPARATORS).delimiter
        except csv.Error:  # a single column
            return default
    return found if found in names else default


def sniffed_decimal(head: str, separator: str) -> str:
    """Return the decimal of the numbers: a comma where one has it, and none a point.

    Numbers such as 1,234 have thousands, but where semicolons separate the columns.
    """
    fields = {field.strip() for row in _rows(head, separator) for field in row}
    commas = {field for field in fields if "," in field and is_written(field, EUROPEAN)}
    points = {field for field in fields if "." in field and is_written(field, PLAIN)}
    both = commas | points if separator == ";" else commas
    both = {field for field in both if is_written(field, EUROPEAN) and is_written(field, PLAIN)}
    commas_alone = commas if separator == ";" else commas - both
    return "," if commas_alone and not points - both else "."


def header(head: str, separator: str) -> list[str]:
    """Return the names in the first line; a column without one has a number, as in pandas."""
    return [name or f"Unnamed: {i}" for i, name in enumerate(next(_rows(head, separator), []))]


def read_delimited(file: BinaryIO, options: Options) -> pd.DataFrame:
    """Return the table in text in UTF-8 whose first line has the names.

    The columns ``texts`` are missing where a field is empty. Raises ValueError for a line of more
    or fewer fields than the first, with its number.
    """
    names = options.names
    try:
        frame = _parsed(file, options)
        plain = (len(frame) + 1) * (len(names) - 1)
        separators, quotes, has_codes = _census(file, options.separator)
        if quotes or separators != plain:  # quotes may hold separators
            _with_arrow(file, names[:1], options)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pa.ArrowInvalid):
        _check_lines(file, options.separator)
        raise
    if has_codes:
        frame = _with_codes(frame, file, options)
    return _with_thousands(frame, options) if options.decimal == "," else frame


def _census(file: BinaryIO, separator: str) -> tuple[int, int, bool]:
    """Return how many separators and quotes there are, and whether some field may be a code.

    Such a field begins with 0 and a digit, and is no date or time.
    """
    file.seek(0)
    separators, quotes, has_codes, before = 0, 0, False, b"\n"
    for piece in itertools.chain(iter(lambda: file.read(_PIECE), b""), [b"\n"]):
        joined = before + piece
        data = np.frombuffer(joined, dtype=np.uint8)
        begins = data == ord(separator)
        separators += int(np.count_nonzero(begins[len(before) :]))
        quotes += piece.count(b'"')
        begins |= data == ord("\n")
        begins |= data == ord('"')
        found = begins[:-3] & (data[1:-2] == ord("0"))
        found &= data[2:-1] - np.uint8(ord("0")) < 10
        if found.any():
            has_codes |= not np.isin(data[3:][found], list(b".-/: ")).all()
        before = joined[-3:]
    return separators, quotes, has_codes


def _parsed(file: BinaryIO, options: Options) -> pd.DataFrame:
    missing: Any = list(MISSING)
    if options.texts:
        missing = {name: [""] if name in options.texts else missing for name in options.names}
    with warnings.catch_warnings():
        # A line longer than the first would be cut, and types would be mixed, with a warning.
        warnings.simplefilter("error")
        for is_low in (True, False):
            file.seek(0)
            try:
                return pd.read_csv(
                    getattr(file, "name", file),  # by its path is a tenth faster
                    sep=options.separator,
                    decimal=options.decimal,
                    index_col=False,
                    encoding="utf-8",
                    low_memory=is_low,
                    dtype=dict.fromkeys(options.texts, "str"),
                    keep_default_na=False,
                    na_values=missing,
                )
            except pd.errors.DtypeWarning:  # the pieces of a file differ: read it as one
                pass
    raise AssertionError


def _with_arrow(file: BinaryIO, names: Sequence[str], options: Options) -> pa.Table:
    """Return columns as texts; pyarrow refuses a line of more or fewer fields than the first."""
    file.seek(0)
    return arrow_csv.read_csv(
        file,
        read_options=arrow_csv.ReadOptions(
            use_threads=False,
            block_size=_LONGEST,
            column_names=options.names,
            skip_rows_after_names=1,
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=options.separator,
            newlines_in_values=True,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
        ),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.string()),
            null_values=list(MISSING),
            strings_can_be_null=True,
        ),
    )


def _with_codes(frame: pd.DataFrame, file: BinaryIO, options: Options) -> pd.DataFrame:
    """Return the table with integers of which one is written like 007 as texts."""
    integers = [name for name in frame if _is_whole(frame[name])]
    if integers:
        written = _with_arrow(file, integers, options)
        for name, column in zip(integers, written.columns, strict=True):
            if pc.any(pc.match_substring_regex(column, _CODE)).as_py():
                frame[name] = column.to_pandas()
    return frame


def _is_whole(column: pd.Series) -> bool:
    """Whether a column holds integers, or would but for missing values."""
    is_holed = column.dtype.kind == "f" and column.hasnans
    return column.dtype.kind in "iu" or (is_holed and bool((column.dropna() % 1.0 == 0.0).all()))


def _with_thousands(frame: pd.DataFrame, options: Options) -> pd.DataFrame:
    """Return the table with texts such as 1.234,5 as numbers."""
    for name in frame:
        column = frame[name]
        first = column.head(100)  # mostly enough to tell
        if is_text(column) and name not in options.texts and _is_european(first, column):
            frame[name] = numbers(column, EUROPEAN)[0]
    return frame


def _is_european(*columns: pd.Series) -> bool:
    texts = (text for column in columns for text in distinct(column)[0] if text is not None)
    return all(is_written(text.strip(), EUROPEAN) for text in texts)


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def _check_lines(file: BinaryIO, separator: str) -> None:
    """Raise ValueError for the first line of more or fewer fields than the first."""
    file.seek(0)
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        lines: Any = csv.reader(text, delimiter=separator)
        names: list[str] = next(lines, [])
        for fields in lines:
            # What is blank is no row.
            if len(fields) != len(names) and "".join(fields).strip():
                raise ValueError(
                    f"line {lines.line_num} has {len(fields)} fields, but the first line has "
                    f"{len(names)}."
                )
    finally:
        text.detach()  # the file is its opener's to close
