"""Trainings of the command on tables: reports, weights, resumed trainings and files of models.

Specifies ``model_file`` and ``rows``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pyarrow")

import pandas as pd

import backprop_xp as bx
from backprop_xp import tables
from backprop_xp.tables.model import fitted_model, model_file
from backprop_xp.tables.report import evaluation
from backprop_xp.training.rows.preprocessing import split_rows
from tests import messy_tables
from tests.helpers import thorough
from tests.table_trainings import QUICK, classes_of, frame, predictions, train

# A table of numbers with units, of strings for numbers, with rare classes, with few rows.
SMALL = ("cars", "strings for numbers", "classes of two rows", "forty rows")


class Killed(BaseException):
    """An error that ends a training like SIGKILL: only the file is left."""


def test_metrics_count_only_the_classes_that_occur() -> None:
    shares = np.asarray([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1]])
    found = evaluation.score(3, np.asarray([0, 1, 0]), shares)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["roc_auc"] == pytest.approx(1.0)
    assert found["log_loss"] == pytest.approx(-np.log([0.8, 0.7, 0.4]).mean())
    assert evaluation.score(3, np.asarray([1, 1, 1]), shares)["roc_auc"] is None
    assert evaluation.score(0, np.ones(3), np.ones(3)) == {"r2": None, "rmse": 0.0, "mae": 0.0}


def test_a_loaded_model_predicts_the_same(xp: Any, tmp_path: Path) -> None:
    table, path = frame(), tmp_path / "model.safetensors"
    made = train(table, "y", parameters=QUICK, out=path)
    model = tables.load(path)
    found = predictions(model, table.drop(columns="y"))
    pd.testing.assert_frame_equal(found, predictions(made, table))
    assert list(found) == ["prediction", "probability_no", "probability_yes"]
    np.testing.assert_allclose(found.iloc[:, 1:].sum(axis=1), 1.0, rtol=1e-6)
    assert set(found["prediction"]) == {"yes", "no"}
    assert model.metadata_["report"] == made.metadata_["report"]
    assert model.history_["loss"].shape == (12, 4)
    assert model.history_.keys() == made.history_.keys()


@pytest.mark.once
def test_a_number_is_predicted_in_its_own_unit(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"x": draw.normal(size=400)})
    table["y"] = 5e6 + 1e5 * table["x"]
    fast = {"preset": "fast", "max_iter": 60}
    model = train(table, "y", parameters=fast, out=tmp_path / "m")
    report = model.metadata_["report"]
    assert report["test"]["r2"] > 0.98
    assert report["baseline"]["rmse"] == pytest.approx(1e5, rel=0.2)
    found = predictions(tables.load(tmp_path / "m"), table)
    assert np.abs(found["prediction"] - table["y"]).mean() < 2e4
    assert list(found) == ["prediction"]


@pytest.mark.once
def test_test_targets_change_nothing_before_the_report() -> None:
    table = frame().assign(y=np.arange(60.0))
    held_out = split_rows(60, {"test": 0.15}, 0)["test"]
    thetas = []
    for value in (1.0, 1e9):
        table.loc[held_out, "y"] = value
        model = train(table, "y", parameters={"hidden_layer_sizes": (8,), "max_iter": 1})
        thetas.append(bx.to_host(model.theta_))
        training = table["y"].drop(held_out)
        moments = training.mean(), training.std(ddof=0)
        assert model.model_.scale == pytest.approx(moments, rel=1e-12)
    np.testing.assert_array_equal(*thetas)


@pytest.mark.once
def test_the_linear_model_is_as_good_at_numbers_far_from_zero() -> None:
    draw = np.random.default_rng(0)
    table = pd.DataFrame({"x": draw.normal(size=100)})
    table["y"] = 1.7e9 + 10.0 * table["x"]
    report = train(table, "y", parameters=QUICK).metadata_["report"]
    assert report["linear"]["r2"] > 0.99


@pytest.mark.once
@pytest.mark.parametrize(
    ("target", "factor"), [("a", 1e-6), ("y", 1e307), thorough("a", 1e307), thorough("y", 1e-6)]
)
def test_a_common_factor_of_all_weights_changes_nothing(target: str, factor: float) -> None:
    table = frame().drop(columns="text").dropna(subset="a")
    weights = np.linspace(0.5, 1.5, len(table))
    expected, found = [
        train(table.assign(w=k * weights), target, parameters=QUICK, weights="w").metadata_
        for k in (1.0, factor)
    ]
    for part in ("validation", "test", "linear", "baseline"):
        assert found["report"][part] == pytest.approx(expected["report"][part], rel=1e-4)


@pytest.mark.once
def test_a_target_of_one_value_beside_rows_of_weight_0_is_an_error() -> None:
    table = frame()
    table["w"] = np.where(table["y"] == "yes", 0.0, 1.0)
    with pytest.raises(ValueError, match="the target 'y' is no in all rows that have a weight: no"):
        train(table, "y", parameters=QUICK, weights="w")


def test_metrics_ignore_rows_of_weight_0() -> None:
    y, weights = np.arange(3.0), np.asarray([0.0, 1.0, 0.0])
    assert evaluation.score(0, y, y + 1.0, weights) == {"r2": None, "rmse": 1.0, "mae": 1.0}


@pytest.mark.once
@pytest.mark.parametrize("target", ["y", "a"])
def test_each_metric_of_a_report_is_measured_on_its_named_part(target: str) -> None:
    table = frame(120).dropna(subset="a")
    parts = {"training": table[:60], "validation": table[60:90], "test": table[90:]}
    given = {name: parts[name] for name in ("validation", "test")}
    model = train(parts["training"], target, parameters=QUICK, **given)
    report = model.metadata_["report"]
    assert report["parts"] == {name: len(part) for name, part in parts.items()}
    expected = {
        name: predictions(model, parts[part]) for name, part in report["measured_on"].items()
    }
    targets = {name: parts[part][target] for name, part in report["measured_on"].items()}
    metric = "rmse"
    if target == "y":
        metric, shares = "accuracy", parts["training"]["y"].value_counts()
        expected["baseline"] = expected["baseline"].assign(prediction=shares.idxmax())
        assert sum(one["rows"] for one in model.metadata_["classes"]) == len(parts["test"])
    else:
        mean = parts["training"]["a"].mean()
        expected["baseline"] = expected["baseline"].assign(prediction=mean)
    for name in ("validation", "test", "baseline"):
        found, y = expected[name]["prediction"].to_numpy(), targets[name].to_numpy()
        right = (found == y).mean() if target == "y" else np.sqrt(((found - y) ** 2).mean())
        assert report[name][metric] == pytest.approx(right, rel=1e-5)


@pytest.mark.once
def test_test_rows_change_only_the_report(tmp_path: Path) -> None:
    table = frame(120)
    found = []
    settings = {
        "hidden_layer_sizes": (8,),
        "learning_rate_init": 0.1,
        "max_iter": 50,
        "n_iter_no_change": 5,
    }
    for test in (table[:20], table[20:60]):
        given = {"validation": table[60:80], "test": test}
        found.append(train(table[80:], "y", parameters=settings, **given))
    assert found[0].n_iter_ < 50  # early stopping ended it
    assert found[0].validation_score_ == found[1].validation_score_
    np.testing.assert_array_equal(*[bx.to_host(model.theta_) for model in found])
    one, other = (model.metadata_["report"] for model in found)
    assert one["validation"] == other["validation"]
    assert one["test"] != other["test"]


@pytest.mark.once
def test_a_resumed_training_accepts_the_detected_task(tmp_path: Path) -> None:
    path = tmp_path / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    train(frame(), "y", parameters=QUICK, out=path, task="classification", resume=True)


@pytest.mark.once
def test_a_row_of_weight_2_counts_twice() -> None:
    table = frame(120).drop(columns=["text"])
    twice = pd.concat([table, table[table["y"] == "yes"]])
    weighted = table.assign(w=np.where(table["y"] == "yes", 2.0, 1.0))
    epoch = {**QUICK, "max_iter": 1}
    found = [
        train(one, "y", validation=one, test=one, parameters=epoch, weights=w).metadata_["report"]
        for one, w in ((twice, None), (weighted, "w"))
    ]
    assert found[0]["baseline"] == pytest.approx(found[1]["baseline"])


@pytest.mark.once
def test_balanced_classes_raise_the_balanced_accuracy() -> None:
    draw = np.random.default_rng(0)
    rare = draw.random(1000) < 0.08
    table = pd.DataFrame({"x": draw.normal(size=1000) + 1.3 * rare, "y": rare})
    quick = {"hidden_layer_sizes": (8,), "learning_rate_init": 0.01, "max_iter": 30, "n_members": 1}
    settings = {name: {"class_weight": name, **quick} for name in (None, "balanced")}
    found = {
        name: train(table, "y", parameters=one).metadata_["report"]
        for name, one in settings.items()
    }
    plain, balanced = (found[name]["test"]["balanced_accuracy"] for name in (None, "balanced"))
    assert balanced > plain + 0.1
    # The baseline stays the shares of the classes, whatever the network's weights.
    assert found["balanced"]["baseline"] == found[None]["baseline"]


@pytest.mark.once
@pytest.mark.parametrize("weights", [None, "w"])
def test_early_stopping_weighs_the_classes_as_training_does(weights: str | None) -> None:
    draw = np.random.default_rng(0)
    rare = draw.random(400) < 0.1
    table = pd.DataFrame({"x": draw.normal(size=400) + rare, "y": rare})
    table["w"] = np.linspace(0.5, 1.5, 400) if weights else 1.0
    training, validation = table[:250], table[250:]
    settings = {"hidden_layer_sizes": (8,), "class_weight": "balanced", "max_iter": 15}
    settings["n_members"] = 1
    given = {"parameters": settings, "weights": weights, "drop": [] if weights else ["w"]}
    model = train(training, "y", validation=validation, test=validation, **given)
    sums = training.groupby("y")["w"].sum()
    each = validation["w"] / validation["w"].mean() / validation["y"].map(sums)
    p = predictions(model, validation)["probability_True"].to_numpy()
    losses = -np.log(np.where(validation["y"], p, 1.0 - p))
    assert model.validation_score_ == pytest.approx(np.average(losses, weights=each), rel=1e-4)


@pytest.mark.long
def test_each_member_of_an_ensemble_is_kept_at_its_own_best_epoch(xp: Any, tmp_path: Path) -> None:
    quick = {"hidden_layer_sizes": (8,), "max_iter": 12, "n_members": 3}
    model = train(frame(), "y", parameters=quick, out=tmp_path / "model")
    last = model.history_["validation_loss"]
    assert last.shape == (12, 3)
    assert model.validation_score_ == pytest.approx(last.min(axis=0).tolist(), rel=1e-6)
    assert model.best_iter_ == (last.argmin(axis=0) + 1).tolist()
    assert len(np.unique(last[0])) == 3
    assert tables.load(tmp_path / "model").theta_.shape == (3, model.network_.size)
    report = model.metadata_["report"]["validation"]
    assert report["log_loss"] <= np.mean(model.validation_score_) + 1e-4


@pytest.mark.once
@pytest.mark.parametrize(("n_members", "kills"), [(2, 4), thorough(1, 10), thorough(2, 10)])
def test_a_training_killed_at_any_epoch_resumes_to_the_same_theta(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_members: int, kills: int
) -> None:
    monkeypatch.setattr(model_file, "_PAUSE", 0.0)
    table, path = frame(), tmp_path / "model"
    settings = {"hidden_layer_sizes": (8,), "max_iter": 30, "dropout": 0.2, "n_members": n_members}
    whole = train(table, "y", parameters=settings)
    moments = np.random.default_rng(0).choice(np.arange(2, 30), kills, replace=False)
    for moment in [*sorted(moments.tolist()), None]:

        def kill(state: Any, moment: int | None = moment) -> None:
            if state.epoch == moment:
                raise Killed

        try:
            model = train(
                table, "y", parameters=settings, out=path, resume=path.exists(), callbacks=[kill]
            )
        except Killed:
            kept = tables.load(path)
            assert kept.n_iter_ == moment - 1
            assert "report" not in kept.metadata_
    np.testing.assert_array_equal(xp.host(model.theta_), xp.host(whole.theta_))
    assert model.metadata_["report"] == {**whole.metadata_["report"], "model": str(path)}
    for name, values in whole.history_.items():
        np.testing.assert_array_equal(model.history_[name], values)


@pytest.mark.long
def test_ctrl_c_keeps_the_best_network_and_the_training_can_be_resumed(
    xp: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, path, messages = frame(), tmp_path / "model", list[str]()

    def press(state: Any) -> None:
        if state.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        train(table, "y", parameters=QUICK, out=path, callbacks=[press])
    (note,) = caught.value.__notes__
    assert note.startswith(f"interrupted in epoch 6: {path} has the best network so far")
    assert note.endswith("or command with --resume, continues it.")
    kept = tables.load(path)
    assert kept.history_["loss"].shape == (5, 4)
    assert len(predictions(kept, table)) == len(table)
    model = train(table, "y", parameters=QUICK, out=path, resume=True, say=messages.append)
    assert "resumed after epoch 5" in messages
    whole = train(table, "y", parameters=QUICK)
    np.testing.assert_array_equal(xp.host(model.theta_), xp.host(whole.theta_))


@pytest.mark.once
def test_a_finished_training_is_not_resumed(tmp_path: Path) -> None:
    messages, path = list[str](), tmp_path / "model"
    made = train(frame(), "y", parameters=QUICK, out=path)
    again = train(frame(), "y", parameters=QUICK, out=path, resume=True, say=messages.append)
    assert f"the training in {path} is finished" in messages[-1]
    assert again.metadata_["report"] == made.metadata_["report"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a finished training."""
    path = tmp_path_factory.mktemp("finished") / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    return path


