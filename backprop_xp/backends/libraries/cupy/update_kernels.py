"""Updates of the optimisers in one CUDA kernel each: theta and its state cross the memory once.

The reference, an optimiser's ``rule``, launches about ten kernels, each of which reads and writes
whole vectors; these do the same operations in the same order, so that they round alike. An update
they do not know (a hyperparameter that is an array, a complex theta) is left to the reference.
"""

from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends.protocol import Array


class Kernel(NamedTuple):
    """One pass over theta: ``body`` is CUDA C++ for one entry, T its dtype.

    ``inputs`` and ``outputs`` declare the names in the body, as ``cupy.ElementwiseKernel`` has
    them; an output is read before it is written, and an input may be a number.
    """

    name: str
    inputs: str
    outputs: str
    body: str


# A kernel with its inputs, and its outputs, which it changes in place.
Work: TypeAlias = tuple[Kernel, list[Any], list[Array]]
Rule: TypeAlias = Callable[..., tuple[Array, Any]]

SGD = Kernel(
    "backprop_xp_sgd",
    "T gradient, T learning_rate",
    "T theta",
    "theta -= gradient * learning_rate;",
)
MOMENTUM = Kernel(
    "backprop_xp_momentum",
    "T gradient, T learning_rate, T momentum",
    "T theta, T velocity",
    """
    velocity = velocity * momentum + gradient;
    theta -= velocity * learning_rate;
    """,
)
NESTEROV = Kernel(
    "backprop_xp_nesterov",
    "T gradient, T learning_rate, T momentum",
    "T theta, T velocity",
    """
    velocity = velocity * momentum + gradient;
    theta -= (gradient + momentum * velocity) * learning_rate;
    """,
)
RMSPROP = Kernel(
    "backprop_xp_rmsprop",
    "T gradient, T learning_rate, T decay, T rest, T epsilon",
    "T theta, T square",
    """
    square = square * decay + gradient * gradient * rest;
    theta -= gradient / (sqrt(square) + epsilon) * learning_rate;
    """,
)
_ADAM_NUMBERS = "T learning_rate, T beta1, T rest1, T beta2, T rest2, T epsilon"
_ADAM_STEP = """
    mean = mean * beta1 + gradient * rest1;
    square = square * beta2 + gradient * gradient * rest2;
    theta = theta * keep - mean / (sqrt(square) + epsilon) * learning_rate;
    """
ADAM = Kernel(
    "backprop_xp_adam",
    f"T gradient, {_ADAM_NUMBERS}, T keep",
    "T theta, T mean, T square",
    _ADAM_STEP,
)
MASKED_ADAM = Kernel(
    "backprop_xp_masked_adam",
    f"T gradient, {_ADAM_NUMBERS}, T decay, T mask",
    "T theta, T mean, T square",
    f"const T keep = 1 - decay * mask;{_ADAM_STEP}",
)
KERNELS = (SGD, MOMENTUM, NESTEROV, RMSPROP, ADAM, MASKED_ADAM)


def rules(launch: Callable[[Kernel, list[Any], list[Array]], None]) -> dict[str, Rule]:
    """Return the replacements of the optimisers' ``rule`` by their qualified names.

    ``launch`` runs a kernel, given its inputs, over its outputs in place. Each replacement has the
    signature of the method, ``self`` included, and its results.
    """

    def fused(work: Callable[..., Work], *names: str) -> Rule:
        def rule(
            self: Any, theta: Array, gradient: Array, state: Any, learning_rate: Any
        ) -> tuple[Array, Any]:
            numbers = [learning_rate, *(getattr(self, name) for name in names)]
            if not (
                _fit(theta, gradient, getattr(self, "mask", None))
                and all(isinstance(number, Real) for number in numbers)
                and isinstance(state.step, int)
                and not getattr(self, "rate_inside", False)
            ):
                updated: tuple[Array, Any] = self.rule(theta, gradient, state, learning_rate)
                return updated
            launch(*work(self, float(learning_rate), theta, gradient, state))
            return theta, state._replace(step=state.step + 1)

        return rule

    works: dict[str, tuple[Any, ...]] = {
        "SGD": (_sgd, "momentum"),
        "RMSProp": (_rmsprop, "decay", "epsilon"),
        "Adam": (_adam, "beta1", "beta2", "epsilon"),
        "AdamW": (_adamw, "beta1", "beta2", "epsilon", "weight_decay"),
    }
    return {
        f"backprop_xp.training.optimizers.{name}.rule": fused(*work) for name, work in works.items()
    }


def _sgd(self: Any, alpha: float, theta: Array, gradient: Array, state: Any) -> Work:
    if state.velocity is None:
        return SGD, [gradient, alpha], [theta]
    kernel = NESTEROV if self.nesterov else MOMENTUM
    return kernel, [gradient, alpha, self.momentum], [theta, state.velocity]


def _rmsprop(self: Any, alpha: float, theta: Array, gradient: Array, state: Any) -> Work:
    numbers = [alpha, self.decay, 1.0 - self.decay, self.epsilon]
    return RMSPROP, [gradient, *numbers], [theta, state.square]


def _adam(self: Any, alpha: float, theta: Array, gradient: Array, state: Any) -> Work:
    numbers = _adam_numbers(self, alpha, state.step + 1)
    return ADAM, [gradient, *numbers, 1.0], [theta, state.mean, state.square]


def _adamw(self: Any, alpha: float, theta: Array, gradient: Array, state: Any) -> Work:
    numbers = _adam_numbers(self, alpha, state.step + 1)
    decay = alpha * self.weight_decay
    outputs = [theta, state.mean, state.square]
    if self.mask is None:
        return ADAM, [gradient, *numbers, 1.0 - decay], outputs
    return MASKED_ADAM, [gradient, *numbers, decay, self.mask], outputs


def _adam_numbers(self: Any, alpha: float, step: int) -> list[float]:
    """Return the kernel's numbers, learning rate and epsilon with the corrections for the bias.

    They are computed in float64: float32's 1 - 0.999 has three digits fewer.
    """
    beta1, beta2 = self.beta1, self.beta2
    root = (1.0 - beta2**step) ** 0.5
    corrected = alpha * root / (1.0 - beta1**step)
    epsilon = self.epsilon * (root if getattr(self, "corrected_epsilon", True) else 1.0)
    return [corrected, beta1, 1.0 - beta1, beta2, 1.0 - beta2, epsilon]


def _fit(theta: Array, gradient: Array, mask: Any) -> bool:
    """Say whether the kernels fit these arrays: real, of one dtype, and a mask that broadcasts."""
    return (
        theta.dtype in (np.float32, np.float64)
        and gradient.dtype == theta.dtype
        and gradient.shape == theta.shape
        and (mask is None or _masks(theta, mask))
    )


def _masks(theta: Array, mask: Any) -> bool:
    lead = len(theta.shape) - len(getattr(mask, "shape", ()))
    return (
        isinstance(mask, type(theta))
        and mask.dtype == theta.dtype
        and lead >= 0
        and mask.shape[-1:] == theta.shape[-1:]
        and all(n in (1, m) for n, m in zip(mask.shape, theta.shape[lead:], strict=True))
    )
