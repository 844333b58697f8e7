"""The totals of the rows of a large table, merged over the pieces of a rank and over ranks."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.counts import Counts, OddCells
from backprop_xp.tables.columns.detection import Detected
from backprop_xp.tables.columns.scaling import Spread
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.target import Target, as_array


class Totals(NamedTuple):
    """The totals of rows, of which ``weightless`` have the weight 0.

    The spread of a target of numbers, the weight of each class and the counts of columns are those
    of training rows. The odd cells are those of all rows.
    """

    target: Spread
    by_class: Mapping[Any, float]
    weightless: int
    counts: Mapping[str, Counts]
    odd: Mapping[str, OddCells]

    def merge(self, other: "Totals") -> "Totals":
        """Return the totals of the rows of both, which have the same columns."""
        by_class = Counter[Any](self.by_class)
        by_class.update(other.by_class)  # a sum would lack classes of weight 0
        return Totals(
            self.target.merge(other.target),
            by_class,
            self.weightless + other.weightless,
            {name: one.merge(other.counts[name]) for name, one in self.counts.items()},
            _merged_odd(self.odd, other.odd),
        )

    def with_held(self, rows: Rows, detected: Detected) -> "Totals":
        """Return the totals with other rows than training rows, which teach no column."""
        counted = rows.counted()
        return self._replace(
            weightless=self.weightless + len(rows.target) - len(counted.target),
            odd=_merged_odd(self.odd, detected.odd_cells(counted.features)),
        )


def training_totals(rows: Rows, target: Target, detected: Detected) -> Totals:
    """Return the totals of training rows with weights."""
    counted, by_class = rows.counted(), dict[Any, float]()
    y = np.empty((len(counted.target), 0 if target.classes else 1))
    if target.classes:
        indices, names = pd.factorize(as_array(rows.target))
        found = np.bincount(indices, rows.weights, len(names)).tolist()
        by_class = dict(zip(names.tolist(), found, strict=True))
    else:
        y[:, 0] = target.values(counted.target)
    columns, features, weights = detected.columns.items(), counted.features, counted.weights
    return Totals(
        Spread.of(y, weights),
        by_class,
        len(rows.target) - len(counted.target),
        {name: one.count(features[name], weights) for name, one in columns},
        detected.odd_cells(features),
    )


def _merged_odd(odd: Mapping[str, OddCells], others: Mapping[str, OddCells]) -> dict[str, OddCells]:
    return {name: cells.merge(others[name]) for name, cells in odd.items()}
