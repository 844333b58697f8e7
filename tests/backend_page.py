"""The tables of ``docs/writing_a_backend.md`` that the library itself gives.

``python -m tests.backend_page`` writes them anew, between the comments that name them.
"""

import ast
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import backprop_xp as bx
from backprop_xp.testing.parts import ARGUMENTS, FUNCTIONS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "writing_a_backend.md"


def functions_table() -> str:
    """Return the functions of the standard by the part of the library that needs them first."""
    rows = [f"| {part} | {words(names.split())} |" for part, names in FUNCTIONS.items()]
    return "\n".join(["| part | functions of the standard |", "|---|---|", *rows])


def words(names: list[str]) -> str:
    """Return functions with the arguments that the library passes by name."""
    return ", ".join(
        f"`{name}({', '.join(ARGUMENTS[name].split())})`" if name in ARGUMENTS else f"`{name}`"
        for name in names
    )


def replaceable_names() -> list[str]:
    """Return the qualified names that a table of replacements may have, in alphabetical order."""
    package = Path(bx.__file__).parent
    found = set[str]()
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found |= {f"{module}.{name}" for name in _replaceable_in(path)}
        found |= {_origin(module, name) for name in _dispatched_in(path)}
    return sorted(found)


def _replaceable_in(path: Path) -> Iterator[str]:
    """Yield the functions of a module that are marked, and the rules of its optimizers."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef):
            if any(getattr(mark, "id", "") == "replaceable" for mark in node.decorator_list):
                yield node.name
        elif isinstance(node, ast.ClassDef) and path.stem == "first_order":
            yield from (f"{node.name}.rule" for f in node.body if getattr(f, "name", "") == "rule")


def _dispatched_in(path: Path) -> Iterator[str]:
    """Yield the names of the functions that a module gets from ``dispatch``."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        is_call = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "dispatch"
        if is_call and isinstance(node.args[0], ast.Name):
            yield node.args[0].id


def _origin(module: str, name: str) -> str:
    function = pkgutil.resolve_name(f"{module}:{name}")
    return f"{function.__module__}.{function.__qualname__}"


def replaceable_table() -> str:
    """Return each replaceable function with its arguments and the first sentence about it."""
    lines = ["| function | result |", "|---|---|"]
    for name in replaceable_names():
        function = pkgutil.resolve_name(name)
        arguments = ", ".join(map(_argument, inspect.signature(function).parameters.values()))
        text = function.__doc__ or _without_docstring(function.__name__, name)
        sentence = re.split(r"(?<=\.)\s", inspect.cleandoc(text))[0]
        sentence = " ".join(sentence.split()).replace("``", "`").replace("|", "\\|")
        lines.append(f"| `{name.removeprefix('backprop_xp.')}({arguments})` | {sentence} |")
    return "\n".join(lines)


def _without_docstring(name: str, qualified: str) -> str:
    """Return a sentence about an optimizer's rule, or about an activation."""
    if name == "rule":
        return "Return theta and the state after an update."
    activation, _, rule = name.removeprefix("_").partition("_")
    assert "activations" in qualified, qualified
    return f"Return the {'backward rule' if rule else 'value'} of ``{activation}``."


def _argument(parameter: inspect.Parameter) -> str:
    """Return a parameter without its annotation."""
    return str(parameter.replace(annotation=inspect.Parameter.empty))


TABLES = {"functions": functions_table, "replaceable": replaceable_table}


def with_tables(text: str) -> str:
    """Return the page's text with each table between its two comments."""
    for name, table in TABLES.items():
        pattern = rf"(?s)(<!-- {name} -->\n).*?(\n<!-- end -->)"
        text, count = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t()}\n{m[2]}", text)
        assert count == 1, name
    return text


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit("no arguments are expected")
    PAGE.write_text(with_tables(PAGE.read_text("utf-8")), "utf-8")
