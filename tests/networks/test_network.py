"""Networks: the layout of theta, losses and gradients, stacks, and errors.

Specifies ``bound``, ``definition``, ``layout``, ``mlp`` and ``objective``.
"""

import functools
import itertools
import math
import pickle
import re
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.propagation import linked
from backprop_xp.networks.derivatives.bound import BoundNetwork, bind, loss_and_gradient_of
from backprop_xp.networks.derivatives.objective import loss_of, mean_loss
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.initializers import INITIALIZERS
from backprop_xp.networks.numbers.random_bits import as_key, fold_in
from tests.helpers import long, thorough
from tests.user_layers import Factors, PassThrough, sample_data, sample_network, sample_theta

# A function and its exact derivative differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# The products of a stack may sum in another order than one network's: a few more roundings.
STACK_ROUNDING = 1e-12
# float32 keeps 24 bits, 6e-8; a few roundings of those.
FLOAT32_ROUNDING = 1e-6
# Too small to round the real part; its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100

N_IN, N_OUT, BATCH = 3, 2, 5
RNG = 17
LINKED = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax"}


def _case(xp: Any, network: bx.Network, stack: tuple[int, ...] = (), loss: str = "") -> list[Any]:
    """Return theta of a stack, and its shared x, y and sample_weight."""
    return xp.put(sample_theta(network, stack), *sample_data(loss))


def _close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Assert that no difference exceeds ``tolerance`` times the largest value."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * float(np.max(np.abs(expected)))
    )


def _complex_step(xp: Any, network: bx.Network, *data: Any, **options: Any) -> Any:
    """Return the loss at ``_theta`` and its slopes, on the host."""
    theta = sample_theta(network)
    copies = xp.asarray(theta + 1j * IMAGINARY_STEP * np.eye(theta.size), dtype="complex128")
    values = xp.host(network.loss(copies, *data, **options))
    return values.real, values.imag / IMAGINARY_STEP


@pytest.mark.float64
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize(
    ("hidden", "loss"),
    [
        # Each of them with one of the others; the thorough session runs all pairs.
        long(*pair) if pair[0] == "tanh" or pair[1] == "huber" else thorough(*pair)
        for pair in itertools.product(ACTIVATIONS, LOSSES)
    ],
)
def test_the_gradient_agrees_with_the_complex_step(xp: Any, hidden: str, loss: str) -> None:
    has_link = LOSSES[loss].inverse_link is not bx.activations.identity.value
    output = "identity" if has_link and hidden in LINKED.values() else hidden
    network = sample_network(hidden, output, loss)
    theta, x, y, weight = _case(xp, network, loss=loss)
    options = {"sample_weight": weight, "rng": RNG}
    values, slopes = _complex_step(xp, network, x, y, **options)
    value, gradient = network.loss_and_gradient(theta, x, y, **options)
    _close(xp.host(gradient), slopes, ROUNDING)
    np.testing.assert_allclose(float(xp.host(value)), values, rtol=ROUNDING)


@pytest.mark.long
def test_the_gradient_is_the_vjp_of_the_losss_gradient(xp: Any) -> None:
    network = sample_network(loss="poisson")
    theta, x, y, _ = _case(xp, network)
    outputs = network.forward(theta, x, rng=RNG)
    g = network.loss_function.gradient(outputs, y) / BATCH
    theta_gradient, _ = network.vjp(theta, x, g, rng=RNG)
    _, expected = network.loss_and_gradient(theta, x, y, rng=RNG, l2=0.0)
    _close(xp.host(theta_gradient), xp.host(expected), xp.rounding(ROUNDING))


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.usefixtures("full_precision")
def test_the_inputs_gradient_agrees_with_the_complex_step(xp: Any) -> None:
    network = sample_network()
    theta, (x, g, _) = sample_theta(network), sample_data()
    copies = x + 1j * IMAGINARY_STEP * np.eye(x.size).reshape(-1, *x.shape)
    thetas = np.tile(theta, (x.size, 1)).astype(complex)
    outputs = network.forward(
        xp.asarray(thetas, dtype="complex128"), xp.asarray(copies, dtype="complex128"), rng=RNG
    )
    expected = np.sum(g * xp.host(outputs).imag, axis=(1, 2)).reshape(x.shape) / IMAGINARY_STEP
    _, actual = network.vjp(xp.asarray(theta), xp.asarray(x), xp.asarray(g), rng=RNG)
    _close(xp.host(actual), expected, ROUNDING)


@pytest.mark.long
def test_the_loss_is_the_weighted_mean_over_the_samples(xp: Any) -> None:
    network = bx.mlp([N_IN, N_OUT], loss="log_cosh")
    theta, x, y, weight = _case(xp, network)
    each = [
        float(xp.host(network.loss(theta, x[i : i + 1, :], y[i : i + 1, :]))) for i in range(BATCH)
    ]
    for given, expected in (
        (weight, np.average(each, weights=xp.host(weight))),
        (None, np.mean(each)),
    ):
        xp.assert_close(network.loss(theta, x, y, sample_weight=given), expected)


@pytest.mark.long
def test_a_sample_of_weight_2_counts_as_two_and_one_of_weight_0_as_none(xp: Any) -> None:
    network = bx.mlp([N_IN, 4, N_OUT], hidden="tanh", l2=0.1)
    theta, x, y, _ = _case(xp, network)
    weighted = network.loss_and_gradient(theta, x, y, sample_weight=[1, 2, 0, 1, 1])
    repeated = xp.put(*(array[[0, 1, 1, 3, 4]] for array in sample_data()[:2]))
    for one, other in zip(weighted, network.loss_and_gradient(theta, *repeated), strict=True):
        _close(xp.host(one), xp.host(other), xp.rounding(ROUNDING))


@pytest.mark.long
@pytest.mark.parametrize("stacked", ["", "weights", "weights and x"])
@pytest.mark.parametrize("loss", ["mean_squared_error", "categorical_cross_entropy"])
def test_a_row_of_weight_0_that_overflows_is_left_out(xp: Any, loss: str, stacked: str) -> None:
    network = bx.mlp([N_IN, 4, N_OUT], hidden="relu", loss=loss, l2=0.1)
    x, y, _ = sample_data(loss)
    x[2], y[2] = 0.9 * np.finfo(xp.dtype).max, np.sqrt(np.finfo(xp.dtype).max)
    weight, rest, theta = np.asarray([1.0, 2.0, 0.0, 1.0, 1.0]), [0, 1, 3, 4], sample_theta(network)
    *given, some = xp.put(theta, x[rest], y[rest], weight[rest])
    left = network.loss_and_gradient(*given, sample_weight=some)
    if stacked:
        theta = np.stack([theta, theta, theta])
        weight = np.stack([weight, weight, np.asarray([1.0, 0.0, 0.0, 2.0, 0.0])])
    if "x" in stacked:
        x = np.stack([x, x, x])
    theta, x, y, weight = xp.put(theta, x, y, weight)
    both = network.loss_and_gradient(theta, x, y, sample_weight=weight)
    assert np.all(np.isfinite(xp.host(both[1])))
    xp.assert_close(network.loss(theta, x, y, sample_weight=weight), xp.host(both[0]))
    for one, other in zip(both, left, strict=True):
        one = xp.host(one)[1] if stacked else xp.host(one)
        np.testing.assert_allclose(one, xp.host(other), atol=xp.rounding(ROUNDING))


