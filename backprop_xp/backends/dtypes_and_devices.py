"""Dtypes and devices of arrays, and whether an array library is installed and imported."""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from backprop_xp.backends.protocol import Device, DType, Namespace, Probe

if TYPE_CHECKING:
    import logging


def log() -> "logging.Logger":
    """Return the logger of this library."""
    import logging  # takes 5 ms, and few programs need it

    return logging.getLogger("backprop_xp")


def is_installed(module: str) -> bool:
    """Return whether a module can be imported; a folder of that name does not count."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package around it
        return False
    return spec is not None and spec.origin is not None


def try_library(
    module: str, library: str, install: str, work: Callable[[ModuleType], object]
) -> Probe:
    """Return the result of importing a module and of ``work(module)``, a small computation.

    ``library`` is its name for people, and ``install`` the command that installs it.

    >>> from backprop_xp.backends import try_library
    >>> try_library("nonesuch", "Nonesuch", "pip install nonesuch", lambda module: None).reason
    'Nonesuch is not installed'
    """
    if not is_installed(module):
        return Probe(False, None, f"{library} is not installed", install)
    try:
        found = importlib.import_module(module)
        work(found)
    except Exception as error:
        return Probe(False, None, text_of(error), f"reinstall {module}")
    package = sys.modules[module.partition(".")[0]]
    version = getattr(found, "__version__", None) or getattr(package, "__version__", "unknown")
    return Probe(True, str(version))


def module_if_imported(name: str) -> ModuleType | None:
    """Return a module that is imported, or None; wait for a thread that is importing it.

    Such a module is in ``sys.modules`` already, but lacks most of its names.
    """
    if sys.modules.get(name) is None:
        return None
    try:
        return importlib.import_module(name)
    except ImportError:  # in the other thread
        return None


class LazyModule:
    """A library that is imported when its first attribute is needed.

    >>> from backprop_xp.backends import LazyModule
    >>> math = LazyModule("math")
    >>> math.sqrt(4.0)
    2.0
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._module: ModuleType | None = None

    def __getattr__(self, name: str) -> Any:
        if name == "__wrapped__":  # inspect asks any object for it
            raise AttributeError(name)
        return getattr(self.load(), name)

    def load(self) -> ModuleType:
        """Return the module itself."""
        if self._module is None:
            self._module = importlib.import_module(self._name)
        return self._module


def same_device(one: Device | None, other: Device | None) -> bool:
    """Return whether two devices are the same; a tracer's None equals any device."""
    return one is None or other is None or bool(one == other)


def dtype_name(dtype: DType) -> str:
    """Return a dtype's name without the library: ``"float32"`` for ``torch.float32``."""
    return str(dtype).rpartition(".")[2].strip("'>")


def precision_of(xp: Namespace, dtype: DType) -> DType | None:
    """Return the real dtype of a floating dtype's precision, or None for any other dtype.

    A complex dtype other than complex64 and complex128 is returned itself.
    """
    if xp.isdtype(dtype, "complex floating"):
        if dtype == xp.complex64:
            return xp.float32
        return xp.float64 if dtype == xp.complex128 else dtype
    return dtype if xp.isdtype(dtype, "real floating") else None


def is_computed_in(xp: Namespace, dtype: DType) -> bool:
    """Return whether a dtype is float32, float64 or the complex dtype of either.

    Some libraries have more floating dtypes, such as float16, bfloat16 and long double.
    """
    precision = precision_of(xp, dtype)
    return precision is not None and precision in (xp.float32, xp.float64)


def text_of(error: BaseException) -> str:
    """Return an exception's type and message as a reason: one line without the full stop."""
    message = " ".join(str(error).split()).rstrip(".:")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
