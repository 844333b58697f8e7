"""Optimizers: each against the textbook's formula, stacks, and dtypes.

Specifies ``hyperparameters``, ``protocol``, ``running_means`` and ``updates``.
"""

import dataclasses
import functools
import itertools
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import dispatch
from backprop_xp.backends.libraries.numpy import updates
from backprop_xp.training.optimizers.first_order import check_state, optimizer_on_device
from backprop_xp.training.optimizers.running_means import bias_correction
from tests.helpers import thorough

# 100 updates, each a few roundings of 2e-16 or 6e-8, on a theta near 1.
SAME_UPDATES = {"float64": 1e-10, "float32": 1e-4}
# One update in another order of operations: a few roundings.
ROUNDING = 1e-13

STEPS = 100
SIZE = 7
STACK = 3
# The parameters that decay by AdamW's mask.
DECAYS = np.array([1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])


# The textbooks' rules by the hyperparameters o, theta, the gradient g, the number t of the update
# from 1, and the state after the updates before.


def _sgd(o: Any, theta: np.ndarray, g: np.ndarray, t: int, velocity: Any) -> Any:
    velocity = g if velocity is None else o.momentum * velocity + g
    direction = g + o.momentum * velocity if o.nesterov else velocity
    return theta - o.learning_rate * direction, velocity


def _rmsprop(o: Any, theta: np.ndarray, g: np.ndarray, t: int, square: Any) -> Any:
    square = o.decay * (0.0 if square is None else square) + (1.0 - o.decay) * g**2
    return theta - o.learning_rate * g / (np.sqrt(square) + o.epsilon), square


def _adam(o: Any, theta: np.ndarray, g: np.ndarray, t: int, means: Any) -> Any:
    """Kingma and Ba 2015, algorithm 1."""
    mean, square, largest = (0.0, 0.0, 0.0) if means is None else means
    mean = o.beta1 * mean + (1.0 - o.beta1) * g
    square = o.beta2 * square + (1.0 - o.beta2) * g**2
    largest = np.maximum(largest, square) if o.amsgrad else square
    corrected_mean, corrected_square = mean / (1.0 - o.beta1**t), largest / (1.0 - o.beta2**t)
    epsilon = o.epsilon if o.corrected_epsilon else o.epsilon / np.sqrt(1.0 - o.beta2**t)
    step = o.learning_rate * corrected_mean / (np.sqrt(corrected_square) + epsilon)
    return theta - step, (mean, square, largest)


def _adamw(o: Any, theta: np.ndarray, g: np.ndarray, t: int, means: Any) -> Any:
    return _adam(o, theta - o.learning_rate * o.weight_decay * o.mask * theta, g, t, means)


def _adagrad(o: Any, theta: np.ndarray, g: np.ndarray, t: int, total: Any) -> Any:
    total = (o.initial if total is None else total) + g**2
    return theta - o.learning_rate * g / (np.sqrt(total) + o.epsilon), total


def _nadam(o: Any, theta: np.ndarray, g: np.ndarray, t: int, memory: Any) -> Any:
    """Dozat 2016, algorithm 2, with the products of the momenta multiplied out."""
    mean, square, product = (0.0, 0.0, 1.0) if memory is None else memory
    now, ahead = (o.beta1 * (1.0 - 0.5 * 0.96 ** (i * o.momentum_decay)) for i in (t, t + 1))
    product = product * now
    mean = o.beta1 * mean + (1.0 - o.beta1) * g
    square = o.beta2 * square + (1.0 - o.beta2) * g**2
    corrected = ahead * mean / (1.0 - product * ahead) + (1.0 - now) * g / (1.0 - product)
    scale = np.sqrt(square / (1.0 - o.beta2**t)) + o.epsilon
    return theta - o.learning_rate * corrected / scale, (mean, square, product)


def _lion(o: Any, theta: np.ndarray, g: np.ndarray, t: int, mean: Any) -> Any:
    """Chen et al. 2023, algorithm 2."""
    mean = np.zeros_like(g) if mean is None else mean
    update = np.sign(o.beta1 * mean + (1.0 - o.beta1) * g) + o.weight_decay * o.mask * theta
    return theta - o.learning_rate * update, o.beta2 * mean + (1.0 - o.beta2) * g


