"""How good predictions are: a confusion matrix, residuals, and whether probabilities come true."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.checks import integer
from backprop_xp.plots.canvas import QUIET, colour, mark, new_axes
from backprop_xp.plots.labels import indicators_of, labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With more classes than this their numbers would run into one another.
_MOST_NUMBERS = 20
# And with more curves than this their bars.
_MOST_BARS = 3


def confusion_matrix(
    predictions: Any,
    targets: Any,
    *,
    classes: Sequence[Any] | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw how often each class is taken for which: a row for each true class.

    Both are labels, ``(batch,)``, or as for ``bx.metrics.accuracy``: ``(batch, n_out)``, whose
    class is the largest, of a single output whether it is above 0.5. ``classes`` names the classes
    in the order of the outputs, and labels 0, 1, ... too; by default labels name themselves. The
    colour is the share of the true class, the number in a cell a count. Raises ValueError for
    shapes that do not fit, for values that are not finite and for a label that is not in classes.

    >>> from backprop_xp import plots
    >>> ax = plots.confusion_matrix(["cat", "dog", "dog"], ["cat", "cat", "dog"])
    >>> ax.images[0].get_array().tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """
    names, counts = _counts(predictions, targets, classes)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    ax = new_axes() if ax is None else ax
    image = ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    ax.figure.colorbar(image, ax=ax, label="share of the true class")
    if len(names) <= _MOST_NUMBERS:
        size = max(4.0, min(10.0, 70.0 / len(names)))
        for row, column in np.ndindex(counts.shape):
            shade = "white" if shares[row, column] > 0.5 else "black"
            place: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "color": shade,
                "fontsize": size,
            }
            ax.text(column, row, str(counts[row, column]), **place)
    _name_classes(ax, names)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    return ax


def residuals(predictions: Any, targets: Any, *, ax: "Axes | None" = None) -> "Axes":
    """Draw target - prediction over the prediction: what a good model leaves has no shape.

    Both are ``(batch,)`` or ``(batch, n_out)``; several outputs have a colour each. The legend has
    each one's root mean square. Raises ValueError for shapes that differ, and for values that are
    not finite.

    >>> from backprop_xp import plots
    >>> ax = plots.residuals([1.0, 2.0], [1.5, 2.0])
    >>> ax.lines[0].get_ydata().tolist()
    [0.5, 0.0]
    """
    found, true = (_numbers(v, n) for v, n in ((predictions, "predictions"), (targets, "targets")))
    if found.shape != true.shape:
        raise ValueError(f"predictions have shape {found.shape}, but targets {true.shape}.")
    ax = new_axes() if ax is None else ax
    single = found.shape[1] == 1
    # Of thousands of points the crowded places shall show.
    alpha = max(0.1, min(0.8, 300 / len(found)))
    for i, (one, other) in enumerate(zip(found.T, true.T, strict=True)):
        rms = math.sqrt(np.mean((other - one) ** 2))
        label = f"{'' if single else f'output {i}, '}root mean square {rms:.3g}"
        style: dict[str, Any] = {"color": colour(i), "alpha": alpha, "markeredgewidth": 0}
        ax.plot(one, other - one, "o", markersize=4, label=label, **style)
    ax.axhline(0.0, **QUIET)
    ax.set_xlabel("prediction")
    ax.set_ylabel("residual: target - prediction")
    for handle in ax.legend(fontsize="small").legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)
    return ax


