"""The learning rates of a training's steps, evaluated on the host."""

from typing import Any

from backprop_xp.backends import Array
from backprop_xp.training.optimizers.first_order import AnyOptimizer
from backprop_xp.training.optimizers.hyperparameters import hyperparameter
from backprop_xp.training.optimizers.schedules import rate_at, with_batches


def learning_rates(
    optimizer: AnyOptimizer, batches: int | None, steps: range, theta: Array
) -> list[Any]:
    """Return a rate for each step: a float, an array on theta's device, or None without a rate.

    A schedule of epochs counts ``batches`` steps in each, None if that number is not known.
    """
    rate: Any = getattr(optimizer, "learning_rate", None)
    if rate is None:
        return [None] * len(steps)
    # A float, or an array like theta: a NumPy number would widen float32, and a compiler would
    # make one function for each kind.
    if not callable(rate):
        return [hyperparameter(theta, rate, "learning_rate")] * len(steps)
    schedule = with_batches(rate, batches)
    return [hyperparameter(theta, rate_at(schedule, step), "learning_rate") for step in steps]
