"""What a model of two features predicts over the plane."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backprop_xp.backends import Array, beside, owner, to_host
from backprop_xp.checks import integer, real
from backprop_xp.networks.losses import LOSSES
from backprop_xp.networks.network import Network
from backprop_xp.plots.canvas import PALETTE, new_axes
from backprop_xp.plots.labels import labels_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Extent = tuple[float, float, float, float]


class _Meant(NamedTuple):
    """What is drawn: ``values (points,)`` over the plane, ``targets (batch,)`` of the samples.

    Both are positions in ``classes``; without classes they are numbers, of the kind ``label``.
    """

    values: np.ndarray
    targets: np.ndarray
    classes: Sequence[Any] = ()
    label: str = ""


def decision_surface(
    model: Any,
    x: Any,
    y: Any,
    *,
    theta: Array | None = None,
    margin: float = 0.25,
    resolution: int = 200,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw what a model of two features predicts over the plane, and the samples on it.

    ``model`` is a ``bx.Network``, with its ``theta``, ``(P,)``, or a fitted estimator: a classifier
    with ``predict_proba``, a regressor, or a pipeline that ends in one. ``x`` is ``(batch, 2)``,
    ``y`` ``(batch,)`` or ``(batch, n_out)``. A value, or the probability of the second of two
    classes, is a shade, with a line halfway between the targets where these are two numbers; of
    more classes it is the likeliest that is drawn. The picture reaches beyond the samples by
    ``margin`` times each feature's range, with ``resolution`` points along either axis. Raises
    ValueError for other shapes and a theta that is not one network's, TypeError for another model.
    """
    samples, targets = to_host(x), to_host(y)
    _check_samples(samples, targets)
    extent = _extent(samples, real(margin, "margin", low=0.0))
    count = integer(resolution, "resolution", at_least=2)
    points = _points(extent, count)
    if isinstance(model, Network):
        meant = _of_network(model, theta, points, targets)
    else:
        meant = _of_estimator(model, theta, x, points, targets)
    ax = new_axes() if ax is None else ax
    draw = _draw_classes if len(meant.classes) else _draw_values
    draw(ax, meant._replace(values=meant.values.reshape(count, count)), samples, extent)
    names = [str(name) for name in getattr(x, "columns", ("$x_1$", "$x_2$"))]
    ax.set_xlabel(names[0])
    ax.set_ylabel(names[1])
    return ax


def _check_samples(samples: np.ndarray, targets: np.ndarray) -> None:
    if samples.ndim != 2 or samples.shape[1] != 2 or not len(samples):
        raise ValueError(
            f"x has shape {samples.shape}, but a plane has two features: (batch, 2) is expected."
        )
    rows = len(samples)
    if targets.ndim not in (1, 2) or not targets.size or len(targets) != rows:
        raise ValueError(
            f"y has shape {targets.shape}, but ({rows},) or ({rows}, n_out) is expected."
        )


def _extent(samples: np.ndarray, margin: float) -> Extent:
    """Return the picture's edges: left, right, bottom, top."""
    low, high = samples.min(axis=0).astype(float), samples.max(axis=0).astype(float)
    span = np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin * span, high + margin * span
    return left, right, bottom, top


def _points(extent: Extent, count: int) -> np.ndarray:
    """Return the points of the plane, ``(count * count, 2)``, rows from the bottom up."""
    left, right, bottom, top = extent
    across, up = np.linspace(left, right, count), np.linspace(bottom, top, count)
    return np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)


