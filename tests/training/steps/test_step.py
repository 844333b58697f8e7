"""Steps: kinds of optimizers and rates, and the use of compilers.

Specifies ``pytrees`` and ``traced``.
"""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.training.optimizers.protocol import Traits, traits_of
from backprop_xp.training.optimizers.pytrees import put_together, take_apart
from backprop_xp.training.steps.compiled import Queue, _columns
from backprop_xp.training.steps.eager import into_one_buffer
from backprop_xp.training.steps.step import clip_norm
from tests.helpers import long
from tests.user_layers import PassThrough

pytestmark = pytest.mark.core

# Rounding of about a hundred operations; a compiler changes their order.
SAME = 1e-12
ROWS, BATCH = 11, 4  # two full batches and a smaller last one

generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, 3))
Y = generator.uniform(0.1, 0.9, size=(ROWS, 2))


def _network(**options: Any) -> bx.Network:
    return bx.mlp([3, 4, 2], hidden="tanh", **options)


def _fit(xp: Any, network: bx.Network, optimizer: Any, **options: Any) -> bx.FitResult:
    theta = xp.initialize(network, stack=options.pop("stack", ()))
    return bx.fit(network, theta, xp.asarray(X), xp.asarray(Y), optimizer=optimizer, **options)


# ---- one buffer for all gradients


def test_the_gradients_of_one_theta_share_a_buffer_and_those_of_another_do_not() -> None:
    network, rows = _network(), Rows(X, Y)
    first, second = (network.initialize(seed, backend="numpy") for seed in (0, 1))
    gradient_of = into_one_buffer(network.definition)
    _, gradient = gradient_of(first, rows, None)
    first *= 0.5  # in place, as an update
    assert gradient_of(first, rows, None)[1] is gradient
    np.testing.assert_array_equal(gradient, network.loss_and_gradient(first, X, Y)[1])
    _, other = gradient_of(second, rows, None)
    assert other is not gradient
    np.testing.assert_array_equal(other, network.loss_and_gradient(second, X, Y)[1])


# ---- slices that are copies


def _trained(**options: Any) -> list[Any]:
    """Return the arrays of a training of a stack on array-api-strict, on the host."""
    strict = {"backend": "array-api-strict", "device": "device1"}
    x, y = (bx.asarray(values, **strict) for values in (X, Y))
    network = _network(layer_norm=True, l2=0.01)
    theta = network.initialize(stack=2, **strict)
    options = {"epochs": 3, "batch_size": BATCH, "validation": (x, y), **options}
    result = bx.fit(network, theta, x, y, **options)
    return [bx.to_host(result.theta), *result.history.values()]


OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"optimizer": name} for name in bx.optimizers.OPTIMIZERS if name != "sgd"},
    "sgd": {"optimizer": bx.SGD(0.1)},
    "momentum": {"optimizer": bx.SGD(0.1, momentum=0.9)},
    "an optimizer of the objective": {"optimizer": "lbfgs", "batch_size": None},
    "Gauss-Newton": {"optimizer": "levenbergmarquardt", "batch_size": None},
    "an average": {"optimizer": "adam", "average": bx.EMA(0.5)},
    "accumulated": {"optimizer": "adam", "batch_size": 2, "accumulate": 2},
    "clipped": {"optimizer": "adam", "clip": 0.1},
    "stopped early": {"optimizer": bx.Adam(0.5), "early_stopping": bx.EarlyStopping(patience=1)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_training_is_the_same_where_slices_are_copies(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    xp = pytest.importorskip("array_api_strict")
    expected, kind = _trained(**options), type(xp.empty(0))
    for name in ("__getitem__", "reshape"):
        holder = kind if name == "__getitem__" else xp
        original = getattr(holder, name)
        monkeypatch.setattr(
            holder,
            name,
            lambda *given, original=original, **more: xp.asarray(
                original(*given, **more), copy=True
            ),
        )
    for one, other in zip(_trained(**options), expected, strict=True):
        assert np.array_equal(one, other)


# ---- learning rates


RATES: dict[str, Callable[[Any], Any]] = {
    "array": lambda xp: xp.asarray([[0.1], [0.1]]),
    "scheduled array": lambda xp: bx.schedules.exponential(xp.asarray([[0.1], [0.1]]), 0.5),
    "array per parameter": lambda xp: xp.asarray(np.full(_network().size, 0.1)),
    "integer": lambda xp: 1,
    "NumPy's number": lambda xp: np.float64(0.1),
    "scheduled NumPy's": lambda xp: lambda step: np.float64(0.1),
    "one, then many": lambda xp: lambda step: 0.1 if step < 1 else xp.asarray([[0.1], [0.1]]),
}


OPTIMIZERS: dict[str, Any] = {
    "SGD": lambda each, mask: bx.SGD(each),
    "momentum": lambda each, mask: bx.SGD(0.1, momentum=each, nesterov=True),
    "RMSProp": lambda each, mask: bx.RMSProp(0.01, decay=1.0 - each),
    "Adam": lambda each, mask: bx.Adam(each, beta1=each, epsilon=1e-3),
    "AdamW": lambda each, mask: bx.AdamW(0.01, weight_decay=each, mask=mask),
    "AMSGrad": lambda each, mask: bx.AdamW(0.01, weight_decay=each, amsgrad=True),
    "Adagrad": lambda each, mask: bx.Adagrad(0.01, initial=each),
    "Nadam": lambda each, mask: bx.Nadam(each, beta1=each, momentum_decay=each),
    "Lion": lambda each, mask: bx.Lion(0.01, weight_decay=each, mask=mask),
    "a rate per parameter": lambda each, mask: bx.AdamW(0.01 * mask, weight_decay=each),
}


@pytest.mark.parametrize(
    "options", [pytest.param({}, marks=pytest.mark.thorough), {"l2": 0.1, "clip": 0.01}]
)
@pytest.mark.parametrize(
    "name",
    [
        *("momentum", "a rate per parameter"),
        *map(long, ["SGD", "RMSProp", "Adam", "AdamW", "AMSGrad", "Adagrad", "Nadam", "Lion"]),
    ],
)
def test_a_loop_over_parameters_equals_one_over_theta(
    xp: Any, name: str, options: dict[str, Any]
) -> None:
    """Compiled loops carry each parameter separately, with the arrays that are split like theta."""
    network = bx.mlp([3, 4, 2], hidden="tanh", layer_norm=True, dropout=0.2)
    each = xp.asarray(np.asarray([[0.1], [0.05]]))
    mask = network.weight_mask(xp.initialize(network))
    options = {"epochs": 5, "stack": (2,), "metrics": {"rmse": bx.metrics.rmse}, **options}
    looped = _fit(xp, network, OPTIMIZERS[name](each, mask), **options)
    one_by_one = _fit(
        xp, network, OPTIMIZERS[name](each, mask), callbacks=[lambda state: None], **options
    )
    for key, values in looped.history.items():
        xp.assert_close(values, one_by_one.history[key], SAME)
    last = {"loss": looped.state.loss, **looped.state.metrics}
    for key, value in last.items():
        xp.assert_equal(value, looped.history[key][-1])
    states = [(looped.theta, one_by_one.theta)]
    states += zip(looped.optimizer_state, one_by_one.optimizer_state, strict=True)
    for one, other in states:
        if one is not None:
            xp.assert_close(one, other, SAME)


def test_theta_is_split_into_parameters_and_joined_again(xp: Any) -> None:
    theta = xp.asarray(np.arange(10.0).reshape(2, 5))
    structure = {"state": (theta, None, 3)}
    parts = take_apart(structure, [slice(0, 2), slice(2, 5)])
    assert [part["state"][0].shape for part in parts] == [(2, 2), (2, 3)]
    again, nothing, count = put_together(parts)["state"]
    np.testing.assert_array_equal(xp.host(again), xp.host(theta))
    assert (nothing, count) == (None, 3)


@pytest.mark.parametrize("batch_size", [None, BATCH])
@pytest.mark.parametrize("form", RATES)
def test_a_rate_of_any_form_is_an_argument_of_the_compiled_function(
    xp: Any, form: str, batch_size: int | None
) -> None:
    like = {"scheduled array": bx.schedules.exponential(0.1, 0.5), "integer": 1.0}.get(form, 0.1)
    options: dict[str, Any] = {"stack": (2,), "epochs": 3, "batch_size": batch_size}
    given = _fit(xp, _network(), bx.SGD(RATES[form](xp)), **options)
    same = _fit(xp, _network(), bx.SGD(like), **options)
    xp.assert_close(given.theta, same.theta, SAME)
    xp.assert_close(given.history["loss"], same.history["loss"], SAME)


# A loop of many epochs, one of many batches, and single steps.
every_loop = pytest.mark.parametrize(
    "options", [{}, {"batch_size": BATCH}, {"callbacks": [lambda state: None]}]
)


@every_loop
@pytest.mark.parametrize("schedule", [lambda rate: rate, bx.schedules.constant])
def test_a_rate_on_another_device_is_an_error(
    xp: Any, options: dict[str, Any], schedule: Any
) -> None:
    """A compiler would convert NumPy's array silently."""
    if xp.name == "numpy":
        pytest.skip("NumPy's own arrays are in place")
    rate = schedule(np.full((2, 1), 0.1))
    with pytest.raises(ValueError, match="learning_rate is numpy's on cpu, but theta is"):
        _fit(xp, _network(), bx.SGD(rate), stack=(2,), epochs=2, **options)


@every_loop
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (None, TypeError, "must be a number, not None"),
        (np.nan, ValueError, "must be finite and >= 0, not nan"),
        (np.full((2, 1), np.inf), ValueError, "must be finite and >= 0, not inf"),
    ],
)
def test_an_impossible_rate_of_a_schedule_is_an_error_and_no_old_one_is_used(
    xp: Any, options: dict[str, Any], wrong: Any, error: type[Exception], said: str
) -> None:
    network = _network()
    _fit(xp, network, bx.SGD(0.5), stack=(2,), epochs=1, **options)  # to be cached
    entry = r"\[0, 0\]" if hasattr(wrong, "shape") else ""
    for bad in (0, 4):  # at the first update, and in the second epoch
        schedule = lambda step, bad=bad: wrong if step == bad else 0.1  # noqa: E731
        with pytest.raises(error, match=rf"^learning_rate\({bad}\){entry} {said}"):
            _fit(xp, network, bx.SGD(schedule), stack=(2,), epochs=6, **options)


