"""What the rows of a large table add up to: the totals of pieces, merged over pieces and ranks."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.counts import Counts, OddCells
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.tolerance import BadValues, in_row
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.target import Target, as_array


class Moments(NamedTuple):
    """The number of rows and their weight; the mean and the squared deviations of their target.

    The last two are 0 for classes.
    """

    rows: int = 0
    weight: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of the rows of both, by Chan et al. (1983), equation 2.1."""
        weight, delta = self.weight + other.weight, other.mean - self.mean
        part = other.weight / (weight or 1.0)
        squares = self.squares + other.squares + delta**2 * self.weight * part
        return Moments(self.rows + other.rows, weight, self.mean + delta * part, squares)


class Totals(NamedTuple):
    """The totals of rows, of which ``weightless`` have the weight 0.

    The moments, the weight of each class and the counts of columns are those of training rows.
    """

    moments: Moments
    by_class: Mapping[Any, float]
    weightless: int
    counts: Mapping[str, Counts]
    odd: Mapping[str, OddCells]

    def merge(self, other: "Totals") -> "Totals":
        """Return the totals of the rows of both, which have the same columns."""
        by_class = Counter[Any](self.by_class)
        by_class.update(other.by_class)  # a sum would lack classes of weight 0
        return Totals(
            self.moments.merge(other.moments),
            by_class,
            self.weightless + other.weightless,
            {name: one.merge(other.counts[name]) for name, one in self.counts.items()},
            {name: one.merge(other.odd[name]) for name, one in self.odd.items()},
        )

    def finish(
        self, features: Features, most: int | None, seed: int
    ) -> tuple[Features, Collection[str]]:
        """Return features with what these rows teach, and lines about odd cells.

        A category of more than ``most`` values is a code.
        """
        columns, lines = dict(features.columns), list[str]()
        for name, counts in self.counts.items():
            columns[name] = columns[name].finish(counts, above=most, seed=seed)
            if (cells := self.odd[name]).are_few:
                columns[name] = columns[name].with_odd(cells.strings)
                found = BadValues(name, cells.total, cells.strings[0], cells.row)
                lines.append(found.at(in_row(cells.row)))
        return replace(features, columns=columns), lines


def totals_of(
    rows: Rows, target: Target, columns: Mapping[str, Column], *, is_training: bool
) -> Totals:
    """Return the totals of rows with weights; other rows than training rows teach no column."""
    counted = rows.counted()
    moments, by_class, weights = Moments(), dict[Any, float](), np.asarray(rows.weights)
    counts = dict.fromkeys(columns, Counts())
    if is_training:
        weight, mean, squares = float(weights.sum()), 0.0, 0.0
        if target.classes:
            indices, names = pd.factorize(as_array(rows.target))
            found = np.bincount(indices, weights, len(names)).tolist()
            by_class = dict(zip(names.tolist(), found, strict=True))
        elif weight:
            y = target.values(rows.target)
            mean = float(weights @ y / weight)
            squares = float(weights @ (y - mean) ** 2)
        moments = Moments(len(counted.target), weight, mean, squares)
        counts = {
            name: one.count(counted.features[name], counted.weights)
            for name, one in columns.items()
        }
    odd = {name: one.odd_cells(counted.features[name]) for name, one in columns.items()}
    return Totals(moments, by_class, len(weights) - len(counted.target), counts, odd)