def test_a_batch_whose_weights_are_all_0_has_only_the_penalty(xp: Any) -> None:
    network = bx.mlp([N_IN, N_OUT], l2=0.5)
    theta, x, y, _ = _case(xp, network)
    value, gradient = network.loss_and_gradient(theta, x, y, sample_weight=[0] * BATCH)
    weights = xp.host(theta) * xp.host(network.weight_mask(theta))
    xp.assert_close(value, 0.25 * np.sum(weights**2))
    _close(xp.host(gradient), 0.5 * weights, xp.rounding(ROUNDING))


def test_a_row_that_overflows_leaves_the_network_alone_for_which_its_weight_is_0(xp: Any) -> None:
    network = bx.mlp([2, 1])
    theta, x = xp.initialize(network, stack=2), xp.asarray([[0.2, -0.4], [0.3, 0.1]])
    y = xp.asarray([[0.5], [float(np.finfo(xp.host(theta).dtype).max)]])
    with np.errstate(all="ignore"):  # NumPy warns of the overflow
        found = network.loss_and_gradient(
            theta, x, y, sample_weight=xp.asarray([[1.0, 1.0], [1.0, 0.0]])
        )
    assert not np.isfinite(xp.host(found[0])[0])
    alone = network.loss_and_gradient(theta[1, :], x[:1, :], y[:1, :])
    for one, expected in zip(found, alone, strict=True):
        xp.assert_close(one[1, ...], expected)


def test_a_loss_of_weight_0_that_overflows_adds_nothing(xp: Any) -> None:
    each, weight = xp.put([1.0, math.inf, 4.0], [2.0, 0.0, 1.0])
    with np.errstate(invalid="ignore"):  # NumPy warns of 0 times infinity
        xp.assert_close(mean_loss(each, weight), 2.0)


@pytest.mark.once
def test_the_buffer_of_a_bound_network_is_written_whole() -> None:
    network = bx.mlp([N_IN, 4, N_OUT], hidden="tanh")
    x, y = np.random.default_rng(5).normal(size=(2, BATCH, N_IN))
    theta = network.initialize(backend="numpy")
    bound, rows = bind(network.definition, theta), Rows(x, y[:, :N_OUT])
    assert bound.gradient is not None
    bound.gradient[...] = np.nan
    none = rows._replace(x=x[:0], y=rows.y[:0])
    loss, gradient = bound.loss_and_gradient(none, None)
    assert (loss, gradient is bound.gradient, np.abs(gradient).max()) == (0.0, True, 0.0)
    loss, gradient = bound.loss_and_gradient(none, 0.5)
    np.testing.assert_array_equal(gradient, 0.5 * theta * network.weight_mask(theta))
    weights = [layer[0] for layer in network.unpack(theta)]
    assert loss == pytest.approx(0.25 * sum(np.sum(w * w) for w in weights))
    found = bound.loss_and_gradient(rows, None)
    for one, expected in zip(found, network.loss_and_gradient(theta, x, rows.y), strict=True):
        np.testing.assert_array_equal(one, expected)


def test_the_penalty_is_half_l2_times_the_squares_of_the_weights_alone(xp: Any) -> None:
    network = sample_network()
    theta, x, y, weight = _case(xp, network)
    loss = functools.partial(network.loss, theta, x, y, sample_weight=weight)
    penalty = 0.5 * np.sum((xp.host(network.weight_mask(theta)) * sample_theta(network)) ** 2)
    without = xp.host(loss(l2=0.0))
    for l2 in (2, np.float64(0.5), np.int64(2)):
        xp.assert_close(loss(l2=l2), without + float(l2) * penalty)
    xp.assert_close(loss(), without + 0.3 * penalty)


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [None, 2, np.int64(BATCH), 100])
@pytest.mark.parametrize(("stack", "data"), [((), ()), ((2, 3), ()), ((2, 3), (2, 3))])
def test_a_prediction_is_the_link_of_the_outputs_in_batches_of_any_size(
    xp: Any, stack: tuple[int, ...], data: tuple[int, ...], batch_size: int | None
) -> None:
    network = sample_network(loss="poisson")
    theta, x = xp.put(sample_theta(network, stack), sample_data(stack=data)[0])
    whole = network.loss_function.inverse_link(network.forward(theta, x))
    predictions = network.predict(theta, x, batch_size=batch_size)
    _close(xp.host(predictions), xp.host(whole), xp.rounding(STACK_ROUNDING))


@pytest.mark.parametrize("stack", [(), (2, 2)])
def test_a_prediction_of_many_rows_runs_in_pieces(stack: tuple[int, ...]) -> None:
    seen = []

    class Counting(bx.Dropout):
        def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
            seen.append(x.shape[-2])
            return super().forward(parameters, x, rng)

    network = bx.Network([bx.Dense(1, 2), Counting(0.5)], "huber")
    theta, x = network.initialize(stack=stack, backend="numpy"), np.ones((2**12 + 5, 1))
    assert network.predict(theta, x).shape == (*stack, 2**12 + 5, 2)
    at_once = 2**12 // (4 if stack else 1)
    full, rest = divmod(2**12 + 5, at_once)
    assert seen == [at_once] * full + [rest]


def test_a_prediction_needs_memory_for_one_layer_of_one_piece() -> None:
    width, rows = 200, 500
    network = bx.mlp([2, width, width, width, 1])
    theta, x = network.initialize(backend="numpy"), np.ones((10_000, 2))
    few, y = x[:rows, :], x[:rows, :1]
    peaks = []
    for use in (
        lambda: network.predict(theta, x, batch_size=rows),
        lambda: network.forward(theta, few),
        lambda: network.loss(theta, few, y),
        lambda: network.loss_and_gradient(theta, few, y),
    ):
        tracemalloc.start()
        use()
        peaks.append(tracemalloc.get_traced_memory()[1] / (rows * width * 8))
        tracemalloc.stop()
    # A layer's input, its pre-activation and its activation.
    assert max(peaks[:3]) < 3.7 < peaks[3], peaks


def test_inference_uses_no_dropout_and_training_does(xp: Any) -> None:
    network = bx.mlp([N_IN, 8, N_OUT], hidden="tanh", dropout=0.5)
    plain = bx.mlp([N_IN, 8, N_OUT], hidden="tanh")
    theta, x, _, _ = _case(xp, plain)
    inference = xp.host(network.forward(theta, x))
    xp.assert_equal(inference, plain.forward(theta, x))
    trained = [xp.host(network.forward(theta, x, rng=rng)) for rng in (1, 1, 2)]
    xp.assert_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], trained[2])
    assert not np.array_equal(trained[0], inference)


@pytest.mark.parametrize("loss", [long(n) if n != "huber" else n for n in LOSSES])
def test_float32_stays_float32(xp: Any, loss: str) -> None:
    network = sample_network(loss=loss)

    def results(dtype: str) -> list[Any]:
        theta, x, y, weight = xp.put(sample_theta(network), *sample_data(loss), dtype=dtype)
        options = {"sample_weight": weight, "rng": RNG, "l2": 0.1}
        return [
            network.forward(theta, x, rng=RNG),
            network.predict(theta, x),
            network.loss(theta, x, y, **options),
            *network.loss_and_gradient(theta, x, y, **options),
            *network.vjp(theta, x, network.predict(theta, x), rng=RNG),
            network.weight_mask(theta),
        ]

    for single, double in zip(results("float32"), results("working"), strict=True):
        assert single.dtype == xp.namespace.float32
        # A dozen layers' roundings add up.
        _close(xp.host(single), xp.host(double).astype(np.float32), 30 * FLOAT32_ROUNDING)


