"""Training on a table, from its columns to a model with a report."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import Selection, resolve, to_host
from backprop_xp.files.checkpoint import Checkpoint
from backprop_xp.tables.columns import Table, in_its_unit, targets_of
from backprop_xp.tables.detection import prepare
from backprop_xp.tables.model import BYTES, TableModel, model_of
from backprop_xp.tables.network_fit import Rows, balanced, fitted, make_network
from backprop_xp.tables.preparation import Preparation
from backprop_xp.tables.problem import Problem, pose
from backprop_xp.tables.resumption import told_of, training_in
from backprop_xp.tables.scores import by_class, linear, score, trivial
from backprop_xp.tables.settings import Settings, Task
from backprop_xp.tables.training_file import Keeper, Watch, best_of
from backprop_xp.training.options import TrainingState


def train(
    data: Any,
    target: str,
    *,
    settings: Settings | None = None,
    task: Task | None = None,
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    weights: str | None = None,
    validation: Any = 0.15,
    test: Any = 0.15,
    backend: Any = None,
    device: Any = None,
    dtype: Any = "float32",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    say: Callable[[str], Any] = lambda line: None,
    watches: Sequence[Watch] = (),
) -> TableModel:
    """Return a model that predicts one column of a table from the others.

    ``data`` is a path, a pandas or a polars frame. ``validation`` and ``test`` are each a share of
    its rows, drawn from each class alike, or a table of its own: the validation rows end the
    training and choose the network, the test rows are for the report alone. ``weights`` names a
    column of row weights. ``out`` is the model's file, written as training goes; with ``resume`` a
    training that it holds is resumed, to the same theta to the bit. ``say`` is given lines
    about what is done, each of ``watches`` the losses after each epoch.

    Raises ValueError, TypeError or OSError for what cannot be used, in one line. A
    KeyboardInterrupt leaves the file with the best network so far, as each epoch does, and has a
    note of it.
    """
    columns = {"features": features, "drop": drop, "weights": weights}
    given = settings or Settings()
    held_out = {"test": test, "validation": validation}
    problem = pose(data, target, task=task, held_out=held_out, seed=given.seed, columns=columns)
    if given.class_weight and not problem.target.classes:
        raise ValueError(f"class_weight is for classes, but {target!r} is a number.")
    chosen = given.for_rows(len(problem.training.target))
    where = resolve(backend=backend, device=device, dtype=dtype)
    told = told_of(problem, chosen, where)
    kept = training_in(out, told, where) if resume and out is not None else None
    for line in [*problem.told(), *_going_on(out, kept, resume=resume)]:
        say(line)
    if kept is not None and kept.state is None:
        return model_of(kept, out)
    preparation = _preparation(kept, problem.training, chosen, say)
    keeper = Keeper(
        out,
        make_network(problem.target, preparation.n_features, chosen),
        chosen.make_optimizer(len(problem.training.target)),
        chosen.epochs or 0,
        preparation.to_bytes(),
        told,
        tuple(watches),
        say,
    )
    start = None if kept is None else kept.state
    return _learn(problem, preparation, keeper, settings=chosen, where=where, start=start)


def _going_on(out: Any, kept: Checkpoint | None, *, resume: bool) -> list[str]:
    """Return a line on what a training that is to be resumed goes on from."""
    if not resume:
        return []
    name = "a file" if out is None else os.fspath(out)
    if kept is None:
        return [f"there is no {name} to go on with: the training starts anew"]
    if kept.state is None:
        return [f"the training in {name} is finished: there is nothing to go on with"]
    return [f"going on after epoch {kept.state.epoch}"]


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


def _learn(
    problem: Problem,
    preparation: Preparation,
    keeper: Keeper,
    *,
    settings: Settings,
    where: Selection,
    start: TrainingState | None,
) -> TableModel:
    """Train the network, and leave its file with a report."""
    target = problem.target
    parts = {
        name: Rows(
            preparation.transform(part.features), targets_of(target, part.target), _even(part)
        )
        for name, part in problem.parts.items()
    }
    weighted, judged = parts["training"], parts["validation"]
    if settings.class_weight:
        weighted, judged = balanced(weighted, judged, target)
    keeper.go_on_from(start)
    state = fitted(keeper, weighted, judged, settings=settings, where=where, start=start)
    found = best_of(state)
    if not np.isfinite(found["best"]):
        raise ValueError("the training diverged: lower --learning-rate.")
    theta: Any = state.best.theta if state.best is not None else None
    theta = theta if settings.restarts == 1 else theta[found["member"], :]
    told = {**keeper.told, **found}
    model = TableModel(keeper.network, theta, preparation, target, told, keeper.curves())
    told |= _report(model, parts, weighted.weights, keeper.path)
    keeper.finish(theta, told)
    return model


def _even(part: Table) -> np.ndarray | None:
    """Return the rows' weights with a mean of 1: what they are multiplied by tells nothing."""
    if part.weights is None:
        return None
    weights = part.weights / part.weights.max()  # the sum of all may be infinite
    even: np.ndarray = weights / weights.mean()
    return even


def _report(
    model: TableModel, parts: dict[str, Rows], weights: np.ndarray | None, out: Any
) -> dict[str, Any]:
    """Return the report, and how each class fares; ``weights`` are those of the training."""
    target, (training, _, test) = model.target, parts.values()
    y = {name: in_its_unit(target, part.y) for name, part in parts.items()}
    found = {
        "validation": model.outputs(parts["validation"].x),
        "test": model.outputs(test.x),
        "linear": in_its_unit(target, linear(target, training.x, training.y, test.x, weights)),
        "baseline": in_its_unit(target, trivial(target, training.y, len(test.y), training.weights)),
    }
    of = {name: "validation" if name == "validation" else "test" for name in found}
    report = {
        "task": target.task,
        "rows": sum(len(part.y) for part in parts.values()),
        "features": len(model.preparation.kinds),
        "epochs": model.told["epoch"],
        "parts": {name: len(part.y) for name, part in parts.items()},
        **{
            name: score(target, y[of[name]], f, parts[of[name]].weights)
            for name, f in found.items()
        },
        "measured_on": of,
        "model": None if out is None else os.fspath(out),
    }
    told: dict[str, Any] = {"report": report}
    if target.classes:
        told["classes"] = by_class(target, test.y, found["test"], test.weights)
    return told
