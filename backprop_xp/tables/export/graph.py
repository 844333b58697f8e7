"""ONNX: preparation and network of a table's model as one graph, from columns to predictions.

The library's own functions run on the arrays of ndonnx, which record their operations.
"""

import os

import numpy as np

from backprop_xp.files.onnx import libraries, recorded_predictions, write_graph
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.model.fitted_model import TabularModel


def write_model_graph(path: str | os.PathLike[str], model: TabularModel) -> None:
    """Write a model as an ONNX file: one graph from a table's columns to predictions."""
    ndx, _ = libraries()
    columns = model.features.columns
    model.features.refuse_without_graph("ONNX")
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
