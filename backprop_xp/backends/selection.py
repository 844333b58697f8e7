"""Choosing a backend, a device and a dtype: at each call, by one order of precedence.

An argument of the call, then the arrays given, then ``use_backend``, then ``set_default_backend``,
then the environment, then NumPy. The backend comes from the first of these that names one, the
device from the first that names one for that backend, the dtype from the first that names one.
"""

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import array_api_compat

from backprop_xp.backends.doors import watch
from backprop_xp.backends.protocol import Backend, BackendUnavailableError, Device, DType
from backprop_xp.checks import nearest

_log = logging.getLogger("backprop_xp")

# Names rather than imports, so that no library is imported before it is asked for.
_BUILT_IN = {
    "numpy": "backprop_xp.backends.numpy:backend",
    "cupy": "backprop_xp.backends.cupy:backend",
    "array-api-strict": "backprop_xp.backends.array_api_strict:backend",
    "jax": "backprop_xp.backends.jax:backend",
    "torch": "backprop_xp.backends.torch:backend",
}
_DTYPES = ["float32", "float64", "complex64", "complex128", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]


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
    for an argument that contradicts them; ``BackendUnavailableError`` (a RuntimeError) for a
    backend that cannot run here. Only the name ``"auto"`` falls back from CUDA to NumPy.
    """
    argument = _Rule("the argument of the call", backend, device, dtype)
    owned = [array for array in arrays if owner(array) is not None]
    if owned:
        return _with_arrays(argument, owned)
    rules = [argument, *reversed(_context.get()), _default, _environment()]
    named = next(
        (rule for rule in rules if rule.backend is not None), _Rule("the default", "numpy")
    )
    chosen = _load_usable(named.backend, named.source)
    placed = next(
        (rule for rule in rules if rule.device is not None and _is_for(rule, chosen)), None
    )
    typed = next((rule for rule in rules if rule.dtype is not None and _is_of(rule, chosen)), None)
    where = chosen.devices()[0] if placed is None else _device(chosen, placed)
    kind = chosen.default_dtype(where) if typed is None else _dtype(chosen, typed)
    if typed is not argument and not chosen.namespace().isdtype(kind, "real floating"):
        # Only a call may ask for integers: as a standing choice they would truncate all data.
        raise ValueError(f"dtype {kind}, from {typed and typed.source}, is not real floating.")
    return Selection(chosen, where, kind, named.source)


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend called ``name``, or the one that ``resolve()`` chooses now."""
    return resolve(backend=name).backend


@contextlib.contextmanager
def use_backend(name: str | Backend, device: Any = None, dtype: Any = None) -> Iterator[Selection]:
    """Choose where calls without arrays run, inside a ``with``; per thread and per task.

    >>> import backprop_xp as bx
    >>> with bx.use_backend("numpy", dtype="float32"):
    ...     print(bx.asarray([0.5]).dtype)
    float32
    """
    rule = _Rule(f"use_backend({_name(name)!r})", name, device, dtype)
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
    if name is not None:
        resolve(backend=name, device=device, dtype=dtype)
    shown = "" if name is None else f"({_name(name)!r})"
    _default = _Rule(f"set_default_backend{shown}", name, device, dtype)


def backend_names() -> list[str]:
    """Return the name of each known backend; nothing is imported or tried."""
    return list(_BUILT_IN)


def list_backends() -> list[BackendStatus]:
    """Return each known backend with whether it can run here, and if not, why and what helps."""
    rows = []
    for name in _BUILT_IN:
        probe = _load(name).probe()
        rows.append(BackendStatus(name, probe.usable, probe.reason, probe.hint))
    return rows


def known_backends() -> list[Backend]:
    """Return every backend that can be named, usable here or not."""
    return [_load(name) for name in _BUILT_IN]


def owner(array: Any) -> Backend | None:
    """Return the backend whose array this is, or None for anything else."""
    for name in _BUILT_IN:
        if _load(name).owns(array):
            watch(_load(name))
            return _load(name)
    return None


def device_of(array: Any) -> Device:
    """Return an array's device; None for a JAX tracer, which has none yet."""
    return array_api_compat.device(array)


def same_device(one: Device, other: Device) -> bool:
    """Say whether two devices of arrays are one; a JAX tracer's, not known yet, may be any."""
    return one is None or other is None or bool(one == other)


