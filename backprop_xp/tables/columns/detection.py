"""The detection of the kinds of columns, from training rows.

scikit-learn computes the coordinates of free text.
"""

import numpy as np
import pandas as pd

from backprop_xp.tables.columns.dates import (
    COMPACT,
    find_formats,
    is_compact,
    on_clock,
    parts_of,
    read_dates,
    strings_on_clock,
    zone_of,
)
from backprop_xp.tables.columns.encoding import (
    LETTERS,
    Category,
    Column,
    Date,
    Number,
    Text,
    origin_of,
)
from backprop_xp.tables.columns.features import Features, learn_scaling
from backprop_xp.tables.readers.values import (
    String,
    as_strings,
    distinct,
    find_style,
    is_categorical,
    is_missing,
    is_string,
    numbers,
)

# A category has fewer values than this, and about ten rows for each.
MAX_CATEGORIES = 200
# The coordinates of free text.
_COORDINATES = 30


def detect(frame: pd.DataFrame, *, scaling: str, max_one_hot: int | None, seed: int) -> Features:
    """Return the features of a plain table, learnt from these training rows.

    ``scaling`` names one of ``SCALINGS``. A category of more than ``max_one_hot`` values becomes a
    code; None makes none. Columns that are empty, constant or identifiers are left out; ValueError
    if none is left.
    """
    found = {str(name): detect_column(frame[name], seed) for name in frame}
    columns = {name: one for name, one in found.items() if not isinstance(one, str)}
    left_out = {name: one for name, one in found.items() if isinstance(one, str)}
    if not columns:
        raise ValueError(
            "nothing to learn from: each column is empty, the same in all rows, or an identifier."
        )
    if max_one_hot is not None:
        columns = {name: as_code(one, max_one_hot) for name, one in columns.items()}
    return Features(columns, left_out, learn_scaling(columns, frame, scaling), tuple(found))


def as_code(column: Column, most: int) -> Column:
    """Return a category of more values as a code, and any other column as it is."""
    if isinstance(column, Category) and len(column.values) > most:
        return Category(column.values, is_code=True)
    return column


def detect_column(column: pd.Series, seed: int) -> Column | str:
    """Return the kind of a column, or the reason why it is left out."""
    if column.isna().all():
        return "empty"
    if not is_string(column):
        return _detect_values(column)
    values, rows = distinct(column, keeps_words=True)
    if set(values) == {None}:
        return "empty"
    if len(set(values)) == 1:
        return "the same in all rows"
    strings = [None if is_missing(value) else value for value in values]
    if is_categorical(column) or set(strings) == {None}:
        return _detect_strings(column, values, rows, seed)
    if (style := find_style(strings, column.attrs.get("decimal", "."))) is not None:
        found = _detect_values(pd.Series(numbers(column, style)[0], name=column.name))
        return Number(style) if isinstance(found, Number) else found
    if formats := find_formats(strings):
        dates = read_dates(strings, formats)
        return Date(formats, parts_of(strings_on_clock(strings, dates, None)))
    return _detect_strings(column, values, rows, seed)


def _detect_values(column: pd.Series) -> Column | str:
    """Return the kind of a column of numbers, timedeltas or dates."""
    if column.nunique(dropna=False) == 1:
        return "the same in all rows"
    if column.dtype.kind == "M":
        zone = zone_of(column)
        return Date((), parts_of(on_clock(column, zone)), zone)
    if column.dtype.kind in "fiu" and is_compact(column):
        return Date((COMPACT,), parts_of(read_dates(distinct(as_strings(column))[0], [COMPACT])))
    if column.dtype.kind not in "iu":
        return Number()
    is_unnamed = str(column.name).startswith("Unnamed: ")  # an index in pandas' or R's CSV files
    return "a row number" if is_unnamed and column.is_unique else Number(None, origin_of(column))


def _detect_strings(
    column: pd.Series, values: list[String], rows: np.ndarray, seed: int
) -> Column | str:
    """Return the kind of a column of strings that are neither numbers nor dates.

    A word for a missing value is an ordinary category, but no text and no identifier.
    """
    categories = sorted(value for value in values if value is not None)
    if len(categories) < min(MAX_CATEGORIES, max(10, len(column) // 10)):
        return Category((*categories, *([None] if None in values else [])))
    strings = [None if is_missing(value) else value for value in values]
    present = {string for string in strings if string is not None}
    count = sum(strings[row] is not None for row in rows)
    if len(present) == count and all(len(string.split()) == 1 for string in present):
        return "an identifier"
    text = pd.Series([strings[row] for row in rows], dtype="str", name=column.name)
    return _learn_text(text, seed)


def _learn_text(column: pd.Series, seed: int) -> Text:
    """Return the latent semantic analysis of strings, divided by the root of its total variance."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(**LETTERS)
    counts = vectorizer.fit_transform(column.fillna("")).astype("float32")
    # Few strings have no decomposition: their first groups of letters are the coordinates.
    axes = np.eye(counts.shape[1], min(_COORDINATES, counts.shape[1]))
    if min(counts.shape) > _COORDINATES:
        svd = TruncatedSVD(_COORDINATES, random_state=seed % 2**32).fit(counts)
        axes = svd.components_.T
    deviation = np.sqrt((counts @ axes).var(axis=0, dtype="float64").sum())
    axes = axes / (deviation if deviation > 0.0 else 1.0)
    pieces = tuple(vectorizer.get_feature_names_out().tolist())
    return Text(pieces, vectorizer.idf_, axes.astype("float32"))
