"""The printed summary of unknown coefficients: their errors, and what their correlation costs."""

import math
from collections.abc import Sequence

import numpy as np

from backprop_xp.display.numbers import number
from backprop_xp.display.summaries import Summary


def summary_of(
    names: Sequence[str],
    coefficients: np.ndarray,
    correlation: np.ndarray,
    noise: np.ndarray,
    parameters: np.ndarray,
    freedom: np.ndarray,
) -> Summary:
    """Return the summary of standard errors; of a stack it has the medians.

    ``coefficients`` are ``(*stack, 2, m)``, with their errors, and ``correlation`` is
    ``(*stack, m, m)``.
    """
    m, networks = len(names), math.prod(noise.shape)
    values, errors = np.median(coefficients.reshape(networks, 2, m), axis=0)
    rows = [["", "value", "standard error", "error / value"]]
    rows += [
        [name, number(value), number(error), _share(error, value)]
        for name, value, error in zip(names, values, errors, strict=True)
    ]
    of_noise, of_parameters, left = (float(np.median(x)) for x in (noise, parameters, freedom))
    return Summary(
        "StandardErrors",
        f"of {f'{networks} networks, medians: ' * (networks > 1)}noise {number(of_noise)}, "
        f"{number(of_parameters)} parameters, {number(left)} degrees of freedom",
        rows if names else [],
        _strongest(names, correlation.reshape(networks, m, m), errors),
        "",
    )


def _share(error: float, value: float) -> str:
    """Return an error beside its coefficient, in percent."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return f"{number(100.0 * error / abs(value), 3)} %"


def _strongest(names: Sequence[str], correlation: np.ndarray, errors: np.ndarray) -> list[str]:
    """Return the strongest correlation and what it costs; nothing for fewer than two coefficients.

    With b known, the error of a is ``sqrt(1 - r**2)`` of what it is.
    """
    median = np.median(correlation, axis=0)
    strength = np.tril(np.nan_to_num(abs(median)), -1)
    if not strength.any():
        return []
    b, a = divmod(int(strength.argmax()), len(names))
    r = float(median[b, a])
    alone = float(errors[a]) * math.sqrt(max(0.0, 1.0 - r * r))
    return [
        f"strongest correlation: {number(r)}, of {names[a]} and {names[b]}",
        f"if {names[b]} were known, the error of {names[a]} would be {number(alone)}",
    ]
