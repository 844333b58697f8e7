"""The different values of a column in all rows, counted in pieces: they decide its kind."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from backprop_xp.tables.readers.cells import (
    DECIMAL,
    MISSING,
    String,
    as_strings,
    decimal_of,
    distinct,
    find_style_of_most,
    is_categorical,
    is_missing,
    is_string,
    numbers,
    with_decimal,
)

# Different values that are kept: about as many as integers such as 20240105 in 180 years.
MOST = 2**16
# Samples that are merged at once, at most.
_WAITING = 64
# Rows that are drawn at most: the standard deviation of a share of the rows is below 0.8 %.
_DRAWN = 2**12


@dataclass(frozen=True)
class Sample:
    """The different values of a plain column, and the number of the rows of each.

    ``column`` has the values in the order of their first rows, whose numbers are its index, and
    ``each`` the number of the rows of each. ``rows`` counts all rows.

    A column of more than ``MOST`` values has a uniform sample of these: those whose hash is below
    ``limit``. Missing values, words for them, the least and the largest number are always there.
    Each other value can be absent, also a frequent one. So ``drawn`` has a uniform sample of the
    rows: the strings of at most 4,096 rows with a value, those whose numbers have the least hashes.
    Both depend on no order of the rows, and on no cut into pieces.
    """

    column: pd.Series
    each: np.ndarray
    rows: int
    drawn: pd.Series
    limit: float = 1.0

    @classmethod
    def of(cls, column: pd.Series, limit: float = 1.0) -> "Sample":
        """Return the sample of a piece of rows, which the index numbers; a ``limit`` is known."""
        return _grouped(column, np.ones(len(column)), len(column), _drawn(column), limit)

    def merge(self, *others: "Sample") -> "Sample":
        """Return the sample of the rows of all.

        The first with any value decides the type, and the decimal sign of strings. Values of
        another type do not count, but missing ones do.
        """
        samples = [self, *others]
        first = next((one.column for one in samples if one.column.notna().any()), self.column)
        sign = next(filter(None, (decimal_of(one.column) for one in samples)), None)
        kept = list[Sample]()
        for one in samples:
            column, drawn = one.column, one.drawn
            if type_of(column) == type_of(first):
                same = with_decimal(column, sign), with_decimal(drawn, sign)
                kept.append(replace(one, column=same[0], drawn=same[1]))
            elif column.isna().all():
                none = first.iloc[:0]
                kept.append(replace(one, column=none.reindex(column.index), drawn=none))
        joined, each = _joined([one.column for one in kept]), [one.each for one in kept]
        drawn = _drawn(_joined([one.drawn for one in kept]))
        joined.attrs[DECIMAL] = drawn.attrs[DECIMAL] = sign
        order, limit = np.argsort(joined.index, kind="stable"), min(one.limit for one in kept)
        in_order = joined.iloc[order], np.concatenate(each)[order]
        return _grouped(*in_order, sum(one.rows for one in kept), drawn, limit)

    @property
    def n_strings(self) -> int:
        """The number of the different strings that are present; an estimate of very many."""
        return round(len({*self.words[0]} - {None}) / self.limit)

    @property
    def present(self) -> int:
        """The number of the rows with a value; a word for a missing value is one."""
        words, rows = self.words
        is_missing = np.asarray([word is None for word in words], dtype=bool)
        return self.rows - int(self.each[is_missing[rows]].sum())

    @cached_property
    def words(self) -> tuple[list[String], np.ndarray]:
        """The distinct strings, words for a missing value included, and each value's index."""
        return distinct(as_strings(self.column), keeps_words=True)

    @cached_property
    def strings(self) -> list[String]:
        """The distinct strings, None for a word for a missing value."""
        return [None if is_missing(word) else word for word in self.words[0]]

    @cached_property
    def counts(self) -> list[int]:
        """The rows of each distinct string."""
        words, rows = self.words
        counts = np.bincount(rows, self.each, minlength=len(words)).astype(int)
        return counts.tolist()  # type: ignore[no-any-return]

    @cached_property
    def row_counts(self) -> Mapping[str, int]:
        """The rows of each string that is present: all rows, or those drawn from very many."""
        if self.limit < 1.0:
            return Counter(self.drawn)
        pairs = zip(self.strings, self.counts, strict=True)
        return {string: count for string, count in pairs if string is not None}

    @cached_property
    def _style_and_odd(self) -> tuple[str, tuple[str, ...]] | None:
        if not is_string(self.column) or is_categorical(self.column) or not any(self.strings):
            return None
        return find_style_of_most(self.strings, self.row_counts, decimal_of(self.column) or ".")

    @property
    def style(self) -> str | None:
        """The style in which strings are numbers; None for other strings and columns."""
        return self._style_and_odd and self._style_and_odd[0]

    @property
    def odd(self) -> tuple[str, ...]:
        """The few strings that are no numbers in this style."""
        return self._style_and_odd[1] if self._style_and_odd else ()

    @cached_property
    def values(self) -> pd.Series | None:
        """The numbers, timedeltas or dates, also the numbers that strings hold; None for others."""
        if not is_string(self.column):
            return self.column
        if self.style is None:
            return None
        return pd.Series(numbers(self.column, self.style)[0], name=self.column.name)

    def reason_to_leave_out(self, *, has_words: bool = True) -> str | None:
        """Return why no kind can learn from the column, None if one can.

        ``has_words`` is whether a word for a missing value is a value, as in a category.
        """
        is_words, strings = is_string(self.column), set[String]()
        if is_words:
            strings = {*(self.words[0] if has_words else self.strings)}
        if self.column.isna().all() or strings == {None}:
            return "empty"
        is_same = len(strings) == 1
        if is_same or (self.values is not None and self.values.nunique(dropna=False) == 1):
            return "the same in all rows"
        return None


