"""The command ``bench``: how long an update of Adam takes here, beside other libraries."""

import importlib.metadata
import json
import os
import platform
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import backprop_xp as bx
from backprop_xp.backends import get_backend
from backprop_xp.checks import nearest
from backprop_xp.cli.arguments import known_backend
from backprop_xp.cli.output import complain, one_line, say, wrapped
from backprop_xp.cli.race import CASES, LIBRARIES, Entrant, Outcome, is_installed, race

_OURS, *_PEERS = LIBRARIES
_DISTRIBUTIONS = ["numpy", "scikit-learn", "torch", "jax"]
_LABEL = 32  # columns


def _check_cases(names: list[str]) -> list[str]:
    for name in names:
        if name not in CASES:
            raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, CASES)}")
    return list(dict.fromkeys(names))


def bench(
    case: Annotated[
        list[str],
        typer.Option(
            callback=_check_cases,
            help=f"One of {', '.join(CASES)}; may be repeated. W takes a minute.",
        ),
    ] = ["S", "D", "M"],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each library.")] = 7,
    backend: Annotated[
        str | None,
        typer.Option(
            callback=known_backend,
            help="Where ours trains. Default: as the environment says.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="A device of that backend. Default: likewise.", show_default=False),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead, and nothing else.")
    ] = False,
) -> None:
    """Time an update of Adam here, in float32, beside other libraries that are installed.

    Each library trains in a process of its own, and they take turns: shuffled batches, as users
    write it. "matmul" is the time of a step's matrix products alone, by NumPy. PyTorch trains on
    the CPU, JAX on its own default device. The exit status is 1 if ours cannot train where it
    should.
    """
    peers = [name for name in _PEERS if is_installed(name)]
    ours = Entrant(_OURS, _OURS, backend or "", device or "")
    entrants = [ours, *(Entrant(name, name) for name in peers)]
    found: dict[str, Any] = {"backprop_xp": bx.__version__, **machine(), "cases": {}}
    if not as_json:
        say("\n".join([*as_lines(found), *_head(peers)]))
    for name in case:
        outcome = race(name, entrants, rounds)
        if _OURS in outcome.left_out:
            reason = outcome.left_out[_OURS]
            complain(reason)
            # It trains in a process of its own, which is the first to know the devices.
            raise typer.Exit(2 if device and reason.startswith("ValueError: device ") else 1)
        found["selection"] = outcome.greetings[_OURS]
        found["cases"][name] = as_object(name, outcome)
        if not as_json:
            say("\n".join(_row(name, peers, outcome)))
    say(json.dumps(found, indent=2) if as_json else _foot(found, rounds))


def machine() -> dict[str, Any]:
    """Return what decides how fast it goes here, without importing any library.

    A load average above 0 before anything is timed tells of other processes.
    """
    return {
        "machine": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "cpu_count": os.cpu_count(),
            "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            **get_backend("numpy").details(),
        },
        "versions": {name: version for name in _DISTRIBUTIONS if (version := _version(name))},
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def as_object(name: str, outcome: Outcome) -> dict[str, Any]:
    """Return a case's figures: microseconds per update, and ours over each peer's."""
    case = CASES[name]
    return {
        "sizes": case.sizes,
        "batch": case.batch,
        "microseconds": {one: outcome.time(one)._asdict() for one in outcome.times},
        "ratios": {
            peer: outcome.ratio(_OURS, peer)._asdict() for peer in outcome.times if peer != _OURS
        },
        "left_out": outcome.left_out,
    }


def as_lines(found: dict[str, Any]) -> list[str]:
    """Return what ``machine`` returns in words."""
    told, load = found["machine"], found["machine"]["load_average"]
    return [
        wrapped(f"{told['platform']}, {told['cpu_count']} CPUs, Python {told['python']}"),
        wrapped(f"BLAS {told['BLAS']}, threads: {told['BLAS threads']}"),
        wrapped(", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        *([] if load is None else [f"load average before the start: {load:.1f}"]),
    ]


def _head(peers: Sequence[str]) -> list[str]:
    return [
        *(f"{name} is not installed, and left out" for name in _PEERS if name not in peers),
        "\nmicroseconds per update (and ours / theirs)",
        " " * _LABEL + "".join(f"{name:>16}" for name in [_OURS, *peers]),
    ]


def _row(name: str, peers: Sequence[str], outcome: Outcome) -> list[str]:
    cells = [f"{outcome.time(_OURS).median:>16,.0f}"]
    for peer in peers:
        if peer in outcome.left_out:
            cells.append(f"{'-':>16}")
            continue
        time, ratio = outcome.time(peer).median, outcome.ratio(_OURS, peer).median
        cells.append(f"{f'{time:,.0f} ({ratio:.2f})':>16}")
    reasons = (
        wrapped(one_line(reason), f"  {peer} is left out: ")
        for peer, reason in outcome.left_out.items()
    )
    return [f"{f'{name}  {CASES[name]}':<{_LABEL}}" + "".join(cells), *reasons]


def _foot(found: dict[str, Any], rounds: int) -> str:
    ours = found["selection"]
    where = f"{ours['backend']} ({ours['device']}, float32), chosen by {ours['source']}"
    return f"\n{_OURS} {ours['version']} trained on {where}\nmedians of {rounds} rounds"
