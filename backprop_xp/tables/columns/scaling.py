"""The scaling of numbers and dates, learnt from training rows."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import Array, array_namespace

# In units of the scale: larger values would dominate all others.
MAX_DEVIATIONS = 100.0
# The bound of robustly scaled numbers.
_SMOOTH_BOUND = 3.0
# Numbers beyond float32 count as missing.
_LARGEST = float(np.finfo(np.float32).max)

# The weights of rows, None for equal ones.
Weights: TypeAlias = np.ndarray | None
# Relative: the rounding of a sum of weights, less than the weight of a row.
_ROUNDING = 1e-12
# Returns the centers and the scales of filled values ``(rows, features)`` with their weights, which
# can be a sample of all rows, and of the spread of all rows.
_Learner: TypeAlias = Callable[[np.ndarray, np.ndarray, "Spread"], tuple[np.ndarray, np.ndarray]]


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

    def check(self, n: int) -> None:
        """Raise ValueError for another scaling than one of n features."""
        flagged, bound = self.flagged, self.bound
        k = flagged.size
        shapes = {"medians": (n,), "flagged": (k,), "centers": (n + k,), "scales": (n + k,)}
        for name, values in self._asdict().items():
            kind, shape = "i" if name == "flagged" else "f", shapes.get(name, ())
            if values.dtype.kind != kind or values.shape != shape or not np.isfinite(values).all():
                raise ValueError(f"scaling.{name} is not of {shape} finite numbers.")
        if (self.scales <= 0.0).any() or bound < 0.0:
            raise ValueError("a scale must be > 0.")
        if not np.isin(flagged, np.arange(n)).all() or (np.diff(flagged) <= 0).any():
            raise ValueError(f"scaling.flagged is not of increasing indices below {n}.")

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

    def slopes(self, values: np.ndarray) -> np.ndarray:
        """Return the derivatives of the scaled features: 0 beyond the limit, NaN where missing."""
        n, bound = len(self.medians), float(self.bound)
        numbers = (values - self.centers[:n]) / self.scales[:n]
        ratio = 1.0 + (numbers / bound) ** 2 if bound else 1.0
        is_limited = np.abs(numbers / np.sqrt(ratio)) > MAX_DEVIATIONS
        return np.where(is_limited, 0.0, ratio**-1.5 / self.scales[:n] + 0.0 * values)


def within_range(values: Array) -> Array:
    """Return numbers with NaN in place of those beyond float32."""
    xp = array_namespace(values)
    return xp.where(xp.abs(values) <= _LARGEST, values, xp.nan)


class Spread(NamedTuple):
    """The mean, deviation and range of features over rows: ``(features,)`` each, but the first two.

    ``absent`` is the weight of the rows with a missing value. The others have the weighted mean,
    the squared deviations from it, the least and the largest value.
    """

    rows: int
    weight: float
    absent: np.ndarray
    means: np.ndarray
    squares: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, weights: Weights = None) -> "Spread":
        """Return the spread of values ``(rows, features)``; NaN is a missing one."""
        weights = np.ones(len(values)) if weights is None else weights
        found = np.empty((5, values.shape[1]))
        for i, column in enumerate(values.T):  # one by one, which bounds the memory of copies
            is_present = ~np.isnan(column)
            present, own = column[is_present], weights[is_present]
            weight = own.sum()
            mean = own @ present / (weight or 1.0)
            least, most = present.min(initial=np.inf), present.max(initial=-np.inf)
            absent = weights[~is_present].sum()
            found[:, i] = absent, mean, own @ (present - mean) ** 2, least, most
        return cls(len(values), float(weights.sum()), *found)

    def merge(self, other: "Spread") -> "Spread":
        """Return the spread of the rows of both, by Chan et al. (1983), equation 2.1."""
        own, rest = (np.maximum(one.weight - one.absent, 0.0) for one in (self, other))
        delta, part = other.means - self.means, rest / np.where(rest > 0.0, own + rest, 1.0)
        return Spread(
            self.rows + other.rows,
            self.weight + other.weight,
            self.absent + other.absent,
            self.means + delta * part,
            self.squares + other.squares + delta**2 * own * part,
            np.minimum(self.least, other.least),
            np.maximum(self.most, other.most),
        )

    def filled(self, values: np.ndarray) -> "Spread":
        """Return the spread with these values in place of the missing ones."""
        delta, part = values - self.means, self.absent / self.weight
        return self._replace(
            absent=np.zeros_like(self.absent),
            means=self.means + delta * part,
            squares=self.squares + delta**2 * part * (self.weight - self.absent),
            least=np.minimum(self.least, values),
            most=np.maximum(self.most, values),
        )

    def standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations, 1 for a feature that is constant to rounding."""
        deviations = np.sqrt(self.squares / (self.weight - self.absent))
        rounding = self.rows * np.finfo("float64").eps * np.abs(self.means)
        return self.means, np.where(deviations > rounding, deviations, 1.0)


