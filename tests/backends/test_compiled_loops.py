"""NumPy's loops that Numba compiles: each against its reference, within the bound of its rounding.

The reference computes in float64, also for float32's loops: no rounding of its own counts there.

Specifies ``compilers``, ``dense_loops``, ``kernels``, ``row_loops``, ``update_loops`` and
``wave_loops``.
"""

import importlib
import inspect
import operator
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import mpmath
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import LayerFunctions, TrainingTable, holding
from backprop_xp.backends.libraries.numpy import compilation
from backprop_xp.backends.replacements import qualified_name
from backprop_xp.networks.derivatives.bound import bind
from backprop_xp.networks.layers.activations import activated, sent_back
from backprop_xp.networks.layers.core import dropped, normalized, normalized_back
from backprop_xp.networks.losses import rules
from backprop_xp.networks.losses.loss import LOSSES, value_and_gradient
from backprop_xp.networks.numbers.random_bits import RowKey
from backprop_xp.training.optimizers.first_order import rule_of
from tests.helpers import thorough

pytest.importorskip("numba", reason="the extra fast is not installed")

# NumPy's exp and tanh, and a handful of operations beside a sum, in units of rounding.
FUNCTION = 8
UPDATES = 20
STACK = 5

generator = np.random.default_rng(28)
# Numba compiles each loop for a second or more, and for each dtype. Trainings in other files need
# those of float64; in float32 dense layers and Adam are tested by default, the rest in the sweep.
every_dtype = pytest.mark.parametrize("dtype", [np.float64, thorough(np.float32)])
every_stack = pytest.mark.parametrize("stack", [(), (STACK,), (2, 3)], ids=str)


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    """The loops; later tests of this process train without them, as in a process of their own."""
    yield importlib.import_module(compilation.KERNELS)
    sys.modules.pop(compilation.KERNELS)


def loops_of(kernels: Any, layer: Any) -> LayerFunctions:
    """Return the layer's functions in a training with loops."""
    table = TrainingTable(kernels.REPLACEMENTS, np.ones(1), [layer])
    functions = table.layers.get(id(layer), layer)

    def forward(*arguments: Any) -> Any:
        with holding(table):
            return functions.forward(*arguments)

    def backward(*arguments: Any, **options: Any) -> Any:
        with holding(table):
            return functions.backward(*arguments, **options)

    return LayerFunctions(forward, backward)


def has_loops(kernels: Any, layer: Any) -> bool:
    return bool(TrainingTable(kernels.REPLACEMENTS, np.ones(1), [layer]).layers)


def declines(kernels: Any, function: Any, *arguments: Any) -> bool:
    """Whether what replaces a function leaves these arguments to it."""
    return kernels.REPLACEMENTS[qualified_name(function)](*arguments) is NotImplemented


def draw(dtype: Any, *shape: int) -> np.ndarray:
    return generator.normal(size=shape).astype(dtype)


def wide(*arrays: Any) -> list[Any]:
    """Return the same numbers in float64."""
    return [a.astype(np.float64) if hasattr(a, "astype") else a for a in arrays]


def assert_within(got: np.ndarray, wanted: np.ndarray, roundings: Any) -> None:
    """Assert an error of at most so many roundings, an array of them, of the dtype that is got."""
    finfo = np.finfo(got.dtype)
    assert got.shape == wanted.shape
    assert np.array_equal(np.isfinite(got), np.isfinite(wanted))
    # Numbers below the smallest normal one have fewer digits.
    error, bound = np.abs(got - wanted), finfo.eps * roundings + 4.0 * finfo.tiny
    inside = (error <= bound) | ~np.isfinite(wanted)
    assert inside.all(), f"{np.max((error / bound)[~inside])} times the bound"


# ---- dense layers

# (stack, whether it shares x, rows, n_in, n_out): products in the loop, in which functions are
# NumPy's for more than 256 numbers, and products of BLAS.
DENSE = {
    "small": ((), False, 4, 3, 2),
    "small, many numbers": ((), False, 100, 1, 4),
    "wide": ((), False, 300, 40, 30),
    "small stack": ((STACK,), False, 4, 3, 2),
    "small stack, many numbers": ((200,), True, 4, 3, 2),
    "stack that shares x": ((STACK,), True, 300, 40, 30),
    "wide stack": ((STACK,), False, 300, 40, 30),
    "one output": ((STACK,), False, 300, 40, 1),
    "stack of two axes": ((2, 3), True, 4, 3, 2),
}


