"""Optimizers: update rules for theta, as in the textbook.

Theta and its gradient are ``(..., P)``. A hyperparameter is a number, an array ``(*stack, 1)`` with
one for each network of a stack, or ``(..., P)`` with one for each parameter. A learning rate may
also be a schedule. A rate of 0 leaves a parameter as it is, bit for bit. ``update`` may reuse the
memory of theta, gradient and state: use only what it returns.

The conventions are PyTorch's. A docstring names the libraries that differ.
"""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import known
from backprop_xp.training.optimizers.hyperparameters import Hyperparameter, hyperparameter
from backprop_xp.training.optimizers.lbfgs import LBFGS as LBFGS
from backprop_xp.training.optimizers.levenberg_marquardt import (
    LevenbergMarquardt as LevenbergMarquardt,
)
from backprop_xp.training.optimizers.protocol import (
    AnyOptimizer as AnyOptimizer,
    BuiltIn,
    ObjectiveOptimizer as ObjectiveOptimizer,
    Optimizer as Optimizer,
    check_state as check_state,
    optimizer_on_device as optimizer_on_device,
    rule_of as rule_of,
)
from backprop_xp.training.optimizers.pytrees import Pytree
from backprop_xp.training.optimizers.running_means import (
    bias_correction,
    momentum_product,
    running_mean,
)
from backprop_xp.training.optimizers.schedules import LearningRate

Updated: TypeAlias = tuple[Array, Pytree]


class SGDState(NamedTuple):
    """The number of updates, and the velocity, None without momentum."""

    step: int
    velocity: Array | None


class RMSPropState(NamedTuple):
    """The number of updates, and the running mean of the squared gradient."""

    step: int
    square: Array


class AdagradState(NamedTuple):
    """The number of updates, and the sum of the squared gradients."""

    step: int
    total: Array


class AdamState(NamedTuple):
    """The number of updates, and the running means of the gradient and of its square."""

    step: int
    mean: Array
    square: Array


class AMSGradState(NamedTuple):
    """Adam's state with ``amsgrad``: also the largest running mean of the square so far."""

    step: int
    mean: Array
    square: Array
    largest: Array


Moments: TypeAlias = AdamState | AMSGradState


class LionState(NamedTuple):
    """The number of updates, and the running mean of the gradient."""

    step: int
    mean: Array


@dataclass(frozen=True, eq=False, repr=False)
class SGD(BuiltIn):
    """Gradient descent: ``v = momentum * v + gradient``, ``theta -= learning_rate * v``.

    With ``nesterov``, theta moves by ``gradient + momentum * v`` instead (Sutskever et al. 2013, in
    PyTorch's form). The learning rate is outside the velocity; with ``rate_inside`` it is inside,
    ``v = momentum * v + learning_rate * gradient``, as in Keras and scikit-learn: that differs
    while the rate changes.

    >>> import backprop_xp as bx
    >>> optimizer = bx.SGD(0.5)
    >>> theta = bx.asarray([1.0, 2.0])
    >>> state = optimizer.initialize(theta)
    >>> theta, state = optimizer.update(theta, bx.asarray([0.2, -0.4]), state)
    >>> theta
    array([0.9, 2.2])
    """

    learning_rate: LearningRate
    _: KW_ONLY
    momentum: Hyperparameter = 0.0
    nesterov: bool = False
    rate_inside: bool = False
    kind_of_state = SGDState
    is_elementwise = works_in_place = shares_code = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and not self._has_momentum:
            raise ValueError("nesterov=True needs a momentum above 0, such as momentum=0.9.")

    @property
    def _has_momentum(self) -> bool:
        return hasattr(self.momentum, "shape") or self.momentum != 0.0

    def unused(self) -> str:
        return "" if self._has_momentum else "velocity"

    def rule(
        self, theta: Array, gradient: Array, state: SGDState, learning_rate: Hyperparameter
    ) -> Updated:
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
class RMSProp(BuiltIn):
    """``s = decay * s + (1 - decay) * g**2``, ``theta -= learning_rate * g / (sqrt(s) + epsilon)``.

    Tieleman and Hinton 2012, lecture 6.5. Epsilon stands outside the root, as in PyTorch;
    TensorFlow has it inside.

    >>> import backprop_xp as bx
    >>> bx.RMSProp(0.01, decay=0.9)
    RMSProp(0.01, decay=0.9)
    """

    learning_rate: LearningRate = 1e-2
    _: KW_ONLY
    decay: Hyperparameter = 0.99
    epsilon: Hyperparameter = 1e-8
    kind_of_state = RMSPropState
    is_elementwise = works_in_place = shares_code = True

    def rule(
        self, theta: Array, gradient: Array, state: RMSPropState, learning_rate: Hyperparameter
    ) -> Updated:
        square = running_mean(state.square, gradient * gradient, self.decay)
        scale = array_namespace(theta).sqrt(square) + self.epsilon
        theta -= gradient / scale * learning_rate
        return theta, RMSPropState(state.step + 1, square)


