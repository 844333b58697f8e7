"""Functions timed in separate processes, which take turns, and the quartiles of their times.

In one process the threads of two libraries would slow each other down.
"""

import contextlib
import functools
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, NamedTuple, Self, TypeAlias

from backprop_xp.backends import text_of

# OpenBLAS's threads wait busily, for some 30 ms at 2 GHz, before they sleep.
PAUSE = 0.06
# These make OpenBLAS choose kernels for another processor.
_MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_CHILD = "import sys; from backprop_xp.cli.bench.race import take_turns; take_turns(*sys.argv[1:])"

# An object of JSON; a string "error" says why it is empty otherwise.
Answer: TypeAlias = dict[str, Any]


class Entrant(NamedTuple):
    """A name, and the ``"module:function"`` that a process of its own calls with the arguments.

    The function returns ``turn(case)``, whose first call for a case warms up and whose result is
    JSON, mostly a time; and an object of JSON that describes the entrant, such as its version.
    """

    name: str
    maker: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = {}
    limit: float = 600.0  # seconds without an answer after which the process is killed


class Quartiles(NamedTuple):
    """The median of some figures, and the ends of their middle half."""

    median: float
    low: float
    high: float


class Outcome(NamedTuple):
    """The times of each entrant, one for each round; or why an entrant is left out."""

    times: dict[str, list[float]]
    left_out: dict[str, str]

    def time(self, name: str) -> Quartiles:
        """Return an entrant's times."""
        return quartiles(self.times[name])

    def ratio(self, name: str, peer: str) -> Quartiles:
        """Return an entrant's time divided by that of a peer in the same round."""
        pairs = zip(self.times[name], self.times[peer], strict=True)
        return quartiles([one / other for one, other in pairs])


def quartiles(figures: Sequence[float]) -> Quartiles:
    """Return the median and the middle half of two figures or more."""
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return Quartiles(median, low, high)


@contextlib.contextmanager
def start_children(entrants: Sequence[Entrant]) -> Iterator[dict[str, "Child"]]:
    """Start a process for each entrant, by name; the end of the context kills them."""
    with contextlib.ExitStack() as stack:
        yield {one.name: stack.enter_context(Child(one)) for one in entrants}


def race(children: Mapping[str, "Child"], case: str, rounds: int) -> Outcome:
    """Time each process once a round, one after the other; one that fails is left out.

    A busy machine slows the entrants of a round alike: ratios within a round vary less than times.
    """
    outcome = Outcome({}, {})
    for i in range(rounds + 1):
        for name, child in children.items():
            if name in outcome.left_out:
                continue
            time.sleep(PAUSE)
            answer = child.turn(case)
            if "error" in answer:
                outcome.left_out[name] = answer["error"]
                outcome.times.pop(name, None)
            elif i > 0:
                outcome.times.setdefault(name, []).append(float(answer["turn"]))
    return outcome


class Child:
    """The process of an entrant: it takes a turn for each line that it reads."""

    def __init__(self, entrant: Entrant) -> None:
        # A file: nobody reads a pipe while the process computes.
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._limit = entrant.limit
        self._process = subprocess.Popen(  # noqa: S603 - this Python, and our own module
            [sys.executable, "-P", "-W", "ignore", "-c", _CHILD, entrant.maker, *entrant.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env=_environment() | {**entrant.environment},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # A waiting process would end when its stdin is closed, a computing one later.
        self._process.kill()
        self._process.communicate()
        self._stderr.close()

    @functools.cached_property
    def description(self) -> Answer:
        """The description of the entrant, or the error that ended it."""
        return self._answer()

    def turn(self, case: str = "") -> Answer:
        """Run a turn of the entrant, and return its result as ``turn``."""
        if "error" in self.description:
            return self.description
        assert self._process.stdin is not None  # noqa: S101 - a pipe, for mypy
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{case}\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Answer:
        assert self._process.stdout is not None  # noqa: S101 - a pipe, for mypy
        begin, timer = time.monotonic(), threading.Timer(self._limit, self._process.kill)
        timer.start()
        try:
            answer: Answer = json.loads(self._process.stdout.readline())
        except ValueError:
            late = time.monotonic() - begin >= self._limit
            when = f" after {self._limit:g} seconds" if late else ""
            return {"error": f"its process ended{when}{self._last_words()}"}
        finally:
            timer.cancel()
        return answer

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)  # the last lines follow the end of stdout
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:300]}" if lines else ""


def take_turns(maker: str, *arguments: str) -> None:
    """Answer a ``Child`` on stdout; what a library prints there goes to stderr."""
    with os.fdopen(os.dup(1), "w") as stdout:
        os.dup2(2, 1)

        def answer(**words: object) -> None:
            stdout.write(json.dumps(words) + "\n")
            stdout.flush()

        try:
            module, _, name = maker.partition(":")
            turn, description = getattr(importlib.import_module(module), name)(*arguments)
        except Exception as error:  # also a library's own classes: the others are still timed
            answer(error=text_of(error))
            return
        answer(**description)
        for line in sys.stdin:
            try:
                answer(turn=turn(line.strip()))
            except Exception as error:  # of this case: the process may be good for another
                answer(error=text_of(error))


def _environment() -> dict[str, str]:
    known = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    # JAX would take three quarters of a GPU from the others.
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **known, "PYTHONPATH": path}
