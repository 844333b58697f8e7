"""The command ``xor``: the tutorial, from start to finish.

What is computed is in ``tutorial.py``.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.progress import Progress

import backprop_xp as bx
from backprop_xp.backends import Array, array_namespace, dtype_name, to_host
from backprop_xp.cli.arguments import (
    ChosenBackend,
    bad_sizes,
    bounded,
    count_parameters,
    known_activation,
    known_loss,
    parse_sizes,
    picture_path,
    refuse_more,
    require_pictures,
)
from backprop_xp.cli.output import errors_in_one_line, indent, say
from backprop_xp.cli.xor_experiment import (
    INPUTS,
    TARGETS,
    Experiment,
    Look,
    Outcome,
    learn,
    look_every,
    outcome,
    output_activation,
    prepare,
)


class _Curves(NamedTuple):
    """The losses ``(*stack,)`` that were looked at, on the device, and after which epochs."""

    epochs: list[int]
    losses: list[Array]


def _check_sizes(text: str) -> list[int]:
    sizes = parse_sizes(text, "2,2,1")
    if len(sizes) < 2 or sizes[0] != 2 or sizes[-1] != 1:
        fault = "must start with 2 and end with 1, for XOR has 2 inputs and 1 output"
        raise bad_sizes(text, fault, "2,2,1")
    return sizes


def _check_loss(name: str) -> str:
    if known_loss(name) == "categorical_cross_entropy":
        raise typer.BadParameter(
            f"{name} needs an output for each class, but XOR has one output: "
            "use binary_cross_entropy."
        )
    return name


def xor(
    sizes: Annotated[str, typer.Option(help="Widths of the layers, from 2 to 1.")] = "2,2,1",
    epochs: Annotated[int, typer.Option(min=1, help="Updates, each from all four rows.")] = 10_000,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            callback=bounded("learning_rate", low=0.0),
            help="Default: one that suits the loss.",
            show_default=False,
        ),
    ] = None,
    loss: Annotated[
        str, typer.Option(callback=_check_loss, help="A name of bx.losses; it sets the output.")
    ] = "mean_squared_error",
    hidden: Annotated[
        str, typer.Option(callback=known_activation, help="A name of bx.activations.")
    ] = "sigmoid",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial theta.")] = 0,
    restarts: Annotated[int, typer.Option(min=1, help="Starts to train at once.")] = 1,
    plot: Annotated[
        Path | None,
        typer.Option(callback=picture_path, help="Write a picture: .png, .svg or .pdf."),
    ] = None,
    backend: ChosenBackend = None,
) -> None:
    """Learn XOR and prove the gradient: the tutorial, from start to finish.

    --backend, or BACKPROP_XP_BACKEND, _DEVICE and _DTYPE, choose where it runs. The exit status is
    1 if the gradient does not pass its check.
    """
    widths = _check_sizes(sizes)
    refuse_more(count_parameters(widths), "--sizes")
    refuse_more(count_parameters(widths) * restarts, "--restarts")
    chosen = contextlib.nullcontext() if backend is None else bx.use_backend(backend)
    # NumPy alone warns of a training that diverges; the output says so on every backend.
    with errors_in_one_line(), np.errstate(all="ignore"), chosen:
        require_pictures(plot)
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
        result, curves = _train(experiment)
        _show_outcome(experiment, result, is_cross_entropy=loss == "binary_cross_entropy")
        passed = _check(experiment, result.start, is_tutorials=loss == "mean_squared_error")
        if plot is not None:
            _draw(experiment, result, curves, plot)
    if not passed:
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


def _train(experiment: Experiment) -> tuple[Outcome, _Curves]:
    """Train, and print the cost about ten times."""
    epochs, many = experiment.epochs, experiment.starts > 1
    starts = f"{experiment.starts} starts at once, " if many else ""
    say(
        f"\ntraining: {starts}{epochs} epochs of gradient descent on the full batch, "
        f"learning rate {experiment.learning_rate:g}"
    )
    heads = ("least cost", "median cost", "solved") if many else ("cost",)
    say(f"{'epoch':>9}" + "".join(f"{head:>14}" for head in heads))
    curves, lines = _Curves([], []), 0
    with _progress(epochs) as advance:
        for look in learn(experiment):
            advance(look.epoch)
            curves.epochs.append(look.epoch)
            curves.losses.append(look.loss)
            # Only a line that is printed waits for the device.
            if look.epoch * 10 >= lines * epochs:
                say(_cost_line(look, many))
                lines = look.epoch * 10 // epochs + 1
    return outcome(experiment, look), curves


def _cost_line(look: Look, many: bool) -> str:
    # NaN sorts last.
    costs = np.sort(to_host(look.loss).reshape(-1))
    if not many:
        return f"{look.epoch:>9}{costs[0]:>14.6g}"
    solved = int(np.isfinite(to_host(look.solved_since)).sum())
    return f"{look.epoch:>9}{costs[0]:>14.6g}{costs[len(costs) // 2]:>14.6g}{solved:>14}"


@contextlib.contextmanager
def _progress(epochs: int) -> Iterator[Callable[[int], None]]:
    """Show a bar below the lines on a terminal, and nothing elsewhere."""
    if not sys.stdout.isatty():
        yield lambda epoch: None
        return
    with Progress(transient=True) as progress:
        task = progress.add_task("training", total=epochs)
        yield lambda epoch: progress.update(task, completed=epoch)


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
        f"  not solved: {wrong} of 4 predictions are not within 0.5 of their targets. The training "
        "is\n  on a plateau, which more epochs may leave, or in a local minimum, which they do not."
    )
    ways = [
        "--restarts 64 (most starts learn)" if experiment.starts == 1 else "",
        "" if is_cross_entropy else "--loss binary_cross_entropy (shorter plateaus)",
        "--sizes 2,4,1 (fewer local minima)",
    ]
    say(f"  Try {' or '.join(filter(None, ways))}.")


def _show_restarts(experiment: Experiment, result: Outcome) -> None:
    since = result.solved_since[np.isfinite(result.solved_since)]
    say(f"\nrestarts: {len(since)} of {experiment.starts} starts solved XOR")
    if len(since):
        say(
            f"  epochs until solved: median {np.median(since):g}, from {since.min():g} to "
            f"{since.max():g} (looked at every {look_every(experiment.epochs)})"
        )
    if len(since) < experiment.starts:
        diverged = int((~np.isfinite(result.losses)).sum())
        stuck = experiment.starts - len(since) - diverged
        say(f"  {stuck} are on a plateau or in a local minimum, {diverged} diverged")
    say(f"  the best is start {result.best}, cost {result.losses[result.best]:.6g}; it is shown")


def _check(experiment: Experiment, theta: Array, *, is_tutorials: bool) -> bool:
    """Print the gradient at a starting theta beside the numeric one; return whether it passed."""
    network = experiment.network
    report = bx.check_network(network, theta, experiment.x, experiment.y)
    say("\ngradient at the starting theta (after training it is too small to tell much)")
    pairs = zip(network.unpack(report.analytic), network.unpack(report.numeric), strict=True)
    for i, (analytic, numeric) in enumerate(pairs):
        for name, one, other in zip(network.layers[i].names, analytic, numeric, strict=True):
            say(_beside(f"layers[{i}].{name}", to_host(one), to_host(other)))
    say(indent(str(report)))
    if is_tutorials:
        say("  This is the gradient of the cost itself; the tutorial's lacks its factor 2/m.")
    return report.passed


def _beside(name: str, analytic: np.ndarray, numeric: np.ndarray, most: int = 4) -> str:
    """Return two matrices side by side, at most ``most`` rows and columns of each."""
    rows, columns = analytic.shape
    width = 15 * min(columns, most)
    lines = [f"  {name} {analytic.shape}", f"{'analytic':>{width}}   {'numeric':>{width}}"]
    for left, right in zip(analytic[:most, :most], numeric[:most, :most], strict=True):
        lines.append("   ".join("".join(f"{v:>15.7g}" for v in row) for row in (left, right)))
    if rows > most or columns > most:
        lines.append(f"    ... (the first {most} rows and columns; all are checked)")
    return "\n".join(lines)


def _draw(experiment: Experiment, result: Outcome, curves: _Curves, path: Path) -> None:
    from backprop_xp import plots
    from backprop_xp.plots.canvas import new_figure

    figure = new_figure(width=10.5)
    left, right = figure.subplots(1, 2)
    losses = array_namespace(curves.losses[0]).stack(curves.losses)
    plots.learning_curves({"loss": losses}, epochs=curves.epochs, ax=left)
    network, x, y = experiment.network, experiment.x, experiment.y
    plots.decision_surface(network, x, y, theta=result.theta, margin=0.5, ax=right)
    plots.save(figure, path)
    say(f"\nplot written to {path}")
