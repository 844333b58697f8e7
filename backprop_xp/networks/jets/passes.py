"""Passes of layers on jets: forward to derivatives by the inputs, and back to the gradients.

A term is a tuple of columns of x: ``()`` is the output itself, ``(0,)`` its derivative by column 0,
``(0, 1)`` the second derivative by columns 0 and 1. A longer term is a sum of second derivatives:
``(0, 0, 1, 1)`` is that by column 0 twice plus that by column 1 twice.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from backprop_xp.backends import Array, Namespace, array_namespace, device_of
from backprop_xp.networks.chain import propagation
from backprop_xp.networks.chain.batch_rows import row_slices
from backprop_xp.networks.chain.propagation import Cache, Layer, Parameters, check_chain
from backprop_xp.networks.jets.errors import NoDerivativeError
from backprop_xp.networks.jets.functions import JetNamespace
from backprop_xp.networks.jets.jet import Functions, Jet, as_jet, value_of
from backprop_xp.networks.jets.parts import Operators, Pairs, full, rows_in_cache
from backprop_xp.networks.numbers.random_bits import Key

Term: TypeAlias = tuple[int, ...]


class Plan(NamedTuple):
    """The terms, the columns of x along which jets have first derivatives, and the second ones."""

    terms: tuple[Term, ...]
    columns: tuple[int, ...]
    operators: Operators


@functools.lru_cache(maxsize=64)
def plan_of(terms: tuple[Term, ...]) -> Plan:
    """Return what jets need for these terms."""
    columns = tuple(sorted({*itertools.chain(*terms)}))
    operators = dict.fromkeys(_pairs(term, columns) for term in terms if len(term) > 1)
    return Plan(terms, columns, tuple(operators))


def _pairs(term: Term, columns: tuple[int, ...]) -> Pairs:
    """Return the pairs of directions whose second derivatives a term sums."""
    at = [columns.index(column) for column in term]
    return tuple((min(pair), max(pair)) for pair in zip(at[::2], at[1::2], strict=True))


@functools.lru_cache(maxsize=64)
def namespace_of(xp: Namespace, operators: Operators) -> JetNamespace:
    """Return the namespace of jets with these second derivatives."""
    return JetNamespace(xp, operators)


def seeded(x: Array, directions: Array | None, operators: Operators) -> Jet:
    """Return x as a jet whose first derivatives are ``directions`` (D, ..., n_in)."""
    xp = array_namespace(x)
    if directions is None:
        return Jet(namespace_of(xp, operators), x)
    missing = len(x.shape) + 1 - len(directions.shape)
    return Jet(namespace_of(xp, operators), x, directions[(slice(None), *(None,) * missing, ...)])


def unit_directions(x: Array, columns: Sequence[int]) -> Array | None:
    """Return the directions (D, n_in) that are columns of x; None for no columns."""
    if not columns:
        return None
    xp, n = array_namespace(x), x.shape[-1]
    unit = xp.eye(n, dtype=x.dtype, device=device_of(x))
    if tuple(columns) == tuple(range(n)):
        return unit
    return xp.concat([unit[i : i + 1, ...] for i in columns], axis=0)


def constants(namespace: Any, parameters: Sequence[Parameters]) -> list[tuple[Jet, ...]]:
    """Return parameters as jets: arrays of some libraries cannot be on a product's left side."""
    return [tuple(Jet(namespace, value) for value in own) for own in parameters]


def whole(y: Jet, part: Array | None, count: int) -> Array:
    """Return derivatives of a jet, ``(count, ...)``, with all axes; zeros for None."""
    if part is not None:
        return full(part, y.value, y.namespace.base)
    return y.namespace.base.zeros((count, *y.shape), dtype=y.dtype, device=y.device)


class Reverse(NamedTuple):
    """What ``backward`` needs after first derivatives that a pass backward found."""

    x: Array
    rng: Key | None


