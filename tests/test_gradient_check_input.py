"""What the gradient check cannot use is refused by an error that says what was expected."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx

METHODS = ["auto", "complex_step", "centered", "directional", "taylor"]
every_method = pytest.mark.parametrize("method", METHODS)


def _squares(xp: Any, p: Any) -> Any:
    parts = p.values() if isinstance(p, dict) else p if isinstance(p, list) else [p]
    return sum(xp.namespace.sum(part * part) for part in parts)


# ---- the point


# A point of NumPy's numbers, and what is said of it.
NOT_FINITE: dict[str, tuple[Any, str]] = {
    "array": ([[1.0, 2.0], [math.nan, 3.0]], r"point is nan at \[1, 0\]"),
    "infinite": ([1.0, -math.inf], r"point is -inf at \[1\]"),
    "number": (math.nan, r"point is nan"),
    "list": ([[1.0], [2.0, 3.0, math.inf]], r"point\[1\] is inf at \[2\]"),
    "dict": (
        {"weights": [[1.0, 2.0]], "bias": [0.5, math.nan]},
        r"point\['bias'\] is nan at \[1\]",
    ),
}


@every_method
@pytest.mark.parametrize("kind", NOT_FINITE)
def test_a_point_that_is_not_finite_is_refused_with_the_entry(
    xp: Any, kind: str, method: str
) -> None:
    numbers, message = NOT_FINITE[kind]
    point: Any = numbers
    if kind == "dict":
        point = {key: xp.asarray(part) for key, part in numbers.items()}
    else:
        point = [xp.asarray(part) for part in numbers] if kind == "list" else xp.asarray(numbers)
    called: list[Any] = []
    with pytest.raises(ValueError, match=message):
        bx.check_gradient(called.append, called.append, point, method=method)
    assert not called


def test_a_network_is_not_checked_at_a_theta_that_is_not_finite(xp: Any) -> None:
    network = bx.mlp([2, 3, 1])
    parts = network.unpack(np.linspace(-1.0, 1.0, network.size))
    parts[1][0][2, 0] = math.nan
    theta = xp.asarray(network.pack(parts))
    with pytest.raises(ValueError, match=r"layers\[1\]\.weights is nan at \[2, 0\]"):
        bx.check_network(network, theta, [[0.0, 1.0]], [[1.0]])


@pytest.mark.parametrize(
    ("point", "message"),
    [
        (None, "point must be an array of a known library, not NoneType"),
        ("abc", r"point\[0\] must be an array of a known library, not str"),
        ({"a": {"b": np.ones(2)}}, r"point\['a'\] must be an array of a known library, not dict"),
        ({}, "point holds no numbers"),
        ([np.ones(2), None], r"point\[1\] must be an array of a known library, not NoneType"),
        ({"a": np.ones(2), "b": np.arange(2)}, r"point\['b'\] is int64, but a floating dtype"),
        (np.ones(2, dtype=bool), "point is bool, but a floating dtype is expected"),
    ],
)
def test_what_is_no_point_is_refused_with_its_place(point: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        bx.check_gradient(lambda p: 0.0, lambda p: p, point)


# ---- the gradient


@pytest.mark.parametrize(("dtype", "other"), [("float64", "float32"), ("float32", "float64")])
def test_a_gradient_of_another_precision_is_refused_with_both(
    xp: Any, dtype: str, other: str
) -> None:
    told = rf"gradient\(point\) is .*{other}.*point is .*{dtype}.*bx[.]asarray"
    with pytest.raises(TypeError, match=told):
        bx.check_gradient(
            lambda p: _squares(xp, p),
            lambda p: xp.asarray([2.0, 4.0], dtype=other),
            xp.asarray([1.0, 2.0], dtype=dtype),
        )


def test_a_complex_gradient_is_refused(xp: Any) -> None:
    with pytest.raises(TypeError, match=rf"gradient\(point\)\['b'\] is .*{xp.complex_dtype}"):
        bx.check_gradient(
            lambda p: _squares(xp, p),
            lambda p: {"a": 2.0 * p["a"], "b": (2.0 + 0.0j) * p["b"]},
            {"a": xp.asarray([1.0, 2.0]), "b": xp.asarray([3.0])},
        )


def test_a_gradient_on_another_device_is_refused_with_both() -> None:
    strict = pytest.importorskip("array_api_strict")
    point = [strict.ones(2, device=strict.Device("device1"))]
    with pytest.raises(ValueError, match=r"gradient\(point\)\[0\].*CPU_DEVICE.*device1"):
        bx.check_gradient(lambda p: strict.sum(p[0]), lambda p: [strict.ones(2)], point)


# Of the point {"a": (2,), "b": (1, 3)}.
STRUCTURES: dict[str, Callable[[Any], Any]] = {
    "one array for two": lambda p: p["a"],
    "a list for a dict": lambda p: [p["a"], p["b"]],
    "an array within a list": lambda p: {"a": p["a"], "b": [p["b"]]},
    "nothing for an array": lambda p: {"a": p["a"], "b": None},
    "a number for an array": lambda p: {"a": p["a"], "b": 1.0},
    "a name in another case": lambda p: {"a": p["a"], "B": p["b"]},
    "the two exchanged": lambda p: {"a": p["b"], "b": p["a"]},
    "an axis lost": lambda p: {"a": p["a"], "b": p["b"][0, :]},
    "an axis too many": lambda p: {"a": p["a"][None, :], "b": p["b"]},
    "a stack of it": lambda p: {"a": p["a"][None, :], "b": p["b"][None, :, :]},
}


@pytest.mark.parametrize("kind", STRUCTURES)
def test_a_gradient_of_another_structure_or_shape_is_refused_by_name(xp: Any, kind: str) -> None:
    point = {"a": xp.asarray([1.0, 2.0]), "b": xp.asarray([[3.0, 4.0, 5.0]])}
    with pytest.raises((TypeError, ValueError), match=r"gradient\(point\)"):
        bx.check_gradient(lambda p: _squares(xp, p), STRUCTURES[kind], point)


def test_one_array_is_no_gradient_of_a_list_of_its_rows(xp: Any) -> None:
    rows = [xp.asarray([1.0, 2.0]), xp.asarray([3.0, 4.0])]
    with pytest.raises((TypeError, ValueError), match=r"gradient\(point\)"):
        bx.check_gradient(lambda p: _squares(xp, p), lambda p: 2.0 * xp.namespace.stack(p), rows)


# ---- the value


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("1.0", "must be one number, not '1.0'"),
        (b"1", "must be one number, not b'1'"),
        ([1.0], r"must be one number, not \[1.0\]"),
        ({"loss": 1.0}, "must be one number, not {'loss': 1.0}"),
        (True, "must be one number, not of dtype bool"),
        (object, "must be one number, not <class 'object'>"),
        (np.ones((2, 2)), r"must be one number, but has shape \(2, 2\)"),
    ],
)
def test_a_value_that_is_no_number_is_refused_with_what_it_is(found: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=r"value\(point\).*" + message):
        bx.check_gradient(lambda p: found, lambda p: p, np.ones(2))


@pytest.mark.parametrize("found", [1.0 + 0.5j, np.complex128(1.0 + 0.5j), np.asarray(1.0 + 0.5j)])
def test_a_value_that_is_complex_at_a_real_point_is_refused(found: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"value\(point\).*complex"):
        bx.check_gradient(lambda p: found, lambda p: p, np.ones(2))


@pytest.mark.parametrize("found", [None, "1.0", 1.0])
def test_a_batched_value_that_is_no_array_is_refused(found: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"value .*expected"):
        bx.check_gradient(lambda p: found, lambda p: p, np.ones(2), batched=True)


@every_method
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_value_that_is_nan_is_refused_in_every_precision_and_method(
    xp: Any, dtype: str, method: str
) -> None:
    with pytest.raises(ValueError, match=r"value\(point\) is nan"):
        bx.check_gradient(
            lambda p: math.nan * xp.namespace.sum(p),
            lambda p: p,
            xp.asarray([1.0, 2.0], dtype=dtype),
            method=method,
        )


# ---- the options


OPTIONS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"method": "directinal"}, ValueError, "'directinal' is unknown. Did you mean 'directional'"),
    ({"method": "tailor"}, ValueError, "'tailor' is unknown. Did you mean 'taylor'"),
    ({"method": "complex-step"}, ValueError, "Did you mean 'complex_step'"),
    ({"method": "zzz"}, ValueError, "Known: auto, complex_step, centered, directional, taylor"),
    ({"method": ""}, ValueError, "method '' is unknown"),
    ({"method": 1}, TypeError, "method must be a name"),
    ({"method": ["auto"]}, TypeError, "method must be a name"),
    ({"directions": 0}, ValueError, "directions must be an integer of at least 1, not 0"),
    ({"directions": -1}, ValueError, "directions must be an integer of at least 1, not -1"),
    ({"directions": 2.0}, TypeError, "directions must be an integer"),
    ({"directions": True}, TypeError, "directions must be an integer"),
    ({"directions": "two"}, TypeError, "directions must be an integer"),
    ({"tolerance": math.nan}, ValueError, "tolerance must be finite"),
    ({"tolerance": math.inf}, ValueError, "tolerance must be finite"),
    ({"tolerance": True}, TypeError, "tolerance must be a number"),
    ({"tolerance": 1e-3j}, TypeError, "tolerance must be a number"),
    ({"seed": 1.5}, TypeError, "seed must be an integer"),
    ({"seed": "1"}, TypeError, "seed must be an integer"),
    ({"seed": None}, TypeError, "seed must be an integer"),
    ({"seed": True}, TypeError, "seed must be an integer"),
    ({"max_memory": -5}, ValueError, "max_memory must be an integer of at least 1, not -5"),
    ({"max_memory": "1 GB"}, TypeError, "max_memory must be an integer"),
    ({"max_memory": None}, TypeError, "max_memory must be an integer"),
    ({"batched": 1}, TypeError, "batched must be True, False or None, not 1"),
    ({"batched": "yes"}, TypeError, "batched must be True, False or None, not 'yes'"),
]
every_option = pytest.mark.parametrize(
    ("options", "error", "message"), OPTIONS, ids=[str(options) for options, _, _ in OPTIONS]
)


def _untouched(p: Any) -> Any:
    pytest.fail("an impossible option must be refused before anything is computed")


@every_option
def test_an_impossible_option_is_refused_before_anything_is_called(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for check in (bx.check_gradient, bx.assert_gradient):
        with pytest.raises(error, match=message):
            check(_untouched, _untouched, np.ones(2), **options)


@every_option
def test_an_impossible_option_is_refused_by_the_checks_of_networks_layers_and_losses(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    network, x = bx.mlp([2, 3, 1]), np.asarray([[0.5, -1.0]])
    theta = network.initialize(0, backend="numpy")
    with pytest.raises(error, match=message):
        bx.check_network(network, theta, x, [[1.0]], **options)
    with pytest.raises(error, match=message):
        bx.check_layer(bx.LayerNorm(2), x, **options)
    with pytest.raises(error, match=message):
        bx.check_loss("huber", x, np.zeros((1, 2)), **options)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**31, 2**63, 2**64 + 1])
def test_a_seed_may_be_any_whole_number_from_0(xp: Any, seed: int) -> None:
    report = bx.check_gradient(
        lambda p: _squares(xp, p), lambda p: 2.0 * p, xp.asarray([1.0, 2.0]), seed=seed
    )
    assert report.passed


@pytest.mark.float64
def test_numbers_of_numpys_are_options_too(xp: Any) -> None:
    options: dict[str, Any] = {
        "tolerance": np.float64(1e-6),
        "seed": np.int64(3),
        "directions": np.int32(2),
        "max_memory": np.int64(1000),
    }
    for method in METHODS:
        report = bx.check_gradient(
            lambda p: _squares(xp, p),
            lambda p: 2.0 * p,
            xp.asarray([1.0, 2.0]),
            method=method,
            **options,
        )
        assert report.passed
