"""The features of a network, from the columns of a table."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.scaling import Scaling, within_range
from backprop_xp.tables.readers.frames import refuse_foreign

# Rows of a block: blocks bound the memory of copies.
_ROWS = 2**14


class MissingColumnError(ValueError):
    """A table lacks some of the columns that a model needs."""


@dataclass(frozen=True, eq=False)
class Features:
    """The function from a table's columns to the features ``(rows, n)`` of a network, float32.

    ``seen`` are all columns in their order: ``columns`` has the kind of each one in use,
    ``left_out`` the reason for each other one.
    Numbers and dates come first, scaled by ``scaling``, then their indicators of missing values.
    Categories of 0 and 1 and the coordinates of free text follow, and at last categories as codes.
    """

    columns: dict[str, Column]
    left_out: dict[str, str]
    scaling: Scaling
    seen: tuple[str, ...]

    @property
    def n_features(self) -> int:
        """The number of features of a row."""
        return len(self.scaling.flagged) + sum(column.width for column in self.columns.values())

    @property
    def n_scaled(self) -> int:
        """The number of the features that are scaled."""
        return sum(column.width for column in self.columns.values() if column.is_scaled)

    @property
    def texts(self) -> list[str]:
        """The columns that must be read from a file as strings."""
        return [name for name, column in self.columns.items() if column.from_strings]

    @property
    def numbers(self) -> list[str]:
        """The columns that must be read from a file as numbers."""
        return [n for n, one in self.columns.items() if one.has_numbers and not one.from_strings]

    @property
    def codes(self) -> list[int]:
        """The number of codes of each category that is a code, unknown values included."""
        return [column.n_codes for column in self.columns.values() if column.n_codes]

    @property
    def _unscaled(self) -> dict[str, Column]:
        """The columns that are not scaled, in the order of their features."""
        columns = [(name, c) for name, c in self.columns.items() if not c.is_scaled]
        return dict(sorted(columns, key=lambda item: item[1].n_codes > 0))

    def names(self) -> list[str]:
        """Return the name of each feature: ``.1`` follows one that another feature has already."""
        names = dict[str, None]()
        for _, name in self._origins():
            unique, i = name, 0
            while unique in names:
                i += 1
                unique = f"{name}.{i}"
            names[unique] = None
        return [*names]

    def feature_indices(self) -> dict[str, list[int]]:
        """Return the indices of the features of each column, indicators included."""
        indices: dict[str, list[int]] = {name: [] for name in self.columns}
        for i, (column, _) in enumerate(self._origins()):
            indices[column].append(i)
        return indices

    def _origins(self) -> list[tuple[str, str]]:
        """Return the column of each feature, and the feature's name."""
        scaled = {name: column for name, column in self.columns.items() if column.is_scaled}
        first, rest = (
            [(name, each) for name, column in columns.items() for each in column.names(name)]
            for columns in (scaled, self._unscaled)
        )
        flagged = [first[i] for i in self.scaling.flagged]
        return [*first, *((column, f"{name} missing") for column, name in flagged), *rest]

    def transform(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the features of the rows of a plain table, ``(rows, n)``, float32.

        Columns that are not used may be there or not. Raises ValueError, with the column's name,
        for a missing column, for a list, and for a string where a number or a date is expected.
        """
        missing = [name for name in self.columns if name not in frame]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            # A table without any of them is another table: its columns are not missing values.
            kind = MissingColumnError if len(missing) < len(self.columns) else ValueError
            raise kind(f"there is no column {missing[0]!r}{more}, which the model needs.")
        out = np.empty((len(frame), self.n_features), dtype=np.float32)
        for start in range(0, len(frame), _ROWS):
            block = frame.iloc[start : start + _ROWS]
            for name in self.columns:
                refuse_foreign(block[name])
            encoded = {name: column.encode(block[name]) for name, column in self.columns.items()}
            rows = out[start : start + _ROWS]
            np.concatenate(self.parts(encoded), axis=1, out=rows, casting="same_kind")
        return out

    def numbers_of(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the numbers to scale of the rows of a plain table, float64, NaN where missing."""
        found = [c.encode(frame[name]) for name, c in self.columns.items() if c.is_scaled]
        none = np.empty((len(frame), 0))
        return np.asarray(within_range(np.concatenate([none, *found], axis=1)))

    def encoded_codes(self, frame: pd.DataFrame) -> np.ndarray:
        """Return the last features of the rows of a plain table, those of ``codes``, as integers.

        Only the columns of these features are needed.
        """
        found = [c.encode(frame[name]) for name, c in self.columns.items() if c.n_codes]
        if not found:
            return np.empty((len(frame), 0), dtype=np.intp)
        return np.concatenate(found, axis=1).astype(np.intp)

    def refuse_without_graph(self, language: str) -> None:
        """Raise ValueError for a column, such as one of free text, that no graph or C can read."""
        names = [name for name, column in self.columns.items() if not column.has_graph]
        if names:
            raise ValueError(
                f"{language} has no operations for the kind {self.columns[names[0]].kind!r} of the "
                f"column {names[0]!r}: leave it out of the training, "
                f"{' '.join(f'--drop {shlex.quote(name)}' for name in names)}, or make it a "
                f"category, --kind {shlex.quote(f'{names[0]}=category')}."
            )

    def slopes(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """Return the derivatives of features by their number, NaN where it is missing.

        They are ``(rows, width)`` for each column of numbers, the first of ``feature_indices``.
        """
        scaled = self.scaling.slopes(self.numbers_of(frame))
        start, found = 0, dict[str, np.ndarray]()
        for name, column in self.columns.items():
            end = start + column.width if column.is_scaled else start
            if (own := column.slopes(frame[name])) is not None:
                found[name] = own * scaled[:, start:end] if column.is_scaled else own
            start = end
        return found

    def parts(self, encoded: Mapping[str, Array]) -> list[Array]:
        """Return the features of encoded columns, of any array library, in parts side by side."""
        scaled = [encoded[name] for name, column in self.columns.items() if column.is_scaled]
        unscaled = [encoded[name] for name in self._unscaled]
        if not scaled:
            return unscaled
        numbers = array_namespace(scaled[0]).concat(scaled, axis=1)
        return [*self.scaling.transform(within_range(numbers)), *unscaled]


def described_columns(features: Features) -> list[dict[str, Any]]:
    """Return for each column its name, kind and number of features, and what it learnt.

    A number has ``center``, ``scale`` and ``filled``, which replaces a missing value; a category
    ``categories``; a date ``format``, ``parts`` and ``zone``; a text ``pieces``, the number of its
    groups of letters.
    """
    indices = features.feature_indices()
    return [
        {
            "name": name,
            "kind": column.kind,
            "features": len(indices[name]),
            **column.describe(features.scaling, indices[name][0]),
        }
        for name, column in features.columns.items()
    ]
