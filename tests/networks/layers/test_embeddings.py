"""Embeddings of codes and of numbers, against closed forms and other libraries' autograd."""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from tests.helpers import long

# Both sides round some dozen operations, 2e-16 each.
PARITY = 1e-13

CODES, WIDTH = (6, 1, 4), 2
generator = np.random.default_rng(33)
# Few codes in many rows: each is there several times.
X = np.stack([generator.integers(n, size=20) for n in CODES], axis=-1).astype(float)
STACKS = [(), long((3,)), (2, 3)]
every_stack = pytest.mark.parametrize("stack", STACKS, ids=str)


def _embedding(stack: tuple[int, ...] = ()) -> tuple[bx.Network, np.ndarray, np.ndarray]:
    """Return a network of an Embedding alone, a theta for it, and g = dL/doutputs."""
    network = bx.Network([bx.Embedding(CODES, WIDTH)], "mean_squared_error")
    theta = generator.normal(size=(*stack, network.size))
    return network, theta, generator.normal(size=(*stack, len(X), len(CODES) * WIDTH))


def test_an_embedding_and_its_gradient_are_pytorchs(xp: Any, torch: Any) -> None:
    network, theta, g = _embedding()
    table = torch.tensor(theta.reshape(-1, WIDTH), requires_grad=True)
    tables = torch.split(table, CODES)
    columns = [
        torch.nn.functional.embedding(torch.tensor(X[:, k]).long(), tables[k])
        for k in range(len(CODES))
    ]
    expected = torch.cat(columns, dim=-1)
    (gradient,) = torch.autograd.grad(expected, [table], torch.tensor(g))
    ours = xp.put(theta, X, g)
    xp.assert_equal(network.forward(*ours[:2]), expected.detach().numpy().astype(xp.dtype))
    found, x_gradient = network.vjp(*ours)
    xp.assert_close(found, gradient.numpy().reshape(-1), PARITY)
    xp.assert_equal(x_gradient, np.zeros_like(X))


@pytest.mark.parametrize("shares_x", [True, False])
@every_stack
def test_the_tables_of_a_stack_are_looked_up_and_summed_one_by_one(
    xp: Any, stack: tuple[int, ...], shares_x: bool
) -> None:
    network, theta, g = _embedding(stack)
    x = X if shares_x else generator.permuted(np.broadcast_to(X, (*stack, *X.shape)), axis=-2)
    together = [network.forward(*xp.put(theta, x)), network.vjp(*xp.put(theta, x, g))[0]]
    for index in np.ndindex(stack):
        at = x if shares_x else x[index]
        alone = [network.forward(*xp.put(theta[index], at))]
        alone += [network.vjp(*xp.put(theta[index], at, g[index]))[0]]
        for one, other in zip(together, alone, strict=True):
            xp.assert_close(xp.host(one)[index], xp.host(other), PARITY)


@every_stack
def test_a_sample_moves_the_rows_of_its_codes_alone_and_always_alike(
    xp: Any, stack: tuple[int, ...]
) -> None:
    network = bx.Network([bx.Embedding(CODES, WIDTH), bx.Dense(6, 2)], "log_cosh")
    theta = xp.asarray(generator.normal(size=(*stack, network.size)))
    x, y = xp.put(X, generator.normal(size=(len(X), 2)))
    first, again = (xp.host(network.loss_and_gradient(theta, x, y)[1]) for _ in range(2))
    assert np.array_equal(first, again)
    one = xp.host(network.loss_and_gradient(theta, x[:1, :], y[:1, :])[1])
    rows = one[..., : sum(CODES) * WIDTH].reshape(*stack, sum(CODES), WIDTH)
    seen = (X[0] + np.cumsum((0, *CODES[:-1]))).astype(int)
    assert np.all(rows[..., seen, :] != 0.0)
    assert np.count_nonzero(rows) == rows[..., seen, :].size


WRONG_CODES = {"above": 4.0, "far above": 1e9, "below": -1.0, "infinite": np.inf, "half": 0.5}


@pytest.mark.parametrize("name", WRONG_CODES)
def test_fit_refuses_what_is_no_code_and_names_it(xp: Any, name: str) -> None:
    network = bx.Network([bx.Embedding(CODES, WIDTH), bx.Dense(6, 1)], "mean_squared_error")
    theta, wrong = xp.initialize(network), X.copy()
    wrong[7, 2] = WRONG_CODES[name]
    x, bad, y = xp.put(X, wrong, np.ones((20, 1)))
    options: Any = {"optimizer": bx.SGD(0.1), "epochs": 1}
    message = r"x\[7, 2\] is .* column 2 holds the codes .* 0 \.\.\. 3" + "|not finite" * (
        name == "infinite"
    )
    with pytest.raises(ValueError, match=message):
        bx.fit(network, theta, bad, y, **options)
    with pytest.raises(ValueError, match=f"In validation: .*{message}"):
        bx.fit(network, theta, x, y, validation=(bad, y), **options)
    if xp.name == "numpy":
        with pytest.raises(ValueError, match=r"x\[7, 2\]"):
            network.predict(theta, bad)
    bx.fit(network, theta, x, y, **options)


