"""Jacobians and Hessians, dense or sparse."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.gradient_check.engine.analytic import scale_of
from backprop_xp.gradient_check.entrances.products import line_problem, outputs_of, symmetry
from backprop_xp.gradient_check.inputs.functions import around
from backprop_xp.gradient_check.inputs.points import DOUBLE, Point
from backprop_xp.gradient_check.inputs.problems import CheckOptions, Names, Problem, jacobian_entry
from backprop_xp.gradient_check.inputs.structures import Structure
from backprop_xp.gradient_check.verdict.judge import Comparison

# The step that locates a wrong entry of a sparse Jacobian, relative to the entries.
_SHORT = 2.0**-12


def jacobian_problem(
    point: Point,
    f: Callable[[Structure], Structure],
    jacobian: Callable[[Structure], Any],
    options: CheckOptions,
    *,
    names: Names = ("function(point)", "jacobian(point)"),
    is_hessian: bool = False,
) -> Problem:
    """Return the problem of a Jacobian: of every column or, if it is sparse, of every color."""
    # A Jacobian may use what its function has stored.
    outputs = outputs_of(point, f, names[0], is_hessian=is_hessian)
    subject, tangents = "Hessian" if is_hessian else "Jacobian", None
    problem = Problem(
        point, f, jacobian, options, names, subject, is_jacobian=True, outputs=outputs
    )
    if "scipy.sparse" in sys.modules and options["tangent"] is None:
        from scipy import sparse

        found = jacobian(point.at())
        if sparse.issparse(found) and found.ndim == 2:
            pattern = _csr(found, (*outputs.flat.shape, *point.flat.shape), names[1]).copy()
            pattern.sum_duplicates()
            if 2 * max(np.diff(pattern.indptr), default=0) <= point.flat.shape[0]:
                problem, tangents = _sparse_problem(problem, outputs, pattern)
    return problem._replace(verify=symmetry(tangents)) if is_hessian else problem


def _csr(found: Any, shape: tuple[int, ...], name: str) -> Any:
    """Return a sparse matrix ``shape`` in the format CSR, its numbers floating."""
    from scipy import sparse

    if not sparse.issparse(found) or found.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be a sparse matrix of real numbers, not {found!r:.100}.")
    if found.shape != shape:
        raise ValueError(f"{name} has shape {found.shape}, but {shape} is expected.")
    return sparse.csr_array(found if found.dtype.kind == "f" else found.astype(np.float64))


def _sparse_problem(problem: Problem, outputs: Point, pattern: Any) -> tuple[Problem, Any]:
    """Return the problem of a Jacobian with the ``pattern (M, P)``, and its tangents ``(P, C)``.

    Columns without a common row share a tangent (Curtis, Powell and Reid 1974).
    """
    from scipy import sparse

    point, f, jacobian, options, names = problem[:5]
    base = around(point, {**options, "max_evaluations": None, "max_seconds": None}, f)
    ones = sparse.csr_array(
        (np.ones(pattern.nnz), pattern.indices, pattern.indptr), shape=pattern.shape
    )
    colors, scale = _colors((ones.T @ ones).tocsr()), scale_of(base)
    entries = np.arange(scale.size)
    # x + V (0 - 1) is 0: the rounding is measured at points between 0 and x. At a border, x - V is
    # inside for every column of a color.
    sized = base.project(-base.inwards(np.copysign(scale, -base.x)))
    tangents = sparse.csc_array((sized, (entries, colors)), shape=(scale.size, colors.max() + 1))
    owners = sparse.csr_array(
        ((entries + 1.0) * (sized != 0.0), (entries, colors)), shape=tangents.shape
    )
    by_result = (ones @ owners).tocsr()

    def times(structure: Structure) -> tuple[np.ndarray, float]:
        found = _csr(jacobian(structure), pattern.shape, names[1])
        epsilon = max(DOUBLE, float(np.finfo(found.dtype).eps))
        return (found @ tangents).toarray().T, epsilon

    def label(color: int, result: int) -> tuple[str, tuple[int, ...], float]:
        entry = round(by_result[result, color]) - 1
        if entry < 0:
            return "J", (result,), 1.0
        return (*jacobian_entry(outputs, result, point, entry), float(sized[entry]))

    def locate(entries: Comparison) -> str | None:
        """Bisect the columns of the decisive color for a mistake outside of the pattern."""
        line, result = entries.decisive
        columns = np.flatnonzero(colors == entries.lines.columns[line])
        here = _csr(jacobian(point.at()), pattern.shape, names[1])
        if not np.all(np.isfinite(here.data)):
            return None

        def error(some: np.ndarray) -> float:
            step = np.zeros_like(sized)
            step[some] = _SHORT * sized[some]
            up, down = base.values([base.x + step, base.x - step])
            return abs(float((up - down)[result] / 2.0 - (here @ step)[result]))

        base.fx, _ = base.value(base.x, base.dtype)
        while columns.size > 1:
            halves = np.array_split(columns, 2)
            errors = [error(half) for half in halves]
            columns = halves[int(np.argmax(errors))]
            if not np.all(np.isfinite(errors)):  # it is outside of the domain
                return None
        if ones[[result], columns][0]:
            return None
        name, index = jacobian_entry(outputs, result, point, int(columns[0]))
        return f"{name}[{', '.join(map(str, index))}] is missing in the pattern"

    lines = line_problem(point, f, times, tangents, options, names, label)
    return lines._replace(subject=problem.subject, locate=locate), tangents


def _colors(neighbours: Any) -> np.ndarray:
    """Return the color ``(P,)`` of each column; neighbours, in a sparse matrix, have others."""
    colors = np.full(neighbours.shape[1], -1)
    for column in range(colors.size):
        start, stop = neighbours.indptr[column : column + 2]
        used = {*colors[neighbours.indices[start:stop]].tolist()}
        colors[column] = next(color for color in range(colors.size) if color not in used)
    return colors
