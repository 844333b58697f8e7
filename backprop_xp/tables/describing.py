"""What a preparation knows of each column, for who inspects a model."""

from typing import Any

from backprop_xp.tables.preparation import Preparation


def described_columns(preparation: Preparation) -> list[dict[str, Any]]:
    """Return for each column its name, its kind, its features' number, and what was learnt of it.

    Of a number ``mean``, ``deviation`` and ``filled`` (what takes the place of a missing value), of
    a category ``categories``, of a date ``format`` and ``parts``, of a text ``pieces``, the number
    of different groups of letters.
    """
    first = 0
    told = []
    for name, kind in preparation.kinds.items():
        features = len(preparation.places()[name])
        learnt = _LEARNT[kind](preparation, name, first)
        told.append({"name": name, "kind": kind, "features": features, **learnt})
        first += preparation.widths[name] if kind in ("number", "date") else 0
    return told


def _number(preparation: Preparation, name: str, place: int) -> dict[str, Any]:
    imputer, scaler = preparation.scaling  # type: ignore[misc]
    return {
        "mean": float(scaler.mean_[place]),
        "deviation": float(scaler.scale_[place]),
        "filled": float(imputer.statistics_[place]),
    }


def _date(preparation: Preparation, name: str, place: int) -> dict[str, Any]:
    steps = {type(step).__name__: step for step in preparation.steps[name]}
    encoder = steps["DatetimeEncoder"]
    parts = [str(part).removeprefix(f"{name}_") for part in encoder.all_outputs_]
    return {"format": getattr(steps.get("ToDatetime"), "format_", None), "parts": parts}


def _category(preparation: Preparation, name: str, place: int) -> dict[str, Any]:
    (categories,) = preparation.steps[name][-1].categories_
    return {"categories": [None if value != value else str(value) for value in categories]}


def _text(preparation: Preparation, name: str, place: int) -> dict[str, Any]:
    return {"pieces": len(preparation.steps[name][-1].vectorizer_.vocabulary_)}


_LEARNT = {"number": _number, "date": _date, "category": _category, "text": _text}
