"""The entrants of ``gpu.py``: a training, in turns, or a part, which measures one line each turn.

Each runs in a process of its own. Its arguments are strings: a name, the precision, "quick" or "".
"""

import contextlib
import importlib.metadata
import importlib.util
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import get_backend, text_of, to_host
from backprop_xp.backends.libraries.cupy import backend
from backprop_xp.cli import contenders
from backprop_xp.cli.contenders import Case, Train, learner
from backprop_xp.cli.race import quartiles

LASTING = 0.2  # seconds of a turn
BLOCKS, CALLS = 15, 10  # rounds of steps, and how many in each: few enough for CUDA's queue
FILLER = 4096  # the products that keep the GPU busy are of this size
# Emulated CUDA counts launches; a GPU does not.
COUNTS = importlib.util.find_spec("cuda_emulator") is not None
CASES = {**contenders.CASES, "XL": Case((4096, 4096, 4096, 4096), 8192, 2)}
QUICK = {"S": Case((2, 2, 1), 4, 2), "D": Case((6, 5, 3), 8, 2), "M": Case((6, 5, 5, 3), 8, 2)}

Line = dict[str, Any]
Step = Callable[[], object]


def cases(quick: str) -> dict[str, Case]:
    return QUICK if quick else CASES


def header() -> tuple[None, Line]:
    """Describe what is measured, and with what; ``missing`` is why there is no GPU."""
    versions: Line = {"python": platform.python_version(), "backprop_xp": bx.__version__}
    for name in ("numpy", "array-api-compat", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    probe = backend.probe()
    card: Line = {"missing": probe.reason}
    if probe.usable:
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(0)
        card = {
            "card": properties["name"].decode(),
            "compute_capability": properties["major"] + properties["minor"] / 10,
            "CUDA": {name: text for name, text in backend.details().items() if "CUDA" in name},
        }
        versions["cupy"] = probe.version
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return None, {"date": date, **card, "cpus": os.cpu_count(), "versions": versions}


# ---- trainings, which take turns


def in_cupy(case: Case, precision: str) -> Train:
    return contenders.ours(case, bx.resolve(backend="cupy", dtype="float32"))()


def step_in_cupy(case: Case, precision: str) -> Train:
    """``loss_and_gradient`` and an update of Adam, on the same rows."""
    step = bare_step(case, "cupy")

    def train(epochs: int) -> None:
        for _ in range(epochs * case.batches):
            step()
        synchronize()

    return train


def products(case: Case, precision: str) -> Train:
    """A step's 3L - 1 matrix products alone."""
    import cupy

    multiply = contenders.matmul(case, cupy)()
    return lambda epochs: (multiply(epochs), synchronize())


def of_pytorch(case: Case, precision: str, how: str) -> Train:
    import torch

    has_gpu = torch.cuda.is_available()
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    if how == "bx.fit":
        device = "cuda:0" if has_gpu else "cpu"
        return contenders.ours(case, bx.resolve(backend="torch", device=device, dtype="float32"))()
    wraps: dict[str, Any] = {
        "eager": {},
        "torch.compile": {"compiled": torch.compile},
        "CUDA graph": {"captured": captured},
    }
    return contenders.pytorch(case, "cuda" if has_gpu else "cpu", **wraps[how])()


def captured(step: Callable[[Any, Any], None], x: Any, y: Any) -> Callable[[Any, Any], None]:
    """Return a step of PyTorch's that copies its batch to x and y and replays a CUDA graph."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("a CUDA graph needs a GPU")
    # As PyTorch's notes on CUDA graphs have it: warm up on another stream, then capture.
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


def of_jax(case: Case, precision: str, how: str) -> Train:
    import jax

    # By default JAX multiplies in TF32, where a GPU has it.
    multiplies = "highest" if precision == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", multiplies)
    if how == "bx.fit":
        return contenders.ours(case, bx.resolve(backend="jax", dtype="float32"))()
    return contenders.jax_by_hand(case, how)()


# By the module that each needs; the first is the peer of the ratios.
TRAININGS: dict[str, tuple[str, Callable[[Case, str], Train]]] = {
    "products, CuPy": ("cupy", products),
    "step, CuPy": ("cupy", step_in_cupy),
    "bx.fit, CuPy": ("cupy", in_cupy),
    "bx.fit, PyTorch": ("torch", partial(of_pytorch, how="bx.fit")),
    "PyTorch, eager": ("torch", partial(of_pytorch, how="eager")),
    "PyTorch, CUDA graph": ("torch", partial(of_pytorch, how="CUDA graph")),
    "torch.compile": ("torch", partial(of_pytorch, how="torch.compile")),
    "bx.fit, JAX": ("jax", partial(of_jax, how="bx.fit")),
    "JAX, jit": ("jax", partial(of_jax, how="jit")),
    "JAX, scan": ("jax", partial(of_jax, how="scan")),
}


def training(what: str, precision: str, quick: str) -> tuple[Callable[[str], float], Line]:
    """Return turns of so many epochs as last a while; each continues the training of its case."""

    @lru_cache(maxsize=1)
    def prepared(name: str) -> Callable[[], float]:
        case = cases(quick)[name]
        train = TRAININGS[what][1](case, precision)
        train(1)  # compiles, and fills the memory pools
        seconds = contenders.timed(train, 1, case) * case.batches / 1e6
        epochs = 1 if quick else max(1, min(1000, math.ceil(LASTING / seconds)))
        return partial(contenders.timed, train, epochs, case)

    return lambda name: prepared(name)(), {}


# ---- parts, of which each turn is a line


def part(name: str, precision: str, quick: str) -> tuple[Callable[[str], Line], Line]:
    """Return turns that are the lines of a part; an empty line is behind the last."""
    lines = PARTS[name](precision, quick)
    return lambda _: next(lines, {}), {}


def measured(what: str, function: Callable[[], Line], **words: Any) -> Line:
    """Return the figures that a function returns, or why there are none."""
    try:
        return {"what": what, **words, **function()}
    except Exception as error:  # also a library's own classes: the rest is still measured
        return {"what": what, **words, "left_out": text_of(error)}


def digits(figure: Any) -> float:
    return float(f"{figure:.4g}")


def synchronize() -> None:
    get_backend("cupy").synchronize()


def block(step: Step, calls: int, wait: Step = synchronize) -> tuple[float, float]:
    """Return the seconds of a call until it was queued, and until it was done."""
    wait()
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    queued = time.perf_counter()
    wait()
    return (queued - begin) / calls, (time.perf_counter() - begin) / calls


def on_device(step: Step, calls: int, rounds: int, ahead: int = 0) -> float:
    """Return the seconds that the GPU takes for a call, by events.

    ``ahead`` products keep it busy while the calls are queued: else it would wait for the host
    between them, and that would count.
    """
    import cupy

    begin, end = cupy.cuda.Event(), cupy.cuda.Event()
    seconds = []
    for _ in range(rounds):
        for _ in range(ahead):
            product(FILLER)()
        begin.record()
        for _ in range(calls):
            step()
        end.record()
        end.synchronize()
        seconds.append(cupy.cuda.get_elapsed_time(begin, end) * 1e-3 / calls)
    return quartiles(seconds).median


@cache
def product(n: int, dtype: str = "float32") -> Step:
    """Return a product of random numbers: a GPU multiplies equal ones faster, at less power."""
    import cupy

    draw = np.random.default_rng(0).standard_normal
    a, b = (cupy.asarray(draw((n, n), np.float32) / n**0.5, dtype) for _ in range(2))
    return partial(cupy.matmul, a, b, out=cupy.empty_like(a))


def bare_step(case: Case, backend: str, device: Any = None, stack: tuple[int, ...] = ()) -> Step:
    """Return ``loss_and_gradient`` and an update of Adam, on the same rows."""
    where = {"backend": backend, "device": device}
    network, _, x, y = learner(case._replace(batches=1), **where)
    theta = network.initialize(0, stack=stack, dtype="float32", **where)
    optimizer = bx.Adam(contenders.RATE)
    state = [theta, optimizer.initialize(theta)]

    def step() -> None:
        _, gradient = network.loss_and_gradient(state[0], x, y)
        state[:] = optimizer.update(state[0], gradient, state[1])

    return step


def limits(precision: str, quick: str) -> Iterator[Line]:
    """Yield how fast the GPU copies and multiplies at best."""
    calls, rounds = (1, 2) if quick else (4, 7)

    def copying(n: int) -> Line:
        import cupy

        a, b = (cupy.zeros(n // 4, "float32") for _ in range(2))
        cupy.copyto(b, a)
        seconds = on_device(lambda: cupy.copyto(b, a), calls, rounds)
        return {"gigabytes_per_second": digits(2 * n / seconds / 1e9)}  # read, and written

    def multiplying(n: int, dtype: str) -> Line:
        step = product(n, dtype)
        step()
        return {"teraflops": digits(2 * n**3 / on_device(step, calls, rounds) / 1e12)}

    n = 64 if quick else 8192
    if precision == "float32":
        yield measured("copy on the device", partial(copying, 4 * n * n))
        # Half the size: on many cards float64 is 64 times as slow.
        yield measured("product in float64", partial(multiplying, n // 2, "float64"))
    yield measured(f"product in {precision}", partial(multiplying, n, "float32"))


def correctness(precision: str, quick: str) -> Iterator[Line]:
    """Yield how far loss, gradient and 5 epochs of training are from NumPy's in float64."""
    for name in ("D", "M"):
        case = cases(quick)[name]
        expected = trained(case, "numpy", "float64")
        for what in ("float64", "float32") if precision == "float32" else ("tf32",):
            dtype = "float64" if what == "float64" else "float32"
            yield measured(what, partial(difference, case, dtype, expected), case=f"{name}: {case}")


def difference(case: Case, dtype: str, expected: dict[str, np.ndarray]) -> Line:
    """Return the largest difference to what is expected, divided by its largest entry."""
    found = trained(case, "cupy", dtype)
    return {
        name: digits(np.abs(found[name] - right).max() / np.abs(right).max())
        for name, right in expected.items()
    }


def trained(case: Case, backend: str, dtype: str) -> dict[str, np.ndarray]:
    network, theta, x, y = learner(case, backend=backend, dtype=dtype)
    loss, gradient = network.loss_and_gradient(theta, x, y)
    result = bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=5, batch_size=case.batch)
    found = {"loss": loss, "gradient": gradient, "trained_theta": result.theta}
    found = {name: to_host(array).astype(np.float64) for name, array in found.items()}
    return found | {"trained_loss": result.history["loss"].astype(np.float64)}


