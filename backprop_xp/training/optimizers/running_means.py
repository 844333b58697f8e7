"""Running means of an optimizer, and the sums of their weights, which correct the bias."""

import math
from typing import Any

from backprop_xp.backends import Array, array_namespace, device_of, replaceable
from backprop_xp.training.optimizers.hyperparameters import Hyperparameter

# Added to a decay before its logarithm, since log(0) is infinite; any other decay stays the same.
_TINY = 1e-37


def bias_correction(decay: Hyperparameter, step: Any) -> Any:
    """Return ``1 - decay**step``, the sum of the weights of a running mean's values."""
    if isinstance(step, int) and isinstance(decay, float):
        return 1.0 - decay**step
    # For arrays, as in a compiled loop: the difference loses digits in float32.
    if isinstance(decay, float):
        return -array_namespace(step).expm1(step * math.log(decay + _TINY))
    xp = array_namespace(decay)
    return -xp.expm1(step * xp.log(decay + _TINY))


@replaceable
def running_mean(mean: Array, value: Array, decay: Hyperparameter) -> Array:
    """Return ``decay * mean + (1 - decay) * value``, overwriting both."""
    mean *= decay
    value *= 1.0 - decay
    mean += value
    return mean


def momentum_product(
    beta1: Hyperparameter, momentum_decay: Hyperparameter, step: Any, theta: Array
) -> tuple[Any, Any, Any]:
    """Return the product of Nadam's momenta up to an update, its own, and the next update's.

    The momentum of update i is ``beta1 * (1 - 0.5 * q**i)``. The logarithm of a product of such
    factors is a sum of geometric series, so that the state holds no product.
    """
    rate = momentum_decay * math.log(0.96) - _TINY  # below 0: the ratio of the series has a limit
    if isinstance(step, int) and isinstance(rate, float):
        exp, before = math.exp, beta1**step
        logarithm = sum(_order(math, k, step, rate) for k in range(1, _ORDERS))
    else:
        xp = array_namespace(theta)
        orders = xp.arange(1, _ORDERS, dtype=theta.dtype, device=device_of(theta))
        logarithm = xp.sum(_order(xp, orders, step, rate), axis=-1, keepdims=True)
        exp, before = xp.exp, 1.0 - bias_correction(beta1, step)
    now, following = (beta1 * (1.0 - 0.5 * exp(i * rate)) for i in (step, step + 1))
    return before * exp(logarithm), now, following


_ORDERS = 53  # 0.5**53 is below the rounding of float64


def _order(xp: Any, k: Any, step: Any, rate: Any) -> Any:
    """Return the k-th term of ``log(prod(1 - 0.5 * exp(i * rate)))``, i from 1 to ``step``."""
    series = xp.exp(k * rate) * xp.expm1(k * (step * rate)) / xp.expm1(k * rate)
    return -(0.5**k) / k * series
