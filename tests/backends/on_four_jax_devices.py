"""Trainings on a mesh of four JAX devices; ``test_jax.py`` starts pytest on this file."""

import os
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

import backprop_xp as bx
from backprop_xp.backends import to_host

# XLA writes what it has compiled into this folder.
COMPILED = Path(re.search(r"--xla_dump_to=(\S+)", os.environ["XLA_FLAGS"])[1])
ROUNDING = 1e-12  # of sums in another order, after some epochs


def mesh_of(**axes: int) -> Mesh:
    kinds = (AxisType.Auto,) * len(axes)
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=kinds)


MESH = mesh_of(rows=4)
ROWS, EVERYWHERE = NamedSharding(MESH, P("rows")), NamedSharding(MESH, P())
GENERATOR = np.random.default_rng(0)
X, X_VALIDATION = GENERATOR.normal(size=(64, 5)), GENERATOR.normal(size=(32, 5))
Y, Y_VALIDATION = np.tanh(X[:, :2]), np.tanh(X_VALIDATION[:, :2])
WEIGHTS = np.where(np.arange(64) % 7, GENERATOR.random(64), 0.0)

PLAIN = bx.mlp([5, 6, 2], hidden="tanh")
REGULAR = bx.mlp([5, 6, 2], layer_norm=True, dropout=0.3, l2=1e-3)
ADAM = {"optimizer": bx.Adam(1e-2), "batch_size": 12}
CASES: dict[str, tuple[bx.Network, dict[str, Any]]] = {
    "full batch": (PLAIN, {"optimizer": bx.SGD(0.1, momentum=0.9), "clip": 0.1, "epochs": 6}),
    "weighted": (PLAIN, {"optimizer": bx.Adam(0.1), "sample_weight": WEIGHTS, "epochs": 3}),
    "all together": (
        REGULAR,
        {
            **ADAM,
            "epochs": 9,
            "sample_weight": WEIGHTS,
            "validation": (X_VALIDATION, Y_VALIDATION),
            "metrics": ["r2", "rmse"],
            "early_stopping": bx.EarlyStopping(patience=2, min_delta=0.02),
        },
    ),
    "a share for validation": (PLAIN, {**ADAM, "epochs": 2, "validation": 0.2, "accumulate": 2}),
}


def put(value: Any, sharding: NamedSharding = ROWS) -> Any:
    """Return arrays on the mesh, those in tuples too, and anything else as it is."""
    if isinstance(value, tuple):
        return tuple(put(one, sharding) for one in value)
    return jax.device_put(value, sharding) if isinstance(value, np.ndarray) else value


def fit(network: bx.Network, theta: Any, sharding: NamedSharding = ROWS, **options: Any) -> Any:
    """Train on the mesh."""
    options = {name: put(value, sharding) for name, value in options.items()}
    return bx.fit(network, theta, put(X, sharding), put(Y, sharding), **options)


def assert_same(result: Any, expected: Any) -> None:
    close = {"rtol": ROUNDING, "atol": ROUNDING}
    assert result.epochs == expected.epochs
    np.testing.assert_allclose(to_host(result.theta), expected.theta, **close)
    assert result.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(result.history[name], values, **close)


def rows_in_products(width: int, axes: int = 2) -> set[tuple[int, ...]]:
    """Return the shapes, without the width, of a hidden layer's outputs on one device."""
    texts = [path.read_text() for path in COMPILED.glob("*after_optimizations.txt")]
    found = re.findall(rf"= f64\[([\d,]*),{width}\]\S* dot\(", "".join(texts))
    shapes = {tuple(map(int, shape.split(","))) for shape in found}
    return {shape for shape in shapes if len(shape) == axes - 1 and shape[-1] != 5}  # gradients


@pytest.mark.parametrize("case", CASES)
def test_a_training_on_divided_rows_equals_the_undivided_one(case: str) -> None:
    network, options = CASES[case]
    theta = network.initialize(backend="numpy")
    result = fit(network, put(theta, EVERYWHERE), **options)
    assert_same(result, bx.fit(network, theta, X, Y, **options))
    assert result.theta.sharding.is_fully_replicated


def test_a_training_on_divided_rows_resumes() -> None:
    theta = REGULAR.initialize(backend="numpy")
    first = fit(REGULAR, put(theta, EVERYWHERE), epochs=2, **ADAM)
    result = fit(REGULAR, put(theta, EVERYWHERE), epochs=4, start=first, **ADAM)
    assert_same(result, bx.fit(REGULAR, theta, X, Y, epochs=4, **ADAM))


