"""The training of a model, from a table to a file with a report."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import Backend, Selection, resolve, to_host
from backprop_xp.files.checkpoint import Checkpoint
from backprop_xp.tables.detection import prepare
from backprop_xp.tables.model import PREPARATION, PathLike, TableModel, model_of
from backprop_xp.tables.network_fit import balanced, fit_network, make_network
from backprop_xp.tables.preparation import Preparation
from backprop_xp.tables.problem import Columns, Part, Problem, pose
from backprop_xp.tables.readers import TableData
from backprop_xp.tables.scores import report_of
from backprop_xp.tables.settings import Settings, Task
from backprop_xp.tables.training_file import (
    TrainingFile,
    Watch,
    best_network,
    metadata_of,
    read_checkpoint,
)
from backprop_xp.training.options import TrainingState


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
    the training in it is resumed, to the same theta to the bit. ``say`` is called with lines for
    the user, each of ``watches`` with the losses after each epoch.

    Raises ValueError, TypeError or OSError, in one line, for arguments that cannot be used. A
    KeyboardInterrupt leaves the file with the best network so far, and has a note about it.
    """
    settings, columns = settings or Settings(), Columns(features, drop, weights)
    problem = pose(
        data, target, columns, task=task, test=test, validation=validation, seed=settings.seed
    )
    if settings.class_weight and not problem.target.classes:
        raise ValueError(f"class_weight is for classes, but {target!r} is a number.")
    settings = settings.for_rows(len(problem.training.target))
    selection = resolve(backend=backend, device=device, dtype=dtype)
    metadata = metadata_of(problem, settings, selection)
    checkpoint = read_checkpoint(out, metadata, selection) if resume else None
    for line in [*problem.lines(), *_resume_lines(out, checkpoint, resume=resume)]:
        say(line)
    if out is not None and checkpoint is not None and checkpoint.state is None:
        return model_of(checkpoint, out)
    preparation = _preparation(problem, settings, checkpoint, say)
    file = TrainingFile(
        out,
        make_network(problem.target, preparation.n_features, settings),
        settings.make_optimizer(len(problem.training.target)),
        settings.epochs or 0,
        preparation.to_bytes(),
        metadata,
        tuple(watches),
        say,
    )
    start = None if checkpoint is None else checkpoint.state
    return _learn(problem, preparation, file, settings, selection, start)


def _resume_lines(
    out: PathLike | None, checkpoint: Checkpoint | None, *, resume: bool
) -> Iterator[str]:
    """Yield a line for the user on the training that is resumed."""
    if not resume:
        return
    name = "a file" if out is None else os.fspath(out)
    if checkpoint is None:
        yield f"there is no {name} to go on with: the training starts anew"
    elif checkpoint.state is None:
        yield f"the training in {name} is finished: there is nothing to go on with"
    else:
        yield f"going on after epoch {checkpoint.state.epoch}"


def _preparation(
    problem: Problem,
    settings: Settings,
    checkpoint: Checkpoint | None,
    say: Callable[[str], object],
) -> Preparation:
    """Return the preparation in a checkpoint, or one that learns from the training rows."""
    if checkpoint is not None and checkpoint.preparation is not None:
        return Preparation.from_bytes(to_host(checkpoint.preparation[PREPARATION]))
    preparation = prepare(problem.training.features, seed=settings.seed)
    for name, reason in preparation.left_out.items():
        say(f"{name!r} is left out: it is {reason}")
    # As it will be read, so that training and prediction use the same numbers.
    return Preparation.from_bytes(preparation.to_bytes())


def _learn(
    problem: Problem,
    preparation: Preparation,
    file: TrainingFile,
    settings: Settings,
    selection: Selection,
    start: TrainingState | None,
) -> TableModel:
    """Train the network, and write its file with the report."""
    target = problem.target
    rows = {name: part.prepared(preparation, target) for name, part in problem.parts.items()}
    training, validation = rows["training"], rows["validation"]
    if settings.class_weight:
        training, validation = balanced(training, validation, target)
    result = fit_network(
        file, training, validation, settings=settings, selection=selection, start=start
    )
    best = best_network(result.state)
    if not np.isfinite(best.best):
        raise ValueError("the training diverged: lower --learning-rate.")
    theta = result.theta if settings.restarts == 1 else result.theta[best.member, :]
    metadata = {**file.metadata, **best._asdict()}
    model = TableModel(file.network, theta, preparation, target, metadata, file.history())
    metadata |= report_of(model, rows, training.weights, file.path)
    file.finish(theta, metadata)
    return model
