"""What a check found: verdict, numbers, worst entries, likely mistake; as text and as a picture."""

import dataclasses
import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backprop_xp.backends import owner, to_host
from backprop_xp.gradient_check.points import flatten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A remainder counts where it stands out from its rounding so far that its order is good to 0.1.
ABOVE_NOISE = 32.0


class GradientCheckError(AssertionError):
    """A gradient did not pass its check; the message is the report, which is ``report`` too."""

    report: "GradientReport"


@dataclass(frozen=True)
class Row:
    """One entry of the gradient beside its numeric value; ``error_bar`` is that of both."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    absolute_error: float
    relative_error: float
    error_bar: float

    @property
    def name(self) -> str:
        """The entry as one would write it: ``layers[2].weights[3, 1]``."""
        return f"{self.tensor}[{', '.join(map(str, self.index))}]" if self.index else self.tensor


class TensorErrors(NamedTuple):
    """One tensor of the point: how many numbers it holds, how far off the worst of them is.

    ``fraction_wrong`` is the share of entries that are off by more than their tolerance;
    ``not_judged`` counts those so small beside the tensor's largest that rounding hides them.
    """

    tensor: str
    entries: int
    absolute_error: float
    relative_error: float
    fraction_wrong: float
    not_judged: int


class TaylorTable(NamedTuple):
    """Remainders along a direction: one row for each step, each step half of the one before.

    With a right gradient g, ``f(x + h d) - f(x) - h g.d`` is O(h^2), and ``f(x + h d) - f(x - h d)
    - 2 h g.d`` is O(h^3), for the even terms cancel; with a wrong one both are O(h). ``one_sided``
    and ``symmetric`` are their magnitudes; ``noise`` is what rounding may make of them.
    """

    steps: tuple[float, ...]
    one_sided: tuple[float, ...]
    symmetric: tuple[float, ...]
    noise: tuple[float, ...]

    @property
    def orders(self) -> tuple[float, ...]:
        """The orders of the symmetric remainder: 3 where the gradient is right, 1 where wrong."""
        return self._orders(self.symmetric)

    @property
    def one_sided_orders(self) -> tuple[float, ...]:
        """The orders of the one-sided remainder: 2 where the gradient is right, 1 where wrong."""
        return self._orders(self.one_sided)

    def _orders(self, remainders: tuple[float, ...]) -> tuple[float, ...]:
        orders = []
        for k in range(1, len(remainders)):
            longer, shorter = remainders[k - 1], remainders[k]
            if not min(longer, shorter) > ABOVE_NOISE * self.noise[k]:
                break
            orders.append(math.log2(longer / shorter))
        return tuple(orders)

    def lines(self) -> list[str]:
        """Return the table as text."""
        head = f"{'step':>10}  {'one-sided':>10}  {'order':>5}  {'symmetric':>10}  {'order':>5}"
        rows = [head]
        for i, step in enumerate(self.steps):
            orders = [
                f"{found[i - 1]:5.2f}" if 0 < i <= len(found) else f"{'':5}"
                for found in (self.one_sided_orders, self.orders)
            ]
            rows.append(
                f"{step:10.1e}  {self.one_sided[i]:10.1e}  {orders[0]}  "
                f"{self.symmetric[i]:10.1e}  {orders[1]}"
            )
        return [line.rstrip() for line in rows]


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check.

    ``verdict`` is one of

    - ``"pass"``;
    - ``"fail"``: no rounding, of the analytic gradient included, explains the difference;
    - ``"inconclusive"``: the error bars leave room for a mistake that matters, 1 % of an entry or
      what was asked for; ``reason`` says why;
    - ``"kink"``: the slopes on either side stay apart as the step shrinks, and the analytic value
      lies between them;
    - ``"nondeterministic"``: two calls of value, or of gradient, differed.

    ``max_relative_error`` and ``tolerance`` are those of the entry or direction that decides, the
    one whose error is the largest beside its own tolerance: the error is relative to the larger of
    analytic and numeric value, by directions to the norm of the derivative's terms. The verdict is
    "fail" exactly where the first exceeds the second; ``reason`` says why the tolerance is what it
    is. ``step`` is that of the entry that decides, relative to its scale. ``evaluations`` counts
    calls of value for the verdict, each copy of a batch as one.

    ``analytic`` and ``numeric`` are structured like the point (None by directions; a Jacobian's
    have a first axis of results); ``worst`` lists the entries that differ most, the worst first;
    ``tensors`` what became of each tensor; ``notes`` what was done unasked. ``taylor_orders`` are
    the orders of the remainder from step to step, by ``taylor`` alone, and ``taylor`` their table.
    ``diagnosis`` is a sentence on what the mistake looks like, or None.
    """

    verdict: str
    method: str
    step: float
    tolerance: float
    reason: str
    evaluations: int
    max_relative_error: float
    analytic: Any = None
    numeric: Any = None
    worst: tuple[Row, ...] = ()
    tensors: tuple[TensorErrors, ...] = ()
    taylor: TaylorTable | None = None
    diagnosis: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether the gradient was found right."""
        return self.verdict in ("pass", "kink")

    @property
    def taylor_orders(self) -> tuple[float, ...] | None:
        """The orders of the symmetric remainder as the step is halved; empty below the noise."""
        return None if self.taylor is None else self.taylor.orders

    def raise_if_failed(self) -> None:
        """Raise ``GradientCheckError``, with the report as its message, unless the check passed."""
        if not self.passed:
            error = GradientCheckError(str(self))
            error.report = self
            raise error

    def plot(self) -> "Figure":
        """Draw analytic against numeric entries, and the Taylor line where there is one.

        Returns a ``matplotlib.figure.Figure``; ImportError without matplotlib, ValueError where
        there is nothing to draw.
        """
        return _drawn(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings, lists and dicts, as JSON takes them.

        Numbers that are not finite become None.
        """
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["worst"] = [{"name": row.name, **dataclasses.asdict(row)} for row in self.worst]
        return {
            **{name: _plain(value) for name, value in fields.items()},
            "passed": self.passed,
            "taylor_orders": _plain(self.taylor_orders),
        }

    def __str__(self) -> str:
        lines = [self._head(), *self._sentences()]
        if self.taylor is not None:
            lines += [f"  {line}" for line in self.taylor.lines()]
        for table in self._tables():
            lines += _as_text(table)
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        text = "\n".join([self._head(), *self._sentences()])
        text += "" if self.taylor is None else "\n" + "\n".join(self.taylor.lines())
        parts = [f"<pre>{html.escape(text)}</pre>"]
        for table in self._tables():
            rows = ("".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in table)
            parts.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
        return "\n".join(parts)

    def _head(self) -> str:
        return (
            f"gradient check: {self.verdict} (largest relative error "
            f"{self.max_relative_error:.1e}, tolerance {self.tolerance:.1e}; {self.method}, step "
            f"{self.step:.1e}, {self.evaluations} evaluations)"
        )

    def _sentences(self) -> list[str]:
        lines = []
        if self.verdict == "inconclusive":
            lines.append(f"  {self.reason}")
        elif not self.passed and self.reason:
            lines.append(f"  the tolerance is {self.reason}")
        if self.diagnosis:
            lines.append(f"  diagnosis: {self.diagnosis}")
        hidden = sum(t.not_judged for t in self.tensors)
        if hidden:
            lines.append(
                f"  not judged: {hidden} of {sum(t.entries for t in self.tensors)} entries, too "
                "small beside the largest of their tensor"
            )
        return lines + [f"  note: {note}" for note in self.notes]

    def _tables(self) -> list[list[tuple[str, ...]]]:
        """Return the tables of a check that did not pass, their heads first."""
        tensors: list[tuple[str, ...]] = [
            ("tensor", "entries", "absolute error", "relative error", "wrong")
        ]
        for t in self.tensors:
            errors = f"{t.absolute_error:.1e}", f"{t.relative_error:.1e}"
            tensors.append(
                (t.tensor or "point", str(t.entries), *errors, f"{t.fraction_wrong:.0%}")
            )
        worst: list[tuple[str, ...]] = [
            ("worst entries", "analytic", "numeric", "absolute", "relative", "error bar")
        ]
        for row in self.worst:
            values = f"{row.analytic:.8g}", f"{row.numeric:.8g}"
            errors = f"{row.absolute_error:.1e}", f"{row.relative_error:.1e}"
            worst.append((row.name or "point", *values, *errors, f"{row.error_bar:.1e}"))
        return [t for t in (tensors, worst) if len(t) > 1 and not self.passed]


