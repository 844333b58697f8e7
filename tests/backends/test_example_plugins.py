"""The plug-ins in examples/plugins: each passes the kit where its library is installed."""

import importlib.util
import tomllib
from pathlib import Path

import pytest

import backprop_xp as bx
from backprop_xp import testing
from tests.helpers import ROOT, python

PLUGINS = ROOT / "examples" / "plugins"
# The library of each, and the dtypes that it lacks.
LIBRARIES = {"mlx": ("mlx.core", {"float64", "complex128"}), "dask": ("dask.array", set[str]())}


def test_each_folder_is_a_package_with_its_entry_point() -> None:
    assert {path.name for path in PLUGINS.iterdir()} == {*LIBRARIES}
    for name in LIBRARIES:
        project = tomllib.loads((PLUGINS / name / "pyproject.toml").read_text("utf-8"))
        entries = project["project"]["entry-points"]["backprop_xp.backends"]
        assert entries == {name: f"{name}_backend:backend"}
        assert (PLUGINS / name / f"{name}_backend.py").exists()


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_plug_in_is_imported_without_its_library_and_says_how_to_install_it(
    name: str, tmp_path: Path
) -> None:
    library = LIBRARIES[name][0].partition(".")[0]
    program = (
        "import sys, importlib.util as util\n"
        "found = util.find_spec\n"
        "def hidden(name, *rest):\n"
        f"    if name.split('.')[0] == {library!r}: raise ModuleNotFoundError(name)\n"
        "    return found(name, *rest)\n"
        "util.find_spec = hidden\n"
        f"from {name}_backend import backend\n"
        f"print(backend.probe().usable, backend.probe().hint, {library!r} in sys.modules)\n"
    )
    line = python(program, PLUGINS / name).stdout.strip()
    assert line.startswith(f"False pip install '{library}[")
    assert line.endswith(("] False", "' False"))


@pytest.mark.installed
@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.filterwarnings("ignore")  # Dask's, of the sizes of chunks
def test_a_plug_in_passes_the_kit(name: str) -> None:
    library, lacks = LIBRARIES[name]
    if importlib.util.find_spec(library.partition(".")[0]) is None:
        pytest.skip(f"{library} is not installed")
    if name not in {row.name for row in bx.list_backends()}:
        pytest.skip(f"examples/plugins/{name} is not installed")
    rows = testing.conformance(name)
    assert not [row for row in rows if row.status == "fails"]
    missing = {row.check.rpartition(", ")[2] for row in rows if row.detail.startswith("no ")}
    assert lacks <= missing
