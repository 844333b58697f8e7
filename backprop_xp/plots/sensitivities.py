"""Sensitivities: how much a prediction changes with each feature."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import owner, to_host
from backprop_xp.plots.canvas import GRAY_LINE, ArrayLike, Axes, colour, new_axes


def sensitivities(
    slopes: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    scales: ArrayLike | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the derivatives of predictions by each feature, the largest at the top.

    ``slopes`` is ``(rows, n_features)``, as ``model.input_gradient(X)`` returns it; a DataFrame
    also has the ``names``. A feature has a dot at its median, and a line from the 10 % to the 90 %
    quantile of the rows; NaN is left out. ``scales``, one for each feature, such as its standard
    deviation, multiply the slopes: all are then in the unit of the prediction. A Series of pandas,
    such as ``X.std()``, is read by the names of the features. Raises ValueError for shapes and
    names that do not fit.

    >>> from backprop_xp import plots
    >>> ax = plots.sensitivities([[1.0, -9.0], [2.0, 5.0]], ["age", "size"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['size', 'age']
    """
    known = _names_of(scales) if names is None else [*names]
    columns = [*getattr(slopes, "columns", known)]
    values = _on_host(slopes)
    if values.ndim != 2 or not values.size:
        raise ValueError(f"slopes has shape {values.shape}, but (rows, n_features) is expected.")
    n = values.shape[1]
    factors = np.ones(n) if scales is None else _on_host(_in_order(scales, columns))
    labels = [*map(str, columns if names is None else names)] or [f"x{i}" for i in range(n)]
    for name, given in (("names", len(labels)), ("scales", factors.size)):
        if given != n:
            raise ValueError(f"{name} has {given} entries, but slopes has {n} features.")
    values = values * factors.reshape(1, n)
    present = [column[np.isfinite(column)] for column in values.T]
    bands = [np.quantile(c, [0.1, 0.5, 0.9]) if c.size else np.full(3, np.nan) for c in present]
    sizes = [_size(column) if column.size else -1.0 for column in present]
    order = np.argsort(sizes, kind="stable")[::-1].tolist()
    ax = new_axes() if ax is None else ax
    ax.axvline(0.0, **GRAY_LINE)
    for position, i in enumerate(order):
        low, median, high = bands[i]
        ax.plot([low, high], [position, position], color=colour(0), linewidth=3.0, alpha=0.4)
        ax.plot(median, position, "o", color=colour(0))
    ax.set_yticks(range(n), [labels[i] for i in order])
    ax.set_ylim(n - 0.5, -0.5)
    ax.set_xlabel("slope" if scales is None else "slope times scale")
    return ax


def _names_of(scales: Any) -> list[Any]:
    """Return the names of a Series of pandas; none for its default index and for other values."""
    names = [*scales.index] if hasattr(scales, "reindex") else []
    return [] if names == [*range(len(names))] else names


def _in_order(scales: Any, columns: list[Any]) -> Any:
    """Return the scales of the columns, in their order, where the scales have names."""
    names = _names_of(scales)
    if not names:
        return scales
    missing = [column for column in columns if column not in names]
    if missing:
        raise ValueError(
            f"scales has no entry for {', '.join(map(repr, missing))}, only for "
            f"{', '.join(map(repr, names))}. Give an array for scales in the order of the features."
        )
    return scales.reindex(columns)


def _size(column: np.ndarray) -> float:
    """Return the root mean square of a column, without overflow or underflow of its squares."""
    largest = float(np.max(np.abs(column))) or 1.0
    return largest * float(np.sqrt(np.mean((column / largest) ** 2)))


def _on_host(values: ArrayLike) -> np.ndarray:
    return np.asarray(values if owner(values) is None else to_host(values), dtype=float)
