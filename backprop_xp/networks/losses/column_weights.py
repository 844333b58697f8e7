"""Weights of the columns of targets, for losses that treat each output by itself.

With them a batch's loss is the mean over the entries of y, ``sum(w * loss) / sum(w)``. The weight
of a row is the mean of its entries' weights, and the share of an entry is its weight over the
row's. The shares are columns behind those of y, ``(..., batch, 2 n)``, which the rule of such a
loss reads. All that counts rows, such as batches and means over them, has one weight for each row.
"""

from backprop_xp.backends import Array, array_namespace, columns_of, mean_of_rows
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.losses.rules import mean_over_outputs
from backprop_xp.networks.numbers.partial import WithLast


def takes_column_weights(loss: Loss) -> bool:
    """Whether a loss is a mean over its outputs, made by ``over_outputs``."""
    rule, of_gradient = (getattr(part, "rule", None) for part in (loss.value, loss.gradient))
    found = rule if rule == of_gradient else None
    while isinstance(found, WithLast) and found.function is not mean_over_outputs:
        found = next((one for one in found.last if isinstance(one, WithLast)), None)
    return isinstance(found, WithLast)


def targets_of(loss: Loss, n_out: int) -> int:
    """Return the number of columns of the targets for so many outputs."""
    return n_out // loss.outputs_per_target


def with_shares(y: Array, weight: Array | None, loss: Loss) -> tuple[Array, Array]:
    """Return y with a share for each of its columns, ``(..., batch, 2 n)``, and the rows' weights.

    ``weight`` is ``(..., batch, n)``, or has one column; None is 1. The weight of NaN is 0. Entries
    of weight 0 get a valid target in place of theirs.
    """
    xp = array_namespace(y)
    missing = xp.isnan(y)
    weight = xp.ones_like(y) if weight is None else weight
    weight = xp.where(missing, xp.zeros_like(weight), weight)
    y, weight = xp.broadcast_arrays(y, weight)
    row = mean_of_rows(weight)
    shares = weight / (row + xp.astype(row == 0.0, row.dtype))[..., None]
    valid = min(max(1.0, loss.targets[0]), loss.targets[1])
    y = xp.where(weight == 0.0, xp.full_like(y, valid), y)
    return xp.concat([y, shares], axis=-1), row


def without_shares(y: Array, weight: Array | None, n: int) -> tuple[Array, Array | None]:
    """Return y without its shares, if it has any, and its weights, as ``with_shares`` takes them.

    ``n`` is the number of columns of the targets.
    """
    if y.shape[-1] <= n or weight is None:
        return y, weight
    targets, shares = columns_of(y, [n, n])
    return targets, shares * weight[..., None]
