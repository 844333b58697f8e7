"""Checks of the arrays that a network gets with theta: x, weights, the penalty."""

import math
from numbers import Real
from typing import TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    like,
    to_host,
)
from backprop_xp.checks import real, reals, refuse_list, unravel
from backprop_xp.networks.numbers.complex_safe import real_part
from backprop_xp.networks.numbers.initializers import HostArray

# A penalty's strength: a number, an array (*stack,), or None for no penalty.
Strength: TypeAlias = float | Array | None


def check_x(theta: Array, x: Array, n_in: int | None, codes: tuple[int, ...] = ()) -> Array:
    """Return x, ``(..., batch, n_in)``, in theta's dtype.

    ``codes`` are those of ``are_codes``; only NumPy's are checked, where no transfer is needed.
    """
    x = like(theta, x, "x")
    if len(x.shape) < 2:
        row, column = (
            "one sample is a batch of one, x[None, :]",
            "samples of one input are x[:, None]",
        )
        raise ValueError(
            f"x has shape {tuple(x.shape)}, but (..., batch, n_in) is expected: "
            f"{column if n_in == 1 else row}."
        )
    if n_in is not None and x.shape[-1] != n_in:
        raise ValueError(
            f"x has {x.shape[-1]} features (shape {tuple(x.shape)}), but the first layer expects "
            f"{n_in}."
        )
    if not x.shape[-2]:
        raise ValueError(f"x has no rows (shape {tuple(x.shape)}), but at least one is expected.")
    check_stack(x.shape[:-2], theta.shape[:-1], "x")
    if codes and isinstance(x, HostArray) and not are_codes(x, codes):
        raise ValueError(wrong_code(x, codes))
    # For the complex step theta is complex and x real: not every library multiplies the two.
    return x if x.dtype == theta.dtype else array_namespace(x).astype(x, theta.dtype)


def are_codes(x: Array, codes: tuple[int, ...]) -> Array:
    """Return whether x has integers from 0 below ``codes`` in each column, of those with codes."""
    return array_namespace(x).all(_is_code(x, codes))


def _is_code(x: Array, codes: tuple[int, ...]) -> Array:
    xp, x = array_namespace(x), real_part(array_namespace(x), x)
    below = xp.asarray([n or math.inf for n in codes], dtype=x.dtype, device=device_of(x))
    return (below == math.inf) | ((x >= 0.0) & (x < below) & (xp.floor(x) == x))


def wrong_code(x: Array, codes: tuple[int, ...]) -> str:
    """Return the error message for the first number of x that should be a code."""
    host = to_host(x)
    position = _is_code(host, codes).reshape(-1).argmin().tolist()
    (*_, column) = index = unravel(position, host.shape)
    return (
        f"x{list(index)} is {host[index]:g}, but column {column} holds the codes of an Embedding, "
        f"0 ... {codes[column] - 1}. Number the categories from 0, with a code for unknown ones."
    )


def check_weights(theta: Array, outputs: tuple[int, ...], weights: Array, name: str) -> Array:
    """Return weights, ``(..., batch)``, one per sample of the outputs, in theta's dtype."""
    weights, rows = like(theta, weights, name), outputs[-2]
    if weights.shape[-1:] != (rows,):
        raise ValueError(
            f"{name} has shape {tuple(weights.shape)}, but one weight for each of the {rows} rows "
            f"of x is expected, (..., {rows}), or one for each entry of the targets."
        )
    check_stack(weights.shape[:-1], outputs[:-2], name)
    return weights


def check_l2(theta: Array, l2: float | Array) -> Strength:
    """Return the penalty's strength, with None for 0."""
    refuse_list(l2, "l2", "(*stack,)", "[0.1, 0.01]")
    if isinstance(l2, Real) or not hasattr(l2, "shape"):
        return real(l2, "l2", low=0.0) or None
    strength = like(theta, l2, "l2")
    check_stack(strength.shape, theta.shape[:-1], "l2")
    return strength


def check_entries(array: Array, name: str, *, low: float, below: float = math.inf) -> None:
    """Raise with the entry unless an array's values lie in the bounds; one transfer."""
    reals(to_host(array), name, low=low, below=below)


def beside_x(theta: Array, x: Array, v: Array, name: str) -> tuple[Array, Array]:
    """Return x and directions ``(n_in,)`` or ``(..., batch, n_in)`` with the shape of both."""
    xp, v = array_namespace(x), like(theta, v, name)
    v = v if v.dtype == x.dtype else xp.astype(v, x.dtype)
    if tuple(v.shape[-2:]) not in (tuple(x.shape[-1:]), tuple(x.shape[-2:])):
        raise ValueError(
            f"{name} has shape {tuple(v.shape)}, but a direction {tuple(x.shape[-1:])} is "
            f"expected, or one for each row of x, (..., {x.shape[-2]}, {x.shape[-1]})."
        )
    check_stack(v.shape[:-2], theta.shape[:-1], name)
    x, v = xp.broadcast_arrays(x, v)
    return x, v


def check_stack(axes: tuple[int, ...], stack: tuple[int, ...], name: str) -> None:
    """Raise ValueError unless the leading axes of ``name`` broadcast to theta's stack."""
    if not fits(axes, stack):
        raise ValueError(
            f"{name} is stacked {tuple(axes)}, but theta is stacked {tuple(stack)}. Stack theta "
            f"likewise (network.initialize(stack=...)), or give {name} without a stack."
        )


def fits(axes: tuple[int, ...], stack: tuple[int, ...]) -> bool:
    """Whether leading axes broadcast to theta's stack."""
    return len(axes) <= len(stack) and all(
        n in (1, m) for n, m in zip(reversed(axes), reversed(stack), strict=False)
    )


def check_beside_outputs(
    value: Array, outputs: tuple[int, ...], name: str, *, labels: bool = True, per_target: int = 1
) -> None:
    """Raise ValueError unless ``name`` has a row per sample and a column per output.

    With ``labels`` the error also explains class labels. With ``per_target`` there is a column for
    so many outputs.
    """
    shape, (rows, n_out) = tuple(value.shape), outputs[-2:]
    if len(shape) > 1 and (shape[-2], shape[-1] * per_target) == (rows, n_out):
        check_stack(shape[:-2], outputs[:-2], name)
        return
    way_out = f"Give {name} one row per row of x and one column per output."
    if per_target > 1:
        way_out = f"The loss needs {per_target} outputs for each column of {name}."
    elif n_out == 1 and len(shape) < 2:
        way_out = f"Make it a column: {name}[:, None]."
    elif n_out > 1 and labels and (len(shape) < 2 or shape[-1] == 1):
        way_out = (
            "categorical_cross_entropy takes class labels, one integer for each row of x; for "
            "another loss make them one-hot: "
            f"{name} = bx.data.one_hot({name}{'[..., 0]' * (len(shape) > 1)})."
        )
    raise ValueError(
        f"{name} has shape {shape}, but the outputs are (..., {rows}, {n_out}). {way_out}"
    )
