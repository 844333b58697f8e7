"""The share of a process in a training on a Parquet dataset: its rows, read in pieces."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.backends import Array, Selection
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.model_training import on_device
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.readers.cells import CellError
from backprop_xp.tables.readers.frames import refuse_foreign, require_plain
from backprop_xp.tables.readers.row_groups import RowGroup, pieces
from backprop_xp.tables.readers.table_files import as_table
from backprop_xp.tables.report.problem import weights_of
from backprop_xp.tables.report.target import Target, target_values

# Bytes of the rows that are shuffled together.
_BUFFER = 2**27


def hashed(rows: np.ndarray, seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each row: the output of SplitMix64 (Steele et al. 2014)."""
    z = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    z = z + rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z = (z ^ (z >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53


class Share(NamedTuple):
    """A rank's row groups, and what is known of the dataset.

    ``validation`` and ``test`` are the shares of these parts, ``sample`` that of the training rows
    which the preparation learns from. The rows of one ``group`` are in one part. ``texts`` are the
    columns to read as strings. The mean of the weights is ``unit``.
    """

    groups: Sequence[RowGroup]
    total: int
    features: Sequence[str]
    weights: str | None
    validation: float
    sample: float
    seed: int
    target: Target
    test: float = 0.0
    group: str | None = None
    texts: Sequence[str] = ()
    unit: float = 1.0

    def pieces(
        self, columns: Sequence[str], *parts: str
    ) -> Iterator[tuple[str, np.ndarray, pa.RecordBatch]]:
        """Yield columns of the rows in parts: a part's name, the rows' numbers, and the rows.

        The parts are ``"validation"``, ``"test"``, ``"training"`` and, of the latter, ``"sample"``.
        """
        own = filter(None, [self.target.name, self.weights, self.group])
        for numbers, batch in pieces(self.groups, [*dict.fromkeys([*columns, *own])]):
            masks = self._masks(numbers, batch)
            for part in parts:
                yield part, numbers[masks[part]], batch.filter(pa.array(masks[part]))

    def _masks(self, numbers: np.ndarray, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
        """Return a mask of the rows in each part; a hash of the row or the group chooses it."""
        rows = values = hashed(numbers, self.seed)
        if self.group is not None:
            groups = batch.column(self.group).to_pandas().rename(self.group).set_axis(numbers)
            refuse_foreign(groups)
            if (missing := groups.isna().to_numpy()).any():
                raise CellError(
                    f"the group {self.group!r} is missing",
                    ": fill it, or leave out such rows.",
                    int(numbers[missing.argmax()]),
                )
            values = hashed(pd.util.hash_array(groups.to_numpy()), self.seed)
        first = self.validation + self.test
        is_training, is_validation = values >= first, values < self.validation
        return {
            "validation": is_validation,
            "test": ~(is_training | is_validation),
            "training": is_training,
            "sample": is_training & (rows >= first) & (rows < first + self.sample),
        }

    def rows(self, numbers: np.ndarray, table: Any) -> Rows:
        """Return the rows that have a target, numbered."""
        frame, name = table.to_pandas(use_threads=False), self.target.name
        if len(frame):
            frame = as_table(frame, texts=[name, *self.texts]).frame
            require_plain(frame.set_axis(numbers))
        target = target_values(frame[name], self.target.classes)
        present = target.notna().to_numpy()
        frame = frame.set_axis(numbers)[present]
        weights = np.ones(len(frame)) if self.weights is None else weights_of(frame[self.weights])
        return Rows(frame, target[present].infer_objects(), weights)

    def indexed(self, rows: Rows) -> Rows:
        """Return rows with indices of classes, or numbers, and weights with the mean 1."""
        values, classes = self.target.values(rows.target), self.target.classes
        values = pd.Index(classes).get_indexer(pd.Index(values)) if classes else values
        return Rows(rows.features, pd.Series(values), np.asarray(rows.weights) / self.unit)

    def arrays(
        self, model: TabularModel, by_class: Sequence[float] | None, choice: Selection, rows: Rows
    ) -> tuple[Array, Array, Array]:
        """Return x, y, and weights of rows with indices or numbers."""
        x, y, _ = on_device(rows._replace(weights=None), model, choice)
        weights = np.asarray(rows.weights)
        if by_class is not None:
            weights = weights * np.asarray(by_class)[rows.target]
        return x, y, choice.backend.from_host(weights, choice.dtype, choice.device)

    def batches(
        self, arrays: Callable[[Rows], Sequence[Array]], rows: int, count: int, epoch: int
    ) -> Iterator[tuple[Array, ...]]:
        """Yield this rank's ``rows`` training rows in an epoch, as ``count`` batches.

        The epoch draws the order of the row groups; rows are shuffled within a buffer.
        """
        draw = np.random.default_rng([self.seed, epoch, self.groups[0].first])
        groups = [self.groups[i] for i in draw.permutation(len(self.groups))]
        sizes = np.diff(np.arange(count + 1) * rows // count).tolist()
        waiting, read = list[Any](), 0
        for _, *piece in self._replace(groups=groups).pieces(self.features, "training"):
            waiting.append(arrays(self.indexed(self.rows(*piece).counted())))
            read += len(waiting[-1][0])
            if read < rows and sum(part[0].nbytes for part in waiting) < _BUFFER:
                continue
            whole = [np.concatenate(parts) for parts in zip(*waiting, strict=True)]
            shuffled, waiting = draw.permutation(len(whole[0])), []
            while sizes and sizes[0] <= len(shuffled):
                at, shuffled = np.split(shuffled, [sizes.pop(0)])
                yield tuple(part[at] for part in whole)
            waiting.append([part[shuffled] for part in whole])
