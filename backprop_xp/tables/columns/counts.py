"""What a piece of a table's rows shows of a column: records, which are merged over the pieces."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeAlias

from backprop_xp.tables.readers.cells import String

# The number of rows, and their weight.
Total: TypeAlias = tuple[int, float]


class Counts(NamedTuple):
    """What training rows teach a kind.

    A category learns from ``totals``, the number of the rows of each value and their weight. Free
    text learns from ``strings``, one for each row, "" for a missing one.
    """

    totals: Mapping[String, Total] = {}
    strings: tuple[str, ...] = ()

    def merge(self, other: "Counts") -> "Counts":
        """Return what the rows of both show."""
        totals = totals_of([*self.totals.items(), *other.totals.items()])
        return Counts(totals, (*self.strings, *other.strings))


def totals_of(items: Iterable[tuple[String, Total]]) -> dict[String, Total]:
    """Return the sum of the totals of each value."""
    found = dict[String, Total]()
    for value, (count, weight) in items:
        before = found.get(value, (0, 0.0))
        found[value] = before[0] + count, before[1] + weight
    return found


class OddCells(NamedTuple):
    """The odd cells of a column: the different ``strings``, and the number of their rows.

    ``row`` is the first of these rows. ``present`` counts all cells that are not missing.
    """

    present: int
    strings: tuple[str, ...] = ()
    total: int = 0
    row: int = 0

    def merge(self, other: "OddCells") -> "OddCells":
        """Return the odd cells of both, those of the first row first."""
        first, last = self, other
        if other.strings and not (self.strings and self.row < other.row):
            first, last = other, self
        strings = (*dict.fromkeys([*first.strings, *last.strings]),)
        return OddCells(first.present + last.present, strings, first.total + last.total, first.row)

    @property
    def are_few(self) -> bool:
        """Whether some cells are odd, but less than half of them."""
        return 0 < 2 * self.total < self.present
