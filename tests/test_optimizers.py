"""Optimisers: each against the textbook's formula and against PyTorch, stacks, and dtypes."""

import dataclasses
import functools
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import numpy_updates, replaced
from backprop_xp.optimizers import _passed, check_state, optimizer_beside

# 100 updates, each a few roundings of 2e-16 or 6e-8, on a theta near 1.
SAME_UPDATES = {"float64": 1e-10, "float32": 1e-4}
# One update in another order of operations: a few roundings.
ROUNDING = 1e-13

STEPS = 100
SIZE = 7
STACK = 3
# The parameters that decay under AdamW's mask.
DECAYS = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])

Rule = Callable[..., tuple[np.ndarray, Any]]


def _sgd(
    theta: np.ndarray,
    g: np.ndarray,
    t: int,
    velocity: Any,
    *,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> tuple[np.ndarray, Any]:
    velocity = g if velocity is None else momentum * velocity + g
    return theta - learning_rate * (g + momentum * velocity if nesterov else velocity), velocity


def _rmsprop(
    theta: np.ndarray,
    g: np.ndarray,
    t: int,
    square: Any,
    *,
    learning_rate: float = 1e-2,
    decay: float = 0.99,
    epsilon: float = 1e-8,
) -> tuple[np.ndarray, Any]:
    square = decay * (0.0 if square is None else square) + (1.0 - decay) * g**2
    return theta - learning_rate * g / (np.sqrt(square) + epsilon), square


def _adam(
    theta: np.ndarray,
    g: np.ndarray,
    t: int,
    means: Any,
    *,
    learning_rate: float = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    corrected_epsilon: bool = True,
) -> tuple[np.ndarray, Any]:
    mean, square = (0.0, 0.0) if means is None else means
    mean = beta1 * mean + (1.0 - beta1) * g
    square = beta2 * square + (1.0 - beta2) * g**2
    # Kingma and Ba 2015, algorithm 1; t counts from 1.
    corrected_mean, corrected_square = mean / (1.0 - beta1**t), square / (1.0 - beta2**t)
    if not corrected_epsilon:  # that is added to the root before the correction
        epsilon = epsilon / np.sqrt(1.0 - beta2**t)
    step = learning_rate * corrected_mean / (np.sqrt(corrected_square) + epsilon)
    return theta - step, (mean, square)


def _adamw(
    theta: np.ndarray,
    g: np.ndarray,
    t: int,
    means: Any,
    *,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-2,
    mask: Any = 1.0,
    **options: float,
) -> tuple[np.ndarray, Any]:
    decayed = theta - learning_rate * weight_decay * mask * theta
    return _adam(decayed, g, t, means, learning_rate=learning_rate, **options)


# Each optimiser with options that differ from the defaults where a default could hide a mistake.
CASES: dict[str, tuple[Callable[..., Any], Rule, dict[str, Any]]] = {
    "sgd": (bx.SGD, _sgd, {"learning_rate": 0.1}),
    "sgd with momentum": (bx.SGD, _sgd, {"learning_rate": 0.1, "momentum": 0.8}),
    "sgd with nesterov": (
        bx.SGD,
        _sgd,
        {"learning_rate": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "rmsprop": (bx.RMSProp, _rmsprop, {"learning_rate": 0.02, "decay": 0.9, "epsilon": 1e-3}),
    "rmsprop by default": (bx.RMSProp, _rmsprop, {}),
    "adam": (
        bx.Adam,
        _adam,
        {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
    ),
    "adam by default": (bx.Adam, _adam, {}),
    "adam with the other epsilon": (
        bx.Adam,
        _adam,
        {"learning_rate": 0.02, "epsilon": 1e-2, "corrected_epsilon": False},
    ),
    "adamw": (
        bx.AdamW,
        _adamw,
        {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3},
    ),
    "adamw by default": (bx.AdamW, _adamw, {}),
    "adamw with a mask": (
        bx.AdamW,
        _adamw,
        {"learning_rate": 0.02, "weight_decay": 0.3, "mask": DECAYS},
    ),
}
every_optimizer = pytest.mark.parametrize("name", CASES)


def _optimizer(xp: Any, name: str, dtype: str = "working", **options: Any) -> Any:
    """Return the optimiser of a case; ``options``, arrays there already, go before its own."""
    make, _, given = CASES[name]
    if "mask" in given:
        options = {"mask": xp.asarray(given["mask"], dtype=dtype), **options}
    return make(**{**given, **options})


def _theta(*stack: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*stack, SIZE))


def _gradients(*stack: int, steps: int = STEPS) -> np.ndarray:
    """Return gradients whose sizes span a thousandfold, with a zero, where epsilon rules."""
    generator = np.random.default_rng(2)
    gradients = generator.normal(size=(steps, *stack, SIZE)) * np.geomspace(1e-2, 1e1, SIZE)
    gradients[: steps // 2, ..., 3] = 0.0
    return gradients


def _run(
    xp: Any, optimizer: Any, theta: np.ndarray, gradients: np.ndarray, dtype: str = "working"
) -> tuple[np.ndarray, Any, Any]:
    """Return theta after each update on the host, and the last theta and state."""
    current = xp.asarray(theta.copy(), dtype=dtype)
    state = optimizer.initialize(current)
    path = []
    for gradient in gradients:
        current, state = optimizer.update(current, xp.asarray(gradient.copy(), dtype=dtype), state)
        # A copy, for the next update reuses the memory.
        path.append(np.array(xp.host(current)))
    return np.stack(path), current, state


def _arrays(state: Any) -> list[Any]:
    return [value for value in state if hasattr(value, "shape")]


@every_optimizer
def test_updates_are_the_textbooks(xp: Any, name: str) -> None:
    _, rule, options = CASES[name]
    expected, memory, path = _theta(), None, []
    for t, gradient in enumerate(_gradients(), start=1):
        expected, memory = rule(expected, gradient, t, memory, **options)
        path.append(expected)
    actual, _, state = _run(xp, _optimizer(xp, name), _theta(), _gradients())
    np.testing.assert_allclose(actual, np.stack(path), rtol=0, atol=SAME_UPDATES[xp.dtype])
    assert state.step == STEPS


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_rate_inside_the_velocity_stays_with_what_it_scaled(xp: Any, nesterov: bool) -> None:
    rate, momentum = bx.schedules.step_decay(0.1, every=5), 0.8
    expected, velocity, path = _theta(), 0.0, []
    for t, gradient in enumerate(_gradients()):
        velocity = momentum * velocity - rate(t) * gradient
        ahead = momentum * velocity - rate(t) * gradient
        expected = expected + (ahead if nesterov else velocity)
        path.append(expected)
    optimizer = bx.SGD(rate, momentum=momentum, nesterov=nesterov, rate_inside=True)
    actual, *_ = _run(xp, optimizer, _theta(), _gradients())
    np.testing.assert_allclose(actual, np.stack(path), rtol=0, atol=SAME_UPDATES[xp.dtype])


def _torch_optimizer(torch: Any, name: str, parameters: list[Any]) -> Any:
    """Return PyTorch's counterpart; ``parameters`` are the decaying and the other entries."""
    groups: Any = parameters
    options = {
        {"learning_rate": "lr", "decay": "alpha", "epsilon": "eps"}.get(key, key): value
        for key, value in CASES[name][2].items()
        if key not in ("mask", "beta1", "beta2")
    }
    if name.startswith("adam"):
        given = CASES[name][2]
        options["betas"] = (given.get("beta1", 0.9), given.get("beta2", 0.999))
    if "mask" in CASES[name][2]:
        decaying, others = parameters
        groups = [{"params": [decaying]}, {"params": [others], "weight_decay": 0.0}]
    kinds = {bx.SGD: "SGD", bx.RMSProp: "RMSprop", bx.Adam: "Adam", bx.AdamW: "AdamW"}
    return getattr(torch.optim, kinds[CASES[name][0]])(groups, **options)


@every_optimizer
def test_updates_are_pytorchs(xp: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    if not CASES[name][2].get("corrected_epsilon", True):
        pytest.skip("PyTorch has no such epsilon")
    parts = [np.flatnonzero(DECAYS == 1.0), np.flatnonzero(DECAYS == 0.0)]
    parameters = [torch.nn.Parameter(torch.from_numpy(_theta()[part])) for part in parts]
    reference = _torch_optimizer(torch, name, parameters)
    path = []
    for gradient in _gradients():
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = torch.from_numpy(gradient[part])
        reference.step()
        theta = np.empty(SIZE)
        for parameter, part in zip(parameters, parts, strict=True):
            theta[part] = parameter.detach().numpy()
        path.append(theta)
    actual, _, _ = _run(xp, _optimizer(xp, name), _theta(), _gradients())
    np.testing.assert_allclose(actual, np.stack(path), rtol=0, atol=SAME_UPDATES[xp.dtype])


@every_optimizer
def test_a_network_learns_with_it(xp: Any, name: str) -> None:
    network = bx.mlp([1, 2, 1])
    assert network.size == SIZE  # as the mask has it
    theta = xp.initialize(network, seed=0)
    optimizer = _optimizer(xp, name)
    x, y = xp.asarray([[-1.0], [0.5], [2.0]]), xp.asarray([[1.0], [0.0], [-1.0]])
    first, state = network.loss(theta, x, y), optimizer.initialize(theta)
    for _ in range(20):
        theta, state = optimizer.update(theta, network.loss_and_gradient(theta, x, y)[1], state)
    assert float(network.loss(theta, x, y)) < float(first)


# What a schedule may return: a number, a NumPy scalar, or an array for the stack.
RATES: dict[str, Callable[[Any], Any]] = {
    "number": lambda xp: 0.1,
    "schedule": lambda xp: bx.schedules.cosine(0.1, steps=5),
    "schedule of one's own": lambda xp: lambda step: 0.1 / (step + 1),
    "schedule of NumPy scalars": lambda xp: lambda step: np.float64(0.1) / (step + 1),
    "array": lambda xp: xp.asarray(np.full((STACK, 1), 0.1), dtype="float32"),
    "schedule of arrays": lambda xp: bx.schedules.warmup(
        bx.schedules.exponential(xp.asarray(np.full((STACK, 1), 0.1), dtype="float32"), 0.9), 2
    ),
}


@every_optimizer
@pytest.mark.parametrize("rate", RATES)
def test_float32_stays_float32(xp: Any, name: str, rate: str) -> None:
    optimizer = _optimizer(xp, name, dtype="float32", learning_rate=RATES[rate](xp))
    _, theta, state = _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=3), "float32")
    for array in [theta, *_arrays(state)]:
        assert array.dtype == xp.namespace.float32


HYPERPARAMETERS = [
    ("sgd", "learning_rate", [0.1, 0.0, 0.3]),
    ("sgd with momentum", "learning_rate", [0.1, 0.0, 0.3]),
    ("sgd with momentum", "momentum", [0.5, 0.0, 0.9]),
    ("sgd with nesterov", "momentum", [0.5, 0.1, 0.9]),
    ("rmsprop", "learning_rate", [0.1, 0.0, 0.3]),
    ("rmsprop", "decay", [0.5, 0.0, 0.99]),
    ("rmsprop", "epsilon", [1e-8, 1e-3, 1.0]),
    ("adam", "learning_rate", [0.1, 0.0, 0.3]),
    ("adam", "beta1", [0.5, 0.0, 0.99]),
    ("adam", "beta2", [0.5, 0.0, 0.99]),
    ("adam", "epsilon", [1e-8, 1e-3, 1.0]),
    ("adamw", "learning_rate", [0.1, 0.0, 0.3]),
    ("adamw", "beta1", [0.5, 0.0, 0.99]),
    ("adamw", "beta2", [0.5, 0.0, 0.99]),
    ("adamw", "epsilon", [1e-8, 1e-3, 1.0]),
    ("adamw", "weight_decay", [0.1, 0.0, 1.0]),
    ("adamw with a mask", "weight_decay", [0.1, 0.0, 1.0]),
]


def _assert_a_stack_is_its_members(xp: Any, together: Any, alone: list[Any]) -> None:
    """Run an optimiser over a stack, and an optimiser of its own over each network."""
    theta, gradients = _theta(len(alone)), _gradients(len(alone), steps=10)
    stacked, _, _ = _run(xp, together, theta, gradients)
    close = xp.rounding(ROUNDING)
    for i, optimizer in enumerate(alone):
        path, _, _ = _run(xp, optimizer, theta[i], gradients[:, i])
        np.testing.assert_allclose(stacked[:, i], path, rtol=close, atol=close)


@pytest.mark.parametrize(("name", "hyperparameter", "values"), HYPERPARAMETERS)
def test_an_array_of_hyperparameters_gives_what_separate_runs_give(
    xp: Any, name: str, hyperparameter: str, values: list[float]
) -> None:
    column = xp.asarray(np.array(values)[:, None])
    together = _optimizer(xp, name, **{hyperparameter: column})
    alone = [_optimizer(xp, name, **{hyperparameter: value}) for value in values]
    _assert_a_stack_is_its_members(xp, together, alone)


def test_a_schedule_may_give_each_network_its_own_rate(xp: Any) -> None:
    rates = [0.1, 0.01, 0.0]
    together, *alone = (
        bx.Adam(bx.schedules.step_decay(rate, every=4))
        for rate in (xp.asarray(np.array(rates)[:, None]), *rates)
    )
    _assert_a_stack_is_its_members(xp, together, alone)


def test_a_stacked_mask_gives_each_network_its_own(xp: Any) -> None:
    masks = np.stack([DECAYS, 1.0 - DECAYS])
    together, *alone = (_optimizer(xp, "adamw", mask=xp.asarray(mask)) for mask in (masks, *masks))
    _assert_a_stack_is_its_members(xp, together, alone)


@every_optimizer
def test_a_member_that_is_nan_leaves_the_others_as_they_were(xp: Any, name: str) -> None:
    theta, gradients = _theta(STACK), _gradients(STACK, steps=5)
    clean, _, _ = _run(xp, _optimizer(xp, name), theta, gradients)
    theta[1], gradients[:, 1] = np.nan, np.nan
    poisoned, _, state = _run(xp, _optimizer(xp, name), theta, gradients)
    assert np.all(np.isnan(poisoned[:, 1]))
    assert np.array_equal(poisoned[:, ::2], clean[:, ::2])
    for array in _arrays(state):
        assert np.all(np.isfinite(xp.host(array)[::2]))


@every_optimizer
def test_a_schedule_is_asked_once_for_each_step_from_0(xp: Any, name: str) -> None:
    asked = []

    def schedule(step: int) -> float:
        asked.append(step)
        return 0.1

    _run(xp, _optimizer(xp, name, learning_rate=schedule), _theta(), _gradients(steps=4))
    assert asked == [0, 1, 2, 3]
    assert {type(step) for step in asked} == {int}


@every_optimizer
def test_a_learning_rate_handed_to_update_or_rule_goes_before_the_optimisers_own(
    xp: Any, name: str
) -> None:
    gradient, theta = _gradients(steps=1)[0], xp.asarray(_theta())
    optimizer = optimizer_beside(_optimizer(xp, name, learning_rate=0.5), theta)
    expected, _, _ = _run(xp, _optimizer(xp, name, learning_rate=0.25), _theta(), gradient[None])
    for call in (
        functools.partial(optimizer.update, learning_rate=0.25),
        lambda *arguments: optimizer.rule(*arguments, 0.25),
    ):
        here = xp.asarray(_theta())
        moved, _ = call(here, xp.asarray(gradient.copy()), optimizer.initialize(here))
        assert np.array_equal(xp.host(moved), expected[0])


@every_optimizer
def test_a_learning_rate_of_0_changes_nothing(xp: Any, name: str) -> None:
    path, _, _ = _run(xp, _optimizer(xp, name, learning_rate=0.0), _theta(), _gradients(steps=3))
    assert np.array_equal(path, np.stack([_theta()] * 3).astype(xp.dtype))


@every_optimizer
def test_a_state_goes_on_after_it_was_pickled_on_the_host(xp: Any, name: str) -> None:
    gradients = _gradients(steps=10)
    expected, _, _ = _run(xp, _optimizer(xp, name), _theta(), gradients)
    _, theta, state = _run(xp, _optimizer(xp, name), _theta(), gradients[:6])
    on_host = type(state)(*(np.array(xp.host(v)) if hasattr(v, "shape") else v for v in state))
    loaded = pickle.loads(pickle.dumps(on_host))  # noqa: S301 -- our own bytes
    state = type(loaded)(*(xp.asarray(v) if hasattr(v, "shape") else v for v in loaded))
    optimizer = _optimizer(xp, name)
    for gradient in gradients[6:]:
        theta, state = optimizer.update(theta, xp.asarray(gradient.copy()), state)
    assert np.array_equal(xp.host(theta), expected[-1])


@pytest.mark.parametrize("name", [name for name in CASES if "mask" not in name])
def test_an_optimiser_can_be_pickled(xp: Any, name: str) -> None:
    schedule = bx.schedules.cosine(0.1, steps=5)
    optimizer = _optimizer(xp, name, learning_rate=schedule)
    again = pickle.loads(pickle.dumps(optimizer))  # noqa: S301 -- our own bytes
    expected, _, _ = _run(xp, optimizer, _theta(), _gradients(steps=3))
    actual, _, _ = _run(xp, again, _theta(), _gradients(steps=3))
    assert np.array_equal(actual, expected)


@every_optimizer
def test_a_state_starts_at_step_0_and_knows_nothing(xp: Any, name: str) -> None:
    state = _optimizer(xp, name).initialize(xp.asarray(_theta(STACK)))
    assert state.step == 0
    for array in _arrays(state):
        assert not np.any(xp.host(array))
        assert array.shape == (STACK, SIZE)


def test_integers_do_as_hyperparameters(xp: Any) -> None:
    path, _, _ = _run(xp, bx.SGD(1, momentum=0), _theta(), _gradients(steps=1))
    expected = _theta() - _gradients(steps=1)[0]
    np.testing.assert_allclose(
        path[0], expected, rtol=xp.rounding(ROUNDING), atol=xp.rounding(ROUNDING)
    )


REFUSED = [
    (bx.SGD, {"learning_rate": -0.1}, ValueError, r"learning_rate must be >= 0, not -0\.1"),
    (bx.SGD, {"learning_rate": np.inf}, ValueError, "learning_rate must be"),
    (bx.SGD, {"learning_rate": np.nan}, ValueError, "learning_rate must be"),
    (bx.SGD, {"learning_rate": "fast"}, TypeError, "learning_rate must be a number, not 'fast'"),
    (bx.SGD, {"learning_rate": True}, TypeError, "learning_rate must be a number"),
    (bx.SGD, {"learning_rate": 0.1, "momentum": 1.0}, ValueError, "momentum must be .* < 1"),
    (bx.SGD, {"learning_rate": 0.1, "momentum": -0.1}, ValueError, "momentum must be >= 0"),
    (bx.SGD, {"learning_rate": 0.1, "nesterov": True}, ValueError, "momentum above 0"),
    (bx.RMSProp, {"learning_rate": -0.1}, ValueError, "learning_rate must be >= 0"),
    (bx.RMSProp, {"decay": 1.0}, ValueError, "decay must be .* < 1"),
    (bx.RMSProp, {"epsilon": -1e-8}, ValueError, "epsilon must be >= 0"),
    (bx.Adam, {"learning_rate": -0.1}, ValueError, "learning_rate must be >= 0"),
    (bx.Adam, {"beta1": 1.0}, ValueError, "beta1 must be .* < 1"),
    (bx.Adam, {"beta2": 1.5}, ValueError, "beta2 must be .* < 1"),
    (bx.Adam, {"epsilon": -1.0}, ValueError, "epsilon must be >= 0"),
    (bx.AdamW, {"learning_rate": -0.1}, ValueError, "learning_rate must be >= 0"),
    (bx.AdamW, {"beta1": 1.0}, ValueError, "beta1 must be .* < 1"),
    (bx.AdamW, {"weight_decay": -0.1}, ValueError, "weight_decay must be >= 0"),
    (bx.AdamW, {"weight_decay": "some"}, TypeError, "weight_decay must be a number"),
]


@pytest.mark.parametrize(("make", "options", "error", "message"), REFUSED)
def test_an_impossible_hyperparameter_is_refused_by_name(
    make: Callable[..., Any], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(**options)


def _wrong_values(hyperparameter: str) -> list[float]:
    """Return what no hyperparameter of that name may be."""
    fractions = ("momentum", "decay", "beta1", "beta2")
    return [-0.1, np.nan, np.inf, -np.inf, *([1.0, 2.0] if hyperparameter in fractions else [])]


@pytest.mark.parametrize(
    ("name", "hyperparameter", "wrong"),
    [(name, what, wrong) for name, what, _ in HYPERPARAMETERS for wrong in _wrong_values(what)],
)
def test_an_array_of_hyperparameters_is_refused_by_its_entry_in_the_words_for_a_number(
    xp: Any, name: str, hyperparameter: str, wrong: float
) -> None:
    with pytest.raises(ValueError, match=f"{hyperparameter} must be ") as of_one:
        _optimizer(xp, name, **{hyperparameter: wrong})
    column = xp.asarray([[0.5], [0.25], [wrong]])
    with pytest.raises(ValueError, match=rf"^{hyperparameter}\[2, 0\] must be ") as of_many:
        _optimizer(xp, name, **{hyperparameter: column})
    said = str(of_one.value).replace(hyperparameter, f"{hyperparameter}[2, 0]", 1)
    assert str(of_many.value) == said


# What a schedule gives for an update, and what is said of it.
WRONG_RATES: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, r"learning_rate\(0\) must be a number, not None \(NoneType\)"),
    ("fast", TypeError, r"learning_rate\(0\) must be a number, not 'fast'"),
    (True, TypeError, r"learning_rate\(0\) must be a number, not True"),
    (0.1j, TypeError, r"learning_rate\(0\) must be a number, not 0\.1j"),
    (-0.1, ValueError, r"learning_rate\(0\) must be >= 0, not -0\.1"),
    (np.float32(-0.5), ValueError, r"learning_rate\(0\) must be >= 0, not -0\.5"),
    (np.array(-0.5), ValueError, r"learning_rate\(0\) must be >= 0, not -0\.5"),
    (np.nan, ValueError, r"learning_rate\(0\) must be finite and >= 0, not nan"),
    (np.inf, ValueError, r"learning_rate\(0\) must be finite and >= 0, not inf"),
    (
        np.array([[0.1], [-0.1], [0.1]]),
        ValueError,
        r"learning_rate\(0\)\[1, 0\] must be >= 0, not -0\.1",
    ),
    (
        np.array([[0.1], [0.1], [np.nan]]),
        ValueError,
        r"learning_rate\(0\)\[2, 0\] must be finite and >= 0, not nan",
    ),
]


@every_optimizer
@pytest.mark.parametrize(("value", "error", "message"), WRONG_RATES)
def test_an_impossible_value_of_a_schedule_is_refused_at_its_update(
    xp: Any, name: str, value: Any, error: type[Exception], message: str
) -> None:
    optimizer = _optimizer(xp, name, learning_rate=lambda step: value)
    with pytest.raises(error, match=message):
        _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=1))


