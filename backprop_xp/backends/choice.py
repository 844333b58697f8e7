"""Which backend a call uses, with its device and its dtype.

At each call, one order of precedence: an argument of the call, then the arrays given, then
``use_backend``, then ``set_default_backend``, then the environment, then NumPy. The first that
names a backend decides it, the first that names a dtype the dtype, and likewise the device; but a
device is one of the backend that its source names, or else a weaker source, and no other's.

From a name in the environment to its backend it is: ``_rules`` reads it, ``_backend`` takes the
first name, ``registry.usable`` tries what ``registry.find`` loads. ``backend.namespace()`` imports
the library.
"""

import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from backprop_xp.backends.blocks import BlockDecorator, Blocks, standing
from backprop_xp.backends.dtypes_and_devices import dtype_name, precision_of
from backprop_xp.backends.protocol import Backend, Device, DType, DTypeNotKeptError, Namespace
from backprop_xp.backends.registry import automatic, built_in, name_of, usable
from backprop_xp.checks import nearest

ARGUMENT = "the argument of the call"
# The device stands before the backend, which is weaker, as what it is a device of.
_ENVIRONMENT = [(what, f"BACKPROP_XP_{what.upper()}") for what in ("dtype", "device", "backend")]

_DTYPES = ["float32", "float64", "complex64", "complex128", "bool"] + [
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
]
# Which built-in backends may have a device, by the letters that its name begins with.
_HOMES = {"cuda": "'cupy', 'jax' or 'torch'", "tpu": "'jax'", "device": "'array-api-strict'"}


class Selection(NamedTuple):
    """Where a computation runs, and what said so."""

    backend: Backend
    device: Device
    dtype: DType
    source: str


class Rule(NamedTuple):
    """What one source chooses; None where it leaves a choice to the next."""

    source: str
    backend: str | Backend | None = None
    device: Any = None
    dtype: Any = None

    def says(self) -> bool:
        """Say whether it chooses anything; not by ``==``, since NumPy's float64 equals None."""
        return not self.backend is self.device is self.dtype is None


NOTHING = Rule(ARGUMENT)
_default = NOTHING


def get_backend(name: str | Backend | None = None) -> Backend:
    """Return the backend called ``name``, or the one that ``resolve()`` chooses now.

    Devices and dtypes do not count here: one that cannot be had is an error where it is needed.
    """
    return _backend(_rules(Rule(ARGUMENT, name)))[0]


class use_backend(BlockDecorator):  # noqa: N801 - it reads as a function
    """Choose where calls without arrays run, inside a ``with``; per thread and per task.

    What is not named stays as it is chosen outside: ``use_backend(dtype="float32")`` keeps the
    backend. The ``with`` of a generator holds while the generator runs, not for who iterates over
    it; the generator of a context manager, or of a pytest fixture, hands it on to the block. It
    decorates functions too; a generator or an async function is a TypeError.

    >>> import backprop_xp as bx
    >>> with bx.use_backend("numpy", dtype="float32"):
    ...     print(bx.asarray([0.5]).dtype)
    float32
    """

    def __init__(
        self, name: str | Backend | None = None, device: Any = None, dtype: Any = None
    ) -> None:
        self._rule = _standing_rule("use_backend", name, device, dtype)
        self._blocks = Blocks()

    def __enter__(self) -> Selection:
        if not self._rule.says():
            raise TypeError(
                "use_backend needs a name or a Backend, such as use_backend('numpy'), or a device "
                "or a dtype."
            )
        self._blocks.enter(self._rule)
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
    rule = _standing_rule("set_default_backend", name, device, dtype)
    if name is not None:
        _choose([rule])
    _default = rule


def choose(argument: Rule = NOTHING) -> Selection:
    """Return what a call without arrays uses, whose arguments may say some of it."""
    rules = _rules(argument)
    return _choose(rules) if rules else _nothing_chosen()


def _standing_rule(function: str, name: Any, device: Any, dtype: Any) -> Rule:
    """Return the rule of a call of ``use_backend`` or ``set_default_backend``."""
    shown = {"device": device, "dtype": dtype}
    given = ", ".join(f"{what}={value!r}" for what, value in shown.items() if value is not None)
    if name is not None:
        given = repr(name_of(name, function))
    return Rule(f"{function}({given})", name, device, dtype)


