"""CuPy: tests without a GPU, and tests that need one.

Without a GPU the kernels' source is compiled twice: by NVRTC for a GPU, where CuPy finds it, and as
plain C++ for this processor, where the kernels must equal the optimizers.

Specifies ``row_kernels`` and ``update_kernels``.
"""

import ctypes
import importlib
import inspect
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.backends import Backend, array_namespace, device_of
from backprop_xp.backends.libraries.cupy import backend as cupy_backend
from backprop_xp.backends.libraries.cupy.fused import DROPOUT, DROPOUT_HASH
from backprop_xp.backends.libraries.cupy.row_kernels import ROW_KERNELS, source
from backprop_xp.backends.libraries.cupy.update_kernels import KERNELS, Kernel, rules
from backprop_xp.backends.namespaces import device_aware
from backprop_xp.networks.layers.activations import ACTIVATIONS
from backprop_xp.networks.losses.loss import LOSSES
from backprop_xp.training.measures.averages import averaged
from backprop_xp.training.optimizers.first_order import OPTIMIZERS as KINDS, SGDState

REAL = {"float32": "float", "float64": "double"}
every_dtype = pytest.mark.parametrize("dtype", REAL)
STEPS = 12
# Each update rounds a few times; the compiler may change the order of operations.
ROUNDINGS = 4 * STEPS

generator = np.random.default_rng(0)
SHAPE = (3, 7)
THETA = generator.normal(size=SHAPE)
GRADIENTS = generator.normal(size=(STEPS, *SHAPE)) * 10.0 ** generator.integers(-4, 1, SHAPE)
MASK = generator.integers(0, 2, size=7).astype(np.float64)

OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda mask: bx.SGD(0.1),
    "sgd with momentum": lambda mask: bx.SGD(0.1, momentum=0.8),
    "sgd with nesterov": lambda mask: bx.SGD(0.1, momentum=0.8, nesterov=True),
    "sgd with a schedule": lambda mask: bx.SGD(bx.schedules.cosine(0.1, STEPS)),
    "rmsprop": lambda mask: bx.RMSProp(0.02, decay=0.9, epsilon=1e-3),
    "adam": lambda mask: bx.Adam(0.02, beta1=0.8, beta2=0.95, epsilon=1e-3),
    "adam by default": lambda mask: bx.Adam(),
    "adam with the other epsilon": lambda mask: bx.Adam(epsilon=1e-2, corrected_epsilon=False),
    "adamw": lambda mask: bx.AdamW(0.02, beta1=0.8, beta2=0.95, weight_decay=0.3),
    "adamw with a mask": lambda mask: bx.AdamW(0.02, weight_decay=0.3, mask=mask),
    "amsgrad": lambda mask: bx.Adam(0.02, beta2=0.8, amsgrad=True),
    "amsgrad with decay": lambda mask: bx.AdamW(beta2=0.8, weight_decay=0.3, amsgrad=True),
    "amsgrad with a mask": lambda mask: bx.AdamW(weight_decay=0.3, mask=mask, amsgrad=True),
    "adagrad": lambda mask: bx.Adagrad(0.1, initial=0.1, epsilon=1e-3),
    "nadam": lambda mask: bx.Nadam(0.02, beta1=0.8, beta2=0.95),
    "lion": lambda mask: bx.Lion(0.01, beta1=0.8, weight_decay=0.3),
    "lion with a mask": lambda mask: bx.Lion(0.01, weight_decay=0.3, mask=mask),
}
# Rates of each network or parameter, which the kernels take too.
_BY_MASK: dict[str, Callable[[Any, Any], Any]] = {
    "sgd": lambda rate, mask: bx.SGD(rate, momentum=0.8),
    "rmsprop": lambda rate, mask: bx.RMSProp(rate),
    "adam": lambda rate, mask: bx.Adam(rate),
    "adamw": lambda rate, mask: bx.AdamW(rate, weight_decay=0.3),
    "adamw with a mask": lambda rate, mask: bx.AdamW(rate, weight_decay=0.3, mask=mask),
    "adagrad": lambda rate, mask: bx.Adagrad(rate),
    "nadam": lambda rate, mask: bx.Nadam(rate),
    "lion": lambda rate, mask: bx.Lion(rate, weight_decay=0.3),
}
OPTIMIZERS |= {
    f"{name} by a rate for each {what}": lambda mask, make=make, rates=rates: make(
        rates(mask), mask
    )
    for name, make in _BY_MASK.items()
    for what, rates in {
        "parameter": lambda mask: 0.1 * mask,
        "network": lambda mask: 0.1 * (mask[None, :3] + 0.5).reshape(3, 1),
    }.items()
}

