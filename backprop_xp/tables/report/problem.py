"""The problem of a training: a target, and the training, validation and test rows."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.checks import integer, nearest, real
from backprop_xp.tables.columns.detection import Detected, detect
from backprop_xp.tables.columns.kinds import numbers_among
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.model.rows import Rows, without_tiny
from backprop_xp.tables.model.tabular_parameters import Task
from backprop_xp.tables.readers.cells import (
    CellError,
    decimal_of,
    is_categorical,
    is_string,
    numbers,
)
from backprop_xp.tables.readers.frames import header_hint, named_columns, require_plain
from backprop_xp.tables.readers.table_files import (
    Table,
    TableData,
    as_table,
    naming_lines,
    place_of,
    with_fallback,
)
from backprop_xp.tables.report.split import SplitRule, groups_of, times_of
from backprop_xp.tables.report.target import Target, find_target, target_values

# A line names at most so many classes.
_MAX_NAMES = 6

# The parts of a split, in this order.
_PARTS = ("training", "validation", "test")

# A share of the rows, or a table of its own.
Part: TypeAlias = float | TableData


class ColumnChoice(NamedTuple):
    """The choice of columns: without ``features``, all but ``drop``, ``weights`` and ``group``.

    ``named_columns`` reads ``features`` and ``drop``.

    Rows of one ``group`` stay in one part; by ``time`` the newest rows are the test rows. ``kinds``
    are those that the user chose.
    """

    features: Sequence[str] = ()
    drop: Sequence[str] = ()
    weights: str | None = None
    group: str | None = None
    time: str | None = None
    kinds: Mapping[str, str] = {}


class Problem(NamedTuple):
    """A target, a table that has it, and the part of each row in each split.

    The network learns from the ``"training"`` rows; the ``"validation"`` rows end the training and
    choose the network; the ``"test"`` rows are for the report alone. ``labels`` ``(splits, rows)``
    has the part of each row: the first split is that of the model, each further one that of a fold.
    ``others`` are parts that are tables of their own. All rows, without their targets, have decided
    the kinds of the columns, ``detected``. ``omitted`` counts the rows without a target, and those
    of weight 0.
    ``metadata`` is what a resumed training must have too. ``held_out`` is the share of the training
    rows that each network draws as its own validation rows, None if there are validation rows.
    """

    target: Target
    table: Rows
    detected: Detected
    rule: SplitRule
    labels: np.ndarray
    others: Mapping[str, Rows]
    omitted: tuple[int, int]
    metadata: Mapping[str, Any]
    held_out: float | None

    def column_lines(self) -> Iterator[str]:
        """Yield lines for the user about columns that are not read as they are."""
        yield from self.detected.lines()

    def rows(self, part: str, split: int = 0) -> np.ndarray:
        """Return the indices of the table's rows that are in a part."""
        return np.flatnonzero(self.labels[split] == part)

    def parts(self, split: int = 0) -> dict[str, Rows]:
        """Return the rows of each part of a split."""
        drawn = [name for name in _PARTS if name in self.labels[split]]
        parts = {**{name: self.table.take(self.rows(name, split)) for name in drawn}, **self.others}
        return {name: parts[name] for name in _PARTS if name in parts}


