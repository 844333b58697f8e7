"""C: preparation and network of a tabular estimator as one file, from a row to predictions.

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
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.date import Date, split_dates
from backprop_xp.tables.columns.number import Number, subtract
from backprop_xp.tables.model.c_row import fields_of, row_lines, string_in_c
from backprop_xp.tables.model.c_table_program import test_program
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.readers.values import MISSING

# The type of a column in C, and the array of a row's values of that type.
_FIELDS = {"double": "numbers", "long long": "integers", "const char *": "codes"}
_LOOKUP = """static int {name}_compare(const char *a, const char *b)
{{
    while (*a && *a == *b) {{
        ++a;
        ++b;
    }}
    return (unsigned char)*a - (unsigned char)*b;
}}

static const char *{name}_after(const char *text, const char *word)
{{
    while (*word && *text == *word) {{
        ++text;
        ++word;
    }}
    return *word ? 0 : text;
}}

static const char *{name}_after_spaces(const char *text)
{{
    static const char *const spaces[] = {{{spaces}}};
    for (int i = 0; i < {space_count};) {{
        const char *rest = {name}_after(text, spaces[i]);
        i = rest ? 0 : i + 1;
        text = rest ? rest : text;
    }}
    return text;
}}

/* Whether a text is a word for a missing value, with any spaces around it. */
static int {name}_is_missing(const char *text)
{{
    static const char *const words[] = {{{words}}};
    text = {name}_after_spaces(text);
    for (int i = 0; i < {word_count}; ++i) {{
        const char *rest = {name}_after(text, words[i]);
        if (rest && !*{name}_after_spaces(rest)) return 1;
    }}
    return 0;
}}

/* The code of a text: values are sorted by their bytes. */
static long long {name}_code(
    const char *text, const char *const *values, const int *codes, int n, int missing, int unknown)
{{
    int low = 0, high = n;
    while (text && low < high) {{
        const int middle = (low + high) / 2, order = {name}_compare(text, values[middle]);
        if (order == 0) return codes[middle];
        if (order < 0) high = middle;
        else low = middle + 1;
    }}
    return !text || {name}_is_missing(text) ? missing : unknown;
}}
"""


def export_model(
    path: str | os.PathLike[str], model: TabularModel, name: str, rows: pd.DataFrame | None
) -> None:
    """Write a model as a file of C, and a program that tests it on rows of a plain table."""
    check_name(name)
    model.features.refuse_texts("C")
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
    features = plan({"x": _features(model, fields, dtype)})
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


def _features(
    model: TabularModel, fields: Mapping[str, tuple[str, str]], dtype: np.dtype[Any]
) -> LazyArray:
    """Return the features of a row, recorded: those of ``Features.transform``."""
    encoded, kinds = dict[str, Any](), [kind for kind, _ in fields.values()]
    counts, seen = {kind: kinds.count(kind) for kind in _FIELDS}, dict.fromkeys(_FIELDS, 0)
    for name, column in model.features.columns.items():
        kind = fields[name][0]
        number = np.dtype("float64" if kind == "double" else "int64")
        row = argument(_FIELDS[kind], (counts[kind],), number)
        values = row[seen[kind] : seen[kind] + 1]
        seen[kind] += 1
        match column:
            case Number(origin=origin):
                encoded[name] = subtract(values, origin)[:, None]
            case Date(parts=parts):
                encoded[name] = split_dates(values, parts)
            case Category():
                encoded[name] = column.features(values)
    found = [cast(part, "float32") for part in model.features.parts(encoded)]
    return cast(concat(found, axis=1), dtype)


def _values(
    source: Source, model: TabularModel, fields: Mapping[str, tuple[str, str]]
) -> Iterator[str]:
    """Yield the lines that gather a row's values by their types; keep the tables of categories."""
    values: dict[str, list[str]] = {}
    for i, (name, column) in enumerate(model.features.columns.items()):
        kind, field = fields[name]
        value = f"row->{field}"
        if isinstance(column, Category):
            value = _code(source, i, column, value)
        values.setdefault(kind, []).append(value)
    for kind, given in values.items():
        number = "double" if kind == "double" else "long long"
        yield f"const {number} {_FIELDS[kind]}[{len(given)}] = {{{', '.join(given)}}};"


def _code(source: Source, i: int, column: Category, value: str) -> str:
    """Return the expression of a category's code; keep its table, sorted by bytes."""
    spaces = [letter for letter in map(chr, range(2**16)) if letter.isspace()]
    words, blanks = (", ".join(map(string_in_c, texts)) for texts in (MISSING, spaces))
    counts = {"word_count": len(MISSING), "space_count": len(spaces)}
    lookup = _LOOKUP.format(name=source.name, words=words, spaces=blanks, **counts)
    source.functions.setdefault("lookup", lookup)
    table = f"{source.name}_category_{i}"
    codes = {text: code for code, text in enumerate(column.values)}
    unknown = len(codes)
    missing = codes.pop(None, unknown)
    # A string in C ends before a NUL, so a value with one is never given.
    texts = [str(text) for text in codes if "\0" not in str(text)]
    ranked = sorted(texts, key=str.encode)
    strings = ", ".join(map(string_in_c, ranked)) or '""'
    numbers = ", ".join(str(codes[text]) for text in ranked) or "0"
    size = max(1, len(ranked))
    source.functions[table] = (
        f"static const char *const {table}[{size}] = {{{strings}}};\n"
        f"static const int {table}_codes[{size}] = {{{numbers}}};\n"
    )
    arguments = f"{value}, {table}, {table}_codes, {len(ranked)}, {missing}, {unknown}"
    return f"{source.name}_code({arguments})"


def _block(lines: Sequence[str]) -> list[str]:
    return ["{", *(f"    {line}" for line in lines), "}"]
