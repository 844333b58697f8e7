"""Ensembles: mean, spread and uncertainty of a stack, beside NumPy, SciPy and mpmath."""

import math
import tracemalloc
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import entropy

import backprop_xp as bx
from tests.helpers import long

# Sums over the members in another order than NumPy's: some roundings of float64.
ROUNDING = 1e-13
# A difference of probabilities p - q loses a rounding of p beside it, here at least 1e-5.
NEARLY_EQUAL = 1e-9

N_IN = 3


def _case(
    xp: Any, loss: str, n_out: int, stack: tuple[int, ...], rows: int = 50
) -> tuple[bx.Network, Any, np.ndarray]:
    """Return a network, a stack of thetas, and x on the host."""
    network = bx.mlp([N_IN, 4, n_out], hidden="tanh", loss=loss)
    x = 2.0 * np.random.default_rng(0).normal(size=(rows, N_IN))
    return network, xp.initialize(network, stack=stack), x


def _logits(xp: Any, logits: Any, dtype: str = "working") -> tuple[bx.Network, Any, Any]:
    """Return a network of the classes' logits themselves, ``(members, n_out)``, and a row x."""
    logits = np.asarray(logits)
    loss = "binary_cross_entropy" if logits.shape[1] == 1 else "categorical_cross_entropy"
    network = bx.Network([bx.Dense(1, logits.shape[1])], loss)
    theta = np.concatenate([logits, 0.0 * logits], axis=-1)  # weights, biases
    return network, xp.asarray(theta, dtype=dtype), xp.asarray([[1.0]], dtype=dtype)


@pytest.mark.parametrize("batch_size", [None, long(1), long(7)])
@pytest.mark.parametrize("stack", [long(()), (5,), long((2, 3))])
def test_mean_and_deviation_are_those_of_all_predictions(
    xp: Any, stack: tuple[int, ...], batch_size: int | None
) -> None:
    network, theta, x = _case(xp, "poisson", 2, stack)
    found = bx.ensemble.predict(network, theta, xp.asarray(x), batch_size=batch_size)
    each = xp.host(network.predict(theta, xp.asarray(x))).reshape(-1, 50, 2)
    xp.assert_close(found.mean, each.mean(0), ROUNDING)
    xp.assert_close(found.standard_deviation, each.std(0), ROUNDING)
    assert found.mean.dtype == found.standard_deviation.dtype == theta.dtype


@pytest.mark.parametrize("batch_size", [long(None), long(1000), 5000])
def test_members_that_come_some_at_a_time_are_all_counted_once(
    xp: Any, batch_size: int | None
) -> None:
    # Of 1,000 rows four members come at a time, of 9; of 5,000 one does.
    network, theta, x = _case(xp, "categorical_cross_entropy", 3, (9,), rows=5000)
    options = {"batch_size": batch_size}
    prediction = bx.ensemble.predict(network, theta, xp.asarray(x), **options)
    found = bx.ensemble.uncertainty(network, theta, xp.asarray(x), **options)
    each = xp.host(network.predict(theta, xp.asarray(x)))
    xp.assert_close(prediction.mean, each.mean(0), ROUNDING)
    xp.assert_close(prediction.standard_deviation, each.std(0), ROUNDING)
    xp.assert_close(found.total, entropy(each.mean(0), axis=-1), ROUNDING)
    xp.assert_close(found.expected, entropy(each, axis=-1).mean(0), ROUNDING)


def test_a_large_mean_leaves_a_small_deviation_its_digits(xp: Any) -> None:
    network = bx.mlp([1, 1])
    offset = 2.0**20 if xp.dtype == "float64" else 2.0**8
    theta = np.asarray([[0.0, offset + i] for i in (0, 1, 2)])
    x = xp.asarray(np.ones((4096, 1)))  # one member at a time
    found = bx.ensemble.predict(network, xp.asarray(theta), x)
    xp.assert_close(found.standard_deviation, np.full((4096, 1), math.sqrt(2.0 / 3.0)), 1e-9)


def test_the_variance_of_a_mixture_of_gaussians_has_two_parts(xp: Any) -> None:
    """The formulas of the page: predictions are means, then deviations."""
    network = bx.Network([bx.Dense(N_IN, 4)], "gaussian_nll")
    theta, x = xp.initialize(network, stack=6), xp.asarray(np.ones((5, N_IN)))
    mean, deviation = map(xp.host, bx.ensemble.predict(network, theta, x))
    epistemic, aleatoric = deviation[:, :2] ** 2, mean[:, 2:] ** 2 + deviation[:, 2:] ** 2
    means, deviations = np.split(xp.host(network.predict(theta, x)), 2, axis=-1)
    second_moment = (means**2 + deviations**2).mean(0)
    xp.assert_close(aleatoric, (deviations**2).mean(0), ROUNDING)
    xp.assert_close(epistemic + aleatoric, second_moment - means.mean(0) ** 2, ROUNDING)


