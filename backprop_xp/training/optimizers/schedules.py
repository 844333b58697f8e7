"""Learning-rate schedules: records that are called with a step, ``step -> learning rate``.

Steps are updates, counted from 0, or epochs in ``epochs``. ``learning_rate`` is a number, an array
``(*stack, 1)`` for a stack of networks, or ``(..., P)`` with a rate for each parameter. The host
evaluates it. No schedule depends on the losses: ``bx.Plateau`` does.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias

from backprop_xp.backends import array_namespace, owner
from backprop_xp.checks import integer, real, refuse_list
from backprop_xp.display.reprs import call_hash, is_same_call, repr_of
from backprop_xp.networks.chain.array_checks import check_entries
from backprop_xp.training.optimizers.hyperparameters import Hyperparameter, not_negative

# A function of the step; its rate is a number, or an array ``(*stack, 1)``.
Schedule: TypeAlias = Callable[[int], Hyperparameter]
LearningRate: TypeAlias = Hyperparameter | Schedule


class _Schedule:
    """The methods that all schedules share: each prints, compares and pickles as its call."""

    home = "schedules"
    __repr__ = repr_of
    __eq__ = is_same_call
    __hash__ = call_hash

    def _set(self, **checked: Any) -> None:
        """Store the checked arguments in the frozen record."""
        vars(self).update(checked)


@dataclass(frozen=True, eq=False, repr=False)
class constant(_Schedule):
    """The rate ``learning_rate`` at each step."""

    learning_rate: Hyperparameter

    def __post_init__(self) -> None:
        self._set(learning_rate=not_negative(self.learning_rate, "learning_rate"))

    def __call__(self, step: int) -> Hyperparameter:
        return self.learning_rate


@dataclass(frozen=True, eq=False, repr=False)
class step_decay(_Schedule):
    """``learning_rate * factor**floor(step / every)``.

    >>> import backprop_xp as bx
    >>> halving = bx.schedules.step_decay(0.8, every=10, factor=0.5)
    >>> halving(9), halving(10), halving(20)
    (0.8, 0.4, 0.2)
    """

    learning_rate: Hyperparameter
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        factor = real(self.factor, "factor", above=0.0, high=1.0)
        rate = not_negative(self.learning_rate, "learning_rate")
        self._set(learning_rate=rate, every=integer(self.every, "every"), factor=factor)

    def __call__(self, step: int) -> Hyperparameter:
        return self.learning_rate * self.factor ** (step // self.every)


@dataclass(frozen=True, eq=False, repr=False)
class exponential(_Schedule):
    """``learning_rate * factor**step``."""

    learning_rate: Hyperparameter
    factor: float

    def __post_init__(self) -> None:
        factor = real(self.factor, "factor", above=0.0, high=1.0)
        self._set(learning_rate=not_negative(self.learning_rate, "learning_rate"), factor=factor)

    def __call__(self, step: int) -> Hyperparameter:
        return self.learning_rate * self.factor**step


@dataclass(frozen=True, eq=False, repr=False)
class inverse_scaling(_Schedule):
    """``learning_rate / (step + 1)**power``, scikit-learn's "invscaling" per update."""

    learning_rate: Hyperparameter
    power: float = 0.5

    def __post_init__(self) -> None:
        power = real(self.power, "power", low=0.0)
        self._set(learning_rate=not_negative(self.learning_rate, "learning_rate"), power=power)

    def __call__(self, step: int) -> Hyperparameter:
        return self.learning_rate / (step + 1) ** self.power


@dataclass(frozen=True, eq=False, repr=False)
class cosine(_Schedule):
    """Half a cosine from ``learning_rate`` to ``final`` over ``steps``, then ``final``.

    A rate below ``final``, such as 0, stays. Loshchilov and Hutter 2017, equation 5, without
    restarts.
    """

    learning_rate: Hyperparameter
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        rate = not_negative(self.learning_rate, "learning_rate")
        steps, final = integer(self.steps, "steps"), real(self.final, "final", low=0.0)
        self._set(learning_rate=rate, steps=steps, final=final)

    def __call__(self, step: int) -> Hyperparameter:
        angle = math.pi * min(step, self.steps) / self.steps
        return _between(self.learning_rate, lowest(self.learning_rate, self.final), angle)


@dataclass(frozen=True, eq=False, repr=False)
class cosine_restarts(_Schedule):
    """Cosines from ``learning_rate`` to ``final``, the first over ``steps``.

    Each later one takes ``factor`` times as many. A rate below ``final``, such as 0, stays.
    Loshchilov and Hutter 2017, equation 5.

    >>> import backprop_xp as bx
    >>> rate = bx.schedules.cosine_restarts(0.4, steps=2, factor=2)
    >>> [round(rate(step), 2) for step in range(7)]
    [0.4, 0.2, 0.4, 0.34, 0.2, 0.06, 0.4]
    """

    learning_rate: Hyperparameter
    steps: int
    factor: int = 1
    final: float = 0.0

    def __post_init__(self) -> None:
        rate = not_negative(self.learning_rate, "learning_rate")
        steps, factor = integer(self.steps, "steps"), integer(self.factor, "factor")
        final = real(self.final, "final", low=0.0)
        self._set(learning_rate=rate, steps=steps, factor=factor, final=final)

    def __call__(self, step: int) -> Hyperparameter:
        length, step = self.steps, step % self.steps if self.factor == 1 else step
        while step >= length:
            step, length = step - length, length * self.factor
        end = lowest(self.learning_rate, self.final)
        return _between(self.learning_rate, end, math.pi * step / length)


