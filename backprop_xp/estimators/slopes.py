"""Derivatives of y by the features, which a regressor learns beside y.

The network that is trained has the derivatives as further outputs, with the same theta. In ``fit``
each is multiplied by the standard deviation of its feature: all targets are then in units of y.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from backprop_xp.backends import Array, Identity, to_host
from backprop_xp.display.reprs import argument_text
from backprop_xp.estimators.samples import Samples, counted, is_large, on_host
from backprop_xp.networks.equations.derivative_layers import Derivatives
from backprop_xp.networks.layers.activations import identity
from backprop_xp.networks.layers.columns import Standardize
from backprop_xp.networks.losses.column_weights import takes_column_weights
from backprop_xp.networks.losses.loss import Loss, half_squared_error
from backprop_xp.networks.network import Network

Score = Callable[[Array, Array, Array | None], Array]


class Slopes(NamedTuple):
    """Derivatives ``(rows, n_outputs, n_features)``, NaN for others, and the features' scales."""

    dy: np.ndarray
    scales: np.ndarray

    @classmethod
    def of(
        cls, dy: Any, samples: Samples, names: Sequence[str] = (), *, are_scaled: bool = True
    ) -> Self:
        """Return the slopes of validated samples, checked. ``names`` are the features', if any."""
        if is_large(samples.x):
            raise ValueError("dy is for an X in memory: X is a large table, sparse or in a file.")
        x, (rows, outputs) = np.asarray(to_host(samples.x), float), samples.y.shape
        given = np.asarray(on_host(dy), dtype=float)
        shapes = [(rows, outputs, x.shape[1]), *[(rows, x.shape[1])] * (outputs == 1)]
        if given.shape not in shapes:
            raise ValueError(
                f"dy has shape {given.shape}, but the derivatives of y by each feature, "
                f"{' or '.join(map(str, shapes))}, are expected: NaN where one was not measured."
            )
        if np.isinf(given).any():
            raise ValueError("dy has values that are infinite. Those not measured are NaN.")
        columns, names = [*getattr(dy, "columns", ())], [*names]
        if columns != names and set(columns) == set(names):
            raise ValueError(
                f"dy has the columns {columns}, but X has {names}: give both in the same order."
            )
        rows = slice(None) if (counts := counted(samples)) is None else counts
        deviations = x[rows].std(axis=0) if are_scaled else np.ones(x.shape[1])
        return cls(given.reshape(shapes[0]), np.where(deviations > 0.0, deviations, 1.0))

    def network(self, network: Network, loss: str | Loss) -> Network:
        """Return the network that also has the derivatives as outputs, with a regressor's loss."""
        learned = half_squared_error if loss == "squared_error" else network.loss_function
        if not takes_column_weights(learned) or learned.inverse_link is not identity.value:
            raise ValueError(
                f"dy has the derivatives of outputs, but loss={argument_text(loss)} compares y "
                'with a function of them: take another loss, such as "squared_error" or "huber".'
            )
        scales = tuple(self.scales.tolist())
        return _network(Identity(network), Identity(learned), scales, self.dy.shape[1])

    def validation(self, samples: Samples | None) -> Samples | None:
        """Return a validation set, if there is one, of whose rows no derivative was measured."""
        if samples is None:
            return None
        unknown = np.full((len(samples.y), *self.dy.shape[1:]), np.nan)
        return self._replace(dy=unknown).samples(samples)

    def samples(self, samples: Samples) -> Samples:
        """Return samples with the derivatives as columns of y, and a weight for each entry."""
        x, y, weight = samples
        columns = np.moveaxis(self.dy * self.scales, -1, 1).reshape(len(y), -1)
        targets = np.concatenate([y, columns], axis=1)
        # The weight of a row, the mean of those of its entries, counts its values beside one y.
        measured = np.where(np.isnan(targets), 0.0, 1.0 + len(self.scales))
        return Samples(x, targets, measured if weight is None else measured * weight[:, None])

    def score(self, score: Score) -> Score:
        """Return the score of the values alone."""
        n = self.dy.shape[1]

        def of_values(predictions: Array, targets: Array, weights: Array | None) -> Array:
            own = None if weights is None else weights[..., :n]
            return score(predictions[..., :n], targets[..., :n], own)

        return of_values


@functools.lru_cache(maxsize=64)  # fits of a search are one stack if their network is one object
def _network(
    network: Identity, loss: Identity, scales: tuple[float, ...], n_outputs: int
) -> Network:
    terms = [(), *[(i,) for i in range(len(scales))]]
    each = [factor for scale in (1.0, *scales) for factor in [1.0 / scale] * n_outputs]
    return Network([Derivatives(network.value.layers, terms), Standardize(0.0, each)], loss.value)
