"""Categories: a 0 or 1 for each value, or the index of the value for an embedding."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.files import onnx
from backprop_xp.files.c_export.c_lookup import index_of_string
from backprop_xp.files.c_export.c_source import Source, string_in_c
from backprop_xp.tables.columns.column import Column, refuse
from backprop_xp.tables.columns.counts import Counts, sums_by_value
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.columns.scaling import Scaling, Weights
from backprop_xp.tables.readers.cells import (
    MISSING,
    String,
    as_strings,
    distinct,
    has_numbers,
    is_categorical,
    is_missing,
)

# Strings of fewer values are a category if each has about ten rows. Strings of few values, and
# codes, are one if each has two: skrub's TableVectorizer takes 40 values, for any number of rows.
_MAX_VALUES, _FEW = 200, 40
# Values of a summary.
_SHOWN = 20
# The characters that str.strip removes, for RE2.
_SPACE = r"[\s\v\x1c-\x1f\x{85}\p{Z}]*"


@dataclass(frozen=True)
class Category(Column):
    """A category: a 0 or 1 for each of the values, float32; None is the missing value.

    With ``is_code`` it is one feature, the index of the value, for an embedding. ``of_numbers`` is
    whether training had numbers or booleans, which are as in ``strings``.
    """

    values: tuple[str | None, ...]
    is_code: bool = False
    of_numbers: bool = False
    kind: ClassVar[str] = "category"
    has_words: ClassVar[bool] = True
    has_numbers: ClassVar[bool] = False
    unwritten: ClassVar[Mapping[str, Any]] = {"of_numbers": False}

    @classmethod
    def detect(cls, sample: Sample) -> "Category | None":
        """Return declared categories, strings of few values, and codes: single words that repeat.

        A word for a missing value is an ordinary value.
        """
        words, n, present = {*sample.words[0], *sample.drawn}, sample.n_strings, sample.present
        is_few = n < min(_MAX_VALUES, max(10, sample.rows // 10)) or n <= min(_FEW, present // 2)
        are_codes = 2 * n < present and all(len(word.split()) == 1 for word in words if word)
        is_category = is_few or are_codes or is_categorical(sample.column)
        return cls.chosen(sample) if is_category else None

    @classmethod
    def chosen(cls, sample: Sample) -> "Category":
        column = sample.column
        is_declared = is_categorical(column) and has_numbers(sample.words[0])
        return cls((), of_numbers=is_declared or column.dtype.kind in "iufb")

    @property
    def is_counted(self) -> bool:
        return True

    def count(self, column: pd.Series, weights: Weights) -> Counts:
        strings, rows = distinct(self.strings(column), keeps_words=True)
        counts = np.bincount(rows, minlength=len(strings))
        totals = counts if weights is None else np.bincount(rows, weights, minlength=len(strings))
        pairs = zip(counts.tolist(), totals.tolist(), strict=True)
        return Counts(sums_by_value(zip(strings, pairs, strict=True)))

    def finish(self, counts: Counts, *, above: int | None, seed: int) -> "Category":
        """Return the category of the values; at most 200, those of most weight, if it is no code.

        If there are many values, those of one row are left out: they teach what a value is that
        training did not have.
        """
        totals = counts.totals
        if _MAX_VALUES <= len(totals) < sum(count for count, _ in totals.values()) // 2:
            totals = {value: total for value, total in totals.items() if total[0] > 1}
        is_code, values = above is not None and len(totals) > above, [*_sorted(totals)]
        if not is_code and len(totals) > _MAX_VALUES:
            values = sorted(values, key=lambda value: -totals[value][1])[:_MAX_VALUES]
        return replace(self, values=_sorted(values), is_code=is_code)

    @property
    def from_strings(self) -> bool:
        return True

    def check(self) -> None:
        self._require(len({*self.values}) == len(self.values))

    @property
    def width(self) -> int:
        return 1 if self.is_code else len(self.values)

    @property
    def n_codes(self) -> int:
        return len(self.values) + 1 if self.is_code else 0

    def names(self, name: str) -> list[str]:
        values = ["missing" if value is None else value for value in self.values]
        return [name] if self.is_code else [f"{name}={value}" for value in values]

    def read(self, column: pd.Series) -> np.ndarray:
        """Return the index of each value among those of training, their number for another value.

        A word for a missing value is one, unless it is a value of training.
        """
        strings, rows = distinct(self.strings(column), keeps_words=True)
        indices = {value: i for i, value in enumerate(self.values)}
        unknown = len(self.values)
        missing = indices.get(None, unknown)
        codes = [indices.get(one, missing if is_missing(one) else unknown) for one in strings]
        return np.asarray(np.asarray(codes)[rows])

    def strings(self, column: pd.Series) -> pd.Series:
        """Return the values of a column as strings, those of numbers in one form."""
        return as_strings(column, of_numbers=self.of_numbers)

    def features(self, values: Array) -> Array:
        """Return the features of the indices of values."""
        xp = array_namespace(values)
        columns = values[:, None]
        if not self.is_code:  # no column is that of a value that training did not have
            columns = columns == xp.arange(len(self.values), dtype=values.dtype)
        return xp.astype(columns, xp.float32)

    def spellings(self, column: pd.Series) -> list[String]:
        return distinct(self.strings(column), keeps_words=True)[0]

    @property
    def exported_type(self) -> str:
        return "utf8"

    def value_in_c(self, source: Source, name: str, value: str) -> str:
        return index_of_string(source, name, self.values, MISSING, value)

    def literals_in_c(self, column: pd.Series) -> list[str]:
        strings = ["" if pd.isna(one) else str(one) for one in self.strings(column)]
        wrong = np.asarray(["\0" in one for one in strings])
        refuse(column, wrong, "a NUL ends a string in C", "leave this row out")
        return [string_in_c(one) for one in strings]

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        return {"categories": list(self.values)}

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        names = ["missing" if name is None else str(name) for name in described["categories"]]
        more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"category of {len(names)}: {', '.join(names[:_SHOWN])}{more}"

    def graph_input(self) -> tuple[Any, Array]:
        import spox.opset.ai.onnx.v20 as operators  # ndonnx has no regular expressions

        ndx, _ = onnx.libraries()
        values = ndx.argument(shape=("rows",), dtype=ndx.utf8)
        indices = {value: i for i, value in enumerate(self.values)}
        missing = indices.pop(None, None)
        codes = ndx.extensions.static_map(values, indices, len(self.values))
        if missing is not None:
            words = "|".join(re.escape(word) for word in MISSING)
            pattern = rf"{_SPACE}(?:{words}){_SPACE}"
            matches = ndx.asarray(operators.regex_full_match(values.unwrap_spox(), pattern=pattern))
            codes = ndx.where(matches & (codes == len(self.values)), missing, codes)
        return values, self.features(codes)


def _sorted(values: Iterable[String]) -> tuple[String, ...]:
    """Return the values in order, the missing one last."""
    found = {*values}
    return (*sorted(value for value in found if value is not None), *found & {None})
