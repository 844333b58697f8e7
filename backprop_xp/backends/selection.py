"""Choosing a backend, a device and a dtype: at each call, by one order of precedence.

An argument of the call, then the arrays given, then ``use_backend``, then ``set_default_backend``,
then the environment, then NumPy. The backend comes from the first of these that names one, the
device from the first that names one for that backend, the dtype from the first that names one.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

from backprop_xp.backends import registry
from backprop_xp.backends.doors import watch
from backprop_xp.backends.libraries import dtype_name
from backprop_xp.backends.places import (
    device_of,
    is_computed_in,
    place,
    precision_of,
    repair,
    same_device,
)
from backprop_xp.backends.protocol import (
    Backend,
    BackendUnavailableError,
    Device,
    DType,
    DTypeNotKeptError,
    Probe,
)
from backprop_xp.checks import nearest

_DTYPES = ["float32", "float64", "complex64", "complex128", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]
# Which built-in backends may have a device, by the letters that its name begins with.
_HOMES = {"cuda": ("cupy", "jax", "torch"), "tpu": ("jax",), "device": ("array-api-strict",)}

_ARGUMENT = "the argument of the call"
_ENVIRONMENT = "the environment variable BACKPROP_XP_"


class Selection(NamedTuple):
    """Where a computation runs, and what said so."""

    backend: Backend
    device: Device
    dtype: DType
    source: str


class _Rule(NamedTuple):
    """One source of choices; None where it leaves a choice to the next."""

    source: str
    backend: str | Backend | None = None
    device: Any = None
    dtype: Any = None

    def of(self, choice: str) -> str:
        """Return what to call the source of its ``"backend"``, ``"device"`` or ``"dtype"``."""
        return self.source + choice.upper() * (self.source == _ENVIRONMENT)


class BackendStatus(NamedTuple):
    """One row of ``list_backends``."""

    name: str
    usable: bool
    reason: str
    hint: str


_context: ContextVar[tuple[_Rule, ...]] = ContextVar("backprop_xp.use_backend", default=())
_default = _Rule("set_default_backend")


def resolve(
    *arrays: Any,
    backend: str | Backend | None = None,
    device: Any = None,
    dtype: Any = None,
) -> Selection:
    """Return the backend, device and floating dtype for a call, and what chose the backend.

    Of ``arrays``, those that belong to an array library decide, and must agree; lists and numbers
    do not count. Raises ValueError for an unknown name, for arrays of two libraries or devices and
    for an argument that contradicts them, TypeError for arrays of two floating precisions, and
    ``BackendUnavailableError`` (a RuntimeError) for a backend that cannot run here, and
    ``DTypeNotKeptError`` (a ValueError) for a dtype that the library or device does not keep.
    Only the name ``"auto"`` falls back from CUDA to NumPy.
    """
    argument = _Rule(_ARGUMENT, backend, device, dtype)
    owned = [array for array in arrays if registry.owner(array) is not None]
    return _with_arrays(argument, owned) if owned else _choose([argument, *_standing()])


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend called ``name``, or the one that ``resolve()`` chooses now.

    Devices and dtypes do not count here: one that cannot be had is an error where it is needed.
    """
    return _choose_backend([_Rule(_ARGUMENT, name), *_standing()])[0]


@contextlib.contextmanager
def use_backend(name: str | Backend, device: Any = None, dtype: Any = None) -> Iterator[Selection]:
    """Choose where calls without arrays run, inside a ``with``; per thread and per task.

    >>> import backprop_xp as bx
    >>> with bx.use_backend("numpy", dtype="float32"):
    ...     print(bx.asarray([0.5]).dtype)
    float32
    """
    if name is None:
        raise TypeError("use_backend needs a name or a Backend, such as use_backend('numpy').")
    rule = _Rule(f"use_backend({_name(name, 'use_backend')!r})", name, device, dtype)
    token = _context.set((*_context.get(), rule))
    try:
        yield resolve()  # a name that cannot be had is an error here, not at some later call
    finally:
        _context.reset(token)


def set_default_backend(name: str | Backend | None, device: Any = None, dtype: Any = None) -> None:
    """Choose, for the whole process, where calls run that neither say nor are in a ``with``.

    ``None`` takes the choice back.
    """
    global _default
    shown = "" if name is None else f"({_name(name, 'set_default_backend')!r})"
    rule = _Rule(f"set_default_backend{shown}", name, device, dtype)
    if name is not None:
        _choose([rule])
    _default = rule


def list_backends() -> list[BackendStatus]:
    """Return each known backend with whether it can run here, and if not, why and what helps.

    Plug-ins come after the built-in ones. One that is not loaded yet is tried in a process of its
    own, so that listing it imports nothing into this one; no answer in a minute counts as unusable.
    """
    names = registry.names()
    apart = [name for name in names if not registry.is_loaded(name)]
    answers = {}
    if apart:
        from backprop_xp.backends.probing import probe_apart  # 6 ms, for who lists plug-ins

        answers = probe_apart(apart)
    probes = [answers[name].probe if name in answers else registry.probe(name) for name in names]
    return [
        BackendStatus(name, probe.usable, probe.reason, probe.hint)
        for name, probe in zip(names, probes, strict=True)
    ]


