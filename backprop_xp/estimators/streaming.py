"""Training on a table that is too large to be copied whole: one block of batches at a time.

While one block is trained on, the rows of the next are read, made dense and moved to the device.
The order of the rows, and so each batch, is the same as for a table in memory.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, Selection, gather, to_host
from backprop_xp.estimators.samples import put, rows_at, rows_of_block
from backprop_xp.networks.inputs import Rows, row_slices, stand_ins


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
        for x, block in zip(self._read_ahead(blocks), blocks, strict=True):
            if isinstance(block, int):
                yield rows._replace(x=x), block
                continue
            at, within = self._moved(block.reshape(-1)), np.arange(block.size, dtype=np.int32)
            part = Rows(x, gather(rows.y, at, -2))
            if rows.sample_weight is not None:
                weight = gather(rows.sample_weight, at, -1)
                part = part._replace(sample_weight=weight, stand_ins=stand_ins(weight, ()))
            yield part, self._moved(within.reshape(block.shape))

    def _blocks(self, table: Array | int) -> Sequence[np.ndarray | int]:
        """Return a table of batches on the host, cut into blocks; a number of epochs stays."""
        if isinstance(table, int):
            return [table]
        batches = to_host(table)
        count = max(1, rows_of_block(self.x) // math.prod(batches.shape[1:]))
        return [batches[part] for part in row_slices(len(batches), count)]

    def _read_ahead(self, blocks: Sequence[np.ndarray | int]) -> Iterator[Array]:
        """Yield the x of each block on the device, while the next is moved there."""

        def read(block: np.ndarray | int) -> Array:
            chosen = slice(None) if isinstance(block, int) else block.reshape(-1)
            x = rows_at(self.x, self.indices[chosen])
            with self.choice.backend.apart(self.choice.device):
                return put(self.choice, x)

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(read, blocks[0])
            for block in blocks[1:]:
                x, following = following.result(), pool.submit(read, block)
                yield x
            yield following.result()

    def _moved(self, indices: np.ndarray) -> Array:
        return self.choice.backend.from_host(indices, device=self.choice.device)
