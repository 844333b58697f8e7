"""Numeric derivatives of smooth functions from nine values along each line.

Eight lie at four equal steps on either side, or all on one side at an edge of the domain. Their
differences of order five to eight show the noise of the values and the neglected terms (after More
and Wild, "Estimating computational noise", 2011), and hence whether another step suits better. The
ninth value lies between them, and shows a wave whose periods the steps fit.
"""

import math
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.lines import Lines, NumericDerivative

_AROUND, _AHEAD = np.asarray([-4, -3, -2, -1, 1, 2, 3, 4])[:, None], np.arange(1, 9)[:, None]
# A point between the values, and the weights with which these interpolate its value: a wave whose
# periods the steps fit has another value there.
_BETWEEN = 0.618
_NODES = np.arange(-4.0, 5.0)
_INTERPOLATE = [
    np.prod([(_BETWEEN - m) / (n - m) for m in _NODES if m != n]) for n in _NODES
]  # fmt: skip
# The derivatives of order 1 and 2 from the odd or even part of the change around x, and from the
# differences ahead of x.
_CENTRAL = {
    1: np.asarray([672, -168, 32, -3]) / 840,
    2: np.asarray([8064, -1008, 128, -9]) / 5040,
}
_FORWARD = {
    1: [0, 1, -1 / 2, 1 / 3, -1 / 4, 1 / 5, -1 / 6, 1 / 7, -1 / 8],
    2: [0, 0, 1, -1, 11 / 12, -5 / 6, 137 / 180, -7 / 10, 363 / 560],
}
# The rounding errors of a value in these sums: around x, ahead of x.
_AMPLIFIED = {1: (1.2, 32.0), 2: (3.7, 160.0)}
# A step with many digits tells values that are rounded to few digits from functions such as 3 x.
_UNEVEN = 1.0 + 2.0**-11 / 3.0
_DIGITS = range(11, 2, -1)
# A bar is an estimated error, times this; the second number is for noise above rounding.
_SAFETY, _SAFETY_OF_NOISE = 4.0, 8.0
# Noise of a larger part of the values, and of more units, is a function that varies within a step,
# most likely.
_ROUGH, _UNITS = 2.0**-18, 4.0
# A function varies within a step, too, if its value between is missed by this times the noise.
_MISSED = 32.0
# A bar of this part of the derivative needs no shorter step, and such a noise no longer one.
_SHARP, _QUIET = 2.0**-40, 2.0**-42
# A longer step is worth a round if it is so many times as long; the largest change; the rounds.
_WORTH, _MOST, _ROUNDS = 32.0, 2.0**5, 6
# A further round follows if a bar shrinks to this part.
_GAIN = 0.15
# A value that does not change at the first steps is tried at steps so many times as long.
_FAR = 2.0**24
# A bar of this part of the steepest slope shows that the values are not coarse.
_FINE = 2.0**-20


class _Round(NamedTuple):
    """Derivatives ``(K, M)`` with their steps, the rounding of the values, and steepest slopes.

    ``is_rough``: the value varies within a step, by more than its rounding. ``step`` and ``side
    (K,)`` are those of the next round; side 0 means both sides of the point.
    """

    value: np.ndarray
    bar: np.ndarray
    used: np.ndarray
    rounding: np.ndarray
    steepest: np.ndarray
    is_rough: np.ndarray
    step: np.ndarray
    side: np.ndarray


def differences(lines: Lines, order: int = 1) -> tuple[NumericDerivative, np.ndarray]:
    """Return derivatives of order 1 or 2 along lines, and whether they need another method.

    The first line shows the rounding of the values, which decides the first step of the others.
    """
    each, fx = np.arange(len(lines.scale)), lines.function.fx
    unit = unit_of(fx[None])  # of a value with fewer than six digits: it may be a round number
    seen = np.divide(unit, np.abs(fx), where=unit < 1e-5 * np.abs(fx), out=np.zeros(fx.shape))
    seen = np.max(seen, initial=lines.function.epsilon)
    parts = [_rounds(lines.select(each[:1]), order, float(seen))]
    if each.size > 1:
        seen = np.fmax(lines.function.epsilon, np.fmax.reduce(parts[0].rounding[0]))
        parts.append(_rounds(lines.select(each[1:]), order, float(seen)))
    found = _Round(*map(np.concatenate, zip(*parts, strict=True)))
    # Along some lines the value does not change. Others may show that it is not coarse.
    is_fine = np.any(found.bar < _FINE * found.steepest, axis=0)
    is_poor = (found.bar >= found.steepest) & ~((found.steepest == 0.0) & is_fine)
    numeric = NumericDerivative(*found[:2], found.value, found.value, found.used)
    return numeric, is_poor


