"""The layer of derivatives: beside JAX and PyTorch, in stacks, in trainings and in files.

Specifies ``passes``.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.networks.jets.parts import rows_in_cache
from tests.user_layers import sample_network, sample_theta

# Some hundred roundings, relative to the largest entry.
PARITY = 1e-12
# A step that no rounding sees: the complex step of an analytic function is exact.
STEP = 1e-30
TERMS: list[tuple[int, ...]] = [(), (0,), (2,), (0, 0), (2, 0), (1, 1)]
generator = np.random.default_rng(60)


def with_derivatives(layers: Sequence[Any], terms: Any = TERMS, **options: Any) -> bx.Network:
    return bx.Network([bx.Derivatives(layers, terms)], "mean_squared_error", **options)


def smooth_layers(hidden: str = "tanh") -> list[Any]:
    """Return layers of every kind, without the masks of Dropout."""
    layers = sample_network(hidden).layers
    return [layer for layer in layers if not isinstance(layer, bx.Dropout)]


SMOOTH = [name for name in bx.activations.ACTIVATIONS if "relu" not in name]


@pytest.mark.parametrize("hidden", SMOOTH)
def test_the_columns_are_the_networks_derivatives(xp: Any, hidden: str) -> None:
    inner = bx.Network(smooth_layers(hidden), "mean_squared_error")
    theta, x = xp.put(sample_theta(inner), generator.normal(size=(5, 3)))
    found = xp.host(with_derivatives(inner.layers).forward(theta, x))
    jacobian = xp.host(inner.input_jacobian(theta, x))
    hessians = [xp.host(inner.input_hessian(theta, x, output=k)) for k in (0, 1)]
    columns = [xp.host(inner.forward(theta, x)), jacobian[..., 0], jacobian[..., 2]]
    columns += [np.stack([h[..., i, j] for h in hessians], -1) for i, j in ((0, 0), (0, 2), (1, 1))]
    expected = np.concatenate(columns, axis=-1)
    size = float(np.max(np.abs(expected)))
    xp.assert_close(found / size, expected / size, PARITY)


@pytest.mark.long
@pytest.mark.parametrize("hidden", SMOOTH)
def test_backpropagation_through_derivatives_passes_the_check(xp: Any, hidden: str) -> None:
    layer = bx.Derivatives(smooth_layers(hidden), TERMS)
    x = xp.asarray(generator.normal(size=(4, 3)))
    report = bx.check_layer(layer, x, method="complex_step")
    assert report.passed, str(report)


class Gate:
    """A layer of a user's own, written with functions of the array API alone."""

    names = ("weights", "rate")

    def __init__(self, n: int) -> None:
        self.n_in, self.n_out, self.shapes = n, 2 * n, ((n, n), (1, n))

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return tuple(generator.normal(size=shape) for shape in self.shapes)

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        xp, (weights, rate) = array_namespace(x), parameters
        z = x @ weights
        gate = 1.0 / (1.0 + xp.exp(-xp.exp(rate) * z))
        norm = xp.sqrt(1.0 + xp.sum(x * x, axis=-1, keepdims=True))
        return xp.concat([gate * x / norm, xp.atan(z)], axis=-1), (x, z, gate, norm)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        xp, (weights, rate), (x, z, gate, norm) = array_namespace(g), parameters, cache
        first, second = g[..., : self.n_in], g[..., self.n_in :]
        slope = first * x / norm * gate * (1.0 - gate)
        to_rate = xp.sum(slope * z * xp.exp(rate), axis=-2, keepdims=True)
        to_z = slope * xp.exp(rate) + second / (1.0 + z * z)
        along = xp.sum(first * gate * x, axis=-1, keepdims=True)
        back = first * gate / norm - x * along / norm**3 + to_z @ xp.matrix_transpose(weights)
        return back, (xp.matrix_transpose(x) @ to_z, to_rate)


def test_a_layer_of_ones_own_runs_unchanged(xp: Any) -> None:
    layer = bx.Derivatives([bx.Dense(3, 4, "tanh"), Gate(4), bx.Dense(8, 2)], TERMS)
    report = bx.check_layer(layer, xp.asarray(generator.normal(size=(4, 3))))
    assert report.passed, str(report)


