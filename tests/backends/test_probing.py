"""Probes in child processes: stub libraries that hang, crash or print, first on their path."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import backprop_xp as bx
from backprop_xp.backends import Memory, list_backends, registry
from backprop_xp.backends.probing import Report, probe_in_children, survey
from tests.helpers import HANGING, LIMITS, ROOT

POSIX = pytest.mark.skipif(os.name != "posix", reason="speaks of signals and process groups")

HANGS = """
import os, pathlib, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6000)"])
done = pathlib.Path(__file__).with_name("written")
done.write_text(f"{os.getpid()} {grandchild.pid}")
done.rename(done.with_name("pids"))
time.sleep(6000)
"""

NO_CARD = """
__version__ = "14.0.0"
class cuda:
    class runtime:
        class CUDARuntimeError(RuntimeError): pass
        driverGetVersion = staticmethod(lambda: 0)
        runtimeGetVersion = staticmethod(lambda: 13020)
        @classmethod
        def getDeviceCount(cls):
            raise cls.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
def ones(shape):
    cuda.runtime.getDeviceCount()
asnumpy = float
"""

# CuPy's page of advice, between two rulers.
NO_LIBRARIES = """
try:
    raise ImportError("libnvrtc.so.13: cannot open shared object file")
except ImportError as error:
    ruler = "=" * 64
    raise ImportError(f"\\n{ruler}\\nFailed to import CuPy.\\n\\n{error}\\n{ruler}") from error
"""

TWO_CARDS = """
import numpy
from numpy import ones
__version__ = "14.0.0"
asnumpy = numpy.asarray
class cuda:
    class Device:
        def __init__(self, device=None): self.id = int(device or 0)
        def __int__(self): return self.id
        def __eq__(self, other): return self.id == other.id
        compute_capability = property(lambda self: "90" if self.id == 0 else "120")
        mem_info = property(lambda self: (30 * 2**30 + self.id, 80 * 2**30))
    class runtime:
        class CUDARuntimeError(RuntimeError): pass
        driverGetVersion = staticmethod(lambda: 13000)
        runtimeGetVersion = staticmethod(lambda: 12090)
        getDeviceCount = staticmethod(lambda: 2)
class get_default_memory_pool:
    used_bytes = staticmethod(lambda: 512)
    total_bytes = staticmethod(lambda: 1024)
"""

pytestmark = [pytest.mark.core, pytest.mark.usefixtures("nothing_chosen")]
Stub = Callable[..., Path]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Return a function that writes a stub library for child processes and returns its folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(source: str, library: str = "cupy") -> Path:
        (tmp_path / f"{library}.py").write_text(source)
        return tmp_path

    return write


def cupy_report() -> Report:
    return probe_in_children(["cupy"], seconds=HANGING)["cupy"]


def is_running(pid: int) -> bool:
    """Whether a process runs; a zombie does not count."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def wait_until(holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + HANGING
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


def pids(folder: Path) -> list[int]:
    return [int(word) for word in (folder / "pids").read_text().split()]


@pytest.mark.timed
@POSIX
def test_a_backend_that_hangs_is_killed_with_its_children_and_the_others_are_listed(
    stub: Stub,
) -> None:
    folder = stub(HANGS)
    for limit in LIMITS:
        start = time.monotonic()
        reports = probe_in_children(["cupy", "numpy"], seconds=limit)
        assert time.monotonic() - start >= limit
        assert reports["cupy"].probe[:3] == (False, None, f"no answer within {limit:g} s")
        if reports["numpy"].probe.usable and (folder / "pids").exists():
            break
    assert "bx.get_backend('cupy')" in reports["cupy"].probe.hint
    assert reports["numpy"].probe == (True, np.__version__, "", "")
    assert len(pids(folder)) == 2
    assert wait_until(lambda: not any(map(is_running, pids(folder))))


@pytest.mark.timed
@POSIX
@pytest.mark.parametrize(
    ("how", "limits"),
    # An interrupted parent ends its children immediately; a killed one cannot.
    [(signal.SIGINT, [HANGING]), (signal.SIGKILL, LIMITS)],
)
def test_a_child_ends_with_its_parent_and_at_its_time_limit(
    stub: Stub, how: signal.Signals, limits: Sequence[float]
) -> None:
    folder = stub(HANGS)
    assert any(ends_with_its_parent(folder, how, seconds) for seconds in limits)


