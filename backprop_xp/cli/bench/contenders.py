"""The trainings that ``bench`` times, each with code that the library's users would write.

A contender returns ``fresh()``, which makes a new network and returns its training
``train(epochs)``. Only the training is timed; at its end it waits for the device.
"""

import copy
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import Array, Selection

RATE = 1e-3

Train: TypeAlias = Callable[[int], object]
Fresh: TypeAlias = Callable[[], Train]
Wrap: TypeAlias = Callable[..., Any]
Tree: TypeAlias = Any  # a pytree of JAX's


class Case(NamedTuple):
    """A training: relu hidden units, Adam, float32, shuffled batches.

    An epoch has ``batches`` updates by ``batch`` rows each, a turn of ``bench`` has ``epochs``. The
    loss of one output is the mean squared error, of several softmax and cross-entropy. A stack of
    ``members`` networks shares the batches; 0 is one network without a stack.
    """

    sizes: tuple[int, ...]
    batch: int
    batches: int
    epochs: int = 1
    members: int = 0

    @property
    def stack(self) -> tuple[int, ...]:
        """The stack's axes of the parameters."""
        return (self.members,) if self.members else ()

    @property
    def is_classifier(self) -> bool:
        """Whether the targets are classes."""
        return self.sizes[-1] > 1

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Return x ``(rows, n_in)``, and labels ``(rows,)`` or, for one output, ``(rows, 1)``."""
        generator, rows = np.random.default_rng(0), self.batch * self.batches
        x = generator.standard_normal((rows, self.sizes[0]), np.float32)
        if self.is_classifier:
            return x, generator.integers(0, self.sizes[-1], rows)
        return x, generator.standard_normal((rows, 1), np.float32)

    def __str__(self) -> str:
        networks = f"{self.members} x " if self.members else ""
        return f"{networks}{'-'.join(map(str, self.sizes))}, batches of {self.batch}"


CASES = {
    "S": Case((2, 2, 1), batch=4, batches=16, epochs=50),
    "D": Case((64, 100, 10), batch=200, batches=8, epochs=20),
    "M": Case((784, 512, 512, 10), batch=256, batches=8, epochs=3),
    "W": Case((1024, 2048, 2048, 10), batch=1024, batches=4, epochs=1),
    "E": Case((10, 32, 32, 1), batch=256, batches=4, epochs=2, members=256),
}


def learner(
    case: Case, *, dtype: str = "float32", **where: Any
) -> tuple[bx.Network, Array, Array, Array]:
    """Return a network, theta ``(P,)`` with the same values on every backend, x and y."""
    loss = "categorical_cross_entropy" if case.is_classifier else "mean_squared_error"
    network = bx.mlp(case.sizes, loss=loss)
    theta = network.initialize(0, stack=case.stack, dtype=dtype, **where)
    x, y = case.draw()
    y = bx.data.one_hot(y, case.sizes[-1]) if case.is_classifier else y
    x, y = (bx.asarray(array, dtype=dtype, **where) for array in (x, y))
    return network, theta, x, y


def ours(case: Case, where: Selection) -> Fresh:
    """Train by ``bx.fit``; a single batch is a full one, which is not shuffled."""
    arguments = learner(case, backend=where.backend, device=where.device)
    batch = case.batch if case.batches > 1 else None

    def train(epochs: int) -> None:
        bx.fit(*arguments, optimizer=bx.Adam(RATE), epochs=epochs, batch_size=batch)
        where.backend.synchronize(where.device)

    return lambda: train


def matmul(case: Case, xp: ModuleType = np) -> Fresh:
    """Compute only the matrix products of the steps: the lower limit for NumPy or CuPy."""
    generator = np.random.default_rng(0)

    def drawn(*shape: int) -> Array:
        return xp.asarray(generator.standard_normal(shape, np.float32))

    weights = [drawn(*case.stack, n_in, n_out) for n_in, n_out in pairwise(case.sizes)]
    a = [drawn(*case.stack, case.batch, n) for n in case.sizes]
    g = [drawn(*case.stack, case.batch, n) for n in case.sizes]
    gradients = [xp.empty_like(w) for w in weights]

    def train(epochs: int) -> None:
        for _ in range(epochs * case.batches):
            for i, w in enumerate(weights):
                xp.matmul(a[i], w, out=a[i + 1])
            for i in reversed(range(len(weights))):
                xp.matmul(a[i].swapaxes(-1, -2), g[i + 1], out=gradients[i])
                if i:
                    xp.matmul(g[i + 1], weights[i].swapaxes(-1, -2), out=g[i])

    return lambda: train


def scikit_learn(case: Case) -> Fresh:
    """Train by ``fit``, which continues from the current weights."""
    if case.members:
        raise ValueError("it has no stacks of networks")
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    x, y = case.draw()
    y = y if case.is_classifier else y[:, 0]
    start = (MLPClassifier if case.is_classifier else MLPRegressor)(
        hidden_layer_sizes=case.sizes[1:-1],
        alpha=0.0,
        batch_size=case.batch,
        learning_rate_init=RATE,
        max_iter=1,
        n_iter_no_change=10**6,
        random_state=0,
    ).fit(x, y)

    def fresh() -> Train:
        model = copy.deepcopy(start).set_params(warm_start=True)
        return lambda epochs: model.set_params(max_iter=epochs).fit(x, y)

    return fresh


def pytorch(
    case: Case, device: str = "cpu", *, compiled: Wrap | None = None, captured: Wrap | None = None
) -> Fresh:
    """Train eagerly; ``compiled(loss)`` and ``captured(step, x, y)`` may return faster ones."""
    import torch
    from torch import nn

    x, y = (torch.asarray(array, device=device) for array in case.draw())
    loss_function: Wrap = nn.CrossEntropyLoss() if case.is_classifier else nn.MSELoss()

    def fresh() -> Train:
        model, parameters = (_stacked if case.members else _sequential)(case, device)
        capturable = captured is not None
        adam = torch.optim.Adam(parameters, lr=RATE, fused=True, capturable=capturable)
        loss = compiled(_loss) if compiled else _loss

        def step(x: Array, y: Array) -> None:
            adam.zero_grad()
            loss(loss_function, model, x, y).backward()
            adam.step()

        batch = x[: case.batch].clone(), y[: case.batch].clone()
        run = captured(step, *batch) if captured else step

        def train(epochs: int) -> None:
            for _ in range(epochs):
                for rows in torch.randperm(len(x), device=device).split(case.batch):
                    run(x[rows], y[rows])
            if device != "cpu":
                torch.cuda.synchronize()

        return train

    return fresh


def _sequential(case: Case, device: str) -> tuple[Wrap, Any]:
    from torch import nn

    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(case.sizes):
        layers += [nn.Linear(n_in, n_out, device=device), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    return model, model.parameters()


def _stacked(case: Case, device: str) -> tuple[Wrap, Any]:
    """Return a function of x whose layers are products of batches, and its parameters."""
    import torch

    biases = [torch.zeros(case.members, 1, n, device=device) for n in case.sizes[1:]]
    weights = [
        torch.randn(case.members, n_in, n_out, device=device) * n_in**-0.5
        for n_in, n_out in pairwise(case.sizes)
    ]
    parameters = [one.requires_grad_() for one in (*biases, *weights)]

    def model(x: Array) -> Array:
        a = torch.baddbmm(biases[0], x.expand(case.members, *x.shape), weights[0])
        for b, w in zip(biases[1:], weights[1:], strict=True):
            a = torch.baddbmm(b, torch.relu(a), w)
        return a

    return model, parameters


def _loss(loss_function: Wrap, model: Wrap, x: Array, y: Array) -> Array:
    """Return the loss; of a stack, ``(members, batch, 1)``, the sum of the networks' losses."""
    outputs = model(x)
    if outputs.ndim == 2:
        return loss_function(outputs, y)
    return loss_function(outputs, y.expand_as(outputs)) * len(outputs)


