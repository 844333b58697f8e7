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

    ``inputs`` and ``outputs`` are the names in the body, separated by spaces. The body reads an
    output before it writes it. An input may be a number.
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
# The inputs of kernels by name.
Values: TypeAlias = dict[str, Any]

SGD = Kernel("sgd", "gradient learning_rate", "theta", "theta -= gradient * learning_rate;")
MOMENTUM = Kernel(
    "momentum",
    "gradient learning_rate momentum",
    "theta velocity",
    "velocity = velocity * momentum + gradient; theta -= velocity * learning_rate;",
)
NESTEROV = Kernel(
    "nesterov",
    "gradient learning_rate momentum",
    "theta velocity",
    """
    velocity = velocity * momentum + gradient;
    theta -= (gradient + momentum * velocity) * learning_rate;
    """,
)
RMSPROP = Kernel(
    "rmsprop",
    "gradient learning_rate decay rest_of_decay epsilon",
    "theta square",
    """
    square = square * decay + gradient * gradient * rest_of_decay;
    theta -= gradient / (sqrt(square) + epsilon) * learning_rate;
    """,
)
ADAGRAD = Kernel(
    "adagrad",
    "gradient learning_rate epsilon",
    "theta total",
    """
    total = total + gradient * gradient;
    theta -= gradient / (sqrt(total) + epsilon) * learning_rate;
    """,
)
_MEANS = """
    mean = mean * beta1 + gradient * rest_of_beta1;
    square = square * beta2 + gradient * gradient * rest_of_beta2;
    """
_BETAS = "beta1 rest_of_beta1 beta2 rest_of_beta2"
NADAM = Kernel(
    "nadam",
    f"gradient learning_rate {_BETAS} now ahead epsilon",
    "theta mean square",
    f"{_MEANS}theta -= (gradient * now + mean * ahead) / (sqrt(square) + epsilon) * learning_rate;",
)
AVERAGE = Kernel("average", "theta weight", "average", "average += (theta - average) * weight;")


def _decaying(name: str, inputs: str, outputs: str, body: str) -> tuple[Kernel, Kernel]:
    """Return a kernel in which ``keep`` is a number, and one that computes it from a mask."""
    masked = f"const T keep = 1 - decay * mask;{body}"
    return (
        Kernel(name, f"gradient learning_rate {inputs} keep", outputs, body),
        Kernel(f"masked_{name}", f"gradient learning_rate {inputs} decay mask", outputs, masked),
    )


_ADAM = f"correction {_BETAS} epsilon"
_STEP = "theta = theta * keep - mean / (sqrt({}) + epsilon) * (learning_rate * correction);"
ADAM = _decaying("adam", _ADAM, "theta mean square", _MEANS + _STEP.format("square"))
AMSGRAD = _decaying(
    "amsgrad",
    _ADAM,
    "theta mean square largest",
    f"{_MEANS}largest = square <= largest ? largest : square;\n    {_STEP.format('largest')}",
)
LION = _decaying(
    "lion",
    _BETAS,
    "theta mean",
    """
    const T sum = mean * beta1 + gradient * rest_of_beta1;
    const T sign = sum > 0 ? T(1) : sum < 0 ? T(-1) : sum;  // of NaN itself
    theta = theta * keep - sign * learning_rate;
    mean = mean * beta2 + gradient * rest_of_beta2;
    """,
)
KERNELS = (SGD, MOMENTUM, NESTEROV, RMSPROP, ADAGRAD, NADAM, AVERAGE, *ADAM, *AMSGRAD, *LION)


