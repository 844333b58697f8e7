"""The Backend protocol: names, signatures, devices, and what each method promises."""

import inspect
import pkgutil
from typing import Any

import numpy as np

from backprop_xp.backends import (
    Backend,
    Device,
    DTypeNotKeptError,
    Memory,
    Probe,
    TransferError,
    array_namespace,
    device_of,
    in_words,
    owner,
    transfer_guard,
)
from backprop_xp.backends.doors import watch
from backprop_xp.testing.comparing import FLOATING, put, require_computed, require_same
from backprop_xp.testing.kit import Check, NotApplicable, expect

_UNKNOWN_DEVICES = ("nonesuch", "cuda:99", "cpu:99", "", 1.5)


def _name(backend: Backend, device: Device) -> None:
    name = backend.name
    expect(isinstance(name, str) and name.strip() == name != "", f"name is {name!r}, no name")


def _methods(backend: Backend, device: Device) -> None:
    wanted = {key: f for key, f in vars(Backend).items() if inspect.isfunction(f)}
    for name, function in wanted.items():
        if name.startswith("_"):
            continue
        method = getattr(backend, name, None)
        expect(callable(method), f"the method {name} is missing")
        theirs = list(inspect.signature(method).parameters.values())  # type: ignore[arg-type]
        ours = list(inspect.signature(function).parameters.values())[1:]
        shown = f"{name}({', '.join(str(p.name) for p in theirs)})"
        fits = [p.name for p in theirs[: len(ours)]] == [p.name for p in ours]
        expect(fits, f"{shown} should take ({', '.join(p.name for p in ours)})")
        for mine, protocols in zip(theirs, ours, strict=False):
            optional = protocols.default is not inspect.Parameter.empty
            has_default = mine.default is not inspect.Parameter.empty
            expect(has_default or not optional, f"{shown} needs a default for {mine.name}")
        for extra in theirs[len(ours) :]:
            variadic = extra.kind in (extra.VAR_POSITIONAL, extra.VAR_KEYWORD)
            has_default = extra.default is not inspect.Parameter.empty
            expect(variadic or has_default, f"{shown} needs a default for its own {extra.name}")


def _replacements(backend: Backend, device: Device) -> None:
    table = getattr(backend, "replacements", None)
    expect(isinstance(table, dict), f"replacements is {table!r}, no dict")
    for name, function in (table or {}).items():
        expect(callable(function), f"the replacement of {name} cannot be called")
        module, _, rest = name.partition(".")
        expect(module == "backprop_xp", f"{name} is no function of backprop_xp")
        reference = pkgutil.resolve_name(name)
        given = list(inspect.signature(function).parameters)
        expected = list(inspect.signature(reference).parameters)
        expect(given == expected, f"the replacement of {rest} takes {given}, not {expected}")


def _probe(backend: Backend, device: Device) -> None:
    probe = backend.probe()
    expect(isinstance(probe, Probe), f"probe() returns a {type(probe).__name__}, no Probe")
    expect(probe.usable is True, f"probe() says that it cannot run: {probe.reason}")
    expect(isinstance(probe.version, str) and probe.version, f"the version is {probe.version!r}")
    complaint = f"{probe.reason} {probe.hint}".strip()
    expect(not complaint, f"probe() says that it can run, but complains: {complaint}")


def _namespace(backend: Backend, device: Device) -> None:
    xp = backend.namespace()
    expect(xp is backend.namespace(), "namespace() returns another object at each call")
    (array,) = put(backend, device, np.ones((2, 2), np.float32))
    expect(
        array_namespace(array) is xp,
        f"the namespace of its arrays is {array_namespace(array)!r}, but namespace() is {xp!r}",
    )


def _devices(backend: Backend, device: Device) -> None:
    devices = backend.devices()
    expect(devices and isinstance(devices, list), f"devices() is {devices!r}, no list of devices")
    names = [backend.device_name(one) for one in devices]
    expect(all(isinstance(name, str) for name in names), f"the devices' names are {names}")
    expect(len(set(names)) == len(names), f"two devices have one name: {names}")
    for one, name in zip(devices, names, strict=True):
        for given in (one, name):
            found = backend.device(given)
            expect(found == one, f"device({given!r}) is {found!r}, not {one!r}")


