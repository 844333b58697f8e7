"""Batches that the caller gives, and the hook on each, against rows in memory."""

import contextlib
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace, to_host
from backprop_xp.training.interfaces.interrupt import Interrupt
from backprop_xp.training.rows.sources import read_ahead
from tests.helpers import HANGING, long
from tests.user_layers import PassThrough

SAME = 1e-12  # a compiled loop and single steps round in other ways
ROWS, BATCH = 11, 4  # three updates an epoch, the last of three rows

generator = np.random.default_rng(61)
X, LABELS = generator.normal(size=(ROWS, 3)), generator.integers(0, 3, ROWS)
WEIGHT = generator.uniform(0.5, 2.0, ROWS)
WEIGHT[5] = 0.0
GOOD = (X[:4], LABELS[:4])
CUTS = [slice(start, start + BATCH) for start in range(0, ROWS, BATCH)]
NETWORK = bx.mlp([3, 4, 3], hidden="tanh", dropout=0.2, loss="categorical_cross_entropy", l2=0.1)


def _given(epoch: int = 0, weighted: bool = True) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield NumPy's batches, float32 values of which are given as such."""
    for cut in CUTS:
        yield (X[cut], LABELS[cut], WEIGHT[cut]) if weighted else (X[cut], LABELS[cut])


def _in_memory(xp: Any, weighted: bool = True) -> dict[str, Any]:
    return {
        "x": xp.asarray(X),
        "y": xp.asarray(LABELS, dtype=None),
        "sample_weight": xp.asarray(WEIGHT) if weighted else None,
        "batch_size": BATCH,
        "shuffle": False,
    }


def _options(xp: Any, **options: Any) -> dict[str, Any]:
    validation = xp.asarray(X[:4]), xp.asarray(LABELS[:4], dtype=None)
    common: dict[str, Any] = {"optimizer": bx.Adam(0.05), "epochs": 3, "clip": 1.0, "seed": 2}
    return {**common, "validation": validation, **options}


def _assert_same(xp: Any, one: Any, other: Any) -> None:
    xp.assert_close(one.theta, other.theta, SAME)
    assert one.history.keys() == other.history.keys()
    for name, values in one.history.items():
        if not name.startswith("gradient"):  # rounding alone
            xp.assert_close(values, other.history[name], SAME)
    assert one.state.step == other.state.step


# ---- batches that are given


@pytest.mark.parametrize(
    ("kind", "stack", "weighted"),
    [
        ("a function of the epoch", (2,), True),
        long("a list", (), False),
        long("lists", (), True),
        long("of the library", (), True),
    ],
)
def test_batches_that_are_given_train_as_the_rows_in_memory(
    xp: Any, kind: str, stack: Any, weighted: bool
) -> None:
    theta, options = xp.initialize(NETWORK, stack=stack), _options(xp)
    options |= {"metrics": {"accuracy": bx.metrics.accuracy}, "check_every": 4}
    options["early_stopping"] = bx.EarlyStopping(9)
    own = [
        [xp.asarray(a, dtype="working" if a.dtype.kind == "f" else None) for a in batch]
        for batch in _given(0, weighted)
    ]
    given: Any = {
        "a function of the epoch": lambda epoch: _given(epoch, weighted),
        "a list": list(_given(0, weighted)),
        "lists": [[part.tolist() for part in batch] for batch in _given(0, weighted)],
        "of the library": own,
    }[kind]
    found = bx.fit(NETWORK, theta, given, **options)
    _assert_same(xp, found, bx.fit(NETWORK, theta, **_in_memory(xp, weighted), **options))


def test_rules_watch_the_loss_of_batches_without_a_validation_set(xp: Any) -> None:
    theta, options = xp.initialize(NETWORK), _options(xp, validation=None, epochs=6)
    options |= {"optimizer": bx.SGD(8.0), "plateau": bx.Plateau(patience=1, watch="loss")}
    options["early_stopping"] = bx.EarlyStopping(9, watch="loss")
    result: Any = bx.fit(NETWORK, theta, _given, **options)
    assert [*result.history] == ["loss"]
    assert result.state.best.score == np.min(result.history["loss"])
    assert result.state.slowed.factor < 1.0


