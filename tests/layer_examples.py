"""An example of each kind of layer, and of each kind of equation, with three columns of x."""

from collections.abc import Sequence
from typing import Any

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.files.descriptions import LAYERS
from tests.user_layers import sample_targets, sample_theta

BATCH, N_IN, N_OUT = 5, 3, 2
# The key of dropout.
RNG = 5

_DENSE, _TANH = bx.Dense(N_IN, N_OUT), bx.Dense(N_IN, N_OUT, "tanh")
_U = [bx.Dense(N_IN, 1, "tanh")]
# Functions of one column, for conditions between three points.
_LINE = [bx.Dense(1, 2, "tanh"), bx.Dense(2, 1)]
_CODED = bx.Columns(bx.Embedding(2, 1), bx.NumericEmbedding(2, 2, n_frequencies=2))


def _equation(layers: Any, residual: Any, variables: str = "xty", **options: Any) -> Sequence[Any]:
    return [bx.Equation(layers, residual, variables, **options)]


_EQUATION = _equation(_U, lambda s: (s.u_xx * s.u, s.k * s.u_t), unknown={"k": 0.4})
_BETWEEN = _equation(_LINE, lambda s: (s[0].u_x - s[1].u, s[2].u), "x", points=3)
_CONSTRAINED = bx.Constrained([_TANH], lambda x: x[..., :1] * x[..., 1:2], lambda x: x[..., 2:])
EXAMPLES: dict[Any, Sequence[Any]] = {
    bx.Dense: [_TANH],
    bx.Activate: [_DENSE, bx.Activate("silu")],
    bx.Dropout: [bx.Dropout(0.3), _TANH],
    bx.LayerNorm: [bx.LayerNorm(N_IN), _TANH],
    bx.Chain: [bx.Chain(bx.Dense(N_IN, 4, "silu"), bx.Dropout(0.3), bx.Dense(4, N_IN)), _TANH],
    bx.Residual: [bx.Residual(bx.Dense(N_IN, N_IN, "silu")), _TANH],
    bx.Scale: [bx.Scale(N_IN), _TANH],
    bx.Embedding: [bx.Embedding([2, 3, 4], 1), _TANH],
    bx.NumericEmbedding: [bx.NumericEmbedding(N_IN, 2, n_frequencies=2), bx.Dense(6, N_OUT)],
    bx.Columns: [bx.Columns(bx.Embedding(2, 1), bx.Scale(2)), _TANH],
    bx.Standardize: [bx.Standardize([0.1, 0.2, 0.3], [1.0, 2.0, 3.0]), _TANH],
    bx.Derivatives: [bx.Derivatives(_U, [(), (0, 1)])],
    bx.Equation: _EQUATION,
    bx.Groups: [bx.Groups(_EQUATION, [1])],
    bx.Constrained: [_CONSTRAINED],
}
# An equation of Constrained has derivatives by theta alone: another one by x is an error.
EXACT = "exact conditions"
FEATURES: dict[str, Sequence[Any]] = {
    "first derivatives of one output": [bx.Derivatives(_U, [(0,), (2,)])],
    "derivatives of two outputs": [bx.Derivatives([_TANH], [(1, 1)])],
    "derivatives beside codes": [
        bx.Derivatives([_CODED, bx.Dense(5, 1, "tanh")], [(1,), (1, 2)]),
    ],
    "laplacian": _equation(_U, lambda s: (s.laplacian("u"), s.d("u", "x", "t") - s.u)),
    "given": _equation(
        [bx.Dense(2, 1, "tanh")], lambda s: (s.u_t - s.q, s.q * s.u_xx), "tx", given="q"
    ),
    "unknown with a bound": _equation(
        _U, lambda s: (s.u_t - s.xp.exp(s.log_k) * s.u_xx, s.u), unknown={"log_k": 0.2}
    ),
    "system": _equation([_TANH], lambda s: (s.u_x * s.v - s.v_tt, s.v_x + s.u_yy)),
    EXACT: _equation(
        [bx.Constrained(_U, lambda x: x[..., 1:2], lambda x: array_namespace(x).sin(x[..., :1]))],
        lambda s: (s.u_t - s.u_xx, s.u * s.u_x),
    ),
    "periodic boundary": _equation(
        [bx.Dense(1, 1, "tanh")],
        lambda s: (s[0].u - s[2].u, s[0].u_x - s[2].u_x),
        "x",
        points=3,
    ),
    "delay and jump": _equation(
        _LINE,
        lambda s: (s[0].u_t + s[0].k * s[1].u, s[1].k * s[1].u_t - s[2].u_t),
        "t",
        unknown={"k": 0.7},
        points=3,
    ),
    "norm and integral": _equation(
        _LINE,
        lambda s: (
            sum(w * p.u**2 for w, p in zip((0.2, 0.5, 0.3), s, strict=True)) - 1.0,
            s[0].u_t + sum(0.5 * p.u for p in s[1:]),
        ),
        "t",
        points=3,
    ),
    "groups with conditions between points": [bx.Groups(_BETWEEN, [1])],
}
NETWORKS = {
    **{kind.__name__: bx.Network(EXAMPLES[kind], "log_cosh", l2=0.1) for kind in LAYERS},
    **{name: bx.Network(layers, "huber", l2=0.1) for name, layers in FEATURES.items()},
}


def sample_case(network: bx.Network, stack: tuple[int, ...] = ()) -> tuple[np.ndarray, ...]:
    """Return theta, x, y and the rows' weights, by NumPy."""
    generator = np.random.default_rng(3)
    x = generator.normal(size=(BATCH, N_IN))
    x = np.where(np.asarray(network.codes or (0,)) > 0, generator.integers(2, size=x.shape), x)
    y = sample_targets(network.loss_function, (BATCH, N_OUT))
    return sample_theta(network, stack), x, y, generator.uniform(0.5, 2.0, BATCH)
