"""The report of a check: verdict, numbers, worst entries and diagnosis, as text and as a figure."""

import math
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from itertools import takewhile, zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from backprop_xp.backends import owner, to_host
from backprop_xp.display import summaries
from backprop_xp.gradient_check.inputs.points import flatten
from backprop_xp.gradient_check.inputs.structures import Structure, node_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# No relative error is larger: it is that of two derivatives of one size and different signs. A
# larger tolerance compares nothing.
_LARGEST = 2.0
# A remainder this many times its rounding error gives its order to within 0.1.
ABOVE_NOISE = 32.0


class GradientCheckError(AssertionError):
    """The error of a gradient that did not pass; its message and ``report`` are the report.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> point = np.asarray([1.0, 2.0, 4.0])
    >>> report = bx.check_gradient(lambda p: np.sum(p**2), lambda p: 3.0 * p, point)
    >>> try:
    ...     report.raise_if_failed()
    ... except bx.GradientCheckError as error:
    ...     print(error.report.verdict)
    fail
    """

    def __init__(self, report: Any, title: str = "") -> None:
        super().__init__(f"{title}{report}")
        self.report = report


def entry_name(tensor: str, index: tuple[int, ...]) -> str:
    """Return the name of an entry; that of a number without a name is "point"."""
    return f"{tensor}[{', '.join(map(str, index))}]" if index else tensor or "point"


@dataclass(frozen=True)
class Row:
    """One entry: its analytic and numeric derivative; ``error_bar`` is the sum of their bars."""

    tensor: str
    index: tuple[int, ...]
    analytic: float
    numeric: float
    absolute_error: float
    relative_error: float
    error_bar: float

    @property
    def name(self) -> str:
        """The entry's name and index: ``layers[2].weights[3, 1]``."""
        return entry_name(self.tensor, self.index)


class TensorErrors(NamedTuple):
    """One tensor of the point: its number of entries, and the errors of the worst of them.

    ``fraction_wrong`` is the share of entries whose error exceeds their tolerance. ``not_judged``
    counts the entries so small beside the tensor's largest that rounding hides them.
    """

    tensor: str
    entries: int
    absolute_error: float
    relative_error: float
    fraction_wrong: float
    not_judged: int


class TaylorTable(NamedTuple):
    """Taylor remainders along a direction, one per step, each step half of the previous one.

    ``one_sided`` is the magnitude of ``f(x + h d) - f(x) - h g.d``, O(h^2) for a right gradient g.
    ``symmetric`` is that of ``f(x + h d) - f(x - h d) - 2 h g.d``, O(h^3) since the even terms
    cancel. Both are O(h) for a wrong gradient. ``noise`` is their possible rounding error.
    """

    steps: tuple[float, ...]
    one_sided: tuple[float, ...]
    symmetric: tuple[float, ...]
    noise: tuple[float, ...]

    @property
    def orders(self) -> tuple[float, ...]:
        """The orders of the symmetric remainder: 3 for a right gradient, 1 for a wrong one."""
        return self._orders(self.symmetric)

    @property
    def one_sided_orders(self) -> tuple[float, ...]:
        """The orders of the one-sided remainder: 2 for a right gradient, 1 for a wrong one."""
        return self._orders(self.one_sided)

    def _orders(self, remainders: tuple[float, ...]) -> tuple[float, ...]:
        pairs = zip(remainders, remainders[1:], self.noise[1:], strict=False)
        clear = takewhile(lambda pair: min(pair[:2]) > ABOVE_NOISE * pair[2], pairs)
        return tuple(math.log2(longer / shorter) for longer, shorter, _ in clear)


