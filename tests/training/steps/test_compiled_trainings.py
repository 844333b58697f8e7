"""Trainings on NumPy with compiled loops and without: the same to rounding, and when they load.

Specifies ``compilation``.
"""

import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import TrainingTable
from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.backends.replacements import qualified_name
from backprop_xp.files import container
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.layers.core import normalized_back
from backprop_xp.training.steps import gradient_monitor
from tests.helpers import python, thorough
from tests.user_layers import Doubled, Factors, Gated

pytest.importorskip("numba", reason="the extra fast is not installed")

# Nine updates, each of which adds a few roundings to theta and to the losses.
ROUNDINGS = 50
# Each of forty updates passes on the roundings of those before it.
SAME_AFTER_40 = 1e-9
ROWS, BATCH, EPOCHS = 11, 4, 3  # three updates an epoch, the last of three rows

generator = np.random.default_rng(29)
X = generator.normal(size=(ROWS, 4))
X[:, :2] = generator.integers(0, 3, (ROWS, 2))  # two columns of codes
Y = generator.dirichlet(np.ones(3), ROWS)
WEIGHT = generator.uniform(0.5, 2.0, ROWS)
VALIDATION = (X[:5], Y[:5], WEIGHT[:5])


CUBE = bx.Activation(lambda z: z**3, lambda g, z, a: 3.0 * z**2 * g)
SQUARE = bx.losses.over_outputs(lambda o, t: ((o - t) ** 2, 2.0 * (o - t)))
BLOCK = bx.Residual(bx.Dense(5, 3, "tanh"), bx.Dropout(0.4), bx.Dense(3, 5))
CODES = bx.Columns(bx.Embedding([3, 3], 2), bx.Dense(2, 3, "tanh"))

NETWORKS = {
    **{name: bx.mlp([4, 6, 3], hidden=name) for name in ACTIVATIONS},
    "sigmoid output": bx.mlp([4, 300, 3], hidden="tanh", output="sigmoid"),
    "layer norm": bx.mlp([4, 6, 6, 3], layer_norm=True, loss="categorical_cross_entropy"),
    "dropout": bx.mlp([4, 6, 3], dropout=0.3, loss="binary_cross_entropy"),
    "residual": bx.Network(
        [bx.Dense(4, 5), BLOCK, bx.Activate("sigmoid"), bx.Dense(5, 3)], "huber"
    ),
    "chains": bx.Network(
        [bx.Chain(bx.Dense(4, 5, "tanh"), bx.Dropout(0.4)), Gated(bx.Dense(5, 5)), bx.Dense(5, 3)],
        "huber",
    ),
    "columns": bx.Network([CODES, bx.Dense(7, 3)], "mean_squared_error"),
    "numbers": bx.Network([bx.NumericEmbedding(4, 3), bx.Dense(12, 3)], "mean_squared_error"),
    "own layer": bx.Network(
        [Factors(4), Doubled(4, 5, "tanh"), bx.Dense(5, 3)], "half_squared_error"
    ),
    "own activation": bx.mlp([4, 6, 3], hidden=CUBE),
    "own loss": bx.mlp([4, 6, 3], hidden="tanh", loss=SQUARE),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "sample weights": {"sample_weight": WEIGHT},
    "l2": {"l2": 0.1, "clip": 0.1},
    "accumulate": {"batch_size": 2, "accumulate": 2, "l2_of_sum": 0.1},
    "validation": {"validation": VALIDATION, "metrics": {"rmse": bx.metrics.rmse}},
    "average": {"average": bx.EMA(0.5), "augment": lambda x, y, w, seed: (x + seed % 3, y)},
    "schedule": {"optimizer": bx.Nadam(bx.schedules.cosine(0.05, 9))},
    "stopping": {"early_stopping": bx.EarlyStopping(1), "validation": VALIDATION[:2]},
}
STACKED = {
    "a stack": {"sample_weight": generator.uniform(size=(5, ROWS))},
    "rates": {"optimizer": bx.AdamW(np.linspace(0.01, 0.1, 5)[:, None])},
    "own seeds": {"seed": range(5), "l2": np.linspace(0.0, 0.1, 5)},
    "two axes": {"stack": (2, 3)},
}


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bx.FitResult]:
    """A short training with a value of BACKPROP_XP_COMPILE."""

    def fit(
        setting: str, network: bx.Network, x: Any = X, y: Any = Y, **options: Any
    ) -> bx.FitResult:
        monkeypatch.setenv("BACKPROP_XP_COMPILE", setting)
        stack, dtype = options.pop("stack", ()), options.pop("dtype", "float64")
        theta = network.initialize(seed=0, stack=stack, backend="numpy", dtype=dtype)
        common = {"optimizer": bx.Adam(0.05), "epochs": EPOCHS, "seed": 1}
        given = {} if y is None else {"batch_size": BATCH}
        return bx.fit(network, options.pop("theta", theta), x, y, **{**common, **given, **options})

    return fit