def test_integers_booleans_and_lists_are_converted_to_thetas_precision(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    theta = xp.asarray(sample_theta(network), dtype="float32")
    x, y, weight = [[0, 1], [1, 1], [1, 0]], [[True], [False], [True]], [1, 2, 1]
    floats = xp.put(x, y, weight, dtype="float32")
    integers = [xp.asarray(array, dtype=dtype) for array, dtype in ((x, "int64"), (y, "bool"))]
    expected = network.loss_and_gradient(theta, *floats[:2], sample_weight=floats[2])
    for given in [(x, y), integers]:
        actual = network.loss_and_gradient(theta, *given, sample_weight=weight)
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype == xp.namespace.float32
            xp.assert_equal(one, other)


@pytest.mark.long
def test_a_vjp_accepts_lists_and_integers(xp: Any) -> None:
    gradient, x_gradient = bx.mlp([2, 1]).vjp(xp.asarray([1.0, 2.0, 3.0]), [[4, 5]], [[10]])
    assert xp.host(gradient).tolist() == [40.0, 50.0, 10.0]
    assert xp.host(x_gradient).tolist() == [[10.0, 20.0]]


def test_theta_is_layer_by_layer_in_c_order_with_the_weights_before_the_bias(xp: Any) -> None:
    network = sample_network()
    theta = np.arange(float(network.size))
    layers = network.unpack(xp.asarray(theta))
    assert [len(layer) for layer in layers] == [2, 2, 0, 0, 4, 2]
    found = [value for layer in layers for value in layer]
    shapes = [(3, 4), (1, 4), (1, 4), (1, 4), (4, 3), (1, 3), (3, 4), (1, 4), (4, 2), (1, 2)]
    assert [value.shape for value in found] == shapes
    flat = np.concatenate([xp.host(value).ravel(order="C") for value in found])
    assert np.array_equal(flat, theta)


@pytest.mark.parametrize("stack", [(), (4,), (2, 3)])
def test_pack_is_the_inverse_of_unpack(xp: Any, stack: tuple[int, ...]) -> None:
    network = sample_network()
    theta = xp.asarray(sample_theta(network, stack))
    parameters = network.unpack(theta)
    assert parameters[0][0].shape == (*stack, N_IN, 4)
    assert parameters[0][1].shape == (*stack, 1, 4)
    xp.assert_equal(network.pack(parameters), theta)


def test_unpack_gives_views_on_numpy() -> None:
    network = sample_network()
    theta = sample_theta(network, (2,))
    parameters = network.unpack(theta)
    assert all(np.shares_memory(value, theta) for layer in parameters for value in layer)
    parameters[0][0][1, 0, 2] = 99.0
    assert theta[1, 2] == 99.0


def test_the_weight_mask_is_1_on_weights_and_0_on_biases_and_norms(xp: Any) -> None:
    network = sample_network()
    theta = xp.asarray(sample_theta(network, (3,)), dtype="float32")
    mask = network.weight_mask(theta)
    assert mask.dtype == theta.dtype
    counts = [12, 4, 4, 4, 12, 3, 12, 4, 8, 2]
    xp.assert_equal(mask, np.repeat([1, 0, 0, 0, 1, 0, 1, 0, 1, 0], counts))


# What each parameter of sample_network is named, by its layer, and its length.
_PARAMETERS = [
    *[(0, "weights", 12), (0, "bias", 4), (1, "scale", 4), (1, "bias", 4)],
    *[(4, "layers[0].weights", 12), (4, "layers[0].bias", 3)],
    *[(4, "layers[2].weights", 12), (4, "layers[2].bias", 4), (5, "weights", 8), (5, "bias", 2)],
]


@pytest.mark.parametrize(
    ("options", "ones"),
    [
        ({}, "1111111111"),
        ({"names": ["weights"]}, "1000101010"),
        ({"names": ("scale", "bias")}, "0111010101"),
        ({"names": ["layers[2].weights"]}, "0000001000"),
        ({"layers": [0, -1]}, "1100000011"),
        ({"layers": [np.int64(4)], "names": ["bias"]}, "0000010100"),
        ({"layers": range(5)}, "1111111100"),
    ],
    ids=str,
)
def test_a_mask_is_1_on_the_layers_and_names_that_are_asked_for(
    xp: Any, options: dict[str, Any], ones: str
) -> None:
    network = sample_network()
    theta = xp.asarray(sample_theta(network, (3,)), dtype="float32")
    mask = network.mask(theta, **options)
    assert mask.dtype == theta.dtype
    lengths = [length for *_, length in _PARAMETERS]
    xp.assert_equal(mask, np.repeat([int(one) for one in ones], lengths))
    if options.get("names") == ["weights"]:
        xp.assert_equal(mask, xp.host(network.weight_mask(theta)))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": [6]}, ValueError, "layers has 6, but the network has 6 layers"),
        ({"layers": [-7]}, ValueError, "layers must be an integer of at least -6, not -7"),
        ({"layers": ["0"]}, TypeError, "layers must be an integer"),
        ({"layers": 0}, TypeError, r"layers must be a sequence such as \[0, 1\], not 0"),
        ({"names": ["weight"]}, ValueError, "names 'weight' is unknown. Did you mean 'weights'"),
        ({"names": "weights"}, TypeError, r'names must be a sequence such as \["weights"\]'),
        ({"layers": [2]}, ValueError, r"No parameter is in layers=\[2\] with names=None"),
        ({"layers": []}, ValueError, "No parameter is in layers"),
        ({"layers": [0], "names": ["scale"]}, ValueError, "No parameter is in layers"),
    ],
    ids=str,
)
def test_a_mask_of_what_a_network_lacks_is_refused(
    xp: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    network = sample_network()
    with pytest.raises(error, match=message):
        network.mask(xp.initialize(network), **options)


def test_describe_is_a_table_of_layers_shapes_and_parameters() -> None:
    lines = sample_network().describe().splitlines()
    kinds = ["kind", "Dense", "LayerNorm", "Activate", "Dropout", "Residual", "Dense"]
    assert [line.split()[1] for line in lines[:-1] if line[4] != " "] == kinds
    assert lines[0].split() == ["layer", "kind", "arrays", "parameters"]
    assert "weights (3, 4), bias (1, 4)" in lines[1]
    # Each parameter of a layer with many has a line.
    inner = [line.split("  layers[")[1].split("  ")[0] for line in lines[5:9]]
    assert inner == ["0].weights (4, 3)", "0].bias (1, 3)", "2].weights (3, 4)", "2].bias (1, 4)"]
    numbers = [int(line.split()[-1]) for line in lines[1:]]
    assert (numbers[:4], sum(numbers[4:8]), numbers[8:]) == ([16, 8, 0, 0], 31, [10, 65])
    assert len({len(line) for line in lines}) == 1


def test_a_networks_theta_depends_only_on_the_seed_and_its_position(xp: Any) -> None:
    network = sample_network()
    alone, four, six = (
        xp.host(xp.initialize(network, 5, stack=stack)) for stack in ((), 4, (2, 3))
    )
    assert (four.shape, six.shape) == ((4, network.size), (2, 3, network.size))
    assert np.array_equal(four[0], alone)
    assert np.array_equal(six.reshape(6, -1)[:4], four)
    assert len(np.unique(six.reshape(6, -1), axis=0)) == 6
    assert not np.array_equal(xp.host(xp.initialize(network, 6)), alone)
    for stack in (np.int64(4), [4]):
        xp.assert_equal(xp.initialize(network, 5, stack=stack), four)


def test_each_layer_draws_by_its_own_initializers(xp: Any) -> None:
    drawn = bx.initializers.uniform(5.0, 6.0)
    layers = [
        bx.Dense(2, 3, initializer="zeros", bias_initializer="ones"),
        bx.LayerNorm(3),
        bx.Dense(3, 1, initializer=drawn),
    ]
    theta = xp.host(xp.initialize(bx.Network(layers, "mean_squared_error")))
    assert theta[[*range(15), 18]].tolist() == [0.0] * 6 + [1.0] * 6 + [0.0] * 4
    assert np.all((theta[15:18] >= 5.0) & (theta[15:18] < 6.0))


@pytest.mark.float64
@pytest.mark.long
@pytest.mark.usefixtures("full_precision")
def test_a_custom_layer_works_in_a_network_and_in_a_residual(xp: Any) -> None:
    layers = [Factors(N_IN), bx.Residual(Factors(N_IN), bx.Activate("tanh")), bx.Dense(N_IN, N_OUT)]
    network = bx.Network(layers, "mean_squared_error", l2=0.1)
    assert xp.initialize(network).shape == (2 * N_IN + N_IN * N_OUT + N_OUT,)
    assert "Factors" in network.describe()
    theta, x, y, _ = _case(xp, network)
    _, slopes = _complex_step(xp, network, x, y)
    _close(xp.host(network.loss_and_gradient(theta, x, y)[1]), slopes, ROUNDING)


def test_an_input_gradient_is_computed_only_where_it_is_needed(xp: Any) -> None:
    """The first layer with parameters needs none, whatever layers are before it."""
    first, second = Factors(N_IN), Factors(N_IN)
    before = [bx.Activate("tanh"), bx.Dropout(0.5)]
    network = bx.Network([*before, bx.Residual(first), second, bx.Dense(N_IN, N_OUT)], "huber")
    theta, x, y, _ = _case(xp, network)
    network.loss_and_gradient(theta, x, y, rng=RNG)
    assert (first.input_wanted, second.input_wanted) == ([False], [True])
    network.vjp(theta, x, y)
    assert (first.input_wanted, second.input_wanted) == ([False, True], [True, True])


def test_mlp_is_dense_layers_with_their_activations() -> None:
    assert bx.mlp([4, 3, 2, 1], hidden="tanh", output="sigmoid").layers == (
        bx.Dense(4, 3, "tanh"),
        bx.Dense(3, 2, "tanh"),
        bx.Dense(2, 1, "sigmoid"),
    )


def test_mlp_applies_norm_activation_and_dropout_in_order_and_none_to_the_outputs() -> None:
    network = bx.mlp([4, 3, 1], dropout=0.2, layer_norm=True, l2=0.5, initializer="he_normal")
    layers = [
        bx.Dense(4, 3, initializer="he_normal"),
        bx.LayerNorm(3),
        bx.Activate("relu"),
        bx.Dropout(0.2),
        bx.Dense(3, 1, initializer="he_normal"),
    ]
    assert network == bx.Network(layers, "mean_squared_error", l2=0.5)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_mlp_takes_an_activation_for_each_hidden_layer(layer_norm: bool) -> None:
    hidden = ["relu", bx.activations.tanh, "silu"]
    network = bx.mlp([2, 4, 5, 6, 1], hidden=hidden, layer_norm=layer_norm)
    kind = bx.Activate if layer_norm else bx.Dense
    found = [layer.activation for layer in network.layers if isinstance(layer, kind)][:3]
    assert found == [ACTIVATIONS[name] for name in ("relu", "tanh", "silu")]
    assert bx.mlp([2, 1], hidden=[]) == bx.mlp([2, 1])
    with pytest.raises(ValueError, match="hidden has 3 activations, but there are 1 hidden layers"):
        bx.mlp([2, 4, 1], hidden=hidden)
    with pytest.raises(ValueError, match=r"hidden\[1\] 'rely' is unknown. Did you mean 'relu'"):
        bx.mlp([2, 4, 4, 1], hidden=["relu", "rely"])
    with pytest.raises(TypeError, match=r"hidden must be a name or a bx\.Activation, not 3"):
        bx.mlp([2, 4, 1], hidden=3)


def test_mlp_accepts_names_and_objects_alike() -> None:
    names = {"hidden": "gelu", "output": "tanh", "loss": "huber", "initializer": "he_normal"}
    tables = {"hidden": bx.activations, "output": bx.activations, "loss": bx.losses}
    objects = {key: getattr(tables.get(key, bx.initializers), name) for key, name in names.items()}
    assert bx.mlp([4, 3, 1], **names) == bx.mlp([np.int64(4), 3, 1], **objects)


@pytest.mark.parametrize("initializer", [*INITIALIZERS, bx.initializers.uniform(-1.0, 1.0)])
def test_an_unpickled_network_is_equal(initializer: Any) -> None:
    options = {"dropout": 0.1, "layer_norm": True, "loss": "poisson", "initializer": initializer}
    network = bx.mlp([3, 4, 2], l2=0.1, **options)
    copy = pickle.loads(pickle.dumps(network))  # noqa: S301
    drawn, again = (one.initialize(3, backend="numpy") for one in (network, copy))
    assert np.array_equal(again, drawn)
    assert copy == network


def test_different_networks_are_not_equal_and_a_network_is_immutable() -> None:
    options: list[dict[str, Any]] = [{}, {"hidden": "tanh"}, {"loss": "huber"}, {"l2": 0.1}]
    networks = [bx.mlp([2, 4, 1]), *(bx.mlp([2, 3, 1], **given) for given in options)]
    assert len(set(networks)) == len(networks)
    assert bx.mlp([2, 3, 1]) == networks[1]
    with pytest.raises(AttributeError):
        networks[0].l2 = 1.0  # type: ignore[misc]
    assert isinstance(bx.Network([bx.Dense(2, 1)], "huber").layers, tuple)


@pytest.mark.long
def test_no_argument_is_written_to(xp: Any) -> None:
    network = sample_network()
    arrays = [sample_theta(network, (4,)), *sample_data()]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False  # on NumPy a write is an immediate error
    theta, x, y, weight = given = xp.put(*arrays)
    network.predict(theta, x)
    network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=RNG)
    network.vjp(theta, x, y, rng=RNG)
    network.pack(network.unpack(theta))
    for array, copy in zip(given, before, strict=True):
        xp.assert_equal(array, copy.astype(xp.dtype))


