"""The parts of ``gpu.py``: each measures one thing, and answers with a line for each result."""

import importlib.util
import json
import math
import time
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import IO, Any, NamedTuple

import numpy as np
from gpu_trainings import (
    CASES,
    QUICK,
    Case,
    Step,
    Train,
    bare_step,
    in_jax,
    in_pytorch,
    on_gpu,
    ours,
    prepared,
    products,
)

import backprop_xp as bx
from backprop_xp.backends import get_backend, in_words, to_host

TRAININGS, LASTING = 7, 0.2  # rounds of trainings, and how many seconds each should last
BLOCKS, CALLS = 15, 10  # rounds of steps, and how many in each: few enough for CUDA's queue
# CUDA emulated on the CPU counts launches; a GPU does not tell.
COUNTS = importlib.util.find_spec("cuda_emulator") is not None
FILLER = 4096  # the products that keep the GPU busy are of this size

Line = dict[str, Any]


class Run(NamedTuple):
    """What a part is told: its name, precision and size, when to end, and where lines go."""

    part: str
    precision: str
    quick: bool
    ends: float
    lines: IO[str]

    @property
    def cases(self) -> Mapping[str, Case]:
        return QUICK if self.quick else CASES

    def answer(self, **line: Any) -> None:
        words = {"part": self.part, "precision": self.precision, **line}
        self.lines.write(json.dumps(words, allow_nan=False) + "\n")
        self.lines.flush()

    def measure(self, what: str, function: Callable[[], Line], **words: Any) -> Line:
        """Answer with the figures that the function returns, or with why there are none."""
        try:
            if time.monotonic() > self.ends:
                raise TimeoutError("no time was left")
            figures = function()
            self.answer(what=what, **words, **figures)
        except Exception as error:  # a library's own kinds too: the rest is still measured
            self.answer(what=what, **words, left_out=in_words(error))
            return {}
        return figures


def digits(figure: Any) -> float:
    return float(f"{figure:.4g}")


def spread(seconds: Any) -> Line:
    quartiles = np.quantile(seconds, [0.5, 0.25, 0.75]) * 1e6
    return dict(zip(("microseconds", "low", "high"), map(digits, quartiles), strict=True))


def synchronize() -> None:
    get_backend("cupy").synchronize()


def block(step: Step, calls: int, wait: Callable[[], object] = synchronize) -> tuple[float, float]:
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
    return float(np.median(seconds))


@cache
def product(n: int, dtype: str = "float32") -> Step:
    import cupy

    a, b = on_gpu(n, n, dtype=dtype), on_gpu(n, n, dtype=dtype)
    return partial(cupy.matmul, a, b, out=cupy.empty_like(a))


