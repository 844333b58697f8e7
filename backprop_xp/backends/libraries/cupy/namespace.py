"""CuPy's array API namespace, with arrays made on the device that they are asked for.

array-api-compat's wrapper takes ``device=`` and drops it: in CuPy an array is made on the current
device, so here each function that makes one enters the device first. Its ``clip`` and ``sign``
select by masks, for which the host waits up to four times; CuPy's own are one kernel each.
"""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

from backprop_xp.backends.protocol import Array, Namespace

# The functions of the standard that take ``device``, but astype, which computes where its array is.
_MAKERS = (
    *("arange", "asarray", "empty", "eye", "full", "linspace", "ones", "zeros"),
    *("empty_like", "full_like", "ones_like", "zeros_like"),
)


def placing(compat: Namespace, device: Callable[[Any], Any], **own: Any) -> Namespace:
    """Return a copy of ``array_api_compat.cupy`` whose functions honour ``device``.

    Without ``device``, an array made from another is made beside it, as the standard has it.
    ``device`` is ``cupy.cuda.Device``, a context manager; ``own`` are functions of CuPy's that keep
    the standard as they are, in the place of the wrapper's.
    """
    namespace = ModuleType(compat.__name__, compat.__doc__)
    namespace.__dict__.update(vars(compat) | own)
    for name in _MAKERS:
        setattr(namespace, name, _making(getattr(compat, name), device))
    namespace.astype = _astype(compat.astype, device)  # type: ignore[attr-defined]
    return namespace


def _making(function: Callable[..., Array], enter: Callable[[Any], Any]) -> Callable[..., Array]:
    @functools.wraps(function)
    def make(*args: Any, device: Any = None, **options: Any) -> Array:
        if device is None:
            device = _gpu(args[0]) if args else None
        with enter(device):
            return function(*args, **options)

    return make


def _astype(function: Callable[..., Array], enter: Callable[[Any], Any]) -> Callable[..., Array]:
    @functools.wraps(function)
    def astype(x: Array, dtype: Any, /, **options: Any) -> Array:
        with enter(_gpu(x)):
            return function(x, dtype, **options)

    return astype


def _gpu(value: Any) -> Any:
    """Return the device of a CuPy array; None, the current one, for anything else."""
    where = getattr(value, "device", None)
    return None if isinstance(where, str) else where  # NumPy's "cpu"
