"""The minimum of least squares, and the influence of readings on it: the delta method.

H is the Gauss-Newton matrix, J has the derivatives of the residuals by theta and D the curvature of
the loss; n stands for the residuals of the readings. Noise ``dy`` in the readings moves the minimum
by ``K dy`` with ``K = H^-1 J_n^T D_n``, and their fitted values by ``S dy`` with ``S = J_n K``.
"""

from collections.abc import Sequence
from typing import NamedTuple

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    gather,
    transposed,
    with_diagonal,
)
from backprop_xp.networks.derivatives.gauss_newton import Linear


class Minimum(NamedTuple):
    """The objective around theta: the least squares of ``A change + b``.

    The rows of A are those of J times the ``root`` of their curvature, and the penalty's. With
    columns of length 1, by ``scale``, A is ``left / inverse @ right``: its singular value
    decomposition, without what rounding alone makes. ``errors`` are the residuals less their
    targets, and ``step`` is the next step of Gauss and Newton.
    """

    root: Array
    errors: Array
    left: Array
    inverse: Array
    right: Array
    scale: Array
    step: Array

    @classmethod
    def of(cls, theta: Array, linear: Linear, decay: Array | None) -> "Minimum":
        """Return that of linearized rows and the penalty's second derivatives, ``decay``."""
        xp, axes = array_namespace(theta), len(theta.shape) - 1
        jacobian, curvature, slope = (
            xp.reshape(part, (*part.shape[:axes], -1, *part.shape[axes + 2 :]))
            for part in (linear.jacobian, linear.curvature, linear.slope)
        )
        root, errors = xp.sqrt(curvature), slope * inverse_or_zero(curvature)
        a, b = root[..., None] * jacobian, root * errors
        if decay is not None:
            own = xp.broadcast_to(xp.sqrt(decay), theta.shape)
            zeros = xp.zeros((*theta.shape, theta.shape[-1]), dtype=a.dtype, device=device_of(a))
            a = xp.concat([a, with_diagonal(zeros, own)], axis=-2)
            b = xp.concat([b, own * theta], axis=-1)
        length = xp.sqrt(xp.sum(a * a, axis=-2))
        scale = length + xp.astype(length == 0.0, a.dtype)
        left, values, right = xp.linalg.svd(a / scale[..., None, :], full_matrices=False)
        least = values[..., :1] * (max(a.shape[-2:]) * xp.finfo(a.dtype).eps)
        values = xp.where(values > least, values, xp.zeros_like(values))
        inverse = inverse_or_zero(values)
        left = left * (values * inverse)[..., None, :]
        along = inverse * (transposed(left) @ b[..., None])[..., 0]
        step = -(transposed(right) @ along[..., None])[..., 0] / scale
        return cls(root, errors, left, inverse, right, scale, step)

    def influence(self, at: Array, times: Sequence[float]) -> "Influence":
        """Return the influence of the readings at these rows of J, each ``times`` there."""
        xp, rows, root = array_namespace(self.root), gather(self.left, at, -2), self.root
        root = gather(root, at, -1)
        weight = root * xp.asarray(times, dtype=root.dtype, device=device_of(root))
        return Influence(self, rows / root[..., None], rows * weight[..., None])


class Influence(NamedTuple):
    """The products that K and S are: ``S = over @ scaled^T``, and K has ``scaled^T``.

    K is huge along what no residual decides about. There a product with its covariance would
    subtract equal numbers, so that K is never computed.
    """

    minimum: Minimum
    over: Array
    scaled: Array

    def traces(self) -> tuple[Array, Array]:
        """Return the traces of S and of S^T S, ``(*stack,)``."""
        xp = array_namespace(self.over)
        over, scaled = (transposed(part) @ part for part in (self.over, self.scaled))
        trace = xp.sum(self.over * self.scaled, axis=(-2, -1))
        return trace, xp.sum(over * scaled, axis=(-2, -1))

    def on(self, jacobian: Array) -> Array:
        """Return the rows of a Jacobian, ``(..., m, n)``, times K: one column for each reading.

        The derivatives are by the first n entries of theta.
        """
        return (self._along(jacobian) * self.minimum.inverse[..., None, :]) @ transposed(
            self.scaled
        )

    def undetermined(self, jacobian: Array) -> Array:
        """Return which rows of a Jacobian, ``(..., m, P)``, no residual decides about.

        Their part along the directions that ``Minimum`` leaves out would outweigh the rest, even
        with the largest singular value that is left out.
        """
        _, _, left, inverse, right, scale, _ = self.minimum
        xp, along = array_namespace(jacobian), self._along(jacobian)
        kept = xp.astype(inverse > 0.0, inverse.dtype)[..., None, :]
        lost = jacobian / scale[..., None, :] - (along * kept) @ right
        most = max(left.shape[-2], right.shape[-1]) * xp.finfo(right.dtype).eps
        largest = inverse_or_zero(inverse[..., :1])
        return lengths(lost) > most * largest * lengths(along * inverse[..., None, :])

    def _along(self, jacobian: Array) -> Array:
        """Return the rows of a Jacobian along the right singular vectors."""
        n = jacobian.shape[-1]
        right, scale = self.minimum.right[..., :n], self.minimum.scale[..., None, :n]
        return (jacobian / scale) @ transposed(right)


def lengths(rows: Array) -> Array:
    """Return the lengths of rows, ``(..., m)``."""
    xp = array_namespace(rows)
    return xp.sqrt(xp.sum(rows * rows, axis=-1))


def inverse_or_zero(values: Array) -> Array:
    """Return 1 / values, and 0 for 0."""
    zeros = array_namespace(values).astype(values == 0.0, values.dtype)
    return (1.0 - zeros) / (values + zeros)
