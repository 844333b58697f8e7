"""Rows of a table with their target and weights."""

import hashlib
from typing import NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.tables.readers.table_files import TableData


def without_tiny(weights: np.ndarray) -> np.ndarray:
    """Return weights, with 0 for those that float32 reads as 0 beside the largest."""
    least = float(np.finfo("float32").tiny) * weights.max(initial=0.0)
    return np.where(weights < least, 0.0, weights)


class Rows(NamedTuple):
    """Rows: their features as plain columns, the target column, and their weights or None.

    ``source`` is the file or the table that they come from, if that is known. ``slopes`` are the
    derivatives of the target by columns of numbers, NaN where not known, if any are learned.
    """

    features: pd.DataFrame
    target: pd.Series
    weights: np.ndarray | None
    source: TableData = None
    slopes: pd.DataFrame | None = None

    def take(self, rows: np.ndarray) -> "Rows":
        """Return the rows of these indices."""
        weights = None if self.weights is None else self.weights[rows]
        slopes = None if self.slopes is None else self.slopes.iloc[rows]
        features, target = self.features.iloc[rows], self.target.iloc[rows]
        return Rows(features, target, weights, self.source, slopes)

    def counted(self) -> "Rows":
        """Return the rows whose weight is above 0."""
        if self.weights is None or self.weights.all():
            return self
        return self.take(np.flatnonzero(self.weights))

    def fingerprint(self) -> str:
        """Return the SHA-256 of the values and the columns."""
        digest = hashlib.sha256()
        columns = [*(self.features[name] for name in self.features), self.target]
        if self.weights is not None:
            columns.append(pd.Series(self.weights, name="weights"))
        if self.slopes is not None:
            columns += [self.slopes[name].rename(f"dy {name}") for name in self.slopes]
        for column in columns:
            digest.update(f"{column.name} {column.dtype}".encode())
            digest.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
        return digest.hexdigest()

    def scaled_weights(self) -> np.ndarray | None:
        """Return the weights with the mean 1, so that a common factor changes nothing."""
        if self.weights is None or not len(self.weights):
            return None
        weights = self.weights / self.weights.max()  # the sum of all may be infinite
        return np.asarray(weights / weights.mean())
