"""Backends from other distributions: wheels, most of them installed by pip, in child processes.

Specifies ``registry``.
"""

import inspect
import json
import pkgutil
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from backprop_xp import testing
from backprop_xp.backends import Backend, registry
from backprop_xp.backends.probing import probe_in_children
from tests.backend_page import replaceable_names, with_tables
from tests.helpers import HANGING, LIMITS, ROOT, python

PAGE = ROOT / "docs" / "writing_a_backend.md"
PROJECT = Path(__file__).parents[1] / "plugin"
METADATA = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["project"]
GROUP = "backprop_xp.backends"

# A minimal plug-in: NumPy under another name, which owns no array.
SMALL = """
from backprop_xp.backends.libraries.numpy import NumPyBackend
class Small(NumPyBackend):
    name = {name!r}
    def owns(self, array): return False
backend = Small()
"""
BROKEN = {
    "raising": "raise OSError('no such\\nlicence.')",
    "empty": "",
    "class": SMALL.format(name="class") + "backend = Small",
    "duck": "class Duck:\n    name = 'duck'\n    def probe(self): ...\nbackend = Duck()",
    "unfinished": (
        "from backprop_xp.backends import Backend\n"
        "class Unfinished(Backend):\n    name = 'unfinished'\n"
        "backend = Unfinished()"
    ),
    "misnamed": SMALL.format(name="another"),
    "moody": SMALL.format(name="moody")
    + "def probe(): raise KeyError('mood')\nbackend.probe = probe",
}
RAISED = {
    "raising": "OSError: no such licence",
    "empty": "AttributeError: module 'plugin_empty' has no attribute 'backend'",
    "class": "TypeError: it is not an instance of a class that derives from Backend",
    "duck": "TypeError: it is not an instance of a class that derives from Backend",
    "misnamed": ("ValueError: its entry point is named 'misnamed', but its name is 'another'"),
    "moody": "KeyError: 'mood'",
}


def wheel(folder: Path, distribution: str, entries: dict[str, str], files: dict[str, str]) -> Path:
    """Build a wheel: modules, and the metadata that pip and importlib.metadata read."""
    stem = f"{distribution.replace('-', '_')}-1.0"
    lines = "".join(f"{name} = {target}\n" for name, target in entries.items())
    metadata = {
        "METADATA": f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n",
        "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "entry_points.txt": f"[{GROUP}]\n{lines}",
    }
    contents = files | {f"{stem}.dist-info/{name}": text for name, text in metadata.items()}
    record = f"{stem}.dist-info/RECORD"
    contents[record] = "".join(f"{name},,\n" for name in [*contents, record])
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    return path


def small_plugin(folder: Path, distribution: str, name: str, text: str | None = None) -> Path:
    """Build a distribution that offers one name, from a module that records its import."""
    module = f"plugin_{distribution.replace('-', '_')}"
    noted = f"print('imported {module}')\n"
    source = noted + (SMALL.format(name=name) if text is None else text)
    return wheel(folder, distribution, {name: f"{module}:backend"}, {f"{module}.py": source})


def lookalike(folder: Path) -> Path:
    """Build the project in tests/plugin, by its own metadata."""
    files = {path.name: path.read_text("utf-8") for path in PROJECT.glob("*.py")}
    return wheel(folder, METADATA["name"], METADATA["entry-points"][GROUP], files)


def install(target: Path, *wheels: Path) -> Path:
    """Install wheels by pip, and return the folder of their modules."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    command += ["--no-compile", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*command, *map(str, wheels)], check=True, capture_output=True, timeout=HANGING)
    return target


def unpack(target: Path, *wheels: Path) -> Path:
    """Install wheels as pip does where they hold modules and metadata alone, in less time."""
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(target)
    return target


def run(target: Path, program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process that can import the packages in ``target``."""
    done = python(f"import backprop_xp as bx\n{program}", target, **environment)
    assert done.returncode == 0, done.stderr
    return done


def errors_of(target: Path, asks: Iterable[str]) -> list[str]:
    """Return the errors of unavailable backends with their causes, asked in one process."""
    program = "".join(
        f"try:\n    {ask}\n"
        "except (bx.backends.BackendUnavailableError, ValueError) as error:\n"
        "    cause = error.__cause__\n"
        "    print('REFUSED', error, *(['<-', type(cause).__name__] if cause else []), 'END')\n"
        for ask in asks
    )
    return re.findall(r"^REFUSED (.*?) END$", run(target, program).stdout, re.M | re.S)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a working plug-in and every broken one."""
    folder = tmp_path_factory.mktemp("wheels")
    wheels = [small_plugin(folder, name, name, text) for name, text in BROKEN.items()]
    return install(tmp_path_factory.mktemp("crowd"), lookalike(folder), *wheels)


@pytest.fixture(scope="module")
def rivals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two distributions of one name, and others with built-in names."""
    folder = tmp_path_factory.mktemp("wheels")
    offers = {"one": "twice", "other": "twice", "hijack": "numpy", "robot": "auto", "good": "good"}
    wheels = [small_plugin(folder, distribution, name) for distribution, name in offers.items()]
    return unpack(tmp_path_factory.mktemp("quarrel"), *wheels)


