"""Layers: what each computes, and every backward rule against the complex step."""

import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.chain import Layer, backward_through, forward_through
from backprop_xp.random import fold_in, keep_mask

# A function and its exact derivative differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# Too small to round the real part, and its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100

BATCH, WIDTH = 5, 4
COPIES = BATCH * WIDTH  # the most entries that one array has here
RNG = 11


class Scale:
    """A layer of a user's own: x times one factor per unit; it keeps the protocol, no more."""

    names = ("factors",)
    shapes = ((1, WIDTH),)

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, (1, WIDTH)),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        return x * parameters[0], x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        total = array_namespace(g).sum(g * cache, axis=-2, keepdims=True)
        return (g * parameters[0] if wants_input else None), (total,)


LAYERS: dict[str, Layer] = {
    "dense": bx.Dense(WIDTH, WIDTH, "tanh"),
    "dense that keeps z": bx.Dense(WIDTH, 3, "gelu"),
    "dense softmax": bx.Dense(WIDTH, 2, "softmax"),
    "activate": bx.Activate("silu"),
    "activate by output": bx.Activate("sigmoid"),
    "dropout": bx.Dropout(0.4),
    "no dropout": bx.Dropout(0.0),
    "layer norm": bx.LayerNorm(WIDTH),
    "residual": bx.Residual(bx.Dense(WIDTH, 3, "tanh"), bx.Dropout(0.3), bx.Dense(3, WIDTH)),
    "residual in a residual": bx.Residual(
        bx.LayerNorm(WIDTH), bx.Residual(bx.Dense(WIDTH, WIDTH, "softplus")), bx.Activate("tanh")
    ),
    "of a user's own": Scale(),
    "of a user's own in a residual": bx.Residual(Scale(), bx.Activate("tanh")),
}

every_layer = pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS)


def _parameters(layer: Layer) -> list[np.ndarray]:
    """Return parameters that no initialiser left at 0 or 1, where a wrong rule could hide."""
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
        # A stack of copies, each with one entry of one array perturbed, and some with none: JAX
        # compiles anew for every shape, so all stacks are one size.
        size, shape = arrays[k].size, arrays[k].shape
        copies = [np.tile(array, (COPIES, 1, 1)).astype(complex) for array in arrays]
        copies[k] += 1j * IMAGINARY_STEP * np.eye(COPIES, size).reshape(COPIES, *shape)
        slopes = np.sum(g * _forward(xp, layer, copies).imag, axis=(1, 2)) / IMAGINARY_STEP
        expected = slopes[:size].reshape(shape)
        allowed = ROUNDING * np.max(np.abs(expected))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=allowed)


@every_layer
def test_without_the_inputs_gradient_the_parameters_gradients_are_the_same(
    xp: Any, layer: Layer
) -> None:
    arrays = [*_parameters(layer), _x()]
    g = np.ones_like(_forward(xp, layer, arrays))
    *expected, x_gradient = _backward(xp, layer, arrays, g)
    *actual, nothing = _backward(xp, layer, arrays, g, wants_input=False)
    assert x_gradient.shape == arrays[-1].shape
    assert nothing is None
    for one, other in zip(actual, expected, strict=True):
        assert np.array_equal(one, other)


@every_layer
def test_a_stack_gives_each_member_what_it_gives_alone(xp: Any, layer: Layer) -> None:
    generator = np.random.default_rng(15)
    arrays = [generator.normal(size=(2, 3, *shape)) for shape in (*layer.shapes, (BATCH, WIDTH))]
    g = generator.normal(size=_forward(xp, layer, arrays).shape)
    stacked = [_forward(xp, layer, arrays), *_backward(xp, layer, arrays, g)]
    for i in np.ndindex(2, 3):
        member = [array[i] for array in arrays]
        alone = [_forward(xp, layer, member), *_backward(xp, layer, member, g[i])]
        for one, other in zip(stacked, alone, strict=True):
            np.testing.assert_allclose(
                one[i], other, rtol=xp.rounding(ROUNDING), atol=xp.rounding(ROUNDING)
            )


@every_layer
def test_float32_stays_float32(xp: Any, layer: Layer) -> None:
    *parameters, x = (xp.asarray(v, dtype="float32") for v in [*_parameters(layer), _x()])
    y, cache = layer.forward(parameters, x, RNG)
    x_gradient, gradients = layer.backward(parameters, cache, xp.namespace.ones_like(y))
    assert all(array.dtype == xp.namespace.float32 for array in (y, x_gradient, *gradients))


@every_layer
def test_nothing_given_is_written_to(layer: Layer) -> None:
    arrays = [*_parameters(layer), _x()]
    for array in arrays:
        array.flags.writeable = False
    y, cache = layer.forward(arrays[:-1], arrays[-1], RNG)
    g = np.ones_like(y)
    g.flags.writeable = False
    layer.backward(arrays[:-1], cache, g)


