"""At a kink, and near one, nothing right fails its gradient check, and what is wrong still does."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx

METHODS = ["auto", "complex_step", "centered", "directional"]
DTYPES = ["float64", "float32"]
every_method = pytest.mark.parametrize("method", METHODS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

RIGHT = ("pass", "kink")
# How far a pre-activation is from its kink; in float32 most of these are less than its rounding.
DISTANCES = [0.0, 1e-7, -1e-7, 1e-9, -1e-9, 1e-12, -1e-12]
# A wrong gradient must be off by more than the entries at the kink, which any slope may explain.
SHOWS = 0.01
# So many offending cases are listed when a test fails.
SHOWN = 5

XOR_ROWS = [[0, 0], [0, 1], [1, 0], [1, 1]]
XOR_TARGETS = [[0], [1], [1], [0]]


def _right(xp: Any, method: str) -> tuple[str, ...]:
    """Return the verdicts of what is right.

    A difference of float32 numbers is taken in float64; without that it may find that it cannot
    tell.
    """
    return (*RIGHT, "inconclusive") if (method, xp.dtype) == ("centered", "float32") else RIGHT


def _seeds(xp: Any) -> range:
    # NumPy tries many; the others one for each distance or so, to stay quick.
    return range({"numpy": 40, "jax": 2}.get(xp.name, 7))


def _distance(seed: int) -> float:
    return DISTANCES[seed % len(DISTANCES)]


def _frugal(xp: Any) -> dict[str, Any]:
    # JAX compiles each operation anew for every shape; of one copy at a time there is one.
    return {"max_memory": 1} if xp.name == "jax" else {}


def _fail_if_any(offences: dict[int, str | None]) -> None:
    """Fail with what was said of some of the seeds."""
    lines = [f"seed {seed}, {_distance(seed)}: {said}" for seed, said in offences.items() if said]
    if lines:
        pytest.fail("\n".join([f"{len(lines)} of {len(offences)} cases:", *lines[:SHOWN]]))


# ---- networks with a pre-activation at a kink, or beside one


class Case(NamedTuple):
    """A network, what it is checked at, and the unit of its first layer that is near a kink."""

    network: bx.Network
    theta: Any
    x: Any
    y: Any
    unit: int


def _case(xp: Any, hidden: bx.Activation, dtype: str, seed: int, *, layer: int = 0) -> Case:
    """Move a bias so that one pre-activation of a layer is as far from 0 as the seed says."""
    generator = np.random.default_rng(seed)
    network = bx.mlp([2, 3, 3, 1], hidden=hidden, loss="mean_squared_error")
    start = network.initialize(seed, backend="numpy", dtype="float64")
    theta = (start + generator.normal(0.0, 0.3, network.size)).astype(dtype)
    x, y = generator.normal(size=(4, 2)).astype(dtype), generator.normal(size=(4, 1)).astype(dtype)
    row, unit = int(generator.integers(4)), int(generator.integers(3))
    parts, inputs = network.unpack(theta), x
    for weights, bias in parts[:layer]:
        inputs = hidden.value(inputs @ weights + bias)
    weights, bias = parts[layer]
    bias[0, unit] -= (inputs @ weights + bias)[row, unit] - _distance(seed)
    theta, x, y = (xp.asarray(array, dtype=dtype) for array in (network.pack(parts), x, y))
    return Case(network, theta, x, y, unit)


def _offence(xp: Any, case: Case, method: str, allowed: tuple[str, ...]) -> str | None:
    """Return what a check says if that is none of the verdicts allowed."""
    network, theta, x, y, _ = case
    try:
        report = bx.check_network(network, theta, x, y, method=method, **_frugal(xp))
    except TypeError as error:  # "not analytic", of the complex step
        return repr(error)
    if report.verdict in allowed and (report.diagnosis is None or not report.passed):
        return None
    return str(report)


def _own(activation: bx.Activation, slope_below: float) -> bx.Activation:
    """Return a user's activation: the value of one of ours, and a slope below 0, 1 above."""

    def vjp(g: Any, z: Any, a: Any) -> Any:
        xp = bx.backends.array_namespace(z)
        above = xp.astype(z > 0.0, z.dtype)
        return g * (slope_below + (1.0 - slope_below) * above)

    return bx.Activation(activation.value, vjp)


RELU, LEAKY_RELU = bx.activations.relu, bx.activations.leaky_relu
BENT = {
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "relu of a user's own": _own(RELU, 0.0),
    "leaky_relu of a user's own": _own(LEAKY_RELU, 0.01),
}
# The right activation beside a wrong one.
WRONG = {
    "relu's derivative 1 everywhere": (RELU, _own(RELU, 1.0)),
    "relu's derivative 0.5 below 0": (RELU, _own(RELU, 0.5)),
    "leaky_relu's slope ten times too large": (LEAKY_RELU, _own(LEAKY_RELU, 0.1)),
    "leaky_relu's slope lost": (LEAKY_RELU, _own(LEAKY_RELU, 0.0)),
}


