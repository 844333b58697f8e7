"""The command ``check`` on functions of a module: a value and its gradient, or a custom rule."""

import contextlib
import difflib
import importlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.cli.arguments import number_within, refuse_others
from backprop_xp.cli.check.custom_rules import jax_rules, torch_rules
from backprop_xp.cli.output import complain, indent, say, say_reports
from backprop_xp.files.numpy_files import read_npy, read_npz
from backprop_xp.gradient_check.entrances.api import halves

Value: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="[MODULE:VALUE]", help="A function to check instead of a network."),
]
Gradient: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="[MODULE:]NAME",
        help="The gradient. Without this option, VALUE returns (value, gradient).",
    ),
]
Jacobian: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="[MODULE:]NAME", help="The Jacobian of MODULE:VALUE, which has M results."
    ),
]
Point: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE|[MODULE:]NAME", help="The point: a .npz or .npy, or an object."),
]
Args: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="JSON|FILE|[MODULE:]NAME", help='More arguments, such as 0.5,"mean".'),
]
Tolerance: TypeAlias = Annotated[
    float | None,
    typer.Option(
        callback=number_within("tolerance", above=0.0),
        help="The largest relative error that passes. Default: 1e-7 or more, by the dtype.",
    ),
]
Samples: TypeAlias = Annotated[
    int, typer.Option(min=0, help="The number of further points to draw.")
]
Bounds: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH|FILE|[MODULE:]NAME",
        help="Bounds of the point: numbers or JSON such as 0,inf or [0,1],null, or an object.",
    ),
]
Torch: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="A torch.autograd.Function to check.")
]
Jax: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="A jax.custom_vjp or custom_jvp to check.")
]

# The parameters that name functions, each with those that only it takes; and the shared ones.
_TARGETS = {"value": {"gradient", "jacobian", "args"}, "torch": set[str](), "jax": set[str]()}
_SHARED = {"point", "tolerance", "samples", "bounds", "method", "seed", "as_json"}
_EXAMPLE = "Example: backprop-xp check model:value --gradient model:gradient --point point.npz."


def target(context: typer.Context) -> str | None:
    """Return the parameter that names functions, or None; BadParameter for others beside it."""
    given = context.params
    for name, own in _TARGETS.items():
        if given[name] is not None:
            option = "MODULE:VALUE" if name == "value" else f"--{name}"
            refuse_others(context, {name} | own | _SHARED, option, "it checks functions.")
            if given["gradient"] and given["jacobian"]:
                raise _bad("cannot be combined with --gradient: one of them.", "--jacobian")
            if given["point"] is None:
                raise _bad(f"is missing. {_EXAMPLE}", "--point")
            return name
    for name in ("gradient", "jacobian", "args", *sorted(_SHARED - {"method", "seed"})):
        if given[name]:
            raise _bad(f"needs a function to check. {_EXAMPLE}", f"--{name.removeprefix('as_')}")
    return None


def run(given: dict[str, Any], target: str) -> int:
    """Check the functions, print the reports, and return the exit status."""
    checks = _check_value if target == "value" else partial(_check_rules, target)
    found = []
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the reports alone
            for title, report in checks(given):
                found.append(f"{title}\n{indent(str(report))}")
                if not report.passed:
                    break
    except typer.BadParameter:
        raise
    except (Exception, SystemExit) as error:  # the user's functions may raise anything
        complain(f"{type(error).__name__}: {error}")
        return 2
    if given["as_json"]:
        say(json.dumps(report.to_dict(), indent=2))
    else:
        say_reports("\n\n".join(found))
    return 0 if report.passed else 1


