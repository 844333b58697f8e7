"""The array API namespace of jets: the functions of the standard, with derivatives.

``RULES`` of ``chain_rule`` is the table of functions of each number. A linear function, such as a
sum, acts on each derivative alike. Any other function of the standard raises a TypeError for a jet.
Functions of plain arrays are the library's own.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from backprop_xp.backends import Array, DType, Namespace
from backprop_xp.networks.jets.chain_rule import RULES, Rule, composed, power
from backprop_xp.networks.jets.errors import JUMPS, NotLinearError, jumping, not_a_condition
from backprop_xp.networks.jets.jet import (
    Jet,
    as_jet,
    is_condition,
    lifted_parts,
    linear_map,
    value_of,
)
from backprop_xp.networks.jets.parts import Operators, full

Function = Callable[..., Any]


@dataclass(frozen=True)
class JetNamespace:
    """The namespace of jets over a library's, with the second derivatives that the jets have.

    ``operators`` are sums of second derivatives, each the pairs of directions along which they are.
    """

    base: Namespace
    operators: Operators

    def __getattr__(self, name: str) -> Any:
        """Return a function that takes arrays and jets, or what else the library has."""
        if name.startswith("__") and name != "__array_namespace_info__":
            raise AttributeError(name)
        found = getattr(self.base, name)
        if isinstance(found, ModuleType):
            return _Extension(self, found, name)
        if callable(found) and not isinstance(found, type) and name not in _AS_THEY_ARE:
            found = functools.partial(_call, self, name, found)
            vars(self)[name] = found  # made once
        return found

    def astype(self, x: Any, dtype: DType, /, **options: Any) -> Any:
        """Return an array or a jet in another dtype; an array of floating numbers as a jet."""

        def cast(array: Array) -> Array:
            return self.base.astype(array, dtype, **options)

        is_floating = self.base.isdtype(dtype, ("real floating", "complex floating"))
        if not isinstance(x, Jet):
            return Jet(self, cast(x)) if is_floating else cast(x)
        if not is_floating and not is_condition(x):
            raise _without_rule(f"astype to {dtype}", "Integers and booleans have no derivatives.")
        return linear_map(x, cast, cast, broadcasts=True)


@dataclass(frozen=True)
class _Extension:
    """A module of a library's namespace, ``linalg`` or ``fft``: its functions have no rules."""

    namespace: JetNamespace
    base: ModuleType
    name: str

    def __getattr__(self, name: str) -> Function:
        """Return a function that takes arrays."""
        found = getattr(self.base, name)
        return functools.partial(_call, self.namespace, f"{self.name}.{name}", found)


_AS_THEY_ARE = ("isdtype", "finfo", "iinfo", "result_type", "__array_namespace_info__")


def _call(namespace: JetNamespace, name: str, base: Function, *given: Any, **options: Any) -> Any:
    """Call a function of the standard: by its rule for jets, else the library's own."""
    first = given[0] if given else None
    values = [*given, *options.values(), *(first if isinstance(first, list | tuple) else ())]
    if not any(isinstance(value, Jet) for value in values):
        return base(*given, **options)
    if name in RULES:
        return composed(given[0], base, RULES[name])
    if name in FUNCTIONS:
        return FUNCTIONS[name](namespace, *given, **options)
    if name in OF_VALUES or all(is_condition(jet) for jet in values if isinstance(jet, Jet)):
        return Jet(namespace, base(*map(value_of, given), **options))
    if name in JUMPS:
        raise jumping(JUMPS[name])
    raise _without_rule(name, "Write it with functions that have one.")


def _without_rule(name: str, way_out: str) -> TypeError:
    known = ", ".join(sorted([*RULES, *FUNCTIONS, *OF_VALUES]))
    return TypeError(
        f"The derivatives by the inputs have no rule for {name}. {way_out} There are rules for "
        f"arithmetic, indexing and {known}."
    )


def _sign(namespace: JetNamespace, x: Jet) -> Jet:
    _refuse_dual("sign", x)
    return Jet(namespace, namespace.base.sign(x.value))


def _zeros_like(namespace: JetNamespace, x: Jet, **options: Any) -> Jet:
    return Jet(namespace, namespace.base.zeros_like(x.value, **options), is_dual=x.is_dual)


def _ones_like(namespace: JetNamespace, x: Jet, **options: Any) -> Jet:
    return Jet(namespace, namespace.base.ones_like(x.value, **options))


def _refuse_dual(name: str, *given: Any) -> None:
    if any(isinstance(x, Jet) and x.is_dual for x in given):
        raise NotLinearError(f"takes {name} of g")


def _chosen(namespace: JetNamespace, condition: Array, a: Any, b: Any, value: Array) -> Jet:
    """Return a jet with a value, the derivatives of a where a condition holds, else those of b."""
    # Not by a product with 0 and 1: derivatives that are not chosen may be infinite.
    xp, a, b = namespace.base, as_jet(namespace, a), as_jet(namespace, b)
    parts = []
    for pair in zip(*(lifted_parts(jet, len(value.shape)) for jet in (a, b)), strict=True):
        one, other = (0.0 if part is None else part for part in pair)
        both_zero = isinstance(one, float) and isinstance(other, float)
        parts.append(None if both_zero else xp.where(condition, one, other))
    return Jet(namespace, value, parts[0], parts[1], a.is_dual or b.is_dual)


