"""Six nonlinear regressions of NIST's Statistical Reference Datasets, which are public domain.

Each model is a layer of its own, whose parameters are the coefficients. ``certified`` and
``residual``, the sum of squares, are NIST's. ``python benchmarks/nist.py`` prints the right digits
of the coefficients, from both of NIST's starts, by ``bx.LevenbergMarquardt`` and SciPy.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# The values of a model and its derivatives by each coefficient, from the coefficients and x.
Model = Callable[..., tuple[Any, tuple[Any, ...]]]


class Regression(NamedTuple):
    """A model, NIST's two starting points, the certified coefficients, and the rows."""

    model: Model
    starts: tuple[tuple[float, ...], tuple[float, ...]]
    certified: tuple[float, ...]
    residual: float
    x: np.ndarray
    y: np.ndarray


def rising(xp: Any, x: Any, b1: Any, b2: Any) -> tuple[Any, tuple[Any, ...]]:
    """``b1 (1 - exp(-b2 x))``."""
    left = xp.exp(-b2 * x)
    return b1 * (1.0 - left), (1.0 - left, b1 * x * left)


def power(xp: Any, x: Any, b1: Any, b2: Any) -> tuple[Any, tuple[Any, ...]]:
    """``b1 x^b2``."""
    log = xp.log(x)
    raised = xp.exp(b2 * log)
    return b1 * raised, (raised, b1 * log * raised)


def logistic(xp: Any, x: Any, b1: Any, b2: Any, b3: Any) -> tuple[Any, tuple[Any, ...]]:
    """``b1 / (1 + exp(b2 - b3 x))``."""
    share = 1.0 / (1.0 + xp.exp(b2 - b3 * x))
    slope = b1 * share * (1.0 - share)
    return b1 * share, (share, -slope, x * slope)


def rational(xp: Any, x: Any, b1: Any, b2: Any, b3: Any, b4: Any) -> tuple[Any, tuple[Any, ...]]:
    """``b1 (x^2 + b2 x) / (x^2 + b3 x + b4)``."""
    below = 1.0 / (x * x + b3 * x + b4)
    ratio = (x * x + b2 * x) * below
    value = b1 * ratio
    return value, (ratio, b1 * x * below, -value * x * below, -value * below)


def arrhenius(xp: Any, x: Any, b1: Any, b2: Any, b3: Any) -> tuple[Any, tuple[Any, ...]]:
    """``b1 exp(b2 / (x + b3))``."""
    inverse = 1.0 / (x + b3)
    raised = xp.exp(b2 * inverse)
    value = b1 * raised
    return value, (raised, value * inverse, -value * b2 * inverse * inverse)


