"""How much each column of a table tells: what is lost where its values are shuffled.

Breiman 2001, section 10, by the loss of rows that training has not seen.
"""

from typing import Any, NamedTuple

import numpy as np
from sklearn import metrics

from backprop_xp.tables.columns import in_its_unit, rows_of, targets_of
from backprop_xp.tables.model import TableModel
from backprop_xp.tables.readers import as_frame

# Shuffles of each column.
_TIMES = 5


class Importance(NamedTuple):
    """By how much the loss grows where a column is shuffled: the mean, and its spread."""

    column: str
    mean: float
    deviation: float


def importances(model: TableModel, data: Any, *, seed: int = 0) -> list[Importance]:
    """Return how much each column tells of a table's target, the most telling first.

    The loss is the log-loss, or the root mean squared error in the target's unit. Rows without a
    target are left out. Training rows say what was learnt by heart, too: give others.
    """
    target, features = model.target, list(model.preparation.kinds)
    frame = as_frame(data, texts=[target.name, *model.preparation.texts])
    table = rows_of(frame, target.name, features=features, classes=target.classes)
    y = targets_of(target, table.target)
    x = model.preparation.transform(table.features)
    generator = np.random.default_rng(seed)
    base, found = _loss(model, x, y), []
    for name, places in model.preparation.places().items():
        kept, grown = x[:, places], []
        for _ in range(_TIMES):
            x[:, places] = kept[generator.permutation(len(x))]
            grown.append(_loss(model, x, y) - base)
        x[:, places] = kept
        found.append(Importance(name, float(np.mean(grown)), float(np.std(grown))))
    return sorted(found, key=lambda one: -one.mean)


def _loss(model: TableModel, x: np.ndarray, y: np.ndarray) -> float:
    target = model.target
    found = model.outputs(x)
    if target.classes:
        shares = found / found.sum(axis=1, keepdims=True)
        return float(metrics.log_loss(y, shares, labels=np.arange(len(target.classes))))
    return float(metrics.root_mean_squared_error(in_its_unit(target, y), found))
