"""Small questions about any array library: is it there, what are its dtypes and devices."""

import importlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backprop_xp.backends.protocol import Device, DType, Namespace, Probe

if TYPE_CHECKING:
    import logging


def log() -> "logging.Logger":
    """Return the logger of this library; importing ``logging``, 5 ms, waits until it is needed."""
    import logging

    return logging.getLogger("backprop_xp")


def is_installed(module: str) -> bool:
    """Say whether a module can be imported; a folder of that name beside a script is none."""
    import importlib.util

    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def tried(module: str, library: str, extra: str, work: Callable[[Any], object]) -> Probe:
    """Try a library by a little work with it; ``extra`` is the extra that installs it."""
    if not is_installed(module):
        hint = f"pip install 'backprop_xp[{extra}]'"
        return Probe(False, None, f"{library} is not installed", hint)
    try:
        found = importlib.import_module(module)
        work(found)
    except Exception as error:
        return Probe(False, None, in_words(error), f"reinstall {module}")
    return Probe(True, str(found.__version__))


def imported(name: str) -> Any:
    """Return a module if it is imported, or being imported: then as soon as it is; else None.

    A library that another thread imports at this moment is in ``sys.modules`` already, but lacks
    most of its names.
    """
    if sys.modules.get(name) is None:
        return None
    try:
        return importlib.import_module(name)  # waits for the thread that imports it
    except ImportError:
        return None  # it failed there


def device_of(array: Any) -> Device:
    """Return an array's device; None for a JAX tracer, which has none yet."""
    return getattr(array, "device", None)


def same_device(one: Device, other: Device) -> bool:
    """Say whether two devices of arrays are one; a JAX tracer's, not known yet, may be any."""
    return one is None or other is None or bool(one == other)


def dtype_name(dtype: DType) -> str:
    """Return the name of a dtype without its library's: ``"float32"`` for ``torch.float32``."""
    return str(dtype).rpartition(".")[2].strip("'>")


def precision_of(xp: Namespace, dtype: DType) -> DType | None:
    """Return the real dtype of a floating dtype's precision, or None for any other dtype.

    A complex dtype that is neither complex64 nor complex128 is returned itself.
    """
    if xp.isdtype(dtype, "complex floating"):
        if dtype == xp.complex64:
            return xp.float32
        return xp.float64 if dtype == xp.complex128 else dtype
    return dtype if xp.isdtype(dtype, "real floating") else None


def is_computed_in(xp: Namespace, dtype: DType) -> bool:
    """Say whether a dtype is float32, float64 or the complex dtype of either.

    float16, bfloat16 and long doubles are floating dtypes as well, to those who have them.
    """
    return precision_of(xp, dtype) in (xp.float32, xp.float64)


def in_words(error: BaseException) -> str:
    """Return an exception's kind and text in one line without its full stop: a reason."""
    words = " ".join(str(error).split()).rstrip(".:")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
