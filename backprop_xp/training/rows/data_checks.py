"""Checks of a training's data, once, before the first epoch."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backprop_xp.backends import (
    Array,
    Backend,
    array_namespace,
    columns_of,
    device_of,
    dtype_name,
    like,
    require_owner,
    to_host,
)
from backprop_xp.checks import unravel
from backprop_xp.networks.chain.array_checks import are_codes, wrong_code
from backprop_xp.networks.chain.batch_rows import Blocks, Rows, divider
from backprop_xp.networks.losses.column_weights import takes_column_weights, targets_of, with_shares
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.losses.targets import (
    Condition,
    are_labels,
    one_hot,
    shaped_targets,
    target_conditions,
    with_weights,
    wrong_values,
)
from backprop_xp.networks.network import Network
from backprop_xp.networks.numbers.partial import WithLast

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

    Class labels become an int32 column. Weights of the columns of y, also those of 0 for its NaN,
    become shares behind its columns, as ``networks.losses.column_weights`` says. The name of a set
    begins its error messages. Only a part of a set may have no rows, or only weights of 0.
    """
    found, conditions, with_gaps = list[Rows](), list[tuple[Condition, str]](), list[int]()
    for where, parts in sets.items():
        if may_be_empty and all(map(_is_empty, parts)):
            found.append(no_rows(theta))
            continue
        with named(where):
            shaped = _shaped(network, theta, *parts)
        more = _conditions(network, theta, shaped, parts, may_weigh_nothing=may_weigh_nothing)
        conditions += [(condition, where) for condition in more]
        if shaped.may_have_gaps:
            with_gaps.append(len(found))
        found.append(shaped.rows)
    if conditions:
        questions = [(_is_whole, (found[i].y,), None) for i in with_gaps]
        asked = [*(each for each, _ in conditions), *questions]
        functions, arrays, messages = zip(*asked, strict=True)
        flags = to_host(compiled_once(theta, WithLast(_holds, (functions,)))(arrays)).tolist()
        for holds, message, (_, where) in zip(flags, messages, conditions, strict=False):
            if not holds:
                raise ValueError(f"{where}{message()}")
        for i, is_whole in zip(with_gaps, flags[len(conditions) :], strict=True):
            found[i] = found[i] if is_whole else without_gaps(network, theta, found[i])
    return [_with_int32(rows) for rows in found]


class Shaped(NamedTuple):
    """A set whose shapes fit a network of ``n_out`` outputs; its values are not checked yet."""

    rows: Rows
    n_out: int
    loss: Loss

    @property
    def targets(self) -> int:
        """The number of columns of y, without shares behind them."""
        return targets_of(self.loss, self.n_out)

    @property
    def may_have_gaps(self) -> bool:
        """Whether NaN in y may be values that were not measured: in one of several columns."""
        n = self.rows.y.shape[-1]
        return n > 1 and n == self.targets and takes_column_weights(self.loss)


def without_gaps(network: Network, theta: Array, rows: Rows) -> Rows:
    """Return rows whose entries of y that are NaN have the weight 0."""
    weight = None if rows.sample_weight is None else rows.sample_weight[..., None]
    weigh = compiled_once(theta, WithLast(with_shares, (network.loss_function,)))
    y, weight = weigh(rows.y, weight)
    return rows._replace(y=_in_c_order(y), sample_weight=_in_c_order(weight))


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


def _shaped(network: Network, theta: Array, x: Any, y: Any, sample_weight: Any = None) -> Shaped:
    """Return rows on theta's device whose shapes fit the network; labels as they are given."""
    detach = require_owner(theta, "theta").detach
    x = x if isinstance(x, Blocks) else detach(network.check_inputs(theta, x)[0])
    outputs = network.outputs_shape(theta, x)
    y = detach(shaped_targets(theta, outputs, y, network.loss_function))
    in_order = x if isinstance(x, Blocks) else _in_c_order(x)
    rows = Rows(in_order, _in_c_order(y), divide=divider(x))
    if sample_weight is not None:
        y, weight = with_weights(theta, outputs, y, sample_weight, network.loss_function)
        rows = rows._replace(y=_in_c_order(y), sample_weight=_in_c_order(detach(weight)))
    return Shaped(rows, outputs[-1], network.loss_function)


