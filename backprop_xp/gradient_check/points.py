"""The point of a check: any structure of arrays, seen as one flat vector.

Everything is done on the vector ``(P,)``, or on a stack of perturbed copies ``(K, P)``; ``restore``
gives the caller's functions back the structure they know.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    owner,
    require_floating,
    require_like,
    require_owner,
    to_host,
)


class Tensor(NamedTuple):
    """A named part of the flat vector, and its shape in the point."""

    name: str
    shape: tuple[int, ...]
    part: slice

    def of(self, whole: str) -> str:
        """Return what the tensor is called in ``whole``, the point or its gradient."""
        if not self.name or self.name.startswith("["):
            return f"{whole}{self.name}"
        return self.name if whole == "point" else f"{whole} by {self.name}"


class Point(NamedTuple):
    """A flat vector, the named tensors in it, and the way back to the caller's structure."""

    flat: Array
    tensors: tuple[Tensor, ...]
    restore: Callable[[Array], Any]
    leaves: Callable[[Any], list[Any]]
    is_structured: bool


def flatten(point: Any) -> Point:
    """Return an array, or a list or dict of arrays, as a ``Point``.

    Raises TypeError for what is not real floating, ValueError for arrays of two places.
    """
    build: Callable[[list[Array]], Any]
    leaves: Callable[[Any], list[Any]]
    if isinstance(point, Mapping):
        keys = list(point)
        names = [f"[{key!r}]" for key in keys]
        build = lambda parts: dict(zip(keys, parts, strict=True))  # noqa: E731
        leaves = lambda value: [value[key] for key in keys]  # noqa: E731
    elif isinstance(point, Sequence):
        names = [f"[{i}]" for i in range(len(point))]
        build, leaves = list, list
    else:
        names = [""]
        build, leaves = operator.itemgetter(0), lambda value: [value]
    arrays = leaves(point)
    tensors = _tensors(names, arrays)
    if not tensors or not tensors[-1].part.stop:
        raise ValueError("point holds no numbers.")
    flat = fresh(_join(arrays))

    def restore(vector: Array) -> Any:
        xp, stack = array_namespace(vector), vector.shape[:-1]
        return build([xp.reshape(vector[..., t.part], (*stack, *t.shape)) for t in tensors])

    return Point(flat, tensors, restore, leaves, isinstance(point, Mapping | Sequence))


def flatten_gradient(point: Point, gradient: Any) -> Array:
    """Return a gradient in the point's structure as a vector ``(P,)`` beside it."""
    if point.is_structured and owner(gradient) is not None:
        raise ValueError(
            f"gradient(point) is one array, but point holds {len(point.tensors)}: return the "
            "structure that point has."
        )
    try:
        arrays = point.leaves(gradient)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"gradient(point) is not structured like point: {error!r}.") from None
    if isinstance(gradient, Mapping) and len(gradient) > len(arrays):
        raise ValueError(
            f"gradient(point) has the keys {list(gradient)}, but point has {len(arrays)} of them."
        )
    if len(arrays) != len(point.tensors):
        raise ValueError(
            f"gradient(point) holds {len(arrays)} arrays, but point {len(point.tensors)}."
        )
    for tensor, array in zip(point.tensors, arrays, strict=True):
        label = tensor.of("gradient(point)")
        require_floating(array, label)
        require_like(point.flat, array, label, "point")
        if tuple(array.shape) != tensor.shape:
            raise ValueError(
                f"{label} has shape {tuple(array.shape)}, but the point there {tensor.shape}."
            )
    return _join(arrays)


def fresh(flat: Array) -> Array:
    """Return a copy of an array that shares nothing with it, no graph of an autograd either."""
    home, host = require_owner(flat, "point"), to_host(flat)
    copy = array_namespace(host).asarray(host, copy=True)
    return home.from_host(copy, flat.dtype, device_of(flat))


def _tensors(names: list[str], arrays: list[Array]) -> tuple[Tensor, ...]:
    tensors, start = [], 0
    for name, array in zip(names, arrays, strict=True):
        label = f"point{name}"
        xp = require_floating(array, label)
        if not xp.isdtype(array.dtype, "real floating"):
            raise TypeError(f"{label} is {array.dtype}, but real floating numbers are expected.")
        require_like(arrays[0], array, label, f"point{names[0]}")
        stop = start + math.prod(array.shape)
        tensors.append(Tensor(name, tuple(array.shape), slice(start, stop)))
        start = stop
    return tuple(tensors)


def _join(arrays: list[Array]) -> Array:
    xp = array_namespace(arrays[0])
    return xp.concat([xp.reshape(array, (-1,)) for array in arrays], axis=-1)
