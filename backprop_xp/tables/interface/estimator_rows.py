"""The arguments of ``fit`` of a tabular estimator, as checked rows."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from backprop_xp.backends import owner, refuse_distributed, refuse_masked, to_host
from backprop_xp.checks import nearest
from backprop_xp.estimators.targets import refuse_dates
from backprop_xp.tables.columns.tolerance import in_row
from backprop_xp.tables.interface.preparation import checked_frame
from backprop_xp.tables.model.rows import Rows, without_tiny
from backprop_xp.tables.readers.cells import placed
from backprop_xp.tables.readers.frames import require_plain, to_pandas


def checked_rows(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    names: Sequence[str] | None = None,
    *,
    table: str = "",
    dy: Any = None,
    **options: Any,
) -> tuple[Rows, np.ndarray]:
    """Return the rows that have a weight, checked as scikit-learn does, and the labels of all rows.

    Rows of weight 0 are dropped before the columns are read. ``names`` are those of the columns of
    ``fit``, as in ``checked_frame``; errors name ``table``. ``dy`` are derivatives of y or None.
    ``options`` are those of ``as_table``.
    """
    for argument, value in {"X": X, "y": y, "sample_weight": sample_weight}.items():
        refuse_distributed(value, argument)
        refuse_masked(value, argument)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    values = column_or_1d(np.asarray(y if owner(y) is None else to_host(y)), warn=True)
    check_consistent_length(X, values)
    refuse_dates(values, more=", or for classes to strings")
    if values.dtype == object and (missing := pd.isna(values)).any():
        raise ValueError(
            f"y has a missing value (row {int(missing.argmax())}): leave such rows out."
        )
    if values.dtype == object:  # it may hold only booleans, or only integers
        values = pd.Series(values).infer_objects().to_numpy()
    assert_all_finite(values, input_name="y")
    weights = rows = None
    if sample_weight is not None:
        weights = sample_weight if owner(sample_weight) is None else to_host(sample_weight)
        weights = _check_sample_weight(weights, values, dtype="float64", ensure_non_negative=True)
        weights = without_tiny(weights)
        if not weights.all():
            rows = np.flatnonzero(weights)
            weights = weights[rows]
    frame = checked_frame(estimator, X, names, rows=rows, **options)
    with placed(partial(in_row, table=table)):
        require_plain(frame)
    name = getattr(y, "name", None)
    target = pd.Series(values, name=name if isinstance(name, str) else None)
    slopes = None if dy is None else checked_slopes(dy, [*frame], len(values))
    if rows is not None:
        target, slopes = target.iloc[rows], None if slopes is None else slopes.iloc[rows]
    return Rows(frame, target, weights, slopes=slopes), values


def checked_slopes(dy: Any, names: list[str], count: int) -> pd.DataFrame:
    """Return derivatives of y by columns of X, of these names, for so many rows.

    An array has a column for each column of X. Columns without a value are left out.
    """
    is_table = hasattr(dy, "to_pandas") or isinstance(dy, Mapping | pd.DataFrame)
    if is_table:
        given = pd.DataFrame(dict(dy)) if isinstance(dy, Mapping) else to_pandas(dy)
        given = given.set_axis([str(name) for name in given], axis=1)
    else:
        values = np.asarray(dy if owner(dy) is None else to_host(dy))
        if values.shape != (count, len(names)):
            raise ValueError(
                f"dy has shape {values.shape}, but {(count, len(names))} is expected, a derivative "
                "of y by each column of X: NaN where one is not known. A DataFrame has columns of "
                "numbers alone."
            )
        given = pd.DataFrame(values, columns=names)
    if len(given) != count:
        raise ValueError(f"dy has {len(given)} rows, but y has {count}.")
    for name in given:
        if name not in names:
            raise ValueError(f"dy has {name!r}, but X has no such column. {nearest(name, names)}")
    if not given.columns.is_unique:
        raise ValueError("dy has two columns of one name.")
    try:
        slopes = given.reset_index(drop=True).astype("float64")
    except (TypeError, ValueError) as error:
        raise ValueError(f"dy has a value that is no number: {error}") from None
    if np.isinf(slopes.to_numpy()).any():
        raise ValueError("dy has values that are infinite. Those not known are NaN.")
    slopes = slopes.loc[:, slopes.notna().any()]
    if slopes.empty:
        raise ValueError("dy has no derivative that is known: leave it out.")
    return slopes
