"""Tables too large to copy: the same training as in memory, with little memory."""

import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning

import backprop_xp as bx
from backprop_xp.backends import Memory
from backprop_xp.estimators import samples, streaming
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.training.steps import step
from tests.helpers import python, thorough

pytestmark = pytest.mark.long

# A compiler makes a loop for each length of a block, and each may round differently.
SAME_TRAINING = 1e-10

X, Y = make_classification(
    230, 6, n_informative=4, n_classes=3, n_clusters_per_class=1, random_state=0
)
WEIGHTS = np.random.default_rng(0).uniform(0.5, 2.0, len(X))


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch, xp: Any) -> Iterator[None]:
    """Use blocks of 50 rows, so 40 rows for batches of 20: a small table counts as large."""
    monkeypatch.setattr(samples, "BLOCK", 50 * X.shape[1] * X.dtype.itemsize)
    with bx.use_backend(xp.selection.backend, xp.selection.device, xp.dtype):
        yield


@pytest.fixture(params=["mapped", "sparse", "mapped integers"])
def large(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, np.ndarray]:
    """A table on the disk, and its rows in memory."""
    held = np.round(X) if request.param == "mapped integers" else X
    if request.param == "sparse":
        return scipy.sparse.csc_array(held), held
    dtype = np.int16 if request.param == "mapped integers" else np.float64
    table = np.memmap(tmp_path / "table", dtype, "w+", shape=held.shape)
    table[:] = held
    table.flush()
    return np.memmap(tmp_path / "table", dtype, "r", shape=held.shape), held


def _fit(x: Any, *more: Any, **options: Any) -> Any:
    given = {"hidden_layer_sizes": 5, "batch_size": 20, "max_iter": 4, "random_state": 0, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bx.MLPClassifier(**given).fit(x, Y, *more)


def _assert_same(xp: Any, one: Any, other: Any) -> None:
    close = xp.rounding(SAME_TRAINING) if xp.name == "jax" else 0.0
    for name in ("coefs_", "intercepts_", "loss_curve_", "validation_scores_"):
        pairs = zip(getattr(one, name, None) or [], getattr(other, name, None) or [], strict=True)
        for a, b in pairs:
            np.testing.assert_allclose(a, b, rtol=close, atol=close)


TRAININGS: list[dict[str, Any]] = [
    {},
    {"shuffle": False, "learning_rate": bx.schedules.exponential(0.01, 0.9)},
    {"early_stopping": True, "n_restarts": 2, "max_iter": 8},
    {"dropout": 0.2, "clip": 0.5, "solver": "adamw", "alpha": 0.1},
    {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.1, "n_iter_no_change": 1},
    {"batch_size": 230},
    {"n_members": 2, "dropout": 0.2},
    {"solver": "lbfgs"},
]


# How a table is read does not depend on the training: each training reads one in turn by default.
TABLES = ("mapped", "sparse", "mapped integers")


@pytest.mark.parametrize(
    ("large", "options"),
    [
        (table, options) if i % len(TABLES) == j else thorough(table, options)
        for i, options in enumerate(TRAININGS)
        for j, table in enumerate(TABLES)
    ],
    indirect=["large"],
    ids=str,
)
def test_training_on_a_large_table_equals_training_in_memory(
    xp: Any, large: tuple[Any, np.ndarray], options: dict[str, Any]
) -> None:
    table, held = large
    streamed, whole = (_fit(rows, **options) for rows in (table, held))
    _assert_same(xp, streamed, whole)
    np.testing.assert_array_equal(whole.predict_proba(table), whole.predict_proba(held))


@pytest.mark.float64  # blocks have so many bytes
def test_independent_networks_are_trained_on_blocks_as_on_the_same_rows_in_memory(xp: Any) -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 50, 3))
    network, weight = bx.mlp([3, 4, 3], dropout=0.2), xp.asarray(np.arange(50.0) % 5)
    theta = xp.initialize(network, stack=3)
    selection = xp.selection._replace(dtype=theta.dtype)  # the choice may be of float32
    table = streaming.Table(xp.host(xp.asarray(x)), np.arange(50), selection)
    options: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": 2, "batch_size": 8}
    own = np.arange(6 * 3 * 8).reshape(6, 3, 8) % 50
    pieces = table.pieces(Rows(None, xp.asarray(y)), [own])
    assert [tuple(rows.x.shape) for rows, _ in pieces] == [(96, 3), (48, 3)]  # of at most 100 rows
    for seed in (4, (4, 5, 6)):
        streamed, whole = (
            bx.fit(network, theta, rows, xp.asarray(y), seed=seed, sample_weight=weight, **options)
            for rows in (table, xp.asarray(x))
        )
        xp.assert_close(streamed.theta, whole.theta, SAME_TRAINING)


