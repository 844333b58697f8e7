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
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

from backprop_xp.backends.dtypes_and_devices import dtype_name, in_words
from backprop_xp.backends.protocol import Memory, Probe

SECONDS = 60.0  # importing a large library from a cold network file system takes half of that

# The alarm ends a child whose parent was killed before it could end the child.
_PROGRAM = """
import signal, sys
if hasattr(signal, "alarm"):
    signal.alarm(int(sys.argv[1]))
sys.path[:] = sys.argv[3:]
from backprop_xp.backends import choice as choosing, probing, registry
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
        answers = {name: ending.enter_context(_child(name, seconds)) for name in names}
        deadline = time.monotonic() + seconds
        return {name: answer(deadline) for name, answer in answers.items()}


@contextlib.contextmanager
def _child(name: str, seconds: float) -> Iterator[Callable[[float], dict[str, Any] | str]]:
    """Let a child try a backend, and end it; what is given waits until a time for its answer."""
    # Files, where pipes would have to be drained, and stay open as long as a grandchild lives.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(  # noqa: S603 - this Python, with our own program
            [sys.executable, "-P", "-c", _PROGRAM, str(math.ceil(seconds) + 1), name, *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            # JAX would take three quarters of a GPU from the others, tried at the same time.
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ},
            start_new_session=True,
        )

        def answer(deadline: float) -> dict[str, Any] | str:
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return f"no answer within {seconds:g} s"
            out.seek(0)
            err.seek(0)
            with contextlib.suppress(ValueError):
                told: dict[str, Any] = json.loads(out.read())
                return told
            how = (
                f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
            )
            last = err.read().decode(errors="replace").strip().splitlines()[-1:]
            return f"the trial ended by {how}" + "".join(f": {line.strip()[:300]}" for line in last)

        try:
            yield answer
        finally:
            if process.poll() is None:
                _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
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
    """Return the fields of a ``Report``; what is raised here ends the process, and is told."""
    devices, details = [], {}
    probe = registry.probe(name)
    if probe.usable:
        backend = registry.find(name)
        devices = [(backend.device_name(d), backend.memory(d)) for d in backend.devices()]
    if probe.version is not None:  # the library is there, whether it works or not
        try:
            details = registry.find(name).details()
        except Exception as error:
            details = {"details": f"cannot be told: {in_words(error)}"}
    return {"probe": probe, "devices": devices, "details": details}


def _choice(choosing: ModuleType) -> dict[str, str]:
    """Return the fields of a ``Choice``."""
    try:
        backend, device, dtype, source = choosing.choose()
    except Exception as error:
        return {"error": str(error) or in_words(error)}
    names = (backend.name, backend.device_name(device), dtype_name(dtype), source)
    return dict(zip(Choice._fields, names, strict=False))