def test_the_function_is_given_each_epoch_and_an_iterator_one(xp: Any) -> None:
    asked: list[int] = []

    def given(epoch: int) -> Any:
        asked.append(epoch)
        return _given()

    theta, options = xp.initialize(NETWORK), _options(xp, epochs=2)
    states = [*bx.train(NETWORK, theta, given, **options)]
    assert asked == [0, 1]
    assert len(states) == 2
    once = bx.fit(NETWORK, theta, _given(), **{**options, "epochs": 1})
    _assert_same(xp, once, bx.fit(NETWORK, theta, given, **{**options, "epochs": 1}))


def test_each_network_may_have_its_own_rows_in_a_batch(xp: Any) -> None:
    theta, options = xp.initialize(NETWORK, stack=2), _options(xp)
    x = np.stack([X, X[::-1]])
    y = np.eye(3)[np.stack([LABELS, LABELS[::-1]])]
    found = bx.fit(NETWORK, theta, [(x[:, c], y[:, c]) for c in CUTS], **options)
    memory = _in_memory(xp, weighted=False) | {"x": xp.asarray(x), "y": xp.asarray(y)}
    _assert_same(xp, found, bx.fit(NETWORK, theta, **memory, **options))


def test_values_of_another_precision_are_cast_to_thetas(xp: Any) -> None:
    narrow, x = xp.initialize(NETWORK, dtype="float32"), xp.asarray(X[:4], dtype="float32")
    options = {"optimizer": bx.SGD(0.1), "epochs": 1}
    found = bx.fit(NETWORK, narrow, [GOOD], **options).theta
    expected = bx.fit(NETWORK, narrow, x, xp.asarray(LABELS[:4], dtype=None), **options).theta
    np.testing.assert_allclose(xp.host(found), xp.host(expected), rtol=1e-5, atol=1e-6)
    given = [(x.astype(np.float32), y.astype(np.uint8)) for x, y in _given(0, weighted=False)]
    theta = xp.initialize(NETWORK)
    found = bx.fit(NETWORK, theta, given, **_options(xp))
    assert found.theta.dtype == theta.dtype
    rounded = {**_in_memory(xp, weighted=False), "x": xp.asarray(X.astype(np.float32))}
    _assert_same(xp, found, bx.fit(NETWORK, theta, **rounded, **_options(xp)))


def test_the_next_batch_is_made_in_a_thread_that_keeps_the_choice_of_a_backend(xp: Any) -> None:
    threads, chosen = set(), set()

    def given(epoch: int) -> Iterator[Any]:
        for batch in _given(epoch):
            threads.add(threading.current_thread())
            chosen.add(bx.resolve().source)
            yield batch

    with bx.use_backend("numpy"):
        bx.fit(NETWORK, xp.initialize(NETWORK), given, **_options(xp))
    assert threading.main_thread() not in threads
    assert all("use_backend" in source for source in chosen)
    assert not any(thread.is_alive() for thread in threads)


THIRDS = [slice(0, 3), slice(3, 6), slice(6, 9)]


class Refilled:
    """A source with one array each for x and y, which it refills for every batch.

    ``rate`` is a schedule: with a thread, a step begins when the next batch is in the arrays.
    """

    def __init__(self, own: Any, ahead: bool) -> None:
        self.x, self.y, self.ahead = own(np.empty((3, 3))), own(np.empty((3, 3))), ahead
        self.made = [threading.Event() for _ in range(7)]

    def __call__(self, epoch: int) -> Iterator[Any]:
        for i, cut in enumerate([*THIRDS, slice(0, 3)], 3 * epoch):
            for row, (values, label) in enumerate(zip(X[cut], LABELS[cut], strict=True)):
                for column in range(3):
                    self.x[row, column] = float(values[column])
                    self.y[row, column] = float(label == column)
            self.made[i].set()
            if i < 3 * epoch + 3:
                yield self.x, self.y

    def rate(self, step: int) -> float:
        assert not self.ahead or self.made[step + 1].wait(timeout=HANGING)
        return 0.05


