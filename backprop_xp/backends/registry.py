"""Which backends there are, and which one a call uses, with its device and its dtype.

A backend is a line ``name = "module:object"``: of the built-in table, or an entry point of another
distribution. Nothing is imported before its name is asked for.

At each call, one order of precedence: an argument of the call, then the arrays given, then
``use_backend``, then ``set_default_backend``, then the environment, then NumPy. The backend comes
from the first of these that names one, the device from the first that names one for that backend,
the dtype from the first that names one.

From a name in the environment to its backend it is: ``_rules`` reads it, ``_backend`` takes the
first name, ``usable`` tries what ``find`` loads. ``backend.namespace()`` imports the library.
"""

import contextlib
import functools
import importlib
import operator
import os
import sys
from typing import Any, NamedTuple

from backprop_xp.backends.blocks import Blocks, standing
from backprop_xp.backends.doors import watch
from backprop_xp.backends.libraries import (
    dtype_name,
    in_words,
    is_computed_in,
    is_installed,
    log,
    naming,
    precision_of,
)
from backprop_xp.backends.protocol import (
    Backend,
    BackendUnavailableError,
    Device,
    DType,
    DTypeNotKeptError,
    Namespace,
    Probe,
)
from backprop_xp.checks import nearest

GROUP = "backprop_xp.backends"

# Names rather than imports, so that no library is imported before it is asked for; a table rather
# than metadata, so that they work from a checkout that nobody installed.
BUILT_IN = {
    "numpy": "backprop_xp.backends.numpy:backend",
    "cupy": "backprop_xp.backends.cupy:backend",
    "array-api-strict": "backprop_xp.backends.array_api_strict:backend",
    "jax": "backprop_xp.backends.jax:backend",
    "torch": "backprop_xp.backends.torch:backend",
}
_DTYPES = ["float32", "float64", "complex64", "complex128", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]
# Which built-in backends may have a device, by the letters that its name begins with.
_HOMES = {"cuda": ("cupy", "jax", "torch"), "tpu": ("jax",), "device": ("array-api-strict",)}

ARGUMENT = "the argument of the call"
_ENVIRONMENT = "the environment variable BACKPROP_XP_"

_loaded: dict[str, Backend] = {}  # plug-ins
_usable: dict[str, Backend] = {}  # those whose probe found nothing wrong
_owners: dict[type, Backend | None] = {}


class Selection(NamedTuple):
    """Where a computation runs, and what said so."""

    backend: Backend
    device: Device
    dtype: DType
    source: str


class BackendStatus(NamedTuple):
    """One row of ``list_backends``."""

    name: str
    usable: bool
    reason: str
    hint: str


class Rule(NamedTuple):
    """One source of choices; None where it leaves a choice to the next.

    ``beside`` is the backend whose device is meant where a rule names a device and no backend.
    """

    source: str
    backend: str | Backend | None = None
    device: Any = None
    dtype: Any = None
    beside: Backend | None = None

    def of(self, choice: str) -> str:
        """Return what to call the source of its ``"backend"``, ``"device"`` or ``"dtype"``."""
        return self.source + choice.upper() * (self.source == _ENVIRONMENT)