@pytest.mark.parametrize("make", [bx.SGD, bx.RMSProp, bx.Adam, bx.AdamW])
def test_all_but_the_learning_rate_is_given_by_name(make: Callable[..., Any]) -> None:
    """Positional ones would be read in another library's order."""
    with pytest.raises(TypeError, match="positional"):
        make(0.1, 0.9)


@every_optimizer
def test_a_gradient_of_another_shape_is_refused(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta(STACK))
    state = optimizer.initialize(theta)
    with pytest.raises(ValueError, match=rf"gradient has shape \({SIZE},\), but theta \({STACK}, "):
        optimizer.update(theta, xp.asarray(_theta()), state)


@every_optimizer
def test_a_state_of_another_optimiser_is_refused(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    own = optimizer.initialize(theta)
    others = [_optimizer(xp, other).initialize(theta) for other in CASES]
    strangers = [state for state in others if type(state) is not type(own)]
    for state in [*strangers, None, {"step": 0}, tuple(own), theta, (theta, own)]:
        with pytest.raises(
            TypeError,
            match=rf"state is of {type(state).__name__}, but {type(optimizer).__name__} goes on "
            rf"from an {type(own).__name__}\. Begin with state = optimizer\.initialize\(theta\)",
        ):
            optimizer.update(theta, xp.asarray(_theta()), state)


@every_optimizer
def test_a_state_of_another_theta_is_refused(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    for shape in [(SIZE + 1,), (1,), (STACK, SIZE)]:
        state = optimizer.initialize(xp.asarray(np.ones(shape)))
        if _arrays(state):
            came = f"({', '.join(map(str, shape))}{',' * (len(shape) == 1)})"
            with pytest.raises(
                ValueError, match=rf"state\.\w+ has shape {re.escape(came)}, but theta \({SIZE},\)"
            ):
                optimizer.update(theta, xp.asarray(_theta()), state)


@pytest.mark.parametrize("momentum", [0.5, [0.5]])
def test_momentum_is_not_left_out_for_want_of_a_velocity(xp: Any, momentum: Any) -> None:
    theta, gradient = xp.asarray(_theta()), xp.asarray(_theta())
    state = bx.SGD(0.1).initialize(theta)
    momentum = xp.asarray(momentum) if isinstance(momentum, list) else momentum
    with pytest.raises(ValueError, match=r"state has no velocity.*optimizer\.initialize\(theta\)"):
        bx.SGD(0.1, momentum=momentum).update(theta, gradient, state)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((STACK,), r"learning_rate\[\.\.\., None\]"),
        ((STACK, SIZE), r"\(\*stack, 1\) is expected"),
        ((STACK + 1, 1), r"learning_rate is stacked \(4,\), but theta is stacked \(3,\)"),
        ((2, STACK, 1), r"learning_rate is stacked \(2, 3\)"),
    ],
)
@every_optimizer
def test_a_learning_rate_of_another_shape_is_refused(
    xp: Any, name: str, shape: tuple[int, ...], message: str
) -> None:
    optimizer = _optimizer(xp, name, learning_rate=xp.asarray(np.full(shape, 0.1)))
    with pytest.raises(ValueError, match=message):
        _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=1))


