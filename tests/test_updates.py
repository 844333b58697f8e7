"""One update, many in one call, and what a compiler must not change or be asked anew."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.updates import rates_are_numbers, updates_of, weighted_mean

# Rounding of some hundred operations; a compiler adds and multiplies in another order.
SAME = 1e-12
ROWS, BATCH = 11, 4  # two full batches and a smaller last one

generator = np.random.default_rng(0)
X = generator.normal(size=(ROWS, 3))
Y = generator.uniform(0.1, 0.9, size=(ROWS, 2))
WEIGHT = generator.uniform(0.5, 2.0, size=ROWS)


def _network(**options: Any) -> bx.Network:
    return bx.mlp([3, 4, 2], hidden="tanh", **options)


def _fit(xp: Any, network: bx.Network, optimizer: Any, **options: Any) -> bx.training.FitResult:
    theta = xp.initialize(network, stack=options.pop("stack", ()))
    return bx.fit(network, theta, xp.asarray(X), xp.asarray(Y), optimizer=optimizer, **options)


def _assert_same(xp: Any, one: Any, other: Any) -> None:
    tolerance = xp.rounding(SAME)
    np.testing.assert_allclose(xp.host(one.theta), xp.host(other.theta), rtol=0, atol=tolerance)
    assert one.history.keys() == other.history.keys()
    for name, losses in one.history.items():
        np.testing.assert_allclose(losses, other.history[name], rtol=tolerance)
    assert one.epochs == other.epochs
    assert one.optimizer_state.step == other.optimizer_state.step


# ---- many updates in one call


@pytest.mark.parametrize("stack", [(), (2,)])
@pytest.mark.parametrize("validation", [False, True])
def test_epochs_that_nobody_looks_at_are_those_that_somebody_does(
    xp: Any, stack: tuple[int, ...], validation: bool
) -> None:
    """In full batches a compiler takes them all in one call, unless there is a callback."""
    network, seen = _network(dropout=0.2), []
    rate = bx.schedules.warmup(bx.schedules.cosine(0.1, 20), 3)
    options: dict[str, Any] = {"epochs": 5, "stack": stack, "clip": 0.5}
    if validation:
        options["validation"] = xp.asarray(X), xp.asarray(Y)
    quiet = _fit(xp, network, bx.Adam(rate), **options)
    looked_at = _fit(xp, network, bx.Adam(rate), callbacks=[seen.append], **options)
    assert len(seen) == 5
    assert quiet.history["loss"].shape == (5, *stack)
    _assert_same(xp, quiet, looked_at)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("weighted", [False, True])
def test_an_epoch_of_batches_is_its_updates_one_by_one(
    xp: Any, weighted: bool, shuffle: bool
) -> None:
    """``check_every`` has each update made by itself; a compiler else takes the full batches."""
    options: dict[str, Any] = {"epochs": 3, "batch_size": BATCH, "shuffle": shuffle}
    if weighted:
        options["sample_weight"] = xp.asarray(WEIGHT)
    network, optimizer = _network(dropout=0.2), bx.SGD(0.1, momentum=0.9)
    together = _fit(xp, network, optimizer, stack=(2,), **options)
    alone = _fit(xp, network, optimizer, stack=(2,), check_every=100, **options)
    del alone.history["gradient_error"], alone.history["gradient_verdict"]
    _assert_same(xp, together, alone)


@pytest.mark.parametrize(
    "form",
    [
        "array",
        "scheduled array",
        "integer",
        "NumPy's number",
        "scheduled NumPy's",
        "one, then many",
    ],
)
def test_a_rate_of_any_form_is_an_argument(xp: Any, form: str) -> None:
    rates: dict[str, Any] = {
        "array": xp.asarray([[0.1], [0.1]]),
        "scheduled array": bx.schedules.exponential(xp.asarray([[0.1], [0.1]]), 0.5),
        "integer": 1,
        "NumPy's number": np.float64(0.1),
        "scheduled NumPy's": lambda step: np.float64(0.1),
        "one, then many": lambda step: 0.1 if step < 1 else xp.asarray([[0.1], [0.1]]),
    }
    like = {"scheduled array": bx.schedules.exponential(0.1, 0.5), "integer": 1.0}.get(form, 0.1)
    for batch_size in (None, BATCH):
        options: dict[str, Any] = {"stack": (2,), "epochs": 3, "batch_size": batch_size}
        given = _fit(xp, _network(), bx.SGD(rates[form]), **options)
        _assert_same(xp, given, _fit(xp, _network(), bx.SGD(like), **options))


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("options", [{}, {"batch_size": BATCH}, {"callbacks": [print]}])
def test_a_rate_in_another_place_is_refused(
    xp: Any, options: dict[str, Any], scheduled: bool
) -> None:
    """A compiler would take NumPy's array for one of its own."""
    if xp.name == "numpy":
        pytest.skip("NumPy's own arrays are in place")
    rate: Any = np.full((2, 1), 0.1)
    if scheduled:
        rate = bx.schedules.constant(rate)
    with pytest.raises(ValueError, match="learning_rate is numpy's on cpu, but theta is"):
        _fit(xp, _network(), bx.SGD(rate), stack=(2,), epochs=2, **options)


