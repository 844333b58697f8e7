"""L-BFGS: the textbook's direction, SciPy's evaluations, and its line search.

Specifies ``line_search``.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.optimizers import lbfgs, line_search
from backprop_xp.training.optimizers.line_search import Trial
from tests.helpers import thorough

# Some hundred roundings of sums in another order.
ROUNDING = 1e-9
# Losses after as many evaluations of SciPy and here: each is ahead in some of 80 trainings, by
# chance. Their ratio's geometric mean is known to this factor; 160 trainings gave 0.95 to 0.99.
AS_GOOD = 1.05
generator = np.random.default_rng(80)


def _two_loops(gradient: np.ndarray, moves: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Return Nocedal and Wright 2006, algorithm 7.4; the pairs are the latest last."""
    q, pairs = gradient.copy(), [*zip(moves, changes, strict=True)]
    alphas = []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (s @ y))
        q -= alphas[-1] * y
    r = q * (moves[-1] @ changes[-1] / (changes[-1] @ changes[-1]))
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += s * (alpha - y @ r / (s @ y))
    return r


@pytest.mark.parametrize("known", [1, 3, 5])
def test_the_direction_is_that_of_the_two_loops(xp: Any, known: int) -> None:
    hessian = np.diag(np.arange(1.0, 8.0))
    gradient, moves = generator.normal(size=(2, 7)), generator.normal(size=(2, 5, 7))
    moves[:, : 5 - known] = 0.0
    changes = moves @ hessian
    found = lbfgs._times_inverse(*xp.put(moves, changes, gradient))
    expected = [
        _two_loops(g, s[-known:], y[-known:])
        for g, s, y in zip(gradient, moves, changes, strict=True)
    ]
    xp.assert_close(found, np.stack(expected), ROUNDING)


def test_without_a_memory_the_direction_is_the_gradients(xp: Any) -> None:
    gradient, memory = xp.put(generator.normal(size=7), np.zeros((5, 7)))
    xp.assert_close(lbfgs._times_inverse(memory, memory, gradient), gradient)


def _problems() -> list[tuple[bx.Network, np.ndarray, np.ndarray]]:
    """Return ten networks with data: curves, surfaces, a penalty, counts, classes, an equation."""
    draw = np.random.default_rng(3)
    x = draw.uniform(-1.0, 1.0, (60, 3))
    curve, wave = np.linspace(-2.0, 2.0, 40)[:, None], np.sin(3.0 * x[:, :1]) * x[:, 1:2]
    classes = np.eye(3)[np.digitize(x[:, 0] + x[:, 1] * x[:, 2], [-0.3, 0.3])]
    xor = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    options: dict[str, Any] = {"hidden": "tanh", "l2": 1e-5}
    return [
        (bx.mlp([1, 8, 1], **options), curve, np.sin(2.0 * curve)),
        (bx.mlp([1, 8, 8, 1], **options), curve, np.exp(-(curve**2))),
        (bx.mlp([1, 12, 1], **options), curve, np.abs(curve)),
        (bx.mlp([3, 10, 1], **options), x, wave),
        (bx.mlp([3, 10, 2], **options), x, np.concatenate([wave, x[:, 2:] ** 2], axis=1)),
        (bx.mlp([3, 6, 1], **options), x, wave + 0.3 * draw.normal(size=(60, 1))),
        (bx.mlp([3, 6, 1], loss="poisson", **options), x, draw.poisson(np.exp(2.0 * wave))),
        (bx.mlp([3, 8, 3], loss="categorical_cross_entropy", **options), x, classes),
        (bx.mlp([3, 8, 1], loss="binary_cross_entropy", **options), x, 1.0 * (wave > 0.0)),
        (bx.mlp([2, 3, 1], **options), xor, np.array([[0.0], [1.0], [1.0], [0.0]])),
    ]


