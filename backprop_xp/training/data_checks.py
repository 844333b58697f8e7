"""Checks of a training's data, once, before the first epoch."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import Any, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    device_of,
    dtype_name,
    gather,
    require_floating,
    require_owner,
    to_host,
)
from backprop_xp.checks import real, unravel
from backprop_xp.networks.inputs import (
    Blocks,
    Rows,
    check_targets,
    class_labels,
    rows_at,
    stand_ins,
)
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.network import Network
from backprop_xp.training.class_weights import check_classes, weights_by_class, weights_of_rows
from backprop_xp.training.data import split_rows
from backprop_xp.training.options import Options

# Rows beside theta, and the class labels that y was made of, if any.
_Given: TypeAlias = tuple[Rows, Array | None]
# A condition on the device, and the function that returns its error message.
_Condition: TypeAlias = tuple[Array, Callable[[], str]]
# Targets that are probabilities are rounded to float32.
_SLACK = 1e-6
# Weights times this factor have a sum that does not overflow.
_PART = 2.0**-40


def check_data(
    network: Network, theta: Array, x: Any, y: Any, options: Options
) -> tuple[Rows, Rows | None]:
    """Return the training set and the validation set, or None, beside theta.

    Both have the weights of the classes, by those of the training set if they are balanced. A share
    of the rows that becomes the validation set is drawn by one transfer of the class labels.
    Raises TypeError or ValueError for data that does not fit, is not finite, or has targets outside
    the loss's range. All values are checked on the device, with one transfer of the answers. A
    table that is streamed in blocks is checked where it is read.
    """
    if not require_floating(theta, "theta").isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    validation: Any = options.validation
    loss = network.loss_function
    training, labels = _checked_rows(network, theta, x, y, options.sample_weight)
    conditions = [(*condition, "") for condition in _conditions(loss, training, labels)]
    rows = None
    if validation is not None and not isinstance(validation, Real):
        parts = _validation_parts(validation)
        try:
            rows, labels = _checked_rows(network, theta, *parts)
        except (TypeError, ValueError) as error:
            raise type(error)(f"In validation: {error}") from None
        more = _conditions(loss, rows, labels)
        conditions += [(*condition, "In validation: ") for condition in more]
    flags = array_namespace(training.y).stack([flag for flag, _, _ in conditions])
    for holds, (_, message, where) in zip(to_host(flags).tolist(), conditions, strict=True):
        if not holds:
            raise ValueError(f"{where}{message()}")
    if isinstance(validation, Real):
        training, rows = _split(theta, training, loss, validation, options.seed)
    if options.class_weight is not None:
        check_classes(loss, training.y.shape[-1])
        by_class = weights_by_class(options.class_weight, training.y, training.sample_weight)
        training = _by_class(theta, training, by_class)
        rows = None if rows is None else _by_class(theta, rows, by_class)
    return training, rows


def _split(theta: Array, rows: Rows, loss: Loss, share: Any, seed: int) -> tuple[Rows, Rows]:
    """Return the training rows, and a share of the rows, drawn by the seed, for validation."""
    y, classes, home = rows.y, None, require_owner(theta, "theta")
    is_of_classes = loss.labels or (y.shape[-1] == 1 and loss.targets == (0.0, 1.0))
    if is_of_classes and len(y.shape) == 2:
        xp = array_namespace(y)
        classes = to_host(xp.argmax(y, axis=-1) if y.shape[-1] > 1 else y[:, 0] > 0.5)
    parts = []
    for indices in split_rows(rows.x.shape[-2], real(share, "validation"), seed, classes):
        at = home.from_host(indices, device=device_of(theta))
        part = Rows(rows_at(rows.x, at), rows_at(y, at))
        if rows.sample_weight is not None:
            part = _weighted(theta, part, gather(rows.sample_weight, at, -1))
        parts.append(part)
    return parts[0], parts[1]


def _validation_parts(validation: Any) -> Sequence[Any]:
    expected = "validation must be (x, y), (x, y, sample_weight) or a share of the rows"
    if isinstance(validation, str) or not isinstance(validation, Sequence):
        raise TypeError(f"{expected}, not {validation!r}.")
    if len(validation) not in (2, 3):
        raise ValueError(f"{expected}, not {len(validation)} items.")
    return validation


def _checked_rows(
    network: Network, theta: Array, x: Any, y: Any, sample_weight: Any = None
) -> _Given:
    """Return rows beside theta whose shapes fit the network."""
    detached = require_owner(theta, "theta").detached
    x = x if isinstance(x, Blocks) else detached(network.check_inputs(theta, x)[0])
    outputs, loss = network.outputs_shape(theta, x), network.loss_function
    n_out = outputs[-1]
    if n_out < loss.least_outputs:
        raise ValueError(
            f"The network has {n_out} output, but {_name_of(loss)} needs {loss.least_outputs} or "
            "more, one for each class: use binary_cross_entropy with a single output."
        )
    labels = class_labels(theta, outputs, y) if loss.labels else None
    y = y if labels is None else labels
    y, weight = check_targets(theta, outputs, y, sample_weight, loss)
    rows = Rows(x, detached(y))
    return rows if weight is None else _weighted(theta, rows, detached(weight)), labels


def _weighted(theta: Array, rows: Rows, weight: Array) -> Rows:
    return rows._replace(sample_weight=weight, stand_ins=stand_ins(weight, theta.shape[:-1]))


def _by_class(theta: Array, rows: Rows, by_class: Array) -> Rows:
    return _weighted(theta, rows, weights_of_rows(by_class, rows.y, rows.sample_weight))


def _conditions(loss: Loss, rows: Rows, labels: Array | None) -> Iterator[_Condition]:
    """Yield the conditions that the values of rows must meet."""
    xp, y, weight = array_namespace(rows.y), rows.y, rows.sample_weight
    x = None if isinstance(rows.x, Blocks) else rows.x
    for name, array in {"x": x, "y": y, "sample_weight": weight}.items():
        if array is not None:
            yield xp.all(xp.isfinite(array)), functools.partial(_not_finite, name, array)
    low, high = loss.targets
    if (low, high) != (-math.inf, math.inf):
        in_range = xp.all(y >= _least(low)) & xp.all(y <= high + _SLACK)
        yield in_range, functools.partial(_out_of_range, y, loss)
    if labels is not None:
        # The one-hot row of an unknown label is all zeros.
        has_class = xp.all(xp.max(y, axis=-1) == 1.0)
        yield has_class, functools.partial(_no_class, labels, y.shape[-1])
    if weight is not None:
        bounded = xp.sum(_PART * weight, axis=-1) < _PART * _largest_sum(weight)
        usable = xp.all(weight >= 0.0) & xp.all(xp.max(weight, axis=-1) > 0.0) & xp.all(bounded)
        yield usable, functools.partial(_unusable_weights, weight, bounded)


def _not_finite(name: str, array: Array) -> str:
    host = to_host(array)
    wrong = ~array_namespace(host).isfinite(host)
    return f"{_wrong_values(name, host, wrong, 'not finite')} Drop such rows, or fill them in."


def _largest_sum(weight: Array) -> float:
    """Return the sum above which its inverse is subnormal: compilers flush that to 0."""
    return 1.0 / float(array_namespace(weight).finfo(weight.dtype).smallest_normal)


def _unusable_weights(weight: Array, bounded: Array) -> str:
    if to_host(bounded).all():
        return "sample_weight must not be negative, and not all 0."
    return (
        f"sample_weight sums to {_largest_sum(weight):.2g} or more, too large for "
        f"{dtype_name(weight.dtype)}: 1 / sum would underflow. Divide the weights by their "
        "largest."
    )


def _out_of_range(y: Array, loss: Loss) -> str:
    host, (low, high) = to_host(y), loss.targets
    wrong = (host < _least(low)) | (host > high + _SLACK)
    found = _wrong_values("y", host, wrong, f"not in [{low:g}, {high:g}]")
    return (
        f"{found} Such targets are not valid for {_name_of(loss)}: encode them differently, or "
        "choose another loss."
    )


def _least(low: float) -> float:
    """Return the least target with its rounding; a bound above 0 stands for 0 being excluded."""
    return low if low > 0.0 else low - _SLACK


def _no_class(labels: Array, n_out: int) -> str:
    host = to_host(labels)
    found = _wrong_values("y", host, (host < 0) | (host >= n_out), f"not in 0 ... {n_out - 1}")
    return f"{found} The network has {n_out} outputs: class labels number them from 0."


def _wrong_values(name: str, host: Any, wrong: Any, fault: str) -> str:
    """Return the number of wrong values in an array on the host, and the first with its index."""
    positions = wrong.reshape(-1).nonzero()[0].tolist()
    count, index = len(positions), unravel(positions[0], host.shape)
    values = "value that is" if count == 1 else "values that are"
    first = "," if count == 1 else ", the first"
    return f"{name} has {count} {values} {fault}{first} {host[index]} at {name}{list(index)}."


def _name_of(loss: Loss) -> str:
    return next((name for name, known in LOSSES.items() if known == loss), "this loss")
