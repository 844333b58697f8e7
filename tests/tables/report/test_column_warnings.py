"""Warnings about columns that identify rows or give the target away."""

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from sklearn.model_selection import cross_val_score

from backprop_xp.tables.report import column_warnings
from backprop_xp.tables.report.problem import ColumnChoice, make_problem
from backprop_xp.tables.report.table_training import train_table

ROWS = 200


def lines_for(target: str, **columns: Any) -> list[str]:
    """Return the warnings for a table with ordinary columns and these."""
    draw, lines = np.random.default_rng(0), list[str]()
    x = draw.normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "x": x,
            "count": draw.integers(0, 50, ROWS),
            "city": draw.choice(["Rome", "Oslo"], ROWS),
            "day": pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d"),
            "number": x + draw.normal(size=ROWS),
            "y": np.where(x + draw.normal(size=ROWS) > 1.0, "yes", "no"),
        }
    )
    chosen = ColumnChoice(
        drop=["y" if target == "number" else "number"], time=columns.pop("time", None)
    )
    frame = frame.assign(**{name: make(frame, draw) for name, make in columns.items()})
    parameters = {"preset": "fast", "max_iter": 1, "random_state": 0}
    problem = make_problem(frame, target, chosen, seed=0)
    train_table(problem, parameters, say=lines.append)
    return [line for line in lines if "--drop" in line]


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "number"])
def test_ordinary_columns_have_no_warning(target: str) -> None:
    assert lines_for(target) == []


