"""What is refused on the backend, and what the gradient check says there."""

from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends import TransferError, device_of, transfer_guard
from backprop_xp.backends.guard import watch
from backprop_xp.gradient_check import check_network
from backprop_xp.networks.activations import Activation, tanh
from backprop_xp.networks.mlp import mlp
from backprop_xp.testing.kit import NotApplicable, Place, checks_of, expect

_X, _Y = np.random.default_rng(0).normal(size=(2, 5, 3))
_COMPLEX = {"float32": "complex64", "float64": "complex128"}
# Its slope is 1 % too large: far above rounding, and nothing that one would see in training.
_WRONG = Activation(tanh.value, lambda g, z, a: 1.01 * tanh.vjp(g, z, a), from_output=True)


def _gradient_check(method: str, dtype: str, place: Place) -> None:
    """Let a right gradient pass, on the device, and one that is 1 % off fail."""
    place.dtype(_COMPLEX[dtype] if method == "complex_step" else dtype)
    reports = []
    for hidden in (_WRONG, tanh):
        network = mlp([3, 4, 3], hidden=hidden, dropout=0.3, layer_norm=True)
        theta = network.initialize(4, backend=place.backend, device=place.device, dtype=dtype)
        x, y = place.put(_X.astype(dtype), _Y.astype(dtype))
        reports.append(check_network(network, theta, x, y, rng=3, method=method))
    wrong, right = reports
    expect(wrong.verdict == "fail", f"a gradient that is 1 % off does not fail: {wrong}")
    if right.verdict == "inconclusive" and dtype == "float32":
        raise NotApplicable("inconclusive: without float64 a difference cannot tell enough")
    expect(right.passed, f"a right gradient does not pass: {right}")
    for found in (right.analytic, right.numeric):
        if found is not None:  # a report by directions keeps none
            place.require_same(found, place.backend.to_host(found), "the report's gradient")


def _mixed_places(place: Place) -> None:
    """Refuse an x of another library or device than theta, and show the call that moves it."""
    network, x = mlp([3, 2]), _X.astype(np.float32)
    theta = network.initialize(0, backend=place.backend, device=place.device, dtype="float32")
    strangers = [other.put(x)[0] for other in place.others()]
    for stranger in strangers if isinstance(theta, np.ndarray) else [x, *strangers]:
        what = f"{type(stranger)} on {device_of(stranger)} beside theta"
        _refuses(network.forward, (theta, stranger), ValueError, what, "bx.asarray")


def _mixed_precisions(place: Place) -> None:
    """Refuse a float64 x beside a float32 theta, and show the call that casts it."""
    place.dtype("float64")
    theta, x = place.put(np.zeros(8, np.float32), _X)
    _refuses(mlp([3, 2]).forward, (theta, x), TypeError, "a float64 x", "bx.asarray")


def _unknown_devices(place: Place) -> None:
    """Refuse an unknown device, and list the known."""
    names = [place.backend.device_name(device) for device in place.backend.devices()]
    for name in ("nonesuch", "cuda:99", "cpu:99", "", 1.5):
        _refuses(place.backend.device, (name,), ValueError, f"device {name!r}", *names)


def _transfers(place: Place) -> None:
    """Refuse float(x) under a transfer guard, and let to_host pass."""
    (array,) = place.put(_X.astype(np.float32))
    if not place.backend.doors():
        raise NotApplicable("no doors() here: the transfer guard does not watch the library")
    with transfer_guard("disallow"):
        watch(place.backend)
        place.backend.to_host(array)
        _refuses(float, (array[0, 0],), TransferError, "float(x[0, 0])", "to_host")


def _refuses(
    call: Callable[..., Any], given: tuple[Any, ...], kind: type[Exception], what: str, *words: str
) -> None:
    try:
        call(*given)
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        expect(not missing, f"the error of {what} does not tell of {missing}: {error}")
    else:
        expect(False, f"{what} is not refused: a {kind.__name__} is expected")


_REFUSALS = [_mixed_places, _mixed_precisions, _unknown_devices, _transfers]
CHECKS = [
    *checks_of("trust", [_gradient_check], ("complex_step", "centered", "directional"), _COMPLEX),
    *checks_of("trust", _REFUSALS),
]
