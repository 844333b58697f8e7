"""The verdicts of gradient checkers on right and wrong gradients, as two tables.

The first table has planted mistakes in the gradient of one function, by size. The second table has
the hand-written gradients of ``tests/wild`` with one result. Every checker uses its own defaults.
SciPy and numdifftools return numbers.
"""

import itertools
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx

RIGHT, UNDECIDED, WRONG = "right", "undecided", "wrong"
Change = Callable[[np.ndarray], np.ndarray]


class Gradient(NamedTuple):
    """A function of NumPy arrays, its right or wrong gradient, and a point."""

    value: Callable[..., Any]
    gradient: Callable[..., np.ndarray]
    point: np.ndarray


# ---- checkers: each returns a verdict, or the difference of the two gradients


def ours(one: Gradient, method: str, seed: int = 0) -> str:
    report = bx.check_gradient(*one, method=method, seed=seed)
    return {"fail": WRONG, "inconclusive": UNDECIDED}.get(report.verdict, RIGHT)


def torch_gradcheck(one: Gradient, *, fast_mode: bool = False) -> str:
    torch: Any = import_module("torch")

    class Claimed(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, p: Any) -> Any:
            return torch.tensor(float(one.value(p.detach().numpy().copy())), dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            return upstream * torch.tensor(one.gradient(one.point), dtype=torch.float64)

    point = torch.tensor(one.point, dtype=torch.float64, requires_grad=True)
    is_right = torch.autograd.gradcheck(
        Claimed.apply, (point,), fast_mode=fast_mode, raise_exception=False
    )
    return RIGHT if is_right else WRONG


def jax_check_grads(one: Gradient, value: Callable[[Any, Any], Any], dtype: str) -> str:
    """Return JAX's verdict on ``value(xp, point)``, the same function for its arrays."""
    jax: Any = import_module("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", dtype == "float64")
    try:
        gradient = jax.numpy.asarray(one.gradient(one.point), dtype)
        claimed = jax.custom_vjp(lambda p: value(jax.numpy, p))
        claimed.defvjp(lambda p: (claimed(p), None), lambda _, upstream: (upstream * gradient,))
        check_grads = import_module("jax.test_util").check_grads
        check_grads(claimed, (jax.numpy.asarray(one.point, dtype),), order=1, modes=["rev"])
    except AssertionError:
        return WRONG
    finally:
        jax.config.update("jax_enable_x64", before)
    return RIGHT


def scipy_check_grad(one: Gradient) -> float:
    shape = one.point.shape
    return float(
        import_module("scipy.optimize").check_grad(
            lambda p: one.value(p.reshape(shape)),
            lambda p: one.gradient(p.reshape(shape)).reshape(-1),
            one.point.reshape(-1),
        )
    )


def numdifftools(one: Gradient) -> float:
    numeric = import_module("numdifftools").Gradient(one.value)(one.point)
    return float(np.linalg.norm(numeric - one.gradient(one.point)))


# ---- mistakes planted in the gradient of the mean of log(cosh(x @ weights - y)), by size

ROWS, SEEDS, WIDTHS = 32, 20, (8, 64, 256)
PLANTED: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
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


class Planted(NamedTuple):
    """x and y ``(rows, n)``, weights and their gradient ``(n, n)``, and the seed that drew them."""

    x: np.ndarray
    y: np.ndarray
    weights: np.ndarray
    gradient: np.ndarray
    seed: int

    def value(self, xp: Any, weights: Any) -> Any:
        x, y = (xp.asarray(array, dtype=weights.dtype) for array in (self.x, self.y))
        return xp.mean(xp.log(xp.cosh(x @ weights - y)))

    def in_precision(self, dtype: str) -> Gradient:
        gradient = self.gradient.astype(dtype)
        return Gradient(lambda w: self.value(np, w), lambda _: gradient, self.weights.astype(dtype))


def draw(n: int, mistake: str, seed: int) -> Planted:
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(2, ROWS, n))
    weights = generator.normal(size=(n, n)) / np.sqrt(n)
    gradient = x.T @ np.tanh(x @ weights - y) / y.size
    return Planted(x, y, weights, PLANTED[mistake](gradient, generator), seed)


def of_jax(p: Planted, dtype: str) -> str:
    return jax_check_grads(p.in_precision(dtype), p.value, dtype)


def directional(p: Planted, dtype: str) -> str:
    return ours(p.in_precision(dtype), "directional", p.seed)


class Column(NamedTuple):
    """A checker, the library it needs, and the largest n at which it takes less than a minute."""

    name: str
    library: str
    largest: int
    check: Callable[[Planted], str | float]


COLUMNS = (
    Column("directional", "numpy", 256, lambda p: directional(p, "float64")),
    Column("directional, float32", "numpy", 256, lambda p: directional(p, "float32")),
    Column(
        "PyTorch, fast mode",
        "torch",
        256,
        lambda p: torch_gradcheck(p.in_precision("float64"), fast_mode=True),
    ),
    Column("PyTorch, slow mode", "torch", 64, lambda p: torch_gradcheck(p.in_precision("float64"))),
    Column("JAX", "jax", 256, lambda p: of_jax(p, "float64")),
    Column("JAX, float32", "jax", 256, lambda p: of_jax(p, "float32")),
    Column("SciPy's number", "scipy", 64, lambda p: scipy_check_grad(p.in_precision("float64"))),
)


def cell(column: Column, n: int, mistake: str) -> str:
    """Return the number of rejected gradients, or the median of a checker's numbers."""
    if n > column.largest:
        return ""
    answers = [column.check(draw(n, mistake, seed)) for seed in range(SEEDS)]
    numbers = [answer for answer in answers if isinstance(answer, float)]
    if numbers:
        return f"{statistics.median(numbers):.1e}"
    return str(sum(answer != RIGHT for answer in answers))


