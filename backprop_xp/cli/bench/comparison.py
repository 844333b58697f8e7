"""The command ``bench``: the time of an update of Adam here, beside other libraries."""

import importlib.metadata
import json
import os
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

import backprop_xp as bx
from backprop_xp.backends import get_backend
from backprop_xp.cli.arguments import Backend, Device, Json, known
from backprop_xp.cli.bench.contenders import CASES, PEERS
from backprop_xp.cli.bench.race import Entrant, Outcome, race, start_children
from backprop_xp.cli.info import machine
from backprop_xp.cli.output import JsonObject, complain, one_line, say, wrap

_OURS = "backprop_xp"

Cases: TypeAlias = Annotated[
    list[str],
    typer.Option(
        callback=lambda names: list(dict.fromkeys(known(name, CASES) for name in names)),
        help=f"One of {', '.join(CASES)}; may be repeated. W takes a minute.",
    ),
]


def bench(
    case: Cases = ["S", "D", "M"],  # noqa: B006 - typer copies it
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each library.")] = 7,
    backend: Backend = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Time an update of Adam here, in float32, beside other libraries that are installed.

    Each library trains in its own process, with shuffled batches and code that its users would
    write; the libraries take turns. "matmul" is the time of the matrix products alone, by NumPy.
    --backend and --device are for backprop_xp; PyTorch trains on the CPU, JAX on its own default
    device. The exit status is 1 if backprop_xp cannot train there.
    """
    peers = [name for name, library in PEERS.items() if library.is_installed]
    found = {"backprop_xp": bx.__version__, **environment(), "cases": {}}
    if not as_json:
        say("\n".join([*as_lines(found), *_head(peers)]))
    with start_children(entrants(peers, backend or "", device or "")) as children:
        found["selection"] = children[_OURS].description
        for name in case:
            outcome = race(children, name, rounds)
            if _OURS in outcome.left_out:
                reason = outcome.left_out[_OURS]
                complain(reason)
                # Its own process is the first to know the devices.
                raise typer.Exit(2 if device and reason.startswith("ValueError: device ") else 1)
            found["cases"][name] = as_object(name, outcome)
            if not as_json:
                say("\n".join(_block(name, peers, outcome)))
    say(json.dumps(found, indent=2) if as_json else _foot(found, rounds))


def entrants(peers: Sequence[str], backend: str = "", device: str = "") -> list[Entrant]:
    """Return our trainings and the peers'."""
    maker = "backprop_xp.cli.bench.contenders:turns"
    ours = Entrant(_OURS, maker, (_OURS, backend, device))
    return [ours, *(Entrant(name, maker, (name,)) for name in peers)]


def environment() -> JsonObject:
    """Return what determines the speed here; no library is imported.

    A load average above 0, before anything is timed, is due to other processes.
    """
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    installed = [peer.distribution for peer in PEERS.values() if peer.is_installed]
    return {
        "machine": {**machine(), "load_average": load, **get_backend("numpy").details()},
        "versions": {name: importlib.metadata.version(name) for name in installed},
    }


def as_object(name: str, outcome: Outcome) -> JsonObject:
    """Return the figures of a case: microseconds per update, and ours divided by each peer's."""
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


def as_lines(found: JsonObject) -> list[str]:
    """Return the object of ``environment`` as lines."""
    here, load = found["machine"], found["machine"]["load_average"]
    return [
        wrap(f"{here['platform']}, {here['cpu_count']} CPUs, Python {here['python']}"),
        wrap(f"BLAS {here['BLAS']}, threads: {here['BLAS threads']}"),
        wrap(", ".join(f"{name} {version}" for name, version in found["versions"].items())),
        *([] if load is None else [f"load average before the start: {load:.1f}"]),
    ]


def _head(peers: Sequence[str]) -> list[str]:
    return [
        *(f"{name} is not installed and left out" for name in PEERS if name not in peers),
        "\nmicroseconds per update, and ours / theirs",
    ]


def _block(name: str, peers: Sequence[str], outcome: Outcome) -> list[str]:
    """Return the heading of a case, and a line for each library."""
    lines = [f"\n{name}  {CASES[name]}", f"  {_OURS:<12} {outcome.time(_OURS).median:>9,.0f}"]
    for peer in peers:
        if peer in outcome.left_out:
            lines.append(wrap(one_line(outcome.left_out[peer]), f"  {peer} is left out: "))
            continue
        time, ratio = outcome.time(peer).median, outcome.ratio(_OURS, peer).median
        lines.append(f"  {peer:<12} {time:>9,.0f} {ratio:>7.2f}")
    return lines


def _foot(found: JsonObject, rounds: int) -> str:
    ours = found["selection"]
    where = f"{ours['backend']} ({ours['device']}, float32), chosen by {ours['source']}"
    return "\n" + wrap(f"{_OURS} {ours['version']} trained on {where}; medians of {rounds} rounds")
