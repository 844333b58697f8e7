"""Functions of an array's real part, for formulas that are to hold for complex arrays too.

The complex step differentiates a function by giving it an imaginary part too small to matter, so
whatever selects or shifts must look at the real part alone and leave the imaginary part in place.
"""

import functools
import math

from backprop_xp.backends import Array, DType, Namespace, ones_where_positive


@functools.lru_cache(maxsize=64)
def is_complex(xp: Namespace, dtype: DType) -> bool:
    """Say whether a dtype is complex; remembered, since libraries take microseconds to answer."""
    return bool(xp.isdtype(dtype, "complex floating"))


@functools.lru_cache(maxsize=64)
def _exp_limit(xp: Namespace, dtype: DType) -> float:
    """Return the largest whole number with a finite exponential: 88 in float32, 709 in float64."""
    return float(math.floor(math.log(float(xp.finfo(dtype).max))))


def real_part(xp: Namespace, z: Array) -> Array:
    """Return the real part; a real array as it is, which ``xp.real`` need not take."""
    return xp.real(z) if is_complex(xp, z.dtype) else z


def positive(xp: Namespace, z: Array) -> Array:
    """Return 1 where the real part is positive, else 0, in the array's dtype."""
    if not is_complex(xp, z.dtype):
        return ones_where_positive(z)
    return xp.astype(xp.real(z) > 0, z.dtype)


def clip(xp: Namespace, z: Array, low: float, high: float) -> Array:
    """Return z where its real part lies between two bounds, else the nearer bound, a constant."""
    if not is_complex(xp, z.dtype):
        return xp.clip(z, low, high)
    x = xp.real(z)
    held = xp.clip(x, low, high)
    return held + (z - x) * xp.astype(held == x, x.dtype)


def finite_exp(xp: Namespace, z: Array) -> Array:
    """Return exp(z), the real part of z limited so that nothing overflows."""
    limit = _exp_limit(xp, z.dtype)
    if not is_complex(xp, z.dtype):
        return xp.exp(xp.minimum(z, limit))  # far cheaper than a clip
    return xp.exp(z - xp.maximum(xp.real(z) - limit, 0.0))


def magnitude(xp: Namespace, z: Array) -> Array:
    """Return z times the sign of its real part: |z| for a real z."""
    return xp.abs(z) if not is_complex(xp, z.dtype) else z * (2 * positive(xp, z) - 1)


def log1p(xp: Namespace, z: Array) -> Array:
    """Return log(1 + z); of a complex z with every digit of its real part.

    A library's own may lose digits for small z: NumPy takes the logarithm of |1 + z|.
    """
    if not is_complex(xp, z.dtype):
        return xp.log1p(z)
    x = xp.real(z)
    return xp.log1p(x) + xp.log1p((z - x) / (1.0 + x))
