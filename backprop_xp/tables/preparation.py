"""From columns to numbers: what is done with each column of a table, learnt from training rows."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.tables.encoding import KINDS, Column, encoded
from backprop_xp.tables.readers import as_frame

# In standard deviations: what is further out would drown everything else.
FAR = 100.0
# Numbers beyond float32 are as good as missing.
_LARGEST = np.finfo(np.float32).max
# Rows that are prepared at once: enough to be fast, few enough for copies to be small.
_ROWS = 2**14


class Scaling(NamedTuple):
    """How numbers and dates are standardised: ``(features,)`` each, but for ``flagged``.

    A missing value becomes the median; each of the features ``flagged`` has an indicator of it.
    The means and deviations are of the features and then of the indicators.
    """

    medians: np.ndarray
    flagged: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return standardised features, with their indicators behind them."""
        missing = np.isnan(values)
        filled = np.where(missing, self.medians, values)
        found: np.ndarray = np.concatenate([filled, missing[:, self.flagged]], axis=1)
        found -= self.means
        found /= self.deviations
        return found


UNSCALED = Scaling(np.empty(0), np.empty(0, dtype=np.intp), np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False)
class Preparation:
    """What makes a table's columns the features ``(rows, n)`` of a network, float32.

    ``columns`` has what was learnt of each column that is used, ``left_out`` of the others why they
    are not. Numbers and dates come first, what is missing among them filled by the median, with an
    indicator, then standardised (``scaling``); categories are 0 and 1; texts are coordinates of
    their latent semantic analysis.
    """

    columns: dict[str, Column]
    left_out: dict[str, str]
    scaling: Scaling

    @property
    def kinds(self) -> dict[str, str]:
        """Whether each column is a number, a date, a category or a text."""
        return {name: column.kind for name, column in self.columns.items()}

    @property
    def n_features(self) -> int:
        """How many features a row has."""
        return len(self.scaling.flagged) + sum(column.width for column in self.columns.values())

    @property
    def texts(self) -> list[str]:
        """The columns that have to be read from a file as they are written there."""
        return [name for name, column in self.columns.items() if column.is_written]

    def places(self) -> dict[str, list[int]]:
        """Return which of the features each column became, indicators included."""
        found: dict[str, list[int]] = {name: [] for name in self.columns}
        scaled = [name for name in self._scaled() for _ in range(self.columns[name].width)]
        for place, name in enumerate(scaled):
            found[name].append(place)
        for i, place in enumerate(self.scaling.flagged.tolist()):
            found[scaled[place]].append(len(scaled) + i)
        end = len(scaled) + len(self.scaling.flagged)
        for name, column in self.columns.items():
            if not column.is_scaled:
                found[name] += range(end, end + column.width)
                end += column.width
        return found

    def _scaled(self) -> list[str]:
        return [name for name, column in self.columns.items() if column.is_scaled]

    def transform(self, data: Any) -> np.ndarray:
        """Return the features of a table's rows, ``(rows, n)``, float32.

        ``data`` is a path, a pandas or a polars frame; columns that are not used may be there or
        not. Raises ValueError, naming the column, for one that is missing and for texts where
        numbers or dates are expected; a category that training had not is none of the known ones,
        and a number beyond 100 standard deviations is there.
        """
        frame = as_frame(data, texts=self.texts)
        missing = [name for name in self.columns if name not in frame]
        if missing:
            others = f" (and {len(missing) - 1} others)" if len(missing) > 1 else ""
            raise ValueError(f"there is no column {missing[0]!r}{others}, which the model needs.")
        columns = {name: frame[name] for name in self.columns}
        out = np.empty((len(frame), self.n_features), dtype=np.float32)
        for start in range(0, len(frame), _ROWS):
            rows = slice(start, start + _ROWS)
            block = {name: column.iloc[rows] for name, column in columns.items()}
            found = self.scaling.transform(self.numbers(block))
            end = found.shape[1]
            np.clip(found, -FAR, FAR, out=out[rows, :end], casting="unsafe")
            for name, column in self.columns.items():
                if not column.is_scaled:
                    out[rows, end : end + column.width] = encoded(block[name], column)
                    end += column.width
        return out

    def numbers(self, columns: Mapping[str, pd.Series]) -> np.ndarray:
        """Return what is to be standardised of columns by names, ``(rows, features)``, float64."""
        found = [encoded(columns[name], self.columns[name]) for name in self._scaled()]
        rows = len(next(iter(columns.values())))
        values = np.concatenate([np.empty((rows, 0)), *found], axis=1)
        values[~(np.abs(values) <= _LARGEST)] = np.nan
        return values

    def to_bytes(self) -> np.ndarray:
        """Return what ``from_bytes`` makes the preparation of: an npz file, without pickle."""
        arrays = {f"scaling.{name}": array for name, array in self.scaling._asdict().items()}
        told: dict[str, Any] = {"left_out": self.left_out, "columns": {}}
        for i, (name, column) in enumerate(self.columns.items()):
            parts = {part.name: getattr(column, part.name) for part in dataclasses.fields(column)}
            arrays |= {f"{i}.{part}": parts.pop(part) for part in column.arrays}
            told["columns"][name] = {"kind": column.kind, **parts}
        file = io.BytesIO()
        np.savez_compressed(file, **arrays, json=_as_bytes(json.dumps(told).encode()))
        return _as_bytes(file.getvalue())

    @classmethod
    def from_bytes(cls, data: np.ndarray) -> "Preparation":
        """Return the preparation of bytes; ValueError for a pickle, or something else."""
        try:
            with np.load(io.BytesIO(data.tobytes()), allow_pickle=False) as arrays:
                told = json.loads(arrays["json"].tobytes())
                columns = {
                    name: _column(i, parts, arrays)
                    for i, (name, parts) in enumerate(told["columns"].items())
                }
                scaling = Scaling(*(arrays[f"scaling.{name}"] for name in Scaling._fields))
            return cls(columns, told["left_out"], scaling)
        except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as e:
            raise ValueError(f"the preparation cannot be read: {e}") from e


def _as_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _column(i: int, parts: dict[str, Any], arrays: Any) -> Column:
    kind: Any = KINDS[parts.pop("kind")]
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in parts.items()}
    found: Column = kind(**plain, **{part: arrays[f"{i}.{part}"] for part in kind.arrays})
    return found
