"""The command ``xor``: a well-known exercise that trains XOR by hand."""

import contextlib
import functools
from pathlib import Path
from typing import Annotated, TypeAlias

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.backends import Array, array_namespace, dtype_name, to_host
from backprop_xp.cli import arguments
from backprop_xp.cli.output import errors_in_one_line, indent, say, say_reports
from backprop_xp.cli.xor_experiment import (
    INPUTS,
    TARGETS,
    Experiment,
    Measurement,
    Outcome,
    interval,
    learn,
    outcome,
    output_activation,
    prepare,
)
from backprop_xp.display.progress import Report, live, terminal
from backprop_xp.networks.losses.loss import LOSSES

# The losses of one output.
_LOSSES = [n for n, one in LOSSES.items() if one.least_outputs == one.outputs_per_target == 1]


def _check_sizes(text: str) -> list[int]:
    sizes = arguments.parse_sizes(text, "2,2,1")
    if len(sizes) < 2 or sizes[0] != 2 or sizes[-1] != 1:
        fault = "must start with 2 and end with 1: XOR has 2 inputs and 1 output"
        raise arguments.bad_sizes(text, fault, "2,2,1")
    return sizes


def _check_loss(name: str) -> str:
    if arguments.known(name, LOSSES) not in _LOSSES:
        raise typer.BadParameter(
            f"{name} needs two outputs or more, but XOR has one output: use binary_cross_entropy."
        )
    return name


LearningRate: TypeAlias = Annotated[
    float | None,
    typer.Option(
        callback=arguments.number_within("learning_rate", low=0.0),
        help="Default: a rate that suits the loss.",
    ),
]
Loss: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=_check_loss, help=f"{', '.join(_LOSSES)}; it determines the output activation."
    ),
]
Plot: TypeAlias = Annotated[
    Path | None,
    typer.Option(callback=arguments.picture_path, help="Write a picture: .png, .svg or .pdf."),
]


def xor(
    sizes: Annotated[str, typer.Option(help="Widths of the layers, from 2 to 1.")] = "2,2,1",
    epochs: Annotated[int, typer.Option(min=1, help="Updates, each from all four rows.")] = 10_000,
    learning_rate: LearningRate = None,
    loss: Loss = "mean_squared_error",
    hidden: arguments.Activation = "sigmoid",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial theta.")] = 0,
    restarts: Annotated[int, typer.Option(min=1, help="Networks to train at once.")] = 1,
    plot: Plot = None,
    backend: arguments.Backend = None,
) -> None:
    """Learn XOR and check the gradient, as in a well-known exercise that trains XOR by hand.

    --backend, or BACKPROP_XP_BACKEND, _DEVICE and _DTYPE, choose where it runs. The exit status is
    1 if the gradient fails its check. In float32 alone the check may be too coarse to decide.
    """
    widths = _check_sizes(sizes)
    arguments.refuse_more(arguments.count_parameters(widths), "--sizes")
    arguments.refuse_more(arguments.count_parameters(widths) * restarts, "--restarts")
    selection = contextlib.nullcontext() if backend is None else bx.use_backend(backend)
    # NumPy alone warns when a training diverges; on every backend the output says so.
    with errors_in_one_line(), np.errstate(all="ignore"), selection:
        arguments.require_matplotlib(plot)
        experiment = prepare(
            widths,
            loss=loss,
            hidden=hidden,
            learning_rate=learning_rate,
            epochs=epochs,
            seed=seed,
            restarts=restarts,
        )
        _show_data("--backend" if backend else bx.resolve().source)
        say(f"\nnetwork {'-'.join(map(str, widths))}, seed {seed}, loss {loss}")
        say(f"  activations: hidden {hidden}, output {output_activation(loss)}")
        _show_shapes(experiment)
        result, losses = _train(experiment)
        _show_outcome(experiment, result, is_cross_entropy=loss == "binary_cross_entropy")
        is_right = _check(experiment, result.start, is_squared_error=loss == "mean_squared_error")
        if plot is not None:
            _draw(experiment, result, losses, plot)
    if not is_right:
        raise typer.Exit(1)


def _show_data(source: str) -> None:
    where = bx.resolve()
    say(
        f"XOR on {where.backend.name} ({where.backend.device_name(where.device)}, "
        f"{dtype_name(where.dtype)}), "
        f"chosen by {source}\n\n  x1  x2  target"
    )
    for (x1, x2), (target,) in zip(INPUTS, TARGETS, strict=True):
        say(f"{x1:>4g}{x2:>4g}{target:>8g}")


def _show_shapes(experiment: Experiment) -> None:
    for name, array in (("x", experiment.x), ("y", experiment.y), ("theta", experiment.start)):
        say(f"  {name:<5}  {tuple(array.shape)}")
    say(indent(experiment.network.describe()))


def _train(experiment: Experiment) -> tuple[Outcome, dict[int, Array]]:
    """Train, print the cost about ten times, and return all measured losses by their epochs."""
    epochs, many = experiment.epochs, experiment.starts > 1
    starts = f"{experiment.starts} starts at once, " if many else ""
    say(
        f"\ntraining: {starts}{epochs} epochs of gradient descent on the full batch, "
        f"learning rate {experiment.learning_rate:g}"
    )
    heads = ("least cost", "median cost", "solved") if many else ("cost",)
    say(f"{'epoch':>9}" + "".join(f"{head:>14}" for head in heads))
    losses, lines = dict[int, Array](), 0
    console = terminal()
    nothing = contextlib.nullcontext[Report](lambda epoch, values: None)
    with nothing if console is None else live(epochs, console, transient=True) as report:
        for measured in learn(experiment):
            losses[measured.epoch] = measured.loss
            report(measured.epoch, functools.partial(_cost, measured.loss))
            # Only a printed line waits for the device.
            if measured.epoch * 10 >= lines * epochs:
                say(_cost_line(measured, many))
                lines = measured.epoch * 10 // epochs + 1
    return outcome(experiment, measured), losses


