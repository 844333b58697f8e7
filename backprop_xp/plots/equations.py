"""Pictures of equations: the solution with its band and points, and the residual between them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from backprop_xp.backends import Array, to_device_of, to_host
from backprop_xp.networks.equations.equation_layers import Equation
from backprop_xp.networks.equations.group_layers import Groups
from backprop_xp.networks.equations.standard_errors import StandardErrors
from backprop_xp.networks.network import Network
from backprop_xp.plots.canvas import GRAY_LINE, Axes, colour, mark, new_axes

# Points along the axis of one variable, and along each of two.
_ALONG, _EACH = 300, 100
_COVERAGE = 0.9


def solution(
    layer: Equation | Groups,
    theta: Array,
    groups: Mapping[str, tuple[Any, ...]],
    *,
    readings: str | None = None,
    errors: StandardErrors | None = None,
    output: int = 0,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw a solution over its one or two variables, with the points of each group.

    ``layer`` is that of ``bx.group_rows`` or an ``Equation``, with its ``theta``, ``(P,)``.
    ``groups`` are what ``group_rows`` takes: the picture reaches as far as their points, which are
    ticks below a curve, or dots on a plane of shades. ``readings`` is the name of the group whose
    targets are values of this ``output``, drawn beside a curve. ``errors`` of
    ``bx.standard_errors`` give a curve its band of 90 %. Raises ValueError for more variables, for
    a band over two, for a stack, and for an unknown group.
    """
    first = layer.equations[0] if isinstance(layer, Groups) else layer
    _check_theta(theta)
    points = {name: _points_of(*group[:2]) for name, group in groups.items()}
    if readings is not None and len(groups.get(readings, ())) != 3:
        raise ValueError(f"readings={readings!r} is not a group with targets: {[*groups]}.")
    network, names = first.network, first.variables
    at, shape = _grid(np.concatenate([*points.values()]), names)
    if errors is not None and len(shape) == 2:
        raise ValueError(
            "errors are the band of a curve, but two variables are drawn as a plane: omit them, "
            "and take errors.of(points) there."
        )
    theta, _ = layer.split(theta)
    values = _columns(network, theta, at)[:, output]
    ax = new_axes() if ax is None else ax
    if len(shape) == 2:
        _plane(ax, at, values.reshape(shape), first.outputs[output])
    else:
        ax.plot(at[:, 0], values, color=colour(0), label=first.outputs[output])
    if errors is not None:
        placed = to_device_of(theta, at, theta.dtype)
        band = to_host(errors.quantile(_COVERAGE) * errors.of(placed)[:, output])
        edges = values - band, values + band
        ax.fill_between(at[:, 0], *edges, color=colour(0), alpha=0.3, label="90 % band")
    for i, (name, own) in enumerate(points.items(), start=1):
        shade, marker = mark(i)
        is_read = name == readings and len(shape) == 1
        style: dict[str, Any] = {"color": shade, "label": name, "linestyle": "none"}
        if len(shape) == 2:
            ax.plot(own[:, 0], own[:, 1], marker=marker, markersize=3.0, **style)
        elif is_read:
            targets = to_host(groups[name][2])[:, 0]
            ax.plot(own[:, 0], targets, marker=marker, markersize=4.0, **style)
        else:
            style |= {"transform": ax.get_xaxis_transform(), "marker": "|", "clip_on": False}
            ax.plot(own[:, 0], np.full(len(own), 0.02 * i), **style)
    ax.legend()
    ax.set(xlabel=names[0], ylabel=first.outputs[output] if len(shape) == 1 else names[1])
    return ax


def residual(
    equation: Equation, theta: Array, points: Array, *, part: int = 0, ax: "Axes | None" = None
) -> "Axes":
    """Draw the residual of an equation over its one or two variables.

    ``theta``, ``(P,)``, is that of the training. The picture reaches as far as the ``points``,
    ``(rows, n_in)``, which are its training points. ``part`` is the number of a system's equation.
    Raises ValueError for more variables, for given columns, and for an equation of several points.
    """
    if equation.points > 1 or equation.given:
        raise ValueError(
            "A residual is drawn over the variables of one point, but the equation has given "
            "columns or several points."
        )
    _check_theta(theta)
    own = to_host(points)
    at, shape = _grid(own, equation.variables)
    values = _columns(Network([equation], "mean_squared_error"), theta, at)[:, part]
    ax = new_axes() if ax is None else ax
    if len(shape) == 2:
        most = float(np.max(np.abs(values))) or 1.0
        _plane(ax, at, values.reshape(shape), "residual", most)
        ax.plot(own[:, 0], own[:, 1], ".", color="black", markersize=2.0)
    else:
        ax.axhline(0.0, **GRAY_LINE)
        ax.plot(at[:, 0], values, color=colour(0))
        ax.plot(own[:, 0], np.zeros(len(own)), "|", color=colour(1))
    ax.set_xlabel(equation.variables[0])
    ax.set_ylabel("residual" if len(shape) == 1 else equation.variables[1])
    return ax


def _check_theta(theta: Array) -> None:
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network is drawn: take one of the "
            "stack, such as result.best_member()."
        )


def _points_of(equation: Equation, points: Array) -> np.ndarray:
    """Return the variables of a group's points, those of a row below each other."""
    on_host, n = to_host(points), len(equation.variables)
    rows: np.ndarray = on_host.reshape(-1, on_host.shape[-1] // equation.points)[:, :n]
    return rows


def _grid(points: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return points as far as the given ones, and their numbers along each variable."""
    if len(names) > 2:
        raise ValueError(
            f"The equation has the variables {', '.join(names)}, but one or two can be drawn."
        )
    count = _ALONG if len(names) == 1 else _EACH
    low, high = points.min(axis=0), points.max(axis=0)
    axes = [np.linspace(*ends, count) for ends in zip(low, high, strict=True)]
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    return mesh.reshape(-1, len(names)), mesh.shape[:-1]


def _columns(network: Network, theta: Array, at: np.ndarray) -> np.ndarray:
    """Return a network's outputs on the host."""
    outputs: np.ndarray = to_host(network.predict(theta, to_device_of(theta, at, theta.dtype)))
    return outputs


def _plane(
    ax: "Axes", at: np.ndarray, values: np.ndarray, label: str, most: float | None = None
) -> None:
    """Draw shades of values over a plane; with ``most``, from its negative to itself."""
    first, second = (np.unique(column) for column in at.T)
    options: dict[str, Any] = {"cmap": "viridis"}
    if most is not None:
        options = {"cmap": "RdBu", "vmin": -most, "vmax": most}
    shades = ax.pcolormesh(first, second, values.T, shading="nearest", **options)
    ax.figure.colorbar(shades, ax=ax, label=label)
