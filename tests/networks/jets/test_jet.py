"""Jets: truncated Taylor numbers, the dual elements that are gradients, and their errors.

Specifies ``errors``, ``functions``, ``parts`` and ``chain_rule``.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import to_host
from backprop_xp.networks.jets.chain_rule import RULES, raised
from backprop_xp.networks.jets.functions import JetNamespace
from backprop_xp.networks.jets.jet import Jet
from backprop_xp.networks.jets.parts import summed
from backprop_xp.networks.jets.passes import seeded, unit_directions, whole

# Some ten roundings of numbers of size 1; derivatives of some functions are 100 times as large.
ROUNDING = 1e-13
# Two mixed second derivatives, a sum of two, one along a direction, and the Laplacian of three.
OPERATORS = ((0, 1),), ((0, 2), (1, 1)), ((2, 2),), ((0, 0), (1, 1), (2, 2))
LAPLACIAN = (((0, 0), (1, 1), (2, 2)),)


def random_jet(xp: Any, shape: tuple[int, ...], seed: int, operators: Any = OPERATORS) -> Jet:
    generator, namespace = np.random.default_rng(seed), JetNamespace(xp.namespace, operators)
    sizes = (), (3,), (len(operators),)
    return Jet(namespace, *(xp.asarray(generator.uniform(0.2, 0.8, (*k, *shape))) for k in sizes))


def dual(jet: Jet) -> Jet:
    return Jet(jet.namespace, jet.value, jet.first, jet.second, is_dual=True)


def paired(g: Jet, jet: Jet) -> float:
    """Return what a dual element gives for a jet."""
    parts = zip((g.value, g.first, g.second), (jet.value, jet.first, jet.second), strict=True)
    return float(sum(np.sum(to_host(one) * to_host(other)) for one, other in parts))


@pytest.mark.parametrize("operators", [OPERATORS, LAPLACIAN], ids=["mixed", "laplacian"])
@pytest.mark.parametrize("times", [operator.mul, operator.matmul])
def test_a_gradient_times_a_jet_is_the_transpose_of_the_product_of_jets(
    xp: Any, times: Any, operators: Any
) -> None:
    a, b = random_jet(xp, (2, 4, 4), 1, operators), random_jet(xp, (4, 4), 2, operators)
    g = dual(random_jet(xp, (2, 4, 4), 3, operators))
    to_b = times(g, a) if times is operator.mul else a.mT @ g
    to_a = times(g, b) if times is operator.mul else g @ b.mT
    expected = paired(g, times(a, b))
    assert paired(to_a, a) == pytest.approx(expected, rel=xp.rounding(ROUNDING))
    summed = Jet(to_b.namespace, *(part.sum(axis=-3) for part in map(to_host, parts(to_b))))
    assert paired(summed, b) == pytest.approx(expected, rel=xp.rounding(ROUNDING))


def parts(jet: Jet) -> tuple[Any, Any, Any]:
    return jet.value, jet.first, jet.second


def test_a_product_of_jets_has_the_derivatives_of_the_product_of_polynomials(xp: Any) -> None:
    # x y and x + y**2 by x and y: their product is x**2 y + x y**3.
    x, y = 0.7, -1.3
    operators = ((0, 0),), ((0, 1),), ((0, 0), (1, 1))
    point = seeded(xp.asarray([[x, y]]), unit_directions(xp.asarray([[x, y]]), (0, 1)), operators)
    u, v = point[..., :1], point[..., 1:]
    found = u * v * (u + v * v)
    xp.assert_close(found.value, [[x * x * y + x * y**3]], ROUNDING)
    xp.assert_close(found.first[:, 0, 0], [2 * x * y + y**3, x * x + 3 * x * y * y], ROUNDING)
    seconds = [2 * y, 2 * x + 3 * y * y, 2 * y + 6 * x * y]
    xp.assert_close(found.second[:, 0, 0], seconds, ROUNDING)
    quotient = found / (u + v * v) - u * v  # which is 0
    for part in parts(quotient):
        xp.assert_close(part, np.zeros(part.shape), ROUNDING)


# Of arguments in (0.2, 0.8); acosh needs more than 1.
OF_NUMBERS: dict[str, Callable[[Any, Any], Any]] = {
    **{name: lambda xp, x, name=name: getattr(xp, name)(x) for name in RULES if name != "acosh"},
    "acosh": lambda xp, x: xp.acosh(x + 1.0),
    "abs": lambda xp, x: xp.abs(x - 0.5) + abs(x + 1.0) * abs(x - 0.4),
    "pow": lambda xp, x: x**2 + x**3.5 + x**0 + x**1 + x**-1,
    "exponent": lambda xp, x: 2.0**x + x**x,
    "maximum": lambda xp, x: xp.maximum(x * x, 0.3) + xp.minimum(0.5 * x, x * x * x),
    "clip": lambda xp, x: xp.clip(x, 0.3, 0.6) * x,
    "where": lambda xp, x: xp.where(x > 0.5, xp.sqrt(x), x * x),
    "logaddexp": lambda xp, x: xp.logaddexp(x, 0.2 - x),
    "hypot": lambda xp, x: xp.hypot(x, x * x),
    "sign": lambda xp, x: xp.sign(x - 0.5) * x,
    "division": lambda xp, x: 2.0 / x - x / (1.0 + x) + (1.0 - x) / 3.0,
    "max": lambda xp, x: xp.max(x * x, axis=-1, keepdims=True) - x * xp.min(x, axis=-1)[:, None],
    "softmax": lambda xp, x: xp.exp(x) / xp.sum(xp.exp(x), axis=-1, keepdims=True),
    "mean": lambda xp, x: x * xp.mean(x) + xp.mean(x * x, axis=(0, 1)),
    "real": lambda xp, x: xp.real(x) * x if hasattr(xp, "base") else x * x,
}


@functools.cache
def found_by_jax() -> dict[str, list[np.ndarray]]:
    """Return the derivatives of all functions along a curve, of order 0, 1 and 2, compiled once."""
    import jax

    x, d, q = curve_parts()

    def on_a_curve(t: Any) -> dict[str, Any]:
        return {name: f(jax.numpy, x + t * d + 0.5 * t * t * q) for name, f in OF_NUMBERS.items()}

    def of_three_orders(t: Any) -> Any:
        first = jax.jacfwd(on_a_curve)
        return on_a_curve(t), first(t), jax.jacfwd(first)(t)

    with jax.enable_x64(True):
        orders = jax.jit(of_three_orders)(0.0)
        return {name: [np.asarray(order[name]) for order in orders] for name in OF_NUMBERS}


def curve_parts() -> np.ndarray:
    return np.random.default_rng(8).uniform(0.2, 0.8, (3, 4, 3))


@pytest.mark.usefixtures("jax")
@pytest.mark.parametrize("name", OF_NUMBERS)
def test_functions_of_jets_have_the_derivatives_that_jax_finds(name: str) -> None:
    x, d, q = curve_parts()
    namespace = JetNamespace(np, (((0, 0),),))
    found = OF_NUMBERS[name](namespace, Jet(namespace, x, d[None], q[None]))
    value, first, second = found_by_jax()[name]
    np.testing.assert_allclose(found.value, value, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(found.first[0], first, rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(found.second[0], second, rtol=ROUNDING, atol=ROUNDING)


LINEAR: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda xp, x: xp.sum(x, axis=-1),
    "mean": lambda xp, x: xp.mean(x, axis=(-2, -1), keepdims=True),
    "reshape": lambda xp, x: xp.reshape(x, (2, -1)) if len(x.shape) == 3 else rows(xp, x),
    "matrix_transpose": lambda xp, x: xp.matrix_transpose(x),
    "moveaxis": lambda xp, x: xp.moveaxis(x, -1, -3),
    "expand_dims": lambda xp, x: xp.expand_dims(x, axis=-2),
    "index": lambda xp, x: x[..., 1, None, :2],
    "concat": lambda xp, x: xp.concat([x, -x], axis=-1),
    "stack": lambda xp, x: xp.stack([x, 2.0 * x], axis=-1),
    "negative": lambda xp, x: xp.negative(x) - 3.0 * x,
    "squeeze": lambda xp, x: xp.squeeze(x[..., :1], axis=-1),
}


def rows(xp: Any, part: Any) -> Any:
    """Reshape derivatives, (K, 2, 3, 4), as the value is."""
    return xp.reshape(part, (part.shape[0], 2, -1))


@pytest.mark.parametrize("is_dual", [False, True], ids=["jet", "gradient"])
@pytest.mark.parametrize("name", LINEAR)
def test_linear_functions_act_on_each_derivative_alike(xp: Any, name: str, is_dual: bool) -> None:
    jet = random_jet(xp, (2, 3, 4), 5)
    given = dual(jet) if is_dual else jet
    found = LINEAR[name](given.__array_namespace__(), given)
    assert found.is_dual == is_dual
    for ours, part in zip(parts(found), parts(jet), strict=True):
        xp.assert_equal(ours, LINEAR[name](xp.namespace, part))


@pytest.mark.parametrize("count", [1, 2, 3, 8, 13])
def test_compiled_by_jax_the_sum_over_directions_adds_halves(count: int, jax: Any) -> None:
    part = np.random.default_rng(13).normal(size=(count, 4, 3)).astype("float32")
    found = jax.jit(summed)(jax.numpy.asarray(part))
    # A dozen roundings of float32.
    np.testing.assert_allclose(found, part.sum(axis=0, keepdims=True), rtol=0.0, atol=1e-5)
    assert "reduce" not in str(jax.make_jaxpr(summed)(jax.numpy.asarray(part)))


def test_functions_with_axes_from_the_front_count_those_of_the_value(xp: Any) -> None:
    jet = random_jet(xp, (2, 3, 4), 6)
    namespace = jet.__array_namespace__()
    turned = namespace.permute_dims(jet, (2, 0, 1))
    assert turned.shape == (4, 2, 3)
    xp.assert_equal(turned.first, xp.namespace.permute_dims(jet.first, (0, 3, 1, 2)))
    xp.assert_equal(namespace.sum(jet, axis=0).second, xp.namespace.sum(jet.second, axis=1))
    for axis in (0, 1, 3):
        widened = namespace.expand_dims(jet, axis=axis)
        xp.assert_equal(widened.value, xp.namespace.expand_dims(jet.value, axis=axis))
        xp.assert_equal(widened.first, xp.namespace.expand_dims(jet.first, axis=axis + 1))
    joined = namespace.concat([jet, xp.namespace.zeros_like(jet.value)], axis=1)
    assert (joined.shape, joined.first.shape) == ((2, 6, 4), (3, 2, 6, 4))
    assert not np.any(xp.host(joined.second)[:, :, 3:])


@pytest.mark.parametrize("name", ["max", "min"])
def test_equal_extremes_share_the_derivatives(xp: Any, name: str) -> None:
    x = xp.asarray([[1.0, 2.0, 1.0, 2.0]])
    point = seeded(x, unit_directions(x, range(4)), (((1, 1), (2, 2)),))
    cubes = point * point * point
    found = getattr(point.namespace, name)(cubes, axis=-1)
    first, second = {"max": ([0, 6, 0, 6], 6.0), "min": ([1.5, 0, 1.5, 0], 3.0)}[name]
    xp.assert_equal(found.value, xp.asarray([{"max": 8.0, "min": 1.0}[name]]))
    xp.assert_equal(found.first[:, 0], xp.asarray(first))
    xp.assert_equal(found.second[:, 0], xp.asarray([second]))


def test_a_gradient_chosen_beside_0_stays_a_gradient(xp: Any) -> None:
    a, g = random_jet(xp, (2, 3), 14), dual(random_jet(xp, (2, 3), 15))
    namespace, chosen = a.namespace, a.value > 0.5
    assert np.unique(xp.host(chosen)).size == 2
    for found, flags in (
        (namespace.where(chosen, g, 0.0), chosen),
        (namespace.where(chosen, 0.0, g), ~chosen),
    ):
        assert found.is_dual
        for ours, part in zip(parts(found), parts(g), strict=True):
            xp.assert_equal(ours, part * xp.namespace.astype(flags, part.dtype))
        # Its product with a jet is the transpose of the jets' product, as for any gradient.
        expected = paired(found, a * a)
        assert paired(found * a, a) == pytest.approx(expected, rel=xp.rounding(ROUNDING))


def test_slopes_at_0_are_those_from_the_left(xp: Any) -> None:
    x = xp.asarray([[0.0]])
    point = seeded(x, unit_directions(x, (0,)), (((0, 0),),))
    slopes = {"relu": (0.0, 0.0), "leaky_relu": (0.01, 0.0), "elu": (1.0, 1.0)}
    slopes |= {"softplus": (0.5, 0.25), "sigmoid": (0.25, 0.0), "tanh": (1.0, 0.0)}
    for name, (first, second) in slopes.items():
        found = bx.activations.ACTIVATIONS[name].value(point)
        xp.assert_close(found.first[0, ...], [[first]], ROUNDING)
        xp.assert_close(whole(found, found.second, 1)[0, ...], [[second]], ROUNDING)
    xp.assert_equal(abs_of(point).first[0, ...], [[-1.0]])


@pytest.mark.core
@pytest.mark.parametrize("exponent", [0, 1, 2, 3.0, 4, 7, -1, -2, np.int64(2), 0.5])
def test_powers_keep_a_complex_steps_imaginary_part(xp: Any, exponent: Any) -> None:
    """Most libraries' own powers of a negative number have an imaginary part of 1e-16."""
    base = np.array([-0.7, -1.3, 0.4]) if exponent != 0.5 else np.array([0.4, 2.0])
    x = xp.asarray(base + 2.0**-66 * 1j, dtype=xp.complex_dtype)
    found = xp.host(raised(xp.namespace, x, exponent))
    np.testing.assert_allclose(found.real, base**exponent, rtol=xp.rounding(1e-14))
    slopes = exponent * base ** (exponent - 1.0)
    np.testing.assert_allclose(found.imag, 2.0**-66 * slopes, rtol=xp.rounding(1e-14))


