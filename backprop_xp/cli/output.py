"""What the commands share in printing: lines, names, and an error in one line."""

import contextlib
import difflib
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

_WIDTH = 80
# What the options refuse, of the click that typer brings: BadParameter is a UsageError is this.
_Refusal: Any = typer.BadParameter.__mro__[2]


def width() -> int:
    """Return how many columns a text may take: the terminal's, or COLUMNS, but 80 at most."""
    return max(20, min(_WIDTH, shutil.get_terminal_size().columns))


def say(text: str) -> None:
    """Print a line, or several."""
    sys.stdout.write(f"{text}\n")


def note(text: str) -> None:
    """Print a line on stderr, if there is one: what is no result. A terminal's is not cut."""
    if sys.stderr is not None:
        sys.stderr.write(f"{wrapped(text) if sys.stderr.isatty() else text}\n")


def indent(text: str) -> str:
    """Return the lines of a text, each two columns further in."""
    return "\n".join(f"  {line}" for line in text.splitlines())


def wrapped(text: str, first: str = "") -> str:
    """Return a text in so many columns behind ``first``, its further lines indented as far."""
    return textwrap.fill(
        text,
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def one_line(message: Any) -> str:
    """Return a message, such as an exception, without its line breaks."""
    return " ".join(str(message).split()) or type(message).__name__


@contextlib.contextmanager
def errors_in_one_line(status: int = 1) -> Iterator[None]:
    """Turn what the library refuses into one line on stderr and an exit status."""
    try:
        yield
    except BrokenPipeError:
        raise  # typer ends quietly when nobody reads on
    except (ValueError, TypeError, RuntimeError, ImportError, OSError, MemoryError) as error:
        complain(f"{error}{_beside(error)}" if isinstance(error, FileNotFoundError) else error)
        raise typer.Exit(status) from None


def _beside(error: FileNotFoundError) -> str:
    """Return a hint at the file beside one that is missing whose name is nearest to its name."""
    path = Path(error.filename or "")
    if not (path.name and path.parent.is_dir()):
        return ""
    close = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    return f". Did you mean {os.fspath(path.with_name(close[0]))!r}?" if close else ""


def complain(message: Any) -> None:
    """Write a message as one line on stderr, if there is one."""
    if sys.stderr is not None:
        sys.stderr.write(f"error: {one_line(message)}\n")


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Leave the program with the exit status of what is done in the context: never back into it.

    Options that are refused are 2; output that cannot be written is 1, in silence where nobody
    reads on.
    """
    status = 0
    try:
        if sys.stdout is None:
            complain("stdout is closed: there is nowhere to print to.")
            sys.exit(1)
        yield
    except _Refusal as error:
        status = error.exit_code
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
        else:
            complain(error.format_message())
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except (OSError, UnicodeEncodeError) as error:
        status = 1
        _complain_of_output(error)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        if not status:
            _complain_of_output(error)
        status = status or 1
        _drop_output()
    sys.exit(status)


def _complain_of_output(error: Exception) -> None:
    if not isinstance(error, BrokenPipeError):
        complain(f"the output cannot be written: {getattr(error, 'strerror', None) or error}")


def _drop_output() -> None:
    """Let what is still to be written go nowhere: Python would try once more, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def showing_work(text: str) -> Iterator[None]:
    """Turn a spinner beside a text on stderr where that is a terminal; print nothing elsewhere."""
    if not (sys.stderr is not None and sys.stderr.isatty()):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield
