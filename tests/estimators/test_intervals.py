"""Prediction intervals of a regressor: closed forms, coverage, files, and what is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import backprop_xp as bx
from backprop_xp.files.container import decode, encode
from tests.helpers import thorough

X = np.linspace(-2.0, 2.0, 40)[:, None]
NOISE = 0.3
Y = np.sin(2.0 * X[:, 0]) + NOISE * np.random.default_rng(0).normal(size=40)
OPTIONS: dict[str, Any] = {"hidden_layer_sizes": 5, "activation": "tanh", "alpha": 0.1}
OPTIONS |= {"solver": "lm", "max_iter": 200, "random_state": 0}
LINEAR = {**OPTIONS, "hidden_layer_sizes": (), "tol": 1e-14}
# The last step of a linear model lowers the loss by 1e-14 of it: theta is right to the root.
SAME = 1e-6
# A right interval fails a test of coverage with at most this probability.
RARE = 1e-4

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def _on_the_backend(xp: Any) -> Iterator[None]:
    with bx.use_backend(xp.selection.backend, xp.selection.device, xp.dtype):
        yield


def _bayesian(
    x: np.ndarray, y: np.ndarray, new: np.ndarray, alpha: float, coverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interval of Bayesian linear regression in closed form.

    Weights have the prior variance ``s^2 / alpha``, the intercept a flat prior, and the noise is
    estimated with n - gamma degrees of freedom (MacKay 1992).
    """
    rows, places = (np.column_stack([a, np.ones(len(a))]) for a in (x, new))
    precision = rows.T @ rows + alpha * np.diag([1.0] * x.shape[1] + [0.0])
    covariance = np.linalg.inv(precision)
    mean = covariance @ rows.T @ y
    freedom = len(x) - np.trace(covariance @ rows.T @ rows)
    variance = np.sum((y - rows @ mean) ** 2) / freedom
    predicted = variance * (1.0 + np.einsum("ij,jk,ik->i", places, covariance, places))
    width = scipy.stats.t.ppf(0.5 + coverage / 2.0, freedom) * np.sqrt(predicted)
    return places @ mean - width, places @ mean + width


@pytest.mark.float64
@pytest.mark.parametrize("alpha", [0.0, 3.0])
@pytest.mark.parametrize("units", [1.0, 1e3])
def test_laplace_is_bayesian_linear_regression_without_hidden_layers(
    alpha: float, units: float
) -> None:
    generator = np.random.default_rng(1)
    x, new = generator.normal(size=(25, 3)), generator.normal(size=(9, 3))
    y = units * (x @ [1.0, 0.0, -2.0] + 5.0 + generator.normal(size=25))
    model = bx.MLPRegressor(**{**LINEAR, "alpha": alpha}, interval="laplace").fit(x, y)
    for coverage in (0.5, 0.95):
        found = model.predict_interval(new, coverage)
        expected = _bayesian(x, y, new, alpha, coverage)
        np.testing.assert_allclose(found, expected, rtol=SAME, atol=SAME * units)


@pytest.mark.float64
def test_each_output_has_its_own_noise() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(25, 2))
    y = x @ [[1.0, 30.0], [0.0, 5.0]] + [1.0, 100.0] * generator.normal(size=(25, 2))
    model = bx.MLPRegressor(**LINEAR, interval="laplace").fit(x, y)
    lower, upper = model.predict_interval(x)
    for k in range(2):
        expected = _bayesian(x, y[:, k], x, 0.1, 0.9)
        np.testing.assert_allclose((lower[:, k], upper[:, k]), expected, rtol=SAME, atol=1e-4)


@pytest.mark.once
def test_conformal_bounds_are_those_of_the_definition() -> None:
    model = bx.MLPRegressor(**OPTIONS, interval="conformal").fit(X, Y)
    kept, network = model._interval, model._network(1)
    new = np.asarray([[-1.5], [0.1], [3.0]])
    values = np.stack(
        [bx.to_host(network.predict(bx.asarray(t[0]), bx.asarray(new)))[:, 0] for t in kept.thetas]
    )
    lower, upper = model.predict_interval(new, 0.8)
    for j in range(len(new)):
        low, high = (sorted(values[kept.folds, j] + sign * kept.errors[:, 0]) for sign in (-1, 1))
        # Barber et al. 2021: the values of rank floor(0.2 * 41) and ceil(0.8 * 41).
        np.testing.assert_allclose([lower[j], upper[j]], [low[8 - 1], high[33 - 1]])


