"""JAX: its dtypes and devices, what is compiled, donated and copied, and a mesh of devices.

``training/steps/test_compiled.py`` counts what a training compiles;
``testing/test_conformance.py`` tests the protocol.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import like, require_same_device, sum_at
from backprop_xp.backends.replacements import dispatch
from backprop_xp.networks.chain.layout import lay_out, pack
from backprop_xp.training.optimizers.pytrees import copy_of, zeros_like
from tests.helpers import printed_lines, python

jax = pytest.importorskip("jax", reason="JAX is not installed")
pytestmark = [pytest.mark.jax, pytest.mark.usefixtures("nothing_chosen")]


@pytest.fixture
def backend() -> Any:
    return bx.get_backend("jax")


def of_jax(values: Any, dtype: str = "float32") -> Any:
    return bx.asarray(np.asarray(values, dtype), backend="jax", dtype=dtype)


def test_a_traced_jax_array_and_a_concrete_one_work_together(backend: Any) -> None:
    theta = bx.asarray([1.5], backend="jax")

    def compiled(x: Any) -> Any:
        require_same_device(theta, x, "x")
        with pytest.raises(ValueError, match="given together"):
            bx.resolve(x, np.ones(1))
        with pytest.raises(ValueError, match="contradicts the arrays"):
            bx.resolve(x, backend="numpy")
        assert bx.resolve(theta, x).backend is bx.resolve(x, theta).backend is backend
        return like(theta, x, "x") + theta

    assert float(backend.compile(compiled)(theta)[0]) == 3.0


def test_a_compiled_function_reuses_the_memory_that_it_is_given(backend: Any) -> None:
    kept, given = of_jax([1.0, 2.0]), of_jax([3.0, 4.0])
    compiled = backend.compile(lambda a, b: (a + b, a), donate=(1,))
    assert compiled(kept, given)[0].tolist() == [4.0, 6.0]
    assert given.is_deleted()
    assert kept.tolist() == [1.0, 2.0]


def test_a_loop_takes_the_steps_from_first_to_last_and_reuses_its_carry(backend: Any) -> None:
    loop = backend.loop(lambda carry, column, factor: (carry + column, factor * carry))
    start, columns = of_jax([0.0, 10.0]), of_jax([[1, 1], [2, 3], [4, 5], [8, 9]])
    carry, outputs = loop(start, columns, 1, 3, of_jax(2.0))
    assert carry.tolist() == [6.0, 18.0]
    assert outputs.tolist() == [[0, 0], [0, 20], [4, 26], [0, 0]]  # rows of steps not taken: 0
    assert start.is_deleted()


def test_an_error_of_tracing_says_that_the_function_is_compiled(backend: Any) -> None:
    def reads(x: Any) -> Any:
        return x if x > 0 else -x

    with pytest.raises(jax.errors.TracerBoolConversionError) as error:
        backend.compile(backend.compile(reads))(of_jax(1.0))
    (note,) = [note for note in error.value.__notes__ if "disable_jit" in note]
    assert "cannot read the values of its arrays" in note
    with jax.disable_jit():
        assert float(backend.compile(reads)(of_jax(-1.0))) == 1.0


@pytest.mark.parametrize("stack", [(), (2,), (2, 3)], ids=str)
@pytest.mark.parametrize("shared", [True, False])
def test_rows_are_summed_by_a_scatter(stack: tuple[int, ...], shared: bool) -> None:
    """In each network's own table, whether the networks share the indices or not."""
    generator = np.random.default_rng(0)
    values = generator.integers(-8, 8, size=(*stack, 9, 2)).astype("float32")
    indices = generator.integers(0, 4, size=(9,) if shared else (*stack, 9)).astype("int32")
    given = of_jax(values), of_jax(indices, "int32")
    expected = sum_at(values, indices, 5)
    np.testing.assert_array_equal(bx.to_host(sum_at(*given, 5)), expected)
    assert "scatter-add" in str(jax.make_jaxpr(lambda *arrays: sum_at(*arrays, 5))(*given))


@pytest.mark.parametrize(("units", "has_branch"), [(3, False), (20_000, True)])
def test_parameters_are_joined_behind_a_branch_where_they_are_many(
    units: int, has_branch: bool
) -> None:
    """XLA would search the part of each element in every function that uses the result."""
    layout = lay_out([bx.Dense(1, units)])
    values = [[of_jax(np.full(part.shape, n)) for n, part in enumerate(layout[0], 2)]]
    replaced = dispatch(pack, values[0][0])
    joined = jax.jit(lambda values: replaced(layout, values, ()))
    assert joined(values).tolist() == [2.0] * units + [3.0] * units
    assert ("cond" in str(jax.make_jaxpr(joined)(values))) == has_branch


