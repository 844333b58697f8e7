"""Operators, indexing and int32 arithmetic, as the maths uses them, compared with NumPy's."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import Array, Backend, Device
from backprop_xp.testing.comparing import (
    FLOATING,
    REAL,
    cast,
    put,
    require_computed,
    require_computed_in,
    require_dtype,
    require_values,
)
from backprop_xp.testing.kit import Check, expect

_INT32 = ("int32",)

_generator = np.random.default_rng(0)
# No zeros: all are divided by.
_A = _generator.uniform(0.5, 2.0, (2, 3)) * np.array([[1.0, -1.0, 1.0]])
_ROW = np.array([[0.3, -1.7, 2.9]])
_CUBE = _generator.normal(size=(2, 3, 4))
_STACK = _generator.normal(size=(5, 1, 3, 4))
_WEIGHTS = _generator.normal(size=(2, 4, 2))
# Over all of int32, ends included: products and sums wrap around.
_BITS = np.array(
    [-(2**31), 2**31 - 1, -1, 0, 1, 0x7FEB352D, -0x7B935975, 123456789], dtype=np.int32
)

Compute = Callable[..., Any]


def _operators(a: Array, row: Array) -> list[Array]:
    return [a + row, a - row, a * row, a / row, -a, row - a]


def _numbers(a: Array) -> list[Array]:
    return [2.0 * a, a * 2, 1.0 - a, 1.0 / a, a / 3, a + 1.0, 0.5 + a, a - 0.5, a**2, 3 * a**2]


def _comparisons(a: Array, row: Array) -> list[Array]:
    numbers = [a > 0.5, a >= 0.5, a < 0.5, a <= 0.5, a == 0.5, a != 0.5]
    return [a > row, a >= row, a < row, a <= row, (a == row) & (a > 0), (a < 0) | (a > 1), *numbers]


def _products(x: Array, weights: Array, stack: Array) -> list[Array]:
    return [x[0, ...] @ weights[0, ...], x @ weights[0, ...], x @ weights, stack @ weights]


def _transposed_products(x: Array, weights: Array) -> list[Array]:
    # A product with a strided operand, as backpropagation's are.
    return [x[..., 1:3, :2] @ weights[:, :2, :], x[..., ::2] @ weights[..., :2, :]]


def _in_place(a: Array, row: Array) -> list[Array]:
    z = a + 0.0
    z += row
    z *= a
    z -= row
    z /= a
    z += 1.0
    z *= 0.5
    z /= 2.0
    z -= 1.0
    return [z, a, row]


def _views(x: Array) -> list[Array]:
    some = [x[..., None, 1:3], x[..., 0, :], x[..., 0], x[1:, ...], x[0, 1:, None, :], x[(0, ...)]]
    return [*some, x[0, :, 0][None, :], x[:, :, None, :], x[..., 0:0], x[0, 0, 0], x[..., 1:2, :]]


def _mixed(z: Array, x: Array) -> list[Array]:
    return [z - x, x + z, x * z, z / x, x * (1.0 - z)]


def _real_beside_complex(precision: str, dtype: str, backend: Backend, device: Device) -> None:
    """Targets and weights stay real where the complex step makes the outputs complex."""
    require_dtype(backend, device, dtype)
    hosts = [cast(_A, dtype), cast(_ROW, precision)]
    require_computed(backend, device, _mixed, *hosts)


def _hash_steps(h: Array) -> list[Array]:
    return [
        h * 0x7FEB352D,
        h * -0x7B935975,
        h - 0x61C88647,
        h + 0x7FFFFFFF,
        h * h,
        h[:, None] + h[None, :],
        -h,
        h >> 16,
        (h >> 15) & 0x1FFFF,
        h & 0x7FFFFFFF,
        h ^ (h >> 16),
        h[:, None] ^ h[None, :],
        h >= 0x40000000,
        (h & 0x7FFFFFFF) // 3,
    ]


def _dtypes_compare(backend: Backend, device: Device) -> None:
    # The maths remembers what it asked about a dtype, by the namespace and the dtype.
    xp = backend.namespace()
    (x,) = put(backend, device, np.ones(2, np.float32))
    expect(x.dtype == xp.float32, f"the dtype {x.dtype} is not equal to the namespace's float32")
    expect(x.dtype != xp.int32, "float32 is equal to int32")
    hash(xp)
    expect(hash(x.dtype) == hash((x + x).dtype), "a dtype's hash changes from array to array")


def _become_numbers(backend: Backend, device: Device) -> None:
    x, i = put(backend, device, np.array([0.5, -2.0], np.float32), np.array([7, -3], np.int32))
    expect(float(x[1]) == -2.0, f"float(x[1]) is {float(x[1])}, not -2.0")
    expect(int(i[0]) == 7, f"int(i[0]) is {int(i[0])}, not 7")
    expect(bool(x[0] > 0.0) is True and bool(x[1] > 0.0) is False, "bool(x > 0) is wrong")


def _own_arrays_alone(backend: Backend, device: Device) -> None:
    host = np.array([1.0, 2.0, 4.0], np.float32)
    (x,) = put(backend, device, host.copy())
    made = [1.0 * x, x + 0.0, backend.namespace().zeros_like(x)]
    for array in made:
        array += 1.0
        array *= x
    require_values(backend.to_host(x), host, "an array that others were made from")


_COMPARED: list[tuple[str, str, Compute, tuple[np.ndarray, ...], tuple[str, ...]]] = [
    ("operators", "+ - * / and - of arrays that broadcast", _operators, (_A, _ROW), FLOATING),
    (
        "Python numbers",
        "a Python number beside an array keeps the dtype",
        _numbers,
        (_A,),
        FLOATING,
    ),
    (
        "comparisons",
        "comparisons give booleans, which & and | join",
        _comparisons,
        (_A, _ROW),
        REAL,
    ),
    ("@", "@ over stacks that broadcast", _products, (_CUBE, _WEIGHTS, _STACK), FLOATING),
    ("@ of slices", "@ of arrays with strides", _transposed_products, (_CUBE, _WEIGHTS), FLOATING),
    ("in place", "+= and its like compute the same as +", _in_place, (_A, _ROW), FLOATING),
    ("indexing", "integers, slices, None and ... take the same parts", _views, (_CUBE,), FLOATING),
    ("int32", "int32 wraps around, shifts with its sign, and masks", _hash_steps, (_BITS,), _INT32),
]

CHECKS = [
    *(
        Check(
            "the standard",
            name if dtypes is _INT32 else f"{name}, {dtype}",
            sentence,
            functools.partial(require_computed_in, compute, arguments, dtype),
        )
        for name, sentence, compute, arguments, dtypes in _COMPARED
        for dtype in dtypes
    ),
    *(
        Check(
            "the standard",
            f"real beside {dtype}",
            "a real array beside a complex one of its precision",
            functools.partial(_real_beside_complex, precision, dtype),
        )
        for precision, dtype in (("float32", "complex64"), ("float64", "complex128"))
    ),
    Check("the standard", "dtypes", "dtypes compare and hash", _dtypes_compare),
    Check(
        "the standard",
        "numbers out",
        "an array without axes becomes a Python number",
        _become_numbers,
    ),
    Check(
        "the standard",
        "own arrays alone",
        "what is computed in place leaves its source as it was",
        _own_arrays_alone,
    ),
]
