"""A gradient check of every entry, beside PyTorch's and the tutorial's loop.

The network is [64, 100, 10]; the check is by the complex step on NumPy in float64.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest

import backprop_xp as bx
from benchmarks import tutorial

# A round takes a second.
ROUNDS = 11

SIZES = [64, 100, 10]
BATCH = 32
WHAT = "a gradient check of 64-100-10, every entry"


class Case(NamedTuple):
    """A network of 7,510 parameters, and the arguments of its loss."""

    network: bx.Network
    theta: np.ndarray
    x: np.ndarray
    y: np.ndarray

    def check(self) -> bx.GradientReport:
        """Check every entry, and return the numeric gradient too."""
        report = bx.check_network(*self, method="complex_step")
        assert report.passed
        assert report.numeric.shape == self.theta.shape
        return report


@pytest.fixture
def case() -> Case:
    generator = np.random.default_rng(0)
    network = bx.mlp(SIZES, hidden="sigmoid", output="sigmoid", loss="mean_squared_error")
    theta = network.initialize(0, backend="numpy", dtype="float64")
    x, y = generator.normal(size=(BATCH, SIZES[0])), generator.uniform(size=(BATCH, SIZES[-1]))
    return Case(network, theta, x, y)


@pytest.fixture
def torch() -> Iterator[Any]:
    """Return PyTorch on one thread: a second one gains nothing on arrays this small."""
    module = pytest.importorskip("torch", reason="the peer, PyTorch, is not installed")
    threads = module.get_num_threads()
    module.set_num_threads(1)
    yield module
    module.set_num_threads(threads)


def test_every_entry_beside_torch(compare: Callable[..., object], torch: Any, case: Case) -> None:
    layers = case.network.unpack(case.theta)
    parameters = [torch.tensor(p, requires_grad=True) for layer in layers for p in layer]
    x, y = torch.asarray(case.x), torch.asarray(case.y)

    def loss(weights_1: Any, bias_1: Any, weights_2: Any, bias_2: Any) -> Any:
        hidden = torch.sigmoid(x @ weights_1 + bias_1)
        return torch.mean((torch.sigmoid(hidden @ weights_2 + bias_2) - y) ** 2)

    assert loss(*parameters).item() == pytest.approx(float(case.network.loss(*case[1:])))
    compare(
        case.check,
        lambda: torch.autograd.gradcheck(loss, parameters),
        "torch.autograd.gradcheck",
        what=WHAT,
        aim=1 / 8,
        rounds=ROUNDS,
    )


def test_every_entry_beside_the_tutorial(compare: Callable[..., object], case: Case) -> None:
    thetas = tutorial.start(SIZES, seed=0)
    compare(
        case.check,
        lambda: tutorial.numeric_gradient(thetas, case.x, case.y),
        "tutorial's loop",
        what=WHAT,
        aim=1 / 4,
        rounds=ROUNDS,
    )
