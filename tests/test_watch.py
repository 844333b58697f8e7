"""A gradient watched during training: it costs little, changes nothing, and ends what is wrong."""

import contextlib
import re
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.random import fold_in
from tests.planted import (
    HALF_A_SQUARE,
    Affine,
    Unmasked,
    first_column_doubled,
    with_gradient,
)

ROWS, BATCH = 11, 4
STEPS = 3  # updates in an epoch of batches, the last of them of three rows
STACK = 3

# What a right gradient errs by at most. The step is the square root of epsilon, by which the loss
# changes in relation to itself: that, 1.5e-8 or 3e-4, times the curvature is left, and as much of
# rounding. A kink that the step crosses adds a slope's jump times the part of the step beyond it.
ERRORS = {
    ("tanh", "float64"): 1e-6,
    ("relu", "float64"): 1e-5,
    ("tanh", "float32"): 2e-3,
}
# Errors above these are looked at closely: those that a planted mistake must exceed.
SUSPICIOUS = {"float64": 1e-5, "float32": 5e-3}

generator = np.random.default_rng(91)
X = generator.normal(size=(ROWS, 3))
Y = generator.normal(size=(ROWS, 3))
WEIGHT = generator.uniform(0.5, 2.0, ROWS)


def _network(*between: Any, hidden: Any = "tanh", loss: Any = "half_squared_error") -> bx.Network:
    """Return a network of three columns throughout; JAX compiles few shapes for it."""
    return bx.Network([bx.Dense(3, 3, hidden), *between, bx.Dense(3, 3)], loss, l2=0.05)


def _case(xp: Any, network: bx.Network, dtype: str = "working", stack: Any = ()) -> tuple[Any, ...]:
    theta = xp.initialize(network, seed=1, stack=stack, dtype=dtype)
    return network, theta, xp.asarray(X, dtype=dtype), xp.asarray(Y, dtype=dtype)


def _fit(*case: Any, **options: Any) -> Any:
    options = {"optimizer": bx.SGD(0.1), "epochs": 2, "check_every": 1, **options}
    return bx.fit(*case, **options)


def _failure(*case: Any, **options: Any) -> tuple[Any, int]:
    """Return the report of the gradient that ended a training, and the number of the update."""
    with pytest.raises(bx.GradientCheckError) as error:
        _fit(*case, **options)
    message, report = str(error.value), error.value.report
    assert isinstance(report, bx.GradientReport)
    assert not report.passed
    assert str(report) in message
    found = re.search(r"update (\d+)", message)
    assert found
    return report, int(found[1])


def _once_on_jax(xp: Any, this: bool) -> None:
    """JAX compiles each operation anew for every shape and dtype: there one case does."""
    if xp.name == "jax" and not this:
        pytest.skip("JAX compiles each operation anew: another case stands for this")


def _in_python(xp: Any) -> contextlib.AbstractContextManager[Any]:
    """Compile nothing: a layer that counts its calls in Python counts them only then."""
    if xp.name != "jax":
        return contextlib.nullcontext()
    import jax

    return jax.disable_jit()


# ---- the history


@pytest.mark.parametrize("stack", [(), (2, STACK)])
@pytest.mark.parametrize(
    ("batch_size", "every", "epochs", "checks"),
    [(None, 1, 3, 3), (None, 2, 3, 2), (BATCH, 1, 2, 6), (BATCH, 4, 2, 2), (BATCH, 100, 2, 1)],
)
def test_every_so_many_updates_from_the_first_on_leave_an_error_in_the_history(
    xp: Any, batch_size: int | None, every: int, epochs: int, checks: int, stack: tuple[int, ...]
) -> None:
    case = _case(xp, _network(), stack=stack)
    result = _fit(*case, batch_size=batch_size, check_every=every, epochs=epochs)
    errors = result.history["gradient_error"]
    assert isinstance(errors, np.ndarray)
    assert errors.shape == (checks, *stack)
    assert np.all(errors <= ERRORS["tanh", xp.dtype])
    assert np.max(errors) > 0.0


def test_without_checks_there_is_no_history_of_them(xp: Any) -> None:
    assert "gradient_error" not in _fit(*_case(xp, _network()), check_every=None).history


def _stacked(xp: Any, dtype: str = "working") -> dict[str, Any]:
    """Return rows and weights of its own for each network of a stack."""
    factors = 1.0 + np.arange(STACK)
    rows = {
        "x": X / factors[:, None, None],
        "y": Y * factors[:, None, None],
        "sample_weight": WEIGHT ** factors[:, None],
    }
    return {name: xp.asarray(array, dtype=dtype) for name, array in rows.items()}


