"""Random directions: entries of random sign and of size 0.5 to 1.5, drawn tensor by tensor.

No entry is near 0, so no wrong entry goes unseen; signs differ, so errors of one sign do not hide
behind a sum (as they do from directions that are all positive).
"""

import math
from collections.abc import Sequence

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.gradient_check.engines import epsilon
from backprop_xp.gradient_check.functions import Function, Host
from backprop_xp.gradient_check.points import Tensor
from backprop_xp.random import bits, fold_in

# A direction gives no tensor less than this share of its weight to another.
_LEAST_SHARE = 1e-3


def draw(function: Function, seed: int, number: int) -> Host:
    """Return direction ``number`` of a seed, ``(P,)``, each entry times ``max(1, |x|)``."""
    xp = array_namespace(function.host)
    here = xp.astype(function.host, xp.float64)
    drawn = random_like(here[None, :], seed, number)[0, :]
    return drawn * xp.maximum(xp.abs(here), xp.ones_like(here))


def jitter(function: Function, seed: int) -> Host:
    """Return a random step ``(P,)`` that moves each entry of a point by its own rounding."""
    xp = array_namespace(function.host)
    here = xp.astype(function.host, xp.float64)
    return epsilon(function) * here * random_like(here[None, :], seed, -1)[0, :]


def random_like(array: Array, seed: int, number: int = 0) -> Array:
    """Return numbers of random sign and of size 0.5 to 1.5, shaped like an array ``(rows, n)``."""
    xp = array_namespace(array)
    key = fold_in(seed & 0x7FFFFFFF, number)
    drawn = bits(key, *array.shape, xp=xp, device=device_of(array))
    sign = xp.astype(1 - 2 * (drawn & 1), array.dtype)
    return sign * (0.5 + xp.astype(drawn >> 1, array.dtype) * 2.0**-30)


def aligned(direction: Host, analytic: Host) -> Host:
    """Return a direction with the signs of the gradient, its own where that is 0."""
    xp = array_namespace(direction)
    return xp.where(analytic == 0.0, direction, xp.abs(direction) * xp.sign(analytic))


def balanced(direction: Host, tensors: Sequence[Tensor], analytic: Host) -> Host:
    """Return a direction along which each tensor's part of the gradient weighs about the same.

    A small tensor's mistake would otherwise drown in the rounding of a large one's derivative.
    """
    xp = array_namespace(direction)
    norms = [norm(analytic[t.part] * direction[t.part]) for t in tensors]
    least = min((n for n in norms if n > 0.0), default=1.0)
    parts = [
        direction[t.part] * (max(least / n, _LEAST_SHARE) if n > 0.0 else 1.0)
        for t, n in zip(tensors, norms, strict=True)
    ]
    return xp.concat(parts, axis=-1)


def only(direction: Host, part: slice) -> Host:
    """Return a direction's entries in ``part``, and 0 elsewhere."""
    xp = array_namespace(direction)
    before = xp.zeros(part.start, dtype=direction.dtype)
    after = xp.zeros(direction.shape[0] - part.stop, dtype=direction.dtype)
    return xp.concat([before, direction[part], after], axis=-1)


def norm(vector: Host) -> float:
    """Return the Euclidean norm, the largest entry taken out first so that nothing overflows."""
    xp = array_namespace(vector)
    largest = float(xp.max(xp.abs(vector))) if vector.shape[0] else 0.0
    if not 0.0 < largest < math.inf:
        return largest
    scaled = vector / largest
    return largest * math.sqrt(float(xp.sum(scaled * scaled)))
