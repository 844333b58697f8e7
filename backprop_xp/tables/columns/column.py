"""The kind of a column: what a training learns about it, and the features that it becomes.

Each kind is one class in a module of its own: ``Number``, ``Date``, ``Category`` and ``Text``.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from backprop_xp.backends import Array
from backprop_xp.checks import plain
from backprop_xp.tables.columns.scaling import Scaling, Weights
from backprop_xp.tables.readers.values import (
    CellError,
    String,
    as_strings,
    decimal_of,
    distinct,
    find_style_of_most,
    is_categorical,
    is_missing,
    is_string,
    numbers,
)

_ADVICE = "correct it, or leave it empty"


@dataclass(frozen=True)
class Sample:
    """A plain column of all rows, and what the kinds find in it."""

    column: pd.Series

    @cached_property
    def words(self) -> tuple[list[String], np.ndarray]:
        """The distinct strings, words for a missing value included, and each row's index of one."""
        return distinct(as_strings(self.column), keeps_words=True)

    @cached_property
    def strings(self) -> list[String]:
        """The distinct strings, None for a word for a missing value."""
        return [None if is_missing(word) else word for word in self.words[0]]

    @cached_property
    def counts(self) -> list[int]:
        """The rows of each distinct string."""
        words, rows = self.words
        return np.bincount(rows, minlength=len(words)).tolist()  # type: ignore[no-any-return]

    @cached_property
    def _style_and_odd(self) -> tuple[str, tuple[str, ...]] | None:
        if not is_string(self.column) or is_categorical(self.column) or not any(self.strings):
            return None
        return find_style_of_most(self.strings, self.counts, decimal_of(self.column) or ".")

    @property
    def style(self) -> str | None:
        """The style in which strings are numbers; None for other strings and columns."""
        return self._style_and_odd and self._style_and_odd[0]

    @property
    def odd(self) -> tuple[str, ...]:
        """The few strings that are no numbers in this style."""
        return self._style_and_odd[1] if self._style_and_odd else ()

    @cached_property
    def values(self) -> pd.Series | None:
        """The numbers, timedeltas or dates, also the numbers that strings hold; None for others."""
        if not is_string(self.column):
            return self.column
        if self.style is None:
            return None
        return pd.Series(numbers(self.column, self.style)[0], name=self.column.name)

    def reason_to_leave_out(self, *, has_words: bool = True) -> str | None:
        """Return why no kind can learn from the column, None if one can.

        ``has_words`` is whether a word for a missing value is a value, as in a category.
        """
        is_words, strings = is_string(self.column), set[String]()
        if is_words:
            strings = {*(self.words[0] if has_words else self.strings)}
        if self.column.isna().all() or strings == {None}:
            return "empty"
        is_same = len(strings) == 1
        if is_same or (self.values is not None and self.values.nunique(dropna=False) == 1):
            return "the same in all rows"
        return None


@dataclass(frozen=True, eq=False)
class Column:
    """A column in use; a subclass is a kind, whose fields are plain names, numbers and arrays.

    All rows decide the kind and how its values are read, by ``detect`` or ``chosen``. The training
    rows teach the rest, by ``learnt``. ``has_graph`` is whether ONNX can compute the features.
    """

    kind: ClassVar[str]
    has_graph: ClassVar[bool] = True

    @classmethod
    def detect(cls, sample: Sample) -> Self | str | None:
        """Return what a column is, why it is left out, or None for a column of another kind."""
        raise NotImplementedError

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

    def with_odd(self, strings: Iterable[str]) -> "Column":
        """Return the column; it also reads these strings as missing values."""
        return self

    def learnt(self, column: pd.Series, seed: int) -> "Column":
        """Return the column with the vocabulary of training rows."""
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
        return True

    @property
    def n_codes(self) -> int:
        """The number of codes that the feature can be, unknown ones included; 0 without codes."""
        return 0

    def names(self, name: str) -> list[str]:
        """Return the names of the features of a column of this name."""
        raise NotImplementedError

    def encode(self, column: pd.Series) -> Array:
        """Return the features ``(rows, width)``; ``CellError`` for a value of another kind."""
        raise NotImplementedError

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

    def graph_input(self) -> tuple[Any, Array]:
        """Return the column as the input of an ONNX graph, and its features: arrays of ndonnx."""
        raise NotImplementedError

    def with_codes(self, above: int | None) -> "Column":
        """Return the column; its feature is a code if it has more values, None makes no codes."""
        return self

    def with_most_frequent(self, column: pd.Series, weights: Weights) -> "Column":
        """Return the column; one with a feature for each value knows the most frequent values.

        ``weights`` are those of the rows.
        """
        return self

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


def cell_error(column: pd.Series, wrong: np.ndarray, what: str, advice: str) -> CellError:
    """Return the error about the first value of a mask."""
    row = wrong.argmax()
    before = f"the column {str(column.name)!r} has {plain(column.iloc[row])!r}"
    return CellError(before, f", but {what}: {advice}.", column.index[row])


def choice_error(column: pd.Series, wrong: np.ndarray, kind: str) -> CellError:
    """Return the error about the first value, of a mask, that is not of the chosen kind."""
    advice = "correct it, leave it empty, or choose another kind"
    return cell_error(column, wrong, f"its kind was chosen to be {kind}", advice)
