"""Networks, losses, optimisers and training on the backend, compared with NumPy's."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.activations import ACTIVATIONS
from backprop_xp.backends import Array, Backend, Device, array_namespace, device_of
from backprop_xp.chain import Layer
from backprop_xp.complex_safe import real_part
from backprop_xp.early_stopping import EarlyStopping
from backprop_xp.layers import Activate, Dense, Dropout, LayerNorm, Residual
from backprop_xp.losses import LOSSES
from backprop_xp.network import Network
from backprop_xp.optimizers import SGD, Adam, AdamW, RMSProp
from backprop_xp.random import as_key, bits, fold_in, keep_mask
from backprop_xp.schedules import cosine
from backprop_xp.testing.comparing import (
    FLOATING,
    REAL,
    put,
    require_computed_in,
    require_dtype,
    require_same,
)
from backprop_xp.testing.kit import Check
from backprop_xp.training import fit

_generator = np.random.default_rng(0)
_X = _generator.normal(size=(6, 3))
_Y = _generator.uniform(0.1, 0.9, size=(6, 2))
_WEIGHT = _generator.uniform(0.5, 2.0, size=6)
_G = _generator.normal(size=(6, 2))
# Large logits too, where a formula that is not stable overflows.
_Z = np.array([[-2.5, -0.25, 0.75, 1.5], [0.125, -1.0, 3.0, -0.5], [50.0, -60.0, 20.0, -20.0]])
_Z_GRADIENT = _generator.normal(size=_Z.shape)
_TARGETS = np.array([[0.0, 1.0, 0.0, 0.0], [0.25, 0.25, 0.5, 0.0], [1.0, 0.0, 0.0, 0.0]])

LAYERS: dict[str, tuple[Layer, ...]] = {
    "Dense": (Dense(3, 4, "tanh"), Dense(4, 2)),
    "LayerNorm": (Dense(3, 4), LayerNorm(4), Activate("gelu"), Dense(4, 2)),
    "Dropout": (Dense(3, 8, "silu"), Dropout(0.3), Dense(8, 2)),
    "Residual": (
        Dense(3, 4, "sigmoid"),
        Residual(Dense(4, 4, "softplus"), Dropout(0.2), LayerNorm(4)),
        Dense(4, 2),
    ),
}


class _Rule(NamedTuple):
    """An optimiser to be tried, made beside theta of a network."""

    name: str
    make: Callable[[Network, Array], Any]


OPTIMIZERS = [
    _Rule("SGD", lambda network, theta: SGD(0.1)),
    _Rule("SGD, Nesterov", lambda network, theta: SGD(0.1, momentum=0.9, nesterov=True)),
    _Rule("RMSProp", lambda network, theta: RMSProp(1e-2)),
    _Rule("Adam, a schedule", lambda network, theta: Adam(cosine(1e-2, 20))),
    _Rule("Adam, a rate per network", lambda network, theta: Adam(_rates(theta))),
    _Rule(
        "AdamW, weights alone",
        lambda network, theta: AdamW(1e-2, weight_decay=0.1, mask=network.weight_mask(theta)),
    ),
]


def _rates(theta: Array) -> Array:
    xp = array_namespace(theta)
    return xp.asarray([[1e-2], [3e-2]], dtype=theta.dtype, device=device_of(theta))


def _theta(network: Network, dtype: str) -> np.ndarray:
    """Return a stack of two thetas whose biases are not 0, which would hide a mistake."""
    theta = network.initialize(1, stack=2, backend="numpy", device="cpu", dtype="float64")
    moved: np.ndarray = theta + 0.1 * np.random.default_rng(2).normal(size=theta.shape)
    return moved.astype(dtype)


def _random(backend: Backend, device: Device) -> None:
    def draw(keys: Array) -> list[Array]:
        xp, where = array_namespace(keys), device_of(keys)
        key = as_key(keys, xp.zeros((2, 1), dtype=xp.float32, device=where))
        return [
            bits(7, 5, 4, xp=xp, device=where),
            bits(fold_in(2**31 - 1, 3), 300, 2, xp=xp, device=where),
            bits(fold_in(key, 2), 5, 4, xp=xp, device=where),
            keep_mask(key, 0.3, 5, 4, xp=xp, device=where),
        ]

    keys = np.array([12345, 2**31 - 1], np.int32).reshape(2, 1, 1)
    (here,) = put(backend, device, keys)
    require_same(backend, device, draw(here), draw(keys), "the draws")


def _initialize(dtype: str, backend: Backend, device: Device) -> None:
    require_dtype(backend, device, dtype)
    network = Network(LAYERS["Residual"], "huber")
    here = network.initialize(3, stack=(2,), backend=backend, device=device, dtype=dtype)
    there = network.initialize(3, stack=(2,), backend="numpy", device="cpu", dtype=dtype)
    require_same(backend, device, here, there, "theta")


def _activation(name: str, dtype: str, backend: Backend, device: Device) -> None:
    activation = ACTIVATIONS[name]

    def compute(z: Array, g: Array) -> list[Array]:
        parts = []
        # Large entries apart: beside them, errors in the others would count as rounding.
        for rows in (slice(0, 2), slice(2, 3)):
            part, upstream = 1.0 * z[rows, :], g[rows, :]
            a = activation.value(1.0 * part)
            # The complex step differentiates values alone.
            is_real = dtype in REAL
            parts += [a, activation.vjp(upstream, part, a)] if is_real else [a]
        return parts

    require_computed_in(compute, (_Z, _Z_GRADIENT), dtype, backend, device)


def _loss(name: str, dtype: str, backend: Backend, device: Device) -> None:
    loss = LOSSES[name]

    def compute(outputs: Array, targets: Array) -> list[Array]:
        # Targets stay real where the complex step makes the outputs complex.
        targets = real_part(array_namespace(targets), targets)
        parts = []
        for rows in (slice(0, 2), slice(2, 3)):
            o, t = outputs[rows, :], targets[rows, :]
            parts += [loss.value(o, t), loss.link(o)]
            parts += [loss.gradient(o, t)] if dtype in REAL else []
        return parts

    require_computed_in(compute, (_Z, _TARGETS), dtype, backend, device)


def _network(name: str, dtype: str, backend: Backend, device: Device) -> None:
    network = Network(LAYERS[name], "log_cosh", l2=0.1)

    def compute(theta: Array, x: Array, y: Array, weight: Array, g: Array) -> list[Any]:
        one = theta[0, :]
        return [
            network.forward(theta, x),
            network.predict(one, x),
            network.loss(one, x, y, rng=5),
            list(network.loss_and_gradient(one, x, y)),
            list(network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=3)),
            list(network.vjp(theta, x, g, rng=3)),
            network.pack(network.unpack(theta)),
            network.weight_mask(one),
        ]

    theta = _theta(network, "float64")
    require_computed_in(compute, (theta, _X, _Y, _WEIGHT, _G), dtype, backend, device)


def _optimizer(rule: _Rule, dtype: str, backend: Backend, device: Device) -> None:
    network = Network(LAYERS["Dense"], "mean_squared_error")

    def compute(theta: Array, gradient: Array) -> list[Array]:
        optimizer = rule.make(network, theta)
        theta = 1.0 * theta
        state = optimizer.initialize(theta)
        for k in (1.0, -0.5, 2.0):
            theta, state = optimizer.update(theta, k * gradient, state)
        # A copy: what update returns may be reused.
        return [1.0 * theta]

    theta = _theta(network, "float64")
    gradient = np.random.default_rng(3).normal(size=theta.shape)
    require_computed_in(compute, (theta, gradient), dtype, backend, device)


def _training(dtype: str, backend: Backend, device: Device) -> None:
    network = Network(LAYERS["Dropout"], "binary_cross_entropy", l2=0.01)

    def compute(theta: Array, x: Array, y: Array, weight: Array) -> list[Any]:
        result = fit(
            network,
            theta,
            x,
            y,
            optimizer=SGD(0.3, momentum=0.9),
            epochs=2,
            batch_size=4,
            seed=1,
            sample_weight=weight,
            validation=(x, y),
            clip=0.5,
            early_stopping=EarlyStopping(5),
        )
        return [result.theta]

    theta = _theta(network, "float64")
    require_computed_in(compute, (theta, _X, _Y, _WEIGHT), dtype, backend, device)


def _check(
    name: str, sentence: str, function: Callable[..., None], dtypes: tuple[str, ...]
) -> list[Check]:
    return [
        Check("networks", f"{name}, {dtype}", sentence, functools.partial(function, dtype))
        for dtype in dtypes
    ]


CHECKS = [
    Check("networks", "random bits", "dropout's random bits are NumPy's", _random),
    *_check("initialize", "the same seed gives the same theta", _initialize, REAL),
    *(
        check
        for name in ACTIVATIONS
        for check in _check(
            f"activation {name}",
            f"{name} and its backward rule are NumPy's",
            functools.partial(_activation, name),
            FLOATING,
        )
    ),
    *(
        check
        for name in LOSSES
        for check in _check(
            f"loss {name}",
            f"{name}, its gradient and its link are NumPy's",
            functools.partial(_loss, name),
            FLOATING,
        )
    ),
    *(
        check
        for name in LAYERS
        for check in _check(
            f"network with {name}",
            "outputs, losses and gradients, stacked and not, are NumPy's",
            functools.partial(_network, name),
            REAL,
        )
    ),
    *(
        check
        for rule in OPTIMIZERS
        for check in _check(
            rule.name, "three updates are NumPy's", functools.partial(_optimizer, rule), REAL
        )
    ),
    *_check("training", "two epochs of minibatches end at NumPy's theta", _training, REAL),
]