def test_powers_have_finite_derivatives_at_0(xp: Any) -> None:
    x = xp.asarray([[0.0]])
    point = seeded(x, unit_directions(x, (0,)), (((0, 0),),))
    closed = {0: (1.0, 0.0, 0.0), 1: (0.0, 1.0, 0.0), 2: (0.0, 0.0, 2.0), 3: (0.0, 0.0, 0.0)}
    for n, expected in closed.items():
        found = point**n
        for part, number in zip(parts(found), expected, strict=True):
            xp.assert_equal(xp.host(part).reshape(1), [number])


def test_exponents_of_each_column_take_negative_numbers(xp: Any) -> None:
    x, n = xp.asarray([[-1.5, 0.0, 2.0]]), xp.asarray([[3.0, 2.0, 0.5]])
    point = seeded(x, unit_directions(x, (0, 1, 2)), (((0, 0), (1, 1), (2, 2)),))
    columns = [point[..., i : i + 1] ** power for i, power in enumerate((3, 2, 0.5))]
    expected = point.namespace.concat(columns, axis=-1)
    for exponent in (n, Jet(point.namespace, n)):
        for part, other in zip(parts(point**exponent), parts(expected), strict=True):
            xp.assert_close(part, other, ROUNDING)
    assert (point ** xp.asarray([[[2.0]], [[3.0]]])).first.shape == (3, 2, 1, 3)


