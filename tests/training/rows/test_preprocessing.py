"""Preparing data: one-hot labels, standardized features, splits and minibatches."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.training.rows.preprocessing import other_rows, split_rows

# A mean and a root of a few numbers: some roundings of 2e-16.
ROUNDING = 1e-13

LABELS = [2, 0, 1, 1, 0]


def _table(rows: int = 11, columns: int = 3) -> np.ndarray:
    return np.random.default_rng(21).normal(5.0, 2.0, (rows, columns))


def _batches(xp: Any, *arrays: Any, **options: Any) -> list[tuple[np.ndarray, ...]]:
    return [
        tuple(np.array(xp.host(part)) for part in batch)
        for batch in bx.data.minibatches(*arrays, **options)
    ]


@pytest.mark.parametrize(
    ("labels", "dtype", "options"),
    [
        *[(LABELS, dtype, {}) for dtype in ("int8", "uint8", "int32", "int64")],
        (LABELS, "int32", {"n_classes": 5}),
        # More classes than the labels' dtype can hold.
        (LABELS, "uint8", {"n_classes": 300}),
        ([[[0, 1], [2, 0]], [[1, 1], [0, 2]]], "int64", {}),
    ],
)
def test_one_hot_has_a_1_at_each_label_and_keeps_dtype_and_device(
    xp: Any, labels: Any, dtype: str, options: dict[str, int]
) -> None:
    given = xp.asarray(labels, dtype=dtype)
    actual = bx.data.one_hot(given, **options)
    xp.assert_equal(actual, np.eye(options.get("n_classes", 3))[np.array(labels)])
    assert bx.backends.device_of(actual) == bx.backends.device_of(given)
    if options.get("n_classes") != 300:
        assert actual.dtype == given.dtype


def test_one_hot_accepts_booleans_and_lists(xp: Any) -> None:
    xp.assert_equal(bx.data.one_hot(xp.asarray([True, False], dtype=None)), [[0, 1], [1, 0]])
    assert np.array_equal(bx.data.one_hot([1, 0]), [[0, 1], [1, 0]])


def test_standardize_equals_scikit_learns(xp: Any) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    table = _table()
    table[:, 1] = 3.0
    scaler = preprocessing.StandardScaler().fit(table)
    actual = bx.data.standardize(xp.asarray(table))
    xp.assert_close(actual.x, scaler.transform(table), ROUNDING)
    xp.assert_close(actual.mean, scaler.mean_[None], ROUNDING)
    xp.assert_close(actual.scale, scaler.scale_[None], ROUNDING)


def test_other_rows_are_standardized_by_the_training_rows(xp: Any) -> None:
    table, others = _table(), _table(4) + 1.0
    train = bx.data.standardize(xp.asarray(table))
    test = bx.data.standardize(xp.asarray(others), mean=train.mean, scale=train.scale)
    expected = (others - np.mean(table, axis=0)) / np.std(table, axis=0)
    xp.assert_close(test.x, expected, ROUNDING)
    xp.assert_equal(test.mean, train.mean)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("value", "rows"), [(0.0, 11), (0.1, 1), (0.1, 20_000), (1e6, 11), (1e-30, 11)]
)
def test_a_constant_feature_becomes_0(xp: Any, dtype: str, value: float, rows: int) -> None:
    """The rounding of the mean of many rows, and another feature, do not change that."""
    table = np.stack([np.full(rows, value), np.arange(float(rows))], axis=1)
    actual = bx.data.standardize(xp.asarray(table, dtype=dtype))
    rounding = 100 * np.finfo(dtype).eps * abs(value)
    assert np.max(np.abs(xp.host(actual.x)[:, 0])) <= rounding
    assert xp.host(actual.scale)[0, 0] == 1.0


@pytest.mark.once
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_moves_the_mean_of_a_constant_feature_to_neither_side(dtype: str) -> None:
    values = np.linspace(0.1, 7.7, 60, dtype=dtype)
    table = np.repeat(values[None], 37, axis=0)
    assert {*np.sign(table.mean(axis=-2) - values)} == {-1.0, 0.0, 1.0}
    x, mean, scale = bx.data.standardize(table)
    assert np.array_equal(mean[0], values)
    assert not x.any()
    assert (scale == 1.0).all()


@pytest.mark.parametrize(("dtype", "exponent"), [("float32", 70), ("float64", 600)])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_unit_whose_squares_are_0_or_infinite_changes_nothing(
    xp: Any, dtype: str, exponent: int, sign: int
) -> None:
    """A power of 2 has no rounding of its own."""
    table, unit = _table(), 2.0 ** (sign * exponent)
    expected = bx.data.standardize(xp.asarray(table, dtype=dtype))
    actual = bx.data.standardize(xp.asarray(table * unit, dtype=dtype))
    rounding = 10 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(xp.host(actual.x), xp.host(expected.x), rounding, rounding)
    np.testing.assert_allclose(xp.host(actual.scale) / unit, xp.host(expected.scale), rounding)


@pytest.mark.float64
def test_a_feature_that_varies_little_is_not_constant(xp: Any) -> None:
    table = 1.0 + 1e-9 * _table()
    x = xp.host(bx.data.standardize(xp.asarray(table)).x)
    # The deviations are 1e-9 of the values, so 7 of 16 digits are left.
    np.testing.assert_allclose(np.std(x, axis=0), 1.0, rtol=1e-6)


def test_a_nan_affects_only_its_feature(xp: Any) -> None:
    table = _table()
    clean = bx.data.standardize(xp.asarray(table.copy()))
    table[3, 1] = np.nan
    dirty = bx.data.standardize(xp.asarray(table))
    assert np.all(np.isnan(xp.host(dirty.x)[:, 1]))
    assert np.array_equal(xp.host(dirty.x)[:, ::2], xp.host(clean.x)[:, ::2])


def test_integers_are_standardized_as_floating_numbers_and_float32_stays(xp: Any) -> None:
    actual = bx.data.standardize(xp.asarray([[1, 5], [3, 5]], dtype="int32"))
    xp.assert_equal(actual.x, [[-1.0, 0.0], [1.0, 0.0]])
    assert actual.x.dtype == xp.selection.backend.default_dtype(xp.selection.device)
    for array in bx.data.standardize(xp.asarray(_table(), dtype="float32")):
        assert array.dtype == xp.namespace.float32


def test_standardize_writes_to_no_argument() -> None:
    table = _table()
    table.flags.writeable = False
    bx.data.standardize(table)


def test_split_returns_training_rows_then_test_rows_of_each_array(xp: Any) -> None:
    x, y = _table().astype(xp.dtype), np.arange(11)
    parts = bx.data.split(xp.asarray(x), xp.asarray(y, dtype=None), test_size=3)
    x_train, x_test, y_train, y_test = (xp.host(part) for part in parts)
    assert (len(x_train), len(x_test)) == (8, 3)
    # y has the row indices, so it tells the origin of each row of x.
    assert np.array_equal(x_train, x[y_train])
    assert np.array_equal(x_test, x[y_test])
    assert sorted([*y_train, *y_test]) == list(range(11))


@pytest.mark.parametrize(
    ("test_size", "expected"),
    [(0.2, 3), (0.5, 6), (0.01, 1), (0.9, 10), (1, 1), (3, 3), (10, 10), (np.int64(4), 4)],
)
def test_a_test_size_is_a_share_rounded_up_or_a_count(test_size: Any, expected: int) -> None:
    train, test = bx.data.split(np.arange(11), test_size=test_size)
    assert (len(train), len(test)) == (11 - expected, expected)


@pytest.mark.once
def test_each_class_has_a_training_row_and_its_share_of_the_other_parts() -> None:
    classes = np.repeat([0, 1, 2], [8, 6, 1])
    for seed in range(10):
        parts = split_rows(15, {"validation": 0.3, "test": 0.2}, seed, classes=classes)
        assert sorted(np.concatenate([*parts.values()])) == [*range(15)]
        assert [len(rows) for rows in parts.values()] == [8, 4, 3]
        for name, most in (("validation", 2), ("test", 2)):
            assert max(np.bincount(classes[parts[name]])) <= most
        classes_of_one = np.concatenate([np.zeros(12, dtype=int), np.arange(1, 9)])
        parts = split_rows(20, {"validation": 0.3}, seed, classes=classes_of_one)
        assert {*range(12, 20)} < {*parts["training"].tolist()}
    # Two rows to train on are the fewest.
    assert len(split_rows(5, {"validation": 0.6}, 0)["training"]) == 2
    for rows, share in ((5, 0.7), (3, 0.3)):
        with pytest.raises(ValueError, match=f"^{rows} rows cannot be split"):
            split_rows(rows, {"validation": share}, 0)


@pytest.mark.once
def test_the_rows_that_are_not_held_out_are_those_of_each_network() -> None:
    assert other_rows(np.asarray([3, 1]), 5, ()).tolist() == [0, 2, 4]
    own = np.asarray([[0, 1], [3, 1]])
    assert other_rows(own, 4, (2,)).tolist() == [[2, 3], [0, 2]]
    with pytest.raises(ValueError, match="the index of a row twice"):
        other_rows(np.asarray([[0, 1], [3, 3]]), 4, (2,))


def test_split_shuffles_and_depends_only_on_the_seed(xp: Any) -> None:
    def rows(seed: int) -> list[int]:
        parts = bx.data.split(xp.asarray(np.arange(50), dtype=None), seed=seed)
        return [int(row) for part in parts for row in xp.host(part)]

    assert rows(0) == rows(0) != rows(1)
    assert rows(0) != sorted(rows(0))


@pytest.mark.parametrize("batch_size", [1, 4, 11, 100])
@pytest.mark.parametrize("shuffle", [True, False])
def test_minibatches_hold_each_row_once_and_keep_the_last_smaller_one(
    xp: Any, batch_size: int, shuffle: bool
) -> None:
    rows = xp.asarray(np.arange(11), dtype=None)
    batches = [b for (b,) in _batches(xp, rows, batch_size=batch_size, shuffle=shuffle)]
    full, rest = divmod(11, batch_size)
    assert [len(batch) for batch in batches] == [batch_size] * full + [rest] * (rest > 0)
    together = np.concatenate(batches)
    assert np.array_equal(np.sort(together), np.arange(11))
    if not shuffle:
        assert np.array_equal(together, np.arange(11))


def test_minibatches_keep_the_rows_of_their_arrays_together(xp: Any) -> None:
    x = _table().astype(xp.dtype)
    arrays = xp.asarray(x), xp.asarray(np.arange(11), dtype=None)
    for part, rows in _batches(xp, *arrays, batch_size=4):
        assert np.array_equal(part, x[rows])


def test_rows_are_split_and_batched_on_a_device_without_64_bit_numbers() -> None:
    pytest.importorskip("array_api_strict")
    choice = {"backend": "array-api-strict", "device": "no_x64"}
    x = bx.asarray(_table(), **choice)
    batches = [bx.data.minibatches(x, batch_size=4, shuffle=shuffle) for shuffle in (True, False)]
    for parts in (bx.data.split(x), *batches[0], *batches[1]):
        assert all(part.dtype == x.dtype and part.device == x.device for part in parts)
    options = {"optimizer": bx.SGD(0.1), "epochs": 1, "batch_size": 4}
    theta = bx.mlp([3, 1]).initialize(**choice)
    assert bx.fit(bx.mlp([3, 1]), theta, x, x[:, :1], **options).optimizer_state.step == 3


def test_the_order_of_minibatches_depends_on_the_seed_and_the_epoch(xp: Any) -> None:
    rows = xp.asarray(np.arange(50), dtype=None)

    def order(**options: int) -> list[int]:
        batches = _batches(xp, rows, batch_size=8, **options)
        return [int(row) for (batch,) in batches for row in batch]

    assert order(seed=0, epoch=0) == order(seed=0, epoch=0) == order()
    assert order() == [int(row) for (batch,) in _batches(xp, rows, batch_size=50) for row in batch]
    orders = {tuple(order(seed=seed, epoch=epoch)) for seed in (0, 1, 2) for epoch in (0, 1, 2)}
    assert len(orders) == 9


def test_strings_can_be_split_and_batched_too() -> None:
    names = np.array(["a", "b", "c", "d"])
    train, test = bx.data.split(names, test_size=1)
    assert sorted([*train, *test]) == list(names)


UNEQUAL = "The arrays must have equally many rows, at least 1, not "
NO_LABELS = r"classes, labels = numpy\.unique\(labels, return_inverse"
REFUSED: list[tuple[Callable[[], Any], Any, str]] = [
    (
        lambda: bx.data.one_hot([0.0, 1.0]),
        TypeError,
        r"labels must be integers from 0, not .*float",
    ),
    (lambda: bx.data.one_hot(["cat", "dog"]), TypeError, NO_LABELS),
    (lambda: bx.data.one_hot(np.array(["cat", "dog"])), TypeError, NO_LABELS),
    (lambda: bx.data.one_hot([]), (ValueError, TypeError), "labels"),
    (lambda: bx.data.one_hot(np.zeros(0, int)), ValueError, r"labels are empty \(shape \(0,\)\)"),
    (lambda: bx.data.one_hot([-1, 0]), ValueError, r"lie in 0 \.\.\. 0, but range from -1 to 0"),
    (lambda: bx.data.one_hot(LABELS, n_classes=2), ValueError, r"\.\.\. 1, but range from 0 to 2"),
    (
        lambda: bx.data.one_hot(LABELS, n_classes=0),
        ValueError,
        "n_classes must be an integer of at",
    ),
    (lambda: bx.data.standardize([1.0, 2.0]), ValueError, r"x has shape \(2,\), but \(batch, n\)"),
    (
        lambda: bx.data.standardize(np.zeros((0, 2))),
        ValueError,
        r"x has shape \(0, 2\), but \(batch",
    ),
    (lambda: bx.data.standardize(np.zeros((1, 2, 2))), ValueError, r"x has shape \(1, 2, 2\)"),
    (lambda: bx.data.standardize([["a"], ["b"]]), TypeError, "x has dtype <U1, but numbers are"),
    (lambda: _split(1.0), ValueError, r"test_size=1\.0 leaves no training rows of the 11 given"),
    (lambda: _split(11), ValueError, "test_size=11 leaves no training rows of the 11 given"),
    (lambda: _split(0), ValueError, "test_size must be .*not 0"),
    (lambda: _split(-0.3), ValueError, r"test_size .*-0\.3"),
    (lambda: _split(float("nan")), ValueError, "test_size .*nan"),
    (lambda: _split("3"), TypeError, "test_size must be .*not '3'"),
    (lambda: bx.data.split([[1.0], [1.0, 2.0]]), (ValueError, TypeError), r"arrays\[0\]"),
    (lambda: bx.data.split([["a"], ["b", "c"]]), (ValueError, TypeError), r"arrays\[0\]"),
    (lambda: bx.data.split(np.ones(3), np.ones(4)), ValueError, UNEQUAL + r"\[3, 4\]"),
    (lambda: bx.data.split(np.ones((0, 2))), ValueError, UNEQUAL + r"\[0\]"),
    (lambda: bx.data.split(np.ones(3), np.float64(1.0)), ValueError, UNEQUAL + r"\[3, 0\]"),
    (lambda: bx.data.split(), ValueError, "Give at least one array"),
    # The call of minibatches raises, before the first batch is drawn.
    (lambda: bx.data.minibatches(batch_size=2), ValueError, "Give at least one array"),
    (lambda: _batched(0), ValueError, "batch_size must be an integer of at least 1"),
    (lambda: _batched(2.5), TypeError, "batch_size must be an integer of at least 1"),
    (lambda: _batched(2, seed=-1), ValueError, "seed must be an integer of at least 0, not -1"),
    (lambda: _batched(2, epoch=-1), ValueError, "epoch must be an integer of at least 0, not -1"),
    (lambda: bx.data.minibatches(np.ones(3), np.ones(4), batch_size=2), ValueError, UNEQUAL),
]


def _split(test_size: Any) -> Any:
    return bx.data.split(_table(), test_size=test_size)


def _batched(batch_size: Any, **options: int) -> Any:
    return bx.data.minibatches(_table(), batch_size=batch_size, **options)


@pytest.mark.parametrize(("call", "error", "message"), REFUSED)
def test_invalid_data_is_an_error(call: Callable[[], Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("wrong", ["no", 0, None])
def test_minibatches_accept_only_booleans_for_shuffle(wrong: Any) -> None:
    with pytest.raises(TypeError, match="shuffle must be True or False"):
        bx.data.minibatches(np.ones((3, 1)), batch_size=2, shuffle=wrong)