# Cases that the kernels leave to the reference.
RATES = np.array([[0.1], [0.2], [0.3]])
LEFT: dict[str, Callable[[Any], Any]] = {
    "a rate inside": lambda rates: bx.SGD(0.1, momentum=0.8, rate_inside=True),
    "momenta": lambda rates: bx.SGD(0.1, momentum=rates),
    "decays": lambda rates: bx.RMSProp(decay=rates),
    "beta1": lambda rates: bx.Adam(beta1=rates),
    "beta2": lambda rates: bx.Adam(beta2=rates),
    "epsilons": lambda rates: bx.Adam(epsilon=rates),
    "weight decays": lambda rates: bx.AdamW(weight_decay=rates),
}


# The kernels' source


class Parameter(NamedTuple):
    """A variable of a kernel's body: an entry of an array, or a number."""

    name: str
    is_array: bool
    is_const: bool


def parameters(kernel: Kernel) -> list[Parameter]:
    inputs, outputs = kernel.inputs.split(), kernel.outputs.split()
    # A rate may be an array, and so may its product with the weight decay.
    arrays = ("gradient", "mask", "learning_rate", "weight_decay", "theta")
    is_array = {name: name in arrays for name in inputs}
    given = [Parameter(name, is_array[name], True) for name in inputs]
    return given + [Parameter(name, True, False) for name in outputs]


def cuda_source(kernel: Kernel, dtype: str) -> str:
    """Return the CUDA function that CuPy would write around a kernel's body."""
    declared, entries = ["long n"], ""
    for name, is_array, is_const in parameters(kernel):
        kind = "const T" if is_const else "T"
        declared.append(f"{kind} *{name}_" if is_array else f"{kind} {name}")
        entries += f"{kind} &{name} = {name}_[at];\n" if is_array else ""
    return f"""
    #define T {REAL[dtype]}
    extern "C" __global__ void {kernel.name}_{dtype}({", ".join(declared)}) {{
        const long at = blockIdx.x * blockDim.x + threadIdx.x;
        if (at >= n) return;
        {entries} {kernel.body}
    }}
    """


def dropout_source(dtype: str) -> str:
    return f"""
    typedef {REAL[dtype]} T;
    {DROPOUT_HASH}
    extern "C" __global__ void dropout(const T* x_, int key, long long rows, long long columns,
                                       int bound, T kept, T* y_, T* mask_) {{
        const long long i = blockIdx.x;
        const T x = x_[i];
        T &y = y_[i], &mask = mask_[i];
        {DROPOUT[-1]}
    }}
    """


TEXTS: dict[str, Callable[[str], str]] = {
    **{kernel.name: partial(cuda_source, kernel) for kernel in KERNELS},
    **{kernel.name: partial(source, kernel) for kernel in ROW_KERNELS},
    "dropout": dropout_source,
}


@pytest.mark.parametrize("architecture", ["sm_70", "sm_80", "sm_90", "sm_100"])
@every_dtype
@pytest.mark.parametrize("name", TEXTS)
def test_nvrtc_compiles_each_kernel_for_a_gpu(
    compile_by_nvrtc: Any, name: str, dtype: str, architecture: str
) -> None:
    ptx = compile_by_nvrtc(TEXTS[name](dtype), architecture)
    if dtype == "float32" and name in {kernel.name for kernel in KERNELS}:
        assert ".f32" in ptx
        assert ".f64" not in ptx  # a number without a cast would cause it


# The kernels on this processor

SHIM = """
#include <cmath>
using std::sqrt;
#define __global__
struct Place { long x; };
static Place blockIdx, blockDim = {1}, threadIdx = {0};
"""


def host_source(kernel: Kernel, dtype: str) -> str:
    """Return the CUDA function, and a C loop over its blocks of one thread."""
    declared = [f"T {'*' if is_array else ''}{name}" for name, is_array, _ in parameters(kernel)]
    called = ", ".join(["n", *(parameter.name for parameter in parameters(kernel))])
    return f"""
    {cuda_source(kernel, dtype)}
    extern "C" void run_{kernel.name}_{dtype}(long n, {", ".join(declared)}) {{
        for (blockIdx.x = 0; blockIdx.x < n; ++blockIdx.x) {kernel.name}_{dtype}({called});
    }}
    #undef T
    """


