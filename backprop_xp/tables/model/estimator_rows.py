"""The arguments of ``fit`` of a tabular estimator, as checked rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight

from backprop_xp.backends import owner, refuse_distributed, refuse_masked, to_host
from backprop_xp.tables.columns.kinds import numbers_among
from backprop_xp.tables.columns.preparation import checked_frame
from backprop_xp.tables.model.rows import Rows, without_tiny
from backprop_xp.tables.readers.frames import require_plain
from backprop_xp.tables.readers.values import refuse_dates


def checked_rows(
    estimator: Any, X: Any, y: Any, sample_weight: Any, names: Sequence[str] | None = None
) -> Rows:
    """Return rows as scikit-learn checks them; their target is an array of any labels.

    ``names`` are those of the columns of ``fit``, as in ``checked_frame``.
    """
    for argument, value in {"y": y, "sample_weight": sample_weight}.items():
        refuse_distributed(value, argument)
        refuse_masked(value, argument)
    frame = checked_frame(estimator, X, names, numbers=numbers_among(estimator.kinds))
    require_plain(frame)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y "
            "is None."
        )
    values = column_or_1d(np.asarray(y if owner(y) is None else to_host(y)), warn=True)
    check_consistent_length(frame, values)
    refuse_dates(values, "y")
    if values.dtype == object and (missing := pd.isna(values)).any():
        raise ValueError(
            f"y has a missing value (row {int(missing.argmax())}): leave such rows out."
        )
    if values.dtype == object:  # it may hold only booleans, or only integers
        values = pd.Series(values).infer_objects().to_numpy()
    assert_all_finite(values, input_name="y")
    weights = None
    if sample_weight is not None:
        weights = sample_weight if owner(sample_weight) is None else to_host(sample_weight)
        weights = _check_sample_weight(weights, values, dtype="float64", ensure_non_negative=True)
        weights = without_tiny(weights)
    name = getattr(y, "name", None)
    return Rows(frame, pd.Series(values, name=name if isinstance(name, str) else None), weights)
