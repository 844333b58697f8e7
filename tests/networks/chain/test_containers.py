"""Layers of layers: a chain as one layer, and a user's own layer that extends it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.chain.propagation import forward_through, linked
from backprop_xp.networks.layers.saturation import first_units
from backprop_xp.networks.numbers.random_bits import fold_in
from tests.user_layers import Factors, Gated, PassThrough, sample_theta

# A few roundings, 2e-16 each, relative to the largest entry.
ROUNDING = 1e-13
N_IN, N_OUT, BATCH = 3, 2, 5
generator = np.random.default_rng(8)
X, Y = generator.normal(size=(BATCH, N_IN)), generator.normal(size=(BATCH, N_OUT))
INNER = [bx.Dense(N_IN, 4, "tanh"), bx.LayerNorm(4), bx.Dense(4, N_OUT, "silu")]
FLAT = bx.Network(INNER, "log_cosh", l2=0.1)
# The same layers as one or two layers.
NESTED = {
    "one": [bx.Chain(*INNER)],
    "in another one": [bx.Chain(bx.Chain(*INNER[:2]), INNER[2])],
    "behind a layer": [INNER[0], bx.Chain(*INNER[1:])],
}
CALLS: dict[str, Any] = {
    "forward": lambda network, theta, x, y: network.forward(theta, x),
    "gradient": lambda network, theta, x, y: network.loss_and_gradient(theta, x, y),
    "vjp": lambda network, theta, x, y: network.vjp(theta, x, y),
    "jacobian": lambda network, theta, x, y: network.input_jacobian(theta, x),
    "laplacian": lambda network, theta, x, y: network.laplacian(theta, x),
    "hessian": lambda network, theta, x, y: network.input_hessian(theta, x, output=1),
    "fit": lambda network, theta, x, y: (
        bx.fit(network, theta, x, y, optimizer="adam", epochs=3, batch_size=2).theta
    ),
}


def _gated(first: int = N_IN) -> list[Any]:
    return [bx.Dense(first, 4), Gated(bx.Dense(4, 4, "sigmoid"), bx.LayerNorm(4)), bx.Dense(4, 2)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", NESTED)
def test_a_chain_computes_what_its_layers_do(xp: Any, name: str, call: str) -> None:
    network = bx.Network(NESTED[name], "log_cosh", l2=0.1)
    stack = () if name == "one" else (2,)
    theta, x, y = xp.put(sample_theta(network, stack), X, Y)
    found, expected = (CALLS[call](one, theta, x, y) for one in (network, FLAT))
    pairs = (
        zip(found, expected, strict=True) if call in ("gradient", "vjp") else [(found, expected)]
    )
    for one, other in pairs:
        xp.assert_close(one, other, ROUNDING)


@pytest.mark.parametrize("name", NESTED)
def test_a_chain_draws_the_parameters_of_its_layers(name: str) -> None:
    network = bx.Network(NESTED[name], "log_cosh")
    theta, expected = (one.initialize(seed=4, backend="numpy") for one in (network, FLAT))
    assert theta.tolist() == expected.tolist()
    # Those named "weights" decay, at any depth.
    assert network.weight_mask(theta).tolist() == FLAT.weight_mask(theta).tolist()


def test_the_layers_of_a_chain_have_keys_of_their_own(xp: Any) -> None:
    layers = [bx.Dropout(0.5), bx.Dropout(0.5)]
    (x,) = xp.put(np.ones((BATCH, 8)))
    y, _ = bx.Chain(*layers).forward((), x, 3)
    xp.assert_equal(y, forward_through(linked(layers, [(), ()]), x, 3))
    assert not np.array_equal(xp.host(y), xp.host(4.0 * bx.Dropout(0.75).forward((), x, 3)[0]))
    assert bx.Chain(*layers).is_random
    assert not bx.Chain(bx.Dropout(0.0)).is_random
    inner, _ = bx.Chain(bx.Chain(*layers)).forward((), x, 3)
    xp.assert_equal(inner, forward_through(linked(layers, [(), ()]), x, fold_in(3, 0)))


def test_a_chain_has_the_widths_of_its_ends() -> None:
    chain = bx.Chain(bx.Dropout(0.1), bx.Dense(3, 4), bx.Activate("tanh"))
    assert (chain.n_in, chain.n_out, chain.keeps_width) == (3, 4, False)
    keeping = bx.Chain(bx.Dropout(0.1), bx.Chain(bx.Activate("tanh")))
    assert (keeping.n_in, keeping.n_out, keeping.keeps_width) == (None, None, True)
    unknown = bx.Chain(bx.Dense(3, 4), PassThrough())
    assert (unknown.n_in, unknown.n_out, unknown.keeps_width) == (3, None, False)
    with pytest.raises(ValueError, match=r"layer 2 .Dense. takes 3 features, .* give 4"):
        bx.Network([bx.Dense(2, 4), keeping, bx.Dense(3, 1)], "huber")
    with pytest.raises(ValueError, match=r"layer 1 .Chain. takes 3 features, .* give 2"):
        bx.Network([bx.Dense(2, 2), chain], "huber")


def test_layers_that_return_other_features_keep_no_width() -> None:
    tanh = [bx.Activate("tanh")]
    equation = bx.Equation(tanh, lambda s: (s.u, s.u_x), "x")
    for layer in (bx.Derivatives(tanh, [(), (0,)]), equation, bx.Groups([equation], [2])):
        assert not layer.keeps_width
    assert bx.Constrained(tanh, lambda x: x).keeps_width


def test_no_layer_returns_what_was_not_wanted() -> None:
    layer, (x, g) = bx.Chain(PassThrough()), (np.ones((2, 3)), np.ones((2, 3)))
    _, cache = layer.forward((), x, None)
    assert layer.backward((), cache, g, wants_input=False) == (None, ())


def test_errors_name_the_users_own_class() -> None:
    with pytest.raises(ValueError, match=r"^Gated needs at least one layer"):
        Gated()
    with pytest.raises(ValueError, match=r"layer 1 .Dense. takes 2 features, .* give 4"):
        Gated(bx.Dense(3, 4), bx.Dense(2, 3))
    with pytest.raises(TypeError, match=r"^layers\[1\] is .* not a layer"):
        Gated(bx.Dense(3, 3), bx.activations.tanh)  # type: ignore[arg-type]


def test_an_embedding_first_in_a_chain_takes_the_codes_of_the_network() -> None:
    chain = bx.Chain(bx.Columns(bx.Embedding(3, 2), bx.Scale(1)), bx.Dense(3, 2))
    network = bx.Network([chain, bx.Dense(2, 1)], "huber")
    theta = network.initialize(backend="numpy")
    assert network.codes == chain.codes == (3, 0)
    with pytest.raises(ValueError, match=r"x\[0, 0\] is 3, but column 0 holds the codes"):
        network.predict(theta, np.asarray([[3.0, 0.5]]))
    with pytest.raises(ValueError, match="takes codes of categories, but layer 0"):
        bx.Network([bx.Dense(2, 2), chain], "huber")
    assert bx.Chain(bx.Columns(bx.Scale(1), bx.Scale(1)), bx.Dense(2, 1)).codes == ()


def test_a_users_own_layer_of_layers_is_one_everywhere(xp: Any) -> None:
    network = bx.Network(_gated(), "log_cosh", l2=0.1)
    theta, x, y = xp.put(sample_theta(network), X, Y)
    assert bx.check_network(network, theta, x, y).passed
    sigmoid, dense = bx.Dense(3, 3, "sigmoid"), bx.Dense(3, 1)
    for layers in ([Gated(sigmoid), dense], [Gated(Gated(sigmoid)), dense]):
        product = bx.Network([bx.Derivatives(layers, [(), (0,), (0, 1)])], "log_cosh")
        own = xp.asarray(sample_theta(product))
        assert bx.check_network(product, own, x, y[:, :1] + xp.asarray(np.zeros((1, 3)))).passed


def test_a_users_own_layer_of_layers_trains_alone_and_in_a_stack(xp: Any) -> None:
    network = bx.Network(_gated(), "log_cosh")
    theta, x, y = xp.put(sample_theta(network, (3,)), X, Y)
    options: Any = {"optimizer": "adam", "epochs": 4, "batch_size": 2}
    together = bx.fit(network, theta, x, y, **options)
    alone = bx.fit(network, theta[1, :], x, y, **options).theta
    xp.assert_close(together.theta[1, :], alone, ROUNDING)
    losses = together.history["loss"]
    assert (losses[-1] < losses[0]).all()


def test_a_users_own_layer_of_layers_is_in_files_and_pickles(tmp_path: Path) -> None:
    bx.register("Gated", Gated)
    network = bx.Network(_gated(), "log_cosh")
    theta = network.initialize(backend="numpy")
    bx.save(tmp_path / "model", network, theta)
    assert bx.load(tmp_path / "model", backend="numpy").network == network
    assert pickle.loads(pickle.dumps(network)) == network  # noqa: S301
    assert repr(network.layers[1]) == "Gated(Dense(4, 4, 'sigmoid'), LayerNorm(4))"
    assert network.layers[1] != bx.Chain(bx.Dense(4, 4, "sigmoid"), bx.LayerNorm(4))


def test_a_chain_writes_gradients_into_buffers_and_skips_what_is_not_wanted() -> None:
    inner = Factors(2)
    layer, x = Gated(bx.Dense(2, 2), inner), np.ones((4, 2))
    parameters = tuple(np.full(shape, 0.5) for shape in layer.shapes)
    buffers = tuple(np.empty(shape) for shape in layer.shapes)
    _, cache = layer.forward(parameters, x, None)
    back, expected = layer.backward(parameters, cache, x)
    none, found = layer.backward(parameters, cache, x, wants_input=False, out=buffers)
    assert none is None
    assert all(one is buffer for one, buffer in zip(found, buffers, strict=True))
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    alone, nothing = layer.backward(parameters, cache, x, wants_parameters=False)
    assert alone.tolist() == back.tolist()
    assert nothing == ()


class Asked(bx.Dense):
    """A layer that keeps what it was asked for."""

    def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
        ASKED.append(options.get("wants_parameters", True))
        return super().backward(parameters, cache, g, **options)


ASKED: list[bool] = []
U = Asked(2, 1, "tanh")


@pytest.mark.parametrize(
    "layer",
    [
        bx.Chain(bx.Chain(U)),
        bx.Residual(U, bx.Dense(1, 2)),
        bx.Columns(U),
        bx.Derivatives([U], [(), (0,), (1,)]),  # of one output, by a pass backward
        bx.Derivatives([U, bx.Dense(1, 2)], [(), (0, 0)]),
        bx.Constrained([U], lambda x: x[..., :1]),
        bx.Equation([U], lambda s: s.u_xx + s.k, "xy", unknown={"k": 1.0}),
        bx.Groups([bx.Equation([U], lambda s: s.u_xx, "xy")], [1]),
        Gated(U, bx.Dense(1, 2)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_derivatives_by_x_ask_no_layer_inside_for_gradients(xp: Any, layer: Any) -> None:
    network = bx.Network([layer, bx.Dense(layer.n_out, 1)], "log_cosh")
    theta, x = xp.put(sample_theta(network), X[:, :2])
    ASKED.clear()
    network.input_jacobian(theta, x)
    assert ASKED
    assert not any(ASKED)


class Alternating(bx.Chain):
    """A layer whose layers take one column each, side by side."""

    runs_in_order = False

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        own = self.by_layer(parameters)
        pairs = [one.forward(own[i], x[..., i, None], rng) for i, one in enumerate(self.layers)]
        return sum(y for y, _ in pairs), [cache for _, cache in pairs]


def test_layers_that_do_not_follow_one_another_need_not_fit(xp: Any) -> None:
    layer = Alternating(bx.Dense(1, 2, "tanh"), bx.Dense(1, 2, "tanh"))
    assert (layer.n_in, layer.n_out, layer.keeps_width) == (None, None, False)
    assert not Alternating(bx.Dropout(0.1)).keeps_width
    with pytest.raises(ValueError, match=r"layer 1 .Dense. takes 1"):
        bx.Chain(*layer.layers)
    network = bx.Network([layer], "huber")
    theta, x = xp.put(sample_theta(network), 100.0 * X[:, :2])
    assert network.forward(theta, x).shape == (BATCH, 2)
    # Nobody else runs its layers, such as to see which units x saturates.
    assert first_units(network.layers, network.unpack(theta), x) is None
