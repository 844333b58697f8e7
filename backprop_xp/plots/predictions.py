"""Pictures of predictions: a confusion matrix, residuals, and the calibration of probabilities."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.checks import integer
from backprop_xp.plots.canvas import GRAY_LINE, ArrayLike, Axes, colour, mark, new_axes
from backprop_xp.plots.labels import indicators_of, labels_of

# With more classes the numbers in the cells overlap; with more curves the bars overlap.
_MOST_NUMBERS, _MOST_BARS = 20, 3


def confusion_matrix(
    *,
    predictions: ArrayLike,
    targets: ArrayLike,
    classes: Sequence[Any] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a confusion matrix: counts of predicted classes, a row for each true class.

    Both are labels, ``(batch,)``, or outputs, ``(batch, n_out)``, as ``bx.metrics.accuracy`` takes
    them: the class is the largest output, or whether a single one is above 0.5. ``classes`` names
    the classes in the order of the outputs, and of labels 0, 1, ...; by default labels name
    themselves. The colour is the share of the true class, the number in a cell a count. Raises
    ValueError for shapes that do not fit, values that are missing or not finite, and labels not in
    classes.

    >>> from backprop_xp import plots
    >>> ax = plots.confusion_matrix(
    ...     predictions=["cat", "dog", "dog"], targets=["cat", "cat", "dog"]
    ... )
    >>> ax.images[0].get_array().tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    names, counts = _counts(predictions, targets, classes)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax = new_axes() if ax is None else ax
    image = ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    ax.figure.colorbar(image, ax=ax, label="share of the true class")
    if len(names) <= _MOST_NUMBERS:
        size = max(4.0, min(10.0, 70.0 / len(names)))
        for row, column in np.ndindex(counts.shape):
            shade = "white" if shares[row, column] > 0.5 else "black"
            number = str(counts[row, column])
            ax.text(column, row, number, ha="center", va="center", color=shade, fontsize=size)
    _name_classes(ax, names)
    ax.set(xlabel="predicted class", ylabel="true class")
    return ax


def _counts(
    predictions: ArrayLike, targets: ArrayLike, classes: Sequence[Any] | None
) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes, and the number of each (true, predicted) pair."""
    found = labels_of(predictions, "predictions", classes)
    true = labels_of(targets, "targets", classes)
    if len(found) != len(true):
        raise ValueError(f"predictions have {len(found)} rows, but targets {len(true)}.")
    if (found.dtype.kind in "US") != (true.dtype.kind in "US"):
        raise ValueError(
            f"predictions hold {found.tolist()[0]!r} and targets {true.tolist()[0]!r}: name the "
            'classes in the order of the outputs, classes=["cat", "dog"].'
        )
    known = np.unique(np.concatenate([found, true])) if classes is None else np.asarray(classes)
    positions = {label: i for i, label in enumerate(known.tolist())}
    counts = np.zeros((len(known), len(known)), dtype=int)
    pairs = [[positions[label] for label in labels.tolist()] for labels in (true, found)]
    np.add.at(counts, tuple(pairs), 1)
    return [str(label) for label in known], counts


