"""An epoch of minibatch training beside scikit-learn's MLP, on the same digits."""

from collections.abc import Callable

import numpy as np
import pytest

import backprop_xp as bx

datasets = pytest.importorskip("sklearn.datasets")
neural_network = pytest.importorskip("sklearn.neural_network")


@pytest.mark.parametrize("hidden", [32, 256])
def test_epoch_of_digits(compare: Callable[..., object], hidden: int) -> None:
    x, labels = datasets.load_digits(return_X_y=True)
    x = x / 16.0
    network = bx.mlp([64, hidden, 10], loss="categorical_cross_entropy", l2=1e-4)
    theta = network.initialize(0, backend="numpy", dtype="float64")
    targets = bx.data.one_hot(labels).astype(np.float64)
    peer = neural_network.MLPClassifier((hidden,), batch_size=64, alpha=1e-4, random_state=0)
    peer.partial_fit(x, labels, classes=np.arange(10))

    def epoch() -> None:
        bx.fit(network, theta, x, targets, optimizer=bx.Adam(), epochs=1, batch_size=64)

    compare(epoch, lambda: peer.partial_fit(x, labels), "scikit-learn's epoch")
