"""scikit-learn's rules of L-BFGS: iterations, evaluations, the gradient, and each start alone."""

import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.neural_network
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning

import backprop_xp as bx
from backprop_xp.estimators.scikit_learn_lbfgs import LimitedLBFGS
from tests.helpers import thorough

pytestmark = pytest.mark.long

# Twenty iterations amplify the rounding of stacked products.
ROUNDING = 1e-5
# The loss beside scikit-learn's: each is ahead in some of 30 trainings, by chance. The ratio's
# geometric mean is known to this factor; it is 0.9 for classes, and lower for values, whose
# outputs begin in the targets' units.
AS_GOOD = 1.1
X = np.linspace(-2.0, 2.0, 40)[:, None]
Y = np.sin(2.0 * X)
NETWORK = bx.mlp([1, 6, 1], hidden="tanh", loss="half_squared_error")


def _fit(xp: Any, theta: Any, optimizer: LimitedLBFGS, epochs: int = 400) -> Any:
    return bx.fit(NETWORK, theta, *xp.put(X, Y), optimizer=optimizer, epochs=epochs, l2=1e-4)


def test_each_network_ends_by_its_own_rules_as_it_does_alone(xp: Any) -> None:
    theta, optimizer = xp.initialize(NETWORK, stack=4), LimitedLBFGS(1e-2, 20)
    together = _fit(xp, theta, optimizer).state.optimizer_state
    iterations = xp.host(together.iterations)[:, 0]
    assert len(set(iterations)) > 1
    for i in range(4):
        alone = _fit(xp, theta[i, :], optimizer).state.optimizer_state
        assert xp.host(alone.iterations)[0] == iterations[i]
        xp.assert_close(alone.loss, together.loss[i, :], ROUNDING)


@pytest.mark.parametrize("most", [1, 7])
def test_an_iteration_is_a_move(xp: Any, most: int) -> None:
    moves, before = 0, xp.initialize(NETWORK)

    def count(state: Any) -> None:
        nonlocal moves, before
        # The first epoch evaluates theta, in the targets' units, and does not move it.
        moves += state.epoch > 1 and bool((xp.host(state.theta) != xp.host(before)).any())
        before = xp.asarray(xp.host(state.theta))

    options = {"optimizer": LimitedLBFGS(0.0, most), "epochs": 60, "callbacks": [count]}
    result = bx.fit(NETWORK, before, *xp.put(X, Y), **options)
    assert moves == xp.host(result.optimizer_state.iterations)[0] == most
    assert not xp.host(result.optimizer_state.settled).any()


def test_a_flat_gradient_ends_a_training(xp: Any) -> None:
    theta, tolerance = xp.initialize(NETWORK), 2e-3
    state = _fit(xp, theta, LimitedLBFGS(tolerance, 1000)).state
    _, gradient = NETWORK.loss_and_gradient(state.theta, *xp.put(X, Y), l2=1e-4)
    assert 0.0 < np.abs(xp.host(gradient)).max() <= tolerance
    assert xp.host(state.optimizer_state.settled).all()
    few = int(xp.host(state.optimizer_state.iterations)[0]) - 1
    earlier = _fit(xp, theta, LimitedLBFGS(tolerance, few)).theta
    _, gradient = NETWORK.loss_and_gradient(earlier, *xp.put(X, Y), l2=1e-4)
    assert np.abs(xp.host(gradient)).max() > tolerance


@pytest.mark.parametrize("most", [1, 9])
def test_max_fun_bounds_the_evaluations(most: int) -> None:
    calls, half = [], bx.losses.half_squared_error

    def gradient(o: Any, t: Any) -> Any:
        calls.append(1)
        return half.gradient(o, t)

    model = bx.MLPRegressor(bx.Loss(half.value, gradient), 5, solver="lbfgs", max_fun=most)
    with pytest.warns(ConvergenceWarning, match=r"of evaluations \(max_fun\)"):
        model.fit(X, Y[:, 0])
    assert len(calls) == most


@pytest.mark.once
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_loss_that_is_not_finite_ends_a_training_and_is_named() -> None:
    calls, half = [], bx.losses.half_squared_error

    def gradient(o: Any, t: Any) -> Any:
        calls.append(1)
        return half.gradient(o, t)

    model = bx.MLPRegressor(bx.Loss(half.value, gradient), 5, solver="lbfgs")
    with pytest.warns(ConvergenceWarning, match="after 0 iteration.*loss is not finite. Scale"):
        model.fit(X, 1e160 * Y[:, 0])
    assert len(calls) < 30


@pytest.mark.once
def test_trainings_with_relu_converge_where_scikit_learns_do() -> None:
    x, y = load_iris(return_X_y=True)
    for seed in range(6):
        model = bx.MLPClassifier(hidden_layer_sizes=4, solver="lbfgs", max_iter=2000)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            model.set_params(random_state=seed).fit(x, y)


def test_in_float32_a_rounding_of_the_loss_ends_a_training(xp: Any) -> None:
    theta = xp.asarray(xp.host(xp.initialize(NETWORK)), dtype="float32")
    data = [xp.asarray(part, dtype="float32") for part in (X, Y)]
    options = {"optimizer": LimitedLBFGS(0.0, 10**4), "epochs": 4000}
    losses = bx.fit(NETWORK, theta, *data, l2=1e-2, **options).history["loss"]
    falls = -np.diff(losses[np.flatnonzero(np.diff(losses, prepend=np.inf) < 0.0)])
    assert falls[-1] <= np.finfo(np.float32).eps < falls[:-1].min()


@pytest.mark.once
@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        *(("classes", "tanh"), ("values", "relu")),
        *(thorough("classes", "relu"), thorough("values", "tanh")),
    ],
)
def test_the_loss_is_as_low_as_scikit_learns(kind: str, activation: str) -> None:
    draw, logarithms = np.random.default_rng(2), []
    x = draw.normal(size=(80, 3))
    signal = np.sin(2.0 * x[:, 0]) + x[:, 1] * x[:, 2]
    y = np.digitize(signal, [-0.5, 0.5]) if kind == "classes" else signal
    name = "MLPClassifier" if kind == "classes" else "MLPRegressor"
    options: dict[str, Any] = {"hidden_layer_sizes": 8, "activation": activation, "alpha": 0.1}
    options |= {"solver": "lbfgs", "max_iter": 60}
    for seed in range(8):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            losses = [
                getattr(module, name)(**options, random_state=seed).fit(x, y).loss_
                for module in (bx, sklearn.neural_network)
            ]
        logarithms.append(np.log(losses[0] / losses[1]))
    assert np.exp(np.mean(logarithms)) <= AS_GOOD
