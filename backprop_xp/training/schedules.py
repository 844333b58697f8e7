"""Learning-rate schedules: functions ``step -> learning rate``, evaluated on the host.

Steps are updates, counted from 0, or epochs in ``epochs``. ``learning_rate`` is a number, an array
``(*stack, 1)`` for a stack of networks, or ``(..., P)`` with a rate for each parameter. Every
schedule can be pickled. Only ``plateau`` depends on the losses.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

from backprop_xp.backends import owner
from backprop_xp.checks import check_watch, integer, real, refuse_list
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.networks.inputs import check_entries
from backprop_xp.training.hyperparameters import Hyperparameter, not_negative
from backprop_xp.training.metrics import Mode

# A function of the step; its rate is a number, or an array ``(*stack, 1)``.
Schedule: TypeAlias = Callable[[int], Hyperparameter]
LearningRate: TypeAlias = Hyperparameter | Schedule


@dataclass(frozen=True, eq=False)
class _Schedule:
    """A rule, and the call that made it, which is its repr and its pickle."""

    rule: Schedule
    made_by: tuple[Callable[..., Schedule], tuple[Any, ...]]

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def __call__(self, step: int) -> Hyperparameter:
        return self.rule(step)

    def __reduce__(self) -> tuple[Callable[..., Schedule], tuple[Any, ...]]:
        return self.made_by


@dataclass(frozen=True, eq=False)
class Plateau:
    """A schedule that training lowers by one factor for each network."""

    schedule: Schedule
    factor: float
    patience: int
    min_delta: float
    final: float
    watch: str | None
    mode: Mode | None

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def __call__(self, step: int) -> Hyperparameter:
        """Return the rate without the factor."""
        return self.schedule(step)

    @property
    def made_by(self) -> tuple[Callable[..., Schedule], tuple[Any, ...]]:
        """The call of ``plateau``."""
        return plateau, tuple(vars(self).values())


def _made(rule: Schedule, maker: Callable[..., Schedule], *arguments: Any) -> Schedule:
    return _Schedule(rule, (maker, arguments))


def constant(learning_rate: Hyperparameter) -> Schedule:
    """Return a schedule that stays at ``learning_rate``."""
    rate = not_negative(learning_rate, "learning_rate")
    return _made(lambda step: rate, constant, rate)


def step_decay(learning_rate: Hyperparameter, every: int, factor: float = 0.1) -> Schedule:
    """Return ``learning_rate * factor**floor(step / every)``.

    >>> import backprop_xp as bx
    >>> halving = bx.schedules.step_decay(0.8, every=10, factor=0.5)
    >>> halving(9), halving(10), halving(20)
    (0.8, 0.4, 0.2)
    """
    factor = real(factor, "factor", above=0.0, high=1.0)
    rate, every = not_negative(learning_rate, "learning_rate"), integer(every, "every")
    return _made(lambda step: rate * factor ** (step // every), step_decay, rate, every, factor)


def exponential(learning_rate: Hyperparameter, factor: float) -> Schedule:
    """Return ``learning_rate * factor**step``."""
    factor = real(factor, "factor", above=0.0, high=1.0)
    rate = not_negative(learning_rate, "learning_rate")
    return _made(lambda step: rate * factor**step, exponential, rate, factor)


def inverse_scaling(learning_rate: Hyperparameter, power: float = 0.5) -> Schedule:
    """Return ``learning_rate / (step + 1)**power``, scikit-learn's "invscaling" per update."""
    power = real(power, "power", low=0.0)
    rate = not_negative(learning_rate, "learning_rate")
    return _made(lambda step: rate / (step + 1) ** power, inverse_scaling, rate, power)


