"""Fits of small networks by second-order methods: the training loss after equal CPU time.

``python benchmarks/small_fits.py`` runs each contender of ``small_fit_contenders.py`` in a process
of its own with one thread, and prints the tables of docs/benchmarks_small_networks.md. A contender
whose library is not installed is named and left out (``pip install numba pyrenn
torch-levenberg-marquardt optimistix``). CPU time counts, because it depends least on what else the
machine does.
"""

import argparse
import importlib.util
import json
import operator
import os
import subprocess
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import sklearn.neural_network
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
from small_fit_contenders import CONTENDERS, LIBRARIES, fits, network_of
from small_fit_problems import NOISELESS, NOISY, Problem, curve

import backprop_xp as bx

RESTARTS = 64
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def losses(name: str, seeds: int, seconds: float) -> None:
    """Print a line of JSON for each problem and seed of a contender."""
    for key, make in {**NOISELESS, **NOISY}.items():
        problem = make()
        for seed, (trace, predict) in enumerate(fits(name, problem, range(seeds), seconds)):
            at = {str(t): lowest(trace, t) for t in (seconds / 4.0, seconds)}
            test = float("nan")
            if trace:
                test = float(np.sqrt(np.mean((predict(problem.test_x) - problem.test_y) ** 2)))
            line = {"contender": name, "problem": key, "seed": seed, "loss": at, "test": test}
            write(json.dumps(line))


def lowest(trace: list[tuple[float, float]], seconds: float) -> float:
    """Return the lowest loss by a time, NaN if there is none."""
    return min((loss for passed, loss in trace if passed <= seconds), default=float("nan"))


def run_apart(out: Path, names: list[str], seeds: int, seconds: float) -> None:
    """Run each contender in a process and append its lines to the file."""
    eigen = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    environment = {**os.environ, **dict.fromkeys(THREADS, "1"), "XLA_FLAGS": eigen}
    for name in names:
        library = LIBRARIES.get(name)
        if library is not None and importlib.util.find_spec(library) is None:
            sys.stderr.write(f"{name}: not installed\n")
            continue
        words = ["--contender", name, "--seeds", str(seeds), "--seconds", str(seconds)]
        with out.open("a") as file:
            done = subprocess.run(
                [sys.executable, __file__, *words],
                env=environment,
                stdout=file,
                stderr=subprocess.PIPE,
                text=True,
                check=False,
            )
        if done.returncode:
            sys.stderr.write(f"{name}: {done.stderr.strip().splitlines()[-1]}\n")


def table(lines: list[dict[str, Any]], problems: Any, value: Callable[[Any], float]) -> str:
    """Return medians over the seeds in Markdown: a row for each contender."""
    found = defaultdict[tuple[str, str], list[float]](list)
    for line in lines:
        found[line["contender"], line["problem"]].append(value(line))
    rows = [f"| | {' | '.join(problems)} |", f"|---|{'---|' * len(problems)}"]
    for name in CONTENDERS:
        if any((name, key) in found for key in problems):
            medians = (np.median(found[name, key] or [np.nan]) for key in problems)
            cells = ("-" if np.isnan(each) else f"{each:.1e}" for each in medians)
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def restarts(seconds: float) -> None:
    """Print the losses of 64 restarts of the curve in the CPU time, and the time beside one."""
    problem = curve()
    network = network_of(problem)
    for optimizer in (bx.LevenbergMarquardt(tolerance=0.0), bx.LBFGS(tolerance=0.0)):
        times = [
            [trained(network, problem, optimizer, n)[1] for n in (1, RESTARTS)] for _ in range(7)
        ]
        ratios = np.quantile([many / one for one, many in times], [0.25, 0.5, 0.75])
        one, many = np.median(times, axis=0)
        name = type(optimizer).__name__
        write(f"{name}: 50 epochs of one {one:.4f} s, of {RESTARTS} {many:.4f} s, ratio {ratios}")
        epochs = int(50 * seconds / many)
        reached, passed = trained(network, problem, optimizer, RESTARTS, epochs)
        write(f"{name}: {epochs} epochs in {passed:.2f} s, {summary(reached)}")
    for name in ("SciPy lm", "SciPy trf", "SciPy L-BFGS-B"):
        runs = fits(name, problem, range(RESTARTS), seconds / RESTARTS)
        write(f"{name}: one after the other, {summary([lowest(t, seconds) for t, _ in runs])}")


def trained(
    network: bx.Network, problem: Problem, optimizer: Any, members: int, epochs: int = 50
) -> tuple[np.ndarray, float]:
    """Return each member's loss after some epochs, and the CPU time."""
    theta = network.initialize(seed=0, stack=(members,), backend="numpy")
    start = time.process_time()
    options = {"optimizer": optimizer, "epochs": epochs}
    result = bx.fit(network, theta, problem.x, problem.y, **options)
    passed = time.process_time() - start
    return network.loss(result.theta, problem.x, problem.y), passed


