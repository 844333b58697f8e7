"""The quadratic model of a network's objective: its Gauss-Newton matrix, and steps by it.

``J`` has the derivatives of the outputs by theta, by the layers' own backward rules. ``D`` and
``r`` are the second and first derivatives of each row's share in the loss by its outputs, and ``m``
is 1 for weights, 0 for other parameters. The objective has the gradient ``J^T r + l2 m theta``. The
matrix is ``H = J^T D J + l2 diag(m)``, without the second derivatives of the outputs (Schraudolph
2002; for least squares Nocedal and Wright 2006, section 10.3). An entry of a D with an entry for
each output is 0 where a user's loss has a negative curvature, so that H is never negative.
"""

import math
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, dispatch, transposed, with_diagonal
from backprop_xp.networks.chain.array_checks import Strength
from backprop_xp.networks.chain.batch_rows import Rows, row_slices
from backprop_xp.networks.chain.layout import pack, unpack, weight_mask
from backprop_xp.networks.chain.propagation import Cache, backward_through, forward_through, linked
from backprop_xp.networks.derivatives.definition import Definition
from backprop_xp.networks.derivatives.objective import loss_of_values, shares_of
from backprop_xp.networks.derivatives.row_jacobians import outputs_and_jacobian
from backprop_xp.networks.jets.parts import rows_in_cache
from backprop_xp.networks.losses.loss import curvature_of, value_and_gradient
from backprop_xp.networks.losses.targets import in_columns

# So many numbers of J are computed at once; if the cache counts, so many times what stays in it:
# products of fewer rows take longer.
_NUMBERS_AT_ONCE, _TIMES_THE_CACHE = 2**23, 16


class Primal(NamedTuple):
    """The model with its matrix: ``(*stack, P, P)``, without the penalty's ``decay``, l2 m.

    It has the outputs at theta, D, and J unless that was computed in blocks of rows.
    """

    loss: Array
    gradient: Array
    outputs: Array
    curvature: Array
    jacobian: Array | None
    curved: Array
    decay: Any

    @property
    def diagonal(self) -> Array:
        """The diagonal of H, ``(*stack, P)``."""
        return array_namespace(self.curved).linalg.diagonal(self.curved) + self.decay

    @property
    def matrix(self) -> Array:
        """The matrix H, ``(*stack, P, P)``."""
        return with_diagonal(self.curved, self.decay)

    def damped(self, damping: Array) -> Array:
        """Return ``H + diag(damping)``, for ``(..., P)`` or ``(..., 1)``."""
        return with_diagonal(self.curved, self.decay + damping)

    def step(self, damped: Array) -> Array:
        """Return ``-(H + diag(damping))^-1 gradient``."""
        return -_solved(damped, self.gradient)

    def correction(self, damped: Array, move: Array, pulled: Array) -> Array:
        """Return ``-(H + diag(damping))^-1 (pulled - J^T D J move)``."""
        return -_solved(damped, pulled - _product(self.curved, move))


class _SmallEquations(NamedTuple):
    """``A^-1``, ``A^-1 J^T`` and ``I + D J A^-1 J^T``, where A is a damped diagonal matrix."""

    inverse: Array
    scaled: Array
    matrix: Array

    def solved(self, right: Array) -> Array:
        """Return ``A^-1 J^T (I + D J A^-1 J^T)^-1 right``."""
        return _product(self.scaled, _solved(self.matrix, right))


class Dual(NamedTuple):
    """The model of n outputs in all rows, fewer than parameters: J, DJ ``(*stack, n, P)`` and r.

    ``decay`` is l2 m, and ``pull`` its product with theta. It has the outputs at theta, and D.
    """

    loss: Array
    gradient: Array
    outputs: Array
    curvature: Array
    jacobian: Array
    curved: Array
    slope: Array
    decay: Any
    pull: Any

    @property
    def diagonal(self) -> Array:
        """The diagonal of H, ``(*stack, P)``."""
        xp = array_namespace(self.jacobian)
        return xp.sum(self.jacobian * self.curved, axis=-2) + self.decay

    def damped(self, damping: Array) -> _SmallEquations:
        """Return what ``H + diag(damping)`` is made of, with ``A = damping + decay``."""
        inverse = 1.0 / (self.decay + damping)
        scaled = transposed(self.jacobian * inverse[..., None, :])
        ones = array_namespace(self.slope).ones_like(self.slope)
        return _SmallEquations(inverse, scaled, with_diagonal(self.curved @ scaled, ones))

    def step(self, damped: _SmallEquations) -> Array:
        """Return ``-(H + diag(damping))^-1 gradient``, from n equations instead of P.

        By Woodbury's identity it is ``-A^-1 (pull + J^T z)`` with ``(I + D J A^-1 J^T) z = r - D J
        A^-1 pull``. No close numbers are subtracted.
        """
        pull = self.pull * damped.inverse
        return -pull - damped.solved(self.slope - _product(self.curved, pull))

    def correction(self, damped: _SmallEquations, move: Array, change: Array) -> Array:
        """Return ``-(H + diag(damping))^-1 J^T (change - D J move)``."""
        return -damped.solved(change - _product(self.curved, move))


