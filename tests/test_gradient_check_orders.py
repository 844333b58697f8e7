"""The order of a gradient's remainder tells right from wrong: Taylor's test, and the tutorial's."""

import itertools
import math
import statistics
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

# How far a measured order may be from its limit: the next term of Taylor's series and rounding each
# bend it by less than a tenth at the steps that are taken.
BEND = 0.15
# log2 of a column's quotients, computed twice.
ROUNDING = 1e-12
# Remainders so far above their noise have three digits.
DIGITS = 1000.0

ROWS = [[0, 0], [0, 1], [1, 0], [1, 1]]
TARGETS = [[0], [1], [1], [0]]
TUTORIAL_STEP = 0.1

COEFFICIENTS = np.array([[1.0, -2.0, 0.5], [3.0, 1.5, -1.0]])
POINT = np.array([[0.4, -1.1, 0.9], [1.6, 0.2, -0.8]])

SEEDS = range(5)


class Problem:
    """``sum(c * sin(p) + p * p)`` and its gradient: no term of its series is 0."""

    def __init__(self, xp: Any, dtype: str = "working") -> None:
        self.namespace = xp.namespace
        self.c = xp.asarray(COEFFICIENTS, dtype=dtype)
        self.point = xp.asarray(POINT, dtype=dtype)

    def value(self, p: Any) -> Any:
        return self.namespace.sum(self.c * self.namespace.sin(p) + p * p)

    def gradient(self, p: Any) -> Any:
        return self.c * self.namespace.cos(p) + 2.0 * p

    def check(self, factor: float = 1.0, **options: Any) -> Any:
        options = {"method": "taylor", **options}
        return bx.check_gradient(
            self.value, lambda p: factor * self.gradient(p), self.point, **options
        )


def _orders(remainders: tuple[float, ...], count: int) -> list[float]:
    pairs = itertools.islice(itertools.pairwise(remainders), count)
    return [math.log2(longer / shorter) for longer, shorter in pairs]


def _table(report: bx.GradientReport) -> Any:
    assert report.taylor is not None
    return report.taylor


# ---- the orders


@pytest.mark.float64
@pytest.mark.parametrize("seed", SEEDS)
def test_the_symmetric_remainder_of_a_right_gradient_has_order_3(xp: Any, seed: int) -> None:
    report = Problem(xp).check(seed=seed)
    assert (report.verdict, report.method) == ("pass", "taylor")
    assert len(report.taylor_orders) >= 3
    assert statistics.median(report.taylor_orders) == pytest.approx(3.0, abs=BEND)


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0, 0.0, 1.01])
def test_the_symmetric_remainder_of_a_wrong_gradient_has_order_1(xp: Any, factor: float) -> None:
    report = Problem(xp).check(factor)
    assert report.verdict == "fail"
    assert statistics.median(report.taylor_orders[-3:]) == pytest.approx(1.0, abs=BEND)


def test_the_table_holds_the_remainders_that_the_orders_are_taken_from(xp: Any) -> None:
    report = Problem(xp).check()
    table = _table(report)
    assert report.taylor_orders == table.orders
    assert len(table.steps) == len(table.one_sided) == len(table.symmetric)
    assert [longer / shorter for longer, shorter in itertools.pairwise(table.steps)] == (
        [2.0] * (len(table.steps) - 1)
    )
    for remainders, orders in (
        (table.symmetric, table.orders),
        (table.one_sided, table.one_sided_orders),
    ):
        assert orders == pytest.approx(_orders(remainders, len(orders)), abs=ROUNDING)
    shown = str(report)
    assert "one-sided" in shown
    assert "symmetric" in shown
    assert all(f"{order:.2f}" in shown for order in table.orders)


