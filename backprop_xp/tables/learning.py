"""Training on a table, from its columns to a model with a report."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import sklearn
import skrub
from threadpoolctl import threadpool_limits

from backprop_xp.backends import Array, Selection, asarray, beside, dtype_name, resolve, to_host
from backprop_xp.checkpoint import Checkpoint, load as load_file
from backprop_xp.checks import real
from backprop_xp.early_stopping import EarlyStopping
from backprop_xp.network import Network
from backprop_xp.options import FitResult
from backprop_xp.perceptron import mlp
from backprop_xp.tables.columns import Table, Target, Task, find_target, table_of, targets_of
from backprop_xp.tables.keeping import Keeper, Watch, best_of
from backprop_xp.tables.model import BYTES, TOLD, TableModel, model_of
from backprop_xp.tables.preparation import Preparation, prepare
from backprop_xp.tables.reading import as_frame
from backprop_xp.tables.scores import by_class, linear, score, trivial
from backprop_xp.tables.settings import Settings, difference
from backprop_xp.tables.splitting import split_rows
from backprop_xp.training import fit

# By this the output's first weights are made smaller.
_MODEST = 0.1
# Multiplications of a layer's product from which BLAS's threads gain more than they spin away.
_WORTH_THREADS = 2**24
# What has to be as a file has it for its training to go on, and what is said where it is not.
_DIFFERS = {
    "where": "its training ran on another backend, or in another dtype",
    "target": "the target is another, or its classes are",
    "data": "the rows or the columns are others than those of its training",
}


class Rows(NamedTuple):
    """Prepared rows on the host: ``x (rows, n)``, ``y (rows,)``, their weights or None."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray | None


def train(
    data: Any,
    target: str,
    *,
    settings: Settings | None = None,
    task: Task | None = None,
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    weights: str | None = None,
    validation: Any = 0.2,
    backend: Any = None,
    device: Any = None,
    dtype: Any = "float32",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    say: Callable[[str], Any] = lambda line: None,
    watches: Sequence[Watch] = (),
) -> TableModel:
    """Return a model that predicts one column of a table from the others.

    ``data`` is a path, a pandas or a polars frame. ``validation`` is the share of the rows that is
    held out, of each class alike, or a table of its own: early stopping and the report go by it.
    ``weights`` names a column of row weights. ``out`` is the model's file, written as training
    goes; with ``resume`` a training that it holds is gone on with, to the same theta to the bit.
    ``say`` is given lines about what is done, each of ``watches`` the losses after each epoch.

    Raises ValueError, TypeError or OSError for what cannot be used, in one line. A
    KeyboardInterrupt leaves the file with the best network so far, as each epoch does.
    """
    settings = settings or Settings()
    frame = as_frame(data)
    columns: dict[str, Any] = {"features": features, "drop": drop, "weights": weights}
    table = table_of(frame, target, **columns)
    asked = find_target(table.target, task)
    if settings.class_weight and not asked.classes:
        raise ValueError(f"class_weight is for classes, but {target!r} is a number.")
    training, held_out = _parts(table, asked, validation, settings.seed, columns)
    settings = settings.for_rows(len(training.target))
    where = resolve(backend=backend, device=device, dtype=dtype)
    told: dict[str, Any] = {
        "target": asked._asdict(),
        "settings": dataclasses.asdict(settings),
        "data": _fingerprint(training, held_out),
        "where": {"backend": where.backend.name, "dtype": dtype_name(where.dtype)},
        "rows": {"training": len(training.target), "validation": len(held_out.target)},
        "versions": {"skrub": skrub.__version__, "scikit-learn": sklearn.__version__}
        | {"pandas": pd.__version__, "numpy": np.__version__, "python": sys.version.split()[0]},
    }
    told = json.loads(json.dumps(told))  # as it will be read
    kept = _resumed(out, told, settings, where) if resume and out is not None else None
    say(f"{asked.task}, for {target!r}: {asked.reason}{_classes(asked)}")
    if len(table.target) < len(frame):
        say(f"{len(frame) - len(table.target):,} rows without {target!r} are left out")
    if resume and kept is None:
        say(f"there is no {os.fspath(out or 'file')} to go on with: the training starts anew")
    if kept is not None and "report" in kept.metadata[TOLD]:
        say(f"the training in {os.fspath(out or '')} is finished: there is nothing to go on with")
        return model_of(kept, out)
    preparation = _preparation(kept, training, settings, say)
    parts = [_rows(part, asked, preparation) for part in (training, held_out)]
    return _learn(
        asked, preparation, parts, settings, where, Going(kept, out, told, say, tuple(watches))
    )


