"""The command ``info``: its output, its JSON, its exit status, and that it changes nothing."""

import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import list_backends, registry
from backprop_xp.cli.info import as_text, collect, mpi
from tests.commands import NOWHERE, run, start
from tests.helpers import HANGING, thorough

WIDTH = 80


@pytest.fixture(scope="module")
def found(xp: Any) -> dict[str, Any]:
    return collect()


def test_info_names_the_backend_the_device_and_the_source_of_the_choice(
    xp: Any, found: dict[str, Any]
) -> None:
    # CuPy's current GPU is a setting of the thread: a new thread starts like a new process.
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


@pytest.mark.installed
def test_info_lists_every_backend_and_the_reason_if_it_cannot_run(
    found: dict[str, Any],
) -> None:
    rows = {row.name: row for row in list_backends()}
    assert list(found["backends"]) == registry.names()
    for name, row in found["backends"].items():
        assert row["usable"] == bool(row["devices"]) == rows[name].usable
        assert bool(row["reason"] and row["hint"]) == (not row["usable"])
        section = as_text(found).split(f"\nbackend {name}\n")[1].split("\n\n")[0]
        words = " ".join(section.split())
        assert f"usable {'yes' if row['usable'] else 'no'}" in words
        devices = [device["name"] for device in row["devices"]]
        strings = (row["reason"], row["hint"], row["version"], *row["details"].values())
        for text in (*strings, *devices):
            assert " ".join((text or "").split()) in words


def test_the_json_has_the_documented_structure(xp: Any, found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found)) == found
    page = (Path(__file__).parents[2] / "docs" / "backends.md").read_text("utf-8")
    documented = json.loads(page.split("```json\n")[1].split("```")[0])
    assert list(found) == list(documented)
    for part in ("selection", "machine", "versions"):
        assert list(found[part]) == list(documented[part])
    runs, fails = documented["backends"].values()  # the page leaves out empty values
    for name, row in found["backends"].items():
        assert set(row) == {*runs, *fails}, name
        for device in row["devices"]:
            assert list(device) == list(runs["devices"][0])
            assert list(device["memory"] or ["used", "total"]) == ["used", "total"]


def test_the_text_fits_80_columns_and_wraps_between_words(found: dict[str, Any]) -> None:
    memory = {"used": 2**30, "total": 80 * 2**30}
    cupy = {
        "usable": False,
        "version": "14.2.0",
        "reason": "CUDARuntimeError: cudaErrorInsufficientDriver: " + "word " * 40,
        "hint": "pip install a-plug-in-of-many-words " * 5,
        "devices": [{"name": f"cuda:{i}", "memory": memory} for i in range(8)],
        "details": {"a label that is longer than its column": "x " * 100},
    }
    text = as_text({**found, "backends": {**found["backends"], "cupy": cupy}})
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.split().count("a-plug-in-of-many-words") == 5
    assert "cuda:7 (1.0 of 80.0 GiB in use)" in " ".join(text.split())


