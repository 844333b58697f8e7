"""Progress on stderr: a live two-line display on a terminal or in a notebook, else plain lines.

Losses stay on the device until something is drawn: ``values`` is a function, called only then.
"""

import contextlib
import importlib.util
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from backprop_xp.backends import Array

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# Arrays on the host (*stack,), by name: "loss", "validation_loss", metrics.
Values: TypeAlias = Callable[[], Mapping[str, Array]]
Phrases: TypeAlias = Callable[[Mapping[str, Array]], Sequence[str]]
Report: TypeAlias = Callable[[int, Values], None]

# Seconds between two drawings of a live display.
_PAUSE = 0.1
# Seconds before a counter appears.
_SILENT = 2.0
# Plain lines are written after each of so many equal parts.
_PARTS = 10


def phrases_of(values: Mapping[str, Array]) -> list[str]:
    """Return a phrase for each name: for a stack, the least loss or the range of a metric."""
    return [f"{name.replace('_', ' ')} {_numbers(name, array)}" for name, array in values.items()]


def _numbers(name: str, array: Array) -> str:
    numbers = sorted(array.ravel().tolist(), key=lambda v: (math.isnan(v), v))
    if len(numbers) == 1:
        return f"{numbers[0]:.6g}"
    if name.endswith("loss"):
        return f"{numbers[0]:.6g} (best of {len(numbers)})"
    finite = [number for number in numbers if not math.isnan(number)] or numbers
    least, most = f"{finite[0]:.6g}", f"{finite[-1]:.6g}"
    return least if least == most else f"{least} to {most}"


@contextlib.contextmanager
def reporting(
    epochs: int, *, console: "Console | None" = None, phrases: Phrases = phrases_of
) -> Iterator[Report]:
    """Provide ``report(epoch, values)``, to be called after every epoch of a training.

    A resumed training begins at a later epoch, and early stopping ends it before the last. The last
    reported epoch is drawn when the context ends, unless an exception ends it: ``values`` must work
    until then. ``console`` is a rich Console; the default is ``terminal()``.

    >>> import contextlib, numpy as np, sys
    >>> with contextlib.redirect_stderr(sys.stdout), reporting(200) as report:
    ...     for epoch in range(1, 41):
    ...         report(epoch, lambda: {"loss": np.asarray([0.25, 0.125])})
    epoch   1/200  loss 0.125 (best of 2)
    epoch  20/200  loss 0.125 (best of 2)
    epoch  40/200  loss 0.125 (best of 2)
    """
    console = console or terminal()
    if console is not None:
        with live(epochs, console, phrases=phrases) as report:
            yield report
        return
    lines = _lines(epochs, phrases)
    yield lines.report
    lines.finish()


@dataclass
class _Display:
    """Draws the epochs that are due.

    ``is_due`` takes an epoch and the seconds since the last drawing, which are infinite at first.
    """

    draw: Report
    is_due: Callable[[int, float], bool]
    pending: tuple[int, Values] | None = None
    drawn: float = -math.inf

    def report(self, epoch: int, values: Values) -> None:
        self.pending = epoch, values
        if self.is_due(epoch, time.monotonic() - self.drawn):
            self.finish()

    def finish(self) -> None:
        """Draw the last reported epoch, unless it is drawn already."""
        if self.pending is not None:
            self.draw(*self.pending)
            self.pending, self.drawn = None, time.monotonic()


def _lines(epochs: int, phrases: Phrases) -> _Display:
    """Return a display of lines: the first epoch, the last, and every tenth part of all epochs."""
    width, part = len(str(epochs)), max(1, epochs // _PARTS)

    def draw(epoch: int, values: Values) -> None:
        words = [f"epoch {epoch:>{width}}/{epochs}", *phrases(values())]
        sys.stderr.write("  ".join(words) + "\n")

    def is_due(epoch: int, seconds: float) -> bool:
        return math.isinf(seconds) or epoch == epochs or epoch % part == 0

    return _Display(draw, is_due)


@contextlib.contextmanager
def live(
    epochs: int, console: "Console", *, phrases: Phrases = phrases_of, transient: bool = False
) -> Iterator[Report]:
    """Draw a bar with the time left, and the phrases below it; ``transient`` erases it at the end.

    No thread draws: the display changes after an epoch, at most ten times a second, so that values
    are not moved to the host in between.
    """
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    columns = (
        TextColumn(f"epoch {{task.completed:>{len(str(epochs))}.0f}}/{epochs}"),
        BarColumn(None),
        TimeRemainingColumn(),
        # Early stopping may end the training before.
        TextColumn("left" if console.width < 60 else "left at most"),
    )
    bar = Progress(*columns, console=console, auto_refresh=False, expand=True)
    task, words = bar.add_task("", total=epochs), Text()
    # Lines that are printed to a file must not appear above the display.
    redirects = sys.stdout is not None and sys.stdout.isatty()
    with Live(
        Group(bar, words),
        console=console,
        auto_refresh=False,
        transient=transient,
        redirect_stdout=redirects,
    ) as screen:

        def draw(epoch: int, values: Values) -> None:
            bar.update(task, completed=epoch)
            words.plain = "  ".join(phrases(values()))
            screen.refresh()

        display = _Display(draw, lambda epoch, seconds: seconds >= _PAUSE)
        yield display.report
        display.finish()


def spinner(text: str) -> contextlib.AbstractContextManager[object]:
    """Return a context that shows a spinner beside a text on a terminal, and nothing elsewhere."""
    console = terminal()
    return contextlib.nullcontext() if console is None else console.status(text)


class Counter(contextlib.AbstractContextManager["Counter"]):
    """A bar on a terminal that counts something, of an unknown total, after two seconds.

    The context ends the bar, and erases it.
    """

    def __init__(self, text: str, unit: str) -> None:
        self._text, self._unit = text, unit
        self._drawn = time.monotonic() + _SILENT - _PAUSE
        self._bar: Progress | None = None

    def show(self, number: int) -> None:
        """Draw the number, at most ten times a second."""
        if time.monotonic() < self._drawn + _PAUSE:
            return
        self._drawn = time.monotonic()
        if self._bar is None and (console := terminal()) is not None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
            self._bar.start()
            self._bar.add_task("", total=None)
        if self._bar is not None:
            words = f"{self._text}: {number:,} {self._unit}"
            self._bar.update(self._bar.task_ids[0], description=words)
            self._bar.refresh()

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def terminal() -> "Console | None":
    """Return rich's console on stderr if a live display can be drawn there, else None."""
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if not (is_terminal or "ipykernel" in sys.modules):
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    console = Console(stderr=True)
    if console.is_jupyter:
        # Without ipywidgets rich draws nothing, and warns.
        return console if importlib.util.find_spec("ipywidgets") else None
    return console if console.is_terminal and not console.is_dumb_terminal else None
