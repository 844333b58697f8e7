"""The table of constants: each is used, and has a reason; steps and nodes are what they promise."""

import ast
from fractions import Fraction
from pathlib import Path

import numpy as np

from backprop_xp import gradient_check
from backprop_xp.gradient_check.engine import constants
from backprop_xp.gradient_check.inputs.points import DOUBLE

PACKAGE = Path(gradient_check.__file__).parent
TABLE = Path(constants.__file__)
LINES = TABLE.read_text("utf-8").splitlines()


def test_every_constant_has_a_reason_above_it_and_is_used() -> None:
    others = [path for path in PACKAGE.rglob("*.py") if path != TABLE]
    used = {
        node.id
        for path in others
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Name)
    }
    found = set()
    for node in ast.parse("\n".join(LINES)).body:
        if isinstance(node, ast.Assign):
            names = {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
            found |= {name for name in names if name.isupper() and name in vars(constants)}
            above = LINES[node.lineno - 2]
            assert above.startswith("# ") or " = " in above, LINES[node.lineno - 1]
    own = {name for name in found if not name.startswith("_")}
    assert len(own) > 50
    assert own <= used | {"DOUBLE", "SINGLE", "HALF", "BFLOAT"}, own - used


def test_no_step_is_near_a_simple_part_of_another_power_of_two() -> None:
    for length in (constants.GOLDEN, constants.BETWEEN):
        for denominator in range(1, 13):
            distance = abs(length * denominator - round(length * denominator))
            assert distance > 0.04, denominator


def test_the_point_plus_the_parts_of_a_step_is_exact() -> None:
    x = 1.0 + np.random.default_rng(0).uniform(0.0, 0.9, size=1000)
    for t in (*constants.AROUND, *constants.AHEAD):
        assert (t * constants.PARTS).is_integer()
        step = t * 2.0**-30
        assert np.all((x + step) - x == step)
    quick = np.float32(constants.GOLDEN * 2.0**-7)
    single = x.astype(np.float32)
    assert np.all((single + quick) - single == quick)
    shortest = Fraction(constants.SHORTEST) / constants.PARTS
    assert np.all(x + float(shortest) >= x + 2.0 * DOUBLE)


def test_a_complex_step_has_a_square_that_vanishes_and_no_underflow() -> None:
    for epsilon, h in constants.IMAGINARY.items():
        assert 1.0 - h * h == 1.0
        assert constants.UNDERFLOW[epsilon] / h < 1e-30
