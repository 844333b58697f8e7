"""The memory of a training on NumPy: its peak, its growth, and the evaluation in pieces.

Specifies ``memory``.
"""

import gc
import platform
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends.libraries.numpy.updates import PIECE
from tests.helpers import long, python, thorough

# Memory of the interpreter itself, such as its caches of small objects.
SLACK = 16 * 2**10
# The optimizers, and the number of arrays like theta in their states.
STATES = {
    "SGD": (bx.SGD(0.01), 0),
    "momentum": (bx.SGD(0.01, momentum=0.9, nesterov=True), 1),
    "RMSProp": (bx.RMSProp(), 1),
    "Adam": (bx.Adam(), 2),
    "AdamW": (bx.AdamW(), 2),
    "AMSGrad": (bx.Adam(amsgrad=True), 3),
    "Adagrad": (bx.Adagrad(), 1),
    "Nadam": (bx.Nadam(), 2),
    "Lion": (bx.Lion(), 1),
}
# Sums of thousands of terms, piece by piece.
PIECES = 1e-12


@pytest.fixture(scope="module")
def _frozen() -> None:
    """What other tests have imported would add a second to each collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def traced(_frozen: None) -> Iterator[None]:
    bx.fit(*_case([1, 1], 2), optimizer=bx.SGD(0.1), epochs=1)  # the first call imports modules
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def _peak(use: Callable[[], Any]) -> int:
    """Return the peak of the memory in use, minus the memory in use before."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    use()
    return tracemalloc.get_traced_memory()[1] - before


def _growth(use: Callable[[], Any], times: int) -> int:
    """Return the growth of the memory in use over some calls, after a few calls to warm up."""
    for _ in range(10):
        use()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(times):
        use()
    gc.collect()
    return tracemalloc.get_traced_memory()[0] - before


def _case(sizes: list[int], rows: int, **options: Any) -> tuple[Any, ...]:
    """Return a network, and theta, x and y on NumPy."""
    network, draw = bx.mlp(sizes, hidden="tanh", **options), np.random.default_rng(81).normal
    theta = network.initialize(backend="numpy", dtype="float64")
    return network, theta, draw(size=(rows, sizes[0])), draw(size=(rows, sizes[-1]))


# Clipping does not depend on the optimizer: each has it in turn by default.
CLIPPED = [
    case if (i + j) % 2 == 0 else thorough(*case)
    for i, name in enumerate(STATES)
    for j, case in enumerate(((name, None, 1), (name, 1.0, 4)))
]


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(("name", "clip", "gradients"), CLIPPED)
def test_a_step_holds_theta_its_gradient_the_state_and_few_activations(
    name: str, clip: float | None, gradients: int
) -> None:
    """Theta dominates the memory besides the data; clipping needs more arrays of its size."""
    sizes, batch = [200, 1000, 100], 32
    case, (optimizer, arrays) = _case(sizes, 3 * batch), STATES[name]
    options: dict[str, Any] = {"clip": clip, "batch_size": batch, "epochs": 2}
    begun: list[Any] = []
    size = case[1].nbytes
    bx.fit(*case, optimizer=optimizer, **options)  # the first training compiles, if one does
    start = _peak(lambda: begun.append(bx.train(*case, optimizer=optimizer, **options)))
    assert start <= (1 + 2 * arrays) * size + SLACK  # the initial state is copied
    # Theta and the state are in use already.
    peak = _peak(lambda: [*begun[0]])
    activations, taken = 8 * batch * sum(sizes[1:]), 8 * batch * (sizes[0] + sizes[-1])
    pieces = 3 * 8 * PIECE  # temporary arrays of a rule
    assert peak <= gradients * size + 2 * activations + taken + pieces + SLACK


