"""What a user gives the scikit-learn estimators, validated and put where they compute."""

import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils import check_array
from sklearn.utils.validation import validate_data

from backprop_xp.backends import Selection, asarray, dtype_name, gather, owner, resolve, to_host

# Bytes of a block: small beside the memory, large beside what a call of train costs.
BLOCK = 2**26


def dispatches() -> bool:
    """Say whether scikit-learn computes where X is: its array API dispatch is on."""
    return bool(get_config()["array_api_dispatch"])


def choice_for(model: Any, x: Any) -> Selection:
    """Return where to compute with an array of X's namespace, and in which dtype.

    With dispatch that is where X is. Without it the choice is an argument's, the context's or the
    environment's; float32 stays, and float64 becomes what the choice computes in.
    """
    if dispatches():
        return resolve(x, backend=model.backend, device=model.device)
    choice = resolve(backend=model.backend, device=model.device)
    if dtype_name(x.dtype) == "float32":
        return choice._replace(dtype=choice.backend.namespace().float32)
    return choice


def rows_of(model: Any, X: Any, *y: Any, reset: bool, **checks: Any) -> Any:
    """Return X, and y if it is given, as scikit-learn validates them; sparse rows made dense.

    A large table stays as it is: its rows are looked at when they are taken.
    """
    home, xp = owner(X), np
    if home is not None and home.name != "numpy":
        if dispatches():
            xp = home.namespace()
        else:
            _require_host(X)
    checks |= {"accept_sparse": ["csr", "csc"], "dtype": [xp.float64, xp.float32], "reset": reset}
    is_mapped = isinstance(X, np.memmap) and is_large(X)
    if is_mapped:
        checks |= {"dtype": None, "ensure_all_finite": False}
    found = validate_data(model, X, *y, **checks)
    x, *rest = found if y else (found,)
    if is_mapped:
        x = X
    elif hasattr(x, "toarray"):
        x = x.tocsr() if is_large(x) else x.toarray()
    return (x, *rest) if y else x


def is_large(x: Any) -> bool:
    """Say whether x is mapped from a file, or sparse, and larger than a block."""
    if not (isinstance(x, np.memmap) or hasattr(x, "toarray")):
        return False
    return _exceeds_a_block(x)


def goes_by_blocks(choice: Selection, x: Any) -> bool:
    """Say whether x, validated, is moved a block at a time.

    So is a large one, and one in NumPy's memory that exceeds a block, to a device with memory of
    its own.
    """
    if is_large(x) or not isinstance(x, np.ndarray):
        return is_large(x)
    return _exceeds_a_block(x) and choice.backend.memory(choice.device) is not None


def _exceeds_a_block(x: Any) -> bool:
    return bool(math.prod(x.shape) * _bytes_of_one(x) > BLOCK)


def _bytes_of_one(x: Any) -> int:
    """Return how large an entry is in the rows taken: of float32, or float64 made of any other."""
    return 4 if dtype_name(x.dtype) == "float32" else 8


def rows_at(x: Any, places: np.ndarray | slice) -> np.ndarray:
    """Return some rows of an array; of a large x, checked to be finite numbers.

    Those of a large x are read as they lie, a section of a block's bytes at a time: few rows of a
    file touch as many pages as all.
    """
    if not is_large(x):
        return x[places]  # type: ignore[no-any-return]
    places = np.arange(x.shape[0])[places]
    order = np.argsort(places)
    rows = np.empty((len(places), x.shape[1]), f"f{_bytes_of_one(x)}")
    sections = np.flatnonzero(np.diff(places[order] // rows_of_block(x))) + 1
    for near in np.split(order, sections):
        rows[near] = _section_at(x, places[near])
    return rows


def _section_at(x: Any, places: np.ndarray) -> Any:
    rows = x[places]
    rows = rows.toarray() if hasattr(rows, "toarray") else np.array(rows)
    mapped = getattr(x, "_mmap", None)
    # The pages were copied: without this they would stay in memory until another wants it. Pages
    # that are private ("c") may have been changed, and are nowhere else.
    if mapped is not None and x.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
    return check_array(rows, dtype=[np.float64, np.float32])


def rows_of_block(x: Any) -> int:
    """Return how many rows make a block."""
    return max(1, int(BLOCK // (x.shape[1] * _bytes_of_one(x))))


def _require_host(X: Any) -> None:
    """Raise TypeError for an array that NumPy cannot read, with the two ways to go on."""
    try:
        np.asarray(X)
    except (TypeError, RuntimeError, ValueError, BufferError) as error:
        name = owner(X).name  # type: ignore[union-attr]
        raise TypeError(
            f"X is {name}'s, on a device whose memory NumPy does not read. Either compute where X "
            "is, by sklearn.set_config(array_api_dispatch=True), or give NumPy's arrays, "
            f"bx.to_host(X), and choose where to compute by backend={name!r} or "
            f"BACKPROP_XP_BACKEND={name}."
        ) from error


def on_host(array: Any) -> Any:
    """Return an array of a known library as NumPy's, and what is none as it is."""
    return array if owner(array) is None else to_host(array)


def put(choice: Selection, array: Any) -> Any:
    """Return an array, or None, where the choice says and in its dtype."""
    if array is None:
        return None
    return asarray(array, backend=choice.backend, device=choice.device, dtype=choice.dtype)


def taken(choice: Selection, rows: Sequence[Any], places: np.ndarray | None) -> list[Any]:
    """Return X, targets and weights, or some rows of them, where the choice says."""
    return [put(choice, _some(choice, array, places)) for array in rows]


def _some(choice: Selection, array: Any, places: np.ndarray | None) -> Any:
    if is_large(array) or isinstance(array, np.ndarray):
        return rows_at(array, slice(None) if places is None else places)
    if array is None or places is None:
        return array
    return gather(
        array, choice.backend.from_host(places.astype(np.int32), device=choice.device), -2
    )
