"""CuPy: what can be checked without a GPU, and, where there is one, what cannot.

The kernels' text is compiled twice without a GPU: by NVRTC for one, where CuPy finds it, and as
plain C++ for this processor, where it must do what the optimisers do.
"""

import ctypes
import importlib
import inspect
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp import testing
from backprop_xp.activations import ACTIVATIONS
from backprop_xp.backends import Backend, array_namespace, device_of
from backprop_xp.backends.cupy import backend as cupy_backend
from backprop_xp.backends.cupy_kernels import KERNELS, Kernel, rules
from backprop_xp.backends.cupy_namespace import placing
from backprop_xp.losses import LOSSES

REAL = {"float32": "float", "float64": "double"}
every_dtype = pytest.mark.parametrize("dtype", REAL)
STEPS = 12
# Each update rounds a few times; the order of operations is the reference's, its compiler's not.
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
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)

# What the kernels do not know, and leave to the reference.
RATES = np.array([[0.1], [0.2], [0.3]])
LEFT: dict[str, Callable[[Any], Any]] = {
    "learning rates": lambda rates: bx.SGD(rates),
    "a rate inside": lambda rates: bx.SGD(0.1, momentum=0.8, rate_inside=True),
    "momenta": lambda rates: bx.SGD(0.1, momentum=rates),
    "decays": lambda rates: bx.RMSProp(decay=rates),
    "beta1": lambda rates: bx.Adam(beta1=rates),
    "beta2": lambda rates: bx.Adam(beta2=rates),
    "epsilons": lambda rates: bx.Adam(epsilon=rates),
    "weight decays": lambda rates: bx.AdamW(weight_decay=rates),
    "a schedule of arrays": lambda rates: bx.Adam(lambda step: rates / (step + 1)),
}


# The kernels' text


class Parameter(NamedTuple):
    """A name of a kernel's body: an entry of an array, or a number."""

    name: str
    is_array: bool
    is_const: bool


def parameters(kernel: Kernel) -> list[Parameter]:
    def names(text: str) -> list[str]:
        return [declared.split()[1] for declared in text.split(",")]

    given = [Parameter(name, name in ("gradient", "mask"), True) for name in names(kernel.inputs)]
    return given + [Parameter(name, True, False) for name in names(kernel.outputs)]


def cuda_source(kernel: Kernel, real: str) -> str:
    """Return a CUDA function around a kernel's body, as CuPy would write one."""
    declared, entries = ["long n"], ""
    for name, is_array, is_const in parameters(kernel):
        kind = f"const {real}" if is_const else real
        declared.append(f"{kind} *{name}_" if is_array else f"{kind} {name}")
        entries += f"{kind} &{name} = {name}_[at];\n" if is_array else ""
    return f"""
    extern "C" __global__ void {kernel.name}_{real}({", ".join(declared)}) {{
        typedef {real} T;
        const long at = blockIdx.x * blockDim.x + threadIdx.x;
        if (at >= n) return;
        {entries} {kernel.body}
    }}
    """


@pytest.mark.parametrize("architecture", ["sm_70", "sm_80", "sm_90", "sm_100"])
@every_dtype
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_nvrtc_compiles_each_kernel_for_a_gpu(
    compile_by_nvrtc: Any, kernel: Kernel, dtype: str, architecture: str
) -> None:
    ptx = compile_by_nvrtc(cuda_source(kernel, REAL[dtype]), architecture)
    if dtype == "float32":
        assert ".f32" in ptx
        assert ".f64" not in ptx  # as a number that is not cast would bring about


# What they do, on this processor

SHIM = """
#include <cmath>
using std::sqrt;
#define __global__
struct Place { long x; };
static Place blockIdx, blockDim = {1}, threadIdx = {0};
"""


def host_source(kernel: Kernel, real: str) -> str:
    """Return the CUDA function, and a loop in C over its blocks of one thread."""
    declared = [
        f"{real} {'*' if is_array else ''}{name}" for name, is_array, _ in parameters(kernel)
    ]
    called = ", ".join(["n", *(parameter.name for parameter in parameters(kernel))])
    return f"""
    {cuda_source(kernel, real)}
    extern "C" void run_{kernel.name}_{real}(long n, {", ".join(declared)}) {{
        for (blockIdx.x = 0; blockIdx.x < n; ++blockIdx.x) {kernel.name}_{real}({called});
    }}
    """