def ends_with_its_parent(folder: Path, how: signal.Signals, seconds: float) -> bool:
    """Assert that a child ends with its parent; return False if the limit ended it before."""
    program = (
        # Otherwise a suite that a shell started in the background would ignore the interrupt.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from backprop_xp.backends.probing import probe_in_children;"
        f"probe_in_children(['cupy'], seconds={seconds})"
    )
    path = os.pathsep.join([str(folder), str(ROOT)])
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.DEVNULL,
    ) as parent:
        wait_until(lambda: (folder / "pids").exists() or parent.poll() is not None)
        if parent.poll() is not None:
            return False
        child, grandchild = pids(folder)
        parent.send_signal(how)
    assert wait_until(lambda: not is_running(child))
    if how == signal.SIGINT:
        assert wait_until(lambda: not is_running(grandchild))
    else:
        os.kill(grandchild, signal.SIGKILL)
    return True


@POSIX
def test_ctrl_c_while_a_child_starts_kills_it(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    stub(HANGS)
    started, handler = [], signal.getsignal(signal.SIGINT)

    class Interrupted(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe_in_children(["cupy", "numpy"], seconds=HANGING)
    assert len(started) == 1
    assert wait_until(lambda: not is_running(started[0]))
    assert signal.getsignal(signal.SIGINT) is handler


# The stub, the reason in the list, and part of the hint.
UNUSABLE = [
    (
        "import os, sys; print('first\\nlast words\\n', file=sys.stderr); os._exit(3)",
        "the trial ended by exit status 3: last words",
        "bx.get_backend('cupy')",
    ),
    ("import os; os._exit(0)", "the trial ended by exit status 0", "bx.get_backend"),
    pytest.param(
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "the trial ended by signal SIGSEGV",
        "bx.get_backend",
        marks=POSIX,
    ),
    ("raise SystemExit('bye')", "the trial ended by exit status 1: bye", "bx.get_backend"),
    ("input()", "EOFError: EOF when reading a line", ""),
    (
        NO_LIBRARIES,
        "ImportError: libnvrtc.so.13: cannot open shared object file",
        "pip install 'cupy-cuda13x[ctk]>=",
    ),
    (
        NO_CARD,
        "CUDARuntimeError: cudaErrorNoDevice: no CUDA-capable device is detected",
        "check that nvidia-smi lists a GPU",
    ),
]


@pytest.mark.parametrize(("source", "reason", "hint"), UNUSABLE)
def test_a_backend_that_crashes_or_raises_is_listed_with_its_own_message(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, source: str, reason: str, hint: str
) -> None:
    stub(source)
    monkeypatch.setenv("CUPY_TF32", "1")
    ours, (reading, writing) = os.dup(0), os.pipe()
    try:
        os.write(writing, b"for somebody else than a library that asks for input\n")
        os.dup2(reading, 0)
        report = cupy_report()
    finally:
        os.dup2(ours, 0)
        for end in (ours, reading, writing):
            os.close(end)
    assert (report.probe.usable, report.probe.reason, report.devices) == (False, reason, ())
    assert report.probe.hint
    assert hint in report.probe.hint
    if source == NO_CARD:  # an unusable library still has its versions
        details = {"CUDA driver supports": "none", "CUDA runtime": "13.2", "TF32": "on"}
        assert (report.probe.version, report.details) == ("14.0.0", details)


def test_an_error_of_many_lines_becomes_one_line(stub: Stub) -> None:
    stub('raise OSError("libtorch.so is\\n  too old.")', "torch")
    found = probe_in_children(["torch"])["torch"].probe
    assert found == (False, None, "OSError: libtorch.so is too old", "reinstall torch")


@pytest.mark.parametrize("clean_up", ["os._exit, 9", "time.sleep, 6000"])
def test_output_and_exit_handlers_of_a_library_do_not_change_the_answer(
    stub: Stub, capfd: pytest.CaptureFixture[str], clean_up: str
) -> None:
    talk = "import atexit, os, time; print('{}', flush=True); os.write(1, b'hello')\n"
    stub(f"{talk}atexit.register({clean_up})\n" + TWO_CARDS)
    assert cupy_report().probe == (True, "14.0.0", "", "")
    assert capfd.readouterr() == ("", "")


def test_a_child_has_this_environment_and_jax_preallocates_no_memory_by_default(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub("import os; raise RuntimeError(os.environ['XLA_PYTHON_CLIENT_PREALLOCATE'])")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE", raising=False)
    assert cupy_report().probe.reason == "RuntimeError: false"
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "as asked")
    assert cupy_report().probe.reason == "RuntimeError: as asked"


def test_gpus_are_listed_with_memory_and_versions(stub: Stub) -> None:
    stub(TWO_CARDS)
    report, total = cupy_report(), 80 * 2**30
    assert report.devices == (
        ("cuda:0", Memory(50 * 2**30, total)),
        ("cuda:1", Memory(50 * 2**30 - 1, total)),
    )
    assert isinstance(report.devices[0][1], Memory)
    assert report.details["CUDA driver supports"] == "13.0"
    assert report.details["CUDA runtime"] == "12.9"
    assert report.details["compute capability"] == "cuda:0 9.0, cuda:1 12.0"
    assert report.details["memory pool"] == "512 of 1024 bytes in use"


def test_a_backend_is_usable_even_if_its_details_fail(stub: Stub) -> None:
    stub(TWO_CARDS.replace("driverGetVersion", "somethingElse"))
    report = cupy_report()
    assert report.probe.usable
    assert "not available: AttributeError" in report.details["details"]


def test_a_probe_in_a_child_equals_a_probe_here_and_its_details_are_strings() -> None:
    reports = probe_in_children(registry.names())
    for row in list_backends():
        probe = reports[row.name].probe
        assert (probe.usable, probe.reason, probe.hint) == row[1:]
        if row.usable:
            backend, details = bx.get_backend(row.name), reports[row.name].details
            names = [backend.device_name(device) for device in backend.devices()]
            assert [name for name, _ in reports[row.name].devices] == names
            assert probe.version == backend.probe().version
            assert details
            assert all(isinstance(text, str) and text.strip() for text in details.values())
            assert "not available" not in str(details)


def test_numpys_details_have_its_blas_and_the_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("threadpoolctl")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    details = probe_in_children(["numpy"])["numpy"].details
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    without = bx.get_backend("numpy").details()
    assert without["BLAS threads"] == "unknown (pip install threadpoolctl)"
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    assert details["BLAS"] == f"{built['name']} {built['version']}"
    if "openblas" not in built["name"]:
        pytest.skip(f"NumPy's BLAS is {built['name']}, which has its own variable for threads")
    assert details["BLAS threads"] == "1"


@pytest.mark.parametrize(("setting", "expected"), [("1", "on"), ("0", "off")])
def test_jaxs_details_have_its_float64_setting(
    monkeypatch: pytest.MonkeyPatch, setting: str, expected: str, jax: Any
) -> None:
    monkeypatch.setenv("JAX_ENABLE_X64", setting)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    details = probe_in_children(["jax"])["jax"].details
    assert details == {"default platform": "cpu", "x64": expected}


def test_the_environments_choice_is_reported_with_its_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def chosen(**variables: str) -> Mapping[str, str]:
        for what in ("BACKEND", "DEVICE"):
            monkeypatch.setenv(f"BACKPROP_XP_{what}", variables.get(what, ""))
        choice, reports = survey([])
        assert reports == {}
        return choice

    names = ("backend", "device", "dtype", "source")
    assert chosen() == dict(zip(names, ("numpy", "cpu", "float64", "the default"), strict=True))
    source = "the environment variable BACKPROP_XP_BACKEND"
    strict = chosen(BACKEND="array-api-strict", DEVICE="device2")
    values = ("array-api-strict", "device2", "float32", source)
    assert strict == dict(zip(names, values, strict=True))
    assert "'numpi'" in chosen(BACKEND="numpi")["error"]


@pytest.mark.timed
def test_a_choice_that_hangs_is_an_error_after_the_time_limit(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub("import time; time.sleep(6000)")
    monkeypatch.setenv("BACKPROP_XP_BACKEND", "auto")
    choice, _ = survey([], seconds=0.3)
    error = "resolving the choice of the environment: no answer within 0.3 s"
    assert choice == {"error": error}
