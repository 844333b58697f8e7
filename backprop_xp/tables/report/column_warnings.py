"""Warnings about columns: identifiers, values that are alike, and what gives the target away."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import cross_val_score
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.scaling import within_range
from backprop_xp.tables.model.rows import Rows
from backprop_xp.tables.report.split import SplitRule

# In about 40 real tables, columns that give the target away reach 0.95 to 1, and others at most
# 0.92, but for the width of a petal, from which the species of an iris follows (0.96).
_BOUND = 0.93
# So many rows, in three folds, take less than a second for 50 columns.
_ROWS, _FOLDS = 2000, 3
# A line names at most so many values, or groups of them.
_NAMES = 3
# Columns with trees of their own: a budget of time would let the machine choose the warnings.
_TREES = 200


def column_warnings(
    columns: Mapping[str, Column], table: Rows, rule: SplitRule, time: str | None
) -> Iterator[str]:
    """Yield lines about detected columns; ``time`` is one of times, which may differ in all rows.

    They depend on no seed, so that each training on a table has the same. A column gives the target
    away if a decision tree on it alone predicts more than 0.93 of the target, cross-validated: R2,
    or the balanced accuracy. At most 200 columns have a tree, those on which the target depends
    most; a line counts the others.
    """
    for name, column in columns.items():
        if name != time and column.may_identify(table.features[name]):
            yield (
                f"{name!r} has a different whole number in each of {len(table.target):,} rows: "
                f"leave it out with --drop {name!r} if it identifies rows"
            )
    named: dict[str, Iterable[Any]] = {
        name: column.spellings(table.features[name]) for name, column in columns.items()
    }
    if rule.classes is not None:
        named[str(table.target.name)] = table.target.unique().tolist()
    yield from filter(None, (_line_about_alike(name, values) for name, values in named.items()))
    # A rare class needs all its rows.
    labels = pd.Series(0 if rule.classes is None else rule.classes, index=rule.numbers)
    shuffled = labels.sample(frac=1.0, random_state=0)
    rows = shuffled.groupby(shuffled).head(max(_FOLDS, _ROWS // labels.nunique())).index.to_numpy()
    sample, rule = table.take(rows), rule.take(rows)._replace(seed=0)
    encoded = {name: _encoded(column, sample.features[name]) for name, column in columns.items()}
    yield from _leaks(encoded, sample.target, rule)


def _line_about_alike(name: str, values: Iterable[Any]) -> str | None:
    """Return a line about strings that differ only in blanks or case, None without such strings."""
    groups: dict[str, list[str]] = {}
    for value in sorted(value for value in values if isinstance(value, str)):
        groups.setdefault("".join(value.split()).casefold(), []).append(value)
    alike = [group for group in groups.values() if len(group) > 1]
    if not alike:
        return None
    more = f", and {len(alike) - _NAMES} more" if len(alike) > _NAMES else ""
    shown = ", ".join(" and ".join(map(repr, group)) for group in alike[:_NAMES])
    at_ends = all(len({value.strip().casefold() for value in group}) == 1 for group in alike)
    blanks = ".str.strip()" if at_ends else '.str.replace(r"\\s", "", regex=True)'
    return (
        f"{name!r} has values that differ only in blanks or case: {shown}{more}. Each is a value "
        f"of its own: if they mean the same, prepare the files with pandas' {blanks}.str.casefold()"
    )


def _leaks(encoded: Mapping[str, np.ndarray], values: pd.Series, rule: SplitRule) -> Iterator[str]:
    """Yield a line for each column that gives the target away, and one about the others."""
    y, kind, metric = rule.classes, DecisionTreeClassifier, "balanced_accuracy"
    if y is None:
        y, kind, metric = values.to_numpy(), DecisionTreeRegressor, "r2"
    target, names = values.name, [*encoded]
    if len(names) > _TREES:
        dependences = _dependences(encoded, values, rule)
        chosen = {*sorted(names, key=dependences.__getitem__)[-_TREES:]}
        yield (
            f"{len(names) - _TREES:,} of {len(names):,} columns are not checked for giving "
            f"{target!r} away: it depends less on them than on the others"
        )
        names = [name for name in names if name in chosen]
    for name in names:
        tree, score = kind(min_samples_leaf=2, random_state=0), 0.0
        # Few rows have no folds; a class of few rows is not in each fold.
        with contextlib.suppress(ValueError), warnings.catch_warnings(action="ignore"):
            score = cross_val_score(
                tree, encoded[name], y, cv=rule.folds(_FOLDS), scoring=metric
            ).mean()
        if score > _BOUND:
            label = metric.replace("_", " ").replace("r2", "R2")
            yield (
                f"{name!r} alone predicts {target!r} ({label} {score:.3f}): leave it out with "
                f"--drop {name!r} unless it is known before {target!r}"
            )


def _encoded(column: Column, values: pd.Series) -> np.ndarray:
    """Return the features that a detected column learns from rows; a category is a code."""
    learnt = column.finish(column.count(values, None), above=0, seed=0)
    return np.asarray(within_range(learnt.encode(values)))


def _dependences(
    encoded: Mapping[str, np.ndarray], values: pd.Series, rule: SplitRule
) -> dict[str, float]:
    """Return how far the target is a function of each column: about 0 for none, at most 1.

    It is 1 - a / b: the mean distance a of the targets of neighbours, in the order of a feature,
    and that of any two rows, b. For numbers, the distance is that of their ranks (Chatterjee 2021,
    "A New Coefficient of Correlation"); for classes, 0 or 1.
    """
    labels, found = rule.classes, dict[str, float]()
    y = values.rank().to_numpy() if labels is None else labels

    def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.asarray(np.abs(one - other) if labels is None else one != other)

    usual = distances(y[:, None], y).mean() or 1.0
    for name, features in encoded.items():
        near = y[np.argsort(features, axis=0, kind="stable")]
        found[name] = 1.0 - float(distances(near[1:], near[:-1]).mean(axis=0).min()) / usual
    return found