def test_a_wrong_rule_of_ones_own_is_found(xp: Any) -> None:
    class Wrong(Gate):
        def backward(self, parameters: Any, cache: Any, g: Any, **options: Any) -> Any:
            back, gradients = super().backward(parameters, cache, g, **options)
            return back * g[..., :1], gradients

    layer = bx.Derivatives([Wrong(3)], TERMS)
    with pytest.raises(TypeError, match="A backward rule multiplies g by g") as caught:
        bx.check_layer(layer, xp.asarray(generator.normal(size=(4, 3))))
    assert any("Wrong" in note for note in caught.value.__notes__)


LAYERS = [bx.Dense(3, 4, "softplus"), Gate(4), bx.Dense(8, 2)]


def losses_of(network: bx.Network) -> tuple[Any, ...]:
    """Return theta, x, y, with the loss and its gradients by theta and by x."""
    theta, x, y = (generator.normal(size=s) for s in ((network.size,), (5, 3), (5, 6)))
    loss, gradient = network.loss_and_gradient(theta, x, y)
    g = 2.0 / y.size * (network.forward(theta, x) - y)
    return theta, x, y, [loss, gradient, network.vjp(theta, x, g)[1]]


def assert_relatively_close(found: list[Any], expected: list[Any]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=PARITY * np.max(np.abs(theirs)))


def test_the_loss_and_its_gradients_are_those_of_jax(jax: Any) -> None:
    inner, network = bx.Network(LAYERS, "huber"), with_derivatives(LAYERS, [(), (0,), (0, 1)])
    theta, x, y, found = losses_of(network)

    def columns(theta: Any, row: Any) -> Any:
        def outputs(at: Any) -> Any:
            return inner.forward(theta, at[None])[0]

        along = [np.eye(3)[i] for i in (0, 1)]
        value, first = jax.jvp(outputs, (row,), (along[0],))
        second = jax.jvp(lambda at: jax.jvp(outputs, (at,), (along[0],))[1], (row,), (along[1],))
        return jax.numpy.concat([value, first, second[1]])

    def loss(theta: Any, x: Any) -> Any:
        return jax.numpy.mean((jax.vmap(columns, (None, 0))(theta, x) - y) ** 2)

    with jax.enable_x64(True):
        put = jax.numpy.asarray(theta), jax.numpy.asarray(x)
        value, slopes = jax.jit(jax.value_and_grad(loss, (0, 1)))(*put)
        assert_relatively_close(found, [np.asarray(one) for one in (value, *slopes)])


def test_the_loss_and_its_gradients_are_those_of_pytorch_twice_backward(torch: Any) -> None:
    inner, network = bx.Network(LAYERS, "huber"), with_derivatives(LAYERS, [(), (0,), (0, 1)])
    theta, x, y, found = losses_of(network)
    there, at = (torch.tensor(array, requires_grad=True) for array in (theta, x))
    outputs = inner.forward(there, at)

    def slope(column: Any) -> Any:
        return torch.autograd.grad(column.sum(), at, create_graph=True)[0]

    firsts = [slope(outputs[:, k]) for k in (0, 1)]
    columns = [outputs, torch.stack([first[:, 0] for first in firsts], -1)]
    columns.append(torch.stack([slope(first[:, 0])[:, 1] for first in firsts], -1))
    value = torch.mean((torch.cat(columns, -1) - torch.tensor(y)) ** 2)
    slopes = torch.autograd.grad(value, (there, at))
    assert_relatively_close(found, [one.detach().numpy() for one in (value, *slopes)])


CODED = bx.Columns(bx.NumericEmbedding(1, 3, n_frequencies=2), bx.Scale(1), bx.Embedding([4, 3], 2))
# By rows of numbers and codes: first derivatives of one output have a way of their own.
OF_CODES: dict[str, tuple[int, list[tuple[int, ...]]]] = {
    "first derivatives": (1, [(), (0,), (1,)]),
    "second derivatives": (2, [(), (1,), (0, 1), (0, 0)]),
}


