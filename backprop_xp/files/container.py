"""The container of a model: a safetensors file with a JSON header, a checksum, and no surprises.

The header lies in the container's ``__metadata__``. Its ``checksum`` is the SHA-256 of the whole
file with zeros in that place, so that no bit of the file can change unseen. A checksum tells
accidents; what somebody wrote with intent is checked before it is used, and its sizes before
anything is made of them.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FORMAT = 2
# A network of ten thousand layers takes less; lists in JSON take some twenty times its bytes.
LONGEST_HEADER = 4 * 2**20

_KEY = "backprop_xp"
_BLANK = "0" * 64
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
_BYTES |= {"F16": 2, "F32": 4, "F64": 8}
_LONGEST_AXIS = 2**48


class CheckpointError(ValueError):
    """What is wrong with a model file."""


def packed(header: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> bytes:
    """Return the file's bytes for a header and tensors."""
    given = {"checksum": _BLANK, "format": FORMAT, **header}
    text = json.dumps(given, sort_keys=True, separators=(",", ":"), allow_nan=False)
    # The container would write other tensors as they lie in memory, in a wrong order.
    dense = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    data: bytes = _safetensors().save(dense, metadata={_KEY: text})
    if int.from_bytes(data[:8], "little") > LONGEST_HEADER:
        raise ValueError(
            f"The header would have more than {LONGEST_HEADER} bytes: metadata is for a few words."
        )
    return data.replace(_BLANK.encode(), _checksum(data, data.index(_BLANK.encode())), 1)


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the tensors of a file's bytes, or raise CheckpointError."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise CheckpointError("it is truncated, or no model file: its header is not all there.")
    if length > LONGEST_HEADER:
        raise CheckpointError(f"its header has {length} bytes, more than {LONGEST_HEADER}.")
    table = _json(data[8 : 8 + length])
    kept = table.pop("__metadata__", None)
    if not isinstance(kept, dict) or kept.keys() != {_KEY} or not isinstance(kept[_KEY], str):
        raise CheckpointError("it is not one that bx.save wrote.")
    _check_table(table, len(data) - 8 - length)
    header = _json(kept[_KEY])
    if header.pop("format", None) != FORMAT:
        raise CheckpointError(
            f"it is of another version of the format than {FORMAT}, which this library reads."
        )
    checksum = header.pop("checksum", None)
    is_one = isinstance(checksum, str) and len(checksum) == 64 and checksum.isascii()
    place = data.find(checksum.encode()) if is_one else -1
    if place < 0 or _checksum(data, place) != checksum.encode():
        raise CheckpointError("its checksum does not fit: it was changed after it was written.")
    try:
        return header, _safetensors().load(data)
    except Exception as error:  # of safetensors' own kinds
        raise CheckpointError(f"safetensors does not read it: {error}") from error


def _checksum(data: bytes, place: int) -> bytes:
    found, view = hashlib.sha256(), memoryview(data)
    for part in (view[:place], _BLANK.encode(), view[place + 64 :]):
        found.update(part)
    return found.hexdigest().encode()


def _json(text: bytes | str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise CheckpointError("its header is nested too deeply.") from None
    except ValueError as error:
        raise CheckpointError(f"its header is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError("its header is no JSON object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


def _check_table(table: Mapping[str, Any], size: int) -> None:
    """Raise unless the tensors, one after the other, make up the file's data."""
    spans = []
    for name, entry in table.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(a), int(b)]}:
                count = _BYTES.get(dtype, 0)
            case _:
                raise CheckpointError(f"its entry for the tensor {name!r} is not understood.")
        for length in shape:
            if type(length) is not int or not 0 <= length <= _LONGEST_AXIS:
                raise CheckpointError(f"the tensor {name!r} has an impossible shape.")
            count *= length
        if dtype not in _BYTES or len(shape) > 32 or count != b - a:
            raise CheckpointError(
                f"the tensor {name!r}, {dtype} of shape {shape}, does not fit its {b - a} bytes."
            )
        spans.append((a, b))
    end = 0
    for a, b in sorted(spans):
        if a != end:
            raise CheckpointError("its tensors overlap, or leave gaps.")
        end = b
    if end != size:
        raise CheckpointError(f"it has {size} bytes of data, but {end} are expected: truncated?")


def read(path: Any) -> bytes:
    """Return a regular file's bytes."""
    # A FIFO would be waited for, until somebody wrote to it.
    with open(os.fspath(path), "rb", opener=_opened_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise CheckpointError("it is no regular file.")
        return file.read()


def _opened_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write(path: Any, data: bytes) -> None:
    """Put bytes in the place of a file in one step: at any moment the old or the new one is there.

    The file keeps its permissions. Where it fails nothing has changed. Raises OSError for what is
    there and no regular file: a folder, a FIFO or a device.
    """
    target, mode = Path(os.path.realpath(path)), None
    if target.exists():
        found = target.stat().st_mode
        if not stat.S_ISREG(found):
            kind = IsADirectoryError if stat.S_ISDIR(found) else OSError
            raise kind(f"{os.fspath(path)} is no regular file, and would be replaced by one.")
        mode = stat.S_IMODE(found)
    temporary = target.with_name(f".backprop_xp-{secrets.token_hex(8)}.tmp")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, 0o666 if mode is None else mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        # A full disk names no file, other errors the temporary one.
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = os.fspath(path)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Wait until a folder's new entry is on the disk, where there is a way to say so.

    There is none in a folder that may not be read: the file is written all the same.
    """
    if hasattr(os, "O_DIRECTORY"):
        with contextlib.suppress(OSError):
            place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(place)
            finally:
                os.close(place)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise ImportError(
            "Model files need safetensors: pip install 'backprop_xp[files]'."
        ) from error
    return safetensors.numpy
