"""The gradient monitor: checks of a training's gradient, at the steps where it is used."""

import math
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, to_host
from backprop_xp.checks import unravel
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.derivatives.objective import strength_of
from backprop_xp.networks.losses.column_weights import targets_of, without_shares
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.random_bits import Key, fold_in
from backprop_xp.training.rows.batches import batch_at, of_member, parts_of_member

# A difference this near to the gradient, by the bytes of the dtype, passes. Rounding alone stays
# below it; near a kink or an optimum a check along directions decides.
_NEAR = {8: 1e-6, 4: 1e-3}


class GradientMonitor(NamedTuple):
    """The gradient check of every ``every``-th step."""

    every: int
    seed: Key
    l2: Any
    l2_of_sum: Any

    def check(
        self, network: Network, theta: Array, rows: Rows, indices: Array | None, number: int
    ) -> list[tuple[str, float]]:
        """Return the verdict and the relative error before step ``number``; empty if none is due.

        If one difference leaves the gradient of a network in doubt, the worst in a stack is checked
        along random directions. Raises GradientCheckError if it is wrong. A network that has
        diverged passes: it has no gradient.
        """
        if number % self.every:
            return []
        from backprop_xp.gradient_check import GradientCheckError, check_network  # 25 ms

        batch = batch_at(rows, indices, fold_in(self.seed, number))
        l2 = strength_of(batch, self.l2, self.l2_of_sum)
        errors = to_host(_relative_difference(network, theta, batch, l2))
        stack, each = errors.shape, errors.reshape(-1).tolist()
        worst = max(each)
        if worst <= _NEAR[errors.dtype.itemsize]:
            return [("pass", worst)]
        member = tuple(unravel(each.index(worst), stack))
        x, y, weight = parts_of_member(batch[:3], member, stack)
        y, weight = _as_given(network, theta, x, y, weight)
        if l2 is not None and not isinstance(l2, float):
            l2 = float(of_member(l2, 0, member, stack))
        alone = Network(network.layers, network.loss_function, l2=l2 or 0.0)
        rng = batch.rng if isinstance(batch.rng, int) else of_member(batch.rng, 2, member, stack)
        options: dict[str, Any] = {"sample_weight": weight, "rng": rng, "method": "directional"}
        report = check_network(alone, theta[(*member, ...)], x, y, **options)
        if report.verdict == "fail":
            raise GradientCheckError(report, f"In the batch of update {number}:\n")
        return [(report.verdict, report.max_relative_error)]


def _as_given(network: Network, theta: Array, x: Any, y: Any, weight: Any) -> tuple[Any, Any]:
    """Return targets and weights in the form that a network takes."""
    n_out = network.outputs_shape(theta, x)[-1]
    return without_shares(y, weight, targets_of(network.loss_function, n_out))


def _relative_difference(network: Network, theta: Array, batch: Rows, l2: Any) -> Array:
    """Return how far one central difference is from each network's gradient, ``(*stack,)``.

    The direction is the sign of the gradient; the step changes the loss by a small part of itself.
    The result is infinite if it would be NaN or if nothing changes, and 0 for a theta that is not
    finite.
    """
    x, y, weight, rng, *_ = batch
    y, weight = _as_given(network, theta, x, y, weight)
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