def _as_text(table: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return [
        "  " + "  ".join([f"{row[0]:<{widths[0]}}"]
                         + [f"{row[i]:>{widths[i]}}" for i in range(1, len(row))])
        for row in table
    ]  # fmt: skip


def _plain(value: Any) -> Any:
    """Return a value as JSON takes it: arrays as nested lists, named tuples as dicts."""
    if owner(value) is not None or isinstance(value, np.generic):
        return _plain(to_host(value).tolist())
    if hasattr(value, "to_numpy"):
        return _plain(value.to_numpy())
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


# ---- the picture


def _drawn(report: GradientReport) -> "Figure":
    if report.numeric is None and report.taylor is None:
        raise ValueError(
            "There is nothing to draw: no numeric gradient was taken. Check every entry "
            '(method="auto"), or by method="taylor".'
        )
    figure = new_figure()
    axes = figure.subplots()
    if report.taylor is not None:
        _draw_remainders(axes, report.taylor)
    else:
        _draw_entries(axes, report)
    axes.set_title(f"gradient check: {report.verdict}")
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


def _draw_entries(axes: "Axes", report: GradientReport) -> None:
    """Draw the entries of each tensor: right ones lie on the diagonal."""
    both = [flatten(gradient).flat for gradient in (report.analytic, report.numeric)]
    one, other = (to_host(flat) for flat in both)
    start = 0
    for i, tensor in enumerate(report.tensors):
        part = slice(start, start + tensor.entries)
        axes.plot(other[part], one[part], ".", color=f"C{i}", label=tensor.tensor or None)
        start += tensor.entries
    ends = [min(one.min(), other.min()), max(one.max(), other.max())]
    axes.plot(ends, ends, color="gray", linewidth=0.8, zorder=0)
    axes.set_xlabel("numeric")
    axes.set_ylabel("analytic")
    if len(report.tensors) > 1:
        axes.legend()


def _draw_remainders(axes: "Axes", table: TaylorTable) -> None:
    """Draw remainders over steps, with the slopes of a right gradient beside them."""
    for name, remainders, order in (
        ("one-sided", table.one_sided, 2),
        ("symmetric", table.symmetric, 3),
    ):
        (line,) = axes.loglog(table.steps, remainders, "o-", label=f"{name} remainder")
        ideal = [remainders[0] * (step / table.steps[0]) ** order for step in table.steps]
        label = f"order {order}: a right gradient"
        axes.loglog(table.steps, ideal, ":", color=line.get_color(), label=label)
    axes.loglog(table.steps, table.noise, color="gray", linewidth=0.8, label="rounding")
    axes.set_xlabel("step")
    axes.set_ylabel("remainder")
    axes.legend()
