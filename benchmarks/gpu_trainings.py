"""The trainings that ``gpu.py`` times: the library's on each backend, and those of its peers.

Each runs in a process of its own. Its arguments are strings: a name, the precision, "quick" or "".
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import backprop_xp as bx
from backprop_xp.backends import get_backend
from backprop_xp.cli.bench import contenders
from backprop_xp.cli.bench.contenders import Case, Train, learner

TURN_SECONDS = 0.2
CASES = {**contenders.CASES, "XL": Case((4096, 4096, 4096, 4096), 8192, 2)}
QUICK = {"S": Case((2, 2, 1), 4, 2), "D": Case((6, 5, 3), 8, 2), "M": Case((6, 5, 5, 3), 8, 2)}

Step = Callable[[], object]


def cases(quick: str) -> dict[str, Case]:
    return QUICK if quick else CASES


def bare_step(case: Case, backend: str, device: Any = None, stack: tuple[int, ...] = ()) -> Step:
    """Return a function that calls ``loss_and_gradient`` and updates theta by Adam."""
    where = {"backend": backend, "device": device}
    network, _, x, y = learner(case._replace(batches=1), **where)
    theta = network.initialize(0, stack=stack, dtype="float32", **where)
    optimizer = bx.Adam(contenders.RATE)
    state = [theta, optimizer.initialize(theta)]

    def step() -> None:
        _, gradient = network.loss_and_gradient(state[0], x, y)
        state[:] = optimizer.update(state[0], gradient, state[1])

    return step


def synchronize() -> None:
    get_backend("cupy").synchronize()


def products(case: Case) -> Step:
    """Return a function that computes an epoch's matrix products, 3L - 1 in each step."""
    import cupy

    return partial(contenders.matmul(case, cupy)(), 1)


def repeated(step: Step, per_epoch: int) -> Train:
    """Return a training that calls a function, then waits for the GPU."""

    def train(epochs: int) -> None:
        for _ in range(epochs * per_epoch):
            step()
        synchronize()

    return train


def fit_in_cupy(case: Case, precision: str) -> Train:
    return contenders.ours(case, bx.resolve(backend="cupy", dtype="float32"))()


def step_in_cupy(case: Case, precision: str) -> Train:
    return repeated(bare_step(case, "cupy"), case.batches)


def products_in_cupy(case: Case, precision: str) -> Train:
    return repeated(products(case), 1)


def in_pytorch(case: Case, precision: str, how: str) -> Train:
    import torch

    has_gpu = torch.cuda.is_available()
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    if how == "bx.fit":
        device = "cuda:0" if has_gpu else "cpu"
        return contenders.ours(case, bx.resolve(backend="torch", device=device, dtype="float32"))()
    wraps: dict[str, Any] = {
        "eager": {},
        "torch.compile": {"compiled": torch.compile},
        "CUDA graph": {"captured": capture},
    }
    return contenders.pytorch(case, "cuda" if has_gpu else "cpu", **wraps[how])()


def capture(step: Callable[[Any, Any], None], x: Any, y: Any) -> Callable[[Any, Any], None]:
    """Return a step of PyTorch's that copies its batch to x and y and replays a CUDA graph."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("a CUDA graph needs a GPU")
    # PyTorch's notes on CUDA graphs: warm up on another stream, then capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(x, y)

    def replay(new_x: Any, new_y: Any) -> None:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()

    return replay


def in_jax(case: Case, precision: str, how: str) -> Train:
    import jax

    # JAX multiplies in TF32 by default on a GPU that has it.
    matmul_precision = "highest" if precision == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", matmul_precision)
    if how == "bx.fit":
        return contenders.ours(case, bx.resolve(backend="jax", dtype="float32"))()
    return contenders.jax_by_hand(case, how)()


# The module that a training needs, and the training; the first is the peer of the ratios.
TRAININGS: dict[str, tuple[str, Callable[[Case, str], Train]]] = {
    "products, CuPy": ("cupy", products_in_cupy),
    "step, CuPy": ("cupy", step_in_cupy),
    "bx.fit, CuPy": ("cupy", fit_in_cupy),
    "bx.fit, PyTorch": ("torch", partial(in_pytorch, how="bx.fit")),
    "PyTorch, eager": ("torch", partial(in_pytorch, how="eager")),
    "PyTorch, CUDA graph": ("torch", partial(in_pytorch, how="CUDA graph")),
    "torch.compile": ("torch", partial(in_pytorch, how="torch.compile")),
    "bx.fit, JAX": ("jax", partial(in_jax, how="bx.fit")),
    "JAX, jit": ("jax", partial(in_jax, how="jit")),
    "JAX, scan": ("jax", partial(in_jax, how="scan")),
}


def training(
    name: str, precision: str, quick: str
) -> tuple[Callable[[str], float], dict[str, str]]:
    """Return turns of about ``TURN_SECONDS``; each continues the training of its case."""

    @lru_cache(maxsize=1)
    def prepared(case_name: str) -> Callable[[], float]:
        case = cases(quick)[case_name]
        train = TRAININGS[name][1](case, precision)
        train(1)  # compiles, and fills the memory pools
        seconds = contenders.timed(train, 1, case) * case.batches / 1e6
        epochs = 1 if quick else max(1, min(1000, math.ceil(TURN_SECONDS / seconds)))
        return partial(contenders.timed, train, epochs, case)

    return lambda case_name: prepared(case_name)(), {}
