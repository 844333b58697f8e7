"""The detection of the kinds of columns from all rows, and what training rows teach about them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.column import Column, Sample, are_among
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.kinds import KINDS, kind_named, refuse_unknown
from backprop_xp.tables.columns.scaling import Weights, learn_scaling
from backprop_xp.tables.columns.tolerance import BadValues, in_row
from backprop_xp.tables.readers.cells import DECIMAL, are_odd, decimal_of, is_string, placed

# Returns the place of a row for the user.
Place: TypeAlias = Callable[[int], str]


class Detected(NamedTuple):
    """The kinds of a table's columns, which all rows have decided, without any target.

    ``columns`` have no vocabularies yet; ``left_out`` has the reason for each other column. ``odd``
    are the cells that are read as missing, with the function that returns the place of the first
    row, and ``doubts`` are sentences about columns that could be read in another way.
    """

    columns: dict[str, Column]
    left_out: dict[str, str]
    odd: Sequence[tuple[Place, BadValues]]
    doubts: Mapping[str, str]

    def lines(self) -> Iterator[str]:
        """Yield lines for the user about columns that are not read as they are."""
        for name, reason in self.left_out.items():
            yield f"{name!r} is left out: it is {reason}"
        for place, cells in self.odd:
            yield cells.at(place(cells.row))
        for name, doubt in self.doubts.items():
            yield f"the column {name!r}: {doubt}"

    def learn(
        self,
        frame: pd.DataFrame,
        weights: Weights,
        *,
        scaling: str,
        max_one_hot: int | None,
        seed: int,
    ) -> Features:
        """Return the features that training rows of these weights teach.

        ``scaling`` names one of ``SCALINGS``. A category of more than ``max_one_hot`` values
        becomes a code; None makes none. Without a code the 200 most frequent values are known.
        """
        columns = {
            name: one.finish(one.count(frame[name], weights), above=max_one_hot, seed=seed)
            for name, one in self.columns.items()
        }
        scaled = (one.encode(frame[name]) for name, one in columns.items() if one.is_scaled)
        learnt = learn_scaling(scaled, scaling, weights)
        return Features(columns, self.left_out, learnt, tuple(frame))


def detect(
    *frames: pd.DataFrame,
    kinds: Mapping[str, str] | None = None,
    places: Sequence[Place] = (in_row,),
) -> Detected:
    """Return the kinds of the columns of plain tables, which are parts of one.

    ``kinds`` has those that the user chose, by the names of columns. Other columns that are
    identifiers are left out, and all that are empty or constant. ``places`` return the place of a
    row, one function for each table. Raises ValueError if no column is left, and with the place for
    a value that is not of the chosen kind, or of another kind than the first table. All other
    values are read: ``Features.transform`` refuses none of them.
    """
    kinds, names = kinds or {}, [*frames[0]]
    refuse_unknown(kinds, names)
    columns, left_out = dict[str, Column](), dict[str, str]()
    odd, doubts = list[tuple[Place, BadValues]](), dict[str, str]()
    for name in names:
        parts = [frame[name] for frame in frames]
        joined = _alike(parts)
        sample = Sample(_joined([parts[i] for i in joined]))
        with placed(partial(_place_in, [parts[i] for i in joined], [places[i] for i in joined])):
            found = _kind_of(sample, kinds.get(name))
        if isinstance(found, str):
            left_out[name] = found
            continue
        if name not in kinds:
            found = _with_odd_cells(found, sample, parts)
        for i, part in enumerate(parts):
            if i not in joined:
                _refuse_unread(found, part, places[i])
        columns[name] = found
        odd += _odd_cells(found, parts, places)
        if doubt := found.doubt(sample):
            doubts[name] = doubt
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    return Detected(columns, left_out, odd, doubts)


def detect_column(column: pd.Series) -> Column | str:
    """Return a column of the detected kind, or why it is left out."""
    return _kind_of(Sample(column), None)


def _kind_of(sample: Sample, kind: str | None) -> Column | str:
    if reason := sample.reason_to_leave_out(has_words=kind is None or kind_named(kind).has_words):
        return reason
    if kind is not None:
        return kind_named(kind).chosen(sample)
    found = (kind_named(name).detect(sample) for name in KINDS)
    return next(one for one in found if one is not None)


def _alike(parts: Sequence[pd.Series]) -> list[int]:
    """Return the indices of the parts that are of one type with the first that has any value.

    Numbers and strings have different styles: the values of the first part decide.
    """
    present = [i for i, part in enumerate(parts) if part.notna().any()] or [0]
    return [i for i in present if _type_of(parts[i]) == _type_of(parts[present[0]])]


def _joined(alike: Sequence[pd.Series]) -> pd.Series:
    """Return parts of one type as one column, whose index has the positions."""
    if len(alike) == 1:
        return alike[0].reset_index(drop=True)
    if is_string(alike[0]):
        strings = [part.astype("str") for part in alike]
        joined = pd.concat(strings, ignore_index=True).astype(_type_of(alike[0]))
    elif alike[0].dtype.kind in "mM":
        joined = pd.concat(alike, ignore_index=True)
    else:
        joined = pd.Series(np.concatenate(alike), name=alike[0].name)
    joined.attrs[DECIMAL] = next(filter(None, map(decimal_of, alike)), None)
    return joined


def _type_of(column: pd.Series) -> str:
    """Return the type of a plain column; all numbers and booleans are alike."""
    return "number" if column.dtype.kind in "fiub" else str(column.dtype)


def _with_odd_cells(column: Column, sample: Sample, parts: Sequence[pd.Series]) -> Column:
    """Return a column that also reads the few odd cells of parts of another type as missing."""
    others = [part for part in parts if is_string(part) and not is_string(sample.column)]
    odd = [value for part in others for value in part[column.wrong(part)]]
    n = sum(int(part.notna().sum()) for part in parts)
    return column.with_odd(odd) if are_odd(len(odd), n - len(odd)) else column


def _place_in(parts: Sequence[pd.Series], places: Sequence[Place], position: int) -> str:
    """Return the place of a row of joined parts."""
    for part, place in zip(parts, places, strict=True):
        if position < len(part):
            return place(part.index[position])
        position -= len(part)
    raise IndexError(position)


def _refuse_unread(column: Column, part: pd.Series, place: Place) -> None:
    """Raise ValueError, with its place, for a value of another kind."""
    wrong = column.wrong(part)
    if wrong.any():
        with placed(place):
            column.encode(part[wrong].head(1))


def _odd_cells(
    column: Column, parts: Sequence[pd.Series], places: Sequence[Place]
) -> list[tuple[Place, BadValues]]:
    """Return the cells of a column that are read as missing, with the first one's place."""
    masks = [are_among(part, column.odd_strings) for part in parts]
    total = sum(int(mask.sum()) for mask in masks)
    for part, mask, place in zip(parts, masks, places, strict=True):
        if mask.any():
            row = int(mask.argmax())
            return [(place, BadValues(str(part.name), total, part.iloc[row], part.index[row]))]
    return []