class Processor(NamedTuple):
    """The kernels as functions of this processor, and the names of those that were run."""

    library: ctypes.CDLL
    ran: list[str]

    def launch(self, kernel: Kernel, inputs: list[Any], outputs: list[Any]) -> None:
        theta = outputs[0]
        number = ctypes.c_float if theta.dtype == np.float32 else ctypes.c_double
        function = self.library[f"run_{kernel.name}_{REAL[str(theta.dtype)]}"]
        arguments: list[Any] = [ctypes.c_long(theta.size)]
        kept = []  # while the function runs
        for parameter, value in zip(parameters(kernel), [*inputs, *outputs], strict=True):
            if parameter.is_array:
                array = value
                if parameter.is_const:  # CuPy broadcasts what a kernel reads
                    array = np.ascontiguousarray(np.broadcast_to(value, theta.shape))
                assert array.flags.c_contiguous
                assert (array.shape, array.dtype) == (theta.shape, theta.dtype)
                kept.append(array)
                arguments.append(array.ctypes.data_as(ctypes.c_void_p))
            else:
                arguments.append(number(value))
        function(*arguments)
        self.ran.append(kernel.name)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None or os.name != "posix":
        pytest.skip("no C++ compiler (c++, g++ or clang++) to run the kernels on this processor")
    folder: Path = tmp_path_factory.mktemp("kernels")
    source, library = folder / "kernels.cpp", folder / "kernels.so"
    functions = [host_source(kernel, real) for kernel in KERNELS for real in REAL.values()]
    source.write_text(SHIM + "\n".join(functions), encoding="utf-8")
    # Without contraction: the reference rounds each product and each sum.
    options = ["-O1", "-shared", "-fPIC", "-ffp-contract=off"]
    done = subprocess.run(
        [compiler, *options, str(source), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


@pytest.fixture
def processor(compiled: ctypes.CDLL) -> Processor:
    return Processor(compiled, [])


def train(
    rule: Callable[..., Any], optimizer: Any, put: Callable[[np.ndarray], Any]
) -> tuple[Any, Any]:
    """Return theta and the state after some updates from copies of the same start."""
    theta = put(THETA)
    state = optimizer.initialize(theta)
    for gradient in GRADIENTS:
        rate = optimizer.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        theta, state = rule(optimizer, theta, put(gradient), state, rate)
    return theta, state


def replacement(table: dict[str, Any], optimizer: Any) -> Callable[..., Any]:
    kind = type(optimizer)
    return table[f"{kind.__module__}.{kind.__qualname__}.rule"]


def reference(optimizer: Any, *arguments: Any) -> Any:
    return type(optimizer).rule(optimizer, *arguments)


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
@every_optimizer
def test_an_update_in_one_kernel_is_the_optimizers(
    processor: Processor, name: str, dtype: str
) -> None:
    def put(array: np.ndarray) -> np.ndarray:
        return array.astype(dtype)

    optimizer = OPTIMIZERS[name](put(MASK))
    fused = replacement(rules(processor.launch), optimizer)
    assert_same(train(fused, optimizer, put), train(reference, optimizer, put))
    assert len(processor.ran) == STEPS  # one kernel for each update


@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 7)])
def test_a_mask_broadcasts_over_the_stack(processor: Processor, shape: tuple[int, ...]) -> None:
    optimizer = bx.AdamW(0.02, weight_decay=0.3, mask=np.resize(MASK, shape))
    fused = replacement(rules(processor.launch), optimizer)
    assert_same(train(fused, optimizer, np.copy), train(reference, optimizer, np.copy))
    assert set(processor.ran) == {"backprop_xp_masked_adam"}


@pytest.mark.parametrize("name", LEFT)
def test_hyperparameters_that_are_arrays_are_left_to_the_optimizer(
    processor: Processor, name: str
) -> None:
    optimizer = LEFT[name](RATES)
    fused = replacement(rules(processor.launch), optimizer)
    assert_same(train(fused, optimizer, np.copy), train(reference, optimizer, np.copy))
    assert processor.ran == []