def _in_c_order(array: Array) -> Array:
    """Return an array that is flattened without a copy, at each batch of a stack's own rows."""
    xp = array_namespace(array)
    return xp.reshape(xp.reshape(array, (-1,)), array.shape) if len(array.shape) > 2 else array


def _conditions(
    network: Network,
    theta: Array,
    shaped: Shaped,
    parts: Sequence[Any],
    *,
    may_weigh_nothing: bool,
) -> Iterator[Condition]:
    """Yield the conditions that the values of rows must meet; messages have the weights as given.

    A weight that is not finite makes those of its row and its shares not finite.
    """
    (x, y, weight, *_), n = shaped.rows, shaped.targets
    x = None if isinstance(x, Blocks) else x
    whole = None if shaped.may_have_gaps or are_labels(y) else y
    if weight is not None:
        message = functools.partial(_not_finite_weight, theta, parts[2], weight)
        yield _is_finite, (weight,), message
    for name, array in {"x": x, "y": whole}.items():
        if array is not None:
            yield _is_finite, (array,), functools.partial(_not_finite, name, array)
    if shaped.may_have_gaps:
        yield _has_no_infinity, (y,), functools.partial(_infinite, y)
        yield _are_measured, (y, weight), functools.partial(_not_measured, y, weight)
    if x is not None and network.codes:
        codes = network.codes
        yield WithLast(are_codes, (codes,)), (x,), functools.partial(wrong_code, x, codes)
    given = y[..., 0] if are_labels(y) else y
    if not are_labels(y) and y.shape[-1] > n:
        given, shares = columns_of(y, [n, n])
        yield _are_not_negative, (shares,), functools.partial(unusable_weights, weight)
    yield from target_conditions(given, y, shaped.n_out, shaped.loss)
    if weight is not None:
        usable = WithLast(is_usable, (may_weigh_nothing,))
        yield usable, (weight,), functools.partial(unusable_weights, weight)


def _is_finite(array: Array) -> Array:
    xp = array_namespace(array)
    return xp.all(xp.isfinite(array))


def _is_whole(y: Array) -> Array:
    xp = array_namespace(y)
    return ~xp.any(xp.isnan(y))


def _has_no_infinity(y: Array) -> Array:
    xp = array_namespace(y)
    return ~xp.any(xp.isinf(y))


def _empty_rows(y: Array, weight: Array | None) -> Array:
    """Return whether each row counts and has no measured value."""
    xp = array_namespace(y)
    empty = xp.all(xp.isnan(y), axis=-1)
    return empty if weight is None else empty & (weight != 0.0)


def _are_measured(y: Array, weight: Array | None) -> Array:
    return ~array_namespace(y).any(_empty_rows(y, weight))


def _are_not_negative(array: Array) -> Array:
    return array_namespace(array).all(array >= 0.0)


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


def _not_finite_weight(theta: Array, given: Any, weight: Array) -> str:
    array = like(theta, given, "sample_weight")
    is_finite = to_host(_is_finite(array))  # The sum of a row's weights has overflowed.
    return unusable_weights(weight) if is_finite else _not_finite("sample_weight", array)


def _infinite(y: Array) -> str:
    host = to_host(y)
    found = wrong_values("y", host, array_namespace(host).isinf(host), "not finite")
    return f"{found} Values that were not measured are NaN."


def _not_measured(y: Array, weight: Array | None) -> str:
    empty = to_host(_empty_rows(y, weight))
    first = unravel(empty.reshape(-1).argmax().tolist(), empty.shape)
    return (
        f"y has no measured value, only NaN, in {int(empty.sum())} of {empty.size} rows, the first "
        f"y{list(first)}. Drop such rows, or give them the weight 0."
    )


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
