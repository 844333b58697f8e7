"""The maths' small functions in one CUDA kernel each, where the references launch many.

What acts on each number alone is fused from the reference itself, a user's own included, by
``cupy.fuse``: it is called once for each kind of arguments with variables that record what is done.
What works row by row (a softmax with its loss, LayerNorm) has a kernel of its own: a block of
threads for each row. Complex arrays, as of a complex step, are left to the references.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from backprop_xp.backends.cupy_rows import launch_rows
from backprop_xp.backends.protocol import Array


def _reference(name: str, *arguments: Any) -> Any:
    """Call what ``backprop_xp.<name>`` is without backends."""
    import importlib

    module, _, function = name.rpartition(".")
    found = getattr(importlib.import_module(f"backprop_xp.{module}"), function)
    return found.__wrapped__(*arguments)
