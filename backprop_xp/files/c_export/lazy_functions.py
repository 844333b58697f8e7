"""The functions of the array API standard for lazy arrays: those that can become C."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.array_utils import normalize_axis_index, normalize_axis_tuple

from backprop_xp.files.c_export.elementwise import (
    NAMES,
    as_array,
    cast,
    elementwise,
    power,
    where,
)
from backprop_xp.files.c_export.lazy_arrays import (
    NAMESPACE,
    LazyArray,
    Shape,
    broadcast,
    constant,
    copied,
    reshaped,
    view,
)

Axis: TypeAlias = int | Sequence[int] | None

# Functions of NumPy that return views.
_VIEWS = (
    *("broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims"),
    "squeeze",
)
_CREATION = ("arange", "eye", "full", "linspace", "ones", "zeros")
_AS_IN_NUMPY = (
    *("bool", "e", "finfo", "float32", "float64", "iinfo", "inf", "int32", "int64", "isdtype"),
    *("nan", "newaxis", "pi", "__array_namespace_info__"),
)


def _view(function: Callable[..., np.ndarray], x: LazyArray, *args: Any, **more: Any) -> LazyArray:
    return view(x, lambda a: function(a, *args, **more))


def _created(function: Callable[..., Any], *args: Any, device: Any = None, **more: Any) -> Any:
    return constant(function(*args, **more))


def _created_like(
    function: Callable[..., Any], x: LazyArray, *args: Any, dtype: Any = None, device: Any = None
) -> LazyArray:
    one = function((), *args, dtype=x.dtype if dtype is None else dtype)
    return broadcast(constant(one), x.shape)


def asarray(x: Any, *, dtype: Any = None, device: Any = None, copy: Any = None) -> LazyArray:
    """Return an array of numbers, or of nested lists of them."""
    if isinstance(x, list | tuple) and any(isinstance(one, LazyArray) for one in x):
        return stack([asarray(one, dtype=dtype) for one in x])
    return as_array(x, dtype)


def astype(x: LazyArray, dtype: Any, *, copy: Any = True, device: Any = None) -> LazyArray:
    """Return an array in another dtype."""
    return cast(x, dtype)


def result_type(*operands: Any) -> Any:
    """Return the dtype of operations on these."""
    return np.result_type(*(x.dtype if isinstance(x, LazyArray) else x for x in operands))


def clip(
    x: LazyArray,
    min: Any = None,  # noqa: A002
    max: Any = None,  # noqa: A002
) -> LazyArray:
    """Return x within two bounds."""
    x = x if min is None else elementwise("maximum", x, min)
    return x if max is None else elementwise("minimum", x, max)


def reshape(x: LazyArray, shape: Sequence[int], *, copy: Any = None) -> LazyArray:
    """Return x in another shape."""
    return reshaped(x, shape)


def broadcast_arrays(*arrays: LazyArray) -> list[LazyArray]:
    """Return arrays in their common shape."""
    shape = np.broadcast_shapes(*(x.shape for x in arrays))
    return [broadcast(x, shape) for x in arrays]


def unstack(x: LazyArray, *, axis: int = 0) -> tuple[LazyArray, ...]:
    """Return the arrays along an axis."""
    first = _view(np.moveaxis, x, axis, 0)
    return tuple(first[i] for i in range(len(first)))


def concat(arrays: Sequence[LazyArray], *, axis: int | None = 0) -> LazyArray:
    """Return arrays joined along an axis."""
    given = [as_array(x) for x in arrays]
    if axis is None:
        return concat([reshaped(x, (-1,)) for x in given])
    axis = normalize_axis_index(axis, given[0].ndim)
    dtype = result_type(*given)
    if len({(*x.shape[:axis], *x.shape[axis + 1 :]) for x in given}) > 1:
        raise ValueError(f"concat: the shapes {[x.shape for x in given]} differ off axis {axis}.")
    parts = [cast(x, dtype) for x in given if x.size] or given[:1]
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(x.shape[axis] for x in parts)
    return LazyArray("concat", tuple(parts), tuple(shape), dtype, axis)


def stack(arrays: Sequence[LazyArray], *, axis: int = 0) -> LazyArray:
    """Return arrays joined along a new axis."""
    return concat([_view(np.expand_dims, as_array(x), axis) for x in arrays], axis=axis)


def roll(x: LazyArray, shift: int, *, axis: int) -> LazyArray:
    """Return x with its entries shifted along one axis."""
    first = _view(np.moveaxis, x, axis, 0)
    start = -shift % len(first)
    return _view(np.moveaxis, concat([first[start:], first[:start]]), 0, axis)


def take(x: LazyArray, indices: Any, *, axis: int | None = None) -> LazyArray:
    """Return the entries at indices along an axis; an index out of range is the nearest one."""
    at, dimension = as_array(indices, "int64"), 0 if axis is None and x.ndim == 1 else axis
    axis = normalize_axis_index(dimension, x.ndim)  # type: ignore[arg-type]
    shape = (*x.shape[:axis], *at.shape, *x.shape[axis + 1 :])
    # The entries at index 0, and the index to add, for each entry of the result.
    first = x[(*[slice(None)] * axis, 0, *[None] * at.ndim)]
    along = at[(..., *[None] * (x.ndim - axis - 1))]
    inputs = (broadcast(first, shape), broadcast(along, shape))
    return LazyArray("take", inputs, shape, x.dtype, (x.layout[2][axis], x.shape[axis]))


def _reduced(name: str, x: LazyArray, axis: Axis, *, keepdims: Any = False) -> LazyArray:
    axes = normalize_axis_tuple(range(x.ndim) if axis is None else axis, x.ndim)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    if not x.size:
        x = constant(getattr(np, name)(np.empty(x.shape, x.dtype), axis=axes, keepdims=True))
    elif math.prod(x.shape[i] for i in axes) > 1:
        x = LazyArray(name, (x,), kept, x.dtype, axes)
    return x if keepdims else _view(np.squeeze, x, axes)


def _total(
    name: str, x: LazyArray, *, axis: Axis = None, dtype: Any = None, keepdims: Any = False
) -> LazyArray:
    """Return the sum or the product over axes; that of integers is int64."""
    if dtype is None:
        dtype = getattr(np, name)(np.ones(1, x.dtype)).dtype
    return _reduced(name, cast(x, dtype), axis, keepdims=keepdims)


def _extreme(name: str, x: LazyArray, *, axis: Axis = None, keepdims: Any = False) -> LazyArray:
    """Return the largest or the least entry over axes; of booleans ``any`` or ``all``."""
    is_boolean = name in ("any", "all")
    reduction = {"any": "max", "all": "min"}.get(name, name)
    return _reduced(reduction, cast(x, "bool") if is_boolean else x, axis, keepdims=keepdims)


def mean(x: LazyArray, *, axis: Axis = None, keepdims: Any = False) -> LazyArray:
    """Return the mean over axes."""
    total = _total("sum", x, axis=axis, keepdims=keepdims)
    return total / (x.size // total.size)


def var(
    x: LazyArray, *, axis: Axis = None, correction: float = 0.0, keepdims: Any = False
) -> LazyArray:
    """Return the variance over axes."""
    centred = x - mean(x, axis=axis, keepdims=True)
    squares = _total("sum", centred * centred, axis=axis, keepdims=keepdims)
    return squares / (x.size // squares.size - correction)


def std(x: LazyArray, **options: Any) -> LazyArray:
    """Return the standard deviation over axes."""
    return elementwise("sqrt", var(x, **options))


def vecdot(a: LazyArray, b: LazyArray, *, axis: int = -1) -> LazyArray:
    """Return the sum of products along an axis."""
    return _total("sum", a * b, axis=axis)


def matmul(first: Any, second: Any) -> LazyArray:
    """Return the matrix product; a vector is a row on the left and a column on the right."""
    a, b = as_array(first), as_array(second)
    if a.ndim == 1:
        return matmul(a[None, :], b)[..., 0, :] if b.ndim > 1 else matmul(a[None, :], b)[0]
    if b.ndim == 1:
        return matmul(a, b[:, None])[..., 0]
    if a.shape[-1] != b.shape[-2]:
        raise ValueError(f"matmul: the shapes {a.shape} and {b.shape} do not fit.")
    if a.dtype == b.dtype == bool:
        raise TypeError("matmul of booleans cannot be recorded: make numbers of them by xp.astype.")
    if a.shape[-1] == 1:
        return a * b
    dtype, stack = result_type(a, b), np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (broadcast(cast(x, dtype), (*stack, *x.shape[-2:])) for x in (a, b))
    # A product in C reads rows of a, and b by its rows or by its columns.
    a = a if a.layout[2][-1] == 1 else copied(a)
    b = b if 1 in b.layout[2][-2:] else copied(b)
    return LazyArray("product", (a, b), (*stack, a.shape[-2], b.shape[-1]), dtype)


def _names() -> dict[str, Any]:
    """Return the entries of the namespace."""
    functions: tuple[Callable[..., Any], ...] = (
        *(asarray, astype, broadcast_arrays, clip, concat, matmul, mean, reshape, result_type),
        *(roll, stack, std, take, unstack, var, vecdot, where),
    )
    names: dict[str, Any] = {function.__name__: function for function in functions}
    names |= {name: getattr(np, name) for name in _AS_IN_NUMPY}
    names |= {name: functools.partial(elementwise, name) for name in NAMES}
    names |= {name: functools.partial(_view, getattr(np, name)) for name in _VIEWS}
    names |= {name: functools.partial(_created, getattr(np, name)) for name in _CREATION}
    for name in ("full", "ones", "zeros"):
        names[f"{name}_like"] = functools.partial(_created_like, getattr(np, name))
    names |= {name: functools.partial(_total, name) for name in ("prod", "sum")}
    names |= {name: functools.partial(_extreme, name) for name in ("all", "any", "max", "min")}
    names |= {"empty": names["zeros"], "empty_like": names["zeros_like"], "pow": power}
    return names | {"square": lambda x: x * x, "reciprocal": lambda x: 1.0 / x}


def argument(name: str, shape: Shape, dtype: np.dtype[Any]) -> LazyArray:
    """Return the array that an argument of a function in C is."""
    return LazyArray("input", (), shape, dtype, name)


vars(NAMESPACE).update(_names())