# The sizes of the terms of a slope: by the output, but silu's also has the rounding of z, of which
# its second derivative passes on a half.
SIZES: dict[str, Any] = {
    **dict.fromkeys(["identity", "relu"], lambda a, sums: 1.0),
    **dict.fromkeys(["tanh", "sigmoid"], lambda a, sums: 1.0 + a * a),
    "silu": lambda a, sums: 2.0 + 0.5 * sums,
}


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        (case, dtype) if dtype is np.float64 or case in ("small", "wide") else thorough(case, dtype)
        for case in DENSE
        for dtype in (np.float64, np.float32)
    ],
)
@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid", "silu"])
def test_a_dense_layer_and_its_rule(kernels: Any, name: str, case: str, dtype: Any) -> None:
    stack, shares, rows, n_in, n_out = DENSE[case]
    # Theta's first entries are another layer's: parameters of a stack are not contiguous.
    network = bx.Network([bx.Scale(n_in), bx.Dense(n_in, n_out, name)], "mean_squared_error")
    assert has_loops(kernels, network.layers[1])
    layer = loops_of(kernels, network.layers[1])
    bound = bind(network.definition, draw(dtype, *stack, network.size))
    bound.gradient[...] = np.nan
    own, out = bound.chain[1].parameters, bound.chain[1].buffers
    x = draw(dtype, *(() if shares else stack), rows, n_in)
    x[..., 0, :] *= 1e4  # the ends of tanh and sigmoid, and beyond those of exp
    a, cache = layer.forward(own, x, None)
    reference, (w, b), x_wide = network.layers[1], wide(*own), x.astype(np.float64)
    exact, (_, z, _) = reference.forward((w, b), x_wide, None)
    sums = (n_in + 1) * (np.abs(x_wide) @ np.abs(w) + np.abs(b))
    # The functions' slopes are at most 1.1: they pass on the rounding of their sums.
    assert_within(a, exact, 1.1 * sums + FUNCTION * np.abs(exact))
    g = draw(dtype, *a.shape)
    found = layer.backward(own, cache, g, out=out)
    g_wide, a_wide = wide(g, a)
    dx, (dw, db) = reference.backward((w, b), (x_wide, z, a_wide), g_wide)
    sizes = np.abs(g_wide) * SIZES[name](a_wide, sums)
    assert_within(found[0], dx, (n_out + FUNCTION) * sizes @ np.abs(w.mT))
    assert_within(out[0], dw, (rows + FUNCTION) * np.abs(x_wide.mT) @ sizes)
    assert_within(out[1], db, (rows + FUNCTION) * sizes.sum(axis=-2, keepdims=True))
    assert np.isnan(bound.gradient[..., :n_in]).all()
    # A first layer needs no dL/dx; its parameters' gradients are the same.
    kept = bound.gradient.copy()
    bound.gradient[..., n_in:] = np.nan
    assert layer.backward(own, cache, g, wants_input=False, out=out)[0] is None
    np.testing.assert_array_equal(bound.gradient, kept)