IDENTIFIERS = {
    "counted": (lambda frame, draw: np.arange(ROWS), True),
    "drawn": (lambda frame, draw: draw.choice(10**9, ROWS, replace=False).astype("float64"), True),
    "of strings": (lambda frame, draw: [f"{1000 + i:,}" for i in range(ROWS)], True),
    "of large integers": (lambda frame, draw: 2**60 + np.arange(ROWS), True),
    "dates": (
        lambda frame, draw: [f"2020{1 + i // 28:02}{1 + i % 28:02}" for i in range(ROWS)],
        False,
    ),
    "fractions": (lambda frame, draw: np.arange(ROWS) + 0.5, False),
    "repeated": (lambda frame, draw: np.arange(ROWS) // 2, False),
}


@pytest.mark.once
def test_a_column_of_different_whole_numbers_may_identify_rows() -> None:
    found = lines_for("number", **{name: make for name, (make, _) in IDENTIFIERS.items()})
    words = "has a different whole number in each of 200 rows: leave it out with --drop"
    names = [name for name, (_, is_found) in IDENTIFIERS.items() if is_found]
    assert [one.partition(" if it")[0] for one in found] == [f"{n!r} {words} {n!r}" for n in names]


@pytest.mark.once
def test_strings_that_differ_only_in_blanks_or_case_are_named_in_one_line() -> None:
    x = np.random.default_rng(0).normal(size=ROWS)
    frame = pd.DataFrame(
        {
            "x": x,
            "city": np.resize(["Oslo", "oslo ", "New York", "NewYork", "Rome"], ROWS),
            "code": np.resize(["a", "A", "b", "B", "c", "C", "d", "D", "e"], ROWS),
            "fine": np.resize(["a-b", "ab"], ROWS),
            "y": np.where(x > 0.0, "yes", np.where(x > -1.0, "No", "no")),
        }
    )
    lines, parameters = list[str](), {"preset": "fast", "max_iter": 1, "random_state": 0}
    train_table(make_problem(frame, "y", ColumnChoice(), seed=0), parameters, say=lines.append)
    ending = "has values that differ only in blanks or case: "
    advice = ". Each is a value of its own: if they mean the same, prepare the files with pandas' "
    around = f"{advice}.str.strip().str.casefold()"
    inside = f'{advice}.str.replace(r"\\s", "", regex=True).str.casefold()'
    assert [line for line in lines if ending in line] == [
        f"'city' {ending}'New York' and 'NewYork', 'Oslo' and 'oslo '{inside}",
        f"'code' {ending}'A' and 'a', 'B' and 'b', 'C' and 'c', and 1 more{around}",
        f"'y' {ending}'No' and 'no'{around}",
    ]
    lines.clear()
    prepared = frame.assign(
        city=frame["city"].str.replace(r"\s", "", regex=True).str.casefold(),
        code=frame["code"].str.strip().str.casefold(),
        y=frame["y"].str.strip().str.casefold(),
    )
    train_table(make_problem(prepared, "y", ColumnChoice(), seed=0), parameters, say=lines.append)
    assert not [line for line in lines if ending in line]


@pytest.mark.once
def test_the_column_of_times_does_not_identify_rows() -> None:
    assert lines_for("number", second=IDENTIFIERS["counted"][0], time="second") == []


# A column, the target, and whether it gives the target away.
LEAKS = {
    "a copy of a class": (lambda frame, draw: frame["y"].map({"yes": "1a", "no": "1b"}), "y", True),
    "a number in classes": (lambda frame, draw: (5.0 * frame["number"]).round(), "number", True),
    "a rare class": (lambda frame, draw: np.where(frame["y"] == "yes", 3.0, np.nan), "y", True),
    "a noisy copy": (
        lambda frame, draw: frame["number"] + 0.5 * draw.normal(size=ROWS),
        "number",
        False,
    ),
    "a vague copy of a class": (
        lambda frame, draw: frame["y"].where(draw.random(ROWS) > 0.4, "no"),
        "y",
        False,
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "number"])
def test_a_column_that_alone_predicts_the_target_has_a_warning(target: str) -> None:
    columns = {name: (make, found) for name, (make, of, found) in LEAKS.items() if of == target}
    found = lines_for(target, **{name: make for name, (make, _) in columns.items()})
    words = f"alone predicts {target!r} ({'R2' if target == 'number' else 'balanced accuracy'} "
    expected = [f"{name!r} {words}" for name, (_, is_found) in columns.items() if is_found]
    assert [re.split(r"\d\.\d", one)[0] for one in found] == expected


@pytest.mark.once
def test_the_warnings_depend_on_no_seed() -> None:
    draw = np.random.default_rng(3)
    y = draw.normal(size=ROWS)
    noisy = {f"noise {i}": y + 0.03 * i * draw.normal(size=ROWS) for i in range(1, 15)}
    frame = pd.DataFrame({**noisy, "text": [f"{i} or {i % 7}" for i in range(ROWS)], "y": y})
    found = []
    for seed in range(3):
        problem, lines = make_problem(frame, "y", ColumnChoice(), seed=seed), list[str]()
        options = {"preset": "fast", "max_iter": 1, "random_state": seed}
        train_table(problem, options, say=lines.append)
        found.append([line for line in lines if "alone predicts" in line])
    assert found == 3 * [found[0]]
    assert 3 < len(found[0]) < 12  # some are near the bound


# A column of a wide table from which the target follows, and whether the target has classes.
FOLLOWS: dict[str, Any] = {
    "a copy": (lambda y, draw: y, False),
    "two waves": (lambda y, draw: 40.0 * draw.integers(0, 2, ROWS) + y, False),
    "a copy of a class": (lambda y, draw: np.where(y > 1.0, "A", "B"), True),
    "a flag of a rare class": (lambda y, draw: np.where(y > 1.0, 1.0, np.nan), True),
}


@pytest.mark.once
@pytest.mark.parametrize("name", FOLLOWS)
def test_a_wide_table_has_trees_for_the_columns_on_which_the_target_depends_most(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits = list[int]()

    def counted(*given: Any, **more: Any) -> Any:
        fits.append(1)
        return cross_val_score(*given, **more)

    monkeypatch.setattr(column_warnings, "cross_val_score", counted)
    monkeypatch.setattr(column_warnings, "_TREES", 5)
    draw, (make, has_classes) = np.random.default_rng(0), FOLLOWS[name]
    y = draw.normal(size=ROWS)
    frame = pd.DataFrame({"leak": make(y, draw), "city": draw.choice(["Rome", "Oslo"], ROWS)})
    frame = frame.join(pd.DataFrame(draw.normal(size=(ROWS, 100))).add_prefix("g"))
    frame["y"] = np.where(y > 1.0, "yes", "no") if has_classes else y
    problem = make_problem(frame, "y", ColumnChoice(), seed=0)
    given = problem.detected.columns, problem.table, problem.rule, None
    first, *others = column_warnings.column_warnings(*given)
    assert first.startswith("97 of 102 columns are not checked for giving 'y' away")
    assert [line[: len("'leak' alone predicts")] for line in others] == ["'leak' alone predicts"]
    assert len(fits) == 5
