"""The signatures of all public names, as ``tests/public_signatures.txt`` keeps them.

``python -m tests.public_signatures`` writes the file anew. It refuses a change since a release that
the changelog does not name: see ``unnamed``.
"""

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import backprop_xp as bx

ROOT = Path(__file__).parents[1]
KEPT = Path(__file__).with_suffix(".txt")
# Of bx.backends, what docs/reference has beyond the names of bx: the rest is for the library.
BACKENDS = ("Backend", "BackendStatus", "Conversion", "DTypeNotKeptError", "Memory", "Probe")
BACKENDS += ("Selection", "array_namespace", "explicit", "replaceable")
BACKENDS += ("LazyModule", "device_aware", "device_of", "holds_a_mask", "leaves_by_dlpack")
BACKENDS += ("module_if_imported", "namespace_with", "try_library")
# Methods for the library itself.
INTERNAL = (
    "check_inputs",
    "check_rows",
    "check_theta",
    "codes",
    "dropped",
    "excess",
    "factors",
    "is_random",
)
INTERNAL += ("kind_of_state", "layout", "outputs_shape", "parts", "rule", "shape_of", "unused")
INTERNAL += ("weight", "widths")


def public_names() -> dict[str, object]:
    """Return each public object by its name without ``bx.``, such as ``losses.huber``."""
    found = {name: getattr(bx, name) for name in dir(bx)}
    top = {id(thing) for thing in found.values()}
    for module in [name for name, thing in found.items() if isinstance(thing, ModuleType)]:
        things = found.pop(module)
        for name in BACKENDS if module == "backends" else dir(things):
            if id(getattr(things, name)) not in top:
                found[f"{module}.{name}"] = getattr(things, name)
    return dict(sorted(found.items()))


def signatures() -> dict[str, str]:
    """Return the text of the arguments by name; of a class also of its public methods."""
    lines = {}
    for name, thing in public_names().items():
        lines[name] = arguments(thing)
        if isinstance(thing, type):
            lines |= {f"{name}.{method}": text for method, text in methods(thing)}
    return lines


def methods(kind: type) -> Iterator[tuple[str, str]]:
    """Yield the names and arguments of the public methods that the library itself defines."""
    ours = [base for base in kind.__mro__ if base.__module__.startswith("backprop_xp.")]
    names = {name for base in ours for name in vars(base) if not name.startswith("_")}
    fields = {*getattr(kind, "__dataclass_fields__", ()), *getattr(kind, "_fields", ())}
    requests = {name for name in names if name.endswith("_request")}  # scikit-learn makes them
    for name in sorted(names - fields - requests - {*INTERNAL}):
        thing = getattr(kind, name)
        if callable(thing) or isinstance(thing, property):
            yield name, arguments(thing)


def arguments(thing: object) -> str:
    """Return the arguments without types: ``(x, *, dtype=None)``, or nothing of a constant."""
    if not callable(thing) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return ""
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    plain = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    text = str(signature.replace(parameters=plain, return_annotation=inspect.Signature.empty))
    return re.sub(r"<function (\S+) at 0x\w+>", r"\1", text)


def read(text: str) -> dict[str, str]:
    """Return the lines of a file by name."""
    return {
        line[: len(name)]: line[len(name) :]
        for line in text.splitlines()
        for name in re.findall(r"^[\w.]+", line)
    }


def unnamed(now: Mapping[str, str], before: Mapping[str, str], changelog: str) -> list[str]:
    """Return the names that are new, gone or changed, and that the changelog does not name.

    It names them in backquotes, below "### Signatures" of its newest version: "`fit`",
    "`Network.forward`".
    """
    newest = changelog.split("\n## ")[1]
    section = newest.partition("\n### Signatures\n")[2].partition("\n### ")[0]
    changed = {name for name in {*now, *before} if now.get(name) != before.get(name)}
    return sorted(changed - {*re.findall(r"`([\w.]+)`", section)})


def main() -> None:
    now, changelog = signatures(), (ROOT / "CHANGELOG.md").read_text("utf-8")
    # Nobody knows a signature from before the first release.
    if changelog.count("\n## ") > 1 and (names := unnamed(now, read(KEPT.read_text()), changelog)):
        sys.exit(f'CHANGELOG.md does not name these below "### Signatures": {", ".join(names)}')
    KEPT.write_text("".join(f"{name}{text}\n" for name, text in now.items()), "utf-8")


if __name__ == "__main__":
    main()
