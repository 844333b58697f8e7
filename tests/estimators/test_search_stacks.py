"""Searches of scikit-learn whose fits are trained as stacks give what they give without it.

Specifies ``search_stacks``, ``tasks``, ``minimization`` and ``stochastic_rules``.
"""

import contextlib
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.exceptions import ConvergenceWarning, FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.model_selection import (
    GridSearchCV,
    HalvingGridSearchCV,
    RandomizedSearchCV,
    cross_val_score,
    cross_validate,
    learning_curve,
    validation_curve,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import backprop_xp as bx
from backprop_xp.backends.protocol import Memory
from backprop_xp.estimators import full_batch, search_stacks, stochastic
from backprop_xp.estimators.search_stacks import StackedBackend
from tests.helpers import thorough

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(67, 4))  # folds of 22 and 23 rows
Y = np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.1 * GENERATOR.normal(size=67)
LABELS = np.digitize(Y, [-0.5, 0.5])
WEIGHT = GENERATOR.uniform(0.5, 2.0, size=67)

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def _on_numpy() -> Iterator[None]:
    with bx.use_backend("numpy"):
        yield


@pytest.fixture
def stacks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets the number of networks of each stack that is trained."""
    sizes = list[int]()
    for module in (stochastic, full_batch):
        train = module.train

        def counting(jobs: Any, progress: Any, train: Any = train) -> None:
            sizes.append(len(jobs))
            train(jobs, progress)

        monkeypatch.setattr(module, "train", counting)
    return sizes


def regressor(**options: Any) -> bx.MLPRegressor:
    return bx.MLPRegressor(
        **{"hidden_layer_sizes": 6, "batch_size": 16, "max_iter": 25, "random_state": 0, **options}
    )


CONTEXTS: list[Callable[[], Any]] = [contextlib.nullcontext, bx.stacked]
RATES = {"alpha": [1e-3, 1.0], "learning_rate_init": [1e-3, 1e-2]}

# The estimator, the parameters, and the sizes of the stacks over three folds of 44 and 45 rows.
CASES: dict[str, tuple[Any, dict[str, Any], list[int]]] = {
    "adam": (
        regressor(),
        {**RATES, "beta_1": [0.8, 0.9], "beta_2": [0.99, 0.999], "epsilon": [1e-8, 1e-4]},
        [64, 32],
    ),
    "random starts": (regressor(), {"random_state": [0, 1, 2]}, [3, 6]),
    "adaptive": (
        regressor(solver="sgd", learning_rate="adaptive", tol=0.01, n_iter_no_change=1),
        {"learning_rate_init": [0.01, 0.2], "momentum": [0.5, 0.9]},
        [4, 8],
    ),
    "invscaling": (
        regressor(solver="sgd", learning_rate="invscaling"),
        {"learning_rate_init": [0.1, 0.2]},
        [2, 4],
    ),
    "no momentum": (regressor(solver="sgd"), {"momentum": [0.0, 0.5, 0.9]}, [1, 2, 2, 4]),
    "adamw": (regressor(solver="adamw"), RATES, [4, 8]),
    "rmsprop": (regressor(solver="rmsprop"), {**RATES, "beta_2": [0.9, 0.99]}, [8, 16]),
    "rules": (
        regressor(max_iter=60, learning_rate_init=0.05),
        {"tol": [1e-4, 0.1], "n_iter_no_change": [1, 4, 2000], "max_iter": [7, 60]},
        [12, 24],
    ),
    "early stopping": (
        regressor(early_stopping=True, n_iter_no_change=3, learning_rate_init=0.02, max_iter=80),
        {"alpha": [1e-3, 1.0], "random_state": [0, 1]},
        [4, 8],
    ),
    "full batch": (regressor(batch_size="auto", clip=1.0), {"alpha": [0.1, 1.0]}, [2, 4]),
    "in order": (regressor(shuffle=False), {"alpha": [0.1, 1.0]}, [2, 4]),
    "sizes": (regressor(), {"hidden_layer_sizes": [3, (4, 4)], **RATES}, [4, 8, 4, 8]),
    "pipeline": (
        make_pipeline(StandardScaler(), regressor()),
        {"mlpregressor__alpha": [1e-3, 1.0]},
        [2, 4],
    ),
    "lm": (
        regressor(solver="lm", activation="tanh", hidden_layer_sizes=3, batch_size="auto"),
        {"alpha": [0.1, 1.0, 10.0]},
        [3, 6],
    ),
    "intervals": (
        regressor(solver="lm", activation="tanh", hidden_layer_sizes=3, batch_size="auto"),
        {"alpha": [1.0, 10.0], "interval": ["laplace", "conformal"]},
        [4, 8],
    ),
    "lbfgs": (
        regressor(solver="lbfgs", activation="tanh", max_iter=10),
        {"alpha": [0.1, 1.0, 10.0]},
        [3, 6],
    ),
}


@pytest.mark.parametrize("case", [c if c in ("adam", "rules") else thorough(c) for c in CASES])
def test_a_search_finds_what_it_finds_without_a_stack(case: str, stacks: list[int]) -> None:
    model, parameters, sizes = CASES[case]
    search = GridSearchCV(model, parameters, cv=3)
    plain = clone(search).fit(X, Y)
    del stacks[:]
    with bx.stacked(64):
        found = search.fit(X, Y)
    assert sorted(stacks[:-1]) == sorted(sizes)
    assert stacks[-1] == 1  # the fit of the best one
    close(found.cv_results_, plain.cv_results_)
    assert found.best_params_ == plain.best_params_
    np.testing.assert_allclose(found.predict(X), plain.predict(X), rtol=1e-6)


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Assert that results of a search are equal to rounding, but for times."""
    for name, values in expected.items():
        if name.startswith(("split", "mean_test", "std_test")):
            np.testing.assert_allclose(found[name], values, rtol=1e-6, atol=1e-9)


