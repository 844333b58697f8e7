"""NIST's nonlinear regressions of benchmarks/, fitted by Levenberg-Marquardt as layers."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
nist = pytest.importorskip("nist")

# The certified values have eleven digits; NIST asks for six of a good program.
SIX_DIGITS = 1e-6
REGRESSIONS = [
    pytest.param(problem, start, id=f"{name}-{number}")
    for name, problem in nist.REGRESSIONS.items()
    for number, start in enumerate(problem.starts, start=1)
]


@pytest.mark.parametrize(("problem", "start"), REGRESSIONS)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_levenberg_marquardt_finds_six_certified_digits(problem: Any, start: Any) -> None:
    found = nist.ours(problem, start)
    np.testing.assert_allclose(found, problem.certified, rtol=SIX_DIGITS)


@pytest.mark.parametrize("name", nist.REGRESSIONS)
def test_the_certified_values_have_the_certified_sum_of_squares(name: str) -> None:
    problem = nist.REGRESSIONS[name]
    residuals = problem.model(np, problem.x, *problem.certified)[0] - problem.y
    # A wrong digit of a row or a coefficient shows; the sum has eleven digits.
    assert np.sum(residuals**2) == pytest.approx(problem.residual, rel=1e-9)


@pytest.mark.parametrize("name", nist.REGRESSIONS)
def test_the_derivatives_of_a_formula_are_right(name: str) -> None:
    problem = nist.REGRESSIONS[name]
    network = bx.Network([nist.Formula(problem.model, problem.starts[1])], "mean_squared_error")
    theta = network.initialize(backend="numpy") * 1.01
    assert bx.check_network(network, theta, problem.x, problem.y).passed


def test_a_step_that_is_short_by_its_damping_is_no_convergence() -> None:
    """In their own units the coefficients of Misra1a differ by a factor of 1e6."""
    problem = nist.REGRESSIONS["Misra1a"]
    network = bx.Network([nist.Formula(problem.model, (1.0, 1.0))], "mean_squared_error")
    optimizer, start = bx.LevenbergMarquardt(), np.array(problem.starts[0])
    result = bx.fit(network, start, problem.x, problem.y, optimizer=optimizer, epochs=1000)
    np.testing.assert_allclose(result.theta, problem.certified, rtol=SIX_DIGITS)
    assert result.epochs < 1000
