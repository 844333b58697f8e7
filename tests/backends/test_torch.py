"""PyTorch's devices."""

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import DTypeNotKeptError

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch


@pytest.fixture
def _apple_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make PyTorch report an Apple GPU; nothing computes on it."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)


@pytest.mark.usefixtures("_apple_gpu")
def test_an_apple_gpu_is_listed_after_the_other_devices() -> None:
    backend = bx.get_backend("torch")
    assert backend.devices()[0] == torch.device("cpu")
    # The device of a tensor has an index, and must equal the listed device.
    assert backend.devices()[-1] == torch.device("mps", 0)
    for name in ("mps", "mps:0", torch.device("mps"), torch.device("mps", 0)):
        assert backend.device(name) == torch.device("mps", 0)
    assert bx.resolve(backend="torch", device="mps").dtype == torch.float32
    assert backend.memory(torch.device("mps", 0)) is None


@pytest.mark.usefixtures("_apple_gpu")
@pytest.mark.parametrize("values", [[1.5], np.array([1.5])])
def test_float64_on_an_apple_gpu_is_an_error_with_the_way_out(values: object) -> None:
    choice = {"backend": "torch", "device": "mps"}
    with pytest.raises(DTypeNotKeptError, match=r"'float64', from the arg.*dtype='float32'"):
        bx.resolve(**choice, dtype="float64")
    with pytest.raises(DTypeNotKeptError, match=r"no float64 on mps:0.*dtype='float32'"):
        bx.asarray(values, **choice, dtype="float64")
    with pytest.raises(DTypeNotKeptError, match="no complex128 on mps:0"):
        bx.asarray([1j], **choice, dtype="complex128")
    backend = bx.get_backend("torch")
    with pytest.raises(DTypeNotKeptError, match="no float64 on mps:0"):
        backend.from_host(np.array([1.5]), None, backend.device("mps"))


@pytest.mark.usefixtures("_apple_gpu")
def test_synchronize_waits_for_the_given_device(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[object] = []
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    backend, cuda = bx.get_backend("torch"), torch.device("cuda", 1)
    backend.synchronize(torch.device("cpu"))
    assert waited == []
    backend.synchronize(cuda)
    backend.synchronize(torch.device("mps", 0))
    backend.synchronize()
    assert waited == [cuda, "mps", None, "mps"]


def test_memory_of_a_cuda_device_is_the_number_that_cuda_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30, 80 + device.index))
    backend = bx.get_backend("torch")
    assert backend.memory(torch.device("cuda", 1)) == (51, 81)
    assert backend.memory(torch.device("cpu")) is None


@pytest.mark.parametrize("of", ["theta", "x", "both"])
def test_training_records_no_automatic_differentiation(of: str) -> None:
    network, stopping = bx.mlp([2, 3, 1], hidden="tanh"), bx.EarlyStopping()
    theta, x, y = network.initialize(seed=0, backend="torch"), torch.rand(5, 2), torch.rand(5, 1)
    options = {"optimizer": bx.Adam(0.1), "epochs": 3, "validation": (x, y)}
    plain = bx.fit(network, theta, x, y, early_stopping=stopping, **options)
    theta.requires_grad_(of != "x")
    x.requires_grad_(of != "theta")
    result = bx.fit(network, theta, x, y, early_stopping=stopping, **options)
    arrays = [result.theta, *result.optimizer_state[1:]]
    for state in bx.train(network, theta, x, y, **options):
        arrays += [state.theta, state.loss, state.validation_loss, *state.optimizer_state[1:]]
    assert not any(array.requires_grad for array in arrays)
    assert torch.equal(result.theta, plain.theta)
    assert theta.requires_grad == (of != "x")


def test_training_records_no_gradients_of_hyperparameters() -> None:
    network = bx.mlp([2, 3, 1], hidden="tanh")
    theta = network.initialize(seed=0, backend="torch", stack=2)
    rate, l2 = torch.full((2, 1), 0.1, requires_grad=True), torch.ones(2, requires_grad=True)
    sgd = bx.SGD(rate, momentum=rate)
    result = bx.fit(
        network, theta, torch.rand(5, 2), torch.rand(5, 1), optimizer=sgd, epochs=3, l2=l2
    )
    assert not result.theta.requires_grad


def test_a_number_is_written_under_a_mask_on_the_tensors_device() -> None:
    x = torch.asarray([1.0, 2.0])
    with bx.transfer_guard("disallow"):
        x[x > 1.0] = 0.0
    assert x.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("backend", ["numpy", "torch", "array-api-strict"])
def test_conjugate_and_negative_views_are_moved_with_their_values(backend: str) -> None:
    conjugate = torch.asarray([1 + 2j, 3 - 1j], dtype=torch.complex128).conj()
    assert conjugate.is_conj()
    assert conjugate.imag.is_neg()
    for view, expected in ((conjugate, [1 - 2j, 3 + 1j]), (conjugate.imag, [-2.0, 1.0])):
        moved = bx.asarray(view, backend=backend, dtype=str(view.dtype).partition(".")[2])
        assert bx.to_host(moved).tolist() == expected
        assert bx.to_host(view).tolist() == expected


def test_an_unknown_gpu_is_an_error_that_says_whether_pytorch_could_use_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if torch.cuda.device_count():
        pytest.skip("there is a GPU")
    for is_built, reason in ((False, "was built without CUDA"), (True, "finds no GPU")):
        monkeypatch.setattr(torch.backends.cuda, "is_built", lambda is_built=is_built: is_built)
        with pytest.raises(ValueError, match=rf"Known: cpu.* This PyTorch {reason}\."):
            bx.asarray([1.0], backend="torch", device="cuda:0")
    with pytest.raises(ValueError, match=r"Known: cpu\. Device and backend"):
        bx.asarray([1.0], backend="torch", device="cpu:7")
