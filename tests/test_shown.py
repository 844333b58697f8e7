"""What a user makes prints as one would write it."""

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.initializers import INITIALIZERS
from backprop_xp.losses import LOSSES

schedules = bx.schedules


def cube(z: Any) -> Any:
    return z**3


def ones_too(generator: Any, shape: tuple[int, int]) -> np.ndarray:
    return np.ones(shape)


class Silent:
    """A layer of one's own that says nothing about how it prints."""

    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()
    keeps_width = True

    def initialize(self, generator: Any) -> tuple[()]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return x, None

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        return g, ()


# Each is the text of what makes it, as written behind ``bx.``.
TEXTS = [
    "Dense(2, 8, 'tanh')",
    "Dense(2, 8)",
    "Dense(2, 8, initializer='he_uniform', bias_initializer=initializers.uniform(-1.0, 1.0))",
    "Activate('gelu')",
    "Dropout(0.5)",
    "LayerNorm(8)",
    "LayerNorm(8, 0.001)",
    "Residual(Dense(2, 3, 'relu'), Dropout(0.1), Dense(3, 2))",
    "Network([Dense(2, 8, 'tanh'), Dense(8, 1)], 'binary_cross_entropy', l2=0.0001)",
    "Network([Residual(Dense(2, 2)), Dense(2, 1)], 'mean_squared_error')",
    "SGD(0.1)",
    "SGD(0.1, momentum=0.9, nesterov=True)",
    "RMSProp(0.01)",
    "Adam(0.001)",
    "Adam(0.001, beta2=0.99)",
    "AdamW(0.001, weight_decay=0.1)",
    "Adam(schedules.warmup(schedules.cosine(0.1, 100, 0.01), 10))",
    "schedules.constant(0.1)",
    "schedules.step_decay(0.1, 10, 0.5)",
    "schedules.exponential(0.1, 0.9)",
    "schedules.inverse_scaling(0.1)",
    "schedules.chain([schedules.constant(0.1), schedules.cosine(0.1, 10)], [5])",
    "schedules.plateau(schedules.constant(0.1), 0.5, watch='accuracy', mode='max')",
    "initializers.uniform(-1.0, 1.0)",
    "Dense(2, 8, activations.leaky_relu_with(0.2))",
    "losses.huber_with(2.0)",
    "EarlyStopping(5, watch='accuracy', mode='max')",
    *(f"activations.{name}" for name in ACTIVATIONS),
    *(f"losses.{name}" for name in LOSSES),
]


@pytest.mark.parametrize("text", TEXTS)
def test_what_is_made_prints_as_it_is_written(text: str) -> None:
    made = eval(text, dict(vars(bx)))  # noqa: S307 - our own texts
    assert repr(made) == text
    assert repr(copy.deepcopy(made)) == text
    assert repr(pickle.loads(pickle.dumps(made))) == text  # noqa: S301 - our own bytes


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name != "glorot_uniform"])
def test_an_initialiser_of_the_table_prints_by_its_name(name: str) -> None:
    assert repr(bx.Dense(2, 1, initializer=name)) == f"Dense(2, 1, initializer={name!r})"
    assert repr(bx.Dense(2, 1, initializer=INITIALIZERS[name])).endswith(f"initializer={name!r})")


@pytest.mark.parametrize("name", ["losses", "activations"])
def test_an_object_prints_as_its_name_does(name: str) -> None:
    if name == "losses":
        layers = [bx.Dense(2, 2)]
        for loss, known in LOSSES.items():
            assert repr(bx.Network(layers, known)) == f"Network([Dense(2, 2)], {loss!r})"
    else:
        assert repr(bx.Dense(2, 2, bx.activations.relu)) == "Dense(2, 2, 'relu')"


def test_a_callable_of_ones_own_prints_by_its_qualified_name() -> None:
    def inner(step: int) -> float:
        return 0.1

    activation = bx.Activation(cube, cube, from_output=True)
    assert (
        repr(bx.Dense(2, 3, activation)) == "Dense(2, 3, Activation(cube, cube, from_output=True))"
    )
    assert repr(bx.Dense(2, 3, initializer=ones_too)) == "Dense(2, 3, initializer=ones_too)"
    assert repr(bx.Loss(cube, cube, labels=True)) == "Loss(cube, cube, labels=True)"
    made = bx.losses.over_outputs(cube)
    part = "losses.over_outputs(cube)"
    assert repr(made) == f"Loss({part}.value, {part}.gradient)"
    scope = "test_a_callable_of_ones_own_prints_by_its_qualified_name.<locals>"
    assert repr(bx.SGD(inner)) == f"SGD({scope}.inner)"
    assert repr(bx.SGD(lambda step: 0.1)) == f"SGD({scope}.<lambda>)"
    assert repr(bx.Residual(Silent())) == "Residual(<Silent>)"


def test_an_array_prints_by_dtype_and_shape_and_stays_where_it_is(xp: Any) -> None:
    rates = xp.asarray(np.ones((3, 1)))
    with bx.transfer_guard("disallow"):
        assert repr(bx.Adam(rates)) == f"Adam(<{xp.dtype} (3, 1)>)"
        assert repr(schedules.constant(rates)) == f"schedules.constant(<{xp.dtype} (3, 1)>)"
        mask = bx.AdamW(mask=rates[:, 0])
        assert repr(mask) == f"AdamW(0.001, mask=<{xp.dtype} (3,)>)"


def test_a_derived_class_prints_whatever_it_is_made_of() -> None:
    class Wide(bx.Dense):
        def __init__(self, width: int) -> None:
            super().__init__(width, width)

    assert repr(Wide(3)).endswith("Wide(...)")


def test_printing_asks_nothing_of_equality_or_hashing() -> None:
    one, other = bx.Dense(2, 8, "tanh"), bx.Dense(2, 8, "tanh")
    assert one == other
    assert hash(one) == hash(other)
    assert bx.Adam() != bx.Adam()  # by identity: hyperparameters may be arrays
    assert schedules.constant(0.1) != schedules.constant(0.1)
    assert len({bx.Adam(schedules.constant(np.ones((2, 1)))), bx.Adam()}) == 2
