"""What is read as missing instead of being refused, and the lines and warnings about it."""

import warnings
from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from backprop_xp.checks import plain, stacklevel
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.readers.cells import foreign
from backprop_xp.tables.readers.frames import to_pandas


def in_row(row: int, table: str = "") -> str:
    """Return the place of a row, also in another table than X."""
    return f"row {row}{table and f' of {table}'}"


def warn(lines: Iterable[str]) -> None:
    """Issue a warning for each line, with a full stop."""
    for line in lines:
        warnings.warn(f"{line}.", UserWarning, stacklevel=stacklevel())


class BadValues(NamedTuple):
    """Values of a column that are read as missing: their number, the first one and its row."""

    column: str
    total: int
    first: Any
    row: int

    def at(self, place: str) -> str:
        """Return a line for the user, with the place of the first value."""
        more = f", and {self.total - 1:,} more" if self.total > 1 else ""
        first = f"{self.first!r:.80}"  # a list may be long
        return f"the column {self.column!r} has {first} ({place}){more}: read as missing"


def filled(data: Any, names: Iterable[str]) -> tuple[Any, list[str]]:
    """Return a DataFrame of any library with missing columns, and their names; an array as it is.

    The columns are then in the order of the names, and further ones follow.
    """
    if not (hasattr(data, "to_pandas") or isinstance(data, pd.DataFrame)):
        return data, []
    frame = to_pandas(data)
    absent = [name for name in names if name not in frame]
    if not (absent and frame.columns.is_unique):  # the checks of tables refuse equal names
        return data, []
    return frame.reindex(columns=[*dict.fromkeys([*names, *frame])]), absent


def line_about(absent: Iterable[str], features: Features) -> str | None:
    """Return a line for the user about missing columns that the model uses, None without one."""
    used = [repr(name) for name in absent if name in features.columns]
    return f"missing columns, all of whose values are missing: {', '.join(used)}" if used else None


def without_bad_values(
    frame: pd.DataFrame, features: Features
) -> tuple[pd.DataFrame, list[BadValues]]:
    """Return a plain table with missing values in place of those of another kind, and these."""
    found, frame = list[BadValues](), frame.copy(deep=False)
    for name, column in features.columns.items():
        if name not in frame:
            continue
        values, wrong = frame[name], foreign(frame[name])
        wrong = wrong | column.wrong(values.mask(wrong) if wrong.any() else values)
        if wrong.any():
            first = int(wrong.argmax())
            value, row = plain(values.iloc[first]), values.index[first]
            found.append(BadValues(name, int(wrong.sum()), value, row))
            frame[name] = values.mask(wrong)
    return frame, found
