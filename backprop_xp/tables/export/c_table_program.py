"""A program in C that compares the file of a table's model with the library, where it runs."""

import numpy as np
import pandas as pd

from backprop_xp.files.c_export.c_functions import Recorded
from backprop_xp.files.c_export.c_self_test import CLOSE, TESTED_ROWS
from backprop_xp.files.c_export.c_source import constant_lines
from backprop_xp.tables.export.c_row import rows_in_c
from backprop_xp.tables.model.fitted_model import TabularModel

_PROGRAM = """/* Returns 0 if {file} has the library's results here, else the number of a row. */
#include "{file}"

static const {name}_row rows[{count}] = {{
{rows}
}};

{results}
int main(void)
{{
    for (int row = 0; row < {count}; ++row) {{
        double found[{columns}];
        {call};
        for (int i = 0; i < {columns}; ++i)
            if (!(fabs(found[i] - results[row * {columns} + i]) <= {close})) return row + 1;
    }}
    return 0;
}}
"""


def test_program(model: TabularModel, one: Recorded, frame: pd.DataFrame, file: str) -> str:
    """Return the text of the program for at most 32 rows of a plain table.

    Raises ValueError for values that C cannot hold.
    """
    frame, name = frame.iloc[:TESTED_ROWS], one.source.name
    results, _ = model.outputs(frame, backend="numpy")
    call = f"{name}_predict(rows + row, found)"
    if model.classes is None:
        results, call = results[:, None], f"found[0] = {name}_predict(rows + row)"
    # Relative to the standardized results, and to the rounding of the unit.
    largest = max(model.scale.scale, float(np.max(np.abs(results - model.scale.mean))))
    close = CLOSE[one.theta.dtype.name] * largest + 1e-15 * float(np.max(np.abs(results)))
    return _PROGRAM.format(
        file=file,
        name=name,
        count=len(frame),
        rows="\n".join(f"    {row}," for row in rows_in_c(model, frame)),
        results="\n".join(constant_lines("results", results)),
        columns=results.shape[-1],
        call=call,
        close=close,
    )
