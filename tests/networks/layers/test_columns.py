"""Layers on the columns of a table: a factor for each, and layers side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.networks.numbers.random_bits import fold_in
from tests.user_layers import Factors, PassThrough


class Dropped(bx.Dropout):
    """A Dropout of three columns."""

    n_in = n_out = 3


# Both sides round some dozen operations, 2e-16 each.
PARITY = 1e-13
generator = np.random.default_rng(35)


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


def test_columns_give_each_layer_its_own_and_join_what_they_return(xp: Any) -> None:
    dense, drop = bx.Dense(2, 3, "tanh"), Dropped(0.5)
    layer = bx.Columns(bx.Embedding(4, 2), dense, drop)
    assert (layer.n_in, layer.n_out, layer.codes) == (6, 8, (4, 0, 0, 0, 0, 0))
    assert layer.names == ("layers[0].weights", "layers[1].weights", "layers[1].bias")
    x = np.concatenate([generator.integers(4, size=(9, 1)), generator.normal(size=(9, 5))], -1)
    values, g = [generator.normal(size=s) for s in layer.shapes], generator.normal(size=(9, 8))
    table, *of_dense = parameters = xp.put(*values)
    x, g = xp.put(x, g)
    y, cache = layer.forward(parameters, x, 7)
    activated, dense_cache = dense.forward(of_dense, x[:, 1:3], None)
    kept, mask = drop.forward((), x[:, 3:], fold_in(7, 2))
    xp.assert_equal(y[:, :2], xp.host(table)[xp.host(x)[:, 0].astype(int)])
    xp.assert_close(y[:, 2:5], activated, PARITY)
    xp.assert_equal(y[:, 5:], kept)
    back, gradients = layer.backward(parameters, cache, g)
    dense_back, expected = dense.backward(of_dense, dense_cache, g[:, 2:5])
    xp.assert_close(back[:, 1:3], dense_back, PARITY)
    xp.assert_equal(back[:, 3:], drop.backward((), mask, g[:, 5:])[0])
    assert not np.any(xp.host(back)[:, :1])
    for one, other in zip(gradients[1:], expected, strict=True):
        xp.assert_close(one, other, PARITY)


PARTS = bx.Embedding([4, 3], 2), bx.Scale(1), bx.NumericEmbedding(2, 3)
TABLE = bx.Network(
    [
        bx.Columns(*PARTS),
        *(bx.Scale(11), bx.Dense(11, 8, "silu"), bx.Dropout(0.2), bx.Dense(8, 3)),
    ],
    "categorical_cross_entropy",
    l2=0.01,
)
X = np.concatenate([generator.integers(3, size=(40, 2)), generator.normal(size=(40, 3))], axis=-1)
LABELS = generator.integers(3, size=40)


@pytest.mark.parametrize("stack", [(), (2,)], ids=str)
def test_a_table_of_codes_and_numbers_trains_as_on_numpy(xp: Any, stack: tuple[int, ...]) -> None:
    def trained(theta: Any, x: Any, y: Any) -> bx.FitResult:
        options: Any = {"optimizer": bx.SGD(0.1, momentum=0.9), "epochs": 3, "batch_size": 16}
        return bx.fit(TABLE, theta, x, y, validation=(x, y), clip=1.0, **options)

    theta = TABLE.initialize(3, stack=stack, backend="numpy", dtype=xp.dtype)
    there = trained(theta, X.astype(xp.dtype), LABELS)
    here = trained(xp.asarray(theta), xp.asarray(X), xp.asarray(LABELS, dtype=None))
    xp.assert_close(here.theta, there.theta, 1e-11)
    losses = np.asarray(there.history["loss"])
    assert np.all(losses[-1] < losses[0])


@pytest.mark.long
@pytest.mark.parametrize("shares_x", [True, False])
def test_a_stack_of_tables_is_its_networks_one_by_one(xp: Any, shares_x: bool) -> None:
    theta = TABLE.initialize(3, stack=(2, 2), backend="numpy", dtype="float64")
    x = X if shares_x else generator.permuted(np.broadcast_to(X, (2, 2, *X.shape)), axis=-2)
    g = generator.normal(size=(40, 3))
    outputs = TABLE.forward(*xp.put(theta, x), rng=5)
    both = TABLE.vjp(*xp.put(theta, x, g), rng=5)
    for at in np.ndindex(2, 2):
        one = xp.put(theta[at], x if shares_x else x[at], g)
        xp.assert_close(xp.host(outputs)[at], TABLE.forward(*one[:2], rng=5), PARITY)
        for found, expected in zip(both, TABLE.vjp(*one, rng=5), strict=True):
            xp.assert_close(xp.host(found)[at], expected, 100 * PARITY)


def test_a_code_in_a_column_is_checked_and_a_number_is_not(xp: Any) -> None:
    theta, x = xp.initialize(TABLE), X.copy()
    x[5, 1] = 3.0
    with pytest.raises(ValueError, match=r"x\[5, 1\] is 3, but column 1 .* 0 \.\.\. 2"):
        bx.fit(TABLE, theta, *xp.put(x, np.eye(3)[LABELS]), optimizer=bx.SGD(0.1), epochs=1)
    x[5, 1:3] = 2.0, 1e9
    TABLE.predict(theta, xp.asarray(x))


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_an_error_within_columns_names_the_layers(xp: Any, way: str) -> None:
    def raises(*arguments: Any, **options: Any) -> Any:
        raise ArithmeticError("no such thing")

    faulty: Any = PassThrough()
    vars(faulty).update({"n_in": 1, "n_out": 1, way: raises})
    network = bx.Network([bx.Columns(bx.Scale(2), faulty), bx.Dense(3, 1)], "huber")
    theta, x, g = xp.initialize(network), *xp.put(np.ones((2, 3)), np.ones((2, 1)))
    with pytest.raises(ArithmeticError) as caught:
        network.vjp(theta, x, g)
    assert caught.value.__notes__ == [
        f"In layers[1] (PassThrough).{way}.",
        f"In layers[0] (Columns).{way}.",
    ]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bx.Columns(), ValueError, "Columns needs at least one layer"),
        (lambda: bx.Columns(bx.Scale), TypeError, r"layers\[0\] is .* not a layer"),
        (
            lambda: bx.Columns(bx.Scale(2), Factors()),
            ValueError,
            r"layers\[1\] \(Factors\) does not define n_in and n_out",
        ),
        (
            lambda: bx.Network([bx.Columns(bx.Scale(2), bx.Scale(1)), bx.Dense(4, 1)], "huber"),
            ValueError,
            "takes 4 features, but the layers before it give 3",
        ),
    ],
)
def test_what_makes_no_columns_is_refused_by_name(
    make: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


MEAN, SCALE = [300.0, -2.0, 0.5], [25.0, 0.5, 1e-3]


def test_standardize_shifts_and_scales_and_its_inverse_goes_back(xp: Any) -> None:
    layer, x = bx.Standardize(MEAN, SCALE), generator.normal(MEAN, SCALE, (5, 3))
    y, _ = layer.forward((), xp.asarray(x), None)
    # Relative to the numbers in between, which are 500 times as large.
    xp.assert_close(y, (x - MEAN) / SCALE, 1e-12)
    back, _ = layer.inverse.forward((), y, None)
    xp.assert_close(back, x, 1e-12)
    assert y.dtype == back.dtype == xp.asarray(x).dtype
    assert (layer.n_in, layer.n_out, layer.inverse.n_in) == (3, 3, 3)
    assert bx.check_layer(layer, xp.asarray(x)).passed


def test_standardize_takes_a_number_and_what_standardize_of_data_returns(xp: Any) -> None:
    x = xp.asarray(generator.normal(size=(6, 3)))
    data = bx.data.standardize(x)
    y, _ = bx.Standardize(data.mean, data.scale).forward((), x, None)
    xp.assert_close(y, data.x, 1e-13)
    one = bx.Standardize(2.0, 0.5)
    xp.assert_close(one.forward((), x, None)[0], (x - 2.0) / 0.5, 1e-13)
    network = bx.Network([one, bx.Dense(3, 2), one.inverse], "mean_squared_error")
    assert network.widths == (3, 2)
    mixed, _ = bx.Standardize(1.0, [1.0, 2.0, 4.0]).inverse.forward((), x, None)
    xp.assert_close(mixed, x * xp.asarray([1.0, 2.0, 4.0]) + 1.0, 1e-13)


@pytest.mark.parametrize("unit", [1e-10, 1.0, 1e10])
def test_derivatives_around_standardize_are_in_the_users_units(xp: Any, unit: float) -> None:
    inner = bx.Network([bx.Dense(3, 4, "tanh"), bx.Dense(4, 1)], "mean_squared_error")
    of_y, mean, scale = bx.Standardize(1e5, 2e4), unit * np.asarray(MEAN), unit * np.asarray(SCALE)
    layers = [bx.Standardize(mean, scale), *inner.layers, of_y.inverse]
    network, theta = bx.Network(layers, "mean_squared_error"), xp.initialize(inner)
    x = generator.normal(mean, scale, (5, 3))
    scaled = xp.asarray((x - mean) / scale)
    expected = xp.host(inner.input_jacobian(theta, scaled)) * 2e4 / SCALE
    found = xp.host(network.input_jacobian(theta, xp.asarray(x))) * unit
    xp.assert_close(found / 2e7, expected / 2e7, 1e-12)
    hessian = xp.host(inner.input_hessian(theta, scaled)) * 2e4 / np.outer(SCALE, SCALE)
    found = xp.host(network.input_hessian(theta, xp.asarray(x))) * unit**2
    xp.assert_close(found / 2e10, hessian / 2e10, 1e-12)


def test_a_file_has_what_standardize_was_given(xp: Any, tmp_path: Path) -> None:
    layers = [bx.Standardize(MEAN, 2.0), bx.Dense(3, 1)]
    network = bx.Network(layers, "mean_squared_error")
    bx.save(tmp_path / "network", network, xp.initialize(network))
    assert bx.load(tmp_path / "network").network == network
    assert repr(layers[0]) == "Standardize((300.0, -2.0, 0.5), (2.0,))"


@pytest.mark.parametrize(
    ("mean", "scale", "error", "message"),
    [
        ([0.0, 1.0], [1.0, 0.0], ValueError, r"scale\[1\] is 0: a constant feature"),
        ([0.0, 1.0, 2.0], [1.0, 2.0], ValueError, "mean has 3 numbers and scale has 2"),
        ([[0.0], [1.0]], 1.0, ValueError, r"mean has shape \(2, 1\)"),
        ([], 1.0, ValueError, r"mean has shape \(0,\)"),
        ([float("nan")], 1.0, ValueError, r"mean\[0\] must be finite"),
        ("wide", 1.0, TypeError, "mean"),
    ],
)
def test_standardize_refuses_what_is_no_scale(
    mean: Any, scale: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        bx.Standardize(mean, scale)
