"""Training on a table that is too large to be copied whole: a block of rows at a time.

While one block is trained on, the next is read, made dense and moved to the device. The table may
be in NumPy's memory beside a device with its own: batches are then those of the table moved whole.
Or it is a file that NumPy maps, or sparse: its blocks are taken in a new order each epoch, and the
rows within a block are shuffled.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Selection, to_host
from backprop_xp.loop import Interrupt
from backprop_xp.network import Network
from backprop_xp.options import Options, TrainingState
from backprop_xp.placing import blocks_of, is_large, put, rows_at
from backprop_xp.training import interruptible


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
    interrupt: Interrupt,
    **options: Any,
) -> Iterator[TrainingState]:
    """Yield the state after each epoch, or after an interrupt; without ``random_state`` in order.

    ``judged`` are the options by which a theta is judged, at the end of an epoch alone; ``rate``
    is told how many updates have passed.
    """
    state, weight = start, table.sample_weight
    weight = np.ones(len(table.y)) if weight is None else weight
    for epoch, cut in zip(range(epochs), _blocks(table, batch_size, random_state), strict=False):
        blocks, losses = [block for block in cut if np.any(weight[block])] or cut, []
        for i, (x, y, w) in enumerate(_ahead(table, blocks)):
            rate.passed = state.optimizer_state.step
            of_block = Options(
                sample_weight=w,
                epochs=1,
                batch_size=batch_size,
                shuffle=False,
                seed=(seed + rate.passed) % 2**31,  # other dropout masks in each block
                start=TrainingState(0, 0, state.theta, state.optimizer_state, best=state.best),
                **options,
                **(judged if i + 1 == len(blocks) else {}),
            )
            states = interruptible(network, state.theta, x, y, of_block, interrupt)
            for state in states:
                if interrupt.pressed:
                    yield state._replace(epoch=epoch)
            losses.append(to_host(state.loss))
        shares = [weight[block].sum() for block in blocks]
        mean = np.average(losses, axis=0, weights=shares)
        yield state._replace(epoch=epoch + 1, loss=put(table.choice, mean))


def orders(rows: int, random_state: Any) -> Callable[[int], np.ndarray]:
    """Return the function of each epoch's order, which scikit-learn shuffles anew from the last."""
    order, drawn = np.arange(rows), -1

    def order_in(epoch: int) -> np.ndarray:
        nonlocal order, drawn
        if epoch > drawn:  # an epoch that was cut short asks again
            moved = np.arange(rows)
            random_state.shuffle(moved)  # as sklearn.utils.shuffle does, in a quarter of its time
            order, drawn = order[moved], epoch
        return order

    return order_in


def _blocks(table: Table, batch_size: int, random_state: Any) -> Iterator[list[np.ndarray]]:
    """Yield the places of each epoch's blocks, in the order in which they are trained on."""
    cut = blocks_of(table.x, table.places, batch_size)
    if random_state is None:
        yield from itertools.repeat(cut)
    elif is_large(table.x):
        while True:
            turns = random_state.permutation(len(cut))
            yield [random_state.permutation(cut[turn]) for turn in turns]
    else:
        order = orders(len(table.places), random_state)
        for epoch in itertools.count():
            yield blocks_of(table.x, table.places[order(epoch)], batch_size)


def _ahead(table: Table, blocks: Sequence[np.ndarray]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of each block where they are trained on, while the next are moved there."""

    def moved(block: np.ndarray) -> tuple[Any, ...]:
        weight = None if table.sample_weight is None else table.sample_weight[block]
        rows = _in_order(table.x, block), table.y[block], weight
        with table.choice.backend.apart(table.choice.device):
            return tuple(put(table.choice, array) for array in rows)

    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(moved, blocks[0])
        for block in [*blocks[1:], None]:
            rows = following.result()
            if block is not None:
                following = pool.submit(moved, block)
            yield rows


def _in_order(x: Any, block: np.ndarray) -> np.ndarray:
    """Return a block's rows; those of a file, or sparse, are read as they lie."""
    if not is_large(x):
        return rows_at(x, block)
    near = np.argsort(block)
    return rows_at(x, block[near])[np.argsort(near)]
