"""Checking a gradient: the public functions."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, require_floating, to_host
from backprop_xp.checks import integer, nearest, real, unravel
from backprop_xp.complex_safe import real_part
from backprop_xp.gradient_check.engines import ENGINES, Numeric, along
from backprop_xp.gradient_check.points import Point, Tensor, flatten, flatten_gradient
from backprop_xp.gradient_check.report import GradientReport, Row
from backprop_xp.layout import lay_out
from backprop_xp.network import Network
from backprop_xp.random import bits

# What a right gradient stays below with room to spare, and the common mistakes (a sign, a factor,
# a missing term) exceed by far: (method, float64?) -> relative error.
_TOLERANCES = {
    ("complex_step", True): 1e-10,
    ("complex_step", False): 1e-4,
    ("centered", True): 1e-6,
    ("centered", False): 1e-2,
}
_WORST_ROWS = 5


class _Problem(NamedTuple):
    """A value and its analytic gradient on the flat point, and how many copies go at once."""

    point: Point
    value: Callable[[Array], Array]
    gradient: Callable[[], Any]
    tensors: tuple[Tensor, ...]
    copies: int


def check_gradient(
    value: Callable[[Any], Any],
    gradient: Callable[[Any], Any],
    point: Any,
    *,
    method: str = "auto",
    tolerance: float | None = None,
    seed: int = 0,
    max_memory: int = 16 * 2**20,
    batched: bool | None = None,
) -> GradientReport:
    """Compare ``gradient(point)`` with numeric derivatives of ``value(point)``, entry by entry.

    ``point`` is an array of any shape, or a list or dict of arrays, of any array library;
    ``value`` returns a scalar, ``gradient`` arrays like the point. ``method`` is
    ``"complex_step"`` (exact to rounding, for an analytic value that accepts complex arrays),
    ``"centered"``, or ``"auto"``: the complex step where value proves to be fit for it, else the
    centred difference. ``seed`` draws the direction of that proof.

    ``batched=True`` promises that value takes copies stacked along a new first axis and returns
    one number for each; None finds out by trying two copies. ``max_memory`` bounds, in bytes, the
    copies made at once.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> x = np.array([0.5, -2.0, 3.0])
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 3 * p**2, x).verdict)
    pass
    >>> print(bx.check_gradient(lambda p: (p**3).sum(), lambda p: 2 * p**2, x).verdict)
    fail
    """
    flat_point = flatten(point)
    copy_bytes = flat_point.flat.shape[-1] * _item_bytes(flat_point.flat)
    budget = integer(max_memory, "max_memory")

    def one(flat: Array) -> Any:
        return value(flat_point.restore(flat))

    fits = _takes_stacks(one, flat_point.flat) if batched is None else batched
    problem = _Problem(
        flat_point,
        one if fits else functools.partial(_one_by_one, one),
        lambda: flatten_gradient(flat_point, gradient(point)),
        flat_point.tensors,
        max(1, budget // (4 * copy_bytes)) if fits else 1,
    )
    return _check(problem, method, tolerance, seed)


def check_network(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    sample_weight: Array | None = None,
    rng: Any = None,
    method: str = "auto",
    tolerance: float | None = None,
    seed: int = 0,
    max_memory: int = 16 * 2**20,
) -> GradientReport:
    """Compare ``network.loss_and_gradient`` with numeric derivatives of ``network.loss``.

    ``theta`` is one network's, ``(P,)``. The perturbed copies are a stack: one call evaluates as
    many as ``max_memory`` allows. With ``rng`` the dropout masks are fixed, and checked along.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> bx.check_network(network, theta, [[0, 1], [1, 1]], [[1], [0]]).passed
    True
    """
    require_floating(theta, "theta")
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network's, ({network.size},), is "
            "checked at a time: theta[i]."
        )
    options = {"sample_weight": sample_weight, "rng": rng}
    batch = to_host(x).shape[-2] if owner(x) is None else x.shape[-2]
    units = sum(shape[-1] for layer in network.layers for shape in layer.shapes)
    copy_bytes = (network.size + batch * units) * _item_bytes(theta)
    problem = _Problem(
        flatten(theta),
        lambda flat: network.loss(flat, x, y, **options),
        lambda: network.loss_and_gradient(theta, x, y, **options)[1],
        _network_tensors(network),
        max(1, integer(max_memory, "max_memory") // (4 * copy_bytes)),
    )
    return _check(problem, method, tolerance, seed)


def assert_gradient(
    value: Callable[[Any], Any], gradient: Callable[[Any], Any], point: Any, **options: Any
) -> None:
    """Raise ``GradientCheckError`` (an AssertionError) with the report unless the check passes.

    Arguments as for ``check_gradient``.
    """
    check_gradient(value, gradient, point, **options).raise_if_failed()


def _check(problem: _Problem, method: str, tolerance: float | None, seed: int) -> GradientReport:
    flat = problem.point.flat
    xp = array_namespace(flat)
    calls = [0]

    def counted(stack: Array) -> Array:
        calls[0] += stack.shape[0]
        result = problem.value(stack)
        if tuple(result.shape) != tuple(stack.shape[:1]):
            raise ValueError(
                f"value of {stack.shape[0]} stacked copies has shape {tuple(result.shape)}, but "
                "one number for each is expected. Leave batched=True out."
            )
        return result

    if not isinstance(method, str):
        raise TypeError(f"method must be a name such as 'auto', not {method!r}.")
    if method not in ("auto", *ENGINES):
        raise ValueError(f"method {method!r} is unknown. {nearest(method, ['auto', *ENGINES])}")
    analytic = problem.gradient()
    first, second = counted(flat[None, :]), counted(flat[None, :])
    if method == "auto":
        analytic_there = _is_analytic(counted, flat, integer(seed, "seed", at_least=0))
        method = "complex_step" if analytic_there else "centered"
    numeric = ENGINES[method](counted, flat, problem.copies)
    double = flat.dtype == xp.float64
    limit = (
        _TOLERANCES[method, double]
        if tolerance is None
        else real(tolerance, "tolerance", above=0.0)
    )
    error, roughness = _errors(problem.tensors, analytic, numeric)
    verdict = "pass" if error <= limit else "inconclusive" if roughness > limit else "fail"
    if float(first[0]) != float(second[0]) and not bool(xp.isnan(first[0] + second[0])):
        verdict = "nondeterministic"
    return GradientReport(
        verdict=verdict,
        method=method,
        step=numeric.step,
        tolerance=limit,
        evaluations=calls[0],
        max_relative_error=error,
        analytic=problem.point.restore(analytic),
        numeric=problem.point.restore(numeric.gradient),
        worst=_worst(problem.tensors, analytic, numeric.gradient),
    )


def _errors(tensors: tuple[Tensor, ...], analytic: Array, numeric: Numeric) -> tuple[float, float]:
    """Return the largest relative error over tensors, and what rounding alone could make of it."""
    xp = array_namespace(analytic)
    error = roughness = 0.0
    for tensor in tensors:
        if 0 in tensor.shape:
            continue
        a, n = analytic[tensor.part], numeric.gradient[tensor.part]
        scale = max(float(xp.max(xp.abs(a))), float(xp.max(xp.abs(n))))
        difference = float(xp.max(xp.abs(a - n)))
        rounding = float(xp.max(numeric.rounding[tensor.part]))
        # First of all: NaN compares false, and what is not finite must not pass.
        if not math.isfinite(rounding):
            roughness = math.inf
        if not math.isfinite(difference):
            error = math.inf
        elif scale > 0.0:
            error = max(error, difference / scale)
            roughness = max(roughness, rounding / scale)
    return error, roughness


def _worst(tensors: tuple[Tensor, ...], analytic: Array, numeric: Array) -> tuple[Row, ...]:
    rows = []
    for tensor in tensors:
        a, n = to_host(analytic[tensor.part]).tolist(), to_host(numeric[tensor.part]).tolist()
        scale = max((abs(v) for v in [*a, *n] if math.isfinite(v)), default=0.0)
        for place in range(len(a)):
            difference = abs(a[place] - n[place])
            relative = difference / scale if scale else 0.0
            if not math.isfinite(difference):
                relative = math.inf
            index = unravel(place, tensor.shape)
            rows.append(Row(tensor.name, index, a[place], n[place], difference, relative))
    rows.sort(key=lambda row: -row.relative_error)
    return tuple(rows[:_WORST_ROWS])


def _is_analytic(f: Callable[[Array], Array], flat: Array, seed: int) -> bool:
    """Say whether the complex step may be trusted: along one direction it agrees with a difference.

    A value that takes a magnitude, casts to real or refuses complex numbers is found out here.
    """
    xp = array_namespace(flat)
    drawn = bits(seed, 1, flat.shape[-1], xp=xp, device=device_of(flat))[0, :]
    direction = xp.astype(drawn, flat.dtype) / 2.0**31 - 0.5
    try:
        exact = float(along(f, flat, direction, "complex_step"))
    except Exception:
        return False
    rough = float(along(f, flat, direction, "centered"))
    loose = 1e-4 if flat.dtype == xp.float64 else 5e-2
    return abs(exact - rough) <= loose * max(abs(exact), abs(rough))


def _takes_stacks(value: Callable[[Array], Any], flat: Array) -> bool:
    """Say whether value takes stacked copies: two different ones must come out as they do alone."""
    xp = array_namespace(flat)
    copies = xp.stack([flat, (1.0 + 2.0**-10) * flat + 2.0**-10])
    try:
        together = to_host(value(copies))
    except Exception:
        return False
    if together.shape != (2,):
        return False
    # A value that is not one number goes by the way that says so.
    results = [value(copies[i, ...]) for i in range(2)]
    if any(tuple(getattr(result, "shape", ())) for result in results):
        return False
    alone = [float(result) for result in results]
    slack = 64.0 * float(xp.finfo(flat.dtype).eps)
    return all(abs(float(a) - b) <= slack * abs(b) for a, b in zip(together, alone, strict=True))


def _one_by_one(value: Callable[[Array], Any], stack: Array) -> Array:
    xp = array_namespace(stack)
    results = []
    for i in range(stack.shape[0]):
        result = value(stack[i, ...])
        if result is None:
            raise TypeError("value(point) must be one number, not None.")
        if tuple(getattr(result, "shape", ())) != ():
            raise ValueError(
                f"value(point) must be one number, but has shape {tuple(result.shape)}."
            )
        # A Python float takes the point's precision: a library's own default may be a lower one.
        kind = real_part(xp, stack).dtype if isinstance(result, float) else None
        results.append(xp.asarray(result, dtype=kind, device=device_of(stack)))
    return xp.stack(results)


def _network_tensors(network: Network) -> tuple[Tensor, ...]:
    layout, _ = lay_out(network.layers)
    return tuple(
        Tensor(f"layers[{i}].{place.name}", place.shape, place.part)
        for i, places in enumerate(layout)
        for place in places
    )


def _item_bytes(flat: Array) -> int:
    return int(array_namespace(flat).finfo(flat.dtype).bits) // 8
