"""Jets: arrays with their derivatives, on which the code of layers runs unchanged.

A jet has a ``value`` (...), its ``first`` derivatives along D directions (D, ...), and Q sums of
``second`` derivatives (Q, ...). Sums, products and functions of jets are jets: truncated Taylor
numbers. Code that computes an array from x therefore computes the array's derivatives too.

A gradient of a loss by a jet is an element of the dual module: it has dL/dvalue, dL/dfirst and
dL/dsecond. Its product with a jet is the transpose of the jets' own product. A backward rule such
as ``g * (1 - a * a)`` is therefore right for a jet ``a`` and a dual element ``g``. The gradient by
a parameter, which does not depend on x, is the value of the dual element.
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias

from backprop_xp.backends import Array, Device, DType, Namespace, device_of, sum_at
from backprop_xp.networks.jets.errors import (
    REFUSED,
    NotLinearError,
    not_a_condition,
    not_plain,
    refusal,
)
from backprop_xp.networks.jets.parts import (
    Operators,
    Times,
    crossed,
    full,
    lifted,
    multiplied,
    spread,
    summed,
    total,
)
from backprop_xp.networks.layers.embeddings import rows_of_codes

Change: TypeAlias = Callable[[Array], Array]


class Functions(Protocol):
    """The namespace of jets, which those of one computation share: see ``functions``."""

    @property
    def base(self) -> Namespace:
        """The namespace of the arrays in a jet."""

    @property
    def operators(self) -> Operators:
        """The sums of second derivatives that the jets have."""

    @property
    def isdtype(self) -> Callable[..., bool]:
        """Whether a dtype is of a kind."""

    @property
    def pow(self) -> Callable[..., Any]:
        """The function of ``a ** b``."""

    @property
    def abs(self) -> Callable[..., Any]:
        """The function of ``abs(a)``."""


def _comparison(compare: Callable[..., Array]) -> Callable[..., Any]:
    """Return the method of a comparison, whose result is a jet of booleans, a constant."""

    def method(self: "Jet", other: Any) -> "Jet":
        if self.is_dual or (isinstance(other, Jet) and other.is_dual):
            raise NotLinearError("compares g with a number")
        return Jet(self.namespace, compare(self.value, value_of(other)))

    return method


def _logical(symbol: str, join: Callable[..., Array]) -> Callable[..., Any]:
    """Return the method of conditions, which are jets of booleans."""

    def method(self: "Jet", *others: Any) -> "Jet":
        given = (self, *others)
        if not all(is_condition(jet) for jet in given if isinstance(jet, Jet)):
            raise not_a_condition(symbol)
        return Jet(self.namespace, join(*map(value_of, given)))

    return method


# Not frozen: a frozen dataclass takes three times as long to make, and a step makes hundreds.
@dataclass(eq=False, slots=True)
class Jet:
    """An array with its derivatives, or if ``is_dual`` the gradient of a loss by them.

    Derivatives are None if all are 0.
    """

    namespace: Functions
    value: Array
    first: Array | None = None
    second: Array | None = None
    is_dual: bool = False

    # What replaces reference functions of ``backends.replaceable`` for jets.
    replacements: ClassVar[dict[str, Callable[..., Any]]] = {}

    __lt__, __le__ = _comparison(operator.lt), _comparison(operator.le)
    __gt__, __ge__ = _comparison(operator.gt), _comparison(operator.ge)
    __eq__, __ne__ = _comparison(operator.eq), _comparison(operator.ne)
    __and__ = __rand__ = _logical("&", operator.and_)
    __or__ = __ror__ = _logical("|", operator.or_)
    __xor__ = __rxor__ = _logical("^", operator.xor)
    __invert__ = _logical("~", operator.invert)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the value."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """The number of the value's axes."""
        return len(self.value.shape)

    @property
    def dtype(self) -> DType:
        """The dtype of the value and of the derivatives."""
        return self.value.dtype

    @property
    def device(self) -> Device:
        """The device of the value and of the derivatives."""
        return device_of(self.value)

    @property
    def mT(self) -> "Jet":  # noqa: N802
        """The transpose of the last two axes."""
        return linear_map(self, self.namespace.base.matrix_transpose, broadcasts=True)

    def __getitem__(self, key: Any) -> "Jet":
        keys = tuple(map(value_of, key if isinstance(key, tuple) else (key,)))
        return linear_map(self, lambda a: a[keys], lambda part: part[(slice(None), *keys)])

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"The derivatives by the inputs are computed on jets, which have no {name!r}. Use a "
            "function of the array API standard: xp = array_namespace(x), then xp.sum(x, axis=-1) "
            "instead of x.sum(-1)."
        )

    def __neg__(self) -> "Jet":
        return linear_map(self, operator.neg, broadcasts=True)

    def __pos__(self) -> "Jet":
        return self

    def __add__(self, other: Any) -> "Jet":
        return _added(self, other, operator.add)

    def __sub__(self, other: Any) -> "Jet":
        return _added(self, other, operator.sub)

    def __rsub__(self, other: Any) -> "Jet":
        return _added(other, self, operator.sub)

    def __mul__(self, other: Any) -> "Jet":
        return _product(self, as_jet(self.namespace, other), operator.mul)

    def __matmul__(self, other: Any) -> "Jet":
        return _product(self, as_jet(self.namespace, other), operator.matmul)

    def __rmatmul__(self, other: Any) -> "Jet":
        return _product(as_jet(self.namespace, other), self, operator.matmul)

    def __truediv__(self, other: Any) -> "Jet":
        return _quotient(self, as_jet(self.namespace, other))

    def __rtruediv__(self, other: Any) -> "Jet":
        return _quotient(as_jet(self.namespace, other), self)

    __radd__ = __add__
    __rmul__ = __mul__

    def __pow__(self, other: Any) -> Any:
        return self.namespace.pow(self, other)

    def __rpow__(self, other: Any) -> Any:
        return self.namespace.pow(other, self)

    def __abs__(self) -> Any:
        return self.namespace.abs(self)

    def __array_namespace__(self, *, api_version: str | None = None) -> Functions:
        return self.namespace

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, **options: Any) -> Any:
        """Compute ``array * jet`` for arrays of NumPy and CuPy, which ask here."""
        reflected = _REFLECTED.get(ufunc.__name__)
        if reflected is None or method != "__call__" or given[1] is not self:
            raise not_plain(f"{ufunc.__name__} of the array library")
        return getattr(self, reflected)(given[0])

    def __array_function__(self, function: Any, types: Any, given: Any, options: Any) -> Any:
        raise not_plain(f"{function.__name__} of the array library")

    def __bool__(self) -> bool:
        if self.ndim == 0 and is_condition(self):
            return bool(self.value)
        return refusal("__bool__")()


