"""The kinds of columns: values learnt from training rows, and the features made from them.

A kind stores plain names, numbers and arrays. Only ``Text`` needs scikit-learn. Each kind has:

- ``width``, the number of features, and ``names(name)``, their names for a column of this name;
- ``is_scaled``, whether they are numbers to scale;
- ``from_strings``, whether a file's column must be read as strings;
- ``encode(column)``, the features ``(rows, width)``; ValueError for a value of another kind.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import plain
from backprop_xp.tables.columns.dates import (
    in_utc,
    on_clock,
    read_dates,
    split_dates,
    strings_on_clock,
)
from backprop_xp.tables.readers.values import (
    CellError,
    as_strings,
    distinct,
    is_missing,
    numbers,
    style_in_file,
)

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer

# float64 holds every integer in this range.
_EXACT = 2**53
# The options of scikit-learn's vectorizer: groups of 3 and 4 letters within words.
LETTERS: dict[str, Any] = {"ngram_range": (3, 4), "analyzer": "char_wb"}


@dataclass(frozen=True)
class Number:
    """A number: one feature, float64.

    ``style`` is that of strings, None for numbers. ``origin`` is subtracted from integers that
    float64 cannot tell apart.
    """

    style: str | None = None
    origin: int = 0
    kind: ClassVar[str] = "number"
    is_scaled: ClassVar[bool] = True
    width: ClassVar[int] = 1

    @property
    def from_strings(self) -> bool:
        return self.style is not None

    def names(self, name: str) -> list[str]:
        return [name]

    def encode(self, column: pd.Series) -> Array:
        values, wrong = numbers(column, self.style or style_in_file(column))
        _refuse(column, wrong, self.kind)
        return subtract(values, self.origin)[:, None]


@dataclass(frozen=True)
class Date:
    """A date: its parts, float64. ``formats`` are those of strings, none for dates.

    Dates with a time zone or an offset are read on the clock of ``zone``, or without one on their
    own.
    """

    formats: tuple[str, ...]
    parts: tuple[str, ...]
    zone: str | None = None
    kind: ClassVar[str] = "date"
    is_scaled: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.zone is not None:
            try:
                pd.DatetimeTZDtype(tz=self.zone)
            except (KeyError, OSError):  # OSError: a name of another file, or a very long one
                zone = self.zone[:80]
                raise ValueError(f"the time zone {zone!r} of dates is not known here.") from None

    @property
    def width(self) -> int:
        return len(self.parts)

    @property
    def from_strings(self) -> bool:
        return bool(self.formats)

    def names(self, name: str) -> list[str]:
        return [f"{name} {part}" for part in self.parts]

    def encode(self, column: pd.Series) -> Array:
        _, shown = self.read(column)
        return split_dates(shown.astype("datetime64[us]").view("int64"), self.parts)

    def read(self, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the dates of a column in UTC, and as the clock shows them."""
        if column.dtype.kind == "M":
            return in_utc(column), on_clock(column, self.zone)
        strings, rows = distinct(as_strings(column))
        dates = read_dates(strings, self.formats or ("ISO8601",))
        present = np.asarray([string is not None for string in strings])
        _refuse(column, (present & np.isnat(dates))[rows], self.kind)
        return dates[rows], strings_on_clock(strings, dates, self.zone)[rows]


@dataclass(frozen=True)
class Category:
    """A category: a 0 or 1 for each of the values, float32; None is the missing value.

    With ``is_code`` it is one feature, the index of the value, for an embedding.
    """

    values: tuple[str | None, ...]
    is_code: bool = False
    kind: ClassVar[str] = "category"
    is_scaled: ClassVar[bool] = False
    from_strings: ClassVar[bool] = True

    @property
    def width(self) -> int:
        return 1 if self.is_code else len(self.values)

    def names(self, name: str) -> list[str]:
        values = ["missing" if value is None else value for value in self.values]
        return [name] if self.is_code else [f"{name}={value}" for value in values]

    def encode(self, column: pd.Series) -> Array:
        """Return the features of a column: all 0 for a value that training did not have.

        The code of such a value is the number of the values of training. A word for a missing value
        is one, unless it is a value of training.
        """
        strings, rows = distinct(as_strings(column), keeps_words=True)
        indices = {value: i for i, value in enumerate(self.values)}
        unknown = len(self.values)
        missing = indices.get(None, unknown)
        codes = [indices.get(one, missing if is_missing(one) else unknown) for one in strings]
        return self.features(np.asarray(codes)[rows])

    def features(self, codes: Array) -> Array:
        """Return the features of codes, the indices of values, as ``encode`` does."""
        xp = array_namespace(codes)
        columns = codes[:, None]
        if not self.is_code:  # no column is that of a value that training did not have
            columns = columns == xp.arange(len(self.values), dtype=codes.dtype)
        return xp.astype(columns, xp.float32)


@dataclass(frozen=True, eq=False)
class Text:
    """Free text: coordinates of a latent semantic analysis of groups of 3 and 4 letters, float32.

    ``pieces`` are the groups, ``idf`` their inverse document frequencies, ``axes``
    ``(pieces, width)``.
    """

    pieces: tuple[str, ...]
    idf: np.ndarray
    axes: np.ndarray
    kind: ClassVar[str] = "text"
    is_scaled: ClassVar[bool] = False
    from_strings: ClassVar[bool] = True

    @property
    def width(self) -> int:
        return len(self.axes.T)

    def names(self, name: str) -> list[str]:
        return [f"{name} {i}" for i in range(self.width)]

    @cached_property
    def vectorizer(self) -> "TfidfVectorizer":
        """The vectorizer that counts the groups of letters."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # takes two seconds

        indices = {piece: i for i, piece in enumerate(self.pieces)}
        vectorizer = TfidfVectorizer(**LETTERS, vocabulary=indices)
        vectorizer.idf_ = self.idf
        return vectorizer

    def encode(self, column: pd.Series) -> np.ndarray:
        strings, rows = distinct(as_strings(column))
        counts = self.vectorizer.transform([string or "" for string in strings])
        return np.take(counts.astype(np.float32) @ self.axes, rows, axis=0).astype(np.float32)


Column: TypeAlias = Number | Date | Category | Text
KINDS: dict[str, type[Column]] = {one.kind: one for one in (Number, Date, Category, Text)}


def origin_of(values: pd.Series) -> int:
    """Return the least of integers that float64 cannot tell apart, 0 for others."""
    least, most = int(values.min()), int(values.max())
    return least if max(-least, most) > _EXACT else 0


def subtract(values: Array, origin: int) -> Array:
    """Return numbers minus an origin, float64; differences of large integers keep their digits."""
    xp, (origin_high, origin_low) = array_namespace(values), divmod(origin, 2**32)
    if not (origin and xp.isdtype(values.dtype, "integral")):
        return xp.astype(values, xp.float64) - origin
    high, low = (xp.astype(part, xp.float64) for part in (values // 2**32, values % 2**32))
    return (high - origin_high) * 2.0**32 + (low - origin_low)


def _refuse(column: pd.Series, wrong: np.ndarray, kind: str) -> None:
    """Raise ``CellError``, a ValueError, for the first value of a mask."""
    if wrong.any():
        row = wrong.argmax()
        raise CellError(
            f"the column {str(column.name)!r} has {plain(column.iloc[row])!r}",
            f", but a {kind} is expected, as in training: correct it, or leave it empty.",
            column.index[row],
        )