class Pass(NamedTuple):
    """Some rows of a pass forward: their slice, the namespace of the jets, the layers' caches."""

    rows: slice
    namespace: Functions
    caches: list[Cache]


def forward(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    x: Array,
    plan: Plan,
    rng: Key | None = None,
) -> tuple[list[Array], list[Pass] | Reverse]:
    """Return each term, ``(*stack, batch, n_out)``, and what ``backward`` needs.

    Several first derivatives of one output are those that a pass backward finds at once.
    """
    _check_columns(x, plan)
    is_gradient = len(plan.columns) > 1 and not plan.operators and check_chain(layers)[1] == 1
    if is_gradient and None not in x.shape:  # a recorded graph has no number of rows
        return _forward_by_reverse(layers, parameters, x, plan, rng)
    passes, found = [], []
    for rows in _slices(parameters, x, plan, rng):
        part, caches = x if rows == slice(None) else x[..., rows, :], list[Cache]()
        jet = seeded(part, unit_directions(part, plan.columns), plan.operators)
        own = constants(jet.namespace, parameters)
        y = propagation.forward_through(propagation.linked(layers, own), jet, rng, caches)
        passes.append(Pass(rows, jet.namespace, caches))
        found.append(_terms_of(as_jet(jet.namespace, y), plan))
    if len(found) == 1:
        return found[0], passes
    xp = array_namespace(x)
    return [xp.concat(parts, axis=-2) for parts in zip(*found, strict=True)], passes


def _check_columns(x: Array, plan: Plan) -> None:
    if isinstance(x, Jet):
        raise NoDerivativeError(
            "The outputs of a layer of derivatives have first derivatives by x, those of "
            "input_jacobian, but no second ones and none in another such layer. Give one layer all "
            "the terms."
        )
    if plan.columns and plan.columns[-1] >= x.shape[-1]:
        raise ValueError(
            f"A derivative by column {plan.columns[-1]} of x is asked for, but x has "
            f"{x.shape[-1]} columns, numbered from 0."
        )


def _slices(parameters: Sequence[Parameters], x: Array, plan: Plan, rng: Key | None) -> list[slice]:
    """Return the slices of rows that are computed at once; with masks of a key all rows are."""
    values = [value for own in parameters for value in own]
    count = 1 + len(plan.columns) + len(plan.operators)
    widest = max([x.shape[-1], *(value.shape[-1] for value in values)])
    members = math.prod(values[0].shape[:-2]) if values else 1
    size = rows_in_cache(x, count * widest * members) if rng is None else None
    if size is None or size >= x.shape[-2]:
        return [slice(None)]
    return row_slices(x.shape[-2], size)


def backward(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    passes: Sequence[Pass] | Reverse,
    gs: Sequence[Array],
    plan: Plan,
    *,
    wants_input: bool = True,
    wants_parameters: bool = True,
) -> tuple[Array | None, tuple[Array, ...]]:
    """Return dL/dx and the gradients by the parameters, from the gradients by each term."""
    wanted: dict[str, Any] = {"wants_input": wants_input, "wants_parameters": wants_parameters}
    if isinstance(passes, Reverse):
        return _backward_along_error(layers, parameters, passes, gs, plan, wanted)
    backs, total = [], None
    for rows, namespace, caches in passes:
        parts = [g[..., rows, :] for g in gs] if len(passes) > 1 else gs
        chain = propagation.linked(layers, constants(namespace, parameters), **wanted)
        dual = _dual_of_terms(namespace, parts, plan)
        back, gradients = propagation.backward_through(chain, caches, dual)
        backs.append(value_of(back))
        found = [value_of(one) for layer in gradients for one in layer]
        total = found if total is None else [a + b for a, b in zip(total, found, strict=True)]
    if not wants_input or len(backs) == 1:
        return backs[0], tuple(total or ())
    return array_namespace(gs[0]).concat(backs, axis=-2), tuple(total or ())


