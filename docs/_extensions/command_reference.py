"""The reference of the command ``backprop-xp``, made of the command itself when the site is built.

The line ``<!-- all commands -->`` of a page becomes a section for each command, with its usage, its
help and a definition list of its arguments and options.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "<!-- all commands -->\n"
# The modules with the help of the options.
SOURCES = ("cli/**/*.py", "tables/model/tabular_parameters.py")


def reference() -> str:
    """Return the Markdown of all commands, in the order of ``backprop-xp --help``."""
    import typer

    from backprop_xp.cli import app

    commands = typer.main.get_command(app).commands
    return "\n".join(line for name in commands for line in _section(name, commands[name]))


def _section(name: str, command: Any) -> Iterator[str]:
    context = command.make_context(f"backprop-xp {name}", [], resilient_parsing=True)
    usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
    yield from (f"## `backprop-xp {name}`", "", _markdown(command.help), "")
    yield from ("```text", usage, "```", "")
    for parameter in command.params:  # without --help
        words, text = parameter.get_help_record(context)
        yield from (f"`{words}`", f": {_markdown(' '.join(text.split()))}", "")


def _markdown(text: str) -> str:
    """Return a text of the help with its options as code and all else as it is."""
    plain = re.sub(r"([\\`*_<>\[\]])", r"\\\1", text)
    return re.sub(r"--[a-z][a-z-]*", r"`\g<0>`", plain)


def _insert(app: Any, name: str, source: list[str]) -> None:
    if MARK in source[0]:
        source[0] = source[0].replace(MARK, reference())
        package = Path(app.srcdir).parent / "backprop_xp"
        for path in (path for pattern in SOURCES for path in package.glob(pattern)):
            app.env.note_dependency(str(path))


def setup(app: Any) -> dict[str, bool]:
    """Replace the mark in each page as it is read."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