@every_dtype
@every_method
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("name", BENT)
def test_a_right_network_passes_or_is_at_a_kink_however_near_a_pre_activation_is_to_it(
    xp: Any, name: str, layer: int, method: str, dtype: str
) -> None:
    offences = {}
    for seed in _seeds(xp):
        case = _case(xp, BENT[name], dtype, seed, layer=layer)
        offences[seed] = _offence(xp, case, method, _right(xp, method))
    _fail_if_any(offences)


def _shows(xp: Any, case: Case, wrong: bx.Network) -> bool:
    """Say whether a wrong network's gradient is off in the units that are not near a kink."""
    _, theta, x, y, unit = case
    right, found = (
        xp.host(network.unpack(network.loss_and_gradient(theta, x, y)[1])[0][0])
        for network in (case.network, wrong)
    )
    off = np.max(np.abs(right - found), axis=0)
    return bool(np.max(np.delete(off, unit)) > SHOWS * np.max(np.abs(found)))


@every_dtype
@every_method
@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_slope_of_an_activation_fails_near_a_kink_too(
    xp: Any, mistake: str, method: str, dtype: str
) -> None:
    right, wrong = WRONG[mistake]
    network = bx.mlp([2, 3, 3, 1], hidden=wrong, loss="mean_squared_error")
    offences = {}
    for seed in _seeds(xp):
        case = _case(xp, right, dtype, seed)
        if _shows(xp, case, network):
            offences[seed] = _offence(xp, case._replace(network=network), method, ("fail",))
    assert offences
    _fail_if_any(offences)


# ---- pre-activations that are exactly 0

DENSE = [bx.Dense(2, 3, "relu"), bx.Dense(3, 1)]
EXACT: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "xor's row (0, 0)": (DENSE, {}),
    "leaky": ([bx.Dense(2, 3, "leaky_relu"), bx.Dense(3, 1)], {}),
    "after dropout": (
        [bx.Dense(2, 3), bx.Dropout(0.5), bx.Activate("relu"), bx.Dense(3, 1)],
        {"rng": 3},
    ),
    "behind dropout": (
        [bx.Dense(2, 3, "relu"), bx.Dropout(0.5), bx.Dense(3, 3, "relu"), bx.Dense(3, 1)],
        {"rng": 3},
    ),
    "after layer norm": (
        [bx.Dense(2, 3), bx.LayerNorm(3), bx.Activate("relu"), bx.Dense(3, 1)],
        {},
    ),
}


@every_dtype
@every_method
@pytest.mark.parametrize("kind", EXACT)
def test_a_right_network_passes_or_is_at_a_kink_where_pre_activations_are_0(
    xp: Any, kind: str, method: str, dtype: str
) -> None:
    layers, options = EXACT[kind]
    network = bx.Network(layers, "mean_squared_error")
    verdicts = {}
    for seed in _seeds(xp)[:10]:
        # As drawn, the biases are 0.
        theta = xp.initialize(network, seed=seed, dtype=dtype)
        verdicts[seed] = bx.check_network(
            network, theta, XOR_ROWS, XOR_TARGETS, method=method, **options, **_frugal(xp)
        ).verdict
    assert set(verdicts.values()) <= set(_right(xp, method)), verdicts


@every_dtype
@every_method
def test_a_wrong_slope_fails_where_pre_activations_are_0(xp: Any, method: str, dtype: str) -> None:
    network = bx.mlp([2, 3, 1], hidden=_own(RELU, 0.5), loss="mean_squared_error")
    # Every unit is below 0 in row (1, 1), so the wrong slope matters away from the kinks too.
    weights = [[-0.7, 0.5, -0.3], [0.4, -0.9, -0.6]]
    theta = network.pack(
        [(xp.asarray(w, dtype=dtype), xp.asarray(np.zeros((1, n)), dtype=dtype))
         for w, n in ((weights, 3), ([[0.8], [-0.5], [0.6]], 1))]
    )  # fmt: skip
    report = bx.check_network(network, theta, XOR_ROWS, XOR_TARGETS, method=method, **_frugal(xp))
    assert report.verdict == "fail"


# ---- functions of a user's own


def _relu_by_maximum(namespace: Any, p: Any) -> Any:
    """Refuse complex numbers, or order them in a way of the library's own."""
    return namespace.maximum(p, namespace.zeros_like(p))


def _relu_by_where(namespace: Any, p: Any) -> Any:
    """Select by the real part, and be right for complex numbers too."""
    is_complex = namespace.isdtype(p.dtype, "complex floating")
    return namespace.where((namespace.real(p) if is_complex else p) > 0.0, p, 0.0 * p)


def _relu_by_magnitude(namespace: Any, p: Any) -> Any:
    """Take a magnitude, which is real for complex numbers."""
    return 0.5 * (p + namespace.abs(p))