def _standing() -> list[_Rule]:
    """Return the rules that hold for calls without arrays, the strongest first."""
    backend, device, dtype = (
        os.environ.get(f"BACKPROP_XP_{what}", "").strip() or None
        for what in ("BACKEND", "DEVICE", "DTYPE")
    )
    return [*reversed(_context.get()), _default, _Rule(_ENVIRONMENT, backend, device, dtype)]


def _choose_backend(rules: list[_Rule]) -> tuple[Backend, str]:
    """Return the backend that the first rule with one names, and that rule's source."""
    for rule in rules:
        if rule.backend is not None:
            return _usable(rule.backend, rule.of("backend")), rule.of("backend")
    return registry.built_in("numpy"), "the default"


def _choose(rules: list[_Rule]) -> Selection:
    backend, source = _choose_backend(rules)
    placed = next(
        (rule for rule in rules if rule.device is not None and _is_for(rule, backend)), None
    )
    typed = next((rule for rule in rules if rule.dtype is not None and _is_of(rule, backend)), None)
    where = backend.devices()[0] if placed is None else _device(backend, placed, source)
    if typed is None:
        return Selection(backend, where, backend.default_dtype(where), source)
    kind = _dtype(backend, typed, where)
    if typed.source != _ARGUMENT and not backend.namespace().isdtype(kind, "real floating"):
        # Only a call may ask for integers: as a standing choice they would truncate all data.
        raise ValueError(
            f"dtype {dtype_name(kind)!r}, from {typed.of('dtype')}, is not real floating: as a "
            "standing choice it would truncate all data. Choose 'float32' or 'float64' there, "
            f"or give dtype={dtype_name(kind)!r} to the calls that want it."
        )
    return Selection(backend, where, kind, source)


def _with_arrays(argument: _Rule, arrays: list[Any]) -> Selection:
    first = arrays[0]
    backend, where = _owner(first), device_of(first)
    for other in arrays[1:]:
        if _owner(other) is not backend or not same_device(device_of(other), where):
            raise ValueError(
                f"arrays in two places were given together, one {place(first)} and one "
                f"{place(other)}; nothing is moved silently. Move one: {repair('x', other, first)}."
            )
    if argument.backend is not None and _usable(argument.backend, _ARGUMENT) is not backend:
        raise ValueError(
            f"backend={_name(argument.backend, _ARGUMENT)!r} contradicts the arrays given, which "
            f"are {backend.name}'s. Move each first: {_line(argument, arrays[0])}; or leave the "
            "argument out."
        )
    if argument.device is not None:
        wanted = _device(backend, argument, "the arrays given")
        if not same_device(wanted, where):
            raise ValueError(
                f"device={argument.device!r} contradicts the arrays given, which are on "
                f"{backend.device_name(where)}. Move each first: {_line(argument, first)}; or "
                "leave the argument out."
            )
        where = wanted
    return Selection(
        backend, where, _dtype_with(argument, arrays, backend, where), "the arrays given"
    )


def _dtype_with(argument: _Rule, arrays: list[Any], backend: Backend, where: Device) -> DType:
    """Return the one floating precision of the arrays; without any, what is asked or usual."""
    xp = backend.namespace()
    kinds = [(precision_of(xp, array.dtype), array) for array in arrays]
    floating = [(kind, array) for kind, array in kinds if kind is not None]
    usual, first = floating[0] if floating else (backend.default_dtype(where), arrays[0])
    for kind, other in floating:
        if not is_computed_in(xp, other.dtype):
            name = dtype_name(backend.default_dtype(where))
            raise TypeError(
                f"an array of {dtype_name(other.dtype)} was given, but a floating dtype is "
                f"expected, float32 or float64. Cast it: {repair('x', other, other, name)}."
            )
        if kind != usual:
            raise TypeError(
                f"arrays of {dtype_name(first.dtype)} and of {dtype_name(other.dtype)} were given "
                f"together; precisions are not mixed. Cast one: {repair('x', other, first)}."
            )
    if argument.dtype is None:
        return usual
    wanted = _dtype(backend, argument, where)
    if floating and wanted != usual:
        raise ValueError(
            f"dtype={dtype_name(wanted)!r} contradicts the arrays given, which are "
            f"{dtype_name(first.dtype)}. Cast each first: {_line(argument, first)}; or leave the "
            "argument out."
        )
    return wanted


def _line(argument: _Rule, array: Any) -> str:
    """Return the line that brings an array where an argument says, in its precision if it can."""
    home = _owner(array)
    target = home if argument.backend is None else _usable(argument.backend, _ARGUMENT)
    parts = [f"backend={target.name!r}"]
    if argument.device is not None:
        where = _device(target, argument, _ARGUMENT)
    else:
        where = device_of(array) if target is home else target.devices()[0]
    if argument.device is not None or target is home:
        parts.append(f"device={target.device_name(where)!r}")
    precision = precision_of(home.namespace(), array.dtype)
    wanted = precision if argument.dtype is None else _dtype(target, argument, where)
    if wanted is not None and (target is home or _keeps(target, dtype_name(wanted))):
        parts.append(f"dtype={dtype_name(wanted)!r}")
    return f"x = bx.asarray(x, {', '.join(parts)})"


