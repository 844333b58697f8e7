"""Preparations of files that were written with skops: fitted transformers of skrub, scikit-learn.

Types beyond a fixed list are refused; nothing is pickled.
"""

import zipfile
from typing import Any

import numpy as np
import skops.io

from backprop_xp.tables.detection import scaling_of, text_of
from backprop_xp.tables.encoding import Category, Column, Date, Number
from backprop_xp.tables.preparation import UNSCALED, Preparation

# What such a file may hold beside scikit-learn's own, which skops trusts.
_TRUSTED = [
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.dtype",
    "pandas.DatetimeTZDtype",
    "skrub._datetime_encoder.DatetimeEncoder",
    "skrub._string_encoder.StringEncoder",
    "skrub._to_datetime.ToDatetime",
    "skrub._to_str.ToStr",
]


def read_skops(data: np.ndarray) -> Preparation:
    """Return the preparation of bytes by skops; what is none is a ValueError."""
    try:
        told = skops.io.loads(data.tobytes(), trusted=_TRUSTED)
        columns = {name: _column(kind, told["steps"][name]) for name, kind in told["kinds"].items()}
        scaling = UNSCALED
        if told["scaling"] is not None:
            scaling = scaling_of(*(step for _, step in told["scaling"].steps))
    except (TypeError, KeyError, zipfile.BadZipFile, AttributeError) as error:
        raise ValueError(f"the preparation cannot be read: {error}") from error
    return Preparation(columns, told["left_out"], scaling)


def _column(kind: str, steps: list[Any]) -> Column:
    if kind == "number":
        return Number()
    if kind == "text":
        return text_of(steps[-1])
    if kind == "category":
        (values,) = steps[-1].categories_
        return Category(tuple(None if value != value else str(value) for value in values))
    encoder, formats = steps[-1], [getattr(step, "format_", None) for step in steps]
    return Date(tuple(filter(None, formats)), tuple(encoder.extracted_features_))