def test_checkers_on_planted_mistakes(
    benchmark: BenchmarkFixture, show: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("torch"):
        # The fast mode reads every entry to write its error message: 20 seconds at n = 256.
        module = import_module("torch.autograd.gradcheck")
        monkeypatch.setattr(module, "_run_slow_mode_and_get_error", lambda *_: "", raising=False)
    columns = [column for column in COLUMNS if find_spec(column.library)]

    def rows() -> list[str]:
        rows = [
            ["n", "mistake", *(column.name for column in columns)],
            ["---"] * (2 + len(columns)),
        ]
        for n, mistake in itertools.product(WIDTHS, PLANTED):
            rows.append([str(n), mistake, *(cell(column, n, mistake) for column in columns)])
        return [f"| {' | '.join(row)} |" for row in rows]

    lines = benchmark.pedantic(rows, rounds=1)
    show(f"rejected in how many of {SEEDS} runs:\n" + "\n".join(lines))


# ---- gradients of released libraries

THRESHOLD = 1e-5  # of the norm: a larger difference counts as a rejection
MOST = 100  # entries: numdifftools needs about thirty evaluations of each
KINDS = ("right", "right, at an optimum", "planted", "released")  # the last two are mistakes
MISTAKES: tuple[Change, ...] = (
    lambda g: 1.1 * g,
    lambda g: -g,
    lambda g: 0.0 * g,
    lambda g: np.where(np.arange(g.size) == np.argmax(np.abs(g)), 1.05 * g, g),
)


def gradients() -> Iterator[tuple[str, Gradient]]:
    """Yield gradients with one result, and their kind; leave out mistakes without an effect."""
    for pair in import_module("tests.wild.pairs").all_pairs():
        case = pair.call()
        for label, point in case.points.items():
            verdict = case.expected.get(label, "").partition(":")[0]
            is_other = case.entrance is not bx.check_gradient or point.size > MOST
            if is_other or verdict in ("fail", "kink"):
                continue
            one = as_functions_of_a_vector(case, point)
            if case.wrong and verdict != "pass":
                yield KINDS[3], one
                continue
            yield KINDS[label == "optimum"], one
            here = one.gradient(one.point)
            for change in () if case.wrong or label == "optimum" else MISTAKES:
                if not np.array_equal(change(here), here):
                    yield KINDS[2], one._replace(gradient=after(one.gradient, change))


def after(gradient: Callable[..., Any], change: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p: change(gradient(p))


def as_functions_of_a_vector(case: Any, point: np.ndarray) -> Gradient:
    f, shape, args, is_both = case.value, point.shape, case.args, case.gradient is True

    def value(p: np.ndarray) -> Any:
        return f(p.reshape(shape), *args)[0] if is_both else f(p.reshape(shape), *args)

    def gradient(p: np.ndarray) -> np.ndarray:
        p = p.reshape(shape)
        return np.ravel(f(p, *args)[1] if is_both else case.gradient(p, *args))

    return Gradient(value, gradient, point.ravel())


CHECKERS: dict[str, tuple[str, Callable[[Gradient], str | float]]] = {
    "`check_gradient`, auto": ("numpy", lambda one: ours(one, "auto")),
    "`check_gradient`, directional": ("numpy", lambda one: ours(one, "directional")),
    "SciPy's `check_grad`": ("scipy", scipy_check_grad),
    "`numdifftools.Gradient`": ("numdifftools", numdifftools),
    "PyTorch's `gradcheck`": ("torch", torch_gradcheck),
}


def row(name: str, check: Callable[..., str | float], cases: list[tuple[str, Gradient]]) -> str:
    """Return a row of the table: a checker's wrong and undecided verdicts, and its cost."""
    found, costs = Counter[tuple[str, str]](), []
    for kind, one in cases:
        calls: list[np.ndarray] = []
        counted = one._replace(value=after(one.value, lambda v, calls=calls: calls.append(v) or v))
        start = time.perf_counter()
        answer = check(counted)
        if kind in KINDS[:2]:
            costs.append((len(calls), 1e3 * (time.perf_counter() - start)))
        if isinstance(answer, float):
            is_right = answer <= THRESHOLD * np.linalg.norm(one.gradient(one.point))
            answer = RIGHT if is_right else WRONG
        found[kind, answer] += 1
    evaluations, milliseconds = map(statistics.median, zip(*costs, strict=True))
    bad = dict(zip(KINDS, (WRONG, WRONG, RIGHT, RIGHT), strict=True))
    cells = [f"{found[kind, bad[kind]]}, {found[kind, UNDECIDED]}" for kind in KINDS]
    return f"| {name} | {' | '.join(cells)} | {evaluations:.0f} | {milliseconds:.1f} ms |"


@pytest.mark.filterwarnings("ignore")  # the libraries' own, at steps too large for them
def test_checkers_on_released_libraries(
    benchmark: BenchmarkFixture, show: Callable[[str], None]
) -> None:
    for library in ("sklearn", "statsmodels", "astropy"):
        pytest.importorskip(library, reason="the gradients come from there")
    checkers = {name: check for name, (lib, check) in CHECKERS.items() if find_spec(lib)}
    cases = list(gradients())
    lines = benchmark.pedantic(lambda: [row(*c, cases) for c in checkers.items()], rounds=1)
    count = Counter(kind for kind, _ in cases)
    heads = " | ".join(f"{kind} ({count[kind]})" for kind in KINDS)
    head = f"called otherwise, undecided:\n| checker | {heads} | evaluations | time |"
    show("\n".join([head, "|---" * 7 + "|", *lines]))