def _owner(array: Any) -> Backend:
    backend = registry.owner(array)
    if backend is None:
        raise TypeError(f"{type(array).__name__} belongs to no array library that is known here.")
    return backend


def _is_for(rule: _Rule, backend: Backend) -> bool:
    """Say whether the device that a rule names is meant as one of ``backend``'s."""
    named = registry.automatic() if rule.backend == "auto" else rule.backend
    if named is None:
        # The environment's device, alone, is one of the backend that is had without a choice.
        return rule.source != _ENVIRONMENT or backend.name == "numpy"
    return named in (backend, backend.name)


def _is_of(rule: _Rule, backend: Backend) -> bool:
    """Say whether a rule's dtype can be ``backend``'s: a name is any's, an object its own's."""
    return isinstance(rule.dtype, str) or _is_for(rule, backend)


def _name(backend: str | Backend, source: str) -> str:
    """Return the name of what should be a name or a Backend; a TypeError names the source."""
    if isinstance(backend, str):
        return backend
    if isinstance(backend, type) or not hasattr(backend, "probe"):
        raise TypeError(f"backend must be a name or a Backend, not {backend!r} (from {source}).")
    return backend.name


def _usable(name: str | Backend, source: str) -> Backend:
    """Return the backend of that name, or raise what says why it cannot be had."""
    if not isinstance(name, str):
        _name(name, source)
        watch(name)
        return name
    if name != "auto" and name not in registry.BUILT_IN and name not in registry.offers():
        known = ["auto", *registry.names()]
        raise ValueError(f"backend {name!r}, from {source}, is unknown. {nearest(name, known)}")
    found = registry.find(name)
    if isinstance(found, Probe) or not _works(name):
        probe = registry.probe(name)
        raise BackendUnavailableError(
            f"backend {name!r}, from {source}, cannot run here: {probe.reason}. Try: {probe.hint}."
        )
    watch(found)
    return found


@functools.cache
def _works(name: str) -> bool:
    return registry.probe(name).usable


def _device(backend: Backend, rule: _Rule, source: str) -> Device:
    try:
        return backend.device(rule.device)
    except ValueError as error:
        letters = str(rule.device).partition(":")[0].rstrip("0123456789")
        homes = [home for home in _HOMES.get(letters, ()) if home != backend.name]
        others = f", or a backend that may have it: {_either(homes)}" if homes else ""
        told = f"The device came from {rule.of('device')}, the backend from {source}"
        if rule.of("device") == source:
            told = f"Device and backend came from {source}"
        raise ValueError(f"{error} {told}. Choose another device{others}.") from None


def _either(names: list[str]) -> str:
    *first, last = map(repr, names)
    return f"{', '.join(first)} or {last}" if first else last


def _dtype(backend: Backend, rule: _Rule, where: Device) -> DType:
    source = rule.of("dtype")
    kind = rule.dtype
    _refuse_precision(backend, kind, source)
    if isinstance(kind, str):
        if kind not in _DTYPES:
            raise ValueError(f"dtype {kind!r}, from {source}, is unknown. {nearest(kind, _DTYPES)}")
        kind = getattr(backend.namespace(), kind)
    elif not _is_dtype(backend, kind):
        raise TypeError(
            f"dtype {kind!r}, from {source}, is none of {backend.name}'s. "
            "A name such as 'float32' works with every backend."
        )
    try:
        backend.require_dtype(kind, where)
    except DTypeNotKeptError as error:
        raise DTypeNotKeptError(
            f"dtype {dtype_name(kind)!r}, from {source}, cannot be had: {error}"
        ) from None
    return kind


def _refuse_precision(backend: Backend, kind: Any, source: str) -> None:
    """Raise ValueError for a floating dtype, or its name, that is not computed in."""
    xp = backend.namespace()
    dtype = getattr(xp, kind, None) if isinstance(kind, str) else kind
    floating = _is_dtype(backend, dtype) and precision_of(xp, dtype) is not None
    if floating and not is_computed_in(xp, dtype):
        raise ValueError(
            f"dtype {dtype_name(dtype)!r}, from {source}, is floating, but float32 or float64 is "
            "expected: nothing is computed in another precision. Ask for dtype='float32'."
        )


def _keeps(backend: Backend, name: str) -> bool:
    try:
        backend.require_dtype(getattr(backend.namespace(), name))
    except DTypeNotKeptError:
        return False
    return True


def _is_dtype(backend: Backend, kind: Any) -> bool:
    try:
        return bool(backend.namespace().isdtype(kind, ("bool", "numeric")))
    except (TypeError, AttributeError):
        return False
