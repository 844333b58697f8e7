"""A program in C that compares an exported file with the library, where it runs."""

import numpy as np

from backprop_xp.backends import Array, host_numbers
from backprop_xp.files.c_export.c_functions import Recorded
from backprop_xp.files.c_export.c_source import constant_lines
from backprop_xp.networks.ensemble import predict
from backprop_xp.networks.network import Network

TESTED_ROWS = 32
# Relative to the largest result: processors round exponentials and sums differently.
CLOSE = {"float32": 1e-5, "float64": 1e-12}

_PROGRAM = """/* Returns 0 if {file} has the library's results here, else the number of a row. */
#include "{file}"

{constants}
int main(void)
{{
    for (int row = 0; row < {rows}; ++row) {{
        {kind} found[{columns}];
{call}
        for (int i = 0; i < {columns}; ++i) {{
            const double error = (double)found[i] - (double)results[row * {columns} + i];
            if (!(fabs(error) <= {close})) return row + 1;
        }}
    }}
    return 0;
}}
"""


def test_program(one: Recorded, theta: np.ndarray, x: Array, file: str) -> str:
    """Return the text of the program for at most 32 rows of x.

    Raises ValueError for x of another width, and for a row whose result is not finite.
    """
    network, name, upper = one.network, one.source.name, one.source.name.upper()
    host = host_numbers(x, "test")
    try:
        rows = network.check_inputs(theta, host.astype(theta.dtype)[:TESTED_ROWS])[0]
    except ValueError as error:
        raise ValueError(f"test has rows that the network cannot take: {error}") from None
    call = f"{name}_predict(x + row * {upper}_N_IN, found);"
    given = rows if one.scaling is None else (rows - one.scaling.mean) / one.scaling.scale
    results, exact = (
        _results(network, theta.astype(dtype), given.astype(dtype))
        for dtype in (theta.dtype, "float64")
    )
    if theta.ndim > 1:
        call = call.replace("found", f"found, found + {upper}_N_OUT")
    if not np.all(np.isfinite(results)):
        row = int(np.argmin(np.all(np.isfinite(results), axis=-1)))
        raise ValueError(f"test[{row}] has a result that is not finite: leave this row out.")
    before = []
    if one.theta.detail == "theta":
        size = f"{upper}_N_MEMBERS * {upper}_N_PARAMETERS"
        before = [f"static {one.kind} theta[{size}];", f"{name}_start(theta);"]
        call = call.replace("predict(", "predict(theta, ")
    constants = [*constant_lines("x", rows), *constant_lines("results", results)]
    return _PROGRAM.format(
        file=file,
        constants="\n".join(constants),
        rows=len(rows),
        columns=results.shape[-1],
        kind=one.kind,
        call="\n".join(f"        {line}" for line in [*before, call]),
        close=_close(results, exact),
    )


def _results(network: Network, theta: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return the predictions of rows, of a stack mean and deviation side by side."""
    with np.errstate(all="ignore"):
        if theta.ndim > 1:
            return np.concatenate([*predict(network, theta, x)], axis=-1)
        return np.asarray(network.predict(theta, x))


def _close(results: np.ndarray, exact: np.ndarray) -> float:
    """Return the tolerance: results that lose digits do so in the library, too."""
    largest, error = float(np.max(np.abs(results))), float(np.max(np.abs(results - exact)))
    return CLOSE[results.dtype.name] * largest + 8.0 * error
