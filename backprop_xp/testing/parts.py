"""The checks of the library's parts: the functions that each needs, and their results beside NumPy.

``parity`` checks a network and its steps; these check what is made of networks. The first one names
every missing function of the standard with the part that needs it, before any part fails. It also
names functions that take other arguments than the standard's.
"""

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import Array
from backprop_xp.networks.ensemble import predict, uncertainty
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.group_layers import group_rows
from backprop_xp.networks.equations.standard_errors import standard_errors
from backprop_xp.networks.mlp import mlp
from backprop_xp.networks.network import Network
from backprop_xp.testing.kit import TOLERANCES, Case, checks_of, expect
from backprop_xp.training.fit import fit
from backprop_xp.training.measures.metrics import METRICS
from backprop_xp.training.optimizers.lbfgs import LBFGS
from backprop_xp.training.optimizers.levenberg_marquardt import LevenbergMarquardt

# The functions of the standard, each with the first part that needs it.
FUNCTIONS = {
    "networks and their training": (
        "__array_namespace_info__ abs all any arange argmax asarray astype broadcast_arrays "
        "broadcast_to clip concat cos empty_like exp expm1 eye finfo floor full full_like iinfo "
        "isdtype isfinite isinf isnan log log1p matrix_transpose max maximum mean min minimum "
        "moveaxis ones ones_like permute_dims real reshape round sign sin sinh sqrt stack sum "
        "take tanh where zeros zeros_like"
    ),
    "equations and input gradients": "cosh hypot linspace pow squeeze",
    "standard errors": "linalg.svd",
    "Levenberg-Marquardt and L-BFGS": "flip linalg.diagonal linalg.solve triu vecdot",
    "metrics": "argsort cumulative_sum take_along_axis",
    "the gradient check": "imag",
    "the estimators": "sort",
}
# The arguments that the library passes by name.
ARGUMENTS = {
    "all": "axis",
    "any": "axis keepdims",
    "arange": "device dtype",
    "argmax": "axis keepdims",
    "argsort": "axis stable",
    "asarray": "copy device dtype",
    "astype": "copy",
    "concat": "axis",
    "cumulative_sum": "axis",
    "eye": "device dtype k",
    "flip": "axis",
    "full": "device dtype",
    "linalg.svd": "full_matrices",
    "linspace": "device",
    "max": "axis keepdims",
    "mean": "axis keepdims",
    "min": "axis keepdims",
    "ones": "device dtype",
    "sort": "axis",
    "squeeze": "axis",
    "stack": "axis",
    "sum": "axis keepdims",
    "take": "axis",
    "take_along_axis": "axis",
    "zeros": "device dtype",
}

_DRAW = np.random.default_rng(1)
_X, _Y = _DRAW.normal(size=(8, 2)), _DRAW.uniform(0.1, 0.9, size=(8, 2))
_NET = mlp([2, 3, 2], hidden="tanh", loss="half_squared_error", l2=0.1)
_THETA = _DRAW.normal(0.0, 0.7, size=(2, _NET.size))
# Scores with ties, and classes of which each has rows.
_SCORES = np.round(_DRAW.uniform(0.05, 0.95, size=(8, 6)), 1)
_LABELS = np.eye(6)[[0, 1, 2, 3, 4, 5, 0, 1]]
_POINTS = np.linspace(0.1, 1.0, 6)[:, None]
_SECOND_ORDER: dict[str, Callable[[], Any]] = {"LM": LevenbergMarquardt, "L-BFGS": LBFGS}


def _functions(case: Case) -> None:
    """Check that the namespace has the functions that the library calls, with their arguments."""
    xp, missing, others = case.backend.namespace(), [], []
    for part, names in FUNCTIONS.items():
        lacking = [name for name in names.split() if not callable(member(xp, name))]
        missing += [f"{part}: {', '.join(lacking)}"] if lacking else []
    for name, arguments in ARGUMENTS.items():
        lacking = _not_taken(member(xp, name), arguments.split())
        others += [f"{name}({', '.join(lacking)})"] if lacking else []
    faults = [f"functions of {'; of '.join(missing)}"] if missing else []
    faults += [f"the arguments {', '.join(others)}"] if others else []
    expect(not faults, f"the namespace lacks {'; '.join(faults)}")


