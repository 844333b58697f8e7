"""Arrays in NumPy's files: the same as NumPy reads, and one error for each kind of damage."""

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backprop_xp.files.numpy_files import read_npy, read_npz

ARRAYS = {
    "numbers": np.arange(6.0).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype="int16").reshape(2, 3)),
    "big endian": np.arange(3, dtype=">f4"),
    "strings": np.asarray(["a", "\N{GREEK SMALL LETTER BETA}", "\N{GRINNING FACE}"]),
    "swapped strings": np.asarray(["ab", "c"]).astype(">U2"),
    "dates": np.asarray(["2020-01-01"], "datetime64[D]"),
    "a number": np.asarray(2.5),
    "no rows": np.empty((0, 3)),
    "fields": np.zeros(2, [("a", "f8"), ("b", "i4")]),
}


def npy(header: str, data: bytes = b"", version: bytes = b"\1\0") -> bytes:
    """Return the bytes of a .npy file with any header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def described(descr: str, shape: str) -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"


def npz(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_arrays_are_those_that_numpy_wrote(tmp_path: Path, save: Callable[..., Any]) -> None:
    save(tmp_path / "all.npz", **ARRAYS)
    with (tmp_path / "all.npz").open("rb") as file:
        found = read_npz(file)
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.save(tmp_path / "one.npy", array)
        with (tmp_path / "one.npy").open("rb") as file:
            one = read_npy(file)
        for each in (found[name], one):
            assert each.dtype == array.dtype
            np.testing.assert_array_equal(each, array)


# The bytes of a .npy file, and the error.
DAMAGED = {
    "no magic": (b"text", "EOF|magic"),
    "an open parenthesis": (npy("{'descr': ('<f8'"), "header|Token|parse"),
    "an odd escape": (npy("'\\8'"), "not a dictionary"),
    "a call": (npy("exit()"), "malformed"),
    "no keys": (npy("{}"), "keys"),
    "a long header": (b"\x93NUMPY\1\0\xff\xff{", "EOF"),
    "no dtype": (npy(described("'<q9'", "(1,)"), bytes(9)), "descr|dtype"),
    "more rows than bytes": (npy(described("'<f8'", "(1000000000,)"), bytes(8)), "8 bytes follow"),
    "fewer rows than bytes": (npy(described("'<f8'", "(1,)"), bytes(16)), "16 bytes follow"),
    "more bytes than memory": (npy(described("'<f8'", f"({2**70},)"), bytes(8)), "8 bytes follow"),
    "strings of no size": (npy(described("'<U0'", "(1000000000,)")), "0 bytes follow"),
    "negative rows": (npy(described("'<f8'", "(-1, -1)"), bytes(8)), "8 bytes follow"),
    "objects": (npy(described("'|O'", "(1,)"), b"cos\nabort\n(tR."), "only pickle"),
    "objects in fields": (npy(described("[('a', '|O')]", "(1,)"), bytes(8)), "only pickle"),
    "no character": (npy(described("'<U1'", "(1,)"), b"\0\0\x11\0"), "does not exist"),
    "no character, swapped": (npy(described("'>U1'", "(1,)"), b"\0\x11\0\0"), "does not exist"),
    "another version": (npy(described("'<f8'", "(1,)"), bytes(8), b"\3\0"), "version"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_an_error_before_memory_is_taken(name: str) -> None:
    data, message = DAMAGED[name]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_npy(io.BytesIO(data), len(data))
        with pytest.raises(ValueError, match=f"the array 'x': .*({message})"):
            read_npz(io.BytesIO(npz({"x.npy": data})))
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


def test_a_member_that_is_no_array_is_an_error() -> None:
    for members in ({"notes.txt": b"text"}, {"x.npy/": b""}):
        with pytest.raises(ValueError, match=r"is no \.npy file"):
            read_npz(io.BytesIO(npz(members)))
    with pytest.raises(ValueError, match="it is not an npz file"):
        read_npz(io.BytesIO(b"text"))
    stream = io.BytesIO()
    np.savez(stream, x=np.arange(3.0))
    data = bytearray(stream.getvalue())
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("x.npy", b"")
    with pytest.raises(ValueError, match="or occurs twice"):
        read_npz(stream)
    data[data.rindex(b"PK\1\2") + 8] |= 1  # encrypted
    with pytest.raises(ValueError, match=r"the array 'x': .*encrypted"):
        read_npz(io.BytesIO(data))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_random_damage_is_an_error_or_gives_arrays(save: Callable[..., Any]) -> None:
    stream, draw = io.BytesIO(), np.random.default_rng(0)
    save(stream, **ARRAYS)
    whole = np.frombuffer(stream.getvalue(), "u1")
    errors = 0
    for _ in range(300):
        data = whole.copy()
        data[draw.integers(len(data), size=draw.integers(1, 4))] = draw.integers(256)
        try:
            read_npz(io.BytesIO(data.tobytes()))
        except ValueError:  # no other error
            errors += 1
    assert errors > 100
