"""The command ``info``: its words, its JSON, its exit status, and what it leaves alone."""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import list_backends, registry

pytest.importorskip("typer")

from typer.testing import CliRunner

from backprop_xp import cli
from backprop_xp.cli.info import as_text, collect

PACKAGE_FOLDER = Path(bx.__file__).parent.parent
WIDTH = 80
NOTHING_SET = {f"BACKPROP_XP_{what}": "" for what in ("BACKEND", "DEVICE", "DTYPE")}


def start_python(*arguments: str, path: str = "", **environment: str) -> Any:
    """Run Python on the package, with the folder ``path`` before everything else."""
    folders = os.pathsep.join(filter(None, [path, str(PACKAGE_FOLDER)]))
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **NOTHING_SET, "PYTHONPATH": folders, **environment},
        check=False,
    )


@pytest.fixture(scope="module")
def found(xp: Any) -> dict[str, Any]:
    return collect()


def test_info_says_what_would_run_where_and_why(xp: Any, found: dict[str, Any]) -> None:
    # Which GPU is CuPy's current one is a thread's own affair: a new one begins as a new process.
    with ThreadPoolExecutor(1) as pool:
        device = xp.selection.backend.device_name(pool.submit(bx.resolve).result().device)
    dtype = str(xp.selection.dtype).rpartition(".")[2].strip("'>")
    expected = {"backend": xp.name, "device": device, "dtype": dtype}
    assert found["selection"] == {**expected, "source": xp.selection.source}
    assert found["versions"]["numpy"] == np.__version__
    assert found["backprop_xp"] == bx.__version__
    assert found["machine"]["cpu_count"] == os.cpu_count()
    text = as_text(found)
    for label, value in expected.items():
        assert re.search(rf"^  {label} +{re.escape(value)}$", text, re.M)


def test_info_tells_of_every_backend_whether_it_runs_and_otherwise_why_not(
    found: dict[str, Any],
) -> None:
    rows = {row.name: row for row in list_backends()}
    assert list(found["backends"]) == registry.names()
    for name, told in found["backends"].items():
        assert list(told) == ["usable", "version", "reason", "hint", "devices", "details"]
        assert told["usable"] == rows[name].usable
        assert bool(told["devices"]) == told["usable"]
        assert bool(told["reason"] and told["hint"]) == (not told["usable"])
        section = as_text(found).split(f"\nbackend {name}\n")[1].split("\n\n")[0]
        words = " ".join(section.split())
        assert f"usable {'yes' if told['usable'] else 'no'}" in words
        for text in (told["reason"], told["hint"], told["version"], *told["details"].values()):
            assert " ".join((text or "").split()) in words
        for device in told["devices"]:
            assert device["name"] in words


