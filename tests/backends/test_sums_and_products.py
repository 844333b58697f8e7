"""NumPy's faster sums and products equal the standard's functions.

Specifies ``reductions``.
"""

from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import (
    blank,
    gather,
    matmul,
    max_of_rows,
    ones_where_positive,
    outer,
    owner,
    sum_at,
    sum_of_rows,
    sum_over_batch,
    with_diagonal,
)

# NumPy sums rows of up to 512 numbers by a product.
SHAPES = [(5,), (4, 1), (3, 7), (2, 3, 512), (2, 3, 513), (2, 3, 600), (0, 4), (2, 0, 3), (3, 0)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])


def _array(xp: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """Return numbers of both signs and several magnitudes, complex for a complex dtype."""
    generator = np.random.default_rng(71)
    values = generator.normal(size=shape) * 10.0 ** generator.integers(-3, 4, size=shape)
    if dtype.startswith("complex"):
        values = values + 1j * generator.normal(size=shape)
    return xp.asarray(values.astype(dtype), dtype=dtype)


def _require(xp: Any, dtype: str) -> None:
    if dtype in ("float64", "complex128") and xp.dtype != "float64":
        pytest.skip(f"{xp.name} keeps no {dtype} there")


@pytest.mark.parametrize("out", ["none", "in one piece", "with gaps"])
@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("stack", [(), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "complex128"])
def test_rows_are_summed_by_their_index(
    xp: Any, stack: tuple[int, ...], shares: bool, out: str, dtype: str
) -> None:
    _require(xp, dtype)
    values = _array(xp, (*stack, 50, 3), dtype)
    indices = np.random.default_rng(74).integers(0, 6, size=(50,) if shares else (*stack, 50))
    place = blank(_array(xp, (*stack, 7, 3), dtype)) if out != "none" else None
    if out == "with gaps":
        place = blank(_array(xp, (*stack, 30), dtype))
        place = None if place is None else place[..., 4:25].reshape((*stack, 7, 3))
    found = sum_at(values, xp.asarray(indices, dtype=None), 7, *[place] * (place is not None))
    assert place is None or found is place
    host, expected = xp.host(values), np.zeros((*stack, 7, 3), dtype)
    for k in range(7):
        chosen = (np.broadcast_to(indices, (*stack, 50)) == k)[..., None]
        expected[..., k, :] = np.sum(host * chosen, axis=-2)
    bound = 50 * float(np.finfo(dtype).eps) * np.max(np.abs(host))
    np.testing.assert_allclose(xp.host(found), expected, rtol=0, atol=bound)
    assert found.dtype == values.dtype
    assert not np.any(xp.host(found)[..., 6, :])  # the index of no row


def test_rows_are_summed_by_the_backends_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all tables of a stack at once, and into a given place."""
    strict, calls = bx.get_backend("array-api-strict"), []

    def scatter_add(self: Any, total: Any, rows: Any, values: Any) -> Any:
        calls.append((total.shape, rows.shape, values.shape))
        host = strict.to_host(total).copy()
        np.add.at(host, strict.to_host(rows), strict.to_host(values))
        return strict.from_host(host, device=total.device)

    host, indices = np.arange(24.0).reshape(2, 4, 3), np.array([[0, 2, 2, 0], [1, 1, 1, 4]])
    values, rows = strict.from_host(host), strict.from_host(indices)
    expected = strict.to_host(sum_at(values, rows, 5))
    monkeypatch.setattr(type(strict), "scatter_add", scatter_add)
    place = strict.from_host(np.ones((2, 5, 3)))
    for found in (sum_at(values, rows, 5), sum_at(values, rows, 5, place), place):
        np.testing.assert_array_equal(strict.to_host(found), expected)
    assert calls == [((10, 3), (8,), (8, 3))] * 2


@pytest.mark.parametrize("out", ["none", "with gaps"])
@every_dtype
def test_an_outer_product_has_each_product_of_two_entries(xp: Any, dtype: str, out: str) -> None:
    _require(xp, dtype)
    a, b = _array(xp, (7, 3), dtype), _array(xp, (2, 7, 4), dtype)  # a is shared by the stack
    place = blank(b, (2, 7, 20)) if out != "none" else None
    place = None if place is None else place[..., 5:17].reshape((2, 7, 3, 4))
    found = outer(a, b, *[place] * (place is not None))
    assert place is None or found is place
    expected = xp.host(a)[..., None] * xp.host(b)[..., None, :]
    assert found.dtype == b.dtype
    np.testing.assert_allclose(xp.host(found), expected, rtol=8 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("entries", [1, 4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_matrix_gets_a_diagonal_and_stays_as_it_was(xp: Any, dtype: str, entries: int) -> None:
    _require(xp, dtype)
    matrix, diagonal = _array(xp, (2, 3, 4, 4), dtype), _array(xp, (2, 3, entries), dtype)
    before = xp.host(matrix).copy()
    found = with_diagonal(matrix, diagonal)
    assert found.dtype == matrix.dtype
    expected = before + np.eye(4, dtype=dtype) * xp.host(diagonal)[..., None]
    np.testing.assert_array_equal(xp.host(found), expected)
    np.testing.assert_array_equal(xp.host(matrix), before)


@pytest.mark.parametrize("keepdims", [False, True])
@every_dtype
@every_shape
def test_a_sum_of_rows_equals_the_standards(
    xp: Any, shape: tuple[int, ...], dtype: str, keepdims: bool
) -> None:
    _require(xp, dtype)
    array = _array(xp, shape, dtype)
    actual = sum_of_rows(array, keepdims=keepdims)
    expected = xp.namespace.sum(array, axis=-1, keepdims=keepdims)
    assert actual.dtype == expected.dtype
    assert tuple(actual.shape) == tuple(expected.shape)
    # The order differs and terms cancel: one rounding of the sum of magnitudes per term.
    magnitudes = np.sum(np.abs(xp.host(array)), axis=-1, keepdims=keepdims)
    terms = 0 if shape[-1] > 512 else shape[-1]  # the standard's function sums longer rows
    bound = terms * float(np.finfo(dtype).eps) * magnitudes
    assert np.all(np.abs(xp.host(actual) - xp.host(expected)) <= bound)


@every_shape
def test_a_sum_of_whole_numbers_is_exact(xp: Any, shape: tuple[int, ...]) -> None:
    whole = np.random.default_rng(72).integers(-9, 10, size=shape).astype("float32")
    actual = xp.host(sum_of_rows(xp.asarray(whole, dtype="float32")))
    np.testing.assert_array_equal(actual, np.sum(whole, axis=-1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(5,), (4, 1), (3, 7), (2, 3, 512), (2, 3, 600), (0, 4)], ids=str)
def test_a_largest_entry_equals_the_standards_to_the_bit(
    xp: Any, shape: tuple[int, ...], dtype: str
) -> None:
    array = _array(xp, shape, dtype)
    actual = max_of_rows(array)
    assert actual.dtype == array.dtype
    expected = xp.namespace.max(array, axis=-1, keepdims=True)
    np.testing.assert_array_equal(xp.host(actual), xp.host(expected))


BAD = {
    "inf": [np.inf],
    "-inf": [-np.inf],
    "nan": [np.nan],
    "inf and nan": [np.inf, np.nan],
    "inf twice": [np.inf, np.inf],
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("length", [7, 600])
@pytest.mark.parametrize("bad", BAD)
def test_a_row_that_is_not_finite_follows_the_standard_and_does_not_change_the_others(
    xp: Any, bad: str, length: int, dtype: str
) -> None:
    clean = np.array(xp.host(_array(xp, (2, 3, length), dtype)))
    values = clean.copy()
    values[1, 2, 2 : 2 + len(BAD[bad])] = BAD[bad]
    if bad == "-inf":
        values[0, 1, :] = -np.inf  # nothing larger
    named = {"sum": sum_of_rows, "max": lambda array: max_of_rows(array)[..., 0]}
    for name, function in named.items():
        array = xp.asarray(values, dtype=dtype)
        actual = xp.host(function(array))
        expected = xp.host(getattr(xp.namespace, name)(array, axis=-1))
        spoiled = np.any(values != clean, axis=-1)
        np.testing.assert_array_equal(actual[spoiled], expected[spoiled])
        alone = xp.host(function(xp.asarray(clean, dtype=dtype)))
        np.testing.assert_array_equal(actual[~spoiled], alone[~spoiled])


def test_a_library_needs_no_attribute_for_the_transpose(monkeypatch: pytest.MonkeyPatch) -> None:
    strict = pytest.importorskip("array_api_strict")
    monkeypatch.delattr(type(strict.empty(0)), "mT")
    generator = np.random.default_rng(8)
    x, y = (bx.asarray(v, backend="array-api-strict") for v in generator.normal(size=(2, 9, 2)))
    layers = [bx.NumericEmbedding(2, 2, n_frequencies=2), bx.Dense(4, 3, "tanh"), bx.Dense(3, 2)]
    network = bx.Network(layers, "mean_squared_error")
    theta = network.initialize(backend="array-api-strict")
    for optimizer in ("adam", "lbfgs", "levenbergmarquardt"):
        result = bx.fit(network, theta, x, y, optimizer=optimizer, epochs=3)
        assert np.all(np.isfinite(bx.to_host(result.theta)))
    few = bx.fit(network, theta, x[:2, :], y[:2, :], optimizer="levenbergmarquardt", epochs=2)
    assert np.all(np.isfinite(bx.to_host(few.theta)))
    assert bx.check_network(network, theta, x, y, method="complex_step").passed
    assert network.input_jacobian(theta, x).shape == (9, 2, 2)


@pytest.mark.parametrize("layout", ["Fortran", "every other", "reversed", "transposed"])
def test_rows_may_have_any_memory_layout(layout: str) -> None:
    """Test NumPy, whose arrays may be views of any kind."""
    whole = np.random.default_rng(73).integers(-9, 10, size=(4, 6, 8)).astype(float)
    array = {
        "Fortran": np.asfortranarray(whole),
        "every other": whole[:, ::2, ::2],
        "reversed": whole[..., ::-1],
        "transposed": whole.mT,
    }[layout]
    np.testing.assert_array_equal(sum_of_rows(array), array.sum(-1))
    np.testing.assert_array_equal(max_of_rows(array), array.max(-1, keepdims=True))
    empty = blank(array)
    assert empty is not None
    assert (empty.shape, empty.dtype) == (array.shape, array.dtype)
    assert empty.flags.c_contiguous
    ones = np.ones((array.shape[-1], 3))
    out = np.full((4, 3, array.shape[-2]), np.nan).mT  # a view as well
    assert matmul(array, ones, out) is out
    np.testing.assert_array_equal(out, array @ ones)


@pytest.mark.parametrize("stack", [(), (2,), (2, 3)])
def test_a_product_is_written_into_the_given_array(xp: Any, stack: tuple[int, ...]) -> None:
    a, b = _array(xp, (*stack, 4, 3), xp.dtype), _array(xp, (*stack, 3, 5), xp.dtype)
    expected = xp.host(a @ b)
    assert (blank(a) is None) == (xp.name not in ("numpy", "cupy"))
    np.testing.assert_array_equal(xp.host(matmul(a, b)), expected)
    if xp.name == "jax":
        return  # a read-only array
    out = xp.asarray(np.full((*stack, 4, 5), np.nan))
    assert matmul(a, b, out) is out
    np.testing.assert_array_equal(xp.host(out), expected)


def test_a_product_is_rounded_into_an_array_of_another_precision_or_order() -> None:
    """A user's activation may widen float32."""
    a, b = np.ones((3, 2)), np.full((2, 4), 0.1)
    for out in (np.empty((3, 4), np.float32), np.empty((4, 3)).T):
        assert matmul(a, b, out) is out
        np.testing.assert_array_equal(out, (a @ b).astype(out.dtype))


@pytest.mark.parametrize("written", [False, True])
@every_dtype
@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3), (1, 1)], ids=str)
def test_a_sum_over_the_batch_equals_the_standards(
    xp: Any, shape: tuple[int, ...], dtype: str, written: bool
) -> None:
    _require(xp, dtype)
    array, factor = _array(xp, shape, dtype), 1.0 + _array(xp, shape, dtype)
    out = xp.namespace.zeros_like(array[..., :1, :]) if written and xp.name != "jax" else None
    actual = sum_over_batch(array, out)
    assert out is None or actual is out
    assert owner(actual) is xp.selection.backend
    close = 10 * float(np.finfo(dtype).eps)
    for got, terms in ((actual, array), (sum_over_batch(array, None, factor), array * factor)):
        assert got.dtype == array.dtype
        expected = xp.namespace.sum(terms, axis=-2, keepdims=True)
        largest = np.abs(xp.host(terms)).max()
        np.testing.assert_allclose(xp.host(got), xp.host(expected), rtol=0, atol=close * largest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@every_shape
def test_the_step_function_is_1_where_numbers_are_positive(
    xp: Any, shape: tuple[int, ...], dtype: str
) -> None:
    _require(xp, dtype)
    array = xp.namespace.maximum(_array(xp, shape, dtype), 0.0)  # some of them zeros
    actual = ones_where_positive(array)
    assert actual.dtype == array.dtype
    np.testing.assert_array_equal(xp.host(actual), (xp.host(array) > 0).astype(dtype))


@pytest.mark.parametrize("axis", [-1, -2])
def test_entries_are_gathered_along_an_axis(xp: Any, axis: int) -> None:
    array, indices = _array(xp, (2, 5, 4), "float32"), [3, 0, 3]
    taken = gather(array, xp.asarray(np.asarray(indices), dtype=None), axis)
    np.testing.assert_array_equal(xp.host(taken), xp.host(array).take(indices, axis))
