"""Optimisers: update rules for theta, as in the textbook.

Theta and its gradient are ``(..., P)``. A hyperparameter is a number, or an array ``(*stack, 1)``
that gives each network of a stack its own; a learning rate may also be a schedule. ``update`` may
reuse the memory of theta, gradient and state: go on with what it returns.

The conventions are PyTorch's; where other libraries differ, the docstring says so.
"""

import math
from dataclasses import KW_ONLY, dataclass
from numbers import Real
from typing import Any, NamedTuple, Protocol

from backprop_xp.backends import (
    Array,
    array_namespace,
    is_host_number,
    like,
    require_floating,
    require_like,
)
from backprop_xp.checks import real
from backprop_xp.inputs import check_entries, check_stack
from backprop_xp.schedules import rate, rate_at


class Optimizer(Protocol):
    """What an optimiser offers.

    A state is any structure; the built-in ones count their updates in a Python int ``step``.

    ``train`` evaluates ``learning_rate``, where the optimiser has such an attribute, on the host
    and passes it to ``update``. On JAX it compiles ``update``: numbers of the state are 0-d arrays
    there, and the state is made of tuples, lists and dicts; ``step`` is an int again outside. An
    update there leaves the state's structure, shapes and dtypes as ``initialize`` made them.
    """

    def initialize(self, theta: Array) -> Any:
        """Return the state before the first update."""
        ...

    def update(
        self, theta: Array, gradient: Array, state: Any, *, learning_rate: Any = None
    ) -> tuple[Array, Any]:
        """Return theta and the state after one update.

        ``learning_rate`` None takes the optimiser's own at ``state.step``.
        """
        ...


class SGDState(NamedTuple):
    """Updates made so far, and the running velocity (None without momentum)."""

    step: int
    velocity: Array | None


class RMSPropState(NamedTuple):
    """Updates made so far, and the running mean of the squared gradient."""

    step: int
    square: Array


class AdamState(NamedTuple):
    """Updates made so far, and the running means of the gradient and of its square."""

    step: int
    mean: Array
    square: Array


@dataclass(frozen=True, eq=False)
class SGD:
    """Gradient descent: ``v = momentum * v + gradient``, ``theta -= learning_rate * v``.

    With ``nesterov``, theta moves by ``gradient + momentum * v`` instead (Sutskever et al. 2013, in
    PyTorch's form). The learning rate is outside the velocity; Keras and scikit-learn have it
    inside, which differs while the rate changes.
    """

    learning_rate: Any
    _: KW_ONLY
    momentum: Any = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check_rate(self)
        _check_fraction(self, "momentum")
        if self.nesterov and not _has_momentum(self):
            raise ValueError("nesterov=True needs a momentum above 0, such as momentum=0.9.")

    def initialize(self, theta: Array) -> SGDState:
        """Return a state with velocity 0."""
        xp = require_floating(theta, "theta")
        return SGDState(0, xp.zeros_like(theta) if _has_momentum(self) else None)

    def update(
        self, theta: Array, gradient: Array, state: SGDState, *, learning_rate: Any = None
    ) -> tuple[Array, SGDState]:
        """Return theta and the state after one update."""
        _check_state(self, theta, state, SGDState)
        alpha = _learning_rate(self, theta, gradient, state.step, learning_rate)
        velocity = state.velocity
        if velocity is None and _has_momentum(self):
            raise ValueError(
                "state has no velocity, as of an SGD without momentum, but this one has momentum. "
                "Begin with state = optimizer.initialize(theta)."
            )
        if velocity is not None:
            momentum = _hyperparameter(theta, self.momentum, "momentum")
            velocity *= momentum
            velocity += gradient
            gradient = gradient + momentum * velocity if self.nesterov else 1.0 * velocity
        gradient *= alpha
        theta -= gradient
        return theta, SGDState(state.step + 1, velocity)


