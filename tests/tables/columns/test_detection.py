"""The kinds of columns: their detection, and the features that they become.

Specifies ``category``, ``column``, ``counts``, ``date``, ``date_formats``, ``features``,
``number``, ``scaling`` and ``text``.
"""

import dataclasses
import datetime
import itertools
import re
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial, reduce
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
import pyarrow as pa

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.columns import (
    date_formats,
    detection,
    feature_records,
    features,
    scaling,
    text,
    tolerance,
)
from backprop_xp.tables.columns.counts import Counts, OddCells
from backprop_xp.tables.readers import frames
from tests import messy_tables
from tests.helpers import HANGING
from tests.table_trainings import (
    QUICK,
    classes_of,
    frame,
    kinds_of,
    predictions,
    prepare,
    reread,
    train,
    transform,
)


def test_each_kind_of_column_is_found_and_becomes_finite_float32() -> None:
    table = frame(200)
    with pytest.warns(UserWarning, match="is left out") as caught:
        made = prepare(table.drop(columns="y").assign(same=1, none=np.nan))
    assert [str(one.message) for one in caught] == [
        "'same' is left out: it is the same in all rows.",
        "'none' is left out: it is empty.",
    ]
    assert kinds_of(made) == {"a": "number", "b": "category", "day": "date", "text": "text"}
    assert made.left_out == {"same": "the same in all rows", "none": "empty"}
    x = transform(made, table)
    assert (x.dtype, x.shape) == (np.float32, (200, made.n_features))
    assert np.isfinite(x).all()
    places = made.feature_indices()
    found = sorted(place for each in places.values() for place in each)
    assert found == list(range(made.n_features))
    # The number: standardized, missing values filled by the median, and an indicator.
    filled = table["a"].fillna(table["a"].median()).to_numpy()
    expected = (filled - filled.mean()) / filled.std()
    np.testing.assert_allclose(x[:, places["a"][0]], expected, rtol=1e-4, atol=1e-5)
    flags = x[:, places["a"][1]]
    assert flags[3] > 1.0
    assert len(np.unique(flags)) == 2
    # The category: a 0 or 1 for each of high, low and missing.
    np.testing.assert_array_equal(x[:, places["b"]].sum(axis=1), 1.0)


def test_a_preparation_that_was_written_and_read_prepares_the_same() -> None:
    table = frame(200).assign(when=pd.date_range("2020", periods=200, tz="UTC", freq="h"))
    table["stamp"] = table["when"].dt.strftime("%Y-%m-%dT%H:%M:%SZ")
    table["for"] = pd.to_timedelta(np.arange(200), unit="s")
    made = prepare(table)
    again = reread(made)
    np.testing.assert_array_equal(transform(again, table), transform(made, table))
    assert kinds_of(again) == kinds_of(made)


def test_dates_and_strings_of_dates_are_prepared_alike() -> None:
    days = pd.date_range("2020-01-01", periods=200)
    zoned = days.tz_localize("Europe/Berlin")
    written = pd.DataFrame({"day": days.strftime("%Y-%m-%d"), "a": np.arange(200.0)})
    for table in (written, written.assign(day=days), written.assign(day=zoned)):
        made = reread(prepare(table))
        assert kinds_of(made)["day"] == "date"
        expected = transform(made, written.assign(day=days))
        np.testing.assert_array_equal(transform(made, written), expected)


@pytest.mark.once
@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_dates_of_another_unit_are_prepared_as_those_in_microseconds(
    unit: str, zone: str | None
) -> None:
    when = pd.Series(pd.date_range("2020-01-01", periods=200, freq="h", tz=zone))
    tables = [pd.DataFrame({"when": when.dt.as_unit(each)}) for each in (unit, "us")]
    made, expected = (prepare(table) for table in tables)
    assert made.names() == expected.names()
    assert "when hour" in made.names()
    np.testing.assert_array_equal(transform(made, tables[0]), transform(expected, tables[1]))


