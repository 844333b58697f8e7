"""The picture of a report: analytic against numeric entries, and the Taylor line."""

from typing import TYPE_CHECKING, Any

from backprop_xp.backends import array_namespace, to_host
from backprop_xp.gradient_check.points import flatten
from backprop_xp.gradient_check.taylor import TaylorTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_report(
    analytic: Any, numeric: Any, parts: list[tuple[str, int]], table: TaylorTable | None, title: str
) -> "Figure":
    """Return a figure: entries against each other, or remainders over steps.

    ``analytic`` and ``numeric`` are structured like the point, or None; ``parts`` are the names of
    the tensors in it, and how many entries each has. Raises ValueError where
    there is nothing to draw, ImportError without matplotlib.
    """
    if numeric is None and table is None:
        raise ValueError(
            "There is nothing to draw: no numeric gradient was taken. Check every entry "
            '(method="auto"), or by method="taylor".'
        )
    figure = new_figure()
    axes = figure.subplots()
    if table is not None:
        _draw_remainders(axes, table)
    else:
        _draw_entries(axes, analytic, numeric, parts)
    axes.set_title(title)
    return figure


def new_figure(width: float = 6.0) -> "Figure":
    """Return an empty figure, made without pyplot: nothing global changes."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ImportError(
            "Pictures need matplotlib, which is not installed: pip install 'backprop_xp[plot]'"
        ) from error
    return Figure(figsize=(width, 4.5), layout="constrained")


def new_axes() -> "Axes":
    """Return the axes of an empty figure."""
    return new_figure().subplots()


def _draw_entries(axes: "Axes", analytic: Any, numeric: Any, parts: list[tuple[str, int]]) -> None:
    """Draw the entries of each tensor: right ones lie on the diagonal."""
    one, other = (to_host(flatten(gradient).flat) for gradient in (analytic, numeric))
    start = 0
    for i, (name, count) in enumerate(parts):
        part = slice(start, start + count)
        axes.plot(other[part], one[part], ".", color=f"C{i}", label=name or None)
        start += count
    xp = array_namespace(one)
    ends = [float(f(xp.stack([one, other]))) for f in (xp.min, xp.max)]
    axes.plot(ends, ends, color="gray", linewidth=0.8, zorder=0)
    axes.set_xlabel("numeric")
    axes.set_ylabel("analytic")
    if len(parts) > 1:
        axes.legend()


def _draw_remainders(axes: "Axes", table: TaylorTable) -> None:
    """Draw remainders over steps, with the slopes of a right gradient beside them."""
    for name, remainders, order in (
        ("one-sided", table.one_sided, 2),
        ("symmetric", table.symmetric, 3),
    ):
        (line,) = axes.loglog(table.steps, remainders, "o-", label=f"{name} remainder")
        ideal = [remainders[0] * (step / table.steps[0]) ** order for step in table.steps]
        axes.loglog(
            table.steps,
            ideal,
            ":",
            color=line.get_color(),
            label=f"order {order}: a right gradient",
        )
    axes.loglog(table.steps, table.noise, color="gray", linewidth=0.8, label="rounding")
    axes.set_xlabel("step")
    axes.set_ylabel("remainder")
    axes.legend()
