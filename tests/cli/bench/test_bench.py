"""The command ``bench`` and its race: entrants and output, never their speed.

Specifies ``comparison``, ``contenders`` and ``race``.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.cli.bench import contenders, race
from backprop_xp.cli.bench.comparison import entrants
from backprop_xp.cli.bench.contenders import CASES, PEERS, Case
from backprop_xp.cli.bench.race import Entrant
from tests.commands import ONE_LINE, run
from tests.helpers import HANGING

TINY = [
    Case((2, 2, 1), batch=4, batches=2, epochs=2),
    Case((3, 4, 5), batch=20, batches=2, epochs=1),
    Case((3, 4, 1), batch=4, batches=2, epochs=1, members=3),
]
INSTALLED = ["backprop_xp", *(name for name, library in PEERS.items() if library.is_installed)]
MAKER = "backprop_xp.cli.bench.contenders:turns"


@pytest.mark.parametrize("case", TINY, ids=str)
@pytest.mark.parametrize("library", INSTALLED)
@pytest.mark.filterwarnings("ignore::UserWarning")  # scikit-learn's warning of no convergence
def test_every_library_trains_each_kind_of_case(library: str, case: Case, xp: Any) -> None:
    if library != "backprop_xp" and xp.name != "numpy":
        pytest.skip("the peers are the same on every backend")
    contender, description = contenders.find(library)
    if library == "scikit-learn" and case.members:
        with pytest.raises(ValueError, match="no stacks"):
            contender(case)
        return
    fresh = contender(case)
    assert all(contenders.timed(fresh(), case.epochs, case) > 0.0 for _ in range(2))
    assert description["version"]


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_the_data_fill_the_batches_and_are_float32(case: Case) -> None:
    x, y = case.draw()
    assert x.shape == (case.batch * case.batches, case.sizes[0])
    assert len(y) == len(x)
    assert x.dtype == np.float32
    if case.is_classifier:
        assert set(y) == set(range(case.sizes[-1]))


def test_the_matrix_products_are_those_of_a_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case, done, matmul = TINY[1], [], np.matmul
    fresh = contenders.matmul(case)
    monkeypatch.setattr(np, "matmul", lambda *a, **options: (done.append(a), matmul(*a, **options)))
    fresh()(case.epochs)
    layers = len(case.sizes) - 1
    assert len(done) == (3 * layers - 1) * case.batches * case.epochs


@pytest.mark.once
def test_a_race_times_each_entrant_in_each_round_and_leaves_out_one_that_fails(xp: Any) -> None:
    lost = Entrant("lost", MAKER, ("backprop_xp", "nowhere"))
    stranger = Entrant("stranger", MAKER, ("stranger",))
    with race.start_children([*entrants(["matmul"]), lost, stranger]) as children:
        outcome, unknown = (race.race(children, case, 2) for case in ("S", "no such case"))
        assert children["backprop_xp"].description["backend"] == xp.name
    times = {name: len(times) for name, times in outcome.times.items()}
    assert times == {"backprop_xp": 2, "matmul": 2}
    assert list(outcome.left_out) == ["lost", "stranger"]
    assert "'nowhere', from the argument of the call, is unknown" in outcome.left_out["lost"]
    assert outcome.left_out["stranger"] == "KeyError: 'stranger'"
    assert outcome.ratio("backprop_xp", "matmul").median > 0.0
    assert unknown.times == {}
    assert unknown.left_out["matmul"] == "KeyError: 'no such case'"


@pytest.mark.timed
@pytest.mark.parametrize(
    ("maker", "limit", "reason"),
    [
        ("sys:exit", HANGING, "its process ended: so long"),
        ("time:sleep", HANGING, "TypeError: "),
        ("statistics:NormalDist", HANGING, "ValueError: could not convert"),
        ("builtins:input", 0.2, "its process ended after 0.2 seconds"),
    ],
)
def test_a_process_that_ends_or_takes_too_long_is_left_out(
    maker: str, limit: float, reason: str
) -> None:
    begin = time.monotonic()
    with race.start_children([Entrant("one", maker, ("so long",), limit=limit)]) as children:
        outcome = race.race(children, "S", 2)
    assert time.monotonic() - begin < HANGING
    assert outcome.left_out["one"].startswith(reason)
    assert outcome.times == {}


FAILING = """
turns = iter([1.0, 2.0, 3.0])
def make():
    return lambda case: next(turns), {}
"""


def test_an_entrant_that_fails_in_a_later_round_has_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.syspath_prepend(tmp_path)
    with race.start_children([Entrant("one", "failing:make")]) as children:
        outcome = race.race(children, "S", 4)
    assert (outcome.times, outcome.left_out) == ({}, {"one": "StopIteration"})


def test_ratios_are_of_the_same_round() -> None:
    outcome = race.Outcome({"one": [1.0, 20.0, 3.0], "two": [2.0, 40.0, 6.0]}, {})
    assert outcome.ratio("one", "two") == (0.5, 0.5, 0.5)
    assert outcome.time("one") == (3.0, 2.0, 11.5)


def test_workers_keep_the_default_kernels_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Prescott")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    environment = race._environment()
    assert "OPENBLAS_CORETYPE" not in environment
    assert environment["OPENBLAS_NUM_THREADS"] == "1"


@pytest.fixture
def without_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the peers, which take seconds to start."""
    for library in set(PEERS) - {"matmul"}:
        missing = PEERS[library]._replace(module="no_such_library")
        monkeypatch.setitem(PEERS, library, missing)


@pytest.mark.once
@pytest.mark.usefixtures("without_peers")
def test_a_case_has_a_line_for_each_library_and_the_end_names_our_device(xp: Any) -> None:
    result = run("bench", "--case", "S", "--rounds", "2")
    assert result.exit_code == 0, result.output
    ours, matmul = r"  backprop_xp +[\d,]+", r"  matmul +[\d,]+ +[\d.]+"
    assert re.search(rf"^S  2-2-1, batches of 4\n{ours}\n{matmul}$", result.output, re.M)
    assert max(map(len, result.output.splitlines())) <= 80
    assert "scikit-learn is not installed and left out" in result.output
    assert f"trained on {xp.name} (" in " ".join(result.output.split())


@pytest.mark.usefixtures("without_peers")
def test_the_json_is_one_object_with_the_same_figures(xp: Any) -> None:
    result = run("bench", "--case", "S", "--case", "S", "--rounds", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["backprop_xp"] == bx.__version__
    assert found["selection"]["backend"] == xp.name
    assert found["versions"]["numpy"] == np.__version__
    assert list(found["cases"]) == ["S"]
    row = found["cases"]["S"]
    assert row["sizes"] == list(CASES["S"].sizes)
    assert list(row["microseconds"]) == ["backprop_xp", "matmul"]
    assert list(row["ratios"]["matmul"]) == ["median", "low", "high"]


@pytest.mark.usefixtures("without_peers")
def test_a_missing_device_is_a_one_line_error_with_exit_status_2() -> None:
    words = ("--case", "S", "--backend", "numpy", "--device", "cuda:7", "--json")
    result = run("bench", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert ONE_LINE.fullmatch(result.stderr)
    assert "cuda:7" in result.stderr