def test_a_plug_in_is_chosen_by_its_name_and_passes_the_checks_of_a_backend(broken: Path) -> None:
    """The session plug-in has the checks of parity, too."""
    program = (
        "import sys\n"
        "network = bx.mlp([2, 3, 1])\n"
        "theta, x = network.initialize(), bx.asarray([[0.5, 1.0]])\n"
        "print(bx.resolve(theta, x).backend.name, network.forward(theta, x).shape)\n"
        "print(bx.check_network(network, theta, x, x[:, :1]).verdict)\n"
        "print(bx.resolve().source, type(theta).__module__)\n"
        "print([bx.get_backend(name).name for name in ('numpy', 'array-api-strict')])\n"
        "from backprop_xp import testing\n"
        "for check in testing.checks('protocol', 'moving data', 'trust'):\n"
        "    row = testing.run(check, bx.get_backend('lookalike'), 'device1')\n"
        "    if row.status == 'fails': print(row)\n"
        "print([m for m in sys.modules if m.startswith('plugin_')])\n"
    )
    assert run(broken, program, BACKPROP_XP_BACKEND="lookalike").stdout.splitlines() == [
        "lookalike (1, 1)",
        "pass",
        "the environment variable BACKPROP_XP_BACKEND lookalike_arrays._array_object",
        "['numpy', 'array-api-strict']",
        "[]",  # broken plug-ins do not affect the others
    ]


def test_plug_ins_are_listed_after_the_others_and_none_is_imported(broken: Path) -> None:
    program = (
        "import json, sys\n"
        "rows = bx.list_backends()\n"
        "print([m for m in sys.modules if m.startswith(('plugin_', 'lookalike'))])\n"
        "print(json.dumps([tuple(row) for row in rows]))\n"
    )
    imported, rows = run(broken, program).stdout.splitlines()
    assert imported == "[]"
    table = json.loads(rows)
    built_in = ["numpy", "cupy", "array-api-strict", "jax", "torch", "dpnp"]
    assert [row[0] for row in table[:6]] == built_in
    assert [row[0] for row in table[6:]] == sorted(["lookalike", *BROKEN])
    usable = {name: (usable, reason, hint) for name, usable, reason, hint in table}
    assert usable["numpy"] == usable["lookalike"] == (True, "", "")
    for name, raised in RAISED.items():
        reason = f"'plugin_{name}:backend', of the distribution {name!r}, raised {raised}"
        assert usable[name] == (False, reason, f"upgrade {name}, or pip uninstall {name}")


def test_a_broken_plug_in_is_an_error_when_it_is_chosen(broken: Path) -> None:
    names = [*RAISED, "unfinished", "lookalik"]
    *errors, unfinished, misspelt = errors_of(broken, [f"bx.get_backend({n!r})" for n in names])
    for (name, raised), text in zip(RAISED.items(), errors, strict=True):
        target = f"'plugin_{name}:backend'"
        assert text.startswith(f"backend {name!r}, from the argument of the call, cannot run here")
        assert f"{target}, of the distribution {name!r}, raised {raised}" in text
        assert f"pip uninstall {name}" in text
        assert text.endswith(f" <- {raised.partition(':')[0]}")
    # Python's own message.
    assert "'plugin_unfinished:backend', of the distribution 'unfinished'" in unfinished
    assert "abstract class Unfinished" in unfinished
    assert "from_host" in unfinished
    assert "device_name" not in unfinished, "it has a default"
    assert "Did you mean 'lookalike'?" in misspelt


def test_plug_ins_are_asked_about_an_unknown_array_and_each_broken_one_warns_once(
    broken: Path,
) -> None:
    program = (
        "import logging, sys, numpy as np; logging.basicConfig()\n"
        "bx.resolve(np.ones(2), [1.0], None)\n"
        "print([m for m in sys.modules if m.startswith(('plugin_', 'lookalike'))])\n"
        "import lookalike_arrays\n"
        "class Foreign:\n    def __array_namespace__(self, **_): ...\n"
        "for _ in range(3):\n"
        "    assert bx.backends.owner(Foreign()) is None\n"
        "    print(bx.resolve(lookalike_arrays.ones(2)).backend.name)\n"
    )
    done = run(broken, program)
    lines = [line for line in done.stdout.splitlines() if not line.startswith("imported")]
    assert lines == ["[]", "lookalike", "lookalike", "lookalike"]
    warned = [line.split("'")[1] for line in done.stderr.splitlines() if "WARNING" in line]
    at_loading = set(BROKEN) - {"moody"}  # its probe() does not matter here
    assert sorted(warned) == sorted(at_loading)


