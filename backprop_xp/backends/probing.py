"""Trying backends in processes of their own: what hangs is killed, what crashes is told.

A driver may never answer, a library may end the process that imports it, and a GPU keeps memory for
every process that has touched it: all that befalls a child. ``answer`` is the child's side.
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
from types import MappingProxyType, ModuleType
from typing import IO, Any, NamedTuple

from backprop_xp.backends.libraries import dtype_name, in_words
from backprop_xp.backends.protocol import Backend, Memory, Probe

SECONDS = 60.0  # importing a large library from a cold network file system takes half of that

# The alarm ends a child whose parent was killed before it could end the child.
_CHILD = """
import signal, sys
if hasattr(signal, "alarm"):
    signal.alarm(int(sys.argv[1]))
sys.path[:] = sys.argv[3:]
from backprop_xp.backends import choosing, probing, registry
probing.answer(sys.argv[2], registry, choosing)
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


def probe_apart(names: Sequence[str], seconds: float = SECONDS) -> dict[str, Report]:
    """Return a report on each backend, from children that run at once, ``seconds`` at most.

    A child has this process's environment, working directory and ``sys.path``, and leaves nothing
    loaded or allocated. One that does not answer in time is killed, with the processes of its
    group; it, and one that crashes, is reported as not usable.
    """
    return {name: _report(name, got) for name, got in _ask(names, seconds).items()}


def survey(names: Sequence[str], seconds: float = SECONDS) -> tuple[Choice, dict[str, Report]]:
    """Return what the environment chooses, and ``probe_apart(names, seconds)``, tried at once."""
    answers = _ask(["", *names], seconds)
    choice = answers.pop("")
    if isinstance(choice, str):
        choice = {"error": f"resolving what the environment asks for: {choice}"}
    return Choice(**choice), {name: _report(name, got) for name, got in answers.items()}


def _report(name: str, got: dict[str, Any] | str) -> Report:
    if isinstance(got, str):
        hint = f'see more by python -c "import backprop_xp as bx; bx.get_backend({name!r})"'
        return Report(Probe(False, None, got, hint))
    devices = ((device, memory and Memory(*memory)) for device, memory in got["devices"])
    return Report(Probe(*got["probe"]), tuple(devices), got["details"])


def _ask(names: Sequence[str], seconds: float) -> dict[str, dict[str, Any] | str]:
    """Return what each child answers, or why it does not; ``""`` asks for the choice."""
    with contextlib.ExitStack() as ending:
        # Files, where pipes would have to be drained, and stay open as long as a grandchild lives.
        files = [ending.enter_context(tempfile.TemporaryFile()) for _ in range(2 * len(names))]
        trials = []
        for name, out, err in zip(names, files[::2], files[1::2], strict=True):
            process = subprocess.Popen(  # noqa: S603 - this Python, with our own program
                [sys.executable, "-P", "-c", _CHILD, str(math.ceil(seconds) + 1), name, *sys.path],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                # JAX would take three quarters of a GPU from the others, tried at the same time.
                env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
                start_new_session=True,
            )
            ending.callback(_end, process)
            trials.append((name, process, out, err))
        deadline = time.monotonic() + seconds
        return {
            name: _outcome(process, out, err, deadline, seconds)
            for name, process, out, err in trials
        }


def _outcome(
    process: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes], deadline: float, limit: float
) -> dict[str, Any] | str:
    try:
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return f"no answer within {limit:g} s"
    out.seek(0)
    err.seek(0)
    with contextlib.suppress(ValueError):
        answer: dict[str, Any] = json.loads(out.read())
        return answer
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    lines = err.read().decode(errors="replace").strip().splitlines()
    return f"the trial ended by {how}" + "".join(f": {line.strip()[:300]}" for line in lines[-1:])


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


def answer(name: str, registry: ModuleType, choosing: ModuleType) -> None:
    """Write what came of trying a backend, or of the choice, as JSON, and end the process."""
    # What a library prints when it is imported goes to stderr: stdout holds the answer alone.
    channel = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(_trial(name, registry) if name else _choice(choosing))
    with os.fdopen(channel, "w", encoding="ascii") as stream:
        stream.write(text)
    # The answer is out: a library's clean-up, which may hang or crash as well, cannot spoil it.
    os._exit(0)


def _trial(name: str, registry: ModuleType) -> dict[str, Any]:
    """Return the fields of a ``Report``."""
    told: dict[str, Any] = {"devices": [], "details": {}}
    try:
        told["probe"] = probe = registry.probe(name)
        if probe.usable:
            backend = registry.find(name)
            told["devices"] = [
                (backend.device_name(d), backend.memory(d)) for d in backend.devices()
            ]
        if probe.version is not None:  # the library is there, whether it works or not
            told["details"] = _details(registry.find(name))
    except Exception as error:
        hint = "reinstall it, or report this to its authors"
        told["probe"] = Probe(False, None, in_words(error), hint)
    return told


def _details(backend: Backend) -> dict[str, str]:
    try:
        return backend.details()
    except Exception as error:
        return {"details": f"cannot be told: {in_words(error)}"}


def _choice(choosing: ModuleType) -> dict[str, str]:
    """Return the fields of a ``Choice``."""
    try:
        backend, device, dtype, source = choosing.choose()
    except Exception as error:
        return {"error": str(error) or in_words(error)}
    names = (backend.name, backend.device_name(device), dtype_name(dtype), source)
    return dict(zip(Choice._fields, names, strict=False))
