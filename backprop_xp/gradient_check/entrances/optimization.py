"""The problems of ``scipy.optimize``: every derivative that the caller gives, at several points.

The points are x0, random ones inside of the bounds, and the result of a few iterations.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, Unpack

import numpy as np

from backprop_xp.gradient_check.entrances.api import halves
from backprop_xp.gradient_check.entrances.jacobians import jacobian_problem
from backprop_xp.gradient_check.entrances.products import (
    jvp_problem,
    random_numbers,
    vjp_problem,
)
from backprop_xp.gradient_check.inputs.functions import quiet
from backprop_xp.gradient_check.inputs.points import flatten
from backprop_xp.gradient_check.inputs.problems import (
    CheckOptions,
    OptionsWithoutBounds,
    Problem,
    complete_options,
    shows_options,
)
from backprop_xp.gradient_check.verdict.report import GradientCheckError, GradientReport
from backprop_xp.gradient_check.verdict.several_points import ORDER, Build, check_points

_RANDOM_POINTS, _ITERATIONS = 2, 5
# The problems at any point, by name.
_Builds: TypeAlias = dict[str, Build]


@dataclass(frozen=True)
class ProblemReport:
    """The reports about the derivatives of a problem, by name: ``reports["jac"]``.

    As a boolean it is ``passed``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> report = bx.check_minimize(lambda x: np.sum(x**4), [1.0, 2.0], jac=lambda x: 4.0 * x**3)
    >>> report.verdict, [*report.reports]
    ('pass', ['jac'])
    """

    reports: Mapping[str, GradientReport]

    @property
    def verdict(self) -> str:
        """The worst verdict."""
        return max((each.verdict for each in self.reports.values()), key=ORDER.index)

    @property
    def passed(self) -> bool:
        """Whether every derivative passed."""
        return all(each.passed for each in self.reports.values())

    @property
    def evaluations(self) -> int:
        """The number of calls of all checked functions."""
        return sum(each.evaluations for each in self.reports.values())

    def __bool__(self) -> bool:
        return self.passed

    def raise_if_failed(self) -> None:
        """Raise ``GradientCheckError``, with the report as its message, unless all passed."""
        if not self.passed:
            raise GradientCheckError(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        reports = {name: each.to_dict() for name, each in self.reports.items()}
        found = {"verdict": self.verdict, "passed": self.passed, "evaluations": self.evaluations}
        return {**found, "reports": reports}

    def __repr__(self) -> str:
        return "\n".join(f"{name}: {each}" for name, each in self.reports.items())

    def _repr_html_(self) -> str:
        return "".join(f"<h4>{n}</h4>{each._repr_html_()}" for n, each in self.reports.items())


class _Case(NamedTuple):
    """A start ``(n,)``, its lower and upper bounds ``(n,)`` or numbers, and the options."""

    x0: np.ndarray
    sides: tuple[Any, Any]
    options: CheckOptions

    @classmethod
    def of(cls, x0: Any, bounds: Any, given: Any, fun: Any) -> "_Case":
        """Return a case from what the caller gives; bounds are ``Bounds``, two sides, or None."""
        if np.iscomplexobj(x0):
            raise TypeError(f"x0 must have real numbers, not {x0!r:.100}.")
        x0 = np.asarray(x0, dtype=np.float64).reshape(-1)
        given = {"samples": _RANDOM_POINTS, **given}
        options, sides = complete_options(given, fun=fun), []
        if bounds is None:
            return cls(x0, (-np.inf, np.inf), options)
        ends = (bounds.lb, bounds.ub) if hasattr(bounds, "lb") else bounds
        for end, free in zip(ends, (-np.inf, np.inf), strict=True):
            side = np.asarray(end, dtype=np.float64)
            if side.size not in (1, x0.size):
                raise ValueError(f"bounds have {side.size} entries, but x0 has {x0.size}.")
            # None, which SciPy allows, is NaN as a number.
            sides.append(np.broadcast_to(np.where(np.isnan(side), free, side), x0.shape))
        return cls(x0, (sides[0], sides[1]), {**options, "bounds": sides})


@shows_options(samples=_RANDOM_POINTS)
def check_minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    bounds: Any = None,
    constraints: Any = (),
    **options: Unpack[OptionsWithoutBounds],
) -> ProblemReport:
    """Check the derivatives of a problem of ``scipy.optimize.minimize``.

    - ``fun``, ``x0 (n,)``, ``args``, ``jac``, ``hess``, ``hessp``, ``bounds`` and ``constraints``
      are those of ``minimize``. A constraint is a dict, a ``NonlinearConstraint`` (its ``jac`` and
      ``hess``), or a ``LinearConstraint``.
    - The options are those of ``check_gradient``; ``samples`` is the number of random points inside
      of the bounds, by default 2.

    ``jac`` is compared with ``fun``, ``hess`` and ``hessp`` with ``jac``; a Hessian must be
    symmetric. Raises ValueError if there is nothing to check, or a Hessian without ``jac``.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> fun, jac = lambda x: np.sum(x**4), lambda x: 4 * x**3
    >>> bx.check_minimize(fun, [1.0, -2.0], jac=jac, hess=lambda x: np.diag(12 * x**2)).verdict
    'pass'
    """
    from scipy import optimize

    if bounds is not None and not hasattr(bounds, "lb"):
        bounds = zip(*bounds, strict=True)
    case = _Case.of(x0, bounds, options, fun)
    value, gradient = _pair(fun, jac, args)
    builds: _Builds = {}
    if gradient is not None:
        builds["jac"] = lambda p: Problem(p, value, gradient, case.options, ("fun(x)", "jac(x)"))
    if callable(hess):
        builds |= _derivative("hess", gradient, _pair(fun, hess, args)[1], case, is_hessian=True)
    if callable(hessp):
        _require_jac("hessp", gradient)
        extra, names = args if isinstance(args, tuple) else (args,), ("jac(x)", "hessp(x, p)")
        builds["hessp"] = lambda p: jvp_problem(
            p, gradient, lambda x, v: hessp(x, v, *extra), case.options, names=names,
            is_hessian=True,
        )  # fmt: skip
    some = constraints if isinstance(constraints, list | tuple) else (constraints,)
    for i, constraint in enumerate(some):
        builds |= _constraint(f"constraints[{i}].", constraint, case)

    def solve() -> Any:
        few = {"maxiter": _ITERATIONS}
        inside = None if bounds is None else optimize.Bounds(*case.sides)
        return optimize.minimize(
            value, case.x0, jac=gradient, bounds=inside, constraints=constraints, options=few
        )

    return _check(builds, case, solve)


@shows_options(samples=_RANDOM_POINTS)
def check_least_squares(
    fun: Callable[..., Any],
    x0: Any,
    jac: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    bounds: Any = None,
    **options: Unpack[OptionsWithoutBounds],
) -> ProblemReport:
    """Check the Jacobian of a problem of ``scipy.optimize.least_squares``.

    ``fun``, ``x0``, ``jac``, ``args``, ``kwargs`` and ``bounds`` are those of ``least_squares``.
    The Jacobian is dense, sparse, or a ``LinearOperator``: then both of its products are checked.
    The options are those of ``check_minimize``. Raises ValueError unless jac is a function.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> t = np.array([0.0, 0.5, 1.0])
    >>> def jac(p):
    ...     return np.stack([np.exp(-p[1] * t), -p[0] * t * np.exp(-p[1] * t)], axis=1)
    >>> bx.check_least_squares(lambda p: p[0] * np.exp(-p[1] * t), [2.0, 0.7], jac).verdict
    'pass'
    """
    from scipy import optimize

    case, named = _Case.of(x0, bounds, options, fun), dict(kwargs or {})
    value, jacobian = _pair(
        functools.partial(fun, **named),
        functools.partial(jac, **named) if callable(jac) else None,
        args,
    )

    def solve() -> Any:
        return optimize.least_squares(value, case.x0, jacobian, case.sides, max_nfev=_ITERATIONS)

    return _check(_jacobian(value, jacobian, case), case, solve)


@shows_options(samples=_RANDOM_POINTS)
def check_root(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    jac: Any,
    **options: Unpack[CheckOptions],
) -> ProblemReport:
    """Check the Jacobian of a problem of ``scipy.optimize.root``.

    ``fun``, ``x0``, ``args`` and ``jac`` are those of ``root``; with ``jac=True`` fun returns both.
    The options are those of ``check_minimize``. Raises ValueError without a Jacobian.

    >>> import numpy as np
    >>> import backprop_xp as bx
    >>> bx.check_root(lambda x: x**2 - 2.0, [1.0, 3.0], jac=lambda x: np.diag(2.0 * x)).verdict
    'pass'
    """
    from scipy import optimize

    case = _Case.of(x0, None, options, fun)
    value, jacobian = _pair(fun, jac, args)

    def solve() -> Any:
        return optimize.root(value, case.x0, jac=jacobian, options={"maxfev": _ITERATIONS})

    return _check(_jacobian(value, jacobian, case), case, solve)


def _pair(fun: Callable[..., Any], jac: Any, args: Any) -> tuple[Any, Any]:
    """Return a function and its derivative, None if SciPy approximates it, as functions of x."""
    args = args if isinstance(args, tuple) else (args,)  # as SciPy does
    if jac is True:
        fun, jac = halves(fun, "fun(x) must be (value, derivative) with jac=True")
    return (lambda x: fun(x, *args)), (lambda x: jac(x, *args)) if callable(jac) else None


def _jacobian(f: Any, jacobian: Any, case: _Case) -> _Builds:
    return {} if jacobian is None else _derivative("jac", f, jacobian, case, is_hessian=False)


def _derivative(name: str, f: Any, derivative: Any, case: _Case, *, is_hessian: bool) -> _Builds:
    """Return the problem of a Jacobian or Hessian; of its products if it is a LinearOperator."""
    _require_jac(name, f)
    f(case.x0.copy())  # a Jacobian may use what its function has stored
    found, options = derivative(case.x0.copy()), case.options
    of = f"{name[:-4]}jac(x)" if is_hessian else f"{name[:-3]}fun(x)"
    if not hasattr(found, "matvec"):
        named: Any = {"names": (of, f"{name}(x)"), "is_hessian": is_hessian}
        return {name: lambda p: jacobian_problem(p, f, derivative, options, **named)}
    product, transposed = (of, f"{name}(x) @ v"), (of, f"{name}(x).T @ u")
    builds: _Builds = {
        f"{name} @ v": lambda p: jvp_problem(
            p, f, lambda x, v: derivative(x) @ v, options, names=product, is_hessian=is_hessian
        )
    }
    if not is_hessian:
        builds[f"{name}.T @ u"] = lambda p: vjp_problem(
            p, f, lambda x, u: derivative(x).T @ u, options, names=transposed
        )
    return builds


def _require_jac(name: str, gradient: Any) -> None:
    if gradient is None:
        raise ValueError(f"{name} is the derivative of jac: pass jac too.")


def _constraint(name: str, constraint: Any, case: _Case) -> _Builds:
    """Return the problems of a constraint: a dict, or an object with ``fun``."""
    if not isinstance(constraint, Mapping):
        if not hasattr(constraint, "fun"):  # a LinearConstraint
            return {}
        constraint = vars(constraint)
    fun, jac = _pair(constraint["fun"], constraint.get("jac"), constraint.get("args", ()))
    builds: _Builds = {}
    if jac is not None:
        builds |= _derivative(f"{name}jac", fun, jac, case, is_hessian=False)
    if callable(hess := constraint.get("hess")):
        v = random_numbers((np.size(fun(case.x0.copy())),), case.options["seed"])
        weighted = jac and (lambda x: _matrix(jac(x)).T @ v)
        builds |= _derivative(f"{name}hess", weighted, lambda x: hess(x, v), case, is_hessian=True)
    return builds


def _matrix(jacobian: Any) -> Any:
    """Return a Jacobian with its axis of results, which that of a scalar function may lack."""
    return jacobian if hasattr(jacobian, "nnz") else np.atleast_2d(jacobian)


def _check(builds: _Builds, case: _Case, solve: Callable[[], Any]) -> ProblemReport:
    """Check each problem at x0, at random points, and at the result of a few iterations."""
    if not builds:
        raise ValueError("there is nothing to check: no derivative is a function.")
    x0, options = case.x0, case.options
    generator, drawn = np.random.default_rng(options["seed"]), {}
    for i in range(options["samples"]):
        near = x0 + generator.normal(size=x0.size) * np.where(x0 == 0.0, 1.0, x0)
        low, high = (np.where(np.isfinite(side), side, near) for side in case.sides)
        part = generator.uniform(size=x0.size)
        drawn[f"random point {i}"] = (1.0 - part) * low + part * high
    with quiet(), contextlib.suppress(Exception):  # a wrong derivative may lead anywhere
        drawn["the result of a few iterations"] = solve().x
    own: CheckOptions = {**options, "samples": 0}

    def check(build: Build) -> GradientReport:
        return check_points(lambda x, name: (flatten(x, name), build), x0, own, drawn=drawn)

    return ProblemReport({name: check(build) for name, build in builds.items()})
