"""A network as one file of C99, with its interface as comments."""

import contextlib
import os
import re
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from backprop_xp.atomic_files import replacing
from backprop_xp.backends import Array, owner, to_host
from backprop_xp.checks import boolean, known
from backprop_xp.files.c_export import c_ensemble, c_functions
from backprop_xp.files.c_export.c_functions import Function, Recorded, Scaling
from backprop_xp.files.c_export.c_self_test import test_program
from backprop_xp.files.c_export.c_source import Source, constant_lines, in_comment
from backprop_xp.files.c_export.lazy_functions import argument
from backprop_xp.files.recording import exported
from backprop_xp.networks.network import Network
from backprop_xp.training.data import Standardized

_HEAD = """/* {name}: a neural network, written by backprop_xp {version}.
 *
{table}
 *
 * Include this file, or compile it by itself and include it with {upper}_DECLARATIONS_ONLY
 * defined. It is C99 and C++, and needs <math.h> alone. No function allocates memory or keeps
 * state: threads can share them. Their arrays take {upper}_STACK_BYTES bytes of the stack.
 * Results must not overlap arguments. NaN and infinity pass as in the library.
 * {upper}_CHECKSUM is the CRC-32 of the parameters, little-endian. All names begin with {name}:
 * a second model in the same program needs another name, which the export takes as name=.
 */

#if defined({upper}_CHECKSUM) && {upper}_CHECKSUM != {checksum}
#error "two models have the name {name}: export one of them by another name, such as name='other'"
#endif
"""
_NO_FAST_MATH = """\
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "-ffast-math and -ffinite-math-only drop NaN and infinity: compile this file without them"
#endif"""


def export_c(
    path: str | os.PathLike[str],
    network: Network,
    theta: Array,
    *,
    name: str = "network",
    dtype: str = "float32",
    derivatives: bool = False,
    gradient: bool = False,
    preparation: Standardized | Mapping[str, Array] | None = None,
    test: Array | None = None,
) -> None:
    """Write a network with its theta ``(P,)`` as a file of C99, which is C++ too.

    ``NAME_predict(x, y)`` is ``network.predict`` of one row, and ``NAME_outputs(x, y)`` the outputs
    before the loss's link. For a stack ``(..., P)``, ``NAME_predict(x, mean, deviation)`` is
    ``bx.ensemble.predict``. The file needs ``<math.h>`` alone, allocates no memory and has no
    state; its comments are the interface. ``dtype`` is the precision of its numbers. Two files of
    one program need two names.

    - With ``derivatives``, ``NAME_jacobian(x, jacobian)`` is the derivative of each output by each
      feature. Of a stack, ``NAME_jacobian(x, mean, deviation)`` is that of ``NAME_predict``.
    - With ``gradient``, a device can go on training: ``NAME_gradient(theta, x, targets, gradient)``
      returns the loss of one row and computes its gradient. ``theta`` is then the first argument of
      all functions, and ``NAME_start(theta)`` fills it. Of a stack, the gradient is one member's.
    - With ``preparation``, as of ``bx.save``, x is a raw row: mean and scale standardize it first.
      Where a mean is some thousand times as large as its scale, use float64: float32 has seven
      digits.
    - With ``test``, rows of x, a second file is written: ``network_test.c`` for ``network.c``. Its
      program returns 0 if the results of the first 32 rows are right where it runs.

    The layers' own functions run once on arrays that record them, so your own layers are exported
    too. Raises ValueError for a network that does not define its number of features, for numbers
    that ``dtype`` cannot hold and for a name that cannot begin names in C; TypeError for a layer of
    your own that cannot be recorded.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> network = bx.mlp([2, 3, 1])
    >>> path = os.path.join(tempfile.mkdtemp(), "network.c")
    >>> bx.export_c(path, network, network.initialize())
    """
    check_name(name)
    precision = known(dtype, ("float32", "float64"), "dtype")
    wanted = boolean(derivatives, "derivatives"), boolean(gradient, "gradient")
    host = _cast(exported(network, theta, stack=True), "theta", precision)
    scaling = None if preparation is None else _scaling(network, preparation, precision)
    one, made = _functions(network, host, name, scaling, wanted)
    files = {Path(path): file_text(one, host, made)}
    if test is not None:
        beside = Path(path).with_name(f"{Path(path).stem}_test.c")
        files[beside] = test_program(one, host, test, Path(path).name)
    with contextlib.ExitStack() as both:  # both files are replaced, or none
        for file, text in files.items():
            both.enter_context(replacing(file)).write(text.encode())


def _cast(values: np.ndarray, name: str, dtype: str) -> np.ndarray:
    """Return values in the dtype of the file; ValueError if one is beyond its range."""
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if np.any(np.isfinite(values) & ~np.isfinite(found)):
        raise ValueError(f"{name} has numbers beyond the range of {dtype}: use dtype='float64'.")
    return found


