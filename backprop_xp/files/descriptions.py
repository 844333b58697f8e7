"""What a file says of networks, optimisers and states: JSON, each thing as the call that makes it.

- ``{"call": "Dense", "with": {"n_in": 2, ...}}``: a class or function of the library.
- ``{"name": "activations.tanh"}``: an entry of one of its tables.
- ``{"registered": "cube"}``, ``{"registered": "Scaled", "with": {...}}``: what a user registered.
- ``{"array": "theta"}``: an array, which lies beside the JSON under that name.
- ``{"tuple": [...]}``, ``{"dict": {...}}``, ``{"float": "inf"}``: what JSON lacks.

Reading calls what is in these tables and nothing else.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import FunctionType
from typing import Any

from backprop_xp.backends import Array, owner, to_host
from backprop_xp.checks import nearest
from backprop_xp.display.reprs import call_of, name_of, place_of, word
from backprop_xp.networks.activations import ACTIVATIONS, leaky_relu_with
from backprop_xp.networks.initializers import INITIALIZERS, uniform
from backprop_xp.networks.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.networks.losses import LOSSES, huber_with
from backprop_xp.training.early_stopping import Best, EarlyStopping, Slowed
from backprop_xp.training.optimizers import (
    SGD,
    Adam,
    AdamState,
    AdamW,
    RMSProp,
    RMSPropState,
    SGDState,
)
from backprop_xp.training.schedules import (
    chain,
    constant,
    cosine,
    exponential,
    inverse_scaling,
    plateau,
    step_decay,
    warmup,
)
from backprop_xp.training.states import TrainingState

LAYERS = (Dense, Activate, Dropout, LayerNorm, Residual)
OPTIMIZERS = (SGD, RMSProp, Adam, AdamW)
STATES = (TrainingState, Best, Slowed, SGDState, RMSPropState, AdamState)
SCHEDULES = (
    constant,
    step_decay,
    exponential,
    inverse_scaling,
    cosine,
    warmup,
    chain,
    plateau,
)
OTHERS = (EarlyStopping, leaky_relu_with, huber_with, uniform)

_CALLED: dict[str, Callable[..., Any]] = {
    name_of(maker): maker for maker in (*LAYERS, *OPTIMIZERS, *STATES, *SCHEDULES, *OTHERS)
}
_NAMED: dict[str, Any] = {
    f"{home}.{name}": value
    for home, table in (
        ("activations", ACTIVATIONS),
        ("losses", LOSSES),
        ("initializers", INITIALIZERS),
    )
    for name, value in table.items()
}
_registered: dict[str, Any] = {}


def register(name: str, thing: Any) -> None:
    """Let files name something of one's own: an object, or a class whose objects they then hold.

    An activation, a loss, an initialiser or a schedule is written by its name. Of a layer's or an
    optimiser's class each object is written by name and arguments, which are looked up as the
    attributes of the parameters' names. Who reads the file registers the same first. Raises
    ValueError where the name is another's already.

    >>> import backprop_xp as bx
    >>> square = bx.Activation(value=lambda z: z * z, vjp=lambda g, z, a: 2 * z * g)
    >>> bx.register("square", square)
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f'name must be a string, such as "square", not {name!r}.')
    known = _registered.get(name, thing)
    if not _is_same(known, thing):
        raise ValueError(f"{name!r} is registered already, as {word(known)}. Take another name.")
    _registered[name] = thing


def described(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Return a value as JSON; each array in it goes into ``arrays``, by the path that leads to it.

    Raises TypeError for what is neither the library's nor registered.
    """
    if owner(value) is not None:
        name = next((name for name, known in arrays.items() if known is value), path)
        # {"a": {"b": one}, "a.b": other} has two of one path.
        while arrays.setdefault(name, value) is not value:
            name += "'"
        return {"array": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) in (list, tuple):
        items = [described(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path} has keys that are no strings: {list(value)!r}.")
        return {"dict": _each(value, path, arrays)}
    return _by_name(value, path, arrays)


def _by_name(value: Any, path: str, arrays: dict[str, Array]) -> Any:
    """Return a thing by its name in a table, or by the name and the arguments of its maker."""
    home, name = place_of(value)
    if f"{home}.{name}" in _NAMED:
        return {"name": f"{home}.{name}"}
    for known_as, known in _registered.items():
        if _is_same(known, value):
            return {"registered": known_as}
    maker, bound = call_of(value)
    names = [{"call": name} for name, known in _CALLED.items() if known is maker]
    names += [
        {"registered": name} for name, known in _registered.items() if _is_same_class(known, maker)
    ]
    if not names or bound is None:
        why = "" if bound is not None else ", and has an attribute for each of its parameters"
        raise TypeError(
            f"{path} is {word(value)}, which a file cannot name until it is registered{why}: "
            f'bx.register("a name", ...) with it, or with its class.'
        )
    return {**names[0], "with": _each(bound.arguments, path, arrays)}


def _is_same(one: Any, other: Any) -> bool:
    """Say whether two are equal, or made anew by the same code, as where a cell runs again."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, type):
        return word(one) == word(other)
    if isinstance(one, FunctionType):
        return _is_same(_made_of(one), _made_of(other))
    if isinstance(one, property):
        return _is_same([one.fget, one.fset, one.fdel], [other.fget, other.fset, other.fdel])
    if isinstance(one, staticmethod | classmethod):
        return _is_same(one.__func__, other.__func__)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_is_same, one, other))
    if is_dataclass(one):
        return _is_same(list(vars(one).values()), list(vars(other).values()))
    if owner(one) is not None:
        same: bool = to_host(one).tolist() == to_host(other).tolist()
        return same
    return bool(one == other)