def test_an_exponent_may_be_a_number_of_numpy(xp: Any) -> None:
    if xp.name in ("array-api-strict", "lookalike"):
        pytest.skip("its arrays raise for numbers of NumPy")
    jet = -random_jet(xp, (2, 4), 9)
    for exponent in (np.int64(3), np.float32(3.0)):
        for part, other in zip(parts(jet**exponent), parts(jet**3.0), strict=True):
            xp.assert_close(part, other, ROUNDING)


def at(xp: Any, number: float) -> Jet:
    """Return a number as a jet with its first and its second derivative."""
    x = xp.asarray([[number]])
    return seeded(x, unit_directions(x, (0,)), (((0, 0),),))


CHOOSING: dict[str, Any] = {
    "maximum": lambda xp, x: xp.maximum(xp.sqrt(x), x + 1.0),
    "minimum": lambda xp, x: xp.minimum(x - 1.0, xp.sqrt(x)),
    "where": lambda xp, x: xp.where(x.value > 0.0, xp.sqrt(x), x + 1.0),
    "max": lambda xp, x: xp.max(xp.concat([xp.sqrt(x), x + 1.0], axis=-1), axis=-1)[..., None],
    "clip": lambda xp, x: x + xp.clip(xp.sqrt(x), 1.0, 2.0),
}


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.filterwarnings("ignore:.*(divide by zero|invalid value)")
def test_infinite_derivatives_of_what_is_not_chosen_do_not_count(xp: Any, name: str) -> None:
    point = at(xp, 0.0)
    found = CHOOSING[name](point.namespace, point)
    xp.assert_equal(found.first[0, ...], [[1.0]])
    xp.assert_equal(whole(found, found.second, 1)[0, ...], [[0.0]])