@pytest.mark.float64
def test_the_remainders_are_those_of_the_definition(xp: Any) -> None:
    """Of one entry, so that the direction's size is all that is not known: it is steps' unit."""
    report = bx.check_gradient(
        lambda p: xp.namespace.sum(p * p * p),
        lambda p: 3.0 * p * p,
        xp.asarray([0.5]),
        method="taylor",
    )
    table = _table(report)
    # f(x + t) - f(x) - t f'(x) = 3 x t^2 + t^3, and the symmetric one is 2 t^3.
    rows = [
        (one_sided, symmetric)
        for one_sided, symmetric, noise in zip(
            table.one_sided, table.symmetric, table.noise, strict=True
        )
        if min(one_sided, symmetric) > DIGITS * noise
    ]
    assert len(rows) >= 3
    for one_sided, symmetric in rows:
        t = (symmetric / 2.0) ** (1.0 / 3.0)
        expected = [abs(1.5 * t * t + sign * t**3) for sign in (1.0, -1.0)]
        assert min(abs(one_sided - e) for e in expected) <= one_sided / DIGITS


def test_other_methods_have_no_orders(xp: Any) -> None:
    for method in ("auto", "centered", "directional"):
        report = Problem(xp).check(method=method)
        assert (report.taylor, report.taylor_orders) == (None, None)


@pytest.mark.parametrize(("slope", "square"), [(1.0, 0.0), (0.0, 1.0), (-2.0, 3.0)])
def test_a_quadratic_passes_with_no_order(xp: Any, slope: float, square: float) -> None:
    """The symmetric remainder of its right gradient is 0 but for rounding."""
    sum_, point = xp.namespace.sum, xp.asarray(POINT)

    def value(p: Any) -> Any:
        return sum_(slope * p + square * p * p)

    def gradient(p: Any) -> Any:
        return slope + 2.0 * square * p

    right = bx.check_gradient(value, gradient, point, method="taylor")
    wrong = bx.check_gradient(value, lambda p: 1.001 * gradient(p), point, method="taylor")
    assert (right.verdict, right.taylor_orders) == ("pass", ())
    assert wrong.verdict == "fail"


@pytest.mark.parametrize("factor", [1.001, 0.999, 1.1])
def test_a_mistake_fails_by_its_order_along_whatever_direction(xp: Any, factor: float) -> None:
    """A tenth of a percent, and of the whole: along some directions g.d is nearly 0."""
    verdicts = {
        seed: Problem(xp).check(factor, seed=seed).verdict
        for seed in range(200 if xp.name == "numpy" else 6)
    }
    assert set(verdicts.values()) == {"fail"}, [s for s, v in verdicts.items() if v != "fail"]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_passes_whose_orders_are_1(xp: Any, seed: int) -> None:
    """The gradient of ``sum(p)``, a tenth of a percent off: all of its remainders are linear."""
    sum_, point = xp.namespace.sum, xp.asarray(POINT)
    report = bx.check_gradient(sum_, lambda p: 0.0 * p + 1.001, point, method="taylor", seed=seed)
    assert statistics.median(_table(report).orders) == pytest.approx(1.0, abs=BEND)
    assert report.verdict == "fail"


@pytest.mark.float64
@pytest.mark.parametrize("seed", SEEDS)
def test_in_float32_right_passes_and_twice_that_fails(xp: Any, seed: int) -> None:
    problem = Problem(xp, "float32")
    assert (problem.check(seed=seed).verdict, problem.check(2.0, seed=seed).verdict) == (
        "pass",
        "fail",
    )


@pytest.mark.parametrize("directions", [1, 3])
def test_along_several_directions_right_passes_and_wrong_fails(xp: Any, directions: int) -> None:
    problem = Problem(xp)
    assert problem.check(directions=directions).verdict == "pass"
    assert problem.check(1.01, directions=directions).verdict == "fail"


# ---- kinks


@pytest.mark.parametrize(("slope", "verdict"), [(0.3, "kink"), (-0.9, "kink"), (1.3, "fail")])
def test_at_a_kink_the_slopes_on_either_side_decide(xp: Any, slope: float, verdict: str) -> None:
    report = bx.check_gradient(
        xp.namespace.abs, lambda p: 0.0 * p + slope, xp.asarray(0.0), method="taylor"
    )
    assert report.verdict == verdict


