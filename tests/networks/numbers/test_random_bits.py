"""The same seed gives the same bits on every backend, and the bits pass tests of randomness."""

import math
from typing import Any

import numpy as np
import pytest

from backprop_xp.networks.numbers import random_bits

KEYS = [0, 1, 2, 12345, 2**31 - 1]
POSITIVE = 0x7FFFFFFF

# Statistics of fixed keys: a good hash exceeds five standard deviations once in two million.
SIGMAS = 5.0


def mix(h: int) -> int:
    """Compute lowbias32 of a shifted number in Python's integers, unsigned as in the source."""
    h = (h + 0x9E3779B9) % 2**32
    h ^= h >> 16
    h = h * 0x7FEB352D % 2**32
    h ^= h >> 15
    h = h * 0x846CA68B % 2**32
    return h ^ (h >> 16)


def reference_fold_in(key: int, index: int) -> int:
    return mix(mix(key) + index) & POSITIVE


def reference_bits(key: int, rows: int, columns: int) -> np.ndarray:
    entries = [
        [mix(mix(row + mix(key)) ^ mix(mix(column))) & POSITIVE for column in range(columns)]
        for row in range(rows)
    ]
    return np.array(entries, dtype=np.int32)


def host_bits(key: int, rows: int, columns: int) -> np.ndarray:
    """Return bits on NumPy, as numbers in [0, 1)."""
    drawn: np.ndarray = random_bits.bits(key, rows, columns, xp=np, device="cpu")
    return drawn / 2.0**31


def keys_of(xp: Any, keys: Any, dtype: Any = np.int32) -> Any:
    return xp.asarray(np.array(keys, dtype=dtype)[..., None, None], dtype=None)


def on_device(xp: Any) -> dict[str, Any]:
    return {"xp": xp.namespace, "device": xp.selection.device}


def as_key(xp: Any, key: Any, *stack: int) -> Any:
    return random_bits.as_key(key, xp.asarray(np.zeros((*stack, 3)), dtype="float32"))


# The same on every backend


@pytest.mark.parametrize("key", KEYS)
def test_bits_equal_those_of_an_independent_implementation(xp: Any, key: int) -> None:
    drawn = random_bits.bits(key, 37, 23, **on_device(xp))
    assert drawn.dtype == xp.namespace.int32
    np.testing.assert_array_equal(xp.host(drawn), reference_bits(key, 37, 23))
    # An entry depends on key, row and column alone.
    small = xp.host(random_bits.bits(key, 10, 20, **on_device(xp)))
    np.testing.assert_array_equal(small, xp.host(drawn)[:10, :20])


@pytest.mark.parametrize("stack", [(5,), (1, 5), (5, 1)])
def test_an_array_of_keys_draws_the_bits_of_each_key(xp: Any, stack: tuple[int, ...]) -> None:
    drawn = random_bits.bits(keys_of(xp, np.reshape(KEYS, stack)), 7, 9, **on_device(xp))
    assert drawn.shape == (*stack, 7, 9)
    expected = np.stack([reference_bits(key, 7, 9) for key in KEYS])
    np.testing.assert_array_equal(xp.host(drawn), expected.reshape((*stack, 7, 9)))


@pytest.mark.parametrize("index", [0, 1, 7, 100_000])
def test_fold_in_is_the_same_for_integers_and_arrays(xp: Any, index: int) -> None:
    expected = [reference_fold_in(key, index) for key in KEYS]
    assert [random_bits.fold_in(key, index) for key in KEYS] == expected
    folded = random_bits.fold_in(keys_of(xp, KEYS), index)
    assert folded.dtype == xp.namespace.int32
    np.testing.assert_array_equal(xp.host(folded)[:, 0, 0], expected)


def test_a_part_of_a_batch_draws_the_bits_of_its_positions_by_a_folded_key(xp: Any) -> None:
    positions = np.asarray([4, 0, 3])
    part = random_bits.RowKey(7, xp.asarray(positions, dtype="int32"))
    whole = random_bits.bits(random_bits.fold_in(7, 2), 5, 3, **on_device(xp))
    found = random_bits.bits(random_bits.fold_in(part, 2), 3, 3, **on_device(xp))
    xp.assert_equal(found, xp.host(whole)[positions])


def test_a_key_beyond_int32_wraps_around_with_the_same_bits(xp: Any) -> None:
    for key in (2**31, 2**32 + 5):
        wrapped = random_bits.as_int32(key)
        assert wrapped == (key + 2**31) % 2**32 - 2**31
        xp.assert_equal(
            random_bits.bits(wrapped, 3, 2, **on_device(xp)),
            random_bits.bits(key, 3, 2, **on_device(xp)),
        )


def test_a_mask_is_true_for_bits_at_or_above_the_rate(xp: Any) -> None:
    mask = random_bits.keep_mask(3, 0.25, 40, 30, **on_device(xp))
    assert mask.dtype == xp.namespace.bool
    np.testing.assert_array_equal(xp.host(mask), reference_bits(3, 40, 30) >= 2**29)
    assert xp.host(random_bits.keep_mask(3, 0.0, 50, 50, **on_device(xp))).all()
    nearly_all = math.nextafter(1.0, 0.0)
    assert not xp.host(random_bits.keep_mask(3, nearly_all, 50, 50, **on_device(xp))).any()


# Keys


def test_a_key_is_reduced_to_31_bits(xp: Any) -> None:
    for value, key in ((0, 0), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**40 + 5, 5)):
        assert as_key(xp, value) == as_key(xp, np.uint64(value)) == key
        assert type(as_key(xp, np.uint64(value))) is int


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_an_array_of_keys_may_be_of_any_integer_dtype(xp: Any, dtype: str) -> None:
    value = [7, 100] if dtype.startswith("u") else [-1, 100]
    made = as_key(xp, keys_of(xp, value, dtype), 2)
    assert made.dtype == xp.namespace.int32
    np.testing.assert_array_equal(xp.host(made)[:, 0, 0], np.array(value) & POSITIVE)


