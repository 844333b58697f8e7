"""At and near a kink, right gradients do not fail their check, and wrong ones still fail.

Specifies ``extrapolation``.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.gradient_check.engine.extrapolation import with_kinks
from backprop_xp.gradient_check.engine.lines import NumericDerivative
from tests.helpers import long, thorough
from tests.planted_mistakes import METHODS, check, difference_methods, every_dtype

pytestmark = pytest.mark.long

RIGHT = {"pass", "kink"}
# The distance of a pre-activation from its kink; in float32 most are smaller than its rounding.
DISTANCES = [0.0, 1e-7, -1e-7, 1e-9, -1e-9, 1e-12, -1e-12]
# At these distances every step crosses the kink, so a check may be inconclusive.
TOO_NEAR = 1e-9
# A wrong gradient differs outside the entries at the kink by this part of the largest entry.
SHOWS = {"float64": 0.01, "float32": 0.1}


def _custom_activation(activation: bx.Activation, slope_below: float) -> bx.Activation:
    """Return a custom activation: the value of ours, with a given slope below 0 and 1 above."""

    def vjp(g: Any, z: Any, a: Any) -> Any:
        above = bx.backends.array_namespace(z).astype(z > 0.0, z.dtype)
        return g * (slope_below + (1.0 - slope_below) * above)

    return bx.Activation(activation.value, vjp)


RELU, LEAKY_RELU = bx.activations.relu, bx.activations.leaky_relu
HIDDEN = {  # the right activation, and the checked one
    "relu": (RELU, RELU),
    "leaky_relu": (LEAKY_RELU, LEAKY_RELU),
    "a user's relu": (RELU, _custom_activation(RELU, 0.0)),
    "wrong: relu's slope 0.5 below 0": (RELU, _custom_activation(RELU, 0.5)),
    "wrong: leaky_relu's slope lost": (LEAKY_RELU, _custom_activation(LEAKY_RELU, 0.0)),
}


def _case(xp: Any, network: bx.Network, hidden: Any, dtype: str, seed: int, layer: int) -> Any:
    """Return theta with one pre-activation at a distance from 0, x, y, and its unit."""
    generator = np.random.default_rng(seed)
    start = network.initialize(seed, backend="numpy", dtype="float64")
    theta = (start + generator.normal(0.0, 0.3, network.size)).astype(dtype)
    x, y = generator.normal(size=(4, 2)).astype(dtype), generator.normal(size=(4, 1)).astype(dtype)
    row, unit = int(generator.integers(4)), int(generator.integers(3))
    parts, inputs = network.unpack(theta), x
    for weights, bias in parts[:layer]:
        inputs = hidden.value(inputs @ weights + bias)
    weights, bias = parts[layer]
    bias[0, unit] -= (inputs @ weights + bias)[row, unit] - DISTANCES[seed % len(DISTANCES)]
    return *(xp.asarray(array, dtype=dtype) for array in (network.pack(parts), x, y)), unit


# Each distance in each of two layers.
swept = pytest.param(range(14), marks=pytest.mark.thorough)


# A method and a dtype in turn for each network; the thorough session has all of them.
SOME = [
    pytest.param(name, method, dtype, marks=[pytest.mark.thorough] * ((i + j + k) % 2))
    for i, name in enumerate(HIDDEN)
    for j, method in enumerate(METHODS[:4])
    for k, dtype in enumerate(("float64", "float32"))
]


@pytest.mark.once
@pytest.mark.parametrize(("name", "method", "dtype"), SOME)
@pytest.mark.parametrize("seeds", [None, swept], ids=["some", "all"])
def test_a_right_network_passes_and_a_wrong_one_fails_near_kinks(
    xp: Any, seeds: range | None, name: str, method: str, dtype: str
) -> None:
    right, own = (bx.mlp([2, 3, 3, 1], hidden=h, loss="mean_squared_error") for h in HIDDEN[name])
    tried = 0
    # Without marks: a mistake at two distances, a right gradient at four; with JAX at one.
    enough = 1 if xp.name == "jax" else 2 if name.startswith("wrong") else 4
    for seed in seeds or range(7):
        if seeds is None and tried == enough:
            break
        layer = seed % 2
        *case, unit = _case(xp, right, HIDDEN[name][0], dtype, seed, layer)
        expected, distance = RIGHT, abs(DISTANCES[seed % len(DISTANCES)])
        if name.startswith("wrong"):
            found, slopes = (
                np.delete(xp.host(n.unpack(n.loss_and_gradient(*case)[1])[layer][0]), unit, 1)
                for n in (own, right)
            )
            shows = SHOWS[xp.dtype] * np.max(np.abs(found))
            if np.max(np.abs(found - slopes)) <= shows:
                continue
            expected = {"fail"}
        elif method == "centered" and (0.0 < distance <= TOO_NEAR or xp.dtype == "float32"):
            expected = {*RIGHT, "inconclusive"}
        # JAX compiles each operation for every shape; one copy at a time has one shape.
        frugal = {"max_memory": 1} if xp.name == "jax" else {}
        verdict, tried = check.network(own, *case, method=method, **frugal).verdict, tried + 1
        assert verdict in expected, (seed, distance)
    assert tried or xp.dtype == "float32"


# Right for complex numbers too; real for them.
RELUS: dict[str, Any] = {
    "where": lambda xp, p: xp.where(
        (xp.real(p) if xp.isdtype(p.dtype, "complex floating") else p) > 0.0, p, 0.0 * p
    ),
    "magnitude": lambda xp, p: 0.5 * (p + xp.abs(p)),
}
COEFFICIENTS = [2.0, -1.5, 0.7, 1.2, -0.4, 0.9]


@pytest.mark.parametrize(
    ("relu", "dtype"),
    [
        *(("where", "float64"), ("magnitude", "float32")),
        *(thorough("where", "float32"), thorough("magnitude", "float64")),
    ],
)
@difference_methods
@pytest.mark.parametrize("at", [[0.3, -1.1], long([0.0, 0.0])], ids=["one kink", "three"])
def test_slopes_within_a_kink_are_right(
    xp: Any, relu: str, at: Any, method: str, dtype: str
) -> None:
    namespace, c = xp.namespace, xp.asarray(COEFFICIENTS, dtype=dtype)
    point = xp.asarray([0.0, 0.8, -0.5, *at, 0.6], dtype=dtype)
    value = lambda p: namespace.sum(c * RELUS[relu](namespace, p) + p * p, axis=-1)  # noqa: E731

    def gradient(p: Any, slope: float) -> Any:
        above, at_0 = (namespace.astype(where, p.dtype) for where in (p > 0.0, p == 0.0))
        return c * (above + slope * at_0) + 2.0 * p

    for slope in (0.0, 0.5, 1.0, -0.5, 1.5) if xp.name != "jax" else (0.5, -0.5):
        report = check.gradient(value, lambda p, s=slope: gradient(p, s), point, method=method)
        assert report.verdict in (RIGHT if 0.0 <= slope <= 1.0 else {"fail"}), slope


@every_dtype
@difference_methods
@pytest.mark.parametrize("at", [[0.0, 0.3], long([0.0, 0.0, 0.0, 0.3])], ids=["one kink", "three"])
def test_kinks_do_not_hide_a_missing_term(xp: Any, at: Any, method: str, dtype: str) -> None:
    """A magnitude is real for complex numbers, and the gradient of a lasso lacks its slope."""
    lasso = lambda p: xp.namespace.sum(xp.namespace.abs(p) + p * p, axis=-1)  # noqa: E731
    case = lasso, lambda p: 2.0 * p, xp.asarray(at, dtype=dtype)
    for seed in range(3):
        assert check.gradient(*case, method=method, seed=seed).verdict not in RIGHT


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_a_direction_through_many_kinks_causes_no_failure(share: float) -> None:
    # Half the entries are at their kink, with slopes 0 and 1; a direction sees sums of them.
    point = np.tile([0.0, 0.7], 10_001)
    report = bx.check_gradient(
        lambda p: np.sum(np.maximum(p, 0.0)),
        lambda p: (p > 0.0) + share * (p == 0.0) - (share == 0.0) * 5.0,
        point,
    )
    assert report.method == "directional"
    assert (report.verdict, report.passed) == (("kink", True) if share else ("inconclusive", False))
    assert report.max_relative_error <= report.tolerance
    assert share or "kinks meet on a direction" in report.reason


@pytest.mark.parametrize("slope", [0.0, 0.1])
@pytest.mark.parametrize("method", ["auto", "directional"])
@pytest.mark.parametrize("power", [0.25, 0.5, 0.75])
def test_nothing_passes_at_a_cusp_and_the_report_has_the_reason(
    power: float, method: str, slope: float
) -> None:
    for at in (0.0, 1.0):
        value = lambda p, at=at: 1.0 + np.sum(np.abs(p - at) ** power)  # noqa: E731
        report = check.gradient(value, lambda p: slope + 0.0 * p, np.full(2, at), method=method)
        assert report.verdict == "inconclusive"
        assert "value has no derivative here" in report.reason


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_a_gradient_of_0_passes_where_the_value_is_even(method: str) -> None:
    for value in (np.cosh, np.square, lambda p: p**4, lambda p: np.abs(p) ** 1.5, np.cos):
        case = lambda p, value=value: 5.0 + np.sum(value(p.real)), lambda p: 0.0 * p
        assert check.gradient(*case, np.zeros(2), method=method).verdict == "pass"


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_a_jacobian_that_is_flat_beyond_a_kink_gets_a_verdict(method: str) -> None:
    """A complex step of z / |z| sees a slope of sign(z), which real differences must refute."""
    case = (
        lambda p: np.where(np.abs(p) <= 1.345, p, 1.345 * np.sign(p)),
        lambda p: np.diag(1.0 * (np.abs(p) <= 1.345)),
        np.array([-9.0, 3.3, 60.0]),
    )
    assert check.jacobian(*case, method=method).verdict != "fail"


@pytest.mark.parametrize("distance", [0.5, 0.125, 2.0**-7])
def test_a_kink_just_within_a_step_is_not_taken_for_a_coarse_value(distance: float) -> None:
    """Seen from the longest step that crosses it, the value changes as abruptly as at a jump."""
    at = 1.0 + distance * (1.0 - 1e-5)
    value = lambda p: float(1.0 + np.maximum(p[0].real - at, 0.0) + p[1].real ** 2)  # noqa: E731
    for slope, verdict in ((0.0, "pass"), (1e-6, "fail")):
        gradient = lambda p, s=slope: np.array([s, 2.0 * p[1]])  # noqa: E731
        assert check.gradient(value, gradient, np.array([1.0, 0.5])).verdict == verdict


def _small_network(layers: int, size: float, seed: int, *, single: bool) -> tuple[Any, Any, Any]:
    """Return value, gradient and point of a relu network of small weights and biases of 0.

    Its kinks are nearer than the value's noise resolves: the first layers make tiny activations.
    """
    network = bx.mlp([3, *[6] * (layers - 1), 1], hidden="relu", loss="half_squared_error")
    draw = np.random.default_rng(seed)
    x, y = draw.normal(size=(8, 3)), draw.normal(size=(8, 1))
    theta = size * draw.normal(size=network.size)
    for layer in network.layout:
        theta[layer[1].part] = 0.0

    def value(p: Any) -> float:
        if not single:
            return float(network.loss(p, x, y))
        return float(network.loss(p.astype(np.float32), x.astype("f"), y.astype("f")))

    return value, lambda p: network.loss_and_gradient(p, x, y)[1], theta


@pytest.mark.parametrize("seed", [1, *map(thorough, (2, 3, 4))])
@pytest.mark.parametrize(
    ("layers", "size", "single"),
    [(3, 1e-4, False), (2, 1e-3, True), thorough(2, 1e-4, True), thorough(2, 3e-3, True)],
)
def test_kinks_that_noise_does_not_resolve_refute_no_gradient(
    layers: int, size: float, single: bool, seed: int
) -> None:
    # Where kinks of three layers meet, 4 of 40 seeds fail, 0 the first of them, as the page says.
    value, gradient, theta = _small_network(layers, size, seed, single=single)
    assert check.gradient(value, gradient, theta).verdict != "fail"
    doubled = check.gradient(value, lambda p: 2.0 * gradient(p), theta)
    assert doubled.verdict in ("fail", "inconclusive")


@pytest.mark.parametrize(("layers", "size", "seed"), [(4, 1e-2, 39), (3, 1e-3, 22)])
def test_a_smooth_curve_over_longer_steps_skips_no_kink(
    layers: int, size: float, seed: int
) -> None:
    """The kinks nearby cancel over longer steps, whose slope is smooth and another one."""
    value, gradient, theta = _small_network(layers, size, seed, single=False)
    assert check.gradient(value, gradient, theta).verdict != "fail"
    wrong = check.gradient(value, lambda p: 1.5 * gradient(p), theta)
    assert wrong.verdict in ("fail", "inconclusive")


def test_a_kink_at_shorter_steps_counts_and_one_at_longer_steps_does_not() -> None:
    """The bar of the smooth curve is small beside the gap of the slopes."""
    h = 4.0 ** -np.arange(20.0)[:, None, None]
    right = np.where(h < 1e-4, 1.0, 0.5)
    for step, is_kinked in ((1e-2, True), (1e-12, False)):
        smooth = NumericDerivative(*(np.full((1, 1), v) for v in (0.5, 1e-3, 0.5, 0.5, step)))
        found = with_kinks(smooth, right, 0.0 * right, 1e-16 + 0.0 * h, h)
        assert found.is_kinked.item() is is_kinked


def test_slopes_beside_kinks_that_are_nearer_than_steps_show_are_in_doubt() -> None:
    """The slope between them lies outside of those to the right and to the left."""

    def value(p: Any) -> float:
        x = p.item()
        return 1.0 + 1e-7 * (3.0 * max(x - 1e-10, 0.0) - max(x + 1e-10, 0.0))

    report = check.gradient(value, lambda p: np.full(1, -1e-7), np.zeros(1))
    assert report.verdict == "inconclusive"
    assert "noise hides the slope" in report.reason
    between = check.gradient(value, lambda p: np.full(1, 1e-7), np.zeros(1))
    assert between.verdict in ("kink", "inconclusive")


def test_slopes_at_a_kink_reach_what_shorter_steps_show() -> None:
    h = 4.0 ** -np.arange(20.0)[:, None, None]
    right = np.where(h > 1e-4, 1.0, -1.0)  # beyond another kink
    unknown = np.full((1, 1), np.inf)
    found = with_kinks(NumericDerivative(*[unknown] * 5), right, 0.0 * right, 1e-8 + 0.0 * h, h)
    low = min(found.left.item(), found.right.item()) - found.bar.item()
    assert low <= -1.0 + 1e-3


@pytest.mark.parametrize("at", [0.0, 1.0, 3.0, -0.3])
def test_a_kink_where_the_value_is_0_is_no_pole(at: float) -> None:
    """Beside it each step's value is many times as large as those before, as beside a pole."""

    def value(p: Any) -> Any:
        return np.sum(np.abs(p - at))

    point = np.asarray([at])
    right = check.gradient(value, lambda p: np.sign(p - at), point)
    assert (right.verdict, right.reason.partition(" the slope")[0]) == ("kink", "at [0]")
    assert check.gradient(value, lambda p: 3.0 + 0.0 * p, point).verdict == "fail"
    along = bx.check_jvp(np.abs, lambda p, v: np.sign(p) * v, 0.0 * point)
    assert along.verdict == "kink"
    assert "to the left" in along.reason
    wrong = bx.check_jvp(np.abs, lambda p, v: 3.0 * v, 0.0 * point)
    assert wrong.verdict == "fail"
