"""What the rows of a large table add up to: the totals of pieces, merged over pieces and ranks."""

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
            {name: one.merge(other.odd[name]) for name, one in self.odd.items()},
        )


def totals_of(rows: Rows, target: Target, detected: Detected, *, is_training: bool) -> Totals:
    """Return the totals of rows with weights; other rows than training rows teach no column."""
    counted = rows.counted()
    weights, by_class = np.asarray(rows.weights), dict[Any, float]()
    columns, y = detected.columns, np.empty((0, 0 if target.classes else 1))
    counts = dict.fromkeys(columns, Counts())
    if is_training:
        y = np.empty((len(counted.target), y.shape[1]))
        if target.classes:
            indices, names = pd.factorize(as_array(rows.target))
            found = np.bincount(indices, weights, len(names)).tolist()
            by_class = dict(zip(names.tolist(), found, strict=True))
        else:
            y[:, 0] = target.values(counted.target)
        counts = {
            name: one.count(counted.features[name], counted.weights)
            for name, one in columns.items()
        }
    spread = Spread.of(y, counted.weights if is_training else np.empty(0))
    weightless = len(weights) - len(counted.target)
    return Totals(spread, by_class, weightless, counts, detected.odd_cells(counted.features))
