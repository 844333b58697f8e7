"""Numeric derivatives of smooth functions from nine values along each line.

Eight lie on either side of the point, or all on one side at an edge of the domain. Their divided
differences of order five to eight show the noise of the values and the neglected terms, and hence
whether another step suits better. The ninth value lies between them: they must predict it.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from backprop_xp.gradient_check.engine.constants import (
    AHEAD,
    AROUND,
    BETWEEN,
    DIGITS,
    EXACT,
    FAR,
    FINE,
    GAIN,
    MISSED,
    MOST,
    PARTS,
    QUIET,
    ROUGH,
    ROUNDS,
    SAFETY_OF_NINE,
    SAFETY_OF_NOISE,
    SHORTEST,
    UNEVEN,
    UNITS,
    WORTH,
)
from backprop_xp.gradient_check.engine.lines import Lines, NumericDerivative
from backprop_xp.gradient_check.engine.noise import noise_of_term, taylor_term, unexplained


def _taylor_weights(nodes: list[float]) -> np.ndarray:
    """Return the weights ``(3, nodes)`` of a polynomial through nodes: its derivatives at 0.

    They are computed as fractions: with rounded ones a straight line would have a rounded slope.
    """
    exact, columns = [Fraction(node) for node in nodes], []
    for i, node in enumerate(exact):
        # The polynomial that is 1 at this node and 0 at the others, by powers of x.
        powers, zero = [Fraction(1)], [Fraction(0)]
        for other in exact[:i] + exact[i + 1 :]:
            pairs = zip(powers + zero, zero + powers, strict=True)
            powers = [(below - other * same) / (node - other) for same, below in pairs]
        columns.append([float(math.factorial(k) * power) for k, power in enumerate(powers[:3])])
    return np.asarray(columns).T


def _weights_between(nodes: list[float]) -> np.ndarray:
    """Return the weights with which the values at nodes predict the one between them."""
    return np.asarray([math.prod((BETWEEN - m) / (n - m) for m in nodes if m != n) for n in nodes])


class _Nodes(NamedTuple):
    """Nodes in steps, with the weights of the value between them and of both derivatives.

    ``neglected`` is the truncation error of the first derivative beside the Taylor term of order 9.
    """

    at: list[float]
    between: np.ndarray
    derivative: dict[int, np.ndarray]
    neglected: float


def _nodes(at: list[float]) -> _Nodes:
    derivative = dict(enumerate(_taylor_weights(at)))
    neglected = math.prod(abs(node) for node in at if node) / math.factorial(9)
    return _Nodes(at, _weights_between(at), derivative, neglected)


_CENTRAL, _ONE_SIDED = _nodes(AROUND), _nodes(AHEAD)


class _Round(NamedTuple):
    """Derivatives ``(K, M)`` with their steps, the rounding of the values, and steepest slopes.

    ``noise`` is what no polynomial explains. ``is_noise``: it exceeds rounding, and does not shrink
    from order to order. ``is_rough``: it is so large that the value varies within a step, most
    likely. ``is_flat``: the value does not change. ``step`` and ``side (K,)`` are those of the next
    round; side 0 means both sides of the point.
    """

    value: np.ndarray
    bar: np.ndarray
    used: np.ndarray
    rounding: np.ndarray
    steepest: np.ndarray
    noise: np.ndarray
    is_noise: np.ndarray
    is_rough: np.ndarray
    is_flat: np.ndarray
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
    is_fine = np.any(found.bar < FINE * found.steepest, axis=0)
    is_poor = (found.bar >= found.steepest) & ~((found.steepest == 0.0) & is_fine)
    numeric = NumericDerivative(*found[:2], found.value, found.value, found.used)
    return numeric, is_poor


def first_step(rounding: float, order: int) -> float:
    """Return the step, relative to its scale, that suits values with this relative rounding."""
    return float(2.0 ** round(math.log2(rounding ** (1.0 / (8.0 + order)) / 2.0)))


def _rounds(lines: Lines, order: int, rounding: float) -> _Round:
    """Return the best derivatives of several rounds, which end when no bar improves.

    A rough round explains nothing: shorter steps follow, until a polynomial explains the values, or
    until what it leaves no longer shrinks and is noise.
    """
    step = np.full(lines.scale.shape, first_step(rounding, order))
    best = _round(lines, step, 0.0 * step, order)
    lost, is_unknown = best.is_rough.copy(), best.is_rough.copy()
    some = np.flatnonzero((best.step != step) | (best.side != 0.0))
    for _ in range(ROUNDS):
        if not some.size:
            break
        step, side, before = best.step[some], best.side[some], best.bar[some]
        fresh, was_lost = _round(lines.select(some), step, side, order), lost[some]
        # Long steps may skip what is near: a wave whose periods they fit, or a step.
        gap = np.abs(fresh.value - best.value[some]) - fresh.bar - before
        is_longer, is_doubtful = fresh.used > best.used[some], (gap > 0.0) | fresh.is_rough
        is_better = (fresh.bar < before) & ~(is_longer & is_doubtful)
        is_explained = ~fresh.is_flat & ~fresh.is_noise
        # With the step a kink shrinks by MOST, and noise by 1: half-way between.
        shrinks = fresh.is_flat | (fresh.noise < best.noise[some] / MOST**0.5)
        is_better = np.where(was_lost, is_explained | shrinks & ~fresh.is_flat, is_better)
        is_lost = was_lost & ~is_explained & (shrinks | best.is_rough[some])
        is_lost |= ~was_lost & is_better & fresh.is_rough
        lost[some], is_unknown[some] = is_lost, is_lost & (shrinks | ~was_lost)
        for old, new in zip(best[:-2], fresh[:-2], strict=True):
            old[some] = np.where(is_better, new, old[some])
        shorter = np.where(side == fresh.side, step / MOST, fresh.step)
        is_next = np.any(is_lost & ~fresh.is_flat, axis=1)
        best.step[some], best.side[some] = np.where(is_next, shorter, fresh.step), fresh.side
        gains = np.any((fresh.bar < GAIN * before) | np.isinf(before) | was_lost, axis=1)
        moves = (best.step[some] != step) | (fresh.side != side)
        some = some[gains & moves & (best.step[some] >= SHORTEST)]
    return best._replace(bar=np.where(is_unknown, np.inf, best.bar))


def _round(lines: Lines, step: np.ndarray, side: np.ndarray, order: int) -> _Round:
    """Return derivatives from the steps ``step (K,)`` to a side or both."""
    found, rows = [], []
    for chosen, nodes in ((side == 0.0, _CENTRAL), (side != 0.0, _ONE_SIDED)):
        if (some := np.flatnonzero(chosen)).size:
            rows.append(some)
            found.append(_at_nodes(lines.select(some), step[some], side[some], order, nodes))
    back = np.argsort(np.concatenate(rows))
    return _Round(*(np.concatenate(parts)[back] for parts in zip(*found, strict=True)))


@np.errstate(all="ignore")
def _at_nodes(
    lines: Lines, step: np.ndarray, side: np.ndarray, order: int, nodes: _Nodes
) -> _Round:
    """Return derivatives from values at one kind of nodes."""
    function, fx = lines.function, lines.function.fx
    h, values, between = _sample(lines, step, side, nodes)
    row = np.insert(values - fx, nodes.at.index(0.0), 0.0, axis=0)
    moved, largest = np.abs(row).max(axis=0), np.fmax(np.abs(values).max(axis=0), np.abs(fx))
    is_flat, unit = moved == 0.0, np.where(moved > 0.0, unit_of(values), 0.0)
    floor = 0.5 * np.fmax(function.epsilon * largest, unit)
    noise, is_noise = _noise(row, between - fx, floor, nodes)
    # One line may show little of the rounding by chance: most of them show how large it is.
    shows = ~is_flat & np.isfinite(noise)
    shared = np.median(np.where(shows, noise / floor, 0.0), axis=0)
    noise = np.fmax(noise, np.fmin(shared, UNITS) * floor)
    is_rough = is_noise & (noise > np.fmax(ROUGH * largest, UNITS * unit))
    value, h = _derivative(row, order, nodes) / h**order, np.abs(h)
    amplified = np.linalg.norm(nodes.derivative[order]) / h**order
    bar = np.where(is_noise, SAFETY_OF_NOISE, SAFETY_OF_NINE) * amplified * noise
    bar += np.where(is_rough, moved / h**order, 0.0)
    is_finite = np.isfinite(bar + value)
    bar, value = np.where(is_finite, bar, np.inf), np.where(is_finite, value, 0.0)
    # A longer step suits noise, a shorter one neglected terms.
    level, size = np.where(is_noise & ~is_rough, noise, floor), np.abs(value)
    change = _change(row, noise, level, floor, order, nodes)
    # A parabola up to rounding may be one over longer steps too.
    left = np.fmax(*(unexplained(row, nodes.at, k).max(axis=0) for k in (3, 4)))
    is_parabola = left <= 4.0 * np.fmin(noise, EXACT * largest)
    change = np.where(is_parabola, np.fmax(change, WORTH), change)
    change = np.clip(np.nan_to_num(change, nan=MOST), 1.0 / MOST, MOST**2)
    used = step[:, None] + 0.0 * value
    is_settled = (change > 0.7) & (change < WORTH) | is_flat & (used > 1.0)
    is_settled |= (change > 1.0) & (level <= QUIET * size * h**order)
    is_settled |= (change < 1.0) & (bar <= EXACT * size)
    is_settled &= ~is_rough
    change = np.where(is_rough, 1.0 / MOST, 2.0 ** np.round(np.log2(change)))
    change = np.where(is_flat, FAR, change)
    # The result with the largest relative bar decides.
    need = np.where(is_settled, -1.0, np.fmin(np.nan_to_num(bar / size, nan=0.0), 1e300))
    deciding = np.argmax(need, axis=1)[:, None]
    change = np.take_along_axis(np.where(is_settled, 1.0, change), deciding, 1)[:, 0]
    # Outside of the domain the other side serves, or else a shorter step.
    known, is_left = np.isfinite(row).all(axis=2), np.asarray(nodes.at) < 0.0
    left, right = known[is_left].all(axis=0), known[~is_left].all(axis=0)
    turned = np.where((side == 0.0) & (left != right), np.where(right, 1.0, -1.0), side)
    change = np.where(left & right, change, np.where(turned != side, 1.0, 1.0 / MOST))
    kinds = is_noise & (noise > UNITS * floor), is_rough, is_flat
    sizes = level / largest, moved / h, noise
    return _Round(value, bar, used, *sizes, *kinds, step * change, turned)


def _sample(
    lines: Lines, step: np.ndarray, side: np.ndarray, nodes: _Nodes
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the steps ``(K, 1)``, the values ``(8, K, M)`` at the nodes, and those between."""
    function = lines.function
    h = step * lines.scale * (UNEVEN if function.is_double else 1.0)
    most = 2.0 * PARTS * np.abs(function.x[lines.columns]) if lines.columns.size else 0.0
    h = np.where(side < 0.0, -1.0, 1.0) * ((h + most) - most)  # x plus parts of steps is exact
    at = np.asarray([node for node in nodes.at if node] + [BETWEEN])[:, None]
    values = lines.probe(at * h)[0]
    return h[:, None], values[:-1], values[-1]


