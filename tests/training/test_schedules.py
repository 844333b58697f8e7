"""Schedules: closed forms, arrays of learning rates, pickles, and errors."""

import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.schedules import Schedule

# A few float64 operations in another order.
ROUNDING = 1e-14

STEPS = [0, 1, 2, 3, 4, 5, 9, 10, 11, 100, 10**6]


def _half_cosine(rate: Any, step: int) -> Any:
    if step >= 10:
        return 0.05 + 0.0 * rate
    return 0.05 + (rate - 0.05) * (1 + math.cos(math.pi * step / 10)) / 2


def _chained(rate: Any, step: int) -> Any:
    if step < 3:
        return 1.0 * rate
    return rate * 0.5 ** (step - 3) if step < 10 else 0.25 + 0.0 * rate


# A schedule for a learning rate, and its closed form.
CASES: dict[str, tuple[Callable[[Any], Schedule], Callable[[Any, int], Any]]] = {
    "constant": (bx.schedules.constant, lambda rate, step: rate),
    "step decay": (
        lambda rate: bx.schedules.step_decay(rate, every=4, factor=0.5),
        lambda rate, step: rate * 0.5 ** math.floor(step / 4),
    ),
    "step decay by default": (
        lambda rate: bx.schedules.step_decay(rate, every=3),
        lambda rate, step: rate * 0.1 ** math.floor(step / 3),
    ),
    "exponential": (
        lambda rate: bx.schedules.exponential(rate, 0.97),
        lambda rate, step: rate * 0.97**step,
    ),
    "inverse scaling": (
        lambda rate: bx.schedules.inverse_scaling(rate, power=0.75),
        lambda rate, step: rate / (step + 1) ** 0.75,
    ),
    "inverse scaling by default": (
        bx.schedules.inverse_scaling,
        lambda rate, step: rate / math.sqrt(step + 1),
    ),
    "cosine": (lambda rate: bx.schedules.cosine(rate, steps=10, final=0.05), _half_cosine),
    "warmup to a rate": (
        lambda rate: bx.schedules.warmup(rate, steps=5),
        lambda rate, step: rate * min(step + 1, 5) / 5,
    ),
    "warmup to a schedule": (
        lambda rate: bx.schedules.warmup(bx.schedules.cosine(rate, steps=10, final=0.05), steps=5),
        lambda rate, step: rate * (step + 1) / 5 if step < 5 else _half_cosine(rate, step - 5),
    ),
    "plateau": (lambda rate: bx.schedules.plateau(rate, final=0.1), lambda rate, step: rate),
    "plateau of a schedule": (
        lambda rate: bx.schedules.plateau(bx.schedules.exponential(rate, 0.97), patience=3),
        lambda rate, step: rate * 0.97**step,
    ),
    "chain": (
        lambda rate: bx.schedules.chain([rate, bx.schedules.exponential(rate, 0.5), 0.25], [3, 10]),
        _chained,
    ),
}
every_schedule = pytest.mark.parametrize("name", CASES)


def test_every_schedule_is_tested() -> None:
    tested = {re.split(" by | to | of ", name)[0].replace(" ", "_") for name in CASES}
    public = {
        name
        for name, value in vars(bx.schedules).items()
        if getattr(value, "__module__", "") == bx.schedules.__name__ and name[0] != "_"
    }
    assert tested == public - {"rate", "rate_at", "Schedule", "Plateau"}


@every_schedule
def test_a_schedule_equals_its_closed_form_at_a_step_of_any_type(name: str) -> None:
    make, formula = CASES[name]
    for rate in (0.4, 1):
        schedule = make(rate)
        again = pickle.loads(pickle.dumps(schedule))  # noqa: S301 -- our own bytes
        for step in STEPS:
            expected = pytest.approx(formula(float(rate), step), rel=ROUNDING, abs=ROUNDING)
            assert isinstance(schedule(step), float)
            assert schedule(step) == expected
            assert again(step) == schedule(step)


@every_schedule
def test_a_schedule_of_an_array_equals_the_schedules_of_its_entries(xp: Any, name: str) -> None:
    make, _ = CASES[name]
    rates = [0.4, 0.1, 0.0]
    schedule = make(xp.asarray(np.array(rates)[:, None]))
    for step in STEPS:
        actual = np.broadcast_to(np.asarray(xp.host(schedule(step))), (3, 1))
        expected = [[make(rate)(step)] for rate in rates]
        xp.assert_close(actual, expected, ROUNDING)


