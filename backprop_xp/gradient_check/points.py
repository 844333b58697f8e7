"""The point of a check: any structure of arrays and numbers, seen as one flat vector ``(P,)``.

Everything is judged on the host, on vectors of float64. ``restore`` gives the caller's functions
back the structure they know, made of arrays of the caller's own library.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    device_of,
    dtype_name,
    owner,
    require_beside,
    require_like,
    require_owner,
    to_host,
)
from backprop_xp.checks import unravel


class Tensor(NamedTuple):
    """A named part of the flat vector, and its shape in the point."""

    name: str
    shape: tuple[int, ...]
    part: slice

    def of(self, whole: str) -> str:
        """Return what the tensor is called in ``whole``, the point or its gradient."""
        if not self.name or self.name.startswith(("[", ".")):
            return f"{whole}{self.name}"
        return self.name if whole == "point" else f"{whole} by {self.name}"

    def row_of(self, place: int) -> slice:
        """Return where the row of an entry lies, along the tensor's last axis."""
        length = self.shape[-1] if self.shape else 1
        start = place - (place - self.part.start) % length
        return slice(start, start + length)


class _Node(NamedTuple):
    """A part of a structure: how it is built from its leaves, and how they are found again."""

    build: Callable[[Iterator[Any]], Any]
    leaves: Callable[[Any, str], Iterator[Any]]


class Point(NamedTuple):
    """A flat vector of the caller's library, the tensors in it, and the caller's structure.

    ``leaves`` are the parts of the structure, ``tensors`` those that entries are named by: the
    same, unless one array holds many. ``is_plain`` says that the structure holds arrays alone,
    which may be stacked; ``notes`` what was done to make it a point.
    """

    flat: Array
    leaves: tuple[Tensor, ...]
    tensors: tuple[Tensor, ...]
    node: _Node
    is_plain: bool
    notes: tuple[str, ...]

    def restore(self, vector: Array) -> Any:
        """Return vectors ``(*stack, P)`` in the structure of the point."""
        xp, stack = array_namespace(vector), vector.shape[:-1]
        parts = (xp.reshape(vector[..., t.part], (*stack, *t.shape)) for t in self.leaves)
        return self.node.build(iter(parts))

    def device_array(self, host: np.ndarray, dtype: Any) -> Array:
        """Return host numbers beside the point, complex ones in ``dtype``'s precision."""
        xp = array_namespace(self.flat)
        if host.dtype.kind == "c":
            dtype = xp.complex64 if dtype == xp.float32 else xp.complex128
        return require_owner(self.flat, "point").from_host(host, dtype, device_of(self.flat))

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
            label, index = self.tensor_at(place).of("point"), list(self.entry(place)[1])
            raise ValueError(f"{label} is {float(to_host(self.flat)[place])} at {index}{problem}")


def flatten(point: Any) -> Point:
    """Return an array, a number, or any structure of them as a ``Point``.

    Whole numbers are cast to floating ones. Raises TypeError for what is not real numbers,
    ValueError for arrays of two places.
    """
    found: list[tuple[str, Any]] = []
    node = _walk(point, "", found)
    names = [f"point{name}" for name, _ in found]
    made = [_array(leaf, name) for name, (_, leaf) in zip(names, found, strict=True)]
    if not sum(math.prod(array.shape) for array in made):
        raise ValueError("point holds no numbers.")
    # Arrays say where the point is, floating ones in which precision; numbers follow them.
    is_array = [owner(leaf) is not None for _, leaf in found]
    ranks = [(is_array[i], _is_floating(array), -i) for i, array in enumerate(made)]
    first = ranks.index(max(ranks))
    guide, notes = made[first], []
    if not _is_floating(guide):
        notes = [f"the point was cast from {dtype_name(guide.dtype)} to floating numbers"]
        guide = _cast(guide)
    tensors, parts, start = [], [], 0
    for i, array in enumerate(made):
        if not is_array[i]:
            home = require_owner(guide, "point")
            array = home.from_host(to_host(array), guide.dtype, device_of(guide))
        same = require_like if _is_floating(array) else require_beside
        same(guide, array, names[i], names[first])
        xp, shape = array_namespace(guide), tuple(array.shape)
        tensors.append(Tensor(found[i][0], shape, slice(start, start + math.prod(shape))))
        parts.append(xp.reshape(xp.astype(array, guide.dtype), (-1,)))
        start += math.prod(shape)
    # A copy shares nothing with the caller's arrays, no graph of an autograd either.
    whole = np.array(to_host(xp.concat(parts, axis=-1)))
    flat = require_owner(guide, "point").from_host(whole, guide.dtype, device_of(guide))
    is_plain = all(is_array) and not any(isinstance(leaf, np.generic) for _, leaf in found)
    return Point(flat, tuple(tensors), tuple(tensors), node, is_plain, tuple(notes))


