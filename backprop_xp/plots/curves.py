"""Learning curves: the losses and metrics of a training, epoch by epoch."""

from collections.abc import Mapping

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.display.summaries import OF_CHECKS, falls_far, is_loss, quantiles
from backprop_xp.plots.canvas import ArrayLike, Axes, colour, logarithmic, new_axes

# Matplotlib's own margin, as a share of the height of the curve.
_MARGIN = 0.05


def learning_curves(
    history: object, *, epochs: ArrayLike | None = None, ax: "Axes | None" = None
) -> "Axes":
    """Draw losses and metrics over the epochs; of a stack the median and a band around it.

    ``history`` is a result of ``bx.fit``, or a mapping such as its ``history``, from names to
    values ``(epochs, *stack)``. ``epochs``, ``(epochs,)``, numbers the rows, by default from 1.

    Losses have the left axis, which is logarithmic if they are positive and fall to a tenth.
    Metrics have the right one, dashed. The band reaches from the 10 % to the 90 % quantile of the
    finite networks of a stack. The legend counts the networks whose last value is not finite.
    Raises TypeError for anything but a history, ValueError for an empty one, and for shapes that do
    not fit.

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
        side, style = (ax, "-") if name in losses else (right, "--")
        _draw(side, name, steps[name], curves[name], colour(i), style)
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


def rate_range(
    rates: ArrayLike,
    losses: ArrayLike,
    suggestion: ArrayLike | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the losses ``(steps, *stack)`` of a range test over its learning rates ``(steps,)``.

    A stack has its median and a band from the 10 % to the 90 % quantile of its finite networks. A
    vertical line marks the suggestion, of a stack the median. Losses that rise far above the first
    are cut off, those below it are all in the picture.

    >>> from backprop_xp import plots
    >>> float(plots.rate_range([0.01, 0.1, 1.0], [2.0, 1.0, 9.0], 0.01).get_ylim()[1])
    2.5
    """
    curves = _curves({"loss": losses})
    steps = _steps(rates, "loss", len(curves["loss"]))
    ax = new_axes() if ax is None else ax
    _draw(ax, "loss", steps, curves["loss"], colour(0), "-")
    logarithmic(ax, "x", steps)
    low, high = quantiles(curves["loss"], (0.1, 0.9))
    if np.isfinite(high).any():
        first, lowest = high[np.isfinite(high)][0], np.nanmin(low)
        top = first + 0.5 * max(first - lowest, 0.1 * abs(first))
        if np.nanmax(high) > top:
            ax.set_ylim(lowest - _MARGIN * (top - lowest), top)
    if suggestion is not None:
        chosen = float(np.nanmedian(to_host(suggestion)))
        ax.axvline(chosen, label=f"suggestion {chosen:.2g}", color=colour(1), linestyle="--")
    ax.set(xlabel="learning rate", ylabel="loss")
    _legend(ax, ax, curves)
    return ax


def _curves(history: object) -> dict[str, np.ndarray]:
    """Return the values of each epoch, ``(epochs, networks)`` on the host, by name."""
    measured = history if isinstance(history, Mapping) else getattr(history, "history", None)
    if not isinstance(measured, Mapping):
        raise TypeError(
            "history must be a result of bx.fit, or a mapping such as its history, "
            f'{{"loss": [0.7, 0.5]}}, not {type(history).__name__}.'
        )
    curves = {}
    for name in [name for name in measured if name not in OF_CHECKS]:
        host = to_host(measured[name])
        if not host.ndim or not host.size:
            raise ValueError(
                f"history[{name!r}] has shape {host.shape}, but (epochs, *stack) with at least one "
                "epoch is expected."
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


def _steps(epochs: ArrayLike | None, name: str, rows: int) -> np.ndarray:
    if epochs is None:
        return np.arange(1, rows + 1)
    steps = to_host(epochs)
    if steps.shape != (rows,):
        raise ValueError(
            f"epochs has shape {steps.shape}, but history[{name!r}] has {rows} rows: "
            f"({rows},) is expected."
        )
    return steps


def _draw(
    ax: "Axes", name: str, steps: np.ndarray, values: np.ndarray, color: str, style: str
) -> None:
    """Draw the values ``(epochs, networks)`` of one name: a line, and a band of a stack."""
    low, middle, high = quantiles(values, (0.1, 0.5, 0.9))
    # A line of one point is invisible without a marker.
    marker = "o" if np.isfinite(middle).sum() == 1 else ""
    ax.plot(steps, middle, label=name, marker=marker, linewidth=1.5, color=color, linestyle=style)
    if values.shape[1] > 1:
        ax.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)


def _legend(ax: "Axes", right: "Axes", curves: dict[str, np.ndarray]) -> None:
    """Name the lines of both axes; the title explains the band of a stack."""
    networks = max(values.shape[1] for values in curves.values())
    diverged = max(int((~np.isfinite(values[-1])).sum()) for values in curves.values())
    title = f"{networks} networks:\nmedian, 10 to 90 %" if networks > 1 else None
    if title and diverged:
        title += f",\n{diverged} not finite at the end"
    lines = [*ax.lines, *(right.lines if right is not ax else [])]
    # Losses fall and metrics rise, so there is room between their ends. The right axes are drawn
    # over the left ones and their legend.
    legend = right.legend(handles=lines, title=title, fontsize="small", title_fontsize="small")
    if right is not ax:
        legend.set_loc("center right")
