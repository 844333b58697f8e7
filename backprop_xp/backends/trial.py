"""The child's side of ``probing.py``: try one thing and write what came of it as JSON."""

import json
import os
from typing import Any

from backprop_xp.backends import registry
from backprop_xp.backends.libraries import dtype_name, in_words
from backprop_xp.backends.protocol import Backend, Memory, Probe
from backprop_xp.backends.selection import resolve


def answer(what: str, name: str) -> None:
    """Write the ``"report"`` on the backend called ``name``, or the ``"choice"``, and exit."""
    # What a library prints when it is imported goes to stderr: stdout holds the answer alone.
    channel = os.dup(1)
    os.dup2(2, 1)
    text = json.dumps(_report(name) if what == "report" else _choice())
    with os.fdopen(channel, "w", encoding="ascii") as stream:
        stream.write(text)
    # The answer is out: a library's clean-up, which may hang or crash as well, cannot spoil it.
    os._exit(0)


def _report(name: str) -> dict[str, Any]:
    """Return the fields of a ``Report``."""
    devices: list[tuple[str, Memory | None]] = []
    details: dict[str, str] = {}
    try:
        probe, backend = registry.probe(name), registry.find(name)
        if isinstance(backend, Probe):
            return {"probe": probe, "devices": devices, "details": details}
        if probe.usable:
            devices = [(backend.device_name(d), backend.memory(d)) for d in backend.devices()]
        if probe.version is not None:  # the library is there, whether it works or not
            details = _details(backend)
    except Exception as error:
        probe = Probe(False, None, in_words(error), "reinstall it, or report this to its authors")
    return {"probe": probe, "devices": devices, "details": details}


def _details(backend: Backend) -> dict[str, str]:
    try:
        return backend.details()
    except Exception as error:
        return {"details": f"cannot be told: {in_words(error)}"}


def _choice() -> dict[str, str]:
    """Return the fields of a ``Choice``."""
    try:
        chosen = resolve()
    except Exception as error:
        return {"error": str(error) or in_words(error)}
    device = chosen.backend.device_name(chosen.device)
    return {
        "backend": chosen.backend.name,
        "device": device,
        "dtype": dtype_name(chosen.dtype),
        "source": chosen.source,
    }
