"""The text of a file in C: its interface, its parameters and its functions."""

import contextlib
import re
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from backprop_xp.atomic_files import replacing
from backprop_xp.files.c_export.c_functions import Function, Recorded
from backprop_xp.files.c_export.c_source import constant_lines, in_comment

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

#if defined({upper}_CHECKSUM) && ({upper}_CHECKSUM != {checksum} || !defined({name}_DECLARED))
#error "two models have the name {name}, ignoring case: export one by another name, name='other'"
#endif
"""
_NO_FAST_MATH = """\
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "-ffast-math and -ffinite-math-only drop NaN and infinity: compile this file without them"
#endif"""


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
    yield from [f"#ifndef {name}_DECLARED", f"#define {name}_DECLARED", ""]
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


def write_files(path: Path, text: str, test: str | None) -> None:
    """Write a file, and beside it the program that tests it if there is one: both or none."""
    files = {path: text} if test is None else {path: text, _beside(path): test}
    with contextlib.ExitStack() as both:
        for file, content in files.items():
            both.enter_context(replacing(file)).write(content.encode())


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}_test.c")


def check_tested(path: Path) -> None:
    """Raise ValueError for a name of a file that ``#include`` cannot have."""
    if not path.name.isprintable() or any(part in path.name for part in ('"', "\\", "??")):
        raise ValueError(
            f"path ends in {path.name!r}, but the test includes a file of this name: use letters, "
            "digits, - and _."
        )
