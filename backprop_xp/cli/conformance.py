"""The table of ``check --conformance``: what holds of a backend, what fails, and why."""

from collections import Counter
from typing import Any

import typer

from backprop_xp.backends import Selection
from backprop_xp.cli.output import one_line, say, wrapped

# Each says how the gradient of one network is checked, or where: the kit has its own.
_OWN = {"backend", "device", "conformance"}


def check_options(context: typer.Context, backends: list[str]) -> None:
    """Refuse options that ``--conformance`` does not heed, and several backends."""
    given = [
        f"--{name.replace('_', '-')}"
        for name in context.params
        if name not in _OWN and _is_given(context, name)
    ]
    if given:
        raise typer.BadParameter(
            f"does not go with {', '.join(given)}: it has networks and data of its own.",
            param_hint="'--conformance'",
        )
    if len(backends) > 1:
        raise typer.BadParameter(
            f"checks one backend, but {len(backends)} are named: --backend numpy would do.",
            param_hint="'--conformance'",
        )


def show(choice: Selection) -> bool:
    """Run the kit, print each outcome as it comes, and return whether nothing fails."""
    from backprop_xp import testing

    backend, device = choice.backend, choice.device
    where = f"{backend.name} on {backend.device_name(device)}"
    say(f"conformance of {where}")
    group, counts = "", Counter[str]()
    reasons: dict[str, int] = {}
    for check in testing.checks():
        outcome = testing.run(check, backend, device)
        if outcome.group != group:
            group = outcome.group
            say(f"\n{group}")
        say(f"  {outcome.check:<50} {outcome.status}")
        if outcome.status == "fails":
            say(wrapped(f"{check.sentence}: {one_line(outcome.detail)}", " " * 6))
        if outcome.status == "not applicable":
            reason = one_line(outcome.detail)
            reasons[reason] = reasons.get(reason, 0) + 1
        counts[outcome.status] += 1
    _show_reasons(reasons)
    held, failed, rest = (counts[status] for status in ("holds", "fails", "not applicable"))
    say(f"\n{where}: {held} hold, {failed} fail, {rest} not applicable")
    return not failed


def _show_reasons(reasons: dict[str, int]) -> None:
    """Print why checks did not apply: each reason once, for hundreds may share one."""
    if reasons:
        say("\nnot applicable")
    for reason, count in reasons.items():
        say(wrapped(reason, f"{count:>5}  "))


def _is_given(context: typer.Context, name: str) -> Any:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
