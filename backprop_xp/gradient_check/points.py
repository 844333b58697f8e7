"""The point of a check: any structure of arrays and numbers, seen as one flat vector ``(P,)``.

Everything is judged on the host, on vectors of float64. ``restore`` gives the caller's functions
back the structure they know, made of arrays of the caller's own library.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    beside,
    device_of,
    dtype_name,
    owner,
    require_beside,
    require_like,
    require_owner,
    to_host,
    unmasked,
)
from backprop_xp.checks import unravel


class Tensor(NamedTuple):
    """A named part of the flat vector, and its shape in the point."""

    name: str
    shape: tuple[int, ...]
    part: slice


class Point(NamedTuple):
    """A flat vector of the caller's library, the tensors in it, and the caller's structure.

    ``leaves`` are the parts of the structure, ``tensors`` those that entries are named by: the
    same, unless one array holds many. ``dresses`` is the structure, with what makes arrays the
    caller's kinds of numbers in place of its leaves. ``is_plain`` says that it holds arrays alone,
    which may be stacked; ``notes`` what was done to make it a point.
    """

    flat: Array
    leaves: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    dresses: Any
    is_plain: bool
    notes: tuple[str, ...]

    def restore(self, vector: Array) -> Any:
        """Return vectors ``(*stack, P)`` in the structure of the point."""
        xp, stack = array_namespace(vector), vector.shape[:-1]
        parts = (xp.reshape(vector[..., t.part], (*stack, *t.shape)) for t in self.leaves)
        return _mapped(lambda dress: dress(next(parts)), self.dresses)

    def tensor_at(self, place: int) -> Tensor:
        """Return the tensor that holds the entry at ``place`` of the vector."""
        return next(t for t in self.tensors if t.part.start <= place < t.part.stop)

    def entry(self, place: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of a tensor and the index in it of the entry at ``place``."""
        tensor = self.tensor_at(place)
        return tensor.name, unravel(place - tensor.part.start, tensor.shape)

    def require(self, fits: np.ndarray, problem: str) -> None:
        """Raise ValueError with the first entry of the point that does not fit."""
        if not np.all(fits):
            place = int(np.argmin(fits))
            name, index = self.entry(place)
            label = f"point{name}" if name[:1] in ("", "[", ".") else name
            number = float(to_host(self.flat)[place])
            raise ValueError(f"{label} is {number} at {list(index)}{problem}")


def flatten(point: Any) -> Point:
    """Return an array, a number, or any structure of them as a ``Point``.

    Whole numbers are cast to floating ones. Raises TypeError for what is not real numbers,
    ValueError for arrays of two places.
    """
    found = list(_leaves(point, point, ""))
    arrays = [_array(leaf, f"point{name}") for name, leaf in found]
    ends = list(itertools.accumulate((math.prod(array.shape) for array in arrays), initial=0))
    if not ends[-1]:
        raise ValueError("point holds no numbers.")
    # Arrays say where the point is, floating ones in which precision; numbers follow them.
    is_array = [owner(leaf) is not None for _, leaf in found]
    is_floating = [array_namespace(a).isdtype(a.dtype, "real floating") for a in arrays]
    first = max(range(len(found)), key=lambda i: (is_array[i], is_floating[i]))
    guide, tensors = arrays[first], []
    for i, (name, _) in enumerate(found):
        if is_array[i]:
            same = require_like if is_floating[i] else require_beside
            same(guide, arrays[i], f"point{name}", f"point{found[first][0]}")
        tensors.append(Tensor(name, tuple(arrays[i].shape), slice(ends[i], ends[i + 1])))
    # A copy shares nothing with the caller's arrays, no graph of an autograd either.
    whole = np.concatenate([to_host(array).reshape(-1) for array in arrays])
    flat = beside(guide, whole, guide.dtype if is_floating[first] else None)
    note = f"the point was cast from {dtype_name(guide.dtype)} to floating numbers"
    notes = () if is_floating[first] else (note,)
    is_plain = all(is_array) and not any(isinstance(leaf, Number) for _, leaf in found)
    return Point(flat, tuple(tensors), tuple(tensors), _mapped(_dress, point), is_plain, notes)


def flatten_gradient(point: Point, gradient: Any, count: int | None) -> np.ndarray:
    """Return a gradient in the point's structure as ``(P, 1)`` on the host, in its own precision.

    Of ``count`` results a Jacobian is expected instead, ``(count, *shape)`` for each tensor, and
    ``(P, count)`` is returned.
    """
    name = "gradient(point)" if count is None else "jacobian(point)"
    return np.concatenate(list(_parts(point, gradient, name, count)), axis=1).T


