"""Markdown pages as notebooks: the build runs their code blocks and adds the output below them.

A ``python`` block becomes a cell of a notebook, which myst-nb runs. A ``sh`` block that calls only
the library's own command becomes one too, except for benchmarks: it stays on the page, and its
output follows. Comments in the first lines of a cell are options, as in Quarto:
``#| fig-alt: TEXT`` describes a plot, ``#| code-fold: true`` hides the code behind a button.
"""

import re
from typing import Any

from nbformat import NotebookNode, v4

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n", re.M | re.S)
_OURS = re.compile(r"(backprop-xp (?!bench).*\n)+")
# Show figures of matplotlib, also those without pyplot.
_PICTURES = """\
%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]
"""
# A warning ends the build. Output is not flushed in parts: myst-nb puts line ends between them.
_FIRST = """\
import subprocess, sys, warnings
sys.stdout.flush_interval = 600.0
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
"""
_OPTION = re.compile(r"#\| ([a-z-]+): (.*)\n")


def read(text: str) -> NotebookNode:
    """Return a page as a notebook; ``source_map`` has the first line of each cell."""
    cells: list[Any] = []
    lines: list[int] = []
    done = 0

    def add(cell: NotebookNode, at: int) -> None:
        cells.append(cell)
        lines.append(text.count("\n", 0, at))

    for block in _BLOCK.finditer(text):
        language, body = block.groups()
        if language == "sh" and not _OURS.fullmatch(body):
            continue
        if not cells:
            first = (_PICTURES if "#| fig-alt" in text else "") + _FIRST
            add(v4.new_code_cell(first, metadata={"tags": ["remove-cell"]}), 0)
        until = block.start() if language == "python" else block.end()
        add(v4.new_markdown_cell(text[done:until]), done)
        add(_cell(language, body), block.start(2))
        done = block.end()
    add(v4.new_markdown_cell(text[done:]), done)
    return v4.new_notebook(cells=cells, metadata=_metadata(lines))


def _cell(language: str, body: str) -> NotebookNode:
    if language == "sh":
        commands = f"set -e\n{body}"
        both = "stderr=subprocess.STDOUT"  # in the order of a terminal
        run = f"subprocess.check_output({commands!r}, shell=True, text=True, {both})"
        code = f"print({run}, end='')"
        return v4.new_code_cell(code, metadata={"tags": ["remove-input"]})
    options: dict[str, str] = {}
    while found := _OPTION.match(body):
        options[found[1]] = found[2]
        body = body[found.end() :]
    tags = ["hide-input"] if options.get("code-fold") == "true" else []
    shown = {"image": {"alt": options["fig-alt"]}} if "fig-alt" in options else {}
    return v4.new_code_cell(body.rstrip(), metadata={"tags": tags, "mystnb": shown})


def _metadata(lines: list[int]) -> dict[str, Any]:
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    plain = {"name": "python", "pygments_lexer": "ipython3"}
    # A page without code blocks needs no kernel.
    more = {"mystnb": {"execution_mode": "off"}} if len(lines) == 1 else {}
    return {"kernelspec": kernel, "language_info": plain, "source_map": lines, **more}
