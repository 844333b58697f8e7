"""Moving data to a backend, and what is said of each; what each must do is test_testing.py's."""

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
    require_beside,
    require_floating,
    require_like,
    to_host,
)
from backprop_xp.backends.libraries import is_computed_in

BUILT_IN = ["numpy", "cupy", "array-api-strict", "jax", "torch"]
STRICT = "array-api-strict"


pytestmark = pytest.mark.usefixtures("nothing_chosen")


@pytest.fixture(params=registry.names())
def backend(request: pytest.FixtureRequest) -> Backend:
    """Every backend, plug-ins too; one that cannot run here skips, with the probe's reason."""
    try:
        return bx.get_backend(request.param)
    except BackendUnavailableError as error:
        if request.param == "cupy" and os.environ.get("BACKPROP_XP_REQUIRE_GPU") == "1":
            pytest.fail(str(error))
        pytest.skip(str(error))


def device_name(device: Any) -> str:
    text = str(device)
    return text.split("'")[1] if "'" in text else text


# asarray


def test_floating_values_take_the_chosen_dtype_and_integers_keep_theirs() -> None:
    assert bx.asarray([1.5]).dtype == np.float64
    assert bx.asarray(np.ones(2), dtype="float32").dtype == np.float32
    assert bx.asarray(np.ones(2, np.float32)).dtype == np.float64
    with bx.use_backend("numpy", dtype="float32"):
        assert bx.asarray([1.5]).dtype == np.float32
        assert bx.asarray(np.arange(3, dtype=np.uint8)).dtype == np.uint8
        assert bx.asarray([1, 2]).dtype == np.int64
        assert bx.asarray([True]).dtype == np.bool_
    assert bx.asarray([1, 2], dtype="float32").dtype == np.float32
    assert bx.asarray([1.0, 2.0], dtype="int32").dtype == np.int32


@pytest.mark.parametrize("given", [3, 2.5, True, np.float32(2.5), np.float64(2.5), np.int8(3)])
def test_a_number_becomes_an_array_without_axes(xp: Any, given: Any) -> None:
    for array in (bx.asarray(given), xp.asarray(given, dtype=None)):
        assert array.shape == ()
        assert float(array) == float(given)
    assert isinstance(bx.asarray(given), np.ndarray)


def test_complex_values_take_the_complex_dtype_of_the_precision(backend: Backend) -> None:
    xp = backend.namespace()
    given = [1.0 + 2.0j, 3.0]
    for source in (given, np.array(given), bx.asarray(given, backend=backend, dtype="float32")):
        with bx.use_backend(backend, dtype="float32"):
            assert bx.asarray(source).dtype == xp.complex64
        moved = bx.asarray(source, backend=backend, dtype="float32")
        assert moved.dtype == xp.complex64
        np.testing.assert_array_equal(to_host(moved), np.array(given))


def test_numpy_to_strict_and_back_keeps_every_value() -> None:
    values = np.random.default_rng(0).normal(size=(3, 4))
    there = bx.asarray(values, backend=STRICT, device="device1")
    assert device_name(device_of(there)) == "device1"
    elsewhere = bx.asarray(there, backend=STRICT, device="device2", dtype="float64")
    assert device_name(device_of(elsewhere)) == "device2"
    back = bx.asarray(elsewhere, backend="numpy")
    assert isinstance(back, np.ndarray)
    np.testing.assert_array_equal(back, values)


def test_an_array_that_is_right_already_is_not_copied() -> None:
    values = np.ones(3)
    assert bx.asarray(values) is values


@pytest.mark.parametrize(
    ("given", "way_out"),
    [
        (["a", "b"], "numpy.unique"),
        (np.array(["a"]), "numpy.unique"),
        (np.array([None]), "Drop such rows"),
        ([{}], "or drop it"),
        (np.datetime64("2020-01-01"), "numpy.timedelta64"),
    ],
)
def test_what_is_no_number_is_refused_with_the_way_out(
    backend: Backend, given: Any, way_out: str
) -> None:
    with pytest.raises(TypeError, match=rf"x has (dtype .* numbers are expected|miss).*{way_out}"):
        bx.asarray(given, backend=backend)


def test_what_is_no_array_at_all_is_refused_by_its_type() -> None:
    with pytest.raises(TypeError, match="x must be an array of numbers, not NoneType"):
        bx.asarray(None)


def test_a_ragged_list_is_refused(backend: Backend) -> None:
    with pytest.raises(ValueError, match="x is not an array of numbers"):
        bx.asarray([[1.0], [1.0, 2.0]], backend=backend)


