"""The experiment of the command ``xor``: a small network learns XOR, from one start or from many.

Nothing is printed here. Measurements stay on the device.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

import backprop_xp as bx
from backprop_xp.backends import Array, array_namespace
from backprop_xp.checks import real
from backprop_xp.networks.losses.loss import LOSSES

INPUTS = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
TARGETS = [[0.0], [1.0], [1.0], [0.0]]

# Each learns fast and without jumps. The exercise's step of 0.1 is a learning rate of 0.2 for the
# true gradient of its cost. This is a tenth of the rate here, and mostly too small for 10,000
# epochs. A loss half as steep as the squared error has twice the rate.
LEARNING_RATES = {
    "mean_squared_error": 2.0,
    "half_squared_error": 4.0,
    "mean_absolute_error": 0.5,
    "huber": 4.0,
    "log_cosh": 4.0,
    "poisson": 0.5,
    "binary_cross_entropy": 1.0,
    "hinge": 0.5,
}

# The exercise draws weights *and* biases; its text asks for [-epsilon, epsilon]. Biases of 0 would
# also put the sample (0, 0) on the kink of a relu, which has no derivative to check.
_EPSILON = 1.0

_MEASUREMENTS = 1000


class Experiment(NamedTuple):
    """A network, its initial theta ``(*stack, P)``, data on its device, and training options."""

    network: bx.Network
    start: Array
    x: Array
    y: Array
    learning_rate: float
    epochs: int

    @property
    def starts(self) -> int:
        """The number of networks in the stack."""
        return math.prod(self.start.shape[:-1])


class Measurement(NamedTuple):
    """The state after ``epoch`` epochs; theta is valid until the next measurement.

    ``loss`` and ``solved_since`` are ``(*stack,)``. The latter is the epoch of the measurement
    since which every prediction is within 0.5 of its target; it is infinite if one is not.
    """

    epoch: int
    theta: Array
    loss: Array
    solved_since: Array


class Outcome(NamedTuple):
    """The result of every start, and the best one: the least loss among those that solved XOR.

    ``losses`` and ``solved_since`` are ``(starts,)`` on the host. ``start`` and ``theta`` are the
    initial and the trained theta of the best one, ``(P,)``.
    """

    losses: np.ndarray
    solved_since: np.ndarray
    best: int
    start: Array
    theta: Array


def prepare(
    sizes: Sequence[int],
    *,
    loss: str,
    hidden: str,
    learning_rate: float | None,
    epochs: int,
    seed: int,
    restarts: int,
) -> Experiment:
    """Draw the initial thetas, and put the data on their device.

    Raises ValueError for a learning rate, BackendUnavailableError for a backend that cannot run.
    """
    network = xor_network(sizes, loss=loss, hidden=hidden)
    start = network.initialize(seed, stack=() if restarts == 1 else restarts)
    rate = LEARNING_RATES[loss] if learning_rate is None else learning_rate
    rate = real(rate, "learning_rate", low=0.0)
    return Experiment(network, start, bx.asarray(INPUTS), bx.asarray(TARGETS), rate, epochs)


def xor_network(sizes: Sequence[int], *, loss: str, hidden: str) -> bx.Network:
    """Return a network of Dense layers for XOR, weights and biases drawn from [-1, 1]."""
    draw = bx.initializers.uniform(-_EPSILON, _EPSILON)
    activations = [hidden] * (len(sizes) - 2) + [output_activation(loss)]
    layers = [
        bx.Dense(n_in, n_out, activation, initializer=draw, bias_initializer=draw)
        for (n_in, n_out), activation in zip(itertools.pairwise(sizes), activations, strict=True)
    ]
    return bx.Network(layers, loss)


def output_activation(loss: str) -> str:
    """Return the output activation: identity if the loss has an inverse link, else sigmoid."""
    return "sigmoid" if LOSSES[loss].inverse_link is bx.activations.identity.value else "identity"


def interval(epochs: int) -> int:
    """Return the number of epochs between two measurements: there are about 1000 in all."""
    return max(1, epochs // _MEASUREMENTS)


def learn(experiment: Experiment) -> Iterator[Measurement]:
    """Train by full-batch gradient descent; measure at the start, at intervals, at the end."""
    network, theta, x, y, learning_rate, epochs = experiment
    every = interval(epochs)
    loss = network.loss(theta, x, y)
    never = array_namespace(theta).full_like(loss, math.inf)
    since = _solved_since(experiment, theta, 0, never)
    yield Measurement(0, theta, loss, since)
    for state in bx.train(network, theta, x, y, optimizer=bx.SGD(learning_rate), epochs=epochs):
        if state.epoch % every == 0 or state.epoch == epochs:
            since = _solved_since(experiment, state.theta, state.epoch, since)
            yield Measurement(state.epoch, state.theta, network.loss(state.theta, x, y), since)


def outcome(experiment: Experiment, last: Measurement) -> Outcome:
    """Return the result of every start at the last measurement."""
    losses, since = bx.to_host(last.loss).reshape(-1), bx.to_host(last.solved_since).reshape(-1)
    # NaN sorts last.
    best = int(np.lexsort((losses, ~np.isfinite(since)))[0])
    start, theta = experiment.start, last.theta
    if len(start.shape) > 1:
        start, theta = start[best, ...], theta[best, ...]
    return Outcome(losses, since, best, start, theta)


def _solved_since(experiment: Experiment, theta: Array, epoch: int, since: Array) -> Array:
    """Return ``since`` after one more measurement; a network that strays again is unsolved."""
    xp = array_namespace(theta)
    error = xp.abs(experiment.network.predict(theta, experiment.x) - experiment.y)
    # NaN compares false: a diverged network is unsolved.
    solved = xp.max(error, axis=(-2, -1)) < 0.5
    earliest = xp.minimum(since, xp.full_like(since, float(epoch)))
    return xp.where(solved, earliest, xp.full_like(since, math.inf))
