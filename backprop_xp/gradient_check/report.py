"""What a check found: the verdict, the numbers behind it, the worst entries, the likely mistake."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from backprop_xp.gradient_check.taylor import TaylorTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class GradientCheckError(AssertionError):
    """A gradient did not pass its check; the message is the report, which is ``report`` too."""

    report: "GradientReport"


@dataclass(frozen=True)
class Row:
    """One entry of the gradient beside its numeric value."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    absolute_error: float
    relative_error: float

    @property
    def name(self) -> str:
        """The entry as one would write it: ``layers[2].weights[3, 1]``."""
        return f"{self.tensor}[{', '.join(map(str, self.index))}]" if self.index else self.tensor


class TensorErrors(NamedTuple):
    """One tensor of the point: how many numbers it holds, how far off the worst of them is.

    The relative error is ``absolute_error`` over the tensor's largest entry, analytic or numeric;
    ``fraction_wrong`` is the share of entries that are off by more than the tolerance.
    """

    tensor: str
    entries: int
    absolute_error: float
    relative_error: float
    fraction_wrong: float


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check.

    ``verdict`` is one of

    - ``"pass"``;
    - ``"fail"``;
    - ``"inconclusive"``: a mistake would lie below the error bar of the numeric derivative;
    - ``"kink"``: at this point the slopes on either side differ, and the analytic value lies
      between them, or belongs to the side that the network's own activations are on;
    - ``"nondeterministic"``: two calls of value, or of gradient, differed.

    ``max_relative_error`` is, per tensor, ``max|analytic - numeric| / max(|analytic|, |numeric|)``
    in the infinity norm, and of these the largest; by directions, that of the derivative along
    the worst direction, beside the norm of its terms. ``tolerance`` is what it is compared with,
    ``reason`` says why. ``method`` went by ``engine`` at ``step`` (times ``max(1, |x|)`` for a
    difference; by ``taylor`` the shortest). ``evaluations`` counts calls of value for the verdict,
    each copy of a batch as one.

    ``analytic`` and ``numeric`` are structured like the point (None by directions); ``worst``
    lists the entries that differ most, the worst first; ``tensors`` what became of each tensor.
    ``taylor_orders`` are the orders of the remainder from step to step, by ``taylor`` alone, and
    ``taylor`` their table. ``diagnosis`` is a sentence on what the mistake looks like, or None.
    """

    verdict: str
    method: str
    engine: str
    step: float
    tolerance: float
    reason: str
    evaluations: int
    max_relative_error: float
    analytic: Any
    numeric: Any
    worst: tuple[Row, ...] = ()
    tensors: tuple[TensorErrors, ...] = ()
    taylor: TaylorTable | None = None
    diagnosis: str | None = None

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
        from backprop_xp.gradient_check.picture import draw_report

        title = f"gradient check: {self.verdict}"
        parts = [(tensor.tensor, tensor.entries) for tensor in self.tensors]
        return draw_report(self.analytic, self.numeric, parts, self.taylor, title)

    def __str__(self) -> str:
        lines = [
            f"gradient check: {self.verdict} (largest relative error "
            f"{self.max_relative_error:.1e}, tolerance {self.tolerance:.0e}; {self.method}, step "
            f"{self.step:.1e}, {self.evaluations} evaluations)"
        ]
        if not self.passed:
            lines.append(f"  by {self.engine}; the tolerance is {self.reason}")
        if self.diagnosis:
            lines.append(f"  diagnosis: {self.diagnosis}")
        if self.taylor is not None:
            lines += [f"  {line}" for line in self.taylor.lines()]
        if self.passed:
            return "\n".join(lines)
        if self.tensors:
            lines += _table(
                ("tensor", "entries", "absolute error", "relative error", "wrong"),
                [
                    (t.tensor or "point", str(t.entries), f"{t.absolute_error:.1e}",
                     f"{t.relative_error:.1e}", f"{t.fraction_wrong:.0%}")
                    for t in self.tensors
                ],
            )  # fmt: skip
        if self.worst:
            lines += _table(
                ("worst entries", "analytic", "numeric", "absolute", "relative"),
                [
                    (row.name, f"{row.analytic:.8g}", f"{row.numeric:.8g}",
                     f"{row.absolute_error:.1e}", f"{row.relative_error:.1e}")
                    for row in self.worst
                ],
            )  # fmt: skip
        return "\n".join(lines)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    return [
        "  " + "  ".join([f"{row[0]:<{widths[0]}}"]
                         + [f"{row[i]:>{widths[i]}}" for i in range(1, len(row))])
        for row in [head, *rows]
    ]  # fmt: skip
