"""Dates: how they are read, on which clock, and the parts that are their features."""

import contextlib
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.tables.columns.column import Column, are_among, choice_error, refuse
from backprop_xp.tables.columns.date_formats import (
    SAMPLE,
    find_formats,
    find_reading,
    in_both_orders,
    is_format,
    read_dates,
)
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.readers.cells import String, as_strings, distinct, is_categorical

# Integers such as 20240105.
_COMPACT = "%Y%m%d"
_COMPACT_RANGE = (1900_01_01, 2100_12_31)
# Databases write "no date" as a date of the year 1 or 9999: such dates are missing.
_FIRST, _END = np.asarray(["0002-01-01", "9999-01-01"], dtype="datetime64[us]")
_COMPACT_NONE = 9999_12_31
# Microseconds.
_HOUR = 3_600_000_000
# The time zone behind a time.
_ZONE = re.compile(r"(?::\d\d(?:\.\d+)?|[AaPp][Mm])\s*(?:Z|UTC|GMT|([+-]\d\d):?(\d\d)?)$")
# 3.10.12 can be a version: "%m.%d.%y" is only the default order.
_VERSION = re.compile(r"\d\.|\d\d\.\d\.")


@dataclass(frozen=True)
class Date(Column):
    """A date: its parts, float64. ``formats`` are those of strings, none for dates.

    Dates with a time zone or an offset are read on the clock of ``zone``, or without one on their
    own. ``odd`` are the few strings of training that are no dates: they are missing values.
    """

    formats: tuple[str, ...]
    parts: tuple[str, ...]
    zone: str | None = None
    odd: tuple[str, ...] = ()
    kind: ClassVar[str] = "date"
    has_numbers: ClassVar[bool] = False
    unwritten: ClassVar[Mapping[str, Any]] = {"odd": 0}

    def __post_init__(self) -> None:
        if self.zone is not None:
            try:
                pd.DatetimeTZDtype(tz=self.zone)
            except (KeyError, OSError):  # OSError: a name of another file, or a very long one
                zone = self.zone[:80]
                raise ValueError(f"the time zone {zone!r} of dates is not known here.") from None

    @classmethod
    def detect(cls, sample: Sample) -> "Date | None":
        """Return dates, also those in strings, but for a few, and in integers such as 20240105."""
        values = sample.values
        if values is None:
            return cls._detect_strings(sample)
        if values.dtype.kind == "M":
            zone = _zone_of(values)
            return cls((), _parts_of(_on_clock(values, zone)), zone)
        if values.dtype.kind in "fiu" and _is_compact(values):
            strings, _ = distinct(as_strings(values))
            return cls((_COMPACT,), _parts_of(read_dates(strings, [_COMPACT])), odd=sample.odd)
        return None

    @classmethod
    def chosen(cls, sample: Sample) -> "Date":
        found = cls.detect(sample) or cls._of_strings(sample, len(sample.strings))
        if found and not found.odd:
            return found

        def is_wrong(string: str) -> bool:
            return string in found.odd if found else not find_formats([string])

        cells = pd.concat([sample.column, sample.drawn])
        strings, rows = distinct(as_strings(cells))
        wrong = next((i for i, one in enumerate(strings) if one and is_wrong(one)), 0)
        raise choice_error(cells, rows == wrong, cls.kind)

    @classmethod
    def _detect_strings(cls, sample: Sample) -> "Date | None":
        if is_categorical(sample.column) or not (present := [*filter(None, sample.strings)]):
            return None
        found = cls._of_strings(sample)
        is_version = found and "%m.%d.%y" in found.formats and any(map(_VERSION.match, present))
        return None if is_version else found

    @classmethod
    def _of_strings(cls, sample: Sample, size: int = SAMPLE) -> "Date | None":
        strings = sample.strings
        if (reading := find_reading(strings, sample.row_counts, size)) is None:
            return None
        dates = read_dates(strings, reading.formats)
        parts = _parts_of(_strings_on_clock(strings, dates, None))
        return cls(reading.formats, parts, odd=reading.odd)

    def doubt(self, sample: Sample) -> str | None:
        if not self.formats or self._of_numbers:
            return None
        odd = {*self.odd}
        strings = [one for one in sample.strings if one is not None and one not in odd]
        dates, others = in_both_orders(strings, self.formats)
        if others is None:
            return None
        example = strings[int((dates != others).argmax())]
        return (
            f"it has dates such as {example!r}, and all fit both orders of day and month: they are "
            f"read as {' or '.join(self.formats)}. Write them as 2024-01-31 if that is wrong"
        )

    @property
    def odd_strings(self) -> tuple[str, ...]:
        return self.odd

    def with_odd(self, strings: Iterable[str]) -> "Date":
        return replace(self, odd=(*dict.fromkeys([*self.odd, *strings]),))

    def check(self) -> None:
        split_dates(np.empty(0, np.int64), self.parts)
        self._require(all(map(is_format, self.formats)))

    @property
    def width(self) -> int:
        return len(self.parts)

    @property
    def is_scaled(self) -> bool:
        return True

    @property
    def from_strings(self) -> bool:
        return not (self.formats == () or self._of_numbers)

    @property
    def is_counted(self) -> bool:
        return self.from_strings

    @property
    def _of_numbers(self) -> bool:
        # Integers with a missing value are floating numbers, 20240105.0 in a file.
        return self.formats == (_COMPACT,)

    def names(self, name: str) -> list[str]:
        return [f"{name} {part}" for part in self.parts]

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the dates of a column in microseconds since 1970 on the clock, int64."""
        _, shown = self._read(column)
        return shown.view("int64")

    def features(self, values: Array) -> Array:
        return split_dates(values, self.parts)

    def sort_key(self, column: pd.Series) -> np.ndarray:
        return self._read(column)[0]

    def wrong(self, column: pd.Series) -> np.ndarray:
        if column.dtype.kind == "M":
            return super().wrong(column)
        strings, rows = self._strings(column)
        unread = np.take(_unread(strings, self._dates(column, strings)), rows)
        return np.asarray(unread & ~are_among(column, self.odd))

    def _read(self, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the dates of a column in UTC, and as the clock shows them."""
        if column.dtype.kind == "M":
            return _in_utc(column), _on_clock(column, self.zone)
        strings, rows = self._strings(column)
        dates = self._dates(column, strings)
        wrong = _unread(strings, dates)[rows] & ~are_among(column, self.odd)
        refuse(column, wrong, f"{self.expected} is expected, as in training")
        return dates[rows], _strings_on_clock(strings, dates, self.zone)[rows]

    def _strings(self, column: pd.Series) -> tuple[list[String], np.ndarray]:
        return distinct(as_strings(column, of_numbers=self._of_numbers))

    def _dates(self, column: pd.Series, strings: Sequence[String]) -> np.ndarray:
        # as_strings writes the dates in a column of objects in ISO 8601.
        has_iso = column.dtype == object or not self.formats
        return read_dates(strings, (*self.formats, "ISO8601") if has_iso else self.formats)

    @property
    def expected(self) -> str:
        day = datetime.datetime(2024, 1, 31, 13, 30, tzinfo=datetime.UTC)
        examples = " or ".join(f"{day.strftime(one)} ({one})" for one in self.formats)
        return f"a date{examples and f' such as {examples}'}"

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        form = " or ".join(self.formats) or None
        return {"format": form, "parts": list(self.parts), "zone": self.zone}

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        how = ", ".join(filter(None, [described["format"], described["zone"]]))
        return f"date{f' ({how})' if how else ''}: {', '.join(described['parts'])}"

    @property
    def exported_type(self) -> str:
        return "int64"

    @property
    def unit(self) -> str:
        return f"microseconds since 1970{'' if self.zone is None else f' in {self.zone}'}"


