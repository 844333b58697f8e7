"""Training on a table that is too large to be copied whole: one block of batches at a time.

While one block is trained on, the rows of the next are read, made dense and moved to the device.
The order of the rows, and so each batch, is the same as for a table in memory.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, Selection, gather, to_host
from backprop_xp.estimators.samples import put, rows_at, rows_of_block
from backprop_xp.networks.chain.batch_rows import Rows, row_slices
from backprop_xp.training.rows.sources import read_ahead


class Table(NamedTuple):
    """The training rows of x, those at ``indices``, and where they are moved; see ``Blocks``."""

    x: Any
    indices: np.ndarray
    choice: Selection

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of all training rows together."""
        return len(self.indices), self.x.shape[1]

    def pieces(self, rows: Rows, tables: Iterable[Any]) -> Iterator[tuple[Rows, Any]]:
        """Yield the rows of each block, and which of them each batch has."""
        blocks = [block for table in tables for block in self._blocks(table)]
        move = functools.partial(self.choice.backend.from_host, device=self.choice.device)
        parts = (self._rows_of(block) for block in blocks)
        read = read_ahead(parts, self.choice.backend, self.choice.device)
        for x, block in zip(read, blocks, strict=True):
            if isinstance(block, int):
                yield rows._replace(x=x), block
                continue
            at, within = move(block.reshape(-1)), np.arange(block.size, dtype=np.int32)
            part = Rows(x, gather(rows.y, at, -2))
            if rows.sample_weight is not None:
                part = part._replace(sample_weight=gather(rows.sample_weight, at, -1))
            yield part, move(within.reshape(block.shape))

    def _blocks(self, table: Array | int) -> Sequence[np.ndarray | int]:
        """Return a table of batches on the host, cut into blocks; a number of epochs stays."""
        if isinstance(table, int):
            return [table]
        batches = to_host(table)
        count = max(1, rows_of_block(self.x) // math.prod(batches.shape[1:]))
        return [batches[part] for part in row_slices(len(batches), count)]

    def _rows_of(self, block: np.ndarray | int) -> Array:
        """Return the x of a block on the device."""
        chosen = slice(None) if isinstance(block, int) else block.reshape(-1)
        return put(self.choice, rows_at(self.x, self.indices[chosen]))
