"""The analytic gradient, with an error bar for its own rounding.

Near an optimum the gradient is a sum of terms that cancel, with the rounding error of the terms.
Sizes are compared in scaled variables, derivative times scale, so that units cancel.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.engine.constants import LARGEST
from backprop_xp.gradient_check.inputs.functions import Function


class AnalyticDerivative(NamedTuple):
    """Analytic derivatives ``(K, M)`` along K lines, with their error bars."""

    value: np.ndarray
    bar: np.ndarray


class AnalyticGradient(NamedTuple):
    """The analytic gradient ``(P, M)`` of a function, and its error bar.

    ``scale (P,)`` is the size at which the function varies along each entry.
    """

    function: Function
    scale: np.ndarray
    value: np.ndarray
    bar: np.ndarray

    @property
    def finite(self) -> np.ndarray:
        """The gradient, with zeros in place of non-finite entries."""
        return np.where(np.isfinite(self.value), self.value, 0.0)

    def at(self, columns: np.ndarray) -> AnalyticDerivative:
        """Return the derivatives along some entries."""
        return AnalyticDerivative(self.value[columns], self.bar[columns])

    def along(self, direction: np.ndarray) -> AnalyticDerivative:
        """Return the derivative ``(1, M)`` along a direction ``(P,)``."""
        value = np.where(direction[:, None] == 0.0, 0.0, self.value)
        return AnalyticDerivative(
            (direction @ value)[None, :], _norm(direction[:, None] * self.bar)
        )

    def norm(self, direction: np.ndarray) -> np.ndarray:
        """Return the norm ``(1, M)`` of the terms of the derivative along a direction."""
        least = 8.0 * self.function.epsilon * np.abs(self.function.fx)
        return np.asarray(np.maximum(_norm(direction[:, None] * self.finite), least))

    def sample(self, count: int) -> np.ndarray:
        """Return the indices of some entries, in ascending order."""
        draw = np.random.default_rng(self.function.options["seed"])
        return np.sort(draw.permutation(self.scale.size)[:count])

    def largest(self, derivatives: np.ndarray) -> np.ndarray:
        """Return, for each entry, the largest scaled derivative ``(P, M)`` of its tensor."""
        scaled, largest = derivatives * self.scale[:, None], np.zeros_like(derivatives)
        for tensor in self.function.point.tensors:
            largest[tensor.part] = scaled[tensor.part].max(axis=0, initial=0.0)
        return np.asarray(largest / self.scale[:, None])


def analytic_gradient(function: Function) -> AnalyticGradient:
    """Return the gradient at the point; its bar is the rounding error of its tensor's largest."""
    scale = scale_of(function)
    gradient = AnalyticGradient(function, scale, function.gx, np.zeros_like(function.gx))
    largest = gradient.largest(np.abs(gradient.finite))
    return gradient._replace(bar=LARGEST * function.gradient_epsilon * largest)


def scale_of(function: Function) -> np.ndarray:
    """Return the size ``(P,)`` at which the function is assumed to vary along each entry.

    Unless it is given, it is the entry's own size, at least ``least_scale`` times its tensor's root
    mean square. For an entry of 0 it is that root mean square, or 1.
    """
    if function.problem.scale is not None:
        return function.problem.scale
    scale: np.ndarray = np.abs(function.x)
    for tensor in function.point.tensors:
        part = scale[tensor.part]
        typical = _norm(part[:, None])[0, 0] / max(part.size, 1) ** 0.5 or 1.0
        least = np.where(part == 0.0, typical, function.problem.least_scale * typical)
        scale[tensor.part] = np.maximum(part, least)
    return scale


def _norm(terms: np.ndarray) -> np.ndarray:
    """Return the norms ``(1, M)`` of terms ``(P, M)``, scaled so that none overflows."""
    largest = np.abs(terms).max(axis=0, initial=0.0, keepdims=True)
    safe = np.where((largest > 0.0) & np.isfinite(largest), largest, 1.0)
    return np.asarray(safe * np.sqrt(np.sum((terms / safe) ** 2, axis=0, keepdims=True)))