@dataclass(frozen=True, eq=False, repr=False)
class one_cycle(_Schedule):
    """Half a cosine up to ``learning_rate``, and one down, over ``steps``.

    It rises from ``learning_rate / first`` over the share ``rise`` of the steps, and falls to
    ``learning_rate / first / last``, where it stays. Smith 2018, the 1cycle policy, in PyTorch's
    form, without a cycle of the momentum.

    >>> import backprop_xp as bx
    >>> rate = bx.schedules.one_cycle(0.5, steps=10, rise=0.4)
    >>> [round(rate(step), 3) for step in (0, 3, 9)]
    [0.02, 0.5, 0.0]
    """

    learning_rate: Hyperparameter
    steps: int
    rise: float = 0.3
    first: float = 25.0
    last: float = 1e4

    def __post_init__(self) -> None:
        rate = not_negative(self.learning_rate, "learning_rate")
        steps, rise = integer(self.steps, "steps"), real(self.rise, "rise", low=0.0, below=1.0)
        first, last = real(self.first, "first", above=0.0), real(self.last, "last", above=0.0)
        self._set(learning_rate=rate, steps=steps, rise=rise, first=first, last=last)

    def __call__(self, step: int) -> Hyperparameter:
        begin, top, end = 1.0 / self.first, self.rise * self.steps - 1.0, self.steps - 1.0
        if step < top:
            return self.learning_rate * _between(begin, 1.0, math.pi * (step / top))
        share = 1.0 if step >= end else (step - max(top, 0.0)) / (end - max(top, 0.0))
        return self.learning_rate * _between(1.0, begin / self.last, math.pi * share)


@dataclass(frozen=True, eq=False, repr=False)
class epochs(_Schedule):
    """A schedule whose steps are whole epochs of ``batches`` updates.

    ``train`` and ``fit`` fill in their number of batches; ``optimizer.update`` alone needs it.

    >>> import backprop_xp as bx
    >>> bx.SGD(bx.schedules.epochs(bx.schedules.step_decay(0.1, every=30)))
    SGD(schedules.epochs(schedules.step_decay(0.1, 30)))
    >>> bx.schedules.epochs(bx.schedules.step_decay(0.8, every=1, factor=0.5), batches=100)(250)
    0.2
    """

    schedule: Schedule
    batches: int | None = None

    def __post_init__(self) -> None:
        batches = None if self.batches is None else integer(self.batches, "batches")
        self._set(schedule=_as_schedule(self.schedule), batches=batches)

    def __call__(self, step: int) -> Hyperparameter:
        if self.batches is None:
            raise ValueError(
                "epochs(schedule) counts the epochs of fit and train. Elsewhere give it the number "
                "of updates in an epoch: epochs(schedule, batches=...)."
            )
        return self.schedule(step // self.batches)


@dataclass(frozen=True, eq=False, repr=False)
class warmup(_Schedule):
    """A linear rise over ``steps`` to a schedule's first rate, then that schedule.

    ``schedule`` may be a plain learning rate.

    >>> import backprop_xp as bx
    >>> rise = bx.schedules.warmup(0.4, steps=4)
    >>> [rise(step) for step in (0, 1, 3, 4)]
    [0.1, 0.2, 0.4, 0.4]
    """

    schedule: LearningRate
    steps: int

    def __post_init__(self) -> None:
        self._set(schedule=_as_schedule(self.schedule), steps=integer(self.steps, "steps"))

    def __call__(self, step: int) -> Hyperparameter:
        later: Any = self.schedule
        if step < self.steps:
            rate: Hyperparameter = later(0) * ((step + 1) / self.steps)
            return rate
        return later(step - self.steps)


@dataclass(frozen=True, eq=False, repr=False)
class chain(_Schedule):
    """One schedule after the other; each counts its steps from its own beginning.

    ``boundaries`` are the steps at which the second and later ones begin, in rising order.
    """

    schedules: Sequence[LearningRate]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        given, boundaries = self.schedules, self.boundaries
        starts = [integer(b, f"boundaries[{i}]") for i, b in enumerate(boundaries)]
        if len(starts) + 1 != len(given):
            raise ValueError(
                "chain needs one boundary fewer than schedules, but got "
                f"{len(boundaries)} boundaries for {len(given)} schedules."
            )
        if starts != sorted(set(starts)):
            raise ValueError(f"boundaries must rise, but are {list(boundaries)}.")
        self._set(schedules=[_as_schedule(each) for each in given], boundaries=starts)

    def __call__(self, step: int) -> Hyperparameter:
        parts: Any = self.schedules
        passed = sum(start <= step for start in self.boundaries)
        rate: Hyperparameter = parts[passed](step - self.boundaries[passed - 1] if passed else step)
        return rate


def with_batches(schedule: Any, batches: int | None) -> Any:
    """Return a schedule in which ``epochs`` without a number of batches have this one."""
    match schedule:
        case epochs():
            inner, own = with_batches(schedule.schedule, batches), schedule.batches or batches
            return replace(schedule, schedule=inner, batches=own)
        case warmup():
            return replace(schedule, schedule=with_batches(schedule.schedule, batches))
        case chain():
            parts = [with_batches(part, batches) for part in schedule.schedules]
            return replace(schedule, schedules=parts)
    return schedule


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


def lowest(rate: Any, final: float) -> Any:
    """Return the rate to which a rate falls: ``final``, or itself if it is below."""
    return min(rate, final) if type(rate) is float else array_namespace(rate).minimum(rate, final)


def _as_schedule(schedule: LearningRate) -> Schedule:
    return schedule if callable(schedule) else constant(schedule)


def _between(start: Any, end: Any, angle: float) -> Any:
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
        "step_decay",
        "warmup",
    ]