class Processor(NamedTuple):
    """The kernels as functions of this processor, and the names of the launched ones."""

    library: ctypes.CDLL
    ran: list[str]

    def launch(self, kernel: Kernel, inputs: list[Any], outputs: list[np.ndarray]) -> None:
        theta = outputs[0]
        number = ctypes.c_float if theta.dtype == np.float32 else ctypes.c_double
        arguments: list[Any] = [ctypes.c_long(theta.size)]
        kept = []  # while the function runs
        for parameter, value in zip(parameters(kernel), [*inputs, *outputs], strict=True):
            if not parameter.is_array:
                arguments.append(number(value))
                continue
            array = value
            if parameter.is_const:  # CuPy broadcasts what a kernel reads
                value = np.asarray(value, theta.dtype) if isinstance(value, float) else value
                array = np.ascontiguousarray(np.broadcast_to(value, theta.shape))
            assert array.flags.c_contiguous
            assert (array.shape, array.dtype) == (theta.shape, theta.dtype)
            kept.append(array)
            arguments.append(array.ctypes.data_as(ctypes.c_void_p))
        self.library[f"run_{kernel.name}_{theta.dtype}"](*arguments)
        self.ran.append(kernel.name)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or os.name != "posix":
        pytest.skip("no C++ compiler (c++, g++ or clang++) to run the kernels on this processor")
    folder: Path = tmp_path_factory.mktemp("kernels")
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    functions = [host_source(kernel, dtype) for kernel in KERNELS for dtype in REAL]
    source.write_text(SHIM + "\n".join(functions), encoding="utf-8")
    # Without contraction: the reference rounds each product and each sum.
    options = ["-O1", "-shared", "-fPIC", "-ffp-contract=off"]
    done = subprocess.run(
        [compiler, *options, str(source), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


class Target(NamedTuple):
    """A device for updates: the kernels' rules, a function that moves data, and launched names."""

    table: dict[str, Any]
    put: Callable[[np.ndarray], Any]
    ran: list[str] | None


@pytest.fixture(params=["this processor", pytest.param("a GPU", marks=pytest.mark.installed)])
def target(request: pytest.FixtureRequest) -> Target:
    if request.param == "a GPU":
        gpu = request.getfixturevalue("gpu")
        return Target(gpu.replacements, gpu.from_host, None)
    processor = Processor(request.getfixturevalue("compiled"), [])
    return Target(rules(processor.launch), np.copy, processor.ran)


def run_updates(rule: Callable[..., Any], optimizer: Any, gradients: list[Any], theta: Any) -> Any:
    """Return theta and the state after some updates."""
    state = optimizer.initialize(theta)
    for gradient in gradients:
        rate = optimizer.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        theta, state = rule(optimizer, theta, gradient, state, rate)
    return theta, state


def assert_as_reference(target: Target, optimizer: Any, dtype: str, kernels: int) -> None:
    """Assert that updates by some kernels equal those of the optimizer's own rule."""
    kind = type(optimizer)
    results = []
    for rule in (target.table[f"{kind.__module__}.{kind.__qualname__}.rule"], kind.rule):
        gradients = [target.put(gradient.astype(dtype)) for gradient in GRADIENTS]
        results.append(run_updates(rule, optimizer, gradients, target.put(THETA.astype(dtype))))
    assert_same(*results)
    assert target.ran is None or len(target.ran) == kernels


def assert_same(one: tuple[Any, Any], other: tuple[Any, Any]) -> None:
    (theta, state), (wanted, wanted_state) = one, other
    assert type(state) is type(wanted_state)
    assert state.step == wanted_state.step == STEPS
    for got, right in zip([theta, *state[1:]], [wanted, *wanted_state[1:]], strict=True):
        if right is None:
            assert got is None
            continue
        assert (got.dtype, got.shape) == (right.dtype, right.shape)
        host, right = bx.backends.to_host(got), bx.backends.to_host(right)
        allowed = ROUNDINGS * np.finfo(right.dtype).eps
        np.testing.assert_allclose(host, right, rtol=allowed, atol=allowed * np.abs(right).max())


@every_dtype
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_update_in_one_kernel_equals_the_optimizers_rule(
    target: Target, name: str, dtype: str
) -> None:
    optimizer = OPTIMIZERS[name](target.put(MASK.astype(dtype)))
    assert_as_reference(target, optimizer, dtype, STEPS)  # one kernel for each update


@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 7)])
def test_a_mask_broadcasts_over_the_stack(target: Target, shape: tuple[int, ...]) -> None:
    mask = target.put(np.resize(MASK, shape))
    assert_as_reference(target, bx.AdamW(0.02, weight_decay=0.3, mask=mask), "float64", STEPS)
    assert target.ran is None or set(target.ran) == {"adam"}


