"""The options of the command ``train``: of its rows, its network and its files.

The options of the network are the parameters of the estimators, with their checks and help.
"""

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from backprop_xp.checks import nearest
from backprop_xp.cli import arguments
from backprop_xp.tables.columns.kinds import KINDS
from backprop_xp.tables.model.tabular_parameters import DTYPES, PARAMETERS, TASKS, checked


def _parameter(name: str, *names: str) -> Any:
    """Return the option of a parameter of the estimators."""
    callback: Any = arguments.callback_of(checked, name)
    return typer.Option(*names, callback=callback, help=PARAMETERS[name].help)


def _parsed_sizes(text: str | None) -> tuple[int, ...] | None:
    option = "--hidden-layer-sizes"
    return None if text is None else tuple(arguments.parse_sizes(text, "128,128", option))


def kinds_of(pairs: list[str] | None) -> dict[str, str] | None:
    """Return the kinds of columns from options such as ``zip=category``."""
    kinds = dict[str, str]()
    for pair in pairs or ():
        name, sign, kind = pair.rpartition("=")
        fault = None
        if not sign:
            fault = "is not a column and its kind, such as zip=category."
        elif name in kinds:
            fault = "names a column twice."
        elif kind not in KINDS:
            fault = f"has an unknown kind. {nearest(kind, [*KINDS])}"
        if fault:
            raise typer.BadParameter(f"{pair!r} {fault}", param_hint="'--kind'")
        kinds[name] = kind
    return kinds or None


# The rows.
ChosenTask: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=arguments.one_of(TASKS),
        help="classification or regression. Default: inferred from the target.",
    ),
]
Drop: TypeAlias = Annotated[
    list[str] | None, typer.Option(help=f"Leave out these columns. {arguments.COLUMNS}")
]
FeatureColumns: TypeAlias = Annotated[
    list[str] | None, typer.Option(help=f"Use only these columns. {arguments.COLUMNS}")
]
Group: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A column, which is no feature: its rows of one value stay together."),
]
Time: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A column: the newest rows are for the test, then those for validation."),
]
Validation: TypeAlias = Annotated[
    str,
    typer.Option(
        help="A share of the rows, drawn for each network, or a table: for early stopping and the "
        "choice of the epoch."
    ),
]
Test: TypeAlias = Annotated[
    str | None,
    typer.Option(help="A share of the rows, or a table: for the report alone. Default: 0.15."),
]
Folds: TypeAlias = Annotated[
    int | None,
    typer.Option(min=2, help="The folds of a cross-validation, in place of the test rows."),
]
# The network and its training.
Preset: TypeAlias = Annotated[str, _parameter("preset")]
HiddenLayerSizes: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=_parsed_sizes, help=PARAMETERS["hidden_layer_sizes"].help),
]
Activation: TypeAlias = Annotated[str | None, _parameter("activation")]
Solver: TypeAlias = Annotated[str | None, _parameter("solver")]
Alpha: TypeAlias = Annotated[float | None, _parameter("alpha")]
BatchSize: TypeAlias = Annotated[int | None, _parameter("batch_size")]
LearningRate: TypeAlias = Annotated[str | None, _parameter("learning_rate")]
LearningRateInit: TypeAlias = Annotated[float | None, _parameter("learning_rate_init")]
MaxIter: TypeAlias = Annotated[int | None, _parameter("max_iter")]
Dropout: TypeAlias = Annotated[float | None, _parameter("dropout")]
LayerNorm: TypeAlias = Annotated[
    bool | None, _parameter("layer_norm", "--layer-norm/--no-layer-norm")
]
NMembers: TypeAlias = Annotated[int | None, _parameter("n_members", "--members", "--n-members")]
NIterNoChange: TypeAlias = Annotated[int | None, _parameter("n_iter_no_change")]
Metric: TypeAlias = Annotated[str | None, _parameter("metric")]
# A callback would return a list: ``kinds_of`` reads the strings.
Kinds: TypeAlias = Annotated[
    list[str] | None, typer.Option("--kind", "--kinds", help=PARAMETERS["kinds"].help)
]
RandomState: TypeAlias = Annotated[int, _parameter("random_state")]
ClassWeight: TypeAlias = Annotated[str | None, _parameter("class_weight")]
# Where it runs, and the files.
DType: TypeAlias = Annotated[
    str, typer.Option(callback=arguments.one_of(DTYPES), help=" or ".join(DTYPES))
]
Parallel: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--parallel", help="Stream a Parquet dataset; one training of mpirun's processes."
    ),
]
Out: TypeAlias = Annotated[
    Path, typer.Option(callback=arguments.file_path, help="The file of the model.")
]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Resume the training in the file --out.")
]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(callback=arguments.picture_path, help="Plot the losses: .png, .svg or .pdf."),
]
Log: TypeAlias = Annotated[
    Path | None,
    typer.Option(callback=arguments.file_path, help="Write a line of JSON for each epoch."),
]
