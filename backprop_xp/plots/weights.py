"""The distribution of a network's weights, layer by layer."""

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.checks import integer
from backprop_xp.networks.network import Network
from backprop_xp.plots.canvas import GRAY_LINE, Axes, colour, new_axes


def weight_histograms(
    network: Network, theta: Array, *, bins: int = 50, ax: "Axes | None" = None
) -> "Axes":
    """Draw a histogram of each layer's weights, one above the other, the first layer on top.

    They share their ``bins`` and have the same height, whatever the number of weights. Weights are
    the parameters of that name, to which L2 and weight decay apply. A stack, ``theta`` of shape
    ``(*stack, P)``, is counted together. Weights that are not finite are left out, and the layer's
    label counts them. Raises ValueError if there is none to draw.
    """
    weights = _weights(network, theta)
    finite = {name: values[np.isfinite(values)] for name, values in weights.items()}
    edges = np.histogram_bin_edges(np.concatenate([*finite.values()]), integer(bins, "bins"))
    ax = new_axes() if ax is None else ax
    labels = []
    for row, (name, values) in enumerate(finite.items()):
        counts, _ = np.histogram(values, edges)
        heights = 0.9 * counts / max(1, counts.max())
        floor = len(finite) - 1.0 - row
        ax.stairs(floor + heights, edges, baseline=floor, fill=True, color=colour(row), alpha=0.7)
        lost = len(weights[name]) - len(values)
        labels.append(f"{name}\n{lost} not finite" if lost else name)
    ax.axvline(0.0, **GRAY_LINE)
    size = "small" if len(labels) <= 10 else "x-small"
    ax.set_yticks(np.arange(len(labels))[::-1] + 0.45, labels, fontsize=size)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.1, len(labels))
    ax.set_xlabel("weight")
    return ax


def _weights(network: Network, theta: Array) -> dict[str, np.ndarray]:
    """Return the weights of every network of the stack, flattened on the host, by layer."""
    layers = zip(network.layout, network.unpack(theta), strict=True)
    weights = {
        f"layers[{i}].{part.name}": to_host(values).reshape(-1)
        for i, (parts, parameters) in enumerate(layers)
        for part, values in zip(parts, parameters, strict=True)
        if part.decays
    }
    if not any(np.isfinite(values).any() for values in weights.values()):
        raise ValueError(
            "There are no weights to draw: "
            + (
                "no weight in theta is finite."
                if weights
                else "no layer has parameters named weights."
            )
        )
    return weights
