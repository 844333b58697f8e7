"""Conversion of labels, outputs and targets to labels on the host, for the pictures."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.plots.canvas import ArrayLike


def labels_of(values: ArrayLike, name: str, classes: Sequence[Any] | None) -> np.ndarray:
    """Return labels ``(batch,)`` on the host; outputs become the index of the largest one.

    With ``classes`` each label is one of them, or a position in them; others are a ValueError.
    """
    host = _on_host(values)
    if host.ndim == 2 and host.size:
        return _of_outputs(host, name, classes)
    if host.ndim != 1 or not host.size:
        raise ValueError(
            f"{name} have shape {host.shape}, but labels (batch,) or outputs (batch, n_out) are "
            "expected."
        )
    labels = _plain(host, name)
    if labels.dtype.kind == "f" and (labels != np.round(labels)).any():
        raise ValueError(
            f"{name} hold {labels[labels != np.round(labels)][0]:g}, which is not a label: give "
            "probabilities as (batch, n_out), such as network.predict(theta, x)."
        )
    labels = labels.astype(int) if labels.dtype.kind in "fb" else labels
    if classes is None:
        return labels
    known = list(classes)
    are_positions = labels.dtype.kind in "iu" and not set(labels.tolist()) <= set(known)
    if are_positions and labels.min() >= 0 and labels.max() < len(known):
        labels = np.asarray(known)[labels]
    for label in labels.tolist():
        if label not in known:
            raise ValueError(f"{name} hold {label!r}, but the classes are {known}.")
    return labels


def _on_host(values: ArrayLike) -> np.ndarray:
    host = to_host(values)
    # NumPy makes the string "nan" of a NaN in a list of strings.
    return np.asarray(values, dtype=object) if host.dtype.kind in "US" else host


def _plain(labels: np.ndarray, name: str) -> np.ndarray:
    """Return labels ``(batch,)`` as numbers, booleans, dates or strings.

    Raises ValueError for one that is missing, infinite, or beyond float64's integers.
    """
    if labels.dtype.kind == "O":
        is_label = np.asarray([_is_label(label) for label in labels.tolist()])
    elif labels.dtype.kind == "f":
        is_label = abs(labels.astype(float)) < 2.0**53
    else:
        is_label = labels == labels  # NaT is not
    if not is_label.all():
        row = int(is_label.argmin())
        raise ValueError(
            f"{name} hold {labels[row]} (row {row}), which is not a label: leave such rows out."
        )
    if labels.dtype.kind != "O":
        return labels
    found = np.asarray(labels.tolist())
    return found.astype(str) if found.dtype.kind == "O" else found


def _is_label(value: Any) -> bool:
    """Whether an object is a label: None, NaN, infinity, NaT and pandas' NA are not."""
    is_itself = value == value  # False for NaN and NaT, NA for NA
    is_known = value is not None and isinstance(is_itself, bool | np.bool_) and bool(is_itself)
    return is_known and not (isinstance(value, float) and math.isinf(value))


def _of_outputs(outputs: np.ndarray, name: str, classes: Sequence[Any] | None) -> np.ndarray:
    if outputs.dtype.kind not in "fiub" or not np.isfinite(outputs).all():
        raise ValueError(f"{name} of shape {outputs.shape} must be finite numbers.")
    is_single = outputs.shape[1] == 1
    positions = (outputs[:, 0] > 0.5).astype(int) if is_single else outputs.argmax(axis=1)
    if classes is None:
        return positions
    count = 2 if is_single else outputs.shape[1]
    if len(classes) != count:
        raise ValueError(f"classes names {len(classes)} classes, but {name} have {count}.")
    names: np.ndarray = np.asarray(classes)[positions]
    return names


def indicators_of(
    probabilities: np.ndarray, given: ArrayLike
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Return each class's name, its probabilities, and whether it is true, ``(batch,)`` each.

    ``probabilities`` are ``(batch, n)``, ``given`` the targets. With labels of two classes only the
    second is returned.
    """
    (rows, columns), targets = probabilities.shape, _on_host(given)
    if targets.shape not in ((rows,), (rows, 1), (rows, columns)):
        raise ValueError(
            f"targets have shape {targets.shape}, but labels ({rows},) or {probabilities.shape} "
            "are expected."
        )
    if targets.shape == (rows, columns) and columns > 1:
        if targets.dtype.kind not in "fiub" or not np.isfinite(targets).all():
            raise ValueError(f"targets of shape {targets.shape} must be finite numbers.")
        names, happened = list(range(columns)), targets > 0.5
    else:
        labels = _plain(targets.reshape(-1), "targets")
        names = _names(labels, columns)
        happened = labels[:, None] == np.asarray(names)
        if len(names) == 2:
            names, happened, probabilities = names[1:], happened[:, 1:], probabilities[:, -1:]
    return [
        (str(name), probabilities[:, i], happened[:, i].astype(float))
        for i, name in enumerate(names)
    ]


def _names(labels: np.ndarray, columns: int) -> list[Any]:
    """Return the label of each column of probabilities; of a single column, both labels."""
    count, known = max(2, columns), list(np.unique(labels).tolist())
    if len(known) == count:
        return known
    if len(known) == 1 and count == 2:
        raise ValueError(f"targets hold only {known[0]!r}: samples of both classes are needed.")
    if labels.dtype.kind in "iu" and known[0] >= 0 and known[-1] < count:
        return list(range(count))
    raise ValueError(
        f"targets hold {len(known)} labels, but probabilities have {count} classes: give targets "
        "as 0 and 1, a column for each class."
    )
