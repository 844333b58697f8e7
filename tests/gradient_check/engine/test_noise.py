"""What no polynomial explains is noise: of polynomials nothing is left, of noise all of it."""

import math

import numpy as np
import pytest

from backprop_xp.gradient_check.engine.noise import (
    noise_of_term,
    taylor_term,
    unexplained,
    unexplained_at,
    unexplained_by_one,
)

NODES = (-4.0, -2.3, -1.0, 0.0, 0.7, 1.9, 4.0)
ROUNDED = 1e-12  # of values up to 1e3


@pytest.mark.parametrize("order", range(1, 7))
def test_polynomials_below_the_order_leave_nothing(order: int) -> None:
    x = np.asarray(NODES)
    polynomials = np.stack([np.polyval(np.arange(1.0, n + 1.0), x) for n in range(1, order + 1)], 1)
    left = unexplained(polynomials, NODES, order)
    assert left.shape == (len(NODES) - order, order)
    assert np.all(left <= ROUNDED)
    assert np.all(unexplained(x**order, NODES, order) > 1e-3)


@pytest.mark.parametrize("order", range(1, 7))
def test_noise_is_left_as_large_as_it_is(order: int) -> None:
    noise = 3.0 * np.random.default_rng(0).normal(size=(len(NODES), 20_000))
    left = np.sqrt(np.mean(unexplained(noise, NODES, order) ** 2, axis=1))
    np.testing.assert_allclose(left, 3.0, rtol=0.03)  # of 20,000 draws
    terms = taylor_term(noise, NODES, order)
    assert 0.5 < np.median(terms) / (3.0 * noise_of_term(NODES, order)) < 1.5


def test_a_taylor_term_is_the_derivative_of_its_order() -> None:
    x = np.asarray(NODES)
    for order in range(1, 7):
        term = taylor_term(2.0 * x**order, NODES, order)
        assert abs(term - 2.0 * math.factorial(order)) < ROUNDED * 4.0**order


@pytest.mark.parametrize("order", range(1, 6))
def test_one_polynomial_leaves_the_deviation_from_that_of_least_squares(order: int) -> None:
    values = np.random.default_rng(0).normal(size=(len(NODES), 3))
    powers = np.vander(NODES, order)
    rest = values - powers @ np.linalg.lstsq(powers, values)[0]
    expected = np.sqrt(np.sum(rest**2, axis=0) / (len(NODES) - order))
    np.testing.assert_allclose(unexplained_by_one(values, NODES, order), expected, rtol=1e-10)
    assert np.all(unexplained_by_one(powers, NODES, order) <= ROUNDED)


def test_values_may_have_nodes_of_their_own_at_any_scale() -> None:
    draw = np.random.default_rng(0)
    values, nodes = draw.normal(size=(5, 3, 2)), np.sort(draw.normal(size=(5, 3)), axis=0)
    scales = np.asarray([1e-200, 1.0, 1e200])
    found = unexplained_at([*values], [*(nodes * scales)[:, :, None]])
    for column in range(3):
        alone = unexplained(values[:, column], nodes[:, column].tolist(), 4)[0]
        np.testing.assert_allclose(found[column], alone, rtol=1e-10)