@pytest.mark.parametrize("batch_size", [None, long(7)])
@pytest.mark.parametrize("stack", [long(()), (5,), long((2, 3))])
def test_uncertainty_of_two_classes_is_that_of_scipys_entropies(
    xp: Any, stack: tuple[int, ...], batch_size: int | None
) -> None:
    network, theta, x = _case(xp, "binary_cross_entropy", 1, stack)
    found = bx.ensemble.uncertainty(network, theta, xp.asarray(x), batch_size=batch_size)
    p = expit(xp.host(network.forward(theta, xp.asarray(x)))[..., 0]).reshape(-1, 50)
    both = np.stack([1.0 - p, p], axis=-1)
    _assert_entropies(xp, found, both)


def test_each_of_several_labels_has_its_own_uncertainty(xp: Any) -> None:
    network, theta, x = _case(xp, "binary_cross_entropy", 3, (5,))
    found = bx.ensemble.uncertainty(network, theta, xp.asarray(x))
    p = expit(xp.host(network.forward(theta, xp.asarray(x))))
    _assert_entropies(xp, found, np.stack([1.0 - p, p], axis=-1))
    assert found.total.shape == (50, 3)


def test_uncertainty_of_a_softmax_is_that_of_scipys_entropies(xp: Any) -> None:
    network, theta, x = _case(xp, "categorical_cross_entropy", 4, (6,))
    found = bx.ensemble.uncertainty(network, theta, xp.asarray(x))
    _assert_entropies(xp, found, softmax(xp.host(network.forward(theta, xp.asarray(x))), axis=-1))


def _assert_entropies(xp: Any, found: bx.ensemble.Uncertainty, p: np.ndarray) -> None:
    """Hold an uncertainty to that of probabilities ``(members, ..., classes)``."""
    total, expected = entropy(p.mean(0), axis=-1), entropy(p, axis=-1).mean(0)
    # Differences of entropies of up to 1.4, from float32's probabilities too.
    xp.assert_close(found.total, total, 10.0 * ROUNDING)
    xp.assert_close(found.expected, expected, 10.0 * ROUNDING)
    xp.assert_close(found.mutual_information, total - expected, 10.0 * ROUNDING)


