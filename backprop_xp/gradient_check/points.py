"""The point of a check: a structure of arrays and numbers, and its flat vector ``(P,)``.

The check itself computes on the host, with vectors in float64. ``Point.restore`` turns a vector
into the caller's structure, made of arrays of the caller's library.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    device_of,
    dtype_name,
    owner,
    plain_array,
    require_like,
    require_owner,
    require_same_device,
    to_device_of,
    to_host,
)
from backprop_xp.checks import unravel

# An array of any library, a number, or dicts, lists and tuples of them, nested.
Structure: TypeAlias = Any


class Tensor(NamedTuple):
    """A named part of the flat vector, and its shape in the point."""

    name: str
    shape: tuple[int, ...]
    part: slice


class Point(NamedTuple):
    """A flat vector of the caller's library, its tensors, and the caller's structure.

    ``leaves`` are the leaves of the structure. ``tensors`` name the entries: they are the leaves,
    unless one array holds many tensors. ``converters`` is the structure with a function as each
    leaf, which turns an array into the leaf's own type. ``is_plain``: all leaves are arrays, so
    that copies can be stacked. ``notes`` are sentences for the report.
    """

    flat: Array
    leaves: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    converters: Structure
    is_plain: bool
    notes: tuple[str, ...]

    def restore(self, vector: Array) -> Structure:
        """Return vectors ``(*stack, P)`` in the structure of the point."""
        xp, stack = array_namespace(vector), vector.shape[:-1]
        parts = (xp.reshape(vector[..., t.part], (*stack, *t.shape)) for t in self.leaves)
        return _map(lambda convert: convert(next(parts)), self.converters)

    def tensor_at(self, i: int) -> Tensor:
        """Return the tensor that holds entry i of the vector."""
        return next(t for t in self.tensors if t.part.start <= i < t.part.stop)

    def entry(self, i: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of the tensor that holds entry i, and the entry's index in it."""
        tensor = self.tensor_at(i)
        return tensor.name, unravel(i - tensor.part.start, tensor.shape)

    def require(self, is_valid: np.ndarray, problem: str) -> None:
        """Raise ValueError with the first entry of the point that is not valid."""
        if not np.all(is_valid):
            i = int(np.argmin(is_valid))
            name, index = self.entry(i)
            label = f"point{name}" if name[:1] in ("", "[", ".") else name
            raise ValueError(f"{label} is {float(to_host(self.flat)[i])} at {list(index)}{problem}")


def flatten(point: Structure) -> Point:
    """Return an array, a number, or a structure of them as a ``Point``.

    Integers are cast to floating numbers. Raises TypeError for anything but real numbers, and
    ValueError for arrays of two libraries or devices.
    """
    leaves = list(_leaves(point, point, ""))
    arrays = [_array(leaf, f"point{name}") for name, leaf in leaves]
    ends = list(itertools.accumulate((math.prod(array.shape) for array in arrays), initial=0))
    if not ends[-1]:
        raise ValueError("point holds no numbers.")
    # The first floating array decides library, device and dtype, else the first array.
    is_array = [owner(leaf) is not None for _, leaf in leaves]
    is_floating = [array_namespace(a).isdtype(a.dtype, "real floating") for a in arrays]
    first = max(range(len(leaves)), key=lambda i: (is_array[i], is_floating[i]))
    model, tensors = arrays[first], []
    for i, (name, _) in enumerate(leaves):
        if is_array[i]:
            require = require_like if is_floating[i] else require_same_device
            require(model, arrays[i], f"point{name}", f"point{leaves[first][0]}")
        tensors.append(Tensor(name, tuple(arrays[i].shape), slice(ends[i], ends[i + 1])))
    # A copy shares no memory and no autograd graph with the caller's arrays.
    vector = np.concatenate([to_host(array).reshape(-1) for array in arrays])
    flat = to_device_of(model, vector, model.dtype if is_floating[first] else None)
    note = f"the point was cast from {dtype_name(model.dtype)} to floating numbers"
    notes = () if is_floating[first] else (note,)
    is_plain = all(is_array) and not any(isinstance(leaf, Number) for _, leaf in leaves)
    return Point(flat, tuple(tensors), tuple(tensors), _map(_converter, point), is_plain, notes)


def flatten_gradient(point: Point, gradient: Structure, results: int | None) -> np.ndarray:
    """Return a gradient in the point's structure as ``(P, 1)`` on the host, in its own dtype.

    With ``results`` it is a Jacobian, ``(results, *shape)`` per leaf, returned as ``(P, results)``.
    """
    name = "gradient(point)" if results is None else "jacobian(point)"
    return np.concatenate(list(_parts(point, gradient, name, results)), axis=1).T


