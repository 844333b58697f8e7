"""Updates of the optimizers in one CUDA kernel each: theta and its state are read and written once.

The reference, an optimizer's ``rule``, launches about ten kernels, and each reads and writes whole
vectors. These kernels do the same operations in the same order, so that they round alike. They
leave other updates (a hyperparameter that is an array, a complex theta) to the reference.
"""

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends.protocol import Array, Function


class Kernel(NamedTuple):
    """One pass over theta: ``body`` is CUDA C++ for one entry, T its dtype.

    ``inputs`` and ``outputs`` declare the names in the body, as for ``cupy.ElementwiseKernel``. The
    body reads an output before it writes it. An input may be a number.
    """

    name: str
    inputs: str
    outputs: str
    body: str


class Work(NamedTuple):
    """A kernel with its inputs, arrays and numbers, and the arrays that it changes in place."""

    kernel: Kernel
    inputs: list[Array | float]
    outputs: list[Array]


Optimizer: TypeAlias = Any  # SGD, RMSProp, Adam or AdamW, which are on a higher floor
State: TypeAlias = Any  # its NamedTuple of arrays

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


@functools.cache
def _compiled(kernel: Kernel) -> Function:
    name, inputs, outputs, body = kernel
    # Contracted products and sums would round differently from the reference's.
    options = ("--fmad=false",)
    import cupy

    compiled: Function = cupy.ElementwiseKernel(
        inputs, outputs, body, name, no_return=True, options=options
    )
    return compiled


def launch(work: Work) -> None:
    """Run a kernel on the GPU of its outputs."""
    with work.outputs[0].device:
        _compiled(work.kernel)(*work.inputs, *work.outputs)


def rules(launch: Callable[[Work], None]) -> dict[str, Function]:
    """Return the replacements of the optimizers' ``rule`` by their qualified names.

    ``launch`` runs a kernel. Each replacement has the signature of the method, ``self`` included,
    and its results.
    """

    def fused(work: Callable[..., Work], *names: str) -> Function:
        def rule(
            self: Optimizer, theta: Array, gradient: Array, state: State, learning_rate: Any
        ) -> tuple[Array, State]:
            numbers = [learning_rate, *(getattr(self, name) for name in names)]
            if not (
                _fit(theta, gradient, getattr(self, "mask", None))
                and all(isinstance(number, Real) for number in numbers)
                and isinstance(state.step, int)
                and not getattr(self, "rate_inside", False)
            ):
                updated: tuple[Array, State] = self.rule(theta, gradient, state, learning_rate)
                return updated
            launch(work(self, float(learning_rate), theta, gradient, state))
            return theta, state._replace(step=state.step + 1)

        return rule

    return {
        f"backprop_xp.training.optimizers.{name}.rule": fused(work, *hyperparameters)
        for name, work, *hyperparameters in (
            ("SGD", _sgd, "momentum"),
            ("RMSProp", _rmsprop, "decay", "epsilon"),
            ("Adam", _adam, "beta1", "beta2", "epsilon"),
            ("AdamW", _adamw, "beta1", "beta2", "epsilon", "weight_decay"),
        )
    }


def _sgd(self: Optimizer, alpha: float, theta: Array, gradient: Array, state: State) -> Work:
    if state.velocity is None:
        return Work(SGD, [gradient, alpha], [theta])
    kernel = NESTEROV if self.nesterov else MOMENTUM
    return Work(kernel, [gradient, alpha, self.momentum], [theta, state.velocity])


def _rmsprop(self: Optimizer, alpha: float, theta: Array, gradient: Array, state: State) -> Work:
    numbers = [alpha, self.decay, 1.0 - self.decay, self.epsilon]
    return Work(RMSPROP, [gradient, *numbers], [theta, state.square])


def _adam(self: Optimizer, alpha: float, theta: Array, gradient: Array, state: State) -> Work:
    numbers = _adam_numbers(self, alpha, state.step + 1)
    return Work(ADAM, [gradient, *numbers, 1.0], [theta, state.mean, state.square])


def _adamw(self: Optimizer, alpha: float, theta: Array, gradient: Array, state: State) -> Work:
    numbers = _adam_numbers(self, alpha, state.step + 1)
    decay = alpha * self.weight_decay
    outputs = [theta, state.mean, state.square]
    if self.mask is None:
        return Work(ADAM, [gradient, *numbers, 1.0 - decay], outputs)
    return Work(MASKED_ADAM, [gradient, *numbers, decay, self.mask], outputs)


def _adam_numbers(self: Optimizer, alpha: float, step: int) -> list[float]:
    """Return the kernel's numbers; learning rate and epsilon contain the corrections for the bias.

    They are computed in float64: float32's 1 - 0.999 has three digits fewer.
    """
    beta1, beta2 = self.beta1, self.beta2
    root = (1.0 - beta2**step) ** 0.5
    corrected = alpha * root / (1.0 - beta1**step)
    epsilon = self.epsilon * (root if getattr(self, "corrected_epsilon", True) else 1.0)
    return [corrected, beta1, 1.0 - beta1, beta2, 1.0 - beta2, epsilon]


def _fit(theta: Array, gradient: Array, mask: Array | None) -> bool:
    """Return whether the kernels fit: real arrays of one dtype, and a mask that broadcasts."""
    return (
        theta.dtype in (np.float32, np.float64)
        and gradient.dtype == theta.dtype
        and gradient.shape == theta.shape
        and (mask is None or _masks(theta, mask))
    )


def _masks(theta: Array, mask: Array) -> bool:
    lead = len(theta.shape) - len(getattr(mask, "shape", ()))
    return (
        isinstance(mask, type(theta))
        and mask.dtype == theta.dtype
        and lead >= 0
        and mask.shape[-1:] == theta.shape[-1:]
        and all(n in (1, m) for n, m in zip(mask.shape, theta.shape[lead:], strict=True))
    )
