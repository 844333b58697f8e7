"""What is to be learnt: a target, the rows that train and those that are held out."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from backprop_xp.checks import real
from backprop_xp.tables.columns import (
    Table,
    Target,
    Task,
    find_target,
    measured,
    rows_of,
    table_of,
    targets_of,
)
from backprop_xp.tables.reading import as_frame
from backprop_xp.tables.splitting import split_rows
from backprop_xp.tables.values import is_text

# So many classes are named in a line.
_NAMED = 6


class Problem(NamedTuple):
    """A target, the training and the held-out rows, and how many rows had no target."""

    target: Target
    training: Table
    held_out: Table
    without: int

    def told(self) -> Iterator[str]:
        """Yield what a user should know of it, in lines."""
        names = [str(name) for name in self.target.classes]
        more = ", ..." if len(names) > _NAMED else ""
        classes = f" ({', '.join(names[:_NAMED])}{more})" if names else ""
        yield f"{self.target.task}, for {self.target.name!r}: {self.target.reason}{classes}"
        if self.without:
            yield f"{self.without:,} rows without {self.target.name!r} are left out"

    def fingerprint(self) -> str:
        """Return what tells these rows and columns from all others: a SHA-256 of their values."""
        found = hashlib.sha256()
        for part in (self.training, self.held_out):
            columns = [*(part.features[name] for name in part.features), part.target]
            if part.weights is not None:
                columns.append(pd.Series(part.weights, name="weights"))
            for column in columns:
                found.update(f"{column.name} {column.dtype}".encode())
                found.update(pd.util.hash_pandas_object(column, index=False).to_numpy().tobytes())
        return found.hexdigest()


def pose(
    data: Any,
    target: str,
    *,
    task: Task | None,
    validation: Any,
    seed: int,
    columns: dict[str, Any],
) -> Problem:
    """Return the problem that a table and its target pose; ``columns`` chooses the others.

    ``validation`` is a share of the rows, drawn by the seed from each class alike, or a table.
    """
    frame = as_frame(data, texts=[target])
    table = table_of(frame, target, **columns)
    found = find_target(table.target, task)
    if isinstance(validation, int | float):
        share = real(validation, "validation", above=0.0, below=1.0)
        classes = targets_of(found, table.target) if found.classes else None
        places = split_rows(len(table.target), share, seed, classes=classes)
        training, held_out = (table.take(part) for part in places)
        if not found.classes:  # what is held out tells nothing, not even the mean
            found = measured(found, training.target)
    else:
        training, held_out = table, _held_out(validation, found, table, columns["weights"])
    for part, rows in (("held-out", held_out), ("training", training)):
        if rows.weights is not None and not rows.weights.any():
            raise ValueError(f"the {part} rows have no weight: choose another seed or share.")
    return Problem(found, training, held_out, len(frame) - len(table.target))


def _held_out(data: Any, target: Target, training: Table, weights: str | None) -> Table:
    """Return the rows of a table of held-out rows, of which nothing but these columns is asked."""
    features = training.features
    texts = [target.name, *(name for name in features if is_text(features[name]))]
    frame = as_frame(data, texts=texts)
    try:
        table = rows_of(
            frame, target.name, features=list(features), weights=weights, classes=target.classes
        )
        targets_of(target, table.target)  # a class that training has not is told at once
    except ValueError as error:
        raise ValueError(f"of the validation rows: {error}") from error
    return table