def flatten_gradient(point: Point, gradient: Any, count: int | None) -> np.ndarray:
    """Return a gradient in the point's structure as ``(P, 1)`` on the host, in its own precision.

    Of ``count`` results a Jacobian is expected instead, ``(count, *shape)`` for each tensor, and
    ``(P, count)`` is returned.
    """
    name = "gradient(point)" if count is None else "jacobian(point)"
    parts = []
    for tensor, leaf in zip(point.leaves, point.node.leaves(gradient, name), strict=True):
        label = tensor.of(name)
        host = _numbers(point, leaf, label)
        expected = tensor.shape if count is None else (count, *tensor.shape)
        # Axes of length 1 may be missing, or too many: (n, 1) is a gradient of (n,).
        if [n for n in host.shape if n != 1] != [n for n in expected if n != 1]:
            raise ValueError(f"{label} has shape {host.shape}, but {expected} is expected.")
        parts.append(host.reshape(count or 1, math.prod(tensor.shape)))
    return np.concatenate(parts, axis=1).T


def flatten_beside(point: Point, value: Any, name: str) -> np.ndarray:
    """Return a number, or numbers in the point's structure, as ``(P,)`` in float64."""
    if isinstance(value, Number):
        return np.full(point.flat.shape, float(value))  # type: ignore[arg-type]
    parts = []
    for tensor, leaf in zip(point.leaves, point.node.leaves(value, name), strict=True):
        host = _numbers(point, leaf, tensor.of(name))
        if host.size not in (1, math.prod(tensor.shape)):
            raise ValueError(
                f"{tensor.of(name)} has shape {host.shape}, but the point there {tensor.shape}."
            )
        parts.append(np.broadcast_to(host.reshape(-1), math.prod(tensor.shape)))
    return np.concatenate(parts).astype(np.float64)


def _walk(node: Any, name: str, found: list[tuple[str, Any]]) -> _Node:
    """Return how a structure is built; its leaves are added to ``found``, with their names."""
    if isinstance(node, Mapping):
        inside = {key: _walk(node[key], f"{name}[{key!r}]", found) for key in node}
        return _Node(
            lambda parts: {key: child.build(parts) for key, child in inside.items()},
            lambda other, whole: _parts(inside, other, whole, Mapping),
        )
    if isinstance(node, tuple | list) and not _is_numbers(node):
        fields = [f".{f}" for f in getattr(node, "_fields", ())]
        steps = fields or [f"[{i}]" for i in range(len(node))]
        children = [_walk(part, name + step, found) for part, step in zip(node, steps, strict=True)]
        make = getattr(type(node), "_make", type(node))
        return _Node(
            lambda parts: make([child.build(parts) for child in children]),
            lambda other, whole: _parts(dict(enumerate(children)), other, whole, (tuple, list)),
        )
    found.append((name, node))
    dress = _dress(node)
    return _Node(lambda parts: dress(next(parts)), lambda other, whole: iter([other]))


