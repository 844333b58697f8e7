"""What a CUDA GPU makes of the library, beside the GPU's own limits and beside PyTorch and JAX.

``python benchmarks/gpu.py --out gpu.jsonl`` writes a line of JSON for each result as it comes, and
``python benchmarks/gpu.py --table gpu.jsonl`` prints the lines as Markdown. It needs CuPy, this
checkout on the path, and PyTorch and JAX for their own rows.

Each part runs in a process of its own, the most important first, until the time is used up: two
libraries in one process would disturb each other, and CuPy reads CUPY_TF32 once per process. Times
are medians of rounds, with the ends of their middle half; the GPU is waited for at both ends of
each. ``--quick`` takes tiny sizes, to see that everything runs: its times mean nothing.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import gpu_parts
from gpu_parts import Line, Run

import backprop_xp as bx
from backprop_xp.backends import in_words
from backprop_xp.backends.libraries.cupy import backend

GRACE = 30  # seconds after its time in which a part may end what it has begun
# These make OpenBLAS choose kernels for another processor than the one at hand.
MISLEADING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class Part(NamedTuple):
    """One process: what it runs, the module it cannot do without, and its seconds."""

    function: Callable[[Run], None]
    precision: str
    module: str
    seconds: float


PARTS = [
    Part(gpu_parts.limits, "float32", "cupy", 60),
    Part(gpu_parts.correctness, "float32", "cupy", 60),
    Part(gpu_parts.steps, "float32", "cupy", 120),
    Part(gpu_parts.pytorch, "float32", "torch", 120),
    Part(gpu_parts.jax, "float32", "jax", 90),
    Part(gpu_parts.gradient_check, "float64", "cupy", 45),
    Part(gpu_parts.crossover, "float32", "cupy", 60),
    Part(gpu_parts.limits, "tf32", "cupy", 30),
    Part(gpu_parts.correctness, "tf32", "cupy", 30),
    Part(gpu_parts.steps, "tf32", "cupy", 60),
    Part(gpu_parts.pytorch, "tf32", "torch", 90),
    Part(gpu_parts.jax, "tf32", "jax", 60),
]


def header(run: Run) -> None:
    """Say what is measured, and with what; ``missing`` is why there is no GPU."""
    versions: Line = {"python": platform.python_version(), "backprop_xp": bx.__version__}
    for name in ("numpy", "array-api-compat", "torch", "jax"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    found = backend.probe()
    card: Line = {"missing": found.reason}
    if found.usable:
        import cupy

        properties = cupy.cuda.runtime.getDeviceProperties(0)
        card = {
            "card": properties["name"].decode(),
            "compute_capability": properties["major"] + properties["minor"] / 10,
            "driver": driver(),
            "CUDA": {name: text for name, text in backend.details().items() if "CUDA" in name},
        }
        versions["cupy"] = found.version
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run.answer(date=date, **card, cpus=os.cpu_count(), versions=versions, quick=run.quick)


def driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    answer = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
    return answer.split("\n")[0].strip() or None


def measure(lines: IO[str], seconds: float, quick: bool) -> None:
    """Run the parts one after the other, and say in a line what is left out."""
    ends = time.monotonic() + seconds
    answer = process("header", "", quick, 0, subprocess.PIPE, timeout=120).stdout
    about = json.loads(answer or '{"missing": "the process that looked for it crashed"}')
    if "missing" in about and not quick:
        sys.exit(f"gpu.py measures a CUDA GPU, and there is none: {about['missing']}")
    lines.write(answer)
    lines.flush()  # before others write to the same file
    for part in PARTS:
        left = ends - time.monotonic()
        reason = reason_to_skip(part, about, left) or run_part(part, quick, left, lines)
        if reason:
            run = Run(part.function.__name__, part.precision, quick, ends, lines)
            run.answer(left_out=reason)


def reason_to_skip(part: Part, about: Line, left: float) -> str:
    if importlib.util.find_spec(part.module) is None:
        return f"{part.module} is not installed"
    if "missing" in about and (part.module == "cupy" or part.precision == "tf32"):
        return f"no GPU: {about['missing']}"
    if part.precision == "tf32" and about["compute_capability"] < 8.0:
        return "this GPU has no TF32"
    return "no time was left" if left < GRACE / 2 else ""


def run_part(part: Part, quick: bool, left: float, lines: IO[str]) -> str:
    """Run a part, which writes its own lines, and return what went wrong, if anything."""
    seconds = min(part.seconds, left - GRACE / 2)
    try:
        ended = process(
            part.function.__name__,
            part.precision,
            quick,
            seconds,
            lines,
            min(left, seconds + GRACE),
        )
    except subprocess.TimeoutExpired:
        return "its process took too long, and was ended"
    return f"its process ended with exit status {ended.returncode}" if ended.returncode else ""


def process(
    name: str, precision: str, quick: bool, seconds: float, stdout: Any, timeout: float
) -> subprocess.CompletedProcess[str]:
    words = ["--part", name, "--precision", precision, "--seconds", str(seconds)]
    environment = {
        **{name: text for name, text in os.environ.items() if name not in MISLEADING},
        "CUPY_TF32": str(int(precision == "tf32")),
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # of a GPU's memory, three quarters
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # else processes that outlive a part that is ended
    }
    return subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *words, *["--quick"] * quick],
        stdout=stdout,
        env=environment,
        text=True,
        timeout=timeout,
        check=False,
    )


def child(name: str, precision: str, seconds: float, quick: bool) -> None:
    """Run a part in this process; its lines go to stdout, which a library's words do not reach."""
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)
        run = Run(name, precision, quick, time.monotonic() + seconds, lines)
        functions = {part.function.__name__: part.function for part in PARTS} | {"header": header}
        try:
            functions[name](run)
        except Exception as error:  # of a library, as a rule, that finds no GPU
            run.answer(left_out=in_words(error))


