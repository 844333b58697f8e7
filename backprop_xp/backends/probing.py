"""Trials of backends in child processes: a hang ends in a kill, and a crash is reported.

A driver may never answer, a library may end the process that imports it, and a GPU keeps memory for
every process that has touched it. ``answer`` is the child's side.
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import IO, Any, NamedTuple, TypeAlias

from backprop_xp.backends.dtypes_and_devices import dtype_name, text_of
from backprop_xp.backends.protocol import Memory, Probe

SECONDS = 60.0  # the import of a large library from a cold network file system takes half of that
# The alarm ends a child whose parent was killed.
_PROGRAM = """
import signal, sys
if hasattr(signal, "alarm"):
    signal.alarm(int(sys.argv[1]))
sys.path[:] = sys.argv[3:]
from backprop_xp.backends import choice, probing, registry
probing.answer(sys.argv[2], registry, choice)
"""
Answer: TypeAlias = Any  # a Report's fields or a selection, as JSON has them; a string: no answer


class Report(NamedTuple):
    """The result of a backend's trial: the probe, its devices by name, and ``Backend.details``."""

    probe: Probe
    devices: tuple[tuple[str, Memory | None], ...] = ()
    details: Mapping[str, str] = MappingProxyType({})


def probe_in_children(names: Sequence[str], seconds: float = SECONDS) -> dict[str, Report]:
    """Return a report on each backend, from children that run at the same time.

    A child has this process's environment, working directory and ``sys.path``, and leaves nothing
    loaded or allocated. A child that crashes, or does not answer within ``seconds`` and is killed
    with its process group, makes its backend unusable.
    """
    return {name: _report(name, answer) for name, answer in _ask(names, seconds).items()}


def survey(
    names: Sequence[str], seconds: float = SECONDS
) -> tuple[Mapping[str, str], dict[str, Report]]:
    """Return the selection of the environment, and ``probe_in_children(names, seconds)``.

    The selection has ``backend``, ``device``, ``dtype`` and ``source``, or only an ``error``.
    """
    answers = _ask(["", *names], seconds)
    selection = answers.pop("")
    if isinstance(selection, str):
        selection = {"error": f"resolving the choice of the environment: {selection}"}
    return selection, {name: _report(name, answer) for name, answer in answers.items()}


def _report(name: str, answer: Answer) -> Report:
    if isinstance(answer, str):
        hint = f'see more by python -c "import backprop_xp as bx; bx.get_backend({name!r})"'
        return Report(Probe(False, None, answer, hint))
    probe, devices, details = answer
    devices = ((device, memory and Memory(*memory)) for device, memory in devices)
    return Report(Probe(*probe), tuple(devices), details)


def _ask(names: Sequence[str], seconds: float) -> dict[str, Answer]:
    """Return each child's answer, or the reason why there is none; ``""`` asks for the choice."""
    command = [sys.executable, "-P", "-c", _PROGRAM, str(math.ceil(seconds) + 1)]
    # JAX would take three quarters of a GPU from the other libraries.
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ}
    children = {}
    with contextlib.ExitStack() as stack:
        for name in names:
            # Files need no draining, unlike pipes, which a grandchild would keep open.
            out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(2))
            with _ctrl_c_delayed():  # a child that starts meanwhile would not be killed
                process = subprocess.Popen(  # noqa: S603 - this Python, with our own program
                    [*command, name, *sys.path],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    env=environment,
                    start_new_session=True,
                )
                stack.callback(_kill, process)
            children[name] = process, out, err
        deadline, answers = time.monotonic() + seconds, {}
        for name, (process, out, err) in children.items():
            try:
                status = process.wait(max(0.0, deadline - time.monotonic()))
                answers[name] = _answer(status, out, err)
            except subprocess.TimeoutExpired:
                answers[name] = f"no answer within {seconds:g} s"
        return answers


@contextlib.contextmanager
def _ctrl_c_delayed() -> Iterator[None]:
    """Call the handler of Ctrl-C at the end of this context, in the main thread, which has it."""
    handler, pressed = signal.getsignal(signal.SIGINT), list[Any]()
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, lambda *signalled: pressed.append(signalled))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])


def _answer(status: int, out: IO[bytes], err: IO[bytes]) -> Answer:
    out.seek(0)
    err.seek(0)
    with contextlib.suppress(ValueError):
        return json.loads(out.read())
    end = f"exit status {status}" if status >= 0 else f"signal {signal.Signals(-status).name}"
    last = err.read().decode(errors="replace").strip().splitlines()[-1:]
    return f"the trial ended by {end}" + "".join(f": {line.strip()[:300]}" for line in last)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that still runs, with its process group."""
    if process.poll() is None:
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        # A process that hangs inside the kernel's driver dies when the driver releases it.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0)


def answer(name: str, registry: ModuleType, choice: ModuleType) -> None:
    """Write the report on a backend, or the choice, as JSON, and end the process."""
    # A library's own output goes to stderr: stdout holds the answer alone.
    channel = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(_trial(name, registry) if name else _selection(choice))
    with os.fdopen(channel, "w", encoding="ascii") as stream:
        stream.write(text)
    os._exit(0)  # without the library's clean-up, which may hang or crash as well


def _trial(name: str, registry: ModuleType) -> Report:
    """Return the report; an error ends the process, and the parent reports it."""
    devices, details = [], {}
    probe = registry.probe(name)
    if probe.usable:
        backend = registry.find(name)
        devices = [(backend.device_name(d), backend.memory(d)) for d in backend.devices()]
    if probe.version is not None:  # the library is there, whether it runs or not
        try:
            details = registry.find(name).details()
        except Exception as error:
            details = {"details": f"not available: {text_of(error)}"}
    return Report(probe, tuple(devices), details)


def _selection(choice: ModuleType) -> dict[str, str]:
    try:
        backend, device, dtype, source = choice.resolve()
    except Exception as error:
        return {"error": " ".join(str(error).split()) or text_of(error)}
    names = {"backend": backend.name, "device": backend.device_name(device)}
    return {**names, "dtype": dtype_name(dtype), "source": source}
