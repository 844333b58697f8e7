"""The point of a check: a structure of arrays and numbers, and its flat vector ``(P,)``.

The check itself computes on the host, with vectors in float64. ``Point.restore`` turns a vector
into the caller's structure, made of arrays of the caller's library. All but the floating numbers
are constants of the structure.
"""

import math
from collections.abc import Callable, Iterator
from numbers import Number
from typing import NamedTuple

import numpy as np

from backprop_xp.backends import (
    Array,
    array_namespace,
    asarray,
    device_of,
    dtype_name,
    owner,
    plain_array,
    precision_of,
    require_like,
    require_owner,
    require_same_device,
    to_device_of,
    to_host,
)
from backprop_xp.checks import unravel
from backprop_xp.gradient_check.inputs.structures import Node, Structure, map_leaves, matching

# The rounding error (epsilon) of float64.
DOUBLE = 2.0**-52


class Tensor(NamedTuple):
    """A named part of the flat vector, and its shape in the point."""

    name: str
    shape: tuple[int, ...]
    part: slice


class _Leaf(NamedTuple):
    """A leaf of the structure: one tensor, or the real and the imaginary part of complex numbers.

    ``convert`` turns an array into the leaf's own type. ``is_tracked``: it is a tensor of PyTorch's
    with ``requires_grad``, by which the caller's functions may differentiate.
    """

    tensors: list[Tensor]
    convert: Callable[[Array], Structure]
    is_tracked: bool


class _Constant(NamedTuple):
    value: Structure


class Point(NamedTuple):
    """A flat vector of the caller's library, its tensors, and the caller's structure.

    ``tensors`` name the entries: they are those of the structure's leaves, unless one array holds
    many tensors. ``is_plain``: all leaves are arrays, so that copies can be stacked. ``notes`` are
    sentences for the report.
    """

    flat: Array
    tensors: tuple[Tensor, ...]
    tree: Node | _Leaf
    is_plain: bool
    notes: tuple[str, ...]

    def restore(self, vector: Array, *, tracked: bool = True) -> Structure:
        """Return vectors ``(*stack, P)`` in the structure of the point.

        With ``tracked``, arrays have the ``requires_grad`` of the point's.
        """
        return _restore(self.tree, vector, tracked)

    def at(self, vector: np.ndarray | None = None) -> Structure:
        """Return a host vector, by default the point's, as a structure of arrays of its own.

        Only the point itself has its ``requires_grad``: other vectors are directions or results.
        """
        host = to_host(self.flat) if vector is None else vector
        array = to_device_of(self.flat, host.copy(), self.flat.dtype)
        return self.restore(array, tracked=vector is None)

    def matching(
        self, other: Structure, name: str
    ) -> Iterator[tuple[list[Tensor], str, Structure]]:
        """Yield each leaf's tensors, with the label and the part of another structure like it."""
        for leaf, label, part in matching(self.tree, other, name, _holds_numbers):
            yield leaf.tensors, label, part

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


def flatten(structure: Structure, name: str = "point", *, is_arguments: bool = False) -> Point:
    """Return an array, a number, or a structure of them as a ``Point``.

    The vector holds the real and complex numbers or, if there are none, the integers, cast. With
    ``is_arguments`` the structure is a tuple of arguments. ``name`` is that for messages. Raises
    TypeError for a structure without numbers, and ValueError for arrays of two libraries or
    devices.
    """
    found: dict[str, Structure] = {}
    map_leaves(found.__setitem__, structure, is_container=is_arguments)
    kinds = {at: _kind(leaf, f"{name}{at}") for at, leaf in found.items()}
    chosen = {"real floating", "complex floating"}
    chosen = chosen if chosen & {*kinds.values()} else {"integral"}
    used = {at: leaf for at, leaf in found.items() if kinds[at] in chosen}
    arrays = {at: _array(leaf, f"{name}{at}") for at, leaf in used.items()}
    if not sum(math.prod(array.shape) for array in arrays.values()):
        words = [type(structure).__name__]
        words += [
            f"{n} {getattr(structure, n)}" for n in ("dtype", "shape") if hasattr(structure, n)
        ]
        kind = f": it is {', '.join(words)}" if "" in found else ""
        raise TypeError(f"{name} holds no real or complex numbers{kind}.")
    # The first array decides library, device and precision.
    belongs = [at for at, leaf in used.items() if owner(leaf) is not None]
    first, parts, leaves, end = [*belongs, *used][0], [], {}, 0
    model = arrays[first]
    for at, array in arrays.items():
        if at in belongs:
            _require_alike(model, array, f"{name}{at}", f"{name}{first}")
        host = to_host(array).reshape(-1)  # shares no memory and no autograd graph
        halves, tensors = {at: host}, []
        if host.dtype.kind == "c":
            halves = {f"{at}.real": host.real, f"{at}.imag": host.imag}
        for label, half in halves.items():
            tensors.append(Tensor(label, tuple(array.shape), slice(end, end := end + half.size)))
            parts.append(half)
        is_tracked = getattr(used[at], "requires_grad", False) is True
        leaves[at] = _Leaf(tensors, _converter(used[at]), is_tracked)
    precision = precision_of(array_namespace(model), model.dtype)
    note = f"the {name} was cast from {dtype_name(model.dtype)} to floating numbers"
    return Point(
        flat=to_device_of(model, np.concatenate(parts), precision),
        tensors=tuple(tensor for leaf in leaves.values() for tensor in leaf.tensors),
        tree=map_leaves(
            lambda at, leaf: leaves.get(at, _Constant(leaf)), structure, is_container=is_arguments
        ),
        is_plain=len(belongs) == len(used) and not any(map(_is_number, used.values())),
        notes=() if precision is not None else (note,),
    )


