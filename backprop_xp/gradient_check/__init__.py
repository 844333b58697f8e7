"""The gradient check: a comparison with numeric derivatives, and a diagnosis of mistakes.

To learn how a check works, read ``verdict.run``, ``verdict.comparison``, ``engine.derivatives`` and
``verdict.judge``. The folders, each of which imports only those before it:

- ``inputs``: the point, the problem, and the calls of the caller's functions;
- ``engine``: derivatives with error bars, analytic and numeric;
- ``verdict``: the comparison, the judge, the diagnosis, and the report;
- ``entrances``: the functions that one calls.
"""

from backprop_xp.gradient_check.entrances.api import (
    assert_gradient,
    check_gradient,
    check_hessian,
    check_hvp,
    check_jacobian,
    check_jvp,
    check_vjp,
)
from backprop_xp.gradient_check.entrances.network_checks import (
    check_layer,
    check_loss,
    check_network,
)
from backprop_xp.gradient_check.entrances.numeric import (
    numeric_gradient,
    numeric_hessian,
    numeric_jacobian,
)
from backprop_xp.gradient_check.entrances.optimization import (
    ProblemReport,
    check_least_squares,
    check_minimize,
    check_root,
)
from backprop_xp.gradient_check.verdict.report import GradientCheckError, GradientReport

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