def coded_case(name: str, stack: tuple[int, ...] = ()) -> tuple[bx.Network, Any, Any]:
    """Return a network of derivatives beside categories, with theta and x."""
    n_out, terms = OF_CODES[name]
    network = with_derivatives([CODED, bx.Dense(8, 5, "tanh"), bx.Dense(5, n_out)], terms)
    codes = generator.integers(3, size=(6, 2))
    x = np.concatenate([generator.normal(size=(6, 2)), codes], axis=1)
    return network, sample_theta(network, stack), x


@pytest.mark.parametrize("name", OF_CODES)
def test_derivatives_by_numbers_beside_codes_are_those_of_each_category(xp: Any, name: str) -> None:
    network, theta, x = coded_case(name)
    (layer,) = network.layers
    report = bx.check_layer(layer, xp.asarray(x), wants_input=False)
    assert report.passed, str(report)
    inner = bx.Network(layer.layers, "mean_squared_error")
    found = xp.host(network.forward(*xp.put(theta, x)))
    n_out = found.shape[1] // len(layer.terms)
    jacobian = xp.host(inner.input_jacobian(*xp.put(theta, x)))
    for k, term in enumerate(layer.terms[:3]):
        if len(term) == 1:
            xp.assert_close(found[:, k * n_out : (k + 1) * n_out], jacobian[:, :, term[0]], PARITY)
    # dL/dx has 0 for codes.
    assert not np.any(xp.host(network.input_jacobian(*xp.put(theta, x)))[..., 2:])


@pytest.mark.parametrize("name", OF_CODES)
def test_a_stack_beside_codes_is_its_networks_one_by_one(xp: Any, name: str) -> None:
    network, thetas, x = coded_case(name, (3,))
    y = generator.normal(size=(6, network.layers[0].n_out))
    found = network.loss_and_gradient(*xp.put(thetas, x, y))
    for i, theta in enumerate(thetas):
        for ours, theirs in zip(
            found, network.loss_and_gradient(*xp.put(theta, x, y)), strict=True
        ):
            size = float(np.max(np.abs(xp.host(theirs))))
            xp.assert_close(xp.host(ours)[i] / size, theirs / size, PARITY)


@pytest.mark.parametrize("shares_x", [True, False])
def test_a_stack_is_its_networks_one_by_one(xp: Any, shares_x: bool) -> None:
    network = with_derivatives(smooth_layers(), l2=0.1)
    theta, y = sample_theta(network, (2, 3)), generator.normal(size=(5, 12))
    x = generator.normal(size=(5, 3) if shares_x else (2, 3, 5, 3))
    found = [*network.loss_and_gradient(*xp.put(theta, x, y)), *network.vjp(*xp.put(theta, x, y))]
    for at in np.ndindex(2, 3):
        one = xp.put(theta[at], x if shares_x else x[at], y)
        alone = [*network.loss_and_gradient(*one), *network.vjp(*one)]
        for ours, theirs in zip(found, alone, strict=True):
            size = float(np.max(np.abs(xp.host(theirs))))
            xp.assert_close(xp.host(ours)[at] / size, theirs / size, PARITY)


def test_the_term_of_the_values_alone_is_the_layers(xp: Any) -> None:
    network = with_derivatives(smooth_layers(), [()])
    inner = bx.Network(network.layers[0].layers, "mean_squared_error")
    theta, x, y = xp.put(sample_theta(inner), *(generator.normal(size=(5, n)) for n in (3, 2)))
    found, expected = (one.loss_and_gradient(theta, x, y) for one in (network, inner))
    for ours, theirs in zip(found, expected, strict=True):
        xp.assert_close(ours, theirs, PARITY)