class Going(NamedTuple):
    """What a training goes on from, where to, and who is told."""

    kept: Checkpoint | None
    out: str | os.PathLike[str] | None
    told: dict[str, Any]
    say: Callable[[str], Any]
    watches: tuple[Watch, ...]


def _classes(target: Target) -> str:
    names = [str(name) for name in target.classes]
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    return f" ({shown})" if names else ""


def _parts(
    table: Table, target: Target, validation: Any, seed: int, columns: dict[str, Any]
) -> tuple[Table, Table]:
    """Return the training rows and the held-out ones."""
    if isinstance(validation, int | float):
        share = real(validation, "validation", above=0.0, below=1.0)
        classes = targets_of(target, table.target) if target.classes else None
        places = split_rows(len(table.target), share, seed, classes=classes)
        training, held_out = (table.take(part) for part in places)
    else:
        training, held_out = table, table_of(as_frame(validation), target.name, **columns)
    targets_of(target, held_out.target)  # a class that training has not is told at once
    if held_out.weights is not None and not held_out.weights.any():
        raise ValueError("the held-out rows have no weight: choose another --seed or share.")
    return training, held_out


def _fingerprint(*parts: Table) -> str:
    found = hashlib.sha256()
    for part in parts:
        weights = [] if part.weights is None else [pd.Series(part.weights, name="weights")]
        for column in [*(part.features[name] for name in part.features), part.target, *weights]:
            found.update(f"{column.name} {column.dtype}".encode())
            found.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    return found.hexdigest()


def _resumed(
    out: str | os.PathLike[str], told: dict[str, Any], settings: Settings, where: Selection
) -> Checkpoint | None:
    """Return the training in a file if it is of these data and options, None without a file."""
    if not Path(out).exists():
        return None
    kept = load_file(out, backend=where.backend, device=where.device)
    model_of(kept, out)
    written = kept.metadata[TOLD]
    fault = difference(written["settings"], settings)
    for name, differs in _DIFFERS.items():
        if fault is None and written[name] != told[name]:
            fault = differs
    if fault is not None:
        raise ValueError(
            f"{os.fspath(out)} cannot be resumed: {fault}. Give what it began with, or leave "
            "--resume out to start anew."
        )
    return kept


def _preparation(
    kept: Checkpoint | None, training: Table, settings: Settings, say: Callable[[str], Any]
) -> Preparation:
    """Return the preparation of a file, or one that is learnt from the training rows."""
    if kept is not None and kept.preparation is not None:
        return Preparation.from_bytes(to_host(kept.preparation[BYTES]))
    made = prepare(training.features, seed=settings.seed)
    for name, why in made.left_out.items():
        say(f"{name!r} is left out: it is {why}")
    # As it will be read: what predicts later is what trains now.
    return Preparation.from_bytes(made.to_bytes())


def _rows(part: Table, target: Target, preparation: Preparation) -> Rows:
    return Rows(preparation.transform(part.features), targets_of(target, part.target), part.weights)


def _learn(
    target: Target,
    preparation: Preparation,
    parts: Sequence[Rows],
    settings: Settings,
    where: Selection,
    going: Going,
) -> TableModel:
    """Train the network, write its file, and compare it with a baseline and a linear model."""
    rows, held_out = parts
    weights = _balanced(rows, target) if settings.class_weight else rows.weights
    network = _network(target, rows.x.shape[1], settings)
    optimizer = settings.make_optimizer(len(rows.x))
    keeper = Keeper(
        going.out,
        network,
        optimizer,
        settings.epochs or 0,
        preparation.to_bytes(),
        going.told,
        going.watches,
    )
    result = _fitted(keeper, rows._replace(weights=weights), held_out, settings, where, going)
    found = best_of(result.state)
    if not np.isfinite(found["best"]):
        raise ValueError("the training diverged: lower --learning-rate.")
    theta = result.theta if settings.restarts == 1 else result.theta[found["member"], :]
    curves = {name: np.stack(values) for name, values in keeper.history.items()}
    told = {**going.told, **found}
    model = TableModel(network, theta, preparation, target, told, curves)
    told |= _report(model, parts, weights, going)
    keeper.finish(result.state, theta, told)
    return model


def _network(target: Target, n_in: int, settings: Settings) -> Network:
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


def _balanced(rows: Rows, target: Target) -> np.ndarray:
    """Return row weights that give each class the same sum."""
    weights = np.ones(len(rows.y)) if rows.weights is None else rows.weights
    sums = np.bincount(rows.y, weights, minlength=len(target.classes))
    sums[sums == 0.0] = 1.0
    balanced: np.ndarray = weights * (weights.sum() / (len(target.classes) * sums))[rows.y]
    return balanced