@pytest.mark.once
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"parameters": {"hidden_layer_sizes": (9,), "max_iter": 12, "n_iter_no_change": 50}},
            "sizes is 9, but the file's training has 8",
        ),
        ({"drop": ["a"]}, "its training had other data"),
        ({"validation": 0.3}, "validation is 0.3, but the file's training has 0.15"),
        ({"test": 0.3}, "test is 0.3, but the file's training has 0.15"),
        ({"test": frame(20)}, "test is a table, but the file's training has 0.15"),
        ({"group": "text"}, "group is text, but the file's training has not given"),
        ({"time": "day"}, "time is day, but"),
        ({"cv": 2}, "cv is 2, but"),
        ({"target": "b"}, "target is b, but the file's training has y"),
        ({"dtype": "float64"}, "dtype is float64, but the file's training has float32"),
        ({"data": frame(200)}, "its training had other data"),  # the batches differ
        ({"data": frame().assign(y=["no", "yes", "or"] * 20)}, "its training had other data"),
        ({"data": frame().sample(frac=1.0, random_state=0)}, "its training had other data"),
        (
            {
                "parameters": {
                    "hidden_layer_sizes": (8,),
                    "max_iter": 12,
                    "n_iter_no_change": 50,
                    "random_state": 1,
                }
            },
            "random_state is 1, but the file's training has 0",
        ),
    ],
)
def test_a_training_is_not_resumed_with_other_data_or_settings(
    finished: Path, changed: dict[str, Any], message: str
) -> None:
    given: dict[str, Any] = {"data": frame(), "target": "y", "parameters": QUICK, "out": finished}
    before = finished.read_bytes()
    with pytest.raises(ValueError, match=f"cannot be resumed: .*{message}"):
        train(**{**given, **changed}, resume=True)
    assert finished.read_bytes() == before


