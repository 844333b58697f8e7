"""The training of a model, from a table to a file with a report."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from backprop_xp.backends import Array, Backend, Selection, resolve, to_device_of, to_host
from backprop_xp.files.checkpoint import Checkpoint
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.tables.detection import prepare
from backprop_xp.tables.evaluation import report_of
from backprop_xp.tables.model import PREPARATION, PathLike, TableModel, model_of
from backprop_xp.tables.preparation import Preparation
from backprop_xp.tables.problem import Columns, Part, Problem, Rows, make_problem
from backprop_xp.tables.readers import TableData
from backprop_xp.tables.settings import Settings, Task
from backprop_xp.tables.target_column import Target
from backprop_xp.tables.training_file import (
    TrainingFile,
    Watch,
    best_network,
    metadata_of,
    read_checkpoint,
)
from backprop_xp.training.class_weights import weights_by_class, weights_of_rows
from backprop_xp.training.early_stopping import EarlyStopping
from backprop_xp.training.fit import fit
from backprop_xp.training.states import FitResult

# The factor of the output layer's first weights.
_SMALL = 0.1
# Multiplications of a layer's product from which several BLAS threads are faster than one.
_WORTH_THREADS = 2**24


def train(
    data: TableData,
    target: str,
    *,
    settings: Settings | None = None,
    task: Task | None = None,
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    weights: str | None = None,
    validation: Part = 0.15,
    test: Part = 0.15,
    backend: str | Backend | None = None,
    device: Any = None,
    dtype: Any = "float32",
    out: PathLike | None = None,
    resume: bool = False,
    say: Callable[[str], object] = lambda line: None,
    watches: Sequence[Watch] = (),
) -> TableModel:
    """Return a model that predicts one column of a table from the others.

    ``data`` is a path, a pandas or a polars DataFrame. ``validation`` and ``test`` are each a share
    of its rows, drawn from each class alike, or a table of its own: the validation rows end the
    training and choose the network, the test rows are for the report alone. ``weights`` names a
    column of row weights. ``out`` is the model's file, written during the training; with ``resume``
    the training in it continues, to the same theta bit for bit. ``say`` is called with lines for
    the user, each of ``watches`` with the losses after each epoch.

    Raises ValueError, TypeError or OSError, in one line, for arguments that cannot be used. A
    KeyboardInterrupt leaves the file with the best network so far, and has a note about it.
    """
    settings, columns = settings or Settings(), Columns(features, drop, weights)
    problem = make_problem(
        data, target, columns, task=task, test=test, validation=validation, seed=settings.seed
    )
    if settings.class_weight and not problem.target.classes:
        raise ValueError(f"class_weight is for classes, but {target!r} is a number.")
    settings = settings.for_rows(len(problem.parts["training"].target))
    selection = resolve(backend=backend, device=device, dtype=dtype)
    metadata = metadata_of(problem, settings, selection)
    checkpoint = read_checkpoint(out, metadata, selection) if resume else None
    for line in [*problem.lines(), *_resume_lines(out, checkpoint, resume=resume)]:
        say(line)
    if out is not None and checkpoint is not None and checkpoint.state is None:
        return model_of(checkpoint, out)
    preparation = _preparation(problem, settings, checkpoint, say)
    file = TrainingFile(
        path=out,
        network=_network(problem.target, preparation.n_features, settings),
        optimizer=settings.make_optimizer(len(problem.parts["training"].target)),
        preparation=preparation.to_bytes(),
        metadata=metadata,
        settings=settings,
        start=None if checkpoint is None else checkpoint.state,
        watches=watches,
        say=say,
    )
    return _learn(problem, preparation, file, selection)


def _resume_lines(
    out: PathLike | None, checkpoint: Checkpoint | None, *, resume: bool
) -> Iterator[str]:
    """Yield a line for the user on the training that is resumed."""
    name = "a file" if out is None else os.fspath(out)
    if resume and checkpoint is None:
        yield f"there is no {name} to resume: the training starts from the beginning"
    elif checkpoint is not None and checkpoint.state is None:
        yield f"the training in {name} is finished: there is nothing to resume"
    elif checkpoint is not None and checkpoint.state is not None:
        yield f"resumed after epoch {checkpoint.state.epoch}"


def _preparation(
    problem: Problem,
    settings: Settings,
    checkpoint: Checkpoint | None,
    say: Callable[[str], object],
) -> Preparation:
    """Return the preparation from a checkpoint, or one that learns from the training rows."""
    if checkpoint is not None and checkpoint.preparation is not None:
        return Preparation.from_bytes(to_host(checkpoint.preparation[PREPARATION]))
    preparation = prepare(problem.parts["training"].features, seed=settings.seed)
    for name, reason in preparation.left_out.items():
        say(f"{name!r} is left out: it is {reason}")
    # As it will be read, so that training and prediction use the same numbers.
    return Preparation.from_bytes(preparation.to_bytes())


def _network(target: Target, n_in: int, settings: Settings) -> Network:
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


def _learn(
    problem: Problem, preparation: Preparation, file: TrainingFile, selection: Selection
) -> TableModel:
    """Train the network, and write its file with the report."""
    target, settings = problem.target, file.settings
    parts = {name: rows.prepare(preparation, target) for name, rows in problem.parts.items()}
    training, validation = parts["training"], parts["validation"]
    if settings.class_weight:
        training, validation = _balanced(training, validation, len(target.classes))
    try:
        result = _fit(file, training, validation, selection)
    except KeyboardInterrupt as error:
        error.add_note(file.write_interrupted(getattr(error, "state", None)))
        raise
    best = best_network(result.state)
    if not np.isfinite(best.best):
        raise ValueError("the training diverged: lower --learning-rate.")
    theta = result.theta if settings.restarts == 1 else result.theta[best.member, :]
    metadata = {**file.metadata, **best._asdict()}
    model = TableModel(file.network, theta, preparation, target, metadata, file.history())
    metadata |= report_of(model, parts, training.weights, file.path)
    file.finish(theta, metadata)
    return model


def _balanced(training: Rows, validation: Rows, n_classes: int) -> tuple[Rows, Rows]:
    """Return both with class weights, which give each class of training the same total weight.

    Validation has the class weights of training, so that both losses are the same function.
    """
    one_hot = np.eye(n_classes)
    by_class = weights_by_class("balanced", one_hot[training.y], training.weights)
    training, validation = (
        rows._replace(weights=weights_of_rows(by_class, one_hot[rows.y], rows.weights))
        for rows in (training, validation)
    )
    return training, validation


def _fit(file: TrainingFile, training: Rows, validation: Rows, selection: Selection) -> FitResult:
    """Return the result of a training with early stopping."""
    network, settings = file.network, file.settings
    x, y, weights = _on_device(training, network, selection)
    # For a small product several threads of BLAS are slower than one.
    product = settings.batch_size * training.x.shape[1] * max((1, *settings.sizes))
    with threadpool_limits(1 if product < _WORTH_THREADS else None, user_api="blas"):
        return fit(
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
            start=file.start,
            callbacks=(file,),
        )


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
        bias = bias + to_device_of(
            theta, logits if n_out > 1 else logits[1:] - logits[:1], theta.dtype
        )
    return network.pack([*others, (weights * _SMALL, bias)])


def _on_device(
    rows: Rows, network: Network, selection: Selection
) -> tuple[Array, Array, Array | None]:
    """Return rows where the training runs; three or more classes are integer labels."""
    dtype, is_labels = selection.dtype, network.loss_function.labels
    put = functools.partial(selection.backend.from_host, device=selection.device)
    y = put(rows.y.astype("int32")) if is_labels else put(rows.y[:, None], dtype)
    return put(rows.x, dtype), y, None if rows.weights is None else put(rows.weights, dtype)
