"""The calls of the checks: passes, failures and the effect of each option.

Specifies ``comparison``, ``directions``, ``gradient_check``, ``problems`` and ``run``.
"""

import inspect
import math
import time
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import gradient_check
from backprop_xp.gradient_check.inputs import problems
from tests import planted_mistakes
from tests.planted_mistakes import (
    METHODS,
    assert_only_right_passes,
    check,
    every_dtype,
    every_method,
)

# A right gradient passes clearly: its error is at most this part of the tolerance.
BY_FAR = 0.2

COEFFICIENTS = np.array([[1.0, -2.0, 0.5], [3.0, 1.5, -1.0], [0.3, 2.0, -0.7]])
POINT = np.array([[0.4, -1.1, 0.9], [1.6, 0.2, -0.8], [-0.3, 0.7, 1.2]])


class Problem:
    """``sum(c * sin(p) + p * p)`` and its gradient, by default for stacks; it counts its calls."""

    def __init__(self, xp: Any, dtype: str = "working", axis: Any = (-2, -1)) -> None:
        self.xp, self.axis = xp.namespace, axis
        self.c = xp.asarray(COEFFICIENTS, dtype=dtype)
        self.point = xp.asarray(POINT, dtype=dtype)
        self.shapes: list[tuple[int, ...]] = []

    def value(self, p: Any) -> Any:
        self.shapes.append(tuple(p.shape))
        return self.xp.sum(self.c * self.xp.sin(p) + p * p, axis=self.axis)

    def gradient(self, p: Any) -> Any:
        return self.c * self.xp.cos(p) + 2.0 * p

    def check(self, change: Callable[[Any], Any] = lambda g: g, **options: Any) -> Any:
        return check.gradient(self.value, lambda p: change(self.gradient(p)), self.point, **options)


STACKED, ALONE = (-2, -1), None


@every_dtype
@every_method
@pytest.mark.parametrize(
    ("axis", "batched"), [(STACKED, True), (STACKED, False), (STACKED, None), (ALONE, None)]
)
def test_a_right_gradient_passes_with_stacked_copies_where_value_accepts_them(
    xp: Any, dtype: str, method: str, axis: Any, batched: bool | None
) -> None:
    problem = Problem(xp, dtype, axis)
    report = problem.check(method=method, batched=batched)
    assert report.verdict == "pass"
    assert report.method == ("complex_step" if method == "auto" else method)
    assert report.max_relative_error <= BY_FAR * report.tolerance <= 2e-3
    if method == "centered":  # four steps of nine entries together, or one by one
        stacked = batched is not False and axis is not None
        assert ((36, 3, 3) in problem.shapes) == stacked
    called = sum(math.prod(shape) for shape in problem.shapes) // 9
    # The calls in float32 and the last ones do not count.
    assert report.evaluations <= called <= report.evaluations + 3


@pytest.mark.parametrize("method", METHODS[:3])
def test_batched_is_an_error_for_a_value_that_accepts_no_stacks(xp: Any, method: str) -> None:
    with pytest.raises(ValueError, match="batched=True, but value of stacked copies"):
        Problem(xp, axis=ALONE).check(method=method, batched=True)


MISTAKES: dict[str, Callable[[Any], Any]] = {
    "half a percent": lambda g: 1.005 * g,
    "zero": lambda g: 0.0 * g,
    "one entry off": lambda g: planted_mistakes.change_entries(g, lambda entry: entry + 0.5, 5),
    "one entry nan": lambda g: planted_mistakes.change_entries(
        g, lambda entry: entry + math.nan, 5
    ),
}


@pytest.mark.long
@every_dtype
@every_method
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_gradient_fails(xp: Any, dtype: str, method: str, mistake: str) -> None:
    for seed in (0, 2**64 + 1):
        report = Problem(xp, dtype).check(MISTAKES[mistake], method=method, seed=seed)
        assert report.verdict == "fail"
    if report.tensors and "entry" in mistake:
        assert report.worst[0].index == (1, 2)
        assert report.tensors[0].fraction_wrong == pytest.approx(1.0 / 9.0)


@pytest.mark.parametrize(("tolerance", "verdict"), [(1e-2, "pass"), (1e-4, "fail")])
def test_a_given_tolerance_decides(xp: Any, tolerance: float, verdict: str) -> None:
    report = Problem(xp).check(lambda g: 1.001 * g, tolerance=tolerance)
    assert (report.verdict, report.tolerance) == (verdict, tolerance)
    assert report.reason == "the given tolerance"
    assert report.max_relative_error == pytest.approx(1e-3, rel=1e-2)


def _real_part(xp: Any, p: Any) -> Any:
    return xp.real(p) if xp.isdtype(p.dtype, "complex floating") else p