@functools.cache
def _compiled(kernel: Kernel) -> Function:
    import cupy

    # Contracted products and sums would round differently from the reference's.
    options: dict[str, Any] = {"no_return": True, "options": ("--fmad=false",)}
    name, inputs, outputs, body = kernel
    declared = (", ".join(f"T {each}" for each in text.split()) for text in (inputs, outputs))
    compiled: Function = cupy.ElementwiseKernel(*declared, body, f"backprop_xp_{name}", **options)
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

    def fused(choose: Callable[[Optimizer, Values, State], Kernel], names: str) -> Function:
        def rule(
            self: Optimizer, theta: Array, gradient: Array, state: State, learning_rate: Any
        ) -> tuple[Array, State]:
            values: Values = {name: getattr(self, name) for name in names.split()}
            numbers_fit = all(isinstance(number, Real) for number in values.values())
            alpha = float(learning_rate) if isinstance(learning_rate, Real) else learning_rate
            vectors = [
                v for v in (alpha, getattr(self, "mask", None)) if not isinstance(v, float | None)
            ]
            if not (
                numbers_fit
                and _fit(theta, gradient, vectors)
                and isinstance(state.step, int)
                and not getattr(self, "rate_inside", False)
            ):
                updated: tuple[Array, State] = self.rule(theta, gradient, state, learning_rate)
                return updated
            values |= {f"rest_of_{name}": 1.0 - value for name, value in values.items()}
            values |= {"gradient": gradient, "learning_rate": alpha, "theta": theta}
            kernel = choose(self, values, state)
            values |= state._asdict()
            inputs, outputs = (
                [values[name] for name in text.split()] for text in (kernel.inputs, kernel.outputs)
            )
            launch(Work(kernel, inputs, outputs))
            return theta, state._replace(step=state.step + 1)

        return rule

    return {
        f"backprop_xp.training.optimizers.{name}.rule": fused(choose, hyperparameters)
        for name, choose, hyperparameters in (
            ("SGD", _sgd, "momentum"),
            ("RMSProp", lambda *_: RMSPROP, "decay epsilon"),
            ("Adagrad", lambda *_: ADAGRAD, "epsilon"),
            ("Adam", _adam, "beta1 beta2 epsilon"),
            ("AdamW", _adam, "beta1 beta2 epsilon weight_decay"),
            ("Nadam", _nadam, "beta1 beta2 epsilon momentum_decay"),
            ("Lion", _lion, "beta1 beta2 weight_decay"),
        )
    } | {"backprop_xp.training.averages.averaged": averaged}


def _sgd(self: Optimizer, values: Values, state: State) -> Kernel:
    if state.velocity is None:
        return SGD
    return NESTEROV if self.nesterov else MOMENTUM


def _adam(self: Optimizer, values: Values, state: State) -> Kernel:
    """Choose the kernel of Adam or AdamW; epsilon and rate contain the corrections for the bias.

    They are computed in float64: float32's 1 - 0.999 has three digits fewer.
    """
    kernel = _with_decay(self, values, AMSGRAD if self.amsgrad else ADAM)
    step, alpha = state.step + 1, values["learning_rate"]
    root = (1.0 - self.beta2**step) ** 0.5
    correction = root / (1.0 - self.beta1**step)
    if isinstance(alpha, Real):  # a number is corrected before it is rounded
        alpha, correction = alpha * correction, 1.0
    epsilon = self.epsilon * (root if self.corrected_epsilon else 1.0)
    values.update(learning_rate=alpha, correction=correction, epsilon=epsilon)
    return kernel


def _nadam(self: Optimizer, values: Values, state: State) -> Kernel:
    now, ahead, epsilon = self.factors(values["theta"], state.step + 1)
    values.update(now=now, ahead=ahead, epsilon=epsilon)
    return NADAM


def _lion(self: Optimizer, values: Values, state: State) -> Kernel:
    return _with_decay(self, values, LION)


def _with_decay(self: Optimizer, values: Values, kernels: tuple[Kernel, Kernel]) -> Kernel:
    """Choose the kernel with a number for the weight decay, or with a mask of it.

    An array of rates is such a mask itself.
    """
    alpha, decay = values["learning_rate"], getattr(self, "weight_decay", 0.0)
    mask = getattr(self, "mask", None)
    if mask is None and not isinstance(alpha, Real) and decay:
        mask = alpha
    elif decay:
        decay = alpha * decay
    values.update(keep=1.0 - decay if mask is None else None, decay=decay, mask=mask)
    return kernels[mask is not None]


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
