"""One column as features: what was learnt of it from training rows, and what it makes of rows.

All that is learnt is plain: names, numbers and arrays. Nothing of it needs skrub; texts need
scikit-learn.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.tables.dates import in_utc, read_dates, split_dates
from backprop_xp.tables.values import PLAIN, as_texts, distinct, numbers

# The range of integers that float64 has all of.
_EXACT = 2**53
# The format of texts where training had dates.
_UNTOLD = ("ISO8601",)


@dataclass(frozen=True)
class Number:
    """A number, float64.

    ``style`` is how texts wrote it, None where they were numbers; ``origin`` is subtracted from
    integers that float64 cannot tell apart.
    """

    style: str | None = None
    origin: int = 0
    kind: ClassVar[str] = "number"
    arrays: ClassVar[tuple[str, ...]] = ()
    is_scaled: ClassVar[bool] = True
    width: ClassVar[int] = 1

    @property
    def is_written(self) -> bool:
        """Whether a file's texts have to be read as they are written."""
        return self.style is not None


@dataclass(frozen=True)
class Date:
    """A date, float64: the formats of its texts, none where they were dates, and its parts."""

    formats: tuple[str, ...]
    parts: tuple[str, ...]
    kind: ClassVar[str] = "date"
    arrays: ClassVar[tuple[str, ...]] = ()
    is_scaled: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return len(self.parts)

    @property
    def is_written(self) -> bool:
        """Whether a file's texts have to be read as they are written."""
        return bool(self.formats)


@dataclass(frozen=True)
class Category:
    """A 0 or 1 for each of the values, float32; None is a missing one."""

    values: tuple[str | None, ...]
    kind: ClassVar[str] = "category"
    arrays: ClassVar[tuple[str, ...]] = ()
    is_scaled: ClassVar[bool] = False
    is_written: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return len(self.values)


@dataclass(frozen=True, eq=False)
class Text:
    """Coordinates of a latent semantic analysis of groups of 3 and 4 letters, float32.

    ``pieces`` are the groups, ``idf`` their inverse document frequencies, ``axes``
    ``(pieces, width)``.
    """

    pieces: tuple[str, ...]
    idf: np.ndarray
    axes: np.ndarray
    kind: ClassVar[str] = "text"
    arrays: ClassVar[tuple[str, ...]] = ("idf", "axes")
    is_scaled: ClassVar[bool] = False
    is_written: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return int(self.axes.shape[1])

    @cached_property
    def vectorizer(self) -> Any:
        """What counts the groups of letters."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes two seconds

        known = {piece: i for i, piece in enumerate(self.pieces)}
        made = TfidfVectorizer(vocabulary=known, ngram_range=(3, 4), analyzer="char_wb")
        made.idf_ = self.idf
        return made


Column: TypeAlias = Number | Date | Category | Text
KINDS: dict[str, type[Column]] = {one.kind: one for one in (Number, Date, Category, Text)}


def encoded(column: pd.Series, learnt: Column) -> np.ndarray:
    """Return what a column becomes, ``(rows, width)``: numbers and dates in float64, else float32.

    Raises ValueError for the first value that should be a number or a date and is none.
    """
    found: np.ndarray = _ENCODERS[learnt.kind](column, learnt)
    return found


def _number(column: pd.Series, learnt: Number) -> np.ndarray:
    values, wrong = numbers(column, learnt.style or PLAIN)
    _refuse(column, wrong, learnt.kind)
    found: np.ndarray = subtracted(values, learnt.origin)[:, None]
    return found


def origin_of(values: pd.Series) -> int:
    """Return the least of integers that float64 cannot tell apart, else 0."""
    least, most = int(values.min()), int(values.max())
    return least if max(-least, most) > _EXACT else 0


def subtracted(values: np.ndarray, origin: int) -> np.ndarray:
    """Return numbers less an origin in float64: differences of large integers keep their digits."""
    if values.dtype.kind not in "iu" or not origin:
        plain: np.ndarray = values.astype("float64") - origin
        return plain
    high, low = np.divmod(values, 2**32)
    highest, lowest = divmod(origin, 2**32)
    found: np.ndarray = (high.astype("float64") - highest) * 2.0**32 + (low - lowest)
    return found


def _date(column: pd.Series, learnt: Date) -> np.ndarray:
    if column.dtype.kind == "M":
        return split_dates(in_utc(column), learnt.parts)
    texts, rows = _texts(column)
    dates = read_dates(texts, learnt.formats or _UNTOLD)
    wrong = np.asarray([text is not None for text in texts]) & np.isnat(dates)
    _refuse(column, wrong[rows], learnt.kind)
    found: np.ndarray = split_dates(dates, learnt.parts)[rows]
    return found


def _refuse(column: pd.Series, wrong: np.ndarray, kind: str) -> None:
    if wrong.any():
        row = wrong.argmax()
        raise ValueError(
            f"the column {str(column.name)!r} has {column.iloc[row]!r} (row {column.index[row]}), "
            f"but a {kind} is expected, as in training: correct it, or leave it empty."
        )


def _category(column: pd.Series, learnt: Category) -> np.ndarray:
    texts, rows = _texts(column)
    known = {value: i for i, value in enumerate(learnt.values)}
    found = np.zeros((len(texts), learnt.width), dtype=np.float32)
    for i, text in enumerate(texts):
        if text in known:
            found[i, known[text]] = 1.0
    out: np.ndarray = found[rows]
    return out


def _text(column: pd.Series, learnt: Text) -> np.ndarray:
    texts, rows = _texts(column)
    counted = learnt.vectorizer.transform([text or "" for text in texts]).astype(np.float32)
    found: np.ndarray = np.asarray(counted @ learnt.axes, dtype=np.float32)[rows]
    return found


def _texts(column: pd.Series) -> tuple[list[str | None], np.ndarray]:
    return distinct(as_texts(column))


_ENCODERS: dict[str, Callable[[pd.Series, Any], np.ndarray]] = {
    "number": _number,
    "date": _date,
    "category": _category,
    "text": _text,
}
