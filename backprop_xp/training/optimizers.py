"""Optimisers: update rules for theta, as in the textbook.

Theta and its gradient are ``(..., P)``. A hyperparameter is a number, or an array ``(*stack, 1)``
that gives each network of a stack its own; a learning rate may also be a schedule. ``update`` may
reuse the memory of theta, gradient and state: go on with what it returns.

The conventions are PyTorch's; where other libraries differ, the docstring says so.
"""

import functools
import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, Protocol

from backprop_xp.backends import Array, array_namespace, replaced, require_floating
from backprop_xp.checks import integer
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.training.hyperparameters import (
    check_alike,
    check_hyperparameters,
    hyperparameter,
    placed,
)
from backprop_xp.training.pytrees import zeros_like
from backprop_xp.training.schedules import rate_at


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


def _update(
    self: Any, theta: Array, gradient: Array, state: Any, *, learning_rate: Any = None
) -> tuple[Array, Any]:
    """Return theta and the state after one update."""
    require_floating(theta, "theta")
    check_state(self, theta, state)
    check_alike(theta, gradient, "gradient")
    alpha = self.learning_rate if learning_rate is None else learning_rate
    alpha = rate_at(alpha, state.step) if callable(alpha) else alpha
    alpha = hyperparameter(theta, alpha, "learning_rate")
    rule = replaced(type(self).rule, theta)
    updated: tuple[Array, Any] = rule(placed(self, theta), theta, gradient, state, alpha)
    return updated


@dataclass(frozen=True, eq=False)
class SGD:
    """Gradient descent: ``v = momentum * v + gradient``, ``theta -= learning_rate * v``.

    With ``nesterov``, theta moves by ``gradient + momentum * v`` instead (Sutskever et al. 2013, in
    PyTorch's form). The learning rate is outside the velocity; with ``rate_inside`` it is inside,
    ``v = momentum * v + learning_rate * gradient``, as in Keras and scikit-learn: that differs
    while the rate changes.
    """

    learning_rate: Any
    _: KW_ONLY
    momentum: Any = 0.0
    nesterov: bool = False
    rate_inside: bool = False

    def __post_init__(self) -> None:
        check_hyperparameters(self)
        if self.nesterov and not _has_momentum(self):
            raise ValueError("nesterov=True needs a momentum above 0, such as momentum=0.9.")

    def initialize(self, theta: Array) -> SGDState:
        """Return a state with velocity 0."""
        require_floating(theta, "theta")
        return SGDState(0, _zeros(theta) if _has_momentum(self) else None)

    update = _update
    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def rule(
        self, theta: Array, gradient: Array, state: SGDState, learning_rate: Any
    ) -> tuple[Array, SGDState]:
        """Do what ``update`` does, unchecked: the hyperparameters are beside theta."""
        step, velocity = state
        if velocity is not None:
            if self.rate_inside:
                gradient, learning_rate = learning_rate * gradient, 1.0
            velocity *= self.momentum
            velocity += gradient
            gradient = gradient + self.momentum * velocity if self.nesterov else velocity
        theta -= learning_rate * gradient
        return theta, SGDState(step + 1, velocity)


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
        check_hyperparameters(self)

    def initialize(self, theta: Array) -> RMSPropState:
        """Return a state with mean square 0."""
        return RMSPropState(0, _zeros(theta))

    update = _update
    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def rule(
        self, theta: Array, gradient: Array, state: RMSPropState, learning_rate: Any
    ) -> tuple[Array, RMSPropState]:
        """Do what ``update`` does, unchecked: the hyperparameters are beside theta."""
        square = _running_mean(state.square, gradient * gradient, self.decay)
        scale = array_namespace(theta).sqrt(square) + self.epsilon
        theta -= gradient / scale * learning_rate
        return theta, RMSPropState(state.step + 1, square)