# Computing beside theta


def test_lists_integers_and_booleans_take_thetas_precision(xp: Any) -> None:
    theta = xp.asarray([0.5], dtype="float32")
    for value in ([1, 2], [True, False], [0.5, 1.5], xp.asarray([1, 2], dtype=None)):
        assert like(theta, value, "x").dtype == xp.namespace.float32
    beside_complex = like(xp.namespace.astype(theta, xp.namespace.complex64), [1, 2], "x")
    assert beside_complex.dtype == xp.namespace.float32


def test_another_floating_precision_is_a_type_error_that_shows_the_repair() -> None:
    with pytest.raises(TypeError, match=r"x is float32.*x = bx\.asarray\(x, .*dtype='float64'"):
        like(np.ones(2), np.ones(2, np.float32), "x")


def test_arrays_in_another_place_are_an_error_that_shows_the_repair() -> None:
    theta = bx.asarray([1.0], backend=STRICT, device="device1")
    here = bx.asarray([1.0], backend=STRICT)
    for value in (here, np.ones(1)):
        with pytest.raises(ValueError, match=r"theta is .*device1.*y = bx\.asarray\(y, backend="):
            require_beside(theta, value, "y")
    require_beside(theta, theta, "y")


def test_only_a_floating_array_passes_for_theta(xp: Any) -> None:
    assert require_floating(xp.asarray([1.0], dtype="float32"), "theta") is not None
    with pytest.raises(TypeError, match=r"theta must be an array.*not list.*bx\.asarray\(theta\)"):
        require_floating([1.0], "theta")
    with pytest.raises(TypeError, match=r"theta is .*int.*floating dtype is expected"):
        require_floating(xp.asarray([1], dtype=None), "theta")


# What nothing is computed in. NumPy alone of the libraries here has them.
OTHER_PRECISIONS = [np.float16, np.longdouble, np.clongdouble]


@pytest.mark.parametrize("kind", OTHER_PRECISIONS)
def test_a_floating_array_of_another_precision_does_not_pass_for_theta(kind: Any) -> None:
    theta = np.ones(2, dtype=kind)
    with pytest.raises(
        TypeError, match=rf"^theta is {theta.dtype}, but .* float32 or float64\. Cast it: "
    ) as caught:
        require_floating(theta, "theta")
    line = str(caught.value).partition("theta = ")[2].rstrip(".")
    cast = eval(line, {"bx": bx, "theta": theta})  # noqa: S307 - our own error's line
    assert require_floating(cast, "theta") is np
    assert np.array_equal(cast, theta)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_float32_float64_and_their_complex_dtypes_pass_for_theta(xp: Any, dtype: str) -> None:
    if dtype in (xp.dtype, xp.complex_dtype, "float32", "complex64"):
        assert require_floating(xp.asarray([1.0], dtype=dtype), "theta") is xp.namespace


@pytest.mark.parametrize("kind", OTHER_PRECISIONS)
def test_a_value_of_another_precision_than_thetas_is_cast_by_the_call_that_is_shown(
    kind: Any,
) -> None:
    theta, x = np.ones(2, np.float32), np.ones(2, kind)
    for check in (like, require_like):
        with pytest.raises(TypeError, match=r"^x is ") as caught:
            check(theta, x, "x")
        if x.dtype.kind == "f":
            assert "x = bx.asarray(x, backend='numpy', device='cpu', dtype='float32')" in str(
                caught.value
            )


def test_a_precision_is_judged_by_the_namespaces_own_dtypes() -> None:
    """As torch.bfloat16 is floating to ``isdtype``, and neither float32 nor float64."""
    kinds = {
        "real floating": ("float32", "float64", "bfloat16"),
        "complex floating": ("complex64", "complex128", "complex32"),
    }
    namespace = types.SimpleNamespace(
        isdtype=lambda dtype, kind: dtype in kinds[kind],
        **{name: name for names in kinds.values() for name in names},
    )
    computed = {
        name for names in kinds.values() for name in names if is_computed_in(namespace, name)
    }
    assert computed == {"float32", "float64", "complex64", "complex128"}
    assert not is_computed_in(namespace, "int32")


# Every backend of the table


def test_the_table_holds_the_backends_that_are_named_here() -> None:
    names = [row.name for row in list_backends()]
    assert names[:5] == BUILT_IN
    assert names == registry.names()