def quadratic(definition: Definition, theta: Array, rows: Rows, l2: Strength) -> Primal | Dual:
    """Return the model of the objective at theta, in the form with the smaller equations.

    The arguments are those of ``objective.loss_of``; rows of weight 0 are ``counted`` before.
    """
    outputs = math.prod(definition.outputs_shape(theta, rows.x)[-2:])
    form = dual if outputs < definition.size else primal
    return form(definition, theta, rows, l2)


def correction(
    definition: Definition,
    theta: Array,
    x: Array,
    model: Primal | Dual,
    damped: Any,
    move: Array,
    change: Array,
) -> Array:
    """Return ``-(H + diag(damping))^-1 J^T D (change - J move)``.

    ``damped`` is what ``model.damped`` returned: a step and its correction share it, so that XLA
    decomposes one matrix. On a CPU it runs two decompositions at once, and on two cores they can
    wait for one another's threads forever (JAX 0.10). ``change`` is that of the outputs by the
    move. Without a curvature of the outputs it is J move.
    """
    curved = _times(model.curvature, change)
    if isinstance(model, Dual):
        return model.correction(damped, move, _joined(curved))
    if model.jacobian is None:
        pulled = _pulled(definition, theta, x, curved)
    else:
        pulled = _product(transposed(model.jacobian), _joined(curved))
    return model.correction(damped, move, pulled)


def gradient_and_matrix(
    definition: Definition, theta: Array, rows: Rows, l2: Strength
) -> tuple[Array, Array]:
    """Return the gradient and the matrix, as ``Network.gauss_newton`` does."""
    model = primal(definition, theta, rows, l2)
    return model.gradient, model.matrix


def primal(definition: Definition, theta: Array, rows: Rows, l2: Strength) -> Primal:
    """Return the model with its matrix, summed over blocks of rows."""
    parts, gradient, curved = list[tuple[Array, ...]](), 0.0, 0.0
    blocks = row_slices(rows.x.shape[-2], _rows_at_once(definition, theta, rows))
    for block in blocks:
        linear = linearized(definition, theta, rows, block)
        parts.append((linear.losses, linear.outputs, linear.curvature))
        jacobian = _flat(linear.jacobian)
        gradient += _product(transposed(jacobian), _joined(linear.slope))
        curved += _squared(linear)
    decay, pull = _penalty(definition, theta, l2)
    axes = len(theta.shape) - 1  # of rows
    losses, outputs, curvature = (
        each[0] if len(each) == 1 else array_namespace(theta).concat(each, axis=axes)
        for each in zip(*parts, strict=True)
    )
    loss = loss_of_values(definition, theta, losses, rows.sample_weight, l2)
    given = outputs, curvature, jacobian if len(blocks) == 1 else None
    return Primal(loss, gradient + pull, *given, curved, decay)


def dual(definition: Definition, theta: Array, rows: Rows, l2: Strength) -> Dual:
    """Return the model with J in place of the matrix."""
    linear = linearized(definition, theta, rows, slice(None))
    jacobian, curved = _flat(linear.jacobian), _flat(_curved(linear))
    slope, (decay, pull) = _joined(linear.slope), _penalty(definition, theta, l2)
    loss = loss_of_values(definition, theta, linear.losses, rows.sample_weight, l2)
    gradient = _product(transposed(jacobian), slope) + pull
    given = linear.outputs, linear.curvature, jacobian, curved
    return Dual(loss, gradient, *given, slope, decay, pull)


