"""Sources of an epoch's batches: the caller's own, and rows in memory that ``augment`` changes.

A source yields the rows of each batch on theta's device. Each is one step, also on a library that
compiles loops. Ctrl-C ends a source that waits.
"""

import contextlib
import contextvars
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from numbers import Real
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    asarray,
    device_of,
    owner,
    plain_numbers,
    refuse_distributed,
    require_dense,
    require_owner,
)
from backprop_xp.networks.chain.batch_rows import Rows, counted
from backprop_xp.networks.losses.column_weights import targets_of, without_shares
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Augment, Options, are_indices
from backprop_xp.training.interfaces.orders import Seed, batch_seed
from backprop_xp.training.interfaces.process_protocol import Source
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.averages import SWA
from backprop_xp.training.optimizers.pytrees import copied
from backprop_xp.training.rows.batches import batch_at, in_blocks, index_tables, parts_of_member
from backprop_xp.training.rows.data_checks import PART, check_sets, items_of, named, with_columns

if TYPE_CHECKING:
    from concurrent.futures import Future

T = TypeVar("T")

# Seconds that a training which ends early waits for the batch that its thread is making, and after
# which one that waits for a batch looks for Ctrl-C.
_PATIENCE = 1.0


def source_of(
    network: Network,
    theta: Array,
    x: Any,
    rows: Rows | None,
    size: int,
    options: Options,
    *,
    are_whole: bool = True,
) -> Source:
    """Return the source of the batches that x gives, or a hook makes of rows in memory.

    ``rows`` are those in memory, for batches of ``size``; without them, x gives the batches, or
    parts of them if these are not whole.
    """
    reads_ahead = rows is None and options.read_ahead
    if rows is None:
        _check_batches(x, options)

    def batches(epoch: int) -> Generator[Rows]:
        i = -1
        plain = _batches_of_user(network, theta, x, epoch, are_whole=are_whole)
        if rows is not None:
            plain = _batches_of_rows(rows, size, options, epoch)
        for i, batch in enumerate(plain):
            if options.augment is None:
                yield batch
            else:
                in_memory = rows is not None
                yield _augmented(network, theta, batch, options, (epoch, i), in_memory=in_memory)
        if i < 0:
            raise ValueError(f"x gave no batches in epoch {epoch}: at least one is expected.")

    def source(epoch: int, interrupt: Interrupt) -> Generator[Rows]:
        items = batches(epoch)
        if reads_ahead:
            items = read_ahead(items, require_owner(theta, "theta"), device_of(theta))
        return interrupt.waiting_for(items)

    return source


def _check_batches(batches: Any, options: Options) -> None:
    """Raise unless x can give the batches of all epochs, and no option needs rows in memory."""
    refuse_distributed(batches, "x")
    if hasattr(batches, "shape") or not (callable(batches) or isinstance(batches, Iterable)):
        raise TypeError(
            "y is missing: the arguments are network, theta, x, y. Or x gives batches (x, y), as a "
            "function of the epoch or an iterable."
        )
    if options.validation is None and options.measures != ["loss"]:
        raise ValueError(
            "metrics, early_stopping and plateau need validation=(x, y) where x gives batches: no "
            'training rows are kept to measure theta on. A rule may have watch="loss".'
        )
    for wrong, name, way_out in (
        (options.sample_weight is not None, "sample_weight", "give (x, y, sample_weight)"),
        (options.batch_size is not None, "batch_size", "each batch has its own size"),
        (options.class_weight is not None, "class_weight", "give weights with each batch"),
        (isinstance(options.validation, Real), "A share for validation", "give validation=(x, y)"),
        (are_indices(options.validation), "validation by indices", "give validation=(x, y)"),
        (options.train_metrics, "train_metrics", "give validation=(x, y)"),
        (bool(options.of_training), "A watch of the training set", "watch another measure"),
        (isinstance(options.average, SWA), "SWA, which counts epochs", "take bx.EMA"),
    ):
        if wrong:
            raise ValueError(f"{name} is for rows in memory, but x gives batches: {way_out}.")
    if callable(batches):
        return
    way_out = "Give a function of the epoch, from 0, that returns its batches."
    if isinstance(options.start, TrainingState) and options.start.step:
        raise TypeError(f"start resumes a training whose batches x can give again. {way_out}")
    if isinstance(batches, Iterator) and options.epochs > 1:
        raise TypeError(
            f"x is an iterator ({type(batches).__name__}), which gives its batches once, but "
            f"epochs={options.epochs}. {way_out}"
        )