def _unread(strings: Sequence[String], dates: np.ndarray) -> np.ndarray:
    """Return a mask of the strings that are present, but no dates."""
    present = np.asarray([string is not None for string in strings], dtype=bool)
    return np.asarray(present & np.isnat(dates))


def _is_compact(column: pd.Series) -> bool:
    """Whether all integers of a column are dates such as 20240105."""
    present = column.dropna().to_numpy()
    present = present[present != _COMPACT_NONE]
    low, high = _COMPACT_RANGE
    if not (len(present) and low <= present.min() and present.max() <= high):
        return False
    values = pd.unique(present)
    if values.dtype.kind == "f" and (values % 1.0).any():
        return False
    return not np.isnat(read_dates([f"{value:.0f}" for value in values.tolist()], [_COMPACT])).any()


def _in_utc(column: pd.Series) -> np.ndarray:
    """Return a column of dates in UTC, without a time zone, in microseconds."""
    has_zone = isinstance(column.dtype, pd.DatetimeTZDtype)
    return np.asarray((column.dt.tz_convert(None) if has_zone else column).dt.as_unit("us"))


def _zone_of(column: pd.Series) -> str | None:
    """Return the name of the time zone of a column of dates, None for one without a name."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        with contextlib.suppress(KeyError, ValueError):
            return str(pd.DatetimeTZDtype(tz=str(column.dtype.tz)).tz)
    return None


def _on_clock(column: pd.Series, zone: str | None) -> np.ndarray:
    """Return what clocks show at the dates of a column, in microseconds.

    They are in a time zone, or in the column's own.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = (column.dt.tz_convert(zone) if zone else column).dt.tz_localize(None)
    # Nanoseconds have no year 1 to compare with.
    return np.asarray(column.dt.as_unit("us"))