@pytest.mark.parametrize("options", [{}, {"batch_size": BATCH}, {"callbacks": [print]}])
@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (None, TypeError, "must be a number, not None"),
        (-0.1, ValueError, "must be >= 0, not -0.1"),
        (np.nan, ValueError, "must be finite and >= 0, not nan"),
        (np.full((2, 1), np.inf), ValueError, "must be finite and >= 0, not inf"),
    ],
)
def test_a_rate_that_a_schedule_cannot_give_is_refused_and_no_other_taken(
    xp: Any, options: dict[str, Any], wrong: Any, error: type[Exception], said: str
) -> None:
    network = _network()
    _fit(xp, network, bx.SGD(0.5), stack=(2,), epochs=1, **options)  # its functions are kept
    place = r"\[0, 0\]" if hasattr(wrong, "shape") else ""
    for bad in (0, 4):  # at the first update, and in the second epoch
        schedule = lambda step, bad=bad: wrong if step == bad else 0.1  # noqa: E731
        with pytest.raises(error, match=rf"^learning_rate\({bad}\){place} {said}"):
            _fit(xp, network, bx.SGD(schedule), stack=(2,), epochs=6, **options)


def test_only_a_schedule_of_arrays_may_change_as_no_column_can() -> None:
    assert rates_are_numbers(bx.SGD(0.1))
    assert rates_are_numbers(bx.SGD(np.ones((2, 1))))
    assert rates_are_numbers(bx.SGD(bx.schedules.constant(0.1)))
    assert not rates_are_numbers(bx.SGD(bx.schedules.constant(np.ones((2, 1)))))


# ---- what a compiler must not change


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_what_the_caller_holds_is_whole_after_a_training(xp: Any, batch_size: int | None) -> None:
    """A compiled update takes the memory of theta and of the state: of its own copies."""
    network = _network()
    theta, x, y = xp.initialize(network), xp.asarray(X), xp.asarray(Y)
    before = [np.array(xp.host(array)) for array in (theta, x, y)]
    for _ in range(2):
        bx.fit(network, theta, x, y, optimizer=bx.Adam(0.1), epochs=2, batch_size=batch_size)
    for array, kept in zip((theta, x, y), before, strict=True):
        np.testing.assert_array_equal(xp.host(array), kept)


def test_a_state_that_holds_theta_itself_trains(xp: Any) -> None:
    result = _fit(xp, _network(), Pulled(0.1), epochs=3, batch_size=BATCH)
    assert result.history["loss"][-1] < result.history["loss"][0]
    assert result.optimizer_state.step == 9


class PulledState(NamedTuple):
    step: int
    start: Any


@dataclass(frozen=True)
class Pulled:
    """Gradient descent that is pulled back to where it began."""

    learning_rate: float

    def initialize(self, theta: Any) -> PulledState:
        return PulledState(0, theta)

    def update(
        self, theta: Any, gradient: Any, state: PulledState, *, learning_rate: Any = None
    ) -> tuple[Any, PulledState]:
        moved = theta - learning_rate * (gradient + 0.01 * (theta - state.start))
        return moved, state._replace(step=state.step + 1)


