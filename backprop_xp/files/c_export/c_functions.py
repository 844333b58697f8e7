"""The functions of a network in C: recorded, planned and written.

``x``, ``y`` and ``theta`` are the names of their arguments, as in the library.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backprop_xp.files.c_export.c_loops import kernel_lines
from backprop_xp.files.c_export.c_source import TYPES, Source, storage
from backprop_xp.files.c_export.elementwise import as_array
from backprop_xp.files.c_export.lazy_arrays import LazyArray
from backprop_xp.files.c_export.lazy_functions import argument
from backprop_xp.files.c_export.plan import Kernel, Plan, in_order, plan
from backprop_xp.files.recording import recording
from backprop_xp.networks.batch_rows import Rows
from backprop_xp.networks.layout import unpack
from backprop_xp.networks.network import Network
from backprop_xp.networks.objective import loss_and_gradient_of
from backprop_xp.networks.propagation import Cache, backward_through, forward_through

_ON = "without values, of one row, x.shape == (1, n_in)"


class Function(NamedTuple):
    """A function in C: its declaration, a comment, its lines, and the bytes of its arrays."""

    declaration: str
    comment: str
    lines: list[str]
    stack: int

    @property
    def is_public(self) -> bool:
        """Whether another file can call it."""
        return not self.declaration.startswith("static ")


class Scaling(NamedTuple):
    """What brings a row to the network's features, ``(x - mean) / scale``: each ``(1, n_in)``."""

    mean: np.ndarray
    scale: np.ndarray


class Recorded(NamedTuple):
    """A recorded forward pass; ``theta`` is the file's constant, or an argument of each function.

    ``prefix`` begins the declarations: of a stack's members they are static. ``rows`` is the row
    that the network takes, scaled if there is a scaling.
    """

    network: Network
    source: Source
    theta: LazyArray
    scaling: Scaling | None
    rows: LazyArray
    outputs: LazyArray
    caches: list[Cache]
    prefix: str

    @property
    def n_out(self) -> int:
        """The number of outputs."""
        return self.outputs.shape[-1]

    @property
    def kind(self) -> str:
        """The type of numbers in C."""
        return TYPES[str(self.theta.dtype)]

    @property
    def n_targets(self) -> int:
        """The number of targets."""
        return self.n_out // self.network.loss_function.outputs_per_target

    def declaration(self, name: str, *arguments: str, result: str = "void") -> str:
        """Return the declaration of a function; arguments are such as ``"const x[N_IN]"``."""
        upper = self.source.name.upper()
        given = [f"const theta[{upper}_N_PARAMETERS]"] if self.theta.detail == "theta" else []
        given += [text.replace("[N_", f"[{upper}_N_") for text in arguments]
        typed = [
            f"const {self.kind} {text[6:]}" if text[:6] == "const " else f"{self.kind} {text}"
            for text in given
        ]
        return f"{self.prefix.format(result)}_{name}({', '.join(typed)})"

    def call(self, name: str, *arguments: str) -> str:
        """Return the call of a function of this pass."""
        theta = ["theta"] if self.theta.detail == "theta" else []
        return f"{self.prefix.split()[-1]}_{name}({', '.join([*theta, *arguments])});"


def recorded(
    network: Network, theta: LazyArray, source: Source, prefix: str, scaling: Scaling | None
) -> Recorded:
    """Return the forward pass of one row, recorded."""
    caches, dtype = list[Cache](), theta.dtype
    x = argument("x", (1, int(network.widths[0] or 0)), dtype)
    rows = x if scaling is None else (x - scaling.mean) / scaling.scale
    with recording("C", _ON):
        parameters = unpack(network.layout, theta)
        outputs = forward_through(network.layers, parameters, rows, None, caches)
        if outputs.shape[:-1] != (1,):
            raise ValueError(f"one row has outputs of the shape {outputs.shape}")
        outputs = as_array(outputs, dtype)
    if max(x.size * outputs.shape[-1], *(one.size for one in in_order([outputs]))) >= 2**15:
        source.index = "long"
    return Recorded(network, source, theta, scaling, rows, outputs, caches, prefix)


def outputs(one: Recorded) -> Function:
    """Return ``NAME_outputs``."""
    made = plan({"y": one.outputs})
    declaration = one.declaration("outputs", "const x[N_IN]", "y[N_OUT]")
    comment = "y becomes the outputs before the loss's link, as network.forward returns them."
    lines = [*start_of(made, "x"), *kernels_of(made.kernels, made, one.source)]
    return Function(declaration, comment, lines, made.bytes)


def predict(one: Recorded, before: Function) -> Function:
    """Return ``NAME_predict``, which calls ``NAME_outputs``."""
    given = argument("outputs", one.outputs.shape, one.outputs.dtype)
    with recording("C", _ON):
        found = one.network.loss_function.link(given)
        if found.shape != given.shape:
            raise ValueError(f"outputs {given.shape} have predictions of the shape {found.shape}")
    declaration = one.declaration("predict", "const x[N_IN]", "y[N_OUT]")
    comment = "y becomes the predictions, as network.predict returns them."
    if found is given:
        return Function(declaration, comment, [one.call("outputs", "x", "y")], before.stack)
    made = plan({"y": as_array(found, given.dtype)})
    lines = [
        f"{one.kind} outputs[{one.n_out}];",
        *start_of(made),
        one.call("outputs", "x", "outputs"),
    ]
    lines += kernels_of(made.kernels, made, one.source)
    stack = before.stack + made.bytes + one.n_out * given.dtype.itemsize
    return Function(declaration, comment, lines, stack)


