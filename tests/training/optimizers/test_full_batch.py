"""Optimizers that take the objective: the library's and a user's, with a training's options."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.training.steps import function_cache

# Networks alone and in a stack round differently, and so do compiled loops; steps amplify it.
ROUNDING = 1e-7
X = np.linspace(-2.0, 2.0, 30)[:, None]
Y = np.sin(2.0 * X) + 0.3 * X
NETWORK = bx.mlp([1, 5, 1], hidden="tanh")
OPTIMIZERS = {"LevenbergMarquardt": bx.LevenbergMarquardt(), "LBFGS": bx.LBFGS(4)}
each_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def _fit(xp: Any, theta: Any, name: str = "", *, network: bx.Network = NETWORK, **more: Any) -> Any:
    options = {"optimizer": OPTIMIZERS.get(name), "epochs": 12, **more}
    return bx.fit(network, theta, *xp.put(X, options.pop("y", Y)), **options)


@each_optimizer
def test_a_network_that_is_not_finite_leaves_the_others_alone(xp: Any, name: str) -> None:
    theta = xp.initialize(NETWORK, stack=3)
    flags = xp.asarray([[0.0], [np.nan], [0.0]])
    together = _fit(xp, theta + flags, name)
    assert np.isnan(xp.host(together.theta)[1]).all()
    alone = _fit(xp, theta[2, :], name)
    xp.assert_close(together.theta[2, :], alone.theta, ROUNDING)


@pytest.mark.long
@each_optimizer
def test_a_training_ends_when_every_network_has_converged(xp: Any, name: str) -> None:
    theta, make = xp.initialize(NETWORK, stack=2), type(OPTIMIZERS[name])
    options = {"y": Y + 0.3 * np.cos(40 * X), "optimizer": make(tolerance=1e-3)}
    result = _fit(xp, theta, epochs=2000, **options)
    assert result.epochs < 2000
    assert result.epochs % 20 == 0
    assert xp.host(options["optimizer"].has_converged(result.optimizer_state)).all()
    more = _fit(xp, theta, epochs=4000, start=result, **options)
    assert more.epochs == result.epochs
    xp.assert_equal(more.theta, result.theta)


@each_optimizer
def test_a_state_without_a_history_that_has_converged_keeps_its_last_measures(
    xp: Any, name: str
) -> None:
    theta, make = xp.initialize(NETWORK, stack=3), type(OPTIMIZERS[name])
    given = {"optimizer": make(tolerance=0.5), "epochs": 200, "metrics": ["rmse"]}
    data = (*xp.put(X, Y),)
    *_, last = bx.train(NETWORK, theta, *data, **given)
    result = bx.fit(NETWORK, theta, *data, start=last, **given)
    assert result.epochs == last.epoch < 200
    for measure, value in {"loss": last.loss, "rmse": last.metrics["rmse"]}.items():
        assert np.isnan(result.history[measure][:-1]).all()
        np.testing.assert_array_equal(result.history[measure][-1], xp.host(value))
    best = int(np.argmin(xp.host(last.loss)))
    xp.assert_equal(result.best_member(), last.theta[best, :])


@pytest.mark.long
@each_optimizer
def test_a_network_that_has_converged_stays_as_it_is(xp: Any, name: str) -> None:
    """Of two networks that are asked for more and less, the second goes on without the first."""
    tolerance, seen = xp.asarray([[0.1], [0.0]]), list[tuple[np.ndarray, np.ndarray]]()

    def look(state: Any) -> None:
        ended = optimizer.has_converged(state.optimizer_state)
        seen.append((xp.host(ended)[:, 0], xp.host(state.theta)))

    optimizer = type(OPTIMIZERS[name])(tolerance=tolerance)
    _fit(xp, xp.initialize(NETWORK, stack=2), optimizer=optimizer, epochs=120, callbacks=[look])
    first = next(i for i, (converged, _) in enumerate(seen) if converged[0])
    assert first < 100
    np.testing.assert_array_equal(seen[first][1][0], seen[-1][1][0])
    assert (seen[first][1][1] != seen[-1][1][1]).any()


@each_optimizer
def test_validation_metrics_early_stopping_average_and_callbacks_work(xp: Any, name: str) -> None:
    seen: list[int] = []
    result = _fit(
        xp,
        xp.initialize(NETWORK, stack=2),
        name,
        validation=0.2,
        metrics=["rmse", "r2"],
        train_metrics=True,
        early_stopping=bx.EarlyStopping(4),
        average=bx.EMA(0.5),
        callbacks=[lambda state: seen.append(state.epoch)],
        check_every=3,
        epochs=30,
    )
    assert {"validation_loss", "rmse", "training_r2"} <= {*result.history}
    assert seen == [*range(1, result.epochs + 1)]
    assert set(result.history["gradient_verdict"]) <= {"pass"}
    best = result.state.best
    assert best is not None
    chosen = result.history["validation_loss"][best.epoch - 1, [0, 1]]
    np.testing.assert_allclose(best.score, chosen)


@each_optimizer
def test_a_training_resumed_from_a_file_equals_the_uninterrupted_one(
    xp: Any, name: str, tmp_path: Any
) -> None:
    theta, path = xp.initialize(NETWORK, stack=2), tmp_path / "model.safetensors"
    whole = _fit(xp, theta, name, epochs=9)
    _fit(xp, theta, name, epochs=4, checkpoint=path)
    where = {"backend": xp.name, "device": xp.selection.device}
    kept = bx.load(path, **where)
    assert kept.optimizer == OPTIMIZERS[name]
    resumed = _fit(xp, theta, name, epochs=9, start=kept.state, optimizer=kept.optimizer)
    if xp.name == "jax":  # compiled loops of another length may round differently
        xp.assert_close(resumed.theta, whole.theta, ROUNDING)
    else:
        xp.assert_equal(resumed.theta, whole.theta)
        xp.assert_equal(resumed.history["loss"], whole.history["loss"])


WIDE = 1e4 * X  # in raw units
SCALING = bx.Standardize(WIDE.mean(axis=0), WIDE.std(axis=0))


@each_optimizer
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid"])
def test_inputs_that_saturate_the_units_warn_once_with_the_way_out(
    xp: Any, name: str, hidden: str
) -> None:
    network = bx.mlp([1, 5, 1], hidden=hidden)
    theta, data = xp.initialize(network, stack=2), xp.put(WIDE, Y)
    with pytest.warns(UserWarning, match=r"Column 0 of x .* bx\.Standardize\(mean") as found:
        begun = bx.fit(network, theta, *data, optimizer=OPTIMIZERS[name], epochs=3)
    assert [Path(one.filename).name for one in found] == [Path(__file__).name]
    options = {"optimizer": OPTIMIZERS[name], "epochs": 6}
    bx.fit(network, theta, *data, start=begun, **options)  # warnings are errors


@each_optimizer
def test_ordinary_inputs_and_units_that_do_not_saturate_do_not_warn(xp: Any, name: str) -> None:
    options = {"optimizer": OPTIMIZERS[name], "epochs": 1}
    scaled = bx.Network([SCALING, *NETWORK.layers], "mean_squared_error")
    for network in (scaled, bx.mlp([1, 5, 1], hidden="relu")):
        bx.fit(network, xp.initialize(network), *xp.put(WIDE, Y), **options)
    draw = np.random.default_rng(5)
    for x in (draw.lognormal(0.0, 3.0, 200), draw.integers(0, 8, 200), draw.standard_t(2.0, 200)):
        x = x[:, None] if x.max() < 8.0 else bx.data.standardize(x[:, None]).x
        y = xp.asarray(np.tanh(x))
        bx.fit(NETWORK, xp.initialize(NETWORK, stack=8), xp.asarray(1.0 * x), y, **options)
    # Weights that have grown saturate the units on purpose.
    bx.fit(NETWORK, 30.0 * xp.initialize(NETWORK), *xp.put(X, Y), **options)
    bx.fit(NETWORK, 30.0 * xp.initialize(NETWORK), *xp.put(4.0 + X, Y), **options)
    bx.fit(scaled, 30.0 * xp.initialize(scaled), *xp.put(WIDE, Y), **options)


def test_inputs_of_a_later_layer_are_not_named_as_a_column(xp: Any) -> None:
    layers = [bx.Dense(1, 5, "relu"), bx.Dense(5, 5, "tanh"), bx.Dense(5, 1)]
    network = bx.Network(layers, "mean_squared_error")
    theta, data = xp.initialize(network, stack=8), xp.put(100.0 * WIDE, Y)
    with pytest.warns(UserWarning, match="are 0. Their inputs have a mean size of"):
        bx.fit(network, theta, *data, optimizer=bx.LBFGS(), epochs=1)


REFUSED: dict[str, dict[str, Any]] = {
    "batch_size": {"batch_size": 8},
    "augment": {"augment": lambda x, y, weight, seed: (x, y)},
    "clip": {"clip": 1.0},
    "a network with dropout": {"network": bx.mlp([1, 5, 1], dropout=0.1)},
}


@each_optimizer
@pytest.mark.parametrize("given", REFUSED)
def test_what_a_full_batch_excludes_is_an_error_with_the_way_out(
    xp: Any, name: str, given: str
) -> None:
    network = REFUSED[given].get("network", NETWORK)
    message = rf"{name} evaluates .* does not take {given}\. Leave .* bx\.Adam\(\)\."
    with pytest.raises(ValueError, match=message):
        _fit(xp, xp.initialize(network), name, **REFUSED[given])


def test_batches_that_x_gives_are_an_error(xp: Any) -> None:
    batches = [tuple(xp.put(X, Y))]
    options: dict[str, Any] = {"optimizer": bx.LevenbergMarquardt(), "epochs": 1}
    with pytest.raises(ValueError, match="does not take x that gives batches"):
        bx.fit(NETWORK, xp.initialize(NETWORK), batches, **options)


def test_the_learning_rate_of_an_optimizer_without_one_cannot_be_found(xp: Any) -> None:
    with pytest.raises(TypeError, match="LevenbergMarquardt has no learning rate to find"):
        bx.find_learning_rate(
            NETWORK,
            xp.initialize(NETWORK),
            *xp.put(X, Y),
            optimizer=bx.LevenbergMarquardt(),  # type: ignore[arg-type]
        )


class Halving:
    """A user's own optimizer: gradient steps, halved for each network whose loss would not fall."""

    def initialize(self, theta: Any) -> Any:
        return 0.0 * theta[..., :1] + 1.0

    def advance(self, theta: Any, rate: Any, objective: Any) -> tuple[Any, Any, Any]:
        xp = array_namespace(theta)
        loss, gradient = objective.loss_and_gradient(theta)
        trial = theta - rate * gradient
        is_lower = (objective.loss(trial) < loss)[..., None]
        return xp.where(is_lower, trial, theta), xp.where(is_lower, rate, 0.5 * rate), loss


