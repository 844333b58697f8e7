"""A check that a training can afford: one more forward pass on a live batch, all on the device.

It only raises suspicion. What is suspected is checked in full, by ``judge``.
"""

import math
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.check import check_network
from backprop_xp.gradient_check.directions import random_like
from backprop_xp.gradient_check.report import GradientCheckError
from backprop_xp.inputs import Rows
from backprop_xp.network import Network

# Relative errors above these are suspected, in float64 and in float32. Rounding and truncation make
# far less; a kink that the step crosses can make more, which the full check then finds out.
_SUSPECT = {8: 1e-5, 4: 5e-3}


class Worst(NamedTuple):
    """Of each network, its worst error so far (NaN before the first) and its theta there."""

    error: Array
    theta: Array


class Watch(NamedTuple):
    """The checks of an epoch: the numbers of the updates, and each one's errors ``(*stack,)``."""

    numbers: list[int]
    errors: list[Array]
    worst: Worst


def no_watch(theta: Array) -> Watch:
    """Return the watch of an epoch before its first check."""
    xp = array_namespace(theta)
    nothing = xp.full(theta.shape[:-1], math.nan, dtype=theta.dtype, device=device_of(theta))
    return Watch([], [], Worst(nothing, xp.zeros_like(theta)))


def draw_sizes(theta: Array, seed: int) -> Array:
    """Return the sizes of a direction's entries, 0.5 to 1.5, ``(P,)``: they serve every check."""
    xp = array_namespace(theta)
    one = xp.reshape(theta, (-1, theta.shape[-1]))[:1, :]
    return xp.abs(random_like(one, seed)[0, :])


def watch(
    before: Worst,
    network: Network,
    sizes: Array,
    theta: Array,
    found: tuple[Array, Array],
    rows: Rows,
) -> tuple[Worst, Array]:
    """Check ``found``, a loss and its gradient at theta, along one direction.

    Returns the worst of the epoch so far, and this one's relative errors. The direction has the
    gradient's signs, so that the loss changes by far more than its rounding. The step changes the
    loss by a small part of itself.
    """
    loss, gradient = found
    xp = array_namespace(theta)
    direction = xp.copysign(sizes, gradient)
    expected = xp.sum(gradient * direction, axis=-1)
    h = _step(loss, expected)
    moved = network.loss(
        theta + h[..., None] * direction,
        rows.x,
        rows.y,
        sample_weight=rows.sample_weight,
        rng=rows.rng,
    )
    numeric = (moved - loss) / h
    size = xp.maximum(xp.abs(expected), xp.abs(numeric))
    # A gradient of 0 and a slope of 0 agree.
    error = xp.abs(expected - numeric) / (size + xp.astype(size == 0.0, size.dtype))
    # Not a number is less than any: it hides no later error.
    worse = (error > before.error) | xp.isnan(before.error)
    worst = Worst(
        xp.where(worse, error, before.error), xp.where(worse[..., None], theta, before.theta)
    )
    return worst, error


def suspected(errors: Any) -> tuple[int, tuple[int, ...]] | None:
    """Return the check and the place in the stack of the worst error, if it is suspicious.

    ``errors`` are an epoch's, ``(checks, *stack)``, on the host.
    """
    # A network that has diverged has no gradient to be wrong.
    flat = [error if math.isfinite(error) else 0.0 for error in errors.reshape(-1).tolist()]
    largest = max(flat)
    if largest <= _SUSPECT[errors.dtype.itemsize]:
        return None
    check, *place = unravel(flat.index(largest), errors.shape)
    return check, tuple(place)


def judge(network: Network, theta: Array, rows: Rows, step: int) -> None:
    """Check one network's gradient in full; raise ``GradientCheckError`` if it is wrong."""
    options: Any = {"sample_weight": rows.sample_weight, "rng": rows.rng}
    report = check_network(network, theta, rows.x, rows.y, method="directional", **options)
    if report.passed or report.verdict == "inconclusive":
        return
    entries = check_network(network, theta, rows.x, rows.y, **options)
    report = entries if entries.verdict in ("fail", "nondeterministic") else report
    error = GradientCheckError(f"In the batch of update {step}:\n{report}")
    error.report = report
    raise error


def _step(loss: Array, slope: Array) -> Array:
    """Return the step ``(*stack,)`` over which a loss changes by the square root of epsilon.

    There the rounding and the truncation of a one-sided difference balance.
    """
    xp = array_namespace(loss)
    info = xp.finfo(loss.dtype)
    part = float(info.eps) ** 0.5
    least = float(info.smallest_normal)
    h = part * (xp.abs(loss) + least) / (xp.abs(slope) + least)
    # On a plateau it would leave the neighbourhood.
    return xp.minimum(h, xp.full_like(h, part))