@every_layer
def test_the_parameters_drawn_have_the_shapes_announced(layer: Layer) -> None:
    drawn = layer.initialize(np.random.default_rng(0))
    assert len(layer.names) == len(layer.shapes) == len(drawn)
    assert tuple(value.shape for value in drawn) == layer.shapes
    assert all(value.dtype == np.float64 for value in drawn)


@pytest.mark.parametrize("name", [name for name in LAYERS if "user" not in name])
def test_a_layer_survives_pickling(name: str) -> None:
    assert pickle.loads(pickle.dumps(LAYERS[name])) == LAYERS[name]  # noqa: S301


def test_layers_are_equal_when_they_say_the_same() -> None:
    assert bx.Dense(2, 3) == bx.Dense(2, 3, "identity", initializer="glorot_uniform")
    assert bx.Dense(2, 3) != bx.Dense(2, 3, "tanh")
    assert bx.Residual(bx.Dropout(0.5)) == bx.Residual(bx.Dropout(0.5))
    assert bx.LayerNorm(3) != bx.LayerNorm(3, epsilon=1e-3)


def test_dense_is_an_affine_map_and_an_activation(xp: Any) -> None:
    arrays = [np.asarray([[1.0, 2.0], [3.0, -4.0]]), np.asarray([[0.5, 1.0]]), np.eye(2)]
    assert _forward(xp, bx.Dense(2, 2), arrays).tolist() == [[1.5, 3.0], [3.5, -3.0]]
    assert _forward(xp, bx.Dense(2, 2, "relu"), arrays).tolist() == [[1.5, 3.0], [3.5, 0.0]]


def test_dense_starts_with_a_bias_of_zeros_unless_told_otherwise() -> None:
    generator = np.random.default_rng(0)
    assert np.all(bx.Dense(3, 2).initialize(generator)[1] == 0.0)
    assert np.all(bx.Dense(3, 2, bias_initializer="ones").initialize(generator)[1] == 1.0)


def test_activate_is_the_activation_alone(xp: Any) -> None:
    assert _forward(xp, bx.Activate("relu"), [np.asarray([[-1.0, 2.0]])]).tolist() == [[0.0, 2.0]]


def test_layer_norm_brings_each_sample_to_mean_0_and_variance_1(xp: Any) -> None:
    x = 5.0 + 3.0 * _x()
    normed = _forward(xp, bx.LayerNorm(WIDTH), [np.ones((1, WIDTH)), np.zeros((1, WIDTH)), x])
    np.testing.assert_allclose(np.mean(normed, axis=-1), 0.0, atol=xp.rounding(ROUNDING))
    variance = np.var(x, axis=-1)  # the biased one, as the paper has it
    np.testing.assert_allclose(
        np.var(normed, axis=-1), variance / (variance + 1e-5), rtol=xp.rounding(ROUNDING)
    )


def test_layer_norm_scales_and_shifts_what_it_has_normed(xp: Any) -> None:
    layer, ones, zeros = bx.LayerNorm(WIDTH, epsilon=0.1), np.ones((1, WIDTH)), np.zeros((1, WIDTH))
    scale, bias = _parameters(layer)
    normed = _forward(xp, layer, [ones, zeros, _x()])
    expected = normed * scale + bias
    np.testing.assert_allclose(
        _forward(xp, layer, [scale, bias, _x()]), expected, rtol=xp.rounding(ROUNDING)
    )


def test_layer_norm_of_equal_features_is_its_bias(xp: Any) -> None:
    layer = bx.LayerNorm(WIDTH)
    scale, bias = _parameters(layer)
    y = _forward(xp, layer, [scale, bias, np.full((BATCH, WIDTH), 7.0)])
    assert np.array_equal(y, np.broadcast_to(bias, (BATCH, WIDTH)).astype(xp.dtype))


def test_layer_norm_starts_as_the_norm_alone() -> None:
    scale, bias = bx.LayerNorm(3).initialize(np.random.default_rng(0))
    assert scale.tolist() == [[1.0, 1.0, 1.0]]
    assert bias.tolist() == [[0.0, 0.0, 0.0]]


def test_residual_adds_what_its_layers_make_of_x_to_x(xp: Any) -> None:
    inner = bx.Dense(WIDTH, WIDTH, "tanh")
    arrays = [*_parameters(inner), _x()]
    expected = _x().astype(xp.dtype) + _forward(xp, inner, arrays)
    assert np.array_equal(_forward(xp, bx.Residual(inner), arrays), expected)


