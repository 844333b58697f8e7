"""Features in files: they come back as they were, and a forged record is an error."""

import copy
import io
import itertools
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")
pytest.importorskip("safetensors")

import pandas as pd

import backprop_xp as bx
from backprop_xp.files import container
from backprop_xp.files.descriptions import describe
from backprop_xp.tables.columns import date_formats, feature_records
from backprop_xp.tables.columns.category import Category
from backprop_xp.tables.columns.date import Date
from backprop_xp.tables.columns.features import Features
from backprop_xp.tables.columns.number import Number
from backprop_xp.tables.columns.scaling import Scaling
from backprop_xp.tables.columns.text import Text
from tests.helpers import thorough

Record = dict[str, Any]

TEXT = Text(("ab ", " a", "äß😀", ""), np.arange(1.0, 5.0), np.ones((4, 2), "float32"))
FEATURES = Features(
    {
        "n": Number(),
        "big": Number(None, 2**64 - 5),
        "day": Date(("%d/%m/%Y", "%Y-%m-%d"), ("year", "month"), "Europe/Rome"),
        "city": Category(("", "Oslo", "中", None)),
        "code": Category(("a", "b"), is_code=True),
        "text": TEXT,
    },
    {"id": "an identifier"},
    Scaling(
        np.arange(4.0), np.asarray([1, 3]), np.arange(6.0), np.arange(1.0, 7.0), np.asarray(3.0)
    ),
    ("n", "big", "id", "day", "city", "code", "text"),
)


