"""Samples from the user, validated and moved to the device of the estimators.

A *block* is a number of rows that together have ``BLOCK`` bytes. A table is *large* if it is sparse
or mapped from a file, and has more than one block. Its rows are read when they are needed.
"""

import math
import mmap
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn import get_config
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from backprop_xp import backends
from backprop_xp.backends import Array, Selection, dtype_name, owner, resolve, to_host
from backprop_xp.estimators.bases import BaseEstimator
from backprop_xp.estimators.parameters import Parameters
from backprop_xp.estimators.targets import refuse_dates

# What scikit-learn accepts: lists, DataFrames and arrays of any library; X and y may be sparse.
ArrayLike: TypeAlias = npt.ArrayLike | Array
MatrixLike: TypeAlias = npt.ArrayLike | Array

# Bytes of a block: small compared with the memory, large compared with the cost of a call of fit.
BLOCK = 2**26


class Samples(NamedTuple):
    """X, y and the samples' weights: from the user, validated, or moved to a device.

    Validated targets are columns, ``(batch, n_outputs)``. Weights are None where all are equal.
    """

    x: Array
    y: Array
    sample_weight: Array | None


def dispatches() -> bool:
    """Whether scikit-learn's array API dispatch is on: it computes where X is."""
    return bool(get_config()["array_api_dispatch"])


def choice_for(parameters: Parameters, x: Array) -> Selection:
    """Return the backend, device and dtype for an array of X's namespace.

    With dispatch they are those of X. Without it the arguments, the context or the environment
    choose. float32 is kept; float64 becomes the default dtype of that choice.
    """
    arrays = [x] if dispatches() else []
    choice = resolve(*arrays, backend=parameters.backend, device=parameters.device)
    if not arrays and dtype_name(x.dtype) == "float32":
        return choice._replace(dtype=choice.backend.namespace().float32)
    return choice


def validate(
    model: BaseEstimator, X: MatrixLike, *y: ArrayLike, reset: bool, **checks: object
) -> Any:
    """Return X, and y if it is there, as scikit-learn validates them; sparse rows become dense.

    A large table is returned as it is. Its values are checked when its rows are read.
    """
    backends.refuse_distributed(X, "X")
    backends.refuse_masked(X, "X")
    if checks.get("y_numeric"):  # scikit-learn converts objects, with an error of Python's
        refuse_dates(y[0])
    home, xp = owner(X), np
    if home is not None and home.name != "numpy":
        if dispatches():
            xp = home.namespace()
        else:
            _require_host(X, home.name)
    checks |= {"accept_sparse": ["csr", "csc"], "dtype": [xp.float64, xp.float32], "reset": reset}
    is_mapped = isinstance(X, np.memmap) and is_large(X)
    if is_mapped:
        checks |= {"dtype": None, "ensure_all_finite": False}
    found = validate_data(model, X, *y, **checks)
    x, *targets = found if y else (found,)
    if is_mapped:
        x = X
    elif hasattr(x, "toarray"):
        x = x.tocsr() if is_large(x) else x.toarray()
    return (x, *targets) if y else x


def _require_host(X: Array, name: str) -> None:
    """Raise TypeError for an array that NumPy cannot read, with the two ways out."""
    try:
        np.asarray(X)
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        raise TypeError(
            f"X is an array of {name} on a device whose memory NumPy cannot read. Either compute "
            "where X is, by sklearn.set_config(array_api_dispatch=True), or pass NumPy's arrays, "
            f"bx.to_host(X), and choose where to compute by backend={name!r} or "
            f"BACKPROP_XP_BACKEND={name}."
        ) from error


def is_large(x: Any) -> bool:
    """Whether x is sparse or mapped from a file, and has more than one block."""
    return (isinstance(x, np.memmap) or hasattr(x, "toarray")) and _bytes(x) > BLOCK


def moves_by_blocks(choice: Selection, x: Any) -> bool:
    """Whether a validated x is moved a block at a time: a large one.

    So is an array of NumPy with more than one block that goes to a device with its own memory.
    """
    if is_large(x) or not isinstance(x, np.ndarray):
        return is_large(x)
    return _bytes(x) > BLOCK and choice.backend.memory(choice.device) is not None


def _bytes(x: Any) -> int:
    """Return the bytes of all rows once they are read: float32 stays, others become float64."""
    return int(math.prod(x.shape)) * (4 if dtype_name(x.dtype) == "float32" else 8)


def rows_of_block(x: Any) -> int:
    """Return the number of rows in a block of x."""
    return max(1, BLOCK * int(x.shape[0]) // _bytes(x))


def rows_at(x: Any, indices: np.ndarray | slice) -> np.ndarray:
    """Return some rows of an array; rows of a large x are checked to be finite numbers.

    A large x is read in its own order, one section of a block's bytes after another, because few
    rows of a file touch as many pages as all of them.
    """
    if not is_large(x):
        return x[indices]  # type: ignore[no-any-return]
    if isinstance(indices, slice) and len(range(x.shape[0])[indices]) <= rows_of_block(x):
        return _read(x, indices)
    indices = np.arange(x.shape[0])[indices]
    order = np.argsort(indices)
    rows = np.empty((len(indices), x.shape[1]), "f4" if dtype_name(x.dtype) == "float32" else "f8")
    sections = np.flatnonzero(np.diff(indices[order] // rows_of_block(x))) + 1
    for section in np.split(order, sections):
        rows[section] = _read(x, indices[section])
    return rows


def _read(x: Any, indices: np.ndarray | slice) -> np.ndarray:
    """Return a copy of some rows of a large x, checked to be finite numbers."""
    part = x[indices]
    part = part.toarray("C") if hasattr(part, "toarray") else np.array(part, order="C")
    # The rows are copied, so their pages need not stay in memory. Private pages ("c") stay: they
    # may have been changed, and no file has the changes.
    pages = getattr(x, "_mmap", None)
    if pages is not None and x.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
    rows: np.ndarray = check_array(part, dtype=[np.float64, np.float32])
    return rows


def counted(samples: Samples) -> np.ndarray | None:
    """Return the indices of the validated rows whose weight is not 0, None for all rows."""
    weight = samples.sample_weight
    if weight is None:
        return None
    counts = weight != 0.0 if weight.ndim == 1 else (weight != 0.0).any(axis=-1)
    if not counts.any():
        raise ValueError("the weights of all rows are 0, with those of their classes.")
    return None if counts.all() else np.flatnonzero(counts)


def on_host(values: Any) -> Any:
    """Return an array of a known library as a NumPy array, and anything else unchanged."""
    return values if owner(values) is None else to_host(values)


def put(choice: Selection, array: Array) -> Array:
    """Return an array on the chosen device and in the chosen dtype."""
    return backends.chosen_array(array, choice)


def rows_of(choice: Selection, samples: Samples, indices: np.ndarray | None) -> Samples:
    """Return the rows of validated samples at some indices, None for all; a large x is read."""

    def rows(array: Any) -> Any:
        if is_large(array) or isinstance(array, np.ndarray):
            return rows_at(array, slice(None) if indices is None else indices)
        if array is None or indices is None:
            return array
        at = choice.backend.from_host(indices.astype(np.int32), device=choice.device)
        return backends.gather(array, at, -2)

    return Samples(*map(rows, samples))


def on_device(choice: Selection, samples: Samples) -> Samples:
    """Return samples on the chosen device; what is no array stays as it is."""
    return Samples(*(put(choice, a) if owner(a) is not None else a for a in samples))
