"""The gradient of a training's step, checked where it is taken."""

import math
from typing import Any

from backprop_xp.backends import Array, array_namespace, to_host
from backprop_xp.checks import unravel
from backprop_xp.networks.inputs import Rows
from backprop_xp.networks.network import Network

# A difference so near to the gradient, in float64 and float32, leaves no doubt about it. Rounding
# makes less; near a kink or an optimum there may be doubts, which a check along directions settles.
_NEAR = {8: 1e-6, 4: 1e-3}


def check_step(
    network: Network, theta: Array, batch: Rows, l2: Any, number: int
) -> tuple[str, float]:
    """Check the gradient of a step's batch; return the verdict and the relative error.

    A network of a stack whose gradient one difference leaves in doubt is checked along directions;
    GradientCheckError is raised if it is wrong. One that has diverged has no gradient.
    """
    from backprop_xp.gradient_check import GradientCheckError, check_network  # 25 ms

    errors = to_host(_difference(network, theta, batch, l2))
    stack, each = errors.shape, errors.reshape(-1).tolist()
    worst = max(each)
    if worst <= _NEAR[errors.dtype.itemsize]:
        return "pass", worst
    place = tuple(unravel(each.index(worst), stack))
    x, y, weight = _member(batch, place, stack)
    strength = l2 if l2 is None or isinstance(l2, float) else float(_of_one(l2, 0, place, stack))
    alone = Network(network.layers, network.loss_function, l2=strength or 0.0)
    report = check_network(
        alone, theta[(*place, ...)], x, y, sample_weight=weight, rng=batch.rng, method="directional"
    )
    if report.verdict == "fail":
        error = GradientCheckError(f"In the batch of update {number}:\n{report}")
        error.report = report
        raise error
    return report.verdict, report.max_relative_error


def _difference(network: Network, theta: Array, batch: Rows, l2: Any) -> Array:
    """Return how far one central difference is from each network's gradient, ``(*stack,)``.

    The direction has the gradient's signs; along it the loss changes by a small part of itself. It
    is infinite where that is no number, as where nothing changes, and 0 of a theta that is not
    finite.
    """
    x, y, weight, rng, _ = batch
    options = {"sample_weight": weight, "rng": rng, "l2": 0.0 if l2 is None else l2}
    loss, gradient = network.loss_and_gradient(theta, x, y, **options)
    xp = array_namespace(theta)
    direction, slope = xp.sign(gradient), xp.sum(xp.abs(gradient), axis=-1)
    change = float(xp.finfo(theta.dtype).eps) ** (1.0 / 3.0) * xp.abs(loss)
    nothing = xp.astype((slope == 0.0) | (change == 0.0), theta.dtype)
    away = (change / (slope + nothing))[..., None] * direction
    ahead, behind = (network.loss(moved, x, y, **options) for moved in (theta + away, theta - away))
    error = xp.abs((ahead - behind) / 2.0 - change) / (change + nothing) + nothing
    error = xp.where(xp.isnan(error), xp.full_like(error, math.inf), error)
    return xp.where(xp.all(xp.isfinite(theta), axis=-1), error, xp.zeros_like(error))


def _member(batch: Rows, place: tuple[int, ...], stack: tuple[int, ...]) -> list[Any]:
    """Return x, y and the weights of one network of a stack."""
    arrays = ((batch.x, 2), (batch.y, 2), (batch.sample_weight, 1))
    return [None if a is None else _of_one(a, axes, place, stack) for a, axes in arrays]


def _of_one(array: Array, axes: int, place: tuple[int, ...], stack: tuple[int, ...]) -> Array:
    shape = (*stack, *array.shape[len(array.shape) - axes :])
    return array_namespace(array).broadcast_to(array, shape)[(*place, ...)]