def test_the_json_survives_a_round_trip(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found


def test_the_json_has_the_structure_that_the_documentation_shows(
    xp: Any, found: dict[str, Any]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "backends.md").read_text("utf-8")
    shown = json.loads(page.split("```json\n")[1].split("```")[0])
    assert list(found) == list(shown)
    for part in ("selection", "machine", "versions"):
        assert list(found[part]) == list(shown[part])
    for name, told in found["backends"].items():
        pattern = shown["backends"]["cupy" if told["usable"] else "jax"]
        assert list(told) == list(pattern), name
        for device in told["devices"]:
            assert list(device) == list(pattern["devices"][0])
            assert list(device["memory"] or ["used", "total"]) == ["used", "total"]


def test_the_text_fits_80_columns_and_wraps_between_words(found: dict[str, Any]) -> None:
    cupy = {
        "usable": False,
        "version": "14.2.0",
        "reason": "CUDARuntimeError: cudaErrorInsufficientDriver: " + "word " * 40,
        "hint": "pip install a-plug-in-of-many-words " * 5,
        "devices": [
            {"name": f"cuda:{i}", "memory": {"used": 2**30, "total": 80 * 2**30}} for i in range(8)
        ],
        "details": {"a label that is longer than its column": "x " * 100},
    }
    unknown = {"BACKPROP_XP_BAKCEND": "Did you mean? " * 20}
    told = {
        **found,
        "backends": {**found["backends"], "cupy": cupy},
        "environment": {"BACKPROP_XP_BAKCEND": "numpy"},
        "unknown_variables": unknown,
    }
    text = as_text(told)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.split().count("a-plug-in-of-many-words") == 5
    assert "cuda:7 (1.0 of 80.0 GiB in use)" in " ".join(text.split())
    assert "  BACKPROP_XP_BAKCEND='numpy'\n    is unknown, and ignored. Did you mean?" in text


def test_the_environment_is_shown_as_it_is_set_and_misspelt_names_are_pointed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BACKPROP_XP_DTYPE", " ")
    monkeypatch.setenv("BACKPROP_XP_BAKCEND", "numpy")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = collect()
    assert told["environment"]["BACKPROP_XP_DTYPE"] == " "
    assert told["environment"]["JAX_ENABLE_X64"] == told["environment"]["OMP_NUM_THREADS"] == "1"
    assert "JAX_PLATFORMS" not in told["environment"]
    assert list(told["unknown_variables"]) == ["BACKPROP_XP_BAKCEND"]
    hint = told["unknown_variables"]["BACKPROP_XP_BAKCEND"]
    assert hint.startswith("Did you mean 'BACKPROP_XP_BACKEND'? Known: ")
    assert "  BACKPROP_XP_DTYPE=' '\n" in as_text(told)


def test_the_environment_that_says_nothing_is_said_to(found: dict[str, Any]) -> None:
    text = as_text({**found, "environment": {}, "unknown_variables": {}})
    assert "environment\n  nothing is set that matters here\n" in text


CRASHES = "import os, sys; print('out of luck'); print('last words', file=sys.stderr); os._exit(3)"


def test_json_is_all_there_is_on_stdout_whatever_a_library_does(tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text(CRASHES)
    done = start_python("-m", "backprop_xp", "info", "--json", path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert list(told) == [
        "backprop_xp",
        "selection",
        "environment",
        "unknown_variables",
        "machine",
        "versions",
        "backends",
    ]
    assert told["selection"]["source"] == "the default"
    cupy = told["backends"]["cupy"]
    assert cupy["usable"] is False
    assert cupy["version"] is None
    assert cupy["reason"] == "the trial ended by exit status 3: last words"
    assert told["backends"]["numpy"]["devices"] == [{"name": "cpu", "memory": None}]


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"]])
def test_a_choice_that_cannot_be_had_is_told_beside_the_rest_and_is_exit_status_1(
    tmp_path: Path, arguments: list[str]
) -> None:
    (tmp_path / "cupy.py").write_text(CRASHES)
    done = start_python(
        "-m", "backprop_xp", *arguments, path=str(tmp_path), BACKPROP_XP_BACKEND="cupy"
    )
    assert done.returncode == 1
    assert done.stderr == ""
    error = "resolving what the environment asks for: the trial ended by exit status 3: last words"
    if "--json" in arguments:
        told = json.loads(done.stdout)
        assert told["selection"] == {"error": error}
        assert told["backends"]["numpy"]["usable"] is True
    else:
        assert error in " ".join(done.stdout.split())
        assert re.search(r"backend numpy\n  usable +yes\n", done.stdout)


@pytest.mark.parametrize(
    "wrong", [{"BACKPROP_XP_BACKEND": "numpi"}, {"BACKPROP_XP_DEVICE": "gpu7"}]
)
def test_info_survives_a_name_and_a_device_that_are_unknown(wrong: dict[str, str]) -> None:
    result = CliRunner().invoke(cli.app, ["info"], env={**NOTHING_SET, **wrong})
    assert result.exit_code == 1
    error = re.search(r"^  error +(\S.*?)\n\n", result.output, re.M | re.S)
    assert error
    assert next(iter(wrong.values())) in error[1]
    assert re.search(r"backend numpy\n  usable +yes\n", result.output)


def test_info_imports_no_array_library_but_numpy_itself() -> None:
    heavy = {"torch", "jax", "cupy", "array_api_strict"}
    program = f"""
import sys
from backprop_xp.__main__ import main
sys.argv[1:] = ["info"]
try:
    main()
finally:
    print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""
    done = start_python("-c", program)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