def flatten_arguments(arguments: tuple[Structure, ...], name: str = "point") -> Point:
    """Return a tuple of arguments as a ``Point``."""
    return flatten(arguments, name, is_arguments=True)


def flatten_like(
    point: Point,
    other: Structure,
    name: str,
    *,
    results: tuple[int, ...] | None = None,
    is_complex: bool = False,
    broadcasts: bool = False,
) -> tuple[np.ndarray, float]:
    """Return numbers in the point's structure as ``(P, M)`` on the host, and their rounding error.

    M is 1, or the number of ``results`` of a Jacobian ``(*results, *shape)`` per leaf, or
    ``(M, P)``. A complex leaf gives its real and imaginary parts; with ``is_complex`` a real leaf
    may be complex too. With ``broadcasts`` a single number stands for all entries of a leaf.
    """
    count, epsilons = math.prod(results or ()), [DOUBLE]
    columns: list[np.ndarray] = []
    if broadcasts and (isinstance(other, Number) or getattr(other, "shape", None) == ()):
        number = _numbers(point, other, name, [()], "biuf")
        return np.broadcast_to(number, (*point.flat.shape, 1)), DOUBLE
    whole = (count, *point.flat.shape)
    if results is not None and getattr(other, "shape", None) == whole:
        return _numbers(point, other, name, [whole], "biuf").T, epsilon_of(other)
    for tensors, label, part in point.matching(other, name):
        shape, halves = tensors[0].shape, len(tensors)
        size = math.prod(shape)
        shapes = [(*(results or ()), *shape)]
        shapes += [(count, size)] * (results is not None) + [()] * broadcasts
        host = _numbers(point, part, label, shapes, "biufc"[: 5 if is_complex or halves > 1 else 4])
        if host.size == 1 and broadcasts:
            host = np.broadcast_to(host.reshape(1, 1), (1, size))
        host = host.reshape(count, size)
        both = host.imag if host.dtype.kind == "c" else host if broadcasts else 0.0 * host
        columns += [host] if halves == 1 else [host.real, both]
        epsilons.append(epsilon_of(part))
    return np.concatenate(columns, axis=1).T, max(epsilons)


def flatten_jacobian(
    point: Point, results: Point, jacobian: Structure, name: str
) -> tuple[np.ndarray, float]:
    """Return a Jacobian as ``(P, M)`` on the host, and its rounding error.

    It is ``(M, P)``, or structured like the results, with a part like the point for each of them.
    """
    count = results.flat.shape
    if isinstance(results.tree, _Leaf) or getattr(jacobian, "shape", None) == count + (
        point.flat.shape
    ):
        shape = results.tensors[0].shape if isinstance(results.tree, _Leaf) else count
        return flatten_like(point, jacobian, name, results=shape)
    found = [
        flatten_like(point, part, label, results=tensors[0].shape)
        for tensors, label, part in results.matching(jacobian, name)
    ]
    return np.concatenate([host for host, _ in found], axis=1), max(e for _, e in found)


def _restore(node: object, vector: Array, tracked: bool) -> Structure:
    if isinstance(node, Node):
        return node.rebuild([_restore(child, vector, tracked) for child in node.children.values()])
    if isinstance(node, _Constant):
        return node.value
    assert isinstance(node, _Leaf)  # noqa: S101 - for the type checker
    xp, stack = array_namespace(vector), vector.shape[:-1]
    real, *imaginary = (
        xp.reshape(vector[..., t.part], (*stack, *t.shape)) for t in node.tensors
    )  # fmt: skip
    if imaginary and xp.isdtype(vector.dtype, "complex floating"):
        raise TypeError("a function of complex numbers has no complex step")
    restored = node.convert(real + 1j * imaginary[0] if imaginary else real)
    return restored.requires_grad_() if node.is_tracked and tracked else restored


