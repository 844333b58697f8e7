"""A check that a training can afford: one more forward pass on a live batch, all on the device.

It only raises suspicion. What is suspected is checked in full, by ``judge``.
"""

import math
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, to_host
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.check import check_network
from backprop_xp.gradient_check.directions import random_like
from backprop_xp.gradient_check.report import GradientCheckError
from backprop_xp.inputs import Rows
from backprop_xp.network import Network

# Relative errors above these are suspected, in float64 and in float32. Rounding and truncation make
# far less; a kink that the step crosses can make more, which the full check then finds out.
_SUSPECT = {8: 1e-5, 4: 5e-3}


class Watch(NamedTuple):
    """The checks of an epoch, on the device: each one's relative errors ``(*stack,)``.

    Of each network, the worst error is kept with its step and its theta ``(*stack, P)``.
    """

    errors: list[Array]
    worst: Array
    step: Array
    theta: Array


class Update(NamedTuple):
    """An update that is to be checked: its number, theta before it, and what was found there."""

    number: int
    theta: Array
    loss: Array
    gradient: Array


def draw_sizes(theta: Array, seed: int) -> Array:
    """Return the sizes of a direction's entries, 0.5 to 1.5, ``(P,)``: they serve every check."""
    xp = array_namespace(theta)
    one = xp.reshape(theta, (-1, theta.shape[-1]))[:1, :]
    return xp.abs(random_like(one, seed)[0, :])


def watch(
    before: Watch | None, network: Network, sizes: Array, update: Update, rows: Rows
) -> Watch:
    """Check the gradient of an update along one direction, after earlier checks of the epoch.

    The direction has the gradient's signs, so that the loss changes by far more than its rounding.
    The step changes the loss by a small part of itself.
    """
    step, theta, loss, gradient = update
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
    at = xp.full(error.shape, step, dtype=xp.int32, device=device_of(theta))
    if before is None:
        return Watch([error], error, at, xp.asarray(theta, copy=True))
    # Not a number is less than any: it hides no later error.
    worse = (error > before.worst) | xp.isnan(before.worst)
    return Watch(
        [*before.errors, error],
        xp.where(worse, error, before.worst),
        xp.where(worse, at, before.step),
        xp.where(worse[..., None], theta, before.theta),
    )


def suspected(watched: Watch) -> tuple[int, ...] | None:
    """Return the place in the stack of the network whose gradient was the most off, if one was."""
    worst = to_host(watched.worst)
    # A network that has diverged has no gradient to be wrong.
    errors = [error if math.isfinite(error) else 0.0 for error in worst.reshape(-1).tolist()]
    largest = max(errors)
    if largest <= _SUSPECT[worst.dtype.itemsize]:
        return None
    return unravel(errors.index(largest), worst.shape)


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