def _cost(loss: Array) -> dict[str, np.ndarray]:
    return {"cost": to_host(loss)}


def _cost_line(measured: Measurement, many: bool) -> str:
    # NaN sorts last.
    costs = np.sort(to_host(measured.loss).reshape(-1))
    if not many:
        return f"{measured.epoch:>9}{costs[0]:>14.6g}"
    solved = int(np.isfinite(to_host(measured.solved_since)).sum())
    return f"{measured.epoch:>9}{costs[0]:>14.6g}{costs[len(costs) // 2]:>14.6g}{solved:>14}"


def _show_outcome(experiment: Experiment, result: Outcome, *, is_cross_entropy: bool) -> None:
    if experiment.starts > 1:
        _show_restarts(experiment, result)
    predictions = to_host(experiment.network.predict(result.theta, experiment.x))[:, 0].tolist()
    say("\npredictions\n  x1  x2  target  prediction")
    for (x1, x2), (target,), value in zip(INPUTS, TARGETS, predictions, strict=True):
        say(f"{x1:>4g}{x2:>4g}{target:>8g}{value:>12.4f}")
    since = float(result.solved_since[result.best])
    if np.isfinite(since):
        say(f"  solved: all four are within 0.5 of their targets, since epoch {since:.0f}")
        return
    if not np.isfinite(predictions).all():
        say("  diverged: the predictions are not finite. Lower --learning-rate.")
        return
    pairs = zip(predictions, TARGETS, strict=True)
    wrong = sum(abs(value - target) >= 0.5 for value, (target,) in pairs)
    say(
        f"  not solved: {wrong} of 4 predictions are not within 0.5 of their targets.\n"
        "  The training is on a plateau, which it may leave in more epochs, or in a local minimum."
    )
    remedies = [
        "--restarts 64 (most starts learn)" if experiment.starts == 1 else "",
        "" if is_cross_entropy else "--loss binary_cross_entropy (shorter plateaus)",
        "--sizes 2,4,1 (fewer local minima)",
    ]
    say(f"  Try {' or '.join(filter(None, remedies))}.")


def _show_restarts(experiment: Experiment, result: Outcome) -> None:
    since = result.solved_since[np.isfinite(result.solved_since)]
    say(f"\nrestarts: {len(since)} of {experiment.starts} starts solved XOR")
    if len(since):
        say(
            f"  epochs until solved: median {np.median(since):g}, from {since.min():g} to "
            f"{since.max():g} (measured every {interval(experiment.epochs)})"
        )
    if len(since) < experiment.starts:
        diverged = int((~np.isfinite(result.losses)).sum())
        stuck = experiment.starts - len(since) - diverged
        say(f"  {stuck} are on a plateau or in a local minimum, {diverged} diverged")
    say(f"  the best is start {result.best}, cost {result.losses[result.best]:.6g}; it follows")


def _check(experiment: Experiment, theta: Array, *, is_squared_error: bool) -> bool:
    """Print the gradient at an initial theta beside the numeric one; False if it is wrong."""
    network = experiment.network
    report = bx.check_network(network, theta, experiment.x, experiment.y)
    say("\ngradient at the initial theta (after training it is too small for a sharp check)")
    pairs = zip(network.unpack(report.analytic), network.unpack(report.numeric), strict=True)
    for i, (analytic, numeric) in enumerate(pairs):
        for name, one, other in zip(network.layers[i].names, analytic, numeric, strict=True):
            say(_side_by_side(f"layers[{i}].{name}", to_host(one), to_host(other)))
    say_reports(indent(str(report)))
    if is_squared_error:
        say("  This is the gradient of the cost itself; that of the exercise lacks the factor 2/m.")
    return report.verdict in ("pass", "inconclusive")


def _side_by_side(name: str, analytic: np.ndarray, numeric: np.ndarray) -> str:
    """Return two matrices side by side, at most four rows and columns of each."""
    rows, columns = analytic.shape
    width = 15 * min(columns, 4)
    lines = [f"  {name} {analytic.shape}", f"{'analytic':>{width}}   {'numeric':>{width}}"]
    for left, right in zip(analytic[:4, :4], numeric[:4, :4], strict=True):
        lines.append("   ".join("".join(f"{v:>15.7g}" for v in row) for row in (left, right)))
    if max(rows, columns) > 4:
        lines.append("    ... (the first 4 rows and columns; all are checked)")
    return "\n".join(lines)


def _draw(experiment: Experiment, result: Outcome, losses: dict[int, Array], path: Path) -> None:
    from backprop_xp import plots
    from backprop_xp.plots.canvas import new_figure

    figure = new_figure(width=10.5)
    left, right = figure.subplots(1, 2)
    curve = array_namespace(losses[0]).stack(list(losses.values()))
    plots.learning_curves({"loss": curve}, epochs=list(losses), ax=left)
    network, x, y = experiment.network, experiment.x, experiment.y
    plots.decision_surface(network, x, y, theta=result.theta, margin=0.5, ax=right)
    plots.save(figure, path)
    say(f"\nplot written to {path}")
