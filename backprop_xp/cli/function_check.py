"""The command ``check`` on functions of a module: a value and its gradient, or a custom rule."""

import contextlib
import difflib
import importlib
import json
import sys
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.cli.arguments import refuse_others
from backprop_xp.cli.custom_rules import jax_rules, torch_rules
from backprop_xp.cli.output import complain, indent, say

Value: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="[MODULE:VALUE]", help="A function to check instead of a network."),
]
Gradient: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="The gradient of MODULE:VALUE.")
]
Point: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="FILE|MODULE:NAME", help="The point: a .npz or .npy, or an object."),
]
Args: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="JSON|FILE|MODULE:NAME", help='More arguments, such as 0.5,"mean".'),
]
Torch: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="A torch.autograd.Function to check.")
]
Jax: TypeAlias = Annotated[
    str | None, typer.Option(metavar="MODULE:NAME", help="A jax.custom_vjp or custom_jvp to check.")
]

# The parameters that name functions, each with those that only it takes; and the shared ones.
_TARGETS = {"value": {"gradient", "args"}, "torch": set[str](), "jax": set[str]()}
_SHARED = {"point", "method", "seed", "as_json"}
_EXAMPLE = "Example: backprop-xp check model:value --gradient model:gradient --point point.npz."


def target(context: typer.Context) -> str | None:
    """Return the parameter that names functions, or None; BadParameter for others beside it."""
    given = context.params
    for name, own in _TARGETS.items():
        if given[name] is not None:
            option = "MODULE:VALUE" if name == "value" else f"--{name}"
            refuse_others(context, {name} | own | _SHARED, option, "it checks functions.")
            for needed in sorted({"gradient", "point"} & (own | _SHARED)):
                if given[needed] is None:
                    raise _bad(f"is missing. {_EXAMPLE}", f"--{needed}")
            return name
    for name in ("gradient", "point", "args", "as_json"):
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
    say(json.dumps(report.to_dict(), indent=2) if given["as_json"] else "\n\n".join(found))
    return 0 if report.passed else 1


def _check_value(given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    value = _function(given["value"], "MODULE:VALUE")
    gradient = _function(given["gradient"], "--gradient")
    args = () if given["args"] is None else _args(given["args"])
    options = {"args": args, "method": given["method"], "seed": given["seed"]}
    report = bx.check_gradient(value, gradient, _data(given["point"], "--point"), **options)
    yield given["value"], report


def _check_rules(library: str, given: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    bx.get_backend(library)  # its error says how to install it
    function, point = _function(given[library], f"--{library}"), _data(given["point"], "--point")
    inputs = point if isinstance(point, dict | tuple) else (point,)
    rules = {"torch": torch_rules, "jax": jax_rules}[library]
    for kind, *arguments, floating in rules(function, inputs):
        check = partial(getattr(bx, f"check_{kind}"), method=given["method"], seed=given["seed"])
        yield f"{given[library]}, {kind}", check(*arguments, *floating)


def _is_file(text: str) -> bool:
    return Path(text).suffix.lower() in (".npz", ".npy")


def _data(text: str, option: str) -> Any:
    """Return an object of a module, or the arrays of a file: a dict if there are several."""
    if not _is_file(text):
        return _object(text, option)
    try:
        with Path(text).open("rb") as file:  # np.load leaves a broken file open
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            arrays = dict(loaded)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise _bad(f"{text!r} cannot be read: {error}", option) from None
    if not arrays:
        raise _bad(f"{text!r} has no arrays.", option)
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def _args(text: str) -> tuple[Any, ...]:
    """Return further arguments: JSON values, or an object or file, which SciPy's rule wraps."""
    try:
        return tuple(json.loads(f"[{text}]"))
    except ValueError:
        found = _data(text, "--args")
    return found if isinstance(found, tuple) else (found,)


def _function(text: str, option: str) -> Any:
    found = _object(text, option)
    if not callable(found):
        raise _bad(f"{text!r} is not a function, but {type(found).__name__}.", option)
    return found


def _object(text: str, option: str) -> Any:
    """Return the object ``module:name`` or ``file.py:name``; its folder comes first on the path."""
    place, _, names = text.rpartition(":")
    if not (place and names):
        others = {"--point": ", .npz or .npy", "--args": ", .npz, .npy or JSON"}.get(option, "")
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
