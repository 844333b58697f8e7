"""Rounding is not a mistake in a saturated gradient or one of low precision.

Specifies ``analytic`` and ``judge``.
"""

import itertools
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import thorough
from tests.planted_mistakes import check


def _logistic(z: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-z))


def _softplus(z: Any) -> Any:
    return np.log(1.0 + np.exp(z))


# Functions that saturate, and common forms of their derivatives: differences of numbers near 1.
# fmt: off
SATURATING: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tanh": (np.tanh, lambda z: 1.0 - np.tanh(z) ** 2),
    "logistic": (_logistic, lambda z: _logistic(z) * (1.0 - _logistic(z))),
    "logistic from above": (lambda z: _logistic(-z),
        lambda z: -_logistic(-z) * (1.0 - _logistic(-z))),
    "softplus": (lambda z: _softplus(-z), lambda z: 1.0 / (1.0 + np.exp(-z)) - 1.0),
    "an exponential": (lambda z: 1.0 - np.exp(-z), lambda z: 1.0 - (1.0 - np.exp(-z))),
    "by expm1": (lambda z: -np.expm1(-z), lambda z: 1.0 + np.expm1(-z)),
    "half of tanh": (lambda z: 0.5 + 0.5 * np.tanh(z / 2),
        lambda z: 0.25 * (1.0 - np.tanh(z / 2) ** 2)),
    "a scaled tanh": (lambda z: 1.7 * np.tanh(z / 1.5),
        lambda z: 1.7 / 1.5 * (1.0 - np.tanh(z / 1.5) ** 2)),
    "log cosh": (lambda z: np.log(np.cosh(z)) - z, lambda z: np.tanh(z) - 1.0),
    "Gompertz": (lambda z: np.exp(-np.exp(-z)),
        lambda z: -np.exp(-np.exp(-z)) * np.log(np.exp(-np.exp(-z)))),
    "an algebraic sigmoid": (lambda z: z / np.sqrt(1.0 + z * z),
        lambda z: (1.0 - z * z / (1.0 + z * z)) / np.sqrt(1.0 + z * z)),
    "Michaelis and Menten": (lambda z: z / (1.0 + z), lambda z: (1.0 - z / (1.0 + z)) / (1.0 + z)),
    "Hill": (lambda z: z**4 / (1.0 + z**4),
        lambda z: 4.0 / z * z**4 / (1.0 + z**4) * (1.0 - z**4 / (1.0 + z**4))),
    "a softmax of two": (lambda z: np.exp(z) / (np.exp(z) + 1.0),
        lambda z: np.exp(z) / (np.exp(z) + 1.0) - (np.exp(z) / (np.exp(z) + 1.0)) ** 2),
    "a cross-entropy": (lambda z: np.log(np.exp(z) + 1.0) - z,
        lambda z: np.exp(z) / (np.exp(z) + 1.0) - 1.0),
    "Weibull": (lambda z: 1.0 - np.exp(-z * z), lambda z: 2.0 * z * (1.0 - (1.0 - np.exp(-z * z)))),
    "growth": (lambda z: 5.0 * _logistic(z - 2.0),
        lambda z: 5.0 * _logistic(z - 2.0) * (1.0 - _logistic(z - 2.0))),
    "silu": (lambda z: z * _logistic(z) - z,
        lambda z: _logistic(z) + z * _logistic(z) * (1.0 - _logistic(z)) - 1.0),
    "coth": (lambda z: 1.0 / np.tanh(z), lambda z: 1.0 - 1.0 / np.tanh(z) ** 2),
    "mish": (lambda z: np.tanh(_softplus(z)),
        lambda z: (1.0 - np.tanh(_softplus(z)) ** 2) * _logistic(z)),
}
# fmt: on
DEPTHS = [2.0, 8.0, 15.0, 25.0, 40.0, 300.0]
SPREADS = [[1.0], [0.97, 1.0, 1.02], [0.3, 1.0]]
ROWS = np.array([[0.9, 0.6], [0.3, 0.4], [0.04, 0.03]])  # one saturates before the others


def _verdict(kind: str, value: Any, gradient: Any, point: Any, factor: float) -> str:
    report = getattr(check, kind)(value, lambda p: factor * gradient(p), point)
    return str(report.verdict)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:divide", "ignore:invalid")
