"""Whether a training on NumPy uses compiled loops: by BACKPROP_XP_COMPILE, or by its length.

The loops round differently. Whether an earlier training of the process has loaded them must not
matter: the same call returns the same bits.
"""

import importlib
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

from backprop_xp.backends.protocol import Array, Function
from backprop_xp.extras import install_command

KERNELS = "backprop_xp.backends.libraries.numpy.kernels"
# Loading takes about a second: a training of less than this, as estimated, does not gain.
_LEAST_SECONDS = 5.0
_SECONDS_PER_STEP = 5e-5
_OPERATIONS_PER_SECOND = 1e11


def replacements_for(theta: Array, steps: int | None, rows: int) -> Mapping[str, Function] | None:
    """Return the compiled loops for a training of real numbers, or None.

    Without BACKPROP_XP_COMPILE=1, a Numba that is missing or cannot run is no error.
    """
    setting = _setting()
    if theta.dtype.char not in "fd" or setting == "0":
        return None
    is_long = steps is not None and seconds_of(theta, steps, rows) > _LEAST_SECONDS
    if not (is_long or setting == "1"):
        return None
    try:
        _numba()
        table: dict[str, Function] = importlib.import_module(KERNELS).REPLACEMENTS
        return table
    except ImportError as error:
        if setting == "1":
            raise ImportError(f"BACKPROP_XP_COMPILE=1 needs Numba: {error}") from error
        return None


def seconds_of(theta: Array, steps: int, rows: int) -> float:
    """Return about how long so many steps take: a product and its two gradients for each row."""
    operations = 6.0 * float(theta.size) * rows
    return steps * (_SECONDS_PER_STEP + operations / _OPERATIONS_PER_SECOND)


def _numba() -> Any:
    """Import Numba; raise ImportError, with a way out, if it cannot compile here."""
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError as error:
        raise ImportError(f"{error} ({install_command('fast')})") from error
    if numba.config.DISABLE_JIT:
        raise ImportError("NUMBA_DISABLE_JIT=1 is set, with which it compiles nothing")
    return numba


def _variable() -> str:
    return os.environ.get("BACKPROP_XP_COMPILE", "").strip()


def _setting() -> str:
    value = _variable()
    if value not in ("", "0", "1"):
        raise ValueError(
            f"The environment variable BACKPROP_XP_COMPILE is {value!r}, but 0 (no training is "
            "compiled), 1 (all are) or nothing (long ones are) is expected."
        )
    return value


def state() -> str:
    """Return which trainings are compiled, or why none is, for people."""
    setting = _setting()
    if setting == "0":
        return "off: BACKPROP_XP_COMPILE=0"
    try:
        version = _numba().__version__
    except ImportError as error:
        return f"off: {error}"
    long = f"trainings of an estimated {_LEAST_SECONDS:g} s or more"
    return f"in {'all trainings' if setting else long}, by Numba {version}"


def versions() -> dict[str, str]:
    """Return Numba's version if it is installed and may compile trainings, for files."""
    if _variable() == "0":
        return {}
    try:
        return {"numba": importlib.metadata.version("numba")}
    except importlib.metadata.PackageNotFoundError:
        return {}
