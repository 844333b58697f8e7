"""The range test of learning rates: the loss while the rate rises from step to step."""

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from backprop_xp.backends import Array, to_host
from backprop_xp.checks import integer, real
from backprop_xp.display.reprs import argument_text
from backprop_xp.networks.network import Network
from backprop_xp.training.epochs.loop import run_epochs
from backprop_xp.training.epochs.set_up import prepare
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.interfaces.options import Options
from backprop_xp.training.optimizers.first_order import Optimizer, named_optimizer
from backprop_xp.training.processes.one_process import OneProcess
from backprop_xp.training.rows.batches import concat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Neighbouring steps whose losses are averaged: a batch's loss alone may be low by chance.
_WINDOW = 5


@dataclass(frozen=True, eq=False, repr=False)
class RateRange:
    """The result of ``find_learning_rate``, in NumPy's arrays.

    ``rates`` is ``(steps,)`` and ``losses``, each before its update, ``(steps, *stack)``.
    ``suggestion``, ``(*stack,)``, is a tenth of the rate at which the mean loss of five steps in a
    row is lowest; NaN for a network without such a loss.
    """

    rates: np.ndarray
    losses: np.ndarray
    suggestion: np.ndarray

    def __repr__(self) -> str:
        suggested = self.suggestion if self.suggestion.shape else float(self.suggestion)
        return f"RateRange(losses={argument_text(self.losses)}, suggestion={suggested})"

    def plot(self) -> "Figure":
        """Return a matplotlib figure of the losses over the rates, with the suggestion."""
        from backprop_xp.plots import canvas, curves  # matplotlib is optional

        figure = canvas.new_figure()
        curves.rate_range(self.rates, self.losses, self.suggestion, ax=figure.subplots())
        return figure


def find_learning_rate(
    network: Network,
    theta: Array,
    x: Array,
    y: Array,
    *,
    optimizer: Optimizer | str = "adam",
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    batch_size: int | None = None,
    sample_weight: Array | None = None,
    seed: int = 0,
) -> RateRange:
    """Train for some steps while the learning rate rises from ``low`` to ``high``.

    The range test of Smith 2017, section 3.3, with rates that rise by one factor. The
    optimizer's own rate is not used. The other arguments are those of ``fit``; theta is not
    written. Each network of a stack has its own losses and suggestion.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> theta = network.initialize(seed=0, backend="numpy")
    >>> x, y = [[0], [1]], [[1], [3]]
    >>> found = bx.find_learning_rate(network, theta, x, y, optimizer=bx.SGD(1), high=100)
    >>> bool(0.01 < found.suggestion < 0.5)
    True
    """
    low, steps = real(low, "low", above=0.0), integer(steps, "steps", at_least=_WINDOW)
    ratio = real(high, "high", above=low) / low
    options = Options(
        optimizer=named_optimizer(optimizer, learning_rate=low),
        epochs=steps,
        batch_size=batch_size,
        sample_weight=sample_weight,
        seed=seed,
    )

    def rise(step: int) -> float:
        return low * float(ratio ** (step / (steps - 1)))

    if options.traits.takes_objective:
        raise TypeError(
            f"{type(options.optimizer).__name__} has no learning rate to find: give an optimizer "
            "such as bx.Adam()."
        )
    rising = copy.copy(options.optimizer)
    vars(rising)["learning_rate"] = rise
    options = replace(options, optimizer=rising)
    training, state = prepare(network, theta, x, y, options, OneProcess(), steps=steps)
    losses, interrupt = list[Array](), Interrupt()
    with np.errstate(over="ignore", invalid="ignore"):  # the last rates are meant to diverge
        while state.step < steps:
            state, _, found = run_epochs(training, state, 1, interrupt)
            interrupt.raise_error()
            losses += found
    host = to_host(concat(losses, axis=0)[:steps, ...])
    rates = np.asarray([rise(step) for step in range(steps)])
    return RateRange(rates, host, _suggestion(rates, host))


def _suggestion(rates: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Return a tenth of each network's rate with the lowest mean loss; NaN without a finite one."""
    counted = np.where(np.isfinite(losses), losses, np.inf)
    count = len(rates) - _WINDOW + 1
    means = sum(counted[i : i + count] for i in range(_WINDOW))
    lowest = rates[np.argmin(means, axis=0) + _WINDOW // 2] / 10.0
    return np.where(np.isfinite(np.min(means, axis=0)), lowest, np.nan)