@dataclass(frozen=True, eq=False)
class RMSProp:
    """``s = decay * s + (1 - decay) * gradient**2``, theta by ``gradient / (sqrt(s) + epsilon)``.

    Tieleman and Hinton 2012, lecture 6.5. Epsilon stands outside the root, as in PyTorch;
    TensorFlow has it inside.
    """

    learning_rate: Any = 1e-2
    _: KW_ONLY
    decay: Any = 0.99
    epsilon: Any = 1e-8

    def __post_init__(self) -> None:
        _check_rate(self)
        _check_fraction(self, "decay")
        _check_not_negative(self, "epsilon")

    def initialize(self, theta: Array) -> RMSPropState:
        """Return a state with mean square 0."""
        return RMSPropState(0, require_floating(theta, "theta").zeros_like(theta))

    def update(
        self, theta: Array, gradient: Array, state: RMSPropState, *, learning_rate: Any = None
    ) -> tuple[Array, RMSPropState]:
        """Return theta and the state after one update."""
        _check_state(self, theta, state, RMSPropState)
        alpha = _learning_rate(self, theta, gradient, state.step, learning_rate)
        decay = _hyperparameter(theta, self.decay, "decay")
        square = _running_mean(state.square, gradient * gradient, decay)
        scale = array_namespace(theta).sqrt(square)
        scale += _hyperparameter(theta, self.epsilon, "epsilon")
        gradient /= scale
        gradient *= alpha
        theta -= gradient
        return theta, RMSPropState(state.step + 1, square)


@dataclass(frozen=True, eq=False)
class Adam:
    """Theta by ``m / (sqrt(s) + epsilon)``, the bias-corrected means of gradient and square.

    Kingma and Ba 2015, algorithm 1: epsilon is added to the root of the *corrected* square, as in
    PyTorch; Keras, TensorFlow and scikit-learn add it to the root of the uncorrected one.
    """

    learning_rate: Any = 1e-3
    _: KW_ONLY
    beta1: Any = 0.9
    beta2: Any = 0.999
    epsilon: Any = 1e-8

    def __post_init__(self) -> None:
        _check_adam(self)

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return _adam_start(theta)

    def update(
        self, theta: Array, gradient: Array, state: AdamState, *, learning_rate: Any = None
    ) -> tuple[Array, AdamState]:
        """Return theta and the state after one update."""
        _check_state(self, theta, state, AdamState)
        alpha = _learning_rate(self, theta, gradient, state.step, learning_rate)
        direction, state = _adam_direction(self, theta, gradient, state)
        direction *= alpha
        theta -= direction
        return theta, state


@dataclass(frozen=True, eq=False)
class AdamW:
    """Adam with decoupled weight decay: first ``theta -= learning_rate * weight_decay * theta``.

    Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by the learning rate as in
    PyTorch. ``mask``, ``(P,)`` or stacked, is 1 where theta decays and 0 elsewhere
    (``network.weight_mask(theta)``: weights alone); None decays all of it.
    """

    learning_rate: Any = 1e-3
    _: KW_ONLY
    beta1: Any = 0.9
    beta2: Any = 0.999
    epsilon: Any = 1e-8
    weight_decay: Any = 1e-2
    mask: Array | None = None

    def __post_init__(self) -> None:
        _check_adam(self)
        _check_not_negative(self, "weight_decay")

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return _adam_start(theta)

    def update(
        self, theta: Array, gradient: Array, state: AdamState, *, learning_rate: Any = None
    ) -> tuple[Array, AdamState]:
        """Return theta and the state after one update."""
        _check_state(self, theta, state, AdamState)
        alpha = _learning_rate(self, theta, gradient, state.step, learning_rate)
        decay = alpha * _hyperparameter(theta, self.weight_decay, "weight_decay")
        if self.mask is not None:
            mask = like(theta, self.mask, "mask")
            if mask.shape[-1:] != theta.shape[-1:]:
                raise ValueError(
                    f"mask has shape {tuple(mask.shape)}, but theta (..., {theta.shape[-1]}): one "
                    "0 or 1 per parameter is expected, as network.weight_mask(theta) gives."
                )
            check_stack(mask.shape[:-1], theta.shape[:-1], "mask")
            decay = decay * mask
        theta *= 1.0 - decay
        direction, state = _adam_direction(self, theta, gradient, state)
        direction *= alpha
        theta -= direction
        return theta, state


def _has_momentum(optimizer: SGD) -> bool:
    return hasattr(optimizer.momentum, "shape") or optimizer.momentum != 0.0


def _adam_start(theta: Array) -> AdamState:
    xp = require_floating(theta, "theta")
    return AdamState(0, xp.zeros_like(theta), xp.zeros_like(theta))