def test_each_device_computes_its_share_of_a_batch_and_of_an_evaluation() -> None:
    network = bx.mlp([5, 17, 2], hidden="tanh")
    theta = network.initialize(backend="jax", device=EVERYWHERE, dtype="float64")
    many = np.zeros((8192, 5)), np.zeros((8192, 2))
    fit(network, theta, epochs=1, batch_size=26, optimizer="adam", validation=many)
    assert rows_in_products(17) == {(7,), (3,), (1024,)}  # of 26, 12 and 4,096 at once


def test_each_device_predicts_its_share() -> None:
    network = bx.mlp([5, 18, 2], hidden="tanh")
    theta = network.initialize(backend="numpy")
    many = np.repeat(X, 128, axis=0)
    found = network.predict(put(theta, EVERYWHERE), put(many))
    np.testing.assert_allclose(to_host(found), network.predict(theta, many), rtol=ROUNDING)
    assert rows_in_products(18) == {(1024,)}


def test_members_and_rows_are_divided_over_two_axes_of_a_mesh() -> None:
    mesh, network = mesh_of(members=2, rows=2), bx.mlp([5, 19, 2], hidden="tanh", dropout=0.3)
    theta = network.initialize(backend="numpy", stack=4)
    options = {**ADAM, "epochs": 2, "seed": range(4), "batch_size": 16}
    members = put(theta, NamedSharding(mesh, P("members")))
    result = fit(network, members, NamedSharding(mesh, P("rows")), **options)
    assert_same(result, bx.fit(network, theta, X, Y, **options))
    assert result.theta.sharding.shard_shape(theta.shape) == (2, network.size)
    assert rows_in_products(19, axes=3) == {(2, 8)}


def test_losses_and_gradients_of_divided_rows_equal_those_of_undivided_ones() -> None:
    theta = PLAIN.initialize(backend="numpy")
    expected = PLAIN.loss_and_gradient(theta, X, Y, sample_weight=WEIGHTS)
    on_mesh = put(theta, EVERYWHERE), put(X), put(Y)
    found = PLAIN.loss_and_gradient(*on_mesh, sample_weight=put(WEIGHTS))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(to_host(one), other, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("here", ["theta", "x", "y"])
def test_an_array_on_one_device_is_an_error_with_the_call_that_puts_it_on_the_mesh(
    here: str,
) -> None:
    arrays = {"theta": PLAIN.initialize(backend="numpy"), "x": X, "y": Y}
    there = {name: put(a, EVERYWHERE if name == "theta" else ROWS) for name, a in arrays.items()}
    names = {"jax": jax, "NamedSharding": NamedSharding, "P": P, "mesh": MESH}
    for lone in (jax.device_put(arrays[here], jax.devices()[0]), arrays[here]):
        if lone is arrays["theta"]:
            continue  # x is another library's: moved to theta's
        names |= {**there, here: lone}
        with pytest.raises(ValueError, match=rf"^{here} is not on the mesh of \w+\.") as error:
            bx.fit(PLAIN, names["theta"], names["x"], names["y"], optimizer="adam", epochs=1)
        exec(re.search(rf"{here} = .*?\)\)\)?(?=,)", str(error.value))[0], names)  # noqa: S102
        bx.fit(PLAIN, names["theta"], names["x"], names["y"], optimizer="adam", epochs=1)


def test_another_precision_on_the_mesh_is_an_error_with_the_call_that_casts_it() -> None:
    theta, x = put(PLAIN.initialize(backend="numpy"), EVERYWHERE), put(X.astype(np.float32))
    with pytest.raises(TypeError, match="Cast it") as error:
        PLAIN.predict(theta, x)
    names = {"bx": bx, "x": x}
    exec(re.search(r"x = .*\)", str(error.value))[0], names)  # noqa: S102
    assert names["x"].sharding == ROWS
    PLAIN.predict(theta, names["x"])


def test_a_mesh_of_explicit_axes_is_an_error_with_the_call_that_makes_another() -> None:
    explicit = jax.make_mesh((4,), ("rows",), axis_types=(AxisType.Explicit,))
    theta = put(PLAIN.initialize(backend="numpy"), NamedSharding(explicit, P()))
    with pytest.raises(ValueError, match=r"theta .*AxisType\.Auto") as error:
        bx.fit(PLAIN, theta, put(X), put(Y), optimizer="adam", epochs=1)
    call = re.search(r"jax\.make_mesh\(.*\)", str(error.value))[0]
    assert eval(call, {"jax": jax, "AxisType": AxisType}) == MESH  # noqa: S307
