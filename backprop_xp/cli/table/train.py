"""The command ``train``: from a table in a file to a model in a file, with a report."""

import contextlib
import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note, printable, printable_object, say
from backprop_xp.cli.table import training_options as options
from backprop_xp.cli.table.loss_log import LossLog, is_log
from backprop_xp.cli.table.table_output import classes_table, epochs_of, metrics_table, parts_of
from backprop_xp.extras import install_command
from backprop_xp.files.container import is_model_file
from backprop_xp.plots.canvas import new_figure
from backprop_xp.tables.model.presets import PRESETS
from backprop_xp.tables.model.tabular_parameters import PARAMETERS, Task

if TYPE_CHECKING:
    from backprop_xp.tables.interface.tabular import TabularClassifier, TabularRegressor
    from backprop_xp.tables.readers.formats import TableFile

# The prefixes of the variables that mpirun sets: Open MPI's and MPICH's.
_LAUNCHERS = "OMPI_COMM_WORLD", "PMI"


def train(
    context: typer.Context,
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    target: Annotated[str, typer.Option(help="The column to predict.")],
    task: options.ChosenTask = None,
    drop: options.Drop = None,
    features: options.FeatureColumns = None,
    weights: Annotated[str | None, typer.Option(help="The column of sample weights.")] = None,
    group: options.Group = None,
    time: options.Time = None,
    validation: options.Validation = "0.15",
    test: options.Test = None,
    cv: options.Folds = None,
    preset: options.Preset = "default",
    hidden_layer_sizes: options.HiddenLayerSizes = None,
    activation: options.Activation = None,
    solver: options.Solver = None,
    alpha: options.Alpha = None,
    batch_size: options.BatchSize = None,
    learning_rate: options.LearningRate = None,
    learning_rate_init: options.LearningRateInit = None,
    max_iter: options.MaxIter = None,
    dropout: options.Dropout = None,
    layer_norm: options.LayerNorm = None,
    n_members: options.NMembers = None,
    n_iter_no_change: options.NIterNoChange = None,
    metric: options.Metric = None,
    kinds: options.Kinds = None,
    random_state: options.RandomState = 0,
    class_weight: options.ClassWeight = None,
    backend: arguments.Backend = None,
    device: arguments.Device = None,
    dtype: options.DType = "float32",
    parallel: options.Parallel = False,
    out: options.Out = Path("model.safetensors"),
    resume: options.Resume = False,
    plot: options.Plot = None,
    log: options.Log = None,
    as_json: arguments.Json = False,
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
) -> None:
    """Train a network on a table, and compare it with other models.

    The others are a linear model, gradient boosting and a dummy baseline. An option that is not
    given has the value of --preset. The report goes to stdout. Progress goes to stderr: a live
    two-line display on a terminal, plain lines otherwise. The exit status is 2 for input that
    cannot be used, and 130 after Ctrl-C, which keeps the best network so far: --resume continues.
    """
    # NumPy alone warns when a training diverges; on every backend an error says so.
    with errors_in_one_line(2, [out]), np.errstate(all="ignore"):
        parameters = {name: context.params[name] for name in PARAMETERS if name in context.params}
        communicator = _communicator(context, parallel=parallel)
        _check_outputs([data, validation, test], out, plot, log)
        _refuse_large(parameters)
        parameters["kinds"] = options.kinds_of(kinds)
        read = functools.partial(_share_or_table, separator, decimal, encoding)
        rows = read(data)  # raises ImportError without the extra
        from backprop_xp.tables.report.parallel_training import train_ranks
        from backprop_xp.tables.report.problem import ColumnChoice, make_problem
        from backprop_xp.tables.report.table_training import train_table

        chosen, logs = cast("Task | None", task), [] if log is None else [LossLog(log)]
        own = parameters["kinds"] or {}
        columns = ColumnChoice(features or [], drop or [], weights, group, time, own)
        failures = list[OSError]()
        rest: dict[str, Any] = {"out": out, "resume": resume, "say": note, "callbacks": logs}
        rest["failed"] = failures.append
        if parallel:
            rest |= {"validation": validation, "test": test, "task": chosen}
            model = train_ranks(communicator, data, target, columns, parameters, **rest)
        else:
            parts = {"test": None if test is None else read(test), "validation": read(validation)}
            chosen_split: dict[str, Any] = {**parts, "seed": random_state, "cv": cv}
            problem = make_problem(rows, target, columns, task=chosen, **chosen_split)
            model = train_table(problem, parameters, **rest)
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
    """Return the communicator of ``--parallel``, None for one process; others print nothing more.

    Raises BadParameter for options that are not for ``--parallel``.
    """
    is_alone = max(int(os.environ.get(f"{name}_SIZE", 1)) for name in _LAUNCHERS) == 1
    if not parallel:
        if is_alone:
            return None
        if any(int(os.environ.get(f"{name}_RANK", 0)) for name in _LAUNCHERS):
            sys.exit(0)  # another status would end the first process before its line
        raise ValueError(
            "mpirun started several processes, and each would train the same: give --parallel."
        )
    communicator: Any = None
    try:
        from mpi4py import MPI

        communicator = MPI.COMM_WORLD
    except (ImportError, RuntimeError) as error:  # without mpi4py, without an MPI library
        if not is_alone:
            install = install_command("mpi", "mpich")
            raise ImportError(f"several processes need mpi4py ({error}): {install}") from None
    if communicator is not None and communicator.Get_rank():
        sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    others = {"time", "cv", "plot", "separator", "decimal", "encoding"}
    reason = "the rows of a Parquet dataset are streamed."
    arguments.refuse_others(context, context.params.keys() - others, "--parallel", reason)
    return communicator


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
    named = "the best is" if best.isdecimal() else "the best of each network is from"
    lines = [
        f"\n{report['epochs']} epochs, {named} {best}; rows: {parts_of(report['parts'])}",
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