def assert_same(one: bx.FitResult, other: bx.FitResult) -> None:
    """Assert that two results are equal to rounding."""
    close = ROUNDINGS * np.finfo(one.theta.dtype).eps
    assert (one.epochs, one.theta.dtype) == (other.epochs, other.theta.dtype)
    assert one.history.keys() == other.history.keys()
    for name, values in one.history.items():
        if not name.startswith("gradient"):  # rounding alone
            np.testing.assert_allclose(values, other.history[name], rtol=close)
    np.testing.assert_allclose(one.theta, other.theta, rtol=close, atol=close)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        # Numba compiles each loop again for float32: by default those of one network.
        (name, dtype) if dtype == "float64" or name == "dropout" else thorough(name, dtype)
        for name in NETWORKS
        for dtype in ("float32", "float64")
    ],
)
def test_every_kind_of_network_trains_the_same(train: Any, name: str, dtype: str) -> None:
    x, y = X.astype(dtype), Y.astype(dtype)
    results = [train(setting, NETWORKS[name], x, y, dtype=dtype) for setting in "01"]
    assert_same(*results)
    assert results[0].history["loss"][0] != results[0].history["loss"][-1]


def test_a_copy_of_a_network_is_compiled_too() -> None:
    """A network that another process gets has equal functions, not the tables' objects."""
    network = bx.mlp([4, 6, 3], hidden="tanh", loss="categorical_cross_entropy")
    replacements = compilation.replacements_for(np.ones(1), 1, 10**15)
    copy = pickle.loads(pickle.dumps(network))  # noqa: S301
    assert TrainingTable(replacements, np.ones(1), copy.layers).layers.keys() == {
        id(layer) for layer in copy.layers
    }
    name, (o, t) = qualified_name(copy.loss_function.value.rule), np.ones((2, 4, 3))
    assert replacements[name](o, t, 1.0) is not NotImplemented


@pytest.mark.parametrize("name", [*OPTIONS, *STACKED])
def test_every_option_trains_the_same(train: Any, name: str) -> None:
    options = {**OPTIONS, **{name: {"stack": (5,), **each} for name, each in STACKED.items()}}
    network = NETWORKS["dropout"]
    assert_same(*[train(setting, network, **options[name]) for setting in "01"])


def test_any_memory_of_the_data_trains_the_same(train: Any, tmp_path: Path) -> None:
    network, wanted = NETWORKS["dropout"], {}
    for size in (BATCH, None):
        wanted[size] = train("0", network, batch_size=size)
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    frozen, gaps = Y.copy(), np.zeros((2 * ROWS, 8))
    frozen.flags.writeable, gaps[::2, ::2] = False, X
    cases = [(mapped, Y), (np.asfortranarray(X), np.asfortranarray(Y)), (gaps[::2, ::2], frozen)]
    for x, y in cases:
        for size, result in wanted.items():
            assert_same(result, train("1", network, x, y, batch_size=size))
    # A theta whose parts are not side by side.
    theta = np.asfortranarray(network.initialize(seed=0, stack=(3,), backend="numpy"))
    for optimizer in (bx.SGD(0.1), bx.Lion(0.01)):
        assert_same(*[train(one, network, theta=theta, optimizer=optimizer) for one in "01"])


def test_batches_of_the_caller_train_the_same(train: Any) -> None:
    def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for start in (0, 4, 8):
            yield X[start : start + 4].astype("float32"), Y[start : start + 4]

    assert_same(*[train(one, NETWORKS["dropout"], batches, None, dtype="float32") for one in "01"])


