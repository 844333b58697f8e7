"""The data of a training: its rows, checked, the validation set, and the size of a batch."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, gather, require_owner, to_host
from backprop_xp.checks import real
from backprop_xp.networks.chain.batch_rows import Rows, entries_at, gathered, rows_at, selected
from backprop_xp.networks.losses.loss import Loss
from backprop_xp.networks.losses.targets import are_labels
from backprop_xp.networks.network import Network
from backprop_xp.training.interfaces.options import Options, are_indices
from backprop_xp.training.interfaces.orders import Seed
from backprop_xp.training.interfaces.process_protocol import Processes, Source
from backprop_xp.training.measures.class_weights import (
    ClassWeight,
    check_classes,
    has_classes,
    weights_by_class,
    weights_by_label,
    weights_of_labels,
    weights_of_rows,
)
from backprop_xp.training.rows.data_checks import compiled_once, items_of, with_columns
from backprop_xp.training.rows.preprocessing import other_rows, split_rows


class TrainingData(NamedTuple):
    """The data of a training, on theta's device.

    ``rows`` and ``source``, which gives the rows of each batch, may both be set; one of them is.
    ``size`` is the number of rows in a batch, ``batches`` that of batches in an epoch: 0 and None
    if a source alone knows.
    """

    rows: Rows | None
    validation: Rows | None
    source: Source | None
    size: int
    batches: int | None


def data_of(
    network: Network, theta: Array, x: Any, y: Any, options: Options, processes: Processes
) -> TrainingData:
    """Return the data of a training, checked."""
    processes.check_options(theta, y, options)
    training = None if y is None else (x, y, options.sample_weight)
    rows, validation = check_data(network, theta, training, options, processes)
    size, batches = 0, None
    if rows is not None:
        size, batches = batches_of(options, processes.place(rows)[1])
        if batches == 1:  # a full batch is taken once
            rows = gathered(rows)
            rows = with_columns(network, theta, rows) if options.accumulate == 1 else rows
    source = processes.source(network, theta, x, rows, size, options)
    return TrainingData(rows, validation, source, size, batches)


def batches_of(options: Options, count: int) -> tuple[int, int]:
    """Return the number of rows in a batch, and of batches in an epoch of ``count`` rows."""
    size = min((options.batch_size or count) * options.accumulate, count)
    return size, math.ceil(count / size)


def check_data(
    network: Network,
    theta: Array,
    training: Sequence[Any] | None,
    options: Options,
    processes: Processes,
) -> tuple[Rows | None, Rows | None]:
    """Return the training set and the validation set on theta's device, each None if it is.

    ``training`` is ``(x, y, sample_weight)``. Both sets have the weights of the classes, by those
    of the training set if they are balanced. A share of the rows that becomes the validation set is
    drawn by one transfer of the class labels. If networks have their own validation rows, both sets
    share x. Raises TypeError or ValueError for data that does not fit, is not finite, or has
    targets outside the loss's range, and for a set whose weights are all 0. All values are checked
    on the device, with one transfer of the answers, and another one for the weights of drawn rows
    and of classes. A table that is streamed in blocks is checked where it is read.
    """
    if not network.check_theta(theta).isdtype(theta.dtype, "real floating"):
        raise TypeError(f"theta is {theta.dtype}, but only real networks are trained.")
    if training is not None and callable(training[0]):
        raise TypeError("x is a function, which gives batches (x, y): omit y.")
    share: Any = options.validation
    sets = {} if training is None else {"": training}
    if not (share is None or isinstance(share, Real) or are_indices(share)):
        sets["In validation: "] = items_of(
            *(share, "validation"),
            "(x, y), (x, y, sample_weight), a share of the rows or an array of row indices",
        )
    found = iter(processes.check_sets(network, theta, sets))
    rows = None if training is None else next(found)
    validation, loss = next(found, None), network.loss_function
    if rows is not None and isinstance(share, Real):
        rows, validation = _split(theta, rows, loss, share, options.seed, processes)
    elif rows is not None and are_indices(share):
        rows, validation = _held_out(theta, rows, share)
    if rows is not None and options.class_weight is not None:
        by_class = _weights_of_classes(network, theta, rows, options.class_weight, processes)
        rows = _by_class(theta, rows, by_class)
        validation = None if validation is None else _by_class(theta, validation, by_class)
    if isinstance(share, Real) or are_indices(share) or options.class_weight is not None:
        _require_weights({"training": rows, "validation": validation}, processes)
    return rows, validation


def _split(
    theta: Array, rows: Rows, loss: Loss, share: Any, seed: Seed, processes: Processes
) -> tuple[Rows, Rows]:
    """Return the training rows, and a share of the rows, drawn by the seed, for validation."""
    if not isinstance(seed, int):
        raise ValueError(
            "validation is a share, drawn once for all networks, but seed has one for each: split "
            "the rows first, x, x_validation, y, y_validation = bx.data.split(x, y)."
        )
    y, classes, home = rows.y, None, require_owner(theta, "theta")
    if has_classes(loss, y.shape[-1]) and len(y.shape) == 2:
        if y.shape[-1] > 1:
            classes = array_namespace(y).argmax(y, axis=-1)
        else:
            classes = y[:, 0] if are_labels(y) else y[:, 0] > 0.5
        classes = to_host(classes)
        classes = processes.all_rows(classes, -1, classes)
    shares = {"validation": real(share, "validation", above=0.0, below=1.0)}
    parts, (first, count), own = [], processes.place(rows), rows.x.shape[-2]
    for indices in split_rows(count, shares, seed, classes=classes).values():
        indices = indices[(indices >= first) & (indices < first + own)] - first
        at = home.from_host(indices.astype("int32"), device=device_of(theta))
        parts.append(compiled_once(theta, _rows_at)(rows, at))
    return parts[0], parts[1]


def _require_weights(sets: Mapping[str, Rows | None], processes: Processes) -> None:
    """Raise ValueError if the rows of a set all have the weight 0, those of one network too."""
    weights = {name: rows.sample_weight for name, rows in sets.items() if rows is not None}
    given = {name: weight for name, weight in weights.items() if weight is not None}
    if not given:
        return
    xp = array_namespace(next(iter(given.values())))
    totals = [processes.sum(xp.sum(weight, axis=-1)) for weight in given.values()]
    flags = to_host(xp.stack([xp.all(total > 0.0) for total in totals])).tolist()
    for name, holds in zip(given, flags, strict=True):
        if not holds:
            raise ValueError(
                f"The {name} rows all have the weight 0, by sample_weight or class_weight: choose "
                "other validation rows, for example by another seed, or other weights."
            )


def _held_out(theta: Array, rows: Rows, given: Array) -> tuple[Rows, Rows]:
    """Return the training rows, and those at the given indices, which are not trained on."""
    home, device = require_owner(theta, "theta"), device_of(theta)
    at = to_host(given)
    learnt = other_rows(at, rows.y.shape[-2], tuple(theta.shape[:-1]))
    parts = (home.from_host(part.astype("int32"), device=device) for part in (learnt, at))
    training, validation = (_own_rows(rows, part) for part in parts)
    return training, validation


def _own_rows(rows: Rows, at: Array) -> Rows:
    """Return the rows at indices; those of networks that have their own are not copied."""
    if len(at.shape) == 1:
        return _rows_at(rows, at)
    weight = rows.sample_weight
    weight = None if weight is None else entries_at(weight, at)
    return rows._replace(y=rows_at(rows.y, at), sample_weight=weight, at=at)


def _rows_at(rows: Rows, at: Array) -> Rows:
    """Return the rows at indices, with their weights."""
    weight = rows.sample_weight
    return selected(rows, at, None if weight is None else gather(weight, at, -1), None)


def _weights_of_classes(
    network: Network, theta: Array, rows: Rows, class_weight: ClassWeight, processes: Processes
) -> Array:
    """Return the weight of each class, by all processes' rows if they are balanced."""
    n_out = network.outputs_shape(theta, rows.x)[-1]
    check_classes(network.loss_function, n_out)
    weight, total = rows.sample_weight, processes.sum
    if are_labels(rows.y):
        return weights_by_label(theta, class_weight, rows.y, weight, n_out, total=total)
    return weights_by_class(class_weight, rows.y, weight, total=total)


def _by_class(theta: Array, rows: Rows, by_class: Array) -> Rows:
    weights = weights_of_labels if are_labels(rows.y) else weights_of_rows
    return rows._replace(sample_weight=weights(by_class, rows.y, rows.sample_weight))