def test_a_layer_takes_the_nearest_code_and_0_for_nan(xp: Any) -> None:
    layer, table = bx.Embedding([3, 2], 1), xp.asarray(np.arange(5.0)[:, None])
    x = [[-1.0, 1.4], [7.0, 1e30], [np.nan, -np.inf], [1.6, np.inf], [2.0, 0.0]]
    y, cache = layer.forward([table], xp.asarray(x), None)
    xp.assert_equal(y, [[0.0, 4.0], [2.0, 4.0], [0.0, 3.0], [2.0, 4.0], [2.0, 3.0]])
    _, (gradient,) = layer.backward([table], cache, array_namespace(y).ones_like(y))
    xp.assert_equal(gradient, [[2.0], [0.0], [3.0], [2.0], [3.0]])
    whole = xp.asarray([[2, 1], [0, 0]], dtype=None)
    xp.assert_equal(layer.forward([table], whole, None)[0], [[2.0, 4.0], [0.0, 3.0]])


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_an_embedding_is_checked_by_codes_of_either_kind(xp: Any, method: str) -> None:
    layer, codes = bx.Embedding(CODES, WIDTH), X.astype(int)
    for x in (xp.asarray(X), xp.asarray(codes, dtype=None)):
        report = bx.check_layer(layer, x, wants_input=False, method=method)
        assert report.verdict == "pass", str(report)


