"""The kind of a column: what a training learns about it, and the features that it becomes.

Each kind is one class in a module of its own, and a line of ``kinds.KINDS``: ``Number``, ``Date``,
``Category`` and ``Text``. Other modules ask for no kind: they call the methods of ``Column``. These
detect, read, count and encode the values, and give their slopes and their types in ONNX and in C.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from backprop_xp.backends import Array
from backprop_xp.checks import plain
from backprop_xp.files import onnx
from backprop_xp.files.c_export.c_source import Source, literal
from backprop_xp.tables.columns.counts import Counts, OddCells
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.columns.scaling import Scaling, Weights
from backprop_xp.tables.readers.cells import CellError, String, is_string

_ADVICE = "correct it, or leave it empty"


@dataclass(frozen=True, eq=False)
class Column:
    """A column in use; a subclass is a kind, whose fields are plain names, numbers and arrays.

    All rows decide the kind and how its values are read, by ``detect`` or ``chosen``. The training
    rows teach the rest, by ``count`` of each piece of them, and ``finish``. ``read`` makes numbers
    of the cells, and ``features`` makes features of these, by functions of arrays that ONNX and C
    can record; a kind without them has ``has_graph = False``.

    The defaults are those of a kind of floating numbers that a user chooses.
    """

    kind: ClassVar[str]
    has_graph: ClassVar[bool] = True
    # Whether a word for a missing value is a value.
    has_words: ClassVar[bool] = False
    # Whether its cells are numbers: in a file also codes such as 007, unless it is of strings.
    has_numbers: ClassVar[bool] = True
    # The values, in a file, of fields that earlier versions did not write.
    unwritten: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def detect(cls, sample: Sample) -> Self | str | None:
        """Return what a column is, why it is left out, or None for a column of another kind."""
        return None

    @classmethod
    def chosen(cls, sample: Sample) -> Self:
        """Return a column of the kind that the user chose; ``CellError`` for a value of another."""
        raise NotImplementedError

    def doubt(self, sample: Sample) -> str | None:
        """Return a sentence for the user about values that could be read in another way."""
        return None

    @property
    def odd_strings(self) -> tuple[str, ...]:
        """The strings of other kinds that training read as missing values."""
        return ()

    @property
    def expected(self) -> str:
        """The kind that a cell must be of, for a message."""
        return f"a {self.kind}"

    def with_odd(self, strings: Iterable[str]) -> "Column":
        """Return the column; it also reads these strings as missing values."""
        return self

    def count(self, column: pd.Series, weights: Weights) -> Counts:
        """Return what training rows of these weights teach, for ``finish``."""
        return Counts()

    def finish(self, counts: Counts, *, above: int | None, seed: int) -> "Column":
        """Return the column with the vocabulary that all training rows teach.

        A category of more than ``above`` values is a code; None makes none.
        """
        return self

    def check(self) -> None:
        """Raise ValueError for fields, of the right types, that no training finds."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """The number of features."""
        raise NotImplementedError

    @property
    def is_scaled(self) -> bool:
        """Whether the features are numbers to scale."""
        return False

    @property
    def from_strings(self) -> bool:
        """Whether a file's column must be read as strings."""
        return False

    @property
    def n_codes(self) -> int:
        """The number of codes that the feature can be, unknown ones included; 0 without codes."""
        return 0

    def names(self, name: str) -> list[str]:
        """Return the names of the features of a column of this name."""
        raise NotImplementedError

    def encode(self, column: pd.Series) -> Array:
        """Return the features ``(rows, width)``; ``CellError`` for a value of another kind."""
        return self.features(self.read(column))

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the cells of a column as numbers; ``CellError`` for a value of another kind."""
        raise NotImplementedError

    def features(self, values: Array) -> Array:
        """Return the features of the numbers that ``read`` returns, arrays of any library."""
        raise NotImplementedError

    def slopes(self, column: pd.Series) -> np.ndarray | None:
        """Return the derivatives of the features by the column's number, ``(rows, width)``.

        They are those before the scaling. None is for a kind without numbers to differentiate by.
        """
        return None

    def spellings(self, column: pd.Series) -> Sequence[String]:
        """Return the different strings that are values of their own, none for other kinds."""
        return ()

    @property
    def is_counted(self) -> bool:
        """Whether all rows of a large table teach it, or have odd cells, and not a sample alone."""
        return False

    def odd_cells(self, column: pd.Series) -> OddCells:
        """Return the odd cells of rows, which the index of the column numbers.

        Raises ``CellError`` for a value that is neither a string nor of this kind.
        """
        found, present = column[self.is_odd(column)], int(column.notna().sum())
        if found.empty:
            return OddCells(present)
        if not is_string(found):
            self.encode(found.head(1))
        codes, strings = pd.factorize(found)
        rows = found.index[np.unique(codes, return_index=True)[1]].tolist()
        pairs = zip(rows, np.bincount(codes).tolist(), strict=True)
        return OddCells(present, dict(zip(map(str, strings), pairs, strict=True)))

    def is_odd(self, column: pd.Series) -> np.ndarray:
        """Return a mask of the odd cells, and of other values of another kind."""
        return np.asarray(self.wrong(column) | are_among(column, self.odd_strings))

    def wrong(self, column: pd.Series) -> np.ndarray:
        """Return a mask of the values of another kind, which ``encode`` refuses."""
        return np.zeros(len(column), dtype=bool)

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        """Return what was learnt, as JSON; ``first`` is the index of the first feature."""
        raise NotImplementedError

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        """Return an object of ``described_columns`` in one line."""
        raise NotImplementedError

    @property
    def exported_type(self) -> str:
        """The type of a value in ONNX and in C: ``float64``, ``int64`` or ``utf8``."""
        return "float64"

    @property
    def unit(self) -> str:
        """The unit of the exported numbers, "" for the column's own unit."""
        return ""

    def graph_input(self) -> tuple[Any, Array]:
        """Return the column as the input of an ONNX graph, and its features: arrays of ndonnx."""
        ndx, _ = onnx.libraries()
        values = ndx.argument(shape=("rows",), dtype=getattr(ndx, self.exported_type))
        return values, self.features(values)

    def value_in_c(self, source: Source, name: str, value: str) -> str:
        """Return the expression in C of a number of ``read``, given that of an exported value.

        ``source`` keeps the tables that it needs; ``name`` is the column's own in C.
        """
        return value

    def literals_in_c(self, column: pd.Series) -> list[str]:
        """Return the exported values of a column as literals of C.

        Raises ``CellError`` for a value that C cannot hold.
        """
        values = self.read(column).astype(self.exported_type)
        return [literal(one, values.dtype) for one in values]

    def sort_key(self, column: pd.Series) -> np.ndarray | None:
        """Return numbers or dates that order the rows, None for a kind that has no order."""
        return None

    def may_identify(self, column: pd.Series) -> bool:
        """Whether different values in all rows may only identify them."""
        return False

    def _require(self, is_right: bool) -> None:
        """Raise ValueError for fields that no training finds."""
        if not is_right:
            raise ValueError(f"a {self.kind} has values that no training finds.")


def are_among(column: pd.Series, strings: Collection[str]) -> np.ndarray:
    """Return a mask of the values of a column that are some of these strings."""
    return np.asarray(column.isin([*strings]) if strings else np.zeros(len(column)), dtype=bool)


def refuse(column: pd.Series, wrong: np.ndarray, what: str, advice: str = _ADVICE) -> None:
    """Raise ``CellError``, a ValueError, for the first value of a mask."""
    if wrong.any():
        raise cell_error(column, wrong, what, advice)


def cell_error(column: pd.Series, wrong: np.ndarray, what: str, advice: str = _ADVICE) -> CellError:
    """Return the error about the first value of a mask."""
    row = wrong.argmax()
    before = f"the column {str(column.name)!r} has {plain(column.iloc[row])!r}"
    return CellError(before, f", but {what}: {advice}.", column.index[row])


def choice_error(column: pd.Series, wrong: np.ndarray, kind: str) -> CellError:
    """Return the error about the first value, of a mask, that is not of the chosen kind."""
    advice = "correct it, leave it empty, or choose another kind"
    return cell_error(column, wrong, f"its kind was chosen to be {kind}", advice)
