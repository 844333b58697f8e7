"""Dates: in which formats texts write them, and the numbers that they become."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from pandas.tseries.api import guess_datetime_format

# To guess the format of a text takes long: of so many the formats are found.
_GUESSED = 1000
# Integers such as 20240105.
COMPACT = "%Y%m%d"
_COMPACT_RANGE = (1900_01_01, 2100_12_31)


def find_formats(texts: Sequence[str | None]) -> tuple[str, ...]:
    """Return the formats in which all of these texts are dates, the most frequent first.

    () where one is no date of a year and a month. Month and day are told apart by the texts that
    only one order fits; where none does, the month is first.
    """
    given = [text.strip() for text in texts if text is not None]
    sample = given[:: 1 + len(given) // _GUESSED]
    known = []
    for day_first in (False, True):
        formats = _guessed(sample, day_first=day_first)
        if formats and not np.isnat(read_dates(given, formats)).any():
            known.append(formats)
        if len(formats) == 1 and known:
            break
    return min(known, key=len, default=())


def _guessed(texts: Sequence[str], *, day_first: bool) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for text in texts:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where only the other order fits
            # Behind a year comes the month.
            found = guess_datetime_format(text, dayfirst=day_first and not text[:4].isdigit())
        if not isinstance(found, str) or "%Y" not in found or found == "%Y":
            return ()
        counts[found] += 1
    return tuple(found for found, _ in counts.most_common())


def read_dates(texts: Sequence[str | None], formats: Sequence[str]) -> np.ndarray:
    """Return each text's date in UTC by the first format that it fits, NaT where none does."""
    found = np.full(len(texts), "NaT", dtype="datetime64[us]")
    given = np.asarray([text and text.strip() for text in texts], dtype=object)
    for form in formats:
        left = np.isnat(found)
        if left.any():
            dates = pd.to_datetime(given[left], format=form, errors="coerce", utc=True)
            found[left] = dates.tz_localize(None)
    return found


def is_compact(column: pd.Series) -> bool:
    """Whether all integers of a column are dates, such as 20240105."""
    values = column.dropna().unique()
    low, high = _COMPACT_RANGE
    if not (len(values) and low <= values.min() and values.max() <= high):
        return False
    if values.dtype.kind == "f" and (values % 1.0).any():
        return False
    return not np.isnat(read_dates([f"{value:.0f}" for value in values.tolist()], [COMPACT])).any()


def in_utc(column: pd.Series) -> np.ndarray:
    """Return a column of dates in UTC, without its time zone."""
    utc = column.dt.tz_convert(None) if isinstance(column.dtype, pd.DatetimeTZDtype) else column
    dates: np.ndarray = utc.to_numpy()
    return dates


def parts_of(dates: np.ndarray) -> tuple[str, ...]:
    """Return the names of the parts that tell these dates apart: the hour where there is one."""
    present = dates[~np.isnat(dates)]
    hour = () if (present == present.astype("datetime64[D]")).all() else ("hour",)
    return ("year", "month", "day", *hour, "total_seconds", "weekday")


def split_dates(dates: np.ndarray, parts: Sequence[str]) -> np.ndarray:
    """Return the parts of dates, ``(rows, parts)``, NaN where one is missing.

    ``weekday`` is 1 on Mondays, ``total_seconds`` since 1970.
    """
    months, days = dates.astype("datetime64[M]"), dates.astype("datetime64[D]")
    known: dict[str, Callable[[], Any]] = {
        "year": lambda: months.astype("datetime64[Y]").astype(int) + 1970,
        "month": lambda: months.astype(int) % 12 + 1,
        "day": lambda: (days - months).astype(int) + 1,
        "hour": lambda: (dates - days).astype("timedelta64[h]").astype(int),
        "total_seconds": lambda: (dates - np.datetime64(0, "s")) / np.timedelta64(1, "s"),
        "weekday": lambda: (days.astype(int) + 3) % 7 + 1,  # 1970 began on a Thursday
    }
    found = np.empty((len(dates), len(parts)))
    for i, part in enumerate(parts):
        found[:, i] = known[part]()
    found[np.isnat(dates)] = np.nan
    return found