_NO_DEFAULT = Rule("set_default_backend")
_default = _NO_DEFAULT


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend called ``name``, or the one that ``resolve()`` chooses now.

    Devices and dtypes do not count here: one that cannot be had is an error where it is needed.
    """
    return _backend(_rules(None if name is None else Rule(ARGUMENT, name)))[0]


def choose(argument: Rule | None = None) -> Selection:
    """Return what a call without arrays uses, whose arguments may say some of it."""
    rules = _rules(argument)
    return _choose(rules) if rules else _nothing_chosen()


class use_backend(contextlib.ContextDecorator):  # noqa: N801 - it reads as a function
    """Choose where calls without arrays run, inside a ``with``; per thread and per task.

    What is not named stays as it is chosen outside: ``use_backend(dtype="float32")`` keeps the
    backend. The ``with`` of a generator holds while the generator runs, not for who iterates over
    it; the generator of a context manager, or of a pytest fixture, hands it on to the block.

    >>> import backprop_xp as bx
    >>> with bx.use_backend("numpy", dtype="float32"):
    ...     print(bx.asarray([0.5]).dtype)
    float32
    """

    def __init__(
        self, name: str | Backend | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        shown = {"device": device, "dtype": dtype}
        given = ", ".join(f"{what}={v!r}" for what, v in shown.items() if v is not None)
        if name is not None:
            given = repr(_name(name, "use_backend"))
        self._rule = Rule(f"use_backend({given})", name, device, dtype)
        self._blocks = Blocks()

    def __enter__(self) -> Selection:
        rule = self._rule
        if rule.backend is rule.device is rule.dtype is None:
            raise TypeError(
                "use_backend needs a name or a Backend, such as use_backend('numpy'), or a device "
                "or a dtype."
            )
        if rule.backend is None:
            rule = rule._replace(beside=get_backend())
        self._blocks.enter(rule)
        try:
            return choose()  # a name that cannot be had is an error here, not at some later call
        except BaseException:
            self._blocks.leave()
            raise

    def __exit__(self, *error: object) -> None:
        self._blocks.leave()


def set_default_backend(name: str | Backend | None, device: Any = None, dtype: Any = None) -> None:
    """Choose, for the whole process, where calls run that neither say nor are in a ``with``.

    ``None`` takes the choice back.
    """
    global _default
    if name is None:
        rule = _NO_DEFAULT._replace(device=device, dtype=dtype)
        _default = _NO_DEFAULT if rule == _NO_DEFAULT else rule
        return
    rule = Rule(f"set_default_backend({_name(name, 'set_default_backend')!r})", name, device, dtype)
    _choose([rule])
    _default = rule


def list_backends() -> list[BackendStatus]:
    """Return each known backend with whether it can run here, and if not, why and what helps.

    Plug-ins come after the built-in ones. One whose library is not imported yet is tried in a
    process of its own, so that listing it imports nothing into this one, and takes no GPU's memory;
    no answer in a minute counts as unusable.
    """
    from backprop_xp.backends.probing import probe_apart  # 6 ms, for who lists them

    apart = probe_apart([name for name in names() if not _is_here(name)])
    probes = [apart[name].probe if name in apart else probe(name) for name in names()]
    return [
        BackendStatus(name, found.usable, found.reason, found.hint)
        for name, found in zip(names(), probes, strict=True)
    ]


# From rules to a choice


def _rules(argument: Rule | None) -> list[Rule]:
    """Return the rules for a call without arrays that say anything, the strongest first."""
    rules: list[Rule] = standing()
    if argument is not None:
        rules.insert(0, argument)
    if _default is not _NO_DEFAULT:
        rules.append(_default)
    get = os.environ.get
    said = get("BACKPROP_XP_BACKEND"), get("BACKPROP_XP_DEVICE"), get("BACKPROP_XP_DTYPE")
    if any(said):
        backend, device, dtype = ((value or "").strip() or None for value in said)
        rules.append(Rule(_ENVIRONMENT, backend, device, dtype))
    return rules


@functools.cache
def _nothing_chosen() -> Selection:
    return _choose([])


def _choose(rules: list[Rule]) -> Selection:
    backend, source = _backend(rules)
    placed = [rule for rule in rules if rule.device is not None and _is_for(rule, backend)]
    where = device_for(backend, placed[0], source) if placed else backend.devices()[0]
    for rule in rules:
        # The name of a dtype is any backend's, an object its own's.
        if rule.dtype is not None and (isinstance(rule.dtype, str) or _is_for(rule, backend)):
            return Selection(backend, where, dtype_for(backend, rule, where), source)
    return Selection(backend, where, backend.default_dtype(where), source)


def _backend(rules: list[Rule]) -> tuple[Backend, str]:
    """Return the backend that the first rule with one names, and that rule's source."""
    for rule in rules:
        if rule.backend is not None:
            return usable(rule.backend, rule.of("backend")), rule.of("backend")
    return built_in("numpy"), "the default"


def usable(name: str | Backend, source: str) -> Backend:
    """Return the backend of that name, or raise what says why it cannot be had."""
    if not isinstance(name, str):
        _name(name, source)
        watch(name)
        return name
    backend = _usable.get(name)
    if backend is None:
        if name != "auto" and name not in BUILT_IN and name not in offers():
            known = ["auto", *names()]
            raise ValueError(f"backend {name!r}, from {source}, is unknown. {nearest(name, known)}")
        found, cause = _tried(name)
        if not found.usable:
            raise BackendUnavailableError(
                f"backend {name!r}, from {source}, cannot run here: {found.reason}. "
                f"Try: {found.hint}."
            ) from cause
        backend = _usable[name] = find(name)
    watch(backend)
    return backend


