"""What the values of a column are: numbers, dates and texts, however they are written.

Each value is judged by itself: what a row is predicted from never depends on the other rows.
"""

from typing import Any

import numpy as np
import pandas as pd

# Texts that stand for nothing: those that pandas and skrub take for it, and a few more.
MISSING = (
    *("", "?", "-", "--", "...", "NA", "N/A", "n/a", "n.a.", "N.A.", "#NA", "#N/A", "#N/A N/A"),
    *("<NA>", "NaN", "nan", "-NaN", "-nan", "NULL", "null", "None", "none"),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
# A number as people write it, with thousands and a sign for its unit: 1,234.50 or $5 or 12 %.
_WRITTEN = r"[-+]?[$€£¥]?\s?(\d{1,3}(,\d{3})+|\d+)(\.\d*)?\s?[%$€£¥]?"


def is_text(column: pd.Series) -> bool:
    """Whether a plain column holds texts."""
    return isinstance(column.dtype, pd.StringDtype)


def without_missing(column: pd.Series) -> pd.Series:
    """Return a column in which texts that stand for nothing are missing values."""
    return column.mask(column.str.strip().isin(MISSING)) if is_text(column) else column


def numbers(column: pd.Series) -> tuple[pd.Series, np.ndarray]:
    """Return a column's numbers, a span of time in seconds, and where there is something else.

    Numbers may be written as texts, with thousands, a percent or a currency sign.
    """
    if column.dtype.kind == "m":
        column = column.dt.total_seconds()
    if column.dtype.kind in "fiub":
        return column, np.zeros(len(column), dtype=bool)
    given = without_missing(column)
    # Few texts are different, and to read one takes long.
    texts = given.dropna().unique().astype(str)
    found = given.map(dict(zip(texts, _read(texts), strict=True))) if is_text(given) else None
    found = pd.Series(np.nan, given.index) if found is None else found
    return found, (given.notna() & found.isna()).to_numpy()


def _read(texts: Any) -> np.ndarray:
    """Return the numbers that texts are, NaN for what is none."""
    written = pd.Series(texts, dtype="str").str.strip()
    bare = written.str.replace(r"[$€£¥%,\s]", "", regex=True)
    written = written.mask(written.str.fullmatch(_WRITTEN), bare)
    found: np.ndarray = pd.to_numeric(np.asarray(written, dtype=object), errors="coerce")
    return found


def as_texts(column: pd.Series) -> pd.Series:
    """Return a column as texts: a frame may have numbers where training rows had texts."""
    if column.dtype.kind == "f":  # 3, not 3.0
        column = column.map(lambda x: f"{x:.0f}" if x.is_integer() else str(x), na_action="ignore")
    texts: pd.Series = column.astype("str")
    return texts


def truths(column: pd.Series) -> pd.Series | None:
    """Return a column's truths, also those written as texts; None if there is something else."""
    given = without_missing(column)
    known = given.str.strip().str.lower().map({"true": True, "false": False})
    return None if (given.notna() & known.isna()).any() else known
