"""Hand-written derivatives of SciPy (looked at: 1.17.1)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy import linalg, optimize, special, stats

import backprop_xp as bx

from .pairs import STATIONARY, Array, Case, Pair, elementwise, normal

MIDDLE = {"middle": [0.3, 1.7, 5.2, 21.0], "small": [0.01, 0.1]}
WIDE = {"middle": [0.3, 1.7, 5.2], "small": [1e-8, 1e-4], "large": [1e3, 1e5]}
DEGREES = "by radians, but the argument is in degrees: 180 / pi times too large (1.17.1)"
TAIL = {"far": "inconclusive: the cdf is 1 up to rounding"}
HILL = "above kappa = 50 the cdf is an approximation, 3e-5 off (1.17.1)"


def both(name: str, *args: Any, points: Any, **more: Any) -> Any:
    """A special function that returns its value and its slope."""
    function = partial(getattr(special, name), *args)
    return elementwise(lambda x: function(x)[0], lambda x: function(x)[1], points, **more)


def bessel(name: str) -> Callable[[], Case]:
    f, slope = getattr(special, name), getattr(special, f"{name}p")
    return elementwise(partial(f, 2.5), partial(slope, 2.5), MIDDLE)


def frechet(a: Array) -> Array:
    """All entries of expm by all entries of its matrix, by Fréchet derivatives."""
    one = partial(linalg.expm_frechet, a.reshape(3, 3), compute_expm=False)
    return np.stack([one(e).ravel() for e in np.eye(9).reshape(9, 3, 3)], axis=1)


MATRICES = {"tiny": 1e-6 * normal(9), "random": normal(9), "large": 10 * normal(9)}
ROSEN = {"optimum": np.ones(6), "zeros": np.zeros(6), "tiny": 1e-8 * normal(6)}
ROSEN |= {"random": normal(6), "huge": 1e8 * normal(6)}
STARTS = {name: ROSEN[name] for name in ("optimum", "random")}
FLAT = {"optimum": STATIONARY}


def minimized(name: str, value: Any, gradient: Any, x: Array, **options: Any) -> Any:
    """Check the Hessian or its products as a part of a problem of ``minimize``."""
    more = {"jac": value, name: gradient, "method": options["method"]}
    return bx.check_minimize(optimize.rosen, x, **more).reports[name]


SOFT = {"random": normal(6), "saturated": 100 * normal(6), "far": 1e8 + normal(6)}
der, product = optimize.rosen_der, optimize.rosen_hess_prod
ANGLES = {"middle": [10.0, 35.0, 70.0]}
DISTRIBUTIONS: dict[str, tuple[Any, list[float], list[float]]] = {
    "norm": (stats.norm, [-1.2, 0.4], [-30.0, -9.0, 7.0, 1e-8]),
    "gamma": (stats.gamma(0.7), [0.4, 2.3], [1e-8, 30.0]),
    "beta": (stats.beta(0.6, 2.5), [0.2, 0.7], [1e-8, 1 - 1e-6]),
    "vonmises, 60": (stats.vonmises(60.0), [-0.2, 0.1], [0.3]),
}
TABLE: dict[str, Callable[[], Case]] = {
    "rosen": lambda: Case(optimize.rosen, optimize.rosen_der, ROSEN, expected=FLAT),
    "rosen_hess": lambda: Case(der, optimize.rosen_hess, ROSEN, entrance=bx.check_hessian),
    "rosen_hess_prod": lambda: Case(der, product, ROSEN, entrance=bx.check_hvp),
    "rosen_hess, check_minimize": lambda: Case(
        der, optimize.rosen_hess, STARTS, entrance=partial(minimized, "hess")
    ),
    "rosen_hess_prod, check_minimize": lambda: Case(
        der, product, STARTS, entrance=partial(minimized, "hessp")
    ),
    "logsumexp and softmax": lambda: Case(special.logsumexp, special.softmax, SOFT),
    "expm and expm_frechet": lambda: Case(
        lambda a: linalg.expm(a.reshape(3, 3)).ravel(),
        frechet,
        MATRICES,
        entrance=bx.check_jacobian,
    ),
    **{name: bessel(name) for name in ("jv", "yv", "iv", "kv")},
    "mathieu_cem": both("mathieu_cem", 2, 1.5, points=ANGLES, wrong=DEGREES),
    "mathieu_sem": both("mathieu_sem", 2, 1.5, points=ANGLES, wrong=DEGREES),
    "gammaln and psi": elementwise(special.gammaln, special.psi, WIDE | {"negative": [-0.5, -3.3]}),
}
for name, (law, x, far) in DISTRIBUTIONS.items():
    wrong, tail = HILL if name[-2:] == "60" else None, {} if name[-2:] == "60" else TAIL
    where = {"middle": x, "far": far}
    TABLE[f"{name}, cdf"] = elementwise(law.cdf, law.pdf, where, wrong=wrong, expected=tail)
PAIRS = [Pair(f"SciPy: {name}", call) for name, call in TABLE.items()]
