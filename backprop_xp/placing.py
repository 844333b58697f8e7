"""What a user gives the scikit-learn estimators, validated and put where they compute."""

from typing import Any

import numpy as np
from sklearn import get_config
from sklearn.utils.validation import validate_data

from backprop_xp.backends import Selection, asarray, gather, owner, resolve, to_host


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
    if x.dtype == np.float32:
        return choice._replace(dtype=choice.backend.namespace().float32)
    return choice


def rows_of(model: Any, X: Any, *y: Any, reset: bool, **checks: Any) -> Any:
    """Return X, and y if it is given, as scikit-learn validates them; sparse rows made dense."""
    home, xp = owner(X), np
    if home is not None and home.name != "numpy":
        if dispatches():
            xp = home.namespace()
        else:
            _require_host(X)
    found = validate_data(
        model,
        X,
        *y,
        accept_sparse=["csr", "csc"],
        dtype=[xp.float64, xp.float32],
        reset=reset,
        **checks,
    )
    x, *rest = found if y else (found,)
    x = x.toarray() if hasattr(x, "toarray") else x
    return (x, *rest) if y else x


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


def taken(choice: Selection, array: Any, places: np.ndarray) -> Any:
    """Return some rows of what may be None, where it is."""
    if array is None:
        return None
    there = choice.backend.from_host(places.astype(np.int32), device=choice.device)
    return gather(array, there, -2 if len(array.shape) > 1 else -1)
