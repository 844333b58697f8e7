"""The Backend protocol: its signatures, what its methods promise, and data on the way and back."""

import inspect
import pkgutil
from typing import Any

import numpy as np

from backprop_xp.backends import Backend, Memory, Probe, array_namespace, asarray, device_of, owner
from backprop_xp.testing.kit import NotApplicable, Place, checks_of, expect

_ONES = np.ones(2, np.float32)
_TABLE = np.arange(12, dtype=np.float32).reshape(3, 4)
_VALUES = np.linspace(0.0, 101.3, 6).reshape(2, 3)
_HOSTS = {
    **{name: _VALUES.astype(name) for name in ("bool", "int32", "uint8", "float32", "float64")},
    **{name: (_VALUES - 0.3j).astype(name) for name in ("complex64", "complex128")},
    "no axes": np.array(2.5, np.float32),
    "no entries": _TABLE[:0],
    "strided": _TABLE[1:, ::2],
    "reversed": _TABLE[0, ::-1],
    "transposed": _TABLE.T,
    "broadcast, read-only": np.broadcast_to(np.float32(1.5), (2, 3)),
}


def _methods(place: Place) -> None:
    """Have the protocol's methods, with their parameters."""
    for name, function in vars(Backend).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        method: Any = getattr(place.backend, name, None)
        expect(callable(method), f"the method {name} is missing")
        theirs, (_, *ours) = (inspect.signature(f).parameters.values() for f in (method, function))
        shown = f"{name}({', '.join(map(str, theirs))})"
        fits = [p.name for p in theirs][: len(ours)] == [p.name for p in ours]
        expect(fits, f"{shown} should begin with the parameters ({', '.join(map(str, ours))})")
        needed, taken = ([p.name for p in ps if p.default is p.empty] for ps in (ours, theirs))
        expect(taken == needed, f"{shown} should need nothing but {needed}, not {taken}")


def _replacements(place: Place) -> None:
    """Have replacements that take what their references take."""
    for name, function in place.backend.replacements.items():
        expect(name.startswith("backprop_xp."), f"{name} is no function of backprop_xp")
        theirs, ours = inspect.signature(function), inspect.signature(pkgutil.resolve_name(name))
        same = list(theirs.parameters) == list(ours.parameters)
        expect(same, f"the replacement of {name} takes {theirs}, not {ours}")


def _answers(place: Place) -> None:
    """Tell of itself what is asked, and no complaint."""
    backend, probe, details = place.backend, place.backend.probe(), place.backend.details()
    expect(isinstance(backend.name, str) and backend.name.strip(), f"its name is {backend.name!r}")
    sound = isinstance(probe, Probe) and probe.usable is True and probe.version
    expect(sound and not (probe.reason or probe.hint), f"it runs here, but says {probe}")
    words = [isinstance(word, str) for item in details.items() for word in item]
    expect(all(words), f"details() is {details!r}, no dict of strings")
    memory = backend.memory(place.device)
    possible = memory is None or (isinstance(memory, Memory) and 0 <= memory.used <= memory.total)
    expect(possible, f"memory() is {memory!r}: more bytes in use than there are, or no Memory")
    result: Any = backend.synchronize(place.device)  # type: ignore[func-returns-value]
    expect(result is None, f"synchronize() returns {result!r}")


def _devices(place: Place) -> None:
    """Find each device by object and name, the first by default, and keep its default dtype."""
    backend, devices, xp = place.backend, place.backend.devices(), place.backend.namespace()
    names = [backend.device_name(device) for device in devices]
    expect(len(set(names)) == len(names) > 0, f"no device, or two of one name: {names}")
    for device, name in zip(devices, names, strict=True):
        for given in (device, name):
            found = backend.device(given)
            expect(found == device, f"device({given!r}) is {found!r}, not {device!r}")
        dtype = backend.default_dtype(device)
        expect(xp.isdtype(dtype, "real floating"), f"the default dtype {dtype} is not real")
        made = backend.from_host(np.ones(2), dtype, device).dtype
        expect(made == dtype, f"an array of {name}'s default dtype {dtype} comes out as {made}")
    where = device_of(backend.from_host(_ONES))
    expect(where == devices[0], f"an array goes to {where} by default, not to {devices[0]}")


