"""The values of columns: strings, and the numbers and booleans that strings hold.

Each value is read by itself: its meaning never depends on other rows.
"""

import contextlib
import datetime
import decimal
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

# The attribute with the decimal sign of the file that a DataFrame was read from.
DECIMAL = "decimal"

# float64 holds every integer up to this one.
EXACT = 2**53

# A value of a column of strings: None is a missing one.
String: TypeAlias = str | None

# Words for a missing value: those that pandas finds in a file, and a few more.
MISSING_IN_FILES = (
    *("", "NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>", "NaN", "nan", "-NaN", "-nan"),
    *("NULL", "null", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
MISSING = (*MISSING_IN_FILES, "?", "-", "--", "...", "n.a.", "N.A.", "none")
_MISSING = frozenset(MISSING)
# (12) is -12 in accounts.
_PARENTHESES = re.compile(r"\(([^()]*)\)")
# A number that begins with a superfluous zero is a code, such as a postcode.
CODE = r"^0\d+$"
# An integer that may be beyond 2**53. Those that float64 cannot tell apart are codes, too.
LONG = r"^[-+]?\d{16,}$"
BOOLEANS = {"true": True, "false": False}
# The types of the values in a column of objects, by the kind that they make a column of.
_TYPES: dict[str, tuple[type, ...]] = {
    "strings": (str, uuid.UUID),
    "numbers": (bool, int, float, np.bool_, np.integer, np.floating, decimal.Decimal),
    "dates": (datetime.date, np.datetime64),
    "times": (datetime.time, datetime.timedelta, np.timedelta64),
}
_TIME = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")


class _Style(NamedTuple):
    """A way to write numbers: its pattern, the characters to remove, and the decimal sign."""

    number: re.Pattern[str]
    removed: re.Pattern[str]
    decimal: str


def _style(decimal: str, thousand: str) -> _Style:
    whole = rf"(?:[1-9]\d{{0,2}}(?:{thousand}\d{{3}})+|\d*)"
    number = rf"[-+]?[$€£¥]?\s?(?={decimal}?\d){whole}(?:{decimal}\d*)?(?:[eE][-+]?\d+)?\s?[%$€£¥]?"
    return _Style(re.compile(number), re.compile(rf"[$€£¥%\s]|{thousand}"), decimal[-1])


# The style of a column is the first that fits all its strings.
_STYLES = {
    "1,234.5": _style(r"\.", ","),
    "1.234,5": _style(",", r"\."),
    "1 234,5": _style(",", r"\s"),
    "1 234.5": _style(r"\.", r"\s"),
    "1'234.5": _style(r"\.", "['\u2019]"),
}
PLAIN, EUROPEAN, TIME = "1,234.5", "1.234,5", "hh:mm"
STYLES = (*_STYLES, TIME)
# The same styles with the other decimal sign.
OTHER_SIGN = {PLAIN: EUROPEAN, EUROPEAN: PLAIN, "1 234,5": "1 234.5", "1 234.5": "1 234,5"}


# Strings of another kind are odd cells, read as missing, if each stands beside more than so many
# different other strings. So 0 to 9 and "10+" stay a category, as do the codes of diseases of
# ICD-9, a tenth of which begin with a letter.
_BESIDE_ODD = 10


class CellError(ValueError):
    """A value of a column that cannot be used; ``row`` is its label in the column's index.

    The message is ``before``, the place of the cell in parentheses, and ``after``.
    """

    def __init__(self, before: str, after: str, row: int) -> None:
        super().__init__(before, after, row)  # all of them, so that it can be pickled
        self.before, self.after, self.row = before, after, row

    def __str__(self) -> str:
        return self.at(f"row {self.row}")

    def at(self, place: str) -> str:
        """Return the message about a cell at a place."""
        return f"{self.before} ({place}){self.after}"


@contextlib.contextmanager
def placed(place: Callable[[int], str]) -> Iterator[None]:
    """Turn a ``CellError`` into a ValueError with the place of its row, which ``place`` returns."""
    try:
        yield
    except CellError as error:
        raise ValueError(error.at(place(error.row))) from error


def is_string(column: pd.Series) -> bool:
    """Whether a plain column holds strings, also those of pandas' categories."""
    return isinstance(column.dtype, pd.StringDtype) or is_categorical(column)


def is_categorical(column: pd.Series) -> bool:
    """Whether a column is declared to hold categories."""
    return isinstance(column.dtype, pd.CategoricalDtype)


def kind_of(value: object) -> str | None:
    """Return ``strings``, ``numbers``, ``dates`` or ``times``, None for others, such as lists."""
    return next((kind for kind, types in _TYPES.items() if isinstance(value, types)), None)


def foreign(column: pd.Series) -> np.ndarray:
    """Return a mask of values of no kind, such as lists and bytes, which no column can use."""
    if column.dtype != object:
        return np.zeros(len(column), dtype=bool)
    return np.asarray(column.notna() & column.map(kind_of).isna(), dtype=bool)


def is_missing(string: String) -> bool:
    """Whether a string is a word for a missing value, or none."""
    return string is None or string.strip() in _MISSING


def distinct(column: pd.Series, *, keeps_words: bool = False) -> tuple[list[String], np.ndarray]:
    """Return the distinct strings of a column, and the index among them of each row.

    A word for a missing value is None, or with ``keeps_words`` itself. Reading a string is slow,
    and few strings are distinct.
    """
    rows, values = pd.factorize(column, use_na_sentinel=False)
    strings = [value if isinstance(value, str) and value.strip() else None for value in values]
    if not keeps_words:
        strings = [None if is_missing(string) else string for string in strings]
    return strings, rows


def decimal_of(data: pd.DataFrame | pd.Series) -> str | None:
    """Return the decimal sign of the file of text that data were read from, None if not known."""
    decimal = data.attrs.get(DECIMAL)
    return decimal if decimal in (".", ",") else None


def numbers(column: pd.Series, style: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return a column's numbers, a timedelta in seconds, and a mask of the other values.

    ``style`` is that of strings, as ``find_style`` returns it, by default that of their file. True
    is 1, as in a file's column of booleans.
    """
    style = style or style_with(decimal_of(column) or ".")
    if column.dtype.kind == "m":
        column = column.dt.total_seconds()
    if column.dtype.kind in "fiub":
        return column.to_numpy(), np.zeros(len(column), dtype=bool)
    if column.dtype == object:
        return _numbers_among(column, style)
    if not is_string(column):
        return np.full(len(column), np.nan), column.notna().to_numpy()
    strings, rows = distinct(column)
    values = np.asarray(
        [
            np.nan
            if string is None
            else BOOLEANS.get(string.strip().lower(), _number(string, style))
            for string in strings
        ],
        dtype="float64",
    )
    wrong = np.asarray([string is not None for string in strings], dtype=bool) & np.isnan(values)
    return values[rows], wrong[rows]


def _numbers_among(column: pd.Series, style: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of objects of several kinds, and a mask of the others, as ``numbers``."""
    kinds = column.map(kind_of)
    is_number, is_time = kinds == "numbers", kinds == "times"
    values, wrong = numbers(column.where(kinds == "strings").astype("str"), style)
    values[is_number] = column[is_number].astype("float64")
    values[is_time] = pd.to_timedelta(column[is_time].astype("str")).dt.total_seconds()
    return values, wrong | (kinds == "dates").to_numpy()


def find_style(
    strings: Sequence[String], decimal: str = ".", *, has_codes: bool = False
) -> str | None:
    """Return the style in which all strings are numbers or times of day, None without one.

    The options are those of ``find_style_of_most``.
    """
    found = find_style_of_most(strings, None, decimal, has_codes=has_codes)
    return found and found[0]


def are_odd(odd: int, others: int) -> bool:
    """Whether so few strings beside others are odd cells of a column."""
    return _BESIDE_ODD * odd < others


def find_odd(
    strings: Sequence[String], rows: Mapping[str, int] | None, are_others: Callable[[str], bool]
) -> tuple[str, ...] | None:
    """Return the distinct strings that are not like the others, None if they are not few.

    ``rows`` are the rows of each string, or those of a uniform sample of the rows, which can have
    further strings; None if no string may be odd. The odd ones are in less than half of the rows.
    """
    if rows is None:
        return () if all(string is None or are_others(string) for string in strings) else None
    odd, known = list[str](), {*strings} - {None}
    for string in strings:
        if string is None or are_others(string):
            continue
        odd.append(string)
        if not are_odd(len(odd), len(known) - len(odd)):
            return None
    odd += [string for string in rows if string not in known and not are_others(string)]
    return tuple(odd) if 2 * sum(rows.get(one, 0) for one in odd) < sum(rows.values()) else None


def find_style_of_most(
    strings: Sequence[String],
    rows: Mapping[str, int] | None,
    decimal: str = ".",
    *,
    has_codes: bool = False,
) -> tuple[str, tuple[str, ...]] | None:
    """Return the style in which all strings but a few are numbers, and these few; None without one.

    This decides whether strings are numbers. ``rows`` are those of ``find_odd``. ``decimal`` is the
    sign of their file, and decides what 1,234 means. The style is the one that leaves the fewest
    strings, the first of equal ones. Codes, such as 007, are numbers only with ``has_codes``.
    """
    if not has_codes and _have_codes({*strings, *(rows or ())}):
        return None
    found = list[tuple[str, tuple[str, ...]]]()
    for style in (style_with(decimal), *STYLES):
        odd = find_odd(strings, rows, partial(_is_number, style=style))
        if odd == ():
            return style, odd
        found += [] if odd is None else [(style, odd)]
    return min(found, key=lambda one: len(one[1]), default=None)


def _have_codes(strings: Iterable[String]) -> bool:
    present = [string.strip() for string in strings if string]
    long = {string.removeprefix("+") for string in present if re.search(LONG, string)}
    are_alike = len({float(string) for string in long}) < len(long)
    return are_alike or any(re.search(CODE, string) for string in present)


def as_numbers(column: pd.Series) -> pd.Series:
    """Return the numbers that the strings of a file hold, codes included; else the strings."""
    values, wrong = numbers(column)
    return column if wrong.any() else pd.Series(values, column.index, name=column.name)


def ambiguous(column: pd.Series) -> np.ndarray:
    """Return a mask of strings such as 1,234, whose number depends on an unknown decimal sign.

    A point is a decimal point, as Python writes numbers.
    """
    strings, rows = distinct(column)
    return np.asarray(np.asarray([_is_ambiguous(one or "") for one in strings], dtype=bool)[rows])


def _is_ambiguous(string: str) -> bool:
    one, other = (_number(string, style) for style in (PLAIN, EUROPEAN))
    return "," in string and not np.isnan(one + other) and one != other


def with_decimal(column: pd.Series, decimal: str | None) -> pd.Series:
    """Return a column whose strings have this decimal sign in numbers, if their file has another.

    The points and the commas of a number change places.
    """
    own = decimal_of(column)
    if column.dtype != "str" or own is None or decimal in (None, own):
        return column
    strings, rows = distinct(column, keeps_words=True)
    style, swapped = style_with(own), str.maketrans(".,", ",.")
    strings = [one.translate(swapped) if one and _is_number(one, style) else one for one in strings]
    values = [strings[row] for row in rows]
    return pd.Series(values, column.index, column.dtype, name=column.name)


def style_with(decimal: str) -> str:
    """Return the style of single numbers in a file with this decimal sign."""
    return EUROPEAN if decimal == "," else PLAIN


def has_style(string: str, style: str) -> bool:
    """Whether a string is a number of this style."""
    return _STYLES[style].number.fullmatch(string) is not None


def _is_number(string: str, style: str) -> bool:
    return not np.isnan(_number(string, style))


def _number(string: str, style: str) -> float:
    """Return the number that a string holds, NaN for anything else."""
    if style == TIME:
        return _seconds(string)
    pattern, removed, decimal = _STYLES[style]
    string = _PARENTHESES.sub(r"-\1", string.strip())
    if pattern.fullmatch(string):
        return float(removed.sub("", string).replace(decimal, "."))
    if "_" in string or (style != PLAIN and re.search(r"\d", string)):
        return np.nan
    try:
        return float(string)  # inf, in each style
    except ValueError:
        return np.nan


def _seconds(string: str) -> float:
    """Return the seconds of 12:30 or 12:30:15.5 since midnight."""
    match = _TIME.fullmatch(string.strip())
    if match is None:
        return np.nan
    hours, minutes, seconds = match.groups(default="0")
    return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)


def as_strings(column: pd.Series, *, of_numbers: bool = False) -> pd.Series:
    """Return a column as strings: a DataFrame may hold numbers where training had strings.

    With ``of_numbers`` it may hold booleans or strings where training had numbers: ``3.0`` is 3,
    and ``True`` is 1. Strings of integers beyond 2**53 stay as they are.
    """
    if column.dtype == object:
        column = column.map(_without_midnight, na_action="ignore").astype("str")
    if of_numbers and (column.dtype.kind == "b" or is_string(column)):
        values = pd.Series(numbers(column)[0], column.index, dtype="float64")
        written = as_strings(values)
        return written.where(values.abs() < EXACT, column.astype("str"))
    if column.dtype.kind == "f":  # 3, not 3.0; a negative zero is 0
        column = column.map(
            lambda x: f"{x + 0.0:.0f}" if x.is_integer() else str(x), na_action="ignore"
        )
    if column.dtype.kind in "mM":  # pandas writes midnights as dates if all are midnights
        column = column.map(_without_midnight, na_action="ignore")
    return column if is_string(column) else column.astype("str")


def _without_midnight(value: object) -> str:
    return str(value).removesuffix(" 00:00:00")


def has_numbers(strings: Sequence[String]) -> bool:
    """Whether all strings are numbers as ``as_strings`` writes them, such as 3, but not 3.0."""
    present = pd.Series([string for string in strings if string is not None], dtype="str")
    values, _ = numbers(present)
    is_written = as_strings(present, of_numbers=True) == present
    return bool(len(present) and (np.abs(values) < EXACT).all() and is_written.all())


def booleans(column: pd.Series) -> pd.Series | None:
    """Return the booleans that a column's strings hold; None if one is something else."""
    strings, rows = distinct(column)
    values = [string and BOOLEANS.get(string.strip().lower(), string) for string in strings]
    if any(isinstance(value, str) for value in values):
        return None
    return pd.Series([values[row] for row in rows], column.index, dtype=object, name=column.name)
