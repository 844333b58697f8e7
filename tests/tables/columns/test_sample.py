"""The different values of a column, counted in pieces of rows: they decide its kind."""

from functools import reduce
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

from backprop_xp.tables.columns import detection, sample
from backprop_xp.tables.columns.sample import Sample, merged
from backprop_xp.tables.readers.cells import DECIMAL
from backprop_xp.tables.readers.frames import plain_frame

pytestmark = pytest.mark.once

DRAW = np.random.default_rng(0)
# The first rows alone would decide another kind, or the last ones another reading.
DECIDED_BY_THE_LAST: dict[str, Any] = {
    "a constant": np.repeat([1.0, 2.0], [59, 1]),
    "a constant that is missing once": [*["x"] * 59, None],
    "missing but once": [*[None] * 59, "x"],
    "whole numbers with a missing value": pd.array([*range(59), None], dtype="Int64"),
    "a code": [*map(str, range(10, 69)), "007"],
    "an odd cell": [*(f"{i}.5" for i in range(59)), "?!"],
    "words": [*(f"{i}.5" for i in range(40)), *["low", "high", "none of both"] * 10],
    "an hour": np.asarray([*["2024-01-05", "2024-02-01"] * 29, "2024-01-05T10"], "M8[us]"),
    "days in the other order": [
        *(f"0{i % 9 + 1}/0{i % 8 + 1}/2024" for i in range(59)),
        "31/01/2024",
    ],
    "no date": [*range(20240101, 20240129), 20240199],
    "a large integer": [*range(59), 2**60 + 1],
    "declared": pd.Categorical([*"ab" * 30, "c"]),
    "booleans": [True] * 40 + [False],
    "free text": [f"one {i} of many" for i in range(50)],
    "an identifier": [f"id{i}" for i in range(59)],
    "no identifier": [*(f"id{i % 57}" for i in range(59)), "id one"],
}


@pytest.mark.parametrize("name", DECIDED_BY_THE_LAST)
def test_pieces_of_rows_decide_the_kind_that_all_rows_decide(name: str) -> None:
    values = pd.Series(DECIDED_BY_THE_LAST[name])
    whole = plain_frame(pd.DataFrame({"c": values}))["c"]
    end = len(whole)
    pieces = [
        plain_frame(pd.DataFrame({"c": values[rows]}))["c"].set_axis(range(end)[rows])
        for rows in (slice(0, 20), slice(20, end - 1), slice(end - 1, end))
    ]
    found = merged([Sample.of(piece) for piece in pieces])
    expected = Sample.of(whole)
    pd.testing.assert_series_equal(found.column, expected.column, check_index_type=False)
    np.testing.assert_array_equal(found.each, expected.each)
    assert (found.rows, found.present) == (end, expected.present)
    kinds = [detection._kind_of(one, None) for one in (found, expected)]
    assert kinds[0] == kinds[1] or isinstance(kinds[0], type(kinds[1]))
    assert reduce(Sample.merge, [Sample.of(piece) for piece in pieces]).counts == found.counts


def test_of_very_many_values_a_uniform_sample_stays_in_any_order_of_the_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "_MOST", 500)
    strings = [f"s{i}" for i in DRAW.permutation(np.repeat(np.arange(4000), 3))]
    column = pd.Series([*strings, *["often"] * 800, None], name="c")
    numbers = pd.Series(DRAW.permutation(5000), name="c")
    for values, n in ((column, 4001), (numbers, 5000)):
        cuts = [values[start : start + 1900] for start in range(0, len(values), 1900)]
        found = merged([Sample.of(piece) for piece in cuts])
        again = reduce(Sample.merge, reversed([Sample.of(piece) for piece in cuts]))
        assert {*found.column.dropna()} == {*again.column.dropna()}
        assert len(found.column) <= 504
        assert found.n_strings == pytest.approx(n, rel=0.15)
        counted = values.value_counts(dropna=False)
        for one in (found, again, Sample.of(values)):
            assert one.rows == len(values)
            assert counted[one.column].tolist() == one.each.tolist()
    assert {0, 4999} < {*found.column}
    assert "often" in {*Sample.of(column).column}


def test_an_odd_cell_beside_very_many_numbers_is_found_in_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "_MOST", 50)
    cells = pd.Series([*(f"{i}.5" for i in range(400)), "?!", "n. k."])
    found = detection.detect(pd.DataFrame({"c": cells}))
    assert [*found.lines()] == ["the column 'c' has '?!' (row 400), and 1 more: read as missing"]
    assert {*found.columns["c"].odd_strings} == {"?!", "n. k."}
    assert np.isnan(found.columns["c"].encode(cells)[-2:]).all()
    many = pd.DataFrame({"c": [*(f"{i}.5" for i in range(400)), *(f"?{i}" for i in range(60))]})
    with pytest.raises(ValueError, match=r"has '\?\d+' \(row 4\d\d\), but"):
        detection.detect(many, kinds={"c": "number"})


def test_strings_of_two_decimal_signs_are_the_same_numbers() -> None:
    def piece(strings: list[str], sign: str, first: int) -> pd.DataFrame:
        made = pd.DataFrame({"c": strings}, index=range(first, first + len(strings)))
        made.attrs[DECIMAL] = sign
        return made

    commas = piece([*(f"{i},250" for i in range(30)), "?!"], ",", 0)
    points = piece([*(f"{i}.250" for i in range(30)), "1,5"], ".", 0)
    for first, other in ((commas, points), (points, commas)):
        found = detection.detect(first, other)
        column = found.columns["c"]
        for part in (first, other):
            np.testing.assert_array_equal(column.encode(part["c"])[:30, 0], np.arange(30) + 0.25)
        assert np.isnan(column.encode(commas["c"])[30, 0])
        assert {*column.odd_strings} == {"?!", "1,5"}
        assert "and 1 more: read as missing" in next(found.lines())