@pytest.mark.parametrize("name", [*LEFT, "a complex theta"])
def test_the_optimizer_itself_handles_array_hyperparameters_and_complex_numbers(
    target: Target, name: str
) -> None:
    if name in LEFT:
        assert_as_reference(target, LEFT[name](target.put(RATES)), "float64", 0)
    else:
        assert_as_reference(target, bx.SGD(0.1, momentum=0.5), "complex128", 0)


def test_the_kernel_table_has_the_rules_of_all_optimizers_with_their_signatures() -> None:
    for kind in KINDS.values():
        function = cupy_backend.replacements[f"{kind.__module__}.{kind.__qualname__}.rule"]
        got, wanted = (inspect.signature(f).parameters for f in (function, kind.rule))
        assert [(p.name, p.kind, p.default) for p in got.values()] == [
            (p.name, p.kind, p.default) for p in wanted.values()
        ]


# Making arrays on a device; CuPy makes them on its current one


class FakeDevice:
    """A stand-in for ``cupy.cuda.Device``; None is the current one, which ``with`` changes."""

    current = 0

    def __init__(self, device: Any = None) -> None:
        self.id = FakeDevice.current if device is None else getattr(device, "id", device)

    def __enter__(self) -> None:
        self.before, FakeDevice.current = FakeDevice.current, self.id

    def __exit__(self, *error: object) -> None:
        FakeDevice.current = self.before


class FakeArray(NamedTuple):
    """A stand-in for a CuPy array, which has only a device."""

    device: FakeDevice


@pytest.fixture
def fakes() -> Iterator[Any]:
    """A namespace like array_api_compat.cupy, whose functions use only the current device."""

    def make(*args: Any, **options: Any) -> FakeArray:
        assert "device" not in options
        return FakeArray(FakeDevice())

    compat = ModuleType("array_api_compat.cupy")
    for name in sorted(takes_device()):
        setattr(compat, name, make)
    compat.pi = np.pi  # type: ignore[attr-defined]
    FakeDevice.current = 0
    yield device_aware(compat, FakeDevice)
    assert FakeDevice.current == 0


def takes_device() -> set[str]:
    """Return the standard's functions with a ``device``, except from_dlpack, which moves data."""
    functions = inspect.getmembers(array_api_strict, inspect.isfunction)
    takers = {name for name, f in functions if "device" in inspect.signature(f).parameters}
    return takers - {"from_dlpack"}


ARGUMENTS: dict[str, tuple[Any, ...]] = {"full": (3, 1.0), "linspace": (0.0, 1.0, 3)}


def test_each_function_makes_its_array_on_the_given_device(fakes: Any) -> None:
    there = FakeArray(FakeDevice(1))
    makers = takes_device() - {"astype"}
    assert {"zeros", "full_like", "asarray", "arange"} < makers
    for name in makers:
        first = (there,) if name.endswith("_like") else ARGUMENTS.get(name, (3,))
        made = getattr(fakes, name)(*first, device=FakeDevice(2))
        assert made.device.id == 2, name


def test_an_array_made_like_another_is_on_the_same_device(fakes: Any) -> None:
    there = FakeArray(FakeDevice(1))
    for name in ("zeros_like", "ones_like", "empty_like", "full_like", "asarray"):
        assert getattr(fakes, name)(there).device.id == 1, name
    assert fakes.astype(there, np.float32).device.id == 1
    assert fakes.zeros(3).device.id == fakes.asarray(np.ones(3)).device.id == 0
    with FakeDevice(3):
        assert fakes.zeros(3).device.id == 3
    assert fakes.pi == np.pi
    # CuPy's attribute replaces the wrapper's.
    assert device_aware(fakes, FakeDevice, pi=3.0).pi == 3.0


