"""Checks of what a network is given beside theta, at its public entrances."""

import math
from numbers import Real
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, like, owner, to_host
from backprop_xp.checks import real, reals


class Rows(NamedTuple):
    """What a network is called with: arrays beside theta; ``sample_weight`` None for equal ones."""

    x: Array
    y: Array
    sample_weight: Array | None = None
    rng: Any = None


def check_x(theta: Array, x: Any, n_in: int | None) -> Array:
    """Return x, ``(..., batch, n_in)``, in theta's dtype."""
    x = like(theta, x, "x")
    if len(x.shape) < 2:
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but (..., batch, n_in) is expected: one sample is a "
            "batch of one, x[None, :]."
        )
    if n_in is not None and x.shape[-1] != n_in:
        raise ValueError(
            f"x has {x.shape[-1]} features (shape {tuple(x.shape)}), but the first layer expects "
            f"{n_in}."
        )
    if not x.shape[-2]:
        raise ValueError(f"x has no rows (shape {tuple(x.shape)}): an empty batch has no loss.")
    check_stack(x.shape[:-2], theta.shape[:-1], "x")
    # A complex theta (the complex step) meets a real x: not every library multiplies the two.
    return x if x.dtype == theta.dtype else array_namespace(x).astype(x, theta.dtype)


def check_targets(
    theta: Array, outputs: tuple[int, ...], y: Any, sample_weight: Any
) -> tuple[Array, Array | None]:
    """Return y, ``(..., batch, n_out)``, and the weights, ``(..., batch)``, in theta's dtype.

    ``outputs`` is the shape of the network's outputs, ``(*stack, batch, n_out)``.
    """
    y = like(theta, y, "y")
    check_beside_outputs(y, outputs, "y")
    if sample_weight is None:
        return y, None
    weight = like(theta, sample_weight, "sample_weight")
    rows = outputs[-2]
    if not weight.shape or weight.shape[-1] != rows:
        raise ValueError(
            f"sample_weight has shape {tuple(weight.shape)}, but one weight for each of the {rows} "
            f"rows of x is expected: (..., {rows})."
        )
    check_stack(weight.shape[:-1], theta.shape[:-1], "sample_weight")
    return y, weight


def check_l2(theta: Array, l2: Any) -> Any:
    """Return the penalty's strength: a float, an array ``(*stack,)``, or None for none."""
    if isinstance(l2, Real) or not hasattr(l2, "shape"):
        return real(l2, "l2", low=0.0) or None
    strength = like(theta, l2, "l2")
    check_stack(strength.shape, theta.shape[:-1], "l2")
    return strength


def check_entries(array: Any, name: str, *, low: float, below: float = math.inf) -> None:
    """Raise, naming the entry, unless a hyperparameter's values lie in the bounds; moves them once.

    What a compiler traces has no values yet.
    """
    if owner(array) is None or device_of(array) is not None:
        reals(to_host(array), name, low=low, below=below)


def check_stack(given: tuple[int, ...], stack: tuple[int, ...], name: str) -> None:
    """Raise ValueError unless the leading axes of ``name`` broadcast to theta's stack."""
    fits = len(given) <= len(stack) and all(
        n in (1, m) for n, m in zip(reversed(given), reversed(stack), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{name} is stacked {tuple(given)}, but theta is stacked {tuple(stack)}. Stack theta "
            f"likewise (network.initialize(stack=...)), or give {name} without a stack."
        )


def check_beside_outputs(value: Array, outputs: tuple[int, ...], name: str) -> None:
    """Raise ValueError unless ``name`` has a row per sample and a column per output."""
    rows = outputs[-2:]
    if tuple(value.shape[-2:]) == tuple(rows):
        check_stack(value.shape[:-2], outputs[:-2], name)
        return
    if len(value.shape) < 2 or value.shape[-1] == 1 < rows[-1]:
        column = "[..., 0]" if len(value.shape) > 1 else ""
        way_out = (
            f"Make class labels one-hot: {name} = bx.data.one_hot({name}{column})."
            if rows[-1] > 1
            else f"Make it a column: {name}[:, None]."
        )
    else:
        way_out = "Give one row of targets per row of x, one column per output."
    raise ValueError(
        f"{name} has shape {tuple(value.shape)}, but the outputs are (..., {rows[0]}, {rows[1]}). "
        f"{way_out}"
    )
