"""Networks: the layout of theta, losses and gradients, stacks, and what is refused."""

import functools
import pickle
import tracemalloc
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.backends import array_namespace
from backprop_xp.initializers import INITIALIZERS
from backprop_xp.inputs import Rows
from backprop_xp.losses import LOSSES
from backprop_xp.objective import Views, loss_and_gradient_of, loss_of
from backprop_xp.random import as_key, fold_in

# A function and its exact derivative differ by a few roundings, 2e-16 each.
ROUNDING = 1e-13
# A stack's products may be summed in another order than one network's: some more roundings.
STACK_ROUNDING = 1e-12
# float32 keeps 24 bits, 6e-8; a few roundings of those.
FLOAT32_ROUNDING = 1e-6
# Too small to round the real part, and its square underflows to exactly 0.
IMAGINARY_STEP = 1e-100

N_IN, N_OUT, BATCH = 3, 2, 5
RNG = 17
LINKED = {"binary_cross_entropy": "sigmoid", "categorical_cross_entropy": "softmax"}


def _network(
    hidden: str = "tanh", output: str = "identity", loss: str = "mean_squared_error"
) -> bx.Network:
    """Return a network with a layer of every kind and a penalty."""
    residual = bx.Residual(bx.Dense(4, 3, hidden), bx.Dropout(0.3), bx.Dense(3, 4))
    layers = [
        bx.Dense(N_IN, 4),
        bx.LayerNorm(4),
        bx.Activate(hidden),
        bx.Dropout(0.4),
        residual,
        bx.Dense(4, N_OUT, output),
    ]
    return bx.Network(layers, loss, l2=0.3)


def _theta(network: bx.Network, stack: tuple[int, ...] = ()) -> np.ndarray:
    """Return a theta in which no bias is 0 and no scale 1, where a wrong rule could hide."""
    return np.random.default_rng(20).normal(0.0, 0.7, (*stack, network.size))


def _data(loss: str = "", stack: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y and sample_weight; y holds probabilities, so that it suits every loss."""
    generator = np.random.default_rng(21)
    x = generator.normal(size=(*stack, BATCH, N_IN))
    y = generator.dirichlet(np.ones(N_OUT), (*stack, BATCH))
    if loss == "huber":
        y = y * 4.0 - 2.0  # residuals on either side of delta
    return x, y, generator.uniform(0.5, 2.0, (*stack, BATCH))


def _close(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Hold the largest difference within ``tolerance`` of the largest value."""
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=tolerance * float(np.max(np.abs(expected)))
    )


@pytest.mark.float64
@pytest.mark.usefixtures("full_precision")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("hidden", ACTIVATIONS)
def test_the_gradient_agrees_with_the_complex_step(xp: Any, hidden: str, loss: str) -> None:
    output = "identity" if loss in LINKED and hidden in LINKED.values() else hidden
    network = _network(hidden, output, loss)
    theta = _theta(network)
    x, y, weight = (xp.asarray(array) for array in _data(loss))
    copies = theta + 1j * IMAGINARY_STEP * np.eye(theta.size)
    values = network.loss(
        xp.asarray(copies, dtype="complex128"), x, y, sample_weight=weight, rng=RNG
    )
    value, gradient = network.loss_and_gradient(
        xp.asarray(theta), x, y, sample_weight=weight, rng=RNG
    )
    _close(xp.host(gradient), xp.host(values).imag / IMAGINARY_STEP, ROUNDING)
    np.testing.assert_allclose(float(xp.host(value)), xp.host(values).real, rtol=ROUNDING)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_that_comes_with_the_gradient_is_the_loss(xp: Any, loss: str) -> None:
    network = _network(loss=loss)
    theta = xp.asarray(_theta(network))
    x, y, weight = (xp.asarray(array) for array in _data(loss))
    value, _ = network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=RNG)
    alone = network.loss(theta, x, y, sample_weight=weight, rng=RNG)
    assert np.array_equal(xp.host(value), xp.host(alone))


def test_the_gradient_is_the_vjp_of_the_losss_gradient(xp: Any) -> None:
    network = _network(loss="poisson")
    theta = xp.asarray(_theta(network))
    x, y, _ = (xp.asarray(array) for array in _data())
    outputs = network.forward(theta, x, rng=RNG)
    g = network.loss_function.gradient(outputs, y) / BATCH
    theta_gradient, x_gradient = network.vjp(theta, x, g, rng=RNG)
    _, expected = network.loss_and_gradient(theta, x, y, rng=RNG, l2=0.0)
    _close(xp.host(theta_gradient), xp.host(expected), xp.rounding(ROUNDING))
    assert x_gradient.shape == x.shape


@pytest.mark.float64
@pytest.mark.usefixtures("full_precision")
def test_the_inputs_gradient_agrees_with_the_complex_step(xp: Any) -> None:
    network = _network()
    theta, (x, g, _) = _theta(network), _data()
    copies = x + 1j * IMAGINARY_STEP * np.eye(x.size).reshape(-1, *x.shape)
    thetas = np.tile(theta, (x.size, 1)).astype(complex)
    outputs = network.forward(
        xp.asarray(thetas, dtype="complex128"), xp.asarray(copies, dtype="complex128"), rng=RNG
    )
    expected = np.sum(g * xp.host(outputs).imag, axis=(1, 2)).reshape(x.shape) / IMAGINARY_STEP
    _, actual = network.vjp(xp.asarray(theta), xp.asarray(x), xp.asarray(g), rng=RNG)
    _close(xp.host(actual), expected, ROUNDING)


def test_the_loss_is_the_weighted_mean_over_the_samples(xp: Any) -> None:
    network = bx.mlp([N_IN, N_OUT], loss="log_cosh")
    theta = xp.asarray(_theta(network))
    x, y, weight = _data()
    each = [
        float(xp.host(network.loss(theta, xp.asarray(x[i : i + 1]), xp.asarray(y[i : i + 1]))))
        for i in range(BATCH)
    ]
    value = network.loss(theta, xp.asarray(x), xp.asarray(y), sample_weight=xp.asarray(weight))
    assert float(xp.host(value)) == pytest.approx(
        np.average(each, weights=weight), rel=xp.rounding(ROUNDING)
    )
    value = network.loss(theta, xp.asarray(x), xp.asarray(y))
    assert float(xp.host(value)) == pytest.approx(np.mean(each), rel=xp.rounding(ROUNDING))


def test_a_sample_of_weight_2_counts_as_two_and_one_of_weight_0_as_none(xp: Any) -> None:
    network = bx.mlp([N_IN, 4, N_OUT], hidden="tanh", l2=0.1)
    theta = xp.asarray(_theta(network))
    x, y, _ = _data()
    rows = [0, 1, 1, 3, 4]
    weighted = network.loss_and_gradient(
        theta, xp.asarray(x), xp.asarray(y), sample_weight=[1, 2, 0, 1, 1]
    )
    repeated = network.loss_and_gradient(theta, xp.asarray(x[rows]), xp.asarray(y[rows]))
    for one, other in zip(weighted, repeated, strict=True):
        _close(xp.host(one), xp.host(other), xp.rounding(ROUNDING))


