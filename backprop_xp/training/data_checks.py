"""Checks of a training's data, once, before the first epoch."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    device_of,
    dtype_name,
    gather,
    require_owner,
    to_host,
)
from backprop_xp.checks import real, unravel
from backprop_xp.networks.inputs import (
    Blocks,
    Rows,
    are_codes,
    check_targets,
    class_labels,
    divider,
    stand_ins,
    taken,
    wrong_code,
)
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.network import Network
from backprop_xp.networks.partial import Partial
from backprop_xp.training.class_weights import (
    check_classes,
    has_classes,
    weights_by_class,
    weights_of_rows,
)
from backprop_xp.training.data import Seed, split_rows
from backprop_xp.training.options import Options
from backprop_xp.training.ranks import Ranks

# A function of arrays whose value, on the device, must hold, its arrays, and the function that
# returns the error message.
Condition: TypeAlias = tuple[Callable[..., Array], tuple[Array, ...], Callable[[], str]]
# Targets that are probabilities are rounded to float32.
_SLACK = 1e-6
# Weights times this factor have a sum that does not overflow.
_PART = 2.0**-40


def check_data(
    network: Network,
    theta: Array,
    training: Sequence[Any] | None,
    options: Options,
    ranks: Ranks,
    check: Callable[..., list[Rows]],
) -> tuple[Rows | None, Rows | None]:
    """Return the training set and the validation set on theta's device, each None if it is.

    ``training`` is ``(x, y, sample_weight)``. Both sets have the weights of the classes, by those
    of the training set if they are balanced. A share of the rows that becomes the validation set is
    drawn by one transfer of the class labels. Raises TypeError or ValueError for data that does not
    fit, is not finite, or has targets outside the loss's range. All values are checked on the
    device, with one transfer of the answers. A table that is streamed in blocks is checked where it
    is read. ``check`` is ``check_sets``, or that of ranks that share the rows.
    """
    if not network.check_theta(theta).isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    share: Any = options.validation
    sets = {} if training is None else {"": training}
    if share is not None and not isinstance(share, Real):
        sets["In validation: "] = items_of(
            share, "validation", "(x, y), (x, y, sample_weight) or a share of the rows"
        )
    found = iter(check(network, theta, sets))
    rows = None if training is None else next(found)
    validation, loss = next(found, None), network.loss_function
    if rows is not None and isinstance(share, Real):
        rows, validation = _split(theta, rows, loss, share, options.seed, ranks)
    if rows is not None and options.class_weight is not None:
        check_classes(loss, rows.y.shape[-1])
        weights = options.class_weight, rows.y, rows.sample_weight
        by_class = weights_by_class(*weights, total=ranks.sum)
        rows = _by_class(theta, rows, by_class)
        validation = None if validation is None else _by_class(theta, validation, by_class)
    return rows, validation


def _split(
    theta: Array, rows: Rows, loss: Loss, share: Any, seed: Seed, ranks: Ranks
) -> tuple[Rows, Rows]:
    """Return the training rows, and a share of the rows, drawn by the seed, for validation."""
    if not isinstance(seed, int):
        raise ValueError(
            "validation is a share, drawn once for all networks, but seed has one for each: split "
            "the rows first, x, x_validation, y, y_validation = bx.data.split(x, y)."
        )
    y, classes, home = rows.y, None, require_owner(theta, "theta")
    if has_classes(loss, y.shape[-1]) and len(y.shape) == 2:
        xp = array_namespace(y)
        classes = to_host(xp.argmax(y, axis=-1) if y.shape[-1] > 1 else y[:, 0] > 0.5)
        classes = ranks.join(classes, -1, classes)
    shares = {"validation": real(share, "validation", above=0.0, below=1.0)}
    parts, (first, count), own = [], ranks.place(rows), rows.x.shape[-2]
    for indices in split_rows(count, shares, seed, classes=classes).values():
        indices = indices[(indices >= first) & (indices < first + own)] - first
        at = home.from_host(indices.astype("int32"), device=device_of(theta))
        parts.append(_compiled(theta, Partial(_part, (theta.shape[:-1],)))(rows, at))
    return parts[0], parts[1]


def _part(rows: Rows, at: Array, stack: tuple[int, ...]) -> Rows:
    """Return the rows at indices, with their weights."""
    part, weight = taken(rows, at, None, None), rows.sample_weight
    return part if weight is None else _weighted(stack, part, gather(weight, at, -1))


def check_sets(
    network: Network,
    theta: Array,
    sets: Mapping[str, Sequence[Any]],
    *,
    values: bool = True,
    are_whole: bool = True,
) -> list[Rows]:
    """Return sets ``(x, y)`` or ``(x, y, sample_weight)`` on theta's device, checked.

    The name of a set begins its error messages. Sets that are not whole may have no rows, and only
    weights of 0.
    """
    found, conditions = list[Rows](), list[tuple[Condition, str]]()
    for where, parts in sets.items():
        if not are_whole and all(map(_is_empty, parts)):
            found.append(no_rows(theta))
            continue
        with named(where):
            rows, labels = _checked_rows(network, theta, *parts)
        found.append(rows)
        if values:
            more = _conditions(network, rows, labels, are_whole=are_whole)
            conditions += [(condition, where) for condition in more]
    if conditions:
        functions, arrays, messages = zip(*(each for each, _ in conditions), strict=True)
        flags = to_host(_compiled(theta, Partial(_holds, (functions,)))(arrays))
        for holds, message, (_, where) in zip(flags.tolist(), messages, conditions, strict=True):
            if not holds:
                raise ValueError(f"{where}{message()}")
    return found


def _holds(arrays: Sequence[Sequence[Array]], functions: Sequence[Callable[..., Array]]) -> Array:
    """Return whether each condition's function holds for its arrays."""
    flags = [function(*own) for function, own in zip(functions, arrays, strict=True)]
    return array_namespace(flags[0]).stack(flags)


