"""Counter-based random bits in int32 arithmetic: the same on every backend, in any order.

A draw is a hash of a key and of where it is used, so that it can be replayed at will: there is no
generator whose state would have to be kept. The hash is a 32-bit finaliser (multiply and xor-shift,
after C. Wellons, "Prospecting for hash functions", 2018: ``lowbias32``). int32 is the one integer
type in which every array library multiplies, with wrap-around.

``rng`` is a key: a non-negative int, or an int32 array of such keys, shaped ``()`` or
``(*stack, 1, 1)``.
"""

from numbers import Integral
from typing import Any

from backprop_xp.backends import (
    Array,
    Device,
    Namespace,
    array_namespace,
    is_host_number,
    require_beside,
    require_dtype,
)
from backprop_xp.checks import integer

_POSITIVE = 0x7FFFFFFF


def as_key(rng: Any, theta: Array) -> Any:
    """Return ``rng`` as a key of 31 bits for the stack of ``theta``: an int, or an int32 array.

    Raises ValueError for a negative int or an array that is neither ``()`` nor ``(*stack, 1, 1)``,
    TypeError for what is not an integer.
    """
    if is_host_number(rng):
        rng = rng[()]
    if isinstance(rng, Integral) or not hasattr(rng, "shape"):
        return integer(rng, "rng", at_least=0) & _POSITIVE
    require_dtype(rng, "rng")
    require_beside(theta, rng, "rng")
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
    return rng if rng.shape else xp.reshape(rng, (1, 1))  # NumPy's numbers warn of wrapping around


def as_int32(value: Any) -> Any:
    """Return an int within int32, or an int32 array, that gives the same keys as ``value``."""
    if isinstance(value, int):
        return _wrap(value)
    xp = array_namespace(value)
    return xp.astype(value, xp.int32)


def fold_in(rng: Any, index: Any) -> Any:
    """Return a new key, made of a key and an index: of a layer, an epoch, a step."""
    return _mix(_wrap(_mix(rng) + index)) & _POSITIVE


def bits(rng: Any, rows: int, columns: int, *, xp: Namespace, device: Device) -> Array:
    """Return uniform 31-bit integers as int32, ``(rows, columns)`` or ``(*stack, rows, columns)``.

    An entry depends on the key, its row and its column alone.
    """
    row = xp.reshape(xp.arange(rows, dtype=xp.int32, device=device), (rows, 1))
    column = xp.reshape(xp.arange(columns, dtype=xp.int32, device=device), (1, columns))
    # Columns are hashed once more than rows: no key makes the draw symmetric in the two.
    return _mix(_mix(row + _mix(rng)) ^ _mix(_mix(column))) & _POSITIVE


def keep_mask(
    rng: Any, rate: float, rows: int, columns: int, *, xp: Namespace, device: Device
) -> Array:
    """Return True with probability ``1 - rate``, shaped as ``bits``."""
    return bits(rng, rows, columns, xp=xp, device=device) >= int(rate * 2**31)


def _mix(h: Any) -> Any:
    # The golden ratio's fraction, 0x9E3779B9 as an int32; without it the hash of 0 would be 0.
    h = _wrap(h - 0x61C88647)
    # A right shift of a signed integer drags the sign in: the masks take it out again.
    h = h ^ ((h >> 16) & 0xFFFF)
    h = _wrap(h * 0x7FEB352D)
    h = h ^ ((h >> 15) & 0x1FFFF)
    h = _wrap(h * -0x7B935975)  # 0x846CA68B as an int32
    return h ^ ((h >> 16) & 0xFFFF)


def _wrap(h: Any) -> Any:
    """Bring a Python int into int32's range; arrays wrap around by themselves."""
    return ((h + 2**31) & 0xFFFFFFFF) - 2**31 if isinstance(h, int) else h
