"""What a training is given beside theta, checked once, at its entrance."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from backprop_xp.backends import (
    Array,
    array_namespace,
    dtype_name,
    require_floating,
    require_owner,
    to_host,
)
from backprop_xp.checks import unravel
from backprop_xp.networks.inputs import Blocks, Rows, check_targets, class_labels, stand_ins
from backprop_xp.networks.losses import LOSSES, Loss
from backprop_xp.networks.network import Network

# Rows of the right shapes, and the class labels that y was made of, if it was.
_Given: TypeAlias = tuple[Rows, Array | None]
# Targets that are probabilities come with float32's rounding.
_SLACK = 1e-6
# A sum of this part of each weight overflows for no number of rows.
_PART = 2.0**-40


def check_data(
    network: Network, theta: Array, x: Any, y: Any, sample_weight: Any, validation: Any
) -> tuple[Rows, Rows | None]:
    """Return training rows and held-out rows, if there are any, beside theta.

    Raises TypeError or ValueError for what does not fit, is not finite, or is no target that the
    loss can mean. One transfer answers for all values of both: the only one before the first epoch.
    Rows that come in blocks are checked where they are read.
    """
    if not require_floating(theta, "theta").isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    given = _fitting(network, theta, x, y, sample_weight)
    if validation is None:
        _require_usable(network.loss_function, given, None)
        return given[0], None
    parts = _parts(validation)
    with _in_validation():
        held_out = _fitting(network, theta, *parts)
    _require_usable(network.loss_function, given, held_out)
    return given[0], held_out[0]


def _parts(validation: Any) -> Sequence[Any]:
    expected = "validation must be (x, y) or (x, y, sample_weight)"
    if isinstance(validation, str) or not isinstance(validation, Sequence):
        raise TypeError(f"{expected}, not {validation!r}.")
    if len(validation) not in (2, 3):
        raise ValueError(f"{expected}, not {len(validation)} items.")
    return validation


def _fitting(network: Network, theta: Array, x: Any, y: Any, sample_weight: Any = None) -> _Given:
    """Return rows beside theta, once they are seen to fit the network's inputs and outputs."""
    alone = require_owner(theta, "theta").detached
    x = x if isinstance(x, Blocks) else alone(network.check_inputs(theta, x)[0])
    outputs, loss = network.outputs_shape(theta, x), network.loss_function
    n_out = outputs[-1]
    if n_out < loss.least_outputs:
        raise ValueError(
            f"The network has {n_out} output, but {_name_of(loss)} needs {loss.least_outputs} or "
            "more, one for each class: use binary_cross_entropy with a single output."
        )
    labels = class_labels(theta, outputs, y) if loss.labels else None
    y = y if labels is None else labels
    y, weight = check_targets(theta, outputs, y, sample_weight, labels=loss.labels)
    rows = Rows(x, alone(y))
    if weight is not None:
        weight = alone(weight)
        rows = Rows(x, rows.y, weight, None, stand_ins(weight, theta.shape[:-1]))
    return rows, labels


@contextlib.contextmanager
def _in_validation() -> Iterator[None]:
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"In validation: {error}") from None


def _require_usable(loss: Loss, given: _Given, held_out: _Given | None) -> None:
    questions = [*_questions(loss, given, ""), *_questions(loss, held_out, "In validation: ")]
    flags = array_namespace(given[0].y).stack([flag for flag, _, _ in questions])
    for fine, (_, where, complaint) in zip(to_host(flags).tolist(), questions, strict=True):
        if not fine:
            raise ValueError(f"{where}{complaint()}")


def _questions(
    loss: Loss, given: _Given | None, where: str
) -> Iterator[tuple[Array, str, Callable[[], str]]]:
    """Yield flags, on the device, that should be true, and what to say where one is not."""
    if given is None:
        return
    rows, labels = given
    xp, weight = array_namespace(rows.y), rows.sample_weight
    x = None if isinstance(rows.x, Blocks) else rows.x
    named = {"x": x, "y": rows.y, "sample_weight": weight}
    for name, array in named.items():
        if array is not None:
            yield xp.all(xp.isfinite(array)), where, functools.partial(_not_finite, name, array)
    low, high = loss.targets
    if (low, high) != (-math.inf, math.inf):
        meant = xp.all(rows.y >= low - _SLACK) & xp.all(rows.y <= high + _SLACK)
        yield meant, where, functools.partial(_not_meant, rows.y, loss)
    if labels is not None:
        # A row of no class is made of zeros alone.
        n_out = rows.y.shape[-1]
        each = xp.all(xp.max(rows.y, axis=-1) == 1.0)
        yield each, where, functools.partial(_no_class, labels, n_out)
    if weight is not None:
        # A part of the sum, which may overflow itself.
        held = xp.sum(_PART * weight, axis=-1) < _PART * _most(weight)
        usable = xp.all(weight >= 0.0) & xp.all(xp.max(weight, axis=-1) > 0.0) & xp.all(held)
        yield usable, where, functools.partial(_unusable, weight, held)


def _not_finite(name: str, array: Array) -> str:
    host = to_host(array)
    wrong = ~array_namespace(host).isfinite(host)
    return f"{_wrong_values(name, host, wrong, 'not finite')} Drop such rows, or fill them in."


def _most(weight: Array) -> float:
    """Return the sum of weights over which their shares vanish: a compiler flushes its inverse."""
    return 1.0 / float(array_namespace(weight).finfo(weight.dtype).smallest_normal)


def _unusable(weight: Array, held: Array) -> str:
    if to_host(held).all():
        return "sample_weight must not be negative, and not all 0."
    return (
        f"sample_weight sums to {_most(weight):.2g} or more, too much for "
        f"{dtype_name(weight.dtype)}: each would count for nothing. Divide the weights by their "
        "largest."
    )


def _not_meant(y: Array, loss: Loss) -> str:
    host, (low, high) = to_host(y), loss.targets
    wrong = (host < low - _SLACK) | (host > high + _SLACK)
    found = _wrong_values("y", host, wrong, f"not in [{low:g}, {high:g}]")
    return (
        f"{found} To {_name_of(loss)} such targets mean nothing: encode them otherwise, or choose "
        "another loss."
    )


def _no_class(labels: Array, n_out: int) -> str:
    host = to_host(labels)
    found = _wrong_values("y", host, (host < 0) | (host >= n_out), f"not in 0 ... {n_out - 1}")
    return f"{found} The network has {n_out} outputs: class labels number them from 0."


def _wrong_values(name: str, host: Any, wrong: Any, fault: str) -> str:
    """Return how many values of an array on the host are wrong, and the first with its place."""
    places = wrong.reshape(-1).nonzero()[0].tolist()
    said = "value that is" if len(places) == 1 else "values that are"
    first = ", the first" if len(places) > 1 else ","
    place = unravel(places[0], host.shape)
    return f"{name} has {len(places)} {said} {fault}{first} {host[place]} at {name}{list(place)}."


def _name_of(loss: Loss) -> str:
    return next((name for name, known in LOSSES.items() if known == loss), "this loss")
