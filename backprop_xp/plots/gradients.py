"""Pictures of a gradient check: its entries beside numeric ones, and Taylor's remainders."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from backprop_xp.backends import to_host
from backprop_xp.plots.canvas import GRAY_LINE, ArrayLike, Axes, colour, logarithmic, mark, new_axes

Gradient: TypeAlias = ArrayLike | Mapping[str, ArrayLike]


def gradient_entries(analytic: Gradient, numeric: Gradient, *, ax: "Axes | None" = None) -> "Axes":
    """Draw the entries of an analytic gradient over the numeric ones: right ones on the diagonal.

    Both are an array of any shape and library, or a dict of arrays by tensor name. If most entries
    are small beside the largest, the scale is logarithmic outside a thousandth of it. Raises
    ValueError for shapes that do not fit or hold no entries.

    >>> from backprop_xp import plots
    >>> ax = plots.gradient_entries({"weights": [1.0, 2.0]}, {"weights": [1.0, 2.5]})
    >>> ax.lines[0].get_xdata().tolist()
    [1.0, 2.5]
    """
    pairs = _pairs(analytic, numeric)
    ax = new_axes() if ax is None else ax
    for i, (name, (found, expected)) in enumerate(pairs.items()):
        (line,) = ax.plot(expected, found, "", label=name, markersize=4, alpha=0.8)
        line.set(color=mark(i)[0], marker=mark(i)[1], linestyle="")
    entries = np.concatenate([each for pair in pairs.values() for each in pair])
    entries = entries[np.isfinite(entries)]
    if entries.size:
        ends = [entries.min(), entries.max()]
        ax.plot(ends, ends, **GRAY_LINE)
        # A check judges each entry alike: small ones need room beside the largest.
        sizes = np.abs(entries)
        some, largest = sizes[sizes > 0.0], float(sizes.max())
        if some.size and np.median(some) < 0.01 * largest:
            ax.set_xscale("symlog", linthresh=1e-3 * largest)
            ax.set_yscale("symlog", linthresh=1e-3 * largest)
    ax.set(xlabel="numeric", ylabel="analytic")
    if len(pairs) > 1:
        ax.legend(fontsize="small", ncols=1 + (len(pairs) - 1) // 8)
    return ax


def _pairs(analytic: Gradient, numeric: Gradient) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the entries of both gradients by tensor name, flattened on the host."""
    ours, theirs = (g if isinstance(g, Mapping) else {"": g} for g in (analytic, numeric))
    if set(ours) != set(theirs):
        raise ValueError(f"analytic holds {list(ours)}, but numeric {list(theirs)}.")
    pairs = {}
    for name in ours:
        found, expected = to_host(ours[name]), to_host(theirs[name])
        if found.shape != expected.shape:
            label = f"analytic[{name!r}]" if name else "analytic"
            raise ValueError(f"{label} has shape {found.shape}, but numeric {expected.shape}.")
        pairs[name] = found.reshape(-1), expected.reshape(-1)
    if not any(found.size for found, _ in pairs.values()):
        raise ValueError("analytic and numeric hold no entries.")
    return pairs


def taylor_remainders(
    steps: Sequence[float],
    one_sided: Sequence[float],
    symmetric: Sequence[float],
    noise: Sequence[float],
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the remainders of Taylor's expansion over steps, beside the orders of a right gradient.

    ``one_sided`` and ``symmetric`` are magnitudes, and ``noise`` is their rounding, each
    ``(steps,)``, as in the ``taylor`` of a gradient check's report. With a right gradient they fall
    as the step squared and cubed: the dotted lines.

    >>> from backprop_xp import plots
    >>> ax = plots.taylor_remainders([0.2, 0.1], [4e-2, 1e-2], [8e-3, 1e-3], [1e-16, 1e-16])
    >>> ax.get_xscale()
    'log'
    """
    lengths = [len(values) for values in (steps, one_sided, symmetric, noise)]
    if not lengths[0] or len(set(lengths)) > 1:
        raise ValueError(
            "steps, one_sided, symmetric and noise must be of one length of at least 1, but have "
            f"{', '.join(map(str, lengths))} entries."
        )
    ax = new_axes() if ax is None else ax
    kinds = ("one-sided", one_sided, 2), ("symmetric", symmetric, 3)
    for i, (name, remainders, order) in enumerate(kinds):
        label = f"{name} (dotted: order {order})"
        ax.plot(steps, remainders, "o-", color=colour(i), markersize=4, label=label)
        ideal = [remainders[0] * (step / steps[0]) ** order for step in steps]
        ax.plot(steps, ideal, ":", color=colour(i))
    ax.plot(steps, noise, **GRAY_LINE, label="rounding")
    logarithmic(ax, "x", np.asarray(steps))
    ax.set(yscale="log", xlabel="step", ylabel="remainder")
    ax.legend(fontsize="small")
    return ax