def _compiled(array: Array, function: Partial) -> Callable[..., Any]:
    """Return a function that an array's library compiles once for its shape, not step by step."""
    backend: Any = require_owner(array, "theta")
    return _compiled_by(backend, function)


@functools.lru_cache(maxsize=64)
def _compiled_by(backend: Backend, function: Partial) -> Callable[..., Any]:
    return backend.compile(function)


def no_rows(theta: Array, x: Any = (1,), y: Any = (1,), weight: Any = None) -> Rows:
    """Return a set without rows, whose arrays have these shapes beside their number."""
    of = functools.partial(array_namespace(theta).zeros, dtype=theta.dtype, device=device_of(theta))
    own = None if weight is None else of((*weight, 0))
    return Rows(of((*x[:-1], 0, x[-1])), of((*y[:-1], 0, y[-1])), own)


def _is_empty(array: Any) -> bool:
    """Whether an array, or a list, has no rows; None, for no weights, has none."""
    return not array if isinstance(array, list | None) else 0 in getattr(array, "shape", ())


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Begin the message of an error with the name of what it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not where:
            raise
        raise type(error)(f"{where}{error}") from None


def items_of(
    value: Any, name: str, choices: str = "(x, y) or (x, y, sample_weight)"
) -> Sequence[Any]:
    """Return the items of ``(x, y)`` or ``(x, y, sample_weight)``, or raise."""
    expected = f"{name} must be {choices}"
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{expected}, not {value!r}.")
    if len(value) not in (2, 3):
        raise ValueError(f"{expected}, not {len(value)} items.")
    return value


def _checked_rows(
    network: Network, theta: Array, x: Any, y: Any, sample_weight: Any = None
) -> tuple[Rows, Array | None]:
    """Return rows on theta's device whose shapes fit the network, and class labels if y is such."""
    detach = require_owner(theta, "theta").detach
    x = x if isinstance(x, Blocks) else detach(network.check_inputs(theta, x)[0])
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
    in_order = x if isinstance(x, Blocks) else _in_c_order(x)
    rows = Rows(in_order, _in_c_order(detach(y)), divide=divider(x))
    if weight is not None:
        rows = _weighted(theta.shape[:-1], rows, _in_c_order(detach(weight)))
    return rows, labels


