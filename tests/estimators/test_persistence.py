"""Files of the scikit-learn estimators: a loaded model predicts and trains as the saved one.

Specifies ``json_values``.
"""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.datasets import load_iris, make_multilabel_classification

import backprop_xp as bx
from backprop_xp.estimators.targets import to_dense
from backprop_xp.files.container import decode, encode

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
    "sparse labels": (bx.MLPClassifier, (LABELS[0], scipy.sparse.csr_array(LABELS[1])), {}),
    "float32": (bx.MLPClassifier, (X.astype(np.float32), y), {"n_restarts": 3}),
    "squares": (bx.MLPClassifier, (X, WORDS), {"loss": "mean_squared_error"}),
    "two outputs": (bx.MLPClassifier, (X, y == 1), {"loss": "categorical_cross_entropy"}),
    "each class": (bx.MLPClassifier, (X, y), {"loss": bx.losses.binary_cross_entropy}),
    "members": (bx.MLPClassifier, (X, WORDS), {**ADDED, "n_members": 2, "n_restarts": 2}),
    "members that stop early": (
        bx.MLPRegressor,
        (X, X[:, 0]),
        {"n_members": 3, "early_stopping": True},
    ),
    "values": (bx.MLPRegressor, (X, X[:, 0]), {}),
    "several values": (bx.MLPRegressor, (X, X[:, :2]), {"solver": "rmsprop"}),
    "counts": (bx.MLPRegressor, (X, y), {"loss": "poisson"}),
    "huber": (bx.MLPRegressor, (X, X[:, 0]), {"loss": bx.losses.huber_with(2.0)}),
    "lbfgs": (bx.MLPRegressor, (X, X[:, 0]), {"solver": "lbfgs", "random_state": None}),
}
pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def _model(name: str) -> Any:
    kind, data, options = CASES[name]
    given = {"hidden_layer_sizes": (6, 5), "max_iter": 3, "random_state": 0, "backend": "numpy"}
    return kind(**{**given, **options}).fit(*data)


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_model_equals_the_saved_one(name: str, tmp_path: Path) -> None:
    model, (kind, data, _) = _model(name), CASES[name]
    model.save(tmp_path / "model.safetensors")
    read = kind.load(tmp_path / "model.safetensors")
    # The backend and device are not saved.
    assert repr(read.get_params()) == repr({**model.get_params(), "backend": None})
    read.set_params(backend="numpy")
    for method in ("predict", "predict_proba", "decision_function"):
        if hasattr(model, method):
            expected, actual = (getattr(m, method)(data[0]) for m in (model, read))
            assert type(actual) is type(expected)
            assert actual.dtype == expected.dtype
            assert np.array_equal(to_dense(actual), to_dense(expected))
    for attribute in vars(model):
        assert hasattr(read, attribute), attribute
    if model.solver != "lbfgs" and not model.early_stopping:
        for one in (model, read):
            one.partial_fit(*data)
        for a, b in zip(model.coefs_, read.coefs_, strict=True):
            assert np.array_equal(a, b)
        assert read.loss_curve_ == model.loss_curve_


def test_a_loaded_model_keeps_the_column_names(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    bx.MLPClassifier(4, max_iter=2, backend="numpy").fit(table, y).save(tmp_path / "model")
    read = bx.MLPClassifier.load(tmp_path / "model")
    assert list(read.feature_names_in_) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="feature names"):
        read.predict(table[["b", "a", "c", "d"]])


@pytest.mark.parametrize("unit", ["D", "ns"])
def test_classes_that_are_dates_or_timedeltas_are_saved(tmp_path: Path, unit: str) -> None:
    x, days = np.arange(20.0)[:, None], np.datetime64("2020-01-01", unit) + np.arange(20) % 2
    for y in (days, days - days[0]):
        model = bx.MLPClassifier(4, solver="lbfgs", max_iter=3, random_state=0)
        model.fit(x, y).save(tmp_path / "model")
        again = bx.MLPClassifier.load(tmp_path / "model")
        assert again.classes_.dtype == y.dtype
        np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_hidden_layer_sizes_of_any_kind_are_saved(tmp_path: Path) -> None:
    for sizes in (range(4, 6), np.array([4, 5]), [4, 5]):
        bx.MLPClassifier(sizes, max_iter=2).fit(X, y).save(tmp_path / "model")
        assert bx.MLPClassifier.load(tmp_path / "model").hidden_layer_sizes == [4, 5]


