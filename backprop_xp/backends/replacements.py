"""Faster functions with which a backend replaces reference functions.

``Backend.replacements`` is the table: it maps a reference function's qualified name to them. A type
of arrays without a backend may have such a table itself. ``Backend.training_replacements`` returns
a second table, for a training. It holds while a step runs, in the training's thread or task alone,
and comes before the first one.
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias, TypeVar

from backprop_xp.backends.protocol import Array, Function
from backprop_xp.backends.registry import owner

R = TypeVar("R")

ByType: TypeAlias = dict[type, Function]


class LayerFunctions(NamedTuple):
    """What replaces a layer's ``forward`` and ``backward``, with their arguments and results."""

    forward: Function
    backward: Function


class TrainingTable(dict[str, ByType]):
    """The replacements that hold in a training: by a reference function's name, then by type.

    The type is that of theta. ``layers`` has the replacements of layers, by ``id``.
    """

    def __init__(
        self, replacements: Mapping[str, Function], theta: Array, layers: Iterable[Any] = ()
    ) -> None:
        super().__init__({name: {type(theta): one} for name, one in replacements.items()})
        self._layers = tuple(layers)  # an id is a layer's as long as it lives
        makers = {id(one): replacements.get(qualified_name(type(one))) for one in self._layers}
        made = {id(one): make(one) for one in self._layers if (make := makers[id(one)])}
        self.layers: dict[int, Any] = {key: one for key, one in made.items() if one is not None}


_held: ContextVar[TrainingTable | None] = ContextVar("training_replacements", default=None)
_holds_now = _held.get
_NONE: dict[int, Any] = {}


def replaced_layers() -> Mapping[int, Any]:
    """Return what replaces layers in this thread or task, ``LayerFunctions`` by the layers' id."""
    table = _holds_now()
    return _NONE if table is None else table.layers


@contextlib.contextmanager
def holding(table: TrainingTable | None) -> Iterator[None]:
    """Hold the replacements of a training, and no others, inside a ``with``.

    With None none hold, also within the step of another training.
    """
    token = _held.set(table)
    try:
        yield
    finally:
        _held.reset(token)


def dispatch(function: Callable[..., R], array: Array) -> Callable[..., R]:
    """Return the replacement that the array's backend has for a function, or the function."""
    table = _holds_now()
    found = None if table is None else table.get(qualified_name(function), {}).get(type(array))
    return _outside_trainings(function, array) if found is None else found


def _outside_trainings(function: Callable[..., R], array: Array) -> Callable[..., R]:
    backend = owner(array)
    kind: Any = type(array) if backend is None else type(backend)
    return _replacement(function, kind)


@functools.lru_cache(maxsize=64)
def _replacement(function: Function, kind: type) -> Function:
    table: dict[str, Function] = getattr(kind, "replacements", {})
    return table.get(qualified_name(function), function)


def qualified_name(function: Function) -> str:
    """Return the name of a reference function, or of a class, in a table of replacements."""
    return f"{function.__module__}.{function.__qualname__}"


def replaceable(function: Callable[..., R]) -> Callable[..., R]:
    """Allow backends to replace a function whose first argument is an array.

    If a replacement returns NotImplemented, the function computes the result.
    """
    name, by_type = qualified_name(function), ByType()

    @functools.wraps(function)
    def call(*arguments: Any, **options: object) -> R:
        table = _holds_now()
        known = by_type if table is None else table.get(name, by_type)
        try:
            chosen = known[type(arguments[0])]
        except LookupError:
            chosen = _learnt(function, arguments, known)
        result: R = chosen(*arguments, **options) if options else chosen(*arguments)
        if result is not NotImplemented:
            return result
        if known is not by_type:
            result = _outside_trainings(function, arguments[0])(*arguments, **options)
        return function(*arguments, **options) if result is NotImplemented else result

    return call


def _learnt(function: Function, arguments: tuple[Any, ...], known: ByType) -> Function:
    """Return the replacement outside trainings, and keep it for the array's type."""
    if not arguments:  # all are named
        return function
    array, *_ = arguments
    chosen = _outside_trainings(function, array)
    # A plug-in that is loaded later may own the others.
    if owner(array) is not None or hasattr(type(array), "replacements"):
        known[type(array)] = chosen
    return chosen
