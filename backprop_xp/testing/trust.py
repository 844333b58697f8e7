"""The checks of trust: errors for mixed arrays, and the verdicts of the gradient check."""

from collections.abc import Callable
from functools import partial

import numpy as np

from backprop_xp.backends import TransferError, device_of, transfer_guard
from backprop_xp.backends.guard import watch
from backprop_xp.gradient_check import check_network
from backprop_xp.gradient_check.inputs.problems import Method
from backprop_xp.networks.layers.activations import Activation, tanh
from backprop_xp.networks.mlp import mlp
from backprop_xp.testing.kit import Case, NotApplicable, checks_of, expect

_X, _Y = np.random.default_rng(0).normal(size=(2, 5, 3))
_COMPLEX = {"float32": "complex64", "float64": "complex128"}
# A slope that is 1 % too large: far above rounding, but invisible in training.
_WRONG = Activation(tanh.value, lambda g, z, a: 1.01 * tanh.vjp(g, z, a), from_output=True)


def _gradient_check(method: Method, dtype: str, case: Case) -> None:
    """Check that a right gradient passes, and one that is 1 % off fails."""
    case.dtype(_COMPLEX[dtype] if method == "complex_step" else dtype)
    reports = []
    for hidden in (_WRONG, tanh):
        network = mlp([3, 4, 3], hidden=hidden, dropout=0.3, layer_norm=True)
        theta = network.initialize(4, backend=case.backend, device=case.device, dtype=dtype)
        x, y = case.put(_X.astype(dtype), _Y.astype(dtype))
        reports.append(check_network(network, theta, x, y, rng=3, method=method))
    wrong, right = reports
    expect(wrong.verdict == "fail", f"a gradient that is 1 % off does not fail: {wrong}")
    if right.verdict == "inconclusive" and dtype == "float32":
        raise NotApplicable("inconclusive: a difference is too rough without float64")
    expect(right.passed, f"a right gradient does not pass: {right}")
    for found in (right.analytic, right.numeric):
        if found is not None:  # a report by directions keeps none
            case.require_same(found, case.backend.to_host(found), "the report's gradient")


def _mixed_libraries(case: Case) -> None:
    """Check that an x of another library or device than theta is an error with the remedy."""
    network, x = mlp([3, 2]), _X.astype(np.float32)
    theta = network.initialize(0, backend=case.backend, device=case.device, dtype="float32")
    strangers = [other.put(x)[0] for other in case.others()]
    for stranger in strangers if isinstance(theta, np.ndarray) else [x, *strangers]:
        what = f"{type(stranger)} on {device_of(stranger)} with theta"
        _refuses(partial(network.forward, theta, stranger), ValueError, what, "bx.asarray")


def _mixed_precisions(case: Case) -> None:
    """Check that a float64 x with a float32 theta is an error with the remedy."""
    case.dtype("float64")
    theta, x = case.put(np.zeros(8, np.float32), _X)
    _refuses(partial(mlp([3, 2]).forward, theta, x), TypeError, "a float64 x", "bx.asarray")


def _unknown_devices(case: Case) -> None:
    """Check that an unknown device is an error that lists the known ones."""
    names = [case.backend.device_name(device) for device in case.backend.devices()]
    for name in ("nonesuch", "cuda:99", "cpu:99", "", 1.5):
        _refuses(partial(case.backend.device, name), ValueError, f"device {name!r}", *names)


def _transfers(case: Case) -> None:
    """Check that a transfer guard refuses float(x), but not to_host."""
    (array,) = case.put(_X.astype(np.float32))
    conversions = case.backend.host_conversions()
    if conversions is None:
        raise NotApplicable("no host_conversions(): a transfer guard refuses the library's arrays")
    if not conversions:
        raise NotApplicable("host_conversions() is empty: a transfer guard watches none")
    with transfer_guard("disallow"):
        watch(case.backend)
        case.backend.to_host(array)
        _refuses(partial(float, array[0, 0]), TransferError, "float(x[0, 0])", "to_host")


def _refuses(call: Callable[[], object], kind: type[Exception], what: str, *words: str) -> None:
    try:
        call()
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        expect(not missing, f"the error of {what} does not name {missing}: {error}")
    else:
        expect(False, f"{what} is not refused: a {kind.__name__} is expected")


_REFUSALS = [_mixed_libraries, _mixed_precisions, _unknown_devices, _transfers]
CHECKS = [
    *checks_of("trust", [_gradient_check], ("complex_step", "centered", "directional"), _COMPLEX),
    *checks_of("trust", _REFUSALS),
]
