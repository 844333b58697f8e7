"""On a cluster of Ray the results equal those of one process."""

import os
from collections.abc import Iterator
from typing import Any

import joblib
import numpy as np
import pytest

pytest.importorskip("ray", reason="Dask and Ray are installed by nox -s clusters")

import ray
import ray.data
from ray.util.joblib import register_ray
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

import backprop_xp as bx

X, Y = load_digits(return_X_y=True)
X = X / 16.0
NETWORK = bx.mlp([64, 8, 10], hidden="relu", loss="categorical_cross_entropy")
THETA = NETWORK.initialize(seed=0, backend="numpy", dtype="float64")
OPTIONS: dict[str, Any] = {"epochs": 2, "batch_size": 600, "shuffle": False}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def test_a_grid_search_by_joblib_finds_the_same() -> None:
    register_ray()
    model = bx.MLPClassifier((16,), max_iter=60, tol=5e-2, random_state=0)
    # The log loss depends on every weight.
    search = GridSearchCV(model, {"alpha": [1e-4, 1.0]}, cv=2, scoring="neg_log_loss")
    with joblib.parallel_config("ray", n_jobs=2):
        found = clone(search).fit(X, Y)
        processes = joblib.Parallel()(joblib.delayed(os.getpid)() for _ in range(2))
    assert os.getpid() not in processes
    expected = search.fit(X, Y)
    scores = (one.cv_results_["mean_test_score"] for one in (found, expected))
    np.testing.assert_array_equal(*scores)


def test_trainings_at_once_return_the_results_of_fit() -> None:
    remote, x, y = ray.remote(bx.fit), ray.put(X), ray.put(Y)
    optimizers = bx.Adam(0.01), bx.SGD(0.1)
    tasks = [remote.remote(NETWORK, THETA, x, y, optimizer=one, **OPTIONS) for one in optimizers]
    for found, one in zip(ray.get(tasks), optimizers, strict=True):
        expected = bx.fit(NETWORK, THETA, X, Y, optimizer=one, **OPTIONS)
        np.testing.assert_array_equal(found.theta, expected.theta)
        np.testing.assert_array_equal(found.history["loss"], expected.history["loss"])
        np.testing.assert_array_equal(found.state.theta, expected.state.theta)


def test_a_dataset_gives_batches_and_is_itself_an_error_that_names_the_page() -> None:
    dataset = ray.data.from_items([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)])
    dataset = dataset.materialize()

    def batches(epoch: int) -> Iterator[Any]:
        for batch in dataset.iter_batches(batch_size=600, batch_format="numpy"):
            yield batch["x"], batch["y"]

    adam = bx.Adam(0.01)
    found = bx.fit(NETWORK, THETA, batches, optimizer=adam, epochs=2)
    expected = bx.fit(NETWORK, THETA, X, Y, optimizer=adam, **OPTIONS)
    np.testing.assert_array_equal(found.theta, expected.theta)
    calls = [
        lambda: bx.fit(NETWORK, THETA, dataset, Y, optimizer=adam, epochs=1),
        lambda: bx.fit(NETWORK, THETA, dataset, optimizer=adam, epochs=1),
        lambda: bx.fit(NETWORK, THETA, ray.put(X), Y, optimizer=adam, epochs=1),
        lambda: bx.MLPClassifier((2,)).fit(dataset, Y),
        lambda: bx.TabularClassifier().fit(dataset, Y),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=r"is distributed \(ray\..*docs/dask_and_ray\.md"):
            call()