@pytest.mark.parametrize("then", ["10", "01", "11"])
def test_a_training_is_resumed_with_or_without_loops_and_its_file_names_numba(
    train: Any, then: str, tmp_path: Path
) -> None:
    pytest.importorskip("safetensors")
    network, path, first, second = NETWORKS["dropout"], tmp_path / "model", *then
    options = {"optimizer": bx.Adam(bx.schedules.cosine(0.05, 9)), "validation": VALIDATION}
    whole = train(first, network, **options)
    train(first, network, epochs=2, checkpoint=path, **options)
    header, _ = container.decode(container.read(path))
    assert ("numba" in header["versions"]) == (first == "1")
    state = bx.load(path, backend="numpy").state
    resumed = train(second, network, start=state, **options)
    assert_same(whole, resumed)
    if first == second:
        np.testing.assert_array_equal(whole.theta, resumed.theta)


def test_the_record_of_a_tables_training_names_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("sklearn")
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "1")
    table = pandas.DataFrame({"a": np.arange(20.0), "y": ["no", "yes"] * 10})
    model = bx.TabularClassifier(max_iter=1).fit(table[["a"]], table["y"])
    assert model.model_.record["versions"].keys() == {
        "python",
        "numpy",
        "pandas",
        "scikit-learn",
        "numba",
    }


def test_two_threads_train_to_the_bits_of_one(train: Any) -> None:
    """A loop runs without the interpreter's lock: a buffer that two share would show."""
    network, ready = bx.mlp([4, 200, 3], layer_norm=True, dropout=0.2), threading.Barrier(2)
    x, y = np.tile(X, (20, 1)), np.tile(Y, (20, 1))

    def run(scale: float) -> bx.FitResult:
        return train("1", network, scale * x, y, batch_size=None, epochs=40)

    def run_beside(scale: float) -> bx.FitResult:
        ready.wait()
        return run(scale)

    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run_beside, (1.0, 2.0)))
    for scale, result in zip((1.0, 2.0), together, strict=True):
        np.testing.assert_array_equal(result.theta, run(scale).theta)


