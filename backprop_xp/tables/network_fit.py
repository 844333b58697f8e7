"""The network of a problem, and its fit: from a start, or from the state in a training's file."""

import os

import numpy as np
from threadpoolctl import threadpool_limits

from backprop_xp.backends import Array, Selection, asarray, beside
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.tables.problem import Rows
from backprop_xp.tables.settings import Settings
from backprop_xp.tables.target_column import Target
from backprop_xp.tables.training_file import TrainingFile, best_network
from backprop_xp.training.early_stopping import EarlyStopping
from backprop_xp.training.fit import fit
from backprop_xp.training.options import FitResult, TrainingState

# The factor of the output layer's first weights.
_SMALL = 0.1
# Multiplications of a layer's product from which several BLAS threads are faster than one.
_WORTH_THREADS = 2**24


def make_network(target: Target, n_in: int, settings: Settings) -> Network:
    """Return the network of so many features for a target."""
    n_out, loss = len(target.classes), "categorical_cross_entropy"
    if n_out <= 2:
        loss = "binary_cross_entropy" if n_out else "mean_squared_error"
        n_out = 1
    return mlp(
        [n_in, *settings.sizes, n_out],
        hidden=settings.hidden,
        loss=loss,
        dropout=settings.dropout,
        layer_norm=settings.layer_norm,
        l2=settings.l2,
        initializer="he_uniform" if settings.hidden == "relu" else "glorot_uniform",
    )


def balanced(training: Rows, validation: Rows, target: Target) -> tuple[Rows, Rows]:
    """Return both with class weights, which give each class of training the same total weight.

    Validation has the class weights of training, so that both losses are the same function.
    """
    sums = np.bincount(training.y, training.weights, minlength=len(target.classes))
    mean = sums.sum() / len(sums)
    weights = np.divide(mean, sums, out=np.zeros(len(sums)), where=sums > 0)
    training, validation = (
        rows._replace(weights=weights[rows.y] * (1.0 if rows.weights is None else rows.weights))
        for rows in (training, validation)
    )
    return training, validation


def fit_network(
    file: TrainingFile,
    training: Rows,
    validation: Rows,
    *,
    settings: Settings,
    selection: Selection,
    start: TrainingState | None,
) -> FitResult:
    """Return the result of a training with early stopping.

    Ctrl-C leaves the best network so far in the file, and adds a note to the KeyboardInterrupt.
    """
    network = file.network
    file.continue_from(start)
    x, y, weights = _on_device(training, network, selection)
    try:
        with threadpool_limits(_threads(training, settings), user_api="blas"):
            result: FitResult = fit(
                network,
                _first_theta(network, training, settings, selection),
                x,
                y,
                optimizer=file.optimizer,
                epochs=file.epochs,
                batch_size=settings.batch_size,
                seed=settings.seed,
                sample_weight=weights,
                validation=_on_device(validation, network, selection),
                early_stopping=EarlyStopping(settings.patience),
                start=start,
                callbacks=(file,),
            )
            return result
    except KeyboardInterrupt as error:
        error.add_note(_write_interrupted(file, getattr(error, "state", None)))
        raise


def _threads(rows: Rows, settings: Settings) -> int | None:
    """Return the number of BLAS threads for the products of a layer: one, or None for all."""
    product = settings.batch_size * rows.x.shape[1] * max((1, *settings.sizes))
    return 1 if product < _WORTH_THREADS else None


def _first_theta(network: Network, rows: Rows, settings: Settings, selection: Selection) -> Array:
    """Return a theta, or a stack, that predicts little more than the trivial baseline.

    From there early stopping finds improvements even if a table has more columns than rows.
    """
    theta = network.initialize(
        settings.seed,
        stack=(settings.restarts,) if settings.restarts > 1 else (),
        backend=selection.backend,
        device=selection.device,
        dtype=selection.dtype,
    )
    *others, (weights, bias) = network.unpack(theta)
    if rows.y.dtype.kind == "i":
        n_out = bias.shape[-1]
        counts = np.bincount(rows.y, rows.weights, minlength=max(2, n_out)) + 1e-3
        logits = np.log(counts / counts.sum())
        bias = bias + beside(theta, logits if n_out > 1 else logits[1:] - logits[:1], theta.dtype)
    return network.pack([*others, (weights * _SMALL, bias)])


def _write_interrupted(file: TrainingFile, state: TrainingState | None) -> str:
    """Write the file, and return a line on the interrupted training."""
    try:
        is_written = file.write(state)
    except OSError as error:
        return f"interrupted, and the model is not written: {error}"
    if state is None or not is_written:
        return "interrupted before there was a network to keep"
    best = best_network(state)
    return (
        f"interrupted in epoch {state.epoch + 1}: {os.fspath(file.path or '')} has the best "
        f"network so far, of epoch {best.best_epoch}, validation loss {best.best:.6g}. "
        "The same command with --resume goes on."
    )


def _on_device(
    rows: Rows, network: Network, selection: Selection
) -> tuple[Array, Array, Array | None]:
    """Return rows where the training runs; three or more classes are integer labels."""

    def put(values: np.ndarray, dtype: object) -> Array:
        return asarray(values, backend=selection.backend, device=selection.device, dtype=dtype)

    labels = network.loss_function.labels
    y = put(rows.y.astype("int32"), None) if labels else put(rows.y[:, None], selection.dtype)
    weights = None if rows.weights is None else put(rows.weights, selection.dtype)
    return put(rows.x, selection.dtype), y, weights
