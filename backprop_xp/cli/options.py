"""Options that several commands take: each is checked before anything is done."""

import re

import typer

from backprop_xp.activations import ACTIVATIONS
from backprop_xp.checks import nearest
from backprop_xp.losses import LOSSES


def parse_sizes(text: str, example: str) -> list[int]:
    """Return the widths of the layers from a text such as ``2,2,1`` or ``2 2 1``."""
    words = [word for word in re.split(r"[,\s]+", text) if word]
    if not all(re.fullmatch(r"[0-9]{1,9}", word) and int(word) for word in words):
        raise bad_sizes(text, "holds what is no positive integer", example)
    return [int(word) for word in words]


def bad_sizes(text: str, fault: str, example: str) -> typer.BadParameter:
    """Return the error that tells the fault of ``--sizes`` and an example that would do."""
    return typer.BadParameter(f"{text!r} {fault}: {example} would do.", param_hint="'--sizes'")


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
