"""Products with a Jacobian: ``u^T J``, ``J v``, and those of Hessians.

The rows ``u^T J`` are the gradients of the functions ``<u, f>`` (the dot-product test, Claerbout
1992). The columns ``J v`` are derivatives along lines: with ``x(t) = x + V (t - 1)`` the function
``f(x(t))`` has the Jacobian ``J V`` by t, which is 1 at the point.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    owner,
    precision_of,
    to_device_of,
    to_host,
)
from backprop_xp.gradient_check.engine.analytic import scale_of
from backprop_xp.gradient_check.engine.constants import QUICK
from backprop_xp.gradient_check.engine.rounding import with_measured_rounding
from backprop_xp.gradient_check.inputs.functions import around, require_unchanged
from backprop_xp.gradient_check.inputs.points import Point, epsilon_of, flatten, flatten_like
from backprop_xp.gradient_check.inputs.problems import (
    CheckOptions,
    Names,
    Problem,
    jacobian_entry,
    product_entry,
)
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict.judge import PASS, Comparison, tolerance_of

# Up to this many results or entries, each has a cotangent or a tangent of its own.
_FEW = 32
# Results of one magnitude differ by at most this power of two. A result of so many rounding errors
# of the others may consist of these.
_BAND, _LEAST = 10.0, 2.0**10


def vjp_problem(
    point: Point,
    f: Callable[[Structure], Structure],
    vjp: Callable[[Structure, Structure], Structure],
    options: CheckOptions,
    *,
    names: Names = ("f(*inputs)", "vjp(*inputs, u)"),
    is_one: bool = False,
) -> Problem:
    """Return the problem of the function ``U f(x)``, whose Jacobian has the rows ``vjp(x, u)``.

    Row 0 of U is random. The others are unit vectors or, if the results are many, random numbers
    for results of one magnitude. With ``is_one`` there is row 0 alone, and one value.
    """
    outputs = flatten(f(point.at()), names[0])
    y = to_host(outputs.flat).astype(np.float64)
    typical, size = np.ones_like(y), y.size
    for tensor in outputs.tensors:
        part = y[tensor.part]
        typical[tensor.part] = np.sqrt(np.sum(part**2) / max(part.size, 1)) or 1.0
    rows = [random_numbers((size,), options["seed"]) / typical]
    if not is_one and size > _FEW:
        # Small results have rows of their own, unless they may be rounding errors of the others.
        least = _LEAST * epsilon_of(outputs.flat)
        part = np.fmax(np.abs(y) / typical, least)
        band = np.where(part > least, np.log2(part) // _BAND, 0.0)
        rows += [np.where(band == b, rows[0] / part, 0.0) for b in np.unique(band[band < -1.0])]
    drawn = len(rows)
    rows += [] if is_one or not 1 < size <= _FEW else list(np.eye(size))
    cotangents = np.stack(rows)

    def value(structure: Structure) -> Array:
        found = _products(outputs, f(structure), cotangents, names[0])
        return found[..., 0 if is_one else slice(None)]

    def gradient(structure: Structure) -> Structure:
        if is_one:
            return vjp(structure, outputs.at(cotangents[0]))
        # Read at once: a function may reuse one array for its results.
        found = [flatten_like(point, vjp(structure, outputs.at(u)), names[1]) for u in cotangents]
        return np.concatenate([host for host, _ in found], axis=1), max(e for _, e in found)

    def label(entry: int, row: int) -> tuple[str, tuple[int, ...], float]:
        if row < drawn:
            name, index = point.entry(entry)
            product = f"u{row}^T J" if drawn > 1 else "u^T J"
            return (*product_entry(product, f"input{name}", index), 1.0)
        return (*jacobian_entry(outputs, row - drawn, point, entry), 1.0)

    problem = Problem(point, value, gradient, options, names)
    subject = "vector-Jacobian product"
    return problem if is_one else problem._replace(subject=subject, is_jacobian=True, label=label)


def _products(outputs: Point, y: Structure, cotangents: np.ndarray, name: str) -> Array:
    """Return the products ``(*stack, K)`` of results and cotangents ``(K, M)``, on the device."""
    total: Any = 0.0
    for tensors, label, part in outputs.matching(y, name):
        y = asarray(to_host(part)) if owner(part) is None else part
        xp, shape = array_namespace(y), tensors[0].shape
        stack = y.shape[: len(y.shape) - len(shape)]
        if tuple(y.shape) != (*stack, *shape):
            raise ValueError(f"{label} has shape {tuple(y.shape)} here, but {shape} before.")
        halves = [y] if len(tensors) == 1 else [xp.real(y), xp.imag(y)]
        for tensor, half in zip(tensors, halves, strict=True):
            weights = to_device_of(half, cotangents[:, tensor.part].T, precision_of(xp, half.dtype))
            flat = xp.reshape(half, (*stack, 1, weights.shape[0]))
            total = total + (flat @ xp.astype(weights, half.dtype))[..., 0, :]
    return total


def line_problem(
    point: Point,
    f: Callable[[Structure], Structure],
    jacobian: Callable[[Structure], tuple[np.ndarray, float]],
    tangents: Any,
    options: CheckOptions,
    names: Names,
    label: Callable[[int, int], tuple[str, tuple[int, ...], float]],
) -> Problem:
    """Return the problem of ``f(x + V (t - 1))`` as a function of t ``(C,)``.

    The ``tangents`` V are ``(P, C)``, dense or sparse. ``jacobian`` returns ``(J V)^T``.
    """
    base = around(point, options, f)
    ones = np.ones(tangents.shape[1])
    line = flatten(to_device_of(point.flat, ones, point.flat.dtype))

    def call(function: Callable[[Structure], Any], name: str, t: Array) -> Any:
        host = to_host(t)
        host = host.astype(np.complex128 if host.dtype.kind == "c" else np.float64)
        x = base.x + np.asarray((host - 1.0) @ tangents.T)
        if not base.is_inside(x):
            raise ValueError("this point is outside of the bounds")
        array = to_device_of(point.flat, x, precision_of(array_namespace(t), t.dtype))
        before = to_host(array).copy()
        found = function(point.restore(array))
        require_unchanged(array, before, name)
        return found

    own: CheckOptions = {"scale": None, "bounds": None, "tangent": None, "mask": None}
    value, gradient = (
        functools.partial(call, function, name)
        for function, name in zip((f, jacobian), names, strict=True)
    )
    problem = Problem(line, value, gradient, {**options, **own}, names)
    return problem._replace(is_jacobian=True, label=label)


def jvp_problem(
    point: Point,
    f: Callable[[Structure], Structure],
    jvp: Callable[[Structure, Structure], Structure],
    options: CheckOptions,
    *,
    names: Names = ("f(*inputs)", "jvp(*inputs, *tangents)"),
    is_hessian: bool = False,
) -> Problem:
    """Return the problem of a function along random tangents and, if few, unit tangents."""
    outputs = outputs_of(point, f, names[0], is_hessian=is_hessian)
    # Symmetry is a property of two directions.
    directions = max(options["directions"] or 1, 1 + is_hessian)
    base = around(point, options, f)
    scale, count, columns = scale_of(base), base.x.size, []
    for number in range(directions):
        drawn = base.inwards(random_numbers((count,), options["seed"], number))
        columns.append(base.project(drawn * scale * float(count) ** -0.25))
    if count <= _FEW and options["tangent"] is None:
        columns += [column for column in np.diag(scale) if base.project(column).any()]
    tangents = np.stack(columns, axis=1)

    def times(structure: Structure) -> tuple[np.ndarray, float]:
        found = [flatten_like(outputs, jvp(structure, point.at(v)), names[1]) for v in tangents.T]
        return np.stack([host[:, 0] for host, _ in found]), max(e for _, e in found)

    def label(column: int, result: int) -> tuple[str, tuple[int, ...], float]:
        if column < directions:
            name, index = outputs.entry(result)
            product = f"J v{column}" if directions > 1 else "J v"
            return (*product_entry(product, f"output{name}", index), 1.0)
        entry = int(np.flatnonzero(tangents[:, column])[0])
        unit = float(tangents[entry, column])
        return (*jacobian_entry(outputs, result, point, entry), unit)

    problem = line_problem(point, f, times, tangents, options, names, label)
    if not is_hessian:
        return problem._replace(subject="Jacobian-vector product")
    return problem._replace(subject="Hessian-vector product", verify=symmetry(tangents))


def outputs_of(
    point: Point, f: Callable[[Structure], Structure], name: str, *, is_hessian: bool
) -> Point:
    """Return the results of a function at the point; a gradient's are as many as the entries."""
    outputs = flatten(f(point.at()), name)
    count, entries = outputs.flat.shape[0], point.flat.shape[0]
    if is_hessian and count != entries:
        raise ValueError(f"{name} must be a gradient of {entries} numbers, but has {count}.")
    return outputs


