"""How a network's weights are spread, layer by layer."""

from typing import TYPE_CHECKING

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.checks import integer
from backprop_xp.networks.network import Network
from backprop_xp.plots.canvas import QUIET, colour, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def weight_histograms(
    network: Network, theta: Array, *, bins: int = 50, ax: "Axes | None" = None
) -> "Axes":
    """Draw a histogram of each layer's weights, one above the other, the first layer on top.

    They share their ``bins``; each is as high as the others, whatever the number of its weights.
    Weights are the parameters of that name, to which L2 and weight decay apply. Those of a stack,
    ``theta`` of shape ``(*stack, P)``, are counted together. Those that are not finite are left
    out, and the layer's label counts them. Raises ValueError where there are none to draw.
    """
    parts = _weights(network, theta)
    edges = np.histogram_bin_edges(
        np.concatenate([finite[np.isfinite(finite)] for finite in parts.values()]),
        integer(bins, "bins"),
    )
    ax = new_axes() if ax is None else ax
    labels = []
    for row, (name, values) in enumerate(parts.items()):
        finite = values[np.isfinite(values)]
        counts, _ = np.histogram(finite, edges)
        heights = 0.9 * counts / max(1, counts.max())
        floor = len(parts) - 1.0 - row
        ax.stairs(floor + heights, edges, baseline=floor, fill=True, color=colour(row), alpha=0.7)
        lost = len(values) - len(finite)
        labels.append(f"{name}\n{lost} not finite" if lost else name)
    ax.axvline(0.0, **QUIET)
    size = "small" if len(labels) <= 10 else "x-small"
    ax.set_yticks(np.arange(len(labels))[::-1] + 0.45, labels, fontsize=size)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(-0.1, len(labels))
    ax.set_xlabel("weight")
    return ax


def _weights(network: Network, theta: Array) -> dict[str, np.ndarray]:
    """Return the weights of every network of the stack, flattened on the host, by layer."""
    layers = zip(network.layout, network.unpack(theta), strict=True)
    parts = {
        f"layers[{i}].{place.name}": to_host(values).reshape(-1)
        for i, (places, parameters) in enumerate(layers)
        for place, values in zip(places, parameters, strict=True)
        if place.decays
    }
    if not any(np.isfinite(values).any() for values in parts.values()):
        raise ValueError(
            "There are no weights to draw: "
            + ("none of theta's is finite." if parts else "no layer has parameters named weights.")
        )
    return parts
