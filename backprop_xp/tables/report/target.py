"""The target column: its task, and its values as classes or numbers."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.estimators.targets import refuse_dates
from backprop_xp.tables.columns.sample import MOST, Sample
from backprop_xp.tables.model.tabular_parameters import Task
from backprop_xp.tables.readers.cells import (
    TIME,
    CellError,
    as_strings,
    booleans,
    distinct,
    find_style,
    is_string,
    numbers,
    style_with,
)

Class: TypeAlias = str | bool | int | float
# Integers with at most this many distinct values are classes.
_MAX_INTEGERS = 10
# With at most this share of other values, a target is one of numbers with a few mistakes.
_MAX_MISTAKES = 0.1


class Target(NamedTuple):
    """The column to predict: one of its classes, or a number."""

    name: str
    task: Task
    reason: str
    classes: tuple[Class, ...] = ()

    @property
    def labels(self) -> np.ndarray | None:
        """The classes as an array, strings as objects; None for numbers."""
        if not self.classes:
            return None
        return np.asarray(self.classes, dtype=object if isinstance(self.classes[0], str) else None)

    def values(self, column: pd.Series, decimal: str = ".") -> np.ndarray:
        """Return a column's classes or numbers, as an estimator takes them.

        ``decimal`` is the sign in the numbers of strings. Raises ValueError for a class that
        training did not have, or a string instead of a number.
        """
        values = as_array(target_values(column, self.classes, decimal))
        if self.task == "regression":
            if values.dtype == object:  # some string is no number
                values, _ = numbers(column, style_with(decimal))
            values = values.astype("float64")
            wrong, expected = ~np.isfinite(values), "a regression needs finite numbers"
        else:
            known = {*self.classes}
            wrong = np.asarray([value not in known for value in values.tolist()])
            expected = "training did not have this class"
        if wrong.any():
            row = int(wrong.argmax())
            has = f"the target {self.name!r} has {column.iloc[[row]].tolist()[0]!r}"
            raise CellError(has, f", but {expected}.", column.index[row])
        return values


def find_target(
    sample: Sample, task: Task | None = None, *, is_categorical: bool = False
) -> Target:
    """Return the target of a column without missing values, for this task or the inferred one.

    Strings, booleans, integers of at most ten distinct values, and a column that was declared
    categorical are classes. Raises ValueError if there is nothing to learn, and for times of day
    that nobody has declared to be classes, and for more classes than ``MOST``.
    """
    column, rows = sample.column, sample.rows
    name = str(column.name)
    refuse_dates(column, f"the target {name!r}", ", or for classes to strings")
    is_declared = is_categorical or task == "classification"
    if is_string(column) and not is_declared and find_style(distinct(column)[0]) == TIME:
        raise ValueError(
            f"the target {name!r} holds times: convert them to numbers, such as minutes, or for "
            "classes choose the task 'classification'."
        )
    values = as_array(target_values(column))
    levels = np.unique(values.astype(str) if values.dtype == object else values)
    if len(levels) < 2:
        raise ValueError(f"the target {name!r} is {levels[0]!s} in all rows: nothing to learn.")
    kind, reason = values.dtype.kind, f"it has {len(levels)} different values"
    if task is not None:
        reason = "the task was given"
    elif is_categorical:
        reason = f"it is a column of {len(levels)} categories"
    elif kind in "iu" and len(levels) <= _MAX_INTEGERS:
        reason = f"it has {len(levels)} different whole numbers"
    elif kind in "iuf":
        task, reason = "regression", "it holds numbers"
    if task == "regression":
        return Target(name, task, reason)
    if kind == "f":  # scikit-learn refuses such labels as numbers
        levels = np.unique(as_strings(target_values(column)).to_numpy(dtype=object))
    n = round(len(levels) / sample.limit)
    if n > max(2, rows // 2):
        _, wrong = numbers(column)
        rows_of, each = (column, sample.each) if sample.limit == 1.0 else (sample.drawn, None)
        if wrong.any() and np.average(numbers(rows_of)[1], weights=each) <= _MAX_MISTAKES:
            row = int(wrong.argmax())
            raise CellError(
                f"the target {name!r} has {column.iloc[row]!r}",
                ", but nearly all other values are numbers: correct it, or leave it empty.",
                column.index[row],
            )
        raise ValueError(
            f"the target {name!r} has {n} different values in {rows} rows: a class needs several "
            "rows."
        )
    if sample.limit < 1.0:
        raise ValueError(
            f"the target {name!r} has about {n:,} classes, but {MOST:,} are possible at most: "
            "group them, or choose another target."
        )
    return Target(name, "classification", reason, tuple(levels.tolist()))


def target_values(
    column: pd.Series, classes: Sequence[Class] = (), decimal: str = "."
) -> pd.Series:
    """Return a target's numbers or booleans, also those that strings hold; else its strings.

    Times of day stay strings. ``decimal`` is the sign in the numbers of strings. With classes that
    are strings, all values stay strings: 01 and None are ordinary names.
    """
    if classes and isinstance(classes[0], str):
        return as_strings(column)
    if not is_string(column):
        return column
    style = find_style(distinct(column)[0], decimal)
    if style not in (None, TIME):
        return pd.Series(numbers(column, style)[0], column.index, name=column.name)
    converted = booleans(column)
    return column if converted is None else converted


def as_array(column: pd.Series) -> np.ndarray:
    """Return a target's values: whole numbers as integers, strings as objects."""
    values = np.asarray(column, dtype=object if is_string(column) else None)
    is_whole = values.dtype.kind == "f" and (values == np.floor(values)).all()
    return values.astype("int64") if is_whole and (abs(values) < 2**53).all() else values
