"""The command ``info``: what would run where, and why; as text, or as JSON for programs."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import array_api_compat
import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.backends import Memory, registry
from backprop_xp.backends.probing import SECONDS, Choice, Report, survey
from backprop_xp.checks import nearest
from backprop_xp.cli.output import one_line, say, wrapped

# The library's own; the last three are of its tests and the sessions of nox.
_NAMES = ("BACKEND", "DEVICE", "DTYPE", "REQUIRE_GPU", "CUDA", "EMULATED_CUDA")
_OURS = [f"BACKPROP_XP_{name}" for name in _NAMES]
_THEIRS = [
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "CUDA_VISIBLE_DEVICES",
    "CUPY_TF32",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
]
_LABEL = 20  # columns of a label, with its indent


def info(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead, and nothing else.")
    ] = False,
) -> None:
    """Show where a computation would run and why, versions, and which backends are usable.

    Each backend is tried in a process of its own, for 60 seconds at most. The exit status is 1 if
    the environment asks for what cannot be had.
    """
    found = collect()
    say(json.dumps(found, indent=2) if as_json else as_text(found))
    if "error" in found["selection"]:
        raise typer.Exit(1)


def collect(seconds: float = SECONDS) -> dict[str, Any]:
    """Return what the command tells, as ``docs/backends.md`` lays it out."""
    choice, reports = survey(registry.names(), seconds)
    return {
        "backprop_xp": bx.__version__,
        "selection": _selection(choice),
        "environment": _environment(os.environ),
        "unknown_variables": _unknown(os.environ),
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
        },
        "versions": {"numpy": np.__version__, "array-api-compat": array_api_compat.__version__},
        "backends": {name: _backend(report) for name, report in reports.items()},
    }


def _selection(choice: Choice) -> dict[str, str]:
    if choice.error:
        return {"error": one_line(choice.error)}
    return {
        "backend": choice.backend,
        "device": choice.device,
        "dtype": choice.dtype,
        "source": choice.source,
    }


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return our variables as they are set, and those of others that change what is computed."""
    ours = {name: value for name, value in variables.items() if name.startswith("BACKPROP_XP_")}
    return {
        **dict(sorted(ours.items())),
        **{name: variables[name] for name in _THEIRS if name in variables},
    }


def _unknown(variables: Mapping[str, str]) -> dict[str, str]:
    unknown = set(_environment(variables)) - {*_OURS, *_THEIRS}
    return {name: nearest(name, _OURS) for name in sorted(unknown)}


def _backend(report: Report) -> dict[str, Any]:
    devices = [
        {"name": name, "memory": memory and memory._asdict()} for name, memory in report.devices
    ]
    probe = report.probe
    return {
        "usable": probe.usable,
        "version": probe.version,
        "reason": one_line(probe.reason) if probe.reason else "",
        "hint": one_line(probe.hint) if probe.hint else "",
        "devices": devices,
        "details": dict(report.details),
    }


def as_text(found: dict[str, Any]) -> str:
    """Return what ``collect`` returns as lines of up to 80 columns, unless a word is longer."""
    machine, versions = found["machine"], found["versions"]
    lines = [f"backprop-xp {found['backprop_xp']}", "", "selection"]
    lines += [_line(label, text) for label, text in found["selection"].items()]
    lines += ["", "environment", *_environment_lines(found), "", "machine"]
    lines += [
        _line("Python", machine["python"]),
        _line("platform", machine["platform"]),
        _line("CPUs", machine["cpu_count"]),
        _line("NumPy", versions["numpy"]),
        _line("array-api-compat", versions["array-api-compat"]),
    ]
    for name, backend in found["backends"].items():
        lines += ["", f"backend {name}", *_backend_lines(backend)]
    return "\n".join(lines)


def _environment_lines(found: dict[str, Any]) -> Iterator[str]:
    if not found["environment"]:
        yield "  nothing is set that matters here"
    for name, value in found["environment"].items():
        yield f"  {name}={value!r}"
        if name in found["unknown_variables"]:
            hint = f"is unknown, and ignored. {found['unknown_variables'][name]}"
            yield wrapped(hint, "    ")


def _backend_lines(backend: dict[str, Any]) -> Iterator[str]:
    yield _line("usable", "yes" if backend["usable"] else "no")
    if backend["reason"]:
        yield _line("reason", backend["reason"])
    if backend["hint"]:
        yield _line("try", backend["hint"])
    if backend["version"]:
        yield _line("version", backend["version"])
    if backend["devices"]:
        yield _line("devices", ", ".join(_device(device) for device in backend["devices"]))
    for label, text in backend["details"].items():
        yield _line(label, text)


def _device(device: dict[str, Any]) -> str:
    if device["memory"] is None:
        return str(device["name"])
    used, total = Memory(**device["memory"])
    return f"{device['name']} ({used / 2**30:.1f} of {total / 2**30:.1f} GiB in use)"


def _line(label: str, text: Any) -> str:
    return wrapped(str(text), f"  {label}".ljust(_LABEL) + "  ")
