"""Use what an extra is for: ``nox -s extras`` runs this where the wheel has that extra alone."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import backprop_xp as bx

X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
Y = [[0.0], [1.0], [1.0], [0.0]]
NETWORK = bx.mlp([2, 8, 1], hidden="tanh", loss="binary_cross_entropy")


def train(**options: str) -> "bx.FitResult":
    """Train a network on XOR, and require that it has learned it."""
    x, y = (bx.asarray(values, **options) for values in (X, Y))
    theta = NETWORK.initialize(seed=0, **options)
    result = bx.fit(NETWORK, theta, x, y, optimizer=bx.Adam(0.05), epochs=300)
    predictions = bx.to_host(NETWORK.predict(result.theta, x))
    assert np.all(np.abs(predictions - np.asarray(Y)) < 0.1)
    assert bx.check_network(NETWORK, theta, x, y)
    return result


def on(backend: str) -> Callable[[], object]:
    return lambda: train(backend=backend)


def estimators() -> None:
    model = bx.MLPClassifier((8,), max_iter=500, learning_rate_init=0.05, random_state=0)
    assert model.fit(X, ["a", "b", "b", "a"]).predict(X).tolist() == ["a", "b", "b", "a"]


def files() -> None:
    bx.save("model.safetensors", NETWORK, train().theta)
    assert bx.load("model.safetensors").network == NETWORK


def onnx() -> None:
    bx.export_onnx("model.onnx", NETWORK, train().theta)
    assert Path("model.onnx").stat().st_size > 0


def plot() -> None:
    import matplotlib

    matplotlib.use("agg")
    train().plot().figure.savefig("curves.png")


def mpi() -> None:
    program = "from mpi4py import MPI; import backprop_xp as bx; " + (
        "x = bx.asarray([[0.0], [1.0], [2.0], [3.0]]); network = bx.mlp([1, 1]); "
        "bx.fit(network, network.initialize(seed=0), x, x, optimizer=bx.SGD(0.1), epochs=2, "
        "communicator=MPI.COMM_WORLD)"
    )
    mpirun = Path(sys.executable).with_name("mpirun")
    subprocess.run([mpirun, "-n", "2", sys.executable, "-c", program], check=True)


def tables() -> None:
    import pandas as pd

    colors = pd.DataFrame({"color": ["red", "blue", None] * 20, "size": range(60)})
    model = bx.TabularClassifier(random_state=0).fit(colors, ["yes", "no", "no"] * 20)
    model.save("model.safetensors")
    assert bx.tables.load("model.safetensors").score(colors, ["yes", "no", "no"] * 20) > 0.9


def command() -> None:
    subprocess.run([sys.executable, "-m", "backprop_xp", "xor"], check=True)


def fast() -> None:
    os.environ["BACKPROP_XP_COMPILE"] = "1"
    train()
    assert "numba" in sys.modules


PARTS: dict[str, Callable[[], object]] = {
    "cuda12": on("cupy"),
    "cuda13": on("cupy"),
    "strict": on("array-api-strict"),
    "jax": on("jax"),
    "torch": on("torch"),
    "dpnp": on("dpnp"),
    "sklearn": estimators,
    "files": files,
    "onnx": onnx,
    "plot": plot,
    "mpi": mpi,
    "tables": tables,
    "cli": command,
    "fast": fast,
}

if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        os.chdir(folder)
        PARTS[sys.argv[1]]()
        os.chdir(Path(folder).parent)  # Windows deletes no current folder
