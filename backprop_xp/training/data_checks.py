"""Checks of a training's data, once, before the first epoch."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    device_of,
    dtype_name,
    require_owner,
    to_host,
)
from backprop_xp.networks.batch_rows import Blocks, Rows, divider
from backprop_xp.networks.inputs import are_codes, check_weights, wrong_code
from backprop_xp.networks.loss_targets import (
    Condition,
    are_labels,
    one_hot,
    shaped_targets,
    target_conditions,
    wrong_values,
)
from backprop_xp.networks.network import Network
from backprop_xp.networks.partial import Partial

# What a part of a set may be, whose other rows another process has.
PART = {"may_be_empty": True, "may_weigh_nothing": True}
# Weights times this factor have a sum that does not overflow.
_PART = 2.0**-40


def check_sets(
    network: Network,
    theta: Array,
    sets: Mapping[str, Sequence[Any]],
    *,
    may_be_empty: bool = False,
    may_weigh_nothing: bool = False,
) -> list[Rows]:
    """Return sets ``(x, y)`` or ``(x, y, sample_weight)`` on theta's device, checked.

    Class labels become an int32 column. The name of a set begins its error messages. Only a part of
    a set may have no rows, or only weights of 0.
    """
    found, conditions = list[Rows](), list[tuple[Condition, str]]()
    for where, parts in sets.items():
        if may_be_empty and all(map(_is_empty, parts)):
            found.append(no_rows(theta))
            continue
        with named(where):
            rows = _checked_rows(network, theta, *parts)
        more = _conditions(network, theta, rows, may_weigh_nothing=may_weigh_nothing)
        conditions += [(condition, where) for condition in more]
        found.append(rows)
    if conditions:
        functions, arrays, messages = zip(*(each for each, _ in conditions), strict=True)
        flags = to_host(compiled_once(theta, Partial(_holds, (functions,)))(arrays))
        for holds, message, (_, where) in zip(flags.tolist(), messages, conditions, strict=True):
            if not holds:
                raise ValueError(f"{where}{message()}")
    return [_with_int32(rows) for rows in found]


def _holds(arrays: Sequence[Sequence[Array]], functions: Sequence[Callable[..., Array]]) -> Array:
    """Return whether each condition's function holds for its arrays."""
    flags = [function(*own) for function, own in zip(functions, arrays, strict=True)]
    return array_namespace(flags[0]).stack(flags)


def compiled_once(array: Array, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that an array's library compiles once for its shape, not step by step."""
    backend: Any = require_owner(array, "theta")
    return _compiled_by(backend, function)


@functools.lru_cache(maxsize=64)
def _compiled_by(backend: Backend, function: Callable[..., Any]) -> Callable[..., Any]:
    return backend.compile(function)


def _with_int32(rows: Rows) -> Rows:
    """Return rows with labels of one dtype, which all arrays of them have."""
    if not are_labels(rows.y):
        return rows
    xp = array_namespace(rows.y)
    return rows._replace(y=xp.astype(rows.y, xp.int32, copy=False))


def with_columns(network: Network, theta: Array, rows: Rows) -> Rows:
    """Return rows with labels as one-hot rows, and other targets as they are."""
    if not are_labels(rows.y):
        return rows
    n_out = network.outputs_shape(theta, rows.x)[-1]
    return rows._replace(y=one_hot(theta, rows.y[..., 0], n_out))


def no_rows(
    theta: Array, x: Any = (1,), y: Any = (1,), weight: Any = None, labels: bool = False
) -> Rows:
    """Return a set without rows, whose arrays have these shapes beside their number."""
    xp = array_namespace(theta)
    of = functools.partial(xp.zeros, dtype=theta.dtype, device=device_of(theta))
    own = None if weight is None else of((*weight, 0))
    targets = of((*y[:-1], 0, y[-1]))
    targets = xp.astype(targets, xp.int32) if labels else targets
    return Rows(of((*x[:-1], 0, x[-1])), targets, own)


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
) -> Rows:
    """Return rows on theta's device whose shapes fit the network; labels as they are given."""
    detach = require_owner(theta, "theta").detach
    x = x if isinstance(x, Blocks) else detach(network.check_inputs(theta, x)[0])
    outputs = network.outputs_shape(theta, x)
    y = detach(shaped_targets(theta, outputs, y, network.loss_function))
    in_order = x if isinstance(x, Blocks) else _in_c_order(x)
    rows = Rows(in_order, _in_c_order(y), divide=divider(x))
    if sample_weight is None:
        return rows
    weight = check_weights(theta, outputs, sample_weight, "sample_weight")
    return rows._replace(sample_weight=_in_c_order(detach(weight)))


def _in_c_order(array: Array) -> Array:
    """Return an array that is flattened without a copy, at each batch of a stack's own rows."""
    xp = array_namespace(array)
    return xp.reshape(xp.reshape(array, (-1,)), array.shape) if len(array.shape) > 2 else array


def _conditions(
    network: Network, theta: Array, rows: Rows, *, may_weigh_nothing: bool
) -> Iterator[Condition]:
    """Yield the conditions that the values of rows must meet."""
    loss, codes, y, weight = network.loss_function, network.codes, rows.y, rows.sample_weight
    x = None if isinstance(rows.x, Blocks) else rows.x
    for name, array in {"x": x, "y": y, "sample_weight": weight}.items():
        if array is not None and not (array is y and are_labels(y)):
            yield _is_finite, (array,), functools.partial(_not_finite, name, array)
    if x is not None and codes:
        yield Partial(are_codes, (codes,)), (x,), functools.partial(wrong_code, x, codes)
    given = y[..., 0] if are_labels(y) else y
    yield from target_conditions(given, y, network.outputs_shape(theta, rows.x)[-1], loss)
    if weight is not None:
        usable = Partial(is_usable, (may_weigh_nothing,))
        yield usable, (weight,), functools.partial(unusable_weights, weight)


def _is_finite(array: Array) -> Array:
    xp = array_namespace(array)
    return xp.all(xp.isfinite(array))


def is_usable(weight: Array, may_weigh_nothing: bool = False) -> Array:
    """Whether the weights are those of all rows, or of a part of them, that may be trained on."""
    xp = array_namespace(weight)
    usable = xp.all(weight >= 0.0) & xp.all(_is_bounded(weight))
    return usable if may_weigh_nothing else usable & xp.all(xp.max(weight, axis=-1) > 0.0)


def _is_bounded(weight: Array) -> Array:
    total = array_namespace(weight).sum(_PART * weight, axis=-1)
    return total < _PART * _largest_sum(weight)


def _not_finite(name: str, array: Array) -> str:
    host = to_host(array)
    wrong = ~array_namespace(host).isfinite(host)
    return f"{wrong_values(name, host, wrong, 'not finite')} Drop such rows, or fill them in."


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
