"""The training of the command ``train``: from a problem to a fitted estimator and its report."""

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from sklearn.base import clone

from backprop_xp.display.progress import Report, reporting
from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.interface.tabular_base import Callback
from backprop_xp.tables.model.model_file import PathLike, measures_of, write_anew
from backprop_xp.tables.report.column_warnings import column_warnings
from backprop_xp.tables.report.evaluation import evaluate, with_report
from backprop_xp.tables.report.problem import Problem, lines_about
from backprop_xp.tables.report.target import Target
from backprop_xp.training.interfaces.states import TrainingState

# Training rows of a class with which scikit-learn's boosting diverges; the maximum of names.
_RARE, _MAX_NAMES = 2, 6

Estimator: TypeAlias = TabularClassifier | TabularRegressor


def train_table(
    problem: Problem,
    parameters: Mapping[str, Any],
    *,
    out: PathLike | None = None,
    resume: bool = False,
    say: Callable[[str], object] = lambda line: None,
    callbacks: Sequence[Callback] = (),
    failed: Callable[[OSError], object] | None = None,
) -> Estimator:
    """Return an estimator that is trained on a problem, then on each fold for the report.

    ``out`` is the model's file; with ``resume`` the training in it continues. ``say`` is called
    with lines for the user, each of ``callbacks`` after each epoch of the estimator. ``metadata_``
    has the problem's metadata, the ``report``, and for classes ``classes``, both on the test rows.
    The error of a write after the training is raised, or else given to ``failed``.
    """
    if problem.held_out is not None:
        parameters = {**parameters, "validation_fraction": problem.held_out}
    model, told = estimator_for(problem.target, parameters), list[str]()

    def tell(state: TrainingState) -> None:
        """Print the lines at the first call, so that an error before it is a single line."""
        if not told:
            told.extend(_lines(problem, state.epoch - 1, out if resume else None))
            for line in told:
                say(line)

    with reported(say):
        options = {"checkpoint": out, "resume": resume, "metadata": problem.metadata}
        has_failed = False
        try:
            _fit(model, problem, 0, [tell, *callbacks], **options)
        except OSError as error:
            if failed is None or not hasattr(model, "theta_"):  # the training has not ended
                raise
            failed(error)
            has_failed = True
        if not told:
            all_epochs = model.n_iter_ == model.model_.record["recipe"]["max_iter"]
            why = "a larger --max-iter continues it" if all_epochs else "early stopping ended it"
            say(f"the training in {out} is finished: {why}")
        if "report" not in model.metadata_:
            _add_report(model, problem, out, say)
            try:
                if out is not None and not has_failed:
                    write_anew(out, model.model_)
            except OSError as error:
                if failed is None:
                    raise
                failed(error)
    return model


def _add_report(
    model: Estimator, problem: Problem, out: PathLike | None, say: Callable[[str], object]
) -> None:
    """Add the report to a model, after a training on each fold."""
    parts, found = problem.parts(), []
    for fold in range(1, len(problem.labels)):
        say(f"fold {fold} of {len(problem.labels) - 1}")
        other, drawn = clone(model), problem.parts(fold)
        _fit(other, problem, fold)
        found.append(evaluate(other, drawn))
    rows = dict(model.model_.record["rows"])
    if "test" in parts:
        rows["test"] = len(parts["test"].target)
        found.append(evaluate(model, parts))
    model._adopt(with_report(model, found, rows, out))


def _fit(
    model: Estimator,
    problem: Problem,
    split: int,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> None:
    """Fit a model to the training rows; the losses of each epoch are shown on stderr."""
    model._keeps_interrupted = False
    parts = problem.parts(split)
    training, held_out = parts["training"], parts.get("validation")
    with contextlib.ExitStack() as stack:

        @functools.cache
        def report() -> Report:
            epochs = model.model_.record["recipe"]["max_iter"]
            return stack.enter_context(reporting(epochs))

        def show(state: TrainingState) -> None:
            report()(state.epoch, lambda: losses_of(state))

        validation = (None, None, None) if held_out is None else held_out[:3]
        model._fit(
            [*training[:3], *validation],
            problem.detected,
            problem.target.labels,
            callbacks=[*callbacks, show],
            **options,
        )


def losses_of(state: TrainingState) -> dict[str, np.ndarray]:
    """Return the losses and the metrics of an epoch, and the best of all epochs, on the host."""
    losses = measures_of(state)
    if (best := state.best) is not None:
        score = best.score if best.mode == "min" else -best.score
        losses |= {f"best_{best.watch.removeprefix('validation_')}": score}
        losses["best_epoch"] = best.epoch
    return losses


def _lines(problem: Problem, resumed: int, missing: PathLike | None) -> Iterator[str]:
    """Yield lines about a training that is resumed after an epoch, or begins after epoch 0.

    ``missing`` is the file that such a training should resume.
    """
    yield from lines_about(problem.target, *problem.omitted)
    if resumed:
        yield f"resumed after epoch {resumed}"
        return
    if missing is not None:
        yield f"there is no {missing} to resume: the training starts from the beginning"
    yield from problem.column_lines()
    time = problem.metadata["time"]
    yield from column_warnings(problem.detected.columns, problem.table, problem.rule, time)
    training = problem.table.target.iloc[problem.rows("training")]
    yield from lines_about_rare(problem.target, training)


def lines_about_rare(target: Target, training: pd.Series) -> Iterator[str]:
    """Yield a line about the classes that very few training rows have."""
    rare = [name for name, count in training.value_counts().items() if count <= _RARE]
    if target.classes and rare:
        yield (
            f"few training rows have the class {', '.join(map(repr, rare[:_MAX_NAMES]))}: gradient "
            "boosting can diverge, the report has its best stage"
        )


def estimator_for(target: Target, parameters: Mapping[str, Any]) -> Estimator:
    """Return the estimator of a target's task; ValueError for weights of classes of a number."""
    if target.classes:
        return TabularClassifier(**parameters)
    given = dict(parameters)
    if given.pop("class_weight", None) is not None:
        raise ValueError(f"class_weight is for classes, but {target.name!r} is a number.")
    return TabularRegressor(**given)


@contextlib.contextmanager
def reported(say: Callable[[str], object]) -> Iterator[None]:
    """Turn warnings, and Ctrl-C, into lines for the user."""

    def show(message: Warning | str, *rest: object) -> None:
        say(str(message))

    with warnings.catch_warnings(action="always", category=RuntimeWarning):
        warnings.showwarning = show  # type: ignore[assignment]
        try:
            yield
        except KeyboardInterrupt as error:
            hint = "interrupted: the same command with --resume continues"
            say("\n".join(getattr(error, "__notes__", [hint])))
            raise