def _weighted(stack: tuple[int, ...], rows: Rows, weight: Array) -> Rows:
    """Return rows with weights, and with the stand-ins of those of weight 0."""
    at = None
    if weight.shape[-1]:
        at = _compiled(weight, Partial(stand_ins, (stack,)))(weight)
    return rows._replace(sample_weight=weight, stand_ins=at)


def _by_class(theta: Array, rows: Rows, by_class: Array) -> Rows:
    weight = weights_of_rows(by_class, rows.y, rows.sample_weight)
    return _weighted(theta.shape[:-1], rows, weight)


def _in_c_order(array: Array) -> Array:
    """Return an array that is flattened without a copy, at each batch of a stack's own rows."""
    xp = array_namespace(array)
    return xp.reshape(xp.reshape(array, (-1,)), array.shape) if len(array.shape) > 2 else array


def _conditions(
    network: Network, rows: Rows, labels: Array | None, *, are_whole: bool
) -> Iterator[Condition]:
    """Yield the conditions that the values of rows must meet."""
    loss, codes, y, weight = network.loss_function, network.codes, rows.y, rows.sample_weight
    x = None if isinstance(rows.x, Blocks) else rows.x
    for name, array in {"x": x, "y": y, "sample_weight": weight}.items():
        if array is not None:
            yield _is_finite, (array,), functools.partial(_not_finite, name, array)
    if x is not None and codes:
        yield Partial(are_codes, (codes,)), (x,), functools.partial(wrong_code, x, codes)
    if loss.targets != (-math.inf, math.inf):
        in_range = Partial(_is_in_range, loss.targets)
        yield in_range, (y,), functools.partial(_out_of_range, y, loss)
    if labels is not None:
        yield _has_class, (y,), functools.partial(_no_class, labels, y.shape[-1])
    if weight is not None:
        usable = Partial(is_usable, (are_whole,))
        yield usable, (weight,), functools.partial(unusable_weights, weight)


def _is_finite(array: Array) -> Array:
    xp = array_namespace(array)
    return xp.all(xp.isfinite(array))


def _is_in_range(y: Array, low: float, high: float) -> Array:
    xp = array_namespace(y)
    return xp.all(y >= _least(low)) & xp.all(y <= high + _SLACK)


def _has_class(y: Array) -> Array:
    """Whether each row has a class: the one-hot row of an unknown label is all zeros."""
    xp = array_namespace(y)
    return xp.all(xp.max(y, axis=-1) == 1.0)


def is_usable(weight: Array, are_whole: bool) -> Array:
    """Whether the weights are those of all rows, or of a part of them, that may be trained on."""
    xp = array_namespace(weight)
    usable = xp.all(weight >= 0.0) & xp.all(_is_bounded(weight))
    return usable & xp.all(xp.max(weight, axis=-1) > 0.0) if are_whole else usable


def _is_bounded(weight: Array) -> Array:
    total = array_namespace(weight).sum(_PART * weight, axis=-1)
    return total < _PART * _largest_sum(weight)


def _not_finite(name: str, array: Array) -> str:
    host = to_host(array)
    wrong = ~array_namespace(host).isfinite(host)
    return f"{_wrong_values(name, host, wrong, 'not finite')} Drop such rows, or fill them in."


def _largest_sum(weight: Array) -> float:
    """Return the sum above which its inverse is subnormal: compilers flush that to 0."""
    return 1.0 / float(array_namespace(weight).finfo(weight.dtype).smallest_normal)


def unusable_weights(weight: Array) -> str:
    """Return the error message for weights that are not usable."""
    if to_host(_is_bounded(weight)).all():
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
