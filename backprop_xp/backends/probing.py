"""Trying backends in processes of their own: what hangs is killed, what crashes is told.

A driver may never answer, a library may end the process that imports it, and a GPU keeps memory for
every process that has touched it: all that befalls a child. Its side is ``trial.py``.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import IO, Any, NamedTuple

from backprop_xp.backends.protocol import Memory, Probe

SECONDS = 60.0  # importing a large library from a cold network file system takes half of that

# The alarm ends a child whose parent was killed before it could end the child.
_CHILD = """
import signal, sys
if hasattr(signal, "alarm"):
    signal.alarm(int(sys.argv[1]))
sys.path[:] = sys.argv[4:]
from backprop_xp.backends.trial import answer
answer(sys.argv[2], sys.argv[3])
"""


class Report(NamedTuple):
    """What a backend's trial showed: the probe, its devices by name, and ``Backend.details``."""

    probe: Probe
    devices: tuple[tuple[str, Memory | None], ...] = ()
    details: Mapping[str, str] = MappingProxyType({})


class Choice(NamedTuple):
    """What ``resolve()`` returns where only the environment chooses, in words; or its error."""

    backend: str = ""
    device: str = ""
    dtype: str = ""
    source: str = ""
    error: str = ""


class _Trial(NamedTuple):
    """A child that was started, and the files that it writes to."""

    process: subprocess.Popen[bytes]
    answer: IO[bytes]
    complaints: IO[bytes]


def probe_apart(names: Sequence[str], seconds: float = SECONDS) -> dict[str, Report]:
    """Return a report on each backend, from children that run at once, ``seconds`` at most.

    A child has this process's environment, working directory and ``sys.path``, and leaves nothing
    loaded or allocated. One that does not answer in time is killed, with the processes of its
    group; it, and one that crashes, is reported as not usable.
    """
    answers = _ask([("report", name) for name in names], seconds)
    return {name: _report(name, got) for name, got in zip(names, answers, strict=True)}


def survey(names: Sequence[str], seconds: float = SECONDS) -> tuple[Choice, dict[str, Report]]:
    """Return what the environment chooses, and ``probe_apart(names, seconds)``, tried at once."""
    first, *others = _ask([("choice", ""), *(("report", name) for name in names)], seconds)
    if isinstance(first, str):
        choice = Choice(error=f"resolving what the environment asks for: {first}")
    else:
        choice = Choice(**first)
    return choice, {name: _report(name, got) for name, got in zip(names, others, strict=True)}


def _report(name: str, got: dict[str, Any] | str) -> Report:
    if isinstance(got, str):
        hint = f'see more by python -c "import backprop_xp as bx; bx.get_backend({name!r})"'
        return Report(Probe(False, None, got, hint))
    devices = ((device, memory and Memory(*memory)) for device, memory in got["devices"])
    return Report(Probe(*got["probe"]), tuple(devices), got["details"])


def _ask(questions: Sequence[tuple[str, str]], seconds: float) -> list[dict[str, Any] | str]:
    """Return each child's answer, or why there is none."""
    with contextlib.ExitStack() as ending:
        trials = [_start(question, seconds, ending) for question in questions]
        deadline = time.monotonic() + seconds
        return [_outcome(trial, deadline, seconds) for trial in trials]


def _start(question: tuple[str, str], seconds: float, ending: contextlib.ExitStack) -> _Trial:
    # Files, where pipes would have to be drained, and stay open as long as any grandchild lives.
    answer, complaints = (
        ending.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed by the stack
        for _ in range(2)
    )
    limit = str(math.ceil(seconds) + 1)
    process = subprocess.Popen(  # noqa: S603 - this Python, with our own program
        [sys.executable, "-P", "-c", _CHILD, limit, *question, *map(str, sys.path)],
        stdin=subprocess.DEVNULL,
        stdout=answer,
        stderr=complaints,
        # JAX would take three quarters of a GPU from the others, which are tried at the same time.
        env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
        start_new_session=True,
    )
    ending.callback(_end, process)
    return _Trial(process, answer, complaints)


def _outcome(trial: _Trial, deadline: float, seconds: float) -> dict[str, Any] | str:
    try:
        status = trial.process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:g} s"
    trial.answer.seek(0)
    try:
        answer: dict[str, Any] = json.loads(trial.answer.read())
    except ValueError:
        return f"the trial ended by {_status(status)}{_last_line(trial.complaints)}"
    return answer


def _status(status: int) -> str:
    """Return the words for an exit status; a negative one is the signal that ended the process."""
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"exit status {status}"


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return f": {lines[-1].strip()[:300]}" if lines else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        os.killpg(process.pid, signal.SIGKILL)
    # A process that hangs inside the kernel's driver dies when the driver lets go of it.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
