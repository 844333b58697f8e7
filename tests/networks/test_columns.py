"""Layers for the columns of a table, against closed forms and other libraries' autograd."""

from typing import Any

import numpy as np

import backprop_xp as bx


def test_scale_multiplies_each_feature_and_starts_at_1(xp: Any) -> None:
    layer, x = bx.Scale(3), xp.asarray([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    (ones,) = layer.initialize(np.random.default_rng(0))
    assert ones.tolist() == [[1.0, 1.0, 1.0]]
    y, cache = layer.forward([xp.asarray([[2.0, 0.5, -1.0]])], x, None)
    xp.assert_equal(y, [[2.0, 1.0, -3.0], [8.0, 2.5, -6.0]])
    back, (gradient,) = layer.backward([xp.asarray([[2.0, 0.5, -1.0]])], cache, x)
    xp.assert_equal(back, y)
    xp.assert_equal(gradient, [[17.0, 29.0, 45.0]])
    network = bx.Network([layer, bx.Dense(3, 1)], "huber")
    mask = network.weight_mask(xp.initialize(network))
    xp.assert_equal(mask, [0.0] * 3 + [1.0] * 3 + [0.0])
