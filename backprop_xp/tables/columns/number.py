"""Numbers: one feature each. Strings can hold them, in one style for a column."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import integer, known
from backprop_xp.display.numbers import number
from backprop_xp.tables.columns.column import Column, are_among, choice_error, refuse
from backprop_xp.tables.columns.sample import Sample
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.readers.cells import (
    EXACT,
    OTHER_SIGN,
    PLAIN,
    STYLES,
    TIME,
    ambiguous,
    decimal_of,
    find_style,
    is_string,
    numbers,
)


@dataclass(frozen=True)
class Number(Column):
    """A number: one feature, float64.

    ``style`` is that of strings, None for numbers. ``origin`` is subtracted from integers that
    float64 cannot tell apart. ``odd`` are the few strings of training that are no numbers: they are
    missing values. ``decimal`` is the sign of the file that training read strings from, if it is
    known: in a file of the other sign, the style is the other one.
    """

    style: str | None = None
    origin: int = 0
    odd: tuple[str, ...] = ()
    decimal: str | None = None
    kind: ClassVar[str] = "number"
    unwritten: ClassVar[Mapping[str, Any]] = {"odd": 0, "decimal": None}

    @classmethod
    def detect(cls, sample: Sample) -> "Number | str | None":
        """Return numbers and timedeltas, also with a few odd strings; a row number is left out."""
        values = sample.values
        if values is None:
            return None
        if values.dtype.kind not in "iu":
            decimal = sample.style and decimal_of(sample.column)
            return Number(sample.style, odd=sample.odd, decimal=decimal)
        is_unnamed = str(values.name).startswith("Unnamed: ")  # an index in pandas' or R's CSV
        is_unique = sample.each.max() == 1
        return "a row number" if is_unnamed and is_unique else Number(None, _origin(values))

    @classmethod
    def chosen(cls, sample: Sample) -> "Number":
        column, style = sample.column, None
        if is_string(column):
            sign = decimal_of(column) or "."
            style = find_style(sample.strings, sign, has_codes=True)
        values, wrong = numbers(column, style)
        if wrong.any():
            raise choice_error(column, wrong, cls.kind)
        origin = _origin(column) if values.dtype.kind in "iu" else 0
        return cls(style, origin, decimal=style and decimal_of(column))

    @property
    def odd_strings(self) -> tuple[str, ...]:
        return self.odd

    def with_odd(self, strings: Iterable[str]) -> "Number":
        return replace(self, odd=(*dict.fromkeys([*self.odd, *strings]),))

    def check(self) -> None:
        known(PLAIN if self.style is None else self.style, STYLES, "style")
        integer(self.origin, "origin", at_least=-(2**63))
        self._require(self.origin < 2**64 and self.decimal in (None, ".", ","))

    @property
    def width(self) -> int:
        return 1

    @property
    def is_scaled(self) -> bool:
        return True

    @property
    def from_strings(self) -> bool:
        return self.style is not None

    def names(self, name: str) -> list[str]:
        return [name]

    @property
    def is_counted(self) -> bool:
        return self.from_strings

    def read(self, column: pd.Series) -> np.ndarray:
        values, wrong = self._read(column)
        refuse(column, wrong, f"{self.expected} is expected, as in training")
        self._refuse_ambiguous(column)
        return values

    def wrong(self, column: pd.Series) -> np.ndarray:
        return np.asarray(self._read(column)[1] | self._ambiguous(column))

    def is_odd(self, column: pd.Series) -> np.ndarray:
        # A number of one decimal sign can be an odd string in a file of the other sign.
        self._refuse_ambiguous(column)
        return self._numbers(column)[1]

    def _numbers(self, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers, and a mask of the other values, by the decimal sign of their file."""
        style, sign = self.style, decimal_of(column)
        if style is not None and None not in (sign, self.decimal) and sign != self.decimal:
            style = OTHER_SIGN.get(style, style)
        return numbers(column, style)

    def _read(self, column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers, and a mask of the other values, but for the odd strings."""
        values, wrong = self._numbers(column)
        return values, wrong & ~are_among(column, self.odd)

    def _refuse_ambiguous(self, column: pd.Series) -> None:
        why = "its decimal sign is not known, and training had no strings here"
        advice = "give numbers, or a table of bx.tables.read"
        refuse(column, self._ambiguous(column), why, advice)

    def _ambiguous(self, column: pd.Series) -> np.ndarray:
        """Return a mask of strings whose decimal sign neither training nor their file tells."""
        has_strings = is_string(column) or column.dtype == object
        if self.style is None and has_strings and decimal_of(column) is None:
            return ambiguous(column)
        return np.zeros(len(column), dtype=bool)

    def features(self, values: Array) -> Array:
        return subtract(values, self.origin)[:, None]

    def slopes(self, column: pd.Series) -> np.ndarray:
        return np.ones((len(column), 1))

    def describe(self, scaling: Scaling, first: int) -> dict[str, Any]:
        return {
            "center": float(scaling.centers[first]) + self.origin,
            "scale": float(scaling.scales[first]),
            "filled": float(scaling.medians[first]) + self.origin,
        }

    @staticmethod
    def summary(described: Mapping[str, Any]) -> str:
        center, scale, filled = (number(described[name]) for name in ("center", "scale", "filled"))
        flag = ", flagged" if described["features"] > 1 else ""
        return f"number: center {center}, scale {scale}; missing: {filled}{flag}"

    @property
    def exported_type(self) -> str:
        return "int64" if self.origin else "float64"

    def literals_in_c(self, column: pd.Series) -> list[str]:
        if self.origin:
            values = self.read(column)
            is_integer = values.dtype.kind in "iu"
            wrong = values > 2**63 - 1 if is_integer else np.full(len(values), True)
            refuse(column, wrong, "C holds no integer of 2**63 or more", "leave this row out")
        return super().literals_in_c(column)

    def sort_key(self, column: pd.Series) -> np.ndarray:
        return np.asarray(self.encode(column)[:, 0])

    def may_identify(self, column: pd.Series) -> bool:
        """Whether all are different whole numbers; times and timedeltas identify nothing."""
        if self.style == TIME or column.dtype.kind == "m" or not column.is_unique:
            return False
        values = self.encode(column)
        return bool((values == np.floor(values)).all())  # False for a missing value


def _origin(values: pd.Series) -> int:
    """Return the least of integers that float64 cannot tell apart, 0 for others."""
    least, most = int(values.min()), int(values.max())
    return least if max(-least, most) > EXACT else 0


def subtract(values: Array, origin: int) -> Array:
    """Return numbers minus an origin, float64; differences of large integers keep their digits."""
    xp, (origin_high, origin_low) = array_namespace(values), divmod(origin, 2**32)
    if not (origin and xp.isdtype(values.dtype, "integral")):
        return xp.astype(values, xp.float64) - origin
    high, low = (xp.astype(part, xp.float64) for part in (values // 2**32, values % 2**32))
    return (high - origin_high) * 2.0**32 + (low - origin_low)