@dataclass(frozen=True, eq=False, repr=False)
class Adagrad(BuiltIn):
    """``s = s + g**2``, ``theta -= learning_rate * g / (sqrt(s) + epsilon)``.

    Duchi, Hazan and Singer 2011, with diagonal matrices. Epsilon stands outside the root and s
    begins at ``initial``, 0 as in PyTorch; Keras and optax have epsilon inside and 0.1.

    >>> import backprop_xp as bx
    >>> bx.Adagrad(0.1)
    Adagrad(0.1)
    """

    learning_rate: LearningRate = 1e-2
    _: KW_ONLY
    initial: Hyperparameter = 0.0
    epsilon: Hyperparameter = 1e-10
    kind_of_state = AdagradState
    is_elementwise = works_in_place = shares_code = True

    def initialize(self, theta: Array) -> AdagradState:
        step, zeros = super().initialize(theta)
        return AdagradState(step, zeros + hyperparameter(theta, self.initial, "initial"))

    def rule(
        self, theta: Array, gradient: Array, state: AdagradState, learning_rate: Hyperparameter
    ) -> Updated:
        total = state.total
        total += gradient * gradient
        theta -= gradient / (array_namespace(theta).sqrt(total) + self.epsilon) * learning_rate
        return theta, AdagradState(state.step + 1, total)


@dataclass(frozen=True, eq=False, repr=False)
class Adam(BuiltIn):
    """``theta -= learning_rate * m / (sqrt(s) + epsilon)``, with bias-corrected running means.

    Kingma and Ba 2015, algorithm 1: epsilon is added to the root of the *corrected* square, as in
    PyTorch. With ``corrected_epsilon=False`` it is added to the root of the uncorrected one, as in
    Keras, TensorFlow and scikit-learn (the end of their section 2). With ``amsgrad`` s is the
    largest running mean so far (Reddi, Kale and Kumar 2018, algorithm 2, with PyTorch's correction
    of the bias).

    >>> import backprop_xp as bx
    >>> optimizer = bx.Adam(0.1)
    >>> theta = bx.asarray([1.0, 2.0])
    >>> theta, state = optimizer.update(theta, bx.asarray([0.2, -0.4]), optimizer.initialize(theta))
    >>> theta.round(6)
    array([0.9, 2.1])
    """

    learning_rate: LearningRate = 1e-3
    _: KW_ONLY
    beta1: Hyperparameter = 0.9
    beta2: Hyperparameter = 0.999
    epsilon: Hyperparameter = 1e-8
    corrected_epsilon: bool = True
    amsgrad: bool = False
    is_elementwise = works_in_place = shares_code = True

    @property
    def kind_of_state(self) -> type[Moments]:
        return AMSGradState if self.amsgrad else AdamState

    def rule(
        self, theta: Array, gradient: Array, state: Moments, learning_rate: Hyperparameter
    ) -> Updated:
        # Corrected for their bias, the means are m / c1 and s / c2: m / c1 / (sqrt(s / c2) +
        # epsilon), with the corrections taken out of the vectors (the end of their section 2).
        xp, step = array_namespace(theta), state.step + 1
        square = running_mean(state.square, gradient * gradient, self.beta2)
        mean = running_mean(state.mean, gradient, self.beta1)
        if isinstance(state, AMSGradState):
            state = AMSGradState(step, mean, square, xp.maximum(state.largest, square))
        else:
            state = AdamState(step, mean, square)
        root = bias_correction(self.beta2, step) ** 0.5
        scale = xp.sqrt(state[-1])
        scale += self.epsilon * (root if self.corrected_epsilon else 1.0)
        direction = mean / scale
        direction *= learning_rate * (root / bias_correction(self.beta1, step))
        theta -= direction
        return theta, state


@dataclass(frozen=True, eq=False, repr=False)
class AdamW(Adam):
    """Adam with decoupled weight decay: first ``theta -= learning_rate * weight_decay * theta``.

    Loshchilov and Hutter 2019, algorithm 2, with the decay scaled by the learning rate as in
    PyTorch. ``mask``, ``(P,)`` or stacked, is 1 where theta decays and 0 elsewhere
    (``network.weight_mask(theta)``: weights alone); None decays all of it.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([3, 8, 1])
    >>> theta = network.initialize()
    >>> bx.AdamW(1e-3, weight_decay=0.1, mask=network.weight_mask(theta)).weight_decay
    0.1
    """

    _: KW_ONLY
    weight_decay: Hyperparameter = 1e-2
    mask: Array | None = None
    is_elementwise = works_in_place = shares_code = True

    def rule(
        self, theta: Array, gradient: Array, state: Moments, learning_rate: Hyperparameter
    ) -> Updated:
        theta *= _kept(self, learning_rate)
        return super().rule(theta, gradient, state, learning_rate)


