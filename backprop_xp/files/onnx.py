"""ONNX: the forward pass runs on arrays that record their operations as the graph."""

import os
from types import ModuleType

import numpy as np

from backprop_xp.backends import Array, text_of, to_host
from backprop_xp.files.container import write
from backprop_xp.networks.layout import unpack
from backprop_xp.networks.network import Network
from backprop_xp.networks.propagation import forward_through

_RULE = 'docs/extending.md has the rule, under "A layer".'


def export_onnx(path: str | os.PathLike[str], network: Network, theta: Array) -> None:
    """Write ``network.predict`` of one theta ``(P,)`` as an ONNX file, in theta's precision.

    Its input ``x`` is ``(batch, n_in)`` with any number of rows, its output ``predictions``
    ``(batch, n_out)``. Dropout is left out, as in inference. Raises ValueError for a stack of
    thetas and for a network that does not define its number of features, TypeError for a layer of
    your own that cannot be recorded.
    """
    ndx, onnx = _libraries()
    network.unpack(theta)
    if len(theta.shape) != 1:
        raise ValueError(
            f"theta has shape {tuple(theta.shape)}, but one network ({network.size},) is exported: "
            "choose one of the stack, such as theta[0, :]."
        )
    n_in = network.widths[0]
    if n_in is None:
        raise ValueError(
            "The network does not define its number of features, which the input of an ONNX file "
            f"needs: give its first layer of another width the attribute n_in. {_RULE}"
        )
    host = to_host(theta)
    n_out = network.outputs_shape(host, np.zeros((1, n_in), host.dtype))[-1]
    x = ndx.argument(shape=("batch", n_in), dtype=getattr(ndx, host.dtype.name))
    parameters = [[ndx.asarray(value) for value in layer] for layer in unpack(network.layout, host)]
    try:
        outputs = forward_through(network.layers, parameters, x, None)
        if outputs.shape[-1] is None:  # a link may depend on it
            outputs = ndx.reshape(outputs, (-1, n_out))
        predictions = network.loss_function.link(outputs)
    except Exception as error:
        where = " ".join(getattr(error, "__notes__", ["In the loss's link."]))
        raise TypeError(
            f"The forward pass cannot be recorded for ONNX: {text_of(error)}. {where} It runs "
            "on arrays without values and without a number of rows, x.shape[0]: use functions of "
            f"the array API standard only. {_RULE}"
        ) from error
    model = ndx.build({"x": x}, {"predictions": predictions})
    write(path, onnx.ModelProto.SerializeToString(model))


def _libraries() -> tuple[ModuleType, ModuleType]:
    try:
        import ndonnx
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need ndonnx and onnx: pip install 'backprop_xp[onnx]'."
        ) from error
    return ndonnx, onnx
