"""Choosing a backend, a device and a dtype: which source decides, and what cannot be had."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import BackendUnavailableError, list_backends, owner

NAMES = ["numpy", "cupy", "array-api-strict", "jax", "torch"]
STRICT = "array-api-strict"


pytestmark = pytest.mark.usefixtures("nothing_chosen")


def chosen(*arrays: Any, **arguments: Any) -> tuple[str, str, str]:
    """Return backend, device and dtype of a selection, as words."""
    selection = bx.resolve(*arrays, **arguments)
    xp = selection.backend.namespace()
    dtype = "float32" if selection.dtype == xp.float32 else "float64"
    return selection.backend.name, device_name(selection.device), dtype


def device_name(device: Any) -> str:
    text = str(device)
    return text.split("'")[1] if "'" in text else text


# Precedence


def test_numpy_on_the_cpu_in_float64_is_what_nobody_chose() -> None:
    assert chosen() == ("numpy", "cpu", "float64")
    assert bx.resolve().source == "the default"
    assert bx.get_backend().name == "numpy"


def test_each_source_of_choices_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert bx.resolve().backend.name == STRICT
    assert bx.resolve().source == "the environment variable BACKPROP_XP_BACKEND"

    bx.set_default_backend("numpy")
    assert bx.resolve().backend.name == "numpy"
    assert bx.resolve().source == "set_default_backend('numpy')"

    with bx.use_backend(STRICT):
        assert bx.resolve().backend.name == STRICT
        assert bx.resolve().source == f"use_backend({STRICT!r})"
        assert bx.resolve(np.ones(2)).backend.name == "numpy"
        assert bx.resolve(np.ones(2)).source == "the arrays given"
        assert bx.resolve(backend="numpy").backend.name == "numpy"
        assert bx.resolve(backend="numpy").source == "the argument of the call"

    bx.set_default_backend(None)
    assert bx.resolve().backend.name == STRICT


def test_each_source_of_devices_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert chosen()[1] == "CPU_DEVICE"
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    assert chosen()[1] == "device1"
    bx.set_default_backend(STRICT, device="device2")
    assert chosen()[1] == "device2"
    with bx.use_backend(STRICT, device="no_x64"):
        assert chosen()[1] == "no_x64"
        there = bx.asarray([1.0], device="device1")
        assert chosen(there)[1] == "device1"
        assert chosen(device="no_float64")[1] == "no_float64"


def test_each_source_of_dtypes_overrides_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "float32")
    assert chosen()[2] == "float32"
    bx.set_default_backend("numpy", dtype="float64")
    assert chosen()[2] == "float64"
    with bx.use_backend("numpy", dtype="float32"):
        assert chosen()[2] == "float32"
        assert chosen(np.ones(2))[2] == "float64"
        assert chosen(dtype="float64")[2] == "float64"


def test_a_source_that_leaves_device_or_dtype_open_leaves_it_to_the_next() -> None:
    bx.set_default_backend(STRICT, device="device1", dtype="float32")
    with bx.use_backend(STRICT):
        assert chosen() == (STRICT, "device1", "float32")
    assert chosen(backend=STRICT) == (STRICT, "device1", "float32")


def test_a_device_is_not_taken_from_a_source_that_means_another_backend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    assert chosen(backend="numpy")[:2] == ("numpy", "cpu")
    with bx.use_backend("numpy"):
        assert chosen()[:2] == ("numpy", "cpu")
    monkeypatch.delenv("BACKPROP_XP_BACKEND")  # device1 alone is not array-api-strict's
    assert chosen(backend=STRICT)[:2] == (STRICT, "CPU_DEVICE")


def test_a_dtype_of_the_librarys_own_is_taken() -> None:
    strict = bx.get_backend(STRICT).namespace()
    assert bx.resolve(dtype=np.float32).dtype == np.float32
    assert bx.resolve(dtype=np.dtype("float32")).dtype == np.float32
    bx.set_default_backend(None, dtype="float32")
    with bx.use_backend(dtype=np.dtype("float64")):  # which equals None
        assert bx.resolve().dtype == np.float64
    bx.set_default_backend(None)
    assert bx.resolve(backend=STRICT, dtype=strict.float32).dtype == strict.float32


def test_a_backend_object_is_taken_wherever_a_name_is() -> None:
    strict = bx.get_backend(STRICT)
    assert bx.get_backend(strict) is strict
    assert owner(bx.asarray([1.0], backend=strict)) is strict
    with bx.use_backend(strict) as selection:
        assert selection.backend is bx.get_backend() is strict
    bx.set_default_backend(strict)
    assert bx.get_backend() is strict


@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    for what in ("BACKEND", "DEVICE", "DTYPE"):
        monkeypatch.setenv(f"BACKPROP_XP_{what}", empty)
    assert chosen() == ("numpy", "cpu", "float64")
    assert bx.resolve().source == "the default"


def test_the_environment_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numpy", STRICT, "numpy"):
        monkeypatch.setenv("BACKPROP_XP_BACKEND", name)
        assert bx.get_backend().name == name


def test_lists_and_numbers_decide_nothing() -> None:
    with bx.use_backend(STRICT):
        assert bx.resolve([1.0], 2.0, None).backend.name == STRICT


def test_arrays_choose_backend_device_and_dtype() -> None:
    there = bx.asarray([1.0], backend=STRICT, device="device1", dtype="float32")
    assert chosen(there, [2.0], there) == (STRICT, "device1", "float32")
    assert chosen(np.arange(3), np.ones(3, np.float32))[2] == "float32"
    assert chosen(np.arange(3))[2] == "float64"


# use_backend


def test_use_backend_nests_and_ends() -> None:
    with bx.use_backend(STRICT, device="device1"):
        with bx.use_backend("numpy", dtype="float32"):
            assert chosen() == ("numpy", "cpu", "float32")
            with bx.use_backend(STRICT):
                assert chosen() == (STRICT, "device1", "float32")
        assert chosen() == (STRICT, "device1", "float64")
    assert chosen() == ("numpy", "cpu", "float64")


def test_use_backend_ends_on_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), bx.use_backend(STRICT):
        raise ZeroDivisionError
    with pytest.raises(ValueError, match="unknown"), bx.use_backend("nonesuch"):
        raise AssertionError("the name is refused at once")
    assert chosen() == ("numpy", "cpu", "float64")


def backends_seen(name: str, together: threading.Barrier) -> set[str]:
    """Return what a thread sees in 50 looks inside its ``use_backend`` and 50 after it."""
    seen = set()
    for _ in range(50):
        with bx.use_backend(name):
            together.wait(timeout=30)  # everybody is inside
            seen.add(f"inside {bx.get_backend().name}")
            together.wait(timeout=30)
        seen.add(f"outside {bx.get_backend().name}")
    return seen


def test_eight_threads_never_see_each_others_use_backend() -> None:
    names = ["numpy", STRICT] * 4
    together = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda name: backends_seen(name, together), names))
    assert seen == [{f"inside {name}", "outside numpy"} for name in names]


def test_a_thread_that_begins_inside_use_backend_is_not_in_it() -> None:
    with bx.use_backend(STRICT), ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: bx.get_backend().name).result() == "numpy"


def test_use_backend_holds_for_its_own_task_only() -> None:
    async def task(name: str, barrier: asyncio.Barrier) -> list[str]:
        seen = []
        with bx.use_backend(name):
            for _ in range(20):
                await barrier.wait()
                seen.append(bx.get_backend().name)
            seen.append(await asyncio.to_thread(lambda: bx.get_backend().name))
        seen.append(bx.get_backend().name)
        return seen

    async def all_at_once(names: list[str]) -> list[list[str]]:
        barrier = asyncio.Barrier(len(names))
        return list(await asyncio.gather(*(task(name, barrier) for name in names)))

    names = ["numpy", STRICT] * 4
    assert asyncio.run(all_at_once(names)) == [[name] * 21 + ["numpy"] for name in names]
    assert bx.get_backend().name == "numpy"


def test_one_object_can_be_used_again_and_inside_itself() -> None:
    on_strict = bx.use_backend(STRICT)
    for _ in range(2):
        with on_strict:
            with on_strict:
                assert bx.get_backend().name == STRICT
            assert bx.get_backend().name == STRICT
        assert bx.get_backend().name == "numpy"
    assert on_strict(lambda: bx.get_backend().name)() == STRICT


def test_a_dtype_or_a_device_alone_keeps_the_backend_that_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with bx.use_backend(dtype="float32"):
        assert chosen() == ("numpy", "cpu", "float32")
    with bx.use_backend(STRICT), bx.use_backend(device="device1"):
        with bx.use_backend(dtype="float32") as selection:
            assert selection.source == f"use_backend({STRICT!r})"
            assert chosen() == (STRICT, "device1", "float32")
            assert chosen(backend="numpy") == ("numpy", "cpu", "float32")
        assert chosen() == (STRICT, "device1", "float64")
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    with bx.use_backend(device="device2"):
        assert chosen()[:2] == (STRICT, "device2")
    with (
        pytest.raises(ValueError, match=r"device came from use_backend\(device='tpu'\), the b"),
        bx.use_backend(device="tpu"),
    ):
        pass


# use_backend in generators


def in_strict() -> Iterator[str]:
    with bx.use_backend(STRICT):
        yield bx.get_backend().name
        yield bx.get_backend().name


def test_the_block_of_a_generator_holds_in_it_and_not_for_who_iterates() -> None:
    seen = [(inside, bx.get_backend().name) for inside in in_strict()]
    assert seen == [(STRICT, "numpy")] * 2
    with bx.use_backend("numpy", dtype="float32"):
        assert [(inside, chosen()) for inside in in_strict()] == [
            (STRICT, ("numpy", "cpu", "float32"))
        ] * 2


@pytest.mark.parametrize("end", [[0, 1], [1, 0]])
def test_generators_that_end_in_any_order_leave_nothing_chosen(end: list[int]) -> None:
    on_strict = bx.use_backend(STRICT)

    def with_one_object() -> Iterator[str]:
        with on_strict:
            yield bx.get_backend().name
            yield bx.get_backend().name

    for make in (in_strict, with_one_object):
        generators = [make(), make()]
        for generator in generators:
            next(generator)
        generators[end[0]].close()
        assert next(generators[end[1]]) == STRICT
        generators[end[1]].close()
        assert bx.get_backend().name == "numpy"


def test_a_generator_that_another_thread_ends_leaves_nothing_chosen() -> None:
    generator = in_strict()
    next(generator)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(list, generator).result() == ["numpy"], "that thread chose nothing"
    assert bx.get_backend().name == "numpy"


def test_the_block_of_an_asynchronous_generator_holds_in_it_alone() -> None:
    async def in_strict() -> AsyncIterator[str]:
        with bx.use_backend(STRICT):
            for _ in range(2):
                await asyncio.sleep(0)
                yield bx.get_backend().name

    async def seen() -> list[tuple[str, str]]:
        return [(inside, bx.get_backend().name) async for inside in in_strict()]

    assert asyncio.run(seen()) == [(STRICT, "numpy")] * 2


@contextlib.contextmanager
def on_strict() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(bx.use_backend(STRICT))
        yield


def test_the_generator_of_a_context_manager_hands_its_block_on() -> None:
    with on_strict():
        assert bx.get_backend().name == STRICT
    assert bx.get_backend().name == "numpy"

    def iterates() -> Iterator[str]:
        with on_strict():
            yield bx.get_backend().name

    assert [(inside, bx.get_backend().name) for inside in iterates()] == [(STRICT, "numpy")]


@pytest.fixture
def strict_for_a_test() -> Iterator[None]:
    with bx.use_backend(STRICT):
        yield


@pytest.mark.usefixtures("strict_for_a_test")
def test_a_fixture_hands_its_block_on() -> None:
    assert bx.get_backend().name == STRICT


def test_a_default_holds_for_every_thread_of_a_pool() -> None:
    with ThreadPoolExecutor(4) as pool:
        for name in (STRICT, "numpy", STRICT):  # the workers live through all three
            bx.set_default_backend(name)
            looks = [pool.submit(lambda: bx.get_backend().name) for _ in range(16)]
            assert {look.result() for look in looks} == {name}


# What cannot be had


@contextlib.contextmanager
def by_argument(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    bx.resolve(backend=name)
    yield


@contextlib.contextmanager
def by_context(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    with bx.use_backend(name):
        yield


@contextlib.contextmanager
def by_default(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    bx.set_default_backend(name)
    yield


@contextlib.contextmanager
def by_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[None]:
    monkeypatch.setenv("BACKPROP_XP_BACKEND", name)
    bx.resolve()
    yield


SOURCES = [
    (by_argument, "the argument of the call"),
    (by_context, "use_backend"),
    (by_default, "set_default_backend"),
    (by_environment, "BACKPROP_XP_BACKEND"),
]
Chooser = Callable[[pytest.MonkeyPatch, str], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize(("choose", "source"), SOURCES)
def test_an_unknown_name_is_an_error_that_offers_the_nearest_and_names_its_source(
    monkeypatch: pytest.MonkeyPatch, choose: Chooser, source: str
) -> None:
    with pytest.raises(ValueError, match="unknown") as caught, choose(monkeypatch, "numpi"):
        pass
    for part in ("'numpi'", source, "Did you mean 'numpy'?", *NAMES, "auto"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("choose", "source"), SOURCES)
def test_a_backend_that_cannot_run_is_an_error_with_reason_and_way_out(
    monkeypatch: pytest.MonkeyPatch, choose: Chooser, source: str
) -> None:
    status = {row.name: row for row in list_backends()}["cupy"]
    if status.usable:
        pytest.skip("CuPy has a GPU here")
    with pytest.raises(BackendUnavailableError) as caught, choose(monkeypatch, "cupy"):
        pass
    for part in ("'cupy'", source, status.reason, status.hint):
        assert part in str(caught.value)


def test_a_choice_that_is_overridden_need_not_be_one_that_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "cuda:0")
    for name in ("cupy", "nonesuch"):
        monkeypatch.setenv("BACKPROP_XP_BACKEND", name)
        assert bx.resolve(np.ones(2)).backend.name == "numpy"
        assert bx.resolve(backend="numpy").backend.name == "numpy"
        with bx.use_backend("numpy"):
            assert isinstance(bx.asarray([1.0]), np.ndarray)


def test_an_unknown_device_is_an_error_that_lists_the_known_and_names_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'tpu'.*numpy.*cpu.*the argument of the call"):
        bx.resolve(device="tpu")
    with (
        pytest.raises(ValueError, match=r"'tpu'.*CPU_DEVICE, device1.*use_backend"),
        bx.use_backend(STRICT, device="tpu"),
    ):
        pass
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "device1")
    with pytest.raises(ValueError, match=r"'device1'.*numpy.*BACKPROP_XP_DEVICE"):
        bx.resolve()


def test_an_unknown_dtype_is_an_error_that_offers_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValueError, match=r"'flot32', from the argument.*mean 'float32'\?"):
        bx.resolve(dtype="flot32")
    with pytest.raises(TypeError, match=r"is none of numpy's.*'float32'"):
        bx.resolve(dtype=object())
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "double")
    with pytest.raises(ValueError, match=r"'double', from .*BACKPROP_XP_DTYPE"):
        bx.resolve()


@pytest.mark.parametrize("kind", [np.float16, np.dtype(np.clongdouble), "float16", "half"])
def test_a_floating_dtype_that_nothing_is_computed_in_is_refused_by_its_source(kind: Any) -> None:
    choices: dict[str, Callable[[], Any]] = {
        "the argument of the call": lambda: bx.resolve(dtype=kind),
        "use_backend('numpy')": bx.use_backend("numpy", dtype=kind).__enter__,
        "set_default_backend('numpy')": lambda: bx.set_default_backend("numpy", dtype=kind),
        "the argument of the call ": lambda: bx.asarray([0.5], dtype=kind),
        "the argument of the call  ": lambda: bx.mlp([2, 1]).initialize(dtype=kind),
        "the argument of the call   ": lambda: bx.resolve(np.ones(2), dtype=kind),
    }
    name = np.dtype(kind).name
    for source, choose in choices.items():
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole
            choose()
        assert str(caught.value) == (
            f"dtype {name!r}, from {source.strip()}, is floating, but float32 or float64 is "
            "expected: nothing is computed in another precision. Ask for dtype='float32'."
        )
    assert bx.resolve(dtype="complex64").dtype == np.complex64


def test_the_environments_dtype_is_held_to_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "float16")
    with pytest.raises(ValueError, match=r"'float16', from .*BACKPROP_XP_DTYPE, .* float64 is exp"):
        bx.resolve()


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, np.clongdouble])
def test_arrays_that_nothing_is_computed_in_choose_nothing(kind: Any) -> None:
    x = np.ones(2, kind)
    with pytest.raises(TypeError, match=rf"^x is {x.dtype}, but .*bx\.asarray\(x, "):
        bx.resolve(np.ones(2), x)
    assert bx.asarray(x).dtype in (np.float64, np.complex128)  # the way out


def test_a_backend_is_had_whatever_device_or_dtype_the_environment_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_DTYPE", "double")
    monkeypatch.setenv("BACKPROP_XP_DEVICE", "tpu")
    for name in (None, "numpy", STRICT):
        assert bx.get_backend(name).name == (name or "numpy")
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert bx.get_backend().name == STRICT
    assert bx.get_backend("numpy").name == "numpy"


def test_the_backend_that_is_had_is_the_one_that_is_resolved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bx.get_backend() is bx.resolve().backend
    monkeypatch.setenv("BACKPROP_XP_BACKEND", STRICT)
    assert bx.get_backend() is bx.resolve().backend
    with bx.use_backend("numpy"):
        assert bx.get_backend() is bx.resolve().backend


def test_a_default_that_cannot_be_had_leaves_the_one_before() -> None:
    bx.set_default_backend(STRICT)
    for wrong in ({"name": "nonesuch"}, {"name": "numpy", "device": "device1"}):
        with pytest.raises(ValueError, match="set_default_backend"):
            bx.set_default_backend(**wrong)
    assert bx.get_backend().name == STRICT


def test_a_standing_choice_of_integers_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"'int32', from set_default_backend.*'float64'"):
        bx.set_default_backend("numpy", dtype="int32")
    with (
        pytest.raises(ValueError, match=r"'int32', from use_backend.*'float64'"),
        bx.use_backend("numpy", dtype="int32"),
    ):
        pass


def test_what_is_no_backend_at_all_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="backend must be a name or a Backend, not 3"):
        bx.resolve(backend=3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": STRICT}, f"backend='{STRICT}' contradicts.*numpy's.*bx[.]asarray"),
        ({"dtype": "float32"}, "dtype='float32' contradicts.*float64.*bx[.]asarray"),
    ],
)
def test_an_argument_that_contradicts_the_arrays_is_an_error(
    arguments: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bx.resolve(np.ones(2), **arguments)


def test_a_device_that_contradicts_the_arrays_is_an_error() -> None:
    there = bx.asarray([1.0], backend=STRICT, device="device1")
    with pytest.raises(ValueError, match=r"device='device2' contradicts.*device1.*bx\.asarray"):
        bx.resolve(there, device="device2")
    assert chosen(there, backend=STRICT, device="device1", dtype="float64")[1] == "device1"


@pytest.mark.parametrize("backend", ["numpy", STRICT, "jax", "torch"])
def test_the_line_of_a_contradiction_repairs_it(backend: str) -> None:
    if not {row.name: row for row in list_backends()}[backend].usable:
        pytest.skip(f"{backend} is not installed")
    for array in [np.ones(2), np.ones(2, np.float32), np.ones(2, np.int32), np.ones(2, "c8")]:
        there = bx.asarray(array, backend=STRICT, device="device1", dtype=array.dtype.name)
        kinds = ({}, {"dtype": "float32"})
        for arguments in [{"backend": backend}, {"device": "device2"}, {"dtype": "float32"}]:
            for extra in kinds:
                try:
                    bx.resolve(there, **{**arguments, **extra})
                except ValueError as error:
                    (line,) = re.findall(r"first: x = (bx\.asarray\(.*\)); or leave", str(error))
                    moved = eval(line, {"bx": bx, "x": there})  # noqa: S307 - our own line
                    bx.resolve(moved, **{**arguments, **extra})


def test_arrays_of_two_libraries_or_devices_are_an_error_that_shows_the_repair() -> None:
    here = bx.asarray([1.0], backend=STRICT)
    there = bx.asarray([1.0], backend=STRICT, device="device1")
    for first, other in [(here, np.ones(1)), (np.ones(1), here), (here, there), (there, here)]:
        with pytest.raises(ValueError, match="given together") as caught:
            bx.resolve(first, other)
        assert bx.resolve(first, repaired(caught.value, other)).backend is owner(first)


def test_arrays_of_two_floating_precisions_are_an_error_that_shows_the_repair() -> None:
    for kinds in [("float64", "float32"), ("float32", "float64"), ("complex64", "float64")]:
        for place in [{"backend": "numpy"}, {"backend": STRICT, "device": "device1"}]:
            xp = bx.get_backend(place["backend"]).namespace()
            first, other = (xp.astype(bx.asarray([1, 2], **place), getattr(xp, k)) for k in kinds)
            with pytest.raises(TypeError, match="precisions are not mixed") as caught:
                bx.resolve(first, bx.asarray([1, 2], **place), other)
            assert bx.resolve(first, repaired(caught.value, other)).backend is owner(first)


def test_a_complex_array_and_integers_are_of_no_other_precision() -> None:
    arrays = [np.ones(1, np.complex64), np.ones(1, np.float32), np.ones(1, np.int64)]
    assert bx.resolve(*arrays).dtype == np.float32
    assert bx.resolve(arrays[0]).dtype == np.float32


def repaired(error: BaseException, x: Any) -> Any:
    """Return what x is after the line of code that an error shows."""
    (line,) = re.findall(r"x = (bx\.asarray\(.*\))\.$", str(error))
    return eval(line, {"bx": bx, "x": x})  # noqa: S307 - the line that our own error shows


def test_listing_backends_imports_no_library(tmp_path: Path) -> None:
    for name in ("jax", "torch"):
        (tmp_path / f"{name}.py").write_text(
            "__version__ = '0.0'\ndef __getattr__(n): return print"
        )
    program = (
        "import sys, backprop_xp as bx\n"
        "rows = bx.list_backends()\n"
        "print(*sorted({'jax', 'torch', 'cupy', 'array_api_strict'} & sys.modules.keys()))\n"
        "print(*(row.name for row in rows if row.usable))\n"
    )
    path = os.pathsep.join([str(tmp_path), str(Path(bx.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    imported, usable = done.stdout.splitlines()
    assert not imported
    assert {"numpy", STRICT} <= {*usable.split()}


def test_auto_takes_what_works_and_says_so_in_exactly_one_line() -> None:
    program = (
        "import logging, backprop_xp as bx\n"
        "logging.basicConfig(level=logging.INFO)\n"
        "names = {bx.get_backend().name for _ in range(3)} | {bx.get_backend('auto').name}\n"
        "print(*names)\n"
    )
    path = os.pathsep.join([str(Path(bx.__file__).parents[1]), *sys.path])
    environment = {**os.environ, "BACKPROP_XP_BACKEND": "auto", "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    status = {row.name: row for row in list_backends()}["cupy"]
    expected = "cupy" if status.usable else "numpy"
    assert done.stdout.split() == [expected]
    (line,) = [line for line in done.stderr.splitlines() if "backprop_xp" in line]
    assert f"backend 'auto' is {expected}" in line
    assert status.reason in line
