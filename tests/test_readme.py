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
    assert sum(bool(output) for _, output in blocks()) == 2


@pytest.mark.once
def test_the_plotting_call_draws_what_the_first_code_block_has_trained() -> None:
    pytest.importorskip("matplotlib").use("agg")
    (call,) = re.findall(r"`(bx\.plots\..*?)`", README.read_text("utf-8"))
    namespace: dict[str, object] = {}
    exec(blocks()[0][0], namespace)  # noqa: S102 - our own page
    probabilities = eval(call, namespace).images[0].get_array()  # noqa: S307 - our own page
    assert probabilities.min() < 0.1  # an untrained network has none so near to 0 or 1
    assert probabilities.max() > 0.9


def test_the_readme_fits_two_screens() -> None:
    assert len(README.read_text("utf-8").split()) <= 680


# A sentence of the README, and the measurement that it rounds, on the page of its link.
MEASURED = {
    "0.33 of PyTorch's time": "| digits: 64-100-10, batches of 200 | 229 µs | 0.8 | 0.36 | 0.33 |",
    "0.36 of scikit-learn's": "| digits: 64-100-10, batches of 200 | 229 µs | 0.8 | 0.36 |",
    "rejected no right gradient": "No right gradient gets the verdict `fail`.",
    "has the lowest loss on": "has the lowest loss on every problem without noise",
    "3.8e-5, DeepXDE's 0.15": "| Burgers, viscosity 0.01/π | **3.8e-5** (3e-5 to 5e-5) | 1.5e-1",
    "0.35 to 0.54": "| PyTorch, backward twice | 0.50 (0.49 to 0.58) | 0.54 (0.50 to 0.61) | 0.35",
    "is 1.96": "| **`best`** | 0.973 ± 0.013 | 1.96 |",
    "CatBoost's 3.46": "| CatBoost | 0.897 ± 0.031 | 3.46 |",
    "takes 0.56 µs": "| 64-100-10 | 0.56 |",
}


@pytest.mark.once
@pytest.mark.parametrize("sentence", MEASURED)
def test_a_figure_stands_on_the_page_of_its_link(sentence: str) -> None:
    readme = README.read_text("utf-8")
    listed = readme.partition("**Measured**")[2].partition("\n\n`bx.")[0]
    bullets = [" ".join(bullet.split()) for bullet in listed.split("\n- ")[1:]]
    (bullet,) = (bullet for bullet in bullets if sentence in bullet)
    # The subject of a bullet can be a link, too: the last one is the figure's.
    *_, page = re.findall(r"\((docs/\w+\.md)[#)]", bullet)
    assert MEASURED[sentence] in (README.parent / page).read_text("utf-8")


@pytest.mark.once
def test_the_mistakes_are_counted() -> None:
    page = (README.parent / "docs" / "gradients_in_the_wild.md").read_text("utf-8")
    rows = re.findall(r"^\| (?!function|---)", page.partition("## All verdicts")[0], re.M)
    assert f"found [{len(rows)} mistakes]" in README.read_text("utf-8")


def test_the_first_code_block_is_at_most_fifteen_lines() -> None:
    assert len(blocks()[0][0].splitlines()) <= 15


def test_the_continuous_integration_runs_the_test_command() -> None:
    (command,) = re.findall(r"^.*/nox$", README.read_text("utf-8"), re.M)
    lines = (README.parent / ".ci" / "run").read_text("utf-8").splitlines()
    assert command in lines
    # Then tests of products, on the kernels of a processor that is not the machine's own.
    assert lines[-1].startswith('.venv/bin/nox -s "portability(Prescott)" -- ')