# The sums equal sum(p**3) for positive p; float() raises for complex numbers.
NOT_ANALYTIC: dict[str, Callable[[Any, Any], Any]] = {
    "takes a magnitude": lambda xp, p: xp.sum(xp.abs(p) * p * p),
    "casts to real": lambda xp, p: xp.sum(_real_part(xp, p) ** 3),
    "blind to half of the slope": lambda xp, p: 0.5 * xp.sum(_real_part(xp, p) ** 3 + p**3),
    "a number of Python's": lambda xp, p: math.fsum(float(p[i]) ** 3 for i in range(3)),
}


@every_dtype
@pytest.mark.filterwarnings("ignore:Casting complex")
@pytest.mark.parametrize("kind", NOT_ANALYTIC)
def test_auto_uses_differences_for_a_value_that_is_not_analytic(
    xp: Any, dtype: str, kind: str
) -> None:
    value = lambda p: NOT_ANALYTIC[kind](xp.namespace, p)  # noqa: E731
    case = value, lambda p: 3.0 * p * p, xp.asarray([0.5, 2.0, 3.0], dtype=dtype)
    assert check.gradient(*case).method == "centered"
    assert_only_right_passes(*case)
    with pytest.raises(TypeError, match=r'the complex step fails.*method="auto" or "centered"'):
        check.gradient(*case, method="complex_step")


def test_coupled_copies_are_detected(xp: Any) -> None:
    """Each copy has one number, but it depends on all copies."""
    value = lambda p: xp.namespace.sum(p * p) + xp.namespace.sum(p, axis=-1)  # noqa: E731
    assert_only_right_passes(
        value, lambda p: 2 * p + 1, xp.asarray(POINT.ravel()), method="centered"
    )


@pytest.mark.parametrize("copies", [1, 7])
def test_max_memory_bounds_the_copies_made_at_once(xp: Any, copies: int) -> None:
    problem, each = Problem(xp), 5 * 9 * 8  # bytes of a copy, and of the values computed from it
    report = problem.check(method="centered", batched=True, max_memory=copies * each)
    assert report.verdict == "pass"
    assert max(shape[0] for shape in problem.shapes) <= max(copies, 2)


@pytest.mark.float64  # in which float32 is checked
@every_dtype
@pytest.mark.long
@pytest.mark.parametrize(
    "shape", [(300, 400), pytest.param((900, 1000), marks=pytest.mark.thorough)]
)
def test_a_right_gradient_of_very_many_entries_takes_eight_evaluations_a_wrong_one_is_located(
    xp: Any, shape: Any, dtype: str
) -> None:
    draw, calls = np.random.default_rng(61).normal, []
    point = {"w": draw(size=shape), "b": draw(size=shape[0] * 100)}
    point = {key: xp.asarray(part, dtype=dtype) for key, part in point.items()}
    row, column = shape[0] // 2 - 33, shape[1] - 197

    def value(p: Any) -> Any:
        calls.append(1)
        return sum(xp.namespace.sum(part * part * part) for part in p.values())

    def gradient(p: Any, off: float = 0.0) -> Any:
        found = {key: 3.0 * part * part for key, part in p.items()}
        index = row * shape[1] + column
        wrong = (
            planted_mistakes.change_entries(found["w"], lambda e: e + off, index)
            if off
            else found["w"]
        )
        return {**found, "w": wrong}

    report = check.gradient(value, gradient, point)
    assert (report.verdict, report.method) == ("pass", "directional")
    assert report.evaluations <= len(calls) <= 8
    if xp.dtype == dtype == "float64":  # float32 hides an entry in the rounding of the others
        calls.clear()
        report = check.gradient(value, lambda p: gradient(p, 1.0), point)
        assert (report.verdict, report.worst[0].name) == ("fail", f"['w'][{row}, {column}]")
        assert report.evaluations <= len(calls) <= 200


def test_auto_checks_directions_of_a_slow_value_and_reports_it() -> None:
    slow = lambda p: (time.sleep(0.02), np.sum(p * p))[1]  # noqa: E731
    report = check.gradient(slow, lambda p: 2.0 * p, np.linspace(-1.0, 1.0, 800))
    assert (report.verdict, report.method) == ("pass", "directional")
    assert "all entries would take" in report.notes[0]
    assert report.notes[0] in str(report)


def test_assert_gradient_fails_a_test_with_the_report_as_its_message(xp: Any) -> None:
    p = Problem(xp)
    assert bx.assert_gradient(p.value, p.gradient, p.point) is None
    with pytest.raises(AssertionError) as error:
        bx.assert_gradient(p.value, lambda x: 2.0 * p.gradient(x), p.point, method="centered")
    assert str(error.value) == str(error.value.report)


