"""Models of tables beside one another: 32 real tables, five seeds, and what each model scores.

``python benchmarks/tables.py --half tune --seeds 0 1`` writes a line of JSON per table, seed and
contender to ``tables.jsonl``, and skips the lines that are there. It tries lines with an error
again, so the same command continues after an interruption. ``--fresh`` runs 24 other tables, on
which nothing was tuned, ``--codes`` two with more than 1,000 codes. ``--report`` prints the tables
of docs/benchmarks_tables.md from these lines; ``--picture`` draws the critical differences. The
requirements are the dependency group ``bench-tables``.

The recipe of a contender is a function in ``table_contenders.py``, or ``module:function`` on the
command line. Each contender has a process of its own: thread pools of two libraries in one process
disturb one another.
"""

import argparse
import concurrent.futures
import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from table_contenders import CONTENDERS, THREADS, contender
from table_data import CODES, FRESH, RECORDS, load, names_of, score, split
from table_report import markdown, picture
from tqdm import tqdm

SEEDS = (0, 1, 2, 3, 4)


class Job(NamedTuple):
    """A fit: a contender on the training rows of a table that a seed draws."""

    table: str
    seed: int
    contender: str


def read(path: Path) -> dict[Job, dict[str, Any]]:
    """Return the lines of a results file by their jobs; the last line of a job counts."""
    if not path.exists():
        return {}
    lines = map(json.loads, path.read_text().splitlines())
    return {Job(line["table"], line["seed"], line["contender"]): line for line in lines}


def append(path: Path, line: dict[str, Any]) -> None:
    """Add a line in one step: several processes write to the file."""
    with path.open("a") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def jobs_left(
    path: Path, tables: Sequence[str], contenders: Sequence[str], seeds: Sequence[int]
) -> list[Job]:
    """Return the jobs that have no result yet, or an error, contender by contender."""
    done = {job for job, line in read(path).items() if "error" not in line}
    jobs = (Job(*names) for names in itertools.product(tables, seeds, contenders))
    left = [job for job in jobs if job not in done]
    return sorted(left, key=lambda job: contenders.index(job.contender))


def without_package(names: Iterable[str], packages: Iterable[str]) -> dict[str, str]:
    """Return the reason to skip each name whose package is not installed."""
    pairs = zip(names, packages, strict=True)
    return {
        name: f"{package} is not installed"
        for name, package in pairs
        if importlib.util.find_spec(package) is None
    }


def fit(path: Path, job: Job) -> None:
    """Run a job in this process; a contender that raises an error leaves its message."""
    table = load(job.table)
    train, validation, test = split(table, job.seed)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        predict = contender(job.contender).predict
        predictions = predict(train, validation, test.X, table.task, job.seed)
        result: dict[str, Any] = {
            "seconds": round(time.perf_counter() - wall, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),  # on a machine that others use
            **score(table.task, test.y, predictions),
        }
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}"[:500]}
    append(path, about(job) | result)


def about(job: Job) -> dict[str, Any]:
    """Return what a line says beside the result."""
    package = CONTENDERS[job.contender].package if job.contender in CONTENDERS else "backprop_xp"
    return {
        **job._asdict(),
        "task": RECORDS[job.table].task,
        "threads": THREADS,
        "versions": {"python": platform.python_version(), **versions(package)},
    }


def versions(package: str) -> dict[str, str]:
    """Return the versions of the libraries in use, of those that are imported."""
    names = {"numpy", "sklearn", "skrub", package} & set(sys.modules)
    return {
        name: getattr(sys.modules[name], "__version__", "") or importlib.metadata.version(name)
        for name in sorted(names)
    }