def table(path: Path) -> str:
    """Return the lines of a file as Markdown: times side by side, then the parts' figures."""
    first, *lines = map(json.loads, path.read_text().splitlines())
    cuda, versions = first.pop("CUDA", {}), first.pop("versions")
    about = first | cuda | versions
    texts = [", ".join(f"{k}: {v}" for k, v in about.items() if k not in ("part", "precision"))]
    figures = [line for line in lines if "left_out" not in line]
    trainings: dict[tuple[str, str], Line] = {}
    for line in figures:
        if "microseconds" in line:
            median, low, high = (f"{line[name]:.3g}" for name in ("microseconds", "low", "high"))
            where = line["case"], line["precision"]
            row = trainings.setdefault(where, dict(zip(("case", "precision"), where, strict=True)))
            row[line["what"]] = f"{median} ({low} to {high})"
    texts += ["## Microseconds of an update", markdown(list(trainings.values()))]
    for part in dict.fromkeys(line["part"] for line in figures):
        if part not in ("pytorch", "jax"):  # they have nothing else
            rows = [line for line in figures if line["part"] == part]
            texts += [f"## {part}", markdown(rows, "part", "low", "high")]
    left_out = [line for line in lines if "left_out" in line]
    return "\n\n".join([*texts, "## Left out", markdown(left_out)])


def markdown(rows: Sequence[Line], *hidden: str) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row if name not in hidden))
    lines = [names, ["---"] * len(names)]
    for row in rows:
        cells = [row.get(name) for name in names]
        lines.append(["" if cell is None else shown(cell) for cell in cells])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(cell: Any) -> str:
    return f"{cell:.3g}" if isinstance(cell, float) and abs(cell) < 1000 else str(cell)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="the file to write to; default: stdout")
    parser.add_argument("--seconds", type=float, default=540, help="the time to use; default: 540")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, few rounds")
    parser.add_argument("--table", type=Path, help="print this file as Markdown instead")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.table:
        sys.stdout.write(table(given.table) + "\n")
    elif given.part:
        child(given.part, given.precision, given.seconds, given.quick)
    elif given.out:
        with given.out.open("w") as lines:
            measure(lines, given.seconds, given.quick)
    else:
        measure(sys.stdout, given.seconds, given.quick)


if __name__ == "__main__":
    main()
