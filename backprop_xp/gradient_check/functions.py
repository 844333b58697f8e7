"""The function that is checked, near its point: on stacks of points, and one entry at a time.

Points ``(P,)`` are arrays of the caller's library, in the caller's precision. Values, and all that
is judged from them, are NumPy arrays on the host, in float64 or complex128.
"""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from numbers import Number
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    owner,
    require_owner,
    to_host,
)
from backprop_xp.gradient_check.points import Point

Host: TypeAlias = Any
Tally: TypeAlias = Counter[str]


class Function(NamedTuple):
    """A real function around one point ``(P,)``.

    ``at`` maps points ``(K, P)`` to values ``(K,)``. ``entries(columns, moved)`` gives the values
    where entry ``columns[k]`` of the point, in ascending order, is ``moved[k]``, a host array, and
    the others are as they are. Both take complex numbers, and add K to ``tally["value"]``.

    ``host`` is the point on the host and ``base`` the value there. ``in_double`` gives the function
    in float64, where it can be had; ``frozen`` the smooth piece of it that the point lies on, where
    its kinks are known. ``is_raised`` says that it is such a function in float64, whose point is
    known to float32's rounding only.
    """

    flat: Array
    host: Host
    base: float
    at: Callable[[Array], Host]
    entries: Callable[[Sequence[int], Host], Host]
    tally: Tally
    in_double: Callable[[], "Function | None"]
    frozen: Callable[[], "Function | None"]
    is_raised: bool = False


def nothing() -> None:
    """Return None: what ``in_double`` or ``frozen`` is where there is no such function."""
    return


def of_value(
    value: Callable[[Any], Any],
    point: Point,
    base: float,
    tally: Tally,
    *,
    batched: bool | None,
    max_memory: int,
) -> Function:
    """Return a caller's ``value`` as a ``Function``; ``base`` is its value at the point.

    ``batched`` None tries whether value takes stacked copies when there are several to evaluate.
    """
    flat = point.flat
    home = require_owner(flat, "point")
    one = functools.partial(solo, value, point, stacked=batched is True)

    @functools.cache
    def at_once() -> bool:
        if batched is False:
            return False
        tally["value"] += 4
        fits = takes_stacks(lambda points: value(point.restore(points)), flat, batched is True)
        if batched and not fits:
            raise ValueError(
                "batched=True, but value of stacked copies is not what it is of each alone: it "
                "must return one number for each copy, from that copy only. Leave it out."
            )
        return fits

    def at(points: Array, together: bool = batched is True) -> Host:
        tally["value"] += points.shape[0]
        if together:
            return _checked(value(point.restore(points)), points.shape[0])
        return to_host([one(points[i, ...]) for i in range(points.shape[0])])

    def entries(columns: Sequence[int], moved: Host) -> Host:
        # Beside the stack itself: the parts in the point's structure, and what value makes of them.
        copies = max(1, max_memory // (5 * flat.shape[-1] * moved.dtype.itemsize))
        together = batched is True if copies == 1 else at_once()
        values = home.from_host(moved, None, device_of(flat))
        parts = chunks(len(columns), copies)
        return joined([at(moved_copies(flat, columns[p], values[p]), together) for p in parts])

    @functools.cache
    def in_double() -> Function | None:
        double = doubled(flat)
        if double is None:
            return None
        raised = point._replace(flat=double)
        try:
            tally["value"] += 1
            result = value(raised.restore(double[None, :] if batched else double))
        except Exception:
            return None
        xp = array_namespace(double)
        if getattr(result, "dtype", xp.float64) != xp.float64:
            return None
        there = number(result, stacked=batched is True)
        function = of_value(value, raised, there, tally, batched=batched, max_memory=max_memory)
        return function._replace(is_raised=True)

    return Function(flat, to_host(flat), base, at, entries, tally, in_double, nothing)


def solo(value: Callable[[Any], Any], point: Point, flat: Array, *, stacked: bool) -> Any:
    """Return ``value`` of one point ``(P,)`` as a Python number; ``stacked`` as a stack of one."""
    return number(value(point.restore(flat[None, :] if stacked else flat)), stacked=stacked)


def number(result: Any, *, stacked: bool) -> Any:
    """Return what a value returned as a Python number, or raise for what is not one number."""
    if stacked:
        return _checked(result, 1)[0].item()
    if isinstance(result, float | complex):  # as NumPy's own sums are
        return float(result) if isinstance(result, float) else complex(result)
    if owner(result) is None and not isinstance(result, Number):
        raise TypeError(f"value(point) must be one number, not {result!r:.100}.")
    host = to_host(result)
    if host.shape:
        raise ValueError(f"value(point) must be one number, but has shape {host.shape}.")
    if host.dtype.kind not in "fciu":
        raise TypeError(f"value(point) must be one number, not of dtype {host.dtype}.")
    return host.item()


def takes_stacks(value: Callable[[Array], Any], flat: Array, stacked: bool = False) -> bool:
    """Say whether value takes stacked copies: two different ones must come out as they do alone.

    ``stacked`` says that one alone is given as a stack too.
    """
    xp = array_namespace(flat)
    copies = xp.stack([flat, (1.0 + 2.0**-10) * flat + 2.0**-10])
    parts = [copies[i : i + 1, ...] if stacked else copies[i, ...] for i in range(2)]
    alone = [number(value(part), stacked=stacked) for part in parts]
    try:
        together = to_host(value(copies))
    except Exception:
        return False
    if together.shape != (2,):
        return False
    slack = 64.0 * float(xp.finfo(flat.dtype).eps)
    pairs = zip(together.tolist(), alone, strict=True)
    return all(abs(a - b) <= slack * abs(b) for a, b in pairs)


def doubled(flat: Array) -> Array | None:
    """Return a float32 point in float64; None if it is float64, or the device has no float64."""
    xp, home = array_namespace(flat), require_owner(flat, "point")
    if flat.dtype == xp.float64:
        return None
    try:
        return home.from_host(to_host(flat), xp.float64, device_of(flat))
    except Exception:
        return None


def chunks(count: int, most: int) -> Iterator[slice]:
    """Yield slices of at most ``most``, as equal as can be: a library may compile each length."""
    parts = -(-count // most)
    for i in range(parts):
        yield slice(i * count // parts, (i + 1) * count // parts)


def joined(parts: Sequence[Host]) -> Host:
    """Return the parts of an evaluation as one array."""
    return array_namespace(parts[0]).concat(parts, axis=-1)


def index(array: Array, numbers: Sequence[int]) -> Array:
    """Return whole numbers as an int32 array beside ``array``."""
    xp = array_namespace(array)
    return xp.asarray(list(numbers), dtype=xp.int32, device=device_of(array))


def moved_copies(flat: Array, columns: Sequence[int], moved: Array) -> Array:
    """Return copies ``(K, P)`` of a point, in each one entry moved."""
    xp = array_namespace(flat)
    places = xp.arange(flat.shape[-1], dtype=xp.int32, device=device_of(flat))
    chosen = index(flat, columns)[:, None] == places[None, :]
    return xp.where(chosen, moved[:, None], xp.astype(flat, moved.dtype)[None, :])


def _checked(result: Any, copies: int) -> Host:
    """Return the values of a stack of copies, or raise if they are not one for each."""
    shape = tuple(getattr(result, "shape", ()))
    if shape != (copies,):
        raise ValueError(
            f"value of {copies} stacked copies has shape {shape}, but one number for each is "
            "expected. Leave batched=True out."
        )
    return to_host(result)