def _first_device(backend: Backend, device: Device) -> None:
    where, first = device_of(backend.from_host(np.ones(2, np.float32))), backend.devices()[0]
    expect(where == first, f"an array goes to {where} by default, but devices()[0] is {first}")


def _unknown_devices(backend: Backend, device: Device) -> None:
    names = [backend.device_name(one) for one in backend.devices()]
    for given in _UNKNOWN_DEVICES:
        if given in names:
            continue
        try:
            found = backend.device(given)
        except ValueError as error:
            missing = [name for name in names if name not in str(error)]
            expect(
                not missing, f"the error of device({given!r}) does not tell of {missing}: {error}"
            )
        else:
            expect(False, f"device({given!r}) is {found!r}: a ValueError is expected")


def _default_dtype(backend: Backend, device: Device) -> None:
    xp = backend.namespace()
    for one in backend.devices():
        dtype, name = backend.default_dtype(one), backend.device_name(one)
        real = xp.isdtype(dtype, "real floating")
        expect(real, f"the default dtype of {name} is {dtype}, which is not real floating")
        made = backend.from_host(np.ones(2), dtype, one).dtype
        expect(made == dtype, f"an array of {name}'s default dtype {dtype} comes out as {made}")


def _require_dtype(backend: Backend, device: Device) -> None:
    xp = backend.namespace()
    for name in ("bool", "int32", *FLOATING):
        dtype = getattr(xp, name, None)
        if dtype is None:
            continue
        try:
            backend.require_dtype(dtype, device)
        except DTypeNotKeptError:
            continue
        try:
            found = backend.from_host(np.zeros(2, name), dtype, device).dtype
        except Exception as error:
            found = in_words(error)
        expect(found == dtype, f"require_dtype() lets {name} pass, but from_host gives {found}")


def _owns(backend: Backend, device: Device) -> None:
    (array,) = put(backend, device, np.ones(2, np.float32))
    expect(backend.owns(array) is True, "owns(array) is not True for an array of its own")
    others: list[Any] = [[1.0], 1.0, None, "numpy", object(), backend.namespace()]
    if not isinstance(array, np.ndarray):
        others += [np.ones(2), np.float64(1.0)]
    for other in others:
        shown = f"{type(other).__module__}.{type(other).__qualname__}"
        expect(backend.owns(other) is False, f"owns is {backend.owns(other)} for a {shown}")


def _owner(backend: Backend, device: Device) -> None:
    (array,) = put(backend, device, np.ones(2, np.float32))
    found = owner(array)
    if found is backend:
        return
    kind = f"{type(array).__module__}.{type(array).__qualname__}"
    taken = "nobody's" if found is None else f"the backend {found.name}'s"
    way = "a backend is found by the entry-point group backprop_xp.backends"
    expect(False, f"an array of the type {kind} is taken for {taken}: {way}")


def _synchronize(backend: Backend, device: Device) -> None:
    (array,) = put(backend, device, np.ones(2, np.float32))
    array = array + array
    for where in (None, device):
        result: Any = backend.synchronize(where)  # type: ignore[func-returns-value]
        expect(result is None, f"synchronize({where!r}) returns {result!r}")


def _compile(backend: Backend, device: Device) -> None:
    def compute(x: Any, y: Any) -> tuple[Any, Any]:
        return x + y, x * y

    compiled = backend.compile(compute)
    for count in (5, 5, 3):
        hosts = np.linspace(-1, 1, count, dtype=np.float32), np.ones(count, np.float32) / 4
        found = compiled(*put(backend, device, *hosts))
        require_same(backend, device, found, compute(*hosts), "the compiled function's result")


