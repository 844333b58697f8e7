"""The gradient check: a comparison with numeric derivatives, and a diagnosis of mistakes."""

from backprop_xp.gradient_check.api import (
    assert_gradient,
    check_gradient,
    check_hessian,
    check_hvp,
    check_jacobian,
    check_jvp,
    check_vjp,
)
from backprop_xp.gradient_check.network_checks import check_layer, check_loss, check_network
from backprop_xp.gradient_check.numeric import (
    numeric_gradient,
    numeric_hessian,
    numeric_jacobian,
)
from backprop_xp.gradient_check.optimization import (
    ProblemReport,
    check_least_squares,
    check_minimize,
    check_root,
)
from backprop_xp.gradient_check.report import GradientCheckError, GradientReport

__all__ = [
    "GradientCheckError",
    "GradientReport",
    "ProblemReport",
    "assert_gradient",
    "check_gradient",
    "check_hessian",
    "check_hvp",
    "check_jacobian",
    "check_jvp",
    "check_layer",
    "check_least_squares",
    "check_loss",
    "check_minimize",
    "check_network",
    "check_root",
    "check_vjp",
    "numeric_gradient",
    "numeric_hessian",
    "numeric_jacobian",
]


def __dir__() -> list[str]:
    return __all__
