"""Features as records: JSON values and plain arrays, for the descriptions in a file.

Names, numbers and reasons are JSON. A tuple of strings is its length: the strings of all columns
stand in one tensor, since the header of a file is short. Reading checks all that ``transform``
needs, before anything is computed.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

from backprop_xp.checks import integer, known
from backprop_xp.files.container import decode, encode, refusing
from backprop_xp.files.descriptions import describe, rebuild
from backprop_xp.tables.columns.column import Column
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.kinds import KINDS, kind_named
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.readers.cells import String


def record_of(features: Features) -> dict[str, Any]:
    """Return features as a record, which ``features_of`` reads."""
    columns, strings = list[dict[str, Any]](), list[String]()
    for name in features.seen:
        if name in features.left_out:
            columns.append({"name": name, "left_out": features.left_out[name]})
            continue
        column = features.columns[name]
        fields = {one.name: getattr(column, one.name) for one in dataclasses.fields(column)}
        for field, value in fields.items():
            if isinstance(value, tuple):
                strings += value
                fields[field] = len(value)
        columns.append({"name": name, "kind": column.kind, **fields})
    scaling = features.scaling._asdict()
    return {"columns": columns, "strings": _packed(strings), "scaling": scaling}


def features_of(record: Mapping[str, Any]) -> Features:
    """Return the features of a record; raise ValueError for one that no training has written."""
    strings = iter(_unpacked(**record["strings"]))
    columns, left_out = dict[str, Column](), dict[str, str]()
    for one in record["columns"]:
        name = _checked(one["name"], str, "name")
        name.encode()  # pandas has no name with a lone surrogate
        if name in columns or name in left_out:
            raise ValueError(f"there are two columns {name!r}.")
        if "left_out" in one:
            left_out[name] = _checked(one["left_out"], str, "left_out")
        else:
            columns[name] = _column(one, strings)
    if [*strings]:
        raise ValueError("there are strings of no column.")
    seen = tuple(one["name"] for one in record["columns"])
    scaling = Scaling(**record["scaling"])
    scaling.check(sum(one.width for one in columns.values() if one.is_scaled))
    return Features(columns, left_out, scaling, seen)


def to_bytes(features: Features) -> np.ndarray:
    """Return features as the bytes of a safetensors file, for ``from_bytes``."""
    arrays: dict[str, np.ndarray] = {}
    header = {"features": describe(record_of(features), "features", arrays)}
    return np.frombuffer(encode(header, arrays), dtype=np.uint8)


def from_bytes(data: np.ndarray) -> Features:
    """Return the features of these bytes; raise CheckpointError, a ValueError, for any others."""
    with refusing("the preparation"):
        header, arrays = decode(data.tobytes())
        record: Any = rebuild(header["features"], "features", arrays.__getitem__)
        return features_of(record)


def _packed(strings: Sequence[String]) -> dict[str, np.ndarray]:
    """Return the letters of strings, and the number of letters of each: -1 for None."""
    letters = "".join(filter(None, strings)).encode()
    lengths = [-1 if one is None else len(one) for one in strings]
    return {"letters": np.frombuffer(letters, np.uint8), "lengths": np.asarray(lengths, np.int64)}


def _unpacked(letters: np.ndarray, lengths: np.ndarray) -> Iterator[String]:
    """Yield the strings that ``_packed`` was given."""
    if letters.dtype != np.uint8 or lengths.dtype != np.int64:
        raise ValueError("its strings are not bytes with their lengths.")
    text, start = letters.tobytes().decode(), 0
    for length in lengths.reshape(-1).tolist():
        if not -1 <= length <= len(text) - start:
            raise ValueError(f"a string has {length} letters.")
        yield None if length < 0 else text[start : start + length]
        start += max(0, length)
    if start < len(text):
        raise ValueError("its strings have too many letters.")


def _column(record: Mapping[str, Any], strings: Iterator[String]) -> Column:
    """Return the column of a record."""
    fields = {name: value for name, value in record.items() if name not in ("name", "kind")}
    kind = kind_named(known(record["kind"], [*KINDS], "kind"))
    hints = get_type_hints(kind)
    fields = {**kind.unwritten, **fields}
    for name in (one.name for one in dataclasses.fields(kind)):
        if get_origin(hints[name]) is tuple:
            count = integer(fields[name], name, at_least=0)
            fields[name] = tuple(itertools.islice(strings, count))
            if len(fields[name]) < count:
                raise ValueError(f"there are fewer than {count} strings.")
        _checked(fields[name], hints[name], name)
    column = kind(**fields)
    column.check()
    return column


def _checked(value: Any, hint: Any, name: str) -> Any:
    """Return a value of the type of an annotation; raise TypeError for any other."""
    is_tuple = get_origin(hint) is tuple
    allowed, values = (get_args(hint)[0], value) if is_tuple else (hint, (value,))
    if not all(isinstance(one, allowed) for one in values):
        raise TypeError(f"{name} is {value!r}, not {hint}.")
    return value
