"""The reference solutions of benchmarks/equations.py: closed forms, limits and finer grids."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
equations = pytest.importorskip("equations")

pytestmark = pytest.mark.once


def test_burgers_solution_has_its_start_its_symmetry_and_its_known_steepest_slope() -> None:
    solution = equations.burgers_solution()
    x = np.linspace(-1.0, 1.0, 41)[:, None]
    start = solution(np.concatenate([x, np.zeros_like(x)], axis=1))
    np.testing.assert_allclose(start, -np.sin(np.pi * x), atol=1e-12)
    later = solution(np.concatenate([x, np.full_like(x, 0.7)], axis=1))
    np.testing.assert_allclose(later, -later[::-1], atol=1e-9)
    # Basdevant et al. 1986: the slope at x = 0 is -152.00516 at t = 1.6037 / pi.
    step, t = 1e-5, 1.6037 / np.pi
    ends = solution(np.array([[-step, t], [step, t]]))
    assert float((ends[1] - ends[0])[0]) / (2.0 * step) == pytest.approx(-152.00516, rel=1e-4)


@pytest.mark.parametrize(("name", "coarse"), [("poisson", 50), ("phases", 500)])
def test_a_reference_on_a_grid_agrees_with_a_coarser_one(name: str, coarse: int) -> None:
    solve: Any = getattr(equations, f"{name}_solution")
    at = equations.drawn([-1.0, 0.0], [1.0, 1.0], 500, 0)
    at = at[at[:, 0] < 0.0]  # within the L, too
    fine, other = solve()(at), solve(coarse)(at)
    assert np.linalg.norm(fine - other) < 2e-3 * np.linalg.norm(fine)


def test_the_predators_keep_their_invariant() -> None:
    t = np.linspace(0.0, equations.UNTIL, 30)[:, None]
    u, v = equations.predators_solution()(t).T
    kept = u - np.log(u) + v - np.log(v)
    np.testing.assert_allclose(kept, kept[0], rtol=1e-9)


def test_the_diffusion_solves_its_equation() -> None:
    class Point:
        xp = np
        x, t = np.array([0.3, -0.7]), np.array([0.2, 0.9])
        k = 1.0

    u = equations.diffused(np.stack([Point.x, Point.t], axis=1))[:, 0]
    Point.u_t, Point.u_xx = -u, -(np.pi**2) * u  # type: ignore[attr-defined]
    np.testing.assert_allclose(equations.diffusion(Point), 0.0, atol=1e-12)


def test_the_points_of_the_l_are_inside_and_on_its_sides() -> None:
    edge = equations.edge_of_the_l(10)
    assert len(edge) == 80
    is_on_a_side = (abs(edge) == 1.0).any(axis=1) | (edge == 0.0).any(axis=1)
    assert is_on_a_side.all()
    assert not equations.in_the_l(np.array([[0.5, 0.5]])).any()
    assert equations.in_the_l(np.array([[-0.5, 0.5], [0.5, -0.5]])).all()