for _name in {*REFUSED} - {"__bool__"}:
    setattr(Jet, _name, refusal(_name))

# The methods for an array on the left, by the name of the library's function.
_REFLECTED = {
    "add": "__radd__",
    "subtract": "__rsub__",
    "multiply": "__rmul__",
    "divide": "__rtruediv__",
    "true_divide": "__rtruediv__",
    "power": "__rpow__",
    "matmul": "__rmatmul__",
    "remainder": "__rmod__",
    "floor_divide": "__rfloordiv__",
    "divmod": "__rdivmod__",
    "equal": "__eq__",
    "not_equal": "__ne__",
    "less": "__gt__",
    "less_equal": "__ge__",
    "greater": "__lt__",
    "greater_equal": "__le__",
    "bitwise_and": "__rand__",
    "bitwise_or": "__ror__",
    "bitwise_xor": "__rxor__",
}


def as_jet(namespace: Functions, value: Any) -> Jet:
    """Return a jet, or the constant one of an array or a number."""
    return value if isinstance(value, Jet) else Jet(namespace, value)


def value_of(value: Any) -> Any:
    """Return the value of a jet or of a dual element, and anything else as it is."""
    return value.value if isinstance(value, Jet) else value


def is_condition(jet: Jet) -> bool:
    """Whether a jet is one of booleans."""
    return jet.first is None and jet.namespace.isdtype(jet.dtype, "bool")


def linear_map(
    jet: Jet, change: Change, change_part: Change | None = None, *, broadcasts: bool = False
) -> Jet:
    """Return a linear function of a jet or a dual element.

    ``change_part`` is the function of derivatives, which have one axis more in front, if it is
    another. Unless it ``broadcasts``, it gets them with all axes.
    """
    of_part, xp, value = change_part or change, jet.namespace.base, change(jet.value)
    first, second = (
        None if part is None else of_part(part if broadcasts else full(part, jet.value, xp))
        for part in (jet.first, jet.second)
    )
    return Jet(jet.namespace, value, first, second, jet.is_dual)


def lifted_parts(jet: Jet, ndim: int) -> tuple[Array | None, Array | None]:
    """Return the derivatives, lifted to a value of ``ndim`` axes."""
    first = None if jet.first is None else lifted(jet.first, ndim)
    return first, None if jet.second is None else lifted(jet.second, ndim)


def _added(a: Any, b: Any, add: Times) -> Jet:
    """Return a + b or a - b, one of which may be no jet."""
    namespace = a.namespace if isinstance(a, Jet) else b.namespace
    is_zero = _is_zero(a) or _is_zero(b)  # of sum(...), for example
    a, b = as_jet(namespace, a), as_jet(namespace, b)
    if a.is_dual != b.is_dual and not is_zero:
        raise NotLinearError("adds an array that does not depend on g to g")
    value = add(a.value, b.value)
    pairs = zip(lifted_parts(a, len(value.shape)), lifted_parts(b, len(value.shape)), strict=True)
    first, second = (
        one if other is None else add(0.0 if one is None else one, other) for one, other in pairs
    )
    return Jet(namespace, value, first, second, a.is_dual or b.is_dual)


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _product(a: Jet, b: Jet, times: Times) -> Jet:
    """Return the product of two jets, or of a jet and a dual element."""
    if times is operator.matmul:
        a, b = _contractible(a, -1), _contractible(b, -2)
    if a.is_dual:
        return _sent_back(a, b, times)
    if b.is_dual:
        return _sent_back(b, a, lambda g, factor: times(factor, g))
    value, namespace = times(a.value, b.value), a.namespace
    (a_1, a_2), (b_1, b_2) = (
        lifted_parts(a, len(value.shape)),
        lifted_parts(b, len(value.shape)),
    )
    if a is b and times is operator.mul:  # a square, in half of the products
        first, second = (multiplied(times, 2.0 * a.value, part) for part in (a_1, a_2))
    else:
        first = total(multiplied(times, a.value, b_1), multiplied(times, a_1, b.value))
        second = total(multiplied(times, a.value, b_2), multiplied(times, a_2, b.value))
    if namespace.operators and a_1 is not None and b_1 is not None:
        own = crossed(namespace.base, namespace.operators, a_1, b_1, times)
        second = total(second, own)
    return Jet(namespace, value, first, second)