def _name_classes(ax: "Axes", names: list[str]) -> None:
    """Name as many classes along the axes as there is room for."""
    ticks = range(0, len(names), math.ceil(len(names) / _MOST_NUMBERS))
    labels = [names[i] for i in ticks]
    size = "x-small" if len(labels) > 10 else "medium"
    ax.set_yticks(ticks, labels, fontsize=size)
    if len(labels) * max(map(len, labels)) > 24:
        ax.set_xticks(ticks, labels, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(ticks, labels, fontsize=size)


def residuals(*, predictions: ArrayLike, targets: ArrayLike, ax: "Axes | None" = None) -> "Axes":
    """Draw target - prediction over the prediction: a good model's residuals have no pattern.

    Both are ``(batch,)`` or ``(batch, n_out)``; several outputs have a colour each. The legend has
    each one's root mean square. Raises ValueError for shapes that differ, and for values that are
    not finite.

    >>> from backprop_xp import plots
    >>> ax = plots.residuals(predictions=[1.0, 2.0], targets=[1.5, 2.0])
    >>> ax.lines[0].get_ydata().tolist()
    [0.5, 0.0]
    """
    found, true = _numbers(predictions, "predictions"), _numbers(targets, "targets")
    if found.shape != true.shape:
        raise ValueError(f"predictions have shape {found.shape}, but targets {true.shape}.")
    ax = new_axes() if ax is None else ax
    # Among thousands of points only faint ones show where they are dense.
    alpha = max(0.1, min(0.8, 300 / len(found)))
    for i, (predicted, difference) in enumerate(zip(found.T, (true - found).T, strict=True)):
        output = f"output {i}, " if found.shape[1] > 1 else ""
        label = f"{output}root mean square {math.sqrt(np.mean(difference**2)):.3g}"
        points = ax.plot(predicted, difference, "o", markersize=4, label=label, color=colour(i))
        points[0].set(alpha=alpha, markeredgewidth=0)
    ax.axhline(0.0, **GRAY_LINE)
    ax.set(xlabel="prediction", ylabel="residual: target - prediction")
    for handle in ax.legend(fontsize="small").legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return ax


def _numbers(values: ArrayLike, name: str) -> np.ndarray:
    """Return finite numbers, ``(batch, n_out)``, on the host."""
    host = to_host(values)
    if host.ndim not in (1, 2) or not host.size:
        raise ValueError(
            f"{name} have shape {host.shape}, but (batch,) or (batch, n_out) is expected."
        )
    table = host.reshape(len(host), -1)
    is_finite = np.isfinite(table).all(axis=1) if host.dtype.kind in "fiub" else np.zeros(1)
    if not is_finite.all():
        row = int(is_finite.argmin())
        found = host[row].tolist()
        raise ValueError(f"{name} must be finite numbers, but row {row} has {found!r}.")
    return table.astype(float)


def calibration(
    *, probabilities: ArrayLike, targets: ArrayLike, bins: int = 10, ax: "Axes | None" = None
) -> "Axes":
    """Draw observed frequencies over predicted probabilities: calibrated ones on a diagonal.

    ``probabilities`` are those of the second of two classes, ``(batch,)`` or ``(batch, 1)``, or of
    each class, ``(batch, n)``. ``targets`` are labels, ``(batch,)``, sorted as the columns are, or
    0 and 1 for each class, ``(batch, n)``. With labels of two classes the second is drawn, else
    each class. The ``bins`` have equal width. One that is not empty has a point at the means of its
    samples and, with at most three classes, a bar: the 95 % interval of the share (Wilson, 1927).
    Raises ValueError for shapes that do not fit, probabilities outside 0 to 1, and targets of one
    class alone.

    >>> from backprop_xp import plots
    >>> ax = plots.calibration(probabilities=[0.1, 0.3, 0.8, 0.8], targets=[0, 0, 1, 0], bins=2)
    >>> [[round(float(v), 2) for v in axis] for axis in ax.lines[1].get_data()]
    [[0.2, 0.8], [0.0, 0.5]]
    """
    values = _numbers(probabilities, "probabilities")
    if values.min() < 0.0 or values.max() > 1.0:
        raise ValueError(
            f"probabilities go from {values.min():g} to {values.max():g}, but 0 to 1 is expected: "
            "network.predict makes them of raw outputs, predict_proba is an estimator's."
        )
    classes = indicators_of(values, targets)
    edges = np.arange(integer(bins, "bins") + 1) / bins
    ax = new_axes() if ax is None else ax
    ax.plot([0.0, 1.0], [0.0, 1.0], **GRAY_LINE)
    for i, (name, predicted, happened) in enumerate(classes):
        means, shares, bars = _reliability(predicted, happened, edges)
        color, marker = mark(i)
        ax.plot(means, shares, markersize=4, label=name, color=color, marker=marker)
        if len(classes) <= _MOST_BARS:
            ax.errorbar(means, shares, bars, fmt="none", ecolor=color, elinewidth=0.8, capsize=2)
    if len(classes) > 1:  # outside: the curves may be anywhere
        legend = ax.legend(title="class", fontsize="small", frameon=False, loc="center left")
        legend.set_bbox_to_anchor((1.0, 0.5))
    of_class = f" of class {classes[0][0]}" if len(classes) == 1 else ""
    ax.set(xlabel=f"predicted probability{of_class}", ylabel="share that came true")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    return ax


def _reliability(
    probabilities: np.ndarray, happened: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each bin's mean probability, the share that came true, and its bar ``(2, bins)``.

    The bar is how far the interval reaches below the share and above. Empty bins are left out.
    """
    bins = np.clip(np.searchsorted(edges, probabilities, side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(bins, minlength=len(edges) - 1)
    some = counts > 0
    n = counts[some]
    means, shares = (
        np.bincount(bins, values, minlength=len(counts))[some] / n
        for values in (probabilities, happened)
    )
    z = 1.96
    middle = (shares + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(shares * (1 - shares) / n + z**2 / (4 * n**2))
    # Rounding may put a share of 0 or 1 outside its interval.
    bars = np.maximum([shares - (middle - half), middle + half - shares], 0.0)
    return means, shares, bars
