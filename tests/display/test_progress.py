"""The progress of a training: lines, or a bar on a terminal."""

import io
import itertools
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from backprop_xp.display import progress
from backprop_xp.display.progress import reporting

Shown = pytest.CaptureFixture[str]


class CountingLosses:
    """Losses that count their calls."""

    def __init__(self, **values: Any) -> None:
        self.values = {name: np.asarray(value) for name, value in values.items()}
        self.calls = 0

    def __call__(self) -> dict[str, Any]:
        self.calls += 1
        return self.values


def _epochs(lines: str) -> list[int]:
    return [int(number) for number in re.findall(r"epoch +(\d+)/", lines)]


@pytest.mark.parametrize(
    ("epochs", "ran", "expected"),
    [
        (200, range(1, 201), [1, *range(20, 201, 20)]),
        (7, range(1, 8), [1, 2, 3, 4, 5, 6, 7]),
        (25, range(1, 26), [1, *range(2, 25, 2), 25]),
        (200, range(131, 201), [131, 140, 160, 180, 200]),  # resumed
        (200, range(1, 51), [1, 20, 40, 50]),  # ended early
        (1, range(1, 2), [1]),
        (5, range(0), []),
    ],
)
def test_there_is_a_line_for_the_first_the_last_and_every_tenth_part_of_the_epochs(
    capsys: Shown, epochs: int, ran: range, expected: list[int]
) -> None:
    values = CountingLosses(loss=0.5)
    with reporting(epochs) as report:
        for epoch in ran:
            report(epoch, values)
    output = capsys.readouterr()
    assert output.out == ""
    assert _epochs(output.err) == expected
    assert values.calls == len(expected)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"loss": 0.1234567}, "loss 0.123457"),
        (
            {"loss": [0.3, 0.125], "validation_loss": [[0.2], [0.4]]},
            "loss 0.125 (best of 2)  validation loss 0.2 (best of 2)",
        ),
        ({"loss": [np.nan, 2.0]}, "loss 2 (best of 2)"),
        ({"loss": [np.nan, np.nan]}, "loss nan (best of 2)"),
        ({"loss": [1.0], "validation_accuracy": [0.75]}, "loss 1  validation accuracy 0.75"),
        # For some metrics large values are good, for others small ones.
        ({"accuracy": [0.9, np.nan, 0.5]}, "accuracy 0.5 to 0.9"),
        ({"accuracy": [np.nan, np.nan]}, "accuracy nan"),
    ],
)
def test_a_line_has_the_least_loss_of_a_stack_and_the_range_of_a_metric(
    capsys: Shown, values: dict[str, Any], expected: str
) -> None:
    with reporting(120) as report:
        report(3, CountingLosses(**values))
    assert capsys.readouterr().err == f"epoch   3/120  {expected}\n"


def test_an_exception_ends_the_lines(capsys: Shown) -> None:
    values = CountingLosses(loss=0.5)
    with pytest.raises(KeyboardInterrupt):
        _interrupt(reporting(100), values)
    assert _epochs(capsys.readouterr().err) == [1]


def _interrupt(reports: Any, values: CountingLosses) -> None:
    """Report two epochs, then raise KeyboardInterrupt."""
    with reports as report:
        report(1, values)
        report(2, values)
        raise KeyboardInterrupt


def _terminal(width: int = 120) -> Any:
    console = pytest.importorskip("rich.console")
    return console.Console(
        file=io.StringIO(), force_terminal=True, width=width, force_jupyter=False, _environ={}
    )


