"""Checking a gradient against numeric derivatives, and saying what is wrong with it."""

from backprop_xp.gradient_check.api import (
    assert_gradient,
    check_gradient,
    check_jacobian,
    check_layer,
    check_loss,
    check_network,
)
from backprop_xp.gradient_check.report import GradientCheckError, GradientReport

__all__ = [
    "GradientCheckError",
    "GradientReport",
    "assert_gradient",
    "check_gradient",
    "check_jacobian",
    "check_layer",
    "check_loss",
    "check_network",
]