def flatten_like(point: Point, value: Structure, name: str) -> np.ndarray:
    """Return a number, or numbers in the point's structure, as ``(P,)`` in float64."""
    if isinstance(value, Number):
        return np.full(point.flat.shape, float(value))  # type: ignore[arg-type]
    parts = list(_parts(point, value, name, broadcasts=True))
    return np.concatenate(parts, axis=1, dtype=np.float64).reshape(-1)


def _is_leaf(node: Structure, kind: type = object) -> bool:
    """Whether a node is a leaf; a list of numbers is one, since it means an array."""
    if isinstance(node, list | tuple):
        is_named = hasattr(node, "_fields")
        return bool(node) and not is_named and all(_is_leaf(part, Number) for part in node)
    return isinstance(node, kind) and not isinstance(node, Mapping)


def _map(function: Callable[[Any], Any], node: Structure) -> Structure:
    """Return a structure with the function applied to each leaf."""
    if _is_leaf(node):
        return function(node)
    if isinstance(node, Mapping):
        return {key: _map(function, node[key]) for key in node}
    return getattr(type(node), "_make", type(node))([_map(function, part) for part in node])


def _leaves(node: Structure, other: Structure, name: str) -> Iterator[tuple[str, Structure]]:
    """Yield the names and leaves of ``other``, which must be structured like ``node``."""
    if _is_leaf(node):
        yield name, other
        return
    (keys, expected), (others, received) = _keys(node), _keys(other)
    if keys != others:
        raise ValueError(f"{name} must be structured like point: {expected}, not {received}.")
    for i, key in enumerate(keys):
        step = f".{node._fields[i]}" if hasattr(node, "_fields") else f"[{key!r}]"
        yield from _leaves(node[key], other[key], name + step)


def _keys(node: Structure) -> tuple[Any, str]:
    """Return the keys or indices of a structure's parts, and words for them."""
    if isinstance(node, Mapping):
        return node.keys(), f"the keys {list(node)}"
    if isinstance(node, tuple | list):
        return range(len(node)), f"{len(node)} parts"
    return None, type(node).__name__


def _parts(
    point: Point,
    value: Structure,
    name: str,
    results: int | None = None,
    *,
    broadcasts: bool = False,
) -> Iterator[np.ndarray]:
    """Yield ``(results, n)`` for each leaf ``(n,)`` of a value in the point's structure.

    With ``broadcasts`` a single number stands for all entries of a leaf.
    """
    leaves = _leaves(point.converters, value, name)
    for tensor, (label, leaf) in zip(point.leaves, leaves, strict=True):
        leaf = leaf.toarray() if hasattr(leaf, "toarray") else leaf  # a sparse matrix of SciPy's
        if owner(leaf) is not None:
            require_same_device(point.flat, leaf, label, "point")
        host = _numbers(leaf, label)
        host = host if host.dtype.kind == "f" else host.astype(np.float64)
        expected = tensor.shape if results is None else (results, *tensor.shape)
        if broadcasts and host.size == 1:
            host = np.broadcast_to(host.reshape(()), expected)
        # Axes of length 1 do not matter: (n, 1) is a gradient of (n,).
        if [n for n in host.shape if n != 1] != [n for n in expected if n != 1]:
            raise ValueError(f"{label} has shape {host.shape}, but {expected} is expected.")
        yield host.reshape(results or 1, math.prod(tensor.shape))


def _converter(leaf: Structure) -> Callable[[Array], Structure]:
    """Return a function that turns an array into the leaf's type: a number, a pandas table."""
    if hasattr(leaf, "to_numpy") and hasattr(leaf, "index"):
        labels = {k: getattr(leaf, k) for k in ("index", "columns") if hasattr(leaf, k)}
        return lambda array: type(leaf)(np.array(to_host(array)), **labels)
    if isinstance(leaf, Number):
        return lambda array: array[()] if isinstance(array, np.ndarray) else array
    return lambda array: array


def _array(leaf: Structure, label: str) -> Array:
    """Return a leaf of the point as an array of real numbers, in float64 at most."""
    leaf = plain_array(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    array = asarray(_numbers(leaf, label)) if owner(leaf) is None else leaf
    if isinstance(array, np.ndarray | np.generic) and array.dtype == np.longdouble:
        array = array.astype(np.float64)
    if not array_namespace(array).isdtype(array.dtype, ("real floating", "integral")):
        dtype = dtype_name(array.dtype)
        raise TypeError(f"{label} is {dtype}, but real floating numbers are expected.")
    require_owner(array, label).require_current(device_of(array), label)
    return array


def _numbers(leaf: Structure, label: str) -> np.ndarray:
    """Return the real numbers of an array of any library, a table or lists, on the host."""
    leaf = plain_array(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    try:
        host = to_host(leaf)
    except ValueError as error:
        raise ValueError(f"{label} is not an array of numbers: {error}") from None
    if host.dtype.kind not in "biuf":
        kind = f"of dtype {host.dtype}" if host.dtype != object else f"{leaf!r:.100}"
        raise TypeError(f"{label} must be an array of numbers, not {kind}.")
    return host
