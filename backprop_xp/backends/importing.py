"""Looking at libraries that another thread may be importing at this moment.

Such a library is in ``sys.modules`` already, but lacks most of its names.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

# What array-api-compat looks for in sys.modules, to tell whose an array is.
_LIBRARIES = ("cupy", "dask.array", "dpnp", "dpctl.tensor", "jax", "ndonnx", "sparse", "torch")


def imported(name: str) -> Any:
    """Return a module if it is imported, or being imported: then as soon as it is; else None."""
    if sys.modules.get(name) is None:
        return None
    try:
        return importlib.import_module(name)  # waits for the thread that imports it
    except ImportError:
        return None  # it failed there


def ask(question: Callable[[Any], T], array: Any) -> T:
    """Return array-api-compat's answer about an array, which needs the libraries imported whole."""
    try:
        return question(array)
    except AttributeError:
        for name in _LIBRARIES:
            imported(name)
        return question(array)