def test_a_users_own_optimizer_advances_by_the_objective(xp: Any) -> None:
    theta = xp.initialize(NETWORK, stack=2)
    result = _fit(xp, theta, optimizer=Halving(), epochs=40)
    losses = result.history["loss"]
    assert (np.diff(losses, axis=0) <= 0.0).all()
    assert (losses[-1] < 0.5 * losses[0]).all()
    xp.assert_close(losses[0], NETWORK.loss(theta, *xp.put(X, Y)), ROUNDING)


ARRAYS = r".*but a tuple is expected: the array theta, the state, and the loss"
WRONG: dict[str, tuple[Any, Any, str]] = {
    "no loss": (
        lambda theta, state, loss: (theta, state),
        TypeError,
        rf"returned \(.*\), {ARRAYS}",
    ),
    "a list": (lambda *given: [*given], TypeError, rf"returned \(list\), {ARRAYS}"),
    "no theta": (lambda theta, *more: (None, *more), TypeError, rf"returned \(NoneType, {ARRAYS}"),
    "a number": (lambda theta, state, loss: (theta, state, 0.5), TypeError, rf"float\), {ARRAYS}"),
    "a mean": (
        lambda theta, state, loss: (theta, state, loss[0]),
        ValueError,
        r"The loss that Wrong\.advance returned has shape \(\), but \(2,\), one for each network",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_advance_that_returns_something_else_is_an_error(xp: Any, name: str) -> None:
    change, kind, message = WRONG[name]

    class Wrong(Halving):
        def advance(self, theta: Any, rate: Any, objective: Any) -> Any:
            return change(*super().advance(theta, rate, objective))

    with pytest.raises(kind, match=message):
        _fit(xp, xp.initialize(NETWORK, stack=2), optimizer=Wrong())


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS.values(), Halving()])
def test_nothing_moves_to_the_host_in_a_step(xp: Any, optimizer: Any) -> None:
    given = NETWORK, xp.initialize(NETWORK, stack=2), *xp.put(X, Y)
    with bx.transfer_guard("disallow"):
        bx.fit(*given, optimizer=optimizer, epochs=3)