def jacobian(one: Recorded) -> Function:
    """Return ``NAME_jacobian``: the layers' backward pass, once for each output."""
    network, dtype = one.network, one.outputs.dtype
    g, index = argument("g", one.outputs.shape, dtype), one.source.index
    with recording("C", _ON):
        parameters = unpack(network.layout, one.theta)
        found, _ = backward_through(network.layers, parameters, one.caches, g)
        slopes = as_array(found, dtype)
        slopes = slopes if one.scaling is None else slopes / one.scaling.scale
        made = plan({"row": slopes}, loop="g")
    lines = [f"{one.kind} g[{one.n_out}];", *start_of(made, "x")]
    lines += kernels_of(made.kernels, made, one.source)
    lines += [f"for ({index} o = 0; o < {one.n_out}; ++o) {{"]
    lines += [f"    {one.kind} *row = jacobian + {network.widths[0]} * o;"]
    lines += [f"    for ({index} i = 0; i < {one.n_out}; ++i) g[i] = i == o;"]
    lines += [] if made.reads("g") else ["    (void)g;"]
    lines += [f"    {line}" for line in kernels_of(made.loop, made, one.source)] + ["}"]
    size = f"[N_OUT * {one.source.name.upper()}_N_IN]"
    declaration = one.declaration("jacobian", "const x[N_IN]", f"jacobian{size}")
    comment = "jacobian becomes the derivatives of each output by all features, output by output."
    return Function(declaration, comment, lines, made.bytes + one.n_out * dtype.itemsize)


def gradient(one: Recorded) -> Function:
    """Return ``NAME_gradient``: the loss of one row, and its gradient by theta."""
    network, dtype = one.network, one.outputs.dtype
    y = argument("targets", (1, one.n_targets), dtype)
    with recording("C", _ON):
        loss, found = loss_and_gradient_of(
            network, one.theta, Rows(one.rows, y), network.l2 or None
        )
        results = {"loss": as_array(loss, dtype), "gradient": as_array(found, dtype)}
    made = plan(results)
    lines = [f"{one.kind} loss[1];", *start_of(made, "x", "targets")]
    lines += [*kernels_of(made.kernels, made, one.source), "return loss[0];"]
    declaration = one.declaration(
        *("gradient", "const x[N_IN]", "const targets[N_TARGETS]", "gradient[N_PARAMETERS]"),
        result=one.kind,
    )
    comment = (
        "Returns the loss of one row with the penalty; gradient becomes its gradient by theta."
    )
    return Function(declaration, comment, lines, made.bytes + dtype.itemsize)


def start(one: Recorded) -> Function:
    """Return ``NAME_start``, which copies the file's parameters."""
    name, size, index = one.source.name, one.network.size, one.source.index
    upper = name.upper()
    declaration = f"void {name}_start({one.kind} theta[{upper}_N_PARAMETERS])"
    line = f"for ({index} i = 0; i < {size}; ++i) theta[i] = {name}_theta[i];"
    comment = "theta becomes the parameters of the file, to be given to the other functions."
    return Function(declaration, comment, [line], 0)


def ensemble(one: Recorded, member: Function, head: str) -> Function:
    """Return the prediction of a stack: mean and deviation of the members, one by one.

    ``head`` is the declaration up to the arguments, such as ``"void NAME_predict"``.

    Welford 1962: the sum of squares is that of deviations, so that no digits cancel.
    """
    source, n = one.source, one.n_out
    index, kind, upper = source.index, one.kind, source.name.upper()
    root = f"sqrt{'f' if kind == 'float' else ''}"
    theta = f"{source.name}_theta + {one.network.size} * m"
    each = f"for ({index} i = 0; i < {n}; ++i) "
    lines = [
        f"{kind} y[{n}];",
        f"{each}mean[i] = deviation[i] = 0;",
        f"for ({index} m = 0; m < {upper}_N_MEMBERS; ++m) {{",
        f"    {source.name}_member_predict({theta}, x, y);",
        f"    {each}{{",
        f"        const {kind} shift = y[i] - mean[i];",
        f"        mean[i] += shift / ({kind})(m + 1);",
        "        deviation[i] += shift * (y[i] - mean[i]);",
        "    }",
        "}",
        f"{each}deviation[i] = {root}(deviation[i] / {upper}_N_MEMBERS);",
    ]
    arguments = f"const {kind} x[{upper}_N_IN], {kind} mean[{upper}_N_OUT]"
    declaration = f"{head}({arguments}, {kind} deviation[{upper}_N_OUT])"
    comment = "The mean and the standard deviation of the members' predictions."
    stack = member.stack + n * one.outputs.dtype.itemsize
    return Function(declaration, comment, lines, stack)


def start_of(made: Plan, *arguments: str) -> list[str]:
    """Return the lines of a plan's buffers, and those that mark arguments as unused."""
    buffers = [f"{storage(dtype)} {name}[{size}];" for name, dtype, size in made.buffers]
    return [*buffers, *(f"(void){name};" for name in arguments if not made.reads(name))]


def kernels_of(kernels: Sequence[Kernel], made: Plan, source: Source) -> list[str]:
    """Return the lines of kernels of a plan."""
    return [line for one in kernels for line in kernel_lines(one, made.places, source)]
