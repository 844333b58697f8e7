"""Checking a gradient against numeric derivatives, and saying what is wrong with it."""

from backprop_xp.gradient_check.check import assert_gradient, check_gradient, check_network
from backprop_xp.gradient_check.pieces import check_layer, check_loss
from backprop_xp.gradient_check.report import GradientCheckError, GradientReport

__all__ = [
    "GradientCheckError",
    "GradientReport",
    "assert_gradient",
    "check_gradient",
    "check_layer",
    "check_loss",
    "check_network",
]
