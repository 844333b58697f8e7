"""Descriptions of networks, optimizers and states in files: JSON, each object as its call.

- ``{"call": "Dense", "with": {"n_in": 2, ...}}``: a call of a class or function of the library.
- ``{"name": "activations.tanh"}``: a named object of the library.
- ``{"registered": "cube"}``, ``{"registered": "Scaled", "with": {...}}``: what a user registered.
- ``{"array": "theta"}``: an array, stored beside the JSON under that name.
- ``{"tuple": [...]}``, ``{"dict": {...}}``, ``{"float": "inf"}``: values that JSON lacks.

Reading calls only entries of the registry.
"""

import functools
import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from types import FunctionType
from typing import cast

from backprop_xp.backends import Array, owner, to_host
from backprop_xp.checks import nearest
from backprop_xp.display.reprs import NAMES, argument_text, call_of, maker_name, name_of
from backprop_xp.networks.chain.containers import Chain, Residual
from backprop_xp.networks.equations.constrained_layers import Constrained
from backprop_xp.networks.equations.derivative_layers import Derivatives
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.group_layers import Groups
from backprop_xp.networks.layers.activations import leaky_relu_with
from backprop_xp.networks.layers.columns import Columns, Scale, Standardize
from backprop_xp.networks.layers.core import Activate, Dense, Dropout, LayerNorm
from backprop_xp.networks.layers.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.losses.loss import focal, huber_with, quantile, smoothed, tweedie
from backprop_xp.networks.numbers.initializers import uniform
from backprop_xp.training.interfaces.states import TrainingState
from backprop_xp.training.measures.averages import EMA, SWA
from backprop_xp.training.measures.early_stopping import Best, EarlyStopping
from backprop_xp.training.measures.plateau import Plateau, Slowed
from backprop_xp.training.optimizers import first_order as optimizers, schedules
from backprop_xp.training.optimizers.lbfgs import LBFGSState
from backprop_xp.training.optimizers.levenberg_marquardt import LevenbergMarquardtState

LAYERS = (
    *(Dense, Activate, Dropout, LayerNorm, Chain, Residual),
    *(Scale, Embedding, NumericEmbedding, Columns, Standardize, Derivatives, Equation, Groups),
    Constrained,
)
SCHEDULES = (
    *(schedules.constant, schedules.step_decay, schedules.exponential, schedules.inverse_scaling),
    *(schedules.cosine_restarts, schedules.one_cycle, schedules.epochs),
    *(schedules.cosine, schedules.warmup, schedules.chain),
)
OPTIMIZER_STATES = (
    *(optimizers.SGDState, optimizers.RMSPropState, optimizers.AdagradState, optimizers.AdamState),
    *(optimizers.AMSGradState, optimizers.LionState),
    *(LBFGSState, LevenbergMarquardtState),
)
_MAKERS: tuple[Callable[..., object], ...] = (
    *(*LAYERS, *OPTIMIZER_STATES, *SCHEDULES),
    *(*optimizers.OPTIMIZERS.values(), *optimizers.OBJECTIVE_OPTIMIZERS.values()),
    *(TrainingState, Best, Slowed, EarlyStopping, Plateau, EMA, SWA),
    *(leaky_relu_with, uniform, huber_with, quantile, tweedie, focal, smoothed),
)

# The registry of what a file may refer to, by the key of the description and by name.
REGISTRY: dict[str, dict[str, object]] = {
    "call": {maker_name(maker): maker for maker in _MAKERS},
    "name": NAMES,
    "registered": {},
}


def register(name: str, thing: object) -> None:
    """Register your own object, or a class of such objects, so that files can name it.

    Files have the name of a registered activation, loss, initializer or schedule. For a registered
    class of layers or optimizers they have the name and each object's arguments, which are the
    attributes of the parameters' names. Register the same before reading such a file. Raises
    ValueError if the name belongs to something else.

    >>> import backprop_xp as bx
    >>> cube = bx.Activation(value=lambda z: z * z * z, vjp=lambda g, z, a: 3 * z * z * g)
    >>> bx.register("cube", cube)
    """
    if not isinstance(name, str) or not name:
        raise TypeError(f'name must be a string, such as "square", not {name!r}.')
    known = REGISTRY["registered"].setdefault(name, thing)
    if not _is_same(known, thing):
        raise ValueError(
            f"{name!r} is registered already, as {argument_text(known)}. Take another name."
        )
    REGISTRY["registered"][name] = thing


def describe(value: object, path: str, arrays: dict[str, Array]) -> object:
    """Return a value as JSON; each array in it goes into ``arrays``, by the path that leads to it.

    Raises TypeError for an object that is neither the library's nor registered.
    """
    if owner(value) is not None:
        name = next((name for name, known in arrays.items() if known is value), path)
        # Two arrays of {"a": {"b": one}, "a.b": other} have one path.
        while arrays.setdefault(name, value) is not value:
            name += "'"
        return {"array": name}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is list or type(value) is tuple:
        items = [describe(item, f"{path}.{i}", arrays) for i, item in enumerate(value)]
        return items if type(value) is list else {"tuple": items}
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{path} has keys that are not strings: {list(value)!r}.")
        return {"dict": _each(value, path, arrays)}
    return _by_name(value, path, arrays)


