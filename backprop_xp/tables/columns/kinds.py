"""The kinds of columns that a user chooses, and what happens to other values: names and checks.

This module imports none of the extra's libraries.
"""

from collections.abc import Collection, Mapping
from typing import Any

from backprop_xp.checks import known, nearest

KIND_NAMES = ("number", "category", "date", "text")
# What predictions do with a value of another kind, and with a missing column.
FAULT_ACTIONS = ("error", "missing")


def checked_kinds(value: Any, name: str) -> dict[str, str] | None:
    """Return the kinds of columns by their names, None for no column.

    Raises TypeError or ValueError for anything else.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must map columns to kinds, such as {{'zip': 'category'}}.")
    kinds = {
        str(column): known(kind, KIND_NAMES, f"{name}[{column!r}]")
        for column, kind in value.items()
    }
    return kinds or None


def refuse_unknown(kinds: Mapping[str, str], names: Collection[str]) -> None:
    """Raise ValueError for the kind of a column that is not there."""
    for name in kinds:
        if name not in names:
            raise ValueError(
                f"kinds has {name!r}, but there is no such feature. {nearest(name, [*names])}"
            )


def numbers_among(kinds: Mapping[str, str] | None) -> list[str]:
    """Return the columns whose chosen kind is a number."""
    return [str(name) for name, kind in (kinds or {}).items() if kind == "number"]
