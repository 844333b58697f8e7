"""Backends: the protocol, the choice of a backend, and moves of data between them."""

from backprop_xp.backends.arrays import (
    agreed as agreed,
    asarray as asarray,
    checksum as checksum,
    chosen_array as chosen_array,
    host_numbers as host_numbers,
    is_host_number as is_host_number,
    to_device_of as to_device_of,
    to_host as to_host,
    to_host_together as to_host_together,
)
from backprop_xp.backends.choice import (
    Selection as Selection,
    get_backend as get_backend,
    resolve as resolve,
    set_default_backend as set_default_backend,
    use_backend as use_backend,
)
from backprop_xp.backends.closures import (
    Identity as Identity,
    content_of as content_of,
    key_of as key_of,
    outer_variables as outer_variables,
)
from backprop_xp.backends.compatibility import (
    device_of as device_of,
    integer_array as integer_array,
    like as like,
    require_floating as require_floating,
    require_like as require_like,
    require_owner as require_owner,
    require_same_device as require_same_device,
)
from backprop_xp.backends.dtypes_and_devices import (
    LazyModule as LazyModule,
    dtype_name as dtype_name,
    module_if_imported as module_if_imported,
    precision_of as precision_of,
    text_of as text_of,
    try_library as try_library,
)
from backprop_xp.backends.guard import (
    CONVERSION_METHODS as CONVERSION_METHODS,
    TransferError as TransferError,
    explicit as explicit,
    holds_a_mask as holds_a_mask,
    leaves_by_dlpack as leaves_by_dlpack,
    transfer_guard as transfer_guard,
)
from backprop_xp.backends.host_numbers import (
    plain_array as plain_array,
    plain_numbers as plain_numbers,
    refuse_distributed as refuse_distributed,
    refuse_masked as refuse_masked,
    require_dense as require_dense,
    require_dtype as require_dtype,
)
from backprop_xp.backends.namespaces import (
    device_aware as device_aware,
    namespace_with as namespace_with,
)
from backprop_xp.backends.protocol import (
    Array as Array,
    Backend as Backend,
    BackendUnavailableError as BackendUnavailableError,
    Conversion as Conversion,
    Device as Device,
    DType as DType,
    DTypeNotKeptError as DTypeNotKeptError,
    Memory as Memory,
    Namespace as Namespace,
    Probe as Probe,
)
from backprop_xp.backends.registry import (
    BackendStatus as BackendStatus,
    array_namespace as array_namespace,
    list_backends as list_backends,
    owner as owner,
)
from backprop_xp.backends.replacements import (
    LayerFunctions as LayerFunctions,
    TrainingTable as TrainingTable,
    dispatch as dispatch,
    holding as holding,
    replaceable as replaceable,
    replaced_layers as replaced_layers,
)
from backprop_xp.backends.sums_and_products import (
    blank as blank,
    columns_of as columns_of,
    gather as gather,
    matmul as matmul,
    max_of_rows as max_of_rows,
    mean_of_rows as mean_of_rows,
    ones_where_positive as ones_where_positive,
    outer as outer,
    product_over_batch as product_over_batch,
    rows_of_members as rows_of_members,
    stack as stack,
    sum_at as sum_at,
    sum_of_rows as sum_of_rows,
    sum_of_squares as sum_of_squares,
    sum_over_batch as sum_over_batch,
    transposed as transposed,
    with_diagonal as with_diagonal,
)

# The other names are for this library's own modules.
__all__ = [
    "CONVERSION_METHODS",
    "Array",
    "Backend",
    "BackendStatus",
    "BackendUnavailableError",
    "Conversion",
    "DType",
    "DTypeNotKeptError",
    "Device",
    "LazyModule",
    "Memory",
    "Namespace",
    "Probe",
    "Selection",
    "TransferError",
    "array_namespace",
    "asarray",
    "device_aware",
    "device_of",
    "explicit",
    "get_backend",
    "holds_a_mask",
    "leaves_by_dlpack",
    "list_backends",
    "module_if_imported",
    "namespace_with",
    "replaceable",
    "resolve",
    "set_default_backend",
    "to_host",
    "transfer_guard",
    "try_library",
    "use_backend",
]


def __dir__() -> list[str]:
    return __all__