def make_problem(
    data: TableData,
    target: str,
    columns: ColumnChoice,
    *,
    task: Task | None = None,
    test: Part | None = None,
    validation: Part = 0.15,
    seed: int,
    cv: int | None = None,
) -> Problem:
    """Return the problem of predicting a table's target; the seed draws shares of its rows.

    Rows without a target and rows of weight 0 are dropped first. All others decide the kinds of the
    columns, before the seed draws anything.

    ``cv`` is the number of folds, which take the place of ``test``, by default a share of 0.15.
    """
    if cv and test is not None:
        raise ValueError("cv and test exclude each other: the folds are the test rows.")
    seed = integer(seed, "random_state", at_least=0)
    numbers = [*numbers_among(columns.kinds), columns.weights or ""]
    table = as_table(data, texts=[target], numbers=numbers)
    with naming_lines(table.source):
        features = chosen_features(table.frame, target, columns)
    found, rows, omitted = rows_of(table, target, features, columns.weights, task)
    if rows.target.nunique() < 2:
        only = f"{rows.target.iloc[0]!s} in all rows that have a weight"
        raise ValueError(f"the target {target!r} is {only}: nothing to learn.")
    parts = {} if cv else {"test": 0.15 if test is None else test}
    parts["validation"] = validation
    shares = {
        name: real(part, name, above=0.0, below=1.0)
        for name, part in parts.items()
        if isinstance(part, int | float)
    }
    others = {
        name: _read_part(part, name, found, rows, columns.weights)
        for name, part in parts.items()
        if name not in shares
    }
    tables = rows, *others.values()
    detected = detect(
        *(one.features for one in tables),
        kinds=columns.kinds,
        places=[partial(place_of, one.source) for one in tables],
    )
    rule = _rule(table.frame, rows, found, columns, detected, seed)
    if rule.units is not None and not (shares or cv):
        raise ValueError("omit group and time: test and validation are tables of their own.")
    metadata: dict[str, Any] = {name: shares.get(name, "a table") for name in parts}
    metadata |= {"cv": cv, "group": columns.group, "time": columns.time}
    data_of = {"data": rows, **{f"{name} data": other for name, other in others.items()}}
    metadata |= {name: {"sha256": one.fingerprint()} for name, one in data_of.items()}
    held_out, labels = None, rule.labels(shares, cv)
    if rule.units is None and "validation" in shares:  # each network draws its own
        drawn, is_left = labels == "validation", np.isin(labels[0], ("training", "validation"))
        held_out = float(drawn[0].sum() / is_left.sum())
        labels[drawn] = "training"
    problem = Problem(found, rows, detected, rule, labels, others, omitted, metadata, held_out)
    _check(problem)
    return problem


def lines_about(target: Target, without: int, weightless: int = 0) -> Iterator[str]:
    """Yield lines about a target, and the numbers of rows without it, and without weight."""
    names = [str(name) for name in target.classes]
    more = ", ..." if len(names) > _MAX_NAMES else ""
    classes = f" ({', '.join(names[:_MAX_NAMES])}{more})" if names else ""
    yield f"{target.task}, for {target.name!r}: {target.reason}{classes}"
    if without:
        yield f"{without:,} rows without {target.name!r} are left out"
    if weightless:
        yield f"{weightless:,} rows of weight 0 are left out"


def _rule(
    frame: pd.DataFrame,
    table: Rows,
    target: Target,
    columns: ColumnChoice,
    detected: Detected,
    seed: int,
) -> SplitRule:
    if columns.group and columns.time:
        raise ValueError("rows are split by a group or by a time: omit one of group and time.")
    classes = units = None
    if target.classes:
        classes = np.unique(table.target.to_numpy(), return_inverse=True)[1]
    if name := columns.group or columns.time:
        own = table.features  # what has decided the kind of a time that is a feature
        with naming_lines(table.source):
            if name not in own:
                own = as_table(frame[[name]], rows=own.index.to_numpy()).frame
                require_plain(own)
            known = detected.columns.get(name)
            units = times_of(own[name], known) if columns.time else groups_of(own[name])
    numbers = np.arange(len(table.target))
    return SplitRule(numbers, classes, units, bool(columns.time), seed)


def _check(problem: Problem) -> None:
    """Raise ValueError for a part with a class that training lacks."""
    # The checks need no features.
    slim = problem._replace(
        table=problem.table._replace(features=problem.table.features.iloc[:, :0])
    )
    for split in range(len(problem.labels)):
        parts = slim.parts(split)
        for name, part in parts.items():
            if problem.target.classes and (new := {*part.target} - {*parts["training"].target}):
                raise ValueError(
                    f"no training row has the class {min(new)!r} of the {name} rows: choose "
                    "another seed or share, or leave out such rows."
                )


