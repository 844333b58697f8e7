"""Pictures by matplotlib: loss curves, decision surfaces, and what a gradient check found.

Each function returns a ``matplotlib.figure.Figure`` made without pyplot, so no display is needed
and nothing global changes; ``save`` writes one. A function that is given ``axes`` draws there.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from backprop_xp.backends import Array, asarray, device_of, owner, to_host
from backprop_xp.checks import integer, real
from backprop_xp.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def loss_curves(
    history: Any, *, epochs: Any = None, axes: "Axes | None" = None, label: str = "loss"
) -> "Figure":
    """Draw losses over epochs, one line for each network of a stack.

    ``history`` is an array ``(epochs, *stack)`` of any library, or a dict of them such as
    ``bx.fit(...).history``. ``epochs``, ``(epochs,)``, numbers the rows; None counts from 1. The
    scale is logarithmic where every finite loss is positive. Raises ValueError for shapes that do
    not fit, ImportError without matplotlib.

    >>> from backprop_xp import plots
    >>> figure = plots.loss_curves({"loss": [1.0, 0.1, 0.01]})
    >>> figure.axes[0].get_yscale()
    'log'
    """
    named = history if isinstance(history, Mapping) else {label: history}
    curves = {name: _curves(name, losses) for name, losses in named.items()}
    axes = _new_axes() if axes is None else axes
    positive = True
    for i, (name, losses) in enumerate(curves.items()):
        steps = _steps(epochs, len(losses))
        alone = losses.shape[1] == 1
        style: dict[str, Any] = {"color": f"C{i}", "alpha": 1.0 if alone else 0.4}
        lines = axes.plot(steps, losses, linewidth=1.5 if alone else 0.8, **style)
        lines[0].set_label(name if alone else f"{name} of {losses.shape[1]} networks")
        positive = positive and bool(np.all(losses[np.isfinite(losses)] > 0.0))
    axes.set_yscale("log" if positive else "linear")
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    return cast("Figure", axes.figure)


def decision_surface(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    margin: float = 0.5,
    resolution: int = 200,
    axes: "Axes | None" = None,
) -> "Figure":
    """Draw what a network of two features predicts over the plane, and the samples on it.

    ``theta`` is one network's, ``(P,)``; ``x`` is ``(batch, 2)``, ``y`` ``(batch, n_out)``. One
    output is drawn as its value, with a line halfway between the least and the greatest target;
    several as the class of the largest. The picture reaches beyond the samples by ``margin`` times
    each feature's range, with ``resolution`` points along either axis. Raises ValueError for other
    shapes, ImportError without matplotlib.
    """
    samples, targets = to_host(x), to_host(y)
    _check_samples(theta, samples, targets)
    extent = _extent(samples, real(margin, "margin", low=0.0, below=float("inf")))
    values = _predict_plane(network, theta, extent, integer(resolution, "resolution", at_least=2))
    axes = _new_axes() if axes is None else axes
    if targets.shape[1] == 1:
        _draw_values(axes, values[..., 0], samples, targets[:, 0], extent)
    else:
        _draw_classes(axes, values.argmax(axis=-1), samples, targets, extent)
    axes.set_xlabel("$x_1$")
    axes.set_ylabel("$x_2$")
    return cast("Figure", axes.figure)


def learning(
    losses: Any, network: Network, theta: Array, x: Array, y: Array, *, epochs: Any = None
) -> "Figure":
    """Draw loss curves beside the decision surface; arguments as for the two of them."""
    figure = _new_figure(width=10.5)
    left, right = figure.subplots(1, 2)
    loss_curves(losses, epochs=epochs, axes=left)
    decision_surface(network, theta, x, y, axes=right)
    return figure


def gradient_entries(analytic: Any, numeric: Any, *, axes: "Axes | None" = None) -> "Figure":
    """Draw the entries of an analytic gradient over the numeric ones: right ones on the diagonal.

    Both are an array of any shape and library, or a dict of them by the names of tensors. Raises
    ValueError for shapes that do not fit or hold no entries, ImportError without matplotlib.

    >>> from backprop_xp import plots
    >>> figure = plots.gradient_entries({"weights": [1.0, 2.0]}, {"weights": [1.0, 2.5]})
    >>> figure.axes[0].lines[0].get_xdata().tolist()
    [1.0, 2.5]
    """
    pairs = _pairs(analytic, numeric)
    axes = _new_axes() if axes is None else axes
    for name, (found, expected) in pairs.items():
        axes.plot(expected, found, ".", label=name)
    both = np.concatenate([entries for pair in pairs.values() for entries in pair])
    ends = [both.min(), both.max()]
    axes.plot(ends, ends, color="gray", linewidth=0.8, zorder=0)
    axes.set_xlabel("numeric")
    axes.set_ylabel("analytic")
    if len(pairs) > 1:
        axes.legend()
    return cast("Figure", axes.figure)


def taylor_remainders(
    steps: Sequence[float],
    one_sided: Sequence[float],
    symmetric: Sequence[float],
    noise: Sequence[float],
    *,
    axes: "Axes | None" = None,
) -> "Figure":
    """Draw the remainders of Taylor's expansion over steps, and how a right gradient's would fall.

    ``one_sided`` and ``symmetric`` are magnitudes, ``noise`` what rounding makes of them, each
    ``(steps,)``, as in the ``taylor`` of a gradient check's report. With a right gradient they fall
    as the step squared and cubed. Raises ImportError without matplotlib.

    >>> from backprop_xp import plots
    >>> figure = plots.taylor_remainders([0.2, 0.1], [4e-2, 1e-2], [8e-3, 1e-3], [1e-16, 1e-16])
    >>> figure.axes[0].get_xscale()
    'log'
    """
    axes = _new_axes() if axes is None else axes
    kinds = ("one-sided", one_sided, 2), ("symmetric", symmetric, 3)
    for i, (name, remainders, order) in enumerate(kinds):
        axes.loglog(steps, remainders, "o-", color=f"C{i}", label=f"{name} remainder")
        ideal = [remainders[0] * (step / steps[0]) ** order for step in steps]
        axes.loglog(steps, ideal, ":", color=f"C{i}", label=f"order {order}: a right gradient")
    axes.loglog(steps, noise, color="gray", linewidth=0.8, label="rounding")
    axes.set_xlabel("step")
    axes.set_ylabel("remainder")
    axes.legend()
    return cast("Figure", axes.figure)


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure in the format of the path's suffix (.png, .svg, .pdf), whole or not at all.

    It is written to a temporary file in the same folder, which then replaces ``path``. Raises
    ValueError for a suffix that matplotlib does not know, OSError where nothing can be written.
    """
    target = Path(os.path.realpath(path))
    kind = target.suffix[1:].lower()
    known = figure.canvas.get_supported_filetypes()
    if kind not in known:
        raise ValueError(f"{path} ends in none of the formats known: .{', .'.join(sorted(known))}.")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("xb") as file:
            figure.savefig(file, format=kind)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _new_figure(width: float = 6.0) -> "Figure":
    """Return an empty figure, made without pyplot: nothing global changes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed: pip install 'backprop_xp[plot]'"
        ) from error
    return Figure(figsize=(width, 4.5), layout="constrained")


def _new_axes() -> "Axes":
    return _new_figure().subplots()


def _curves(name: str, losses: Any) -> np.ndarray:
    host = to_host(losses)
    if not host.ndim or not host.size:
        raise ValueError(
            f"{name} has shape {host.shape}, but (epochs, *stack) with epochs is expected."
        )
    return host.reshape(len(host), -1)


def _steps(epochs: Any, rows: int) -> np.ndarray:
    if epochs is None:
        return np.arange(1, rows + 1)
    steps = to_host(epochs)
    if steps.shape != (rows,):
        raise ValueError(f"epochs has shape {steps.shape}, but the losses {rows} rows.")
    return steps


def _pairs(analytic: Any, numeric: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the entries of both gradients by tensor, flattened on the host."""
    named, beside = (g if isinstance(g, Mapping) else {"": g} for g in (analytic, numeric))
    if set(named) != set(beside):
        raise ValueError(f"analytic holds {list(named)}, but numeric {list(beside)}.")
    pairs = {}
    for name in named:
        found, expected = to_host(named[name]), to_host(beside[name])
        if found.shape != expected.shape:
            label = f"analytic[{name!r}]" if name else "analytic"
            raise ValueError(f"{label} has shape {found.shape}, but numeric {expected.shape}.")
        pairs[name] = found.reshape(-1), expected.reshape(-1)
    if not any(found.size for found, _ in pairs.values()):
        raise ValueError("analytic and numeric hold no entries.")
    return pairs