@every_schedule
def test_a_schedule_keeps_an_arrays_dtype(xp: Any, name: str) -> None:
    rates = xp.asarray(np.full((3, 1), 0.4), dtype="float32")
    # The last schedule of the chain is a plain number without a dtype.
    for step in [0, 2, 7]:
        assert CASES[name][0](rates)(step).dtype == xp.namespace.float32


@every_schedule
def test_a_schedule_does_not_change_its_array(name: str) -> None:
    rates = np.full((3, 1), 0.4)
    rates.flags.writeable = False
    schedule = CASES[name][0](rates)
    first, again = ([np.copy(schedule(step)) for step in STEPS] for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)


def test_a_chained_schedule_counts_from_where_it_begins() -> None:
    asked: list[int] = []

    def record(step: int) -> float:
        asked.append(step)
        return 0.1

    chain = bx.schedules.chain([0.5, record], [4])
    assert [chain(step) for step in (0, 3, 4, 7)] == [0.5, 0.5, 0.1, 0.1]
    assert asked == [0, 3]


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bx.schedules.constant(-0.1), ValueError, r"learning_rate must be >= 0, not -0\.1"),
    (lambda: bx.schedules.constant("fast"), TypeError, "learning_rate must be a number"),
    (lambda: bx.schedules.step_decay(0.1, every=0), ValueError, "every must be an integer"),
    (lambda: bx.schedules.step_decay(0.1, every=2.5), TypeError, r"every must .* not 2\.5"),
    (lambda: bx.schedules.step_decay(0.1, every=2, factor=0.0), ValueError, "factor must be"),
    (lambda: bx.schedules.step_decay(0.1, every=2, factor=1.5), ValueError, "factor must be"),
    (lambda: bx.schedules.exponential(0.1, 1.01), ValueError, "factor must be"),
    (lambda: bx.schedules.inverse_scaling(0.1, power=-1), ValueError, "power must be >= 0"),
    (lambda: bx.schedules.cosine(0.1, steps=0), ValueError, "steps must be an integer"),
    (lambda: bx.schedules.cosine(0.1, steps=5, final=-1), ValueError, "final must be >= 0"),
    (lambda: bx.schedules.plateau(-0.1), ValueError, "learning_rate must be >= 0"),
    (lambda: bx.schedules.plateau(0.1, factor=1.0), ValueError, "factor must be .* < 1"),
    (lambda: bx.schedules.plateau(0.1, patience=0), ValueError, "patience must be an integer"),
    (lambda: bx.schedules.plateau(0.1, min_delta=-1), ValueError, "min_delta must be >= 0"),
    (lambda: bx.schedules.plateau(0.1, mode="most"), ValueError, 'mode must be "min" or "max"'),
    (lambda: bx.schedules.plateau(0.1, watch=print), TypeError, "watch must be the name"),
    (
        lambda: bx.schedules.warmup(bx.schedules.plateau(0.1), 5),
        TypeError,
        "cannot be part",
    ),
    (lambda: bx.schedules.warmup(0.1, steps=0), ValueError, "steps must be an integer"),
    (lambda: bx.schedules.warmup(-0.1, steps=2), ValueError, "learning_rate must be >= 0"),
    (lambda: bx.schedules.chain([0.1, 0.2], []), ValueError, "one boundary fewer"),
    (lambda: bx.schedules.chain([], []), ValueError, "chain needs"),
    (lambda: bx.schedules.chain([0.1, 0.2, 0.3], [5, 5]), ValueError, "boundaries must rise"),
    (lambda: bx.schedules.chain([0.1, 0.2], [0]), ValueError, r"boundaries\[0\] must be"),
    (lambda: bx.schedules.chain([0.1, 0.2], [2.5]), TypeError, r"boundaries\[0\] must be"),
]


@pytest.mark.parametrize(("make", "error", "message"), REFUSED)
def test_an_impossible_schedule_is_an_error_that_names_it(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


@every_schedule
@pytest.mark.parametrize("wrong", [-0.1, math.nan])
def test_an_array_of_rates_has_the_bounds_of_a_number(xp: Any, name: str, wrong: float) -> None:
    rates = xp.asarray([[0.4], [wrong], [0.1]])
    with pytest.raises(ValueError, match=rf"learning_rate\[1, 0\] must be .*>= 0, not {wrong:g}\."):
        CASES[name][0](rates)