def test_powers_of_a_constant_have_their_closed_forms_and_those_of_0_are_constant(xp: Any) -> None:
    point, log = at(xp, 2.0), math.log(3.0)
    closed = {3.0: (9.0, 9.0 * log, 9.0 * log**2), 0.0: (0.0, 0.0, 0.0)}
    for base, expected in closed.items():
        for power in (base**point, point.namespace.pow(xp.asarray([[base]]), point)):
            for part, number in zip(parts(power), expected, strict=True):
                xp.assert_close(xp.host(part).reshape(1), [number], 9.0 * ROUNDING)


def test_a_hypotenuse_neither_overflows_nor_underflows(xp: Any) -> None:
    for size in (1e30, 1e-30):  # squares of both leave float32, which has no smaller numbers
        x = xp.asarray([[3.0 * size]], dtype="float32")
        point = seeded(x, unit_directions(x, (0,)), (((0, 0),),))
        found = point.namespace.hypot(point, 4.0 / 3.0 * x)
        xp.assert_close(found.value / size, [[5.0]], 1e-5)
        xp.assert_close(found.first[0, ...], [[0.6]], 1e-6)
        xp.assert_close(found.second[0, ...] * size, [[0.128]], 1e-6)


def test_a_quotient_by_a_constant_has_the_axes_of_both(xp: Any) -> None:
    # As many networks as directions, so that the axes would broadcast the wrong way.
    jet, stacked = random_jet(xp, (2, 4), 10), xp.asarray(np.arange(1.0, 4.0).reshape(3, 1, 1))
    one = seeded(jet.value, unit_directions(jet.value, (0, 1, 2)), OPERATORS)
    for x in (jet, one):
        found, expected = x / Jet(jet.namespace, stacked), x * Jet(jet.namespace, 1.0 / stacked)
        assert found.first.shape == expected.first.shape
        xp.assert_close(found.first, expected.first, ROUNDING)
        xp.assert_close(found.value, expected.value, ROUNDING)