def _rules(argument: Rule) -> list[Rule]:
    """Return the rules for a call without arrays that say anything, the strongest first."""
    rules = standing(Rule)
    if argument.says():
        rules.insert(0, argument)
    if _default.says():
        rules.append(_default)
    for what, variable in _ENVIRONMENT:
        said = os.environ.get(variable)
        if said and said.strip():
            source = f"the environment variable {variable}"
            rules.append(Rule(source)._replace(**{what: said.strip()}))
    return rules


@functools.cache
def _nothing_chosen() -> Selection:
    return _choose([])


def _choose(rules: Sequence[Rule]) -> Selection:
    """Return the backend, device and dtype that the strongest rules choose.

    A rule's device counts only if the rule, or the next weaker one with a backend, chooses the
    backend that is used.
    """
    backend, source = _backend(rules)
    places, dtypes = [], []
    for i, rule in enumerate(rules):
        if rule.device is not None and _are_of(rules[i:], backend):
            places.append(rule)
        # The name of a dtype is any backend's, an object its own's.
        if isinstance(rule.dtype, str) or (rule.dtype is not None and _are_of(rules[i:], backend)):
            dtypes.append(rule)
    where = device_for(backend, places[0], source) if places else backend.devices()[0]
    dtype = dtype_for(backend, dtypes[0], where) if dtypes else backend.default_dtype(where)
    return Selection(backend, where, dtype, source)


def _backend(rules: Sequence[Rule]) -> tuple[Backend, str]:
    """Return the backend that the first rule with one names, and that rule's source."""
    for rule in rules:
        if rule.backend is not None:
            return usable(rule.backend, rule.source), rule.source
    return built_in("numpy"), "the default"


def _are_of(rules: Sequence[Rule], backend: Backend) -> bool:
    """Say whether these rules choose this backend; nothing is tried."""
    named = next((rule.backend for rule in rules if rule.backend is not None), "numpy")
    return (automatic() if named == "auto" else named) in (backend, backend.name)


def device_for(backend: Backend, rule: Rule, source: str) -> Device:
    """Return the backend's device that a rule names; ``source`` is what chose the backend."""
    try:
        return backend.device(rule.device)
    except ValueError as error:
        told = f"The device came from {rule.source}, the backend from {source}"
        if rule.source == source:
            told = f"Device and backend came from {source}"
        way_out = "Choose another device"
        homes = _HOMES.get(str(rule.device).partition(":")[0].rstrip("0123456789"), "")
        if homes and repr(backend.name) not in homes:
            way_out += f", or a backend that may have it: {homes}"
        raise ValueError(f"{error} {told}. {way_out}.") from None


def dtype_for(backend: Backend, rule: Rule, where: Device) -> DType:
    """Return the backend's dtype that a rule names, or raise what says why it cannot be had."""
    xp, asked, source = backend.namespace(), rule.dtype, rule.source
    kind = getattr(xp, asked, None) if isinstance(asked, str) else asked
    is_known = _is_dtype(xp, kind)
    name = dtype_name(kind)
    if is_known and precision_of(xp, kind) not in (None, xp.float32, xp.float64):
        raise ValueError(
            f"dtype {name!r}, from {source}, is floating, but float32 or float64 is expected: "
            "nothing is computed in another precision. Ask for dtype='float32'."
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
        raise DTypeNotKeptError(f"dtype {name!r}, from {source}, cannot be had: {error}") from None
    if rule.source != ARGUMENT and not xp.isdtype(kind, "real floating"):
        # Only a call may ask for integers: as a standing choice they would truncate all data.
        raise ValueError(
            f"dtype {name!r}, from {source}, is not real floating: as a standing choice it would "
            f"truncate all data. Choose 'float32' or 'float64' there, or give dtype={name!r} to "
            "the calls that want it."
        )
    return kind


def _is_dtype(xp: Namespace, kind: Any) -> bool:
    try:
        return bool(xp.isdtype(kind, ("bool", "numeric")))
    except (TypeError, AttributeError):
        return False
