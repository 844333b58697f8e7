"""The optimizer L-BFGS, for stacks: one evaluation of the objective in each step.

Each network has a line search of its own, whose bracket is in the state. A step evaluates the loss
and the gradient at every network's next point. A network whose point is accepted moves there, and
gets a new direction; the others get another point of their line.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    array_namespace,
    require_floating,
    transposed,
    with_diagonal,
)
from backprop_xp.checks import integer
from backprop_xp.training.optimizers.full_batch import Objective
from backprop_xp.training.optimizers.hyperparameters import Hyperparameter, of_each_network
from backprop_xp.training.optimizers.line_search import (
    Trial,
    as_array,
    begun,
    from_array,
    is_accepted,
    narrowed,
)
from backprop_xp.training.optimizers.protocol import Configured

# A line search that has not ended by then begins anew along the gradient, or ends the training.
_MOST_TRIES = 20.0


class LBFGSState(NamedTuple):
    """The number of evaluations, theta's gradient, the line search, and the memory.

    The next point is ``theta + length * direction``. ``gradient`` and ``direction`` are ``(*stack,
    P)``, ``search`` is ``(*stack, 10)``. ``moves`` of theta and ``changes`` of the gradient are
    ``(*stack, memory, P)``, the latest last, and 0 before there are as many. ``length`` and
    ``converged``, 1 where a network has, are ``(*stack, 1)``.
    """

    step: int
    gradient: Array
    direction: Array
    length: Array
    search: Array
    moves: Array
    changes: Array
    converged: Array


@dataclass(frozen=True, eq=False, repr=False)
class LBFGS(Configured):
    """``theta -= t B gradient``, with an inverse Hessian B from the last moves and a line search.

    For smooth losses and any number of parameters. B follows from the last ``memory`` moves of
    theta and changes of its gradient. Each network of a stack finds its own t, by the strong
    Wolfe conditions. An epoch is one evaluation of the loss and the gradient, with all rows.
    ``batch_size``, dropout, ``clip`` and schedules are refused.

    A target may have any unit, and several need the same scale, as for ``LevenbergMarquardt``.

    A network has converged when a move lowers its loss by at most ``tolerance`` times the loss, or
    no move lowers it. It then stays as it is, and the training ends when all have. A loss that is
    not finite at the start stays too.

    Liu and Nocedal 1989; Nocedal and Wright 2006, algorithms 7.4 and 7.5.

    >>> import backprop_xp as bx
    >>> x = bx.asarray([[0.0], [0.25], [0.5], [0.75], [1.0]])
    >>> network = bx.mlp([1, 3, 1], hidden="tanh")
    >>> result = bx.fit(network, network.initialize(), x, x**2, optimizer=bx.LBFGS(), epochs=200)
    >>> bool(result.history["loss"][-1] < 1e-5)
    True
    """

    memory: int = 10
    _: KW_ONLY
    tolerance: Hyperparameter = 1e-9
    kind_of_state = LBFGSState
    shares_code = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "memory", integer(self.memory, "memory"))

    def shape_of(self, name: str, theta: Array) -> tuple[int, ...]:
        """Return the shape of a field of its state."""
        (*stack, size), memory = theta.shape, self.memory
        own = {"search": (10,), "length": (1,), "converged": (1,)}
        more = {"moves": (memory, size), "changes": (memory, size)}
        return (*stack, *{**own, **more}.get(name, (size,)))

    def initialize(self, theta: Array) -> LBFGSState:
        """Return the state before the first step, which evaluates theta itself."""
        require_floating(theta, "theta")
        of_each_network(theta, self.tolerance, "tolerance")
        xp = array_namespace(theta)
        zero, vector = xp.zeros_like(theta[..., :1]), xp.zeros_like(theta)
        memory = xp.stack([vector] * self.memory, axis=-2)
        # Every loss is below infinity: theta itself is the first point that is accepted.
        search = as_array(begun(zero + math.inf, zero))
        return LBFGSState(0, vector, vector, zero, search, memory, memory, zero)

    def begin(self, theta: Array, objective: Objective) -> Array:
        """Return theta with outputs in the targets' units, for networks whose loss it lowers."""
        return objective.begun(theta)

    def advance(
        self, theta: Array, state: LBFGSState, objective: Objective
    ) -> tuple[Array, LBFGSState, Array]:
        """Return theta and the state after an evaluation, and the loss before it."""
        xp, search = array_namespace(theta), from_array(state.search)
        trial = theta + state.length * state.direction
        loss, gradient = objective.loss_and_gradient(trial)
        point = Trial(state.length, loss[..., None], _dot(gradient, state.direction))
        is_first = xp.isinf(search.first.value)
        before = xp.where(is_first, point.value, search.first.value)
        goes_on = state.converged == 0.0
        accepted, is_low = is_accepted(search, point)
        accepted = accepted & goes_on
        ahead, length = narrowed(search, point, is_low)
        # A search without an end begins anew along the gradient, and ends the training there.
        gives_up = goes_on & ~accepted & (ahead.tries >= _MOST_TRIES)
        begins_anew = gives_up & (_dot(state.moves, state.changes)[..., -1, :] > 0.0)
        moves, changes = _remembered(state, trial - theta, gradient, accepted, begins_anew)
        is_small = ~is_first & (before - point.value <= self.tolerance * xp.abs(before))
        has_ended = ~goes_on | (accepted & is_small) | (gives_up & ~begins_anew)
        has_ended = has_ended | (is_first & ~xp.isfinite(point.value))
        after = LBFGSState(
            step=state.step + 1,
            gradient=xp.where(accepted, gradient, state.gradient),
            direction=state.direction,
            length=xp.where(goes_on, length, state.length),
            search=xp.where(goes_on, as_array(ahead), state.search),
            moves=moves,
            changes=changes,
            converged=xp.astype(has_ended, theta.dtype),
        )
        value = xp.where(accepted, point.value, search.first.value)
        after = _on_new_line(after, accepted | begins_anew, value, objective.units(theta))
        return xp.where(accepted, trial, theta), after, before[..., 0]

    def has_converged(self, state: LBFGSState) -> Array:
        """Return whether each network has converged."""
        return state.converged > 0.0