class Twofold:
    """A state that holds one array twice, and an array that is the optimiser's own."""

    def __init__(self, anchor: Any) -> None:
        self.anchor = anchor

    def initialize(self, theta: Any) -> dict[str, Any]:
        zero = 0.0 * theta
        return {"one": zero, "other": [zero], "anchor": self.anchor}

    def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 * (gradient + theta - state["anchor"]), state


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_arrays_of_a_first_state_are_copied(xp: Any, batch_size: int | None) -> None:
    anchor = xp.initialize(_network(), 1)
    before = np.array(xp.host(anchor))
    for _ in range(2):
        _fit(xp, _network(), Twofold(anchor), epochs=2, batch_size=batch_size)
    np.testing.assert_array_equal(xp.host(anchor), before)


class Plain:
    """No rate, a state that counts nothing: what an optimiser of one's own may be."""

    def initialize(self, theta: Any) -> dict[str, Any]:
        return {"sum": 0.0 * theta}

    def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 * gradient, {"sum": state["sum"] + gradient}


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_an_optimiser_without_a_rate_or_a_count_trains(xp: Any, batch_size: int | None) -> None:
    result = _fit(xp, _network(), Plain(), epochs=3, batch_size=batch_size)
    same = _fit(xp, _network(), bx.SGD(0.1), epochs=3, batch_size=batch_size)
    np.testing.assert_allclose(
        xp.host(result.theta), xp.host(same.theta), rtol=0, atol=xp.rounding(SAME)
    )
    assert set(result.optimizer_state) == {"sum"}


class Record(NamedTuple):
    """An optimiser as a record of two functions."""

    initialize: Any
    update: Any


