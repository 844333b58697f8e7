"""Imports go down only, modules of maths import no array library, and a unit's names are unique.

One file of tests specifies each module. The checks are functions of a source tree, so the tests can
also run them on a broken one.
"""

import ast
import functools
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import backprop_xp
from tests.helpers import python

PACKAGE = Path(backprop_xp.__file__).parent
TESTS = Path(__file__).parent

# A unit is a module or a package directly below backprop_xp. Each new unit needs a layer here.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("atomic_files", "backends", "checks", "extras"),
    ("display",),
    ("networks",),
    ("gradient_check", "plots"),  # a report has a method that draws it
    ("training",),
    ("files",),
    ("estimators", "tables"),
    ("testing", "cli", "__main__", "__init__"),  # the package itself imports everything below
)
LAYER = {unit: layer for layer, units in enumerate(LAYERS) for unit in units}

# The rooms of a unit: its folders and modules, each of which imports only those before it. A new
# one needs a position.
ROOMS: dict[str, str] = {
    "networks": "numbers chain layers losses jets derivatives network mlp ensemble equations",
    "gradient_check": "inputs engine verdict entrances",
    "training": "optimizers measures interfaces rows steps epochs processes fit rate_range",
    "cli": "output arguments info check table xor_experiment xor bench",
    "tables": "readers columns model export interface report",
}
# The units in whose folders ``__init__`` names every module, in the order of reading.
GUIDED = ("networks", "gradient_check", "training", "tables", "estimators", "cli")

# Maths computes on arrays; display has no arrays of its own.
MATHS = {"networks", "gradient_check", "training"}
# These use NumPy's arrays on the host: initial values, tables, results of a gradient check.
ON_THE_HOST = {
    "networks.numbers.initializers",
    "training.rows.preprocessing",
    "training.interfaces.orders",
    "training.rate_range",
    "training.processes.exchange",
    "training.processes.row_shares",
}
ON_THE_HOST |= {"gradient_check"}
ARRAY_LIBRARIES = {"numpy", "cupy", "torch", "jax", "dpnp", "array_api_strict", "array_api_compat"}

# Maths must name the device of each array that it makes. These modules of the gradient check make
# arrays of the caller's library; its other modules use only NumPy's.
CREATION = {"zeros", "ones", "full", "empty", "eye", "arange", "linspace", "asarray"}
DEVICE_SIDE = {"functions", "network_checks", "perturbed_losses", "points"}

HEAVY = {"cupy", "jax", "torch", "dpnp", "array_api_strict", "array_api_compat.numpy"}
HEAVY |= {"sklearn", "scipy", "matplotlib", "typer", "rich", "safetensors", "onnx", "ndonnx"}
HEAVY |= {"pandas", "pyarrow", "numba"}
# Light, but a few milliseconds that most programs do not need.
HEAVY |= {"backprop_xp.gradient_check", "array_api_compat", "logging", "subprocess", "difflib"}
HEAVY |= {"backprop_xp.files.checkpoint", "backprop_xp.files.descriptions"}


class Import(NamedTuple):
    """One import: its dotted module, the dotted name that it imports, and its line."""

    module: str
    target: str
    line: int

    @property
    def location(self) -> str:
        return f"{self.module}, line {self.line}"


def modules_of(package: Path) -> dict[str, Path]:
    """Return the dotted name of every module of a package, with its file."""
    names = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


parse = functools.cache(ast.parse)  # a module is walked for its imports and for its arrays


def nodes_of(path: Path) -> Iterator[ast.AST]:
    return ast.walk(parse(path.read_text(encoding="utf-8")))


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Yield every import of a module, also those in functions and conditions."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in nodes_of(path):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield Import(module, name.name, node.lineno)
            case ast.ImportFrom(module=base, names=names, level=level):
                parents = package.split(".")[: len(package.split(".")) - level + 1]
                parts = [*parents, base] if level else [base]
                for name in names:
                    yield Import(module, ".".join(filter(None, [*parts, name.name])), node.lineno)
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(wanted)), *_],
            ):
                yield Import(module, wanted, node.lineno)


