"""CuPy's replacements of small functions: the same results, in few kernels.

Specifies ``fused`` and ``table_kernels``.
"""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import activations
from backprop_xp.backends import Backend, sum_at, to_host
from backprop_xp.networks.layers import core, embeddings
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses import rules
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.networks.numbers.partial import WithLast
from tests.user_layers import PARAMETRIC_LOSSES

# A fused kernel may contract a product and a sum, and may sum in another order.
ROUNDINGS = 64
ROWS, N = 6, 5
ALL = {**LOSSES, **PARAMETRIC_LOSSES}

generator = np.random.default_rng(5)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
STACKS = [(), (3,), (2, 3)]
every_stack = pytest.mark.parametrize("stack", STACKS, ids=str)


@pytest.fixture
def put(gpu: Backend, dtype: str) -> Callable[[Any], Any]:
    return lambda values: gpu.from_host(np.asarray(values).astype(dtype))


def draw(*shape: int) -> np.ndarray:
    return 3.0 * generator.normal(size=shape)


def flat(result: Any) -> list[Any]:
    if isinstance(result, tuple | Iterator):
        return [leaf for part in result for leaf in flat(part)]
    return [result]


def assert_as_reference(function: Any, *arguments: Any) -> None:
    """Assert that CuPy's function equals its reference in dtype, shape and values."""
    copies = [a.copy() if hasattr(a, "get") else a for a in arguments]
    got, wanted = flat(function(*arguments)), flat(function.__wrapped__(*copies))
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        if other is None:
            assert one is None
            continue
        assert one.dtype == other.dtype
        one, other = to_host(one), to_host(other)
        close = ROUNDINGS * np.finfo(other.dtype).eps
        one, other = np.broadcast_arrays(one, other)
        np.testing.assert_allclose(one, other, rtol=close, atol=close * np.abs(other).max())


@every_dtype
@every_stack
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_with_its_bias_and_its_rule(put: Any, name: str, stack: Any) -> None:
    activation = ACTIVATIONS[name]
    z, bias = put(draw(*stack, ROWS, N)), put(draw(*stack, 1, N))
    assert_as_reference(activations.activated, z, activation)
    assert_as_reference(activations.activated, z, activation, bias)
    a = activation.value(z)
    kept = None if activation.from_output else z
    assert_as_reference(activations.sent_back, put(draw(*stack, ROWS, N)), activation, kept, a)


@every_dtype
@every_stack
@pytest.mark.parametrize("n_out", [1, 2, 3, 300])
@pytest.mark.parametrize("loss", ALL.values(), ids=ALL)
def test_a_loss_with_its_gradient(put: Any, loss: bx.Loss, stack: Any, n_out: int) -> None:
    both, per = loss.value.rule, loss.outputs_per_target  # type: ignore[attr-defined]
    if isinstance(both, WithLast) and both.function is rules.one_or_several and n_out == 1:
        both = bx.losses.over_outputs(both.last[0]).value.rule  # type: ignore[attr-defined]
    function, more = (both.function, both.last) if isinstance(both, WithLast) else (both, ())
    if function not in (rules.mean_over_outputs, rules.categorical):
        return  # made of functions that others test
    n_out, n = n_out * per, n_out
    o, classes = put(draw(*stack, ROWS, n_out)), generator.integers(0, n, ROWS)
    weights = put(generator.uniform(size=(*stack, ROWS, 1)))
    for t in (np.eye(n)[classes], np.zeros((*stack, ROWS, n)), np.ones((1, ROWS, n))):
        if t.ndim > o.ndim:
            continue
        for share in (0.25, weights):
            assert_as_reference(function, o, put(t), share, *more)


@every_dtype
def test_a_loss_at_confident_logits_keeps_its_digits(put: Any, dtype: str) -> None:
    """At a logit of 40 the gradient of the right class is -8e-18, not 0 as softmax - target."""
    o, t = put([[40.0, 0.0, 0.0]]), put([[1.0, 0.0, 0.0]])
    value, g = rules.categorical(o, t, 1.0)
    tail = 2.0 * np.exp(-40.0)
    np.testing.assert_allclose(to_host(value), [tail], rtol=1e-5)
    np.testing.assert_allclose(to_host(g), [[-tail, tail / 2, tail / 2]], rtol=1e-5)


def test_a_nan_output_makes_the_loss_nan(gpu: Backend) -> None:
    o = np.zeros((3, 40))
    o[1, 37] = np.nan
    value, g = rules.categorical(gpu.from_host(o), gpu.from_host(np.eye(40)[:3]), 1.0)
    assert np.isnan(to_host(value)).tolist() == [False, True, False]
    assert np.isnan(to_host(g)).all(axis=-1).tolist() == [False, True, False]