FUNCTIONS: dict[str, Callable[[], Any]] = {
    "cross_val_score": lambda: cross_val_score(regressor(), X, Y),
    "weights": lambda: cross_val_score(regressor(), X, Y, params={"sample_weight": WEIGHT}),
    "classes": lambda: (
        GridSearchCV(
            bx.MLPClassifier(6, max_iter=20, random_state=0),
            {"class_weight": [None, "balanced", {0: 2.0}], **RATES},
        )
        .fit(X, LABELS)
        .cv_results_["mean_test_score"]
    ),
    "several outputs": lambda: cross_val_score(regressor(), X, np.stack([Y, 10.0 * Y], axis=1)),
    "derivatives": lambda: (
        GridSearchCV(
            regressor(activation="tanh", solver="lm", batch_size="auto"), {"alpha": [0.1, 1.0]}
        )
        .fit(X, Y, dy=X)
        .cv_results_["mean_test_score"]
    ),
    "learning_curve": lambda: learning_curve(regressor(batch_size=4), X, Y, cv=3)[2],
    "validation_curve": lambda: validation_curve(
        regressor(), X, Y, param_name="alpha", param_range=[0.1, 1.0, 10.0]
    )[1],
    "random candidates": lambda: (
        RandomizedSearchCV(regressor(), {"alpha": [0.1, 1.0, 3.0]}, n_iter=2, random_state=0)
        .fit(X, Y)
        .cv_results_["mean_test_score"]
    ),
    "halving by rows": lambda: (
        HalvingGridSearchCV(regressor(batch_size=4), RATES, random_state=0, min_resources=20, cv=2)
        .fit(X, Y)
        .cv_results_["mean_test_score"]
    ),
    "halving by epochs": lambda: (
        HalvingGridSearchCV(
            regressor(), RATES, resource="max_iter", min_resources=5, max_resources=20
        )
        .fit(X, Y)
        .cv_results_["mean_test_score"]
    ),
    "a search in each fold": lambda: cross_val_score(
        GridSearchCV(regressor(), {"alpha": [0.1, 1.0]}, cv=2), X, Y, cv=3
    ),
}


@pytest.mark.parametrize(
    "name", [n if n in ("classes", "weights") else thorough(n) for n in FUNCTIONS]
)
def test_what_else_calls_joblib_gives_the_same(name: str, stacks: list[int]) -> None:
    expected = FUNCTIONS[name]()
    assert set(stacks) == {1}
    with bx.stacked():
        found = FUNCTIONS[name]()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert max(stacks) > 1