def test_arrays_belong_to_a_plug_in_once_it_is_loaded_and_errors_name_it(
    tmp_path: Path,
) -> None:
    late = SMALL.format(name="late") + "Small.owns = lambda self, x: type(x).__name__ == 'Late'"
    angry = SMALL.format(name="angry") + (
        "def owns(array): raise ValueError('no')\nbackend.owns = owns"
    )
    wheels = [
        small_plugin(tmp_path, "late", "late", late),
        small_plugin(tmp_path, "angry", "angry", angry),
    ]
    program = (
        "class Late: pass\n"
        "print(bx.backends.owner(Late()))\n"
        "bx.get_backend('late')\n"
        "print(bx.backends.owner(Late()).name)\n"
        "bx.get_backend('angry')\n"
        "try: bx.backends.owner(object())\n"
        "except ValueError as error: print(error, error.__notes__)\n"
    )
    lines = run(unpack(tmp_path / "site", *wheels), program).stdout.splitlines()
    assert [line for line in lines if not line.startswith("imported")] == [
        "None",
        "late",
        "no [\"The backend 'angry' raised this.\"]",
    ]


def test_a_name_that_two_plug_ins_offer_is_an_error_and_neither_is_imported(rivals: Path) -> None:
    twice = "the distributions 'one' and 'other' offer that name"
    built_in = "the distributions 'backprop_xp' and {!r} offer that name"
    refused = {
        "bx.get_backend('twice')": ("argument", twice, "uninstall one, or pip uninstall other"),
        "bx.get_backend('numpy')": ("argument", built_in.format("hijack"), "uninstall hijack"),
        "bx.set_default_backend('auto')": ("set_def", built_in.format("robot"), "uninstall robot"),
        "bx.use_backend('auto').__enter__()": ("use_backend('auto')", "", "uninstall robot"),
    }
    for text, words in zip(errors_of(rivals, refused), refused.values(), strict=True):
        source, reason, way_out = words
        assert "cannot run here: " in text
        assert all(part in text for part in (source, reason, f"pip {way_out}."))
    program = (
        "for row in bx.list_backends():\n    print(row.name, row.usable, row.reason)\n"
        "print(bx.get_backend('good').name)\n"
    )
    *rows, imported, good = run(rivals, program).stdout.splitlines()
    assert {f"numpy False {built_in.format('hijack')}", f"twice False {twice}"} < {*rows}
    assert "good True " in rows
    assert not [row for row in rows if row.startswith("imported")]
    assert (imported, good) == ("imported plugin_good", "good")


def test_the_default_and_arrays_never_read_metadata_and_plug_ins_cannot_take_them_over(
    rivals: Path,
) -> None:
    program = (
        "import importlib.metadata, numpy as np\n"
        "def refuse(*_, **__): raise AssertionError('metadata was read')\n"
        "importlib.metadata.entry_points = refuse\n"
        "network = bx.mlp([2, 1])\n"
        "theta = network.initialize()\n"
        "network.loss_and_gradient(theta, np.ones((1, 2)), [[1.0]])\n"
        "print(bx.resolve().source, type(bx.resolve(theta).backend).__name__)\n"
        "with bx.use_backend(bx.get_backend()): print(bx.asarray([1.0], device='cpu'))\n"
    )
    lines = run(rivals, program, BACKPROP_XP_DEVICE="cpu").stdout.splitlines()
    assert lines == ["the default NumPyBackend", "[1.]"]


def test_auto_takes_the_first_accelerator_and_a_device_names_the_plug_ins_that_may_have_it(
    tmp_path: Path,
) -> None:
    fast = (
        "\nSmall.device_kinds = ('tpu', 'quantum')\n"
        "Small.accelerators = lambda self: {0}\nSmall.device_name = lambda self, device: device\n"
    )
    devices = {"idle": "[]", "quick": "['quantum:0', 'quantum:1']", "quicker": "['quantum:2']"}
    wheels = [
        small_plugin(tmp_path, name, name, SMALL.format(name=name) + fast.format(found))
        for name, found in devices.items()
    ]
    program = (
        "import logging; logging.basicConfig(level=logging.INFO)\n"
        "print(bx.get_backend('auto').name)\n"
        "try: bx.resolve(backend='numpy', device='quantum:7')\n"
        "except ValueError as error: print(error)\n"
    )
    done = run(unpack(tmp_path / "site", *wheels), program)
    chosen, error = [x for x in done.stdout.splitlines() if not x.startswith("imported")]
    assert chosen == "quick"
    assert "INFO:backprop_xp:backend 'auto' is quick, on quantum:0, quantum:1." in done.stderr
    assert error.endswith("or a backend that may have it: 'idle', 'quick' or 'quicker'.")


