"""The gradient check beside other people's: what every entry costs, and who notices a mistake.

The full check is of a [64, 100, 10] network by the complex step on NumPy in float64.
"""

import importlib
import statistics
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from benchmarks import tutorial

# A round takes a second.
ROUNDS = 11

SIZES = [64, 100, 10]
BATCH = 32
WHAT = "a gradient check of 64-100-10, every entry"


class Case(NamedTuple):
    """A network of 7,510 parameters, and what its loss is taken at."""

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def check(self) -> bx.GradientReport:
        """Check every entry, and return the numeric gradient too."""
        report = bx.check_network(*self, method="complex_step")
        assert report.passed
        assert report.numeric.shape == self.theta.shape
        return report


@pytest.fixture
def case() -> Case:
    generator = np.random.default_rng(0)
    network = bx.mlp(SIZES, hidden="sigmoid", output="sigmoid", loss="mean_squared_error")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    x, y = generator.normal(size=(BATCH, SIZES[0])), generator.uniform(size=(BATCH, SIZES[-1]))
    return Case(network, theta, x, y)


@pytest.fixture
def torch() -> Iterator[Any]:
    """PyTorch on one thread.

    On arrays as small as these a second one gains nothing, and on a busy machine loses much.
    """
    module = pytest.importorskip("torch", reason="the peer, PyTorch, is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def test_every_entry_beside_torch(compare: Callable[..., object], torch: Any, case: Case) -> None:
    layers = case.network.unpack(case.theta)
    parameters = [torch.tensor(p, requires_grad=True) for layer in layers for p in layer]
    x, y = torch.asarray(case.x), torch.asarray(case.y)

    def loss(weights_1: Any, bias_1: Any, weights_2: Any, bias_2: Any) -> Any:
        hidden = torch.sigmoid(x @ weights_1 + bias_1)
        return torch.mean((torch.sigmoid(hidden @ weights_2 + bias_2) - y) ** 2)

    assert loss(*parameters).item() == pytest.approx(float(case.network.loss(*case[1:])))
    compare(
        case.check,
        lambda: torch.autograd.gradcheck(loss, parameters),
        "torch.autograd.gradcheck",
        what=WHAT,
        aim=1 / 8,
        rounds=ROUNDS,
    )


def test_every_entry_beside_the_tutorial(compare: Callable[..., object], case: Case) -> None:
    thetas = tutorial.start(SIZES, seed=0)
    compare(
        case.check,
        lambda: tutorial.numeric_gradient(thetas, case.x, case.y),
        "tutorial's loop",
        what=WHAT,
        aim=1 / 4,
        rounds=ROUNDS,
    )


# ---- who notices a wrong gradient: no timing, but a table

SEEDS = 20
WIDTHS = (8, 64, 256)


class Problem(NamedTuple):
    """The mean of ``log(cosh(x @ weights - y))`` over rows and columns, and its gradient."""

    x: np.ndarray  # (rows, n)
    y: np.ndarray  # (rows, n)
    weights: np.ndarray  # (n, n)
    gradient: np.ndarray  # (n, n), as planted: right or wrong
    seed: int


MISTAKES: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "none": lambda g, _: g,
    "zero": lambda g, _: 0.0 * g,
    "sign flipped": lambda g, _: -g,
    "factor 2": lambda g, _: 2.0 * g,
    "transposed": lambda g, _: g.T.copy(),
    "one element zeroed": lambda g, generator: np.where(
        np.arange(g.size).reshape(g.shape) == generator.integers(g.size), 0.0, g
    ),
    "0.1 % too large": lambda g, _: 1.001 * g,
}


def draw(n: int, mistake: str, seed: int) -> Problem:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(2, BATCH, n))
    weights = generator.normal(size=(n, n)) / np.sqrt(n)
    gradient = x.T @ np.tanh(x @ weights - y) / y.size
    return Problem(x, y, weights, MISTAKES[mistake](gradient, generator), seed)


def in_precision(problem: Problem, dtype: str) -> Problem:
    x, y, weights, gradient = (array.astype(dtype) for array in problem[:4])
    return Problem(x, y, weights, gradient, problem.seed)


def value(xp: Any, x: Any, y: Any, weights: Any) -> Any:
    return xp.mean(xp.log(xp.cosh(x @ weights - y)))