def flatten_beside(point: Point, value: Any, name: str) -> np.ndarray:
    """Return a number, or numbers in the point's structure, as ``(P,)`` in float64."""
    if isinstance(value, Number):
        return np.full(point.flat.shape, float(value))  # type: ignore[arg-type]
    parts = list(_parts(point, value, name, is_filled=True))
    return np.concatenate(parts, axis=1, dtype=np.float64).reshape(-1)


def _is_leaf(node: Any, kind: Any = object) -> bool:
    """Say whether a node is no structure: lists of nothing but numbers are an array."""
    if isinstance(node, list | tuple):
        is_named = hasattr(node, "_fields")
        return bool(node) and not is_named and all(_is_leaf(part, Number) for part in node)
    return isinstance(node, kind) and not isinstance(node, Mapping)


def _mapped(function: Callable[[Any], Any], node: Any) -> Any:
    """Return a structure with a function of each leaf in its place."""
    if _is_leaf(node):
        return function(node)
    if isinstance(node, Mapping):
        return {key: _mapped(function, node[key]) for key in node}
    return getattr(type(node), "_make", type(node))([_mapped(function, part) for part in node])


def _leaves(node: Any, other: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the names and the leaves of what should be structured as ``node`` is."""
    if _is_leaf(node):
        yield name, other
        return
    (keys, expected), (others, came) = _outline(node), _outline(other)
    if keys != others:
        raise ValueError(
            f"{name} is not structured like point: {expected} are expected, not {came}."
        )
    for place, key in enumerate(keys):
        step = f".{node._fields[place]}" if hasattr(node, "_fields") else f"[{key!r}]"
        yield from _leaves(node[key], other[key], name + step)


def _outline(node: Any) -> tuple[Any, str]:
    """Return the keys, or the places, of a structure's parts, and words for them."""
    if isinstance(node, Mapping):
        return node.keys(), f"the keys {list(node)}"
    if isinstance(node, tuple | list):
        return range(len(node)), f"{len(node)} parts"
    return None, type(node).__name__


def _parts(
    point: Point, value: Any, name: str, count: int | None = None, *, is_filled: bool = False
) -> Iterator[np.ndarray]:
    """Yield the parts ``(count, n)`` of what belongs to a point, for each of its leaves ``(n,)``.

    A single number may stand for all of a leaf if it ``is_filled``.
    """
    leaves = _leaves(point.dresses, value, name)
    for tensor, (label, leaf) in zip(point.leaves, leaves, strict=True):
        leaf = leaf.toarray() if hasattr(leaf, "toarray") else leaf  # a sparse matrix of SciPy's
        if owner(leaf) is not None:
            require_beside(point.flat, leaf, label, "point")
        host = _numbers(leaf, label)
        host = host if host.dtype.kind == "f" else host.astype(np.float64)
        expected = tensor.shape if count is None else (count, *tensor.shape)
        if is_filled and host.size == 1:
            host = np.broadcast_to(host.reshape(()), expected)
        # Axes of length 1 may be missing, or too many: (n, 1) is a gradient of (n,).
        if [n for n in host.shape if n != 1] != [n for n in expected if n != 1]:
            raise ValueError(f"{label} has shape {host.shape}, but {expected} is expected.")
        yield host.reshape(count or 1, math.prod(tensor.shape))


def _dress(leaf: Any) -> Callable[[Any], Any]:
    """Return a function that turns an array into the leaf's own kind: a number, a pandas table."""
    if hasattr(leaf, "to_numpy") and hasattr(leaf, "index"):
        labels = {k: getattr(leaf, k) for k in ("index", "columns") if hasattr(leaf, k)}
        return lambda array: type(leaf)(np.array(to_host(array)), **labels)
    if isinstance(leaf, Number):
        return lambda array: array[()] if isinstance(array, np.ndarray) else array
    return lambda array: array


def _array(leaf: Any, label: str) -> Array:
    """Return a leaf of the point as an array of real numbers, of at most float64."""
    leaf = unmasked(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    array = asarray(_numbers(leaf, label)) if owner(leaf) is None else leaf
    if isinstance(array, np.ndarray | np.generic) and array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if not array_namespace(array).isdtype(array.dtype, ("real floating", "integral")):
        came = dtype_name(array.dtype)
        raise TypeError(f"{label} is {came}, but real floating numbers are expected.")
    require_owner(array, label).require_current(device_of(array), label)
    return array


def _numbers(leaf: Any, label: str) -> np.ndarray:
    """Return real numbers, in an array of any library, a table or lists, on the host."""
    leaf = unmasked(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    try:
        host = to_host(leaf)
    except ValueError as error:
        raise ValueError(f"{label} is not an array of numbers: {error}") from None
    if host.dtype.kind not in "biuf":
        kind = f"of dtype {host.dtype}" if host.dtype != object else f"{leaf!r:.100}"
        raise TypeError(f"{label} must be an array of numbers, not {kind}.")
    return host
