"""Parity: gradients equal those of JAX's and PyTorch's autograd, and numbers those of NumPy.

An oracle walks through the same description of a network, but it slices theta itself, computes
layers and losses by its library's own functions, and differentiates by its autograd. It uses only
the bits of a dropout mask from this library.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.chain.propagation import Layer
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.random_bits import fold_in, keep_mask
from tests.helpers import long, needing
from tests.user_layers import PARAMETRIC_LOSSES, sample_data, sample_network, sample_theta

pytestmark = pytest.mark.core

# Both sides round some hundred operations, 2e-16 each, and cancel a few of their digits.
PARITY = 1e-12

RNG = 29
NAMES = {activation: name for name, activation in ACTIVATIONS.items()}

Function = Callable[..., Any]
# A function of arrays and its arguments, and g = dL/doutput: the output, and dL/darguments.
VJP = Callable[[Function, Sequence[np.ndarray], np.ndarray], tuple[np.ndarray, list[np.ndarray]]]


class Oracle(NamedTuple):
    """Another library's functions, by our names, and its reverse-mode differentiation."""

    activations: dict[str, Function]
    losses: dict[str, Function]
    layer_norm: Function
    asarray: Function
    vjp: VJP


def _more_losses(xp: Any, log_softmax: Function, softplus: Function) -> dict[str, Function]:
    """Return losses as they are written in the papers, for an autograd to differentiate."""

    def blocks(o: Any, count: int) -> list[Any]:
        n = o.shape[-1] // count
        return [o[..., i * n : (i + 1) * n] for i in range(count)]

    def mean(each: Any) -> Any:
        return each.sum(-1) / each.shape[-1]

    def gaussian(o: Any, t: Any) -> Any:
        m, s = blocks(o, 2)
        return mean(0.5 * (s + (m - t) ** 2 / xp.exp(s)))

    def quantiles(*levels: float) -> Function:
        def value(o: Any, t: Any) -> Any:
            pairs = zip(levels, blocks(o, len(levels)), strict=True)
            each = [mean(xp.maximum(q * (t - b), (q - 1.0) * (t - b))) for q, b in pairs]
            return sum(each) / len(levels)

        return value

    def tweedie(p: float) -> Function:
        def value(o: Any, t: Any) -> Any:
            first = o if p == 1.0 else (xp.exp((1.0 - p) * o) - 1.0) / (1.0 - p)
            second = o if p == 2.0 else (xp.exp((2.0 - p) * o) - 1.0) / (2.0 - p)
            return mean(second - t * first)

        return value

    def focal(gamma: float, even: float = 0.0) -> Function:
        def value(o: Any, t: Any) -> Any:
            log_p, t = log_softmax(o), (1.0 - even) * t + even * t.sum(-1)[..., None] / t.shape[-1]
            return -(t * (1.0 - xp.exp(log_p)) ** gamma * log_p).sum(-1)

        return value

    def labels(o: Any, t: Any) -> Any:
        t = 0.9 * t + 0.05
        return mean(t * softplus(-o) + (1.0 - t) * softplus(o))

    def hinge(o: Any, t: Any) -> Any:
        margins = o + 1.0 - t
        return (margins.max(-1) if xp.__name__ != "torch" else margins.amax(-1)) - (t * o).sum(-1)

    return {
        "gaussian_nll": gaussian,
        "hinge": hinge,
        "quantile": quantiles(0.2),
        "quantiles": quantiles(0.1, 0.5, 0.9),
        "tweedie": tweedie(1.5),
        "tweedie of power 1": tweedie(1.0),
        "tweedie of power 2": tweedie(2.0),
        "focal": focal(2.0),
        "focal of gamma 0.5": focal(0.5),
        "smoothed classes": focal(0.0, 0.1),
        "smoothed labels": labels,
        "smoothed focal": focal(1.0, 0.2),
    }