@pytest.mark.once
def test_a_training_is_not_resumed_with_other_validation_or_test_rows(tmp_path: Path) -> None:
    given: dict[str, Any] = {"data": frame(), "target": "y", "parameters": QUICK}
    given |= {"out": tmp_path / "model", "validation": frame(20), "test": frame(30)}
    train(**given)
    for name in ("validation", "test"):
        with pytest.raises(ValueError, match=f"resumed: its training had other {name} data"):
            train(**{**given, name: frame(40)}, resume=True)
    train(**given, resume=True)


@pytest.mark.once
def test_a_diverging_training_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model"
    train(frame(), "y", parameters=QUICK, out=path)
    before = path.read_bytes()
    wild = {"learning_rate_init": 1e30, "solver": "sgd", "max_iter": 3}
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="lower learning_rate_init"):
        train(frame(), "y", parameters=wild, out=path)
    assert path.read_bytes() == before


def test_a_model_file_without_a_table_is_an_error(xp: Any, tmp_path: Path) -> None:
    network = bx.mlp([2, 1])
    bx.save(tmp_path / "model", network, xp.initialize(network))
    with pytest.raises(bx.CheckpointError, match="it holds no model of a table"):
        tables.load(tmp_path / "model")


@pytest.mark.once
def test_the_report_is_computed_on_the_chosen_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    used, resolve = [], fitted_model.resolve

    def recorded(**where: Any) -> Any:
        used.append(where["backend"])
        return resolve(**where)

    monkeypatch.setattr(fitted_model, "resolve", recorded)
    frame = pd.DataFrame({"a": np.arange(60.0), "y": ["no", "yes"] * 30})
    parameters = {"preset": "fast", "max_iter": 1, "backend": "array-api-strict"}
    train(frame, "y", parameters=parameters)
    assert used == ["array-api-strict"] * 2


@pytest.mark.once
@pytest.mark.parametrize("name", [t if t in SMALL else thorough(t) for t in messy_tables.TABLES])
def test_a_messy_table_trains_unchanged_and_beats_the_baseline(tmp_path: Path, name: str) -> None:
    table, target = messy_tables.TABLES[name]()
    table.to_csv(tmp_path / "table.csv", index=False)
    fast = {"preset": "fast", "n_members": 4}
    model = train(tmp_path / "table.csv", target, parameters=fast, out=tmp_path / "model")
    report = model.metadata_["report"]
    metric = "log_loss" if classes_of(model) else "rmse"
    assert report["test"][metric] < 0.97 * report["baseline"][metric]
    assert len(predictions(tables.load(tmp_path / "model"), table)) == len(table)