def test_list_backends_says_what_runs_and_otherwise_why_not_and_what_helps() -> None:
    rows = {row.name: row for row in list_backends()}
    assert rows["numpy"] == ("numpy", True, "", "")
    for name, usable, reason, hint in rows.values():
        assert usable or (reason and hint and not reason.rstrip().endswith(":")), name


def test_a_type_of_arrays_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(np.ndarray):
        pass

    kind, asked = type(bx.get_backend("numpy")), []
    owns = kind.owns
    monkeypatch.setattr(kind, "owns", lambda self, array: asked.append(array) or owns(self, array))
    for _ in range(3):
        assert owner(np.ones(2).view(Own)) is bx.get_backend("numpy")
    assert len(asked) == 1


def test_a_subclass_of_a_librarys_arrays_is_the_librarys() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")

    class Own(torch.Tensor):  # type: ignore[misc,name-defined]
        pass

    for array in (torch.ones(1).as_subclass(Own), torch.nn.Parameter(torch.ones(1))):
        assert owner(array) is bx.get_backend("torch")
    assert owner(torch.float32) is owner(torch.Size([1])) is None


def test_each_device_is_found_by_its_object_and_by_its_words(backend: Backend) -> None:
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


def test_the_default_dtype_is_the_documented_one(backend: Backend) -> None:
    xp = backend.namespace()
    if backend.name == STRICT:
        for device, expected in (("device1", xp.float64), ("device2", xp.float32)):
            assert backend.default_dtype(backend.device(device)) == expected
    elif backend.name in DEFAULT_DTYPES:
        expected = getattr(xp, DEFAULT_DTYPES[backend.name])
        assert backend.default_dtype(backend.devices()[0]) == expected
        assert bx.asarray([1.5], backend=backend).dtype == expected


def test_float64_on_jax_needs_x64_and_the_error_says_so() -> None:
    if not {row.name: row for row in list_backends()}["jax"].usable:
        pytest.skip("JAX cannot run here")
    if bx.get_backend("jax").namespace().arange(1).dtype == np.int64:
        assert bx.asarray([1.5], backend="jax", dtype="float64").dtype == np.float64
    else:
        with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
            bx.asarray([1.5], backend="jax", dtype="float64")


def test_a_traced_jax_array_is_taken_beside_a_concrete_one() -> None:
    if not {row.name: row for row in list_backends()}["jax"].usable:
        pytest.skip("JAX cannot run here")
    backend = bx.get_backend("jax")
    theta = bx.asarray([1.5], backend="jax")

    def compiled(x: Any) -> Any:
        require_beside(theta, x, "x")
        with pytest.raises(ValueError, match="given together"):
            bx.resolve(x, np.ones(1))
        with pytest.raises(ValueError, match="contradicts the arrays"):
            bx.resolve(x, backend="numpy")
        assert bx.resolve(theta, x).backend is bx.resolve(x, theta).backend is backend
        return like(theta, x, "x") + theta

    assert float(backend.compile(compiled)(theta)[0]) == 3.0


def test_a_standing_dtype_of_one_library_leaves_lists_and_other_backends_alone() -> None:
    strict = pytest.importorskip("array_api_strict")
    with bx.use_backend("array-api-strict", dtype=strict.float32):
        assert bx.asarray([0.5]).dtype == strict.float32
        assert bx.get_backend("numpy").name == "numpy"


def test_the_repairing_call_of_mixed_precisions_repairs() -> None:
    pytest.importorskip("array_api_strict")
    network = bx.mlp([2, 1])
    with bx.use_backend("array-api-strict", device="device1", dtype="float32"):
        theta = network.initialize()
    x = bx.asarray([[1.0, 2.0]], backend="array-api-strict", device="device1", dtype="float64")
    with pytest.raises(TypeError, match="precisions are not mixed") as error:
        network.forward(theta, x)
    call = str(error.value).partition("x = ")[2].rstrip(".")
    repaired = eval(call, {"bx": bx, "x": x})  # noqa: S307 - the call that our own error shows
    assert network.forward(theta, repaired).shape == (1, 1)


def test_float64_arrives_as_float32_on_a_device_that_keeps_no_float64() -> None:
    x = bx.asarray([0.5, 1.5], backend="array-api-strict", dtype="float64")
    place = {"backend": "array-api-strict", "device": "no_float64"}
    for dtype in (None, "float32"):
        there = bx.asarray(x, **place, dtype=dtype)
        assert place["device"] in str(there.device)
        assert str(there.dtype).endswith("float32")
    back = bx.asarray(there, backend="array-api-strict", device="device1", dtype="float64")
    assert str(back.dtype).endswith("float64")
