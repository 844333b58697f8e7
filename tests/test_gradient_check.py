"""The gradient check: right gradients pass, common mistakes fail, and the report says where."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

METHODS = ["auto", "complex_step", "centered"]
DTYPES = ["float64", "float32"]
every_method = pytest.mark.parametrize("method", METHODS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Sums in another order.
ROUNDING = 1e-13
# What each method errs by at most, well inside the tolerance that decides: a right gradient must
# pass by more than luck.
ERRORS = {
    ("complex_step", "float64"): 1e-14,
    ("complex_step", "float32"): 1e-5,
    ("centered", "float64"): 1e-8,
    ("centered", "float32"): 2e-3,
}

XOR_ROWS = [[0, 0], [0, 1], [1, 0], [1, 1]]

# Square, so that a transposed gradient has the right shape.
COEFFICIENTS = np.array([[1.0, -2.0, 0.5], [3.0, 1.5, -1.0], [0.3, 2.0, -0.7]])
POINT = np.array([[0.4, -1.1, 0.9], [1.6, 0.2, -0.8], [-0.3, 0.7, 1.2]])


class Problem:
    """``sum(c * sin(p) + p * p)`` and its gradient, of arrays on the backend under test."""

    def __init__(self, xp: Any, dtype: str = "working") -> None:
        self.namespace = xp.namespace
        self.c = xp.asarray(COEFFICIENTS, dtype=dtype)
        self.point = xp.asarray(POINT, dtype=dtype)

    def value(self, p: Any) -> Any:
        return self.namespace.sum(self.c * self.namespace.sin(p) + p * p)

    def batched_value(self, p: Any) -> Any:
        return self.namespace.sum(self.c * self.namespace.sin(p) + p * p, axis=(-2, -1))

    def gradient(self, p: Any) -> Any:
        return self.c * self.namespace.cos(p) + 2.0 * p


def _replaced(array: Any, place: tuple[int, ...], change: Callable[[float], float]) -> Any:
    """Return the array with one entry changed, on its own device."""
    host = np.array(bx.backends.to_host(array))
    host[place] = change(host[place])
    home = bx.backends.owner(array)
    return home.from_host(host, array.dtype, bx.backends.device_of(array))


MISTAKES: dict[str, Callable[[Problem, Any], Any]] = {
    "sign": lambda problem, g: -g,
    "factor 2": lambda problem, g: 2.0 * g,
    "factor 1/2": lambda problem, g: 0.5 * g,
    "missing term": lambda problem, g: g - 2.0 * problem.point,
    "transposed": lambda problem, g: problem.namespace.matrix_transpose(g),
    "one entry off": lambda problem, g: _replaced(g, (1, 2), lambda entry: entry + 0.5),
    "one entry nan": lambda problem, g: _replaced(g, (1, 2), lambda entry: math.nan),
    "one entry infinite": lambda problem, g: _replaced(g, (1, 2), lambda entry: math.inf),
    "zero": lambda problem, g: 0.0 * g,
}


# ---- the verdict


@every_dtype
@every_method
@pytest.mark.parametrize("batched", [True, False])
def test_a_right_gradient_passes(xp: Any, dtype: str, method: str, batched: bool) -> None:
    problem = Problem(xp, dtype)
    value = problem.batched_value if batched else problem.value
    report = bx.check_gradient(value, problem.gradient, problem.point, method=method)
    assert report.verdict == "pass"
    assert report.passed
    assert report.method == ("complex_step" if method == "auto" else method)
    assert report.max_relative_error <= ERRORS[report.method, dtype]
    report.raise_if_failed()


@every_dtype
@every_method
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_gradient_fails(xp: Any, dtype: str, method: str, mistake: str) -> None:
    problem = Problem(xp, dtype)
    report = bx.check_gradient(
        problem.batched_value,
        lambda p: MISTAKES[mistake](problem, problem.gradient(p)),
        problem.point,
        method=method,
    )
    assert report.verdict == "fail"
    assert not report.passed
    assert report.max_relative_error > report.tolerance
    with pytest.raises(bx.GradientCheckError):
        report.raise_if_failed()


@pytest.mark.float64
@pytest.mark.parametrize(
    ("method", "verdict"),
    # At a value of 1e9 a difference cannot see slopes of 1e-3, and must say so.
    [("auto", "fail"), ("complex_step", "fail"), ("centered", "inconclusive")],
)
def test_a_tensor_much_smaller_than_another_hides_no_mistake(
    xp: Any, method: str, verdict: str
) -> None:
    """Errors are relative to their own tensor, not to the largest."""
    sum_ = xp.namespace.sum
    report = bx.check_gradient(
        lambda p: 1e3 * sum_(p[0] * p[0]) + sum_(p[1] * p[1]),
        lambda p: [2e3 * p[0], 3.0 * p[1]],
        [xp.asarray([[1e3, 2e3, 3e3]]), xp.asarray([[1e-3, 2e-3, 3e-3]])],
        method=method,
    )
    assert report.verdict == verdict


def test_a_tolerance_of_ones_own_decides(xp: Any) -> None:
    problem = Problem(xp)

    def slightly_wrong(p: Any) -> Any:
        return 1.001 * problem.gradient(p)

    loose, tight = (
        bx.check_gradient(problem.value, slightly_wrong, problem.point, tolerance=tolerance)
        for tolerance in (1e-2, 1e-4)
    )
    assert (loose.verdict, loose.tolerance) == ("pass", 1e-2)
    assert (tight.verdict, tight.tolerance) == ("fail", 1e-4)
    assert loose.max_relative_error == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("seed", range(4))
def test_the_seed_changes_no_verdict(xp: Any, seed: int) -> None:
    problem = Problem(xp)
    report = bx.check_gradient(problem.value, problem.gradient, problem.point, seed=seed)
    assert (report.verdict, report.method) == ("pass", "complex_step")


@every_method
def test_a_gradient_that_is_zero_as_it_should_be_passes(xp: Any, method: str) -> None:
    problem = Problem(xp)
    report = bx.check_gradient(
        lambda p: 0.0 * problem.batched_value(p), lambda p: 0.0 * p, problem.point, method=method
    )
    assert (report.verdict, report.max_relative_error) == ("pass", 0.0)


# ---- values that the complex step cannot see through


def _magnitude(xp: Any, p: Any) -> Any:
    return xp.namespace.sum(xp.namespace.abs(p) * p * p, axis=-1)


def _cast_to_real(xp: Any, p: Any) -> Any:
    namespace = xp.namespace
    if namespace.isdtype(p.dtype, "complex floating"):
        p = namespace.real(p)
    return namespace.sum(p * p * p, axis=-1)


def _cast_in_part(xp: Any, p: Any) -> Any:
    """Complex, but blind to half of the slope."""
    return 0.5 * (_cast_to_real(xp, p) + xp.namespace.sum(p * p * p, axis=-1))


def _refuses_complex(xp: Any, p: Any) -> Any:
    if xp.namespace.isdtype(p.dtype, "complex floating"):
        raise TypeError("real numbers only")
    return xp.namespace.sum(p * p * p, axis=-1)


# All are sum(p**3) where p is positive.
NOT_ANALYTIC = {
    "takes a magnitude": _magnitude,
    "casts to real": _cast_to_real,
    "casts in part": _cast_in_part,
    "refuses complex numbers": _refuses_complex,
}


@every_dtype
@pytest.mark.parametrize("kind", NOT_ANALYTIC)
def test_auto_falls_back_to_the_centred_difference(xp: Any, dtype: str, kind: str) -> None:
    point = xp.asarray([0.5, 2.0, 3.0], dtype=dtype)
    for factor, verdict in ((3.0, "pass"), (2.0, "fail")):
        report = bx.check_gradient(
            lambda p: NOT_ANALYTIC[kind](xp, p), lambda p, k=factor: k * p * p, point
        )
        assert (report.method, report.verdict) == ("centered", verdict)


def test_the_complex_step_of_a_real_value_is_refused_with_a_way_out(xp: Any) -> None:
    with pytest.raises(TypeError, match='method="centered"'):
        bx.check_gradient(
            lambda p: _cast_to_real(xp, p),
            lambda p: 3.0 * p * p,
            xp.asarray([0.5, 2.0]),
            method="complex_step",
        )


def test_a_value_of_python_numbers_is_checked_too(xp: Any) -> None:
    report = bx.check_gradient(
        lambda p: math.fsum(float(p[i]) ** 3 for i in range(2)),
        lambda p: 3.0 * p * p,
        xp.asarray([0.5, 2.0]),
    )
    assert (report.verdict, report.method) == ("pass", "centered")


@pytest.mark.parametrize("batched", [True, False])
@every_method
def test_a_value_that_changes_from_call_to_call_is_found_out(
    xp: Any, batched: bool, method: str
) -> None:
    problem, calls = Problem(xp), itertools.count(1)
    steady = problem.batched_value if batched else problem.value
    report = bx.check_gradient(
        lambda p: steady(p) * (1.0 + 1e-3 * next(calls)),
        problem.gradient,
        problem.point,
        method=method,
    )
    assert report.verdict == "nondeterministic"
    assert not report.passed


@every_method
@pytest.mark.parametrize("found", [math.nan, math.inf])
def test_a_value_that_is_not_finite_at_the_point_is_refused(
    xp: Any, method: str, found: float
) -> None:
    problem = Problem(xp)
    with pytest.raises(ValueError, match=rf"value\(point\) is {found}: no derivative can be taken"):
        bx.check_gradient(
            lambda p: found + 0.0 * problem.batched_value(p),
            problem.gradient,
            problem.point,
            method=method,
        )


def test_rounding_that_hides_the_slope_is_inconclusive(xp: Any) -> None:
    problem = Problem(xp)
    report = bx.check_gradient(
        lambda p: problem.batched_value(p) + 1e12,
        problem.gradient,
        problem.point,
        method="centered",
    )
    assert report.verdict == "inconclusive"
    assert not report.passed


# ---- the point


POINTS = ["scalar", "three axes", "list", "tuple", "list of one", "dict", "empty part"]


def _point(xp: Any, kind: str, dtype: str = "working") -> Any:
    generator = np.random.default_rng(51)

    def draw(*shape: int) -> Any:
        return xp.asarray(generator.normal(size=shape), dtype=dtype)

    return {
        "scalar": draw(),
        "three axes": draw(2, 1, 3),
        "list": [draw(2, 3), draw(), draw(1, 3)],
        "tuple": (draw(1, 3), draw(1, 3)),
        "list of one": [draw(1, 3)],
        "dict": {"weights": draw(2, 3), "bias": draw(1, 3)},
        "empty part": [draw(0, 3), draw(1, 3)],
    }[kind]


def _parts(structure: Any) -> list[Any]:
    if isinstance(structure, dict):
        return list(structure.values())
    return list(structure) if isinstance(structure, Sequence) else [structure]


def _like(structure: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(structure, dict):
        return {key: change(part) for key, part in structure.items()}
    return [change(p) for p in structure] if isinstance(structure, Sequence) else change(structure)


def _cubes(xp: Any, point: Any) -> Any:
    """Return ``sum(p**3)`` over all parts, one after the other weighted 1, 2, 3."""
    return sum(k * xp.namespace.sum(p * p * p) for k, p in enumerate(_parts(point), start=1))


def _cubes_gradient(point: Any) -> Any:
    counter = itertools.count(1)
    return _like(point, lambda p: 3.0 * next(counter) * p * p)


@pytest.mark.parametrize(
    ("kind", "dtype"), [*((kind, "float64") for kind in POINTS), ("dict", "float32")]
)
def test_a_point_may_be_an_array_of_any_shape_or_a_list_or_dict_of_them(
    xp: Any, kind: str, dtype: str
) -> None:
    point = _point(xp, kind, dtype)
    good = bx.check_gradient(lambda p: _cubes(xp, p), _cubes_gradient, point)
    bad = bx.check_gradient(
        lambda p: _cubes(xp, p), lambda p: _like(_cubes_gradient(p), lambda g: 1.1 * g), point
    )
    assert (good.verdict, bad.verdict) == ("pass", "fail")


@pytest.mark.parametrize("kind", POINTS)
def test_analytic_and_numeric_have_the_points_structure(xp: Any, kind: str) -> None:
    point = _point(xp, kind)
    report = bx.check_gradient(lambda p: _cubes(xp, p), _cubes_gradient, point)
    for found in (report.analytic, report.numeric):
        assert isinstance(found, dict) == isinstance(point, dict)
        if isinstance(point, dict):
            assert list(found) == list(point)
        for one, other in zip(_parts(found), _parts(_cubes_gradient(point)), strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(
                xp.host(one), xp.host(other), rtol=xp.rounding(ROUNDING), atol=xp.rounding(ROUNDING)
            )


def test_the_point_is_not_written_to() -> None:
    point = POINT.copy()
    point.flags.writeable = False
    bx.check_gradient(lambda p: np.sum(p * p), lambda p: 2.0 * p, point)


@pytest.mark.parametrize(
    ("point", "error", "message"),
    [
        (np.array([1, 2]), TypeError, "point is int64, but a floating dtype is expected"),
        (np.array([1j, 2.0]), TypeError, "point is complex128, but real floating numbers"),
        (np.zeros(0), ValueError, "point holds no numbers"),
        ([], ValueError, "point holds no numbers"),
        ([1.0, 2.0], TypeError, r"point\[0\] must be an array of a known library, not float"),
        (3.0, TypeError, "point must be an array of a known library, not float"),
        (
            {"a": np.ones(2), "b": np.ones(2, dtype=np.float32)},
            TypeError,
            r"point\['b'\] is float32, but point\['a'\] is float64; .*bx\.asarray",
        ),
    ],
)
def test_what_is_no_point_is_refused_by_name(
    point: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.check_gradient(lambda p: 0.0, lambda p: p, point)


def test_arrays_of_two_libraries_are_refused_without_a_word_of_theta() -> None:
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(ValueError, match=r"point\[1\] is array-api-strict's") as error:
        bx.check_gradient(lambda p: 0.0, lambda p: p, [np.ones(2), strict.ones(2)])
    assert "theta" not in str(error.value)
    with pytest.raises(ValueError, match=r"gradient\(point\) is array-api-strict's") as error:
        bx.check_gradient(lambda p: np.sum(p), lambda p: strict.ones(2), np.ones(2))
    assert "theta" not in str(error.value)


# ---- the gradient


# A point, a gradient that is not structured like it, and what is said of it.
STRUCTURES: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "missing key": (
        lambda: {"a": np.ones(2), "b": np.ones(3)},
        lambda: {"a": np.ones(2)},
        r"gradient\(point\).*'b'",
    ),
    "key too many": (
        lambda: {"a": np.ones(2)},
        lambda: {"a": np.ones(2), "b": np.ones(3)},
        r"gradient\(point\).*'b'",
    ),
    "list for a dict": (
        lambda: {"a": np.ones(2)},
        lambda: [np.ones(2)],
        r"gradient\(point\) is not structured like point",
    ),
    "array too few": (
        lambda: [np.ones(2), np.ones(3)],
        lambda: [np.ones(2)],
        r"gradient\(point\) holds 1 arrays, but point 2",
    ),
    "array too many": (
        lambda: [np.ones(2)],
        lambda: [np.ones(2), np.ones(3)],
        r"gradient\(point\) holds 2 arrays, but point 1",
    ),
    "nothing for a list": (
        lambda: [np.ones(2)],
        lambda: None,
        r"gradient\(point\) is not structured like point",
    ),
    "another shape": (
        lambda: np.ones((2, 3)),
        lambda: np.ones((3, 2)),
        r"gradient\(point\) has shape \(3, 2\), but the point there \(2, 3\)",
    ),
    "another shape in a list": (
        lambda: [np.ones(2), np.ones((1, 3))],
        lambda: [np.ones(2), np.ones(3)],
        r"gradient\(point\)\[1\] has shape \(3,\), but the point there \(1, 3\)",
    ),
    "a scalar for an array": (
        lambda: np.ones(2),
        lambda: np.float64(1.0),
        r"gradient\(point\) has shape \(\), but the point there \(2,\)",
    ),
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_gradient_structured_otherwise_is_refused_by_name(kind: str) -> None:
    point, gradient, message = STRUCTURES[kind]
    with pytest.raises(ValueError, match=message):
        bx.check_gradient(
            lambda p: sum(np.sum(part) for part in _parts(p)), lambda p: gradient(), point()
        )


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (None, r"gradient\(point\) must be an array of a known library, not NoneType"),
        ([1.0, 1.0], r"gradient\(point\) must be an array of a known library, not list"),
        (np.array([1, 1]), r"gradient\(point\) is int64, but a floating dtype is expected"),
    ],
)
def test_a_gradient_that_is_no_array_of_floats_is_refused_by_name(
    gradient: Any, message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        bx.check_gradient(lambda p: np.sum(p), lambda p: gradient, np.ones(2))


# ---- the value, batched or not


def test_without_batched_a_value_that_takes_stacks_is_given_stacks(xp: Any) -> None:
    problem, shapes = Problem(xp), []

    def value(p: Any) -> Any:
        shapes.append(tuple(p.shape))
        return problem.batched_value(p)

    report = bx.check_gradient(value, problem.gradient, problem.point)
    assert report.passed
    # All nine copies at once.
    assert shapes[-1] == (9, 3, 3)


def test_without_batched_a_value_that_takes_one_point_is_given_one(xp: Any) -> None:
    problem, shapes = Problem(xp), []

    def value(p: Any) -> Any:
        shapes.append(tuple(p.shape))
        return problem.value(p)

    report = bx.check_gradient(value, problem.gradient, problem.point)
    assert report.passed
    assert shapes[-9:] == [(3, 3)] * 9


def test_a_value_that_couples_its_copies_is_not_taken_for_batched(xp: Any) -> None:
    """It returns one number for each copy, but each is made of all of them."""
    sum_ = xp.namespace.sum
    for factor, verdict in ((2.0, "pass"), (4.0, "fail")):
        report = bx.check_gradient(
            lambda p: sum_(p * p) + sum_(p, axis=-1),
            lambda p, k=factor: k * p + 1.0,
            xp.asarray([0.4, -1.1, 0.9]),
        )
        assert report.verdict == verdict


def test_a_value_of_two_entries_at_a_point_of_two_is_not_taken_for_batched(xp: Any) -> None:
    """Summed over its first axis, two stacked copies of two numbers give two numbers as well."""
    sum_ = xp.namespace.sum
    report = bx.check_gradient(
        lambda p: sum_(p * p * p, axis=0), lambda p: 3.0 * p * p, xp.asarray([0.4, -1.1])
    )
    assert report.passed


@pytest.mark.parametrize("batched", [True, False])
def test_the_promise_of_batched_is_taken(xp: Any, batched: bool) -> None:
    problem, shapes = Problem(xp), set()

    def value(p: Any) -> Any:
        shapes.add(tuple(p.shape))
        return (problem.batched_value if batched else problem.value)(p)

    assert bx.check_gradient(value, problem.gradient, problem.point, batched=batched).passed
    assert {len(shape) for shape in shapes} == {3 if batched else 2}


def test_a_broken_promise_of_batched_is_found_out(xp: Any) -> None:
    problem = Problem(xp)
    with pytest.raises(ValueError, match=r"one number for each is expected.*batched"):
        bx.check_gradient(problem.value, problem.gradient, problem.point, batched=True)


@pytest.mark.parametrize("batched", [None, False])
@pytest.mark.parametrize("keepdims", [True, False])
def test_a_value_that_is_not_one_number_is_refused(
    xp: Any, batched: bool | None, keepdims: bool
) -> None:
    """Of shape (1,); with ``keepdims`` stacked copies give (2, 1), without (2,)."""
    sum_, reshape = xp.namespace.sum, xp.namespace.reshape

    def value(p: Any) -> Any:
        total = sum_(p * p, axis=-1, keepdims=True)
        return total if keepdims else reshape(total, (-1,))

    with pytest.raises(
        ValueError, match=r"value\(point\) must be one number, but has shape \(1,\)"
    ):
        bx.check_gradient(value, lambda p: 2.0 * p, xp.asarray([0.4, -1.1, 0.9]), batched=batched)


def test_a_value_that_returns_nothing_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"value\(point\) must be one number, not None"):
        bx.check_gradient(lambda p: None, lambda p: p, np.ones(2))


def test_an_error_of_the_value_itself_comes_through(xp: Any) -> None:
    def value(p: Any) -> Any:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        bx.check_gradient(value, lambda p: p, xp.asarray([1.0, 2.0]))


# ---- memory and evaluations


@pytest.mark.float64
@every_method
@pytest.mark.parametrize("max_memory", [1, 1000, 2**30])
def test_little_memory_gives_the_same_result(xp: Any, method: str, max_memory: int) -> None:
    problem = Problem(xp)
    report, expected = (
        bx.check_gradient(
            problem.batched_value, problem.gradient, problem.point, method=method, **options
        )
        for options in ({"max_memory": max_memory}, {})
    )
    np.testing.assert_allclose(
        xp.host(report.numeric), xp.host(expected.numeric), rtol=1e-8, atol=1e-8
    )
    assert report.verdict == expected.verdict == "pass"
    # Where one copy fits, nobody tries whether value takes two: two together, two alone.
    size = 9 * (16 if report.method == "complex_step" else 8)
    tried = 4 * (max_memory < 2 * 5 * size)
    assert report.evaluations + tried == expected.evaluations


def test_max_memory_bounds_the_copies_made_at_once(xp: Any) -> None:
    problem, sizes = Problem(xp), []

    def value(p: Any) -> Any:
        sizes.append(p.shape[0])
        return problem.batched_value(p)

    # A copy holds nine numbers of eight bytes.
    bx.check_gradient(
        value, problem.gradient, problem.point, batched=True, max_memory=4 * 9 * 8 * 4
    )
    assert max(sizes) <= 16
    assert sizes[-1] < 9


@every_method
@pytest.mark.parametrize("batched", [True, False])
def test_evaluations_counts_each_copy_that_value_was_given(
    xp: Any, method: str, batched: bool
) -> None:
    problem, count = Problem(xp), 0

    def value(p: Any) -> Any:
        nonlocal count
        count += p.shape[0] if batched else 1
        return (problem.batched_value if batched else problem.value)(p)

    report = bx.check_gradient(
        value, problem.gradient, problem.point, method=method, batched=batched
    )
    assert report.evaluations == count
    # At least one copy an entry for the complex step, two for the centred difference.
    assert count >= POINT.size * (2 if method == "centered" else 1)


# ---- the options


@pytest.mark.parametrize(
    ("method", "hint"),
    [("centred", "'centered'"), ("complexstep", "'complex_step'"), ("Auto", "'auto'")],
)
def test_an_unknown_method_is_refused_with_the_nearest(method: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"method '{method}' is unknown. Did you mean {hint}"):
        bx.check_gradient(lambda p: np.sum(p), lambda p: p, np.ones(2), method=method)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tolerance": 0.0}, ValueError, "tolerance must be > 0, not 0"),
        ({"tolerance": -1.0}, ValueError, "tolerance must be > 0, not -1"),
        ({"tolerance": "tight"}, TypeError, "tolerance must be a number"),
        ({"max_memory": 0}, ValueError, "max_memory must be an integer of at least 1, not 0"),
        ({"max_memory": 1e6}, TypeError, "max_memory must be an integer"),
        ({"seed": -1}, ValueError, "seed must be an integer of at least 0, not -1"),
        ({"method": None}, (TypeError, ValueError), "method"),
    ],
)
def test_an_impossible_option_is_refused_by_name(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.check_gradient(lambda p: np.sum(p), lambda p: p, np.ones(2), **options)


# ---- the report


def _report(xp: Any, change: Callable[[Any], Any]) -> Any:
    problem = Problem(xp)
    return bx.check_gradient(
        problem.batched_value, lambda p: change(problem.gradient(p)), problem.point
    )


def test_the_worst_rows_come_first_and_say_where_and_how_much(xp: Any) -> None:
    def wrong(g: Any) -> Any:
        g = _replaced(g, (2, 0), lambda entry: entry + 0.1)
        return _replaced(g, (0, 1), lambda entry: entry - 1.0)

    report = _report(xp, wrong)
    exact = xp.host(Problem(xp).gradient(Problem(xp).point))
    first, second, *others = report.worst
    assert (first.index, second.index) == ((0, 1), (2, 0))
    assert first.analytic == pytest.approx(exact[0, 1] - 1.0, rel=xp.rounding(ROUNDING))
    assert first.numeric == pytest.approx(exact[0, 1], rel=xp.rounding(ROUNDING))
    assert first.absolute_error == pytest.approx(1.0, rel=xp.rounding(ROUNDING))
    assert second.absolute_error == pytest.approx(0.1, rel=xp.rounding(1e-12))
    assert first.relative_error == report.max_relative_error
    errors = [row.relative_error for row in report.worst]
    assert errors == sorted(errors, reverse=True)
    assert all(row.relative_error < xp.rounding(ROUNDING) for row in others)


def test_the_worst_rows_name_their_tensor(xp: Any) -> None:
    def wrong(p: Any) -> Any:
        g = _cubes_gradient(p)
        return {**g, "bias": _replaced(g["bias"], (0, 1), lambda entry: -entry)}

    report = bx.check_gradient(lambda p: _cubes(xp, p), wrong, _point(xp, "dict"))
    assert (report.worst[0].tensor, report.worst[0].index) == ("['bias']", (0, 1))
    assert "['bias'][0, 1]" in str(report)


@pytest.mark.parametrize("place", [(0, 0), (1, 2)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_entry_that_is_not_finite_is_the_worst_and_the_others_keep_their_errors(
    xp: Any, place: tuple[int, int], value: float
) -> None:
    report = _report(xp, lambda g: _replaced(g, place, lambda entry: value))
    assert report.worst[0].index == place
    assert report.worst[0].relative_error == math.inf
    assert all(row.relative_error < xp.rounding(ROUNDING) for row in report.worst[1:])


@pytest.mark.float64
def test_the_report_of_a_pass_is_a_line(xp: Any) -> None:
    report = _report(xp, lambda g: g)
    (line,) = str(report).splitlines()
    assert line.startswith("gradient check: pass")
    for part in ("complex_step", f"{report.evaluations} evaluations", "tolerance 1e-10"):
        assert part in line
    assert report.diagnosis is None


def test_the_report_of_a_failure_shows_its_worst_rows(xp: Any) -> None:
    report = _report(xp, lambda g: _replaced(g, (1, 2), lambda entry: entry + 0.5))
    text = str(report)
    assert text.startswith("gradient check: fail")
    shown = [text.index(str(list(row.index))) for row in report.worst]
    assert shown == sorted(shown)
    assert f"{report.worst[0].analytic:.8g}" in text
    assert f"{report.worst[0].numeric:.8g}" in text


@pytest.mark.float64
def test_the_step_of_the_report_is_the_methods(xp: Any) -> None:
    problem = Problem(xp)
    complex_step, centered = (
        bx.check_gradient(problem.value, problem.gradient, problem.point, method=method).step
        for method in ("complex_step", "centered")
    )
    assert 0.0 < complex_step < 1e-16
    assert 1e-5 < centered < 1e-3


def test_assert_gradient_says_nothing_of_a_right_gradient(xp: Any) -> None:
    problem = Problem(xp)
    assert bx.assert_gradient(problem.value, problem.gradient, problem.point) is None


def test_assert_gradient_fails_a_test_with_the_report_as_its_message(xp: Any) -> None:
    problem = Problem(xp)

    def wrong(p: Any) -> Any:
        return 2.0 * problem.gradient(p)

    arguments = problem.batched_value, wrong, problem.point
    with pytest.raises(AssertionError) as error:
        bx.assert_gradient(*arguments, method="centered")
    assert isinstance(error.value, bx.GradientCheckError)
    assert str(error.value) == str(bx.check_gradient(*arguments, method="centered"))


# ---- networks


class Scaled:
    """A layer of a user's own, x times factors, whose backward rule may be wrong."""

    names = ("factors",)
    shapes = ((1, 3),)

    def __init__(self, mistake: str = "") -> None:
        self.mistake = mistake

    def initialize(self, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (generator.uniform(0.5, 1.5, (1, 3)),)

    def forward(self, parameters: Sequence[Any], x: Any, rng: Any) -> tuple[Any, Any]:
        return x * parameters[0], x

    def backward(
        self, parameters: Sequence[Any], cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        (factors,) = parameters
        xp = bx.backends.array_namespace(g)
        total = xp.sum(g * cache, axis=-2, keepdims=True)
        if self.mistake == "factors":
            total = total / g.shape[-2]
        if self.mistake == "input":
            return (g if wants_input else None), (total,)
        return (g * factors if wants_input else None), (total,)


def _with_layer(
    layer: Any, *, hidden: Any = "tanh", loss: Any = "mean_squared_error"
) -> bx.Network:
    return bx.Network([bx.Dense(2, 3, hidden), layer, bx.Dense(3, 1)], loss)


NETWORKS: dict[str, tuple[bx.Network, dict[str, Any]]] = {
    "dropout, layer norm, l2": (
        bx.mlp([2, 3, 1], hidden="tanh", dropout=0.3, layer_norm=True, l2=0.1),
        {"rng": 3},
    ),
    "relu, classes, weights": (
        bx.mlp([2, 3, 3], loss="categorical_cross_entropy"),
        {"sample_weight": [1.0, 0.0, 2.0, 0.5]},
    ),
    "residual": (
        bx.Network(
            [bx.Dense(2, 3, "silu"), bx.Residual(bx.Dense(3, 3, "sigmoid")), bx.Dense(3, 1)],
            "log_cosh",
        ),
        {},
    ),
    "of a user's own": (_with_layer(Scaled()), {}),
}


def _check_network(xp: Any, network: bx.Network, dtype: str = "working", **options: Any) -> Any:
    # JAX compiles each operation anew for every shape; of one copy at a time there is one.
    frugal = {"max_memory": 1} if xp.name == "jax" else {}
    return bx.check_network(network, *_network_case(xp, network, dtype), **{**frugal, **options})


def _network_case(xp: Any, network: bx.Network, dtype: str = "working") -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(52)
    n_out = network.layers[-1].n_out
    x, y = generator.normal(size=(4, 2)), generator.dirichlet(np.ones(n_out), 4)
    theta = xp.initialize(network, seed=2, dtype=dtype)
    # Biases away from 0, where a wrong rule could hide.
    theta = theta + xp.asarray(generator.normal(0.0, 0.2, network.size), dtype=dtype)
    return theta, xp.asarray(x, dtype=dtype), xp.asarray(y, dtype=dtype)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, "float64") for kind in NETWORKS), ("of a user's own", "float32")],
)
def test_a_network_passes(xp: Any, kind: str, dtype: str) -> None:
    network, options = NETWORKS[kind]
    report = _check_network(xp, network, dtype, **options)
    assert (report.verdict, report.method) == ("pass", "complex_step")
    assert report.max_relative_error <= ERRORS["complex_step", dtype]
    assert report.numeric.shape == (network.size,)