# Errors

CLASSIFIER = bx.mlp([N_IN, 4, N_OUT], hidden="tanh", loss="categorical_cross_entropy")
X, Y = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]


def _ones(*shape: int, dtype: Any = np.float64) -> np.ndarray:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"x": _ones(2, 5)}, ValueError, r"x has 5 features .* expects 3"),
        ({"x": _ones(3)}, ValueError, r"x has shape \(3,\).*x\[None, :\]"),
        ({"x": 1.0}, ValueError, r"x has shape \(\)"),
        ({"x": _ones(0, 3), "y": _ones(0, 2)}, ValueError, "x has no rows .* at least one is exp"),
        ({"x": _ones(4, 2, 3)}, ValueError, r"x is stacked \(4,\), but theta is stacked \(\)"),
        ({"x": [[0.0, 1.0, 2.0], [1.0]]}, ValueError, "x is not an array of numbers"),
        ({"y": _ones(3, 2)}, ValueError, r"y has shape \(3, 2\).*2, 2\)"),
        ({"y": _ones(2, 3)}, ValueError, r"y has shape \(2, 3\)"),
        ({"y": [0.0, 1.0]}, ValueError, r"y has shape \(2,\).*y = bx\.data\.one_hot\(y\)"),
        ({"y": [[0.0], [1.0]]}, ValueError, r"y has .*bx\.data\.one_hot\(y\[\.\.\., 0\]\)"),
        ({"y": _ones(4, 2, 2)}, ValueError, r"y is stacked \(4,\)"),
        ({"sample_weight": _ones(3)}, ValueError, r"sample_weight has shape \(3,\).*2 rows"),
        ({"sample_weight": 2.0}, ValueError, r"sample_weight has shape \(\)"),
        ({"sample_weight": _ones(2, 1)}, ValueError, r"sample_weight has shape \(2, 1\)"),
        ({"sample_weight": _ones(4, 2)}, ValueError, r"sample_weight is stacked \(4,\)"),
        ({"theta": _ones(4)}, ValueError, r"theta has shape \(4,\).*\(\.\.\., 26\)"),
        ({"theta": _ones(0, 26)}, ValueError, r"theta has shape \(0, 26\).*at least one member"),
        ({"l2": -0.1}, ValueError, "l2 must be >= 0"),
        ({"l2": float("nan")}, ValueError, "l2 must be finite"),
        ({"l2": _ones(4)}, ValueError, r"l2 is stacked \(4,\)"),
        ({"rng": -1}, ValueError, "rng must be an integer of at least 0"),
        ({"rng": _ones(3, 1, 1, dtype=int)}, ValueError, r"rng has shape \(3, 1, 1\).*\(1, 1\)"),
        ({"rng": _ones(1, dtype=int)}, ValueError, r"rng has shape \(1,\).*or \(\) for one key"),
        ({"x": [["a", "b", "c"]]}, TypeError, "x has dtype <U1"),
        ({"x": None}, TypeError, "x must be an array of numbers, not NoneType"),
        ({"y": [["no", "yes"], ["yes", "no"]]}, TypeError, "y has dtype.*numpy.unique"),
        ({"theta": [0.0] * 26}, TypeError, "theta must be an array"),
        ({"theta": None}, TypeError, "theta must be an array"),
        ({"theta": _ones(26, dtype=int)}, TypeError, "theta is .*int64, but a floating dtype is"),
        ({"l2": "0.1"}, TypeError, "l2 must be a number"),
        ({"l2": True}, TypeError, "l2 must be a number"),
        ({"l2": [0.1]}, TypeError, r"l2 must be a number, not \[0\.1\].*array \(\*stack,\)"),
        ({"rng": 1.5}, TypeError, "rng must be an integer"),
        ({"rng": True}, TypeError, "rng must be an integer"),
        ({"rng": _ones(1, 1)}, TypeError, "rng must be an int or an array of integers"),
        pytest.param(
            {"x": _ones(2, 3, dtype=complex)},
            TypeError,
            "x is .*complex128, but theta is .*float64.*real part",
            marks=pytest.mark.float64,
        ),
    ],
)
def test_an_invalid_argument_is_an_error_that_names_it(
    xp: Any, given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _call(xp, given)


def test_predictions_of_no_rows_are_an_error_about_the_rows(xp: Any) -> None:
    with pytest.raises(ValueError, match=r"x has no rows \(shape \(0, 3\)\)"):
        CLASSIFIER.predict(xp.initialize(CLASSIFIER), xp.asarray(_ones(0, N_IN)))


def _call(xp: Any, given: dict[str, Any]) -> None:
    """Call a classifier's gradient with some arguments replaced; arrays move to the device."""
    moved = {
        name: xp.asarray(value, dtype=_dtype_there(value)) if type(value) is np.ndarray else value
        for name, value in given.items()
    }
    arguments = {"theta": xp.initialize(CLASSIFIER), "x": X, "y": Y, **moved}
    data = [arguments.pop(name) for name in ("theta", "x", "y")]
    CLASSIFIER.loss_and_gradient(*data, **arguments)


def _dtype_there(value: np.ndarray) -> str:
    return "working" if value.dtype == np.float64 else value.dtype.name


@pytest.mark.float64
@pytest.mark.parametrize("name", ["x", "y", "sample_weight", "l2"])
def test_two_floating_precisions_together_are_an_error(xp: Any, name: str) -> None:
    values = {"x": X, "y": Y, "sample_weight": [1.0, 1.0], "l2": 0.1}
    narrow = xp.asarray(values[name], dtype="float32")
    message = rf"{name} is .*float32, but theta is .*float64.*bx\.asarray"
    with pytest.raises(TypeError, match=message):
        _call(xp, {name: narrow})


def _calls(kind: Any) -> dict[str, Callable[[], Any]]:
    """Return calls whose floating arrays all have one precision, on NumPy."""
    theta, x, y = (np.ones(shape, kind) for shape in (CLASSIFIER.size, (2, N_IN), (2, N_OUT)))
    parameters = CLASSIFIER.unpack(np.ones(CLASSIFIER.size))
    cast = [tuple(value.astype(kind) for value in layer) for layer in parameters]
    return {
        "forward": lambda: CLASSIFIER.forward(theta, x),
        "predict": lambda: CLASSIFIER.predict(theta, x),
        "loss": lambda: CLASSIFIER.loss(theta, x, y),
        "loss_and_gradient": lambda: CLASSIFIER.loss_and_gradient(theta, x, y),
        "vjp": lambda: CLASSIFIER.vjp(theta, x, y),
        "unpack": lambda: CLASSIFIER.unpack(theta),
        "pack": lambda: CLASSIFIER.pack(cast),
        "weight_mask": lambda: CLASSIFIER.weight_mask(theta),
        "mask": lambda: CLASSIFIER.mask(theta, layers=[0]),
        "train": lambda: bx.train(CLASSIFIER, theta, x, y, optimizer=bx.SGD(0.1), epochs=1),
        "SGD": lambda: bx.SGD(0.1).initialize(theta),
        "RMSProp": lambda: bx.RMSProp().initialize(theta),
        "Adam": lambda: bx.Adam().initialize(theta),
        "AdamW": lambda: bx.AdamW().initialize(theta),
        "Adagrad": lambda: bx.Adagrad().initialize(theta),
        "Nadam": lambda: bx.Nadam().initialize(theta),
        "Lion": lambda: bx.Lion().initialize(theta),
        "standardize": lambda: bx.data.standardize(x),
        "check_network": lambda: bx.check_network(CLASSIFIER, theta, x, y),
        "check_layer": lambda: bx.check_layer(bx.Dense(N_IN, 2), x),
        "check_loss": lambda: bx.check_loss("huber", y, 0 * y),
    }


@pytest.mark.parametrize("kind", [np.float16, np.longdouble])
@pytest.mark.parametrize("entrance", _calls(np.float64))
def test_other_precisions_than_float32_and_float64_are_an_error_everywhere(
    nothing_chosen: None, entrance: str, kind: Any
) -> None:
    for dtype in (np.float32, np.float64):
        _calls(dtype)[entrance]()
    with pytest.raises(
        TypeError,
        match=rf"{np.dtype(kind)}.*but a floating dtype is expected, float32 or float64\. Cast"
        r" it: .*bx\.asarray\(.*, dtype='float64'\)\.$",
    ):
        _calls(kind)[entrance]()


@pytest.mark.parametrize("name", ["x", "y", "sample_weight", "rng"])
def test_an_array_of_another_library_is_an_error_with_the_call_that_moves_it(
    xp: Any, name: str
) -> None:
    other = "array-api-strict" if xp.name == "numpy" else "numpy"
    if other != "numpy":
        pytest.importorskip("array_api_strict")
    values = {"x": X, "y": Y, "sample_weight": [1.0, 1.0], "rng": [[3]]}
    dtype = "int64" if name == "rng" else "float64"
    foreign = bx.asarray(values[name], backend=other, dtype=dtype)
    given = {"x": X, "y": Y, name: foreign}
    with pytest.raises(ValueError, match=rf"{name} is .*, but theta is .*{name} = bx\.asarray"):
        CLASSIFIER.loss(xp.initialize(CLASSIFIER), **given)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_an_array_on_another_device_is_an_error_with_a_call_that_moves_it(name: str) -> None:
    pytest.importorskip("array_api_strict")
    theta = CLASSIFIER.initialize(backend="array-api-strict", device="device1")
    given: dict[str, Any] = {"x": X, "y": Y, "sample_weight": [1.0, 1.0]}
    given[name] = away = bx.asarray(given[name], backend="array-api-strict", device="CPU_DEVICE")
    message = rf"^{name} is .*CPU_DEVICE.*device1.*Move it: {name} = bx\.asarray"
    with pytest.raises(ValueError, match=message) as caught:
        CLASSIFIER.loss(theta, **given)
    call = str(caught.value).partition(f"Move it: {name} = ")[2].removesuffix(".")
    given[name] = eval(call, {"bx": bx, name: away})  # noqa: S307 -- our own message
    assert CLASSIFIER.loss(theta, **given).shape == ()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda xp, theta: CLASSIFIER.vjp(theta, X, xp.asarray(_ones(2, 3))), ValueError,
         r"g has shape \(2, 3\)"),
        (lambda xp, theta: CLASSIFIER.vjp(theta, X, xp.asarray(_ones(4, 2, 2))), ValueError,
         r"g is stacked \(4,\)"),
        (lambda xp, theta: CLASSIFIER.vjp(theta, X, xp.asarray(Y, dtype="float32")), TypeError,
         r"g is .*float32"),
        (lambda xp, theta: CLASSIFIER.forward(theta[None, :], xp.asarray(_ones(3, 2, N_IN))),
         ValueError, r"x is stacked \(3,\), but theta is stacked \(1,\)"),
        (lambda xp, theta: CLASSIFIER.predict(theta, X, batch_size=0), ValueError,
         "batch_size must be an integer of at least 1"),
        (lambda xp, theta: CLASSIFIER.predict(theta, X, batch_size=2.0), TypeError,
         "batch_size must be an integer of at least 1"),
        (lambda xp, theta: CLASSIFIER.pack(3), TypeError, "parameters must be a sequence"),
        (lambda xp, theta: CLASSIFIER.pack(CLASSIFIER.unpack(theta)[:1]), ValueError,
         r"parameters .*\[2, 2\] arrays, not \[2\]"),
        (lambda xp, theta: CLASSIFIER.pack([layer[::-1] for layer in CLASSIFIER.unpack(theta)]),
         ValueError, r"parameters\[0\]\[0\] \(weights\) has shape \(1, 4\)"),
        (lambda xp, theta: CLASSIFIER.pack(_one_narrow(xp, CLASSIFIER.unpack(theta))), TypeError,
         r"parameters\[0\]\[1\] \(bias\) is .*float32"),
    ],
)  # fmt: skip
@pytest.mark.float64
def test_an_invalid_argument_of_a_method_is_an_error_that_names_it(
    xp: Any, call: Callable[..., Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(xp, xp.initialize(CLASSIFIER))


def _one_narrow(xp: Any, parameters: list[Any]) -> list[Any]:
    (weights, bias), last = parameters
    return [(weights, xp.asarray(xp.host(bias), dtype="float32")), last]


DENSE = bx.Dense(2, 2)


def _layers(*layers: Any) -> bx.Network:
    return bx.Network(layers, "mean_squared_error")


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bx.mlp([0, 1]), ValueError, r"sizes\[0\] must be an integer of at least 1, not 0"),
    (lambda: bx.mlp([2, -1, 1]), ValueError, r"sizes\[1\] must be an integer of .* 1, not -1"),
    (lambda: bx.mlp([2, 2.5]), TypeError, r"sizes\[1\] must be an integer of at least 1, not 2.5"),
    (lambda: bx.mlp([2]), ValueError, "sizes needs at least inputs and outputs"),
    (lambda: bx.mlp(2), TypeError, "sizes"),
    (
        lambda: bx.mlp([2, 1], hidden="rellu"),
        ValueError,
        "hidden 'rellu' is .* Did you mean 'relu'",
    ),
    (
        lambda: bx.mlp([2, 1], output="sofmax"),
        ValueError,
        "'sofmax' is unknown. Did you mean 'soft",
    ),
    (lambda: bx.mlp([2, 1], loss="mean_square_error"), ValueError, "loss .*'mean_squared_error'"),
    (lambda: bx.mlp([2, 1], initializer="he"), ValueError, "initializer 'he' is unknown.*he_norm"),
    (lambda: bx.mlp([2, 1], loss=None), TypeError, "loss"),
    (lambda: bx.mlp([2, 1], loss=np.mean), TypeError, "loss"),
    (lambda: bx.mlp([2, 1], dropout=1.0), ValueError, "dropout must be"),
    (lambda: bx.mlp([2, 1], dropout=-0.1), ValueError, "dropout must be"),
    (lambda: bx.mlp([2, 1], dropout="0.5"), TypeError, "dropout must be"),
    (lambda: bx.mlp([2, 1], l2=-1.0), ValueError, "l2 must be >= 0"),
    (lambda: bx.mlp([2, 1], l2=float("inf")), ValueError, "l2 must be"),
    (lambda: bx.mlp([2, 1], l2="1"), TypeError, "l2 must be a number"),
    (lambda: _layers(), ValueError, "at least one layer with parameters"),
    (lambda: _layers(bx.Activate("relu")), ValueError, "at least one layer with parameters"),
    (lambda: _layers(DENSE, bx.Dense(4, 1)), ValueError, r"layer 1 \(Dense\) takes 4 features.* 2"),
    (lambda: _layers(DENSE, bx.Activate("relu"), bx.LayerNorm(3)), ValueError, "layer 2 .*takes 3"),
    (lambda: _layers(DENSE, bx.Residual(bx.Dense(3, 3))), ValueError, "layer 1 .*takes 3"),
    (
        lambda: _layers(DENSE, bx.Residual(bx.Activate("tanh")), bx.Dense(4, 1)),
        ValueError,
        "takes 4 features, but the layers before it give 2",
    ),
    (lambda: _layers(DENSE, "relu"), TypeError, r"layers\[1\] is 'relu', which is not a layer"),
    (lambda: _layers(bx.activations.relu), TypeError, r"layers\[0\].*bx\.Activate"),
    (lambda: _layers(None), TypeError, r"layers\[0\] is None"),
    (lambda: _layers(bx.Dense), TypeError, r"layers\[0\]"),
    (lambda: bx.Network(DENSE, "huber"), TypeError, "layers"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_invalid_layers_or_options_are_an_error(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"stack": 0}, ValueError, "stack must be an integer of at least 1"),
        ({"stack": (3, -1)}, ValueError, "stack must be an integer of at least 1"),
        ({"stack": (2, 2.5)}, TypeError, "stack must be"),
        ({"stack": True}, TypeError, "stack must be"),
        ({"stack": "3"}, TypeError, "stack must be"),
        ({"dtype": "int32"}, ValueError, "dtype must be a real floating one"),
        ({"dtype": "complex64"}, ValueError, "dtype must be a real floating one"),
        ({"dtype": "float23"}, ValueError, "float23.*Did you mean 'float32'"),
    ],
)
def test_an_invalid_seed_stack_or_precision_is_an_error_in_initialize(
    xp: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xp.initialize(CLASSIFIER, **options)


@pytest.mark.parametrize("stack", [(2**50,), (2**33, 2**30), (2**62, 2**62)])
def test_a_stack_beyond_the_memory_is_refused_at_once(stack: tuple[int, ...]) -> None:
    message = f"stack has {math.prod(stack):,} networks of {CLASSIFIER.size} parameters"
    with pytest.raises(MemoryError, match=message):
        CLASSIFIER.initialize(stack=stack, backend="numpy")


# The functions that training calls, and the slices for the gradient


class Faulty(Factors):
    """A layer with a failing forward or backward pass, or a gradient of another shape."""

    def __init__(self, fault: str = "") -> None:
        super().__init__()
        self.fault = fault

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        if self.fault == "forward":
            raise ArithmeticError("no luck")
        return super().forward(parameters, x, rng)

    def backward(self, *given: Any, **options: bool) -> tuple[Any, tuple[Any, ...]]:
        if self.fault == "backward":
            raise ArithmeticError("no luck")
        x_gradient, (total,) = super().backward(*given, **options)
        if self.fault == "input":
            x_gradient = x_gradient[..., :1]
        shapes = {
            "short": lambda g: (g[..., :1],),
            "turned": lambda g: (g.mT,),
            "none": lambda g: (),
        }
        return x_gradient, shapes.get(self.fault, lambda g: (g,))(total)


def _with_layers_of_ones_own(fault: str = "") -> bx.Network:
    network = sample_network()
    layers = [*network.layers[:2], Factors(), *network.layers[2:-1]]
    inner = bx.Residual(bx.Dropout(0.1), Faulty(fault), bx.LayerNorm(4))
    return bx.Network([*layers, inner, network.layers[-1]], "huber", l2=0.3)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("stack", "strength", "own"),
    [((), None, False), ((), 0.3, True), ((2,), "array", True), ((2, 3), "array", False)],
)
def test_a_gradient_written_into_its_slice_equals_the_joined_one(
    xp: Any, stack: tuple[int, ...], strength: Any, own: bool, dtype: str, monkeypatch: Any
) -> None:
    if xp.name == "jax":
        pytest.skip("JAX writes into no array")
    network = _with_layers_of_ones_own() if own else sample_network()
    arrays = sample_theta(network, stack), *sample_data(stack=stack)
    theta, x, y, weight = xp.put(*arrays, dtype=dtype)
    if strength == "array":
        strength = xp.asarray(np.random.default_rng(3).uniform(size=stack), dtype=dtype)
    rows = Rows(x, y, weight, as_key(RNG, theta))
    out = xp.asarray(np.full((*stack, network.size), np.nan), dtype=dtype)
    parameters, buffers = network.unpack(theta), network.unpack(out)
    chain = linked(network.layers, parameters, wants_input=False, out=buffers)
    bound = BoundNetwork(network.definition, theta, chain, out, {})
    for _ in range(2):
        value, gradient = bound.loss_and_gradient(rows, strength)
        assert gradient is out
    monkeypatch.setattr("backprop_xp.networks.derivatives.bound.blank", lambda theta: None)
    expected_value, expected = loss_and_gradient_of(network.definition, theta, rows, strength)
    xp.assert_equal(out, expected)
    xp.assert_equal(value, expected_value)
    xp.assert_equal(value, loss_of(network.definition, theta, rows, strength))


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("stack", [(5,), (3, 2)])
def test_some_members_at_a_time_give_the_loss_and_the_gradient_of_all(
    xp: Any, stack: tuple[int, ...], shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With rows, weights, keys and penalties that the members share, or of each member's own."""
    network, own = _with_layers_of_ones_own(), () if shared else stack
    theta, x, y, weight = xp.put(sample_theta(network, stack), *sample_data(stack=own))
    generator = np.random.default_rng(3)
    l2 = 0.3 if shared else xp.asarray(generator.uniform(size=stack))
    keys = np.arange(math.prod(stack)).reshape((*stack, 1, 1))
    key = as_key(RNG if shared else xp.asarray(keys, dtype="int32"), theta)
    rows = Rows(x, y, None if shared else weight, key)
    expected = loss_and_gradient_of(network.definition, theta, rows, l2)
    taken = []

    def two(theta: Any, numbers: int) -> int:
        taken.append(numbers)
        return 2

    monkeypatch.setattr("backprop_xp.networks.derivatives.bound.members_at_once", two)
    found = loss_and_gradient_of(network.definition, theta, rows, l2)
    for one, each in zip(found, expected, strict=True):
        xp.assert_close(one, each)
    # array-api-strict and JAX write into no slice: all members are computed at once.
    assert len(taken) in (0, 1 + math.ceil(stack[0] / 2))
    widest = max(one.shape[-1] for layer in network.unpack(theta) for one in layer)
    assert taken[:1] in ([], [math.prod(stack[1:]) * x.shape[-2] * widest])


@pytest.mark.once
def test_a_stack_that_leaves_the_cache_is_computed_some_members_at_a_time() -> None:
    network = bx.mlp([3, 32, 1])
    x = np.random.default_rng(0).normal(size=(1024, 3))
    for members, blocks in ((8, []), (20, [8])):  # 2**18 numbers are 8 times 32 units of 1,024 rows
        theta = network.initialize(stack=members, backend="numpy")
        bound = bind(network.definition, theta)
        loss, gradient = bound.loss_and_gradient(Rows(x, x[:, :1]), None)
        assert [*bound.blocks] == blocks
        assert loss.shape == (members,)
        alone = network.loss_and_gradient(theta[-1], x, x[:, :1])
        np.testing.assert_allclose(gradient[-1], alone[1], rtol=1e-12, atol=1e-15)


def test_a_network_with_a_random_layer_is_random_and_only_such_layers_get_a_key(xp: Any) -> None:
    dense, own, denying = bx.Dense(4, 4), Factors(), Factors()
    denying.is_random = False  # type: ignore[attr-defined]
    nested = bx.Residual(bx.Residual(bx.Dropout(0.1)))
    plain = [bx.LayerNorm(4), bx.Activate("relu"), bx.Dropout(0.0), bx.Residual(dense), denying]
    for layers, random in (
        ([own], True),
        ([nested], True),
        ([bx.Dropout(0.1)], True),
        (plain, False),
    ):
        assert bx.Network([dense, *layers], "huber").is_random == random
    network = bx.Network([dense, denying, own], "huber")
    network.forward(xp.initialize(network), xp.asarray(np.ones((2, 4))), rng=RNG)
    assert denying.keys == [None]
    assert own.keys == [fold_in(RNG, 2)]


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_an_error_names_the_layer_that_raised_it(xp: Any, method: str) -> None:
    network = _with_layers_of_ones_own(method)
    x, y = xp.put(*sample_data()[:2])
    with pytest.raises(ArithmeticError, match="no luck") as caught:
        network.loss_and_gradient(xp.initialize(network), x, y)
    places = ["layers[1] (Faulty)", "layers[6] (Residual)"]
    assert caught.value.__notes__ == [f"In {place}.{method}." for place in places]


@pytest.mark.parametrize("by_vjp", [False, True])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("short", r"a gradient of shape \(1, 1\) for 'weights', but \(1, 4\)"),
        ("turned", r"a gradient of shape \(4, 1\) for 'weights', but \(1, 4\)"),
        ("input", r"a gradient of shape \(5, 1\) for its input, but \(5, 4\)"),
        ("none", r"0 gradients, but one for each of its parameters \('weights',\)"),
    ],
)
def test_a_gradient_of_the_wrong_shape_is_an_error(
    xp: Any, fault: str, message: str, by_vjp: bool
) -> None:
    network = _with_layers_of_ones_own(fault)
    theta, x, y = xp.put(sample_theta(network), *sample_data()[:2])
    call = network.vjp if by_vjp else network.loss_and_gradient
    with pytest.raises(ValueError, match=rf"Faulty.backward returned {message}") as caught:
        call(theta, x, y)
    assert caught.value.__notes__[0] == "In layers[1] (Faulty).backward."


