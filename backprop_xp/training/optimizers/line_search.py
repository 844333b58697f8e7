"""A line search for stacks, one evaluation at a time: the strong Wolfe conditions by a bracket.

Nocedal and Wright 2006, section 3.5. Arrays are ``(*stack, 1)``. A point of the line has its length
t, the value there, and the slope by t.
"""

import math
from typing import NamedTuple

from backprop_xp.backends import Array, array_namespace

# The conditions: the value falls by this part of what the first slope says, and the slope is at
# most this part of the first one in size.
_DECREASE, _CURVATURE = 1e-4, 0.9
# The least distance of a point from both ends of its bracket, as a part of it; without an upper
# end, a search goes on by at least and at most these parts of what it came.
_MARGIN, _LEAST_GROWTH, _MOST_GROWTH = 0.1, 1.1, 4.0
# A bracket of this part of its upper end is narrow: MINPACK's dcsrch, by SciPy's L-BFGS-B.
_NARROW = 0.1


class Trial(NamedTuple):
    """A point that a line search tries, with the value and the slope along the line."""

    length: Array
    value: Array
    slope: Array


class Search(NamedTuple):
    """A search: its first point, the ends of its bracket, and the number of its evaluations.

    At ``low`` the value is small enough and falls too steeply. At ``high`` it is too large, or it
    rises too steeply. The length of ``high`` is infinite until there is such a point.
    """

    first: Trial
    low: Trial
    high: Trial
    tries: Array


def as_array(search: Search) -> Array:
    """Return a search as one array, ``(*stack, 10)``."""
    first, low, high, tries = search
    return array_namespace(tries).concat([*first, *low, *high, tries], axis=-1)


def from_array(array: Array) -> Search:
    """Return the search of an array: undo ``as_array``."""
    parts = [array[..., i : i + 1] for i in range(10)]
    return Search(Trial(*parts[:3]), Trial(*parts[3:6]), Trial(*parts[6:9]), parts[9])


def begun(value: Array, slope: Array) -> Search:
    """Return the search from a point of this value and slope."""
    zeros = 0.0 * slope
    first = Trial(zeros, value, slope)
    return Search(first, first, Trial(zeros + math.inf, zeros, zeros), zeros)


def is_accepted(search: Search, point: Trial) -> tuple[Array, Array]:
    """Return where a point satisfies both conditions, and where it is another ``low`` end.

    A ``low`` end that comes again is accepted too. A value that is not a number is too large.
    """
    xp, first = array_namespace(point.value), search.first
    is_small = point.value <= first.value + _DECREASE * point.length * first.slope
    steep = -_CURVATURE * first.slope
    is_again = (point.length == search.low.length) & (point.length > 0.0)
    is_end = is_again | (xp.abs(point.slope) <= steep)
    return is_small & is_end, is_small & (point.slope < -steep)


def narrowed(search: Search, point: Trial, is_low: Array) -> tuple[Search, Array]:
    """Return the search after a point that was not accepted, and the length of its next point.

    In a narrow bracket it is that of the ``low`` end: there the slope may jump, as relu's does.
    """
    xp, old, low = array_namespace(point.length), search.low, where(is_low, point, search.low)
    high = where(is_low, search.high, point)
    length = xp.where(high.length < math.inf, _between(low, high), _beyond(old, low))
    length = xp.where(low.length >= (1.0 - _NARROW) * high.length, low.length, length)
    return search._replace(low=low, high=high, tries=search.tries + 1.0), length


def where(condition: Array, yes: Trial, no: Trial) -> Trial:
    """Return one point or the other for each network."""
    xp = array_namespace(condition)
    return Trial(*(xp.where(condition, a, b) for a, b in zip(yes, no, strict=True)))


def _between(low: Trial, high: Trial) -> Array:
    """Return the minimum of the cubic through both ends (eq. 3.59), away from both, or the middle.

    The middle is for ends whose cubic has no minimum, or whose values are not finite.
    """
    xp, width = array_namespace(low.length), high.length - low.length
    is_finite = xp.isfinite(width) & (width != 0.0)
    for each in (low.value, high.value, low.slope, high.slope):
        is_finite = is_finite & xp.isfinite(each)
    rise = xp.where(is_finite, high.value, 1.0) - xp.where(is_finite, low.value, 0.0)
    rise = rise / xp.where(is_finite, width, 1.0)
    start, end = (xp.where(is_finite, one.slope, 1.0) for one in (low, high))
    # The minimum depends on the ratios of the slopes alone, whose squares do not overflow.
    size = xp.maximum(xp.abs(rise), xp.maximum(xp.abs(start), xp.abs(end)))
    size = size + xp.astype(size == 0.0, size.dtype)
    start, end, rise = start / size, end / size, rise / size
    a = start + end - 3.0 * rise
    square = a * a - start * end
    root = xp.sqrt(xp.maximum(square, 0.0))
    over = end - start + 2.0 * root
    has_minimum = is_finite & (square >= 0.0) & (over > 0.0)
    part = 1.0 - (end + root - a) / xp.where(has_minimum, over, 1.0)
    part = xp.where(has_minimum, xp.clip(part, _MARGIN, 1.0 - _MARGIN), 0.5)
    return low.length + part * xp.where(xp.isfinite(width), width, 0.0)


def _beyond(old: Trial, low: Trial) -> Array:
    """Return the length where the slope would be 0 by its last change, within bounds."""
    xp, came = array_namespace(low.length), low.length - old.length
    change = low.slope - old.slope
    is_rising = change > 0.0
    part = xp.where(is_rising, -low.slope / xp.where(is_rising, change, 1.0), _MOST_GROWTH)
    return low.length + xp.clip(part, _LEAST_GROWTH, _MOST_GROWTH) * came
