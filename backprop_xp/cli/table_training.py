"""The training of the command ``train``: from a table to a fitted estimator and its report."""

import contextlib
import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from backprop_xp.backends import resolve
from backprop_xp.checks import known
from backprop_xp.tables.evaluation import report_of
from backprop_xp.tables.problem import Columns, Part, Problem, make_problem
from backprop_xp.tables.readers import TableData
from backprop_xp.tables.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.tabular_file import (
    PathLike,
    cannot_be_resumed,
    different_values,
    read_model,
)
from backprop_xp.tables.tabular_model import TabularModel
from backprop_xp.tables.tabular_parameters import TASKS, Task, checked_parameters
from backprop_xp.tables.tabular_training import stored_parameters
from backprop_xp.training.states import TrainingState

Say: TypeAlias = Callable[[str], object]
# Called after each epoch with its state and the maximum number of epochs.
Watch: TypeAlias = Callable[[TrainingState, int], object]


def train_table(
    data: TableData,
    target: str,
    *,
    parameters: Mapping[str, Any],
    task: Task | None = None,
    columns: Columns | None = None,
    validation: Part = 0.15,
    test: Part = 0.15,
    out: PathLike | None = None,
    resume: bool = False,
    say: Say = lambda line: None,
    watches: Sequence[Watch] = (),
) -> TabularClassifier | TabularRegressor:
    """Return an estimator that predicts one column of a table from the others.

    ``parameters`` are those of the estimator; ``random_state`` is an integer, which also draws the
    parts. ``validation`` and ``test`` are each a share of the rows, drawn from each class alike, or
    a table of its own: the validation rows end the training and choose the epoch, the test rows are
    for the report alone. ``out`` is the model's file; with ``resume`` the training in it continues.
    ``say`` is called with lines for the user, each of ``watches`` after each epoch.

    The estimator's ``metadata_`` has ``target``, ``data`` (the SHA-256 of the table), ``held_out``
    (the shares, or the SHA-256 of the tables), ``rows``, the ``report``, and for classes
    ``classes``, both on the test rows.
    """
    problem = make_problem(
        *(data, target, columns or Columns()),
        task=None if task is None else known(task, TASKS, "task"),
        test=test,
        validation=validation,
        seed=parameters["random_state"],
    )
    model, metadata = _estimator(problem, parameters), _metadata(problem)
    # These raise before a line is printed.
    checked_parameters(model, problem.target.task)
    resolve(backend=model.backend, device=model.device, dtype=model.dtype)
    resumed = [_resume_line(out, model, metadata)] if resume else []
    for line in [*problem.lines(), *resumed]:
        say(line)
    held_out = problem.parts["validation"]

    def watch_all(state: TrainingState) -> None:
        """Call the watches; after the first epoch print the columns that are left out."""
        fitted = model.model_
        for name, reason in fitted.features.left_out.items() if state.epoch == 1 else ():
            say(f"{name!r} is left out: it is {reason}")
        for watch in watches:
            watch(state, fitted.record["recipe"]["max_iter"])

    with _warnings_said(say):
        model.fit(
            *problem.parts["training"],
            X_val=held_out.features,
            y_val=held_out.target,
            sample_weight_val=held_out.weights,
            checkpoint=out,
            resume=resume,
            callbacks=[watch_all],
            metadata=metadata,
        )
    if "report" not in model.metadata_:
        more = {**model.metadata_, **report_of(model, problem, out)}
        model.model_ = dataclasses.replace(model.model_, metadata=more)
        if out is not None:
            model.save(out)
    return model


def _estimator(
    problem: Problem, parameters: Mapping[str, Any]
) -> TabularClassifier | TabularRegressor:
    if problem.target.classes:
        return TabularClassifier(**parameters)
    given = dict(parameters)
    if given.pop("class_weight", None) is not None:
        raise ValueError(f"class_weight is for classes, but {problem.target.name!r} is a number.")
    return TabularRegressor(**given)


def _metadata(problem: Problem) -> dict[str, Any]:
    """Return what a file keeps about the problem, which a resumed training must have too."""
    return {
        "target": {**problem.target._asdict(), "classes": list(problem.target.classes)},
        "data": problem.data,
        "held_out": dict(problem.held_out),
        "rows": {name: len(rows.target) for name, rows in problem.parts.items()},
    }


def _resume_line(
    out: PathLike | None,
    model: TabularClassifier | TabularRegressor,
    metadata: Mapping[str, Any],
) -> str:
    """Return a line for the user on the training that is resumed; raise for another problem."""
    name = "a file" if out is None else os.fspath(out)
    if out is None or not Path(out).exists():
        return f"there is no {name} to resume: the training starts from the beginning"
    written, state = read_model(out)
    difference = next(_differences(written, metadata, model), None)
    if difference is not None:
        raise cannot_be_resumed(out, difference)
    if state is None:
        return f"the training in {name} is finished: there is nothing to resume"
    return f"resumed after epoch {state.epoch}"


def _differences(
    written: TabularModel,
    wanted: Mapping[str, Any],
    model: TabularClassifier | TabularRegressor,
) -> Iterator[str]:
    """Yield the differences between a file's problem and another, causes before effects."""
    old = written.metadata
    if not wanted.keys() <= old.keys():
        yield "backprop-xp train did not write it"
        return
    names = [problem["target"]["name"] for problem in (wanted, old)]
    if names[0] != names[1]:
        yield f"the target is {names[0]!r}, but the file's training has {names[1]!r}"
    if old["data"] != wanted["data"]:
        yield "its training had other data: the rows, the columns or their values have changed"
    for name, value in wanted["held_out"].items():
        other = old["held_out"][name]
        if isinstance(value, dict) and isinstance(other, dict) and value != other:
            yield f"its training had other {name} rows"
    shares = [
        {name: "a table of its own" if isinstance(v, dict) else v for name, v in one.items()}
        for one in (old["held_out"], wanted["held_out"])
    ]
    yield from different_values(*shares)
    if written.task != wanted["target"]["task"]:
        yield f"its task is {written.task}, not {wanted['target']['task']}"
    parameters = stored_parameters(model, wanted["target"]["classes"] or None)
    yield from different_values(written.record["parameters"], parameters)


@contextlib.contextmanager
def _warnings_said(say: Say) -> Iterator[None]:
    """Turn the warnings of a training into lines for the user."""

    def show(message: Warning | str, *rest: object) -> None:
        say(str(message))

    with warnings.catch_warnings(action="always", category=RuntimeWarning):
        warnings.showwarning = show  # type: ignore[assignment]
        yield
