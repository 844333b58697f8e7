"""Updates of the optimizers in one CUDA kernel each: theta and its state are read and written once.

The reference, an optimizer's ``rule``, launches about ten kernels, and each reads and writes whole
vectors. These kernels do the same operations in the same order, so that they round alike; products
of rates are in theta's dtype. Rates may be an array. The kernels leave other updates (another
array, a complex theta) to the reference.
"""

import functools
from collections.abc import Callable
from numbers import Real
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends.libraries.cupy.table_kernels import elementwise
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


Optimizer: TypeAlias = Any  # one of training.optimizers, which is in a higher layer
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
_RATES = f"gradient learning_rate {_BETAS} weight_decay mask"
_ADAM = f"{_RATES} correction epsilon"
# Without a mask the learning rate stands for it; otherwise weight_decay includes the rate.
_STEP = """
    theta = theta * (1 - weight_decay * mask)
        - mean / (sqrt({}) + epsilon) * (learning_rate * correction);
    """
ADAM = Kernel("adam", _ADAM, "theta mean square", _MEANS + _STEP.format("square"))
AMSGRAD = Kernel(
    "amsgrad",
    _ADAM,
    "theta mean square largest",
    f"{_MEANS}largest = square <= largest ? largest : square;{_STEP.format('largest')}",
)
LION = Kernel(
    "lion",
    _RATES,
    "theta mean",
    """
    const T sum = mean * beta1 + gradient * rest_of_beta1;
    const T sign = sum > 0 ? T(1) : sum < 0 ? T(-1) : sum;  // of NaN itself
    theta = theta * (1 - weight_decay * mask) - sign * learning_rate;
    mean = mean * beta2 + gradient * rest_of_beta2;
    """,
)
KERNELS = (SGD, MOMENTUM, NESTEROV, RMSPROP, ADAGRAD, NADAM, AVERAGE, ADAM, AMSGRAD, LION)


@functools.cache
def _compiled(kernel: Kernel) -> Function:
    name, inputs, outputs, body = kernel
    declared = (", ".join(f"T {each}" for each in text.split()) for text in (inputs, outputs))
    # Contracted products and sums would round differently from the reference's.
    options: dict[str, Any] = {"no_return": True, "options": ("--fmad=false",)}
    return elementwise(f"backprop_xp_{name}", *declared, body, **options)


def launch(kernel: Kernel, inputs: list[Array | float], outputs: list[Array]) -> None:
    """Run a kernel on the GPU of its outputs, the arrays that it changes in place."""
    with outputs[0].device:
        _compiled(kernel)(*inputs, *outputs)


def rules(launch: Callable[[Kernel, list[Any], list[Array]], None]) -> dict[str, Function]:
    """Return the replacements of the optimizers' ``rule`` and of the average, by qualified name.

    Each replacement has the signature of the method, ``self`` included, and its results.
    """

    def averaged(average: Array, theta: Array, weight: Any) -> Array:
        if not (_fit(average, theta, []) and isinstance(weight, Real)):
            return NotImplemented
        launch(AVERAGE, [theta, float(weight)], [average])
        return average

    def fused(choose: Callable[[Optimizer, Values, State], Kernel], names: str) -> Function:
        def rule(
            self: Optimizer, theta: Array, gradient: Array, state: State, learning_rate: Any
        ) -> tuple[Array, State]:
            values: Values = {name: getattr(self, name) for name in names.split()}
            alpha = float(learning_rate) if isinstance(learning_rate, Real) else learning_rate
            rates = [alpha, getattr(self, "mask", None)]
            if not (
                all(isinstance(number, Real) for number in [*values.values(), state.step])
                and _fit(theta, gradient, [v for v in rates if not isinstance(v, float | None)])
                and not getattr(self, "rate_inside", False)
            ):
                updated: tuple[Array, State] = self.rule(theta, gradient, state, learning_rate)
                return updated
            values |= {f"rest_of_{name}": 1.0 - value for name, value in values.items()}
            values |= {"theta": theta, "gradient": gradient, "learning_rate": alpha}
            decay, mask = getattr(self, "weight_decay", 0.0), getattr(self, "mask", None)
            if mask is None:
                values |= {"weight_decay": decay, "mask": alpha}
            else:
                values |= {"weight_decay": decay * alpha, "mask": mask}
            kernel = choose(self, values, state)
            values |= state._asdict()
            inputs = [values[name] for name in kernel.inputs.split()]
            launch(kernel, inputs, [values[name] for name in kernel.outputs.split()])
            return theta, state._replace(step=state.step + 1)

        return rule

    return {
        f"backprop_xp.training.optimizers.first_order.{name}.rule": fused(choose, hyperparameters)
        for name, choose, hyperparameters in (
            ("SGD", _sgd, "momentum"),
            ("RMSProp", lambda *_: RMSPROP, "decay epsilon"),
            ("Adagrad", lambda *_: ADAGRAD, "epsilon"),
            ("Adam", _adam, "beta1 beta2 epsilon"),
            ("AdamW", _adam, "beta1 beta2 epsilon weight_decay"),
            ("Nadam", _nadam, "beta1 beta2 epsilon momentum_decay"),
            ("Lion", lambda *_: LION, "beta1 beta2 weight_decay"),
        )
    } | {"backprop_xp.training.measures.averages.averaged": averaged}


def _sgd(self: Optimizer, values: Values, state: State) -> Kernel:
    if state.velocity is None:
        return SGD
    return NESTEROV if self.nesterov else MOMENTUM


def _adam(self: Optimizer, values: Values, state: State) -> Kernel:
    """Choose the kernel of Adam or AdamW, and compute the corrections for the bias.

    They are computed in float64: float32's 1 - 0.999 has three digits fewer.
    """
    root = (1.0 - self.beta2 ** (state.step + 1)) ** 0.5
    epsilon = self.epsilon * (root if self.corrected_epsilon else 1.0)
    values.update(correction=root / (1.0 - self.beta1 ** (state.step + 1)), epsilon=epsilon)
    return AMSGRAD if self.amsgrad else ADAM


def _nadam(self: Optimizer, values: Values, state: State) -> Kernel:
    now, ahead, epsilon = self.factors(values["theta"], state.step + 1)
    values.update(now=now, ahead=ahead, epsilon=epsilon)
    return NADAM


def _fit(theta: Array, gradient: Array, vectors: list[Array]) -> bool:
    """Return whether the kernels fit: real arrays of one dtype, the vectors broadcast."""
    return (
        theta.dtype in (np.float32, np.float64)
        and gradient.dtype == theta.dtype
        and gradient.shape == theta.shape
        and all(
            isinstance(vector, type(theta))
            and vector.dtype == theta.dtype
            and np.broadcast_shapes(vector.shape, theta.shape) == theta.shape
            for vector in vectors
        )
    )
