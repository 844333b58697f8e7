"""Which columns of a table are features, which is the target, and what the target asks for."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from backprop_xp.checks import nearest
from backprop_xp.tables.readers import lost_header
from backprop_xp.tables.settings import Task
from backprop_xp.tables.values import as_texts, booleans, distinct, find_style, is_text, numbers

# Whole numbers of so few different values are classes.
_FEW = 10


class Table(NamedTuple):
    """The rows that have a target: their features, that column, their weights or None."""

    features: pd.DataFrame
    target: pd.Series
    weights: np.ndarray | None

    def take(self, places: np.ndarray) -> "Table":
        """Return some of the rows."""
        weights = None if self.weights is None else self.weights[places]
        return Table(self.features.iloc[places], self.target.iloc[places], weights)


class Target(NamedTuple):
    """What is to be predicted: one of the classes, or a number of this mean and scale."""

    name: str
    task: Task
    reason: str
    classes: tuple[Any, ...] = ()
    mean: float = 0.0
    scale: float = 1.0


def table_of(
    frame: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str] = (),
    drop: Sequence[str] = (),
    weights: str | None = None,
) -> Table:
    """Return the rows that have a target; all other columns are features unless told otherwise."""
    for name in (*features, *drop):
        _require(frame, name)
    given = [name for name in frame if name not in (target, weights, *drop)]
    chosen = [name for name in given if not features or name in features]
    if not chosen:
        raise ValueError(f"no column is left to predict {target!r} from.")
    if all(frame[name].nunique(dropna=False) == 1 for name in chosen):
        raise ValueError("all columns are empty or the same in all rows: nothing to learn from.")
    return rows_of(frame, target, features=chosen, weights=weights)


def rows_of(
    frame: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str],
    weights: str | None = None,
    classes: Sequence[Any] = (),
) -> Table:
    """Return the rows of these features that have a target; ``classes`` are those of training."""
    for name in (target, *features, *([weights] if weights else [])):
        _require(frame, name)
    values = _values(frame[target], classes)
    present = values.notna().to_numpy()
    if not present.any():
        raise ValueError(f"the target {target!r} is missing in every row.")
    frame = frame if present.all() else frame[present]
    weight = None if weights is None else _weights(frame[weights], weights)
    return Table(frame[list(features)], values[present].infer_objects(), weight)


def _require(frame: pd.DataFrame, name: str) -> None:
    if name not in frame:
        hint = lost_header(list(frame)) or f" {nearest(name, list(frame))}"
        raise ValueError(f"there is no column {name!r}.{hint}")


def _values(column: pd.Series, classes: Sequence[Any] = ()) -> pd.Series:
    """Return a target's numbers or booleans, also those written as strings; else its strings.

    Texts stay texts where the classes are: 01 and None are as good names as any.
    """
    if classes and isinstance(classes[0], str):
        return as_texts(column)
    if not is_text(column):
        return column
    style = find_style(distinct(column)[0], column.attrs.get("decimal", "."))
    if style is not None:
        return pd.Series(numbers(column, style)[0], column.index, name=column.name)
    known = booleans(column)
    return column if known is None else known


def _weights(column: pd.Series, name: str) -> np.ndarray:
    values = column.to_numpy(dtype="float64") if column.dtype.kind in "fiub" else np.asarray([-1.0])
    if not (np.isfinite(values).all() and (values >= 0.0).all() and values.sum() > 0.0):
        raise ValueError(
            f"the weights {name!r} must be finite numbers of at least 0, with a sum above it."
        )
    return values


def find_target(column: pd.Series, task: Task | None = None) -> Target:
    """Return what a column without missing values asks for, by its values or as it is told.

    Strings, booleans and integers of at most ten values are classes. Raises ValueError where
    there is nothing to learn.
    """
    name = str(column.name)
    if column.dtype.kind in "mM":
        raise ValueError(f"the target {name!r} holds dates: make it a number or a class.")
    values = _as_array(_values(column))
    distinct = np.unique(values) if values.dtype != object else np.unique(values.astype(str))
    if len(distinct) < 2:
        raise ValueError(f"the target {name!r} is {distinct[0]!s} in all rows: nothing to learn.")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"the target {name!r} has values that are infinite.")
    found, reason = _task_of(values, distinct)
    if task == "regression" and values.dtype == object:
        raise ValueError(f"the target {name!r} holds texts, but regression needs numbers.")
    if task is not None:
        found, reason = task, "as it was told"
    if found == "regression":
        return measured(Target(name, found, reason), column)
    if len(distinct) > max(2, len(values) // 2):
        raise ValueError(
            f"the target {name!r} has {len(distinct)} different values in {len(values)} rows: to "
            "learn a class takes several rows of it."
        )
    return Target(name, "classification", reason, tuple(distinct.tolist()))


def measured(target: Target, column: pd.Series) -> Target:
    """Return the target of numbers with the mean and the scale of a column of it."""
    values = _as_array(_values(column)).astype("float64")
    with np.errstate(over="ignore"):
        mean, scale = float(values.mean()), float(values.std())
    if not (np.isfinite(mean) and np.isfinite(scale) and scale > 0.0):
        raise ValueError(f"the target {target.name!r} varies too little or too much for a float64.")
    return target._replace(mean=mean, scale=scale)


def _as_array(column: pd.Series) -> np.ndarray:
    """Return a target's values: whole numbers as integers, texts as objects."""
    values = np.asarray(column, dtype=object if is_text(column) else None)
    is_whole = values.dtype.kind == "f" and (values == np.floor(values)).all()
    return values.astype("int64") if is_whole and (abs(values) < 2**53).all() else values


def _task_of(values: np.ndarray, distinct: np.ndarray) -> tuple[Task, str]:
    if values.dtype == object or values.dtype.kind == "b":
        return "classification", f"it has {len(distinct)} different values"
    if values.dtype.kind in "iu" and len(distinct) <= _FEW:
        return "classification", f"it has {len(distinct)} different whole numbers"
    return "regression", "it holds numbers"


def targets_of(target: Target, column: pd.Series) -> np.ndarray:
    """Return a column's values for training: class numbers, or standardised numbers.

    Raises ValueError for a class that training has not, and for a text where numbers are expected.
    """
    values = _as_array(_values(column, target.classes))
    if target.task == "regression":
        if values.dtype == object or not np.isfinite(values.astype("float64")).all():
            raise ValueError(f"the target {target.name!r} has values that are no finite numbers.")
        standardised: np.ndarray = (values.astype("float64") - target.mean) / target.scale
        return standardised
    places = {value: i for i, value in enumerate(target.classes)}
    given = values.tolist()
    unknown = next((value for value in given if value not in places), None)
    if unknown is not None:
        raise ValueError(f"the target {target.name!r} has a class {unknown!r} that is new here.")
    return np.asarray([places[value] for value in given], dtype="int64")


def in_its_unit(target: Target, y: np.ndarray) -> np.ndarray:
    """Return standardised numbers in the target's own unit, class numbers as they are."""
    return y if target.classes else y * target.scale + target.mean
