"""The functions of a network in C: recorded, planned and written.

``x``, ``y`` and ``theta`` are the names of their arguments, as in the library.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from backprop_xp.files.c_export.c_loops import kernel_lines
from backprop_xp.files.c_export.c_source import TYPES, Source, in_comment, storage
from backprop_xp.files.c_export.elementwise import as_array
from backprop_xp.files.c_export.lazy_arrays import LazyArray
from backprop_xp.files.c_export.lazy_functions import argument
from backprop_xp.files.c_export.plan import Kernel, Plan, in_order, plan
from backprop_xp.files.recording import recording
from backprop_xp.networks.chain.batch_rows import Rows
from backprop_xp.networks.chain.layout import unpack
from backprop_xp.networks.chain.propagation import Cache, backward_through, forward_through, linked
from backprop_xp.networks.derivatives.bound import loss_and_gradient_of
from backprop_xp.networks.derivatives.input_derivatives import slopes_of
from backprop_xp.networks.layers.activations import identity
from backprop_xp.networks.network import Network

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

    ``form`` is that of declarations, with places for the result and the function: a stack's members
    have ``"static {} NAME_{}_of_member"``. The theta of a whole stack is longer than its network's.
    ``rows`` is the row that the network takes, scaled if there is a scaling, and ``ends`` are the
    layers' outputs.
    """

    network: Network
    source: Source
    theta: LazyArray
    scaling: Scaling | None
    rows: LazyArray
    outputs: LazyArray
    caches: list[Cache]
    ends: list[LazyArray]
    form: str

    @property
    def n_out(self) -> int:
        """The number of outputs."""
        return self.outputs.shape[-1]

    @property
    def given(self) -> tuple[str, str]:
        """The names of theta and x."""
        return str(self.theta.detail), "x"

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
        is_whole = self.theta.size == self.network.size
        size = f"{'' if is_whole else 'N_MEMBERS * '}N_PARAMETERS"
        given = [f"const theta[{size}]"] if self.theta.detail == "theta" else []
        upper = self.source.name.upper()
        given = [re.sub(r"\bN_", f"{upper}_N_", text) for text in (*given, *arguments)]
        typed = [
            f"const {self.kind} {text[6:]}" if text[:6] == "const " else f"{self.kind} {text}"
            for text in given
        ]
        return f"{self.form.format(result, name)}({', '.join(typed)})"

    def call(self, name: str, *arguments: str, theta: str = "theta") -> str:
        """Return the call of a function of this pass; ``theta`` is the expression of its theta."""
        first = [theta] if self.theta.detail == "theta" else []
        function = self.form.split()[-1].format(name)
        return f"{function}({', '.join([*first, *arguments])});"


def recorded(
    network: Network, theta: LazyArray, source: Source, form: str, scaling: Scaling | None
) -> Recorded:
    """Return the forward pass of one row, recorded."""
    caches, dtype = list[Cache](), theta.dtype
    x = argument("x", (1, int(network.widths[0] or 0)), dtype)
    rows = x if scaling is None else (x - scaling.mean) / scaling.scale
    with recording("C", _ON):
        outputs, ends = rows, list[LazyArray]()
        for i, own in enumerate(unpack(network.layout, theta)):
            chain = linked(network.layers[i : i + 1], [own], start=i)
            outputs = forward_through(chain, outputs, None, caches)
            ends.append(as_array(outputs))
        if outputs.shape[:-1] != (1,):
            raise ValueError(f"one row has outputs of the shape {outputs.shape}")
        outputs = ends[-1] = as_array(outputs, dtype)
    if max(x.size * outputs.shape[-1], *(one.size for one in in_order([outputs]))) >= 2**15:
        source.index = "long"
    return Recorded(network, source, theta, scaling, rows, outputs, caches, ends, form)


def outputs(one: Recorded) -> Function:
    """Return ``NAME_outputs``."""
    made = plan({"y": one.outputs}, ends=one.ends)
    declaration = one.declaration("outputs", "const x[N_IN]", "y[N_OUT]")
    comment = "y becomes network.forward's outputs, before the loss's inverse link."
    lines = [*start_of(made, *one.given), *kernels_of(made.kernels, made, one.source)]
    return Function(declaration, comment, lines, made.bytes)


