"""Numeric gradients, Jacobians and Hessians with error bars, for functions without a gradient."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import DType, array_namespace, require_owner, to_device_of
from backprop_xp.gradient_check.engine.analytic import AnalyticGradient, analytic_gradient
from backprop_xp.gradient_check.engine.analyticity import along, is_analytic
from backprop_xp.gradient_check.engine.constants import IMAGINARY, LARGEST_EXACT, NEARBY, SPREAD
from backprop_xp.gradient_check.engine.derivatives import complex_step, sharp_difference
from backprop_xp.gradient_check.engine.ladder import search_beyond
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative, random_direction
from backprop_xp.gradient_check.engine.noise import unexplained
from backprop_xp.gradient_check.engine.stencils import differences, first_step
from backprop_xp.gradient_check.entrances.api import bind
from backprop_xp.gradient_check.inputs.first_calls import first_value, switch_to_float64
from backprop_xp.gradient_check.inputs.functions import SINGLE, Fault, Function
from backprop_xp.gradient_check.inputs.points import DOUBLE
from backprop_xp.gradient_check.inputs.problems import Problem, complete_options, with_vectors
from backprop_xp.gradient_check.inputs.structures import Structure

Value: TypeAlias = Callable[..., Structure]
Args: TypeAlias = tuple[Structure, ...]
Scale: TypeAlias = Structure | None
Bounds: TypeAlias = Sequence[Structure] | None
Argnums: TypeAlias = int | tuple[int, ...]


class NumericResult(NamedTuple):
    """Numeric derivatives, their error bars, and the number of evaluations of the function."""

    value: Structure
    error_bar: Structure
    evaluations: int


def numeric_gradient(
    value: Value,
    point: Structure,
    *,
    args: Args = (),
    argnums: Argnums = 0,
    scale: Scale = None,
    bounds: Bounds = None,
) -> NumericResult:
    """Return the numeric gradient of ``value(point, *args)``, with error bars.

    - ``value`` returns one number. It is called with one point at a time.
    - ``point``, ``args``, ``argnums``, ``scale`` and ``bounds`` are those of ``bx.check_gradient``.
    - The result is ``(value, error_bar, evaluations)``. Value and error bar have the structure of
      the point. The error bar is an absolute error that about 1 % of the values exceed.

    The complex step is used if value supports it and real differences confirm it, otherwise
    differences of nine values for each entry, with more if a bar improves. At a kink the value
    is the mean of both slopes, and the bar contains them. The bar is inf without a derivative.
    Where all entries are below 1.5e-5 and no ``scale`` is given, about 50 more values show whether
    terms cancel, as in ``1 - cos(p)``.

    Raises what ``bx.check_gradient`` raises for the value, the point and the options.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> found = bx.numeric_gradient(lambda p: float(np.sum(np.exp(p))), np.array([0.0, 1.0]))
    >>> print(np.round(found.value, 10), bool(np.all(found.error_bar < 1e-10)), found.evaluations)
    [1.         2.71828183] True 20
    """
    function, found = _derivatives(value, point, args, argnums, scale, bounds, "gradient")
    return _result(function, found.value[:, 0], found.bar[:, 0])


def numeric_jacobian(
    function: Value,
    point: Structure,
    *,
    args: Args = (),
    argnums: Argnums = 0,
    scale: Scale = None,
    bounds: Bounds = None,
) -> NumericResult:
    """Return the numeric Jacobian of ``function(point, *args)``, an array of M numbers.

    Value and error bar are ``(M, n)``, or ``(M, *shape)`` for each array of the point, as
    ``bx.check_jacobian`` takes them. The rest is as for ``bx.numeric_gradient``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> print(bx.numeric_jacobian(lambda p: p[0] * p, np.array([1.0, 2.0])).value)
    [[2. 0.]
     [2. 1.]]
    """
    vector, found = _derivatives(function, point, args, argnums, scale, bounds, "jacobian")
    return _result(vector, found.value.T, found.bar.T)


def numeric_hessian(
    value: Value,
    point: Structure,
    *,
    args: Args = (),
    argnums: Argnums = 0,
    scale: Scale = None,
    bounds: Bounds = None,
) -> NumericResult:
    """Return the numeric Hessian of ``value(point, *args)``, a symmetric matrix.

    Value and error bar are ``(n, n)`` for a vector, ``(*shape, *shape)`` for another array. For a
    structure they are ``(P, P)``: all entries of its arrays, one after the other. The Hessian takes
    real differences of values, at least 9 n (n + 1) / 2 + 1. The rest is as for
    ``bx.numeric_gradient``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> found = bx.numeric_hessian(lambda p: p[0] ** 2 * p[1], np.array([1.0, 3.0]))
    >>> print(np.round(found.value, 6) + 0.0)
    [[6. 2.]
     [2. 0.]]
    """
    function, found = _derivatives(value, point, args, argnums, scale, bounds, "hessian")
    tensors = function.point.tensors
    shape = tensors[0].shape * 2 if len(tensors) == 1 else found.value.shape
    return _result(function, found.value.reshape(shape), found.bar.reshape(shape), restore=False)


@dataclass
class _Unknown(Function):
    """A function whose analytic gradient is unknown: zeros take its place."""

    def gradient(self, point: np.ndarray, dtype: DType) -> tuple[np.ndarray, float]:
        return np.zeros((self.x.size, self.fx.size)), DOUBLE


def _derivatives(
    value: Value,
    point: Structure,
    args: Args,
    argnums: Argnums,
    scale: Scale,
    bounds: Bounds,
    kind: str,
) -> tuple[Function, NumericDerivative]:
    """Return the function and its derivatives: ``(P, M)``, or ``(P, P)`` of the kind "hessian"."""
    options = complete_options({"scale": scale, "bounds": bounds, "batched": False})
    call, read, first = bind(point, args, argnums)
    functions = call(value), value  # no gradient is called
    problem = Problem(read(first), *functions, options, is_jacobian=kind == "jacobian")
    function = _Unknown(with_vectors(problem))
    whole = require_owner(function.point.flat, "point").full_precision()
    with whole, function.calls.counter:
        try:
            first_value(function)
        except Fault as fault:
            raise ValueError(f"{fault}.") from None
        function.gx, _ = function.gradient(function.x, function.dtype)
        if not function.is_double:
            switch_to_float64(function)
        gradient = analytic_gradient(function)
        if kind == "hessian":
            return function, _second_derivatives(gradient)
        search_beyond(gradient)
        return function, _by_complex_step(gradient) or _by_differences(gradient)


def _by_differences(gradient: AnalyticGradient) -> NumericDerivative:
    found = sharp_difference(Lines(gradient, np.arange(gradient.scale.size)))
    gap = np.where(found.is_kinked, np.abs(found.right - found.left) / 2.0, 0.0)
    return found._replace(bar=found.bar + gap)


def _by_complex_step(gradient: AnalyticGradient) -> NumericDerivative | None:
    """Return derivatives with bars for their rounding, None unless real differences confirm them.

    The rounding of terms that cancel or saturate is another one at points nearby.
    """
    function, count = gradient.function, gradient.scale.size
    lines = Lines(gradient, np.arange(count))
    is_fit = count == 1 or complex_step(lines.select(np.arange(1))) is not None
    exact = complex_step(lines) if is_fit else None
    if exact is None:
        return None
    line = along(gradient._replace(value=exact.value))
    direction, slope = random_direction(line.gradient, 0), line.analytic.value
    sum_of_entries = NumericDerivative(slope, 0.0 * slope, slope, slope, slope)
    if not is_analytic(line, exact=sum_of_entries) or function.is_kinked:
        return None
    x, step = function.x, IMAGINARY[function.epsilon]
    near = function.epsilon ** (1.0 / 3.0) * np.copysign(x, direction)
    points = [x + k * near for k in np.delete(NEARBY, 2)]
    values = function.values(np.stack(points) + 1j * step * direction)
    slopes = np.where(np.isfinite(values), values.imag, np.nan) / step
    slopes = np.insert(slopes, 2, slope[0], axis=0)
    spread = np.nan_to_num(unexplained(slopes, NEARBY, 3)).max(axis=0)
    largest = np.abs(exact.value * lines.scale[:, None]).max(axis=0)
    bar = LARGEST_EXACT * function.epsilon * largest + SPREAD * spread * count**0.25
    return exact._replace(bar=bar / lines.scale[:, None])


def _second_derivatives(gradient: AnalyticGradient) -> NumericDerivative:
    """Return the Hessian: second derivatives along entries, and along pairs of entries."""
    function, count = gradient.function, gradient.scale.size
    lines = Lines(gradient, np.arange(count))
    own, _ = differences(lines, order=2)
    value, bar = np.diag(own.value[:, 0]), np.diag(own.bar[:, 0])
    # The steps that suit two entries also suit the pair.
    scale = lines.scale * own.step[:, 0] / first_step(function.epsilon, 2)
    if function.problem.bounds is not None:
        scale = np.where(function.x >= function.problem.bounds[1], -scale, scale)
    for pair in map(list, itertools.combinations(range(count), 2)):
        direction = np.zeros(count)
        direction[pair] = scale[pair]
        both, _ = differences(Lines(gradient, direction=direction), order=2)
        area = 2.0 * np.prod(scale[pair])
        rest = both.value[0, 0] - scale[pair] ** 2 @ own.value[pair, 0]
        most = both.bar[0, 0] + scale[pair] ** 2 @ own.bar[pair, 0]
        for i, j in (pair, pair[::-1]):
            value[i, j], bar[i, j] = rest / area, most / abs(area)
    return NumericDerivative(value, bar, value, value, bar)


def _result(
    function: Function, value: np.ndarray, bar: np.ndarray, *, restore: bool = True
) -> NumericResult:
    """Return derivatives in the library and dtype of the point; bars include that rounding."""
    flat = function.point.flat
    epsilon = DOUBLE if flat.dtype == array_namespace(flat).float64 else SINGLE
    both = (value, bar + epsilon * np.abs(value))
    arrays = [to_device_of(flat, array.copy(), flat.dtype) for array in both]
    if restore:
        arrays = [function.point.restore(array, tracked=False) for array in arrays]
    return NumericResult(arrays[0], arrays[1], function.evaluations)
