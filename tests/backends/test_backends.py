"""Moving data to a backend, and the list of backends; testing/test_conformance.py has the rest.

Specifies ``arrays`` and ``dtypes_and_devices``.
"""

import os
import types
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import (
    Backend,
    BackendUnavailableError,
    device_of,
    like,
    list_backends,
    owner,
    registry,
    require_floating,
    require_same_device,
    to_host,
)
from backprop_xp.backends.dtypes_and_devices import is_computed_in

BUILT_IN = ["numpy", "cupy", "array-api-strict", "jax", "torch", "dpnp"]
STRICT = "array-api-strict"

pytestmark = [pytest.mark.core, pytest.mark.usefixtures("nothing_chosen")]


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.installed) for n in registry.names()])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend, plug-ins too; an unusable one skips the test with the probe's reason."""
    try:
        return bx.get_backend(request.param)
    except BackendUnavailableError as error:
        if request.param == "cupy" and os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


# Devices


def test_the_device_of_an_array_is_its_attribute_or_that_of_array_api_compat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = bx.get_backend("numpy")
    assert Backend.device_of(backend, types.SimpleNamespace(device="gpu")) == "gpu"
    monkeypatch.setattr("array_api_compat.device", lambda array: ("compat", array))
    assert Backend.device_of(backend, 3.0) == ("compat", 3.0)
    assert device_of(np.ones(2)) == "cpu"
    assert device_of(object()) is None


# asarray


def test_floating_values_get_the_chosen_dtype_and_integers_keep_theirs() -> None:
    assert bx.asarray([1.5]).dtype == np.float64
    assert bx.asarray(np.ones(2), dtype="float32").dtype == np.float32
    assert bx.asarray(np.ones(2, np.float32)).dtype == np.float64
    with bx.use_backend("numpy", dtype="float32"):
        for value, kept in ((1.5, "f4"), (np.uint8(1), "u1"), (1, "i8"), (True, "?")):
            assert bx.asarray([value]).dtype == kept
    assert bx.asarray([1, 2], dtype="float32").dtype == np.float32
    assert bx.asarray([1.0, 2.0], dtype="int32").dtype == np.int32


@pytest.mark.parametrize("value", [3, 2.5, True, np.float32(2.5), np.float64(2.5), np.int8(3)])
def test_a_number_becomes_an_array_without_axes(xp: Any, value: Any) -> None:
    for array in (bx.asarray(value), xp.asarray(value, dtype=None)):
        assert array.shape == ()
        assert float(array) == float(value)
    assert isinstance(bx.asarray(value), np.ndarray)


def test_complex_values_get_the_complex_dtype_of_the_precision(backend: Backend) -> None:
    xp = backend.namespace()
    value = [1.0 + 2.0j, 3.0]
    for source in (value, np.array(value), bx.asarray(value, backend=backend, dtype="float32")):
        with bx.use_backend(backend, dtype="float32"):
            assert bx.asarray(source).dtype == xp.complex64
        moved = bx.asarray(source, backend=backend, dtype="float32")
        assert moved.dtype == xp.complex64
        np.testing.assert_array_equal(to_host(moved), np.array(value))


def test_values_move_between_devices_and_libraries_unchanged() -> None:
    values, strict = np.random.default_rng(0).normal(size=(3, 4)), bx.get_backend(STRICT)
    array = values
    for device in ("device1", "device2"):
        array = bx.asarray(array, backend=STRICT, device=device, dtype="float64")
        assert strict.device_name(device_of(array)) == device
    back = bx.asarray(array, backend="numpy")
    assert isinstance(back, np.ndarray)
    np.testing.assert_array_equal(back, values)
    assert bx.asarray(values) is values  # an array that is right already is not copied


def test_float64_arrives_as_float32_on_a_device_that_keeps_no_float64() -> None:
    x = bx.asarray([0.5, 1.5], backend=STRICT, dtype="float64")
    for dtype in (None, "float32"):
        there = bx.asarray(x, backend=STRICT, device="no_float64", dtype=dtype)
        assert "no_float64" in str(there.device)
        assert str(there.dtype).endswith("float32")
    back = bx.asarray(there, backend=STRICT, device="device1", dtype="float64")
    assert str(back.dtype).endswith("float64")


# Arrays beside theta


def test_lists_integers_and_booleans_get_thetas_precision(xp: Any) -> None:
    theta = xp.asarray([0.5], dtype="float32")
    for value in ([1, 2], [True, False], [0.5, 1.5], xp.asarray([1, 2], dtype=None)):
        assert like(theta, value, "x").dtype == xp.namespace.float32
    beside_complex = like(xp.namespace.astype(theta, xp.namespace.complex64), [1, 2], "x")
    assert beside_complex.dtype == xp.namespace.float32
    require_same_device(theta, theta, "y")


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_theta_may_be_float32_float64_or_one_of_their_complex_dtypes(xp: Any, dtype: str) -> None:
    if dtype in (xp.dtype, xp.complex_dtype, "float32", "complex64"):
        assert require_floating(xp.asarray([1.0], dtype=dtype), "theta") is xp.namespace
    with pytest.raises(TypeError, match=r"theta is .*int.*floating dtype is expected"):
        require_floating(xp.asarray([1], dtype=None), "theta")


