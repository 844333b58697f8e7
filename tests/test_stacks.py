"""Stacks of networks, in every function that takes them.

A stack equals its networks one by one, and a network of NaN or infinity does not change the others.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.training.measures.metrics import METRICS
from tests.user_layers import (
    PARAMETRIC_LOSSES,
    sample_data,
    sample_network,
    sample_targets,
    sample_theta,
)

# Libraries sum the products of a stack and of one network in different orders: a few roundings of
# 2e-16 in a pass, and more over a few dozen updates.
ROUNDING, SAME_TRAINING = 1e-12, 1e-9

STACK = 3
RNG = 17


class Row(NamedTuple):
    """A function ``(xp, **arrays)`` that returns arrays, and its arrays on the host.

    The arrays of ``each`` have a stack's axes first. ``shared`` is the same for every network.
    """

    function: Callable[..., Sequence[Any]]
    each: dict[str, np.ndarray]
    shared: Mapping[str, Any] = MappingProxyType({})
    axes: int = 1  # of the stack
    tolerance: float = ROUNDING

    def results(self, xp: Any, index: tuple[int, ...] = ()) -> list[np.ndarray]:
        """Return the results of the stack, or of the network at an index, on the host."""
        each = {name: array[index] for name, array in self.each.items()}
        with np.errstate(invalid="ignore", over="ignore"):
            return [np.array(xp.host(array)) for array in self.function(xp, **each, **self.shared)]

    @property
    def stack(self) -> tuple[int, ...]:
        return next(iter(self.each.values())).shape[: self.axes]


def _draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(4).normal(size=shape)


def _scalar_or_array(xp: Any, value: np.ndarray, *, column: bool = False) -> Any:
    if not value.shape:
        return value.item()
    return xp.asarray(value[..., None] if column else value)


# ---- activations, losses and metrics


def activations() -> dict[str, Row]:
    def row(activation: bx.Activation) -> Row:
        def function(xp: Any, z: np.ndarray, g: np.ndarray) -> list[Any]:
            a = activation.value(xp.asarray(z))
            known_z = None if activation.from_output else xp.asarray(z)
            return [a, activation.vjp(xp.asarray(g), known_z, a)]

        return Row(function, {"z": _draw(2, 3, 2, 4), "g": _draw(2, 3, 2, 4)[::-1]}, axes=2)

    made = {"leaky_relu_with": bx.activations.leaky_relu_with(0.25)}
    return {f"activation {name}": row(one) for name, one in {**ACTIVATIONS, **made}.items()}


def losses() -> dict[str, Row]:
    def row(loss: bx.Loss) -> Row:
        def function(xp: Any, outputs: np.ndarray, targets: np.ndarray) -> list[Any]:
            o, t = xp.put(outputs, targets)
            return [loss.value(o, t), loss.gradient(o, t)]

        targets = sample_targets(loss, (4, 6))
        return Row(function, {"outputs": 2.0 * _draw(2, 3, 4, 6)}, {"targets": targets}, axes=2)

    return {f"loss {name}": row(one) for name, one in {**LOSSES, **PARAMETRIC_LOSSES}.items()}


def metrics() -> dict[str, Row]:
    def row(metric: Any) -> Row:
        def function(xp: Any, predictions: np.ndarray, targets: np.ndarray) -> list[Any]:
            return [metric(*xp.put(predictions, targets), None)]

        targets = np.eye(6)[np.arange(20) % 6]
        each = {"predictions": targets + 0.6 * _draw(STACK, 20, 6)}
        return Row(function, each, {"targets": targets})

    return {f"metric {name}": row(one) for name, one in METRICS.items()}


# ---- networks


def _passes(
    xp: Any, theta: Any, x: Any, y: Any, weight: Any, l2: np.ndarray, rng: Any = None
) -> list[Any]:
    network = sample_network()
    theta, x, y, weight = xp.put(theta, x, y, weight)
    if hasattr(rng, "shape"):
        rng = xp.asarray(rng, dtype="int64") if rng.size > 1 else int(rng.item())
    options = {"sample_weight": weight, "rng": rng, "l2": _scalar_or_array(xp, l2)}
    return [
        network.forward(theta, x, rng=rng),
        network.predict(theta, x),
        network.loss(theta, x, y, **options),
        *network.loss_and_gradient(theta, x, y, **options),
        *network.vjp(theta, x, y, rng=rng),
    ]


def networks() -> dict[str, Row]:
    """Return rows with shared data, or with data, penalty and key of each network."""
    rows = {}
    for stack, own, rng in itertools.product(((4,), (2, 3)), (False, True), ("none", "int", "key")):
        x, y, weight = sample_data(stack=stack if own else ())
        l2 = np.random.default_rng(23).uniform(0.1, 1.0, stack if own else ())
        each, shared = {"theta": sample_theta(sample_network(), stack)}, {}
        (each if own else shared).update(x=x, y=y, weight=weight, l2=l2)
        if rng == "key":
            each["rng"] = np.random.default_rng(22).integers(0, 2**31, (*stack, 1, 1))
        else:
            shared["rng"] = RNG if rng == "int" else None
        name = f"network, {stack}, {'own' if own else 'shared'} data, rng {rng}"
        rows[name] = Row(_passes, each, shared, axes=len(stack))
    return rows


def shared_x() -> dict[str, Row]:
    """Return rows in which the layer that gets a shared x has no parameters, or only a norm's."""

    def row(first: Any) -> Row:
        network = bx.Network([first, bx.Dense(3, 2)], "mean_squared_error")

        def function(xp: Any, theta: np.ndarray, g: np.ndarray, x: np.ndarray) -> Sequence[Any]:
            return network.vjp(*xp.put(theta, x, g))

        each = {"theta": sample_theta(network, (4,)), "g": _draw(4, 5, 2)}
        return Row(function, each, {"x": sample_data()[0]})

    kinds = ("relu", "sigmoid")
    first = [*map(bx.Activate, kinds), bx.LayerNorm(3), bx.Residual(bx.LayerNorm(3))]
    return {f"vjp, shared x, {layer!r}": row(layer) for layer in first}


