"""CuPy: what can be checked without a GPU, and, where there is one, what cannot.

The kernels' text is compiled twice without a GPU: by NVRTC for one, where CuPy finds it, and as
plain C++ for this processor, where it must do what the optimizers do.
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
from backprop_xp.backends.libraries.cupy.namespace import placing
from backprop_xp.backends.libraries.cupy.row_kernels import ROW_KERNELS, source
from backprop_xp.backends.libraries.cupy.update_kernels import KERNELS, Kernel, Work, rules
from backprop_xp.networks.activations import ACTIVATIONS
from backprop_xp.networks.losses import LOSSES
from backprop_xp.training.optimizers import SGDState

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
    inputs, outputs = (
        [declared.split()[1] for declared in text.split(",")]
        for text in (kernel.inputs, kernel.outputs)
    )
    given = [Parameter(name, name in ("gradient", "mask"), True) for name in inputs]
    return given + [Parameter(name, True, False) for name in outputs]


def cuda_source(kernel: Kernel, dtype: str) -> str:
    """Return a CUDA function around a kernel's body, as CuPy would write one."""
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
        assert ".f64" not in ptx  # as a number that is not cast would bring about


# What they do, on this processor

SHIM = """
#include <cmath>
using std::sqrt;
#define __global__
struct Place { long x; };
static Place blockIdx, blockDim = {1}, threadIdx = {0};
"""


def host_source(kernel: Kernel, dtype: str) -> str:
    """Return the CUDA function, and a loop in C over its blocks of one thread."""
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
    """The kernels as functions of this processor, and the names of those that were run."""

    library: ctypes.CDLL
    ran: list[str]

    def launch(self, work: Work) -> None:
        kernel, inputs, outputs = work
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


class Place(NamedTuple):
    """Where updates are computed: the kernels' rules, how data comes there, and what was run."""

    table: dict[str, Any]
    put: Callable[[np.ndarray], Any]
    ran: list[str] | None


@pytest.fixture(params=["this processor", pytest.param("a GPU", marks=pytest.mark.installed)])
def place(request: pytest.FixtureRequest) -> Place:
    if request.param == "a GPU":
        gpu = request.getfixturevalue("gpu")
        return Place(gpu.replacements, gpu.from_host, None)
    processor = Processor(request.getfixturevalue("compiled"), [])
    return Place(rules(processor.launch), np.copy, processor.ran)


def trained(rule: Callable[..., Any], optimizer: Any, gradients: list[Any], theta: Any) -> Any:
    """Return theta and the state after some updates."""
    state = optimizer.initialize(theta)
    for gradient in gradients:
        rate = optimizer.learning_rate
        rate = rate(state.step) if callable(rate) else rate
        theta, state = rule(optimizer, theta, gradient, state, rate)
    return theta, state


def assert_as_reference(place: Place, optimizer: Any, dtype: str, kernels: int) -> None:
    """Updates by the kernels, so many of them, give what the optimizer's own rule gives."""
    kind = type(optimizer)
    results = []
    for rule in (place.table[f"{kind.__module__}.{kind.__qualname__}.rule"], kind.rule):
        gradients = [place.put(gradient.astype(dtype)) for gradient in GRADIENTS]
        results.append(trained(rule, optimizer, gradients, place.put(THETA.astype(dtype))))
    assert_same(*results)
    assert place.ran is None or len(place.ran) == kernels


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
def test_an_update_in_one_kernel_is_the_optimizers(place: Place, name: str, dtype: str) -> None:
    optimizer = OPTIMIZERS[name](place.put(MASK.astype(dtype)))
    assert_as_reference(place, optimizer, dtype, STEPS)  # one kernel for each update


@pytest.mark.parametrize("shape", [(7,), (1, 7), (3, 7)])
def test_a_mask_broadcasts_over_the_stack(place: Place, shape: tuple[int, ...]) -> None:
    mask = place.put(np.resize(MASK, shape))
    assert_as_reference(place, bx.AdamW(0.02, weight_decay=0.3, mask=mask), "float64", STEPS)
    assert place.ran is None or set(place.ran) == {"backprop_xp_masked_adam"}