def _is_for(rule: Rule, backend: Backend) -> bool:
    """Say whether the device that a rule names is meant as one of ``backend``'s."""
    named = automatic() if rule.backend == "auto" else rule.backend or rule.beside
    if named is None:
        # The environment's device, alone, is one of the backend that is had without a choice.
        return rule.source != _ENVIRONMENT or backend.name == "numpy"
    return named in (backend, backend.name)


def _name(backend: str | Backend, source: str) -> str:
    """Return the name of what should be a name or a Backend; a TypeError names the source."""
    if isinstance(backend, str):
        return backend
    if isinstance(backend, type) or not hasattr(backend, "probe"):
        raise TypeError(f"backend must be a name or a Backend, not {backend!r} (from {source}).")
    return backend.name


def device_for(backend: Backend, rule: Rule, source: str) -> Device:
    """Return the backend's device that a rule names; ``source`` is what chose the backend."""
    try:
        return backend.device(rule.device)
    except ValueError as error:
        letters = str(rule.device).partition(":")[0].rstrip("0123456789")
        homes = [repr(home) for home in _HOMES.get(letters, ()) if home != backend.name]
        either = " or ".join(filter(None, [", ".join(homes[:-1]), *homes[-1:]]))
        others = f", or a backend that may have it: {either}" if either else ""
        told = f"The device came from {rule.of('device')}, the backend from {source}"
        if rule.of("device") == source:
            told = f"Device and backend came from {source}"
        raise ValueError(f"{error} {told}. Choose another device{others}.") from None


def dtype_for(backend: Backend, rule: Rule, where: Device) -> DType:
    """Return the backend's dtype that a rule names, or raise what says why it cannot be had."""
    xp, asked, source = backend.namespace(), rule.dtype, rule.of("dtype")
    kind = getattr(xp, asked, None) if isinstance(asked, str) else asked
    is_known = _is_dtype(xp, kind)
    if is_known and precision_of(xp, kind) is not None and not is_computed_in(xp, kind):
        raise ValueError(
            f"dtype {dtype_name(kind)!r}, from {source}, is floating, but float32 or float64 is "
            "expected: nothing is computed in another precision. Ask for dtype='float32'."
        )
    if isinstance(asked, str) and asked not in _DTYPES:
        raise ValueError(f"dtype {asked!r}, from {source}, is unknown. {nearest(asked, _DTYPES)}")
    if not is_known:
        raise TypeError(
            f"dtype {asked!r}, from {source}, is none of {backend.name}'s. "
            "A name such as 'float32' works with every backend."
        )
    try:
        backend.require_dtype(kind, where)
    except DTypeNotKeptError as error:
        raise DTypeNotKeptError(
            f"dtype {dtype_name(kind)!r}, from {source}, cannot be had: {error}"
        ) from None
    if rule.source != ARGUMENT and not xp.isdtype(kind, "real floating"):
        # Only a call may ask for integers: as a standing choice they would truncate all data.
        raise ValueError(
            f"dtype {dtype_name(kind)!r}, from {source}, is not real floating: as a "
            "standing choice it would truncate all data. Choose 'float32' or 'float64' there, "
            f"or give dtype={dtype_name(kind)!r} to the calls that want it."
        )
    return kind


def _is_dtype(xp: Namespace, kind: Any) -> bool:
    try:
        return bool(xp.isdtype(kind, ("bool", "numeric")))
    except (TypeError, AttributeError):
        return False


# From a name to a backend


def names() -> list[str]:
    """Return the names of all backends: the built-in ones, then plug-ins."""
    return [*BUILT_IN, *sorted(offers().keys() - BUILT_IN.keys())]


@functools.cache
def offers() -> dict[str, list[tuple[str, str]]]:
    """Return who offers which name: distributions, each with its ``module:object``.

    Metadata of what is installed say so. They are read once, since that takes some 20 ms, and never
    for the default or for an array of a built-in backend.
    """
    import importlib.metadata  # 15 ms, for who names a backend

    found: dict[str, list[tuple[str, str]]] = {}
    for entry in importlib.metadata.entry_points(group=GROUP):
        distribution = entry.dist.name if entry.dist is not None else "an unknown distribution"
        found.setdefault(entry.name, []).append((distribution, entry.value))
    return found