@pytest.mark.installed
def test_the_namespace_of_a_cupy_array_is_the_backends() -> None:
    cupy = pytest.importorskip("cupy")
    host = np.arange(4.0)
    # The host's memory can stand in for a GPU's if nothing computes with it.
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=1)
    array = cupy.ndarray((4,), host.dtype, cupy.cuda.MemoryPointer(memory, 0))
    xp = array_namespace(array)
    assert xp is cupy_backend.namespace()
    assert cupy_backend.device_name(device_of(array)) == "cuda:1"
    assert xp.isdtype(array.dtype, "real floating")
    assert xp.expm1 is importlib.import_module("array_api_compat.cupy").expm1


# On a GPU


def rule_of(gpu: Backend, name: str) -> Callable[[Any], Any]:
    """Return a function of z: one of the standard, or an activation or loss with its derivative."""
    xp = gpu.namespace()
    if name in ("clip", "sign"):
        return {"clip": lambda z: xp.clip(z, -1.0, 0.75), "sign": xp.sign}[name]
    if name in LOSSES:
        loss = LOSSES[name]
        z_and_t = (
            (lambda z: (z[:, :2], z[:, :1])) if loss.outputs_per_target > 1 else lambda z: (z, z)
        )
        return lambda z: [
            loss.value(*z_and_t(z)),
            loss.inverse_link(z_and_t(z)[0]),
            loss.gradient(*z_and_t(z)),
        ]
    return lambda z: ACTIVATIONS[name].vjp(z, z, ACTIVATIONS[name].value(1.0 * z))


@pytest.mark.parametrize("name", ["clip", "sign", *ACTIVATIONS, *LOSSES])
def test_on_an_emulated_gpu_no_small_function_waits_for_the_device(gpu: Backend, name: str) -> None:
    """Masks as indices, as in array-api-compat's clip and sign, wait for the device."""
    emulator = pytest.importorskip("cuda_emulator", reason="calls are counted by an emulator")
    z, compute = gpu.from_host(np.array([[-2.1, -0.3, 0.6], [1.0, 0.0, 3.3]])), rule_of(gpu, name)
    with emulator.record() as calls, bx.transfer_guard("disallow"):
        compute(z)
    assert not calls.count("synchronize")
    if name in ("clip", "sign"):
        assert calls.count("launch").total() == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_an_emulated_gpu_an_update_is_one_launch_and_an_average_another(
    gpu: Backend, name: str
) -> None:
    """With a mask of the decay an array of rates needs a product with the decay before."""
    emulator = pytest.importorskip("cuda_emulator", reason="calls are counted by an emulator")
    optimizer = OPTIMIZERS[name](gpu.from_host(MASK))
    theta, gradient = gpu.from_host(THETA), gpu.from_host(GRADIENTS[0])
    state = optimizer.initialize(theta)
    for _ in range(2):  # the second time everything is compiled
        with emulator.record() as calls, bx.transfer_guard("disallow"):
            theta, state = optimizer.update(theta, gradient, state)
        with emulator.record() as more:
            averaged(gradient, theta, 0.5)
    expected = 2 if "with a mask by a rate" in name else 1
    for recorded, launches in ((calls, expected), (more, 1)):
        assert recorded.count("launch").total() == launches
        assert not recorded.count("synchronize")


SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.5, -3.0])


@every_dtype
def test_on_a_gpu_clip_and_sign_follow_the_standard(gpu: Backend, dtype: str) -> None:
    xp, host = gpu.namespace(), SPECIAL.astype(dtype)
    x = gpu.from_host(host)
    for low, high in ((-1.0, 1.0), (None, 1.0), (-1.0, None), (None, None)):
        wanted = host if low is high is None else np.clip(host, low, high)
        for got in (xp.clip(x, low, high), xp.clip(x, min=low, max=high)):
            assert got.dtype == dtype
            np.testing.assert_array_equal(gpu.to_host(got), wanted)
    np.testing.assert_array_equal(gpu.to_host(xp.sign(x)), np.sign(host))


