"""ONNX: preparation and network of a tabular estimator as one graph, from columns to predictions.

The library's own functions run on the arrays of ndonnx, which record their operations.
"""

import os

import numpy as np
from sklearn.utils.validation import check_is_fitted

from backprop_xp.files.onnx import libraries, recorded_predictions, write_graph
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.tabular import TabularClassifier, TabularRegressor


def export_onnx(
    path: str | os.PathLike[str], estimator: TabularClassifier | TabularRegressor
) -> None:
    """Write a fitted estimator as an ONNX file: one graph from a table's columns to predictions.

    Each column in use is an input of its name, ``(rows,)``: a number as float64 (NaN is missing),
    a category as a string (``""`` is missing), a date as int64, microseconds since 1970 on the
    clock of the column's time zone (-2**63 is missing, as in NumPy). Integers beyond 2**53 are
    int64.

    The outputs are ``label`` ``(rows,)`` and ``probabilities`` ``(rows, classes)``, or
    ``predictions`` ``(rows,)``; numbers are float64. Raises ValueError for a column of free text,
    and for one with the name of an output.
    """
    check_is_fitted(estimator, "model_")
    ndx, _ = libraries()
    model: TabularModel = estimator.model_
    columns = model.features.columns
    model.features.refuse_texts("ONNX")
    _check_names(columns, ["predictions"] if model.classes is None else ["label", "probabilities"])
    recorded = {name: column.graph_input() for name, column in columns.items()}
    encoded = {name: features for name, (_, features) in recorded.items()}
    parts = [ndx.astype(part, ndx.float32) for part in model.features.parts(encoded)]
    theta = np.atleast_2d(model.theta)
    # Each member has its own x: the number of rows is unknown, so x cannot be repeated later.
    x = ndx.concat(parts, axis=1) + ndx.asarray(np.zeros((len(theta), 1, 1), theta.dtype))
    predictions = recorded_predictions(model.network, theta, x)
    values = model.in_unit(ndx.astype(ndx.mean(predictions, axis=0), ndx.float64))
    outputs = {"predictions": values}
    if model.classes is not None:
        classes = ndx.asarray(np.asarray(model.classes.tolist()))
        label = ndx.take(classes, ndx.argmax(values, axis=1))
        outputs = {"label": label, "probabilities": values}
    write_graph(path, {name: values for name, (values, _) in recorded.items()}, outputs)


def _check_names(columns: dict[str, Column], outputs: list[str]) -> None:
    for name in {"", *outputs} & columns.keys():
        raise ValueError(
            f"a column is named {name!r}, which cannot be an input: rename it before the training."
        )