# ---- optimizers

MASK = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
ADAM = {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}
ADAMW = {**ADAM, "weight_decay": 0.3}
# Values of hyperparameters, one for each network.
VALUES = {"learning_rate": [0.1, 0.0, 0.3], "epsilon": [1e-8, 1e-3, 1.0]}
VALUES |= {name: [0.5, 0.1, 0.99] for name in ("momentum", "decay", "beta1", "beta2")}
VALUES |= {"weight_decay": [0.1, 0.0, 1.0], "initial": [0.0, 0.1, 1.0]}
VALUES |= {"momentum_decay": [0.0, 4e-3, 0.1]}
# An optimizer, its hyperparameters, and those that each network may have for itself.
OPTIMIZERS: dict[str, tuple[Any, dict[str, Any], Sequence[str]]] = {
    "SGD": (
        bx.SGD,
        {"learning_rate": 0.1, "momentum": 0.8},
        ("learning_rate", "momentum"),
    ),
    "Nesterov": (bx.SGD, {"learning_rate": 0.1, "nesterov": True}, ("momentum",)),
    "RMSProp": (
        bx.RMSProp,
        {"learning_rate": 0.02, "decay": 0.9, "epsilon": 1e-3},
        ("learning_rate", "decay", "epsilon"),
    ),
    "Adam": (bx.Adam, ADAM, tuple(ADAM)),
    "AdamW": (bx.AdamW, ADAMW, tuple(ADAMW)),
    "AdamW with a mask": (bx.AdamW, {**ADAMW, "mask": MASK}, ("weight_decay", "mask")),
    "AMSGrad": (bx.Adam, {**ADAM, "amsgrad": True}, ("beta2",)),
    "Adagrad": (
        bx.Adagrad,
        {"learning_rate": 0.1, "initial": 0.1, "epsilon": 1e-3},
        ("learning_rate", "initial", "epsilon"),
    ),
    "Nadam": (bx.Nadam, {**ADAM, "momentum_decay": 4e-3}, (*ADAM, "momentum_decay")),
    "Lion": (
        bx.Lion,
        {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.9, "weight_decay": 0.3, "mask": MASK},
        ("learning_rate", "beta1", "beta2", "weight_decay", "mask"),
    ),
    "Adam with a schedule": (
        lambda learning_rate: bx.Adam(bx.schedules.step_decay(learning_rate, every=4)),
        {},
        ("learning_rate",),
    ),
}


def _updates(
    xp: Any, name: str, theta: Any, gradients: np.ndarray, **own: np.ndarray
) -> list[np.ndarray]:
    """Return theta after each update; ``gradients`` is ``(..., steps, P)``."""
    make, options, _ = OPTIMIZERS[name]
    masks = {key: xp.asarray(v) for key, v in {**options, **own}.items() if key == "mask"}
    numbers = {k: _scalar_or_array(xp, v, column=True) for k, v in own.items() if k != "mask"}
    optimizer, theta = make(**{**options, **numbers, **masks}), xp.asarray(theta.copy())
    state, path = optimizer.initialize(theta), []
    for gradient in np.moveaxis(gradients, -2, 0):
        theta, state = optimizer.update(theta, xp.asarray(gradient.copy()), state)
        path.append(np.array(xp.host(theta)))  # the next update reuses the memory
    return path


def optimizers() -> dict[str, Row]:
    gradients = _draw(STACK, 10, 7) * np.geomspace(1e-2, 1e1, 7)
    gradients[:, :5, 3] = 0.0
    arrays, rows = {"theta": _draw(STACK, 7), "gradients": gradients}, {}
    masks = np.stack([MASK, 1.0 - MASK, MASK[::-1]])
    for name, (_, _, hyperparameters) in OPTIMIZERS.items():
        for own in hyperparameters:
            values = masks if own == "mask" else np.asarray(VALUES[own])
            each = {**arrays, own: values}
            rows[f"{name}, own {own}"] = Row(_updates, each, {"name": name})
    return rows


