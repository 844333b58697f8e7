"""What a training on a table shows as it goes: two lines that change, or plain lines elsewhere."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from backprop_xp.display.progress import reporting, terminal

# After an epoch: its number, that of all, and the losses by their names.
Watch: TypeAlias = Callable[[int, int, Mapping[str, np.ndarray]], None]
# Seconds between two pictures.
_PAUSE = 0.1


@contextlib.contextmanager
def shown_losses() -> Iterator[Watch]:
    """Give what is called after each epoch: it shows on stderr how far a training is."""
    with contextlib.ExitStack() as shown:
        watch: Watch | None = None

        def begin(epoch: int, epochs: int, losses: Mapping[str, np.ndarray]) -> None:
            nonlocal watch
            watch = watch or shown.enter_context(_shown(epochs))
            watch(epoch, epochs, losses)

        yield begin


@contextlib.contextmanager
def _shown(epochs: int) -> Iterator[Watch]:
    console = terminal()
    if console is not None:
        with _live(epochs, console) as watch:
            yield watch
        return
    with reporting(epochs) as report:
        yield lambda epoch, epochs, losses: report(epoch, lambda: _but(losses, "best_epoch"))


def _bar(epochs: int, console: Any) -> Progress:
    columns = (
        TextColumn(f"epoch {{task.completed:>{len(str(epochs))}.0f}}/{epochs}"),
        BarColumn(None),
        TimeRemainingColumn(),
        TextColumn("left" if console.width < 60 else "left at most"),
    )
    return Progress(*columns, console=console, auto_refresh=False, expand=True)


@contextlib.contextmanager
def _live(epochs: int, console: Any) -> Iterator[Watch]:
    """Show a bar with the time left, and below it the losses; the last picture stays."""
    bar = _bar(epochs, console)
    task, words = bar.add_task("", total=epochs), Text()
    drawn, due = -math.inf, False
    with Live(Group(bar, words), console=console, auto_refresh=False) as live:

        def watch(epoch: int, epochs: int, losses: Mapping[str, np.ndarray]) -> None:
            nonlocal drawn, due
            least = {name: float(np.min(values)) for name, values in losses.items()}
            place = int(np.argmin(losses["best_loss"]))
            bar.update(task, completed=epoch)
            words.plain = (
                f"loss {least['loss']:.4g}  validation {least['validation_loss']:.4g}  "
                f"best {least['best_loss']:.4g} (epoch {losses['best_epoch'].reshape(-1)[place]})"
            )
            due = time.monotonic() - drawn < _PAUSE
            if not due:
                drawn = time.monotonic()
                live.refresh()

        yield watch
        if due:
            live.refresh()


def logging(path: Path) -> Watch:
    """Return what writes a line of JSON for each epoch; a training taken up adds to its lines."""
    begun = False

    def watch(epoch: int, epochs: int, losses: Mapping[str, np.ndarray]) -> None:
        nonlocal begun
        if not begun:
            earlier = path.read_text("utf-8").splitlines(True) if path.exists() else []
            path.write_text("".join(earlier[: epoch - 1]), "utf-8")
            begun = True
        kept = _but(losses, "best_loss", "best_epoch")
        line = {name: _plain(values) for name, values in kept.items()}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"epoch": epoch, **line}) + "\n")

    return watch


def _but(losses: Mapping[str, np.ndarray], *names: str) -> dict[str, np.ndarray]:
    return {name: values for name, values in losses.items() if name not in names}


def _plain(values: Any) -> Any:
    """Return numbers as JSON has them, null for what is not finite."""
    return np.where(np.isfinite(values), values, np.asarray(None)).tolist()