def test_value_and_gradient_get_args_and_may_be_one_function(xp: Any) -> None:
    total = xp.namespace.sum
    value, gradient = lambda p, a, b: total(a * p * p + b * p), lambda p, a, b: 2 * a * p + b
    point, args = xp.asarray(POINT), (3.0, 1.0)
    assert_only_right_passes(value, gradient, point, args=args)
    for factor, verdict in ((1.0, "pass"), (2.0, "fail")):
        both = lambda p, *args, k=factor: (value(p, *args), k * gradient(p, *args))  # noqa: E731
        assert check.gradient(both, True, point, args=args).verdict == verdict


def _decay_jacobian(p: Any, sign: float = -1.0) -> Any:
    t = np.array([0.0, 0.5, 1.0, 2.0])
    return np.stack([np.exp(-p[1] * t), sign * p[0] * t * np.exp(-p[1] * t)], axis=-1)


def _decay(p: Any, *args: Any) -> Any:
    return p[0] * _decay_jacobian(p)[:, 0]


@pytest.mark.parametrize("method", ["auto", "complex_step", "centered", "directional"])
def test_a_jacobian_is_checked_and_its_entries_named_by_result_and_entry(method: str) -> None:
    point = np.array([2.0, 0.7])
    assert check.jacobian(_decay, _decay_jacobian, point, method=method).verdict == "pass"
    wrong = check.jacobian(_decay, _decay_jacobian, point, method=method, args=(1.0,))
    assert wrong.verdict == "fail"
    assert wrong.worst[0].name in ("J[1, 1]", "J[2, 1]", "J[3, 1]")
    if method != "directional":
        np.testing.assert_allclose(wrong.numeric, _decay_jacobian(point), rtol=1e-8)
    sparse = pytest.importorskip("scipy.sparse").csr_array
    sparsely = check.jacobian(_decay, lambda p: sparse(_decay_jacobian(p)), point, method=method)
    assert sparsely.verdict == "pass"
    with pytest.raises(ValueError, match=r"jacobian\(point\) has shape \(2, 4\), but \(4, 2\)"):
        check.jacobian(_decay, lambda p: _decay_jacobian(p).T, point, method=method)


def test_an_impossible_option_is_an_error_in_every_check() -> None:
    network, x = bx.mlp([2, 3, 1]), np.asarray([[0.5, -1.0]])
    of_functions = (bx.check_gradient, bx.assert_gradient, bx.check_jacobian)
    checks: list[tuple[Any, tuple[Any, ...]]] = [
        *((function, (pytest.fail, pytest.fail, np.ones(2))) for function in of_functions),
        (bx.check_network, (network, network.initialize(0, backend="numpy"), x, [[1.0]])),
        (bx.check_layer, (bx.LayerNorm(2), x)),
        (bx.check_loss, ("huber", x, np.zeros((1, 2)))),
    ]
    for function, arguments in checks:
        with pytest.raises(ValueError, match=r"'centred' is unknown\. Did you mean 'centered'"):
            function(*arguments, method="centred")
        with pytest.raises(TypeError, match=r"'tolerence' is not an option.*'tolerance'"):
            function(*arguments, tolerence=1e-3)


ONES, TURNED = np.ones((2, 3)), np.ones((3, 2))
SHAPES = r" has shape \(3, 2\), but \(2, 3\) is expected"
AB = {"a": ONES[0], "b": ONES}


def _gradient(gradient: Any, point: Any = ONES, **options: Any) -> dict[str, Any]:
    return {"point": point, "gradient": lambda p: gradient, **options}