@pytest.mark.parametrize("every", [5, thorough(1)])
@pytest.mark.parametrize("name", SATURATING)
def test_a_saturated_gradient_never_fails_and_one_10_percent_larger_never_passes(
    name: str, every: int
) -> None:
    """By default a function has a fifth of the depths and spreads, the next one others."""
    value, slope = SATURATING[name]
    number = [*SATURATING].index(name)
    for i, (depth, spread) in enumerate(itertools.product(DEPTHS, SPREADS)):
        if (i + i // len(SPREADS) + number) % every:
            continue
        point = depth * np.array(spread)
        case = "gradient", lambda p: np.sum(value(p)), slope, point
        assert _verdict(*case, 1.0) != "fail", (depth, spread)
        if np.any(slope(point)):  # otherwise 10 % more is the same number
            assert _verdict(*case, 1.1) not in ("pass", "kink"), (depth, spread)


@pytest.mark.filterwarnings("ignore:overflow", "ignore:divide", "ignore:invalid")
@pytest.mark.parametrize("every", [6, thorough(1)])
@pytest.mark.parametrize("name", SATURATING)
def test_a_jacobian_with_a_saturated_row_never_fails_and_one_10_percent_larger_does(
    name: str, every: int
) -> None:
    value, slope = SATURATING[name]
    for depth in DEPTHS[[*SATURATING].index(name) % every :: every]:
        case = (
            "jacobian", lambda p: value(ROWS @ p), lambda p: slope(ROWS @ p)[:, None] * ROWS,
            depth * np.array([1.0, 0.9]),
        )  # fmt: skip
        assert _verdict(*case, 1.0) != "fail", depth
        if np.any(case[2](case[3])):  # otherwise 10 % more is the same number
            assert _verdict(*case, 1.1) not in ("pass", "kink"), depth


@pytest.mark.parametrize("away", [7.0, 100.0])
def test_a_jacobian_that_saturates_away_from_0_never_fails_and_one_10_percent_larger_does(
    away: float,
) -> None:
    for depth in (8.0, 15.0, 25.0):
        case = (
            "gradient", lambda p: np.sum(np.tanh(p - away)),
            lambda p: 1.0 - np.tanh(p - away) ** 2, away + np.array([depth]),
        )  # fmt: skip
        assert _verdict(*case, 1.0) != "fail", depth
        assert _verdict(*case, 1.1) not in ("pass", "kink"), depth


# Gradients that are tiny compared with those at other points, but are no rounding.
STEEP: dict[str, tuple[Any, Any, list[float]]] = {
    "a decay": (lambda p: np.sum(np.exp(-p)), lambda p: -np.exp(-p), [100.0, 90.0]),
    "a Gaussian": (lambda p: np.sum(np.exp(-p * p)), lambda p: -2.0 * p * np.exp(-p * p), [8.0]),
    "a repulsion": (lambda p: np.sum(p**-12.0), lambda p: -12.0 * p**-13.0, [3.0, 2.5]),
}


@pytest.mark.parametrize("way", ["complex step", "differences"])
@pytest.mark.parametrize("name", STEEP)
def test_a_mistake_in_a_tiny_gradient_is_not_taken_for_rounding(name: str, way: str) -> None:
    value, slope, point = STEEP[name]

    def real_value(p: Any) -> Any:
        if way == "differences" and np.iscomplexobj(p):
            raise TypeError("real numbers only")
        return value(p)

    case = "gradient", real_value, slope, np.array(point)
    assert [_verdict(*case, factor) for factor in (1.0, 1.1)] == ["pass", "fail"]


# Smooth terms that are forgotten beside a pole, and their slopes.
FORGOTTEN: dict[str, tuple[Any, Any]] = {
    "a line": (lambda p: 0.3 * p, lambda p: 0.3 + 0.0 * p),
    "a trap": (lambda p: 0.05 * p**2, lambda p: 0.1 * p),
    "a wave": (lambda p: 0.2 * np.sin(p), lambda p: 0.2 * np.cos(p)),
}


METHODS = ("auto", "centered", "directional")
POLES = list(itertools.product(FORGOTTEN, (1.0, 4.0, 12.0), METHODS))
# By default a term has each power and each method once, every pair of them beside another term.
LATIN = (0, 4, 8, 10, 14, 15, 20, 21, 25)


@pytest.mark.parametrize(
    ("name", "power", "method"),
    [case if i in LATIN else thorough(*case) for i, case in enumerate(POLES)],
)
def test_a_smooth_term_that_is_forgotten_beside_a_pole_is_not_taken_for_rounding(
    name: str, power: float, method: str
) -> None:
    term, slope = FORGOTTEN[name]
    for point in ([1.1, 1.3, 1.7], [0.8, 2.3], [3.0, 4.0]):

        def pole(p: Any) -> Any:
            return -power * p ** -(power + 1.0)

        def value(p: Any) -> Any:
            return np.sum(p**-power + term(p))

        for f in (value, _real(value)):
            both = pole, lambda p: pole(p) + slope(p)
            found = [check.gradient(f, g, np.array(point), method=method).verdict for g in both]
            assert found == ["fail", "pass"], point


LOW = {"float32": np.float32, "float16": np.float16}
A, X = np.random.default_rng(0).normal(size=(50, 8)), np.random.default_rng(1).normal(size=8)


def _inside(dtype: Any, p: Any) -> Any:
    a, q = A.astype(dtype), p.astype(dtype)
    return (1.0 - np.tanh(a @ q) ** 2) @ a


HOW: dict[str, Callable[[Any, Any], Any]] = {
    "inside": lambda dtype, p: _inside(dtype, p).astype(np.float64),
    "returned": _inside,
    "scaled": lambda dtype, p: 0.1 * (_inside(dtype, p).astype(np.float64) / 0.1),
    "rounded at the end": lambda dtype, p: ((1.0 - np.tanh(A @ p) ** 2) @ A).astype(dtype),
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("dtype", LOW)
def test_a_gradient_of_low_precision_beside_a_float64_value_never_fails(
    dtype: str, how: str
) -> None:
    def gradient(p: Any) -> Any:
        return HOW[how](LOW[dtype], p)

    def wrong(p: Any) -> Any:
        return gradient(p).astype(np.float64) * np.where(np.arange(8) == 5, 1.1, 1.0)

    value = lambda p: np.sum(np.tanh(A @ p))  # noqa: E731
    for method in ("auto", "directional"):
        report = check.gradient(value, gradient, X, method=method)
        assert report.verdict in ("pass", "inconclusive"), report
        assert dtype == "float16" or report.passed
    assert check.gradient(value, wrong, X).verdict == "fail"


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bins", [1, 4])
@pytest.mark.parametrize("seed", [2, 3, thorough(4), thorough(5), thorough(6), thorough(7)])
def test_a_sum_of_many_float32_rows_never_fails(bins: int, dtype: Any, seed: int) -> None:
    """Of a million rows, running sums round to one side: then some fail, as the page says."""
    draw = np.random.default_rng(seed)
    rows = draw.uniform(0.9, 1.1, size=100_000).astype(np.float32)
    bin_of, total = draw.integers(bins, size=rows.size), np.zeros(bins)
    np.add.at(total, bin_of, rows.astype(np.float64))

    def gradient(p: Any) -> Any:
        found = np.zeros(bins, np.float32)
        np.add.at(found, bin_of, rows * np.cos(p).astype(np.float32)[bin_of])
        return found.astype(dtype)

    value, point = lambda p: np.sum(total * np.sin(p)), draw.uniform(0.2, 1.0, size=bins)
    assert _verdict("gradient", value, gradient, point, 1.0) != "fail"
    assert _verdict("gradient", value, gradient, point, 1.1) == "fail"


@pytest.mark.parametrize(("off", "verdict"), [(0.0, "pass"), (1.0, "fail")])
@pytest.mark.parametrize("entries", [100, 10_000])
def test_one_wrong_entry_of_many_in_float32_fails_along_a_direction(
    entries: int, off: float, verdict: str
) -> None:
    def gradient(p: Any) -> Any:
        found = (p * p).astype(np.float32)
        found[entries // 3] *= np.float32(1.0 + off)
        return found.astype(np.float64)

    case = lambda p: np.sum(p**3) / 3.0, gradient, np.random.default_rng(3).normal(size=entries)
    assert check.gradient(*case, method="directional").verdict == verdict


def _real(value: Any) -> Any:
    def real_value(p: Any) -> Any:
        if np.iscomplexobj(p):
            raise TypeError("real numbers only")
        return value(p)

    return real_value


@pytest.mark.parametrize("mistake", ["none", "one entry 5 % off", "a tenth more"])
def test_a_gradient_of_small_integers_is_no_gradient_of_low_precision(mistake: str) -> None:
    point, factor = np.random.default_rng(1).normal(size=5000), np.ones(5000)
    factor[1234 if mistake == "one entry 5 % off" else slice(None)] = {
        "none": 1.0, "one entry 5 % off": 1.05, "a tenth more": 1.1
    }[mistake]  # fmt: skip

    def gradient(p: Any) -> Any:
        sign = np.sign(np.diff(p))
        return factor * (np.r_[0.0, sign] - np.r_[sign, 0.0])

    value = _real(lambda p: np.sum(np.abs(np.diff(p))))
    report = check.gradient(value, gradient, point, method="directional")
    assert report.verdict == ("pass" if mistake == "none" else "fail")


def _energy(p: Any) -> tuple[Any, Any]:
    """Return the Lennard-Jones energy of atoms, which is steep, and its slope."""
    at = p.reshape(-1, 3)
    i, j = np.triu_indices(len(at), 1)
    away = at[i] - at[j]
    r2 = np.sum(away**2, axis=1)
    slope, pull = np.zeros_like(at), (24.0 * r2**-4 - 48.0 * r2**-7)[:, None] * away
    np.add.at(slope, i, pull)
    np.add.at(slope, j, -pull)
    return 4.0 * np.sum(r2**-6 - r2**-3), slope.ravel()


@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
def test_mistakes_fail_near_the_optimum_of_a_steep_energy(method: str) -> None:
    minimize = pytest.importorskip("scipy.optimize").minimize
    start = 1.2 * np.random.default_rng(1).normal(size=24)
    optimum = minimize(_energy, start, jac=True, options={"gtol": 1e-8, "maxiter": 3000}).x
    one = np.where(np.arange(24) == 7, 1.05, 1.0)
    for factor, verdict in ((1.0, "pass"), (1.1, "fail"), (-1.0, "fail"), (one, "fail")):
        case = lambda p: _energy(p)[0], lambda p, k=factor: k * _energy(p)[1]
        assert check.gradient(*case, (1.0 + 1e-4) * optimum, method=method).verdict == verdict


def test_no_right_gradient_of_the_rosenbrock_function_fails_near_its_optimum() -> None:
    optimize = pytest.importorskip("scipy.optimize")
    for away in 10.0 ** np.random.default_rng(0).uniform(-6.0, -2.0, size=60):
        case = _real(optimize.rosen), optimize.rosen_der, np.ones(4) * (1.0 + away)
        assert check.gradient(*case).verdict != "fail", away


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_low_precision_is_detected_at_zeros_and_at_a_border(start: float) -> None:
    def gradient(p: Any) -> Any:
        z = A.astype(np.float32) @ p.astype(np.float32)
        return (A.astype(np.float32).T @ (1.0 / (1.0 + np.exp(-z)))).astype(np.float64)

    value, high = _real(lambda p: np.sum(np.logaddexp(0.0, A @ p))), np.full(8, 9.0)
    point = np.where(np.arange(8) == 0, start, 0.1 * start * X)
    high[0] = 1.0
    assert check.gradient(value, gradient, point, bounds=(-5.0, high)).passed


@pytest.mark.parametrize("forgotten", [slice(None), 3, 5])
def test_a_missing_derivative_in_float32_is_not_taken_for_rounding(forgotten: Any) -> None:
    draw = np.random.default_rng(5)
    rows, point = draw.normal(size=(300, 8)).astype(np.float32), 0.1 * X.astype(np.float32)
    y = (draw.uniform(size=300) > 0.5).astype(np.float32)

    def value(p: Any) -> Any:
        z = rows @ np.asarray(p, np.float32)
        return np.mean(np.logaddexp(np.float32(0.0), z) - y * z, dtype=np.float32)

    def gradient(p: Any) -> Any:
        z = rows @ np.asarray(p, np.float32)
        return rows.T @ (1.0 / (1.0 + np.exp(-z)) - y) / np.float32(300.0)

    def wrong(p: Any) -> Any:
        found = gradient(p)
        found[forgotten] = 0.0
        return found

    assert check.gradient(_real(value), gradient, point).verdict in ("pass", "inconclusive")
    assert check.gradient(_real(value), wrong, point).verdict == "fail"


def test_a_saturated_entry_does_not_make_others_inconclusive() -> None:
    value, slope = (
        _real(lambda p: np.sum(np.tanh(8.0 * p))),
        lambda p: 8.0 - 8.0 * np.tanh(8 * p) ** 2,
    )
    for seed in range(4):
        point = np.random.default_rng(seed).normal(size=300)
        assert [_verdict("gradient", value, slope, point, k) for k in (1.0, 1.1)] == [
            "pass",
            "fail",
        ]


HALF = [
    "numpy float16",
    pytest.param("torch float16", marks=pytest.mark.torch),
    pytest.param("torch bfloat16", marks=pytest.mark.torch),
    pytest.param("jax bfloat16", marks=pytest.mark.jax),
]


def _half(kind: str) -> tuple[Any, Any, Any]:
    """Return an elementwise function that computes in half precision, its derivative, a point."""
    x = np.random.default_rng(9).uniform(0.25, 2.0, 6)
    library, name = kind.split()
    if library == "torch":
        xp = pytest.importorskip("torch")

        def cast(p):
            return p.to(getattr(xp, name))
    else:
        xp = np if library == "numpy" else pytest.importorskip("jax").numpy

        def cast(p):
            return p.astype(getattr(xp, name))

    return (
        (lambda p: xp.tanh(cast(p))),
        (lambda p: 1.0 - xp.tanh(cast(p)) ** 2),
        cast(xp.asarray(x)),
    )


@pytest.mark.parametrize("kind", HALF)
def test_a_function_in_half_precision_is_judged_by_its_rounding(
    nothing_chosen: None, kind: str
) -> None:
    f, derivative, point = _half(kind)

    def check_times(factor: float) -> Any:
        def slopes(p):
            return factor * bx.to_host(derivative(p)).astype(np.float64)

        return check.jacobian(f, lambda p: np.diag(slopes(p)).tolist(), point)

    assert check_times(1.0).verdict in ("pass", "inconclusive")
    for factor in (-1.0, 4.0):
        assert check_times(factor).verdict == "fail", factor


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.real.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def _softmax_vjp(x: Any, u: Any) -> Any:
    p = _softmax(x)
    return p * (u - (p * u).sum(axis=-1, keepdims=True))


FAR = 100.0 * (np.array([0.3, -0.7]) + 1j * np.array([0.5, 0.9]))
# Derivatives that are right, as far as their rounding allows.
LOST: dict[str, Callable[[str], Any]] = {
    "sinc near 0": lambda method: bx.check_gradient(
        lambda x: np.sinc(x).sum(), lambda x: -(np.pi**2) * x / 3,
        1e-8 * np.random.default_rng(2).standard_normal(4), method=method,
    ),
    "terms that cancel at 0": lambda method: bx.check_gradient(
        lambda x: float((x - np.tanh(x)).sum()), lambda x: np.tanh(x) ** 2, np.zeros(3),
        method=method,
    ),
    "a saturated softmax": lambda method: bx.check_vjp(
        _softmax, _softmax_vjp, 100 * np.random.default_rng(0).standard_normal((2, 3)),
        method=method,
    ),
    "a result of 0": lambda method: bx.check_vjp(
        lambda x: np.stack([x[0] + x[1], 0.0 * x[0]]),
        lambda x, u: u[0] * np.ones(2) + u[1] * np.array([2.3e-17, -1.1e-17]) * np.cos(x),
        np.array([1.0, 2.0]), method=method,
    ),
    "a complex tanh": lambda method: bx.check_vjp(
        np.tanh, lambda z, u: u * np.conj(1.0 - np.tanh(z) ** 2), FAR, method=method,
    ),
    "a complex tangent": lambda method: bx.check_vjp(
        np.tan, lambda z, u: u * np.conj(1.0 + np.tan(z) ** 2), FAR, method=method,
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", ["auto", "directional"])
@pytest.mark.parametrize("kind", LOST)
def test_a_derivative_that_is_lost_in_rounding_does_not_fail(
    nothing_chosen: None, kind: str, method: str
) -> None:
    assert LOST[kind](method).verdict in ("pass", "inconclusive")


@pytest.mark.parametrize("seed", [7, 43, 124, 134, 179, 275])
def test_terms_rounded_to_float32_in_a_sum_do_not_fail_between_their_steps(
    nothing_chosen: None, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    a, w, x = generator.normal(size=3), generator.normal(size=3), generator.normal()
    phases = np.arange(3.0)

    def value(x: Any) -> float:
        return float(w @ np.sin(a * float(x) + phases).astype(np.float32).astype(np.float64))

    def slope(x: Any) -> float:
        return float(w @ (a * np.cos(a * float(x) + phases)))

    assert check.gradient(value, slope, x).verdict in ("pass", "inconclusive")
    assert check.gradient(value, lambda x: 1.1 * slope(x), x).verdict == "fail"


@pytest.mark.parametrize("hidden", ["tanh", "sigmoid", "relu"])
def test_networks_that_compute_in_float32_inside_get_honest_verdicts(hidden: str) -> None:
    network = bx.mlp([3, 8, 8, 1], hidden=hidden, loss="half_squared_error")
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(16, 3)).astype(np.float32), draw.normal(size=(16, 1))
    y, theta = y.astype(np.float32), network.initialize(0, backend="numpy", dtype="float32")

    def value(p: Any) -> Any:
        return network.loss(p.astype(np.float32), x, y)

    def gradient(p: Any) -> Any:
        return network.loss_and_gradient(p.astype(np.float32), x, y)[1]

    for point in (theta, theta.astype(np.float64)):
        assert check.gradient(_real(value), gradient, point).verdict in ("pass", "inconclusive")
        for parameter in (p for layer in network.layout for p in layer):
            without = lambda p, part=parameter.part: np.where(  # noqa: E731
                (np.arange(p.size) >= part.start) & (np.arange(p.size) < part.stop),
                0.0,
                gradient(p),
            )
            if np.any(gradient(theta)[parameter.part]):
                assert check.gradient(_real(value), without, point).verdict == "fail", parameter
        for entry in np.argsort(-np.abs(gradient(theta)))[[0, 3, 9, 27]].tolist():
            factors = np.where(np.arange(theta.size) == entry, 1.5, 1.0)
            wrong = lambda p, factors=factors: factors * gradient(p)  # noqa: E731
            assert check.gradient(_real(value), wrong, point).verdict == "fail", entry


def _mean_field(s: Any) -> Any:
    """Return an energy with a term that is constant over steps below the rounding of 1 + s."""
    entropy = (1.0 + s) * np.log1p(s) + (1.0 - s) * np.log1p(-s)
    return np.sum(-0.6 * s**2 + 0.5 * entropy)


@pytest.mark.parametrize(
    ("value", "method"),
    [
        *((_mean_field, "directional"), (_real(_mean_field), "auto")),
        *(thorough(_mean_field, "auto"), thorough(_real(_mean_field), "directional")),
    ],
)
def test_a_term_that_is_constant_over_short_steps_is_not_taken_to_be_without_effect(
    value: Any, method: str
) -> None:
    right, forgotten = lambda s: -1.2 * s + np.arctanh(s), lambda s: -1.2 * s
    for size in (1e-13, 1e-12, 1e-11):
        case = size * np.array([1.0, -2.0, 3.0])
        found = check.gradient(value, right, case, method=method).verdict
        assert found in ("pass", "inconclusive"), size
        assert check.gradient(value, forgotten, case, method=method).verdict == "fail", size


COARSE: list[tuple[Callable[[float], float], float]] = [
    (lambda v: float(np.float32(v)), 1.0),
    (lambda v: round(v, 4), -1.0),
]


@pytest.mark.parametrize(("how", "side"), [*COARSE, *(thorough(f, -side) for f, side in COARSE)])
def test_a_coarse_value_is_detected_at_a_border(how: Any, side: float) -> None:
    value = _real(lambda p: how(float(np.sum(p + np.sin(p)))))
    for x in ([1.0, 0.7], [1.0], [3.0, 0.2, 0.5]):
        point = side * np.array(x)
        bounds = (-10.0, point) if side > 0.0 else (point, 10.0)
        found = [
            check.gradient(
                value, lambda p, k=k: k * (1.0 + np.cos(p)), point, bounds=bounds
            ).verdict
            for k in (1.0, 0.0, 2.0)
        ]
        assert found[0] in ("pass", "inconclusive"), x
        assert found[1:] == ["fail", "fail"], x


def test_a_coarse_result_is_detected_beside_one_with_a_kink() -> None:
    def function(p: Any) -> Any:
        coarse = np.asarray(p + np.sin(p), np.float32).astype(np.float64)
        return np.concatenate([np.maximum(p, 0.3), coarse, 0.1 * coarse])

    def jacobian(p: Any, factor: float = 1.0) -> Any:
        slopes = np.diag(factor * (1.0 + np.cos(p)))
        return np.concatenate([np.diag(1.0 * (p > 0.3)), slopes, 0.1 * slopes])

    for x in ([0.3001, 0.7], [0.29, 0.31], [0.30000001, 2.0]):
        case = _real(function), jacobian, np.array(x)
        assert check.jacobian(*case).verdict != "fail", x
        for factor in (0.0, 1.1):
            wrong = function, lambda p, k=factor: jacobian(p, k), np.array(x)
            assert check.jacobian(_real(wrong[0]), *wrong[1:]).verdict == "fail", x


SMOOTH = [
    (np.sin, np.cos),
    (np.tanh, lambda v: 1.0 / np.cosh(v) ** 2),
    (lambda v: v**3, lambda v: 3.0 * v**2),
    (lambda v: v**5, lambda v: 5.0 * v**4),
    (lambda v: np.sqrt(1.0 + v * v), lambda v: v / np.sqrt(1.0 + v * v)),
]


@pytest.mark.parametrize(("count", "every"), [(3, 5), thorough(3, 1), thorough(100, 1)])
@pytest.mark.parametrize(
    ("fine", "method"),
    [
        case if i % 2 == j else thorough(*case)
        for i in range(len(SMOOTH))
        for j, case in enumerate(((i, "centered"), (i, "directional")))
    ],
)
def test_a_coarse_term_beside_a_smooth_one_makes_nothing_right_fail(
    fine: int, count: int, every: int, method: str
) -> None:
    """Along some entries the coarse term changes by less than its unit, and hides its slope.

    By default each rounding is of one function, for the next smooth term of another one.
    """
    draw = np.random.default_rng([fine, count])
    coarse = (np.float32, lambda v: round(float(v), 4), lambda v: round(float(v), 6))
    (g, slope_g), cases = SMOOTH[fine], itertools.product(coarse, SMOOTH)
    for i, (rounded, (f, slope_f)) in enumerate(cases):
        x, (a, b) = draw.normal(size=count), draw.uniform(0.3, 3.0, size=(2, count))
        if (i + fine) % every:
            continue
        value = _real(lambda p: float(rounded(np.sum(f(a * p)))) + float(np.sum(g(b * p))))  # noqa: B023
        right = a * slope_f(a * x) + b * slope_g(b * x)
        report = check.gradient(value, lambda p, k=right: k, x, method=method)
        assert report.verdict in ("pass", "inconclusive"), report
        wrong = 1.3 * right
        report = check.gradient(value, lambda p, k=wrong: k, x, method=method)
        assert report.verdict != "pass", report


@pytest.mark.parametrize("seed", [0, *map(thorough, (1, 2, 3))])
@pytest.mark.parametrize(
    ("ratio", "method"),
    [(2.0, "auto"), (30.0, "directional"), thorough(2.0, "directional"), thorough(30.0, "auto")],
)
def test_terms_of_many_units_make_nothing_right_fail_and_hide_no_mistake(
    ratio: float, method: str, seed: int
) -> None:
    """At each longer step, terms of larger units jump: none surprises beside those before."""
    units = 1e-2 * ratio ** -np.arange(40.0)
    units = units[units > 1e-12]
    draw = np.random.default_rng(seed)
    x, a = draw.uniform(1.0, 2.0, size=3), draw.uniform(0.5, 2.0, size=3)

    def value(p: Any) -> float:
        return float(np.mean(np.rint(a @ p / units) * units) + np.sum(np.sin(p)))

    right = a + np.cos(x)
    report = check.gradient(value, lambda p: right, x, method=method)
    assert report.verdict in ("pass", "inconclusive"), report
    report = check.gradient(value, lambda p: 2.0 * right, x, method=method)
    assert report.verdict == "fail", report


@pytest.mark.parametrize(("count", "seeds"), [(10, 3), thorough(10, 8), thorough(100, 8)])
@pytest.mark.parametrize("noise", [1e-10, 1e-7, 1e-4])
def test_noise_that_looks_small_along_one_entry_of_many_makes_nothing_right_fail(
    noise: float, count: int, seeds: int
) -> None:
    for seed in range(seeds):
        draw = np.random.default_rng([seed, count])
        x, a = draw.normal(size=count), draw.uniform(0.3, 3.0, size=count)

        def value(p: Any, a: Any = a) -> float:
            random = zlib.crc32(np.asarray(p, dtype=float).tobytes()) / 2.0**32 - 0.5
            return float(np.sum(np.tanh(a * p))) * (1.0 + noise * random)

        right = a / np.cosh(a * x) ** 2
        found = [
            check.gradient(_real(value), lambda p, k=k: k * right, x).verdict  # noqa: B023
            for k in (1.0, 1.5)
        ]
        assert found[0] in ("pass", "inconclusive"), seed
        assert found[1] != "pass", seed


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_a_coarse_term_is_detected_beside_finer_ones_that_are_curved(method: str) -> None:
    """Above 18 the loss is z + exp(-z) - z: the sum is coarse, the exponential is not."""

    def value(p: Any) -> Any:
        z = np.abs(p)
        return float(np.sum(np.where(z > 18.0, z + np.exp(-z), np.log1p(np.exp(z))) - z))

    def slope(p: Any) -> Any:
        return -np.sign(p) * np.exp(-np.abs(p)) / (1.0 + np.exp(-np.abs(p)))

    for point in ([30.0, -32.0, 28.0, -25.0], [20.0, -27.0], [-22.0, 29.0, 35.0]):
        case = _real(value), slope, np.array(point)
        assert check.gradient(*case, method=method).verdict in ("pass", "inconclusive"), point


def test_a_mistake_fails_though_other_entries_are_lost_in_rounding() -> None:
    size = np.array([1.0, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 2e-3])
    factor = np.where(size == 2e-3, 1.02, 1.0)
    value = _real(lambda p: float(np.float32(np.sum(size * np.exp(np.sin(p))))))
    for seed in range(3):
        point = np.random.default_rng(seed).uniform(0.4, 1.2, size=10)
        found = [
            check.gradient(
                value, lambda p, k=k: k * size * np.cos(p) * np.exp(np.sin(p)), point
            ).verdict
            for k in (1.0, factor)
        ]
        assert found == ["inconclusive", "fail"]


def test_results_that_share_terms_share_their_rounding() -> None:
    """As in a factorization: the slope of the small result is 0, its gradient of a few 1e-16."""

    def value(p: Any) -> Any:
        return np.stack([0.0625 + 0.0 * p[0], p[0] + p[1] ** 2])

    for error, verdict in ((0.0, "pass"), (8.9e-16, "pass"), (-3e-16, "pass"), (1e-6, "fail")):
        jacobian = lambda p, e=error: np.array([[e, 0.0], [1.0, 2.0 * p[1]]])  # noqa: E731
        assert check.jacobian(value, jacobian, np.array([1.0, 0.7])).verdict == verdict


def test_a_result_that_is_tiny_beside_others_of_its_tensor_is_checked_like_them() -> None:
    for forgotten in (0, 1, 2):
        factor = np.where(np.arange(3) == forgotten, 0.0, 1.0)
        jacobian = lambda p, f=factor: np.diag(3.0 * f * p**2)  # noqa: E731
        assert (
            check.jacobian(lambda p: p**3, jacobian, np.array([1e-7, 1.0, 1e8])).verdict == "fail"
        )


def test_corners_near_the_point_are_no_rounding_of_the_complex_step() -> None:
    """The slope of relu units changes within the step of the quick difference, but not here."""
    for seed in (7, 30, 46):
        draw = np.random.default_rng(seed)
        w, x = draw.normal(size=(8, 64)), draw.normal(size=64)
        at = w @ x + 1e-2 * draw.normal(size=8)

        def value(p: Any, w: Any = w, at: Any = at) -> Any:
            z = w @ p - at
            return np.sum(np.where(z.real > 0.0, z, 0.0 * z))

        def gradient(p: Any, w: Any = w, at: Any = at) -> Any:
            return np.sum(w[w @ p > at], axis=0)

        assert check.gradient(value, gradient, x, method="directional").verdict == "pass", seed


HIDDEN: dict[str, tuple[Any, Any]] = {
    "1 - cos": (lambda p: 1.0 - np.cos(p), np.sin),
    "cosh - 1": (lambda p: np.cosh(p) - 1.0, np.sinh),
    "charbonnier": (lambda p: np.sqrt(1.0 + p * p) - 1.0, lambda p: p / np.sqrt(1.0 + p * p)),
    "log(1 + p**2)": (lambda p: np.log(1.0 + p * p), lambda p: 2.0 * p / (1.0 + p * p)),
    "1 - exp": (lambda p: 1.0 - np.exp(-p * p), lambda p: 2.0 * p * np.exp(-p * p)),
}


@pytest.mark.parametrize(
    ("name", "is_real", "method"),
    [
        case if i % 4 == i // 4 % 4 else thorough(*case)
        for i, case in enumerate(itertools.product(HIDDEN, [False, True], ["auto", "directional"]))
    ],
)
def test_a_term_that_cancels_beside_tiny_entries_is_not_taken_to_be_without_effect(
    name: str, is_real: bool, method: str
) -> None:
    """At an optimum ``1 - cos(p)`` is 0, and nothing near the point shows its slope.

    By default each term has one method and one kind of numbers, the next term others.
    """
    hidden, slope = HIDDEN[name]

    def value(p: Any) -> Any:
        return np.sum(hidden(p)) + 0.25 * np.sum(p * p)

    tested, draw = _real(value) if is_real else value, np.random.default_rng(11)
    for size in (1e-7, 1e-8, 1e-9, 1e-12):
        p = size * draw.normal(size=3)
        right = check.gradient(tested, lambda p: slope(p) + 0.5 * p, p, method=method)
        assert right.verdict in ("pass", "inconclusive"), size
        forgotten = check.gradient(tested, lambda p: 0.5 * p, p, method=method)
        assert forgotten.verdict in ("fail", "inconclusive"), size


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_smooth_values_keep_their_verdicts_beside_tiny_entries(method: str) -> None:
    draw = np.random.default_rng(12)
    for value, gradient in (
        (lambda p: np.sum(np.log1p(p * p)), lambda p: 2.0 * p / (1.0 + p * p)),
        (lambda p: np.sum(2.0 * np.sin(p / 2.0) ** 2), np.sin),
        (lambda p: np.sum((p - 1.0) ** 2), lambda p: 2.0 * (p - 1.0)),
        (lambda p: np.sum(p**4), lambda p: 4.0 * p**3),
    ):
        for size in (1e-6, 1e-8, 1e-10, 1e-13):
            p = size * draw.normal(size=3)
            for tested in (value, _real(value)):
                assert check.gradient(tested, gradient, p, method=method).verdict == "pass", size
                wrong = check.gradient(tested, lambda p, g=gradient: 2.0 * g(p), p, method=method)
                assert wrong.verdict == "fail", size


@pytest.mark.parametrize("method", ["auto", "directional"])
@pytest.mark.parametrize("is_real", [False, True])
def test_a_hundred_steps_of_euler_from_tiny_entries_get_a_verdict(
    is_real: bool, method: str
) -> None:
    def states(p: Any) -> Iterator[Any]:
        for _ in range(100):
            yield p
            p = p + 0.01 * (p * p - p)
        yield p

    def slope(p: Any) -> Any:
        return np.prod([1.0 + 0.01 * (2.0 * x - 1.0) for x in [*states(p)][:-1]], axis=0)

    def value(p: Any) -> Any:
        found = np.sum(([*states(p)][-1] - 1.0) ** 2)
        return float(found) if is_real else found

    point = 1e-13 * np.array([1.0, -2.0, 3.0])
    for factor, expected in ((1.0, "pass"), (1.01, "fail"), (2.0, "fail")):
        report = check.gradient(
            value,
            lambda p, k=factor: 2.0 * k * ([*states(p)][-1] - 1.0) * slope(p),
            point,
            method=method,
        )
        assert report.verdict == expected, factor