class Static:
    @staticmethod
    def initialize(theta: Any) -> tuple[()]:
        return ()

    @staticmethod
    def update(theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - 0.1 * gradient, state


@pytest.mark.parametrize("make", [lambda: Record(Static.initialize, Static.update), Static])
def test_an_optimisers_functions_need_not_be_methods(xp: Any, make: Any) -> None:
    result = _fit(xp, _network(), make(), epochs=3)
    same = _fit(xp, _network(), bx.SGD(0.1), epochs=3)
    np.testing.assert_allclose(
        xp.host(result.theta), xp.host(same.theta), rtol=0, atol=xp.rounding(SAME)
    )


class StepSizes(NamedTuple):
    step: Any


class Sized(Static):
    """Its state's ``step`` is no count, but each parameter's own step size."""

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
def test_only_a_states_count_is_made_an_int_and_it_goes_on(xp: Any, batch_size: int | None) -> None:
    sizes = _fit(xp, _network(), Sized(), epochs=2, batch_size=batch_size).optimizer_state.step
    assert tuple(sizes.shape) == (_network().size,)
    resumed = _fit(xp, _network(), Resumed(0.1), epochs=2, batch_size=batch_size)
    assert resumed.optimizer_state.step == 10 + 2 * (1 if batch_size is None else 3)


@pytest.mark.parametrize("make", [bx.SGD, bx.RMSProp, bx.Adam, bx.AdamW])
def test_the_count_of_a_state_is_an_int_outside(xp: Any, make: Any) -> None:
    theta = xp.initialize(_network())
    states = bx.train(
        _network(), theta, xp.asarray(X), xp.asarray(Y), optimizer=make(0.01), epochs=2
    )
    assert [type(state.optimizer_state.step) for state in states] == [int, int]


def test_adams_first_updates_keep_their_digits_in_float32(xp: Any) -> None:
    """1 - 0.999**step, in float32, is off by 1e-5 at the first steps."""
    network = _network()
    start = xp.initialize(network, dtype="float32")
    x, y = xp.asarray(X, "float32"), xp.asarray(Y, "float32")
    moved = bx.fit(network, start, x, y, optimizer=bx.Adam(1.0, epsilon=0.0), epochs=1).theta
    # The first update is the rate times the gradient's sign, whatever the gradient is.
    _, gradient = network.loss_and_gradient(start, x, y)
    expected = -np.sign(xp.host(gradient))
    step = xp.host(moved).astype(np.float64) - xp.host(start)
    np.testing.assert_allclose(step, expected, rtol=0, atol=3e-7)  # of theta's own rounding


# ---- what a compiler is asked


class Counting:
    """A layer that counts how often Python runs through it."""

    names = shapes = ()

    def __init__(self) -> None:
        self.calls = 0

    def initialize(self, generator: Any) -> tuple[()]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        self.calls += 1
        return x, None

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g, ()


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_steps_seeds_rates_and_new_optimisers_compile_nothing_anew(
    xp: Any, batch_size: int | None
) -> None:
    if xp.selection.backend.loop(lambda carry, given: (carry, None)) is None:
        pytest.skip(f"{xp.name} compiles nothing")
    counting = Counting()
    network = bx.Network([bx.Dense(3, 4, "tanh"), counting, bx.Dense(4, 2)], "huber")
    options: dict[str, Any] = {"epochs": 4, "batch_size": batch_size, "clip": 1.0}
    for rate in (0.1, bx.schedules.constant(0.1)):
        _fit(xp, network, bx.Adam(rate), **options)
    # Now the check of the shapes at the entrance is all that runs.
    before = counting.calls
    _fit(xp, network, bx.Adam(bx.schedules.cosine(0.2, 9)), seed=2**40, **options)
    _fit(xp, network, bx.Adam(0.3), seed=7, **options)
    assert counting.calls == before + 2


def test_a_layer_that_looks_at_values_is_told_that_it_is_compiled(xp: Any) -> None:
    if xp.selection.backend.loop(lambda carry, given: (carry, None)) is None:
        pytest.skip(f"{xp.name} compiles nothing")

    class Looking(Counting):
        def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
            return (x, None) if float(array_namespace(x).max(x)) < 1e9 else (0.0 * x, None)

    network = bx.Network([bx.Dense(3, 2), Looking()], "huber")
    with pytest.raises(TypeError) as caught:
        _fit(xp, network, bx.SGD(0.1), epochs=1)
    assert "jax.disable_jit()" in "".join(caught.value.__notes__)


def test_functions_are_made_once_for_networks_and_optimisers_that_are_alike(xp: Any) -> None:
    theta = xp.initialize(_network())
    made = updates_of(_network(), bx.Adam(0.1), None, theta)
    assert updates_of(_network(), bx.Adam(0.2), None, theta) is made
    assert updates_of(_network(), bx.Adam(0.1, beta1=0.8), None, theta) is not made
    assert updates_of(_network(), bx.Adam(0.1), 1.0, theta) is not made
    assert updates_of(_network(l2=0.1), bx.Adam(0.1), None, theta) is not made
    assert updates_of(_network(), bx.AdamW(0.1), None, theta) is not made


def test_an_optimiser_that_cannot_be_hashed_is_served_as_well(xp: Any) -> None:
    theta = xp.initialize(_network())
    masked = bx.AdamW(0.1, mask=_network().weight_mask(theta))
    _fit(xp, _network(), masked, epochs=1)
    assert updates_of(_network(), masked, None, theta).one is not None


@dataclass(frozen=True)
class Heedless:
    """It takes its own rate, not the one that it is given."""

    learning_rate: float

    def initialize(self, theta: Any) -> tuple[()]:
        return ()

    def update(
        self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None
    ) -> tuple[Any, Any]:
        return theta - self.learning_rate * gradient, state


class Factored(bx.SGD):
    """An attribute that is no field: equal ones differ."""

    def __init__(self, factor: float) -> None:
        super().__init__(0.1)
        object.__setattr__(self, "factor", factor)

    def update(
        self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None
    ) -> tuple[Any, Any]:
        return theta - self.factor * gradient, state._replace(step=state.step + 1)


class Changing(Static):
    """Its factor is changed from one training to the next."""

    factor = 0.0

    def update(self, theta: Any, gradient: Any, state: Any) -> tuple[Any, Any]:
        return theta - self.factor * gradient, state


@pytest.mark.parametrize("make", [Heedless, Factored, Changing])
def test_an_optimiser_of_ones_own_is_taken_as_it_is_now(xp: Any, make: Any) -> None:
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

    def initialize(self, generator: Any) -> tuple[()]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.by * x, None

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return self.by * g, ()


class Shifted(NamedTuple):
    by: float
    names = shapes = ()

    def initialize(self, generator: Any) -> tuple[()]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return self.by + x, None

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g, ()


@pytest.mark.parametrize("inside", [lambda layer: layer, lambda layer: bx.Residual(layer)])
def test_layers_that_are_equal_and_differ_are_not_taken_for_each_other(
    xp: Any, inside: Any
) -> None:
    scaled, shifted = Scaled(2.0), Shifted(2.0)
    assert scaled == shifted
    losses = []
    for layer in (scaled, shifted):
        network = bx.Network([bx.Dense(3, 2), inside(layer)], "huber")
        result = _fit(xp, network, bx.SGD(0.1), epochs=1)
        theta = xp.initialize(network)
        losses.append(result.history["loss"][0])
        expected = xp.host(network.loss(theta, xp.asarray(X), xp.asarray(Y)))
        np.testing.assert_allclose(losses[-1], expected, rtol=xp.rounding(SAME))
    assert losses[0] != losses[1]


def test_a_gradient_outside_a_training_is_compiled_once(
    xp: Any, caplog: pytest.LogCaptureFixture
) -> None:
    if xp.name != "jax":
        pytest.skip(f"{xp.name} compiles nothing")
    import jax

    network, x, y = _network(), xp.asarray(X), xp.asarray(Y)
    theta = xp.initialize(network)
    network.loss_and_gradient(theta, x, y)
    with jax.log_compiles():
        network.loss_and_gradient(theta, x, y)
    assert not [record for record in caplog.records if "ompil" in record.getMessage()]


# ---- means


@pytest.mark.parametrize("stack", [(), (2,)])
def test_a_smaller_last_batch_may_have_all_the_weight(xp: Any, stack: tuple[int, ...]) -> None:
    weight = np.zeros((*stack, ROWS))
    weight[..., -1] = 1.0
    options: dict[str, Any] = {"sample_weight": xp.asarray(weight), "shuffle": False}
    result = _fit(xp, _network(), bx.SGD(0.1), stack=stack, epochs=2, batch_size=BATCH, **options)
    assert np.all(np.isfinite(result.history["loss"]))


def test_a_mean_counts_batches_by_their_shares() -> None:
    losses = [np.array([1.0, 4.0]), np.array([3.0, 0.0])]
    np.testing.assert_allclose(weighted_mean(losses, [3, 1]), [1.5, 3.0], rtol=1e-15)
    shares = [np.array([3.0, 1.0]), np.array([1.0, 1.0])]
    np.testing.assert_allclose(weighted_mean(losses, shares), [1.5, 2.0], rtol=1e-15)
    assert weighted_mean(losses[:1], [3]) is losses[0]


# ---- a loop of one's own


def test_a_loop_of_ones_own_can_be_compiled(xp: Any) -> None:
    """With a traced count in the state, a traced rate and a traced key."""
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
            rate = xp.asarray(0.1 / (number + 1))
            theta, state = function(theta, state, number, rate)
        results.append(xp.host(theta))
    np.testing.assert_allclose(results[0], results[1], rtol=0, atol=xp.rounding(SAME))


@pytest.mark.parametrize("stack", [(), (2,)])
def test_a_large_gradient_is_joined_as_the_reference_joins_it(
    xp: Any, stack: tuple[int, ...]
) -> None:
    """A backend may have a way of its own to join it, and reserve it for large ones."""
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


def test_a_callback_may_change_the_rate_of_an_optimiser_of_ones_own(xp: Any) -> None:
    @dataclass
    class Tuned(Plain):
        learning_rate: float = 0.1

        def update(
            self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None
        ) -> tuple[Any, Any]:
            return theta - learning_rate * gradient, state

    tuned, thetas = Tuned(), []

    def stop_learning(state: Any) -> None:
        thetas.append(np.array(xp.host(state.theta)))
        tuned.learning_rate = 0.0

    _fit(xp, _network(), tuned, epochs=3, batch_size=BATCH, callbacks=[stop_learning])
    np.testing.assert_array_equal(thetas[1], thetas[0])
    np.testing.assert_array_equal(thetas[2], thetas[0])
