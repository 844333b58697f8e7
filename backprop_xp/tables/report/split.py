"""The split of a table's rows into parts and folds: by class, by group, by time or by a hash."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.model_selection import (
    GroupKFold,
    KFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    TimeSeriesSplit,
    train_test_split,
)

from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.detection import detect_column
from backprop_xp.tables.columns.scaling import within_range
from backprop_xp.tables.readers.cells import CellError
from backprop_xp.training.rows.preprocessing import split_rows


def hashed(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each integer: the output of SplitMix64 (Steele et al. 2014)."""
    z = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    z = z + numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


class SplitRule(NamedTuple):
    """What decides about rows: their numbers, the classes' indices or None, and units or None.

    The units are the groups, or with ``by_time`` the times: rows of one unit stay together. With
    ``by_hash`` the rows are a piece of a table: the hash of a row or its unit chooses the part.
    """

    numbers: np.ndarray
    classes: np.ndarray | None
    units: np.ndarray | None
    by_time: bool
    seed: int
    by_hash: bool = False

    def take(self, rows: np.ndarray) -> "SplitRule":
        """Return the rule of the rows of these indices."""
        classes, units = (a if a is None else a[rows] for a in (self.classes, self.units))
        return self._replace(numbers=self.numbers[rows], classes=classes, units=units)

    def labels(self, shares: Mapping[str, float], cv: int | None = None) -> np.ndarray:
        """Return the part of each row in each split, ``(splits, rows)``: ``""`` is none.

        The parts are ``"training"`` and those with a share. The first split is of all rows; each of
        ``cv`` further ones has a fold as its ``"test"`` rows, and splits that fold's training rows.
        """
        labels = np.full((1 + (cv or 0), len(self.numbers)), "", dtype="U10")
        labels[0] = self._drawn(shares)
        for fold, (training, tested) in zip(labels[1:], self.folds(cv) if cv else (), strict=True):
            fold[training] = self.take(training)._drawn(shares)
            fold[tested] = "test"
        return labels

    def _drawn(self, shares: Mapping[str, float]) -> np.ndarray:
        """Return the part of each row, drawn in the order of the shares, or ``"training"``.

        The shares are those of the units. By time each part is the newest of the rest.
        """
        if self.by_hash:
            values = hashed(self.numbers if self.units is None else self.units, self.seed)
            drawn = np.searchsorted(np.cumsum([*shares.values()]), values, side="right")
            return np.asarray([*shares, "training"])[drawn]
        labels = np.full(len(self.numbers), "training", dtype="U10")
        if self.units is None:
            parts = split_rows(len(labels), shares, self.seed, classes=self.classes)
            for name, rows in parts.items():
                labels[rows] = name
            return labels
        rest = np.unique(self.units)
        counts = {name: max(1, round(share * len(rest))) for name, share in shares.items()}
        if sum(counts.values()) >= len(rest):
            raise ValueError(
                f"too few different {'times' if self.by_time else 'groups'} ({len(rest)}) for "
                f"{', '.join(counts)} and training rows: give more rows, or smaller shares."
            )
        order = {"shuffle": False} if self.by_time else {"random_state": self.seed % 2**32}
        for name, count in counts.items():
            rest, part = train_test_split(rest, test_size=count, **order)
            labels[self._of(part)] = name
        return labels

    def folds(self, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return scikit-learn's folds: the row indices to train on, and those to predict."""
        if self.units is not None and self.by_time:
            units = np.unique(self.units)
            sides = TimeSeriesSplit(count).split(units)
            return [(self._of(units[old]), self._of(units[new])) for old, new in sides]
        if self.units is None:
            kind = KFold if self.classes is None else StratifiedKFold
        else:
            kind = GroupKFold if self.classes is None else StratifiedGroupKFold
        made = kind(count, shuffle=True, random_state=self.seed % 2**32)
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # a class of few rows
            return list(made.split(self.numbers, self.classes, self.units))

    def _of(self, units: np.ndarray) -> np.ndarray:
        """Return the indices of the rows of these units."""
        return np.flatnonzero(np.isin(np.asarray(self.units), units))


def groups_of(column: pd.Series, *, by_hash: bool = False) -> np.ndarray:
    """Return the index, or the hash, of the group of each row; ``CellError`` for a missing one."""
    values = column.to_numpy()
    _refuse_missing("group", column, pd.isna(values))
    return pd.util.hash_array(values) if by_hash else np.unique(values, return_inverse=True)[1]


def times_of(column: pd.Series, known: Column | None = None) -> np.ndarray:
    """Return the index of the time of each row, in their order; ``CellError`` for a missing one.

    ``known`` is the column's kind, if it is a feature. A time is missing where its feature would
    be: also 9999-12-31, or infinity.
    """
    found = known or detect_column(column.rename(None))  # also a row number is a time
    if isinstance(found, str) or (values := found.sort_key(column)) is None:
        kind = found if isinstance(found, str) else f"a {found.kind}"
        raise ValueError(f"the time {column.name!r} is {kind}, but must hold dates or numbers.")
    missing = np.isnan(within_range(found.encode(column))).any(axis=1)
    hint = " Infinity and the years 1 and 9999 are missing, too."
    _refuse_missing("time", column, missing, hint)
    return np.unique(values, return_inverse=True)[1]


def _refuse_missing(what: str, column: pd.Series, missing: np.ndarray, hint: str = "") -> None:
    if missing.any():
        raise CellError(
            f"the {what} {column.name!r} is missing",
            f": fill it, or omit such rows.{hint}",
            column.index[missing.argmax()],
        )