# ---- trainings


def _fit(xp: Any, theta: Any, x: Any, y: Any, **options: Any) -> list[Any]:
    network = bx.mlp([3, 5, 2], hidden="tanh", **options.pop("network", {}))
    if "validation" in options:
        options["validation"] = tuple(xp.put(*options["validation"]))
    if "sample_weight" in options:
        options["sample_weight"] = xp.asarray(options["sample_weight"])
    if "learning_rate" in options:
        options["optimizer"] = bx.SGD(
            _scalar_or_array(xp, options.pop("learning_rate"), column=True)
        )
    options = {"optimizer": bx.Adam(0.05), "epochs": 3, "batch_size": 4, **options}
    result = bx.fit(network, *xp.put(theta, x, y), **options)
    return [result.theta, *(np.moveaxis(values, 0, -1) for values in result.history.values())]


def _fit_with_l2(xp: Any, theta: Any, l2: np.ndarray, **options: Any) -> list[Any]:
    """Train a stack with an array l2, or a network with its own l2."""
    if l2.shape:
        return _fit(xp, theta, l2=xp.asarray(l2), **options)
    return _fit(xp, theta, network={"l2": float(l2)}, **options)


def trainings() -> dict[str, Row]:
    network, rows = bx.mlp([3, 5, 2]), 11
    theta = {"theta": sample_theta(network, (STACK,))}
    x, y = _draw(STACK, rows, 3), _draw(STACK, rows, 2)[:, ::-1]
    weights = np.random.default_rng(32).uniform(0.5, 2.0, (STACK, rows))
    weights[0, :8], weights[1, :4] = 0.0, 0.0  # whole batches of 4
    shared: dict[str, Any] = {"x": x[0], "y": y[0]}
    everything = {
        "network": {"dropout": 0.3, "l2": 0.01},
        "validation": (x[1], y[1]),
        "sample_weight": weights[2],
        "clip": 1.5,  # of some networks, not of others
        "early_stopping": bx.EarlyStopping(patience=5),
    }
    own = {"x": x, "y": y, "sample_weight": weights, "learning_rate": np.array([0.1, 0.01, 0.0])}
    strengths = {"l2": np.array([0.0, 0.1, 1.0])}
    plateau = {"optimizer": bx.SGD(0.9, momentum=0.5), "epochs": 25, "validation": (x[1], y[1])}
    plateau["plateau"] = bx.Plateau(factor=0.5, patience=2, min_delta=0.01)
    watch_loss = {"early_stopping": bx.EarlyStopping()}

    def row(function: Any, each: dict[str, Any], more: dict[str, Any]) -> Row:
        return Row(function, theta | each, more, tolerance=SAME_TRAINING)

    return {
        "fit": row(_fit, {}, shared | everything),
        "fit, own rows and learning_rate": row(_fit, own, {"shuffle": False}),
        "fit, own l2": row(_fit_with_l2, strengths, shared | watch_loss),
        "fit, own l2, full batch": row(
            _fit_with_l2, strengths, {**shared, **watch_loss, "batch_size": None}
        ),
        "fit, plateau": row(_fit, {}, shared | plateau),
    }


ROWS = activations() | losses() | metrics() | networks() | shared_x() | optimizers() | trainings()
# JAX compiles every operation of a row: its default session has one or two rows of each kind. The
# conformance kit has the passes of a stack there.
ON_JAX = {"metric r2", "vjp, shared x, LayerNorm(3)", "SGD, own momentum"}
ON_JAX |= {"AdamW with a mask, own mask", "fit, own l2, full batch"}
assert ROWS.keys() >= ON_JAX
every_row = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, id=name, marks=[pytest.mark.core] * (name in ON_JAX))
        for name, row in ROWS.items()
    ],
)


@every_row
def test_a_stack_equals_its_networks_one_by_one(xp: Any, row: Row) -> None:
    together = row.results(xp)
    for i in np.ndindex(row.stack):
        for one, other in zip(together, row.results(xp, i), strict=True):
            xp.assert_close(one[i], other, row.tolerance)


@every_row
def test_a_network_of_nan_or_infinity_does_not_change_the_others(xp: Any, row: Row) -> None:
    name, array = next(iter(row.each.items()))
    healthy, sick = row.results(xp), (1,) * row.axes
    others = np.ones(row.stack, dtype=bool)
    others[sick] = False
    for poison in (np.nan, np.inf):
        poisoned = array.copy()
        poisoned[sick] = poison
        results = row._replace(each={**row.each, name: poisoned}).results(xp)
        for result, expected in zip(results, healthy, strict=True):
            np.testing.assert_array_equal(result[others], expected[others])
        changed = zip(results, healthy, strict=True)
        assert not all(np.array_equal(one[sick], other[sick]) for one, other in changed)
