"""The detection of the kinds of columns, from training rows."""

from collections.abc import Mapping

import pandas as pd

from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.column import Column, Sample
from backprop_xp.tables.columns.date import Date
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.kinds import refuse_unknown
from backprop_xp.tables.columns.number import Number
from backprop_xp.tables.columns.scaling import learn_scaling
from backprop_xp.tables.columns.text import Text

# A column is of the first kind that detects it.
KINDS: dict[str, type[Column]] = {one.kind: one for one in (Date, Number, Category, Text)}


def detect(
    frame: pd.DataFrame,
    *,
    scaling: str,
    max_one_hot: int | None,
    seed: int,
    kinds: Mapping[str, str] | None = None,
) -> Features:
    """Return the features of a plain table, learnt from these training rows.

    ``scaling`` names one of ``SCALINGS``. A category of more than ``max_one_hot`` values becomes a
    code; None makes none. Without a code the 200 most frequent values are known. ``kinds`` has the
    kinds that the user chose, by the names of columns. Other columns that are identifiers are left
    out, and all that are empty or constant; ValueError if none is left.
    """
    kinds = kinds or {}
    refuse_unknown(kinds, frame)
    found = {str(name): detect_column(frame[name], seed, kinds.get(name)) for name in frame}
    left_out = {name: one for name, one in found.items() if isinstance(one, str)}
    columns = {
        name: one.with_codes(max_one_hot).with_most_frequent(frame[name])
        for name, one in found.items()
        if not isinstance(one, str)
    }
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    scaled = (one.encode(frame[name]) for name, one in columns.items() if one.is_scaled)
    return Features(columns, left_out, learn_scaling(scaled, scaling), tuple(found))


def detect_column(column: pd.Series, seed: int, kind: str | None = None) -> Column | str:
    """Return a column of a kind, by default of the detected one, or why it is left out."""
    sample = Sample(column, seed)
    if reason := sample.reason_to_leave_out(has_words=kind in (None, Category.kind)):
        return reason
    if kind is not None:
        return KINDS[kind].chosen(sample)
    found = (kind.detect(sample) for kind in KINDS.values())
    return next(one for one in found if one is not None)
