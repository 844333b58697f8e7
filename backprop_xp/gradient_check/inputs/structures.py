"""Structures of arrays and numbers, taken apart and put together again.

A container is a mapping, list, tuple, named tuple, dataclass, attrs class, ``SimpleNamespace``, or
a type that JAX's registry knows. It keeps its type. A list of numbers is an array.
"""

import copy
import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from numbers import Number
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import owner

# An array of any library, a number, or containers of them, nested.
Structure: TypeAlias = Any


class Node(NamedTuple):
    """A container: its children, the text that names each, and a function that rebuilds it."""

    children: dict[Any, Any]
    steps: list[str]
    rebuild: Callable[[list[Structure]], Structure]

    @property
    def words(self) -> str:
        """Words for the children."""
        keys = [*self.children]
        return f"{len(keys)} parts" if keys == [*range(len(keys))] else f"the keys {keys}"


def node_of(structure: Structure, *, is_container: bool = False) -> Node | None:
    """Return a container as a node, or None for a leaf.

    With ``is_container`` a tuple or list is one even if all of its parts are numbers.
    """
    if isinstance(structure, Mapping):
        steps = [f"[{key!r}]" for key in structure]
        return Node(dict(structure), steps, lambda parts: _with_items(structure, parts))
    if isinstance(structure, list | tuple):
        names = getattr(structure, "_fields", None)
        if not (is_container or names) and structure and _shape(structure) is not None:
            return None
        steps = [f".{n}" for n in names] if names else [f"[{i}]" for i in range(len(structure))]
        make = getattr(type(structure), "_make", type(structure))
        return Node(dict(enumerate(structure)), steps, make)
    if structure is None or owner(structure) is not None or isinstance(structure, type):
        return None
    if (jax := sys.modules.get("jax.tree_util")) is not None:
        pairs, tree = jax.tree_flatten_with_path(structure, is_leaf=lambda n: n is not structure)
        if not jax.treedef_is_leaf(tree):
            steps = [jax.keystr(path) for path, _ in pairs]
            children = {s.strip("."): child for s, (_, child) in zip(steps, pairs, strict=True)}
            return Node(children, steps, tree.unflatten)
    if (names := _fields(structure)) is None:
        return None
    children = {name: getattr(structure, name) for name in names}
    return Node(children, [f".{n}" for n in names], lambda parts: _with_fields(structure, parts))


def map_leaves(
    function: Callable[[str, Structure], Any], structure: Structure, name: str = "", **top: bool
) -> Any:
    """Return a structure as nested nodes, with ``function(name, leaf)`` in place of each leaf."""
    if (node := node_of(structure, **top)) is None:
        return function(name, structure)
    named = zip(node.children.items(), node.steps, strict=True)
    children = {key: map_leaves(function, child, name + step) for (key, child), step in named}
    return node._replace(children=children)


def matching(
    tree: Any, other: Structure, name: str, holds: Callable[[Any], bool]
) -> Iterator[tuple[Any, str, Structure]]:
    """Yield the leaves that hold something, each with the label and part of another structure.

    The other structure may lack parts that hold nothing.
    """
    if not isinstance(tree, Node):
        yield tree, name, other
        return
    needed = [key for key, child in tree.children.items() if holds(child)]
    if not needed:
        return
    found, keys = node_of(other, is_container=True), tree.children.keys()
    is_list = [*keys] == [*range(len(keys))]
    if found is None or not ({*needed} if not is_list else keys) <= found.children.keys() <= keys:
        received = type(other).__name__ if found is None else found.words
        raise ValueError(f"{name} must be structured like point: {tree.words}, not {received}.")
    for key, step in zip(keys, tree.steps, strict=True):
        if key in needed:
            yield from matching(tree.children[key], found.children[key], name + step, holds)


def _fields(record: Structure) -> list[str] | None:
    """Return the names of a record's fields, or None for anything else."""
    if isinstance(record, SimpleNamespace):
        return list(vars(record))
    if dataclasses.is_dataclass(record):
        return [field.name for field in dataclasses.fields(record)]
    attributes = getattr(type(record), "__attrs_attrs__", None)
    return None if attributes is None else [attribute.name for attribute in attributes]


def _with_items(mapping: Mapping[Any, Any], parts: list[Structure]) -> Mapping[Any, Any]:
    items = dict(zip(mapping, parts, strict=True))
    if not isinstance(mapping, MutableMapping):
        return type(mapping)(items)  # type: ignore[call-arg]
    other = copy.copy(mapping)
    other.update(items)
    return other


def _with_fields(record: Structure, parts: list[Structure]) -> Structure:
    other = copy.copy(record)
    for name, part in zip(_fields(record) or (), parts, strict=True):
        object.__setattr__(other, name, part)  # a record may be frozen
    return other


def _shape(structure: Structure) -> tuple[int, ...] | None:
    """Return the shape of a number or of nested lists of numbers, None if they have none."""
    if isinstance(structure, list | tuple) and not hasattr(structure, "_fields"):
        shapes = {*map(_shape, structure)} or {None}
        shape = shapes.pop()
        return None if shapes or shape is None else (len(structure), *shape)
    is_number = isinstance(structure, Number) and not isinstance(structure, bool)
    return () if is_number else None
