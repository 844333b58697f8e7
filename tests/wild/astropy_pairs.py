"""Hand-written derivatives of astropy's models by their parameters (looked at: 8.0.2)."""

from functools import partial
from typing import Any

import numpy as np
from astropy.modeling import models

import backprop_xp as bx

from .pairs import Array, Case, Pair

LINE = (np.array([-1.7, -0.4, 0.3, 1.1, 2.6]),)
RIGHT = (np.array([0.2, 0.8, 1.7, 4.4]),)
PLANE = (np.array([-1.1, 0.3, 0.9, 2.2]), np.array([0.4, -0.7, 1.6, 0.2]))
ANGSTROM = (np.array([5493.0, 5499.5, 5503.0]),)
DRUDE = "by x_0: x / x_0 instead of x / x_0^2, and 2 fwhm^2 / x_0^3 instead of half of it (8.0.2)"


def case(name: str, inputs: Any, *points: list[float]) -> Case:
    """Every value of a model by every parameter; ``fit_deriv`` returns columns, or rows."""
    kind = getattr(models, name)
    model = kind(3) if name == "Legendre1D" else kind()

    def gradient(p: Array) -> Any:
        columns = model.fit_deriv(*inputs, *p)
        return np.transpose(columns) if model.col_fit_deriv else columns

    where = {label: np.array(p) for label, p in zip(("usual", "awkward"), points, strict=False)}
    wrong = DRUDE if name == "Drude1D" else None
    return Case(
        lambda p: model.evaluate(*inputs, *p),
        gradient,
        where,
        entrance=bx.check_jacobian,
        wrong=wrong,
    )


TABLE: list[tuple[Any, ...]] = [
    ("Gaussian1D", LINE, [1.3, 0.2, 0.7], [1.0, 0.3, 0.02]),
    ("Gaussian1D", ANGSTROM, [1.0, 5500.0, 2.1], [3e-17, 5500.0, 2.1]),
    ("Gaussian2D", PLANE, [1.3, 0.2, 0.1, 0.7, 1.2, 0.4], [1e-8, 0.1, 0.2, 1.1, 1.1, 0.4]),
    ("Lorentz1D", LINE, [1.3, 0.2, 0.7], [1e8, 0.3, 1e-3]),
    ("Voigt1D", LINE, [0.2, 1.3, 0.7, 0.4]),
    ("Sine1D", LINE, [1.3, 0.2, 0.7], [1.0, 1e4, 0.25]),
    ("ArcSine1D", LINE, [4.3, 0.2, 0.7], [2.6001, 0.2, 0.7]),
    ("KingProjectedAnalytic1D", RIGHT, [1.3, 0.6, 5.5], [1.0, 1.0, 1.701]),
    ("Drude1D", RIGHT, [1.3, 0.9, 0.4], [1.0, 0.8, 1e-3]),
    ("SmoothlyBrokenPowerLaw1D", RIGHT, [1.3, 0.9, 1.4, 2.1, 0.3], [1.3, 0.9, 1.4, 2.1, 1e-3]),
    ("Legendre1D", LINE, [1.3, 0.2, 0.7, -1.1], [1e8, 1e-8, 0.7, -1.1]),
]
PAIRS = [Pair(f"astropy: {row[0]}", partial(case, *row)) for row in TABLE]
PAIRS[1] = PAIRS[1]._replace(name="astropy: Gaussian1D, a spectral line")