@dataclass(frozen=True, eq=False, repr=False)
class Nadam(BuiltIn):
    """Adam with Nesterov's momentum: the gradient counts beside the mean that follows from it.

    Dozat 2016, algorithm 2, in PyTorch's form: update t has the momentum ``mu_t = beta1 * (1 - 0.5
    * 0.96**(t * momentum_decay))``. Keras has a ``momentum_decay`` of 1.

    >>> import backprop_xp as bx
    >>> bx.Nadam(1e-3, momentum_decay=1.0)  # as in Keras
    Nadam(0.001, momentum_decay=1.0)
    """

    learning_rate: LearningRate = 2e-3
    _: KW_ONLY
    beta1: Hyperparameter = 0.9
    beta2: Hyperparameter = 0.999
    epsilon: Hyperparameter = 1e-8
    momentum_decay: Hyperparameter = 4e-3
    kind_of_state = AdamState
    is_elementwise = works_in_place = shares_code = True

    def factors(self, theta: Array, step: Any) -> tuple[Any, Any, Any]:
        """Return the factors of the gradient and of the mean in an update, and its epsilon."""
        product, momentum, following = momentum_product(
            self.beta1, self.momentum_decay, step, theta
        )
        root = bias_correction(self.beta2, step) ** 0.5
        now = root * (1.0 - momentum) / (1.0 - product)
        ahead = root * following / (1.0 - product * following)
        return now, ahead, self.epsilon * root

    def rule(
        self, theta: Array, gradient: Array, state: AdamState, learning_rate: Hyperparameter
    ) -> Updated:
        now, ahead, epsilon = self.factors(theta, state.step + 1)
        square = running_mean(state.square, gradient * gradient, self.beta2)
        direction = gradient * now
        mean = running_mean(state.mean, gradient, self.beta1)
        direction += mean * ahead
        direction /= array_namespace(theta).sqrt(square) + epsilon
        theta -= direction * learning_rate
        return theta, AdamState(state.step + 1, mean, square)


@dataclass(frozen=True, eq=False, repr=False)
class Lion(BuiltIn):
    """``theta -= learning_rate * (sign(beta1 * m + (1 - beta1) * g) + weight_decay * theta)``.

    After it ``m = beta2 * m + (1 - beta2) * g``. Chen et al. 2023, algorithm 2; they advise a rate
    of a third to a tenth of Adam's. ``mask`` is that of AdamW.

    >>> import backprop_xp as bx
    >>> bx.Lion(3e-5, weight_decay=0.1)
    Lion(3e-05, weight_decay=0.1)
    """

    learning_rate: LearningRate = 1e-4
    _: KW_ONLY
    beta1: Hyperparameter = 0.9
    beta2: Hyperparameter = 0.99
    weight_decay: Hyperparameter = 0.0
    mask: Array | None = None
    kind_of_state = LionState
    is_elementwise = works_in_place = shares_code = True

    def rule(
        self, theta: Array, gradient: Array, state: LionState, learning_rate: Hyperparameter
    ) -> Updated:
        direction = state.mean * self.beta1 + gradient * (1.0 - self.beta1)
        theta *= _kept(self, learning_rate)
        theta -= array_namespace(theta).sign(direction) * learning_rate
        return theta, LionState(state.step + 1, running_mean(state.mean, gradient, self.beta2))


def _kept(self: AdamW | Lion, learning_rate: Hyperparameter) -> Hyperparameter:
    """Return the share of theta that weight decay leaves."""
    decay = learning_rate * self.weight_decay
    return 1.0 - (decay if self.mask is None else decay * self.mask)


# By the names that fit takes.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    kind.__name__.lower(): kind for kind in (Adagrad, Adam, AdamW, Lion, Nadam, RMSProp, SGD)
}

# Those that take the objective in place of a gradient.
OBJECTIVE_OPTIMIZERS: dict[str, Callable[..., ObjectiveOptimizer]] = {
    "lbfgs": LBFGS,
    "levenbergmarquardt": LevenbergMarquardt,
}


def named_optimizer(optimizer: Any, **options: Any) -> Any:
    """Return the optimizer of a name with options or its defaults; any other object unchanged."""
    if not isinstance(optimizer, str):
        return optimizer
    kinds = {**OPTIMIZERS, **OBJECTIVE_OPTIMIZERS}
    if known(optimizer, kinds, "optimizer") == "sgd" and not options:
        raise ValueError("SGD has no default learning rate: give one, optimizer=bx.SGD(0.1).")
    return kinds[optimizer](**options)


def __dir__() -> list[str]:
    names = ["SGD", "Adagrad", "Adam", "AdamW", "LBFGS", "Lion", "Nadam", "RMSProp"]
    return [*names, "LevenbergMarquardt"]
