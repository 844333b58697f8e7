"""The report: its numbers are what one computes oneself, and its text and picture show them."""

import re
import sys
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted import Tampered, with_entries

# Steps, tolerances and orders are those of float64; float32's are told of by the verdicts that
# test_gradient_check.py and its kind ask for.
pytestmark = pytest.mark.float64

METHODS = ["complex_step", "centered", "directional", "taylor"]
ENTRYWISE = METHODS[:2]
every_method = pytest.mark.parametrize("method", METHODS)
entry_by_entry = pytest.mark.parametrize("method", ENTRYWISE)

# What a numeric derivative of these small functions errs by at most.
ERRORS = {"complex_step": 1e-13, "centered": 1e-9}

generator = np.random.default_rng(81)
POINT = {"weights": generator.normal(size=(2, 3)), "bias": generator.normal(size=(1, 3))}
SIZE = 9
# What is added to the right gradient: in two entries of the weights, none of the bias.
OFF = np.array([[0.0, 0.25, 0.0], [-1.5, 0.0, 0.0]])


class Cubes:
    """``sum(p**3)`` over a dict of arrays; in ``evaluations`` it counts its calls."""

    def __init__(self, xp: Any) -> None:
        self.point = {name: xp.asarray(p) for name, p in POINT.items()}
        self.sum = xp.namespace.sum
        self.off = xp.asarray(OFF)
        self.evaluations = 0

    def value(self, point: dict[str, Any]) -> Any:
        self.evaluations += 1
        return sum(self.sum(p * p * p) for p in point.values())

    def gradient(self, point: dict[str, Any]) -> dict[str, Any]:
        return {name: 3.0 * p * p for name, p in point.items()}

    def wrong(self, point: dict[str, Any]) -> dict[str, Any]:
        gradient = self.gradient(point)
        return {**gradient, "weights": gradient["weights"] + self.off}


def _report(xp: Any, method: str, *, wrong: bool = False, **options: Any) -> Any:
    cubes = Cubes(xp)
    gradient = cubes.wrong if wrong else cubes.gradient
    return bx.check_gradient(cubes.value, gradient, cubes.point, method=method, **options)