@pytest.mark.float64
@every_optimizer
def test_a_learning_rate_of_another_precision_is_refused(xp: Any, name: str) -> None:
    rate = xp.asarray(np.full((STACK, 1), 0.1), dtype="float32")
    with pytest.raises(TypeError, match=r"learning_rate is .*float32, but theta is .*float64"):
        _run(
            xp,
            _optimizer(xp, name, learning_rate=rate),
            _theta(STACK),
            _gradients(STACK, steps=1),
        )


@every_optimizer
def test_a_gradient_or_a_state_from_another_place_is_refused_by_the_line_that_moves_it(
    xp: Any, name: str
) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    gradient, state = xp.asarray(_theta()), optimizer.initialize(theta)
    others: list[dict[str, Any]] = [{"backend": "array-api-strict", "device": "device2"}]
    others += [{"backend": "numpy"}] * (bx.resolve(theta).backend.name != "numpy")
    for other in others:
        gone = bx.asarray(gradient, dtype="float32", **other)
        with pytest.raises(
            ValueError, match=r"^gradient is .*gradient = (bx\.asarray\(.*\))\.$"
        ) as e:
            optimizer.update(theta, gone, state)
        line = str(e.value).partition("gradient = ")[2].rstrip(".")
        back = eval(line, {"bx": bx, "gradient": gone})  # noqa: S307 - our own error's line
        optimizer.update(xp.asarray(_theta()), back, state)
        parts = [bx.asarray(v, **other) if hasattr(v, "shape") else v for v in state]
        if _arrays(state):
            with pytest.raises(ValueError, match=r"^state\.\w+ is .*, but theta is .*bx\.asarray"):
                optimizer.update(theta, gradient, type(state)(*parts))