def first_step(rounding: float, order: int) -> float:
    """Return the step, relative to its scale, that suits values with this relative rounding."""
    return float(2.0 ** round(math.log2(rounding ** (1.0 / (8.0 + order)) / 2.0)))


def _rounds(lines: Lines, order: int, rounding: float) -> _Round:
    """Return the best derivatives of several rounds, which end when no bar improves."""
    step = np.full(lines.scale.shape, first_step(rounding, order))
    best = _round(lines, step, 0.0 * step, order)
    some = np.flatnonzero((best.step != step) | (best.side != 0.0))
    for _ in range(_ROUNDS):
        if not some.size:
            break
        step, side, before = best.step[some], best.side[some], best.bar[some]
        fresh = _round(lines.select(some), step, side, order)
        # Long steps may skip what is near: a wave whose periods they fit, or a step.
        gap = np.abs(fresh.value - best.value[some]) - fresh.bar - before
        is_longer, is_doubtful = fresh.used > best.used[some], (gap > 0.0) | fresh.is_rough
        is_better = (fresh.bar < before) & ~(is_longer & is_doubtful)
        for old, new in zip(best[:6], fresh[:6], strict=True):
            old[some] = np.where(is_better, new, old[some])
        best.step[some], best.side[some] = fresh.step, fresh.side
        gains = np.any((fresh.bar < _GAIN * before) | np.isinf(before), axis=1)
        some = some[gains & ((fresh.step != step) | (fresh.side != side))]
    return best


@np.errstate(all="ignore")
def _round(lines: Lines, step: np.ndarray, side: np.ndarray, order: int) -> _Round:
    """Return derivatives from the steps ``step (K,)`` to a side or both."""
    function, is_central = lines.function, (side == 0.0)[:, None]
    h, values, around, tables = _tables(lines, step, side)
    forward = sum(w * table[0] for w, table in zip(_FORWARD[order], tables, strict=True))
    ahead, behind = tables[0][5:], tables[0][3::-1]
    part = ahead - behind if order == 1 else ahead + behind  # exactly 0 for an even function
    value = np.where(is_central, np.tensordot(_CENTRAL[order], part, 1), forward)
    value = value / (np.where(side < 0.0, -1.0, 1.0) * h)[:, None] ** order
    h, fx, terms = h[:, None], function.fx, [np.abs(table).max(axis=0) for table in tables]
    # Differences of order k have the Taylor term of order k, and so many rounding errors. From
    # order to order the terms shrink, but noise does not. Even or odd terms may vanish.
    errors = [term / math.comb(2 * k, k) ** 0.5 for k, term in enumerate(terms)]
    shrinks = np.fmin(1.0, 4.0 * np.fmax(errors[7] / errors[5], errors[8] / errors[6]))
    largest = np.fmax(np.abs(values).max(axis=0), np.abs(fx))
    unit = np.where(terms[0] > 0.0, unit_of(values), 0.0)
    floor = 0.5 * np.fmax(function.epsilon * largest, unit)
    noise = np.fmax(errors[6] * shrinks, errors[7] * shrinks**0.5)
    noise = np.fmax(np.fmax(noise, errors[8]), floor)
    is_noise = (errors[6] > 0.0) & (shrinks == 1.0)
    between = lines.probe(_BETWEEN * h[None, :, 0])[0][0] - fx
    missed = np.abs(between - np.tensordot(_INTERPOLATE, tables[0], 1))
    missed = np.where(is_central, missed, 0.0)
    is_noise |= missed > _MISSED * noise
    noise = np.fmax(noise, missed / _MISSED)
    is_rough = is_noise & (noise > np.fmax(_ROUGH * largest, _UNITS * unit))
    amplified = np.where(is_central, *_AMPLIFIED[order]) / h**order
    bar = np.where(is_noise, _SAFETY_OF_NOISE, _SAFETY) * amplified * noise
    bar += np.where(is_rough, terms[0] / h**order, 0.0)
    is_finite = np.isfinite(bar + value)
    bar, value = np.where(is_finite, bar, np.inf), np.where(is_finite, value, 0.0)
    # A longer step suits noise, a shorter one neglected terms.
    level = np.where(is_noise & ~is_rough, noise, floor)
    ratio = np.fmax(terms[7] / terms[5], terms[8] / terms[6])
    central = terms[7] * ratio / 630.0 if order == 1 else terms[8] * ratio / 3150.0
    neglected = np.where(is_central, central, terms[8] * ratio**0.5 / 9.0) / h**order
    change = (amplified * floor / neglected) ** (1.0 / (8.0 + order))
    change = np.where(noise <= 4.0 * level, _longer(terms, noise, order), change)
    # A parabola up to rounding may be one over longer steps too.
    is_parabola = np.fmax(errors[3], errors[4]) <= 4.0 * np.fmin(noise, _SHARP * largest)
    change = np.where(is_parabola, np.fmax(change, _WORTH), change)
    change = np.clip(np.nan_to_num(change, nan=_MOST), 1.0 / _MOST, _MOST**2)
    is_flat, used, size = terms[0] == 0.0, step[:, None] + 0.0 * value, np.abs(value)
    is_settled = (change > 0.7) & (change < _WORTH) | is_flat & (used > 1.0)
    change = np.where(is_flat, _FAR, 2.0 ** np.round(np.log2(change)))
    is_settled |= (change > 1.0) & (level <= _QUIET * size * h**order)
    is_settled |= (change < 1.0) & (bar <= _SHARP * size)
    # The result with the largest relative bar decides.
    need = np.where(is_settled, -1.0, np.fmin(np.nan_to_num(bar / size, nan=0.0), 1e300))
    deciding = np.argmax(need, axis=1)[:, None]
    change = np.take_along_axis(np.where(is_settled, 1.0, change), deciding, 1)[:, 0]
    # Outside of the domain the other side serves, or else a shorter step.
    left, right = (np.isfinite(part).all(axis=(0, 2)) for part in (around[:4], around[5:]))
    turned = np.where((side == 0.0) & (left != right), np.where(right, 1.0, -1.0), side)
    change = np.where(left & right, change, np.where(turned != side, 1.0, 1.0 / _MOST))
    return _Round(value, bar, used, level / largest, terms[0] / h, is_rough, step * change, turned)


