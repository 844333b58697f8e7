"""Array libraries: the protocol they are seen through, choosing one, and moving data to it."""

from backprop_xp.backends.arrays import (
    array_namespace,
    asarray,
    is_host_number,
    like,
    require_beside,
    require_floating,
    to_host,
)
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    BackendUnavailableError,
    Device,
    DType,
    Memory,
    Namespace,
    Probe,
)
from backprop_xp.backends.selection import (
    BackendStatus,
    Selection,
    device_of,
    get_backend,
    list_backends,
    owner,
    resolve,
    set_default_backend,
    use_backend,
)

__all__ = [
    "Array",
    "Backend",
    "BackendStatus",
    "BackendUnavailableError",
    "DType",
    "Device",
    "Memory",
    "Namespace",
    "Probe",
    "Selection",
    "array_namespace",
    "asarray",
    "device_of",
    "get_backend",
    "is_host_number",
    "like",
    "list_backends",
    "owner",
    "require_beside",
    "require_floating",
    "resolve",
    "set_default_backend",
    "to_host",
    "use_backend",
]
