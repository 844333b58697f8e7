"""Namespaces whose functions that make arrays take ``device``, for libraries that lack it."""

import contextlib
import functools
from contextlib import AbstractContextManager
from types import ModuleType

from backprop_xp.backends.dtypes_and_devices import LazyModule
from backprop_xp.backends.protocol import Array, Device, Function, Namespace

# The standard's functions that take ``device``.
MAKERS = (
    *("arange", "asarray", "astype", "empty", "eye", "full", "linspace", "ones", "zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like"),
)


def _one_place(device: Device) -> AbstractContextManager[object]:
    return contextlib.nullcontext()


def device_aware(library: Namespace, enter: Function = _one_place, **own: object) -> Namespace:
    """Return a copy of a library's namespace whose functions take ``device``.

    ``enter(device)`` is a context manager in which the library makes arrays on that device, such as
    ``cupy.cuda.Device``; by default the device is ignored, as the library has one alone. Without
    ``device``, an array made from another is made on its device, as in the standard. ``own`` are
    functions and constants that the library lacks or has with another meaning; own functions take
    ``device``, and no function enters it for them.

    >>> import math
    >>> from backprop_xp.backends import LazyModule, device_aware
    >>> device_aware(LazyModule("math"), tau2=2 * math.pi).tau2 == math.tau
    True
    """
    library = library.load() if isinstance(library, LazyModule) else library
    namespace = ModuleType(library.__name__, library.__doc__)
    vars(namespace).update(vars(library) | own)
    for name in MAKERS:
        if name not in own and hasattr(library, name):
            setattr(namespace, name, _on_device(getattr(library, name), enter))
    return namespace


def _on_device(function: Function, enter: Function) -> Function:
    @functools.wraps(function)
    def make(*args: Array, device: Device = None, **options: object) -> Array:
        if device is None and args:
            device = getattr(args[0], "device", None)
        with enter(None if isinstance(device, str) else device):  # NumPy's "cpu" is no GPU
            return function(*args, **options)

    return make