def abs_of(jet: Jet) -> Jet:
    return jet.__array_namespace__().abs(jet)


@pytest.mark.parametrize("name", ["sigmoid", "silu", "gelu", "softplus", "tanh", "elu", "softmax"])
def test_derivatives_far_from_0_are_finite_in_float32(xp: Any, name: str) -> None:
    x = xp.asarray([[-1e4, -90.0, -60.0, -20.0, 20.0, 60.0, 90.0, 1e4]], dtype="float32")
    direction = xp.asarray(np.ones((1, 8)), dtype="float32")
    point = seeded(xp.namespace.matrix_transpose(x), direction[:, :1], (((0, 0),),))
    if name == "softmax":
        point = seeded(x, direction, (((0, 0),),))
    found = bx.activations.ACTIVATIONS[name].value(point)
    for part in parts(found):
        assert "float32" in str(part.dtype)
        assert np.all(np.isfinite(xp.host(part)))


def test_a_jet_without_derivatives_is_a_constant(xp: Any) -> None:
    x = xp.asarray([[0.5, -0.25]])
    constant = seeded(x, None, LAPLACIAN)
    for function in (
        lambda a: 1.0 / (2.0 + a),
        lambda a: (a - 1.0) ** 2 / a,
        bx.losses.tweedie().inverse_link,
    ):
        found = function(constant)
        assert found.first is found.second is None
        xp.assert_equal(found.value, function(x))


COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