@functools.cache
def built_in(name: str) -> Backend:
    """Return a backend of the built-in table, whoever else offers its name."""
    backend: Backend = _load(BUILT_IN[name])
    return backend


@functools.cache
def automatic() -> str:
    """Return the backend that ``"auto"`` means on this machine, and log it the first time."""
    answer = built_in("cupy").probe()
    if answer.usable:
        log().info("backend 'auto' is cupy: a CUDA device answers.")
        return "cupy"
    log().warning("backend 'auto' is numpy: %s.", answer.reason)
    return "numpy"


def find(name: str) -> Backend:
    """Return the backend of a known name, or raise what keeps its plug-in from being loaded."""
    if name == "auto":
        return built_in(automatic())
    if name in BUILT_IN:
        return built_in(name)
    if name not in _loaded:
        backend = _load(offers()[name][0][1])
        if isinstance(backend, type) or Backend not in type(backend).__mro__:
            raise TypeError("it is no instance of a class that derives from Backend")
        _loaded[name] = backend
        _owners.clear()  # what was nobody's may be its
    return _loaded[name]


def probe(name: str) -> Probe:
    """Try the backend of a known name; what its plug-in raises is a reason not to use it."""
    return _tried(name)[0]


def _tried(name: str) -> tuple[Probe, Exception | None]:
    """Return what trying a backend showed, and the exception that its plug-in raised, if any."""
    dispute = _dispute(name)
    if dispute is not None:
        return dispute, None
    try:
        return find(name).probe(), None
    except Exception as error:
        if name not in offers():
            raise
        distribution, target = offers()[name][0]
        reason = f"{target!r}, of the distribution {distribution!r}, raised {in_words(error)}"
        hint = f"upgrade {distribution}, or pip uninstall {distribution}"
        return Probe(False, None, reason, hint), error


def _load(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))


def _is_here(name: str) -> bool:
    """Say whether trying that backend in this process imports nothing new into it."""
    if name in BUILT_IN:
        module = name.replace("-", "_")
        return module in sys.modules or not is_installed(module)
    return name in _loaded or _dispute(name) is not None


def _dispute(name: str) -> Probe | None:
    """Say why a name that several offer is nobody's, and what ends the dispute."""
    who = sorted({distribution for distribution, _ in offers().get(name, [])})
    removals = [f"pip uninstall {distribution}" for distribution in who]
    told = " and ".join(f"the distribution {distribution!r}" for distribution in who)
    if who and (name in BUILT_IN or name == "auto"):
        reason = f"the name is built in, and offered by {told} as well"
        return Probe(False, None, reason, ", and ".join(removals))
    if len(who) > 1:
        hint = f"uninstall one of them: {', or '.join(removals)}"
        return Probe(False, None, f"it is offered by {told}", hint)
    return None


# From an array to its backend


def owner(array: Any) -> Backend | None:
    """Return the backend whose array this is, or None for anything else.

    Backends are asked once for each type. Plug-ins that nobody asked for are loaded only for a type
    that keeps the standard and is of no other backend.
    """
    try:
        home = _owners[type(array)]
    except KeyError:
        home = _owners[type(array)] = _owner(array)
    if home is not None:
        watch(home, is_there=True)
    return home


def _owner(array: Any) -> Backend | None:
    for backend in loaded():
        with naming(backend):
            if backend.owns(array):
                return backend
    before = len(_loaded)
    if hasattr(type(array), "__array_namespace__"):
        _load_plug_ins()
    return _owner(array) if len(_loaded) > before else None


@functools.cache
def _load_plug_ins() -> None:
    """Load all plug-ins, once; one that cannot be loaded is passed over."""
    for name in offers():
        try:
            if _dispute(name) is None:
                find(name)
        except Exception as error:
            log().warning("backend %r is passed over: %s.", name, in_words(error))


def loaded() -> list[Backend]:
    """Return the built-in backends, and the plug-ins that are loaded."""
    return [*map(built_in, BUILT_IN), *_loaded.values()]