@pytest.mark.float64
@each_optimizer
def test_a_training_on_each_backend_equals_numpys(xp: Any, name: str) -> None:
    theta = xp.initialize(NETWORK, stack=2)
    here = bx.fit(NETWORK, xp.host(theta), X, Y, optimizer=OPTIMIZERS[name], epochs=12)
    xp.assert_close(_fit(xp, theta, name).theta, here.theta, ROUNDING)


def test_equal_optimizers_are_compiled_once(xp: Any) -> None:
    theta = xp.initialize(NETWORK)
    count = len(function_cache._cache)
    for damping in (1e-3, 1e-2):
        _fit(xp, theta, optimizer=bx.LevenbergMarquardt(damping), epochs=1)
    assert len(function_cache._cache) <= count + 1


def test_an_optimizer_is_found_by_its_name() -> None:
    names = {"levenbergmarquardt": bx.LevenbergMarquardt(), "lbfgs": bx.LBFGS()}
    for name, optimizer in names.items():
        assert bx.fit(NETWORK, NETWORK.initialize(backend="numpy"), X, Y, optimizer=name, epochs=1)
        assert optimizer == eval(f"bx.{optimizer!r}")  # noqa: S307


@pytest.mark.parametrize("name", ["lm", "levenberg_marquardt", "LevenbergMarquardt", "trainlm"])
def test_another_word_for_an_optimizer_is_an_error_with_its_name(name: str) -> None:
    theta = NETWORK.initialize(backend="numpy")
    with pytest.raises(ValueError, match=rf"'{name}' is unknown. Did you mean 'levenbergmarquardt"):
        bx.fit(NETWORK, theta, X, Y, optimizer=name, epochs=1)