def test_one_network_accepts_an_array_of_one_key(xp: Any) -> None:
    key = as_key(xp, xp.asarray([[7]], dtype=None))
    for each in (
        key,
        as_key(xp, xp.asarray(7, dtype="int64")),
        as_key(xp, xp.asarray(7, dtype="int32")),
    ):
        drawn = random_bits.bits(each, 4, 5, **on_device(xp))
        np.testing.assert_array_equal(xp.host(drawn), reference_bits(7, 4, 5))


@pytest.mark.parametrize("key", [1.0, True, "1", [1], np.random.default_rng(0)])
def test_a_key_that_is_no_integer_is_a_type_error(xp: Any, key: Any) -> None:
    with pytest.raises(TypeError, match="rng must be an integer"):
        as_key(xp, key)
    with pytest.raises(TypeError, match=r"rng must be an int or an array of integers.*float32"):
        as_key(xp, xp.asarray([[[1.0]], [[2.0]]], dtype="float32"), 2)


@pytest.mark.parametrize("shape", [(2,), (2, 1), (1, 2, 1), (3, 1, 1), (1, 1)])
def test_keys_of_the_wrong_shape_device_or_sign_are_a_value_error(
    xp: Any, shape: tuple[int, ...]
) -> None:
    keys = xp.asarray(np.zeros(shape, dtype=np.int32), dtype=None)
    with pytest.raises(ValueError, match=r"rng has shape .* is shaped \(2, 1, 1\)"):
        as_key(xp, keys, 2)
    with pytest.raises(ValueError, match="rng must be an integer of at least 0, not -1"):
        as_key(xp, -1)
    elsewhere = np.zeros((2, 1, 1), dtype=np.int32)
    if xp.name == "numpy":
        assert as_key(xp, elsewhere, 2).shape == (2, 1, 1)
    else:
        with pytest.raises(ValueError, match=r"rng is numpy's.*rng = bx\.asarray\(rng, backend="):
            as_key(xp, elsewhere, 2)


# Randomness


@pytest.mark.parametrize("key", KEYS)
def test_bits_are_uniform(key: int) -> None:
    drawn = random_bits.bits(key, 400, 500, xp=np, device="cpu").ravel()
    count, uniform = drawn.size, drawn / 2.0**31
    assert abs(uniform.mean() - 0.5) < SIGMAS * math.sqrt(1 / 12 / count)
    assert abs(uniform.var() - 1 / 12) < SIGMAS * math.sqrt(1 / 180 / count)
    ones = (drawn[:, None] >> np.arange(31)) & 1
    assert np.abs(ones.mean(axis=0) - 0.5).max() < SIGMAS * 0.5 / math.sqrt(count)
    for shift in (0, 11, 23):
        counts = np.bincount((drawn >> shift) & 255, minlength=256)
        chi_square = ((counts - count / 256) ** 2 / (count / 256)).sum()
        degrees = 255  # mean 255, variance 2 * 255, nearly normal
        assert abs(chi_square - degrees) < SIGMAS * math.sqrt(2 * degrees)


def largest_correlation(samples: np.ndarray) -> float:
    """Return the largest correlation between rows, in standard deviations."""
    correlations = np.corrcoef(samples) - np.eye(len(samples))
    return float(np.abs(correlations).max() * math.sqrt(samples.shape[1]))


@pytest.mark.parametrize("key", KEYS)
def test_rows_columns_and_mirror_images_are_independent(key: int) -> None:
    assert largest_correlation(host_bits(key, 100, 2000)) < SIGMAS
    assert largest_correlation(host_bits(key, 2000, 100).T) < SIGMAS
    drawn, above = host_bits(key, 200, 200), np.triu_indices(200, 1)
    assert largest_correlation(np.stack([drawn[above], drawn.T[above]])) < SIGMAS
    assert abs(np.diagonal(drawn).mean() - 0.5) < SIGMAS * math.sqrt(1 / 12 / 200)


def test_neighbouring_keys_and_layers_are_independent() -> None:
    layers = [[random_bits.fold_in(key, layer) for layer in range(20)] for key in KEYS]
    for keys in ([*range(50)], *layers):
        drawn = [host_bits(key, 40, 50).ravel() for key in keys]
        assert largest_correlation(np.stack(drawn)) < SIGMAS


def test_folded_keys_differ_from_each_other_and_from_their_source() -> None:
    folded = {
        (key, index): random_bits.fold_in(key, index) for key in range(100) for index in range(50)
    }
    assert len(set(folded.values())) == len(folded)
    assert all(made != key for (key, _), made in folded.items())
    for key in range(20):  # no key is folded into itself
        once = {folded[key, index] for index in range(50)}
        for outer in range(20):
            inner = folded[key, outer]
            assert not once & {random_bits.fold_in(inner, index) for index in range(50)}, (
                key,
                outer,
            )


@pytest.mark.parametrize("rate", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("key", KEYS)
def test_the_rate_of_dropout_is_kept(rate: float, key: int) -> None:
    kept = random_bits.keep_mask(key, rate, 200, 300, xp=np, device="cpu")
    spread = SIGMAS * math.sqrt(rate * (1 - rate))
    assert abs(kept.mean() - (1 - rate)) < spread / math.sqrt(kept.size)
    # A few drops in a row or column are not normally distributed, so sigmas give no bound.
    for axis in (-1, -2) if rate > 0.01 else ():
        found = kept.mean(axis=axis)
        assert np.abs(found - (1 - rate)).max() < spread / math.sqrt(kept.shape[axis])