def _arrays(place: Place) -> None:
    """Own its arrays and nothing else, and give their namespace, one and the same."""
    (array,), xp = place.put(_ONES), place.backend.namespace()
    expect(place.backend.owns(array) is True, "owns(array) is not True for an array of its own")
    others: list[Any] = [[1.0], 1.0, None, "numpy", object(), xp]
    others += [] if isinstance(array, np.ndarray) else [_ONES, np.float64(1.0)]
    for other in others:
        expect(place.backend.owns(other) is False, f"owns is not False for a {type(other)}")
    expect(xp is place.backend.namespace(), "namespace() returns another object at each call")
    theirs = array_namespace(array)
    expect(theirs is xp, f"the namespace of its arrays is {theirs!r}, but namespace() is {xp!r}")


def _owner(place: Place) -> None:
    """Be found by its arrays, as networks find it."""
    found = owner(*place.put(_ONES))
    whose = "nobody's" if found is None else f"the backend {found.name}'s"
    way = "a backend is found by the entry-point group backprop_xp.backends"
    expect(found is place.backend, f"its arrays are taken for {whose}: {way}")


def _compile(place: Place) -> None:
    """Compute the same when compiled, and reuse no memory but what is donated."""

    def compute(state: tuple[Any, Any], x: Any) -> tuple[Any, Any]:
        return state[0] + x, state[1] * x

    for donate in ([], [0]):
        compiled = place.backend.compile(compute, donate=donate)
        for count in (5, 5, 3):
            a, b = np.linspace(-1, 1, count, dtype=np.float32), np.ones(count, np.float32)
            state, (x,) = place.put(a, b), place.put(a)
            found = compiled(tuple(state), x)
            place.require_same(found, compute((a, b), a), "the compiled function's result")
            kept, whole = ([x], [a]) if donate else ([*state, x], [a, b, a])
            place.require_same(kept, whole, "what was given and not donated")


def _loop(place: Place) -> None:
    """Take the same steps in a compiled loop."""
    loop = place.backend.loop(lambda carry, given, factor: (carry + given, factor * carry))
    if loop is None:
        raise NotApplicable("no loop() here: steps are taken one by one")
    columns = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    carries = columns[1] + np.cumsum(columns, axis=0)
    expected = carries[-1], columns[2] * (carries - columns)
    there, shared = place.put(columns, columns[2])
    (carry,), total = place.put(columns[1]), 0.0
    for first, last in ((0, 3), (3, 4)):
        carry, outputs = loop(carry, there, first, last, shared)
        total = total + outputs
    place.require_same((carry, total), expected, "the loop's (carry, outputs) of two calls")


def _round_trip(name: str, place: Place) -> None:
    """Keep what from_host is given, in whatever dtype and layout, until to_host; cast as NumPy."""
    host, before = _HOSTS[name], _HOSTS[name].copy()
    wanted = place.dtype(host.dtype.name)
    (there,) = place.put(host)
    back = place.backend.to_host(there)
    expect(isinstance(back, np.ndarray), f"to_host returns a {type(back)}")
    expect(back.dtype == host.dtype, f"{host.dtype} comes back as {back.dtype}")
    expect(np.array_equal(host, before), "the host's own array was changed")
    place.require_same(there, host, "the array of from_host")
    expect(np.array_equal(back, host), "values were rounded on the way")
    for other in (np.arange(3), np.linspace(0, 2, 5), np.array([True, False])):
        there = place.backend.from_host(other, wanted, place.device)
        place.require_same(there, other.astype(host.dtype), f"{other.dtype} as {host.dtype}")


def _asarray(place: Place) -> None:
    """Serve bx.asarray: from a list, to another device, to NumPy."""
    source = _TABLE.tolist()
    for there in (place, *place.others()):
        made = asarray(source, backend=there.backend, device=there.device, dtype="float32")
        there.require_same(made, _TABLE, "what bx.asarray made or moved")
        source = made
    back = asarray(source, backend="numpy", device="cpu", dtype="float32")
    expect(np.array_equal(back, _TABLE), f"bx.asarray(x, backend='numpy') is {back!r}")


_PROMISES = [_methods, _replacements, _answers, _devices, _arrays, _owner, _compile, _loop]
CHECKS = [
    *checks_of("protocol", _PROMISES),
    *checks_of("moving data", [_round_trip], _HOSTS),
    *checks_of("moving data", [_asarray]),
]