# Each says whether a checker, as it comes, rejects the planted gradient; SciPy says a number.


def directional(problem: Problem, dtype: str) -> bool:
    x, y, weights, gradient, seed = in_precision(problem, dtype)
    report = bx.check_gradient(
        lambda w: value(np, x, y, w), lambda _: gradient, weights, method="directional", seed=seed
    )
    return not report.passed


def torch_gradcheck(problem: Problem, fast_mode: bool) -> bool:
    torch = importlib.import_module("torch")
    x, y, weights, gradient = (torch.asarray(array) for array in problem[:4])

    class Planted(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, w: Any) -> Any:
            return value(torch, x, y, w)

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            return upstream * gradient

    return not torch.autograd.gradcheck(
        Planted.apply, weights.requires_grad_(), fast_mode=fast_mode, raise_exception=False
    )


def jax_check_grads(problem: Problem, dtype: str) -> bool:
    jax = importlib.import_module("jax")
    check_grads = importlib.import_module("jax.test_util").check_grads
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        x, y, weights, gradient = map(jax.numpy.asarray, in_precision(problem, dtype)[:4])
        planted = jax.custom_vjp(lambda w: value(jax.numpy, x, y, w))
        planted.defvjp(lambda w: (planted(w), None), lambda _, upstream: (upstream * gradient,))
        check_grads(planted, (weights,), order=1, modes=["rev"])
    except AssertionError:
        return True
    finally:
        jax.config.update("jax_enable_x64", before)
    return False


def scipy_check_grad(problem: Problem) -> float:
    check_grad = importlib.import_module("scipy.optimize").check_grad
    x, y, weights, gradient, _ = problem
    return float(
        check_grad(
            lambda w: value(np, x, y, w.reshape(weights.shape)),
            lambda _: gradient.reshape(-1),
            weights.reshape(-1),
        )
    )


class Checker(NamedTuple):
    """A column: the library it needs, and the largest n at which it takes no minutes."""

    name: str
    library: str
    largest: int
    check: Callable[[Problem], bool | float]


CHECKERS = (
    Checker("directional", "numpy", 256, lambda p: directional(p, "float64")),
    Checker("directional, float32", "numpy", 256, lambda p: directional(p, "float32")),
    Checker("PyTorch, fast mode", "torch", 256, lambda p: torch_gradcheck(p, True)),
    Checker("PyTorch, slow mode", "torch", 64, lambda p: torch_gradcheck(p, False)),
    Checker("JAX", "jax", 256, lambda p: jax_check_grads(p, "float64")),
    Checker("JAX, float32", "jax", 256, lambda p: jax_check_grads(p, "float32")),
    Checker("SciPy's number", "scipy", 64, scipy_check_grad),
)


def cell(checker: Checker, n: int, mistake: str) -> str:
    """Return in how many of the runs the gradient was rejected; of numbers, the median."""
    if n > checker.largest:
        return ""
    answers = [checker.check(draw(n, mistake, seed)) for seed in range(SEEDS)]
    if isinstance(answers[0], bool):
        return str(sum(answers))
    return f"{statistics.median(answers):.1e}"


def table(checkers: list[Checker]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| n | mistake | " + " | ".join(checker.name for checker in checkers) + " |"
    yield "|---|---|" + "---|" * len(checkers)
    for n in WIDTHS:
        for mistake in MISTAKES:
            cells = (cell(checker, n, mistake) for checker in checkers)
            yield f"| {n} | {mistake} | " + " | ".join(cells) + " |"


def test_who_notices_a_wrong_gradient(
    benchmark: BenchmarkFixture,
    show: Callable[[str], None],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if find_spec("torch"):
        request.getfixturevalue("torch")
        # The fast mode goes through every entry to word a rejection: 20 seconds at n = 256.
        module = importlib.import_module("torch.autograd.gradcheck")
        monkeypatch.setattr(module, "_run_slow_mode_and_get_error", lambda *_: "", raising=False)
    checkers = [checker for checker in CHECKERS if find_spec(checker.library)]
    lines = benchmark.pedantic(lambda: list(table(checkers)), rounds=1)
    show(f"rejected in how many of {SEEDS} runs:\n" + "\n".join(lines))