def jax_by_hand(case: Case, how: str = "jit") -> Fresh:
    """Train by a compiled step, or by a compiled scan over the steps of an epoch."""
    import jax
    from jax import numpy as jnp

    x, y = map(jnp.asarray, case.draw())
    generator = np.random.default_rng(0)

    step = jax.vmap(_jax_step, in_axes=(0, None, None, None)) if case.members else _jax_step

    # x and y are arguments: what a compiled function closes over becomes a constant of it.
    def epoch(carry: Tree, order: Array, x: Array, y: Array) -> Tree:
        return jax.lax.scan(lambda carry, rows: step(carry, rows, x, y), carry, order)

    run = jax.jit(epoch if how == "scan" else step, donate_argnums=0)

    def fresh() -> Train:
        parameters = [
            (
                generator.normal(0.0, (2.0 / n_in) ** 0.5, (*case.stack, n_in, n_out)),
                np.zeros((*case.stack, n_out)),
            )
            for n_in, n_out in pairwise(case.sizes)
        ]
        parameters = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), parameters)
        means, squares = (jax.tree.map(jnp.zeros_like, parameters) for _ in range(2))
        state = [(parameters, jnp.zeros(case.stack, jnp.float32), means, squares)]

        def train(epochs: int) -> None:
            for _ in range(epochs):
                order = generator.permutation(len(x)).reshape(-1, case.batch)
                for rows in [order] if how == "scan" else order:
                    state[0], _ = run(state[0], rows, x, y)
            jax.block_until_ready(state)

        return train

    return fresh


