"""The checkers of four libraries on hand-written gradients of released libraries: a table.

Each checker, as it comes, judges the gradients of ``tests/wild`` that belong to one number: right
ones, with mistakes planted in them, and those that a library gets wrong itself. SciPy and
numdifftools return numbers: what is off by more than ``THRESHOLD`` of the norm is rejected.
"""

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

THRESHOLD = 1e-5
MOST = 100  # entries: numdifftools takes some thirty evaluations of each
RIGHT, UNDECIDED, WRONG = "right", "undecided", "wrong"
KINDS = ("right", "right, at an optimum", "planted", "released")  # the last two are mistakes


class Gradient(NamedTuple):
    """A value and a gradient, and a vector that both are functions of."""

    value: Callable[..., Any]
    gradient: Callable[..., np.ndarray]
    point: np.ndarray


MISTAKES: tuple[Callable[..., np.ndarray], ...] = (
    lambda g: 1.1 * g,
    lambda g: -g,
    lambda g: 0.0 * g,
    lambda g: np.where(np.arange(g.size) == np.argmax(np.abs(g)), 1.05 * g, g),
)


def gradients() -> Iterator[tuple[str, Gradient]]:
    """Yield gradients of one number, each after its kind; no mistakes that change nothing."""
    for pair in import_module("tests.wild.pairs").all_pairs():
        case = pair.call()
        for label, point in case.points.items():
            verdict = case.expected.get(label, "").partition(":")[0]
            if case.jacobian or point.size > MOST or verdict in ("fail", "kink"):
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


def ours(one: Gradient, method: str) -> str:
    report = bx.check_gradient(*one, method=method)
    return {"fail": WRONG, "inconclusive": UNDECIDED}.get(report.verdict, RIGHT)


def scipy_check_grad(one: Gradient) -> str:
    return by_norm(import_module("scipy.optimize").check_grad(*one), one)


def numdifftools(one: Gradient) -> str:
    numeric = import_module("numdifftools").Gradient(one.value)(one.point)
    return by_norm(float(np.linalg.norm(numeric - one.gradient(one.point))), one)


def by_norm(error: float, one: Gradient) -> str:
    return RIGHT if error <= THRESHOLD * np.linalg.norm(one.gradient(one.point)) else WRONG


def torch_gradcheck(one: Gradient) -> str:
    torch: Any = import_module("torch")

    class Claimed(torch.autograd.Function):  # type: ignore[misc, name-defined]
        @staticmethod
        def forward(ctx: Any, p: Any) -> Any:
            return torch.tensor(float(one.value(p.detach().numpy().copy())), dtype=torch.float64)

        @staticmethod
        def backward(ctx: Any, upstream: Any) -> Any:
            return upstream * torch.tensor(one.gradient(one.point), dtype=torch.float64)

    point = torch.tensor(one.point, dtype=torch.float64, requires_grad=True)
    is_right = torch.autograd.gradcheck(Claimed.apply, (point,), raise_exception=False)
    return RIGHT if is_right else WRONG


CHECKERS: dict[str, tuple[str, Callable[[Gradient], str]]] = {
    "`check_gradient`, auto": ("numpy", lambda one: ours(one, "auto")),
    "`check_gradient`, directional": ("numpy", lambda one: ours(one, "directional")),
    "SciPy's `check_grad`": ("scipy", scipy_check_grad),
    "`numdifftools.Gradient`": ("numdifftools", numdifftools),
    "PyTorch's `gradcheck`": ("torch", torch_gradcheck),
}


def row(name: str, check: Callable[[Gradient], str], cases: list[tuple[str, Gradient]]) -> str:
    """Return a line of the table: how often a checker is wrong, or undecided, and its cost."""
    found, costs = Counter[tuple[str, str]](), []
    for kind, one in cases:
        calls: list[np.ndarray] = []
        counted = one._replace(value=after(one.value, lambda v, calls=calls: calls.append(v) or v))
        start = time.perf_counter()
        found[kind, check(counted)] += 1
        if kind in KINDS[:2]:
            costs.append((len(calls), 1e3 * (time.perf_counter() - start)))
    evaluations, milliseconds = map(statistics.median, zip(*costs, strict=True))
    bad = dict(zip(KINDS, (WRONG, WRONG, RIGHT, RIGHT), strict=True))
    cells = [f"{found[kind, bad[kind]]}, {found[kind, UNDECIDED]}" for kind in KINDS]
    return f"| {name} | {' | '.join(cells)} | {evaluations:.0f} | {milliseconds:.1f} ms |"


@pytest.mark.filterwarnings("ignore")  # the libraries' own, at steps too long for them
def test_who_is_wrong_in_the_wild(benchmark: BenchmarkFixture, show: Callable[[str], None]) -> None:
    for library in ("sklearn", "statsmodels", "astropy"):
        pytest.importorskip(library, reason="the gradients come from there")
    checkers = {name: check for name, (lib, check) in CHECKERS.items() if find_spec(lib)}
    cases = list(gradients())
    lines = benchmark.pedantic(lambda: [row(*c, cases) for c in checkers.items()], rounds=1)
    count = Counter(kind for kind, _ in cases)
    heads = " | ".join(f"{kind} ({count[kind]})" for kind in KINDS)
    head = f"called otherwise, undecided:\n| checker | {heads} | evaluations | time |"
    show("\n".join([head, "|---" * 7 + "|", *lines]))