RULES = {bx.SGD: _sgd, bx.RMSProp: _rmsprop, bx.Adam: _adam, bx.AdamW: _adamw}
RULES |= {bx.Adagrad: _adagrad, bx.Nadam: _nadam, bx.Lion: _lion}
_ADAM = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}
_ADAM |= {"corrected_epsilon": True, "amsgrad": False}
DEFAULTS: dict[Any, dict[str, Any]] = {
    bx.SGD: {"momentum": 0.0, "nesterov": False},
    bx.RMSProp: {"learning_rate": 1e-2, "decay": 0.99, "epsilon": 1e-8},
    bx.Adam: _ADAM,
    bx.AdamW: {**_ADAM, "weight_decay": 1e-2, "mask": 1.0},
    bx.Adagrad: {"learning_rate": 1e-2, "initial": 0.0, "epsilon": 1e-10},
    bx.Nadam: {**_ADAM, "learning_rate": 2e-3, "momentum_decay": 4e-3},
    bx.Lion: {**_ADAM, "learning_rate": 1e-4, "beta2": 0.99, "weight_decay": 0.0, "mask": 1.0},
}
# Each optimizer, with other options than the defaults where a default could hide a mistake.
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (bx.SGD, {"learning_rate": 0.1}),
    "sgd with momentum": (bx.SGD, {"learning_rate": 0.1, "momentum": 0.8}),
    "sgd with nesterov": (bx.SGD, {"learning_rate": 0.1, "momentum": 0.8, "nesterov": True}),
    "rmsprop": (bx.RMSProp, {"learning_rate": 0.02, "decay": 0.9, "epsilon": 1e-3}),
    "rmsprop by default": (bx.RMSProp, {}),
    "adam": (bx.Adam, {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}),
    "adam by default": (bx.Adam, {}),
    "adam with the other epsilon": (
        bx.Adam,
        {"learning_rate": 0.02, "epsilon": 1e-2, "corrected_epsilon": False},
    ),
    "adamw": (bx.AdamW, {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "weight_decay": 0.3}),
    "adamw by default": (bx.AdamW, {}),
    "adamw with a mask": (
        bx.AdamW,
        {"learning_rate": 0.02, "weight_decay": 0.3, "mask": DECAYS},
    ),
    "adamw with the other epsilon": (bx.AdamW, {"epsilon": 1e-2, "corrected_epsilon": False}),
    "amsgrad": (bx.Adam, {"learning_rate": 0.02, "beta2": 0.8, "amsgrad": True}),
    "amsgrad with decay": (
        bx.AdamW,
        {"learning_rate": 0.02, "beta2": 0.8, "weight_decay": 0.3, "mask": DECAYS, "amsgrad": True},
    ),
    "adagrad": (bx.Adagrad, {"learning_rate": 0.1, "initial": 0.1, "epsilon": 1e-3}),
    "adagrad by default": (bx.Adagrad, {}),
    "nadam": (bx.Nadam, {"learning_rate": 0.02, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3}),
    "nadam by default": (bx.Nadam, {}),
    "nadam as in keras": (bx.Nadam, {"momentum_decay": 1.0}),
    "lion": (bx.Lion, {"learning_rate": 0.01, "beta1": 0.8, "beta2": 0.9}),
    "lion with a mask": (bx.Lion, {"learning_rate": 0.01, "weight_decay": 0.3, "mask": DECAYS}),
    "lion by default": (bx.Lion, {}),
}
every_optimizer = pytest.mark.parametrize("name", CASES)
KINDS = ["sgd with momentum", "rmsprop", "adagrad", "adam", "adamw", "amsgrad", "nadam", "lion"]
each_kind = pytest.mark.parametrize("name", KINDS)


def _optimizer(xp: Any, name: str, dtype: str = "working", **options: Any) -> Any:
    """Return the optimizer of a case; ``options`` replace the case's own."""
    make, given = CASES[name]
    if "mask" in given:
        options = {"mask": xp.asarray(given["mask"], dtype=dtype), **options}
    return make(**{**given, **options})


def _theta(*stack: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(*stack, SIZE))


def _gradients(*stack: int, steps: int = STEPS) -> np.ndarray:
    """Return gradients of sizes over a factor of a thousand, and a zero, where epsilon matters."""
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
        # A copy, as the next update reuses the memory.
        path.append(np.array(xp.host(current)))
    return np.stack(path), current, state


def _arrays(state: Any) -> list[Any]:
    return [value for value in state if hasattr(value, "shape")]