def _expected() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the wrong gradient and the right one, on the host."""
    numeric = {name: 3.0 * p * p for name, p in POINT.items()}
    return {**numeric, "weights": numeric["weights"] + OFF}, numeric


# ---- the fields


FIELDS: dict[str, dict[str, Any]] = {
    "complex_step": {"engine": "complex step", "step": (1e-25, 1e-16), "tolerance": 1e-10},
    "centered": {"engine": "centered difference", "step": (1e-5, 1e-3), "tolerance": 1e-8},
    "directional": {"engine": "complex step along 2 directions", "step": (1e-25, 1e-16)},
    # Halved until the remainder sinks into rounding.
    "taylor": {"engine": "along a direction", "step": (1e-7, 1e-2)},
}


@every_method
def test_a_report_says_how_it_was_come_by(xp: Any, method: str) -> None:
    report, expected = _report(xp, method), FIELDS[method]
    assert isinstance(report, bx.GradientReport)
    assert (report.verdict, report.passed, report.method) == ("pass", True, method)
    assert expected["engine"] in report.engine
    low, high = expected["step"]
    assert low < report.step < high
    assert report.tolerance == expected.get("tolerance", report.tolerance)
    assert 0.0 <= report.max_relative_error <= report.tolerance < 1e-3
    assert report.reason
    for name in ("step", "tolerance", "max_relative_error"):
        assert isinstance(getattr(report, name), float)
    assert isinstance(report.evaluations, int)


@pytest.mark.parametrize("wrong", [False, True])
@every_method
def test_evaluations_counts_the_calls_for_the_verdict(xp: Any, method: str, wrong: bool) -> None:
    cubes = Cubes(xp)
    gradient = cubes.wrong if wrong else cubes.gradient
    report = bx.check_gradient(cubes.value, gradient, cubes.point, method=method, batched=False)
    # A diagnosis by directions calls value once more, and again.
    more = method == "directional" and wrong
    assert (cubes.evaluations > report.evaluations) == more
    assert report.evaluations <= cubes.evaluations
    least = {"complex_step": SIZE, "centered": 4 * SIZE}
    assert report.evaluations >= least.get(method, 2)
    if method == "directional":
        assert report.evaluations <= 8


def test_auto_is_reported_as_what_it_chose(xp: Any) -> None:
    assert _report(xp, "auto").method == "complex_step"


@every_method
def test_a_tolerance_of_ones_own_is_reported(xp: Any, method: str) -> None:
    report = _report(xp, method, tolerance=1e-3)
    assert (report.tolerance, report.passed) == (1e-3, True)


@pytest.mark.parametrize("count", [1, 3])
def test_directions_are_counted(xp: Any, count: int) -> None:
    assert f"{count} direction" in _report(xp, "directional", directions=count).engine


@every_method
def test_gradients_are_kept_entry_by_entry_alone(xp: Any, method: str) -> None:
    report = _report(xp, method, wrong=True)
    if method not in ENTRYWISE:
        assert (report.analytic, report.numeric) == (None, None)
        return
    for found, expected in zip((report.analytic, report.numeric), _expected(), strict=True):
        assert list(found) == list(POINT)
        for name in POINT:
            np.testing.assert_allclose(
                xp.host(found[name]), expected[name], rtol=ERRORS[method], atol=ERRORS[method]
            )


@entry_by_entry
def test_tensors_says_what_became_of_each(xp: Any, method: str) -> None:
    report, (analytic, numeric) = _report(xp, method, wrong=True), _expected()
    assert [tensor.tensor for tensor in report.tensors] == ["['weights']", "['bias']"]
    assert [tensor.entries for tensor in report.tensors] == [6, 3]
    weights, bias = report.tensors
    largest = np.maximum(np.abs(analytic["weights"]), np.abs(numeric["weights"])).max()
    assert weights.absolute_error == pytest.approx(1.5, rel=ERRORS[method])
    assert weights.relative_error == pytest.approx(1.5 / largest, rel=ERRORS[method])
    assert weights.fraction_wrong == pytest.approx(2.0 / 6.0)
    assert bias.absolute_error <= 10.0 * ERRORS[method]
    assert bias.relative_error <= report.tolerance
    assert bias.fraction_wrong == 0.0
    assert report.max_relative_error == weights.relative_error


@entry_by_entry
def test_the_worst_entries_come_first(xp: Any, method: str) -> None:
    report, (analytic, numeric) = _report(xp, method, wrong=True), _expected()
    first, second, *others = report.worst
    assert (first.name, second.name) == ("['weights'][1, 0]", "['weights'][0, 1]")
    for row in (first, second):
        assert row.analytic == pytest.approx(analytic["weights"][row.index], rel=ERRORS[method])
        assert row.numeric == pytest.approx(numeric["weights"][row.index], rel=ERRORS[method])
        assert row.absolute_error == abs(row.analytic - row.numeric)
    errors = [row.relative_error for row in report.worst]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == report.max_relative_error
    assert all(row.relative_error <= report.tolerance for row in others)


def test_by_directions_one_wrong_entry_is_tracked_down(xp: Any) -> None:
    report = _report(xp, "directional", wrong=True)
    (row,) = report.worst
    assert row.name in ("['weights'][1, 0]", "['weights'][0, 1]")
    assert row.absolute_error == pytest.approx(abs(OFF[row.index]), rel=1e-9)


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 2)])
def test_an_entry_is_named_by_its_index(xp: Any, shape: tuple[int, ...]) -> None:
    point = xp.asarray(np.ones(shape))
    report = bx.check_gradient(lambda p: xp.namespace.sum(p * p), lambda p: 3.0 * p, point)
    indices = {str(list(index)) if index else "" for index in np.ndindex(shape)}
    assert {row.name for row in report.worst} <= indices


@pytest.mark.parametrize(("wrong", "order"), [(False, 3.0), (True, 1.0)])
def test_taylor_orders_are_those_of_its_remainders(xp: Any, wrong: bool, order: float) -> None:
    report = _report(xp, "taylor", wrong=wrong)
    assert report.verdict == ("fail" if wrong else "pass")
    table = report.taylor
    assert report.taylor_orders == table.orders
    # Of the last step a remainder may be left that is half rounding.
    assert table.orders[-2] == pytest.approx(order, abs=0.1)
    assert table.one_sided_orders[-2] == pytest.approx(1.0 if wrong else 2.0, abs=0.1)
    ratios = np.log2(np.array(table.symmetric[:-1]) / np.array(table.symmetric[1:]))
    np.testing.assert_allclose(table.orders, ratios[: len(table.orders)], rtol=1e-12)
    np.testing.assert_array_equal(np.array(table.steps[:-1]), 2.0 * np.array(table.steps[1:]))


@pytest.mark.parametrize("method", METHODS[:3])
def test_other_methods_have_no_taylor_orders(xp: Any, method: str) -> None:
    report = _report(xp, method)
    assert (report.taylor, report.taylor_orders) == (None, None)


# ---- the text


@pytest.mark.parametrize("method", METHODS[:3])
def test_a_pass_is_a_line(xp: Any, method: str) -> None:
    report = _report(xp, method)
    (line,) = str(report).splitlines()
    assert line.startswith("gradient check: pass")
    for words in (method, f"{report.evaluations} evaluations", f"{report.tolerance:.0e}"):
        assert words in line


@entry_by_entry
def test_a_failure_shows_why_and_its_tensors_and_its_worst_entries(xp: Any, method: str) -> None:
    report = _report(xp, method, wrong=True)
    head, why, *tables = str(report).splitlines()
    assert head.startswith("gradient check: fail")
    assert report.engine in why
    assert report.reason in why
    names = [line.split()[0] for line in tables]
    # One of the weights' entries is the worst, then comes the other.
    assert names[:3] == ["tensor", "['weights']", "['bias']"]
    assert names[3] == "worst"
    assert [line.split("  ")[1] for line in tables[4:6]] == [
        "['weights'][1, 0]",
        "['weights'][0, 1]",
    ]
    assert re.search(r"\['weights'\] +6 +1\.5e\+00 .*33%", str(report))
    assert f"{report.worst[0].analytic:.8g}" in tables[4]
    assert f"{report.worst[0].numeric:.8g}" in tables[4]
    assert len({len(line) for line in tables[4:]}) == 1


def test_a_failure_shows_its_diagnosis(xp: Any) -> None:
    cubes = Cubes(xp)
    report = bx.check_gradient(
        cubes.value, lambda p: {name: -g for name, g in cubes.gradient(p).items()}, cubes.point
    )
    assert report.diagnosis
    assert f"diagnosis: {report.diagnosis}" in str(report)
    assert "diagnosis" not in str(_report(xp, "auto"))


@pytest.mark.parametrize("wrong", [False, True])
def test_taylor_shows_a_line_for_each_step(xp: Any, wrong: bool) -> None:
    report = _report(xp, "taylor", wrong=wrong)
    text = str(report)
    for step in report.taylor.steps:
        assert f"{step:.1e}" in text
    for order in report.taylor_orders:
        assert f"{order:.2f}" in text
    head = next(line for line in text.splitlines() if "one-sided" in line)
    assert head.split() == ["step", "one-sided", "order", "symmetric", "order"]
    rows = text.splitlines()[text.splitlines().index(head) + 1 :]
    assert len(rows) == len(report.taylor.steps)


@pytest.mark.parametrize("method", ["auto", "directional"])
def test_a_networks_entries_are_named_as_one_would_write_them(xp: Any, method: str) -> None:
    def tamper(gradient: Any, theta: Any) -> Any:
        # After a Dense of 2 by 3 and three biases, the fourth row's second entry.
        return with_entries(gradient, lambda entry: entry + 1.0, 9 + 7)

    network = Tampered(tamper, [bx.Dense(2, 3), bx.Activate("tanh"), bx.Dense(3, 2)])
    theta = xp.initialize(network, seed=0)
    x, y = xp.asarray([[0.5, -1.0], [2.0, 1.5]]), xp.asarray([[0.0, 1.0], [1.0, 0.0]])
    options: Any = {"max_memory": 1} if xp.name == "jax" else {}
    report = bx.check_network(network, theta, x, y, method=method, **options)
    assert report.worst[0].name == "layers[2].bias[0, 1]"
    assert "layers[2].bias[0, 1]" in str(report)


# ---- what comes of it


@every_method
def test_a_failure_is_raised_with_the_report(xp: Any, method: str) -> None:
    report = _report(xp, method, wrong=True)
    with pytest.raises(bx.GradientCheckError) as error:
        report.raise_if_failed()
    assert error.value.report is report
    assert str(error.value) == str(report)
    _report(xp, method).raise_if_failed()


def test_a_picture_shows_the_entries_of_each_tensor(xp: Any) -> None:
    figure = pytest.importorskip("matplotlib.figure")
    report, (analytic, numeric) = _report(xp, "auto", wrong=True), _expected()
    drawn = report.plot()
    assert isinstance(drawn, figure.Figure)
    (axes,) = drawn.axes
    points = {line.get_label(): line for line in axes.lines if line.get_marker() == "."}
    assert list(points) == ["['weights']", "['bias']"]
    assert len({line.get_color() for line in points.values()}) == 2
    for name, (x, y) in {f"[{n!r}]": (numeric[n], analytic[n]) for n in POINT}.items():
        np.testing.assert_allclose(points[name].get_xdata(), x.ravel(), rtol=1e-12)
        np.testing.assert_allclose(points[name].get_ydata(), y.ravel(), rtol=1e-12)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(points)
    (diagonal,) = [line for line in axes.lines if line.get_marker() != "."]
    np.testing.assert_array_equal(diagonal.get_xdata(), diagonal.get_ydata())
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("numeric", "analytic")
    assert "fail" in axes.get_title()


@pytest.mark.parametrize("wrong", [False, True])
def test_a_picture_by_taylor_shows_remainders_and_the_orders_of_a_right_gradient(
    xp: Any, wrong: bool
) -> None:
    pytest.importorskip("matplotlib")
    report = _report(xp, "taylor", wrong=wrong)
    (axes,) = report.plot().axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}
    steps = np.array(report.taylor.steps)
    for name, remainders, order in (
        ("one-sided", report.taylor.one_sided, 2),
        ("symmetric", report.taylor.symmetric, 3),
    ):
        np.testing.assert_array_equal(lines[f"{name} remainder"], remainders)
        (ideal,) = [y for label, y in lines.items() if f"order {order}" in str(label)]
        np.testing.assert_allclose(ideal, remainders[0] * (steps / steps[0]) ** order, rtol=1e-12)
    assert ("pass" in axes.get_title()) != wrong


def test_by_directions_there_is_nothing_to_draw(xp: Any) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r'nothing to draw.*method="auto".*method="taylor"'):
        _report(xp, "directional").plot()


@pytest.mark.parametrize("method", ["auto", "taylor"])
def test_without_matplotlib_a_picture_says_how_to_install_it(
    xp: Any, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = _report(xp, method)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'backprop_xp\[plot\]'"):
        report.plot()
