"""An update of Adam within training, beside scikit-learn, PyTorch, JAX, and the matrix products.

Each library trains in its own process, and the processes take turns, as in ``backprop-xp bench``.
"""

import importlib.util
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from backprop_xp.cli.bench.comparison import entrants
from backprop_xp.cli.bench.contenders import CASES, PEERS
from backprop_xp.cli.bench.race import race, start_children
from benchmarks.conftest import Row, in_units

ROUNDS = {"S": 21, "D": 21, "M": 15, "W": 7, "E": 15}
OURS, OURS_COMPILED, OURS_ON_JAX = "backprop_xp", "backprop_xp with Numba", "backprop_xp on JAX"
# The largest good ratios: ours on NumPy to a peer's time, and ours on JAX to JAX's time.
AIMS = {
    ("S", "scikit-learn"): 0.30,
    ("S", "PyTorch"): 0.30,
    ("D", "scikit-learn"): 0.32,
    ("D", "PyTorch"): 0.45,
    ("D", "JAX"): 0.90,
    ("M", "matmul"): 1.25,
    ("M", "scikit-learn"): 0.45,
    ("M", "PyTorch"): 1.0,
    ("M", "JAX"): 1.0,
    ("W", "matmul"): 1.12,
    ("W", "scikit-learn"): 0.80,
    ("W", "PyTorch"): 0.95,
    ("W", "JAX"): 0.95,
}
AIMS_COMPILED = {
    ("S", "scikit-learn"): 0.20,
    ("D", "scikit-learn"): 0.24,
    ("D", "JAX"): 0.70,
    ("M", "matmul"): 1.25,
    ("M", "scikit-learn"): 0.45,
    ("M", "PyTorch"): 0.95,
    ("M", "JAX"): 0.95,
    ("W", "matmul"): 1.08,
    ("W", "PyTorch"): 0.90,
    ("W", "JAX"): 0.80,
}
AIMS_ON_JAX = {("M", "JAX"): 1.05}


@pytest.mark.parametrize("case", CASES)
def test_an_update(
    case: str,
    benchmark: BenchmarkFixture,
    record: Callable[[Row], None],
    show: Callable[[str], None],
) -> None:
    peers = [name for name, library in PEERS.items() if library.is_installed]
    (plain, *others) = entrants(peers, "numpy")
    racing = [plain._replace(environment={"BACKPROP_XP_COMPILE": "0"}), *others]
    if importlib.util.find_spec("numba") is not None:
        always = {"BACKPROP_XP_COMPILE": "1"}
        racing.append(plain._replace(name=OURS_COMPILED, environment=always))
    if "JAX" in peers:
        racing.append(entrants([], "jax")[0]._replace(name=OURS_ON_JAX))
    with start_children(racing) as children:
        outcome = benchmark.pedantic(lambda: race(children, case, ROUNDS[case]), rounds=1)
        versions = {name: child.description.get("version") for name, child in children.items()}
    benchmark.extra_info["microseconds"] = outcome.times
    for name, reason in outcome.left_out.items():
        show(f"{case}: {name} is left out: {reason}")
    for name in set(PEERS) - set(peers):
        show(f"{case}: {name} is not installed and left out")
    pairs = [(OURS, peer, AIMS) for peer in peers]
    pairs += [(OURS_COMPILED, peer, AIMS_COMPILED) for peer in peers]
    pairs += [(OURS_ON_JAX, "JAX", AIMS_ON_JAX)]
    for ours, peer, aims in pairs:
        if ours in outcome.times and peer in outcome.times:
            row = Row(
                f"{case}: an update of {CASES[case]}" + ours.removeprefix(OURS),
                in_units(outcome.time(ours).median / 1e6),
                outcome.ratio(ours, peer),
                f"{peer} {versions[peer]}".replace("matmul", "matmul, NumPy"),
                aims.get((case, peer)),
            )
            record(row)
    assert OURS in outcome.times