@every_optimizer
def test_updates_equal_the_textbooks(xp: Any, name: str) -> None:
    make, options = CASES[name]
    given = SimpleNamespace(**{**DEFAULTS[make], **options})
    expected, memory, path = _theta(), None, []
    for t, gradient in enumerate(_gradients(), start=1):
        expected, memory = RULES[make](given, expected, gradient, t, memory)
        path.append(expected)
    actual, _, state = _run(xp, _optimizer(xp, name), _theta(), _gradients())
    np.testing.assert_allclose(actual, np.stack(path), rtol=0, atol=SAME_UPDATES[xp.dtype])
    assert state.step == STEPS


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_velocity_keeps_each_gradients_own_rate(xp: Any, nesterov: bool) -> None:
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


# An optimizer with the one of PyTorch that does the same; each trains on its own from one start.
PEERS: dict[str, tuple[str, dict[str, Any], Any]] = {
    "NAdam": ("NAdam", {"lr": 0.02}, bx.Nadam(0.02)),
    "NAdam with other numbers": (
        "NAdam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "momentum_decay": 0.1},
        bx.Nadam(0.02, beta1=0.8, beta2=0.95, epsilon=1e-3, momentum_decay=0.1),
    ),
    "NAdam at a constant half": ("NAdam", {"momentum_decay": 0.0}, bx.Nadam(momentum_decay=0.0)),
    "amsgrad": (
        "Adam",
        {"lr": 0.02, "betas": (0.9, 0.8), "amsgrad": True},
        bx.Adam(0.02, beta2=0.8, amsgrad=True),
    ),
    "amsgrad with decay": (
        "AdamW",
        {"lr": 0.02, "betas": (0.9, 0.8), "amsgrad": True, "weight_decay": 0.3},
        bx.AdamW(0.02, beta2=0.8, amsgrad=True, weight_decay=0.3),
    ),
    "Adagrad": ("Adagrad", {"lr": 0.1}, bx.Adagrad(0.1)),
    "Adagrad from elsewhere": (
        "Adagrad",
        {"lr": 0.1, "initial_accumulator_value": 0.2, "eps": 1e-4},
        bx.Adagrad(0.1, initial=0.2, epsilon=1e-4),
    ),
}


@pytest.mark.float64
@pytest.mark.parametrize("name", PEERS)
def test_updates_are_pytorchs(
    xp: Any, name: str, request: pytest.FixtureRequest, torch: Any
) -> None:
    kind, options, optimizer = PEERS[name]
    # NAdam keeps the product of its momenta in PyTorch's default precision.
    before = torch.get_default_dtype()
    request.addfinalizer(lambda: torch.set_default_dtype(before))
    torch.set_default_dtype(torch.float64)
    parameter = torch.nn.Parameter(torch.from_numpy(_theta()))
    peer, path = getattr(torch.optim, kind)([parameter], **options), []
    for gradient in _gradients():
        parameter.grad = torch.from_numpy(gradient)
        peer.step()
        path.append(parameter.detach().numpy().copy())
    actual, *_ = _run(xp, optimizer, _theta(), _gradients())
    np.testing.assert_allclose(actual, np.stack(path), rtol=0, atol=1e-12)


@every_optimizer
def test_a_rate_for_each_parameter_is_that_rate_there_and_0_freezes_it_to_the_bit(
    xp: Any, name: str
) -> None:
    """Under weight decay and momentum too, and from a state that has already moved."""
    rates, theta = np.array([0.0, 0.1, 0.2, 0.0, 0.3, 0.1, 0.0]), _theta()
    gradients = _gradients(steps=10)
    path, *_ = _run(xp, _optimizer(xp, name, learning_rate=xp.asarray(rates)), theta, gradients)
    for rate in np.unique(rates):
        alone, *_ = _run(xp, _optimizer(xp, name, learning_rate=float(rate)), theta, gradients)
        xp.assert_close(path[:, rates == rate], alone[:, rates == rate], ROUNDING)
    assert (path[:, rates == 0.0] == xp.host(xp.asarray(theta))[rates == 0.0]).all()
    optimizer = _optimizer(xp, name)
    _, current, state = _run(xp, optimizer, theta, gradients[:5])
    before, frozen = np.array(xp.host(current)), xp.asarray(rates)
    moved, _ = optimizer.update(current, xp.asarray(gradients[5]), state, learning_rate=frozen)
    assert ((xp.host(moved) == before) == (rates == 0.0)).all()


