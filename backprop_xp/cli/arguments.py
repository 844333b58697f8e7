"""Options that several commands take, and the checks of options before anything is computed."""

import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, TypeAlias, TypeVar

import typer

from backprop_xp.backends import registry
from backprop_xp.checks import nearest, real
from backprop_xp.extras import install_command
from backprop_xp.networks.layers.activations import ACTIVATIONS

T = TypeVar("T")

# Numbers: 0.8 GB in float64, of which a training needs several times as much.
_MAX_NUMBERS = 10**8
TABLE = "A table: .csv, .tsv, .jsonl (also .gz, .bz2), .parquet, .feather, .npz, or - for stdin."

COLUMNS = "A name, or several as A,B; may be repeated."


def callback_of(check: Callable[[T, str], T], name: str) -> Callable[[T], T]:
    """Return the callback of an option: a check of the library, given the value and the name."""

    def callback(value: T) -> T:
        try:
            return check(value, name)
        except ValueError as error:
            raise typer.BadParameter(str(error).removeprefix(f"{name} ")) from None

    return callback


def number_within(name: str, **bounds: float) -> Callable[[float | None], float | None]:
    """Return the callback of an option that is a finite number within bounds, or None."""
    check = callback_of(lambda number, name: real(number, name, **bounds), name)
    return lambda value: None if value is None else check(value)


def one_of(names: Iterable[str]) -> Callable[[str | None], str | None]:
    """Return the callback of an option that is one of these names, or None."""

    def callback(name: str | None) -> str | None:
        return None if name is None else known(name, names)

    return callback


def known(name: str, names: Iterable[str]) -> str:
    """Return a name; raise BadParameter unless it is one of ``names``."""
    if name not in names:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, list(names))}")
    return name


def known_backend(name: str | None) -> str | None:
    """Return the name of a backend, or None; whether it can run here is checked when it is used."""
    return None if name is None else known(name, [*registry.names(), "auto"])


def parse_sizes(text: str, example: str, option: str = "--sizes") -> list[int]:
    """Return the widths of the layers from a string such as ``2,2,1`` or ``2 2 1``."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not all(re.fullmatch(r"[0-9]{1,9}", word) and int(word) for word in words):
        raise bad_sizes(text, "has an entry that is not a positive integer", example, option)
    return [int(word) for word in words]


def bad_sizes(text: str, fault: str, example: str, option: str = "--sizes") -> typer.BadParameter:
    """Return the error that names the fault of an option of widths and a valid example."""
    return typer.BadParameter(f"{text!r} {fault}. Example: {example}.", param_hint=f"'{option}'")


def refuse_more(count: int, option: str) -> None:
    """Raise BadParameter for an option that needs more numbers at once than memory holds."""
    if count > _MAX_NUMBERS:
        raise typer.BadParameter(
            f"asks for {count:,} numbers at once, but the maximum is {_MAX_NUMBERS:,}.",
            param_hint=f"'{option}'",
        )


def refuse_others(
    context: typer.Context, allowed: Collection[str], option: str, reason: str
) -> None:
    """Raise BadParameter for parameters of the command line that an option does not go with."""
    others = [
        f"--{name.removeprefix('as_').replace('_', '-')}"
        for name in context.params
        if name not in allowed and _is_from_command_line(context, name)
    ]
    if others:
        raise typer.BadParameter(
            f"cannot be combined with {', '.join(others)}: {reason}", param_hint=f"'{option}'"
        )


def _is_from_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def count_parameters(sizes: Sequence[int]) -> int:
    """Return how many parameters Dense layers of these widths have."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


def file_path(path: Path | None) -> Path | None:
    """Check that a file can be written at the path, before anything is computed.

    Raises BadParameter for a path that is not that of a file, OSError for a read-only folder.
    """
    if path is None:
        return None
    if path.is_dir() or not path.parent.is_dir():
        fault = "is a folder" if path.is_dir() else f"is in {path.parent}, which is not a folder"
        raise typer.BadParameter(f"{path} {fault}.")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is not a regular file.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"{path} is in {path.parent}, which is read-only.")
    return path


def path_with(*suffixes: str) -> Callable[[Path | None], Path | None]:
    """Return the callback of an option that is the path of a file with one of the suffixes."""

    def callback(path: Path | None) -> Path | None:
        if path is not None and path.suffix.lower() not in suffixes:
            raise typer.BadParameter(f"{path} must end in {', '.join(suffixes)}.")
        return file_path(path)

    return callback


def refuse_overwriting(inputs: Iterable[object], outputs: Mapping[str, Path | None]) -> None:
    """Raise BadParameter for an output, by its option, that is an input or another output."""
    taken = [Path(str(path)) for path in inputs]
    for option, path in outputs.items():
        if path is None:
            continue
        if any(_is_same(path, other) for other in taken):
            raise typer.BadParameter(
                f"{path} would overwrite another file of this command: give it another name.",
                param_hint=f"'{option}'",
            )
        taken.append(path)


def refuse_foreign(path: Path | None, is_own: Callable[[Path], bool], option: str) -> None:
    """Raise BadParameter for an output that would replace a file that no such command has written.

    ``is_own`` is called with the path of a file that is not empty.
    """
    if path is not None and path.exists() and path.stat().st_size and not is_own(path):
        raise typer.BadParameter(
            f"{path} is another file, which would be replaced: give another name, or delete it.",
            param_hint=f"'{option}'",
        )


def _is_same(path: Path, other: Path) -> bool:
    is_link = path.exists() and other.exists() and path.samefile(other)
    return is_link or path.resolve() == other.resolve()


def require_matplotlib(path: Path | None) -> None:
    """Raise ImportError for the path of a picture where matplotlib is not installed."""
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError(f"--plot needs matplotlib: {install_command('plot')}")


def _check_separator(text: str | None) -> str | None:
    return "\t" if text in ("tab", "\\t") else text


Activation: TypeAlias = Annotated[
    str, typer.Option(callback=one_of(ACTIVATIONS), help=f"{', '.join(ACTIVATIONS)}.")
]
Backend: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=known_backend, help="The backend. Default: the environment's choice."),
]
Device: TypeAlias = Annotated[
    str | None, typer.Option(help="A device of the backend, such as cuda:1.")
]
Separator: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=_check_separator, help="One character, or tab. Default: detected."),
]
Decimal: TypeAlias = Annotated[
    str | None, typer.Option(help="A point or a comma. Default: detected.")
]
Encoding: TypeAlias = Annotated[
    str | None, typer.Option(help="An encoding such as latin1. Default: UTF-8.")
]
picture_path = path_with(".png", ".svg", ".pdf")
Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout instead.")
]
