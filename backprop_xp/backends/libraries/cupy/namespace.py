"""CuPy's array API namespace, whose functions honour ``device``.

array-api-compat's wrapper accepts and ignores ``device=``, since CuPy makes arrays on the current
device. Here each function that makes an array enters the device first.
"""

import functools
from types import ModuleType

from backprop_xp.backends.protocol import Array, Device, Function, Namespace

# The standard's functions that take ``device``.
_MAKERS = (
    *("arange", "asarray", "astype", "empty", "eye", "full", "linspace", "ones", "zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like"),
)


def device_aware(compat: Namespace, device: Function, **own: object) -> Namespace:
    """Return a copy of ``array_api_compat.cupy`` whose functions honour ``device``.

    Without ``device``, an array made from another is made on its device, as in the standard.
    ``device`` is ``cupy.cuda.Device``, a context manager. ``own`` are functions and constants that
    replace the wrapper's.
    """
    namespace = ModuleType(compat.__name__, compat.__doc__)
    vars(namespace).update(vars(compat) | own)
    for name in _MAKERS:
        setattr(namespace, name, _on_device(getattr(compat, name), device))
    return namespace


def _on_device(function: Function, enter: Function) -> Function:
    @functools.wraps(function)
    def make(*args: Array, device: Device = None, **options: object) -> Array:
        if device is None and args:
            device = getattr(args[0], "device", None)
        with enter(None if isinstance(device, str) else device):  # NumPy's "cpu" is no GPU
            return function(*args, **options)

    return make