def test_a_state_with_and_one_without_the_largest_squares_are_not_exchanged(xp: Any) -> None:
    theta, gradient = xp.asarray(_theta()), xp.asarray(_theta())
    for amsgrad in (True, False):
        state = bx.AdamW(amsgrad=not amsgrad).initialize(theta)
        with pytest.raises(TypeError, match=r"but Adam resumes from (Adam|AMSGrad)St"):
            bx.Adam(amsgrad=amsgrad).update(theta, gradient, state)


# A schedule may return a number, a NumPy scalar, or an array for the stack.
RATES: dict[str, Callable[[Any], Any]] = {
    "schedule": lambda xp: bx.schedules.cosine(0.1, steps=5),
    "schedule of NumPy scalars": lambda xp: lambda step: np.float64(0.1) / (step + 1),
    "array": lambda xp: xp.asarray(np.full((STACK, 1), 0.1), dtype="float32"),
    "schedule of arrays": lambda xp: bx.schedules.warmup(
        bx.schedules.exponential(xp.asarray(np.full((STACK, 1), 0.1), dtype="float32"), 0.9), 2
    ),
}


# What a rule does with its rate depends on the optimizer's kind: Adam has every form of it, the
# others one in turn, and the thorough session has all pairs.
_FORMS = dict(zip(CASES, itertools.cycle(RATES), strict=False))


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        (name, rate) if name == "adam" or rate == _FORMS[name] else thorough(name, rate)
        for name, rate in itertools.product(CASES, RATES)
    ],
)
def test_float32_stays_float32(xp: Any, name: str, rate: str) -> None:
    optimizer = _optimizer(xp, name, dtype="float32", learning_rate=RATES[rate](xp))
    _, theta, state = _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=3), "float32")
    for array in [theta, *_arrays(state)]:
        assert array.dtype == xp.namespace.float32


_SWEPT = {
    "learning_rate": [0.1, 0.0, 0.3],
    "epsilon": [1e-8, 1e-3, 1.0],
    "weight_decay": [0.1, 0.0, 1.0],
    "initial": [0.1, 0.0, 1.0],
    "momentum_decay": [4e-3, 0.0, 1.0],
    **{key: [0.5, 0.1, 0.99] for key in ("momentum", "decay", "beta1", "beta2")},
}
HYPERPARAMETERS = [
    (name, hyperparameter)
    for name, swept in {
        "sgd with momentum": ["learning_rate", "momentum"],
        "sgd with nesterov": ["momentum"],
        "rmsprop": ["learning_rate", "decay", "epsilon"],
        "adam": ["learning_rate", "beta1", "beta2", "epsilon"],
        "adamw": ["learning_rate", "beta1", "beta2", "epsilon", "weight_decay"],
        "adamw with a mask": ["weight_decay"],
        "amsgrad": ["beta2"],
        "adagrad": ["learning_rate", "initial", "epsilon"],
        "nadam": ["learning_rate", "beta1", "beta2", "epsilon", "momentum_decay"],
        "lion": ["learning_rate", "beta1", "beta2", "weight_decay"],
    }.items()
    for hyperparameter in swept
]


def test_a_schedule_is_called_once_for_each_step_from_0(xp: Any) -> None:
    asked = []

    def schedule(step: int) -> float:
        asked.append((step, type(step)))
        return 0.1

    _run(xp, bx.SGD(schedule), _theta(), _gradients(steps=4))
    assert asked == [(step, int) for step in range(4)]


@every_optimizer
def test_a_rate_passed_to_update_or_rule_replaces_the_optimizers_own(xp: Any, name: str) -> None:
    gradient, theta = _gradients(steps=1)[0], xp.asarray(_theta())
    optimizer = optimizer_on_device(_optimizer(xp, name, learning_rate=0.5), theta)
    expected, _, _ = _run(xp, _optimizer(xp, name, learning_rate=0.25), _theta(), gradient[None])
    for call in (
        functools.partial(optimizer.update, learning_rate=0.25),
        lambda *arguments: optimizer.rule(*arguments, 0.25),
    ):
        here = xp.asarray(_theta())
        moved, _ = call(here, xp.asarray(gradient.copy()), optimizer.initialize(here))
        xp.assert_equal(moved, expected[0])