def test_a_gradient_that_a_layer_returns_instead_of_writing_it_is_used(xp: Any) -> None:
    class Forgetful(Factors):
        """A layer with ``writes = True`` that returns another array instead of writing."""

        writes = True

        def backward(self, *given: Any, out: Any = None, **options: bool) -> Any:
            return super().backward(*given, **options)

    dense = bx.Dense(3, 4)
    honest, other = (bx.Network([dense, own], "huber") for own in (Factors(), Forgetful()))
    theta, x, y = xp.put(sample_theta(honest), sample_data()[0], np.ones((5, 4)))
    expected = honest.loss_and_gradient(theta, x, y)[1]
    xp.assert_equal(other.loss_and_gradient(theta, x, y)[1], xp.host(expected))


def _first_squares(o: Any, t: Any) -> Any:
    return ((o - t) ** 2)[..., :1]


def _first_slopes(o: Any, t: Any) -> Any:
    return 2.0 * (o - t)[..., :1]


MSE = bx.losses.mean_squared_error


@pytest.mark.parametrize(
    ("part", "loss"),
    [
        ("value", bx.Loss(_first_squares, MSE.gradient)),
        ("gradient", bx.Loss(MSE.value, _first_slopes)),
        ("gradient", bx.losses.over_outputs(lambda o, t: ((o - t) ** 2, _first_slopes(o, t)))),
    ],
)
def test_a_result_of_the_wrong_shape_from_a_custom_loss_is_an_error(
    xp: Any, part: str, loss: bx.Loss
) -> None:
    network = bx.mlp([3, 2], loss=loss)
    given = xp.put(sample_theta(network), *sample_data()[:2])
    expected = {"value": r"\(5,\)", "gradient": r"\(5, 2\)"}[part]
    calls = [network.loss_and_gradient, *([network.loss] if part == "value" else [])]
    for call in calls:
        with pytest.raises(
            ValueError, match=rf"The {part} of Loss\(.*has shape \(5, 1\), but {expected}"
        ):
            call(*given)