def _strings_on_clock(strings: Sequence[String], dates: np.ndarray, zone: str | None) -> np.ndarray:
    """Return what clocks show at the dates, in UTC, of strings: in a time zone, or as written.

    A string without a time zone is as written.
    """
    matches = [string and _ZONE.search(string.strip()) for string in strings]
    if not any(matches):
        return dates
    if zone is not None:
        local = _on_clock(pd.Series(dates).dt.tz_localize("UTC"), zone)
        return np.where([bool(match) for match in matches], local, dates)
    hours = [match and match.group(1) and f"{match[1]}:{match[2] or '00'}:00" for match in matches]
    offsets = pd.to_timedelta(pd.Series(hours, dtype="str")).fillna(pd.Timedelta(0))
    return np.asarray(dates + offsets.to_numpy("timedelta64[us]"))


def _parts_of(dates: np.ndarray) -> tuple[str, ...]:
    """Return the names of the parts that dates are split into: the hour if they have one.

    The names are those of skrub's ``DatetimeEncoder``.
    """
    present = dates[(dates >= _FIRST) & (dates < _END)]
    hour = () if (present == present.astype("datetime64[D]")).all() else ("hour",)
    return ("year", "month", "day", *hour, "total_seconds", "weekday")


def split_dates(times: Array, parts: Sequence[str]) -> Array:
    """Return the parts of dates, ``(rows, parts)``, float64, NaN for a missing date.

    ``times`` are microseconds since 1970 on a clock, int64, as those of datetime64[us]. Those of
    the years 1 and 9999 are missing dates, and so is -2**63. ``weekday`` is 1 on Mondays;
    ``total_seconds`` counts from 1970.
    """
    xp, days = array_namespace(times), times // (24 * _HOUR)
    # Howard Hinnant 2013, "chrono-compatible low-level date algorithms", civil_from_days: years
    # begin in March, so that a leap day is the last one, and 400 years have 146,097 days.
    period, day = (days + 719_468) // 146_097, (days + 719_468) % 146_097
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day = day - (365 * year + year // 4 - year // 100)
    month = (5 * day + 2) // 153
    found = {
        "year": 400 * period + year + (month + 2) // 12,
        "month": (month + 2) % 12 + 1,
        "day": day - (153 * month + 2) // 5 + 1,
        "hour": times // _HOUR % 24,
        "total_seconds": xp.astype(times, xp.float64) / 1e6,
        "weekday": (days + 3) % 7 + 1,
    }
    values = xp.stack([xp.astype(found[part], xp.float64) for part in parts], axis=1)
    first, end = (int(bound.astype("int64")) for bound in (_FIRST, _END))
    return xp.where(((times < first) | (times >= end))[:, None], xp.nan, values)