@pytest.mark.parametrize("stack", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("name", SIZES)
def test_an_activation_as_a_layer_and_its_rule(
    kernels: Any, name: str, stack: tuple[int, ...]
) -> None:
    layer = bx.Activate(name)
    loops = loops_of(kernels, layer)
    z, g = 3.0 * draw(float, *stack, 4, 5), draw(float, *stack, 4, 5)
    # Nothing is computed of the identity.
    assert declines(kernels, activated, z, layer.activation) == (name == "identity")
    a, cache = loops.forward((), z, None)
    exact, exact_cache = layer.forward((), z, None)
    assert_within(a, exact, FUNCTION * np.abs(exact))
    back, wanted = loops.backward((), cache, g)[0], layer.backward((), exact_cache, g)[0]
    assert_within(back, wanted, FUNCTION * np.abs(g) * SIZES[name](a, 0.0))


@pytest.mark.parametrize("name", SIZES)
def test_a_dense_layer_without_buffers_returns_new_gradients_or_none(
    kernels: Any, name: str
) -> None:
    layer = bx.Dense(3, 4, name)
    loops = loops_of(kernels, layer)
    own, x, g = (draw(float, 3, 4), draw(float, 1, 4)), draw(float, 5, 3), draw(float, 5, 4)
    caches = [one.forward(own, x, None)[1] for one in (loops, layer)]
    results = [
        one.backward(own, cache, g) for one, cache in zip((loops, layer), caches, strict=True)
    ]
    (dx, found), (dx_exact, exact) = results
    for got, wanted in zip((dx, *found), (dx_exact, *exact), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-13, atol=1e-13)  # some tens of roundings
    alone = loops.backward(own, caches[0], g, wants_parameters=False)
    np.testing.assert_array_equal(alone[0], dx)
    assert alone[1] == ()


@pytest.mark.parametrize("name", ["identity", "relu", "tanh", "sigmoid", "silu"])
@pytest.mark.parametrize("size", [3, 300])
def test_a_row_that_is_nan_leaves_the_others_as_they_are(
    kernels: Any, name: str, size: int
) -> None:
    layer = bx.Dense(size, size, name)
    loops = loops_of(kernels, layer)
    own, x = (draw(float, size, size), draw(float, 1, size)), draw(float, 4, size)
    x[2] = np.nan
    a, _ = loops.forward(own, x, None)
    assert np.isnan(a).all(axis=-1).tolist() == [False, False, True, False]
    assert np.isnan(a).any(axis=-1).tolist() == [False, False, True, False]


def test_a_biass_gradient_keeps_float32s_digits_over_many_rows(kernels: Any) -> None:
    """One sum after the other would lose as many as its bits: 30,000 rows of the same sign."""
    layer = bx.Dense(2, 200)
    network = bx.Network([layer], "mean_squared_error")
    loops = loops_of(kernels, layer)
    bound = bind(network.definition, draw(np.float32, network.size))
    own, out = bound.chain[0].parameters, bound.chain[0].buffers
    _, cache = loops.forward(own, draw(np.float32, 30_000, 2), None)
    g = np.full((30_000, 200), 0.1, np.float32)
    loops.backward(own, cache, g, wants_input=False, out=out)
    exact = wide(g)[0].sum(axis=0, keepdims=True)
    # Within a block of rows and over the blocks: at most 128 and 235 roundings of sums that grow.
    assert_within(out[1], exact, 128 * exact)


# ---- numeric embeddings


@every_dtype
def test_a_wave_has_two_roundings_and_any_number_of_turns(kernels: Any, dtype: Any) -> None:
    loops = importlib.import_module(f"{kernels.__package__}.wave_loops")
    ends = [0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 1e-30, 12345.5, 1e30]
    u = np.concatenate([ends, generator.uniform(-2.0, 2.0, 2000), 1e3 * draw(dtype, 2000)])
    u = np.concatenate([u, -u]).astype(dtype)
    waves, slopes = np.empty_like(u), np.empty_like(u)
    one, series = dtype(1), loops._SERIES[np.dtype(dtype).char]
    loops._write_waves(u, one, 0 * one, series, waves, slopes)
    exact = [[function(mpmath.mpf(float(n))) for n in u] for function in (cospi, minus_sinpi)]
    assert_within(waves, np.array(exact[0], float), 2.0)
    assert_within(slopes, np.array(exact[1], float), 2.0)
    loops._write_waves(np.array([np.nan, np.inf], dtype), one, one, series, waves[:2], slopes[:2])
    assert np.isnan([waves[:2], slopes[:2]]).all()


def cospi(n: Any) -> float:
    return float(mpmath.cospi(n))


def minus_sinpi(n: Any) -> float:
    return -float(mpmath.sinpi(n))


COLUMNS, EMBEDDED_ROWS = 3, 300


class Embedding(NamedTuple):
    """A numeric embedding of three columns behind another layer: reference, loops and arrays.

    Theta's first entries are the other layer's: parameters of a stack are not contiguous.
    """

    reference: Any
    loops: Any
    parameters: Any
    buffers: Any
    gradient: np.ndarray  # all of theta's, NaN where nothing is written
    x: np.ndarray
    g: np.ndarray

    @property
    def roundings_of_waves(self) -> np.ndarray:
        """An angle has its terms' roundings, and passes them on to the wave and to its slope."""
        f, b, _, _ = wide(*self.parameters)
        x = self.x.astype(np.float64)
        return 4.0 * (2.0 * np.pi * np.abs(x.mT[..., None] * f) + np.abs(b)) + FUNCTION


@pytest.fixture
def embedding(kernels: Any, stack: tuple[int, ...], shares: bool, dtype: Any) -> Embedding:
    layer = bx.NumericEmbedding(COLUMNS, 4, n_frequencies=5, frequency_scale=0.5)
    network = bx.Network([bx.Scale(COLUMNS), layer], "mean_squared_error")
    assert has_loops(kernels, layer)
    loops = loops_of(kernels, layer)
    bound = bind(network.definition, draw(dtype, *stack, network.size))
    bound.gradient[...] = np.nan
    x = draw(dtype, *(() if shares else stack), EMBEDDED_ROWS, COLUMNS)
    x[..., 0, :] *= 1e3
    g = draw(dtype, *stack, EMBEDDED_ROWS, layer.n_out)
    link = bound.chain[1]
    return Embedding(layer, loops, link.parameters, link.buffers, bound.gradient, x, g)


every_input = pytest.mark.parametrize("shares", [True, False], ids=["shared x", "own x"])


@every_dtype
@every_input
@every_stack
def test_a_numeric_embedding_is_x_beside_its_features(embedding: Embedding) -> None:
    y, _ = embedding.loops.forward(embedding.parameters, embedding.x, None)
    own, x_wide = wide(*embedding.parameters), embedding.x.astype(np.float64)
    exact, _ = embedding.reference.forward(tuple(own), x_wide, None)
    _, _, w, c = own
    features = embedding.roundings_of_waves @ np.abs(w) + FUNCTION * np.abs(c)
    features = np.moveaxis(features, -3, -2).reshape(*y.shape[:-1], -1)
    x = np.broadcast_to(embedding.x, (*y.shape[:-1], COLUMNS))
    np.testing.assert_array_equal(y[..., :COLUMNS], x)
    assert_within(y[..., COLUMNS:], exact[..., COLUMNS:], features)


@every_dtype
@every_input
@every_stack
def test_a_numeric_embeddings_rule_writes_its_gradients_and_no_others(embedding: Embedding) -> None:
    reference, loops, own, out, gradient, x, g = embedding
    _, cache = loops.forward(own, x, None)
    dx, gradients = loops.backward(own, cache, g, out=out)
    (f, b, w, c), x_wide, g_wide = wide(*own), x.astype(np.float64), g.astype(np.float64)
    _, kept = reference.forward((f, b, w, c), x_wide, None)
    back, wanted = reference.backward((f, b, w, c), kept, g_wide)

    # The sizes of the terms of each gradient. A sum over rows has a rounding for each term.
    rest = np.abs(g[..., COLUMNS:]).reshape(*g.shape[:-1], COLUMNS, 3)
    rest, many = np.moveaxis(rest, -2, -3), EMBEDDED_ROWS + FUNCTION
    slopes = (rest @ np.abs(w).mT) * embedding.roundings_of_waves
    bounds = (
        many * 2.0 * np.pi * (np.abs(x_wide.mT)[..., None, :] @ slopes),
        many * slopes.sum(axis=-2, keepdims=True),
        many * embedding.roundings_of_waves.mT @ rest,
        many * rest.sum(axis=-2, keepdims=True),
    )
    by_x = FUNCTION * 2.0 * np.pi * (slopes @ np.abs(f).mT)[..., 0].mT

    assert_within(dx, back, by_x + FUNCTION * np.abs(g[..., :COLUMNS]))
    assert gradients is out or all(one is other for one, other in zip(gradients, out, strict=True))
    for got, exact, bound in zip(gradients, wanted, bounds, strict=True):
        assert_within(got, exact, bound)
    assert np.isnan(gradient[..., :COLUMNS]).all()


@every_dtype
@every_input
@every_stack
def test_a_numeric_embedding_that_is_first_or_has_no_buffers_has_the_same_gradients(
    embedding: Embedding,
) -> None:
    _, loops, own, out, gradient, x, g = embedding
    _, cache = loops.forward(own, x, None)
    loops.backward(own, cache, g, out=out)
    expected = gradient.copy()
    gradient[...] = np.nan
    assert loops.backward(own, cache, g, wants_input=False, out=out)[0] is None
    np.testing.assert_array_equal(gradient, expected)
    for one, other in zip(loops.backward(own, cache, g)[1], out, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_numeric_embeddings_gradient_keeps_float32s_digits_over_many_rows(kernels: Any) -> None:
    embedding = bx.NumericEmbedding(1, 2, n_frequencies=1)
    network = bx.Network([embedding], "mean_squared_error")
    loops = loops_of(kernels, embedding)
    bound = bind(network.definition, np.zeros(network.size, np.float32))  # waves of 1
    own, out = bound.chain[0].parameters, bound.chain[0].buffers
    _, cache = loops.forward(own, np.zeros((30_000, 1), np.float32), None)
    loops.backward(own, cache, np.full((30_000, 2), 0.1, np.float32), wants_input=False, out=out)
    exact = np.full((1, 1, 1), 30_000 * float(np.float32(0.1)))
    for sums in out[2:]:
        assert_within(sums, exact, 128 * exact)


def test_a_numeric_embedding_of_sines_and_cosines_has_no_loop(kernels: Any) -> None:
    assert not has_loops(kernels, bx.NumericEmbedding(2, kind="pl"))


# ---- losses


def roundings_of(name: str, o: np.ndarray, t: np.ndarray, part: Any) -> tuple[Any, Any]:
    """Return the bounds of a loss's value and of its gradient, in units of rounding."""
    n = o.shape[-1]
    if name.endswith("squared_error"):
        r = np.abs(o - t)
        return (n + FUNCTION) * (r * r).mean(axis=-1), FUNCTION * r * part * 2.0 / n
    e = np.exp(-np.abs(o))
    if name == "binary_cross_entropy":
        # All terms have one sign, those of the slope but near the optimum.
        ends = np.where(o > 0.0, 1.0 - t, t) * np.abs(o)
        slopes = (1.0 - t) * np.where(o > 0.0, 1.0, e) + t * np.where(o > 0.0, e, 1.0)
        return (n + FUNCTION) * (ends + np.log1p(e)).mean(axis=-1), FUNCTION * slopes * part / n
    total = t.sum(axis=-1, keepdims=True)
    shares, s = t / np.where(total == 0.0, 1.0, total), o - o.max(axis=-1, keepdims=True)
    # The exponent's rounding is multiplied by the exponent; the sum has n of the terms.
    each = (np.abs(s) + FUNCTION) * np.exp(s) + FUNCTION * shares
    r = each.sum(axis=-1, keepdims=True) + n * (np.exp(s) + shares).sum(axis=-1, keepdims=True)
    denominator = np.exp(s).sum(axis=-1, keepdims=True)
    logs = r / denominator + FUNCTION * np.log(denominator)
    value = (total * logs)[..., 0] + (n + 1) * (t * np.abs(s)).sum(axis=-1)
    p = np.exp(s) / denominator
    slope = (each + shares * r) / denominator + (p + shares) * (r / denominator + FUNCTION)
    return value, slope * total * part


LOOPED = [
    *("mean_squared_error", "half_squared_error"),
    *("binary_cross_entropy", "categorical_cross_entropy"),
]


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_that_have_loops(kernels: Any, name: str) -> None:
    rule, (o, t) = LOSSES[name].value.rule, draw(float, 2, 4, 2)
    is_mean = getattr(rule, "function", None) is rules.mean_over_outputs
    given = (rules.mean_over_outputs, o, t, 1.0, *rule.last) if is_mean else (rule, o, t, 1.0)
    is_known = is_mean or rule is rules.categorical
    assert (is_known and not declines(kernels, *given)) == (name in LOOPED)


@every_dtype
@every_stack
@pytest.mark.parametrize("n", [2, 70])
@pytest.mark.parametrize("name", LOOPED)
def test_a_loss_and_its_gradient(
    kernels: Any, name: str, n: int, stack: tuple[int, ...], dtype: Any
) -> None:
    rows, loss, table = 6, LOSSES[name], TrainingTable(kernels.REPLACEMENTS, np.ones(1))
    o = draw(dtype, *stack, rows, n) * np.array([1, 30, 1e4, 1e4, 1, 1], dtype)[:, None]
    o[..., 5, -1] = np.nan
    classes = generator.integers(0, n, (*stack, rows))
    soft = generator.dirichlet(np.ones(n), (*stack, rows)).astype(dtype)
    soft[..., 0, :] = 0.0  # a row without a class
    shares = [1.0 / rows, draw(dtype, rows, 1) ** 2]
    if stack:
        shares += [draw(dtype, *stack, 1, 1) ** 2, draw(dtype, *stack, rows, 1) ** 2]
    shared = (0,) * len(stack)
    for t in (np.eye(n, dtype=dtype)[classes], soft, soft[shared]):
        for share in shares:
            with holding(table):
                found = value_and_gradient(loss, o, t, share)
            assert np.isnan(found[0][..., 5]).all()
            o_wide, t_wide, part = wide(o, t, share)
            exact = value_and_gradient(loss, o_wide, t_wide, part)
            bounds = roundings_of(name, o_wide, t_wide, part)
            for got, wanted, bound in zip(found, exact, bounds, strict=True):
                assert got.dtype == dtype
                assert_within(got, wanted, bound)


@every_dtype
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_a_confident_output_keeps_its_digits(kernels: Any, name: str, dtype: Any) -> None:
    """At a logit of 40 the gradient of the right class is -4e-18, not 0 as sigmoid - target."""
    network = bx.Network([bx.Dense(1, 2)], name)
    table = TrainingTable(kernels.REPLACEMENTS, np.ones(1))
    o, t = np.array([[40.0, 0.0]], dtype), np.array([[1.0, 0.0]], dtype)
    with holding(table):
        found = value_and_gradient(network.loss_function, o, t, 1.0)
    exact = value_and_gradient(network.loss_function, *wide(o, t), 1.0)
    # The rounding of the exponent, 40, and few more: relative to each entry.
    for got, wanted in zip(found, exact, strict=True):
        assert_within(got, wanted, (40 + FUNCTION) * np.abs(wanted))
    assert found[1][0, 0] < 0.0


# ---- dropout and LayerNorm


@every_dtype
@every_stack
def test_the_dropout_mask_is_the_same_to_the_bit(
    kernels: Any, stack: tuple[int, ...], dtype: Any
) -> None:
    keys = generator.integers(0, 2**31, size=(*stack, 1, 1)).astype(np.int32)
    part = RowKey(7, np.array([5, 1, 300, 2**20], np.int32))
    for rate in (0.1, 0.5, 0.999):
        layer = bx.Dropout(rate)
        loops = loops_of(kernels, layer)
        for x in (draw(dtype, *stack, 4, 9), draw(dtype, 4, 9)):
            for key in (0, 2**31 - 1, keys, part):
                got, wanted = (one.forward((), x, key) for one in (loops, layer))
                for one, other in zip(got, wanted, strict=True):
                    assert one.dtype == dtype
                    np.testing.assert_array_equal(*np.broadcast_arrays(one, other))


@every_dtype
@every_stack
@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("n", [2, 5, 700])
def test_layer_norm_and_its_rule(
    kernels: Any, n: int, scale: float, stack: tuple[int, ...], dtype: Any
) -> None:
    layer = bx.LayerNorm(n)
    network = bx.Network([layer], "mean_squared_error")
    loops = loops_of(kernels, layer)
    bound = bind(network.definition, draw(dtype, *stack, network.size))
    own, out = bound.chain[0].parameters, bound.chain[0].buffers
    x, g = scale * draw(dtype, *stack, 4, n), draw(dtype, *stack, 4, n)
    y, cache = loops.forward(own, x, None)
    factor, bias = wide(*own)
    exact, (normed, inverse) = layer.forward((factor, bias), x.astype(np.float64), None)
    # The mean's rounding is that of n terms, relative to the largest; the variance's is relative.
    moved = (n + FUNCTION) * (np.abs(x).max(axis=-1, keepdims=True) * inverse + np.abs(normed))
    assert_within(y, exact, moved * np.abs(factor) + np.abs(bias))
    dx, _ = loops.backward(own, cache, g, out=out)
    g_wide, kept = g.astype(np.float64), tuple(wide(*cache))
    back, gradients = layer.backward((factor, bias), kept, g_wide)
    h, (normed, inverse) = np.abs(g_wide * factor), map(np.abs, kept)
    means = h + h.mean(-1, keepdims=True) + normed * (h * normed).mean(-1, keepdims=True)
    assert_within(dx, back, (n + FUNCTION) * inverse * means)
    sizes = [(np.abs(g_wide) * size).sum(-2, keepdims=True) for size in (normed, 1.0)]
    for got, wanted, size in zip(out, gradients, sizes, strict=True):
        assert_within(got, wanted, FUNCTION * size)


# ---- optimizers

MASK = np.arange(37) % 3 / 2.0
OPTIMIZERS = {
    "SGD": bx.SGD(0.1),
    "momentum": bx.SGD(0.1, momentum=0.9),
    "nesterov": bx.SGD(0.1, momentum=0.9, nesterov=True),
    "rate inside": bx.SGD(0.1, momentum=0.9, rate_inside=True),
    "nesterov, rate inside": bx.SGD(0.1, momentum=0.9, nesterov=True, rate_inside=True),
    "RMSProp": bx.RMSProp(0.01, epsilon=0.01),
    "Adagrad": bx.Adagrad(0.1, initial=0.1, epsilon=0.01),
    "Adam": bx.Adam(0.1, epsilon=0.01),
    "Adam, Keras' epsilon": bx.Adam(0.1, epsilon=0.01, corrected_epsilon=False),
    "AMSGrad": bx.Adam(0.1, beta2=0.5, amsgrad=True),
    "AdamW": bx.AdamW(0.1, epsilon=0.01, weight_decay=0.5),
    "AdamW of some entries": bx.AdamW(0.1, epsilon=0.01, weight_decay=0.5, mask=MASK),
    "Nadam": bx.Nadam(0.1, epsilon=0.01, momentum_decay=0.1),
    "Lion": bx.Lion(0.1, weight_decay=0.5),
    "Lion of some entries": bx.Lion(0.1, weight_decay=0.5, mask=MASK),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype) if dtype is np.float64 or name == "Adam" else thorough(name, dtype)
        for name in OPTIMIZERS
        for dtype in (np.float64, np.float32)
    ],
)
@pytest.mark.parametrize("stack", [(), (2, 3)], ids=str)
def test_updates_of_an_optimizer(
    kernels: Any, name: str, stack: tuple[int, ...], dtype: Any
) -> None:
    optimizer = OPTIMIZERS[name]
    theta = draw(dtype, *stack, 37)
    exact, state = theta.astype(np.float64), optimizer.initialize(theta)
    state_exact = optimizer.initialize(exact)
    reference = rule_of(optimizer, exact)
    with holding(TrainingTable(kernels.REPLACEMENTS, theta)):
        loops = rule_of(optimizer, theta)
    largest = np.zeros(3)  # entries of theta, of an update, of a gradient
    for step in range(UPDATES):
        gradient = draw(dtype, *stack, 37)
        rate, before = 0.1 / (1 + step), exact.copy()
        theta, state = loops(theta, gradient.copy(), state, rate)
        exact, state_exact = reference(exact, gradient.astype(np.float64), state_exact, rate)
        sizes = [np.abs(a).max() for a in (exact, exact - before, gradient)]
        largest = np.maximum(largest, sizes)
    assert theta.dtype == dtype
    assert state.step == UPDATES
    # An update has some ten roundings; it passes on those of the means, of which each update adds
    # a few. Theta adds one of its own.
    assert_within(theta, exact, UPDATES * (2 * largest[0] + (10 + UPDATES) * largest[1]))
    for got, wanted in zip(state[1:], state_exact[1:], strict=True):
        if wanted is not None:
            assert_within(got, wanted, UPDATES * 4 * max(largest[2], largest[2] ** 2))
    if not getattr(optimizer, "rate_inside", False):
        kept = theta.copy()
        theta, _ = loops(theta, draw(dtype, *stack, 37), state, 0.0)
        np.testing.assert_array_equal(theta, kept)  # a rate of 0 changes no bit