def test_a_batch_whose_weights_are_all_0_leaves_the_penalty_alone(xp: Any) -> None:
    network = bx.mlp([N_IN, N_OUT], l2=0.5)
    theta = _theta(network)
    x, y, _ = _data()
    value, gradient = network.loss_and_gradient(
        xp.asarray(theta), xp.asarray(x), xp.asarray(y), sample_weight=[0] * BATCH
    )
    weights = theta * xp.host(network.weight_mask(xp.asarray(theta)))
    assert float(xp.host(value)) == pytest.approx(
        0.25 * np.sum(weights**2), rel=xp.rounding(ROUNDING)
    )
    _close(xp.host(gradient), 0.5 * weights, xp.rounding(ROUNDING))


def test_the_penalty_is_half_l2_times_the_squares_of_the_weights_alone(xp: Any) -> None:
    network = _network()
    theta = _theta(network)
    x, y, weight = (xp.asarray(array) for array in _data())
    loss = functools.partial(network.loss, xp.asarray(theta), x, y, sample_weight=weight)
    mask = xp.host(network.weight_mask(xp.asarray(theta)))
    penalty = 0.5 * float(np.sum((mask * theta) ** 2))
    without = float(xp.host(loss(l2=0.0)))
    assert float(xp.host(loss())) == pytest.approx(
        without + 0.3 * penalty, rel=xp.rounding(ROUNDING)
    )
    assert float(xp.host(loss(l2=2))) == pytest.approx(
        without + 2 * penalty, rel=xp.rounding(ROUNDING)
    )