@every_dtype
@every_stack
def test_the_dropout_mask_is_the_same_to_the_bit(put: Any, gpu: Backend, stack: Any) -> None:
    x = put(draw(*stack, ROWS, N))
    keys = generator.integers(0, 2**31, size=(*stack, 1, 1)).astype(np.int32)
    for key in (0, 2**31 - 1, gpu.from_host(keys)):
        for rate in (0.1, 0.5, 0.999):
            got, wanted = (f(x, key, rate) for f in (core.dropped, core.dropped.__wrapped__))
            for one, other in zip(got, wanted, strict=True):
                np.testing.assert_array_equal(*np.broadcast_arrays(to_host(one), to_host(other)))


@every_dtype
@every_stack
@pytest.mark.parametrize("n", [1, 5, 33, 700])
def test_layer_norm_and_its_rule(put: Any, stack: Any, n: int) -> None:
    x, scale, bias = put(draw(*stack, ROWS, n)), put(draw(*stack, 1, n)), put(draw(*stack, 1, n))
    assert_as_reference(core.normalized, x, scale, bias, 1e-5)
    normed, inverse = core.normalized(x, scale, bias, 1e-5)[1]
    g = put(draw(*stack, ROWS, n))
    assert_as_reference(core.normalized_back, g, scale, normed, inverse)
    if stack:  # rows that the stack shares
        assert_as_reference(core.normalized, x[(0,) * len(stack)], scale, bias, 1e-5)


@every_dtype
@every_stack
def test_the_rows_of_codes_and_sums_over_equal_codes(put: Any, stack: Any) -> None:
    x = put(generator.integers(-2, 6, size=(*stack, ROWS, 3)) + generator.uniform(-0.4, 0.4))
    x[..., 0, 0] = np.nan
    for codes in ((4, 1, 7), (2, 2, 2)):
        got, wanted = (
            embeddings.rows_of_codes(x, codes),
            embeddings.rows_of_codes.__wrapped__(x, codes),
        )
        np.testing.assert_array_equal(to_host(got), to_host(wanted))
    indices = embeddings.rows_of_codes(x, (4, 1, 7)).reshape(*stack, -1)
    for at in (indices, indices[(0,) * len(stack)]):
        assert_as_reference(sum_at, put(draw(*stack, 3 * ROWS, N)), at, 12)


