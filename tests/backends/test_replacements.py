"""Replacements of reference functions by the array's backend."""

import contextvars
import threading
from types import FunctionType
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import (
    LayerFunctions,
    TrainingTable,
    dispatch,
    holding,
    replaceable,
    replaced_layers,
)
from backprop_xp.networks.chain.propagation import every_layer

X, Y = np.linspace(-1.0, 1.0, 12).reshape(6, 2), np.ones((6, 1))
THETA = np.ones(1)


def double(array: Any, factor: float = 2.0) -> Any:
    return array * factor


NAME = f"{__name__}.double"


@pytest.fixture
def scaled() -> Any:
    """``double`` as a function that has not seen an array yet."""
    fresh = FunctionType(double.__code__, {}, "double", double.__defaults__)
    fresh.__module__, fresh.__qualname__ = __name__, "double"
    return replaceable(fresh)


def faster(array: Any, factor: float = 2.0) -> Any:
    return NotImplemented if factor == 3.0 else "faster"


def in_training(array: Any, factor: float = 2.0) -> Any:
    return NotImplemented if factor >= 3.0 else "in training"


def test_a_replacement_holds_for_its_backend_only_and_may_decline_arguments(
    scaled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(type(bx.get_backend("numpy")).replacements, NAME, faster)
    strict = bx.asarray([1.0], backend="array-api-strict")
    assert scaled(np.ones(1)) == "faster"
    assert scaled(np.ones(1), 3.0) == 3.0
    assert float(scaled(strict)[0]) == 2.0
    assert scaled(5.0) == 10.0  # an array of no backend
    assert scaled(array=5.0) == 10.0


def test_those_of_a_training_come_first_and_what_they_decline_goes_on(
    scaled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(type(bx.get_backend("numpy")).replacements, NAME, faster)
    table = TrainingTable({NAME: in_training}, THETA)
    with holding(table):
        assert scaled(np.ones(1)) == "in training"
        assert dispatch(scaled, np.ones(1)) is in_training
        assert scaled(np.ones(1), 4.0) == "faster"
        assert scaled(np.ones(1), 3.0) == 3.0
        strict = bx.asarray([1.0], backend="array-api-strict")
        assert float(scaled(strict)[0]) == 2.0
        assert scaled(5.0) == 10.0
    assert dispatch(scaled, np.ones(1)) is not in_training


def test_they_hold_within_a_block_of_one_thread_and_task_also_after_an_error(
    scaled: Any,
) -> None:
    inner, outer = ({NAME: lambda array, name=name: name} for name in ("inner", "outer"))
    found = []
    with holding(TrainingTable(outer, THETA)):
        with holding(None):
            found.append(scaled(np.ones(1)))
        with holding(TrainingTable(inner, THETA)):
            found.append(scaled(np.ones(1)))
            with pytest.raises(ZeroDivisionError), holding(None):
                raise ZeroDivisionError
            found.append(scaled(np.ones(1)))
            thread = threading.Thread(target=lambda: found.append(scaled(np.ones(1))))
            thread.start()
            thread.join()
            contextvars.Context().run(lambda: found.append(scaled(np.ones(1))))
        found.append(scaled(np.ones(1)))
    found.append(scaled(np.ones(1)))
    assert found == [2.0, "inner", "inner", 2.0, 2.0, "outer", 2.0]


def test_a_layer_is_replaced_by_its_class_and_for_itself() -> None:
    def negated(layer: Any) -> Any:
        def forward(parameters: Any, x: Any, rng: Any) -> Any:
            y, cache = layer.forward(parameters, x, rng)
            return -y, cache

        return None if layer.n_in == 3 else LayerFunctions(forward, layer.backward)

    class Own(bx.Dense):
        """A user's class may have other rules."""

    layers = [bx.Dense(2, 2), bx.Residual(bx.Dense(2, 3), bx.Dense(3, 2)), Own(2, 2)]
    table = TrainingTable({f"{bx.Dense.__module__}.Dense": negated}, THETA, every_layer(layers))
    assert table.layers.keys() == {id(layers[0]), id(layers[1].layers[0])}
    assert not replaced_layers()
    network = bx.Network([layers[0]], "mean_squared_error")
    theta = network.initialize(seed=0, backend="numpy")
    with holding(table):
        assert replaced_layers() is table.layers
        outputs = network.forward(theta, X)
        other = bx.Network([bx.Dense(2, 2)], "mean_squared_error").forward(theta, X)
    np.testing.assert_array_equal(outputs, -network.forward(theta, X))
    np.testing.assert_array_equal(other, network.forward(theta, X))


class Descent:
    """An optimizer that takes the objective, and a step before the first one."""

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def begin(self, theta: Any, objective: Any) -> Any:
        return theta - 0.01 * objective.loss_and_gradient(theta)[1]

    def advance(self, theta: Any, state: tuple[()], objective: Any) -> Any:
        loss, gradient = objective.loss_and_gradient(theta)
        return theta - 0.01 * gradient, state, loss


class Numba:
    """Settings of BACKPROP_XP_COMPILE for a training and for those within it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("numba", reason="the extra fast is not installed")
        self.monkeypatch = monkeypatch
        self.network = bx.mlp([2, 300, 1], hidden="tanh")
        self.theta = self.network.initialize(seed=0, backend="numpy")

    def fit(self, setting: str, **options: Any) -> np.ndarray:
        self.monkeypatch.setenv("BACKPROP_XP_COMPILE", setting)
        given = {"optimizer": bx.Adam(0.05), "epochs": 3, **options}
        theta: np.ndarray = bx.fit(self.network, self.theta, X, Y, **given).theta
        return theta


def test_a_training_within_another_has_the_bits_that_it_has_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numba = Numba(monkeypatch)
    for optimizer in (bx.Adam(0.05), bx.LevenbergMarquardt(), Descent()):
        alone = {one: numba.fit(one, optimizer=optimizer) for one in "01"}
        for outer in "01":
            for inner in "01":
                within = []

                def metric(predictions: Any, targets: Any, weights: Any) -> float:
                    within.append(numba.fit(inner, optimizer=optimizer))  # noqa: B023
                    return 0.0

                around = numba.fit(outer, metrics={"within": metric})
                np.testing.assert_array_equal(around, numba.fit(outer))
                for theta in within:
                    np.testing.assert_array_equal(theta, alone[inner])
    assert (numba.fit("0") != numba.fit("1")).any()  # else the test could not fail


def test_callbacks_have_numpys_functions_and_an_error_in_a_step_leaves_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numba = Numba(monkeypatch)
    held: list[bool] = []

    def note() -> None:
        held.append(bool(replaced_layers()))

    numba.fit("1", metrics={"held": lambda *given: note() or 0.0})
    assert held == [True] * 3
    held.clear()
    numba.fit("1", callbacks=[lambda state: note()])
    assert held == [False] * 3

    def fails(*_: Any) -> float:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        numba.fit("1", metrics={"fails": fails})
    assert not replaced_layers()
