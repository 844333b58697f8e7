"""The command ``train``: from a table in a file to a model in a file, with a report."""

import contextlib
import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.checks import nearest
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note, printable, printable_object, say
from backprop_xp.cli.table.loss_log import LossLog, is_log
from backprop_xp.cli.table.table_output import classes_table, epochs_of, metrics_table, parts_of
from backprop_xp.extras import install_command
from backprop_xp.files.container import is_model_file
from backprop_xp.plots.canvas import new_figure
from backprop_xp.tables.columns.kinds import KINDS
from backprop_xp.tables.model.presets import PRESETS
from backprop_xp.tables.model.tabular_parameters import (
    DTYPES,
    PARAMETERS,
    TASKS,
    ClassifierParameters,
    Task,
    checked,
)

if TYPE_CHECKING:
    from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
    from backprop_xp.tables.readers.formats import TableFile

# The options that are not named as their parameters.
_NAMES = {"n_members": ["--members", "--n-members"], "kinds": ["--kind", "--kinds"]}
# The prefixes of the variables that mpirun sets: Open MPI's and MPICH's.
_LAUNCHERS = "OMPI_COMM_WORLD", "PMI"


def _parameter_option(name: str, kind: type) -> inspect.Parameter:
    """Return the option of a parameter: its name, type, default, help and check."""
    callback: Any = arguments.callback_of(checked, name)
    if name == "hidden_layer_sizes":
        callback = _parsed_sizes
    if name == "kinds":  # a callback would return a list: ``_kinds`` reads it
        callback = None
    default = 0 if name == "random_state" else getattr(ClassifierParameters, name)
    names = [f"--{name}/--no-{name}".replace("_", "-")] if kind is bool else []
    names = _NAMES.get(name, names)
    option = typer.Option(*names, callback=callback, help=PARAMETERS[name].help)
    taken: Any = kind if default is not None else kind | None
    annotation = Annotated[taken, option]
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def _parsed_sizes(text: str | None) -> tuple[int, ...] | None:
    option = "--hidden-layer-sizes"
    return None if text is None else tuple(arguments.parse_sizes(text, "128,128", option))


def _kinds(pairs: list[str] | None) -> dict[str, str] | None:
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


def _with_parameters(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each parameter instead of its ``**parameters``."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.name != "parameters"]
    start = list(signature.parameters).index("backend")
    options = {name: one.option for name, one in PARAMETERS.items() if one.option is not None}
    own[start:start] = [_parameter_option(name, kind) for name, kind in options.items()]
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return command


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
DType: TypeAlias = Annotated[
    str, typer.Option(callback=arguments.one_of(DTYPES), help=" or ".join(DTYPES))
]
Out: TypeAlias = Annotated[
    Path, typer.Option(callback=arguments.file_path, help="The file of the model.")
]
Parallel: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--parallel", help="Stream a Parquet dataset; one training of mpirun's processes."
    ),
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


@_with_parameters
def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    task: ChosenTask = None,
    drop: Drop = None,
    features: FeatureColumns = None,
    weights: Annotated[str | None, typer.Option(help="The column of sample weights.")] = None,
    group: Group = None,
    time: Time = None,
    validation: Validation = "0.15",
    test: Test = None,
    cv: Folds = None,
    backend: arguments.Backend = None,
    device: arguments.Device = None,
    dtype: DType = "float32",
    parallel: Parallel = False,
    out: Out = Path("model.safetensors"),
    resume: Resume = False,
    plot: Plot = None,
    log: Log = None,
    as_json: arguments.Json = False,
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
    **parameters: Any,
) -> None:
    """Train a network on a table, and compare it with other models.

    The others are a linear model, gradient boosting and a trivial baseline. An option that is not
    given has the value of --preset. The report goes to stdout. Progress goes to stderr: a live
    two-line display on a terminal, plain lines otherwise. The exit status is 2 for input that
    cannot be used, and 130 after Ctrl-C, which keeps the best network so far: --resume continues.
    """
    # NumPy alone warns when a training diverges; on every backend an error says so.
    with errors_in_one_line(2, [out]), np.errstate(all="ignore"):
        communicator = _communicator(context, parallel=parallel)
        _check_outputs([data, validation, test], out, plot, log)
        _refuse_large(parameters)
        parameters["kinds"] = _kinds(parameters["kinds"])
        read = functools.partial(_share_or_table, separator, decimal, encoding)
        rows = read(data)  # raises ImportError without the extra
        from backprop_xp.tables.report.parallel_training import train_ranks
        from backprop_xp.tables.report.problem import ColumnChoice, make_problem
        from backprop_xp.tables.report.table_training import train_table

        chosen, logs = cast("Task | None", task), [] if log is None else [LossLog(log)]
        kinds = parameters["kinds"] or {}
        columns = ColumnChoice(features or [], drop or [], weights, group, time, kinds)
        given = {**parameters, "backend": backend, "device": device, "dtype": dtype}
        failures = list[OSError]()
        options: dict[str, Any] = {"out": out, "resume": resume, "say": note, "callbacks": logs}
        options["failed"] = failures.append
        if parallel:
            options |= {"validation": validation, "task": chosen}
            model = train_ranks(communicator, data, target, columns, given, **options)
        else:
            parts = {"test": None if test is None else read(test), "validation": read(validation)}
            seed = parameters["random_state"]
            problem = make_problem(rows, target, columns, task=chosen, **parts, seed=seed, cv=cv)
            model = train_table(problem, given, **options)
    say(json.dumps(model.metadata_["report"]) if as_json else _as_text(model))
    if not (as_json or failures):
        say(f"\nmodel written to {printable(str(out))}")
    with errors_in_one_line(), np.errstate(all="ignore"):
        _finish(model.history_, plot, logs)
        for error in failures:
            raise error


