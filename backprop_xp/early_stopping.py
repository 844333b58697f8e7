"""Early stopping: each network of a stack is judged by itself, and remembered at its best."""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, to_host
from backprop_xp.checks import integer, real
from backprop_xp.shown import shown
from backprop_xp.structures import copied, mapped


@dataclass(frozen=True)
class EarlyStopping:
    """Ends training when no network of the stack has improved for ``patience`` epochs.

    A network improves when what is watched falls by more than ``min_delta`` below its best, or
    rises above it with ``mode="max"``. ``watch`` is the name of a metric or ``"validation_loss"``;
    None is the latter. Without validation rows that is the training loss after the epoch, without
    dropout, which takes another forward pass. With ``restore_best`` ``fit`` gives back each
    network and its optimiser's state as they were at its own best epoch.
    """

    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True
    watch: str | None = None
    mode: Literal["min", "max"] = "min"

    __repr__ = shown

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer(self.patience, "patience"))
        object.__setattr__(self, "min_delta", real(self.min_delta, "min_delta", low=0.0))
        if not isinstance(self.watch, str | None):
            raise TypeError(f"watch must be the name of a metric or a loss, not {self.watch!r}.")
        if self.mode not in ("min", "max"):
            raise ValueError(f'mode must be "min" or "max", not {self.mode!r}.')


class Best(NamedTuple):
    """Each network of a stack as it was at its own best epoch, for early stopping.

    ``score`` and ``epoch`` are NumPy arrays ``(*stack,)``: what was watched, negated where more is
    better, and the epoch. What the optimiser's state counts for all networks, as its step, is that
    of the last of the epochs.
    """

    score: Any
    epoch: Any
    theta: Array
    optimizer_state: Any


def better(rule: EarlyStopping, old: Best | None, watched: Array, epoch: int, carry: Any) -> Best:
    """Return each network at its best after one more epoch; one transfer tells which improved.

    ``carry`` is theta and the optimiser's state after it.
    """
    score = to_host(watched) * (1.0 if rule.mode == "min" else -1.0)
    np = array_namespace(score)
    if old is None:
        # A score that starts as NaN counts as infinite: any number improves on it.
        score = np.where(np.isnan(score), math.inf, score)
        return Best(score, np.full(score.shape, epoch), *copied(carry))
    improved = np.asarray(score < old.score - rule.min_delta)
    if not improved.any():
        return old
    new = copied(carry)
    if not improved.all():
        new = mapped(functools.partial(_where, improved), (old.theta, old.optimizer_state), new)
    better = np.where(improved, score, old.score), np.where(improved, epoch, old.epoch)
    return Best(*better, *new)


def _where(improved: Any, old: Any, new: Any) -> Any:
    """Return the networks of ``new`` that improved, else of ``old``; what is of no stack is new."""
    home, stack = owner(new), improved.shape
    if home is None or not hasattr(new, "shape") or tuple(new.shape[: len(stack)]) != stack:
        return new
    xp, missing = home.namespace(), [1] * (len(new.shape) - len(stack))
    flags = home.from_host(improved.reshape(*stack, *missing), device=device_of(new))
    return xp.where(flags, new, old)