def samples_of(pieces: Iterable[Mapping[str, pd.Series]]) -> dict[str, Sample]:
    """Return the sample of each column of a table that comes in pieces of its rows."""
    found = dict[str, list[Sample]]()
    for piece in pieces:
        for name in piece:
            waiting = found.setdefault(name, [])
            waiting.append(Sample.of(piece[name], waiting[0].limit if waiting else 1.0))
            size = sum(len(one.column) for one in waiting[1:])
            if size > MOST // 2 or len(waiting) == _WAITING:
                found[name] = [merged(waiting)]
    return {name: merged(waiting) for name, waiting in found.items()}


def merged(samples: Sequence[Sample]) -> Sample:
    """Return the sample of the rows of all samples."""
    return samples[0] if len(samples) == 1 else samples[0].merge(*samples[1:])


def type_of(column: pd.Series) -> str:
    """Return the type of a plain column; numbers and booleans are alike, and dates of any unit."""
    if column.dtype.kind in "mM":
        return f"{column.dtype.kind} {getattr(column.dtype, 'tz', None)}"
    return "number" if column.dtype.kind in "fiub" else str(column.dtype)


def _unit_of(column: pd.Series) -> str | None:
    """Return the unit of dates and timedeltas, None for other values."""
    return column.dt.unit if column.dtype.kind in "mM" else None


def _joined(alike: Sequence[pd.Series]) -> pd.Series:
    """Return columns of one type as one column."""
    if is_string(alike[0]):
        return pd.concat([part.astype("str") for part in alike]).astype(type_of(alike[0]))
    if type_of(alike[0]) != "number":
        has_units = len({*map(_unit_of, alike)}) > 1
        # pandas would join them in the finest unit, and nanoseconds end in the year 2262.
        return pd.concat([one.dt.as_unit("us") for one in alike] if has_units else alike)
    index = np.concatenate([part.index for part in alike])
    return pd.Series(np.concatenate(alike), index, name=alike[0].name)


def _drawn(column: pd.Series) -> pd.Series:
    """Return the strings of the drawn rows; none of a column of other values."""
    if not is_string(column):
        return column.iloc[:0]
    rows = np.flatnonzero(~_are_missing(column))
    if len(rows) > _DRAWN:
        hashes = pd.util.hash_array(column.index.to_numpy()[rows])
        rows = rows[np.argpartition(hashes, _DRAWN)[:_DRAWN]]
    return column.iloc[rows]


def _grouped(
    column: pd.Series, each: np.ndarray, rows: int, drawn: pd.Series, limit: float
) -> Sample:
    """Return the sample of values, some of which are equal, with the rows of each."""
    codes, _ = pd.factorize(column, use_na_sentinel=False)
    first = np.flatnonzero(np.diff(np.maximum.accumulate(codes), prepend=-1))
    column, each = column.iloc[first], np.bincount(codes, each).astype(int)
    if len(column) > MOST:
        limit = min(limit, float(np.partition(_hashes(column), MOST)[MOST]))
    if limit < 1.0:
        kept = _kept(column, limit)
        column, each = column[kept], each[kept]
    return Sample(column, each, rows, drawn, limit)


def _kept(column: pd.Series, limit: float) -> np.ndarray:
    """Return a mask of the values below a limit, the missing ones, the least and the largest."""
    kept = (_hashes(column) < limit) | _are_missing(column)
    if type_of(column) == "number":
        kept |= column.isin([column.min(), column.max()]).to_numpy()
    return np.asarray(kept)


def _are_missing(column: pd.Series) -> np.ndarray:
    """Return a mask of the missing values, and of words for them."""
    missing = column.isna()
    if is_string(column):
        missing |= column.str.strip().isin(MISSING)
    return np.asarray(missing)


def _hashes(column: pd.Series) -> np.ndarray:
    """Return a number in [0, 1) for each value; equal numbers of any type have the same."""
    values = column.astype("float64") if type_of(column) == "number" else column
    if _unit_of(column):
        values = column.dt.as_unit("us")
    return np.asarray(pd.util.hash_pandas_object(values, index=False)) / 2.0**64