def test_an_array_of_the_library_times_a_jet_is_a_jet(xp: Any) -> None:
    if xp.name in ("array-api-strict", "lookalike", "dpnp"):
        pytest.skip("its arrays raise for anything but arrays and numbers")
    jet, w = random_jet(xp, (4, 4), 7), xp.asarray(np.arange(16.0).reshape(4, 4))
    for function in (operator.mul, operator.add, operator.sub, operator.truediv, operator.matmul):
        found, expected = function(w, jet), function(Jet(jet.namespace, w), jet)
        for one, other in zip(parts(found), parts(expected), strict=True):
            xp.assert_equal(one, other)
    equal = w * 0.0 + jet.value[:1, :]  # equal to the first row of the jet
    for compare in COMPARISONS:
        for left in (w, equal):
            xp.assert_equal(compare(left, jet).value, compare(left, jet.value))
    is_large = (w > 3.0) & (jet > 0.5)
    xp.assert_equal(is_large.value, (w > 3.0) & (jet.value > 0.5))
    with pytest.raises(TypeError, match=r"no rule for x % y"):
        w % jet


REFUSED: dict[str, tuple[Callable[[Any, Jet], Any], str]] = {
    "cumulative_sum": (lambda xp, x: xp.cumulative_sum(x), "no rule for cumulative_sum"),
    "atan2": (lambda xp, x: xp.atan2(x, x), "no rule for atan2.*There are rules for.*tanh"),
    "norm": (lambda xp, x: xp.linalg.vector_norm(x), r"no rule for linalg\.vector_norm"),
    "integers": (lambda xp, x: xp.astype(x, xp.int32), "no rule for astype.*have no derivatives"),
    "float": (lambda xp, x: math.sin(x), r"math.*xp = array_namespace\(x\), then xp.sin\(x\)"),
    "int": (lambda xp, x: int(x), r"^int\(\.\.\.\) would lose the derivatives"),
    "index": (lambda xp, x: [1.0, 2.0][x], "^An integer, such as an index, would lose"),
    "remainder": (lambda xp, x: x % 1.0, r"no rule for x % y.*xp\.where\(x < 1\.0.*given="),
    "remainder by": (lambda xp, x: 1.0 % x, "no rule for x % y"),
    "quotient": (lambda xp, x: x // 2, "no rule for x // y.* jumps"),
    "quotient by": (lambda xp, x: 2 // x, "no rule for x // y"),
    "both": (lambda xp, x: divmod(x, 2), "no rule for divmod"),
    "in place": (lambda xp, x: operator.imod(x, 2.0), "no rule for x % y"),
    "round": (lambda xp, x: round(x, 2), "no rule for round, which jumps"),
    "floor": (lambda xp, x: math.floor(x), "no rule for floor"),
    "function": (lambda xp, x: xp.remainder(x, 1.0), "no rule for x % y"),
    "bool": (lambda xp, x: 1.0 if x else 0.0, r"^\"if\", .* takes one boolean.* xp\.where\(x"),
    "if": (lambda xp, x: 1.0 if x > 0.5 else 0.0, r"takes one boolean.* it is s\.xp\."),
    "between": (lambda xp, x: 0.0 < x < 1.0, r"\(x > 0\.0\) & \(x < 1\.0\)"),
    "largest": (lambda xp, x: max(x, 0.0), r"xp\.maximum\(a, b\)"),
    "if not finite": (lambda xp, x: 1.0 if xp.isfinite(x) else 0.0, "takes one boolean"),
    "numbers": (lambda xp, x: x & x, "^& takes conditions such as x > 0.0, not numbers"),
    "precedence": (lambda xp, x: x > 0 & x, "Comparisons beside &.* need parentheses"),
    "choice": (lambda xp, x: xp.where(x, x, 0.0), "^where takes conditions"),
    "iteration": (lambda xp, x: list(x), r"^Iteration is not possible.* x\[\.\.\., 0\]"),
    "length": (lambda xp, x: len(x), r"^len.* x\.shape\[-1\] for a length"),
    "membership": (lambda xp, x: 0.5 in x, '^"in" is not possible'),
    "sum": (lambda xp, x: sum(x), r"xp\.sum\(x, axis=-1\) for sum\(x\)"),
    "writing": (lambda xp, x: x.__setitem__(0, 1.0), "xp.concat or xp.where instead of"),
    "bounds": (lambda xp, x: xp.clip(x, x, 1.0), "no rule for clip with bounds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_jet_cannot_pass_is_an_error_that_names_the_way_out(xp: Any, name: str) -> None:
    jet = random_jet(xp, (2, 3), 9)
    call, message = REFUSED[name]
    with pytest.raises(TypeError, match=message):
        call(jet.__array_namespace__(), jet)


def test_comparisons_are_conditions_that_join_and_choose_in_each_row(xp: Any) -> None:
    jet = random_jet(xp, (2, 3), 12)
    namespace, x = jet.__array_namespace__(), jet.value
    is_middle = (jet > 0.3) & ~(jet >= 0.7) | (jet == 0.5)
    expected = (x > 0.3) & ~(x >= 0.7) | (x == 0.5)
    xp.assert_equal(is_middle.value, expected)
    xp.assert_equal(namespace.logical_not(is_middle).value, ~expected)
    chosen = namespace.where(is_middle, 2.0 * jet, jet)
    factor = namespace.where(is_middle, xp.asarray([[2.0]]), xp.asarray([[1.0]]))
    for one, other in zip(parts(chosen), parts(factor * jet), strict=True):
        xp.assert_equal(one, other)
    ones = namespace.astype(is_middle, x.dtype)
    xp.assert_equal(ones.value, xp.namespace.astype(expected, x.dtype))
    assert ones.first is None


def test_one_condition_for_all_rows_may_be_asked_for(xp: Any) -> None:
    jet = random_jet(xp, (2, 3), 12)
    namespace = jet.__array_namespace__()
    assert namespace.all(jet > 0.0)
    assert not namespace.any(namespace.isnan(jet))
    assert namespace.sum(jet) > 0.0


def test_a_number_minus_a_condition_is_its_opposite() -> None:
    jet = Jet(JetNamespace(np, ()), np.array([1.0, -1.0]), np.ones((1, 2)))
    assert (1.0 - (jet > 0.0)).value.tolist() == [0.0, 1.0]  # NumPy's, not the standard's


def test_a_function_or_a_method_of_the_library_is_an_error_that_names_the_namespace() -> None:
    namespace = JetNamespace(np, ())
    jet, w = Jet(namespace, np.ones((2, 2)), np.ones((1, 2, 2))), np.ones((2, 2))
    with pytest.raises(TypeError, match=r"^sin of the array library.*s\.xp\.sin\(s\.u\)"):
        np.sin(jet)
    for call in (lambda: np.where(w > 0, jet, 0.0), lambda: w.dot(jet), lambda: np.concat([jet])):
        with pytest.raises(TypeError, match="would lose the derivatives"):
            call()
    with pytest.raises(TypeError, match=r"^where of the array library would lose"):
        np.where(w > 0, jet, 0.0)
    with pytest.raises(TypeError, match=r"^Conversion to an array would lose the derivatives"):
        w[0] = jet[0]
    with pytest.raises(AttributeError, match=r"no 'sum'\. Use a function of .* xp\.sum\(x, axis"):
        jet.sum(-1)


NOT_LINEAR: dict[str, Callable[[Any, Jet, Jet], Any]] = {
    "multiplies g by g": lambda xp, g, a: g * g,
    "adds an array that does not depend on g": lambda xp, g, a: g + a,
    "adds an array that does not depend": lambda xp, g, a: 1.0 - g,
    "divides by g": lambda xp, g, a: a / g,
    "applies a function to g": lambda xp, g, a: xp.tanh(g),
    "takes the maximum of g": lambda xp, g, a: xp.maximum(g, 0.0),
    "takes the absolute value of g": lambda xp, g, a: xp.abs(g),
    "takes sign of g": lambda xp, g, a: xp.sign(g),
    "takes the max of g": lambda xp, g, a: xp.max(g, axis=-1),
    "compares g": lambda xp, g, a: g * (g > 0.0),
    "chooses between g and an array": lambda xp, g, a: xp.where(a > 0.0, g, a),
    "joins g and an array": lambda xp, g, a: xp.concat([g, a], axis=-1),
}


@pytest.mark.parametrize("message", NOT_LINEAR)
def test_a_backward_rule_that_is_not_linear_in_g_is_an_error(xp: Any, message: str) -> None:
    a, g = random_jet(xp, (2, 3), 10), dual(random_jet(xp, (2, 3), 11))
    with pytest.raises(TypeError, match=f"A backward rule {message}.* linear in g"):
        NOT_LINEAR[message](a.__array_namespace__(), g, a)