STREAMS: dict[str, Callable[[Any], Any]] = {
    "blocking": lambda cuda: cuda.Stream(),
    "non-blocking": lambda cuda: cuda.Stream(non_blocking=True),
    "of the thread": lambda cuda: cuda.Stream.ptds,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_on_a_gpu_the_kit_passes_and_a_training_is_the_same_on_every_kind_of_stream(
    gpu: Backend, kind: str
) -> None:
    usual = fitted(gpu)
    with STREAMS[kind](importlib.import_module("cupy").cuda):
        rows = testing.conformance(gpu)
        assert fitted(gpu) == usual
    assert not [row for row in rows if row.status == "fails"]


def fitted(gpu: Backend) -> Any:
    """Return the results of a training, on the host."""
    rows = np.random.default_rng(0).normal(size=(40, 5))
    x, y = (gpu.from_host(part) for part in (rows[:, :3], rows[:, 3:]))
    network = bx.mlp([3, 8, 2], hidden="gelu", loss="huber", dropout=0.2, layer_norm=True)
    theta = network.initialize(0, backend="cupy", dtype="float64", stack=(2,))
    options: dict[str, Any] = {"optimizer": bx.Adam(0.01), "epochs": 3, "batch_size": 16}
    checked: dict[str, Any] = {"clip": 1.0, "check_every": 4, "validation": (x, y)}
    result = bx.fit(network, theta, x, y, seed=0, **options, **checked)
    losses = result.history["loss"].tolist(), result.history["validation_loss"].tolist()
    return losses, gpu.to_host(result.theta).tolist()


def test_on_a_gpu_the_current_stream_is_used_and_synchronize_waits_for_every_stream(
    gpu: Backend,
) -> None:
    stream = importlib.import_module("cupy").cuda.Stream(non_blocking=True)

    def long_product() -> Any:  # long enough that a copy on another stream would be too early
        x = gpu.from_host(np.ones((2000, 2000), np.float32))
        for _ in range(20):
            x = x @ x / 2000.0
        return x

    with stream:
        np.testing.assert_allclose(gpu.to_host(long_product()), 1.0, rtol=1e-4)
        assert stream.done
        long_product()
    gpu.synchronize()
    assert stream.done


def test_on_a_gpu_memory_is_the_number_that_cuda_reports(gpu: Backend) -> None:
    x, memory = gpu.namespace().zeros(2**20, dtype=np.uint8), gpu.memory()
    assert memory is not None
    assert x.nbytes <= memory.used <= memory.total


def test_on_a_gpu_the_products_of_a_gradient_check_are_not_tf32(gpu: Backend) -> None:
    import cupy
    from cupy._core import _routines_linalg as linalg

    if int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs compute capability 8.0")
    host = np.random.default_rng(0).normal(size=(256, 256))
    x, before = gpu.from_host(host.astype(np.float32)), linalg.get_compute_type(np.float32)

    def error() -> float:
        return float(np.abs(gpu.to_host(x @ x) - host @ host).max())

    linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
    try:
        with gpu.full_precision():
            fine = error()
        rough = error()
    finally:
        linalg.set_compute_type(np.float32, before)
    assert fine < rough / 10


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_on_a_gpu_complex_products_keep_a_tiny_imaginary_part(gpu: Backend, dtype: str) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    step = 2.0**-60  # relative to 1: a sum with a number near 1 loses it
    host = (a + 1j * step * b).astype(dtype)
    x, real = gpu.from_host(host), gpu.from_host(b.astype(dtype))
    with gpu.full_precision():
        # Products of two matrices, of stacks, and of both are different functions of cuBLAS.
        products = [x[0] @ real[0], x @ real, x[0] @ real, x @ real[0]]
    wanted = [host.imag[0] @ b[0], host.imag @ b, host.imag[0] @ b, host.imag @ b[0]]
    for got, right in zip(products, wanted, strict=True):
        allowed = 100 * np.finfo(dtype).eps * np.abs(right).max()
        np.testing.assert_allclose(gpu.to_host(got).imag, right, rtol=0.0, atol=allowed)


@pytest.fixture
def second(gpu: Backend) -> Any:
    """A GPU that is not the current one."""
    devices = gpu.devices()
    if len(devices) < 2:
        pytest.skip("one GPU here")
    return devices[1]


def message(name: str, device: Any) -> str:
    """Return the pattern of the error that names an array's device and the way to compute there."""
    return rf"{name} is on cuda:{device.id}.*with cupy\.cuda\.Device\({device.id}\)"


def test_on_two_gpus_arrays_are_made_on_the_given_one_and_the_kit_passes_there(
    gpu: Backend, second: Any
) -> None:
    xp = gpu.namespace()
    host = np.ones((2, 3), np.float32)
    there = gpu.from_host(host, device=second)
    for array in (there, xp.zeros(3, device=second), xp.ones_like(there), xp.asarray(there)):
        assert device_of(array) == second
    np.testing.assert_array_equal(gpu.to_host(there), host)
    network = bx.mlp([3, 1])
    theta = network.initialize(backend="cupy", device=second)
    with pytest.raises(ValueError, match=message("theta", second)):
        network.forward(theta, there)
    with second:
        assert device_of(network.forward(theta, there)) == second
        rows = testing.conformance(gpu, second)
    assert not [row for row in rows if row.status == "fails"]


NETWORK = bx.mlp([3, 2], loss="huber")
SGD = bx.SGD(0.1)
# The argument that the error names, and a call with theta, x, y and integer labels.
ENTRANCES: list[tuple[str, Callable[..., Any]]] = [
    ("theta", lambda theta, x, y, labels: NETWORK.forward(theta, x)),
    ("theta", lambda theta, x, y, labels: NETWORK.predict(theta, x)),
    ("theta", lambda theta, x, y, labels: NETWORK.loss(theta, x, y)),
    ("theta", lambda theta, x, y, labels: NETWORK.loss_and_gradient(theta, x, y)),
    ("theta", lambda theta, x, y, labels: NETWORK.vjp(theta, x, y)),
    ("theta", lambda theta, x, y, labels: NETWORK.unpack(theta)),
    ("theta", lambda theta, x, y, labels: NETWORK.weight_mask(theta)),
    ("theta", lambda theta, x, y, labels: bx.check_network(NETWORK, theta, x, y)),
    ("theta", lambda theta, x, y, labels: bx.fit(NETWORK, theta, x, y, optimizer=SGD, epochs=1)),
    ("theta", lambda theta, x, y, labels: bx.Adam().initialize(theta)),
    ("theta", lambda theta, x, y, labels: SGD.update(theta, theta, SGDState(0, None))),
    ("x", lambda theta, x, y, labels: bx.check_layer(bx.Dense(3, 2), x)),
    ("outputs", lambda theta, x, y, labels: bx.check_loss("huber", y, y)),
    ("point", lambda theta, x, y, labels: bx.check_gradient(lambda p: (p * p).sum(), abs, x)),
    ("labels", lambda theta, x, y, labels: bx.data.one_hot(labels)),
    ("x", lambda theta, x, y, labels: bx.data.standardize(x)),
    (r"arrays\[0\]", lambda theta, x, y, labels: bx.data.split(x, y)),
    (r"arrays\[0\]", lambda theta, x, y, labels: bx.data.minibatches(x, y, batch_size=2)),
    ("predictions", lambda theta, x, y, labels: bx.metrics.accuracy(y, y)),
    ("predictions", lambda theta, x, y, labels: bx.metrics.rmse(y, y)),
]


@pytest.mark.parametrize(("name", "function"), ENTRANCES)
def test_on_two_gpus_arrays_of_the_other_gpu_are_an_error_with_the_way_out(
    gpu: Backend, second: Any, name: str, function: Callable[..., Any]
) -> None:
    """CuPy would compute on the current GPU with the other one's memory."""
    x, y = (gpu.from_host(np.ones((5, n), np.float32), device=second) for n in (3, 2))
    labels = gpu.from_host(np.array([0, 1, 1]), device=second)
    theta = NETWORK.initialize(0, backend="cupy", device=second)
    with pytest.raises(ValueError, match=message(name, second)):
        function(theta, x, y, labels)
    with second:
        function(theta, x, y, labels)


@every_dtype
@pytest.mark.parametrize("kind", STREAMS)
def test_on_two_gpus_data_moves_between_them_on_any_stream(
    gpu: Backend, second: Any, dtype: str, kind: str
) -> None:
    cuda, first = importlib.import_module("cupy").cuda, gpu.devices()[0]
    host = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    for here, other in ((second, first), (first, second)):
        with here, STREAMS[kind](cuda):
            moved = bx.asarray(gpu.from_host(host) * 2.0, backend=gpu, device=other, dtype=dtype)
            assert device_of(moved) == other
            np.testing.assert_array_equal(gpu.to_host(moved), (host * 2.0).astype(dtype))