@dataclass(frozen=True)
class GradientReport:
    """The outcome of a gradient check; as a boolean it is ``passed``.

    - ``verdict``: ``"pass"``, or

      - ``"fail"``: analytic and numeric derivative differ by more than rounding explains;
      - ``"inconclusive"``: the error bars could hide a mistake of 1 % of an entry, or of the given
        tolerance;
      - ``"kink"``: the one-sided slopes stay apart, and the analytic value lies between them;
      - ``"nondeterministic"``: two calls of value, or of gradient, at one point differed.

    - ``method``, ``step``: the method and the step, relative to the scale, that decided. They are
      "centered" and a real step if a kink decided, or entries because kinks meet on a direction.
    - ``max_relative_error``, ``tolerance``: those of the decisive entry or direction, which has the
      largest error relative to its tolerance. Errors are relative to the larger of the analytic and
      numeric derivative; along a direction, to the norm of its terms. The verdict is "fail" exactly
      if the error exceeds the tolerance. If nothing was compared, the tolerance is 0, and the error
      infinite for a fail, otherwise NaN.
    - ``reason``: the reason for the tolerance, or for an inconclusive verdict; for a kink where it
      is, and its slopes.
    - ``evaluations``: the calls of value for the verdict and, if a direction fails, for the search
      of a wrong entry; each copy in a stack counts.
    - ``gradient_calls``: the calls of gradient for them.
    - ``analytic``, ``numeric``: the gradients in the structure of the point; a Jacobian's have a
      first axis of results. None along directions.
    - ``worst``: the entries with the largest errors, the worst first.
    - ``tensors``: the errors of each tensor; empty along directions.
    - ``taylor``, ``taylor_orders``: the remainders and their orders, None for other methods, and
      where a limit leaves none.
    - ``diagnosis``: a sentence about the likely mistake, or None.
    - ``subject``: what was checked: "gradient", "Jacobian", "Hessian", or a product with one.
    - ``place``: which of several points the report is about; empty if all have the verdict "pass".
      A stationary point is judged one natural step away as well.
    - ``notes``: sentences about decisions of the check, such as a cast of the point.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> point = np.asarray([1.0, 2.0, 4.0])
    >>> report = bx.check_gradient(lambda p: np.sum(p**2), lambda p: 3.0 * p, point)
    >>> report.verdict, report.diagnosis
    ('fail', 'the gradient is the numeric gradient times a constant factor of 1.5')
    """

    verdict: str
    method: str
    step: float
    tolerance: float
    reason: str
    evaluations: int
    max_relative_error: float
    analytic: Structure = None
    numeric: Structure = None
    worst: tuple[Row, ...] = ()
    tensors: tuple[TensorErrors, ...] = ()
    taylor: TaylorTable | None = None
    subject: str = "gradient"
    diagnosis: str | None = None
    notes: tuple[str, ...] = ()
    place: str = ""
    gradient_calls: int = 0

    @property
    def excess(self) -> float:
        """The largest error relative to its tolerance."""
        return self.max_relative_error / self.tolerance if self.tolerance else math.inf

    @property
    def passed(self) -> bool:
        """Whether the verdict is "pass" or "kink"."""
        return self.verdict in ("pass", "kink")

    def __bool__(self) -> bool:
        return self.passed

    @property
    def taylor_orders(self) -> tuple[float, ...] | None:
        """The orders of the symmetric remainder, empty below the noise; None without ``taylor``."""
        return None if self.taylor is None else self.taylor.orders

    def raise_if_failed(self) -> None:
        """Raise ``GradientCheckError``, with the report as its message, unless the check passed."""
        if not self.passed:
            raise GradientCheckError(self)

    def plot(self) -> "Figure":
        """Return a matplotlib figure of analytic against numeric entries, or of the remainders.

        Raises ImportError without matplotlib, and ValueError if the report has neither.
        """
        from backprop_xp.plots import canvas, gradients  # matplotlib is optional

        figure = canvas.new_figure()
        if self.taylor is not None:
            gradients.taylor_remainders(*self.taylor, ax=figure.subplots())
        elif self.numeric is not None:
            both = (flatten(gradient) for gradient in (self.analytic, self.numeric))
            entries = ({t.name: point.flat[t.part] for t in point.tensors} for point in both)
            gradients.gradient_entries(*entries, ax=figure.subplots())
        else:
            more = 'method="auto" for every entry, or ' * (self.subject == "gradient")
            raise ValueError(
                f"There is nothing to draw without a numeric {self.subject}: take {more}"
                'method="taylor" for the remainders.'
            )
        figure.axes[0].set_title(f"{self.subject} check: {self.verdict}")
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types; numbers that are not finite become None.

        Complex numbers, and constants of the point that JSON does not have, become strings.
        """
        worst = [{"name": row.name, **vars(row)} for row in self.worst]
        found = {"passed": self.passed, "taylor_orders": self.taylor_orders, "worst": worst}
        return {name: _json(value) for name, value in (vars(self) | found).items()}

    def __repr__(self) -> str:
        lines = self._sentences()
        # The worst entries come last, where a terminal shows them.
        for title, table in reversed(self._tables().items()):
            if title == "remainders" or not self.passed:
                lines += [f"  {line}" for line in summaries.text_table(table, "lrrrrr")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        verdict, *lines = (line.strip() for line in self._sentences())
        found, _, figures = verdict.partition(" (")
        parts = [summaries.paragraph(f"({figures}", begins=found), *map(summaries.paragraph, lines)]
        for title, (heads, *rows) in self._tables().items():
            table = summaries.table(heads, rows, align="l" + "r" * (len(heads) - 1))
            parts.append(summaries.folded(title, table) if self.passed else table)
        return summaries.section(*parts)

    def _sentences(self) -> list[str]:
        """Return the lines of text above the tables."""
        place = f" at {self.place}" if self.place else ""
        passed = ", passed" if self.verdict == "kink" else ""
        errors, step = "", f"step {self.step:.1e}, " if self.step else ""
        if 0.0 < self.tolerance < _LARGEST:
            errors = f"largest relative error {self.max_relative_error:.1e}, "
            errors += f"tolerance {self.tolerance:.1e}; "
        lines = [
            f"{self.subject} check: {self.verdict}{passed}{place} "
            f"({errors}{self.method}, {step}{self.evaluations} evaluations)"
        ]
        if self.verdict != "pass" and self.reason:
            label = "tolerance: " if self.verdict == "fail" else ""
            lines.append(f"  {label}{self.reason}")
        if self.diagnosis:
            lines.append(f"  diagnosis: {self.diagnosis}")
        if hidden := sum(t.not_judged for t in self.tensors):
            entries = f"{hidden} of {sum(t.entries for t in self.tensors)} entries"
            lines.append(f"  not judged: {entries}, too small beside the largest of their tensor")
        return lines + [f"  note: {note}" for note in self.notes]

    def _tables(self) -> dict[str, list[list[str]]]:
        """Return the tables by title, the worst entries first."""
        tables = {}
        if self.worst:
            worst = [(row.name, *astuple(row)[2:]) for row in self.worst]
            heads = "worst entries|analytic|numeric|absolute|relative|error bar"
            tables["worst entries"] = _table(heads, "s .8g .8g .1e .1e .1e", worst)
        if self.tensors:
            tensors = [(t.tensor or "point", *t[1:5]) for t in self.tensors]
            heads = "tensor|entries|absolute error|relative error|wrong"
            tables["tensors"] = _table(heads, "s d .1e .1e .0%", tensors)
        if t := self.taylor:
            # The row of an order is that of the shorter of its two steps.
            one, two = (["", *map("{:.2f}".format, o)] for o in (t.one_sided_orders, t.orders))
            rows = zip_longest(t.steps, t.one_sided, one, t.symmetric, two, fillvalue="")
            heads = "step|one-sided|order|symmetric|order"
            tables["remainders"] = _table(heads, ".1e .1e s .1e s", rows)
        return tables


def _table(heads: str, formats: str, rows: Iterable[tuple[object, ...]]) -> list[list[str]]:
    """Return the rows of a table as strings, its heads first."""
    return [heads.split("|"), *(list(map(format, row, formats.split())) for row in rows)]


def _json(value: Any) -> Any:
    """Return a value as JSON types: arrays as nested lists, records as dicts, others as text."""
    if owner(value) is not None or isinstance(value, np.generic) or hasattr(value, "to_numpy"):
        return _json(to_host(value).tolist())
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, list | tuple):
        return [_json(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    if (node := node_of(value)) is not None:
        return {str(key): _json(part) for key, part in node.children.items()}
    return repr(value)
