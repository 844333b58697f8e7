"""Records of a column in a piece of a table's rows, which are merged over the pieces."""

from collections.abc import Collection, Iterable, Mapping
from functools import reduce
from typing import NamedTuple, Protocol, Self, TypeAlias, TypeVar

from backprop_xp.tables.readers.cells import String, are_odd

# The number of rows, and their weight.
Total: TypeAlias = tuple[int, float]
_Record = TypeVar("_Record", bound="Merging")


class Counts(NamedTuple):
    """The values of a column in training rows, from which its kind learns.

    A category learns from ``totals``, the number of the rows of each value and their weight. Free
    text learns from ``strings``, one for each row, "" for a missing one.
    """

    totals: Mapping[String, Total] = {}
    strings: tuple[str, ...] = ()

    def merge(self, other: "Counts") -> "Counts":
        """Return the counts of the rows of both."""
        totals = sums_by_value([*self.totals.items(), *other.totals.items()])
        return Counts(totals, (*self.strings, *other.strings))


def sums_by_value(items: Iterable[tuple[String, Total]]) -> dict[String, Total]:
    """Return the sum of the totals of each value."""
    found = dict[String, Total]()
    for value, (count, weight) in items:
        before = found.get(value, (0, 0.0))
        found[value] = before[0] + count, before[1] + weight
    return found


class Merging(Protocol):
    """A record of rows."""

    def merge(self, other: Self) -> Self:
        """Return that of the rows of both."""


def merged_pieces(records: Iterable[_Record]) -> _Record:
    """Return the merge of records, at least one: those of nearly as many pieces first.

    So a record that grows, such as that of all codes, is not copied for each piece.
    """
    waiting = list[tuple[int, _Record]]()
    for found in records:
        record, size = found, 1
        while waiting and waiting[-1][0] <= size:
            before, first = waiting.pop()
            record, size = first.merge(record), before + size
        waiting.append((size, record))
    return reduce(lambda last, first: first.merge(last), (one for _, one in reversed(waiting)))


class OddCells(NamedTuple):
    """The odd cells of a column: the first row of each different one, and the number of its rows.

    ``present`` counts all cells that are not missing.
    """

    present: int
    cells: Mapping[str, tuple[int, int]] = {}

    def merge(self, other: "OddCells") -> "OddCells":
        """Return the odd cells of both, in the order of their first rows."""
        found = dict(self.cells)
        for string, (row, count) in other.cells.items():
            first, before = found.get(string, (row, 0))
            found[string] = min(first, row), before + count
        cells = dict(sorted(found.items(), key=lambda one: one[1][0]))
        return OddCells(self.present + other.present, cells)

    def without(self, strings: Collection[str]) -> "OddCells":
        """Return the other odd cells than these strings."""
        return self._replace(cells={k: v for k, v in self.cells.items() if k not in strings})

    @property
    def total(self) -> int:
        """The number of odd cells."""
        return sum(count for _, count in self.cells.values())

    @property
    def are_few(self) -> bool:
        """Whether few cells are odd."""
        return are_odd(self.total, self.present - self.total)
