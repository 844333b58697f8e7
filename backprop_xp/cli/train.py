"""The command ``train``: from a table in a file to a model in a file, with a report."""

import contextlib
import dataclasses
import functools
import inspect
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast, get_type_hints

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, note, say
from backprop_xp.cli.table_output import classes_table, metrics_table, parts_of
from backprop_xp.display.progress import Report, phrases_of, reporting
from backprop_xp.plots.canvas import new_figure
from backprop_xp.tables.settings import TASKS, Settings, Task

if TYPE_CHECKING:
    from backprop_xp.tables.model import TableModel
    from backprop_xp.tables.readers import TableFile
    from backprop_xp.tables.training_file import Watch

_DTYPES = ("float32", "float64")
_SIZES = ",".join(map(str, Settings.sizes))


def _share_or_path(name: str) -> Callable[[str], float | str | None]:
    """Return the callback of an option that is a share of the rows or the path of a table."""
    check = arguments.number_within(name, above=0.0, below=1.0)

    def callback(text: str) -> float | str | None:
        try:
            share = float(text)
        except ValueError:
            return text
        return check(share)

    return callback


def _setting_option(field: "dataclasses.Field[object]") -> inspect.Parameter:
    """Return the option of a field of ``Settings``: its name, type, default, help and check."""
    kind, default = get_type_hints(Settings)[field.name], field.default
    callback = arguments.callback_of(field.metadata["check"], field.name)
    if field.name == "sizes":
        kind, default, callback = str, _SIZES, lambda text: arguments.parse_sizes(text, _SIZES)
    names = [f"--{field.name.replace('_', '-')}"] if kind is bool else []
    option = typer.Option(*names, callback=callback, help=field.metadata["help"])
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(
        field.name, keyword, default=default, annotation=Annotated[kind, option]
    )


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of ``Settings`` instead of its ``**settings``."""
    signature = inspect.signature(command)
    own = [one for one in signature.parameters.values() if one.name != "settings"]
    start = list(signature.parameters).index("backend")
    own[start:start] = map(_setting_option, dataclasses.fields(Settings))
    command.__signature__ = signature.replace(parameters=own)  # type: ignore[attr-defined]
    return command


Target: TypeAlias = Annotated[str, typer.Option(help="The column to predict.")]
ChosenTask: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=arguments.one_of(TASKS),
        help="classification or regression. Default: inferred from the target.",
    ),
]
Columns: TypeAlias = Annotated[str, typer.Option(help="Use only these columns: A,B.")]
DroppedColumns: TypeAlias = Annotated[str, typer.Option(help="Leave out these columns: A,B.")]
Weights: TypeAlias = Annotated[str | None, typer.Option(help="The column of sample weights.")]
Validation: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=_share_or_path("validation"),
        help="A share of the rows, or a table: for early stopping and the choice of the network.",
    ),
]
Test: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=_share_or_path("test"),
        help="A share of the rows, or a table: for the report alone.",
    ),
]
DType: TypeAlias = Annotated[
    str, typer.Option(callback=arguments.one_of(_DTYPES), help=" or ".join(_DTYPES))
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


@_with_settings
def train(
    data: Annotated[str, typer.Argument(help=arguments.TABLE)],
    target: Target,
    task: ChosenTask = None,
    drop: DroppedColumns = "",
    features: Columns = "",
    weights: Weights = None,
    validation: Validation = "0.15",
    test: Test = "0.15",
    backend: arguments.Backend = None,
    device: arguments.Device = None,
    dtype: DType = "float32",
    out: Out = Path("model.safetensors"),
    resume: Resume = False,
    plot: Plot = None,
    log: Log = None,
    as_json: arguments.Json = False,
    separator: arguments.Separator = None,
    decimal: arguments.Decimal = None,
    encoding: arguments.Encoding = None,
    **settings: Any,
) -> None:
    """Train a network on a table, and compare it with a linear model and a trivial baseline.

    The report goes to stdout. Progress goes to stderr: a live two-line display on a terminal, plain
    lines otherwise. The exit status is 2 for input that cannot be used, and 130 after Ctrl-C, which
    keeps the best network so far: --resume continues.
    """
    # NumPy alone warns when a training diverges; on every backend an error says so.
    with errors_in_one_line(2), _interruption_hint(), np.errstate(all="ignore"):
        arguments.require_matplotlib(plot)
        outputs = {"--out": out, "--plot": plot, "--log": log}
        arguments.refuse_overwriting([data, validation, test], outputs)
        chosen = Settings(**settings)
        arguments.refuse_more(
            arguments.count_parameters([1, *chosen.sizes, 1]) * chosen.restarts, "--sizes"
        )
        table = functools.partial(_table, separator, decimal, encoding)
        with _live_losses() as show:
            model = tables.train(
                table(data),
                target,
                settings=chosen,
                task=cast("Task | None", task),
                features=arguments.split_names(features),
                drop=arguments.split_names(drop),
                weights=weights,
                validation=table(validation),
                test=table(test),
                backend=backend,
                device=device,
                dtype=dtype,
                out=out,
                resume=resume,
                say=note,
                watches=[show] if log is None else [show, LossLog(log)],
            )
        if plot is not None:
            _draw(model.history, plot)
    say(json.dumps(model.metadata["report"]) if as_json else _as_text(model, out))


def _table(
    separator: str | None, decimal: str | None, encoding: str | None, source: str | float
) -> "TableFile | float":
    """Return the table at a path; a share of the rows passes through."""
    if not isinstance(source, str):
        return source
    return tables.TableFile(source, separator, decimal, encoding, note)


@contextlib.contextmanager
def _interruption_hint() -> Iterator[None]:
    """Print on Ctrl-C how the training can be resumed."""
    try:
        yield
    except KeyboardInterrupt as error:
        hint = (
            "interrupted: the same command with --resume continues, or starts from the beginning "
            "if nothing was written"
        )
        note("\n".join(getattr(error, "__notes__", [hint])))
        raise


@contextlib.contextmanager
def _live_losses() -> "Iterator[Watch]":
    """Provide a function to call after each epoch, which shows the losses on stderr."""
    with contextlib.ExitStack() as displays:

        @functools.cache
        def report(epochs: int) -> Report:
            return displays.enter_context(reporting(epochs, phrases=_phrases))

        yield lambda epoch, epochs, losses: report(epochs)(epoch, lambda: losses)


def _phrases(losses: Mapping[str, np.ndarray]) -> list[str]:
    """Return a phrase for each loss, and the epoch of the best one of all restarts."""
    member = int(np.argmin(losses["best_loss"]))
    return phrases_of({**losses, "best_epoch": losses["best_epoch"].reshape(-1)[member]})


@dataclasses.dataclass
class LossLog:
    """A file with a line of JSON for each epoch; a resumed training keeps its earlier lines."""

    path: Path
    is_begun: bool = False

    def __call__(self, epoch: int, epochs: int, losses: Mapping[str, np.ndarray]) -> None:
        """Write the line of an epoch, with null for what is not finite."""
        if not self.is_begun:
            lines = self.path.read_text("utf-8").splitlines(True) if self.path.exists() else []
            self.path.write_text("".join(lines[: epoch - 1]), "utf-8")
            self.is_begun = True
        line: dict[str, object] = {"epoch": epoch}
        for name, values in losses.items():
            if not name.startswith("best"):
                line[name] = np.where(np.isfinite(values), values, np.asarray(None)).tolist()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _as_text(model: "TableModel", out: Path) -> str:
    metadata = model.metadata
    report, rows = metadata["report"], metadata["rows"]
    lines = [
        f"\n{report['epochs']} epochs, the best {metadata['best_epoch']}; rows: {parts_of(rows)}",
        metrics_table(report),
    ]
    if "classes" in metadata:
        lines += ["\nclasses, on the test rows", classes_table(metadata["classes"])]
    return "\n".join([*lines, f"\nmodel written to {out}"])


def _draw(history: Mapping[str, np.ndarray], path: Path) -> None:
    figure = new_figure()
    bx.plots.learning_curves(history, ax=figure.add_subplot())
    bx.plots.save(figure, path)
    note(f"plot written to {path}")
