"""The different values of a column, counted in pieces of rows: they decide its kind."""

import itertools
from functools import reduce
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

from backprop_xp.tables.columns import detection, sample
from backprop_xp.tables.columns.sample import Sample, merged, samples_of
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
    monkeypatch.setattr(sample, "MOST", 500)
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


def test_rows_are_drawn_alike_in_any_order_and_pieces_and_hold_the_shares_of_strings() -> None:
    """One string is in 2.05 % of the rows, but only in the first and the last piece."""
    pieces = [
        ["often"] * 300 + [f"a{i}" for i in range(1700)],
        *([f"{k} of {i}" for i in range(1000)] + [None, "n/a"] * 500 for k in range(20)),
        ["often"] * 600 + [f"z{i}" for i in range(1400)],
    ]
    column = pd.Series([*itertools.chain(*pieces)], dtype="str", name="c")
    cuts = [column[start : start + 2000] for start in range(0, len(column), 2000)]
    samples = [Sample.of(cut) for cut in cuts]
    whole = Sample.of(column).drawn.sort_index()
    for one in (merged(samples), reduce(Sample.merge, reversed(samples))):
        pd.testing.assert_series_equal(one.drawn.sort_index(), whole, check_index_type=False)
    n, share = len(whole), 900 / 24_000
    deviation = np.sqrt(share * (1.0 - share) / n)
    assert n == sample._DRAWN
    assert (whole == "often").mean() == pytest.approx(share, abs=4.0 * deviation)


def test_words_for_a_missing_value_are_counted_beside_very_many_strings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "MOST", 50)
    cells = pd.Series([*(f"s{i}" for i in range(2000)), *["n/a", " ? ", "", None] * 3], dtype="str")
    pieces = [{"c": cells[start : start + 100]} for start in range(0, len(cells), 100)]
    found = samples_of(pieces)["c"]
    assert found.limit < 1.0
    assert found.column.value_counts()[["n/a", " ? ", ""]].tolist() == [1, 1, 1]
    assert [found.each[found.column == word].tolist() for word in ("n/a", " ? ", "")] == [[3]] * 3
    assert found.present == 2006


@pytest.mark.parametrize("share", [0.01, 0.1, 0.25, 0.4])
@pytest.mark.parametrize("n_notes", [1, 100])
@pytest.mark.parametrize("has_dates", [False, True])
def test_odd_strings_in_up_to_half_of_the_rows_stand_beside_very_many_numbers_or_dates(
    share: float, n_notes: int, has_dates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST", 500)
    n = 12_000
    values = pd.date_range("1990-01-01", periods=n).strftime("%d.%m.%Y").to_numpy(object)
    if not has_dates:
        values = np.asarray([f"{i / 7:.4f}" for i in range(n)], dtype=object)
    values = DRAW.permutation(values)
    rows = DRAW.permutation(n)[: int(share * n)]
    values[rows] = [f"see note {i % n_notes}" for i in range(len(rows))]
    found = detection.detect(pd.DataFrame({"c": pd.Series(values, dtype="str")}))
    assert found.columns["c"].kind == ("date" if has_dates else "number")
    assert {*found.columns["c"].odd_strings} == {f"see note {i}" for i in range(n_notes)}
    assert found.odd["c"].total == len(rows)


def test_strings_in_more_than_half_of_the_rows_are_not_odd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "MOST", 500)
    values = np.asarray([f"{i / 7:.4f}" for i in range(12_000)], dtype=object)
    values[DRAW.permutation(12_000)[:6600]] = "see note"
    found = detection.detect(pd.DataFrame({"c": pd.Series(values, dtype="str")}))
    assert found.columns["c"].kind == "text"


@pytest.mark.parametrize("string", ["unknown", "not known"])
def test_a_string_in_many_rows_is_seen_beside_very_many_others(
    string: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then strings are no identifiers, and no codes if it has two words."""
    monkeypatch.setattr(sample, "MOST", 50)
    for n, kind in ((1, "text"), (4, "category" if string == "unknown" else "text")):
        cells = pd.Series([*(f"s{i}" for i in range(500))] * n + [string] * 400 * n, dtype="str")
        assert string not in {*Sample.of(cells).column}
        assert detection.detect(pd.DataFrame({"c": cells})).columns["c"].kind == kind
    codes = pd.Series([*map(str, range(10, 510)), *["007"] * 40], dtype="str")
    assert "007" not in {*Sample.of(codes).column}
    assert detection.detect(pd.DataFrame({"c": codes})).columns["c"].kind == "text"


@pytest.mark.parametrize("kind", ["date", "number"])
def test_a_wrong_string_of_a_chosen_kind_is_named_beside_very_many_values(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "MOST", 50)
    days = pd.date_range("1990-01-01", periods=500).strftime("%d.%m.%Y")
    given = {"date": [*days], "number": [f"{i},5" for i in range(500)]}[kind]
    cells = pd.Series([*given, *["soon"] * 90], dtype="str")
    assert "soon" not in {*Sample.of(cells).column}
    with pytest.raises(ValueError, match=rf"has 'soon' \(row 5\d\d\), .* chosen to be {kind}"):
        detection.detect(pd.DataFrame({"c": cells}), kinds={"c": kind})


@pytest.mark.parametrize("zone", [None, "Europe/Rome"])
def test_dates_and_timedeltas_of_several_units_are_of_one_type(
    zone: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    days = np.full(60, "2024-01-01", "M8[ns]")
    hours = np.asarray("3024-01-02", "M8[s]") + 3600 * np.arange(60)  # nanoseconds end in 2262
    first, other = (pd.Series(part).dt.tz_localize(zone) for part in (days, hours))
    for parts in ((first, other), (other, first)):
        found = detection.detect(*(pd.DataFrame({"c": part}) for part in parts))
        assert "hour" in found.columns["c"].parts
    monkeypatch.setattr(sample, "MOST", 500)
    many = pd.Series(pd.date_range("2024-01-01", periods=2000, freq="h", tz=zone)).dt.as_unit("ns")
    again = many.dt.as_unit("s").set_axis(range(2000, 4000))
    for one, two in ((many, again), (many - many[0], again - again[2000])):
        sampled = merged([Sample.of(one), Sample.of(two)])
        assert sampled.limit < 1.0
        assert {*sampled.each} == {2}


def test_an_odd_cell_beside_very_many_numbers_is_found_in_all_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample, "MOST", 50)
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
