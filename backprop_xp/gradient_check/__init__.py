"""Checking a gradient against numeric derivatives, entry by entry."""

from backprop_xp.gradient_check.check import assert_gradient, check_gradient, check_network
from backprop_xp.gradient_check.report import GradientCheckError, GradientReport

__all__ = [
    "GradientCheckError",
    "GradientReport",
    "assert_gradient",
    "check_gradient",
    "check_network",
]