class Linear(NamedTuple):
    """Some rows at theta: the loss of each, ``(*stack, rows)``, the outputs, J, D and r.

    J is ``(*stack, rows, n_out, P)``, the outputs and r ``(*stack, rows, n_out)``. D has r's axes,
    or a matrix for each row.
    """

    losses: Array
    outputs: Array
    jacobian: Array
    curvature: Array
    slope: Array


def linearized(definition: Definition, theta: Array, rows: Rows, block: slice) -> Linear:
    """Return the rows of a block, linearized at theta."""
    outputs, jacobian = outputs_and_jacobian(definition, theta, rows.x[..., block, :])
    share: Any = shares_of(rows)
    is_number = rows.sample_weight is None
    share = share if is_number else share[..., block, :]
    given = definition.loss, outputs, in_columns(outputs, rows.y[..., block, :])
    losses, slope = value_and_gradient(*given, share)
    curvature = curvature_of(*given)
    if len(curvature.shape) == len(outputs.shape):
        curvature = array_namespace(theta).maximum(curvature, 0.0)
    if not is_number and len(curvature.shape) > len(outputs.shape):
        share = share[..., None]
    return Linear(losses, outputs, jacobian, curvature * share, slope)


def _squared(linear: Linear) -> Array:
    """Return ``J^T D J``."""
    _, _, jacobian, curvature, slope = linear
    if len(curvature.shape) > len(slope.shape):
        return transposed(_flat(jacobian)) @ _flat(curvature @ jacobian)
    # A product of a matrix with itself takes half the time.
    root = _flat(array_namespace(curvature).sqrt(curvature)[..., None] * jacobian)
    return transposed(root) @ root


def _curved(linear: Linear) -> Array:
    """Return ``D J``."""
    _, _, jacobian, curvature, slope = linear
    if len(curvature.shape) > len(slope.shape):
        return curvature @ jacobian
    return curvature[..., None] * jacobian


def _pulled(definition: Definition, theta: Array, x: Array, g: Array) -> Array:
    """Return ``J^T g``, ``(*stack, P)``, from g by the outputs."""
    parameters, caches = dispatch(unpack, theta)(definition.layout, theta), list[Cache]()
    chain = linked(definition.layers, parameters, wants_input=False)
    forward_through(chain, x, None, caches)
    _, gradients = backward_through(chain, caches, g)
    pulled: Array = dispatch(pack, theta)(definition.layout, gradients, theta.shape[:-1])
    return pulled


def _times(curvature: Array, change: Array) -> Array:
    """Return ``D change``, ``(*stack, rows, n_out)``."""
    if len(curvature.shape) > len(change.shape):
        return _product(curvature, change)
    return curvature * change


def _rows_at_once(definition: Definition, theta: Array, rows: Rows) -> int:
    """Return the number of rows of a block: of a matrix's size, which it is added to, or more."""
    n_out = definition.outputs_shape(theta, rows.x)[-1]
    numbers: int = n_out * math.prod(theta.shape)
    cached, at_once = rows_in_cache(theta, numbers), _NUMBERS_AT_ONCE // numbers
    if cached is not None:
        at_once = min(at_once, _TIMES_THE_CACHE * cached)
    return max(at_once, definition.size // n_out, 1)


def _flat(jacobian: Array) -> Array:
    """Return ``(*stack, rows, n_out, P)`` as ``(*stack, rows * n_out, P)``."""
    *stack, rows, n_out, size = jacobian.shape
    return array_namespace(jacobian).reshape(jacobian, (*stack, rows * n_out, size))


def _joined(slope: Array) -> Array:
    """Return ``(*stack, rows, n_out)`` as ``(*stack, rows * n_out)``."""
    *stack, rows, n_out = slope.shape
    return array_namespace(slope).reshape(slope, (*stack, rows * n_out))


def _penalty(definition: Definition, theta: Array, l2: Strength) -> tuple[Array, Array]:
    """Return ``l2 m`` and ``l2 m theta``, ``(..., P)``."""
    if l2 is None:
        zeros = array_namespace(theta).zeros_like(theta)
        return zeros, zeros
    strength = l2 if isinstance(l2, float) else l2[..., None]
    decay = strength * weight_mask(definition.layout, theta)
    return decay, decay * theta


def _product(matrix: Array, vector: Array) -> Array:
    return (matrix @ vector[..., None])[..., 0]


def _solved(matrix: Array, right: Array) -> Array:
    return array_namespace(matrix).linalg.solve(matrix, right[..., None])[..., 0]
