"""Every entrance of the gradient check keeps the same promises: one table.

The functions are those of a logistic regression on irises: its loss, gradient, Hessian, and
the residuals of its rows, at random, trained and saturated weights, in units from 1e-20 to 1e20.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import thorough

pytestmark = pytest.mark.long

sklearn_datasets = pytest.importorskip("sklearn.datasets")


@functools.cache
def _rows() -> tuple[np.ndarray, np.ndarray]:
    """Return standardized features with a column of ones, and labels of -1 and 1."""
    x, y = sklearn_datasets.load_iris(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    return np.column_stack([x, np.ones(len(x))])[::3], np.where(y == 2, 1.0, -1.0)[::3]


class Model(NamedTuple):
    """The functions of weights w, in a unit: the logits are ``x @ w / unit``."""

    xp: Any
    x: Any
    y: Any
    unit: float

    def _logits(self, w: Any) -> Any:
        x = self.xp.astype(self.x, w.dtype)
        return (x @ (w[..., None] / self.unit))[..., 0]

    def residuals(self, w: Any) -> Any:
        return 1.0 / (1.0 + self.xp.exp(self.y * self._logits(w)))

    def jacobian(self, w: Any) -> Any:
        p = self.residuals(w)
        return -(self.y * p * (1.0 - p))[:, None] * self.x / self.unit

    def loss(self, w: Any) -> Any:
        loss = -self.xp.log(1.0 - self.residuals(w))
        penalty = 5e-3 * self.xp.sum((w / self.unit) ** 2, axis=-1)
        return self.xp.mean(loss, axis=-1) + penalty

    def gradient(self, w: Any) -> Any:
        mean = self.xp.matrix_transpose(self.x) @ (self.y * self.residuals(w)) / self.y.shape[0]
        return (1e-2 * w / self.unit - mean) / self.unit

    def hessian(self, w: Any) -> Any:
        p = self.residuals(w)
        weighted = (p * (1.0 - p) / self.y.shape[0])[:, None] * self.x
        penalty = 1e-2 * self.xp.eye(w.shape[0], dtype=w.dtype, device=bx.backends.device_of(w))
        return (self.xp.matrix_transpose(self.x) @ weighted + penalty) / self.unit**2


@functools.cache
def _trained() -> np.ndarray:
    from scipy import optimize

    model = Model(np, *_rows(), 1.0)
    w = np.zeros(5)
    return optimize.minimize(model.loss, w, jac=model.gradient, tol=1e-14).x


POINTS: dict[str, Callable[[], np.ndarray]] = {
    "random": lambda: np.random.default_rng(3).normal(size=5),
    "trained": _trained,
    "saturated": lambda: 40.0 * np.random.default_rng(4).normal(size=5),
}


@dataclasses.dataclass(frozen=True)
class Record:
    """A point as people have it: an array among other things."""

    w: Any
    name: str
    count: int
    solver: Callable[..., Any]


def _record(model: Model, w: Any, change: Any) -> Any:
    point = Record(w, "logistic", 3, np.tanh)

    def value(p: Record) -> Any:
        assert (p.name, p.count, p.solver) == ("logistic", 3, np.tanh)
        return p.count * model.loss(p.w)

    def gradient(p: Record) -> Record:
        return dataclasses.replace(p, w=change(3.0 * model.gradient(p.w)))

    return bx.check_gradient(value, gradient, point)


def _sparse(model: Model, w: Any, change: Any) -> Any:
    """Check the Hessian of a separable function, five times beside another."""
    sparse = pytest.importorskip("scipy.sparse")

    def both(p: Any) -> Any:
        return np.concatenate([model.gradient(p[:5]), model.gradient(p[5:])])

    def hessian(p: Any) -> Any:
        blocks = [change(model.hessian(part)) for part in (p[:5], p[5:])]
        return sparse.block_diag([sparse.csr_array(block) for block in blocks], format="csr")

    return bx.check_jacobian(both, hessian, np.concatenate([w, w]))


ENTRANCES: dict[str, Callable[[Model, Any, Any], Any]] = {
    "gradient": lambda m, w, change: bx.check_gradient(m.loss, lambda p: change(m.gradient(p)), w),
    "directional": lambda m, w, change: bx.check_gradient(
        m.loss, lambda p: change(m.gradient(p)), w, method="directional"
    ),
    "argnums": lambda m, w, change: bx.check_gradient(
        lambda k, p: k * m.loss(p), lambda k, p: change(k * m.gradient(p)), 3, args=(w,), argnums=1
    ),
    "a record": _record,
    "jacobian": lambda m, w, change: bx.check_jacobian(
        m.residuals, lambda p: change(m.jacobian(p)), w
    ),
    "vjp": lambda m, w, change: bx.check_vjp(
        m.residuals, lambda p, u: m.xp.matrix_transpose(change(m.jacobian(p))) @ u, w
    ),
    "jvp": lambda m, w, change: bx.check_jvp(
        m.residuals, lambda p, v: change(m.jacobian(p)) @ v, w
    ),
    "hessian": lambda m, w, change: bx.check_hessian(m.gradient, lambda p: change(m.hessian(p)), w),
    "hvp": lambda m, w, change: bx.check_hvp(m.gradient, lambda p, v: change(m.hessian(p)) @ v, w),
}
# These take NumPy's arrays only.
ON_THE_HOST: dict[str, Callable[[Model, Any, Any], Any]] = {
    "sparse": _sparse,
    "minimize, jac": lambda m, w, change: bx.check_minimize(
        m.loss, w, jac=lambda p: change(m.gradient(p)), samples=0
    ),
    "minimize, hess": lambda m, w, change: bx.check_minimize(
        m.loss, w, jac=m.gradient, hess=lambda p: change(m.hessian(p)), samples=0
    ),
    "minimize, hessp": lambda m, w, change: bx.check_minimize(
        m.loss, w, jac=m.gradient, hessp=lambda p, v: change(m.hessian(p)) @ v, samples=0
    ),
    "least squares": lambda m, w, change: bx.check_least_squares(
        m.residuals, w, lambda p: change(m.jacobian(p)), samples=0
    ),
    "root": lambda m, w, change: bx.check_root(
        m.gradient, w, jac=lambda p: change(m.hessian(p)), samples=0
    ),
}


def _off(derivative: Any) -> Any:
    """Return a derivative with its largest entry 5 % larger."""
    host = bx.to_host(derivative)
    factor = np.where(np.abs(host) == np.abs(host).max(), 1.05, 1.0)
    return derivative * bx.backends.to_device_of(derivative, factor, derivative.dtype)


MISTAKES: dict[str, Callable[[Any], Any]] = {
    "a factor": lambda d: 1.1 * d,
    "a sign": lambda d: -d,
    "zero": lambda d: 0.0 * d,
    "an entry": _off,
}
# Each entrance at the most telling point, and in turn at one of the next ones; all others are in
# the wide sweep.
TELLING = ("trained", 1.0)
NEXT = [("random", 1.0), ("trained", 1e-20), ("random", 1e20), ("saturated", 1.0)]
OTHERS = [("random", 1e-20), ("trained", 1e20), ("saturated", 1e-20), ("saturated", 1e20)]


def _at_places(names: Iterable[str], *, always: bool) -> list[Any]:
    cases = []
    for i, name in enumerate(names):
        cases.append((name, *TELLING) if always else thorough(name, *TELLING))
        for j, place in enumerate(NEXT + OTHERS):
            marks = [pytest.mark.long]
            if place in OTHERS or (i + j) % len(NEXT):
                marks.append(pytest.mark.thorough)
            cases.append(pytest.param(name, *place, marks=marks))
    return cases


def _checked(name: str, xp: Any, point: str, unit: float) -> Callable[[Any], Any]:
    entrance = ENTRANCES.get(name) or ON_THE_HOST[name]
    on_host = name in ON_THE_HOST
    put = (lambda a: np.asarray(a)) if on_host else xp.asarray
    if not on_host and xp.dtype == "float32":
        unit **= 0.25  # a Hessian has the square of the unit
    x, y = map(put, _rows())
    model = Model(np if on_host else xp.namespace, x, y, unit)
    w = put(POINTS[point]() * unit)
    return lambda change: entrance(model, w, change)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@pytest.mark.parametrize(("name", "point", "unit"), _at_places(ENTRANCES, always=True))
def test_no_right_derivative_fails_and_no_wrong_one_passes(
    xp: Any, name: str, unit: float, point: str
) -> None:
    is_blind = xp.dtype == "float32" and point != "random"  # all may be rounded to 0
    _assert_promises(_checked(name, xp, point, unit), point, {"zero"} if is_blind else set())


@pytest.mark.parametrize(("name", "point", "unit"), _at_places(ON_THE_HOST, always=False))
def test_the_problems_of_scipy_keep_the_same_promises(
    nothing_chosen: None, name: str, unit: float, point: str
) -> None:
    _assert_promises(_checked(name, None, point, unit), point, set())


def _assert_promises(check: Callable[[Any], Any], point: str, unseen: set[str]) -> None:
    right = check(lambda derivative: derivative)
    assert right.verdict == "pass" if point == "random" else right.verdict != "fail", str(right)
    for mistake, change in MISTAKES.items():
        if mistake in unseen:
            continue
        wrong = check(change)
        allowed = ("fail",) if point == "random" else ("fail", "inconclusive")
        assert wrong.verdict in allowed, (mistake, str(wrong))


@pytest.mark.parametrize(
    ("scale", "seed", "method"),
    [
        (9.0, 36, "auto"),
        (5.0, 23, "centered"),
        thorough(7.0, 15, "auto"),
        thorough(12.0, 39, "auto"),
        thorough(15.0, 56, "auto"),
        thorough(12.0, 16, "centered"),
    ],
)
def test_rows_saturated_to_a_few_rounding_errors_make_nothing_right_fail(
    nothing_chosen: None, scale: float, seed: int, method: str
) -> None:
    """The loss takes the logarithm of 1 - p, which is 50 to millions of rounding errors."""
    model, w = Model(np, *_rows(), 1.0), scale * np.random.default_rng(seed).normal(size=5)
    for factor, allowed in ((1.0, {"pass", "inconclusive"}), (2.0, {"fail", "inconclusive"})):
        report = bx.check_gradient(
            model.loss, lambda p, k=factor: k * model.gradient(p), w, method=method
        )
        assert report.verdict in allowed, report


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (1.0j, "fail")])
def test_products_take_complex_inputs_and_results(
    nothing_chosen: None, factor: complex, verdict: str
) -> None:
    z = np.array([1.0 + 2.0j, -0.5 + 0.1j])
    forward = bx.check_jvp(np.exp, lambda z, v: factor * np.exp(z) * v, z)
    backward = bx.check_vjp(np.exp, lambda z, u: factor * np.conj(np.exp(z)) * u, z)
    assert (forward.verdict, backward.verdict) == (verdict, verdict)