@pytest.mark.parametrize("name", ["classes", "labels", "values", "counts"])
def test_the_network_of_the_file_predicts_without_scikit_learn(name: str, tmp_path: Path) -> None:
    model, (_, data, _) = _model(name), CASES[name]
    model.save(tmp_path / "model")
    predicted = bx.load(tmp_path / "model", backend="numpy").predict(np.asarray(data[0]))
    expected = getattr(model, "predict_proba", model.predict)(data[0])
    np.testing.assert_allclose(predicted, expected.reshape(predicted.shape), rtol=1e-12)


@pytest.mark.parametrize("name", ["two classes", "each class"])
def test_the_network_of_the_file_predicts_as_the_estimator(name: str, tmp_path: Path) -> None:
    model, (_, data, _) = _model(name), CASES[name]
    model.save(tmp_path / "model")
    predicted = bx.load(tmp_path / "model", backend="numpy").predict(data[0])
    of_all = np.concatenate([1.0 - predicted, predicted], axis=-1)
    of_all = predicted / predicted.sum(-1, keepdims=True) if name == "each class" else of_all
    np.testing.assert_allclose(model.predict_proba(data[0]), of_all, rtol=1e-12)


def test_a_file_of_another_kind_is_an_error(tmp_path: Path) -> None:
    path, network = tmp_path / "model", bx.mlp([2, 1])
    _model("values").save(path)
    with pytest.raises(bx.CheckpointError, match="holds a MLPRegressor, not a MLPClassifier"):
        bx.MLPClassifier.load(path)
    bx.save(path, network, network.initialize(backend="numpy"))
    with pytest.raises(bx.CheckpointError, match="a network alone"):
        bx.MLPClassifier.load(path)


def _set(part: str, **values: Any) -> Any:
    return lambda saved: saved[part]["dict"].update(values)


HOSTILE = {
    "an attribute": lambda saved: saved["fitted"]["dict"].update(predict=1),
    "a parameter": lambda saved: saved["parameters"]["dict"].update(evil=1),
    "labels": lambda saved: saved["labels"]["dict"].update(coefs_=["<f8", [1.0]]),
    "an array": lambda saved: saved["parameters"]["dict"].update(alpha={"array": "theta"}),
    "a curve": lambda saved: saved["curves"]["dict"].update(coefs_={"array": "theta"}),
    "a curve of numbers": lambda saved: saved["curves"]["dict"].update(loss_curve_=[1.0]),
    "no curves": lambda saved: saved.pop("curves"),
    "widths": lambda saved: saved["parameters"]["dict"].update(hidden_layer_sizes=[7, 7]),
    "a dtype": lambda saved: saved["labels"]["dict"].update(classes_=["V8", [1, 2, 3]]),
    "a label beyond its dtype": _set("labels", classes_=["<u1", [300, 2, 3]]),
    "a label beyond all": _set("labels", classes_=["<i8", [10**30, 2, 3]]),
    "labels in rows": _set("labels", classes_=["<i8", [[1, 2], [3, 4]]]),
    "labels of no order": _set("labels", classes_=["<i8", [1, 3, 2]]),
    "a label twice": _set("labels", classes_=["<i8", [1, 1, 2]]),
    "more labels": _set("labels", classes_=["<i8", [1, 2, 3, 4]]),
    "many letters": _set("labels", classes_=["<U1", ["a"] * 10_000 + ["b" * 10_000]]),
    "names of columns": _set("labels", feature_names_in_=["|O", ["a"]]),
    "a width": _set("parameters", hidden_layer_sizes=[10**400]),
    "a negative width": _set("parameters", hidden_layer_sizes=[-4]),
    "a rate": _set("parameters", alpha=-1.0),
    "columns": _set("fitted", n_features_in_=-5),
    "a number of columns that is none": _set("fitted", n_features_in_=4.0),
    "outputs": _set("fitted", n_outputs_=10**12),
    "a number of members": _set("parameters", n_members=2),
    "members of a number": _set("fitted", best_loss_=[0.5, 0.5]),
    "a count of members": _set("fitted", t_=[1]),
    "a count": _set("fitted", t_="x"),
    "no count": lambda saved: saved["fitted"]["dict"].pop("t_"),
    "no rate": lambda saved: saved["fitted"]["dict"].pop("_learning_rate"),
    "no record": lambda saved: saved["fitted"]["dict"].pop("best_loss_"),
    "no curve": _set("curves", loss_curve_=None),
    "epochs": _set("fitted", n_iter_=-1),
}
HOSTILE_ARRAYS = {
    "short means": ("state.optimizer_state.mean", np.zeros(3)),
    "means of bytes": ("state.optimizer_state.mean", np.zeros(83, np.uint8)),
    "a curve of bytes": ("estimator.curves.loss_curve_", np.zeros(3, np.uint8)),
    "a curve of booleans": ("estimator.curves.loss_curve_", np.zeros(3, np.bool_)),
    "a curve in rows": ("estimator.curves.loss_curve_", np.zeros((3, 1))),
}


