"""The tutorial that this library started from: the same trajectory, and its wrong claims.

The reference is the tutorial's algorithm in plain NumPy. It has one matrix per layer,
``(n_out, n_in + 1)``; column 0 is the bias and multiplies a column of ones.
"""

import itertools
import math
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from tests.helpers import thorough

# XOR, in integers.
ROWS = [[0, 0], [0, 1], [1, 0], [1, 1]]
TARGETS = [[0], [1], [1], [0]]
# The tutorial's step, and ours: its "gradient" is m / 2 times the true one, for m = 4 rows.
TUTORIAL_STEP = 0.1
OUR_STEP = TUTORIAL_STEP * len(ROWS) / 2
# The step of its numeric gradient.
TUTORIAL_EPSILON = 0.01

# Two orders of the same sums differ by 1e-16 or 6e-8 a step. A plateau amplifies that little over
# 10,000 steps in float64 and 200 in float32.
SAME_TRAJECTORY = {"float64": 1e-9, "float32": 1e-5}
# A gradient times an integer is right to a few roundings.
ROUNDING = 1e-13

ARCHITECTURES = [[2, 2, 1], [2, 2, 2, 1]]
every_architecture = pytest.mark.parametrize("sizes", ARCHITECTURES, ids=str)


def _network(sizes: list[int]) -> bx.Network:
    return bx.mlp(sizes, hidden="sigmoid", output="sigmoid", loss="mean_squared_error")


def _start(sizes: list[int], seed: int) -> list[np.ndarray]:
    """Draw the tutorial's matrices as it does: by ``numpy.random.rand``, from [0, 1)."""
    rand = np.random.RandomState(seed).rand
    return [rand(n_out, n_in + 1) for n_in, n_out in itertools.pairwise(sizes)]


def _theta(xp: Any, network: bx.Network, matrices: list[np.ndarray]) -> Any:
    """Return the tutorial's matrices, or its gradients, as a theta."""
    return network.pack([(xp.asarray(m[:, 1:].T), xp.asarray(m[:, :1].T)) for m in matrices])


def _tutorial_gradient(matrices: list[np.ndarray]) -> list[np.ndarray]:
    """Return the tutorial's update direction, one array per matrix."""
    a = np.array(ROWS, dtype=np.float64)
    inputs = []
    for matrix in matrices:
        inputs.append(np.concatenate([np.ones((len(a), 1)), a], axis=1))
        a = 1.0 / (1.0 + np.exp(-(inputs[-1] @ matrix.T)))
    delta = (a - np.array(TARGETS)) * a * (1.0 - a)
    gradients = []
    for matrix, a in zip(reversed(matrices), reversed(inputs), strict=True):
        gradients.append(delta.T @ a)
        # The column of ones has no gradient.
        delta = ((delta @ matrix) * a * (1.0 - a))[:, 1:]
    return gradients[::-1]


def _tutorial_epoch(matrices: list[np.ndarray]) -> list[np.ndarray]:
    gradients = _tutorial_gradient(matrices)
    return [m - TUTORIAL_STEP * g for m, g in zip(matrices, gradients, strict=True)]


def _difference(network: bx.Network, theta: Any, h: float, *, centered: bool = True) -> Any:
    """Return a numeric gradient with step h, from one stack of perturbed copies."""
    xp = bx.backends.array_namespace(theta)
    steps = h * xp.eye(network.size, dtype=theta.dtype, device=bx.backends.device_of(theta))
    above = network.loss(theta + steps, ROWS, TARGETS)
    if centered:
        return (above - network.loss(theta - steps, ROWS, TARGETS)) / (2.0 * h)
    return (above - network.loss(theta, ROWS, TARGETS)) / h


def _gradient(network: bx.Network, theta: Any) -> Any:
    return network.loss_and_gradient(theta, ROWS, TARGETS)[1]


def _relative(xp: Any, network: bx.Network, one: Any, other: Any) -> float:
    """Return the relative difference of two gradients in the tutorial's first matrix, THETA[0]."""
    a, b = (
        np.concatenate([xp.host(part).ravel() for part in network.unpack(gradient)[0]])
        for gradient in (one, other)
    )
    return float(np.max(np.abs(a - b)) / max(np.max(np.abs(a)), np.max(np.abs(b))))


