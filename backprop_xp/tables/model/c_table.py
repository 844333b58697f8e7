"""C: preparation and network of a tabular estimator as one file, from a row to predictions.

The library's own functions run on arrays that record them, as those of ``graph`` do for ONNX.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from backprop_xp.atomic_files import write
from backprop_xp.files.c_export import c_ensemble, c_functions
from backprop_xp.files.c_export.c_file import check_name, file_text
from backprop_xp.files.c_export.c_functions import Function, Recorded, kernels_of, start_of
from backprop_xp.files.c_export.c_source import Source, in_comment
from backprop_xp.files.c_export.elementwise import cast
from backprop_xp.files.c_export.lazy_arrays import LazyArray
from backprop_xp.files.c_export.lazy_functions import argument, concat
from backprop_xp.files.c_export.plan import plan
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.date import Date, split_dates
from backprop_xp.tables.columns.number import Number, subtract
from backprop_xp.tables.model.fitted_model import TabularModel
from backprop_xp.tables.model.graph import refuse_texts
from backprop_xp.tables.model.tabular import TabularClassifier, TabularRegressor
from backprop_xp.tables.readers.values import MISSING

# Words of C and C++ that cannot be the name of a field, and macros of headers and of GNU C.
_WORDS = """
alignas alignof and and_eq asm auto bitand bitor bool break case catch char char16_t char32_t
char8_t class co_await co_return co_yield compl complex concept const const_cast consteval
constexpr constinit continue decltype default delete do double dynamic_cast else enum errno
explicit export extern false far float for friend goto i386 if imaginary inline int linux long
mutable namespace near new noexcept noreturn not not_eq nullptr operator or or_eq private
protected public register reinterpret_cast requires restrict return short signed sizeof static
static_assert static_cast struct switch template this thread_local throw true try typedef typeid
typename typeof typeof_unqual union unix unsigned using virtual void volatile wchar_t while xor
xor_eq
"""
_RESERVED = frozenset(_WORDS.split())
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


def export_c(
    path: str | os.PathLike[str],
    estimator: TabularClassifier | TabularRegressor,
    *,
    name: str = "model",
) -> None:
    """Write a fitted estimator as a file of C99: from the columns of a row to predictions.

    The type ``NAME_row`` has a field for each column in use: a number is a double (NAN is missing),
    a category a string of UTF-8 (NULL and ``""`` are missing), a date microseconds since 1970 on
    the clock of the column's time zone (LLONG_MIN is missing). Integers beyond 2**53 are ``long
    long``.

    ``NAME_predict(row, y)`` of a classifier fills in the probabilities and returns the index of the
    class; a regressor's ``NAME_predict(row)`` returns the number. Comments in the file name the
    columns and the classes. Raises ValueError for a column of free text.
    """
    check_is_fitted(estimator, "model_")
    check_name(name)
    model: TabularModel = estimator.model_
    refuse_texts(model.features.columns, "C")
    theta = np.atleast_2d(model.theta)
    source = Source.of(model.network, theta, name)
    vector = argument("theta", theta.shape[1:], theta.dtype)
    one = c_functions.recorded(model.network, vector, source, f"static {{}} {name}_member", None)
    outputs = c_functions.outputs(one)
    members = c_functions.predict(one, outputs)
    every = c_ensemble.stack_of(one, len(theta), f"static {{}} {name}", f"{name}_theta")
    mean = c_ensemble.predict(every, one, members, "mean")
    fields = _fields(model.features.columns)
    made = [outputs, members, mean, _predict(one, model, fields, mean)]
    write(path, file_text(one, theta, made, [*_row_lines(name, model, fields)]).encode("ascii"))


def _fields(columns: Mapping[str, Column]) -> dict[str, tuple[str, str]]:
    """Return the type and the name in C of the field of each column."""
    fields, taken = dict[str, tuple[str, str]](), {*_RESERVED}
    for name, column in columns.items():
        word = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        word = word if word[:1].isalpha() else f"column_{word}".rstrip("_")
        field, i = word, 1
        while field in taken:
            i += 1
            field = f"{word}_{i}"
        taken.add(field)
        is_integer = isinstance(column, Date) or (isinstance(column, Number) and column.origin)
        kind = "long long" if is_integer else "double"
        fields[name] = ("const char *" if isinstance(column, Category) else kind, field)
    return fields


def _row_lines(
    name: str, model: TabularModel, fields: Mapping[str, tuple[str, str]]
) -> Iterator[str]:
    """Yield the lines of the type of a row, and a comment on the classes."""
    yield "typedef struct {"
    for column, (kind, field) in fields.items():
        yield f"    {kind}{' ' * (kind[-1] != '*')}{field}; /* {_comment(column)} */"
    yield from [f"}} {name}_row;", ""]
    if model.classes is not None:
        classes = ", ".join(f"{i}: {_comment(c)}" for i, c in enumerate(model.classes.tolist()))
        yield from [f"/* The classes by their indices: {classes}. */", ""]


def _comment(value: Any) -> str:
    """Return a value as the text of a comment."""
    return in_comment(ascii(value))


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
    words, blanks = (", ".join(map(_string, texts)) for texts in (MISSING, spaces))
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
    strings = ", ".join(map(_string, ranked)) or '""'
    numbers = ", ".join(str(codes[text]) for text in ranked) or "0"
    size = max(1, len(ranked))
    source.functions[table] = (
        f"static const char *const {table}[{size}] = {{{strings}}};\n"
        f"static const int {table}_codes[{size}] = {{{numbers}}};\n"
    )
    arguments = f"{value}, {table}, {table}_codes, {len(ranked)}, {missing}, {unknown}"
    return f"{source.name}_code({arguments})"


def _string(text: str) -> str:
    """Return a string in C: UTF-8, in escapes where a compiler could read other characters."""
    plain = re.compile(rb"[ !#->@-\[\]-~]")
    letters = (bytes([byte]) for byte in text.encode())
    return '"' + "".join(b.decode() if plain.match(b) else f"\\{b[0]:03o}" for b in letters) + '"'


def _block(lines: Sequence[str]) -> list[str]:
    return ["{", *(f"    {line}" for line in lines), "}"]