def test_targets_are_checked_where_no_layer_declares_its_width(xp: Any) -> None:
    network = bx.Network([Factors()], "huber")
    theta, x, y = xp.initialize(network), *xp.put(_ones(5, 4), _ones(5, 3))
    assert network.loss(theta, x, x).shape == ()
    with pytest.raises(ValueError, match=r"y has shape \(5, 3\), but the outputs are \(..., 5, 4"):
        network.loss(theta, x, y)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_a_forgotten_theta_is_named_with_its_shape_whatever_its_dtype(dtype: str) -> None:
    network, x = bx.mlp([3, 2, 1]), np.ones((4, 3), dtype)
    expected = re.escape("theta has shape (4, 3), but this network's is (..., 11)")
    for call in (network.predict, network.loss_and_gradient):
        with pytest.raises(ValueError, match=expected):
            call(x, np.ones((4, 1)), *[x] * (call != network.predict))
    for arguments in ((x, x, np.ones((4, 1))), (x, np.ones((4, 1)))):
        with pytest.raises(ValueError, match=expected):
            bx.fit(network, *arguments, optimizer="adam", epochs=1)


def test_one_axis_of_samples_of_one_input_becomes_a_column() -> None:
    for n_in, repair in ((1, "x[:, None]"), (4, "x[None, :]")):
        network = bx.mlp([n_in, 1])
        with pytest.raises(ValueError, match=re.escape(repair)):
            network.predict(network.initialize(backend="numpy"), np.ones(4))


