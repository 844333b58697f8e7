"""Printing for all commands: lines, labels, and errors in one line with an exit status."""

import contextlib
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import typer

_WIDTH = 80
# The codes of green, red and yellow.
_COLORS = {"pass": 32, "kink": 32, "fail": 31, "inconclusive": 33, "nondeterministic": 33}
# The verdict in the first line of a report, "gradient check: pass (...".
_VERDICT = re.compile(rf"^(.* check: )({'|'.join(_COLORS)})\b", re.M)
# An object that is printed, or read, as JSON.
JsonObject: TypeAlias = Mapping[str, Any]
# The base class of the errors of options: typer does not export the class that it has from click.
_CommandError: Any = typer.BadParameter.__mro__[2]


def width() -> int:
    """Return how many columns a text may take: the terminal's, or COLUMNS, but at most 80."""
    return max(20, min(_WIDTH, shutil.get_terminal_size().columns))


def printable(text: str) -> str:
    """Return a text with escapes, as ``repr`` has them, for what is no printable character.

    A text from a file may hold codes that a terminal obeys, and line breaks.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def printable_object(found: Any) -> Any:
    """Return an object of JSON with printable strings."""
    if isinstance(found, Mapping):
        return {printable(str(name)): printable_object(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [printable_object(value) for value in found]
    return printable(found) if isinstance(found, str) else found


def say(text: str) -> None:
    """Print one line or several on stdout."""
    sys.stdout.write(f"{printable_lines(text)}\n")


def say_reports(text: str) -> None:
    """Print text with reports of checks; on a terminal their verdicts are in colour.

    ``NO_COLOR`` in the environment turns the colours off (no-color.org).
    """
    text = printable_lines(text)
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        text = _VERDICT.sub(lambda at: f"{at[1]}\x1b[{_COLORS[at[2]]}m{at[2]}\x1b[0m", text)
    sys.stdout.write(f"{text}\n")


def printable_lines(text: str) -> str:
    """Return a text with its line breaks, and escapes for other characters."""
    return "\n".join(map(printable, text.split("\n")))


def write_data(text: str) -> None:
    """Write data to stdout: as they are, but with escapes on a terminal."""
    sys.stdout.write(printable_lines(text) if sys.stdout.isatty() else text)


def note(text: str) -> None:
    """Print a line about the run on stderr, if there is a stderr; on a terminal it is wrapped."""
    if sys.stderr is not None:
        line = one_line(text)
        sys.stderr.write(f"{wrap(line) if sys.stderr.isatty() else line}\n")


def indent(text: str) -> str:
    """Return the lines of a text, each indented by two columns."""
    return textwrap.indent(text, "  ")


def wrap(text: str, first: str = "") -> str:
    """Return a text wrapped behind ``first``, with further lines indented by its width."""
    return textwrap.fill(
        text,
        width(),
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )


def with_label(label: str, text: object, room: int) -> str:
    """Return a text wrapped behind its label, which takes ``room`` columns with its indent."""
    return wrap(str(text), f"  {label}".ljust(room) + " ")


def one_line(message: object) -> str:
    """Return a message, such as an exception, as one printable line."""
    return printable(" ".join(str(message).split())) or type(message).__name__


def complain(message: object) -> None:
    """Print a message as one line on stderr, if there is a stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"error: {one_line(message)}\n")


@contextlib.contextmanager
def errors_in_one_line(status: int = 1, outputs: Iterable[Path | None] = ()) -> Iterator[None]:
    """Turn an error of the library into one line on stderr and an exit status.

    The status is 1 for one of ``outputs`` that cannot be written.
    """
    try:
        yield
    except BrokenPipeError:
        raise  # ending_in_one_line handles it
    except (ValueError, TypeError, RuntimeError, ImportError, OSError, MemoryError) as error:
        hint = _similar_file(error) if isinstance(error, FileNotFoundError) else ""
        complain(f"{error}{hint}" if hint else error)
        written = [os.fspath(path) for path in outputs if path is not None]
        raise typer.Exit(1 if getattr(error, "filename", None) in written else status) from None


def _similar_file(error: FileNotFoundError) -> str:
    """Return a hint at the file whose name is the most similar to that of the missing one."""
    path = Path(error.filename or "")
    if not (path.name and path.parent.is_dir()):
        return ""
    close = difflib.get_close_matches(path.name, [one.name for one in path.parent.iterdir()], n=1)
    return f". Did you mean {os.fspath(path.with_name(close[0]))!r}?" if close else ""


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """End the program, with one line on stderr for an error, and the exit status.

    The status is 2 for bad options, and 1 for output that cannot be written. A closed pipe ends the
    program without a line.
    """
    status = 0
    try:
        if sys.stdout is None:
            complain("stdout is closed: the output cannot be printed.")
            sys.exit(1)
        yield
    except _CommandError as error:
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
        # Unwritten output goes to the null device: Python would try to write it once more.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _complain_of_output(error: Exception) -> None:
    if not isinstance(error, BrokenPipeError):
        complain(f"the output cannot be written: {getattr(error, 'strerror', None) or error}")