@pytest.mark.parametrize("hidden", ["relu", "leaky_relu"])
@pytest.mark.parametrize("distance", [0.0, 1e-7, -1e-7])
def test_a_right_network_near_a_kink_never_fails(xp: Any, distance: float, hidden: str) -> None:
    network, verdicts = bx.mlp([2, 3, 1], hidden=hidden, loss="mean_squared_error"), {}
    generator = np.random.default_rng(71)
    for seed in range(20 if xp.name == "numpy" else 3):
        theta = network.initialize(seed, backend="numpy", dtype="float64")
        parts = network.unpack(theta + generator.normal(0.0, 0.3, network.size))
        weights, bias = parts[0]
        # The first unit of row (1, 1).
        bias[0, 0] = distance - float(np.sum(weights[:, 0]))
        theta = xp.asarray(network.pack(parts))
        verdicts[seed] = bx.check_network(network, theta, ROWS, TARGETS, method="taylor").verdict
    assert set(verdicts.values()) <= {"pass", "kink"}, verdicts


# ---- the tutorial


def _network(sizes: list[int]) -> bx.Network:
    return bx.mlp(sizes, hidden="sigmoid", output="sigmoid", loss="mean_squared_error")


def _start(xp: Any, network: bx.Network, seed: int) -> Any:
    """Draw weights and biases as the tutorial does, from [0, 1)."""
    return xp.asarray(np.random.default_rng(seed).random(network.size))


@pytest.mark.float64
@pytest.mark.parametrize("seed", SEEDS)
def test_the_tutorial_swapped_the_orders_of_the_two_differences(xp: Any, seed: int) -> None:
    """It says that the centred one errs by O(h), the one-sided one by O(h^2).

    A difference's error is its remainder over the step, so its order is one less.
    """
    network = _network([2, 2, 1])
    report = bx.check_network(
        network, _start(xp, network, seed), ROWS, TARGETS, method="taylor", seed=seed
    )
    assert report.verdict == "pass"
    # At the smallest steps that stand out from rounding the leading term is all that is left.
    centered = statistics.median(_table(report).orders[-3:]) - 1.0
    one_sided = statistics.median(_table(report).one_sided_orders[-3:]) - 1.0
    assert (one_sided, centered) == pytest.approx((1.0, 2.0), abs=BEND)


STARTS = range(20)
# "Measured over 200 starts of [2, 2, 2, 1]: median relative difference 3e-2".
TWO_POINTS = (1e-2, 1e-1)


def _at_two_points(xp: Any, network: bx.Network, seed: int) -> tuple[Any, Any, Any]:
    """Return theta after the tutorial's update, the gradient there and the one it is taken for."""
    start = _start(xp, network, seed)
    before = network.loss_and_gradient(start, ROWS, TARGETS)[1]
    # Its gradient is half the rows times the true one.
    updated = start - TUTORIAL_STEP * len(ROWS) / 2.0 * before
    return updated, network.loss_and_gradient(updated, ROWS, TARGETS)[1], before


def test_the_tutorials_two_points_make_the_digits_that_it_lost(xp: Any) -> None:
    network, differences = _network([2, 2, 2, 1]), []
    for seed in STARTS:
        _, there, before = _at_two_points(xp, network, seed)
        # Compared in the first matrix, as the tutorial does.
        one, other = (
            np.concatenate([xp.host(part).ravel() for part in network.unpack(gradient)[0]])
            for gradient in (there, before)
        )
        largest = max(np.max(np.abs(one)), np.max(np.abs(other)))
        differences.append(float(np.max(np.abs(one - other)) / largest))
    low, high = TWO_POINTS
    assert low <= statistics.median(differences) <= high


def _check_loss_of(network: bx.Network, gradient: Any, theta: Any, method: str) -> str:
    report = bx.check_gradient(
        lambda flat: network.loss(flat, ROWS, TARGETS),
        lambda flat: gradient,
        theta,
        method=method,
        batched=False,  # so that JAX compiles for one shape
    )
    return report.verdict


@pytest.mark.float64
@pytest.mark.parametrize("method", ["auto", "centered", "directional", "taylor"])
def test_a_gradient_taken_before_the_update_fails_after_it(xp: Any, method: str) -> None:
    network, verdicts = _network([2, 2, 2, 1]), {}
    for seed in STARTS[: 2 if xp.name == "jax" else None]:
        updated, there, before = _at_two_points(xp, network, seed)
        verdicts[seed] = tuple(
            _check_loss_of(network, gradient, updated, method) for gradient in (there, before)
        )
    assert set(verdicts.values()) == {("pass", "fail")}, verdicts
