"""Numeric derivatives: the complex step and the centred difference.

An engine perturbs every entry of a flat point, as many copies at once as fit the memory, and
returns the numeric gradient ``(P,)``. ``f`` maps ``(K, P)`` to ``(K,)``.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of

StackedFunction = Callable[[Array], Array]


class Numeric(NamedTuple):
    """A numeric gradient, the step that gave it, and how it may err by rounding, ``(P,)``."""

    gradient: Array
    step: float
    rounding: Array


def complex_step(f: StackedFunction, flat: Array, copies: int) -> Numeric:
    """Return ``imag f(x + i h) / h``: no difference is taken, so h can be as small as one likes.

    Squire and Trapp 1998. f must be analytic and computed in complex arithmetic.
    """
    xp = array_namespace(flat)
    double = flat.dtype == xp.float64
    h = 2.0**-66 if double else 2.0**-40
    complex_flat = xp.astype(flat, xp.complex128 if double else xp.complex64)
    parts = []
    for unit in _unit_vectors(flat, copies):
        result = f(complex_flat + (1j * h) * xp.astype(unit, complex_flat.dtype))
        if not xp.isdtype(result.dtype, "complex floating"):
            raise TypeError(
                "value is real at a complex point, so the complex step cannot see its slope. Use "
                'method="centered".'
            )
        parts.append(xp.imag(result) / h)
    gradient = xp.concat(parts, axis=-1)
    return Numeric(gradient, h, float(xp.finfo(flat.dtype).eps) * xp.abs(gradient))


def centered(f: StackedFunction, flat: Array, copies: int) -> Numeric:
    """Return ``(f(x + h) - f(x - h)) / 2h`` at the step where truncation and rounding balance.

    h is the cube root of epsilon, times ``max(1, |x|)``; the divisor is the step as it was rounded
    (Press et al., "Numerical Recipes", section 5.7).
    """
    xp = array_namespace(flat)
    epsilon = float(xp.finfo(flat.dtype).eps)
    h = epsilon ** (1.0 / 3.0)
    steps = h * xp.maximum(xp.abs(flat), xp.ones_like(flat))
    up, down = flat + steps, flat - steps
    realised = up - down
    differences, sizes = [], []
    for unit in _unit_vectors(flat, copies):
        above = f(flat * (1.0 - unit) + up * unit)
        below = f(flat * (1.0 - unit) + down * unit)
        differences.append(above - below)
        sizes.append(xp.abs(above) + xp.abs(below))
    gradient = xp.concat(differences, axis=-1) / realised
    return Numeric(gradient, h, epsilon * xp.concat(sizes, axis=-1) / realised)


def along(f: StackedFunction, flat: Array, direction: Array, engine: str) -> Any:
    """Return the derivative of f along a direction ``(P,)``, by an engine's rule."""
    xp = array_namespace(flat)

    def along_line(t: Array) -> Array:
        return f(flat + t * direction)

    zero = xp.zeros((1,), dtype=flat.dtype, device=device_of(flat))
    return ENGINES[engine](along_line, zero, 1).gradient[0]


def _unit_vectors(flat: Array, copies: int) -> Any:
    """Yield the rows of the identity matrix, ``copies`` at a time, as ``(K, P)``."""
    xp, size = array_namespace(flat), flat.shape[-1]
    columns = xp.arange(size, device=device_of(flat))
    for start in range(0, size, copies):
        rows = columns[
            start : min(start + copies, size)
        ]  # the standard knows no stop beyond the end
        yield xp.astype(rows[:, None] == columns[None, :], flat.dtype)


ENGINES: dict[str, Callable[[StackedFunction, Array, int], Numeric]] = {
    "complex_step": complex_step,
    "centered": centered,
}
