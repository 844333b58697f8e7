"""The command line ``backprop-xp``: one module for each command. Needs the extra ``cli``.

This module has the application. The order of reading: ``output`` (what commands print, and their
errors), ``arguments`` (options that several commands take), then the commands, each of which
imports only what is before it:

- ``info``: what would run where;
- ``check``: the check of a gradient;
- ``table``: training, predictions, descriptions and exports of models of tables;
- ``xor`` with ``xor_experiment``: a well-known exercise that trains XOR by hand;
- ``bench``: the times of other libraries.
"""

import sys
from typing import Annotated, Any

import typer
import typer.core

import backprop_xp as bx
from backprop_xp.cli import info, xor
from backprop_xp.cli.bench import comparison
from backprop_xp.cli.check import command as gradient_check
from backprop_xp.cli.output import ending_in_one_line, say, width
from backprop_xp.cli.table import export, inspect, predict, train

__all__ = ["app"]


class _Commands(typer.core.TyperGroup):
    """The group of the commands, whose errors are one line on stderr."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        options = {"terminal_width": width() - 2, **options, "standalone_mode": False}
        with ending_in_one_line():
            status = super().main(*arguments, **options)
            sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=_Commands,
    help="Neural networks with hand-written backpropagation, for every array library.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(is_given: bool) -> None:
    if is_given:
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


_COMMANDS = (
    *(info.info, xor.xor, gradient_check.check, comparison.bench),
    *(train.train, predict.predict, inspect.inspect, export.export),
)
for command in _COMMANDS:
    # Without it the list of the commands shows what fits in one line.
    app.command(short_help=(command.__doc__ or "").split("\n\n")[0])(command)
