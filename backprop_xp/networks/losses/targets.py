"""The targets of a network: class labels and one-hot rows, and the checks of their values.

Labels remain integers, a column ``(..., batch, 1)``, until a loss is computed: the one-hot rows of
all data could take much more memory.
"""

import functools
import math
from collections.abc import Callable
from typing import TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    integer_array,
    like,
    owner,
    plain_numbers,
    precision_of,
    replaceable,
    to_host,
)
from backprop_xp.checks import unravel
from backprop_xp.networks.chain.array_checks import (
    check_beside_outputs,
    check_stack,
    check_weights,
    fits,
)
from backprop_xp.networks.losses.column_weights import takes_column_weights, with_shares
from backprop_xp.networks.losses.loss import LOSSES, Loss
from backprop_xp.networks.numbers.initializers import HostArray
from backprop_xp.networks.numbers.partial import WithLast

# A function of arrays whose value, on the device, must hold, its arrays, and the function that
# returns the error message.
Condition: TypeAlias = tuple[Callable[..., Array], tuple[Array, ...], Callable[[], str]]
# Targets that are probabilities are rounded to float32.
_SLACK = 1e-6


def check_targets(
    theta: Array,
    outputs: tuple[int, ...],
    y: Array,
    sample_weight: Array | None,
    loss: Loss,
    *,
    name: str = "y",
) -> tuple[Array, Array | None]:
    """Return y, ``(..., batch, n_out)``, and the weights, ``(..., batch)``, in theta's dtype.

    Weights of columns are treated as ``with_weights`` says.
    ``outputs`` is the shape of the network's outputs, ``(*stack, batch, n_out)``. If the loss takes
    labels, y may be class labels, which become one-hot rows. The values of lists and of NumPy's
    arrays are checked. Elsewhere that would take a transfer: a label outside the classes becomes a
    row of zeros.
    """
    found = shaped_targets(theta, outputs, y, loss, name)
    given = plain_numbers(y, name) if owner(y) is None else y
    if isinstance(given, HostArray):
        for holds, arrays, message in target_conditions(given, found, outputs[-1], loss, name):
            if not holds(*arrays):
                raise ValueError(message())
    found = one_hot(theta, found[..., 0], outputs[-1]) if are_labels(found) else found
    if sample_weight is None:
        return found, None
    return with_weights(theta, outputs, found, sample_weight, loss)


def with_weights(
    theta: Array, outputs: tuple[int, ...], y: Array, weight: Array, loss: Loss
) -> tuple[Array, Array]:
    """Return y and the weights of its rows, ``(..., batch)``, in theta's dtype.

    Weights of columns ``(..., batch, n)`` become shares behind the columns of y, as
    ``column_weights`` says.
    """
    weight, (rows, n), stack = like(theta, weight, "sample_weight"), y.shape[-2:], outputs[:-2]
    shape = tuple(weight.shape)
    if shape[-2:] != (rows, n):
        return y, check_weights(theta, outputs, weight, "sample_weight")
    if n > 1 and shape[-1] == rows and fits(shape[:-1], stack):
        raise ValueError(
            f"sample_weight has shape {shape}: a weight for each row of each network, or for each "
            f"entry of y. Broadcast it to that of all entries, {(*stack, rows, n)}."
        )
    check_stack(shape[:-2], stack, "sample_weight")
    if n == 1:
        return y, weight[..., 0]
    if not takes_column_weights(loss):
        raise ValueError(
            f"sample_weight has shape {shape}, a weight for each column of y, but {_name_of(loss)} "
            f"does not treat each column by itself: give one weight for each row, (..., {rows}). A "
            "loss of your own that does is made by bx.losses.over_outputs."
        )
    return with_shares(y, weight, loss)


def shaped_targets(
    theta: Array, outputs: tuple[int, ...], y: Array, loss: Loss, name: str = "y"
) -> Array:
    """Return y, ``(..., batch, n_out)``, in theta's dtype, or labels as an integer column.

    Raises ValueError for a shape that does not fit, and for fewer outputs than the loss needs.
    """
    if outputs[-1] < loss.least_outputs:
        raise ValueError(
            f"The network has {outputs[-1]} output, but {_name_of(loss)} needs "
            f"{loss.least_outputs} or more, one for each class: use binary_cross_entropy with a "
            "single output."
        )
    labels = class_labels(theta, outputs, y, name) if loss.labels else None
    if labels is not None:
        check_stack(labels.shape[:-1], outputs[:-2], name)
        return labels[..., None]
    y = like(theta, y, name)
    check_beside_outputs(y, outputs, name, per_target=loss.outputs_per_target)
    return y


