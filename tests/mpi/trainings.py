"""A training of one rank of ``mpirun``, chosen by name; it writes a line of JSON to a file.

``python -m tests.mpi.trainings NAME FOLDER``
"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mpi4py import MPI

import backprop_xp as bx

WORLD = MPI.COMM_WORLD
ROWS = 300
X = np.random.default_rng(0).normal(size=(ROWS, 5))
Y = np.tanh(X[:, :1]) * X[:, 1:2]
NETWORK = bx.mlp([5, 16, 1], hidden="tanh", dropout=0.2, l2=1e-3)
OPTIONS: dict[str, Any] = {"optimizer": bx.Adam(0.01), "epochs": 6, "batch_size": 32}


def own_rows() -> slice:
    """Return this rank's rows: ragged shares, the first one without rows if there are three."""
    first, last = (ROWS * i**2 // WORLD.size**2 for i in (WORLD.rank, WORLD.rank + 1))
    return slice(0, 0) if WORLD.size == 3 and WORLD.rank == 0 else slice(first, last)


def shared(**options: Any) -> bx.FitResult:
    """Train on this rank's rows."""
    rows, theta = own_rows(), NETWORK.initialize(seed=WORLD.rank)
    if WORLD.size == 3 and WORLD.rank == 1:
        rows = slice(0, rows.stop)
    return bx.fit(NETWORK, theta, X[rows], Y[rows], communicator=WORLD, **{**OPTIONS, **options})


def alone(**options: Any) -> bx.FitResult:
    """Train in this process on all rows."""
    return bx.fit(NETWORK, NETWORK.initialize(seed=0), X, Y, **{**OPTIONS, **options})


def same() -> Mapping[str, Any]:
    """Compare the training with that of one process."""
    options = {"validation": 0.2, "early_stopping": bx.EarlyStopping(2), "clip": 1.0}
    found, expected = shared(**options), alone(**options)
    losses = [result.history["validation_loss"] for result in (found, expected)]
    return {
        "theta": float(np.abs(found.theta - expected.theta).max()),
        "loss": float(np.abs(losses[0] - losses[1]).max()),
        "bytes": found.theta.tobytes().hex(),
    }


def stack() -> Mapping[str, Any]:
    """Compare a divided stack with that of one process."""
    theta = NETWORK.initialize(seed=0, stack=(7,))
    found, expected = (
        bx.fit(NETWORK, theta, X, Y, **OPTIONS, seed=range(7), **more)
        for more in ({"communicator": WORLD, "split": "stack"}, {})
    )
    return {"same": bool((found.theta == expected.theta).all()), "epochs": found.epochs}


def interrupted(folder: Path) -> Mapping[str, Any]:
    """Send Ctrl-C to the last rank at some step, then resume from the state of the first."""

    def callback(state: bx.TrainingState) -> None:
        if state.epoch == 3 and WORLD.rank == WORLD.size - 1:
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()

    try:
        shared(epochs=100_000, callbacks=[callback])
    except KeyboardInterrupt as error:
        state = error.state  # type: ignore[attr-defined]
        epochs = state.epoch + 2
        start = state if WORLD.rank == 0 else None
        resumed, expected = shared(epochs=epochs, start=start), alone(epochs=epochs)
        difference = float(np.abs(resumed.theta - expected.theta).max())
        return {"message": str(error), "step": state.step, "difference": difference}
    raise AssertionError("no KeyboardInterrupt was raised")


def failing(folder: Path) -> Mapping[str, Any]:
    """Raise an error in a callback of the last rank."""

    def callback(state: bx.TrainingState) -> None:
        if state.epoch == 3 and WORLD.rank == WORLD.size - 1:
            raise ValueError("in a callback")

    try:
        shared(callbacks=[callback])
    except (ValueError, RuntimeError) as error:
        return {"error": repr(error), "epoch": error.state.epoch}  # type: ignore[union-attr]
    raise AssertionError("no error was raised")


def killed(folder: Path) -> Mapping[str, Any]:
    """Kill the last rank after its fourth epoch; the first has written three epochs."""

    def callback(state: bx.TrainingState) -> None:
        if state.epoch == 4 and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    shared(callbacks=[callback], checkpoint=folder / "model.safetensors")
    raise AssertionError("the job went on")


def resumed(folder: Path) -> Mapping[str, Any]:
    """Resume the killed training from the first rank's file."""
    start = bx.load(folder / "model.safetensors").state if WORLD.rank == 0 else None
    found, expected = shared(start=start), alone()
    assert start is None or start.epoch == 3
    return {"theta": float(np.abs(found.theta - expected.theta).max())}


TRAININGS: dict[str, Callable[..., Mapping[str, Any]]] = {
    "same": lambda folder: same(),
    "stack": lambda folder: stack(),
    "interrupted": interrupted,
    "failing": failing,
    "killed": killed,
    "resumed": resumed,
}

if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    found = TRAININGS[name](folder)
    (folder / f"{name}-{WORLD.rank}.json").write_text(json.dumps(found))