def _check_samples(theta: Array, samples: np.ndarray, targets: np.ndarray) -> None:
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network is drawn at a time: theta[i]."
        )
    if samples.ndim != 2 or samples.shape[1] != 2 or not len(samples):
        raise ValueError(
            f"x has shape {samples.shape}, but a plane has two features: (batch, 2) is expected."
        )
    if targets.ndim != 2 or len(targets) != len(samples):
        raise ValueError(f"y has shape {targets.shape}, but ({len(samples)}, n_out) is expected.")


Extent = tuple[float, float, float, float]


def _extent(samples: np.ndarray, margin: float) -> Extent:
    """Return the picture's edges: left, right, bottom, top."""
    low, high = samples.min(axis=0).astype(float), samples.max(axis=0).astype(float)
    span = np.where(high > low, high - low, 1.0)
    (left, bottom), (right, top) = low - margin * span, high + margin * span
    return left, right, bottom, top


def _predict_plane(network: Network, theta: Array, extent: Extent, resolution: int) -> np.ndarray:
    """Return the predictions, ``(rows, columns, n_out)`` on the host, rows from the bottom up."""
    left, right, bottom, top = extent
    across, up = np.linspace(left, right, resolution), np.linspace(bottom, top, resolution)
    points = np.stack(np.meshgrid(across, up), axis=-1).reshape(-1, 2)
    grid = asarray(points, backend=owner(theta), device=device_of(theta), dtype=theta.dtype)
    return to_host(network.predict(theta, grid)).reshape(resolution, resolution, -1)


def _draw_values(
    axes: "Axes", values: np.ndarray, samples: np.ndarray, targets: np.ndarray, extent: Extent
) -> None:
    low, high = float(targets.min()), float(targets.max())
    scale: dict[str, Any] = {"vmin": low, "vmax": high, "cmap": "coolwarm"}
    image = axes.imshow(values, origin="lower", extent=extent, aspect="auto", alpha=0.8, **scale)
    middle = [0.5 * (low + high)]
    axes.contour(values, levels=middle, origin="lower", extent=extent, colors="black")
    axes.scatter(samples[:, 0], samples[:, 1], c=targets, edgecolors="black", s=60, **scale)
    axes.figure.colorbar(image, ax=axes, label="prediction")


def _draw_classes(
    axes: "Axes", classes: np.ndarray, samples: np.ndarray, targets: np.ndarray, extent: Extent
) -> None:
    scale: dict[str, Any] = {"vmin": 0, "vmax": max(9, targets.shape[1] - 1), "cmap": "tab10"}
    axes.imshow(classes, origin="lower", extent=extent, aspect="auto", alpha=0.4, **scale)
    labels = targets.argmax(axis=1)
    axes.scatter(samples[:, 0], samples[:, 1], c=labels, edgecolors="black", s=40, **scale)
