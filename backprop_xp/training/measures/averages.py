"""Averages of theta over a training: schedules of weights, one for each update."""

from dataclasses import dataclass
from typing import TypeAlias

from backprop_xp.backends import Array
from backprop_xp.backends.replacements import replaceable
from backprop_xp.checks import integer, real
from backprop_xp.display.reprs import repr_of


@dataclass(frozen=True)
class EMA:
    """An exponential moving average: ``average = decay * average + (1 - decay) * theta``.

    It is taken after each update, with the bias of its start corrected: theta has the weight ``(1 -
    decay) / (1 - decay**t)`` after update t, as in Kingma and Ba 2015, section 7.2.

    >>> import backprop_xp as bx
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize()
    >>> options = {"optimizer": bx.SGD(0.5), "epochs": 50}
    >>> result = bx.fit(network, theta, x, y, average=bx.EMA(0.9), **options)
    >>> bool((result.theta != result.state.theta).any())  # the average, and the last theta
    True
    """

    decay: float = 0.999

    __repr__ = repr_of

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", real(self.decay, "decay", low=0.0, below=1.0))

    def weight(self, step: int, batches: int) -> float:
        """Return theta's weight in the average after an update, counted from 1."""
        return (1.0 - self.decay) / (1.0 - self.decay**step)


@dataclass(frozen=True)
class SWA:
    """Stochastic weight averaging: the mean of theta after ``start_epoch`` and each later epoch.

    Izmailov et al. 2018, algorithm 1, with a cycle of one epoch. Earlier the average is theta after
    the last epoch.

    >>> import backprop_xp as bx
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize()
    >>> options = {"optimizer": bx.SGD(0.5), "epochs": 50}
    >>> result = bx.fit(network, theta, x, y, average=bx.SWA(start_epoch=40), **options)
    >>> result.theta.round(2)
    array([2., 0.])
    """

    start_epoch: int

    __repr__ = repr_of

    def __post_init__(self) -> None:
        object.__setattr__(self, "start_epoch", integer(self.start_epoch, "start_epoch"))

    def weight(self, step: int, batches: int) -> float:
        """Return theta's weight in the average after an update: 0 within an epoch."""
        epoch, within = divmod(step, batches)
        return 0.0 if within else 1.0 / max(1, epoch - self.start_epoch + 1)


Average: TypeAlias = EMA | SWA


@replaceable
def averaged(average: Array, theta: Array, weight: float | Array) -> Array:
    """Return an average with theta in it by a weight, in the average's memory."""
    # By a difference: rounding the two weights apart would shift a long average in float32.
    average += (theta - average) * weight
    return average