def test_updates_with_arrays_or_other_states_are_the_references(kernels: Any) -> None:
    theta, gradient = draw(float, 2, 7), draw(float, 2, 7)
    rates, betas = np.array([[0.1], [0.2]]), np.array([[0.5], [0.9]])
    cases = [(bx.Adam(), rates), (bx.Adam(beta1=betas), 0.1), (bx.Adam(amsgrad=True), 0.1)]
    cases += [(bx.SGD(0.1), 0.1), (bx.AdamW(weight_decay=betas), 0.1)]
    mask = MASK[:7]
    cases += [(kind(weight_decay=betas, mask=mask), 0.1) for kind in (bx.AdamW, bx.Lion)]
    for optimizer, rate in cases:
        reference = rule_of(optimizer, theta)
        with holding(TrainingTable(kernels.REPLACEMENTS, theta)):
            loops = rule_of(optimizer, theta)
        assert loops.func is not reference.func
        results = [
            rule(theta.copy(), gradient.copy(), optimizer.initialize(theta), rate)[0]
            for rule in (loops, reference)
        ]
        np.testing.assert_array_equal(*results)


# ---- what has no loop


def other_kinds_of(layer: bx.Dense) -> list[bx.Dense]:
    """Return layers whose activations share a function with one that has a loop."""
    value, vjp = layer.activation.value, layer.activation.vjp
    kinds = [
        bx.Activation(value, lambda g, z, a: vjp(g, z, a), from_output=True),
        bx.Activation(lambda z: value(z), vjp, from_output=True),
        bx.Activation(value, vjp),  # z is kept
    ]
    return [bx.Dense(layer.n_in, layer.n_out, kind) for kind in kinds]