def test_a_precision_is_recognized_by_the_namespaces_dtypes() -> None:
    """``isdtype`` says that torch.bfloat16 is floating; it is neither float32 nor float64."""
    kinds = {
        "real floating": ("float32", "float64", "bfloat16"),
        "complex floating": ("complex64", "complex128", "complex32"),
    }
    names = [name for of_kind in kinds.values() for name in of_kind]
    namespace = types.SimpleNamespace(
        isdtype=lambda dtype, kind: dtype in kinds[kind], **{name: name for name in names}
    )
    computed = [name for name in [*names, "int32"] if is_computed_in(namespace, name)]
    assert computed == ["float32", "float64", "complex64", "complex128"]


# Every backend of the table


@pytest.mark.installed
def test_list_backends_gives_an_unusable_backend_a_reason_and_a_hint() -> None:
    rows = {row.name: row for row in list_backends()}
    assert [*rows][: len(BUILT_IN)] == BUILT_IN
    assert [*rows] == registry.names()
    assert rows["numpy"] == ("numpy", True, "", "")
    for name, usable, reason, hint in rows.values():
        assert usable or (reason and hint and not reason.rstrip().endswith(":")), name


def test_each_array_type_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(np.ndarray):
        pass

    kind, calls = type(bx.get_backend("numpy")), []
    owns = kind.owns
    monkeypatch.setattr(kind, "owns", lambda self, array: calls.append(array) or owns(self, array))
    for _ in range(3):
        assert owner(np.ones(2).view(Own)) is bx.get_backend("numpy")
    assert len(calls) == 1


def test_an_array_subclass_belongs_to_the_backend_of_its_base(torch: Any) -> None:

    class Own(torch.Tensor):  # type: ignore[misc,name-defined]
        pass

    for array in (torch.ones(1).as_subclass(Own), torch.nn.Parameter(torch.ones(1))):
        assert owner(array) is bx.get_backend("torch")
    assert owner(torch.float32) is owner(torch.Size([1])) is None


def test_each_device_is_found_by_its_object_and_by_its_name(backend: Backend) -> None:
    first = backend.devices()[0]
    assert backend.device(first) == first
    number = getattr(first, "id", 0)  # of CuPy's current GPU
    words = {"numpy": "cpu", STRICT: "cpu", "cupy": f"cuda:{number}", "torch": "cpu"}
    name = words.get(backend.name) or backend.device_name(first)
    if backend.name == "jax":
        name = first.platform.replace("gpu", "cuda")
    assert backend.device(name) == first
    assert device_of(bx.asarray([1.0], backend=backend, device=name)) == first


DEFAULT_DTYPES = {"numpy": "float64", "cupy": "float32", "jax": "float32", "torch": "float32"}
DEFAULT_DTYPES |= {"dpnp": "float32"}


def test_the_default_dtype_is_the_documented_one(backend: Backend) -> None:
    xp = backend.namespace()
    if backend.name == STRICT:
        for device, expected in (("device1", xp.float64), ("device2", xp.float32)):
            assert backend.default_dtype(backend.device(device)) == expected
    elif backend.name in DEFAULT_DTYPES:
        expected = getattr(xp, DEFAULT_DTYPES[backend.name])
        assert backend.default_dtype(backend.devices()[0]) == expected
        assert bx.asarray([1.5], backend=backend).dtype == expected


@pytest.mark.installed
@pytest.mark.parametrize("name", ["torch", "jax"])
def test_numbers_of_a_dtype_that_numpy_lacks_reach_the_host_as_float32(name: str) -> None:
    library = pytest.importorskip(name)
    x = bx.asarray([[1.0, 0.5], [-2.0, 3.0]], backend=name, dtype="float32")
    numbers = library.numpy if name == "jax" else library
    half = bx.backends.array_namespace(x).astype(x, numbers.bfloat16)
    host = bx.to_host(half)
    assert host.dtype == np.float32
    assert host.tolist() == [[1.0, 0.5], [-2.0, 3.0]]
    for backend in ("numpy", STRICT, name):
        moved = bx.asarray(half, backend=backend, dtype="float32")
        assert bx.to_host(moved).tolist() == host.tolist()
    with pytest.raises(TypeError, match=r"x is bfloat16.*Cast it: x = bx\.asarray"):
        bx.resolve(half)


def test_a_numpy_scalar_chooses_no_backend_and_no_dtype(xp: Any) -> None:
    x = xp.asarray([1.0], dtype="float32")
    for number in (np.float64(1.0), np.float32(1.0), np.int32(1), np.bool(True)):
        chosen = bx.resolve(x, number)
        assert chosen.backend.name == xp.name
        assert chosen.dtype == x.dtype
        assert bx.resolve(number).source != "the arrays given"
        with bx.use_backend(STRICT):
            assert bx.resolve(number).source == "use_backend('array-api-strict')"
