"""Pytrees: nested tuples, named tuples, lists and dicts of arrays, such as an optimizer's state."""

import functools
from collections.abc import Callable, Sequence
from copy import deepcopy
from numbers import Number
from typing import Any, TypeAlias

from backprop_xp.backends import Array, array_namespace, dispatch, owner

# Nested tuples, named tuples, lists and dicts of leaves: arrays, numbers, None.
Pytree: TypeAlias = Any


def mapped(function: Callable[..., Any], structure: Pytree, *others: Pytree) -> Pytree:
    """Return the pytree of a function's results for each leaf of one pytree, or of several."""
    if type(structure) is dict:
        return {k: mapped(function, structure[k], *(o[k] for o in others)) for k in structure}
    if type(structure) in (list, tuple) or hasattr(structure, "_make"):
        make = getattr(structure, "_make", type(structure))
        return make([mapped(function, *parts) for parts in zip(structure, *others, strict=True)])
    return function(structure, *others)


def copied(structure: Pytree) -> Pytree:
    """Return a copy of a pytree, detached from automatic differentiation."""

    def copy(value: Any) -> Any:
        home = None if isinstance(value, Number) else owner(value)
        if home is None:
            return value if value is None or callable(value) else deepcopy(value)
        return dispatch(copy_of, value)(home.detach(value))

    return mapped(copy, structure)


def copy_of(array: Array) -> Array:
    """Return a copy of an array."""
    return array_namespace(array).asarray(array, copy=True)


def zeros_like(array: Array) -> Array:
    """Return zeros of an array's shape and dtype, on its device."""
    return array_namespace(array).zeros_like(array)


def take_apart(structure: Pytree, parts: Sequence[slice]) -> tuple[Pytree, ...]:
    """Return a pytree for each part of theta, with that part of every vector as long as theta.

    ``parts`` are slices that make up theta's last axis, in order.
    """

    def part_of(part: slice, leaf: Any) -> Any:
        is_vector = tuple(getattr(leaf, "shape", ()))[-1:] == (parts[-1].stop,)
        return leaf[..., part] if is_vector else leaf

    return tuple(mapped(functools.partial(part_of, part), structure) for part in parts)


def put_together(parts: Sequence[Pytree]) -> Pytree:
    """Return the pytree from which ``take_apart`` made these: its inverse."""

    def whole(first: Any, *others: Any) -> Any:
        if not getattr(first, "shape", ()):
            return first
        return array_namespace(first).concat((first, *others), axis=-1)

    return mapped(whole, *parts)
