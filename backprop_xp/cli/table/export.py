"""The command ``export``: a model of a table as one ONNX graph, or as one file of C."""

from pathlib import Path
from typing import Annotated

import typer

from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note


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
) -> None:
    """Write a model as one ONNX graph or one file of C, from columns to predictions.

    The graph needs ONNX Runtime alone, the file a C compiler. Each column is an input: a number, a
    string, or a date in microseconds since 1970. Columns of free text cannot be exported. The exit
    status is 2 for input that cannot be used.
    """
    out = Path(model).with_suffix(".onnx") if out is None else out
    with errors_in_one_line(2, [out]):
        arguments.refuse_overwriting([model], {"out": out})
        is_c = out.suffix.lower() == ".c"
        if name is not None and not is_c:
            raise ValueError(f"--name is for a file of C, but {out} is ONNX: leave it out.")
        trained = tables.load(model)
        if is_c:
            tables.export_c(out, trained, name="model" if name is None else name)
        else:
            tables.export_onnx(out, trained)
        count = len(trained.preparation_.columns_)
        note(f"{count} column{'s' * (count != 1)} to predictions, written to {out}")
