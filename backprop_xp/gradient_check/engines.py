"""Numeric derivatives: by a complex step, and from five real values around the point.

Every engine takes entries of the point, or one direction. The real one never trusts a single step:
it also says how far it may be off, and what the slopes on either side are.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, require_owner, to_host
from backprop_xp.gradient_check.functions import Function, Host


class NotAnalyticError(TypeError):
    """The complex step cannot see the slope of this function."""


class KinkError(NotAnalyticError):
    """The complex step cannot be compared with a difference: a kink lies between the two sides."""


class Slopes(NamedTuple):
    """Derivatives ``(K,)`` from five values each, in float64.

    ``slope`` is of fourth order; ``spread`` is by how much that of second order changes when the
    step is doubled, which bounds the error but for rounding; ``left`` and ``right`` are the slopes
    on either side, and ``wide_gap`` is how far those over two steps lie apart: twice as far on a
    smooth curve, no farther at a kink. ``fourth`` is the fourth difference, of which little but
    rounding is left on a smooth curve; ``size`` is the least rounding of one value; ``step`` is the
    step, ``(K,)``.
    """

    slope: Host
    spread: Host
    left: Host
    right: Host
    wide_gap: Host
    fourth: Host
    size: float
    step: Host


def is_double(function: Function) -> bool:
    """Say whether a function is computed in float64."""
    return bool(function.host.dtype.itemsize == 8)


def epsilon(function: Function) -> float:
    """Return the machine epsilon of a function's precision."""
    return 2.0**-52 if is_double(function) else 2.0**-23


def complex_size(function: Function) -> float:
    """Return the imaginary step: its square vanishes beside 1, and no result underflows."""
    return 2.0**-66 if is_double(function) else 2.0**-40


def real_size(function: Function) -> float:
    """Return the step at which the bar of ``Slopes`` is least: the fourth root of epsilon."""
    return float(epsilon(function) ** 0.25)


def complex_entries(function: Function, columns: Sequence[int]) -> Host:
    """Return ``imag f(x + i h) / h`` for entries of the point, ``(K,)``.

    Nothing is subtracted, so h can be as small as one likes (Squire and Trapp 1998). Raises
    NotAnalyticError if the function is real at a complex point.
    """
    h = complex_size(function)
    return _imaginary(function.entries(columns, _host_entries(function, columns) + 1j * h)) / h


def complex_line(
    function: Function, direction: Host, away: Host | None = None
) -> tuple[float, float]:
    """Return the derivative along a direction ``(P,)``, and the real part of the value.

    With ``away`` it is that of a point so far from the function's own, ``(P,)``.
    """
    h = complex_size(function)
    xp = array_namespace(function.flat)
    kind = xp.complex128 if is_double(function) else xp.complex64
    step = direction * (1j * h)
    step = step if away is None else step + away
    moved = xp.astype(function.flat, kind) + _beside(function.flat, step, kind)
    result = function.at(moved[None, :])
    return float(_imaginary(result)[0]) / h, float(result.real[0])


def moved_by(function: Function, away: Host) -> Function:
    """Return a function around a point ``away``, ``(P,)``, from its own, for lines through it."""
    flat = function.flat + _beside(function.flat, away, function.flat.dtype)
    base = float(function.at(flat[None, :])[0])
    return function._replace(flat=flat, host=to_host(flat), base=base)


def real_entries(function: Function, columns: Sequence[int], h: float) -> Slopes:
    """Return the slopes of entries of the point at the step ``h * max(1, |x|)``.

    Steps are divided by as they were rounded (Press et al., "Numerical Recipes", section 5.7).
    """
    here = _host_entries(function, columns)
    xp = array_namespace(here)
    steps = h * xp.maximum(xp.abs(here), xp.ones_like(here))
    moves = [here + k * steps for k in (-2.0, -1.0, 1.0, 2.0)]
    columns_four = [c for c in columns for _ in range(4)]
    values = function.entries(columns_four, xp.reshape(xp.stack(moves, axis=1), (-1,)))
    away = [xp.astype(move, xp.float64) - here for move in moves]
    values = xp.reshape(values, (-1, 4))
    rounding = _rounding(function, values)
    return _slopes(function.base, [values[:, i] for i in range(4)], away, rounding)


def real_line(function: Function, direction: Host, h: float, analytic: Host) -> Slopes:
    """Return the slope along a direction ``(P,)``, at the step h times the direction.

    Every entry of the point is rounded when it is moved; the ``analytic`` gradient ``(P,)`` takes
    this out: to first order, and what is left matters only if the analytic one is wrong.
    """
    flat = function.flat
    xp = array_namespace(direction)
    step = _beside(flat, h * direction, flat.dtype)
    values, off, away = [], [], []
    for k in (-2.0, -1.0, 1.0, 2.0):
        moved = flat + k * step
        rounded = xp.astype(to_host(moved), xp.float64) - function.host - k * h * direction
        values.append(function.at(moved[None, :]))
        off.append(xp.sum(analytic * rounded))
        away.append(xp.asarray([k * h], dtype=xp.float64))
    rounding = _rounding(function, xp.stack(values))
    values = [value - part for value, part in zip(values, off, strict=True)]
    return _slopes(function.base, values, away, rounding)


def _rounding(function: Function, values: Host) -> float:
    """Return the least rounding of a value: of its precision, which may be float32 in float64."""
    xp = array_namespace(values)
    largest = max(abs(function.base), float(xp.max(xp.abs(values))))
    if largest < float(xp.finfo(xp.float32).max):
        single = xp.astype(xp.astype(values, xp.float32), xp.float64)
        if bool(xp.all(single == values)):
            return largest * 2.0**-23
    return largest * epsilon(function)


def _slopes(base: float, values: list[Host], away: list[Host], rounding: float) -> Slopes:
    """Return the slopes from values at -2, -1, 1 and 2 steps, each ``away`` from the point."""
    xp = array_namespace(values[0])
    far_left, near_left, near_right, far_right = (v - base for v in values)
    narrow = (near_right - near_left) / (away[2] - away[1])
    wide = (far_right - far_left) / (away[3] - away[0])
    return Slopes(
        slope=(4.0 * narrow - wide) / 3.0,
        spread=xp.abs(wide - narrow),
        left=near_left / away[1],
        right=near_right / away[2],
        wide_gap=xp.abs(far_right / away[3] - far_left / away[0]),
        fourth=far_left - 4.0 * near_left - 4.0 * near_right + far_right,
        size=rounding,
        step=away[2],
    )


def _imaginary(values: Host) -> Host:
    if values.dtype.kind != "c":
        raise NotAnalyticError(
            "value is real at a complex point, so the complex step cannot see its slope. Use "
            'method="centered".'
        )
    return values.imag


def _host_entries(function: Function, columns: Sequence[int]) -> Host:
    host = function.host
    if isinstance(columns, range) and columns.step == 1:
        return host[columns.start : columns.stop]
    return array_namespace(host).take(host, list(columns), axis=0)


def _beside(flat: Array, host: Host, dtype: Any) -> Array:
    return require_owner(flat, "point").from_host(host, dtype, device_of(flat))
