"""Delimited text, such as CSV: detection of separator and decimal sign, and types of columns.

pandas parses. Our own passes find lines that are too short, and codes such as 007, which pandas
reads as numbers.
"""

import codecs
import csv
import io
import itertools
import warnings
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

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
    has_style,
    is_string,
    numbers,
)

_SEPARATORS = ",;\t|"
# The number of lines that are sniffed, and the maximum of characters after the second line.
_LINES, _CHARACTERS = 50, 2**15
# Bytes that hold these lines of a wide table too; and the longest line that pyarrow reads.
_HEAD, _LONGEST = 2**22, 2**24
# Bytes of a block that fits the processor's cache.
_BLOCK = 2**18
_CODE = r"^\s*0\d+\s*$"


class Options(NamedTuple):
    """The options of reading: the columns' names, and which of them stay strings."""

    names: Sequence[str]
    texts: Sequence[str]
    separator: str
    decimal: str


def head_of(file: BinaryIO) -> str:
    """Return the first lines of a file in UTF-8; all but the last are whole."""
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(file.read(_HEAD))
    lines: list[str] = []
    size = 0
    for line in io.StringIO(text, newline=None):
        size += len(line)
        if len(lines) == _LINES or (size > _CHARACTERS and len(lines) > 1):
            break
        lines.append(line)
    return "".join(lines)


def sniff_separator(head: str, default: str) -> str:
    """Return the separator of the columns; the default if the first line has none."""
    names = head.partition("\n")[0]
    if len(head) > _CHARACTERS:  # the sniffer's time grows with the square of a line's length
        found = max(_SEPARATORS, key=names.count)
    else:
        try:
            found = csv.Sniffer().sniff(head, delimiters=_SEPARATORS).delimiter
        except csv.Error:  # a single column
            return default
    return found if found in names else default


def sniff_decimal(head: str, separator: str) -> str:
    """Return the decimal sign: a comma if some number needs it and none needs a point.

    A number such as 1,234 has thousands, unless semicolons separate the columns.
    """
    fields = {field.strip() for row in _rows(head, separator) for field in row}
    commas = {field for field in fields if "," in field and has_style(field, EUROPEAN)}
    points = {field for field in fields if "." in field and has_style(field, PLAIN)}
    both = commas | points if separator == ";" else commas
    both = {field for field in both if has_style(field, EUROPEAN) and has_style(field, PLAIN)}
    commas_alone = commas if separator == ";" else commas - both
    return "," if commas_alone and not points - both else "."


def header(head: str, separator: str) -> list[str]:
    """Return the names in the first line; a column without one has a number, as in pandas."""
    return [name or f"Unnamed: {i}" for i, name in enumerate(next(_rows(head, separator), []))]


def read_delimited(file: BinaryIO, options: Options) -> pd.DataFrame:
    """Return the table in UTF-8 text whose first line has the names.

    In the columns ``texts`` only an empty field is a missing value. Raises ValueError, with the
    line's number, for a line of more or fewer fields than the first.
    """
    names = options.names
    try:
        frame = _parse(file, options)
        expected = (len(frame) + 1) * (len(names) - 1)
        separators, quotes, has_codes = _census(file, options.separator)
        if quotes or separators != expected:  # quotes may hold separators
            _read_strings(file, names[:1], options)
    except (pd.errors.ParserError, pd.errors.ParserWarning, pa.ArrowInvalid):
        _check_lines(file, options.separator)
        raise
    if has_codes:
        _restore_codes(frame, file, options)
    if options.decimal == ",":
        _convert_european(frame, options)
    return frame


def _census(file: BinaryIO, separator: str) -> tuple[int, int, bool]:
    """Return the counts of separators and quotes, and whether some field may be a code.

    Such a field begins with 0 and a digit, and is not a date or time.
    """
    file.seek(0)
    separators, quotes, has_codes, before = 0, 0, False, b"\n"
    for block in itertools.chain(iter(lambda: file.read(_BLOCK), b""), [b"\n"]):
        joined = before + block
        data = np.frombuffer(joined, dtype=np.uint8)
        begins = data == ord(separator)
        separators += int(np.count_nonzero(begins[len(before) :]))
        quotes += block.count(b'"')
        begins |= data == ord("\n")
        begins |= data == ord('"')
        found = begins[:-3] & (data[1:-2] == ord("0"))
        found &= data[2:-1] - np.uint8(ord("0")) < 10
        if found.any():
            has_codes |= not np.isin(data[3:][found], list(b".-/: ")).all()
        before = joined[-3:]
    return separators, quotes, has_codes


def _parse(file: BinaryIO, options: Options, *, low_memory: bool = True) -> pd.DataFrame:
    missing = {name: [""] if name in options.texts else [*MISSING] for name in options.names}
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # pandas only warns when it cuts a line longer than the first, or mixes types.
            warnings.simplefilter("error")
            return pd.read_csv(
                getattr(file, "name", file),  # by its path is a tenth faster
                sep=options.separator,
                decimal=options.decimal,
                index_col=False,
                encoding="utf-8",
                low_memory=low_memory,
                dtype=dict.fromkeys(options.texts, "str"),
                keep_default_na=False,
                na_values=missing if options.texts else [*MISSING],
            )
    except pd.errors.DtypeWarning:  # the blocks of a file differ in type: read it as one
        return _parse(file, options, low_memory=False)


def _read_strings(file: BinaryIO, names: Sequence[str], options: Options) -> pa.Table:
    """Return columns as strings; pyarrow refuses a line of more or fewer fields than the first."""
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


def _restore_codes(frame: pd.DataFrame, file: BinaryIO, options: Options) -> None:
    """Replace each column of integers that has a code such as 007 by its strings."""
    integers = [name for name in frame if _is_whole(frame[name])]
    if integers:
        strings = _read_strings(file, integers, options)
        for name, column in zip(integers, strings.columns, strict=True):
            if pc.any(pc.match_substring_regex(column, _CODE)).as_py():
                frame[name] = column.to_pandas()


def _is_whole(column: pd.Series) -> bool:
    """Whether a column holds integers, or integers and missing values."""
    has_missing = column.dtype.kind == "f" and column.hasnans
    return column.dtype.kind in "iu" or (has_missing and bool((column.dropna() % 1.0 == 0.0).all()))


def _convert_european(frame: pd.DataFrame, options: Options) -> None:
    """Replace each column of strings such as 1.234,5 by its numbers."""
    for name in frame:
        column = frame[name]
        first = column.head(100)  # mostly enough to decide
        if is_string(column) and name not in options.texts and _is_european(first, column):
            frame[name] = numbers(column, EUROPEAN)[0]


def _is_european(*columns: pd.Series) -> bool:
    strings = (string for column in columns for string in distinct(column)[0])
    return all(string is None or has_style(string.strip(), EUROPEAN) for string in strings)


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator)


def _check_lines(file: BinaryIO, separator: str) -> None:
    """Raise ValueError for the first line of more or fewer fields than the first."""
    file.seek(0)
    text = io.TextIOWrapper(file, "utf-8-sig", newline="")
    try:
        lines = csv.reader(text, delimiter=separator)
        names = next(lines, [])
        for fields in lines:
            # A blank line is not a row.
            if len(fields) != len(names) and "".join(fields).strip():
                raise ValueError(
                    f"line {lines.line_num} has {len(fields)} fields, but the first line has "
                    f"{len(names)}."
                )
    finally:
        text.detach()  # the caller closes the file
