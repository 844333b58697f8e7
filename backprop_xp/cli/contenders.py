"""What ``race.py`` times: each library's training loop, as its users write it.

Run as ``python -m backprop_xp.cli.contenders LIBRARY CASE [BACKEND [DEVICE]]`` it greets in one
line of JSON when it is warm, then trains for one turn at each line that it reads, and answers with
the time.
"""

import copy
import importlib.metadata
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import Selection, in_words
from backprop_xp.cli.race import CASES, Case

RATE = 1e-3

# Makes a network, which is not timed, and returns its training, which is.
Fresh = Callable[[], Callable[[], object]]


def ours(case: Case, where: Selection) -> Fresh:
    """Train by ``bx.fit``."""
    place = {"backend": where.backend, "device": where.device, "dtype": where.dtype}
    loss = "categorical_cross_entropy" if case.classes else "mean_squared_error"
    network = bx.mlp(case.sizes, loss=loss)
    theta = network.initialize(0, **place)
    x, y = case.draw()
    targets = np.eye(case.sizes[-1])[y] if case.classes else y
    x, y = bx.asarray(x, **place), bx.asarray(targets, **place)

    def train() -> None:
        bx.fit(
            network, theta, x, y, optimizer=bx.Adam(RATE), epochs=case.epochs, batch_size=case.batch
        )
        where.backend.synchronize(where.device)

    return lambda: train


def matmul(case: Case) -> Fresh:
    """Do the matrix products of as many steps, and nothing else: the floor under NumPy's times."""
    generator = np.random.default_rng(0)

    def drawn(*shape: int) -> np.ndarray:
        return generator.normal(size=shape).astype(np.float32)

    weights = [drawn(n_in, n_out) for n_in, n_out in pairwise(case.sizes)]
    a = [drawn(case.batch, n) for n in case.sizes]
    g = [drawn(case.batch, n) for n in case.sizes]
    gradients = [np.empty_like(w) for w in weights]

    def train() -> None:
        for _ in range(case.epochs * case.batches):
            for i, w in enumerate(weights):
                np.matmul(a[i], w, out=a[i + 1])
            for i in reversed(range(len(weights))):
                np.matmul(a[i].T, g[i + 1], out=gradients[i])
                if i:
                    np.matmul(g[i + 1], weights[i].T, out=g[i])

    return lambda: train


def scikit_learn(case: Case) -> Fresh:
    """Train by ``fit``, which goes on from given weights here."""
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, y = case.draw()
    y = y if case.classes else y[:, 0]
    start = (MLPClassifier if case.classes else MLPRegressor)(
        hidden_layer_sizes=case.sizes[1:-1],
        alpha=0.0,
        batch_size=case.batch,
        learning_rate_init=RATE,
        max_iter=1,
        n_iter_no_change=case.epochs + 1,
        random_state=0,
    ).fit(x, y)
    start.set_params(max_iter=case.epochs, warm_start=True)
    return lambda: partial(copy.deepcopy(start).fit, x, y)


def pytorch(case: Case) -> Fresh:
    """Train eagerly, on the CPU."""
    import torch
    from torch import nn

    x, y = map(torch.asarray, case.draw())
    loss_function = nn.CrossEntropyLoss() if case.classes else nn.MSELoss()

    def train(model: Any, optimizer: Any) -> None:
        for _ in range(case.epochs):
            order = torch.randperm(len(x))
            for rows in order.split(case.batch):
                optimizer.zero_grad()
                loss = loss_function(model(x[rows]), y[rows])
                loss.backward()
                optimizer.step()

    def fresh() -> Callable[[], object]:
        layers: list[Any] = []
        for n_in, n_out in pairwise(case.sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        return partial(train, model, torch.optim.Adam(model.parameters(), lr=RATE, fused=True))

    return fresh


def jax_by_hand(case: Case) -> Fresh:
    """Train by a compiled step, ``value_and_grad`` over a list of weights and biases, and Adam."""
    import jax
    from jax import numpy as jnp

    x, y = map(jnp.asarray, case.draw())
    generator = np.random.default_rng(0)

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        *hidden, (weights, bias) = parameters
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        outputs = x @ weights + bias
        if not case.classes:
            return jnp.mean((outputs - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1))

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters: Any, state: Any, x: Any, y: Any, rows: Any) -> Any:
        value, g = jax.value_and_grad(loss)(parameters, x[rows], y[rows])
        count, means, squares = state
        count = count + 1
        means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, g)
        squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, g)
        m_part, s_part = 1.0 - 0.9**count, 1.0 - 0.999**count

        def moved(p: Any, m: Any, s: Any) -> Any:
            return p - RATE * (m / m_part) / (jnp.sqrt(s / s_part) + 1e-8)

        parameters = jax.tree.map(moved, parameters, means, squares)
        return parameters, (count, means, squares), value

    def train(parameters: Any, state: Any) -> None:
        for _ in range(case.epochs):
            order = generator.permutation(len(x))
            for i in range(0, len(x), case.batch):
                rows = order[i : i + case.batch]
                parameters, state, value = step(parameters, state, x, y, rows)
        jax.block_until_ready((parameters, value))

    def fresh() -> Callable[[], object]:
        parameters = [
            (generator.normal(0.0, (2.0 / n_in) ** 0.5, (n_in, n_out)), np.zeros(n_out))
            for n_in, n_out in pairwise(case.sizes)
        ]
        parameters = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), parameters)
        means, squares = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        return partial(train, parameters, (jnp.int32(0), means, squares))

    return fresh


# The library's distribution, and its contender, by the names of ``race.LIBRARIES``.
PEERS: dict[str, tuple[str, Callable[[Case], Fresh]]] = {
    "matmul": ("numpy", matmul),
    "scikit-learn": ("scikit-learn", scikit_learn),
    "PyTorch": ("torch", pytorch),
    "JAX": ("jax", jax_by_hand),
}


def prepare(
    library: str, case: Case, backend: str | None = None, device: str | None = None
) -> tuple[Fresh, dict[str, str]]:
    """Return a contender, and its version; of ours also where it trains, and who chose that."""
    if library != "backprop_xp":
        distribution, contender = PEERS[library]
        return contender(case), {"version": importlib.metadata.version(distribution)}
    where = bx.resolve(backend=backend, device=device, dtype="float32")
    told = {
        "version": bx.__version__,
        "backend": where.backend.name,
        "device": where.backend.device_name(where.device),
        "source": where.source,
    }
    return ours(case, where), told


def turn(fresh: Fresh, case: Case) -> float:
    """Train a new network once, and return the microseconds per update."""
    train = fresh()
    begin = time.perf_counter()
    train()
    return (time.perf_counter() - begin) / (case.epochs * case.batches) * 1e6


def main(library: str, name: str, backend: str = "", device: str = "") -> None:
    """Answer to the race on stdout, which a library's own words do not reach."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)

        def answer(**words: Any) -> None:
            answers.write(json.dumps(words) + "\n")
            answers.flush()

        warnings.simplefilter("ignore")  # that a training was ended before it converged
        case = CASES[name]
        try:
            fresh, greeting = prepare(library, case, backend or None, device or None)
            turn(fresh, case)
            answer(**greeting)
            for _ in sys.stdin:
                answer(microseconds=turn(fresh, case))
        except Exception as error:  # a library's own kinds too: the others are still timed
            answer(error=in_words(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