def _holds_numbers(node: object) -> bool:
    if isinstance(node, Node):
        return any(map(_holds_numbers, node.children.values()))
    return isinstance(node, _Leaf)


def _kind(leaf: Structure, label: str) -> str | None:
    """Return the kind of a leaf's numbers, or None for a constant."""
    leaf = plain_array(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    if owner(leaf) is None:
        if not (isinstance(leaf, list | tuple | Number) or hasattr(leaf, "to_numpy")):
            return None
        leaf = _host(leaf, label)
    xp, kinds = array_namespace(leaf), ("real floating", "complex floating", "integral")
    try:
        return next((kind for kind in kinds if xp.isdtype(leaf.dtype, kind)), None)
    except TypeError:  # the dtype of random keys of JAX's
        return None


def _array(leaf: Structure, label: str) -> Array:
    """Return a leaf of the point as an array, in float64 at most."""
    leaf = plain_array(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    array = asarray(_host(leaf, label)) if owner(leaf) is None else leaf
    for long, double in ((np.longdouble, np.float64), (np.clongdouble, np.complex128)):
        if isinstance(array, np.ndarray | np.generic) and array.dtype == long:
            array = array.astype(double)
    require_owner(array, label).require_current(device_of(array), label)
    return array


def _require_alike(model: Array, array: Array, name: str, other: str) -> None:
    """Raise unless two arrays have one library, device and precision."""
    require_same_device(model, array, name, other)
    pair = [precision_of(array_namespace(a), a.dtype) for a in (model, array)]
    if pair[0] != pair[1]:
        require_like(model, array, name, other)


def _numbers(
    point: Point, leaf: Structure, label: str, shapes: list[tuple[int, ...]], kinds: str
) -> np.ndarray:
    """Return the floating numbers of an array of any library, of a table or of lists."""
    leaf = leaf.toarray() if hasattr(leaf, "toarray") else leaf  # a sparse matrix of SciPy's
    if owner(leaf) is not None and not isinstance(point.flat, np.ndarray):
        require_same_device(point.flat, leaf, label, "point")
    host = _host(leaf, label)
    if host.dtype.kind not in kinds:
        kind = f"of dtype {host.dtype}" if host.dtype != object else f"{leaf!r:.100}"
        real = "real " * (host.dtype.kind == "c")
        raise TypeError(f"{label} must be an array of {real}numbers, not {kind}.")
    # Axes of length 1 do not matter: (n, 1) is a gradient of (n,).
    if not any([n for n in s if n != 1] == [n for n in host.shape if n != 1] for s in shapes):
        raise ValueError(f"{label} has shape {host.shape}, but {shapes[0]} is expected.")
    return host if host.dtype.kind in "fc" else host.astype(np.float64)


def _host(leaf: Structure, label: str) -> np.ndarray:
    leaf = plain_array(leaf, label) if isinstance(leaf, np.ndarray) else leaf
    try:
        return to_host(leaf)
    except ValueError as error:
        raise ValueError(f"{label} is not an array of numbers: {error}") from None


def epsilon_of(numbers: Structure) -> float:
    """Return the rounding error of the numbers' dtype, at least that of float64."""
    if owner(numbers) is None:
        return DOUBLE
    xp = array_namespace(numbers)
    precision = precision_of(xp, numbers.dtype)
    return DOUBLE if precision is None else max(DOUBLE, float(xp.finfo(precision).eps))


def _is_number(leaf: Structure) -> bool:
    return isinstance(leaf, Number)


def _converter(leaf: Structure) -> Callable[[Array], Structure]:
    """Return a function that turns an array into the leaf's type: a number, a table."""
    if hasattr(leaf, "to_numpy") and hasattr(leaf, "schema"):  # a DataFrame of Polars
        return lambda array: type(leaf)(to_host(array), schema=leaf.columns)
    if hasattr(leaf, "to_numpy") and hasattr(leaf, "to_frame") and not hasattr(leaf, "index"):
        return lambda array: type(leaf)(leaf.name, to_host(array))
    if hasattr(leaf, "to_numpy") and hasattr(leaf, "index"):
        labels = {k: getattr(leaf, k) for k in ("index", "columns") if hasattr(leaf, k)}
        return lambda array: type(leaf)(np.array(to_host(array)), **labels)
    if _is_number(leaf):
        return lambda array: array[()] if isinstance(array, np.ndarray) else array
    return lambda array: array
