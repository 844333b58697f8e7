"""What each column of a table is, found and learnt from training rows.

scikit-learn finds the medians and the scales, skrub the coordinates of texts.
"""

import warnings
from typing import Any

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from backprop_xp.tables.dates import COMPACT, find_formats, in_utc, is_compact, parts_of, read_dates
from backprop_xp.tables.encoding import Category, Column, Date, Number, Text, origin_of
from backprop_xp.tables.preparation import UNSCALED, Preparation, Scaling
from backprop_xp.tables.readers import as_frame
from backprop_xp.tables.values import as_texts, distinct, find_style, is_text, numbers

# Texts of fewer values are categories, if each has some ten rows.
_CATEGORIES = 200


def prepare(data: Any, *, seed: int = 0) -> Preparation:
    """Return the preparation that the training rows of a table ask for.

    ``data`` is a path, a pandas or a polars frame. Columns that are empty, the same in all rows, or
    identifiers are left out; ValueError if none is left.
    """
    frame = as_frame(data)
    found = {str(name): _learnt(frame[name], seed) for name in frame}
    columns = {name: one for name, one in found.items() if not isinstance(one, str)}
    left_out = {name: one for name, one in found.items() if isinstance(one, str)}
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    return Preparation(columns, left_out, _scaling(columns, frame))


def _learnt(column: pd.Series, seed: int) -> Column | str:
    """Return what a column is, or why it is left out."""
    if column.isna().all():
        return "empty"
    if not is_text(column):
        return _of_values(column)
    texts, rows = distinct(column)
    if set(texts) == {None}:
        return "empty"
    if len(set(texts)) == 1:
        return "the same in all rows"
    if (style := find_style(texts, column.attrs.get("decimal", "."))) is not None:
        found = _of_values(pd.Series(numbers(column, style)[0], name=column.name))
        return Number(style) if isinstance(found, Number) else found
    if formats := find_formats(texts):
        return Date(formats, parts_of(read_dates(texts, formats)))
    return _of_texts(column, texts, rows, seed)


def _of_values(column: pd.Series) -> Column | str:
    """Return what a column of numbers, timedeltas or dates is."""
    if column.nunique(dropna=False) == 1:
        return "the same in all rows"
    if column.dtype.kind == "M":
        return Date((), parts_of(in_utc(column)))
    if column.dtype.kind in "fiu" and is_compact(column):
        return Date((COMPACT,), parts_of(read_dates(distinct(as_texts(column))[0], [COMPACT])))
    if column.dtype.kind not in "iu":
        return Number()
    nameless = str(column.name).startswith("Unnamed: ")  # the index in pandas' or R's CSV files
    return "a row number" if nameless and column.is_unique else Number(None, origin_of(column))


def _of_texts(
    column: pd.Series, texts: list[str | None], rows: np.ndarray, seed: int
) -> Column | str:
    """Return what a column of texts is that are neither numbers nor dates."""
    present = {text for text in texts if text is not None}
    if len(present) < min(_CATEGORIES, max(10, len(column) // 10)):
        missing = [None] * (None in texts)
        return Category((*sorted(present), *missing))
    count = sum(texts[row] is not None for row in rows)
    if len(present) == count and all(len(text.split()) == 1 for text in present):
        return "an identifier"
    from skrub import StringEncoder  # takes seconds to import, and few tables have texts

    encoder = StringEncoder(random_state=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few texts, or short ones
        encoder.fit(pd.Series([texts[row] for row in rows], dtype="str", name=column.name))
    vectorizer, width = encoder.vectorizer_, encoder.n_components_
    pieces = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    # Of a few texts the first groups of letters are the coordinates themselves.
    axes = encoder.tsvd_.components_.T if hasattr(encoder, "tsvd_") else np.eye(len(pieces), width)
    return Text(tuple(pieces), vectorizer.idf_, (axes / encoder.scaling_factor_).astype("float32"))


def _scaling(columns: dict[str, Column], frame: pd.DataFrame) -> Scaling:
    values = Preparation(columns, {}, UNSCALED).numbers({name: frame[name] for name in columns})
    if not values.shape[1]:
        return UNSCALED
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    scaler = StandardScaler().fit(imputer.fit_transform(values))
    flagged = imputer.indicator_.features_.astype(np.intp)
    return Scaling(imputer.statistics_, flagged, scaler.mean_, scaler.scale_)