@pytest.mark.float64
@pytest.mark.parametrize("kind", NETWORKS)
def test_a_network_passes_by_centred_differences(xp: Any, kind: str) -> None:
    network, options = NETWORKS[kind]
    report = _check_network(xp, network, method="centered", **options)
    assert (report.verdict, report.method) == ("pass", "centered")


@every_method
@pytest.mark.parametrize("mistake", ["factors", "input"])
def test_a_network_fails_whose_layer_has_a_wrong_backward_rule(
    xp: Any, method: str, mistake: str
) -> None:
    network = _with_layer(Scaled(mistake))
    report = _check_network(xp, network, method=method)
    assert report.verdict == "fail"
    # The wrong gradient of the factors is in the layer itself, that of its input shows before it.
    shown = {"factors": "layers[1].factors", "input": "layers[0]."}[mistake]
    assert report.worst[0].tensor.startswith(shown)
    assert shown in str(report)


def test_a_network_fails_whose_activation_has_a_wrong_rule(xp: Any) -> None:
    def square(z: Any) -> Any:
        return z * z

    right = bx.Activation(square, lambda g, z, a: 2.0 * z * g)
    wrong = bx.Activation(square, lambda g, z, a: z * g)
    for activation, verdict in ((right, "pass"), (wrong, "fail")):
        network = _with_layer(Scaled(), hidden=activation)
        assert _check_network(xp, network).verdict == verdict


