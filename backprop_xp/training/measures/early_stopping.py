"""Early stopping: a rule that watches each epoch of each network of a stack."""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, device_of, owner, to_host
from backprop_xp.checks import boolean, check_watch, integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.training.measures.metrics import Mode
from backprop_xp.training.optimizers.pytrees import Pytree, copied, mapped


@dataclass(frozen=True)
class EarlyStopping:
    """A rule that ends training when no network of the stack has improved for ``patience`` epochs.

    - ``watch`` is a name in the history: ``"validation_loss"``, the default, a metric's, or
      ``"training_loss"``, the default without a validation set. Watching a measure of the training
      set adds it to the history, and takes another forward pass. ``"loss"`` takes none: it is the
      mean of the epoch's batches before their updates, not the loss of the theta that is kept.
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


def better(
    rule: EarlyStopping, old: Best | None, watched: Array, epoch: int, carry: tuple[Array, Pytree]
) -> Best:
    """Return each network at its best after one more epoch, with one transfer to the host.

    ``carry`` is theta, as it was measured, and the optimizer's state after the epoch. A network
    whose patience has run out has ended, though the others go on.
    """
    score = score_of(watched, rule.mode)
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


def score_of(watched: Array, mode: Mode | None) -> Array:
    """Return the watched value on the host, negated for ``mode="max"``; NaN counts as infinity."""
    score = to_host(watched) * (1.0 if mode == "min" else -1.0)
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
