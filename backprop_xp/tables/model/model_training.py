"""The training of a model of a table by ``bx.fit``."""

import contextlib
import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import Array, Selection, dtype_name, owner, to_host
from backprop_xp.checks import stacklevel
from backprop_xp.tables.columns.detection import Detected
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.model.blas_threads import one_blas_thread
from backprop_xp.tables.model.fitted_model import TabularModel, TargetScale, residuals_of
from backprop_xp.tables.model.model_file import (
    PathLike,
    TrainingFile,
    has_ended,
    progress,
    refuse_other_training,
    versions,
)
from backprop_xp.tables.model.presets import Recipe, recipe_for
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.model.slope_targets import OfTarget, SlopeTargets
from backprop_xp.tables.model.table_network import (
    first_theta,
    network_for,
    totals_of_codes,
    with_mean_embeddings,
)
from backprop_xp.tables.model.tabular_parameters import NOT_STORED, Values
from backprop_xp.tables.model.training_split import Split
from backprop_xp.tables.readers.cells import decimal_of
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import FitResult, TrainingState
from backprop_xp.training.measures.averages import EMA
from backprop_xp.training.measures.class_weights import weights_by_class
from backprop_xp.training.measures.early_stopping import EarlyStopping
from backprop_xp.training.optimizers.first_order import Optimizer
from backprop_xp.training.optimizers.pytrees import mapped

# Multiplications of a layer's product from which several BLAS threads are faster than one.
_WORTH_THREADS = 2**24

# Called with the model before its training, the recipe, and the weight of each class or None.
# Returns the arguments of ``bx.fit`` that have the rows, and their ``totals_of_codes``.
Stream: TypeAlias = Callable[..., tuple[dict[str, Any], np.ndarray]]


class Source(NamedTuple):
    """What a training learns from: features that its rows have taught, and the split of the rows.

    With a ``stream`` the training rows of the split stand for more rows: they have the same mean
    and deviation, or the same weight of each class. ``counts`` are the numbers of all rows.
    """

    features: Features
    split: Split
    counts: Mapping[str, int]
    stream: Stream | None = None


class Start(NamedTuple):
    """The start of a training: its model, its recipe, and the state that continues or None.

    ``is_over`` is whether the training in a file has ended; then ``model`` is that of the file.
    """

    model: TabularModel
    recipe: Recipe
    state: TrainingState | None = None
    is_over: bool = False


class Learned(NamedTuple):
    """A trained model; for its file the optimizer and the last state, if more epochs can follow.

    The state is on the host, as the model's theta is. ``is_written`` is whether the file has the
    model already: its training had ended.
    """

    model: TabularModel
    optimizer: Optimizer | None = None
    state: TrainingState | None = None
    is_written: bool = False


def prepared(detected: Detected, rows: Rows, recipe: Recipe, seed: int) -> Features:
    """Return the features of detected columns that training rows teach, by a recipe."""
    return detected.learn(
        rows.features,
        rows.scaled_weights(),
        scaling=recipe.scaling,
        max_one_hot=None if recipe.category is None else recipe.category.above,
        seed=seed,
    )


def started(
    values: Values,
    source: Source,
    selection: Selection,
    file: tuple[PathLike, TabularModel, TrainingState | None] | None,
    *,
    metadata: Mapping[str, Any],
    **more: Any,
) -> Start:
    """Return the start of a training; with a ``file``, its path and content, of the one in it.

    ``more`` are the seed, and other fields of the model. Raises ValueError for the file of another
    training.
    """
    recipe = recipe_for(values, source.counts["training"])
    model = _untrained(values, recipe, source, selection, metadata=metadata, **more)
    if file is None:
        return Start(model, recipe)
    path, saved, state = file
    # What was added after the end, such as a report, is of the model in the file.
    model = dataclasses.replace(model, metadata={**saved.metadata, **metadata})
    refuse_other_training(path, saved, model)
    is_longer = recipe.max_iter > saved.record["recipe"]["max_iter"]
    if state is None or (has_ended(saved, state) and not is_longer):
        return Start(saved, recipe, state, is_over=True)
    if is_longer:
        model = dataclasses.replace(model, metadata=metadata)
    return Start(model, recipe, state)


