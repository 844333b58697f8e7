"""Initial parameters, drawn on the host in float64.

An initializer is a function ``(generator, shape) -> ndarray``. The shape is ``(n_in, n_out)`` for
weights and ``(1, n_out)`` for a bias: fan-in and fan-out are the two lengths.
"""

import math
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from backprop_xp.checks import real
from backprop_xp.display.reprs import entry_of, register_table, remember_call
from backprop_xp.networks.numbers.partial import WithLast

# Quoted, because numpy.random takes 7 ms to import: the first draw imports it.
Generator: TypeAlias = "np.random.Generator"
HostArray: TypeAlias = np.ndarray
Initializer: TypeAlias = Callable[[Generator, tuple[int, int]], HostArray]


def zeros(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Return zeros, for biases: equal weights would stay equal during training."""
    return np.zeros(shape)


def ones(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Return ones, for scales."""
    return np.ones(shape)


@entry_of("initializers")
def uniform(low: float, high: float) -> Initializer:
    """Return an initializer that draws uniformly from ``[low, high)``."""
    low, high = real(low, "low"), real(high, "high")
    if not low <= high:
        raise ValueError(f"low must be at most high, but low={low:g} and high={high:g}.")
    return remember_call(WithLast(_uniform, (low, high)), uniform, low, high)


def _uniform(generator: Generator, shape: tuple[int, int], low: float, high: float) -> HostArray:
    return generator.uniform(low, high, shape)


def glorot_uniform(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with variance 2 / (fan-in + fan-out): Glorot and Bengio 2010, equation 16."""
    bound = math.sqrt(6.0 / sum(shape))
    return generator.uniform(-bound, bound, shape)


def glorot_normal(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with variance 2 / (fan-in + fan-out): Glorot and Bengio 2010, equation 12."""
    return generator.normal(0.0, math.sqrt(2.0 / sum(shape)), shape)


def he_uniform(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with variance 2 / fan-in, for relu: He et al. 2015, equation 10."""
    bound = math.sqrt(6.0 / shape[0])
    return generator.uniform(-bound, bound, shape)


def he_normal(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with variance 2 / fan-in, for relu: He et al. 2015, equation 10."""
    return generator.normal(0.0, math.sqrt(2.0 / shape[0]), shape)


def lecun_normal(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with variance 1 / fan-in: LeCun et al. 1998, "Efficient BackProp", equation 16."""
    return generator.normal(0.0, math.sqrt(1.0 / shape[0]), shape)


def standard_normal(generator: Generator, shape: tuple[int, int]) -> HostArray:
    """Draw with mean 0 and variance 1, for embeddings."""
    return generator.normal(size=shape)


def draw_stack(
    seed: int, count: int, draw: Callable[[Generator], Iterable[HostArray]]
) -> HostArray:
    """Return ``count`` draws, each flattened and joined, as ``(count, P)`` in float64.

    Draw i has its own generator, which depends on the seed and i alone. Raises MemoryError, before
    the second draw, if there is no memory for all.
    """
    drawn = np.empty((0, 0))
    for i in range(count):
        generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        row = np.concatenate([np.ravel(value) for value in draw(generator)])
        if not i:
            drawn = _empty(count, row.size)
        drawn[i] = row
    return drawn


def _empty(count: int, size: int) -> HostArray:
    try:
        return np.empty((count, size))
    except (MemoryError, ValueError, OverflowError):
        raise MemoryError(
            f"stack has {count:,} networks of {size:,} parameters, {8.0 * count * size:.2g} bytes, "
            "for which there is no memory."
        ) from None


def checked_draw(value: object, shape: tuple[int, ...], name: str) -> HostArray:
    """Return a parameter's draw as an array, or raise unless it has real numbers and its shape."""
    drawn = np.asarray(value)
    if drawn.dtype.kind not in "biuf":
        raise TypeError(f"{name} was drawn as {drawn.dtype}, but real numbers are expected.")
    if drawn.shape != shape:
        raise ValueError(
            f"{name} was drawn with shape {drawn.shape}, but {shape} is expected: an initializer "
            "returns the shape that it gets."
        )
    return drawn


INITIALIZERS: dict[str, Initializer] = register_table(
    "initializers",
    {
        "glorot_uniform": glorot_uniform,
        "glorot_normal": glorot_normal,
        "he_uniform": he_uniform,
        "he_normal": he_normal,
        "lecun_normal": lecun_normal,
        "standard_normal": standard_normal,
        "zeros": zeros,
        "ones": ones,
    },
)


def __dir__() -> list[str]:
    return [*INITIALIZERS, "uniform"]