def _scaling(network: Network, given: Standardized | Mapping[str, Array], dtype: str) -> Scaling:
    """Return a preparation's mean and scale on the host.

    Raises TypeError unless they are arrays, and ValueError unless they fit a row.
    """
    parts = given._asdict() if isinstance(given, Standardized) else given
    if not isinstance(parts, Mapping) or any(owner(one) is None for one in parts.values()):
        raise TypeError(
            "preparation must be a result of bx.data.standardize, or a mapping with its arrays "
            f"mean and scale, not {given!r}."
        )
    n_in, names = network.widths[0], ("mean", "scale")
    shapes = {name: tuple(parts[name].shape) for name in names if name in parts}
    if any(shapes.get(name) not in ((n_in,), (1, n_in)) for name in names):
        raise ValueError(
            f"preparation has the arrays {shapes}, but mean and scale (1, {n_in}) are expected, as "
            "of bx.data.standardize."
        )
    mean, scale = (_cast(to_host(parts[name]).reshape(1, -1), name, dtype) for name in names)
    if not np.all(scale):
        at = int(np.argmin(scale != 0))
        raise ValueError(f"scale[{at}] is 0 in {dtype}: a constant feature has the scale 1.")
    return Scaling(mean, scale)


def _functions(
    network: Network,
    theta: np.ndarray,
    name: str,
    scaling: Scaling | None,
    wanted: tuple[bool, bool],
) -> tuple[Recorded, list[Function]]:
    """Return the recorded network or stack, and the functions of its file.

    ``wanted`` are whether derivatives and the gradient are.
    """
    source, is_stack = Source.of(network, theta, name), theta.ndim > 1
    derivatives, gradient = wanted
    public, own = f"{{}} {name}", "theta" if gradient else f"{name}_theta"
    vector = argument("theta" if is_stack else own, (network.size,), theta.dtype)
    prefix = f"static {public}_member" if is_stack else public
    one = c_functions.recorded(network, vector, source, prefix, scaling)
    every = c_ensemble.stack_of(one, theta.size // network.size, public, own)
    outputs = c_functions.outputs(one)
    made = [outputs, predict := c_functions.predict(one, outputs)]
    if is_stack:
        made.append(c_ensemble.predict(every, one, predict))
    if derivatives:
        made.append(slopes := c_functions.jacobian(one, predict=is_stack))
        made += [c_ensemble.jacobian(every, one, slopes)] if is_stack else []
    if gradient:
        found = c_functions.gradient(one._replace(prefix=public))
        made += [c_functions.start(every), c_ensemble.of_member(found) if is_stack else found]
    return every, made


def check_name(name: str) -> None:
    """Raise unless names in C and C++ can begin with a name."""
    if not isinstance(name, str):
        raise TypeError(f"name must be a string, such as 'network', not {name!r}.")
    if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name):
        raise ValueError(
            f"name is {name!r}, but the names of C functions begin with it: use letters, digits "
            "and single underscores, a letter first, such as 'network'."
        )


def file_text(
    one: Recorded, theta: np.ndarray, made: Sequence[Function], types: Sequence[str] = ()
) -> str:
    """Return a file: the interface, and what ``DECLARATIONS_ONLY`` leaves out.

    ``types`` are lines that declare the types of arguments.
    """
    return "\n".join(_lines(one, theta, made, types))


def _lines(
    one: Recorded, theta: np.ndarray, made: Sequence[Function], types: Sequence[str]
) -> Iterator[str]:
    name, upper = one.source.name, one.source.name.upper()
    checksum = f"0x{zlib.crc32(theta.astype(theta.dtype.newbyteorder('<')).tobytes()):08x}UL"
    yield _head(one, checksum)
    yield from [f"#ifndef {upper}_DECLARED", f"#define {upper}_DECLARED", ""]
    yield f"#define {upper}_N_IN {one.network.widths[0]}"
    yield f"#define {upper}_N_OUT {one.n_out}"
    yield f"#define {upper}_N_PARAMETERS {one.network.size}"
    yield f"#define {upper}_N_TARGETS {one.n_targets}"
    yield f"#define {upper}_N_MEMBERS {theta.size // one.network.size}"
    yield f"#define {upper}_STACK_BYTES {max(each.stack for each in made)}"
    yield f"#define {upper}_CHECKSUM {checksum}"
    yield from ["", "#ifdef __cplusplus", 'extern "C" {', "#endif", "", *types]
    for each in made:
        if each.is_public:
            yield from [f"/* {each.comment} */", f"{each.declaration};", ""]
    yield from ["#ifdef __cplusplus", "}", "#endif", "#endif", ""]
    yield from [f"#ifndef {upper}_DECLARATIONS_ONLY", _NO_FAST_MATH, "#include <math.h>", ""]
    yield from constant_lines(f"{name}_theta", theta, _notes(one, theta))
    for (dtype, content), constant in one.source.constants.items():
        yield from constant_lines(constant, np.frombuffer(content, dtype))
    yield from one.source.functions.values()
    for each in made:
        yield from [each.declaration, "{", *(f"    {line}" for line in each.lines), "}", ""]
    yield from ["#endif", ""]


def _head(one: Recorded, checksum: str) -> str:
    """Return what is at the top: the comment with the table of layers, and a check of the name."""
    # The name of a class of yours can have any letters.
    table = in_comment(one.network.describe())
    lines = [f" * {line}".rstrip() for line in table.splitlines()]
    version = sys.modules[__name__.partition(".")[0]].__version__
    name = one.source.name
    fill = {"name": name, "upper": name.upper(), "version": version, "checksum": checksum}
    return _HEAD.format(table="\n".join(lines), **fill)


def _notes(one: Recorded, theta: np.ndarray) -> dict[int, str]:
    """Return the notes on the parameters of each member, by their first index."""
    size, parameters = one.network.size, one.source.layers.parameters
    return {
        start + first: f"member {start // size}, {text}" if theta.size > size else text
        for start in range(0, theta.size, size)
        for first, text in parameters.items()
    }
