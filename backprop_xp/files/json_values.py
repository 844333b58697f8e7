"""Parameters and labels of estimators in files: values that JSON lacks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import owner, to_host

# NumPy gives each string the letters of the longest: an array has at most so many.
_LETTERS = 2**24


def to_json(value: Any) -> Any:
    """Return a parameter or an attribute in a form that JSON has."""
    if isinstance(value, np.random.RandomState):
        return None  # its draws are not part of a model
    if isinstance(value, dict):
        return {"pairs": [to_json(pair) for pair in value.items()]}
    if isinstance(value, list | tuple):
        return type(value)(map(to_json, value))
    if isinstance(value, np.generic) or owner(value) is not None:
        return to_host(value).tolist()
    return value


def from_json(value: Any) -> Any:
    """Return the value that ``to_json`` wrote; raise ValueError for an array."""
    if isinstance(value, dict):
        return {from_json(key): from_json(part) for key, part in value["pairs"]}
    if isinstance(value, list | tuple):
        return type(value)(map(from_json, value))
    if owner(value) is not None:
        raise ValueError("there is an array instead of a number.")
    return value


def written_labels(labels: np.ndarray) -> list[Any]:
    """Return labels as their dtype and a list."""
    return [labels.dtype.str, labels.tolist()]


def read_labels(written: Sequence[Any], name: str) -> np.ndarray:
    """Return the labels, ``(n,)``, that ``written_labels`` returned."""
    dtype, values = written
    kind = np.dtype(dtype).kind
    if kind not in "biufUO":
        raise ValueError(f"{name} has the dtype {dtype!r}, which labels do not have.")
    if kind == "U" and len(values) * max(map(len, values), default=0) > _LETTERS:
        raise ValueError(f"{name} would take more than {_LETTERS} letters, each like the longest.")
    labels = np.asarray(values, dtype="U" if kind == "U" else dtype)
    if labels.ndim != 1:
        raise ValueError(f"{name} has {labels.ndim} axes, not 1.")
    return labels
