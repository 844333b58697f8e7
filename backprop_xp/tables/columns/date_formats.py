"""The formats of strings of dates: found among all strings, and read by pandas."""

import functools
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

from backprop_xp.backends.scopes import process_wide
from backprop_xp.tables.readers.cells import String, are_odd, find_odd

# Guessing a format is slow, so formats are guessed from a sample of about this many strings.
SAMPLE = 1000
# The seventh digit of a fraction makes pandas' unit nanoseconds, which end in the year 2262.
_FRACTION = re.compile(r"(:\d\d\.\d{6})\d+")
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
_no_warnings = process_wide(functools.partial(warnings.catch_warnings, action="ignore"))


def find_formats(strings: Sequence[String], size: int = SAMPLE) -> tuple[str, ...]:
    """Return the formats in which all strings are dates, the most frequent first.

    They are guessed from a sample of about ``size`` strings. () if one is not a date with a year
    and a month. Strings that fit only one order of month and day decide the order; without any, the
    month is first, unless only the other order makes all of them first days of a month.
    """
    reading = find_reading(strings, Counter(filter(None, strings)), size)
    return () if reading is None or reading.odd else reading.formats


class Reading(NamedTuple):
    """The formats of strings, and the few strings that are no dates."""

    formats: tuple[str, ...]
    odd: tuple[str, ...]


def find_reading(strings: Sequence[String], rows: Mapping[str, int], size: int) -> Reading | None:
    """Return what ``find_formats`` finds for all strings but a few; None if they are no dates.

    ``rows`` are those of ``find_odd``.
    """
    present = [string for string in strings if string is not None]
    sample = [_plain(string) for string in present[:: 1 + len(present) // (1 + size)]]
    found = list[Reading]()
    for day_first in (False, True):
        formats = _guess_formats(sample, day_first=day_first)
        odd = _odd_among(strings, rows, formats) if formats else None
        if odd:  # dates of a format that the sample lacks
            formats += _guess_formats([*map(_plain, odd[:size])], day_first=day_first)
            odd = _odd_among(strings, rows, formats)
        found += [] if odd is None else [Reading(formats, odd)]
        if len(formats) == 1 and found and not found[0].odd:
            break
    if not found:
        return None
    best = min(found, key=lambda one: (len(one.odd), len(one.formats)))
    return best._replace(formats=_with_first_days(present, best))


def _odd_among(
    strings: Sequence[String], rows: Mapping[str, int], formats: Sequence[str]
) -> tuple[str, ...] | None:
    """Return the few strings that are no dates of some formats, None if they are not few."""
    every = [*dict.fromkeys([*strings, *rows])]
    dates = dict(zip(every, ~np.isnat(read_dates(every, formats)), strict=True))
    return find_odd(strings, rows, dates.__getitem__)


def _with_first_days(strings: Sequence[str], reading: Reading) -> tuple[str, ...]:
    """Return formats in the other order if only this makes all dates first days of a month."""
    odd = {*reading.odd}
    dates = [string for string in strings if string not in odd]
    _, others = in_both_orders(dates, reading.formats)
    if others is None or (others.astype("M8[D]") != others.astype("M8[M]")).any():
        return reading.formats
    return tuple(map(_in_other_order, reading.formats))


def in_both_orders(
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


def _plain(string: str) -> str:
    """Return the string of a date without space around it, in microseconds."""
    return _FRACTION.sub(r"\1", string.strip())