def test_features_come_back_as_they_were() -> None:
    again = feature_records.from_bytes(feature_records.to_bytes(FEATURES))
    assert (again.seen, again.left_out) == (FEATURES.seen, FEATURES.left_out)
    assert [*again.columns] == [*FEATURES.columns]
    for name, column in FEATURES.columns.items():
        if name != "text":
            assert again.columns[name] == column
    text = again.columns["text"]
    assert isinstance(text, Text)
    assert text.pieces == TEXT.pieces
    np.testing.assert_array_equal(text.idf, TEXT.idf)
    np.testing.assert_array_equal(text.axes, TEXT.axes)
    for one, other in zip(again.scaling, FEATURES.scaling, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_record_of_an_earlier_version_is_read() -> None:
    """It lacks whether a category is one of numbers: it never was."""
    record = copy.deepcopy(feature_records.record_of(FEATURES))
    for one in record["columns"]:
        one.pop("of_numbers", None)
    assert feature_records.features_of(record).columns["city"] == FEATURES.columns["city"]


def test_strings_of_any_number_and_length_fit_in_a_file() -> None:
    pieces = tuple(f"{i:04d}" for i in range(10_000)) + tuple(f"ä{i:03d}" for i in range(1000))
    count = len(pieces)
    text = Text(pieces, np.ones(count), np.ones((count, 1), "float32"))
    category = Category(tuple(f"{i}" * 100_000 for i in range(10)))
    columns = {"text": text, "category": category}
    none = np.empty(0)
    scaling = Scaling(none, none.astype(int), none, none, np.zeros(()))
    data = feature_records.to_bytes(Features(columns, {}, scaling, ("text", "category")))
    assert int.from_bytes(data[:8].tobytes(), "little") < 10_000  # the header
    again = feature_records.from_bytes(data).columns
    assert (again["text"].pieces, again["category"]) == (pieces, category)


def setter(*path: Any, to: Any) -> Callable[[Record], None]:
    """Return a function that sets the entry of a record at a path."""

    def change(record: Record) -> None:
        for key in path[:-1]:
            record = record[key]
        record[path[-1]] = to

    return change


def column(i: int, **fields: Any) -> Callable[[Record], None]:
    """Return a function that changes fields of a record's column."""
    return lambda record: record["columns"][i].update(fields)


def longer(name: str) -> Callable[[Record], None]:
    """Return a function that adds an entry to the letters or the lengths of the strings."""
    return lambda record: record["strings"].update({name: np.pad(record["strings"][name], (0, 1))})


# A change of the record above, and the message.
FORGED: dict[str, tuple[Callable[[Record], Any], str]] = {
    "no columns": (lambda record: record.pop("columns"), "it lacks 'columns'"),
    "an array for columns": (setter("columns", to=np.ones(3)), ""),
    "a kind": (column(0, kind="pickle"), "kind 'pickle' is unknown"),
    "a lack of a field": (lambda record: record["columns"][0].pop("style"), "it lacks 'style'"),
    "a field": (column(0, evil=1), "evil"),
    "a name": (column(0, name=3), "name is 3"),
    "a name for no file": (column(0, name="\ud800"), "surrogates not allowed"),
    "a name again": (column(0, name="city"), "two columns 'city'"),
    "a style": (column(0, style="1_000"), "style '1_000' is unknown"),
    "an origin": (column(1, origin=2**64), "a number has values"),
    "a fraction as origin": (column(1, origin=0.5), "origin is 0.5"),
    "a part of a date": (setter("strings", "letters", 20, to=ord("x")), "it lacks 'xonth'"),
    "fewer strings": (column(4, values=10**12), "fewer than 1000000000000"),
    "a negative count": (column(4, values=-1), "values must be an integer"),
    "strings left": (longer("lengths"), "strings of no column"),
    "letters left": (longer("letters"), "too many letters"),
    "a boolean": (column(5, is_code=1), "is_code is 1"),
    "a missing piece": (setter("strings", "lengths", -1, to=-1), "pieces is"),
    "a length": (setter("strings", "lengths", 0, to=10**15), "a string has 1000000000000000"),
    "letters": (setter("strings", "letters", 0, to=255), "can't decode"),
    "no bytes": (setter("strings", "letters", to=np.ones(3)), "not bytes with their lengths"),
    "frequencies": (column(6, idf=np.ones(3)), "a text has values"),
    "axes": (column(6, axes=np.ones((4, 2))), "a text has values"),
    "a frequency": (column(6, idf=np.full(4, np.nan)), "a text has values"),
    "no array": (column(6, idf=3), "idf is 3"),
    "an array as pieces": (column(6, pieces=np.ones(2)), "pieces must be an integer"),
    "medians": (setter("scaling", "medians", to=np.ones(3)), r"scaling.medians is not of \(4,\)"),
    "a median": (setter("scaling", "medians", 0, to=np.inf), "finite numbers"),
    "an indicator": (setter("scaling", "flagged", 1, to=4), "increasing indices below 4"),
    "two indicators": (setter("scaling", "flagged", 1, to=1), "increasing indices below 4"),
    "a scale": (setter("scaling", "scales", 0, to=0.0), "a scale must be > 0"),
    "no scaling": (setter("scaling", to=[]), ""),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_record_is_a_checkpoint_error(name: str) -> None:
    change, message = FORGED[name]
    record = copy.deepcopy(feature_records.record_of(FEATURES))
    record["strings"] = {key: np.array(value) for key, value in record["strings"].items()}
    change(record)
    arrays: dict[str, Any] = {}
    header = {"features": describe(record, "features", arrays)}
    data = np.frombuffer(container.encode(header, arrays), np.uint8)
    with pytest.raises(bx.CheckpointError, match=f"^the preparation: .*{message}"):
        feature_records.from_bytes(data)


def test_other_bytes_are_a_checkpoint_error() -> None:
    archive = io.BytesIO()
    np.savez_compressed(archive, json=np.zeros(2**20))
    header = container.encode({"other": 1}, {})
    for data in (b"", b"no file", archive.getvalue(), header):
        with pytest.raises(bx.CheckpointError, match=r"^the preparation: "):
            feature_records.from_bytes(np.frombuffer(data, np.uint8))


@pytest.mark.parametrize("every", [4, thorough(1)])
def test_pandas_reads_each_format_that_a_record_may_have(every: int) -> None:
    letters = [chr(i) for i in range(33, 127)]
    singles = [f"%{letter}" for letter in letters]
    pairs = [f"{a} {b} %Y" for a, b in itertools.product(singles, repeat=2)]
    others = ["%", "%%", "%%Y", "%Y %", "%%%", "(", "%\n", "%d %m", ""]
    allowed = [one for one in [*singles, *pairs, *others] if date_formats.is_format(one)]
    assert {"%Y", "%d %m %Y"} <= {*allowed}
    assert "%d %m" not in allowed  # which needs a year
    assert 200 < len(allowed) < 400
    for one in allowed[::every]:
        date_formats.read_dates(["someday", "3 4"], [one])


def test_the_formats_of_a_training_may_be_in_a_record() -> None:
    written = ["2020-01-02T03:04:05.123Z", "2 Jan 2020 10:11:12.5 UTC", "Mon Jan 2 2020"]
    written += ["29-JUN-23", "6/29/23 10:28 PM UTC", "June 2023", "6/2023"]
    written += ["2020-01-02 03:04:05+01:00", "January 2 2020", "20200102", "2020/1/2 5:07 PM"]
    for one in written:
        assert [date_formats.is_format(form) for form in date_formats.find_formats([one])] == [True]


def test_a_category_of_many_values_takes_the_memory_of_its_features() -> None:
    category = Category(tuple(map(str, range(5000))))
    strings = pd.Series(["7", "4999", "other"], dtype="str")
    tracemalloc.start()
    found = category.encode(strings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.dtype == np.float32
    assert [row.nonzero()[0].tolist() for row in found] == [[7], [4999], []]
    assert peak < 2**21  # a table of all values has 100 MB