def _of_network(
    network: Network, theta: Array | None, points: np.ndarray, targets: np.ndarray
) -> _Meant:
    if theta is None or len(theta.shape) != 1:
        came = "None" if theta is None else f"of shape {tuple(theta.shape)}"
        raise ValueError(
            f"theta is {came}, but a network is drawn by one theta, of shape ({network.size},): "
            "theta=result.theta, of a stack theta=result.theta[i]."
        )
    outputs = to_host(network.predict(theta, beside(theta, points, theta.dtype)))
    n_out = outputs.shape[1]
    if targets.shape[1:] not in ((), (1,), (n_out,)):
        raise ValueError(f"y has {targets.shape[1]} columns, but the network {n_out} outputs.")
    if n_out == 1:
        is_probability = network.loss_function == LOSSES["binary_cross_entropy"]
        label = "probability of 1" if is_probability else "prediction"
        return _Meant(outputs[:, 0], targets.reshape(-1), label=label)
    classes = range(n_out)
    labels = targets if targets.shape[1:] == (n_out,) else targets.reshape(-1)
    return _Meant(outputs.argmax(axis=1), labels_of(labels, "y", classes), classes)


def _of_estimator(
    model: Any, theta: Array | None, x: Any, points: np.ndarray, targets: np.ndarray
) -> _Meant:
    if theta is not None or not hasattr(model, "predict"):
        raise TypeError(
            "model must be a bx.Network with theta=, or a fitted estimator without it, not "
            f"{type(model).__name__}."
        )
    if targets.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"y has shape {targets.shape}, but of an estimator one target is drawn: (batch,)."
        )
    targets = targets.reshape(-1)
    rows = _like(x, points)
    if not hasattr(model, "predict_proba"):
        return _Meant(to_host(model.predict(rows)).reshape(-1), targets, label="prediction")
    classes = np.asarray(model.classes_)
    positions = np.searchsorted(classes, labels_of(targets, "y", classes.tolist()))
    probabilities = to_host(model.predict_proba(rows))
    if len(classes) == 2:
        return _Meant(probabilities[:, 1], positions, label=f"probability of {classes[1]}")
    return _Meant(probabilities.argmax(axis=1), positions, classes.tolist())


def _like(x: Any, points: np.ndarray) -> Any:
    """Return the points as the samples were given: a data frame, or an array where theirs is."""
    if hasattr(x, "columns"):
        return type(x)(points, columns=x.columns)
    return points if owner(x) is None else beside(x, points)


def _draw_values(ax: "Axes", meant: _Meant, samples: np.ndarray, extent: Extent) -> None:
    low, high = float(meant.targets.min()), float(meant.targets.max())
    scale: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "coolwarm"}
    where: dict[str, Any] = {"origin": "lower", "extent": extent}
    image = ax.imshow(meant.values, aspect="auto", alpha=0.8, **where, **scale)
    if len(np.unique(meant.targets)) == 2:
        middle = [0.5 * (low + high)]
        ax.contour(meant.values, levels=middle, colors="black", linestyles="solid", **where)
    _scatter(ax, samples, meant.targets, scale)
    ax.figure.colorbar(image, ax=ax, label=meant.label)


def _draw_classes(ax: "Axes", meant: _Meant, samples: np.ndarray, extent: Extent) -> None:
    from matplotlib.colors import ListedColormap

    count = len(meant.classes)
    scale: dict[str, Any] = {"vmin": -0.5, "vmax": count - 0.5}
    scale["cmap"] = ListedColormap(PALETTE[:count]) if count <= len(PALETTE) else "turbo"
    where: dict[str, Any] = {"origin": "lower", "extent": extent, "aspect": "auto"}
    ax.imshow(meant.values, alpha=0.35, interpolation="nearest", **where, **scale)
    points = _scatter(ax, samples, meant.targets, scale)
    handles, _ = points.legend_elements(num=list(range(count)))
    names = [str(name) for name in meant.classes]
    ax.legend(handles, names, title="class", fontsize="small", ncols=1 + (count - 1) // 8)


def _scatter(ax: "Axes", samples: np.ndarray, targets: np.ndarray, scale: dict[str, Any]) -> Any:
    """Draw the samples, smaller where there are many."""
    size = max(8.0, min(60.0, 4000.0 / len(samples)))
    return ax.scatter(samples[:, 0], samples[:, 1], c=targets, edgecolors="black", s=size, **scale)
