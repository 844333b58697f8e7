"""Learning curves: what a training measured, epoch by epoch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.display.summaries import OF_CHECKS, falls_far, is_loss, quantiles
from backprop_xp.plots.canvas import colour, logarithmic, new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def learning_curves(history: Any, *, epochs: Any = None, ax: "Axes | None" = None) -> "Axes":
    """Draw losses and metrics over the epochs; of a stack the median and a band around it.

    ``history`` is a result of ``bx.fit``, or a mapping of what was measured by its name, each
    ``(epochs, *stack)``, such as ``result.history``. ``epochs``, ``(epochs,)``, numbers the rows,
    by default from 1.

    What is called a loss has the left axis, logarithmic where it is positive and falls to a tenth;
    metrics have the right one, dashed. The band of a stack reaches from the 10 % to the 90 %
    quantile of those of its networks that are finite, and the legend counts those whose last value
    is not. Raises TypeError for what is no history, ValueError for one that is empty, and for
    shapes that do not fit.

    >>> from backprop_xp import plots
    >>> ax = plots.learning_curves({"loss": [1.0, 0.1, 0.01]})
    >>> ax.get_yscale(), ax.lines[0].get_xdata().tolist()
    ('log', [1, 2, 3])
    """
    curves = _curves(history)
    steps = {name: _steps(epochs, name, len(values)) for name, values in curves.items()}
    ax = new_axes() if ax is None else ax
    losses = [name for name in curves if is_loss(name)]
    metrics = [name for name in curves if name not in losses]
    right = ax.twinx() if losses and metrics else ax
    for i, name in enumerate([*losses, *metrics]):
        one, style = (ax, "-") if name in losses else (right, "--")
        _draw(one, name, steps[name], curves[name], color=colour(i), linestyle=style)
    if losses:
        values = np.concatenate([curves[name].reshape(-1) for name in losses])
        if falls_far(values):
            logarithmic(ax, "y", values[np.isfinite(values)])
        ax.set_ylabel("loss")
    if metrics:
        right.set_ylabel(", ".join(metrics) if len(metrics) < 3 else "metrics")
    ax.set_xlabel("epoch")
    ax.margins(x=0.02)
    _legend(ax, right, curves)
    return ax


def _curves(history: Any) -> dict[str, np.ndarray]:
    """Return what was measured at each epoch, ``(epochs, networks)`` on the host, by its name."""
    measured = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(measured, Mapping):
        raise TypeError(
            "history must be a result of bx.fit, or a mapping such as its history, "
            f'{{"loss": [0.7, 0.5]}}, not {type(history).__name__}.'
        )
    curves = {}
    for name, values in measured.items():
        if name in OF_CHECKS:
            continue
        host = to_host(values)
        if not host.ndim or not host.size:
            raise ValueError(
                f"history[{name!r}] has shape {host.shape}, but (epochs, *stack) of one epoch or "
                "more is expected."
            )
        try:
            curves[name] = host.astype(float).reshape(len(host), -1)  # None becomes NaN
        except (TypeError, ValueError):
            raise TypeError(
                f"history[{name!r}] must hold numbers, not {host.tolist()[0]!r}."
            ) from None
    if not curves:
        raise ValueError("history is empty: there is no loss and no metric to draw.")
    return curves


def _steps(epochs: Any, name: str, rows: int) -> np.ndarray:
    if epochs is None:
        return np.arange(1, rows + 1)
    steps = to_host(epochs)
    if steps.shape != (rows,):
        raise ValueError(
            f"epochs has shape {steps.shape}, but history[{name!r}] has {rows} rows: "
            f"({rows},) is expected."
        )
    return steps


def _draw(ax: "Axes", name: str, steps: np.ndarray, values: np.ndarray, **style: Any) -> None:
    """Draw the values ``(epochs, networks)`` of one name: a line, and a band of a stack."""
    low, middle, high = quantiles(values, (0.1, 0.5, 0.9))
    # A line of one point would not be seen.
    marker = "o" if len(steps) == 1 else ""
    ax.plot(steps, middle, label=name, marker=marker, linewidth=1.5, **style)
    if values.shape[1] > 1:
        ax.fill_between(steps, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _legend(ax: "Axes", right: "Axes", curves: dict[str, np.ndarray]) -> None:
    """Name the lines of both axes, and say what the band of a stack is."""
    networks = max(values.shape[1] for values in curves.values())
    diverged = max(int((~np.isfinite(values[-1])).sum()) for values in curves.values())
    title = f"{networks} networks:\nmedian, 10 to 90 %" if networks > 1 else None
    if title and diverged:
        title += f",\n{diverged} not finite at the end"
    lines = [*ax.lines, *(right.lines if right is not ax else [])]
    # Losses fall and metrics rise, so that between their ends there is room. The right axes are
    # drawn above the left ones, and above a legend of theirs.
    place: Any = "best" if right is ax else "center right"
    right.legend(handles=lines, title=title, fontsize="small", title_fontsize="small", loc=place)
