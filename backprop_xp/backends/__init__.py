"""Array libraries: the protocol they are seen through, choosing one, and moving data to it."""

from backprop_xp.backends.arrays import (
    array_namespace,
    asarray,
    beside,
    is_host_number,
    like,
    replaced,
    require_beside,
    require_floating,
    require_like,
    require_owner,
    to_host,
    to_host_together,
)
from backprop_xp.backends.doors import TransferError, explicit
from backprop_xp.backends.guard import transfer_guard
from backprop_xp.backends.libraries import dtype_name, in_words
from backprop_xp.backends.places import device_of
from backprop_xp.backends.protocol import (
    Array,
    Backend,
    BackendUnavailableError,
    Device,
    Door,
    DType,
    DTypeNotKeptError,
    Memory,
    Namespace,
    Probe,
)
from backprop_xp.backends.registry import owner
from backprop_xp.backends.selection import (
    BackendStatus,
    Selection,
    get_backend,
    list_backends,
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
    "DTypeNotKeptError",
    "Device",
    "Door",
    "Memory",
    "Namespace",
    "Probe",
    "Selection",
    "TransferError",
    "array_namespace",
    "asarray",
    "beside",
    "device_of",
    "dtype_name",
    "explicit",
    "get_backend",
    "in_words",
    "is_host_number",
    "like",
    "list_backends",
    "owner",
    "replaced",
    "require_beside",
    "require_floating",
    "require_like",
    "require_owner",
    "resolve",
    "set_default_backend",
    "to_host",
    "to_host_together",
    "transfer_guard",
    "use_backend",
]
