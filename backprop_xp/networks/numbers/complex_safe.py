"""Functions of real arrays that stay analytic for complex ones.

The complex step differentiates a function by a tiny imaginary part of its argument. Selections and
shifts therefore depend on the real part alone, and do not change the imaginary part.
"""

import functools
import math

from backprop_xp.backends import Array, DType, Namespace, ones_where_positive


@functools.lru_cache(maxsize=64)
def is_complex(xp: Namespace, dtype: DType) -> bool:
    """Whether a dtype is complex; cached, because libraries take microseconds to answer."""
    return bool(xp.isdtype(dtype, "complex floating"))


@functools.lru_cache(maxsize=64)
def _exp_limit(xp: Namespace, dtype: DType) -> float:
    """Return the largest integer with a finite exponential: 88 in float32, 709 in float64."""
    return float(math.floor(math.log(float(xp.finfo(dtype).max))))


def real_part(xp: Namespace, z: Array) -> Array:
    """Return the real part; a real array itself, since ``xp.real`` need not accept one."""
    return xp.real(z) if is_complex(xp, z.dtype) else z


def positive(xp: Namespace, z: Array) -> Array:
    """Return 1 where the real part is positive, else 0, in the array's dtype."""
    if not is_complex(xp, z.dtype):
        return ones_where_positive(z)
    return xp.astype(xp.real(z) > 0, z.dtype)


def clip(xp: Namespace, z: Array, low: float, high: float) -> Array:
    """Return z if its real part lies between two bounds, else the nearer bound."""
    if not is_complex(xp, z.dtype):
        return xp.clip(z, low, high)
    x = xp.real(z)
    clipped = xp.clip(x, low, high)
    return clipped + (z - x) * xp.astype(clipped == x, x.dtype)


def finite_exp(xp: Namespace, z: Array) -> Array:
    """Return exp(z), with the real part of z limited so that nothing overflows."""
    limit = _exp_limit(xp, z.dtype)
    if not is_complex(xp, z.dtype):
        return xp.exp(xp.minimum(z, limit))  # far cheaper than a clip
    return xp.exp(z - xp.maximum(xp.real(z) - limit, 0.0))


def magnitude(xp: Namespace, z: Array) -> Array:
    """Return z times the sign of its real part: |z| for a real z."""
    return xp.abs(z) if not is_complex(xp, z.dtype) else z * (2 * positive(xp, z) - 1)


def log1p(xp: Namespace, z: Array) -> Array:
    """Return log(1 + z); for a complex z with every digit of its real part.

    A library's own function may lose digits of small z: NumPy takes the logarithm of |1 + z|.
    """
    if not is_complex(xp, z.dtype):
        return xp.log1p(z)
    x = xp.real(z)
    return xp.log1p(x) + xp.log1p((z - x) / (1.0 + x))
