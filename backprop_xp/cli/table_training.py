"""The training of the command ``train``: from a table to a fitted estimator and its report."""

import contextlib
import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from sklearn.base import clone

from backprop_xp.tables.column_warnings import column_warnings
from backprop_xp.tables.evaluation import Scores, evaluate, report_of
from backprop_xp.tables.features import Features
from backprop_xp.tables.problem import Columns, Part, Problem, make_problem
from backprop_xp.tables.readers import TableData
from backprop_xp.tables.rows import Rows
from backprop_xp.tables.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.tabular_file import PathLike
from backprop_xp.tables.tabular_parameters import Task
from backprop_xp.training.states import TrainingState

Say: TypeAlias = Callable[[str], object]
# Called after each epoch with its state and the maximum number of epochs.
Watch: TypeAlias = Callable[[TrainingState, int], object]
# Opens the display of one training.
Display: TypeAlias = Callable[[], contextlib.AbstractContextManager[Watch]]
Estimator: TypeAlias = TabularClassifier | TabularRegressor


def train_table(
    data: TableData,
    target: str,
    *,
    parameters: Mapping[str, Any],
    task: Task | None = None,
    columns: Columns | None = None,
    validation: Part = 0.15,
    test: Part | None = 0.15,
    cv: int | None = None,
    out: PathLike | None = None,
    resume: bool = False,
    say: Say = lambda line: None,
    watches: Sequence[Watch] = (),
    display: Display = lambda: contextlib.nullcontext(lambda state, epochs: None),
) -> Estimator:
    """Return an estimator that predicts one column of a table from the others.

    ``parameters`` are those of the estimator; ``random_state`` is an integer, which also draws the
    parts. ``validation`` and ``test`` are each a share of the rows, or a table of its own: the
    validation rows end the training and choose the epoch, the test rows are for the report alone.
    ``cv`` folds take the place of the test rows; their models are trained after the estimator.
    ``out`` is the model's file; with ``resume`` the training in it continues. ``say`` is called
    with lines for the user, each of ``watches`` after each epoch of the estimator, and ``display``
    for each training.

    The estimator's ``metadata_`` has the split (``test``, ``validation``, ``cv``, ``group``,
    ``time``), the SHA-256 of the ``data``, the ``report``, and for classes ``classes``, both on the
    test rows.
    """
    problem = make_problem(
        *(data, target, columns or Columns()),
        task=task,
        test=test,
        validation=validation,
        seed=parameters["random_state"],
        cv=cv,
    )
    model, parts, told = _estimator(problem, parameters), problem.parts(), list[str]()

    def tell(state: TrainingState, epochs: int) -> None:
        """Print the lines at the first call, so that an error before it is a single line."""
        if not told:
            features, missing = model.model_.features, out if resume else None
            told.extend(_lines(problem, features, state.epoch - 1, missing))
            for line in told:
                say(line)

    with _warnings_said(say):
        options = {"checkpoint": out, "resume": resume, "metadata": problem.metadata}
        _fit(model, parts, display, [tell, *watches], **options)
        if not told:
            say(f"the training in {out} is finished")
        if "report" not in model.metadata_:
            folds = [
                _scores_of_fold(clone(model), problem, fold, display, say)
                for fold in range(1, len(problem.splits))
            ]
            more = {**model.metadata_, **report_of(model, parts, out, folds)}
            model.model_ = dataclasses.replace(model.model_, metadata=more)
            if out is not None:
                model.save(out)
    return model


def _fit(
    model: Estimator,
    parts: Mapping[str, Rows],
    display: Display,
    watches: Sequence[Watch],
    **options: Any,
) -> None:
    """Fit a model to the training rows; the watches are called before the display."""
    held_out = parts["validation"]
    with display() as show:

        def watch_all(state: TrainingState) -> None:
            for watch in (*watches, show):
                watch(state, model.model_.record["recipe"]["max_iter"])

        model.fit(
            *parts["training"],
            X_val=held_out.features,
            y_val=held_out.target,
            sample_weight_val=held_out.weights,
            callbacks=[watch_all],
            **options,
        )


def _scores_of_fold(
    model: Estimator, problem: Problem, fold: int, display: Display, say: Say
) -> Scores:
    """Return the metrics of a model that is trained on the other folds."""
    say(f"fold {fold} of {len(problem.splits) - 1}")
    parts = problem.parts(fold)
    _fit(model, parts, display, [])
    return evaluate(model, parts)[0]


def _lines(
    problem: Problem, features: Features, resumed: int, missing: PathLike | None
) -> Iterator[str]:
    """Yield lines about a training that is resumed after an epoch, or begins after epoch 0.

    ``missing`` is the file that such a training should resume.
    """
    yield from problem.lines()
    if resumed:
        yield f"resumed after epoch {resumed}"
        return
    if missing is not None:
        yield f"there is no {missing} to resume: the training starts from the beginning"
    for name, reason in features.left_out.items():
        yield f"{name!r} is left out: it is {reason}"
    rows, time = problem.splits[0]["training"], problem.metadata["time"]
    yield from column_warnings(features, problem.table.take(rows), problem.rule.take(rows), time)


def _estimator(problem: Problem, parameters: Mapping[str, Any]) -> Estimator:
    if problem.target.classes:
        return TabularClassifier(**parameters)
    given = dict(parameters)
    if given.pop("class_weight", None) is not None:
        raise ValueError(f"class_weight is for classes, but {problem.target.name!r} is a number.")
    return TabularRegressor(**given)


@contextlib.contextmanager
def _warnings_said(say: Say) -> Iterator[None]:
    """Turn the warnings of a training into lines for the user."""

    def show(message: Warning | str, *rest: object) -> None:
        say(str(message))

    with warnings.catch_warnings(action="always", category=RuntimeWarning):
        warnings.showwarning = show  # type: ignore[assignment]
        yield
