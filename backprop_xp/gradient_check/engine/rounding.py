"""The rounding of derivatives, measured before a check calls a gradient wrong.

Rounding is what does not follow a smooth curve: the residual of a cubic through near points. A
forgotten term is smooth, so it is not taken for rounding. A derivative that is constant on these
points may be rounded off, as ``1 - tanh(x)**2`` is to 1e-16 of 1. Its terms have the size that the
gradient has elsewhere.
"""

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticGradient
from backprop_xp.gradient_check.engine.constants import (
    CURVED,
    ELSEWHERE,
    NATURAL,
    NEAR,
    ROUNDING_SAFETY,
    SHORTER,
)
from backprop_xp.gradient_check.engine.noise import unexplained_by_one
from backprop_xp.gradient_check.inputs.functions import Function


def rounding_bar(derivatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a bar for the rounding of derivatives ``(7, ...)`` at near points.

    Also returns whether they are constant: then the bar of 0 does not show their rounding.
    """
    with np.errstate(all="ignore"):
        bar = ROUNDING_SAFETY * unexplained_by_one(derivatives, NEAR.tolist(), 4)
        distinct = np.sum(np.diff(np.sort(derivatives, axis=0), axis=0) > 0.0, axis=0)
    return np.where(np.isfinite(bar), bar, 0.0), distinct < 2


def with_measured_rounding(
    gradient: AnalyticGradient, steps: np.ndarray, is_lost: np.ndarray | bool = False
) -> AnalyticGradient:
    """Return a gradient with its rounding in its bar; value is smooth over the ``steps (P,)``.

    ``is_lost (P, M)``: terms may have been rounded off, since one derivative vanishes beside the
    other. That may also have happened where the gradient is constant.
    """
    bar, is_constant = _near(gradient, steps)
    if np.any(is_lost | is_constant):
        natural = NATURAL * gradient.function.gradient_epsilon * _natural_size(gradient)
        bar = np.where(is_lost | is_constant, np.fmax(natural, bar), bar)
    return gradient._replace(bar=np.fmax(gradient.bar, bar))


def without_curvature(
    gradient: AnalyticGradient, steps: np.ndarray, is_lost: np.ndarray
) -> AnalyticGradient:
    """Return a gradient without what shrinks with the distance in its bar: that is no rounding."""
    shorter, is_constant = _near(gradient, SHORTER * steps)
    is_curved = (gradient.bar > CURVED * shorter) & ~is_constant & ~is_lost
    return gradient._replace(bar=np.where(is_curved, shorter, gradient.bar))


def _near(gradient: AnalyticGradient, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the bar ``(P, M)`` from points up to some steps away, and where these are alike."""
    function = gradient.function
    signs = 1.0 - 2.0 * np.random.default_rng(2).integers(2, size=steps.size)
    longest = function.inwards(np.count_nonzero(steps) ** -0.5 * signs * steps)
    return rounding_bar(function.gradients([function.x + t * longest for t in NEAR]))


def _natural_size(gradient: AnalyticGradient) -> np.ndarray:
    """Return the size ``(P, M)`` of the terms of a gradient: the largest that it has elsewhere.

    The results of a tensor that depend on the same entry share its terms, as those of a
    factorization do. A term may also be as large as the value divided by the entry's scale; a
    result of 0 consists of terms as large as the others of its tensor.
    """
    function = gradient.function
    found = np.abs(function.gradients([part * function.x for part in ELSEWHERE]))
    found = np.where(np.isfinite(found), found, 0.0).max(axis=0)
    found = np.fmax(found, np.abs(gradient.finite))
    for tensor in function.results.tensors if function.results is not None else ():
        found[:, tensor.part] = found[:, tensor.part].max(axis=1, keepdims=True, initial=0.0)
    return np.asarray(np.fmax(found, _results(function) / gradient.scale[:, None]))


def _results(function: Function) -> np.ndarray:
    """Return the sizes ``(M,)`` of the results; a 0 has that of the largest of its tensor."""
    results: np.ndarray = np.abs(function.fx)
    for tensor in function.results.tensors if function.results is not None else ():
        part = results[tensor.part]
        part[part == 0.0] = part.max(initial=0.0)
    return results
