"""Files that are written whole or not at all."""

import errno
import os
import re
from pathlib import Path
from typing import Any

import pytest

from backprop_xp import atomic_files
from tests.helpers import FullDisk


def test_a_file_on_a_full_disk_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_bytes(b"old")
    with FullDisk(), pytest.raises(OSError, match="too large") as caught:
        atomic_files.write(path, b"new" * 1000)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert [*tmp_path.iterdir()] == [path]


def test_an_error_without_a_name_is_not_one_of_the_file(tmp_path: Path) -> None:
    """Such as that of a disk which cannot read another file."""
    with pytest.raises(OSError, match="Input/output") as caught:
        _fail(tmp_path / "new", OSError(errno.EIO, os.strerror(errno.EIO)))
    assert caught.value.filename is None
    assert [*tmp_path.iterdir()] == []


def _fail(path: Path, error: OSError) -> None:
    with atomic_files.replacing(path) as file:
        file.write(b"new")
        raise error


def test_the_error_of_a_read_only_folder_names_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc")  # where the superuser makes no files either
    path = folder / "new"
    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        atomic_files.write(path, b"")
    assert (caught.value.filename, caught.value.filename2) == (str(path), None)


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    def read() -> Any:
        with atomic_files.replacing(tmp_path / "new"):
            return (tmp_path / "nowhere").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        read()
    assert caught.value.filename == str(tmp_path / "nowhere")
