"""A file of C in the making: its types, literals, constants, and the functions that it calls."""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from backprop_xp.files.c_export.elementwise import BODIES, INTEGER_BODIES
from backprop_xp.files.c_export.layer_comments import LayerComments
from backprop_xp.networks.network import Network

# The types of values. In memory a boolean is an unsigned char.
TYPES = {"bool": "int", "int32": "long", "int64": "long long"}
TYPES |= {"float32": "float", "float64": "double"}
_SUFFIXES = {"bool": "b", "int32": "l", "int64": "ll", "float32": "f", "float64": ""}
_BOOLEAN = ("isnan", "isinf", "isfinite")
# Bodies of functions that are called for other operations. They count down to 0: gcc 12 warns of a
# rest that it takes for endless where an index counts up.
_PRODUCTS = {
    # Four rows of b at a time: c is read and written a quarter as often, and sums are shorter.
    "product": """{I} j;
    for (j = 0; j < n; ++j) c[j] = 0;
    for (; k >= 4; k -= 4, a += 4, b += 4 * step) {{
        const {T} *b1 = b + step, *b2 = b1 + step, *b3 = b2 + step;
        const {T} a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
        for (j = 0; j < n; ++j)
            c[j] += (a0 * b[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j]);
    }}
    for (; k > 0; --k, ++a, b += step)
        for (j = 0; j < n; ++j) c[j] += *a * b[j];""",
    "product_by_columns": """for (; n > 0; --n, ++c, b += step) {{
        const {T} *p = a, *q = b;
        {T} s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        {I} left = k;
        for (; left >= 4; left -= 4, p += 4, q += 4) {{
            s0 += p[0] * q[0];
            s1 += p[1] * q[1];
            s2 += p[2] * q[2];
            s3 += p[3] * q[3];
        }}
        for (; left > 0; --left, ++p, ++q) s0 += *p * *q;
        *c = (s0 + s1) + (s2 + s3);
    }}""",
}
_COMMENTS = {
    "product": "The row a[k] times the matrix b[k][n], whose rows are step entries apart.",
    "product_by_columns": "The row a[k] times a matrix b[k][n], whose columns are in rows of b.",
}
_TO_INTEGER = (
    "return a >= 9.2233720368547758e18{f} ? 9223372036854775807LL\n"
    "        : a > -9.2233720368547758e18{f} ? (long long)a : -9223372036854775807LL - 1;"
)
_INDEX = "if (i < 0) i += n;\n    return ({I})(i < 0 ? 0 : i >= n ? n - 1 : i);"


@dataclass
class Source:
    """A file in the making: its prefix and type of indices, and the functions and constants used.

    ``layers`` are comments. ``functions`` are texts by name; ``constants`` are names by dtype and
    content.
    """

    name: str
    index: str
    layers: LayerComments
    functions: dict[str, str] = field(default_factory=dict)
    constants: dict[tuple[Any, bytes], str] = field(default_factory=dict)

    @classmethod
    def of(cls, network: Network, theta: np.ndarray, name: str) -> Self:
        """Return an empty file for a network, with a type of indices for its parameters."""
        index = "int" if theta.size < 2**15 else "long"
        return cls(name, index, LayerComments.of(network))

    def call(self, function: str, dtype: np.dtype[Any]) -> str:
        """Return the name of a function for arguments of a dtype, and keep its text."""
        suffix = _SUFFIXES[str(dtype)]
        name = f"{self.name}_{function}{'_' * (suffix not in ('f', ''))}{suffix}"
        if name not in self.functions:
            self.functions[name] = _function(name, function, dtype, self.index)
        return name

    def constant(self, values: np.ndarray) -> str:
        """Return the name of an array of constants."""
        key = (values.dtype, values.tobytes())
        return self.constants.setdefault(key, f"{self.name}_c{len(self.constants)}")