@pytest.mark.parametrize("n_jobs", [1, 2])
@pytest.mark.parametrize("solver", ["adam", "lm"])
def test_progress_shows_the_epochs_of_each_stack(
    solver: str, n_jobs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    model = regressor(solver=solver, batch_size="auto", max_iter=3, tol=0.0)
    with bx.stacked(2, n_jobs=n_jobs, progress=True):
        cross_val_score(model, X[:66], Y[:66], cv=6)
    lines = capsys.readouterr().err.splitlines()
    stacks = [1, 2, 3] if n_jobs == 1 else [1, 3]  # of two at a time the first
    assert [line.split("  ")[:2] for line in lines] == [
        [f"epoch {epoch}/3", f"stack {stack}: 2 fits"] for stack in stacks for epoch in (1, 2, 3)
    ]
    assert all(re.search(r"  loss 0\.\d+ \(best of 2\)$", line) for line in lines)
    with pytest.raises(TypeError, match=r"progress must be True or False"):
        bx.stacked(progress="yes")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        {"n_members": 2},
        {"n_restarts": 2},
        {"dropout": 0.1},
        {"learning_rate": bx.schedules.cosine(0.01, 50)},
        {"verbose": True},
        {"warm_start": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_fit_that_no_stack_can_have_is_trained_alone(
    options: dict[str, Any], stacks: list[int]
) -> None:
    model = regressor(max_iter=3, **options)
    expected = cross_val_score(model, X, Y, cv=2)
    with bx.stacked():
        found = cross_val_score(model, X, Y, cv=2)
    assert set(stacks) == {1}
    np.testing.assert_array_equal(found, expected)


class Constant(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """The mean of the targets: an estimator that trains nothing here."""

    def fit(self, X: Any, y: Any) -> "Constant":  # noqa: N803
        self.mean_ = float(np.mean(y))
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), self.mean_)


def test_another_estimator_runs_as_without_it() -> None:
    expected = cross_val_score(Constant(), X, Y)
    with joblib.parallel_config("backprop_xp"):
        np.testing.assert_array_equal(cross_val_score(Constant(), X, Y), expected)


@pytest.mark.parametrize("n_jobs", [2, -1])
def test_several_stacks_are_trained_at_a_time(n_jobs: int, stacks: list[int]) -> None:
    expected = cross_val_score(regressor(), X[:60], Y[:60], cv=6)
    del stacks[:]
    with bx.stacked(2, n_jobs=n_jobs):
        found = cross_val_score(regressor(), X[:60], Y[:60], cv=6)
    assert stacks == [2, 2, 2]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with bx.stacked(2), pytest.raises(ValueError, match="n_jobs == 0"):
        cross_val_score(regressor(), X, Y, n_jobs=0)


def test_each_fit_warns_as_without_it() -> None:
    model, found = regressor(max_iter=2), list[list[str]]()
    for context in CONTEXTS:
        with warnings.catch_warnings(record=True) as caught, context():
            warnings.simplefilter("always")
            cross_val_score(model, X, Y, cv=4)
        assert {warning.category for warning in caught} == {ConvergenceWarning}
        found.append([str(warning.message) for warning in caught])
    assert found[0] == found[1]
    assert len(found[0]) == 4


class Recording(bx.MLPRegressor):
    """A perceptron that keeps the number of warnings of its fit for itself."""

    numbers: ClassVar[list[int]] = []

    def fit(self, X: Any, y: Any) -> "Recording":  # noqa: N803
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            super().fit(X, y)
        self.numbers.append(len(caught))
        return self


class Silent(bx.MLPRegressor):
    """A perceptron that ignores the warnings of its fit."""

    def fit(self, X: Any, y: Any) -> "Silent":  # noqa: N803
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            super().fit(X, y)
        return self


def test_the_filters_of_a_fit_are_its_own() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = [*warnings.filters]
        for context in CONTEXTS:
            del Recording.numbers[:]
            with context():
                cross_val_score(Recording(max_iter=2), X, Y, cv=4)
                scores = cross_val_score(Silent(max_iter=2), X, Y, cv=4)
            assert Recording.numbers == [1, 1, 1, 1]
            assert np.isfinite(scores).all()
            assert warnings.filters == before


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:One or more of the test scores")
def test_an_error_is_that_of_one_candidate() -> None:
    huge = np.where(np.arange(67) < 22, 1e308, Y)  # in the training rows of two of three folds
    search = GridSearchCV(regressor(solver="sgd"), {"alpha": [0.1, 1.0]}, cv=3, refit=False)
    found = list[Any]()
    for context in CONTEXTS:
        with pytest.warns(FitFailedWarning, match="4 fits failed"), context():
            found.append(clone(search).fit(X, huge).cv_results_)
    for name in ("split0_test_score", "split1_test_score", "split2_test_score"):
        np.testing.assert_array_equal(np.isnan(found[1][name]), np.isnan(found[0][name]))
    search.error_score, threads = "raise", len(threading.enumerate())
    with bx.stacked(), pytest.raises(ValueError, match="non-finite"):
        search.fit(X, huge)
    assert len(threading.enumerate()) == threads


def test_if_a_stack_fails_each_fit_is_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = cross_val_score(regressor(), X[:60], Y[:60], cv=3)
    fit, failed = stochastic.fit, list[int]()

    def failing(network: Any, theta: Any, *arguments: Any, **options: Any) -> Any:
        if len(theta.shape) > 1:
            result = fit(network, theta, *arguments, **{**options, "epochs": 2})
            failed.append(result.epochs)
            raise MemoryError
        return fit(network, theta, *arguments, **options)

    monkeypatch.setattr(stochastic, "fit", failing)
    with bx.stacked():
        found = cross_val_score(regressor(), X[:60], Y[:60], cv=3)
    assert failed == [2]
    np.testing.assert_array_equal(found, expected)


def press_ctrl_c() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class Interrupted(bx.MLPRegressor):
    """A perceptron whose fit never ends: Ctrl-C comes before its training."""

    def fit(self, X: Any, y: Any) -> "Interrupted":  # noqa: N803
        press_ctrl_c()
        while True:
            pass


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_in_a_task_ends_the_search_and_all_threads(n_jobs: int) -> None:
    threads = len(threading.enumerate())
    with bx.stacked(2, n_jobs=n_jobs), pytest.raises(KeyboardInterrupt):
        cross_val_score(Interrupted(), X, Y, cv=4)
    assert len(threading.enumerate()) == threads


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_ctrl_c_in_a_stack_ends_the_search_and_all_threads(
    n_jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, count = len(threading.enumerate()), stochastic.Rules.count
    presses = iter([press_ctrl_c])  # one for both stacks

    def pressing(self: Any, state: Any) -> Any:
        if state.epoch == 3:
            next(presses, lambda: None)()
        return count(self, state)

    monkeypatch.setattr(stochastic.Rules, "count", pressing)
    model = regressor(max_iter=10**6, n_iter_no_change=10**6)
    with bx.stacked(2, n_jobs=n_jobs), pytest.raises(KeyboardInterrupt):
        cross_val_score(model, X[:60], Y[:60], cv=4)
    assert len(threading.enumerate()) == threads


class Stubborn(bx.MLPRegressor):
    """A perceptron that tries again, whatever has ended its fit."""

    def fit(self, X: Any, y: Any) -> "Stubborn":  # noqa: N803
        for _ in range(3):
            try:
                return super().fit(X, y)
            except:  # noqa: E722
                self.n_failed_ = 1
        return self


def test_a_fit_that_catches_everything_is_ended_too() -> None:
    def failing(model: Any, x: Any, y: Any) -> float:
        raise LookupError

    threads = len(threading.enumerate())
    for n_jobs in (1, 2):
        with bx.stacked(2, n_jobs=n_jobs), pytest.raises(LookupError):
            cross_val_score(Stubborn(max_iter=2), X, Y, scoring=failing, error_score="raise", cv=8)
    assert len(threading.enumerate()) == threads


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a lost one
@pytest.mark.parametrize("n_jobs", [1, 2])
def test_no_interruption_is_lost(n_jobs: int) -> None:
    """It comes at a random time in a search; some searches end before it."""
    threads, model, ended = len(threading.enumerate()), regressor(max_iter=3), 0
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        for delay in np.random.default_rng(0).uniform(1e-3, 0.2, size=100).tolist():
            try:
                signal.setitimer(signal.ITIMER_REAL, delay)
                with bx.stacked(4, n_jobs=n_jobs):
                    cross_val_score(model, X, Y, cv=20)
            except KeyboardInterrupt:
                ended += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert ended > 0
    assert len(threading.enumerate()) <= threads + 1  # a thread whose start was interrupted


def score_by_training(model: Any, x: Any, y: Any) -> float:
    return float(regressor(batch_size="auto").fit(x, y).score(x, y))


@pytest.mark.parametrize("scoring", [None, score_by_training])
def test_the_time_of_a_fit_is_its_share_of_the_stack(scoring: Any) -> None:
    start = time.perf_counter()
    with bx.stacked():
        found = cross_validate(regressor(batch_size="auto"), X[:60], Y[:60], cv=6, scoring=scoring)
    assert (found["fit_time"] > 0.0).all()
    assert (found["score_time"] > 0.0).all()
    assert (found["fit_time"] + found["score_time"]).sum() < time.perf_counter() - start


def test_a_result_with_a_fit_time_of_another_kind_stays_as_it_is() -> None:
    result = {"fit_time": "0.1 s"}
    with bx.stacked():
        assert joblib.Parallel()([joblib.delayed(lambda: result)()])[0] is result


def test_the_context_acts_within_with_alone() -> None:
    def backend() -> Any:
        return joblib.parallel.get_active_backend()[0]

    outer, context = type(backend()), bx.stacked()
    assert type(backend()) is outer
    with context:
        assert isinstance(backend(), StackedBackend)
        # The parts into which others divide their work.
        assert joblib.effective_n_jobs() == 64
    assert type(backend()) is outer


def test_the_state_of_numpys_errors_is_that_of_the_search() -> None:
    huge = np.full(60, 1e200)
    for n_jobs in (1, 2):
        context = bx.stacked(2, n_jobs=n_jobs)
        with np.errstate(all="raise"), context, pytest.raises(FloatingPointError):
            cross_val_score(regressor(), X[:60], huge, cv=6, error_score="raise")


def test_fits_that_wait_hold_no_more_than_some_bytes(
    stacks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    of_fit = 8 * (50 * 4 + 50 + (4 + 1) * 6 + 7)  # x, y, theta
    monkeypatch.setattr(search_stacks, "_WAITING", 3 * of_fit)
    with bx.stacked(10):
        cross_val_score(regressor(), X[:60], Y[:60], cv=6)
        assert stacks == [3, 3]
        del stacks[:]
        monkeypatch.setattr(search_stacks, "_TASKS", 4)
        monkeypatch.setattr(search_stacks, "_WAITING", 10**9)
        cross_val_score(regressor(), X[:60], Y[:60], cv=6)
    assert stacks == [4, 2]


@pytest.mark.parametrize(("free", "sizes"), [(16, [4, 8]), (3, [1, 3, 2, 3, 3]), (0, [1] * 12)])
def test_a_stack_takes_a_quarter_of_the_free_memory(
    free: float, sizes: list[int], stacks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three folds, of 44, 45 and 45 rows, for each of four candidates."""
    of_network = 8 * (45 * 4 + 45 + (4 + 1) * 6 + 7 + 16 * 6)  # x, y, theta, outputs of a batch
    total, backend = int(4 * free * of_network) + 1000, type(bx.get_backend("numpy"))
    monkeypatch.setattr(backend, "memory", lambda *_: Memory(used=1000, total=total))
    with bx.stacked():
        GridSearchCV(regressor(), RATES, cv=3, refit=False).fit(X, Y)
    assert sorted(stacks) == sorted(sizes)


@pytest.mark.parametrize("n_networks", [0, 2.5, "many"])
def test_a_wrong_number_of_networks_is_an_error(n_networks: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="n_networks"):
        bx.stacked(n_networks)


def test_networks_leave_a_stack_when_a_quarter_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, fit = list[int](), stochastic.fit

    def counting(network: Any, theta: Any, *arguments: Any, **options: Any) -> Any:
        sizes.append(theta.shape[0] if len(theta.shape) > 1 else 1)
        return fit(network, theta, *arguments, **options)

    monkeypatch.setattr(stochastic, "fit", counting)
    model = regressor(n_iter_no_change=10**6)
    epochs = [2, 3, 5, 7, 9, 12, 15, 20]
    search = GridSearchCV(model, {"max_iter": epochs}, cv=[(range(50), range(50, 67))], refit=False)
    with bx.stacked():
        search.fit(X, Y)
    assert sizes == [8, 6, 4, 3, 2, 1]