def _fitted(
    keeper: Keeper,
    rows: Rows,
    held_out: Rows,
    settings: Settings,
    where: Selection,
    going: Going,
) -> FitResult:
    """Train from the start, or from where a file's training stood."""
    network, kept = keeper.network, going.kept
    stack = (settings.restarts,) if settings.restarts > 1 else ()
    places: dict[str, Any] = {"backend": where.backend, "device": where.device}
    theta = network.initialize(settings.seed, stack=stack, dtype=where.dtype, **places)
    theta = _modest(network, theta, rows)
    x, y, weights = _placed(rows, network, where)
    if kept is not None and kept.state is not None:
        for name, values in kept.state.history.items():
            keeper.history[name] = list(values)
        going.say(f"going on after epoch {kept.state.epoch}")
    is_small = settings.batch_size * rows.x.shape[1] * max((1, *settings.sizes)) < _WORTH_THREADS
    try:
        with threadpool_limits(1 if is_small else None, user_api="blas"):
            result: FitResult = fit(
                network,
                theta,
                x,
                y,
                optimizer=keeper.optimizer,
                epochs=settings.epochs or 0,
                batch_size=settings.batch_size,
                seed=settings.seed,
                sample_weight=weights,
                validation=_placed(held_out, network, where),
                early_stopping=EarlyStopping(settings.patience),
                start=None if kept is None else kept.state,
                callbacks=(keeper,),
            )
    except KeyboardInterrupt as error:
        _interrupted(keeper, getattr(error, "state", None), going)
        raise
    return result


def _modest(network: Network, theta: Array, rows: Rows) -> Array:
    """Return a start that says little more of a row than the trivial baseline does.

    From there early stopping finds what is better, also where a table has more columns than rows.
    """
    *others, (weights, bias) = network.unpack(theta)
    if network.loss_function.labels or network.loss_function.targets == (0.0, 1.0):
        counts = np.bincount(rows.y, rows.weights, minlength=max(2, bias.shape[-1])) + 1e-3
        logits = np.log(counts / counts.sum())
        logits = logits if len(logits) == bias.shape[-1] else logits[1:] - logits[:1]
        bias = bias + beside(theta, logits, theta.dtype)
    return network.pack([*others, (weights * _MODEST, bias)])


def _interrupted(keeper: Keeper, state: Any, going: Going) -> None:
    if keeper.write(state):
        best = best_of(state)
        going.say(
            f"interrupted in epoch {state.epoch + 1}: {os.fspath(keeper.path or '')} has the best "
            f"network so far, of epoch {best['best_epoch']}, validation loss {best['best']:.6g}. "
            "The same command with --resume goes on."
        )
    else:
        going.say("interrupted before there was a network to keep")


def _placed(rows: Rows, network: Network, where: Selection) -> tuple[Array, Array, Array | None]:
    """Return rows where the training runs; classes as integers where there are more than two."""

    def put(values: np.ndarray, dtype: Any) -> Array:
        return asarray(values, backend=where.backend, device=where.device, dtype=dtype)

    labels = network.loss_function.labels
    y = put(rows.y.astype("int32"), None) if labels else put(rows.y[:, None], where.dtype)
    weights = None if rows.weights is None else put(rows.weights, where.dtype)
    return put(rows.x, where.dtype), y, weights


def _report(
    model: TableModel, parts: Sequence[Rows], weights: np.ndarray | None, going: Going
) -> dict[str, Any]:
    """Return the report, and how each class fares; numbers are in the target's own unit."""
    target = model.target
    rows, held_out = (_in_its_unit(part, target) for part in parts)
    found = {
        "validation": model.outputs(held_out.x),
        "linear": linear(target, rows.x, rows.y, held_out.x, weights),
        "baseline": trivial(target, rows.y, len(held_out.y), rows.weights),
    }
    scored = {name: score(target, held_out.y, f, held_out.weights) for name, f in found.items()}
    report = {
        "task": target.task,
        "rows": len(rows.y) + len(held_out.y),
        "features": len(model.preparation.kinds),
        "epochs": model.told["epoch"],
        **scored,
        "model": None if going.out is None else os.fspath(going.out),
    }
    told: dict[str, Any] = {"report": report}
    if target.classes:
        told["classes"] = by_class(target, held_out.y, found["validation"], held_out.weights)
    return told


def _in_its_unit(rows: Rows, target: Target) -> Rows:
    if target.classes:
        return rows
    return rows._replace(y=rows.y * target.scale + target.mean)