@pytest.mark.parametrize("l2", [np.float64(0.5), np.int64(2), 2])
def test_l2_may_be_any_kind_of_number(xp: Any, l2: Any) -> None:
    network = bx.mlp([N_IN, N_OUT])
    theta = xp.asarray(_theta(network))
    x, y, _ = (xp.asarray(array) for array in _data())
    given, expected = (network.loss(theta, x, y, l2=value) for value in (l2, float(l2)))
    assert float(xp.host(given)) == pytest.approx(
        float(xp.host(expected)), rel=xp.rounding(ROUNDING)
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_a_prediction_is_the_link_of_the_outputs(xp: Any, loss: str) -> None:
    network = _network(loss=loss)
    theta, x = xp.asarray(_theta(network)), xp.asarray(_data()[0])
    expected = LOSSES[loss].link(network.forward(theta, x))
    assert np.array_equal(xp.host(network.predict(theta, x)), xp.host(expected))


@pytest.mark.parametrize("batch_size", [None, 1, 2, BATCH, 100, np.int64(3)])
@pytest.mark.parametrize("data", ["shared", "stacked"])
@pytest.mark.parametrize("stack", [(), (2, 3)])
def test_a_prediction_is_the_same_in_batches_of_any_size(
    xp: Any, stack: tuple[int, ...], data: str, batch_size: int | None
) -> None:
    network = _network(loss="poisson")
    theta = xp.asarray(_theta(network, stack))
    x, _, _ = _data(stack=stack if data == "stacked" else ())
    whole = network.loss_function.link(network.forward(theta, xp.asarray(x)))
    predictions = network.predict(theta, xp.asarray(x), batch_size=batch_size)
    _close(xp.host(predictions), xp.host(whole), xp.rounding(STACK_ROUNDING))


@pytest.mark.parametrize("stack", [(), (2, 2)])
def test_a_prediction_of_many_rows_goes_by_so_many_that_memory_is_bounded(
    stack: tuple[int, ...],
) -> None:
    seen = []

    class Counting(bx.Dropout):
        def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
            seen.append(x.shape[-2])
            return super().forward(parameters, x, rng)

    network = bx.Network([bx.Dense(1, 2), Counting(0.5)], "huber")
    theta, x = network.initialize(stack=stack, backend="numpy"), np.ones((2**12 + 5, 1))
    assert network.predict(theta, x).shape == (*stack, 2**12 + 5, 2)
    full, rest = divmod(2**12 + 5, 2**12 // (4 if stack else 1))
    assert seen == [2**12 // (4 if stack else 1)] * full + [rest]


def test_a_prediction_holds_one_layers_arrays_of_some_rows_at_a_time() -> None:
    network = bx.mlp([2, 500, 500, 500, 1])
    theta, x = network.initialize(backend="numpy"), np.ones((20_000, 2))
    size, rows = 500 * 8, 1000
    peaks = {}
    for name, use in {
        "predict": lambda: network.predict(theta, x, batch_size=rows),
        "forward": lambda: network.forward(theta, x[:rows, :]),
        "loss": lambda: network.loss(theta, x[:rows, :], x[:rows, :1]),
        "gradient": lambda: network.loss_and_gradient(theta, x[:rows, :], x[:rows, :1]),
    }.items():
        tracemalloc.start()
        use()
        peaks[name] = tracemalloc.get_traced_memory()[1] / (rows * size)
        tracemalloc.stop()
    # A layer's input, its pre-activation and what its activation makes, in layers of 500 units.
    assert max(peaks["predict"], peaks["forward"], peaks["loss"]) < 3.5, peaks
    assert peaks["gradient"] > 3.5, peaks


@pytest.mark.parametrize(("batch_size", "error"), [(0, ValueError), (2.0, TypeError)])
def test_predict_refuses_what_is_no_number_of_rows(batch_size: Any, error: type[Exception]) -> None:
    theta = CLASSIFIER.initialize(backend="numpy")
    with pytest.raises(error, match="batch_size must be an integer of at least 1"):
        CLASSIFIER.predict(theta, X, batch_size=batch_size)


def test_inference_uses_no_dropout_and_training_does(xp: Any) -> None:
    network = bx.mlp([N_IN, 8, N_OUT], hidden="tanh", dropout=0.5)
    plain = bx.mlp([N_IN, 8, N_OUT], hidden="tanh")
    theta, x = xp.asarray(_theta(plain)), xp.asarray(_data()[0])
    inference = xp.host(network.forward(theta, x))
    assert np.array_equal(inference, xp.host(plain.forward(theta, x)))
    trained = [xp.host(network.forward(theta, x, rng=rng)) for rng in (1, 1, 2)]
    assert np.array_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], trained[2])
    assert not np.array_equal(trained[0], inference)


def test_a_key_counts_by_its_lowest_31_bits(xp: Any) -> None:
    network = _network()
    theta, x = xp.asarray(_theta(network)), xp.asarray(_data()[0])
    ints = [5, 5 + 2**31, 5 + 2**40, np.int64(5)]
    arrays = [xp.asarray([[key]], dtype="int64") for key in (5, 5 + 2**31)]
    outputs = [xp.host(network.forward(theta, x, rng=rng)) for rng in [*ints, *arrays]]
    assert all(np.array_equal(other, outputs[0]) for other in outputs)


def _rng(xp: Any, kind: str, stack: tuple[int, ...]) -> tuple[Any, Callable[[Any], Any]]:
    """Return a stack's rng, and a function from a member's index to that member's own."""
    if kind == "none":
        return None, lambda i: None
    if kind == "int":
        return RNG, lambda i: RNG
    keys = np.random.default_rng(22).integers(0, 2**31, (*stack, 1, 1))
    return xp.asarray(keys, dtype="int64"), lambda i: int(keys[i][0, 0])


@pytest.mark.parametrize("rng", ["none", "int", "array"])
@pytest.mark.parametrize("data", ["shared", "stacked"])
@pytest.mark.parametrize("stack", [(), (4,), (2, 3)])
def test_a_stack_matches_its_networks_one_by_one(
    xp: Any, stack: tuple[int, ...], data: str, rng: str
) -> None:
    network = _network()
    theta = _theta(network, stack)
    own = stack if data == "stacked" else ()
    x, y, weight = _data(stack=own)
    l2 = np.random.default_rng(23).uniform(0.1, 1.0, own)
    key, key_of = _rng(xp, rng, stack)

    def results(theta: Any, x: Any, y: Any, weight: Any, l2: Any, rng: Any) -> list[np.ndarray]:
        theta, x, y, weight = (xp.asarray(array) for array in (theta, x, y, weight))
        options = {"sample_weight": weight, "rng": rng, "l2": l2}
        arrays = [
            network.forward(theta, x, rng=rng),
            network.loss(theta, x, y, **options),
            *network.loss_and_gradient(theta, x, y, **options),
            *network.vjp(theta, x, y, rng=rng),
        ]
        return [xp.host(array) for array in arrays]

    stacked = results(theta, x, y, weight, xp.asarray(l2) if own else float(l2), key)
    assert [array.shape for array in stacked] == [
        (*stack, BATCH, N_OUT),
        stack,
        stack,
        (*stack, network.size),
        (*stack, network.size),
        (*stack, BATCH, N_IN),
    ]
    for i in np.ndindex(stack):
        mine = i if own else ()
        alone = results(theta[i], x[mine], y[mine], weight[mine], float(l2[mine]), key_of(i))
        for one, other in zip(stacked, alone, strict=True):
            _close(one[i], other, xp.rounding(STACK_ROUNDING))


def test_one_key_gives_every_member_of_a_stack_the_same_mask(xp: Any) -> None:
    network = _network()
    theta = xp.asarray(np.tile(_theta(network), (4, 1)))
    outputs = xp.host(network.forward(theta, xp.asarray(_data()[0]), rng=RNG))
    _close(outputs[1:], np.stack([outputs[0]] * 3), xp.rounding(STACK_ROUNDING))


def test_an_array_of_keys_gives_every_member_a_mask_of_its_own(xp: Any) -> None:
    network = _network()
    theta = xp.asarray(np.tile(_theta(network), (4, 1)))
    keys = xp.asarray(np.asarray([1, 2, 1, 3]).reshape(4, 1, 1), dtype="int32")
    outputs = xp.host(network.forward(theta, xp.asarray(_data()[0]), rng=keys))
    _close(outputs[2], outputs[0], xp.rounding(STACK_ROUNDING))
    assert not np.allclose(outputs[1], outputs[0])
    assert not np.allclose(outputs[3], outputs[0])


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_a_poisoned_member_leaves_the_others_as_they_were(xp: Any, poison: float) -> None:
    network = _network()
    theta = _theta(network, (4,))
    poisoned = theta.copy()
    poisoned[1] = poison
    x, y, weight = (xp.asarray(array) for array in _data())

    def results(theta: np.ndarray) -> list[np.ndarray]:
        with np.errstate(invalid="ignore"):
            value, gradient = network.loss_and_gradient(
                xp.asarray(theta), x, y, sample_weight=weight, rng=RNG
            )
            pair = network.vjp(xp.asarray(theta), x, y, rng=RNG)
        return [xp.host(array) for array in (value, gradient, *pair)]

    for healthy, sick in zip(results(theta), results(poisoned), strict=True):
        assert not np.all(np.isfinite(sick[1]))
        assert np.array_equal(sick[[0, 2, 3]], healthy[[0, 2, 3]])


@pytest.mark.parametrize("loss", LOSSES)
def test_float32_stays_float32(xp: Any, loss: str) -> None:
    network = _network(loss=loss)
    theta = _theta(network)
    x, y, weight = _data(loss)
    narrow = [xp.asarray(array, dtype="float32") for array in (theta, x, y, weight)]
    wide = [xp.asarray(array) for array in (theta, x, y, weight)]

    def results(theta: Any, x: Any, y: Any, weight: Any) -> list[Any]:
        options = {"sample_weight": weight, "rng": RNG, "l2": 0.1}
        return [
            network.forward(theta, x, rng=RNG),
            network.predict(theta, x),
            network.loss(theta, x, y, **options),
            *network.loss_and_gradient(theta, x, y, **options),
            *network.vjp(theta, x, y, rng=RNG),
            network.weight_mask(theta),
        ]

    for single, double in zip(results(*narrow), results(*wide), strict=True):
        assert single.dtype == xp.namespace.float32
        # A dozen layers' roundings add up.
        _close(xp.host(single), xp.host(double).astype(np.float32), 30 * FLOAT32_ROUNDING)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_of_10_000_give_finite_losses_and_gradients_in_float32(xp: Any, loss: str) -> None:
    above = 80.0 if loss == "poisson" else 1e4  # a rate above exp(88) is no float32
    network = bx.mlp([1, 2], loss=loss)
    theta = xp.asarray([above, -1e4, 0.0, 0.0], dtype="float32")
    for x, y in [([[1]], [[0, 1]]), ([[1]], [[1, 0]]), ([[1], [0]], [[0, 1], [1, 0]])]:
        value, gradient = network.loss_and_gradient(theta, x, y)
        assert np.isfinite(float(xp.host(value)))
        assert np.all(np.isfinite(xp.host(gradient)))


def test_integers_booleans_and_lists_are_taken_as_numbers_of_thetas_precision(xp: Any) -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh", loss="binary_cross_entropy")
    theta = xp.asarray(_theta(network), dtype="float32")
    x, y, weight = [[0, 1], [1, 1], [1, 0]], [[True], [False], [True]], [1, 2, 1]
    floats = [xp.asarray(array, dtype="float32") for array in (x, y, weight)]
    integers = [xp.asarray(array, dtype=dtype) for array, dtype in ((x, "int64"), (y, "bool"))]
    expected = network.loss_and_gradient(theta, *floats[:2], sample_weight=floats[2])
    for given in [(x, y), integers, (integers[0], y), (x, floats[1])]:
        actual = network.loss_and_gradient(theta, *given, sample_weight=weight)
        for one, other in zip(actual, expected, strict=True):
            assert one.dtype == xp.namespace.float32
            assert np.array_equal(xp.host(one), xp.host(other))


def test_a_vjp_takes_lists_and_integers(xp: Any) -> None:
    network = bx.mlp([2, 1])
    theta = xp.asarray([1.0, 2.0, 3.0])
    gradient, x_gradient = network.vjp(theta, [[4, 5]], [[10]])
    assert xp.host(gradient).tolist() == [40.0, 50.0, 10.0]
    assert xp.host(x_gradient).tolist() == [[10.0, 20.0]]


def test_theta_is_layer_by_layer_in_c_order_with_the_weights_before_the_bias(xp: Any) -> None:
    network = _network()
    theta = np.arange(float(network.size))
    dense, norm, activate, dropout, residual, last = network.unpack(xp.asarray(theta))
    found = [*dense, *norm, *activate, *dropout, *residual, *last]
    shapes = [(3, 4), (1, 4), (1, 4), (1, 4), (4, 3), (1, 3), (3, 4), (1, 4), (4, 2), (1, 2)]
    assert (len(activate), len(dropout), len(residual)) == (0, 0, 4)
    assert [value.shape for value in found] == shapes
    assert network.size == sum(int(np.prod(shape)) for shape in shapes)
    flat = np.concatenate([xp.host(value).ravel(order="C") for value in found])
    assert np.array_equal(flat, theta)


@pytest.mark.parametrize("stack", [(), (4,), (2, 3)])
def test_pack_is_the_inverse_of_unpack(xp: Any, stack: tuple[int, ...]) -> None:
    network = _network()
    theta = _theta(network, stack)
    parameters = network.unpack(xp.asarray(theta))
    assert parameters[0][0].shape == (*stack, N_IN, 4)
    assert parameters[0][1].shape == (*stack, 1, 4)
    assert np.array_equal(xp.host(network.pack(parameters)), theta.astype(xp.dtype))


def test_unpack_gives_views_on_numpy() -> None:
    network = _network()
    theta = _theta(network, (2,))
    parameters = network.unpack(theta)
    assert all(np.shares_memory(value, theta) for layer in parameters for value in layer)
    parameters[0][0][1, 0, 2] = 99.0
    assert theta[1, 2] == 99.0


def test_the_weight_mask_is_1_on_weights_and_0_on_biases_and_norms(xp: Any) -> None:
    network = _network()
    theta = xp.asarray(_theta(network, (3,)), dtype="float32")
    mask = network.weight_mask(theta)
    assert mask.shape == (network.size,)
    assert mask.dtype == theta.dtype
    counts = [12, 4, 4, 4, 12, 3, 12, 4, 8, 2]
    expected = np.repeat([1, 0, 0, 0, 1, 0, 1, 0, 1, 0], counts)
    assert np.array_equal(xp.host(mask), expected)


def test_describe_is_a_table_of_layers_shapes_and_parameters() -> None:
    lines = _network().describe().splitlines()
    assert lines[0].split() == ["layer", "kind", "parameters", "numbers"]
    assert [line.split()[1] for line in lines[1:-1]] == [
        "Dense",
        "LayerNorm",
        "Activate",
        "Dropout",
        "Residual",
        "Dense",
    ]
    assert "weights (3, 4), bias (1, 4)" in lines[1]
    assert "layers[0].weights (4, 3)" in lines[5]
    assert [int(line.split()[-1]) for line in lines[1:]] == [16, 8, 0, 0, 31, 10, 65]
    assert len({len(line) for line in lines}) == 1


def test_a_member_depends_on_the_seed_and_its_place_alone(xp: Any) -> None:
    network = _network()
    alone = xp.host(xp.initialize(network, 5))
    four = xp.host(xp.initialize(network, 5, stack=(4,)))
    six = xp.host(xp.initialize(network, 5, stack=(2, 3)))
    assert four.shape == (4, network.size)
    assert six.shape == (2, 3, network.size)
    assert np.array_equal(four[0], alone)
    assert np.array_equal(six.reshape(6, -1)[:4], four)
    assert len(np.unique(six.reshape(6, -1), axis=0)) == 6
    assert not np.array_equal(xp.host(xp.initialize(network, 6)), alone)


def test_a_stack_may_be_given_as_a_number(xp: Any) -> None:
    network = bx.mlp([2, 1])
    expected = xp.host(xp.initialize(network, stack=(3,)))
    for stack in (3, np.int64(3), [3]):
        assert np.array_equal(xp.host(xp.initialize(network, stack=stack)), expected)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_seed_gives_the_same_theta_as_on_numpy_bit_for_bit(xp: Any, dtype: str) -> None:
    network = _network()
    theta = xp.host(xp.initialize(network, 5, stack=(2,), dtype=dtype))
    reference = network.initialize(5, stack=(2,), backend="numpy", dtype="float64")
    assert theta.dtype == np.dtype(dtype)
    assert np.array_equal(theta, reference.astype(dtype))


def test_theta_has_the_backends_own_precision_unless_told_otherwise(xp: Any) -> None:
    theta = xp.initialize(bx.mlp([2, 1]), dtype=None)
    usual = {"numpy": "float64", "cupy": "float32", "jax": "float32", "torch": "float32"}
    if xp.name in usual:
        assert theta.dtype == getattr(xp.namespace, usual[xp.name])
    else:  # array-api-strict's depends on the device, a plug-in's is its own affair
        assert theta.dtype == xp.selection.backend.default_dtype(xp.selection.device)


def test_each_layer_draws_by_its_own_initializers(xp: Any) -> None:
    network = bx.Network(
        [
            bx.Dense(2, 3, initializer="zeros", bias_initializer="ones"),
            bx.LayerNorm(3),
            bx.Dense(3, 1, initializer=bx.initializers.uniform(5.0, 6.0)),
        ],
        "mean_squared_error",
    )
    theta = xp.host(xp.initialize(network))
    assert theta[:6].tolist() == [0.0] * 6
    assert theta[6:12].tolist() == [1.0] * 6
    assert theta[12:15].tolist() == [0.0] * 3
    assert np.all((theta[15:18] >= 5.0) & (theta[15:18] < 6.0))
    assert theta[18] == 0.0


class Shift:
    """A layer of a user's own, with what the protocol asks for and no more."""

    names = ("offsets",)
    shapes = ((1, N_IN),)

    def __init__(self) -> None:
        self.asked: list[bool] = []

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.normal(size=(1, N_IN)),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        return (x + parameters[0]) ** 2, (x, parameters[0])

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        self.asked.append(wants_input)
        x, offsets = cache
        g = 2.0 * g * (x + offsets)
        summed = array_namespace(g).sum(g, axis=-2, keepdims=True)
        return (g if wants_input else None), (summed,)


@pytest.mark.float64
@pytest.mark.usefixtures("full_precision")
def test_a_layer_of_ones_own_works_in_a_network_and_in_a_residual(xp: Any) -> None:
    layers = [Shift(), bx.Residual(Shift(), bx.Activate("tanh")), bx.Dense(N_IN, N_OUT)]
    network = bx.Network(layers, "mean_squared_error", l2=0.1)
    assert network.size == 2 * N_IN + N_IN * N_OUT + N_OUT
    assert xp.initialize(network).shape == (network.size,)
    assert "Shift" in network.describe()
    x, y, _ = (xp.asarray(array) for array in _data())
    theta = _theta(network)
    copies = theta + 1j * IMAGINARY_STEP * np.eye(theta.size)
    values = xp.host(network.loss(xp.asarray(copies, dtype="complex128"), x, y))
    _, gradient = network.loss_and_gradient(xp.asarray(theta), x, y)
    _close(xp.host(gradient), values.imag / IMAGINARY_STEP, ROUNDING)


def test_the_first_layers_input_gradient_is_computed_only_when_asked_for(xp: Any) -> None:
    first, second = Shift(), Shift()
    network = bx.Network([first, second, bx.Dense(N_IN, N_OUT)], "mean_squared_error")
    theta = xp.asarray(_theta(network))
    x, y, _ = (xp.asarray(array) for array in _data())
    network.loss_and_gradient(theta, x, y)
    assert (first.asked, second.asked) == ([False], [True])
    network.vjp(theta, x, y)
    assert (first.asked, second.asked) == ([False, True], [True, True])


def test_a_first_layer_without_parameters_is_sent_nothing_back(xp: Any) -> None:
    spy = Shift()
    layers = [bx.Activate("tanh"), bx.Dropout(0.5), bx.Residual(spy), bx.Dense(N_IN, N_OUT)]
    network = bx.Network(layers, "mean_squared_error")
    x, y, _ = (xp.asarray(array) for array in _data())
    network.loss_and_gradient(xp.asarray(_theta(network)), x, y, rng=RNG)
    assert spy.asked == [False]


def test_mlp_is_dense_layers_with_their_activations() -> None:
    assert bx.mlp([4, 3, 2, 1], hidden="tanh", output="sigmoid").layers == (
        bx.Dense(4, 3, "tanh"),
        bx.Dense(3, 2, "tanh"),
        bx.Dense(2, 1, "sigmoid"),
    )


def test_mlp_norms_then_activates_then_drops_and_leaves_the_outputs_alone() -> None:
    network = bx.mlp([4, 3, 1], dropout=0.2, layer_norm=True, l2=0.5, initializer="he_normal")
    assert network.layers == (
        bx.Dense(4, 3, initializer="he_normal"),
        bx.LayerNorm(3),
        bx.Activate("relu"),
        bx.Dropout(0.2),
        bx.Dense(3, 1, initializer="he_normal"),
    )
    assert network.l2 == 0.5
    assert network.loss_function is bx.losses.mean_squared_error


def test_names_and_objects_are_the_same_to_mlp() -> None:
    named = bx.mlp([4, 3, 1], hidden="gelu", output="tanh", loss="huber", initializer="he_normal")
    given = bx.mlp(
        [np.int64(4), 3, 1],
        hidden=bx.activations.gelu,
        output=bx.activations.tanh,
        loss=bx.losses.huber,
        initializer=bx.initializers.he_normal,
    )
    assert named == given


@pytest.mark.parametrize("initializer", [*INITIALIZERS, "uniform"])
def test_a_network_survives_pickling_as_an_equal(initializer: str) -> None:
    drawn = bx.initializers.uniform(-1.0, 1.0) if initializer == "uniform" else initializer
    network = bx.mlp(
        [3, 4, 2], dropout=0.1, layer_norm=True, loss="poisson", l2=0.1, initializer=drawn
    )
    copy = pickle.loads(pickle.dumps(network))  # noqa: S301
    assert copy.size == network.size
    assert np.array_equal(
        copy.initialize(3, backend="numpy"), network.initialize(3, backend="numpy")
    )
    assert copy == network


def test_networks_that_differ_in_anything_are_not_equal() -> None:
    networks = [
        bx.mlp([2, 3, 1]),
        bx.mlp([2, 4, 1]),
        bx.mlp([2, 3, 1], hidden="tanh"),
        bx.mlp([2, 3, 1], loss="huber"),
        bx.mlp([2, 3, 1], l2=0.1),
    ]
    assert len(set(networks)) == len(networks)
    assert bx.mlp([2, 3, 1]) == networks[0]


def test_a_network_is_immutable() -> None:
    network = bx.mlp([2, 1])
    with pytest.raises(AttributeError):
        network.l2 = 1.0  # type: ignore[misc]
    assert isinstance(network.layers, tuple)


def test_nothing_given_is_written_to(xp: Any) -> None:
    network = _network()
    arrays = [_theta(network, (4,)), *_data()]
    before = [array.copy() for array in arrays]
    for array in arrays:
        array.flags.writeable = False  # on NumPy a write is an error at once
    theta, x, y, weight = given = [xp.asarray(array) for array in arrays]
    network.predict(theta, x)
    network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=RNG)
    network.vjp(theta, x, y, rng=RNG)
    network.pack(network.unpack(theta))
    for array, copy in zip(given, before, strict=True):
        assert np.array_equal(xp.host(array), copy.astype(xp.dtype))


