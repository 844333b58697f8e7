"""The checks of parity: a network's outputs, gradients and training equal NumPy's.

array-api-tests check the standard's functions one by one; these check the maths made of them. Only
functions whose failure no result would show are checked directly: tests for NaN (a diverged network
would look sound), functions whose arrays are written in place (a caller's theta would be
overwritten), expm1 and log1p (small results lose digits unseen beside larger ones).
"""

import functools
from collections.abc import Callable

import numpy as np

from backprop_xp.backends import Array, array_namespace, device_of
from backprop_xp.networks.chain.containers import Residual
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.jets.chain_rule import raised
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.layers.columns import Columns, Scale
from backprop_xp.networks.layers.core import Dense, Dropout, LayerNorm
from backprop_xp.networks.layers.embeddings import Embedding, NumericEmbedding
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.random_bits import bits
from backprop_xp.testing.kit import FLOATING, TOLERANCES, Case, checks_of, require_values
from backprop_xp.training.fit import fit
from backprop_xp.training.interfaces.states import FitResult
from backprop_xp.training.optimizers.first_order import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Lion,
    Nadam,
    Optimizer,
    RMSProp,
)
from backprop_xp.training.optimizers.schedules import cosine

_draw = np.random.default_rng(0)
_X, _Y = _draw.normal(size=(6, 3)), _draw.uniform(0.1, 0.9, size=(6, 2))
_WEIGHT, _G = _draw.uniform(0.5, 2.0, size=6), _draw.normal(size=(6, 2))
_KEYS = np.array([12345, 2**31 - 1], np.int32).reshape(2, 1, 1)
# Each row is compared separately: beside large entries, errors in small ones pass for rounding.
_Z = np.array([[-2.5, -0.2, 0.7, 1.5], [50.0, -60.0, 20.0, -20.0]])
_TARGETS = np.array([[0.0, 1.0, 0.0, 0.0], [0.2, 0.3, 0.5, 0.0]])

_INNER = Residual(Dense(4, 4, "softplus"), Dropout(0.2))
_LAYERS: list[Layer] = [Dense(3, 4, "sigmoid"), LayerNorm(4), Dropout(0.3), _INNER, Dense(4, 2)]
_NET = Network(_LAYERS, "log_cosh", l2=0.1)
# A stack of two, with biases that are not 0: zeros would hide a mistake.
_THETA = _draw.normal(0.0, 0.7, size=(2, _NET.size))

_CODES = np.concatenate([np.arange(6.0)[:, None] % 4, _X[:, 1:]], axis=-1)
_TABLE = Network([Columns(Embedding(5, 2), NumericEmbedding(2, 2)), Scale(6), Dense(6, 2)], "huber")
_TABLE_THETA = _draw.normal(0.0, 0.7, size=(2, _TABLE.size))

_OPTIMIZERS: dict[str, Callable[[Array], Optimizer]] = {
    "SGD": lambda theta: SGD(0.1),
    "momentum": lambda theta: SGD(0.1, momentum=0.9, nesterov=True),
    "RMSProp": lambda theta: RMSProp(1e-2),
    "Adam": lambda theta: Adam(cosine(1e-2, 20)),
    "a rate per network": lambda theta: Adam(1e-2 + 1e-3 * theta[:, :1] ** 2),
    "AdamW": lambda theta: AdamW(1e-2, weight_decay=0.1, mask=_NET.weight_mask(theta)),
    "a rate per parameter": lambda theta: Adam(1e-2 * _NET.weight_mask(theta), amsgrad=True),
    "Adagrad": lambda theta: Adagrad(1e-2),
    "Nadam": lambda theta: Nadam(1e-2),
    "Lion": lambda theta: Lion(1e-3, weight_decay=0.1),
}


def _silent_faults(dtype: str, case: Case) -> None:
    """Check that NaN is found and spreads, small numbers stay, and writes reach one array alone."""

    def compute(x: Array, special: Array) -> list[Array]:
        xp = array_namespace(x)
        made = [x, xp.expm1(1e-6 * x), xp.log1p(1e-6 * x)]
        for array in (1.0 * x, x + 0.0, xp.asarray(x, copy=True), xp.zeros_like(x)):
            array += 1.0
            made.append(array)
        tests = [xp.isfinite(special), xp.isnan(special), xp.all(xp.isfinite(special))]
        tests += [1e-20 * x == 0.0, 1e-20 * x > 0.0]
        bounded = [xp.maximum(special, 0.5), xp.minimum(special, 0.5), xp.clip(special, -1.0, 1.0)]
        return [*made, *tests, *bounded, *(f(special) for f in (xp.max, xp.min, xp.sum, xp.mean))]

    case.require_computed(dtype, compute, _X, np.array([0.1, np.inf, -np.inf, np.nan, -2.1]))