def test_copies_and_zeros_of_a_new_shape_compile_nothing() -> None:
    """JAX never frees what it compiles, more than a megabyte for each shape."""
    array, compiled = of_jax(np.ones((7, 131))), []

    def count(event: str, *_: Any, **__: Any) -> None:
        compiled.extend([event] if event.endswith("backend_compile_duration") else [])

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        copy, zeros = dispatch(copy_of, array)(array), dispatch(zeros_like, array)(array)
        assert compiled == []
        assert float((array + 1.0)[0, 0]) == 2.0
        assert compiled  # the listener works
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert copy.unsafe_buffer_pointer() != array.unsafe_buffer_pointer()
    assert copy.tolist() == array.tolist()
    assert zeros.shape == array.shape
    assert not zeros.any()


@pytest.mark.long
def test_a_missing_jax_platform_is_an_error_with_the_way_out() -> None:
    ask = "bx.get_backend('jax')"
    (line,) = printed_lines(ask, JAX_PLATFORMS="rocm")
    assert re.search(r"cannot run here: RuntimeError: .*rocm.*Try: unset JAX_PLATFORMS", line), line
    (line,) = printed_lines(ask, JAX_PLATFORMS="cuda")
    if not line.startswith("<"):  # a GPU answers
        assert "JAX_PLATFORMS='cuda'" in line
        assert "unset JAX_PLATFORMS" in line


def test_an_unknown_device_is_an_error_with_the_reason_of_jax() -> None:
    for device, reason in (("no_such:0", " JAX finds no such platform: .*no_such"), ("cpu:99", "")):
        with pytest.raises(ValueError, match=rf"Known: .*cpu:0\.{reason}.* Device and backend"):
            bx.asarray([1.0], backend="jax", device=device)


WITHOUT_X64 = """\
bx.asarray(np.ones(1), backend='jax', dtype='float64')
bx.asarray(bx.asarray([1.0], backend='jax'), backend='jax', dtype='float64')
bx.resolve(backend='jax', dtype=np.float64)
bx.mlp([1, 1]).initialize(backend='jax', dtype='float64')
bx.asarray(np.array([-1, 2**31]), backend='jax')
bx.asarray(np.array([2**32], np.uint64), backend='jax')
print(bx.asarray(np.array([-2**31, 2**31 - 1]), backend='jax'))
print(bx.asarray(np.zeros(0, np.int64), backend='jax'))
os.environ.update(BACKPROP_XP_BACKEND='jax', BACKPROP_XP_DTYPE='float64'); bx.resolve()
os.environ.clear(); import jax; jax.config.update('jax_enable_x64', True)
print(bx.asarray([2**31], backend='jax'), bx.resolve(backend='jax', dtype='float64').dtype)
"""


@pytest.mark.long
def test_jax_keeps_64_bit_numbers_only_with_x64() -> None:
    lines = printed_lines(WITHOUT_X64)
    keeps_no = "DTypeNotKeptError .*JAX has no {} .*JAX_ENABLE_X64=1 .*dtype='float32'"
    patterns = [f"{keeps_no.format('float64')}"] * 4
    patterns += [f"(?=.*-1 to 2147483648 do not fit in int32){keeps_no.format('int64')}"]
    patterns += [keeps_no.format("uint64"), r"\[-2147483648 +2147483647\]", r"\[\]"]
    patterns += [f"(?=.*variable BACKPROP_XP_DTYPE){keeps_no.format('float64')}"]
    patterns += [r"\[2147483648\] .*float64"]
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.match(pattern, line), line


@pytest.mark.long
@pytest.mark.long
def test_trainings_are_divided_over_four_devices(tmp_path: Path) -> None:
    """The number of JAX's devices on the CPU is fixed when its process starts."""
    file = str(Path(__file__).with_name("on_four_jax_devices.py"))
    options = ["-q", "-p", "no:benchmark", "-p", "no:cacheprovider"]
    flags = f"--xla_force_host_platform_device_count=4 --xla_dump_to={tmp_path} "
    flags += "--xla_dump_hlo_module_re=many|in_parts|traced|evaluate|matmul"
    environment = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    environment["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    program = f"import pytest; raise SystemExit(pytest.main([{file!r}, *{options}]))"
    done = python(program, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
