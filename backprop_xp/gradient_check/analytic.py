"""The gradient that is claimed, with the error bar that its own rounding makes.

Near an optimum it is a sum of terms that cancel: its rounding is theirs, and can be as large as
what is left of it. Sizes are compared in scaled variables, a derivative times the size at which the
function varies along the entry, so that units cancel.
"""

from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.functions import SINGLE, Function, Host

# The rounding of its tensor's largest entry counts so many times, and that of the size that it has
# elsewhere: more of an entry in float32 beside a value in float64, which may sum a million rows.
_LARGEST = _NATURAL = 16.0
_SUMS = 2.0**14


class Claim(NamedTuple):
    """Claimed derivatives ``(K, M)`` along K lines, and their error bars.

    ``natural`` is what the bars grow by if the derivatives are what is left of larger terms.
    """

    value: Host
    bar: Host
    natural: Host


class Gradient(NamedTuple):
    """The claimed gradient ``(P, M)`` of a function, and its error bar.

    ``size (P,)`` are the entries' sizes. Once its rounding ``is_measured``, ``natural_size (P, M)``
    is the largest that the gradient is elsewhere, and ``precision (P, M)`` that of its numbers.
    """

    function: Function
    size: Host
    value: Host
    bar: Host
    natural_size: Host
    precision: Host
    is_measured: bool = False

    @property
    def finite(self) -> Host:
        """The gradient with zeros where it is not finite."""
        return np.where(np.isfinite(self.value), self.value, 0.0)

    def at(self, columns: Host) -> Claim:
        """Return what is claimed of some entries."""
        precision, size = self.precision[columns], self.natural_size[columns]
        sums = (precision == SINGLE) & (self.function.epsilon < SINGLE)
        natural = np.where(sums, _SUMS, _NATURAL) * precision * size
        return Claim(self.value[columns], self.bar[columns], natural)

    def along(self, direction: Host) -> Claim:
        """Return what is claimed of the derivative ``(1, M)`` along a direction ``(P,)``."""
        value = np.where(direction[:, None] == 0.0, 0.0, self.value)
        natural = _NATURAL * self.precision * self.natural_size
        bars = (_norm(direction[:, None] * bar) for bar in (self.bar, natural))
        return Claim((direction @ value)[None, :], *bars)

    def norm(self, direction: Host) -> Host:
        """Return the norm ``(1, M)`` of the terms of the derivative along a direction."""
        least = 8.0 * self.function.epsilon * np.abs(self.function.base)
        return np.maximum(_norm(direction[:, None] * self.finite), least)

    def largest(self, derivatives: Host) -> Host:
        """Return, for each entry, the largest of its tensor's derivatives ``(P, M)``, scaled."""
        scaled, largest = derivatives * self.size[:, None], np.zeros_like(derivatives)
        for tensor in self.function.problem.point.tensors:
            largest[tensor.part] = scaled[tensor.part].max(axis=0, initial=0.0)
        return largest / self.size[:, None]


def claimed_gradient(function: Function) -> Gradient:
    """Return the gradient at the point, its bar the rounding of its tensor's largest entry."""
    given = function.problem.size
    size = default_size(function) if given is None else given
    nothing = np.zeros_like(function.analytic)
    gradient = Gradient(function, size, function.analytic, nothing, nothing, nothing)
    largest = gradient.largest(np.abs(gradient.finite))
    return gradient._replace(bar=_LARGEST * function.gradient_epsilon * largest)


def default_size(function: Function) -> Host:
    """Return the size ``(P,)`` at which the function is taken to vary along each entry.

    That is the entry's own, and at least the problem's part of its tensor's root mean square; of an
    entry of 0 that itself, or 1.
    """
    size = np.abs(function.x)
    for tensor in function.problem.point.tensors:
        part = size[tensor.part]
        typical = _norm(part[:, None])[0, 0] / max(part.size, 1) ** 0.5 or 1.0
        least = np.where(part == 0.0, typical, function.problem.least_size * typical)
        size[tensor.part] = np.maximum(part, least)
    return size


def _norm(terms: Host) -> Host:
    """Return the norms ``(1, M)`` of terms ``(P, M)``, the largest taken out: nothing overflows."""
    largest = np.abs(terms).max(axis=0, initial=0.0, keepdims=True)
    safe = np.where((largest > 0.0) & np.isfinite(largest), largest, 1.0)
    return safe * np.sqrt(np.sum((terms / safe) ** 2, axis=0, keepdims=True))