def _batches_of_user(
    network: Network, theta: Array, x: Any, epoch: int, *, are_whole: bool
) -> Iterator[Rows]:
    """Yield the batches that x gives for an epoch, checked and on theta's device."""
    batches = x(epoch) if callable(x) else x
    if not isinstance(batches, Iterable):
        raise TypeError(f"x({epoch}) returned {batches!r}, but batches (x, y) are expected.")
    for i, batch in enumerate(batches):
        where = f"In batch {i} of epoch {epoch}: "
        parts = items_of(batch, f"batch {i} of epoch {epoch}")
        with named(where):
            names = "x", "y", "sample_weight"
            parts = [_on_device(theta, *pair) for pair in zip(parts, names, strict=False)]
        yield from check_sets(network, theta, {where: parts}, **({} if are_whole else PART))


def _on_device(theta: Array, part: Any, name: str) -> Any:
    """Return a copy on theta's device of an array of any library; floating values take its dtype.

    It is made before the move: the caller may refill the array, and NumPy's memory moves to PyTorch
    and JAX on a CPU without a copy.
    """
    if part is None:
        return None
    home = owner(part)
    require_dense(part, name)
    part = copied(plain_numbers(part, name) if home is None or home.name == "numpy" else part)
    is_floating = array_namespace(part).isdtype(part.dtype, "real floating")
    backend, dtype = require_owner(theta, "theta"), theta.dtype if is_floating else None
    return asarray(part, backend=backend, device=device_of(theta), dtype=dtype)


def _batches_of_rows(rows: Rows, size: int, options: Options, epoch: int) -> Iterator[Rows]:
    """Yield the batches of an epoch from rows in memory."""
    tables = list[Any]([1])
    if size < rows.y.shape[-2]:
        tables = index_tables(rows, size, options.shuffle, options.seed, epoch)
    for part, table in in_blocks(rows, tables):
        if isinstance(table, int):
            yield batch_at(part, None)
        else:
            yield from (batch_at(part, table[i, ...]) for i in range(table.shape[0]))


def _augmented(
    network: Network,
    theta: Array,
    batch: Rows,
    options: Options,
    at: tuple[int, int],
    *,
    in_memory: bool,
) -> Rows:
    """Return what the hook makes of a batch, ``at`` an epoch and its index there; it is checked.

    Labels become one-hot rows before. A batch of rows in memory may weigh nothing.
    """
    x, y, weight, *_ = with_columns(network, theta, counted(batch))
    n = targets_of(network.loss_function, network.outputs_shape(theta, x)[-1])

    def hook(x: Array, y: Array, weight: Array | None, seed: int) -> Any:
        augment: Any = options.augment
        return augment(x, *without_shares(y, weight, n), seed)

    try:
        parts = _augment(hook, options.seed, (x, y, weight), at, tuple(theta.shape[:-1]))
    except Exception as error:
        error.add_note(f"In augment, for batch {at[1]} of epoch {at[0]}.")
        raise
    if not in_memory:  # the thread may call the hook again during the step
        parts = copied(tuple(parts))
    where = f"In what augment returned for batch {at[1]} of epoch {at[0]}: "
    return check_sets(network, theta, {where: parts}, may_weigh_nothing=in_memory)[0]


def _augment(
    augment: Augment, seed: Seed, parts: Sequence[Any], at: tuple[int, int], stack: tuple[int, ...]
) -> Sequence[Any]:
    """Return what the hook makes of a batch: of each network's own, if each has a seed."""
    if isinstance(seed, int):
        x, y, weight = parts
        items = items_of(augment(x, y, weight, batch_seed(seed, *at)), "the batch that it returns")
        return (*items, None)[:3]
    each = []
    for i, one in enumerate(seed):
        each.append(_augment(augment, one, parts_of_member(parts, (i,), stack), at, stack[1:]))
    xp = array_namespace(parts[0])
    return [None if one[0] is None else xp.stack(one) for one in zip(*each, strict=True)]


def read_ahead(items: Generator[T], backend: Backend, device: Any) -> Generator[T]:
    """Yield items that are made on a device; a thread meanwhile makes the next one.

    The thread also closes the generator of the items. Where this one is closed early, a thread that
    still makes an item ends after it.
    """
    from concurrent.futures import Future  # 20 ms

    end: Any = object()
    asked: SimpleQueue[Future[T] | None] = SimpleQueue()

    def make() -> T:
        with backend.background_copies(device):
            return next(items, end)

    def work() -> None:
        with contextlib.closing(items):
            for promised in iter(asked.get, None):
                try:
                    promised.set_result(make())
                except BaseException as error:
                    promised.set_exception(error)

    def ask() -> "Future[T]":
        promised = Future[T]()
        asked.put(promised)
        return promised

    # A daemon: Python may exit while a source waits.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(work,), daemon=True)
    thread.start()
    try:
        following = ask()
        while (item := _result_of(following)) is not end:
            following = ask()
            yield item
    finally:
        asked.put(None)
        thread.join(_PATIENCE)


def _result_of(promised: "Future[T]") -> T:
    """Wait for a result, and return it.

    Python does not see a Ctrl-C that comes just before a wait begins until the wait ends.
    """
    while not promised.done():
        with contextlib.suppress(TimeoutError):
            promised.result(timeout=_PATIENCE)
    return promised.result()
