"""Errors of an unavailable choice: the value, its source, the reason, and the way out.

Specifies ``compatibility``.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import (
    BackendUnavailableError,
    DTypeNotKeptError,
    like,
    list_backends,
    owner,
    require_floating,
    require_like,
    require_same_device,
)
from tests.helpers import needing, printed_lines, run_suggestion

STRICT = "array-api-strict"
NO_FLOAT64 = {"device": "no_float64", "dtype": "float64"}

pytestmark = pytest.mark.usefixtures("nothing_chosen")


def strict(values: Any, device: str | None = None, dtype: str | None = None) -> Any:
    return bx.asarray(values, backend=STRICT, device=device, dtype=dtype)


# A choice that is wrong from every source

SOURCES = {
    "argument": "the argument of the call",
    "context": "use_backend({name!r})",
    "default": "set_default_backend({name!r})",
    "environment": "the environment variable BACKPROP_XP_{what}",
}


def choose(source: str, monkeypatch: pytest.MonkeyPatch, name: str, **choice: str) -> None:
    """Make a choice by the given source."""
    if source == "environment":
        for what, value in {"backend": name, **choice}.items():
            monkeypatch.setenv(f"BACKPROP_XP_{what.upper()}", value)
        bx.resolve()
    elif source == "context":
        with bx.use_backend(name, **choice):
            pass
    elif source == "default":
        bx.set_default_backend(name, **choice)
    else:
        bx.resolve(backend=name, **choice)


# The name and the rest of the choice, the wrong part, and the message.
CHOICES: list[tuple[str, dict[str, str], str, type[Exception], str]] = [
    (
        "numpi",
        {},
        "backend",
        ValueError,
        r"'numpi', from {}, is unknown\. Did you mean 'numpy'\? "
        "Known: auto, numpy, cupy, array-api-strict, jax, torch",
    ),
    (
        "numpy",
        {"device": "cuda:0"},
        "device",
        ValueError,
        "'cuda:0' .*numpy.*: cpu.* came from {}.*'cupy', 'jax' or 'torch'",
    ),
    ("numpy", {"dtype": "float23"}, "dtype", ValueError, "'float23', from {}, .*'float32'.*uint64"),
    ("numpy", {"dtype": "float16"}, "dtype", ValueError, "'float16', from {}, .*dtype='float32'"),
    (STRICT, NO_FLOAT64, "dtype", DTypeNotKeptError, "'float64', from {}, .*no_float64.*another"),
    ("numpy", {"dtype": "int32"}, "dtype", ValueError, "'int32', from {}, .*dtype='int32' to the"),
]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("name", "choice", "what", "kind", "pattern"), CHOICES)
def test_an_unavailable_choice_is_an_error_that_names_its_source(
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    name: str,
    choice: dict[str, str],
    what: str,
    kind: type[Exception],
    pattern: str,
) -> None:
    if source == "argument" and "int32" in choice.values():
        assert bx.resolve(dtype="int32").dtype == np.int32  # a call may use an integer dtype
        return
    where = re.escape(SOURCES[source].format(name=name, what=what.upper()))
    with pytest.raises(kind, match=pattern.format(where)) as caught:
        choose(source, monkeypatch, name, **choice)
    assert type(caught.value) is kind


@pytest.mark.parametrize("source", SOURCES)
def test_an_unusable_backend_is_an_error_with_a_reason_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    status = {row.name: row for row in list_backends()}["cupy"]
    if status.usable:
        pytest.skip("CuPy has a GPU here")
    with pytest.raises(BackendUnavailableError) as caught:
        choose(source, monkeypatch, "cupy")
    where = SOURCES[source].format(name="cupy", what="BACKEND")
    for part in ("'cupy'", where, status.reason, status.hint):
        assert part in str(caught.value)


# Other errors

MOVED = r"arrays given, which are {}.* x = bx\.asarray\(x, {}\); or omit the argument"
CONTRADICTS: list[tuple[dict[str, str], str, str]] = [
    ({"device": "device2"}, "on device1", f"backend='{STRICT}', device='device2', dtype='float64'"),
    ({"backend": "numpy"}, f"{STRICT}'s", "backend='numpy', dtype='float64'"),
    ({"dtype": "float32"}, "float64", f"backend='{STRICT}', device='device1', dtype='float32'"),
]
TEXTS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: bx.resolve(backend=3), TypeError, r"a Backend, not 3 \(from the argument"),  # type: ignore[arg-type]
    (lambda: bx.resolve(backend=type(bx.get_backend("numpy"))), TypeError, "not <class .*NumPy"),  # type: ignore[arg-type]
    (lambda: bx.use_backend().__enter__(), TypeError, r"use_backend\('numpy'\), or a device or a"),
    (
        lambda: bx.use_backend(device="tpu").__enter__(),
        ValueError,
        r"device came from use_backend\(device='tpu'\), the backend from the default.*'jax'\.$",
    ),
    (lambda: bx.resolve(device="abacus"), ValueError, r"default\. Choose another device\.$"),
    (lambda: bx.resolve(device="device1"), ValueError, f"that may have it: '{STRICT}'"),
    (
        lambda: bx.resolve(backend=STRICT, device="device7"),
        ValueError,
        "CPU_DEVICE, device1.*Device and backend came from the argument.*Choose another device.$",
    ),
    (lambda: bx.resolve(dtype=object()), TypeError, "is not a dtype of numpy.*'float32'"),
    (lambda: bx.resolve(np.ones(2), dtype="half"), ValueError, "'float16', from the argument"),
    (lambda: bx.asarray([0.5], dtype=np.clongdouble), ValueError, "is floating, but float32 or"),
    (lambda: bx.asarray([1j], dtype="int32"), TypeError, "x is complex, but dtype int32"),
    (
        lambda: bx.asarray([1j], backend=STRICT, device="no_float64", dtype="complex128"),
        DTypeNotKeptError,
        "'complex128', from the argument of the call.*no complex128 on no_float64",
    ),
    (lambda: like(np.ones(2), [1j], "x"), TypeError, r"x is complex128.*float64\. Take its real"),
    *(
        (lambda a=a: bx.resolve(strict([1.0], "device1"), **a), ValueError, MOVED.format(have, way))
        for a, have, way in CONTRADICTS
    ),
    (
        lambda: bx.mlp([1, 1]).pack([(np.ones((1, 1)), strict([[1.0]]))]),
        ValueError,
        r"^parameters\[0\]\[1\].* it: bx\.asarray\(parameters\[0\]\[1\], backend='numpy', device=",
    ),
    (
        lambda: bx.check_gradient(sum, list, [np.ones(2), np.ones(2, np.float32)]),
        TypeError,
        r"^point\[1\].* it: bx\.asarray\(point\[1\], .*, dtype='float64'\)\.$",
    ),
]


@pytest.mark.parametrize(("call", "kind", "pattern"), TEXTS)
def test_an_error_has_the_value_and_the_way_out(
    call: Callable[[], Any], kind: type[Exception], pattern: str
) -> None:
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert type(caught.value) is kind


def test_a_device_without_a_backend_in_the_environment_belongs_to_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    with pytest.raises(ValueError, match="variable BACKPROP_XP_DEVICE, the backend from the def"):
        bx.resolve()


# The suggested lines


@pytest.mark.installed
@pytest.mark.parametrize("backend", [*map(needing, ("numpy", STRICT, "jax", "torch"))])
def test_the_line_of_a_contradiction_repairs_it(backend: str) -> None:
    if not {row.name: row for row in list_backends()}[backend].usable:
        pytest.skip(f"{backend} is not installed")
    for dtype in ("float64", "float32", "int32", "complex64"):
        there = strict(np.ones(2, dtype), "device1", dtype)
        for argument in ({"backend": backend}, {"device": "device2"}, {"dtype": "float32"}):
            for choice in (argument, {**argument, "dtype": "float32"}):
                try:
                    bx.resolve(there, **choice)
                except ValueError as error:
                    bx.resolve(run_suggestion(error, "x", there), **choice)


PAIRS: list[tuple[Callable[[], tuple[Any, Any]], type[Exception]]] = [
    (lambda: (strict([1.0]), np.ones(1)), ValueError),
    (lambda: (np.ones(1), strict([1.0])), ValueError),
    (lambda: (strict([1.0]), strict([1.0], "device1")), ValueError),
    (lambda: (strict([1.0], "device1", "float32"), strict([1])), ValueError),
    (lambda: (np.ones(2), np.ones(2, np.float32)), TypeError),
    (lambda: (np.ones(2, np.complex64), np.ones(2)), TypeError),
    (lambda: (strict([1.0], "device1", "float32"), strict([1.0], "device1")), TypeError),
    (lambda: (bx.asarray([1.0], backend="jax", dtype="float32"), np.ones(1)), ValueError),
    (lambda: (bx.asarray([1.0], backend="torch", dtype="float32"), np.ones(1)), ValueError),
]


@pytest.mark.installed
@pytest.mark.parametrize(("make", "kind"), PAIRS)
def test_arrays_that_do_not_fit_together_are_an_error_with_the_line_that_repairs_it(
    make: Callable[[], tuple[Any, Any]], kind: type[Exception]
) -> None:
    try:
        theta, x = make()
    except BackendUnavailableError as error:
        pytest.skip(str(error))
    with pytest.raises(kind, match=r"^x is .*, but an array given together with it is ") as caught:
        bx.resolve(theta, x)
    moved = run_suggestion(caught.value, "x", x)
    assert bx.resolve(theta, moved).backend is owner(theta)
    assert ("int" in str(moved.dtype)) == ("int" in str(x.dtype))  # integers stay integers
    for check in (require_same_device,) if kind is ValueError else (like, require_like):
        with pytest.raises(kind, match=r"^x is .*, but theta is ") as caught:
            check(theta, x, "x")
    like(theta, run_suggestion(caught.value, "x", x), "x")


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, np.clongdouble])
def test_the_line_in_the_error_casts_an_array_of_another_precision(kind: Any) -> None:
    """Of the installed libraries only NumPy has them."""
    x = np.ones(2, dtype=kind)
    with pytest.raises(
        TypeError, match=rf"^theta is {x.dtype}, .* float32 or float64\. "
    ) as caught:
        require_floating(x, "theta")
    assert require_floating(run_suggestion(caught.value, "theta", x), "theta") is np
    for check in (like, require_like):
        with pytest.raises(TypeError, match=r"^x is .*float32"):
            check(np.ones(2, np.float32), x, "x")
    with pytest.raises(TypeError, match=rf"^x is {x.dtype}, .* float32 or float64") as caught:
        bx.resolve(np.ones(2), x)
    assert run_suggestion(caught.value, "x", x).dtype in (np.float64, np.complex128)


# Tests in child processes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the library's dependencies only: it has no other array library."""
    for package in (np, array_api_compat, bx):
        home = Path(package.__file__).parent
        (tmp_path / home.name).symlink_to(home)
        if home.with_name(f"{home.name}.libs").exists():
            (tmp_path / f"{home.name}.libs").symlink_to(home.with_name(f"{home.name}.libs"))
    return tmp_path