@pytest.mark.parametrize("stack", [(), (2,)])
@pytest.mark.parametrize("rng", [None, 5])
def test_a_pass_backward_finds_the_derivatives_of_one_output_as_jets_do(
    xp: Any, stack: tuple[int, ...], rng: int | None
) -> None:
    # A first layer without parameters: its gradient alone would have no stack.
    layers = [bx.Activate("tanh"), bx.Dense(4, 5, "silu"), bx.Dropout(0.3), bx.LayerNorm(5)]
    layers += [bx.Residual(bx.Dense(5, 5, "tanh")), bx.Dense(5, 1)]
    terms = [(), (2,), (0,), (1,), (3,), (2,)]
    network = bx.Network([bx.Derivatives(layers, terms)], "mean_squared_error")
    theta, x = sample_theta(network, stack), generator.normal(size=(5, 4))
    given, weight = xp.put(theta, x), generator.normal(size=(*stack, 5, 6))
    found = xp.host(network.forward(*given, rng=rng))
    of_theta, of_x = network.vjp(*given, xp.asarray(weight), rng=rng)
    sums = [0.0, 0.0]
    for i in range(4):
        one = bx.Network([bx.Derivatives(layers, [(), (i,)])], "mean_squared_error")
        expected = xp.host(one.forward(*given, rng=rng))
        g = np.zeros_like(expected)
        for j, term in enumerate(terms):
            if term == () and i == 0:
                xp.assert_close(found[..., j], expected[..., 0], PARITY)
                g[..., 0] += weight[..., j]
            elif term == (i,):
                xp.assert_close(found[..., j], expected[..., 1], PARITY)
                g[..., 1] += weight[..., j]
        parts = one.vjp(*given, xp.asarray(g), rng=rng)
        sums = [a + xp.host(b) for a, b in zip(sums, parts, strict=True)]
    for ours, theirs in zip((of_theta, of_x), sums, strict=True):
        xp.assert_close(ours, theirs, PARITY)


class Watching(bx.Activate):
    """An activation that notes the number of directions of each jet."""

    seen: ClassVar[list[int]] = []

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        first = getattr(x, "first", None)
        self.seen.append(0 if first is None else first.shape[0])
        return super().forward(parameters, x, rng)


def test_derivatives_of_one_output_by_many_columns_cost_one_jet(xp: Any) -> None:
    layers = [bx.Dense(40, 3), Watching("tanh"), bx.Dense(3, 1)]
    network = bx.Network([bx.Derivatives(layers, [(i,) for i in range(40)])], "huber")
    Watching.seen.clear()
    theta, x, y = xp.put(sample_theta(network), *generator.normal(size=(2, 4, 40)))
    network.loss_and_gradient(theta, x, y)
    assert Watching.seen == [0, 1]


def test_dropout_drops_the_same_units_of_values_and_of_derivatives(xp: Any) -> None:
    layers = [bx.Dense(2, 6, "tanh"), bx.Dropout(0.5), bx.Dense(6, 1)]
    network = with_derivatives(layers, [(), (0,), (1,)])
    theta, x = xp.put(sample_theta(network), generator.normal(size=(5, 2)))
    found = network.forward(theta, x, rng=3)
    step = 1e-3 if xp.dtype == "float32" else 1e-5
    moved = xp.asarray([[step, 0.0]])
    ahead, behind = (network.forward(theta, x + d, rng=3)[:, 0] for d in (moved, -moved))
    slope = (xp.host(ahead) - xp.host(behind)) / (2 * step)
    np.testing.assert_allclose(xp.host(found)[:, 1], slope, rtol=1e-2, atol=1e-3)
    assert network.is_random
    assert np.any(xp.host(found) != xp.host(network.forward(theta, x)))
    report = bx.check_network(network, theta, x, xp.asarray(np.zeros((5, 3))), rng=3)
    assert report.passed, str(report)


def test_many_rows_are_computed_in_parts_with_the_same_result(xp: Any) -> None:
    network = with_derivatives([bx.Dense(3, 40, "tanh"), bx.Dense(40, 2)])
    x, y = generator.normal(size=(2000, 3)), generator.normal(size=(2000, 12))
    theta = sample_theta(network)
    gradient, back = network.vjp(*xp.put(theta, x, y))
    halves = [network.vjp(*xp.put(theta, x[rows], y[rows])) for rows in (slice(7), slice(7, 2000))]
    total = xp.host(halves[0][0]) + xp.host(halves[1][0])
    size = float(np.max(np.abs(total)))
    xp.assert_close(gradient / size, total / size, PARITY)
    xp.assert_close(back, np.concatenate([xp.host(half[1]) for half in halves]), 100 * PARITY)


def test_each_of_many_rows_has_its_own_dropout_mask(xp: Any) -> None:
    layers = [bx.Dense(2, 40, "tanh"), bx.Dropout(0.5), bx.Dense(40, 1)]
    network = with_derivatives(layers, [(), (0,), (0, 0)])
    x = xp.asarray(np.ones((3000, 2)))
    # Without masks the rows are computed in parts, where the backend has a cache to mind.
    assert (rows_in_cache(x, 3 * 40) or 0) < 3000
    found = xp.host(network.forward(xp.asarray(sample_theta(network)), x, rng=5))
    # Of 2**40 masks, two are hardly the same.
    assert len({row.tobytes() for row in found}) == 3000


