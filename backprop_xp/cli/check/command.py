"""The command ``check``: a network's gradient, checked on every backend that can run here."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias, cast

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.backends import Selection, registry
from backprop_xp.cli.arguments import (
    Activation,
    Json,
    bad_sizes,
    count_parameters,
    known_backend,
    number_within,
    one_of,
    parse_sizes,
    refuse_more,
)
from backprop_xp.cli.check import conformance as kit, function_check as functions
from backprop_xp.cli.check.backend_check import Finding, Problem, check_on, differences, draw
from backprop_xp.cli.output import errors_in_one_line, indent, one_line, say, say_reports, wrap
from backprop_xp.display.progress import spinner
from backprop_xp.gradient_check.inputs import problems
from backprop_xp.networks.losses.loss import LOSSES

_DTYPES = ("float64", "float32")
_EXAMPLE = "4,8,3"
_HEADS = ("backend", "device", "dtype", "verdict", "method", "error", "limit")

Loss: TypeAlias = Annotated[
    str, typer.Option(callback=one_of(LOSSES), help=f"{', '.join(LOSSES)}; the targets suit it.")
]
Dropout: TypeAlias = Annotated[
    float,
    typer.Option(
        callback=number_within("dropout", low=0.0, below=1.0), help="Rate behind each hidden layer."
    ),
]
L2: TypeAlias = Annotated[
    float, typer.Option(callback=number_within("l2", low=0.0), help="L2 penalty on the weights.")
]
LayerNorm: TypeAlias = Annotated[
    bool, typer.Option("--layer-norm", help="Normalize each hidden layer.")
]
DType: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=one_of(_DTYPES), help="float64 or float32. Default: each backend's own."),
]
Method: TypeAlias = Annotated[
    str, typer.Option(callback=one_of(problems.METHODS), help=f"{', '.join(problems.METHODS)}.")
]
Backends: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        callback=lambda names: list(dict.fromkeys(map(known_backend, names or []))),
        help="A backend; may be repeated. Default: all that can run here.",
    ),
]
Conformance: TypeAlias = Annotated[
    bool, typer.Option("--conformance", help="Check a backend by the conformance kit instead.")
]
Device: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The device for --conformance. Default: the environment's choice."),
]


def check(
    context: typer.Context,
    value: functions.Value = None,
    gradient: functions.Gradient = None,
    jacobian: functions.Jacobian = None,
    point: functions.Point = None,
    args: functions.Args = None,
    tolerance: functions.Tolerance = None,
    samples: functions.Samples = 0,
    bounds: functions.Bounds = None,
    torch: functions.Torch = None,
    jax: functions.Jax = None,
    as_json: Json = False,
    sizes: Annotated[str, typer.Option(help="Widths of the layers, inputs first.")] = _EXAMPLE,
    hidden: Activation = "tanh",
    output: Activation = "identity",
    loss: Loss = "mean_squared_error",
    dropout: Dropout = 0.0,
    layer_norm: LayerNorm = False,
    l2: L2 = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows of data.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of theta, data, dropout, directions.")] = 0,
    dtype: DType = None,
    method: Method = "auto",
    backend: Backends = None,
    conformance: Conformance = False,
    device: Device = None,
) -> None:
    """Check the gradient of a network on every backend that can run here, or of a function.

    A function is MODULE:VALUE with --point, such as model:loss or model.py:loss, and --gradient or
    --jacobian. Without these it returns (value, gradient). Names without a module are looked up in
    its module. --torch and --jax check the rule of a custom function at the inputs --point: an
    array, a tuple, or a .npz with the names of the parameters. The current folder comes first on
    Python's path. The exit status is 0 if the check passes, 1 if not, and 2 for input that cannot
    be used.

    Theta and data of a network are random, and drawn on the host: every backend has the same
    problem. The error is the largest relative one, and its limit the tolerance. The exit status is
    1 if a check does not pass, or if a backend named by --backend cannot run it. --conformance
    checks one backend by the conformance kit instead of a gradient.
    """
    if target := functions.target(context):
        raise typer.Exit(functions.run(context.params, target))
    if conformance:
        raise typer.Exit(_check_backend(context, backend or [], device))
    if device is not None:
        raise typer.BadParameter(
            "goes with --conformance. Without it, set BACKPROP_XP_BACKEND and BACKPROP_XP_DEVICE.",
            param_hint="'--device'",
        )
    network = _network(widths := _parse_sizes(sizes, loss, batch), context.params)
    say(f"network {'-'.join(map(str, widths))}, loss {loss}, {batch} rows, seed {seed}")
    say(f"  activations: hidden {hidden}, output {output}; l2 {l2:g}, dropout {dropout:g}")
    say(indent(network.describe()))
    # NumPy alone warns of an overflow; on every backend the verdict says so.
    with errors_in_one_line(), np.errstate(all="ignore"):
        chosen = cast("problems.Method", method)  # its callback has checked it
        problem = draw(network, widths, loss, batch=batch, seed=seed, method=chosen)
        findings = _check_each(backend or registry.names(), problem, dtype)
    has_failed = any(finding.failed(is_named=bool(backend)) for finding in findings)
    raise typer.Exit(1 if has_failed else 0)


def _check_backend(context: typer.Context, names: list[str], device: str | None) -> int:
    """Check one backend by the conformance kit, and return the exit status."""
    kit.check_options(context, names)
    with errors_in_one_line():
        return 0 if kit.show(_resolve(names[0] if names else None, device)) else 1


def _network(widths: Sequence[int], options: Mapping[str, Any]) -> bx.Network:
    """Return the network of the options; raise BadParameter for an output not of the loss."""
    names = "hidden", "output", "loss", "dropout", "layer_norm", "l2"
    try:
        return bx.mlp(widths, **{name: options[name] for name in names})
    except ValueError as error:  # each option alone is right
        raise typer.BadParameter(one_line(error), param_hint="'--output'") from None


def _parse_sizes(text: str, loss: str, batch: int) -> list[int]:
    """Return the widths of the layers; raise BadParameter for what a check cannot use."""
    sizes = parse_sizes(text, _EXAMPLE)
    if len(sizes) < 2:
        raise bad_sizes(text, "needs the widths of the inputs and the outputs", _EXAMPLE)
    if sizes[-1] == 1 and loss == "categorical_cross_entropy":
        # The gradient of a single class is 0, whatever the backward rules do.
        raise bad_sizes(text, "has one output, but that loss needs two classes or more", _EXAMPLE)
    if sizes[-1] % (count := LOSSES[loss].outputs_per_target):
        raise bad_sizes(text, f"must end with a multiple of {count} for {loss}", "4,8,2")
    refuse_more(count_parameters(sizes), "--sizes")
    refuse_more(batch * max(sizes), "--batch")
    return sizes


def _resolve(backend: str | None, device: str | None) -> Selection:
    try:
        return bx.resolve(backend=backend, device=device)
    except ValueError as error:
        if device is None:
            raise
        raise typer.BadParameter(one_line(error), param_hint="'--device'") from None


def _check_each(names: Sequence[str], problem: Problem, dtype: str | None) -> list[Finding]:
    """Check on each backend; print each row at once, since some take seconds, then the reports."""
    say(f"\n{_line(*_HEADS)}")
    findings = []
    for name in names:
        with spinner(f"checking on {name}"):
            findings.append(check_on(name, problem, dtype))
        say(_row(findings[-1]))
    _show_differences(findings)
    _show_reports(findings)
    return findings


def _row(finding: Finding) -> str:
    where, report = (finding.backend, finding.device, finding.dtype), finding.report
    if report is None:
        return f"{_line(*where, finding.verdict)}\n{wrap(one_line(finding.reason), '    ')}"
    figures = f"{report.max_relative_error:.1e}", f"{report.tolerance:.0e}"
    return _line(*where, report.verdict, report.method, *figures)


def _line(
    backend: str,
    device: str,
    dtype: str,
    verdict: str,
    method: str = "",
    error: str = "",
    limit: str = "",
) -> str:
    """Return a line of the table, of at most 80 columns for the names of this library."""
    words = f"{backend:<16} {device:<10} {dtype:<7} {verdict:<16} {method:<12}"
    return f"{words} {error:>7} {limit:>5}".rstrip()


def _show_differences(findings: Sequence[Finding]) -> None:
    if found := differences(findings):
        say("\nlargest difference between two gradients, relative to the largest entry")
    for one in found:
        pair = f"{one.first} and {one.other}"
        say(f"  {one.dtype}  {pair:<34} {one.relative:.1e}")


def _show_reports(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.report is not None and not finding.report.passed:
            say_reports(f"\n{finding.backend}, {finding.dtype}\n{indent(str(finding.report))}")
