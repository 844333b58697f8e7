"""Dates: the formats of their strings, and the features that they become."""

import contextlib
import datetime
import functools
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from backprop_xp.backends import Array, array_namespace
from backprop_xp.backends.scopes import process_wide
from backprop_xp.tables.columns.column import Column, Sample, are_among, choice_error, refuse
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.readers.values import (
    String,
    are_odd,
    as_strings,
    distinct,
    find_odd,
    is_categorical,
)

# Guessing a format is slow, so formats are guessed from a sample of about this many strings.
_SAMPLE = 1000
# Integers such as 20240105.
_COMPACT = "%Y%m%d"
_COMPACT_RANGE = (1900_01_01, 2100_12_31)
# Databases write "no date" as a date of the year 1 or 9999: such dates are missing.
_FIRST, _END = np.asarray(["0002-01-01", "9999-01-01"], dtype="datetime64[us]")
_COMPACT_NONE = 9999_12_31
# Microseconds.
_HOUR = 3_600_000_000
# The seventh digit of a fraction makes pandas' unit nanoseconds, which end in the year 2262.
_FRACTION = re.compile(r"(:\d\d\.\d{6})\d+")
# The time zone behind a time.
_ZONE = re.compile(r"(?::\d\d(?:\.\d+)?|[AaPp][Mm])\s*(?:Z|UTC|GMT|([+-]\d\d):?(\d\d)?)$")
# What pandas can read in a format of dates, each at most once.
_DIRECTIVES = "aAbBdfHIjmMpSyYzZ"
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_YEAR_LAST = rf"^(\d\d?[-/.]\d\d?[-/.]|\d\d?[-/. ]?{_MONTH}[-/. ]?|{_MONTH} \d\d?,? )(\d\d)"
# pandas guesses no format for some strings that it can read, so a similar string takes their place:
# a pattern with its replacement in the string, and those in the format that is guessed.
_SIMILAR = (
    (r"\b\d?\d((?::\d\d)*(?:\.\d+)? *)[AP]M\b", r"09\1AM", "", ""),
    (rf"{_YEAR_LAST}(?=$|[ ,T])", r"\g<1>20\2", "%Y", "%y"),
    (rf"^((?:{_MONTH}|\d\d?)([-/ ]))(?=(?:19|20)\d\d$)", r"\g<1>01\2", "%d.", ""),
)
# 3.10.12 can be a version: "%m.%d.%y" is only the default order.
_VERSION = re.compile(r"\d\.|\d\d\.\d\.")
_no_warnings = process_wide(functools.partial(warnings.catch_warnings, action="ignore"))


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
        strings = sample.strings
        found = cls.detect(sample) or cls._of_strings(sample, len(strings))
        if found and not found.odd:
            return found

        def is_wrong(string: str) -> bool:
            return string in found.odd if found else not find_formats([string])

        wrong = next((i for i, one in enumerate(strings) if one and is_wrong(one)), 0)
        raise choice_error(sample.column, sample.words[1] == wrong, cls.kind)

    @classmethod
    def _detect_strings(cls, sample: Sample) -> "Date | None":
        if is_categorical(sample.column) or not (present := [*filter(None, sample.strings)]):
            return None
        found = cls._of_strings(sample)
        is_version = found and "%m.%d.%y" in found.formats and any(map(_VERSION.match, present))
        return None if is_version else found

    @classmethod
    def _of_strings(cls, sample: Sample, size: int = _SAMPLE) -> "Date | None":
        strings = sample.strings
        if (reading := _find_reading(strings, sample.counts, size)) is None:
            return None
        dates = read_dates(strings, reading.formats)
        parts = _parts_of(_strings_on_clock(strings, dates, None))
        return cls(reading.formats, parts, odd=reading.odd)

    def doubt(self, sample: Sample) -> str | None:
        if not self.formats or self._of_numbers:
            return None
        odd = {*self.odd}
        strings = [one for one in sample.strings if one is not None and one not in odd]
        dates, others = _in_both_orders(strings, self.formats)
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
    def from_numbers(self) -> bool:
        return False

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
        refuse(column, wrong, f"a date{self._example()} is expected, as in training")
        return dates[rows], _strings_on_clock(strings, dates, self.zone)[rows]

    def _strings(self, column: pd.Series) -> tuple[list[String], np.ndarray]:
        return distinct(as_strings(column, of_numbers=self._of_numbers))

    def _dates(self, column: pd.Series, strings: Sequence[String]) -> np.ndarray:
        # as_strings writes the dates in a column of objects in ISO 8601.
        has_iso = column.dtype == object or not self.formats
        return read_dates(strings, (*self.formats, "ISO8601") if has_iso else self.formats)

    def _example(self) -> str:
        """Return an example of each format of strings, for a message."""
        day = datetime.datetime(2024, 1, 31, 13, 30, tzinfo=datetime.UTC)
        examples = " or ".join(f"{day.strftime(one)} ({one})" for one in self.formats)
        return examples and f" such as {examples}"

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


def find_formats(strings: Sequence[String], size: int = _SAMPLE) -> tuple[str, ...]:
    """Return the formats in which all strings are dates, the most frequent first.

    They are guessed from a sample of about ``size`` strings. () if one is not a date with a year
    and a month. Strings that fit only one order of month and day decide the order; without any, the
    month is first, unless only the other order makes all of them first days of a month.
    """
    reading = _find_reading(strings, [1] * len(strings), size)
    return () if reading is None or reading.odd else reading.formats