RELUS = {
    "maximum": _relu_by_maximum,
    "where": _relu_by_where,
    "magnitude": _relu_by_magnitude,
}
COEFFICIENTS = [2.0, -1.5, 0.7, 1.2, -0.4, 0.9]
# Entries that are 0 are at the kink; half of them, as a sparse penalty has it, is not many.
POINTS = {
    "one entry": [0.0, 0.8, -0.5, 0.3, -1.1, 0.6],
    "half of the entries": [0.0, 0.8, -0.5, 0.0, 0.0, 0.6],
}
every_point = pytest.mark.parametrize("kinked", POINTS)


class Ramps(NamedTuple):
    """``sum(c * relu(p) + p * p)``, and a gradient whose slope at 0 is anyone's choice."""

    namespace: Any
    coefficients: Any
    relu: Callable[[Any, Any], Any]
    slope_at_0: float = 0.0

    def value(self, p: Any) -> Any:
        ramps = self.coefficients * self.relu(self.namespace, p)
        return self.namespace.sum(ramps + p * p, axis=-1)

    def gradient(self, p: Any) -> Any:
        above = self.namespace.astype(p > 0.0, p.dtype)
        at_0 = self.namespace.astype(p == 0.0, p.dtype)
        return self.coefficients * (above + self.slope_at_0 * at_0) + 2.0 * p


def _ramps(xp: Any, name: str, dtype: str, slope_at_0: float) -> Ramps:
    coefficients = xp.asarray(COEFFICIENTS, dtype=dtype)
    return Ramps(xp.namespace, coefficients, RELUS[name], slope_at_0)


def _verdicts(xp: Any, name: str, slope: float, kinked: str, dtype: str) -> dict[str, str]:
    problem, point = _ramps(xp, name, dtype, slope), xp.asarray(POINTS[kinked], dtype=dtype)
    return {
        method: bx.check_gradient(problem.value, problem.gradient, point, method=method).verdict
        for method in METHODS
        # The complex step cannot see through the others.
        if method != "complex_step" or name == "where"
    }


@every_dtype
@every_point
@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", RELUS)
def test_at_a_kink_any_slope_between_the_one_sided_ones_is_right(
    xp: Any, name: str, slope: float, kinked: str, dtype: str
) -> None:
    verdicts = _verdicts(xp, name, slope, kinked, dtype)
    assert set(verdicts.values()) <= set(RIGHT), verdicts


@every_dtype
@every_point
@pytest.mark.parametrize("slope", [-0.5, 1.5])
@pytest.mark.parametrize("name", RELUS)
def test_at_a_kink_a_slope_beyond_the_one_sided_ones_is_wrong(
    xp: Any, name: str, slope: float, kinked: str, dtype: str
) -> None:
    verdicts = _verdicts(xp, name, slope, kinked, dtype)
    assert set(verdicts.values()) == {"fail"}, verdicts


@every_dtype
@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
@pytest.mark.parametrize(
    ("at", "slope", "verdict"),
    [
        (0.0, 0.3, "kink"),
        (0.0, -1.0, "kink"),
        (0.0, 1.3, "fail"),
        (0.0, -1.3, "fail"),
        (0.7, 1.0, "pass"),
        (-0.7, -1.0, "pass"),
        (0.7, 0.3, "fail"),
    ],
)
def test_the_slope_of_a_magnitude_is_free_at_0_alone_and_within_its_sides(
    xp: Any, at: float, slope: float, verdict: str, method: str, dtype: str
) -> None:
    report = bx.check_gradient(
        xp.namespace.abs, lambda p: p * 0.0 + slope, xp.asarray(at, dtype=dtype), method=method
    )
    assert report.verdict == verdict


@every_dtype
@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
@pytest.mark.parametrize("at", [[0.0, 0.3], [0.0, 0.0, 0.0, 0.3]], ids=["one kink", "three"])
def test_kinks_do_not_hide_that_the_complex_step_misses_a_term(
    xp: Any, at: list[float], method: str, dtype: str
) -> None:
    """A magnitude is real for complex numbers, and a lasso's gradient lacks its slope."""
    point, verdicts = xp.asarray(at, dtype=dtype), {}
    for seed in range(10 if xp.name == "numpy" else 3):
        verdicts[seed] = bx.check_gradient(
            lambda p: xp.namespace.sum(xp.namespace.abs(p) + p * p, axis=-1),
            lambda p: 2.0 * p,
            point,
            method=method,
            seed=seed,
        ).verdict
    assert not set(verdicts.values()) & set(RIGHT), verdicts


@every_dtype
@every_method
@pytest.mark.parametrize("distance", [10.0**-k for k in range(3, 10)])
def test_near_a_kink_what_is_right_never_fails_and_twice_that_does(
    xp: Any, distance: float, method: str, dtype: str
) -> None:
    """The kinks are within the steps of a difference, on either side."""
    point = xp.asarray([distance, 0.8, -0.5, -distance, -1.1, 0.6], dtype=dtype)
    problem = _ramps(xp, "where", dtype, 0.0)
    right = bx.check_gradient(problem.value, problem.gradient, point, method=method)
    twice = bx.check_gradient(
        problem.value, lambda p: 2.0 * problem.gradient(p), point, method=method
    )
    assert (right.verdict != "fail", twice.verdict) == (True, "fail")
