"""The detection of the kinds of columns, from training rows.

scikit-learn computes the medians and the scales, skrub the coordinates of free text.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import StandardScaler

from backprop_xp.tables.dates import COMPACT, find_formats, in_utc, is_compact, parts_of, read_dates
from backprop_xp.tables.encoding import Category, Column, Date, Number, Text, origin_of
from backprop_xp.tables.preparation import UNSCALED, Preparation, Scaling
from backprop_xp.tables.readers import TableData, as_frame
from backprop_xp.tables.values import String, as_strings, distinct, find_style, is_string, numbers

# A category has fewer values than this, and about ten rows for each.
_MAX_CATEGORIES = 200


def prepare(data: TableData, *, seed: int = 0) -> Preparation:
    """Return the preparation of a table's columns, learnt from these training rows.

    ``data`` is a path, a pandas or a polars DataFrame. Columns that are empty, constant or
    identifiers are left out; ValueError if none is left.
    """
    frame = as_frame(data)
    found = {str(name): _detect(frame[name], seed) for name in frame}
    columns = {name: one for name, one in found.items() if not isinstance(one, str)}
    left_out = {name: one for name, one in found.items() if isinstance(one, str)}
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    return Preparation(columns, left_out, _learn_scaling(columns, frame))


def _detect(column: pd.Series, seed: int) -> Column | str:
    """Return the kind of a column, or the reason why it is left out."""
    if column.isna().all():
        return "empty"
    if not is_string(column):
        return _detect_values(column)
    strings, rows = distinct(column)
    if set(strings) == {None}:
        return "empty"
    if len(set(strings)) == 1:
        return "the same in all rows"
    if (style := find_style(strings, column.attrs.get("decimal", "."))) is not None:
        found = _detect_values(pd.Series(numbers(column, style)[0], name=column.name))
        return Number(style) if isinstance(found, Number) else found
    if formats := find_formats(strings):
        return Date(formats, parts_of(read_dates(strings, formats)))
    return _detect_strings(column, strings, rows, seed)


def _detect_values(column: pd.Series) -> Column | str:
    """Return the kind of a column of numbers, timedeltas or dates."""
    if column.nunique(dropna=False) == 1:
        return "the same in all rows"
    if column.dtype.kind == "M":
        return Date((), parts_of(in_utc(column)))
    if column.dtype.kind in "fiu" and is_compact(column):
        return Date((COMPACT,), parts_of(read_dates(distinct(as_strings(column))[0], [COMPACT])))
    if column.dtype.kind not in "iu":
        return Number()
    is_unnamed = str(column.name).startswith("Unnamed: ")  # an index in pandas' or R's CSV files
    return "a row number" if is_unnamed and column.is_unique else Number(None, origin_of(column))


def _detect_strings(
    column: pd.Series, strings: list[String], rows: np.ndarray, seed: int
) -> Column | str:
    """Return the kind of a column of strings that are neither numbers nor dates."""
    present = {string for string in strings if string is not None}
    if len(present) < min(_MAX_CATEGORIES, max(10, len(column) // 10)):
        missing = [None] * (None in strings)
        return Category((*sorted(present), *missing))
    count = sum(strings[row] is not None for row in rows)
    if len(present) == count and all(len(string.split()) == 1 for string in present):
        return "an identifier"
    values = pd.Series([strings[row] for row in rows], dtype="str", name=column.name)
    return _learn_text(values, seed)


def _learn_text(column: pd.Series, seed: int) -> Text:
    from skrub import StringEncoder  # takes seconds to import, and few tables have free text

    encoder = StringEncoder(random_state=seed % 2**32)
    with warnings.catch_warnings(action="ignore"):  # few strings, or short ones
        encoder.fit(column)
    vectorizer, width = encoder.vectorizer_, encoder.n_components_
    pieces = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
    # Few strings have no decomposition: their first groups of letters are the coordinates.
    axes = encoder.tsvd_.components_.T if hasattr(encoder, "tsvd_") else np.eye(len(pieces), width)
    return Text(tuple(pieces), vectorizer.idf_, (axes / encoder.scaling_factor_).astype("float32"))


def _learn_scaling(columns: dict[str, Column], frame: pd.DataFrame) -> Scaling:
    values = Preparation(columns, {}, UNSCALED).numbers({name: frame[name] for name in columns})
    if not values.shape[1]:
        return UNSCALED
    imputer = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    scaler = StandardScaler().fit(imputer.fit_transform(values))
    flagged = imputer.indicator_.features_.astype(np.intp)
    return Scaling(imputer.statistics_, flagged, scaler.mean_, scaler.scale_)