@pytest.mark.parametrize("dtype", ["float32", "working"])
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [0.0, 1e2, 1e4])
def test_sure_members_are_as_uncertain_as_they_disagree(
    xp: Any, size: float, classes: int, dtype: str
) -> None:
    sure = size * np.eye(2, classes)  # the first class, or the second
    sure[1, 0] = -sure[0, 0] if classes == 1 else 0.0
    for members, information in (([0, 0], 0.0), ([0, 1], math.log(2.0) * bool(size))):
        found = bx.ensemble.uncertainty(*_logits(xp, sure[members], dtype))
        entropy_of_each = 0.0 if size else math.log(max(2, classes))
        values = [float(xp.host(value)[0]) for value in found]
        expected = [information + entropy_of_each, entropy_of_each, information]
        np.testing.assert_allclose(values, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_out", [1, 3])
def test_the_focal_loss_has_the_uncertainty_of_its_probabilities(xp: Any, n_out: int) -> None:
    name = "binary_cross_entropy" if n_out == 1 else "categorical_cross_entropy"
    network, theta, x = _case(xp, name, n_out, (5,))
    focal = bx.Network(network.layers, bx.losses.focal())
    found = [bx.ensemble.uncertainty(n, theta, xp.asarray(x)) for n in (network, focal)]
    for one, other in zip(*found, strict=True):
        xp.assert_equal(one, other)


@pytest.mark.float64
@pytest.mark.parametrize("loss", ["binary_cross_entropy", "categorical_cross_entropy"])
@pytest.mark.parametrize("spread", [1e-5, 1e-2, 1.0, 20.0, 300.0])
def test_a_small_disagreement_keeps_its_digits(xp: Any, spread: float, loss: str) -> None:
    generator = np.random.default_rng(1)
    n_out = 1 if loss == "binary_cross_entropy" else 3
    logits = generator.normal(size=n_out) + spread * generator.normal(size=(4, n_out))
    found = bx.ensemble.uncertainty(*_logits(xp, logits, "float64"))
    with mpmath.workdps(60):
        both = np.concatenate([0.0 * logits, logits], axis=1) if n_out == 1 else logits
        powers = [[mpmath.exp(value) for value in row] for row in both.tolist()]
        p = [[value / sum(row) for value in row] for row in powers]
        mean = [sum(column) / 4 for column in zip(*p, strict=True)]
        information = sum(
            a * mpmath.log(a / m) for row in p for a, m in zip(row, mean, strict=True)
        )
        expected = -sum(a * mpmath.log(a) for row in p for a in row)
    np.testing.assert_allclose(
        xp.host(found.mutual_information), [float(information / 4)], rtol=NEARLY_EQUAL
    )
    # Beside a probability that rounds to 1 the others keep their digits, it has none.
    np.testing.assert_allclose(
        xp.host(found.expected), [float(expected / 4)], rtol=1e-10, atol=1e-16
    )


@pytest.mark.parametrize("logit", [5.0, 50.0])
def test_the_entropy_of_a_sure_member_keeps_its_size(xp: Any, logit: float) -> None:
    found = bx.ensemble.uncertainty(*_logits(xp, [[logit], [-logit]]))
    p = mpmath.mpf(1) / (1 + mpmath.exp(logit))
    expected = -float(p * mpmath.log(p) + (1 - p) * mpmath.log(1 - p))
    # Of the entropy of a small p, p - p log(p), the first term is lost beside a 1.
    np.testing.assert_allclose(xp.host(found.expected), [expected], rtol=1.1 / logit)


@pytest.mark.parametrize("roundings", [0, 1])
def test_no_mutual_information_is_below_0(xp: Any, roundings: int) -> None:
    network = bx.Network([bx.Dense(3, 3)], "categorical_cross_entropy")
    theta = np.concatenate([np.eye(3).reshape(-1), np.zeros(3)])
    members = 1.0 + roundings * float(np.finfo(xp.dtype).eps) * np.arange(2.0)[:, None]
    x = np.random.default_rng(0).normal(size=(20_000, 3))  # many: few of them round below 0
    found = bx.ensemble.uncertainty(network, xp.asarray(members * theta), xp.asarray(x))
    assert xp.host(found.mutual_information).min() >= 0.0
    assert xp.host(found.mutual_information).max() <= xp.rounding(1e-15)


def test_a_member_that_diverged_is_seen_in_every_row(xp: Any) -> None:
    network, theta, x = _case(xp, "binary_cross_entropy", 1, (3,))
    host = xp.host(theta).copy()
    host[1, 0] = np.nan
    results = (
        *bx.ensemble.predict(network, xp.asarray(host), xp.asarray(x)),
        *bx.ensemble.uncertainty(network, xp.asarray(host), xp.asarray(x)),
    )
    assert all(np.isnan(xp.host(result)).all() for result in results)


def test_rows_on_the_host_are_moved_and_cast(xp: Any, tmp_path: Path) -> None:
    network, theta, x = _case(xp, "binary_cross_entropy", 1, (3,))
    path = tmp_path / "x"
    x.astype(np.float32).tofile(path)
    mapped = np.memmap(path, np.float32, "r", shape=x.shape)
    whole = xp.asarray(x.astype(np.float32))
    for predict in (bx.ensemble.predict, bx.ensemble.uncertainty):
        for found, expected in zip(
            predict(network, theta, mapped, batch_size=8),
            predict(network, theta, whole, batch_size=8),
            strict=True,
        ):
            xp.assert_equal(found, expected)


def test_nothing_moves_to_the_host(xp: Any) -> None:
    network, theta, x = _case(xp, "categorical_cross_entropy", 3, (3,))
    x = xp.asarray(x)
    with bx.transfer_guard("disallow"):
        bx.ensemble.predict(network, theta, x)
        bx.ensemble.uncertainty(network, theta, x)


@pytest.mark.once
def test_memory_grows_neither_with_the_members_nor_with_the_file(tmp_path: Path) -> None:
    rows, members = 20_000, 100
    network = bx.mlp([8, 16, 1], loss="binary_cross_entropy")
    theta = network.initialize(stack=members, backend="numpy")
    np.zeros((rows, 8)).tofile(tmp_path / "x")
    x = np.memmap(tmp_path / "x", np.float64, "r", shape=(rows, 8))
    for predict, results in ((bx.ensemble.predict, 2), (bx.ensemble.uncertainty, 3)):
        tracemalloc.start()
        predict(network, theta, x)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # The results, which are joined from parts, and a pass: 4,096 rows of 16 units, some times.
        assert peak < 8 * (2 * results * rows + 8 * 4096 * 16)
        assert peak < 8 * rows * members / 10  # all predictions take 16 MB


def test_wrong_arguments_are_refused_by_name(xp: Any) -> None:
    network, theta, x = _case(xp, "mean_squared_error", 1, (3,))
    with pytest.raises(ValueError, match="probabilities, which 'mean_squared_error' does not"):
        bx.ensemble.uncertainty(network, theta, xp.asarray(x))
    for wrong, message in (
        (x[None, ...].repeat(3, 0), r"x has shape \(3, 50, 3\), but \(batch, n_in\) is expected"),
        (x[:0], r"x has shape \(0, 3\), but"),
        (x[:, :2], "x has 2 features"),
    ):
        with pytest.raises(ValueError, match=message):
            bx.ensemble.predict(network, theta, xp.asarray(wrong))
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1, not 0"):
        bx.ensemble.predict(network, theta, xp.asarray(x), batch_size=0)
    with pytest.raises(ValueError, match=r"theta has shape \(3, 20\), but this network's"):
        bx.ensemble.predict(network, theta[:, :-1], xp.asarray(x))
    with pytest.raises(TypeError, match="theta must be an array, not list"):
        bx.ensemble.predict(network, [[0.0]], x)