@pytest.mark.parametrize("kind", ["conformal", "laplace"])
def test_a_larger_coverage_has_a_wider_interval_around_one_value(kind: str) -> None:
    model = bx.MLPRegressor(**{**OPTIONS, "max_iter": 20}, interval=kind).fit(X, Y)
    new, before = np.linspace(-4.0, 4.0, 80)[:, None], None
    for coverage in (5e-324, 1e-12, 0.02, 0.05, 0.3, 0.45, 0.5, 0.55, 0.9):
        lower, upper = model.predict_interval(new, coverage)
        assert np.all(lower <= upper)
        assert before is None or np.all((lower <= before[0]) & (before[1] <= upper))
        before = lower, upper


@pytest.mark.once
def test_a_conformal_interval_of_a_small_coverage_contains_the_median_prediction() -> None:
    for rows, ranks in ((40, {0.05: 3, 0.3: 13}), (39, {0.05: 2, 0.3: 12})):
        model = bx.MLPRegressor(**OPTIONS, interval="conformal").fit(X[:rows], Y[:rows])
        kept, network = model._interval, model._network(1)
        values = [bx.to_host(network.predict(theta[0], X)[:, 0]) for theta in kept.thetas]
        middle = np.stack(values)[kept.folds]
        median = np.sort(middle, axis=0)[rows // 2]
        low, high = (np.sort(middle + sign * kept.errors, axis=0) for sign in (-1, 1))
        for coverage, rank in ranks.items():  # the smallest integer of at least c (n + 1)
            lower, upper = model.predict_interval(X, coverage)
            np.testing.assert_allclose(lower, np.minimum(low[rows - rank], median))
            np.testing.assert_allclose(upper, np.maximum(high[rank - 1], median))


@pytest.mark.once
def test_errors_are_those_of_networks_that_have_not_seen_the_row() -> None:
    kept = bx.MLPRegressor(**LINEAR, interval="conformal").fit(X, Y)._interval
    for fold in range(5):
        left = kept.folds == fold
        alone = bx.MLPRegressor(**LINEAR).fit(X[~left], Y[~left])
        errors = np.abs(alone.predict(X[left]) - Y[left])
        np.testing.assert_allclose(kept.errors[left, 0], errors, atol=SAME)


@pytest.mark.once
@pytest.mark.parametrize("trials", [25, thorough(200)])
@pytest.mark.parametrize("kind", ["laplace", "conformal"])
def test_ninety_of_hundred_new_targets_are_covered(kind: str, trials: int) -> None:
    generator, covered = np.random.default_rng(3), 0
    for _ in range(trials):  # a target of each data set, so that they are independent
        x = generator.uniform(-2.0, 2.0, size=(41, 2))
        y = x @ [1.0, -1.0] + generator.normal(size=41)
        model = bx.MLPRegressor(**{**OPTIONS, "hidden_layer_sizes": ()}, interval=kind)
        lower, upper = model.fit(x[1:], y[1:]).predict_interval(x[:1])
        covered += int(lower[0] <= y[0] <= upper[0])
    low, high = scipy.stats.binom.interval(1.0 - RARE, trials, 0.9)
    assert low <= covered <= high


@pytest.mark.once
@pytest.mark.parametrize("noise", ["normal", "two scales"])
def test_conformal_covers_a_curve_with_any_noise(noise: str) -> None:
    """The bounds are those of split conformal prediction calibrated on all 200 rows.

    Given the fit, its coverage of new rows has a beta distribution (Vovk 2012). The binomial
    deviation of 4,000 rows is small beside it.
    """
    generator = np.random.default_rng(4)
    x, rows = generator.uniform(-2.0, 2.0, size=(4200, 1)), 200
    scale = NOISE * (1.0 if noise == "normal" else np.where(x[:, 0] > 0.0, 2.0, 0.2))
    y = np.sin(2.0 * x[:, 0]) + scale * generator.normal(size=4200)
    model = bx.MLPRegressor(**OPTIONS, interval="conformal").fit(x[:rows], y[:rows])
    lower, upper = model.predict_interval(x[rows:])
    covered = np.mean((lower <= y[rows:]) & (y[rows:] <= upper))
    low, high = scipy.stats.beta.interval(1.0 - RARE, 181, 20)
    assert low <= covered <= high


@pytest.mark.once
def test_the_spread_of_members_is_not_an_interval() -> None:
    generator = np.random.default_rng(5)
    x = generator.uniform(-2.0, 2.0, size=(4100, 1))
    y = np.sin(2.0 * x[:, 0]) + NOISE * generator.normal(size=4100)
    model = bx.MLPRegressor(**OPTIONS, n_members=8, interval="conformal").fit(x[:100], y[:100])
    mean, deviation = model.predict(x[100:], return_std=True)
    lower, upper = model.predict_interval(x[100:])
    assert np.mean(np.abs(y[100:] - mean) <= 1.645 * deviation) < 0.5
    assert np.mean((lower <= y[100:]) & (y[100:] <= upper)) > 0.8


def test_laplace_widens_away_from_the_rows() -> None:
    model = bx.MLPRegressor(**OPTIONS, interval="laplace").fit(X, Y)
    lower, upper = model.predict_interval([[0.0], [2.0], [3.0]])
    assert np.all(np.diff(upper - lower) > 0.0)


@pytest.mark.parametrize("kind", ["laplace", "conformal"])
@pytest.mark.parametrize("targets", [Y, np.stack([Y, 2.0 * Y], axis=1)], ids=["one", "two"])
def test_bounds_have_the_shape_of_predictions(kind: str, targets: np.ndarray) -> None:
    model = bx.MLPRegressor(**OPTIONS, interval=kind).fit(X, targets)
    lower, upper = model.predict_interval(X)
    assert lower.shape == upper.shape == model.predict(X).shape
    assert np.all(lower < upper)


@pytest.mark.parametrize("kind", ["laplace", "conformal"])
def test_blocks_of_rows_have_the_same_bounds(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = bx.MLPRegressor(**OPTIONS, interval=kind).fit(X, Y)
    whole = model.predict_interval(X)
    monkeypatch.setattr("backprop_xp.estimators.intervals._NUMBERS_AT_ONCE", 300)
    np.testing.assert_allclose(model.predict_interval(X), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.once
def test_conformal_takes_members_and_any_loss() -> None:
    for more in ({"n_members": 2, "n_restarts": 2}, {"loss": "huber"}):
        model = bx.MLPRegressor(**OPTIONS, **more, interval="conformal").fit(X, Y)
        lower, upper = model.predict_interval(X)
        assert np.mean((lower <= Y) & (upper >= Y)) > 0.7


@pytest.mark.once
@pytest.mark.parametrize("kind", ["laplace", "conformal"])
def test_a_saved_model_has_its_intervals(kind: str, tmp_path: Path) -> None:
    model = bx.MLPRegressor(**OPTIONS, interval=kind).fit(X, Y)
    model.save(tmp_path / "model.safetensors")
    kept = bx.MLPRegressor.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(kept.predict_interval(X), model.predict_interval(X))


@pytest.mark.once
def test_a_later_fit_without_intervals_has_none() -> None:
    model = bx.MLPRegressor(**OPTIONS, interval="laplace").fit(X, Y)
    model.set_params(interval=None, solver="adam", max_iter=2).fit(X, Y)
    with pytest.raises(ValueError, match=r"predict_interval needs a fit with solver='lm' and"):
        model.predict_interval(X)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another solver": ({"solver": "adam"}, r"interval='laplace' .* it needs solver='lm'"),
    "another loss": ({"loss": "huber"}, "needs loss='squared_error', not 'huber'"),
    "members": ({"n_members": 2}, "needs n_members=1, not 2: interval='conformal' takes any"),
    "too many weights": (
        {"alpha": 0.0, "hidden_layer_sizes": 60},
        "effective parameters are .* raise alpha",
    ),
}


@pytest.mark.once
@pytest.mark.parametrize("name", REFUSED)
def test_what_laplace_does_not_take_is_an_error(name: str) -> None:
    options, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        bx.MLPRegressor(**{**OPTIONS, "interval": "laplace", **options}).fit(X, Y)


@pytest.mark.once
def test_sample_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="interval expects equal rows, but there is a sample_weig"):
        bx.MLPRegressor(**OPTIONS, interval="conformal").fit(X, Y, np.ones(40))


@pytest.mark.once
def test_conformal_covers_values_that_derivatives_teach() -> None:
    """Bounds as in ``test_conformal_covers_a_curve_with_any_noise``; a third of dy is missing."""
    generator = np.random.default_rng(6)
    x, rows = generator.uniform(-2.0, 2.0, size=(4200, 1)), 200
    y = np.sin(2.0 * x[:, 0]) + NOISE * generator.normal(size=4200)
    dy = 2.0 * np.cos(2.0 * x[:rows]) + 0.1 * generator.normal(size=(rows, 1))
    dy[::3] = np.nan
    for more in ({}, {"n_members": 2}):
        model = bx.MLPRegressor(**{**OPTIONS, **more}, interval="conformal")
        lower, upper = model.fit(x[:rows], y[:rows], dy=dy).predict_interval(x[rows:])
        covered = np.mean((lower <= y[rows:]) & (y[rows:] <= upper))
        low, high = scipy.stats.beta.interval(1.0 - RARE, 181, 20)
        assert low <= covered <= high
        # The errors are those of values: the width is the noise's, not that of derivatives.
        assert np.mean(upper - lower) == pytest.approx(2.0 * 1.645 * NOISE, rel=0.2)


@pytest.mark.once
def test_laplace_refuses_derivatives_and_weights_beside_them_are_refused() -> None:
    dy = 2.0 * np.cos(2.0 * X)
    with pytest.raises(ValueError, match=r"the derivatives dy have another .*conformal' takes dy"):
        bx.MLPRegressor(**OPTIONS, interval="laplace").fit(X, Y, dy=dy)
    with pytest.raises(ValueError, match="interval expects equal rows"):
        bx.MLPRegressor(**OPTIONS, interval="conformal").fit(X, Y, np.ones(40), dy=dy)


@pytest.mark.once
def test_a_coverage_needs_enough_rows() -> None:
    model = bx.MLPRegressor(**OPTIONS, interval="conformal").fit(X[:19], Y[:19])
    assert np.isfinite(model.predict_interval(X, 0.95)).all()
    with pytest.raises(ValueError, match=r"coverage=0.96 needs the errors of at least 24 rows"):
        model.predict_interval(X, 0.96)
    for coverage in (0.0, 1.0, 95):
        with pytest.raises(ValueError, match="coverage must be"):
            model.predict_interval(X, coverage)


DAMAGED = {
    "a fold that is not there": ("conformal", "folds", np.full(40, 5)),
    "errors of other rows": ("conformal", "errors", np.ones((39, 1))),
    "another network": ("conformal", "thetas", np.ones((5, 1, 15))),
    "another factor": ("laplace", "factor", np.ones((16, 15))),
    "more outputs": ("laplace", "freedom", np.ones(2)),
}


@pytest.mark.once
@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_whose_interval_is_of_another_model_is_an_error(name: str, tmp_path: Path) -> None:
    kind, field, array = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    bx.MLPRegressor(**OPTIONS, interval=kind).fit(X, Y).save(path)
    header, tensors = decode(path.read_bytes())
    key = f"estimator.interval.{kind}.{field}"
    assert key in tensors
    path.write_bytes(encode(header, {**tensors, key: array}))
    with pytest.raises(bx.CheckpointError, match="the interval's"):
        bx.MLPRegressor.load(path)