def test_gradients_of_a_term_asked_for_twice_are_added(xp: Any) -> None:
    layers = smooth_layers()
    twice, once = (
        with_derivatives(layers, terms)
        for terms in ([(0, 1), (), (1, 0), (2,), (2,)], [(0, 1), (), (2,)])
    )
    x, g = generator.normal(size=(5, 3)), generator.normal(size=(5, 10))
    summed = np.concatenate([g[:, :2] + g[:, 4:6], g[:, 2:4], g[:, 6:8] + g[:, 8:]], axis=-1)
    theta = sample_theta(once)
    found, expected = twice.vjp(*xp.put(theta, x, g)), once.vjp(*xp.put(theta, x, summed))
    for ours, theirs in zip(found, expected, strict=True):
        size = float(np.max(np.abs(xp.host(theirs))))
        xp.assert_close(ours / size, theirs / size, PARITY)


@pytest.mark.long
def test_a_training_learns_from_values_and_slopes(xp: Any) -> None:
    x = np.linspace(-1.0, 1.0, 12)[:, None]
    y = np.concatenate([np.sin(3.0 * x), 3.0 * np.cos(3.0 * x)], axis=-1)
    layers = bx.mlp([1, 16, 1], hidden="tanh").layers
    network = with_derivatives(layers, [(), (0,)])
    theta = xp.initialize(network, stack=(2,))
    options: Any = {"optimizer": bx.Adam(1e-2), "epochs": 200, "batch_size": 6}
    result = bx.fit(network, theta, *xp.put(x, y), validation=tuple(xp.put(x, y)), **options)
    losses = np.asarray(result.history["loss"])
    assert np.all(losses[-1] < 0.1 * losses[0])
    # The layers alone have the same theta.
    inner = bx.Network(layers, "mean_squared_error")
    slopes = inner.input_jacobian(result.theta, xp.asarray(x))[..., 0]
    outputs = network.predict(result.theta, xp.asarray(x))
    xp.assert_close(slopes, outputs[..., 1:], PARITY)


def test_a_file_has_the_layer_and_its_terms(xp: Any, tmp_path: Path) -> None:
    network = with_derivatives([bx.Residual(bx.Dense(3, 3, "silu")), bx.Dense(3, 1)])
    theta, x = xp.initialize(network), xp.asarray(generator.normal(size=(4, 3)))
    bx.save(tmp_path / "network", network, theta)
    read = bx.load(tmp_path / "network")
    assert read.network == network
    assert repr(read.network) == repr(network)
    xp.assert_close(read.predict(x), network.predict(theta, x))


HEAT = bx.Equation(bx.mlp([2, 3, 1], hidden="tanh").layers, lambda s: (s.u_t, s.u_xx), "tx")


@pytest.mark.parametrize("name", ["Derivatives", "Equation"])
def test_the_outputs_of_a_layer_of_derivatives_have_first_derivatives(xp: Any, name: str) -> None:
    # More outputs than inputs, where a network of other layers runs forward.
    layers = bx.mlp([2, 3, 2], hidden="tanh").layers
    layer = bx.Derivatives(layers, [(), (0,)]) if name == "Derivatives" else bx.Residual(HEAT)
    network = bx.Network([layer, bx.Dense(layer.n_out or 2, 3)], "binary_cross_entropy")
    theta, x, v = sample_theta(network), *generator.normal(size=(2, 4, 2))
    steps = [x + 1j * STEP * np.eye(2)[i] for i in range(2)]
    expected = [network.predict(theta + 0j, step).imag / STEP for step in steps]
    jacobian = np.stack(expected, axis=-1)
    found = network.input_jacobian(*xp.put(theta, x), predict=True)
    xp.assert_close(found, jacobian, PARITY)
    along = network.directional(*xp.put(theta, x, v), predict=True)
    xp.assert_close(along, (jacobian @ v[..., None])[..., 0], PARITY)
    with pytest.raises(TypeError, match=r"first derivatives by x.*no second ones"):
        network.laplacian(*xp.put(theta, x))
    with pytest.raises(TypeError, match=r"first derivatives by x.*no second ones"):
        network.directional(*xp.put(theta, x, v), order=2)