def test_a_gradient_check_within_a_compiled_training_checks_its_loops(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = NETWORKS["layer norm"]

    def verdicts() -> list[str]:
        result = train("1", network, check_every=2)
        return [str(verdict) for verdict in result.history["gradient_verdict"]]

    assert verdicts() == ["pass"] * 5
    # The full check of a gradient that one difference leaves in doubt.
    monkeypatch.setitem(gradient_monitor._NEAR, 8, 0.0)
    assert verdicts() == ["pass"] * 5
    # Outside a training by the complex step: complex numbers have no loops.
    report = bx.check_network(network, network.initialize(seed=0, backend="numpy"), X, Y)
    assert (report.verdict, report.method) == ("pass", "complex_step")
    replacements = compilation.replacements_for(np.ones(1), 1, 1)
    name = qualified_name(normalized_back)
    monkeypatch.setitem(replacements, name, lambda *arguments: 2.0 * arguments[0])
    with pytest.raises(bx.GradientCheckError):
        verdicts()


# ---- when the loops are loaded

PROGRAM = """
import os, sys
import numpy as np, backprop_xp as bx
from backprop_xp.backends.libraries.numpy import compilation

X, Y = np.ones((4, 2)), np.ones((4, 1))

def train(least=5.0, x=X, y=Y):
    compilation._LEAST_SECONDS = least
    network = bx.mlp([2, 3, 1])
    theta = network.initialize(seed=0, backend="numpy")
    bx.fit(network, theta, x, y, optimizer=bx.SGD(0.1), epochs=2)
    print("numba" in sys.modules)

"""


@pytest.mark.parametrize(
    ("setting", "calls", "expected"),
    [
        (
            "",
            "train(); train(x=lambda epoch: [(X, Y)], y=None); train(least=0.0)",
            "False False True",
        ),
        ("0", "train(least=0.0); os.environ['BACKPROP_XP_COMPILE'] = ' 1 '; train()", "False True"),
    ],
)
def test_numba_is_imported_by_the_variable_or_for_a_long_training(
    setting: str, calls: str, expected: str
) -> None:
    done = python(PROGRAM + calls, BACKPROP_XP_COMPILE=setting)
    assert (done.stderr, done.stdout.split()) == ("", expected.split())


@pytest.mark.parametrize("check_every", [None, 20])
def test_a_source_of_many_batches_is_compiled_when_it_has_lasted_long(
    train: Any, monkeypatch: pytest.MonkeyPatch, check_every: int | None
) -> None:
    """The number of batches is not known before; a training is taken to last as long again."""
    network, count = NETWORKS["dropout"], 40
    loaded: list[bool] = []

    def batches(epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(count):
            loaded.append(compilation.KERNELS in sys.modules)
            yield X[i % 8 : i % 8 + 4], Y[i % 8 : i % 8 + 4]

    options = {"epochs": 1, "check_every": check_every, "validation": VALIDATION}
    plain = train("0", network, batches, None, **options)
    # By the eighth of 40 updates, 16 are expected.
    seconds = 15.5 * compilation._SECONDS_PER_STEP
    monkeypatch.setattr(compilation, "_LEAST_SECONDS", seconds)
    monkeypatch.delitem(sys.modules, compilation.KERNELS, raising=False)
    loaded.clear()
    found = train("", network, batches, None, **options)
    assert loaded[:8] == [False] * 8
    assert loaded[-1]
    assert not np.array_equal(found.theta, plain.theta)  # loops round differently
    np.testing.assert_allclose(found.theta, plain.theta, rtol=SAME_AFTER_40)
    for name in ("loss", "validation_loss"):
        np.testing.assert_allclose(found.history[name], plain.history[name], rtol=SAME_AFTER_40)
    assert (found.history.get("gradient_verdict", np.array("pass")) == "pass").all()


def test_a_training_of_known_length_decides_once(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After 32 of 40 steps 64 would be expected, were their number not known."""
    monkeypatch.setattr(compilation, "_LEAST_SECONDS", 50 * compilation._SECONDS_PER_STEP)
    monkeypatch.delitem(sys.modules, compilation.KERNELS, raising=False)
    callbacks = [lambda state: None]  # each epoch is a call of its own
    train("", NETWORKS["dropout"], X, Y, epochs=40, batch_size=None, callbacks=callbacks)
    assert compilation.KERNELS not in sys.modules


def test_a_training_has_the_same_bits_after_any_other_training(
    train: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops round differently: which are used must not depend on what was loaded before."""
    network = NETWORKS["sigmoid output"]
    by_numpy, by_loops = (train(setting, network).theta for setting in "01")
    assert (by_numpy != by_loops).any()  # else the test could not fail
    assert compilation.KERNELS in sys.modules
    np.testing.assert_array_equal(train("", network).theta, by_numpy)
    monkeypatch.setattr(compilation, "_LEAST_SECONDS", 0.0)
    np.testing.assert_array_equal(train("", network).theta, by_loops)


def test_complex_numbers_have_no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "1")
    assert compilation.replacements_for(np.ones(3), 10, 1000) is not None
    assert compilation.replacements_for(np.ones(3) + 0.0j, 10, 10**12) is None


def test_a_file_names_numba_by_the_variable_not_by_what_the_process_loaded() -> None:
    program = "from backprop_xp.backends.libraries.numpy import compilation\n"
    program += "import sys; print(*compilation.versions(), 'numba' in sys.modules)"
    for setting, expected in {"": "numba False", "1": "numba False", "0": "False"}.items():
        done = python(program, BACKPROP_XP_COMPILE=setting)
        assert (done.stderr, done.stdout.strip()) == ("", expected)


def test_another_value_of_the_variable_is_an_error(train: Any) -> None:
    for wrong in ("yes", "2", "true"):
        with pytest.raises(ValueError, match=f"BACKPROP_XP_COMPILE is '{wrong}', but 0 .* 1 "):
            train(wrong, NETWORKS["relu"])


def test_a_numba_that_compiles_nothing_has_no_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would run in Python, much slower than NumPy."""
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "")
    assert compilation.replacements_for(np.ones(3), 10, 10**12) is None
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "1")
    with pytest.raises(ImportError, match="=1 needs Numba: NUMBA_DISABLE_JIT=1 is set"):
        compilation.replacements_for(np.ones(3), 10, 1)


def test_without_numba_a_long_training_is_numpys_unless_the_variable_asks_for_loops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same holds for a Numba that refuses this NumPy: its import is an ImportError."""
    monkeypatch.delitem(sys.modules, compilation.KERNELS, raising=False)
    package = compilation.KERNELS.removesuffix(".kernels")
    for name in ("compilers", "dense_loops", "row_loops", "update_loops"):
        monkeypatch.delitem(sys.modules, f"{package}.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "")
    assert compilation.replacements_for(np.ones(3), 10, 10**12) is None
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "1")
    with pytest.raises(ImportError, match=r"=1 needs Numba: .*pip install 'numba>="):
        compilation.replacements_for(np.ones(3), 10, 1)