class _Reading(NamedTuple):
    """The formats of strings, and the few strings that are no dates."""

    formats: tuple[str, ...]
    odd: tuple[str, ...]


def _find_reading(strings: Sequence[String], counts: Sequence[int], size: int) -> _Reading | None:
    """Return what ``find_formats`` finds for all strings but a few; None if they are no dates.

    ``counts`` are the rows of each string.
    """
    present = [string for string in strings if string is not None]
    sample = [_plain(string) for string in present[:: 1 + len(present) // (1 + size)]]
    found = list[_Reading]()
    for day_first in (False, True):
        formats = _guess_formats(sample, day_first=day_first)
        odd = _odd_among(strings, counts, formats) if formats else None
        if odd:  # dates of a format that the sample lacks
            formats += _guess_formats([*map(_plain, odd[:size])], day_first=day_first)
            odd = _odd_among(strings, counts, formats)
        found += [] if odd is None else [_Reading(formats, odd)]
        if len(formats) == 1 and found and not found[0].odd:
            break
    if not found:
        return None
    best = min(found, key=lambda one: (len(one.odd), len(one.formats)))
    return best._replace(formats=_with_first_days(present, best))


def _odd_among(
    strings: Sequence[String], counts: Sequence[int], formats: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the few strings that are no dates of some formats, None if they are not few."""
    dates = dict(zip(strings, ~np.isnat(read_dates(strings, formats)), strict=True))
    return find_odd(strings, counts, dates.__getitem__)


def _with_first_days(strings: Sequence[str], reading: _Reading) -> tuple[str, ...]:
    """Return formats in the other order if only this makes all dates first days of a month."""
    odd = {*reading.odd}
    dates = [string for string in strings if string not in odd]
    _, others = _in_both_orders(dates, reading.formats)
    if others is None or (others.astype("M8[D]") != others.astype("M8[M]")).any():
        return reading.formats
    return tuple(map(_in_other_order, reading.formats))


def _in_both_orders(
    strings: Sequence[str], formats: Sequence[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the dates of strings, and those in the other order of day and month.

    The latter are None unless all strings fit it, and some are other dates.
    """
    dates, others = read_dates(strings, formats), [*map(_in_other_order, formats)]
    if others == [*formats]:
        return dates, None
    swapped = read_dates(strings, others)
    is_open = not np.isnat(swapped).any() and (swapped != dates).any()
    return dates, swapped if is_open else None


def _in_other_order(form: str) -> str:
    """Return a format with the day and the month, numbers side by side, in the other order."""
    if re.search(r"%[Yy].*%[md]", form):  # a month follows a year
        return form
    return re.sub(r"%([md])([^%]*)%(?!\1)([md])", r"%\3\2%\1", form)


def _guess_formats(strings: Sequence[str], *, day_first: bool) -> tuple[str, ...]:
    """Return the formats that are guessed of all strings but a few, the most frequent first."""
    counts, odd = Counter[str](), 0
    for string in strings:
        if "0001" in string:  # pandas guesses no format for the year 1
            continue
        if (found := _guess_format(string, day_first=day_first)) is not None:
            counts[found] += 1
        elif not are_odd(odd := odd + 1, len(strings) - odd):
            return ()
    return tuple(found for found, _ in counts.most_common())


def _guess_format(string: str, *, day_first: bool) -> str | None:
    """Return the format of a date with a year and a month, None for another string.

    A year of two digits is last, from 1969 to 2068.
    """
    string = re.sub(_MONTH, lambda match: match[0].capitalize(), string, flags=re.IGNORECASE)
    changes = []
    for pattern, replacement, *change in _SIMILAR:
        string, count = re.subn(pattern, replacement, string, flags=re.IGNORECASE)
        if count:
            changes.append(change)
    with _no_warnings():  # only the other order fits
        # A month follows a year.
        found = guess_datetime_format(string, dayfirst=day_first and not string[:4].isdigit())
    if not isinstance(found, str) or "%Y" not in found or found == "%Y":
        return None
    for old, new in changes:
        found = re.sub(old, new, found)
    return found


def is_format(text: str) -> bool:
    """Whether pandas can read dates in a format, which has a year as all that are found have."""
    found = re.findall(r"%(.?)", text.replace("%%", ""), re.DOTALL)
    is_read = all(one and one in _DIRECTIVES for one in found) and len({*found}) == len(found)
    return is_read and bool({"Y", "y"} & {*found}) and not {"z", "Z"} <= {*found}


def read_dates(strings: Sequence[String], formats: Sequence[str]) -> np.ndarray:
    """Return each string's date in UTC by the first format that fits, NaT if none does."""
    dates = np.full(len(strings), "NaT", dtype="datetime64[us]")
    stripped = np.asarray([string and _plain(string) for string in strings], dtype=object)
    for form in formats:
        unread = np.isnat(dates)
        if unread.any():
            read = pd.to_datetime(stripped[unread], format=form, errors="coerce", utc=True)
            dates[unread] = read.tz_localize(None)
    return dates


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


def _plain(string: str) -> str:
    """Return the string of a date without space around it, in microseconds."""
    return _FRACTION.sub(r"\1", string.strip())


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
    """Return the names of the parts that dates are split into: the hour if they have one."""
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