def unit_of(module: str) -> str:
    """Return the unit to which a dotted module of the package belongs."""
    return module.split(".")[1] if "." in module else "__init__"


def room_of(module: str) -> str | None:
    """Return the room of a dotted module in a unit of ``ROOMS``, None for any other module."""
    _, unit, room, *_ = [*module.split("."), "", ""]
    return room if unit in ROOMS and room else None


def longest_module(target: str, modules: dict[str, Path]) -> str:
    """Return the module that an import loads: ``package.module.name`` may end in another name."""
    while target not in modules:
        target = target.rpartition(".")[0]
    return target


def complaints(package: Path) -> list[str]:
    """Return the faults in the imports of the package in that folder."""
    modules = modules_of(package)
    everything = [found for name, path in modules.items() for found in imports_of(name, path)]
    inside = [
        (found, longest_module(found.target, modules))
        for found in everything
        if found.target.partition(".")[0] == package.name
    ]
    of_imports = [*upward_imports(inside), *array_libraries(everything), *cycles(inside)]
    of_names = [*without_layer(modules), *unguided(modules), *namesakes(modules)]
    return [*of_names, *without_device(modules), *of_imports]


def without_layer(modules: dict[str, Path]) -> Iterator[str]:
    for unit in sorted({unit_of(name) for name in modules} - set(LAYER)):
        yield f"{unit} has no layer: give it one in LAYERS of tests/test_architecture.py"
    for name in modules:
        if (room := room_of(name)) and room not in ROOMS[unit_of(name)].split():
            yield f"{name} is in no room of ROOMS of tests/test_architecture.py"


def unguided(modules: dict[str, Path]) -> Iterator[str]:
    """Complain of modules that the docstring of their folder does not name."""
    for module, path in modules.items():
        folder, _, name = module.rpartition(".")
        if unit_of(module) in GUIDED and path.name != "__init__.py":
            guide = ast.get_docstring(parse(modules[folder].read_text(encoding="utf-8"))) or ""
            if not re.search(rf"``{name}[`.]", guide):
                yield f"the docstring of {folder} does not name {name}"


def namesakes(modules: dict[str, Path]) -> Iterator[str]:
    """Complain of modules with one name in a unit: a file is opened by its name."""
    named: dict[tuple[str, str], list[str]] = {}
    for module in modules:
        named.setdefault((unit_of(module), module.rpartition(".")[2]), []).append(module)
    for (unit, name), same in named.items():
        if len(same) > 1:
            yield f"{' and '.join(same)} are both called {name}: a name is unique in {unit}"


def upward_imports(inside: list[tuple[Import, str]]) -> Iterator[str]:
    for found, target in inside:
        here, there = LAYER.get(unit_of(found.module)), LAYER.get(unit_of(target))
        if here is not None and there is not None and there > here:
            yield f"{found.location}: layer {here} imports {target}, which is in layer {there}"
        rooms = ROOMS.get(unit_of(found.module), "").split()
        mine, other = room_of(found.module), room_of(target)
        if {mine, other} <= {*rooms} and rooms.index(mine) < rooms.index(other):
            yield f"{found.location}: {mine} imports {target}, whose room comes after it"


def array_libraries(everything: list[Import]) -> Iterator[str]:
    for found in everything:
        unit, library = unit_of(found.module), found.target.partition(".")[0]
        on_host = ON_THE_HOST & {unit, found.module.partition(".")[2]}
        allowed = {"numpy"} if on_host else set()
        if unit in MATHS and library in ARRAY_LIBRARIES - allowed:
            yield f"{found.location}: maths imports the array library {library}"


def without_device(modules: dict[str, Path]) -> Iterator[str]:
    """Complain of arrays that maths makes without a device, except copies and NumPy's arrays."""
    for module, path in modules.items():
        unit = unit_of(module)
        on_host = unit == "gradient_check" and module.rpartition(".")[2] not in DEVICE_SIDE
        if unit not in MATHS or on_host:
            continue
        for node in nodes_of(path):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            keywords = {keyword.arg for keyword in node.keywords}
            of_numpy = ast.unparse(node.func.value) == "np"
            copies = node.func.attr == "asarray" and "copy" in keywords
            if node.func.attr in CREATION and not (of_numpy or copies or "device" in keywords):
                yield f"{module}, line {node.lineno}: {ast.unparse(node)} names no device"


