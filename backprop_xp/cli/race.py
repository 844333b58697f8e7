"""Libraries that train the same network in turns, each in a process of its own, and their times.

In one process the threads of two libraries would spin beside one another. The children's side is
``contenders.py``.
"""

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Any, NamedTuple

import numpy as np

# OpenBLAS's threads wait busily, for some 30 ms at 2 GHz, before they sleep: so long is no turn.
PAUSE = 0.06
# These make OpenBLAS choose kernels for another processor than the one at hand.
_MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
_CONTENDERS = "backprop_xp.cli.contenders"


class Case(NamedTuple):
    """What is trained in one turn: relu hidden units, by Adam, float32, shuffled batches.

    An epoch is ``batches`` updates by ``batch`` rows each. The loss is the mean squared error of
    one output, and else softmax and cross-entropy.
    """

    sizes: tuple[int, ...]
    batch: int
    batches: int
    epochs: int

    @property
    def classes(self) -> bool:
        """Say whether the targets are classes."""
        return self.sizes[-1] > 1

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x ``(rows, n_in)``, and labels ``(rows,)`` or, of one output, ``(rows, 1)``."""
        generator = np.random.default_rng(0)
        rows = self.batch * self.batches
        x = generator.normal(size=(rows, self.sizes[0])).astype(np.float32)
        if self.classes:
            return x, generator.integers(0, self.sizes[-1], rows)
        return x, generator.normal(size=(rows, 1)).astype(np.float32)

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batches of {self.batch}"


CASES = {
    "S": Case((2, 2, 1), batch=4, batches=16, epochs=50),
    "D": Case((64, 100, 10), batch=200, batches=8, epochs=20),
    "M": Case((784, 512, 512, 10), batch=256, batches=8, epochs=3),
    "W": Case((1024, 2048, 2048, 10), batch=1024, batches=4, epochs=1),
}
# What takes part, and the module that it needs; ``matmul`` is a step's matrix products alone.
LIBRARIES = {
    "backprop_xp": "numpy",
    "matmul": "numpy",
    "scikit-learn": "sklearn",
    "PyTorch": "torch",
    "JAX": "jax",
}


class Entrant(NamedTuple):
    """One of ``LIBRARIES``, under a name of its own; of ours, where it trains ("": as chosen)."""

    name: str
    library: str
    backend: str = ""
    device: str = ""


class Quartiles(NamedTuple):
    """The median of some figures, and the ends of their middle half."""

    median: float
    low: float
    high: float


class Outcome(NamedTuple):
    """Microseconds per update of each entrant, a figure for each round, and why others have none.

    ``greetings`` are what the processes told of themselves: version and, of ours, its place.
    """

    times: dict[str, list[float]]
    greetings: dict[str, dict[str, str]]
    left_out: dict[str, str]

    def time(self, name: str) -> Quartiles:
        """Return an entrant's microseconds per update."""
        return quartiles(self.times[name])

    def ratio(self, name: str, peer: str) -> Quartiles:
        """Return one's time over another's in the same round."""
        pairs = zip(self.times[name], self.times[peer], strict=True)
        return quartiles([one / other for one, other in pairs])


def quartiles(figures: Sequence[float]) -> Quartiles:
    """Return the median and the middle half of two figures or more."""
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return Quartiles(median, low, high)


def is_installed(library: str) -> bool:
    """Say whether one of ``LIBRARIES`` can be imported, without importing it."""
    return importlib.util.find_spec(LIBRARIES[library]) is not None


def race(case: str, entrants: Sequence[Entrant], rounds: int) -> Outcome:
    """Let each entrant train a case of ``CASES`` once a round, one after the other.

    Whoever is slowed by a noisy neighbour for a while is slowed beside its peers, so that the
    ratios within a round tell more than the times. One that fails is left out of all rounds.
    """
    outcome = Outcome({}, {}, {})
    with contextlib.ExitStack() as ending:
        processes = {one.name: _Process(one, case, ending) for one in entrants}
        for i in range(rounds + 1):
            for name, process in processes.items():
                if name in outcome.left_out:
                    continue
                answer = process.answer(asks=i > 0)
                if "error" in answer:
                    outcome.left_out[name] = answer["error"]
                    outcome.times.pop(name, None)
                elif i == 0:
                    outcome.greetings[name] = answer
                else:
                    outcome.times.setdefault(name, []).append(float(answer["microseconds"]))
    return outcome


class _Process:
    """A child that trains when it is asked to, and ends when the stack is left."""

    def __init__(self, entrant: Entrant, case: str, ending: contextlib.ExitStack) -> None:
        # A file, for nobody drains a pipe while the child trains.
        self._complaints: IO[bytes] = ending.enter_context(
            tempfile.TemporaryFile()  # noqa: SIM115 - closed by the stack
        )
        _, library, backend, device = entrant
        self._process = subprocess.Popen(  # noqa: S603 - this Python, with our own module
            [sys.executable, "-P", "-m", _CONTENDERS, library, case, backend, device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            text=True,
            env=_environment(),
        )
        ending.callback(self._end)

    def answer(self, *, asks: bool) -> dict[str, Any]:
        """Return the child's greeting, or ask it for a turn and return what it took."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018 - pipes, for mypy
        if asks:
            time.sleep(PAUSE)
            with contextlib.suppress(BrokenPipeError):
                stdin.write("\n")
                stdin.flush()
        try:
            found: dict[str, Any] = json.loads(stdout.readline())
        except ValueError:
            return {"error": f"its process ended{self._last_words()}"}
        return found

    def _last_words(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)  # its last words follow the end of its stdout
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1].strip()[:300]}" if lines else ""

    def _end(self) -> None:
        # A child that waits would end by itself when its stdin is closed, one that trains later.
        self._process.kill()
        self._process.communicate()


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    path = os.pathsep.join(map(os.path.abspath, sys.path))
    # JAX would take three quarters of a GPU from the others.
    return {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **kept, "PYTHONPATH": path}