@pytest.mark.parametrize(("hidden", "dtype"), ERRORS)
def test_a_right_gradient_with_all_that_training_offers_errs_little(
    xp: Any, hidden: str, dtype: str
) -> None:
    """The masks, the weights and the batch are those of the update; clipping comes later."""
    _once_on_jax(xp, dtype == "float64")
    network = _network(bx.Dropout(0.3), hidden=hidden)
    theta = xp.initialize(network, seed=1, stack=STACK, dtype=dtype)
    options = {"optimizer": bx.Adam(0.05), "epochs": 3, "batch_size": BATCH, "clip": 0.1}
    errors = _fit(network, theta, **_stacked(xp, dtype), **options).history["gradient_error"]
    assert errors.shape == (3 * STEPS, STACK)
    assert errors.dtype == dtype
    assert np.max(errors) <= ERRORS[hidden, dtype]


def test_a_layer_that_takes_no_complex_numbers_is_watched_too(xp: Any) -> None:
    errors = _fit(*_case(xp, _network(Affine(real=True)))).history["gradient_error"]
    assert np.all(errors <= ERRORS["tanh", xp.dtype])


# ---- nothing else changes


@pytest.mark.parametrize(
    "optimizer", [bx.SGD(0.1, momentum=0.9), bx.Adam(0.05)], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("stack", [(), (STACK,)])
def test_the_theta_that_is_trained_is_the_same_to_the_last_bit(
    xp: Any, optimizer: Any, stack: tuple[int, ...]
) -> None:
    case = _case(xp, _network(bx.Dropout(0.3), hidden="relu"), stack=stack)
    options = {"optimizer": optimizer, "batch_size": BATCH, "clip": 1.0}
    watched, plain = (_fit(*case, check_every=every, **options) for every in (1, None))
    assert np.array_equal(xp.host(watched.theta), xp.host(plain.theta))
    # Means of batches that were made in one compiled call are summed in another order.
    np.testing.assert_allclose(
        watched.history["loss"], plain.history["loss"], rtol=xp.rounding(1e-15)
    )


class Counting(Affine):
    """Counts how often it is sent forward and back."""

    forwards = backwards = 0

    def forward(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        self.forwards += 1
        return super().forward(*arguments, **options)

    def backward(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        self.backwards += 1
        return super().backward(*arguments, **options)


def test_a_check_costs_a_forward_pass(xp: Any) -> None:
    counts = []
    for every in (None, 2):
        layer = Counting()
        with _in_python(xp):
            _fit(*_case(xp, _network(layer)), batch_size=BATCH, check_every=every)
        counts.append((layer.forwards, layer.backwards))
    (plain, updates), (watched, again) = counts
    assert updates == again == 2 * STEPS
    assert watched == plain + STEPS  # one for every second update


# What would move numbers to the host, or make Python's of them.
MOVES = ["bool", "float", "int", "complex", "index", "array", "buffer", "dlpack", "iter"]


def test_train_moves_nothing_to_the_host_for_its_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """On array-api-strict, whose arrays refuse to be moved while it trains."""
    strict = pytest.importorskip("array_api_strict")
    network = _network(bx.Dropout(0.3))
    place: Any = {"backend": "array-api-strict", "device": "device1", "dtype": "float64"}
    theta = network.initialize(0, stack=STACK, **place)
    x, y, weight = (bx.asarray(array, **place) for array in (X, Y, WEIGHT))
    states = bx.train(
        network,
        theta,
        x,
        y,
        optimizer=bx.Adam(0.1),
        epochs=2,
        batch_size=BATCH,
        sample_weight=weight,
        clip=1.0,
        check_every=1,
    )

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("moved to the host")

    with monkeypatch.context() as patch:
        for name in (*(f"__{move}__" for move in MOVES), "to_device"):
            patch.setattr(type(theta), name, refuse, raising=False)
        with pytest.raises(AssertionError, match="moved to the host"):
            float(strict.ones(()))
        found = [state.watch for state in states]
    errors = [float(error[0]) for watch in found if watch is not None for error in watch.errors]
    assert len(errors) == 2 * STEPS
    assert max(errors) <= ERRORS["tanh", "float64"]


# ---- train says, and goes on


def _watched(state: Any) -> int | None:
    return None if state.watch is None else len(state.watch.errors)


def test_train_yields_what_was_found_in_each_epoch(xp: Any) -> None:
    case = _case(xp, _network(), stack=(STACK,))
    options: dict[str, Any] = {"optimizer": bx.SGD(0.1), "epochs": 4, "batch_size": BATCH}
    # Of twelve updates, number 0, 5 and 10.
    counts = []
    for state in bx.train(*case, check_every=5, **options):
        counts.append(_watched(state))
        for error in state.watch.errors if state.watch else ():
            assert bx.backends.owner(error) is xp.selection.backend
            assert bx.backends.device_of(error) == xp.selection.device
            assert tuple(error.shape) == (STACK,)
    assert counts == [1, 1, None, 1]
    assert [_watched(state) for state in bx.train(*case, **options)] == [None] * 4


def test_train_goes_on_with_a_wrong_gradient_and_says_so(xp: Any) -> None:
    case = _case(xp, _network(Affine("scale")))
    states = bx.train(*case, optimizer=bx.SGD(0.1), epochs=3, check_every=1)
    errors = [float(error) for state in states if state.watch for error in state.watch.errors]
    assert len(errors) == 3
    assert min(errors) > SUSPICIOUS[xp.dtype]


# ---- fit ends


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mistake", ["input", *Affine.names])
def test_a_layer_with_a_wrong_rule_ends_the_training(xp: Any, mistake: str, dtype: str) -> None:
    _once_on_jax(xp, dtype == "float64")
    network, theta, x, y = _case(xp, _network(Affine(mistake)), dtype)
    # A scale of 1, as it is drawn, would hide the mistake in the input's rule.
    theta = theta + xp.asarray(np.random.default_rng(92).normal(size=network.size), dtype=dtype)
    report, step = _failure(network, theta, x, y)
    assert report.verdict == "fail"
    assert f"layers[1] (Affine) fails a check of its own, in the derivative by its {mistake}" in (
        report.diagnosis
    )
    assert step in range(STEPS)


@pytest.mark.parametrize(
    ("network", "named"),
    [
        (_network(Unmasked(0.5)), "layers[1] (Unmasked)"),
        (_network(bx.Residual(Affine("shift"))), "layers[1] (Residual)"),
        (_network(hidden=HALF_A_SQUARE), "layers[0] (Dense)"),
        (_network(loss=with_gradient(first_column_doubled)), "the loss"),
        pytest.param(
            _network(loss=with_gradient(lambda g: 1.001 * g)),
            "the loss",
            marks=pytest.mark.float64,  # to float32 that is not suspicious
        ),
        (_network(Affine("scale", real=True)), "layers[1] (Affine)"),
    ],
    ids=["dropout", "residual", "activation", "loss", "loss by a tenth of a percent", "real only"],
)
def test_a_piece_that_is_wrong_ends_the_training_and_is_named(
    xp: Any, network: bx.Network, named: str
) -> None:
    report, _ = _failure(*_case(xp, network))
    assert report.verdict == "fail"
    assert f"{named} fails a check of its own" in report.diagnosis


@pytest.mark.parametrize("late", [1, 4])
def test_a_mistake_that_comes_later_ends_the_training_at_the_end_of_its_epoch(
    xp: Any, late: int
) -> None:
    seen: list[int] = []
    case = _case(xp, _network(Affine("scale", after=late)))
    with _in_python(xp):
        _, step = _failure(*case, epochs=8, callbacks=[lambda state: seen.append(state.epoch)])
    assert step == late
    assert seen == list(range(1, late + 1))


# The mistake begins in the second epoch, at its first update or at the second; seeds for which the
# first of those that show it is the worst of them, and seeds for which another is.
@pytest.mark.parametrize(
    ("late", "shuffle", "seed"),
    [(STEPS, True, 0), (STEPS, True, 1), (STEPS, False, 1), (STEPS + 1, True, 0)],
)
def test_the_report_is_of_the_updates_own_theta_and_batch_and_mask(
    xp: Any, late: int, shuffle: bool, seed: int
) -> None:
    _once_on_jax(xp, (late, shuffle, seed) == (STEPS, True, 1))
    network, again = (_network(Affine("shift", after=late), bx.Dropout(0.3)) for _ in range(2))
    _, theta, x, y = _case(xp, network)
    weight, optimizer = xp.asarray(WEIGHT), bx.SGD(0.1)
    options: dict[str, Any] = {"batch_size": BATCH, "shuffle": shuffle, "seed": seed}
    with _in_python(xp):
        report, step = _failure(
            network, theta, x, y, optimizer=optimizer, epochs=3, sample_weight=weight, **options
        )
    assert late <= step < 2 * STEPS
    state = optimizer.initialize(theta)
    batches = [
        batch
        for epoch in range(2)
        for batch in bx.data.minibatches(x, y, weight, epoch=epoch, **options)
    ]
    for number, (part_x, part_y, part_weight) in enumerate(batches[: step + 1]):
        _, gradient = again.loss_and_gradient(
            theta, part_x, part_y, sample_weight=part_weight, rng=fold_in(seed, number)
        )
        if number < step:
            # A copy: the optimiser may write into what it is given.
            theta, state = optimizer.update(1.0 * theta, gradient, state)
    # Rounding of sums in another order, over six updates.
    np.testing.assert_allclose(xp.host(report.analytic), xp.host(gradient), rtol=1e-9, atol=1e-12)


def test_a_wrong_gradient_of_a_stack_is_reported_of_one_of_its_networks(xp: Any) -> None:
    network = _network(Affine("scale"))
    theta = xp.initialize(network, seed=1, stack=(2, STACK))
    report, _ = _failure(network, theta, **_stacked(xp), batch_size=BATCH)
    assert report.analytic.shape == (network.size,)
    assert "layers[1] (Affine)" in report.diagnosis


# ---- what ends nothing


@pytest.mark.parametrize("diverged", [1, None])
def test_a_network_that_has_diverged_ends_nothing(xp: Any, diverged: int | None) -> None:
    network, theta, x, y = _case(xp, _network(), stack=(STACK,))
    starts = np.array(xp.host(theta))
    starts[diverged] = np.nan  # with None all of them
    errors = _fit(network, xp.asarray(starts), x, y).history["gradient_error"]
    clean = _fit(network, theta, x, y).history["gradient_error"]
    lost = np.isnan(starts[:, 0])
    assert np.all(np.isnan(errors[:, lost]))
    assert np.array_equal(errors[:, ~lost], clean[:, ~lost])


def test_a_network_that_has_diverged_hides_no_mistake_from_the_others(xp: Any) -> None:
    network, theta, x, y = _case(xp, _network(Affine("scale")), stack=(STACK,))
    starts = np.array(xp.host(theta))
    starts[0] = np.nan
    report, _ = _failure(network, xp.asarray(starts), x, y)
    assert "layers[1] (Affine)" in report.diagnosis


class LostOnce(Affine):
    """Wrong, and in the first check of a training not a number: at its third call."""

    forwards = 0

    def forward(self, *arguments: Any, **options: Any) -> tuple[Any, Any]:
        self.forwards += 1
        y, cache = super().forward(*arguments, **options)
        # The first is that of training's own checks of its arguments, the second the update's.
        return (np.nan * y if self.forwards == 3 else y), cache


def test_a_check_that_was_not_a_number_hides_no_later_one(xp: Any) -> None:
    case = _case(xp, _network(LostOnce("scale")))
    report, step = _failure(*case, batch_size=BATCH, epochs=1)
    assert step > 0
    assert "layers[1] (LostOnce)" in report.diagnosis


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_kink_at_the_very_point_looks_suspicious_and_ends_nothing(xp: Any, dtype: str) -> None:
    """Biases start at 0: a row of zeros puts each relu on its kink, as XOR's first row does."""
    _once_on_jax(xp, dtype == "float64")
    network = _network(hidden="relu")
    _, _, _, y = _case(xp, network, dtype)
    x = xp.asarray(np.concatenate([np.zeros((1, 3)), X[1:]]), dtype=dtype)
    # As drawn, the biases are 0; whether the step turns a unit on that is at 0 depends on the seed.
    thetas = [xp.initialize(network, seed=seed, dtype=dtype) for seed in range(8)]
    errors = [_fit(network, theta, x, y).history["gradient_error"][0] for theta in thetas]
    assert max(errors) > SUSPICIOUS[dtype]


@pytest.mark.parametrize(
    ("every", "error", "message"),
    [
        (0, ValueError, "check_every must be an integer of at least 1, not 0"),
        (-1, ValueError, "check_every must be an integer of at least 1, not -1"),
        (2.0, TypeError, r"check_every must be an integer of at least 1, not 2\.0"),
        (True, TypeError, "check_every must be an integer of at least 1, not True"),
        ("often", TypeError, "check_every must be an integer of at least 1, not 'often'"),
    ],
)
def test_an_impossible_interval_is_refused_by_name(
    xp: Any, every: Any, error: type[Exception], message: str
) -> None:
    case = _case(xp, _network())
    with pytest.raises(error, match=message):
        bx.train(*case, optimizer=bx.SGD(0.1), epochs=1, check_every=every)
    with pytest.raises(error, match=message):
        _fit(*case, check_every=every)
