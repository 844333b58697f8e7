"""What a check found: verdict, numbers, worst entries, likely mistake; as text and as a picture."""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backprop_xp.backends import owner, to_host
from backprop_xp.gradient_check.points import flatten

if TYPE_CHECKING:
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
        halved = zip(remainders, remainders[1:], self.noise[1:], strict=False)
        clear = takewhile(lambda row: min(row[:2]) > ABOVE_NOISE * row[2], halved)
        return tuple(math.log2(longer / shorter) for longer, shorter, _ in clear)


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
        """Draw analytic against numeric entries, or by ``taylor`` the remainders.

        Returns a ``matplotlib.figure.Figure``, made without pyplot; ImportError without matplotlib,
        ValueError where there is nothing to draw.
        """
        from backprop_xp.plots import canvas, gradients  # for who draws

        figure = canvas.new_figure()
        if self.taylor is not None:
            gradients.taylor_remainders(*self.taylor, ax=figure.subplots())
        elif self.numeric is not None:
            both = (flatten(gradient) for gradient in (self.analytic, self.numeric))
            entries = ({t.name: point.flat[t.part] for t in point.tensors} for point in both)
            gradients.gradient_entries(*entries, ax=figure.subplots())
        else:
            raise ValueError(
                "There is nothing to draw: no numeric gradient was taken. Check every entry "
                '(method="auto"), or by method="taylor".'
            )
        figure.axes[0].set_title(f"gradient check: {self.verdict}")
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain numbers, strings, lists and dicts, as JSON takes them.

        Numbers that are not finite become None.
        """
        found = {**vars(self), "passed": self.passed, "taylor_orders": self.taylor_orders}
        found["worst"] = [{"name": row.name, **vars(row)} for row in self.worst]
        return {name: _plain(value) for name, value in found.items()}

    def __str__(self) -> str:
        lines = self._sentences()
        # The worst entries come last: on a terminal the end is what one sees.
        for title, table in reversed(self._tables().items()):
            if self.passed and title != "remainders":
                continue
            first, *others = (max(map(len, column)) for column in zip(*table, strict=True))
            for name, *cells in table:
                right = map(str.rjust, cells, others)
                lines.append("  ".join(["", name.ljust(first), *right]).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from backprop_xp.display import summaries  # for notebooks alone

        verdict, *lines = (line.strip() for line in self._sentences())
        found, _, figures = verdict.partition(" (")
        parts = [summaries.paragraph(f"({figures}", begins=found), *map(summaries.paragraph, lines)]
        for title, (heads, *rows) in self._tables().items():
            table = summaries.table(heads, rows, align="l" + "r" * (len(heads) - 1))
            parts.append(summaries.folded(title, table) if self.passed else table)
        return summaries.section(*parts)

    def _sentences(self) -> list[str]:
        """Return the lines above the tables."""
        lines = [
            f"gradient check: {self.verdict} (largest relative error "
            f"{self.max_relative_error:.1e}, tolerance {self.tolerance:.1e}; {self.method}, step "
            f"{self.step:.1e}, {self.evaluations} evaluations)"
        ]
        if self.verdict == "inconclusive":
            lines.append(f"  {self.reason}")
        elif not self.passed and self.reason:
            lines.append(f"  the tolerance is {self.reason}")
        if self.diagnosis:
            lines.append(f"  diagnosis: {self.diagnosis}")
        if hidden := sum(t.not_judged for t in self.tensors):
            of_all = f"{hidden} of {sum(t.entries for t in self.tensors)} entries"
            lines.append(f"  not judged: {of_all}, too small beside the largest of their tensor")
        return lines + [f"  note: {note}" for note in self.notes]

    def _tables(self) -> dict[str, list[list[str]]]:
        """Return the tables that there are by their titles, the worst entries first."""
        tables = {}
        if self.worst:
            worst = [(row.name or "point", *astuple(row)[2:]) for row in self.worst]
            heads = "worst entries|analytic|numeric|absolute|relative|error bar"
            tables["worst entries"] = _table(heads, "s .8g .8g .1e .1e .1e", worst)
        if self.tensors:
            tensors = [(t.tensor or "point", *t[1:5]) for t in self.tensors]
            heads = "tensor|entries|absolute error|relative error|wrong"
            tables["tensors"] = _table(heads, "s d .1e .1e .0%", tensors)
        if t := self.taylor:
            # An order stands beside the shorter of its steps.
            one, two = (["", *map("{:.2f}".format, o)] for o in (t.one_sided_orders, t.orders))
            rows = zip_longest(t.steps, t.one_sided, one, t.symmetric, two, fillvalue="")
            heads = "step|one-sided|order|symmetric|order"
            tables["remainders"] = _table(heads, ".1e .1e s .1e s", rows)
        return tables


def _table(heads: str, kinds: str, rows: Iterable[tuple[Any, ...]]) -> list[list[str]]:
    """Return the cells of a table as text, its heads first."""
    return [heads.split("|"), *(list(map(format, row, kinds.split())) for row in rows)]


def _plain(value: Any) -> Any:
    """Return a value as JSON takes it: arrays as nested lists, named tuples as dicts."""
    if owner(value) is not None or isinstance(value, np.generic) or hasattr(value, "to_numpy"):
        return _plain(to_host(value).tolist())
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