def _jax_oracle(jax: ModuleType) -> Oracle:
    jnp, nn = jax.numpy, jax.nn
    same = ("sigmoid", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "softmax")

    def layer_norm(x: Any, scale: Any, bias: Any, epsilon: float) -> Any:
        centred = x - jnp.mean(x, -1, keepdims=True)
        return centred / jnp.sqrt(jnp.var(x, -1, keepdims=True) + epsilon) * scale + bias

    def huber(r: Any) -> Any:
        return jnp.where(jnp.abs(r) < 1.0, 0.5 * r**2, jnp.abs(r) - 0.5)

    def binary_cross_entropy(o: Any, t: Any) -> Any:
        return -jnp.mean(t * nn.log_sigmoid(o) + (1.0 - t) * nn.log_sigmoid(-o), -1)

    def vjp(
        function: Function, arguments: Sequence[np.ndarray], g: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        @jax.jit  # one compilation for all operations
        def computed(arguments: Sequence[Any], g: Any) -> tuple[Any, Any]:
            output, pullback = jax.vjp(function, *arguments)
            return output, pullback(g)

        output, gradients = computed([jnp.asarray(v) for v in arguments], jnp.asarray(g))
        return np.asarray(output), [np.asarray(v) for v in gradients]

    return Oracle(
        activations={name: getattr(nn, name) for name in same}
        | {"identity": lambda z: z, "tanh": jnp.tanh},
        losses={
            "mean_squared_error": lambda o, t: jnp.mean((o - t) ** 2, -1),
            "half_squared_error": lambda o, t: jnp.mean(0.5 * (o - t) ** 2, -1),
            "mean_absolute_error": lambda o, t: jnp.mean(jnp.abs(o - t), -1),
            "huber": lambda o, t: jnp.mean(huber(o - t), -1),
            "log_cosh": lambda o, t: jnp.mean(jnp.log(jnp.cosh(o - t)), -1),
            "poisson": lambda o, t: jnp.mean(jnp.exp(o) - t * o, -1),
            "binary_cross_entropy": binary_cross_entropy,
            "categorical_cross_entropy": lambda o, t: -jnp.sum(t * nn.log_softmax(o), -1),
            **_more_losses(jnp, nn.log_softmax, nn.softplus),
        },
        layer_norm=layer_norm,
        asarray=jnp.asarray,
        vjp=vjp,
    )


def _torch_oracle(torch: ModuleType) -> Oracle:
    F = torch.nn.functional  # noqa: N806
    same = ("sigmoid", "tanh", "relu", "leaky_relu", "elu", "silu")

    def per_sample(loss: Function, **options: Any) -> Function:
        return lambda o, t: loss(o, t, reduction="none", **options).mean(-1)

    def vjp(
        function: Function, arguments: Sequence[np.ndarray], g: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        tensors = [torch.tensor(v, requires_grad=True) for v in arguments]
        output = function(*tensors)
        gradients = torch.autograd.grad(output, tensors, torch.tensor(g))
        return output.detach().numpy(), [v.numpy() for v in gradients]

    return Oracle(
        activations={name: getattr(F, name) for name in same}
        | {
            "identity": lambda z: z,
            "gelu": lambda z: F.gelu(z, approximate="tanh"),
            # PyTorch's softplus is the identity beyond a threshold, by default too soon.
            "softplus": lambda z: F.softplus(z, threshold=50.0),
            "softmax": lambda z: F.softmax(z, -1),
        },
        losses={
            "mean_squared_error": per_sample(F.mse_loss),
            "half_squared_error": lambda o, t: 0.5 * per_sample(F.mse_loss)(o, t),
            "mean_absolute_error": per_sample(F.l1_loss),
            "huber": per_sample(F.huber_loss, delta=1.0),
            "log_cosh": lambda o, t: torch.log(torch.cosh(o - t)).mean(-1),
            "poisson": per_sample(F.poisson_nll_loss, log_input=True),
            "binary_cross_entropy": per_sample(F.binary_cross_entropy_with_logits),
            "categorical_cross_entropy": lambda o, t: F.cross_entropy(o, t, reduction="none"),
            **_more_losses(
                torch, lambda o: F.log_softmax(o, -1), lambda z: F.softplus(z, threshold=50.0)
            ),
        },
        layer_norm=lambda x, scale, bias, epsilon: F.layer_norm(
            x, x.shape[-1:], scale[0], bias[0], epsilon
        ),
        asarray=torch.asarray,
        vjp=vjp,
    )


@pytest.fixture(params=[needing("jax"), needing("torch")])
def oracle(request: pytest.FixtureRequest) -> Iterator[Oracle]:
    """Each autograd that is installed; JAX's with float64 switched on for the test's duration."""
    library = pytest.importorskip(request.param, reason=f"the oracle is {request.param}'s autograd")
    if request.param == "torch":
        yield _torch_oracle(library)
        return
    before = library.config.jax_enable_x64
    library.config.update("jax_enable_x64", True)
    yield _jax_oracle(library)
    library.config.update("jax_enable_x64", before)


def _outputs(oracle: Oracle, layers: Sequence[Layer], theta: Any, x: Any, rng: int | None) -> Any:
    """Return a chain's outputs; theta is sliced in the documented order."""
    return _chain(oracle, layers, _sliced(layers, theta), x, rng)


def _chain(
    oracle: Oracle, layers: Sequence[Layer], values: Iterator[Any], x: Any, rng: int | None
) -> Any:
    for i, layer in enumerate(layers):
        key = None if rng is None else fold_in(rng, i)
        match layer:
            case bx.Dense():
                z = x @ next(values) + next(values)
                x = oracle.activations[NAMES[layer.activation]](z)
            case bx.Activate():
                x = oracle.activations[NAMES[layer.activation]](x)
            case bx.LayerNorm():
                x = oracle.layer_norm(x, next(values), next(values), layer.epsilon)
            case bx.Dropout() if key is not None:
                mask = keep_mask(key, layer.rate, *x.shape, xp=np, device="cpu")
                x = x * oracle.asarray(mask / (1.0 - layer.rate))
            case bx.Residual():
                x = x + _chain(oracle, layer.layers, values, x, key)
    return x


def _shapes(layers: Sequence[Layer]) -> Iterator[tuple[int, int]]:
    for layer in layers:
        match layer:
            case bx.Dense():
                yield from ((layer.n_in, layer.n_out), (1, layer.n_out))
            case bx.LayerNorm():
                yield from ((1, layer.n), (1, layer.n))
            case bx.Residual():
                yield from _shapes(layer.layers)


def _sliced(layers: Sequence[Layer], theta: Any) -> Iterator[Any]:
    start = 0
    for rows, columns in _shapes(layers):
        yield theta[start : start + rows * columns].reshape(rows, columns)
        start += rows * columns


def _network(hidden: str, loss: str) -> bx.Network:
    """Return a network with a layer of every kind and the activation also at its end.

    Probabilities with a loss that has an inverse link are an error: such a network ends in raw
    outputs.
    """
    has_link = LOSSES[loss].inverse_link is not ACTIVATIONS["identity"].value
    is_linked_twice = has_link and hidden in ("sigmoid", "softmax")
    return sample_network(hidden, "identity" if is_linked_twice else hidden, loss)


def _close(xp: Any, actual: Any, expected: np.ndarray) -> None:
    actual = xp.host(actual)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=xp.rounding(PARITY) * float(np.max(np.abs(expected)))
    )


# An entry point returns its results, and the oracle's function, its arguments and g = dL/doutput.
Comparison = tuple[list[Any], Function, list[np.ndarray], np.ndarray]
Entry = Callable[[Any, Oracle], Comparison]


def gradient_entry(hidden: str, loss: str) -> Entry:
    network = _network(hidden, loss)
    theta, (x, y, weight) = sample_theta(network), sample_data(loss)

    def compare(xp: Any, oracle: Oracle) -> Comparison:
        def value(t: Any) -> Any:
            outputs = _outputs(oracle, network.layers, t, oracle.asarray(x), RNG)
            w, each = oracle.asarray(weight), oracle.losses[loss](outputs, oracle.asarray(y))
            # Weights are the tensors of more than one row.
            squares = sum((v**2).sum() for v in _sliced(network.layers, t) if v.shape[0] > 1)
            return (w * each).sum() / w.sum() + 0.5 * network.l2 * squares

        arrays, sample_weight = xp.put(theta, x, y), xp.asarray(weight)
        found = network.loss_and_gradient(*arrays, sample_weight=sample_weight, rng=RNG)
        return [*found], value, [theta], np.asarray(1.0)

    return compare


def vjp_entry(hidden: str, rng: int | None) -> Entry:
    network = _network(hidden, "mean_squared_error")
    theta, (x, g, _) = sample_theta(network), sample_data()

    def compare(xp: Any, oracle: Oracle) -> Comparison:
        arrays = xp.put(theta, x, g)
        found = [network.forward(*arrays[:2], rng=rng), *network.vjp(*arrays, rng=rng)]
        return found, lambda t, v: _outputs(oracle, network.layers, t, v, rng), [theta, x], g

    return compare


def activation_entry(name: str) -> Entry:
    def compare(xp: Any, oracle: Oracle) -> Comparison:
        (z, _, g), rule = _entries(), ACTIVATIONS[name]
        there = xp.asarray(z)
        a = rule.value(xp.asarray(z))
        return [a, rule.vjp(xp.asarray(g), there, a)], oracle.activations[name], [z], g

    return compare


def loss_entry(name: str) -> Entry:
    def compare(xp: Any, oracle: Oracle) -> Comparison:
        (o, t, _), value = _entries(), oracle.losses[name]
        one = {**LOSSES, **PARAMETRIC_LOSSES}[name]
        t = t[:, : 6 // one.outputs_per_target]
        found = [one.value(*xp.put(o, t)), one.gradient(*xp.put(o, t))]
        return found, lambda v: value(v, oracle.asarray(t)), [o], np.ones(5)

    return compare


def _entries() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pre-activations or outputs, probabilities, and derivatives."""
    draw = np.random.default_rng(31)
    return draw.normal(0.0, 5.0, (5, 6)), draw.dirichlet(np.ones(6), 5), draw.normal(size=(5, 6))


def _marks(hidden: str, loss: str) -> list[pytest.MarkDecorator]:
    """Return the marks of a pair: each has one of the others by default, all in the sweep.

    JAX's default session has one loss: entries of their own compare the losses.
    """
    if hidden == "gelu":
        return [] if loss == "categorical_cross_entropy" else [pytest.mark.long]
    return [pytest.mark.long if loss == "huber" else pytest.mark.thorough]


AUTOGRAD = [
    *(
        pytest.param(
            gradient_entry(*pair), id="gradient, {}, {}".format(*pair), marks=_marks(*pair)
        )
        for pair in itertools.product(ACTIVATIONS, LOSSES)
    ),
    # Dropout does not depend on the activation: each has one of the modes by default.
    *(
        pytest.param(
            vjp_entry(hidden, rng),
            id=f"vjp, {hidden}, {mode}",
            marks=[pytest.mark.thorough] * ((i + j) % 2),
        )
        for i, hidden in enumerate(ACTIVATIONS)
        for j, (mode, rng) in enumerate({"training": RNG, "inference": None}.items())
    ),
    *(pytest.param(activation_entry(name), id=f"activation {name}") for name in ACTIVATIONS),
    *(
        pytest.param(loss_entry(name), id=f"loss {name}")
        for name in (*LOSSES, *sorted({*PARAMETRIC_LOSSES} - {"huber_with"}))
    ),
]


@pytest.mark.parametrize("entry", AUTOGRAD)
def test_an_entry_point_agrees_with_autograd(xp: Any, oracle: Oracle, entry: Entry) -> None:
    found, function, arguments, g = entry(xp, oracle)
    value, gradients = oracle.vjp(function, arguments, g)
    for actual, expected in zip(found, [value, *gradients], strict=True):
        _close(xp, actual, expected)


# ---- the same numbers on every backend


def initial_theta(xp: Any, dtype: str, seed: int) -> list[Any]:
    return [xp.initialize(sample_network(), seed, dtype, stack=(2,))]


def rows_of_batches(xp: Any, dtype: str, seed: int) -> list[Any]:
    x = xp.asarray(np.random.default_rng(21).normal(5.0, 2.0, (11, 3)), dtype)
    arrays = x, xp.asarray(np.arange(11), dtype=None)
    options = {"batch_size": 4, "seed": seed, "epoch": seed % 7}
    parts = itertools.chain(*bx.data.minibatches(*arrays, **options))
    return [*bx.data.split(*arrays, seed=seed), *parts]


def training_on_digits(xp: Any, dtype: str, seed: int) -> list[Any]:
    """Return theta and the losses of a training on digits, which halves the loss."""
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x, y = xp.put(data.data / 16, bx.data.one_hot(data.target, 10), dtype=dtype)
    loss = "categorical_cross_entropy"
    network = bx.mlp([64, 32, 10], dropout=0.3, layer_norm=True, loss=loss)
    options: Any = {"optimizer": bx.AdamW(3e-3), "epochs": 5, "batch_size": 64, "seed": seed}
    result = bx.fit(network, xp.initialize(network, dtype=dtype), x, y, **options)
    losses = result.history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    return [result.theta, losses]


# The largest difference to NumPy, relative to the largest entry. Seeds give the same bits. A
# training differs by rounding: after 145 updates PyTorch and JAX on a CPU were 3e-16 and 2.4e-7
# off. The rest is room for other machines, far below one update of 3e-3.
SAME_TRAINING = {"float64": 1e-12, "float32": 1e-5}
SAME_BITS = {"float64": 0.0, "float32": 0.0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("entry", "seed", "tolerances"),
    [
        (initial_theta, 5, SAME_BITS),
        *[(rows_of_batches, seed, SAME_BITS) for seed in (0, 1, 2**40)],
        long(training_on_digits, 3, SAME_TRAINING),
    ],
)
def test_a_seed_gives_numpys_numbers(
    xp: Any, entry: Any, seed: int, tolerances: dict[str, float], dtype: str
) -> None:
    numpy = xp._replace(selection=bx.resolve(backend="numpy", device="cpu"))
    found, expected, other = (
        [xp.host(array) for array in entry(where, dtype, number)]
        for where, number in ((xp, seed), (numpy, seed), (numpy, seed + 1))
    )
    for actual, right in zip(found, expected, strict=True):
        assert (actual.dtype, actual.shape) == (right.dtype, right.shape)
        assert np.max(np.abs(actual - right)) <= tolerances[dtype] * np.max(np.abs(right))
    # Another seed differs by far more than the tolerance.
    distance = np.max(np.abs(other[0] - expected[0])) / np.max(np.abs(expected[0]))
    assert distance > 1000 * tolerances[dtype]
