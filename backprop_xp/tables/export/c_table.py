"""C: preparation and network of a table's model as one file, from a row to predictions.

The library's own functions run on arrays that record them, as those of ``graph`` do for ONNX.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from backprop_xp.files.c_export import c_ensemble, c_functions
from backprop_xp.files.c_export.c_functions import Function, Recorded, kernels_of, start_of
from backprop_xp.files.c_export.c_source import Source
from backprop_xp.files.c_export.c_text import check_name, check_tested, file_text, write_files
from backprop_xp.files.c_export.elementwise import cast
from backprop_xp.files.c_export.lazy_arrays import LazyArray
from backprop_xp.files.c_export.lazy_functions import argument, concat
from backprop_xp.files.c_export.plan import plan
from backprop_xp.tables.export.c_row import fields_of, row_lines
from backprop_xp.tables.export.c_table_program import test_program
from backprop_xp.tables.model.fitted_model import TabularModel

# The array in C of a row's numbers of each exported type: a string becomes an integer.
_ARRAYS = {"float64": "numbers", "int64": "integers", "utf8": "codes"}


def export_model(
    path: str | os.PathLike[str], model: TabularModel, name: str, rows: pd.DataFrame | None
) -> None:
    """Write a model as a file of C, and a program that tests it on rows of a plain table."""
    check_name(name)
    model.features.refuse_without_graph("C")
    one, made = _functions(model, name)
    text = file_text(one, np.atleast_2d(model.theta), made, [*row_lines(name, model)])
    program = None
    if rows is not None:
        check_tested(Path(path))
        program = test_program(model, one, rows, Path(path).name)
    write_files(Path(path), text, program)


def _functions(model: TabularModel, name: str) -> tuple[Recorded, list[Function]]:
    """Return the recorded stack, and the functions of the file."""
    theta = np.atleast_2d(model.theta)
    source = Source.of(model.network, theta, name)
    vector = argument("theta", theta.shape[1:], theta.dtype)
    own = f"static {{}} {name}_{{}}"
    one = c_functions.recorded(model.network, vector, source, f"{own}_of_member", None)
    outputs = c_functions.outputs(one)
    members = c_functions.predict(one, outputs)
    every = c_ensemble.stack_of(one, len(theta), own, f"{name}_theta")
    mean = c_ensemble.predict(every, one, members, "mean")
    fields = fields_of(model.features.columns)
    return every, [outputs, members, mean, _predict(one, model, fields, mean)]


def _predict(
    one: Recorded, model: TabularModel, fields: Mapping[str, tuple[str, str]], mean: Function
) -> Function:
    """Return ``NAME_predict``: features, the members' mean, and the meaning of it."""
    name, dtype, source = one.source.name, one.theta.dtype, one.source
    features = plan({"x": _features(model, dtype)})
    given = argument("mean", one.outputs.shape, dtype)
    found = model.in_unit(cast(given, "float64"))
    unit = plan({"y": found})
    n_in, n_out = model.network.widths[0], one.n_out
    lines = [*_values(source, model, fields), f"{one.kind} x[{n_in}];"]
    lines += [f"{one.kind} mean[{n_out}], deviation[{n_out}];"]
    lines += _block([*start_of(features), *kernels_of(features.kernels, features, source)])
    lines += [f"{name}_mean(x, mean, deviation);"]
    scaled = _block([*start_of(unit), *kernels_of(unit.kernels, unit, source)])
    stack = mean.stack + max(features.bytes, unit.bytes)
    stack += (int(n_in or 0) + 2 * n_out) * dtype.itemsize + 8 * len(fields)
    if model.classes is None:
        lines += ["double y[1];", *scaled, "return y[0];"]
        declaration = f"double {name}_predict(const {name}_row *row)"
        return Function(declaration, "The prediction, in the unit of the target.", lines, stack + 8)
    count = len(model.classes)
    lines += [*scaled, "int best = 0;", f"for (int i = 1; i < {count}; ++i) {{"]
    lines += ["    if (y[i] > y[best]) best = i;", "}", "return best;"]
    declaration = f"int {name}_predict(const {name}_row *row, double y[{count}])"
    comment = "y becomes the probabilities of the classes; returns the index of the largest."
    return Function(declaration, comment, lines, stack)


def _features(model: TabularModel, dtype: np.dtype[Any]) -> LazyArray:
    """Return the features of a row, recorded: those of ``Features.transform``."""
    columns, encoded = model.features.columns, dict[str, Any]()
    kinds = [column.exported_type for column in columns.values()]
    seen = dict.fromkeys(_ARRAYS, 0)
    for (name, column), kind in zip(columns.items(), kinds, strict=True):
        number = np.dtype("float64" if kind == "float64" else "int64")
        row = argument(_ARRAYS[kind], (kinds.count(kind),), number)
        encoded[name] = column.features(row[seen[kind] : seen[kind] + 1])
        seen[kind] += 1
    found = [cast(part, "float32") for part in model.features.parts(encoded)]
    return cast(concat(found, axis=1), dtype)


def _values(
    source: Source, model: TabularModel, fields: Mapping[str, tuple[str, str]]
) -> Iterator[str]:
    """Yield the lines that gather a row's values by their types; keep the tables of categories."""
    values: dict[str, list[str]] = {}
    for i, (name, column) in enumerate(model.features.columns.items()):
        value = column.value_in_c(source, f"column_{i}", f"row->{fields[name][1]}")
        values.setdefault(column.exported_type, []).append(value)
    for kind, given in values.items():
        number = "double" if kind == "float64" else "long long"
        yield f"const {number} {_ARRAYS[kind]}[{len(given)}] = {{{', '.join(given)}}};"


def _block(lines: Sequence[str]) -> list[str]:
    return ["{", *(f"    {line}" for line in lines), "}"]