def _as_it_is_weighted(x: Any, y: Any, weight: Any, seed: int) -> Any:
    return x, y, weight


def _as_it_is(x: Any, y: Any, weight: Any, seed: int) -> Any:
    return x, y


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("hook", [None, _as_it_is])
def test_a_source_may_refill_its_own_arrays(xp: Any, ahead: bool, hook: Any) -> None:
    theta, options = xp.initialize(NETWORK), _options(xp, epochs=2, augment=hook, read_ahead=ahead)
    kept = [(X[cut], np.eye(3)[LABELS[cut]]) for cut in THIRDS]
    expected = bx.fit(NETWORK, theta, kept, **options)
    for own in (np.asarray, xp.asarray) if xp.name != "jax" else (np.asarray,):
        source = Refilled(own, ahead)
        found = bx.fit(NETWORK, theta, source, **{**options, "optimizer": bx.Adam(source.rate)})
        _assert_same(xp, found, expected)


def test_a_hook_may_refill_its_own_array_during_a_step(xp: Any) -> None:
    if xp.name == "jax":
        pytest.skip("JAX's arrays cannot be written")
    made = [threading.Event() for _ in CUTS]
    kept = xp.asarray(np.empty((BATCH, 3)))

    def refilling(x: Any, y: Any, weight: Any, seed: int) -> Any:
        kept[...] = 2.0 * x
        next(event for event in made if not event.is_set()).set()
        return kept, y, weight

    def rate(step: int) -> float:
        assert made[min(step + 1, len(CUTS) - 1)].wait(timeout=HANGING)
        return 0.05

    rows = [(X[cut], LABELS[cut]) for cut in (CUTS[0], CUTS[1], CUTS[0])]
    doubled = [(2.0 * x, y) for x, y in rows]
    theta, options = xp.initialize(NETWORK), _options(xp, epochs=1)
    expected = bx.fit(NETWORK, theta, doubled, **options)
    options["optimizer"] = bx.Adam(rate)
    _assert_same(xp, bx.fit(NETWORK, theta, rows, augment=refilling, **options), expected)


