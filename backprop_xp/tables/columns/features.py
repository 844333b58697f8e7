"""The features of a network, from the columns of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.tables.columns.encoding import Category, Column, Date, Number, Text

# In units of the scale: larger values would dominate all others.
MAX_DEVIATIONS = 100.0
# The bound of robustly scaled numbers.
_SMOOTH_BOUND = 3.0
# Numbers beyond float32 count as missing.
_LARGEST = float(np.finfo(np.float32).max)
# Rows of a block: blocks bound the memory of copies.
_ROWS = 2**14

# Returns the centers and the scales of filled values ``(rows, features)``.
_Learner: TypeAlias = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Scaling(NamedTuple):
    """The scaling of numbers and dates: ``(features,)`` each, but for ``flagged`` and ``bound``.

    A missing value becomes the median; each feature whose index is in ``flagged`` has an indicator.
    The centers and scales are those of the features, then of the indicators. A positive ``bound`` b
    limits the features x smoothly, ``x / sqrt(1 + (x / b)**2)``; 0 does not.
    """

    medians: np.ndarray
    flagged: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    bound: np.ndarray

    @property
    def name(self) -> str:
        """The name of the scaling in ``SCALINGS``."""
        return "robust" if float(self.bound) else "standardize"

    def transform(self, values: Array) -> tuple[Array, Array]:
        """Return the scaled features and the indicators, limited to 100."""
        xp = array_namespace(values)
        medians, flagged, centers, scales, _ = (xp.asarray(field) for field in self)
        missing, n = xp.isnan(values), len(self.medians)
        numbers = xp.where(missing, medians, values)
        numbers -= centers[:n]
        numbers /= scales[:n]
        if bound := float(self.bound):
            numbers /= xp.sqrt(1.0 + (numbers / bound) ** 2)
        flags = xp.astype(xp.take(missing, flagged, axis=1), xp.float64)
        flags -= centers[n:]
        flags /= scales[n:]
        return tuple(xp.clip(part, -MAX_DEVIATIONS, MAX_DEVIATIONS) for part in (numbers, flags))


def within_range(values: Array) -> Array:
    """Return numbers with NaN in place of those beyond float32."""
    xp = array_namespace(values)
    return xp.where(xp.abs(values) <= _LARGEST, values, xp.nan)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return means and standard deviations, 1 for a feature that is constant to rounding."""
    means, deviations = values.mean(axis=0), values.std(axis=0)
    rounding = len(values) * np.finfo("float64").eps * np.abs(means)
    return means, np.where(deviations > rounding, deviations, 1.0)


def _robust(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return medians and interquartile ranges; half the whole range instead of a range of 0."""
    low, quarter, median, quarters, high = np.quantile(values, [0.0, 0.25, 0.5, 0.75, 1.0], axis=0)
    scales = np.where(quarters > quarter, quarters - quarter, (high - low) / 2.0)
    return median, np.where(scales > 0.0, scales, 1.0)


# The bound is that of RealMLP (Holzmüller et al. 2024, "Better by default").
SCALINGS: dict[str, tuple[_Learner, float]] = {
    "standardize": (_standard, 0.0),
    "robust": (_robust, _SMOOTH_BOUND),
}


def learn_scaling(columns: Mapping[str, Column], frame: pd.DataFrame, scaling: str) -> Scaling:
    """Return the scaling of the numbers and dates of a plain table."""
    learn, bound = SCALINGS[scaling]
    scaled = [c.encode(frame[name]) for name, c in columns.items() if c.is_scaled]
    if not scaled:
        none, indices = np.empty(0), np.empty(0, dtype=np.intp)
        return Scaling(none, indices, none, none, np.asarray(bound))
    values = within_range(np.concatenate(scaled, axis=1))
    missing = np.isnan(values)
    is_empty = missing.all(axis=0)
    medians = np.nanmedian(np.where(is_empty, 0.0, values), axis=0)
    flagged = np.flatnonzero(missing.any(axis=0))
    centers, scales = learn(np.where(missing, medians, values))
    shares, deviations = _standard(missing[:, flagged].astype("float64"))
    return Scaling(
        medians,
        flagged,
        np.concatenate([centers, shares]),
        np.concatenate([scales, deviations]),
        np.asarray(bound),
    )


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
    def texts(self) -> list[str]:
        """The columns that must be read from a file as strings."""
        return [name for name, column in self.columns.items() if column.from_strings]

    @property
    def codes(self) -> list[int]:
        """The number of codes of each category that is a code, unknown values included."""
        columns = self.columns.values()
        return [len(c.values) + 1 for c in columns if isinstance(c, Category) and c.is_code]

    @property
    def _unscaled(self) -> dict[str, Column]:
        """The columns that are not scaled, in the order of their features."""
        columns = [(name, c) for name, c in self.columns.items() if not c.is_scaled]
        return dict(sorted(columns, key=lambda item: getattr(item[1], "is_code", False)))

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
        for a missing column and for a string where a number or a date is expected.
        """
        missing = [name for name in self.columns if name not in frame]
        if missing:
            more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise ValueError(f"there is no column {missing[0]!r}{more}, which the model needs.")
        out = np.empty((len(frame), self.n_features), dtype=np.float32)
        for start in range(0, len(frame), _ROWS):
            block = frame.iloc[start : start + _ROWS]
            encoded = {name: column.encode(block[name]) for name, column in self.columns.items()}
            rows = out[start : start + _ROWS]
            np.concatenate(self.parts(encoded), axis=1, out=rows, casting="same_kind")
        return out

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
    described, indices, scaling = [], features.feature_indices(), features.scaling
    for name, column in features.columns.items():
        learnt: dict[str, Any]
        match column:
            case Number(origin=origin):
                first = indices[name][0]
                learnt = {
                    "center": float(scaling.centers[first]) + origin,
                    "scale": float(scaling.scales[first]),
                    "filled": float(scaling.medians[first]) + origin,
                }
            case Date(formats=formats, parts=parts, zone=zone):
                form = " or ".join(formats) or None
                learnt = {"format": form, "parts": list(parts), "zone": zone}
            case Category(values=values):
                learnt = {"categories": list(values)}
            case Text(pieces=pieces):
                learnt = {"pieces": len(pieces)}
        own = {"name": name, "kind": column.kind, "features": len(indices[name])}
        described.append({**own, **learnt})
    return described