@pytest.mark.installed
@pytest.mark.parametrize("starts", [3, thorough(8)])
def test_ten_problems_need_no_more_evaluations_than_scipys(starts: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    evaluations = 80
    options = {"maxfun": evaluations, "maxiter": 10**6, "ftol": 0.0, "gtol": 0.0, "maxcor": 10}
    logarithms = []
    for network, x, y in _problems():
        theta, y = network.initialize(5, stack=starts, backend="numpy"), 1.0 * y
        optimizer = bx.LBFGS(tolerance=0.0)
        result = bx.fit(network, theta, x, y, optimizer=optimizer, epochs=evaluations + 1)
        for i in range(starts):
            found = [np.inf]

            def evaluate(at: np.ndarray, found: list[float] = found, **data: Any) -> Any:
                loss, gradient = network.loss_and_gradient(at, x, y)  # noqa: B023
                found.append(float(loss))
                return float(loss), gradient

            optimize.minimize(evaluate, theta[i], jac=True, method="L-BFGS-B", options=options)
            theirs = min(found[: evaluations + 1])
            logarithms.append(np.log(result.history["loss"][evaluations, i] / theirs))
    assert np.exp(np.mean(logarithms)) <= AS_GOOD


def test_a_linear_model_is_solved(xp: Any) -> None:
    network = bx.Network([bx.Dense(4, 1)], "half_squared_error")
    x = generator.normal(size=(30, 4)) * np.array([1.0, 10.0, 0.1, 3.0])
    y = x @ generator.normal(size=(4, 1)) + 1.0
    theta, y = xp.initialize(network), y + np.cos(9.0 * y)
    result = bx.fit(network, theta, *xp.put(x, y), optimizer=bx.LBFGS(), epochs=500)
    assert result.epochs < 500
    least, *_ = np.linalg.lstsq(np.concatenate([x, np.ones((30, 1))], axis=1), y, rcond=None)
    # The loss is within 1e-9 of the least, theta within the root of that.
    xp.assert_close(result.theta, least[:, 0], 1e-4)


def test_the_loss_of_an_epoch_is_that_of_theta_and_never_rises(xp: Any) -> None:
    network, x, y = _problems()[0]
    theta = xp.initialize(network, stack=2)
    result = bx.fit(network, theta, *xp.put(x, y), optimizer=bx.LBFGS(), epochs=30)
    losses = result.history["loss"]
    assert (np.diff(losses, axis=0) <= 0.0).all()
    # The first point has the targets' mean and deviation.
    assert (losses[0] <= xp.host(network.loss(theta, *xp.put(x, y))) + ROUNDING).all()
    assert (xp.host(network.loss(result.theta, *xp.put(x, y))) <= losses[-1] + ROUNDING).all()


def test_each_network_of_a_stack_has_the_line_search_that_it_has_alone(xp: Any) -> None:
    network, x, y = _problems()[3]
    theta = xp.initialize(network, stack=3)
    theta = theta * xp.asarray([[1.0], [30.0], [0.1]])
    x, y = xp.put(x, y)
    together = bx.fit(network, theta, x, y, optimizer="lbfgs", epochs=15)
    for i in range(3):
        alone = bx.fit(network, theta[i, :], x, y, optimizer="lbfgs", epochs=15)
        losses = together.history["loss"][:, i]
        # Fifteen evaluations amplify the rounding of stacked products.
        np.testing.assert_allclose(losses, alone.history["loss"], rtol=xp.rounding(1e-6))


def _line(xp: Any, length: float, value: float, slope: float) -> Trial:
    return Trial(*xp.put([[length]], [[value]], [[slope]]))


def test_a_cubic_is_minimized_between_the_ends_of_a_bracket(xp: Any) -> None:
    """The cubic t^3 - t has its minimum at the root of 1/3, here from 0 to 1."""
    low, high = _line(xp, 0.0, 0.0, -1.0), _line(xp, 1.0, 0.0, 2.0)
    xp.assert_close(line_search._between(low, high), [[1.0 / np.sqrt(3.0)]])


@pytest.mark.parametrize(("minimum", "expected"), [(0.01, 0.1), (0.3, 0.3), (0.99, 0.9)])
def test_a_point_between_keeps_a_tenth_of_the_bracket_from_both_ends(
    xp: Any, minimum: float, expected: float
) -> None:
    """The square (t - minimum)^2, from 0 to 1."""
    ends = (_line(xp, t, (t - minimum) ** 2, 2.0 * (t - minimum)) for t in (0.0, 1.0))
    xp.assert_close(line_search._between(*ends), [[expected]], 1e-12)


@pytest.mark.parametrize(
    ("slope", "expected"),
    [(-0.6, 2.5), (-0.99, 5.0), (-1.5, 5.0), (-0.01, 2.1)],
    ids=["by the slopes", "nearly straight", "steeper", "nearly flat"],
)
def test_a_search_without_an_upper_end_grows_within_bounds(
    xp: Any, slope: float, expected: float
) -> None:
    """From the slope -1 at 0, and another at 1: by 1.1 to 4 times what the search came."""
    search = line_search.begun(*xp.put([[0.0]], [[-1.0]]))
    true = xp.namespace.ones_like(search.tries) > 0.0
    _, length = line_search.narrowed(search, _line(xp, 1.0, -0.9, slope), true)
    xp.assert_close(length, [[expected]], 1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_where_the_memory_gives_no_way_down_the_direction_is_the_gradients(xp: Any) -> None:
    # Squares of the changes underflow, and the scale of the memory overflows.
    theta = xp.asarray([1.0, -2.0])
    state = bx.LBFGS(memory=1).initialize(theta)
    huge = 1e30 if xp.dtype == "float32" else 1e200
    state = state._replace(
        gradient=theta, moves=xp.asarray([[huge, 0.0]]), changes=xp.asarray([[1.0 / huge, 0.0]])
    )
    new, loss = xp.namespace.ones_like(state.length) > 0.0, xp.namespace.ones_like(state.length)
    found = lbfgs._on_new_line(state, new, loss, 1.0)
    xp.assert_close(found.direction, xp.host(theta) / -np.sqrt(5.0), 1e-12)


@pytest.mark.parametrize("value", [np.inf, np.nan, 1e30])
def test_a_point_with_an_impossible_value_halves_the_bracket(xp: Any, value: float) -> None:
    low, high = _line(xp, 0.0, 1.0, -1.0), _line(xp, 1.0, value, np.nan)
    xp.assert_close(line_search._between(low, high), [[0.5]])


@pytest.mark.parametrize(
    ("point", "accepted", "is_low"),
    [
        ((1.0, 0.2, -0.1), True, False),  # low enough, and flat
        ((1.0, 0.2, -0.95), False, True),  # still steep
        ((1.0, 0.2, 0.95), False, False),  # too far: it rises again
        ((1.0, 1.1, 0.0), False, False),  # too high
        ((1.0, np.nan, np.nan), False, False),
    ],
)
def test_a_point_is_accepted_by_the_strong_wolfe_conditions(
    xp: Any, point: tuple[float, float, float], accepted: bool, is_low: bool
) -> None:
    search = line_search.begun(*xp.put([[1.0]], [[-1.0]]))
    found = line_search.is_accepted(search, _line(xp, *point))
    assert [xp.host(each).item() for each in found] == [accepted, is_low]


def test_a_search_that_does_not_end_begins_anew_and_then_ends_the_training(xp: Any) -> None:
    """A gradient of the wrong sign: no point of any line is low enough."""
    right = bx.losses.half_squared_error
    wrong = bx.Loss(right.value, lambda o, t: -right.gradient(o, t))
    network = bx.Network([bx.Dense(1, 1)], wrong)
    theta, x, y = xp.put([0.5, 0.0], [[1.0]], [[0.0]])
    result = bx.fit(network, theta, x, y, optimizer="lbfgs", epochs=100)
    assert result.epochs < 100
    xp.assert_close(result.theta, theta)


def test_a_jump_of_the_slope_ends_a_search_at_the_point_before_it(xp: Any) -> None:
    """The function |t - 0.7|: no point is flat enough, and that before the jump is low."""
    search, length = line_search.begun(*xp.put([[0.7]], [[-1.0]])), 1.0
    for _ in range(12):
        point = _line(xp, length, abs(length - 0.7), 1.0 if length > 0.7 else -1.0)
        accepted, is_low = line_search.is_accepted(search, point)
        if xp.host(accepted).item():
            break
        search, following = line_search.narrowed(search, point, is_low)
        length = xp.host(following).item()
    assert xp.host(accepted).item()
    assert 0.6 < length < 0.7


@pytest.mark.float64
@pytest.mark.parametrize("size", [1e160, 1e200])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_first_loss_that_is_not_finite_ends_the_training(xp: Any, size: float) -> None:
    network = bx.mlp([1, 2, 1], loss="half_squared_error")
    theta, x, y = xp.initialize(network), *xp.put([[0.0], [1.0]], [[0.0], [size]])
    result = bx.fit(network, theta, x, y, optimizer="lbfgs", epochs=100)
    assert result.epochs < 100
    xp.assert_equal(result.theta, theta)


@pytest.mark.parametrize("memory", [0, -1, 1.5])
def test_an_impossible_memory_is_an_error(memory: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="memory must be"):
        bx.LBFGS(memory)