def _quantiles(values: np.ndarray, levels: Sequence[float], weights: np.ndarray) -> np.ndarray:
    """Return the quantiles ``(levels, features)`` of each feature; NaN is no value of it.

    They are the averages of both values where the distribution steps over a level (definition 2 of
    Hyndman and Fan 1996): a row of weight 2 counts as two rows.
    """
    found = list[np.ndarray]()
    for column in values.T:
        order = np.argsort(column)[: np.count_nonzero(~np.isnan(column))]
        sums = np.cumsum(weights[order])
        at, slack = np.asarray(levels) * sums[-1], _ROUNDING * sums[-1]
        first, last = np.searchsorted(sums, at - slack), np.searchsorted(sums, at + slack, "right")
        found.append((column[order[first]] + column[order[np.minimum(last, len(order) - 1)]]) / 2.0)
    return np.stack(found, axis=1)


def _standard(
    values: np.ndarray, weights: np.ndarray, spread: Spread
) -> tuple[np.ndarray, np.ndarray]:
    """Return the means and standard deviations of all rows."""
    return spread.standard()


def _robust(
    values: np.ndarray, weights: np.ndarray, spread: Spread
) -> tuple[np.ndarray, np.ndarray]:
    """Return medians and interquartile ranges; half the whole range instead of a range of 0."""
    quarter, median, quarters = _quantiles(values, (0.25, 0.5, 0.75), weights)
    scales = np.where(quarters > quarter, quarters - quarter, (spread.most - spread.least) / 2.0)
    return median, np.where(scales > 0.0, scales, 1.0)


# The bound is that of RealMLP (Holzmüller et al. 2024, "Better by default").
SCALINGS: dict[str, tuple[_Learner, float]] = {
    "standardize": (_standard, 0.0),
    "robust": (_robust, _SMOOTH_BOUND),
}


def learn_scaling(
    encoded: Iterable[np.ndarray],
    scaling: str,
    weights: Weights = None,
    spread: Spread | None = None,
) -> Scaling:
    """Return the scaling of the encoded numbers and dates of a table, ``(rows, width)`` each.

    ``weights`` are those of the rows, above 0. With a ``spread``, which is that of all rows, these
    are a sample: they decide the quantiles alone.
    """
    learn, bound = SCALINGS[scaling]
    scaled = [*encoded]
    if not scaled:
        none, indices = np.empty(0), np.empty(0, dtype=np.intp)
        return Scaling(none, indices, none, none, np.asarray(bound))
    values = within_range(np.concatenate(scaled, axis=1))
    weights = np.ones(len(values)) if weights is None else weights
    spread = spread or Spread.of(values, weights)
    missing = np.isnan(values)
    np.copyto(values, spread.means, where=missing & missing.all(axis=0))  # none in the sample
    (medians,) = _quantiles(values, (0.5,), weights)
    flagged = np.flatnonzero(spread.absent)
    centers, scales = learn(np.where(missing, medians, values), weights, spread.filled(medians))
    shares = spread.absent[flagged] / spread.weight
    deviations = np.sqrt(shares * (1.0 - shares))
    return Scaling(
        medians,
        flagged,
        np.concatenate([centers, shares]),
        np.concatenate([scales, np.where(deviations > 0.0, deviations, 1.0)]),
        np.asarray(bound),
    )
