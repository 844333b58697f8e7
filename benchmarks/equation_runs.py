"""What both benchmarks of equations share: processes, the table, and DeepXDE's training."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]


class Found(NamedTuple):
    """The solution that a contender found, and its unknown coefficient, if any."""

    u: Function
    k: float | None = None


def line_of(
    contender: str,
    problem: str,
    seed: int,
    found: Found,
    at: np.ndarray,
    true: Any,
    k: float | None,
) -> dict[str, Any]:
    """Return the relative error of a solution at points, and that of its coefficient."""
    error = np.linalg.norm(found.u(at) - true) / np.linalg.norm(true)
    off = None if found.k is None or k is None else abs(found.k / k - 1.0)
    line = {"contender": contender, "problem": problem, "seed": seed}
    return {**line, "error": float(error), "k": off}


def deepxde(seed: int) -> tuple[Any, Any]:
    """Return DeepXDE and PyTorch, with a seed."""
    os.environ["DDE_BACKEND"] = "pytorch"
    import deepxde as dde
    import torch

    torch.set_num_threads(1)
    dde.config.set_default_float("float64")
    dde.config.set_random_seed(seed)
    return dde, torch


def trained_by_deepxde(
    dde: Any,
    data: Any,
    net: Any,
    seconds: float,
    unknown: Any = None,
    *,
    maxcor: int = 100,
    **more: Any,
) -> Found:
    """Return a training by Adam for a third of the time, then by L-BFGS.

    ``maxcor`` is the number of steps that L-BFGS remembers; ``more`` are arguments of ``compile``.
    """
    model = dde.Model(data, net)

    class Clock(dde.callbacks.Callback):  # type: ignore[misc]
        def __init__(self, end: float) -> None:
            super().__init__()
            self.end = end

        def on_epoch_end(self) -> None:
            self.model.stop_training |= time.process_time() > self.end

    options = {**more, **({} if unknown is None else {"external_trainable_variables": [unknown]})}
    every = {"display_every": 10**9, "verbose": 0}
    model.compile("adam", lr=1e-3, verbose=0, **options)
    model.train(iterations=1, **every)  # the first one imports parts of PyTorch
    start = time.process_time()
    model.train(iterations=10**6, callbacks=[Clock(start + seconds / 3.0)], **every)
    dde.optimizers.set_LBFGS_options(maxcor=maxcor, ftol=0.0, gtol=0.0, maxiter=10**6)
    # The clock is asked after so many iterations.
    dde.optimizers.config.LBFGS_options.update(iter_per_step=10, fun_per_step=15)
    model.compile("L-BFGS", verbose=0, **options)
    model.stop_training = False
    model.train(callbacks=[Clock(start + seconds)], **every)
    return Found(model.predict, None if unknown is None else float(unknown.detach()))


def _run_apart(out: Path, contenders: Sequence[str], words: Sequence[str]) -> None:
    """Run each contender in a process with one thread, and append its lines to the file."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    eigen = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, **dict.fromkeys(threads, "1"), "XLA_FLAGS": eigen}
    for name in contenders:
        command = [sys.executable, sys.argv[0], "--contender", name, *words]
        done = subprocess.run(
            command, env=environment, stdout=subprocess.PIPE, text=True, check=False
        )
        own = [line for line in done.stdout.splitlines() if line.startswith('{"contender"')]
        with out.open("a") as file:
            file.writelines(f"{line}\n" for line in own)


def table(lines: Sequence[Any], contenders: Sequence[str], columns: Mapping[str, Any]) -> str:
    """Return the median, the least and the largest error over the seeds in Markdown.

    ``columns`` have a problem and the name of an error of its lines.
    """
    rows = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for contender in contenders:
        cells = []
        for problem, value in columns.values():
            names = contender, problem
            found = [one[value] for one in lines if (one["contender"], one["problem"]) == names]
            cells.append(
                f"{np.median(found):.1e} ({min(found):.0e} to {max(found):.0e})" if found else "-"
            )
        rows.append(f"| {contender} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main(
    description: str | None,
    contenders: Sequence[str],
    problems: Sequence[str],
    columns: Mapping[str, Any],
    lines_of: Callable[[str, Sequence[str], int, float], Iterator[Any]],
    *,
    seeds: int,
    seconds: float,
) -> None:
    """Run what the command line says; the rest are its defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--contender", choices=contenders, help="run it in this process")
    parser.add_argument("--only", nargs="+", default=[*contenders], choices=contenders)
    parser.add_argument("--problems", nargs="+", default=[*problems], choices=problems)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--seconds", type=float, default=seconds, help="CPU time of a training")
    out = Path(sys.argv[0]).with_suffix(".jsonl").name
    parser.add_argument("--out", type=Path, default=Path(out), help="default: %(default)s")
    given = parser.parse_args()
    if given.contender:
        for line in lines_of(given.contender, given.problems, given.seeds, given.seconds):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        return
    words = ["--seeds", str(given.seeds), "--seconds", str(given.seconds)]
    _run_apart(given.out, given.only, ["--problems", *given.problems, *words])
    found = map(json.loads, given.out.read_text().splitlines())
    # The newest of each kind.
    keys = "contender", "problem", "seed"
    lines = [*{tuple(line[key] for key in keys): line for line in found}.values()]
    sys.stdout.write(table(lines, contenders, columns) + "\n")