def test_other_layers_and_activations_have_no_loops(kernels: Any) -> None:
    class Own(bx.Dense):
        """It may have other rules."""

    layer = bx.Dense(3, 2, "relu")
    assert has_loops(kernels, layer)
    for other in (*other_kinds_of(layer), Own(3, 2, "relu"), bx.Dense(3, 2, "elu"), bx.Scale(3)):
        assert not has_loops(kernels, other)


@pytest.mark.parametrize("make", [lambda: bx.Dense(3, 2, "tanh"), lambda: bx.NumericEmbedding(3)])
def test_a_layer_computes_itself_what_its_loops_do_not_take(kernels: Any, make: Any) -> None:
    """Complex numbers, as in a complex step, and a precision that is not theta's."""
    layer = make()
    loops, own = loops_of(kernels, layer), layer.initialize(np.random.default_rng(0))
    wide_own = tuple(one.astype(np.complex128) for one in own)
    for given, x in ((wide_own, draw(float, 4, 3) + 0.5j), (own, draw(np.float32, 4, 3))):
        (y, cache), (expected, kept) = (one.forward(given, x, None) for one in (loops, layer))
        np.testing.assert_array_equal(y, expected)
        (dx, found), (back, wanted) = (
            one.backward(given, each, y) for one, each in ((loops, cache), (layer, kept))
        )
        for one, other in zip((dx, *found), (back, *wanted), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)  # tens of roundings