@pytest.mark.parametrize("name", HOSTILE_ARRAYS)
def test_a_file_with_an_array_of_the_wrong_shape_is_an_error(name: str, tmp_path: Path) -> None:
    path, (name_in_file, array) = tmp_path / "model", HOSTILE_ARRAYS[name]
    _model("classes").save(path)
    header, tensors = decode(path.read_bytes())
    assert name_in_file in tensors
    path.write_bytes(encode(header, {**tensors, name_in_file: array}))
    with pytest.raises(bx.CheckpointError):
        bx.MLPClassifier.load(path)


@pytest.mark.parametrize("sizes", [[1] * 20_000, [10**9]])
def test_a_network_is_not_made_of_widths_that_the_file_lacks(
    tmp_path: Path, sizes: list[int]
) -> None:
    path = tmp_path / "model"
    _model("classes").save(path)
    header, tensors = decode(path.read_bytes())
    header["estimator"]["dict"]["parameters"]["dict"]["hidden_layer_sizes"] = sizes
    path.write_bytes(encode(header, tensors))
    tracemalloc.start()
    with pytest.raises(bx.CheckpointError, match=r"not those of the network, \[6, 5, 3\]"):
        bx.MLPClassifier.load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60 * path.stat().st_size  # a network of these layers takes 30 MB


def test_the_labels_of_a_file_need_memory_for_their_characters_only(tmp_path: Path) -> None:
    path = tmp_path / "model"
    _model("words").save(path)
    header, tensors = decode(path.read_bytes())
    labels = header["estimator"]["dict"]["labels"]["dict"]
    labels["classes_"][0] = "<U100000000"
    path.write_bytes(encode(header, tensors))
    assert bx.MLPClassifier.load(path).classes_.dtype == "<U10"


def test_a_network_in_another_precision_is_saved_and_loaded(tmp_path: Path) -> None:
    path, model = tmp_path / "model", _model("classes")
    for name in ("coefs_", "intercepts_"):
        setattr(model, name, [array.astype(np.float32) for array in getattr(model, name)])
    model.save(path)
    assert bx.MLPClassifier.load(path).coefs_[0].dtype == np.float32


def test_a_file_loads_where_its_backend_is_missing(tmp_path: Path) -> None:
    path, model = tmp_path / "model", _model("classes")
    expected = model.predict(X)
    for backend in ("cupy", bx.get_backend("numpy")):
        model.set_params(backend=backend, device="cuda:7").save(path)
        read = bx.MLPClassifier.load(path)
        assert read.backend is read.device is None
        with bx.use_backend("numpy"):
            assert np.array_equal(read.predict(X), expected)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_with_contradictory_attributes_is_an_error(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model"
    _model("classes").save(path)
    header, tensors = decode(path.read_bytes())
    HOSTILE[name](header["estimator"]["dict"])
    path.write_bytes(encode(json.loads(json.dumps(header)), tensors))
    with pytest.raises(bx.CheckpointError):
        bx.MLPClassifier.load(path)


def test_the_curves_of_a_million_epochs_are_not_in_the_header(tmp_path: Path) -> None:
    path, model = tmp_path / "model", _model("objects")
    model.loss_curve_ = np.linspace(1.0, 0.1, 10**6).tolist()
    model.save(path)
    header, tensors = decode(path.read_bytes())
    assert len(json.dumps(header)) < 10_000
    assert tensors["estimator.curves.loss_curve_"].shape == (10**6,)
    read = bx.MLPClassifier.load(path)
    assert read.loss_curve_ == model.loss_curve_
    assert read.validation_scores_ == model.validation_scores_
    assert read.validation_loss_curve_ == model.validation_loss_curve_


def test_an_unfitted_model_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        bx.MLPClassifier().save(tmp_path / "model")
    assert not list(tmp_path.iterdir())