def _adam_direction(
    self: Adam | AdamW, theta: Array, gradient: Array, state: AdamState
) -> tuple[Array, AdamState]:
    beta1 = _hyperparameter(theta, self.beta1, "beta1")
    beta2 = _hyperparameter(theta, self.beta2, "beta2")
    step = state.step + 1
    mean = _running_mean(state.mean, 1.0 * gradient, beta1)
    gradient *= gradient
    square = _running_mean(state.square, gradient, beta2)
    scale = array_namespace(theta).sqrt(square)
    scale /= _passed(beta2, step) ** 0.5
    scale += _hyperparameter(theta, self.epsilon, "epsilon")
    direction = mean / scale
    direction /= _passed(beta1, step)
    return direction, AdamState(step, mean, square)


def _passed(decay: Any, step: Any) -> Any:
    """Return ``1 - decay**step``: the part of a running mean that its values make up."""
    if isinstance(step, int):
        return 1.0 - decay**step
    # A traced step, as in a compiled loop: in float32 the difference would lose its digits.
    if isinstance(decay, float):
        log = math.log(decay) if decay else -math.inf
    else:
        log = array_namespace(decay).log(decay)
    return -array_namespace(step).expm1(step * log)


def _running_mean(mean: Array, value: Array, decay: Any) -> Array:
    """Return ``decay * mean + (1 - decay) * value``, in the memory of both."""
    mean *= decay
    value *= 1.0 - decay
    mean += value
    return mean


def _check_state(optimizer: Any, theta: Array, state: Any, kind: Any) -> None:
    """Raise unless a state is one that this optimiser makes for such a theta."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state is of {type(state).__name__}, but {type(optimizer).__name__} goes on from an "
            f"{kind.__name__}. Begin with state = optimizer.initialize(theta)."
        )
    for name, value in zip(state._fields, state, strict=True):
        if value is None or name == "step":
            continue
        require_like(theta, value, f"state.{name}")
        if tuple(value.shape) != tuple(theta.shape):
            raise ValueError(
                f"state.{name} has shape {tuple(value.shape)}, but theta {tuple(theta.shape)}. "
                "Begin with state = optimizer.initialize(theta)."
            )


def _learning_rate(
    optimizer: Any, theta: Array, gradient: Array, step: Any, learning_rate: Any
) -> Any:
    """Return this update's learning rate, checked, like the gradient, to fit theta."""
    require_like(theta, gradient, "gradient")
    if tuple(gradient.shape) != tuple(theta.shape):
        raise ValueError(
            f"gradient has shape {tuple(gradient.shape)}, but theta {tuple(theta.shape)}."
        )
    if learning_rate is None:
        learning_rate = optimizer.learning_rate
    if callable(learning_rate):
        learning_rate = rate_at(learning_rate, step)
    return _hyperparameter(theta, learning_rate, "learning_rate")


def _hyperparameter(theta: Array, value: Any, name: str) -> Any:
    """Return a hyperparameter that broadcasts against theta: a number, or ``(*stack, 1)``."""
    if type(value) is float:
        return value
    if isinstance(value, Real) or is_host_number(value):
        return float(value)  # a NumPy scalar would widen float32
    value = like(theta, value, name)
    if value.shape and value.shape[-1] != 1:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but (*stack, 1) is expected: "
            f"{name}[..., None]."
        )
    check_stack(value.shape[:-1], theta.shape[:-1], name)
    return value


def _check_rate(optimizer: Any) -> None:
    if not callable(optimizer.learning_rate):
        object.__setattr__(optimizer, "learning_rate", rate(optimizer.learning_rate))


def _check_number(optimizer: Any, name: str, *, below: float) -> None:
    value = getattr(optimizer, name)
    if hasattr(value, "shape") and value.shape:
        check_entries(value, name, low=0.0, below=below)
    else:
        object.__setattr__(optimizer, name, real(value, name, low=0.0, below=below))


def _check_fraction(optimizer: Any, name: str) -> None:
    _check_number(optimizer, name, below=1.0)


def _check_not_negative(optimizer: Any, name: str) -> None:
    _check_number(optimizer, name, below=math.inf)


def _check_adam(optimizer: Adam | AdamW) -> None:
    _check_rate(optimizer)
    _check_fraction(optimizer, "beta1")
    _check_fraction(optimizer, "beta2")
    _check_not_negative(optimizer, "epsilon")