def symmetry(tangents: Any) -> Callable[[Comparison], str | None]:
    """Return a check that a Hessian H is symmetric: ``V^T H V``, to within the tolerances."""

    def verify(entries: Comparison) -> str | None:
        if entries.verdict != PASS:
            return None
        lines, analytic, v = entries.lines, entries.analytic, tangents
        function, gradient = lines.function, lines.gradient
        slack = entries.tolerance * np.maximum(abs(analytic.value), abs(entries.numeric.value))
        if lines.direction is not None:  # its entries have not been compared
            analytic = gradient.at(np.arange(len(gradient.value)))
            base = function.options["tolerance"] or tolerance_of(function, "entries")
            slack = base * abs(analytic.value) + analytic.bar
        if v is None and (function.problem.counts is not None or function.options["tangent"]):
            v = np.stack([function.project(unit) for unit in np.eye(function.x.size)], axis=1)
        products = analytic.value if v is None else analytic.value @ v
        excess = _excess(products, slack, v)
        if lines.direction is not None and excess.max() > 0.0:
            rounding = with_measured_rounding(gradient, QUICK[function.epsilon] * gradient.scale)
            excess = _excess(products, slack + rounding.bar, v)
        i, j = (int(k) for k in np.unravel_index(np.argmax(excess), excess.shape))
        if excess[i, j] <= 0.0:
            return None
        kind = "entries" if v is None else "products with tangents"
        return (
            "the Hessian is the derivative of the gradient, but not symmetric: the gradient is not "
            f"that of any function ({kind} [{i}, {j}] and [{j}, {i}] are {products[i, j]:.8g} and "
            f"{products[j, i]:.8g})"
        )

    return verify


def _excess(products: np.ndarray, slack: np.ndarray, tangents: Any) -> np.ndarray:
    """Return by how much products ``V^T H V`` and their transposes differ beyond the slack of H."""
    slack = slack if tangents is None else slack @ abs(tangents)
    return np.asarray(abs(products - products.T) - 2.0 * (slack + slack.T))


def random_numbers(shape: tuple[int, ...], *seed: int) -> np.ndarray:
    """Return numbers with random signs and magnitudes of 0.5 to 1.5."""
    generator = np.random.default_rng([*seed, 1])
    return generator.uniform(0.5, 1.5, shape) * (1.0 - 2.0 * generator.integers(2, size=shape))
