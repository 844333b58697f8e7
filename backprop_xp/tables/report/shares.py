"""The share of a process in a training on a Parquet dataset: its rows, read in pieces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from backprop_xp.backends import Array, Selection
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.model_training import on_device
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.readers.frames import refuse_foreign, require_plain
from backprop_xp.tables.readers.row_groups import RowGroup, pieces
from backprop_xp.tables.readers.table_files import as_table
from backprop_xp.tables.report.problem import weights_of
from backprop_xp.tables.report.split import SplitRule, groups_of
from backprop_xp.tables.report.target import Target, target_values

# Bytes of the rows that are shuffled together.
_BUFFER = 2**27


class Share(NamedTuple):
    """A rank's row groups, and what is known of the dataset.

    ``shares`` are those of the validation rows and, if any, the test rows; ``sample`` is that of
    the training rows which the preparation learns from. The rows of one ``group`` are in one part.
    ``texts`` are the columns to read as strings. The mean of the weights is ``unit``.
    """

    groups: Sequence[RowGroup]
    total: int
    features: Sequence[str]
    weights: str | None
    shares: Mapping[str, float]
    sample: float
    seed: int
    target: Target
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
            how: dict[str, Any] = {"by_time": False, "seed": self.seed, "by_hash": True}
            rule = SplitRule(numbers, None, self._groups(numbers, batch), **how)
            (labels,) = rule.labels(self.shares)
            for part in parts:
                mask = labels == part
                if part == "sample":  # of the rows, also if groups choose the training rows
                    by_row = rule._replace(units=None).labels({**self.shares, part: self.sample})[0]
                    mask = (labels == "training") & (by_row == part)
                yield part, numbers[mask], batch.filter(pa.array(mask))

    def _groups(self, numbers: np.ndarray, batch: pa.RecordBatch) -> np.ndarray | None:
        """Return the hash of each row's group, None without groups."""
        if self.group is None:
            return None
        groups = batch.column(self.group).to_pandas().rename(self.group).set_axis(numbers)
        refuse_foreign(groups)
        return groups_of(groups, by_hash=True)

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
