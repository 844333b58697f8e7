"""Surrogates that learn values and derivatives: the error of new points, beside SMT.

``python benchmarks/surrogates.py`` runs each contender in a process of its own with one thread and
prints the tables of docs/benchmarks_equations.md: the root mean squared error of 1,000 new values
beside their standard deviation, that of derivatives, and the CPU time of a fit. Points are Latin
hypercubes, one for each seed. SMT is left out if it is not installed (``pip install smt jenn``),
and so are fits that take longer than ``--limit``. ``--rows 20 --seeds 1`` takes two minutes.
"""

import argparse
import contextlib
import functools
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.stats import qmc

import backprop_xp as bx

# Derivatives of SMT take long: fewer of the new points have them.
TEST_ROWS, SLOPE_ROWS, SEEDS, STEP = 1000, 100, 5, 1e-100
Predict: TypeAlias = Callable[[np.ndarray], np.ndarray]


class Problem(NamedTuple):
    """A function of ``(rows, n)``, analytic, and the ends of its inputs; it has no noise."""

    value: Callable[[Any], Any]
    low: list[float]
    high: list[float]

    def points(self, rows: int, seed: int) -> np.ndarray:
        unit = qmc.LatinHypercube(len(self.low), seed=seed).random(rows)
        return np.asarray(qmc.scale(unit, self.low, self.high))

    def slopes(self, x: np.ndarray) -> np.ndarray:
        """Return the derivatives by a complex step, right to rounding."""
        steps = 1j * STEP * np.eye(x.shape[1])
        return np.stack([self.value(x + step).imag / STEP for step in steps], axis=-1)


def borehole(x: Any) -> Any:
    """Return the flow through a borehole (Harper and Gupta 1983)."""
    rw, r, tu, hu, tl, hl, length, kw = x.T
    log = np.log(r / rw)
    return 2.0 * np.pi * tu * (hu - hl) / (log + 2.0 * length * tu / (rw**2 * kw) + log * tu / tl)


def wing_weight(x: Any) -> Any:
    """Return the weight of a light aircraft's wing (Forrester, Sobester and Keane 2008)."""
    area, fuel, aspect, sweep, pressure, taper, thickness, load, gross, paint = x.T
    cosine = np.cos(sweep * np.pi / 180.0)
    shape = (aspect / cosine**2) ** 0.6 * taper**0.04 * (100.0 * thickness / cosine) ** -0.3
    weight = 0.036 * area**0.758 * fuel**0.0035 * pressure**0.006 * (load * gross) ** 0.49
    return weight * shape + area * paint


def rosenbrock(x: Any) -> Any:
    left, right = x[:, :-1], x[:, 1:]
    return np.sum(100.0 * (right - left**2) ** 2 + (1.0 - left) ** 2, axis=1)


# The minimum of five atoms, a triangular bipyramid of edges near 2^(1/6).
RING, TIPS = [[0.652, 0.0], [-0.326, 0.565], [-0.326, -0.565]], [0.914, -0.914]
ATOMS = np.asarray([[*each, 0.0] for each in RING] + [[0.0, 0.0, z] for z in TIPS]).reshape(-1)


def cluster(x: Any) -> Any:
    """Return the Lennard-Jones energy of five atoms; its derivatives are minus their forces."""
    atoms, energy = x.reshape(len(x), -1, 3), 0.0
    for i in range(atoms.shape[1]):
        for j in range(i):
            inverse = 1.0 / np.sum((atoms[:, i] - atoms[:, j]) ** 2, axis=-1) ** 3
            energy = energy + 4.0 * (inverse**2 - inverse)
    return energy