@pytest.mark.parametrize(
    ("layers", "terms", "message"),
    [
        ([bx.Dense(2, 1)], [], "terms is empty"),
        ([bx.Dense(2, 1)], [(0, 1, 1)], r"terms\[0\] is \(0, 1, 1\), of order 3"),
        ([bx.Dense(2, 1)], [(), (2,)], r"terms\[1\] has column 2, but the layers take 2"),
        ([bx.Dense(2, 1)], [(-1,)], r"terms\[0\].*at least 0"),
        ([bx.Dense(2, 1, "relu")], [(0, 1)], "'relu' has none to learn from.*\"tanh\""),
        ([bx.Residual(bx.Activate(bx.activations.leaky_relu_with(0.2)))], [(0, 0)], "second"),
        ([bx.Embedding(3, 2)], [(0,)], "by column 0 of x, but Embedding takes codes of categories"),
        ([bx.Chain(CODED)], [(), (0,), (1, 2)], "by column 2 of x, but Chain takes codes"),
        ([bx.Derivatives([bx.Dense(2, 1)], [(0,)])], [(0,)], "Derivatives is not possible"),
        ([bx.Residual(HEAT)], [(0,)], "Derivatives of Residual is not possible"),
        ([], [()], "Derivatives needs at least one layer"),
    ],
)
def test_what_has_no_derivatives_is_an_error(layers: Any, terms: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bx.Derivatives(layers, terms)


def test_a_term_that_is_no_sequence_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"terms\[0\].*\(0, 1\)"):
        bx.Derivatives([bx.Dense(2, 1)], [0])  # type: ignore[list-item]


def test_columns_that_only_x_can_show_to_be_missing_are_an_error(xp: Any) -> None:
    layer = bx.Derivatives([bx.Activate("tanh")], [(3,)])
    with pytest.raises(ValueError, match="by column 3 of x is asked for, but x has 2 columns"):
        layer.forward((), xp.asarray([[1.0, 2.0]]), None)


@pytest.mark.float64  # which jump, so that differences cannot judge them
def test_first_derivatives_of_relu_are_learned(xp: Any) -> None:
    layer = bx.Derivatives([bx.Dense(3, 4, "relu"), bx.Dense(4, 1)], [(0,), (1,)])
    assert bx.check_layer(layer, xp.asarray(generator.normal(size=(4, 3)))).passed


KINKED = [bx.Residual(bx.Dense(1, 1, bx.activations.leaky_relu_with(0.2))), bx.Dense(1, 1)]
FIRST = bx.Equation(KINKED, lambda s: s.u_t + s.u, "t")
AT_0 = bx.Equation(KINKED, lambda s: s.u - 1.0, "t")


@pytest.mark.once
@pytest.mark.parametrize(
    ("layer", "warns"),
    [
        (bx.Derivatives(KINKED, [(), (0,)]), True),
        (bx.Derivatives(KINKED, [()]), False),
        (bx.Derivatives([bx.Dense(1, 1, "softplus")], [(0,)]), False),
        (FIRST, True),
        (AT_0, False),
        (bx.Groups([AT_0, FIRST], [1, 1]), True),
        (bx.Residual(*KINKED), False),
    ],
)
def test_a_training_on_derivatives_with_kinks_warns_at_its_start(
    xp: Any, layer: Any, warns: bool
) -> None:
    network = bx.Network([layer], "mean_squared_error")
    x = xp.asarray(np.linspace(0.0, 1.0, 4 * layer.n_in).reshape(4, -1))
    y = xp.namespace.zeros_like(network.forward(xp.initialize(network), x))
    case = network, xp.initialize(network), x, y
    expected = r"leaky_relu_with\(0.2\) are constant between its kinks.*\"tanh\"\."
    with pytest.warns(UserWarning, match=expected) if warns else contextlib.nullcontext():
        begun = bx.fit(*case, optimizer="adam", epochs=1)
    bx.fit(*case, optimizer="adam", epochs=2, start=begun)  # its warnings are errors