class _Bare(PassThrough):
    """A layer whose methods return what ``results`` has for their names, if anything."""

    def __init__(self, **results: Any) -> None:
        self.results = results

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return self.results.get("forward", lambda x: (x, None))(x)

    def backward(self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True) -> Any:
        return self.results.get("backward", lambda g: (g, ()))(g)


@pytest.mark.parametrize(
    ("name", "result", "came"),
    [
        ("forward", lambda x: x, "a ndarray"),  # of two rows, which would be unpacked
        ("forward", lambda x: (x, None, None), "a tuple of 3"),
        ("backward", lambda g: g, "a ndarray"),
    ],
)
def test_a_layer_that_returns_no_pair_is_an_error_that_says_what_is_expected(
    name: str, result: Any, came: str
) -> None:
    network = bx.Network([bx.Dense(3, 2), _Bare(**{name: result}), bx.Dense(2, 1)], "huber")
    theta = network.initialize(backend="numpy")
    with pytest.raises(TypeError, match=f"{name} returned {came}, but a tuple of two") as caught:
        network.loss_and_gradient(theta, np.ones((2, 3)), np.ones((2, 1)))
    assert f"In layers[1] (_Bare).{name}." in "".join(caught.value.__notes__)


# ---- the values of targets

REFUSED_TARGETS: list[tuple[str, int, Any, str]] = [
    ("categorical_cross_entropy", 3, [0, 3], r"y has 1 value .* not in 0 \.\.\. 2, 3 at y\[1\]"),
    ("categorical_cross_entropy", 3, [[0], [-1]], r"not in 0 \.\.\. 2, -1 at y\[1, 0\]"),
    ("categorical_cross_entropy", 3, [[0, 1, 0], [0.5, -1, 0]], r"not in \[0, inf\], -1"),
    ("binary_cross_entropy", 1, [[0], [-1]], r"not in \[0, 1\], -1 at y\[1, 0\]"),
    ("poisson", 1, [[-1.0], [2.0]], r"not in \[0, inf\], -1"),
    ("categorical_cross_entropy", 1, [[0], [1]], "has 1 output, but categorical_cross_entropy"),
]


