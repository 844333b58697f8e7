"""The squared residual of an equation with its gradient, beside PyTorch, JAX and folx.

``heat`` is u_t - u_xx of 2-64-64-64-1 on 1,000 rows, ``laplace`` the Laplacian of 8-64-64-64-1 on
500 rows or 100, with tanh in float64. Each library has a process with one thread, and they take
turns by CPU time. PyTorch differentiates backward twice and once more. JAX is compiled: jvp of jvp,
its Taylor mode ``jax.experimental.jet``, or the forward Laplacian of folx.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from backprop_xp.cli.bench.race import Entrant, race, start_children
from benchmarks.conftest import Row, in_units

ROUNDS, CALLS = 15, 4
# The columns of x, and the rows.
CASES = {"heat": ("tx", 1000), "laplace": ("ijklmnop", 500), "laplace, few": ("ijklmnop", 100)}
HIDDEN = [64, 64, 64]
# The largest good ratios of our time, on NumPy or on JAX, to a peer's.
AIMS = {("NumPy", "PyTorch"): 1.0, ("JAX", "JAX, jvp of jvp"): 1.0, ("JAX", "folx"): 1.0}
# Rounding of a loss near 1.
CLOSE = 1e-12
EIGEN = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": EIGEN,
    "JAX_ENABLE_X64": "1",
}


class Case(NamedTuple):
    """The network of the residuals, theta, x, and the weights and biases in turn."""

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    parameters: list[np.ndarray]


def case_of(name: str) -> Case:
    variables, rows = CASES[name]
    layers = bx.mlp([len(variables), *HIDDEN, 1], hidden="tanh").layers

    def residual(s: Any) -> Any:
        return s.u_t - s.u_xx if name == "heat" else s.laplacian("u", *variables)

    network = bx.Network([bx.Equation(layers, residual, variables)], "mean_squared_error")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    x = np.random.default_rng(0).normal(size=(rows, len(variables)))
    return Case(network, theta, x, list(network.unpack(theta)[0]))


def outputs(xp: Any, parameters: list[Any], x: Any) -> Any:
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1]
        x = x if i == len(parameters) - 2 else xp.tanh(x)
    return x


def on_numpy(case: Case, name: str) -> Callable[[], float]:
    y = np.zeros((len(case.x), 1))
    return lambda: float(case.network.loss_and_gradient(case.theta, case.x, y)[0])


def on_jax(case: Case, name: str) -> Callable[[], float]:
    import jax

    theta, x = jax.numpy.asarray(case.theta), jax.numpy.asarray(case.x)
    y = jax.numpy.zeros((len(case.x), 1))
    compiled = jax.jit(lambda theta: case.network.loss_and_gradient(theta, x, y))
    return lambda: float(jax.block_until_ready(compiled(theta))[0])


def pytorch(case: Case, name: str) -> Callable[[], float]:
    import torch

    torch.set_num_threads(1)
    parameters = [torch.tensor(p, requires_grad=True) for p in case.parameters]
    x = torch.tensor(case.x, requires_grad=True)

    def slopes(column: Any) -> Any:
        return torch.autograd.grad(column.sum(), x, create_graph=True)[0]

    def loss() -> float:
        first = slopes(outputs(torch, parameters, x))
        if name == "heat":
            residual = first[:, 0] - slopes(first[:, 1])[:, 1]
        else:
            residual = sum(slopes(first[:, i])[:, i] for i in range(x.shape[1]))
        value = (residual**2).mean()
        torch.autograd.grad(value, parameters, allow_unused=True)  # the last bias
        return value.item()

    return loss


def compiled_by_jax(
    residual: Callable[[Callable[..., Any], Any, str], Any],
) -> Callable[[Case, str], Callable[[], float]]:
    """Return the loss of a residual that JAX computes for a function u and a row."""

    def loss_of(case: Case, name: str) -> Callable[[], float]:
        import jax

        parameters, x = [jax.numpy.asarray(p) for p in case.parameters], jax.numpy.asarray(case.x)

        def of_row(parameters: list[Any], row: Any) -> Any:
            return residual(lambda at: outputs(jax.numpy, parameters, at[None])[0, 0], row, name)

        @jax.jit
        @jax.value_and_grad
        def loss(parameters: list[Any]) -> Any:
            return jax.numpy.mean(jax.vmap(of_row, (None, 0))(parameters, x) ** 2)

        return lambda: float(jax.block_until_ready(loss(parameters))[0])

    return loss_of


def of_directions(second: Callable[..., Any], u: Callable[..., Any], row: Any, name: str) -> Any:
    """Return the residual, from ``second``: the second derivative of u along a direction."""
    import jax

    units = jax.numpy.eye(len(row))
    if name == "heat":
        return jax.jvp(u, (row,), (units[0],))[1] - second(u, row, units[1])
    return jax.numpy.sum(jax.vmap(lambda v: second(u, row, v))(units))


def by_jvp(u: Callable[..., Any], row: Any, v: Any) -> Any:
    import jax

    return jax.jvp(lambda at: jax.jvp(u, (at,), (v,))[1], (row,), (v,))[1]


def by_jet(u: Callable[..., Any], row: Any, v: Any) -> Any:
    import jax
    from jax.experimental.jet import jet

    return jet(u, (row,), ((v, jax.numpy.zeros_like(v)),))[1][1]


def by_folx(u: Callable[..., Any], row: Any, name: str) -> Any:
    import folx
    import jax

    if name != "heat":
        return folx.forward_laplacian(u)(row).laplacian
    of_x = folx.forward_laplacian(lambda x: u(jax.numpy.concatenate([row[:1], x])))(row[1:])
    return jax.jvp(u, (row,), (jax.numpy.eye(2)[0],))[1] - of_x.laplacian


OURS = {"NumPy": on_numpy, "JAX": on_jax}
PEERS = {
    "PyTorch": pytorch,
    "JAX, jvp of jvp": compiled_by_jax(lambda *given: of_directions(by_jvp, *given)),
    "JAX, jet": compiled_by_jax(lambda *given: of_directions(by_jet, *given)),
    "folx": compiled_by_jax(by_folx),
}
LIBRARIES = {"JAX": "jax", "PyTorch": "torch", "folx": "folx"}


def turns(contender: str) -> tuple[Callable[[str], float], dict[str, Any]]:
    """Return the CPU seconds of a call, and each case's loss: the entrant of a race."""
    losses: dict[str, Callable[[], float]] = {}
    make = (OURS | PEERS)[contender]
    found = {name: make(case_of(name), name)() for name in CASES}

    def turn(name: str) -> float:
        loss = losses.setdefault(name, make(case_of(name), name))
        loss()
        start = time.process_time()
        for _ in range(CALLS):
            loss()
        return (time.process_time() - start) / CALLS

    return turn, {"losses": found}


