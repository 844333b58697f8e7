"""The checks of the Backend protocol: signatures, the promises of methods, and moves of data."""

import inspect
import pkgutil
from typing import Any

import numpy as np

from backprop_xp.backends import (
    Backend,
    Memory,
    Probe,
    array_namespace,
    asarray,
    blank,
    owner,
)
from backprop_xp.testing.kit import Case, NotApplicable, checks_of, expect

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


def _methods(case: Case) -> None:
    """Check that the backend has the protocol's methods, with their parameters."""
    for name, function in vars(Backend).items():
        if name.startswith("_") or not inspect.isfunction(function):
            continue
        method: Any = getattr(case.backend, name, None)
        expect(callable(method), f"the method {name} is missing")
        theirs, (_, *ours) = (inspect.signature(f).parameters.values() for f in (method, function))
        call = f"{name}({', '.join(map(str, theirs))})"
        fits = [p.name for p in theirs][: len(ours)] == [p.name for p in ours]
        expect(fits, f"{call} should begin with the parameters ({', '.join(map(str, ours))})")
        needed, required = ([p.name for p in ps if p.default is p.empty] for ps in (ours, theirs))
        expect(required == needed, f"{call} should require only {needed}, not {required}")


def _replacements(case: Case) -> None:
    """Check that replacements have the parameters of what they replace."""
    for name, function in case.backend.replacements.items():
        expect(name.startswith("backprop_xp."), f"{name} is not a function of backprop_xp")
        theirs, ours = inspect.signature(function), inspect.signature(pkgutil.resolve_name(name))
        same = list(theirs.parameters) == list(ours.parameters)
        expect(same, f"the replacement of {name} takes {theirs}, not {ours}")


def _answers(case: Case) -> None:
    """Check the name, the probe, the details and the memory of the backend."""
    backend, probe, details = case.backend, case.backend.probe(), case.backend.details()
    expect(isinstance(backend.name, str) and backend.name.strip(), f"its name is {backend.name!r}")
    sound = isinstance(probe, Probe) and probe.usable is True and probe.version
    expect(sound and not (probe.reason or probe.hint), f"it runs here, but probe() is {probe}")
    words = [isinstance(word, str) for item in details.items() for word in item]
    expect(all(words), f"details() is {details!r}, not a dict of strings")
    memory = backend.memory(case.device)
    possible = memory is None or (isinstance(memory, Memory) and 0 <= memory.used <= memory.total)
    expect(possible, f"memory() is {memory!r}: more bytes in use than there are, or no Memory")
    direct = backend.mpi_buffers()
    expect(isinstance(direct, bool), f"mpi_buffers() is {direct!r}, not a boolean")
    result: Any = backend.synchronize(case.device)  # type: ignore[func-returns-value]
    expect(result is None, f"synchronize() returns {result!r}")


def _devices(case: Case) -> None:
    """Check that each device is found by object and name, and keeps its default dtype."""
    backend, devices, xp = case.backend, case.backend.devices(), case.backend.namespace()
    names = [backend.device_name(device) for device in devices]
    expect(len(set(names)) == len(names) > 0, f"no device, or two of one name: {names}")
    kinds = {name.partition(":")[0] for name in names} - {*backend.device_kinds}
    known = not (backend.device_kinds and kinds)
    expect(known, f"device_kinds is {backend.device_kinds}, without {sorted(kinds)}")
    strange = [device for device in backend.accelerators() if device not in devices]
    expect(not strange, f"accelerators() has {strange}, which devices() lacks")
    for device, name in zip(devices, names, strict=True):
        for key in (device, name):
            found = backend.device(key)
            expect(found == device, f"device({key!r}) is {found!r}, not {device!r}")
        dtype = backend.default_dtype(device)
        expect(xp.isdtype(dtype, "real floating"), f"the default dtype {dtype} is not real")
        made = backend.from_host(np.ones(2), dtype, device).dtype
        expect(made == dtype, f"an array of {name}'s default dtype {dtype} comes out as {made}")
    first = backend.device_of(backend.from_host(_ONES))
    expect(first == devices[0], f"an array goes to {first} by default, not to {devices[0]}")


def _arrays(case: Case) -> None:
    """Check that the backend owns its arrays alone, and always returns their namespace."""
    (array,), xp = case.put(_ONES), case.backend.namespace()
    expect(case.backend.owns(array) is True, "owns(array) is not True for an array of its own")
    others: list[object] = [[1.0], 1.0, None, "numpy", object(), xp]
    others += [] if isinstance(array, np.ndarray) else [_ONES, np.float64(1.0)]
    for other in others:
        expect(case.backend.owns(other) is False, f"owns is not False for a {type(other)}")
    expect(xp is case.backend.namespace(), "namespace() returns another object at each call")
    theirs = array_namespace(array)
    expect(theirs is xp, f"the namespace of its arrays is {theirs!r}, but namespace() is {xp!r}")


def _owner(case: Case) -> None:
    """Check that the arrays lead to the backend, as in networks."""
    found = owner(*case.put(_ONES))
    name = "no backend" if found is None else f"the backend {found.name}"
    way = "a backend is found by the entry-point group backprop_xp.backends"
    expect(found is case.backend, f"its arrays lead to {name}: {way}")