# ---- compilers do not change results


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_a_training_does_not_change_the_callers_arrays(xp: Any, batch_size: int | None) -> None:
    """A compiled update reuses the memory of theta and the state, but of its own copies."""
    network = _network()
    theta, x, y = xp.initialize(network), xp.asarray(X), xp.asarray(Y)
    before = [np.array(xp.host(array)) for array in (theta, x, y)]
    for _ in range(2):
        bx.fit(network, theta, x, y, optimizer=bx.Adam(0.1), epochs=2, batch_size=batch_size)
    for array, kept in zip((theta, x, y), before, strict=True):
        np.testing.assert_array_equal(xp.host(array), kept)


class Stepless:
    """An optimizer that has only the protocol: gradient descent without a rate."""

    @staticmethod
    def initialize(theta: Any) -> Any:
        return ()

    @staticmethod
    def update(theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 * gradient, state


class Twofold(Stepless):
    """A state with one array twice, theta itself, and an array of the optimizer."""

    def __init__(self, anchor: Any) -> None:
        self.anchor = anchor

    def initialize(self, theta: Any) -> Any:  # type: ignore[override]
        zero = 0.0 * theta
        return {"one": zero, "other": [zero], "start": theta, "anchor": self.anchor}

    def update(self, theta: Any, gradient: Any, state: Any) -> Any:  # type: ignore[override]
        back = theta - state["anchor"] + theta - state["start"]
        return theta - 0.1 * (gradient + back), state


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_arrays_of_a_first_state_are_copied(xp: Any, batch_size: int | None) -> None:
    network = _network()
    anchor = xp.initialize(network, 1)
    before = np.array(xp.host(anchor))
    for _ in range(2):
        state = _fit(xp, network, Twofold(anchor), epochs=2, batch_size=batch_size).optimizer_state
    xp.assert_equal(anchor, before)
    xp.assert_equal(state["start"], xp.initialize(network))


class Summing(Stepless):
    """A state without a step count."""

    @staticmethod
    def initialize(theta: Any) -> Any:
        return {"sum": 0.0 * theta}

    @staticmethod
    def update(theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 * gradient, {"sum": state["sum"] + gradient}


class Record(NamedTuple):
    """An optimizer as a record of two functions."""

    initialize: Any
    update: Any


@pytest.mark.parametrize("batch_size", [None, BATCH])
@pytest.mark.parametrize(
    "make", [Summing, Stepless, lambda: Record(Stepless.initialize, Stepless.update)]
)
def test_a_custom_optimizer_needs_no_rate_no_count_and_no_methods(
    xp: Any, make: Any, batch_size: int | None
) -> None:
    result = _fit(xp, _network(), make(), epochs=3, batch_size=batch_size)
    same = _fit(xp, _network(), bx.SGD(0.1), epochs=3, batch_size=batch_size)
    xp.assert_close(result.theta, same.theta, SAME)
    assert type(result.optimizer_state) is type(make().initialize(result.theta))


class StepSizes(NamedTuple):
    step: Any


class Sized(Stepless):
    """An optimizer whose state has a ``step`` that is the step size of each parameter."""

    @staticmethod
    def initialize(theta: Any) -> Any:
        return StepSizes(0.0 * theta + 0.1)

    @staticmethod
    def update(theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - state.step * gradient, StepSizes(0.5 * state.step)


class Resumed(bx.Adam):
    def initialize(self, theta: Any) -> Any:
        return super().initialize(theta)._replace(step=10)


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_only_the_step_count_of_a_state_becomes_an_int_and_training_continues(
    xp: Any, batch_size: int | None
) -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": batch_size}
    sizes = _fit(xp, _network(), Sized(), **options).optimizer_state.step
    assert tuple(sizes.shape) == (_network().size,)
    step = _fit(xp, _network(), Resumed(0.1), **options).optimizer_state.step
    assert (step, type(step)) == (10 + 2 * (1 if batch_size is None else 3), int)


# ---- how an optimizer runs, as its class states


class Secant(NamedTuple):
    """The gradient of the step before, as an update received it."""

    gradient: Any


@dataclass(frozen=True)
class Recalling:
    """Steps along a gradient and the one before, which it keeps: elementwise, and no more."""

    learning_rate: float
    share: float = 0.25

    def initialize(self, theta: Any) -> Secant:
        return Secant(0.0 * theta)

    def update(
        self, theta: Any, gradient: Any, state: Secant, *, learning_rate: Any
    ) -> tuple[Any, Secant]:
        return theta - learning_rate * (gradient + self.share * state.gradient), Secant(gradient)


class ElementwiseRecalling(Recalling):
    """The same, written into theta: the gradient that it keeps must not be used again."""

    is_elementwise = True

    def update(
        self, theta: Any, gradient: Any, state: Secant, *, learning_rate: Any
    ) -> tuple[Any, Secant]:
        theta -= learning_rate * (gradient + self.share * state.gradient)
        return theta, Secant(gradient)


class BareRecalling(Recalling):
    """A subclass without statements of its own."""


@dataclass(frozen=True)
class SharedRecalling(Recalling):
    is_elementwise = shares_code = True


class InPlace(SharedRecalling):
    """The same in place, in a state of its own."""

    is_elementwise = works_in_place = True

    def update(
        self, theta: Any, gradient: Any, state: Secant, *, learning_rate: Any
    ) -> tuple[Any, Secant]:
        theta -= learning_rate * (gradient + self.share * state.gradient)
        return theta, Secant(0.0 * state.gradient + gradient)


def _by_hand(xp: Any, network: bx.Network, stack: tuple[int, ...], epochs: int) -> Any:
    """Return theta after steps of a full batch, without a training."""
    theta = xp.initialize(network, stack=stack)
    before = 0.0 * theta
    for _ in range(epochs):
        _, gradient = network.loss_and_gradient(theta, xp.asarray(X), xp.asarray(Y))
        theta, before = theta - 0.1 * (gradient + 0.25 * before), gradient
    return theta


@pytest.mark.parametrize("stack", [(), (2,)])
@pytest.mark.parametrize(
    "kind", [Recalling, BareRecalling, ElementwiseRecalling, SharedRecalling, InPlace]
)
def test_a_users_optimizer_trains_right_with_and_without_statements(
    xp: Any, kind: Any, stack: tuple[int, ...]
) -> None:
    network = _network()
    theta = _fit(xp, network, kind(0.1), epochs=5, stack=stack).theta
    xp.assert_close(theta, _by_hand(xp, network, stack, 5), SAME)
    batches: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "stack": stack}
    plain = _fit(xp, network, Recalling(0.1), **batches)
    stated = _fit(xp, network, kind(0.1), **batches)
    xp.assert_close(stated.theta, plain.theta, SAME)
    xp.assert_close(stated.optimizer_state.gradient, plain.optimizer_state.gradient, SAME)


def test_an_elementwise_update_that_fails_midway_is_undone(xp: Any) -> None:
    if xp.name == "jax":
        pytest.skip("a compiled update writes in no place")
    taken = []

    class Failing(ElementwiseRecalling):
        is_elementwise = True

        def update(self, theta: Any, gradient: Any, state: Secant, *, learning_rate: Any) -> Any:
            theta -= learning_rate * gradient
            taken.append(None)
            if len(taken) == 5:
                raise ValueError("midway")
            return theta, state

    with pytest.raises(ValueError, match="midway") as caught:
        _fit(xp, _network(), Failing(0.1), epochs=3, batch_size=BATCH)
    whole = _fit(xp, _network(), bx.SGD(0.1), epochs=1, batch_size=BATCH)
    state: bx.TrainingState = caught.value.state  # type: ignore[attr-defined]
    assert (state.epoch, state.step) == (1, 3)
    xp.assert_close(state.theta, whole.theta, SAME)


class Normed(bx.SGD):
    """Descent by a gradient of norm 1: no elementwise update, unlike that of its base."""

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        xp = array_namespace(gradient)
        size = xp.sqrt(xp.sum(gradient * gradient, axis=-1, keepdims=True))
        return theta - learning_rate * gradient / size, state._replace(step=state.step + 1)


def test_a_subclass_does_not_inherit_how_its_base_runs(xp: Any) -> None:
    network, x, y = _network(), xp.asarray(X), xp.asarray(Y)
    theta = xp.initialize(network)
    for _ in range(3):
        _, gradient = network.loss_and_gradient(theta, x, y)
        theta = theta - 0.1 * gradient / (xp.namespace.sum(gradient * gradient) ** 0.5)
    xp.assert_close(_fit(xp, network, Normed(0.1), epochs=3).theta, theta, SAME)
    assert traits_of(bx.SGD(0.1)) == Traits(False, True, True, True)
    assert traits_of(Normed(0.1)) == Traits(False)
    assert traits_of(bx.LBFGS()) == Traits(True, shares_code=True)


class Both(Stepless):
    """An optimizer with both kinds of steps, of which it chooses one."""

    takes_objective = False

    def advance(self, theta: Any, state: Any, objective: Any) -> Any:
        raise AssertionError("a training by gradients called advance")


class Neither:
    takes_objective = True

    def initialize(self, theta: Any) -> Any:
        return ()


class Unclear(Stepless):
    is_elementwise = "yes"


class Fieldless(Stepless):
    shares_code = True


def test_an_optimizer_with_both_methods_chooses_and_wrong_statements_are_errors(xp: Any) -> None:
    same = _fit(xp, _network(), Stepless(), epochs=3, batch_size=BATCH).theta
    xp.assert_close(_fit(xp, _network(), Both(), epochs=3, batch_size=BATCH).theta, same, SAME)
    with pytest.raises(TypeError, match="Neither has no method advance"):
        _fit(xp, _network(), Neither(), epochs=3)
    with pytest.raises(TypeError, match=r"Unclear\.is_elementwise must be True or False"):
        _fit(xp, _network(), Unclear(), epochs=3)
    with pytest.raises(TypeError, match="Fieldless is no dataclass"):
        _fit(xp, _network(), Fieldless(), epochs=3)


def test_a_users_optimizers_that_share_code_compile_it_once(xp: Any) -> None:
    network, counting = _counted(xp)
    _fit(xp, network, SharedRecalling(0.1), epochs=3)
    before = counting.calls
    theta = _fit(xp, network, SharedRecalling(0.2, share=0.5), epochs=3).theta
    assert counting.calls == before
    same = _fit(xp, network, Recalling(0.2, share=0.5), epochs=3).theta
    assert counting.calls > before
    xp.assert_close(theta, same, SAME)


# ---- compilations


class Counting(PassThrough):
    """A layer that counts its forward passes in Python."""

    def __init__(self) -> None:
        self.calls = 0

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        self.calls += 1
        return x, None


def _require_compiler(xp: Any) -> None:
    if xp.selection.backend.loop(lambda carry, given: (carry, None)) is None:
        pytest.skip(f"{xp.name} compiles nothing")


def _counted(xp: Any) -> tuple[bx.Network, Counting]:
    """Return a network and its counting layer."""
    _require_compiler(xp)
    counting = Counting()
    return bx.Network([bx.Dense(3, 4, "tanh"), counting, bx.Dense(4, 2)], "huber"), counting


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_no_value_of_a_hyperparameter_recompiles(xp: Any, batch_size: int | None) -> None:
    """Steps, seeds, rates, penalties, bounds, decays and masks are arguments."""
    network, counting = _counted(xp)
    mask = network.weight_mask(xp.initialize(network))
    options: dict[str, Any] = {"epochs": 4, "batch_size": batch_size, "clip": 1.0, "l2": 0.1}
    for rate in (0.1, bx.schedules.constant(0.1)):
        _fit(xp, network, bx.AdamW(rate, mask=mask), **options)
    before = counting.calls
    changed = {**options, "clip": 0.3, "l2": 0.2}
    decaying = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "weight_decay": 0.3}
    rate = bx.schedules.cosine(0.2, 9)
    _fit(xp, network, bx.AdamW(rate, mask=1.0 - mask, **decaying), seed=2**40, **changed)
    again = bx.Network([*network.layers], network.loss_function, l2=7.0)
    _fit(xp, again, bx.AdamW(0.3, mask=mask), seed=7, **options)
    assert counting.calls == before


@pytest.mark.parametrize("scheduled", [False, long(True)])
@pytest.mark.parametrize("batch_size", [long(None), BATCH])
def test_frozen_layers_stay_to_the_bit_and_the_others_train_as_alone(
    xp: Any, batch_size: int | None, scheduled: bool
) -> None:
    """The first layer frozen is the rest of the network trained on what it returns."""
    network, x = bx.mlp([3, 4, 2], hidden="tanh", l2=0.1), xp.asarray(X)
    theta = xp.initialize(network, stack=(2,))
    free = network.mask(theta, layers=[1])
    rest = bx.Network([bx.Dense(4, 2)], "mean_squared_error", l2=0.1)
    first = bx.Network([bx.Dense(3, 4, "tanh")], "mean_squared_error")
    options: dict[str, Any] = {"epochs": 4, "batch_size": batch_size}

    def optimizer(rate: Any) -> Any:
        return bx.AdamW(bx.schedules.cosine(rate, 20) if scheduled else rate, weight_decay=0.3)

    frozen = _fit(xp, network, optimizer(0.1 * free), stack=(2,), **options).theta
    xp.assert_equal(frozen[:, : first.size], xp.host(theta)[:, : first.size])
    hidden = first.forward(theta[:, : first.size], x)
    start, y = theta[:, first.size :], xp.asarray(Y)
    alone = bx.fit(rest, start, hidden, y, optimizer=optimizer(0.1), **options).theta
    xp.assert_close(frozen[:, first.size :], alone, SAME)


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_no_average_compiles_anything_anew(xp: Any, batch_size: int | None) -> None:
    network, counting = _counted(xp)
    calls = []
    for average in (bx.EMA(0.5), bx.EMA(0.9), bx.SWA(2), bx.SWA(1)):
        _fit(xp, network, bx.SGD(0.1), epochs=4, batch_size=batch_size, average=average)
        calls.append(counting.calls)
    assert len(set(calls)) == 1


def test_no_array_of_rates_penalties_or_seeds_recompiles(xp: Any) -> None:
    network, counting = _counted(xp)
    options: dict[str, Any] = {"epochs": 4, "batch_size": BATCH, "stack": (2,)}
    calls = []
    for first in (0.1, 0.2, 0.3):
        values = xp.asarray([[first], [0.5]])
        seed = (int(10 * first), 7)
        _fit(xp, network, bx.SGD(values, momentum=values), l2=values[:, 0], seed=seed, **options)
        calls.append(counting.calls)
    assert len(set(calls)) == 1


@pytest.mark.parametrize("options", [{}, {"clip": 0.1}, {"l2": 0.5}], ids=str)
def test_another_kind_of_hyperparameter_compiles_another_function(
    xp: Any, options: dict[str, float]
) -> None:
    """A momentum of 0 has no velocity; clip and l2 may be absent."""
    network, x, y = _network(), xp.asarray(X), xp.asarray(Y)
    for more in ({"momentum": 0.5}, {}, {"momentum": 0.5, "nesterov": True}):
        optimizer = bx.SGD(0.1, **more)
        theta = xp.initialize(network)
        state = optimizer.initialize(theta)
        for _ in range(2):
            _, gradient = network.loss_and_gradient(theta, x, y, l2=options.get("l2"))
            if "clip" in options:
                gradient = clip_norm(gradient, options["clip"])
            theta, state = optimizer.update(theta, gradient, state)
        xp.assert_close(_fit(xp, network, optimizer, epochs=2, **options).theta, theta, SAME)


@pytest.mark.parametrize("batch_size", [long(None), BATCH])
def test_more_validation_rows_compile_nothing_more(xp: Any, batch_size: int | None) -> None:
    """A piece of 64 networks has 64 rows; three pieces and fifty compile equally often."""
    calls = []
    for rows in (130, 3200):
        network, counting = _counted(xp)
        held_out = xp.asarray(np.ones((rows, 3))), xp.asarray(np.ones((rows, 2)))
        options: dict[str, Any] = {"epochs": 2, "batch_size": batch_size, "stack": (64,)}
        _fit(xp, network, bx.SGD(0.1), validation=held_out, **options)
        calls.append(counting.calls)
    assert calls[0] == calls[1]


def test_ctrl_c_waits_for_no_more_than_one_compiled_call(xp: Any) -> None:
    """Ctrl-C comes before the first call, of one step; otherwise two calls run all epochs."""
    _require_compiler(xp)

    def pressed(step: int) -> float:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return 0.1

    network, metrics = _network(dropout=0.2), {"rmse": bx.metrics.rmse}
    with pytest.raises(KeyboardInterrupt) as caught:
        _fit(xp, network, bx.Adam(pressed), epochs=40, metrics=metrics)
    state = caught.value.state  # type: ignore[attr-defined]
    assert (state.epoch, state.step, state.history["rmse"].shape) == (1, 1, (1,))
    optimizer = bx.Adam(bx.schedules.constant(0.1))
    whole, resumed = (
        _fit(xp, network, optimizer, epochs=40, metrics=metrics, start=start)
        for start in (None, state)
    )
    xp.assert_close(resumed.theta, whole.theta, SAME)
    for name, values in whole.history.items():
        xp.assert_close(resumed.history[name], values, SAME)


def test_an_asynchronous_library_gets_a_second_of_steps_per_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A step takes 0.03 s, and compilation 20 s; later the machine is slower."""
    now, given = [0.0], []
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    queue = Queue()
    for seconds in [20.03, *[0.03] * 70, *[0.3] * 70]:
        given.append(queue.room)
        now[0] += seconds
        queue.add(1, np.zeros(1))
    assert given[:14] == [1, 1, *range(10, 0, -1), 33, 32]
    assert max(given[-3:]) == 3


def test_a_layer_that_reads_values_is_an_error_that_names_compilation(xp: Any) -> None:
    _require_compiler(xp)

    class Looking(PassThrough):
        def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
            return (x, None) if float(array_namespace(x).max(x)) < 1e9 else (0.0 * x, None)

    network = bx.Network([bx.Dense(3, 2), Looking()], "huber")
    with pytest.raises(TypeError) as caught:
        _fit(xp, network, bx.SGD(0.1), epochs=1)
    assert "jax.disable_jit()" in "".join(caught.value.__notes__)


@dataclass(frozen=True)
class Heedless(Stepless):
    """An optimizer that uses its own rate instead of the argument."""

    learning_rate: float

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        return theta - self.learning_rate * gradient, state


class Factored(bx.SGD):
    """An optimizer with an attribute that is no field: equal ones differ."""

    def __init__(self, factor: float) -> None:
        super().__init__(0.1)
        object.__setattr__(self, "factor", factor)

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        return theta - self.factor * gradient, state._replace(step=state.step + 1)


class Changing(Stepless):
    """An optimizer whose factor changes between trainings."""

    factor = 0.0

    def update(self, theta: Any, gradient: Any, state: Any) -> Any:  # type: ignore[override]
        return theta - self.factor * gradient, state


@pytest.mark.parametrize("make", [Heedless, Factored, Changing])
def test_a_changed_custom_optimizer_is_recompiled(xp: Any, make: Any) -> None:
    network, changing = _network(), Changing()
    moved = []
    for factor in (0.0, 0.1, 0.0):
        changing.factor = factor
        optimizer = changing if make is Changing else make(factor)
        theta = xp.host(_fit(xp, network, optimizer, epochs=1).theta)
        moved.append(bool(np.any(theta != xp.host(xp.initialize(network)))))
    assert moved == [False, True, False]


class Scaled(NamedTuple):
    by: float
    names = shapes = ()
    initialize = PassThrough.initialize

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.by * x, None

    def backward(self, parameters: Any, cache: Any, g: Any, **options: bool) -> tuple[Any, Any]:
        return self.by * g, ()


class Shifted(NamedTuple):
    by: float
    names = shapes = ()
    initialize, backward = PassThrough.initialize, PassThrough.backward

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.by + x, None


@pytest.mark.parametrize("inside", [lambda layer: layer, bx.Residual])
def test_layers_that_are_equal_but_differ_are_compiled_separately(xp: Any, inside: Any) -> None:
    scaled, shifted = Scaled(2.0), Shifted(2.0)
    assert scaled == shifted
    losses = []
    for layer in (scaled, shifted):
        network = bx.Network([bx.Dense(3, 2), inside(layer)], "huber")
        losses += _fit(xp, network, bx.SGD(0.1), epochs=1).history["loss"].tolist()
        expected = network.loss(xp.initialize(network), xp.asarray(X), xp.asarray(Y))
        xp.assert_close(losses[-1], expected, SAME)
    assert losses[0] != losses[1]


def test_another_network_compiles_few_functions_and_its_gradient_once(
    xp: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """JAX never frees a compiled function, so each operation on new shapes would add one."""
    if xp.name != "jax":
        pytest.skip(f"{xp.name} compiles nothing")
    import jax

    options: dict[str, Any] = {"epochs": 2, "batch_size": BATCH}
    _fit(xp, _network(), bx.Adam(0.1), **options)
    network, x, y = bx.mlp([3, 7, 5, 2], hidden="tanh"), xp.asarray(X), xp.asarray(Y)
    with jax.log_compiles():
        _fit(xp, network, bx.Adam(0.1), **options)
    compiled = [r for r in caplog.records if r.getMessage().startswith("Compiling")]
    assert 0 < len(compiled) <= 6, [record.getMessage()[:80] for record in compiled]
    assert sum("_in_parts" in record.getMessage() for record in compiled) == 1
    theta = xp.initialize(network)
    network.loss_and_gradient(theta, x, y)
    caplog.clear()
    with jax.log_compiles():
        network.loss_and_gradient(theta, x, y)
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]


# ---- custom loops


def test_a_custom_loop_can_be_compiled(xp: Any) -> None:
    """The step count in the state, the rate and the key are traced."""
    network, optimizer = _network(dropout=0.3), bx.Adam(0.1)
    x, y = xp.asarray(X), xp.asarray(Y)

    def step(theta: Any, state: Any, rng: Any, rate: Any) -> tuple[Any, Any]:
        _, gradient = network.loss_and_gradient(theta, x, y, rng=rng)
        return optimizer.update(theta, gradient, state, learning_rate=rate)

    results = []
    for function in (step, xp.selection.backend.compile(step)):
        theta = xp.initialize(network)
        state = optimizer.initialize(theta)
        for number in range(3):
            theta, state = function(theta, state, number, xp.asarray(0.1 / (number + 1)))
        results.append(theta)
    xp.assert_close(*results, SAME)


@pytest.mark.parametrize("stack", [long(()), (2,)])
def test_a_large_gradient_is_joined_like_a_small_one(xp: Any, stack: tuple[int, ...]) -> None:
    """A backend may join large gradients in another way."""
    network = bx.mlp([60, 300, 5], hidden="tanh")
    theta = np.array(xp.host(xp.initialize(network, stack=stack)))
    theta[..., 7] = 1e3
    if stack:
        theta[1, ...] = np.nan
    x = generator.normal(size=(4, 60))
    y = generator.normal(size=(4, 5))
    _, here = network.loss_and_gradient(*map(xp.asarray, (theta, x, y)))
    _, there = network.loss_and_gradient(theta.astype(np.float64), x, y)
    np.testing.assert_allclose(xp.host(here), there, rtol=0, atol=xp.rounding(1e-14))


@dataclass
class Tuned(Stepless):
    learning_rate: float = 0.1

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        return theta - learning_rate * gradient, state


def test_a_callback_may_change_the_rate_of_a_custom_optimizer(xp: Any) -> None:
    tuned, thetas = Tuned(), []

    def stop_learning(state: Any) -> None:
        thetas.append(np.array(xp.host(state.theta)))
        tuned.learning_rate = 0.0

    _fit(xp, _network(), tuned, epochs=3, batch_size=BATCH, callbacks=[stop_learning])
    for theta in thetas[1:]:
        np.testing.assert_array_equal(theta, thetas[0])


class Times(NamedTuple):
    by: float

    def __call__(self, z: Any) -> Any:
        return z * self.by


class Plus(NamedTuple):
    by: float

    def __call__(self, z: Any) -> Any:
        return z + self.by


def test_custom_functions_that_are_equal_but_differ_are_compiled_separately(xp: Any) -> None:
    assert Times(2.0) == Plus(2.0)
    for own, wanted in ((Times(2.0), lambda z: z * 2.0), (Plus(2.0), lambda z: z + 2.0)):
        histories = []
        for value in (own, wanted):
            rule = lambda g, z, a: 1.0 * g  # noqa: E731
            network = bx.Network([bx.Dense(3, 2, bx.Activation(value, rule))], "huber")
            metrics = {"moved": lambda p, t, w, value=value: value(0.0 * p[..., 0, 0])}
            result = _fit(xp, network, bx.SGD(0.1), epochs=2, metrics=metrics)
            histories.append(result.history)
        for name, values in histories[0].items():
            np.testing.assert_allclose(values, histories[1][name], rtol=xp.rounding(SAME))


LEVEL = 1.0


@pytest.mark.parametrize("where", ["closure", "list in a closure", "module"])
@pytest.mark.parametrize("use", ["metric", "loss"])
def test_values_that_a_custom_function_reads_may_change_between_trainings(
    xp: Any, use: str, where: str, monkeypatch: Any
) -> None:
    level, levels = 1.0, [1.0]
    reads: dict[str, Callable[[Any], Any]] = {
        "closure": lambda zeros: zeros + level,
        "list in a closure": lambda zeros: zeros + levels[0],
        "module": lambda zeros: zeros + LEVEL,
    }
    read = reads[where]
    loss = bx.losses.over_outputs(lambda o, t: (read(0.0 * (o - t)), 0.0 * (o - t)))
    network = bx.mlp([3, 2], loss=loss if use == "loss" else "huber")
    metrics = {"metric": lambda p, t, w: read(0.0 * p[..., 0, 0])}
    for now in (1.0, 5.0):
        level, levels[0] = now, now
        monkeypatch.setattr(f"{__name__}.LEVEL", now)
        history = _fit(xp, network, bx.SGD(0.1), epochs=2, metrics=metrics).history
        xp.assert_close(history[use], np.asarray([now, now]))


# ---- rows of weight 0


@pytest.mark.parametrize("batch_size", [None, long(1)])
@pytest.mark.parametrize("has_validation", [False, True])
def test_a_row_of_weight_0_that_overflows_is_left_out_of_a_training(
    xp: Any, batch_size: int | None, has_validation: bool
) -> None:
    """The batch may have other rows or not; any metric or loss may be watched."""
    huge = 0.9 * np.finfo(xp.dtype).max
    x, y = (np.concatenate([a[:2], huge * np.ones_like(a[:1]), a[2:]]) for a in (X, Y))
    weight = np.ones(ROWS + 1)
    weight[2] = 0.0

    def trained(*rows: Any) -> Any:
        network = _network()
        data = rows if has_validation else ()
        validation = tuple(map(xp.asarray, data)) or None
        given = xp.initialize(network), *map(xp.asarray, rows[:2])
        with np.errstate(over="ignore", invalid="ignore"):  # in the left-out row
            return bx.fit(
                network,
                *given,
                sample_weight=xp.asarray(rows[2]),
                validation=validation,
                optimizer=bx.SGD(0.1),
                epochs=3,
                batch_size=batch_size,
                shuffle=False,
                metrics={"rmse": bx.metrics.rmse},
            )

    one, other = trained(x, y, weight), trained(X, Y, np.ones(ROWS))
    for name, values in other.history.items():
        xp.assert_close(one.history[name], values, xp.rounding(SAME))
    xp.assert_close(one.theta, xp.host(other.theta), xp.rounding(SAME))


def test_a_custom_metric_gets_the_rows_of_weight_0_unchanged(xp: Any) -> None:
    def unweighted(predictions: Any, targets: Any, weights: Any) -> Any:
        return array_namespace(predictions).mean((predictions - targets) ** 2, axis=(-2, -1))

    weight = np.arange(ROWS, dtype=float)
    result = _fit(
        xp,
        _network(),
        bx.SGD(0.1),
        epochs=1,
        metrics={"own": unweighted},
        sample_weight=xp.asarray(weight),
    )
    expected = np.mean((xp.host(_network().predict(result.theta, xp.asarray(X))) - Y) ** 2)
    xp.assert_close(result.history["own"], np.asarray([expected]))


@pytest.mark.once
@pytest.mark.parametrize(
    ("stack", "steps", "length"),
    [((), 3, 1024), ((), 1100, 2048), ((8,), 3, 1024), ((4, 25), 3, 128), ((5000,), 3, 4)],
)
def test_few_lengths_of_full_batches_are_compiled_unless_the_networks_are_many(
    stack: tuple[int, ...], steps: int, length: int
) -> None:
    columns = _columns(np.zeros((*stack, 2)), steps, range(steps), [0.1] * steps, [None] * steps)
    assert columns is not None
    assert columns.number.shape == columns.learning_rate.shape == (length,)
