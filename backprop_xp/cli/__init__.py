"""The command line ``backprop-xp``: one module for each command. Needs the extra ``cli``."""

from typing import Annotated

import typer

import backprop_xp as bx
from backprop_xp.cli import bench, check, info, xor
from backprop_xp.cli.output import say

__all__ = ["app"]

app = typer.Typer(
    help="Neural networks whose backpropagation is written by hand, once, for every array library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"backprop-xp {bx.__version__}")
        raise typer.Exit


@app.callback()
def _command(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    pass


for command in (info.info, xor.xor, check.check, bench.bench):
    app.command()(command)