NOT_INSTALLED = {
    "cupy": r"CuPy is not installed\. Try: pip install 'cupy-cuda13x\[ctk\]>=",
    STRICT: r"array-api-strict is not installed\. Try: pip install 'array-api-strict>=",
    "jax": r"JAX is not installed\. Try: pip install 'jax>=",
    "torch": r"PyTorch is not installed\. Try: pip install 'torch>=",
    "dpnp": r"dpnp is not installed\. Try: pip install 'dpnp>=",
}


@pytest.mark.parametrize("folders", [False, True])
def test_a_missing_library_is_an_error_even_with_a_folder_of_its_name(
    folder: Path, folders: bool
) -> None:
    for name in NOT_INSTALLED if folders else ():
        (folder / name.replace("-", "_")).mkdir()  # Python imports a folder as an empty package
    calls = "\n".join(f"bx.get_backend({name!r})" for name in NOT_INSTALLED)
    calls += "\nprint(bx.asarray([1.0]))"
    lines = printed_lines(calls, options=("-S",), PYTHONPATH=str(folder))
    for line, (name, reason) in zip(lines, NOT_INSTALLED.items(), strict=False):
        assert re.match(f"BackendUnavailableError .*'{name}', from the argument.*{reason}", line)
    assert lines[len(NOT_INSTALLED) :] == ["[1.]"]
