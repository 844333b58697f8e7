"""What a training's history comes down to, on the host: quantiles of a stack, the kind of a curve.

Pictures and notebooks show the same of it.
"""

from collections.abc import Sequence

import numpy as np

# These of a history are measured at each gradient check, not at each epoch.
OF_CHECKS = ("gradient_error", "gradient_verdict")


def is_loss(name: str) -> bool:
    """Say whether what has this name is a loss, of which less is better."""
    return name.endswith("loss")


def falls_far(losses: np.ndarray) -> bool:
    """Say whether the finite ones are above 0 and fall to a tenth: a logarithm shows them best."""
    finite = losses[np.isfinite(losses)]
    return bool(finite.size and 0.0 < finite.min() <= 0.1 * finite.max())


def quantiles(values: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Return quantiles over the finite ones of ``(epochs, networks)``: ``(shares, epochs)``.

    An epoch in which none is finite has NaN.
    """
    finite = np.isfinite(values)
    found = np.full((len(shares), len(values)), np.nan)
    some = finite.any(axis=1)
    kept = np.where(finite, values, np.nan)[some]
    found[:, some] = np.nanquantile(kept, shares, axis=1)
    return found
