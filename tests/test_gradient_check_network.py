"""check_network's short ways: a moved parameter is sent through what it touches, and no more."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

# The same numbers in another order of operations.
ROUNDING = 1e-13
# What a difference of fourth order leaves at least of the digits of float64.
DIFFERENCE = 1e-8

ROWS = 4


class Twice:
    """A layer of a user's own, with parameters that are no matrix: x times a vector, twice."""

    names = ("factors",)
    shapes = ((2, 3),)

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, (2, 3)),)

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        once = x * parameters[0][..., :1, :]
        return once * parameters[0][..., 1:, :], (x, once)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        (factors,), (x, once) = parameters, cache
        xp = bx.backends.array_namespace(g)
        inner = g * factors[..., 1:, :]
        sums = [xp.sum(part, axis=-2, keepdims=True) for part in (inner * x, g * once)]
        by_input = inner * factors[..., :1, :]
        return (by_input if wants_input else None), (xp.concat(sums, axis=-2),)


SQUARE = bx.Activation(lambda z: z * z, lambda g, z, a: 2.0 * z * g)

# Dense before Dense sends one column on; the others take the whole output.
NETWORKS: dict[str, bx.Network] = {
    "dense layers": bx.mlp([2, 3, 3, 2], hidden="tanh", output="sigmoid"),
    "a penalty": bx.mlp([2, 3, 1], hidden="gelu", l2=0.3),
    "softmax inside": bx.mlp([2, 3, 2], hidden="softmax", loss="huber"),
    "dropout": bx.mlp([2, 3, 1], hidden="relu", dropout=0.4, loss="binary_cross_entropy"),
    "layer norm": bx.mlp([2, 3, 3], hidden="elu", layer_norm=True, loss="log_cosh"),
    "a residual": bx.Network(
        [bx.Dense(2, 3, "silu"), bx.Residual(bx.Dense(3, 3, "softplus"), bx.LayerNorm(3))],
        "categorical_cross_entropy",
        l2=0.1,
    ),
    "an activation of a user's own": bx.Network(
        [
            bx.Dense(2, 3, bx.Activation(lambda z: z * z, lambda g, z, a: 2.0 * z * g)),
            bx.Dense(3, 1),
        ],
        "mean_squared_error",
    ),
    "a layer of a user's own": bx.Network(
        [bx.Dense(2, 3), Twice(), bx.Activate("tanh"), bx.Dense(3, 2)], "mean_squared_error"
    ),
}


def _case(xp: Any, network: bx.Network, dtype: str = "working") -> tuple[Any, ...]:
    generator = np.random.default_rng(7)
    theta = xp.initialize(network, seed=3, dtype=dtype)
    theta = theta + xp.asarray(generator.normal(0.0, 0.3, network.size), dtype=dtype)
    n_out = network.forward(theta, xp.asarray(np.ones((1, 2)), dtype=dtype)).shape[-1]
    x, y = generator.normal(size=(ROWS, 2)), generator.dirichlet(np.ones(n_out), ROWS)
    weight = xp.asarray([1.0, 0.5, 2.0, 0.0], dtype=dtype)
    return theta, xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype), weight


@pytest.mark.float64
@pytest.mark.parametrize("method", ["complex_step", "centered"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_short_way_gives_what_the_whole_network_gives(xp: Any, name: str, method: str) -> None:
    if xp.name == "jax" and name not in ("a penalty", "a residual", "a layer of a user's own"):
        pytest.skip("JAX compiles every operation for every shape: three networks stand for all")
    network = NETWORKS[name]
    theta, x, y, weight = _case(xp, network)
    options: Any = {"sample_weight": weight, "rng": 5}
    short = bx.check_network(network, theta, x, y, method=method, batched=True, **options)
    whole = bx.check_gradient(
        lambda p: network.loss(p, x, y, **options),
        lambda p: network.loss_and_gradient(p, x, y, **options)[1],
        theta,
        method=method,
        batched=True,
    )
    assert (short.verdict, whole.verdict) == ("pass", "pass")
    # Whether value takes stacks is tried even where it is promised: two together, two alone.
    assert short.evaluations + 4 == whole.evaluations
    bound = ROUNDING if method == "complex_step" else DIFFERENCE
    np.testing.assert_allclose(xp.host(short.numeric), xp.host(whole.numeric), rtol=0.0, atol=bound)


def test_the_short_way_goes_through_the_layers_own_forward(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake in a later layer's forward, and not in its rule, must show."""
    network = NETWORKS["dense layers"]
    theta, x, y, _ = _case(xp, network)
    right = bx.Dense.forward

    def bent(self: Any, parameters: Any, x: Any, rng: Any) -> Any:
        y, cache = right(self, parameters, x, rng)
        return (1.5 * y, cache) if self.n_out == 2 else (y, cache)

    monkeypatch.setattr(bx.Dense, "forward", bent)
    assert bx.check_network(network, theta, x, y).verdict == "fail"


@pytest.mark.float64
def test_a_float32_network_is_raised_to_float64_for_differences(xp: Any) -> None:
    network = NETWORKS["dense layers"]
    theta, x, y, weight = _case(xp, network, "float32")
    report = bx.check_network(network, theta, x, y, sample_weight=weight, method="centered")
    assert report.verdict == "pass"
    assert report.engine == "centered difference in float64"
    assert report.numeric.dtype == theta.dtype


def test_a_layer_that_takes_no_complex_numbers_leaves_differences(xp: Any) -> None:
    class Real(Twice):
        def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
            if not bx.backends.array_namespace(x).isdtype(x.dtype, "real floating"):
                raise TypeError("real numbers only")
            return super().forward(parameters, x, rng)

    network = bx.Network([bx.Dense(2, 3, "tanh"), Real(), bx.Dense(3, 1)], "mean_squared_error")
    theta, x, y, _ = _case(xp, network)
    for method in ("auto", "directional"):
        report = bx.check_network(network, theta, x, y, method=method)
        assert report.verdict == "pass"
        assert "centered difference" in report.engine


def test_batched_false_sends_one_network_at_a_time(xp: Any) -> None:
    """A layer that does not take a stack, as a user's own may not, can be checked all the same."""

    class Alone(Twice):
        def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
            assert len(parameters[0].shape) == 2
            assert len(x.shape) == 2
            return super().forward(parameters, x, rng)

    network = bx.Network([bx.Dense(2, 3, "tanh"), Alone(), bx.Dense(3, 1)], "mean_squared_error")
    theta, x, y, _ = _case(xp, network)
    for batched in (False, None):
        report = bx.check_network(network, theta, x, y, batched=batched)
        assert (report.verdict, report.method) == ("pass", "complex_step")


@pytest.mark.parametrize("megabytes", [4, 16])
@pytest.mark.parametrize("method", ["complex_step", "centered"])
def test_a_check_keeps_within_its_memory(xp: Any, method: str, megabytes: int) -> None:
    if xp.name != "numpy":
        pytest.skip("tracemalloc sees the memory of NumPy alone")
    network = bx.mlp([64, 100, 10], hidden="sigmoid", output="sigmoid")
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(32, 64)), generator.uniform(size=(32, 10))
    theta = xp.initialize(network)
    bx.check_network(network, theta, x, y, method=method)
    tracemalloc.start()
    try:
        bx.check_network(network, theta, x, y, method=method, max_memory=megabytes * 2**20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 1.2 * megabytes * 2**20
