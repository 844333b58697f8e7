"""Initializers: their distributions, and the dependence of draws on seed and position."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.numbers.initializers import INITIALIZERS, Initializer, draw_stack

# Fan-in and fan-out differ, so a mix-up fails.
SHAPE = N_IN, N_OUT = 300, 200
# The variance of n = 60,000 normal draws scatters by sqrt(2 / n) = 0.6 %, of uniform ones by less.
# The seed is fixed, and a wrong formula exceeds five of these deviations.
VARIANCE_SCATTER = 5 * math.sqrt(2 / (N_IN * N_OUT))

VARIANCES = {
    "glorot_uniform": 2 / (N_IN + N_OUT),
    "glorot_normal": 2 / (N_IN + N_OUT),
    "he_uniform": 2 / N_IN,
    "he_normal": 2 / N_IN,
    "lecun_normal": 1 / N_IN,
    "standard_normal": 1.0,
}
BOUNDS = {
    "glorot_uniform": math.sqrt(6 / (N_IN + N_OUT)),
    "he_uniform": math.sqrt(6 / N_IN),
}
CONSTANTS = {"zeros": 0.0, "ones": 1.0}

every_initializer = pytest.mark.parametrize("initializer", INITIALIZERS.values(), ids=INITIALIZERS)


def _draw(initializer: Initializer, seed: int = 0) -> np.ndarray:
    return initializer(np.random.default_rng(seed), SHAPE)


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name not in CONSTANTS])
def test_weights_scatter_about_0_with_the_variance_of_the_paper(name: str) -> None:
    weights = _draw(INITIALIZERS[name])
    assert np.mean(weights**2) == pytest.approx(VARIANCES[name], rel=VARIANCE_SCATTER)
    # The mean of n draws scatters by their deviation over sqrt(n).
    assert abs(np.mean(weights)) < 5 * math.sqrt(VARIANCES[name] / weights.size)


@pytest.mark.parametrize("name", BOUNDS)
def test_uniform_weights_fill_the_interval_up_to_its_bounds(name: str) -> None:
    weights = _draw(INITIALIZERS[name])
    assert np.max(np.abs(weights)) <= BOUNDS[name]
    # With probability exp(-30) per side, none of 60,000 draws is within 0.1 % of a bound.
    assert np.max(weights) > 0.999 * BOUNDS[name]
    assert np.min(weights) < -0.999 * BOUNDS[name]


@pytest.mark.parametrize("name", [name for name in INITIALIZERS if name.endswith("normal")])
def test_normal_weights_are_not_cut_off(name: str) -> None:
    kurtosis = np.mean(_draw(INITIALIZERS[name]) ** 4) / VARIANCES[name] ** 2
    # 3 for a normal, 1.8 for a uniform; the estimate scatters by sqrt(96 / n) = 0.04.
    assert kurtosis == pytest.approx(3.0, abs=0.2)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_is_the_same_everywhere(name: str) -> None:
    assert np.all(_draw(INITIALIZERS[name]) == CONSTANTS[name])


@every_initializer
def test_a_draw_is_float64_and_follows_the_generator(initializer: Initializer) -> None:
    weights = _draw(initializer, seed=1)
    assert weights.dtype == np.float64
    assert weights.shape == SHAPE
    assert np.array_equal(weights, _draw(initializer, seed=1))
    varied = bool(np.ptp(weights) > 0)
    assert varied != np.array_equal(weights, _draw(initializer, seed=2))


def test_uniform_draws_lie_between_the_given_bounds() -> None:
    weights = _draw(bx.initializers.uniform(2.0, 3.0))
    assert 2.0 <= np.min(weights) < 2.001
    assert 2.999 < np.max(weights) < 3.0
    # The deviation of a uniform draw is the width over sqrt(12).
    assert np.mean(weights) == pytest.approx(2.5, abs=5 / math.sqrt(12 * weights.size))


def test_a_draw_depends_only_on_the_seed_and_its_position() -> None:
    def draw(generator: np.random.Generator) -> list[np.ndarray]:
        return [generator.normal(size=(2, 3)), generator.uniform(size=(1, 3))]

    few, many, other = draw_stack(7, 2, draw), draw_stack(7, 5, draw), draw_stack(8, 2, draw)
    assert many.shape == (5, 9)
    assert np.array_equal(many[:2], few)
    assert len({*many[:, 0], *other[:, 0]}) == 7


@pytest.mark.parametrize("name", INITIALIZERS)
def test_a_layer_accepts_an_initializer_as_a_name_or_an_object(name: str) -> None:
    initializer = getattr(bx.initializers, name)
    assert initializer is INITIALIZERS[name]
    by_name = bx.Dense(3, 2, initializer=name, bias_initializer=name)
    assert by_name == bx.Dense(3, 2, initializer=initializer, bias_initializer=initializer)
    generator = np.random.default_rng(0)
    for drawn, shape in zip(
        by_name.initialize(np.random.default_rng(0)), by_name.shapes, strict=True
    ):
        assert np.array_equal(drawn, initializer(generator, shape))


class Odd(bx.Dense):
    """A layer with a given number of names and of drawn parameters."""

    def __init__(self, names: tuple[str, ...], count: int) -> None:
        super().__init__(3, 2)
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "count", count)

    def initialize(self, generator: Any) -> Any:
        return super().initialize(generator)[: self.count]


def _drawn(initializer: Initializer) -> Any:
    layers = [bx.Activate("tanh"), bx.Dense(3, 2, initializer=initializer)]
    return bx.Network(layers, "huber").initialize(0, backend="numpy")


def _odd(*given: Any) -> Any:
    return bx.Network([Odd(*given)], "huber").initialize(0, backend="numpy")


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bx.initializers.uniform(1.0, 0.0), ValueError, "low must be at most high"),
    (lambda: bx.initializers.uniform("0", 1.0), TypeError, "low must be a number"),
    (lambda: bx.initializers.uniform(0.0, math.nan), ValueError, "high must be finite"),
    (
        lambda: _drawn(lambda generator, shape: generator.normal(size=shape[::-1])),
        ValueError,
        r"layers\[1\].weights was drawn with shape \(2, 3\), but \(3, 2\) is expected",
    ),
    (
        lambda: _drawn(lambda generator, shape: 1j * generator.normal(size=shape)),
        TypeError,
        r"layers\[1\].weights was drawn as complex128, but real numbers are expected",
    ),
    (
        lambda: _odd(("weights", "bias"), 1),
        ValueError,
        r"layers\[0\] \(Odd\) drew 1 parameters, but 2 are expected",
    ),
    (
        lambda: _odd(("weights",), 2),
        ValueError,
        r"layers\[0\] \(Odd\) has the names \('weights',\) and the shapes",
    ),
]


@pytest.mark.parametrize(("draw", "error", "message"), REFUSED)
def test_a_draw_of_the_wrong_shape_is_an_error_that_names_its_layer(
    draw: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        draw()
