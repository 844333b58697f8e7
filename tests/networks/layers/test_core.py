"""Layers: their outputs, and every backward rule against the complex step.

Specifies ``propagation``.
"""

import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.chain.propagation import (
    Layer,
    backward_through,
    check_chain,
    differentiates,
    forward_through,
    goes_back_once,
    linked,
)
from backprop_xp.networks.numbers.random_bits import fold_in, keep_mask
from tests.user_layers import Factors, Gated, PassThrough

# A function and its exact derivative differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# Too small to round the real part; its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100

BATCH, WIDTH = 5, 4
COPIES = BATCH * WIDTH  # the most entries of one array here
RNG = 11

LAYERS: dict[str, Layer] = {
    "dense": bx.Dense(WIDTH, WIDTH, "tanh"),
    "dense that keeps z": bx.Dense(WIDTH, 3, "gelu"),
    "dense softmax": bx.Dense(WIDTH, 2, "softmax"),
    "activate": bx.Activate("silu"),
    "activate by output": bx.Activate("sigmoid"),
    "dropout": bx.Dropout(0.4),
    "no dropout": bx.Dropout(0.0),
    "layer norm": bx.LayerNorm(WIDTH),
    "scale": bx.Scale(WIDTH),
    "numeric embedding": bx.NumericEmbedding(WIDTH, 3, n_frequencies=2),
    "numeric embedding of pl": bx.NumericEmbedding(WIDTH, 1, "pl", n_frequencies=2),
    "columns": bx.Columns(
        bx.Embedding(3, 2), bx.Residual(bx.Dense(2, 2), bx.Dropout(0.3)), bx.Scale(1)
    ),
    "columns in columns": bx.Columns(bx.Columns(bx.Scale(1), bx.Scale(1)), bx.Dense(2, 3, "tanh")),
    "embedding": bx.Embedding([2, 1, 3, 2], 2),
    "chain": bx.Chain(bx.Dense(WIDTH, 3, "tanh"), bx.Dropout(0.3), bx.Chain(bx.Dense(3, 2))),
    "residual": bx.Residual(bx.Dense(WIDTH, 3, "tanh"), bx.Dropout(0.3), bx.Dense(3, WIDTH)),
    "residual in a residual": bx.Residual(
        bx.LayerNorm(WIDTH), bx.Residual(bx.Dense(WIDTH, WIDTH, "softplus")), bx.Activate("tanh")
    ),
    "of a user's own": Factors(),
    "of a user's own in a residual": bx.Residual(Factors(), bx.Activate("tanh")),
    "of a user's own with layers": Gated(Factors(), bx.Dropout(0.3), bx.Activate("sigmoid")),
}

every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def _parameters(layer: Layer) -> list[np.ndarray]:
    """Return parameters without 0 and 1, which could hide a wrong rule."""
    generator = np.random.default_rng(12)
    return [generator.normal(size=shape) for shape in layer.shapes]


def _x() -> np.ndarray:
    return np.random.default_rng(13).normal(size=(BATCH, WIDTH))


def _forward(xp: Any, layer: Layer, arrays: Sequence[np.ndarray], rng: Any = RNG) -> Any:
    """Return the output on the host; ``arrays`` are the layer's parameters, then x."""
    dtype = xp.complex_dtype if np.iscomplexobj(arrays[-1]) else xp.dtype
    *parameters, x = (xp.asarray(array, dtype=dtype) for array in arrays)
    return xp.host(layer.forward(parameters, x, rng)[0])


def _backward(
    xp: Any, layer: Layer, arrays: Sequence[np.ndarray], g: np.ndarray, **options: Any
) -> list[Any]:
    """Return the gradients of the parameters, then of x, on the host."""
    *parameters, x = (xp.asarray(array) for array in arrays)
    _, cache = layer.forward(parameters, x, RNG)
    x_gradient, gradients = layer.backward(parameters, cache, xp.asarray(g), **options)
    return [None if value is None else xp.host(value) for value in (*gradients, x_gradient)]