def _donate(backend: Backend, device: Device) -> None:
    def compute(state: tuple[Any, Any], x: Any) -> tuple[Any, Any]:
        return state[0] + x, state[1] * x

    hosts: list[np.ndarray] = [np.linspace(-1, 1, 5, dtype=np.float32), np.ones(5, np.float32)]
    compiled = backend.compile(compute, donate=(0,))
    (x,) = put(backend, device, hosts[0])
    for _ in range(2):  # what was donated is not needed again; what was not is whole
        found = compiled(put(backend, device, *hosts), x)
        expected = compute((hosts[0], hosts[1]), hosts[0])
        require_same(backend, device, found, expected, "the compiled function's result")


def _loop(backend: Backend, device: Device) -> None:
    def step(carry: Any, given: Any, factor: Any) -> tuple[Any, Any]:
        return carry + factor * given, carry * given

    loop = backend.loop(step)
    if loop is None:
        raise NotApplicable("no loop() here: steps are taken one by one")
    start, columns, factor = (
        np.ones(3, np.float32),
        np.arange(12, dtype=np.float32).reshape(4, 3),
        np.full(3, 0.5, np.float32),
    )
    carry, outputs = start, []
    for given in columns:
        carry, output = step(carry, given, factor)
        outputs.append(output)
    found = loop(*put(backend, device, start, columns, factor))
    require_same(backend, device, found, (carry, np.stack(outputs)), "the loop's (carry, outputs)")


def _full_precision(backend: Backend, device: Device) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 32, 32)).astype(np.float32)
    with backend.full_precision():
        require_computed(backend, device, lambda x, y: x @ y, a, b)


def _doors(backend: Backend, device: Device) -> None:
    (array,) = put(backend, device, np.ones(2, np.float32))
    if not backend.doors():
        raise NotApplicable("no doors() here: the transfer guard does not watch the library")
    with transfer_guard("disallow"):
        watch(backend)
        backend.to_host(array)
        try:
            float(array[0])
        except TransferError:
            return
    expect(False, 'float(x[0]) is not refused inside transfer_guard("disallow")')


def _details(backend: Backend, device: Device) -> None:
    details: Any = backend.details()
    right = isinstance(details, dict) and all(
        isinstance(word, str) for item in details.items() for word in item
    )
    expect(right, f"details() is {details!r}, no dict of strings")


def _memory(backend: Backend, device: Device) -> None:
    memory = backend.memory(device)
    if memory is None:
        raise NotApplicable("the library cannot tell")
    expect(isinstance(memory, Memory), f"memory() is a {type(memory).__name__}, no Memory")
    used, total = memory
    expect(0 <= used <= total, f"{used} bytes are in use of {total}")


CHECKS = [
    Check("protocol", name, sentence, function)
    for name, sentence, function in (
        ("name", "it has a name", _name),
        ("methods", "it has the protocol's methods, with their parameters", _methods),
        ("replacements", "each replacement takes what its reference takes", _replacements),
        ("probe", "probe() says that it can run, with a version and no complaint", _probe),
        ("namespace", "namespace() is that of its arrays", _namespace),
        ("devices", "each device is found by its object and by its name", _devices),
        ("first device", "arrays go to the first device by default", _first_device),
        ("unknown devices", "an unknown device is an error that lists the known", _unknown_devices),
        ("default dtype", "the default dtype of each device is real floating", _default_dtype),
        ("require_dtype", "a dtype is kept on the device, or refused", _require_dtype),
        ("owns", "it owns its own arrays, and nothing else", _owns),
        ("owner", "backprop_xp finds it by its arrays", _owner),
        ("synchronize", "synchronize() waits and returns nothing", _synchronize),
        ("compile", "a compiled function computes the same", _compile),
        ("donate", "a compiled function may reuse what it is told to, and that alone", _donate),
        ("loop", "a compiled loop takes the same steps", _loop),
        ("memory", "memory in use is within the memory there is", _memory),
        ("full precision", "products inside full_precision() keep their digits", _full_precision),
        ("doors", "the transfer guard refuses float(x), and lets to_host pass", _doors),
        ("details", "details() are words", _details),
    )
]