def test_without_reading_ahead_batches_are_made_in_the_callers_thread(xp: Any) -> None:
    """A connection of sqlite3 is bound to the thread that made it."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table samples (a, b, c, label, part)")
        parts = [i // BATCH for i in range(ROWS)]
        rows = [(*x, int(label), part) for x, label, part in zip(X, LABELS, parts, strict=True)]
        connection.executemany("insert into samples values (?, ?, ?, ?, ?)", rows)

        def given(epoch: int) -> Iterator[Any]:
            for part in range(len(CUTS)):
                found = connection.execute("select * from samples where part = ?", (part,))
                *x, labels, _ = np.asarray(found.fetchall()).T
                yield np.stack(x, axis=1), labels.astype(int)

        theta, options = xp.initialize(NETWORK), _options(xp)
        found = bx.fit(NETWORK, theta, given, read_ahead=False, **options)
        with pytest.raises(sqlite3.ProgrammingError, match="thread"):
            bx.fit(NETWORK, theta, given, **options)
    _assert_same(xp, found, bx.fit(NETWORK, theta, **_in_memory(xp, weighted=False), **options))


def test_the_thread_that_makes_the_batches_closes_their_generator(xp: Any) -> None:
    threads: list[threading.Thread] = []

    def given(epoch: int) -> Iterator[Any]:
        try:
            threads.append(threading.current_thread())
            yield from _given()
        finally:
            threads.append(threading.current_thread())

    def failing(step: int) -> float:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        bx.fit(NETWORK, xp.initialize(NETWORK), given, **_options(xp, optimizer=bx.Adam(failing)))
    threads[0].join(timeout=HANGING)
    assert threads == threads[:1] * 2
    assert threads[0] is not threading.main_thread()


def _is_waiting(thread: threading.Thread) -> bool:
    """Whether a thread waits for another one."""
    frame, functions = sys._current_frames()[thread.ident or 0], set()
    while frame is not None:
        functions.add(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return "wait" in functions


@pytest.mark.timed
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="a thread cannot send signals")
@pytest.mark.parametrize("ahead", [True, False])
def test_ctrl_c_reaches_a_source_that_waits(xp: Any, ahead: bool) -> None:
    main, released, threads = threading.main_thread(), threading.Event(), []

    def waiting(epoch: int) -> Iterator[Any]:
        for i, batch in enumerate(_given()):
            if (epoch, i) == (1, 2):
                threads.append(threading.current_thread())
                while ahead and not _is_waiting(main):
                    time.sleep(1e-3)
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
                released.wait(timeout=HANGING)
            yield batch

    theta, options = xp.initialize(NETWORK), _options(xp, read_ahead=ahead)
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(NETWORK, theta, waiting, **options)
    assert not released.is_set()
    assert (caught.value.state.epoch, caught.value.state.step) == (1, 5)
    resumed = bx.fit(NETWORK, theta, _given, start=caught.value.state, **options)
    _assert_same(xp, resumed, bx.fit(NETWORK, theta, _given, **options))
    released.set()
    if ahead:
        threads[0].join(timeout=HANGING)
        assert not threads[0].is_alive()


def test_a_rank_that_received_ctrl_c_makes_no_other_batch() -> None:
    told, made = list[bool](), list[int]()
    with Interrupt() as interrupt:
        interrupt.tell_by(lambda: told.append(True))
        items = interrupt.waiting_for(made.append(i) or i for i in range(3))
        assert next(items) == 0
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            next(items)
    assert (told, made) == ([True], [0])


@pytest.mark.timed
def test_the_next_item_is_made_while_one_is_used(xp: Any) -> None:
    made = [threading.Event(), threading.Event()]
    items = read_ahead((event.set() for event in made), xp.selection.backend, xp.selection.device)
    next(items)
    assert made[1].wait(timeout=HANGING)
    items.close()


@pytest.mark.parametrize("hook", [False, True])
def test_a_training_goes_on_after_an_epoch_and_in_the_middle_of_one(xp: Any, hook: bool) -> None:
    def given(epoch: int) -> Iterator[Any]:
        order = np.random.default_rng(epoch).permutation(ROWS)
        for cut in CUTS:
            yield X[order[cut]], LABELS[order[cut]], WEIGHT[order[cut]]

    def pressing(step: int) -> float:
        if step == 4:
            signal.raise_signal(signal.SIGINT)
        return 0.05

    theta = xp.initialize(NETWORK, stack=2)
    options = _options(xp, augment=_noisy if hook else None)
    whole = bx.fit(NETWORK, theta, given, **options)
    begun = bx.fit(NETWORK, theta, given, **{**options, "epochs": 1})
    _assert_same(xp, bx.fit(NETWORK, theta, given, start=begun, **options), whole)
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(NETWORK, theta, given, **{**options, "optimizer": bx.Adam(pressing)})
    assert (caught.value.state.epoch, caught.value.state.step) == (1, 5)
    _assert_same(xp, bx.fit(NETWORK, theta, given, start=caught.value.state, **options), whole)


def test_an_interrupt_after_an_epochs_last_batch_leaves_nothing_to_do_in_it(xp: Any) -> None:
    def pressing(step: int) -> float:
        if step == 5:
            signal.raise_signal(signal.SIGINT)
        return 0.05

    theta, options = xp.initialize(NETWORK), _options(xp)
    with pytest.raises(KeyboardInterrupt) as caught:
        bx.fit(NETWORK, theta, _given, **{**options, "optimizer": bx.Adam(pressing)})
    assert caught.value.state.step == 6
    resumed = bx.fit(NETWORK, theta, _given, start=caught.value.state, **options)
    _assert_same(xp, resumed, bx.fit(NETWORK, theta, _given, **options))


def test_an_error_of_the_callers_own_leaves_the_state_before_it(xp: Any) -> None:
    def given(epoch: int) -> Iterator[Any]:
        for i, batch in enumerate(_given(epoch)):
            if (epoch, i) == (1, 2):
                raise OSError("the disk is gone")
            yield batch

    theta, options = xp.initialize(NETWORK), _options(xp)
    with pytest.raises(OSError, match="the disk is gone") as caught:
        bx.fit(NETWORK, theta, given, **options)
    state = caught.value.state  # type: ignore[attr-defined]
    assert (state.epoch, state.step) == (1, 5)
    resumed = bx.fit(NETWORK, theta, _given, start=state, **options)
    _assert_same(xp, resumed, bx.fit(NETWORK, theta, _given, **options))


class Failing(PassThrough):
    """A layer that fails."""

    def forward(self, parameters: Any, x: Any, rng: Any) -> tuple[Any, Any]:
        raise RuntimeError("no")


def test_an_error_in_a_step_leaves_no_thread_behind(xp: Any) -> None:
    threads = set()

    def given(epoch: int) -> Iterator[Any]:
        for batch in _given(epoch):
            threads.add(threading.current_thread())
            yield batch

    network = bx.Network([bx.Dense(3, 3), Failing(), bx.Dense(3, 3)], "categorical_cross_entropy")
    with pytest.raises(RuntimeError, match="no") as caught:
        bx.fit(network, xp.initialize(network), given, optimizer=bx.SGD(0.1), epochs=1)
    assert caught.value.__traceback__ is not None  # it still holds the frames of the training
    for thread in threads:
        thread.join(timeout=HANGING)
    assert [thread.is_alive() for thread in threads] == [False]


BAD: list[tuple[Any, Any, str]] = [
    ((X[:4, :2], LABELS[:4]), ValueError, "x has 2 features .* expects 3"),
    ((X[:4], LABELS[:3]), ValueError, r"y has shape \(3,\)"),
    ((X[:4], [0, 1, 2, 3]), ValueError, r"y has 1 value.* not in 0 \.\.\. 2"),
    ((X[:4] * np.nan, LABELS[:4]), ValueError, "x has 12 values that are not finite"),
    ((X[:4], LABELS[:4], WEIGHT[:3]), ValueError, r"sample_weight has shape \(3,\)"),
    ((X[:4], LABELS[:4], -WEIGHT[:4]), ValueError, "sample_weight must not be negative"),
    ((X[:0], LABELS[:0]), ValueError, "x has no rows"),
    ((np.asarray([["a"] * 3]), LABELS[:1]), TypeError, "x"),
    ((X[:4] * 1j, LABELS[:4]), TypeError, "x is complex"),
    ((X[:4],), ValueError, r"must be \(x, y\) or \(x, y, sample_weight\), not 1 items"),
    (X[:4], TypeError, r"must be \(x, y\) or \(x, y, sample_weight\)"),
]


@pytest.mark.parametrize(("bad", "error", "message"), BAD)
def test_a_batch_that_does_not_fit_is_refused_by_its_number(
    xp: Any, bad: Any, error: Any, message: str
) -> None:
    theta = xp.initialize(NETWORK)
    for batches, at in (([bad], "batch 0 of epoch 0"), ([GOOD, bad], "batch 1 of epoch 0")):
        with pytest.raises(error, match=f"(?s){at}.*{message}"):
            bx.fit(NETWORK, theta, batches, **_options(xp))
    with pytest.raises(error, match=f"(?s)batch 0 of epoch 1.*{message}"):
        bx.fit(NETWORK, theta, lambda epoch: [bad if epoch else GOOD], **_options(xp))


REFUSED: list[tuple[Any, dict[str, Any], Any, str]] = [
    (lambda epoch: [], {}, ValueError, "x gave no batches in epoch 0"),
    (lambda epoch: [] if epoch else [GOOD], {}, ValueError, "x gave no batches in epoch 1"),
    (lambda epoch: None, {}, TypeError, r"x\(0\) returned None, but batches"),
    (X, {}, TypeError, "y is missing: the arguments are network, theta, x, y"),
    (None, {}, TypeError, "y is missing: the arguments are network, theta, x, y"),
    (_given, {"batch_size": 4}, ValueError, "batch_size is for rows in memory"),
    (_given, {"sample_weight": WEIGHT}, ValueError, "sample_weight is for rows in memory"),
    (_given, {"class_weight": "balanced"}, ValueError, "class_weight is for rows in memory"),
    (_given, {"validation": 0.2}, ValueError, "A share for validation is for rows in memory"),
    (_given, {"train_metrics": True}, ValueError, "train_metrics is for rows in memory"),
    (_given, {"average": bx.SWA(1)}, ValueError, "SWA, .* is for rows in memory.*bx.EMA"),
    (
        _given,
        {"early_stopping": bx.EarlyStopping(watch="training_loss")},
        ValueError,
        "A watch of the training set is for rows in memory",
    ),
    (
        lambda epoch: [GOOD],
        {"optimizer": bx.SGD(bx.schedules.epochs(bx.schedules.exponential(0.1, 0.9)))},
        ValueError,
        r"epochs\(schedule, batches=\.\.\.\)",
    ),
    (_given, {"validation": None, "metrics": {"a": len}}, ValueError, "need validation="),
    (iter([GOOD]), {}, TypeError, r"x is an iterator \(list_iterator\), .* but epochs=3.*Give a"),
    (_given, {"y": LABELS}, TypeError, "x is a function, which gives batches .*: omit y"),
    (_given, {"augment": 0.1}, TypeError, r"augment must be a function \(x, y, .* not 0\.1"),
]


@pytest.mark.parametrize(("given", "options", "error", "message"), REFUSED)
def test_batches_that_cannot_be_trained_on_are_refused(
    xp: Any, given: Any, options: dict[str, Any], error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.fit(NETWORK, xp.initialize(NETWORK), given, **_options(xp, **options))


def test_only_a_function_of_the_epoch_is_taken_up(xp: Any) -> None:
    theta, options = xp.initialize(NETWORK), _options(xp)
    begun = bx.fit(NETWORK, theta, [GOOD], **{**options, "epochs": 1})
    for given in ([GOOD], iter([GOOD])):
        with pytest.raises(TypeError, match=r"start resumes .* Give a function of the epoch"):
            bx.fit(NETWORK, theta, given, start=begun, **options)


# ---- the hook on each batch


def _noisy(x: Any, y: Any, weight: Any, seed: int) -> tuple[Any, Any, Any]:
    """Add noise to x, drawn on the host, and mix the targets with the batch's mean."""
    noise = bx.asarray(
        np.random.default_rng(seed).normal(size=x.shape),
        backend=bx.resolve(x).backend,
        device=bx.resolve(x).device,
        dtype=x.dtype,
    )
    return x + 0.1 * noise, 0.9 * y + 0.1 * array_namespace(y).flip(y, axis=-2), weight


