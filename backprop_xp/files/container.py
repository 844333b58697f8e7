"""The container of a model: a safetensors file with a JSON header and a checksum.

The header is stored in safetensors' ``__metadata__``. Its ``checksum`` is the SHA-256 of the whole
file with zeros instead of the checksum, so any changed bit is an error. A checksum does not detect
forged files: therefore all content is checked before use, and sizes before allocation.
"""

import contextlib
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import BinaryIO

import numpy as np

from backprop_xp.extras import install_command

FORMAT = 2
# A network of ten thousand layers takes less. Parsed JSON takes about twenty times its bytes.
LONGEST_HEADER = 4 * 2**20

_KEY = "backprop_xp"
_BLANK = "0" * 64


class CheckpointError(ValueError):
    """A model file that cannot be read; the message says why.

    >>> import os, tempfile
    >>> import backprop_xp as bx
    >>> path = os.path.join(tempfile.mkdtemp(), "model.safetensors")
    >>> with open(path, "w") as file:
    ...     size = file.write("no model")
    >>> try:
    ...     bx.load(path)
    ... except bx.CheckpointError as error:
    ...     print(str(error).startswith(path))
    True
    """


@contextlib.contextmanager
def refusing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error that the content of a file causes into a CheckpointError with its path."""
    try:
        yield
    except RecursionError:
        raise CheckpointError(f"{os.fspath(path)}: it is nested too deeply.") from None
    except KeyError as error:
        raise CheckpointError(f"{os.fspath(path)}: it lacks {error}.") from error
    except (ValueError, TypeError, AttributeError, IndexError, ArithmeticError) as error:
        raise CheckpointError(f"{os.fspath(path)}: {error}") from error


def encode(header: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a file with a header and tensors."""
    whole = {"checksum": _BLANK, "format": FORMAT, **header}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # safetensors writes the memory of a tensor as it is: another order would be wrong.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    data: bytes = _safetensors().save(dense, metadata={_KEY: text})
    if int.from_bytes(data[:8], "little") > LONGEST_HEADER:
        raise ValueError(
            f"The header would have more than {LONGEST_HEADER} bytes. Make metadata shorter, or "
            "use fewer columns of a table."
        )
    return data.replace(_BLANK.encode(), _checksum(data, data.index(_BLANK.encode())), 1)


def decode(data: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return the header and the tensors of a file's bytes, or raise CheckpointError."""
    header = _json(_header_of(io.BytesIO(data), len(data)))
    if header.pop("format", None) != FORMAT:
        raise CheckpointError(
            f"it is of another version of the format than {FORMAT}, which this library reads."
        )
    checksum = header.pop("checksum", None)
    digest = checksum.encode() if isinstance(checksum, str) and checksum.isascii() else b""
    start = data.find(digest) if len(digest) == 64 else -1
    if start < 0 or _checksum(data, start) != digest:
        raise CheckpointError("its checksum does not fit: it was changed after it was written.")
    try:
        tensors: dict[str, np.ndarray] = _safetensors().load(data)  # it checks sizes and offsets
    except Exception as error:  # safetensors has its own exceptions
        raise CheckpointError(f"safetensors does not read it: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind not in "biuf":
            raise CheckpointError(f"the tensor {name!r} has the dtype {tensor.dtype}.")
    return header, tensors


def _header_of(file: BinaryIO, size: int) -> str:
    """Return the header of a file of so many bytes, from its beginning; CheckpointError if none."""
    start = file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > size - 8:
        raise CheckpointError("it is truncated, or not a model file: its header is incomplete.")
    if length > LONGEST_HEADER:
        raise CheckpointError(f"its header has {length} bytes, more than {LONGEST_HEADER}.")
    metadata = _json(file.read(length)).get("__metadata__")
    header = metadata.pop(_KEY, None) if isinstance(metadata, dict) else None
    if metadata or not isinstance(header, str):
        raise CheckpointError("bx.save did not write it.")
    return header


def _checksum(data: bytes, start: int) -> bytes:
    """Return the checksum of a file whose own checksum starts at an offset."""
    digest, view = hashlib.sha256(), memoryview(data)
    for part in (view[:start], _BLANK.encode(), view[start + 64 :]):
        digest.update(part)
    return digest.hexdigest().encode()


def _json(text: bytes | str) -> dict[str, object]:
    """Return a JSON object, or raise CheckpointError."""
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise CheckpointError("its header is nested too deeply.") from None
    except ValueError as error:
        raise CheckpointError(f"its header is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError("its header is not a JSON object.")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("an object has a key twice")
    return values


def read(path: str | os.PathLike[str]) -> bytes:
    """Return the bytes of a model file; any other file is refused after its beginning."""
    with _opened(path) as file:
        _header_of(file, os.fstat(file.fileno()).st_size)
        file.seek(0)
        return file.read()


def is_model_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as a model file does."""
    try:
        with _opened(path) as file:
            _header_of(file, os.fstat(file.fileno()).st_size)
    except CheckpointError:
        return False
    return True


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Return an open regular file."""
    # Opening a FIFO would otherwise wait for a writer.
    file = open(os.fspath(path), "rb", opener=_open_without_waiting)  # noqa: SIM115
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise CheckpointError("it is not a regular file.")


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(f"Model files need safetensors: {install_command('files')}") from error
    module: ModuleType = safetensors.numpy
    return module
