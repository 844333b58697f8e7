"""The preparation of a table: its columns become the features of a network."""

import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.tables.encoding import KINDS, Category, Column, Date, Number, Text
from backprop_xp.tables.readers import TableData, as_frame

# In standard deviations: larger values would dominate all others.
MAX_DEVIATIONS = 100.0
# Numbers beyond float32 count as missing.
_LARGEST = np.finfo(np.float32).max
# Rows of a block: blocks bound the memory of copies.
_ROWS = 2**14


class Scaling(NamedTuple):
    """The standardization of numbers and dates: ``(features,)`` each, but for ``flagged``.

    A missing value becomes the median; each feature whose index is in ``flagged`` has an indicator.
    The means and deviations are those of the features, then of the indicators.
    """

    medians: np.ndarray
    flagged: np.ndarray
    means: np.ndarray
    deviations: np.ndarray

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the standardized features, then the indicators."""
        missing = np.isnan(values)
        filled = np.where(missing, self.medians, values)
        features: np.ndarray = np.concatenate([filled, missing[:, self.flagged]], axis=1)
        features -= self.means
        features /= self.deviations
        return features


UNSCALED = Scaling(np.empty(0), np.empty(0, dtype=np.intp), np.empty(0), np.empty(0))


@dataclass(frozen=True, eq=False)
class Preparation:
    """The function from a table's columns to the features ``(rows, n)`` of a network, float32.

    ``columns`` has the kind of each column in use, ``left_out`` the reason for each other one.
    Numbers and dates come first: standardized by ``scaling``, a missing value filled by the median,
    with an indicator. Categories are 0 and 1; free text becomes coordinates of its latent semantic
    analysis.
    """

    columns: dict[str, Column]
    left_out: dict[str, str]
    scaling: Scaling

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column: number, date, category or text."""
        return {name: column.kind for name, column in self.columns.items()}

    @property
    def n_features(self) -> int:
        """The number of features of a row."""
        return len(self.scaling.flagged) + sum(column.width for column in self.columns.values())

    @property
    def texts(self) -> list[str]:
        """The columns that must be read from a file as strings."""
        return [name for name, column in self.columns.items() if column.from_strings]

    def feature_indices(self) -> dict[str, list[int]]:
        """Return the indices of the features of each column, indicators included."""
        widths = {True: list[str](), False: list[str]()}
        for name, column in self.columns.items():
            widths[column.is_scaled] += [name] * column.width
        indicators = [widths[True][i] for i in self.scaling.flagged]
        indices: dict[str, list[int]] = {name: [] for name in self.columns}
        for i, name in enumerate([*widths[True], *indicators, *widths[False]]):
            indices[name].append(i)
        return indices

    def transform(self, data: TableData) -> np.ndarray:
        """Return the features of a table's rows, ``(rows, n)``, float32.

        ``data`` is a path, a pandas or a polars DataFrame; columns that are not used may be there
        or not. Raises ValueError, with the column's name, for a missing column and for a string
        where a number or a date is expected. A category that training did not have is encoded as
        none of the known ones; numbers are clipped at 100 standard deviations.
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
            scaled = self.scaling.transform(self.numbers(block))
            end = scaled.shape[1]
            np.clip(scaled, -MAX_DEVIATIONS, MAX_DEVIATIONS, out=out[rows, :end], casting="unsafe")
            for name, column in self.columns.items():
                if not column.is_scaled:
                    out[rows, end : end + column.width] = column.encode(block[name])
                    end += column.width
        return out

    def numbers(self, columns: Mapping[str, pd.Series]) -> np.ndarray:
        """Return the features to standardize, ``(rows, features)``, float64."""
        scaled = [c.encode(columns[name]) for name, c in self.columns.items() if c.is_scaled]
        rows = len(next(iter(columns.values())))
        values = np.concatenate([np.empty((rows, 0)), *scaled], axis=1)
        values[~(np.abs(values) <= _LARGEST)] = np.nan
        return values

    def to_bytes(self) -> np.ndarray:
        """Return the bytes of an npz file, without pickle, for ``from_bytes``."""
        arrays = {f"scaling.{name}": array for name, array in self.scaling._asdict().items()}
        header: dict[str, Any] = {"left_out": self.left_out, "columns": {}}
        for i, (name, column) in enumerate(self.columns.items()):
            fields = dataclasses.asdict(column)
            own = [field for field, value in fields.items() if isinstance(value, np.ndarray)]
            arrays |= {f"{i}.{field}": fields.pop(field) for field in own}
            header["columns"][name] = {"kind": column.kind, **fields}
        file = io.BytesIO()
        np.savez_compressed(file, **arrays, json=_as_array(json.dumps(header).encode()))
        return _as_array(file.getvalue())

    @classmethod
    def from_bytes(cls, data: np.ndarray) -> "Preparation":
        """Return the preparation of these bytes; ValueError for a pickle, or anything else."""
        try:
            with np.load(io.BytesIO(data.tobytes()), allow_pickle=False) as arrays:
                header = json.loads(arrays["json"].tobytes())
                columns = {
                    name: _column(i, fields, arrays)
                    for i, (name, fields) in enumerate(header["columns"].items())
                }
                scaling = Scaling(*(arrays[f"scaling.{name}"] for name in Scaling._fields))
            return cls(columns, header["left_out"], scaling)
        except (ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as e:
            raise ValueError(f"the preparation cannot be read: {e}") from e


def _as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def _column(i: int, fields: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Column:
    """Return the column of its fields; those that JSON lacks are arrays."""
    kind = KINDS[fields.pop("kind")]
    for name in [field.name for field in dataclasses.fields(kind)]:
        value = fields[name] if name in fields else arrays[f"{i}.{name}"]
        fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)


def described_columns(preparation: Preparation) -> list[dict[str, Any]]:
    """Return for each column its name, kind and number of features, and what it learnt.

    A number has ``mean``, ``deviation`` and ``filled``, which replaces a missing value; a category
    ``categories``; a date ``format`` and ``parts``; a text ``pieces``, the number of its groups of
    letters.
    """
    described, indices, scaling = [], preparation.feature_indices(), preparation.scaling
    for name, column in preparation.columns.items():
        learnt: dict[str, Any]
        match column:
            case Number(origin=origin):
                first = indices[name][0]
                learnt = {
                    "mean": float(scaling.means[first]) + origin,
                    "deviation": float(scaling.deviations[first]),
                    "filled": float(scaling.medians[first]) + origin,
                }
            case Date(formats=formats, parts=parts):
                learnt = {"format": " or ".join(formats) or None, "parts": list(parts)}
            case Category(values=values):
                learnt = {"categories": list(values)}
            case Text(pieces=pieces):
                learnt = {"pieces": len(pieces)}
        features = {"name": name, "kind": column.kind, "features": len(indices[name])}
        described.append({**features, **learnt})
    return described
