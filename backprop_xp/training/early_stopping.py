"""Early stopping, and the learning rates that a plateau lowers: rules that watch each epoch.

They watch each network of a stack by itself.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, to_host
from backprop_xp.checks import boolean, check_watch, integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.training.metrics import Mode
from backprop_xp.training.pytrees import Pytree, copied, mapped
from backprop_xp.training.schedules import plateau


@dataclass(frozen=True)
class EarlyStopping:
    """A rule that ends training when no network of the stack has improved for ``patience`` epochs.

    - ``watch`` is the name of a metric or ``"validation_loss"``, the default. ``"loss"``, the
      default without a validation set, is that of the training set after the epoch, without
      dropout, which takes another forward pass.
    - A network improves when the watched value falls by more than ``min_delta`` below its best, or
      rises above it with ``mode="max"``. ``mode`` None is "min" for a loss, and a metric's own.
    - With ``restore_best`` ``fit`` returns each network, and its optimizer's state, of its own best
      epoch. Otherwise it returns those of the epoch when the network's own patience ran out. Later
      epochs, while other networks of the stack go on, change neither.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> rule = bx.EarlyStopping(patience=3, min_delta=1e-3)
    >>> options = {"optimizer": bx.SGD(0.5), "epochs": 1000, "early_stopping": rule}
    >>> bx.fit(network, network.initialize(), x, y, **options).epochs < 100
    True
    """

    patience: int = 10
    min_delta: float = 0.0
    restore_best: bool = True
    watch: str | None = None
    mode: Mode | None = None

    __repr__ = repr_of

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", integer(self.patience, "patience"))
        object.__setattr__(self, "min_delta", real(self.min_delta, "min_delta", low=0.0))
        object.__setattr__(self, "restore_best", boolean(self.restore_best, "restore_best"))
        check_watch(self.watch, self.mode)


class Best(NamedTuple):
    """Each network of a stack at its own best epoch, for early stopping.

    Without ``restore_best`` theta and the optimizer's state are those of its last epoch.

    ``score`` and ``epoch`` are NumPy arrays ``(*stack,)``: the watched value, negated for
    ``mode="max"``, and the epoch. A count that all networks share, such as the optimizer's step, is
    that of the latest of these epochs. ``watch`` and ``mode`` are those of the rule.
    """

    score: Array
    epoch: Array
    theta: Array
    optimizer_state: Pytree
    watch: str
    mode: str


class Slowed(NamedTuple):
    """The reduction of each network's learning rate by a plateau: NumPy arrays ``(*stack,)``.

    ``score`` is the best watched value, as in ``Best``; ``epoch`` is the one from which patience
    counts; ``factor`` multiplies the rate. ``watch`` and ``mode`` are those of the plateau.
    """

    score: Array
    epoch: Array
    factor: Array
    watch: str
    mode: str


def better(
    rule: EarlyStopping, old: Best | None, watched: Array, epoch: int, carry: tuple[Array, Pytree]
) -> Best:
    """Return each network at its best after one more epoch, with one transfer to the host.

    ``carry`` is theta, as it was measured, and the optimizer's state after the epoch. A network
    whose patience has run out has ended, though the others go on.
    """
    score = _score(rule, watched)
    np = array_namespace(score)
    if old is None:
        theta, state = copied(carry)
        since = np.full(score.shape, epoch)
        return Best(score, since, theta, state, str(rule.watch), str(rule.mode))
    runs = np.asarray(epoch - old.epoch <= rule.patience)
    improved = np.asarray((score < old.score - rule.min_delta) & runs)
    kept = improved if rule.restore_best else runs
    if not kept.any():
        return old
    theta, state = copied(carry)
    if not kept.all():
        before, after = (old.theta, old.optimizer_state), (theta, state)
        theta, state = mapped(functools.partial(_where, kept), before, after)
    return old._replace(
        score=np.where(improved, score, old.score),
        epoch=np.where(improved, epoch, old.epoch),
        theta=theta,
        optimizer_state=state,
    )


def slowed(rule: plateau, old: Slowed | None, watched: Array, epoch: int) -> Slowed:
    """Return how far each network's rate is lowered after one more epoch."""
    score = _score(rule, watched)
    np = array_namespace(score)
    if old is None:
        since, factor = np.full(score.shape, epoch), np.ones(score.shape)
        return Slowed(score, since, factor, str(rule.watch), str(rule.mode))
    improved = score < old.score - rule.min_delta
    since = np.where(improved, epoch, old.epoch)
    waited = epoch - since >= rule.patience
    return old._replace(
        score=np.where(improved, score, old.score),
        epoch=np.where(waited, epoch, since),
        factor=np.where(waited, old.factor * rule.factor, old.factor),
    )


def _score(rule: EarlyStopping | plateau, watched: Array) -> Array:
    """Return the watched value on the host, negated for ``mode="max"``; NaN counts as infinity."""
    score = to_host(watched) * (1.0 if rule.mode == "min" else -1.0)
    np = array_namespace(score)
    return np.where(np.isnan(score), math.inf, score)


def _where(improved: Array, old: Any, new: Any) -> Any:
    """Return ``new`` for the networks that improved, else ``old``; other leaves are ``new``."""
    home, stack = owner(new), improved.shape
    if home is None or not hasattr(new, "shape") or tuple(new.shape[: len(stack)]) != stack:
        return new
    xp, missing = home.namespace(), [1] * (len(new.shape) - len(stack))
    flags = home.from_host(improved.reshape(*stack, *missing), device=device_of(new))
    return xp.where(flags, new, old)