def _derivative(row: np.ndarray, order: int, nodes: _Nodes) -> np.ndarray:
    """Return the derivatives, for steps of 1, of changes ``(9, K, M)`` from the point's value."""
    weights = nodes.derivative[order]
    if nodes is _ONE_SIDED:
        return np.asarray(np.tensordot(weights, row, 1))
    ahead, behind = row[5:], row[3::-1]
    part = ahead - behind if order == 1 else ahead + behind  # exactly 0 for an even function
    return np.asarray(np.tensordot(weights[5:], part, 1))


def _noise(
    row: np.ndarray, between: np.ndarray, floor: np.ndarray, nodes: _Nodes
) -> tuple[np.ndarray, np.ndarray]:
    """Return the noise ``(K, M)`` of values, at least ``floor``, and whether they are noisy.

    From order to order the terms of a smooth function shrink, but noise does not. Even or odd terms
    may vanish. One difference may be small by chance, and so the value between counts as well.
    """
    left = {k: unexplained(row, nodes.at, k).max(axis=0) for k in range(5, 9)}
    shrinks = np.fmin(1.0, 4.0 * np.fmax(left[7] / left[5], left[8] / left[6]))
    noise = np.fmax(left[6] * shrinks, left[7] * shrinks**0.5)
    noise = np.fmax(np.fmax(noise, left[8]), floor)
    missed = np.abs(between - np.tensordot(nodes.between, row, 1))
    is_noise = (left[6] > 0.0) & (shrinks == 1.0) | (missed > MISSED * noise)
    return np.fmax(noise, missed), is_noise


