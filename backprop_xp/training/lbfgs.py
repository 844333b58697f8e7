"""The optimizer L-BFGS, for stacks: one evaluation of the objective in each step.

Each network has a line search of its own, whose bracket is in the state. A step evaluates the loss
and the gradient at every network's next point. A network whose point is accepted moves there, and
gets a new direction; the others get another point of their line.
"""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, require_floating
from backprop_xp.checks import integer
from backprop_xp.training.hyperparameters import Hyperparameter, of_each_network
from backprop_xp.training.line_search import (
    Point,
    as_array,
    begun,
    from_array,
    is_accepted,
    narrowed,
)
from backprop_xp.training.objectives import Objective
from backprop_xp.training.optimizer_protocol import Configured

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

    Targets may have any unit, as for ``LevenbergMarquardt``.

    A network has converged when a move lowers its loss by at most ``tolerance`` times the loss, or
    no move lowers it. It then stays as it is, and the training ends when all have.

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
        point = Point(state.length, loss[..., None], _dot(gradient, state.direction))
        units = objective.units(theta)
        accepted, is_low = is_accepted(search, point)
        goes_on = state.converged == 0.0
        after = _chosen(
            accepted,
            self._moved(state, trial - theta, gradient, point.value, units),
            _searching(state, point, is_low, units),
        )
        theta = xp.where(accepted & goes_on, trial, theta)
        before = search.first.value
        before = xp.where(xp.isinf(before), point.value, before)  # the first evaluation
        return theta, _chosen(goes_on, after, state)._replace(step=state.step + 1), before[..., 0]

    def _moved(
        self, state: LBFGSState, move: Array, gradient: Array, loss: Array, units: Any
    ) -> LBFGSState:
        """Return the state at a point that was accepted, with a new direction."""
        xp, change = array_namespace(move), gradient - state.gradient
        slope = xp.abs(_dot(move, state.gradient))
        is_kept = _dot(move, change) > xp.finfo(move.dtype).eps * slope  # else B is not positive
        moves, changes = (
            xp.where(is_kept[..., None], _appended(memory, new), memory)
            for memory, new in ((state.moves, move), (state.changes, change))
        )
        before = from_array(state.search).first.value
        is_first = xp.isinf(before)
        before = xp.where(is_first, loss, before)
        is_small = (before - loss <= self.tolerance * xp.abs(before)) & ~is_first
        along = units[..., None, :] if hasattr(units, "shape") else units
        state = state._replace(
            moves=moves, changes=changes, converged=xp.astype(is_small, move.dtype)
        )
        # Relative to the gradient, as squares overflow float32 above 1e19.
        size = _size(units * gradient, loss)
        scaled = moves / along, changes * along / size[..., None], units * gradient / size
        return _on_line(state, gradient, -units * _times_inverse(*scaled), loss, units)

    def has_converged(self, state: LBFGSState) -> Array:
        """Return whether each network has converged."""
        return state.converged > 0.0


def _searching(state: LBFGSState, point: Point, is_low: Array, units: Any) -> LBFGSState:
    """Return the state with another point of the line, or of the gradient's after many."""
    xp, search = array_namespace(is_low), from_array(state.search)
    ahead, length = narrowed(search, point, is_low)
    ended, has_memory = (
        ahead.tries >= _MOST_TRIES,
        _dot(state.moves, state.changes)[..., -1, :] > 0.0,
    )
    converged = xp.astype(ended & ~has_memory, length.dtype)
    line = state._replace(search=as_array(ahead), length=length, converged=converged)
    empty = state._replace(moves=0.0 * state.moves, changes=0.0 * state.changes)
    again = _on_line(empty, state.gradient, 0.0 * state.gradient, search.first.value, units)
    return _chosen(ended & has_memory, again, line)


def _on_line(
    state: LBFGSState, gradient: Array, direction: Array, loss: Array, units: Any
) -> LBFGSState:
    """Return the state at a theta with a direction, or the gradient's if the loss rises along it.

    The first length is 1. Along the gradient the move is as long as it is beside the loss, in
    units, and at most 1.
    """
    xp, scaled = array_namespace(loss), units * gradient
    is_down = _dot(gradient, direction) < 0.0
    direction = xp.where(is_down, direction, -units * (scaled / _size(scaled, loss)))
    search = as_array(begun(loss, _dot(gradient, direction)))
    length = xp.ones_like(loss)
    return state._replace(gradient=gradient, direction=direction, length=length, search=search)


def _size(gradient: Array, loss: Array) -> Array:
    """Return the norm of each gradient, or its loss if that is larger; 1 if both are 0."""
    xp = array_namespace(gradient)
    largest = xp.maximum(xp.max(xp.abs(gradient), axis=-1, keepdims=True), xp.abs(loss))
    largest = largest + xp.astype(largest == 0.0, largest.dtype)
    part = gradient / largest
    return largest * xp.maximum(xp.sqrt(_dot(part, part)), 1.0)


def _times_inverse(moves: Array, changes: Array, gradient: Array) -> Array:
    """Return ``B gradient`` by the two loops over the memory (algorithm 7.4).

    The latest move and change are last; a pair of zeros is none.
    """
    xp, memory = array_namespace(gradient), range(moves.shape[-2])
    products = xp.sum(moves * changes, axis=-1)
    is_pair = products > 0.0
    rho = xp.astype(is_pair, products.dtype) / xp.where(is_pair, products, 1.0)
    pairs = [(moves[..., i, :], changes[..., i, :], rho[..., i : i + 1]) for i in memory]
    alphas = list[Array]()
    for move, change, weight in reversed(pairs):
        alphas.append(weight * _dot(move, gradient))
        gradient = gradient - alphas[-1] * change
    squared = _dot(pairs[-1][1], pairs[-1][1])
    is_empty = xp.astype(squared == 0.0, squared.dtype)
    result = gradient * ((products[..., -1:] + is_empty) / (squared + is_empty))
    for move, change, weight in pairs:
        result = result + move * (alphas.pop() - weight * _dot(change, result))
    return result


def _appended(memory: Array, new: Array) -> Array:
    """Return a memory, ``(*stack, memory, P)``, without its oldest vector and with a new one."""
    return array_namespace(memory).concat([memory[..., 1:, :], new[..., None, :]], axis=-2)


def _dot(a: Array, b: Array) -> Array:
    """Return the products of vectors, with an axis of length 1 in place of theirs."""
    return array_namespace(a).sum(a * b, axis=-1, keepdims=True)


def _chosen(condition: Array, yes: LBFGSState, no: LBFGSState) -> LBFGSState:
    """Return one state or the other for each network, ``(*stack, 1)``; the step is not chosen."""
    xp, count = array_namespace(condition), len(condition.shape)
    fields = [
        xp.where(condition if len(a.shape) == count else condition[..., None], a, b)
        for a, b in zip(yes[1:], no[1:], strict=True)
    ]
    return LBFGSState(no.step, *fields)
