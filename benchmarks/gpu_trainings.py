"""What ``gpu.py`` times: each library's training of the same networks, as its users write it.

A maker returns ``train(epochs)``, which waits for the device before it returns.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

import backprop_xp as bx

RATE = 1e-3

Train = Callable[[int], None]
Step = Callable[[], None]


class Case(NamedTuple):
    """A training: relu hidden units, Adam, shuffled batches, ``batches`` of them in an epoch.

    The loss is the mean squared error of one output, and else softmax and cross-entropy.
    """

    sizes: tuple[int, ...]
    batch: int
    batches: int

    @property
    def classes(self) -> bool:
        return self.sizes[-1] > 1

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x ``(rows, n_in)``, and labels ``(rows,)`` or, of one output, ``(rows, 1)``."""
        generator, rows = np.random.default_rng(0), self.batch * self.batches
        x = generator.standard_normal((rows, self.sizes[0]), np.float32)
        if self.classes:
            return x, generator.integers(0, self.sizes[-1], rows)
        return x, generator.standard_normal((rows, 1), np.float32)

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batches of {self.batch}"


CASES = {
    "S": Case((2, 2, 1), 4, 16),
    "D": Case((64, 100, 10), 200, 8),
    "M": Case((784, 512, 512, 10), 256, 8),
    "W": Case((1024, 2048, 2048, 10), 1024, 4),
    "XL": Case((4096, 4096, 4096, 4096), 8192, 2),
}
QUICK = {"S": Case((2, 2, 1), 4, 2), "D": Case((6, 5, 3), 8, 2), "M": Case((6, 5, 5, 3), 8, 2)}


def prepared(case: Case, **place: Any) -> tuple[bx.Network, Any, Any, Any]:
    """Return a network, and theta, x and y; theta has the same values everywhere."""
    x, y = case.draw()
    network = bx.mlp(
        case.sizes, loss="categorical_cross_entropy" if case.classes else "mean_squared_error"
    )
    theta = network.initialize(0, backend="numpy", dtype="float64")
    y = bx.data.one_hot(y, case.sizes[-1]) if case.classes else y
    return network, *(bx.asarray(array, **place) for array in (theta, x, y))


def ours(case: Case, backend: str, device: str | None = None) -> Train:
    """Train by ``bx.fit``; a single batch is a full one, which is not shuffled."""
    network, *arrays = prepared(case, backend=backend, device=device, dtype="float32")
    where = bx.resolve(backend=backend, device=device)
    batch = case.batch if case.batches > 1 else None

    def train(epochs: int) -> None:
        bx.fit(network, *arrays, optimizer=bx.Adam(RATE), epochs=epochs, batch_size=batch)
        where.backend.synchronize(where.device)

    return train


def in_pytorch(case: Case, how: str) -> Train:
    """Train eagerly, with the loss compiled, or with the step captured in a CUDA graph."""
    import torch
    from torch import nn

    device = "cuda" if torch.cuda.is_available() else "cpu"
    x, y = (torch.asarray(array, device=device) for array in case.draw())
    layers: list[Any] = []
    for n_in, n_out in pairwise(case.sizes):
        layers += [nn.Linear(n_in, n_out, device=device), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    is_graph = how == "CUDA graph"
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True, capturable=is_graph)
    loss_function = nn.CrossEntropyLoss() if case.classes else nn.MSELoss()

    def loss(x: Any, y: Any) -> Any:
        return loss_function(model(x), y)

    # Static shapes: from the second case on, they would become variables.
    loss_of = torch.compile(loss, dynamic=False) if how == "torch.compile" else loss

    def step(x: Any, y: Any) -> None:
        optimizer.zero_grad()
        loss_of(x, y).backward()
        optimizer.step()

    run = captured(step, x[: case.batch].clone(), y[: case.batch].clone()) if is_graph else step

    def train(epochs: int) -> None:
        for _ in range(epochs):
            for rows in torch.randperm(len(x), device=device).split(case.batch):
                run(x[rows], y[rows])
        if device == "cuda":
            torch.cuda.synchronize()

    return train