def _maximum(namespace: JetNamespace, a: Any, b: Any) -> Jet:
    _refuse_dual("the maximum", a, b)
    x, y = value_of(a), value_of(b)
    return _chosen(namespace, x > y, a, b, namespace.base.maximum(x, y))


def _minimum(namespace: JetNamespace, a: Any, b: Any) -> Jet:
    _refuse_dual("the minimum", a, b)
    x, y = value_of(a), value_of(b)
    # Of equals it takes a, and _maximum b: the sum of the two has the derivatives of a + b.
    return _chosen(namespace, x <= y, a, b, namespace.base.minimum(x, y))


def _clip(namespace: JetNamespace, x: Jet, low: Any = None, high: Any = None) -> Jet:
    _refuse_dual("clip", x)
    value = namespace.base.clip(x.value, value_of(low), value_of(high))
    if isinstance(low, Jet) or isinstance(high, Jet):
        raise _without_rule("clip with bounds that depend on the inputs", "Use maximum, minimum.")
    return _chosen(namespace, x.value == value, x, 0.0, value)


def _abs(namespace: JetNamespace, x: Jet) -> Jet:
    # The slope at 0 is that from the left, as relu's: softplus adds the two.
    _refuse_dual("the absolute value", x)
    return _chosen(namespace, x.value > 0.0, x, -x, namespace.base.abs(x.value))


def _where(namespace: JetNamespace, condition: Any, a: Any, b: Any) -> Jet:
    if isinstance(condition, Jet) and not is_condition(condition):
        raise not_a_condition("where")
    is_dual = any(isinstance(x, Jet) and x.is_dual for x in (a, b))
    for x in (a, b):
        is_zero = isinstance(x, int | float) and x == 0
        if is_dual and not is_zero and not (isinstance(x, Jet) and x.is_dual):
            raise NotLinearError("chooses between g and an array that does not depend on g")
    condition = value_of(condition)
    value = namespace.base.where(condition, value_of(a), value_of(b))
    return _chosen(namespace, condition, a, b, value)


def _axes(axis: int | Sequence[int] | None, ndim: int) -> Any:
    """Return axes counted from the last one, since derivatives have one more in front."""
    if axis is None:
        return tuple(range(-ndim, 0))
    if isinstance(axis, Sequence):
        return tuple(_axes(one, ndim) for one in axis)
    return axis if axis < 0 else axis - ndim


def _reduction(name: str) -> Function:
    """Return a sum or a mean over axes."""

    def function(
        namespace: JetNamespace, x: Jet, *, axis: Any = None, keepdims: bool = False
    ) -> Jet:
        of_array, axes = getattr(namespace.base, name), _axes(axis, x.ndim)
        return linear_map(x, lambda a: of_array(a, axis=axes, keepdims=keepdims))

    return function


def _extreme(name: str) -> Function:
    """Return the largest or the smallest entry over axes; equal ones share the derivatives."""

    def function(
        namespace: JetNamespace, x: Jet, *, axis: Any = None, keepdims: bool = False
    ) -> Jet:
        _refuse_dual(f"the {name}", x)
        xp, axes = namespace.base, _axes(axis, x.ndim)
        value = getattr(xp, name)(x.value, axis=axes, keepdims=True)
        shares = xp.astype(x.value == value, value.dtype)
        shares = shares / xp.sum(shares, axis=axes, keepdims=True)
        chosen = _where(namespace, shares > 0.0, x * shares, 0.0)  # others may be infinite
        total = _reduction("sum")(namespace, chosen, axis=axes, keepdims=True)
        result = Jet(namespace, value, total.first, total.second)
        return result if keepdims else linear_map(result, lambda a: xp.squeeze(a, axis=axes))

    return function


def _reshape(namespace: JetNamespace, x: Jet, shape: tuple[int, ...], **options: Any) -> Jet:
    reshape = functools.partial(namespace.base.reshape, **options)
    value = reshape(x.value, shape)  # which may find a -1 out
    return linear_map(x, lambda a: value, lambda part: reshape(part, (part.shape[0], *value.shape)))


def _expand_dims(namespace: JetNamespace, x: Jet, *, axis: Any = 0) -> Jet:
    count = 1 if isinstance(axis, int) else len(axis)
    axes = _axes(axis, x.ndim + count)
    return linear_map(x, lambda a: namespace.base.expand_dims(a, axis=axes))


def _squeeze(namespace: JetNamespace, x: Jet, axis: Any) -> Jet:
    return linear_map(x, lambda a: namespace.base.squeeze(a, axis=_axes(axis, x.ndim)))


