"""What a check found: the verdict, the numbers behind it, the worst entries."""

from dataclasses import dataclass
from typing import Any


class GradientCheckError(AssertionError):
    """A gradient did not pass its check; the message is the report."""


@dataclass(frozen=True)
class Row:
    """One entry of the gradient beside its numeric value."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    absolute_error: float
    relative_error: float


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check.

    ``verdict`` is ``"pass"``, ``"fail"``, ``"inconclusive"`` (the numeric derivative is too rough
    to tell) or ``"nondeterministic"`` (two calls of value differed). ``max_relative_error`` is,
    per tensor, ``max|analytic - numeric| / max(|analytic|, |numeric|)`` in the infinity norm, and
    of these the largest; ``tolerance`` is what it is compared with. ``evaluations`` counts calls
    of value, each copy of a batch as one. ``analytic`` and ``numeric`` are structured like the
    point; ``worst`` lists the entries that differ most, the worst first.
    """

    verdict: str
    method: str
    step: float
    tolerance: float
    evaluations: int
    max_relative_error: float
    analytic: Any
    numeric: Any
    worst: tuple[Row, ...]
    taylor_orders: tuple[float, float] | None = None
    diagnosis: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the gradient was found right."""
        return self.verdict in ("pass", "kink")

    def raise_if_failed(self) -> None:
        """Raise ``GradientCheckError``, with the report as its message, unless the check passed."""
        if not self.passed:
            raise GradientCheckError(str(self))

    def __str__(self) -> str:
        lines = [
            f"gradient check: {self.verdict} (largest relative error "
            f"{self.max_relative_error:.1e}, tolerance {self.tolerance:.0e}; {self.method}, step "
            f"{self.step:.1e}, {self.evaluations} evaluations)"
        ]
        if self.diagnosis:
            lines.append(self.diagnosis)
        if not self.passed and self.worst:
            head = ("entry", "analytic", "numeric", "relative error")
            lines.append(f"{head[0]:<28} {head[1]:>15} {head[2]:>15} {head[3]:>15}")
            lines += [
                f"{row.tensor + str(list(row.index)):<28} {row.analytic:>15.8g} "
                f"{row.numeric:>15.8g} {row.relative_error:>15.1e}"
                for row in self.worst
            ]
        return "\n".join(lines)
