"""Files that are written whole or not at all: each replaces an older one in one step."""

import contextlib
import io
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


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
        with _naming(path):
            descriptor = os.open(temporary, flags, 0o666 if mode is None else mode)
        with io.BufferedWriter(_NamedFile(descriptor, path)) as file:
            yield file
            file.flush()
            with _naming(path):
                os.fsync(descriptor)
        with _naming(path):
            if mode is not None:
                temporary.chmod(mode)
            if not is_trial:
                temporary.replace(target)
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


class _NamedFile(io.FileIO):
    """A file whose errors, such as that of a full disk, name the path that it will replace."""

    def __init__(self, descriptor: int, path: str | os.PathLike[str]) -> None:
        super().__init__(descriptor, "wb")
        self._path = path

    def write(self, data: Any) -> int:
        with _naming(self._path):
            return super().write(data)


@contextlib.contextmanager
def _naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let an OSError name this path, in place of none or of a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