PROBLEMS = {
    "borehole, 8-d": Problem(
        borehole,
        [0.05, 100.0, 63070.0, 990.0, 63.1, 700.0, 1120.0, 9855.0],
        [0.15, 50000.0, 115600.0, 1110.0, 116.0, 820.0, 1680.0, 12045.0],
    ),
    "wing weight, 10-d": Problem(
        wing_weight,
        [150.0, 220.0, 6.0, -10.0, 16.0, 0.5, 0.08, 2.5, 1700.0, 0.025],
        [200.0, 300.0, 10.0, 10.0, 45.0, 1.0, 0.18, 6.0, 2500.0, 0.08],
    ),
    **{f"Rosenbrock, {n}-d": Problem(rosenbrock, [-2.0] * n, [2.0] * n) for n in (2, 4, 8)},
    "five atoms, 15-d": Problem(cluster, [*(ATOMS - 0.08)], [*(ATOMS + 0.08)]),
}


def ours(
    with_slopes: bool, solver: str, **options: Any
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[Predict, Predict]]:
    def fit(x: np.ndarray, y: np.ndarray, dy: np.ndarray, seed: int) -> tuple[Predict, Predict]:
        (mean, scale), (mean_y, scale_y) = ((each.mean(0), each.std(0)) for each in (x, y))
        model = bx.MLPRegressor(activation="tanh", solver=solver, random_state=seed, **options)
        own = {"dy": dy * scale / scale_y} if with_slopes else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit((x - mean) / scale, (y[:, 0] - mean_y) / scale_y, **own)

        def slopes(at: np.ndarray) -> np.ndarray:
            return model.input_gradient((at - mean) / scale) * scale_y / scale

        return lambda at: mean_y + scale_y * model.predict((at - mean) / scale), slopes

    return fit


def of_smt(
    name: str, options: Callable[[int], dict[str, Any]]
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[Predict, Predict]]:
    """Return a fit of a model of SMT by its options for so many inputs."""

    def fit(x: np.ndarray, y: np.ndarray, dy: np.ndarray, seed: int) -> tuple[Predict, Predict]:
        import smt.surrogate_models

        n = x.shape[1]
        model = getattr(smt.surrogate_models, name)(**options(n))
        if name != "GENN":
            model.options["print_global"] = False
        else:
            model.options["seed"] = seed
        if name == "GEKPLS":
            model.options["xlimits"] = np.stack([x.min(0), x.max(0)], axis=-1)
        model.set_training_values(x, y)
        if name != "KRG":
            for i in range(n):
                model.set_training_derivatives(x, dy[:, i : i + 1], i)
        model.train()

        def slopes(at: np.ndarray) -> np.ndarray:
            return np.concatenate([model.predict_derivatives(at, i) for i in range(n)], axis=1)

        return lambda at: model.predict_values(at)[:, 0], slopes

    return fit


# Better on smooth functions than GENN's defaults: less penalty, more and smaller steps.
LONGER = {"hidden_layer_sizes": [24, 24], "num_iterations": 2000, "alpha": 0.01, "lambd": 1e-4}
SIZE = {"hidden_layer_sizes": (24, 24), "alpha": 1e-5}
CONTENDERS = {
    "`dy`, L-BFGS": ours(True, "lbfgs", **SIZE, max_iter=1000, max_fun=10**6, tol=1e-9),
    "`dy`, LM": ours(True, "lm", hidden_layer_sizes=(24,), alpha=1e-5, max_iter=100),
    "values, L-BFGS": ours(False, "lbfgs", **SIZE, max_iter=1000, max_fun=10**6, tol=1e-9),
    "GENN": of_smt("GENN", lambda n: {}),
    "GENN, longer": of_smt("GENN", lambda n: LONGER),
    "GEKPLS": of_smt("GEKPLS", lambda n: {"n_comp": min(n, 3), "extra_points": min(n, 3)}),
    "kriging": of_smt("KRG", lambda n: {}),
}


class TookTooLongError(BaseException):
    """Not an Exception, which a contender might catch."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise TookTooLongError in a block that takes more CPU time."""

    def stop(*_: Any) -> None:
        raise TookTooLongError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)