def steps(precision: str, quick: str) -> Iterator[Line]:
    """Yield the host's part of a bare step and the GPU's, beside the step's own products."""
    for name, case in cases(quick).items():
        yield measured("step, CuPy", partial(step_time, case, quick), case=f"{name}: {case}")


def step_time(case: Case, quick: str) -> Line:
    import cupy

    multiply = contenders.matmul(case._replace(batches=1), cupy)()
    pair = bare_step(case, "cupy"), partial(multiply, 1)
    for step in pair * 2:
        block(step, 1)
    calls = 1 if quick else max(2, min(CALLS, round(0.1 / block(pair[0], 1)[1])))
    blocks, ahead = 2 if quick else BLOCKS, 0
    host = quartiles([block(pair[0], calls)[0] for _ in range(blocks)]).median
    if not quick:
        product(FILLER)()
        ahead = 1 + min(64, math.ceil(1.5 * host * calls / on_device(product(FILLER), 4, 3)))
    device, floor = (on_device(step, calls, blocks, ahead) for step in pair)
    figures = {"host": host * 1e6, "device": device * 1e6, "products_device": floor * 1e6}
    figures["R_device"] = device / floor
    if COUNTS:
        figures["launches"] = launches(pair[0])
        train = in_cupy(case, "")
        more = launches(partial(train, 2)) - launches(partial(train, 1))
        figures["launches_in_fit"] = more / case.batches
    return {name: digits(figure) for name, figure in figures.items()}