CLASSIFIER = bx.mlp([N_IN, 4, N_OUT], hidden="tanh", loss="categorical_cross_entropy")
X, Y = [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": _ones(2, 5)}, r"x has 5 features .* expects 3"),
        ({"x": _ones(3)}, r"x has shape \(3,\).*x\[None, :\]"),
        ({"x": 1.0}, r"x has shape \(\)"),
        ({"x": _ones(0, 3), "y": _ones(0, 2)}, "x has no rows"),
        ({"x": _ones(4, 2, 3)}, r"x is stacked \(4,\), but theta is stacked \(\)"),
        ({"x": [[0.0, 1.0, 2.0], [1.0]]}, "x is not an array of numbers"),
        ({"y": _ones(3, 2)}, r"y has shape \(3, 2\).*2, 2\)"),
        ({"y": _ones(2, 3)}, r"y has shape \(2, 3\)"),
        ({"y": [0.0, 1.0]}, r"y has shape \(2,\).*y = bx\.data\.one_hot\(y\)"),
        ({"y": [[0.0], [1.0]]}, r"y has shape \(2, 1\).*bx\.data\.one_hot\(y\[\.\.\., 0\]\)"),
        ({"y": _ones(4, 2, 2)}, r"y is stacked \(4,\)"),
        ({"sample_weight": _ones(3)}, r"sample_weight has shape \(3,\).*2 rows"),
        ({"sample_weight": 2.0}, r"sample_weight has shape \(\)"),
        ({"sample_weight": _ones(2, 1)}, r"sample_weight has shape \(2, 1\)"),
        ({"sample_weight": _ones(4, 2)}, r"sample_weight is stacked \(4,\)"),
        ({"theta": _ones(4)}, r"theta has shape \(4,\).*\(\.\.\., 26\)"),
        ({"l2": -0.1}, "l2 must be >= 0"),
        ({"l2": np.float64(-0.1)}, "l2 must be >= 0"),
        ({"l2": float("nan")}, "l2 must be finite"),
        ({"l2": float("inf")}, "l2 must be finite"),
        ({"l2": _ones(4)}, r"l2 is stacked \(4,\)"),
        ({"rng": -1}, "rng must be an integer of at least 0"),
        ({"rng": np.ones((3, 1, 1), dtype=np.int64)}, r"rng has shape \(3, 1, 1\).*\(1, 1\)"),
        ({"rng": np.ones((1,), dtype=np.int64)}, r"rng has shape \(1,\).*or \(\) for one key"),
    ],
)
def test_a_value_that_does_not_fit_is_a_value_error_that_names_the_argument(
    xp: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _call(xp, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": [["a", "b", "c"]]}, "x has dtype <U1"),
        ({"x": None}, "x must be an array of numbers, not NoneType"),
        ({"y": [["no", "yes"], ["yes", "no"]]}, "y has dtype.*numpy.unique"),
        ({"l2": "0.1"}, "l2 must be a number"),
        ({"l2": True}, "l2 must be a number"),
        ({"l2": [0.1]}, "l2 must be a number"),
        ({"rng": 1.5}, "rng must be an integer"),
        ({"rng": True}, "rng must be an integer"),
        ({"rng": "3"}, "rng must be an integer"),
        ({"rng": np.ones((1, 1))}, "rng must be an int or an array of integers"),
        pytest.param(
            {"x": np.ones((2, 3), dtype=np.complex128)},
            "x is .*complex128, but theta is .*float64",
            marks=pytest.mark.float64,
        ),
    ],
)
def test_a_thing_of_the_wrong_kind_is_a_type_error_that_names_the_argument(
    xp: Any, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        _call(xp, given)


def _dtype_there(value: np.ndarray) -> str:
    return "working" if value.dtype == np.float64 else value.dtype.name


def _call(xp: Any, given: dict[str, Any]) -> None:
    """Ask a classifier for its gradient with some arguments replaced; arrays are moved first."""
    moved = {
        name: xp.asarray(value, dtype=_dtype_there(value)) if type(value) is np.ndarray else value
        for name, value in given.items()
    }
    arguments = {"theta": xp.initialize(CLASSIFIER), "x": X, "y": Y, **moved}
    CLASSIFIER.loss_and_gradient(
        arguments.pop("theta"), arguments.pop("x"), arguments.pop("y"), **arguments
    )


@pytest.mark.float64
@pytest.mark.parametrize("name", ["x", "y", "sample_weight", "l2"])
def test_two_floating_precisions_are_never_mixed(xp: Any, name: str) -> None:
    values = {"x": X, "y": Y, "sample_weight": [1.0, 1.0], "l2": 0.1}
    narrow = xp.asarray(values[name], dtype="float32")
    with pytest.raises(
        TypeError, match=rf"{name} is .*float32, but theta is .*float64.*bx\.asarray"
    ):
        _call(xp, {name: narrow})


@pytest.mark.parametrize("theta", [[0.0] * 26, None, 3.0])
def test_a_theta_that_is_no_array_is_a_type_error(theta: Any) -> None:
    with pytest.raises(TypeError, match="theta must be an array"):
        CLASSIFIER.forward(theta, X)


def _entrances(kind: Any) -> dict[str, Callable[[], Any]]:
    """Return calls whose floating arrays are all of one precision, NumPy's."""
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
        "train": lambda: bx.train(CLASSIFIER, theta, x, y, optimizer=bx.SGD(0.1), epochs=1),
        "SGD": lambda: bx.SGD(0.1).initialize(theta),
        "RMSProp": lambda: bx.RMSProp().initialize(theta),
        "Adam": lambda: bx.Adam().initialize(theta),
        "AdamW": lambda: bx.AdamW().initialize(theta),
        "standardize": lambda: bx.data.standardize(x),
        "check_network": lambda: bx.check_network(CLASSIFIER, theta, x, y),
        "check_layer": lambda: bx.check_layer(bx.Dense(N_IN, 2), x),
        "check_loss": lambda: bx.check_loss("huber", y, 0 * y),
    }