@pytest.mark.parametrize("batch_size", [BATCH, None])
def test_the_hook_is_given_each_batch_in_memory_and_a_seed_of_its_own(
    xp: Any, batch_size: int | None
) -> None:
    """Against batches that are made so beforehand, with the seeds that were seen."""
    seen: list[Any] = []

    def hook(x: Any, y: Any, weight: Any, seed: int) -> Any:
        seen.append((to_host(x), to_host(y), to_host(weight), seed))
        return _noisy(x, y, weight, seed)

    theta = xp.initialize(NETWORK, stack=2)
    memory = {**_in_memory(xp), "batch_size": batch_size, "shuffle": True}
    found = bx.fit(NETWORK, theta, **memory, augment=hook, **_options(xp))
    seeds = [seed for *_, seed in seen]
    count = 3 if batch_size else 1
    assert len(seeds) == len(set(seeds)) == 3 * count
    assert all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds)
    given = [_noisy(*batch) for batch in seen]
    expected = bx.fit(
        NETWORK, theta, lambda epoch: given[count * epoch : count * (epoch + 1)], **_options(xp)
    )
    _assert_same(xp, found, expected)
    again = bx.fit(NETWORK, theta, **memory, augment=hook, **_options(xp, seed=3))
    assert not set(seeds) & {seed for *_, seed in seen[3 * count :]}
    assert np.abs(xp.host(again.theta) - xp.host(found.theta)).max() > 1e-3


