"""The seeds of a training, and the orders of its rows that they draw on the host."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends import Array, device_of, owner, require_owner, to_host
from backprop_xp.checks import integer
from backprop_xp.networks.numbers.random_bits import Key, as_int32

# An int, or nested lists of ints, one for each network of a stack.
Seed: TypeAlias = int | Sequence[Any]


def seeds_of(seed: Any) -> Seed:
    """Return a seed as an int, or ints of any shape as nested lists."""
    is_nested = isinstance(seed, Sequence) and not isinstance(seed, str)
    if not is_nested and not getattr(seed, "shape", None):
        return integer(seed, "seed", at_least=0)
    numbers = np.array(seed if owner(seed) is None else to_host(seed), dtype=object)
    for i, number in np.ndenumerate(numbers):
        numbers[i] = integer(number, f"seed{list(i)}", at_least=0)
    seeds: list[Any] = numbers.tolist()
    return seeds


def keys_of(seed: Seed, theta: Array) -> Key:
    """Return the key of each network's random bits: an int, or int32 ``(*stack, 1, 1)``.

    Raises ValueError for seeds that are not shaped as theta's stack.
    """
    if isinstance(seed, int):
        return as_int32(seed)
    seeds, stack = np.array(seed, dtype=object), tuple(theta.shape[:-1])
    if seeds.shape != stack:
        raise ValueError(
            f"seed has shape {seeds.shape}, but theta is stacked {stack}: one int for all, or "
            "ints shaped as the stack, one for each network, are expected."
        )
    keys = np.vectorize(as_int32, otypes=[np.int32])(seeds)[..., None, None]
    return require_owner(theta, "theta").from_host(keys, device=device_of(theta))


def order_of(rows: int, seed: Seed | None, epoch: int) -> np.ndarray:
    """Return the order of an epoch's rows on the host, unchanged if ``seed`` is None.

    Seeds of shape ``stack`` give an order each, ``(*stack, rows)``. It is int32, for devices
    without int64.
    """
    if seed is None:
        return np.arange(rows, dtype=np.int32)
    if not isinstance(seed, int):
        return np.stack([order_of(rows, one, epoch) for one in seed])
    key = np.random.SeedSequence([seed, integer(epoch, "epoch", at_least=0)])
    order = np.random.default_rng(key).permutation(rows)
    return order.astype(np.int32)


def batch_seed(seed: int, epoch: int, batch: int) -> int:
    """Return the seed of a batch's own random numbers, of 31 bits."""
    # By a spawn key: [seed, epoch, 0] would draw the bits of the epoch's order.
    key = np.random.SeedSequence([seed, epoch], spawn_key=(batch,))
    return int(key.generate_state(1)[0] >> 1)


def chosen_order(
    rows: int, choose: Callable[[int], Any], epoch: int, stack: tuple[int, ...] = ()
) -> np.ndarray:
    """Return what a user's function returns for an epoch, checked to be permutations of the rows.

    It is one order, ``(rows,)``, or one for each network of a stack, ``(*stack, rows)``.
    """
    order = np.asarray(to_host(choose(epoch)))
    if order.dtype.kind not in "iu" or order.shape not in ((rows,), (*stack, rows)):
        own = f" or {(*stack, rows)}" if stack else ""
        raise ValueError(
            f"shuffle({epoch}) returned {order.dtype} of shape {order.shape}, but an order of the "
            f"{rows} rows, integers of shape ({rows},){own}, is expected."
        )
    is_sorted = np.sort(order, axis=-1) == np.arange(rows)
    if not is_sorted.all():
        missing = np.ones(rows, dtype=bool)
        first = order.reshape(-1, rows)[int(np.argmin(is_sorted.reshape(-1, rows).all(axis=-1)))]
        missing[first[(first >= 0) & (first < rows)]] = False
        raise ValueError(
            f"shuffle({epoch}) returned an order without row {int(missing.argmax())}: each of the "
            f"{rows} rows, numbered from 0, is expected once."
        )
    return order.astype(np.int32)
