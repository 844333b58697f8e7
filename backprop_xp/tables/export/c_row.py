"""A row of a table in C: the struct with a field for each column, and literals of rows."""

import re
from collections.abc import Iterator, Mapping

import pandas as pd

from backprop_xp.files.c_export.c_source import in_comment
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.readers.cells import CellError

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
# The types of fields by those of exported values.
_TYPES = {"float64": "double", "int64": "long long", "utf8": "const char *"}
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
        fields[name] = (_TYPES[column.exported_type], field)
    return fields


def row_lines(name: str, model: TabularModel) -> Iterator[str]:
    """Yield the lines of the type of a row, and a comment on the classes."""
    columns = model.features.columns
    yield from [*_MEANING, "typedef struct {"]
    for column, (kind, field) in fields_of(columns).items():
        unit = columns[column].unit
        note = ascii(column) + (unit and f", {unit}")
        yield f"    {kind}{' ' * (kind[-1] != '*')}{field}; /* {in_comment(note)} */"
    yield from [f"}} {name}_row;", ""]
    if model.classes is not None:
        classes = ", ".join(
            f"{i}: {in_comment(ascii(c))}" for i, c in enumerate(model.classes.tolist())
        )
        yield from [f"/* The classes by their indices: {classes}. */", ""]


def rows_in_c(model: TabularModel, frame: pd.DataFrame) -> list[str]:
    """Return the literals of the rows of a plain table, fields in the order of the columns.

    Raises ValueError for values that the fields cannot hold.
    """
    try:
        cells = [one.literals_in_c(frame[name]) for name, one in model.features.columns.items()]
    except CellError as error:
        raise ValueError(f"test: {error}") from error
    return [f"{{{', '.join(row)}}}" for row in zip(*cells, strict=True)]