def _jax_step(carry: Tree, rows: Array, x: Array, y: Array) -> tuple[Tree, Array]:
    """Return the carry after an update of Adam, and the batch's loss before it."""
    import jax
    from jax import numpy as jnp

    def loss(parameters: Tree, a: Array, y: Array) -> Array:
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

    def moved(p: Array, m: Array, s: Array) -> Array:
        return p - RATE * (m / m_part) / (jnp.sqrt(s / s_part) + 1e-8)

    return (jax.tree.map(moved, parameters, means, squares), count, means, squares), value


class Library(NamedTuple):
    """The package to install, the module, and the contender of a library."""

    distribution: str
    module: str
    contender: Callable[[Case], Fresh]

    @property
    def is_installed(self) -> bool:
        """Whether the module can be imported; it is not imported here."""
        return importlib.util.find_spec(self.module) is not None


PEERS = {
    "matmul": Library("numpy", "numpy", matmul),
    "scikit-learn": Library("scikit-learn", "sklearn", scikit_learn),
    "PyTorch": Library("torch", "torch", pytorch),
    "JAX": Library("jax", "jax", jax_by_hand),
}


def find(
    library: str, backend: str | None = None, device: str | None = None
) -> tuple[Callable[[Case], Fresh], dict[str, str]]:
    """Return the contender of a library, and its version; for ours also where it trains."""
    if library != "backprop_xp":
        peer = PEERS[library]
        return peer.contender, {"version": importlib.metadata.version(peer.distribution)}
    where = bx.resolve(backend=backend, device=device, dtype="float32")
    description = {
        "version": bx.__version__,
        "backend": where.backend.name,
        "device": where.backend.device_name(where.device),
        "source": where.source,
    }
    return partial(ours, where=where), description


def timed(train: Train, epochs: int, case: Case) -> float:
    """Train, and return the microseconds per update."""
    begin = time.perf_counter()
    train(epochs)
    return (time.perf_counter() - begin) / (epochs * case.batches) * 1e6


def turns(
    library: str, backend: str = "", device: str = ""
) -> tuple[Callable[[str], float], dict[str, str]]:
    """Return the turns of a library in ``race``: each trains a new network once."""
    contender, description = find(library, backend or None, device or None)
    fresh = lru_cache(maxsize=1)(lambda name: contender(CASES[name]))
    return lambda name: timed(fresh(name)(), CASES[name].epochs, CASES[name]), description