def moments(rows: int = 400) -> pd.Series:
    """Return moments in New York, a missing one, and both hours of the change of the clocks."""
    first = pd.date_range("2020-10-25", periods=rows, freq="37min", tz="America/New_York")
    return pd.Series(first + pd.to_timedelta(np.arange(rows) // 100 * 200, unit="h")).where(
        np.arange(rows) != 3
    )


def test_dates_with_a_time_zone_are_those_of_its_clock(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    when, a = moments(), np.arange(400.0)
    local = pd.DataFrame({"when": when.dt.tz_localize(None), "a": a})
    expected = prepare(local).transform(local)
    assert "when hour" in prepare(local).names()
    table = pd.DataFrame({"when": when, "a": a})
    table.to_csv(tmp_path / "table.csv", index=False)  # offsets of -04:00 and -05:00
    objects = [None if pd.isna(one) else one.to_pydatetime() for one in when]
    fixed = [
        one and one.replace(tzinfo=datetime.timezone(one.utcoffset() or datetime.timedelta()))
        for one in objects
    ]
    frames = [table, polars.from_pandas(table), pa.Table.from_pandas(table)]
    frames += [tables.read(tmp_path / "table.csv")]
    frames += [table.assign(when=pd.Series(one, dtype=object)) for one in (objects, fixed)]
    for one in frames:
        made = reread(prepare(one))
        np.testing.assert_array_equal(transform(made, one), expected)
    # The clock is that of training, whatever the zone of new rows.
    made, utc = prepare(table), table.assign(when=when.dt.tz_convert("UTC"))
    assert tables.described_columns(made)[0]["zone"] == str(when.dt.tz)
    utc.to_csv(tmp_path / "utc.csv", index=False)
    for one in (utc, tables.read(tmp_path / "utc.csv"), tables.read(tmp_path / "table.csv"), local):
        np.testing.assert_array_equal(transform(made, one), expected)


@pytest.mark.once
def test_a_time_zone_without_a_name_is_read_on_its_own_clock_and_an_unknown_one_refused() -> None:
    zone = pytest.importorskip("dateutil.tz").tzoffset("here", 5400)
    when = pd.Series(pd.date_range("2020-01-01", periods=60, freq="7h", tz=zone))
    made = prepare(pd.DataFrame({"when": when}))
    assert made.columns["when"].zone is None
    shown = pd.DataFrame({"when": when.dt.tz_localize(None)})
    np.testing.assert_array_equal(transform(made, shown), made.transform(shown))
    for unknown in ("Mars/Base", "America", "A" * 5000):
        with pytest.raises(ValueError, match=f"the time zone '{unknown[:80]}' of dates"):
            dataclasses.replace(made.columns["when"], zone=unknown)


NO_DATE: dict[str, Any] = {
    "strings": lambda days: ([*days.strftime("%Y-%m-%d")], "9999-12-31"),
    "of databases": lambda days: (
        [*days.strftime("%Y-%m-%d 00:00:00.0000000")],
        "9999-12-31 23:59:59.9999999",
    ),
    "in nanoseconds": lambda days: (
        [*days.strftime("%Y-%m-%d 00:00:00.123456789")],
        "9999-12-31 00:00:00.000000000",
    ),
    "the first day": lambda days: ([*days.strftime("%d.%m.%Y")], "01.01.0001"),
    "integers": lambda days: ([*days.strftime("%Y%m%d").astype(int)], 9999_12_31),
    "objects": lambda days: ([*days.date], datetime.date(9999, 12, 31)),
    "moments": lambda days: ([*days.to_pydatetime()], datetime.datetime(9999, 12, 31)),
    "with a zone": lambda days: (
        [*days.strftime("%Y-%m-%dT10:00:00+14:00")],
        "9999-12-31T23:59:59Z",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", NO_DATE)
def test_a_date_that_stands_for_none_is_a_missing_date(name: str) -> None:
    present, none = NO_DATE[name](pd.date_range("2020-01-01", periods=60))
    missing = None if name != "integers" else np.nan
    given = [pd.DataFrame({"until": [*present[:59], one]}) for one in (none, missing)]
    made = [prepare(one) for one in given]
    assert kinds_of(made[0]) == {"until": "date"}
    assert made[0].names() == made[1].names()
    found = [transform(one, table) for one, table in zip(made, given, strict=True)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(transform(made[1], given[0]), found[1])
    seconds = found[0][:, made[0].names().index("until total_seconds")]
    assert np.ptp(seconds) == pytest.approx(58 / np.std(np.arange(59)), rel=0.05)


def test_blocks_of_rows_are_prepared_as_the_whole_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = frame(100)
    made = prepare(table)
    whole = transform(made, table)
    monkeypatch.setattr(features, "_ROWS", 7)
    np.testing.assert_array_equal(transform(made, table), whole)


def test_numbers_that_are_infinite_in_float32_are_missing_values() -> None:
    table = frame().drop(columns="y")
    made = prepare(table)
    rows = [table.head(5).assign(a=value) for value in (np.nan, np.inf, -np.inf, 1e300)]
    found = [transform(made, row) for row in rows]
    for one in found[1:]:
        np.testing.assert_array_equal(one, found[0])
    far = transform(made, table.head(5).assign(a=1e30))
    assert far.max() == scaling.MAX_DEVIATIONS
    # In training, too.
    for name in scaling.SCALINGS:
        learnt = [
            prepare(table.assign(a=table["a"].where(table.index != 3, value)), scaling=name).scaling
            for value in (np.nan, np.inf, 1e300)
        ]
        for one in learnt[1:]:
            for found, expected in zip(one, learnt[0], strict=True):
                np.testing.assert_array_equal(found, expected)


def test_an_unseen_category_sets_none_of_the_known_ones() -> None:
    table = frame(200).drop(columns="y")
    made = prepare(table)
    places = made.feature_indices()["b"]
    assert not transform(made, table.assign(b="never seen"))[:, places].any()
    assert not transform(made, table.assign(b=7))[:, places].any()
    two_valued = table.assign(b=np.where(table["b"] == "low", "low", "high"))
    made = prepare(two_valued)
    x = transform(made, two_valued.assign(b=["never seen", None, "low", "high"] * 50))
    assert x[:4, made.feature_indices()["b"]].tolist() == [[0, 0], [0, 0], [0, 1], [1, 0]]


def test_numbers_are_strings_in_a_column_that_had_strings_in_training() -> None:
    table = pd.DataFrame({"code": ["7", "x", "8", "7"] * 20, "a": np.arange(80.0)})
    made = prepare(table)
    place = made.feature_indices()["code"]
    given = pd.DataFrame({"code": [7, 8, 7], "a": 1.0})
    expected = transform(made, given.assign(code=["7", "8", "7"]))
    np.testing.assert_array_equal(transform(made, given), expected)
    holed = given.assign(code=[7.0, np.nan, 7.0])
    found = transform(made, holed)
    np.testing.assert_array_equal(found[::2][:, place], expected[::2][:, place])


@pytest.mark.once
def test_codes_keep_their_zeros_in_a_file_of_codes_that_look_like_numbers(tmp_path: Path) -> None:
    codes, path = ["01", "02", "A1"] * 20, tmp_path / "rows.csv"
    table = pd.DataFrame({"code": codes, "a": np.arange(60.0), "y": ["no", "yes", "no"] * 20})
    table.to_csv(path, index=False)
    model = train(path, "y", parameters=QUICK)
    expected = predictions(model, table)
    for rows in ([0, 1, 2], [0, 1]):
        table.iloc[rows].to_csv(path, index=False)
        pd.testing.assert_frame_equal(predictions(model, path), expected.iloc[rows])
    given = ({"validation": part, "test": part} for part in (path, table.iloc[rows]))
    found = [train(table, "y", parameters=QUICK, **one).metadata_["report"] for one in given]
    assert found[0] == found[1]


def test_the_preparation_of_a_string_does_not_depend_on_other_rows() -> None:
    made = prepare(pd.DataFrame({"code": ["3", "4", "A1"] * 20, "a": np.arange(60.0)}))
    rows = [pd.DataFrame({"code": code, "a": 1.0}) for code in ([3.0, 3.5], [3.0, np.inf])]
    expected = transform(made, rows[0].assign(code="3"))[0]
    for one in rows:
        np.testing.assert_array_equal(transform(made, one)[0], expected)


@pytest.mark.parametrize("first", [2**60, 10**19, 10**400])
@pytest.mark.parametrize("is_read", [False, True])
def test_integers_that_float64_cannot_tell_apart_are_codes(
    is_read: bool, first: int, tmp_path: Path
) -> None:
    codes = pd.Series([str(first + i % 3) for i in range(60)], dtype="str", name="code")
    table = pd.DataFrame({"code": codes, "a": np.arange(60.0)})
    if is_read:
        table.loc[59, "code"] = None  # otherwise they are int64, where that holds them
        table.to_csv(tmp_path / "rows.csv", index=False)
        table = bx.tables.read(tmp_path / "rows.csv")
        assert table["code"].dtype == codes.dtype
    made = prepare(table)
    assert made.columns["code"].kind == "category"
    apart = ["123456789012345678901", "1", "1e300"] * 20
    assert prepare(table.assign(code=apart)).columns["code"].kind == "number"


@pytest.mark.parametrize(("first", "step"), [(1_700_000_000_000, 60), (0.0, 1e-3), (-1e12, 1e-2)])
def test_numbers_far_from_zero_keep_their_differences(first: float, step: float) -> None:
    order = np.random.default_rng(0).permutation(200)
    made = prepare(pd.DataFrame({"t": first + step * order, "a": order % 7}))
    place = made.feature_indices()["t"][0]
    x = transform(made, pd.DataFrame({"t": first + step * order, "a": 0.0}))[:, place]
    np.testing.assert_allclose(x, (order - 99.5) / order.std(), atol=1e-2)


def test_moments_a_second_apart_are_different_features() -> None:
    moments = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(200), unit="s")
    table = pd.DataFrame({"when": moments, "a": np.arange(200.0)})
    assert len(np.unique(transform(prepare(table), table.assign(a=0.0)), axis=0)) == 200


def test_numbers_in_common_notations_are_numbers() -> None:
    plain = np.arange(60.0) * 1234
    written = {
        "thousands": [f"{value:,.0f}" for value in plain],
        "money": [f"${value:,.2f}" for value in plain],
        "shares": [f"{value} %" for value in plain],
        "holes": ["?" if i in (3, 9) else f" {value:,}" for i, value in enumerate(plain)],
    }
    table = pd.DataFrame(written)
    made = prepare(table)
    assert set(kinds_of(made).values()) == {"number"}
    x = transform(made, table)
    numbers = pd.DataFrame({"plain": plain})
    expected = prepare(numbers).transform(numbers)
    for column in range(3):
        np.testing.assert_allclose(x[:, [column]], expected, rtol=1e-6)
    with pytest.raises(ValueError, match=r"'money' has '12 hp' \(row 0\), but a number"):
        transform(made, table.assign(money="12 hp"))


WRITTEN = {
    "1.234,05": lambda value: f"{value:,.2f}".translate(str.maketrans(",.", ".,")),
    "1 234": lambda value: f"{value:,.0f}".replace(",", " "),
    "1\u202f234,5": lambda value: f"{value:,.1f}".translate(str.maketrans(",.", "\u202f,")),
    "1'234.5": lambda value: f"{value:,.1f}".replace(",", "'"),
    "(12)": lambda value: f"({value:.0f})" if value % 2 else f"{value:.0f}",
    "1,5": lambda value: f"{value / 2:.1f}".replace(".", ","),
}


READ: dict[str, Any] = {
    "(12)": lambda value: np.where(value % 2, -value, value),
    "1,5": lambda value: value / 2,
}


@pytest.mark.parametrize("style", WRITTEN)
def test_numbers_of_other_countries_and_of_accounts_are_numbers(style: str) -> None:
    values = np.arange(40.0) * 1235
    written = pd.DataFrame({"x": [WRITTEN[style](value) for value in values]})
    made = reread(prepare(written))
    assert kinds_of(made) == {"x": "number"}
    expected = pd.DataFrame({"x": READ.get(style, np.positive)(values)})
    found = [transform(made, written), prepare(expected).transform(expected)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    # A single row is read like the column, whatever its own string looks like.
    alone = [transform(made, written.iloc[[i]])[0] for i in range(40)]
    np.testing.assert_array_equal(alone, found[0])


@pytest.mark.once
@pytest.mark.parametrize("first", ["E4", "e5", "$E4", "-E4"])
def test_an_exponent_without_digits_before_it_is_no_number(first: str) -> None:
    table = pd.DataFrame({"grade": [first, "A1", "B2", "E4"] * 10})
    assert kinds_of(prepare(table)) == {"grade": "category"}


@pytest.mark.once
def test_a_number_is_read_from_a_file_of_one_row_as_from_the_training_rows(tmp_path: Path) -> None:
    prices = [f"{i}.{(i * 37) % 1000:03d},5" if i else "0,5" for i in range(60)]
    table = pd.DataFrame({"price": prices, "y": ["no", "yes", "no"] * 20})
    model = train(table, "y", parameters=QUICK)
    (tmp_path / "row.csv").write_text("price\n1.037\n")
    found = predictions(model, tmp_path / "row.csv")
    pd.testing.assert_frame_equal(found, predictions(model, pd.DataFrame({"price": ["1037"]})))


@pytest.mark.parametrize(
    "formats",
    [
        ("%b %d, %Y",),
        ("%B %d, %Y",),
        ("%b %d, %Y", "%B %d, %Y"),
        ("%Y-%m-%d", "%d.%m.%Y"),
        ("%Y-%m-%d", "%d/%m/%Y", "%d %b %Y"),
        ("%Y%m%d",),
        ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S"),
        ("%m/%d/%y",),
        ("%d.%m.%y", "%d.%m.%Y"),
        ("%d-%b-%y",),
        ("%d%b%Y",),
        ("%b %d, %y %H:%M",),
        ("%d/%m/%y, %H:%M",),
        ("%m/%d/%Y %I:%M %p",),
        ("%Y-%m-%d %I:%M:%S%p",),
        ("%m/%d/%y %I %p",),
        ("%b %Y", "%B %Y"),
        ("%B-%Y",),
        ("%m/%Y",),
    ],
    ids=" and ".join,
)
def test_dates_in_all_common_formats_are_dates(formats: tuple[str, ...]) -> None:
    days = pd.date_range("2019-12-05", periods=200, freq="37h").floor("h")
    days = days if re.search("%[HI]", formats[0]) else days.floor("D")
    days = days if "%d" in formats[0] else days.to_period("M").to_timestamp()
    given = pd.DataFrame(
        {"day": [day.strftime(formats[i % len(formats)]) for i, day in enumerate(days)]}
    )
    made = reread(prepare(given))
    assert kinds_of(made) == {"day": "date"}
    expected = prepare(pd.DataFrame({"day": days})).transform(pd.DataFrame({"day": days}))
    np.testing.assert_allclose(transform(made, given), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(transform(made, given.iloc[[3]]), transform(made, given)[[3]])


@pytest.mark.once
def test_the_case_of_months_and_halves_of_a_day_does_not_matter() -> None:
    days = pd.date_range("2020-03-01 00:30", periods=60, freq="31h")
    written = days.strftime("%d-%b-%y %I:%M %p")
    for strings in (written, written.str.upper(), written.str.lower()):
        found = date_formats.read_dates([*strings], date_formats.find_formats([*strings]))
        np.testing.assert_array_equal(found, days.to_numpy("datetime64[us]"))


@pytest.mark.once
def test_an_offset_behind_am_or_pm_is_read_as_written() -> None:
    days = pd.Series(pd.date_range("2020-03-01", periods=60, freq="31h"))
    shown = pd.DataFrame({"when": days})
    made = prepare(shown)
    for offset in ("+0100", " UTC"):
        given = pd.DataFrame({"when": days.dt.strftime(f"%m/%d/%Y %I:%M %p{offset}")})
        np.testing.assert_array_equal(transform(prepare(given), given), transform(made, shown))


# Strings that resemble dates, of two values each.
NO_DATES = {
    "codes": ("12-34-56", "10-11-12"),
    "codes of a chapter": ("01-1234", "02-3333"),
    "longer codes": ("10-12-14-16", "10-12-14-17"),
    "versions": ("1.2.3", "1.2.4"),
    "versions of two digits": ("3.10.12", "3.9.18"),
    "names": ("May", "June"),
    "ranges": ("10-12", "12-18"),
    "months and days": ("May 12", "Jun-13"),
    "expiries": ("12/23", "11/24"),
    "times": ("10:28 PM", "9:00 AM"),
    "teams": ("Marketing 2020", "Sales 2020"),
    "sizes": ("10/12/14 mm", "10/12/15 mm"),
    "the year first": ("98-06-29", "99-01-30"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", NO_DATES)
def test_strings_that_resemble_dates_are_a_category(name: str) -> None:
    assert kinds_of(prepare(pd.DataFrame({"x": NO_DATES[name] * 30}))) == {"x": "category"}


ONE_ORDER = [
    ("%d/%m/%Y", "25/03/2020"),
    ("%m/%d/%Y", "03/25/2020"),
    ("%d.%m.%y", "25.3.20"),
    ("%m-%d-%y", "03-25-20"),
]


@pytest.mark.once
def test_a_single_row_decides_whether_month_or_day_is_first() -> None:
    days = pd.date_range("2020-03-01", "2020-03-12").repeat(4)
    for form, last in ONE_ORDER:
        strings = [*days.strftime(form), last, *days.strftime("%Y-%m-%d")]
        found = date_formats.read_dates(strings, date_formats.find_formats(strings))
        expected = [*days, pd.Timestamp("2020-03-25"), *days]
        np.testing.assert_array_equal(found, np.asarray(expected, dtype="datetime64[us]"))


@pytest.mark.once
def test_a_date_of_another_format_is_an_error_with_those_of_training() -> None:
    days = pd.date_range("2020-01-01", periods=60)
    strings = [*days[:40].strftime("%Y-%m-%d"), *days[40:].strftime("%d.%m.%y")]
    made = prepare(pd.DataFrame({"day": strings}))
    message = (
        "'2021/03/04' (row 0), but a date such as 2024-01-31 (%Y-%m-%d) or 31.01.24 (%d.%m.%y)"
    )
    with pytest.raises(ValueError, match=re.escape(f"{message} is expected, as in training")):
        transform(made, pd.DataFrame({"day": ["2021/03/04"]}))


@pytest.mark.once
def test_dates_in_integers_with_a_missing_one_are_read_from_their_file(tmp_path: Path) -> None:
    """Pandas writes such integers as floating numbers."""
    days = pd.Series(pd.date_range("2020-01-01", periods=60).strftime("%Y%m%d").astype(float))
    table = pd.DataFrame({"day": days.where(days.index != 3), "a": range(60)})
    table.to_csv(tmp_path / "table.csv", index=False)
    assert "20200101.0" in (tmp_path / "table.csv").read_text()
    made = prepare(tables.read(tmp_path / "table.csv"))
    assert kinds_of(made)["day"] == "date"
    np.testing.assert_array_equal(transform(made, tmp_path / "table.csv"), transform(made, table))


@pytest.mark.once
def test_integers_in_a_date_format_are_dates_and_other_integers_are_not() -> None:
    days = pd.date_range("2019-01-01", periods=60)
    integers = days.strftime("%Y%m%d").astype(int)
    made = prepare(pd.DataFrame({"day": integers}))
    assert kinds_of(made) == {"day": "date"}
    found = transform(made, pd.DataFrame({"day": integers}))
    np.testing.assert_array_equal(found, transform(made, pd.DataFrame({"day": days})))
    holed = pd.DataFrame({"day": pd.Series(integers).where(integers % 7 > 0)})
    assert kinds_of(prepare(holed)) == {"day": "date"}
    with pytest.raises(ValueError, match=r"'day' has .*20191399.* but a date such as 20240131 "):
        transform(made, pd.DataFrame({"day": [20191399]}))
    others = pd.DataFrame({"x": 20190101 + np.arange(60)})  # 20190132 is not a date
    assert kinds_of(prepare(others)) == {"x": "number"}


def test_times_of_day_are_numbers_as_strings_or_objects() -> None:
    moments = pd.date_range("2020-01-01", periods=90, freq="731s")
    expected = pd.DataFrame({"at": (moments - moments.normalize()).total_seconds()})
    given = {
        "hh:mm:ss": moments.strftime("%H:%M:%S"),
        "time": moments.time,
        "hh:mm": moments.floor("min").strftime("%H:%M"),
    }
    for name, values in given.items():
        rounded = expected // 60 * 60 if name == "hh:mm" else expected
        made = prepare(pd.DataFrame({"at": values}))
        assert kinds_of(made) == {"at": "number"}
        found = transform(made, pd.DataFrame({"at": values}))
        np.testing.assert_allclose(found, prepare(rounded).transform(rounded), rtol=1e-6)
    made = prepare(pd.DataFrame({"at": given["hh:mm:ss"]}))
    found = [transform(made, pd.DataFrame({"at": given[name]})) for name in ("hh:mm:ss", "time")]
    np.testing.assert_array_equal(*found)


FEW = {
    "forty with two rows each": (40, 80, "category"),
    "forty-one with two rows each": (41, 82, "text"),
    "forty with fewer rows": (40, 79, "text"),
    "nine in ten rows": (9, 10, "category"),
    "199 with ten rows each": (199, 2000, "category"),
    "199 with fewer rows": (199, 1980, "text"),
    "200": (200, 4000, "text"),
}


@pytest.mark.once
@pytest.mark.parametrize("name", FEW)
def test_strings_that_have_several_rows_each_are_a_category(name: str) -> None:
    n, rows, kind = FEW[name]
    values = [f"blue {i % n}" for i in range(rows)]
    table = pd.DataFrame({"c": [*values, None], "a": range(rows + 1)})
    assert kinds_of(prepare(table))["c"] == kind


@pytest.mark.once
def test_codes_that_repeat_are_a_category_whose_values_of_one_row_are_unknown() -> None:
    codes = [*np.repeat([f"N{i}" for i in range(300)], 3), *(f"M{i}" for i in range(50))]
    table = pd.DataFrame({"code": codes, "a": range(950)})
    made = reread(prepare(table, max_one_hot=20))
    assert kinds_of(made)["code"] == "category"
    assert made.columns["code"].values == tuple(sorted(f"N{i}" for i in range(300)))
    assert {*transform(made, table)[-50:, made.feature_indices()["code"][0]]} == {300.0}
    hardly = pd.DataFrame({"code": [f"N{i % 300}" for i in range(590)], "a": range(590)})
    assert kinds_of(prepare(hardly))["code"] == "text"
    few = pd.DataFrame({"code": [*"abababab", "c"], "a": range(9)})
    assert prepare(few).columns["code"].values == ("a", "b", "c")


def test_a_category_of_many_values_without_a_code_has_its_most_frequent_values() -> None:
    """A feature for each of all values could take more memory than there is."""
    codes = [f"N{i}" for i in range(1000) for _ in range(3 + i // 900)]
    table = pd.DataFrame({"code": codes, "a": range(len(codes))})
    made = prepare(table, max_one_hot=None)
    assert made.columns["code"].width == 200
    assert {f"N{i}" for i in range(900, 1000)} <= {*made.columns["code"].values}
    assert transform(made, table).shape == (len(codes), 201)
    assert len(prepare(table, max_one_hot=20).columns["code"].values) == 1000


@pytest.mark.once
def test_coordinates_of_strings_that_repeat_are_scaled_and_those_of_free_text_are_not() -> None:
    draw = np.random.default_rng(0)
    names = [f"{messy_tables.name(draw)} {messy_tables.name(draw)}" for _ in range(120)]
    table = pd.DataFrame(
        {"a": np.arange(360.0), "text": [f"{i} {names[i % 120]}" for i in range(360)]}
    )
    table["name"] = np.resize(names, 360)
    made = reread(prepare(table, scaling="robust"))
    assert [made.columns[name].is_scaled for name in ("a", "text", "name")] == [True, False, True]
    x, places = transform(made, table), made.feature_indices()
    assert places["name"] == [*range(1, 31)]
    levels, method = [0.25, 0.5, 0.75], "averaged_inverted_cdf"
    quartiles = np.quantile(x[:, places["name"]], levels, axis=0, method=method)
    scaled = quartiles / np.sqrt(1.0 - (quartiles / 3.0) ** 2)  # without the smooth limit
    np.testing.assert_allclose(scaled[1], 0.0, atol=1e-5)
    between_rows = 1e-3  # a quartile is averaged before the limit, here behind it
    np.testing.assert_allclose(scaled[2] - scaled[0], 1.0, rtol=between_rows)
    total = x[:, places["text"]].var(axis=0).sum()
    assert total == pytest.approx(1.0, rel=1e-4)
    model = bx.TabularRegressor("fast", **QUICK, random_state=0).fit(table, table["a"])
    assert model.network_.layers[0].layers[0].n_in == 31


@pytest.mark.once
def test_the_letters_of_free_text_are_bounded_in_number() -> None:
    """Random letters have far more groups of three and four; the most frequent ones are kept."""
    draw = np.random.default_rng(0)
    words = ["".join(row) for row in draw.choice([*"abcdefghijklmnopqrstuvwxyz"], (1000, 30))]
    table = pd.DataFrame({"text": [f"{word} bottles" for word in words], "a": range(1000)})
    made = prepare(table)
    pieces = made.columns["text"].pieces
    assert len(pieces) == 2**14
    assert {"bott", "ottl", "ttle"} <= {*pieces}
    assert feature_records.to_bytes(made).nbytes < 2**14 * (30 * 4 + 8 + 16)


@pytest.mark.once
def test_free_text_of_many_rows_is_learnt_from_evenly_spaced_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text, "_ROWS", 50)
    table = pd.DataFrame({"text": [f"{'bottle' if i % 2 else 'glass'} {i}" for i in range(100)]})
    pieces = prepare(table).columns["text"].pieces
    assert "glas" in pieces
    assert "bott" not in pieces
    monkeypatch.setattr(text, "_ROWS", 100)
    assert "bott" in prepare(table).columns["text"].pieces


@pytest.mark.parametrize("values", [[1, 2, 3, None], ["2", "1", "3"], [True, False], [1.5, 2.5]])
def test_declared_categories_are_categories_whatever_their_values(values: list[Any]) -> None:
    polars = pytest.importorskip("polars")
    column = pd.Series(pd.Categorical(values * 12))
    table = pd.DataFrame({"c": column, "a": np.arange(float(len(column)))})
    made = prepare(table)
    assert kinds_of(made) == {"c": "category", "a": "number"}
    expected, at = transform(made, table), made.feature_indices()["c"]
    assert expected[: len(values), at].sum() == len(values)
    # New rows need not be declared, and an integer with missing values is a float.
    for one in (column.astype(object), column.map(str, na_action="ignore")):
        np.testing.assert_array_equal(transform(made, table.assign(c=one)), expected)
    arrow = pa.Table.from_pandas(table)
    assert pa.types.is_dictionary(arrow.schema.field("c").type)
    strings = [None if value is None else str(value) for value in values * 12]
    frames = [arrow]
    if isinstance(values[0], str):
        kinds = polars.Categorical, polars.Enum(sorted(values))
        frames += [polars.DataFrame({"c": polars.Series(strings, dtype=k)}) for k in kinds]
        frames = [arrow, *(one.with_columns(a=table["a"].to_numpy()) for one in frames[1:])]
    for one in frames:
        again = prepare(one)
        assert again.names() == made.names()
        np.testing.assert_array_equal(transform(again, one), expected)


@pytest.mark.once
def test_a_column_of_declared_categories_trains_and_is_a_target(tmp_path: Path) -> None:
    path = tmp_path / "table.feather"
    table = frame().assign(c=pd.Categorical(np.arange(60) % 4), y=pd.Categorical([*range(12)] * 5))
    table.to_feather(path)
    found = [train(one, "y", parameters=QUICK) for one in (table, path)]
    assert classes_of(found[0]) == tuple(range(12))
    np.testing.assert_array_equal(found[1].theta_, found[0].theta_)
    pd.testing.assert_frame_equal(predictions(found[0], path), predictions(found[0], table))


def test_words_for_missing_values_are_ordinary_categories_of_a_dataframe(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    words = pd.Series(draw.choice(["NA", "None", "Oslo", "-", None], 100))
    table = pd.DataFrame({"city": words, "number": ["?", "1.5", "NA", "2.5"] * 25})
    made = prepare(table)
    assert kinds_of(made) == {"city": "category", "number": "number"}
    names = [f"city={value}" for value in ("-", "NA", "None", "Oslo", "missing")]
    assert made.names() == ["number", "number missing", *names]
    # A file has no other way to write a missing value: pandas' words are missing there.
    table.to_csv(tmp_path / "table.csv", index=False)
    frames = [tables.read(tmp_path / "table.csv"), pd.read_csv(tmp_path / "table.csv")]
    for one in frames:
        assert prepare(one).names() == ["number", "number missing", *names[::3], names[-1]][:5]
    np.testing.assert_array_equal(*(prepare(one).transform(one) for one in frames))
    # The training decides what a word in new rows is.
    new = pd.DataFrame({"city": ["NA", "None", "-", None, "null"], "number": 1.0})
    assert transform(made, new)[:, -5:].argmax(axis=1).tolist() == [1, 2, 0, 4, 4]
    assert transform(prepare(frames[0]), new)[:, -3:].argmax(axis=1).tolist() == [2, 2, 0, 2, 2]


@pytest.mark.once
def test_identifiers_are_left_out_and_reported() -> None:
    messages, table = list[str](), frame()
    for form in ("{:08x}", "id{}", "user{}@example.org", "{:05d}"):
        table[f"like {form}"] = [form.format(7919 * i) for i in range(60)]
    model = train(table, "y", parameters=QUICK, say=messages.append)
    for name in table.columns[5:]:
        assert f"{name!r} is left out: it is an identifier" in messages
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day", "text"]


@pytest.mark.parametrize("first", [10**18, -(10**18), 2**63 - 100])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "Int64", "int64[pyarrow]"])
def test_integers_beyond_float64_keep_their_differences(first: int, dtype: str) -> None:
    if first < 0 and dtype == "uint64":
        first = 2**64 - 100
    order = np.random.default_rng(0).permutation(90)
    table = pd.DataFrame({"t": pd.Series([first + int(i) for i in order], dtype=dtype)})
    made = reread(prepare(table))
    found = transform(made, table)[:, 0]
    np.testing.assert_allclose(found, (order - 44.5) / order.std(), rtol=1e-5)
    far = pd.DataFrame({"t": pd.Series([0, 2**63 - 1], dtype=dtype)})
    assert np.isfinite(transform(made, far)).all()
    assert tables.described_columns(made)[0]["center"] == pytest.approx(first)


def test_unsigned_integers_far_apart_keep_their_order() -> None:
    values = 2**63 + 2**31 + 2**31 * np.arange(20, dtype=np.uint64)
    table = pd.DataFrame({"t": values})
    assert (np.diff(transform(prepare(table), table)[:, 0]) > 0.0).all()


@pytest.mark.once
def test_unnamed_row_numbers_are_left_out_and_reported(tmp_path: Path) -> None:
    frame().to_csv(tmp_path / "table.csv")
    messages = list[str]()
    model = train(tmp_path / "table.csv", "y", parameters=QUICK, say=messages.append)
    assert list(kinds_of(model.model_.features)) == ["a", "b", "day", "text"]
    assert "'Unnamed: 0' is left out: it is a row number" in messages
    assert len(predictions(model, frame())) == 60
    with pytest.raises(ValueError, match="nothing to learn from"):
        train(tmp_path / "table.csv", "y", features=["Unnamed: 0"])


@pytest.mark.once
def test_free_text_accepts_a_seed_of_any_size() -> None:
    settings = {"hidden_layer_sizes": (8,), "max_iter": 1, "random_state": 2**32}
    assert train(frame(), "y", parameters=settings).random_state == 2**32


def test_dates_that_two_threads_read_leave_the_filters_of_warnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guess, before = date_formats.guess_datetime_format, [*warnings.filters]
    has_begun, may_end = Event(), Event()

    def slow(string: str, dayfirst: bool) -> str | None:
        if string.startswith("2020"):
            has_begun.set()
            assert may_end.wait(HANGING)
        else:  # the thread that has begun last ends last
            may_end.set()
            first.result()
        return guess(string, dayfirst=dayfirst)

    monkeypatch.setattr(date_formats, "guess_datetime_format", slow)
    with ThreadPoolExecutor(1) as thread:
        first = thread.submit(date_formats._guess_format, "2020-01-02", day_first=False)
        assert has_begun.wait(HANGING)
        assert date_formats._guess_format("2021-01-02", day_first=False) == "%Y-%m-%d"
    assert warnings.filters == before


ODD: dict[str, tuple[list[str], str | None]] = {
    "one of 200": ([*map(str, range(199)), "unknown"], "number"),
    "more of 400, of several kinds": ([*map(str, range(370)), *"abcdefghij"] * 2, "number"),
    "a word in many rows": ([*map(str, range(100)), *["unknown"] * 90], "number"),
    "a word in most rows": ([*map(str, range(100)), *["unknown"] * 100], "text"),
    "a tenth of the values": ([*map(str, range(10)), "10+"] * 20, "category"),
    "codes of diseases": ([str(250 + i) for i in range(200)] + [f"V{i}" for i in range(30)], None),
    "postcodes": ([f"{i:05d}" for i in range(200)] + ["unknown"], None),
    "a rare style": ([f"1.{i:03d},5" for i in range(40)] + ["12.5"], "number"),
    "dates": ([f"2020-01-{1 + i % 28:02d}" for i in range(56)] + ["soon"], "date"),
    "too many that are no dates": ([f"2020-01-{1 + i:02d}" for i in range(20)] + ["a", "b"], None),
}


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*read as missing|.*is left out|.*both orders")
@pytest.mark.parametrize("name", ODD)
def test_few_cells_of_another_kind_do_not_decide_the_kind(name: str) -> None:
    cells, kind = ODD[name]
    order = np.random.default_rng(0).permutation(len(cells))
    made = prepare(pd.DataFrame({"c": np.asarray(cells)[order], "a": np.arange(len(cells))}))
    assert kinds_of(made).get("c") == kind or (kind is None and "c" in made.left_out)
    if kind in ("number", "date"):
        assert {*made.columns["c"].odd_strings} < {*cells}
        again = reread(made)
        assert again.columns["c"] == made.columns["c"]


# Columns of values that a training may meet, each a part of 60 rows or more.
MET: dict[str, Any] = {
    **{name: cells for name, (cells, _) in ODD.items()},
    "numbers": np.arange(60.0),
    "a few numbers": np.where(np.arange(60) < 55, np.nan, np.arange(60.0)),
    "strings of numbers": [f"{i},5" for i in range(60)],
    "integers": 2**60 + np.arange(60),
    "days": pd.date_range("2020-01-01", periods=60),
    "moments": pd.date_range("2020-01-01", periods=60, tz="Europe/Rome"),
    "compact days": [20200101 + i % 28 for i in range(60)],
    "strings of compact days": [str(20200101 + i % 28) for i in range(60)],
    "times": [f"{i % 24:02d}:30" for i in range(60)],
    "durations": pd.to_timedelta(np.arange(60), unit="h"),
    "booleans": np.arange(60) % 3 == 0,
    "categories": pd.Categorical(["u", "v"] * 30),
    "nothing": [None] * 60,
}


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*signs? is not known")
@pytest.mark.parametrize("name", MET)
def test_what_detection_has_accepted_is_never_refused(name: str) -> None:
    """Two tables decide together: an error names the second one, or each of their rows is read."""
    places: Any = [tolerance.in_row, partial(tolerance.in_row, table="B")]
    options: dict[str, Any] = {"scaling": "robust", "max_one_hot": 20, "seed": 0}
    for other in MET:
        parts = [
            frames.plain_frame(pd.DataFrame({"c": MET[one], "a": np.arange(len(MET[one]))}))
            for one in (name, other)
        ]
        detected, error = None, ""
        try:
            detected = detection.detect(*parts, places=places)
        except ValueError as raised:
            error = str(raised)
        if detected is None:
            assert re.search(r"^the column 'c' has .* \(row \d+ of B\), but", error), other
            continue
        features = detected.learn(parts[0].tail(5), None, **options)
        for part in parts:
            assert np.isfinite(features.transform(part)).all(), other


@pytest.mark.once
@pytest.mark.parametrize("name", MET)
def test_pieces_of_rows_teach_a_column_what_all_of_them_teach(name: str) -> None:
    frame = frames.plain_frame(pd.DataFrame({"c": MET[name], "a": np.arange(len(MET[name]))}))
    weights = np.random.default_rng(0).integers(1, 9, len(frame)).astype("float64")
    cuts = [0, 7, 8, 40, len(frame)]
    pieces = [slice(*pair) for pair in itertools.pairwise(cuts)]
    options: dict[str, Any] = {"above": 20, "seed": 0}
    for name, column in detection.detect(frame).columns.items():
        cells = frame[name]
        counts = [column.count(cells[rows], weights[rows]) for rows in pieces]
        merged = reduce(Counts.merge, counts)
        expected = column.count(cells, weights)
        assert merged == expected
        assert column.odd_cells(cells[:0]).merge(column.odd_cells(cells)).present == cells.count()
        found = column.finish(merged, **options)
        assert found.names("c") == column.finish(expected, **options).names("c")


@pytest.mark.once
def test_odd_cells_of_pieces_are_those_of_all_rows() -> None:
    cells = pd.Series([f"{i}.5" for i in range(60)], name="c")
    column = detection.detect(pd.DataFrame({"c": cells, "a": cells.index * 1.0})).columns["c"]
    odd = cells.mask(cells.index.isin([9, 31, 50]), "?!").mask(cells.index == 30, "n. k.")
    pieces = [column.odd_cells(odd[rows]) for rows in (slice(20, 40), slice(0, 20), slice(40, 60))]
    found = reduce(OddCells.merge, pieces)
    assert found == (60, {"?!": (9, 3), "n. k.": (30, 1)})
    assert [*found.cells] == ["?!", "n. k."]
    assert (found.total, found.without(["?!"]).total) == (4, 1)
    assert column.odd_cells(odd[:0]) == (0, {})
    assert (found.are_few, OddCells(44, found.cells).are_few) == (True, False)


@pytest.mark.once
def test_first_days_of_months_decide_the_order_and_an_open_order_is_a_warning() -> None:
    months = pd.date_range("2015-01-01", periods=60, freq="MS")
    line = r"^the column 'day': it has dates such as '{}', and all fit both .* read as {}\. Write"
    for form, days, expected in (
        ("%d/%m/%Y", months, "%d/%m/%Y"),
        ("%m/%d/%Y", months, "%m/%d/%Y"),
        ("%d.%m.%y %H:%M", months, "%d.%m.%y %H:%M"),
        ("%d/%m/%Y", months + pd.to_timedelta(5 * np.arange(60) % 12, unit="D"), "%m/%d/%Y"),
    ):
        frame = pd.DataFrame({"day": days.strftime(form)})
        example = next(one for one in frame["day"] if one[:2] != one[3:5])
        with pytest.warns(UserWarning, match=line.format(re.escape(example), expected)):
            made = prepare(frame)
        assert made.columns["day"].formats == (expected,)
    # No warning where the order is known, or makes no difference.
    for days in (months + pd.Timedelta(days=20), pd.date_range("2020-05-05", periods=2, freq="YS")):
        prepare(pd.DataFrame({"day": days.strftime("%d/%m/%Y")}))


@pytest.mark.once
def test_uuids_are_strings() -> None:
    few = [uuid.UUID(int=i) for i in range(3)]
    frame = pd.DataFrame({"few": few * 20, "own": [uuid.UUID(int=i) for i in range(60)]})
    frame.loc[7, "few"] = None
    with pytest.warns(UserWarning, match="'own' is left out: it is an identifier"):
        made = prepare(frame)
    with pytest.warns(UserWarning, match="'own' is left out: it is an identifier"):
        expected = prepare(frame.astype("str").where(frame.notna()))
    assert made.columns == expected.columns
    np.testing.assert_array_equal(transform(made, frame), transform(expected, frame))


@pytest.mark.once
def test_a_record_without_odd_cells_is_read() -> None:
    """An earlier version wrote it."""
    table = frame().drop(columns=["y", "text"])
    record = feature_records.record_of(prepare(table))
    assert [one.pop("odd", None) for one in record["columns"]] == [0, None, 0]
    again = feature_records.features_of(record)
    np.testing.assert_array_equal(transform(again, table), transform(prepare(table), table))