class Text(str):
    """An expression; ``level`` is 3 for an operand, 2 for a product, 1 for a sum, 0 for others."""

    level: int

    def __new__(cls, text: str, level: int = 3) -> Self:
        """Return a string with its level."""
        self = super().__new__(cls, text)
        self.level = level
        return self

    def within(self, level: int) -> str:
        """Return it as an operand that needs a level: in brackets below that."""
        return self if self.level >= level else f"({self})"


def _function(name: str, function: str, dtype: np.dtype[Any], index: str) -> str:
    """Return the text of a function in C."""
    kind, is_float = TYPES[str(dtype)], dtype.kind == "f"
    fill = {"T": kind, "f": "f" if kind == "float" else "", "I": index}
    if function in _PRODUCTS:
        arguments = (
            f"const {kind} *a, const {kind} *b, {kind} *c, {index} k, {index} n, {index} step"
        )
        body, result = _PRODUCTS[function], "void"
    elif function == "index":
        arguments, body, result = f"long long i, {index} n", _INDEX, index
    elif function == "to_integer":
        arguments, body, result = f"{kind} a", _TO_INTEGER, "long long"
    else:
        body = (BODIES if is_float else INTEGER_BODIES)[function]
        result = "int" if function in _BOOLEAN else kind
        arguments = f"{kind} a, {kind} b" if re.search(r"\bb\b", body) else f"{kind} a"
    comment = f"/* {_COMMENTS[function]} */\n" if function in _COMMENTS else ""
    return f"{comment}static {result} {name}({arguments})\n{{\n    {body.format(**fill)}\n}}\n"


def literal(value: Any, dtype: np.dtype[Any]) -> Text:
    """Return a number in C: the shortest decimals that are read as this number."""
    if dtype.kind == "f":
        if not np.isfinite(value):
            text = "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
        else:
            # Not str, which numpy.set_printoptions(legacy="1.13") shortens.
            number, is_plain = dtype.type(value), value == 0 or 1e-4 <= abs(value) < 1e16
            form = np.format_float_positional if is_plain else np.format_float_scientific
            text = form(number, trim="0" if is_plain else "-")
            text += "f" if dtype.itemsize == 4 else ""
    elif dtype.kind == "b" or abs(int(value)) < 2**15:
        text = str(int(value))
    else:
        text = f"{int(value)}LL" if value != -(2**63) else "(-9223372036854775807LL - 1)"
    return Text(text, 2 if text.startswith("-") else 3)


def storage(dtype: np.dtype[Any]) -> str:
    """Return the type of entries in memory."""
    return "unsigned char" if dtype.kind == "b" else TYPES[str(dtype)]


def in_comment(text: str) -> str:
    """Return a text as it can stand in a comment."""
    plain = text.encode("ascii", "replace").decode()
    return plain.replace("*/", "* /").replace("/*", "/ *")


def constant_lines(
    name: str, values: np.ndarray, notes: Mapping[int, str] = MappingProxyType({})
) -> Iterator[str]:
    """Yield the lines of an array of constants, with notes on those from some indices on."""
    yield f"static const {storage(values.dtype)} {name}[{values.size}] = {{"
    flat = values.reshape(-1)
    for first, end in itertools.pairwise([*sorted({0, *notes}), flat.size]):
        if first in notes:
            yield f"    /* {in_comment(notes[first])} */"
        for start in range(first, end, 8):
            row = flat[start : min(start + 8, end)].tolist()
            yield f"    {', '.join(literal(value, values.dtype) for value in row)},"
    yield from ["};", ""]


def string_in_c(text: str) -> str:
    """Return a string in C: UTF-8, in escapes where a compiler could read other characters."""
    plain = re.compile(rb"[ !#->@-\[\]-~]")
    letters = (bytes([byte]) for byte in text.encode())
    return '"' + "".join(b.decode() if plain.match(b) else f"\\{b[0]:03o}" for b in letters) + '"'