def _forward_by_reverse(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    x: Array,
    plan: Plan,
    rng: Key | None,
) -> tuple[list[Array], Reverse]:
    """Return the terms of one output by a pass backward without gradients of parameters."""
    xp, caches, stack = array_namespace(x), list[Cache](), _stack_of(layers, parameters)
    # Layers before the first parameters would give a gradient without the stack.
    x = xp.broadcast_to(x, (*stack, *x.shape[-2:])) if stack else x
    chain = propagation.linked(layers, parameters, wants_parameters=False)
    u = propagation.forward_through(chain, x, rng, caches)
    slopes: Any
    slopes, _ = propagation.backward_through(chain, caches, xp.ones_like(u))
    found = [slopes[..., term[0], None] if term else u for term in plan.terms]
    return found, Reverse(x, rng)


def _stack_of(layers: Sequence[Layer], parameters: Sequence[Parameters]) -> tuple[int, ...]:
    """Return the stack's axes of parameters."""
    for layer, own in zip(layers, parameters, strict=True):
        for shape, value in zip(layer.shapes, own, strict=True):
            return tuple(value.shape[: len(value.shape) - len(shape)])
    return ()


def _backward_along_error(
    layers: Sequence[Layer],
    parameters: Sequence[Parameters],
    cache: Reverse,
    gs: Sequence[Array],
    plan: Plan,
    wanted: dict[str, Any],
) -> tuple[Array | None, tuple[Array, ...]]:
    """Return what ``backward`` does for one output.

    The gradients by its derivatives are a direction v in each row. The gradient of their sum is
    that of the derivative along v, which one jet has, whatever the number of columns.
    """
    xp, zeros = array_namespace(gs[0]), array_namespace(gs[0]).zeros_like(gs[0])
    by_term: dict[Term, Array] = {}
    for term, g in zip(plan.terms, gs, strict=True):
        by_term[term] = by_term[term] + g if term in by_term else g
    columns = [by_term.get((i,), zeros) for i in range(cache.x.shape[-1])]
    jet = seeded(cache.x, xp.concat(columns, axis=-1)[None, ...], ())
    own, caches = constants(jet.namespace, parameters), list[Cache]()
    chain = propagation.linked(layers, own, **wanted)
    propagation.forward_through(chain, jet, cache.rng, caches)
    one = xp.ones_like(zeros)[None, ...]
    dual = Jet(jet.namespace, by_term.get((), zeros), one, is_dual=True)
    back, gradients = propagation.backward_through(chain, caches, dual)
    return value_of(back), tuple(value_of(each) for layer in gradients for each in layer)


def _terms_of(y: Jet, plan: Plan) -> list[Array]:
    """Return each term of a jet, as wide as its value."""
    xp, parts = y.namespace.base, (y.value[None, ...], y.first, y.second)
    found = []
    for order, i in (_where(term, plan) for term in plan.terms):
        part = parts[order]
        found.append(xp.zeros_like(y.value) if part is None else full(part, y.value, xp)[i, ...])
    return found


def _where(term: Term, plan: Plan) -> tuple[int, int]:
    """Return the part of a jet that has a term, and its index in it."""
    if not term:
        return 0, 0
    if len(term) == 1:
        return 1, plan.columns.index(term[0])
    return 2, plan.operators.index(_pairs(term, plan.columns))


def _dual_of_terms(namespace: Functions, gs: Sequence[Array], plan: Plan) -> Jet:
    """Return the dual element of the gradients by each term."""
    xp, zeros = namespace.base, namespace.base.zeros_like(gs[0])
    counts = (1, len(plan.columns), len(plan.operators))
    rows: list[list[Array]] = [[zeros] * count for count in counts]
    for term, g in zip(plan.terms, gs, strict=True):
        part, i = _where(term, plan)
        rows[part][i] = g if rows[part][i] is zeros else rows[part][i] + g
    first, second = (xp.stack(part) if part else None for part in rows[1:])
    return Jet(namespace, rows[0][0], first, second, is_dual=True)
