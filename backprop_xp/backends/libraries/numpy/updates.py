"""Updates of the optimisers in pieces that stay in a processor's cache.

A rule passes a dozen times over theta, gradient and state. Entries are updated independently, so
applying the same rule piece by piece gives the same bits, and reads the memory once.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

from backprop_xp.backends.protocol import Array

# Numbers in a piece: few enough for the caches, and so many that the calls of NumPy for each piece,
# a dozen, do not count. Of half as many they took a tenth of Adam's time.
PIECE = 2**16
# Each network of a stack has at least so many of them: shorter runs are slower than the memory.
_RUN = 512


def in_pieces(
    self: Any, theta: Array, gradient: Array, state: Any, learning_rate: Any
) -> tuple[Array, Any]:
    """Apply an optimiser's ``rule`` in place, piece after piece."""
    if theta.size <= 2 * PIECE:
        updated: tuple[Array, Any] = self.rule(theta, gradient, state, learning_rate)
        return updated
    size = theta.shape[-1]
    length = max(PIECE // math.prod(theta.shape[:-1]), _RUN)
    for start in range(0, size, length):
        part = (..., slice(start, start + length))
        piece = [
            value if name == "step" or value is None else value[part]
            for name, value in zip(state._fields, state, strict=True)
        ]
        _of_part(self, part).rule(theta[part], gradient[part], type(state)(*piece), learning_rate)
    return theta, state._replace(step=state.step + 1)


def _of_part(optimizer: Any, part: Any) -> Any:
    """Return the optimiser for a part of theta: with that part of its mask."""
    if getattr(optimizer, "mask", None) is None:
        return optimizer
    part_of = copy.copy(optimizer)
    vars(part_of)["mask"] = optimizer.mask[part]
    return part_of


RULES: dict[str, Callable[..., Any]] = {
    f"backprop_xp.training.optimizers.{name}.rule": in_pieces
    for name in ("SGD", "RMSProp", "Adam", "AdamW")
}
