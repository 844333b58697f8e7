"""Arrays in NumPy's files, .npy and .npz, without pickle; nothing is read before its header fits.

NumPy makes an array of the size that a header gives, and zipfile, the decompressors and the parser
of headers raise errors of many kinds for damaged bytes. Here each of them is a ValueError.
"""

import contextlib
import math
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO

import numpy as np

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@contextlib.contextmanager
def _one_kind_of_error() -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"it is damaged ({type(error).__name__}: {error}).") from error


def read_npy(file: IO[bytes], size: int | None = None) -> np.ndarray:
    """Return the array in a .npy file of ``size`` bytes, by default the file's size."""
    if size is None:
        size = os.fstat(file.fileno()).st_size
    # Python's parser warns of odd headers.
    with _one_kind_of_error(), warnings.catch_warnings(action="ignore"):
        return _read(file, size)


def _read(file: IO[bytes], size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:  # it has the names of fields
        raise ValueError(f"it has version {version} of the format: (1, 0) or (2, 0) is expected.")
    shape, _, dtype = _HEADERS[version](file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which only pickle can read.")
    values, found = math.prod(shape), size - file.tell()
    fits = values * dtype.itemsize == found and min((0, *shape)) == 0
    if not fits or (values and not dtype.itemsize):  # such as 10**9 strings without characters
        raise ValueError(f"its header has shape {shape} of {dtype}, but {found} bytes follow.")
    file.seek(0)
    array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    if dtype.kind == "U":
        codes = np.ascontiguousarray(array).view(f"{dtype.byteorder}u4")
        if (codes > sys.maxunicode).any():
            raise ValueError("a string has a character that does not exist.")
    return array


def read_npz(file: IO[bytes]) -> dict[str, np.ndarray]:
    """Return the arrays in a .npz file by their names; an error names the array."""
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not an npz file, as numpy.savez writes it.")
    arrays = dict[str, np.ndarray]()
    with _one_kind_of_error(), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name in arrays or name == member.filename:
                raise ValueError(f"{member.filename!r} is no .npy file, or occurs twice.")
            try:
                with archive.open(member) as opened:
                    arrays[name] = read_npy(opened, member.file_size)
            except Exception as error:
                raise ValueError(f"the array {name!r}: {error}") from error
    return arrays