@every_optimizer
def test_an_unpickled_optimizer_and_its_state_continue(xp: Any, name: str) -> None:
    """The optimizer has no mask: some libraries cannot pickle arrays."""
    gradients, schedule = _gradients(steps=10), bx.schedules.cosine(0.1, steps=5)
    optimizer = _optimizer(xp, name, learning_rate=schedule)
    expected, _, _ = _run(xp, optimizer, _theta(), gradients)
    _, theta, state = _run(xp, optimizer, _theta(), gradients[:6])
    on_host = type(state)(*(np.array(xp.host(v)) if hasattr(v, "shape") else v for v in state))
    loaded = pickle.loads(pickle.dumps(on_host))  # noqa: S301 -- our own bytes
    state = type(loaded)(*(xp.asarray(v) if hasattr(v, "shape") else v for v in loaded))
    if "mask" not in CASES[name][1]:
        optimizer = pickle.loads(pickle.dumps(optimizer))  # noqa: S301 -- our own bytes
    for gradient in gradients[6:]:
        theta, state = optimizer.update(theta, xp.asarray(gradient.copy()), state)
    xp.assert_equal(theta, expected[-1])


def test_a_rate_of_0_changes_nothing_and_integers_are_accepted(xp: Any) -> None:
    gradients = _gradients(steps=1)
    for rate in (0, 1):
        path, _, _ = _run(xp, bx.SGD(rate, momentum=0), _theta(), gradients)
        xp.assert_close(path[0], _theta() - rate * gradients[0], ROUNDING)


def _wrong_values(hyperparameter: str) -> list[Any]:
    """Return invalid values of that hyperparameter."""
    fractions = ("momentum", "decay", "beta1", "beta2")
    return [-0.1, np.nan, np.inf, *([1.0, 2.0] if hyperparameter in fractions else [])]


@pytest.mark.parametrize(("name", "hyperparameter"), HYPERPARAMETERS)
def test_an_impossible_hyperparameter_is_an_error_that_names_its_entry(
    xp: Any, name: str, hyperparameter: str
) -> None:
    for wrong in _wrong_values(hyperparameter):
        with pytest.raises(ValueError, match=f"{hyperparameter} must be ") as of_one:
            _optimizer(xp, name, **{hyperparameter: wrong})
        column = xp.asarray([[0.5], [0.25], [wrong]])
        with pytest.raises(ValueError, match=rf"^{hyperparameter}\[2, 0\] must be ") as of_many:
            _optimizer(xp, name, **{hyperparameter: column})
        said = str(of_one.value).replace(hyperparameter, f"{hyperparameter}[2, 0]", 1)
        assert str(of_many.value) == said


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bx.SGD("fast"), TypeError, "learning_rate must be a number, not 'fast'"),
        (lambda: bx.SGD(True), TypeError, "learning_rate must be a number"),
        (
            lambda: bx.Adam([1e-3, 1e-2]),
            TypeError,
            r"learning_rate must be a number, not \[0\.001, 0\.01\].*array \(\*stack, 1\), such as "
            r"bx\.asarray\(\[\[",
        ),
        (lambda: bx.SGD(0.1, momentum=(0.9,)), TypeError, r"momentum .*array \(\*stack, 1\)"),
        (lambda: bx.schedules.cosine([0.1], 9), TypeError, r"learning_rate .*array \(\*stack, 1\)"),
        (lambda: bx.SGD(0.1, nesterov=True), ValueError, "momentum above 0"),
        (lambda: bx.AdamW(weight_decay="some"), TypeError, "weight_decay must be a number"),
        # Positional ones might have another library's order.
        *[(functools.partial(kind, 0.1, 0.9), TypeError, "positional") for kind in RULES],
        (lambda: bx.Adam(amsgrad="yes"), TypeError, "amsgrad must be True or False"),
    ],
)
def test_an_unknown_hyperparameter_is_an_error_that_names_it(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


# A schedule's value for an update, and the error.
WRONG_RATES: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, r" must be a number, not None \(NoneType\)"),
    ("fast", TypeError, r" must be a number, not 'fast'"),
    (True, TypeError, r" must be a number, not True"),
    ([0.1, 0.2], TypeError, r" must be a number, not \[0\.1, 0\.2\].*array \(\*stack, 1\)"),
    (-0.1, ValueError, r" must be >= 0, not -0\.1"),
    (np.array(-0.5), ValueError, r" must be >= 0, not -0\.5"),
    (np.nan, ValueError, r" must be finite and >= 0, not nan"),
    (np.array([[0.1], [-0.1], [0.1]]), ValueError, r"\[1, 0\] must be >= 0, not -0\.1"),
]


