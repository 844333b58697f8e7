"""L-BFGS that ends as scikit-learn's does: by the rules of SciPy's L-BFGS-B."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from backprop_xp.backends import Array, array_namespace
from backprop_xp.training.optimizers.first_order import LBFGS
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.optimizers.line_search import from_array

# SciPy's ftol, which scikit-learn leaves as it is.
_LEAST_DECREASE = 1e7 * 2.220446049250313e-16


class LimitedState(NamedTuple):
    """The state of ``LBFGS``; the iterations, and 1 where a rule was met, ``(*stack, 1)``."""

    inner: Any
    iterations: Array
    settled: Array

    @property
    def loss(self) -> Array:
        """The loss of theta, ``(*stack, 1)``."""
        return from_array(self.inner.search).first.value


@dataclass(frozen=True)
class LimitedLBFGS:
    """``LBFGS`` with scikit-learn's ``max_iter`` and ``tol``, for each network of a stack.

    An iteration is a move of theta, of one or several evaluations. A network has converged when the
    largest entry of its gradient is at most ``tol``, or when a move lowers its loss by at most
    2.2e-9 times the loss, or times 1 if the loss is smaller. In float32, whose roundings are larger
    than that, it is a rounding, 1.2e-7.
    """

    tol: float
    max_iter: int
    lbfgs: ClassVar[LBFGS] = LBFGS(tolerance=0.0)
    shares_code = True

    def initialize(self, theta: Array) -> LimitedState:
        """Return the state before the first evaluation."""
        zero = array_namespace(theta).zeros_like(theta[..., :1])
        return LimitedState(self.lbfgs.initialize(theta), zero, zero)

    def begin(self, theta: Array, objective: Objective) -> Array:
        """Return theta with outputs in the targets' units, for networks whose loss it lowers."""
        return self.lbfgs.begin(theta, objective)

    def advance(
        self, theta: Array, state: LimitedState, objective: Objective
    ) -> tuple[Array, LimitedState, Array]:
        """Return theta and the state after an evaluation, and the loss before it."""
        xp, before = array_namespace(theta), state.loss
        reached, inner, loss = self.lbfgs.advance(theta, state.inner, objective)
        has_moved = xp.any(reached != theta, axis=-1, keepdims=True) & xp.isfinite(before)
        after = from_array(inner.search).first.value
        scale = xp.maximum(xp.maximum(xp.abs(before), xp.abs(after)), 1.0)
        least = max(_LEAST_DECREASE, float(xp.finfo(theta.dtype).eps))
        is_small = has_moved & (before - after <= least * scale)
        is_flat = xp.max(xp.abs(inner.gradient), axis=-1, keepdims=True) <= self.tol
        is_settled = xp.isfinite(after) & (is_small | is_flat)
        iterations = state.iterations + xp.astype(has_moved, theta.dtype)
        ends = is_settled | (iterations >= self.max_iter)
        inner = inner._replace(converged=xp.maximum(inner.converged, xp.astype(ends, theta.dtype)))
        settled = xp.maximum(state.settled, xp.astype(is_settled, theta.dtype))
        return reached, LimitedState(inner, iterations, settled), loss

    def has_converged(self, state: LimitedState) -> Array:
        """Return whether each network's training has ended."""
        return self.lbfgs.has_converged(state.inner)