def _slices_are_views(case: Case) -> None:
    """Check that slices share their array's memory, if the backend says so."""
    (array,) = case.put(_TABLE.copy())  # whose memory the array may share
    if not case.backend.slices_are_views:
        writes = blank(array) is not None
        expect(not writes, "blank() makes arrays whose slices are written: slices_are_views")
        raise NotApplicable("slices_are_views is False: theta is sliced at each step")
    whole, part = array, case.backend.namespace().reshape(array[..., 1:3], (3, 2, 1))
    array -= 1.0
    expect(array is whole, "arithmetic in place makes a new array, but slices_are_views is True")
    expect(case.has_views(), "slices are copies, but slices_are_views is True")
    case.require_same(part, (_TABLE - 1.0)[:, 1:3, None], "a slice of an array that was changed")
    part *= 2.0
    expected = _TABLE - 1.0
    expected[:, 1:3] *= 2.0
    case.require_same(array, expected, "an array of which a slice was changed")


def _compile(case: Case) -> None:
    """Check that a compiled function computes the same, and reuses only donated memory."""

    def compute(state: Any, x: Any) -> tuple[Any, Any]:
        return state[0] + x, state[1] * x

    for donate in ([], [0]):
        compiled = case.backend.compile(compute, donate=donate)
        for count in (5, 5, 3):
            a, b = np.linspace(-1, 1, count, dtype=np.float32), np.ones(count, np.float32)
            state, (x,) = case.put(a, b), case.put(a)
            found = compiled(tuple(state), x)
            case.require_same(found, compute((a, b), a), "the compiled function's result")
            kept, expected = ([x], [a]) if donate else ([*state, x], [a, b, a])
            case.require_same(kept, expected, "an argument that was not donated")


def _loop(case: Case) -> None:
    """Check that a compiled loop takes the same steps; None stays where nothing is."""

    def step(carry: Any, given: Any, factor: Any) -> tuple[Any, Any]:
        return (carry[0] + given[0], carry[1]), (factor * carry[0], given[1])

    loop = case.backend.loop(step)
    if loop is None:
        raise NotApplicable("no loop() here: steps are taken one by one")
    columns = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
    carries = columns[1] + np.cumsum(columns, axis=0)
    expected = carries[-1], columns[2] * (carries - columns)
    there, shared = case.put(columns, columns[2])
    (carry,), total = case.put(columns[1]), 0.0
    for first, last in ((0, 3), (3, 4)):
        found, outputs = loop((carry, None), (there, None), first, last, shared)
        nothing = [found[1], outputs[1]]
        expect(nothing == [None, None], f"None comes out of the loop as {nothing}")
        carry, total = found[0], total + outputs[0]
    case.require_same((carry, total), expected, "the loop's (carry, outputs) of two calls")


def _scatter_add(case: Case) -> None:
    """Check that scatter_add adds each row at its index, also where indices repeat."""
    rows, expected = np.array([2, 0, 2, 2], np.int32), np.ones((4, 3), np.float32)
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    total = case.backend.scatter_add(*case.put(expected.copy(), rows, values))
    if total is None:
        raise NotApplicable("no scatter_add() here: rows are added by a product")
    np.add.at(expected, rows, values)
    case.require_same(total, expected, "the sum of scatter_add")


def _after_step(case: Case) -> None:
    """Check that after_step takes the state of a training, and changes no array of it."""
    theta, moments = case.put(_ONES, _ONES)
    state = ((theta, (moments, 3, {"m": moments}), None), moments, [{"loss": moments}])
    result: Any = case.backend.after_step(state)  # type: ignore[func-returns-value]
    expect(result is None, f"after_step() returns {result!r}")
    case.require_same([theta, moments], [_ONES, _ONES], "an array of the state")


def _round_trip(name: str, case: Case) -> None:
    """Check that from_host and to_host keep values of any dtype and layout, and cast as NumPy."""
    host, before = _HOSTS[name], _HOSTS[name].copy()
    wanted = case.dtype(host.dtype.name)
    (there,) = case.put(host)
    back = case.backend.to_host(there)
    expect(isinstance(back, np.ndarray), f"to_host returns a {type(back)}")
    expect(back.dtype == host.dtype, f"{host.dtype} comes back as {back.dtype}")
    expect(np.array_equal(host, before), "the host's own array was changed")
    case.require_same(there, host, "the array of from_host")
    expect(np.array_equal(back, host), "values were rounded on the way")
    for other in (np.arange(3), np.linspace(0, 2, 5), np.array([True, False])):
        there = case.backend.from_host(other, wanted, case.device)
        case.require_same(there, other.astype(host.dtype), f"{other.dtype} as {host.dtype}")


def _asarray(case: Case) -> None:
    """Check bx.asarray: from a list, to another device, to NumPy."""
    source = _TABLE.tolist()
    for there in (case, *case.others()):
        made = asarray(source, backend=there.backend, device=there.device, dtype="float32")
        there.require_same(made, _TABLE, "the array of bx.asarray")
        source = made
    back = asarray(source, backend="numpy", device="cpu", dtype="float32")
    expect(np.array_equal(back, _TABLE), f"bx.asarray(x, backend='numpy') is {back!r}")


_PROMISES = [
    *(_methods, _replacements, _answers, _devices, _arrays, _owner, _slices_are_views, _compile),
    *(_loop, _scatter_add, _after_step),
]
CHECKS = [
    *checks_of("protocol", _PROMISES),
    *checks_of("moving data", [_round_trip], _HOSTS),
    *checks_of("moving data", [_asarray]),
]
