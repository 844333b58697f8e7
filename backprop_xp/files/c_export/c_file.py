"""A network as one file of C99, with its interface as comments."""

import os
import re
import sys
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from backprop_xp.atomic_files import write
from backprop_xp.backends import Array
from backprop_xp.checks import boolean, known
from backprop_xp.files.c_export import c_functions
from backprop_xp.files.c_export.c_functions import Function, Recorded
from backprop_xp.files.c_export.c_source import Source, literal, storage
from backprop_xp.files.recording import one_network
from backprop_xp.networks.network import Network

_HEAD = """/* {name}: a neural network, written by backprop_xp {version}.
 *
{table}
 *
 * Include this file, or compile it by itself and include it with {upper}_DECLARATIONS_ONLY
 * defined. It is C99 and C++, and needs <math.h> alone. No function allocates memory or keeps
 * state: threads can share them. Their arrays take {upper}_STACK_BYTES bytes of the stack.
 * Results must not overlap arguments. NaN and infinity pass as in the library.
 * {upper}_CHECKSUM is the CRC-32 of the parameters, little-endian.
 */
#ifdef __FAST_MATH__
#error "-ffast-math drops NaN and infinity: compile this file without it"
#endif
"""


def export_c(
    path: str | os.PathLike[str],
    network: Network,
    theta: Array,
    *,
    name: str = "network",
    dtype: str = "float32",
    derivatives: bool = False,
) -> None:
    """Write a network with one theta ``(P,)`` as a file of C99, which is C++ too.

    ``NAME_predict(x, y)`` is ``network.predict`` of one row, and ``NAME_outputs(x, y)`` the outputs
    before the loss's link. With ``derivatives``, ``NAME_jacobian(x, jacobian)`` is the derivative
    of each output by each feature. The file needs ``<math.h>`` alone, allocates no memory and has
    no state; its comments are the interface. ``dtype`` is the precision of its numbers.

    The layers' own functions run once on arrays that record them, so your own layers are exported
    too. Raises ValueError for a stack of thetas, for a network that does not define its number of
    features and for a name that cannot begin names in C; TypeError for a layer of your own that
    cannot be recorded.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "network.c")
    >>> bx.export_c(path, network, network.initialize())
    """
    _check_name(name)
    precision = known(dtype, ("float32", "float64"), "dtype")
    derivatives = boolean(derivatives, "derivatives")
    host = one_network(network, theta).astype(precision)
    source = Source(name, "int" if network.size < 2**15 else "long")
    one = c_functions.recorded(network, host.dtype, source, f"{name}_theta", f"{{}} {name}")
    made = [c_functions.outputs(one)]
    made.append(c_functions.predict(one, made[0]))
    if derivatives:
        made.append(c_functions.jacobian(one))
    write(path, "\n".join(_lines(one, host, made)).encode("ascii"))


def _check_name(name: str) -> None:
    """Raise unless names in C and C++ can begin with a name."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, such as 'network', not {name!r}.")
    if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name):
        raise ValueError(
            f"name is {name!r}, but the names of C functions begin with it: use letters, digits "
            "and single underscores, a letter first, such as 'network'."
        )


def _lines(one: Recorded, theta: np.ndarray, made: Sequence[Function]) -> Iterator[str]:
    """Yield the lines of a file: the interface, and what ``DECLARATIONS_ONLY`` leaves out."""
    name, upper = one.source.name, one.source.name.upper()
    yield _head(one)
    yield from [f"#ifndef {upper}_DECLARED", f"#define {upper}_DECLARED", ""]
    yield f"#define {upper}_N_IN {one.network.widths[0]}"
    yield f"#define {upper}_N_OUT {one.n_out}"
    yield f"#define {upper}_STACK_BYTES {max(each.stack for each in made)}"
    yield f"#define {upper}_CHECKSUM 0x{_checksum(theta):08x}UL"
    yield from ["", "#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    for each in made:
        if each.is_public:
            yield from [f"/* {each.comment} */", f"{each.declaration};", ""]
    yield from ["#ifdef __cplusplus", "}", "#endif", "#endif", ""]
    yield from [f"#ifndef {upper}_DECLARATIONS_ONLY", "#include <math.h>", ""]
    yield from _constant(f"{name}_theta", theta)
    for (dtype, content), constant in one.source.constants.items():
        yield from _constant(constant, np.frombuffer(content, dtype))
    yield from one.source.functions.values()
    for each in made:
        yield from [each.declaration, "{", *(f"    {line}" for line in each.lines), "}", ""]
    yield from ["#endif", ""]


def _head(one: Recorded) -> str:
    """Return the comment at the top, with the table of layers."""
    # The name of a class of yours can have any letters.
    table = one.network.describe().encode("ascii", "replace").decode().replace("*/", "* /")
    lines = [f" * {line}".rstrip() for line in table.splitlines()]
    version = sys.modules[__name__.partition(".")[0]].__version__
    name = one.source.name
    return _HEAD.format(name=name, upper=name.upper(), version=version, table="\n".join(lines))


def _checksum(theta: np.ndarray) -> int:
    return zlib.crc32(theta.astype(theta.dtype.newbyteorder("<")).tobytes())


def _constant(name: str, values: np.ndarray) -> Iterator[str]:
    """Yield the lines of an array of constants."""
    yield f"static const {storage(values.dtype)} {name}[{values.size}] = {{"
    texts = [literal(value, values.dtype) for value in values.reshape(-1).tolist()]
    for start in range(0, len(texts), 8):
        yield f"    {', '.join(texts[start : start + 8])},"
    yield from ["};", ""]
