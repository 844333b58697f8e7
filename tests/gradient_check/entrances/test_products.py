"""Products with a Jacobian, Hessians, sparse Jacobians, and the problems of scipy.optimize.

Specifies ``jacobians`` and ``optimization``.
"""

import io
import re
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.display import progress

optimize = pytest.importorskip("scipy.optimize")
sparse = pytest.importorskip("scipy.sparse")
linalg = pytest.importorskip("scipy.sparse.linalg")

DRAW = np.random.default_rng(5).normal
IMAGE, KERNEL = DRAW(size=(6, 5)), DRAW(size=(3, 3))


def convolve(image: Any, kernel: Any, mode: str) -> dict[str, Any]:
    """Return an image convolved in the middle, and its sums, as a structure."""
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    found = np.einsum("ijkl,kl->ij", windows, kernel)
    return {"image": found, "name": mode, "total": found.sum()}


def convolve_vjp(image: Any, kernel: Any, mode: str, u: Any) -> tuple[Any, Any, None]:
    assert (mode, u["name"]) == ("valid", "valid")
    upstream = u["image"] + u["total"]
    padded = np.pad(upstream, 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    by_image = np.einsum("ijkl,kl->ij", windows, kernel[::-1, ::-1])
    windows = np.lib.stride_tricks.sliding_window_view(image, upstream.shape)
    return by_image, np.einsum("ijkl,kl->ij", windows, upstream), None


def convolve_jvp(image: Any, kernel: Any, mode: str, di: Any, dk: Any, dm: str) -> dict[str, Any]:
    assert dm == mode
    one, other = convolve(di, kernel, mode), convolve(image, dk, mode)
    return {key: one[key] + other[key] for key in ("image", "total")}


def test_products_of_images_and_structures_are_checked_and_a_wrong_one_is_named() -> None:
    inputs = IMAGE, KERNEL, "valid"
    assert bx.check_vjp(convolve, convolve_vjp, *inputs).verdict == "pass"
    assert bx.check_jvp(convolve, convolve_jvp, *inputs).verdict == "pass"

    def flipped(*inputs: Any) -> tuple[Any, Any, None]:
        by_image, by_kernel, _ = convolve_vjp(*inputs)
        return by_image, by_kernel[::-1], None

    report = bx.check_vjp(convolve, flipped, *inputs)
    assert report.verdict == "fail"
    assert "input[1]" in report.worst[0].name


def test_a_product_must_be_linear_in_its_cotangent_not_only_right_for_unit_vectors() -> None:
    x = np.array([0.5, -1.0, 2.0])

    def softmax(x: Any) -> Any:
        e = np.exp(x)
        return e / e.sum()

    def right(x, u):
        return softmax(x) * (u - np.sum(u * softmax(x)))

    def for_units(x, u):
        return softmax(x) * (u - u.flat[np.argmax(abs(u))] * softmax(x)[np.argmax(u)])

    assert bx.check_vjp(softmax, right, x).verdict == "pass"
    for unit in np.eye(3):
        np.testing.assert_allclose(right(x, unit), for_units(x, unit))
    report = bx.check_vjp(softmax, for_units, x)
    assert report.verdict == "fail"
    assert {row.tensor for row in report.worst if row.relative_error > 1e-6} == {"u^T J"}


def test_a_complex_product_has_pytorchs_convention() -> None:
    z = DRAW(size=4) + 1j * DRAW(size=4)
    assert bx.check_vjp(np.fft.fft, lambda z, u: 4 * np.fft.ifft(u), z).verdict == "pass"
    assert bx.check_jvp(np.fft.fft, lambda z, v: np.fft.fft(v), z).verdict == "pass"
    assert bx.check_vjp(np.fft.fft, lambda z, u: np.fft.fft(u), z).verdict == "fail"


@pytest.mark.parametrize("number", [np.sum, lambda z: complex(np.sum(z))])
def test_a_product_may_have_one_complex_number_as_its_result(number: Any) -> None:
    z = np.array([1.0 + 2.0j, -0.5j])
    for factor, verdict in ((2.0, "pass"), (3.0, "fail")):
        report = bx.check_jvp(lambda z: number(z**2), lambda z, v, k=factor: np.sum(k * z * v), z)
        assert report.verdict == verdict


@pytest.mark.parametrize("kind", ["dense", "sparse", "products"])
def test_a_jacobian_that_is_not_symmetric_is_no_hessian(kind: str) -> None:
    m, x = (
        DRAW(size=(12, 12)) * (np.abs(np.subtract.outer(range(12), range(12))) < 2),
        DRAW(size=12),
    )

    def check(matrix: Any) -> bx.GradientReport:
        if kind == "products":
            return bx.check_hvp(lambda x: matrix @ x, lambda x, p: matrix @ p, x)
        hessian = sparse.csr_array(matrix) if kind == "sparse" else matrix
        return bx.check_hessian(lambda x: matrix @ x, lambda x: hessian, x)

    assert check(m + m.T).verdict == "pass"
    report = check(m + m.T + 1e-5 * np.triu(m, 1))
    assert report.verdict == "fail"
    assert "not symmetric" in str(report.diagnosis)


@pytest.mark.parametrize("kind", ["dense", "sparse", "products"])
@pytest.mark.parametrize("method", ["auto", "directional"])
def test_the_symmetry_of_a_hessian_is_that_of_the_allowed_directions(
    kind: str, method: str
) -> None:
    m = DRAW(size=(9, 9)) * (np.abs(np.subtract.outer(range(9), range(9))) < 2)
    x, mask = DRAW(size=9), np.arange(9) < 7

    def check(matrix: Any, **options: Any) -> str:
        options["method"] = method
        if kind == "products":
            return bx.check_hvp(lambda x: matrix @ x, lambda x, p: matrix @ p, x, **options).verdict
        hessian = sparse.csr_array(matrix) if kind == "sparse" else matrix
        return bx.check_hessian(lambda x: matrix @ x, lambda x: hessian, x, **options).verdict

    for options in ({"mask": mask}, {"tangent": lambda d: d - d.mean()}):
        assert check(m + m.T, **options) == "pass"
        assert check(m + m.T + 1e-3 * np.triu(m, 1), **options) == "fail"
    outside = m + m.T + np.triu(m, 1) * np.outer(mask, ~mask)
    assert check(outside, mask=mask) == "pass"
    assert check(m + m.T + 1e-3 * np.triu(m, 1)) == "fail"


def _banded(n: int, analytic: bool) -> tuple[Callable[..., Any], Callable[..., Any]]:
    number = (lambda x: x) if analytic else (lambda x: np.asarray(x, dtype=float))

    def f(x: Any) -> Any:
        x = number(x)
        return np.sin(x) * np.append(x[1:], 1.0)

    def jacobian(x: Any) -> Any:
        return sparse.diags_array(
            [np.cos(x) * np.append(x[1:], 1.0), np.sin(x[:-1])], offsets=[0, 1], shape=(n, n)
        ).tocsr()

    return f, jacobian


@pytest.mark.parametrize("analytic", [True, False])
def test_a_sparse_jacobian_takes_as_many_evaluations_as_colors(analytic: bool) -> None:
    x = DRAW(size=2000)
    f, jacobian = _banded(x.size, analytic)
    report = bx.check_jacobian(f, jacobian, x)
    assert report.verdict == "pass"
    assert report.evaluations < (30 if analytic else 300)  # two colors, 2,000 columns
    for row, column in ((70, 71), (70, 70)):
        wrong = jacobian(x).tolil()
        wrong[row, column] *= 1.001
        report = bx.check_jacobian(f, lambda _, w=wrong: w.tocsr(), x)
        assert (report.verdict, report.worst[0].name) == ("fail", f"J[{row}, {column}]")
        assert report.worst[0].analytic == pytest.approx(wrong[row, column])


@pytest.mark.parametrize("kind", ["jacobian", "vjp", "jvp"])
def test_entries_of_0_in_a_jacobian_need_no_ladder(kind: str) -> None:
    x = DRAW(size=20)

    def f(x: Any) -> Any:
        return np.sin(np.asarray(x, dtype=float))  # no complex step

    def check(jacobian: Callable[[Any], Any]) -> bx.GradientReport:
        if kind == "jacobian":
            return bx.check_jacobian(f, jacobian, x)
        if kind == "vjp":
            return bx.check_vjp(f, lambda x, u: jacobian(x).T @ u, x)
        return bx.check_jvp(f, lambda x, v: jacobian(x) @ v, x)

    report = check(lambda x: np.diag(np.cos(x)))
    assert (report.verdict, report.evaluations < 200) == ("pass", True)
    assert check(lambda x: np.diag(np.cos(x)) + 1e-5 * np.eye(20, k=3)).verdict == "fail"
    assert check(lambda x: np.diag(np.cos(x)) * (x != x[7])).verdict == "fail"


def test_an_entry_outside_of_a_sparse_pattern_is_found() -> None:
    x = DRAW(size=2000)
    f, jacobian = _banded(2000, analytic=True)
    without = sparse.diags_array([jacobian(x).diagonal()], offsets=[0]).tocsr()
    report = bx.check_jacobian(f, lambda _: without, x)
    assert report.verdict == "fail"
    assert "is missing in the pattern" in str(report.diagnosis)
    limited = bx.check_jacobian(f, lambda _: without, x, max_evaluations=report.evaluations + 9)
    assert limited.diagnosis == report.diagnosis
    row, column = re.findall(r"J\[(\d+), (\d+)\]", str(report.diagnosis))[0]
    assert int(column) == int(row) + 1


def test_a_sparse_jacobian_may_have_integers_or_entries_that_are_not_finite() -> None:
    x, matrix = DRAW(size=6), sparse.diags_array([1, 2, 3, 4, 5, 6], offsets=0, dtype=int).tocsr()
    assert bx.check_jacobian(lambda x: matrix @ x, lambda x: matrix, x).verdict == "pass"
    bad = matrix.astype(float)
    bad[3, 3] = np.nan
    report = bx.check_jacobian(lambda x: matrix @ x, lambda x: bad, x)
    assert report.verdict == "fail"
    assert str(report.diagnosis).endswith("the first at J[3, 3]")


M, X3 = sparse.eye_array(3).tocsr(), np.array([0.5, -1.0, 2.0])
# Calls with results that do not fit, and words of the error: it names the caller's function.
UNFIT: list[tuple[Callable[[], Any], str]] = [
    (lambda: bx.check_jacobian(np.sin, lambda x: M[:2], X3), r"jacobian\(point\) has shape \(2, 3"),
    (lambda: bx.check_jacobian(np.sin, lambda x: M[:, :2], X3), r"shape \(3, 2\), but \(3, 3\)"),
    (lambda: bx.check_jacobian(np.sin, lambda x: 1j * M, X3), "of real numbers, not"),
    (lambda: bx.check_hessian(np.sin, lambda x: x, X3), r"hessian\(x\) has shape \(3,\)"),
    (lambda: bx.check_hessian(np.sum, lambda x: x, X3), r"gradient\(x\) must be .* of 3 numbers"),
    (lambda: bx.check_hvp(np.sin, lambda x, p: p[:2], X3), r"hvp\(x, p\) has shape \(2,\)"),
    (lambda: bx.check_hvp(lambda x: x[:2], lambda x, p: p[:2], X3), r"of 3 numbers, but has 2"),
    (lambda: bx.check_vjp(np.sin, lambda x, u: 1j * u, X3), r"vjp\(\*inputs, u\) must .* real"),
    (lambda: bx.check_vjp(X3, np.sin, np.cos), "f must be a function, not array"),
    (lambda: bx.check_minimize(np.sum, X3, jac=lambda x: x[:2]), r"jac\(x\) has shape \(2,\)"),
    (lambda: bx.check_minimize(np.sum, X3, jac=True), r"fun\(x\) must be \(value, derivative\)"),
    (
        lambda: bx.check_minimize(np.sum, X3, jac=np.ones_like, hess=lambda x: x),
        r"hess\(x\) has shape \(3,\)",
    ),
    (
        lambda: bx.check_minimize(np.sum, X3, jac=np.ones_like, bounds=[(0, 1)] * 2),
        "bounds have 2 entries, but x0 has 3",
    ),
    (lambda: bx.check_root(np.sin, X3 * 1j, jac=np.cos), "x0 must have real numbers"),
]


@pytest.mark.parametrize(("call", "message"), UNFIT)
def test_an_error_names_the_function_that_the_caller_gave(
    call: Callable[[], Any], message: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_fault_of_a_hessian_is_called_one() -> None:
    def writes(x):
        x += 1.0
        return np.diag(3 * (x - 1.0) ** 2)

    report = bx.check_hessian(lambda x: x**3, writes, X3)
    assert str(report.diagnosis).startswith("hessian writes into the point")


PRODUCTS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "vjp": (bx.check_vjp, lambda x, u: 3 * x**2 * u),
    "jvp": (bx.check_jvp, lambda x, v: 3 * x**2 * v),
    "hvp": (bx.check_hvp, lambda x, p: 3 * x**2 * p),
    "sparse": (bx.check_jacobian, lambda x: sparse.diags_array(3 * x**2).tocsr()),
    "Hessian": (bx.check_hessian, lambda x: np.diag(3 * x**2)),
}


@pytest.mark.parametrize("kind", PRODUCTS)
def test_a_product_may_reuse_its_result_and_write_into_its_vector(kind: str) -> None:
    (check, product), buffer = PRODUCTS[kind], {}

    def reuses(x: Any, *vectors: Any) -> Any:
        found = product(x, *vectors)
        kept = buffer.setdefault("kept", found)
        kept[:] = found
        for vector in vectors:
            vector *= 0.0
        return kept

    assert check(lambda x: x**3, reuses, X3).verdict == "pass"


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize("writer", ["function", "product"])
def test_a_function_that_writes_into_the_point_of_a_product_is_detected(
    kind: str, writer: str
) -> None:
    check, product = PRODUCTS[kind]

    def writes(x: Any, *vectors: Any) -> Any:
        found = product(x, *vectors) if writer == "product" else x**3
        x += 1.0
        return found

    functions = (writes, product) if writer == "function" else (lambda x: x**3, writes)
    report = check(*functions, X3)
    assert (report.verdict, "writes into the point" in str(report)) == ("fail", True)


def test_a_mistake_in_results_of_small_units_shows_beside_many_large_ones() -> None:
    weights, units = DRAW(size=(80, 80)), np.repeat([1e6, 1e-5], 40)

    def vjp(x, u):
        return weights.T @ (units * np.cos(weights @ x) * u)

    def check(part: Any) -> str:
        return bx.check_vjp(
            lambda x: units * np.sin(weights @ x), lambda x, u: vjp(x, u * part), DRAW(size=80)
        ).verdict

    assert check(1.0) == "pass"
    assert check(np.where(units < 1.0, 1.1, 1.0)) == "fail"


@pytest.mark.parametrize("method", ["auto", "directional", "taylor"])
@pytest.mark.parametrize("size", [1.0, 1e12])
def test_a_wrong_small_result_fails_beside_a_large_one(size: float, method: str) -> None:
    """Results may have units of their own."""

    def value(p: Any) -> np.ndarray:
        return np.array([size * p[0] * p[1], np.sin(p[0])])

    def jacobian(p: Any, factor: float = 1.0) -> np.ndarray:
        return np.array([[size * p[1], size * p[0]], [factor * np.cos(p[0]), 0.0]])

    p = np.array([1.0, 2.0])
    right = bx.check_jacobian(value, jacobian, p, method=method)
    wrong = bx.check_jacobian(value, lambda p: jacobian(p, 2.0), p, method=method)
    assert (right.verdict, wrong.verdict) == ("pass", "fail")


def test_the_options_of_a_product_with_one_input_have_its_structure() -> None:
    def f(x):
        return np.log(x)

    def vjp(x, u):
        return (u / x + np.array([0.0, 0.0, 1.0]),)

    named: dict[str, Any] = {"mask": [True, True, False], "bounds": (0.0, np.full(3, 9.0))}
    named |= {"points": [np.array([1.0, 2.0, 3.0])], "scale": np.ones(3)}
    assert bx.check_vjp(f, vjp, abs(X3), **named).verdict == "pass"
    assert bx.check_jvp(f, lambda x, v: v / x, abs(X3), **named).verdict == "pass"
    report = bx.check_vjp(f, vjp, abs(X3))
    assert report.verdict == "fail"
    assert {"u^T J[2]", "J[0, 2]"} <= {row.name for row in report.worst}


def test_columns_of_one_color_move_inwards_at_both_borders_and_fixed_entries_stay() -> None:
    x = np.array([1.0, 4.0, 2.0, 9.0])
    bounds = np.array([1.0, 0.0, 2.0, 9.0]), np.array([9.0, 4.0, 3.0, 9.0])

    def f(x: Any) -> Any:
        return np.sqrt(np.asarray(x, dtype=float))

    def check(*factors: float) -> bx.GradientReport:
        return bx.check_jacobian(
            f, lambda x: sparse.diags_array(0.5 / f(x) * factors).tocsr(), x, bounds=bounds
        )

    assert check(1.0, 1.0, 1.0, 5.0).verdict == "pass"
    assert check(1.0, 1.0, 1.1, 1.0).verdict == "fail"
    assert check(1.1, 1.0, 1.0, 1.0).worst[0].name == "J[0, 0]"


def test_samples_stay_where_the_options_allow_points() -> None:
    seen: list[Any] = []

    def value(p):
        seen.append(p.copy())
        return float(np.sum(p**2))

    def check(p: Any, **options: Any) -> str:
        seen.clear()
        found = bx.check_gradient(value, lambda p: 2.0 * p, p, samples=6, batched=False, **options)
        return f"{found.verdict}{found.notes}"

    p = np.array([0.5, 2.0])
    assert check(p, bounds=(0.25, 4.0)).startswith("pass('7 points")
    assert (np.min(seen), np.max(seen)) == (0.25, 4.0)
    check(p, mask=[True, False])
    assert {x[1] for x in seen} == {2.0}
    check(p, tangent=lambda d: d - d.mean())
    np.testing.assert_allclose([x.sum() for x in seen], 2.5)


def test_points_and_samples_name_the_point_where_a_gradient_breaks(nothing_chosen: None) -> None:
    def value(p):
        return float(np.sum(np.maximum(p, 0.0) ** 2))

    def wrong_at_0(p):
        return 2.0 * np.maximum(p, 0.0) + (p == 0.0)

    def overflows(p):
        return 2.0 * np.where(p > 50.0, 50.0, np.maximum(p, 0.0))

    x = np.array([0.5, 2.0])
    right = bx.check_gradient(value, lambda p: 2.0 * np.maximum(p, 0.0), x, samples=5)
    assert right.verdict == "pass"
    report = bx.check_gradient(value, wrong_at_0, x, samples=5)
    assert (report.verdict, report.place) == ("fail", "sample 0, every entry 0")
    assert "fail at sample 0, every entry 0 (" in str(report)
    assert bx.check_gradient(value, overflows, x, samples=5).place == "sample 1, entries 100 times"
    report = bx.check_gradient(value, overflows, x, points=[x + 1.0, x * 40.0, x + 2.0])
    assert (report.verdict, report.place) == ("fail", "points[1]")
    kink = bx.check_gradient(np.abs, np.sign, 1.5, points=[0.0])
    assert (kink.verdict, kink.place) == ("kink", "points[0]")
    domain = bx.check_gradient(np.log, lambda p: 1.0 / p, 0.5, samples=4)
    assert (domain.verdict, "outside of the domain" in str(domain)) == ("pass", True)


@pytest.mark.parametrize("method", ["auto", "centered", "directional"])
def test_entries_that_the_mask_leaves_out_do_not_count(xp: Any, method: str) -> None:
    p, mask = xp.asarray([[0.5, -1.0], [2.0, 1.5]]), xp.asarray([[1.0, 0.0], [1.0, 1.0]])

    def wrong(p):
        return 3.0 * p * p + (1.0 - mask)

    def check(**more):
        return bx.check_gradient(lambda p: xp.namespace.sum(p**3), wrong, p, method=method, **more)

    assert check().verdict == "fail"
    masked = check(mask=mask)
    assert masked.verdict == "pass"
    assert masked.evaluations < check().evaluations
    assert check(mask=1.0 - mask).verdict == "fail"
    with pytest.raises(ValueError, match="mask leaves no entry"):
        check(mask=0.0 * mask)


def test_a_limit_takes_directions_or_ends_the_check_undecided() -> None:
    p, calls = DRAW(size=40), []

    def value(p: Any) -> float:
        calls.append(1)
        return float(np.sum(p**3))

    def gradient(p):
        return 3.0 * p * p

    report = bx.check_gradient(value, gradient, p, max_evaluations=60)
    assert (report.verdict, report.method) == ("pass", "directional")
    assert len(calls) <= 61
    along: Any = {"method": "directional"}
    along["max_evaluations"] = bx.check_gradient(value, gradient, p, **along).evaluations
    assert bx.check_gradient(value, gradient, p, **along).verdict == "pass"
    report = bx.check_gradient(value, gradient, p, max_evaluations=3)
    assert (report.verdict, "within max_evaluations=3" in report.reason) == ("inconclusive", True)
    slow_calls = []

    def slow(p):
        time.sleep(0.01)
        slow_calls.append(1)
        return 3.1 * p * p

    report = bx.check_gradient(value, slow, p, max_seconds=0.1)
    assert (report.verdict, len(slow_calls) < 15) == ("inconclusive", True)
    report = bx.check_gradient(value, gradient, p, method="centered", max_seconds=1e-6)
    assert (report.verdict, "within max_seconds=1e-06" in report.reason) == ("inconclusive", True)


def test_every_derivative_of_a_problem_of_scipy_is_checked() -> None:
    x0 = np.array([-1.2, 1.0, 0.5])
    ring = optimize.NonlinearConstraint(
        lambda x: [x[0] ** 2 + x[1], x[1] * x[2]], 0.0, 1.0,
        jac=lambda x: np.array([[2 * x[0], 1.0, 0.0], [0.0, x[2], x[1]]]),
        hess=lambda x, v: np.array([[2 * v[0], 0, 0], [0, 0, v[1]], [0, v[1], 0.0]]),
    )  # fmt: skip
    older = {
        "type": "ineq", "args": (3.0,),
        "fun": lambda x, a: x[0] - a * x[1] ** 2,
        "jac": lambda x, a: np.array([1.0, -2 * a * x[1], 0.0]),
    }  # fmt: skip
    named = {
        "jac": optimize.rosen_der, "hess": optimize.rosen_hess, "hessp": optimize.rosen_hess_prod,
        "constraints": [ring, older, optimize.LinearConstraint(np.eye(3))],
        "bounds": [(-2.0, 2.0), (None, 3.0), (0.5, None)],
    }  # fmt: skip
    report = bx.check_minimize(optimize.rosen, x0, **named)
    names = ["jac", "hess", "hessp"]
    names += ["constraints[0].jac", "constraints[0].hess", "constraints[1].jac"]
    assert (report.verdict, [*report.reports]) == ("pass", names)
    report.raise_if_failed()
    subjects = ("gradient", "Hessian", "Hessian-vector product")
    for name, subject in zip(names, subjects, strict=False):
        wrong = {**named, name: lambda *a, f=named[name]: 1.001 * f(*a)}
        report = bx.check_minimize(optimize.rosen, x0, **wrong)
        verdicts = {n: each.verdict for n, each in report.reports.items()}
        assert verdicts[name] == "fail", verdicts
        with pytest.raises(AssertionError, match=f"{name}: {subject} check: fail"):
            report.raise_if_failed()
    wrong_ring = SimpleNamespace(fun=ring.fun, jac=ring.jac, hess=lambda x, v: -ring.hess(x, v))
    report = bx.check_minimize(optimize.rosen, x0, constraints=wrong_ring)
    assert {n: each.verdict for n, each in report.reports.items()} == {
        "constraints[0].jac": "pass",
        "constraints[0].hess": "fail",
    }


def test_a_problem_may_be_written_as_scipy_accepts_it() -> None:
    def value(x, k):
        return float(k * np.sum(x**4))

    def by_x(x, k):
        return 4.0 * k * x**3

    def check(bounds: Any) -> bx.ProblemReport:
        return bx.check_minimize(value, [1, -1], 2.0, jac=by_x, bounds=bounds)

    for bounds in (zip([-2, -2], [2, 2], strict=True), optimize.Bounds(-1.7e308, 1.7e308), None):
        assert check(bounds).verdict == "pass"
    root = bx.check_root(
        np.sqrt, [1.0, 4.0], jac=lambda x: np.diag(0.5 / x**0.5), bounds=(0.5, 5.0)
    )
    assert root.verdict == "pass"
    wrong = bx.check_minimize(value, [1, -1], 2.0, jac=lambda x, k: -by_x(x, k))
    with pytest.raises(bx.GradientCheckError) as caught:
        wrong.raise_if_failed()
    assert caught.value.report is wrong


@pytest.mark.parametrize("kind", ["dense", "sparse", "LinearOperator"])
def test_the_jacobian_of_least_squares_may_be_of_any_kind(kind: str) -> None:
    t = np.linspace(0.0, 1.0, 6)

    def dense(p, t):
        return np.stack([np.exp(-p[1] * t), -p[0] * t * np.exp(-p[1] * t)], axis=1)

    convert = {
        "dense": np.asarray,
        "sparse": sparse.csr_array,
        "LinearOperator": linalg.aslinearoperator,
    }

    def fun(p, t):
        return p[0] * np.exp(-p[1] * t)

    for factor, verdict in ((1.0, "pass"), (1.1, "fail")):

        def jac(p, t, f=factor):
            return convert[kind](f * dense(p, t))

        report = bx.check_least_squares(fun, [2.0, 0.5], jac, args=(t,), bounds=(0.0, np.inf))
        assert report.verdict == verdict
        assert len(report.reports) == 1 + (kind == "LinearOperator")


def test_a_problem_without_a_derivative_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to check"):
        bx.check_minimize(np.sum, [1.0, 2.0])
    with pytest.raises(ValueError, match="nothing to check"):
        bx.check_least_squares(np.sin, [1.0, 2.0], "3-point")
    with pytest.raises(ValueError, match="hess is the derivative of jac: pass jac too"):
        bx.check_minimize(np.sum, [1.0, 2.0], hess=lambda x: np.zeros((2, 2)))


def test_a_long_check_shows_a_bar_on_a_terminal_and_erases_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console = pytest.importorskip("rich.console")
    stream = io.StringIO()
    terminal = console.Console(file=stream, force_terminal=True, width=80)
    monkeypatch.setattr(progress, "terminal", lambda: terminal)

    def value(p):
        return float(np.sum(p**3))

    def check():
        return bx.check_gradient(value, lambda p: 3 * p * p, DRAW(size=60), batched=False)

    check()
    assert not stream.getvalue()  # it is short
    monkeypatch.setattr(progress, "_SILENT", 0.0)
    check()
    assert re.search(r"gradient check: \d+ evaluations", stream.getvalue())


@pytest.mark.parametrize("samples", [0, 2])
def test_the_report_of_a_minimization_shows_a_point_at_which_the_mistake_is_plain(
    samples: int,
) -> None:
    # Where the wrong gradient is 0, the right one is -1e-3, and a penalty may be missing.
    def check(x0: list[float], wrong: Callable[[Any], Any], **options: Any) -> bx.GradientReport:
        options |= {"samples": samples}
        found = bx.check_minimize(lambda p: np.sum(p**2), x0, jac=wrong, **options)
        return found.reports["jac"]

    report = check([1.0, -2.0, 3.0], lambda p: 2.0 * p + 1e-3)
    assert (report.verdict, report.place) == ("fail", "the point")
    assert report.diagnosis == "the gradient is 0.001 too large in every entry"


def test_of_several_fails_the_one_with_the_commonest_diagnosis_is_shown() -> None:
    # At the first point the mistake looks like a factor of 2, at the others like what it is.
    ones = np.ones(3)
    report = bx.check_gradient(
        lambda p: np.sum(p), lambda p: 1.0 + p, ones, points=[2.0 * ones + X3, 5.0 - X3]
    )
    assert (report.verdict, report.place) == ("fail", "points[0]")
    assert "times the parameter too much" in str(report.diagnosis)
    assert any(note.startswith("3 points; this report is about points[0]") for note in report.notes)


PARTS = {"k": np.array([[1.0, 2.0, 4.0], [0.5, -1.0, 2.0]])}


def _all_wrong(check: Callable[..., Any], function: Any, rule: Any, *inputs: Any) -> Any:
    report = check(function, rule, *inputs)
    assert report.verdict == "fail"
    return report, {row.name for row in report.worst}


def test_an_entry_of_a_product_is_named_by_output_input_and_entry() -> None:
    a = PARTS["k"]
    report, names = _all_wrong(
        bx.check_vjp,
        lambda a, p: {"s": a * p["k"], "t": a},
        lambda a, p, u: (u["s"] * p["k"] + u["t"], {"k": u["s"] * a * (a != -1.0)}),
        a, PARTS,
    )  # fmt: skip
    assert str(report).startswith("vector-Jacobian product check: fail")
    assert {"d output['s'][1, 1] / d input[1]['k'][1, 1]", "u^T J, input[1]['k'][1, 1]"} <= names
    assert str(report.diagnosis).startswith("the product by input[1]['k'] is zero in 2 of ")
    report, names = _all_wrong(
        bx.check_jvp, lambda a, b: (a * b, a), lambda a, b, s, t: (2.0 * s * b + a * t, s), a, a
    )
    assert str(report).startswith("Jacobian-vector product check: fail")
    assert all(
        re.match(r"(d output\[0\]\[., .\] / d input\[0\]|J v, output\[0\])\[", n) for n in names
    )
    report, names = _all_wrong(bx.check_hvp, lambda x: x**3, lambda x, p: 9.0 * x**2 * p, X3)
    assert str(report).startswith("Hessian-vector product check: fail")
    assert all(re.fullmatch(r"J\[(.), \1\]|J v[01]\[.\]", name) for name in names)


def test_an_entry_of_a_jacobian_is_named_by_output_input_and_entry() -> None:
    def blocks(p: Any) -> Any:
        of_s = np.zeros((2, 3, 2, 3))
        for i, j in np.ndindex(2, 3):
            of_s[i, j, i, j] = p["k"][i, j]
        return {"s": {"k": of_s}, "t": {"k": np.ones((2, 3))}}

    report, names = _all_wrong(
        bx.check_jacobian, lambda p: {"s": p["k"] ** 2, "t": p["k"].sum()}, blocks, PARTS
    )
    assert str(report).startswith("Jacobian check: fail")
    assert all(re.fullmatch(r"d output\['s'\](.*) / d input\['k'\]\1", name) for name in names)
    assert "the Jacobian by input['k'] is the numeric Jacobian times" in str(report.diagnosis)
    assert "the first at d output['s'][0, 0] / d input['k'][0, 0]" in str(report.diagnosis)
    report, names = _all_wrong(
        bx.check_jacobian, lambda p: p["k"].sum(), lambda p: {"k": 2 * np.ones((2, 3))}, PARTS
    )
    assert all(re.fullmatch(r"d output / d input\['k'\]\[., .\]", name) for name in names)
    report, names = _all_wrong(bx.check_hessian, lambda x: x**3, lambda x: np.diag(9 * x**2), X3)
    assert str(report).startswith("Hessian check: fail")
    assert str(report.diagnosis).startswith("the Hessian is the numeric Hessian times a constant")
    assert "J[2, 2]" in names


def test_an_entry_of_a_sparse_jacobian_is_named_by_output_input_and_entry() -> None:
    def jacobian(p: Any, factor: float = 1.0) -> Any:
        return sparse.diags_array(2.0 * factor * p["k"].ravel()).tocsr()

    def check(jacobian: Any) -> Any:
        return _all_wrong(bx.check_jacobian, lambda p: p["k"] ** 2, jacobian, PARTS)

    _, names = check(lambda p: jacobian(p, 1.5))
    assert all(re.fullmatch(r"d output(\[., .\]) / d input\['k'\]\1", name) for name in names)
    without = jacobian(PARTS).tolil()
    without[4, 4] = 0.0
    report, _ = check(lambda p: without.tocsr())
    assert "d output[1, 1] / d input['k'][1, 1] is missing in the pattern" in str(report.diagnosis)