def _parts(children: Mapping[Any, _Node], other: Any, whole: str, kind: Any) -> Iterator[Any]:
    """Yield the leaves of what should be structured as the point is."""

    def words(keys: list[Any]) -> str:
        return f"the keys {keys}" if kind is Mapping else f"{len(keys)} parts"

    came = type(other).__name__
    if isinstance(other, kind):
        keys = list(other) if kind is Mapping else list(range(len(other)))
        came = words(keys)
    if not isinstance(other, kind) or set(keys) != set(children):
        expected = words(list(children))
        raise ValueError(
            f"{whole} is not structured like point: {expected} are expected, not {came}."
        )
    for key, child in children.items():
        yield from child.leaves(other[key], f"{whole}[{key!r}]")


def _is_numbers(node: Any) -> bool:
    """Say whether nested lists hold nothing but numbers: they are an array, not a structure."""
    if isinstance(node, list | tuple):
        return bool(node) and not hasattr(node, "_fields") and all(map(_is_numbers, node))
    return isinstance(node, Number) and not isinstance(node, bool)


def _is_table(leaf: Any) -> bool:
    return hasattr(leaf, "to_numpy") and hasattr(leaf, "index")


def _dress(leaf: Any) -> Callable[[Any], Any]:
    """Return what makes an array the kind of thing that a leaf is: a number, a table of pandas."""
    if _is_table(leaf):
        labels = {k: getattr(leaf, k) for k in ("index", "columns") if hasattr(leaf, k)}
        return lambda array: type(leaf)(np.array(array), **labels)
    if isinstance(leaf, Number | np.generic):
        return lambda array: array[()] if isinstance(array, np.ndarray) else array
    return lambda array: array


def _array(leaf: Any, label: str) -> Array:
    """Return a leaf of the point as an array of real numbers, of at most float64."""
    if _is_table(leaf):
        leaf = leaf.to_numpy()
    try:
        array = asarray(leaf) if owner(leaf) is None else leaf
    except (TypeError, ValueError) as error:
        raise type(error)(f"{label}: {error}") from None
    if isinstance(array, np.ndarray | np.generic):
        array = np.asarray(array, dtype=None if array.dtype != np.longdouble else np.float64)
    if not array_namespace(array).isdtype(array.dtype, ("real floating", "integral")):
        raise TypeError(
            f"{label} is {dtype_name(array.dtype)}, but real floating numbers are expected."
        )
    require_owner(array, label).require_current(device_of(array), label)
    return array


def _is_floating(array: Array) -> bool:
    return bool(array_namespace(array).isdtype(array.dtype, "real floating"))


def _cast(array: Array) -> Array:
    """Return whole numbers as floating ones, in float64 where the device keeps it."""
    home, host, where = require_owner(array, "point"), to_host(array), device_of(array)
    xp = home.namespace()
    try:
        home.require_dtype(xp.float64, where)
    except (TypeError, ValueError):
        return home.from_host(host, xp.float32, where)
    return home.from_host(host, xp.float64, where)


def _numbers(point: Point, leaf: Any, label: str) -> np.ndarray:
    """Return a part of what belongs to the point as real floating numbers on the host."""
    if hasattr(leaf, "toarray"):
        leaf = leaf.toarray()  # a sparse matrix of SciPy's
    elif _is_table(leaf):
        leaf = leaf.to_numpy()
    if owner(leaf) is not None:
        require_beside(point.flat, leaf, label, "point")
        leaf = to_host(leaf)
    try:
        host = np.asarray(leaf)
    except ValueError as error:
        raise ValueError(f"{label} is not an array of numbers: {error}") from None
    if host.dtype.kind not in "biuf":
        kind = f"of dtype {host.dtype}" if host.dtype != object else f"{leaf!r:.100}"
        raise TypeError(f"{label} must be an array of numbers, not {kind}.")
    return host if host.dtype.kind == "f" else host.astype(np.float64)