def _untrained(
    values: Values, recipe: Recipe, source: Source, selection: Selection, *, seed: int, **more: Any
) -> TabularModel:
    """Return the model before its training; ``more`` are other fields of it."""
    features, split, *_ = source
    training, n_classes = split.training, 0 if split.classes is None else len(split.classes)
    parts = {"training": training, "validation": split.validation}
    return TabularModel(
        features=features,
        network=network_for(features, recipe, n_classes),
        theta=np.empty(0),
        classes=split.classes,
        scale=TargetScale() if n_classes else _moments(training),
        record={
            "parameters": {name: v for name, v in values.items() if name not in NOT_STORED},
            "recipe": {n: tuple(v) if isinstance(v, tuple) else v for n, v in vars(recipe).items()},
            "seed": seed,
            "rows": source.counts,
            "data": {name: rows.fingerprint() for name, rows in parts.items()},
            "where": {"backend": selection.backend.name, "dtype": dtype_name(selection.dtype)},
            "versions": versions(),
            "decimal": decimal_of(training.features),
        },
        history={},
        **more,
    )


def _moments(rows: Rows) -> TargetScale:
    """Return the weighted mean and standard deviation of numbers, 1 for equal ones."""
    y, weights = rows.target.to_numpy(), rows.scaled_weights()
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        mean = float(np.average(y, weights=weights))
        variance = float(np.average((y - mean) ** 2, weights=weights))
    if not (np.isfinite(mean) and np.isfinite(variance)):
        raise ValueError("y varies too much for a float64: divide it by a power of 10.")
    counted = y if weights is None else y[weights > 0.0]
    if variance < np.finfo("float64").tiny and counted.min() < counted.max():
        raise ValueError("y varies too little for a float64: multiply it by a power of 10.")
    return TargetScale(mean, math.sqrt(variance) if variance > 0.0 else 1.0)


def learn(
    values: Values,
    source: Source,
    selection: Selection,
    start: Start,
    *,
    checkpoint: PathLike | None,
    callbacks: Sequence[Callable[[TrainingState], bool | None]],
    keeps_interrupted: bool = False,
) -> Learned:
    """Return the model after its training, which writes the file ``checkpoint`` unless None.

    The last write is left to the caller. A training that ends at its number of epochs can resume.
    After Ctrl-C, ``keeps_interrupted`` returns the best model so far, with a warning.
    """
    model, recipe, state, _ = start
    split, metric, seed = source.split, values["metric"], model.record["seed"]
    by_class, shares = _class_weights(values, split)
    slopes = SlopeTargets.of(model.features, split.training)
    trained_network = model.network if slopes is None else slopes.network(model.network)
    stream = source.stream or functools.partial(_in_memory, split, selection, slopes)
    data, totals = stream(model, recipe, by_class)
    finished = functools.partial(with_mean_embeddings, model.network, totals)
    theta = first_theta(model.network, shares, seed, recipe.n_members, selection)
    theta = theta if state is None else state.theta
    optimizer = recipe.optimizer(model.record["rows"]["training"], model.network.weight_mask(theta))
    if checkpoint is not None:
        before = {} if state is None else {n: list(v) for n, v in state.history.items()}
        file = TrainingFile(checkpoint, model, optimizer, before, finished)
        callbacks = [*callbacks, file]
    order = seed
    if recipe.n_members > 1:  # each member has its own order of the rows
        order = (np.random.SeedSequence(seed).generate_state(recipe.n_members) >> 1).tolist()
    try:
        with contextlib.nullcontext() if _gains_by_threads(model, recipe) else one_blas_thread():
            result = fit(
                trained_network,
                theta,
                **data,
                optimizer=optimizer,
                epochs=recipe.max_iter,
                seed=order,
                metrics=_metrics(metric, slopes),
                average=EMA(recipe.decay) if recipe.decay else None,
                early_stopping=EarlyStopping(recipe.n_iter_no_change, watch=metric),
                plateau=recipe.plateau,
                start=state,
                callbacks=callbacks,
                progress=values["verbose"],
            )
    except KeyboardInterrupt as error:
        reached: TrainingState | None = getattr(error, "state", None)
        if checkpoint is not None:
            error.add_note(file.write_interrupted(reached))
        if not keeps_interrupted or reached is None or reached.best is None:
            raise
        warnings.warn("Training interrupted by user.", stacklevel=stacklevel())
        theta, moments = reached.best.theta, reached.optimizer_state
        result = FitResult(theta, dict(reached.history), moments, reached.epoch, reached)
    trained = _trained(values, model, split, result, finished)
    if checkpoint is None or result.epochs < recipe.max_iter:  # early stopping ended it
        return Learned(trained)
    return Learned(trained, optimizer, mapped(_on_host, result.state))