def limits(run: Run) -> None:
    """Measure how fast the GPU copies and multiplies at best."""
    calls, rounds = (1, 2) if run.quick else (4, 7)

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

    n = 64 if run.quick else 8192
    if run.precision == "float32":
        run.measure("copy on the device", partial(copying, 4 * n * n))
        # Half the size: on many cards float64 is 64 times as slow.
        run.measure("product in float64", partial(multiplying, n // 2, "float64"))
    run.measure(f"product in {run.precision}", partial(multiplying, n, "float32"))
    product.cache_clear()


def correctness(run: Run) -> None:
    """Compare loss, gradient and 5 epochs of training with NumPy's in float64."""
    dtypes = {"float64": "float64", "float32": "float32"}
    if run.precision == "tf32":
        dtypes = {"tf32": "float32"}
    for name in ("D", "M"):
        case = run.cases[name]
        expected = trained(case, "numpy", "float64")
        for what, dtype in dtypes.items():
            compared = partial(difference, case, dtype, expected)
            run.measure(what, compared, case=label(name, run))


def difference(case: Case, dtype: str, expected: Mapping[str, np.ndarray]) -> Line:
    """Return the largest difference to what is expected, beside its largest entry."""
    found = trained(case, "cupy", dtype)
    return {
        name: digits(np.abs(found[name] - right).max() / np.abs(right).max())
        for name, right in expected.items()
    }


def trained(case: Case, backend: str, dtype: str) -> dict[str, np.ndarray]:
    network, theta, x, y = prepared(case, backend=backend, dtype=dtype)
    loss, gradient = network.loss_and_gradient(theta, x, y)
    result = bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=5, batch_size=case.batch)
    found = {"loss": loss, "gradient": gradient, "trained_theta": result.theta}
    found = {name: to_host(array).astype(np.float64) for name, array in found.items()}
    return found | {"trained_loss": result.history["loss"].astype(np.float64)}


def label(name: str, run: Run) -> str:
    return f"{name}: {run.cases[name]}"


def steps(run: Run) -> None:
    """Time a bare step, and the same inside ``bx.fit``, beside the step's own products."""
    for name, case in run.cases.items():
        step = run.measure("step, CuPy", partial(step_time, run, case), case=label(name, run))
        fits = {"bx.fit, CuPy": case}
        if name == "S":
            fits["bx.fit, CuPy, full batch"] = case._replace(batches=1)
        for what, fitted in fits.items():
            timed = partial(fit_time, run, fitted, step.get("products"))
            run.measure(what, timed, case=label(name, run))


def step_time(run: Run, case: Case) -> Line:
    """Return a step's time, the host's part and the GPU's, and what its products take."""
    pair = bare_step(case), products(case)
    for step in pair * 2:
        block(step, 1)
    calls = 1 if run.quick else max(2, min(CALLS, round(0.1 / block(pair[0], 1)[1])))
    blocks = 2 if run.quick else BLOCKS
    times = np.array([[block(step, calls) for step in pair] for _ in range(blocks)])
    host, ahead = np.median(times[:, 0, 0]), 0
    if not run.quick:
        product(FILLER)()
        ahead = 1 + min(64, math.ceil(1.5 * host * calls / on_device(product(FILLER), 4, 3)))
    device, floor = (on_device(step, calls, blocks, ahead) for step in pair)
    figures = {
        "host": host * 1e6,
        "device": device * 1e6,
        "products": np.median(times[:, 1, 1]) * 1e6,
        "products_device": floor * 1e6,
        "R": np.median(times[:, 0, 1] / times[:, 1, 1]),
        "R_device": device / floor,
    }
    rounded = {name: digits(figure) for name, figure in figures.items()}
    return spread(times[:, 0, 1]) | rounded | {"launches": launches(pair[0]) if COUNTS else None}


def launches(step: Step) -> float:
    """Return how many kernels are launched, where CUDA is emulated."""
    import cuda_emulator

    with cuda_emulator.record() as calls:
        step()
    return float(sum(calls.count("launch").values()))


def fit_time(run: Run, case: Case, floor: float | None) -> Line:
    """Return the time of an update inside ``bx.fit``, and its ratio to the floor."""
    train = ours(case, "cupy")
    figures = training_time(run, case, train)
    counts = None
    if COUNTS:
        counts = (launches(partial(train, 2)) - launches(partial(train, 1))) / case.batches
    ratio = digits(figures["microseconds"] / floor) if floor else None
    return figures | {"R": ratio, "launches": counts}


def training_time(run: Run, case: Case, train: Train) -> Line:
    """Return the time of an update in the middle of a training."""

    def seconds(epochs: int) -> float:
        begin = time.perf_counter()
        train(epochs)
        return time.perf_counter() - begin

    seconds(1)  # compiles, and fills the memory pools
    epochs = 1 if run.quick else min(1000, math.ceil(LASTING / seconds(1)))
    rounds = 2 if run.quick else TRAININGS
    return spread([seconds(epochs) / (epochs * case.batches) for _ in range(rounds)])


def pytorch(run: Run) -> None:
    import torch

    if not (run.quick or torch.cuda.is_available()):
        raise RuntimeError("PyTorch sees no GPU")
    torch.set_float32_matmul_precision("highest" if run.precision == "float32" else "high")
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    makers = {
        "bx.fit, PyTorch": partial(ours, backend="torch", device=device),
        "PyTorch, eager": partial(in_pytorch, how="eager"),
        "PyTorch, CUDA graph": partial(in_pytorch, how="CUDA graph"),
        "torch.compile": partial(in_pytorch, how="torch.compile"),
    }
    peers(run, makers)


def jax(run: Run) -> None:
    import jax

    if not (run.quick or jax.default_backend() == "gpu"):
        raise RuntimeError("JAX sees no GPU")
    # By default JAX multiplies in TF32, where a GPU has it.
    precision = "highest" if run.precision == "float32" else "default"
    jax.config.update("jax_default_matmul_precision", precision)
    makers = {
        "bx.fit, JAX": partial(ours, backend="jax"),
        "JAX, jit": partial(in_jax, how="jit"),
        "JAX, scan": partial(in_jax, how="scan"),
    }
    peers(run, makers)


def peers(run: Run, makers: Mapping[str, Callable[[Case], Train]]) -> None:
    for what, make in makers.items():
        for name, case in run.cases.items():
            timed = partial(made_and_timed, run, case, make)
            run.measure(what, timed, case=label(name, run))


def made_and_timed(run: Run, case: Case, make: Callable[[Case], Train]) -> Line:
    return training_time(run, case, make(case))


def gradient_check(run: Run) -> None:
    """Check every entry of a network's gradient, in float64; the first time compiles."""
    case = run.cases["D"]._replace(batches=1, batch=32)
    for backend in ("cupy", "numpy"):
        for which in ("first", "second"):
            run.measure(f"{backend}, {which} time", partial(checked, case, backend), case=str(case))


def checked(case: Case, backend: str) -> Line:
    arguments = prepared(case, backend=backend, dtype="float64")
    begin = time.perf_counter()
    report = bx.check_network(*arguments)
    seconds = digits(time.perf_counter() - begin)
    error = float(report.max_relative_error)
    return {"verdict": report.verdict, "seconds": seconds, "largest_error": error}


def crossover(run: Run) -> None:
    """Find the hidden width from which on CuPy's step is faster than NumPy's."""
    wins: int | None = None
    for width in (4, 8) if run.quick else (16, 32, 64, 128, 256, 512, 1024, 2048):
        case = Case((64, width, width, 10), 200, 1)
        times = run.measure(f"hidden width {width}", partial(both, run, case), case=str(case))
        if times:
            wins = (wins or width) if times["cupy"] < times["numpy"] else None
    run.answer(what="CuPy is faster from this hidden width on", width=wins)


def both(run: Run, case: Case) -> Line:
    """Return the microseconds of a step on NumPy and on CuPy."""
    times = {}
    for backend in ("numpy", "cupy"):
        step, wait = bare_step(case, backend), get_backend(backend).synchronize
        block(step, 2, wait)
        calls = 1 if run.quick else max(1, min(CALLS, round(0.05 / block(step, 1, wait)[1])))
        rounds = 2 if run.quick else TRAININGS
        seconds = np.median([block(step, calls, wait)[1] for _ in range(rounds)])
        times[backend] = digits(seconds * 1e6)
    return times