def _check_value(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    name, home = given["value"], _home(given["value"])
    value = _function(name, "MODULE:VALUE", home)
    args = () if given["args"] is None else _args(given["args"], home)
    point, options = _data(given["point"], "--point", home), {"args": args, **_options(given, home)}
    if given["jacobian"] is not None:
        jacobian = _function(given["jacobian"], "--jacobian", home)
        yield name, bx.check_jacobian(value, jacobian, point, **options)
        return
    if given["gradient"] is None:
        rule = f"{name} must return (value, gradient) without --gradient or --jacobian"
        value, gradient = halves(value, rule)
    else:
        gradient = _function(given["gradient"], "--gradient", home)
    yield name, bx.check_gradient(value, gradient, point, **options)


def _check_rules(library: str, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    bx.get_backend(library)  # its error says how to install it
    name, home = given[library], _home(given[library])
    function, point = _function(name, f"--{library}", home), _data(given["point"], "--point", home)
    inputs = point if isinstance(point, dict | tuple) else (point,)
    rules, options = {"torch": torch_rules, "jax": jax_rules}[library], _options(given, home)
    for kind, *arguments, floating in rules(function, inputs):
        check = partial(getattr(bx, f"check_{kind}"), **options)
        yield f"{name}, {kind}", check(*arguments, *floating)


def _options(given: dict[str, Any], home: str) -> dict[str, Any]:
    """Return the options of the check."""
    options = {name: given[name] for name in ("method", "seed", "tolerance", "samples")}
    bounds = given["bounds"]
    return {**options, "bounds": None if bounds is None else _bounds(bounds, home)}


def _home(text: str) -> str:
    """Return the module of ``module:name``, in which names without a module are looked up."""
    return text.rpartition(":")[0]


def _is_file(text: str) -> bool:
    return Path(text).suffix.lower() in (".npz", ".npy")


def _data(text: str, option: str, home: str) -> Any:
    """Return an object of a module, or the arrays of a file: a dict if there are several."""
    if not _is_file(text):
        return _object(text, option, home)
    try:
        with Path(text).open("rb") as file:
            if Path(text).suffix.lower() == ".npy":
                return read_npy(file)
            arrays = read_npz(file)
    except (OSError, ValueError) as error:
        raise _bad(f"{text!r} cannot be read: {error}", option) from None
    if not arrays:
        raise _bad(f"{text!r} has no arrays.", option)
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def _args(text: str, home: str) -> tuple[Any, ...]:
    """Return further arguments: JSON values, or an object or file, which SciPy's rule wraps."""
    try:
        return tuple(json.loads(f"[{text}]"))
    except ValueError:
        found = _data(text, "--args", home)
    return found if isinstance(found, tuple) else (found,)


def _bounds(text: str, home: str) -> Any:
    """Return two numbers, two JSON values, or an object or file with both."""
    try:
        return tuple(float(side) for side in text.split(","))
    except ValueError:
        found = _args(text, home)
    pair = found[0] if len(found) == 1 else found
    return tuple(pair) if isinstance(pair, list | np.ndarray) else pair


def _function(text: str, option: str, home: str) -> Any:
    found = _object(text, option, home)
    if not callable(found):
        raise _bad(f"{text!r} is not a function, but {type(found).__name__}.", option)
    return found


def _object(text: str, option: str, home: str) -> Any:
    """Return the object ``module:name`` or ``file.py:name``; its folder comes first on the path.

    A name alone is looked up in the module ``home``.
    """
    place, _, names = text.rpartition(":")
    if not place and all(name.isidentifier() for name in names.split(".")):
        place = home
    if not (place and names):
        files, json_too = ", .npz or .npy", ", .npz, .npy or JSON"
        others = {"--point": files, "--args": json_too, "--bounds": json_too}.get(option, "")
        raise _bad(f"{text!r} is not module:name{others}.", option)
    path = Path(place)
    folder, module = (path.parent, path.stem) if path.suffix == ".py" else (Path(), place)
    sys.path.insert(0, str(folder.resolve()))
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a module may raise anything
        why = f"its import raises {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            why = f"there is no module {error.name!r} in {folder.resolve()} or on Python's path."
        raise _bad(f"{text!r}: {why}", option) from None
    for name in names.split("."):
        if not hasattr(found, name):
            close = difflib.get_close_matches(name, dir(found), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise _bad(f"{text!r}: there is no {name!r} in {place}.{hint}", option)
        found = getattr(found, name)
    return found


def _bad(message: str, option: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=f"'{option}'")