def run_apart(path: Path, jobs: Sequence[Job], threads: int) -> None:
    """Run the jobs of one contender in another process.

    If that process dies, its job is an error, and a new process runs the jobs after it.
    """
    environment = {
        **os.environ,
        **{name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")},
        "OMP_WAIT_POLICY": "passive",  # threads that spin slow down a machine that others use
    }
    words = [sys.executable, __file__, "--here", "--out", str(path)]
    while jobs:
        before = path.read_bytes().count(b"\n") if path.exists() else 0
        given = json.dumps(jobs)
        done = subprocess.run(
            words, env=environment, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode in (0, -signal.SIGINT):
            return
        after = path.read_text().splitlines()[before:] if path.exists() else []
        own = sum(json.loads(line)["contender"] == jobs[0].contender for line in after)
        last = done.stderr.strip().splitlines()[-1:] or [""]
        message = f"the process ended with status {done.returncode}: {last[0]}"
        for job in jobs[own : own + 1]:  # none if it died after its last job
            append(path, about(job) | {"error": message[:500]})
        jobs = jobs[own + 1 :]


def run(path: Path, jobs: Sequence[Job], workers: int, threads: int) -> None:
    """Run the jobs, ``workers`` contenders at a time, with a progress bar."""
    path.touch()
    before = path.read_bytes().count(b"\n")
    groups = [list(group) for _, group in itertools.groupby(jobs, lambda job: job.contender)]
    with (
        concurrent.futures.ThreadPoolExecutor(workers) as pool,
        tqdm(total=len(jobs), unit="fit") as bar,
    ):
        waiting = {pool.submit(run_apart, path, group, threads) for group in groups}
        try:
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, timeout=1.0)
                for future in done:
                    future.result()
                bar.update(path.read_bytes().count(b"\n") - before - bar.n)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("tables.jsonl"), help="results file; default: %(default)s")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--half", choices=("tune", "show"), help="the tables of a half; default: all 32"
    )
    group.add_argument(
        "--fresh", action="store_true", help="the 24 tables that chose nothing, not the 32"
    )
    group.add_argument(
        "--codes", action="store_true", help="the two tables with more than 1,000 codes"
    )
    add("--tables", nargs="+", choices=RECORDS, metavar="NAME", help=f"of {', '.join(RECORDS)}")
    add("--contenders", nargs="+", metavar="NAME", help=f"module:function, or {list(CONTENDERS)}")
    add("--seeds", nargs="+", type=int, default=SEEDS, help="default: 0 to 4")
    add("--jobs", type=int, default=1, help="contenders at a time; default: 1")
    add("--threads", type=int, default=2, help="threads of a process; default: 2")
    add("--report", action="store_true", help="print the results as Markdown, and run nothing")
    add("--picture", type=Path, help="with --report: write the critical differences, an SVG")
    add("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main() -> None:
    options = parse()
    # For this checkout, and for the module of a contender.
    sys.path += [str(Path(__file__).parents[1]), str(Path.cwd())]
    if options.here:  # a process of run_apart
        for job in json.loads(sys.stdin.read()):
            fit(options.out, Job(*job))
        return
    others = [*FRESH] if options.fresh else [*CODES] if options.codes else None
    names = others or names_of(options.half)
    tables = [name for name in names if not options.tables or name in options.tables]
    if options.report:
        lines = [
            line
            for (table, seed, name), line in read(options.out).items()
            if table in tables and seed in options.seeds
            if not options.contenders or name in options.contenders
        ]
        sys.stdout.write(markdown(lines) + "\n")
        if options.picture:
            picture(lines, options.picture)
        return
    skipped = without_package(tables, [RECORDS[name].package for name in tables])
    contenders = options.contenders or list(CONTENDERS)
    known = [name for name in contenders if name in CONTENDERS]
    skipped |= without_package(known, [CONTENDERS[name].package for name in known])
    for name, reason in skipped.items():
        sys.stderr.write(f"{name} is skipped: {reason}\n")
    tables = [name for name in tables if name not in skipped]
    contenders = [name for name in contenders if name not in skipped]
    jobs = jobs_left(options.out, tables, contenders, options.seeds)
    run(options.out, jobs, options.jobs, options.threads)


if __name__ == "__main__":
    main()
