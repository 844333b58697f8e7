"""What the gradient check says on the backend, and what is refused there."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.activations import Activation, tanh
from backprop_xp.backends import Backend, Device, asarray
from backprop_xp.gradient_check import GradientReport, check_network
from backprop_xp.layers import Dense, Dropout, LayerNorm
from backprop_xp.network import Network
from backprop_xp.testing.comparing import has_complex, put, require_there, widest
from backprop_xp.testing.kit import Check, NotApplicable, expect

_X = np.random.default_rng(0).normal(size=(5, 3))
_Y = np.random.default_rng(1).normal(size=(5, 2))

# Its slope is 1 % too large: far above rounding, and nothing that one would see in training.
_WRONG = Activation(tanh.value, lambda g, z, a: 1.01 * tanh.vjp(g, z, a), from_output=True)


def _report(
    method: str, activation: Activation, backend: Backend, device: Device
) -> GradientReport:
    dtype = widest(backend, device)
    if method == "complex_step" and not has_complex(backend, device, dtype):
        raise NotApplicable(f"no complex dtype of the precision of {dtype} on this device")
    network = Network(
        [Dense(3, 4, activation), LayerNorm(4), Dropout(0.3), Dense(4, 2)], "mean_squared_error"
    )
    theta = network.initialize(4, backend=backend, device=device, dtype=dtype)
    x, y = put(backend, device, _X.astype(dtype), _Y.astype(dtype))
    return check_network(network, theta, x, y, rng=3, method=method)


def _right(method: str, backend: Backend, device: Device) -> None:
    report = _report(method, tanh, backend, device)
    if report.verdict == "inconclusive" and widest(backend, device) == "float32":
        raise NotApplicable("inconclusive: without float64 a difference cannot tell enough")
    expect(report.passed, f"a right gradient does not pass: {' '.join(str(report).split())}")
    for array in (report.analytic, report.numeric):
        if array is not None:  # a report by directions keeps none
            require_there(backend, device, array, "the report's gradient")


def _wrong(method: str, backend: Backend, device: Device) -> None:
    report = _report(method, _WRONG, backend, device)
    shown = f"{report.verdict}, relative error {report.max_relative_error:.1e}"
    expect(report.verdict == "fail", f"a gradient that is 1 % off does not fail: {shown}")


def _refuses(call: Callable[[], Any], kind: type[Exception], what: str) -> None:
    try:
        call()
    except kind:
        return
    expect(False, f"{what} is accepted: a {kind.__name__} is expected")


def _mixed_libraries(backend: Backend, device: Device) -> None:
    network = Network([Dense(3, 2)], "mean_squared_error")
    theta = network.initialize(0, backend=backend, device=device, dtype="float32")
    if isinstance(theta, np.ndarray):
        raise NotApplicable("its arrays are NumPy's")
    x = _X.astype(np.float32)
    _refuses(lambda: network.forward(theta, x), ValueError, "NumPy's x beside its theta")


def _mixed_devices(backend: Backend, device: Device) -> None:
    others = [other for other in backend.devices() if other != device]
    if not others:
        raise NotApplicable("there is one device")
    network = Network([Dense(3, 2)], "mean_squared_error")
    theta = network.initialize(0, backend=backend, device=device, dtype="float32")
    (x,) = put(backend, others[0], _X.astype(np.float32))
    _refuses(lambda: network.forward(theta, x), ValueError, "an x on another device than theta")


def _no_numbers(backend: Backend, device: Device) -> None:
    _refuses(
        lambda: asarray(["a"], backend=backend, device=device, dtype="float32"),
        TypeError,
        "a list of words",
    )


CHECKS = [
    *(
        Check(
            "trust",
            f"{method} passes what is right",
            "a right gradient passes the check, on the device",
            functools.partial(_right, method),
        )
        for method in ("complex_step", "centered", "directional")
    ),
    *(
        Check(
            "trust",
            f"{method} finds a mistake",
            "a gradient that is 1 % off fails the check",
            functools.partial(_wrong, method),
        )
        for method in ("complex_step", "centered", "directional")
    ),
    Check(
        "trust", "mixed libraries", "NumPy's arrays beside its own are refused", _mixed_libraries
    ),
    Check("trust", "mixed devices", "arrays of two devices are refused", _mixed_devices),
    Check("trust", "no numbers", "what is no number is refused", _no_numbers),
]
