"""What is to be learnt: a target, and the rows that train, validate and test."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from backprop_xp.checks import real
from backprop_xp.tables.columns import (
    Table,
    Target,
    find_target,
    measured,
    rows_of,
    table_of,
    targets_of,
)
from backprop_xp.tables.readers import as_frame
from backprop_xp.tables.settings import Task
from backprop_xp.tables.split import split_rows
from backprop_xp.tables.values import is_text

# So many classes are named in a line.
_NAMED = 6


class Problem(NamedTuple):
    """A target, the rows of three parts, and how many rows had no target.

    ``training`` is learnt from, ``validation`` ends the training and chooses the network, ``test``
    is for the report alone. ``data`` is the SHA-256 of the table before it is split; ``held_out``
    has the share of ``"test"`` and of ``"validation"``, or the SHA-256 of a table of its own.
    """

    target: Target
    training: Table
    validation: Table
    test: Table
    without: int
    data: str
    held_out: dict[str, Any]

    @property
    def parts(self) -> dict[str, Table]:
        """The three parts by their names."""
        return {name: getattr(self, name) for name in ("training", "validation", "test")}

    def told(self) -> Iterator[str]:
        """Yield what a user should know of it, in lines."""
        names = [str(name) for name in self.target.classes]
        more = ", ..." if len(names) > _NAMED else ""
        classes = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
        yield f"{self.target.task}, for {self.target.name!r}: {self.target.reason}{classes}"
        if self.without:
            yield f"{self.without:,} rows without {self.target.name!r} are left out"


def pose(
    data: Any,
    target: str,
    *,
    task: Task | None,
    held_out: dict[str, Any],
    seed: int,
    columns: dict[str, Any],
) -> Problem:
    """Return the problem that a table and its target pose; ``columns`` chooses the others.

    ``held_out`` has ``"test"`` and ``"validation"``: each a share of the rows, drawn by the seed
    from each class alike, or a table.
    """
    frame = as_frame(data, texts=[target])
    table = table_of(frame, target, **columns)
    found = find_target(table.target, task)
    shares = {
        name: real(part, name, above=0.0, below=1.0)
        for name, part in held_out.items()
        if isinstance(part, int | float)
    }
    classes = targets_of(found, table.target) if found.classes else None
    drawn = split_rows(len(table.target), shares, seed, classes=classes)
    parts = {name: table.take(places) for name, places in drawn.items()}
    told: dict[str, Any] = dict(shares)
    for name, part in held_out.items():
        if name not in parts:
            parts[name] = _part_of(part, name, found, table, columns["weights"])
            told[name] = {"sha256": _fingerprint(parts[name])}
    if not found.classes:  # validation and test rows have no part in the mean
        found = measured(found, parts["training"].target)
    for name, part in parts.items():
        if part.weights is not None and not part.weights.any():
            raise ValueError(f"the {name} rows have no weight: choose another seed or share.")
    without = len(frame) - len(table.target)
    return Problem(found, **parts, without=without, data=_fingerprint(table), held_out=told)


def _fingerprint(table: Table) -> str:
    """Return what tells these rows and columns from all others: a SHA-256 of their values."""
    found = hashlib.sha256()
    columns = [*(table.features[name] for name in table.features), table.target]
    if table.weights is not None:
        columns.append(pd.Series(table.weights, name="weights"))
    for column in columns:
        found.update(f"{column.name} {column.dtype}".encode())
        found.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
    return found.hexdigest()


def _part_of(data: Any, name: str, target: Target, training: Table, weights: str | None) -> Table:
    """Return the rows of a part's own table, of which nothing but these columns is asked."""
    features = training.features
    texts = [target.name, *(name for name in features if is_text(features[name]))]
    frame = as_frame(data, texts=texts)
    try:
        table = rows_of(
            frame, target.name, features=list(features), weights=weights, classes=target.classes
        )
        targets_of(target, table.target)  # a class that training has not is told at once
    except ValueError as error:
        raise ValueError(f"of the {name} rows: {error}") from error
    return table