def test_a_network_fails_whose_loss_has_a_wrong_gradient(xp: Any) -> None:
    def value(outputs: Any, targets: Any) -> Any:
        return bx.losses.mean_squared_error.value(outputs, targets)

    wrong = bx.Loss(value, lambda o, t: bx.losses.half_squared_error.gradient(o, t))
    network = _with_layer(Scaled(), loss=wrong)
    report = _check_network(xp, network)
    assert report.verdict == "fail"
    assert report.max_relative_error == pytest.approx(0.5, rel=xp.rounding(ROUNDING))


def test_a_network_with_little_memory_gives_the_same_report(xp: Any) -> None:
    network, options = NETWORKS["of a user's own"]
    little, plenty = (
        _check_network(xp, network, max_memory=max_memory, **options) for max_memory in (1, 2**30)
    )
    np.testing.assert_allclose(
        xp.host(little.numeric),
        xp.host(plenty.numeric),
        rtol=xp.rounding(ROUNDING),
        atol=xp.rounding(ROUNDING),
    )
    assert (little.verdict, little.evaluations) == (plenty.verdict, plenty.evaluations)


def test_a_network_is_checked_with_rows_in_lists(xp: Any) -> None:
    network = _with_layer(Scaled())
    theta, _, _ = _network_case(xp, network)
    assert bx.check_network(network, theta, XOR_ROWS, [[0], [1], [1], [0]]).passed