@pytest.mark.parametrize(
    "options", [{}, {"validation": 0.3}, {"early_stopping": bx.EarlyStopping(3)}]
)
@pytest.mark.parametrize("stack", [(), 5, (2, 3)])
def test_the_best_member_is_the_network_with_the_lowest_loss(
    xp: Any, stack: Any, options: dict[str, Any]
) -> None:
    theta = xp.initialize(NETWORK, stack=stack)
    result = _fit(xp, theta, "LevenbergMarquardt", **options)
    if options.get("validation"):
        scores = result.history["validation_loss"][-1]
    else:
        scores = result.state.best.score if result.state.best else result.history["loss"][-1]
    index = np.unravel_index(np.argmin(scores), scores.shape)
    xp.assert_equal(result.best_member(), xp.host(result.theta)[index])


def test_a_network_that_diverged_is_not_the_best_member(xp: Any) -> None:
    theta = xp.initialize(NETWORK, stack=3) + xp.asarray([[np.nan], [0.0], [np.nan]])
    result = _fit(xp, theta, "LBFGS")
    xp.assert_equal(result.best_member(), xp.host(result.theta)[1])


@pytest.mark.long
@each_optimizer
@pytest.mark.parametrize("scale", [1e-6, 1e4])
def test_targets_of_any_unit_give_the_same_fit(xp: Any, name: str, scale: float) -> None:
    if name == "LBFGS" and xp.dtype == "float32":
        pytest.skip("40 line searches amplify the rounding of float32")
    theta = xp.initialize(NETWORK, stack=3)
    y = (Y - Y.mean()) / Y.std()
    epochs = 40 if name == "LBFGS" else 12
    plain, scaled = (
        _fit(xp, theta, name, y=each, epochs=epochs) for each in (y, scale * y + 3.0 * scale)
    )
    ratio = xp.host(scaled.state.loss) / xp.host(plain.state.loss) / scale**2
    # Rounding of the targets' offset, amplified by the steps.
    np.testing.assert_allclose(ratio, 1.0, rtol=5e-2 if xp.dtype == "float32" else 1e-4)


@pytest.mark.long
@each_optimizer
@pytest.mark.parametrize("scale", [1e-12, 1e12, 1e18])
def test_targets_whose_squares_fit_float32_are_fitted_in_it(
    xp: Any, name: str, scale: float
) -> None:
    """The squares of the derivatives by the last layer, about scale^2, do not fit."""
    theta = xp.initialize(NETWORK, dtype="float32")
    x, y = xp.put(X, (Y - Y.mean()) / Y.std() * scale, dtype="float32")
    result = bx.fit(NETWORK, theta, x, y, optimizer=OPTIMIZERS[name], epochs=60)
    # A training at a standstill leaves half of the targets' variance, sixty steps a thousandth.
    assert float(xp.host(result.state.loss)) < 0.03 * scale**2


