"""Levenberg-Marquardt: the formula, stacks, units, and every option of a training."""

import tracemalloc
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import array_namespace
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.derivatives import gauss_newton
from backprop_xp.training.optimizers import full_batch
from backprop_xp.training.optimizers.levenberg_marquardt import where_any
from tests.helpers import long

# Solutions lose as many digits as the condition number has, here some thousand, in each step.
SAME_STEPS = 1e-9
# Networks alone and in a stack round differently, and so do compiled loops.
ROUNDING = 1e-10
EPOCHS = 12
# A step that no rounding sees: the complex step of an analytic function is exact.
STEP = 1e-30

generator = np.random.default_rng(70)
X = np.linspace(-2.0, 2.0, 30)[:, None]
Y = np.sin(2.0 * X) + 0.3 * X
WEIGHT = generator.uniform(0.5, 2.0, size=30)
NETWORK = bx.mlp([1, 5, 1], hidden="tanh")


def _fit(xp: Any, theta: Any, *, network: bx.Network = NETWORK, **more: Any) -> Any:
    options = {"optimizer": bx.LevenbergMarquardt(), "epochs": EPOCHS, **more}
    y = options.pop("y", Y)
    return bx.fit(network, theta, *xp.put(X, y), **options)


def textbook(
    network: bx.Network, theta: np.ndarray, steps: int, l2: float, damping: float = 1e-3
) -> np.ndarray:
    """Return theta after steps as in the books, for one network and standardized targets."""
    y = (Y - Y.mean()) / Y.std()
    for _ in range(steps):
        gradient, matrix = network.gauss_newton(theta, X, y, l2=l2)
        mu, loss = damping * matrix.diagonal().max(), network.loss(theta, X, y, l2=l2)
        damped = matrix + mu * np.eye(theta.size)
        move = -np.linalg.solve(damped, gradient)
        predicted = -(gradient @ move + 0.5 * move @ matrix @ move)
        # Half of the geodesic acceleration, by the whole move as the difference.
        linear = network.forward(theta + STEP * 1j * move, X).imag / STEP
        bend = network.forward(theta + move, X) - network.forward(theta, X) - linear
        pulled, _ = network.vjp(theta, X, 2.0 / len(X) * bend)
        more = -np.linalg.solve(damped, pulled)
        after = network.loss(theta + move, X, y, l2=l2)
        is_small = 4.0 * np.linalg.norm(more) <= 0.75 * np.linalg.norm(move)
        if is_small and network.loss(theta + move + more, X, y, l2=l2) < after:
            move = move + more
        decrease = loss - network.loss(theta + move, X, y, l2=l2)
        if decrease > 0.0:
            theta = theta + move
            damping *= max(0.1, 1.0 - (2.0 * min(decrease / predicted, 1.0) - 1.0) ** 3)
        else:
            damping *= 4.0
    return theta