def captured(step: Callable[[Any, Any], None], x: Any, y: Any) -> Callable[[Any, Any], None]:
    """Return a step of PyTorch's that copies its batch to x and y and replays a CUDA graph."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("a CUDA graph needs a GPU")
    # As PyTorch's notes on CUDA graphs have it: warm up on another stream, then capture.
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(x, y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(x, y)

    def replay(new_x: Any, new_y: Any) -> None:
        x.copy_(new_x)
        y.copy_(new_y)
        graph.replay()

    return replay


def in_jax(case: Case, how: str) -> Train:
    """Train by a compiled step, or by a compiled scan over an epoch."""
    import jax
    from jax import numpy as jnp

    x, y = map(jnp.asarray, case.draw())
    draw = np.random.default_rng(0).standard_normal
    parameters = [
        (jnp.asarray(draw((n_in, n_out)) * (2 / n_in) ** 0.5, "f4"), jnp.zeros(n_out, "f4"))
        for n_in, n_out in pairwise(case.sizes)
    ]
    means, squares = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
    carry, key = (parameters, jnp.zeros((), "f4"), means, squares), jax.random.key(0)

    # The data are arguments: what a compiled function closes over becomes a constant of it.
    def epoch(carry: Any, order: Any, x: Any, y: Any) -> Any:
        return jax.lax.scan(lambda carry, rows: jax_step(carry, rows, x, y), carry, order)

    def shuffle(key: Any) -> Any:
        return jax.random.permutation(key, len(x)).reshape(-1, case.batch)

    whole = how == "scan"
    run, shuffle = jax.jit(epoch if whole else jax_step, donate_argnums=0), jax.jit(shuffle)

    def train(epochs: int) -> None:
        nonlocal carry, key
        for _ in range(epochs):
            key = jax.random.fold_in(key, 1)
            order = shuffle(key)
            for rows in [order] if whole else order:
                carry, _ = run(carry, rows, x, y)
        jax.block_until_ready(carry)

    return train


def jax_step(carry: Any, rows: Any, x: Any, y: Any) -> Any:
    """Return the carry after an update of Adam, and the batch's loss before it."""
    import jax
    from jax import numpy as jnp

    def loss(parameters: Any, a: Any, y: Any) -> Any:
        *hidden, (weights, bias) = parameters
        for w, b in hidden:
            a = jax.nn.relu(a @ w + b)
        outputs = a @ weights + bias
        if y.ndim == 2:
            return jnp.mean((outputs - y) ** 2)
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1))

    parameters, count, means, squares = carry
    value, g = jax.value_and_grad(loss)(parameters, x[rows], y[rows])
    count = count + 1
    means = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, means, g)
    squares = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, squares, g)
    m_part, s_part = 1.0 - 0.9**count, 1.0 - 0.999**count

    def moved(p: Any, m: Any, s: Any) -> Any:
        return p - RATE * (m / m_part) / (jnp.sqrt(s / s_part) + 1e-8)

    return (jax.tree.map(moved, parameters, means, squares), count, means, squares), value


def bare_step(case: Case, backend: str = "cupy") -> Step:
    """Return ``loss_and_gradient`` and an update of Adam, on the same rows."""
    network, theta, x, y = prepared(case._replace(batches=1), backend=backend, dtype="float32")
    optimizer = bx.Adam(RATE)
    state = optimizer.initialize(theta)

    def step() -> None:
        nonlocal theta, state
        _, gradient = network.loss_and_gradient(theta, x, y)
        theta, state = optimizer.update(theta, gradient, state)

    return step


def on_gpu(*shape: int, dtype: str = "float32") -> Any:
    """Return random numbers: of equal ones a GPU makes products faster, at less power."""
    import cupy

    drawn = np.random.default_rng(0).standard_normal(shape, np.float32)
    return cupy.asarray(drawn / shape[0] ** 0.5, dtype)


def products(case: Case) -> Step:
    """Return a step's 3L - 1 matrix products alone, by CuPy, into memory that is there already."""
    import cupy

    weights = [on_gpu(*shape) for shape in pairwise(case.sizes)]
    a, g = ([on_gpu(case.batch, n) for n in case.sizes] for _ in range(2))
    gradients = [cupy.empty_like(w) for w in weights]

    def step() -> None:
        for i, w in enumerate(weights):
            cupy.matmul(a[i], w, out=a[i + 1])
        for i in reversed(range(len(weights))):
            cupy.matmul(a[i].T, g[i + 1], out=gradients[i])
            if i:
                cupy.matmul(g[i + 1], weights[i].T, out=g[i])

    return step
