"""The report: its numbers equal a direct computation, and its string and plot show them."""

import json
import statistics
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.planted_mistakes import check, every_method

pytestmark = pytest.mark.float64  # the steps, tolerances and orders are those of float64

ERRORS = {"complex_step": 1e-13, "centered": 1e-8}  # largest error of a numeric derivative
entry_by_entry = pytest.mark.parametrize("method", ERRORS)
BEND = 0.15  # effect of the next Taylor term on an order

generator = np.random.default_rng(81)
POINT = {"weights": generator.normal(size=(2, 3)), "<bias>": generator.normal(size=(1, 3))}
NUMERIC = {name: 3.0 * p * p for name, p in POINT.items()}
# The difference to the right gradient: two entries of the weights, none of the bias.
OFF = np.array([[0.0, 0.25, 0.0], [-1.5, 0.0, 0.0]])
ANALYTIC = {**NUMERIC, "weights": NUMERIC["weights"] + OFF}


def _report(xp: Any, method: str, *, wrong: bool = True) -> Any:
    """Check ``sum(p**3)`` over a dict of arrays."""
    off = {"weights": xp.asarray(OFF if wrong else 0.0 * OFF), "<bias>": 0.0}
    return check.gradient(
        lambda point: sum(xp.namespace.sum(p * p * p) for p in point.values()),
        lambda point: {name: 3.0 * p * p + off[name] for name, p in point.items()},
        {name: xp.asarray(p) for name, p in POINT.items()},
        method=method,
    )


@every_method
def test_a_pass_is_one_line_with_its_method(xp: Any, method: str) -> None:
    report = _report(xp, method, wrong=False)
    assert (report.verdict, report.diagnosis, report.notes) == ("pass", None, ())
    assert 1e-25 < report.step < (1e-16 if report.method == "complex_step" else 1.0)
    assert 0.0 <= report.max_relative_error <= report.tolerance < 1e-5
    line, *table = str(report).splitlines()
    for words in ("pass", report.method, f"{report.evaluations} evaluations"):
        assert words in line
    assert not table or method == "taylor"
    report.raise_if_failed()


@entry_by_entry
def test_gradients_tensors_and_worst_entries_follow_the_point(xp: Any, method: str) -> None:
    report, close = _report(xp, method), ERRORS[method]
    for found, expected in ((report.analytic, ANALYTIC), (report.numeric, NUMERIC)):
        for name in POINT:
            np.testing.assert_allclose(xp.host(found[name]), expected[name], rtol=close, atol=close)
    weights, bias = report.tensors
    assert (weights.tensor, weights.entries, weights.not_judged) == ("['weights']", 6, 0)
    assert weights.absolute_error == pytest.approx(1.5, rel=close)
    assert weights.fraction_wrong == pytest.approx(2.0 / 6.0)
    assert (bias.tensor, bias.entries, bias.fraction_wrong) == ("['<bias>']", 3, 0.0)
    first, second, *others = report.worst
    assert {first.name, second.name} == {"['weights'][1, 0]", "['weights'][0, 1]"}
    for row in (first, second):
        assert row.analytic == pytest.approx(ANALYTIC["weights"][row.index], rel=close)
        assert row.numeric == pytest.approx(NUMERIC["weights"][row.index], rel=close)
        larger = max(abs(row.analytic), abs(row.numeric))
        assert row.relative_error == pytest.approx(row.absolute_error / larger, rel=1e-6)
        assert 0.0 <= row.error_bar <= 1e-6 * larger
    assert first.relative_error == report.max_relative_error >= second.relative_error
    assert all(row.relative_error <= report.tolerance for row in others)


