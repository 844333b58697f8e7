"""Files of the scikit-learn estimators: what is read predicts, and goes on, as what was written."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_iris, make_multilabel_classification

import backprop_xp as bx
from backprop_xp.model_files import packed, unpacked

X, y = load_iris(return_X_y=True)
WORDS = np.array(["setosa", "versicolor", "virginica"])[y]
LABELS = make_multilabel_classification(60, 4, n_classes=3, random_state=0)
ADDED = {
    "activation": ["gelu", "tanh"],
    "solver": "adamw",
    "learning_rate": bx.schedules.cosine(1e-3, 100),
    "class_weight": {"setosa": 2.0, "versicolor": 1.0, "virginica": 1.0},
    "layer_norm": True,
    "dropout": 0.1,
}
CASES: dict[str, tuple[type, tuple[Any, Any], dict[str, Any]]] = {
    "classes": (bx.MLPClassifier, (X, y), {}),
    "two classes": (bx.MLPClassifier, (X, y == 1), {"solver": "sgd"}),
    "words": (bx.MLPClassifier, (X, WORDS), ADDED),
    "objects": (bx.MLPClassifier, (X, WORDS.astype(object)), {"early_stopping": True}),
    "labels": (bx.MLPClassifier, LABELS, {}),
    "float32": (bx.MLPClassifier, (X.astype(np.float32), y), {"n_restarts": 3}),
    "squares": (bx.MLPClassifier, (X, WORDS), {"loss": "mean_squared_error"}),
    "two outputs": (bx.MLPClassifier, (X, y == 1), {"loss": "categorical_cross_entropy"}),
    "each class": (bx.MLPClassifier, (X, y), {"loss": bx.losses.binary_cross_entropy}),
    "values": (bx.MLPRegressor, (X, X[:, 0]), {}),
    "several values": (bx.MLPRegressor, (X, X[:, :2]), {"solver": "rmsprop"}),
    "counts": (bx.MLPRegressor, (X, y), {"loss": "poisson"}),
    "huber": (bx.MLPRegressor, (X, X[:, 0]), {"loss": bx.losses.huber_with(2.0)}),
    "lbfgs": (bx.MLPRegressor, (X, X[:, 0]), {"solver": "lbfgs", "random_state": None}),
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def _model(name: str) -> Any:
    kind, data, options = CASES[name]
    given = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0, "backend": "numpy"}
    return kind(**{**given, **options}).fit(*data)


@pytest.mark.parametrize("name", CASES)
def test_what_is_read_is_what_was_written(name: str, tmp_path: Path) -> None:
    model, (kind, data, _) = _model(name), CASES[name]
    model.save(tmp_path / "model.safetensors")
    read = kind.load(tmp_path / "model.safetensors")
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, method):
            expected, actual = (getattr(m, method)(data[0]) for m in (model, read))
            assert actual.dtype == expected.dtype
            assert np.array_equal(actual, expected)
    for attribute in vars(model):
        assert hasattr(read, attribute), attribute
    assert repr(read.get_params()) == repr(model.get_params())
    if model.solver != "lbfgs" and not model.early_stopping:
        for one in (model, read):
            one.partial_fit(*data)
        for a, b in zip(model.coefs_, read.coefs_, strict=True):
            assert np.array_equal(a, b)
        assert read.loss_curve_ == model.loss_curve_


def test_a_table_keeps_its_columns_names(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    bx.MLPClassifier(4, max_iter=2, backend="numpy").fit(table, y).save(tmp_path / "model")
    read = bx.MLPClassifier.load(tmp_path / "model")
    assert list(read.feature_names_in_) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names"):
        read.predict(table[["b", "a", "c", "d"]])


@pytest.mark.parametrize("name", ["classes", "labels", "values", "counts"])
def test_the_network_of_the_file_predicts_without_scikit_learn(name: str, tmp_path: Path) -> None:
    model, (_, data, _) = _model(name), CASES[name]
    model.save(tmp_path / "model")
    predicted = bx.load(tmp_path / "model", backend="numpy").predict(np.asarray(data[0]))
    expected = getattr(model, "predict_proba", model.predict)(data[0])
    np.testing.assert_allclose(predicted, expected.reshape(predicted.shape), rtol=1e-12)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path, network = tmp_path / "model", bx.mlp([2, 1])
    _model("values").save(path)
    with pytest.raises(bx.CheckpointError, match="holds a MLPRegressor, no MLPClassifier"):
        bx.MLPClassifier.load(path)
    bx.save(path, network, network.initialize(backend="numpy"))
    with pytest.raises(bx.CheckpointError, match="a network alone"):
        bx.MLPClassifier.load(path)


HOSTILE = {
    "an attribute": lambda told: told["fitted"]["dict"].update(predict=1),
    "a parameter": lambda told: told["parameters"]["dict"].update(evil=1),
    "labels": lambda told: told["labels"]["dict"].update(coefs_=["<f8", [1.0]]),
    "an array": lambda told: told["parameters"]["dict"].update(alpha={"array": "theta"}),
    "a curve": lambda told: told["curves"]["dict"].update(coefs_={"array": "theta"}),
    "a curve of numbers": lambda told: told["curves"]["dict"].update(loss_curve_=[1.0]),
    "no curves": lambda told: told.pop("curves"),
    "widths": lambda told: told["parameters"]["dict"].update(hidden_layer_sizes=[7, 7]),
    "a dtype": lambda told: told["labels"]["dict"].update(classes_=["V8", [1, 2, 3]]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_says_what_cannot_be_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    _model("classes").save(path)
    header, tensors = unpacked(path.read_bytes())
    HOSTILE[name](header["estimator"]["dict"])
    path.write_bytes(packed(json.loads(json.dumps(header)), tensors))
    with pytest.raises(bx.CheckpointError):
        bx.MLPClassifier.load(path)


def test_the_curves_of_a_million_epochs_are_no_part_of_the_header(tmp_path: Path) -> None:
    path, model = tmp_path / "model", _model("objects")
    model.loss_curve_ = np.linspace(1.0, 0.1, 10**6).tolist()
    model.save(path)
    header, tensors = unpacked(path.read_bytes())
    assert len(json.dumps(header)) < 10_000
    assert tensors["estimator.curves.loss_curve_"].shape == (10**6,)
    read = bx.MLPClassifier.load(path)
    assert read.loss_curve_ == model.loss_curve_
    assert read.validation_scores_ == model.validation_scores_
    assert read.validation_loss_curve_ == model.validation_loss_curve_


def test_what_is_not_fitted_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        bx.MLPClassifier().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_a_plateau_is_the_adaptive_rates_matter() -> None:
    with pytest.raises(ValueError, match='learning_rate="adaptive"'):
        bx.MLPClassifier(learning_rate=bx.schedules.plateau(0.1)).fit(X, y)