@pytest.mark.parametrize("kind", [np.float16, np.longdouble])
@pytest.mark.parametrize("entrance", _entrances(np.float64))
def test_what_is_neither_float32_nor_float64_is_refused_everywhere(
    nothing_chosen: None, entrance: str, kind: Any
) -> None:
    for dtype in (np.float32, np.float64):
        _entrances(dtype)[entrance]()
    with pytest.raises(
        TypeError,
        match=rf"{np.dtype(kind)}.*but a floating dtype is expected, float32 or float64\. Cast"
        r" it: .*bx\.asarray\(.*, dtype='float64'\)\.$",
    ):
        _entrances(kind)[entrance]()


def test_a_theta_of_integers_is_a_type_error(xp: Any) -> None:
    with pytest.raises(TypeError, match=r"theta is .*int64, but a floating dtype is expected"):
        CLASSIFIER.forward(xp.asarray([0] * 26, dtype="int64"), X)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight", "rng"])
def test_an_array_of_another_library_than_thetas_is_refused_with_the_repairing_call(
    xp: Any, name: str
) -> None:
    other = "array-api-strict" if xp.name == "numpy" else "numpy"
    if other != "numpy":
        pytest.importorskip("array_api_strict")
    values = {"x": X, "y": Y, "sample_weight": [1.0, 1.0], "rng": [[3]]}
    dtype = "int64" if name == "rng" else "float64"
    foreign = bx.asarray(values[name], backend=other, dtype=dtype)
    options = {"sample_weight": None, "rng": None, "x": X, "y": Y, name: foreign}
    theta = xp.initialize(CLASSIFIER)
    with pytest.raises(ValueError, match=rf"{name} is .*, but theta is .*{name} = bx\.asarray"):
        CLASSIFIER.loss(theta, options.pop("x"), options.pop("y"), **options)