def test_each_network_with_a_seed_has_the_hook_that_it_has_alone(xp: Any) -> None:
    theta, options = xp.initialize(NETWORK, stack=2), _options(xp, augment=_noisy)
    memory = {**_in_memory(xp), "shuffle": True}
    together = bx.fit(NETWORK, theta, **memory, **{**options, "seed": (4, 5)})
    for i, seed in enumerate((4, 5)):
        alone = bx.fit(NETWORK, theta[i, ...], **memory, **{**options, "seed": seed})
        xp.assert_close(together.theta[i, ...], alone.theta, SAME)
        xp.assert_close(together.history["loss"][:, i], alone.history["loss"], SAME)


def test_the_hook_in_memory_goes_on_in_the_middle_of_an_epoch(xp: Any) -> None:
    def hook(x: Any, y: Any, weight: Any, seed: int) -> Any:
        calls.append(seed)
        if len(calls) == fails_at:
            raise RuntimeError("no")
        return _noisy(x, y, weight, seed)

    theta, options = xp.initialize(NETWORK), _options(xp, augment=hook)
    memory = {**_in_memory(xp), "shuffle": True}
    calls: list[int] = []
    fails_at = 0
    whole = bx.fit(NETWORK, theta, **memory, **options)
    calls, fails_at = [], 6
    with pytest.raises(RuntimeError, match="no") as caught:
        bx.fit(NETWORK, theta, **memory, **options)
    assert caught.value.__notes__ == ["In augment, for batch 2 of epoch 1."]
    state = caught.value.state  # type: ignore[attr-defined]
    assert state.step == 5
    fails_at = 0
    _assert_same(xp, bx.fit(NETWORK, theta, **memory, start=state, **options), whole)


