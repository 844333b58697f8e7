"""Delimited text, such as CSV: detection of separator and decimal sign, and types of columns.

pyarrow reads strings, and refuses lines that are too short. Each column is then cast to numbers,
unless it has a code such as 007.
"""

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from backprop_xp.tables.readers.cells import (
    BOOLEANS,
    CODE,
    EUROPEAN,
    LONG,
    MISSING,
    MISSING_IN_FILES,
    PLAIN,
    distinct,
    find_style,
    has_style,
    numbers,
)

_SEPARATORS = ",;\t|"
# The lines behind the names that are sniffed: so many, and one more than hold these characters.
_LINES, _CHARACTERS = 50, 2**15
# Bytes that hold these lines of a wide table too.
_HEAD = 2**22
# The size of pyarrow's blocks, and so of the longest line; the second is for files with a line too
# long for the first. A process that read 193 MB took 203 MB of memory with one, 395 with the other.
_LONGEST = (2**21, 2**24)
# The cases of a boolean's word.
_FORMS = str.title, str.upper, str.lower
# Fields of a column that are tried before all of them.
_SAMPLE = 100
_BOOLEANS = pa.array([None, *(form(word) for word in BOOLEANS for form in _FORMS)])


# Opens the text of a file, in UTF-8.
Opener: TypeAlias = Callable[[], contextlib.AbstractContextManager[pa.NativeFile]]


def head_of(file: pa.NativeFile) -> str:
    """Return the first lines of a file in UTF-8; all but the last are whole."""
    data = file.read(_HEAD)
    if b"\0" in data:
        raise ValueError(
            "it is not text in UTF-8: if it is a text file, give its encoding, for example "
            "--encoding utf-16."
        )
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(data)
    lines = io.StringIO(text.lstrip("\r\n"), newline=None)
    return lines.readline() + "".join(lines.readlines(_CHARACTERS)[:_LINES])


def declared_separator(head: str) -> str | None:
    """Return the separator in a first line such as ``sep=;``, which is Excel's, or None."""
    match = re.match(r"sep=([!-~\t])\n", head)
    return match and match[1]


@contextlib.contextmanager
def without_declaration(opener: Opener) -> Iterator[pa.NativeFile]:
    """Provide a file in UTF-8 with a blank line in place of ``sep=;``: lines keep their numbers."""
    with opener() as file:
        file.read(5 if file.read(3) == codecs.BOM_UTF8 else 2)
        yield file


def sniff_separator(head: str, default: str) -> str:
    """Return the separator of most fields in the first line; the default if there is one field.

    Separators that give all lines the same number of fields come first.
    """

    def fit(separator: str) -> tuple[bool, int]:
        first, *others = [len(fields) for fields in _rows(head, separator)] or [0]
        return first > 1 and {first} >= {*others}, first

    return max(default + _SEPARATORS, key=fit)


def sniff_decimal(head: str, separator: str, fallback: str | None = None) -> str:
    """Return the decimal sign: a comma if some number needs it and none needs a point.

    Without such a number, or with numbers of both signs, it is ``fallback``. By default a number
    such as 1,234 has thousands, unless semicolons separate the columns.
    """
    fields = {field.strip() for row in _rows(head, separator) for field in row}
    commas = {field for field in fields if "," in field and has_style(field, EUROPEAN)}
    points = {field for field in fields if "." in field and has_style(field, PLAIN)}
    both = commas | points if separator == ";" or fallback == "," else commas
    both = {field for field in both if has_style(field, EUROPEAN) and has_style(field, PLAIN)}
    needs_comma, needs_point = bool(commas - both), bool(points - both)
    if needs_comma != needs_point:
        return "," if needs_comma else "."
    return fallback or ("," if separator == ";" and commas and not needs_point else ".")


def header(head: str, separator: str) -> list[str]:
    """Return the names in the first line; a column without one has a number, as in pandas."""
    return [name or f"Unnamed: {i}" for i, name in enumerate(next(_rows(head, separator), []))]


