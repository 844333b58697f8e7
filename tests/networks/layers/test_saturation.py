"""Saturated units: their share by the definition, in every kind of layer that has some."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.saturation import first_units

X = np.random.default_rng(3).uniform(-100.0, 100.0, (40, 2))
INNER = bx.mlp([2, 6, 1], hidden="tanh").layers
CHAINS: dict[str, list[Any]] = {
    "Dense": [*INNER],
    "sigmoid": [*bx.mlp([2, 6, 1], hidden="sigmoid").layers],
    "Activate": [bx.Dense(2, 6), bx.Activate("tanh"), bx.Dense(6, 1)],
    "Chain": [bx.Chain(bx.Dense(2, 2), bx.Chain(bx.Activate("tanh"))), bx.Dense(2, 1)],
    "Residual": [bx.Residual(bx.Dense(2, 2, "tanh")), bx.Dense(2, 1)],
    "behind relu": [bx.Dense(2, 6, "relu"), bx.Dense(6, 6, "tanh"), bx.Dense(6, 1)],
    "Constrained": [bx.Constrained(INNER, lambda x: x[..., :1])],
    "Equation": [
        bx.Equation(INNER, lambda s: s.u_x - s.k * s.c, "xy", given=["c"], unknown={"k": 1.0})
    ],
}


def _share(xp: Any, layers: list[Any], x: np.ndarray) -> float | None:
    network = bx.Network(layers, "mean_squared_error")
    theta = xp.initialize(network, stack=3)
    units = first_units(network.layers, network.unpack(theta), xp.asarray(x))
    return None if units is None else float(xp.host(units.saturated_share(units.inputs)))


@pytest.mark.parametrize("name", CHAINS)
def test_the_share_falls_from_most_to_none_as_x_is_scaled(xp: Any, name: str) -> None:
    x = np.concatenate([X, X[:, :1]], axis=1) if name == "Equation" else X
    shares = [_share(xp, CHAINS[name], scale * x) for scale in (1.0, 0.01)]
    assert shares[0] is not None
    assert shares[0] > 0.3
    assert shares[1] == 0.0


def test_the_share_is_that_of_slopes_that_are_0_in_single_precision(xp: Any) -> None:
    network = bx.Network([bx.Dense(1, 1, "tanh")], "mean_squared_error")
    theta, x = xp.put([[1.0, 0.0], [0.5, 0.0]], [[8.0], [10.0], [12.0], [30.0]])
    units = first_units(network.layers, network.unpack(theta), x)
    assert units is not None
    share = float(xp.host(units.saturated_share(units.inputs)))
    assert share == 4 / 8  # 10, 12 and 30 of the first, 30 / 2 of the second


@pytest.mark.parametrize("hidden", ["relu", "gelu", "softplus", "identity"])
def test_units_that_do_not_saturate_have_no_share(xp: Any, hidden: str) -> None:
    assert _share(xp, [*bx.mlp([2, 6, 1], hidden=hidden).layers], X) is None


def test_columns_that_layers_take_each_for_itself_are_no_chain(xp: Any) -> None:
    columns = bx.Columns(bx.Dense(1, 1), bx.Dense(1, 1, "tanh"))
    assert _share(xp, [columns, *INNER], X * [1e-3, 1.0]) == 0.0
    equation = bx.Equation(INNER, lambda s: s.u_x, "xy")
    points = np.concatenate([X, X], axis=1)
    assert _share(xp, [bx.Groups([equation], [2])], points) is None
