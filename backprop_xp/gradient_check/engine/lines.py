"""Straight lines through the point, and the record of the numeric derivatives along them."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.engine.analytic import AnalyticDerivative, AnalyticGradient
from backprop_xp.gradient_check.engine.constants import GOLDEN, LEAST_DIGITS, LEAST_TERM
from backprop_xp.gradient_check.inputs.functions import Function


class NumericDerivative(NamedTuple):
    """Numeric derivatives ``(K, M)`` along K lines: value, error bar, and one-sided slopes.

    At a kink the slopes stay apart as the step shrinks, and the bar is theirs. Elsewhere both equal
    the value. ``step`` is the step that was used, relative to the line's scale.
    """

    value: np.ndarray
    bar: np.ndarray
    left: np.ndarray
    right: np.ndarray
    step: np.ndarray

    @property
    def is_kinked(self) -> np.ndarray:
        """Whether the one-sided slopes stay apart."""
        return np.asarray(self.left != self.right)

    @property
    def is_steep(self) -> np.ndarray:
        """Whether the one-sided slopes grow without limit, as at a cusp."""
        return np.asarray(self.is_kinked & np.isinf(self.left))

    def select(self, lines: np.ndarray) -> "NumericDerivative":
        """Return the derivatives along some of the lines."""
        return NumericDerivative(*(part[lines] for part in self))

    def with_lines(self, lines: np.ndarray, other: "NumericDerivative") -> "NumericDerivative":
        """Return the derivatives, with those along some of the lines replaced."""
        parts = [part.copy() for part in self]
        for part, replacement in zip(parts, other, strict=True):
            part[lines] = replacement
        return NumericDerivative(*parts)

    def where(self, chosen: np.ndarray, other: "NumericDerivative") -> "NumericDerivative":
        """Return the derivatives, with the chosen ones ``(K, M)`` replaced."""
        return NumericDerivative(
            *(np.where(chosen, b, a) for a, b in zip(self, other, strict=True))
        )


@dataclass(frozen=True)
class Lines:
    """K lines through the point: along entries, or a single one along a direction.

    ``columns (K,)`` are the indices of the entries, in ascending order; there are none along a
    ``direction (P,)``. ``gradient`` is the analytic gradient at the point.
    """

    gradient: AnalyticGradient
    columns: np.ndarray = field(default_factory=lambda: np.arange(0))
    direction: np.ndarray | None = None

    @property
    def function(self) -> Function:
        """The function around the point."""
        return self.gradient.function

    @property
    def kind(self) -> str:
        """The key of the lines' default tolerance."""
        return "entries" if self.direction is None else "directions"

    @cached_property
    def scale(self) -> np.ndarray:
        """The length ``(K,)`` of a step of 1."""
        if self.direction is not None:
            return np.ones(1)
        return np.asarray(GOLDEN * 2.0 ** np.round(np.log2(self.gradient.scale[self.columns])))

    @cached_property
    def norm(self) -> np.ndarray:
        """The norm ``(1, M)`` of the terms of a derivative along a direction, 0 along entries."""
        return np.zeros((1, 1)) if self.direction is None else self.gradient.norm(self.direction)

    @cached_property
    def analytic(self) -> AnalyticDerivative:
        """The analytic derivatives along the lines."""
        gradient, direction = self.gradient, self.direction
        return gradient.at(self.columns) if direction is None else gradient.along(direction)

    @property
    def rungs(self) -> int:
        """The number of steps, each a quarter of the previous one, down to the rounding error.

        There are twice as many where an entry is 0, since its perturbation is not rounded.
        """
        perturbed = self.columns if self.direction is None else self.direction != 0.0
        has_zero = np.any(self.function.x[perturbed] == 0.0)
        digits = max(LEAST_DIGITS, -math.log2(self.function.epsilon))
        return (round(digits / 2.0) - 1) * (2 if has_zero else 1)

    def select(self, lines: np.ndarray) -> "Lines":
        """Return some of the lines."""
        return self if self.direction is not None else replace(self, columns=self.columns[lines])

    def through(self, gradient: AnalyticGradient) -> "Lines":
        """Return the same lines with another analytic gradient, perhaps at another point."""
        return replace(self, gradient=gradient)

    def probe(self, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the values ``(S, K, M)`` at real or imaginary steps ``(S, K)``.

        Returns the rounded steps ``(S, K, 1)`` as well, and what the rounding of the perturbed
        point changes in the values.
        """
        function, columns = self.function, self.columns
        if self.direction is None:
            x = function.x[columns]
            perturbed = function.round(x + steps)
            values = function.perturbed(np.repeat(columns, len(steps)), perturbed.T.reshape(-1))
            values = np.swapaxes(values.reshape(len(columns), len(steps), -1), 0, 1)
            return values, (perturbed - x).real[:, :, None], np.zeros(1)
        # Every entry of the perturbed point is rounded. To first order the gradient gives the
        # change; an error of second order matters only if the gradient is wrong.
        found, changes, slope = [], [], self.gradient.finite
        for step in steps.reshape(-1):
            perturbed = function.round(function.x + step * self.direction)
            found.append(function.values([perturbed])[0])
            changes.append((perturbed - function.x - step * self.direction).real @ slope)
        shape = (*steps.shape, -1)
        return np.reshape(found, shape), steps.real[:, :, None], np.reshape(changes, shape)


def long_direction(gradient: AnalyticGradient) -> np.ndarray:
    """Return a random direction ``(P,)`` whose entries are near 1, or as large as their scale."""
    draw = np.random.default_rng(gradient.function.options["seed"])
    size = np.maximum(gradient.scale, 1.0) * draw.uniform(0.5, 1.0, gradient.scale.size)
    signs = draw.uniform(-1.0, 1.0, gradient.scale.size)
    return gradient.function.inwards(np.copysign(size * size.size**-0.25, signs))


def random_direction(gradient: AnalyticGradient, number: int) -> np.ndarray:
    """Return random direction ``number``, ``(P,)``: number 1 has the signs of the gradient.

    No entry is near 0, so that every wrong one shows. The step of an entry is at most its scale,
    and becomes shorter with the number of entries.
    """
    scale, function = gradient.scale, gradient.function
    generator = np.random.default_rng([function.options["seed"], number])
    signs = drawn = generator.uniform(-1.0, 1.0, scale.size)
    if number == 1:
        slope = gradient.finite.sum(axis=1)
        signs = np.where(slope == 0.0, drawn, slope)
    terms = np.abs(gradient.finite * scale[:, None]).max(axis=1)
    terms = np.maximum(terms, LEAST_TERM * terms.max())
    weights = terms.min() / terms if terms.max() > 0.0 else np.ones_like(terms)
    weights *= scale * float(scale.size) ** -0.25
    return function.inwards(np.copysign(weights * (0.5 + 0.5 * np.abs(drawn)), signs))