def test_a_complex_theta_is_left_to_the_optimizer(processor: Processor) -> None:
    def put(array: np.ndarray) -> np.ndarray:
        return array + 1e-3j

    optimizer = bx.SGD(0.1, momentum=0.5)
    fused = replacement(rules(processor.launch), optimizer)
    assert_same(train(fused, optimizer, put), train(reference, optimizer, put))
    assert processor.ran == []


def test_the_table_names_the_rules_of_all_optimizers_with_their_signatures() -> None:
    module = importlib.import_module("backprop_xp.optimizers")
    named = {f"{module.__name__}.{kind}.rule" for kind in ("SGD", "RMSProp", "Adam", "AdamW")}
    assert named <= set(cupy_backend.replacements)
    for name in named:
        function = cupy_backend.replacements[name]
        kind, method = name.removeprefix(f"{module.__name__}.").split(".")
        original = getattr(getattr(module, kind), method)
        wanted = inspect.signature(original).parameters
        got = inspect.signature(function).parameters
        assert list(got) == list(wanted)
        assert [p.kind for p in got.values()] == [p.kind for p in wanted.values()]
        assert [p.default for p in got.values()] == [p.default for p in wanted.values()]


# Making arrays on a device, which CuPy does on its current one


class Card:
    """A stand-in for ``cupy.cuda.Device``: None is the current one, which a ``with`` changes."""

    current = 0

    def __init__(self, device: Any = None) -> None:
        self.id = Card.current if device is None else getattr(device, "id", device)

    def __enter__(self) -> None:
        self.before, Card.current = Card.current, self.id

    def __exit__(self, *error: object) -> None:
        Card.current = self.before


class OnCard(NamedTuple):
    """A stand-in for a CuPy array: all that is known of it is where it was made."""

    device: Card


@pytest.fixture
def cards() -> Iterator[Any]:
    """A namespace like array_api_compat.cupy, whose functions look at the current device alone."""

    def make(*args: Any, **options: Any) -> OnCard:
        assert "device" not in options
        return OnCard(Card())

    compat = ModuleType("array_api_compat.cupy")
    for name in sorted(takes_device()):
        setattr(compat, name, make)
    compat.pi = np.pi  # type: ignore[attr-defined]
    Card.current = 0
    yield placing(compat, Card)
    assert Card.current == 0


def takes_device() -> set[str]:
    """Return the standard's functions that have a ``device``, but from_dlpack, which moves."""
    functions = inspect.getmembers(array_api_strict, inspect.isfunction)
    takers = {name for name, function in functions if takes(function, "device")}
    return takers - {"from_dlpack"}


def takes(function: Callable[..., Any], parameter: str) -> bool:
    return parameter in inspect.signature(function).parameters


ARGUMENTS: dict[str, tuple[Any, ...]] = {"full": (3, 1.0), "linspace": (0.0, 1.0, 3)}


def test_each_function_that_makes_an_array_makes_it_where_it_is_told(cards: Any) -> None:
    there = OnCard(Card(1))
    makers = takes_device() - {"astype"}
    assert {"zeros", "full_like", "asarray", "arange"} < makers
    for name in makers:
        first = (there,) if name.endswith("_like") else ARGUMENTS.get(name, (3,))
        made = getattr(cards, name)(*first, device=Card(2))
        assert made.device.id == 2, name


def test_an_array_made_like_another_is_made_beside_it(cards: Any) -> None:
    there = OnCard(Card(1))
    for name in ("zeros_like", "ones_like", "empty_like", "full_like", "asarray"):
        assert getattr(cards, name)(there).device.id == 1, name
    assert cards.astype(there, np.float32).device.id == 1
    assert cards.zeros(3).device.id == cards.asarray(np.ones(3)).device.id == 0
    with Card(3):
        assert cards.zeros(3).device.id == 3
    assert cards.pi == np.pi


def test_functions_of_cupys_own_take_the_place_of_the_wrappers(cards: Any) -> None:
    assert placing(cards, Card, pi=3.0).pi == 3.0
    assert cards.pi == np.pi


