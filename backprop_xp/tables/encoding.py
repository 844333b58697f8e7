"""One column as features: what the transformers that were learnt from training rows make of it."""

from typing import Any

import numpy as np
import pandas as pd
from skrub import DatetimeEncoder

from backprop_xp.tables.values import as_texts, numbers, without_missing


def encoded(column: pd.Series, kind: str, steps: list[Any]) -> np.ndarray:
    """Return what a column becomes, ``(rows, n)``: numbers and dates in float64, else float32."""
    if kind == "number":
        return np.asarray(numbers(column)[0], dtype="float64")[:, None]
    if kind == "date":
        return _parts(_dates(column, steps), steps[-1])
    made: Any = without_missing(as_texts(column))
    for step in steps:
        # skrub's take a column, scikit-learn's a table of one.
        made = step.transform(
            made if type(step).__module__.startswith("skrub") else made.to_frame()
        )
    return np.asarray(made, dtype=np.float32).reshape(len(column), -1)


def _dates(column: pd.Series, steps: list[Any]) -> pd.Series:
    found: Any = without_missing(column)
    for step in steps[:-1]:
        found = step.transform(found)
    return found


def _parts(dates: pd.Series, encoder: DatetimeEncoder) -> np.ndarray:
    """Return year, month, ..., of dates, and the seconds since 1970 in all their digits."""
    made = np.array(encoder.transform(dates), dtype="float64")
    since = dates - pd.Timestamp(0, tz=dates.dt.tz)
    made[:, encoder.extracted_features_.index("total_seconds")] = since.dt.total_seconds()
    return made


def require_kind(column: pd.Series, steps: list[Any], kind: str) -> None:
    """Raise ValueError for the first value of a column that should be a number or a date."""
    if kind == "number":
        wrong = numbers(column)[1]
    elif column.dtype.kind == "M":
        return
    else:
        wrong = (without_missing(column).notna() & _dates(column, steps).isna()).to_numpy()
    if wrong.any():
        value = column[wrong].iloc[0]
        raise ValueError(
            f"the column {str(column.name)!r} has {value!r} (row {wrong.argmax()}), "
            f"but a {kind} is expected, as in training: correct it, or leave it empty."
        )