def _frames(console: Any) -> list[str]:
    """Return each frame of a bar, without colours and cursor movements."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    return [picture.strip() for picture in re.split(r"[\r\n]+", text) if picture.strip()]


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_bar_has_the_epoch_the_values_and_the_time_left(clock: Clock) -> None:
    console = _terminal()
    with reporting(20, console=console) as report:
        for epoch in range(1, 21):
            clock.now += 1.0
            values = CountingLosses(loss=1.0 / epoch, validation_loss=[0.5, 0.25], accuracy=0.75)
            report(epoch, values)
    assert values.calls == 1  # the last epoch is not drawn twice
    pictures = _frames(console)
    assert pictures[0].startswith("epoch  0/20")
    words = r"loss 0.25  validation loss 0.25 \(best of 2\)  accuracy 0.75"
    drawn = list(itertools.pairwise(pictures))
    bar = r"epoch  4/20 .* [\d:]+ left at most"
    assert any(re.fullmatch(bar, a) and re.fullmatch(words, b) for a, b in drawn), pictures
    assert re.fullmatch(r"epoch 20/20 .* 0:00:00 left at most", pictures[-2])
    assert pictures[-1].startswith("loss 0.05  ")


def test_a_bar_is_drawn_at_most_ten_times_a_second_and_at_the_end(clock: Clock) -> None:
    console, values = _terminal(), CountingLosses(loss=0.5)
    with reporting(1000, console=console) as report:
        for epoch in range(1, 778):
            clock.now += 0.001
            report(epoch, values)
        assert 7 <= values.calls <= 8
        before = values.calls
    assert values.calls == before + 1
    assert _frames(console)[-2].startswith("epoch  777/1000")


def test_an_interrupted_bar_restores_the_terminal() -> None:
    console, values = _terminal(), CountingLosses(loss=0.5)
    with pytest.raises(KeyboardInterrupt):
        _interrupt(reporting(100, console=console), values)
    drawn = console.file.getvalue()
    hidden, visible = drawn.rfind("\x1b[?25l"), drawn.rfind("\x1b[?25h")
    assert 0 <= hidden < visible  # the cursor
    assert drawn.endswith("\n") or drawn[:visible].endswith("\n")
    assert values.calls == 1
    with reporting(100, console=console) as report:  # rich allows one bar at a time
        report(1, values)


def test_a_narrow_terminal_wraps_the_values_and_keeps_the_count_and_the_time(clock: Clock) -> None:
    console = _terminal(width=40)
    with reporting(1000, console=console) as report:
        for epoch in (1, 2, 3):
            clock.now += 1.0
            report(epoch, CountingLosses(loss=[0.5, 0.25], validation_loss=[0.5, 0.25]))
    bar, *words = _frames(console)[-3:]
    assert re.match(r"epoch    3/1000 \S+ [\d:-]+ left$", bar)
    assert words == ["loss 0.25 (best of 2)  validation loss", "0.25 (best of 2)"]
    with reporting(2, console=(console := _terminal())) as report:  # names are no markup
        report(1, CountingLosses(**{"f[red]": 0.5}))
    assert "f[red] 0.5" in _frames(console)[-1]


@pytest.mark.parametrize(
    ("term", "bar"), [("xterm", True), ("dumb", False)], ids=["terminal", "dumb terminal"]
)
def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, term: str, bar: bool) -> None:
    pytest.importorskip("rich")

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys, "stderr", Terminal())
    with reporting(10) as report:
        report(1, CountingLosses(loss=0.5))
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    if bar:
        assert "\x1b[" in written
        assert "epoch  1/10" in written
    else:
        assert written == "epoch  1/10  loss 0.5\n"


def test_without_rich_a_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch, capsys: Shown) -> None:
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with reporting(10) as report:
        report(1, CountingLosses(loss=0.5))
    assert capsys.readouterr().err == "epoch  1/10  loss 0.5\n"


def test_rich_is_not_imported_for_lines() -> None:
    program = (
        "import sys, numpy as np\n"
        "from backprop_xp.display.progress import reporting\n"
        "with reporting(1) as report: report(1, lambda: {'loss': np.asarray(0.5)})\n"
        "assert 'rich' not in sys.modules\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == "epoch 1/1  loss 0.5\n"
