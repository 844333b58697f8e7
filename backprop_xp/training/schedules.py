"""Learning-rate schedules: functions ``step -> learning rate``, evaluated on the host.

Steps are updates, counted from 0. ``learning_rate`` is a number, or an array ``(*stack, 1)`` for a
stack of networks. Every schedule can be pickled. ``plateau`` alone depends on how training goes.
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
from backprop_xp.training.hyperparameters import not_negative

Schedule: TypeAlias = Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class _Schedule:
    """A rule with the arguments of the function that made it: it prints as that call."""

    maker: Callable[..., Any]
    rule: Callable[..., Any]
    arguments: tuple[Any, ...]

    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def __call__(self, step: int) -> Any:
        return self.rule(*self.arguments, step)

    @property
    def made_by(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The call that made it."""
        return self.maker, self.arguments


@dataclass(frozen=True, eq=False)
class Plateau:
    """A schedule that training slows down: each network has its own factor of ``schedule``.

    Called, it is the schedule itself.
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

    def __call__(self, step: int) -> Any:
        """Return the schedule's own rate."""
        return self.schedule(step)

    @property
    def made_by(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The call of ``plateau``."""
        return plateau, tuple(vars(self).values())


def _made(maker: Callable[..., Any], rule: Callable[..., Any], *arguments: Any) -> Schedule:
    return _Schedule(maker, rule, arguments)


def constant(learning_rate: Any) -> Schedule:
    """Return the schedule that stays at ``learning_rate``."""
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(constant, _constant, learning_rate)


def step_decay(learning_rate: Any, every: int, factor: float = 0.1) -> Schedule:
    """Return ``learning_rate * factor**floor(step / every)``.

    >>> import backprop_xp as bx
    >>> halving = bx.schedules.step_decay(0.8, every=10, factor=0.5)
    >>> halving(9), halving(10), halving(20)
    (0.8, 0.4, 0.2)
    """
    factor = real(factor, "factor", above=0.0, high=1.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(step_decay, _step_decay, learning_rate, integer(every, "every"), factor)


def exponential(learning_rate: Any, factor: float) -> Schedule:
    """Return ``learning_rate * factor**step``."""
    factor = real(factor, "factor", above=0.0, high=1.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(exponential, _exponential, learning_rate, factor)


def inverse_scaling(learning_rate: Any, power: float = 0.5) -> Schedule:
    """Return ``learning_rate / (step + 1)**power``, scikit-learn's "invscaling" per update."""
    power = real(power, "power", low=0.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(inverse_scaling, _inverse_scaling, learning_rate, power)


def cosine(learning_rate: Any, steps: int, final: float = 0.0) -> Schedule:
    """Return half a cosine from ``learning_rate`` to ``final`` over ``steps``, then ``final``.

    Loshchilov and Hutter 2017, equation 5, without restarts.
    """
    final = real(final, "final", low=0.0)
    learning_rate = not_negative(learning_rate, "learning_rate")
    return _made(cosine, _cosine, learning_rate, integer(steps, "steps"), final)


def warmup(schedule: Any, steps: int) -> Schedule:
    """Return a straight rise over ``steps`` to a schedule's start, then that schedule, from 0.

    ``schedule`` may be a plain learning rate.

    >>> import backprop_xp as bx
    >>> rise = bx.schedules.warmup(0.4, steps=4)
    >>> [rise(step) for step in (0, 1, 3, 4)]
    [0.1, 0.2, 0.4, 0.4]
    """
    return _made(warmup, _warmup, _as_schedule(schedule), integer(steps, "steps"))


def chain(schedules: Sequence[Any], boundaries: Sequence[int]) -> Schedule:
    """Return one schedule after the other; each counts its steps from where it begins.

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
    learning_rate: Any,
    factor: float = 0.1,
    patience: int = 10,
    min_delta: float = 0.0,
    final: float = 0.0,
    watch: str | None = None,
    mode: Literal["min", "max"] = "min",
) -> Schedule:
    """Return a rate that is multiplied by ``factor`` after each ``patience`` epochs without gain.

    ``learning_rate`` may be another schedule; the product stays at ``final`` or above. What is
    watched, and by ``min_delta`` and ``mode`` what counts as a gain, is as in ``bx.EarlyStopping``;
    each network of a stack is slowed down by itself. ``train`` and ``fit`` watch: an optimiser that
    is updated by hand keeps the rate.

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


def rate_at(schedule: Schedule, step: Any) -> Any:
    """Return a schedule's learning rate for an update, checked where that waits for no device."""
    value = schedule(step)
    if type(value) is float and 0.0 <= value < math.inf:
        return value  # as nearly always
    refuse_list(value, f"learning_rate({step})", "(*stack, 1)", "[[0.1], [0.01]]")
    if isinstance(value, Real) or not hasattr(value, "shape"):
        return real(value, f"learning_rate({step})", low=0.0)
    home = owner(value)
    if home is None or home.name == "numpy":
        check_entries(value, f"learning_rate({step})", low=0.0)
    return value


def _as_schedule(schedule: Any) -> Schedule:
    if isinstance(schedule, Plateau):
        raise TypeError(
            "A plateau slows down a whole training: it may hold a schedule, as in "
            "plateau(warmup(0.1, 100)), but none may hold it."
        )
    return schedule if callable(schedule) else constant(schedule)


def _constant(learning_rate: Any, step: int) -> Any:
    return learning_rate


def _step_decay(learning_rate: Any, every: int, factor: float, step: int) -> Any:
    return learning_rate * factor ** (step // every)


def _exponential(learning_rate: Any, factor: float, step: int) -> Any:
    return learning_rate * factor**step


def _inverse_scaling(learning_rate: Any, power: float, step: int) -> Any:
    return learning_rate / (step + 1) ** power


def _cosine(learning_rate: Any, steps: int, final: float, step: int) -> Any:
    share = 0.5 * (1.0 + math.cos(math.pi * min(step, steps) / steps))
    return final + (learning_rate - final) * share


def _warmup(schedule: Schedule, steps: int, step: int) -> Any:
    return schedule(0) * ((step + 1) / steps) if step < steps else schedule(step - steps)


def _chain(schedules: list[Schedule], boundaries: list[int], step: int) -> Any:
    passed = sum(boundary <= step for boundary in boundaries)
    return schedules[passed](step - boundaries[passed - 1] if passed else step)
