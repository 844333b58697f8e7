"""The gradient check: a comparison with numeric derivatives, and a diagnosis of mistakes."""

from backprop_xp.gradient_check.api import (
    assert_gradient,
    check_gradient,
    check_jacobian,
    check_layer,
    check_loss,
    check_network,
)
from backprop_xp.gradient_check.numeric import (
    numeric_gradient,
    numeric_hessian,
    numeric_jacobian,
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
    "numeric_gradient",
    "numeric_hessian",
    "numeric_jacobian",
]