@pytest.mark.parametrize(("loss", "n_out", "y", "message"), REFUSED_TARGETS)
def test_impossible_targets_on_the_host_are_an_error_of_a_loss(
    xp: Any, loss: str, n_out: int, y: Any, message: str
) -> None:
    network, x = bx.mlp([2, n_out], loss=loss), [[0.0, 1.0], [1.0, 1.0]]
    theta = xp.initialize(network)
    given = [y, xp.asarray(y, dtype=None)] if xp.name == "numpy" else [y]
    for targets in given:
        for method in (network.loss, network.loss_and_gradient):
            with pytest.raises(ValueError, match=message):
                method(theta, x, targets)


def test_a_loss_moves_no_targets_to_the_host_to_check_them(xp: Any) -> None:
    network, x = bx.mlp([2, 3], loss="categorical_cross_entropy"), xp.asarray([[0.0, 1.0]] * 2)
    theta, labels = xp.initialize(network), xp.asarray([0, 7], dtype="int32")
    if xp.name == "numpy":
        pytest.skip("NumPy's arrays are on the host")
    with bx.transfer_guard("disallow"):
        loss = network.loss(theta, x, labels)
    # A label of no class adds nothing.
    xp.assert_close(loss, 0.5 * xp.host(network.loss(theta, x[:1, :], labels[:1])))
