"""The predictions of a model of two features over the plane."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from backprop_xp.backends import Array, owner, to_device_of, to_host
from backprop_xp.checks import integer, real
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.network import Network
from backprop_xp.plots.canvas import PALETTE, ArrayLike, Axes, new_axes
from backprop_xp.plots.labels import labels_of

# Left, right, bottom, top.
Extent: TypeAlias = tuple[float, float, float, float]
# A fitted estimator: scikit-learn's protocol has no type.
Estimator: TypeAlias = Any


class _Surface(NamedTuple):
    """Predictions ``values (points,)`` over the plane, and ``targets (batch,)`` of the samples.

    Both are positions in ``classes``. Without classes they are numbers, described by ``label``.
    """

    values: np.ndarray
    targets: np.ndarray
    classes: Sequence[Any] = ()
    label: str = ""


def decision_surface(
    model: Network | Estimator,
    x: ArrayLike,
    y: ArrayLike,
    *,
    theta: Array | None = None,
    margin: float = 0.25,
    resolution: int = 200,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the predictions of a model of two features over the plane, and the samples on it.

    ``model`` is a ``bx.Network``, with its ``theta``, ``(P,)``, or a fitted estimator: a classifier
    with ``predict_proba``, a regressor, or a pipeline that ends in one. ``x`` is ``(batch, 2)``,
    ``y`` ``(batch,)`` or ``(batch, n_out)``. A shade is a value, or the probability of the second
    of two classes; a line is halfway between the targets if they have two different values. With
    more classes the likeliest one is drawn. The picture reaches beyond the samples by ``margin``
    times each feature's range, with ``resolution`` points along each axis. Raises ValueError for
    other shapes and a theta that is not one network's, TypeError for another model.
    """
    samples, targets = to_host(x), to_host(y)
    _check_samples(samples, targets)
    count = integer(resolution, "resolution", at_least=2)
    extent, points = _plane(samples, real(margin, "margin", low=0.0), count)
    if isinstance(model, Network):
        surface = _of_network(model, theta, points, targets)
    else:
        surface = _of_estimator(model, theta, x, points, targets)
    surface = surface._replace(values=surface.values.reshape(count, count))
    ax = new_axes() if ax is None else ax
    _draw(ax, surface, samples, extent)
    names = [str(name) for name in getattr(x, "columns", ("$x_1$", "$x_2$"))]
    ax.set(xlabel=names[0], ylabel=names[1])
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


def _plane(samples: np.ndarray, margin: float, count: int) -> tuple[Extent, np.ndarray]:
    """Return the edges of the picture, and its points ``(count * count, 2)`` from the bottom up."""
    low, high = samples.min(axis=0).astype(float), samples.max(axis=0).astype(float)
    span = np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin * span, high + margin * span
    across, up = np.linspace(left, right, count), np.linspace(bottom, top, count)
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    return (left, right, bottom, top), points


def _of_network(
    network: Network, theta: Array | None, points: np.ndarray, targets: np.ndarray
) -> _Surface:
    if theta is None or len(theta.shape) != 1:
        came = "None" if theta is None else f"of shape {tuple(theta.shape)}"
        raise ValueError(
            f"theta is {came}, but a network needs one theta of shape ({network.size},): "
            "theta=result.theta, or theta=result.theta[i] for a stack."
        )
    outputs = to_host(network.predict(theta, to_device_of(theta, points, theta.dtype)))
    n_out = outputs.shape[1]
    if targets.shape[1:] not in ((), (1,), (n_out,)):
        raise ValueError(f"y has {targets.shape[1]} columns, but the network {n_out} outputs.")
    if n_out == 1:
        is_probability = network.loss_function == LOSSES["binary_cross_entropy"]
        label = "probability of 1" if is_probability else "prediction"
        return _Surface(outputs[:, 0], targets.reshape(-1), label=label)
    classes = range(n_out)
    labels = targets if targets.shape[1:] == (n_out,) else targets.reshape(-1)
    return _Surface(outputs.argmax(axis=1), labels_of(labels, "y", classes), classes)


def _of_estimator(
    model: Estimator, theta: Array | None, x: Array, points: np.ndarray, targets: np.ndarray
) -> _Surface:
    if theta is not None or not hasattr(model, "predict"):
        raise TypeError(
            "model must be a bx.Network with theta=, or a fitted estimator without it, not "
            f"{type(model).__name__}."
        )
    if targets.shape[1:] not in ((), (1,)):
        raise ValueError(
            f"y has shape {targets.shape}, but an estimator is drawn with one target: (batch,)."
        )
    targets = targets.reshape(-1)
    rows: Any = points if owner(x) is None else to_device_of(x, points)
    if hasattr(x, "columns"):  # a DataFrame
        rows = type(x)(points, columns=x.columns)
    if not hasattr(model, "predict_proba"):
        return _Surface(to_host(model.predict(rows)).reshape(-1), targets, label="prediction")
    classes = np.asarray(model.classes_)
    positions = np.searchsorted(classes, labels_of(targets, "y", classes.tolist()))
    probabilities = to_host(model.predict_proba(rows))
    if len(classes) == 2:
        return _Surface(probabilities[:, 1], positions, label=f"probability of {classes[1]}")
    return _Surface(probabilities.argmax(axis=1), positions, classes.tolist())


def _draw(ax: "Axes", surface: _Surface, samples: np.ndarray, extent: Extent) -> None:
    from matplotlib.colors import ListedColormap

    values, targets, classes, label = surface
    count = len(classes)
    scale: dict[str, Any] = {"cmap": "coolwarm", "vmin": targets.min(), "vmax": targets.max()}
    if count:
        colours = ListedColormap(PALETTE[:count]) if count <= len(PALETTE) else "turbo"
        scale = {"cmap": colours, "vmin": -0.5, "vmax": count - 0.5}
    area: dict[str, Any] = {"origin": "lower", "extent": extent}
    image = ax.imshow(values, aspect="auto", alpha=0.35 if count else 0.8, **area, **scale)
    if count:
        image.set_interpolation("nearest")
    elif len(np.unique(targets)) == 2:
        middle = [0.5 * (float(targets.min()) + float(targets.max()))]
        ax.contour(values, levels=middle, colors="black", linestyles="solid", **area)
    size = max(8.0, min(60.0, 4000.0 / len(samples)))  # smaller samples if they are many
    points = ax.scatter(
        samples[:, 0], samples[:, 1], c=targets, edgecolors="black", s=size, **scale
    )
    if not count:
        ax.figure.colorbar(image, ax=ax, label=label)
        return
    handles, _ = points.legend_elements(num=list(range(count)))
    names = [str(name) for name in classes]
    ax.legend(handles, names, title="class", fontsize="small", ncols=1 + (count - 1) // 8)