def member(namespace: Any, name: str) -> Any:
    """Return the member of a dotted name, None without it."""
    for part in name.split("."):
        namespace = getattr(namespace, part, None)
    return namespace


def _not_taken(function: Any, arguments: list[str]) -> list[str]:
    """Return the arguments that a function's signature lacks, none if it shows no signature."""
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return []
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return []
    known = {one.name for one in parameters if one.kind is not one.POSITIONAL_ONLY}
    return [name for name in arguments if name not in known]


def _second_order(name: str, dtype: str, case: Case) -> None:
    """Check theta after two steps of a stack by full batches."""

    def compute(theta: Array, x: Array, y: Array) -> Array:
        return fit(_NET, theta, x, y, optimizer=_SECOND_ORDER[name](), epochs=2).theta

    case.require_computed(dtype, compute, _THETA, _X, _Y)


def _derivatives(dtype: str, case: Case) -> None:
    """Check the Gauss-Newton matrix, and first and second derivatives of the outputs."""

    def compute(theta: Array, x: Array, y: Array) -> list[object]:
        found = _NET.gauss_newton(theta, x, y)
        by_x = [_NET.input_jacobian(theta, x), _NET.input_hessian(theta, x)]
        return [*found[:2], *by_x, _NET.laplacian(theta, x, predict=True)]

    case.require_computed(dtype, compute, _THETA, _X, _Y)


def _equation(dtype: str, case: Case) -> None:
    """Check an equation with a group of readings and an unknown coefficient."""

    def compute(theta: Array, points: Array, readings: Array) -> list[object]:
        layers = mlp([1, 3, 1], hidden="tanh").layers
        unknown = {"k": 0.7}
        law = Equation(layers, lambda s: s.u_xx + s.k * s.xp.sin(s.u), "x", unknown=unknown)
        reading = Equation(layers, lambda s: s.u, "x", unknown=unknown)
        groups: dict[str, Any] = {
            "law": (law, points),
            "readings": (reading, points[:3, :], readings[:3, :]),
        }
        layer, x, y, weight = group_rows(groups)
        network = Network([layer], "mean_squared_error")
        theta = theta[:, : network.size]
        return [*network.loss_and_gradient(theta, x, y, sample_weight=weight)]

    case.require_computed(dtype, compute, _THETA, _POINTS, np.cos(_POINTS))


def _errors(dtype: str, case: Case) -> None:
    """Check the standard errors of a coefficient, at the least squares of a parabola."""

    def compute(theta: Array, points: Array, readings: Array) -> list[object]:
        layers = mlp([1, 1]).layers
        curve = Equation(layers, lambda s: s.u + s.k * s.x**2, "x", unknown={"k": 0.0})
        network = Network([curve], "mean_squared_error")
        found = standard_errors(network, theta, points, readings, measured=[curve])
        return [found.unknown["k"], found.covariance, found.noise]

    powers = np.concatenate([_POINTS, _POINTS**0, _POINTS**2], axis=1)
    theta = np.linalg.lstsq(powers, np.cos(_POINTS)[:, 0])[0]
    case.require_computed(dtype, compute, theta, _POINTS, np.cos(_POINTS))


def _metrics(dtype: str, case: Case) -> None:
    """Check every metric, with ties among the scores."""

    def compute(scores: Array, labels: Array) -> list[Array]:
        return [metric(scores, labels, None) for metric in METRICS.values()]

    case.require_computed(dtype, compute, _SCORES, _LABELS)


def _ensemble(dtype: str, case: Case) -> None:
    """Check the mean, the spread and the entropies of a stack's predictions."""
    classes = mlp([2, 3, 2], hidden="tanh", loss="categorical_cross_entropy")

    def compute(theta: Array, x: Array) -> list[Array]:
        return [*predict(_NET, theta, x), *uncertainty(classes, theta, x)]

    case.require_computed(dtype, compute, _THETA, _X)


CHECKS = [
    *checks_of("parts", [_functions]),
    *checks_of("parts", [_second_order], _SECOND_ORDER, TOLERANCES),
    *checks_of("parts", [_derivatives, _equation, _errors, _metrics, _ensemble], TOLERANCES),
]
