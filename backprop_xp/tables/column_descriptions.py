"""What a preparation knows of each column, for who inspects a model."""

from collections.abc import Callable
from typing import Any

from backprop_xp.tables.encoding import Category, Date, Number, Text
from backprop_xp.tables.preparation import Preparation, Scaling


def described_columns(preparation: Preparation) -> list[dict[str, Any]]:
    """Return for each column its name, its kind, its features' number, and what was learnt of it.

    Of a number ``mean``, ``deviation`` and ``filled`` (what takes the place of a missing value), of
    a category ``categories``, of a date ``format`` and ``parts``, of a text ``pieces``, the number
    of different groups of letters.
    """
    first, places = 0, preparation.places()
    found = []
    for name, column in preparation.columns.items():
        learnt = _LEARNT[column.kind](column, preparation.scaling, first)
        features = len(places[name])
        found.append({"name": name, "kind": column.kind, "features": features, **learnt})
        first += column.width if column.is_scaled else 0
    return found


def _number(column: Number, scaling: Scaling, place: int) -> dict[str, Any]:
    return {
        "mean": float(scaling.means[place]) + column.origin,
        "deviation": float(scaling.deviations[place]),
        "filled": float(scaling.medians[place]) + column.origin,
    }


def _date(column: Date, scaling: Scaling, place: int) -> dict[str, Any]:
    return {"format": " or ".join(column.formats) or None, "parts": list(column.parts)}


def _category(column: Category, scaling: Scaling, place: int) -> dict[str, Any]:
    return {"categories": list(column.values)}


def _text(column: Text, scaling: Scaling, place: int) -> dict[str, Any]:
    return {"pieces": len(column.pieces)}


_LEARNT: dict[str, Callable[[Any, Scaling, int], dict[str, Any]]] = {
    "number": _number,
    "date": _date,
    "category": _category,
    "text": _text,
}
