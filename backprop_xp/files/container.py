"""The container of a model: a safetensors file with a JSON header and a checksum.

The header is stored in safetensors' ``__metadata__``. Its ``checksum`` is the SHA-256 of the whole
file with zeros instead of the checksum, so any changed bit is an error. A checksum does not detect
forged files: therefore all content is checked before use, and sizes before allocation.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np

FORMAT = 2
# A network of ten thousand layers takes less. Parsed JSON takes about twenty times its bytes.
LONGEST_HEADER = 4 * 2**20

_KEY = "backprop_xp"
_BLANK = "0" * 64


class CheckpointError(ValueError):
    """A model file that cannot be read; the message says why."""


def encode(header: Mapping[str, object], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the bytes of a file with a header and tensors."""
    whole = {"checksum": _BLANK, "format": FORMAT, **header}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # safetensors writes the memory of a tensor as it is: another order would be wrong.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    data: bytes = _safetensors().save(dense, metadata={_KEY: text})
    if int.from_bytes(data[:8], "little") > LONGEST_HEADER:
        raise ValueError(
            f"The header would have more than {LONGEST_HEADER} bytes. Make metadata shorter."
        )
    return data.replace(_BLANK.encode(), _checksum(data, data.index(_BLANK.encode())), 1)


def decode(data: bytes) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return the header and the tensors of a file's bytes, or raise CheckpointError."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CheckpointError("it is truncated, or not a model file: its header is incomplete.")
    if length > LONGEST_HEADER:
        raise CheckpointError(f"its header has {length} bytes, more than {LONGEST_HEADER}.")
    table = _json(data[8 : 8 + length])
    metadata = table.pop("__metadata__", None)
    text = metadata.pop(_KEY, None) if isinstance(metadata, dict) else None
    if metadata or not isinstance(text, str):
        raise CheckpointError("bx.save did not write it.")
    header = _json(text)
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
    """Return a regular file's bytes."""
    # Opening a FIFO would otherwise wait for a writer.
    with open(os.fspath(path), "rb", opener=_open_without_waiting) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError("it is not a regular file.")
        return file.read()


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Replace a file's content, as ``replacing`` does."""
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, is_trial: bool = False) -> Iterator[BinaryIO]:
    """Provide a new file that replaces another one in one step: a reader sees the old or the new.

    The file keeps its permissions. After an error, or a trial, nothing has changed. Raises OSError
    for a folder, a FIFO or a device, and FileNotFoundError if there is no such folder.
    """
    target, mode = Path(os.path.realpath(path)), None
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{os.fspath(path)} is in a folder that does not exist.")
    with contextlib.suppress(FileNotFoundError):
        status = target.stat().st_mode
        mode = stat.S_IMODE(status)
        if not stat.S_ISREG(status):
            kind = IsADirectoryError if stat.S_ISDIR(status) else OSError
            raise kind(f"{os.fspath(path)} is not a regular file, and would be replaced by one.")
    temporary = target.with_name(f".backprop_xp-{secrets.token_hex(8)}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        if not is_trial:
            temporary.replace(target)
    except OSError as error:
        # The error of a full disk names no file, others name the temporary one.
        if error.errno is not None and error.filename in (None, os.fspath(temporary)):
            error.filename = os.fspath(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
    # Sync the folder's new entry; a folder without read permission cannot be opened for that.
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def _safetensors() -> ModuleType:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "Model files need safetensors: pip install 'backprop_xp[files]'."
        ) from error
    module: ModuleType = safetensors.numpy
    return module
