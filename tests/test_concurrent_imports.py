"""The package waits for a library that another thread is importing."""

import sys
from pathlib import Path

import pytest

from backprop_xp.backends.dtypes_and_devices import module_if_imported
from tests.helpers import python

# Like JAX and PyTorch: in sys.modules long before it has its classes.
SLOW = """
import threading
begun.set()
import time; time.sleep(0.2)
class Array: pass
Tensor = ndarray = Array
"""

PROGRAM = """
import sys, threading, builtins
import backprop_xp as bx
from backprop_xp.backends import owner
x = bx.asarray([1.0], backend="array-api-strict", device="device1")
for name in ("cupy", "jax", "torch"):
    builtins.begun = threading.Event()
    thread = threading.Thread(target=__import__, args=(name,))
    thread.start()
    assert begun.wait(600) and name in sys.modules
    {work}
    thread.join()
"""

WORK = {
    "owner": "assert bx.resolve(x).backend.name == 'array-api-strict'",
    "guard": "with bx.transfer_guard('disallow'): bx.mlp([1, 1]).initialize(backend='numpy')",
}


@pytest.mark.parametrize("work", WORK)
def test_a_library_that_another_thread_imports_is_waited_for(tmp_path: Path, work: str) -> None:
    """One library after another: the earlier ones are imported by then."""
    null = "def __getattr__(name): return lambda *args: __import__('contextlib').nullcontext()\n"
    torch = "def asarray(x): return x\nequal = allclose = is_nonzero = asarray\n"
    torch += "bool = uint8 = None\n"
    for name, extra in (("cupy", ""), ("jax", null), ("torch", torch)):
        (tmp_path / f"{name}.py").write_text(SLOW + extra * (work == "guard"))
    done = python(PROGRAM.format(work=WORK[work]), tmp_path)
    assert not done.returncode, done.stderr
    assert not done.stderr


def test_a_library_that_cannot_be_imported_is_none() -> None:
    assert module_if_imported("no_such_library") is None
    assert module_if_imported("json") is sys.modules["json"]