def test_a_cupy_arrays_namespace_is_its_backends() -> None:
    cupy = pytest.importorskip("cupy")
    host = np.arange(4.0)
    # Memory of the host passes for memory of a GPU as long as nobody computes with it.
    memory = cupy.cuda.UnownedMemory(host.ctypes.data, host.nbytes, host, device_id=1)
    array = cupy.ndarray((4,), host.dtype, cupy.cuda.MemoryPointer(memory, 0))
    xp = array_namespace(array)
    assert xp is cupy_backend.namespace()
    assert cupy_backend.device_name(device_of(array)) == "cuda:1"
    assert xp.isdtype(array.dtype, "real floating")
    assert xp.expm1 is importlib.import_module("array_api_compat.cupy").expm1


# On a GPU


@every_dtype
@every_optimizer
def test_on_a_gpu_an_update_in_one_kernel_is_the_optimizers(
    gpu: Backend, name: str, dtype: str
) -> None:
    def put(array: np.ndarray) -> Any:
        return gpu.from_host(array.astype(dtype))

    optimizer = OPTIMIZERS[name](put(MASK))
    fused = replacement(gpu.replacements, optimizer)
    assert_same(train(fused, optimizer, put), train(reference, optimizer, put))


@pytest.mark.parametrize("name", LEFT)
def test_on_a_gpu_hyperparameters_that_are_arrays_are_left_to_the_optimizer(
    gpu: Backend, name: str
) -> None:
    optimizer = LEFT[name](gpu.from_host(RATES))
    fused = replacement(gpu.replacements, optimizer)
    assert_same(train(fused, optimizer, gpu.from_host), train(reference, optimizer, gpu.from_host))


def computing(gpu: Backend, name: str) -> Callable[[Any], Any]:
    """Return a function of the standard, an activation or a loss, with its derivative, of z."""
    xp = gpu.namespace()
    if name in ("clip", "sign"):
        return {"clip": lambda z: xp.clip(z, -1.0, 0.75), "sign": xp.sign}[name]
    if name in LOSSES:
        loss = LOSSES[name]
        return lambda z: [loss.value(z, z), loss.link(z), loss.gradient(z, z)]
    return lambda z: ACTIVATIONS[name].vjp(z, z, ACTIVATIONS[name].value(1.0 * z))


@pytest.mark.parametrize("name", ["clip", "sign", *ACTIVATIONS, *LOSSES])
def test_on_an_emulated_gpu_no_small_function_waits(gpu: Backend, name: str) -> None:
    """As array-api-compat's clip and sign do, which index by a mask."""
    emulator = pytest.importorskip("cuda_emulator", reason="calls are counted by an emulator")
    z, compute = gpu.from_host(np.array([[-2.1, -0.3, 0.6], [1.0, 0.0, 3.3]])), computing(gpu, name)
    with emulator.record() as calls, bx.transfer_guard("disallow"):
        compute(z)
    assert not calls.count("synchronize")
    if name in ("clip", "sign"):
        assert calls.count("launch").total() == 1


SPECIAL = np.array([np.nan, np.inf, -np.inf, -0.0, 0.5, -3.0])


@every_dtype
def test_on_a_gpu_clip_and_sign_keep_what_the_standard_says(gpu: Backend, dtype: str) -> None:
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
def test_on_a_gpu_all_holds_on_every_kind_of_stream(gpu: Backend, kind: str) -> None:
    with STREAMS[kind](importlib.import_module("cupy").cuda):
        rows = testing.conformance(gpu)
    assert not [row for row in rows if row.status == "fails"]


@pytest.mark.parametrize("kind", STREAMS)
def test_on_a_gpu_a_training_is_the_same_on_every_kind_of_stream(gpu: Backend, kind: str) -> None:
    usual = fitted(gpu)
    with STREAMS[kind](importlib.import_module("cupy").cuda):
        here = fitted(gpu)
    assert usual == here


def fitted(gpu: Backend) -> Any:
    """Return what a training gives, all of it on the host."""
    rows = np.random.default_rng(0).normal(size=(40, 5))
    x, y = (gpu.from_host(part) for part in (rows[:, :3], rows[:, 3:]))
    network = bx.mlp([3, 8, 2], hidden="gelu", loss="huber", dropout=0.2, layer_norm=True)
    theta = network.initialize(0, backend="cupy", dtype="float64", stack=(2,))
    options: dict[str, Any] = {"optimizer": bx.Adam(0.01), "epochs": 3, "batch_size": 16}
    checked: dict[str, Any] = {"clip": 1.0, "check_every": 4, "validation": (x, y)}
    result = bx.fit(network, theta, x, y, seed=0, **options, **checked)
    losses = result.history["loss"].tolist(), result.history["validation_loss"].tolist()
    return losses, gpu.to_host(result.theta).tolist()


