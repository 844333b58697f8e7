"""The table of the reference's first page: each name with the first line of its docstring.

The line ``<!-- all names -->`` becomes a section for each page of the reference, with its names as
the page lists them for autodoc.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MARK = "<!-- all names -->\n"
_LISTED = re.compile(r"^\.\. (currentmodule|auto\w+):: (\S+?)(?:\(\))?$|^   :members: (.+)$", re.M)


def reference(folder: Path) -> str:
    """Return the Markdown of all pages of a folder, in the order of its table of contents."""
    index = (folder / "index.md").read_text("utf-8")
    pages = index.partition("```{toctree}")[2].partition("```")[0].split()
    files = (folder / f"{page}.md" for page in pages if not page.startswith(":"))
    return "\n".join(line for page in files if page.exists() for line in _section(page))


def _section(page: Path) -> Iterator[str]:
    text = page.read_text("utf-8")
    title = text.partition("\n")[0].removeprefix("# ")
    yield from (f"## [{title}]({page.name})", "", ":::{div} names")
    yield from ("| name | what it is |", "|---|---|")
    for name in names_of(text):
        shown = name.removeprefix("backprop_xp.")
        line = first_line(pkgutil.resolve_name(name)).replace("|", "\\|")
        yield f"| {{py:obj}}`{_short(shown)} <{name}>` | {line} |"
    yield from (":::", "")


def names_of(text: str) -> Iterator[str]:
    """Yield the full name of each object that a page documents, without methods."""
    module, of_module = "backprop_xp", ""
    for kind, name, members in _LISTED.findall(text):
        if kind == "currentmodule":
            module = name
        elif kind == "automodule":
            of_module = name
            if f":: {name}\n   :members:\n" in text:
                yield from (f"{name}.{one}" for one in pkgutil.resolve_name(name).__all__)
        elif kind:
            of_module = ""
            yield name if name.startswith("backprop_xp.") else f"{module}.{name}"
        elif of_module:
            yield from (f"{of_module}.{one.strip()}" for one in members.split(","))


def first_line(what: Any) -> str:
    """Return the first line of a docstring as Markdown, whole, with its code marked."""
    whole = (inspect.getdoc(what) or "").partition("\n\n")[0]
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(whole.split()))


def _short(name: str) -> str:
    """Return a name as users write it, or the last part of one that has no place of its own."""
    parts = name.split(".")
    return f"bx.{name}" if len(parts) < 3 else parts[-1]


def _insert(app: Any, name: str, source: list[str]) -> None:
    if MARK in source[0]:
        folder = Path(app.srcdir) / Path(name).parent
        source[0] = source[0].replace(MARK, reference(folder))
        for path in (*folder.glob("*.md"), *(folder.parents[1] / "backprop_xp").rglob("*.py")):
            app.env.note_dependency(str(path))


def setup(app: Any) -> dict[str, bool]:
    """Replace the mark in the page as it is read."""
    app.connect("source-read", _insert)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