@pytest.mark.parametrize("stack", [(1,), (2, 3)])
def test_a_stack_of_networks_is_refused_with_a_way_out(xp: Any, stack: tuple[int, ...]) -> None:
    network = bx.mlp([2, 3, 1])
    theta = xp.initialize(network, seed=0, stack=stack)
    with pytest.raises(ValueError, match=r"theta has shape .*\(13,\), is checked at a time"):
        bx.check_network(network, theta, [[0, 1]], [[1]])


def test_a_theta_of_another_size_is_refused_by_name(xp: Any) -> None:
    with pytest.raises(ValueError, match=r"theta has shape \(5,\), but this network's is .*13"):
        bx.check_network(bx.mlp([2, 3, 1]), xp.asarray(np.ones(5)), [[0, 1]], [[1]])


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        ([1.0] * 13, "theta must be an array of a known library, not list"),
        (np.arange(13), "theta is int64, but a floating dtype is expected"),
    ],
)
def test_a_theta_that_is_no_floating_array_is_refused_by_name(theta: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        bx.check_network(bx.mlp([2, 3, 1]), theta, [[0, 1]], [[1]])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_numeric_derivative_that_is_nan_never_passes_a_gradient_of_0() -> None:
    report = bx.check_gradient(
        lambda p: np.sum(np.sqrt(p)), lambda p: 0.0 * p, np.zeros(1), method="centered"
    )
    assert report.verdict == "inconclusive"
