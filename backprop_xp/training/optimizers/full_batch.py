"""The objective of a full batch, which some optimizers evaluate themselves."""

import math
import warnings
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, to_host
from backprop_xp.checks import stacklevel
from backprop_xp.display.reprs import argument_text
from backprop_xp.networks.chain.array_checks import Strength
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.layout import unpack
from backprop_xp.networks.derivatives.bound import loss_and_gradient_of
from backprop_xp.networks.derivatives.gauss_newton import Dual, Primal, correction, quadratic
from backprop_xp.networks.derivatives.objective import loss_and_outputs_of, loss_of, outputs_of
from backprop_xp.networks.layers.activations import identity
from backprop_xp.networks.layers.core import Dense
from backprop_xp.networks.layers.saturation import first_units
from backprop_xp.networks.losses.column_weights import without_shares
from backprop_xp.networks.losses.loss import LOSSES, curvature_of, sample_losses
from backprop_xp.networks.losses.targets import in_columns
from backprop_xp.networks.network import Network

# Columns of mean 0 and variance 1, and drawn weights, make pre-activations of a variance of at most
# about 2: by Chebyshev's inequality at most 3 % of them are as large as saturated_share counts.
_MOST_SATURATED = 0.05
# Inputs below this mean size are scaled.
_ORDINARY_SIZE = 3.0
# A step holds at most so many matrices, of parameters by parameters, or by outputs if those are
# fewer; and so many numbers in all, 8 GiB in float64.
_MATRICES, _MOST_NUMBERS = 7, 2**30


class Objective(NamedTuple):
    """The mean loss of all rows plus the penalty, as functions of theta, ``(*stack, P)``.

    Each call computes all rows; nothing moves to the host. ``known_units`` are the ``units`` if
    they were computed before.
    """

    network: Network
    rows: Rows
    l2: Strength
    known_units: Array | None = None

    def loss(self, theta: Array) -> Array:
        """Return each network's loss, ``(*stack,)``."""
        return loss_of(self.network.definition, theta, self.rows, self.l2)

    def loss_and_gradient(self, theta: Array) -> tuple[Array, Array]:
        """Return the loss, ``(*stack,)``, and its gradient, ``(*stack, P)``."""
        return loss_and_gradient_of(self.network.definition, theta, self.rows, self.l2)

    def gauss_newton(self, theta: Array) -> Primal | Dual:
        """Return the quadratic model at theta, with the Gauss-Newton matrix H.

        It has the ``loss``, the ``gradient`` and the ``diagonal`` of H. ``step(damped)`` returns
        ``-(H + diag(damping))^-1 gradient``, where ``damped`` is what ``damped(damping)`` returned
        for a damping ``(*stack, 1)`` or ``(*stack, P)``.
        """
        outputs = math.prod(self.network.outputs_shape(theta, self.rows.x)[-2:])
        size, members = self.network.size, math.prod(theta.shape[:-1])
        numbers = _MATRICES * members * min(outputs, size) * size
        if numbers > _MOST_NUMBERS:
            needed = numbers * array_namespace(theta).finfo(theta.dtype).bits / 2**33
            raise ValueError(
                f"A step of {members} networks of {size} parameters holds about {needed:.0f} GiB: "
                f"{_MATRICES} matrices of {min(outputs, size)} x {size} numbers for each. Use "
                'bx.LBFGS(), or an estimator\'s solver="lbfgs", which holds some vectors of '
                "parameters; or train fewer networks at once."
            )
        return quadratic(self.network.definition, theta, self.rows, self.l2)

    def loss_and_outputs(self, theta: Array) -> tuple[Array, Array]:
        """Return the loss, ``(*stack,)``, and the outputs, ``(*stack, rows, n_out)``."""
        return loss_and_outputs_of(self.network.definition, theta, self.rows, self.l2)

    def correction(
        self, theta: Array, model: Primal | Dual, damped: Any, move: Array, reached: Array
    ) -> Array:
        """Return what the curvature of the outputs along a move adds to it.

        The move is ``model.step(damped)``, and ``reached`` are the outputs at ``theta + move``.
        """
        change = reached - model.outputs
        return correction(self.network.definition, theta, self.rows.x, model, damped, move, change)

    def check_curvature(self, theta: Array) -> None:
        """Raise ValueError if a user's loss has a curvature that is negative or not a number."""
        from backprop_xp.gradient_check.entrances.curvatures import (
            curvature_fault,  # which few need
        )

        loss, rows = self.network.loss_function, self.rows
        if loss in LOSSES.values():
            return
        outputs = outputs_of(self.network.definition, theta, rows)
        y = in_columns(outputs, rows.y)
        curvature, elsewhere = (curvature_of(loss, o, y) for o in (outputs, 0.0 * outputs))
        fault = curvature_fault(curvature, sample_losses(loss, outputs, y), elsewhere)
        if fault is not None:
            raise ValueError(
                f"{argument_text(loss)} cannot be used with the Gauss-Newton matrix: {fault}. "
                "bx.check_loss checks it. Correct curvature, or use an optimizer that needs only "
                "the gradient, such as bx.LBFGS()."
            )

    def warn_if_saturated(self, theta: Array) -> None:
        """Warn of tanh or sigmoid units that inputs of large numbers, not weights, saturate."""
        network, x, xp = self.network, self.rows.x, array_namespace(theta)
        units = first_units(network.layers, unpack(network.layout, theta), x)
        if units is None or not x.shape[-2]:
            return
        size = xp.mean(xp.abs(units.inputs), axis=-2)
        share, sizes = map(to_host, (units.saturated_share(units.inputs), size))
        sizes = sizes.reshape(-1, sizes.shape[-1]).max(axis=0)
        if share <= _MOST_SATURATED or sizes.max() <= _ORDINARY_SIZE:
            return
        scaled = units.inputs / xp.maximum(size[..., None, :], 1.0)
        if to_host(units.saturated_share(scaled)) > _MOST_SATURATED:
            return  # the weights have grown
        column = int(sizes.argmax())
        inputs = f"Column {column} of x has" if units.inputs is x else "Their inputs have"
        warnings.warn(
            f"x saturates the network: at the start {share:.0%} of the slopes of its first tanh or "
            f"sigmoid units are 0. {inputs} a mean size of {sizes[column]:.3g}. Such units hardly "
            "learn. Scale x to about 1: by bx.data.standardize, by bx.Standardize(mean, scale) as "
            "the first layer, or by scikit-learn's StandardScaler.",
            stacklevel=stacklevel(),
        )

    def warn_of_few_residuals(self, theta: Array) -> None:
        """Warn of an equation that has fewer residuals than parameters, and no penalty."""
        if not any(getattr(layer, "returns_residuals", False) for layer in self.network.layers):
            return
        rows, size = self.rows, self.network.size
        *_, count, n_out = self.network.outputs_shape(theta, rows.x)
        _, weight = without_shares(rows.y, rows.sample_weight, n_out)
        residuals = count * n_out
        if weight is not None and residuals >= size:  # which moves them to the host
            counts = to_host(weight) != 0.0
            is_of_rows = rows.y.shape[-1] == n_out
            numbers = counts.sum(-1) * n_out if is_of_rows else counts.sum((-2, -1))
            residuals = int(numbers.min())
        l2 = 0.0 if self.l2 is None else self.l2
        has_penalty = (l2 if isinstance(l2, float) else to_host(l2).min()) > 0.0
        if residuals < size and not has_penalty:
            warnings.warn(
                f"the equation has {residuals} residuals for {size} parameters, and no penalty: a "
                "tiny loss is then possible with a wrong solution between the points. Take more "
                "points, a smaller network, or a penalty such as l2=1e-6.",
                stacklevel=stacklevel(),
            )

    def begun(self, theta: Array) -> Array:
        """Return theta with outputs of the targets' mean and deviation, where that lowers the loss.

        It is meant for standardized targets: its last layer is multiplied by the deviations.
        """
        units = self._output_units()
        if units is None:
            return theta
        scaled = units.applied(theta)
        is_lower = self.loss(scaled) < self.loss(theta)
        return array_namespace(theta).where(is_lower[..., None], scaled, theta)

    def units(self, theta: Array) -> Any:
        """Return the unit of each parameter, ``(*stack, P)``: 1, or the deviation of its target.

        The last layer's parameters follow the targets if it is Dense without an activation, and the
        loss has no inverse link. Steps that are computed in these units are the same for targets of
        any.
        """
        if self.known_units is not None:
            return self.known_units
        units = self._output_units()
        return 1.0 if units is None else units.of(theta)

    def _output_units(self) -> "_OutputUnits | None":
        (*_, last), loss = self.network.layers, self.network.loss_function
        is_of_outputs = loss.inverse_link is identity.value and loss.outputs_per_target == 1
        if not isinstance(last, Dense) or last.activation is not identity or not is_of_outputs:
            return None
        rows, xp = self.rows, array_namespace(self.rows.y)
        y, weight = without_shares(rows.y, rows.sample_weight, last.n_out)
        if weight is None:
            weight = xp.ones_like(y)
        elif y is rows.y:  # weights of rows
            weight = weight[..., None]
        mean = _mean(y, weight)
        scale = xp.sqrt(_mean((y - mean) * (y - mean), weight))
        scale = scale + xp.astype(scale == 0.0, scale.dtype)
        weights, bias = self.network.layout[-1]
        return _OutputUnits(slice(weights.part.start, bias.part.stop), mean, scale)