def _in_memory(
    split: Split,
    selection: Selection,
    slopes: SlopeTargets | None,
    model: TabularModel,
    recipe: Recipe,
    by_class: Any,
) -> tuple[dict[str, Any], np.ndarray]:
    """Return what a ``Stream`` returns, for the rows of a split and their derivatives."""
    data: dict[str, Any] = {"batch_size": recipe.batch_size, "class_weight": by_class}
    rows_of = functools.partial(on_device, model=model, selection=selection, slopes=slopes)
    data["x"], data["y"], data["sample_weight"] = rows_of(split.training)
    data["validation"] = split.held_out
    if split.held_out is None:
        data["validation"] = rows_of(split.validation)
    rows, at = split.parts["training"]
    return data, totals_of_codes(model.features, rows.features, rows.weights, at)


def _metrics(metric: str | None, slopes: SlopeTargets | None) -> Any:
    """Return the metrics of ``bx.fit``: that of the target, also beside derivatives."""
    if metric is None or slopes is None:
        return None if metric is None else [metric]
    return {metric: OfTarget(metric)}


def _gains_by_threads(model: TabularModel, recipe: Recipe) -> bool:
    """Whether several BLAS threads are faster than one for the products of the training."""
    width, widest = model.features.n_features, max((1, *recipe.hidden_layer_sizes))
    return recipe.batch_size * width * widest >= _WORTH_THREADS


def _on_host(leaf: Any) -> Any:
    return leaf if isinstance(leaf, Number) or owner(leaf) is None else to_host(leaf)


def on_device(
    rows: Rows,
    model: TabularModel,
    selection: Selection,
    slopes: SlopeTargets | None = None,
) -> tuple[Array, Array, Array | None]:
    """Return rows where the training runs; three or more classes are integer labels.

    ``slopes`` are the columns by which derivatives are learned: then each entry has a weight.
    """
    dtype, y, weights = selection.dtype, rows.target.to_numpy(), rows.scaled_weights()
    put = functools.partial(selection.backend.from_host, device=selection.device)
    x = put(model.features.transform(rows.features), dtype)
    if model.network.loss_function.labels:
        targets = put(y.astype("int32"))
    else:
        columns = (y[..., None] - model.scale.mean) / model.scale.scale
        if slopes is not None:
            columns, weights = slopes.beside(columns, rows, model.features, model.scale.scale)
        targets = put(columns, dtype)
    return x, targets, None if weights is None else put(weights, dtype)


def _trained(
    values: Values,
    model: TabularModel,
    split: Split,
    result: FitResult,
    finished: Callable[[Array], np.ndarray],
) -> TabularModel:
    found = progress(result.state)
    if not np.isfinite(found["best"]).all():
        raise ValueError("the training diverged: lower learning_rate_init.")
    record = {**model.record, **found, "versions": versions()}  # of a resumed model, too
    theta = finished(result.theta)
    trained = dataclasses.replace(model, theta=theta, record=record, history=result.history)
    if model.classes is not None:
        return trained
    where = {name: values[name] for name in ("backend", "device")}
    y, weights = split.validation.target.to_numpy(), split.validation.scaled_weights()
    residuals = residuals_of(y, split.validation_outputs(trained, **where), weights)
    return dataclasses.replace(trained, residuals=residuals)


def _class_weights(values: Values, split: Split) -> tuple[list[float] | None, np.ndarray]:
    """Return the weight of each class, None without any, and the classes' weighted shares."""
    rows, classes = split.training, split.classes
    if classes is None:
        return None, np.empty(0)
    indices, weights = rows.target.to_numpy(), rows.scaled_weights()
    totals = np.bincount(indices, weights, minlength=len(classes))
    given = values.get("class_weight")
    if given is None:
        return None, totals / totals.sum()
    one_hot = np.eye(len(classes))[indices]
    by_class = weights_by_class(given, one_hot, weights, classes.tolist())
    totals = totals * by_class
    return by_class.tolist(), totals / totals.sum()
