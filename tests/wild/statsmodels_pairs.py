"""Hand-written scores and derivatives of statsmodels (looked at: 0.15.0)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import statsmodels.api as sm
from scipy.optimize import minimize
from statsmodels.discrete import truncated_model as truncated
from statsmodels.discrete.conditional_models import ConditionalLogit, ConditionalPoisson
from statsmodels.distributions.copula import transforms
from statsmodels.genmod.families import links
from statsmodels.othermod.betareg import BetaModel
from statsmodels.robust import norms

import backprop_xp as bx

from .pairs import OPTIMUM, Array, Case, Pair, elementwise, normal

Rows = tuple[Array, Array]


def data(name: str, outcome: str, *columns: str) -> Rows:
    """An outcome, and standardized columns beside a constant, of about 60 rows."""
    table = getattr(sm.datasets, name).load_pandas().data
    table = table.iloc[:: max(1, len(table) // 60)]
    x = table[list(columns)].to_numpy(np.float64)
    return table[outcome].to_numpy(np.float64), np.c_[np.ones(len(x)), (x - x.mean(0)) / x.std(0)]


VISITS = data("randhie", "mdvis", "lncoins", "disea", "physlm")
PASSED = data("spector", "GRADE", "GPA", "TUCE", "PSI")
DEATHS = data("cpunish", "EXECUTIONS", "INCOME", "SOUTH", "DEGREE")
VOTES = data("scotland", "YES", "COUTAX", "UNEMPF", "MOR")


def likelihood(
    model: Any,
    start: Array,
    *args: Any,
    train: bool = True,
    wrong: str | None = None,
    noise: str | None = None,
    second: bool = False,
) -> Case:
    """A log-likelihood and its score at a start, near it, and at the most likely parameters.

    With ``second``, the score and its derivative, the Hessian.
    """
    size = np.where(start == 0.0, np.abs(start).max() or 1.0, np.abs(start))
    points = {"start": start, "random": start + 0.1 * size * normal(start.size)}
    if train and not (wrong or noise):
        both = (lambda p: -model.loglike(p, *args)), (lambda p: -np.ravel(model.score(p, *args)))
        points["optimum"] = minimize(both[0], start, jac=both[1], options={"gtol": 1e-8}).x
    optimum = {"optimum": OPTIMUM}
    if second:
        hessian = model.hessian
        return Case(model.score, hessian, points, args, bx.check_hessian, wrong=wrong, noise=noise)
    return Case(model.loglike, model.score, points, args, wrong=wrong, expected=optimum)


def counts(name: str, *, rows: bool = False, second: bool = False) -> Case:
    """A model of counts; with ``rows`` the likelihood of each row, and its scores."""
    kind, _, power = name.partition(", p = ")
    load = PASSED if kind in ("Logit", "Probit") else VISITS
    model = (getattr(sm, kind, None) or getattr(truncated, kind))(
        *load, **({"p": float(power)} if power else {})
    )
    start = np.array([0.5 if name == "alpha" else 0.0 for name in model.exog_names])
    wrong = (SECOND if second else WRONG).get(name)
    train = "NegativeBinomialP" not in kind
    noise = STEP if second and name in BY_DIFFERENCES else None
    case = likelihood(model, start, train=train, wrong=wrong, noise=noise, second=second)
    each = {"value": model.loglikeobs, "gradient": model.score_obs, "entrance": bx.check_jacobian}
    return case._replace(**each) if rows else case


def glm(family: str, link: str, rows: Rows, *args: float, second: bool = False) -> Case:
    """A generalised linear model around a constant prediction, with its scale held at 1."""
    kind = getattr(sm.families, family)
    model = sm.GLM(*rows, family=kind(getattr(links, link)()))
    start = np.zeros(4)
    start[0] = model.family.link(model.endog.mean())
    wrong = None if args else PROFILED
    case = likelihood(model, start, *args, wrong=wrong, second=second)
    here = {"start": "inconclusive: the intercept is at its optimum"}
    return case._replace(expected={**case.expected, **here})


def grouped(kind: Callable[..., Any]) -> Case:
    """A likelihood of rows in groups."""
    y, x = PASSED
    model = kind(y, x[:, 1:], groups=np.arange(len(y)) % 4)
    noise = STEP if kind in (ConditionalLogit, ConditionalPoisson) else None
    return likelihood(model, np.full(3, 0.1), second=True, noise=noise)


def survival(time: Array, x: Array, groups: Array) -> Any:
    return sm.PHReg(time + normal(len(x)) ** 2, x, strata=groups)


SURVIVAL = {
    "ConditionalLogit": ConditionalLogit,
    "ConditionalPoisson": ConditionalPoisson,
    "PHReg": survival,
    "BetaModel": lambda y, x, groups: BetaModel(0.2 + 0.5 * y + 0.01 * x[:, 0], x[:, :2]),
}
DEFAULT_P = "the probability of zeros uses the default p: every entry (0.15.0)"
PROFILED = "the scale is RSS / n in loglike, RSS / (n - 4) in score: a factor of 28 / 32 (0.15.0)"
SIGN = "the sign is wrong: the generator falls (0.15.0)"
POWER = "NaN: a negative logarithm to a fractional power (0.15.0)"
COUNTS = """Logit; Probit; Poisson; NegativeBinomial; NegativeBinomialP, p = 1.5
GeneralizedPoisson, p = 1; GeneralizedPoisson, p = 2; ZeroInflatedPoisson
ZeroInflatedGeneralizedPoisson; ZeroInflatedNegativeBinomialP; TruncatedLFPoisson
TruncatedLFNegativeBinomialP, p = 1; TruncatedLFNegativeBinomialP, p = 2
TruncatedLFGeneralizedPoisson, p = 1; TruncatedLFGeneralizedPoisson, p = 2"""
WRONG = {
    "TruncatedLFNegativeBinomialP, p = 1": DEFAULT_P,
    "TruncatedLFGeneralizedPoisson, p = 2": DEFAULT_P,
}
ALPHA = "before fit, the score is by log alpha and the Hessian by alpha (0.15.0)"
CROSS = "the constant by alpha is twice too large unless p is 1 or 2 (0.15.0)"
BLOCK = "zeros instead of the derivatives by both inflation and mean (0.15.0)"
STEP = "a finite difference by design: an error of 1e-7 to 1e-5, as large as its noise (0.15.0)"
SECOND = {
    "NegativeBinomial": ALPHA,
    "NegativeBinomialP, p = 1.5": CROSS,
    "ZeroInflatedPoisson": BLOCK,
}
ROUNDED = "inconclusive: the value is the difference of two numbers of 1, and rounded to 1e-16"
BY_DIFFERENCES = """ZeroInflatedGeneralizedPoisson; ZeroInflatedNegativeBinomialP
TruncatedLFPoisson; TruncatedLFNegativeBinomialP, p = 2""".replace("\n", "; ").split("; ")
HESSIANS = """Logit; Probit; Poisson; GeneralizedPoisson, p = 1; GeneralizedPoisson, p = 2
NegativeBinomialP, p = 1; NegativeBinomialP, p = 2"""
GLMS: list[tuple[Any, ...]] = [
    *(("Binomial", link, PASSED, 1.0) for link in ("Probit", "Cauchy")),
    ("Poisson", "Sqrt", DEATHS, 1.0),
    ("Gaussian", "Identity", VOTES),
    ("Gamma", "InversePower", VOTES, 1.0),
]
RATES = {"middle": [0.01, 0.3, 0.7, 0.99], "border": [1e-8, 1.0 - 1e-8]}
HEIGHTS = {"middle": [-2.3, -0.4, -0.1], "far": [-12.0, -6.0]}
RESIDUALS = {"middle": [-1.9, -0.3, 0.4, 1.2], "far": [-9.0, 3.3, 60.0], "tiny": [-1e-8, 1e-6]}
LINKS = ("Logit", "Probit", "Cauchy", "CLogLog", "LogLog", "LogC")
NORMS = ("LeastSquares", "HuberT", "AndrewWave", "TrimmedMean", "Hampel", "TukeyBiweight")
COPULAS = {
    "Frank": (transforms.TransfFrank(), 2.3, SIGN, None),
    "Clayton": (transforms.TransfClayton(), 1.4, None, None),
    "Gumbel": (transforms.TransfGumbel(), 1.6, None, POWER),
}
TABLE: dict[str, Callable[[], Case]] = {}
for name in COUNTS.replace("\n", "; ").split("; "):
    TABLE[f"{name}, loglike"] = partial(counts, name, rows=False)
    TABLE[f"{name}, loglikeobs"] = partial(counts, name, rows=True)
for entry in GLMS:
    scale = "scale 1" if entry[3:] else "scale estimated"
    TABLE[f"GLM, {entry[0]}, {entry[1]}, {scale}"] = partial(glm, *entry)
for name in [*HESSIANS.replace("\n", "; ").split("; "), *SECOND, *BY_DIFFERENCES]:
    TABLE[f"{name}, hessian"] = partial(counts, name, second=True)
for entry in [
    *(("Binomial", link, PASSED) for link in ("Logit", "Probit", "Cauchy", "CLogLog")),
    *(("Poisson", link, DEATHS) for link in ("Log", "Sqrt")),
    *((family, "InversePower", VOTES) for family in ("Gamma", "InverseGaussian")),
    *(("Gaussian", link, VOTES) for link in ("Identity", "Log")),
]:
    call = partial(glm, *entry, 1.0, second=True)
    TABLE[f"GLM, {entry[0]}, {entry[1]}, scale 1, hessian"] = call
for name, kind in SURVIVAL.items():
    TABLE[f"{name}, hessian"] = partial(grouped, kind)
for name in LINKS:
    link = getattr(links, name)()
    slope = link.inverse_deriv
    TABLE[f"link {name}"] = elementwise(link, link.deriv, RATES)
    TABLE[f"link {name}, deriv"] = elementwise(link.deriv, link.deriv2, RATES)
    TABLE[f"link {name}, inverse"] = elementwise(link.inverse, slope, HEIGHTS)
    TABLE[f"link {name}, inverse_deriv"] = elementwise(slope, link.inverse_deriv2, HEIGHTS)
for name in NORMS:
    norm = getattr(norms, name)()
    tiny = {"tiny": ROUNDED} if name in ("AndrewWave", "TukeyBiweight") else {}
    TABLE[f"norm {name}"] = elementwise(norm.rho, norm.psi, RESIDUALS, expected=tiny)
    TABLE[f"norm {name}, psi"] = elementwise(norm.psi, norm.psi_deriv, RESIDUALS)
for name, (kind, theta, *wrong) in COPULAS.items():
    f, slope = kind.evaluate, kind.deriv
    TABLE[f"copula {name}"] = elementwise(f, slope, RATES, theta, wrong=wrong[0])
    TABLE[f"copula {name}, deriv"] = elementwise(slope, kind.deriv2, RATES, theta, wrong=wrong[1])
PAIRS = [Pair(f"statsmodels: {name}", call) for name, call in TABLE.items()]
