"""Pages are plain Markdown; what their blocks print and draw is put under them as they are built.

A block of ``python`` becomes a cell of a notebook, which myst-nb runs. So does a block of ``sh``
that calls nothing but the library's own command, unless it times something: it stays on the page as
it is, and what it prints follows. Cells are told more by comments in their first lines, as Quarto
writes them: ``#| fig-alt: TEXT`` describes a picture, ``#| code-fold: true`` hides the code behind
a button.
"""

import re
from typing import Any

from nbformat import NotebookNode, v4

_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n", re.M | re.S)
_OURS = re.compile(r"(backprop-xp (?!bench).*\n)+")
# Figures of matplotlib are shown, those that pyplot does not know too.
_PICTURES = """\
%matplotlib inline
%config InlineBackend.figure_formats = ["retina"]
"""
# A warning ends the build. What a cell prints comes in one piece: myst-nb puts line ends between.
_FIRST = """\
import subprocess, sys, warnings
sys.stdout.flush_interval = 600.0
warnings.simplefilter("error")
warnings.filterwarnings("ignore", module="ipykernel")
"""
_OPTION = re.compile(r"#\| ([a-z-]+): (.*)\n")


def read(text: str) -> NotebookNode:
    """Return a page as a notebook; ``source_map`` has the line at which each cell starts."""
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
        both = "stderr=subprocess.STDOUT"  # in the order that a terminal shows them
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
    # A page without blocks needs no process.
    more = {"mystnb": {"execution_mode": "off"}} if len(lines) == 1 else {}
    return {"kernelspec": kernel, "language_info": plain, "source_map": lines, **more}