def test_training_on_a_large_table_with_weights_equals_training_in_memory(
    xp: Any, large: tuple[Any, np.ndarray]
) -> None:
    table, held = large
    # The first blocks have weight 0.
    for weights in (WEIGHTS, np.where(np.arange(len(Y)) < len(Y) // 2, 0.0, WEIGHTS)):
        for shuffle in (False, True):
            models = [_fit(rows, weights, shuffle=shuffle) for rows in (table, held)]
            assert np.isfinite(models[0].loss_curve_).all()
            _assert_same(xp, *models)


@pytest.mark.parametrize("large", ["mapped", *map(thorough, TABLES[1:])], indirect=True)
def test_training_on_a_large_table_reaches_a_good_score(large: tuple[Any, np.ndarray]) -> None:
    table, held = large
    options = {"max_iter": 60, "learning_rate_init": 0.02, "early_stopping": True, "tol": 0.0}
    model = _fit(table, **options, n_restarts=2, dropout=0.1)
    assert model.score(held, Y) > 0.7
    assert model.best_validation_score_ == max(model.validation_scores_)


@pytest.mark.once
@pytest.mark.thorough
def test_processes_that_map_a_large_table_train_as_one_process(tmp_path: Path) -> None:
    done = python(f"path = {str(tmp_path / 'table')!r}\n{VOTE}")
    assert done.stdout == "True True\n", done.stderr


# joblib's processes map an array of a megabyte or more from a file.
VOTE = """
import warnings
import joblib
import numpy as np
from sklearn.ensemble import VotingRegressor
import backprop_xp as bx
warnings.simplefilter("ignore")
if __name__ == "__main__":
    X = np.random.default_rng(0).normal(size=(100_000, 90))
    y = np.sin(X[:, 0])
    options = {"hidden_layer_sizes": 4, "max_iter": 1}
    models = [(str(i), bx.MLPRegressor(random_state=i, **options)) for i in range(2)]
    one, two = (VotingRegressor(models, n_jobs=n).fit(X, y).predict(X) for n in (1, 2))
    table = joblib.load(joblib.dump(X, path)[0], mmap_mode="r")
    mapped = VotingRegressor(models).fit(table, y).predict(X)
    print(np.array_equal(one, two), np.array_equal(one, mapped))
"""


class _MovedRows:
    """A function that records the numbers of rows of moved arrays."""

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, choice: Any, array: Any) -> Any:
        if array is not None and np.ndim(array) == 2 and array.shape[1] == X.shape[1]:
            self.largest = max(self.largest, len(array))
        return PUT(choice, array)


PUT = samples.put


@pytest.fixture
def own_memory(xp: Any, monkeypatch: pytest.MonkeyPatch) -> _MovedRows:
    """A backend whose device counts as one with its own memory, like a GPU."""
    sizes = _MovedRows()
    monkeypatch.setattr(type(xp.selection.backend), "memory", lambda *_: Memory(0, 1))
    for module in (streaming, samples):
        monkeypatch.setattr(module, "put", sizes)
    return sizes


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"shuffle": False, "solver": "sgd", "learning_rate": "invscaling"},
        {"early_stopping": True, "validation_fraction": 0.2, "n_restarts": 2},
    ],
    ids=str,
)
def test_a_table_that_is_moved_in_blocks_trains_as_a_whole(
    xp: Any, own_memory: _MovedRows, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    streamed = _fit(X, WEIGHTS, **options)
    proba = streamed.predict_proba(X)
    assert own_memory.largest == 50
    monkeypatch.setattr(samples, "BLOCK", 2**26)
    whole = _fit(X, WEIGHTS, **options)
    assert own_memory.largest == (184 if "early_stopping" in options else 230)
    _assert_same(xp, streamed, whole)
    close = xp.rounding(SAME_TRAINING)  # products of other numbers of rows
    np.testing.assert_allclose(proba, whole.predict_proba(X), rtol=0, atol=close)


def test_a_blocks_size_counts_the_bytes_after_conversion(tmp_path: Path) -> None:
    for dtype, rows in {"u1": 50, "f2": 50, "f4": 100, "f8": 50, ">f8": 50}.items():
        table = np.memmap(tmp_path / dtype, dtype, "w+", shape=(60, X.shape[1]))
        assert samples.rows_of_block(table) == rows
        assert samples.is_large(table) is (rows < 60)


def test_a_mapped_table_without_columns_is_an_error(tmp_path: Path) -> None:
    for rows in (230, 1000):
        table = np.memmap(tmp_path / "table", np.float64, "w+", shape=(rows,))
        with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
            bx.MLPClassifier(5).fit(table, np.zeros(rows))


def test_rows_that_are_moved_by_another_thread_arrive(xp: Any) -> None:
    home, device = xp.selection.backend, xp.selection.device
    rows = np.arange(2.0**18, dtype=np.float32).reshape(512, -1)
    with home.background_copies(device):
        moved = home.from_host(rows, device=device)
    np.testing.assert_array_equal(home.to_host(moved + moved), rows + rows)


def test_partial_fit_and_lbfgs_accept_a_large_table(xp: Any, large: tuple[Any, np.ndarray]) -> None:
    table, held = large
    options = {"hidden_layer_sizes": 5, "shuffle": False, "batch_size": 20, "random_state": 0}
    models = [bx.MLPClassifier(**options) for _ in range(2)]
    for model, rows in zip(models, (table, held), strict=True):
        model.partial_fit(rows, Y, classes=[0, 1, 2]).partial_fit(rows, Y)
    _assert_same(xp, *models)
    assert _fit(table, solver="lbfgs", max_iter=60, tol=1e-3).score(held, Y) > 0.7


@pytest.mark.usefixtures("nothing_chosen")
def test_every_update_has_its_own_dropout_masks(
    large: tuple[Any, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, fold_in = [], step.fold_in
    noted = lambda key, number: drawn.append((int(key), int(number))) or fold_in(key, number)  # noqa: E731
    monkeypatch.setattr(step, "fold_in", noted)
    model = _fit(large[0], dropout=0.1, max_iter=2, backend="numpy")
    assert len(drawn) == len(set(drawn)) == model._optimizer_state.step


def test_ctrl_c_keeps_the_weights_of_a_large_tables_training(large: tuple[Any, np.ndarray]) -> None:
    def pressing(at: int, until: float) -> Any:
        def rate(step: int) -> float:
            if step == at:
                signal.raise_signal(signal.SIGINT)
            return 0.05 if step < until else 0.0

        return rate

    # An epoch has 6 blocks of at most 2 batches; Ctrl-C comes in block 4 of the third epoch.
    options = {"solver": "sgd", "momentum": 0.0}
    model = bx.MLPClassifier(5, **options, batch_size=20, random_state=0)
    model.set_params(learning_rate=pressing(30, np.inf))
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model.fit(large[0], Y)
    taken = model._optimizer_state.step
    assert model.n_iter_ == 2
    assert taken in (31, 32)
    same = _fit(large[0], **options, learning_rate=pressing(-1, taken), max_iter=3)
    np.testing.assert_array_equal(model.coefs_[0], same.coefs_[0])


def test_a_value_that_is_no_number_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    table = np.memmap(tmp_path / "table", np.float64, "w+", shape=X.shape)
    table[:] = X
    table[200, 3] = np.nan
    with pytest.raises(ValueError, match="Input contains NaN"):
        _fit(table)


PROGRAM = """
import resource, sys, warnings
import numpy as np
import backprop_xp as bx
warnings.simplefilter("ignore")
rows = int(sys.argv[2])
table = np.memmap(sys.argv[1], np.float32, "r", shape=(rows, 500))
y = np.arange(rows) % 2
bx.MLPClassifier(4, max_iter=1).fit(np.zeros((2, 500), np.float32), [0, 1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
options = {"max_iter": 1, "batch_size": 500, "early_stopping": True, "validation_fraction": 0.01}
bx.MLPClassifier(4, **options).fit(table, y).predict(table)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.once
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere pages of a file are not let go")
@pytest.mark.thorough
def test_a_table_of_a_gigabyte_takes_a_few_hundred_megabytes(tmp_path: Path) -> None:
    rows, path = 500_000, tmp_path / "table"
    with path.open("wb") as file:
        file.truncate(rows * 500 * 4)  # zeros, which need no space on the disk
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), str(rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) < 500.0


def test_a_block_is_in_c_order() -> None:
    """Rows of another order would be summed in another order than in a block of some indices."""
    for x in (scipy.sparse.csc_array(X), scipy.sparse.csr_array(X)):
        rows = samples.rows_at(x, slice(0, 7))
        assert rows.flags.c_contiguous
        np.testing.assert_array_equal(rows, X[:7])
