"""The reprs of objects that users make."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.initializers import INITIALIZERS

schedules = bx.schedules


def cube(z: Any) -> Any:
    return z**3


# The code that makes each object, without ``bx.``.
TEXTS = [
    "Dense(2, 8, 'tanh')",
    "Dense(2, 8, initializer='he_uniform', bias_initializer=initializers.uniform(-1.0, 1.0))",
    "Activate('gelu')",
    "Dropout(0.5)",
    "LayerNorm(8)",
    "LayerNorm(8, 0.001)",
    "Scale(8)",
    "NumericEmbedding(3)",
    "NumericEmbedding(3, 2, 'pl', frequency_scale=1.0)",
    "Columns(Embedding((12, 5), 4), NumericEmbedding(3))",
    "Columns(Scale(1), LayerNorm(2))",
    "Embedding(12, 4)",
    "Embedding((12, 5), 4, 'zeros')",
    "Chain(Dense(2, 3, 'relu'), Chain(Dropout(0.1)))",
    "Residual(Dense(2, 3, 'relu'), Dropout(0.1), Dense(3, 2))",
    "Network([Residual(Dense(2, 2)), Dense(2, 1)], 'binary_cross_entropy', l2=0.0001)",
    "SGD(0.1)",
    "SGD(0.1, momentum=0.9, nesterov=True)",
    "RMSProp(0.01)",
    "Adam(0.001, beta2=0.99)",
    "AdamW(0.001, weight_decay=0.1)",
    "Adam(0.001, amsgrad=True)",
    "Adagrad(0.01, initial=0.1)",
    "Nadam(0.002, momentum_decay=1.0)",
    "Lion(0.0001, weight_decay=0.1)",
    "Adam(schedules.warmup(schedules.cosine(0.1, 100, 0.01), 10))",
    "schedules.constant(0.1)",
    "schedules.step_decay(0.1, 10, 0.5)",
    "schedules.exponential(0.1, 0.9)",
    "schedules.inverse_scaling(0.1)",
    "schedules.one_cycle(0.1, 100, last=10.0)",
    "schedules.epochs(schedules.cosine_restarts(0.1, 100, final=0.01))",
    "schedules.epochs(schedules.constant(0.1), 7)",
    "schedules.chain([schedules.constant(0.1), schedules.cosine(0.1, 10)], [5])",
    "Dense(2, 8, activations.leaky_relu_with(0.2))",
    *("losses.huber_with(2.0)", "losses.quantile(0.1, 0.9)", "losses.tweedie(1.2)"),
    *("losses.focal(1.0)", "losses.smoothed(losses.focal(1.0), 0.1)"),
    "losses.smoothed('categorical_cross_entropy', 0.1)",
    "EarlyStopping(5, watch='accuracy', mode='max')",
    "Plateau(0.5, watch='accuracy', mode='max')",
    *(f"Dense(2, 1, initializer={name!r})" for name in INITIALIZERS if name != "glorot_uniform"),
    *(f"Network([Dense(2, 2)], {name!r})" for name in LOSSES),
    *(f"activations.{name}" for name in ACTIVATIONS),
    *(f"losses.{name}" for name in LOSSES),
]


@pytest.mark.parametrize("text", TEXTS)
def test_an_object_prints_as_the_code_that_makes_it(text: str) -> None:
    made = eval(text, dict(vars(bx)))  # noqa: S307 - our own code
    assert repr(made) == text
    assert repr(copy.deepcopy(made)) == text
    assert repr(pickle.loads(pickle.dumps(made))) == text  # noqa: S301 - our own bytes


def test_a_built_in_object_prints_as_its_name() -> None:
    he_normal = INITIALIZERS["he_normal"]
    made = bx.Dense(2, 2, bx.activations.relu, initializer=he_normal)
    assert repr(made) == "Dense(2, 2, 'relu', initializer='he_normal')"
    assert repr(bx.Network([bx.Dense(2, 2)], bx.losses.huber)).endswith("'huber')")


def test_a_custom_callable_prints_by_its_qualified_name() -> None:
    def inner(step: int) -> float:
        return 0.1

    made, part = bx.losses.over_outputs(cube), "losses.over_outputs(cube)"
    scope = "test_a_custom_callable_prints_by_its_qualified_name.<locals>"
    for thing, text in (
        (bx.Activation(cube, cube, from_output=True), "Activation(cube, cube, from_output=True)"),
        (bx.Dense(2, 3, initializer=cube), "Dense(2, 3, initializer=cube)"),
        (bx.Loss(cube, cube, labels=True), "Loss(cube, cube, labels=True)"),
        (made, f"Loss({part}.value, {part}.gradient)"),
        (bx.SGD(inner), f"SGD({scope}.inner)"),
        (bx.SGD(lambda step: 0.1), f"SGD({scope}.<lambda>)"),
    ):
        assert repr(thing) == text


def test_an_array_prints_by_dtype_and_shape_and_stays_on_its_device(xp: Any) -> None:
    rates = xp.asarray(np.ones((3, 1)))
    with bx.transfer_guard("disallow"):
        assert repr(bx.Adam(rates)) == f"Adam(<{xp.dtype} (3, 1)>)"
        assert repr(schedules.constant(rates)) == f"schedules.constant(<{xp.dtype} (3, 1)>)"
        mask = bx.AdamW(mask=rates[:, 0])
        assert repr(mask) == f"AdamW(0.001, mask=<{xp.dtype} (3,)>)"


def test_an_object_of_a_custom_class_prints_whatever_its_fields_are() -> None:
    class Silent(bx.Dropout):
        __repr__ = object.__repr__

    class Wide(bx.Dense):
        def __init__(self, width: int) -> None:
            super().__init__(width, width)

    scope = "test_an_object_of_a_custom_class_prints_whatever_its_fields_are.<locals>"
    assert repr(Wide(3)) == f"{scope}.Wide(...)"
    assert repr(bx.Residual(Silent(0.1))) == f"Residual(<{scope}.Silent>)"


@pytest.mark.parametrize("text", TEXTS)
def test_objects_made_by_the_same_call_are_equal(text: str) -> None:
    one, other = (eval(text, dict(vars(bx))) for _ in range(2))  # noqa: S307 - our own code
    assert one == other
    assert hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301 - our own bytes
    assert one != bx.SGD(0.5)
    assert one != text