def cycles(inside: list[tuple[Import, str]]) -> Iterator[str]:
    """Complain of cycles among units, and among the modules of a unit."""
    units: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    for found, target in inside:
        here, there = unit_of(found.module), unit_of(target)
        if here != there:
            units.setdefault(here, set()).add(there)
        elif found.module != target:
            files.setdefault(found.module, set()).add(target)
    for graph in (units, files):
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            yield f"imports go in a circle: {' <- '.join(error.args[1])}"


def test_imports_go_downwards_and_the_maths_knows_no_array_library() -> None:
    found = complaints(PACKAGE)
    assert not found, "\n".join(found)
    # The walk finds the existing imports.
    losses = {
        found.target
        for found in imports_of(
            "backprop_xp.networks.losses.loss", PACKAGE / "networks/losses/loss.py"
        )
    }
    assert {"backprop_xp", "backprop_xp.backends.protocol"} < {*modules_of(PACKAGE)}
    assert "backprop_xp.networks.layers.activations.sigmoid" in losses


# Each form of an import, and each rule, in the smallest tree that breaks it.
BROKEN: list[tuple[dict[str, str], str]] = [
    ({"display/html.py": "from broken.networks import mlp"}, "layer 1 imports broken.networks"),
    ({"display/html.py": "import broken.networks"}, "layer 1 imports broken.networks"),
    (
        {"display/html.py": "def f():\n    from ..networks import mlp"},
        "broken.display.html, line 2: layer 1 imports broken.networks",
    ),
    ({"checks.py": "from . import networks"}, "layer 0 imports broken.networks"),
    (
        {"display/html.py": "import importlib as i\ni.import_module('broken.networks')"},
        "layer 1 imports broken.networks",
    ),
    (
        {"plots/__init__.py": "import broken.gradient_check"}
        | {"gradient_check/__init__.py": "import broken.plots"},
        "in a circle",
    ),
    (
        {"backends/__init__.py": "from .one import x", "backends/one.py": "from . import y"},
        "in a circle",
    ),
    (
        {"training/__init__.py": '"""Read ``fit``."""', "training/fit.py": "import jax.numpy"},
        "line 1: maths imports the array library jax",
    ),
    (
        {"gradient_check/inputs/__init__.py": '"""Read ``points``."""'}
        | {"gradient_check/inputs/points.py": "def f(x):\n    return x + namespace(x).ones(3)"},
        "line 2: namespace(x).ones(3) names no device",
    ),
    ({"surprise.py": ""}, "surprise has no layer"),
    (
        {"tables/__init__.py": '"""Read ``surprise``."""', "tables/surprise.py": ""},
        "broken.tables.surprise is in no room",
    ),
    (
        {"tables/__init__.py": "", "tables/readers/__init__.py": '"""Read ``text``."""'}
        | {"tables/readers/text.py": "from broken.tables.columns import number"}
        | {"tables/columns/__init__.py": '"""Read ``number``."""', "tables/columns/number.py": ""},
        "line 1: readers imports broken.tables.columns.number, whose room comes after it",
    ),
    (
        {"files/train.py": "", "files/data/train.py": ""},
        "broken.files.data.train and broken.files.train are both called",
    ),
    (
        {"networks/jets/__init__.py": '"""Read ``jet``."""'}
        | {"networks/jets/jet.py": "", "networks/jets/parts.py": ""},
        "the docstring of broken.networks.jets does not name parts",
    ),
]