def test_an_embedding_starts_with_normal_rows_unless_told_otherwise() -> None:
    (table,) = bx.Embedding(3000, 20).initialize(np.random.default_rng(0))
    assert np.std(table) == pytest.approx(1.0, abs=0.02)
    (zeros,) = bx.Embedding([2, 3], 4, "zeros").initialize(np.random.default_rng(0))
    assert (zeros.shape, np.any(zeros)) == ((5, 4), False)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 2), ValueError, "n_codes must be an integer of at least 1, not 0"),
        (([3, 0], 2), ValueError, "n_codes must be an integer of at least 1"),
        (([], 2), ValueError, "n_codes must hold 1 to 16777216 codes, not 0"),
        ((2**24 + 1, 2), ValueError, "n_codes must hold 1 to 16777216 codes, not 16777217"),
        (("12", 2), TypeError, r"n_codes must be a sequence such as \[12, 5\], not '12'"),
        ((2.5, 2), TypeError, "n_codes must be an integer"),
        ((3, 0), ValueError, "n_out must be an integer of at least 1"),
        ((3, 2, "normal"), ValueError, "initializer 'normal' is unknown"),
    ],
)
def test_what_makes_no_embedding_is_refused_by_name(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.Embedding(*arguments)


class _Codes:
    """A layer of a user's own that numbers what it is given."""

    names: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def initialize(self, generator: Any) -> tuple[np.ndarray, ...]:
        return ()

    def forward(self, parameters: Any, x: Any, rng: Any) -> Any:
        return array_namespace(x).round(x), None

    def backward(self, parameters: Any, cache: Any, g: Any, **options: bool) -> Any:
        return 0.0 * g, ()


def test_codes_behind_a_layer_that_changes_them_are_refused() -> None:
    codes = bx.Embedding(5, 2)
    behind = [
        ([bx.Scale(1), codes], r"layer 1 \(Embedding\) takes codes .* layer 0 \(Scale\) returns"),
        ([bx.Dropout(0.1), bx.Columns(codes, bx.Scale(1))], r"layer 1 \(Columns\) takes codes"),
        ([bx.Dense(2, 1), bx.Activate("relu"), codes], r"layer 2 .* layer 1 \(Activate\)"),
    ]
    for layers, message in behind:
        with pytest.raises(ValueError, match=message):
            bx.Network(layers, "mean_squared_error")
    for layers in ([codes, bx.Dense(2, 1)], [bx.Embedding(5, 1)]):
        with pytest.raises(ValueError, match=r"Residual adds its input .* take codes"):
            bx.Residual(*layers)
    # Of a layer of one's own nobody knows.
    bx.Network([_Codes(), codes], "mean_squared_error")
    bx.Network([bx.Chain(bx.Scale(1), _Codes()), codes], "mean_squared_error")
    bx.Network([codes, bx.Scale(2), bx.Residual(bx.Dense(2, 2))], "mean_squared_error")


def _formula(jnp: Any, kind: str, x: Any, f: Any, *rest: Any) -> Any:
    """The equations of the papers, number by number."""
    features = []
    for i in range(x.shape[-1]):
        *phases, weights, bias = (value[i] for value in rest)
        turns = 2 * np.pi * x[:, i : i + 1] * f[i]
        if kind == "pbld":
            waves = jnp.cos(turns + phases[0])
        else:
            waves = jnp.concatenate([jnp.cos(turns), jnp.sin(turns)], axis=-1)
        features.append(waves @ weights + bias)
    return jnp.concatenate([*[x] * (kind == "pbld"), *features], axis=-1)


@pytest.mark.parametrize("kind", ["pbld", long("pl")])
def test_a_numeric_embedding_is_the_papers_formula_and_its_gradient_jaxs(
    xp: Any, kind: str, jax: Any
) -> None:
    layer = bx.NumericEmbedding(3, 4, kind, n_frequencies=5)
    parameters = [generator.normal(size=shape) for shape in layer.shapes]
    x, g = generator.normal(size=(7, 3)), generator.normal(size=(7, 12))
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    expected, pullback = jax.vjp(lambda *a: _formula(jax.numpy, kind, *a), x, *parameters)
    gradients = [np.asarray(value) for value in pullback(jax.numpy.asarray(g))]
    expected = np.asarray(expected)
    jax.config.update("jax_enable_x64", before)
    ours = xp.put(*parameters)
    y, cache = layer.forward(ours, xp.asarray(x), None)
    xp.assert_close(y, expected, PARITY)
    back, found = layer.backward(ours, cache, xp.asarray(g))
    for one, other in zip([back, *found], gradients, strict=True):
        xp.assert_close(one, other, 10 * PARITY)


@pytest.mark.long
@every_stack
@pytest.mark.parametrize("kind", ["pbld", "pl"])
def test_the_numeric_embeddings_of_a_stack_are_those_of_its_networks(
    xp: Any, stack: tuple[int, ...], kind: str
) -> None:
    layer = bx.NumericEmbedding(3, 2, kind, n_frequencies=3)
    network = bx.Network([layer, bx.Dense(6, 1)], "huber", l2=0.1)
    theta, y = generator.normal(size=(*stack, network.size)), generator.normal(size=(7, 1))
    shared = generator.normal(size=(7, 3))
    for x in (shared, generator.normal(size=(*stack, 7, 3))):
        gradient = xp.host(network.loss_and_gradient(*xp.put(theta, x, y))[1])
        x_gradient = xp.host(network.vjp(*xp.put(theta, x, y))[1])
        for at in np.ndindex(stack):
            alone = theta[at], x if x is shared else x[at], y
            expected = network.loss_and_gradient(*xp.put(*alone))[1]
            xp.assert_close(gradient[at], xp.host(expected), PARITY)
            xp.assert_close(x_gradient[at], xp.host(network.vjp(*xp.put(*alone))[1]), PARITY)


def test_a_numeric_embedding_starts_as_realmlp_has_it() -> None:
    layer = bx.NumericEmbedding(200, frequency_scale=0.5)
    frequencies, phases, weights, bias = layer.initialize(np.random.default_rng(0))
    assert [one.shape for one in (frequencies, weights)] == [(200, 1, 16), (200, 16, 3)]
    assert np.std(frequencies) == pytest.approx(0.5, rel=0.05)
    for values, bound in ((phases, np.pi), (weights, 0.25), (bias, 0.25)):
        assert 0.98 * bound < np.max(np.abs(values)) <= bound
        assert np.std(values) == pytest.approx(bound / np.sqrt(3.0), rel=0.05)
    (_, weights, _) = bx.NumericEmbedding(200, 2, "pl").initialize(np.random.default_rng(0))
    assert 0.98 < np.max(np.abs(weights)) * np.sqrt(32.0) <= 1.0
    assert (layer.n_out, bx.NumericEmbedding(5, 2, "pl").n_out) == (800, 10)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "n_in must be an integer of at least 1"),
        ((3, 1), ValueError, "n_out must be an integer of at least 2, not 1"),
        ((3, 0, "pl"), ValueError, "n_out must be an integer of at least 1"),
        ((3, 4, "plr"), ValueError, "kind 'plr' is unknown. Did you mean 'pl'"),
        ((3, 4, "pl", 0), ValueError, "n_frequencies must be an integer"),
        ((3, 4, "pl", 2, 0.0), ValueError, "frequency_scale must be > 0"),
    ],
)
def test_what_makes_no_numeric_embedding_is_refused_by_name(
    arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.NumericEmbedding(*arguments)