@pytest.mark.parametrize(("value", "error", "message"), WRONG_RATES)
def test_an_impossible_value_of_a_schedule_is_an_error_at_its_update(
    xp: Any, value: Any, error: type[Exception], message: str
) -> None:
    optimizer = bx.SGD(lambda step: value)
    with pytest.raises(error, match=rf"^learning_rate\(0\){message}"):
        _run(xp, optimizer, _theta(STACK), _gradients(STACK, steps=1))


@every_optimizer
def test_a_state_counts_its_updates_from_0(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    for step in (-1, "x", 1e30, None):
        state = optimizer.initialize(theta)._replace(step=step)
        with pytest.raises(
            (TypeError, ValueError), match=r"state\.step must be an integer of at least 0"
        ):
            optimizer.update(theta, xp.asarray(_theta()), state)


@every_optimizer
def test_a_state_of_another_optimizer_or_theta_is_an_error(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    kind, own = type(optimizer).__name__, optimizer.initialize(theta)
    check_state(optimizer, theta, own)
    others = [_optimizer(xp, other).initialize(theta) for other in CASES]
    strangers = [state for state in others if type(state) is not type(own)]
    for state in [*strangers, None, {"step": 0}, tuple(own), theta]:
        said = rf"state is {type(state).__name__}, but {kind} resumes from {type(own).__name__}"
        with pytest.raises(TypeError, match=rf"{said}\. Begin with state = optimizer\.initialize"):
            optimizer.update(theta, xp.asarray(_theta()), state)
    for shape, came in (((SIZE + 1,), r"\(8,\)"), ((1,), r"\(1,\)"), ((3, SIZE), r"\(3, 7\)")):
        state = optimizer.initialize(xp.asarray(np.ones(shape)))
        if _arrays(state):
            with pytest.raises(ValueError, match=rf"state\.\w+ has shape {came}, but theta \(7,\)"):
                optimizer.update(theta, xp.asarray(_theta()), state)


@pytest.mark.parametrize("momentum", [0.5, [0.5]])
def test_momentum_with_a_state_without_velocity_is_an_error(xp: Any, momentum: Any) -> None:
    theta, gradient = xp.asarray(_theta()), xp.asarray(_theta())
    state = bx.SGD(0.1).initialize(theta)
    momentum = xp.asarray(momentum) if isinstance(momentum, list) else momentum
    with pytest.raises(ValueError, match=r"state has no velocity.*optimizer\.initialize\(theta\)"):
        bx.SGD(0.1, momentum=momentum).update(theta, gradient, state)


# Options of AdamW; hyperparameters and the mask move beside theta first, the rate later.
MISPLACED: list[tuple[str, Any, type[Exception], str]] = [
    ("learning_rate", [0.1] * 3, ValueError, r"learning_rate\[\.\.\., None\]"),
    ("learning_rate", [[0.1] * 6] * 3, ValueError, r"\(\*stack, 1\) is expected.*\(\.\.\., 7\)"),
    ("learning_rate", [[0.1]] * 4, ValueError, r"stacked \(4,\), but theta is stacked \(3,\)"),
    ("learning_rate", [[[0.1]] * 3] * 2, ValueError, r"learning_rate is stacked \(2, 3\)"),
    ("beta1", [0.5, 0.5], ValueError, r"beta1\[\.\.\., None"),
    ("weight_decay", [[0.5]] * 2, ValueError, "weight_decay is stacked"),
    ("mask", [1.0], ValueError, r"mask has shape .* network\.weight_mask\(theta\)"),
    ("mask", [[1.0] * 6] * 3, ValueError, r"mask has shape .* network\.weight_mask\(theta\)"),
    ("mask", [[1.0] * 7] * 4, ValueError, r"mask is stacked \(4,\), but theta is stacked \(3,\)"),
    ("mask", [1.0] * 6 + ["no"], TypeError, "mask has dtype"),
]


@pytest.mark.parametrize(("option", "value", "error", "message"), MISPLACED)
def test_an_array_that_does_not_fit_theta_is_an_error_at_an_update_and_before_training(
    xp: Any, option: str, value: Any, error: type[Exception], message: str
) -> None:
    theta = xp.asarray(_theta(STACK))
    given = value if error is TypeError else xp.asarray(value)
    optimizer = bx.AdamW(**{option: given})
    calls = [lambda: optimizer.update(theta, 1.0 * theta, optimizer.initialize(theta))]
    calls += [lambda: optimizer_on_device(optimizer, theta)] * (option != "learning_rate")
    for call in calls:
        with pytest.raises(error, match=message):
            call()


@every_optimizer
def test_hyperparameters_and_masks_get_thetas_precision(xp: Any, name: str) -> None:
    optimizer, theta = _optimizer(xp, name), xp.asarray(_theta())
    placed = optimizer_on_device(optimizer, theta)
    assert (placed is optimizer) == ("mask" not in CASES[name][1])
    if "mask" in CASES[name][1]:
        assert placed.mask is optimizer.mask
    whole = optimizer_on_device(bx.RMSProp(epsilon=xp.asarray([1], dtype=None)), theta)
    assert (type(whole), whole.epsilon.dtype) == (bx.RMSProp, theta.dtype)


@pytest.mark.float64
def test_a_rate_or_gradient_of_another_shape_or_precision_is_an_error(xp: Any) -> None:
    theta, narrow = xp.asarray(_theta(STACK)), xp.asarray(_theta(STACK), dtype="float32")
    slow = bx.SGD(xp.asarray([[0.1]] * STACK, dtype="float32"))
    for optimizer, gradient, error, message in (
        (slow, theta, TypeError, "learning_rate is .*float32, but theta is .*float64"),
        (bx.SGD(0.1), narrow, TypeError, "gradient is float32, but theta is float64; precisions"),
        (bx.SGD(0.1), theta[0, :], ValueError, r"gradient has shape \(7,\), but theta \(3, 7"),
    ):
        with pytest.raises(error, match=message):
            optimizer.update(theta, gradient, optimizer.initialize(theta))


@each_kind
def test_a_gradient_or_state_on_another_device_is_an_error_with_the_line_that_moves_it(
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


# A backend's replacement of an update, and the conditions under which a loop calls it.

# More numbers than one piece of NumPy's update, with a shorter last piece; and fewer.
LONG = 2 * updates.PIECE + 5


SHAPES = [(LONG,), (2, LONG), (LONG // 4, SIZE), (2, LONG // 8, SIZE)]
FORMS = ["own rate", "a rate for each network", "a rate for each parameter", "one rate"]


# A piece of theta gets its piece of the rate, whatever the rule: each optimizer has each shape and
# each form of the rate once, and the thorough session has all pairs.
@pytest.mark.parametrize(
    ("name", "shape", "form"),
    [
        case if (i + j + k) % 3 == 0 else thorough(*case)
        for i, name in enumerate(CASES)
        for j, shape in enumerate(SHAPES)
        for k, form in enumerate(FORMS)
        if (case := (name, shape, form))
    ],
)
def test_a_backends_replacement_of_an_update_does_the_same(
    xp: Any, name: str, shape: tuple[int, ...], form: str
) -> None:
    """On NumPy it is equal to the bit; the compiler of a kernel may round differently."""
    generator, (make, options) = np.random.default_rng(3), CASES[name]
    rule = type(make(**{name: one for name, one in options.items() if name != "mask"})).rule
    rules = rule, dispatch(rule, xp.asarray([1.0]))
    if rules[0] is rules[1]:
        pytest.skip(f"{xp.name} replaces no update")
    if "mask" in options:
        options = {**options, "mask": xp.asarray(generator.integers(0, 2, shape[-1]))}
        options["mask"] = xp.asarray(xp.host(options["mask"]) * 1.0)
    theta, gradients = generator.normal(size=shape), generator.normal(size=(2, *shape))
    if form != FORMS[0]:
        wide = [(*shape[:-1], 1), shape[-1:], (1,) * len(shape)][FORMS.index(form) - 1]
        options = {**options, "learning_rate": xp.asarray(generator.uniform(0.1, 0.3, wide))}
    optimizer, ends = make(**options), []
    for rule in rules:
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


class Still:
    """A custom optimizer that has only the protocol."""

    momentum = "none"

    def initialize(self, theta: Any) -> None:
        return None

    def update(self, theta: Any, gradient: Any, state: None, *, learning_rate: Any = None) -> Any:
        return theta, state


class Heir(bx.Adam):
    """An optimizer that inherits its update."""


def test_a_backend_replaces_an_inherited_update_but_no_custom_one(xp: Any) -> None:
    theta, own = xp.asarray(_theta()), Still()
    assert optimizer_on_device(own, theta) is own
    check_state(own, theta, None)
    with pytest.raises(TypeError, match="state is NoneType, but Heir resumes from AdamState"):
        check_state(Heir(), theta, None)
    with pytest.raises(ValueError, match="beta1 is stacked"):
        optimizer_on_device(Heir(beta1=xp.asarray([[0.5]])), theta)


@pytest.mark.parametrize("step", [1, 2, 1000])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_the_bias_correction_keeps_its_digits(xp: Any, decay: float, step: int) -> None:
    """1 - decay^step would lose three of seven digits at 0.999; the rounded decay keeps all."""
    array = xp.asarray([decay], dtype="float32")
    exact = -np.expm1(step * np.log(np.float64(xp.host(array)[0]))) if decay else 1.0
    forms: list[tuple[Any, Any]] = [(array, step)]
    if xp.name in ("numpy", "jax", "torch"):  # an integer array times a number
        forms += [(array, xp.asarray([step], dtype="float32"))]
    for given, t in forms:
        got = bias_correction(given, t)
        assert got.dtype == xp.namespace.float32
        np.testing.assert_allclose(xp.host(got), [exact], rtol=1e-6)


@pytest.mark.core
@every_optimizer
def test_a_compiler_may_trace_every_number(xp: Any, name: str, jax: Any) -> None:
    if xp.name != "jax":
        pytest.skip("JAX is the one that traces")
    optimizer, theta = _optimizer(xp, name, dtype="float32"), _theta()
    names = [
        key
        for key in ("learning_rate", *CASES[name][1])
        if not isinstance(CASES[name][1].get(key), bool | np.ndarray)
    ]
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
    """Adam with half of each gradient; it calls the method that it overrides."""

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


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda wrong: bx.SGD(0.1, momentum=0.9, nesterov=wrong), "nesterov"),
        (lambda wrong: bx.SGD(0.1, momentum=0.9, rate_inside=wrong), "rate_inside"),
        (lambda wrong: bx.Adam(0.1, corrected_epsilon=wrong), "corrected_epsilon"),
        (lambda wrong: bx.mlp([2, 1], layer_norm=wrong), "layer_norm"),
    ],
)
def test_only_booleans_are_accepted_for_a_boolean(make: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"{name} must be True or False, not 'no'"):
        make("no")
    make(np.bool_(True))


def test_optimizers_with_equal_hyperparameters_are_equal(xp: Any) -> None:
    assert bx.Adam(0.1) == bx.Adam(0.1)
    assert hash(bx.Adam(0.1)) == hash(bx.Adam(0.1))
    different = [
        *(bx.Adam(0.1), bx.Adam(0.2), bx.Adam(0.1, beta1=0.5), bx.AdamW(0.1), bx.SGD(0.1)),
        *(bx.SGD(0.1, momentum=0.5), bx.SGD(bx.schedules.constant(0.1))),
        bx.SGD(bx.schedules.exponential(0.1, 0.5)),
        bx.SGD(bx.schedules.inverse_scaling(0.1, 0.5)),
        *(bx.SGD(bx.schedules.cosine(0.1, 5)), bx.SGD(bx.schedules.step_decay(0.1, 5))),
    ]
    assert len(set(different)) == len(different)
    assert all(
        (a == b) == (i == j) for i, a in enumerate(different) for j, b in enumerate(different)
    )
    rates, others = (xp.asarray(np.full((3, 1), 0.1)) for _ in range(2))
    with bx.transfer_guard("disallow"):
        # An array equals only itself, as its values stay on the device.
        assert (bx.Adam(rates) == bx.Adam(rates)) is True
        assert hash(bx.Adam(rates)) == hash(bx.Adam(rates))
        for other in (bx.Adam(others), bx.Adam(0.1), bx.Adam(rates, beta1=rates), rates, None):
            assert (bx.Adam(rates) == other) is False
        chained = bx.schedules.chain([rates, 0.1], [5])
        assert (bx.AdamW(chained, mask=others) == bx.AdamW(chained, mask=others)) is True
        assert (bx.AdamW(chained, mask=others) == bx.AdamW(chained)) is False


def test_custom_optimizers_with_equal_fields_are_equal() -> None:
    class Slow(bx.Adam):
        def __init__(self, learning_rate: float, name: str = "slow") -> None:
            super().__init__(learning_rate)

    one = Slow(0.1)
    assert one == one
    assert one != Slow(0.1)
    assert one != bx.Adam(0.1)
    assert len({one, Slow(0.1)}) == 2
