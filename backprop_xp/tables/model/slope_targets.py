"""Derivatives of the target by columns of numbers, which a training learns beside the target.

The network that is trained has them as further outputs, with the same theta. They are those of the
standardized target by the scaled features: the chain rule through the scaling, whose slope differs
from row to row, makes their targets.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from backprop_xp.backends import Array
from backprop_xp.networks.equations.derivative_layers import Derivatives
from backprop_xp.networks.network import Network
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model.rows import Rows
from backprop_xp.training.measures.metrics import METRICS, Mode


class SlopeTargets(NamedTuple):
    """The columns of numbers, the indices of their features, and the scales of these."""

    names: list[str]
    indices: list[int]
    scales: np.ndarray

    @classmethod
    def of(cls, features: Features, rows: Rows) -> Self | None:
        """Return the columns of rows with derivatives, checked; None for rows without any."""
        if rows.slopes is None:
            return None
        names, indices = [*rows.slopes], features.feature_indices()
        for name in names:
            if name in features.left_out:
                raise ValueError(
                    f"dy has the column {name!r}, which is left out: {features.left_out[name]}."
                )
            if (kind := features.columns[name].kind) != "number":
                raise ValueError(
                    f"dy has the column {name!r}, whose kind is {kind!r}: derivatives are by "
                    "columns of numbers."
                )
        first = [indices[name][0] for name in names]
        return cls(names, first, features.scaling.scales[first])

    def network(self, network: Network) -> Network:
        """Return the network that also has the derivatives as outputs."""
        terms = [(), *((i,) for i in self.indices)]
        layers = [Derivatives(network.layers, terms)]
        return Network(layers, network.loss_function, l2=network.l2)

    def beside(
        self, targets: np.ndarray, rows: Rows, features: Features, unit: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return standardized targets with their derivatives, and a weight for each entry.

        ``unit`` is the standard deviation of the target. An error of a derivative counts in this
        unit over the scale of its column. What is not known, missing or beyond the limit of the
        scaling has the weight 0.
        """
        found = features.slopes(rows.features)
        slopes = np.concatenate([found[name] for name in self.names], axis=1)
        given = np.full(slopes.shape, np.nan)
        if rows.slopes is not None:
            given = rows.slopes[self.names].to_numpy("float64")
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            derivatives = given / (unit * slopes)
        is_known = np.isfinite(derivatives)
        shares = np.where(is_known, (slopes * self.scales) ** 2, 0.0)
        weights = rows.scaled_weights()
        entries = np.concatenate([np.ones_like(targets), shares], axis=1)
        y = np.concatenate([targets, np.where(is_known, derivatives, np.nan)], axis=1)
        return y, entries if weights is None else entries * weights[:, None]


@dataclass(frozen=True)
class OfTarget:
    """A metric, by its name, of the target alone: the first column."""

    name: str

    @property
    def mode(self) -> Mode:
        """Whether smaller or larger values are better."""
        mode: Mode = METRICS[self.name].mode  # type: ignore[attr-defined]
        return mode

    def __call__(self, predictions: Array, targets: Array, weights: Array | None = None) -> Array:
        """Return the metric of the first column, by the weights of its entries."""
        own = weights
        if weights is not None and tuple(weights.shape[-2:]) == tuple(targets.shape[-2:]):
            own = weights[..., 0]
        return METRICS[self.name](predictions[..., :1], targets[..., :1], own)