def _made_of(function: FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [function.__code__, function.__defaults__, *cells]


def _is_same_class(one: Any, other: Any) -> bool:
    """Whether two are one class, or one made anew by the same code."""
    if one is other or not isinstance(one, type) or not _is_same(one, other):
        return one is other
    return _is_same(_written_in(one), _written_in(other))


def _written_in(kind: type) -> list[Any]:
    """Return a class's functions and constants, but those that a decorator or a base class made."""
    constants = (bool, int, float, str, tuple, property, staticmethod, classmethod)
    return [
        (name, value)
        for name, value in sorted(vars(kind).items())
        if isinstance(value, constants)
        or (isinstance(value, FunctionType) and value.__code__.co_filename != "<string>")
    ]


def _each(values: Mapping[str, Any], path: str, arrays: dict[str, Array]) -> dict[str, Any]:
    return {name: described(value, f"{path}.{name}", arrays) for name, value in values.items()}


def remade(description: Any, path: str, take: Callable[[str], Array]) -> Any:
    """Return what a description says; ``take(name)`` returns an array.

    Raises ValueError for what cannot be made, with the path to it.
    """
    if isinstance(description, list):
        return [remade(item, f"{path}.{i}", take) for i, item in enumerate(description)]
    if not isinstance(description, dict):
        return description
    given = description.get("with")
    match {key: value for key, value in description.items() if key != "with"}:
        case {"array": str(name), **more} if not more and given is None:
            return take(name)
        case {"float": "inf" | "-inf" | "nan" as number, **more} if not more and given is None:
            return float(number)
        case {"tuple": list(items), **more} if not more and given is None:
            return tuple(remade(items, path, take))
        case {"dict": dict(items), **more} if not more and given is None:
            return {key: remade(value, f"{path}.{key}", take) for key, value in items.items()}
        case {"name": str(name), **more} if not more and given is None:
            return _found(_NAMED, name, path, "There is no {!r} in this version of the library.")
        case {"registered": str(name), **more} if not more:
            thing = _found(_registered, name, path, "Nothing is registered as {!r}.")
            if given is not None and not isinstance(thing, type):
                # A function of a user's is no maker: a file may name it, not call it.
                raise ValueError(f"{path}: {name!r} is registered as an object, not as a class.")
            return thing if given is None else _called(thing, given, path, take)
        case {"call": str(name), **more} if not more:
            maker = _found(_CALLED, name, path, "There is no {!r} in this version of the library.")
            return _called(maker, given, path, take)
    raise ValueError(f"{path} describes nothing that is known.")


def _found(table: Mapping[str, Any], name: str, path: str, complaint: str) -> Any:
    if name not in table:
        raise ValueError(f"{path}: {complaint.format(name)} {nearest(name, table)}")
    return table[name]


def _called(maker: Any, given: Any, path: str, take: Callable[[str], Array]) -> Any:
    """Return what a maker makes of described arguments."""
    if not isinstance(given, dict) or not callable(maker):
        raise ValueError(f"{path} describes nothing that is known.")
    arguments = {name: remade(value, f"{path}.{name}", take) for name, value in given.items()}
    signature = inspect.signature(maker)
    unknown = arguments.keys() - signature.parameters.keys()
    if unknown:
        raise ValueError(f"{path} has an argument {min(unknown)!r} that is not known.")
    bound = inspect.BoundArguments(signature, arguments)
    try:
        return maker(*bound.args, **bound.kwargs)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error