@pytest.mark.parametrize(("factor", "order"), [(1.0, 3.0), (1.01, 1.0), (-1.0, 1.0), (0.0, 1.0)])
def test_taylors_orders_tell_right_from_wrong(xp: Any, factor: float, order: float) -> None:
    """The tutorial swaps the orders: the error of the centred difference is O(h^2)."""
    value, gradient = lambda p: xp.namespace.sum(p**4), lambda p: 4.0 * factor * p**3
    point = xp.asarray(POINT["weights"])
    report = check.gradient(value, gradient, point, method="taylor")
    table, one_sided = report.taylor, 2.0 if order == 3.0 else 1.0
    assert report.verdict == ("pass" if order == 3.0 else "fail")
    assert statistics.median(report.taylor_orders[-3:]) == pytest.approx(order, abs=BEND)
    assert statistics.median(table.one_sided_orders[-3:]) == pytest.approx(one_sided, abs=BEND)
    np.testing.assert_array_equal(np.array(table.steps[:-1]), 2.0 * np.array(table.steps[1:]))
    assert all(f"{number:.1e}" in str(report) for number in (*table.steps, *table.symmetric))


@entry_by_entry
def test_a_failure_shows_its_reason_its_tensors_and_its_worst_entries(xp: Any, method: str) -> None:
    report = _report(xp, method)
    head, why, *tables = str(report).splitlines()
    assert head.startswith("gradient check: fail")
    assert report.reason in why
    assert [line.split()[0] for line in tables[:3]] == ["tensor", "['weights']", "['<bias>']"]
    assert tables[1].split()[1:3] == ["6", "1.5e+00"]
    assert tables[1].endswith("33%")
    for line, row in zip(tables[4:], report.worst, strict=True):
        assert line.strip().startswith(row.name)
        assert f"{row.analytic:.8g}" in line
        assert f"{row.numeric:.8g}" in line
    page = report._repr_html_()
    assert page.count("<table ") == 2
    assert "[&#x27;&lt;bias&gt;&#x27;]" in page


@every_method
def test_a_report_can_be_raised_and_written_as_json(xp: Any, method: str) -> None:
    report = _report(xp, method)
    with pytest.raises(bx.GradientCheckError, match="fail") as error:
        report.raise_if_failed()
    assert error.value.report is report
    assert str(error.value) == str(report)
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (found["verdict"], found["passed"], found["method"]) == ("fail", False, report.method)
    assert [row["name"] for row in found["worst"]] == [row.name for row in report.worst]
    if report.numeric is not None:
        assert found["numeric"]["weights"] == xp.host(report.numeric["weights"]).tolist()
    assert found["taylor_orders"] == (list(report.taylor_orders) if report.taylor else None)
    endless = check.gradient(lambda p: p, lambda p: np.nan * p, 1.0)
    assert endless.to_dict()["max_relative_error"] is None


def test_a_picture_shows_entries_or_remainders(xp: Any) -> None:
    pytest.importorskip("matplotlib")
    entries, remainders = (_report(xp, m).plot().axes[0] for m in ("complex_step", "taylor"))
    expected = [part["weights"].ravel() for part in (NUMERIC, ANALYTIC)]
    np.testing.assert_allclose(entries.lines[0].get_data(), expected, rtol=1e-12)
    lines = {line.get_label(): list(line.get_ydata()) for line in remainders.lines}
    assert lines["symmetric (dotted: order 3)"] == list(_report(xp, "taylor").taylor.symmetric)
    with pytest.raises(ValueError, match=r'nothing to draw.*method="auto".*method="taylor"'):
        _report(xp, "directional").plot()
    product = bx.check_vjp(np.sin, lambda x, u: np.cos(x) * u, np.array([0.5, -1.0]))
    with pytest.raises(ValueError, match=r'numeric vector-Jac.* product: take method="taylor" for'):
        product.plot()


def test_a_directional_report_gives_no_digits_of_entries() -> None:
    def gradient(p: Any) -> Any:
        found = 3.0 * p * p
        found[[5, 700]] = found[[700, 5]]
        return found

    def value(p: Any) -> Any:
        calls.append(1)
        return np.sum(p**3)

    point, calls = np.random.default_rng(0).normal(size=100_000), list[int]()
    report = check.gradient(value, gradient, point)
    assert (report.verdict, report.method) == ("fail", "directional")
    assert len(calls) <= 250  # each sampled entry is one direction
    assert report.max_relative_error < 1e-3 < report.worst[0].relative_error
    assert "digits" not in report.reason
    nearly = check.gradient(lambda p: np.sum(p**3), lambda p: 3.0001 * p * p, point)
    assert "agree to 4 digits" in nearly.reason


