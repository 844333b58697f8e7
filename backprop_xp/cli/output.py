"""What the commands share in printing: lines, names, and an error in one line."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import typer

_WIDTH = 80


def say(text: str) -> None:
    """Print a line, or several."""
    sys.stdout.write(f"{text}\n")


def indent(text: str) -> str:
    """Return the lines of a text, each two columns further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def wrapped(text: str, first: str = "") -> str:
    """Return a text in 80 columns behind ``first``, its further lines indented as far."""
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(message: Any) -> str:
    """Return a message, such as an exception, without its line breaks."""
    return " ".join(str(message).split()) or type(message).__name__


@contextlib.contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn what the library refuses into one line on stderr and the exit status 1."""
    try:
        yield
    except BrokenPipeError:
        raise  # typer ends quietly when nobody reads on
    except (ValueError, TypeError, RuntimeError, ImportError, OSError, MemoryError) as error:
        sys.stderr.write(f"error: {one_line(error)}\n")
        raise typer.Exit(1) from None
