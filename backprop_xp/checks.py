"""Checks of arguments; each error names the correction."""

import functools
import inspect
import math
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from numbers import Real
from types import FunctionType
from typing import Any, TypeVar, cast

import numpy as np

T = TypeVar("T")
Function = TypeVar("Function", bound=Callable[..., Any])

# Words of scikit-learn, PyTorch and Keras, in lower case without underscores and a final "loss",
# and the names that they have here: of losses, activations, optimizers, arguments and backends.
_ELSEWHERE = {
    "mse": "mean_squared_error",
    "l1": "mean_absolute_error",
    "mae": "mean_absolute_error",
    "smoothl1": "huber",
    "bce": "binary_cross_entropy",
    "bcewithlogits": "binary_cross_entropy",
    "ce": "categorical_cross_entropy",
    "crossentropy": "categorical_cross_entropy",
    "nll": "categorical_cross_entropy",
    "log": "categorical_cross_entropy",
    "softmaxcrossentropy": "categorical_cross_entropy",
    "sparsecategoricalcrossentropy": "categorical_cross_entropy",
    "poissonnll": "poisson",
    "swish": "silu",
    "logistic": "sigmoid",
    "linear": "identity",
    "lm": "levenbergmarquardt",
    "trainlm": "levenbergmarquardt",
    "lr": "learning_rate",
    "eps": "epsilon",
    "rho": "decay",
    "activation": "hidden",
    "hiddenlayersizes": "sizes",
    "maxiter": "epochs",
    "numepochs": "epochs",
    "patience": "early_stopping",
    "niternochange": "early_stopping",
    "validationdata": "validation",
    "validationfraction": "validation",
    "validationsplit": "validation",
    "verbose": "progress",
    "randomstate": "seed",
    "clipnorm": "clip",
    "maxnorm": "clip",
    "cuda": "cupy",
    "gpu": "cupy",
    "alpha": "l2",
    "weightdecay": "l2",
}


def choose(table: Mapping[str, T], choice: str | T, name: str) -> T:
    """Return the entry of ``table`` with the name ``choice``, or ``choice`` if it is an object.

    An unknown name is a ValueError that offers the nearest known one. An object of another type
    than the table's entries is a TypeError. ``name`` is the argument's.
    """
    if not isinstance(choice, str):
        kind = type(next(iter(table.values())))
        fits = callable(choice) if kind is FunctionType else isinstance(choice, kind)
        if not fits or isinstance(choice, type):
            wanted = "a function" if kind is FunctionType else f"a bx.{kind.__name__}"
            hint = _rule_beside(kind) if isinstance(choice, FunctionType) else ""
            raise TypeError(f"{name} must be a name or {wanted}, not {choice!r}.{hint}")
        return choice
    return table[known(choice, table, name)]


def _rule_beside(kind: type) -> str:
    """Return a hint for a function in the place of a record: its derivative stands beside it."""
    if not is_dataclass(kind):
        return ""
    shown = ", ".join(f"{one.name}=..." for one in fields(kind) if one.default is MISSING)
    return f" No function is differentiated here: pass its derivative, bx.{kind.__name__}({shown})."


def known(value: Any, names: Collection[str], name: str) -> Any:
    """Return a value that is one of the names; TypeError for another type, else ValueError."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(names)}, not {value!r}.")
    if value not in names:
        raise ValueError(f"{name} {value!r} is unknown. {nearest(value, list(names))}")
    return value


def nearest(name: str, known: Mapping[str, object] | list[str]) -> str:
    """Return a hint for an unknown ``name``: the nearest ``known`` name, then all of them."""
    close = _nearest(name, list(known))
    guess = f"Did you mean {close!r}? " if close else ""
    return f"{guess}Known: {', '.join(known)}."


def _nearest(name: str, known: list[str]) -> str | None:
    """Return the name that another library's word means, or else the one of similar letters."""
    import difflib

    meant = _ELSEWHERE.get(name.lower().replace("_", "").removesuffix("loss"))
    if meant in known:
        return meant
    by_letters = {candidate.lower(): candidate for candidate in known}
    # A part of a name is nearer than similar letters in another name.
    parts = [letters for letters in by_letters if len(name) > 2 and name.lower() in letters]
    close = parts or difflib.get_close_matches(name.lower(), list(by_letters), n=1, cutoff=0.6)
    return by_letters[close[0]] if close else None


def check_arguments(name: str, function: Callable[..., Any], given: Iterable[str]) -> None:
    """Raise TypeError for a keyword that a function has no argument for, with the nearest one."""
    code = function.__code__
    if not code.co_flags & inspect.CO_VARKEYWORDS:
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        for word in given:
            if word not in arguments:
                known = [argument for argument in arguments if argument not in ("self", "_")]
                raise TypeError(f"{name} has no argument {word!r}. {nearest(word, known)}")


