"""Updates of the optimizers in one CUDA kernel each: theta and its state are read and written once.

The reference, an optimizer's ``rule``, launches about ten kernels, and each reads and writes whole
vectors. These kernels do the same operations in the same order, so that they round alike. Rates may
be an array. The kernels leave other updates (another array, a complex theta) to the reference.
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


Optimizer: TypeAlias = Any  # one of training.optimizers, which is on a higher floor
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
ADAGRAD = Kernel(
    "backprop_xp_adagrad",
    "T gradient, T learning_rate, T epsilon",
    "T theta, T total",
    """
    total = total + gradient * gradient;
    theta -= gradient / (sqrt(total) + epsilon) * learning_rate;
    """,
)
NADAM = Kernel(
    "backprop_xp_nadam",
    "T gradient, T learning_rate, T beta1, T rest1, T beta2, T rest2, T now, T ahead, T epsilon",
    "T theta, T mean, T square",
    """
    square = square * beta2 + gradient * gradient * rest2;
    mean = mean * beta1 + gradient * rest1;
    theta -= (gradient * now + mean * ahead) / (sqrt(square) + epsilon) * learning_rate;
    """,
)
AVERAGE = Kernel(
    "backprop_xp_average",
    "T theta, T weight",
    "T average",
    "average += (theta - average) * weight;",
)


def _decaying(name: str, inputs: str, outputs: str, body: str) -> tuple[Kernel, Kernel]:
    """Return a kernel in which ``keep`` is a number, and one that computes it from a mask."""
    masked = f"const T keep = 1 - decay * mask;{body}"
    return (
        Kernel(f"backprop_xp_{name}", f"{inputs}, T keep", outputs, body),
        Kernel(f"backprop_xp_masked_{name}", f"{inputs}, T decay, T mask", outputs, masked),
    )


_ADAM = "T gradient, T learning_rate, T correction, T beta1, T rest1, T beta2, T rest2, T epsilon"
_MEANS = """
    mean = mean * beta1 + gradient * rest1;
    square = square * beta2 + gradient * gradient * rest2;
    """
_STEP = "theta = theta * keep - mean / (sqrt({}) + epsilon) * (learning_rate * correction);"
ADAM = _decaying("adam", _ADAM, "T theta, T mean, T square", _MEANS + _STEP.format("square"))
AMSGRAD = _decaying(
    "amsgrad",
    _ADAM,
    "T theta, T mean, T square, T largest",
    f"{_MEANS}largest = square <= largest ? largest : square;\n    {_STEP.format('largest')}",
)
LION = _decaying(
    "lion",
    "T gradient, T learning_rate, T beta1, T rest1, T beta2, T rest2",
    "T theta, T mean",
    """
    const T sum = mean * beta1 + gradient * rest1;
    const T sign = sum > 0 ? T(1) : sum < 0 ? T(-1) : sum;  // of NaN itself
    theta = theta * keep - sign * learning_rate;
    mean = mean * beta2 + gradient * rest2;
    """,
)
KERNELS = (SGD, MOMENTUM, NESTEROV, RMSPROP, ADAGRAD, NADAM, AVERAGE, *ADAM, *AMSGRAD, *LION)


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
    """Return the replacements of the optimizers' ``rule`` and of the average, by qualified name.

    ``launch`` runs a kernel. Each replacement has the signature of the method, ``self`` included,
    and its results.
    """

    def averaged(average: Array, theta: Array, weight: Any) -> Array:
        if not (_fit(average, theta, []) and isinstance(weight, Real)):
            return NotImplemented
        launch(Work(AVERAGE, [theta, float(weight)], [average]))
        return average

    def fused(work: Callable[..., Work], *names: str) -> Function:
        def rule(
            self: Optimizer, theta: Array, gradient: Array, state: State, learning_rate: Any
        ) -> tuple[Array, State]:
            numbers = [getattr(self, name) for name in names]
            alpha = float(learning_rate) if isinstance(learning_rate, Real) else learning_rate
            vectors = [
                v for v in (alpha, getattr(self, "mask", None)) if not isinstance(v, float | None)
            ]
            if not (
                _fit(theta, gradient, vectors)
                and all(isinstance(number, Real) for number in numbers)
                and isinstance(state.step, int)
                and not getattr(self, "rate_inside", False)
            ):
                updated: tuple[Array, State] = self.rule(theta, gradient, state, learning_rate)
                return updated
            launch(work(self, alpha, theta, gradient, state))
            return theta, state._replace(step=state.step + 1)

        return rule

    return {
        f"backprop_xp.training.optimizers.{name}.rule": fused(work, *hyperparameters)
        for name, work, *hyperparameters in (
            ("SGD", _sgd, "momentum"),
            ("RMSProp", _rmsprop, "decay", "epsilon"),
            ("Adagrad", _adagrad, "epsilon"),
            ("Adam", _adam, "beta1", "beta2", "epsilon"),
            ("AdamW", _adam, "beta1", "beta2", "epsilon", "weight_decay"),
            ("Nadam", _nadam, "beta1", "beta2", "epsilon", "momentum_decay"),
            ("Lion", _lion, "beta1", "beta2", "weight_decay"),
        )
    } | {"backprop_xp.training.averages.averaged": averaged}


def _sgd(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    if state.velocity is None:
        return Work(SGD, [gradient, alpha], [theta])
    kernel = NESTEROV if self.nesterov else MOMENTUM
    return Work(kernel, [gradient, alpha, self.momentum], [theta, state.velocity])


def _rmsprop(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    numbers = [alpha, self.decay, 1.0 - self.decay, self.epsilon]
    return Work(RMSPROP, [gradient, *numbers], [theta, state.square])


def _adagrad(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    return Work(ADAGRAD, [gradient, alpha, self.epsilon], [theta, state.total])


def _adam(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    """Return the work of Adam or AdamW; epsilon and rate contain the corrections for the bias.

    They are computed in float64: float32's 1 - 0.999 has three digits fewer.
    """
    step = state.step + 1
    root = (1.0 - self.beta2**step) ** 0.5
    correction = root / (1.0 - self.beta1**step)
    # A number is corrected before it is rounded.
    rates = [alpha * correction, 1.0] if isinstance(alpha, Real) else [alpha, correction]
    epsilon = self.epsilon * (root if getattr(self, "corrected_epsilon", True) else 1.0)
    inputs = [gradient, *rates, *_betas(self), epsilon]
    kernels, outputs = ADAM, [theta, state.mean, state.square]
    if self.amsgrad:
        kernels, outputs = AMSGRAD, [*outputs, state.largest]
    return _decayed(self, kernels, alpha, inputs, outputs)


def _nadam(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    inputs = [gradient, alpha, *_betas(self), *self.factors(theta, state.step + 1)]
    return Work(NADAM, inputs, [theta, state.mean, state.square])


def _lion(self: Optimizer, alpha: Any, theta: Array, gradient: Array, state: State) -> Work:
    return _decayed(self, LION, alpha, [gradient, alpha, *_betas(self)], [theta, state.mean])


def _betas(self: Optimizer) -> list[float]:
    return [self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2]


def _decayed(
    self: Optimizer,
    kernels: tuple[Kernel, Kernel],
    alpha: Any,
    inputs: list[Array | float],
    outputs: list[Array],
) -> Work:
    """Return the work of a kernel with weight decay, or with a mask of it.

    An array of rates is such a mask itself.
    """
    decay, mask = getattr(self, "weight_decay", 0.0), getattr(self, "mask", None)
    if mask is None and not isinstance(alpha, Real) and decay:
        mask = alpha
    elif decay:
        decay = alpha * decay
    if mask is None:
        return Work(kernels[0], [*inputs, 1.0 - decay], outputs)
    return Work(kernels[1], [*inputs, decay, mask], outputs)


def _fit(theta: Array, gradient: Array, vectors: list[Array]) -> bool:
    """Return whether the kernels fit: real arrays of one dtype, the vectors broadcast."""
    return (
        theta.dtype in (np.float32, np.float64)
        and gradient.dtype == theta.dtype
        and gradient.shape == theta.shape
        and all(_broadcasts(theta, vector) for vector in vectors)
    )


def _broadcasts(theta: Array, vector: Array) -> bool:
    lead = len(theta.shape) - len(getattr(vector, "shape", ()))
    return (
        isinstance(vector, type(theta))
        and vector.dtype == theta.dtype
        and lead >= 0
        and all(n in (1, m) for n, m in zip(vector.shape, theta.shape[lead:], strict=True))
    )
