"""Calls for mypy: the types that it infers for the gradient checks, and its errors.

The session typecheck reads this file; an ignore that hides no error is an error itself.
"""

from typing import Any, assert_type

import backprop_xp as bx

network = bx.mlp([2, 4, 1])
theta = network.initialize(seed=0)
x, y = bx.asarray([[0.0, 1.0]]), bx.asarray([[1.0]])


def value(p: Any, *args: Any) -> Any:
    return p[0] ** 2 + p[1]


def gradient(p: Any, *args: Any) -> Any:
    return [2.0 * p[0], 1.0]


def inside(d: Any) -> Any:
    return d


report = bx.check_gradient(
    value,
    gradient,
    [1.0, 2.0],
    args=(3.0,),
    argnums=(0, 1),
    method="directional",
    directions=2,
    tolerance=1e-5,
    scale=[1.0, 0.1],
    bounds=(None, [2.0, 3.0]),
    tangent=inside,
    mask=[True, False],
    points=[[3.0, 4.0]],
    samples=2,
    seed=1,
    max_evaluations=100,
    max_seconds=1.5,
    max_memory=2**20,
    batched=False,
)
assert_type(report, bx.GradientReport)
assert_type(bx.check_jacobian(gradient, value, [1.0, 2.0], seed=1), bx.GradientReport)
assert_type(bx.check_vjp(value, gradient, 1.0, 2.0, max_seconds=1), bx.GradientReport)
assert_type(bx.check_jvp(value, gradient, 1.0, 2.0, samples=1), bx.GradientReport)
assert_type(bx.check_hessian(gradient, value, [1.0], bounds=(0, None)), bx.GradientReport)
assert_type(bx.check_hvp(gradient, value, [1.0], args=(1,), seed=1), bx.GradientReport)
assert_type(bx.check_network(network, theta, x, y, rng=1, mask=theta), bx.GradientReport)
assert_type(bx.check_layer(bx.LayerNorm(3), x, method="centered"), bx.GradientReport)
assert_type(bx.check_loss("huber", x, y, tolerance=1e-3), bx.GradientReport)
assert_type(bx.check_minimize(value, [1.0], jac=gradient, seed=1), bx.ProblemReport)
assert_type(bx.check_least_squares(value, [1.0], gradient, bounds=(0, 9)), bx.ProblemReport)
assert_type(bx.check_root(value, [1.0], jac=gradient, samples=0), bx.ProblemReport)
bx.assert_gradient(value, gradient, [1.0, 2.0], args=(3.0,), argnums=0, seed=1)

bx.check_gradient(value, gradient, 1.0, method="central")  # type: ignore[arg-type]
bx.check_gradient(value, gradient, 1.0, tol=1e-3)  # type: ignore[call-arg]
bx.check_jacobian(value, gradient, 1.0, directions=1.5)  # type: ignore[arg-type]
bx.check_vjp(value, gradient, 1.0, bounds=3.0)  # type: ignore[arg-type]
bx.check_jvp(value, gradient, 1.0, args=(1.0,))  # type: ignore[call-arg]
bx.check_hessian(value, gradient, 1.0, seed="0")  # type: ignore[arg-type]
bx.check_hvp(value, gradient, 1.0, max_memory=None)  # type: ignore[arg-type]
bx.check_network(network, theta, x, y, batched="yes")  # type: ignore[arg-type]
bx.check_layer(bx.LayerNorm(3), x, step=1e-3)  # type: ignore[call-arg]
bx.check_loss("huber", x, y, samples=None)  # type: ignore[arg-type]
bx.check_minimize(value, [1.0], jac=gradient, sample=1)  # type: ignore[call-arg]
bx.check_least_squares(value, [1.0], gradient, seed=None)  # type: ignore[arg-type]
bx.check_root(value, [1.0], jac=gradient, points=1.0)  # type: ignore[arg-type]
bx.assert_gradient(value, gradient, 1.0, tolerance="1e-3")  # type: ignore[arg-type]
bx.assert_gradient(value, gradient, 1.0, seeds=0)  # type: ignore[call-arg]