@pytest.mark.float64
@every_optimizer
def test_a_gradient_of_another_precision_is_refused(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    gradient = xp.asarray(_theta(), dtype="float32")
    with pytest.raises(TypeError, match="gradient is float32, but theta is float64; precisions"):
        optimizer.update(theta, gradient, optimizer.initialize(theta))


@pytest.mark.parametrize("shape", [(SIZE + 1,), (1,), (STACK, SIZE - 1)])
def test_a_mask_of_another_shape_is_refused(xp: Any, shape: tuple[int, ...]) -> None:
    optimizer = _optimizer(xp, "adamw", mask=xp.asarray(np.ones(shape)))
    with pytest.raises(ValueError, match=r"mask has shape .* network\.weight_mask\(theta\)"):
        _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=1))


def test_a_mask_of_another_stack_is_refused(xp: Any) -> None:
    optimizer = _optimizer(xp, "adamw", mask=xp.asarray(np.ones((STACK + 1, SIZE))))
    with pytest.raises(ValueError, match=r"mask is stacked \(4,\), but theta is stacked \(3,\)"):
        _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=1))


def test_a_networks_own_mask_spares_biases(xp: Any) -> None:
    network = bx.mlp([2, 2, 1])
    theta = xp.initialize(network, seed=0) + 1.0
    optimizer = bx.AdamW(0.1, weight_decay=0.5, mask=network.weight_mask(theta))
    before = np.array(xp.host(theta))
    after, _ = optimizer.update(theta, 0.0 * theta, optimizer.initialize(theta))
    changed = xp.host(after) != before
    assert np.array_equal(changed, xp.host(network.weight_mask(after)) == 1.0)


