"""Products with a Jacobian, Hessians, sparse Jacobians, and the problems of scipy.optimize."""

import io
import re
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
    assert report.worst[0].name.startswith(("J['image'][1]", "J['total'][1]", "u^T J[1]"))


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
    assert {row.tensor for row in report.worst if row.relative_error > 1e-6} == {"u^T J[0]"}


def test_a_complex_product_has_pytorchs_convention() -> None:
    z = DRAW(size=4) + 1j * DRAW(size=4)
    assert bx.check_vjp(np.fft.fft, lambda z, u: 4 * np.fft.ifft(u), z).verdict == "pass"
    assert bx.check_jvp(np.fft.fft, lambda z, v: np.fft.fft(v), z).verdict == "pass"
    assert bx.check_vjp(np.fft.fft, lambda z, u: np.fft.fft(u), z).verdict == "fail"


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


def test_an_entry_outside_of_a_sparse_pattern_is_found() -> None:
    x = DRAW(size=40)
    f, jacobian = _banded(40, analytic=True)
    without = sparse.diags_array([jacobian(x).diagonal()], offsets=[0]).tocsr()
    report = bx.check_jacobian(f, lambda _: without, x)
    assert report.verdict == "fail"
    assert "is missing in the pattern" in str(report.diagnosis)
    row, column = re.findall(r"J\[(\d+), (\d+)\]", str(report.diagnosis))[0]
    assert int(column) == int(row) + 1


def test_points_and_samples_name_the_point_where_a_gradient_breaks() -> None:
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
    report = bx.check_gradient(value, gradient, p, max_evaluations=3)
    assert (report.verdict, "within max_evaluations=3" in report.reason) == ("inconclusive", True)
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
    for name in names[:3]:
        wrong = {**named, name: lambda *a, f=named[name]: 1.001 * f(*a)}
        report = bx.check_minimize(optimize.rosen, x0, **wrong)
        verdicts = {n: each.verdict for n, each in report.reports.items()}
        assert verdicts[name] == "fail", verdicts
        with pytest.raises(AssertionError, match=f"{name}: gradient check: fail"):
            report.raise_if_failed()
    wrong_ring = SimpleNamespace(fun=ring.fun, jac=ring.jac, hess=lambda x, v: -ring.hess(x, v))
    report = bx.check_minimize(optimize.rosen, x0, constraints=wrong_ring)
    assert {n: each.verdict for n, each in report.reports.items()} == {
        "constraints[0].jac": "pass",
        "constraints[0].hess": "fail",
    }


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