def _function(name: str, dtype: str, case: Case) -> None:
    """Check an activation or a loss, and its derivative."""

    def compute(z: Array, y: Array) -> list[Array]:
        if name in LOSSES:
            loss = LOSSES[name]
            y = y[:, : y.shape[-1] // loss.outputs_per_target]
            values = [loss.value(z, y), loss.inverse_link(z)]
            return [*values, loss.gradient(z, y)] if is_real else values
        a = ACTIVATIONS[name].value(1.0 * z)
        return [a, ACTIVATIONS[name].vjp(y, z, a)] if is_real else [a]

    is_real = dtype in TOLERANCES  # the complex step differentiates values alone
    for i in range(2):
        case.require_computed(dtype, compute, _Z[i : i + 1], _TARGETS[i : i + 1])


def _network(dtype: str, case: Case) -> None:
    """Check outputs, losses and gradients, of one network and of a stack, with dropout too."""

    def compute(theta: Array, x: Array, y: Array, w: Array, g: Array, keys: Array) -> list[object]:
        one = theta[0, :]
        return [
            bits(keys, 50, 4, xp=array_namespace(keys), device=device_of(keys)),
            *(_NET.forward(theta, x), _NET.predict(one, x), _NET.loss(one, x, y, rng=5)),
            *(_NET.loss_and_gradient(one, x, y), _NET.vjp(theta, x, g, rng=3)),
            _NET.loss_and_gradient(theta, x, y, sample_weight=w, rng=keys),
            *(_NET.pack(_NET.unpack(theta)), _NET.weight_mask(one), theta[:, ::2]),
            array_namespace(theta).matrix_transpose(theta),
        ]

    case.require_computed(dtype, compute, _THETA, _X, _Y, _WEIGHT, _G, _KEYS)
    draw = functools.partial(_NET.initialize, 3, stack=2, dtype=dtype)
    here = draw(backend=case.backend, device=case.device)
    case.require_same(here, draw(backend="numpy", device="cpu"), "initialize(3)")


def _table(dtype: str, case: Case) -> None:
    """Check embeddings, and layers side by side, with rows of codes that repeat."""

    def compute(theta: Array, x: Array, y: Array, g: Array) -> list[object]:
        return [*_TABLE.loss_and_gradient(theta, x, y), *_TABLE.vjp(theta, x, g)]

    case.require_computed(dtype, compute, _TABLE_THETA, _CODES, _Y, _G)


def _powers(dtype: str, case: Case) -> None:
    """Check whole powers, which equations take of complex numbers too."""

    def compute(z: Array) -> list[Array]:
        xp = array_namespace(z)
        return [raised(xp, z, exponent) for exponent in (2, 3, 2.0, -1)]

    case.require_computed(dtype, compute, _Z[:1])


def _update(name: str, dtype: str, case: Case) -> None:
    """Check theta after three updates of a stack."""

    def compute(theta: Array, gradient: Array) -> Array:
        optimizer = _OPTIMIZERS[name](theta)
        state = optimizer.initialize(theta)
        for k in (1.0, -0.5, 2.0):
            theta, state = optimizer.update(1.0 * theta, k * gradient, state)
        return theta

    case.require_computed(dtype, compute, _THETA, np.cos(9.0 * _THETA))


def _training(name: str, dtype: str, case: Case) -> None:
    """Check theta after two epochs of minibatches of a stack, with dropout."""
    case.dtype(dtype)

    def train(theta: Array, x: Array, y: Array, weight: Array) -> FitResult:
        return fit(
            *(_NET, theta, x, y),
            optimizer=_OPTIMIZERS[name](theta),
            epochs=2,
            batch_size=4,
            sample_weight=weight,
            validation=(x, y),
            clip=0.5,
        )

    hosts = [array.astype(dtype) for array in (_THETA, _X, np.stack([_Y, 1 - _Y]), _WEIGHT)]
    here, there = train(*case.put(*hosts)), train(*hosts)
    copies = case.backend.slices_are_views and not case.has_views()
    cause = " (slices are copies, but slices_are_views is True: no step sees the last one)"
    case.require_same(here.theta, there.theta, f"theta{cause if copies else ''}")
    ours, numpys = (np.asarray(r.history["validation_loss"], dtype) for r in (here, there))
    require_values(ours, numpys, "the history of the validation loss")


CHECKS = [
    *checks_of("parity", [_silent_faults, _network, _table], TOLERANCES),
    *checks_of("parity", [_function], (*ACTIVATIONS, *LOSSES), FLOATING),
    *checks_of("parity", [_powers], FLOATING),
    *checks_of("parity", [_update], _OPTIMIZERS, TOLERANCES),
    *checks_of("parity", [_training], ("momentum", "AdamW"), TOLERANCES),
]
