"""A rule that lowers the learning rate of each network of a stack that stays on a plateau."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from backprop_xp.backends import Array, array_namespace, to_device_of
from backprop_xp.checks import check_watch, integer, real
from backprop_xp.display.reprs import repr_of
from backprop_xp.training.measures.early_stopping import score_of
from backprop_xp.training.measures.metrics import Mode
from backprop_xp.training.optimizers.schedules import lowest


@dataclass(frozen=True)
class Plateau:
    """A rule that multiplies the learning rate by ``factor`` after epochs without improvement.

    It does so after each ``patience`` of them. The rate is the optimizer's, a number, an array or
    a schedule. The product stays at ``final`` or above; a rate below ``final`` stays. ``watch``,
    ``min_delta`` and ``mode`` are those of ``bx.EarlyStopping``.

    >>> import backprop_xp as bx
    >>> network = bx.mlp([1, 1])
    >>> x, y = bx.asarray([[0.0], [1.0]]), bx.asarray([[0.0], [2.0]])
    >>> options = {"optimizer": bx.SGD(8.0), "epochs": 4, "plateau": bx.Plateau(0.5, patience=2)}
    >>> result = bx.fit(network, network.initialize(), x, y, **options)  # the rate is too high
    >>> float(result.state.slowed.factor)
    0.5
    """

    factor: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    final: float = 0.0
    watch: str | None = None
    mode: Mode | None = None

    __repr__ = repr_of

    def __post_init__(self) -> None:
        check_watch(self.watch, self.mode)
        vars(self).update(
            factor=real(self.factor, "factor", above=0.0, below=1.0),
            patience=integer(self.patience, "patience"),
            min_delta=real(self.min_delta, "min_delta", low=0.0),
            final=real(self.final, "final", low=0.0),
        )


class Slowed(NamedTuple):
    """The reduction of each network's learning rate by a plateau: NumPy arrays ``(*stack,)``.

    ``score`` is the best watched value, as in ``Best``; ``epoch`` is the one from which patience
    counts; ``factor`` multiplies the rate. ``watch`` and ``mode`` are those of the rule.
    """

    score: Array
    epoch: Array
    factor: Array
    watch: str
    mode: str


def slowed(rule: Plateau, old: Slowed | None, watched: Array, epoch: int) -> Slowed:
    """Return how far each network's rate is lowered after one more epoch."""
    score = score_of(watched, rule.mode)
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


def lowered(rule: Plateau, slow: Slowed, rates: Sequence[Any], theta: Array) -> list[Any]:
    """Return the learning rates of some steps, lowered, on theta's device."""
    factor = slow.factor
    factor = to_device_of(theta, factor[..., None], theta.dtype) if factor.shape else float(factor)
    return [_at_least(rate * factor, lowest(rate, rule.final)) for rate in rates]


def _at_least(rate: Any, low: Any) -> Any:
    return max(rate, low) if type(rate) is float else array_namespace(rate).maximum(rate, low)
