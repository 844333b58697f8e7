"""Checks of what an optimiser is made with, and of what its update is given beside theta."""

import copy
import math
from numbers import Real
from typing import Any

from backprop_xp.backends import Array, is_host_number, like, require_like
from backprop_xp.checks import real
from backprop_xp.inputs import check_entries, check_stack, is_traced
from backprop_xp.schedules import rate


def check_rate(optimizer: Any) -> None:
    """Check and keep an optimiser's learning rate, unless it is a schedule."""
    given = optimizer.learning_rate
    if not (callable(given) or is_traced(given)):
        object.__setattr__(optimizer, "learning_rate", rate(given))


def _check_number(optimizer: Any, name: str, *, below: float) -> None:
    value = getattr(optimizer, name)
    if hasattr(value, "shape") and value.shape:
        check_entries(value, name, low=0.0, below=below)
    elif not is_traced(value):
        object.__setattr__(optimizer, name, real(value, name, low=0.0, below=below))


def check_fraction(optimizer: Any, name: str) -> None:
    """Check and keep a hyperparameter of [0, 1)."""
    _check_number(optimizer, name, below=1.0)


def check_not_negative(optimizer: Any, name: str) -> None:
    """Check and keep a hyperparameter of 0 or more."""
    _check_number(optimizer, name, below=math.inf)


def hyperparameter(theta: Array, value: Any, name: str) -> Any:
    """Return a hyperparameter that broadcasts against theta: a number, or ``(*stack, 1)``."""
    if type(value) is float:
        return value
    if isinstance(value, Real) or is_host_number(value):
        return float(value)  # a NumPy scalar would widen float32
    value = like(theta, value, name)
    if value.shape and value.shape[-1] != 1:
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but (*stack, 1) is expected: "
            f"{name}[..., None]."
        )
    check_stack(value.shape[:-1], theta.shape[:-1], name)
    return value


def placed(optimizer: Any, names: tuple[str, ...], theta: Array) -> Any:
    """Return an optimiser whose hyperparameters of those names, and mask, are beside theta."""
    given = {name: getattr(optimizer, name) for name in names}
    moved = {
        name: hyperparameter(theta, value, name)
        for name, value in given.items()
        if type(value) is not float
    }
    if getattr(optimizer, "mask", None) is not None:
        moved["mask"] = _mask(theta, optimizer.mask)
    if not moved:
        return optimizer
    # Not dataclasses.replace, which would look at the values once more, on the host.
    other = copy.copy(optimizer)
    vars(other).update(moved)
    return other


def _mask(theta: Array, mask: Any) -> Array:
    mask = like(theta, mask, "mask")
    if mask.shape[-1:] != theta.shape[-1:]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but theta (..., {theta.shape[-1]}): one "
            "0 or 1 per parameter is expected, as network.weight_mask(theta) gives."
        )
    check_stack(mask.shape[:-1], theta.shape[:-1], "mask")
    return mask


def check_arrays(optimizer: Any, theta: Array, state: Any, kind: Any) -> None:
    """Raise unless a state is of that kind and its arrays are like theta."""
    if not isinstance(state, kind):
        raise TypeError(
            f"state is of {type(state).__name__}, but {type(optimizer).__name__} goes on from an "
            f"{kind.__name__}. Begin with state = optimizer.initialize(theta)."
        )
    for name, value in zip(state._fields, state, strict=True):
        if value is None or name == "step":
            continue
        require_like(theta, value, f"state.{name}")
        if tuple(value.shape) != tuple(theta.shape):
            raise ValueError(
                f"state.{name} has shape {tuple(value.shape)}, but theta {tuple(theta.shape)}. "
                "Begin with state = optimizer.initialize(theta)."
            )


def check_gradient(theta: Array, gradient: Array) -> None:
    """Raise unless a gradient is like theta."""
    require_like(theta, gradient, "gradient")
    if tuple(gradient.shape) != tuple(theta.shape):
        raise ValueError(
            f"gradient has shape {tuple(gradient.shape)}, but theta {tuple(theta.shape)}."
        )