@pytest.mark.parametrize(
    ("sizes", "epochs"), [*((sizes, 200) for sizes in ARCHITECTURES), thorough([2, 2, 1], 10_000)]
)
def test_training_follows_the_tutorials_trajectory(xp: Any, sizes: list[int], epochs: int) -> None:
    """The tutorial has 10,000 epochs."""
    network, matrices = _network(sizes), _start(sizes, seed=0)
    theta = _theta(xp, network, matrices)
    first_loss = float(network.loss(theta, ROWS, TARGETS))
    rows, options = (ROWS, TARGETS), {"optimizer": bx.SGD(OUR_STEP), "epochs": epochs}
    for state in bx.train(network, theta, *rows, **options):
        matrices = _tutorial_epoch(matrices)
        if state.epoch % 25 == 0 or state.epoch in (1, 2, 10):
            found, expected = xp.host(state.theta), xp.host(_theta(xp, network, matrices))
            close, epoch = SAME_TRAJECTORY[xp.dtype], f"epoch {state.epoch}"
            np.testing.assert_allclose(found, expected, rtol=0, atol=close, err_msg=epoch)
    assert state.epoch == state.step == epochs
    assert float(state.loss) < first_loss


@pytest.mark.once
def test_cross_entropy_shortens_the_plateau_on_which_the_tutorial_gets_stuck(xp: Any) -> None:
    starts = [_start([2, 2, 1], seed) for seed in range(32)]

    def solved(network: bx.Network) -> float:
        theta = xp.namespace.stack([_theta(xp, network, matrices) for matrices in starts])
        result = bx.fit(network, theta, ROWS, TARGETS, optimizer=bx.SGD(OUR_STEP), epochs=4000)
        errors = np.abs(xp.host(network.predict(result.theta, ROWS)) - np.array(TARGETS))
        return float(np.mean(np.max(errors, axis=(-2, -1)) < 0.5))

    squared = solved(_network([2, 2, 1]))
    entropy = solved(bx.mlp([2, 2, 1], hidden="sigmoid", loss="binary_cross_entropy"))
    assert squared + 0.25 < entropy


@every_architecture
@pytest.mark.parametrize("seed", range(2))
def test_the_tutorials_gradient_is_half_the_rows_times_the_true_one_in_our_layout(
    xp: Any, sizes: list[int], seed: int
) -> None:
    network, matrices = _network(sizes), _start(sizes, seed)
    theta = _theta(xp, network, matrices)
    for matrix, (weights, bias) in zip(matrices, network.unpack(theta), strict=True):
        ours = np.concatenate([xp.host(bias).T, xp.host(weights).T], axis=1)
        assert np.array_equal(ours, np.asarray(matrix).astype(xp.dtype))
    theirs = xp.host(_theta(xp, network, _tutorial_gradient(matrices)))
    expected = len(ROWS) / 2 * xp.host(_gradient(network, theta))
    close = xp.rounding(ROUNDING) * float(np.max(np.abs(expected)))
    np.testing.assert_allclose(theirs, expected, rtol=0, atol=close)


@pytest.mark.float64
def test_a_difference_errs_by_its_order_which_the_tutorial_confuses(xp: Any) -> None:
    sizes = ARCHITECTURES[1]
    network = _network(sizes)
    theta = _theta(xp, network, _start(sizes, seed=2))
    exact = xp.host(_gradient(network, theta))
    for centered, order in ((True, 2), (False, 1)):
        # Large enough that rounding (1e-16 / h) stays far below the measured truncation.
        found = (_difference(network, theta, h, centered=centered) for h in (0.02, 0.01))
        coarse, fine = (float(np.max(np.abs(xp.host(slopes) - exact))) for slopes in found)
        # The next term of Taylor's series changes the slope by a few percent at these steps.
        assert math.log2(coarse / fine) == pytest.approx(order, abs=0.1)


# The setting of a check as in the tutorial, and the range of its median.
CHECKS = {
    # It updates theta between the two gradients.
    "at two points": (3e-3, 3e-1),
    "at one point": (4e-7, 4e-5),
    "at a sound step": (1e-12, 1e-7),
    "by the complex step": (0.0, 1e-14),
}


def _check(xp: Any, kind: str, seed: int) -> float:
    """Return the relative difference of backpropagation and a numeric gradient."""
    network = _network([2, 2, 2, 1])
    matrices = _start([2, 2, 2, 1], seed)
    theta = _theta(xp, network, matrices)
    methods = {"at a sound step": "centered", "by the complex step": "complex_step"}
    if kind in methods:
        report = bx.check_network(network, theta, ROWS, TARGETS, method=methods[kind])
        return _relative(xp, network, report.analytic, report.numeric)
    analytic = _gradient(network, theta)
    if kind == "at two points":
        theta = _theta(xp, network, _tutorial_epoch(matrices))
    return _relative(xp, network, analytic, _difference(network, theta, TUTORIAL_EPSILON))


@pytest.mark.float64
@pytest.mark.long
def test_a_gradient_check_is_as_good_as_its_point_and_its_step(xp: Any) -> None:
    """The tutorial loses digits because it uses two points, not because of its epsilon."""
    found = {kind: np.median([_check(xp, kind, seed) for seed in range(9)]) for kind in CHECKS}
    assert all(low <= found[kind] <= high for kind, (low, high) in CHECKS.items()), found
    assert found["at two points"] > 1000 * found["at one point"]
