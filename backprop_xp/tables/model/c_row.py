"""A row of a table in C: the struct with a field for each column, and literals of rows."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.files.c_export.c_source import in_comment, literal
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.date import Date
from backprop_xp.tables.columns.number import Number
from backprop_xp.tables.model.fitted_model import TabularModel

# Words of C and C++ that cannot be the name of a field, and macros of headers and of GNU C.
_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl complex concept const const_cast consteval
constexpr constinit continue decltype default delete do double dynamic_cast else enum errno
explicit export extern false far float for friend goto i386 if imaginary inline int linux long
mutable namespace near new noexcept noreturn not not_eq nullptr operator or or_eq private
protected public register reinterpret_cast requires restrict return short signed sizeof static
static_assert static_cast struct switch template this thread_local throw true try typedef typeid
typename typeof typeof_unqual union unix unsigned using virtual void volatile wchar_t while xor
xor_eq
"""
_RESERVED = frozenset(_WORDS.split())
_MEANING = """\
/* Missing values are NAN, NULL or "", and for a date LLONG_MIN of <limits.h>. A boolean is 0 or 1,
 * a time of day or a timedelta is in seconds. Strings are UTF-8; an unknown one is no error. */
""".splitlines()


def fields_of(columns: Mapping[str, Column]) -> dict[str, tuple[str, str]]:
    """Return the type and the name in C of the field of each column."""
    fields, taken = dict[str, tuple[str, str]](), {*_RESERVED}
    for name, column in columns.items():
        word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        word = word if word[:1].isalpha() else f"column_{word}".rstrip("_")
        field, i = word, 1
        while field in taken:
            i += 1
            field = f"{word}_{i}"
        taken.add(field)
        is_integer = isinstance(column, Date) or (isinstance(column, Number) and column.origin)
        kind = "long long" if is_integer else "double"
        fields[name] = ("const char *" if isinstance(column, Category) else kind, field)
    return fields


def row_lines(name: str, model: TabularModel) -> Iterator[str]:
    """Yield the lines of the type of a row, and a comment on the classes."""
    columns = model.features.columns
    yield from [*_MEANING, "typedef struct {"]
    for column, (kind, field) in fields_of(columns).items():
        note = ascii(column) + _unit(columns[column])
        yield f"    {kind}{' ' * (kind[-1] != '*')}{field}; /* {in_comment(note)} */"
    yield from [f"}} {name}_row;", ""]
    if model.classes is not None:
        classes = ", ".join(
            f"{i}: {in_comment(ascii(c))}" for i, c in enumerate(model.classes.tolist())
        )
        yield from [f"/* The classes by their indices: {classes}. */", ""]


def _unit(column: Column) -> str:
    """Return what the numbers of a column count, as the end of a comment; "" for its own unit."""
    if not isinstance(column, Date):
        return ""
    return f", microseconds since 1970{'' if column.zone is None else f' in {column.zone}'}"


def rows_in_c(model: TabularModel, frame: pd.DataFrame) -> list[str]:
    """Return the literals of the rows of a plain table, fields in the order of the columns.

    Raises ValueError for values that the fields cannot hold.
    """
    cells = [_cells(name, column, frame[name]) for name, column in model.features.columns.items()]
    return [f"{{{', '.join(row)}}}" for row in zip(*cells, strict=True)]


def _cells(name: str, column: Column, given: pd.Series) -> list[str]:
    """Return the literals of a column's values."""
    match column:
        case Category():
            strings = ["" if pd.isna(one) else str(one) for one in column.strings(given)]
            _refuse(name, ["\0" in one for one in strings], "a NUL, which ends a string in C")
            return [string_in_c(one) for one in strings]
        case Date():
            values = column.times(given)
        case Number():
            values = column.numbers(given)
            is_integer = values.dtype.kind in "iu"
            wrong = (values > 2**63 - 1) if is_integer else np.full(len(values), True)
            _refuse(name, wrong & (column.origin != 0), "no integer below 2**63")
            values = values.astype("int64" if column.origin else "float64")
    return [literal(one, values.dtype) for one in values]


def _refuse(name: str, wrong: Any, what: str) -> None:
    if np.any(wrong):
        row = int(np.argmax(wrong))
        raise ValueError(f"test: the column {name!r} has in row {row} {what}: leave this row out.")


def string_in_c(text: str) -> str:
    """Return a string in C: UTF-8, in escapes where a compiler could read other characters."""
    plain = re.compile(rb"[ !#->@-\[\]-~]")
    letters = (bytes([byte]) for byte in text.encode())
    return '"' + "".join(b.decode() if plain.match(b) else f"\\{b[0]:03o}" for b in letters) + '"'