def _tables(
    lines: Lines, step: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return the steps ``(K,)``, the values ``(8, K, M)``, the nine around x, all differences."""
    function = lines.function
    h = step * lines.scale * (_UNEVEN if function.is_double else 1.0)
    most = 2.0 * np.abs(function.x[lines.columns]) if lines.columns.size else 0.0
    h = (h + most) - most  # x plus several steps is exact
    values = lines.probe(np.where(side == 0.0, _AROUND, side * _AHEAD) * h)[0]
    fx = np.broadcast_to(function.fx, values[:1].shape)
    around = np.concatenate([values[:4], fx, values[4:]])
    row = np.where((side == 0.0)[:, None], around, np.concatenate([fx, values])) - fx
    tables = [row]
    for _ in range(8):
        tables.append(np.diff(tables[-1], axis=0))
    return h, values, around, tables


def _longer(terms: list[np.ndarray], noise: np.ndarray, order: int) -> np.ndarray:
    """Return how many times as long a step suits a function with this noise.

    The largest ratio of two Taylor terms above the noise is a distance over which it varies.
    """
    radius = np.zeros(noise.shape)
    for k in range(4, 7):
        term = np.fmax(terms[k], math.comb(2 * k, k) ** 0.5 * noise) / math.factorial(k)
        first, second = terms[1] / term, terms[2] / 2.0 / term
        radius = np.fmax(radius, np.fmax(first ** (1.0 / (k - 1)), second ** (1.0 / (k - 2))))
    size = np.fmax(terms[1] * radius, terms[2] / 2.0 * radius**2)
    return np.asarray(radius * (noise / size) ** (1.0 / (8.0 + order)) / 2.0)


@np.errstate(all="ignore")
def unit_of(values: np.ndarray) -> np.ndarray:
    """Return the unit ``(K, M)`` of which all values are multiples, binary or decimal.

    Differences of large numbers have the unit of those, and so do numbers from float32 or a text.
    """
    values = np.where(np.isfinite(values), values, 0.0)
    largest, (mantissas, exponents) = np.abs(values).max(axis=0), np.frexp(values)
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    units = np.ldexp((whole & -whole).astype(np.float64), exponents - 53)
    found = units.min(axis=0, where=whole != 0, initial=np.inf)
    for digits in _DIGITS:
        multiples = values / 10.0 ** (np.ceil(np.log10(largest)) - digits)
        is_whole = np.abs(multiples - np.rint(multiples)) <= 2.0**-50 * np.abs(multiples)
        found = np.where(np.all(is_whole, axis=0), largest / np.abs(multiples).max(axis=0), found)
    return np.where(np.isfinite(found), found, 0.0)
