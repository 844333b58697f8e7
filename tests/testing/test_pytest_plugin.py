"""The pytest plugin, in runs of pytest in this process."""

import re
from pathlib import Path
from typing import Any

import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.files import container
from tests.helpers import python

pytest_plugins = ["pytester"]

PLUGIN = "backprop_xp.testing.pytest_plugin"
TESTS = """
import numpy as np, pytest, backprop_xp as bx

x = np.asarray([0.3, -1.2, 2.0])
value = lambda p: np.sum(p**3)

def test_right(check_gradient):
    report = check_gradient(value, lambda p: 3 * p**2, x)
    assert isinstance(report, bx.GradientReport)
    assert check_gradient.jacobian(np.sin, lambda p: np.diag(np.cos(p)), x).passed

@pytest.mark.parametrize("factor", [6.0, 3.0], ids=["<wrong>", "right"])
def test_zone(check_gradient, factor):
    check_gradient(value, lambda p: factor * p**2, x)
"""


@pytest.fixture(scope="module", autouse=True)
def _imports() -> None:
    """Import all that a run needs: pytester drops new modules, and others would get them anew."""
    assert testing, container
    wrong = bx.Activation(value=lambda z: z**3, vjp=lambda g, z, a: g)
    assert bx.check_layer(wrong, bx.asarray([[1.0, 2.0]]))._repr_html_()


@pytest.fixture
def run(pytester: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run pytest with the plugin, and without those that happen to be installed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")

    def run(tests: str, *options: str) -> Any:
        pytester.makepyfile(test_physics=tests)
        return pytester.runpytest_inprocess("-p", PLUGIN, *options)

    return run


def headings(page: Path) -> list[str]:
    return re.findall("<h2>(.*)</h2>", page.read_text("utf-8"))


def test_the_report_is_the_message_of_a_failed_test_and_is_returned_by_a_check_that_passes(
    run: Any,
) -> None:
    done = run(TESTS)
    done.assert_outcomes(passed=2, failed=1)
    output = done.stdout.str()
    shown = r"^>       check_gradient\(value, .*\nE .*GradientCheckError: gradient check: fail"
    assert re.search(shown, output, re.M)
    assert "diagnosis: the gradient is the numeric gradient times a constant factor of 2" in output
    assert "pytest_plugin.py" not in output
    assert "gradient seed" not in output


def test_the_fixture_has_every_check_of_the_package(run: Any) -> None:
    names = [name.removeprefix("check_") for name in bx.__all__ if name.startswith("check_")]
    assert len(names) > 4
    run(f"""
import pytest, backprop_xp as bx

def test_names(check_gradient):
    assert dir(check_gradient) == {sorted(names)!r}
    layer = check_gradient.layer(bx.LayerNorm(3), bx.asarray([[1.0, 2.0, 4.0]]))
    assert layer.tensors[0].tensor == "input"
    with pytest.raises(AttributeError, match="bx.check_jacobean"):
        check_gradient.jacobean
""").assert_outcomes(passed=1)


def test_the_seed_of_the_run_draws_the_directions_unless_a_test_names_its_own(run: Any) -> None:
    tests = """
import numpy as np

def points(check_gradient, **options):
    seen = []
    value = lambda p: seen.append(np.real(p).copy()) or np.sum(p**2)
    check_gradient(value, lambda p: 2 * p, np.ones(9), method="directional", **options)
    return np.asarray(seen)

def test_seed(check_gradient):
    default, *own = [points(check_gradient, **{"seed": s} if s else {}) for s in (None, 5, 6)]
    assert [np.array_equal(default, one) for one in own] == [True, False]
"""
    done = run(tests, "--gradient-seed", "5")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["gradient seed: 5"])
    run(tests).assert_outcomes(failed=1)


@pytest.mark.parametrize("workers", [(), ("-p", "xdist", "-n", "2")], ids=["", "xdist"])
def test_the_page_of_a_run_has_its_checks_with_the_failed_ones_first(
    run: Any, pytester: Any, workers: tuple[str, ...]
) -> None:
    if workers:
        pytest.importorskip("xdist")
    done = run(TESTS, "--gradient-html", "page.html", *workers)
    done.assert_outcomes(passed=2, failed=1)
    assert ("2 workers" in done.stdout.str()) == bool(workers)
    page = pytester.path / "page.html"
    assert headings(page) == [
        "fail: test_physics.py::test_zone[&lt;wrong&gt;], check_gradient",
        "pass: test_physics.py::test_right, check_gradient",
        "pass: test_physics.py::test_right, check_jacobian",
        "pass: test_physics.py::test_zone[right], check_gradient",
    ]
    text = page.read_text("utf-8")
    assert "<p>4 checks, 1 not passed</p>" in text
    assert text.count("<section") == 4
    assert "a constant factor of 2" in text
    assert not re.search("<script|<link|src=|href=|http", text)


def test_a_check_in_a_fixture_belongs_to_the_test_that_runs_and_a_page_can_be_empty(
    run: Any, pytester: Any
) -> None:
    page = pytester.path / "page.html"
    run("def test_nothing(): pass", "--gradient-html", str(page))
    assert headings(page) == []
    run(
        "import pytest\n\n@pytest.fixture(scope='module')\ndef solved(check_gradient):\n"
        "    check_gradient(lambda p: p * p, lambda p: 3 * p, 2.0)\n\n"
        "def test_first(): pass\n\ndef test_second(solved): pass",
        *("--gradient-html", str(page)),
    ).assert_outcomes(passed=1, errors=1)
    assert headings(page) == ["fail: test_physics.py::test_second, check_gradient"]


def test_a_page_that_cannot_be_written_ends_the_run_before_its_tests(run: Any) -> None:
    done = run(TESTS, "--gradient-html", "no_folder/page.html")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "--gradient-html: no_folder/page.html is in a folder that does" in done.stderr.str()


def test_the_plugin_imports_no_more_than_the_package_and_pytest() -> None:
    done = python(
        "import sys, pytest, unittest, backprop_xp; before = {*sys.modules}; import "
        f"{PLUGIN}; print(sorted({{*sys.modules}} - before))"
    )
    assert eval(done.stdout) == [  # noqa: S307 - our own output
        "backprop_xp.testing", "backprop_xp.testing.kit", PLUGIN,
    ]  # fmt: skip