@pytest.mark.parametrize("name", [*LEFT, "a complex theta"])
def test_hyperparameters_that_are_arrays_and_complex_numbers_are_left_to_the_optimizer(
    place: Place, name: str
) -> None:
    if name in LEFT:
        assert_as_reference(place, LEFT[name](place.put(RATES)), "float64", 0)
    else:
        assert_as_reference(place, bx.SGD(0.1, momentum=0.5), "complex128", 0)


def test_the_table_names_the_rules_of_all_optimizers_with_their_signatures() -> None:
    for kind in (bx.SGD, bx.RMSProp, bx.Adam, bx.AdamW):
        function = cupy_backend.replacements[f"{kind.__module__}.{kind.__qualname__}.rule"]
        got, wanted = (inspect.signature(f).parameters for f in (function, kind.rule))
        assert [(p.name, p.kind, p.default) for p in got.values()] == [
            (p.name, p.kind, p.default) for p in wanted.values()
        ]


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
    takers = {name for name, f in functions if "device" in inspect.signature(f).parameters}
    return takers - {"from_dlpack"}


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
    assert placing(cards, Card, pi=3.0).pi == 3.0  # CuPy's own takes the wrapper's place


@pytest.mark.installed
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


def computing(gpu: Backend, name: str) -> Callable[[Any], Any]:
    """Return a function of the standard, an activation or a loss, with its derivative, of z."""
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
            loss.link(z_and_t(z)[0]),
            loss.gradient(*z_and_t(z)),
        ]
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
def test_on_a_gpu_all_holds_and_a_training_is_the_same_on_every_kind_of_stream(
    gpu: Backend, kind: str
) -> None:
    usual = fitted(gpu)
    with STREAMS[kind](importlib.import_module("cupy").cuda):
        rows = testing.conformance(gpu)
        assert fitted(gpu) == usual
    assert not [row for row in rows if row.status == "fails"]


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


def test_on_a_gpu_the_current_stream_is_kept_to_and_synchronizing_waits_for_every_one(
    gpu: Backend,
) -> None:
    stream = importlib.import_module("cupy").cuda.Stream(non_blocking=True)

    def long_product() -> Any:  # so long that a copy on another stream would come too early
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


def test_on_a_gpu_memory_is_what_cuda_counts(gpu: Backend) -> None:
    x, memory = gpu.namespace().zeros(2**20, dtype=np.uint8), gpu.memory()
    assert memory is not None
    assert x.nbytes <= memory.used <= memory.total


def test_on_a_gpu_a_gradient_checks_products_are_not_tf32(gpu: Backend) -> None:
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


def test_on_two_gpus_arrays_are_made_on_the_one_that_is_asked_for_and_all_holds_there(
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
        rows = testing.conformance(gpu, second)
    assert not [row for row in rows if row.status == "fails"]


NETWORK = bx.mlp([3, 2], loss="huber")
SGD = bx.SGD(0.1)
# The argument that is told of first, and what is called with theta, x, y and integer labels.
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


@pytest.mark.parametrize(("said", "function"), ENTRANCES)
def test_on_two_gpus_arrays_of_the_other_are_refused_with_the_way_out(
    gpu: Backend, second: Any, said: str, function: Callable[..., Any]
) -> None:
    """Where it is not the current one, CuPy would compute on one with the memory of the other."""
    x, y = (gpu.from_host(np.ones((5, n), np.float32), device=second) for n in (3, 2))
    labels = gpu.from_host(np.array([0, 1, 1]), device=second)
    theta = NETWORK.initialize(0, backend="cupy", device=second)
    with pytest.raises(ValueError, match=repair(said, second)):
        function(theta, x, y, labels)
    with second:
        function(theta, x, y, labels)


@every_dtype
@pytest.mark.parametrize("kind", STREAMS)
def test_on_two_gpus_data_is_moved_from_either_to_the_other_on_any_stream(
    gpu: Backend, second: Any, dtype: str, kind: str
) -> None:
    cuda, first = importlib.import_module("cupy").cuda, gpu.devices()[0]
    host = np.random.default_rng(0).normal(size=(300, 200)).astype(np.float32)
    for here, other in ((second, first), (first, second)):
        with here, STREAMS[kind](cuda):
            moved = bx.asarray(gpu.from_host(host) * 2.0, backend=gpu, device=other, dtype=dtype)
            assert device_of(moved) == other
            np.testing.assert_array_equal(gpu.to_host(moved), (host * 2.0).astype(dtype))