def batches(opener: Opener, schema: pa.Schema, separator: str) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file whose first line has the names, as strings.

    Only an empty field is a missing value. Raises ValueError, with the line's number, for a line of
    more or fewer fields than the first.
    """
    end, last = 1, None  # of the rows so far: the names are the first one
    for longest in _LONGEST:
        start = 0
        try:
            with opener() as file, _reader(file, len(schema), separator, longest) as reader:
                for batch in reader:
                    rows, start = batch.slice(max(end - start, 0)), start + len(batch)
                    if rows.num_rows:
                        end, last = start, rows.columns[-1][-1].as_py()
                        yield pa.RecordBatch.from_arrays(rows.columns, schema=schema)
            break
        except pa.ArrowInvalid as error:
            _check_lines(opener, separator)
            reason = error
    else:
        raise ValueError(
            f"{reason} (is a quote open, or a line longer than {longest >> 20} MB?)"
        ) from reason
    if last and "\n" in last:
        _require_closed_quote(opener, last)


def _reader(
    file: pa.NativeFile, n: int, separator: str, longest: int
) -> arrow_csv.CSVStreamingReader:
    """Return a reader of n columns; it raises ArrowInvalid for a line of more or fewer fields."""
    return arrow_csv.open_csv(
        file,
        read_options=arrow_csv.ReadOptions(
            use_threads=False, block_size=longest, autogenerate_column_names=True
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=separator,
            newlines_in_values=True,
            invalid_row_handler=lambda row: "error" if row.text.strip() else "skip",
        ),
        convert_options=arrow_csv.ConvertOptions(
            column_types={f"f{i}": pa.string() for i in range(n)},
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def _require_closed_quote(opener: Opener, last: str) -> None:
    """Raise ValueError if a quote is open at the end: the last field holds the lines behind it."""
    end = b""
    with opener() as file:
        while data := file.read(_HEAD):
            end = data.rstrip() or end
    if not end.endswith(b'"'):
        raise ValueError(f"EOF inside string: a quote before {last[:20]!r} is not closed.")


def typed(table: pa.Table, texts: Collection[str], decimal: str) -> pd.DataFrame:
    """Return columns of strings as numbers or booleans, but those named in ``texts``."""
    columns = [
        strings.to_pandas() if name in texts else _convert(strings, decimal)
        for name, strings in zip(table.column_names, table.columns, strict=True)
    ]
    return pd.DataFrame(dict(enumerate(columns))).set_axis(table.column_names, axis=1)


def _convert(strings: pa.ChunkedArray, decimal: str) -> pd.Series:
    """Return a column's integers, floating numbers or booleans, otherwise its strings."""
    found = _cast(strings, decimal)
    if found is None:
        found = _cast(pc.utf8_trim_whitespace(_without(MISSING, strings)), decimal)
    if found is not None:
        return found.to_pandas()
    column = _without(MISSING_IN_FILES, strings).to_pandas()
    if decimal == "," and all(
        find_style(distinct(part)[0], decimal) == EUROPEAN
        for part in (column.head(_SAMPLE), column)
    ):
        return pd.Series(numbers(column, EUROPEAN)[0])
    return column


def _without(words: Sequence[str], strings: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return strings with a missing value in place of some words."""
    is_word = pc.is_in(strings, value_set=pa.array(words))
    return pc.if_else(is_word, pa.scalar(None, pa.string()), strings)


def _cast(words: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray | None:
    """Return the numbers or booleans that words hold; None if one is something else, or a code."""
    if decimal == ",":
        if pc.any(pc.match_substring(words, ".")).as_py():  # thousands, or another style
            return None
        words = pc.replace_substring(words, ",", ".")
    for kind in (pa.int64(), pa.uint64(), pa.float64()):
        with contextlib.suppress(pa.ArrowInvalid):
            pc.cast(words[:_SAMPLE], kind)  # mostly enough to fail
            found = pc.cast(words, kind)
            zeros = words.filter(pc.starts_with(words, "0"))
            codes = pc.match_substring_regex(zeros, f"{CODE}|^0[xX]")  # 0x1F is cast, too
            long = pc.unique(words.filter(pc.match_substring_regex(words, LONG)))
            held = pa.float64() if words.null_count else kind  # pandas' integers are never missing
            are_alike = pc.count_distinct(pc.cast(long, held)).as_py() < len(long)
            return None if are_alike or pc.any(codes).as_py() else found
    is_boolean = pc.is_in(words, value_set=_BOOLEANS)
    return pc.cast(words, pa.bool_()) if pc.all(is_boolean).as_py() else None


def _rows(text: str, separator: str) -> Iterator[list[str]]:
    """Yield the rows that are not blank, before a field that is too long for Python's reader."""
    with contextlib.suppress(csv.Error):
        yield from filter(None, csv.reader(io.StringIO(text, newline=""), delimiter=separator))


def _numbered(opener: Opener, separator: str) -> Iterator[tuple[int, int, list[str]]]:
    """Yield the first and the last line of each record that is not blank, and its fields.

    They end before a field that is too long for Python's reader.
    """
    with opener() as file, contextlib.suppress(csv.Error):
        lines = csv.reader(io.TextIOWrapper(file, "utf-8-sig", newline=""), delimiter=separator)
        names, end = 0, 0
        for fields in lines:
            start, end = end + 1, lines.line_num
            names = names or len(fields)
            # A blank line has no fields, or only space: a line of commas is not blank.
            if len(fields) == names > 0 or (fields and not separator.join(fields).isspace()):
                yield start, end, fields


def _check_lines(opener: Opener, separator: str) -> None:
    """Raise ValueError for the first line of more or fewer fields than the first."""
    count = 0
    for _, end, fields in _numbered(opener, separator):
        count = count or len(fields)
        if len(fields) != count:
            raise ValueError(
                f"line {end} has {len(fields)} fields, but the first line has {count}."
            )


def line_of(opener: Opener, separator: str, row: int) -> int | None:
    """Return the line in which a row begins, None behind a field that is too long to be read."""
    for start, _, _ in itertools.islice(_numbered(opener, separator), row + 1, None):
        return start
    return None