def _by_name(value: object, path: str, arrays: dict[str, Array]) -> object:
    """Return the description of an object by its own name, or by its maker's with arguments."""
    if name_of(value):
        return {"name": name_of(value)}
    registered = REGISTRY["registered"].items()
    for name, known in registered:
        if _is_same(known, value):
            return {"registered": name}
    maker, bound = call_of(value)
    makers = [{"call": name} for name, known in REGISTRY["call"].items() if known is maker]
    makers += [{"registered": name} for name, known in registered if _is_same_class(known, maker)]
    if not makers or bound is None:
        if isinstance(value, FunctionType):
            raise _without_name(value, path)
        also = "" if bound is not None else ", and has an attribute for each of its parameters"
        raise TypeError(
            f"{path} is {argument_text(value)}, which a file cannot name until it is registered"
            f'{also}: bx.register("a name", ...) with it, or with its class.'
        )
    return {**makers[0], "with": _each(bound.arguments, path, arrays)}


def _without_name(function: FunctionType, path: str) -> TypeError:
    """Return the error of a function that is not registered, with the call that does it."""
    name = function.__name__
    what, first = f"the function {argument_text(function)}", ""
    if name == "<lambda>":
        what, name = "a lambda", path.rpartition(".")[2]
        first = f"give it a name, {name} = lambda ...: ..., and "
    return TypeError(
        f"{path} is {what}, which a file cannot name until it is registered: {first}call "
        f'bx.register("my {name}", {name}), here and before bx.load.'
    )


def _each(values: Mapping[str, object], path: str, arrays: dict[str, Array]) -> dict[str, object]:
    return {name: describe(value, f"{path}.{name}", arrays) for name, value in values.items()}


def _is_same(one: object, other: object) -> bool:
    """Whether two objects are equal, or made by the same code, as if a notebook cell ran twice."""
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    if isinstance(one, type):
        return argument_text(one) == argument_text(other)
    if owner(one) is not None:
        return bool(to_host(one).tolist() == to_host(other).tolist())
    parts, others = _parts(one), _parts(other)
    if parts is None or others is None:
        return bool(one == other)
    return len(parts) == len(others) and all(map(_is_same, parts, others))


def _parts(thing: object) -> list[object] | None:
    """Return the parts of an object that decide whether it is the same; None if it has none."""
    match thing:
        case FunctionType():
            cells = [cell.cell_contents for cell in thing.__closure__ or ()]
            return [thing.__code__, thing.__defaults__, *cells]
        case property():
            return [thing.fget, thing.fset, thing.fdel]
        case staticmethod() | classmethod():
            return [thing.__func__]
        case list() | tuple():
            return [*thing]
    return list(vars(thing).values()) if is_dataclass(thing) else None


def _is_same_class(one: object, other: object) -> bool:
    """Whether two objects are one class, or classes made by the same code."""
    if one is other or not (isinstance(one, type) and isinstance(other, type)):
        return one is other
    return _is_same(one, other) and _is_same(_body(one), _body(other))


def _body(kind: type) -> list[object]:
    """Return a class's functions and constants, without those of a decorator or a base class.

    The function that makes its annotations, of Python 3.14, knows the class itself.
    """
    constants = (bool, int, float, str, tuple, property, staticmethod, classmethod)
    return [
        (name, value)
        for name, value in sorted(vars(kind).items())
        if isinstance(value, constants)
        or (isinstance(value, FunctionType) and value.__code__.co_filename != "<string>")
        if name not in ("__annotate__", "__annotate_func__")
    ]


def rebuild(description: object, path: str, take: Callable[[str], Array]) -> object:
    """Return what a description describes; ``take(name)`` returns an array.

    Raises ValueError, with the path, for what cannot be made.
    """
    if isinstance(description, list):
        return [rebuild(item, f"{path}.{i}", take) for i, item in enumerate(description)]
    if not isinstance(description, dict):
        return description
    match sorted(description.items()):
        case [("array", str(name))]:
            return take(name)
        case [("float", "inf" | "-inf" | "nan" as number)]:
            return float(number)
        case [("tuple", list(items))]:
            return tuple(rebuild(item, path, take) for item in items)
        case [("dict", dict(items))]:
            return {key: rebuild(value, f"{path}.{key}", take) for key, value in items.items()}
        case [("name" | "registered" as kind, str(name))]:
            return _found(kind, name, path)
        case [("call" | "registered" as kind, str(name)), ("with", dict(items))]:
            maker = _found(kind, name, path)
            if kind == "registered" and not isinstance(maker, type):
                # A file may name a user's function, but not call it.
                raise ValueError(f"{path}: {name!r} is registered as an object, not as a class.")
            arguments = {key: rebuild(value, f"{path}.{key}", take) for key, value in items.items()}
            return _called(cast("Callable[..., object]", maker), arguments, path)
    raise ValueError(f"{path} describes an unknown object.")


def _found(kind: str, name: str, path: str) -> object:
    table = REGISTRY[kind]
    if name not in table:
        fault = f"There is no {name!r} in this version of the library."
        if kind == "registered":
            fault = f"Nothing is registered as {name!r}."
        raise ValueError(f"{path}: {fault} {nearest(name, table)}")
    return table[name]


def _called(maker: Callable[..., object], arguments: dict[str, object], path: str) -> object:
    signature = _signature(maker)
    unknown = arguments.keys() - signature.parameters.keys()
    if unknown:
        raise ValueError(f"{path} has an argument {min(unknown)!r} that is not known.")
    bound = inspect.BoundArguments(signature, OrderedDict(arguments))
    try:
        return maker(*bound.args, **bound.kwargs)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"{path}: {error}") from error


# Reading it takes longer than a layer's construction.
_signature = functools.cache(inspect.signature)