# What a backend has in the place of an update, and what a loop asks before it calls that.

# More numbers than NumPy updates in one piece, the last piece being shorter; few that it does not.
LONG = 3 * numpy_updates.PIECE + 5


@pytest.mark.parametrize("shape", [(LONG,), (3, LONG // 2), (2, SIZE), (LONG // 4, SIZE)])
@every_optimizer
def test_what_a_backend_has_in_the_place_of_an_update_does_the_same(
    xp: Any, name: str, shape: tuple[int, ...]
) -> None:
    """On NumPy to the last bit; a kernel's compiler may round otherwise."""
    generator, (make, _, options) = np.random.default_rng(3), CASES[name]
    if "mask" in options:
        options = {**options, "mask": xp.asarray(generator.integers(0, 2, shape[-1]))}
        options["mask"] = xp.asarray(xp.host(options["mask"]) * 1.0)
    theta, gradients = generator.normal(size=shape), generator.normal(size=(2, *shape))
    rates = xp.asarray(generator.uniform(0.1, 0.3, (*shape[:-1], 1)))
    for optimizer in (make(**options), make(**{**options, "learning_rate": rates})):
        ends = []
        for rule in (type(optimizer).rule, replaced(type(optimizer).rule, rates)):
            current = xp.asarray(theta.copy())
            state = optimizer.initialize(current)
            for gradient in gradients:
                gradient = xp.asarray(gradient.copy())
                current, state = rule(optimizer, current, gradient, state, optimizer.learning_rate)
            assert state.step == 2
            ends.append([xp.host(array) for array in (current, *_arrays(state))])
        for one, other in zip(*ends, strict=True):
            if xp.name == "numpy":
                assert np.array_equal(one, other)
            np.testing.assert_allclose(one, other, rtol=xp.rounding(ROUNDING) * 10, atol=1e-6)


def test_on_numpy_an_update_in_pieces_is_in_place() -> None:
    theta, optimizer = np.ones(LONG), bx.Adam(0.1)
    state = optimizer.initialize(theta)
    moved, after = optimizer.update(theta, np.ones(LONG), state)
    assert moved is theta
    assert after.mean is state.mean
    np.testing.assert_allclose(theta, 0.9)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda xp: bx.SGD(0.1, momentum=xp.asarray([0.5, 0.5])), ValueError, r"momentum\[\.\.\.,"),
        (lambda xp: bx.Adam(beta1=xp.asarray([[0.5]] * 2)), ValueError, "beta1 is stacked"),
        (lambda xp: bx.RMSProp(epsilon=xp.asarray([[1]], dtype=None)), None, ""),
        (lambda xp: bx.AdamW(mask=xp.asarray([1.0])), ValueError, "mask has shape"),
        (lambda xp: bx.AdamW(mask=[1.0] * 5 + ["no"]), TypeError, "mask has dtype"),
    ],
)
def test_hyperparameters_are_brought_beside_theta_as_update_brings_them(
    xp: Any, make: Any, error: Any, message: str
) -> None:
    theta = xp.asarray(_theta(STACK))
    if error is None:
        placed = optimizer_beside(make(xp), theta)
        assert placed.epsilon.dtype == theta.dtype
        assert type(placed) is bx.RMSProp
        return
    optimizer = make(xp)
    for call in (
        lambda: optimizer_beside(optimizer, theta),
        lambda: optimizer.update(theta, 1.0 * theta, optimizer.initialize(theta)),
    ):
        with pytest.raises(error, match=message):
            call()


