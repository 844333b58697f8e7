"""The functions of the standard that the maths calls, each compared with NumPy's on small arrays.

``FUNCTIONS`` is the whole list: a test holds it equal to the names that the maths uses.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from backprop_xp.backends import Backend, Device, device_of
from backprop_xp.testing.comparing import (
    FLOATING,
    REAL,
    cast,
    precision_for,
    put,
    require_dtype,
    require_same,
)
from backprop_xp.testing.kit import Check, expect

COMPLEX = ("complex64", "complex128")

# Floating arrays are cast to the dtype of the check; integers and booleans stay as they are.
# Few of them are binary fractions, which no rounding would change.
_SIGNED = np.array([[-2.1, -0.3, 0.6], [1.0, 0.0, 3.3]])
_OTHER = np.array([[1.7, -0.3, -0.7], [0.1, 2.3, -4.1]])
_POSITIVE = np.array([[0.3, 1.0, 2.1], [3.7, 0.7, 10.1]])
_TINY = np.array([1e-6, -2e-6, 3e-6])
_SMALL = np.array([1e-3, -2e-3, 4e-3])
_SPECIAL = np.array([0.1, np.inf, -np.inf, np.nan, -2.1])
_HUGE = np.array([1e4, -1e4])
_CUBE = np.arange(24.0).reshape(2, 3, 4) / 7.0
_INTEGERS = np.array([[3, -1, 2], [2, -7, 0]], dtype=np.int32)
_TIES = np.array([2.1, 1.3, 2.1, 1.3, 0.7])
_ORDER = np.array([2, 0, 1, 2])
_BOOLEANS = np.array([[True, False, True], [True, True, True]])


class Use(NamedTuple):
    """One way in which the maths calls a function: ``call(xp, *arrays)``, in some dtypes."""

    call: Callable[..., Any]
    arguments: tuple[np.ndarray, ...]
    dtypes: tuple[str, ...] = REAL


def _of(name: str, **options: Any) -> Callable[..., Any]:
    return lambda xp, *arrays: getattr(xp, name)(*arrays, **options)


def _each(name: str, *arguments: np.ndarray, dtypes: tuple[str, ...] = REAL) -> list[Use]:
    """Return the uses of a function of one array: one for each argument, with its own scale."""
    return [Use(_of(name), (argument,), dtypes) for argument in arguments]


def _created(call: Callable[..., Any]) -> list[Use]:
    """Return the use of a function that makes an array beside another, x."""
    return [Use(lambda xp, x: call(xp, x, {"dtype": x.dtype, "device": device_of(x)}), (_SIGNED,))]


FUNCTIONS: dict[str, list[Use]] = {
    "abs": _each("abs", _SIGNED, _SPECIAL) + _each("abs", _SIGNED, dtypes=COMPLEX),
    "all": [
        *_each("all", _BOOLEANS, _BOOLEANS[1], dtypes=("bool",)),
        Use(lambda xp, x: xp.all(x == x), (_SIGNED,)),
    ],
    "arange": [
        *_created(lambda xp, x, there: xp.arange(4, **there)),
        Use(
            lambda xp, i: xp.arange(4, dtype=xp.int32, device=device_of(i)),
            (_INTEGERS,),
            ("int32",),
        ),
    ],
    "argmax": [Use(lambda xp, x: xp.astype(xp.argmax(x, axis=-1), xp.int32), (_SIGNED,))],
    "asarray": [
        Use(_of("asarray", copy=True), (_SIGNED,), FLOATING),
        *_created(lambda xp, x, there: xp.asarray([0.1, -2.3], **there)),
        *_created(lambda xp, x, there: xp.asarray(0.1, **there)),
    ],
    "astype": [
        Use(lambda xp, x: xp.astype(x > 0.0, x.dtype), (_SIGNED,)),
        Use(lambda xp, x: xp.astype(x, x.dtype, copy=False), (_SIGNED,), FLOATING),
        Use(lambda xp, x, i: xp.astype(i, x.dtype), (_SIGNED, _INTEGERS), FLOATING),
        Use(lambda xp, x, b: xp.astype(b, x.dtype), (_SIGNED, _BOOLEANS), FLOATING),
        Use(lambda xp, z: xp.astype(xp.real(z), z.dtype), (_SIGNED,), COMPLEX),
        Use(lambda xp, x: xp.astype(x, xp.float32), (_SIGNED,)),
        Use(lambda xp, b: xp.astype(b, xp.int32), (_BOOLEANS,), ("bool",)),
    ],
    "broadcast_to": [Use(lambda xp, x: xp.broadcast_to(x, (4, 2, 3)), (_SIGNED,), FLOATING)],
    "clip": [
        Use(lambda xp, x: xp.clip(x, -1.0, 0.75), (_SIGNED,)),
        Use(lambda xp, x: xp.clip(x, -20.0, 20.0), (_SPECIAL,)),
    ],
    "concat": [
        Use(lambda xp, x, y: xp.concat([x, y[..., :2]], axis=-1), (_SIGNED, _OTHER), FLOATING),
        Use(lambda xp, x, y: xp.concat([x, y], axis=-2), (_SIGNED, _OTHER)),
        Use(lambda xp, x, y: xp.concat([x, y]), (_SIGNED, _OTHER)),
    ],
    "exp": _each("exp", _SIGNED, -20.0 * _POSITIVE[1], dtypes=FLOATING) + _each("exp", _HUGE),
    "expm1": _each("expm1", _SIGNED, _TINY, _HUGE) + _each("expm1", _SIGNED, dtypes=COMPLEX),
    "finfo": [
        Use(lambda xp, x: [float(xp.finfo(x.dtype).max), float(xp.finfo(x.dtype).eps)], (_TINY,)),
        Use(lambda xp, x: float(xp.finfo(x.dtype).smallest_normal), (_TINY,)),
        Use(lambda xp, x: int(xp.finfo(x.dtype).bits), (_TINY,)),
    ],
    "full_like": [Use(lambda xp, x: xp.full_like(x, np.inf), (_SIGNED,))],
    "iinfo": [
        Use(
            lambda xp, i: [int(xp.iinfo(i.dtype).bits), int(xp.iinfo(i.dtype).max)],
            (_INTEGERS,),
            ("int32",),
        )
    ],
    "isdtype": [
        Use(
            lambda xp, x: [
                bool(xp.isdtype(x.dtype, kind))
                for kind in (
                    ("bool", "integral"),
                    "real floating",
                    "complex floating",
                    ("bool", "numeric"),
                )
            ],
            (_SIGNED,),
            FLOATING,
        ),
        Use(
            lambda xp, i: [bool(xp.isdtype(i.dtype, kind)) for kind in ("bool", "integral")],
            (_INTEGERS,),
            ("int32",),
        ),
    ],
    "isfinite": _each("isfinite", _SPECIAL),
    "isnan": _each("isnan", _SPECIAL),
    "log": _each("log", _POSITIVE, dtypes=FLOATING),
    "log1p": _each("log1p", _POSITIVE, dtypes=FLOATING) + _each("log1p", _TINY),
    "matrix_transpose": [
        *_each("matrix_transpose", _SIGNED, _CUBE, dtypes=FLOATING),
        Use(lambda xp, x: [x.mT, x.mT @ x], (_CUBE,), FLOATING),
    ],
    "max": [
        Use(_of("max", axis=-1, keepdims=True), (_SIGNED,)),
        *_each("max", _SIGNED, _SPECIAL),
        Use(_of("max"), (_INTEGERS,), ("int32",)),
    ],
    "maximum": [
        Use(_of("maximum"), (_SIGNED, _OTHER)),
        Use(lambda xp, x: xp.maximum(x, 0.0), (_SPECIAL,)),
        Use(lambda xp, x: xp.maximum(x, 0.5), (_SIGNED,)),
    ],
    "mean": [
        Use(_of("mean", axis=-2, keepdims=True), (_SIGNED,)),
        Use(_of("mean", axis=-1), (_SIGNED,)),
        *_each("mean", _OTHER),
    ],
    "min": [
        Use(_of("min", axis=-2, keepdims=True), (_SIGNED,)),
        *_each("min", _SIGNED, _SPECIAL),
        Use(_of("min"), (_INTEGERS,), ("int32",)),
    ],
    "minimum": [
        Use(_of("minimum"), (_SIGNED, _OTHER)),
        Use(lambda xp, x: xp.minimum(x, 88.0), (_SPECIAL,)),
        Use(lambda xp, x: xp.minimum(x, 0.5), (_SIGNED,)),
    ],
    "ones": _created(lambda xp, x, there: [xp.ones((1, 3), **there), xp.ones(4, **there)]),
    "ones_like": _each("ones_like", _SIGNED),
    "real": _each("real", _SIGNED, dtypes=COMPLEX),
    "reshape": [
        Use(lambda xp, x: xp.reshape(x, (-1,)), (_CUBE,), FLOATING),
        Use(lambda xp, x: xp.reshape(x[..., 1:3], (2, 2, 3)), (_CUBE,), FLOATING),
        Use(lambda xp, x: xp.reshape(xp.matrix_transpose(x), (2, -1)), (_CUBE,)),
        Use(lambda xp, x: xp.reshape(x[0, 0, 0], (1, 1)), (_CUBE,)),
        Use(lambda xp, i: xp.reshape(i, (3, 1, 2)), (_INTEGERS,), ("int32",)),
    ],
    "sign": _each("sign", _SIGNED),
    "sinh": _each("sinh", _SIGNED, 10.0 * _POSITIVE[0]) + _each("sinh", _SIGNED, dtypes=COMPLEX),
    "sqrt": _each("sqrt", _POSITIVE, dtypes=FLOATING) + _each("sqrt", np.array([0.0, 1e-8])),
    "moveaxis": [Use(lambda xp, x: xp.moveaxis(x, -1, 0), (_CUBE,), FLOATING)],
    "stack": [
        Use(lambda xp, x, y: xp.stack([x, y]), (_SIGNED, _OTHER), FLOATING),
        Use(lambda xp, x, y: xp.stack([x, y], axis=1), (_SIGNED, _OTHER)),
        Use(lambda xp, x: xp.stack([xp.sum(x), xp.max(x)]), (_SIGNED,)),
        Use(lambda xp, b: xp.stack([xp.all(b), xp.any(b)]), (_BOOLEANS,), ("bool",)),
    ],
    "sum": [
        Use(_of("sum", axis=-1), (_CUBE,), FLOATING),
        Use(_of("sum", axis=-1, keepdims=True), (_SIGNED,), FLOATING),
        Use(_of("sum", axis=-2), (_CUBE,)),
        Use(_of("sum"), (_OTHER,), FLOATING),
        Use(_of("sum"), (_INTEGERS,), ("int32",)),
    ],
    "take": [
        Use(_of("take", axis=0), (_TIES, _ORDER), FLOATING),
        Use(_of("take", axis=-2), (_CUBE, _ORDER), FLOATING),
        Use(_of("take", axis=-1), (_SIGNED, _ORDER), FLOATING),
        Use(_of("take", axis=1), (_SIGNED, _ORDER.astype(np.int32))),
        Use(_of("take", axis=-1), (_INTEGERS, _ORDER), ("int32",)),
    ],
    "tanh": _each("tanh", _SIGNED, _SMALL, dtypes=FLOATING) + _each("tanh", _HUGE),
    "where": [
        Use(lambda xp, x, y, b: xp.where(b, x, y), (_SIGNED, _OTHER, _BOOLEANS), FLOATING),
        Use(lambda xp, x, y, b: xp.where(b[..., None], x, y), (_CUBE, -_CUBE, _BOOLEANS)),
        Use(
            lambda xp, x, y, b: xp.where(b, x, xp.full_like(x, np.inf)),
            (_SIGNED, _OTHER, _BOOLEANS),
        ),
        Use(lambda xp, i, b: xp.where(b, i, -i), (_INTEGERS, _BOOLEANS), ("int32",)),
    ],
    "zeros": _created(lambda xp, x, there: [xp.zeros((2, 3), **there), xp.zeros(4, **there)]),
    "zeros_like": _each("zeros_like", _SIGNED),
}


def _check(name: str, dtype: str, backend: Backend, device: Device) -> None:
    require_dtype(backend, device, dtype)
    xp = backend.namespace()
    expect(callable(getattr(xp, name, None)), f"the namespace has no function {name}")
    for use in FUNCTIONS[name]:
        if dtype not in use.dtypes:
            continue
        hosts = [cast(host, dtype) for host in use.arguments]
        with precision_for(backend, dtype):
            here = use.call(xp, *put(backend, device, *hosts))
        require_same(backend, device, here, use.call(np, *hosts), "the result")


def _dtypes(name: str) -> list[str]:
    wanted = {dtype for use in FUNCTIONS[name] for dtype in use.dtypes}
    return [dtype for dtype in (*FLOATING, "int32", "bool") if dtype in wanted]


CHECKS = [
    Check(
        "the standard",
        f"{name}, {dtype}",
        f"{name} gives NumPy's values in {dtype}, on the device",
        functools.partial(_check, name, dtype),
    )
    for name in FUNCTIONS
    for dtype in _dtypes(name)
]