def chosen_features(frame: pd.DataFrame, target: str, columns: ColumnChoice) -> list[str]:
    """Return the names of the chosen features.

    Raises ValueError for a column that is not there.
    """
    own = columns.weights, columns.group, columns.time
    chosen, drop = (named_columns(names, frame) for names in (columns.features, columns.drop))
    _require(frame, target, *chosen, *drop, *own)
    others = {*frame} - {target, columns.weights, columns.group, *drop}
    wanted = chosen or others
    features = [name for name in frame if name in others and name in wanted]
    if not features:
        raise ValueError(f"no column is left to predict {target!r} from.")
    return features


def rows_of(
    table: Table,
    target: str | Target,
    features: Sequence[str],
    weights: str | None = None,
    task: Task | None = None,
) -> tuple[Target, Rows, tuple[int, int]]:
    """Return a target, which is found unless it is known, and the rows that have it and a weight.

    They hold its classes or numbers. The numbers of the other rows follow: those without a target,
    and those of weight 0. Raises ValueError for a class that a known target lacks.
    """
    is_whole = isinstance(target, str)
    name, classes = (target, ()) if isinstance(target, str) else (target.name, target.classes)
    _require(table.frame, name, *features, weights)
    with naming_lines(table.source):
        require_plain(table.frame, [name, *filter(None, [weights])])
        values = target_values(table.frame[name], classes, table.decimal)
        present = values.notna().to_numpy()
        if not present.any():
            raise ValueError(f"the target {name!r} is missing in every row.")
        at = np.flatnonzero(present)
        counted, weight = np.arange(len(at)), None
        if weights is not None:
            weight = without_tiny(weights_of(table.frame[weights].iloc[at]))
            counted = np.flatnonzero(weight)
            weight = weight[counted]
        if not len(counted):
            raise ValueError(f"the weights {weights!r} are 0 in all rows.")
        values = values[present].infer_objects()
        if isinstance(target, str):
            categorical = is_categorical(table.frame[name])
            target = find_target(Sample.of(values), task, is_categorical=categorical)
        values = pd.Series(target.values(values, table.decimal), name=name).iloc[counted]
        chosen = None if len(counted) == len(present) else at[counted]
        frame = as_table(table.frame[[*features]], rows=chosen, is_whole=is_whole).frame
        require_plain(frame)
    omitted = len(present) - len(at), len(at) - len(counted)
    return target, Rows(frame, values, weight, table.source), omitted


def _require(frame: pd.DataFrame, *names: str | None) -> None:
    for name in names:
        if name is not None and name not in frame:
            hint = header_hint(list(frame)) or f" {nearest(name, list(frame))}"
            raise ValueError(f"there is no column {name!r}.{hint}")


def weights_of(column: pd.Series) -> np.ndarray:
    """Return the numbers of a column of weights; ``CellError`` for what cannot be one."""
    values = np.asarray(numbers(column)[0], dtype="float64")
    wrong = ~(np.isfinite(values) & (values >= 0.0))
    if wrong.any():
        row = int(wrong.argmax())
        raise CellError(
            f"the weights {column.name!r} have {column.iloc[[row]].tolist()[0]!r}",
            ": finite numbers of at least 0 are expected.",
            column.index[row],
        )
    return values


def _read_part(data: Part, name: str, target: Target, training: Rows, weights: str | None) -> Rows:
    """Return the rows of a part's own table, which needs only the columns in use."""
    features = list(training.features)
    strings = [column for column in features if is_string(training.features[column])]
    others = {*features, weights or ""} - {*strings}
    data = with_fallback(data, decimal_of(training.features))
    table = as_table(data, texts=[target.name, *strings], numbers=others)
    try:
        return rows_of(table, target, features, weights)[1]
    except ValueError as error:
        raise ValueError(f"{name} rows: {error}") from error