@every_optimizer
def test_an_optimiser_of_numbers_is_beside_theta_as_it_is(xp: Any, name: str) -> None:
    optimizer = _optimizer(xp, name)
    placed = optimizer_beside(optimizer, xp.asarray(_theta()))
    assert (placed is optimizer) == ("mask" not in CASES[name][2])
    if "mask" in CASES[name][2]:
        assert placed.mask is optimizer.mask


class Still:
    """An optimiser of a user's own, which knows no more than the protocol."""

    momentum = "none"

    def initialize(self, theta: Any) -> None:
        return None

    def update(self, theta: Any, gradient: Any, state: None, *, learning_rate: Any = None) -> Any:
        return theta, state


class Heir(bx.Adam):
    """An optimiser that inherits its update."""


def test_an_optimiser_of_ones_own_is_left_alone_and_an_heir_is_not(xp: Any) -> None:
    theta, own = xp.asarray(_theta()), Still()
    assert optimizer_beside(own, theta) is own
    check_state(own, theta, None)
    with pytest.raises(TypeError, match="state is of NoneType, but Heir goes on from an AdamState"):
        check_state(Heir(), theta, None)
    with pytest.raises(ValueError, match="beta1 is stacked"):
        optimizer_beside(Heir(beta1=xp.asarray([[0.5]])), theta)


