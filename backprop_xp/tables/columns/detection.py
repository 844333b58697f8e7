"""The detection of the kinds of columns from all rows, and what training rows teach about them."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial, reduce
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.column import Column, cell_error, choice_error
from backprop_xp.tables.columns.counts import Counts, OddCells
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.kinds import KINDS, kind_named, refuse_unknown
from backprop_xp.tables.columns.sample import Sample, samples_of
from backprop_xp.tables.columns.scaling import Weights, learn_scaling
from backprop_xp.tables.columns.tolerance import BadValues, in_row
from backprop_xp.tables.readers.cells import CellError, placed

# Returns the place of a row for the user.
Place: TypeAlias = Callable[[int], str]


class Detected(NamedTuple):
    """The kinds of a table's columns, which all rows have decided, without any target.

    ``columns`` have no vocabularies yet; ``left_out`` has the reason for each other column.
    ``doubts`` are sentences about columns that could be read in another way. ``odd`` are the cells
    that are read as missing, and ``place`` returns the place of a row.
    """

    columns: dict[str, Column]
    left_out: dict[str, str]
    doubts: Mapping[str, str]
    odd: Mapping[str, OddCells] = {}
    place: Place = in_row

    def lines(self) -> Iterator[str]:
        """Yield lines for the user about columns that are not read as they are."""
        for name, reason in self.left_out.items():
            yield f"{name!r} is left out: it is {reason}"
        for name, cells in self.odd.items():
            first, (row, _) = next(iter(cells.cells.items()))
            yield BadValues(name, cells.total, first, row).at(self.place(row))
        for name, doubt in self.doubts.items():
            yield f"the column {name!r}: {doubt}"

    def odd_cells(self, frame: pd.DataFrame) -> dict[str, OddCells]:
        """Return the odd cells of those columns that a piece of the rows has."""
        return {n: one.odd_cells(frame[n]) for n, one in self.columns.items() if n in frame}

    def with_odd(self, odd: Mapping[str, OddCells], chosen: Collection[str]) -> "Detected":
        """Return the kinds, which read the odd cells of all rows as missing values.

        Those of a column of strings are few, for all its strings have decided its kind. Another
        column has odd cells in another table than the first: ``CellError`` if these are not few,
        and for any odd cell of a column whose kind was ``chosen``.
        """
        columns = dict(self.columns)
        for name, cells in odd.items():
            new, column = cells.without(columns[name].odd_strings), columns[name]
            are_few = column.from_strings or new.are_few
            if new.total and (name in chosen or not are_few):
                raise self._odd_error(name, new, is_chosen=name in chosen)
            columns[name] = column.with_odd(new.cells)
        return self._replace(columns=columns, odd={n: one for n, one in odd.items() if one.total})

    def _odd_error(self, name: str, odd: OddCells, *, is_chosen: bool) -> CellError:
        """Return the error about the first odd cell of a column."""
        string, (row, _) = next(iter(odd.cells.items()))
        cell, wrong = pd.Series([string], [row], name=name), np.ones(1)
        if is_chosen:
            return choice_error(cell, wrong, self.columns[name].kind)
        what = (
            f"{self.columns[name].expected} is expected, as in other rows. Such strings are in "
            f"{odd.total:,} of {odd.present:,} cells, too many to be read as missing"
        )
        advice = f"correct them, leave them empty, or choose kinds={{{name!r}: 'category'}}"
        return cell_error(cell, wrong, what, advice)

    def finished(
        self, counts: Mapping[str, Counts], max_one_hot: int | None, seed: int
    ) -> dict[str, Column]:
        """Return the columns with what the counts of training rows teach."""
        return {
            name: one.finish(counts[name], above=max_one_hot, seed=seed)
            for name, one in self.columns.items()
        }

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
        counts = {name: one.count(frame[name], weights) for name, one in self.columns.items()}
        columns = self.finished(counts, max_one_hot, seed)
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
    ends = itertools.accumulate(map(len, frames))
    numbered = [
        one.set_axis(range(end - len(one), end)) for one, end in zip(frames, ends, strict=True)
    ]
    place = partial(_place_in, frames, places)
    with placed(place):
        found = kinds_of(samples_of(one[[*frames[0]]] for one in numbered), kinds or {})
        first, *others = map(found.odd_cells, numbered)
        odd = {n: reduce(OddCells.merge, (o[n] for o in others), one) for n, one in first.items()}
        return found.with_odd(odd, kinds or {})._replace(place=place)


def kinds_of(samples: Mapping[str, Sample], kinds: Mapping[str, str]) -> Detected:
    """Return the kinds of columns with these samples of all rows, as ``detect`` does.

    The odd cells that the samples lack follow by ``with_odd``.
    """
    refuse_unknown(kinds, samples)
    columns, left_out, doubts = dict[str, Column](), dict[str, str](), dict[str, str]()
    for name, sample in samples.items():
        found = _kind_of(sample, kinds.get(name))
        if isinstance(found, str):
            left_out[name] = found
            continue
        columns[name] = found
        if doubt := found.doubt(sample):
            doubts[name] = doubt
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    return Detected(columns, left_out, doubts)


def detect_column(column: pd.Series) -> Column | str:
    """Return a column of the detected kind, or why it is left out."""
    return _kind_of(Sample.of(column), None)


def _kind_of(sample: Sample, kind: str | None) -> Column | str:
    if reason := sample.reason_to_leave_out(has_words=kind is None or kind_named(kind).has_words):
        return reason
    if kind is not None:
        return kind_named(kind).chosen(sample)
    found = (kind_named(name).detect(sample) for name in KINDS)
    return next(one for one in found if one is not None)


def _place_in(frames: Sequence[pd.DataFrame], places: Sequence[Place], position: int) -> str:
    """Return the place of a row of frames that follow one another."""
    for frame, place in zip(frames, places, strict=True):
        if position < len(frame):
            return place(frame.index[position])
        position -= len(frame)
    raise IndexError(position)