@pytest.mark.parametrize("name", ["x", "y", "sample_weight"])
def test_an_array_on_another_device_than_thetas_is_refused_with_the_repairing_call(
    name: str,
) -> None:
    pytest.importorskip("array_api_strict")
    theta = CLASSIFIER.initialize(backend="array-api-strict", device="device1")
    values = {"x": X, "y": Y, "sample_weight": [1.0, 1.0]}
    away = bx.asarray(values[name], backend="array-api-strict", device="CPU_DEVICE")
    options = {"sample_weight": None, "x": X, "y": Y, name: away}
    with pytest.raises(ValueError, match=rf"{name} is .*CPU_DEVICE.*device1.*bx\.asarray"):
        CLASSIFIER.loss(theta, options.pop("x"), options.pop("y"), **options)


def test_the_repairing_call_for_another_device_repairs() -> None:
    pytest.importorskip("array_api_strict")
    theta = CLASSIFIER.initialize(backend="array-api-strict", device="device1")
    x = bx.asarray(X, backend="array-api-strict", device="CPU_DEVICE")
    with pytest.raises(ValueError, match="Move it: x = ") as caught:
        CLASSIFIER.forward(theta, x)
    call = str(caught.value).partition("Move it: x = ")[2].removesuffix(".")
    moved = eval(call, {"bx": bx, "x": x})  # noqa: S307
    assert CLASSIFIER.forward(theta, moved).shape == (2, N_OUT)


@pytest.mark.float64
def test_a_vjp_refuses_a_gradient_that_does_not_fit_the_outputs(xp: Any) -> None:
    theta = xp.initialize(CLASSIFIER)
    with pytest.raises(ValueError, match=r"g has shape \(2, 3\)"):
        CLASSIFIER.vjp(theta, X, xp.asarray(_ones(2, 3)))
    with pytest.raises(ValueError, match=r"g is stacked \(4,\)"):
        CLASSIFIER.vjp(theta, X, xp.asarray(_ones(4, 2, 2)))
    with pytest.raises(TypeError, match=r"g is .*float32"):
        CLASSIFIER.vjp(theta, X, xp.asarray(Y, dtype="float32"))


def test_a_stack_of_x_over_another_stack_of_theta_is_a_value_error(xp: Any) -> None:
    theta = xp.initialize(CLASSIFIER, stack=(4,))
    with pytest.raises(ValueError, match=r"x is stacked \(3,\), but theta is stacked \(4,\)"):
        CLASSIFIER.forward(theta, xp.asarray(_ones(3, 2, N_IN)))