def test_complex_arrays_use_the_reference_functions(gpu: Backend) -> None:
    z = gpu.from_host(draw(ROWS, N) + 1e-30j)
    for activation in ACTIVATIONS.values():
        assert_as_reference(activations.activated, z, activation)
    for loss in LOSSES.values():
        t = (z.real * z.real)[:, : N // loss.outputs_per_target]
        z = z[:, : t.shape[-1] * loss.outputs_per_target]
        assert to_host(loss.value(z, t)).dtype == np.complex128


def test_a_custom_activation_is_fused(gpu: Backend) -> None:
    emulator = pytest.importorskip("cuda_emulator", reason="launches are counted on an emulator")
    square = bx.Activation(lambda z: 0.5 * z * z + z, lambda g, z, a: g * (z + 1.0))
    z, bias = gpu.from_host(draw(ROWS, N)), gpu.from_host(draw(1, N))
    for _ in range(2):
        with emulator.record() as calls:
            activations.activated(z, square, bias)
            activations.sent_back(z, square, z, z)
    assert [call.kind for call in calls].count("launch") == 2


@dataclass
class Unhashable:
    by: float

    def __call__(self, z: Any) -> Any:
        return z * self.by


def centred(z: Any) -> Any:
    return z - z.mean(axis=-1, keepdims=True) * (z.shape[-1] / N)


def in_place(g: Any, z: Any, a: Any) -> Any:
    g *= 2.0 * z
    return g


OWN = {
    "is fused": bx.Activation(lambda z: 0.5 * z * z + z, lambda g, z, a: g * (z + 1.0)),
    "cannot be fused": bx.Activation(centred, lambda g, z, a: centred(g)),
    "writes into what it is given": bx.Activation(lambda z: z * z, in_place),
    "is fused for some shapes alone": bx.Activation(
        lambda z: z / z.shape[-1] if z.ndim == 3 else z / 4, lambda g, z, a: g
    ),
    "is not hashable": bx.Activation(Unhashable(3.0), lambda g, z, a: 3.0 * g),
}


@pytest.mark.parametrize("what", OWN)
def test_a_custom_activation_that_cannot_be_fused_runs_unchanged(gpu: Backend, what: str) -> None:
    bias = gpu.from_host(draw(1, N))
    for shape in ((ROWS, N), (2, ROWS, N), (ROWS, N)):
        z = gpu.from_host(draw(*shape))
        assert_as_reference(activations.activated, z, OWN[what])
        assert_as_reference(activations.activated, z, OWN[what], bias)
        assert_as_reference(activations.sent_back, z.copy(), OWN[what], z, z)


def test_an_error_in_a_custom_function_is_raised_unchanged(gpu: Backend) -> None:
    def broken(z: Any) -> Any:
        raise ArithmeticError("no such thing")

    own = bx.Activation(broken, lambda g, z, a: g)
    with pytest.raises(ArithmeticError, match="no such thing"):
        activations.activated(gpu.from_host(draw(ROWS, N)), own)


# ---- launches


TRAININGS: dict[str, tuple[list[int], int, int, dict[str, Any]]] = {
    "XOR": ([2, 2, 1], 4, 16, {"hidden": "sigmoid", "output": "sigmoid"}),
    "64-100-10": ([64, 100, 10], 200, 17, {"loss": "categorical_cross_entropy"}),
    "784-512-512-10": ([784, 512, 512, 10], 256, 23, {"loss": "categorical_cross_entropy"}),
}


# A copy that no processor waits for.
ON_THE_DEVICE = "device to device"


def per_update(network: bx.Network, batch: int, targets: Any, *, by_epochs: bool) -> dict[str, int]:
    """Return the calls of one more update: an epoch of one batch, or one more batch of an epoch."""
    emulator = pytest.importorskip("cuda_emulator", reason="launches are counted on an emulator")
    theta = network.initialize(backend="cupy", dtype="float32")

    def calls_of(batches: int, epochs: int) -> dict[str, int]:
        rows = batches * batch
        x, y = draw(rows, network.layers[0].n_in), targets(rows)
        x, y = (bx.asarray(array, backend="cupy", dtype="float32") for array in (x, y))
        training: dict[str, Any] = {"optimizer": bx.Adam(), "epochs": epochs}
        for _ in range(2):  # the second run compiles nothing and allocates no memory
            with emulator.record() as calls:
                bx.fit(network, theta, x, y, batch_size=batch, **training)
        kinds = [call.kind for call in calls]
        kinds += ["transfer" for one in calls if one.kind == "copy" and one.name != ON_THE_DEVICE]
        return {kind: kinds.count(kind) for kind in ("launch", "copy", "transfer", "synchronize")}

    few, many = (calls_of(1, 3), calls_of(1, 5)) if by_epochs else (calls_of(3, 1), calls_of(5, 1))
    return {kind: (many[kind] - few[kind]) / 2 for kind in many}


@pytest.mark.parametrize("name", TRAININGS)
def test_an_update_within_fit_launches_few_kernels(gpu: Backend, name: str) -> None:
    sizes, batch, most, options = TRAININGS[name]

    def targets(rows: int) -> np.ndarray:
        y = np.eye(max(2, sizes[-1]))[generator.integers(0, sizes[-1] + 1, rows) % sizes[-1]]
        return y[:, : sizes[-1]]

    each = per_update(bx.mlp(sizes, **options), batch, targets, by_epochs=name == "XOR")
    assert each["launch"] <= most
    assert each["copy"] == each["synchronize"] == 0


SMOOTH = bx.mlp([2, 16, 16, 1], hidden="tanh").layers
OF_DERIVATIVES: dict[str, tuple[Any, int]] = {
    "values": (bx.Derivatives(SMOOTH, [()]), 41),
    "values and slopes": (bx.Derivatives(SMOOTH, [(), (0,), (1,)]), 92),
    "heat": (bx.Equation(SMOOTH, lambda s: s.u_t - s.u_xx, "tx"), 158),
}


@pytest.mark.parametrize("name", OF_DERIVATIVES)
def test_an_update_of_derivatives_neither_transfers_nor_waits(gpu: Backend, name: str) -> None:
    layer, most = OF_DERIVATIVES[name]
    network = bx.Network([layer], "mean_squared_error")
    each = per_update(network, 32, lambda rows: draw(rows, layer.n_out), by_epochs=False)
    assert each["launch"] <= most
    assert each["transfer"] == each["synchronize"] == 0


def test_every_replaced_function_is_one_that_backends_may_replace() -> None:
    for name, function in bx.backends.registry.built_in("cupy").replacements.items():
        module, _, rest = name.rpartition(".")
        if ".optimizers." not in name:
            assert hasattr(getattr(importlib.import_module(module), rest), "__wrapped__"), name
            assert callable(function)
