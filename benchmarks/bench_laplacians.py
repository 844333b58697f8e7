"""The Laplacian of a network by its inputs, beside nested automatic differentiation.

The networks are n-64-64-64-1 with tanh in float64, for n = 2, 8 and 32 inputs, on 500 rows. Each
library has a process with one thread, and they take turns by CPU time. PyTorch differentiates
backward once, and each slope backward again. JAX is compiled: the trace of ``jax.hessian``, or jvp
of jvp along each input. bench_input_derivatives.py has the residual with its gradient.
"""

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import backprop_xp as bx
from backprop_xp.cli.bench.race import Entrant, race, start_children
from benchmarks.bench_input_derivatives import CLOSE, HIDDEN, ONE_THREAD, Case, by_jvp, outputs
from benchmarks.conftest import Row, in_units

ROUNDS, CALLS, ROWS = 15, 4, 500
CASES = {f"{n} inputs": n for n in (2, 8, 32)}


def case_of(name: str) -> Case:
    n = CASES[name]
    network = bx.mlp([n, *HIDDEN, 1], hidden="tanh")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    x = np.random.default_rng(0).normal(size=(ROWS, n))
    return Case(network, theta, x, [array for layer in network.unpack(theta) for array in layer])


def on_numpy(case: Case) -> Callable[[], Any]:
    return lambda: case.network.laplacian(case.theta, case.x)[:, 0]


def on_jax(case: Case) -> Callable[[], Any]:
    import jax

    theta, x = jax.numpy.asarray(case.theta), jax.numpy.asarray(case.x)
    compiled = jax.jit(case.network.laplacian)
    return lambda: jax.block_until_ready(compiled(theta, x))[:, 0]


def pytorch(case: Case) -> Callable[[], Any]:
    import torch

    torch.set_num_threads(1)
    parameters = [torch.tensor(p) for p in case.parameters]
    x = torch.tensor(case.x, requires_grad=True)

    def laplacian() -> Any:
        u = outputs(torch, parameters, x)
        (first,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        columns = range(x.shape[1])
        second = (
            torch.autograd.grad(first[:, i].sum(), x, retain_graph=True)[0][:, i] for i in columns
        )
        return sum(second)

    return laplacian


def compiled_by_jax(
    of_row: Callable[[Callable[..., Any], Any], Any],
) -> Callable[[Case], Callable[[], Any]]:
    """Return the Laplacian that JAX computes for a function u and a row."""

    def laplacian_of(case: Case) -> Callable[[], Any]:
        import jax

        parameters, x = [jax.numpy.asarray(p) for p in case.parameters], jax.numpy.asarray(case.x)

        def u(row: Any) -> Any:
            return outputs(jax.numpy, parameters, row[None])[0, 0]

        compiled = jax.jit(jax.vmap(lambda row: of_row(u, row)))
        return lambda: jax.block_until_ready(compiled(x))

    return laplacian_of


def trace_of_hessian(u: Callable[..., Any], row: Any) -> Any:
    import jax

    return jax.numpy.trace(jax.hessian(u)(row))


def sum_of_jvps(u: Callable[..., Any], row: Any) -> Any:
    import jax

    units = jax.numpy.eye(len(row))
    return jax.numpy.sum(jax.vmap(lambda v: by_jvp(u, row, v))(units))


OURS = {"NumPy": on_numpy, "JAX": on_jax}
PEERS = {
    "PyTorch, backward twice": pytorch,
    "JAX, trace of hessian": compiled_by_jax(trace_of_hessian),
    "JAX, jvp of jvp": compiled_by_jax(sum_of_jvps),
}
LIBRARIES = {"JAX": "jax", "PyTorch": "torch"}


def turns(contender: str) -> tuple[Callable[[str], float], dict[str, Any]]:
    """Return the CPU seconds of a call, and each case's mean Laplacian: the entrant of a race."""
    make = (OURS | PEERS)[contender]
    laplacians: dict[str, Callable[[], Any]] = {name: make(case_of(name)) for name in CASES}
    found = {name: float(laplacian().mean()) for name, laplacian in laplacians.items()}

    def turn(name: str) -> float:
        laplacian = laplacians[name]
        laplacian()
        start = time.process_time()
        for _ in range(CALLS):
            laplacian()
        return (time.process_time() - start) / CALLS

    return turn, {"found": found}


@pytest.mark.parametrize("case", CASES)
def test_a_laplacian(
    case: str,
    benchmark: BenchmarkFixture,
    record: Callable[[Row], None],
    show: Callable[[str], None],
) -> None:
    racing = []
    for name in OURS | PEERS:
        library = LIBRARIES.get(name.partition(",")[0])
        if library is None or importlib.util.find_spec(library) is not None:
            maker = "benchmarks.bench_laplacians:turns"
            racing.append(Entrant(name, maker, (name,), ONE_THREAD))
        else:
            show(f"{case}: {library} is not installed and left out")
    with start_children(racing) as children:
        outcome = benchmark.pedantic(lambda: race(children, case, ROUNDS), rounds=1)
        said = {name: child.description.get("found") for name, child in children.items()}
    for name, reason in outcome.left_out.items():
        show(f"{case}: {name} is left out: {reason}")
    for name in outcome.times:
        assert said[name][case] == pytest.approx(said["NumPy"][case], rel=1e3 * CLOSE)
    for ours in OURS:
        for peer in PEERS:
            if ours in outcome.times and peer in outcome.times:
                time_of, ratio = outcome.time(ours).median, outcome.ratio(ours, peer)
                record(Row(f"{case}, ours on {ours}", in_units(time_of), ratio, peer))
    assert "NumPy" in outcome.times