def test_what_the_hook_returns_is_checked_by_its_batch(xp: Any) -> None:
    theta, options = xp.initialize(NETWORK), _options(xp)
    cases: list[tuple[Any, Any, str]] = [
        (lambda x, y, w, s: (x[:, :2], y), ValueError, "batch 0 of epoch 0: x has 2 features"),
        (lambda x, y, w, s: (x[:2, :], y), ValueError, "batch 0 of epoch 0: y has shape"),
        (lambda x, y, w, s: (x, [7] * BATCH), ValueError, r"epoch 0: y has 4 values .* not in 0"),
        (lambda x, y, w, s: (x, -y), ValueError, r"epoch 0: y has 4 values .* not in \[0, inf\]"),
        (lambda x, y, w, s: (x * np.inf, y), ValueError, "epoch 0: x has 12 values .* not finite"),
        (lambda x, y, w, s: (x, y, -w - 1.0), ValueError, "epoch 0: sample_weight must not be neg"),
        (lambda x, y, w, s: x, TypeError, r"the batch that it returns must be \(x, y\) or"),
        (lambda x, y, w, s: (x,), ValueError, r"the batch that it returns must be \(x, y\) or"),
    ]
    for hook, error, message in cases:
        with pytest.raises(error, match=message):
            bx.fit(NETWORK, theta, **_in_memory(xp), augment=hook, **options)
        with pytest.raises(error, match=message):
            bx.fit(NETWORK, theta, _given, augment=hook, **options)


def test_a_batch_of_rows_in_memory_may_weigh_nothing_beside_a_hook(xp: Any) -> None:
    memory, theta = _in_memory(xp), xp.initialize(NETWORK)
    memory["sample_weight"] = xp.asarray(np.where(np.arange(ROWS) < BATCH, 0.0, 1.0))
    found = bx.fit(NETWORK, theta, **memory, augment=_as_it_is_weighted, **_options(xp))
    _assert_same(xp, found, bx.fit(NETWORK, theta, **memory, **_options(xp)))