FAULTS = """
import resource, numpy as np, backprop_xp as bx
network = bx.mlp([20, 128, 128, 1], hidden="silu")
theta = network.initialize(stack=(4,), backend="numpy", dtype="float32")
data = np.ones((1280, 20), np.float32), np.ones((1280, 1), np.float32)
for epochs in (1, 10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bx.fit(network, theta, *data, batch_size=128, epochs=epochs, optimizer="adamw")
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
FULL = """
import resource, numpy as np, backprop_xp as bx
network = bx.mlp([1, 10, 1], hidden="tanh")
theta, x = network.initialize(stack=(64,), backend="numpy"), np.linspace(-2.0, 2.0, 94)[:, None]
for epochs in (1, 1, 100):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bx.fit(network, theta, x, np.sin(3.0 * x), epochs=epochs, optimizer=bx.LevenbergMarquardt())
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's heap")
@pytest.mark.parametrize("training", [FAULTS, FULL], ids=["AdamW", "LevenbergMarquardt"])
def test_steps_use_the_memory_of_the_steps_before_them(training: str) -> None:
    """In a process that has freed small arrays only: else each step has hundreds of page faults."""
    child = python(training, BACKPROP_XP_COMPILE="0")
    assert child.returncode == 0, child.stderr
    assert int(child.stdout) < 100 * 20  # of 100 steps


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("name", "batch_size"),
    [("AdamW", 4), *(thorough(*case) for case in (("AdamW", None), ("momentum", 4)))],
)
def test_memory_does_not_grow_over_300_steps(name: str, batch_size: int | None) -> None:
    case = _case([3, 20, 2], 10, dropout=0.2)
    options: dict[str, Any] = {"batch_size": batch_size, "clip": 1.0, "validation": case[2:]}
    options["early_stopping"] = bx.EarlyStopping(1000)
    states = bx.train(*case, optimizer=STATES[name][0], epochs=1000, **options)
    # Three batches in an epoch.
    assert _growth(lambda: next(states), 300 if batch_size is None else 100) <= SLACK / 4


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("batch_size", [None, thorough(4)])
def test_memory_does_not_grow_over_30_fits(batch_size: int | None) -> None:
    case = _case([3, 20, 2], 10, dropout=0.2)
    options: dict[str, Any] = {"batch_size": batch_size, "metrics": {"rmse": bx.metrics.rmse}}

    def fit() -> None:
        begun = bx.fit(*case, optimizer=bx.Adam(), epochs=2, **options)
        bx.fit(*case, optimizer=bx.Adam(), epochs=4, start=begun, check_every=2, **options)

    assert _growth(fit, 30) <= SLACK


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    "options", [{}, {"class_weight": "balanced"}, {"validation": 0.02}], ids=str
)
def test_class_labels_become_one_hot_rows_a_batch_at_a_time(options: dict[str, Any]) -> None:
    rows, classes, batch = 2**12, 500, 2**5
    network, theta, x, _ = _case([2, 2, classes], rows, loss="categorical_cross_entropy")
    labels = np.arange(rows) % classes
    given = {"optimizer": bx.SGD(0.01), "epochs": 1, "batch_size": batch, **options}
    assert _peak(lambda: bx.fit(network, theta, x, labels, **given)) <= 8 * rows * classes / 4


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", ["validation", "early stopping", "metrics"])
def test_an_epochs_theta_is_evaluated_in_pieces_of_rows(kind: str) -> None:
    """The rows are the validation set, or the training rows; a batch has few of them."""
    width, rows = 64, 2**16
    network, theta, x, y = _case([2, width, 1], rows)
    options: dict[str, Any] = {"optimizer": bx.SGD(0.01), "epochs": 1, "batch_size": 2**12}
    few = network, theta, x[:100, :], y[:100, :]
    extra: dict[str, Any] = {
        "validation": {"validation": (x, y)},
        "early stopping": {"early_stopping": bx.EarlyStopping()},
        "metrics": {"metrics": {"rmse": bx.metrics.rmse}},
    }[kind]
    case = few if kind == "validation" else (network, theta, x, y)
    peak = _peak(lambda: bx.fit(*case, **extra, **options))
    whole = _peak(lambda: network.loss(theta, x, y))
    assert whole >= 8 * rows * width  # at least one activation of all rows
    assert peak <= whole / 4


@pytest.mark.parametrize("weighted", [*map(long, ["unweighted", "weighted"]), "weighted each"])
@pytest.mark.parametrize("stack", [long(()), (2,)])
def test_the_loss_of_pieces_equals_the_loss_of_all_rows(
    xp: Any, stack: tuple[int, ...], weighted: str
) -> None:
    """The pieces of one network have 4096 rows, of two networks 2048; the last one is smaller."""
    rows, draw = 2 * 4096 + 5, np.random.default_rng(82)
    network = bx.mlp([3, 4, 2], hidden="tanh", dropout=0.2, l2=0.3)
    theta = xp.initialize(network, stack=stack)
    x, y = (xp.asarray(draw.normal(size=(rows, n))) for n in (3, 2))
    weight: Any = None
    if weighted != "unweighted":
        shape = (*stack, rows) if weighted.endswith("each") else (rows,)
        weight = draw.uniform(0.0, 2.0, size=shape)
        weight[..., :4096] = 0.0  # the first piece has weight 0
        weight = xp.asarray(weight)
    few = xp.asarray(np.ones((4, 3))), xp.asarray(np.ones((4, 2)))
    options: dict[str, Any] = {
        "optimizer": bx.SGD(0.1),
        "epochs": 1,
        "metrics": {"rmse": bx.metrics.rmse},
        "early_stopping": bx.EarlyStopping(),
    }
    validation = (x, y) if weight is None else (x, y, weight)
    validated = bx.fit(network, theta, *few, validation=validation, **options)
    trained = bx.fit(network, theta, x, y, sample_weight=weight, batch_size=4096, **options)
    for result, score, l2 in (
        (validated, validated.history.get("validation_loss"), 0.0),
        (trained, trained.history["training_loss"], None),  # penalty included
    ):
        expected = xp.host(network.loss(result.theta, x, y, sample_weight=weight, l2=l2))
        np.testing.assert_allclose(score[0], expected, rtol=xp.rounding(PIECES))
        expected = xp.host(bx.metrics.rmse(network.predict(result.theta, x), y, weight))
        found = result.history["rmse"][0]
        np.testing.assert_allclose(found, expected, rtol=xp.rounding(PIECES))