def calibration(
    probabilities: Any, targets: Any, *, bins: int = 10, ax: "Axes | None" = None
) -> "Axes":
    """Draw how often what is predicted comes true, over its probability: calibrated, on a diagonal.

    ``probabilities`` are those of the second of two classes, ``(batch,)`` or ``(batch, 1)``, or of
    each class, ``(batch, n)``. ``targets`` are labels, ``(batch,)``, sorted as the columns are, or
    0 and 1 for each class, ``(batch, n)``. Of two classes told by labels the second is drawn, else
    each. Each of the ``bins``, of equal width, that is not empty has a point at the means of its
    samples, and a bar, the 95 % interval of the share (Wilson, 1927), of three classes at most.
    Raises ValueError for shapes that do not fit, probabilities outside 0 to 1, and targets of one
    class alone.

    >>> from backprop_xp import plots
    >>> ax = plots.calibration([0.1, 0.3, 0.8, 0.8], [0, 0, 1, 0], bins=2)
    >>> [[round(float(v), 2) for v in axis] for axis in ax.lines[1].get_data()]
    [[0.2, 0.8], [0.0, 0.5]]
    """
    given = _numbers(probabilities, "probabilities")
    if given.min() < 0.0 or given.max() > 1.0:
        raise ValueError(
            f"probabilities go from {given.min():g} to {given.max():g}, but 0 to 1 is expected: "
            "network.predict makes them of raw outputs, predict_proba is an estimator's."
        )
    curves = indicators_of(given, to_host(targets))
    edges = np.arange(integer(bins, "bins") + 1) / bins
    ax = new_axes() if ax is None else ax
    ax.plot([0.0, 1.0], [0.0, 1.0], **QUIET)
    for i, (name, one, happened) in enumerate(curves):
        means, shares, bars = _reliability(one, happened, edges)
        ax.plot(means, shares, markersize=4, label=name, **mark(i))
        if len(curves) <= _MOST_BARS:
            style: dict[str, Any] = {"fmt": "none", "elinewidth": 0.8, "capsize": 2}
            ax.errorbar(means, shares, yerr=bars, ecolor=colour(i), **style)
    if len(curves) > 1:  # outside: the curves may be anywhere
        place: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        ax.legend(title="class", fontsize="small", frameon=False, **place)
    of_class = f" of class {curves[0][0]}" if len(curves) == 1 else ""
    ax.set_xlabel(f"predicted probability{of_class}")
    ax.set_ylabel("share that came true")
    ax.set_xlim(-0.03, 1.03)
    ax.set_ylim(-0.03, 1.03)
    return ax


def _counts(
    predictions: Any, targets: Any, classes: Sequence[Any] | None
) -> tuple[list[str], np.ndarray]:
    """Return the names of the classes, and how often each (true, predicted) pair is there."""
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
    places = {label: i for i, label in enumerate(known.tolist())}
    counts = np.zeros((len(known), len(known)), dtype=int)
    pairs = [[places[label] for label in labels.tolist()] for labels in (true, found)]
    np.add.at(counts, tuple(pairs), 1)
    return [str(label) for label in known], counts


def _name_classes(ax: "Axes", names: list[str]) -> None:
    """Name as many classes along the axes as there is room for."""
    ticks = range(0, len(names), math.ceil(len(names) / _MOST_NUMBERS))
    shown = [names[i] for i in ticks]
    slanted = len(shown) * max(map(len, shown)) > 24
    aside: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    size: dict[str, Any] = {"fontsize": "x-small" if len(shown) > 10 else "medium"}
    ax.set_xticks(ticks, shown, **size, **(aside if slanted else {}))
    ax.set_yticks(ticks, shown, **size)


def _numbers(values: Any, name: str) -> np.ndarray:
    """Return finite numbers, ``(batch, n_out)``, on the host."""
    host = to_host(values)
    if host.ndim not in (1, 2) or not host.size:
        raise ValueError(
            f"{name} have shape {host.shape}, but (batch,) or (batch, n_out) is expected."
        )
    if host.dtype.kind not in "fiub" or not np.isfinite(host).all():
        raise ValueError(f"{name} must be finite numbers; there is {_other_than_finite(host)}.")
    return host.reshape(len(host), -1).astype(float)


def _other_than_finite(host: np.ndarray) -> str:
    if host.dtype.kind not in "fiub":
        return repr(host.reshape(-1).tolist()[0])
    row = int(np.flatnonzero(~np.isfinite(host).reshape(len(host), -1).all(axis=1))[0])
    return f"{host[row]} in row {row}"


def _reliability(
    probabilities: np.ndarray, happened: np.ndarray, edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each bin's mean probability and share that came true, and its bar ``(2, bins)``.

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