@pytest.mark.parametrize("case", CASES)
def test_a_residual_and_its_gradient(
    case: str,
    benchmark: BenchmarkFixture,
    record: Callable[[Row], None],
    show: Callable[[str], None],
) -> None:
    racing = []
    for name in OURS | PEERS:
        library = LIBRARIES.get(name.partition(",")[0])
        if library is None or importlib.util.find_spec(library) is not None:
            maker = "benchmarks.bench_input_derivatives:turns"
            racing.append(Entrant(name, maker, (name,), ONE_THREAD))
        else:
            show(f"{case}: {library} is not installed and left out")
    with start_children(racing) as children:
        outcome = benchmark.pedantic(lambda: race(children, case, ROUNDS), rounds=1)
        said = {name: child.description.get("losses") for name, child in children.items()}
    for name, reason in outcome.left_out.items():
        show(f"{case}: {name} is left out: {reason}")
    for name in outcome.times:
        assert said[name][case] == pytest.approx(said["NumPy"][case], rel=CLOSE)
    for ours in OURS:
        for peer in PEERS:
            if ours in outcome.times and peer in outcome.times:
                time_of, ratio = outcome.time(ours).median, outcome.ratio(ours, peer)
                aim = AIMS.get((ours, peer))
                record(Row(f"{case}, ours on {ours}", in_units(time_of), ratio, peer, aim))
    assert "NumPy" in outcome.times