def _check_outputs(
    inputs: Sequence[str | None], out: Path, plot: Path | None, log: Path | None
) -> None:
    """Raise BadParameter for an output that would replace an input or another command's file."""
    arguments.require_matplotlib(plot)
    arguments.refuse_overwriting(inputs, {"--out": out, "--plot": plot, "--log": log})
    arguments.refuse_foreign(out, is_model_file, "--out")
    arguments.refuse_foreign(log, is_log, "--log")


def _communicator(context: typer.Context, *, parallel: bool) -> Any:
    """Return the communicator of ``--parallel``, or None; one process alone prints from now on.

    Raises BadParameter for options that are not for ``--parallel``.
    """
    if not parallel:
        if max(int(os.environ.get(f"{name}_SIZE", 1)) for name in _LAUNCHERS) == 1:
            return None
        if any(int(os.environ.get(f"{name}_RANK", 0)) for name in _LAUNCHERS):
            sys.exit(0)  # another status would end the first process before its line
        raise ValueError(
            "mpirun started several processes, and each would train the same: give --parallel."
        )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # without mpi4py, without an MPI library
        install = install_command("mpi", "mpich")
        raise ImportError(f"--parallel needs mpi4py and MPI ({error}): {install}") from None
    if MPI.COMM_WORLD.Get_rank():
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    others = {"group", "time", "test", "cv", "plot", "separator", "decimal", "encoding"}
    reason = "the rows of a Parquet dataset are streamed."
    arguments.refuse_others(context, context.params.keys() - others, "--parallel", reason)
    return MPI.COMM_WORLD


def _refuse_large(parameters: Mapping[str, Any]) -> None:
    """Raise BadParameter for networks that do not fit in memory."""
    preset = PRESETS[parameters["preset"]]
    sizes = parameters["hidden_layer_sizes"] or preset.hidden_layer_sizes
    count = arguments.count_parameters([1, *sizes, 1])
    members = parameters["n_members"] or preset.n_members
    arguments.refuse_more(count * members, "--hidden-layer-sizes")


def _share_or_table(
    separator: str | None, decimal: str | None, encoding: str | None, source: str
) -> "TableFile | float":
    """Return a share of the rows, or the table at a path."""
    with contextlib.suppress(ValueError):
        return float(source)
    return tables.TableFile(source, separator, decimal, encoding, note)


def _as_text(model: "TabularClassifier | TabularRegressor") -> str:
    metadata = printable_object(model.metadata_)
    report, best = metadata["report"], epochs_of(model.best_iter_)
    lines = [
        f"\n{report['epochs']} epochs, the best {best}; rows: {parts_of(report['parts'])}",
        metrics_table(report),
    ]
    if "classes" in metadata:
        lines += ["\nclasses, on the test rows", classes_table(metadata["classes"])]
    return "\n".join(lines)


def _finish(history: Mapping[str, np.ndarray], plot: Path | None, logs: Sequence[LossLog]) -> None:
    """Draw the losses, and raise an error if a log lacks lines."""
    if plot is not None:
        figure = new_figure()
        bx.plots.learning_curves(history, ax=figure.add_subplot())
        bx.plots.save(figure, plot)
        note(f"plot written to {plot}")
    for log in logs:
        log.require_all_lines()
