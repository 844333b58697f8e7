"""Namespaces with other functions than a library's, such as functions that take ``device``."""

import functools
from contextlib import nullcontext
from types import ModuleType

import numpy as np

from backprop_xp.backends.dtypes_and_devices import LazyModule
from backprop_xp.backends.protocol import Array, Device, Function, Namespace

# The standard's functions that take ``device``.
_MAKERS = (
    *("arange", "asarray", "astype", "empty", "eye", "full", "linspace", "ones", "zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like"),
)


def namespace_with(library: Namespace, **own: object) -> Namespace:
    """Return a copy of a library's namespace with functions and constants of your own.

    >>> import math
    >>> from backprop_xp.backends import LazyModule, namespace_with
    >>> namespace_with(LazyModule("math"), pi=3).pi, math.pi > 3
    (3, True)
    """
    library = library.load() if isinstance(library, LazyModule) else library
    namespace = ModuleType(library.__name__, library.__doc__)
    vars(namespace).update(vars(library) | own)
    return namespace


def device_aware(library: Namespace, enter: Function = nullcontext, **own: object) -> Namespace:
    """Return ``namespace_with(library, **own)`` whose functions that make arrays take ``device``.

    ``enter(device)`` is a context manager in which the library makes arrays on that device, such as
    ``cupy.cuda.Device``. By default the device is ignored, for a library with only one. Without
    ``device``, an array made from another is made on its device, as in the standard. Functions in
    ``own`` are left as they are and must take ``device`` themselves.

    >>> from backprop_xp.backends import LazyModule, device_aware
    >>> device_aware(LazyModule("math"), tau=6).tau
    6
    """
    namespace = namespace_with(library, **own)
    for name in _MAKERS:
        if name not in own and hasattr(namespace, name):
            setattr(namespace, name, _on_device(getattr(namespace, name), enter))
    return namespace


def _on_device(function: Function, enter: Function) -> Function:
    @functools.wraps(function)
    def make(*args: Array, device: Device = None, **options: object) -> Array:
        # The device of NumPy's arrays is not one of the library's.
        if device is None and args and not isinstance(args[0], np.ndarray | np.generic):
            device = getattr(args[0], "device", None)
        with enter(device):
            return function(*args, **options)

    return make
