"""The table of ``check --conformance``: the result of each check of the kit for a backend."""

from collections import Counter

import typer

from backprop_xp.backends import Selection
from backprop_xp.cli.arguments import refuse_others
from backprop_xp.cli.output import one_line, say, wrap

# The other options of check are about the gradient of one network.
_OPTIONS = {"backend", "device", "conformance"}


def check_options(context: typer.Context, backends: list[str]) -> None:
    """Raise BadParameter for options that ``--conformance`` ignores, and for several backends."""
    refuse_others(context, _OPTIONS, "--conformance", "the kit has its own networks and data.")
    if len(backends) > 1:
        raise typer.BadParameter(
            f"checks one backend, but {len(backends)} are named. Example: --backend numpy.",
            param_hint="'--conformance'",
        )


def show(selection: Selection) -> bool:
    """Run the kit, print each outcome at once, and return whether nothing fails."""
    from backprop_xp import testing

    backend, device = selection.backend, selection.device
    where = f"{backend.name} on {backend.device_name(device)}"
    say(f"conformance of {where}")
    group, counts, reasons = "", Counter[str](), Counter[str]()
    for check in testing.checks():
        outcome = testing.run(check, backend, device)
        if outcome.group != group:
            group = outcome.group
            say(f"\n{group}")
        say(f"  {outcome.check:<50} {outcome.status}")
        if outcome.status == "fails":
            say(wrap(f"{check.sentence}: {one_line(outcome.detail)}", " " * 6))
        if outcome.status == "not applicable":
            reasons[one_line(outcome.detail)] += 1
        counts[outcome.status] += 1
    if reasons:  # hundreds of checks may share one
        say("\nnot applicable")
    for reason, count in reasons.items():
        say(wrap(reason, f"{count:>5}  "))
    held, failed, rest = (counts[status] for status in ("holds", "fails", "not applicable"))
    say(f"\n{where}: {held} hold, {failed} fail, {rest} not applicable")
    return not failed
