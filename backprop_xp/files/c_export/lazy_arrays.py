"""Arrays without values: each is an operation on others, with NumPy's shapes and dtypes.

Four kinds of operations have no loops of their own: ``input``, ``constant``, ``view`` and
``copy``. The others are the functions of ``elementwise``, ``take``, the reductions, ``concat`` and
``product``.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.stride_tricks import as_strided

WAY_OUT = "Use functions of the array API standard whose results do not depend on values."

Shape: TypeAlias = tuple[int, ...]
# The dtypes that have a type in C.
DTYPES = tuple(map(np.dtype, ("bool", "int32", "int64", "float32", "float64")))


class LazyNamespace:
    """The namespace of lazy arrays, which ``lazy_functions`` fills.

    It is equal to itself alone, as a module is.
    """

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"xp.{name} cannot be recorded. {WAY_OUT}")


NAMESPACE = LazyNamespace()


def _call(name: str, *operands: Any) -> "LazyArray":
    result: LazyArray = getattr(NAMESPACE, name)(*operands)
    return result


def _operators(name: str) -> tuple[Callable[..., "LazyArray"], Callable[..., "LazyArray"]]:
    """Return the method of an operator, and its reflected one."""
    return lambda self, other: _call(name, self, other), lambda self, other: _call(
        name, other, self
    )


@dataclass(frozen=True, eq=False, repr=False)
class LazyArray:
    """The result of an operation on ``inputs``; ``detail`` are its other arguments.

    A view has a ``detail`` of its offset and strides, in entries of its input's C order.
    """

    operation: str
    inputs: tuple["LazyArray", ...]
    shape: Shape
    dtype: np.dtype[Any]
    detail: Any = None

    device = None
    __array_ufunc__ = None  # NumPy's arrays leave their operators to this class
    __hash__ = object.__hash__

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise TypeError(
                f"{self.operation} gives the dtype {self.dtype}, but the dtypes that can be "
                f"recorded are {', '.join(map(str, DTYPES))}."
            )

    def __repr__(self) -> str:
        return f"LazyArray({self.operation}, shape={self.shape}, dtype={self.dtype})"

    def __array_namespace__(self, *, api_version: str | None = None) -> Any:
        return NAMESPACE

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of entries."""
        return math.prod(self.shape)

    @property
    def layout(self) -> tuple["LazyArray", int, Shape]:
        """The array whose entries these are, the first one's index, and the strides."""
        if self.operation == "view":
            return (self.inputs[0], *self.detail)
        return self, 0, c_strides(self.shape)

    @property
    def mT(self) -> "LazyArray":  # noqa: N802
        """The last two axes exchanged."""
        return view(self, lambda a: a.mT)

    @property
    def T(self) -> "LazyArray":  # noqa: N802
        """The two axes exchanged."""
        return view(self, lambda a: a.T)

    __add__, __radd__ = _operators("add")
    __sub__, __rsub__ = _operators("subtract")
    __mul__, __rmul__ = _operators("multiply")
    __truediv__, __rtruediv__ = _operators("divide")
    __floordiv__, __rfloordiv__ = _operators("floor_divide")
    __mod__, __rmod__ = _operators("remainder")
    __pow__, __rpow__ = _operators("pow")
    __matmul__, __rmatmul__ = _operators("matmul")
    __and__, __rand__ = _operators("bitwise_and")
    __or__, __ror__ = _operators("bitwise_or")
    __xor__, __rxor__ = _operators("bitwise_xor")
    __lt__, __gt__ = _operators("less")[0], _operators("greater")[0]
    __le__, __ge__ = _operators("less_equal")[0], _operators("greater_equal")[0]
    __eq__, __ne__ = _operators("equal")[0], _operators("not_equal")[0]  # type: ignore[assignment]

    def __neg__(self) -> "LazyArray":
        return _call("negative", self)

    def __pos__(self) -> "LazyArray":
        return self

    def __abs__(self) -> "LazyArray":
        return _call("abs", self)

    def __invert__(self) -> "LazyArray":
        return _call("bitwise_invert", self)

    def __getitem__(self, key: Any) -> "LazyArray":
        parts = key if isinstance(key, tuple) else (key,)
        kinds = int | np.integer | slice | type(None) | type(...)
        if not all(isinstance(part, kinds) for part in parts):
            raise TypeError(f"x[{key!r}] cannot be recorded: for indices in an array use xp.take.")
        return view(self, operator.itemgetter(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError(
            "x[...] = ... cannot be recorded: use xp.where, or join parts by xp.concat."
        )

    def __bool__(self) -> bool:
        raise TypeError(f"if and while need a value, which a recorded array lacks. {WAY_OUT}")

    def _no_value(self, *_: Any) -> Any:
        raise TypeError(f"a recorded array has no value to make a number of. {WAY_OUT}")

    __float__ = __int__ = __complex__ = __index__ = __array__ = item = tolist = _no_value

    def __len__(self) -> int:
        return operator.index(self.shape[0])

    def to_device(self, device: Any, **_: Any) -> "LazyArray":
        """Return the array itself."""
        return self


def c_strides(shape: Shape) -> Shape:
    """Return the strides of C order, in entries."""
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))


def view(array: LazyArray, function: Callable[[np.ndarray], np.ndarray]) -> LazyArray:
    """Return the view that a function of NumPy makes: of an array of the same strides.

    That array has no memory, so the function must not copy.
    """
    base, offset, strides = array.layout
    memory = np.empty(1, dtype=np.int8)
    found = function(as_strided(memory, array.shape, strides))
    first, start = (one.__array_interface__["data"][0] for one in (memory, found))
    steps = tuple(0 if n == 1 else step for n, step in zip(found.shape, found.strides, strict=True))
    offset += start - first
    whole = c_strides(base.shape)
    same = tuple(0 if n == 1 else step for n, step in zip(base.shape, whole, strict=True))
    if (found.shape, steps, offset) == (base.shape, same, 0):
        return base
    return LazyArray("view", (base,), found.shape, array.dtype, (offset, steps))


def reshaped(array: LazyArray, shape: Sequence[int]) -> LazyArray:
    """Return a view in another shape, of a copy where strides cannot express it."""
    memory = np.empty(1, dtype=np.int8)
    contiguous = as_strided(memory, array.shape, c_strides(array.shape))
    target = contiguous.reshape(shape, copy=False).shape
    try:
        return view(array, lambda a: a.reshape(target, copy=False))
    except ValueError:
        return view(copied(array), lambda a: a.reshape(target, copy=False))


def copied(array: LazyArray) -> LazyArray:
    """Return a copy in C order."""
    return LazyArray("copy", (array,), array.shape, array.dtype)


def broadcast(array: LazyArray, shape: Shape) -> LazyArray:
    """Return a view in a shape to which the array broadcasts."""
    return view(array, lambda a: np.broadcast_to(a, shape))


def constant(value: Any) -> LazyArray:
    """Return an array with values."""
    values = np.array(value, order="C")
    return LazyArray("constant", (), values.shape, values.dtype, values)


def values_of(array: LazyArray) -> np.ndarray | None:
    """Return the values of a constant or a view of one; None for any other array."""
    base, offset, strides = array.layout
    if base.operation != "constant":
        return None
    size = base.dtype.itemsize
    return as_strided(base.detail.reshape(-1)[offset:], array.shape, [size * s for s in strides])