@pytest.mark.float64
@pytest.mark.usefixtures("full_precision")
@every_layer
def test_a_backward_rule_agrees_with_the_complex_step(xp: Any, layer: Layer) -> None:
    arrays = [*_parameters(layer), _x()]
    g = np.random.default_rng(14).normal(size=_forward(xp, layer, arrays).shape)
    for k, actual in enumerate(_backward(xp, layer, arrays, g)):
        # A stack of copies, each with one perturbed entry of one array, and some with none: JAX
        # compiles for every shape, so all stacks have one size.
        size, shape = arrays[k].size, arrays[k].shape
        copies = [np.repeat(array[None], COPIES, axis=0).astype(complex) for array in arrays]
        copies[k] += 1j * IMAGINARY_STEP * np.eye(COPIES, size).reshape(COPIES, *shape)
        slopes = np.sum(g * _forward(xp, layer, copies).imag, axis=(1, 2)) / IMAGINARY_STEP
        expected = slopes[:size].reshape(shape)
        allowed = ROUNDING * np.max(np.abs(expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed)


@every_layer
def test_without_the_inputs_gradient_the_parameters_are_the_same(xp: Any, layer: Layer) -> None:
    arrays = [*_parameters(layer), _x()]
    g = np.ones_like(_forward(xp, layer, arrays))
    *expected, x_gradient = _backward(xp, layer, arrays, g)
    *actual, nothing = _backward(xp, layer, arrays, g, wants_input=False)
    assert x_gradient.shape == arrays[-1].shape
    assert nothing is None
    for one, other in zip(actual, expected, strict=True):
        assert np.array_equal(one, other)


@every_layer
def test_no_argument_is_written_to(layer: Layer) -> None:
    arrays = [*_parameters(layer), _x()]
    for array in arrays:
        array.flags.writeable = False
    y, cache = layer.forward(arrays[:-1], arrays[-1], RNG)
    g = np.ones_like(y)
    g.flags.writeable = False
    layer.backward(arrays[:-1], cache, g)


@every_layer
def test_the_initial_parameters_have_the_declared_shapes(layer: Layer) -> None:
    drawn = layer.initialize(np.random.default_rng(0))
    assert len(layer.names) == len(layer.shapes) == len(drawn)
    assert tuple(value.shape for value in drawn) == layer.shapes
    assert all(value.dtype == np.float64 for value in drawn)


@pytest.mark.parametrize("name", [name for name in LAYERS if "user" not in name])
def test_a_layer_survives_pickling(name: str) -> None:
    assert pickle.loads(pickle.dumps(LAYERS[name])) == LAYERS[name]  # noqa: S301


def test_layers_with_the_same_fields_are_equal() -> None:
    assert bx.Dense(np.int64(2), 3) == bx.Dense(2, 3, "identity", initializer="glorot_uniform")
    assert bx.Dense(2, 3) != bx.Dense(2, 3, "tanh")
    assert bx.Residual(bx.Dropout(0.5)) == bx.Residual(bx.Dropout(0.5))
    assert bx.LayerNorm(3) != bx.LayerNorm(3, epsilon=1e-3)


def test_dense_is_an_affine_map_and_an_activation(xp: Any) -> None:
    arrays = [np.asarray([[1.0, 2.0], [3.0, -4.0]]), np.asarray([[0.5, 1.0]]), np.eye(2)]
    affine = np.asarray([[1.5, 3.0], [3.5, -3.0]])
    xp.assert_equal(_forward(xp, bx.Dense(2, 2), arrays), affine)
    for layer, given in ((bx.Dense(2, 2, "relu"), arrays), (bx.Activate("relu"), [affine])):
        xp.assert_equal(_forward(xp, layer, given), [[1.5, 3.0], [3.5, 0.0]])


def test_biases_start_at_0_and_scales_at_1_by_default() -> None:
    generator = np.random.default_rng(0)
    assert np.all(bx.Dense(3, 2).initialize(generator)[1] == 0.0)
    assert np.all(bx.Dense(3, 2, bias_initializer="ones").initialize(generator)[1] == 1.0)
    scale, bias = bx.LayerNorm(3).initialize(generator)
    assert (scale.tolist(), bias.tolist()) == ([[1.0] * 3], [[0.0] * 3])


def test_layer_norm_norms_each_sample_then_scales_and_shifts(xp: Any) -> None:
    layer, x = bx.LayerNorm(WIDTH, epsilon=0.1), 5.0 + 3.0 * _x()
    scale, bias = _parameters(layer)
    deviation = np.sqrt(np.var(x, axis=-1, keepdims=True) + 0.1)  # biased, as in the paper
    expected = (x - np.mean(x, axis=-1, keepdims=True)) / deviation * scale + bias
    xp.assert_close(_forward(xp, layer, [scale, bias, x]), expected, ROUNDING)
    assert bx.LayerNorm(WIDTH) == bx.LayerNorm(WIDTH, epsilon=1e-5)
    equal = np.full((BATCH, WIDTH), 7.0)
    expected = np.broadcast_to(bias, equal.shape).astype(xp.dtype)
    xp.assert_equal(_forward(xp, layer, [scale, bias, equal]), expected)


def test_residual_adds_what_its_layers_make_of_x_to_x(xp: Any) -> None:
    inner = bx.Dense(WIDTH, WIDTH, "tanh")
    arrays = [*_parameters(inner), _x()]
    expected = _x().astype(xp.dtype) + _forward(xp, inner, arrays)
    xp.assert_equal(_forward(xp, bx.Residual(inner), arrays), expected)


def test_residual_joins_the_parameters_of_its_layers() -> None:
    residual = bx.Residual(bx.Dense(4, 3), bx.Dropout(0.1), bx.LayerNorm(3), bx.Dense(3, 4))
    names = ["[0].weights", "[0].bias", "[2].scale", "[2].bias", "[3].weights", "[3].bias"]
    assert residual.names == tuple(f"layers{name}" for name in names)
    assert residual.shapes == ((4, 3), (1, 3), (1, 3), (1, 3), (3, 4), (1, 4))


class Counted(PassThrough):
    """A layer that counts the reads of its widths, names and shapes."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def __getattribute__(self, name: str) -> Any:
        values = {"n_in": 3, "n_out": 3, "names": ("scale",), "shapes": ((1, 3),)}
        if name not in values:
            return super().__getattribute__(name)
        self.counts[name] += 1
        return values[name]


def test_a_nested_residual_reads_each_layer_no_more_often_than_a_single_one() -> None:
    counts = []
    for depth in (1, 10):
        layer: Any = Counted()
        counted = layer
        for _ in range(depth):
            layer = bx.Residual(layer)
        assert (layer.n_in, layer.n_out, layer.shapes) == (3, 3, ((1, 3),))
        assert layer.names == ("layers[0]." * depth + "scale",)
        assert bx.Network([layer], "huber").size == 3
        counts.append(counted.counts)
    assert counts[0] == counts[1]


def test_residuals_nested_a_hundred_deep_are_built_and_run(xp: Any) -> None:
    layer: Any = bx.Dense(2, 2, initializer="zeros")
    for _ in range(100):
        layer = bx.Residual(layer)
    network = bx.Network([layer], "mean_squared_error")
    theta, x = xp.initialize(network), xp.asarray([[1.0, -0.5]])
    # Each adds the input once more; the rest is 0.
    assert np.array_equal(xp.host(network.forward(theta, x)), [[100.0, -50.0]])
    assert network.loss_and_gradient(theta, x, 0.0 * x)[1].shape == (6,)


def test_dropout_changes_nothing_in_inference(xp: Any) -> None:
    y = _forward(xp, bx.Dropout(0.9), [_x()], rng=None)
    xp.assert_equal(y, _x().astype(xp.dtype))


def test_dropout_zeroes_units_by_the_mask_for_its_key_and_scales_up_the_others(xp: Any) -> None:
    for rate, scale in ((0.5, 2.0), (0.75, 4.0)):
        mask = keep_mask(RNG, rate, BATCH, WIDTH, xp=np, device="cpu")
        expected = np.where(mask, scale * _x(), 0.0).astype(xp.dtype)
        xp.assert_equal(_forward(xp, bx.Dropout(rate), [_x()]), expected)
    y = _forward(xp, bx.Dropout(0.75), [np.ones((40, 50))])
    # A share of 2,000 scatters by sqrt(p (1 - p) / 2000) = 0.01; the bound is five of those.
    assert np.mean(y == 0.0) == pytest.approx(0.75, abs=0.05)


def test_dropout_gives_a_sample_the_same_mask_in_a_longer_batch(xp: Any) -> None:
    short, longer = (_forward(xp, bx.Dropout(0.5), [np.ones((n, WIDTH))]) for n in (BATCH, 8))
    xp.assert_equal(longer[:BATCH], short)
    assert len(np.unique(longer, axis=0)) > 1


def test_dropout_gives_a_shared_x_one_mask_per_key_of_an_array(xp: Any) -> None:
    keys, ones = xp.asarray(np.asarray([[[3]], [[4]]]), dtype="int32"), np.ones((8, WIDTH))
    y, _ = bx.Dropout(0.5).forward((), xp.asarray(ones), keys)
    alone = [_forward(xp, bx.Dropout(0.5), [ones], rng=key) for key in (3, 4)]
    xp.assert_equal(y, np.stack(alone))
    assert not np.array_equal(*alone)


def test_a_chain_folds_each_layers_index_into_the_key(xp: Any) -> None:
    drop, ones = bx.Dropout(0.5), np.ones((8, WIDTH))
    y = forward_through(linked([drop, drop], [(), ()]), xp.asarray(ones), RNG)
    first, second = (_forward(xp, drop, [ones], rng=fold_in(RNG, i)) for i in range(2))
    xp.assert_equal(y, first * second)
    assert not np.array_equal(first, second)


def test_a_chain_computes_no_gradient_that_is_not_needed(xp: Any) -> None:
    layers = [bx.Activate("tanh"), bx.Dense(WIDTH, 2), bx.Activate("tanh")]
    weights, bias = (xp.asarray(value) for value in _parameters(layers[1]))
    parameters = [(), (weights, bias), ()]
    caches: list[Any] = []
    chain = linked(layers, parameters, wants_input=False)
    y = forward_through(chain, xp.asarray(_x()), None, caches)
    x_gradient, gradients = backward_through(chain, caches, xp.namespace.ones_like(y))
    assert x_gradient is None
    assert [len(values) for values in gradients] == [0, 2, 0]


@pytest.mark.once
@every_layer
def test_a_layer_writes_its_gradients_into_buffers_and_leaves_out_what_it_may_skip(
    layer: Layer,
) -> None:
    """A chain copies what a layer does not write itself."""
    parameters, caches, x = _parameters(layer), list[Any](), _x()
    g = np.random.default_rng(14).normal(size=layer.forward(parameters, x, RNG)[0].shape)
    chain = linked([layer], [parameters])
    forward_through(chain, x, RNG, caches)
    expected, (gradients,) = backward_through(chain, caches, g.copy())
    buffers = [np.full(shape, np.nan) for shape in layer.shapes]
    chain = linked([layer], [parameters], out=[buffers])
    back, (found,) = backward_through(chain, caches, g.copy())
    np.testing.assert_array_equal(back, expected)
    for one, buffer, value in zip(found, buffers, gradients, strict=True):
        assert one is buffer
        np.testing.assert_array_equal(buffer, value)
    cache, backward = caches[0][1], cast("Any", layer.backward)
    if getattr(layer, "writes", False):
        own = backward(parameters, cache, g.copy(), out=buffers)[1]
        assert all(one is buffer for one, buffer in zip(own, buffers, strict=True))
    if getattr(layer, "skips", False):
        back, nothing = backward(parameters, cache, g.copy(), wants_parameters=False)
        np.testing.assert_array_equal(back, expected)
        assert nothing == ()


@pytest.mark.once
def test_the_gradients_of_rows_of_dense_sum_to_those_of_the_batch() -> None:
    layer, x = bx.Dense(WIDTH, 3, "tanh"), _x()
    parameters = _parameters(layer)
    y, cache = layer.forward(parameters, x, None)
    expected = layer.backward(parameters, cache, np.cos(y))
    buffers = [np.full((BATCH, *shape), np.nan) for shape in layer.shapes]
    for out in ((None, None), buffers):
        back, rows = layer.row_gradients(parameters, cache, np.cos(y), out)
        np.testing.assert_array_equal(back, expected[0])
        for each, total in zip(rows, expected[1], strict=True):
            np.testing.assert_allclose(each.sum(axis=0), total, rtol=ROUNDING, atol=ROUNDING)
    assert all(one is buffer for one, buffer in zip(rows, buffers, strict=True))


def test_a_layer_of_layers_has_the_attributes_of_those_in_it() -> None:
    inner = bx.Residual(bx.Activate("tanh"), bx.Dropout(0.0))
    assert inner.keeps_width
    assert not inner.is_random
    assert bx.Residual(bx.Dropout(0.1)).is_random
    assert not bx.Residual(bx.Dense(2, 2)).keeps_width
    fixed = bx.Constrained([bx.Dense(2, 2)], lambda x: x[..., :1])
    slope = bx.Equation([bx.Dense(1, 1)], lambda s: s.u_x, "x")
    for function, layer in ((goes_back_once, fixed), (differentiates, slope)):
        assert function(layer)
        assert function(bx.Residual(layer))
        assert not function(bx.Residual(bx.Dense(2, 2)))


def test_codes_may_come_from_a_layer_of_ones_own_and_from_none_of_the_library() -> None:
    codes = bx.Embedding(3, 2)
    assert check_chain([PassThrough(), codes]) == (None, 2)
    with pytest.raises(ValueError, match=r"layer 1 \(Embedding\) takes codes"):
        check_chain([bx.Dropout(0.1), codes])


@pytest.mark.once
def test_an_error_on_the_way_back_names_the_layer_by_its_number_in_the_network() -> None:
    class Wrong(PassThrough):
        def backward(self, *arguments: Any, **options: Any) -> Any:
            return None

    layers, x = [PassThrough(), Wrong()], _x()
    caches: list[Any] = []
    chain = linked(layers, [(), ()], start=3)
    forward_through(chain, x, None, caches)
    with pytest.raises(TypeError) as caught:
        backward_through(chain, caches, x)
    assert caught.value.__notes__ == ["In layers[4] (Wrong).backward."]


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bx.Dense(0, 2), ValueError, "n_in must be an integer of at least 1, not 0"),
    (lambda: bx.Dense(2, -1), ValueError, "n_out must be an integer of at least 1, not -1"),
    (lambda: bx.LayerNorm(0), ValueError, "n must be an integer of at least 1, not 0"),
    (lambda: bx.Dense(2.0, 2), TypeError, "n_in must be an integer"),
    (lambda: bx.Dense(2, None), TypeError, "n_out must be an integer"),
    (lambda: bx.LayerNorm(1), ValueError, "LayerNorm needs two features or more"),
    (lambda: bx.mlp([2, 1, 1], layer_norm=True), ValueError, "LayerNorm needs two features"),
    (lambda: bx.LayerNorm(True), TypeError, "n must be an integer"),
    (lambda: bx.Dropout(1.0), ValueError, r"rate must be .*>= 0 and < 1"),
    (lambda: bx.Dropout(-0.1), ValueError, r"rate must be .*>= 0 and < 1"),
    (lambda: bx.Dropout(float("nan")), ValueError, r"rate must be .*>= 0 and < 1"),
    (lambda: bx.Dropout("0.5"), TypeError, "rate must be a number"),
    (lambda: bx.LayerNorm(3, epsilon=0.0), ValueError, "epsilon must be"),
    (lambda: bx.LayerNorm(3, epsilon=float("inf")), ValueError, "epsilon must be"),
    (lambda: bx.Dense(2, 3, "rellu"), ValueError, "activation 'rellu' is .* Did you mean 'relu'"),
    (lambda: bx.Dense(2, 3, "qqq"), ValueError, "Known: identity, sigmoid, tanh"),
    (lambda: bx.Dense(2, 3, initializer="glorot"), ValueError, "initializer 'glorot' is unknown"),
    (lambda: bx.Dense(2, 3, bias_initializer="zeroes"), ValueError, "bias_initializer 'zeroes'"),
    (lambda: bx.Dense(2, 3, np.tanh), TypeError, "activation"),
    (lambda: bx.Activate(bx.activations.relu.value), TypeError, "activation"),
    (lambda: bx.Activate(None), TypeError, "activation"),
    (lambda: bx.Dense(2, 3, initializer=None), TypeError, "initializer"),
    (lambda: bx.Dense(2, 3, initializer=np.ones((2, 3))), TypeError, "initializer"),
    (lambda: bx.Residual(), ValueError, "at least one layer"),
    (lambda: bx.Residual(bx.Dense(4, 3)), ValueError, "take 4 features and return 3"),
    (lambda: bx.Residual(bx.Dense(4, 3), bx.Dense(2, 4)), ValueError, "layer 1 .Dense. takes 2 "),
    (
        lambda: bx.Residual(bx.Dense(4, 3), bx.Dropout(0.5), bx.LayerNorm(4)),
        ValueError,
        "layer 2 .LayerNorm. takes 4",
    ),
    (
        lambda: bx.Residual(bx.Dense(2, 2), bx.activations.relu),
        TypeError,
        r"layers\[1\].*not a layer",
    ),
    (lambda: bx.Residual(bx.Dense(2, 2), [bx.Dense(2, 2)]), TypeError, r"layers\[1\].*not a layer"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_invalid_fields_of_a_layer_are_an_error_that_names_them(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()
