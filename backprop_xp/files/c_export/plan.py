"""The plan of a program: which arrays are stored, in which loops they are computed, and where.

A chain of elementwise functions is one loop. The parts of a ``concat`` are computed in its place,
results in the caller's arrays, and the others in buffers that are used again.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.files.c_export.elementwise import OPERATIONS
from backprop_xp.files.c_export.lazy_arrays import LazyArray, c_strides, copied

LEAVES = ("input", "constant")
REDUCTIONS = ("sum", "prod", "max", "min")

# The kernel that stores an array: its id and 0, or 1, 2, ... for the parts of a concat.
KernelName: TypeAlias = tuple[int, int]
# The array, or the name of the output, within which an array is computed, and where.
Homes: TypeAlias = dict[LazyArray, tuple[LazyArray | str, int]]


class Kernel(NamedTuple):
    """One nest of loops, which computes ``source`` and stores it, or its reduction, in ``target``.

    ``fused`` are the arrays that are computed entry by entry, in order; ``reads`` those in memory.
    """

    node: LazyArray
    source: LazyArray
    target: LazyArray
    fused: tuple[LazyArray, ...]
    reads: tuple[LazyArray, ...]


def operands(kernel: Kernel) -> Iterator[LazyArray]:
    """Yield the arrays in memory that a kernel reads, as their views."""
    fused = {*kernel.fused}
    if kernel.node.operation == "product":
        yield from kernel.node.inputs
    elif kernel.source not in fused:
        yield kernel.source
    for array in kernel.fused:
        yield from (one for one in array.inputs if one not in fused)


class Place(NamedTuple):
    """The name of an array in C, and the index of the first entry in it."""

    name: str
    offset: int


@dataclass(frozen=True)
class Plan:
    """The kernels in order, those of the ``loop`` last, and the places of stored arrays.

    ``buffers`` are the name, dtype and size of each array on the stack. ``layers`` has the index of
    the layer that computes an array of the forward pass.
    """

    kernels: Sequence[Kernel]
    loop: Sequence[Kernel]
    places: Mapping[LazyArray, Place]
    buffers: Sequence[tuple[str, np.dtype[Any], int]]
    layers: Mapping[LazyArray, int]

    def reads(self, name: str) -> bool:
        """Whether a kernel reads the input of that name."""
        leaves = [one for kernel in (*self.kernels, *self.loop) for one in kernel.reads]
        return any(one.operation == "input" and one.detail == name for one in leaves)

    @property
    def bytes(self) -> int:
        """The size of the buffers."""
        return sum(dtype.itemsize * size for _, dtype, size in self.buffers)


def plan(
    outputs: Mapping[str, LazyArray],
    loop: str | None = None,
    before: Mapping[str, LazyArray] = MappingProxyType({}),
    ends: Sequence[LazyArray] = (),
) -> Plan:
    """Return the plan that computes outputs, by name, into arrays of the caller.

    What depends on the input named ``loop`` is to be computed again and again, the rest once, and
    so are the outputs ``before`` the loop. ``ends`` are the outputs of the layers.
    """
    arrays = _without_repeats([*before.values(), *outputs.values(), *ends])
    arrays, ends = arrays[: len(arrays) - len(ends)], arrays[len(arrays) - len(ends) :]
    varying = _depending(in_order(arrays), loop)
    once = _own(arrays[: len(before)], None)
    again = _own(arrays[len(before) :], varying if loop else None)
    results = dict(zip([*once, *again], [*before, *outputs], strict=True))
    order = in_order([*results])
    varying |= {*again} if loop else set()
    stored = _stored(order, results)
    homes = _homes(order, stored, results, varying)
    kernels = [
        kernel
        for array in order
        if array.operation not in (*LEAVES, "view") and _is_stored(array, stored)
        for kernel in _kernels(array, stored, homes)
    ]
    first = [one for one in kernels if one.node not in varying]
    rest = [one for one in kernels if one.node in varying]
    places, buffers = _allocated([*first, *rest], len(first), homes)
    return Plan(first, rest, places, buffers, _layers(ends))


def in_order(
    outputs: Sequence[LazyArray], *, among: Collection[LazyArray] | None = None
) -> list[LazyArray]:
    """Return the outputs and what they depend on, inputs first; of some arrays those ``among``."""
    done, order, rest = set[LazyArray](), list[LazyArray](), [*reversed(outputs)]
    while rest:
        array = rest[-1]
        inputs = [one for one in array.inputs if among is None or one in among]
        waiting = [one for one in inputs if one not in done]
        rest.extend(reversed(waiting))
        if not waiting:
            rest.pop()
            if array not in done:
                done.add(array)
                order.append(array)
    return order


def _without_repeats(outputs: Sequence[LazyArray]) -> list[LazyArray]:
    """Return the outputs with equal operations on equal arrays made one."""
    same, new = dict[Any, LazyArray](), dict[LazyArray, LazyArray]()
    for array in in_order(outputs):
        inputs = tuple(new[one] for one in array.inputs)
        detail = array.detail
        if isinstance(detail, np.ndarray):
            detail = detail.tobytes()
        key = (array.operation, *map(id, inputs), array.shape, array.dtype, detail)
        new[array] = same.setdefault(key, replace(array, inputs=inputs))
    return [new[one] for one in outputs]


def _layers(ends: Sequence[LazyArray]) -> dict[LazyArray, int]:
    """Return the index of the first layer whose output depends on each array."""
    layers, i = dict[LazyArray, int](), 0
    for array in in_order(ends):  # the first layer's first
        layers[array] = i
        while i < len(ends) and ends[i] in layers:
            i += 1
    return layers


def _own(outputs: Sequence[LazyArray], varying: Collection[LazyArray] | None) -> list[LazyArray]:
    """Return the stored array of each output, a copy where it is not one of its own.

    In a loop an array that does not vary is stored before it, and copied.
    """
    found: dict[LazyArray, None] = {}
    for array in outputs:
        base = array.layout[0]
        alone = base.operation not in LEAVES and base not in found
        alone = alone and (varying is None or base in varying)
        found[base if alone and _is_whole(array, base) else copied(array)] = None
    return [*found]


def _is_whole(array: LazyArray, base: LazyArray) -> bool:
    """Whether an array has all entries of its base in C order."""
    _, offset, strides = array.layout
    whole = c_strides(array.shape)
    in_c_order = all(n == 1 or s == w for n, s, w in zip(array.shape, strides, whole, strict=True))
    return in_c_order and offset == 0 and array.size == base.size


def _stored(
    order: Sequence[LazyArray], outputs: Collection[LazyArray]
) -> dict[LazyArray, KernelName]:
    """Return for each computed array the kernel that it is fused into: its own if it is stored."""
    users: dict[LazyArray, list[tuple[LazyArray, int]]] = {}
    for array in order:
        for i, one in enumerate(array.inputs):
            users.setdefault(one, []).append((array, i))
    stored: dict[LazyArray, KernelName] = {}
    for array in reversed(order):
        if array.operation in (*LEAVES, "view"):
            continue
        kernels = {_kernel_of(user, i, array, stored) for user, i in users.get(array, [])}
        alone = array.operation in OPERATIONS and array not in outputs and len(kernels) == 1
        found = kernels.pop() if alone else None
        stored[array] = _own_kernel(array) if found is None else found
    return stored


def _own_kernel(array: LazyArray, part: int = 0) -> KernelName:
    """Return the name of the kernel that stores an array, or a part of a ``concat``."""
    return id(array), part


def _is_stored(array: LazyArray, stored: Mapping[LazyArray, KernelName]) -> bool:
    return stored[array] == _own_kernel(array)


def _kernel_of(
    user: LazyArray, i: int, array: LazyArray, stored: Mapping[LazyArray, KernelName]
) -> KernelName | None:
    """Return the kernel of a user that can compute its input i entry by entry; else None."""
    if user.operation == "concat":
        return _own_kernel(user, i + 1)
    if user.operation in REDUCTIONS:
        return _own_kernel(user)
    fits = user.operation in OPERATIONS and (user.operation, i) != ("take", 0)
    return stored[user] if fits and user.shape == array.shape else None


def _kernels(
    array: LazyArray, stored: Mapping[LazyArray, KernelName], homes: Homes
) -> Iterator[Kernel]:
    """Yield the kernels that compute a stored array."""
    if array.operation == "product":
        yield Kernel(array, array, array, (), tuple(one.layout[0] for one in array.inputs))
    elif array.operation == "concat":
        start = 0
        for i, part in enumerate(array.inputs, 1):
            end = start + part.shape[array.detail]
            target = array[(*[slice(None)] * array.detail, slice(start, end))]
            owner, offset = homes.get(part.layout[0], (None, 0))
            if owner is not array or offset != target.layout[1]:  # else it is there already
                yield Kernel(array, part, target, *_fused(part, _own_kernel(array, i), stored))
            start = end
    else:
        source = array.inputs[0] if array.operation in REDUCTIONS else array
        yield Kernel(array, source, array, *_fused(source, _own_kernel(array), stored))


def _fused(
    source: LazyArray, kernel: KernelName, stored: Mapping[LazyArray, KernelName]
) -> tuple[tuple[LazyArray, ...], tuple[LazyArray, ...]]:
    """Return what a kernel computes entry by entry for its source, and what it reads."""
    fused, reads, rest = set[LazyArray](), dict[LazyArray, None](), [source]
    while rest:
        one = rest.pop()
        if one.operation not in OPERATIONS or stored[one] != kernel:
            reads[one.layout[0]] = None
        elif one not in fused:
            fused.add(one)
            rest.extend(one.inputs)
    return tuple(in_order([source], among=fused) if fused else ()), tuple(reads)


def _homes(
    order: Sequence[LazyArray],
    stored: Mapping[LazyArray, KernelName],
    outputs: Mapping[LazyArray, str],
    varying: Collection[LazyArray],
) -> Homes:
    """Return the arrays that are computed within another one, or in an output, and where."""
    homes: Homes = {array: (name, 0) for array, name in outputs.items()}
    for array in reversed(order):
        if array.operation != "concat" or math.prod(array.shape[: array.detail]) != 1:
            continue
        offset = 0
        for part in array.inputs:
            base = part.layout[0]
            alone = base.operation not in LEAVES and _is_stored(base, stored) and base not in homes
            if alone and _is_whole(part, base) and (base in varying) == (array in varying):
                homes[base] = (array, offset)
            offset += part.size
    return homes


def _depending(order: Sequence[LazyArray], name: str | None) -> set[LazyArray]:
    """Return the arrays that depend on the input of that name."""
    found: set[LazyArray] = set()
    for array in order:
        is_it = array.operation == "input" and array.detail == name
        if is_it or not found.isdisjoint(array.inputs):
            found.add(array)
    return found


def _place(array: LazyArray, homes: Homes) -> tuple[LazyArray | str, int]:
    """Return the array, or the name of the output, in which an array lies, and where."""
    owner: LazyArray | str = array
    offset = 0
    while isinstance(owner, LazyArray) and owner in homes:
        owner, more = homes[owner]
        offset += more
    return owner, offset


def _allocated(
    kernels: Sequence[Kernel], before: int, homes: Homes
) -> tuple[dict[LazyArray, Place], list[tuple[str, np.dtype[Any], int]]]:
    """Return the places of all arrays in memory, and the buffers."""
    lives = _lives(kernels, before, homes)
    buffers: list[list[Any]] = []  # dtype, size, the kernel after which it is free
    names: dict[Any, str] = {}
    for owner, (first, last) in lives.items():
        if isinstance(owner, str):
            names[owner] = owner
            continue
        chosen = _free_buffer(buffers, owner, first)
        if chosen is None:
            chosen = len(buffers)
            buffers.append([owner.dtype, 0, 0])
        buffers[chosen][1:] = [max(buffers[chosen][1], owner.size), last]
        names[owner] = f"t{chosen}"
    places = {}
    for kernel in kernels:
        for array in (kernel.node, *kernel.reads):
            if array.operation not in LEAVES:
                owner, offset = _place(array, homes)
                places[array] = Place(names[owner], offset)
    return places, [(f"t{i}", dtype, size) for i, (dtype, size, _) in enumerate(buffers)]


def _lives(kernels: Sequence[Kernel], before: int, homes: Homes) -> dict[Any, tuple[int, int]]:
    """Return the first and the last kernel that uses each owner of memory, in order of the first.

    What is computed before the loop and read in it is used until the end.
    """
    lives: dict[Any, tuple[int, int]] = {}
    for i, kernel in enumerate(kernels):
        for array in (kernel.node, *kernel.reads):
            if array.operation not in LEAVES:
                owner, _ = _place(array, homes)
                first, _ = lives.get(owner, (i, i))
                lives[owner] = (first, len(kernels) if first < before <= i else i)
    return lives


def _free_buffer(buffers: Sequence[Sequence[Any]], array: LazyArray, at: int) -> int | None:
    """Return the free buffer of an array's dtype that needs to grow least."""
    free = [i for i, (dtype, _, last) in enumerate(buffers) if dtype == array.dtype and last < at]
    grown = {i: (max(0, array.size - buffers[i][1]), buffers[i][1]) for i in free}
    return min(grown, key=grown.__getitem__, default=None)
