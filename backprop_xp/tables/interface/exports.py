"""The public exports of a tabular estimator: a graph of ONNX, and a file of C."""

import os
from typing import Any

from sklearn.utils.validation import check_is_fitted

from backprop_xp.files.c_export.c_file import Options
from backprop_xp.tables.export.graph import write_model_graph
from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor


def export_c(
    path: str | os.PathLike[str],
    estimator: TabularClassifier | TabularRegressor,
    *,
    name: str = "model",
    test: Any = None,
) -> None:
    """Write a fitted estimator as a file of C99: from the columns of a row to predictions.

    The type ``NAME_row`` has a field for each column in use: a number is a double (NAN is missing),
    a category a string of UTF-8 (NULL and ``""`` are missing), a date microseconds since 1970 on
    the clock of the column's time zone (LLONG_MIN is missing). Integers beyond 2**53 are ``long
    long``, so below 2**63: those of uint64 beyond it have no field.

    ``NAME_predict(row, y)`` of a classifier fills in the probabilities and returns the index of the
    class; a regressor's ``NAME_predict(row)`` returns the number. Comments in the file name the
    columns and the classes.

    With ``test``, a table as ``predict`` takes it, a second file is written: ``model_test.c`` for
    ``model.c``. Its program returns 0 if the results of the first 32 rows are right where it runs.

    Raises ValueError for a column of free text, and TypeError for an estimator of another kind.
    """
    if not isinstance(estimator, TabularClassifier | TabularRegressor) or not isinstance(
        path, str | os.PathLike
    ):
        raise TypeError(
            "The arguments are bx.tables.export_c(path, estimator), with a TabularClassifier or a "
            f"TabularRegressor, but a {type(path).__name__} and a {type(estimator).__name__} came. "
            "bx.export_c(path, estimator) exports other estimators of this library, too."
        )
    estimator._export_c(path, Options(name, test=test))


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
    write_model_graph(path, estimator.model_)