def line_of(name: str, problem: str, n: int, seed: int) -> dict[str, Any]:
    """Return the errors and the CPU seconds of a fit."""
    chosen = PROBLEMS[problem]
    x, at = chosen.points(n, seed), chosen.points(TEST_ROWS, 10**6)
    start = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()), np.errstate(all="ignore"):
        given = x, chosen.value(x)[:, None], chosen.slopes(x), seed
        predict, slopes = CONTENDERS[name](*given)
        seconds = time.process_time() - start
        found = predict(at), slopes(at[:SLOPE_ROWS])
    true, size = (chosen.value(at), chosen.slopes(at[:SLOPE_ROWS])), np.ptp(at, axis=0)
    value, slope = (
        np.sqrt(np.mean(((own - known) * unit) ** 2) / np.var(known * unit))
        for own, known, unit in zip(found, true, (1.0, size), strict=True)
    )
    line = {"contender": name, "problem": problem, "rows": n, "seed": seed}
    return {**line, "value": float(value), "slope": float(slope), "seconds": seconds}


def lines_of(name: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the line of each fit; a fit beyond the limit ends those of its number of rows."""
    line_of(name, "Rosenbrock, 2-d", 10, 0)  # which imports the libraries
    for problem, n in itertools.product(given.problems, given.rows):
        with contextlib.suppress(TookTooLongError):
            for seed in range(given.seeds):
                with limited(given.limit):
                    line = line_of(name, problem, n, seed)
                yield line


def run_apart(out: Path, names: list[str], words: list[str]) -> None:
    """Run each contender in a process and append its lines to the file."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, **dict.fromkeys(threads, "1")}
    for name in names:
        command = [sys.executable, __file__, "--contender", name, *words]
        with out.open("a") as file:
            pipes: dict[str, Any] = {"stdout": file, "stderr": subprocess.PIPE, "text": True}
            done = subprocess.run(command, env=environment, **pipes, check=False)
        if done.returncode:
            said = done.stderr.strip() or f"exit status {done.returncode}"
            sys.stderr.write(f"{name}: {said.splitlines()[-1]}\n")


def table(lines: list[Any], rows: int, value: str) -> str:
    """Return medians over the seeds in Markdown: a row for each contender."""
    own = [line for line in lines if line["rows"] == rows]
    problems = [name for name in PROBLEMS if any(line["problem"] == name for line in own)]
    text = [f"| {rows} points | {' | '.join(problems)} |", f"|---|{'---|' * len(problems)}"]
    for name in CONTENDERS:
        found = [
            [one[value] for one in own if (one["contender"], one["problem"]) == (name, problem)]
            for problem in problems
        ]
        if any(found):
            cells = (f"{np.median(each):.2g}" if each else "-" for each in found)
            text.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, help="run it in this process")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), metavar="PROBLEM")
    parser.add_argument("--rows", nargs="+", type=int, default=[20, 50, 200])
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--limit", type=float, default=300.0, help="CPU seconds of a fit")
    parser.add_argument("--out", type=Path, default=Path("surrogates.jsonl"))
    given = parser.parse_args()
    if given.contender:
        for line in lines_of(given.contender, given):
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
        return
    words = ["--problems", *given.problems, "--rows", *map(str, given.rows)]
    words += ["--seeds", str(given.seeds), "--limit", str(given.limit)]
    run_apart(given.out, given.only, words)
    found = map(json.loads, given.out.read_text().splitlines())
    # The newest of each kind.
    keys = "contender", "problem", "rows", "seed"
    lines = [*{tuple(line[key] for key in keys): line for line in found}.values()]
    for value in ("value", "slope", "seconds"):
        sys.stdout.write(f"\n{value}\n\n")
        each = functools.partial(table, lines, value=value)
        sys.stdout.write("\n\n".join(each(rows) for rows in given.rows) + "\n")


if __name__ == "__main__":
    main()
