"""Whether a training on NumPy uses compiled loops: by BACKPROP_XP_COMPILE, or by its length."""

import importlib
import importlib.util
import os
import sys
from typing import Any

from backprop_xp.backends.protocol import Array

_KERNELS = "backprop_xp.backends.libraries.numpy.kernels"
# Loading takes about a second: a training of less than this, as estimated, does not gain.
_LEAST_SECONDS = 5.0
_SECONDS_PER_UPDATE = 5e-5
_OPERATIONS_PER_SECOND = 1e11


def kernels_for(theta: Array, updates: float, operations: float) -> Any:
    """Return the compiled loops for a training of real numbers, or None."""
    if theta.dtype.char not in "fd" or why_off():
        return None
    seconds = updates * _SECONDS_PER_UPDATE + operations / _OPERATIONS_PER_SECOND
    is_wanted = os.environ.get("BACKPROP_XP_COMPILE") == "1" or _KERNELS in sys.modules
    return importlib.import_module(_KERNELS) if is_wanted or seconds > _LEAST_SECONDS else None


def why_off() -> str:
    """Return why no training is compiled here, "" if it can be."""
    if os.environ.get("BACKPROP_XP_COMPILE") == "0":
        return "BACKPROP_XP_COMPILE=0"
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed (pip install 'backprop_xp[fast]')"
    return ""
