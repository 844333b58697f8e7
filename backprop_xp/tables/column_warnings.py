"""Warnings about columns: those that may identify rows, or give the target away."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from backprop_xp.tables.encoding import Category, Number
from backprop_xp.tables.features import Features, within_range
from backprop_xp.tables.row_split import SplitRule
from backprop_xp.tables.rows import Rows
from backprop_xp.tables.values import TIME

# In about 40 real tables, columns that give the target away reach 0.95 to 1, and others at most
# 0.92, but for the width of a petal, from which the species of an iris follows (0.96).
_BOUND = 0.93
# So many rows, in three folds, take less than a second for 50 columns.
_ROWS, _FOLDS = 2000, 3


def column_warnings(
    features: Features, training: Rows, rule: SplitRule, time: str | None
) -> Iterator[str]:
    """Yield lines for the user; ``time`` is a column of times, which may differ in all rows.

    A column gives the target away if a decision tree on it alone predicts more than 0.93 of the
    target, cross-validated on training rows: R2, or the balanced accuracy.
    """
    for name, column in features.columns.items():
        values = training.features[name]
        is_number = isinstance(column, Number) and column.style != TIME and name != time
        if is_number and values.is_unique and values.dtype.kind != "m":
            numbers = column.encode(values)
            if (numbers == np.floor(numbers)).all():  # False for a missing value
                yield (
                    f"{name!r} has a different whole number in each row: leave it out with --drop "
                    f"{name!r} if it identifies rows"
                )
    y, kind, metric = rule.classes, DecisionTreeClassifier, "balanced_accuracy"
    if y is None:
        y, kind, metric = training.target.to_numpy(), DecisionTreeRegressor, "r2"
    # A rare class needs all its rows.
    labels = pd.Series(0 if rule.classes is None else rule.classes, index=range(rule.rows))
    shuffled = labels.sample(frac=1.0, random_state=rule.seed % 2**32)
    rows = shuffled.groupby(shuffled).head(max(_FOLDS, _ROWS // labels.nunique())).index.to_numpy()
    rule, sample, target = rule.take(rows), training.take(rows), training.target.name
    for name, column in features.columns.items():
        one = dataclasses.replace(column, is_code=True) if isinstance(column, Category) else column
        x = within_range(one.encode(sample.features[name]))
        tree, score = kind(min_samples_leaf=2, random_state=0), 0.0
        # Few rows have no folds; a class of few rows is not in each fold.
        with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
            score = cross_val_score(tree, x, y[rows], cv=rule.folds(_FOLDS), scoring=metric).mean()
        if score > _BOUND:
            label = metric.replace("_", " ").replace("r2", "R2")
            yield (
                f"{name!r} alone predicts {target!r} ({label} {score:.3f}): leave it out with "
                f"--drop {name!r} unless it is known before {target!r}"
            )