def class_labels(theta: Array, outputs: tuple[int, ...], y: Array, name: str = "y") -> Array | None:
    """Return class labels ``(..., batch)`` as integers on theta's device; None for other targets.

    Labels are integers shaped ``(..., batch)``, or ``(..., batch, 1)`` for several outputs. An
    array with a column for each output is a table of targets. Raises ValueError if the shape fits
    both labels of a stack and a table.
    """
    labels = integer_array(theta, y, name)
    stack, (rows, n_out) = outputs[:-2], outputs[-2:]
    if labels is None or n_out == 1:
        return None
    shape = tuple(labels.shape)
    if shape[-2:] == (rows, 1):
        return labels[..., 0]
    fits_rows = shape[-1:] == (rows,)
    if shape[-2:] != (rows, n_out):
        return labels if fits_rows else None
    if not (fits_rows and fits(shape[:-1], stack)):
        return None
    if fits(shape[:-2], stack):
        raise ValueError(
            f"{name} has shape {shape}: integers that may be class labels of each network, "
            f"(*stack, batch), or a table, (batch, n_out). Give labels a column of their own, "
            f"{name}[..., None], and a table as floating numbers."
        )
    return labels


def are_labels(y: Array) -> bool:
    """Whether targets are labels, an integer column, and not in theta's dtype."""
    return bool(array_namespace(y).isdtype(y.dtype, "integral"))


@replaceable
def in_columns(outputs: Array, y: Array) -> Array:
    """Return targets with a column for each of the outputs: labels become one-hot rows."""
    return one_hot(outputs, y[..., 0], outputs.shape[-1]) if are_labels(y) else y


def one_hot(theta: Array, labels: Array, n_out: int) -> Array:
    """Return the one-hot rows of labels, ``(..., n_out)``, in theta's precision."""
    xp = array_namespace(theta)
    dtype = precision_of(xp, theta.dtype)
    # Compared as floats: there may be more classes than a label's dtype, uint8, can count.
    classes = xp.arange(n_out, dtype=dtype, device=device_of(theta))
    return xp.astype(xp.astype(labels, dtype)[..., None] == classes, dtype)


def target_conditions(
    given: Array, y: Array, n_out: int, loss: Loss, name: str = "y"
) -> list[Condition]:
    """Return the conditions that the values of targets must meet, on their device.

    ``y`` are the same targets with their shape checked.
    """
    if are_labels(y):
        message = functools.partial(_no_class, name, given, n_out)
        return [(WithLast(_have_classes, (n_out,)), (given,), message)]
    if loss.targets == (-math.inf, math.inf):
        return []
    message = functools.partial(_out_of_range, name, given, loss)
    return [(WithLast(_are_in_range, loss.targets), (given,), message)]


def _have_classes(labels: Array, n_out: int) -> Array:
    # As floats: not every library compares uint8 with the number of classes.
    xp = array_namespace(labels)
    labels = xp.astype(labels, xp.float32)
    return xp.all((labels >= 0.0) & (labels < n_out))


def _are_in_range(y: Array, low: float, high: float) -> Array:
    return ~array_namespace(y).any((y < _least(low)) | (y > high + _SLACK))


def wrong_values(name: str, host: HostArray, wrong: HostArray, fault: str) -> str:
    """Return the number of wrong values in an array on the host, and the first with its index."""
    positions = wrong.reshape(-1).nonzero()[0].tolist()
    count, index = len(positions), unravel(positions[0], host.shape)
    values = "value that is" if count == 1 else "values that are"
    first = "," if count == 1 else ", the first"
    return f"{name} has {count} {values} {fault}{first} {host[index]} at {name}{list(index)}."


def _out_of_range(name: str, y: Array, loss: Loss) -> str:
    host, (low, high) = to_host(y), loss.targets
    wrong = (host < _least(low)) | (host > high + _SLACK)
    found = wrong_values(name, host, wrong, f"not in [{low:g}, {high:g}]")
    return (
        f"{found} Such targets are not valid for {_name_of(loss)}: encode them differently, or "
        "choose another loss."
    )


def _least(low: float) -> float:
    """Return the least target with its rounding; a bound above 0 stands for 0 being excluded."""
    return low if low > 0.0 else low - _SLACK


def _no_class(name: str, labels: Array, n_out: int) -> str:
    host = to_host(labels)
    found = wrong_values(name, host, (host < 0) | (host >= n_out), f"not in 0 ... {n_out - 1}")
    return f"{found} The network has {n_out} outputs: class labels number them from 0."


def _name_of(loss: Loss) -> str:
    return next((name for name, known in LOSSES.items() if known == loss), "this loss")
