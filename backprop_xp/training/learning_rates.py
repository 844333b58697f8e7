"""The learning rates of a training's steps, evaluated on the host."""

from typing import Any

from backprop_xp.backends import Array, array_namespace, to_device_of
from backprop_xp.training.early_stopping import Slowed
from backprop_xp.training.hyperparameters import hyperparameter
from backprop_xp.training.optimizers import AnyOptimizer
from backprop_xp.training.schedules import LearningRate, lowest, plateau, rate_at, with_batches


def rate_of(optimizer: AnyOptimizer, batches: int | None) -> LearningRate | None:
    """Return an optimizer's learning rate, None if it has none.

    A schedule of epochs counts ``batches`` steps in each, None if that number is not known.
    """
    rate: LearningRate | None = getattr(optimizer, "learning_rate", None)
    return with_batches(rate, batches) if callable(rate) else rate


def learning_rates(
    given: LearningRate | None, numbers: range, theta: Array, slowed: Slowed | None
) -> list[Any]:
    """Return a rate for each step: a float, an array on theta's device, or None.

    ``slowed`` is how far a plateau has lowered the rates.
    """
    if given is None:
        return [None] * len(numbers)
    # A float, or an array like theta: a NumPy number would widen float32, and a compiler would
    # make one function for each kind.
    if not callable(given):
        return [hyperparameter(theta, given, "learning_rate")] * len(numbers)
    rates = [hyperparameter(theta, rate_at(given, n), "learning_rate") for n in numbers]
    if not isinstance(given, plateau) or slowed is None:
        return rates
    factor = slowed.factor
    factor = to_device_of(theta, factor[..., None], theta.dtype) if factor.shape else float(factor)
    return [_slowed(rate, factor, given.final) for rate in rates]


def _slowed(rate: Any, factor: Any, final: float) -> Any:
    """Return a rate times a factor, but at least the smaller of ``final`` and the rate."""
    slow, low = rate * factor, lowest(rate, final)
    return max(slow, low) if type(slow) is float else array_namespace(slow).maximum(slow, low)
