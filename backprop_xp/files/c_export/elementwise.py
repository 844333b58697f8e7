"""Elementwise functions: NumPy's rules for shapes and dtypes, and the expressions in C."""

from typing import Any

import numpy as np

from backprop_xp.files.c_export.lazy_arrays import LazyArray, broadcast, constant, values_of

_INFIX = {
    "add": "+",
    "subtract": "-",
    "multiply": "*",
    "divide": "/",
    "less": "<",
    "less_equal": "<=",
    "greater": ">",
    "greater_equal": ">=",
    "equal": "==",
    "not_equal": "!=",
    "logical_and": "&&",
    "logical_or": "||",
    "logical_xor": "!=",
    "bitwise_and": "&",
    "bitwise_or": "|",
    "bitwise_xor": "^",
}
# The functions of <math.h> with the standard's name.
_MATH = "acos acosh asin asinh atan atan2 atanh ceil copysign cos cosh exp expm1 floor hypot log "
_MATH += "log10 log1p log2 pow sin sinh sqrt tan tanh trunc"
# The functions that C lacks: their bodies for floating arguments a and b of the type {T}. Those of
# two arguments give NaN for a NaN, as NumPy does.
BODIES = {
    "maximum": "return a >= b || a != a ? a : b;",
    "minimum": "return a <= b || a != a ? a : b;",
    "sign": "return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a;",
    "isnan": "return a != a;",
    "isfinite": "return a - a == 0;",
    "isinf": "return a == a && a - a != 0;",
    "logaddexp": (
        "const {T} d = a - b;\n"
        "    if (a == b) return a + log1p{f}(1);\n"
        "    return d > 0 ? a + log1p{f}(exp{f}(-d)) : d <= 0 ? b + log1p{f}(exp{f}(d)) : d;"
    ),
    "remainder": (
        "{T} r = fmod{f}(a, b);\n"
        "    if (r == 0) return copysign{f}(0, b);\n"
        "    return (r < 0) != (b < 0) ? r + b : r;"
    ),
    "floor_divide": (
        "const {T} r = fmod{f}(a, b), q = b == 0 ? a / b : (a - r) / b;\n"
        "    return b != 0 && r != 0 && (r < 0) != (b < 0) ? q - 1 : b == 0 ? q : rint{f}(q);"
    ),
}
INTEGER_BODIES = {
    "maximum": "return a > b ? a : b;",
    "minimum": "return a < b ? a : b;",
    "sign": "return (a > 0) - (a < 0);",
    "abs": "return a < 0 ? -a : a;",
    "remainder": "return b == 0 ? 0 : (a % b + b) % b;",
    "floor_divide": "return b == 0 ? 0 : a / b - (a % b != 0 && (a < 0) != (b < 0));",
}
EXPRESSIONS: dict[str, str] = {name: f"{{0}} {sign} {{1}}" for name, sign in _INFIX.items()}
EXPRESSIONS |= {name: f"{name}{{f}}({{0}})" for name in _MATH.split()}
EXPRESSIONS |= {
    name: f"{name}{{f}}({{0}}, {{1}})" for name in ("atan2", "copysign", "hypot", "pow")
}
EXPRESSIONS |= {"negative": "-{0}", "abs": "fabs{f}({0})", "round": "rint{f}({0})"}
EXPRESSIONS |= {"logical_not": "!{0}", "bitwise_invert": "~{0}", "where": "{0} ? {1} : {2}"}
EXPRESSIONS |= {"copy": "{0}", "cast": "({T})({0})"}
# The functions of one array or two that the namespace has by these tables alone.
NAMES = (EXPRESSIONS.keys() | BODIES.keys()) - {"where", "copy", "cast", "pow"}
OPERATIONS = EXPRESSIONS.keys() | BODIES.keys() | {"take"}
_TO_INTEGERS = ("ceil", "floor", "round", "trunc")
# Functions of booleans that are others in C, where booleans are integers.
_LOGICAL = {f"bitwise_{name}": f"logical_{name}" for name in ("and", "or", "xor")}
_LOGICAL |= {"bitwise_invert": "logical_not", "add": "logical_or", "multiply": "logical_and"}


def as_array(value: Any, dtype: Any = None) -> LazyArray:
    """Return a recorded array, or the constant of an array or a number."""
    if isinstance(value, LazyArray):
        return value if dtype is None else cast(value, dtype)
    found = np.asarray(value, dtype=dtype)
    if found.dtype.kind not in "biuf":
        raise TypeError(f"an array is expected, not {type(value).__name__}.")
    return constant(found)


def cast(array: LazyArray, dtype: Any) -> LazyArray:
    """Return an array in another dtype."""
    target = np.dtype(dtype)
    return array if array.dtype == target else _node("cast", [array], target)


def elementwise(name: str, *operands: Any) -> LazyArray:
    """Return a function of arrays and Python numbers, broadcast, with NumPy's dtypes."""
    given = [x if type(x) in (int, float) else as_array(x) for x in operands]
    if name in _TO_INTEGERS and as_array(given[0]).dtype.kind != "f":
        return as_array(given[0])
    ufunc = np.rint if name == "round" else getattr(np, name)
    kinds = tuple(x.dtype if isinstance(x, LazyArray) else type(x) for x in given)
    *dtypes, result = ufunc.resolve_dtypes((*kinds, *[None] * ufunc.nout))
    if result.kind == "b":
        name, dtypes = _with_boolean_result(name, dtypes)
    arrays = [as_array(x, dtype) for x, dtype in zip(given, dtypes, strict=True)]
    return _node(name, arrays, result)


def _with_boolean_result(name: str, dtypes: list[Any]) -> tuple[str, list[Any]]:
    """Return the function in C for one whose result is boolean, and its arguments' dtypes."""
    if name.startswith("logical"):
        return name, [np.dtype("bool")] * len(dtypes)
    if name in ("isfinite", "isinf", "isnan") and dtypes[0].kind != "f":
        return name, [np.dtype("float64")]
    return _LOGICAL.get(name, name), dtypes


def where(condition: Any, first: Any, second: Any) -> LazyArray:
    """Return the entries of two arrays by a condition."""
    pair = [x if type(x) in (int, float) else as_array(x) for x in (first, second)]
    dtype = np.result_type(*(x.dtype if isinstance(x, LazyArray) else x for x in pair))
    return _node("where", [cast(condition, "bool"), *(as_array(x, dtype) for x in pair)], dtype)


def power(base: Any, exponent: Any) -> LazyArray:
    """Return a power: products for the exponents 2, 3 and 4, a root for 0.5."""
    if isinstance(base, LazyArray) and type(exponent) in (int, float):
        if exponent in (2, 3, 4) and (base.dtype.kind == "f" or type(exponent) is int):
            square = elementwise("multiply", base, base)
            return square if exponent == 2 else square * (base if exponent == 3 else square)
        if exponent == 0.5:
            return elementwise("sqrt", base)
    found = elementwise("pow", base, exponent)
    if found.dtype.kind != "f":
        raise TypeError("a power of integers cannot be recorded: make the base a float.")
    return found


def _node(name: str, arrays: list[LazyArray], dtype: np.dtype[Any]) -> LazyArray:
    """Return an operation on broadcast arrays; its constant if all of them are constants."""
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    values = [values_of(array) for array in arrays]
    if not any(value is None for value in values):
        with np.errstate(all="ignore"):
            found = values[0] if name == "cast" else getattr(np, name)(*values)
            return constant(np.asarray(found).astype(dtype))
    return LazyArray(name, tuple(broadcast(array, shape) for array in arrays), shape, dtype)