class _OutputUnits(NamedTuple):
    """The targets' means and standard deviations, ``(..., 1, n_out)``, and a last layer's slice."""

    part: slice
    mean: Array
    scale: Array

    def of(self, theta: Array) -> Array:
        """Return the unit of each parameter, ``(*stack, P)``: 1 before the last layer."""
        return self._with_last(array_namespace(theta).ones_like(theta), 0.0 * self.mean)

    def applied(self, theta: Array) -> Array:
        """Return theta for the targets, given it for standardized ones."""
        return self._with_last(theta, self.mean)

    def _with_last(self, theta: Array, mean: Array) -> Array:
        """Return theta with a last layer times the scales, and the means added to its bias."""
        xp, (*stack, _), n_out = array_namespace(theta), theta.shape, self.scale.shape[-1]
        layer = xp.reshape(theta[..., self.part], (*stack, -1, n_out)) * self.scale
        weights, bias = layer[..., :-1, :], layer[..., -1:, :] + mean
        last = xp.reshape(xp.concat([weights, bias], axis=-2), (*stack, -1))
        return xp.concat([theta[..., : self.part.start], last], axis=-1)


def _mean(y: Array, weight: Array) -> Array:
    """Return the weighted mean over rows, ``(..., 1, n_out)``, 0 where all weights are 0."""
    xp = array_namespace(y)
    total = xp.sum(weight, axis=-2, keepdims=True)
    total = total + xp.astype(total == 0.0, total.dtype)
    return xp.sum(weight * y, axis=-2, keepdims=True) / total
