"""The importance of each column: the growth of the loss after a shuffle of its values.

Breiman 2001, section 10, with the loss of rows that training has not seen.
"""

from typing import NamedTuple

import numpy as np
from sklearn import metrics

from backprop_xp.tables.model import TableModel
from backprop_xp.tables.problem import labelled_rows
from backprop_xp.tables.readers import TableData, as_frame

# Shuffles of each column.
_SHUFFLES = 5


class Importance(NamedTuple):
    """The growth of the loss after a shuffle of a column: its mean and standard deviation."""

    column: str
    mean: float
    deviation: float


def importances(model: TableModel, data: TableData, *, seed: int = 0) -> list[Importance]:
    """Return the importance of each column for a table's target, the largest first.

    The loss is the log-loss, or the root mean squared error in the target's unit. Rows without a
    target are left out. Rows not used in training are best: training rows also show overfitting.
    """
    target, features = model.target, list(model.preparation.kinds)
    frame = as_frame(data, texts=[target.name, *model.preparation.texts])
    table = labelled_rows(frame, target.name, features=features, classes=target.classes)
    x, y, _ = table.prepared(model.preparation, target)
    generator = np.random.default_rng(seed)
    base, found = _loss(model, x, y), []
    for name, indices in model.preparation.places().items():
        original, growths = x[:, indices], []
        for _ in range(_SHUFFLES):
            x[:, indices] = original[generator.permutation(len(x))]
            growths.append(_loss(model, x, y) - base)
        x[:, indices] = original
        found.append(Importance(name, float(np.mean(growths)), float(np.std(growths))))
    return sorted(found, key=lambda one: -one.mean)


def _loss(model: TableModel, x: np.ndarray, y: np.ndarray) -> float:
    target, outputs = model.target, model.outputs(x)
    if target.classes:
        shares = outputs / outputs.sum(axis=1, keepdims=True)
        return float(metrics.log_loss(y, shares, labels=np.arange(len(target.classes))))
    return float(metrics.root_mean_squared_error(target.decode(y), outputs))