@pytest.mark.float64
@pytest.mark.parametrize("l2", [0.0, 0.01])
@pytest.mark.parametrize("hidden", [5, 20, -5], ids=["more rows", "more parameters", "blocks"])
def test_steps_are_the_textbooks(
    xp: Any, l2: float, hidden: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if hidden < 0:
        monkeypatch.setattr(gauss_newton, "_rows_at_once", lambda *_: 7)
    hidden = abs(hidden)
    network = bx.mlp([1, hidden, 1], hidden="tanh")
    theta = xp.initialize(network)
    result = _fit(xp, theta, network=network, y=(Y - Y.mean()) / Y.std(), l2=l2, epochs=8)
    expected = textbook(network, xp.host(theta), 8, l2)
    xp.assert_close(result.theta, expected, SAME_STEPS * (1e3 if hidden > 5 else 1.0))


def test_a_linear_model_is_solved_in_a_few_steps(xp: Any) -> None:
    network = bx.mlp([1, 1])
    result = _fit(xp, xp.initialize(network), network=network, epochs=6)
    slope, offset = np.polyfit(X[:, 0], Y[:, 0], 1)
    # The damping of the last step is 1e-8 of the largest entry.
    xp.assert_close(result.theta, [slope, offset], 1e-8)


def test_the_loss_never_rises_and_a_curve_is_fitted(xp: Any) -> None:
    network = bx.mlp([1, 10, 1], hidden="tanh")
    result = _fit(xp, xp.initialize(network, stack=4), network=network, epochs=60)
    losses = result.history["loss"]
    assert (np.diff(losses, axis=0) <= 0.0).all()
    assert np.median(losses[-1]) < 1e-3


def test_a_theta_whose_loss_is_lower_is_not_rescaled(xp: Any) -> None:
    fitted = _fit(xp, xp.initialize(NETWORK), epochs=40)
    more = _fit(xp, fitted.theta, epochs=1)
    assert more.history["loss"][0] <= fitted.history["loss"][-1]


def test_each_network_has_its_own_damping_and_the_result_that_it_has_alone(xp: Any) -> None:
    theta, damping = xp.initialize(NETWORK, stack=(2, 2)), np.array([1e-3, 1.0])[:, None]
    l2 = np.array([[0.0, 0.1], [0.01, 1.0]])
    options = {"sample_weight": xp.asarray(WEIGHT)}
    together = _fit(
        xp,
        theta,
        optimizer=bx.LevenbergMarquardt(xp.asarray(damping)),
        l2=xp.asarray(l2),
        **options,
    )
    for i, j in np.ndindex(2, 2):
        one = bx.LevenbergMarquardt(float(damping[j, 0]))
        alone = _fit(xp, theta[i, j, :], optimizer=one, l2=float(l2[i, j]), **options)
        xp.assert_close(together.theta[i, j, :], alone.theta, ROUNDING * 1e3)
        xp.assert_close(together.history["loss"][:, i, j], alone.history["loss"], ROUNDING)


def test_a_dead_network_stays_as_it_is(xp: Any) -> None:
    network = bx.mlp([1, 3, 1], hidden="relu", loss="poisson")
    theta = xp.asarray(np.array([[0, 0, 0, -1, -1, -1, 0, 0, 0, 0.0], [1] * 10]))
    result = _fit(xp, theta, network=network, y=np.exp(X))
    assert np.isfinite(xp.host(result.theta)).all()


@pytest.mark.long
@pytest.mark.parametrize("loss", ["poisson", "binary_cross_entropy", "huber", "log_cosh"])
def test_other_losses_fall_to_their_minimum(xp: Any, loss: str) -> None:
    network = bx.mlp([1, 1], loss=loss)
    y = {"poisson": np.exp(X), "binary_cross_entropy": 1.0 * (X + 0.3 * np.cos(9 * X) > 0)}
    result = _fit(xp, xp.initialize(network), network=network, y=y.get(loss, 3.0 * Y), epochs=60)
    given = xp.put(X, y.get(loss, 3.0 * Y))
    _, gradient = network.loss_and_gradient(result.theta, *given)
    # The training ends where a step lowers the loss, about 1, by 1e-8: the root of that.
    assert np.abs(xp.host(gradient)).max() < 1e-3


def test_a_tolerance_of_0_ends_a_training_only_where_no_step_helps(xp: Any) -> None:
    optimizer = bx.LevenbergMarquardt(tolerance=0.0)
    result = _fit(
        xp, xp.initialize(bx.mlp([1, 1])), network=bx.mlp([1, 1]), optimizer=optimizer, epochs=400
    )
    assert result.epochs < 400


def test_too_many_parameters_are_an_error_that_names_lbfgs(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    theta = xp.initialize(NETWORK, stack=4)
    monkeypatch.setattr(full_batch, "_MOST_NUMBERS", 7 * 4 * 16 * 16)
    _fit(xp, theta, epochs=1)
    monkeypatch.setattr(full_batch, "_MOST_NUMBERS", 7 * 4 * 16 * 16 - 1)
    with pytest.raises(
        ValueError, match=r"4 networks of 16 parameters .* 16 x 16 numbers .* Use bx\.LBFGS\(\)"
    ):
        _fit(xp, theta)


def test_the_memory_that_a_step_would_take_is_named(
    xp: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_batch, "_MOST_NUMBERS", 2**20)
    network = bx.mlp([1, 400, 400, 1], hidden="tanh")
    numbers = 7 * 8 * len(X) * network.size  # of 8 networks; 30 rows are fewer than parameters
    needed = numbers * {"float64": 8, "float32": 4}[xp.dtype] / 2**30
    with pytest.raises(ValueError, match=f"8 networks .* about {needed:.0f} GiB: 7 .* 30 x 161601"):
        _fit(xp, xp.initialize(network, stack=8), network=network)


def test_only_an_accepted_step_counts_towards_convergence(xp: Any) -> None:
    theta, tolerance = xp.initialize(NETWORK), 0.3
    optimizer = bx.LevenbergMarquardt(1e-9, tolerance=tolerance)
    states = list(bx.train(NETWORK, theta, *xp.put(X, Y), optimizer=optimizer, epochs=22))
    losses = [float(state.loss) for state in states]  # before each step
    settled = [float(xp.host(state.optimizer_state.settled)[0]) for state in states]
    refused = 0
    for k in range(1, 21):
        if losses[k + 1] == losses[k]:
            expected, refused = settled[k - 1], refused + 1
        else:
            is_small = losses[k] - losses[k + 1] <= tolerance * losses[k]
            expected = settled[k - 1] + 1.0 if is_small else 0.0
        assert settled[k] == expected
    assert refused > 3
    assert 0.0 in settled[8:]
    assert max(settled) > 2.0


@pytest.mark.parametrize("rows", [40, long(3)])
def test_xla_decomposes_one_matrix_in_a_step(xp: Any, rows: int) -> None:
    """Two that run at once on two cores can wait for one another's threads forever."""
    if xp.name != "jax":
        pytest.skip("the text of the compiled function is XLA's")
    import jax

    network = bx.mlp([1, 5, 1], hidden="tanh")
    theta, x = xp.initialize(network, stack=2), xp.asarray(np.linspace(-1.0, 1.0, rows)[:, None])
    objective = full_batch.Objective(network, Rows(x, x**2), 1e-3)
    optimizer = bx.LevenbergMarquardt()
    state = optimizer.initialize(theta)
    step = jax.jit(lambda theta: optimizer.advance(theta, state, objective)[0])
    assert step.lower(theta).compile().as_text().count("getrf_ffi") == 1


@pytest.mark.once
@pytest.mark.parametrize("rows", [900, 450, 280, 60])
@pytest.mark.parametrize("outputs", [1, 2])
def test_a_step_holds_no_more_matrices_than_its_bound_counts(rows: int, outputs: int) -> None:
    """With 300 parameters: the forms of few and of many rows."""
    network = bx.mlp([1, 300 // (2 + outputs), outputs], hidden="tanh")
    theta, x = network.initialize(stack=3, backend="numpy"), np.linspace(-1.0, 1.0, rows)[:, None]
    objective = full_batch.Objective(network, Rows(x, np.tile(x**2, (1, outputs))), 1e-3)
    tracemalloc.start()
    try:
        model, damping = objective.gauss_newton(theta), np.full((3, 1), 0.1)
        damped = model.damped(damping)
        move = model.step(damped)
        _, reached = objective.loss_and_outputs(theta + move)
        objective.correction(theta, model, damped, move, reached)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    matrix = 8 * 3 * network.size * min(network.size, rows * outputs)
    assert peak <= full_batch._MATRICES * matrix


@pytest.mark.parametrize("rows", [30, 4], ids=["more rows", "more parameters"])
@pytest.mark.parametrize("start", [0.0, 1.0], ids=["theta of zeros", "drawn theta"])
def test_a_damping_of_0_is_the_least_that_keeps_the_matrix_regular(
    xp: Any, start: float, rows: int
) -> None:
    theta, (x, y) = start * xp.initialize(NETWORK, stack=2), xp.put(X[:rows], Y[:rows])
    result = bx.fit(NETWORK, theta, x, y, optimizer=bx.LevenbergMarquardt(0.0), epochs=20)
    losses = result.history["loss"]
    assert np.isfinite(losses).all()
    assert (np.diff(losses, axis=0) <= 0.0).all()


def test_a_damping_of_another_shape_is_an_error(xp: Any) -> None:
    theta = xp.initialize(NETWORK, stack=2)
    for shape in ((2, 16), (2,)):
        optimizer = bx.LevenbergMarquardt(xp.asarray(np.ones(shape)))
        with pytest.raises(ValueError, match=r"damping .*\(\*stack, 1\)"):
            _fit(xp, theta, optimizer=optimizer)
    with pytest.raises(ValueError, match="damping must be"):
        bx.LevenbergMarquardt(-1.0)
    with pytest.raises(TypeError, match="'dampin'"):
        bx.LevenbergMarquardt(dampin=1.0)  # type: ignore[call-arg]


def test_a_state_of_another_optimizer_or_stack_is_an_error(xp: Any) -> None:
    theta = xp.initialize(NETWORK, stack=2)
    begun = bx.fit(NETWORK, theta, *xp.put(X, Y), optimizer=bx.Adam(), epochs=1)
    with pytest.raises(TypeError, match="AdamState, but LevenbergMarquardt resumes from"):
        _fit(xp, theta, start=begun)
    state = _fit(xp, theta, epochs=1).state
    wrong = state.optimizer_state._replace(damping=theta)
    with pytest.raises(ValueError, match=r"state\.damping has shape \(2, 16\), .*\(2, 1\) is exp"):
        _fit(xp, theta, start=state._replace(optimizer_state=wrong))


@pytest.mark.parametrize(("curvature", "fault"), [(-1.0, "eigenvalue -1"), (np.nan, "not finite")])
def test_an_impossible_curvature_is_an_error_that_names_the_loss(
    xp: Any, curvature: float, fault: str
) -> None:
    right = bx.losses.log_cosh
    wrong = bx.Loss(right.value, right.gradient, curvature=lambda o, t: curvature + 0.0 * o)
    network = bx.Network(NETWORK.layers, wrong)
    with pytest.raises(ValueError, match=rf"log_cosh.* cannot be used .*{fault}.* bx\.check_loss"):
        _fit(xp, xp.initialize(network), network=network)
    report = bx.check_loss(wrong, *xp.put([[0.3]], [[0.0]]))
    assert fault in report.diagnosis


def test_float32_stays_float32_and_reaches_the_loss_of_float64(xp: Any) -> None:
    theta = xp.initialize(NETWORK, dtype="float32", stack=4)
    x, y = xp.put(X, Y, dtype="float32")
    result = bx.fit(NETWORK, theta, x, y, optimizer=bx.LevenbergMarquardt(), epochs=40, l2=1e-4)
    assert result.theta.dtype == theta.dtype
    finer = bx.fit(
        NETWORK, NETWORK.initialize(stack=4, backend="numpy"), X, Y,
        optimizer=bx.LevenbergMarquardt(), epochs=40, l2=1e-4,
    )  # fmt: skip
    least = np.min(finer.history["loss"][-1])
    assert np.min(result.history["loss"][-1]) < 1.05 * least


def test_a_curvature_that_becomes_negative_counts_as_0(xp: Any) -> None:
    """Else its root is not a number, and the training ends there in silence."""
    half = bx.losses.half_squared_error
    odd = bx.Loss(
        half.value,
        half.gradient,
        curvature=lambda o, t: 1.0 - 1.5 * array_namespace(o).astype(o > 0.5, o.dtype),
    )
    network = bx.Network(NETWORK.layers, odd)
    # The last layer is 0, and so are the first outputs.
    theta = xp.asarray(xp.host(xp.initialize(network)) * (np.arange(network.size) < 10))
    result = _fit(xp, theta, network=network, epochs=60)
    assert result.history["loss"][-1] < 1e-3
    _, matrix = network.gauss_newton(result.theta, *xp.put(X, Y))
    assert np.linalg.eigvalsh(xp.host(matrix)).min() > -1e-5 * float(np.max(xp.host(matrix)))


def test_a_bent_move_that_no_network_takes_is_not_evaluated_on_the_host(xp: Any) -> None:
    unbent, bent, asked = xp.asarray([1.0, 2.0]), xp.asarray([1.0, 1.5]), []

    def value() -> Any:
        asked.append(None)
        return bent

    assert where_any(xp.asarray([[False], [True]]), unbent, value) is bent
    assert len(asked) == 1
    found = where_any(xp.asarray([[False], [False]]), unbent, value)
    on_host = xp.name == "numpy"
    assert found is (unbent if on_host else bent)
    assert len(asked) == (1 if on_host else 2)
