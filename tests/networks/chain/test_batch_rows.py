"""Rows at indices of each network, and the rows that stand for those of weight 0."""

from typing import Any

import numpy as np
import pytest

from backprop_xp.networks.chain.batch_rows import Rows, counted, rows_at

ROWS = 6


@pytest.mark.parametrize(
    ("axes", "own"), [((), (3, 2)), ((1,), (2,)), ((2,), (3, 1)), ((3, 1), (2,)), ((3, 2), ())]
)
def test_rows_at_indices_of_each_member_have_the_axes_of_both(
    xp: Any, axes: tuple[int, ...], own: tuple[int, ...]
) -> None:
    array = np.arange(float(np.prod(axes)) * ROWS * 2).reshape(*axes, ROWS, 2)
    indices = np.random.default_rng(0).integers(0, ROWS, (*own, 4))
    stack = np.broadcast_shapes(axes, own)
    whole = np.broadcast_to(array, (*stack, ROWS, 2))
    expected = np.take_along_axis(whole, np.broadcast_to(indices, (*stack, 4))[..., None], -2)
    found = rows_at(xp.asarray(array), xp.asarray(indices, dtype="int32"))
    assert np.array_equal(xp.host(found), expected)


@pytest.mark.parametrize("stacked", ["", "rows", "weights", "both"])
def test_the_heaviest_row_is_in_the_place_of_each_row_of_weight_0(xp: Any, stacked: str) -> None:
    """It may be that of each network. x is 0 if all rows of a network weigh nothing, y is not."""
    rows = np.arange(12.0).reshape(ROWS, 2)
    weights, own = np.array([[1.0, 0, 3, 2, 0, 0], [0, 0, 0, 0, 0, 0]]), [[0, 2, 2, 3, 2, 2], []]
    expected = np.stack([rows[own[0]], np.zeros_like(rows)])
    if stacked in ("", "rows"):
        weights, expected = weights[0], expected[0]
    if stacked in ("rows", "both"):
        rows, expected = np.stack([rows, rows]), np.broadcast_to(expected, (2, ROWS, 2))
    rows = np.where((weights == 0.0)[..., None], np.inf, rows) if stacked != "weights" else rows
    labels = xp.asarray(rows[..., :1] > 2.0, dtype="int32")
    found = counted(Rows(xp.asarray(rows), labels, xp.asarray(weights)))
    assert np.array_equal(xp.host(found.x), expected)
    classes, first = xp.host(found.y), xp.host(labels)[..., :1, :]
    assert classes.dtype == np.int32
    if stacked in ("weights", "both"):
        assert np.array_equal(classes[1], np.broadcast_to(first, (2, 1, 1))[1].repeat(ROWS, 0))