@each_optimizer
def test_a_row_of_weight_0_is_left_out_even_if_it_overflows(xp: Any, name: str) -> None:
    x, weight = np.concatenate([X, [[1e30]]]), np.append(np.ones(30), 0.0)
    network = bx.mlp([1, 4, 1], hidden="relu")
    theta = xp.initialize(network, stack=2)
    options: dict[str, Any] = {"optimizer": OPTIMIZERS[name], "epochs": 12}
    given = xp.put(x, np.concatenate([Y, [[1e30]]]), weight)
    result = bx.fit(network, theta, *given[:2], sample_weight=given[2], **options)
    expected = bx.fit(network, theta, *xp.put(X, Y), **options)
    xp.assert_close(result.theta, expected.theta, ROUNDING)


@pytest.mark.long
@each_optimizer
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_targets_that_were_not_measured_count_neither_in_the_loss_nor_in_the_units(
    xp: Any, name: str, scale: float
) -> None:
    network = bx.mlp([1, 4, 2], hidden="tanh")
    theta = xp.initialize(network, stack=2)
    y = scale * np.concatenate([np.sin(2.0 * X), 5.0 + np.cos(X)], axis=1)
    weight = np.ones(y.shape)
    weight[::3, 0] = weight[1::3, 1] = 0.0
    missing, filled = (np.where(weight == 0.0, other, y) for other in (np.nan, 1e6 * scale))
    options: dict[str, Any] = {"optimizer": OPTIMIZERS[name], "epochs": 40}
    found = bx.fit(network, theta, *xp.put(X, missing), **options)
    expected = bx.fit(
        network, theta, *xp.put(X, filled), sample_weight=xp.asarray(weight), **options
    )
    xp.assert_equal(found.theta, expected.theta)
    error = xp.host(network.predict(found.theta, xp.asarray(X)) - xp.asarray(y)) / scale
    assert np.max(np.mean(weight * error**2, axis=(-2, -1))) < 0.05


SLOPE = bx.Equation(NETWORK.layers, lambda s: s.u_x + s.u, "x")


def _steps(xp: Any, rows: int, weight: Any = None, **options: Any) -> Any:
    """Train the equation, of 16 parameters, at so many points for two steps."""
    network = bx.Network([SLOPE], "mean_squared_error")
    x = np.linspace(-1.0, 1.0, rows)[:, None]
    weight = None if weight is None else xp.asarray(weight)
    given = xp.initialize(network), *xp.put(x, 0.0 * x)
    options = {"optimizer": OPTIMIZERS["LBFGS"], "epochs": 2, **options}
    return bx.fit(network, *given, sample_weight=weight, **options)


@each_optimizer
def test_fewer_residuals_than_parameters_without_a_penalty_warn(xp: Any, name: str) -> None:
    with pytest.warns(UserWarning, match="15 residuals for 16 parameters, and no penalty.* l2=1e"):
        result = _steps(xp, 15, optimizer=OPTIMIZERS[name])
    _steps(xp, 16, optimizer=OPTIMIZERS[name])
    network, (x, y) = bx.Network([SLOPE], "mean_squared_error"), xp.put(X[:15], 0.0 * X[:15])
    options = {"optimizer": OPTIMIZERS[name], "epochs": 3, "start": result}
    bx.fit(network, result.theta, x, y, **options)  # the same training


def test_residuals_without_a_weight_do_not_count_and_a_penalty_is_enough(xp: Any) -> None:
    with pytest.warns(UserWarning, match="15 residuals for 16 parameters"):
        _steps(xp, 20, np.arange(20.0) < 15.0)
    with pytest.warns(UserWarning, match="15 residuals for 16 parameters"):
        _steps(xp, 20, (np.arange(20.0) < 15.0)[:, None])
    _steps(xp, 15, l2=1e-9)
    _fit(xp, xp.initialize(bx.mlp([1, 20, 1])), "LBFGS", network=bx.mlp([1, 20, 1]))


@pytest.mark.float64  # a damping of many steps
def test_the_last_damping_goes_on_with_other_rows(xp: Any) -> None:
    """The first step of a new training would begin with 1e-3 otherwise."""
    theta = xp.initialize(NETWORK, stack=2)
    first = _fit(xp, theta, "LevenbergMarquardt")
    damping = first.optimizer_state.damping
    assert (xp.host(damping) != 1e-3).all()
    x, y = xp.put(np.concatenate([X, X + 0.05]), np.concatenate([Y, Y]))
    again = bx.LevenbergMarquardt(damping)
    xp.assert_equal(again.initialize(first.theta).damping, damping)
    losses = bx.fit(NETWORK, first.theta, x, y, optimizer=again, epochs=3).history["loss"]
    assert (losses[-1] < losses[0]).all()
