"""The command ``info``: what would run where, and why."""

import platform

import array_api_compat
import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.cli.output import dtype_name, one_line, say


def info() -> None:
    """Show where a computation would run and why, versions, and which backends are usable.

    The exit status is 1 if the environment asks for what cannot be had.
    """
    say(f"backprop-xp {bx.__version__}\n\nselection")
    usable = True
    try:
        chosen = bx.resolve()
    except (ValueError, TypeError, RuntimeError) as error:
        usable = False
        say(f"  error: {one_line(error)}")
    else:
        say(f"  backend  {chosen.backend.name}\n  device   {chosen.device}")
        say(f"  dtype    {dtype_name(chosen.dtype)}\n  source   {chosen.source}")
    say(f"\nversions\n  Python            {platform.python_version()}")
    say(f"  NumPy             {np.__version__}")
    say(f"  array-api-compat  {array_api_compat.__version__}\n\nbackends")
    for row in bx.list_backends():
        if row.usable:
            say(f"  {row.name:<17} usable      {_version(row.name)}")
        else:
            say(f"  {row.name:<17} not usable  {one_line(row.reason)}")
            say(f"  {'':<17} try         {one_line(row.hint)}")
    if not usable:
        raise typer.Exit(1)


def _version(backend: str) -> str:
    try:
        return bx.get_backend(backend).probe().version or ""
    except ValueError:  # of the device or dtype that the environment asks for
        return ""