@pytest.mark.parametrize("name", SIZES)
def test_the_loops_and_a_dense_layer_take_each_others_caches(kernels: Any, name: str) -> None:
    layer = bx.Dense(3, 4, name)
    loops, own = loops_of(kernels, layer), (draw(float, 3, 4), draw(float, 1, 4))
    x, g = draw(float, 5, 3), draw(float, 5, 4)
    caches = [one.forward(own, x, None)[1] for one in (layer, loops)]
    rules = (loops.backward, layer.backward, layer.row_gradients)
    for rule in rules:
        results = [rule(own, cache, g) for cache in caches]
        expected = layer.row_gradients if rule == layer.row_gradients else layer.backward
        dx, gradients = expected(own, caches[0], g)
        for back, found in results:
            for one, other in zip((back, *found), (dx, *gradients), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


def test_functions_leave_complex_numbers_and_parts_of_a_batch(kernels: Any) -> None:
    z, t = draw(float, 4, 3) + 0.0j, draw(float, 4, 3)
    relu, scale = bx.activations.relu, np.ones((1, 3))
    assert declines(kernels, activated, z, relu)
    assert declines(kernels, activated, t, relu, scale)  # a bias: NumPy's adds it in place
    assert declines(kernels, sent_back, z, relu, None, t)
    assert declines(kernels, sent_back, t, relu, None, z)
    assert declines(kernels, dropped, z, 0, 0.5)
    assert declines(kernels, dropped, t, RowKey(7, np.arange(4, dtype=np.int32)), 0.5)
    assert declines(kernels, normalized, z, scale, scale, 1e-5)
    assert declines(kernels, normalized_back, z, scale, t, t[:, :1])
    assert declines(kernels, rules.categorical, z, t, 1.0)
    shares = np.concatenate([t, t], axis=-1)
    for arguments in [(z, t, 1.0, rules.squared), (t, shares, 1.0, rules.squared)]:
        assert declines(kernels, rules.mean_over_outputs, *arguments)
    for each in (rules.absolute, lambda o, t: (o, t), bx.losses.huber.value.rule.last[0]):
        assert declines(kernels, rules.mean_over_outputs, t, t, 1.0, each)
    assert declines(kernels, rules.mean_over_outputs, t, t[:, :1], 1.0, rules.squared, 3)


def test_each_replacement_takes_what_its_reference_does(kernels: Any) -> None:
    for name, replacement in kernels.REPLACEMENTS.items():
        module, _, path = name.rpartition(".")
        if path == "rule":
            module, _, kind = module.rpartition(".")
            path = f"{kind}.{path}"
        reference = operator.attrgetter(path)(importlib.import_module(module))
        if not isinstance(reference, type):  # a layer is the argument of its replacement
            parameters = [inspect.signature(one).parameters for one in (reference, replacement)]
            defaults = [[each.default for each in one.values()] for one in parameters]
            assert defaults[0] == defaults[1], name
