"""Optimizers: update rules for theta, as in the textbook.

Theta and its gradient are ``(..., P)``. A hyperparameter is a number, or an array ``(*stack, 1)``
with one for each network of a stack. A learning rate may also be a schedule. ``update`` may reuse
the memory of theta, gradient and state: use only what it returns.

The conventions are PyTorch's. A docstring names the libraries that differ.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Protocol

from backprop_xp.backends import Array, array_namespace, dispatch, require_floating
from backprop_xp.checks import integer
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.training.hyperparameters import (
    Hyperparameter,
    check_alike,
    check_hyperparameters,
    hyperparameter,
    placed,
)
from backprop_xp.training.pytrees import Pytree, zeros_like
from backprop_xp.training.schedules import LearningRate, rate_at


class Optimizer(Protocol):
    """The protocol of an optimizer.

    The state is any pytree. Built-in states count their updates in an int ``step``.

    ``train`` evaluates the attribute ``learning_rate``, if there is one, on the host, and passes it
    to ``update``. On JAX ``update`` is compiled: the state must consist of tuples, lists and dicts,
    its numbers are 0-d arrays inside, and an update keeps its structure, shapes and dtypes.
    """

    def initialize(self, theta: Array) -> Pytree:
        """Return the state before the first update."""
        ...

    def update(
        self,
        theta: Array,
        gradient: Array,
        state: Pytree,
        *,
        learning_rate: LearningRate | None = None,
    ) -> tuple[Array, Pytree]:
        """Return theta and the state after one update.

        ``learning_rate`` None is the optimizer's own at ``state.step``.
        """
        ...


class SGDState(NamedTuple):
    """The number of updates, and the velocity, None without momentum."""

    step: int
    velocity: Array | None


class RMSPropState(NamedTuple):
    """The number of updates, and the running mean of the squared gradient."""

    step: int
    square: Array


class AdamState(NamedTuple):
    """The number of updates, and the running means of the gradient and of its square."""

    step: int
    mean: Array
    square: Array


class _BuiltIn:
    """The methods that the built-in optimizers share; each has its own ``rule``."""

    learning_rate: LearningRate
    initialize: Callable[[Array], Pytree]
    rule: Callable[..., tuple[Array, Pytree]]

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    def update(
        self,
        theta: Array,
        gradient: Array,
        state: Pytree,
        *,
        learning_rate: LearningRate | None = None,
    ) -> tuple[Array, Pytree]:
        """Return theta and the state after one update."""
        require_floating(theta, "theta")
        check_state(self, theta, state)
        check_alike(theta, gradient, "gradient")
        alpha = self.learning_rate if learning_rate is None else learning_rate
        alpha = rate_at(alpha, state.step) if callable(alpha) else alpha
        alpha = hyperparameter(theta, alpha, "learning_rate")
        return dispatch(type(self).rule, theta)(placed(self, theta), theta, gradient, state, alpha)

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash


@dataclass(frozen=True, eq=False, repr=False)
class SGD(_BuiltIn):
    """Gradient descent: ``v = momentum * v + gradient``, ``theta -= learning_rate * v``.

    With ``nesterov``, theta moves by ``gradient + momentum * v`` instead (Sutskever et al. 2013, in
    PyTorch's form). The learning rate is outside the velocity; with ``rate_inside`` it is inside,
    ``v = momentum * v + learning_rate * gradient``, as in Keras and scikit-learn: that differs
    while the rate changes.
    """

    learning_rate: LearningRate
    _: KW_ONLY
    momentum: Hyperparameter = 0.0
    nesterov: bool = False
    rate_inside: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not _has_momentum(self):
            raise ValueError("nesterov=True needs a momentum above 0, such as momentum=0.9.")

    def initialize(self, theta: Array) -> SGDState:
        """Return a state with velocity 0."""
        require_floating(theta, "theta")
        return SGDState(0, _zeros(theta) if _has_momentum(self) else None)

    def rule(
        self, theta: Array, gradient: Array, state: SGDState, learning_rate: Hyperparameter
    ) -> tuple[Array, SGDState]:
        """Return what ``update`` does, unchecked; hyperparameters are on theta's device."""
        step, velocity = state
        if velocity is not None:
            if self.rate_inside:
                gradient, learning_rate = learning_rate * gradient, 1.0
            velocity *= self.momentum
            velocity += gradient
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        theta -= learning_rate * gradient
        return theta, SGDState(step + 1, velocity)


@dataclass(frozen=True, eq=False, repr=False)
class RMSProp(_BuiltIn):
    """``s = decay * s + (1 - decay) * g**2``, ``theta -= learning_rate * g / (sqrt(s) + epsilon)``.

    Tieleman and Hinton 2012, lecture 6.5. Epsilon stands outside the root, as in PyTorch;
    TensorFlow has it inside.
    """

    learning_rate: LearningRate = 1e-2
    _: KW_ONLY
    decay: Hyperparameter = 0.99
    epsilon: Hyperparameter = 1e-8

    def initialize(self, theta: Array) -> RMSPropState:
        """Return a state with mean square 0."""
        return RMSPropState(0, _zeros(theta))

    def rule(
        self, theta: Array, gradient: Array, state: RMSPropState, learning_rate: Hyperparameter
    ) -> tuple[Array, RMSPropState]:
        """Return what ``update`` does, unchecked; hyperparameters are on theta's device."""
        square = _running_mean(state.square, gradient * gradient, self.decay)
        scale = array_namespace(theta).sqrt(square) + self.epsilon
        theta -= gradient / scale * learning_rate
        return theta, RMSPropState(state.step + 1, square)


@dataclass(frozen=True, eq=False, repr=False)
class Adam(_BuiltIn):
    """``theta -= learning_rate * m / (sqrt(s) + epsilon)``, with bias-corrected running means.

    Kingma and Ba 2015, algorithm 1: epsilon is added to the root of the *corrected* square, as in
    PyTorch. With ``corrected_epsilon=False`` it is added to the root of the uncorrected one, as in
    Keras, TensorFlow and scikit-learn (the end of their section 2).
    """

    learning_rate: LearningRate = 1e-3
    _: KW_ONLY
    beta1: Hyperparameter = 0.9
    beta2: Hyperparameter = 0.999
    epsilon: Hyperparameter = 1e-8
    corrected_epsilon: bool = True

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return AdamState(0, _zeros(theta), _zeros(theta))

    def rule(
        self, theta: Array, gradient: Array, state: AdamState, learning_rate: Hyperparameter
    ) -> tuple[Array, AdamState]:
        """Return what ``update`` does, unchecked; hyperparameters are on theta's device."""
        return _adam(self, theta, gradient, state, learning_rate)


@dataclass(frozen=True, eq=False, repr=False)
class AdamW(_BuiltIn):
    """Adam with decoupled weight decay: first ``theta -= learning_rate * weight_decay * theta``.

    Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by the learning rate as in
    PyTorch. ``mask``, ``(P,)`` or stacked, is 1 where theta decays and 0 elsewhere
    (``network.weight_mask(theta)``: weights alone); None decays all of it.
    """

    learning_rate: LearningRate = 1e-3
    _: KW_ONLY
    beta1: Hyperparameter = 0.9
    beta2: Hyperparameter = 0.999
    epsilon: Hyperparameter = 1e-8
    weight_decay: Hyperparameter = 1e-2
    mask: Array | None = None

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return AdamState(0, _zeros(theta), _zeros(theta))

    def rule(
        self, theta: Array, gradient: Array, state: AdamState, learning_rate: Hyperparameter
    ) -> tuple[Array, AdamState]:
        """Return what ``update`` does, unchecked; hyperparameters and mask are on its device."""
        decay = learning_rate * self.weight_decay
        theta *= 1.0 - (decay if self.mask is None else decay * self.mask)
        return _adam(self, theta, gradient, state, learning_rate)


_STATES = {SGD: SGDState, RMSProp: RMSPropState, Adam: AdamState, AdamW: AdamState}
_BEGIN = "Begin with state = optimizer.initialize(theta)."


def _kind_of_state(optimizer: Any) -> Any:
    """Return the class of an optimizer's state, None for a user's own optimizer.

    A subclass that inherits ``update`` has the same state.
    """
    kind = type(optimizer)
    if getattr(kind, "update", None) is not _BuiltIn.update:
        return None
    return next(_STATES[base] for base in kind.__mro__ if base in _STATES)


def rule_of(optimizer: Optimizer, theta: Array) -> Callable[..., tuple[Array, Pytree]] | None:
    """Return the rule of a built-in optimizer, or the faster one of theta's backend.

    It is called with ``(theta, gradient, state, learning_rate)``. None for a user's own optimizer.
    """
    if _kind_of_state(optimizer) is None:
        return None
    kind: Any = type(optimizer)
    return functools.partial(dispatch(kind.rule, theta), optimizer)


def optimizer_beside(optimizer: Optimizer, theta: Array) -> Optimizer:
    """Return the optimizer with its arrays on theta's device, in its dtype, and checked to fit.

    The learning rate stays as it is, and so does a user's own optimizer.
    """
    return optimizer if _kind_of_state(optimizer) is None else placed(optimizer, theta)


def check_state(optimizer: Optimizer, theta: Array, state: Pytree) -> None:
    """Raise TypeError or ValueError unless a state fits this optimizer and theta.

    The state of a user's own optimizer is not checked.
    """
    kind = _kind_of_state(optimizer)
    if kind is None:
        return
    if not isinstance(state, kind):
        raise TypeError(
            f"state is {type(state).__name__}, but {type(optimizer).__name__} resumes from "
            f"{kind.__name__}. {_BEGIN}"
        )
    if not hasattr(state.step, "shape"):  # an array in a compiled update
        integer(state.step, "state.step", at_least=0)
    for name, value in zip(kind._fields[1:], state[1:], strict=True):
        if value is not None:
            check_alike(theta, value, f"state.{name}", f" {_BEGIN}")
        elif kind is not SGDState or _has_momentum(optimizer):
            raise ValueError(
                f"state has no {name}, as that of SGD without momentum, but this "
                f"{type(optimizer).__name__} needs one. {_BEGIN}"
            )


def _has_momentum(optimizer: Any) -> bool:
    return hasattr(optimizer.momentum, "shape") or optimizer.momentum != 0.0


def _zeros(theta: Array) -> Array:
    require_floating(theta, "theta")
    zeros: Array = dispatch(zeros_like, theta)(theta)
    return zeros


def _adam(
    self: Adam | AdamW,
    theta: Array,
    gradient: Array,
    state: AdamState,
    learning_rate: Hyperparameter,
) -> tuple[Array, AdamState]:
    # Corrected for their bias, the means are m / c1 and s / c2: m / c1 / (sqrt(s / c2) + epsilon),
    # with the corrections taken out of the vectors (Kingma and Ba 2015, the end of section 2).
    step = state.step + 1
    square = _running_mean(state.square, gradient * gradient, self.beta2)
    mean = _running_mean(state.mean, gradient, self.beta1)
    root = _passed(self.beta2, step) ** 0.5
    scale = array_namespace(theta).sqrt(square)
    scale += self.epsilon * (root if getattr(self, "corrected_epsilon", True) else 1.0)
    direction = mean / scale
    direction *= learning_rate * root / _passed(self.beta1, step)
    theta -= direction
    return theta, AdamState(step, mean, square)


# Added to a decay before its logarithm, since log(0) is infinite; any other decay stays the same.
_TINY = 1e-37


def _passed(decay: Hyperparameter, step: Any) -> Any:
    """Return ``1 - decay**step``, the sum of the weights of a running mean's values."""
    if isinstance(step, int) and isinstance(decay, float):
        return 1.0 - decay**step
    # For arrays, as in a compiled loop: the difference loses digits in float32.
    if isinstance(decay, float):
        return -array_namespace(step).expm1(step * math.log(decay + _TINY))
    xp = array_namespace(decay)
    return -xp.expm1(step * xp.log(decay + _TINY))


def _running_mean(mean: Array, value: Array, decay: Hyperparameter) -> Array:
    """Return ``decay * mean + (1 - decay) * value``, overwriting both."""
    mean *= decay
    value *= 1.0 - decay
    mean += value
    return mean
