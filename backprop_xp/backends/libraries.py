"""What is said of any array library: whether it is installed, its dtypes and errors in words."""

import importlib.util

from backprop_xp.backends.protocol import DType


def is_installed(module: str) -> bool:
    """Say whether a module can be imported; a folder of that name beside a script is none."""
    found = importlib.util.find_spec(module)
    return found is not None and found.origin is not None


def dtype_name(dtype: DType) -> str:
    """Return the name of a dtype without its library's: ``"float32"`` for ``torch.float32``."""
    return str(dtype).rpartition(".")[2].strip("'>")


def in_words(error: BaseException) -> str:
    """Return an exception's kind and text in one line without its full stop: a reason."""
    words = " ".join(str(error).split()).rstrip(".:")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__
