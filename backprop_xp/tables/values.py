"""What the values of a column are: numbers and texts, however they are written.

Each value is judged by itself: what a row is predicted from never depends on the other rows.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

# Texts that stand for nothing: those that pandas and skrub take for it, and a few more.
MISSING = (
    *("", "?", "-", "--", "...", "NA", "N/A", "n/a", "n.a.", "N.A.", "#NA", "#N/A", "#N/A N/A"),
    *("<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "none"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
_NOTHING = frozenset(MISSING)
# (12) is -12 in accounts.
_PARENTHESES = re.compile(r"\(([^()]*)\)")
# A number that begins with a superfluous zero is a code, such as a postcode.
_CODE = re.compile(r"0\d+")
_TIME = re.compile(r"(\d{1,3}):([0-5]\d)(?::([0-5]\d(?:\.\d+)?))?")


def _written_with(decimal: str, thousand: str) -> tuple[re.Pattern[str], re.Pattern[str], str]:
    """Return a pattern of such numbers, one of what is none of their digits, and the decimal."""
    whole = rf"(?:[1-9]\d{{0,2}}(?:{thousand}\d{{3}})+|\d*)"
    number = rf"[-+]?[$€£¥]?\s?(?=\D?\d){whole}(?:{decimal}\d*)?(?:[eE][-+]?\d+)?\s?[%$€£¥]?"
    return re.compile(number), re.compile(rf"[$€£¥%\s]|{thousand}"), decimal[-1]


# How people write numbers; the first that fits a column is its style.
_STYLES = {
    "1,234.5": _written_with(r"\.", ","),
    "1.234,5": _written_with(",", r"\."),
    "1 234,5": _written_with(",", r"\s"),
    "1 234.5": _written_with(r"\.", r"\s"),
    "1'234.5": _written_with(r"\.", "['\u2019]"),
}
PLAIN, EUROPEAN, TIME = "1,234.5", "1.234,5", "hh:mm"


def is_text(column: pd.Series) -> bool:
    """Whether a plain column holds texts."""
    return isinstance(column.dtype, pd.StringDtype)


def distinct(column: pd.Series) -> tuple[list[str | None], np.ndarray]:
    """Return the different texts of a column, None for what is missing, and which one a row has.

    Few texts are different, and to read one takes long.
    """
    places: dict[Any, int] = {}
    rows = [places.setdefault(value, len(places)) for value in column.tolist()]
    texts = [None if _is_nothing(value) else value for value in places]
    return texts, np.asarray(rows, dtype=np.intp)


def _is_nothing(value: Any) -> bool:
    return not isinstance(value, str) or value.strip() in _NOTHING


def numbers(column: pd.Series, style: str = PLAIN) -> tuple[np.ndarray, np.ndarray]:
    """Return a column's numbers, a timedelta in seconds, and where there is something else.

    ``style`` is how texts write them, one of ``find_style``: with thousands, a currency or percent
    sign, parentheses for a minus.
    """
    if column.dtype.kind == "m":
        column = column.dt.total_seconds()
    if column.dtype.kind in "fiub":
        return column.to_numpy(), np.zeros(len(column), dtype=bool)
    if not is_text(column):
        return np.full(len(column), np.nan), column.notna().to_numpy()
    texts, rows = distinct(column)
    read = _reader(style)
    found = np.asarray([np.nan if text is None else read(text) for text in texts])
    wrong = np.asarray([text is not None for text in texts]) & np.isnan(found)
    return found[rows], wrong[rows]


def find_style(texts: Sequence[str | None], decimal: str = ".") -> str | None:
    """Return how all of these texts write a number, or a time of day; None where one does not.

    ``decimal`` is that of their file: it tells what 1,234 is.
    """
    given = [text for text in texts if text is not None]
    if any(_CODE.fullmatch(text.strip()) for text in given):
        return None
    first = EUROPEAN if decimal == "," else PLAIN
    return next((style for style in (first, *_STYLES, TIME) if _all_read(given, style)), None)


def _all_read(texts: list[str], style: str) -> bool:
    read = _reader(style)
    return all(not np.isnan(read(text)) for text in texts)


def is_written(text: str, style: str) -> bool:
    """Whether a text is a number of this style."""
    return _STYLES[style][0].fullmatch(text) is not None


def _reader(style: str) -> Callable[[str], float]:
    """Return the function that reads one number, NaN for something else."""
    if style == TIME:
        return _seconds
    pattern, others, decimal = _STYLES[style]

    def read(text: str) -> float:
        text = _PARENTHESES.sub(r"-\1", text.strip())
        if pattern.fullmatch(text):
            return float(others.sub("", text).replace(decimal, "."))
        if style != PLAIN or "_" in text:
            return np.nan
        try:
            return float(text)  # inf
        except ValueError:
            return np.nan

    return read


def _seconds(text: str) -> float:
    """Return the seconds of 12:30 or 12:30:15.5 since midnight."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return np.nan
    hours, minutes, seconds = match.groups(default="0")
    return 3600.0 * int(hours) + 60.0 * int(minutes) + float(seconds)


def as_texts(column: pd.Series) -> pd.Series:
    """Return a column as texts: a frame may have numbers where training rows had texts."""
    if column.dtype.kind == "f":  # 3, not 3.0
        column = column.map(lambda x: f"{x:.0f}" if x.is_integer() else str(x), na_action="ignore")
    texts: pd.Series = column if is_text(column) else column.astype("str")
    return texts


def booleans(column: pd.Series) -> pd.Series | None:
    """Return a column's booleans, also those written as texts; None for something else."""
    texts, rows = distinct(column)
    known = {None: None, "true": True, "false": False}
    found = [text and text.strip().lower() for text in texts]
    if not known.keys() >= set(found):
        return None
    values = [known[found[row]] for row in rows]
    return pd.Series(values, column.index, dtype=object, name=column.name)
