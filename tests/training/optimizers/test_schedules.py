"""Schedules: closed forms, arrays of learning rates, pickles, and errors.

Specifies ``learning_rates``.
"""

import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.optimizers.schedules import Schedule

# A few float64 operations in another order.
ROUNDING = 1e-14

STEPS = [0, 1, 2, 3, 4, 5, 9, 10, 11, 100, 10**6]


def _half_cosine(rate: Any, step: int) -> Any:
    if step >= 10 or rate < 0.05:
        return min(rate, 0.05)
    return 0.05 + (rate - 0.05) * (1 + math.cos(math.pi * step / 10)) / 2


def _chained(rate: Any, step: int) -> Any:
    if step < 3:
        return 1.0 * rate
    return rate * 0.5 ** (step - 3) if step < 10 else 0.25 + 0.0 * rate


def _one_cycle(step: int) -> float:
    """Up over steps 0 to 3, down to step 9."""
    start, end, share = (0.1, 1.0, step / 3) if step < 3 else (1.0, 0.025, min(step - 3, 6) / 6)
    return start + (end - start) * (1.0 - math.cos(math.pi * share)) / 2.0


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
    "cosine restarts": (
        lambda rate: bx.schedules.cosine_restarts(rate, steps=10, final=0.05),
        lambda rate, step: _half_cosine(rate, step % 10),
    ),
    "one cycle": (
        lambda rate: bx.schedules.one_cycle(rate, steps=10, rise=0.4, first=10.0, last=4.0),
        lambda rate, step: rate * _one_cycle(step),
    ),
    "epochs": (
        lambda rate: bx.schedules.epochs(bx.schedules.exponential(rate, 0.97), batches=4),
        lambda rate, step: rate * 0.97 ** (step // 4),
    ),
    "epochs of a chain": (
        lambda rate: bx.schedules.chain(
            [rate, bx.schedules.epochs(bx.schedules.exponential(rate, 0.5), 2)], [3]
        ),
        lambda rate, step: 1.0 * rate if step < 3 else rate * 0.5 ** ((step - 3) // 2),
    ),
    "warmup to a rate": (
        lambda rate: bx.schedules.warmup(rate, steps=5),
        lambda rate, step: rate * min(step + 1, 5) / 5,
    ),
    "warmup to a schedule": (
        lambda rate: bx.schedules.warmup(bx.schedules.cosine(rate, steps=10, final=0.05), steps=5),
        lambda rate, step: rate * (step + 1) / 5 if step < 5 else _half_cosine(rate, step - 5),
    ),
    "chain": (
        lambda rate: bx.schedules.chain([rate, bx.schedules.exponential(rate, 0.5), 0.25], [3, 10]),
        _chained,
    ),
}
every_schedule = pytest.mark.parametrize("name", CASES)


def test_every_schedule_is_tested() -> None:
    tested = {re.split(" by | to | of ", name)[0].replace(" ", "_") for name in CASES}
    assert tested == set(dir(bx.schedules))


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


@pytest.mark.parametrize("make", [bx.schedules.cosine, bx.schedules.cosine_restarts])
def test_a_cosine_never_raises_a_rate_below_its_final_one(xp: Any, make: Any) -> None:
    rates = [0.0, 0.01, 0.05, 0.4]
    given = xp.asarray(np.array(rates))
    falling = make(given, steps=10, final=0.05)
    for step in STEPS:
        actual = xp.host(falling(step))
        assert actual[:3].tolist() == xp.host(given)[:3].tolist()
        xp.assert_close(actual[3], np.asarray(make(0.4, steps=10, final=0.05)(step)))
        assert [make(rate, steps=10, final=0.05)(step) for rate in rates[:3]] == rates[:3]


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


@pytest.mark.parametrize(
    ("kind", "options", "schedule"),
    [
        (
            "OneCycleLR",
            {"max_lr": 0.4, "total_steps": 50},
            bx.schedules.one_cycle(0.4, steps=50),
        ),
        (
            "OneCycleLR",
            {"max_lr": 0.4, "total_steps": 37, "pct_start": 0.21, "div_factor": 5.0}
            | {"final_div_factor": 7.0},
            bx.schedules.one_cycle(0.4, steps=37, rise=0.21, first=5.0, last=7.0),
        ),
        (
            "CosineAnnealingWarmRestarts",
            {"T_0": 5, "T_mult": 3, "eta_min": 0.01},
            bx.schedules.cosine_restarts(0.4, steps=5, factor=3, final=0.01),
        ),
        (
            "CosineAnnealingWarmRestarts",
            {"T_0": 7},
            bx.schedules.cosine_restarts(0.4, steps=7),
        ),
    ],
)
def test_a_schedule_is_pytorchs(
    kind: str, options: dict[str, Any], schedule: Any, torch: Any
) -> None:
    peer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = getattr(torch.optim.lr_scheduler, kind)(peer, **options)
    for step in range(options.get("total_steps", 120)):
        expected = peer.param_groups[0]["lr"]
        assert schedule(step) == pytest.approx(expected, rel=1e-12, abs=1e-15)
        peer.step()
        if step + 1 < options.get("total_steps", 120):
            scheduler.step()


@pytest.mark.parametrize("batch_size", [None, 2, 3])
@pytest.mark.parametrize(
    "form",
    [
        lambda inner, batches: bx.schedules.epochs(inner, batches),
        lambda inner, batches: bx.schedules.warmup(bx.schedules.epochs(inner, batches), 2),
        lambda inner, batches: bx.schedules.chain([0.1, bx.schedules.epochs(inner, batches)], [3]),
    ],
    ids=["alone", "warmup", "chain"],
)
def test_a_training_counts_its_epochs_also_when_it_is_resumed(
    xp: Any, form: Any, batch_size: int | None
) -> None:
    network = bx.mlp([3, 2])
    x, y = xp.put(np.arange(15.0).reshape(5, 3) / 10, np.arange(10.0).reshape(5, 2) / 10)
    batches = {None: 1, 2: 3, 3: 2}[batch_size]
    inner = bx.schedules.exponential(0.1, 0.5)

    def fit(rate: Any, **options: Any) -> bx.FitResult:
        options = {"epochs": 4, "batch_size": batch_size, "optimizer": bx.SGD(rate), **options}
        return bx.fit(network, xp.initialize(network), x, y, **options)

    whole = fit(form(inner, None))
    xp.assert_close(fit(form(inner, batches)).theta, whole.theta, 1e-12)
    longer = form(inner, batches + 2)  # than an epoch of this training
    xp.assert_close(fit(longer).theta, fit(lambda step: longer(step)).theta, 1e-12)
    begun = fit(form(inner, None), epochs=2)
    xp.assert_close(fit(form(inner, None), start=begun).theta, whole.theta, 1e-12)


def test_epochs_that_are_not_known_are_refused() -> None:
    theta = np.ones(2)
    optimizer = bx.SGD(bx.schedules.epochs(bx.schedules.constant(0.1)))
    with pytest.raises(ValueError, match=r"epochs\(schedule, batches=\.\.\.\)"):
        optimizer.update(theta, theta, optimizer.initialize(theta))
    with pytest.raises(ValueError, match="batches must be an integer of at least 1, not 0"):
        bx.schedules.epochs(bx.schedules.constant(0.1), 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bx.schedules.one_cycle(0.1, 0), "steps must be an integer of at least 1"),
        (lambda: bx.schedules.one_cycle(0.1, 9, rise=1.0), "rise must be"),
        (lambda: bx.schedules.one_cycle(0.1, 9, first=0.0), "first must be"),
        (lambda: bx.schedules.one_cycle(-0.1, 9), "learning_rate must be"),
        (lambda: bx.schedules.cosine_restarts(0.1, 9, factor=0), "factor must be an integer"),
        (lambda: bx.schedules.cosine_restarts(0.1, 9, final=-1.0), "final must be"),
    ],
)
def test_an_impossible_cycle_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_cycle_of_few_steps_ends_at_its_last_rate(steps: int) -> None:
    rate = bx.schedules.one_cycle(0.5, steps)
    assert rate(steps - 1) == rate(100) == pytest.approx(0.5 / 25e4)
    assert all(0.0 < rate(step) <= 0.5 for step in range(steps))
    assert steps == 1 or rate(0) == pytest.approx(0.5)  # without a step in which it could rise
