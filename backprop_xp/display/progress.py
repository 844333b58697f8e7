"""How far a training is, on stderr: a bar where somebody watches a terminal, else lines.

Losses stay on the device until something is written: ``values`` is a function, called only then.
"""

import contextlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

# Names with their numbers on the host, (*stack,): "loss", "validation_loss", metrics.
Values: TypeAlias = Callable[[], Mapping[str, Any]]
Report: TypeAlias = Callable[[int, Values], None]

# Seconds between two pictures of a bar.
_PAUSE = 0.1
# Characters that a bar is long.
_BAR = 12
# Plain lines come after each of so many equal parts.
_PARTS = 10


@contextlib.contextmanager
def reporting(epochs: int, *, console: Any = None) -> Iterator[Report]:
    """Give ``report(epoch, values)``, to be called after every epoch of a training of ``epochs``.

    A training may begin at a later epoch than the first, and end before the last: its own last is
    written when the context is left, so that ``values`` must be good until then; not if that is by
    an exception. ``console`` is a rich Console to draw on; by default it is found out whether
    stderr takes a bar.

    >>> import contextlib, numpy as np, sys
    >>> with contextlib.redirect_stderr(sys.stdout), reporting(200) as report:
    ...     for epoch in range(1, 41):
    ...         report(epoch, lambda: {"loss": np.asarray([0.25, 0.125])})
    epoch   1/200  loss 0.125 (best of 2)
    epoch  20/200  loss 0.125 (best of 2)
    epoch  40/200  loss 0.125 (best of 2)
    """
    console = console or terminal()
    with _lines(epochs) if console is None else _bar(epochs, console) as report:
        yield report


def in_words(values: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each name: of a stack the least loss, but the range of a metric."""
    return [f"{name.replace('_', ' ')} {_in_words(name, array)}" for name, array in values.items()]


def _in_words(name: str, array: Any) -> str:
    numbers = sorted(array.ravel().tolist(), key=lambda v: (math.isnan(v), v))
    if len(numbers) == 1:
        return f"{numbers[0]:.6g}"
    if name.endswith("loss"):
        return f"{numbers[0]:.6g} (best of {len(numbers)})"
    finite = [number for number in numbers if not math.isnan(number)] or numbers
    return f"{finite[0]:.6g} to {finite[-1]:.6g}"


@contextlib.contextmanager
def _lines(epochs: int) -> Iterator[Report]:
    """Write a line for the first epoch, the last, and every tenth part of all epochs."""
    width, part = len(str(epochs)), max(1, epochs // _PARTS)
    written, last = 0, None

    def write(epoch: int, values: Values) -> None:
        nonlocal written
        phrases = [f"epoch {epoch:>{width}}/{epochs}", *in_words(values())]
        sys.stderr.write("  ".join(phrases) + "\n")
        written = epoch

    def report(epoch: int, values: Values) -> None:
        nonlocal last
        last = epoch, values
        if not written or epoch == epochs or epoch % part == 0:
            write(epoch, values)

    yield report
    if last is not None and last[0] != written:
        write(*last)


@contextlib.contextmanager
def _bar(epochs: int, console: Any) -> Iterator[Report]:
    """Draw a bar with the epoch, the losses and the time left, at most ten times a second."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(f"epoch {{task.completed:>{len(str(epochs))}.0f}}/{epochs}"),
        BarColumn(_BAR),
        TextColumn("{task.fields[words]}", markup=False),
        TimeRemainingColumn(),
    )
    # On a narrow terminal rich would cut all columns alike; it is the words that can be spared.
    others = len(f"epoch {epochs}/{epochs}") + 1 + _BAR + 1 + 1 + len("0:00:00")
    room = max(0, console.width - others)
    drawn, last = -math.inf, None
    # No thread of rich's draws: a bar changes after an epoch, and values are not moved in between.
    # The context puts the cursor back, whatever ends it.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("", total=epochs, words="")

        def draw(epoch: int, values: Values) -> None:
            nonlocal drawn, last
            words = "  ".join(in_words(values()))
            progress.update(task, completed=epoch, words=_cut(words, room), refresh=True)
            drawn, last = time.monotonic(), None

        def report(epoch: int, values: Values) -> None:
            nonlocal last
            last = epoch, values
            if time.monotonic() - drawn >= _PAUSE:
                draw(epoch, values)

        yield report
        if last is not None:
            draw(*last)


def _cut(words: str, room: int) -> str:
    return words if len(words) <= room else f"{words[: max(0, room - 1)]}…"


def terminal() -> Any | None:
    """Return rich's console on stderr if a bar can be drawn there, else None."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True)
    if console.is_jupyter:
        # Without it rich draws nothing, and warns.
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if console.is_terminal and not console.is_dumb_terminal else None
