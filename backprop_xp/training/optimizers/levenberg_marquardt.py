"""The optimizer of Levenberg and Marquardt, for stacks of small networks."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, replaceable, require_floating
from backprop_xp.networks.derivatives.gauss_newton import Dual, Primal
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.optimizers.hyperparameters import Hyperparameter, of_each_network
from backprop_xp.training.optimizers.protocol import Configured

# The least damping, in roundings of the largest entry of H: it keeps the matrix regular. The most
# is 1 / rounding, where a step is lost in theta's own rounding.
_LEAST_DAMPING = 4.0
# The damping's factors: the least one after an accepted step, and that after a refused one.
_LEAST_FACTOR, _REFUSED = 0.1, 4.0
# A correction is at most this part of its move: the acceleration, twice the correction, is at most
# 0.75 times half of the move (Transtrum and Sethna 2012, section 3).
_MOST_BENT = 0.1875
# So many small decreases in a row are convergence: one may be small because its damping is large,
# which falls by up to 1e-10 meanwhile.
_SETTLED = 10.0


class LevenbergMarquardtState(NamedTuple):
    """The number of steps; the damping, and the last steps with a small decrease, ``(*stack, 1)``.

    Ten of these in a row are convergence.
    """

    step: int
    damping: Array
    settled: Array


@dataclass(frozen=True, eq=False, repr=False)
class LevenbergMarquardt(Configured):
    """``theta -= (H + mu I)^-1 gradient`` if that lowers the loss; H is the Gauss-Newton matrix.

    For networks of up to some thousand parameters and a smooth loss. Each network of a stack has
    its own ``mu = damping * max(diag(H))``. The next ``damping`` follows from the decrease of the
    loss beside that of the quadratic model. A step that would not lower the loss is refused, and
    the damping becomes four times as large. In a curved valley a step is corrected by the second
    derivative of the outputs along it, if that is small beside the step and lowers the loss
    further.

    A step takes about ``n P^2`` operations for P parameters and n outputs of all rows together, and
    holds seven matrices of ``P x P`` numbers; ``n^2 P`` and ``n x P`` if n is less than P. Above 8
    GiB in float64 it is an error.

    An epoch is one step, with all rows. ``batch_size``, dropout, ``clip`` and schedules are
    refused. A network has converged when ten steps in a row lower its loss by less than
    ``tolerance`` times the loss, or no step lowers it. It then stays as it is, and the training
    ends when all have.

    The loss of an epoch never rises, but by a rounding. In float32 it ends at about 1e-14 of the
    targets' variance, a rounding's square.

    A target may have any unit: a last Dense layer without an activation is measured in the targets'
    standard deviations. Several targets need the same scale, because the loss adds their errors: it
    hardly counts one of small numbers beside one of large numbers. The first step begins with
    outputs of the targets' mean and deviation, unless the loss of the given theta is lower. Inputs
    must have about the mean 0 and the deviation 1, by ``bx.data.standardize`` for example. Large
    ones saturate the units, whose gradient is then 0, and a warning says so. A mean of some
    deviations is not warned of: the fit of a curve is worse from 5 deviations, and fails at 10.

    ``result.optimizer_state.damping`` is a valid ``damping``: a training on other rows then begins
    with the last one. A warning names an equation with fewer residuals than parameters and no
    penalty.

    A curvature of your own loss that is negative at the start is an error. Where it becomes
    negative later, it counts as 0.

    Levenberg 1944, Marquardt 1963, for networks Hagan and Menhaj 1994; the damping follows Nielsen
    1999, with a least factor of 0.1; the correction is half of the geodesic acceleration of
    Transtrum and Sethna 2012.

    >>> import backprop_xp as bx
    >>> x = bx.asarray([[0.0], [0.25], [0.5], [0.75], [1.0]])
    >>> network = bx.mlp([1, 3, 1], hidden="tanh")
    >>> optimizer = bx.LevenbergMarquardt()
    >>> result = bx.fit(network, network.initialize(), x, x**2, optimizer=optimizer, epochs=200)
    >>> bool(result.history["loss"][-1] < 1e-8)
    True

    Two targets of different sizes are standardized, and the predictions are scaled back:

    >>> y = x**2 @ bx.asarray([[1.0, 1e5]])
    >>> scaled, network = bx.data.standardize(y), bx.mlp([1, 3, 2], hidden="tanh")
    >>> theta = network.initialize()
    >>> theta = bx.fit(network, theta, x, scaled.x, optimizer=optimizer, epochs=200).theta
    >>> predicted = scaled.mean + scaled.scale * network.predict(theta, x)
    >>> bool((abs(predicted - y) < 1e-3 * scaled.scale).all())
    True
    """

    damping: Hyperparameter = 1e-3
    _: KW_ONLY
    tolerance: Hyperparameter = 1e-8
    kind_of_state = LevenbergMarquardtState
    shares_code = True

    def shape_of(self, name: str, theta: Array) -> tuple[int, ...]:
        """Return the shape of a field of its state, ``(*stack, 1)``."""
        return (*theta.shape[:-1], 1)

    def initialize(self, theta: Array) -> LevenbergMarquardtState:
        """Return the state before the first step."""
        require_floating(theta, "theta")
        damping = of_each_network(theta, self.damping, "damping")
        of_each_network(theta, self.tolerance, "tolerance")
        zeros = array_namespace(theta).zeros_like(theta[..., :1])
        return LevenbergMarquardtState(0, _within(zeros + damping), zeros)

    def begin(self, theta: Array, objective: Objective) -> Array:
        """Return theta with outputs in the targets' units, for networks whose loss it lowers.

        Raises ValueError for a loss whose curvature is negative or not a number there.
        """
        theta = objective.begun(theta)
        objective.check_curvature(theta)
        return theta

    def advance(
        self, theta: Array, state: LevenbergMarquardtState, objective: Objective
    ) -> tuple[Array, LevenbergMarquardtState, Array]:
        """Return theta and the state after a step that each network tries, and the loss before."""
        xp, model = array_namespace(theta), objective.gauss_newton(theta)
        # H and mu I for parameters in their units, hence mu / units^2 for theta's own.
        squares = objective.units(theta) ** 2
        mu = state.damping * _largest(model.diagonal * squares) / squares
        damped = model.damped(mu)
        move = model.step(damped)
        # What the model falls by (Nielsen 1999, eq. 2.18); the decreases are (*stack, 1).
        predicted = 0.5 * xp.sum(move * (mu * move - model.gradient), axis=-1, keepdims=True)
        move, reached = _corrected(objective, theta, model, damped, move)
        decrease = (model.loss - reached)[..., None]
        accepted = (decrease > 0.0) & (state.settled < _SETTLED)
        theta = xp.where(accepted, theta + move, theta)
        damping = state.damping * xp.where(accepted, _factor(decrease, predicted), _REFUSED)
        is_small = decrease <= self.tolerance * model.loss[..., None]
        settled = xp.where(is_small, state.settled + 1.0, 0.0 * state.settled)
        settled = xp.where(accepted, settled, state.settled)
        return theta, _next_state(state, damping, settled), model.loss

    def has_converged(self, state: LevenbergMarquardtState) -> Array:
        """Return whether each network has converged."""
        return state.settled >= _SETTLED


def _corrected(
    objective: Objective, theta: Array, model: Primal | Dual, damped: Any, move: Array
) -> tuple[Array, Array]:
    """Return a move, or the one that follows the curvature of the outputs if it ends lower.

    Both are evaluated, and the loss there is returned, ``(*stack,)``.
    """
    xp = array_namespace(theta)
    loss, outputs = objective.loss_and_outputs(theta + move)
    # Where the move overflows, no correction of it is small.
    outputs = xp.where(xp.isfinite(loss)[..., None, None], outputs, model.outputs)
    more = objective.correction(theta, model, damped, move, outputs)
    units = objective.units(theta)
    is_small = _squares(more / units) <= _MOST_BENT**2 * _squares(move / units)
    bent = xp.where(is_small, move + more, move)
    of_bent = where_any(is_small, loss, lambda: objective.loss(theta + bent))
    is_lower = of_bent < loss
    return xp.where(is_lower[..., None], bent, move), xp.where(is_lower, of_bent, loss)


@replaceable
def where_any(condition: Array, otherwise: Array, value: Callable[[], Array]) -> Array:
    """Return a value, or the other one if the condition holds nowhere: the value is that one then.

    Only a library whose arrays are on the host knows this without waiting for a device.
    """
    return value()


def _squares(move: Array) -> Array:
    return array_namespace(move).vecdot(move, move)[..., None]


def _next_state(
    state: LevenbergMarquardtState, damping: Array, settled: Array
) -> LevenbergMarquardtState:
    """Return the state after a step; where no damping is left to try, the network has converged."""
    xp = array_namespace(damping)
    is_lost = damping >= 1.0 / xp.finfo(damping.dtype).eps
    settled = xp.where(is_lost, xp.full_like(settled, _SETTLED), settled)
    return LevenbergMarquardtState(state.step + 1, _within(damping), settled)


def _within(damping: Array) -> Array:
    """Return the damping within its bounds."""
    xp = array_namespace(damping)
    rounding = xp.finfo(damping.dtype).eps
    # A third of clip's time on NumPy.
    return xp.minimum(xp.maximum(damping, _LEAST_DAMPING * rounding), 1.0 / rounding)


def _largest(diagonal: Array) -> Array:
    """Return the largest entry of each diagonal, ``(*stack, 1)``, or 1 if all are 0."""
    xp = array_namespace(diagonal)
    largest = xp.max(diagonal, axis=-1, keepdims=True)
    return largest + xp.astype(largest == 0.0, largest.dtype)


def _factor(decrease: Array, predicted: Array) -> Array:
    """Return the damping's factor by the ratio of both decreases (Nielsen 1999, eq. 2.21)."""
    xp = array_namespace(decrease)
    ratio = decrease / (predicted + xp.astype(predicted == 0.0, predicted.dtype))
    surplus = 2.0 * xp.clip(ratio, 0.0, 1.0) - 1.0
    return xp.maximum(1.0 - surplus * surplus * surplus, _LEAST_FACTOR)
