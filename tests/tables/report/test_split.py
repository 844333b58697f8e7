"""The split of rows by class, group and time, and the cross-validation of the command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import KFold, StratifiedKFold, cross_validate

from backprop_xp import tables
from backprop_xp.tables.report.problem import ColumnChoice, Problem, make_problem
from backprop_xp.tables.report.split import SplitRule, hashed
from backprop_xp.tables.report.table_training import train_table
from tests.helpers import thorough

ROWS = 120
QUICK: dict[str, Any] = {"preset": "fast", "hidden_layer_sizes": (8,), "max_iter": 2}
QUICK |= {"random_state": 3}


def table() -> pd.DataFrame:
    """Return rows of 30 groups and 40 days, in any order; ``x`` predicts ``number`` and ``y``."""
    draw = np.random.default_rng(0)
    x, day = draw.normal(size=ROWS), draw.permutation(np.repeat(np.arange(40), 3))
    dates = pd.Timestamp("2023-12-20") + pd.to_timedelta(day, "D")
    return pd.DataFrame(
        {
            "x": x,
            "group": [f"p{i}" for i in draw.integers(0, 30, ROWS)],
            "date": dates,
            "string": dates.strftime("%d.%m.%y"),
            "day": day,
            "Unnamed: 0": 3 * day + pd.Series(day).groupby(day).cumcount(),
            "y": np.where(x + draw.normal(size=ROWS) > 0.5, "yes", "no"),
            "number": x + draw.normal(size=ROWS),
        }
    )


def problem(target: str, cv: int | None = None, **columns: Any) -> Problem:
    return make_problem(
        table(),
        target,
        ColumnChoice(drop=["y" if target == "number" else "number"], **columns),
        task=None,
        test=None if cv else 0.2,
        validation=0.2,
        seed=0,
        cv=cv,
    )


def splits_of(made: Problem) -> list[dict[str, np.ndarray]]:
    """Return the rows of each part of the splits."""
    return [
        {str(name): made.rows(name, i) for name in np.unique(labels) if name}
        for i, labels in enumerate(made.labels)
    ]


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "number"])
def test_rows_of_one_group_are_never_in_two_parts_or_folds(target: str) -> None:
    groups = table()["group"].to_numpy()
    (drawn,) = splits_of(problem(target, group="group"))
    assert sum(map(len, drawn.values())) == ROWS
    counts = {name: len({*groups[rows]}) for name, rows in drawn.items()}
    assert counts == {"training": 18, "test": 6, "validation": 6}
    whole, *folds = splits_of(problem(target, 3, group="group"))
    assert {*whole} == {"training", "validation"}
    for split in (drawn, whole, *folds):
        assert sum(len({*groups[rows]}) for rows in split.values()) == len({*groups})
    tested = np.concatenate([split["test"] for split in folds])
    assert sorted(tested) == list(range(ROWS))


def test_the_hash_is_uniform_and_depends_on_the_row_and_the_seed_alone() -> None:
    rows = np.arange(100_000)
    values = hashed(rows, 3)
    counts = np.bincount((values * 100).astype(int))
    assert len(counts) == 100
    assert abs(counts / 1000 - 1.0).max() < 0.15  # 1000 +- 32 in each bin
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(values, hashed(rows, 4))[0, 1]) < 0.02
    np.testing.assert_array_equal(hashed(rows[500:600], 3), values[500:600])


@pytest.mark.once
@pytest.mark.parametrize("units", [None, np.random.default_rng(1).integers(0, 99, 1000)])
def test_pieces_by_hash_have_the_parts_of_the_whole(units: np.ndarray | None) -> None:
    rule = SplitRule(np.arange(1000), None, units, False, 3, by_hash=True)
    shares = {"validation": 0.15, "test": 0.2}
    (whole,) = rule.labels(shares)
    pieces = [rule.take(np.arange(i, i + 200)).labels(shares)[0] for i in range(0, 1000, 200)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    values = hashed(rule.numbers if units is None else units, 3)
    expected = {"validation": values < 0.15, "test": (values >= 0.15) & (values < 0.35)}
    for name, mask in (expected | {"training": values >= 0.35}).items():
        np.testing.assert_array_equal(whole == name, mask)


@pytest.mark.once
def test_the_group_is_no_feature_and_the_time_is_one_unless_it_is_dropped() -> None:
    assert "group" not in problem("y", group="group").table.features
    assert "date" in problem("y", time="date").table.features
    dropped = make_problem(
        table(),
        "y",
        ColumnChoice(drop=["date"], time="date"),
        task=None,
        test=0.2,
        validation=0.2,
        seed=0,
    )
    assert "date" not in dropped.table.features


@pytest.mark.once
@pytest.mark.parametrize("column", ["date", "string", "day", "Unnamed: 0"])
def test_later_parts_and_folds_have_later_times(column: str) -> None:
    day = table()["day"].to_numpy()
    (drawn,) = splits_of(problem("y", time=column))
    days = {name: {*day[rows].tolist()} for name, rows in drawn.items()}
    assert days == {
        "training": {*range(24)},
        "validation": {*range(24, 32)},
        "test": {*range(32, 40)},
    }
    whole, *folds = splits_of(problem("y", 3, time=column))
    assert {*day[whole["validation"]]} == {*range(32, 40)}
    for i, split in enumerate(folds):
        assert {*day[split["test"]]} == {*range(10 + 10 * i, 20 + 10 * i)}
        newest = [day[split[name]].max() for name in ("training", "validation")]
        assert newest[0] < day[split["validation"]].min()
        assert newest[1] == day[split["test"]].min() - 1


@pytest.mark.once
def test_rows_without_a_target_do_not_shift_the_times() -> None:
    frame = table()
    frame.loc[frame.index % 3 == 0, "y"] = None
    made = make_problem(
        frame, "y", ColumnChoice(time="date"), task=None, test=0.2, validation=0.2, seed=0
    )
    days = {name: rows.features["day"] for name, rows in made.parts().items()}
    assert days["training"].max() < days["validation"].min()
    assert days["validation"].max() < days["test"].min()


@pytest.mark.once
def test_the_kind_that_a_user_chose_is_also_that_of_the_time() -> None:
    frame = table().assign(number=lambda frame: frame["day"].map("{:03d}".format))
    choice = ColumnChoice(time="number", kinds={"number": "number"})
    found, expected = (
        make_problem(frame, "y", columns, seed=0) for columns in (choice, ColumnChoice(time="day"))
    )
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.once
@pytest.mark.parametrize("name", ["group", "time"])
def test_missing_groups_and_times_are_an_error(name: str) -> None:
    frame = table()
    frame.loc[3:8, ["group", "date"]] = None
    columns = ColumnChoice(group="group") if name == "group" else ColumnChoice(time="date")
    with pytest.raises(ValueError, match=rf"the {name} '.*' is missing \(row 3\): fill it"):
        make_problem(frame, "y", columns, task=None, test=0.2, validation=0.2, seed=0)


@pytest.mark.once
@pytest.mark.parametrize("value", ["9999-12-31", "0001-01-01", np.inf])
def test_a_time_that_stands_for_no_time_is_missing(value: str | float) -> None:
    frame = table().assign(time=lambda frame: frame["date"].dt.strftime("%Y-%m-%d"))
    if value == np.inf:
        frame = frame.assign(time=frame["day"].astype("float64"))
    frame.loc[::30, "time"] = value
    with pytest.raises(ValueError, match=r"is missing \(row 0\): .* years 1 and 9999"):
        make_problem(frame, "y", ColumnChoice(time="time"), seed=0)


@pytest.mark.once
def test_a_class_of_new_rows_alone_is_an_error_before_the_training() -> None:
    frame = table()
    frame["y"] = frame["y"].where(frame["day"] < 39, "new")
    with pytest.raises(ValueError, match="no training row has the class 'new' of the test rows"):
        make_problem(frame, "y", ColumnChoice(time="day"), seed=3)


# scikit-learn's folds, and its names of metrics.
PEERS = {
    "y": (StratifiedKFold, {"log_loss": "neg_log_loss", "roc_auc": "roc_auc"}),
    "number": (KFold, {"r2": "r2", "rmse": "neg_root_mean_squared_error"}),
}


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:'Unnamed. 0' is left out")
@pytest.mark.parametrize("target", ["y", thorough("number")])
def test_the_report_of_folds_is_that_of_scikit_learns_cross_validation(target: str) -> None:
    frame, lines = table().drop(columns="y" if target == "number" else "number"), list[str]()
    made = make_problem(frame, target, ColumnChoice(), seed=3, cv=3)
    model = train_table(made, QUICK, say=lines.append)
    assert lines[-3:] == ["fold 1 of 3", "fold 2 of 3", "fold 3 of 3"]
    (kind, scoring), y = PEERS[target], frame.pop(target)
    folds = kind(3, shuffle=True, random_state=QUICK["random_state"])
    found = cross_validate(clone(model), frame, y, cv=folds, scoring=scoring)
    report = model.metadata_["report"]
    for metric, scorer in scoring.items():
        scores = found[f"test_{metric}"] * (-1.0 if scorer.startswith("neg") else 1.0)
        assert report["test"][metric] == pytest.approx(scores.mean(), rel=1e-6)
        assert report["deviations"]["test"][metric] == pytest.approx(scores.std(), rel=1e-6)
    # The model is trained on all rows but the validation set.
    assert report["parts"] == {"training": 102, "validation": 18}
    np.testing.assert_array_equal(clone(model).fit(frame, y).theta_, model.theta_)


@pytest.mark.once
def test_ctrl_c_in_a_fold_keeps_the_model_and_resume_computes_the_folds(tmp_path: Path) -> None:
    lines, path = list[str](), tmp_path / "model"
    made = make_problem(table(), "y", ColumnChoice(), seed=3, cv=2)

    def press(line: str) -> None:
        if line == "fold 2 of 2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_table(made, QUICK, out=path, say=press)
    kept = tables.load(path)
    assert "report" not in kept.metadata_
    model = train_table(made, QUICK, out=path, say=lines.append, resume=True)
    ended = f"the training in {path} is finished: a larger --max-iter continues it"
    assert lines == [ended, "fold 1 of 2", "fold 2 of 2"]
    np.testing.assert_array_equal(model.theta_, kept.theta_)
    assert tables.load(path).metadata_["report"]["measured_on"]["test"] == "2 folds"
