"""A training whose rows are divided among ranks: checks, batches and measures.

Joined in the order of the ranks, their rows are those of a training in one process, and so is the
result. Each rank computes its part of a batch's loss and gradient; the parts are added.
"""

import contextlib
import functools
import operator
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    checksum,
    device_of,
    require_owner,
    to_host,
)
from backprop_xp.networks.chain.batch_rows import Part, Rows, rows_at
from backprop_xp.networks.losses.targets import are_labels
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Options, are_indices
from backprop_xp.training.interfaces.process_protocol import Forward, Source
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.processes.exchange import Ranks, refuse
from backprop_xp.training.rows.batches import concat, epoch_order
from backprop_xp.training.rows.data_checks import (
    PART,
    Shaped,
    check_sets,
    is_usable,
    no_rows,
    unusable_weights,
    without_gaps,
)
from backprop_xp.training.rows.sources import source_of
from backprop_xp.training.steps.step import piece_by_piece


class RowRanks(Ranks):
    """Ranks of which each has some of the rows, and computes its part of each batch."""

    split = "rows"

    def signature(self, theta: Array) -> int:
        """Return a number that is the same on each rank."""
        return checksum(theta)

    def whole(self, state: TrainingState | None) -> TrainingState | None:
        """Return the state, which is that of every rank."""
        return state

    def check_options(self, theta: Array, y: Any, options: Options) -> None:
        """Raise for options that such a training does not take."""
        super().check_options(theta, y, options)
        home = require_owner(theta, "theta")
        compiles = home.loop(operator.add) is not None
        takes = options.traits.takes_objective
        divided = "the ranks divide each batch already: multiply batch_size"
        sharded = "shard x over its devices; see docs/scale.md"
        refuse(
            (options.accumulate > 1, "accumulate", divided),
            (are_indices(options.validation), "validation by indices", "give each rank's own rows"),
            (takes, type(options.optimizer).__name__, 'divide the stack, split="stack"'),
            (compiles, f"The {home.name} backend", sharded),
        )

    def check_loops(self, *, are_compiled: bool) -> None:
        """Raise unless all ranks compile their loops, or none: they must round alike."""
        self.require_alike({"BACKPROP_XP_COMPILE: compiled loops": are_compiled})

    def check_sets(
        self, network: Network, theta: Array, sets: Mapping[str, Sequence[Any]]
    ) -> list[Rows]:
        """Return this rank's rows of sets, checked; a rank may have none of a set.

        Raises ValueError, on every rank, for shapes that differ and for a set without rows.
        """
        found = dict(zip(sets, check_sets(network, theta, sets, **PART), strict=True))
        widths = self.exchange({where: rows.y.shape[-1] for where, rows in found.items()})
        for where, rows in found.items():
            is_narrower = rows.y.shape[-1] < max(each[where] for each in widths)
            if is_narrower and rows.x.shape[-2]:
                n_out = network.outputs_shape(theta, rows.x)[-1]
                if Shaped(rows, n_out, network.loss_function).may_have_gaps:
                    found[where] = without_gaps(network, theta, rows)
        shapes = self.exchange({w: _shapes(rows) for w, rows in found.items() if rows.x.shape[-2]})
        for where in sets:
            shape = _same_shape(where, shapes)
            if not found[where].x.shape[-2]:
                found[where] = no_rows(theta, *shape)
            weight = self.all_rows(found[where].sample_weight, -1, theta)
            if weight is not None and not to_host(is_usable(weight)):
                raise ValueError(f"{where}{unusable_weights(weight)}")
        return list(found.values())

    def place(self, rows: Rows) -> tuple[int, int]:
        """Return the index of this rank's first row among those of all ranks, and their count."""
        counts = self.exchange(rows.x.shape[-2])
        return sum(counts[: self.rank]), sum(counts)

    def sum(self, array: Array) -> Array:
        """Return the sum of the ranks' arrays, the same to the bit on each."""
        home, device = require_owner(array, "array"), device_of(array)
        if direct := home.mpi_buffers() and takes_gpu_arrays():
            home.synchronize(device)
        part = array if direct else np.ascontiguousarray(to_host(array))
        total = array_namespace(part).empty_like(part)
        self.agree()
        self.communicator.Allreduce(part, total)
        return total if direct else home.from_host(total, device=device)

    def all_rows(self, array: Array | None, axis: int, like: Array) -> Array | None:
        """Return the ranks' arrays, joined along an axis; None is no part."""
        host = None if array is None else to_host(array)
        parts = [part for part in self.exchange(host) if part is not None]
        if not parts:
            return None
        return require_owner(like, "like").from_host(concat(parts, axis), device=device_of(like))

    def source(
        self,
        network: Network,
        theta: Array,
        x: Any,
        rows: Rows | None,
        size: int,
        options: Options,
    ) -> Source | None:
        """Return the source of this rank's part of each batch.

        Batches that x gives consist of one batch of each rank, in their order.
        """
        if rows is not None:
            return batches_of_share(self, theta, rows, size, options)
        own = source_of(network, theta, x, None, size, options, are_whole=False)
        return batches_of_ranks(self, theta, own)

    def with_all_targets(self, theta: Array, rows: Rows) -> Rows:
        """Return this rank's x beside the targets and the weights of all ranks, to be measured."""
        y, weight = self.all_rows(rows.y, -2, theta), self.all_rows(rows.sample_weight, -1, theta)
        return Rows(rows.x, y, weight)

    def summed(self, gradient_of: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function whose loss and gradient are the sums of every rank's parts.

        The first rank adds the penalty.
        """

        def whole(theta: Array, batch: Any, l2: Any) -> tuple[Array, Array]:
            loss, gradient = gradient_of(theta, batch, l2 if self.is_first else None)
            xp = array_namespace(gradient)
            flat = [xp.reshape(part, (-1,)) for part in (loss, gradient)]
            total, count = self.sum(xp.concat(flat)), flat[0].shape[0]
            return xp.reshape(total[:count], loss.shape), xp.reshape(total[count:], gradient.shape)

        return whole

    def in_pieces(self, forward: Forward, theta: Array, rows: Rows) -> tuple[Array, Array | None]:
        """Return what ``piece_by_piece`` does for the rows of all ranks; each computes its own."""
        (first, _), own = self.place(rows), rows.x.shape[-2]
        each, predicted = None, None
        if own:
            part = Rows(rows.x, rows.y[..., first : first + own, :])
            each, predicted = piece_by_piece(forward, theta, part)
        return self.all_rows(each, -1, theta), self.all_rows(predicted, -2, theta)


def _same_shape(where: str, shapes: Sequence[Mapping[str, list[Any]]]) -> list[Any]:
    """Return the shapes of a set on the ranks that have rows of it; they must be the same."""
    known = {rank: each[where] for rank, each in enumerate(shapes) if where in each}
    if not known:
        raise ValueError(f"{where}x has no rows on any rank.")
    (first, shape), *others = known.items()
    for rank, other in others:
        for name, mine, theirs in zip(Rows._fields, shape, other, strict=False):
            if theirs != mine:
                raise ValueError(
                    f"{where}{name} has the shape {theirs} on rank {rank}, but {mine} on rank "
                    f"{first}, without the number of rows. None stands for no {name}."
                )
    return shape


def _shapes(rows: Rows) -> list[Any]:
    """Return the shapes of x, y and the weights or None, without rows; whether y are labels."""
    weight = rows.sample_weight
    pairs = [(*array.shape[:-2], array.shape[-1]) for array in (rows.x, rows.y)]
    return [*pairs, None if weight is None else tuple(weight.shape[:-1]), are_labels(rows.y)]


def batches_of_share(
    ranks: RowRanks, theta: Array, rows: Rows, size: int, options: Options
) -> Source:
    """Return the source of this rank's part of each batch of ``size`` rows."""
    first, count = ranks.place(rows)
    own = slice(first, first + rows.x.shape[-2])
    weight = ranks.all_rows(rows.sample_weight, -1, theta)
    weights = np.broadcast_to(1.0, (count,)) if weight is None else to_host(weight)
    # A full batch keeps its order, as in one process.
    shuffle = options.shuffle if size < count else False

    def batches(epoch: int, interrupt: Interrupt) -> Generator[Rows]:
        order = epoch_order(count, shuffle, options.seed, epoch)
        if callable(shuffle):
            ranks.require_alike({"the order that shuffle returns": order})
        for start in range(0, count, size):
            indices = order[..., start : start + size]
            yield _part(theta, rows, own, indices, weights)

    return batches


def _part(theta: Array, rows: Rows, own: slice, indices: np.ndarray, weights: np.ndarray) -> Rows:
    """Return the rows that this rank has of a batch.

    ``indices`` and ``weights`` are those of all ranks' rows. This rank has the slice ``own``. Rows
    of weight 0 are left out. If the networks of a stack have different rows, those that have fewer
    repeat the first row with the weight 0.
    """
    stack = np.broadcast_shapes(indices.shape[:-1], weights.shape[:-1])
    indices = np.broadcast_to(indices, (*stack, indices.shape[-1]))
    weights = np.broadcast_to(weights, (*stack, weights.shape[-1]))
    found = np.take_along_axis(weights, indices, -1)
    is_own = (indices >= own.start) & (indices < own.stop) & (found > 0.0)
    home, device = require_owner(theta, "theta"), device_of(theta)
    total = home.from_host(np.asarray(found.sum(axis=-1)), theta.dtype, device)
    # The positions of the own rows in the batch, before those of the others.
    count = int(is_own.sum(axis=-1).max())
    positions = np.argsort(~is_own, axis=-1, kind="stable")[..., :count]
    part = Part(home.from_host(positions.astype(np.int32), device=device), total)
    if not count:
        return Rows(rows.x[..., :0, :], rows.y[..., :0, :], part=part)
    is_own, found, at = (np.take_along_axis(a, positions, -1) for a in (is_own, found, indices))
    at = np.where(is_own, at - own.start, 0).astype(np.int32)
    moved = home.from_host(at, device=device)
    found = home.from_host(np.where(is_own, found, 0.0), theta.dtype, device)
    return Rows(rows_at(rows.x, moved), rows_at(rows.y, moved), found, part=part)


def batches_of_ranks(ranks: RowRanks, theta: Array, own: Source) -> Source:
    """Return the source of batches that consist of one batch of each rank, in their order.

    A rank that has no more batches has no rows in the last ones.
    """
    home, device, dtype = require_owner(theta, "theta"), device_of(theta), theta.dtype
    xp, none = array_namespace(theta), no_rows(theta)

    def batches(epoch: int, interrupt: Interrupt) -> Generator[Rows]:
        with contextlib.closing(own(epoch, interrupt)) as given:
            while True:
                rows = next(given, none)
                count, weight = rows.x.shape[-2], rows.sample_weight
                own_sum = None if weight is None else to_host(xp.sum(weight, axis=-1))
                sent = ranks.exchange((rows is none, count, own_sum))
                ended, counts, sums = zip(*sent, strict=True)
                if all(ended):
                    return
                total: Any = sum(
                    float(n) if s is None else s for n, s in zip(counts, sums, strict=True)
                )
                if not np.all(total > 0):
                    raise ValueError(
                        f"A batch of epoch {epoch} has no rows, or only weights of 0, on all ranks."
                    )
                if any(each is not None for each in sums):
                    total = home.from_host(np.asarray(total), dtype, device)
                    if weight is None:
                        weight = xp.ones((count,), dtype=dtype, device=device)
                first = sum(counts[: ranks.rank])
                at = home.from_host(np.arange(first, first + count, dtype=np.int32), device=device)
                yield rows._replace(sample_weight=weight, part=Part(at, total))

    return batches


@functools.cache
def takes_gpu_arrays() -> bool:
    """Whether the MPI library reads a GPU's memory itself; not tried on a card."""
    import ctypes

    try:
        from mpi4py import MPI
    except ImportError:  # a communicator of another package
        return False
    query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    return bool(query and query())
