"""The parts of ``gpu.py`` other than the trainings: each turn of a part measures one line.

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
from functools import cache, partial
from typing import Any

import numpy as np
from gpu_trainings import Step, bare_step, cases, fit_in_cupy, products, synchronize

import backprop_xp as bx
from backprop_xp.backends import get_backend, text_of, to_host
from backprop_xp.backends.libraries.cupy import backend
from backprop_xp.cli.bench.contenders import Case, learner
from backprop_xp.cli.bench.race import quartiles

BLOCKS, CALLS = 15, 10  # blocks of steps, and the most steps in one: few enough for CUDA's queue
FILLER = 4096  # the size of the products that keep the GPU busy
# Emulated CUDA counts launches; a GPU does not.
COUNTS_LAUNCHES = importlib.util.find_spec("cuda_emulator") is not None

Line = dict[str, Any]


def header() -> tuple[None, Line]:
    """Return the date, the GPU and the versions; ``missing`` is the reason for no GPU."""
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


def part(name: str, precision: str, quick: str) -> tuple[Callable[[str], Line], Line]:
    """Return the turns of a part, one line each; an empty line follows the last."""
    lines = PARTS[name](precision, quick)
    return lambda _: next(lines, {}), {}


def measured(what: str, function: Callable[[], Line], **words: Any) -> Line:
    """Return the figures that a function returns, or the error that it raises."""
    try:
        return {"what": what, **words, **function()}
    except Exception as error:  # of any class: the other lines are still measured
        return {"what": what, **words, "left_out": text_of(error)}


def digits(figure: Any) -> float:
    return float(f"{figure:.4g}")


def block(step: Step, calls: int, wait: Step = synchronize) -> tuple[float, float]:
    """Return the seconds per call until the calls are queued, and until they are done."""
    wait()
    begin = time.perf_counter()
    for _ in range(calls):
        step()
    queued = time.perf_counter()
    wait()
    return (queued - begin) / calls, (time.perf_counter() - begin) / calls


def calls_within(seconds: float, step: Step, wait: Step = synchronize) -> int:
    """Return how many calls take that long: at least 2, at most ``CALLS``."""
    return max(2, min(CALLS, round(seconds / block(step, 1, wait)[1])))


def on_device(step: Step, calls: int, rounds: int, ahead: int = 0) -> float:
    """Return the GPU's seconds per call, by CUDA events.

    ``ahead`` products keep the GPU busy while the calls are queued. Without them the time would
    include waits for the host.
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
    """Return a product of random matrices: a GPU multiplies constant ones faster."""
    import cupy

    draw = np.random.default_rng(0).standard_normal
    a, b = (cupy.asarray(draw((n, n), np.float32) / n**0.5, dtype) for _ in range(2))
    return partial(cupy.matmul, a, b, out=cupy.empty_like(a))


def limits(precision: str, quick: str) -> Iterator[Line]:
    """Yield the GPU's highest rates of copying and multiplying."""
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
        # Half the size: on many GPUs float64 is 64 times slower.
        yield measured("product in float64", partial(multiplying, n // 2, "float64"))
    yield measured(f"product in {precision}", partial(multiplying, n, "float32"))


def correctness(precision: str, quick: str) -> Iterator[Line]:
    """Yield the differences of loss, gradient and 5 epochs of training to NumPy's in float64."""
    for name in ("D", "M"):
        case = cases(quick)[name]
        expected = trained(case, "numpy", "float64")
        for what in ("float64", "float32") if precision == "float32" else ("tf32",):
            dtype = "float64" if what == "float64" else "float32"
            yield measured(what, partial(difference, case, dtype, expected), case=f"{name}: {case}")


def difference(case: Case, dtype: str, expected: dict[str, np.ndarray]) -> Line:
    """Return the largest difference to each expected array, divided by its largest entry."""
    found = trained(case, "cupy", dtype)
    return {
        name: digits(np.abs(found[name] - array).max() / np.abs(array).max())
        for name, array in expected.items()
    }


def trained(case: Case, backend: str, dtype: str) -> dict[str, np.ndarray]:
    network, theta, x, y = learner(case, backend=backend, dtype=dtype)
    loss, gradient = network.loss_and_gradient(theta, x, y)
    result = bx.fit(network, theta, x, y, optimizer=bx.Adam(), epochs=5, batch_size=case.batch)
    found = {"loss": loss, "gradient": gradient, "trained_theta": result.theta}
    found = {name: to_host(array).astype(np.float64) for name, array in found.items()}
    return found | {"trained_loss": result.history["loss"].astype(np.float64)}


def steps(precision: str, quick: str) -> Iterator[Line]:
    """Yield the host's and the GPU's time of a bare step, beside the step's products."""
    for name, case in cases(quick).items():
        yield measured("step, CuPy", partial(step_time, case, quick), case=f"{name}: {case}")


def step_time(case: Case, quick: str) -> Line:
    step, multiply = bare_step(case, "cupy"), products(case._replace(batches=1))
    block(step, 2)
    block(multiply, 2)
    calls, blocks, ahead = (1, 2, 0) if quick else (calls_within(0.1, step), BLOCKS, 1)
    host = quartiles([block(step, calls)[0] for _ in range(blocks)]).median
    if not quick:
        product(FILLER)()
        ahead += min(64, math.ceil(1.5 * host * calls / on_device(product(FILLER), 4, 3)))
    device, floor = (on_device(one, calls, blocks, ahead) for one in (step, multiply))
    figures = {"host": host * 1e6, "device": device * 1e6, "products_device": floor * 1e6}
    figures["R_device"] = device / floor
    if COUNTS_LAUNCHES:
        figures["launches"] = launches(step)
        train = fit_in_cupy(case, "")
        more = launches(partial(train, 2)) - launches(partial(train, 1))
        figures["launches_in_fit"] = more / case.batches
    return {name: digits(figure) for name, figure in figures.items()}


def launches(step: Step) -> int:
    """Return the number of kernels that an emulated CUDA device launches."""
    import cuda_emulator

    with cuda_emulator.record() as calls:
        step()
    return sum(calls.count("launch").values())


def gradient_check(precision: str, quick: str) -> Iterator[Line]:
    """Check every entry of a network's gradient in float64; the first check compiles."""
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
    """Yield a step's times on NumPy and CuPy by hidden width, then the width where CuPy wins."""
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
        calls = 1 if quick else calls_within(0.05, step, wait)
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
