"""Checks of an optimizer's hyperparameters, and of the arrays that its update receives."""

import copy
import math
from numbers import Real
from typing import TypeAlias, TypeVar

from backprop_xp.backends import Array, device_of, is_host_number, like, owner, require_like
from backprop_xp.checks import boolean, real, refuse_list
from backprop_xp.networks.chain.array_checks import check_entries, check_stack

# A number, an array (*stack, 1) with one for each network, or (..., P) with one for each parameter.
Hyperparameter: TypeAlias = float | Array

AnyOptimizer = TypeVar("AnyOptimizer")

# The upper bounds, exclusive; no hyperparameter is negative.
_POSITIVE = ("learning_rate", "epsilon", "weight_decay", "initial", "momentum_decay")
_BOUNDS = {"momentum": 1.0, "decay": 1.0, "beta1": 1.0, "beta2": 1.0}
_BOUNDS |= dict.fromkeys(_POSITIVE, math.inf)
_BOUNDS |= {"damping": math.inf, "tolerance": 1.0}
_BOOLEANS = ("nesterov", "rate_inside", "corrected_epsilon", "amsgrad")


def not_negative(value: Hyperparameter, name: str, *, below: float = math.inf) -> Hyperparameter:
    """Return a number of 0 or more as a float, or an array of such numbers as it is."""
    refuse_list(value, name, "(*stack, 1)", "[[0.1], [0.01]]")
    if owner(value) is not None and device_of(value) is None:
        return value  # traced: on no device, and without values
    if not getattr(value, "shape", ()):
        return real(value, name, low=0.0, below=below)
    check_entries(value, name, low=0.0, below=below)
    return value


def check_hyperparameters(optimizer: object) -> None:
    """Check an optimizer's hyperparameters, and store numbers as floats.

    The rate of a schedule is checked at each update.
    """
    for name, value in tuple(vars(optimizer).items()):
        is_schedule = name == "learning_rate" and callable(value)
        if name in _BOUNDS and not is_schedule:
            object.__setattr__(optimizer, name, not_negative(value, name, below=_BOUNDS[name]))
        elif name in _BOOLEANS:
            object.__setattr__(optimizer, name, boolean(value, name))


def hyperparameter(theta: Array, value: Hyperparameter, name: str) -> Hyperparameter:
    """Return a hyperparameter that broadcasts against theta: a float, or an array there."""
    if type(value) is float:
        return value
    if isinstance(value, Real) or is_host_number(value):
        return float(value)  # a NumPy scalar would widen float32
    value = like(theta, value, name)
    if value.shape and value.shape[-1] not in (1, theta.shape[-1]):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but (*stack, 1) is expected: "
            f"{name}[..., None]; or one for each parameter, (..., {theta.shape[-1]})."
        )
    check_stack(value.shape[:-1], theta.shape[:-1], name)
    return value


def of_each_network(theta: Array, value: Hyperparameter, name: str) -> Hyperparameter:
    """Return a hyperparameter that is a number, or one for each network, ``(*stack, 1)``."""
    value = hyperparameter(theta, value, name)
    if not isinstance(value, float) and value.shape[-1:] not in ((), (1,)):
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but one number for each network, (*stack, 1), "
            "is expected."
        )
    return value


def placed(optimizer: AnyOptimizer, theta: Array) -> AnyOptimizer:
    """Return an optimizer whose arrays are on theta's device; the learning rate stays as it is."""
    moved = {
        name: hyperparameter(theta, value, name)
        for name, value in vars(optimizer).items()
        if name in _BOUNDS and name != "learning_rate" and type(value) is not float
    }
    mask = getattr(optimizer, "mask", None)
    if mask is not None:
        moved["mask"] = _mask(theta, mask)
    if not moved:
        return optimizer
    # dataclasses.replace would check the values again, with a transfer to the host.
    other = copy.copy(optimizer)
    vars(other).update(moved)
    return other


def _mask(theta: Array, mask: Array) -> Array:
    mask = like(theta, mask, "mask")
    if mask.shape[-1:] != theta.shape[-1:]:
        raise ValueError(
            f"mask has shape {tuple(mask.shape)}, but theta (..., {theta.shape[-1]}): one "
            "0 or 1 per parameter is expected, as network.weight_mask(theta) gives."
        )
    check_stack(mask.shape[:-1], theta.shape[:-1], "mask")
    return mask


def check_alike(
    theta: Array,
    value: Array,
    name: str,
    way_out: str = "",
    *,
    shape: tuple[int, ...] | None = None,
) -> None:
    """Raise unless an array has theta's library, device and dtype, and its shape or another."""
    require_like(theta, value, name)
    if tuple(value.shape) != (tuple(theta.shape) if shape is None else shape):
        expected = "" if shape in (None, tuple(theta.shape)) else f", and {shape} is expected"
        raise ValueError(
            f"{name} has shape {tuple(value.shape)}, but theta {tuple(theta.shape)}{expected}."
            f"{way_out}"
        )
