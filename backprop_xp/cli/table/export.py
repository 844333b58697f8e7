"""The command ``export``: a model of a table as one ONNX graph, or as one file of C."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note

if TYPE_CHECKING:
    import pandas as pd

    from backprop_xp.tables.model.fitted_model import TabularModel
    from backprop_xp.tables.readers.formats import TableFile


def export(
    model: Annotated[str, typer.Argument(help="The file that train wrote.")],
    out: Annotated[
        Path | None,
        typer.Argument(
            callback=arguments.path_with(".onnx", ".c"),
            help="The file to write: .onnx or .c. Default: the model's name with .onnx.",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="What all names in the file of C begin with. Default: model."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="A table. Write model_test.c too, for model.c: a program that returns 0 if it "
            "predicts the table's first 32 rows as predict does."
        ),
    ] = None,
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
) -> None:
    """Write a model as one ONNX graph or one file of C, from columns to predictions.

    The graph needs ONNX Runtime alone, the file a C compiler. Each column is an input: a number, a
    string, or a date in microseconds since 1970. Columns of free text cannot be exported. With
    --test, a second file of C tests the first where it runs. The exit status is 2 for input that
    cannot be used.
    """
    out = Path(model).with_suffix(".onnx") if out is None else out
    with errors_in_one_line(2, [out]):
        is_c, program = out.suffix.lower() == ".c", None
        for option, value in {"--name": name, "--test": test}.items():
            if value is not None and not is_c:
                raise ValueError(f"{option} is for a file of C, but {out} is ONNX: leave it out.")
        if test is not None:
            program = out.with_name(f"{out.stem}_test.c")
        arguments.refuse_overwriting([model, test], {"out": out, "--test": program})
        trained, rows = tables.load(model), None
        if test is not None:
            file = tables.TableFile(test, separator, decimal, encoding, note)
            rows = _first_rows(file, trained.model_)
        if is_c:
            tables.export_c(out, trained, name="model" if name is None else name, test=rows)
        else:
            tables.export_onnx(out, trained)
        count = len(trained.preparation_.columns_)
        note(f"{count} column{'s' * (count != 1)} to predictions, written to {out}")
        if rows is not None:
            note(f"a test of it with {len(rows)} row{'s' * (len(rows) != 1)}, written to {program}")


def _first_rows(file: "TableFile", model: "TabularModel") -> "pd.DataFrame":
    """Return the rows of a table that a test has, with the columns of a training.

    Raises ValueError, as ``predict`` does, for a missing column and for a cell of another kind.
    """
    from backprop_xp.files.c_export.c_self_test import TESTED_ROWS
    from backprop_xp.tables.readers.table_files import naming_lines, read_pieces, with_fallback

    features, file = model.features, with_fallback(file, model.decimal)
    wanted = {"texts": features.texts, "numbers": features.numbers}
    with contextlib.closing(read_pieces(file, **wanted)) as pieces:
        frame = next(pieces)[0].iloc[:TESTED_ROWS]
    with naming_lines(file):
        features.transform(frame)
    return frame.reindex(columns=[*features.seen])