def cosine(learning_rate: Hyperparameter, steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine from ``learning_rate`` to ``final`` over ``steps``, then ``final``.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    rate, steps = not_negative(learning_rate, "learning_rate"), integer(steps, "steps")
    final = real(final, "final", low=0.0)

    def rule(step: int) -> Hyperparameter:
        return _between(rate, final, math.pi * min(step, steps) / steps)

    return _made(rule, cosine, rate, steps, final)


def cosine_restarts(
    learning_rate: Hyperparameter, steps: int, factor: int = 1, final: float = 0.0
) -> Schedule:
    """Return cosines from ``learning_rate`` to ``final``, the first over ``steps``.

    Each later one takes ``factor`` times as many. Loshchilov and Hutter 2017, equation 5.

    >>> import backprop_xp as bx
    >>> rate = bx.schedules.cosine_restarts(0.4, steps=2, factor=2)
    >>> [round(rate(step), 2) for step in range(7)]
    [0.4, 0.2, 0.4, 0.34, 0.2, 0.06, 0.4]
    """
    rate, steps = not_negative(learning_rate, "learning_rate"), integer(steps, "steps")
    factor, final = integer(factor, "factor"), real(final, "final", low=0.0)

    def rule(step: int) -> Hyperparameter:
        length, step = steps, step % steps if factor == 1 else step
        while step >= length:
            step, length = step - length, length * factor
        return _between(rate, final, math.pi * step / length)

    return _made(rule, cosine_restarts, rate, steps, factor, final)


def one_cycle(
    learning_rate: Hyperparameter,
    steps: int,
    rise: float = 0.3,
    first: float = 25.0,
    last: float = 1e4,
) -> Schedule:
    """Return half a cosine up to ``learning_rate``, and one down, over ``steps``.

    It rises from ``learning_rate / first`` over the share ``rise`` of the steps, and falls to
    ``learning_rate / first / last``, where it stays. Smith 2018, the 1cycle policy, in PyTorch's
    form, without a cycle of the momentum.

    >>> import backprop_xp as bx
    >>> rate = bx.schedules.one_cycle(0.5, steps=10, rise=0.4)
    >>> [round(rate(step), 3) for step in (0, 3, 9)]
    [0.02, 0.5, 0.0]
    """
    rate, steps = not_negative(learning_rate, "learning_rate"), integer(steps, "steps")
    rise = real(rise, "rise", low=0.0, below=1.0)
    first, last = real(first, "first", above=0.0), real(last, "last", above=0.0)
    begin, top, end = 1.0 / first, rise * steps - 1.0, steps - 1.0

    def rule(step: int) -> Hyperparameter:
        if step < top:
            return rate * _between(begin, 1.0, math.pi * (step / top))
        share = 1.0 if step >= end else (step - max(top, 0.0)) / (end - max(top, 0.0))
        return rate * _between(1.0, begin / last, math.pi * share)

    return _made(rule, one_cycle, rate, steps, rise, first, last)


def epochs(schedule: Schedule, batches: int | None = None) -> Schedule:
    """Return a schedule whose steps are whole epochs of ``batches`` updates.

    ``train`` and ``fit`` fill in their number of batches; ``optimizer.update`` alone needs it.

    >>> import backprop_xp as bx
    >>> bx.SGD(bx.schedules.epochs(bx.schedules.step_decay(0.1, every=30)))
    SGD(schedules.epochs(schedules.step_decay(0.1, 30)))
    >>> bx.schedules.epochs(bx.schedules.step_decay(0.8, every=1, factor=0.5), batches=100)(250)
    0.2
    """
    by_epoch = _as_schedule(schedule)
    batches = None if batches is None else integer(batches, "batches")

    def rule(step: int) -> Hyperparameter:
        if batches is None:
            raise ValueError(
                "epochs(schedule) counts the epochs of fit and train. Elsewhere give it the number "
                "of updates in an epoch: epochs(schedule, batches=...)."
            )
        return by_epoch(step // batches)

    return _made(rule, epochs, by_epoch, batches)


def with_batches(schedule: Any, batches: int | None) -> Any:
    """Return a schedule in which ``epochs`` without a number of batches have this one."""
    if isinstance(schedule, list):
        return [with_batches(part, batches) for part in schedule]
    if isinstance(schedule, Plateau):
        return replace(schedule, schedule=with_batches(schedule.schedule, batches))
    if not isinstance(schedule, _Schedule):
        return schedule
    maker, (first, *others) = schedule.made_by
    if maker not in (epochs, warmup, chain):
        return schedule
    if maker is epochs:
        others = [others[0] or batches]
    return maker(with_batches(first, batches), *others)


def warmup(schedule: LearningRate, steps: int) -> Schedule:
    """Return a linear rise over ``steps`` to a schedule's first rate, then that schedule.

    ``schedule`` may be a plain learning rate.

    >>> import backprop_xp as bx
    >>> rise = bx.schedules.warmup(0.4, steps=4)
    >>> [rise(step) for step in (0, 1, 3, 4)]
    [0.1, 0.2, 0.4, 0.4]
    """
    later, steps = _as_schedule(schedule), integer(steps, "steps")
    return _made(
        lambda step: later(0) * ((step + 1) / steps) if step < steps else later(step - steps),
        *(warmup, later, steps),
    )


def chain(schedules: Sequence[LearningRate], boundaries: Sequence[int]) -> Schedule:
    """Return one schedule after the other; each counts its steps from its own beginning.

    ``boundaries`` are the steps at which the second and later ones begin, in rising order.
    """
    starts = [integer(b, f"boundaries[{i}]") for i, b in enumerate(boundaries)]
    if len(starts) + 1 != len(schedules):
        raise ValueError(
            f"chain needs one boundary fewer than schedules, but got {len(boundaries)} boundaries "
            f"for {len(schedules)} schedules."
        )
    if starts != sorted(set(starts)):
        raise ValueError(f"boundaries must rise, but are {list(boundaries)}.")
    parts = [_as_schedule(s) for s in schedules]

    def rule(step: int) -> Hyperparameter:
        passed = sum(start <= step for start in starts)
        return parts[passed](step - starts[passed - 1] if passed else step)

    return _made(rule, chain, parts, starts)


def plateau(
    learning_rate: LearningRate,
    factor: float = 0.1,
    patience: int = 10,
    min_delta: float = 0.0,
    final: float = 0.0,
    watch: str | None = None,
    mode: Mode | None = None,
) -> Schedule:
    """Return a rate that falls by ``factor`` after each ``patience`` epochs without improvement.

    ``learning_rate`` may be another schedule. The product stays at ``final`` or above. ``watch``,
    ``min_delta`` and ``mode`` are those of ``bx.EarlyStopping``. Each network of a stack
    has its own factor. ``train`` and ``fit`` lower the rate; ``optimizer.update`` alone does not.

    >>> import backprop_xp as bx
    >>> bx.SGD(bx.schedules.plateau(0.1, factor=0.5, patience=5))
    SGD(schedules.plateau(schedules.constant(0.1), 0.5, 5))
    """
    check_watch(watch, mode)
    return Plateau(
        _as_schedule(learning_rate),
        real(factor, "factor", above=0.0, below=1.0),
        integer(patience, "patience"),
        real(min_delta, "min_delta", low=0.0),
        real(final, "final", low=0.0),
        watch,
        mode,
    )


def rate_at(schedule: Schedule, step: Any) -> Hyperparameter:
    """Return the learning rate of a step, checked if that needs no transfer to the host."""
    value = schedule(step)
    if type(value) is float and 0.0 <= value < math.inf:
        return value  # the usual case
    refuse_list(value, f"learning_rate({step})", "(*stack, 1)", "[[0.1], [0.01]]")
    if isinstance(value, Real) or not hasattr(value, "shape"):
        return real(value, f"learning_rate({step})", low=0.0)
    home = owner(value)
    if home is None or home.name == "numpy":
        check_entries(value, f"learning_rate({step})", low=0.0)
    return value


def _as_schedule(schedule: LearningRate) -> Schedule:
    if isinstance(schedule, Plateau):
        raise TypeError(
            "A plateau cannot be part of another schedule. It may contain one, as in "
            "plateau(warmup(0.1, 100))."
        )
    return schedule if callable(schedule) else constant(schedule)


def _between(start: Any, end: float, angle: float) -> Any:
    """Return the rate on half a cosine that falls or rises from ``start`` to ``end``."""
    return end + (start - end) * (0.5 * (1.0 + math.cos(angle)))


def __dir__() -> list[str]:
    return [
        "chain",
        "constant",
        "cosine",
        "cosine_restarts",
        "epochs",
        "exponential",
        "inverse_scaling",
        "one_cycle",
        "plateau",
        "step_decay",
        "warmup",
    ]
