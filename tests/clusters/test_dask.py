"""On a cluster of Dask the results equal those of one process."""

import os
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest

pytest.importorskip("distributed", reason="Dask and Ray are installed by nox -s clusters")
pytest.importorskip("dask_ml", reason="Dask and Ray are installed by nox -s clusters")

import dask
import dask.array as da
import dask.bag
import dask.dataframe as dd
import pandas as pd
from dask_ml.wrappers import Incremental, ParallelPostFit
from distributed import Client, LocalCluster
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import backprop_xp as bx

X, Y = load_digits(return_X_y=True)
X = X / 16.0
BLOCKS = [slice(start, start + 600) for start in range(0, len(X), 600)]
CLASSES = list(range(10))


@pytest.fixture(scope="module", autouse=True)
def client() -> Iterator[Client]:
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield client


def tables() -> tuple[Any, Any]:
    return da.from_array(X, chunks=(600, 64)), da.from_array(Y, chunks=600)


def assert_same_coefs(found: Any, expected: Any) -> None:
    for one, other in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_grid_search_by_joblib_finds_the_same() -> None:
    model = bx.MLPClassifier((16,), max_iter=60, tol=5e-2, random_state=0)
    # The log loss depends on every weight.
    search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=2, scoring="neg_log_loss")
    with joblib.parallel_config("dask", n_jobs=-1):
        found = clone(search).fit(X, Y)
        processes = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(2))
    assert os.getpid() not in processes
    expected = search.fit(X, Y)
    scores = (one.cv_results_["mean_test_score"] for one in (found, expected))
    np.testing.assert_array_equal(*scores)


def test_incremental_and_parallel_post_fit_equal_partial_fit_and_predict() -> None:
    x, y = tables()
    found = Incremental(bx.MLPClassifier((16,), random_state=0), shuffle_blocks=False)
    expected = bx.MLPClassifier((16,), random_state=0)
    for _ in range(2):
        found.partial_fit(x, y, classes=CLASSES)
        for rows in BLOCKS:
            expected.partial_fit(X[rows], Y[rows], classes=CLASSES)
    assert_same_coefs(found.estimator_, expected)
    predictor = ParallelPostFit(expected)
    np.testing.assert_array_equal(predictor.predict(x).compute(), expected.predict(X))
    np.testing.assert_array_equal(predictor.predict_proba(x), expected.predict_proba(X))


def test_fit_gives_the_same_result_on_a_worker_and_from_the_blocks_of_an_array(
    client: Client,
) -> None:
    network = bx.mlp([64, 8, 10], hidden="relu", loss="categorical_cross_entropy")
    theta = network.initialize(seed=0, backend="numpy", dtype="float64")
    options: dict[str, Any] = {"optimizer": bx.Adam(0.01), "epochs": 2}
    expected = bx.fit(network, theta, X, Y, batch_size=600, shuffle=False, **options)
    x, y = tables()

    def batches(epoch: int) -> Iterator[Any]:
        return (dask.compute(x.blocks[i], y.blocks[i]) for i in range(x.numblocks[0]))

    there = client.submit(bx.fit, network, theta, X, Y, batch_size=600, shuffle=False, **options)
    for found in (there.result(), bx.fit(network, theta, batches, **options)):
        np.testing.assert_array_equal(found.theta, expected.theta)
        np.testing.assert_array_equal(found.history["loss"], expected.history["loss"])
        np.testing.assert_array_equal(found.state.theta, expected.state.theta)


@pytest.mark.parametrize("kind", ["array", "DataFrame", "delayed", "bag"])
def test_a_collection_is_an_error_that_names_the_page(kind: str) -> None:
    x, y = tables()
    values = {
        "array": x,
        "DataFrame": dd.from_pandas(pd.DataFrame(X), npartitions=2),
        "delayed": dask.delayed(X),
        "bag": dask.bag.from_sequence([(X, Y)]),
    }
    network = bx.mlp([64, 10], loss="categorical_cross_entropy")
    theta = network.initialize(seed=0, backend="numpy", dtype="float64")
    fitted = bx.MLPClassifier((2,), random_state=0).partial_fit(X, Y, classes=CLASSES)
    value, options = values[kind], {"optimizer": bx.Adam(), "epochs": 1}
    calls = [
        lambda: bx.fit(network, theta, value, **options),
        lambda: bx.fit(network, theta, [(value, Y)], **options),
        lambda: network.predict(theta, value),
        lambda: bx.MLPClassifier((2,)).fit(value, Y),
        lambda: bx.MLPClassifier((2,)).fit(X, y),
        lambda: fitted.predict(value),
        lambda: bx.TabularClassifier().fit(value, Y),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"is distributed \(dask.*docs/dask_and_ray\.md"):
            call()