@pytest.mark.timed
def test_a_plug_in_that_hangs_or_crashes_has_a_row_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = [
        small_plugin(tmp_path, "slow", "slow", "import time\ntime.sleep(600)"),
        small_plugin(tmp_path, "crash", "crash", "import os\nos._exit(7)"),
        small_plugin(tmp_path, "good", "good"),
    ]
    monkeypatch.syspath_prepend(str(unpack(tmp_path / "site", *wheels)))
    for limit in LIMITS:
        found = probe_in_children(["slow", "crash", "good"], limit)
        assert found["slow"].probe[:3] == (False, None, f"no answer within {limit:g} s")
        if all("no answer" not in found[name].probe.reason for name in ("crash", "good")):
            break
    assert found["good"].probe.usable
    reason = "the trial ended by exit status 7: imported plugin_crash"
    assert found["crash"].probe[:3] == (False, None, reason)


def test_the_page_has_the_code_of_the_tested_plug_in() -> None:
    page = PAGE.read_text("utf-8")
    files = {path.name: path.read_text("utf-8") for path in PROJECT.glob("*.*")}
    assert set(files) == {"pyproject.toml", "lookalike_backend.py", "lookalike_arrays.py"}
    for name, source in files.items():
        assert f"```{'toml' if name.endswith('.toml') else 'python'}\n{source}```" in page
        assert f"`{name}`" in page


def test_the_page_has_the_tables_that_the_library_gives() -> None:
    """``python -m tests.backend_page`` writes them."""
    page = PAGE.read_text("utf-8")
    assert with_tables(page) == page
    names = replaceable_names()
    for backend in map(registry.built_in, registry.BUILT_IN):
        assert {*backend.replacements} <= {*names}
    marked = [pkgutil.resolve_name(name) for name in names]
    assert len(marked) == len({*names}) > 40


def test_the_pages_counts_of_the_kit_add_up_to_its_checks() -> None:
    page, checks = PAGE.read_text("utf-8"), len(testing.checks())
    assert f"It has {checks} checks." in page
    table = page.partition("<!-- kit -->")[2].partition("<!-- end -->")[0]
    counts = re.findall(r"^\| `([\w-]+)`.* \| (\d+) \| (\d+) \| (\d+):", table, re.M)
    assert {name for name, *_ in counts} >= {*registry.BUILT_IN, "lookalike", "mlx", "dask"}
    assert {sum(map(int, row)) for _, *row in counts} == {checks}


def test_the_functions_of_the_page_are_in_the_version_of_the_standard_that_it_names() -> None:
    program = (
        "import array_api_strict as xp, warnings\n"
        "from backprop_xp import testing\n"
        "from backprop_xp.backends import get_backend\n"
        "warnings.simplefilter('ignore')\n"
        "for version in ('2024.12', '2023.12'):\n"
        "    xp.set_array_api_strict_flags(api_version=version)\n"
        "    checks = testing.checks('parity', 'parts')\n"
        "    rows = [testing.run(check, get_backend('array-api-strict')) for check in checks]\n"
        "    print(*sorted({row.check.split(',')[0] for row in rows if row.status == 'fails'}))\n"
    )
    lines = python(program).stdout.splitlines()
    newest, older = lines
    assert not newest
    assert "metrics" in older, "an older version is enough"
    assert "version 2024.12. No more" in PAGE.read_text("utf-8")


def test_the_page_lists_the_protocols_methods_in_their_order() -> None:
    documented = re.findall(r"^\| `(\w+)\(([^)]*)\)` \|", PAGE.read_text("utf-8"), re.M)
    methods = {name: f for name, f in vars(Backend).items() if inspect.isfunction(f)}
    public = [(name, f) for name, f in methods.items() if not name.startswith("_")]
    expected = [(name, ", ".join([*inspect.signature(f).parameters][1:])) for name, f in public]
    assert documented == expected
    required = documented.index(("to_host", "array")) + 1
    assert {name for name, _ in documented[:required]} == {*Backend.__abstractmethods__}