def test_info_shows_the_environment_variables_and_names_misspelt_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An unavailable choice is reported with the rest."""
    monkeypatch.setenv("BACKPROP_XP_BACKEND", "numpi")
    monkeypatch.setenv("BACKPROP_XP_DTYPE", " ")
    monkeypatch.setenv("BACKPROP_XP_BAKCEND", "numpy")
    monkeypatch.setenv("BACKPROP_XP_COMPILE", "0")
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    found = collect()
    assert "compiled loops off: BACKPROP_XP_COMPILE=0" in " ".join(as_text(found).split())
    assert found["environment"]["BACKPROP_XP_DTYPE"] == " "
    assert found["environment"]["JAX_ENABLE_X64"] == "1"
    assert "JAX_PLATFORMS" not in found["environment"]
    assert list(found["unknown_variables"]) == ["BACKPROP_XP_BAKCEND"]
    text = as_text(found)
    assert "'numpi'" in found["selection"]["error"]
    assert "'numpi'" in re.findall(r"^  error +(\S.*?)\n\n", text, re.M | re.S)[0]
    assert re.search(r"backend numpy\n  usable +yes\n", text)
    assert "  BACKPROP_XP_DTYPE=' '\n" in text
    hint = "is unknown and ignored. Did you mean 'BACKPROP_XP_BACKEND'? Known: "
    assert f"BACKPROP_XP_BAKCEND='numpy' {hint}" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= WIDTH
    silent = as_text({**found, "environment": {}, "unknown_variables": {}})
    assert "environment\n  no variable is set that matters here\n" in silent


def test_info_tells_which_trainings_are_compiled_and_why_none_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numba = pytest.importorskip("numba", reason="the extra fast is not installed")

    def loops(setting: str) -> str:
        monkeypatch.setenv("BACKPROP_XP_COMPILE", setting)
        return str(bx.get_backend("numpy").details()["compiled loops"])

    by = f"by Numba {numba.__version__}"
    assert loops("") == f"in trainings of an estimated 5 s or more, {by}"
    assert loops("1") == f"in all trainings, {by}"
    assert loops("0") == "off: BACKPROP_XP_COMPILE=0"
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert loops("1") == "off: NUMBA_DISABLE_JIT=1 is set, with which it compiles nothing"
    monkeypatch.setitem(sys.modules, "numba", None)
    assert re.fullmatch(r"off: .*numba.* \(pip install 'numba>=[\d.]+'\)", loops("1"))


CRASHES = "import os, sys; print('out of luck'); print('last words', file=sys.stderr); os._exit(3)"
LAST_WORDS = "the trial ended by exit status 3: last words"


@pytest.mark.parametrize("backend", [thorough(""), "cupy"])
def test_stdout_has_only_the_json_whatever_a_library_prints(tmp_path: Path, backend: str) -> None:
    (tmp_path / "cupy.py").write_text(CRASHES)
    words = ("-m", "backprop_xp", "info", "--json")
    done = start(*words, path=str(tmp_path), BACKPROP_XP_BACKEND=backend)
    assert (done.returncode, done.stderr) == (1 if backend else 0, "")
    found = json.loads(done.stdout)
    if backend:
        error = f"resolving the choice of the environment: {LAST_WORDS}"
        assert found["selection"] == {"error": error}
    else:
        assert found["selection"]["source"] == "the default"
    cupy = found["backends"]["cupy"]
    assert (cupy["usable"], cupy["version"], cupy["reason"]) == (False, None, LAST_WORDS)
    assert found["backends"]["numpy"]["devices"] == [{"name": "cpu", "memory": None}]


# A process that chooses a library that crashes has both in the test above.
@pytest.mark.parametrize(
    "wrong", [thorough({"BACKPROP_XP_BACKEND": "numpi"}), thorough({"BACKPROP_XP_DEVICE": "gpu7"})]
)
def test_an_unavailable_choice_is_reported_with_the_rest(wrong: dict[str, str]) -> None:
    result = run("info", **NOWHERE | wrong)
    assert result.exit_code == 1
    error = re.search(r"^  error +(\S.*?)\n\n", result.output, re.M | re.S)
    assert error
    assert next(iter(wrong.values())) in error[1]
    assert re.search(r"backend numpy\n  usable +yes\n", result.output)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("module", "seconds", "reason"),
    [
        ("import time; time.sleep(6000)", 0.3, "no answer within 0.3 s"),
        ("raise ImportError('no libmpi.so')", HANGING, "ImportError: no libmpi.so"),
    ],
)
def test_info_tells_why_mpi_does_not_start(
    module: str, seconds: float, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module and its metadata stand for mpi4py; one in the current folder is not imported."""
    for folder, name, text in (
        ("mpi4py", "__init__.py", ""),
        ("mpi4py", "MPI.py", module),
        ("mpi4py-9.0.dist-info", "METADATA", "Metadata-Version: 2.1\nName: mpi4py\nVersion: 9.0\n"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    current = tmp_path / "current"
    current.mkdir()
    for name in ("mpi4py", "backprop_xp", "numpy"):
        (current / f"{name}.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(current)
    found = mpi(seconds)
    assert not Path("imported").exists()
    assert (found["mpi4py"], found["reason"]) == ("9.0", reason)