def test_on_a_gpu_the_current_stream_is_kept_to(gpu: Backend) -> None:
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = gpu.from_host(np.ones((2000, 2000), np.float32))
        for _ in range(20):  # so long that a copy on another stream would come too early
            x = x @ x / 2000.0
        np.testing.assert_allclose(gpu.to_host(x), 1.0, rtol=1e-4)
        assert stream.done


def test_on_a_gpu_synchronizing_waits_for_every_stream(gpu: Backend) -> None:
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        x = gpu.from_host(np.ones((4000, 4000), np.float32))
        for _ in range(20):
            x = x @ x / 4000.0
    gpu.synchronize()
    assert stream.done


def test_on_a_gpu_memory_is_what_cuda_counts(gpu: Backend) -> None:
    import cupy

    x = cupy.zeros(2**20, cupy.uint8)
    memory = gpu.memory()
    assert memory is not None
    assert cupy.get_default_memory_pool().used_bytes() >= x.nbytes
    assert x.nbytes <= memory.used <= memory.total


def test_on_a_gpu_a_gradient_checks_products_are_not_tf32(gpu: Backend) -> None:
    import cupy
    from cupy._core import _routines_linalg as linalg

    if int(cupy.cuda.Device().compute_capability) < 80:
        pytest.skip("TF32 needs compute capability 8.0")
    host = np.random.default_rng(0).normal(size=(256, 256))
    x = gpu.from_host(host.astype(np.float32))

    def error() -> float:
        return float(np.abs(gpu.to_host(x @ x) - host @ host).max())

    before = linalg.get_compute_type(np.float32)
    linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
    try:
        rough = error()
        with gpu.full_precision():
            fine = error()
        assert linalg.get_compute_type(np.float32) == linalg.COMPUTE_TYPE_TF32
    finally:
        linalg.set_compute_type(np.float32, before)
    assert fine < rough / 10


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_on_a_gpu_a_complex_steps_products_keep_its_imaginary_part(
    gpu: Backend, dtype: str
) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 3, 8, 8))
    step = 2.0**-60  # of 1, which a sum with anything of size 1 loses
    host = (a + 1j * step * b).astype(dtype)
    x, real = gpu.from_host(host), gpu.from_host(b.astype(dtype))
    with gpu.full_precision():
        # Of two matrices, of stacks, of a matrix and a stack: each is another function of cuBLAS's.
        products = [x[0] @ real[0], x @ real, x[0] @ real, x @ real[0]]
    wanted = [host.imag[0] @ b[0], host.imag @ b, host.imag[0] @ b, host.imag @ b[0]]
    for got, right in zip(products, wanted, strict=True):
        allowed = 100 * np.finfo(dtype).eps * np.abs(right).max()
        np.testing.assert_allclose(gpu.to_host(got).imag, right, rtol=0.0, atol=allowed)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 3)])
def test_on_a_gpu_a_gradient_check_steps_through_products(
    gpu: Backend, shape: tuple[int, ...]
) -> None:
    draw = np.random.default_rng(0).normal
    x, weights = gpu.from_host(draw(size=(5, 4))), gpu.from_host(draw(size=shape))
    report = bx.check_gradient(
        lambda p: ((x @ p) ** 2).sum(),
        lambda p: 2.0 * x.T @ (x @ p),
        weights,
        method="complex_step",
    )
    assert report.passed, report


@pytest.fixture
def second(gpu: Backend) -> Any:
    """A GPU that is not the current one."""
    devices = gpu.devices()
    if len(devices) < 2:
        pytest.skip("one GPU here")
    return devices[1]


def repair(name: str, device: Any) -> str:
    """Return the pattern of the error that says where an array is, and how to compute there."""
    return rf"{name} is on cuda:{device.id}.*with cupy\.cuda\.Device\({device.id}\)"


