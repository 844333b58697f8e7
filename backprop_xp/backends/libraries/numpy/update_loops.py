"""Loops of the optimizers that Numba compiles: theta, gradient and state in one pass."""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from backprop_xp.backends.libraries.numpy.compilers import jit
from backprop_xp.backends.libraries.numpy.updates import in_pieces
from backprop_xp.backends.protocol import Array, Function

# The numbers of an update, from the optimizer, the number of the step, from 1, and the rate.
Numbers: TypeAlias = Callable[[Any, int, float], tuple[float, ...]]


@jit
def _by_moments(
    theta: Array, gradient: Array, mean: Array, square: Array, numbers: tuple[float, ...]
) -> None:
    """Update theta and both running means, as Adam and Nadam do."""
    n = theta.dtype.type
    b1, c1, b2, c2 = n(numbers[0]), n(1.0 - numbers[0]), n(numbers[1]), n(1.0 - numbers[1])
    epsilon, now, ahead, kept = n(numbers[2]), n(numbers[3]), n(numbers[4]), n(numbers[5])
    for i in range(theta.size):
        # Written last: between writes, a read at the same place of a page would wait.
        g, value = gradient[i], theta[i] * kept
        s, m = square[i] * b2 + g * g * c2, mean[i] * b1 + g * c1
        theta[i] = value - (g * now + m * ahead) / (math.sqrt(s) + epsilon)
        square[i], mean[i] = s, m


@jit
def _by_one(
    code: int, theta: Array, gradient: Array, memory: Array, numbers: tuple[float, ...]
) -> None:
    """Update theta and the state's one vector."""
    n = theta.dtype.type
    a, b, c = n(numbers[0]), n(numbers[1]), n(numbers[2])
    d, e, rate = n(numbers[3]), n(numbers[4]), n(numbers[5])
    for i in range(theta.size):
        g, m, value = gradient[i], memory[i], theta[i]
        if code == 0:  # RMSProp, Adagrad
            m = m * a + g * g * b
            value -= g / (math.sqrt(m) + c) * rate
        elif code == 1:  # SGD
            m = m * a + g * b
            value -= (g * c + m * d) * rate
        else:  # Lion
            value = value * e - np.sign(m * a + g * b) * rate
            m = m * c + g * d
        theta[i], memory[i] = value, m


def _adam(self: Any, step: int, rate: float) -> tuple[float, ...]:
    root = (1.0 - self.beta2**step) ** 0.5
    epsilon = self.epsilon * (root if self.corrected_epsilon else 1.0)
    ahead = rate * (root / (1.0 - self.beta1**step))
    return self.beta1, self.beta2, epsilon, 0.0, ahead, 1.0


def _adamw(self: Any, step: int, rate: float) -> tuple[float, ...]:
    return *_adam(self, step, rate)[:-1], _kept(self, rate)


def _kept(self: Any, rate: float) -> float:
    """Return the share of theta that weight decay leaves; with a mask ``_decay`` did it before."""
    return 1.0 if self.mask is not None else 1.0 - rate * self.weight_decay


def _decay(self: Any, theta: Array, rate: float) -> None:
    """Apply weight decay to the entries that a mask selects."""
    mask = getattr(self, "mask", None)
    if mask is not None and rate * self.weight_decay:
        theta *= 1.0 - rate * self.weight_decay * mask


def _nadam(self: Any, step: int, rate: float) -> tuple[float, ...]:
    now, ahead, epsilon = self.factors(None, step)
    return self.beta1, self.beta2, epsilon, now * rate, ahead * rate, 1.0


def _sgd(self: Any, step: int, rate: float) -> tuple[float, ...]:
    inside, outside = (rate, 1.0) if self.rate_inside else (1.0, rate)
    own = (inside, self.momentum) if self.nesterov else (0.0, 1.0)
    return self.momentum, inside, *own, 0.0, outside


def _lion(self: Any, step: int, rate: float) -> tuple[float, ...]:
    b1, b2 = self.beta1, self.beta2
    return b1, 1.0 - b1, b2, 1.0 - b2, _kept(self, rate), rate


def _rule(code: int | None, numbers_of: Numbers) -> Function:
    """Return an optimizer's ``rule`` by a loop: that of its code, or of both moments without."""
    vectors_of_state = 2 if code is None else 1

    def rule(self: Any, theta: Array, gradient: Array, state: Any, rate: Any) -> tuple[Array, Any]:
        step, *memory = state
        vectors: Any = [theta, gradient, *memory]
        is_flat = theta.ndim == 1
        if (
            type(rate) is not float
            or memory[0] is None
            or len(memory) != vectors_of_state  # that of amsgrad has three
            or not (is_flat or _are_whole(vectors))
        ):
            return in_pieces(self, theta, gradient, state, rate)
        numbers = numbers_of(self, step + 1, rate)
        if type(sum(numbers, getattr(self, "weight_decay", 0.0))) is not float:
            # An option is an array.
            return in_pieces(self, theta, gradient, state, rate)
        _decay(self, theta, rate)
        if not is_flat:
            vectors = [vector.reshape(-1) for vector in vectors]
        arguments: Any = (*vectors, numbers)
        if code is None:
            _by_moments(*arguments)
        else:
            _by_one(code, *arguments)
        return theta, type(state)(step + 1, *memory)

    return rule


def _are_whole(vectors: list[Array]) -> bool:
    """Whether a view of each has one axis."""
    return all(vector.flags.c_contiguous for vector in vectors)


UPDATES: dict[str, Function] = {
    f"backprop_xp.training.optimizers.first_order.{name}.rule": _rule(code, numbers_of)
    for name, code, numbers_of in (
        ("Adam", None, _adam),
        ("AdamW", None, _adamw),
        ("Nadam", None, _nadam),
        ("RMSProp", 0, lambda o, step, rate: (o.decay, 1.0 - o.decay, o.epsilon, 0.0, 0.0, rate)),
        ("Adagrad", 0, lambda o, step, rate: (1.0, 1.0, o.epsilon, 0.0, 0.0, rate)),
        ("SGD", 1, _sgd),
        ("Lion", 2, _lion),
    )
}