@pytest.mark.parametrize(("files", "expected"), BROKEN)
def test_a_broken_tree_gives_complaints(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    write_tree(tmp_path / "broken", {"networks/__init__.py": "", **files})
    found = complaints(tmp_path / "broken")
    assert len(found) == 1, found
    assert expected in found[0]


def write_tree(package: Path, files: dict[str, str]) -> None:
    for name, text in {"__init__.py": "", **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_each_module_is_specified_by_one_file_of_tests() -> None:
    found = [*without_specification(PACKAGE, TESTS)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "loss is specified by no file of tests"),
        (
            {"networks/losses/test_loss.py": "", "test_all.py": "Specifies ``loss``."},
            "loss is specified by networks/losses/test_loss.py and test_all.py",
        ),
        ({"networks/test_loss.py": ""}, "a module of the room losses: move it there"),
        (
            {"networks/losses/test_loss.py": "Losses.\n\nSpecifies ``loses``."},
            "networks/losses/test_loss.py specifies loses, but no module is called so",
        ),
    ],
)
def test_a_module_without_its_file_of_tests_gives_a_complaint(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    package, tests = tmp_path / "broken", tmp_path / "tests"
    write_tree(
        package, {"networks/__init__.py": '"""Networks."""', "networks/losses/loss.py": "a = 1"}
    )
    write_tree(tests, {name: f'"""{docstring}"""' for name, docstring in files.items()})
    (found,) = without_specification(package, tests)
    assert expected in found


def without_specification(package: Path, tests: Path) -> Iterator[str]:
    """Complain of modules that not exactly one file of tests specifies.

    The file has the module's name, in the folder of its unit and in that of its room, or the last
    paragraph of its docstring names the module. A module that is only a docstring needs none.
    """
    modules = modules_of(package)
    files: dict[str, list[str]] = {name: [] for name in modules if has_code(modules[name])}
    for path in sorted(tests.rglob("test_*.py")):
        file = path.relative_to(tests)
        own = path.stem.removeprefix("test_")
        unit = file.parts[0] if len(file.parts) > 1 else own
        specified = names_specified_by(path)
        if (found := named(own, modules, unit)) and unit_of(found) == unit:
            specified.add(own)
            room = room_of(found)
            if unit in GUIDED and room and room not in (own, *file.parts[1:-1]):
                yield f"{file.as_posix()} specifies a module of the room {room}: move it there"
        for name in sorted(specified):
            found = named(name, modules, unit)
            files.setdefault(found, []).append(file.as_posix())
            if not found:
                yield f"{file.as_posix()} specifies {name}, but no module is called so"
    for name in modules:
        if name in files and len(found_in := files[name]) != 1:
            yield (
                f"{name.rpartition('.')[2]} is specified by "
                f"{' and '.join(found_in) or 'no file of tests'}: name it in one, in the last "
                "paragraph of its docstring, 'Specifies ``...``.'"
            )


def named(name: str, modules: dict[str, Path], unit: str) -> str:
    """Return the module of a name, the unit's own if it has one; empty if there is none."""
    same = [module for module in modules if module.rpartition(".")[2] == name]
    own = [module for module in same if unit_of(module) == unit]
    return (own or same or [""])[0]


def has_code(path: Path) -> bool:
    tree = parse(path.read_text(encoding="utf-8"))
    return len(tree.body) > (ast.get_docstring(tree) is not None)


def names_specified_by(path: Path) -> set[str]:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = docstring.split("\n\n")[-1]
    return {*re.findall(r"``(\w+)``", paragraph)} if paragraph.startswith("Specifies ") else set()


def test_no_child_of_the_package_imports_from_the_current_folder() -> None:
    """Each command line that begins with this Python goes on with -P."""
    commands = [
        ast.unparse(node)
        for path in PACKAGE.rglob("*.py")
        for node in nodes_of(path)
        if isinstance(node, ast.List | ast.Tuple)
        and [*map(ast.unparse, node.elts[:1])] == ["sys.executable"]
    ]
    assert len(commands) >= 3
    assert all(one[1:].startswith("sys.executable, '-P', ") for one in commands), commands


@pytest.mark.installed
def test_importing_the_package_imports_no_heavy_library() -> None:
    done = python(f"import sys, backprop_xp; print(sorted({HEAVY!r} & set(sys.modules)))")
    assert done.stdout.strip() == "[]", done.stdout
