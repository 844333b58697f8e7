"""The diagnosis of a network, whose rows, penalty and pieces are known, says where it is wrong."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted import (
    HALF_A_SQUARE,
    Affine,
    Tampered,
    Unmasked,
    first_column_doubled,
    with_entries,
    with_gradient,
)

METHODS = ["auto", "directional"]
every_method = pytest.mark.parametrize("method", METHODS)

# The strength of the penalty on the weights.
L2 = 0.1
ROWS = 5
# Everything has three columns, so that few shapes are compiled by JAX.
generator = np.random.default_rng(62)
X, Y = generator.normal(size=(2, ROWS, 3))
LAYERS = [bx.Dense(3, 3, "tanh"), bx.Dense(3, 3)]


def _failed(xp: Any, network: bx.Network, method: str, **options: Any) -> Any:
    """Return the report of a network, whose check must fail."""
    theta = xp.initialize(network, seed=2)
    # Away from biases of 0, to which no penalty would apply, and from scales of 1.
    theta = theta + xp.asarray(np.random.default_rng(72).normal(0.0, 0.2, network.size))
    # JAX compiles each operation anew for every shape; of one copy at a time there is one.
    frugal: Any = {"max_memory": 1} if xp.name == "jax" else {}
    x, y = xp.asarray(X), xp.asarray(Y)
    report = bx.check_network(network, theta, x, y, method=method, **frugal, **options)
    assert (report.verdict, report.passed) == ("fail", False)
    return report


# ---- the rows and the penalty


class Misfit(NamedTuple):
    """What is done to the gradient of a network, its l2, and what is said of it."""

    change: Callable[[Any, Any, Any], Any]  # of the gradient, theta and the weights' mask
    l2: float
    says: tuple[str, ...]


MISFITS = {
    "the sum over the rows": Misfit(
        lambda g, theta, mask: ROWS * g,
        0.0,
        ("whole gradient", "factor of 5", "the number of rows", "a sum where a mean belongs"),
    ),
    "the mean of the mean": Misfit(
        lambda g, theta, mask: g / ROWS,
        0.0,
        ("whole gradient", "factor of 1/5", "the number of rows", "a mean where a sum belongs"),
    ),
    "no penalty": Misfit(
        lambda g, theta, mask: g - L2 * mask * theta,
        L2,
        (".weights", "the penalty", "0.1 times"),
    ),
    "half of the penalty": Misfit(
        lambda g, theta, mask: g - 0.5 * L2 * mask * theta, L2, (".weights", "half", "0.1")
    ),
    "twice the penalty": Misfit(
        lambda g, theta, mask: g + L2 * mask * theta, L2, (".weights", "twice", "0.1")
    ),
    "the penalty on biases": Misfit(
        lambda g, theta, mask: g + L2 * (1.0 - mask) * theta,
        L2,
        (".bias", "the penalty", "does not apply"),
    ),
}


@every_method
@pytest.mark.parametrize("name", MISFITS)
def test_a_networks_rows_and_penalty_are_known(xp: Any, name: str, method: str) -> None:
    change, l2, says = MISFITS[name]

    def tamper(gradient: Any, theta: Any) -> Any:
        return change(gradient, theta, bx.Network(LAYERS, "huber").weight_mask(theta))

    report = _failed(xp, Tampered(tamper, LAYERS, l2=l2), method)
    for words in says:
        assert words in report.diagnosis
    kinds = {".weights": ".bias", ".bias": ".weights"}
    assert kinds.get(says[0], "layers[") not in report.diagnosis
    if method == "auto" and says[0] in kinds:
        # Both layers have it.
        for i in range(2):
            assert f"layers[{i}]{says[0]}" in report.diagnosis


@pytest.mark.parametrize("factor", [ROWS, 1.0 / ROWS])
@every_method
def test_rows_that_a_loss_adds_up_are_blamed_on_the_loss(
    xp: Any, factor: float, method: str
) -> None:
    loss = with_gradient(lambda g: factor * g)
    report = _failed(xp, bx.Network(LAYERS, loss), method)
    for words in ("whole gradient", "the number of rows", "the loss fails a check of its own"):
        assert words in report.diagnosis


# ---- the piece of a network that is wrong


def _network(layer: Any, loss: Any = "half_squared_error") -> bx.Network:
    return bx.Network([LAYERS[0], layer, LAYERS[1]], loss)


@every_method
@pytest.mark.parametrize("mistake", ["input", *Affine.names])
def test_a_layer_with_a_wrong_rule_is_named_and_no_other(
    xp: Any, mistake: str, method: str
) -> None:
    diagnosis = _failed(xp, _network(Affine(mistake)), method).diagnosis
    assert f"layers[1] (Affine) fails a check of its own, in the derivative by its {mistake}" in (
        diagnosis
    )
    assert "(Dense)" not in diagnosis
    assert "the loss" not in diagnosis


@every_method
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Unmasked(0.5), "Unmasked"),
        (bx.Residual(Affine("input")), "Residual"),
        (bx.Activate(HALF_A_SQUARE), "Activate"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_layer_is_named_by_its_place_and_kind(
    xp: Any, layer: Any, name: str, method: str
) -> None:
    diagnosis = _failed(xp, _network(layer), method, rng=5).diagnosis
    assert f"layers[1] ({name}) fails a check of its own" in diagnosis
    assert diagnosis.count("fails") == 1


@every_method
def test_two_wrong_layers_are_both_named(xp: Any, method: str) -> None:
    layers: list[Any] = [bx.Dense(3, 3, HALF_A_SQUARE), bx.Dropout(0.5), Affine("scale")]
    diagnosis = _failed(xp, bx.Network(layers, "half_squared_error"), method, rng=5).diagnosis
    assert "layers[0] (Dense) fails" in diagnosis
    assert "layers[2] (Affine) fails" in diagnosis
    assert diagnosis.count("fails") == 2


@every_method
def test_a_loss_with_a_wrong_gradient_is_named_and_no_layer(xp: Any, method: str) -> None:
    network = _network(Affine(), with_gradient(first_column_doubled))
    diagnosis = _failed(xp, network, method).diagnosis
    assert "the loss fails a check of its own" in diagnosis
    assert diagnosis.count("fails") == 1


@pytest.mark.parametrize("method", ["auto", "directional", "taylor"])
def test_what_is_wrong_with_a_piece_is_said_whatever_the_method(xp: Any, method: str) -> None:
    layer = _failed(xp, bx.Network([LAYERS[0], Affine("input"), LAYERS[1]], "huber"), method)
    loss = _failed(xp, bx.Network(LAYERS, with_gradient(first_column_doubled)), method)
    assert "layers[1] (Affine) fails" in layer.diagnosis
    assert "the loss fails" in loss.diagnosis


TAMPERED: dict[str, Callable[[Any, Any], Any]] = {
    "all doubled": lambda g, theta: 2.0 * g,
    "one entry off": lambda g, theta: with_entries(g, lambda entry: entry + 0.5, 7),
}


@every_method
@pytest.mark.parametrize("kind", TAMPERED)
def test_no_piece_is_named_where_the_mistake_is_in_none(xp: Any, kind: str, method: str) -> None:
    network = Tampered(TAMPERED[kind], LAYERS, l2=0.1)
    diagnosis = _failed(xp, network, method).diagnosis or ""
    assert "fails a check of its own" not in diagnosis
    assert ("factor of 2" in diagnosis) == (kind == "all doubled")