def _contractible(jet: Jet, axis: int) -> Jet:
    """Return a jet whose derivatives have an axis in full: a product of matrices sums over it."""
    parts = [part for part in (jet.first, jet.second) if part is not None]
    if all(part.shape[axis] == jet.shape[axis] for part in parts):
        return jet
    return linear_map(jet, lambda part: part)


def _sent_back(g: Jet, factor: Jet, times: Times) -> Jet:
    """Return the product of a dual element with a jet: the transpose of the product of jets."""
    if factor.is_dual:
        raise NotLinearError("multiplies g by g")
    value = _paired(g, factor, times)
    (g_1, g_2), (first, _) = (lifted_parts(one, len(value.shape)) for one in (g, factor))
    back, namespace = multiplied(times, g_1, factor.value), g.namespace
    if g_2 is not None and first is not None:
        back = spread(namespace.base, namespace.operators, back, g_2, first, times)
    second = multiplied(times, g_2, factor.value)
    return Jet(namespace, value, back, second, is_dual=True)


def _paired(a: Jet, b: Jet, times: Times) -> Array:
    """Return the value of the product of a jet and a dual element, in either order."""
    value = times(a.value, b.value)
    for one, other in zip(*(lifted_parts(jet, len(value.shape)) for jet in (a, b)), strict=True):
        if one is not None and other is not None:
            value = value + summed(times(one, other))[0, ...]
    return value


def _quotient(a: Jet, b: Jet) -> Jet:
    """Return a / b."""
    if b.is_dual:
        raise NotLinearError("divides by g")
    if a.is_dual and b.first is not None:
        return a * (1.0 / b)
    value, namespace = a.value / b.value, a.namespace
    (a_1, a_2), (b_1, b_2) = (
        lifted_parts(a, len(value.shape)),
        lifted_parts(b, len(value.shape)),
    )
    if b_1 is None:
        first, second = (None if part is None else part / b.value for part in (a_1, a_2))
        return Jet(namespace, value, first, second, a.is_dual)
    # y b = a, differentiated: the derivatives of 1 / b would underflow where those of y do not.
    first = total(a_1, -value * b_1) / b.value
    if not namespace.operators:
        return Jet(namespace, value, first)
    own = crossed(namespace.base, namespace.operators, first, b_1, operator.mul)
    second = total(a_2, multiplied(operator.mul, -value, b_2), -own) / b.value
    return Jet(namespace, value, first, second)


def _matmul(a: Jet, b: Any, out: Array | None = None) -> Any:
    """Replace ``matmul``: of a jet and a dual element the value alone, a parameter's gradient."""
    b = as_jet(a.namespace, b)
    if a.is_dual == b.is_dual:
        return NotImplemented
    return _written(_paired(_contractible(a, -1), _contractible(b, -2), operator.matmul), out)


def _sum_over_batch(array: Jet, out: Array | None = None, factor: Any = None) -> Any:
    """Replace ``sum_over_batch``: of a dual element the value alone, a parameter's gradient."""
    factor = as_jet(array.namespace, 1.0 if factor is None else factor)
    if array.is_dual == factor.is_dual:
        return NotImplemented
    terms = _paired(array, factor, operator.mul)
    return _written(array.namespace.base.sum(terms, axis=-2, keepdims=True), out)


def _sum_at(values: Jet, indices: Array, count: int, out: Array | None = None) -> Any:
    """Replace ``sum_at``: of a dual element the value alone, a parameter's gradient."""
    return sum_at(values.value, indices, count, out) if values.is_dual else NotImplemented


def _rows_of_codes(x: Jet, codes: tuple[int, ...]) -> Array:
    """Replace ``rows_of_codes``: the rows do not change with x, except where they jump."""
    return rows_of_codes(x.value, codes)


def _written(value: Array, out: Array | None) -> Array:
    if out is None:
        return value
    out[...] = value
    return out


Jet.replacements = {
    "backprop_xp.backends.sums_and_products.matmul": _matmul,
    "backprop_xp.backends.sums_and_products.sum_over_batch": _sum_over_batch,
    "backprop_xp.backends.sums_and_products.sum_at": _sum_at,
    "backprop_xp.networks.layers.embeddings.rows_of_codes": _rows_of_codes,
}
