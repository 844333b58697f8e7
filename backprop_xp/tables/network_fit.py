"""The network of a problem, trained from its start or from where a file's training stood."""

import os
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from backprop_xp.backends import Array, Selection, asarray, beside
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.tables.columns import Target
from backprop_xp.tables.settings import Settings
from backprop_xp.tables.training_file import Keeper, best_of
from backprop_xp.training.early_stopping import EarlyStopping
from backprop_xp.training.fit import fit
from backprop_xp.training.states import TrainingState

# By this the output's first weights are made smaller.
_MODEST = 0.1
# Multiplications of a layer's product from which BLAS's threads gain more than they spin away.
_WORTH_THREADS = 2**24


class Rows(NamedTuple):
    """Prepared rows on the host: ``x (rows, n)``, ``y (rows,)``, their weights or None."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None


def make_network(target: Target, n_in: int, settings: Settings) -> Network:
    """Return the network of so many features that the target and the settings ask for."""
    outputs, loss = len(target.classes), "categorical_cross_entropy"
    if outputs <= 2:
        loss = "binary_cross_entropy" if outputs else "mean_squared_error"
        outputs = 1
    return mlp(
        [n_in, *settings.sizes, outputs],
        hidden=settings.hidden,
        loss=loss,
        dropout=settings.dropout,
        layer_norm=settings.layer_norm,
        l2=settings.l2,
        initializer="he_uniform" if settings.hidden == "relu" else "glorot_uniform",
    )


def balanced(rows: Rows, others: Rows, target: Target) -> tuple[Rows, Rows]:
    """Return rows and others with class weights, which give each class of the rows the same sum.

    The validation rows take the weights of the training rows, so that both losses are the same one.
    """
    sums = np.bincount(rows.y, _weights(rows), minlength=len(target.classes))
    mean = sums.sum() / len(sums)
    each = np.divide(mean, sums, out=np.zeros_like(sums), where=sums > 0.0)
    first, second = (r._replace(weights=_weights(r) * each[r.y]) for r in (rows, others))
    return first, second


def _weights(rows: Rows) -> np.ndarray:
    return np.ones(len(rows.y)) if rows.weights is None else rows.weights


def fitted(
    keeper: Keeper,
    rows: Rows,
    held_out: Rows,
    *,
    settings: Settings,
    where: Selection,
    start: TrainingState | None,
) -> TrainingState:
    """Return the state that early stopping ends with.

    Ctrl-C leaves the best network so far in the file, and a note of it with the KeyboardInterrupt.
    """
    network = keeper.network
    x, y, weights = _placed(rows, network, where)
    try:
        with threadpool_limits(_threads(rows, settings), user_api="blas"):
            result = fit(
                network,
                _start(network, rows, settings, where),
                x,
                y,
                optimizer=keeper.optimizer,
                epochs=keeper.epochs,
                batch_size=settings.batch_size,
                seed=settings.seed,
                sample_weight=weights,
                validation=_placed(held_out, network, where),
                early_stopping=EarlyStopping(settings.patience),
                start=start,
                callbacks=(keeper,),
            )
    except KeyboardInterrupt as error:
        error.add_note(_interrupted(keeper, getattr(error, "state", None)))
        raise
    state: TrainingState = result.state
    return state


def _threads(rows: Rows, settings: Settings) -> int | None:
    """Return how many threads a product of a layer is worth: one, or None for all."""
    product = settings.batch_size * rows.x.shape[1] * max((1, *settings.sizes))
    return 1 if product < _WORTH_THREADS else None


def _start(network: Network, rows: Rows, settings: Settings, where: Selection) -> Array:
    """Return a theta, or a stack, that says little more of a row than the trivial baseline does.

    From there early stopping finds what is better, also where a table has more columns than rows.
    """
    theta = network.initialize(
        settings.seed,
        stack=(settings.restarts,) if settings.restarts > 1 else (),
        backend=where.backend,
        device=where.device,
        dtype=where.dtype,
    )
    *others, (weights, bias) = network.unpack(theta)
    if rows.y.dtype.kind == "i":
        n_out = bias.shape[-1]
        counts = np.bincount(rows.y, rows.weights, minlength=max(2, n_out)) + 1e-3
        logits = np.log(counts / counts.sum())
        bias = bias + beside(theta, logits if n_out > 1 else logits[1:] - logits[:1], theta.dtype)
    return network.pack([*others, (weights * _MODEST, bias)])


def _interrupted(keeper: Keeper, state: TrainingState | None) -> str:
    """Write the file, and return a line on where a training was cut short."""
    try:
        is_kept = keeper.write(state)
    except OSError as error:
        return f"interrupted, and the model is not written: {error}"
    if state is None or not is_kept:
        return "interrupted before there was a network to keep"
    best = best_of(state)
    return (
        f"interrupted in epoch {state.epoch + 1}: {os.fspath(keeper.path or '')} has the best "
        f"network so far, of epoch {best['best_epoch']}, validation loss {best['best']:.6g}. "
        "The same command with --resume goes on."
    )


def _placed(rows: Rows, network: Network, where: Selection) -> tuple[Array, Array, Array | None]:
    """Return rows where the training runs; classes as integers where there are more than two."""

    def put(values: np.ndarray, dtype: Any) -> Array:
        return asarray(values, backend=where.backend, device=where.device, dtype=dtype)

    labels = network.loss_function.labels
    y = put(rows.y.astype("int32"), None) if labels else put(rows.y[:, None], where.dtype)
    weights = None if rows.weights is None else put(rows.weights, where.dtype)
    return put(rows.x, where.dtype), y, weights