def launches(step: Step) -> int:
    """Return how many kernels are launched, where CUDA is emulated."""
    import cuda_emulator

    with cuda_emulator.record() as calls:
        step()
    return sum(calls.count("launch").values())


def gradient_check(precision: str, quick: str) -> Iterator[Line]:
    """Check every entry of a network's gradient, in float64; the first time compiles."""
    case = cases(quick)["D"]._replace(batches=1, batch=32)
    for name in ("cupy", "numpy"):
        for which in ("first", "second"):
            yield measured(f"{name}, {which} time", partial(checked, case, name), case=str(case))


def checked(case: Case, backend: str) -> Line:
    arguments = learner(case, backend=backend, dtype="float64")
    begin = time.perf_counter()
    report = bx.check_network(*arguments)
    seconds = digits(time.perf_counter() - begin)
    error = float(report.max_relative_error)
    return {"verdict": report.verdict, "seconds": seconds, "largest_error": error}


def crossover(precision: str, quick: str) -> Iterator[Line]:
    """Yield a step's microseconds on NumPy and on CuPy, by hidden width; then where CuPy wins."""
    wins: int | None = None
    for width in (4, 8) if quick else (16, 32, 64, 128, 256, 512, 1024, 2048):
        case = Case((64, width, width, 10), 200, 1)
        line = measured(f"hidden width {width}", partial(both, case, quick), case=str(case))
        if "left_out" not in line:
            wins = (wins or width) if line["cupy"] < line["numpy"] else None
        yield line
    yield {"what": "CuPy is faster from this hidden width on", "width": wins}


def both(case: Case, quick: str) -> Line:
    times = {}
    for name in ("numpy", "cupy"):
        step, wait = bare_step(case, name), get_backend(name).synchronize
        block(step, 2, wait)
        calls = 1 if quick else max(1, min(CALLS, round(0.05 / block(step, 1, wait)[1])))
        seconds = [block(step, calls, wait)[1] for _ in range(2 if quick else BLOCKS)]
        times[name] = digits(quartiles(seconds).median * 1e6)
    return times


PARTS: dict[str, Callable[[str, str], Iterator[Line]]] = {
    "limits": limits,
    "correctness": correctness,
    "steps": steps,
    "gradient_check": gradient_check,
    "crossover": crossover,
}
