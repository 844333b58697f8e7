"""Compiled loops for a training whose number of updates is not known before."""

import math
from collections.abc import Callable
from typing import Any

from backprop_xp.backends import Array, require_owner
from backprop_xp.networks.inputs import Rows
from backprop_xp.training.loop import Stepper


class LateLoops:
    """Compiles a training's steps once it has lasted long; it is taken to last as long again.

    ``make(kernels)`` returns the compiled stepper, whose functions the stepper of the training
    then has.
    """

    def __init__(self, make: Callable[[Any], Stepper], stepper: Stepper) -> None:
        self._make, self._stepper = make, stepper
        self._steps, self._rows = 0, 0

    def count(self, theta: Array, rows: Rows) -> None:
        """Count a step on these rows, and compile if it is time."""
        self._steps += 1
        self._rows += rows.x.shape[-2]
        if self._stepper.is_compiled or self._steps & (self._steps - 1):  # asked rarely
            return
        operations = operations_of(theta, 2 * self._rows)
        kernels = require_owner(theta, "theta").kernels(theta, 2 * self._steps, operations)
        if kernels is not None:
            self._stepper.take_over(self._make(kernels))


def operations_of(theta: Array, rows: int) -> float:
    """Return about how many operations the updates by so many rows in all take."""
    return 6.0 * float(math.prod(theta.shape)) * rows