@every_optimizer
def test_a_state_of_another_theta_is_refused_before_the_first_update(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    check_state(optimizer, theta, optimizer.initialize(theta))
    state = optimizer.initialize(xp.asarray(np.ones(SIZE + 1)))
    if _arrays(state):
        with pytest.raises(ValueError, match=rf"state\.\w+ has shape \({SIZE + 1},\)"):
            check_state(optimizer, theta, state)


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_part_of_a_mean_that_has_passed_keeps_its_digits_in_float32(
    xp: Any, decay: float, step: int
) -> None:
    """1 - decay^step would lose three of seven at 0.999: of the rounded decay all are kept."""
    array = xp.asarray([decay], dtype="float32")
    exact = -np.expm1(step * np.log(np.float64(xp.host(array)[0]))) if decay else 1.0
    forms: list[tuple[Any, Any]] = [(array, step)]
    if xp.name in ("numpy", "jax", "torch"):  # an int of theirs times a number
        forms += [(array, xp.asarray([step], dtype="float32"))]
    for given, t in forms:
        got = _passed(given, t)
        assert got.dtype == xp.namespace.float32
        np.testing.assert_allclose(xp.host(got), [exact], rtol=1e-6)


@every_optimizer
def test_a_compiler_may_trace_every_number(xp: Any, name: str) -> None:
    if xp.name != "jax":
        pytest.skip("JAX is the one that traces")
    import jax

    optimizer, theta = _optimizer(xp, name, dtype="float32"), _theta()
    names = [key for key in ("learning_rate", *CASES[name][2]) if key not in ("mask", "nesterov")]
    names += [key for key in ("beta1", "beta2", "epsilon", "decay") if hasattr(optimizer, key)]
    numbers = {key: getattr(optimizer, key) for key in names}

    def one(theta: Any, gradient: Any, state: Any, numbers: dict[str, Any]) -> Any:
        traced = dataclasses.replace(optimizer, **numbers)
        return traced.rule(theta, gradient, state, traced.learning_rate)

    compiled = jax.jit(one)
    here = xp.asarray(theta, dtype="float32")
    state = optimizer.initialize(here)
    for gradient in _gradients(steps=5):
        here, state = compiled(here, xp.asarray(gradient, dtype="float32"), state, numbers)
    expected, _, _ = _run(xp, optimizer, theta, _gradients(steps=5), "float32")
    np.testing.assert_allclose(xp.host(here), expected[-1], rtol=1e-4, atol=1e-5)


class Halved(bx.Adam):
    """Adam by half of each gradient, which calls what it overrides."""

    def update(self, theta: Any, gradient: Any, state: Any, *, learning_rate: Any = None) -> Any:
        return super().update(theta, 0.5 * gradient, state, learning_rate=learning_rate)


def test_an_update_may_call_the_one_that_it_overrides(xp: Any) -> None:
    network, x, y = bx.mlp([2, 3, 1]), xp.asarray([[0.5, 1.0]]), xp.asarray([[1.0]])
    theta = xp.initialize(network)
    ends = [
        bx.fit(network, theta, x, y, optimizer=optimizer, epochs=3).theta
        for optimizer in (Halved(0.1, epsilon=1e-8), bx.Adam(0.1, epsilon=2e-8))
    ]
    one, other = map(xp.host, ends)
    np.testing.assert_allclose(one, other, rtol=0, atol=xp.rounding(1e-12))