def _permute_dims(namespace: JetNamespace, x: Jet, axes: tuple[int, ...]) -> Jet:
    permute = namespace.base.permute_dims
    behind = (0, *(1 + axis % x.ndim for axis in axes))
    return linear_map(x, lambda a: permute(a, axes), lambda part: permute(part, behind))


def _moveaxis(namespace: JetNamespace, x: Jet, source: Any, destination: Any) -> Jet:
    axes = [_axes(axis, x.ndim) for axis in (source, destination)]
    return linear_map(x, lambda a: namespace.base.moveaxis(a, *axes))


def _broadcast_to(namespace: JetNamespace, x: Jet, shape: tuple[int, ...]) -> Jet:
    value = namespace.base.broadcast_to(x.value, shape)
    first, second = lifted_parts(x, len(shape))
    return Jet(namespace, value, first, second, x.is_dual)


def _take(namespace: JetNamespace, x: Any, indices: Any, *, axis: int = 0) -> Jet:
    x, at = as_jet(namespace, x), _axes(axis, len(x.shape))
    return linear_map(x, lambda a: namespace.base.take(a, value_of(indices), axis=at))


def _concat(namespace: JetNamespace, arrays: Sequence[Any], *, axis: int = 0) -> Jet:
    xp, jets = namespace.base, [as_jet(namespace, array) for array in arrays]
    is_dual = any(jet.is_dual for jet in jets)
    if is_dual and not all(jet.is_dual for jet in jets):
        raise NotLinearError("joins g and an array that does not depend on g")
    at = _axes(axis, jets[0].ndim)
    value = xp.concat([jet.value for jet in jets], axis=at)
    first = _joined(xp, [(jet.first, jet) for jet in jets], at)
    second = _joined(xp, [(jet.second, jet) for jet in jets], at)
    return Jet(namespace, value, first, second, is_dual)


def _joined(xp: Namespace, parts: Sequence[tuple[Array | None, Jet]], axis: int) -> Array | None:
    """Return derivatives of jets along an axis, with 0 for those of constants."""
    count = next((part.shape[0] for part, _ in parts if part is not None), None)
    if count is None:
        return None

    def zeros(jet: Jet) -> Array:
        shape = (count, *(1,) * jet.ndim)
        return xp.zeros(shape, dtype=jet.dtype, device=jet.device)

    each = ((zeros(jet) if part is None else part, jet) for part, jet in parts)
    return xp.concat([full(part, jet.value, xp) for part, jet in each], axis=axis)


def _stack(namespace: JetNamespace, arrays: Sequence[Any], *, axis: int = 0) -> Jet:
    raised = [_expand_dims(namespace, as_jet(namespace, array), axis=axis) for array in arrays]
    return _concat(namespace, raised, axis=axis)


def _logaddexp(namespace: JetNamespace, a: Any, b: Any) -> Any:
    larger = namespace.maximum(a, b)
    return larger + namespace.log1p(namespace.exp(-namespace.abs(a - b)))


def _hypot(namespace: JetNamespace, a: Any, b: Any) -> Any:
    xp, (x, y) = namespace.base, (value_of(a), value_of(b))
    size = xp.hypot(x, y)
    # The root of size * terms, where the terms' value is the size: no square of a or b is formed.
    divisor = xp.where(size == 0.0, xp.ones_like(size), size)
    terms = as_jet(namespace, a * (a / divisor) + b * (b / divisor))
    rule = Rule(lambda xp, x, y: xp.full_like(x, 0.5), lambda xp, x, y, s: -0.25 / divisor)
    return composed(terms, lambda x: size, rule)


def _real(namespace: JetNamespace, x: Jet) -> Jet:
    return linear_map(x, namespace.base.real, broadcasts=True)


def _operation(function: Function) -> Function:
    return lambda namespace, a, *b: function(as_jet(namespace, a), *b)


_OPERATORS = {
    **{name: name for name in ("add", "matmul", "pow")},
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "negative": "neg",
    "positive": "pos",
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
}
# Their results are booleans and integers, which have no derivatives.
OF_VALUES = ("isfinite", "isinf", "isnan", "argmax", "argmin")
FUNCTIONS: dict[str, Function] = {
    **{name: _operation(getattr(operator, of)) for name, of in _OPERATORS.items()},
    **{name: _reduction(name) for name in ("sum", "mean")},
    **{name: _extreme(name) for name in ("max", "min")},
    "pow": power,
    "logaddexp": _logaddexp,
    "hypot": _hypot,
    "abs": _abs,
    "sign": _sign,
    "maximum": _maximum,
    "minimum": _minimum,
    "clip": _clip,
    "where": _where,
    "real": _real,
    "reshape": _reshape,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "take": _take,
    "permute_dims": _permute_dims,
    "moveaxis": _moveaxis,
    "broadcast_to": _broadcast_to,
    "matrix_transpose": lambda namespace, x: x.mT,
    "concat": _concat,
    "stack": _stack,
    "zeros_like": _zeros_like,
    "ones_like": _ones_like,
}