def _remembered(
    state: LBFGSState, move: Array, gradient: Array, accepted: Array, begins_anew: Array
) -> tuple[Array, Array]:
    """Return the memory with a move that was accepted, unless B would not be positive by it.

    Where a search begins anew, it is empty.
    """
    xp, change = array_namespace(move), gradient - state.gradient
    slope = xp.abs(_dot(move, state.gradient))
    is_kept = accepted & (_dot(move, change) > xp.finfo(move.dtype).eps * slope)
    is_kept, rest = is_kept[..., None], xp.astype(~begins_anew, move.dtype)[..., None]
    return (
        xp.where(is_kept, _appended(state.moves, move), rest * state.moves),
        xp.where(is_kept, _appended(state.changes, change), rest * state.changes),
    )


def _on_new_line(state: LBFGSState, is_new: Array, loss: Array, units: Any) -> LBFGSState:
    """Return the state with another direction for some networks, and a length of 1.

    It is ``-B gradient`` in units, or the gradient's if the loss rises along it. Along the gradient
    the first move is as long as it is beside the loss, in units, and at most 1.
    """
    xp, gradient = array_namespace(loss), state.gradient
    along = units[..., None, :] if hasattr(units, "shape") else units
    scaled = units * gradient
    # Relative to the gradient, as squares overflow float32 above 1e19.
    size = _size(scaled, loss)
    scaled = scaled / size
    memory = state.moves / along, state.changes * along / size[..., None]
    direction = -units * _times_inverse(*memory, scaled)
    is_down = _dot(gradient, direction) < 0.0
    direction = xp.where(is_down, direction, -units * scaled)
    search = as_array(begun(loss, _dot(gradient, direction)))
    return state._replace(
        direction=xp.where(is_new, direction, state.direction),
        length=xp.where(is_new, 1.0, state.length),
        search=xp.where(is_new, search, state.search),
    )


def _size(gradient: Array, loss: Array) -> Array:
    """Return the norm of each gradient, or its loss if that is larger; 1 if both are 0."""
    xp = array_namespace(gradient)
    largest = xp.maximum(xp.max(xp.abs(gradient), axis=-1, keepdims=True), xp.abs(loss))
    largest = largest + xp.astype(largest == 0.0, largest.dtype)
    part = gradient / largest
    return largest * xp.maximum(xp.sqrt(_dot(part, part)), 1.0)


def _times_inverse(moves: Array, changes: Array, gradient: Array) -> Array:
    """Return ``B gradient`` by small matrices (Byrd, Nocedal and Schnabel 1994, theorem 2.2).

    It is what the two loops over the memory compute, without the loops (Nocedal and Wright 2006,
    algorithm 7.4). The latest move and change are last; a pair of zeros is none.
    """
    xp, g = array_namespace(gradient), gradient[..., None]
    products = moves @ transposed(changes)
    diagonal = xp.linalg.diagonal(products)
    is_none = xp.astype(diagonal <= 0.0, gradient.dtype)
    triangle = with_diagonal(xp.triu(products), is_none)
    squares = changes @ transposed(changes)
    last, is_empty = squares[..., -1:, -1:], is_none[..., -1:, None]
    scale = (products[..., -1:, -1:] + is_empty) / (last + is_empty)
    a = xp.linalg.solve(triangle, moves @ g)
    right = diagonal[..., None] * a + scale * (squares @ a - changes @ g)
    # Upper triangular matrices have no pivots to choose, and so no singular ones: in reverse order
    # the transposed one is such a matrix.
    b = _reversed(
        xp.linalg.solve(_reversed(transposed(triangle), -1, -2), _reversed(right, -2)), -2
    )
    return (scale * (g - transposed(changes) @ a) + transposed(moves) @ b)[..., 0]


def _reversed(array: Array, *axes: int) -> Array:
    return array_namespace(array).flip(array, axis=axes)


def _appended(memory: Array, new: Array) -> Array:
    """Return a memory, ``(*stack, memory, P)``, without its oldest vector and with a new one."""
    return array_namespace(memory).concat([memory[..., 1:, :], new[..., None, :]], axis=-2)


def _dot(a: Array, b: Array) -> Array:
    """Return the products of vectors, with an axis of length 1 in place of theirs."""
    return array_namespace(a).vecdot(a, b)[..., None]
