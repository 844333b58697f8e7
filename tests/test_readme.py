"""The README's code on the suite's backend, and its test command."""

import re
from pathlib import Path
from typing import Any

import pytest

README = Path(__file__).parent.parent / "README.md"


def blocks() -> list[tuple[str, str]]:
    """Return each block of code and the output below it."""
    page = README.read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```)?", page, re.M | re.S)


def test_the_code_blocks_run_in_order_and_on_numpy_print_what_is_shown(
    xp: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    namespace: dict[str, object] = {"__name__": "__page__"}
    for code, output in blocks():
        exec(code, namespace)  # noqa: S102 - our own page
        # Rounding errors depend on the processor, and the widths of columns on the errors.
        printed, expected = (
            re.sub(r"[\d.]+e[+-]\d+", "SMALL", text).split()
            for text in (capsys.readouterr().out, output)
        )
        assert printed == expected or xp.name != "numpy"
    assert sum(bool(output) for _, output in blocks()) == 3


@pytest.mark.once
def test_the_plotting_call_draws_what_the_first_code_block_has_trained() -> None:
    pytest.importorskip("matplotlib").use("agg")
    (call,) = re.findall(r"`(bx\.plots\..*?)`", README.read_text("utf-8"))
    namespace: dict[str, object] = {}
    exec(blocks()[0][0], namespace)  # noqa: S102 - our own page
    probabilities = eval(call, namespace).images[0].get_array()  # noqa: S307 - our own page
    assert probabilities.min() < 0.1  # an untrained network has none so near to 0 or 1
    assert probabilities.max() > 0.9


def test_the_first_code_block_is_at_most_fifteen_lines() -> None:
    assert len(blocks()[0][0].splitlines()) <= 15


def test_the_continuous_integration_runs_the_test_command() -> None:
    (command,) = re.findall(r"^.*/nox$", README.read_text("utf-8"), re.M)
    lines = (README.parent / ".ci" / "run").read_text("utf-8").splitlines()
    assert command in lines
    # Then tests of products, on the kernels of a processor that is not the machine's own.
    assert lines[-1].startswith('.venv/bin/nox -s "portability(Prescott)" -- ')
