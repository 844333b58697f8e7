"""A grid search of scikit-learn over 24 candidates and five folds: the 120 fits as stacks or alone.

``bx.stacked()``, the same search without it, and a search over scikit-learn's own perceptron. Each
has a process with one thread, and they take turns by CPU time. All choose among equal networks: the
tests of ``bx.stacked`` hold that the results are the same.
"""

import importlib.util
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from backprop_xp.cli.bench.race import Entrant, race, start_children
from benchmarks.bench_input_derivatives import ONE_THREAD
from benchmarks.conftest import Row, in_units

ROUNDS = 5
GRID = {"alpha": np.logspace(-5, 1, 6), "learning_rate_init": [1e-3, 3e-3, 1e-2, 3e-2]}
CASES: dict[str, tuple[str, tuple[int, ...]]] = {
    "diabetes, 32 units": ("Regressor", (32,)),
    "diabetes, 64 and 64 units": ("Regressor", (64, 64)),
    "breast cancer, 32 units": ("Classifier", (32,)),
}
PEERS = {"each fit alone": "bx", "scikit-learn's perceptron": "sklearn"}
OURS = {"stacks on NumPy": ("bx", "numpy"), "stacks on JAX": ("bx", "jax")}


def turns(contender: str) -> tuple[Callable[[str], float], dict[str, Any]]:
    """Return the CPU seconds of a search, and each case's best score: the entrant of a race."""
    from sklearn import datasets, neural_network
    from sklearn.model_selection import GridSearchCV
    from sklearn.preprocessing import StandardScaler

    import backprop_xp as bx

    warnings.simplefilter("ignore")
    scores = dict[str, float]()

    def turn(name: str) -> float:
        kind, sizes = CASES[name]
        load = datasets.load_diabetes if kind == "Regressor" else datasets.load_breast_cancer
        x, y = load(return_X_y=True)
        x = StandardScaler().fit_transform(x)
        y = (y - y.mean()) / y.std() if kind == "Regressor" else y
        package = neural_network if contender.startswith("scikit") else bx
        model = getattr(package, f"MLP{kind}")(hidden_layer_sizes=sizes, random_state=0)
        if contender in OURS:
            model.set_params(backend=OURS[contender][1])
        context: Any = bx.stacked() if contender in OURS else nullcontext()
        start = time.process_time()
        with context:
            search = GridSearchCV(model, GRID, cv=5, refit=False).fit(x, y)
        scores[name] = float(search.best_score_)
        return time.process_time() - start

    return turn, {"scores": scores}


@pytest.mark.parametrize("case", CASES)
def test_a_search(
    case: str,
    benchmark: BenchmarkFixture,
    record: Callable[[Row], None],
    show: Callable[[str], None],
) -> None:
    has_jax = importlib.util.find_spec("jax") is not None
    names = [name for name in (*OURS, *PEERS) if has_jax or not name.endswith("JAX")]
    maker = "benchmarks.bench_searches:turns"
    racing = [Entrant(name, maker, (name,), ONE_THREAD) for name in names]
    with start_children(racing) as children:
        outcome = benchmark.pedantic(lambda: race(children, case, ROUNDS), rounds=1)
    assert set(outcome.times) & set(OURS), outcome.left_out
    for name, reason in outcome.left_out.items():
        show(f"{case}: {name} is left out: {reason}")
    for ours in OURS:
        for peer in PEERS:
            if ours in outcome.times and peer in outcome.times:
                time_of, ratio = outcome.time(ours).median, outcome.ratio(ours, peer)
                record(Row(f"{case}, {ours}", in_units(time_of), ratio, peer))