def predict(one: Recorded, before: Function) -> Function:
    """Return ``NAME_predict``, which calls ``NAME_outputs``."""
    given = argument("outputs", one.outputs.shape, one.outputs.dtype)
    with recording("C", _ON):
        found = one.network.loss_function.inverse_link(given)
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


def jacobian(one: Recorded, *, predict: bool = False) -> Function:
    """Return ``NAME_jacobian``: the layers' backward pass, once for each output.

    With ``predict`` it is that of the predictions: the passes begin with the derivatives of the
    inverse link.
    """
    network, dtype, n_out = one.network, one.outputs.dtype, one.n_out
    g, index = argument("g", one.outputs.shape, dtype), one.source.index
    last = network.loss_function.inverse_link if predict else identity.value
    with recording("C", _ON):
        chain = linked(network.layers, unpack(network.layout, one.theta))
        found, _ = backward_through(chain, one.caches, g)
        row = as_array(found, dtype)
        row = row if one.scaling is None else row / one.scaling.scale
        before = {}
        if last is not identity.value:
            before = {"slopes": as_array(slopes_of(last, one.outputs), dtype)}
        made = plan({"row": row}, loop="g", before=before, ends=one.ends)
    lines = [f"{one.kind} g[{n_out}];", *(f"{one.kind} slopes[{n_out * n_out}];" for _ in before)]
    lines += [*start_of(made, *one.given), *kernels_of(made.kernels, made, one.source)]
    lines += [f"for ({index} o = 0; o < {n_out}; ++o) {{"]
    lines += [f"    {one.kind} *row = jacobian + {network.widths[0]} * o;"]
    first = f"slopes[{n_out} * o + i]" if before else "i == o"
    lines += [f"    for ({index} i = 0; i < {n_out}; ++i) g[i] = {first};"]
    lines += [] if made.reads("g") else ["    (void)g;"]
    lines += [f"    {line}" for line in kernels_of(made.loop, made, one.source)] + ["}"]
    declaration = one.declaration("jacobian", "const x[N_IN]", "jacobian[N_OUT * N_IN]")
    what = "prediction" if predict else "output"
    comment = f"jacobian becomes the derivatives of each {what} by all features, {what} by {what}."
    size = n_out * (1 + n_out * len(before)) * dtype.itemsize
    return Function(declaration, comment, lines, made.bytes + size)


def gradient(one: Recorded) -> Function:
    """Return ``NAME_gradient``: the loss of one row, and its gradient by theta."""
    network, dtype = one.network, one.outputs.dtype
    y = argument("targets", (1, one.n_targets), dtype)
    with recording("C", _ON, "In the loss."):
        loss, found = loss_and_gradient_of(
            network.definition, one.theta, Rows(one.rows, y), network.l2 or None
        )
        results = {"loss": as_array(loss, dtype), "gradient": as_array(found, dtype)}
    made = plan(results, ends=one.ends)
    lines = [f"{one.kind} loss[1];", *start_of(made, *one.given, "targets")]
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
    name, index = one.source.name, one.source.index
    declaration = one.declaration("start").replace("const ", "", 1)
    line = f"for ({index} i = 0; i < {one.theta.size}; ++i) theta[i] = {name}_theta[i];"
    comment = "theta becomes the parameters of the file, to be given to the other functions."
    return Function(declaration, comment, [line], 0)


def start_of(made: Plan, *arguments: str) -> list[str]:
    """Return the lines of a plan's buffers, and those that mark arguments as unused."""
    buffers = [f"{storage(dtype)} {name}[{size}];" for name, dtype, size in made.buffers]
    return [*buffers, *(f"(void){name};" for name in arguments if not made.reads(name))]


def kernels_of(kernels: Sequence[Kernel], made: Plan, source: Source) -> list[str]:
    """Return the lines of kernels of a plan, with comments where other layers begin."""
    lines, before = list[str](), ""
    for one in kernels:
        title = source.layers.title(one, made) or before
        lines += [f"/* {in_comment(title)} */"] if title != before else []
        lines += kernel_lines(one, made.places, source)
        before = title
    return lines