def explains_arguments(function: Function) -> Function:
    """Decorate a function: an unknown keyword is a TypeError with the nearest argument."""

    @functools.wraps(function)
    def called(*arguments: Any, **options: Any) -> Any:
        check_arguments(function.__name__, function, options)
        return function(*arguments, **options)

    return cast(Function, called)


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python object, whose repr is the value alone; others unchanged."""
    return value.item() if isinstance(value, np.generic) else value


def integer(value: Any, name: str, *, at_least: int = 1) -> int:
    """Return ``value`` as a Python int; raise for another type or a smaller value.

    Integers of at least 1 are counts and sizes, which have at most 63 bits; seeds may have more.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{name} must be an integer of at least {at_least}, not {plain(value)!r} "
            f"({type(value).__name__})."
        ) from None
    bits = number.bit_length()
    if number < at_least:
        found = number if bits < 1000 else f"one of {bits} bits"  # Python writes no huge ones
        raise ValueError(f"{name} must be an integer of at least {at_least}, not {found}.")
    if at_least > 0 and bits > 63:
        raise ValueError(f"{name} must be an integer of at most 63 bits, not of {bits} bits.")
    return number


def boolean(value: Any, name: str) -> bool:
    """Return a boolean, NumPy's too, as a Python bool."""
    is_array = getattr(getattr(value, "dtype", None), "kind", None) == "b"
    if isinstance(value, bool) or (is_array and value.shape == ()):
        return bool(value)
    raise TypeError(f"{name} must be True or False, not {value!r}.")


def real(
    value: object,
    name: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """Return ``value`` as a finite float with ``low <= value <= high``, ``above < value < below``.

    The result is a Python float, since a NumPy scalar would widen float32 arrays.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number, not {plain(value)!r} ({type(value).__name__}).")
    try:
        number = float(value)
    except OverflowError:  # of an integer or a fraction
        number = -math.inf if value < 0 else math.inf
    if not (math.isfinite(number) and low <= number <= high and above < number < below):
        bounds = ["finite"] * (not math.isfinite(number)) + [
            f"{sign} {bound:g}"
            for sign, bound in ((">=", low), ("<=", high), (">", above), ("<", below))
            if math.isfinite(bound)
        ]
        raise ValueError(f"{name} must be {' and '.join(bounds)}, not {number:g}.")
    return number


def refuse_list(value: object, name: str, shape: str, example: str) -> None:
    """Raise TypeError for a list; an array may give each network of a stack its own number."""
    if isinstance(value, list | tuple):
        raise TypeError(
            f"{name} must be a number, not {value!r} ({type(value).__name__}). An array {shape}, "
            f"such as bx.asarray({example}), gives each network of a stack its own."
        )


def reals(host: np.ndarray, name: str, *, low: float, below: float = math.inf) -> None:
    """Raise as ``real`` does for the first entry of a NumPy array that is not in the bounds."""
    if host.dtype.kind in "fiu" and ((host >= low) & (host < below)).all():
        return
    for position, value in enumerate(host.reshape(-1).tolist()):
        entry = f"{name}{list(unravel(position, host.shape))}" if host.shape else name
        real(value, entry, low=low, below=below)


def unravel(position: int, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the index of the entry at a position of a flattened array of this shape."""
    return tuple(map(int, np.unravel_index(position, tuple(shape))))


def check_watch(watch: object, mode: object) -> None:
    """Raise unless ``watch`` may name a metric or a loss, and ``mode`` is "min", "max" or None."""
    if not isinstance(watch, str | None):
        raise TypeError(f"watch must be the name of a metric or a loss, not {watch!r}.")
    if mode not in ("min", "max", None):
        raise ValueError(f'mode must be "min" or "max", or None to ask the metric, not {mode!r}.')


def sequence(value: object, name: str, example: str) -> list[Any]:
    """Return the items of a sequence; a string or any other object is a TypeError."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a sequence such as {example}, not {value!r}.")
    return list(value)


def with_options(function: Function, options: Iterable[inspect.Parameter]) -> Function:
    """Show options in the signature of a function, in the place of its ``**options``."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    parameters = sorted([*own, *options], key=lambda parameter: parameter.kind)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def stacklevel() -> int:
    """Return the ``stacklevel`` with which the caller's warning names the user's line.

    That is the innermost line outside this package and scikit-learn, whose wrappers call ours.
    """
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if module.partition(".")[0] not in ("backprop_xp", "sklearn", "contextlib"):
            break
        frame, level = frame.f_back, level + 1
    return level
