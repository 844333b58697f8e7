"""Learning-rate schedules: functions ``step -> learning rate``, evaluated on the host.

Steps are updates, counted from 0. ``learning_rate`` is a number, or an array ``(*stack, 1)`` for a
stack of networks. Every schedule can be pickled. Only ``plateau`` depends on the losses.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, TypeAlias

from backprop_xp.backends import owner
from backprop_xp.checks import check_watch, integer, real, refuse_list
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.networks.inputs import check_entries
from backprop_xp.training.hyperparameters import Hyperparameter, not_negative

# A function of the step; its rate is a number, or an array ``(*stack, 1)``.
Schedule: TypeAlias = Callable[[int], Hyperparameter]
LearningRate: TypeAlias = Hyperparameter | Schedule


@dataclass(frozen=True, eq=False)
class _Schedule:
    """A rule with its arguments. Its repr is the call that made it."""

    maker: Callable[..., Schedule]
    rule: Callable[..., Hyperparameter]
    arguments: tuple[Any, ...]

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def __call__(self, step: int) -> Hyperparameter:
        return self.rule(*self.arguments, step)

    @property
    def made_by(self) -> tuple[Callable[..., Schedule], tuple[Any, ...]]:
        """The call that made it."""
        return self.maker, self.arguments


@dataclass(frozen=True, eq=False)
class Plateau:
    """A schedule that training lowers by one factor for each network.

    Called with a step, it returns the rate of ``schedule``, without the factor.
    """

    schedule: Schedule
    factor: float
    patience: int
    min_delta: float
    final: float
    watch: str | None
    mode: Literal["min", "max"]

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


def _made(
    maker: Callable[..., Schedule], rule: Callable[..., Hyperparameter], *arguments: Any
) -> Schedule:
    return _Schedule(maker, rule, arguments)


def constant(learning_rate: Hyperparameter) -> Schedule:
    """Return a schedule that stays at ``learning_rate``."""
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(constant, _constant, learning_rate)


def step_decay(learning_rate: Hyperparameter, every: int, factor: float = 0.1) -> Schedule:
    """Return ``learning_rate * factor**floor(step / every)``.

    >>> import backprop_xp as bx
    >>> halving = bx.schedules.step_decay(0.8, every=10, factor=0.5)
    >>> halving(9), halving(10), halving(20)
    (0.8, 0.4, 0.2)
    """
    factor = real(factor, "factor", above=0.0, high=1.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(step_decay, _step_decay, learning_rate, integer(every, "every"), factor)


def exponential(learning_rate: Hyperparameter, factor: float) -> Schedule:
    """Return ``learning_rate * factor**step``."""
    factor = real(factor, "factor", above=0.0, high=1.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(exponential, _exponential, learning_rate, factor)


def inverse_scaling(learning_rate: Hyperparameter, power: float = 0.5) -> Schedule:
    """Return ``learning_rate / (step + 1)**power``, scikit-learn's "invscaling" per update."""
    power = real(power, "power", low=0.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(inverse_scaling, _inverse_scaling, learning_rate, power)


def cosine(learning_rate: Hyperparameter, steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine from ``learning_rate`` to ``final`` over ``steps``, then ``final``.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    final = real(final, "final", low=0.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(cosine, _cosine, learning_rate, integer(steps, "steps"), final)


def warmup(schedule: LearningRate, steps: int) -> Schedule:
    """Return a linear rise over ``steps`` to a schedule's first rate, then that schedule.

    ``schedule`` may be a plain learning rate.

    >>> import backprop_xp as bx
    >>> rise = bx.schedules.warmup(0.4, steps=4)
    >>> [rise(step) for step in (0, 1, 3, 4)]
    [0.1, 0.2, 0.4, 0.4]
    """
    return _made(warmup, _warmup, _as_schedule(schedule), integer(steps, "steps"))


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
    return _made(chain, _chain, [_as_schedule(s) for s in schedules], starts)


def plateau(
    learning_rate: LearningRate,
    factor: float = 0.1,
    patience: int = 10,
    min_delta: float = 0.0,
    final: float = 0.0,
    watch: str | None = None,
    mode: Literal["min", "max"] = "min",
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


def _constant(learning_rate: Hyperparameter, step: int) -> Hyperparameter:
    return learning_rate


def _step_decay(
    learning_rate: Hyperparameter, every: int, factor: float, step: int
) -> Hyperparameter:
    return learning_rate * factor ** (step // every)


def _exponential(learning_rate: Hyperparameter, factor: float, step: int) -> Hyperparameter:
    return learning_rate * factor**step


def _inverse_scaling(learning_rate: Hyperparameter, power: float, step: int) -> Hyperparameter:
    return learning_rate / (step + 1) ** power


def _cosine(learning_rate: Hyperparameter, steps: int, final: float, step: int) -> Hyperparameter:
    share = 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))
    return final + (learning_rate - final) * share


def _warmup(schedule: Schedule, steps: int, step: int) -> Hyperparameter:
    return schedule(0) * ((step + 1) / steps) if step < steps else schedule(step - steps)


def _chain(schedules: list[Schedule], boundaries: list[int], step: int) -> Hyperparameter:
    passed = sum(boundary <= step for boundary in boundaries)
    return schedules[passed](step - boundaries[passed - 1] if passed else step)
