"""Counter-based random bits in int32 arithmetic: the same on every backend, in any order.

A draw is a hash of a key, a row and a column. It can be repeated at any time, without a generator's
state. The hash is a 32-bit finalizer (multiply and xor-shift, after C. Wellons, "Prospecting for
hash functions", 2018: ``lowbias32``). int32 is the only integer type that every array library
multiplies with wrap-around.
"""

from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import (
    Array,
    Device,
    Namespace,
    array_namespace,
    is_host_number,
    require_dtype,
    require_same_device,
)
from backprop_xp.checks import integer


class RowKey(NamedTuple):
    """The key of a part of a batch: a key, and the part's ``positions`` in the batch, int32.

    They are ``(rows,)`` or ``(*stack, rows)``: a row draws the same bits as in the whole batch.
    """

    key: Any
    positions: Array


# A non-negative int, an int32 array of such keys shaped () or (*stack, 1, 1), or a RowKey of one.
Key: TypeAlias = int | Array

_POSITIVE = 0x7FFFFFFF


def as_key(rng: Array, theta: Array) -> Key:
    """Return ``rng`` as a key of 31 bits for the stack of ``theta``: an int, or an int32 array.

    Raises ValueError for a negative int, or an array shaped neither ``()`` nor ``(*stack, 1, 1)``,
    TypeError for anything but integers.
    """
    if is_host_number(rng):
        rng = rng[()]
    if isinstance(rng, Integral) or not hasattr(rng, "shape"):
        return integer(rng, "rng", at_least=0) & _POSITIVE
    require_dtype(rng, "rng")
    require_same_device(theta, rng, "rng")
    xp, stack = array_namespace(theta), tuple(theta.shape[:-1])
    if not xp.isdtype(rng.dtype, "integral"):
        raise TypeError(f"rng must be an int or an array of integers, not of {rng.dtype}.")
    if tuple(rng.shape) not in ((), (*stack, 1, 1)):
        raise ValueError(
            f"rng has shape {tuple(rng.shape)}, but an array of keys for a stack {stack} is shaped "
            f"{(*stack, 1, 1)}, or () for one key."
        )
    if xp.iinfo(rng.dtype).bits < 32:
        rng = xp.astype(rng, xp.int32)
    rng = xp.astype(rng & _POSITIVE, xp.int32)
    return rng if rng.shape else xp.reshape(rng, (1, 1))  # NumPy's scalars warn of wrap-around


def as_int32(key: Key) -> Key:
    """Return an int within int32, or an int32 array, that gives the same bits as ``key``."""
    if isinstance(key, int):
        return _wrap(key)
    xp = array_namespace(key)
    return xp.astype(key, xp.int32)


def fold_in(rng: Key, index: int | Array) -> Key:
    """Return a new key, made of a key and an index, such as that of a layer or a step."""
    if isinstance(rng, RowKey):
        return rng._replace(key=fold_in(rng.key, index))
    return _mix(_wrap(_mix(rng) + index)) & _POSITIVE


def bits(rng: Key, rows: int, columns: int, *, xp: Namespace, device: Device) -> Array:
    """Return uniform 31-bit integers as int32, ``(rows, columns)`` or ``(*stack, rows, columns)``.

    An entry depends on the key, its row and its column alone.
    """
    if isinstance(rng, RowKey):
        row, rng = rng.positions[..., None], rng.key
    else:
        row = xp.reshape(xp.arange(rows, dtype=xp.int32, device=device), (rows, 1))
    column = xp.reshape(xp.arange(columns, dtype=xp.int32, device=device), (1, columns))
    # Columns are hashed once more than rows: otherwise a key could give a symmetric draw.
    return _mix(_mix(row + _mix(rng)) ^ _mix(_mix(column))) & _POSITIVE


def keep_mask(
    rng: Key, rate: float, rows: int, columns: int, *, xp: Namespace, device: Device
) -> Array:
    """Return booleans that are True with probability ``1 - rate``, shaped as ``bits``."""
    return bits(rng, rows, columns, xp=xp, device=device) >= int(rate * 2**31)


def _mix(h: int | Array) -> int | Array:
    # The golden ratio's fraction, 0x9E3779B9 as an int32; without it the hash of 0 would be 0.
    h = _wrap(h - 0x61C88647)
    # A right shift of a signed integer copies the sign: the masks remove the copies.
    h = h ^ ((h >> 16) & 0xFFFF)
    h = _wrap(h * 0x7FEB352D)
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = _wrap(h * -0x7B935975)  # 0x846CA68B as an int32
    return h ^ ((h >> 16) & 0xFFFF)


def _wrap(h: int | Array) -> int | Array:
    """Return a Python int wrapped into int32; arrays wrap around by themselves."""
    return ((h + 2**31) & 0xFFFFFFFF) - 2**31 if isinstance(h, int) else h