# Arguments of a check of ``sum(p)`` at ones, and words of the error.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"directions": 0}, "directions must be an integer of at least 1, not 0"),
    ({"tolerance": 0.0}, "tolerance must be > 0, not 0"),
    ({"seed": -1}, "seed must be an integer of at least 0, not -1"),
    ({"max_memory": "1 GB"}, "max_memory must be an integer"),
    ({"batched": 1}, "batched must be True, False or None, not 1"),
    ({"gradient": None}, "gradient must be a function, or True, not None"),
    (
        {"gradient": True},
        r"value\(point\) must be \(value, gradient\) with gradient=True, not",
    ),
    ({"value": ONES}, "value must be a function, not array"),
    ({"args": 2.0}, r"args must be a tuple of arguments, such as \(a,\), not 2\.0"),
    *(({"argnums": n}, "argnums must be positions") for n in (True, (0, 0), [0], 0.0, -1)),
    ({"tangent": 1.0}, r"tangent must be a function of a direction, not 1\.0"),
    ({"tangent": lambda d: d.T}, "tangent.*" + SHAPES),
    *(
        ({"tangent": t}, "tangent must be an orthogonal projection")
        for t in (lambda d: 2.0 * d, np.abs, lambda d: d @ np.diag([1.0, 0.5, 0.0]))
    ),
    ({"scale": 0.0}, "scale must be positive"),
    ({"scale": 1j}, "scale must be an array of real numbers, not of dtype complex128"),
    ({"scale": TURNED}, "scale.*" + SHAPES),
    ({"bounds": (TURNED, 9.0)}, "bounds.*" + SHAPES),
    ({"bounds": (2.0, 9.0)}, r"point is 1.0 at \[0, 0\], outside"),
    ({"value": lambda p: math.nan}, r"value\(point\) is nan: no derivative can be taken"),
    ({"value": lambda p: None}, r"value\(point\) must be one number, not None"),
    ({"value": lambda p: 1.0 + 0.5j}, "must be real at a real point, not complex"),
    ({"value": lambda p: ONES}, r"has shape \(2, 3\)\..*bx\.check_jacobian"),
    ({"value": lambda p: (1.0, ONES)}, r"\(value, gradient\), pass gradient=True"),
    (
        _gradient(ONES, AB),
        r"gradient\(point\) must be structured like point: the keys .*, not ndarray",
    ),
    (_gradient({"a": ONES[0], "B": ONES}, AB), r"not the keys \['a', 'B'\]"),
    (_gradient({**AB, "b": None}, AB), r"\['b'\] must be an array of .*numbers, not None"),
    (_gradient({**AB, "b": 1.0}, AB), r"\['b'\] has shape \(\), but \(2, 3\) is expected"),
    (_gradient({**AB, "b": [1.0] * 6}, AB), r"\['b'\] has shape \(6,\), but \(2, 3\)"),
    (_gradient({**AB, "b": TURNED}, AB), r"gradient\(point\)\['b'\].*" + SHAPES),
    (_gradient({**AB, "a": [1j, 2.0, 1.0]}, AB), r"\['a'\] must be an array of .*numbers, not of"),
    ({"point": np.zeros((0, 3))}, "point holds no real or complex numbers"),
    ({"point": ONES.astype(object)}, "no real or complex numbers: it is ndarray, dtype object"),
    ({"point": 1j * ONES}, "value.* must be real at a real point, not complex"),
    (
        {"point": {**AB, "b": np.ones(2, np.float32)}},
        r"\['b'\] is float32.*\['a'\].* float64",
    ),
    ({"point": [ONES, np.array([1.0, math.nan])]}, r"point\[1\] is nan at \[1\]"),
    ({"point": {"w": ONES * np.array([1.0, math.inf, 1.0])}}, r"point\['w'\] is inf at \[0, 1\]"),
    ({"point": -math.inf}, "point is -inf"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_an_argument_that_cannot_be_checked_is_an_error_that_names_it(
    nothing_chosen: None, given: dict[str, Any], message: str
) -> None:
    functions = {"value": lambda p: sum(map(np.sum, getattr(p, "values", lambda: [p])()))}
    arguments = {**functions, "gradient": lambda p: ONES, "point": ONES, **given}
    value, gradient, point = (arguments.pop(name) for name in ("value", "gradient", "point"))
    with pytest.raises((TypeError, ValueError), match=message):
        check.gradient(value, gradient, point, **arguments)


def test_each_check_shows_its_options_and_their_types_to_an_editor() -> None:
    types, defaults = get_type_hints(problems.CheckOptions), dict[str, Any](problems.DEFAULTS)
    assert {*types} == {*defaults}
    checks = [name for name in gradient_check.__all__ if name.startswith(("check_", "assert_"))]
    assert len(checks) == 13
    for name in checks:
        shown = inspect.signature(getattr(bx, name)).parameters
        assert {*defaults} <= {*shown}, name
        assert not any(one.kind is one.VAR_KEYWORD for one in shown.values()), name
        problem = name in ("check_minimize", "check_least_squares", "check_root")
        for option in {*defaults} - {"bounds"}:
            expected = 2 if problem and option == "samples" else defaults[option]
            assert shown[option].default == expected, (name, option)
            assert shown[option].annotation == types[option], (name, option)
            assert shown[option].kind is inspect.Parameter.KEYWORD_ONLY
    assert get_args(types["method"]) == problems.METHODS


def test_a_limit_ends_the_remainders_of_the_taylor_test_but_costs_no_verdict() -> None:
    case = lambda p: np.sum(p**3), lambda p: 3.0 * p**2, np.array([1.0, 2.0])
    whole = bx.check_gradient(*case, method="taylor").taylor
    assert whole is not None
    for most, rows in ((6, 0), (8, 1), (13, 3)):
        report = bx.check_gradient(*case, method="taylor", max_evaluations=most)
        assert (report.verdict, report.evaluations <= most) == ("pass", True)
        assert (report.taylor is None) == (rows == 0)
        if report.taylor is not None:
            assert report.taylor.symmetric == whole.symmetric[:rows]
