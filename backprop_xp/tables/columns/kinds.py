"""The table of the kinds of columns, and the checks of kinds that a user chooses.

This module imports none of the extra's libraries.
"""

import importlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from backprop_xp.checks import known, nearest

if TYPE_CHECKING:
    from backprop_xp.tables.columns.column import Column

# The module and the class of each kind. A column is of the first kind that detects it.
KINDS = {
    "date": "backprop_xp.tables.columns.date:Date",
    "number": "backprop_xp.tables.columns.number:Number",
    "category": "backprop_xp.tables.columns.category:Category",
    "text": "backprop_xp.tables.columns.text:Text",
}
# What predictions do with a value of another kind, and with a missing column.
FAULT_ACTIONS = ("error", "missing")


def kind_named(name: str) -> "type[Column]":
    """Return the class of a kind, whose module is imported."""
    module, _, kind = KINDS[name].partition(":")
    found: type[Column] = getattr(importlib.import_module(module), kind)
    return found


def checked_kinds(value: Any, name: str) -> dict[str, str] | None:
    """Return the kinds of columns by their names, None for no column.

    Raises TypeError or ValueError for anything else.
    """
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must map columns to kinds, such as {{'zip': 'category'}}.")
    kinds = {
        str(column): known(kind, [*KINDS], f"{name}[{column!r}]") for column, kind in value.items()
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
    """Return the columns whose chosen kind is one of numbers."""
    return [str(name) for name, kind in (kinds or {}).items() if kind_named(kind).has_numbers]