def test_residual_joins_the_parameters_of_its_layers() -> None:
    residual = bx.Residual(bx.Dense(4, 3), bx.Dropout(0.1), bx.LayerNorm(3), bx.Dense(3, 4))
    assert residual.names == (
        "layers[0].weights",
        "layers[0].bias",
        "layers[2].scale",
        "layers[2].bias",
        "layers[3].weights",
        "layers[3].bias",
    )
    assert residual.shapes == ((4, 3), (1, 3), (1, 3), (1, 3), (3, 4), (1, 4))


class Counted:
    """A layer that counts how often it is asked for its widths, names and shapes."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        values = {"n_in": 3, "n_out": 3, "names": ("scale",), "shapes": ((1, 3),)}
        if name not in values:
            raise AttributeError(name)
        self.asked[name] += 1
        return values[name]

    def initialize(self, generator: Any) -> tuple[Any, ...]:
        return (np.ones((1, 3)),)

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        return x, None

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, Any]:
        return g, (0.0 * parameters[0],)


def test_a_residual_within_residuals_is_asked_no_more_than_one_alone() -> None:
    counts = []
    for depth in (1, 10):
        layer: Any = Counted()
        counted = layer
        for _ in range(depth):
            layer = bx.Residual(layer)
        assert (layer.n_in, layer.n_out, layer.shapes) == (3, 3, ((1, 3),))
        assert layer.names == ("layers[0]." * depth + "scale",)
        assert bx.Network([layer], "huber").size == 3
        counts.append(counted.asked)
    assert counts[0] == counts[1]


def test_residuals_nested_a_hundred_deep_are_built_and_run(xp: Any) -> None:
    layer: Any = bx.Dense(2, 2, initializer="zeros")
    for _ in range(100):
        layer = bx.Residual(layer)
    network = bx.Network([layer], "mean_squared_error")
    theta, x = xp.initialize(network), xp.asarray([[1.0, -0.5]])
    # Each adds the input once more to what is 0.
    assert np.array_equal(xp.host(network.forward(theta, x)), [[100.0, -50.0]])
    assert network.loss_and_gradient(theta, x, 0.0 * x)[1].shape == (6,)


def test_dropout_passes_everything_on_in_inference(xp: Any) -> None:
    y = _forward(xp, bx.Dropout(0.9), [_x()], rng=None)
    assert np.array_equal(y, _x().astype(xp.dtype))


def test_dropout_zeroes_units_and_scales_up_the_others(xp: Any) -> None:
    y = _forward(xp, bx.Dropout(0.75), [np.ones((40, 50))])
    assert set(np.unique(y)) == {0.0, 4.0}
    # A share of 2,000 scatters by sqrt(p (1 - p) / 2000) = 0.01: five of those.
    assert np.mean(y == 0.0) == pytest.approx(0.75, abs=0.05)


def test_dropout_uses_the_mask_that_random_gives_for_its_key(xp: Any) -> None:
    mask = keep_mask(RNG, 0.5, BATCH, WIDTH, xp=np, device="cpu")
    y = _forward(xp, bx.Dropout(0.5), [_x()])
    assert np.array_equal(y, np.where(mask, 2.0 * _x(), 0.0).astype(xp.dtype))


def test_dropout_gives_a_sample_the_same_mask_in_a_longer_batch(xp: Any) -> None:
    short = _forward(xp, bx.Dropout(0.5), [np.ones((BATCH, WIDTH))])
    longer = _forward(xp, bx.Dropout(0.5), [np.ones((8, WIDTH))])
    assert np.array_equal(longer[:BATCH], short)
    assert len(np.unique(longer, axis=0)) > 1


def test_dropout_gives_a_shared_x_one_mask_per_key_of_an_array(xp: Any) -> None:
    keys = xp.asarray(np.asarray([[[3]], [[4]]]), dtype="int32")
    y, _ = bx.Dropout(0.5).forward((), xp.asarray(np.ones((8, WIDTH))), keys)
    alone = [_forward(xp, bx.Dropout(0.5), [np.ones((8, WIDTH))], rng=key) for key in (3, 4)]
    assert np.array_equal(xp.host(y), np.stack(alone))
    assert not np.array_equal(alone[0], alone[1])


def test_a_chain_folds_each_layers_index_into_the_key(xp: Any) -> None:
    drop = bx.Dropout(0.5)
    ones = np.ones((8, WIDTH))
    y, _ = forward_through([drop, drop], [(), ()], xp.asarray(ones), RNG)
    first, second = (_forward(xp, drop, [ones], rng=fold_in(RNG, i)) for i in range(2))
    assert np.array_equal(xp.host(y), first * second)
    assert not np.array_equal(first, second)


def test_a_chain_sends_nothing_back_to_where_nothing_needs_it(xp: Any) -> None:
    layers = [bx.Activate("tanh"), bx.Dense(WIDTH, 2), bx.Activate("tanh")]
    weights, bias = (xp.asarray(value) for value in _parameters(layers[1]))
    parameters = [(), (weights, bias), ()]
    y, caches = forward_through(layers, parameters, xp.asarray(_x()), None)
    g = xp.namespace.ones_like(y)
    x_gradient, gradients = backward_through(layers, parameters, caches, g, wants_input=False)
    assert x_gradient is None
    assert [len(values) for values in gradients] == [0, 2, 0]


@pytest.mark.parametrize("width", [0, -1])
def test_a_width_that_is_not_positive_is_a_value_error(width: int) -> None:
    with pytest.raises(ValueError, match=f"n_in must be an integer of at least 1, not {width}"):
        bx.Dense(width, 2)
    with pytest.raises(ValueError, match="n_out"):
        bx.Dense(2, width)
    with pytest.raises(ValueError, match="n must be"):
        bx.LayerNorm(width)


@pytest.mark.parametrize("width", [2.5, 2.0, True, "3", None])
def test_a_width_that_is_no_integer_is_a_type_error(width: Any) -> None:
    with pytest.raises(TypeError, match="n_in must be an integer"):
        bx.Dense(width, 2)
    with pytest.raises(TypeError, match="n_out must be an integer"):
        bx.Dense(2, width)
    with pytest.raises(TypeError, match="n must be an integer"):
        bx.LayerNorm(width)


def test_a_width_may_be_a_numpy_integer() -> None:
    assert bx.Dense(np.int64(2), np.int32(3)) == bx.Dense(2, 3)


@pytest.mark.parametrize("rate", [1.0, 1.5, -0.1, float("nan"), float("inf")])
def test_a_rate_outside_0_to_1_is_a_value_error(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must be .*>= 0 and < 1"):
        bx.Dropout(rate)


@pytest.mark.parametrize("rate", ["0.5", True, None, [0.5], 0.5j])
def test_a_rate_that_is_no_number_is_a_type_error(rate: Any) -> None:
    with pytest.raises(TypeError, match="rate must be a number"):
        bx.Dropout(rate)


@pytest.mark.parametrize("epsilon", [0.0, -1e-5, float("nan"), float("inf")])
def test_an_epsilon_that_is_not_positive_and_finite_is_a_value_error(epsilon: float) -> None:
    with pytest.raises(ValueError, match="epsilon must be"):
        bx.LayerNorm(3, epsilon=epsilon)


@pytest.mark.parametrize(
    ("options", "offered"),
    [
        ({"activation": "rellu"}, "activation 'rellu' is unknown. Did you mean 'relu'"),
        ({"initializer": "glorot"}, "initializer 'glorot' is unknown. Did you mean 'glorot_"),
        ({"bias_initializer": "zeroes"}, "bias_initializer 'zeroes' is unknown. Did you mean 'zer"),
        ({"activation": "qqq"}, "Known: identity, sigmoid, tanh"),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest_known_one(
    options: dict[str, str], offered: str
) -> None:
    with pytest.raises(ValueError, match=offered):
        bx.Dense(2, 3, **options)


@pytest.mark.parametrize("activation", [np.tanh, None, 3, bx.activations.relu.value])
def test_what_is_neither_a_name_nor_an_activation_is_a_type_error(activation: Any) -> None:
    with pytest.raises(TypeError, match="activation"):
        bx.Dense(2, 3, activation)
    with pytest.raises(TypeError, match="activation"):
        bx.Activate(activation)


@pytest.mark.parametrize("initializer", [None, 3, np.ones((2, 3))])
def test_what_is_neither_a_name_nor_an_initializer_is_a_type_error(initializer: Any) -> None:
    with pytest.raises(TypeError, match="initializer"):
        bx.Dense(2, 3, initializer=initializer)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "at least one layer"),
        ([bx.Dense(4, 3)], "take 4 features and give 3"),
        ([bx.Dense(4, 3), bx.Dense(2, 4)], "layer 1 .Dense. takes 2 features"),
        ([bx.Dense(4, 3), bx.Dropout(0.5), bx.LayerNorm(4)], "layer 2 .LayerNorm. takes 4"),
    ],
)
def test_a_residual_of_layers_that_do_not_fit_is_a_value_error(
    layers: list[Layer], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bx.Residual(*layers)


@pytest.mark.parametrize("intruder", [bx.activations.relu, "relu", None, [bx.Dense(2, 2)]])
def test_a_residual_of_what_is_no_layer_is_a_type_error(intruder: Any) -> None:
    with pytest.raises(TypeError, match=r"layers\[1\].*no layer"):
        bx.Residual(bx.Dense(2, 2), intruder)