def _change(
    row: np.ndarray,
    noise: np.ndarray,
    level: np.ndarray,
    floor: np.ndarray,
    order: int,
    nodes: _Nodes,
) -> np.ndarray:
    """Return how many times as long a step suits values with this noise."""
    terms = {k: taylor_term(row, nodes.at, k) for k in range(1, 9)}
    ratio = np.fmax(terms[7] / terms[5], terms[8] / terms[6])
    if nodes is _ONE_SIDED:
        neglected = terms[8] * ratio**0.5
    else:
        neglected = terms[7] * ratio if order == 1 else terms[8] * ratio / 5.0
    amplified = np.linalg.norm(nodes.derivative[order])
    change = (amplified * floor / (nodes.neglected * neglected)) ** (1.0 / (8.0 + order))
    change = np.where(noise <= 4.0 * level, _longer(terms, noise, order, nodes), change)
    return np.asarray(change)


def _longer(
    terms: dict[int, np.ndarray], noise: np.ndarray, order: int, nodes: _Nodes
) -> np.ndarray:
    """Return how many times as long a step suits a function with this noise.

    The largest ratio of two Taylor terms above the noise is a distance over which it varies.
    """
    radius = np.zeros(noise.shape)
    for k in range(4, 7):
        term = np.fmax(terms[k], noise_of_term(nodes.at, k) * noise) / math.factorial(k)
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
    for digits in DIGITS:
        multiples = values / 10.0 ** (np.ceil(np.log10(largest)) - digits)
        is_whole = np.abs(multiples - np.rint(multiples)) <= 2.0**-50 * np.abs(multiples)
        found = np.where(np.all(is_whole, axis=0), largest / np.abs(multiples).max(axis=0), found)
    return np.where(np.isfinite(found), found, 0.0)
