"""The command ``check``: a network's gradient, checked on every backend that can run here.

What is computed is in ``comparison.py``; ``--conformance``, which checks a backend instead, is in
``conformance.py``.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import typer

import backprop_xp as bx
from backprop_xp.backends import Selection, registry
from backprop_xp.checks import nearest
from backprop_xp.cli import conformance as kit
from backprop_xp.cli.arguments import (
    bad_sizes,
    bounded,
    count_parameters,
    known_activation,
    known_loss,
    parse_sizes,
    refuse_more,
)
from backprop_xp.cli.backend_check import Case, Finding, check_on, differences, draw
from backprop_xp.cli.output import errors_in_one_line, indent, one_line, say, showing_work
from backprop_xp.gradient_check.problems import METHODS

_DTYPES = ["float64", "float32"]
_EXAMPLE = "4,8,3"
_HEADS = (
    f"{'backend':<17} {'device':<10} {'dtype':<8} {'verdict':<16} {'method':<12} "
    f"{'relative error':>14} {'tolerance':>9} {'evaluations':>11} {'seconds':>7}"
)


def _check_sizes(text: str, loss: str) -> list[int]:
    sizes = parse_sizes(text, _EXAMPLE)
    if len(sizes) < 2:
        raise bad_sizes(text, "needs a width of the inputs and one of the outputs", _EXAMPLE)
    if sizes[-1] == 1 and loss == "categorical_cross_entropy":
        # The gradient of a single class is 0, whatever the backward rules do.
        raise bad_sizes(text, "has one output, but that loss needs two classes or more", _EXAMPLE)
    return sizes


def _check_dtype(name: str | None) -> str | None:
    if name is not None and name not in _DTYPES:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, _DTYPES)}")
    return name


def _check_method(name: str) -> str:
    if name not in METHODS:
        raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, METHODS)}")
    return name


def _check_backends(names: list[str] | None) -> list[str]:
    """Refuse an unknown name; why a known one cannot run is told in its row."""
    known = registry.names() if names else []
    for name in names or []:
        if name not in known and name != "auto":
            raise typer.BadParameter(f"{name!r} is unknown. {nearest(name, known)}")
    return list(dict.fromkeys(names or []))


def check(
    context: typer.Context,
    sizes: Annotated[str, typer.Option(help="Widths of the layers, inputs first.")] = _EXAMPLE,
    hidden: Annotated[
        str, typer.Option(callback=known_activation, help="A name of bx.activations.")
    ] = "tanh",
    output: Annotated[
        str, typer.Option(callback=known_activation, help="A name of bx.activations.")
    ] = "identity",
    loss: Annotated[
        str, typer.Option(callback=known_loss, help="A name of bx.losses; the targets suit it.")
    ] = "mean_squared_error",
    dropout: Annotated[
        float,
        typer.Option(
            callback=bounded("dropout", low=0.0, below=1.0), help="Rate behind each hidden layer."
        ),
    ] = 0.0,
    layer_norm: Annotated[
        bool, typer.Option("--layer-norm", help="Normalise each hidden layer.")
    ] = False,
    l2: Annotated[
        float,
        typer.Option(
            callback=bounded("l2", low=0.0),
            help="Strength of the penalty on weights.",
        ),
    ] = 0.0,
    batch: Annotated[int, typer.Option(min=1, help="Rows of data.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Seed of theta, data, dropout masks.")] = 0,
    dtype: Annotated[
        str | None,
        typer.Option(
            callback=_check_dtype,
            help="float64 or float32. Default: each backend's own.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str, typer.Option(callback=_check_method, help="A method of bx.check_gradient.")
    ] = "auto",
    backend: Annotated[
        list[str] | None,
        typer.Option(
            callback=_check_backends,
            help="A backend; may be repeated. Default: all that can run here.",
            show_default=False,
        ),
    ] = None,
    conformance: Annotated[
        bool, typer.Option("--conformance", help="Check the backend itself: the conformance kit.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where --conformance runs. Default: as the environment says.", show_default=False
        ),
    ] = None,
) -> None:
    """Check a network's gradient on every backend that can run here, and compare them.

    Theta and data are random, drawn on the host, so that every backend has the same problem. The
    exit status is 1 if a check does not pass, or if a backend asked for by --backend cannot run it.
    With --conformance one backend is checked instead of a gradient: what it must do to be one.
    """
    if conformance:
        kit.check_options(context, backend or [])
        with errors_in_one_line():
            holds = kit.show(_resolve(backend[0] if backend else None, device))
        raise typer.Exit(0 if holds else 1)
    if device is not None:
        raise typer.BadParameter(
            "goes with --conformance. Elsewhere BACKPROP_XP_BACKEND and BACKPROP_XP_DEVICE choose.",
            param_hint="'--device'",
        )
    widths = _check_sizes(sizes, loss)
    refuse_more(count_parameters(widths), "--sizes")
    refuse_more(batch * max(widths), "--batch")
    network = _network(
        widths,
        hidden=hidden,
        output=output,
        loss=loss,
        dropout=dropout,
        layer_norm=layer_norm,
        l2=l2,
    )
    # NumPy alone warns of an overflow; the verdict says so on every backend.
    with errors_in_one_line(), np.errstate(all="ignore"):
        case = draw(network, widths, loss, batch=batch, seed=seed, method=method)
        say(f"network {'-'.join(map(str, widths))}, loss {loss}, {batch} rows, seed {seed}")
        say(f"  activations: hidden {hidden}, output {output}; l2 {l2:g}, dropout {dropout:g}")
        say(indent(network.describe()))
        names = backend or registry.names()
        findings = _check_each(names, case, dtype)
        _show_differences(findings)
        _show_reports(findings)
    if any(finding.failed(asked=bool(backend)) for finding in findings):
        raise typer.Exit(1)


def _network(widths: list[int], **options: Any) -> bx.Network:
    try:
        return bx.mlp(widths, **options)
    except ValueError as error:  # of the options by themselves none is wrong by now
        raise typer.BadParameter(one_line(error), param_hint="'--output'") from None


def _resolve(backend: str | None, device: str | None) -> Selection:
    try:
        return bx.resolve(backend=backend, device=device)
    except ValueError as error:
        if device is None:
            raise
        raise typer.BadParameter(one_line(error), param_hint="'--device'") from None


def _check_each(names: Sequence[str], case: Case, dtype: str | None) -> list[Finding]:
    """Check on each backend and print its row at once: some take seconds to compile."""
    say(f"\n{_HEADS}")
    findings = []
    for name in names:
        with showing_work(f"checking on {name}"):
            findings.append(check_on(name, case, dtype))
        say(_row(findings[-1]))
    return findings


def _row(finding: Finding) -> str:
    where = f"{finding.backend:<17} {finding.device:<10} {finding.dtype:<8}"
    report = finding.report
    if report is None:
        return f"{where} {finding.verdict}: {one_line(finding.reason)}"
    return (
        f"{where} {report.verdict:<16} {report.method:<12} {report.max_relative_error:>14.1e} "
        f"{report.tolerance:>9.0e} {report.evaluations:>11} {finding.seconds:>7.2f}"
    )


def _show_differences(findings: Sequence[Finding]) -> None:
    found = differences(findings)
    if found:
        say("\nlargest difference between two backends' gradients, relative to the largest entry")
    for one in found:
        pair = f"{one.first} and {one.other}"
        say(f"  {one.dtype}  {pair:<34} {one.relative:.1e}")


def _show_reports(findings: Sequence[Finding]) -> None:
    for finding in findings:
        if finding.report is not None and not finding.report.passed:
            say(f"\n{finding.backend}, {finding.dtype}\n{indent(str(finding.report))}")
