"""What is watched after each epoch: early stopping, and rates that a plateau slows down.

Each network of a stack is judged by itself.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, to_host
from backprop_xp.checks import boolean, check_watch, integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.training.pytrees import copied, mapped
from backprop_xp.training.schedules import Plateau


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

    __repr__ = repr_of

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer(self.patience, "patience"))
        object.__setattr__(self, "min_delta", real(self.min_delta, "min_delta", low=0.0))
        object.__setattr__(self, "restore_best", boolean(self.restore_best, "restore_best"))
        check_watch(self.watch, self.mode)


class Best(NamedTuple):
    """Each network of a stack as it was at its own best epoch, for early stopping.

    ``score`` and ``epoch`` are NumPy arrays ``(*stack,)``: what was watched, negated where more is
    better, and the epoch. What the optimiser's state counts for all networks, as its step, is that
    of the last of the epochs. ``watch`` names what was watched, and ``mode`` what is better.
    """

    score: Any
    epoch: Any
    theta: Array
    optimizer_state: Any
    watch: str
    mode: str


class Slowed(NamedTuple):
    """How far a plateau has slowed each network of a stack down: NumPy arrays ``(*stack,)``.

    ``score`` is the best of what was watched, negated where more is better, ``epoch`` that since
    which patience is counted, ``factor`` what the rate is multiplied by; ``watch`` and ``mode`` are
    as in ``Best``.
    """

    score: Any
    epoch: Any
    factor: Any
    watch: str
    mode: str


def better(rule: EarlyStopping, old: Best | None, watched: Array, epoch: int, carry: Any) -> Best:
    """Return each network at its best after one more epoch; one transfer tells which improved.

    ``rule`` names what is watched; ``carry`` is theta and the optimiser's state after the epoch.
    """
    score = _score(rule, watched)
    np = array_namespace(score)
    if old is None:
        theta, state = copied(carry)
        return Best(score, np.full(score.shape, epoch), theta, state, str(rule.watch), rule.mode)
    improved = np.asarray(score < old.score - rule.min_delta)
    if not improved.any():
        return old
    theta, state = copied(carry)
    if not improved.all():
        before, after = (old.theta, old.optimizer_state), (theta, state)
        theta, state = mapped(functools.partial(_where, improved), before, after)
    return old._replace(
        score=np.where(improved, score, old.score),
        epoch=np.where(improved, epoch, old.epoch),
        theta=theta,
        optimizer_state=state,
    )


def slowed(rule: Plateau, old: Slowed | None, watched: Array, epoch: int) -> Slowed:
    """Return how far each network is slowed down after one more epoch."""
    score = _score(rule, watched)
    np = array_namespace(score)
    if old is None:
        since, factor = np.full(score.shape, epoch), np.ones(score.shape)
        return Slowed(score, since, factor, str(rule.watch), rule.mode)
    improved = score < old.score - rule.min_delta
    since = np.where(improved, epoch, old.epoch)
    waited = epoch - since >= rule.patience
    return old._replace(
        score=np.where(improved, score, old.score),
        epoch=np.where(waited, epoch, since),
        factor=np.where(waited, old.factor * rule.factor, old.factor),
    )


def _score(rule: EarlyStopping | Plateau, watched: Array) -> Any:
    """Return what is watched, on the host, negated where more is better; NaN counts as infinity."""
    score = to_host(watched) * (1.0 if rule.mode == "min" else -1.0)
    np = array_namespace(score)
    return np.where(np.isnan(score), math.inf, score)


def _where(improved: Any, old: Any, new: Any) -> Any:
    """Return ``new`` for the networks that improved and ``old`` for the others, array by array."""
    home, stack = owner(new), improved.shape
    if home is None or not hasattr(new, "shape") or tuple(new.shape[: len(stack)]) != stack:
        return new
    xp, missing = home.namespace(), [1] * (len(new.shape) - len(stack))
    flags = home.from_host(improved.reshape(*stack, *missing), device=device_of(new))
    return xp.where(flags, new, old)
