"""Options that several commands take: each is checked before anything is done."""

import importlib.util
import itertools
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from backprop_xp.backends import registry
from backprop_xp.checks import nearest, real
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.networks.losses import LOSSES

# Numbers: 0.8 GB in float64, of which a training needs several times as much.
_MOST = 10**8
_PICTURES = (".png", ".svg", ".pdf")
TABLE = "A table: .csv, .tsv, .jsonl (or .gz, .bz2 of it), .parquet, .feather, .npz."


def parse_sizes(text: str, example: str) -> list[int]:
    """Return the widths of the layers from a text such as ``2,2,1`` or ``2 2 1``."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not all(re.fullmatch(r"[0-9]{1,9}", word) and int(word) for word in words):
        raise bad_sizes(text, "holds what is no positive integer", example)
    return [int(word) for word in words]


def bad_sizes(text: str, fault: str, example: str) -> typer.BadParameter:
    """Return the error that tells the fault of ``--sizes`` and an example that would do."""
    return typer.BadParameter(f"{text!r} {fault}: {example} would do.", param_hint="'--sizes'")


def bounded(name: str, **bounds: float) -> Callable[[float | None], float | None]:
    """Return the check of an option that is a finite number within bounds, or is left out."""

    def check(value: float | None) -> float | None:
        try:
            return None if value is None else real(value, name, **bounds)
        except ValueError as error:
            raise typer.BadParameter(str(error).removeprefix(f"{name} ")) from None

    return check


def refuse_more(count: int, option: str) -> None:
    """Refuse what would need so many numbers at once that no memory holds them."""
    if count > _MOST:
        raise typer.BadParameter(
            f"asks for {count:,} numbers at once, but {_MOST:,} are the most.",
            param_hint=f"'{option}'",
        )


def count_parameters(sizes: list[int]) -> int:
    """Return how many parameters Dense layers of these widths have."""
    return sum((n_in + 1) * n_out for n_in, n_out in itertools.pairwise(sizes))


def known_backend(name: str | None) -> str | None:
    """Refuse what is no backend's name; why a known one cannot run here is told by using it."""
    known = [*registry.names(), "auto"]
    if name is not None and name not in known:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, known)}")
    return name


def _check_separator(text: str | None) -> str | None:
    return "\t" if text in ("tab", "\\t") else text


ChosenBackend: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=known_backend,
        help="Where to compute. Default: as the environment says.",
        show_default=False,
    ),
]


Separator: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=_check_separator,
        help="One character, or tab. Default: sniffed.",
        show_default=False,
    ),
]
Decimal: TypeAlias = Annotated[
    str | None, typer.Option(help="A point or a comma. Default: sniffed.", show_default=False)
]
Encoding: TypeAlias = Annotated[
    str | None, typer.Option(help="Such as latin1. Default: UTF-8.", show_default=False)
]


def known_activation(name: str) -> str:
    """Refuse what is no name of ``bx.activations``."""
    if name not in ACTIVATIONS:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, ACTIVATIONS)}")
    return name


def known_loss(name: str) -> str:
    """Refuse what is no name of ``bx.losses``."""
    if name not in LOSSES:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, LOSSES)}")
    return name


def picture_path(path: Path | None) -> Path | None:
    """Find out before a training what would stop the picture after it."""
    if path is not None and path.suffix.lower() not in _PICTURES:
        raise typer.BadParameter(f"{path} must end in {', '.join(_PICTURES)}.")
    return file_path(path)


def file_path(path: Path | None) -> Path | None:
    """Find out before something is computed what would stop its file after it."""
    if path is None:
        return None
    if path.is_dir() or not path.parent.is_dir():
        fault = "is a folder" if path.is_dir() else f"is in {path.parent}, which is no folder"
        raise typer.BadParameter(f"{path} {fault}.")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"{path} is no regular file.")
    if not os.access(path.parent, os.W_OK):
        raise typer.BadParameter(f"{path} cannot be written: {path.parent} is read-only.")
    return path


def refuse_overwriting(inputs: Iterable[object], outputs: Mapping[str, Path | None]) -> None:
    """Refuse an output, under its option, that is a file to be read, or another output."""
    taken = [Path(str(path)) for path in inputs]
    for option, path in outputs.items():
        if path is None:
            continue
        if any(_is_same(path, other) for other in taken):
            raise typer.BadParameter(
                f"{path} would overwrite another file of this command: give it a name of its own.",
                param_hint=f"'{option}'",
            )
        taken.append(path)


def _is_same(path: Path, other: Path) -> bool:
    is_link = path.exists() and other.exists() and path.samefile(other)
    return is_link or path.resolve() == other.resolve()


def require_pictures(path: Path | None) -> None:
    """Raise ImportError if a picture is asked for where matplotlib is not installed."""
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: pip install 'backprop_xp[plot]'")


def split_names(text: str | None) -> list[str]:
    """Return the names of columns in a text such as ``age,fare``."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]
