"""The C file of a fitted perceptron predicts as the estimator does; its comments say how."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import backprop_xp as bx
from tests.c_programs import STRICT, compile_c
from tests.helpers import HANGING

pytestmark = [
    pytest.mark.c_compiler,
    pytest.mark.once,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

X, Y = load_iris(return_X_y=True)
QUICK: dict[str, Any] = {"hidden_layer_sizes": 4, "max_iter": 20, "learning_rate_init": 0.03}
QUICK |= {"random_state": 0, "backend": "numpy"}
CLOSE = 1e-12  # sums in another order


def run_c(model: Any, folder: Path, x: np.ndarray, n_out: int, **options: Any) -> np.ndarray:
    """Return what NAME_predict computes for rows of x."""
    bx.export_c(folder / "model.c", model, name="model", dtype="float64", test=x, **options)
    numbers = ", ".join(map(repr, x.ravel().tolist()))
    results = "y, s" if getattr(model, "n_members", 1) > 1 else "y"
    (folder / "main.c").write_text(
        f"""#include "model.c"
#include <stdio.h>
int main(void)
{{
    static const double x[] = {{{numbers}}};
    for (int i = 0; i < {len(x)}; ++i) {{
        double y[{n_out}], s[{n_out}];
        (void)s;
        model_predict(x + MODEL_N_IN * i, {results});
        for (int j = 0; j < {n_out}; ++j) printf("%.17g ", y[j]);
        printf("\\n");
    }}
    return 0;
}}
"""
    )
    compile_c(folder, "main.c", [*STRICT, "-o", "main"])
    compile_c(folder, "model_test.c", [*STRICT, "-o", "right"])
    assert subprocess.run([folder / "right"], timeout=HANGING).returncode == 0
    done = subprocess.run(
        [folder / "main"], capture_output=True, text=True, check=True, timeout=HANGING
    )
    return np.asarray([[float(one) for one in line.split()] for line in done.stdout.splitlines()])


def comment_of(folder: Path, begins: str) -> str:
    text = (folder / "model.c").read_text()
    return next(line for line in text.splitlines() if line.startswith(f"/* {begins}"))


@pytest.mark.parametrize("n_members", [1, 3])
def test_the_class_of_several_is_that_of_the_largest_output(n_members: int, tmp_path: Path) -> None:
    names = np.asarray(["ir", "is", "s*/"])
    model = bx.MLPClassifier(**QUICK, n_members=n_members).fit(X, names[Y])
    found = run_c(model, tmp_path, X[::7], 3)
    np.testing.assert_allclose(found, model.predict_proba(X[::7]), rtol=0, atol=CLOSE)
    y = "y" if n_members == 1 else "mean"
    expected = f"largest {y}[i]. The classes are 0: 'ir', 1: 'is', 2: 's* /'. */"
    assert comment_of(tmp_path, "The class is that of the").endswith(expected)


def test_the_class_of_two_is_decided_by_one_output(tmp_path: Path) -> None:
    model = bx.MLPClassifier(**QUICK).fit(X, np.where(Y == 1, "yes", "no"))
    found = run_c(model, tmp_path, X[::7], 1)
    np.testing.assert_allclose(found[:, 0], model.predict_proba(X[::7])[:, 1], rtol=0, atol=CLOSE)
    assert comment_of(tmp_path, "The class") == (
        "/* The class is 'yes' if y[0] is above 0.5, else 'no'. */"
    )
    chosen = np.where(found[:, 0] > 0.5, "yes", "no")
    assert chosen.tolist() == model.predict(X[::7]).tolist()


def test_labels_are_decided_one_by_one(tmp_path: Path) -> None:
    labels = np.stack([Y == 1, X[:, 0] > 5.5], axis=1).astype(int)
    model = bx.MLPClassifier(**QUICK).fit(X, labels)
    found = run_c(model, tmp_path, X[::7], 2)
    np.testing.assert_array_equal(found > 0.5, model.predict(X[::7]))
    assert "has the label i if y[i] is above 0.5" in comment_of(tmp_path, "A row")


def test_a_regressor_behind_a_scaler_takes_raw_rows(tmp_path: Path) -> None:
    pipeline = make_pipeline(StandardScaler(), bx.MLPRegressor("huber", **QUICK))
    pipeline.fit(X, X @ [1.0, -1.0, 0.5, 0.0])
    with pytest.raises(TypeError, match=r"not a Pipeline.*last step, with preparation=\{'mean'"):
        bx.export_c(tmp_path / "model.c", pipeline)
    scaler, model = (step for _, step in pipeline.steps)
    ready = {"mean": scaler.mean_, "scale": scaler.scale_}
    found = run_c(model, tmp_path, X[::7], 1, preparation=ready, derivatives=True)
    np.testing.assert_allclose(found[:, 0], pipeline.predict(X[::7]), rtol=0, atol=CLOSE)


def test_the_names_of_features_are_in_the_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "größe"])
    model = bx.MLPRegressor(**QUICK).fit(frame, Y)
    bx.export_c(tmp_path / "model.c", model)
    expected = r"/* x has the features 'a', 'b', 'c', 'gr\xf6\xdfe'. */"
    assert comment_of(tmp_path, "x has") == expected


def test_wrong_arguments_are_errors_with_the_right_order(tmp_path: Path) -> None:
    network, path = bx.mlp([3, 2]), tmp_path / "network.c"
    theta, model = network.initialize(backend="numpy"), bx.MLPRegressor(**QUICK)
    order = (
        r".*arguments are bx\.export_c\(path, network, theta\) or bx\.export_c\(path, estimator\)"
    )
    for given, message in (
        ((network, theta, path), "path must be the name of a file, not a Network"),
        ((theta, network, theta), "path must be the name of a file, not a ndarray"),
        ((model, path), "path must be the name of a file, not a MLPRegressor"),
        ((path, network), "theta is missing: a network holds no parameters"),
        ((path, theta, network), "network must be a bx.Network or .* not a ndarray"),
        ((path, bx.MLPRegressor), "network must be a bx.Network or .* not the class MLPRegressor"),
        ((path, model, theta), "an estimator has its own theta"),
    ):
        with pytest.raises(TypeError, match=message + order):
            bx.export_c(*given)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        bx.export_c(path, model)
    assert not path.exists()
