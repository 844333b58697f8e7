"""Training on a table that is too large to be copied whole: a block of rows at a time.

The table is a file that NumPy maps, or sparse. While one block is trained on, the next is read,
made dense and moved to the device. Blocks are taken in a new order each epoch, and the rows within
a block are shuffled.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Selection, to_host
from backprop_xp.network import Network
from backprop_xp.options import TrainingState
from backprop_xp.placing import blocks_of, put, rows_at
from backprop_xp.training import train


class Table(NamedTuple):
    """Rows on the host, of which those at ``places`` are trained on, and where that happens."""

    x: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    places: np.ndarray
    choice: Selection

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of what is trained on."""
        return len(self.places), self.x.shape[1]


def states_of(
    network: Network,
    table: Table,
    *,
    rate: Any,
    epochs: int,
    batch_size: int,
    random_state: Any,
    seed: int,
    start: TrainingState,
    judged: dict[str, Any],
    **options: Any,
) -> Iterator[TrainingState]:
    """Yield the state after each epoch, as ``train`` does; without ``random_state`` in order.

    ``judged`` are the options by which a theta is judged, at the end of an epoch alone; ``rate``
    is told how many updates have passed.
    """
    state, weight = start, table.sample_weight
    weight = np.ones(len(table.y)) if weight is None else weight
    cut = blocks_of(table.x, table.places, batch_size)
    blocks = [block for block in cut if np.any(weight[block])] or cut
    for _ in range(epochs):
        order: Any = range(len(blocks))
        if random_state is not None:
            order = random_state.permutation(len(blocks))
        ordered, losses = [blocks[i] for i in order], []
        for i, (x, y, w) in enumerate(_ahead(table, ordered)):
            shuffled: Any = random_state is not None
            if shuffled:
                shuffled = _given(random_state.permutation(len(ordered[i])))
            rate.passed = state.optimizer_state.step
            of_block = (seed + rate.passed) % 2**31  # other dropout masks in each
            (state,) = train(
                network,
                state.theta,
                x,
                y,
                sample_weight=w,
                epochs=1,
                batch_size=batch_size,
                shuffle=shuffled,
                seed=of_block,
                start=TrainingState(0, 0, state.theta, state.optimizer_state, best=state.best),
                **options,
                **(judged if i + 1 == len(ordered) else {}),
            )
            losses.append(to_host(state.loss))
        shares = [weight[block].sum() for block in ordered]
        mean = np.average(losses, axis=0, weights=shares)
        yield state._replace(loss=put(table.choice, mean))


def _given(order: np.ndarray) -> Any:
    return lambda epoch: order


def _ahead(table: Table, blocks: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of each block where they are trained on, while the next are moved there."""

    def moved(block: np.ndarray) -> tuple[Any, ...]:
        weight = None if table.sample_weight is None else table.sample_weight[block]
        rows = rows_at(table.x, block), table.y[block], weight
        return tuple(put(table.choice, array) for array in rows)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(moved, blocks[0])
        for block in [*blocks[1:], None]:
            rows = following.result()
            if block is not None:
                following = pool.submit(moved, block)
            yield rows