@dataclass(frozen=True, eq=False)
class Adam:
    """Theta by ``m / (sqrt(s) + epsilon)``, the bias-corrected means of gradient and square.

    Kingma and Ba 2015, algorithm 1: epsilon is added to the root of the *corrected* square, as in
    PyTorch. With ``corrected_epsilon=False`` it is added to the root of the uncorrected one, as in
    Keras, TensorFlow and scikit-learn (the end of their section 2).
    """

    learning_rate: Any = 1e-3
    _: KW_ONLY
    beta1: Any = 0.9
    beta2: Any = 0.999
    epsilon: Any = 1e-8
    corrected_epsilon: bool = True

    def __post_init__(self) -> None:
        check_hyperparameters(self)

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return AdamState(0, _zeros(theta), _zeros(theta))

    update = _update
    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def rule(
        self, theta: Array, gradient: Array, state: AdamState, learning_rate: Any
    ) -> tuple[Array, AdamState]:
        """Do what ``update`` does, unchecked: the hyperparameters are beside theta."""
        return _adam(self, theta, gradient, state, learning_rate)


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
        check_hyperparameters(self)

    def initialize(self, theta: Array) -> AdamState:
        """Return a state with both means 0."""
        return AdamState(0, _zeros(theta), _zeros(theta))

    update = _update
    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def rule(
        self, theta: Array, gradient: Array, state: AdamState, learning_rate: Any
    ) -> tuple[Array, AdamState]:
        """Do what ``update`` does, unchecked: hyperparameters and mask are beside theta."""
        decay = learning_rate * self.weight_decay
        theta *= 1.0 - (decay if self.mask is None else decay * self.mask)
        return _adam(self, theta, gradient, state, learning_rate)


_STATES = {SGD: SGDState, RMSProp: RMSPropState, Adam: AdamState, AdamW: AdamState}
_BEGIN = "Begin with state = optimizer.initialize(theta)."


def _kind_of_state(optimizer: Any) -> Any:
    """Return the class of an optimiser's state, None for an optimiser of the user's own.

    A subclass that keeps ``update`` keeps the state, too.
    """
    kind = type(optimizer)
    if getattr(kind, "update", None) is not _update:
        return None
    return next(_STATES[base] for base in kind.__mro__ if base in _STATES)


def rule_of(optimizer: Any, theta: Array) -> Any:
    """Return the rule of one of these optimisers, or the faster one that theta's backend has.

    It is called as ``(theta, gradient, state, learning_rate)``; None for a user's own optimiser.
    """
    if _kind_of_state(optimizer) is None:
        return None
    return functools.partial(replaced(type(optimizer).rule, theta), optimizer)


def optimizer_beside(optimizer: Any, theta: Array) -> Any:
    """Return the optimiser with its arrays, checked to fit, where theta is and in its dtype.

    The learning rate stays as it is, and so does an optimiser of the user's own.
    """
    return optimizer if _kind_of_state(optimizer) is None else placed(optimizer, theta)


def check_state(optimizer: Any, theta: Array, state: Any) -> None:
    """Raise unless a state is one that this optimiser makes for such a theta.

    A user's own optimiser is not checked: only it knows its states.
    """
    kind = _kind_of_state(optimizer)
    if kind is None:
        return
    if not isinstance(state, kind):
        raise TypeError(
            f"state is of {type(state).__name__}, but {type(optimizer).__name__} goes on from an "
            f"{kind.__name__}. {_BEGIN}"
        )
    if not hasattr(state.step, "shape"):  # it is an array in a compiled update
        integer(state.step, "state.step", at_least=0)
    for name, value in zip(kind._fields[1:], state[1:], strict=True):
        if value is not None:
            check_alike(theta, value, f"state.{name}", f" {_BEGIN}")
        elif kind is not SGDState or _has_momentum(optimizer):
            raise ValueError(
                f"state has no {name}, as of an SGD without momentum, but this "
                f"{type(optimizer).__name__} needs one. {_BEGIN}"
            )


def _has_momentum(optimizer: SGD) -> bool:
    return hasattr(optimizer.momentum, "shape") or optimizer.momentum != 0.0


def _zeros(theta: Array) -> Array:
    require_floating(theta, "theta")
    zeros: Array = replaced(zeros_like, theta)(theta)
    return zeros


def _adam(
    self: Adam | AdamW, theta: Array, gradient: Array, state: AdamState, learning_rate: Any
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


# Added to a decay before its logarithm: that of 0 is none, and any other stays what it is.
_TINY = 1e-37


def _passed(decay: Any, step: Any) -> Any:
    """Return ``1 - decay**step``: the weights of a running mean's values sum to this."""
    if isinstance(step, int) and isinstance(decay, float):
        return 1.0 - decay**step
    # Of arrays, as a compiled loop's are: in float32 the difference would lose its digits.
    if isinstance(decay, float):
        return -array_namespace(step).expm1(step * math.log(decay + _TINY))
    xp = array_namespace(decay)
    return -xp.expm1(step * xp.log(decay + _TINY))


def _running_mean(mean: Array, value: Array, decay: Any) -> Array:
    """Return ``decay * mean + (1 - decay) * value``, in the memory of both."""
    mean *= decay
    value *= 1.0 - decay
    mean += value
    return mean