def test_on_two_gpus_arrays_are_made_on_the_one_that_is_asked_for(
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
    with pytest.raises(ValueError, match=repair("theta", second)):
        network.forward(theta, there)
    with second:
        assert device_of(network.forward(theta, there)) == second


def test_on_two_gpus_all_holds_on_the_second_while_it_is_current(gpu: Backend, second: Any) -> None:
    with second:
        rows = testing.conformance(gpu, second)
    assert not [row for row in rows if row.status == "fails"]


NETWORK = bx.mlp([3, 2], loss="huber")
# What is called with x and y of float32 and integer labels, and the argument that is told of first.
ENTRANCES: dict[str, tuple[str, Callable[..., Any]]] = {
    "check_layer": ("x", lambda x, y, labels: bx.check_layer(bx.Dense(3, 2), x)),
    "check_loss": ("outputs", lambda x, y, labels: bx.check_loss("huber", y, y)),
    "check_gradient": (
        "point",
        lambda x, y, labels: bx.check_gradient(lambda p: (p * p).sum(), lambda p: 2.0 * p, x),
    ),
    "one_hot": ("labels", lambda x, y, labels: bx.data.one_hot(labels)),
    "standardize": ("x", lambda x, y, labels: bx.data.standardize(x)),
    "split": (r"arrays\[0\]", lambda x, y, labels: bx.data.split(x, y)),
    "minibatches": (r"arrays\[0\]", lambda x, y, labels: bx.data.minibatches(x, y, batch_size=2)),
    "accuracy": ("predictions", lambda x, y, labels: bx.metrics.accuracy(y, y)),
    "rmse": ("predictions", lambda x, y, labels: bx.metrics.rmse(y, y)),
}
OF_THETA: dict[str, Callable[..., Any]] = {
    "forward": lambda theta, x, y: NETWORK.forward(theta, x),
    "predict": lambda theta, x, y: NETWORK.predict(theta, x),
    "loss": lambda theta, x, y: NETWORK.loss(theta, x, y),
    "loss_and_gradient": lambda theta, x, y: NETWORK.loss_and_gradient(theta, x, y),
    "vjp": lambda theta, x, y: NETWORK.vjp(theta, x, y),
    "unpack": lambda theta, x, y: NETWORK.unpack(theta),
    "weight_mask": lambda theta, x, y: NETWORK.weight_mask(theta),
    "check_network": lambda theta, x, y: bx.check_network(NETWORK, theta, x, y),
    "fit": lambda theta, x, y: bx.fit(NETWORK, theta, x, y, optimizer=bx.SGD(0.1), epochs=1),
    "initialize": lambda theta, x, y: bx.Adam().initialize(theta),
}


@pytest.mark.parametrize("name", [*ENTRANCES, *OF_THETA])
def test_on_two_gpus_arrays_of_the_other_are_refused_with_the_way_out(
    gpu: Backend, second: Any, name: str
) -> None:
    """Where it is not the current one, CuPy would compute on one with the memory of the other."""
    x, y = (gpu.from_host(np.ones((5, n), np.float32), device=second) for n in (3, 2))
    labels = gpu.from_host(np.array([0, 1, 1]), device=second)
    theta = NETWORK.initialize(0, backend="cupy", device=second)
    if name in OF_THETA:
        said, function, arrays = "theta", OF_THETA[name], (theta, x, y)
    else:
        (said, function), arrays = ENTRANCES[name], (x, y, labels)
    with pytest.raises(ValueError, match=repair(said, second)):
        function(*arrays)
    with second:
        function(*arrays)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_on_two_gpus_data_is_moved_from_either_to_the_other_on_any_stream(
    gpu: Backend, second: Any, dtype: str
) -> None:
    cuda = importlib.import_module("cupy").cuda
    host = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    first = gpu.devices()[0]
    for kind in STREAMS.values():
        with second, kind(cuda):
            there = gpu.from_host(host) * 2.0
            back = bx.asarray(there, backend=gpu, device=first, dtype=dtype)
            assert device_of(back) == first
            np.testing.assert_array_equal(gpu.to_host(back), (host * 2.0).astype(dtype))
        with kind(cuda):
            here = gpu.from_host(host) * 3.0
            away = bx.asarray(here, backend=gpu, device=second, dtype=dtype)
            assert device_of(away) == second
            np.testing.assert_array_equal(gpu.to_host(away), (host * 3.0).astype(dtype))