def test_a_wider_tolerance_is_not_suggested_for_error_bars() -> None:
    at = np.array([1.0, -2.0, 3.0])
    value, gradient = lambda p: 1e3 + float(np.sum((p.real - at) ** 2)), lambda p: 2.0 * (p - at)
    report = check.gradient(value, gradient, at + 1e-9, tolerance=1e-7)
    assert report.verdict == "inconclusive"
    assert "wider than the given tolerance" in report.reason
    assert "tolerance=" not in report.reason


def test_a_report_is_true_exactly_if_it_passed() -> None:
    value, point = lambda p: np.sum(p**2), np.array([1.0, -2.0])
    for factor, passed in ((2.0, True), (3.0, False)):
        gradient = lambda p, k=factor: k * p  # noqa: E731
        assert bool(check.gradient(value, gradient, point)) is passed
        pytest.importorskip("scipy")
        assert bool(bx.check_minimize(value, point, jac=gradient)) is passed
    with pytest.raises(AssertionError):
        assert check.gradient(value, lambda p: 3.0 * p, point)
    assert check.gradient(abs, lambda p: 0.5, 0.0)  # a kink


def test_a_report_without_a_comparison_shows_no_error_and_no_tolerance() -> None:
    numbers = iter(range(9))
    for report, found in (
        (
            check.gradient(lambda p: next(numbers), np.sign, np.ones(1)),
            "nondeterministic (auto, 2 eval",
        ),
        (check.gradient(np.sum, np.ones_like, np.ones(3), max_evaluations=1), "inconclusive (auto"),
    ):
        first = str(report).splitlines()[0]
        assert first.startswith(f"gradient check: {found}")
        assert "nan" not in str(report) + report._repr_html_()
        assert "tolerance" not in first
        assert report.to_dict()["max_relative_error"] is None


def test_a_record_with_constants_and_complex_numbers_is_written_as_json() -> None:
    point = SimpleNamespace(z=np.array([1.0 + 2.0j]), name="ring", solver=np.tanh, n=None)
    report = check.gradient(
        lambda p: np.sum(p.z.real**2 + p.z.imag),
        lambda p: SimpleNamespace(z=2 * p.z.real + 1j),
        point,
    )
    found = json.loads(json.dumps(report.to_dict()))["analytic"]
    assert found == {"z": ["(2+1j)"], "name": "ring", "solver": repr(np.tanh), "n": None}


def test_a_reason_names_what_is_checked() -> None:
    tanh, slope, at = lambda p: np.tanh(p.real), lambda p: 1.0 - np.tanh(p) ** 2, np.full(2, 18.0)
    zero = {
        "gradient": check.gradient(lambda p: np.sum(tanh(p)), slope, at),
        "Jacobian": check.jacobian(tanh, lambda p: np.diag(slope(p)), at),
        "Hessian": bx.check_hessian(tanh, lambda p: np.diag(slope(p)), at),
        "product": bx.check_vjp(tanh, lambda p, u: u * slope(p), at),
    }
    for noun, report in zero.items():
        assert report.reason.startswith(f"the {noun} is zero to rounding here")
    root = check.jacobian(lambda p: np.sqrt(np.abs(p)), lambda p: np.diag(0.0 * p), np.zeros(2))
    assert root.reason.startswith("function has no derivative here")


