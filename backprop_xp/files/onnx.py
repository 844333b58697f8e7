"""ONNX: the forward pass runs on arrays that record their operations as the graph."""

import os
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from backprop_xp.atomic_files import write
from backprop_xp.backends import Array, DType, dtype_name
from backprop_xp.checks import known
from backprop_xp.extras import install_command
from backprop_xp.files.recording import exported, in_precision, recording
from backprop_xp.networks.chain.layout import unpack
from backprop_xp.networks.chain.propagation import forward_through, linked
from backprop_xp.networks.network import Network


def export_onnx(
    path: str | os.PathLike[str], network: Network, theta: Array, *, dtype: DType | None = None
) -> None:
    """Write ``network.predict`` of one theta ``(P,)`` as an ONNX file.

    ``dtype`` is the precision of its numbers, ``"float32"`` or ``"float64"``, by default theta's.

    Its input ``x`` is ``(batch, n_in)`` with any number of rows, its output ``predictions``
    ``(batch, n_out)``. Dropout is left out, as in inference. Raises ValueError for a stack of
    thetas, for numbers that ``dtype`` cannot hold, and for a network that does not define its
    number of features; TypeError for a layer of your own that cannot be recorded.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.onnx")
    >>> bx.export_onnx(path, network, network.initialize())
    """
    ndx, _ = libraries()
    host, n_in = exported(network, theta), network.widths[0]
    if dtype is not None:
        precision = known(dtype_name(dtype), ("float32", "float64"), "dtype")
        host = in_precision(host, "theta", precision)
    x = ndx.argument(shape=("batch", n_in), dtype=getattr(ndx, host.dtype.name))
    write_graph(path, {"x": x}, {"predictions": recorded_predictions(network, host, x)})


def recorded_predictions(network: Network, theta: np.ndarray, x: Array) -> Array:
    """Return ``network.predict`` for an array of ndonnx, stacked as theta ``(..., P)``."""
    ndx, _ = libraries()
    n_out = network.outputs_shape(theta, np.zeros((1, network.widths[0]), theta.dtype))[-1]
    parameters = [[ndx.asarray(one) for one in layer] for layer in unpack(network.layout, theta)]
    with recording("ONNX", "without values and without a number of rows, x.shape[0]"):
        outputs = forward_through(linked(network.layers, parameters), x, None)
        if outputs.shape[-1] is None:  # an inverse link may depend on it
            outputs = ndx.reshape(outputs, (*theta.shape[:-1], -1, n_out))
        return network.loss_function.inverse_link(outputs)


def write_graph(
    path: str | os.PathLike[str], inputs: Mapping[str, Array], outputs: Mapping[str, Array]
) -> None:
    """Write the operations from inputs to outputs, arrays of ndonnx, as an ONNX file."""
    ndx, onnx = libraries()
    write(path, onnx.ModelProto.SerializeToString(ndx.build(inputs, outputs)))


def libraries() -> tuple[ModuleType, ModuleType]:
    """Return ndonnx and onnx; raise ImportError without the extra."""
    try:
        import ndonnx
        import onnx
    except ImportError as error:
        raise ImportError(f"ONNX files need ndonnx and onnx: {install_command('onnx')}") from error
    return ndonnx, onnx
