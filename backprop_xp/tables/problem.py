"""The problem of a training: a target, and the training, validation and test rows."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from backprop_xp.checks import nearest, real
from backprop_xp.tables.readers import TableData, as_frame, header_hint
from backprop_xp.tables.rows import Rows
from backprop_xp.tables.tabular_parameters import Task
from backprop_xp.tables.target_column import Class, Target, find_target, target_values
from backprop_xp.tables.values import is_string
from backprop_xp.training.data import split_rows

# A line names at most so many classes.
_MAX_NAMES = 6

# A share of the rows, or a table of its own.
Part: TypeAlias = float | TableData


class Columns(NamedTuple):
    """The choice of columns: without ``features``, all others but ``drop`` and ``weights``."""

    features: Sequence[str] = ()
    drop: Sequence[str] = ()
    weights: str | None = None


class Problem(NamedTuple):
    """A target, three parts of the rows, and the number of rows without a target.

    The network learns from the ``"training"`` rows; the ``"validation"`` rows end the training and
    choose the network; the ``"test"`` rows are for the report alone. ``data`` is the SHA-256 of the
    table before its split, ``held_out`` the share of test and validation rows, or their SHA-256.
    """

    target: Target
    parts: Mapping[str, Rows]
    without: int
    data: str
    held_out: Mapping[str, float | Mapping[str, str]]

    def lines(self) -> Iterator[str]:
        """Yield lines about the problem for the user."""
        names = [str(name) for name in self.target.classes]
        more = ", ..." if len(names) > _MAX_NAMES else ""
        classes = f" ({', '.join(names[:_MAX_NAMES])}{more})" if names else ""
        yield f"{self.target.task}, for {self.target.name!r}: {self.target.reason}{classes}"
        if self.without:
            yield f"{self.without:,} rows without {self.target.name!r} are left out"


def make_problem(
    data: TableData,
    target: str,
    columns: Columns,
    *,
    task: Task | None,
    test: Part,
    validation: Part,
    seed: int,
) -> Problem:
    """Return the problem of predicting a table's target; the seed draws shares of its rows."""
    held_out = {"test": test, "validation": validation}
    frame = as_frame(data, texts=[target])
    table = _choose_columns(frame, target, columns)
    found = find_target(table.target, task)
    shares = {
        name: real(part, name, above=0.0, below=1.0)
        for name, part in held_out.items()
        if isinstance(part, int | float)
    }
    table, classes = _with_values(table, found), None
    if found.classes:
        classes = np.unique(table.target.to_numpy(), return_inverse=True)[1]
    drawn = split_rows(len(table.target), shares, seed, classes=classes)
    parts = {name: table.take(rows) for name, rows in drawn.items()}
    origins: dict[str, float | Mapping[str, str]] = dict(shares)
    for name, part in held_out.items():
        if name not in parts:
            parts[name] = _read_part(part, name, found, table, columns.weights)
            origins[name] = {"sha256": parts[name].fingerprint()}
    for name, part in parts.items():
        if part.weights is not None and not part.weights.any():
            raise ValueError(f"the {name} rows have no weight: choose another seed or share.")
    parts = {name: parts[name] for name in ("training", "validation", "test")}
    without = len(frame) - len(table.target)
    return Problem(found, parts, without, table.fingerprint(), origins)


def _choose_columns(frame: pd.DataFrame, target: str, columns: Columns) -> Rows:
    """Return the rows that have a target, with the chosen features."""
    for name in (*columns.features, *columns.drop):
        _require(frame, name)
    others = [name for name in frame if name not in (target, columns.weights, *columns.drop)]
    features = [name for name in others if not columns.features or name in columns.features]
    if not features:
        raise ValueError(f"no column is left to predict {target!r} from.")
    if all(frame[name].nunique(dropna=False) == 1 for name in features):
        raise ValueError("all columns are empty or the same in all rows: nothing to learn from.")
    return rows_with_target(frame, target, features=features, weights=columns.weights)


def rows_with_target(
    frame: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str],
    weights: str | None = None,
    classes: Sequence[Class] = (),
) -> Rows:
    """Return the rows that have a target, with these features; ``classes`` are training's."""
    for name in (target, *features, *([weights] if weights else [])):
        _require(frame, name)
    values = target_values(frame[target], classes)
    present = values.notna().to_numpy()
    if not present.any():
        raise ValueError(f"the target {target!r} is missing in every row.")
    frame = frame if present.all() else frame[present]
    weight = None if weights is None else _weights(frame[weights], weights)
    return Rows(frame[list(features)], values[present].infer_objects(), weight)


def _require(frame: pd.DataFrame, name: str) -> None:
    if name not in frame:
        hint = header_hint(list(frame)) or f" {nearest(name, list(frame))}"
        raise ValueError(f"there is no column {name!r}.{hint}")


def _weights(column: pd.Series, name: str) -> np.ndarray:
    values = column.to_numpy(dtype="float64") if column.dtype.kind in "fiub" else np.asarray([-1.0])
    if not (np.isfinite(values).all() and (values >= 0.0).all() and values.sum() > 0.0):
        raise ValueError(
            f"the weights {name!r} must be finite numbers of at least 0, with a positive sum."
        )
    return np.asarray(values)


def _read_part(data: Part, name: str, target: Target, training: Rows, weights: str | None) -> Rows:
    """Return the rows of a part's own table, which needs only the columns in use."""
    features = list(training.features)
    strings = [column for column in features if is_string(training.features[column])]
    frame = as_frame(data, texts=[target.name, *strings])
    try:
        table = rows_with_target(
            frame, target.name, features=features, weights=weights, classes=target.classes
        )
        return _with_values(table, target)  # raises for a class that training does not have
    except ValueError as error:
        raise ValueError(f"{name} rows: {error}") from error


def _with_values(rows: Rows, target: Target) -> Rows:
    """Return rows whose target holds its classes or numbers."""
    return rows._replace(target=pd.Series(target.values(rows.target), name=target.name))