def test_a_report_prints_as_it_is_shown() -> None:
    value, point = lambda p: np.sum(p**3), np.array([1.0, -2.0])
    pytest.importorskip("scipy")
    for factor in (3.0, 3.1):
        gradient = lambda p, k=factor: k * p**2  # noqa: E731
        report = check.gradient(value, gradient, point)
        assert repr(report) == str(report)
        assert repr(report).startswith(f"gradient check: {report.verdict} (largest relative error")
        problem = bx.check_minimize(value, point, jac=gradient)
        assert repr(problem) == str(problem) == f"jac: {problem.reports['jac']}"


@pytest.mark.parametrize("method", ["auto", "directional", "taylor"])
def test_a_kink_is_shown_with_its_place_its_slopes_and_that_it_passes(method: str) -> None:
    point = {"a": np.array([1.0, 0.0]), "b": np.zeros(1)}
    report = check.gradient(
        lambda p: 2.0 * np.sum(np.abs(p["a"])) + np.sum(np.maximum(p["b"], 0.0)),
        lambda p: {"a": 2.0 * np.sign(p["a"]), "b": np.array([0.25])},
        point,
        method=method,
    )
    # Kinks meet on each direction, so that entries decide, by real differences.
    assert (report.verdict, report.passed, report.method) == ("kink", True, "centered")
    head, where, *_ = str(report).splitlines()
    assert head.startswith("gradient check: kink, passed (largest relative error 0.0e+00, toler")
    assert where == f"  {report.reason}"
    assert report.reason == (
        "at ['a'][1] the slope is -2 to the left and 2 to the right, and the analytic value 0 lies "
        "between; other entries with kinks: 1"
    )
    assert "at [&#x27;a&#x27;][1] the slope is -2" in report._repr_html_()
    assert report.to_dict()["reason"] == report.reason


def test_a_kink_of_a_product_has_the_slopes_of_its_entry() -> None:
    x = np.array([0.0, 100.0])
    report = bx.check_jvp(lambda x: np.maximum(x, 0.0), lambda x, v: (x > 0.0) * v, x)
    assert report.verdict == "kink"
    assert report.reason.startswith("at J[0, 0] the slope is 0 to the left and 1 to the right")


def test_an_error_that_cannot_be_judged_is_not_shown() -> None:
    step = lambda p: 0.0 if abs(p) < 1e-300 else np.nan  # noqa: E731
    report = check.gradient(step, lambda p: 0.0, 0.0)
    assert report.verdict == "inconclusive"
    assert str(report).startswith("gradient check: inconclusive (centered, step ")
    for text in (str(report), report._repr_html_()):
        assert "e+308" not in text
        assert "not finite on either side" in text


def test_an_entry_that_is_not_judged_does_not_decide() -> None:
    point = np.array([1.0, -2.0, 0.0])
    report = check.gradient(lambda p: np.sum(p**3), lambda p: 3.0 * p**2, point)
    assert (report.verdict, report.tensors[0].not_judged) == ("pass", 1)
    assert report.max_relative_error <= report.tolerance < 2e-7


@pytest.mark.parametrize("method", ["auto", "complex_step", "directional", "centered"])
def test_a_failing_report_names_the_method_and_the_step_that_decided(method: str) -> None:
    report = check.gradient(lambda p: np.sum(np.exp(p)), np.sin, POINT["weights"], method=method)
    is_exact = method != "centered"
    assert report.verdict == "fail"
    assert report.method == {"auto": "complex_step"}.get(method, method)
    assert (report.step < 1e-15) is is_exact
    assert f"{report.method}, step {report.step:.1e}" in str(report)


def test_a_kink_of_an_analytic_value_is_found_by_differences() -> None:
    point = np.array([1.0, 2.0, 0.0])
    value = lambda p: np.sum(np.where(p.real > 0.0, p, 0.5 * p) + p**2)  # noqa: E731
    slope = lambda p: np.where(p > 0.0, 1.0, 0.7) + 2.0 * p  # noqa: E731
    report = check.gradient(value, slope, point)
    assert (report.verdict, report.method) == ("kink", "centered")
    assert report.step > 1e-15
    assert report.reason.startswith("at [2] the slope is 0.5 to the left and 1 to the right")
