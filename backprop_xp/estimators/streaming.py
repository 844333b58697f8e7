"""Training on a table that is too large to be copied whole: a block of batches at a time.

While one block is trained on, the rows of the next are read, made dense and moved to the device.
The batches are those of the table in memory: where the rows lie decides nothing about their order.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, Selection, gather, to_host
from backprop_xp.estimators.samples import put, rows_at, rows_of_block
from backprop_xp.networks.inputs import Rows, row_slices, stand_ins


class Table(NamedTuple):
    """The rows of x that are trained on, those at ``places``, and where that happens."""

    x: Any
    places: np.ndarray
    choice: Selection

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of what is trained on."""
        return len(self.places), self.x.shape[1]

    def pieces(self, rows: Rows, tables: Iterable[Any]) -> Iterator[tuple[Rows, Any]]:
        """Yield the rows of each block, and which of them each batch has; see ``inputs.Blocks``."""
        blocks = [block for table in tables for block in self._blocks(table)]
        for x, block in zip(self._ahead(blocks), blocks, strict=True):
            if isinstance(block, int):
                yield rows._replace(x=x), block
                continue
            places, within = self._moved(block.reshape(-1)), np.arange(block.size, dtype=np.int32)
            part = Rows(x, gather(rows.y, places, -2))
            if rows.sample_weight is not None:
                weight = gather(rows.sample_weight, places, -1)
                part = part._replace(sample_weight=weight, stand_ins=stand_ins(weight, ()))
            yield part, self._moved(within.reshape(block.shape))

    def _blocks(self, table: Any) -> Sequence[Any]:
        """Return a table of batches on the host, cut into blocks; a number as it is."""
        if isinstance(table, int):
            return [table]
        places = to_host(table)
        batches = max(1, rows_of_block(self.x) // places.shape[1])
        return [places[part] for part in row_slices(len(places), batches)]

    def _ahead(self, blocks: Sequence[Any]) -> Iterator[Array]:
        """Yield the x of each block where it is trained on, while the next is moved there."""

        def moved(block: Any) -> Array:
            chosen = slice(None) if isinstance(block, int) else block.reshape(-1)
            x = rows_at(self.x, self.places[chosen])
            with self.choice.backend.apart(self.choice.device):
                return put(self.choice, x)

        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(moved, blocks[0])
            for block in [*blocks[1:], None]:
                x = following.result()
                if block is not None:
                    following = pool.submit(moved, block)
                yield x

    def _moved(self, places: np.ndarray) -> Array:
        return self.choice.backend.from_host(places, device=self.choice.device)