@pytest.mark.float64
def test_pack_refuses_parameters_that_are_not_the_networks(xp: Any) -> None:
    parameters = CLASSIFIER.unpack(xp.initialize(CLASSIFIER))
    (weights, bias), last = parameters
    with pytest.raises(ValueError, match=r"parameters .*\[2, 2\] arrays, not \[2\]"):
        CLASSIFIER.pack(parameters[:1])
    with pytest.raises(ValueError, match=r"parameters\[0\]\[0\] \(weights\) has shape \(1, 4\)"):
        CLASSIFIER.pack([(bias, weights), last])
    with pytest.raises(TypeError, match=r"parameters\[0\]\[1\] \(bias\) is .*float32"):
        CLASSIFIER.pack([(weights, xp.asarray(xp.host(bias), dtype="float32")), last])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0"),
        ({"seed": 1.5}, TypeError, "seed must be an integer"),
        ({"seed": True}, TypeError, "seed must be an integer"),
        ({"seed": "0"}, TypeError, "seed must be an integer"),
        ({"seed": None}, TypeError, "seed must be an integer"),
        ({"stack": 0}, ValueError, "stack must be an integer of at least 1"),
        ({"stack": (3, -1)}, ValueError, "stack must be an integer of at least 1"),
        ({"stack": (2, 2.5)}, TypeError, "stack must be"),
        ({"stack": 2.5}, TypeError, "stack must be"),
        ({"stack": None}, TypeError, "stack must be"),
        ({"stack": True}, TypeError, "stack must be"),
        ({"stack": "3"}, TypeError, "stack must be"),
        ({"dtype": "int32"}, ValueError, "dtype must be a real floating one"),
        ({"dtype": "complex64"}, ValueError, "dtype must be a real floating one"),
        ({"dtype": "float23"}, ValueError, "float23.*Did you mean 'float32'"),
    ],
)
def test_initialize_refuses_what_is_no_seed_stack_or_precision(
    xp: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        xp.initialize(CLASSIFIER, **options)


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([0, 1], ValueError, r"sizes\[0\] must be an integer of at least 1, not 0"),
        ([2, -1, 1], ValueError, r"sizes\[1\] must be an integer of at least 1, not -1"),
        ([2, 2.5], TypeError, r"sizes\[1\] must be an integer of at least 1, not 2.5"),
        ([True, 1], TypeError, r"sizes\[0\] must be an integer"),
        (["3", 1], TypeError, r"sizes\[0\] must be an integer"),
        ([2, [3], 1], TypeError, r"sizes\[1\] must be an integer"),
        ([2], ValueError, "sizes needs at least inputs and outputs"),
        ([], ValueError, "sizes needs at least inputs and outputs"),
        (2, TypeError, "sizes"),
    ],
)
def test_mlp_refuses_sizes_that_are_not_positive_integers(
    sizes: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.mlp(sizes)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"hidden": "rellu"}, ValueError, "'rellu' is unknown. Did you mean 'relu'"),
        ({"output": "sofmax"}, ValueError, "'sofmax' is unknown. Did you mean 'softmax'"),
        ({"loss": "mean_square_error"}, ValueError, "loss .*Did you mean 'mean_squared_error'"),
        ({"initializer": "he"}, ValueError, "initializer 'he' is unknown.*he_normal"),
        ({"loss": None}, TypeError, "loss"),
        ({"loss": np.mean}, TypeError, "loss"),
        ({"dropout": 1.0}, ValueError, "dropout must be"),
        ({"dropout": -0.1}, ValueError, "dropout must be"),
        ({"dropout": "0.5"}, TypeError, "dropout must be"),
        ({"l2": -1.0}, ValueError, "l2 must be >= 0"),
        ({"l2": float("inf")}, ValueError, "l2 must be"),
        ({"l2": "1"}, TypeError, "l2 must be a number"),
    ],
)
def test_mlp_refuses_options_that_it_does_not_know(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.mlp([2, 3, 1], **options)


@pytest.mark.parametrize(("loss", "link"), LINKED.items())
def test_a_link_applied_twice_is_refused_with_the_way_out(loss: str, link: str) -> None:
    with pytest.raises(ValueError, match=r'twice.*output="identity"'):
        bx.mlp([2, 3, 2], output=link, loss=loss)
    with pytest.raises(ValueError, match=r'twice.*output="identity"'):
        bx.Network([bx.Dense(2, 2), bx.Activate(link)], loss)
    bx.mlp([2, 3, 2], output=link, loss="mean_squared_error")


@pytest.mark.parametrize(
    ("loss", "output"),
    [("binary_cross_entropy", "softmax"), ("categorical_cross_entropy", "sigmoid")],
)
def test_probabilities_are_not_taken_for_logits(loss: str, output: str) -> None:
    with pytest.raises(ValueError, match=r'taken for logits.*output="identity"'):
        bx.mlp([2, 3, 2], output=output, loss=loss)
    with pytest.raises(ValueError, match=r'taken for logits.*output="identity"'):
        bx.Network([bx.Dense(2, 2), bx.Activate(output), bx.Dropout(0.5)], loss)
    bx.mlp([2, 3, 2], hidden=output, loss=loss)


@pytest.mark.parametrize(
    ("layers", "error", "message"),
    [
        ([], ValueError, "at least one layer with parameters"),
        ([bx.Activate("relu"), bx.Dropout(0.5)], ValueError, "at least one layer with parameters"),
        ([bx.Dense(2, 3), bx.Dense(4, 1)], ValueError, r"layer 1 \(Dense\) takes 4 features.* 3"),
        ([bx.Dense(2, 3), bx.Activate("relu"), bx.LayerNorm(2)], ValueError, "layer 2 .*takes 2"),
        ([bx.Dense(2, 3), bx.Residual(bx.Dense(2, 2))], ValueError, "layer 1 .*takes 2"),
        ([bx.Dense(2, 3), "relu"], TypeError, r"layers\[1\] is 'relu', which is no layer"),
        ([bx.activations.relu], TypeError, r"layers\[0\].*bx\.Activate"),
        ([None], TypeError, r"layers\[0\] is None"),
        ([bx.Dense], TypeError, r"layers\[0\]"),
        (bx.Dense(2, 1), TypeError, "layers"),
    ],
)
def test_a_network_of_layers_that_do_not_fit_is_refused(
    layers: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.Network(layers, "mean_squared_error")


def test_the_way_out_for_a_complex_x_is_its_real_part() -> None:
    network = bx.mlp([2, 1])
    theta = network.initialize(backend="numpy", dtype="float64")
    with pytest.raises(TypeError, match=r"x is complex128, but theta is float64.*real part"):
        network.forward(theta, np.ones((1, 2), dtype=np.complex128))


def test_mlp_refuses_an_unknown_hidden_activation_though_it_has_no_use_for_it() -> None:
    with pytest.raises(ValueError, match=r"hidden 'rellu' is unknown\. Did you mean 'relu'"):
        bx.mlp([2, 1], hidden="rellu")


def test_pack_names_its_argument() -> None:
    with pytest.raises(TypeError, match="parameters must be a sequence"):
        bx.mlp([2, 1]).pack(3)  # type: ignore[arg-type]


def test_a_residual_that_keeps_any_width_hides_no_misfit() -> None:
    layers = [bx.Dense(2, 3), bx.Residual(bx.Activate("tanh")), bx.Dense(4, 1)]
    with pytest.raises(ValueError, match="takes 4 features, but the layers before it give 3"):
        bx.Network(layers, "huber")


@pytest.mark.parametrize("behind", [bx.Dropout(0.5), bx.Activate("identity")])
def test_a_link_is_seen_behind_layers_that_change_nothing_about_it(behind: Any) -> None:
    with pytest.raises(ValueError, match='output="identity"'):
        bx.Network([bx.Dense(2, 1, "sigmoid"), behind], "binary_cross_entropy")


@pytest.mark.parametrize("behind", [bx.LayerNorm(1), bx.Residual(bx.Dense(1, 1))])
def test_a_link_before_a_layer_that_works_on_it_is_no_second_link(behind: Any) -> None:
    bx.Network([bx.Dense(2, 1, "sigmoid"), behind], "binary_cross_entropy")


# The core that training calls, and where it writes the gradient


class Own:
    """A layer of a user's own, that keeps the protocol and no more: x times a factor per unit."""

    names = ("weights",)
    shapes = ((1, 4),)

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.keys: list[Any] = []

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, (1, 4)),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        self.keys.append(rng)
        if self.fault == "forward":
            raise ArithmeticError("no luck")
        return x * parameters[0], x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        if self.fault == "backward":
            raise ArithmeticError("no luck")
        total = array_namespace(g).sum(g * cache, axis=-2, keepdims=True)
        total = total[..., :1] if self.fault == "shape" else total
        return (g * parameters[0] if wants_input else None), (total,)


def _with_layers_of_ones_own(**options: str) -> bx.Network:
    network = _network()
    layers = [*network.layers[:2], Own(), *network.layers[2:-1]]
    inner = bx.Residual(bx.Dropout(0.1), Own(**options), bx.LayerNorm(4))
    return bx.Network([*layers, inner, network.layers[-1]], "huber", l2=0.3)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("stack", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("strength", [None, 0.3, "array"])
def test_a_gradient_written_into_its_place_is_the_one_that_is_joined(
    xp: Any, own: bool, stack: tuple[int, ...], dtype: str, strength: Any, monkeypatch: Any
) -> None:
    if xp.name == "jax":
        pytest.skip("JAX writes into no array")
    network = _with_layers_of_ones_own() if own else _network()
    theta = xp.asarray(_theta(network, stack), dtype=dtype)
    x, y, weight = (xp.asarray(array, dtype=dtype) for array in _data(stack=stack))
    if strength == "array":
        strength = xp.asarray(np.random.default_rng(3).uniform(size=stack), dtype=dtype)
    rows = Rows(x, y, weight, as_key(RNG, theta))
    out = xp.asarray(np.full((*stack, network.size), np.nan), dtype=dtype)
    views = Views(theta, network.unpack(theta), out, network.unpack(out))
    for _ in range(2):
        value, gradient = loss_and_gradient_of(network, theta, rows, strength, views)
        assert gradient is out
    monkeypatch.setattr("backprop_xp.objective.blank", lambda theta: None)
    expected_value, expected = loss_and_gradient_of(network, theta, rows, strength)
    assert np.array_equal(xp.host(out), xp.host(expected))
    assert np.array_equal(xp.host(value), xp.host(expected_value))
    alone = loss_of(network, theta, rows, strength)
    assert np.array_equal(xp.host(value), xp.host(alone))


def test_the_public_methods_are_the_core_after_its_checks(xp: Any) -> None:
    network = _network()
    theta = xp.asarray(_theta(network))
    x, y, weight = (xp.asarray(array) for array in _data())
    value, gradient = network.loss_and_gradient(theta, x, y, sample_weight=weight, rng=RNG)
    rows = Rows(x, y, weight, as_key(RNG, theta))
    core_value, core = loss_and_gradient_of(network, theta, rows, network.l2)
    assert np.array_equal(xp.host(core), xp.host(gradient))
    assert np.array_equal(xp.host(core_value), xp.host(value))
    assert np.array_equal(xp.host(loss_of(network, theta, rows, network.l2)), xp.host(value))


def test_a_network_is_random_where_a_layer_is_and_only_such_layers_have_a_key(xp: Any) -> None:
    dense, own = bx.Dense(4, 4), Own()
    assert bx.Network([dense, own], "huber").is_random
    assert bx.mlp([2, 3, 1], dropout=0.1).is_random
    assert bx.Network([dense, bx.Residual(bx.Residual(bx.Dropout(0.1)))], "huber").is_random
    plain = [dense, bx.LayerNorm(4), bx.Activate("relu"), bx.Dropout(0.0), bx.Residual(dense)]
    assert not bx.Network(plain, "huber").is_random
    denying = Own()
    denying.is_random = False  # type: ignore[attr-defined]
    network = bx.Network([dense, denying, own], "huber")
    network.forward(xp.initialize(network), xp.asarray(np.ones((2, 4))), rng=RNG)
    assert denying.keys == [None]
    assert own.keys == [fold_in(RNG, 2)]


@pytest.mark.parametrize("method", ["forward", "backward"])
def test_an_error_names_the_layer_it_was_raised_in(xp: Any, method: str) -> None:
    network = _with_layers_of_ones_own(fault=method)
    x, y, _ = (xp.asarray(array) for array in _data())
    with pytest.raises(ArithmeticError, match="no luck") as caught:
        network.loss_and_gradient(xp.initialize(network), x, y)
    assert caught.value.__notes__ == [
        f"In layers[1] (Own).{method}.",
        f"In layers[6] (Residual).{method}.",
    ]


def test_a_gradient_of_another_shape_than_its_parameters_is_refused(xp: Any) -> None:
    if xp.name != "numpy":
        pytest.skip("NumPy's are written, and would be repeated")
    network = _with_layers_of_ones_own(fault="shape")
    with pytest.raises(ValueError, match=r"has shape \(1, 1\), but \(1, 4\)") as caught:
        network.loss_and_gradient(xp.initialize(network), *_data()[:2])
    assert caught.value.__notes__[0] == "In layers[1] (Own).backward."


def test_targets_are_checked_where_no_layer_says_its_width(xp: Any) -> None:
    network = bx.Network([Own()], "huber")
    theta, x = xp.initialize(network), xp.asarray(np.ones((5, 4)))
    assert network.loss(theta, x, xp.asarray(np.ones((5, 4)))).shape == ()
    with pytest.raises(ValueError, match=r"y has shape \(5, 3\), but the outputs are \(..., 5, 4"):
        network.loss(theta, x, xp.asarray(np.ones((5, 3))))


@pytest.mark.parametrize(
    "first",
    [bx.Activate("relu"), bx.Activate("sigmoid"), bx.LayerNorm(3), bx.Residual(bx.LayerNorm(3))],
    ids=lambda layer: type(layer).__name__,
)
def test_the_inputs_gradient_of_a_stack_that_shares_x_is_each_networks(xp: Any, first: Any) -> None:
    network = bx.Network([first, bx.Dense(3, 2)], "mean_squared_error")
    generator = np.random.default_rng(0)
    theta = xp.initialize(network, stack=4) + xp.asarray(generator.normal(size=(4, network.size)))
    x, g = (xp.asarray(generator.normal(size=shape)) for shape in ((5, 3), (4, 5, 2)))
    gradient, back = network.vjp(theta, x, g)
    for i in range(4):
        alone, alone_back = network.vjp(theta[i, :], x, g[i, ...])
        for one, other in ((gradient[i, :], alone), (back[i, ...], alone_back)):
            np.testing.assert_allclose(xp.host(one), xp.host(other), atol=xp.rounding(1e-12))