def _with_arrays(argument: _Rule, arrays: list[Any]) -> Selection:
    first = arrays[0]
    backend, where = _owner(first), device_of(first)
    for other in arrays[1:]:
        if _owner(other) is not backend or not same_device(device_of(other), where):
            name = backend.device_name(where)
            raise ValueError(
                f"arrays of {_owner(other).name} on {device_of(other)} and of {backend.name} on "
                f"{name} were given together. Move one: bx.asarray(x, "
                f"backend={backend.name!r}, device={name!r})."
            )
    xp = backend.namespace()
    floating = [array.dtype for array in arrays if xp.isdtype(array.dtype, "real floating")]
    asked = argument.backend
    if asked is not None and _load_usable(asked, argument.source) is not backend:
        raise ValueError(
            f"backend={_name(asked)!r} contradicts the arrays given, which are "
            f"{backend.name}'s. Move them first by bx.asarray, or leave the argument out."
        )
    if argument.device is not None and _device(backend, argument) != where:
        raise ValueError(
            f"device={argument.device!r} contradicts the arrays given, which are on {where}. "
            "Move them first by bx.asarray, or leave the argument out."
        )
    kind = floating[0] if floating else backend.default_dtype(where)
    if argument.dtype is not None:
        wanted = _dtype(backend, argument)
        if floating and wanted != kind:
            raise ValueError(
                f"dtype={argument.dtype!r} contradicts the arrays given, which are {kind}. "
                "Cast them first by bx.asarray, or leave the argument out."
            )
        kind = wanted
    return Selection(backend, where, kind, "the arrays given")


def _owner(array: Any) -> Backend:
    backend = owner(array)
    if backend is None:
        raise TypeError(f"{type(array).__name__} belongs to no array library that is known here.")
    return backend


def _environment() -> _Rule:
    backend, device, dtype = (
        os.environ.get(f"BACKPROP_XP_{what}", "").strip() or None
        for what in ("BACKEND", "DEVICE", "DTYPE")
    )
    if device is not None and backend is None:
        backend = "numpy"  # the device is one of the backend that this rule alone would choose
    return _Rule("the environment (BACKPROP_XP_*)", backend, device, dtype)


def _is_for(rule: _Rule, backend: Backend) -> bool:
    """Say whether the device that a rule names is meant as one of ``backend``'s."""
    named = _automatic() if rule.backend == "auto" else rule.backend
    return named is None or named in (backend, backend.name)


def _is_of(rule: _Rule, backend: Backend) -> bool:
    """Say whether a rule's dtype can be ``backend``'s: a name is any's, an object its own's."""
    return isinstance(rule.dtype, str) or _is_for(rule, backend)


def _name(backend: str | Backend) -> str:
    return backend if isinstance(backend, str) else backend.name


@functools.cache
def _load(name: str) -> Backend:
    module, _, attribute = _BUILT_IN[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)
    return backend


def _load_usable(name: str | Backend | None, source: str) -> Backend:
    if name == "auto":
        return _load(_automatic())
    if not isinstance(name, str):
        if name is None or not hasattr(name, "probe"):
            raise TypeError(f"backend must be a name or a Backend, not {name!r} (from {source}).")
        return name
    if name not in _BUILT_IN:
        known = ["auto", *_BUILT_IN]
        raise ValueError(f"backend {name!r}, from {source}, is unknown. {nearest(name, known)}")
    _require_usable(name, source)
    watch(_load(name))
    return _load(name)


@functools.cache
def _works(name: str) -> bool:
    return _load(name).probe().usable


def _require_usable(name: str, source: str) -> None:
    if not _works(name):
        probe = _load(name).probe()
        raise BackendUnavailableError(
            f"backend {name!r}, from {source}, cannot run here: {probe.reason}. Try: {probe.hint}."
        )


@functools.cache
def _automatic() -> str:
    """Return the backend that ``"auto"`` means on this machine, and log it the first time."""
    probe = _load("cupy").probe()
    if probe.usable:
        _log.info("backend 'auto' is cupy: a CUDA device answers.")
        return "cupy"
    _log.warning("backend 'auto' is numpy: %s.", probe.reason)
    return "numpy"


def _device(backend: Backend, rule: _Rule) -> Device:
    try:
        return backend.device(rule.device)
    except ValueError as error:
        raise ValueError(f"{error} It came from {rule.source}.") from None


def _dtype(backend: Backend, rule: _Rule) -> DType:
    xp = backend.namespace()
    if isinstance(rule.dtype, str):
        if rule.dtype not in _DTYPES:
            hint = nearest(rule.dtype, _DTYPES)
            raise ValueError(f"dtype {rule.dtype!r}, from {rule.source}, is unknown. {hint}")
        return getattr(xp, rule.dtype)
    try:
        if xp.isdtype(rule.dtype, ("bool", "numeric")):
            return rule.dtype
    except (TypeError, AttributeError):
        pass
    raise TypeError(
        f"dtype {rule.dtype!r}, from {rule.source}, is none of {backend.name}'s. "
        "A name such as 'float32' works with every backend."
    )