def classes(seconds: float) -> None:
    """Print the lowest log-loss of a test half in the CPU time, medians of five seeds."""
    optimizers = {
        "LevenbergMarquardt": (bx.LevenbergMarquardt(), None),
        "LBFGS": (bx.LBFGS(), None),
        "Adam, batches of 32": (bx.Adam(1e-2), 32),
    }
    for load in (load_breast_cancer, load_digits):
        for name, (optimizer, size) in optimizers.items():
            found = [classified(load, optimizer, size, seed, seconds) for seed in range(5)]
            loss, passed = np.median(found, axis=0)
            write(f"{load.__name__}, {name}: {loss:.4f} after {passed:.3f} s")


def classified(
    load: Any, optimizer: Any, batch_size: int | None, seed: int, seconds: float
) -> tuple[float, float]:
    """Return the lowest log-loss of the test half in the CPU time, and when it was reached."""
    x, labels = load(return_X_y=True)
    x = bx.data.standardize(x).x
    x, test_x, labels, test = bx.data.split(x, labels, test_size=0.5, seed=seed)
    network = bx.mlp(
        [x.shape[1], 10, labels.max() + 1], hidden="tanh", loss="categorical_cross_entropy"
    )
    theta, best = network.initialize(seed=seed, backend="numpy"), (np.inf, 0.0)
    options = {"optimizer": optimizer, "epochs": 10**6, "batch_size": batch_size, "seed": seed}
    start = time.process_time()
    for state in bx.train(network, theta, x, labels, validation=(test_x, test), **options):
        passed = time.process_time() - start
        if passed > seconds:
            break
        best = min(best, (float(state.validation_loss), passed))
    return best


def estimators() -> None:
    """Print the CPU time and the loss of the estimators' lbfgs and scikit-learn's, as medians."""
    draw = np.random.default_rng(0)
    many = draw.normal(size=(5000, 20))
    data = {
        "diabetes": ("MLPRegressor", *load_diabetes(return_X_y=True)),
        "friedman1": ("MLPRegressor", *make_friedman1(400, random_state=0)),
        "5,000 rows": ("MLPRegressor", many, np.sin(many[:, 0]) * many[:, 1]),
        "breast_cancer": ("MLPClassifier", *load_breast_cancer(return_X_y=True)),
        "digits": ("MLPClassifier", *load_digits(return_X_y=True)),
    }
    for key, (name, x, y) in data.items():
        x = bx.data.standardize(x).x
        for hidden, activation in ((100, "relu"), (8, "tanh")):
            options = {"hidden_layer_sizes": hidden, "activation": activation, "solver": "lbfgs"}
            for module in (bx, sklearn.neural_network):
                found = [solved(getattr(module, name), x, y, i, options) for i in range(3)]
                passed, loss = np.median(found, axis=0)
                write(
                    f"{key}, {hidden} {activation}, {module.__name__}: {passed:.3f} s, {loss:.3g}"
                )


def solved(
    kind: Any, x: np.ndarray, y: np.ndarray, seed: int, options: dict[str, Any]
) -> tuple[float, float]:
    """Return the CPU time of an estimator's fit, and the loss."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = kind(random_state=seed, **options).fit(x, y)
    return time.process_time() - start, model.loss_


def summary(values: Any) -> str:
    return f"median {np.median(values):.1e}, best {np.min(values):.1e}"


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contender", choices=CONTENDERS, help="run it in this process")
    parser.add_argument("--only", nargs="+", default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.4, help="CPU time of a fit")
    parser.add_argument("--restarts", action="store_true", help="only the table of restarts")
    parser.add_argument("--estimators", action="store_true", help="only lbfgs of the estimators")
    parser.add_argument("--classes", action="store_true", help="only the classifications")
    parser.add_argument("--out", type=Path, default=Path("small_fits.jsonl"))
    given = parser.parse_args()
    if given.contender:
        losses(given.contender, given.seeds, given.seconds)
        return
    if given.restarts:
        restarts(given.seconds)
        return
    if given.estimators:
        estimators()
        return
    if given.classes:
        classes(given.seconds)
        return
    run_apart(given.out, given.only, given.seeds, given.seconds)
    lines = [json.loads(line) for line in given.out.read_text().splitlines()]
    problems = [*NOISELESS, *NOISY]
    for seconds in (given.seconds / 4.0, given.seconds):
        write(f"\nTraining loss after {seconds} s of CPU time, medians of {given.seeds} seeds\n")
        reached = operator.itemgetter(str(seconds))
        write(table(lines, problems, lambda line, at=reached: at(line["loss"])))
    write("\nRoot mean squared error of the test rows at the end\n")
    write(table(lines, problems, operator.itemgetter("test")))


if __name__ == "__main__":
    main()
