"""The check of a loss's curvature, its second derivative by the outputs."""

import math

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.gradient_check.entrances.products import vjp_problem
from backprop_xp.gradient_check.inputs.points import Point
from backprop_xp.gradient_check.inputs.problems import CheckOptions
from backprop_xp.gradient_check.verdict.run import check_problem
from backprop_xp.networks.losses.loss import Loss

# Terms of a curvature that cancel leave at most so many roundings.
_ROUNDED = 64.0


def curvature_mistake(
    loss: Loss, point: Point, targets: Array, options: CheckOptions
) -> str | None:
    """Return what is wrong with a loss's curvature at its outputs, the point; None if nothing is.

    It must be positive semidefinite. It must be the derivative of the gradient, or satisfy
    ``gradient = curvature (outputs - targets)``.
    """
    curvature_of = loss.curvature
    if curvature_of is None:
        return None
    (outputs,) = point.restore(point.flat)
    given = curvature_of(outputs, targets)
    elsewhere = curvature_of(0.0 * outputs, targets)
    fault = curvature_fault(given, loss.value(outputs, targets), elsewhere)
    if fault is not None:
        return fault
    curvature = _matrices(to_host(given).astype(to_host(outputs).dtype), outputs.shape)
    if _is_weight(loss, outputs, targets, curvature):
        return None
    problem = vjp_problem(
        point,
        lambda arrays: loss.gradient(arrays[0], targets),
        lambda arrays, u: [_times(curvature_of(arrays[0], targets), u)],
        options,
        is_one=True,
    )
    report = check_problem(problem)
    errors = [tensor.absolute_error for tensor in report.tensors]
    if report.verdict != "fail" or max(errors, default=math.inf) <= _rounding(elsewhere):
        return None
    worst = report.worst[0]
    return (
        "its curvature is not the derivative of its gradient: along random weights u, d(u gradient)"
        f"/d outputs{list(worst.index)} is {worst.numeric:.6g}, but curvature gives "
        f"{worst.analytic:.6g}"
    )


def curvature_fault(curvature: Array, value: Array, elsewhere: Array) -> str | None:
    """Return what is wrong with a curvature, beside the loss's value of each row; None if nothing.

    It must be finite where the value is, and positive semidefinite. The curvature is ``(..., batch,
    n_out)`` or ``(..., batch, n_out, n_out)``, the value ``(..., batch)``. ``elsewhere``, the
    curvature at outputs of 0, has the size of its terms: at confident outputs they cancel.
    """
    values = to_host(value)
    found = to_host(curvature).astype(values.dtype)[np.isfinite(values)]
    if not np.isfinite(found).all():
        return "its curvature is not finite at outputs where its value is"
    if len(curvature.shape) > len(value.shape) + 1:
        found = np.linalg.eigvalsh(0.5 * (found + np.swapaxes(found, -1, -2)))
    least = np.min(found, initial=0.0)
    slack = math.sqrt(np.finfo(found.dtype).eps) * np.max(np.abs(found), initial=0.0)
    if least < -max(slack, _rounding(elsewhere)):
        return f"its curvature has the eigenvalue {least:.3g}, but none below 0 is valid"
    return None


def _rounding(curvature: Array) -> float:
    """Return the rounding of terms as large as a curvature."""
    found = to_host(curvature)
    largest = np.max(np.abs(found), where=np.isfinite(found), initial=0.0)
    return float(_ROUNDED * np.finfo(np.result_type(found, np.float16)).eps * largest)


def _is_weight(loss: Loss, outputs: Array, targets: Array, curvature: np.ndarray) -> bool:
    """Whether the gradient is the curvature times the residual, to half of the digits."""
    gradient = to_host(loss.gradient(outputs, targets))
    residual = to_host(outputs - targets) if outputs.shape == targets.shape else None
    if residual is None:
        return False
    product = (curvature @ residual[..., None])[..., 0]
    slack = math.sqrt(np.finfo(gradient.dtype).eps) * np.max(np.abs(gradient), initial=0.0)
    return np.allclose(product, gradient, rtol=0.0, atol=slack)


def _matrices(curvature: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a curvature as one matrix for each sample."""
    unit: np.ndarray = np.eye(shape[-1], dtype=curvature.dtype)
    return curvature if curvature.ndim > len(shape) else curvature[..., None] * unit


def _times(curvature: Array, u: Array) -> Array:
    """Return the products of each sample's curvature with its vector."""
    if len(curvature.shape) == len(u.shape):
        return curvature * u
    return (curvature @ u[..., None])[..., 0]