def rows(*pairs: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of NIST's rows, which have y first."""
    table = np.asarray(pairs).reshape(-1, 2)
    return table[:, 1:], table[:, :1]


REGRESSIONS = {
    "Misra1a": Regression(
        rising,
        ((500.0, 1e-4), (250.0, 5e-4)),
        (2.3894212918e02, 5.5015643181e-04),
        1.2455138894e-01,
        *rows(
            *(10.07, 77.6, 14.73, 114.9, 17.94, 141.1, 23.93, 190.8, 29.61, 239.9),
            *(35.18, 289.0, 40.02, 332.8, 44.82, 378.4, 50.76, 434.8, 55.05, 477.3),
            *(61.01, 536.8, 66.40, 593.1, 75.47, 689.1, 81.78, 760.0),
        ),
    ),
    "DanWood": Regression(
        power,
        ((1.0, 5.0), (0.7, 4.0)),
        (7.6886226176e-01, 3.8604055871e00),
        4.3173084083e-03,
        *rows(
            *(2.138, 1.309, 3.421, 1.471, 3.597, 1.490, 4.340, 1.565, 4.882, 1.611),
            *(5.660, 1.680),
        ),
    ),
    "BoxBOD": Regression(
        rising,
        ((1.0, 1.0), (100.0, 0.75)),
        (2.1380940889e02, 5.4723748542e-01),
        1.1680088766e03,
        *rows(109, 1, 149, 2, 149, 3, 191, 5, 213, 7, 224, 10),
    ),
    "Rat42": Regression(
        logistic,
        ((100.0, 1.0, 0.1), (75.0, 2.5, 0.07)),
        (7.2462237576e01, 2.6180768402e00, 6.7359200066e-02),
        8.0565229338e00,
        *rows(
            *(8.930, 9, 10.80, 14, 18.59, 21, 22.33, 28, 39.35, 42, 56.11, 57, 61.73, 63),
            *(64.62, 70, 67.08, 79),
        ),
    ),
    "MGH09": Regression(
        rational,
        ((25.0, 39.0, 41.5, 39.0), (0.25, 0.39, 0.415, 0.39)),
        (1.9280693458e-01, 1.9128232873e-01, 1.2305650693e-01, 1.3606233068e-01),
        3.0750560385e-04,
        *rows(
            *(0.1957, 4.0, 0.1947, 2.0, 0.1735, 1.0, 0.1600, 0.5, 0.0844, 0.25),
            *(0.0627, 0.167, 0.0456, 0.125, 0.0342, 0.1, 0.0323, 0.0833),
            *(0.0235, 0.0714, 0.0246, 0.0625),
        ),
    ),
    "MGH10": Regression(
        arrhenius,
        ((2.0, 400000.0, 25000.0), (0.02, 4000.0, 250.0)),
        (5.6096364710e-03, 6.1813463463e03, 3.4522363462e02),
        8.7945855171e01,
        *rows(
            *(34780, 50, 28610, 55, 23650, 60, 19630, 65, 16370, 70, 13720, 75, 11540, 80),
            *(9744, 85, 8261, 90, 7030, 95, 6005, 100, 5147, 105, 4427, 110, 3820, 115),
            *(3307, 120, 2872, 125),
        ),
    ),
}


class Formula:
    """A layer whose parameters are the coefficients of a model, over those of the start.

    Coefficients of 1e-4 and 500 are thus parameters of the same unit, which the damping needs.
    """

    n_in = n_out = 1
    is_random = False

    def __init__(self, model: Model, start: tuple[float, ...]) -> None:
        self.model, self.start = model, start
        self.names = tuple(f"b{i}" for i in range(1, len(start) + 1))
        self.shapes = ((1, 1),) * len(start)

    def initialize(self, generator: Any) -> tuple[np.ndarray, ...]:
        """Return the starting point, ones."""
        return tuple(np.ones((1, 1)) for _ in self.start)

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        """Return the model's values, and its derivatives for the backward rule."""
        from backprop_xp.backends import array_namespace

        scaled = (value * each for value, each in zip(self.start, parameters, strict=True))
        return self.model(array_namespace(x), x, *scaled)

    def backward(
        self, parameters: Any, cache: Any, g: Any, *, wants_input: bool = True
    ) -> tuple[Any, tuple[Any, ...]]:
        """Return the gradients by the coefficients; the model is the first layer."""
        if wants_input:
            raise NotImplementedError("A formula has no derivatives by x here.")
        from backprop_xp.backends import array_namespace

        xp = array_namespace(g)
        slopes = (value * each for value, each in zip(self.start, cache, strict=True))
        return None, tuple(xp.sum(g * each, axis=-2, keepdims=True) for each in slopes)


def ours(problem: Regression, start: tuple[float, ...]) -> np.ndarray:
    """Return the coefficients by Levenberg-Marquardt."""
    import backprop_xp as bx

    network = bx.Network([Formula(problem.model, start)], "mean_squared_error")
    theta, optimizer = network.initialize(backend="numpy"), bx.LevenbergMarquardt(tolerance=1e-14)
    result = bx.fit(network, theta, problem.x, problem.y, optimizer=optimizer, epochs=1000)
    return np.asarray(result.theta * start)


def by_scipy(method: str, problem: Regression, start: tuple[float, ...]) -> np.ndarray:
    """Return the coefficients by curve_fit, with the derivatives and small tolerances."""
    from scipy.optimize import curve_fit

    model = functools.partial(problem.model, np)
    options = {
        "jac": lambda x, *b: np.stack(model(x, *b)[1], axis=-1),
        "method": method,
        "maxfev": 10**5,
    }
    tolerances = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-15)
    rows = problem.x[:, 0], problem.y[:, 0]
    try:
        found, _ = curve_fit(lambda x, *b: model(x, *b)[0], *rows, start, **options, **tolerances)
    except (RuntimeError, ValueError):  # it did not converge, or met a value that is not finite
        return np.full(len(start), np.nan)
    return np.asarray(found)


def digits(found: np.ndarray, certified: tuple[float, ...]) -> float:
    """Return the number of right digits of the worst coefficient, at most NIST's eleven."""
    error = np.max(np.abs(found / certified - 1.0))
    return float(np.clip(-np.log10(np.maximum(error, 1e-11)), 0.0, 11.0))


def main() -> None:
    """Print the table in Markdown."""
    fits = {
        "`LevenbergMarquardt`": ours,
        "SciPy lm": functools.partial(by_scipy, "lm"),
        "SciPy trf": functools.partial(by_scipy, "trf"),
    }
    lines = [f"| | {' | '.join(REGRESSIONS)} |", f"|---|{'---|' * len(REGRESSIONS)}"]
    for name, fit in fits.items():
        cells = []
        for problem in REGRESSIONS.values():
            with np.errstate(all="ignore"):
                found = [digits(fit(problem, start), problem.certified) for start in problem.starts]
            cells.append(", ".join("none" if not each >= 1.0 else f"{each:.1f}" for each in found))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
